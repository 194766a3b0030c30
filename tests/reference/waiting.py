"""The one place of the tests where time passes.

A test waits for something certain: a file that a child writes, a line in a pipe, the end of a
process. The limit only ends a test that hangs.
"""

import time
from collections.abc import Callable

LIMIT_S = 300
POLL_S = 0.02


def until(found: Callable[[], object], what: str, child=None) -> None:
    """Return when `found()` is true.

    Args:
        found: Asked again and again.
        what: What is waited for, in words.
        child: The process (`Popen`) that is to bring it about, if there is one.

    Raises:
        AssertionError: `child` ended before, or nothing came within `LIMIT_S`.
    """
    end = time.monotonic() + LIMIT_S
    while not found():
        # asked once more: it may have come with the child's last breath
        if child is not None and child.poll() is not None and not found():
            raise AssertionError(f"{what}: the process ended before, with {child.returncode}")
        if time.monotonic() > end:
            raise AssertionError(f"{what}: nothing in {LIMIT_S} s")
        time.sleep(POLL_S)
