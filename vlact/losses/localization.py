"""Targets and losses of anchor-free temporal action localization (ActionFormer, ECCV 2022), also
Eq. 6 of ActionVLM.

A pyramid of levels puts a point at every `stride`-th feature; a point says which actions go on at
it and how far away their start and end are. Units: feature steps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

SHORTEST, LONGEST = (
    4,
    10000,
)  # distances to which the first level and the last one regress, in steps


def ranges_of(levels: int) -> tuple[tuple[int, int], ...]:
    """Distances that each level regresses: up to 4 steps, twice as far on each next level, and to
    10000 on the last one, whichever that is.
    """
    ends = [0, *(SHORTEST * 2**i for i in range(levels - 1)), LONGEST]
    return tuple(zip(ends, ends[1:], strict=False))


RANGES = ranges_of(6)  # of ActionFormer, TriDet and DyFADet as published


@dataclass(frozen=True)
class Points:
    """Where a pyramid looks: all levels after each other.

    Attributes:
        t: Positions (P,).
        low, high: Range of the greater of the two distances that the point's level is for (P,).
        stride: Of its level (P,).
    """

    t: Tensor
    low: Tensor
    high: Tensor
    stride: Tensor


def points(length: int, levels: int, ranges=None) -> Points:
    """Points of a sequence of `length` features; level l has stride 2^l.

    Args:
        length: Steps.
        levels: How many.
        ranges: Distances of each level, see `ranges_of`, which says them if not given.

    Raises:
        ValueError: `length` is no multiple of the greatest stride, or there are fewer ranges than
            levels.
    """
    ranges = ranges or ranges_of(levels)
    if length % 2 ** (levels - 1):
        raise ValueError(
            f"length must be a multiple of {2 ** (levels - 1)} for {levels} levels; got {length}"
        )
    if len(ranges) < levels:
        raise ValueError(f"ranges must name every level; got {len(ranges)} for {levels}")
    rows = [
        (i * 2**level, *ranges[level], 2**level)
        for level in range(levels)
        for i in range(length // 2**level)
    ]
    return Points(*torch.tensor(rows, dtype=torch.float32).T.contiguous())


def assign(
    at: Points, segments: Tensor, labels: Tensor, classes: int, radius: float = 1.5
) -> tuple[Tensor, Tensor, Tensor]:
    """What each point should say of one sequence.

    A point is positive for a segment if it lies within `radius` strides of its centre and inside
    it, and the greater distance to its ends is in the level's range. The shortest such segment
    wins; segments as short to within 1e-3 share the point, which then has several classes
    (CliffDiving and Diving).

    Args:
        at: P points.
        segments: (N, 2), start and end.
        labels: (N,), in [0, classes).
        classes: Number of classes C.
        radius: In strides of the level.

    Returns:
        `target` (P, C) of 0 and 1; `offset` (P, 2), distances to start and end in strides,
        meaningful where positive; `owner` (P,), the segment, -1 where negative.
    """
    p = len(at.t)
    if not len(segments):
        none = segments.new_zeros
        return (
            none(p, classes),
            none(p, 2),
            torch.full((p,), -1, dtype=torch.long, device=segments.device),
        )
    start, end = segments[:, 0], segments[:, 1]
    left, right = at.t[:, None] - start, end - at.t[:, None]
    middle, reach = (start + end) / 2, (at.stride * radius)[:, None]
    near = (
        torch.minimum(
            at.t[:, None] - torch.maximum(middle - reach, start),
            torch.minimum(middle + reach, end) - at.t[:, None],
        )
        > 0
    )
    far = torch.maximum(left, right)
    length = (end - start).expand(p, -1).clone()
    length[~(near & (far >= at.low[:, None]) & (far <= at.high[:, None]))] = torch.inf
    shortest, owner = length.min(1)
    share = ((length - shortest[:, None]).abs() <= 1e-3) & length.isfinite()
    one_hot = torch.nn.functional.one_hot(labels, classes).to(segments.dtype)
    target = (share.to(segments.dtype) @ one_hot).clamp(max=1)
    row = torch.arange(p, device=segments.device)
    offset = torch.stack([left[row, owner], right[row, owner]], 1) / at.stride[:, None]
    return target, offset, torch.where(shortest.isfinite(), owner, -1)


def focal(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss of every entry (Lin et al., ICCV 2017), same shape as `logits`."""
    p = logits.sigmoid()
    right = p * target + (1 - p) * (1 - target)
    weight = alpha * target + (1 - alpha) * (1 - target)
    return (
        weight
        * (1 - right) ** gamma
        * binary_cross_entropy_with_logits(logits, target, reduction="none")
    )


