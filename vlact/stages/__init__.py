"""The stages of the pipeline as functions: files in, files out, resumable.

A notebook calls its own stage, and those before it, which return at once when their outputs are there
and were made by the same code and parameters. In a scratch workspace (a notebook opened by itself) a
stale or missing input is made on the spot; in a pipeline workspace it is an error that says to run
`make repro`. One file a stage, so that work on one does not make the others stale.
"""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from vlact import jobs
from vlact.params import Params

READING = ("video.py", "clips.py", "schema.py")
CODE = {  # what each stage's outputs depend on, as files under vlact/, and its sections of the parameters
    "worlds": (
        ("stages/worlds.py", "worlds/scene.py", "worlds/render.py", "worlds/things.py", "worlds/workbench.py", "worlds/corpus.py",
         "language/captions.yaml", "language/tasks.py", "video.py"),
        ("world",),
    ),
    "pretrain": (
        ("stages/pretrain.py", "models/dual.py", "models/frames.py", "models/text.py", "training.py", "pretraining.py", *READING),
        ("model", "pretrain", "seeds"),
    ),
    "ace": (
        ("stages/ace.py", "runs.py", "finetuning.py", "losses/ace.py", "models/zoo", "language/trees.py", "language/tasks.py",
         "language/trees", "language/srt.yaml", "inference.py", "metrics/selection.py", "metrics/classification.py"),
        ("ace",),
    ),
    "ace_sweeps": ((), ()),
}  # fmt: skip


def stage_key(p: Params, stage: str) -> str:
    """Hash of the code and parameters that a stage and those before it depend on."""
    parts: list = []
    for name in list(CODE)[: list(CODE).index(stage) + 1]:
        files, sections = CODE[name]
        parts += [jobs.source_key(*files), {k: asdict(p)[k] for k in sections}]
    return jobs.key(*parts)


def done(p: Params, stage: str, folder: Path) -> bool:
    """Whether `folder` holds the stage's output, made by this code and these parameters."""
    note = folder / "made_by.json"
    return note.is_file() and json.loads(note.read_text())["key"] == stage_key(p, stage)


def finish(p: Params, stage: str, folder: Path) -> None:
    """Sign the stage's output and throw its checkpoints away."""
    temporary = folder / "made_by.tmp"
    temporary.write_text(json.dumps({"stage": stage, "key": stage_key(p, stage)}) + "\n")
    os.replace(temporary, folder / "made_by.json")
    shutil.rmtree(p.scratch / stage, ignore_errors=True)


def must_run(p: Params, stage: str, folder: Path, must_exist: bool) -> bool:
    """Whether a stage has to run; `must_exist` asks on behalf of a later stage.

    Raises:
        FileNotFoundError: A later stage of a pipeline workspace finds its input missing or stale.
    """
    if done(p, stage, folder):
        return False
    if must_exist and p.workspace == p.profile:
        raise FileNotFoundError(
            f"{folder}: expected the output of stage '{stage}' made by this code and these parameters; run `make repro PROFILE={p.profile}`"
        )
    return True
