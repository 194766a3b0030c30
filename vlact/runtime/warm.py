"""Python that has imported everything already: `python -m vlact.runtime.warm serve COMMAND ..` runs
a command beside such a process.

Notebooks, their workers and papermill import torch, transformers and matplotlib, ten seconds of
processor time in each of some fifty processes of a run. Here one process imports them and forks for
each. Within `serve`, `python -m vlact.runtime.warm -m MODULE ..` (or `-c CODE ..`) hands arguments,
folder, environment, niceness and open files to a fork and stands for it: signals go on to it, its
exit status comes back, and it ends when this one is killed. Outside, it is plain Python.

    serve ─ import, listen ─┬─ fork: minder ─ fork: the program      (socket: its arguments and
                            files; signals; status) └─ ...
"""

import array
import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

ADDRESS = "VLACT_WARM"  # of the socket, in the environment of whatever runs within `serve`
LAUNCH = Path(__file__).parents[1] / "tools" / "launch"
MOST_FILES = 64  # that a program is handed
HANDED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
IMPORTED = (
    "dvc.cli",
    "dvc.repo.reproduce",
    "dvc.commands.repro",
    "papermill.cli",
    "papermill.execute",
    "nbclient",
    "ipykernel.ipkernel",
    "ipykernel.iostream",
    "ipykernel.heartbeat",
    "pandas",
    "torch",
    "torch.utils.data",
    "av",
    "decord",
    "matplotlib.pyplot",
    "seaborn",
    "pyarrow.parquet",
    "safetensors.torch",
    "scipy.optimize",
    "numba",
    "torchvision",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.timesformer.modeling_timesformer",
    "open_clip.transformer",
    "peft",
)


