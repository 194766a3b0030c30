"""A run's processes end with it, however it ends.

Every process that a run starts, at any depth and in any session, carries the run's name in its
environment. A small watcher holds the reading end of a pipe whose writing end the run alone has:
when the run is gone, killed included, the pipe closes and the watcher kills whatever carries the
name. Without a watcher (it was killed itself) the next run does it, see `vlact.tools.pipeline`.
"""

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

NAME = "VLACT_RUN"  # in the environment of all processes of a run
PART = "VLACT_STAGE"  # and of those of one of its stages
ROUNDS = 50  # of killing, at most: a process may start another one while it is being found


@contextmanager
def held(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """An environment for the processes of a run; when the context ends, so do they."""
    run = uuid.uuid4().hex
    reads, writes = os.pipe()
    command = [sys.executable, "-m", "vlact.runtime.leash", run, str(reads)]
    # in a session of its own: a signal to the run's group does not reach it
    watcher = subprocess.Popen(
        command, pass_fds=[reads], start_new_session=True, stdin=subprocess.DEVNULL
    )
    os.close(reads)
    try:
        yield environment | {NAME: run}
    finally:
        os.close(writes)
        watcher.wait()
        end(run)


def carriers(run: str, part: str = "") -> list:
    """Processes that carry a run's name, or also that of a part of it."""
    import psutil

    found = []
    for process in psutil.process_iter():
        # somebody else's, or gone since
        with contextlib.suppress(psutil.Error, OSError):
            given = process.environ()
            mine = given.get(NAME) == run and (not part or given.get(PART) == part)
            mine = mine and process.pid != os.getpid()
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end(run: str, part: str = "") -> None:
    """Kill every process of a run, or of a part of it."""
    import psutil

    for _ in range(ROUNDS):
        if not (left := carriers(run, part)):
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=0.2)


def main(run: str, reads: str) -> None:
    """The watcher: wait for the pipe to close, then end the run."""
    import psutil  # noqa: F401  # imported while there is time

    while os.read(int(reads), 1):
        pass
    end(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
