"""Videos that do not fit into memory, read window by window: features of a file here, frames of a
film in `vlact.training.features`.

A `Stream` stands where a tensor (T, ..) of a whole video would: it has its length and shape, and a
slice of its steps is a tensor. A set of features below `IN_MEMORY` is loaded whole, as before.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vlact.runtime.jobs import write_whole

IN_MEMORY = 2**30  # bytes of features that a job loads whole
BLOCK = 4096  # steps that are looked at at once where every one is
COPIED = 2**24  # bytes that are copied at once
HEADER = 8  # bytes that say how long a safetensors file's header is
KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Stream(ABC):
    """A video's steps (T, ..) somewhere else.

    Attributes:
        shape: As a tensor's.
        finite: Whether all its numbers are known to be, so that nobody reads it again to see.
    """

    shape: tuple[int, ...]
    finite: bool = False

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return math.prod(self.shape)

    @abstractmethod
    def __getitem__(self, steps: slice) -> Tensor:
        """Some steps, one after the other."""

    def float(self) -> "Stream":
        """The same as float32, when it is read."""
        return Scaled(self, 0.0, 1.0)

    def between(self, steps: slice) -> tuple[int, int]:
        """First step of a slice, and the one after its last.

        Raises:
            IndexError: No slice, or one that leaves steps out.
        """
        if not isinstance(steps, slice) or steps.step not in (None, 1):
            raise IndexError(f"a stream is read by slices of steps, x[a:b]; got [{steps}]")
        first, end, _ = steps.indices(len(self))
        return first, max(first, end)


class Stored(Stream):
    """An array of a safetensors file, read without mapping the file: what was read can be freed.

    Args:
        path: The file.
        kind, shape, first: Of the array: a name of `KINDS`, (T, F), and the byte where it begins.
    """

    def __init__(self, path: Path, kind: str, shape: list[int], first: int):
        self.path, self.kind, self.shape, self.first = path, kind, tuple(shape), first

    def __getitem__(self, steps: slice) -> Tensor:
        first, end = self.between(steps)
        dtype = KINDS[self.kind]
        row = math.prod(self.shape[1:]) * dtype.itemsize
        if end == first or not row:
            return torch.empty(end - first, *self.shape[1:], dtype=dtype)
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.first + first * row)
            found = bytearray((end - first) * row)
            if file.readinto(found) != len(found):
                raise ValueError(f"{self.path}: it became shorter while it was read")
        return torch.frombuffer(found, dtype=dtype).view(-1, *self.shape[1:])


class Scaled(Stream):
    """Standardised features of another stream, float32."""

    def __init__(self, of: Stream, mean: Tensor | float, std: Tensor | float):
        self.of, self.mean, self.std = of, mean, std
        self.shape, self.finite = of.shape, of.finite

    def float(self) -> Stream:
        return self

    def __getitem__(self, steps: slice) -> Tensor:
        return (self.of[steps].float() - self.mean) / self.std


def stored(path: str | Path, at_most: int | None = None) -> dict[str, Tensor | Stored]:
    """Features of a safetensors file by video: tensors of a small file, streams of a large one.

    Args:
        path: The file.
        at_most: Bytes up to which a file is small; `IN_MEMORY` if not given.

    Raises:
        ValueError: No safetensors file, or arrays of numbers that are no features.
    """
    path = Path(path)
    try:
        if path.stat().st_size <= (IN_MEMORY if at_most is None else at_most):
            return load_file(path)
        start, header = _header(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a safetensors file with an array (T, F) a video; {error}"
        ) from None
    if odd := [k for k, x in header.items() if x["dtype"] not in KINDS]:
        raise ValueError(
            f"{path}: {odd[0]}: expected numbers of {', '.join(KINDS)}; got "
            f"{header[odd[0]]['dtype']}"
        )
    return {
        k: Stored(path, x["dtype"], x["shape"], start + x["data_offsets"][0])
        for k, x in header.items()
    }


def _header(path: Path) -> tuple[int, dict[str, dict]]:
    """Where the arrays of a safetensors file begin, and by name what it says of each."""
    with safe_open(path, "pt"):  # which checks all of it
        pass
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(HEADER), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return HEADER + length, header


def joined(parts: list[str | Path], out: Path, names: dict[str, str] | None = None) -> None:
    """Several safetensors files as one, copied array by array: none lies in memory whole.

    Args:
        parts: The files.
        out: The whole, written whole or not at all.
        names: Of the arrays in the whole, in its order, to those in the parts; all and the same
            if not given.

    Raises:
        ValueError: An array that no part has, or two have.
    """
    places: dict[str, tuple[Path, int, dict]] = {}
    for part in map(Path, parts):
        start, header = _header(part)
        for name, x in header.items():
            if name in places:
                raise ValueError(f"{part}: {name!r} is in {places[name][0]}, too; expected one")
            places[name] = part, start + x["data_offsets"][0], x
    names = {name: name for name in places} if names is None else names
    if missing := [n for n in names.values() if n not in places]:
        raise ValueError(f"{out}: no features of {len(missing)} videos, such as {missing[0]!r}")
    header, end = {}, 0
    for name, old in names.items():
        x = places[old][2]
        size = x["data_offsets"][1] - x["data_offsets"][0]
        header[name] = x | {"data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % HEADER)  # so that numbers begin where they may

    def write(_, path: Path) -> None:
        with open(path, "wb") as to:
            to.write(len(text).to_bytes(HEADER, "little") + text)
            for old in names.values():
                part, first, x = places[old]
                left = x["data_offsets"][1] - x["data_offsets"][0]
                with open(part, "rb") as file:
                    file.seek(first)
                    while left:
                        some = file.read(min(left, COPIED))
                        if not some:
                            raise ValueError(f"{part}: it became shorter while it was read")
                        to.write(some)
                        left -= len(some)

    write_whole(Path(out), write, None)


def scaled(x: Tensor | Stream, mean: Tensor, std: Tensor) -> Tensor | Scaled:
    """Standardised features, in memory where they are."""
    return Scaled(x, mean, std) if isinstance(x, Stream) else (x.float() - mean) / std


def blocks(x: Tensor | Stream) -> Iterator[Tensor]:
    """All steps of a video: a tensor at once, a stream part by part."""
    if isinstance(x, Stream):
        yield from (x[i : i + BLOCK] for i in range(0, len(x), BLOCK))
    else:
        yield x


def moments(videos: Iterable[Stream]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (F,) of all steps of some streams, in two passes."""
    videos = list(videos)
    steps = sum(len(x) for x in videos)
    mean = sum(part.double().sum(0) for x in videos for part in blocks(x)) / steps
    spread = sum((part.double() - mean).square().sum(0) for x in videos for part in blocks(x))
    return mean.float(), (spread / (steps - 1)).sqrt().float()
