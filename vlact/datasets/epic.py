"""EPIC-Kitchens-100's action csv, with verbs, nouns or both as labels."""

from pathlib import Path

import pandas as pd

TASKS = {"verb": ["verb_class"], "noun": ["noun_class"], "action": ["verb_class", "noun_class"]}
COLUMNS = ["video_id", "start_timestamp", "stop_timestamp"]


def seconds(stamp: str) -> float:
    """`HH:MM:SS.ss` in seconds.

    >>> seconds("00:01:02.50")
    62.5
    """
    hours, minutes, rest = stamp.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def ground_truth(path: str | Path, task: str = "verb") -> pd.DataFrame:
    """Actions as `video, start_s, end_s, label, group`, in file order; `group` is the participant.

    Args:
        path: `EPIC_100_train.csv` or `EPIC_100_validation.csv`.
        task: "verb", "noun" or "action"; labels are class numbers as text, "verb,noun" for actions.

    Raises:
        ValueError: Unknown task, missing columns, or a timestamp that is none; names the line (the header is 1).
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {sorted(TASKS)}; got {task!r}")
    table = pd.read_csv(path, dtype=str)
    if missing := [c for c in (*COLUMNS, *TASKS[task]) if c not in table]:
        raise ValueError(
            f"{path}, line 1: missing columns {missing}; expected EPIC-Kitchens-100's action csv, got {list(table.columns)[:6]}"
        )
    times = {}
    for name, column in (("start_s", "start_timestamp"), ("end_s", "stop_timestamp")):
        values = []
        for i, stamp in enumerate(table[column]):
            try:
                values.append(seconds(stamp))
            except (ValueError, AttributeError):
                raise ValueError(f"{path}, line {i + 2}: {column} must be HH:MM:SS.ss; got {stamp!r}") from None
        times[name] = values
    label = table[TASKS[task]].agg(",".join, axis=1)
    return pd.DataFrame({"video": table["video_id"], **times, "label": label, "group": table["video_id"].str.split("_").str[0]})
