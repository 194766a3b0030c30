"""Long work: progress where the reader looks, jobs on several processes, and resuming after a kill.

A job's result is kept under a key made of everything it depends on; a run that was killed finds the
finished jobs there and the unfinished one's last checkpoint, and ends with the same bytes as a run
that was not. Kept results are deleted when the whole stage has succeeded.

Jobs run on this machine's processes (joblib's loky), or on a cluster that shares its disk:
`VLACT_DASK=tcp://scheduler:8786 make repro PROFILE=paper`.
"""

import contextlib
import ctypes
import glob
import hashlib
import inspect
import json
import math
import os
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, make_dataclass
from pathlib import Path

CLUSTER = "VLACT_DASK"  # in the environment: the address of a dask scheduler
ORPHAN_S = 0.5  # between two looks of a worker at whether its parent lives
AMOUNT = struct.Struct("d")  # of progress, through a pipe
END = AMOUNT.pack(math.nan)

_report: Callable[[float], None] | None = None  # in a worker: how to tell the parent of progress
_parent = 0  # in a worker on this machine: the process that it ends with


def _fancy() -> bool:
    """A bar in a terminal or a notebook, plain lines in a log; `VLACT_PROGRESS=bar|lines` decides
    otherwise.
    """
    wanted = os.environ.get("VLACT_PROGRESS")
    return wanted == "bar" if wanted else sys.stderr.isatty() or "ipykernel" in sys.modules


