"""Checkpoints of ActionFormer, TriDet, DyFADet, AdaTAD and Re2TAL as their authors leave them, key
by key.

Such a file holds `state_dict` and `state_dict_ema`, whose names begin with "module."; the moving
average is what its authors test. OpenTAD's names, AdaTAD's among them, are translated. DiGIT's are
read by `vlact.models.digit.load`.
"""

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from vlact.models.weights import translate
from vlact.runtime.damage import DAMAGED
from vlact.runtime.extras import needs

with needs("vlact.models.localizer_checkpoints"):
    from safetensors.torch import load_file

MEAN, PLAIN, WRAPPED = "state_dict_ema", "state_dict", "module."
OWN = {"positives"}  # what a model has and no file does
# What only one architecture has, the first that is there counts
MARKS = {
    "Re2TAL": ".inv_block.Fm.",
    "AdaTAD": "backbone.model.backbone.blocks.",
    "OpenTAD's ActionFormer": "projection.stem.0.attn.query.",
    "DyFADet": ".kernel_conv.",
    "TriDet": "start_head.",
    "ActionFormer": ".attn.query.",
}
END_TO_END = ("AdaTAD", "Re2TAL")
LOCALIZER = "localizer."  # their part
OPENTAD = [  # its names and ours of the localizer
    (r"projection\.embed\.(\d+)\.conv\.weight", r"backbone.embd.\1.conv.weight"),
    (r"projection\.embed\.(\d+)\.norm\.(\w+)", r"backbone.embd_norm.\1.\2"),
    (r"projection\.((?:stem|branch)\..+)", r"backbone.\1"),
    (r"(neck\.fpn_norms\.\d+\.\w+)", r"\1"),
    (r"rpn_head\.(cls|reg)_convs\.(\d+)\.conv\.weight", r"\1_head.head.\2.conv.weight"),
    (r"rpn_head\.(cls|reg)_convs\.(\d+)\.norm\.(\w+)", r"\1_head.norm.\2.\3"),
    (r"rpn_head\.cls_head\.(\w+)", r"cls_head.cls_head.conv.\1"),
    (r"rpn_head\.reg_head\.(\w+)", r"reg_head.offset_head.conv.\1"),
    (r"rpn_head\.scale\.(\d+)\.scale", r"reg_head.scale.\1.scale"),
    (r"rpn_head\.loss_normalizer", "positives"),
]
# With what names begin, of every architecture
PARTS = (
    "backbone",
    "projection",
    "neck",
    "rpn_head",
    "cls_head",
    "reg_head",
    "start_head",
    "end_head",
)
PART = re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(PARTS)})\.")
TOWER = (r"backbone\.model\.backbone\.(.+)", r"tower.\1")


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
    count, found = len(found), {k.removeprefix(WRAPPED): x for k, x in found.items()}
    if len(found) < count:
        raise ValueError(
            f"{path}: {count - len(found)} weights are there with {WRAPPED!r} before their names "
            f"and without; expected one of each"
        )
    if bad := [k for k, x in found.items() if x.is_floating_point() and not x.isfinite().all()]:
        raise ValueError(f"{path}: {len(bad)} weights are not finite, for example {bad[0]}")
    return found


def kind_of(state: dict[str, Tensor]) -> str:
    """Architecture of weights: a name of `MARKS`, or "" where none is known."""
    return next((kind for kind, mark in MARKS.items() if any(mark in k for k in state)), "")


def prefix_of(state: dict[str, Tensor]) -> str:
    """What stands before every name of weights, such as "ema."; "" where there is no such thing."""
    before = {PART.split(k, maxsplit=1)[0] for k in state}
    return before.pop() if len(before) == 1 else ""


def expected_kind(model: nn.Module) -> str:
    """The one that a model takes."""
    kind = type(model).__name__
    return "OpenTAD's ActionFormer" if kind == "ActionFormer" and model.config.opentad else kind


def translated(state: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Weights under OpenTAD's names as ours.

    Raises:
        ValueError: A name that is not OpenTAD's; see `vlact.models.weights.translate`.
    """
    whole = any(re.fullmatch(TOWER[0], k) for k in state)  # AdaTAD's, not the localizer alone
    prefix = LOCALIZER if whole else ""
    out = translate(state, [TOWER, *((old, prefix + new) for old, new in OPENTAD)], path)
    # norms of channels are kept (1, D, 1)
    norm = re.compile(r"(localizer\.)?.*(norm\.\d|norms\.\d|_norm|\.ln\d)\.(weight|bias)")
    mine = {k for k, x in out.items() if x.ndim == 1 and k[:6] != "tower." and norm.fullmatch(k)}
    return {k: x[None, :, None] if k in mine else x for k, x in out.items()}


def load(path: str | Path, model: nn.Module, mean: bool = True) -> nn.Module:
    """The model with the weights of a file, every one of which must be there and fit.

    Args:
        path, mean: See `read`.
        model: `ActionFormer`, `TriDet`, `DyFADet`, `AdaTAD` or `Re2TAL`, of the file's shape and
            with `official` set, and `opentad` for a file of OpenTAD.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: Another architecture, number of classes or levels, feature width or shape; names
            what the file has and what was expected.
    """
    return fill(path, model, read(path, mean))


def fill(path: str | Path, model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """As `load`, of what `read` gave."""
    model.load_state_dict(compared(path, model, state))
    return model.eval()


def compared(path: str | Path, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `read` gave under the names of a model that it fits, whose weights may be shapes alone.

    Raises:
        ValueError: See `load`.
    """
    is_kind, kind, own = kind_of(state), expected_kind(model), model.state_dict()
    if is_kind != kind:
        found = is_kind or f"no localizer ({', '.join(sorted(state)[:3])} ..)"
        raise ValueError(f"{path}: holds {found}; expected {kind}")
    if before := prefix_of(state):
        raise ValueError(
            f"{path}: names of weights begin with {before!r}; expected nothing or {WRAPPED!r} "
            f"before them, the moving average under {MEAN!r} and the others under {PLAIN!r}"
        )
    if kind in (*END_TO_END, "OpenTAD's ActionFormer"):
        state = translated(state, path)
    prefix = LOCALIZER if kind in END_TO_END else ""
    kept = {prefix + k for k in OWN}
    expected = {k: tuple(x.shape) for k, x in own.items() if k not in kept}
    got = {k: tuple(x.shape) for k, x in state.items() if k not in kept}
    sizes = [
        ("classes", "cls_head.cls_head.conv.weight", 0),
        ("features", "backbone.embd.0.conv.weight", 1),
        ("channels", "backbone.embd.0.conv.weight", 0),
    ]
    for what, key, axis in sizes:
        if (key := prefix + key) in got and got[key][axis] != expected[key][axis]:
            raise ValueError(
                f"{path}: made for {got[key][axis]} {what}; expected {expected[key][axis]}"
            )
    norms = f"{prefix}neck.fpn_norms."
    levels = [sum(k.startswith(norms) for k in x) // 2 for x in (got, expected)]
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
    return {k: own[k] for k in kept if k in own} | state
