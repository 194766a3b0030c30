"""ActionFormer (ECCV 2022): a transformer pyramid over features in time, and a head that is the
same on all levels.

Shapes: features (B, T, F) with a mask (B, T); level l has T / 2^l steps. Everything masked stays
zero, so a padded sequence gives what the sequence alone gives.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class LocalizerConfig:
    """Shape of a localiser.

    Attributes:
        feature_dim: F of the input.
        classes: C.
        dim: D inside.
        heads: Of attention.
        embeds, stems, levels: Convolutions on the features, blocks at full length, levels of the
            pyramid.
        window: Steps that a step attends to at most (odd), on every level; 0 for all.
        dropout: Of paths (stochastic depth).
        prior: Initial probability of a class at a point.
    """

    feature_dim: int
    classes: int
    dim: int = 64
    heads: int = 4
    embeds: int = 2
    stems: int = 2
    levels: int = 5
    window: int = 0
    dropout: float = 0.0
    prior: float = 0.01

    def __post_init__(self):
        if self.window and self.window % 2 == 0:
            raise ValueError(f"window must be odd or 0; got {self.window}")
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads; got {self.dim} and {self.heads}")


class Conv(nn.Module):
    """Convolution over time of (B, T, D) that keeps what is masked at zero; with a stride the mask
    is thinned out.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__()
        self.conv = nn.Conv1d(dim, out, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.stride = stride
        if bias:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv((x * mask[..., None]).transpose(1, 2)).transpose(1, 2)
        mask = mask[:, :: self.stride]
        return x * mask[..., None], mask


class ConvAttention(nn.Module):
    """Self-attention whose queries, keys and values pass a depthwise convolution first; `stride`
    shortens the sequence.
    """

    def __init__(self, dim: int, heads: int, stride: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.mix = nn.ModuleList(Conv(dim, dim, 3, stride, groups=dim, bias=False) for _ in "qkv")
        self.norm = nn.ModuleList(nn.LayerNorm(dim) for _ in "qkv")
        self.project = nn.ModuleList(nn.Linear(dim, dim) for _ in "qkv")
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mixed = [conv(x, mask) for conv in self.mix]
        shorter = mixed[0][1]
        b, t, d = mixed[0][0].shape
        q, k, v = (
            project(norm(m)).view(b, t, self.heads, d // self.heads).transpose(1, 2)
            for project, norm, (m, _) in zip(self.project, self.norm, mixed, strict=True)
        )
        seen = shorter[:, None, None, :].expand(b, 1, t, t)
        if self.window:
            at = torch.arange(t, device=x.device)
            seen = seen & ((at[:, None] - at).abs() <= self.window // 2)
        seen = seen | torch.eye(
            t, dtype=torch.bool, device=x.device
        )  # a padded step sees itself, so that nothing is nan
        found = (
            scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).reshape(b, t, d)
        )
        return self.out(found) * shorter[..., None], shorter


class Block(nn.Module):
    """Pre-norm transformer block; with a stride the shortcut is max-pooled."""

    def __init__(self, config: LocalizerConfig, stride: int = 1):
        super().__init__()
        dim = config.dim
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = ConvAttention(dim, config.heads, stride, config.window)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.pool = nn.MaxPool1d(3, stride, 1) if stride > 1 else None
        self.dropout = config.dropout
        self.scale1, self.scale2 = (nn.Parameter(1e-4 * torch.ones(dim)) for _ in range(2))
        if (
            not config.dropout
        ):  # without stochastic depth nothing is gained by starting near the identity
            for scale in (self.scale1, self.scale2):
                nn.init.ones_(scale)

    def path(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropout:
            return x
        keep = torch.rand(len(x), 1, 1, device=x.device) >= self.dropout
        return x * keep / (1 - self.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found, shorter = self.attention(self.norm1(x), mask)
        if self.pool:
            x = self.pool(x.masked_fill(~mask[..., None], -torch.inf).transpose(1, 2)).transpose(
                1, 2
            )
        x = x.masked_fill(~shorter[..., None], 0) + self.path(self.scale1 * found)
        return (x + self.path(self.scale2 * self.mlp(self.norm2(x)))) * shorter[..., None], shorter


class Pyramid(nn.Module):
    """Features (B, T, F) to a list of levels (B, T / 2^l, D) and their masks."""

    def __init__(self, config: LocalizerConfig):
        super().__init__()
        self.embeds = nn.ModuleList(
            Conv(config.feature_dim if i == 0 else config.dim, config.dim, bias=False)
            for i in range(config.embeds)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim) for _ in range(config.embeds))
        self.stems = nn.ModuleList(Block(config) for _ in range(config.stems))
        self.branches = nn.ModuleList(Block(config, stride=2) for _ in range(config.levels - 1))
        self.level_norms = nn.ModuleList(nn.LayerNorm(config.dim) for _ in range(config.levels))

    def forward(self, features: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        x = features * mask[..., None]
        for conv, norm in zip(self.embeds, self.norms, strict=True):
            x, _ = conv(x, mask)
            x = norm(x).relu() * mask[..., None]
        for block in self.stems:
            x, mask = block(x, mask)
        levels, masks = [x], [mask]
        for block in self.branches:
            x, mask = block(x, mask)
            levels.append(x)
            masks.append(mask)
        return [
            norm(x) * m[..., None]
            for norm, x, m in zip(self.level_norms, levels, masks, strict=True)
        ], masks

    def both(
        self, features: Tensor, others: Tensor | None, mask: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Levels of one or two kinds of features, in one pass, and the masks; the same levels twice
        if there is one kind.
        """
        if others is None:
            levels, masks = self(features, mask)
            return levels, levels, masks
        n = len(features)
        levels, masks = self(torch.cat([features, others]), torch.cat([mask, mask]))
        return [x[:n] for x in levels], [x[n:] for x in levels], [m[:n] for m in masks]


class Head(nn.Module):
    """Two convolutions with norms and a last one, shared by all levels: a list of (B, T, D) to a
    list of (B, T, out).

    Attributes:
        together: All levels pass at once, a masked step between two keeps them apart; not for
            convolutions that reach further.
    """

    together = True

    def __init__(self, dim: int, out: int, bias: float):
        super().__init__()
        self.convs = nn.ModuleList(Conv(dim, dim, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.last = Conv(dim, out)
        nn.init.constant_(self.last.conv.bias, bias)

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        if not self.together:
            return [self._one(x, mask) for x, mask in zip(levels, masks, strict=True)]
        sizes = [n for x in levels for n in (x.shape[1], 1)][:-1]
        x = torch.cat([part for x in levels for part in (x, torch.zeros_like(x[:, :1]))][:-1], 1)
        mask = torch.cat([part for m in masks for part in (m, torch.zeros_like(m[:, :1]))][:-1], 1)
        return list(self._one(x, mask).split(sizes, 1)[::2])

    def _one(self, x: Tensor, mask: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x, _ = conv(x, mask)
            x = norm(x).relu() * mask[..., None]
        return self.last(x, mask)[0]


class ActionFormer(nn.Module):
    """Features to class logits and distances at every point.

    Distances are softplus(x + 2) instead of ActionFormer's ReLU, which leaves half of the points
    without a gradient at first; each level has its own factor, as in the paper.
    """

    def __init__(self, config: LocalizerConfig):
        super().__init__()
        self.config = config
        self.pyramid = Pyramid(config)
        self.classifier = Head(
            config.dim, config.classes, -math.log((1 - config.prior) / config.prior)
        )
        self.regressor = Head(config.dim, 2, 0.0)
        self.factors = nn.Parameter(torch.ones(config.levels))
        self.register_buffer(
            "positives", torch.tensor(40.0)
        )  # running number of positive points, the loss's M

    def forward(
        self, features: Tensor, mask: Tensor, regression_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass, or two through the same weights where the branches read different features
        (ActionVLM, Eq. 5).

        Args:
            features: (B, T, F); T a multiple of 2^(levels - 1).
            mask: (B, T) bool.
            regression_features: What the regression branch reads; the same if not given.

        Returns:
            `logits` (B, P, C), `distances` (B, P, 2) in strides, `valid` (B, P), levels after each
            other.
        """
        levels, other, masks = self.pyramid.both(features, regression_features, mask)
        logits, reach = self.classifier(levels, masks), self.regressor(other, masks)
        distances = [
            nn.functional.softplus(factor * x + 2.0)
            for factor, x in zip(self.factors, reach, strict=True)
        ]
        return torch.cat(logits, 1), torch.cat(distances, 1), torch.cat(masks, 1)
