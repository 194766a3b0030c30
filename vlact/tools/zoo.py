"""The zoo: what a run trained, as a page: `python -m vlact.tools.zoo PROFILE [OUT.md]`.

A section a stage: the command that makes its weights again, where and of what its run was; then a
row a file: kind, size, sha256, numbers. Licence and configurations stand once. `make publish`
writes the page beside the run's figures. With `--release FOLDER` files up to `SMALL_MB` are copied
there with the page; others are made again.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd

from vlact import ROOT, params
from vlact.report.tables import markdown, write_text
from vlact.runtime.extras import needs

with needs("vlact.tools.zoo"):
    from safetensors import safe_open

LICENCE = "MIT"  # trained here on rendered films, from random weights
# Folders of a run's data that are not called like their stage
STAGES = {"pretrained": "pretraining", "aligned": "alignment"}
# How a stage's numbers (metrics/<stage>.json) of a file begin, by the file's name without its seed
METRICS = {"localizer": "ActionFormer, all/mAP", "actionvlm": "fixed λ = 1.0/mAP"}
# What curves.csv beside a file calls its rows, of which the last is shown
CURVES = {
    "eye": "poses",
    "reader": "language",
    "biased_reader": "biased language",
    "seed": "trunk",  # before captions
}
FIGURES = {"pretraining": "pretrain"}  # folders of figures that are not called like their stage
BOOKS = {"ace": "11_ace_training"}  # of stages that draw nothing
NO_SCORE = ("step", "loss", "frames", "seed")  # columns of curves.csv that say nothing of it
SMALL_MB = 20  # of a file that goes into a release
LONGEST = 600  # letters of a configuration
COMMIT = 9  # letters of a hash
WHOLE = 1 << 20  # bytes read at once


def sha256(path: Path) -> str:
    """Of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(WHOLE):
            digest.update(part)
    return digest.hexdigest()


def shape(path: Path) -> tuple[str, str, int]:
    """(kind, configuration as JSON, tensors) of a file that `vlact.models.files` wrote."""
    with safe_open(path, framework="np") as file:
        said = file.metadata() or {}
        count = len(list(file.keys()))
    kind, config = next(iter(said.items()), ("", ""))
    return kind, config if len(config) <= LONGEST else f"{config[:LONGEST]}..", count


def numbers(data: Path, path: Path, stage: str) -> str:
    """What the run knows of a file: the stage's mean over seeds, or the end of its own curve."""
    stem, seed = re.fullmatch(r"(.*?)(\d*)", path.stem).groups()
    kept = data / "metrics" / f"{stage}.json"
    if stem in METRICS and kept.is_file():
        said = json.loads(kept.read_text(encoding="utf-8"))
        mine = {k.split("/", 1)[1]: v for k, v in said.items() if k.startswith(METRICS[stem])}
        return ", ".join(f"{k} {v:g}" for k, v in mine.items()) + " (mean over seeds)"
    curve = path.with_name("curves.csv")
    if not curve.is_file():
        return "–"
    table = pd.read_csv(curve)
    mine = table[table.iloc[:, 0] == CURVES.get(stem, stem)]
    if seed and "seed" in mine:
        mine = mine[mine["seed"] == int(seed)]
    if mine.empty:
        return "–"
    last = mine.iloc[-1, 1:].dropna().drop(list(NO_SCORE), errors="ignore")
    return ", ".join(f"{k} {v:.3g}" for k, v in last.items())


def table(data: Path, profile: str) -> pd.DataFrame:
    """Rows `stage, file, kind, config, tensors, mb, sha256, licence, numbers, command`.

    Args:
        data: Where the stages of a run left their data, `Params.data` as a rule.
        profile: The run's.

    Raises:
        FileNotFoundError: The run left no weights there.
    """
    rows = []
    for path in sorted(data.rglob("*.safetensors")):
        kind, config, tensors = shape(path)
        if not kind:  # features, not weights
            continue
        file = path.relative_to(data)
        stage = STAGES.get(file.parts[0], file.parts[0])
        rows.append(
            {
                "stage": stage,
                "file": file.as_posix(),
                "kind": kind,
                "config": config,
                "tensors": tensors,
                "mb": round(path.stat().st_size / 1e6, 2),
                "sha256": sha256(path),
                "licence": LICENCE,
                "numbers": numbers(data, path, stage),
                "command": f"python -m vlact.stages {stage} {profile}",
            }
        )
    if not rows:
        raise FileNotFoundError(f"{data}: no trained weights; `make repro PROFILE={profile}` first")
    return pd.DataFrame(rows)


