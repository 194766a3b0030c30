"""Soft NMS and segment voting as detectors write them, one pick after the other; and the same
compiled, where there is a compiler.
"""

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np

METHODS = ("hard", "linear", "gaussian")


def soft_nms(segments, scores, method="gaussian", sigma=0.5, iou_threshold=0.1, min_score=0.001):
    """Picks and lowered scores; a lowered score below min_score is swapped with the last and
    forgotten.
    """
    f = np.float32
    s, e, p = [f(x) for x in segments[:, 0]], [f(x) for x in segments[:, 1]], [f(x) for x in scores]
    length, index = [e[i] - s[i] + f(1e-6) for i in range(len(s))], list(range(len(s)))
    picks, lowered, alive, i = [], [], len(s), 0
    while i < alive:
        best = max(range(i, alive), key=lambda j: p[j])
        for x in (s, e, p, length, index):
            x[i], x[best] = x[best], x[i]
        picks.append(index[i])
        lowered.append(p[i])
        j = i + 1
        while j < alive:
            inter = max(f(0), min(e[i], e[j]) - max(s[i], s[j]))
            iou = inter / (length[i] + length[j] - inter)
            if method == "gaussian":
                p[j] *= f(math.exp(-(iou * iou) / f(sigma)))
            elif iou >= f(iou_threshold):
                p[j] *= f(1) - iou if method == "linear" else f(0)
            if p[j] < min_score:
                alive -= 1
                for x in (s, e, p, length, index):
                    x[j], x[alive] = x[alive], x[j]
            else:
                j += 1
        i += 1
    return picks, lowered


def in_order(segments, scores, method, sigma, iou_threshold, min_score):
    """As `soft_nms`, but nothing changes places: the first listed among equals is picked first."""
    f, picks, lowered = np.float32, [], []
    s, e, p = (np.asarray(x, np.float32) for x in (segments[:, 0], segments[:, 1], scores))
    p, left = p.copy(), list(range(len(p)))
    while left:
        best = max(left, key=lambda j: (p[j], -j))
        picks.append(best)
        lowered.append(p[best])
        left.remove(best)
        length = e - s + f(1e-6)
        for j in left:
            inter = max(f(0), min(e[best], e[j]) - max(s[best], s[j]))
            iou = inter / (length[best] + length[j] - inter)
            if method == "gaussian":
                p[j] *= f(math.exp(-(iou * iou) / f(sigma)))
            elif iou >= f(iou_threshold):
                p[j] *= f(1) - iou if method == "linear" else f(0)
        left = [j for j in left if p[j] >= f(min_score) and p[j] > 0]
    return picks, lowered


def vote(picks, segments, scores, threshold, weight_by_iou):
    """Weighted means with a dense matrix of overlaps."""
    out = []
    for start, end in picks:
        total, sums = 0.0, [0.0, 0.0]
        for (s, e), score in zip(segments, scores, strict=True):
            inter = max(0.0, min(end, e) - max(start, s))
            iou = inter / ((end - start) + (e - s) - inter)
            if iou >= threshold:
                weight = score * (iou if weight_by_iou else 1)
                total, sums = total + weight, [sums[0] + weight * s, sums[1] + weight * e]
        out.append([x / total for x in sums])
    return np.array(out)


def compiled(folder):
    """`soft_nms` in C++, or None without a compiler."""
    if shutil.which("g++") is None:
        return None
    library = Path(folder) / "nms.so"
    source = Path(__file__).with_name("nms_slow.cpp")
    subprocess.run(["g++", "-O3", "-shared", "-fPIC", "-o", library, source], check=True)
    call, pointer = ctypes.CDLL(str(library)).soft_nms, ctypes.c_void_p
    number = ctypes.c_float
    call.argtypes = [
        pointer,
        pointer,
        pointer,
        ctypes.c_int,
        ctypes.c_int,
        number,
        number,
        number,
        pointer,
        pointer,
    ]

    def run(segments, scores, method="gaussian", sigma=0.5, iou_threshold=0.1, min_score=0.001):
        s, e, p = (
            np.ascontiguousarray(x, np.float32) for x in (segments[:, 0], segments[:, 1], scores)
        )
        picks, lowered = np.zeros(len(p), np.int32), np.zeros(len(p), np.float32)
        where = [x.ctypes.data for x in (s, e, p, picks, lowered)]
        n = call(
            *where[:3], len(p), METHODS.index(method), sigma, iou_threshold, min_score, *where[3:]
        )
        return picks[:n], lowered[:n]

    return run
