"""EPIC-Kitchens-100's action csv, with verbs, nouns or both as labels."""

import re
from pathlib import Path

import pandas as pd

from vlact.schema import csv, sound

TASKS = {"verb": ["verb_class"], "noun": ["noun_class"], "action": ["verb_class", "noun_class"]}
STAMP = re.compile(r"[0-9]+:[0-5]?[0-9]:[0-5]?[0-9](\.[0-9]+)?")
COLUMNS = ["video_id", "start_timestamp", "stop_timestamp"]


def seconds(stamp: str) -> float:
    """`HH:MM:SS.ss` in seconds.

    >>> seconds("00:01:02.50")
    62.5
    """
    if not STAMP.fullmatch(stamp):
        raise ValueError(f"expected HH:MM:SS.ss, got {stamp!r}")
    hours, minutes, rest = stamp.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def names(path: str | Path) -> dict[str, str]:
    """Class number, as text, to name: `EPIC_100_verb_classes.csv` or `EPIC_100_noun_classes.csv`.

    Raises:
        ValueError: Missing columns, or a number or a name that occurs twice.
    """
    table = csv(path, ("id", "key"), "EPIC-Kitchens-100's list of classes")
    for column in ("id", "key"):
        if (twice := table[column].duplicated()).any():
            i = int(twice.idxmax())
            raise ValueError(f"{path}, line {i + 2}: {column} {table[column][i]!r} occurs twice")
    return dict(zip(table["id"], table["key"], strict=True))


def ground_truth(path: str | Path, task: str = "verb") -> pd.DataFrame:
    """Actions `video, start_s, end_s, label, group`, in file order; `group` is the participant.

    Args:
        path: `EPIC_100_train.csv` or `EPIC_100_validation.csv`.
        task: "verb", "noun" or "action"; labels are class numbers as text, "verb,noun" for actions.

    Raises:
        ValueError: Unknown task, missing columns, or a timestamp that is none; names the line (the
            header is 1).
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {sorted(TASKS)}; got {task!r}")
    table = csv(path, (*COLUMNS, *TASKS[task]), "EPIC-Kitchens-100's action csv")
    times = {}
    for name, column in (("start_s", "start_timestamp"), ("end_s", "stop_timestamp")):
        values = []
        for i, stamp in table[column].items():
            try:
                values.append(seconds(stamp))
            except ValueError:
                raise ValueError(
                    f"{path}, line {i + 2}: {column} must be HH:MM:SS.ss; got {stamp!r}"
                ) from None
        times[name] = values
    for column in TASKS[task]:
        if (bad := ~table[column].str.fullmatch(r"[0-9]+")).any():
            i = int(bad.idxmax())
            raise ValueError(
                f"{path}, line {i + 2}: {column} must be a class number; got {table[column][i]!r}"
            )
    label = table[TASKS[task]].agg(",".join, axis=1)
    group = table["video_id"].str.split("_").str[0]
    columns = {"video": table["video_id"], **times, "label": label, "group": group}
    return sound(pd.DataFrame(columns), path)