def made(data: Path, profile: str, stage: str) -> str:
    """Of what commit and where a stage was run, by its run's note; and whether what is published of
    it comes from another run.
    """
    folder = FIGURES.get(stage, stage)
    listed = data / "figures" / folder / "map.json"
    rows = json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []
    book = Path(rows[0]["notebook"]).stem if rows else BOOKS.get(stage, "")
    kept = data.parent / "executed" / f"{profile}-{book}.json"
    if not kept.is_file():
        return "Its run kept no note of machine and commit."
    run = json.loads(kept.read_text(encoding="utf-8"))
    place, commit = run["machine"], run["commit"]
    said = f"Run of {run['date']}, commit {commit[:COMMIT]}: {place['cpu']}, "
    said += f"{place['cores']} cores, python {place['python']}, torch {place['versions']['torch']}."
    shown = ROOT / "figures" / profile / "run.json"
    stages = json.loads(shown.read_text(encoding="utf-8"))["stages"] if shown.is_file() else {}
    other = stages.get(folder, {}).get("commit", commit)
    if other != commit:
        said += f" figures/{profile}/{folder} is of another run, commit {other[:COMMIT]}."
    return said


def page(data: Path, profile: str, found: pd.DataFrame) -> str:
    """The rows of `table` by stage, and what a reader must know of them."""
    small = found["mb"] <= SMALL_MB
    large = "; larger ones are made again" if not small.all() else ""
    parts = [
        f"# Trained weights of profile `{profile}`",
        f"`make repro PROFILE={profile}` makes all of them again, a section's command its own "
        f"where the stages before have run. Bytes, and so hashes, are those of the machine named. "
        f"Licence: {LICENCE}; trained here on rendered films, from random weights.",
        f"`python -m vlact.tools.zoo {profile} --release FOLDER` copies what a release holds: the "
        f"files up to {SMALL_MB} MB, {small.sum()} of {len(found)}, "
        f"{found.loc[small, 'mb'].sum():.0f} MB{large}. They load with `vlact` as they are.",
    ]
    for stage, rows in found.groupby("stage", sort=False):
        shown = rows[["file", "kind", "tensors", "mb", "numbers", "sha256"]]
        parts += [f"## {stage}", f"`{rows['command'].iloc[0]}`. {made(data, profile, stage)}"]
        parts.append(markdown(shown).strip())
        for (kind, config), same in rows.groupby(["kind", "config"], sort=False):
            names = ", ".join(same["file"].map(lambda f: Path(f).stem))
            parts.append(f"Configuration, `{kind}`, of {names}:\n\n```json\n{config}\n```")
    return "\n\n".join(parts) + "\n"


def release(data: Path, profile: str, found: pd.DataFrame, to: Path) -> None:
    """Copy the files that are small enough to a folder, with the page as its README.md."""
    for file in found.loc[found["mb"] <= SMALL_MB, "file"]:
        (to / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / file, to / file)
    write_text(to / "README.md", page(data, profile, found))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", choices=params.PROFILES)
    parser.add_argument("out", nargs="?", type=Path, help="a page; printed if not given")
    parser.add_argument("--release", type=Path, help="a folder for page and files")
    parser.add_argument("--data", type=Path, help="the run's folder, if not data/PROFILE")
    given = parser.parse_args(arguments)
    profile, data = given.profile, given.data or params.load(given.profile).data
    try:
        found = table(data, profile)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    if given.release:
        release(data, profile, found, given.release)
    elif given.out:
        write_text(given.out, page(data, profile, found))
    else:
        print(page(data, profile, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
