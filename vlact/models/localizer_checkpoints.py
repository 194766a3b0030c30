"""Checkpoints of ActionFormer, TriDet and DyFADet as their authors leave them, key by key.

Such a file holds `state_dict` and `state_dict_ema`, whose names begin with "module."; the moving
average is what its authors test.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vlact.models.weights import DAMAGED

MEAN, PLAIN, WRAPPED = "state_dict_ema", "state_dict", "module."
OWN = {"positives"}  # what a model has and no file does
# What only one architecture has
MARKS = {"ActionFormer": ".attn.query.", "TriDet": "start_head.", "DyFADet": ".kernel_conv."}


def read(path: str | Path, mean: bool = True) -> dict[str, Tensor]:
    """Weights of a file under the model's own names.

    Args:
        path: .pth.tar, .pth, .pt (tensors and numbers only) or .safetensors; with a state under
            `state_dict` or `state_dict_ema`, or weights alone.
        mean: The moving average, where there is one.

    Raises:
        ValueError: A file that is cut off or holds something else, or weights that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a checkpoint; found nothing")
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGED, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path}: expected a whole checkpoint of tensors; it is cut off or holds something "
            f"else ({first})"
        ) from None
    keys = sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__
    if isinstance(found, dict) and (MEAN in found or PLAIN in found):
        name = MEAN if mean and MEAN in found or PLAIN not in found else PLAIN
        found = found[name]
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(x, Tensor) for x in found.values())
    ):
        raise ValueError(
            f"{path}: expected weights, alone or under {PLAIN!r} or {MEAN!r}; got {keys[:5]}"
        )
    found = {k.removeprefix(WRAPPED): x for k, x in found.items()}
    if bad := [k for k, x in found.items() if x.is_floating_point() and not x.isfinite().all()]:
        raise ValueError(f"{path}: {len(bad)} weights are not finite, for example {bad[0]}")
    return found


def load(path: str | Path, model: nn.Module, mean: bool = True) -> nn.Module:
    """The model with the weights of a file, every one of which must be there and fit.

    Args:
        path, mean: See `read`.
        model: `ActionFormer`, `TriDet` or `DyFADet`, of the file's shape and with `official` set.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: Another architecture, number of classes or levels, feature width or shape; names
            what the file has and what was expected.
    """
    state = read(path, mean)
    kind, own = type(model).__name__, model.state_dict()
    expected = {k: tuple(x.shape) for k, x in own.items() if k not in OWN}
    got = {k: tuple(x.shape) for k, x in state.items() if k not in OWN}
    is_kind = next((n for n, mark in reversed(MARKS.items()) if any(mark in k for k in got)), None)
    if is_kind != kind and is_kind:
        raise ValueError(f"{path}: holds a {is_kind}; expected {kind}")
    sizes = [
        ("classes", "cls_head.cls_head.conv.weight", 0),
        ("features", "backbone.embd.0.conv.weight", 1),
        ("channels", "backbone.embd.0.conv.weight", 0),
    ]
    for what, key, axis in sizes:
        if key in got and got[key][axis] != expected[key][axis]:
            raise ValueError(
                f"{path}: made for {got[key][axis]} {what}; expected {expected[key][axis]}"
            )
    levels = [sum(k.startswith("neck.fpn_norms.") for k in x) // 2 for x in (got, expected)]
    if levels[0] and levels[0] != levels[1]:
        raise ValueError(f"{path}: made for {levels[0]} levels; expected {levels[1]}")
    missing, more = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    if missing or more:
        raise ValueError(
            f"{path}: expected the {len(expected)} weights of {kind}; {len(missing)} are missing "
            f"({', '.join(missing[:3])}), {len(more)} are not known ({', '.join(more[:3])})"
        )
    if odd := [k for k in expected if got[k] != expected[k]]:
        raise ValueError(f"{path}: {odd[0]} is {got[odd[0]]}; expected {expected[odd[0]]}")
    model.load_state_dict({k: own[k] for k in OWN if k in own} | state)
    return model.eval()
