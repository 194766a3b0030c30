"""The tables that stages exchange: their columns, units and checks.

annotation table (csv)    one row a segment: `video, start_s, end_s, label, split, group` and, where
                          they exist, `verb, object, caption`. Times in seconds from the start of the
                          file; `group` is a participant, an environment or a fold.
prediction table (parquet) one row a clip: `model, seed, profile, clip, label, predicted, ..`.
"""

import os
from pathlib import Path

import pandas as pd

ANNOTATION = ("video", "start_s", "end_s", "label", "split", "group")
OPTIONAL = ("verb", "object", "caption", "view")


def read_annotations(path: str | Path) -> pd.DataFrame:
    """Read and check an annotation table.

    Raises:
        ValueError: Unknown or missing columns, no rows, times that are no numbers or not in order;
            the message names the file and the line (the header is line 1).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected an annotation csv, found no file")
    table = pd.read_csv(path, dtype={"label": str, "split": str, "group": str, "video": str}, keep_default_na=False)
    missing = [c for c in ANNOTATION if c not in table]
    unknown = [c for c in table if c not in (*ANNOTATION, *OPTIONAL)]
    if missing or unknown:
        raise ValueError(
            f"{path}, line 1: expected columns {', '.join(ANNOTATION)} (optional: {', '.join(OPTIONAL)}); "
            f"missing {missing or 'none'}, unknown {unknown or 'none'}"
        )
    if table.empty:
        raise ValueError(f"{path}: expected at least one row after the header, found none")
    for column in ("start_s", "end_s"):
        number = pd.to_numeric(table[column], errors="coerce")
        bad = number.isna() | (number < 0)
        if bad.any():
            row = int(bad.idxmax())
            raise ValueError(f"{path}, line {row + 2}: {column} must be seconds >= 0; got {table[column][row]!r}")
        table[column] = number.astype(float)
    bad = table["end_s"] <= table["start_s"]
    if bad.any():
        row = int(bad.idxmax())
        raise ValueError(
            f"{path}, line {row + 2}: end_s must be after start_s; got start_s={table['start_s'][row]:g}, end_s={table['end_s'][row]:g}"
        )
    return table


def write_annotations(path: str | Path, table: pd.DataFrame) -> None:
    """Write an annotation table, all or nothing."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    table.to_csv(temporary, index=False, lineterminator="\n", float_format="%.6f")
    os.replace(temporary, path)
