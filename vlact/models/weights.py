"""Published weights: reading a file, translating its names, every key accounted for, nothing
unpickled but tensors. What the families of `vlact.models.checkpoints` have in common.

A translation is a list of (pattern, replacement); every key of the file must match one, and the
model must get every weight it has, or the error lists what is missing and what is left.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vlact.models.files import BROKEN, fill
from vlact.runtime.damage import DAMAGED, UnpicklingError

Rules = list[tuple[str, str]]
WRAPPINGS = ("model_state", "state_dict", "model", "module")  # of weights in a training checkpoint


def read(path: str | Path) -> dict[str, Tensor]:
    """Weights of a .safetensors, .pt, .pth or .pyth file; of the usual wrappings the part that
    holds them.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No weights in it, a damaged file, or something other than tensors and plain
            containers in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; `make doctor PROFILE=paper` says where to get it"
        )
    try:
        content = _content(path)
    except DAMAGED as error:
        # what torch says of a pickle ends in advice to run it
        why = "other things in it" if isinstance(error, UnpicklingError) else str(error)
        raise ValueError(
            f"{path}: expected a whole file of tensors and plain containers; {why}"
        ) from error
    for key in WRAPPINGS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    items = content.items() if isinstance(content, dict) else ()
    found = {k: v for k, v in items if isinstance(k, str) and isinstance(v, Tensor)}
    if not found:
        raise ValueError(
            f"{path}: expected a dict of weights, plain or under 'model_state', 'state_dict', "
            "'model' or 'module'"
        )
    # a few bytes can claim to be any number of them, repeated
    size = path.stat().st_size
    for key, value in found.items():
        plain = value.layout == torch.strided and value.device.type == "cpu" and value.numel()
        if not plain or value.numel() * value.element_size() > size:
            raise ValueError(
                f"{path}: {key}: expected numbers that the file holds; got {tuple(value.shape)}, "
                f"{value.layout}, on {value.device}"
            )
    return found


def _content(path: Path):
    """What a file holds, unpickling tensors and plain containers only."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def translate(state: dict[str, Tensor], rules: Rules, path: str | Path) -> dict[str, Tensor]:
    """Rename every key by the first rule that matches it whole; a replacement of "" leaves the
    weight out.

    Raises:
        ValueError: Keys that no rule knows, or two that become one.
    """
    out, unknown = {}, []
    for key, value in state.items():
        for pattern, replacement in rules:
            if re.fullmatch(pattern, key):
                if replacement:
                    name = re.sub(pattern, replacement, key)
                    if name in out:
                        raise ValueError(f"{path}: {key!r} and another key both become {name!r}")
                    out[name] = value
                break
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{path}: {len(unknown)} unexpected keys, for example {unknown[:3]}; is this another "
            "model's file?"
        )
    return out


def load(module: nn.Module, state: dict[str, Tensor], path: str | Path) -> nn.Module:
    """Fill a module, strictly, and set it to evaluation.

    Raises:
        ValueError: Missing or unexpected names, or shapes that differ; names them.
    """
    return fill(module, state, path)


def blocks_of(state: dict[str, Tensor], prefix: str) -> int:
    """How many numbered blocks stand after a prefix.

    Raises:
        ValueError: None, or numbers that are not 0, 1, 2 and so on.
    """
    found = {k.removeprefix(prefix).split(".")[0] for k in state if k.startswith(prefix)}
    if not found or found != {str(i) for i in range(len(found))}:
        raise ValueError(
            f"expected blocks {prefix}0, {prefix}1 and so on; got the numbers {sorted(found)[:5]}"
        )
    return len(found)


def own_head(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state, with the model's own head in place of one of other classes."""
    if "head.weight" in state and state["head.weight"].shape != model.head.weight.shape:
        state = state | {f"head.{k}": v for k, v in model.head.state_dict().items()}
    return state


def stretch(table: Tensor, length: int) -> Tensor:
    """Rows (1, L, D) to another number of them, each new row the nearest old one, as TimeSformer
    does with frames.
    """
    return (
        table
        if table.shape[1] == length
        else interpolate(table.transpose(1, 2), length, mode="nearest").transpose(1, 2)
    )


def own_pixels(
    weight: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """A patch projection (D, C, h, w) made for (x - mean) / std, x in 0..1, as one for pixels in
    -1..1, which encoders here take.

    Returns:
        The weight, and what to add to the bias (D,).
    """
    mean, std = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)
    return weight / (2 * std), (weight * (0.5 - mean) / std).sum((1, 2, 3))


def family(name: str) -> Callable:
    """Decorator of a loader whose first argument is a path: whatever a file of senseless shapes
    makes it raise becomes a ValueError that names the file and the family.
    """

    def wrap(loader: Callable) -> Callable:
        @functools.wraps(loader)
        def strict(path, *args, **options):
            try:
                return loader(path, *args, **options)
            except BROKEN as error:
                if isinstance(error, ValueError) and str(path) in str(error):
                    raise
                raise ValueError(
                    f"{path}: expected weights of {name}; {type(error).__name__}: {error}"
                ) from error

        return strict

    return wrap
