"""Dynamic feature aggregation in the manner of DyFADet (ECCV 2024), in ActionFormer's frame.

Every step decides from its own features which taps of a depthwise convolution it listens to, so
that kernel shape and receptive field change from step to step: y_t = sum_k m_t,k w_k x_t+k with m =
ReLU(tanh(..)), which can be exactly 0. A block has a narrow and a wide one in parallel; the levels
of the pyramid and both heads are made of them.

Simplified: written from the paper's idea, not from its code. Taps are gated for groups of channels,
blocks lack the global branch and the shared kernels, and the heads do not mix levels, as DyFADet's
do; its checkpoints cannot be loaded.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlact.models.actionformer import (
    HIDDEN,
    MLP,
    ActionFormer,
    Backbone,
    ChannelNorm,
    LocalizerConfig,
    max_over_time,
)


@dataclass(frozen=True)
class DyFADetConfig(LocalizerConfig):
    """Shape.

    Attributes:
        kernel, wide: Taps of the two convolutions, odd.
        groups: Of channels that share their gates.
    """

    kernel: int = 3
    wide: int = 7
    groups: int = 4


class DynamicConv(nn.Module):
    """Depthwise convolution over time with a gate for every step, tap and group of channels: (B, T,
    D) to the same.
    """

    def __init__(self, dim: int, kernel: int, groups: int):
        super().__init__()
        if kernel % 2 == 0 or dim % groups:
            raise ValueError(
                f"kernel must be odd and dim a multiple of groups; got {kernel}, {dim} and {groups}"
            )
        self.kernel, self.groups = kernel, groups
        self.weight = nn.Parameter(torch.randn(kernel, dim) / kernel**0.5)
        self.gate = nn.Linear(dim, kernel * groups)
        nn.init.zeros_(self.gate.weight)
        nn.init.ones_(self.gate.bias)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = x * mask[..., None]
        gates = self.gate(x).tanh().relu().unflatten(-1, (self.kernel, self.groups))  # (B, T, K, G)
        taps = nn.functional.pad(x, (0, 0, self.kernel // 2, self.kernel // 2)).unfold(
            1, self.kernel, 1
        )  # (B, T, D, K)
        taps = taps.transpose(2, 3) * self.weight
        mixed = taps.unflatten(-1, (self.groups, -1)) * gates[..., None]
        return mixed.flatten(-2).sum(2) * mask[..., None], mask


class DynamicBlock(nn.Module):
    """Narrow and wide dynamic aggregation, then an MLP; with a stride the sequence is max-pooled
    first.
    """

    def __init__(self, config: DyFADetConfig, stride: int = 1):
        super().__init__()
        dim = config.dim
        self.norm1, self.norm2 = ChannelNorm(dim), ChannelNorm(dim)
        self.mixers = nn.ModuleList(
            DynamicConv(dim, k, config.groups) for k in (config.kernel, config.wide)
        )
        self.mlp = MLP(dim, HIDDEN * dim, 2)
        self.pool, self.stride = nn.MaxPool1d(3, stride, 1) if stride > 1 else None, stride

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.pool:
            x = max_over_time(x, mask, self.pool, official=False)
            mask = mask[:, :: self.stride]
            x = x.masked_fill(~mask[..., None], 0)
        y = self.norm1(x)
        x = x + sum(mixer(y, mask)[0] for mixer in self.mixers)
        return (x + self.mlp(self.norm2(x))) * mask[..., None], mask


class DyFADet(ActionFormer):
    """ActionFormer whose blocks aggregate dynamically, also before each head."""

    def __init__(self, config: DyFADetConfig):
        super().__init__(config)
        for head in (self.cls_head, self.reg_head):
            inside = config.head_dim or config.dim
            if inside != config.dim:
                raise ValueError(f"head_dim must be 0 or dim {config.dim}; got {inside}")
            head.head[0] = DynamicConv(config.dim, config.kernel, config.groups)
            head.reach = max(1, config.kernel // 2)

    @staticmethod
    def pyramid(config: DyFADetConfig) -> Backbone:
        """Dynamic blocks."""
        return Backbone(
            config, lambda _: DynamicBlock(config), lambda _: DynamicBlock(config, stride=2)
        )
