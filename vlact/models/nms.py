"""Non-maximum suppression of segments and segment voting, for all videos and classes at once.

The conventions are those of ActionFormer (and OpenTAD, where they say so). The two loops are compiled by numba when they
are first called and kept beside this file: as fast as the C++ that detectors bring, with nothing to build.
"""

import math

import numpy as np
import pandas as pd

from vlact.runtime.extras import lacking

try:
    from numba import njit
except ModuleNotFoundError:  # the module is read without it; a call says what is missing

    def njit(**options):
        def absent(*given):
            raise ModuleNotFoundError(lacking("vlact.models.nms", "numba"), name="numba")

        return lambda function: absent


EPS = np.float32(1e-6)  # ActionFormer's length is end - start + 1e-6, in NMS but not in voting
METHODS = ("gaussian", "linear", "hard")


@njit(cache=True, error_model="numpy")
def _finite(segments, scores):
    """Whether all are finite numbers, in one pass and without arrays between."""
    for i in range(len(scores)):
        if not (np.isfinite(segments[i, 0]) and np.isfinite(segments[i, 1]) and np.isfinite(scores[i])):
            return False
    return True


@njit(cache=True, error_model="numpy")
def _pick(order, bounds, start, end, score, method, sigma, iou_threshold, min_score):
    """Rows of `order`, group k those from bounds[k] to bounds[k + 1], to picks and lowered scores.

    One pass for every pick lowers what is left, drops what fell too low, and finds the next best, the first listed
    among equals.
    """
    picks, lowered, found = np.empty_like(order), np.empty_like(score), 0
    for g in range(len(bounds) - 1):
        rows = order[bounds[g] : bounds[g + 1]].copy()
        s, e, p, left = start[rows], end[rows], score[rows], len(rows)
        best = np.argmax(p)
        while left:
            picks[found], lowered[found] = rows[best], p[best]
            found += 1
            low, high, length = s[best], e[best], e[best] - s[best] + EPS
            kept, top, taken = 0, np.float32(0), best
            for j in range(left):
                now = p[j]
                inter = min(high, e[j]) - max(low, s[j])
                if inter > 0:
                    iou = inter / (length + (e[j] - s[j] + EPS) - inter)
                    if method == 0:
                        now *= math.exp(-(iou * iou) / sigma)
                    elif iou >= iou_threshold:
                        now *= np.float32(1) - iou if method == 1 else np.float32(0)
                if j == taken or now < min_score or now <= 0:
                    continue
                if now > top:
                    best, top = kept, now
                rows[kept], s[kept], e[kept], p[kept] = rows[j], s[j], e[j], now
                kept += 1
            left = kept
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
        ValueError: Unknown method, a parameter out of range, other shapes, or numbers that are not finite.
    """
    if method not in METHODS:
        raise ValueError(f"method must be 'gaussian', 'linear' or 'hard'; got {method!r}")
    segments, scores = np.ascontiguousarray(segments, np.float32), np.ascontiguousarray(scores, np.float32)
    shape = scores.shape if group is None else np.shape(group)
    if segments.shape != (len(scores), 2) or shape != scores.shape:
        raise ValueError(f"expected segments (N, 2), scores (N,), group (N,); got {segments.shape}, {scores.shape}, {shape}")
    if not (sigma > 0 and 0 < iou_threshold <= 1):
        raise ValueError(f"sigma must be above 0 and iou_threshold in (0, 1]; got {sigma} and {iou_threshold}")
    if not _finite(segments, scores):
        raise ValueError("segments and scores must be finite numbers")
    if not len(scores):
        return np.zeros(0, np.int64), scores

    order, bounds = np.arange(len(scores)), np.array([0, len(scores)])
    if group is not None:
        order = np.argsort(group, kind="stable")
        mine = np.asarray(group)[order]
        bounds = np.concatenate([bounds[:1], np.flatnonzero(mine[1:] != mine[:-1]) + 1, bounds[1:]])
    numbers = (np.float32(x) for x in (sigma, iou_threshold, min_score))
    return _pick(order, bounds, *segments.T.copy(), scores, METHODS.index(method), *numbers)


@njit(cache=True, error_model="numpy")
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
                total, first, last = total + weight, first + weight * start[i], last + weight * end[i]
        if total > 0:
            out[k, 0], out[k, 1] = first / total, last / total
    return out


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
    return _vote(picks, low, high, *segments.T.copy(), scores, iou_threshold, weight_by_iou)


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
