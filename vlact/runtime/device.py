"""Where models are trained and run: on CPUs, or on GPUs where a profile says `device: auto` and
there are any.

A model is put somewhere once; what it is given goes where it lies. Everything that is drawn by
chance is drawn on the CPU, so that order, windows and colours are the same everywhere; on a GPU the
last digits are not.
"""

import fcntl
import os
import tempfile
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")
_wanted, _place = "cpu", CPU
_claim = None  # of a GPU: its number, and the locked file, which ends with the process


def choose(wanted: str, worker: bool = False) -> None:
    """Decide where this process, and those that it starts, put models.

    Args:
        wanted: "cpu"; "auto", a GPU where there is one; or a device's name, such as "cuda:1".
        worker: Whether the process is one of several that work: "auto" is then a GPU of its own,
            see `claimed`.
    """
    global _wanted, _place
    _wanted = wanted
    if wanted == "auto":
        number = claimed() if worker and torch.cuda.is_available() else 0
        wanted = f"cuda:{number}" if torch.cuda.is_available() else "cpu"
    _place = torch.device(wanted)


def claimed() -> int:
    """Number of the GPU that is this process's own until it ends.

    Of the GPUs of this machine that it may see, the first that no other worker of this user has;
    with more workers than GPUs, one with the fewest. Whoever started the workers, on one machine or
    on many, need not count them: a claim is a locked file, and the kernel frees those of the dead.
    """
    global _claim
    if _claim is None:
        # what this process calls 0 may be another one's 3
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        number = range(torch.cuda.device_count())
        names = [seen[i].strip() if i < len(seen) and seen[i].strip() else str(i) for i in number]
        folder = Path(tempfile.gettempdir()) / f"vlact-gpus-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        _claim = next(
            (i, file)
            for others in count()
            for i, name in enumerate(names)
            if (file := _locked(folder / f"{name.replace('/', '-')}.{others}"))
        )
    return _claim[0]


def _locked(path: Path):
    """The file, open and locked; None where another process has it."""
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a fork does not have it, too
    except BlockingIOError:
        file.close()
        return None
    return file


def wanted() -> str:
    """What was last given to `choose`."""
    return _wanted


def chosen() -> torch.device:
    """Where models go."""
    return _place


def put(given):
    """`moved` to the chosen place."""
    return moved(given, _place)


@contextmanager
def autocast(kind: str | None = None):
    """bf16 autocast on a kind of device, the chosen one if not given: on CPUs with
    bf16 instructions twice as fast, on others correct and slower.

    On CPUs attention over a few dozen tokens is also twice as fast spelled out as in the fused
    kernel.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kind = kind or chosen().type
    with torch.autocast(kind, torch.bfloat16):
        if kind != "cpu":
            yield
        else:
            with sdpa_kernel(SDPBackend.MATH):
                yield


def of(module: nn.Module) -> torch.device:
    """Where a module lies: its first weight or buffer; the CPU if it has none."""
    return next((x.device for xs in (module.parameters(), module.buffers()) for x in xs), CPU)


def beside(module: nn.Module, given):
    """`moved` to where the module lies."""
    return moved(given, of(module))


def moved(given, place: torch.device):
    """Tensors, modules, or tuples, lists, dicts and dataclasses of them, on a device; other values
    as they are.
    """
    if isinstance(given, Tensor | nn.Module):
        return given.to(place)
    if isinstance(given, dict):
        return {k: moved(v, place) for k, v in given.items()}
    if isinstance(given, tuple | list):
        return type(given)(moved(v, place) for v in given)
    if is_dataclass(given):
        return replace(
            given, **{f.name: moved(getattr(given, f.name), place) for f in fields(given)}
        )
    return given
