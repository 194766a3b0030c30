"""The JSON layouts of ActivityNet, which most of the field also uses for THUMOS14 and EPIC-Kitchens.

Ids are read without the prefix "v_", which some files have and others lack. Numbers may be strings.
"""

import json
import math
from pathlib import Path

import pandas as pd

from vlact.runtime.jobs import write_whole
from vlact.schema import json_object


def ground_truth(path: str | Path, subset: str | None) -> pd.DataFrame:
    """Annotations of one subset.

    Args:
        path: `{"database": {id: {"subset", "duration", "annotations": [{"segment", "label"}]}}}`, or what stands
            under "database" alone.
        subset: "validation", "test", ..; None takes all.

    Returns:
        Rows `video, start_s, end_s, label, split` and, where the file has it, `duration_s`. A video without
        annotations has no row; `attrs["videos"]` lists all videos of the subset.

    Raises:
        ValueError: No such subset (the message lists those there are), a segment that is no pair of numbers,
            or an id that occurs with and without "v_".
    """
    content = json_object(path)
    database = content.get("database", content)
    if not isinstance(database, dict) or (
        odd := [k for k, v in database.items() if not isinstance(v, dict) and "database" in content]
    ):
        what = (
            f"{odd[0]!r}: {database[odd[0]]!r}"
            if isinstance(database, dict)
            else type(database).__name__
        )
        raise ValueError(
            f'{path}: expected {{id: {{"subset", "duration", "annotations"}}}}; got {what}'
        )
    database = {k: v for k, v in database.items() if isinstance(v, dict)}
    found = sorted({str(v.get("subset")) for v in database.values()})
    if subset is not None and subset not in found:
        raise ValueError(f"{path}: no video of subset {subset!r}; expected one of {found}")
    rows, videos = [], []
    for video, entry in _unprefixed(database, path).items():
        if subset is None or entry.get("subset") == subset:
            videos.append(video)
            for i, note in enumerate(
                _list(entry.get("annotations", []), f"{path}: {video}, annotations")
            ):
                start, end, label = _action(note, f"{path}: {video}, annotation {i}")
                row = {
                    "video": video,
                    "start_s": start,
                    "end_s": end,
                    "label": label,
                    "split": entry.get("subset", ""),
                }
                rows.append(
                    row
                    | (
                        {"duration_s": _number(entry["duration"], f"{path}: {video}, duration")}
                        if "duration" in entry
                        else {}
                    )
                )
    table = pd.DataFrame(
        rows, columns=None if rows else ["video", "start_s", "end_s", "label", "split"]
    )
    table.attrs["videos"] = videos
    return table


def results(path: str | Path) -> pd.DataFrame:
    """Detections of a results file `{"results": {id: [{"segment", "label", "score"}]}}`: `video, start_s, end_s, label, score`.

    Raises:
        ValueError: No "results", a segment that is no pair of numbers, or an id that occurs with and without "v_".
    """
    content = json_object(path)
    if not isinstance(content.get("results"), dict):
        raise ValueError(
            f'{path}: expected {{"results": {{id: [..]}}}}; got keys {sorted(content)[:5]}'
        )
    rows = []
    for video, found in _unprefixed(content["results"], path).items():
        for i, entry in enumerate(_list(found, f"{path}: {video}")):
            start, end, label = _action(entry, f"{path}: {video}, result {i}")
            score = _number(entry.get("score"), f"{path}: {video}, result {i}, score")
            rows.append(
                {"video": video, "start_s": start, "end_s": end, "label": label, "score": score}
            )
    return pd.DataFrame(rows, columns=["video", "start_s", "end_s", "label", "score"])


def write_ground_truth(table: pd.DataFrame, path: str | Path) -> None:
    """Rows `video, start_s, end_s, label, split, duration_s` in the layout that `ground_truth` reads."""
    database = {}
    for row in table.itertuples():
        entry = database.setdefault(
            row.video, {"subset": row.split, "duration": row.duration_s, "annotations": []}
        )
        entry["annotations"].append({"segment": [row.start_s, row.end_s], "label": row.label})
    _write({"version": "vlact", "database": database}, path)


def write_results(table: pd.DataFrame, path: str | Path) -> None:
    """Rows `video, start_s, end_s, label, score` as a results file that OpenTAD, ActionFormer and the official code score."""
    found = {}
    for row in table.itertuples():
        found.setdefault(row.video, []).append(
            {"segment": [row.start_s, row.end_s], "label": row.label, "score": row.score}
        )
    _write({"version": "vlact", "results": found, "external_data": {}}, path)


def _write(content: dict, path: str | Path) -> None:
    write_whole(
        Path(path),
        lambda text, f: f.write_text(text),
        json.dumps(content, indent=1, default=float) + "\n",
    )


def _unprefixed(by_video: dict, path) -> dict:
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
    if (
        not isinstance(note, dict)
        or not isinstance(note.get("label"), str | int)
        or note["label"] == ""
    ):
        raise ValueError(f'{where}: expected an object with "segment" and "label"; got {note!r}')
    segment = note.get("segment")
    try:
        start, end = map(float, segment)
    except (TypeError, ValueError, OverflowError):
        start = end = math.nan
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"{where}: segment must be [start, end] in seconds; got {segment!r}")
    return start, end, note["label"]
