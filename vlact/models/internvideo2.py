"""InternVideo2's video tower (ECCV 2024), what ActionVLM's Table 8 sees with: features of clips for
`vlact.training.features.extract`.

A plain vision transformer over all patches of all frames: RMS norms, queries and keys normalised
over all heads together, a learned scale on each residual, and one attention that gathers the
tokens. Modules are named as in the published files, so that these load as they are; the outputs are
those of the authors' code on the same weights. Of its two GELUs, exact in its plain layers and by
tanh in the fused ones, this is the latter: its settings train with fused layers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, scaled_dot_product_attention

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in 0..1


@dataclass(frozen=True)
class InternVideo2Config:
    """Shape of the tower; that of InternVideo2-B/14 unless given."""

    image_size: int = 224
    patch_size: int = 14
    num_frames: int = 8
    dim: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    pool_heads: int = 16
    embed_dim: int = 768


class Scale(nn.Module):
    """A factor for every channel."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(1e-5 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def split(x: Tensor, heads: int) -> Tensor:
    """(B, N, D) to (B, heads, N, D / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention on tokens (B, N, D); queries and keys are normed over all heads together."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.proj = (
            heads,
            nn.Linear(dim, 3 * dim, bias=False),
            nn.Linear(dim, dim),
        )
        self.q_norm, self.k_norm = nn.RMSNorm(dim, 1e-6), nn.RMSNorm(dim, 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k, v = (split(y, self.heads) for y in (self.q_norm(q), self.k_norm(k), v))
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers on every token."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm attention and MLP on tokens (B, N, D), each residual scaled by channel."""

    def __init__(self, dim: int, heads: int, hidden: int):
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.RMSNorm(dim, 1e-6), Attention(dim, heads), Scale(dim)
        self.norm2, self.mlp, self.ls2 = nn.RMSNorm(dim, 1e-6), Mlp(dim, hidden), Scale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Gather(nn.Module):
    """One query, the mean of the tokens, attends to all of them: (B, N, D) to (B, out)."""

    def __init__(self, dim: int, heads: int, out: int):
        super().__init__()
        self.norm1_q, self.norm1_k, self.norm1_v = (nn.LayerNorm(dim) for _ in range(3))
        self.cross_attn = nn.Module()
        for name in "qkv":
            setattr(self.cross_attn, name, nn.Linear(dim, dim, bias=False))
            setattr(self.cross_attn, f"{name}_bias", nn.Parameter(torch.zeros(dim)))
        self.cross_attn.proj, self.heads = nn.Linear(dim, out), heads

    def forward(self, x: Tensor) -> Tensor:
        c, parts = self.cross_attn, []
        for name, norm, y in (
            ("q", self.norm1_q, x.mean(1, keepdim=True)),
            ("k", self.norm1_k, x),
            ("v", self.norm1_v, x),
        ):
            parts.append(
                split(
                    linear(norm(y), getattr(c, name).weight, getattr(c, f"{name}_bias")), self.heads
                )
            )
        return c.proj(scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))[:, 0]


class InternVideo2(nn.Module):
    """Clips to one feature each."""

    def __init__(self, config: InternVideo2Config):
        super().__init__()
        self.config, side = config, config.image_size // config.patch_size
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(
            3,
            config.dim,
            (1, config.patch_size, config.patch_size),
            (1, config.patch_size, config.patch_size),
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.num_frames * side**2, config.dim))
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.hidden) for _ in range(config.depth)
        )
        self.clip_projector = Gather(config.dim, config.pool_heads, config.embed_dim)

    def first(self, clips: Tensor, frozen_blocks: int) -> Tensor:
        """uint8 clips (B, T, H, W, 3) to tokens (B, 1 + T P, D) after the first blocks."""
        mean, std = (torch.tensor(x, device=clips.device) for x in (MEAN, STD))
        pixels = ((clips.float() / 255 - mean) / std).permute(0, 4, 1, 2, 3)
        x = self.patch_embed.proj(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks[:frozen_blocks]:
            x = block(x)
        return x

    def last(self, tokens: Tensor, frozen_blocks: int) -> Tensor:
        """Tokens from `first` to features (B, embed_dim)."""
        for block in self.blocks[frozen_blocks:]:
            tokens = block(tokens)
        return self.clip_projector(tokens)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 clips (B, T, H, W, 3) to features (B, embed_dim)."""
        return self.last(self.first(clips, 0), 0)


def other_frames(positions: Tensor, patches: int, num_frames: int) -> Tensor:
    """Positions (1, 1 + T P, D) for another number of frames, linear in time; the first is the
    class token's.
    """
    own = positions[:, 1:].unflatten(1, (-1, patches))
    if own.shape[1] == num_frames:
        return positions
    moved = interpolate(
        own.flatten(2).transpose(1, 2), num_frames, mode="linear", align_corners=False
    )
    return torch.cat(
        [positions[:, :1], moved.transpose(1, 2).unflatten(2, (patches, -1)).flatten(1, 2)], 1
    )
