"""Non-maximum suppression of segments and segment voting, for all videos and classes at once.

The conventions are those of ActionFormer (and OpenTAD, where they say so). The two loops are
compiled by numba when they are first called and kept beside this file, or in a temporary folder
where nothing can be written there: as fast as the C++ that detectors bring, with nothing to build.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from vlact.runtime.compiling import compiled

if TYPE_CHECKING:
    import pandas as pd

EPS = np.float32(1e-6)  # ActionFormer's length is end - start + 1e-6, in NMS but not in voting
BLOCK = 32  # candidates that are looked at together
CLOSE_UP = 32  # picks after which those that are left close up
SIGN = np.int32(0x7FFFFFFF)  # by which the bits of negative numbers get their order
# Of e^x in double precision: 2^k e^r, r by its Taylor series; below SMALLEST it is 0 in single
LOG2_E, LN_2, SMALLEST = math.log2(math.e), math.log(2), -120.0
MANTISSA = 52  # bits
SHIFT = 1.5 * 2.0**MANTISSA  # adding it rounds to a whole number
ONE = np.int64(1023 << MANTISSA)  # the bits of 1.0
SERIES = tuple(1 / math.factorial(n) for n in range(11, -1, -1))
METHODS = ("gaussian", "linear", "hard")


@compiled
def _finite(segments, scores):
    """Whether all are finite numbers, in one pass and without arrays between."""
    for i in range(len(scores)):
        if not (
            np.isfinite(segments[i, 0]) and np.isfinite(segments[i, 1]) and np.isfinite(scores[i])
        ):
            return False
    return True


@compiled
def _exp(x):
    """e^x of a number <= 0, rounded once to single precision: a loop of it runs on several numbers
    at once, and the result is the one that double precision would round to.
    """
    a = np.float64(x)
    a = a if a > SMALLEST else SMALLEST
    shifted = a * LOG2_E + SHIFT  # its last bits are the power of two
    r = a - (shifted - SHIFT) * LN_2  # at most ln(2) / 2 from 0
    y = 0.0
    for c in SERIES:
        y = y * r + c
    power = np.int64((np.float64(shifted).view(np.int64) << MANTISSA) + ONE).view(np.float64)
    return np.float32(y * power)


@compiled
def _lower(s, e, p, bits, factor, at, size, pick, method, sigma, iou_threshold, min_score):
    """Lower the scores of a block by a pick (start, end, length); 0 is dropped.

    One plain loop a step, without a branch, so that a processor takes several candidates at once.

    Args:
        s, e, p: Of all blocks.
        bits: `p` as integers, which have the order of positive numbers and a fast maximum.
        factor: Room for a block.
        at, size: First candidate of the block, and how many.

    Returns:
        The greatest of `bits` that is left in the block.
    """
    zero, one, (low, high, length) = np.float32(0), np.float32(1), pick
    for j in range(size):
        inter = min(high, e[at + j]) - max(low, s[at + j])
        iou = inter / (length + (e[at + j] - s[at + j] + EPS) - inter)
        iou = iou if inter > 0 else zero
        if method == 0:
            factor[j] = -(iou * iou) / sigma
        elif method == 1:
            factor[j] = one - iou if iou >= iou_threshold else one
        else:
            factor[j] = zero if iou >= iou_threshold else one
    if method == 0:
        for j in range(size):
            factor[j] = _exp(factor[j])
    for j in range(size):
        now = p[at + j] * factor[j]
        p[at + j] = zero if now < min_score else now
    best = np.int32(0)
    for j in range(size):
        best = max(best, bits[at + j])
    return best


@compiled
def _pick(order, bounds, start, end, score, method, sigma, iou_threshold, min_score, most):
    """Rows of `order`, group k those from bounds[k] to bounds[k + 1] by start, to picks and lowered
    scores.

    Candidates lie in blocks that know their best and how far they reach, so a pick looks only at
    blocks that it can overlap. The next pick is the best of all blocks, the first row among equals.
    Every few picks those that are left close up.
    """
    picks, lowered, found = np.empty_like(order), np.empty_like(score), 0
    factor = np.empty(BLOCK, np.float32)
    blocks = (np.diff(bounds).max() + BLOCK - 1) // BLOCK
    begins, reaches = np.empty(blocks, np.float32), np.empty(blocks, np.float32)
    top = np.empty(blocks, np.int32)
    for g in range(len(bounds) - 1):
        rows = order[bounds[g] : bounds[g + 1]].copy()
        s, e, p, size, first = start[rows], end[rows], score[rows], len(rows), found
        bits, mine, close_up = p.view(np.int32), -1, 0
        best = 0
        for j in range(size):
            if p[j] > p[best] or (p[j] == p[best] and rows[j] < rows[best]):
                best = j
        for j in range(size):
            if j != best and p[j] < min_score:
                p[j] = 0
        while True:
            picks[found], lowered[found] = rows[best], p[best]
            pick = s[best], e[best], e[best] - s[best] + EPS
            p[best] = 0
            if found - first == close_up:  # all blocks are looked at anew
                kept, mine, close_up = 0, -1, close_up + CLOSE_UP
                for j in range(size):
                    if p[j] > 0:
                        rows[kept], s[kept], e[kept], p[kept] = rows[j], s[j], e[j], p[j]
                        kept += 1
                size, blocks = kept, (kept + BLOCK - 1) // BLOCK
                for b in range(blocks):
                    at = b * BLOCK
                    begins[b], reaches[b], top[b] = s[at], e[at], 0
                    for j in range(at, min(size, at + BLOCK)):
                        reaches[b], top[b] = max(reaches[b], e[j]), max(top[b], bits[j])
            found += 1
            now = np.int32(0)
            for b in range(blocks):
                # the pick's own block has another best, whatever it overlaps
                if b == mine or (top[b] > 0 and begins[b] < pick[1] and reaches[b] > pick[0]):
                    at = b * BLOCK
                    here = min(size - at, BLOCK)
                    top[b] = _lower(
                        s, e, p, bits, factor, at, here, pick, method, sigma, iou_threshold,
                        min_score,
                    )  # fmt: skip
                now = max(now, top[b])
            if now == 0:
                break
            best = -1
            for b in range(blocks):
                if top[b] == now:
                    for j in range(b * BLOCK, min(size, (b + 1) * BLOCK)):
                        if bits[j] == now and (best < 0 or rows[j] < rows[best]):
                            best, mine = j, b
            if found - first >= most and p[best] < lowered[found - 1]:
                break  # enough, and none that is left ties with the last
    return picks[:found], lowered[:found]


def _by_group_and_start(group: np.ndarray | None, start: np.ndarray):
    """Rows sorted by group and, in each, by start; and where groups begin and end among them.

    One sort of integers, several times as fast as one by two keys.
    """
    bits = start.view(np.int32)
    rise = bits if not len(bits) or bits.min() >= 0 else np.where(bits < 0, bits ^ SIGN, bits)
    if group is None:
        return np.argsort(rise), np.array([0, len(rise)])
    group = np.asarray(group)
    lowest = group.min()
    if group.dtype.kind not in "iu" or int(group.max()) - int(lowest) >= 4 * len(group):
        group, lowest = np.unique(group, return_inverse=True)[1].reshape(-1), 0
    key = group.astype(np.int64) - lowest
    counts = np.bincount(key)
    key <<= 32
    key += rise
    return np.argsort(key), np.concatenate([[0], np.cumsum(counts[counts > 0])])


def soft_nms(
    segments: np.ndarray,
    scores: np.ndarray,
    group: np.ndarray | None = None,
    *,
    method: str = "gaussian",
    sigma: float = 0.5,
    iou_threshold: float = 0.1,
    min_score: float = 0.001,
    max_seg_num: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pick the best segment, lower the scores of those that overlap it, and so on.

    Single precision, as in the C++ that it replaces. Equal scores: the first listed is picked
    first. The best segment of a group is picked whatever its score; the others only while their
    lowered score is above 0 and at least `min_score`.

    Args:
        segments: (N, 2), any unit.
        scores: (N,), >= 0.
        group: (N,) integers; segments meet only inside their group (a video, or a class of a
            video). One group if not given.
        method: Factor on the score of a segment with a given IoU to the pick: "gaussian"
            exp(-IoU² / sigma), "linear" 1 - IoU from `iou_threshold` on, "hard" 0 from
            `iou_threshold` on.
        sigma, iou_threshold: See `method`.
        min_score: See above.
        max_seg_num: A group stops after so many picks, >= 1; those that tie with its last pick
            still follow. None for all picks.

    Returns:
        Row numbers of the picks and their lowered scores, groups in order and best first within
        each.

    Raises:
        ValueError: Unknown method, a parameter out of range, other shapes, or numbers that are not
            finite.
    """
    if method not in METHODS:
        raise ValueError(f"method must be 'gaussian', 'linear' or 'hard'; got {method!r}")
    segments = np.ascontiguousarray(segments, np.float32)
    scores = np.ascontiguousarray(scores, np.float32)
    shape = scores.shape if group is None else np.shape(group)
    if segments.shape != (len(scores), 2) or shape != scores.shape:
        raise ValueError(
            "expected segments (N, 2), scores (N,), group (N,); "
            f"got {segments.shape}, {scores.shape}, {shape}"
        )
    if not (sigma > 0 and 0 < iou_threshold <= 1):
        raise ValueError(
            f"sigma must be above 0 and iou_threshold in (0, 1]; got {sigma} and {iou_threshold}"
        )
    if max_seg_num is not None and max_seg_num < 1:
        raise ValueError(f"max_seg_num must be at least 1; got {max_seg_num}")
    if not _finite(segments, scores):
        raise ValueError("segments and scores must be finite numbers")
    if not len(scores):
        return np.zeros(0, np.int64), scores

    start, end = segments.T.copy()
    order, bounds = _by_group_and_start(group, start)
    numbers = (np.float32(x) for x in (sigma, iou_threshold, min_score))
    most = len(scores) if max_seg_num is None else max_seg_num
    which = METHODS.index(method)
    return _pick(order, bounds, start, end, scores, which, *numbers, most)


