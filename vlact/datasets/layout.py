"""What the readers of real datasets share: files whose errors name them, sound tables, and frame numbers to seconds."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd

from vlact import video


def text(path: str | Path) -> str:
    """A text file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not text in UTF-8; names the byte.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8; byte {error.start} is {error.object[error.start]:#04x}") from None


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
        raise ValueError(f"{path}, line 2: more cells than line 1 names columns ({len(table.columns)}); expected {what}")
    if missing := [c for c in columns if c not in table]:
        raise ValueError(f"{path}, line 1: missing columns {missing}; expected {what}, got {list(table.columns)[:6]}")
    if table.empty:
        raise ValueError(f"{path}: expected at least one row after the header, found none")
    return table


def sound(table: pd.DataFrame, path: str | Path, row: str = "line {}", first: int = 2) -> pd.DataFrame:
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
                raise ValueError(f"{path}, {row.format(i + first)}: {column} must be seconds; got {table[column][i]!r}")
            table = table.assign(**{column: number})
    for column in ("video", "label"):
        if column in table and (bad := table[column].isna() | (table[column].astype(str).str.strip() == "")).any():
            i = bad.idxmax()
            raise ValueError(f"{path}, {row.format(i + first)}: {column} must not be empty; got {table[column][i]!r}")
    return table


def require(path: Path, dataset: str, what: str) -> Path:
    """The path, if it is there.

    Raises:
        ValueError: It is not; says what was expected.
    """
    if not path.exists():
        raise ValueError(f"{path}: {dataset} expects {what} there, found nothing; `make doctor PROFILE=paper` says where to get it")
    return path


class FrameTimes:
    """Frame numbers to seconds, probing each video once: annotations count frames, and files differ in rate."""

    def __init__(self, folder: Path):
        self.folder, self.known = Path(folder), {}

    def probe(self, name: str, where: str) -> video.VideoInfo:
        if name not in self.known:
            try:
                self.known[name] = video.probe(self.folder / name)
            except video.VideoError as error:
                raise ValueError(f"{where}: {error}") from error
        return self.known[name]

    def seconds(self, name: str, first: int, last: int, where: str) -> tuple[float, float]:
        """Start and end of the inclusive frames `first`..`last`.

        Raises:
            ValueError: Not whole numbers in order, or a start after the file's end. An end after it is cut: views
                of one scene differ by a few frames.
        """
        info = self.probe(name, where)
        try:
            first, last = int(first), int(last)
        except ValueError:
            raise ValueError(f"{where}: frames must be whole numbers; got {first!r} and {last!r}") from None
        if not 0 <= first <= last:
            raise ValueError(f"{where}: expected 0 <= start_frame <= end_frame; got {first} and {last}")
        if first >= len(info.times):
            raise ValueError(f"{where}: frames {first}..{last} start after {self.folder / name} ends ({len(info.times)} frames)")
        end = float(info.times[last + 1]) if last + 1 < len(info.times) else info.duration_s
        return float(info.times[first]), end
