"""THUMOS14: its own text files (one a class, `video start end` a row, and one of ambiguous
intervals), and those of G-TAD and RTD-Net.

The layout of ActivityNet, which most papers use, is read by `vlact.datasets.activitynet`. Counts of
test instances differ: 3,358 in the text files and G-TAD's csv, 3,311 in the usual JSON, which lacks
three videos; OpenTAD reports 3,325 without two of these, where the text files leave 3,329.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from vlact.datasets.activitynet import pair
from vlact.schema import csv, json_object, sound, spelled_once, stay_inside, text

COLUMNS = ["video", "start_s", "end_s"]


def ground_truth(folder: str | Path, split: str = "test") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Annotations `video, start_s, end_s, label, split` and ambiguous intervals `video, start_s,
    end_s`, in file order.

    Args:
        folder: With `<Class>_<split>.txt` and `Ambiguous_<split>.txt`.
        split: "test" or "val".

    Raises:
        FileNotFoundError: No file of the split.
        ValueError: A row that is not `video start end`.
    """
    files = sorted(Path(folder).glob(f"*_{split}.txt"))
    if not files:
        raise FileNotFoundError(
            f"{folder}: expected <Class>_{split}.txt, one a class, as in THUMOS14's temporal "
            "annotations"
        )
    found = {file.name.removesuffix(f"_{split}.txt"): _rows(file) for file in files}
    spelled_once(found, str(folder))
    ambiguous = found.pop("Ambiguous", pd.DataFrame(columns=COLUMNS))
    tables = [table.assign(label=label, split=split) for label, table in found.items()]
    return pd.concat(tables, ignore_index=True), ambiguous


def _rows(file: Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(text(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            video, start, end = line.split()
            rows.append((video, float(start), float(end)))
            if not np.isfinite(rows[-1][1:]).all():
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{file}, line {number}: expected 'video start end'; got {line!r}"
            ) from None
    stay_inside((row[0] for row in rows), lambda i: f"{file}, row {i + 1}")
    return pd.DataFrame(rows, columns=COLUMNS)


def annotation_csv(path: str | Path) -> pd.DataFrame:
    """Annotations `video, start_s, end_s, label` from G-TAD's `test_Annotation.csv` or
    `val_Annotation.csv`, in file order.

    Raises:
        ValueError: Missing columns.
    """
    table = csv(path, ("video", "type", "start", "end"), "G-TAD's Annotation.csv")
    names = {"type": "label", "start": "start_s", "end": "end_s"}
    return sound(table.rename(columns=names)[[*COLUMNS, "label"]], path)


def groundtruth_csv(path: str | Path, classes: dict[int, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Annotations and ambiguous intervals from G-TAD's `thumos14_test_groundtruth.csv`, where
    label-idx -1 means ambiguous.

    Args:
        path: The csv.
        classes: Number to name; the published file counts the names from 0 in alphabetical order.

    Returns:
        As `ground_truth`, without `split`.

    Raises:
        ValueError: Missing columns, or a number that is no class; names the line.
    """
    table = csv(path, ("video-name", "t-init", "t-end", "label-idx"), "G-TAD's groundtruth.csv")
    names = {"video-name": "video", "t-init": "start_s", "t-end": "end_s"}
    table = sound(table.rename(columns=names), path)
    number = pd.to_numeric(table["label-idx"], errors="coerce")
    table["label"] = number.map(classes)
    clear = number != -1
    odd = table.index[table["label"].isna() & clear]
    if len(odd):
        raise ValueError(
            f"{path}, line {odd[0] + 2}: label-idx {table['label-idx'][odd[0]]} is no class; "
            f"expected -1 or {sorted(classes)}"
        )
    actions, vague = table.loc[clear, [*COLUMNS, "label"]], table.loc[~clear, COLUMNS]
    return actions.reset_index(drop=True), vague.reset_index(drop=True)


def class_list(path: str | Path) -> dict[int, str]:
    """Number to name, from `detclasslist.txt`: "7 BaseballPitch" a line.

    Raises:
        ValueError: A line that is not "<number> <name>"; names it.
    """
    out = {}
    for number, line in enumerate(text(path).splitlines(), 1):
        if line.strip():
            parts = line.strip().split(maxsplit=1)
            if len(parts) != 2 or not parts[0].isdecimal():
                raise ValueError(
                    f"{path}, line {number}: expected '<number> <class>'; got {line!r}"
                )
            out[int(parts[0])] = parts[1]
    return out


def anno_action(path: str | Path) -> pd.DataFrame:
    """Annotations `video, start_s, end_s, label` from RTD-Net's `thumos14_anno_action.json`, in
    file order.

    Raises:
        ValueError: No JSON object of videos, or an annotation without class and segment; names the
            video.
    """
    content, rows = json_object(path), []
    for video, entry in content.items():
        notes = entry.get("annotations", []) if isinstance(entry, dict) else [None]
        for i, note in enumerate(notes if isinstance(notes, list) else [notes]):
            try:
                rows.append((video, *pair(note["segment"], ""), note["class"]))
            except (KeyError, TypeError, ValueError):
                raise ValueError(
                    f'{path}: {video}, annotation {i}: expected "class" and "segment": '
                    f"[start, end]; got {note!r}"
                ) from None
    return sound(pd.DataFrame(rows, columns=[*COLUMNS, "label"]), path, "annotation {}", 0)
