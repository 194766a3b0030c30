"""Files read so that errors name them, and the tables that stages exchange: columns, units, checks.

annotation table (csv)    one row a segment: `video, start_s, end_s, label, split, group` and,
                          where they exist, `verb, object, caption`. Times in seconds from the
                          start of the file; `group` is a participant, an environment or a fold.
prediction table (parquet) one row a clip: `model, seed, profile, clip, label, predicted, ..`.

Labels are compared by `label_key` everywhere: blanks, underscores, case and the form of Unicode do
not make two labels of one.
"""

import codecs
import csv as csv_module
import gc
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from itertools import chain, compress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np
import yaml

try:
    import orjson
except ModuleNotFoundError:  # of an extra; the standard library reads the same, slower
    orjson = json

if TYPE_CHECKING:
    import pandas as pd


ANNOTATION = ("video", "start_s", "end_s", "label", "split", "group")
OPTIONAL = ("verb", "object", "caption", "view")
TIMES = ("start_s", "end_s", "duration_s")
DEEPEST = 64  # levels of objects and lists in a JSON; those of the field have five
NESTING = frozenset((dict, list))
SEPARATORS = (",", ";", "\t")
OUTSIDE = "VLACT_OUTSIDE"  # in the environment, "1": paths may lead out of their folder
HOURS = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d(?:\.\d+)?)", re.ASCII)
COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
BETWEEN = re.compile(r"(?<!\d)[\s_]+|[\s_]+(?!\d)")  # not between digits: "1 1" is not "11"


# Labels
def label_key(label) -> str:
    """What two spellings of one label have in common.

    >>> label_key("Throw_Discus") == label_key("throw discus") == label_key("ThrowDiscus")
    True
    >>> label_key(7.0) == label_key("7"), label_key("1 1") == label_key("11")
    (True, False)
    """
    if isinstance(label, float | np.floating) and float(label).is_integer():
        label = int(label)
    text = unicodedata.normalize("NFKC", str(label)).strip().casefold()
    if not text.isascii():  # what has no width, such as a mark of byte order
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    if text.endswith(".0") and text[:-2].isdecimal():  # a number that a table made a fraction
        text = text[:-2]
    return BETWEEN.sub("", text)


def spelled_once(labels: Iterable, where: str) -> dict:
    """`label_key` to label, in the order of the labels.

    Raises:
        ValueError: One label in two spellings; names both.
    """
    found = {}
    for label in labels:
        other = found.setdefault(label_key(label), label)
        if other is not label and (other != label or type(other) is not type(label)):
            raise ValueError(
                f"{where}: {other!r} and {label!r} are two spellings of one label; "
                "expected one spelling (blanks, underscores, case and accents' form do not count)"
            )
    return found


# Paths
def leads_out(name: str) -> bool:
    """Whether a path from a table or an id leads out of the folder that it belongs to."""
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
    return absolute or ".." in parts or "\0" in name


def stay_inside(names: Iterable, where, outside: bool = False) -> None:
    """Refuse paths and ids that lead out of their folder, unless asked for.

    Args:
        names: Paths or video ids.
        where: Place of the i-th, a function of i.
        outside: They may; so they may everywhere with `VLACT_OUTSIDE=1` in the environment.

    Raises:
        ValueError: An absolute path or one with "..".
    """
    if outside or os.environ.get(OUTSIDE) == "1":
        return
    for i, name in enumerate(names):
        if leads_out(str(name)):
            raise ValueError(
                f"{where(i)}: {str(name)!r} leads out of the folder of the videos; expected a "
                f"path below it; move or link the file there, or set {OUTSIDE}=1 if it is meant"
            )


