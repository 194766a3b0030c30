"""Curves of training in TensorBoard, W&B or another of accelerate's trackers: `tracker` of a
profile in params.yaml names it; what `vlact.training.loop.fit` trains in that profile is logged.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlact.runtime.extras import needs

TRACKER, LOGS = "VLACT_TRACKER", "VLACT_LOGS"  # in the environment, which workers have from a stage


def choose(tracker: str, logs: Path) -> None:
    """Where this process, and those that it starts, log training.

    Args:
        tracker: Of accelerate, such as "tensorboard" or "wandb"; "" for none.
        logs: Folder of those that write files: one run a training below it.

    Raises:
        ValueError: accelerate knows no such tracker, or its package is not installed.
    """
    if tracker:
        available(tracker, logs)
    os.environ[TRACKER], os.environ[LOGS] = tracker, str(logs)


def available(tracker: str, logs: Path) -> list:
    """The tracker in a list, as accelerate takes it. See `choose`."""
    with needs(f"tracker {tracker!r}"):
        from accelerate.tracking import filter_trackers

    if not (found := filter_trackers(tracker, logs)):
        raise ValueError(
            f"tracker {tracker!r}: its package is not installed; install it, or leave tracker out"
        )
    return found


@contextmanager
def log_of(run: str) -> Iterator:
    """A function of a row of a curve, with `step` and numbers, that logs it; none is, nothing is.

    Args:
        run: Name of the training, unlike that of others.
    """
    if not (tracker := os.environ.get(TRACKER)):
        yield lambda row: None
        return
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # accelerate logs from the first of its processes only, so it must know of them
    kind = LOGGER_TYPE_TO_CLASS[tracker]
    folder = {"logging_dir": os.environ[LOGS]} if kind.requires_logging_directory else {}
    writer = kind(run, **folder)
    writer.start()

    def log(row: dict) -> None:
        writer.log({k: v for k, v in row.items() if isinstance(v, int | float)}, row["step"])

    try:
        yield log
    finally:
        writer.finish()
