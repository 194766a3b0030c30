"""AdaTAD (CVPR 2024): end-to-end localization through a frozen video encoder with small temporal
adapters, and ActionFormer on what it sees.

An adapter after every block narrows the tokens, mixes each patch position over time, and adds the
result (Eq. 2-3); it starts as the identity. The encoder sees a window in clips that do not overlap;
adapters mix over the whole window. Only adapters and localizer are trained. Without adapters it is
the frozen control.

`AdaTAD` is its authors' network: VideoMAE, and files of OpenTAD load into it, see
`vlact.models.localizer_checkpoints`. `EndToEnd` puts the same adapters into a `DualEncoder`.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, linear, pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from vlact.models.actionformer import ActionFormer, LocalizerConfig, sinusoids
from vlact.models.dual import DualEncoder

TAPS = 3  # of an adapter's convolution over time
SPREAD = 0.02  # of the initial weights that narrow
LN_EPS = 1e-6  # of VideoMAE's norms
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of pixels, red, green, blue


class Adapter(nn.Module):
    """Tokens (B, T, P, D) of T steps in time at P positions to the same.

    Args:
        dim: D.
        ratio: Width inside, as a share of D.
    """

    def __init__(self, dim: int, ratio: float = 0.25):
        super().__init__()
        inside = max(1, int(dim * ratio))
        self.dwconv = nn.Conv1d(inside, inside, TAPS, padding=TAPS // 2, groups=inside)
        self.conv = nn.Conv1d(inside, inside, 1)
        self.down_proj, self.up_proj = nn.Linear(dim, inside), nn.Linear(inside, dim)
        self.gamma = nn.Parameter(torch.ones(1))
        nn.init.normal_(self.dwconv.weight, std=math.sqrt(2 / TAPS))
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / inside))
        nn.init.trunc_normal_(self.down_proj.weight, std=SPREAD)
        nn.init.zeros_(self.up_proj.weight)
        for layer in (self.dwconv, self.conv, self.down_proj, self.up_proj):
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        y = gelu(self.down_proj(tokens))
        steps, around = y.shape[1], pad(y, (0, 0, 0, 0, TAPS // 2, TAPS // 2))
        # One channel at a time is a sum of shifted products
        taps = self.dwconv.weight[:, 0].T
        mixed = sum(around[:, i : i + steps] * tap for i, tap in enumerate(taps))
        mixed = linear(mixed + self.dwconv.bias, self.conv.weight[..., 0], self.conv.bias)
        return tokens + self.gamma * self.up_proj(y + mixed)

    def alone(self, tokens: Tensor) -> Tensor:
        """What `forward` does without time: for a class token, (.., D)."""
        return tokens + self.gamma * self.up_proj(gelu(self.down_proj(tokens)))


@dataclass(frozen=True)
class TowerConfig:
    """Shape of VideoMAE with adapters.

    Attributes:
        dim, depth, heads: D, blocks, heads.
        mlp_ratio: Width of an MLP, as a multiple of D.
        patch, tubelet: Pixels and frames of a token.
        num_frames: Of a clip.
        image_size: Pixels for which positions are made, stretched to those that come.
        dropout: Of paths in the last block; rises from 0 in the first.
        adapted: Whether blocks have adapters; the frozen control has none.
        ratio: See `Adapter`.
    """

    dim: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    patch: int = 16
    tubelet: int = 2
    num_frames: int = 16
    image_size: int = 224
    dropout: float = 0.1
    adapted: bool = True
    ratio: float = 0.25


@dataclass(frozen=True)
class AdaTADConfig:
    """Shape of `AdaTAD`: of its tower, of its localizer, and how many frames a step has."""

    localizer: LocalizerConfig
    tower: TowerConfig = field(default_factory=TowerConfig)
    scale: int = 1


class Attention(nn.Module):
    """Self-attention of (B, N, D) whose keys have no bias."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(dim)) for _ in range(2))
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear maps with a GELU between."""

    def __init__(self, dim: int, inside: int):
        super().__init__()
        first = nn.Sequential(nn.Linear(dim, inside), nn.GELU())
        self.layers = nn.Sequential(first, nn.Linear(inside, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Block(nn.Module):
    """VideoMAE's block on clips (B, N, D), and an adapter over the windows that they make up."""

    def __init__(self, config: TowerConfig, rate: float):
        super().__init__()
        self.rate, dim = rate, config.dim
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=LN_EPS) for _ in range(2))
        self.attn = Attention(dim, config.heads)
        self.mlp = FeedForward(dim, int(dim * config.mlp_ratio))
        self.adapter = Adapter(dim, config.ratio) if config.adapted else None

    def forward(self, x: Tensor, steps: int, positions: int) -> Tensor:
        """`steps`: T of a window. `positions`: P of a step."""
        x = x + self.kept(self.attn(self.norm1(x)))
        x = x + self.kept(self.mlp(self.norm2(x)))
        if self.adapter is None:
            return x
        return self.adapter(x.reshape(-1, steps, positions, x.shape[-1])).reshape(x.shape)

    def kept(self, x: Tensor) -> Tensor:
        """The path, dropped for some clips in training."""
        if not self.training or not self.rate:
            return x
        return x * (torch.rand(len(x), 1, 1, device=x.device) >= self.rate) / (1 - self.rate)


