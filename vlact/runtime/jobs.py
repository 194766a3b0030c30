"""Long work: progress where the reader looks, jobs on several processes, and resuming after a kill.

A job's result is kept under a key made of everything it depends on; a run that was killed finds the
finished jobs there and the unfinished one's last checkpoint, and ends with the same bytes as a run
that was not. Kept results are deleted when the whole stage has succeeded.
"""

import contextlib
import ctypes
import glob
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from vlact.runtime import warm

_report: Callable[[float], None] | None = None  # in a worker: how to tell the parent of progress
_tracked = False  # in a worker: the job reports its own inner progress


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


def track(items: Iterable, total: int, label: str) -> Iterator:
    """Iterate with progress: reported to the parent in a worker, shown otherwise."""
    if _report is not None:
        for item in items:
            yield item
            if _tracked:
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


def kept(note: Path, function: Callable, *args):
    """`function(*args)`, json-able, from the file `note` if an earlier run left it there; a killed
    stage does no job twice.
    """
    if not note.is_file():
        write_whole(
            note, lambda x, f: f.write_text(json.dumps(x), encoding="utf-8"), function(*args)
        )
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

        if _report is not None and not multiprocessing.parent_process().is_alive():
            # an orphan must not write under a new run
            raise SystemExit("the parent process is gone")
        write_whole(self.path, lambda data, to: torch.save(data, to), state)


def _start_worker(queue, counter, place: str) -> None:
    global _report
    import signal

    import torch

    from vlact.runtime import device

    with counter.get_lock():
        counter.value += 1
        device.choose(place, counter.value - 1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback

    torch.set_num_threads(1)
    _report = queue.put

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(function: Callable, job: tuple):
    global _tracked
    _tracked = getattr(function, "tracked", False)
    return function(*job)


def call(function: Callable, *arguments):
    """A job that says which function it is of, for a `run` of several kinds of tracked jobs."""
    return function(*arguments)


call.tracked = True

# workers and device, pool, queue: imports are paid once
_pool: tuple[tuple[int, str], ProcessPoolExecutor, object] | None = None


def _workers(count: int) -> tuple[ProcessPoolExecutor, object]:
    global _pool
    from vlact.runtime import device

    wanted = count, device.wanted()
    if _pool is None or _pool[0] != wanted:
        close()
        context = multiprocessing.get_context("spawn")
        if warm.ADDRESS in os.environ:
            context.set_executable(str(warm.LAUNCH / "python"))
        queue = context.SimpleQueue()
        given = queue, context.Value("i", 0), device.wanted()
        _pool = (wanted, ProcessPoolExecutor(count, context, _start_worker, given), queue)
    return _pool[1:]


def close() -> None:
    """Stop the worker processes; the next `run` starts new ones."""
    global _pool
    if _pool is not None:
        _pool[1].shutdown(wait=False, cancel_futures=True)
        _pool = None


def run(function: Callable, jobs: list[tuple], workers: int, label: str) -> list:
    """`[function(*job) for job in jobs]` on single-thread processes, with one progress display.

    Args:
        function: Importable (not defined in a notebook). One that reports inner progress through
            `track` says so with the attribute `tracked = True`.
        jobs: Argument tuples, picklable.
        workers: Processes; 1 runs here.
        label: What to call the work in the progress display.

    Raises:
        Exception: The first job's error, after the others were cancelled.
    """
    progress = Progress(len(jobs), label)
    if workers <= 1 or len(jobs) <= 1:
        import torch

        # results depend on the number of threads; one is the same everywhere
        torch.set_num_threads(1)
        out = []
        for job in jobs:
            out.append(function(*job))
            progress.update()
        progress.close()
        return out
    pool, queue = _workers(workers)
    # glibc only: what was freed here is for the workers
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)

    def listen():
        while (amount := queue.get()) is not None:
            progress.update(amount)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    out = [None] * len(jobs)
    try:
        futures = {pool.submit(_work, function, job): i for i, job in enumerate(jobs)}
        for future in as_completed(futures):
            out[futures[future]] = future.result()
            if not getattr(function, "tracked", False):
                progress.update()
    except BaseException:
        close()
        raise
    finally:
        queue.put(None)
        listener.join()
        progress.close()
    return out
