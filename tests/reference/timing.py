"""Processor time of one thing against another."""

import time


def timed(function, times: int):
    """What `function` returns and the least processor time of several calls, in seconds."""
    return raced(times, function)[0]


def raced(times: int, *functions):
    """`timed` of several, call by call in turn, so that a machine that slows down slows all of
    them.
    """
    found, least = [None] * len(functions), [float("inf")] * len(functions)
    for _ in range(times):
        for i, function in enumerate(functions):
            start = time.process_time()
            found[i] = function()
            least[i] = min(least[i], time.process_time() - start)
    return list(zip(found, least, strict=True))
