"""Files read so that errors name them, and the tables that stages exchange: their columns, units and checks.

annotation table (csv)    one row a segment: `video, start_s, end_s, label, split, group` and, where
                          they exist, `verb, object, caption`. Times in seconds from the start of the
                          file; `group` is a participant, an environment or a fold.
prediction table (parquet) one row a clip: `model, seed, profile, clip, label, predicted, ..`.
"""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.runtime.jobs import write_whole

ANNOTATION = ("video", "start_s", "end_s", "label", "split", "group")
OPTIONAL = ("verb", "object", "caption", "view")


def text(path: str | Path) -> str:
    """A text file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not text in UTF-8; names the byte.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in UTF-8; byte {error.start} is {error.object[error.start]:#04x}"
        ) from None


def json_object(path: str | Path) -> dict:
    """A JSON file that holds an object.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is something else.
    """
    try:
        content = json.loads(text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON; {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object; got {type(content).__name__}")
    return content


def csv(path: str | Path, columns: tuple[str, ...], what: str, **given) -> pd.DataFrame:
    """A csv with at least these columns and a row; further arguments are pandas'.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No csv, missing columns, or no rows; names the file.
    """
    content = text(path)
    try:
        table = pd.read_csv(io.StringIO(content), **given)
    except ValueError as error:  # pandas' own say what, not where
        raise ValueError(f"{path}: expected {what}; {str(error).strip()}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas would shift the columns
        raise ValueError(
            f"{path}, line 2: more cells than line 1 names columns ({len(table.columns)}); expected {what}"
        )
    if missing := [c for c in columns if c not in table]:
        raise ValueError(
            f"{path}, line 1: missing columns {missing}; expected {what}, got {list(table.columns)[:6]}"
        )
    if table.empty:
        raise ValueError(f"{path}: expected at least one row after the header, found none")
    return table


def sound(
    table: pd.DataFrame, path: str | Path, row: str = "line {}", first: int = 2
) -> pd.DataFrame:
    """The table with its times as numbers.

    Args:
        table: With some of `start_s, end_s, duration_s, video, label`; its index counts the rows of the file.
        path: Where it comes from.
        row: How a row is called in errors.
        first: The number of the first row.

    Raises:
        ValueError: A time that is no finite number, or an empty video or label; names the row.
    """
    for column in ("start_s", "end_s", "duration_s"):
        if column in table:
            number = pd.to_numeric(table[column], errors="coerce").astype(float)
            if (bad := ~np.isfinite(number)).any():
                i = bad.idxmax()
                raise ValueError(
                    f"{path}, {row.format(i + first)}: {column} must be seconds; got {table[column][i]!r}"
                )
            table = table.assign(**{column: number})
    for column in ("video", "label"):
        if (
            column in table
            and (bad := table[column].isna() | (table[column].astype(str).str.strip() == "")).any()
        ):
            i = bad.idxmax()
            raise ValueError(
                f"{path}, {row.format(i + first)}: {column} must not be empty; got {table[column][i]!r}"
            )
    return table


def read_annotations(path: str | Path) -> pd.DataFrame:
    """Read and check an annotation table.

    Raises:
        ValueError: Unknown or missing columns, no rows, times that are no numbers or not in order;
            the message names the file and the line (the header is line 1).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected an annotation csv, found no file")
    wanted = f"a csv with columns {', '.join(ANNOTATION)} (optional: {', '.join(OPTIONAL)})"
    table = csv(
        path,
        ANNOTATION,
        wanted,
        dtype={c: str for c in (*ANNOTATION, *OPTIONAL)},
        keep_default_na=False,
    )
    if unknown := [c for c in table if c not in (*ANNOTATION, *OPTIONAL)]:
        raise ValueError(f"{path}, line 1: unknown columns {unknown}; expected {wanted}")
    return spans(table, path)


def spans(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """The rows of a csv with `start_s` and `end_s` as numbers.

    Raises:
        ValueError: One that is no number or below 0, or an end that is not after its start; names the line.
    """
    for column in ("start_s", "end_s"):
        number = pd.to_numeric(table[column], errors="coerce")
        if (bad := ~np.isfinite(number) | (number < 0)).any():
            row = int(bad.idxmax())
            raise ValueError(
                f"{path}, line {row + 2}: {column} must be seconds >= 0; got {table[column][row]!r}"
            )
        table = table.assign(**{column: number.astype(float)})
    if (bad := table["end_s"] <= table["start_s"]).any():
        row = int(bad.idxmax())
        start, end = table.loc[row, ["start_s", "end_s"]]
        raise ValueError(
            f"{path}, line {row + 2}: end_s must be after start_s; got start_s={start:g}, end_s={end:g}"
        )
    return table


def write_annotations(path: str | Path, table: pd.DataFrame) -> None:
    """Write an annotation table, all or nothing."""
    write_whole(
        Path(path),
        lambda data, to: data.to_csv(to, index=False, lineterminator="\n", float_format="%.6f"),
        table,
    )
