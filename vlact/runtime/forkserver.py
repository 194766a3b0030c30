"""Python that has imported everything: `python -m vlact.runtime.forkserver serve COMMAND ..` runs a
command beside such a process.

Notebooks, papermill and DVC import torch, transformers and matplotlib, ten seconds
of processor time in each of a hundred processes of a run. Within `serve`, multiprocessing's
forkserver imports them once, and `python -m vlact.runtime.forkserver -m MODULE ..` (or `-c CODE`)
stands for a fork that has its files, folder and environment: the fork's exit status comes back, and
it ends when this one is killed. Outside, it is plain Python.
"""

import contextlib
import fcntl
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from unittest.mock import patch

from vlact.runtime import leash

ADDRESS = "VLACT_FORKSERVER"  # of the socket, in the environment of whatever runs within `serve`
LAUNCH = Path(__file__).parents[1] / "tools" / "launch"
FREE, MOST = 1000, 100  # from this number on no program has a file; how many are handed on at most
IMPORTED = (
    "tqdm.auto", "dvc.cli", "dvc.repo.reproduce", "dvc.commands.repro", "papermill.cli",
    "papermill.execute", "nbclient", "ipykernel.ipkernel", "ipykernel.iostream",
    "ipykernel.heartbeat", "pandas", "torch.utils.data", "av", "decord", "matplotlib.pyplot",
    "seaborn", "pyarrow.parquet", "safetensors.torch", "scipy.optimize", "numba", "torchvision",
    "open_clip.transformer", "peft", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto", "transformers.models.bert.modeling_bert",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.timesformer.modeling_timesformer", "joblib",
)  # fmt: skip


@contextlib.contextmanager
def serving(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A forkserver for as long as the context lasts; gives `environment`, which is its own too,
    with what leads commands to it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    # matplotlib reads its own once; a kernel would set it
    backend = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    with patch.dict(os.environ, backend | environment, clear=True):
        ensure_running()  # and begins to import
    with tempfile.TemporaryDirectory(prefix="vlact-") as folder:
        listener = socket.create_server(f"{folder}/socket", family=socket.AF_UNIX)
        threading.Thread(target=_serve, args=(listener, context), daemon=True).start()
        # its kernel `python3` is a fork
        paths = [str(LAUNCH), *filter(None, [environment.get("JUPYTER_PATH")])]
        served = {ADDRESS: listener.getsockname(), "JUPYTER_PATH": os.pathsep.join(paths)}
        yield environment | served


def _serve(listener: socket.socket, context) -> None:
    def report(program, client: Connection) -> None:
        program.join()
        with client, contextlib.suppress(OSError):  # killed meanwhile
            client.send(program.exitcode)

    while True:
        client = Connection(listener.accept()[0].detach())
        program = context.Process(target=become, args=(client,))
        program.start()
        threading.Thread(target=report, args=(program, client), daemon=True).start()


def become(client: Connection) -> None:
    """In a fork: take over the files, by the numbers they had, folder and environment; run."""
    given = client.recv()
    with socket.socket(fileno=os.dup(client.fileno())) as files:
        received = [*socket.recv_fds(files, 1, MOST)[1], client.fileno()]
    *files, lead = [fcntl.fcntl(file, fcntl.F_DUPFD, FREE) for file in received]
    for file in received:
        os.close(file)
    for file, number in zip(files, given["files"], strict=True):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)

    def watch() -> None:
        os.read(lead, 1)  # nothing comes: it ends with whom this stands for
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    os.setpgid(0, 0)  # a signal to all of a run reaches whom this stands for
    os.nice(max(0, given["nice"] - os.nice(0)))
    os.chdir(given["folder"])
    os.environ.clear()
    os.environ.update(given["environment"])
    kind, what, *rest = given["arguments"]
    sys.argv, sys.path[0] = [kind, *rest], given["folder"]
    if kind == "-c":
        # what `python -c` would run
        exec(what, {"__name__": "__main__", "__builtins__": __builtins__})  # nosec B102
    else:
        runpy.run_module(what, run_name="__main__", alter_sys=True)


def stand_for(address: str, arguments: list[str]) -> int:
    """Have a fork run arguments of Python; what it returned, or minus the signal that ended it."""
    there = sorted(map(int, os.listdir("/dev/fd")))
    files = [
        n for n in there if n < 3 or (os.path.exists(f"/dev/fd/{n}") and os.get_inheritable(n))
    ]
    given = {"folder": os.getcwd(), "environment": dict(os.environ), "nice": os.nice(0)}
    with Client(address, "AF_UNIX") as server:
        server.send(given | {"arguments": arguments, "files": files})
        with socket.socket(fileno=os.dup(server.fileno())) as there:
            socket.send_fds(there, [b"."], files)
        return server.recv()


def main(arguments: list[str]) -> None:
    kind, *rest = arguments or [""]
    address = os.environ.get(ADDRESS)
    if kind == "serve":
        with leash.held(dict(os.environ)) as held, serving(held) as environment:
            sys.exit(subprocess.run(rest, env=environment).returncode)
    if kind not in ("-m", "-c") or not address:
        os.execv(sys.executable, [sys.executable, *arguments])
    for code in (signal.SIGINT, signal.SIGTERM):
        signal.signal(code, signal.SIG_DFL)  # end at once, and the fork with this
    sys.exit(stand_for(address, arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
