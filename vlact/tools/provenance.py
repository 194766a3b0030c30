"""Where and of what something was made: machine, versions, commit; a note of each stage's run."""

import json
import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from vlact import ROOT
from vlact.report.tables import write_text

PACKAGES = ("torch", "numpy", "pandas", "transformers", "open_clip_torch", "av", "matplotlib")
TIMED = ("torch", "numpy", "pandas", "transformers")  # versions beside a table of times
CPUINFO = Path("/proc/cpuinfo")


def processor() -> str:
    """Its name as the system has it."""
    if CPUINFO.is_file():
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
        if names := [line for line in lines if "model name" in line]:
            return names[0].split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def machine() -> dict:
    """What decides the last bits of a number: processor, instruction set, versions."""
    import torch

    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def on_machine() -> str:
    """Processor, cores and versions in one line, for a table of times."""
    versions = ", ".join(f"{name} {version(name)}" for name in TIMED)
    return f"{processor()}, {os.cpu_count()} cores; python {platform.python_version()}, {versions}"


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