@compiled
def _vote(picks, low, high, start, end, score, iou_threshold, weight_by_iou):
    """Each pick from the candidates low[k] .. high[k]."""
    out = picks.copy()
    for k in range(len(picks)):
        total, first, last, s, e = 0.0, 0.0, 0.0, picks[k, 0], picks[k, 1]
        for i in range(low[k], high[k]):
            inter = max(min(e, end[i]) - max(s, start[i]), 0.0)
            iou = inter / (e - s + end[i] - start[i] - inter)
            if iou >= iou_threshold:
                weight = score[i] * iou if weight_by_iou else score[i]
                total += weight
                first, last = first + weight * start[i], last + weight * end[i]
        if total > 0:
            out[k, 0], out[k, 1] = first / total, last / total
    return out


def vote(
    picks: np.ndarray,
    segments: np.ndarray,
    scores: np.ndarray,
    iou_threshold: float,
    weight_by_iou: bool = True,
) -> np.ndarray:
    """Move every pick to the weighted mean of the candidates that overlap it.

    Those count whose IoU with the pick is at least `iou_threshold`.

    Args:
        picks: (K, 2), of one video.
        segments: All candidates (N, 2) before NMS.
        scores: Theirs (N,).
        iou_threshold: In (0, 1].
        weight_by_iou: Weights are score times IoU (ActionFormer) or the score alone (TriDet,
            OpenTAD).

    Returns:
        (K, 2). A pick that overlaps no candidate enough, not even itself (one of no length), stays.
    """
    picks, segments, scores = (np.asarray(x, np.float64) for x in (picks, segments, scores))
    order = np.argsort(segments[:, 0], kind="stable")
    segments, scores = segments[order], scores[order]
    reach = np.maximum.accumulate(segments[:, 1]) if len(segments) else segments[:, 1]
    low = np.searchsorted(reach, picks[:, 0])
    high = np.searchsorted(segments[:, 0], picks[:, 1], side="right")
    return _vote(picks, low, high, *segments.T.copy(), scores, iou_threshold, weight_by_iou)


