"""A module's weights with all that rebuilds it, as one safetensors file; nothing in such a file can
run code, and nothing in it is believed before it is checked.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable
from numbers import Integral
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from vlact import ROOT
from vlact.runtime.extras import needs
from vlact.runtime.jobs import write_whole

with needs("vlact.models.files"):
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

# What a shape may ask for at most: beyond any published model, short of what hangs.
PIXELS, FRAMES, BLOCKS, HEADS, WIDTH, WORDS = 4096, 4096, 512, 512, 2**17, 2**22
# What building a module of a senseless shape raises.
BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


def bounded(config, least: int = 1, **most: int) -> None:
    """Check that the named attributes of a config are whole numbers in `least`..`most`.

    Raises:
        ValueError: One that is not; names it.
    """
    for name, high in most.items():
        value = getattr(config, name)
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or not least <= value <= high:
            raise ValueError(
                f"{type(config).__name__}.{name} must be a whole number in {least}..{high}; "
                f"got {value!r}"
            )


def _fits(value, kind) -> bool:
    """Whether a value out of JSON is of an annotated type; infinite numbers are of none."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, k) for k in inside)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        if inside[-1] is Ellipsis:
            return all(_fits(v, inside[0]) for v in value)
        return len(value) == len(inside) and all(map(_fits, value, inside))
    if origin is list:
        return isinstance(value, list) and all(_fits(v, inside[0]) for v in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is int:
        return type(value) is int
    return isinstance(value, origin or kind)


def _named(kind) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def checked(note, wanted: dict[str, Any], path: str | Path, what: str, free=()) -> dict:
    """A note out of JSON, if it holds the wanted entries and no others.

    Args:
        note: Should be a dict.
        wanted: Entry to its type, as in an annotation.
        path, what: Named in errors: the file, and the part of it.
        free: Entries that need not be there.

    Returns:
        The note, lists as tuples where the type is a tuple.

    Raises:
        ValueError: Names file, entry, what was expected and what came.
    """
    if not isinstance(note, dict):
        raise ValueError(f"{path}: {what}: expected a dict of {sorted(wanted)}; got {note!r:.80}")
    missing, unknown = sorted(set(wanted) - set(note) - set(free)), sorted(set(note) - set(wanted))
    if missing or unknown:
        raise ValueError(
            f"{path}: {what}: expected the entries {sorted(wanted)}; missing {missing[:5]}, "
            f"unknown {unknown[:5]}"
        )
    for name, value in note.items():
        if not _fits(value, wanted[name]):
            raise ValueError(
                f"{path}: {what}: {name}: expected {_named(wanted[name])}; got {value!r:.80}"
            )
    return {
        k: tuple(v) if isinstance(v, list) and not _fits_list(wanted[k]) else v
        for k, v in note.items()
    }


def _fits_list(kind) -> bool:
    """Whether a type takes lists as they are."""
    if get_origin(kind) in (Union, UnionType):
        return any(map(_fits_list, get_args(kind)))
    return kind is Any or (get_origin(kind) or kind) is list


def config_of(kind: type, note, path: str | Path):
    """A config dataclass from the note of a file.

    Raises:
        ValueError: Names file, entry, what was expected and what came; or what `kind` itself says
            of the values.
    """
    free = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
    ]
    note = checked(note, get_type_hints(kind), path, kind.__name__, free)
    try:
        return kind(**note)
    except BROKEN as error:
        raise ValueError(f"{path}: {error}") from error


def inside(place: str, path: str | Path, what: str) -> str:
    """A path that a file names, if it stays in the repository or in the file's own folder.

    Args:
        place: A path from the repository's root, or an absolute one; "" for none.
        path: The file that names it.
        what: What it names, for the error.

    Raises:
        ValueError: It leads elsewhere.
    """
    # by names alone, so that a folder of the repository may be a link to a large disk
    homes = (ROOT, Path(path).absolute().parent)
    found = Path(os.path.normpath(ROOT / place))
    if "\0" in place or place and not any(found.is_relative_to(home) for home in homes):
        raise ValueError(
            f"{path}: {what}: expected a path in the repository or beside this file; got "
            f"{place!r}. If you trust it, link it to data/checkpoints and name it from there"
        )
    return place


