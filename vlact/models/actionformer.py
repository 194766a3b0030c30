"""ActionFormer (ECCV 2022): a transformer pyramid over features in time, and heads that are the
same on all levels.

Shapes: features (B, T, F) with a mask (B, T), True where a step is; level l has T / 2^l steps.
Parameters have the names and shapes of the authors' checkpoints, see
`vlact.models.localizer_checkpoints`.

What is padded, see `LocalizerConfig.official`. As published, a padded step is zero where a
convolution or a block gives it out, but norms after that give it their bias, which the next
convolution sees over the border; what is attended to and what is given out is never padded.
Otherwise padded steps are zero everywhere, and a padded sequence gives what the sequence alone
gives.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    conv2d,
    gelu,
    layer_norm,
    linear,
    pad,
    scaled_dot_product_attention,
    softplus,
)

ROWS = 16  # images from which on torch gives a convolution of one step to oneDNN on one thread
MOST_TAPS = 5  # with more, shifted products are slower than a convolution
BLOCK = 32  # steps that share their keys in local attention
HIDDEN = 4  # width of an MLP, as a multiple of D
EPS, OPENTAD_EPS = 1e-5, 1e-6  # of norms
WAVELENGTH = 10000  # longest of sinusoidal positions, over 2 pi, in steps


@dataclass(frozen=True)
class LocalizerConfig:
    """Shape of a localizer.

    Attributes:
        feature_dim: F of the input.
        classes: C.
        dim: D inside.
        heads: Of attention.
        embeds, stems, levels: Convolutions on the features, blocks at full length, levels of the
            pyramid.
        window: Steps that a step attends to at most (odd), on every level or by level; 0 for all.
        dropout: Of paths (stochastic depth).
        prior: Initial probability of a class at a point.
        head_dim: D inside the heads; 0 for `dim`.
        positions: Steps for which sinusoidal positions are made, which longer sequences stretch;
            0 for no positions.
        ranges: Distances that each level regresses, in steps; those of
            `vlact.losses.localization.ranges_of` if not given.
        official: Padding and distances as the authors' code has them, for their checkpoints.
            Otherwise padding changes nothing and distances are softplus(x + 2) in place of ReLU,
            which leaves half of the points without a gradient at first.
        opentad: With `official`, as OpenTAD has it, where it is not as in ActionFormer's own code:
            padded steps are zero after the norms of convolutions, whose epsilon is 1e-6.
    """

    feature_dim: int
    classes: int
    dim: int = 64
    heads: int = 4
    embeds: int = 2
    stems: int = 2
    levels: int = 5
    window: int | tuple[int, ...] = 0
    dropout: float = 0.0
    prior: float = 0.01
    head_dim: int = 0
    positions: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    official: bool = False
    opentad: bool = False

    def __post_init__(self):
        if isinstance(self.window, list):  # from json
            object.__setattr__(self, "window", tuple(self.window))
        object.__setattr__(self, "ranges", tuple(map(tuple, self.ranges)))
        if self.ranges and len(self.ranges) != self.levels:
            raise ValueError(
                f"ranges must name each of {self.levels} levels; got {len(self.ranges)}"
            )
        if any(w < 0 or w and w % 2 == 0 for w in self.windows):
            raise ValueError(f"window must be odd or 0; got {self.window}")
        if len(self.windows) != self.levels:
            raise ValueError(
                f"window must be a number or one for each of {self.levels} levels; got "
                f"{len(self.windows)}"
            )
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads; got {self.dim} and {self.heads}")

    @property
    def windows(self) -> tuple[int, ...]:
        """Of every level."""
        return self.window if isinstance(self.window, tuple) else (self.window,) * self.levels

    @property
    def multiple(self) -> int:
        """Steps of which a whole video has a multiple, as the authors pad it."""
        return max(2**i * (w // 2 * 2 if w > 1 else 1) for i, w in enumerate(self.windows))

    @property
    def by_class(self) -> bool:
        """Whether a point of several classes is regressed once for each, see
        `vlact.losses.localization.detection_loss`.
        """
        return False

    @property
    def biased(self) -> bool:
        """Whether padded steps keep the bias of the norm after a convolution."""
        return self.official and not self.opentad

    @property
    def eps(self) -> float:
        """Of norms after convolutions and after the pyramid."""
        return OPENTAD_EPS if self.opentad else EPS


class Pointwise(nn.Conv1d):
    """A linear map of (.., T, D), kept as a convolution of one step."""

    def __init__(self, dim: int, out: int):
        super().__init__(dim, out, 1)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x[..., 0].numel()
        if x.device.type != "cpu" or rows % ROWS:
            return linear(x, self.weight[..., 0], self.bias)
        # oneDNN's convolution takes half the time of a CPU's matrix product, for sixteen or more
        parts = x.reshape(ROWS, rows // ROWS, 1, -1).permute(0, 3, 1, 2)
        found = conv2d(parts, self.weight[..., None], self.bias)
        return found.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class ChannelNorm(nn.Module):
    """LayerNorm of (.., T, D) over D."""

    def __init__(self, dim: int, eps: float = EPS):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dim, 1))
        self.bias = nn.Parameter(torch.zeros(1, dim, 1))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.weight[0, :, 0], self.bias[0, :, 0], self.eps)


class Conv(nn.Module):
    """Convolution over time of (B, T, D); what is masked of its output is zero. With a stride the
    mask is thinned out.
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
        mask = mask[:, :: self.stride]
        return over_time(self.conv, x) * mask[..., None], mask


