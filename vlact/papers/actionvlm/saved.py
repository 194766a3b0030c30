"""What a file of a trained localizer holds besides weights, checked before it is believed."""

import inspect
from pathlib import Path

from torch import Tensor

from vlact.language.prompts import Prompt
from vlact.models import files
from vlact.models.actionformer import LocalizerConfig

STEPS = 2**16  # most steps of a window
TOP = 2**20  # most detections of a window before suppression


def shape_of(kind: type[LocalizerConfig], note, path: str | Path) -> LocalizerConfig:
    """The shape of a localizer.

    Raises:
        ValueError: Names file and entry.
    """
    config = files.config_of(kind, note, path)
    try:
        files.bounded(config, feature_dim=files.WIDTH, classes=files.WIDTH, dim=files.WIDTH)
        files.bounded(config, heads=files.HEADS, levels=files.BLOCKS)
        files.bounded(config, 0, embeds=files.BLOCKS, stems=files.BLOCKS, window=STEPS)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not 0 < config.prior < 1 or not 0 <= config.dropout < 1:
        raise ValueError(
            f"{path}: expected 0 < prior < 1 and 0 <= dropout < 1; got {config.prior} and "
            f"{config.dropout}"
        )
    return config


def standard_of(state: dict[str, Tensor], dim: int, path: str | Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of features (D,).

    Raises:
        ValueError: Not there, of another length, or a deviation that is not above zero.
    """
    mean, std = files.take(state, ("mean", "std"), path)
    if mean.shape != (dim,) or std.shape != (dim,) or not bool((std > 0).all()):
        raise ValueError(
            f"{path}: expected mean and std of ({dim},), std above zero; got {tuple(mean.shape)} "
            f"and {tuple(std.shape)}"
        )
    return mean, std


def classes_of(classes: list[str], wanted: int, path: str | Path) -> list[str]:
    """Names of the classes.

    Raises:
        ValueError: Not as many as the localizer tells apart.
    """
    if len(classes) != wanted:
        raise ValueError(f"{path}: expected {wanted} classes; got {len(classes)}")
    return classes


def recipe_of(recipe: dict, path: str | Path) -> dict:
    """How a localizer is run: `window`, `pre_nms_topk` and `nms` at least.

    Raises:
        ValueError: Names file and entry.
    """
    for name, most in (("window", STEPS), ("pre_nms_topk", TOP)):
        value = recipe.get(name)
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(
                f"{path}: recipe: {name}: expected a whole number in 1..{most}; got {value!r:.80}"
            )
    from vlact.models.nms import suppress  # numba, a second of its own

    nms = recipe.get("nms")
    if not isinstance(nms, dict):
        raise ValueError(f"{path}: recipe: nms: expected a dict; got {nms!r:.80}")
    try:
        inspect.signature(suppress).bind(None, **nms)
    except TypeError as error:
        raise ValueError(f"{path}: recipe: nms: {error}; got {nms!r:.80}") from error
    return recipe


def clock_of(kind: type, note, path: str | Path):
    """Which second a step stands for, as `vlact.papers.actionvlm.localizing.Clock`.

    Raises:
        ValueError: Steps that are not above zero.
    """
    clock = files.config_of(kind, note, path)
    if clock.step_s <= 0:
        raise ValueError(f"{path}: clock: step_s must be above 0; got {clock.step_s}")
    return clock


def prompt_in(state: dict[str, Tensor], vocabulary: int, clause_dim: int, path) -> Prompt:
    """One row of a prompt.

    Args:
        state: Its tensors.
        vocabulary: Words that the reader knows.
        clause_dim: Features of a clause.

    Raises:
        ValueError: Tensors that are no prompt, or words that the reader does not know.
    """
    names = ("ids", "clauses", "mask", "at", "names")
    prompt = Prompt(*files.take(state, names, path))
    rows, words = 1, prompt.ids.shape[-1]
    found = {k: tuple(getattr(prompt, k).shape) for k in names}
    wanted = {
        "ids": (rows, words),
        "clauses": (rows, words, clause_dim),
        "mask": (rows, words),
        "at": (rows, *found["at"][1:2]),
        "names": (rows, *found["at"][1:2], *found["names"][2:3]),
    }
    whole = not any(getattr(prompt, k).is_floating_point() for k in ("ids", "mask", "at", "names"))
    if state or found != wanted or not whole or not words or not prompt.names.numel():
        raise ValueError(f"{path}: prompt: expected the shapes {wanted}; got {found}")
    for name, least, most in (("ids", 0, vocabulary), ("names", -1, vocabulary), ("at", 0, words)):
        value = getattr(prompt, name)
        if value.min() < least or value.max() >= most:
            raise ValueError(
                f"{path}: prompt: {name}: expected numbers in {least}..{most - 1}; got "
                f"{int(value.min())}..{int(value.max())}"
            )
    return prompt
