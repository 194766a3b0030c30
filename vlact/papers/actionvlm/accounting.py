"""What becomes of the actions that a localizer is trained on: how many it can learn, and why not
the others.

Every action that comes in is used, or left out for a reason that is counted and has examples. No
action is changed here.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vlact.losses.localization import ranges_of
from vlact.training.streams import Stream, blocks, moments

# Share of an action that a training window must hold, unless a recipe says otherwise; with less it
# is background
INSIDE = 0.75
MOST_LEFT_OUT = 0.5  # share of actions left out above which training stops
MOST_BEHIND = 0.5  # share of actions outside the features above which the clock is wrong
DISAGREE = 0.1  # share of a video's seconds by which its features may miss its end
DISAGREE_STEPS = 16  # or as many steps: the length of a clip
EXAMPLES = 3
LEAST_STD = 1e-3  # of a feature that never changes
RADIUS = 1.5  # of `vlact.losses.localization.assign`, in strides

OUTSIDE = "mostly after the end of the features, or before their start"
LONGER = "longer than the window"
BETWEEN = "shorter than a step, between two points"
FURTHER = "further from every point than the last level regresses"
REPEATED = "the same as an earlier action of its video"


@dataclass(frozen=True)
class LeftOut:
    """Actions left out for one reason.

    Attributes:
        reason: In words.
        count: Actions.
        videos: In how many videos.
        examples: Some, with video and steps.
    """

    reason: str
    count: int
    videos: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        some = "; ".join(self.examples)
        return f"{self.count} (in {self.videos} videos) {self.reason}, such as {some}"


@dataclass(frozen=True)
class Account:
    """Actions that came in, those that are used, and the others by reason.

    Raises:
        AssertionError: What came in is not what is used plus what is left out.
    """

    given: int
    used: int
    left_out: tuple[LeftOut, ...]

    def __post_init__(self):
        if self.given != self.used + self.lost:
            raise AssertionError(
                f"{self.given} actions came in, {self.used} are used and {self.lost} left out"
            )

    @property
    def lost(self) -> int:
        """Actions left out."""
        return sum(x.count for x in self.left_out)

    @property
    def share(self) -> float:
        """Of the actions, those left out; 0 where none came in."""
        return self.lost / max(1, self.given)

    def table(self) -> pd.DataFrame:
        """A row a reason: `reason, count, videos, examples`."""
        return pd.DataFrame(
            [vars(x) for x in self.left_out], columns=list(LeftOut.__dataclass_fields__)
        )

    def __str__(self) -> str:
        reasons = ". ".join(str(x) for x in self.left_out) or "none"
        lost = f"{self.lost} of {self.given} actions"
        return f"{lost} cannot be learnt and count as background: {reasons}"


def account(
    videos: Iterable, length: int, levels: int, ranges=None, inside: float = INSIDE
) -> Account:
    """What training windows can show of the actions of some videos.

    Args:
        videos: See `vlact.papers.actionvlm.localizing.Sequence`.
        length: Steps of a window.
        levels, ranges: Of the pyramid, see `vlact.losses.localization.points`.
        inside: Share of an action that a window must hold, see
            `vlact.papers.actionvlm.localizing.window`; published recipes have their own.
    """
    given, found, ranges = 0, {}, ranges or ranges_of(levels)
    for one in videos:
        given += len(one.labels)
        for reason, rows in _reasons(one, length, levels, ranges, inside).items():
            found.setdefault(reason, []).extend((one.name, *one.segments[i].tolist()) for i in rows)
    left_out = tuple(
        LeftOut(
            reason,
            len(rows),
            len({r[0] for r in rows}),
            tuple(f"{v}, steps {a:g} to {b:g}" for v, a, b in rows[:EXAMPLES]),
        )
        for reason, rows in found.items()
    )
    return Account(given, given - sum(x.count for x in left_out), left_out)


def _reasons(one, length: int, levels: int, ranges, share: float) -> dict[str, list[int]]:
    """Why actions of a video are left out: reason to rows; the first reason that holds."""
    if not len(one.labels):
        return {}
    spans, steps = one.segments.double(), len(one.features)
    start, end = spans[:, 0], spans[:, 1]
    need = share * (end - start)
    keys = list(zip(spans.tolist(), one.labels.tolist(), strict=True))
    first = {}
    for i, (span, label) in enumerate(keys):
        first.setdefault((*span, label), i)
    repeated = torch.tensor([first[(*span, label)] != i for i, (span, label) in enumerate(keys)])
    # What the features hold of an action, and the most that one window holds of it
    inside = torch.minimum(end, torch.tensor(float(steps))) - start.clamp(min=0)
    last, held = max(0, steps - length), torch.zeros_like(start)
    for at in (start.floor(), start.ceil(), end.floor() - length, end.ceil() - length):
        at = at.clamp(0, last)
        held = torch.maximum(
            held, torch.minimum(end, (at + length).clamp(max=steps)) - torch.maximum(start, at)
        )
    point, near = _positive(start.clamp(min=0), end.clamp(max=steps), steps, length, levels, ranges)
    verdicts = [
        (REPEATED, repeated),
        (OUTSIDE, inside < need),
        (LONGER, held < need),
        (BETWEEN, ~near),
        (FURTHER, ~point),
    ]
    out, done = {}, torch.zeros(len(start), dtype=torch.bool)
    for reason, holds in verdicts:
        if rows := torch.nonzero(holds & ~done)[:, 0].tolist():
            out[reason] = rows
        done |= holds
    return out


def _positive(
    start: Tensor, end: Tensor, steps: int, length: int, levels: int, ranges
) -> tuple[Tensor, Tensor]:
    """Whether a point of some window is positive for each action, and whether one lies inside it at
    all; see `assign`.
    """
    size = (end - start).clamp(max=length)
    middle, last = (start + end) / 2, max(0, steps - length)
    point = near = torch.zeros(len(start), dtype=torch.bool)
    for level in range(levels):
        stride, (low, high) = 2**level, ranges[level]
        t = middle.round()[:, None] + torch.arange(-2 * stride, 2 * stride + 1)
        away = (t - middle[:, None]).abs()
        there = (
            (t >= 0) & (t < steps) & (t % stride <= last)
        )  # some window starts a whole number of strides before
        inside = there & (away < size[:, None] / 2)
        far = size[:, None] / 2 + away
        point = point | (inside & (away < RADIUS * stride) & (far >= low) & (far <= high)).any(1)
        near = near | inside.any(1)
    return point, near


def checked(
    videos: Iterable,
    length: int,
    levels: int,
    most_left_out: float = MOST_LEFT_OUT,
    ranges=None,
    inside: float = INSIDE,
) -> Account:
    """The account of training videos, said as a warning where an action is left out.

    Args:
        videos, length, levels, ranges, inside: See `account`.
        most_left_out: Share of actions that may be left out.

    Raises:
        ValueError: More are, or there is nothing to learn; says which and what to change.
    """
    if not 0 <= most_left_out <= 1:
        raise ValueError(f"most_left_out: expected a share from 0 to 1; got {most_left_out}")
    found = account(videos, length, levels, ranges, inside)
    if not found.given:
        raise ValueError(
            "no action in any training video; expected ground truth of the videos that were given"
        )
    if found.share > most_left_out or not found.used:
        raise ValueError(
            f"{found}. That is {found.share:.0%} of them, more than the {most_left_out:.0%} of "
            f"`most_left_out`; expected windows "
            f"(now {length} steps) as long as actions, steps as short, and a clock (step_s, "
            f"offset_s) that fits the features"
        )
    if found.lost:
        warnings.warn(str(found), stacklevel=3)
    return found


def check_features(
    features: dict[str, Tensor], videos: Iterable[str], width: int | None = None
) -> None:
    """Refuse features that nothing can be learnt or told from.

    Args:
        features: By video, (T, ..) with T the steps; tensors, or streams that are read part by
            part.
        videos: Those that are wanted.
        width: F of features (T, F); that of the first video if not given.

    Raises:
        ValueError: A video without features or steps, numbers that are not finite, or another
            width than expected; names video and step.
    """
    videos = list(videos)
    if missing := [v for v in videos if v not in features]:
        raise ValueError(
            f"no features of {len(missing)} videos, for example {missing[0]!r}; extract them first"
        )
    shape = None if width is None else ("the model", (width,))
    for video in videos:
        x = features[video]
        if x.ndim < 2 or not x.numel():
            raise ValueError(
                f"{video}: expected features (T, F) with at least one step and one number; got "
                f"shape {tuple(x.shape)}"
            )
        shape = shape or (video, tuple(x.shape[1:]))
        if tuple(x.shape[1:]) != shape[1]:
            raise ValueError(
                f"{video}: features of shape {tuple(x.shape)}; expected (T, "
                f"{', '.join(map(str, shape[1]))}) as {shape[0]} has{turned(x, features, width)}"
            )
        streamed = isinstance(x, Stream)
        if x.finite if streamed else not x.is_floating_point():
            continue
        good = torch.cat([part.isfinite().flatten(1).all(1) for part in blocks(x)])
        if not good.all():
            raise ValueError(
                f"{video}: {int((~good).sum())} of {len(x)} steps of features hold numbers that "
                f"are not finite, the first at step "
                f"{int((~good).nonzero()[0])}; extract them again (half precision overflows)"
            )
        if streamed:
            x.finite = True


def turned(x: Tensor, features: dict[str, Tensor], width: int | None = None) -> str:
    """What to do, where features (T, F) of another width than expected seem to be (F, T)."""
    firsts = {len(f) for f in features.values()} if width is None else {width}
    if x.ndim != 2 or firsts != {len(x)}:
        return ""
    return "; perhaps they are (F, T): turn every array round (x.T)"


def standard(features: dict[str, Tensor], videos: Iterable[str]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (F,) of the features of some videos, the latter at least
    `LEAST_STD`.

    Raises:
        ValueError: See `check_features`; also fewer than two steps in all.
    """
    videos = list(videos)
    check_features(features, videos)
    steps = sum(len(features[v]) for v in videos)
    if steps < 2:
        raise ValueError(
            f"{steps} steps of features in {len(videos)} training videos; expected two or more"
        )
    if any(isinstance(features[v], Stream) for v in videos):
        mean, std = moments(features[v] for v in videos)
        return mean, std.clamp(min=LEAST_STD)
    seen = torch.cat([features[v] for v in videos]).float()
    return seen.mean(0), seen.std(0).clamp(min=LEAST_STD)


