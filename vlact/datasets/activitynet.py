"""The JSON layouts of ActivityNet, also those of most work on THUMOS14 and EPIC-Kitchens.

Ids are read without the prefix "v_", which some files have and others lack. Numbers may be strings.
"""

import json
import math
from itertools import chain
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.runtime.jobs import write_whole
from vlact.schema import count_keys, json_object, spelled_once, stay_inside, uncollected

TRUTH = ["video", "start_s", "end_s", "label", "split"]
RESULT = ["video", "start_s", "end_s", "label", "score"]


def ground_truth(path: str | Path, subset: str | None, outside: bool = False) -> pd.DataFrame:
    """Annotations of one subset.

    Args:
        path: `{"database": {id: {"subset", "duration", "annotations": [{"segment", "label"}]}}}`,
            or what stands under "database" alone.
        subset: "validation", "test", ..; None takes all.
        outside: Ids may lead out of the folder of the videos, see `vlact.schema.stay_inside`.

    Returns:
        Rows `video, start_s, end_s, label, split` and, where the file has it, `duration_s`. A video
        without annotations has no row; `attrs["videos"]` lists all videos of the subset.

    Raises:
        ValueError: No such subset (the message lists those there are), a segment that is no pair of
            numbers, a video that is there twice or with and without "v_", a label in two spellings,
            or an id that leads out of its folder.
    """
    content = json_object(path)
    database = content.get("database", content)
    wanted = '{id: {"subset", "duration", "annotations"}}'
    if not isinstance(database, dict):
        raise ValueError(f"{path}: expected {wanted}; got {type(database).__name__}")
    odd = [k for k, v in database.items() if not isinstance(v, dict) and "database" in content]
    if odd:
        raise ValueError(f"{path}: expected {wanted}; got {odd[0]!r}: {database[odd[0]]!r}")
    database = {k: v for k, v in database.items() if isinstance(v, dict)}
    found = sorted({str(v.get("subset")) for v in database.values()})
    if subset is not None and subset not in found:
        raise ValueError(f"{path}: no video of subset {subset!r}; expected one of {found}")
    rows, videos = [], []
    for video, entry in _unprefixed(database, path, outside).items():
        if subset is not None and entry.get("subset") != subset:
            continue
        videos.append(video)
        notes = _list(entry.get("annotations", []), f"{path}: {video}, annotations")
        for i, note in enumerate(notes):
            segment = dict(
                zip(TRUTH[1:4], _action(note, f"{path}: {video}, annotation {i}"), strict=True)
            )
            row = {"video": video} | segment | {"split": entry.get("subset", "")}
            if "duration" in entry:
                row["duration_s"] = _number(entry["duration"], f"{path}: {video}, duration")
            rows.append(row)
    table = pd.DataFrame(rows, columns=None if rows else TRUTH)
    spelled_once(table["label"].drop_duplicates(), str(path))
    table.attrs["videos"] = videos
    return table


@uncollected()
def results(path: str | Path, outside: bool = False) -> pd.DataFrame:
    """Detections of a results file `{"results": {id: [{"segment", "label", "score"}]}}`.

    Args:
        path: The JSON.
        outside: See `ground_truth`.

    Returns:
        Rows `video, start_s, end_s, label, score`.

    Raises:
        ValueError: No "results", a segment that is no pair of numbers, a video that is there twice
            or with and without "v_", a label in two spellings, or an id that leads out of its
            folder.
    """
    content = json_object(path, _result_keys)
    if not isinstance(content.get("results"), dict):
        keys = sorted(content)[:5]
        raise ValueError(f'{path}: expected {{"results": {{id: [..]}}}}; got keys {keys}')
    by_video = _unprefixed(content["results"], path, outside)
    table = _plain(by_video)
    if table is None:  # something is not as it mostly is: find out what, or read what is in strings
        count_keys(content)  # not nested so deep that it cannot be shown
        rows = []
        for video, found in by_video.items():
            for i, entry in enumerate(_list(found, f"{path}: {video}")):
                where = f"{path}: {video}, result {i}"
                segment = _action(entry, where)
                rows.append((video, *segment, _number(entry.get("score"), f"{where}, score")))
        table = pd.DataFrame(rows, columns=RESULT)
    spelled_once(table["label"].drop_duplicates(), str(path))
    return table


def _entries(by_video) -> list:
    """All detections after each other, or nothing where they are no lists of objects."""
    if not isinstance(by_video, dict) or set(map(type, by_video.values())) != {list}:
        return []
    entries = list(chain.from_iterable(by_video.values()))
    return entries if set(map(type, entries)) == {dict} else []