def diou(predicted: Tensor, offset: Tensor, eps: float = 1e-8) -> Tensor:
    """1 - DIoU of segments given by distances from a point inside both: (.., 2) and (.., 2), all >=
    0, to (..).
    """
    smaller, greater = torch.minimum(predicted, offset), torch.maximum(predicted, offset)
    inter, hull = smaller.sum(-1), greater.sum(-1)
    union = predicted.sum(-1) + offset.sum(-1) - inter
    shift = ((predicted[..., 1] - predicted[..., 0]) - (offset[..., 1] - offset[..., 0])) / 2
    return 1 - inter / union.clamp(min=eps) + (shift / hull.clamp(min=eps)) ** 2


def giou(predicted: Tensor, offset: Tensor, eps: float = 1e-8) -> Tensor:
    """1 - IoU of segments around a point inside both, as `diou` takes them: there is no gap between
    them, so that the generalised IoU is the IoU.
    """
    inter = torch.minimum(predicted, offset).sum(-1)
    return 1 - inter / (predicted.sum(-1) + offset.sum(-1) - inter).clamp(min=eps)


def detection_loss(
    logits: Tensor,
    distances: Tensor,
    target: Tensor,
    offset: Tensor,
    valid: Tensor,
    normaliser: Tensor | float,
    smoothing: float = 0.0,
    iou_power: float = 0.0,
    by_class: bool = False,
) -> dict[str, Tensor]:
    """The two terms of Eq. 6 of ActionVLM (ActionFormer's loss), to be weighted and added.

    Args:
        logits: (B, P, C).
        distances: Predicted (B, P, 2), in strides, >= 0; or of every class (B, P, C, 2), of which
            those of a point's classes count.
        target, offset: From `assign`, batched.
        valid: (B, P) bool, False where the sequence is padded.
        normaliser: M, the (running) number of positive points; both sums are divided by it.
        smoothing: Label smoothing of the classes.
        iou_power: Power of a segment's IoU that the loss of its class is multiplied by, as TriDet
            does; 0 for none.
        by_class: Whether a point of several classes counts once for each in `reg`, as DyFADet has
            it; distances of every class always do.

    Returns:
        `cls` and `reg`, scalars.
    """
    positive = (target.sum(-1) > 0) & valid
    soft = target * (1 - smoothing) + smoothing / (target.shape[-1] + 1)
    found, wanted = distances[positive], offset[positive]
    chosen = torch.nonzero(target[positive] > 0)
    if distances.ndim == 4:
        found, wanted = found[chosen[:, 0], chosen[:, 1]], wanted[chosen[:, 0]]
    elif by_class:
        found, wanted = found[chosen[:, 0]], wanted[chosen[:, 0]]
    each = focal(logits, soft)
    if iou_power:
        missed = giou(found, wanted)
        missed = missed if len(missed) == len(chosen) else missed[chosen[:, 0]]
        batch, point = torch.nonzero(positive)[chosen[:, 0]].T
        weight = torch.ones_like(each).index_put(
            (batch, point, chosen[:, 1]), (1 - missed).clamp(min=1e-8) ** iou_power
        )
        each = each * weight
    return {
        "cls": each[valid].sum() / normaliser,
        "reg": diou(found, wanted).sum() / normaliser,
    }