def check_clock(
    truth: pd.DataFrame, lengths: dict[str, int], durations: dict[str, float], clock
) -> None:
    """Compare actions, seconds and steps of features.

    A video whose features end long before it does, or long after, is named in a warning.

    Args:
        truth: Columns `video, start_s, end_s`.
        lengths: Steps of features, by video.
        durations: Seconds, by video.
        clock: See `vlact.papers.actionvlm.localizing.Clock`.

    Raises:
        ValueError: A clock, duration or time that is no finite number in range, or most actions
            outside the features.
    """
    if not (np.isfinite(clock.step_s) and clock.step_s > 0 and np.isfinite(clock.offset_s)):
        raise ValueError(
            f"step_s and offset_s: expected finite seconds, the former above 0; got "
            f"{clock.step_s} and {clock.offset_s}"
        )
    for video in lengths:
        seconds = durations[video]
        if not (np.isfinite(seconds) and seconds > 0):
            raise ValueError(f"{video}: expected a duration in seconds above 0; got {seconds}")
    own = truth[truth["video"].isin(lengths)]
    steps = clock.steps(own[["start_s", "end_s"]].to_numpy(dtype=np.float64)).reshape(-1, 2)
    ends = own["video"].map(lengths).to_numpy(dtype=np.float64)
    inside = np.minimum(steps[:, 1], ends) - np.maximum(steps[:, 0], 0)
    outside = inside < INSIDE * (steps[:, 1] - steps[:, 0])
    if len(own) and outside.mean() > MOST_BEHIND:
        row = own.iloc[int(np.flatnonzero(outside)[0])]
        n = lengths[row["video"]]
        raise ValueError(
            f"step_s {clock.step_s:g} and offset_s {clock.offset_s:g} put {int(outside.sum())} "
            f"of {len(own)} actions outside the features, "
            f"after their end or before their start: {row['video']} has an action from "
            f"{row['start_s']:g} to {row['end_s']:g} s and {n} "
            f"steps, which end at {float(clock.seconds(n)):g} s; expected seconds from one step "
            f"to the next "
            f"({durations[row['video']] / n:g} would end with the video) and ground truth in "
            f"seconds"
        )
    apart = {v: (float(clock.seconds(n)), float(durations[v])) for v, n in lengths.items()}
    odd = [
        v
        for v, (a, b) in apart.items()
        if abs(a - b) > max(DISAGREE * b, DISAGREE_STEPS * clock.step_s)
    ]
    if odd:
        a, b = apart[odd[0]]
        warnings.warn(
            f"features and durations of {len(odd)} of {len(lengths)} videos disagree: those of "
            f"{odd[0]} end at {a:g} s of {b:g}; "
            f"expected step_s ({clock.step_s:g}) and offset_s ({clock.offset_s:g}) with which "
            f"they end together",
            stacklevel=4,
        )


def check_classes(truth: pd.DataFrame, durations: dict[str, dict[str, float]]) -> None:
    """Name, as a warning, the classes that the test videos have and the training videos lack.

    Args:
        truth: Columns `video, label`.
        durations: "train" and "test" to the videos.
    """
    train, test = (truth[truth["video"].isin(durations[part])] for part in ("train", "test"))
    if unseen := sorted(set(test["label"]) - set(train["label"])):
        count = int(test["label"].isin(unseen).sum())
        warnings.warn(
            f"{len(unseen)} classes are only in test videos, with {count} of {len(test)} "
            f"actions, and cannot be learnt: "
            f"{', '.join(map(repr, unseen[:10]))}",
            stacklevel=3,
        )
