"""Fine-tuning of the zoo's methods on activations that never change, and what a method sees of many
clips.
"""

import copy

import torch
from torch import Tensor

from vlact.models.zoo import Kept, Recognizer
from vlact.runtime.device import beside
from vlact.training import trackers
from vlact.training.loop import autocast

MOST_GRADIENT = 5.0  # norm that a gradient is clipped to
HALFWAY = 0.5  # share of the weights before fine-tuning, WiSE-FT's default


def take(kept: Kept, rows) -> Kept:
    """Some clips of what was kept."""
    return {k: v[rows] for k, v in kept.items()}


@torch.no_grad()
def frozen_features(method: Recognizer, clips: Tensor, batch_size: int = 64) -> Kept:
    """`Recognizer.frozen_features` of many clips (N, T, H, W, 3), activations in bf16."""
    with autocast():
        parts = [
            {k: x.to("cpu", torch.bfloat16) for k, x in kept.items()}
            for kept in (
                method.frozen_features(beside(method, part)) for part in clips.split(batch_size)
            )
        ]
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}


@torch.no_grad()
def encode(method: Recognizer, kept: Kept, batch_size: int = 64) -> Kept:
    """`Recognizer.encode` at many clips, batch by batch; what it saw lies where the method does."""
    n = len(next(iter(kept.values())))
    with autocast():
        parts = [
            method.encode(beside(method, take(kept, slice(i, i + batch_size))))
            for i in range(0, n, batch_size)
        ]
    return {k: torch.cat([p[k].float() for p in parts]) for k in parts[0]}


def finetune(
    method: Recognizer,
    views: list[Kept],
    labels: Tensor,
    ace: dict,
    lr: float,
    epochs: list[int],
    seed: int,
    on_epoch,
    run: str = "fine-tuning",
) -> None:
    """Fine-tune a method, calling `on_epoch(epoch)` at the listed epochs.

    SGD at a constant rate (the ACE paper prints none), so one run passes through every listed
    epoch.

    Args:
        method: Trained in place, where it lies: the parameters it names with their factors on the
            rate.
        views: What was kept of each of several fixed views of the clips (plain and mirrored).
        labels: Base classes (N,).
        ace: `Ace` as a dict.
        lr: Learning rate.
        epochs: Increasing epoch numbers.
        seed: Order and mirroring.
        on_epoch: Called with the epoch number, the method in evaluation mode.
        run: What a tracker calls this training, see `vlact.training.trackers`.
    """
    # what the method names is trained, each group at its own rate
    method.requires_grad_(False)
    groups: dict[float, list] = {}
    for parameter, factor in method.trained():
        groups.setdefault(factor, []).append(parameter.requires_grad_())
    parameters = [p for group in groups.values() for p in group]
    settings = [{"params": group, "lr": lr * factor} for factor, group in groups.items()]
    optimizer = torch.optim.SGD(
        settings, lr, momentum=ace["momentum"], weight_decay=ace["weight_decay"]
    )
    generator = torch.Generator().manual_seed(seed)
    method.eval()
    stacked = {k: torch.stack([v[k] for v in views]) for k in views[0]}
    with trackers.log_of(run) as log:
        for epoch in range(1, max(epochs) + 1):
            losses = []
            for rows in torch.randperm(len(labels), generator=generator).split(ace["batch_size"]):
                # each clip is seen in one of its views
                view = torch.randint(len(views), (len(rows),), generator=generator)
                seen = {k: v[view, rows] for k, v in stacked.items()}
                with autocast():
                    loss = method.loss(*beside(method, (seen, labels[rows])))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, MOST_GRADIENT)
                optimizer.step()
                losses.append(loss.detach())
            log({"step": epoch, "loss": torch.stack(losses).mean().item()})
            if epoch in epochs:
                on_epoch(epoch)


def clone(method: Recognizer) -> Recognizer:
    """A copy of a method's weights; the words it knows are shared."""
    return copy.deepcopy(method, {id(method.words): method.words})


class Mean:
    """Mean of a list of parameters over several calls of `add`."""

    def __init__(self):
        self.value: list[Tensor] = []
        self.count = 0

    @torch.no_grad()
    def add(self, parameters: list[Tensor]) -> None:
        self.count += 1
        if not self.value:
            self.value = [p.detach().clone() for p in parameters]
        for mean, new in zip(self.value, parameters, strict=True):
            mean.lerp_(new, 1 / self.count)


@torch.no_grad()
def with_weights(method: Recognizer, weights: list[Tensor]) -> Recognizer:
    """A copy whose trained parameters are those given, in the order of `method.trained()`."""
    other = clone(method)
    for (parameter, _), value in zip(other.trained(), weights, strict=True):
        parameter.copy_(value)
    return other


@torch.no_grad()
def wise_ft(method: Recognizer, start: list[Tensor]) -> Recognizer:
    """A copy whose trained parameters lie halfway back to where they started.

    WiSE-FT (Wortsman et al., CVPR 2022) with its default of 0.5: the mean of both weights often
    keeps what fine-tuning learnt and what it would have forgotten.

    Args:
        method: Fine-tuned.
        start: Its trained parameters before, in the order of `method.trained()`.
    """
    mean = clone(method)
    for (parameter, _), before in zip(mean.trained(), start, strict=True):
        parameter.lerp_(before, HALFWAY)
    return mean
