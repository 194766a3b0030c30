"""Average precision written as the protocols read: one class, one threshold, one prediction after
the other.
"""

import numpy as np


def iou(a, b):
    """0 with a segment that does not end after its start, which matches nothing."""
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - inter
    return inter / union if union > 0 else 0.0


def interpolated(precision, recall):
    """Area under the precision envelope, all points."""
    precision, recall = [0.0, *precision, 0.0], [0.0, *recall, 1.0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1))


def activitynet_ap(gt, pred, threshold):
    """gt: (video, start, end) rows of a class; pred: (video, start, end, score), in file order."""
    free, hits = [True] * len(gt), []
    for video, start, end, _ in sorted(pred, key=lambda r: -r[3]):
        near = [(iou(g[1:], (start, end)), -j) for j, g in enumerate(gt) if g[0] == video]
        hit = 0
        for overlap, j in sorted(near, reverse=True):
            if not overlap >= threshold:
                break
            if free[-j]:
                free[-j], hit = False, 1
                break
        hits.append(hit)
    right = np.cumsum(hits)
    return interpolated((right / np.arange(1, len(hits) + 1)).tolist(), (right / len(gt)).tolist())


def thumos14_ap(gt, pred, ambiguous, threshold):
    """As `activitynet_ap`, with intervals (video, start, end) over which a false positive is
    forgiven.
    """
    state = {}
    ranked = sorted(pred, key=lambda r: -r[3])
    for video, start, end in gt:
        near = [
            (iou((start, end), r[1:3]), -k)
            for k, r in enumerate(ranked)
            if r[0] == video and k not in state
        ]
        if near and max(near)[0] > threshold:
            state[-max(near)[1]] = "right"
    for k, (video, start, end, _) in enumerate(ranked):
        if k not in state and any(
            v == video and min(end, e) > max(start, s) for v, s, e in ambiguous
        ):
            state[k] = "forgiven"
    right, shown, total = 0, 0, 0.0
    for k in range(len(ranked)):
        if state.get(k) != "forgiven":
            shown += 1
            if state.get(k) == "right":
                right += 1
                total += right / shown
    return total / len(gt)


def per_prediction(gt, pred, tious):
    """AP (tious,) of one class, predictions one by one against arrays, all thresholds at once: what
    fast public evaluators do.

    gt: video to segments (n, 2); pred: videos (N,), segments (N, 2), scores (N,).
    """
    videos, segments, scores = pred
    order = np.argsort(-scores, kind="stable")
    hit = np.zeros((len(tious), len(order)))
    taken = {v: np.full((len(tious), len(s)), -1) for v, s in gt.items()}
    for place, i in enumerate(order):
        own = gt.get(videos[i])
        if own is None:
            continue
        start, end = segments[i]
        inter = np.clip(np.minimum(end, own[:, 1]) - np.maximum(start, own[:, 0]), 0, None)
        overlap = inter / ((end - start) + (own[:, 1] - own[:, 0]) - inter)
        best = np.argsort(-overlap, kind="stable")
        for k, threshold in enumerate(tious):
            for j in best:
                if not overlap[j] >= threshold:
                    break
                if taken[videos[i]][k, j] < 0:
                    taken[videos[i]][k, j] = place
                    hit[k, place] = 1
                    break
    right = np.cumsum(hit, 1)
    recall, precision = right / sum(map(len, gt.values())), right / np.arange(1, len(order) + 1)
    return np.array(
        [interpolated(p.tolist(), r.tolist()) for p, r in zip(precision, recall, strict=True)]
    )
