"""Average precision by group of recordings: what intervals over recordings are made of.

Average precision is no mean over recordings, so recordings cannot be resampled after it. Groups
can: each has as many recordings of every class, and a score of its own.
"""

import pandas as pd

from vlact.metrics.localization import THUMOS14_TIOUS, evaluate

GROUPS = 10  # of test recordings
ALL = -1  # stands for all groups together


def groups_of(truth: pd.DataFrame, classes: list[str]) -> dict[str, int]:
    """The group of every recording: those of a class are dealt out one after another.

    A recording belongs to the class that comes first in `classes` of those that it shows.
    """
    rank = truth["label"].map({c: i for i, c in enumerate(classes)})
    first = truth.assign(rank=rank).groupby("video")["rank"].min().sort_index()
    dealt = first.groupby(first).cumcount() % GROUPS
    return {v: int(g) for v, g in dealt.items()}


def scored(truth: pd.DataFrame, found: pd.DataFrame, groups: dict[str, int]) -> pd.DataFrame:
    """Average precision of all recordings together and of each group, by class and threshold.

    Args:
        truth, found: Ground truth and detections of the test recordings.
        groups: See `groups_of`.

    Returns:
        `label, group` (`ALL` for all), `tiou, ap` (a fraction).
    """

    def parted(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(label=table["label"] + " " + table["video"].map(groups).astype(str))

    def among(table: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
        return table[table["label"].isin(known["label"].unique())]

    whole = evaluate(truth, among(found, truth), tious=THUMOS14_TIOUS).assign(group=ALL)
    real = parted(truth)
    parts = evaluate(real, among(parted(found), real), tious=THUMOS14_TIOUS)
    name = parts["label"].str.rsplit(" ", n=1, expand=True)
    parts = parts.assign(label=name[0], group=name[1].astype(int))
    return pd.concat([whole, parts], ignore_index=True)[["label", "group", "tiou", "ap"]]
