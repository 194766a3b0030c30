"""The zoo: what a run trained, as a page: `python -m vlact.tools.zoo PROFILE [OUT.md]`.

A row a file of weights: what it is, its shape, size, sha256 and licence, the run's numbers, and the
command that makes it again. `make publish` writes the page beside the run's figures. With
`--release FOLDER` files up to `SMALL_MB` are copied there with the page; others are made again.
"""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

import pandas as pd

from vlact import params
from vlact.report.tables import markdown, write_text
from vlact.runtime.extras import needs
from vlact.tools.provenance import on_machine

with needs("vlact.tools.zoo"):
    from safetensors import safe_open

LICENCE = "MIT"  # trained here on rendered films, from random weights
# Folders of a run's data that are not called like their stage, and the stage's file of numbers
STAGES = {"pretrained": "pretraining", "aligned": "alignment"}
NUMBERS = {"pretraining": "pretrain"}
SMALL_MB = 20  # of a file that goes into a release
LONGEST = 300  # letters of a configuration
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


def table(p: params.Params) -> pd.DataFrame:
    """Rows `file, kind, config, tensors, mb, sha256, licence, numbers, command`.

    Raises:
        FileNotFoundError: The profile's run left no weights here.
    """
    rows = []
    for path in sorted(p.data.rglob("*.safetensors")):
        kind, config, tensors = shape(path)
        if not kind:  # features, not weights
            continue
        file = path.relative_to(p.data)
        stage = STAGES.get(file.parts[0], file.parts[0])
        numbers = p.metrics(NUMBERS.get(stage, stage))
        said = json.loads(numbers.read_text(encoding="utf-8")) if numbers.is_file() else {}
        rows.append(
            {
                "file": file.as_posix(),
                "kind": kind,
                "config": config,
                "tensors": tensors,
                "mb": round(path.stat().st_size / 1e6, 2),
                "sha256": sha256(path),
                "licence": LICENCE,
                "numbers": ", ".join(
                    f"{k} {v:g}" for k, v in said.items() if isinstance(v, int | float)
                ),
                "command": f"python -m vlact.stages {stage} {p.profile}",
            }
        )
    if not rows:
        raise FileNotFoundError(
            f"{p.data}: no trained weights; `make repro PROFILE={p.profile}` first"
        )
    return pd.DataFrame(rows)


def page(p: params.Params, found: pd.DataFrame) -> str:
    """The table, and what a reader must know of it."""
    return (
        f"# Trained weights of profile `{p.profile}`\n\n"
        f"`make repro PROFILE={p.profile}` makes all of them again; a row's command makes its own "
        "again where the stages before have run. The bytes, and so the hashes, are those of one "
        f"machine: {on_machine()}.\n\n{markdown(found)}\n"
    )


def release(p: params.Params, found: pd.DataFrame, to: Path) -> None:
    """Copy the files that are small enough to a folder, with the page as its README.md."""
    for file in found.loc[found["mb"] <= SMALL_MB, "file"]:
        (to / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(p.data / file, to / file)
    write_text(to / "README.md", page(p, found))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", choices=params.PROFILES)
    parser.add_argument("out", nargs="?", type=Path, help="a page; printed if not given")
    parser.add_argument("--release", type=Path, help="a folder for page and files")
    given = parser.parse_args(arguments)
    p = params.load(given.profile)
    try:
        found = table(p)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    if given.release:
        release(p, found, given.release)
    elif given.out:
        write_text(given.out, page(p, found))
    else:
        print(page(p, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