def _result_keys(content) -> int:
    """Keys of a results file, fewer than there are where detections hold further objects."""
    if not isinstance(content, dict):
        return 0
    by_video = content.get("results")
    entries = _entries(by_video)
    if not entries:
        return count_keys(content)
    rest = content | {"results": None}
    return count_keys(rest) + len(by_video) + sum(map(len, entries))


def _plain(by_video: dict) -> pd.DataFrame | None:
    """The table of results, all at once; None unless numbers are finite and labels are texts."""
    entries = _entries(by_video)
    try:
        segments, labels, scores = (
            list(map(itemgetter(key), entries)) for key in ("segment", "label", "score")
        )
    except KeyError:
        return None
    if set(map(type, segments)) != {list} or set(map(len, segments)) != {2}:
        return None
    try:
        classes = dict.fromkeys(labels)
        ends = np.array(list(chain.from_iterable(segments)), float)
        scores = np.array(scores, float)
    except (TypeError, ValueError, OverflowError):
        return None
    if set(map(type, classes)) != {str} or any(not label.strip() for label in classes):
        return None
    if ends.ndim > 1 or scores.ndim > 1:  # lists in place of numbers
        return None
    if not (np.isfinite(ends).all() and np.isfinite(scores).all()):
        return None
    # texts that repeat are made once
    number = dict(zip(classes, range(len(classes)), strict=True))
    codes = np.fromiter(map(number.__getitem__, labels), int, len(labels))
    label = pd.array(list(classes), dtype="str").take(codes)
    video = pd.array(list(by_video), dtype="str").repeat(list(map(len, by_video.values())))
    start, end = ends.reshape(-1, 2).T
    columns = video, start, end, label, scores
    return pd.DataFrame(dict(zip(RESULT, columns, strict=True)))


def write_ground_truth(table: pd.DataFrame, path: str | Path) -> None:
    """Write what `ground_truth` reads: rows `video, start_s, end_s, label, split, duration_s`.

    Raises:
        ValueError: A video in two splits or of two durations; names it.
    """
    for column in ("split", "duration_s"):
        several = table.groupby("video", sort=False)[column].nunique(dropna=False)
        if (several > 1).any():
            video = several.idxmax()
            found = table.loc[table["video"] == video, column].unique().tolist()
            raise ValueError(f"{path}: {video!r} has {column} {found[:3]}; expected one of a video")
    database = {}
    for row in table.itertuples():
        entry = {"subset": row.split, "duration": row.duration_s, "annotations": []}
        entry = database.setdefault(row.video, entry)
        entry["annotations"].append({"segment": [row.start_s, row.end_s], "label": row.label})
    _write({"version": "vlact", "database": database}, path)


def write_results(table: pd.DataFrame, path: str | Path) -> None:
    """Rows `video, start_s, end_s, label, score` as a results file.

    OpenTAD, ActionFormer and the official code score it.
    """
    found = {}
    for row in table.itertuples():
        entry = {"segment": [row.start_s, row.end_s], "label": row.label, "score": row.score}
        found.setdefault(row.video, []).append(entry)
    _write({"version": "vlact", "results": found, "external_data": {}}, path)


def _write(content: dict, path: str | Path) -> None:
    text = json.dumps(content, indent=1, default=float) + "\n"
    write_whole(Path(path), lambda text, f: f.write_text(text), text)


def _unprefixed(by_video: dict, path, outside: bool) -> dict:
    """By ids without "v_"."""
    stay_inside(by_video, lambda i: f"{path}: video {i}", outside)
    out = {}
    for video, value in by_video.items():
        bare = video.removeprefix("v_")
        if bare in out:
            raise ValueError(
                f"{path}: {bare!r} and 'v_{bare}' are both there; expected one form of an id"
            )
        out[bare] = value
    return out


def _list(value, where: str) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list; got {value!r}")
    return value


def _number(value, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where}: expected a number; got {value!r}")
    return number


def _action(note, where: str) -> tuple[float, float, str]:
    """Start, end and label of an annotation or a result."""
    label = note.get("label") if isinstance(note, dict) else None
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        raise ValueError(f'{where}: expected an object with "segment" and "label"; got {note!r}')
    return *pair(note.get("segment"), where), label


def pair(segment, where: str) -> tuple[float, float]:
    """Start and end of a segment in a JSON; a text or an object is none, though float takes it.

    Raises:
        ValueError: It is not [start, end].
    """
    try:
        start, end = map(float, segment if isinstance(segment, list | tuple) else ())
    except (TypeError, ValueError, OverflowError):
        start = end = math.nan
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"{where}: segment must be [start, end] in seconds; got {segment!r}")
    return start, end
