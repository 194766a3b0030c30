"""DyFADet (ECCV 2024): ActionFormer's frame with convolutional blocks, and heads that aggregate
features dynamically, over time and over neighbouring levels.

Every step decides from the features around it how far it listens to the taps of a convolution
(`Gate`, exactly 0 for some), so that a kernel's shape changes from step to step. A head has two
layers; each adds to a level what its two neighbours in the pyramid say, gated, and then mixes over
time, gated again. Blocks are SGP layers whose window branch is rectified.

As in the authors' code, gated taps are multiplied by themselves once more. Parameters have the
names and shapes of the authors' checkpoints, see `vlact.models.localizer_checkpoints`; padding is
as in `vlact.models.actionformer`.

Their code draws the gates' first weights at random, with which some seeds do not train: a head's
second layer has one gate for a step, whose input is positive everywhere, so that chance shuts it
nearly everywhere (at seven eighths of the stadium's steps in 10 of 16 heads), and a shut gate has
no gradient. Here all gates begin open alike, see `AJAR`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vlact.models.actionformer import (
    Backbone,
    ChannelNorm,
    Conv,
    Factor,
    Neck,
    Pointwise,
    over_time,
)
from vlact.models.tridet import SGP, SGPConfig

TAPS = 3  # of every dynamic convolution
LAYERS = 2  # of a head, before its last convolution
# First bias of gates. The authors' configurations name 0.1 (`init_gate`), which their code does not
# read; with that a regression head's gates shut again in the first training that was looked at
AJAR = 1.0


@dataclass(frozen=True)
class DyFADetConfig(SGPConfig):
    """Shape of DyFADet.

    Attributes:
        tau: By how much a gate is shifted; it is shut at 0 and below whatever this is, and opens
            the later the greater it is.
    """

    tau: float = 1.5

    @property
    def by_class(self) -> bool:
        """As published."""
        return True


class Block(SGP):
    """SGP block with a rectified window branch."""

    rectified = True


class Gate(nn.Module):
    """How far each step listens: (B, T, D) to (B, T, out), from 0 to 1.

    Args:
        dim: D.
        out: 1 for all channels, or D for each by itself.
        tau: See `DyFADetConfig`.
    """

    def __init__(self, dim: int, out: int, tau: float):
        super().__init__()
        self.tau = tau
        self.gate_conv = nn.Conv1d(dim, out, TAPS, padding=TAPS // 2, groups=out if out > 1 else 1)
        nn.init.zeros_(self.gate_conv.weight)
        nn.init.constant_(self.gate_conv.bias, AJAR)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        shut = math.tanh(self.tau)
        opened = ((over_time(self.gate_conv, x) - self.tau).tanh() + shut) / (1 + shut)
        return opened.clamp(min=0) * mask[..., None]


class Told(nn.Module):
    """Weights of taps that a convolution finds, a gate over them: (B, T, D K) to (B, T, D)."""

    def __init__(self, dim: int, tau: float):
        super().__init__()
        conv = nn.Conv1d(dim * TAPS, dim, TAPS, padding=TAPS // 2)
        self.convs = nn.Sequential(conv, ChannelNorm(dim))
        self.gate = Gate(dim * TAPS, 1, tau)

    def forward(self, taps: Tensor, mask: Tensor) -> Tensor:
        found = self.convs[1](over_time(self.convs[0], taps)) * mask[..., None]
        return found * self.gate(taps, mask)


class Dynamic(nn.Module):
    """Taps of every step, weighed by what the step says, and mixed: (B, T, D) to (B, T, out).

    Args:
        dim, out: D, and that of the output.
        config: Its `tau` and `official`.
        gated: Whether taps are weighed by themselves and a gate of each channel; otherwise by what
            a convolution over all of them finds.
    """

    def __init__(self, dim: int, out: int, config: DyFADetConfig, gated: bool):
        super().__init__()
        self.gated, self.official = gated, config.official
        # Channel d's taps stand at d K .. d K + K - 1; the shift is not learnt
        self.shift_conv = nn.Conv1d(
            dim, dim * TAPS, TAPS, padding=TAPS // 2, groups=dim, bias=False
        )
        self.shift_conv.weight = nn.Parameter(
            torch.eye(TAPS).repeat(dim, 1)[:, None], requires_grad=False
        )
        self.conv = Pointwise(dim * TAPS, out)
        # As published not zero: where gates are shut the norm sees this bias alone, and a norm of
        # next to nothing has a gradient that drowns all others
        edge = (dim * TAPS) ** -0.5
        nn.init.uniform_(self.conv.bias, -edge, edge)
        self.kernel_conv = Gate(dim, dim, config.tau) if gated else Told(dim, config.tau)
        self.norm = ChannelNorm(out)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if not self.official:
            x = x * mask[..., None]
        taps = over_time(self.shift_conv, x)
        if not self.official:  # a padded step's taps reach over the border
            taps = taps * mask[..., None]
        weight = self.kernel_conv(x if self.gated else taps, mask).repeat_interleave(TAPS, -1)
        weight = taps * weight if self.gated else weight
        return self.norm(self.conv(taps * weight)) * mask[..., None]


class Layer(nn.Module):
    """A head's layer over all levels: what the next finer and the next coarser level say is added
    to each, which then mixes over time.
    """

    def __init__(self, dim: int, out: int, config: DyFADetConfig):
        super().__init__()
        self.dynamic_convs = nn.ModuleList(Dynamic(dim, dim, config, True) for _ in range(2))
        self.depth_module = Dynamic(dim, out, config, False)
        self.scale_weight = nn.Parameter(torch.zeros(1))
        self.output_weight = nn.Parameter(torch.ones(1))
        self.norm = ChannelNorm(out)  # in the authors' files, and never used

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        finer, coarser = self.dynamic_convs
        down = [finer(x, m)[:, ::2] for x, m in zip(levels[:-1], masks, strict=False)]
        up = [
            coarser(x, m).repeat_interleave(2, 1)
            for x, m in zip(levels[1:], masks[1:], strict=True)
        ]
        told = []
        for i, x in enumerate(levels):
            said = [*down[i - 1 : i], *up[i : i + 1]] if i else up[:1]
            told.append(sum(said) * self.scale_weight + x * self.output_weight)
        return [self.depth_module(x, m).relu() for x, m in zip(told, masks, strict=True)]


class DynamicHead(nn.Module):
    """Dynamic layers and a last convolution: a list of (B, T, D) to a list of (B, T, out)."""

    def __init__(self, config: DyFADetConfig, out: int, last: str, bias: float = 0.0):
        super().__init__()
        inside, self.last = config.head_dim or config.dim, last
        self.head = nn.ModuleList(
            Layer(config.dim if i == 0 else inside, inside, config) for i in range(LAYERS)
        )
        self.add_module(last, Conv(inside, out))
        nn.init.constant_(getattr(self, last).conv.bias, bias)

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        for layer in self.head:
            levels = layer(levels, masks)
        last = getattr(self, self.last)
        return [last(x, m)[0] for x, m in zip(levels, masks, strict=True)]


class DynamicRegressor(DynamicHead):
    """A dynamic head with a factor for every level."""

    def __init__(self, config: DyFADetConfig):
        super().__init__(config, 2, "offset_head")
        self.scale = nn.ModuleList(Factor() for _ in range(config.levels))

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        found = super().forward(levels, masks)
        return [x * factor.scale for factor, x in zip(self.scale, found, strict=True)]


class DyFADet(nn.Module):
    """Features to class logits and distances at every point; the interface of `ActionFormer`."""

    def __init__(self, config: DyFADetConfig):
        super().__init__()
        self.config = config
        self.backbone = Backbone(
            config,
            lambda _: Block(config, 1, 0.0),
            lambda _: Block(config, config.kernel, config.dropout, stride=2),
        )
        self.neck = Neck(config)
        bias = -math.log((1 - config.prior) / config.prior)
        self.cls_head = DynamicHead(config, config.classes, "cls_head", bias)
        self.reg_head = DynamicRegressor(config)
        # running number of positive points, the loss's M
        self.register_buffer("positives", torch.tensor(40.0))

    def forward(
        self, features: Tensor, mask: Tensor, regression_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `ActionFormer.forward`."""
        levels, other, masks = self.backbone.both(features, regression_features, mask)
        levels, other = (self.neck(x, masks) for x in (levels, other))
        logits, reach = self.cls_head(levels, masks), torch.cat(self.reg_head(other, masks), 1)
        distances = reach.relu() if self.config.official else softplus(reach + 2.0)
        return torch.cat(logits, 1), distances, torch.cat(masks, 1)
