"""The zoo: what a run trained, as a page: `python -m vlact.tools.zoo PROFILE [OUT.md]`.

A row a file of weights: what it is, its shape, size, sha256 and licence, the run's numbers, and the
command that makes it again. Whoever passes weights on passes this page on with them.
"""

import argparse
import hashlib
import json
from pathlib import Path

import pandas as pd

from vlact import params
from vlact.report.tables import markdown, write_text
from vlact.runtime.extras import needs

with needs("vlact.tools.zoo"):
    from safetensors import safe_open

LICENCE = "MIT"  # trained here on rendered films, from random weights
FOLDERS = {"pretrained": "pretrain", "aligned": "alignment"}  # others are called like their stage
STAGES = ("localizers", "actionvlm", "encoders")
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
    """Rows `file, kind, config, tensors, mb, sha256, licence, numbers, command`."""
    rows = []
    for folder, stage in {**FOLDERS, **dict.fromkeys(STAGES)}.items():
        stage = stage or folder
        numbers = p.metrics(stage)
        said = json.loads(numbers.read_text(encoding="utf-8")) if numbers.is_file() else {}
        some = ", ".join(f"{k} {v:g}" for k, v in said.items() if isinstance(v, int | float))
        for path in sorted((p.data / folder).glob("*.safetensors")):
            kind, config, tensors = shape(path)
            if not kind:  # features, not weights
                continue
            rows.append(
                {
                    "file": path.relative_to(p.data).as_posix(),
                    "kind": kind,
                    "config": config,
                    "tensors": tensors,
                    "mb": round(path.stat().st_size / 1e6, 2),
                    "sha256": sha256(path),
                    "licence": LICENCE,
                    "numbers": some,
                    "command": f"python -m vlact.stages {stage} {p.profile}",
                }
            )
    if not rows:
        raise SystemExit(f"{p.data}: no trained weights; `make repro PROFILE={p.profile}` first")
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile")
    parser.add_argument("out", nargs="?", type=Path, help="a page; printed if not given")
    given = parser.parse_args()
    page = markdown(table(params.load(given.profile)))
    print(page) if given.out is None else write_text(given.out, page + "\n")


if __name__ == "__main__":
    main()
