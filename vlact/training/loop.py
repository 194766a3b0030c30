"""What every training loop here shares: precision, augmentation, batches, schedule, and the loop
itself.

A loop is deterministic for its seed on one kind of CPU and one thread, and goes on from its
checkpoint to the same bytes. On a GPU it is neither, to the last digits.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vlact.runtime.device import autocast  # noqa: F401  (long imported from here)
from vlact.runtime.jobs import Checkpoint, track
from vlact.training import trackers

CHECKPOINT_EVERY = 100  # steps
WARMUP, CLIP = 0.1, 1.0  # unless a recipe says otherwise, see `fit`
# Augmentation: standard deviations of changes of colours, of contrast, and of brightness (of 255)
MIXING, CONTRAST, BRIGHTNESS = 0.15, 0.2, 20
GREY = 128


def augment(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror, mix colours, shift brightness, one draw a clip: uint8 (B, T, H, W, 3) to the same."""
    out = torch.empty_like(clips)
    # clip by clip stays in the processor's cache: three times faster
    for i, clip in enumerate(clips):
        x = clip.permute(3, 0, 1, 2).float()
        if torch.rand((), generator=generator) < 0.5:
            x = x.flip(3)
        mix = torch.eye(3) + MIXING * torch.randn(3, 3, generator=generator)
        mix = mix * (1 + CONTRAST * torch.randn((), generator=generator))
        shift = GREY * (1 - mix.sum(1)) + BRIGHTNESS * torch.randn(3, generator=generator)
        x = (mix @ x.reshape(3, -1)).add_(shift[:, None]).clamp_(0, 255).view(x.shape)
        out[i] = x.permute(1, 2, 3, 0)
    return out


def batches(n: int, batch_size: int, steps: int, generator: torch.Generator):
    """`steps` index batches from fresh permutations of n; the rest of an epoch opens the next
    batch.
    """
    queue = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(n, generator=generator)])
        yield queue[:batch_size]
        queue = queue[batch_size:]


def warmup_cosine(step: int, steps: int, warmup: float = WARMUP, least: float = 0.0) -> float:
    """Factor on the learning rate: linear warm-up over a share of the steps, then half a cosine
    down to `least`.
    """
    first = max(1, int(warmup * steps))
    if step < first:
        return (step + 1) / first
    fall = 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))
    return least + (1 - least) * fall


def moving_average(
    decay: float, rising: bool = True
) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """For torch's `AveragedModel`: at step n the mean keeps the smaller of `decay` and (1 + n) /
    (10 + n) of itself.

    Without that rise (not `rising`, as ActionFormer's 0.999) a mean of a few hundred steps is to a
    good part the weights that training began with.

    Raises:
        ValueError: A decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"ema {decay:g}: expected a decay from 0 up to but not including 1")

    @torch.no_grad()
    def move(means: list[Tensor], now: list[Tensor], n: Tensor) -> None:
        most = (1 + n.item()) / (10 + n.item()) if rising else 1.0
        torch._foreach_lerp_(means, now, 1 - min(decay, most))

    return move


def averaged(
    learnt: nn.ParameterList, decay: float, rising: bool = True
) -> torch.optim.swa_utils.AveragedModel:
    """The moving average of weights, see `moving_average`; without `rising` it begins with the
    weights before training.
    """
    average = moving_average(decay, rising)
    mean = torch.optim.swa_utils.AveragedModel(learnt, multi_avg_fn=average)
    if not rising:
        mean.n_averaged.fill_(1)  # at 0 it would begin with the weights after the first step
    return mean


def frozen(module: nn.Module) -> set[str]:
    """Names of the weights that training leaves as they are: whoever made the module has them, and
    no checkpoint of it needs them.
    """
    kept = {id(p) for p in module.parameters() if not p.requires_grad}
    return {k for k, p in module.state_dict(keep_vars=True).items() if id(p) in kept}


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """State of a module without its `frozen` weights."""
    left_out = frozen(module)
    return {k: x for k, x in module.state_dict().items() if k not in left_out}


def load_trained(module: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Load what `trained_state` gave; frozen weights stay as they are.

    Raises:
        ValueError: Weights that are missing or not known; names file and weights.
    """
    wanted = set(module.state_dict()) - frozen(module)
    if missing := sorted(wanted - set(state)):
        raise ValueError(
            f"{path}: expected the {len(wanted)} weights that are trained; missing {missing[:5]}; "
            f"it is of another model, remove it to begin anew"
        )
    module.load_state_dict({k: state[k] for k in wanted}, strict=False)


