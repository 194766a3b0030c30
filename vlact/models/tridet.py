"""TriDet (CVPR 2023): ActionFormer's frame with convolutional blocks and a head that regresses
borders as expectations.

The pyramid mixes by SGP layers instead of attention (Eq. 1-4): an instant branch, gated by the mean
over the sequence, and a window branch of two widths. The Trident head says where an action of each
class starts and ends from how likely each of the `bins` steps before and after a point is a border
(Eq. 5-7), so distances reach `bins` strides. Its border branches send no gradient to the pyramid,
and the classification loss is weighted by IoU, see `TriDetConfig.iou_power`.

Parameters have the names and shapes of the authors' checkpoints, see
`vlact.models.localizer_checkpoints`. Padding is as in `vlact.models.actionformer`: as published,
padded steps are part of the means of gates and group norms, and a step outside counts as a border
of logit 0. Otherwise they are left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, pad

from vlact.models.actionformer import (
    HIDDEN,
    MLP,
    Backbone,
    ChannelNorm,
    LocalizerConfig,
    Neck,
    Regressor,
    classifier,
    max_over_time,
    over_time,
    path,
)

GROUPS, EPS = 16, 1e-5  # of group norms


@dataclass(frozen=True)
class SGPConfig(LocalizerConfig):
    """Shape of a localizer of SGP blocks.

    Attributes:
        kernel: Of the narrower window convolution, w, on all levels but the first, where it is 1.
        widening: The wider one's kernel is about `widening` times as wide, k.
        mlp_dim: Width of an MLP; 0 for four times `dim`.
        spread: Standard deviation of the blocks' initial convolutions; the authors' configuration
            for THUMOS14 leaves it 0, with which they stay zero.
    """

    kernel: int = 3
    widening: float = 1.5
    mlp_dim: int = 0
    spread: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        if self.dim % GROUPS or self.kernel % 2 == 0:
            raise ValueError(
                f"dim must be a multiple of {GROUPS} and kernel odd; got {self.dim} and "
                f"{self.kernel}"
            )

    @property
    def multiple(self) -> int:
        """Steps of which a whole video has a multiple, as the authors pad it."""
        return 2 ** (self.levels - 1) * max(1, self.kernel)


@dataclass(frozen=True)
class TriDetConfig(SGPConfig):
    """Shape of TriDet.

    Attributes:
        bins: Steps before and after a point that may be a border, B.
        iou_power: Power of a segment's IoU by which the loss of its class is multiplied.
    """

    bins: int = 16
    iou_power: float = 0.2


def mean_over_time(x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, T, D) to (B, 1, D); over unmasked steps only if there is a mask."""
    if mask is None:
        return x.mean(1, keepdim=True)
    return (x * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None].clamp(min=1)


