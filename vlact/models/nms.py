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
BLOCK = 32  # candidates that are looked at together; 16 to 64 are as fast
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
def _pick(order, bounds, start, end, score, method, sigma, iou_threshold, min_score, most):
    """Rows of `order`, group k those from bounds[k] to bounds[k + 1], to picks and lowered scores.

    Candidates lie sorted by start in blocks that know their best and how far they reach, so a pick
    looks only at blocks that it can overlap. The next pick is the best of all blocks, the first
    listed among equals. When half the candidates are gone, the rest close up.
    """
    gone = np.float32(-np.inf)
    picks, lowered, found = np.empty_like(order), np.empty_like(score), 0
    for g in range(len(bounds) - 1):
        # place: in the list of the group, which decides ties
        place = np.argsort(start[order[bounds[g] : bounds[g + 1]]], kind="mergesort")
        rows = order[bounds[g] : bounds[g + 1]][place]
        s, e, p, size, first = start[rows], end[rows], score[rows], len(rows), found
        best = 0
        for j in range(size):
            if p[j] > p[best] or (p[j] == p[best] and place[j] < place[best]):
                best = j
        for j in range(size):
            if j != best and (p[j] < min_score or p[j] <= 0):
                p[j] = gone
        blocks = (size + BLOCK - 1) // BLOCK
        begins, reaches = np.empty(blocks, np.float32), np.empty(blocks, np.float32)
        top, at = np.empty(blocks, np.float32), np.empty(blocks, np.int64)
        left = size
        while left:
            # close up, and look at all blocks anew
            kept = 0
            for j in range(size):
                if p[j] > gone:
                    rows[kept], place[kept] = rows[j], place[j]
                    s[kept], e[kept], p[kept] = s[j], e[j], p[j]
                    kept += 1
            size = left = kept
            blocks = (size + BLOCK - 1) // BLOCK
            for b in range(blocks):
                begins[b], reaches[b], top[b], at[b] = s[b * BLOCK], gone, gone, 0
                for j in range(b * BLOCK, min(size, (b + 1) * BLOCK)):
                    reaches[b] = max(reaches[b], e[j])
                    if p[j] > top[b] or (p[j] == top[b] and place[j] < place[at[b]]):
                        top[b], at[b] = p[j], j
            while left > size // 2:
                mine = 0
                for b in range(1, blocks):
                    if top[b] > top[mine] or (
                        top[b] == top[mine] and place[at[b]] < place[at[mine]]
                    ):
                        mine = b
                best = at[mine]
                if found - first >= most and p[best] < lowered[found - 1]:
                    left = 0  # enough, and none that is left ties with the last
                    break
                picks[found], lowered[found] = rows[best], p[best]
                found += 1
                low, high, length = s[best], e[best], e[best] - s[best] + EPS
                p[best] = gone
                left -= 1
                for b in range(blocks):
                    if b != mine and not (begins[b] < high and reaches[b] > low):
                        continue
                    most_here, where = gone, b * BLOCK
                    for j in range(b * BLOCK, min(size, (b + 1) * BLOCK)):
                        now = p[j]
                        if now == gone:
                            continue
                        inter = min(high, e[j]) - max(low, s[j])
                        if inter > 0:
                            iou = inter / (length + (e[j] - s[j] + EPS) - inter)
                            if method == 0:
                                now *= math.exp(-(iou * iou) / sigma)
                            elif iou >= iou_threshold:
                                now *= np.float32(1) - iou if method == 1 else np.float32(0)
                            if now < min_score or now <= 0:
                                now = gone
                                left -= 1
                            p[j] = now
                        if now > most_here or (now == most_here and place[j] < place[where]):
                            most_here, where = now, j
                    top[b], at[b] = most_here, where
    return picks[:found], lowered[:found]


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

    order, bounds = np.arange(len(scores)), np.array([0, len(scores)])
    if group is not None:
        order = np.argsort(group, kind="stable")
        mine = np.asarray(group)[order]
        ends = np.flatnonzero(mine[1:] != mine[:-1]) + 1
        bounds = np.concatenate([bounds[:1], ends, bounds[1:]])
    numbers = (np.float32(x) for x in (sigma, iou_threshold, min_score))
    most = len(scores) if max_seg_num is None else max_seg_num
    which = METHODS.index(method)
    return _pick(order, bounds, *segments.T.copy(), scores, which, *numbers, most)


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
