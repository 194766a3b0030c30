"""Functions in processes of their own that kill themselves, each time at the same moment."""

import multiprocessing
import os
import signal


def run(function, *given) -> int:
    """`function(*given)` in a fresh process, and the code that it ended with.

    Forked from a process that has imported what takes seconds, and has done nothing else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch._dynamo", "vlact.training.loop", "vlact.models.files", "pandas"]
    )
    child = context.Process(target=function, args=given)
    child.start()
    child.join()
    return child.exitcode


def countdown(moments: int):
    """A function that kills the process, as kill -9 does, when it is called for the n-th time.

    Args:
        moments: n; 0 is never.
    """

    def moment() -> None:
        nonlocal moments
        moments -= 1
        if moments == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return moment