def grouped(modules: dict[str, nn.Module], options: Callable[[str, Tensor], dict]) -> list[dict]:
    """Trained weights in an optimizer's groups, by what `options` says of name and weight."""
    groups: dict[tuple, dict] = {}
    for m in modules.values():
        for name, weight in m.named_parameters():
            if weight.requires_grad:
                own = options(name, weight)
                one = groups.setdefault(tuple(sorted(own.items())), {"params": []} | own)
                one["params"].append(weight)
    return list(groups.values())


def fit(
    modules: dict[str, nn.Module],
    loss_of: Callable[[int], Tensor],
    steps: int,
    lr: float,
    weight_decay: float,
    generator: torch.Generator,
    label: str,
    checkpoint: str | None = None,
    validate: Callable[[], dict] = dict,
    every: int | None = None,
    ema: float = 0.0,
    rising: bool = True,
    warmup: float = WARMUP,
    least: float = 0.0,
    clip: float = CLIP,
    options: Callable[[str, Tensor], dict] = lambda name, weight: {},
) -> list[dict]:
    """Train with AdamW, warm-up and cosine, the norm of the gradient clipped; frozen weights stay
    as they are.

    Args:
        modules: Everything to train, by name, where it is to be trained; in training mode except
            while `validate` runs and after the end.
        loss_of: Step number (from 0) to a scalar loss.
        steps: How many.
        lr: Highest learning rate.
        weight_decay: On all parameters.
        generator: Whatever `loss_of` draws from; its state is kept with the rest.
        label: For the progress display.
        checkpoint: Where the state is kept while training, to go on from after a kill; None keeps
            none.
        validate: Further columns of the curve.
        every: Steps between two rows of the curve; `CHECKPOINT_EVERY` if not given.
        ema: Highest decay of a moving average of what is trained (see `moving_average`), which the
            modules have in its place at the end; 0 for none.
        rising: See `averaged`.
        warmup, least: Share of the steps in which the learning rate rises, and the share of it
            that is left at the end.
        clip: Greatest norm of the gradient.
        options: Name and weight to what AdamW does otherwise with it, `lr` or `weight_decay`.

    Returns:
        The curve: rows with step, mean loss since the last row, and what `validate` returned.
    """
    learnt = nn.ParameterList(
        p for m in modules.values() for p in m.parameters() if p.requires_grad
    )
    parameters = list(learnt)
    optimizer = torch.optim.AdamW(
        grouped(modules, options), lr, weight_decay=weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: warmup_cosine(s, steps, warmup, least)
    )
    parts = modules | {"optimizer": optimizer, "schedule": schedule}
    # of what is trained: going through frozen modules, too, costs a twentieth of a step of
    # ActionVLM
    if ema:
        parts["mean"] = mean = averaged(learnt, ema, rising)
    every = every or CHECKPOINT_EVERY
    saved, start, curve, losses = Checkpoint(Path(checkpoint)) if checkpoint else None, 0, [], []
    if saved and (state := saved.load()):
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                load_trained(part, state[name], checkpoint)
            else:
                part.load_state_dict(state[name])
        generator.set_state(state["generator"])
        start, curve = state["step"], state["curve"]
    for m in modules.values():
        m.train()
    run = Path(checkpoint).stem if checkpoint else label
    with trackers.log_of(run) as log:
        for step in track(range(start, steps), steps, label):
            loss = loss_of(step)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            schedule.step()
            if ema:
                mean.update_parameters(learnt)
            losses.append(loss.item())
            if (step + 1) % every == 0 or step + 1 == steps:
                for m in modules.values():
                    m.eval()
                curve.append({"step": step + 1, "loss": float(np.mean(losses)), **validate()})
                log(curve[-1])
                losses = []
                for m in modules.values() if step + 1 < steps else ():
                    m.train()
                if saved:
                    now = {
                        name: trained_state(part)
                        if isinstance(part, nn.Module)
                        else part.state_dict()
                        for name, part in parts.items()
                    }
                    saved.save(
                        now | {"generator": generator.get_state(), "step": step + 1, "curve": curve}
                    )
    if ema:
        with torch.no_grad():
            torch._foreach_copy_(parameters, list(mean.module))
    return curve
