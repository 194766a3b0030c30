"""The graph of stages as data/dvc.yaml has it, for one profile: which stage reads what another
writes, what DVC watches, which stage runs a notebook.
"""

import difflib
import hashlib
import os
import posixpath
import stat

import yaml

from vlact import ROOT

GRAPH = "data/dvc.yaml"
WATCHED = ("deps", "outs", "metrics", "plots")  # of a stage
IGNORED = {".ipynb_checkpoints", "__pycache__"}  # as in .dvcignore


class Refused(ValueError):
    """What a run needs is not there; nothing was begun."""


def parameters() -> dict:
    """What params.yaml holds."""
    return yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def known(profile: str) -> str:
    """The profile's name.

    Raises:
        Refused: There is no such profile; names the nearest.
    """
    names = sorted(parameters()["profiles"])
    if profile not in names:
        near = difflib.get_close_matches(profile, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise Refused(f"PROFILE: expected one of {', '.join(names)}; got {profile!r}{hint}")
    return profile


def stages(profile: str | None = None) -> dict[str, dict]:
    """Every stage as written, or a profile's, with paths from the root and without options."""
    content = yaml.safe_load((ROOT / GRAPH).read_text(encoding="utf-8"))
    if profile is None:
        return content["stages"]
    lists = {f"${{{k}}}": v for x in content["vars"] for k, v in x.items()}
    found = {}
    for name, stage in content["stages"].items():
        members = stage.get("matrix", {"p": [profile]})["p"]
        if profile in (lists[members] if isinstance(members, str) else members):
            found[name] = stage | {k: _paths(stage[k], profile) for k in WATCHED if k in stage}
    return found


def _paths(listed: list, profile: str) -> list[str]:
    named = [x if isinstance(x, str) else next(iter(x)) for x in listed]
    here = posixpath.dirname(GRAPH)
    return [posixpath.normpath(f"{here}/{x.replace('${item.p}', profile)}") for x in named]


def graph(profile: str) -> dict[str, set[str]]:
    """Every stage of a profile by its address, and the stages whose outputs it reads."""
    found = stages(profile)
    address = {
        name: f"{GRAPH}:{name}@{profile}" if "matrix" in stage else f"{GRAPH}:{name}"
        for name, stage in found.items()
    }
    made = {out: address[name] for name, stage in found.items() for out in stage.get("outs", ())}

    def before(stage: dict) -> set[str]:
        wanted = stage.get("deps", ())
        return {by for out, by in made.items() for d in wanted if f"{d}/".startswith(f"{out}/")}

    return {address[name]: before(stage) for name, stage in found.items()}


def persistent(profile: str) -> list[str]:
    """Folders of a profile that DVC does not empty before it runs their stage."""
    listed = [x for s in stages().values() for x in s.get("outs", ()) if isinstance(x, dict)]
    kept = [path for x in listed for path, how in x.items() if how.get("persist")]
    return _paths(kept, profile)


def short(address: str) -> str:
    """A stage's name, of its address."""
    return address.split(":")[-1].split("@")[0]


def stage_of() -> dict[str, str]:
    """The stage that runs each notebook, by the notebook's name."""
    commands = {name: stage["cmd"].split() for name, stage in stages().items()}
    return {words[1]: name for name, words in commands.items() if words[0] == "${run}"}


def fingerprint(profile: str) -> str:
    """Of all that DVC would look at for a profile, by name, size and time of change, as DVC itself
    takes a file for the one it knows.
    """
    named = {x for s in stages(profile).values() for k in WATCHED for x in s.get(k, ())}
    found, open_ = hashlib.sha256(), [GRAPH, "data/dvc.lock", "params.yaml"]
    open_ += sorted(named)
    while open_:
        name = open_.pop()
        try:
            about = os.stat(ROOT / name)
        except FileNotFoundError:
            about = None
        if about is not None and stat.S_ISDIR(about.st_mode):
            inside = sorted(os.listdir(ROOT / name))
            open_ += [f"{name}/{x}" for x in inside if x not in IGNORED]
            continue
        known_by = about and (about.st_size, about.st_mtime_ns, about.st_ino)
        found.update(f"{name} {known_by}\n".encode())
    return found.hexdigest()