# Files
def text(path: str | Path) -> str:
    """A text file, in UTF-8, or in UTF-16 with its mark; line ends are "\\n".

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is neither; names the byte.
    """
    path = Path(path)
    with path.open("rb") as file:
        mark = file.read(2)
    wide = mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        found = path.read_text(encoding="utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise ValueError(f"{path}: expected text in UTF-8; {byte}; save it as UTF-8") from None
    except UnicodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8; {error}; save it as UTF-8") from None
    if "\0" in found:
        at = found.index("\0")
        raise ValueError(
            f"{path}: expected text in UTF-8; character {at} is zero, as in UTF-16 without its "
            "mark; save it as UTF-8"
        )
    return found


def _once(pairs: list[tuple]) -> dict:
    """An object of a JSON whose keys differ."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        again = next(k for k, _ in pairs if k in seen or seen.add(k))
        raise ValueError(f"{again!r} stands twice in one object; expected every key once")
    return found


def count_keys(content) -> int:
    """How many keys there are in a JSON, level by level.

    Raises:
        ValueError: It is nested too deep.
    """
    level, keys = [content], 0
    for _ in range(DEEPEST):
        objects = [x for x in level if type(x) is dict]
        lists = [x for x in level if type(x) is list]
        keys += sum(map(len, objects))
        values = [*chain.from_iterable(map(dict.values, objects)), *chain.from_iterable(lists)]
        level = list(compress(values, map(NESTING.__contains__, map(type, values))))
        if not level:
            return keys
    raise ValueError(f"objects and lists nested at most {DEEPEST} levels deep")


def _colons(data: bytes) -> int:
    """At least as many as there are keys in the text of a JSON: a quote, blanks, a colon."""
    array = np.frombuffer(data, np.uint8)
    before = array[np.flatnonzero(array == ord(":")) - 1]
    if (before <= ord(" ")).any():
        return len(re.findall(rb'"[ \t\r\n]*:', data))
    return int((before == ord('"')).sum())


@contextmanager
def uncollected():
    """No search for circles among the many new objects of a parser, which has none."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def json_text(given: str):
    """A JSON of a text; ValueError for what is none, or for a key twice in one object."""
    return json.loads(given, object_pairs_hook=_once)


class _YamlOnce(yaml.SafeLoader):
    """Plain data alone, and every key once."""

    def construct_mapping(self, node, deep=False):
        found = super().construct_mapping(node, deep)
        keys = [self.construct_object(key, True) for key, _ in node.value]
        if len(found) < len(keys):
            again = next(k for i, k in enumerate(keys) if k in keys[:i])
            line = node.start_mark.line + 1
            raise ValueError(f"line {line}: {again!r} is there twice; expected every key once")
        return found


def yaml_text(given: str):
    """A YAML of a text, as plain data.

    Raises:
        ValueError: A key that is there twice in one mapping, of which a parser keeps the last.
        yaml.YAMLError: No YAML, or one that makes other objects.
    """
    loader = _YamlOnce(given)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def json_object(path: str | Path, keys: Callable[[dict], int] | None = None) -> dict:
    """A JSON file that holds an object.

    A key that stands twice is refused: a parser keeps the last alone. Fast first: where the parsed
    file has as many keys as its text can have, no key was lost; only else it is parsed again.

    Args:
        path: The file.
        keys: How many keys there are, or fewer; for a layout that can be counted faster than by
            walking through everything.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is something else, has a key twice in one object, or is nested too deep.
    """
    data = Path(path).read_bytes()
    try:
        try:
            with uncollected():
                content = orjson.loads(data)
                whole = (keys or count_keys)(content) == _colons(data)
        except json.JSONDecodeError:  # or NaN, a mark of byte order, a number out of range
            whole = False
        if not whole:
            content = json.loads(text(path), object_pairs_hook=_once)
            count_keys(content)
            json.dumps(content, ensure_ascii=False).encode()  # no half of a surrogate pair
    except RecursionError:
        raise ValueError(f"{path}: expected JSON nested at most {DEEPEST} levels deep") from None
    except ValueError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: expected JSON; {said}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object; got {type(content).__name__}")
    return content


def _separator(header: str, columns: tuple[str, ...]) -> str:
    """The one of comma, semicolon and tab by which the header has most of the columns."""

    def names(separator: str) -> set[str]:
        return set(next(csv_module.reader([header], delimiter=separator), []))

    if not columns:  # any: the most frequent
        return max(SEPARATORS, key=header.count)
    return max(SEPARATORS, key=lambda s: len(names(s) & set(columns)))


def csv(
    path: str | Path, columns: tuple[str, ...], what: str, empty: bool = False
) -> "pd.DataFrame":
    """A csv with at least these columns and a row, all cells as the text that they are.

    Columns are separated by commas, semicolons or tabs; the header decides. Nothing is guessed: an
    "NA", "null", "1e5" or "True" stays what it is. A blank line is none. With semicolons or tabs a
    comma in a number is a decimal point, see `seconds`; the separator is in `attrs["separator"]`.

    Args:
        path: The file.
        columns: That must be there.
        what: Is expected, for errors.
        empty: It may have no row.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No csv, missing or repeated columns, a row with too few or too many cells, or
            no rows; names the file.
    """
    content = text(path)
    header = next((line for line in content.splitlines() if line.strip()), "")
    separator = _separator(header, columns)
    rows, lines = [], []
    reader = csv_module.reader(io.StringIO(content), delimiter=separator, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(reader.line_num)
    except csv_module.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: expected {what}; {error}") from None
    names, first = (rows[0], lines[0]) if rows else ([], 1)
    if missing := [c for c in columns if c not in names]:
        raise ValueError(
            f"{path}, line {first}: missing columns {missing}; expected {what}, separated by "
            f"comma, semicolon or tab; got {names[:6]}"
        )
    if twice := [c for c in names if names.count(c) > 1]:
        raise ValueError(
            f"{path}, line {first}: column {twice[0]!r} is there twice; expected {what}"
        )
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            raise ValueError(
                f"{path}, line {line}: {len(row)} cells, but line {first} names {len(names)} "
                f"columns; expected {what}; a cell with a {separator!r} stands in quotes"
            )
    if len(rows) < 2 and not empty:
        raise ValueError(f"{path}: expected at least one row after the header, found none")
    import pandas as pd

    # row i of the table is line i + 2 of the file, also where lines are blank
    index = pd.Index(np.array(lines[1:]) - 2)
    if not len(index) or index[-1] == len(index) - 1:
        index = pd.RangeIndex(len(index))
    table = pd.DataFrame(rows[1:], columns=names, index=index, dtype=str)
    table.attrs["separator"] = separator
    return table


def seconds(column: "pd.Series", separator: str = ",") -> "pd.Series":
    """Times as seconds: numbers, "hh:mm:ss.f", and "1,5" where the csv has another separator.

    Returns:
        Floats, nan for what is no time.
    """
    import pandas as pd

    number = pd.to_numeric(column, errors="coerce").astype(float)
    for i in np.flatnonzero(number.isna().to_numpy()):
        cell = column.iloc[i]
        cell = cell.strip() if isinstance(cell, str) else ""
        plain = cell.replace(",", ".") if separator != "," else cell  # 00:00:01,500 as subtitles
        if found := HOURS.fullmatch(plain):
            hours, minutes, rest = found.groups()
            number.iloc[i] = 3600 * int(hours) + 60 * int(minutes) + float(rest)
        elif plain != cell and COMMA.fullmatch(cell):
            number.iloc[i] = float(plain)
    return number


def _remedy(cell) -> str:
    """What to do about a cell that is no time."""
    if not isinstance(cell, str) or not cell.strip():
        return "write the time in seconds"
    if ":" in cell:
        return "write seconds or hh:mm:ss, all three parts"
    return "write 1.5, not 1,5" if "," in cell else "write the time in seconds"


def sound(
    table: "pd.DataFrame",
    path: str | Path,
    row: str = "line {}",
    first: int = 2,
    outside: bool = False,
) -> "pd.DataFrame":
    """The table with its times as numbers.

    Args:
        table: With some of `start_s, end_s, duration_s, video, label`; its index counts the rows
            of the file.
        path: Where it comes from.
        row: How a row is called in errors.
        first: The number of the first row.
        outside: Videos may lie elsewhere, see `stay_inside`.

    Raises:
        ValueError: A time that is no finite number, an empty video or label, a label in two
            spellings, or a video that leads out of its folder; names the row.
    """
    separator = table.attrs.get("separator", ",")
    for column in TIMES:
        if column in table:
            number = seconds(table[column], separator)
            if (bad := ~np.isfinite(number)).any():
                i = bad.idxmax()
                raise ValueError(
                    f"{path}, {row.format(i + first)}: {column} must be seconds; got "
                    f"{table[column][i]!r}; {_remedy(table[column][i])}"
                )
            table = table.assign(**{column: number})
    for column in ("video", "label"):
        if column in table:
            blank = table[column].isna() | (table[column].astype(str).str.strip() == "")
            if blank.any():
                i = blank.idxmax()
                raise ValueError(
                    f"{path}, {row.format(i + first)}: {column} must not be empty; "
                    f"got {table[column][i]!r}"
                )
    if "video" in table:
        names = table["video"].drop_duplicates()
        at = names.index
        stay_inside(names, lambda i: f"{path}, {row.format(at[i] + first)}", outside)
    if "label" in table:
        spelled_once(table["label"].drop_duplicates(), str(path))
    return table


def read_annotations(path: str | Path, outside: bool = False) -> "pd.DataFrame":
    """Read and check an annotation table.

    Args:
        path: The csv.
        outside: Videos may lie elsewhere, see `stay_inside`.

    Raises:
        ValueError: Unknown or missing columns, no rows, times that are no numbers or not in order,
            a label in two spellings, a video that leads out of its folder, seconds of a video that
            are in two splits; the message names the file and the line (the header is line 1).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected an annotation csv, found no file")
    names = f"columns {', '.join(ANNOTATION)} (optional: {', '.join(OPTIONAL)})"
    table = csv(path, ANNOTATION, f"a csv with {names}")
    if unknown := [c for c in table if c not in (*ANNOTATION, *OPTIONAL)]:
        raise ValueError(f"{path}, line 1: unknown columns {unknown}; expected a csv with {names}")
    table = spans(table, path, outside)
    disjoint(table, path)
    return table


def spans(table: "pd.DataFrame", path: str | Path, outside: bool = False) -> "pd.DataFrame":
    """The rows of a csv with `start_s` and `end_s` as numbers.

    Raises:
        ValueError: One that is no number or below 0, an end that is not after its start, a label
            in two spellings, or a video or path that leads out of its folder; names the line.
    """
    separator = table.attrs.pop("separator", ",")
    for column in ("start_s", "end_s"):
        number = seconds(table[column], separator)
        if (bad := ~np.isfinite(number) | (number < 0)).any():
            row = int(bad.idxmax())
            cell = table[column][row]
            raise ValueError(
                f"{path}, line {row + 2}: {column} must be seconds >= 0; got {cell!r}; "
                f"{_remedy(cell)}"
            )
        table = table.assign(**{column: number.astype(float)})
    if (bad := table["end_s"] <= table["start_s"]).any():
        row = int(bad.idxmax())
        start, end = table.loc[row, ["start_s", "end_s"]]
        raise ValueError(
            f"{path}, line {row + 2}: end_s must be after start_s; "
            f"got start_s={start:g}, end_s={end:g}"
        )
    for column in ("video", "path"):
        if column in table:
            stay_inside(table[column], lambda i: f"{path}, line {table.index[i] + 2}", outside)
    if "label" in table:
        spelled_once(table["label"].drop_duplicates(), str(path))
    return table


def disjoint(table: "pd.DataFrame", path: str | Path) -> None:
    """No second of a video is in two splits.

    Args:
        table: `video, start_s, end_s, split`; its index counts the rows of the csv.
        path: Where it comes from.

    Raises:
        ValueError: Segments of one video in different splits that overlap; names both lines.
    """
    ordered = table.sort_values(["video", "start_s", "end_s"], kind="stable")
    for split in ordered["split"].unique():
        # of each row the one of this split that reaches furthest among those before it
        own = ordered["split"] == split
        reach = ordered["end_s"].where(own).groupby(ordered["video"]).cummax()
        reach = reach.groupby(ordered["video"]).ffill()
        bad = ~own & (reach > ordered["start_s"])
        if bad.any():
            late = ordered.loc[bad.idxmax()]
            same = ordered[own & (ordered["video"] == late["video"])]
            early = same[(same["start_s"] <= late["start_s"]) & (same["end_s"] > late["start_s"])]
            raise ValueError(
                f"{path}, lines {early.index[0] + 2} and {late.name + 2}: {late['video']!r}, "
                f"second {late['start_s']:g}, is in split {split!r} and in {late['split']!r}; "
                "expected every second of a video in one split"
            )


def write_annotations(path: str | Path, table: "pd.DataFrame") -> None:
    """Write an annotation table, all or nothing."""
    given = {"index": False, "lineterminator": "\n", "float_format": "%.6f"}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # through a temporary name: whoever reads it finds the whole file, or none
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        table.to_csv(temporary, **given)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
