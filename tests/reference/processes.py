"""Functions in processes of their own: one that kills itself, each time at the same moment, or
several that train together.

They are forked from a process that has imported what takes seconds, and has done nothing else.
"""

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import wait

PRELOADED = [
    *("pandas", "torch._dynamo", "accelerate", "vlact.stages.pretrain", "vlact.models.text"),
    *("vlact.models.actionvlm", "vlact.models.dual", "vlact.models.files"),
    *("vlact.papers.scaling", "vlact.papers.actionvlm.scaling"),
    # what transformers imports when a model is made
    *(f"transformers.models.{x}.modeling_{x}" for x in ("auto", "bert", "qwen2", "timesformer")),
]


def context():
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOADED)
    return made


def run(function, *given) -> int:
    """`function(*given)` in a fresh process, and the code that it ended with."""
    child = context().Process(target=function, args=given)
    child.start()
    child.join()
    return child.exitcode


def together(count: int, function, *given, log) -> None:
    """`function(*given)`, which returns a code, in `count` processes that know of each other as
    those of `torchrun` do, on whatever port is free.

    Args:
        log: A file for what they write.

    Raises:
        AssertionError: One ended with another code than 0; the others are killed then.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": store.port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "TORCHELASTIC_RESTART_COUNT": 0,
    }
    children = []
    for rank in range(count):
        known = (shared | {"RANK": rank, "LOCAL_RANK": rank}) if count > 1 else {}
        settings = {k: str(v) for k, v in known.items()} | {"ACCELERATE_USE_CPU": "true"}
        arguments = (settings, str(log), function, given)
        children.append(context().Process(target=_one_of_several, args=arguments))
        children[-1].start()
    running = {child.sentinel: child for child in children}
    while running:
        for sentinel in wait(list(running)):
            running.pop(sentinel).join()
        if any(child.exitcode for child in children):
            for child in running.values():
                child.kill()
    codes = [child.exitcode for child in children]
    with open(log, encoding="utf-8") as file:
        assert codes == [0] * count, f"{codes}: {file.read()[-2000:]}"


def _one_of_several(settings: dict[str, str], log: str, function, given: tuple) -> None:
    import torch

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    os.environ.update(settings)
    torch.set_num_threads(1)
    sys.exit(function(*given))


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
