"""Non-maximum suppression of segments and segment voting, in numpy, for all videos and classes at once.

The conventions are those of ActionFormer (and OpenTAD, where they say so). Segments that no chain of overlaps
connects never touch each other's scores, so every video and class falls into independent pieces; pieces of
similar size are worked on side by side, one pick of each per step.
"""

import numpy as np
import pandas as pd

EPS = 1e-6  # ActionFormer's length is end - start + 1e-6, in NMS but not in voting
ELEMENTS = 1 << 15  # of a block that is worked on at once; stays in the processor's cache
SMALL = 256  # pieces up to this size have all their factors worked out beforehand


def soft_nms(
    segments: np.ndarray,
    scores: np.ndarray,
    group: np.ndarray | None = None,
    *,
    method: str = "gaussian",
    sigma: float = 0.5,
    iou_threshold: float = 0.1,
    min_score: float = 0.001,
) -> tuple[np.ndarray, np.ndarray]:
    """Pick the best segment, lower the scores of those that overlap it, and so on.

    Single precision, as in the C++ that it replaces. Equal scores: the first listed is picked first. The best
    segment of a group is picked whatever its score; the others only while their lowered score is above 0 and at
    least `min_score`.

    Args:
        segments: (N, 2), any unit.
        scores: (N,), >= 0.
        group: (N,) integers; segments meet only inside their group (a video, or a class of a video). One group
            if not given.
        method: Factor on the score of a segment with a given IoU to the pick: "gaussian" exp(-IoU² / sigma),
            "linear" 1 - IoU from `iou_threshold` on, "hard" 0 from `iou_threshold` on.
        sigma, iou_threshold: See `method`.
        min_score: See above.

    Returns:
        Row numbers of the picks and their lowered scores, groups in order and best first within each.

    Raises:
        ValueError: Unknown method, other shapes, or numbers that are not finite.
    """
    if method not in ("gaussian", "linear", "hard"):
        raise ValueError(f"method must be 'gaussian', 'linear' or 'hard'; got {method!r}")
    segments, scores = np.asarray(segments, np.float32), np.asarray(scores, np.float32)
    group = np.zeros(len(scores), np.int64) if group is None else np.asarray(group)
    if segments.shape != (len(scores), 2) or group.shape != scores.shape:
        raise ValueError(f"expected segments (N, 2), scores (N,), group (N,); got {segments.shape}, {scores.shape}, {group.shape}")
    if not (np.isfinite(segments).all() and np.isfinite(scores).all()):
        raise ValueError("segments and scores must be finite numbers")
    if not len(scores):
        return np.zeros(0, np.int64), scores

    def factor(s, e, start, end):
        inter = np.minimum(end, e) - np.maximum(start, s)
        np.maximum(inter, 0, out=inter)
        iou = inter / ((end - start + np.float32(EPS)) + (e - s + np.float32(EPS)) - inter)
        if method == "gaussian":
            iou *= iou
            iou *= np.float32(-1 / sigma)
            return np.exp(iou, out=iou)
        return np.where(iou < np.float32(iou_threshold), np.float32(1), 1 - iou if method == "linear" else np.float32(0))

    best = np.lexsort((np.arange(len(scores)), -scores, group))
    best = best[np.diff(group[best], prepend=group[best[0]] - 1) != 0]
    best = best[scores[best] < min_score]  # nothing else of their groups can be picked
    rows = np.flatnonzero((scores >= min_score) & (scores > 0))
    order = rows[np.lexsort((rows, segments[rows, 0], group[rows]))]
    reach = _running_max(segments[order, 1], group[order])
    new = np.append(len(order) > 0, (segments[order[1:], 0] >= reach[:-1]) | (group[order[1:]] != group[order[:-1]]))
    start = np.flatnonzero(new)
    size = np.diff(np.append(start, len(order)))
    by_size = np.argsort(size, kind="stable")
    picks = [best, order[start[size == 1]]]
    lowered = [scores[p] for p in picks]
    todo = by_size[np.searchsorted(size[by_size], 2) :]
    while len(todo):
        width = size[todo]
        cost = width * np.where(width <= SMALL, width / 4, 1) * np.arange(1, len(todo) + 1)
        count = max(1, int(np.searchsorted(cost, ELEMENTS, side="right")))
        block, todo = todo[:count], todo[count:]
        column = np.arange(size[block[-1]])
        there = column < size[block][:, None]
        index = np.sort(np.where(there, order[np.minimum(start[block][:, None] + column, len(order) - 1)], len(scores)), 1)
        found = _pick(segments, scores, index, factor, min_score)
        good = (found[1] >= min_score) & (found[1] > 0)
        picks.append(found[0][good])
        lowered.append(found[1][good])
    picks, lowered = np.concatenate(picks), np.concatenate(lowered)
    order = np.lexsort((picks, -lowered, group[picks]))
    return picks[order], lowered[order]