class Progress:
    """A tqdm bar, or one plain line every few seconds with the time left."""

    def __init__(self, total: float, label: str, every_s: float = 15.0):
        self.total, self.label, self.every_s = total, label, every_s
        self.done, self.start, self.last = 0.0, time.monotonic(), time.monotonic()
        self.bar = None
        if _fancy():
            from tqdm import tqdm

            self.bar = tqdm(
                total=total, desc=label, bar_format="{l_bar}{bar}| {elapsed}<{remaining}"
            )

    def update(self, amount: float = 1.0) -> None:
        # a job of several trainings reports more than one
        self.done = min(self.total, self.done + amount)
        if self.bar is not None:
            self.bar.update(amount)
        elif time.monotonic() - self.last > self.every_s and self.done:
            self.last = time.monotonic()
            left = (self.last - self.start) * (self.total - self.done) / self.done
            print(
                f"{self.label}: {100 * self.done / self.total:.0f} %, {left / 60:.1f} min left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def track(items: Iterable, total: int, label: str) -> Iterator:
    """Iterate with progress: reported to the parent in a worker, shown otherwise."""
    if _report is not None:
        for item in items:
            yield item
            _report(1 / total)
        return
    progress = Progress(total, label)
    for item in items:
        yield item
        progress.update()
    progress.close()


def key(*parts) -> str:
    """A short hash of json-able values, paths (by content) and modules' source."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            digest.update(part.read_bytes())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True


def write_whole(path: Path, function: Callable, data, *args, **kwargs) -> None:
    """`function(data, path, ..)` through a temporary name: a killed job leaves the whole file or
    none.

    The name is the process's own, so that two jobs may write the same file; what a killed one left
    is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        if not _alive(int(left.name.split(".")[-2])):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        function(data, temporary, *args, **kwargs)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_table(path: str | Path, table) -> None:
    """A pandas table as parquet, whole or not at all."""
    write_whole(Path(path), lambda t, f: t.to_parquet(f, index=False), table)


def write_json(path: Path, data) -> None:
    """Whatever json can say, whole or not at all."""
    write_whole(path, lambda d, f: f.write_text(json.dumps(d), encoding="utf-8"), data)


def kept(note: Path, function: Callable, *args):
    """`function(*args)`, json-able, from the file `note` if an earlier run left it there; a killed
    stage does no job twice.
    """
    if not note.is_file():
        write_json(note, function(*args))
    return json.loads(note.read_text(encoding="utf-8"))


class Checkpoint:
    """Something to come back to: `load()` what an earlier run saved, `save(state)` whole or not at
    all.

    Only this project's own temporary files are read here, tensors through `weights_only=True`.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    def load(self):
        import torch

        return (
            torch.load(self.path, map_location="cpu", weights_only=True)
            if self.path.is_file()
            else None
        )

    def save(self, state) -> None:
        import torch

        if _parent and not _alive(_parent):  # an orphan must not write under a new run
            raise SystemExit("the parent process is gone")
        write_whole(self.path, lambda data, to: torch.save(data, to), state)


def job_of(function: Callable, tracked: bool = False) -> type:
    """A frozen dataclass of a function's arguments: a job by named fields, which does its work when
    it is called.

    Args:
        function: Of a module; its parameters are the fields.
        tracked: Whether it reports inner progress through `track`.
    """
    fields = [
        (p.name, p.annotation) if p.default is p.empty else (p.name, p.annotation, p.default)
        for p in inspect.signature(function).parameters.values()
    ]
    name = function.__name__.removesuffix("_job").title().replace("_", "") + "Job"
    own = {
        "__call__": lambda self: function(**vars(self)),
        "__doc__": f"Arguments of `{function.__module__}.{function.__name__}`.",
        "tracked": tracked,
    }
    made = make_dataclass(name, fields, frozen=True, namespace=own)
    made.__module__ = function.__module__  # where a worker finds it
    return made


def _silent(amount: float) -> None:
    """Of a job that reports no inner progress."""


@dataclass(frozen=True)
class _Worker:
    """What a process that works needs to know.

    Attributes:
        device: See `vlact.runtime.device.choose`.
        parent: The process that it ends with; 0 on a cluster, which ends its own.
        pipe: A named pipe for progress; "" on a cluster.
    """

    device: str
    parent: int
    pipe: str

    def work(self, job: Callable, number: int) -> tuple[int, object]:
        """A job's number and its result."""
        global _report
        import torch

        from vlact.runtime import device

        device.choose(self.device, worker=True)
        # results depend on the number of threads; one is the same everywhere
        torch.set_num_threads(1)
        if self.parent and not _parent:
            self._bind()
        with contextlib.ExitStack() as held:
            _report = _silent
            if self.pipe and getattr(job, "tracked", False):
                to = held.enter_context(open(self.pipe, "wb", buffering=0))

                def _report(amount: float) -> None:
                    to.write(AMOUNT.pack(amount))

            return number, job()

    def _bind(self) -> None:
        """Once a process: it ends with its parent, however that ends."""
        global _parent
        _parent = self.parent
        with contextlib.suppress(ValueError):  # not the main thread's to say
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: no traceback

        def watch() -> None:
            while _alive(_parent):
                time.sleep(ORPHAN_S)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _heard(progress: Progress) -> Iterator[str]:
    """A named pipe through which workers report progress."""
    with tempfile.TemporaryDirectory(prefix="vlact-") as folder:
        pipe = f"{folder}/progress"
        os.mkfifo(pipe)
        with open(pipe, "r+b", buffering=0) as both:

            def listen() -> None:
                while not math.isnan(amount := AMOUNT.unpack(both.read(AMOUNT.size))[0]):
                    progress.update(amount)

            listener = threading.Thread(target=listen, daemon=True)
            listener.start()
            try:
                yield pipe
            finally:
                both.write(END)
                listener.join()


def close() -> None:
    """Stop the worker processes; the next `run` starts new ones."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(kill_workers=True)


def run(todo: list[Callable], workers: int, label: str) -> list:
    """`[job() for job in todo]` on single-thread processes, with one progress display.

    Args:
        todo: Jobs, picklable: see `job_of`, or `functools.partial` of a function.
        workers: Processes; 1 runs here. A cluster has its own number, see above.
        label: What to call the work in the progress display.

    Raises:
        Exception: The first job's error, after the others were cancelled.
    """
    progress, address = Progress(len(todo), label), os.environ.get(CLUSTER)
    if len(todo) <= 1 or (workers <= 1 and not address):
        import torch

        torch.set_num_threads(1)  # as a worker has
        out = []
        for job in todo:
            out.append(job())
            progress.update()
        progress.close()
        return out
    from vlact.runtime import device
    from vlact.runtime.extras import needs

    with needs("work on several processes"):
        from joblib import Parallel, delayed, parallel_config

    # glibc only: what was freed here is for the workers
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    out = [None] * len(todo)
    with contextlib.ExitStack() as held:
        held.callback(progress.close)
        if address:
            with needs(f"{CLUSTER}={address}"):
                from distributed import Client
            held.enter_context(Client(address))
            held.enter_context(parallel_config("dask"))
            worker = _Worker(device.wanted(), 0, "")
        else:
            worker = _Worker(device.wanted(), os.getpid(), held.enter_context(_heard(progress)))
        # a job is long: one at a time to each process, all sent at once
        parallel = Parallel(
            workers, batch_size=1, pre_dispatch="all", max_nbytes=None,
            return_as="generator_unordered",
        )  # fmt: skip
        found = parallel(delayed(worker.work)(job, i) for i, job in enumerate(todo))
        for number, result in found:
            out[number] = result
            if not (worker.pipe and getattr(todo[number], "tracked", False)):
                progress.update()
    return out