@contextlib.contextmanager
def serving(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A warm process for as long as the context lasts; gives `environment`, which is its own too,
    with what leads commands to it.
    """
    with (
        tempfile.TemporaryDirectory(prefix="vlact-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        listener.bind(f"{folder}/socket")
        listener.listen(64)
        command = [sys.executable, "-m", "vlact.runtime.warm", "listen", str(listener.fileno())]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()], env=environment
        ) as server:
            # its kernel `python3` is a warm one
            paths = [str(LAUNCH), *filter(None, [environment.get("JUPYTER_PATH")])]
            try:
                yield environment | {
                    ADDRESS: f"{folder}/socket",
                    "JUPYTER_PATH": os.pathsep.join(paths),
                }
            finally:
                server.kill()


def listen(listener: socket.socket) -> list[str]:
    """Import, and fork for every program until stdin closes; returns in the forks only, with what
    to run.
    """
    # matplotlib reads it once; a kernel would set it
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    # sent to a whole group, they are for the programs
    before = {code: signal.signal(code, signal.SIG_IGN) for code in HANDED_ON}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for minders
    todo = list(IMPORTED)
    while True:
        ready, *_ = select.select([listener, 0], [], [], 0 if todo else None)
        if 0 in ready:
            os._exit(0)  # stdin is closed
        # a fork in the midst of it has imported so much, and imports the rest if it needs it
        if ready:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                return mind(client, before | {signal.SIGINT: signal.default_int_handler})
            client.close()
        elif todo:
            # decord is not everywhere
            with contextlib.suppress(ImportError), warnings.catch_warnings(action="ignore"):
                importlib.import_module(todo.pop(0))


def mind(client: socket.socket, handlers: dict) -> list[str]:
    """In a fork: start the program in another one, hand signals on and its status back; returns in
    the program only, with `handlers`.
    """
    sizes = array.array("i")
    head, messages, *_ = client.recvmsg(8, socket.CMSG_LEN(MOST_FILES * sizes.itemsize))
    for *_, data in messages:
        sizes.frombytes(data)
    files, given = list(sizes), json.loads(client.recv(int.from_bytes(head), socket.MSG_WAITALL))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    listens, tell = os.pipe()
    program = os.fork()
    if program == 0:
        os.setsid()  # signals reach it by whom it stands for, once
        for code, handler in handlers.items():
            signal.signal(code, handler or signal.SIG_DFL)
        os.write(tell, b"!")
        os.close(tell)
        os.close(listens)
        become(client, files, given)
        return given["arguments"]
    os.read(listens, 1)  # from now on it can be interrupted
    for file in (0, 1, 2, listens, tell, *files):
        os.close(file)

    def watch():
        code = b"first"
        while code:
            code = client.recv(1)
            # to all that it started, as a terminal does; whom it stood for is gone: all end
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program, code[0] if code else signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    _, status = os.waitpid(program, 0)
    with contextlib.suppress(BrokenPipeError):
        client.send(os.waitstatus_to_exitcode(status).to_bytes(2, signed=True))
    os._exit(0)


def become(client: socket.socket, files: list[int], given: dict) -> None:
    """Take over files, by the numbers they had, folder and environment."""
    high = [os.dup2(file, 1000 + i) for i, file in enumerate(files)]
    client.close()
    for file in files:
        os.close(file)
    for file, number in zip(high, given["files"], strict=True):
        os.dup2(file, number, inheritable=True)
        os.close(file)
    os.chdir(given["folder"])
    if (more := given["nice"] - os.nice(0)) > 0:
        os.nice(more)
        # Linux may share cores among sessions first, and this is one of its own
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(given["nice"]))
    os.environ.clear()
    os.environ.update(given["environment"])
    sys.path[0] = given["folder"]
    if "matplotlib" in sys.modules and "MPLBACKEND" in os.environ:
        sys.modules["matplotlib"].rcParams["backend"] = os.environ["MPLBACKEND"]


def stand_for(address: str, arguments: list[str]) -> int:
    """Have a fork run arguments of Python; what it returned, or minus the signal that ended it."""
    files = [0, 1, 2]
    for name in os.listdir("/dev/fd"):
        number = int(name)
        with contextlib.suppress(OSError):
            if number > 2 and os.get_inheritable(number):
                files.append(number)
    given = {
        "arguments": arguments,
        "files": files,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "nice": os.nice(0),
    }
    text = json.dumps(given).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        server.sendmsg(
            [len(text).to_bytes(8)],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))],
        )

        def hand_on(code: int, frame) -> None:
            with contextlib.suppress(OSError):  # it has ended
                server.send(bytes([code]))

        for code in HANDED_ON:
            # under nohup it is nobody's
            if code != signal.SIGHUP or signal.getsignal(code) != signal.SIG_IGN:
                signal.signal(code, hand_on)
        server.sendall(text)
        status = server.recv(2)
    return int.from_bytes(status, signed=True) if len(status) == 2 else 1


def run(arguments: list[str]) -> None:
    """What `python` does with `-m MODULE ..` or `-c CODE ..`."""
    kind, what, *rest = arguments
    if kind == "-c":
        sys.argv = ["-c", *rest]
        # what `python -c` would run
        exec(what, {"__name__": "__main__", "__builtins__": __builtins__})  # nosec B102
    else:
        sys.argv = [what, *rest]
        runpy.run_module(what, run_name="__main__", alter_sys=True)


def run_and_leave(arguments: list[str]) -> None:
    """`run`, and the end of the process as Python makes it, but for taking apart all that was
    imported, which lasts a second.
    """
    status = 0
    try:
        run(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError):  # closed
            file.flush()
    os._exit(status)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["serve"] and arguments[1:]:
        with serving(dict(os.environ)) as environment:
            status = subprocess.run(arguments[1:], env=environment).returncode
        sys.exit(status)
    if arguments[:1] == ["listen"]:
        run_and_leave(listen(socket.socket(fileno=int(arguments[1]))))
    # options of Python itself, which a fork has from `serve`
    while arguments and arguments[0] not in ("-m", "-c"):
        arguments = arguments[1:]
    if not arguments[1:]:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    if address := os.environ.get(ADDRESS):
        status = stand_for(address, arguments)
        if status < 0:  # end as the program ended
            signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        sys.exit(status)
    run(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
