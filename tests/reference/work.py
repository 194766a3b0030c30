"""Work for processes other than the tests': modules that they import must be light."""

import os
import signal
from functools import partial
from pathlib import Path

from vlact.runtime import jobs


def slow_square(x):
    if x == 3:
        raise ValueError("three is not squared here")
    return x * x


def squares(*numbers):
    return [partial(slow_square, x) for x in numbers]


def slow_steps(steps: int, more: int = 0):
    return sum(1 for _ in jobs.track(range(steps + more), steps + more, "inner"))


SlowStepsJob = jobs.job_of(slow_steps, tracked=True)


def hold(note: str) -> None:
    Path(note).write_text(str(os.getpid()), encoding="utf-8")
    signal.pause()


def hold_two(folder: str) -> None:
    jobs.run([partial(hold, f"{folder}/{k}") for k in range(2)], 2, "held")


def write_often(path):
    for _ in range(200):
        jobs.write_whole(
            Path(path), lambda data, f: f.write_text(data, encoding="utf-8"), "x" * 5000
        )
