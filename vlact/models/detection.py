"""Points of a localizer to candidate segments."""

import numpy as np
import torch
from torch import Tensor

from vlact.losses.localization import Points


def members(
    logits: Tensor,
    segments: Tensor,
    valid: Tensor,
    start: float = 0.0,
    top_k: int = 2000,
    min_steps: float | None = None,
) -> dict[str, np.ndarray]:
    """What one window's set of segments is: a class each, the likeliest.

    Args:
        logits: (Q, C). segments: (Q, 2) in steps. valid: (Q,) bool.
        start, top_k, min_steps: See `candidates`; `top_k` of all.

    Returns:
        As `candidates`, `point` being the query.
    """
    score, label = logits.sigmoid().max(-1)
    query = torch.nonzero(valid & (segments[:, 1] - segments[:, 0] > (min_steps or 0)))[:, 0]
    query = query[score[query].argsort(descending=True, stable=True)[:top_k]]
    found = {"segment": start + segments[query], "label": label[query], "score": score[query]}
    return {name: x.numpy() for name, x in (found | {"point": query}).items()}


def candidates(
    logits: Tensor,
    distances: Tensor,
    valid: Tensor,
    at: Points,
    start: float = 0.0,
    threshold: float = 0.001,
    top_k: int = 2000,
    min_steps: float | None = None,
    by_level: bool = True,
) -> dict[str, np.ndarray]:
    """Candidates of one window before NMS, as ActionFormer makes them, or OpenTAD.

    Args:
        logits: (P, C). distances: (P, 2) in strides, or (P, C, 2) of every class. valid: (P,) bool.
        at: The points.
        start: First step of the window.
        threshold: Least score.
        top_k: Most candidates of each level, over points and classes.
        min_steps: Steps that a segment must be longer than, if any.
        by_level: Whether `top_k` are of each level (ActionFormer), or of all together (OpenTAD).

    Returns:
        `segment` (N, 2) in steps of the whole sequence, `label` (N,), `score` (N,), `point` (N,).
    """
    scores = torch.where(valid[:, None], logits.sigmoid(), 0.0)
    found = []
    levels = [at.stride == stride for stride in at.stride.unique()]
    for mine in levels if by_level else [at.stride > 0]:
        level = torch.nonzero(mine)[:, 0]
        flat = scores[level].flatten()
        best = torch.nonzero(flat > threshold)[:, 0]
        best = best[flat[best].argsort(descending=True, stable=True)[:top_k]]
        found.append(level[best // scores.shape[1]] * scores.shape[1] + best % scores.shape[1])
    flat = torch.cat(found)
    point, label = flat // scores.shape[1], flat % scores.shape[1]
    own = distances[point, label] if distances.ndim == 3 else distances[point]
    reach = own * at.stride[point][:, None]
    segment = start + torch.stack([at.t[point] - reach[:, 0], at.t[point] + reach[:, 1]], 1)
    found = {"segment": segment, "label": label, "score": scores[point, label], "point": point}
    if min_steps is not None:
        long = segment[:, 1] - segment[:, 0] > min_steps
        found = {name: x[long] for name, x in found.items()}
    return {name: x.numpy() for name, x in found.items()}