def over_time(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution on (B, T, D), with whatever stands in padded steps."""
    one_by_one = conv.groups == conv.in_channels == conv.out_channels
    if not one_by_one or conv.kernel_size[0] > MOST_TAPS:
        return conv(x.transpose(1, 2)).transpose(1, 2)
    # One channel at a time is a sum of shifted products, which is faster where channels come last
    reach, stride = conv.kernel_size[0] // 2, conv.stride[0]
    steps, padded = x.shape[1], pad(x, (0, 0, reach, reach))
    taps = conv.weight[:, 0].T
    out = sum(padded[:, i : i + steps : stride] * tap for i, tap in enumerate(taps))
    return out if conv.bias is None else out + conv.bias


def max_over_time(x: Tensor, mask: Tensor, pool: nn.MaxPool1d, official: bool) -> Tensor:
    """The shortcut past a stride; padded steps do not count, or as published count as they are."""
    if not official:
        x = x.masked_fill(~mask[..., None], -torch.inf)
    return pool(x.transpose(1, 2)).transpose(1, 2)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, window: int = 0) -> Tensor:
    """Attention over all steps, or those at most window // 2 away, with a T x T mask.

    Args:
        q, k, v: (B, T, heads, d).
        mask: (B, T); padded steps are attended to by nobody but themselves.
        window: Odd, or 0 for all steps.

    Returns:
        (B, T, heads, d).
    """
    steps = q.shape[1]
    seen = mask[:, None, None, :].expand(-1, 1, steps, steps)
    at = torch.arange(steps, device=q.device)
    if window:
        seen = seen & ((at[:, None] - at).abs() <= window // 2)
    seen = seen | (at[:, None] == at)  # a padded step sees itself, so that nothing is nan
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, window: int, block: int = BLOCK
) -> Tensor:
    """What `dense_attention` gives with a window, in time and memory linear in T.

    A block of steps attends to itself and the neighbours in reach on both sides.
    """
    half, steps = window // 2, q.shape[1]
    size = max(min(block, steps), half)
    blocks = -(-steps // size)
    rest = blocks * size - steps

    def around(x: Tensor) -> Tensor:
        """(B, T, ..) to each block with its neighbours, (B, blocks, half + size + half, ..)."""
        ends = (0, 0) * (x.ndim - 2)
        x = pad(x, (*ends, size, size + rest)).unflatten(1, (blocks + 2, size))
        return torch.cat([x[:, :-2, size - half :], x[:, 1:-1], x[:, 2:, :half]], 2)

    q = pad(q, (0, 0, 0, 0, 0, rest)).unflatten(1, (blocks, size))
    k, v = around(k), around(v)
    apart = (
        torch.arange(size + 2 * half, device=q.device)
        - torch.arange(size, device=q.device)[:, None]
    )
    near = (apart >= 0) & (apart <= 2 * half)
    # A padded step sees itself, so that nothing is nan
    seen = (near & around(mask)[:, :, None, :]) | (apart == half)
    score = torch.einsum("bnqhd,bnkhd->bnhqk", q * q.shape[-1] ** -0.5, k)
    share = score.masked_fill(~seen[:, :, None], -torch.inf).softmax(-1)
    return torch.einsum("bnhqk,bnkhd->bnqhd", share, v).flatten(1, 2)[:, :steps]


class ConvAttention(nn.Module):
    """Self-attention whose queries, keys and values pass a depthwise convolution first; `stride`
    shortens the sequence.
    """

    def __init__(self, dim: int, heads: int, stride: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        for name in ("query", "key", "value"):
            conv = Conv(dim, dim, 3, stride, groups=dim, bias=False)
            self.add_module(f"{name}_conv", conv)
            self.add_module(f"{name}_norm", ChannelNorm(dim))
            self.add_module(name, Pointwise(dim, dim))
        self.proj = Pointwise(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (self._one(name, x, mask) for name in ("query", "key", "value"))
        mask = mask[:, :: self.query_conv.stride]
        if self.window > 1 and self.window < q.shape[1]:
            found = local_attention(q, k, v, mask, self.window)
        else:
            found = dense_attention(q, k, v, mask, self.window)
        return self.proj(found.flatten(2)) * mask[..., None], mask

    def _one(self, name: str, x: Tensor, mask: Tensor) -> Tensor:
        conv, norm, project = (getattr(self, name + part) for part in ("_conv", "_norm", ""))
        return project(norm(conv(x, mask)[0])).unflatten(-1, (self.heads, -1))


class Scaled(nn.Module):
    """A path that starts near nothing and is dropped for some sequences (stochastic depth)."""

    def __init__(self, dim: int, rate: float, start: float = 1e-4):
        super().__init__()
        self.scale, self.rate = nn.Parameter(start * torch.ones(1, dim, 1)), rate

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale[0, :, 0]
        if not self.training:
            return x
        keep = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


def path(dim: int, rate: float) -> nn.Module:
    """`Scaled`, or nothing where no path is dropped."""
    return Scaled(dim, rate) if rate else nn.Identity()


class MLP(nn.ModuleDict):
    """Two maps with a GELU between, under the numbers that they have in the authors' sequences."""

    def __init__(self, dim: int, inside: int, last: int):
        super().__init__({"0": Pointwise(dim, inside), str(last): Pointwise(inside, dim)})
        self.last = str(last)

    def forward(self, x: Tensor) -> Tensor:
        return self[self.last](gelu(self["0"](x)))


class Block(nn.Module):
    """Pre-norm transformer block; with a stride the shortcut is max-pooled."""

    def __init__(self, config: LocalizerConfig, window: int, stride: int = 1):
        super().__init__()
        dim, self.official = config.dim, config.official
        self.ln1, self.ln2 = ChannelNorm(dim), ChannelNorm(dim)
        self.attn = ConvAttention(dim, config.heads, stride, window)
        self.mlp = MLP(dim, HIDDEN * dim, 3)
        self.drop_path_attn, self.drop_path_mlp = (path(dim, config.dropout) for _ in range(2))
        self.pool = nn.MaxPool1d(3, stride, 1) if stride > 1 else None

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y = self.ln1(x)
        found, shorter = self.attn(y if self.official else y * mask[..., None], mask)
        if self.pool:
            x = max_over_time(x, mask, self.pool, self.official)
        x = x.masked_fill(~shorter[..., None], 0) + self.drop_path_attn(found)
        return x + self.drop_path_mlp(self.mlp(self.ln2(x)) * shorter[..., None]), shorter


def sinusoids(steps: int, dim: int) -> Tensor:
    """Positions (steps, dim): sine and cosine by turns."""
    rate = WAVELENGTH ** (-2 * (torch.arange(dim, dtype=torch.float64) // 2) / dim)
    angle = torch.arange(steps, dtype=torch.float64)[:, None] * rate
    angle[:, 0::2], angle[:, 1::2] = angle[:, 0::2].sin(), angle[:, 1::2].cos()
    return angle.float()


class Backbone(nn.Module):
    """Features (B, T, F) to a list of levels (B, T / 2^l, D) and their masks.

    Args:
        config: Shape.
        stem: Level to a block at full length.
        branch: Level to a block that halves the length.
    """

    def __init__(self, config: LocalizerConfig, stem, branch):
        super().__init__()
        dim, self.official, self.biased = config.dim, config.official, config.biased
        self.embd = nn.ModuleList(
            Conv(config.feature_dim if i == 0 else dim, dim, bias=False)
            for i in range(config.embeds)
        )
        self.embd_norm = nn.ModuleList(ChannelNorm(dim, config.eps) for _ in range(config.embeds))
        self.stem = nn.ModuleList(stem(0) for _ in range(config.stems))
        self.branch = nn.ModuleList(branch(level) for level in range(1, config.levels))
        if config.positions:
            places = sinusoids(config.positions, dim) / dim**0.5
            self.register_buffer("places", places, persistent=False)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        x = features if self.official else features * mask[..., None]
        for conv, norm in zip(self.embd, self.embd_norm, strict=True):
            x = norm(conv(x, mask)[0]).relu()
            x = x if self.biased else x * mask[..., None]
        if hasattr(self, "places"):
            x = x + self._places(x.shape[1]) * mask[..., None]
        for block in self.stem:
            x, mask = block(x, mask)
        levels, masks = [x], [mask]
        for block in self.branch:
            x, mask = block(x, mask)
            levels.append(x)
            masks.append(mask)
        return levels, masks

    def _places(self, steps: int) -> Tensor:
        """Positions of so many steps; stretched where there are more than were made, at test."""
        if steps <= len(self.places):
            return self.places[:steps]
        if self.training:
            raise ValueError(
                f"positions are made for {len(self.places)} steps; got {steps} in training"
            )
        long = nn.functional.interpolate(self.places.T[None], steps, mode="linear")
        return long[0].T

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


class Neck(nn.Module):
    """A norm for every level."""

    def __init__(self, config: LocalizerConfig):
        super().__init__()
        self.official = config.official
        self.fpn_norms = nn.ModuleList(
            ChannelNorm(config.dim, config.eps) for _ in range(config.levels)
        )

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        found = [norm(x) for norm, x in zip(self.fpn_norms, levels, strict=True)]
        if self.official:
            return found
        return [x * m[..., None] for x, m in zip(found, masks, strict=True)]


class Head(nn.Module):
    """Two convolutions with norms and a last one, shared by all levels: a list of (B, T, D) to a
    list of (B, T, out).

    All levels pass at once; steps that are always zero stand between two, as at an end, so many as
    convolutions reach.

    Args:
        config: Shape.
        out: Of the last convolution.
        last: Its name.
        bias: Its initial bias.
        detached: Whether what comes before learns nothing from here.
    """

    reach = 1

    def __init__(
        self,
        config: LocalizerConfig,
        out: int,
        last: str,
        bias: float = 0.0,
        detached: bool = False,
    ):
        super().__init__()
        inside = config.head_dim or config.dim
        self.biased, self.detached, self.last = config.biased, detached, last
        self.head = nn.ModuleList(
            Conv(config.dim if i == 0 else inside, inside, bias=False) for i in range(2)
        )
        self.norm = nn.ModuleList(ChannelNorm(inside, config.eps) for _ in range(2))
        self.add_module(last, Conv(inside, out))
        nn.init.constant_(getattr(self, last).conv.bias, bias)

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        gap = self.reach
        sizes = [n for x in levels for n in (x.shape[1], gap)][:-1]

        def join(parts: list[Tensor], between: Tensor) -> Tensor:
            return torch.cat([p for x in parts for p in (x, between)][:-1], 1)

        x = join(levels, torch.zeros_like(levels[0][:, :gap]))
        mask = join(masks, masks[0][:, :gap] & False)
        # As published norms' biases stay in padded steps, but not in what stands between
        kept = join([m | True for m in masks], masks[0][:, :gap] & False) if self.biased else mask
        x = x.detach() if self.detached else x
        for conv, norm in zip(self.head, self.norm, strict=True):
            x = norm(conv(x, mask)[0]).relu() * kept[..., None]
        return list(getattr(self, self.last)(x, mask)[0].split(sizes, 1)[::2])


class Factor(nn.Module):
    """A number that is learnt."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class Regressor(Head):
    """A head with a factor for every level."""

    def __init__(self, config: LocalizerConfig, out: int):
        super().__init__(config, out, "offset_head")
        self.scale = nn.ModuleList(Factor() for _ in range(config.levels))

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        found = super().forward(levels, masks)
        return [x * factor.scale for factor, x in zip(self.scale, found, strict=True)]


def classifier(config: LocalizerConfig, detached: bool = False) -> Head:
    """A head that says how likely each class is."""
    bias = -math.log((1 - config.prior) / config.prior)
    return Head(config, config.classes, "cls_head", bias, detached)


class ActionFormer(nn.Module):
    """Features to class logits and distances at every point.

    Distances are ReLU as published, or softplus, see `LocalizerConfig.official`; each level has its
    own factor, as in the paper.
    """

    def __init__(self, config: LocalizerConfig):
        super().__init__()
        self.config = config
        self.backbone = self.pyramid(config)
        self.neck = Neck(config)
        self.cls_head, self.reg_head = classifier(config), Regressor(config, 2)
        # running number of positive points, the loss's M
        self.register_buffer("positives", torch.tensor(40.0))

    @staticmethod
    def pyramid(config: LocalizerConfig) -> Backbone:
        """Transformer blocks."""
        at = config.windows
        return Backbone(
            config, lambda i: Block(config, at[i]), lambda i: Block(config, at[i], stride=2)
        )

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
        levels, other, masks = self.backbone.both(features, regression_features, mask)
        levels, other = (self.neck(x, masks) for x in (levels, other))
        logits, reach = self.cls_head(levels, masks), torch.cat(self.reg_head(other, masks), 1)
        distances = reach.relu() if self.config.official else softplus(reach + 2.0)
        return torch.cat(logits, 1), distances, torch.cat(masks, 1)
