"""Python that has imported everything: `python -m vlact.runtime.forkserver serve COMMAND ..` runs a
command beside multiprocessing's forkserver, which imports `vlact.runtime.preload` once. Within it
`python -m vlact.runtime.forkserver -m MODULE ..` stands for a fork that has its standard files,
folder and environment, and ends with it; elsewhere it is plain Python.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from multiprocessing.connection import Client, Connection, Listener, wait
from multiprocessing.forkserver import ensure_running
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from threading import Lock, Thread
from unittest.mock import patch

from vlact.runtime import leash

ADDRESS = "VLACT_FORKSERVER"  # of the socket, in the environment of whatever runs within `serve`
KERNELS = Path(__file__).parents[1] / "tools" / "launch"  # where a kernel `python3` is a fork


@contextlib.contextmanager
def serving(environment: dict[str, str]):
    """A forkserver for as long as the context lasts; gives its environment, with its address."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlact.runtime.preload"])
    with patch.dict(os.environ, environment, clear=True):
        ensure_running()  # and begins to import
    paths = [str(KERNELS), *filter(None, [environment.get("JUPYTER_PATH")])]
    with Listener(family="AF_UNIX") as listener:
        Thread(target=_accept, args=(listener, context), daemon=True).start()
        yield environment | {ADDRESS: listener.address, "JUPYTER_PATH": os.pathsep.join(paths)}


def _accept(listener: Listener, context) -> None:
    lock = Lock()  # to start one and to ask for another's end both read what forks have left

    def answer(client: Connection) -> None:
        program = context.Process(target=become, args=(client,))
        with lock:
            program.start()
        wait([program.sentinel])
        with lock, client, contextlib.suppress(OSError):  # killed meanwhile
            client.send(program.exitcode)

    while True:
        Thread(target=answer, args=(listener.accept(),), daemon=True).start()


def become(client: Connection) -> None:
    """In a fork: take over standard files, folder, environment; run the module."""
    given = client.recv()
    for number in range(3):
        os.dup2(recv_handle(client), number)
    sys.stdin = open(0, closefd=False)
    # nothing more comes: it ends with whom this stands for
    Thread(target=lambda: client.poll(None) and os._exit(1), daemon=True).start()
    os.setpgid(0, 0)  # a signal to all of a run reaches whom this stands for
    os.nice(max(0, given["nice"] - os.nice(0)))
    os.chdir(given["folder"])
    os.environ.clear()
    os.environ.update(given["environment"])
    module, *rest = given["arguments"]
    sys.argv, sys.path[0] = ["-m", *rest], given["folder"]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main(arguments: list[str]) -> None:
    kind, *rest = arguments or [""]
    if kind == "serve":
        with leash.held(dict(os.environ)) as held, serving(held) as environment:
            sys.exit(subprocess.run(rest, env=environment).returncode)
    if kind != "-m" or not (address := os.environ.get(ADDRESS)):
        os.execv(sys.executable, [sys.executable, *arguments])
    for code in (signal.SIGINT, signal.SIGTERM):
        signal.signal(code, signal.SIG_DFL)  # end at once, and the fork with this
    given = {"folder": os.getcwd(), "environment": dict(os.environ), "nice": os.nice(0)}
    with Client(address, "AF_UNIX") as server:
        server.send(given | {"arguments": rest})
        for number in range(3):
            send_handle(server, number, None)
        sys.exit(server.recv())  # what it returned, or minus the signal that ended it


if __name__ == "__main__":
    main(sys.argv[1:])