class Cubes(nn.Module):
    """Pixels to tokens."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        size = (config.tubelet, config.patch, config.patch)
        self.projection = nn.Conv3d(3, config.dim, size, size)


class Tower(nn.Module):
    """VideoMAE with adapters: frames of windows to their features.

    Parameters have the names and shapes of OpenTAD's files.
    """

    def __init__(self, config: TowerConfig, save_memory: bool = False):
        super().__init__()
        self.config, self.save_memory = config, save_memory
        self.patch_embed = Cubes(config)
        self.side = config.image_size // config.patch
        places = sinusoids(config.num_frames // config.tubelet * self.side**2, config.dim)
        self.register_buffer("pos_embed", places[None])
        last = max(1, config.depth - 1)
        self.blocks = nn.ModuleList(
            Block(config, config.dropout * i / last) for i in range(config.depth)
        )
        self.fc_norm = nn.LayerNorm(config.dim, eps=LN_EPS)  # in the files, and not used here
        self.register_buffer("mean", torch.tensor(MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(STD), persistent=False)

    def places(self, rows: int, columns: int) -> Tensor:
        """Positions (1, N, D) for so many patches."""
        if (rows, columns) == (self.side, self.side):
            return self.pos_embed
        table = self.pos_embed.unflatten(1, (-1, self.side, self.side))[0].permute(0, 3, 1, 2)
        table = interpolate(table, (rows, columns), mode="bicubic", align_corners=False)
        return table.permute(0, 2, 3, 1).reshape(1, -1, table.shape[1])

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 frames (B, F, H, W, 3) to (B, F / tubelet, D), means over positions.

        Raises:
            ValueError: F is no multiple of a clip's frames, or H or W less than a patch.
        """
        clip, (b, f, height, width, _) = self.config.num_frames, frames.shape
        if f % clip:
            raise ValueError(f"frames must be a multiple of the encoder's {clip}; got {f}")
        rows, columns = height // self.config.patch, width // self.config.patch
        if not rows * columns:
            raise ValueError(
                f"frames must have at least {self.config.patch} pixels a side; got {height} x "
                f"{width}"
            )
        x = (frames.to(self.mean.dtype) - self.mean) / self.std
        x = x.unflatten(1, (-1, clip)).flatten(0, 1).permute(0, 4, 1, 2, 3)
        x = self.patch_embed.projection(x).flatten(2).transpose(1, 2) + self.places(rows, columns)
        given = f // self.config.tubelet, rows * columns
        for block in self.blocks:
            if self.save_memory and self.training:
                x = checkpoint(block, x, *given, use_reentrant=False)
            else:
                x = block(x, *given)
        return x.reshape(b, *given, -1).mean(2)


