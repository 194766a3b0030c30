"""Targets and losses of the localizer, one point and one segment at a time."""

import math


def assign(points, segments, labels, classes, radius):
    """points: (t, low, high, stride) rows. Returns (target, offset or None, owner) a point."""
    out = []
    for t, low, high, stride in points:
        fitting = []
        for n, (start, end) in enumerate(segments):
            middle = (start + end) / 2
            first, last = max(middle - stride * radius, start), min(middle + stride * radius, end)
            if first < t < last and low <= max(t - start, end - t) <= high:
                fitting.append((end - start, n))
        target = [0.0] * classes
        if not fitting:
            out.append((target, None, -1))
            continue
        shortest = min(fitting)[0]
        for length, n in fitting:
            if length - shortest <= 1e-3:
                target[labels[n]] = 1.0
        owner = next(n for length, n in fitting if length == shortest)
        start, end = segments[owner]
        out.append((target, ((t - start) / stride, (end - t) / stride), owner))
    return out


def focal(x, y, alpha=0.25, gamma=2.0):
    p = 1 / (1 + math.exp(-x))
    if y == 1:
        return -alpha * (1 - p) ** gamma * math.log(p)
    return -(1 - alpha) * p**gamma * math.log(1 - p)


def diou(predicted, wanted):
    """Of segments (-left, right) about a point at 0."""
    a, b = (-predicted[0], predicted[1]), (-wanted[0], wanted[1])
    inter = min(a[1], b[1]) - max(a[0], b[0])
    union = (a[1] - a[0]) + (b[1] - b[0]) - inter
    hull = max(a[1], b[1]) - min(a[0], b[0])
    distance = (a[0] + a[1]) / 2 - (b[0] + b[1]) / 2
    return 1 - inter / union + (distance / hull) ** 2
