"""Scores of action segmentation: one label a frame. Frame accuracy, edit score, F1 by overlap, as
the field reports them on GTEA and 50 Salads.

Percent, as published. Frame accuracy counts all frames of all videos; edit and F1 leave the
background class out where there is one. Edit is a mean over videos, F1 counts segments of all.
"""

import numpy as np


def segments(labels: np.ndarray, background: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Runs of one label: their classes (N,) and spans (N, 2), first frame and the one after the
    last; without `background`'s.
    """
    labels = np.asarray(labels)
    if not len(labels):
        return labels, np.zeros((0, 2), np.int64)
    edges = np.flatnonzero(np.diff(labels)) + 1
    spans = np.stack([np.r_[0, edges], np.r_[edges, len(labels)]], 1)
    classes = labels[spans[:, 0]]
    keep = classes != background if background is not None else np.ones(len(classes), bool)
    return classes[keep], spans[keep]


def edit(truth: np.ndarray, answer: np.ndarray, background: int | None = None) -> float:
    """100 (1 - Levenshtein distance of the two orders of segments / the longer one), 0..100."""
    a, b = segments(truth, background)[0], segments(answer, background)[0]
    if not max(len(a), len(b)):
        return 100.0
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        before, row = row, np.empty_like(row)
        row[0] = i
        for j, y in enumerate(b, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
    return 100.0 * (1 - row[-1] / max(len(a), len(b)))


def hits(
    truth: np.ndarray, answer: np.ndarray, tiou: float, background: int | None = None
) -> tuple[int, int, int]:
    """Segments that are right, wrong and missed.

    An answer, in order of time, is right if the true segment of its class that it overlaps most has
    at least `tiou` with it and is still free.
    """
    kinds, spans = segments(truth, background)
    said, found = segments(answer, background)
    taken, right = np.zeros(len(kinds), bool), 0
    for kind, (start, end) in zip(said, found, strict=True):
        inter = np.minimum(end, spans[:, 1]) - np.maximum(start, spans[:, 0])
        union = np.maximum(end, spans[:, 1]) - np.minimum(start, spans[:, 0])
        overlap = np.where(kinds == kind, inter / union, -1.0)
        if len(overlap) and overlap[best := int(overlap.argmax())] >= tiou and not taken[best]:
            taken[best], right = True, right + 1
    return right, len(said) - right, len(kinds) - right


def scores(
    truths: list[np.ndarray],
    answers: list[np.ndarray],
    tious: tuple[float, ...] = (0.1, 0.25, 0.5),
    background: int | None = None,
) -> dict[str, float]:
    """All measures of some videos.

    Args:
        truths, answers: Class of each frame, one array a video.
        tious: Thresholds of F1.
        background: Class that edit and F1 leave out, if any.

    Returns:
        `accuracy`, `edit`, `F1@10`, .. in percent.

    Raises:
        ValueError: No video, or one with other lengths.
    """
    if not truths or len(truths) != len(answers):
        raise ValueError(f"expected as many answers as truths; got {len(answers)}, {len(truths)}")
    for i, (a, b) in enumerate(zip(truths, answers, strict=True)):
        if len(a) != len(b) or not len(a):
            raise ValueError(f"video {i}: expected one answer a frame; got {len(b)} for {len(a)}")
    pairs = list(zip(truths, answers, strict=True))
    same = sum(int((np.asarray(a) == np.asarray(b)).sum()) for a, b in pairs)
    out = {"accuracy": 100.0 * same / sum(len(a) for a in truths)}
    out["edit"] = float(np.mean([edit(a, b, background) for a, b in pairs]))
    for tiou in tious:
        right, wrong, missed = np.sum([hits(a, b, tiou, background) for a, b in pairs], axis=0)
        whole = 2 * right + wrong + missed
        out[f"F1@{round(100 * tiou)}"] = 100.0 * 2 * right / whole if whole else 100.0
    return out
