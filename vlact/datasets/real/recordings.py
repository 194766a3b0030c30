"""Untrimmed recordings with intervals, and what of the labels could not be used."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Recordings:
    """A set of recordings.

    Attributes:
        truth: `video, start_s, end_s, label`; seconds on the recording's own clock.
        durations: Seconds, by video.
        files: Video files, by video; none where a set has poses alone.
        layout: "original" or "packed", or which truth was read.
        notes: What was cut or left out of the labels, a line each.
        groups: What a fold leaves out (a day and room, a person), by video.
    """

    truth: pd.DataFrame
    durations: dict[str, float]
    files: dict[str, Path]
    layout: str
    notes: tuple[str, ...] = ()
    groups: dict[str, str] = field(default_factory=dict)


def within(
    truth: pd.DataFrame, durations: dict[str, float], slack_s: float = 0.0
) -> tuple[pd.DataFrame, list[str]]:
    """Intervals that can be: finite, not empty, cut to the recording.

    Args:
        truth: `video, start_s, end_s, label`.
        durations: Seconds, by video.
        slack_s: An end that is later by no more is cut without a word.

    Returns:
        The intervals, and a line for each that was left out or cut.
    """
    times = truth[["start_s", "end_s"]].to_numpy(dtype=float)
    last = truth["video"].map(durations).to_numpy(dtype=float)
    finite = np.isfinite(times).all(1)
    after = finite & (times[:, 0] >= last)
    empty = finite & ~after & (times[:, 1] <= times[:, 0])
    cut = finite & ~after & ~empty & (times[:, 1] > last + slack_s)
    notes = []
    for mask, what in (
        (~finite, "is not finite, left out"),
        (after, "starts after the end, left out"),
        (empty, "does not end after it starts, left out"),
        (cut, "ends after the recording, cut"),
    ):
        for i in np.flatnonzero(mask):
            row = truth.iloc[i]
            span = f"{times[i, 0]:.2f} to {times[i, 1]:.2f} s"
            notes.append(f"{row['video']}: {row['label']}, {span} of {last[i]:.2f} s, {what}")
    good = finite & ~after & ~empty
    ends = np.minimum(times[:, 1], last)
    return truth.assign(end_s=ends)[good].reset_index(drop=True), notes