def save(path: str | Path, kind: str, note: dict, state: dict[str, Tensor]) -> None:
    """Write `state` under a header entry `kind` that holds `note` (json-able), whole or not."""
    state = {k: v.contiguous() for k, v in state.items()}
    write_whole(
        Path(path),
        lambda data, file: save_file(data, file, metadata={kind: json.dumps(note)}),
        state,
    )


def read(path: str | Path, kind: str) -> tuple[dict, dict[str, Tensor]]:
    """Note and state of a file that `save` wrote.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A file of another kind, or one that is damaged.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {}).get(kind)
            if header is None:
                raise ValueError(
                    f"{path}: expected a {kind!r} entry in the safetensors header, as vlact "
                    "writes it; found none"
                )
            state = {k: file.get_tensor(k) for k in file.keys()}
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path}: expected a whole safetensors file; {error}") from error
    try:
        note = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {kind!r} in its header is no JSON: {error}") from error
    if not isinstance(note, dict):
        raise ValueError(f"{path}: {kind!r} in its header: expected a dict; got {note!r:.80}")
    return note, state


def take(state: dict[str, Tensor], names: Iterable[str], path: str | Path) -> list[Tensor]:
    """Tensors that a file must have, taken out of its state.

    Raises:
        ValueError: Names those that are missing.
    """
    if missing := [n for n in names if n not in state]:
        raise ValueError(f"{path}: missing {missing}")
    return [state.pop(n) for n in names]


def _compare(
    own: dict[str, Tensor], state: dict[str, Tensor], path: str | Path, may_lack: Callable
) -> None:
    """Raise ValueError where a file's weights are not those of a module."""
    missing = sorted(k for k in set(own) - set(state) if not may_lack(k))
    extra = sorted(set(state) - set(own))
    odd = [
        f"{k}: {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in sorted(set(own) & set(state))
        if own[k].shape != state[k].shape
    ]
    if missing or extra or odd:
        raise ValueError(
            f"{path}: missing {missing[:5]}, unexpected {extra[:5]}, of another shape {odd[:5]}"
        )


def fill(
    module: nn.Module,
    state: dict[str, Tensor],
    path: str | Path,
    may_lack: Callable[[str], bool] = lambda name: False,
) -> nn.Module:
    """The module with these weights, in evaluation mode.

    Args:
        module: Of the right shape.
        state: Its weights.
        path: Named in errors.
        may_lack: Names that need not be there, such as tied weights.

    Raises:
        ValueError: Weights that are missing, not expected or of another shape; names them.
    """
    _compare(module.state_dict(), state, path, may_lack)
    module.load_state_dict(state, strict=False)
    return module.eval()


def built(
    make: Callable[[], nn.Module],
    state: dict[str, Tensor],
    path: str | Path,
    may_lack: Callable[[str], bool] = lambda name: False,
) -> nn.Module:
    """`fill` of a module that is made here, in memory only if the file holds its weights.

    A config of a few bytes can ask for a module of any size. So it is made without memory first
    (torch's device "meta", which draws no random numbers), and for good once its shapes are those
    of the weights.

    Args:
        make: Makes the module.
        state, path, may_lack: See `fill`.

    Raises:
        ValueError: A shape of which no module can be made, and see `fill`.
    """
    try:
        with torch.device("meta"):
            own = make().state_dict()
    except BROKEN as error:
        raise ValueError(f"{path}: no module can be made of its shape: {error}") from error
    _compare(own, state, path, may_lack)
    return fill(make(), state, path, may_lack)
