"""Localiser to prediction table: points to segments, steps to seconds, then NMS."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vlact.losses.localization import Points
from vlact.nms import suppress


def decode(
    logits: Tensor, distances: Tensor, valid: Tensor, at: Points, threshold: float = 0.001, top_k: int = 2000
) -> dict[str, np.ndarray]:
    """Candidates of one sequence, as ActionFormer makes them before NMS.

    Args:
        logits: (P, C). distances: (P, 2) in strides. valid: (P,) bool.
        at: The points.
        threshold: Least score.
        top_k: Most candidates of each level, over points and classes.

    Returns:
        `segment` (N, 2) in steps, `label` (N,), `score` (N,), `point` (N,).
    """
    scores = torch.where(valid[:, None], logits.sigmoid(), 0.0)
    found = []
    for stride in at.stride.unique():
        level = torch.nonzero(at.stride == stride)[:, 0]
        flat = scores[level].flatten()
        best = torch.nonzero(flat > threshold)[:, 0]
        best = best[flat[best].argsort(descending=True, stable=True)[:top_k]]
        found.append(level[best // scores.shape[1]] * scores.shape[1] + best % scores.shape[1])
    flat = torch.cat(found)
    point, label = flat // scores.shape[1], flat % scores.shape[1]
    reach = distances[point] * at.stride[point][:, None]
    segment = torch.stack([at.t[point] - reach[:, 0], at.t[point] + reach[:, 1]], 1)
    return {"segment": segment.numpy(), "label": label.numpy(), "score": scores[point, label].numpy(), "point": point.numpy()}


def detect(
    videos: Iterable[tuple[str, float, Callable]], at: Points, classes: list[str], step_s: float, offset_s: float, options: dict
) -> pd.DataFrame:
    """Detections of many videos: `video, start_s, end_s, label, score`.

    Args:
        videos: Name, duration in seconds, and what gives logits, distances and valid of it.
        at: Points of the sequences.
        classes: Names.
        step_s: Seconds from one feature to the next.
        offset_s: Time of the first feature's centre.
        options: Of `vlact.nms.suppress`.

    Segments are cut to the video; what is left empty is dropped.
    """
    tables = []
    for name, duration, run in videos:
        found = decode(*run(), at)
        seconds = (found["segment"] * step_s + offset_s).clip(0, duration).astype(np.float64)
        columns = {"start_s": seconds[:, 0], "end_s": seconds[:, 1], "label": np.array(classes, object)[found["label"]]}
        table = pd.DataFrame({"video": name, **columns, "score": found["score"].astype(np.float64)})
        tables.append(table[table["end_s"] > table["start_s"] + 1e-3])
    whole = pd.concat(tables, ignore_index=True)
    return suppress(whole, **options) if len(whole) else whole