class AdaTAD(nn.Module):
    """Frames to class logits and distances at every point.

    Args:
        config: Shape.
        save_memory: See `EndToEnd`.
    """

    def __init__(self, config: AdaTADConfig, save_memory: bool = False):
        super().__init__()
        self.shape, self.tower = config, Tower(config.tower, save_memory)
        self.localizer = ActionFormer(config.localizer)
        for name, weight in self.tower.named_parameters():
            weight.requires_grad_(".adapter." in name)

    @property
    def config(self) -> LocalizerConfig:
        """Of the localizer."""
        return self.localizer.config

    @property
    def positives(self) -> Tensor:
        """Of the localizer."""
        return self.localizer.positives

    def features(self, frames: Tensor) -> Tensor:
        """uint8 frames (B, F, H, W, 3) to features (B, F / scale, D)."""
        seen, steps = self.tower(frames), frames.shape[1] // self.shape.scale
        if seen.shape[1] == steps:
            return seen
        # a token's frames lie between two tokens' middles
        return interpolate(seen.transpose(1, 2), steps, mode="linear").transpose(1, 2)

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames, those of each step (B, T, scale, H, W, 3), and valid steps (B, T) to what the
        localizer returns. Frames of padded steps reach features next to them, as published.
        """
        seen = self.features(frames.flatten(1, 2))  # of half precision under autocast
        return self.localizer(seen.to(self.positives.dtype), mask)


class EndToEnd(nn.Module):
    """Frames to what a localizer says of them, through a `DualEncoder`.

    Args:
        encoder: Pretrained; frozen here.
        localizer: `ActionFormer` or `TriDet` on `encoder.config.dim` features.
        stride: Frames from one feature to the next.
        ratio: See `Adapter`.
        save_memory: Compute each block's activations again in the backward pass instead of keeping
            them.
        adapted: Whether there are adapters; the frozen control has none.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        localizer: nn.Module,
        stride: int = 1,
        ratio: float = 0.25,
        save_memory: bool = False,
        adapted: bool = True,
    ):
        super().__init__()
        self.encoder, self.localizer = encoder.requires_grad_(False), localizer
        self.stride, self.save_memory = stride, save_memory
        blocks = encoder.config.depth if adapted else 0
        self.adapters = nn.ModuleList(Adapter(encoder.config.dim, ratio) for _ in range(blocks))

    @property
    def config(self):
        """Of the localizer."""
        return self.localizer.config

    @property
    def positives(self) -> Tensor:
        """Of the localizer."""
        return self.localizer.positives

    def train(self, mode: bool = True) -> "EndToEnd":
        super().train(mode)
        self.encoder.eval()  # frozen: no dropout, no running statistics
        return self

    def features(self, frames: Tensor) -> Tensor:
        """uint8 frames (B, F, H, W, 3) to features (B, F / stride, D); a feature is the mean of a
        frame's tokens.

        Raises:
            ValueError: F is no multiple of the encoder's frames.
        """
        clip, windows = self.encoder.config.num_frames, len(frames)
        if frames.shape[1] % clip:
            raise ValueError(
                f"frames must be a multiple of the encoder's {clip}; got {frames.shape[1]}"
            )
        tokens = self.encoder.first(frames.unflatten(1, (-1, clip)).flatten(0, 1), 0)
        tokens = self.through(tokens, windows, clip)
        tokens = self.encoder.trunk.layernorm(tokens)[:, 1:].unflatten(1, (-1, clip)).mean(1)
        return tokens.unflatten(0, (windows, -1)).flatten(1, 2)[:, :: self.stride]

    def through(self, tokens: Tensor, windows: int, clip: int) -> Tensor:
        """The encoder's blocks: tokens (B, 1 + P clip, D) of all clips of so many windows."""
        for i, layer in enumerate(self.encoder.trunk.encoder.layer):

            def block(x: Tensor, layer=layer, i=i) -> Tensor:
                x = layer(x)[0]
                return self._adapted(x, self.adapters[i], windows, clip) if self.adapters else x

            if self.save_memory and self.training:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return tokens

    @staticmethod
    def _adapted(tokens: Tensor, adapter: Adapter, windows: int, clip: int) -> Tensor:
        """An adapter on clips (B, 1 + P clip, D), a class token first, then positions outside and
        frames inside.
        """
        first, rest = tokens[:, :1], tokens[:, 1:].unflatten(1, (-1, clip)).transpose(1, 2)
        whole = rest.unflatten(0, (windows, -1)).flatten(1, 2)  # (windows, all frames, P, D)
        rest = adapter(whole).unflatten(1, (-1, clip)).flatten(0, 1).transpose(1, 2).flatten(1, 2)
        return torch.cat([adapter.alone(first), rest], 1)

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames, those of each step (B, T, stride, H, W, 3), and valid steps (B, T) to what the
        localizer returns.
        """
        return self.localizer(self.features(frames.flatten(1, 2)).float(), mask)
