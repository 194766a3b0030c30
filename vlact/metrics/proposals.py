"""Localization as text: what a language model wrote, as segments, and how it fails when it writes
from habit.

The task formulation that ActionVLM's Table 2 calls question answering (VTimeLLM, TimeMarker). A
video's answer lists its actions on the frame grid, `Diving 12 18 ; Diving 30 36`, the surest first;
the paper defines its two hallucination rates only in words, so what counts here is stated below.
"""

import re
from collections import Counter

import numpy as np
import pandas as pd

from vlact.language.descriptions import NOTHING, SEPARATOR

ITEM = re.compile(r"^(?P<label>\S.*?) (?P<start>-?\d+(?:\.\d+)?) (?P<end>-?\d+(?:\.\d+)?)$")


def write(segments: pd.DataFrame) -> str:
    """The answer of one video: rows `start, end, label` in frames, in the table's order."""
    items = [f"{r.label} {r.start:g} {r.end:g}" for r in segments.itertuples()]
    return SEPARATOR.join(items) if items else NOTHING


def read(text: str, classes: list[str]) -> tuple[pd.DataFrame, int]:
    """What an answer says.

    Args:
        text: Items as `write` makes them.
        classes: Known labels; an item with another one is invalid.

    Returns:
        Rows `start, end, label, score`, and the number of invalid items: not `label start end`, an
            unknown label,
        or an end that is not after the start. Text has no scores, so they fall with the place: 1,
        1/2, 1/3, ..
    """
    rows, invalid = [], 0
    items = [x.strip() for x in text.strip().split(SEPARATOR.strip())]
    for item in items if items != [NOTHING] else []:
        found = ITEM.match(item)
        if found and found["label"] in classes and float(found["end"]) > float(found["start"]):
            rows.append(
                (float(found["start"]), float(found["end"]), found["label"], 1 / (len(rows) + 1))
            )
        else:
            invalid += 1
    return pd.DataFrame(rows, columns=["start", "end", "label", "score"]), invalid


def spoken(
    answers: pd.DataFrame, classes: list[str], step_s: float, durations: dict[str, float]
) -> pd.DataFrame:
    """Segments that answers name.

    Args:
        answers: `video, start` (first frame of the window), `condition, seed, text`.
        classes: See `read`.
        step_s: Seconds of a frame.
        durations: Of videos, seconds, where segments end at the latest.

    Returns:
        `video, start_s, end_s, label, score, condition, seed`; segments that end after they start.
    """
    said = []
    for row in answers.itertuples():
        found = read(row.text, classes)[0]
        times = (row.start + found[["start", "end"]]) * step_s
        times = times.clip(upper=durations[row.video])
        where = {"video": row.video, "condition": row.condition, "seed": row.seed}
        segments = found[["label", "score"]].assign(start_s=times["start"], end_s=times["end"])
        said.append(segments.assign(**where))
    said = pd.concat(said, ignore_index=True)
    return said[said["end_s"] > said["start_s"] + 1e-3]


def failures(
    answers: dict[str, str],
    ended: dict[str, bool],
    window: int,
    classes: list[str],
    common: int = 3,
) -> pd.DataFrame:
    """How each answer fails.

    Args:
        answers: Text by video (or window).
        ended: Whether the model ended its text within the budget, by video.
        window: Frames of the window.
        classes: Known labels.
        common: From how many videos on a list of boundaries counts as learnt by heart.

    Returns:
        One row a video: `fixed`, the same list of boundaries occurs for at least `common` videos,
            or one segment
        is the whole window; `infinite`, the text did not end, or says a segment twice; `invalid`,
        share of items that say nothing; `round`, share of boundaries that are multiples of 10,
        beside which `boundaries` counts them.

    Raises:
        ValueError: `answers` and `ended` are of different videos.
    """
    if answers.keys() != ended.keys():
        raise ValueError(
            "answers and ended must be of the same videos; they differ in "
            f"{sorted(answers.keys() ^ ended.keys())[:3]}"
        )
    found = {video: read(text, classes) for video, text in answers.items()}
    lists = {
        video: tuple(map(tuple, table[["start", "end"]].to_numpy()))
        for video, (table, _) in found.items()
    }
    often, rows = Counter(x for x in lists.values() if x), []
    for video, (table, invalid) in found.items():
        said, ends = (
            list(table[["start", "end", "label"]].itertuples(index=False, name=None)),
            np.ravel(lists[video]),
        )
        whole = any(s <= 0 and e >= window - 1 for s, e in lists[video])
        row = {
            "video": video,
            "fixed": bool(lists[video]) and (often[lists[video]] >= common or whole),
        }
        row |= {
            "infinite": not ended[video] or len(set(said)) < len(said),
            "invalid": invalid / max(1, len(table) + invalid),
        }
        rows.append(
            row
            | {
                "round": float((ends % 10 == 0).mean()) if len(ends) else np.nan,
                "boundaries": len(ends),
            }
        )
    return pd.DataFrame(rows)


def language_advantage_on_performance(aligned: float, unmatched: list[float]) -> float:
    """LAP of Table 2: relative drop of mean AP, in percent, when descriptions belong to other
    classes.

    Args:
        aligned: mAP with the right descriptions.
        unmatched: mAP under several fixed derangements; their mean counts.

    Raises:
        ValueError: Nothing to divide by, or no derangement.
    """
    if aligned <= 0 or not unmatched:
        raise ValueError(
            f"LAP needs an mAP above 0 and at least one derangement; got {aligned} and "
            f"{len(unmatched)}"
        )
    return 100 * (aligned - float(np.mean(unmatched))) / aligned


def derangements(n: int, count: int, seed: int = 0) -> list[np.ndarray]:
    """`count` fixed permutations of n classes that leave none in its place.

    Raises:
        ValueError: Fewer than two classes.
    """
    if n < 2:
        raise ValueError(f"a derangement needs at least two classes; got {n}")
    rng, out = np.random.default_rng(seed), []
    while len(out) < count:
        drawn = rng.permutation(n)
        if (drawn != np.arange(n)).all():
            out.append(drawn)
    return out
