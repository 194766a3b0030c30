"""A run's tables and figures as the committed results, with where they come from."""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from vlact import ROOT, params
from vlact.report.tables import write_text
from vlact.tools import docs, zoo

PACKAGES = ("torch", "numpy", "pandas", "transformers", "open_clip_torch", "av", "matplotlib")
CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict:
    """What decides the last bits of a number: processor, instruction set, versions."""
    import torch

    cpu = platform.processor() or platform.machine()
    if CPUINFO.is_file():
        names = [x for x in CPUINFO.read_text(encoding="utf-8").splitlines() if "model name" in x]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def commit() -> str:
    """The checkout's commit, with a mark if tracked files differ from it; "" outside git."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    return git("rev-parse", "HEAD") + (", changed" if git("status", "--porcelain", "-uno") else "")


def made() -> dict:
    """Where and from what something is made now."""
    return {"machine": machine(), "commit": commit(), "date": time.strftime("%Y-%m-%d")}


def note_of(profile: str, notebook: str) -> Path:
    """Where a run keeps the machine and commit of the stage that a notebook is."""
    return ROOT / "data" / "executed" / f"{profile}-{Path(notebook).stem}.json"


def note(profile: str, notebook: str) -> None:
    """Keep where a stage was run: what is published later may come from another commit."""
    write_text(note_of(profile, notebook), json.dumps(made(), indent=1) + "\n")


def run_of(profile: str, folder: Path) -> dict:
    """Machine, commit and date of a stage's run, of its folder of figures; those of now, marked,
    where its run kept no note.
    """
    listed = folder / "map.json"
    rows = json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []
    kept = note_of(profile, rows[0]["notebook"]) if rows else None
    if kept and kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    return made() | {"note": "of publishing: the stage's run kept no note"}


def publish(profile: str) -> int:
    """Copy data/<profile>/figures to figures/<profile>; stages that were not made here keep theirs.

    run.json says of each stage on what machine, with which versions and of which commit it was run.

    Returns:
        0; 2 where there is nothing to publish.
    """
    source, to = ROOT / "data" / profile / "figures", ROOT / "figures" / profile
    if profile not in docs.PUBLISHED or not (source / "index.csv").is_file():
        expected = f"expected one of {docs.PUBLISHED} after `make repro PROFILE=..`"
        print(f"publish: {expected}; data/{profile}/figures/index.csv is not there")
        return 2
    path = to / "run.json"
    run = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"stages": {}}
    for folder in sorted(x for x in source.iterdir() if x.is_dir()):
        shutil.rmtree(to / folder.name, ignore_errors=True)
        shutil.copytree(folder, to / folder.name)
        run["stages"][folder.name] = run_of(profile, folder)
    if (source / "claims").is_dir():
        (to / "rules.md").unlink(missing_ok=True)  # of the ledger before, see vlact.tools.rejudge
    shutil.copy(source / "index.csv", to / "index.csv")
    p = params.load(profile)
    with contextlib.suppress(FileNotFoundError):  # a run whose weights are gone keeps its page
        write_text(to / "zoo.md", zoo.page(p, zoo.table(p)))
    write_text(path, json.dumps(run, indent=1) + "\n")
    docs.docs()
    print(f"figures/{profile}: {len(run['stages'])} stages, see README.md and run.json there")
    return 0