def _running_max(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Running maximum that starts again with every group; `group` is sorted."""
    span = float(values.max() - values.min()) + 1.0
    number = np.cumsum(np.diff(group, prepend=group[0]) != 0)
    return np.maximum.accumulate(values - values.min() + span * number.astype(np.float64)) + values.min() - span * number


def _pick(segments, scores, index, factor, min_score):
    """Picks and lowered scores of the rows of `index` (R, M), each a piece of its own; len(scores) pads.

    A finished row goes on picking what is below `min_score`, for the caller to drop.
    """
    padding = index == len(scores)
    safe = np.where(padding, 0, index)
    start, end, score = segments[safe, 0], segments[safe, 1], scores[safe]
    start[padding], end[padding], score[padding] = 0, 0, -1
    table = factor(start[:, :, None], end[:, :, None], start[:, None], end[:, None]) if index.shape[1] <= SMALL else None
    line, picks, lowered = np.arange(len(index)), [], []
    for step in range(index.shape[1]):
        if step % 8 == 7:  # leave finished rows, and columns that no row needs any more
            alive = (score >= min_score).sum(1)
            if not alive.any():
                break
            if alive.mean() < 0.6 * score.shape[1]:
                keep = np.flatnonzero(alive)
                column = np.sort(np.argsort(score[keep] < min_score, axis=1, kind="stable")[:, : alive.max()], 1)
                start, end, score, index = (np.take_along_axis(x[keep], column, 1) for x in (start, end, score, index))
                if table is not None:
                    table = table[keep[:, None, None], column[:, :, None], column[:, None]]
                line = np.arange(len(keep))
        at = line, score.argmax(1)
        picks.append(index[at])
        lowered.append(score[at])
        score *= factor(start[at][:, None], end[at][:, None], start, end) if table is None else table[at]
        score[at] = -1
    return np.concatenate(picks), np.concatenate(lowered)


def vote(picks: np.ndarray, segments: np.ndarray, scores: np.ndarray, iou_threshold: float, weight_by_iou: bool = True) -> np.ndarray:
    """Move every pick to the weighted mean of the candidates that overlap it with at least `iou_threshold`.

    Args:
        picks: (K, 2), of one video.
        segments: All candidates (N, 2) before NMS.
        scores: Theirs (N,).
        iou_threshold: In (0, 1].
        weight_by_iou: Weights are score times IoU (ActionFormer) or the score alone (TriDet, OpenTAD).

    Returns:
        (K, 2). A pick that overlaps no candidate enough, not even itself (one of no length), stays.
    """
    picks, segments, scores = (np.asarray(x, np.float64) for x in (picks, segments, scores))
    order = np.argsort(segments[:, 0], kind="stable")
    segments, scores = segments[order], scores[order]
    reach = np.maximum.accumulate(segments[:, 1]) if len(segments) else segments[:, 1]
    low, high = np.searchsorted(reach, picks[:, 0]), np.searchsorted(segments[:, 0], picks[:, 1], side="right")
    out, step = picks.copy(), max(1, (1 << 18) // max(1, int((high - low).max(initial=1))))
    for first in range(0, len(picks), step):
        part = slice(first, first + step)
        n = np.maximum(high[part] - low[part], 0)
        k = np.repeat(np.arange(len(n)), n)
        i = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(low[part], n)
        own = picks[part][k]
        inter = np.maximum(np.minimum(own[:, 1], segments[i, 1]) - np.maximum(own[:, 0], segments[i, 0]), 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = inter / (own[:, 1] - own[:, 0] + segments[i, 1] - segments[i, 0] - inter)
        near = iou >= iou_threshold
        k, i = k[near], i[near]
        weight = scores[i] * (iou[near] if weight_by_iou else 1)
        total = np.bincount(k, weight, len(n))
        mean = np.stack([np.bincount(k, weight * segments[i, c], len(n)) for c in (0, 1)], 1)
        out[part] = np.where(total[:, None] > 0, mean / np.where(total > 0, total, 1)[:, None], out[part])
    return out


def suppress(
    table: pd.DataFrame,
    *,
    multiclass: bool = True,
    max_seg_num: int = 200,
    voting_threshold: float = 0.0,
    weight_by_iou: bool = True,
    **options,
) -> pd.DataFrame:
    """NMS of a prediction table, video by video.

    Args:
        table: Columns `video, start_s, end_s, label, score`.
        multiclass: Classes meet only themselves, and there is no voting; otherwise all segments of a video meet.
        max_seg_num: Picks kept of each video, best first.
        voting_threshold: tIoU from which candidates vote, 0 for no voting; see `vote`.
        weight_by_iou: See `vote`.
        options: Of `soft_nms`.

    Returns:
        The picks with lowered scores, videos in the order of the table, best first.

    Raises:
        ValueError: Voting asked for with `multiclass`, where ActionFormer and OpenTAD silently leave it out.
    """
    if multiclass and voting_threshold > 0:
        raise ValueError("voting needs multiclass=False: with multiclass=True ActionFormer and OpenTAD silently skip it")
    segments, scores = table[["start_s", "end_s"]].to_numpy(np.float64), table["score"].to_numpy(np.float64)
    video = pd.factorize(table["video"])[0]
    label = pd.factorize(table["label"])[0] if multiclass else np.zeros(len(table), np.int64)
    picks, lowered = soft_nms(segments, scores, video * (label.max(initial=0) + 1) + label, **options)
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
            moved[mine] = vote(moved[mine], segments[rows[v]], scores[rows[v]], voting_threshold, weight_by_iou)
        out[["start_s", "end_s"]] = moved
    return out