def suppress(
    table: "pd.DataFrame",
    *,
    multiclass: bool = True,
    max_seg_num: int = 200,
    voting_threshold: float = 0.0,
    weight_by_iou: bool = True,
    **options,
) -> "pd.DataFrame":
    """NMS of a prediction table, video by video.

    Args:
        table: Columns `video, start_s, end_s, label, score`.
        multiclass: Classes meet only themselves, and there is no voting; otherwise all segments
            of a video meet.
        max_seg_num: Picks kept of each video, best first, >= 1.
        voting_threshold: tIoU from which candidates vote, 0 for no voting; see `vote`.
        weight_by_iou: See `vote`.
        options: Of `soft_nms`.

    Returns:
        The picks with lowered scores, videos in the order of the table, best first.

    Raises:
        ValueError: Voting asked for with `multiclass`, where ActionFormer and OpenTAD silently
            leave it out; and see `soft_nms`.
    """
    import pandas as pd

    if multiclass and voting_threshold > 0:
        raise ValueError(
            "voting needs multiclass=False: "
            "with multiclass=True ActionFormer and OpenTAD silently skip it"
        )
    segments = table[["start_s", "end_s"]].to_numpy(np.float64)
    scores = table["score"].to_numpy(np.float64)
    video = pd.factorize(table["video"])[0]
    label = pd.factorize(table["label"])[0] if multiclass else np.zeros(len(table), np.int64)
    group = video * (label.max(initial=0) + 1) + label
    picks, lowered = soft_nms(segments, scores, group, max_seg_num=max_seg_num, **options)
    # best first within each video; the first listed among equals
    order = np.lexsort((picks, -lowered, video[picks]))
    picks, lowered = picks[order], lowered[order]
    first = np.searchsorted(video[picks], video[picks])
    stay = np.arange(len(picks)) - first < max_seg_num
    picks, lowered = picks[stay], lowered[stay]
    out = table.iloc[picks].assign(score=lowered).reset_index(drop=True)
    if voting_threshold > 0:
        rows = pd.Series(np.arange(len(table))).groupby(video).indices
        chosen = pd.Series(np.arange(len(out))).groupby(video[picks]).indices
        moved = segments[picks]
        for v, mine in chosen.items():
            near = segments[rows[v]], scores[rows[v]]
            moved[mine] = vote(moved[mine], *near, voting_threshold, weight_by_iou)
        out[["start_s", "end_s"]] = moved
    return out
