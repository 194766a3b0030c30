"""Choosers that take the first free thing of their list, in turn: the compiled loop.

Used by `vlact.metrics.localization` where there are too many pairs to hold; imported then only, as
numba takes longer to import than a small table to score.
"""

import numpy as np

from vlact.runtime.compiling import compiled


@compiled
def take_turns(chooser, low, high, thing, place, tious, strict):
    """Who takes each thing, at every threshold.

    Args:
        chooser: Segments (C, 2) in the order of choosing.
        low, high: Rows of `thing` that each chooser may look at (C,).
        thing: Segments (N, 2).
        place: Number of each thing (N,); of equal overlaps the lowest goes first.
        tious: Thresholds (K,).
        strict: Whether tIoU must be above the threshold; else at least equal.

    Returns:
        Number of the chooser by threshold and row of `thing` (K, N), -1 where it stays free.
    """
    holder = np.full((len(tious), len(thing)), -1)
    best, most = np.empty(len(tious), np.int64), np.empty(len(tious))
    for c in range(len(chooser)):
        start, end = chooser[c, 0], chooser[c, 1]
        best[:], most[:] = -1, -1.0
        for j in range(low[c], high[c]):
            inter = max(min(end, thing[j, 1]) - max(start, thing[j, 0]), 0.0)
            overlap = inter / ((end - start) + (thing[j, 1] - thing[j, 0]) - inter)
            for k in range(len(tious)):
                if not (overlap > tious[k] or (overlap == tious[k] and not strict)):
                    continue
                if holder[k, j] >= 0 or overlap < most[k]:
                    continue
                if overlap > most[k] or place[j] < place[best[k]]:
                    best[k], most[k] = j, overlap
        for k in range(len(tious)):
            if best[k] >= 0:
                holder[k, best[k]] = c
    return holder