class GroupNorm(nn.Module):
    """Group norm of (B, T, D) over time and the channels of a group, masked steps left out."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            x = group_norm(x.transpose(1, 2), GROUPS, self.weight, self.bias, EPS)
            return x.transpose(1, 2)
        grouped = x.unflatten(-1, (GROUPS, -1))
        mean = mean_over_time(grouped.mean(-1), mask)[..., None]
        spread = mean_over_time((grouped - mean).square().mean(-1), mask)[..., None]
        return ((grouped - mean) / (spread + EPS).sqrt()).flatten(-2) * self.weight + self.bias


class SGP(nn.Module):
    """Scalable-granularity perception block: (B, T, D) to the same, or shortened by a stride."""

    rectified = False  # whether the window branch's sum is, before its gate

    def __init__(self, config: SGPConfig, kernel: int, rate: float, stride: int = 1):
        super().__init__()
        dim, self.official, self.stride = config.dim, config.official, stride
        wide = round((kernel + 1) * config.widening)
        wide += wide % 2 == 0
        self.ln, self.gn = ChannelNorm(dim), GroupNorm(dim)
        for name, taps in (
            ("psi", kernel),
            ("fc", 1),
            ("convw", kernel),
            ("convkw", wide),
            ("global_fc", 1),
        ):
            conv = nn.Conv1d(dim, dim, taps, padding=taps // 2, groups=dim)
            nn.init.normal_(conv.weight, 0, config.spread)
            nn.init.zeros_(conv.bias)
            self.add_module(name, conv)
        self.mlp = MLP(dim, config.mlp_dim or HIDDEN * dim, 2)
        self.drop_path_out, self.drop_path_mlp = (path(dim, rate) for _ in range(2))
        self.pool = nn.MaxPool1d(3, stride, 1) if stride > 1 else None

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.pool:
            x = max_over_time(x, mask, self.pool, self.official)
            mask = mask[:, :: self.stride]
        inside = None if self.official else mask
        if inside is not None:
            x = x.masked_fill(~mask[..., None], 0)
        y = self.ln(x) if inside is None else self.ln(x) * mask[..., None]
        gate = over_time(self.global_fc, mean_over_time(y, inside)).relu()
        window = over_time(self.convw, y) + over_time(self.convkw, y)
        window = window.relu() if self.rectified else window
        mixed = over_time(self.fc, y) * gate + window * over_time(self.psi, y) + y
        x = x * mask[..., None] + self.drop_path_out(mixed)
        x = x + self.drop_path_mlp(self.mlp(self.gn(x, inside)))
        return x if inside is None else x * mask[..., None], mask


def expected_distance(
    border: Tensor, offset: Tensor, mask: Tensor, ahead: bool, outside: float = -torch.inf
) -> Tensor:
    """Distance from every step to a border as an expectation over the steps before (or ahead of)
    it, Eq. 5-7.

    Args:
        border: How likely each step is a border (.., T), logits.
        offset: What each step adds for the bins 0..bins (.., T, bins + 1), bin 0 being the step
            itself.
        mask: Valid steps (.., T).
        ahead: Look ahead, for the end; otherwise back, for the start.
        outside: Logit of a border beyond the valid steps; none is there if not given.

    Returns:
        (.., T), in steps, 0..bins.
    """
    bins = offset.shape[-1] - 1
    known = border.masked_fill(~mask, outside)
    near = pad(known, (0, bins) if ahead else (bins, 0), value=outside).unfold(-1, bins + 1, 1)
    logits = (near if ahead else near.flip(-1)) + offset
    # a padded step would have nothing to choose from
    logits = logits.masked_fill(~mask[..., None], 0)
    return logits.softmax(-1) @ torch.arange(bins + 1, dtype=offset.dtype, device=offset.device)


class TriDet(nn.Module):
    """Features to class logits and distances at every point; as `ActionFormer`, but that distances
    are those of every class, (B, P, C, 2).
    """

    def __init__(self, config: TriDetConfig):
        super().__init__()
        self.config = config
        self.backbone = Backbone(
            config,
            lambda _: SGP(config, 1, 0.0),
            lambda _: SGP(config, config.kernel, config.dropout, stride=2),
        )
        self.neck = Neck(config)
        self.cls_head = classifier(config)
        self.start_head = classifier(config, detached=True)
        self.end_head = classifier(config, detached=True)
        self.reg_head = Regressor(config, 2 * (config.bins + 1))
        # running number of positive points, the loss's M
        self.register_buffer("positives", torch.tensor(40.0))

    def forward(
        self, features: Tensor, mask: Tensor, regression_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `ActionFormer.forward`."""
        levels, other, masks = self.backbone.both(features, regression_features, mask)
        levels, other = (self.neck(x, masks) for x in (levels, other))
        logits, distances = self.cls_head(levels, masks), []
        outside = 0.0 if self.config.official else -torch.inf
        found = (head(other, masks) for head in (self.start_head, self.end_head, self.reg_head))
        for start, end, offset, m in zip(*found, masks, strict=True):
            before, after = offset.relu().unflatten(-1, (2, -1))[:, None].unbind(-2)
            m = m[:, None]
            left = expected_distance(start.transpose(1, 2), before.flip(-1), m, False, outside)
            right = expected_distance(end.transpose(1, 2), after, m, True, outside)
            distances.append(torch.stack([left, right], -1).transpose(1, 2))
        return torch.cat(logits, 1), torch.cat(distances, 1), torch.cat(masks, 1)
