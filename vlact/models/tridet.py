"""TriDet (CVPR 2023): ActionFormer's frame with convolutional blocks and a head that regresses
borders as expectations.

The pyramid mixes by SGP layers instead of attention (Eq. 1-4): an instant branch, gated by the mean
over the sequence, and a window branch of two widths. The Trident head says where an action starts
and ends from how likely each of the `bins` steps before and after a point is a border (Eq. 5-7), so
distances reach `bins` strides.

As the paper has it, border responses are one number a step; the authors' code has one a class.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlact.models.actionformer import Conv, Head, LocalizerConfig, Pyramid


@dataclass(frozen=True)
class TriDetConfig(LocalizerConfig):
    """Shape of TriDet.

    Attributes:
        kernel: Of the narrower window convolution, w.
        widening: The wider one's kernel is about `widening` times as wide, k.
        bins: Steps before and after a point that may be a border, B.
    """

    kernel: int = 3
    widening: float = 1.5
    bins: int = 16


class SGP(nn.Module):
    """Scalable-granularity perception block: (B, T, D) to the same, or shortened by a stride."""

    def __init__(self, config: TriDetConfig, stride: int = 1):
        super().__init__()
        dim, wide = config.dim, round((config.kernel + 1) * config.widening) | 1
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

        def depthwise(kernel: int) -> Conv:
            return Conv(dim, dim, kernel, groups=dim)

        self.instant, self.gate = depthwise(1), nn.Linear(dim, dim)
        self.narrow, self.wide, self.window_gate = (
            depthwise(config.kernel),
            depthwise(wide),
            depthwise(config.kernel),
        )
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.pool = nn.MaxPool1d(3, stride, 1) if stride > 1 else None
        self.stride = stride

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.pool:
            x = self.pool(x.masked_fill(~mask[..., None], -torch.inf).transpose(1, 2)).transpose(
                1, 2
            )
            mask = mask[:, :: self.stride]
            x = x.masked_fill(~mask[..., None], 0)
        y = self.norm1(x) * mask[..., None]
        mean = y.sum(1, keepdim=True) / mask.sum(1)[:, None, None].clamp(min=1)
        instant = self.gate(mean).relu() * self.instant(y, mask)[0]
        window = self.window_gate(y, mask)[0] * (self.narrow(y, mask)[0] + self.wide(y, mask)[0])
        x = x + instant + window + y
        return (x + self.mlp(self.norm2(x))) * mask[..., None], mask


def expected_distance(border: Tensor, offset: Tensor, mask: Tensor, ahead: bool) -> Tensor:
    """Distance from every step to a border as an expectation over the steps before (or ahead of)
    it, Eq. 5-7.

    Args:
        border: How likely each step is a border (B, T), logits.
        offset: What each step adds for the bins 0..bins (B, T, bins + 1), bin 0 being the step
            itself.
        mask: Valid steps (B, T); beyond them is no border.
        ahead: Look ahead, for the end; otherwise back, for the start.

    Returns:
        (B, T), in steps, 0..bins.
    """
    bins = offset.shape[-1] - 1
    known = border.masked_fill(~mask, -torch.inf)
    if ahead:
        near = nn.functional.pad(known, (0, bins), value=-torch.inf).unfold(1, bins + 1, 1)
    else:
        near = nn.functional.pad(known, (bins, 0), value=-torch.inf).unfold(1, bins + 1, 1).flip(-1)
    logits = (near + offset).masked_fill(
        ~mask[..., None], 0
    )  # a padded step would have nothing to choose from
    return logits.softmax(-1) @ torch.arange(bins + 1, dtype=offset.dtype, device=offset.device)


class TriDet(nn.Module):
    """Features to class logits and distances at every point; the interface of `ActionFormer`."""

    def __init__(self, config: TriDetConfig):
        super().__init__()
        self.config = config
        self.pyramid = Pyramid(config)
        self.pyramid.stems = nn.ModuleList(SGP(config) for _ in range(config.stems))
        self.pyramid.branches = nn.ModuleList(
            SGP(config, stride=2) for _ in range(config.levels - 1)
        )
        self.classifier = Head(
            config.dim, config.classes, -math.log((1 - config.prior) / config.prior)
        )
        self.start, self.end = Head(config.dim, 1, 0.0), Head(config.dim, 1, 0.0)
        self.offset = Head(config.dim, 2 * (config.bins + 1), 0.0)
        self.register_buffer(
            "positives", torch.tensor(40.0)
        )  # running number of positive points, the loss's M

    def forward(
        self, features: Tensor, mask: Tensor, regression_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `ActionFormer.forward`."""
        levels, other, masks = self.pyramid.both(features, regression_features, mask)
        logits, distances = self.classifier(levels, masks), []
        found = (head(other, masks) for head in (self.start, self.end, self.offset))
        for start, end, offset, m in zip(*found, masks, strict=True):
            before, after = offset.unflatten(-1, (2, -1)).unbind(2)
            left = expected_distance(start[..., 0], before, m, ahead=False)
            right = expected_distance(end[..., 0], after, m, ahead=True)
            distances.append(torch.stack([left, right], -1))
        return torch.cat(logits, 1), torch.cat(distances, 1), torch.cat(masks, 1)
