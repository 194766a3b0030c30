"""MViTv2 (CVPR 2022): a vision transformer whose later blocks have fewer tokens and more channels.

Queries, keys and values pass strided depthwise convolutions ("pooling attention"); relative
positions are added per axis; the pooled query is added to what attention found (residual pooling).
Channels double in the attention of the blocks that halve height and width. Stochastic depth is left
out.
"""

import torch
from torch import Tensor, nn

from vlact.models.convnet3d import shallower, thinner, to_input

# of the small model at 224 pixels
DEPTHS, PATCH, STRIDE, KV_STRIDE = (1, 2, 11, 2), (3, 7, 7), (2, 4, 4), 8


def key_stride(size: int) -> int:
    """Patches from one key of the first block to the next: a power of two, at most the published 8,
    so that seven or more make a side.
    """
    return 1 << max(1, min(KV_STRIDE, KV_STRIDE * size // 224)).bit_length() - 1


class Pool(nn.Module):
    """Strided depthwise convolution of the tokens of one head, (B, heads, 1 + N, D) to fewer; the
    class token passes by.
    """

    def __init__(self, dim: int, stride: int):
        super().__init__()
        self.conv = nn.Conv3d(dim, dim, 3, (1, stride, stride), 1, groups=dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, tuple[int, int, int]]:
        b, heads, _, d = x.shape
        grid = x[:, :, 1:].reshape(b * heads, *size, d).permute(0, 4, 1, 2, 3)
        grid = self.conv(grid)
        tokens = grid.flatten(2).transpose(1, 2).view(b, heads, -1, d)
        return self.norm(torch.cat([x[:, :, :1], tokens], 2)), tuple(grid.shape[2:])


def offsets(queries: int, keys: int) -> Tensor:
    """Index (queries, keys) of the relative position along one axis, whichever of the two is the
    finer grid.
    """
    fine = max(queries, keys)
    q, k = (
        torch.arange(queries)[:, None] * (fine / queries),
        torch.arange(keys)[None] * (fine / keys),
    )
    return (q - k + (keys - 1) * (fine / keys)).long()


class Attention(nn.Module):
    """Pooling attention on `grid` = (T, H, W) tokens and a class token."""

    def __init__(
        self,
        dim: int,
        out: int,
        heads: int,
        grid: tuple[int, int, int],
        q_stride: int,
        kv_stride: int,
    ):
        super().__init__()
        head, (t, h, _) = out // heads, grid
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * out), nn.Linear(out, out)
        self.pools = nn.ModuleList(Pool(head, s) for s in (q_stride, kv_stride, kv_stride))
        reach = 2 * max(-(-h // q_stride), -(-h // kv_stride)) - 1
        self.rel = nn.ParameterList(
            nn.init.trunc_normal_(torch.empty(n, head), std=0.02) for n in (2 * t - 1, reach, reach)
        )

    def forward(self, x: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, tuple[int, int, int]]:
        b, n, _ = x.shape
        parts = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        (q, q_size), (k, k_size), (v, _) = (
            pool(y, size) for pool, y in zip(self.pools, parts, strict=True)
        )
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)
        grid = q[:, :, 1:].unflatten(2, q_size)
        bias = 0
        for axis, (rel, name) in enumerate(zip(self.rel, "thw", strict=True)):
            # (Q, K, D) of this axis
            table = rel[offsets(q_size[axis], k_size[axis]).to(rel.device)]
            along = torch.einsum(f"bnthwd,{name}kd->bnthwk", grid, table)
            shape = [1, 1, 1]
            shape[axis] = k_size[axis]
            bias = bias + along.view(*along.shape[:5], *shape)
        bias = bias.flatten(5).flatten(2, 4)
        scores = torch.cat(
            [scores[:, :, :1], torch.cat([scores[:, :, 1:, :1], scores[:, :, 1:, 1:] + bias], 3)], 2
        )
        found = scores.softmax(-1) @ v
        found = torch.cat([found[:, :, :1], found[:, :, 1:] + q[:, :, 1:]], 2)
        return self.out(found.transpose(1, 2).flatten(2)), q_size


class Block(nn.Module):
    """Pre-norm block; where channels change the shortcut is a projection, where tokens do it is
    max-pooled.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        heads: int,
        grid: tuple[int, int, int],
        q_stride: int,
        kv_stride: int,
    ):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(out)
        self.attention = Attention(dim, out, heads, grid, q_stride, kv_stride)
        self.project = nn.Linear(dim, out) if dim != out else None
        self.pool = (
            nn.MaxPool3d((1, q_stride + 1, q_stride + 1), (1, q_stride, q_stride), (0, 1, 1))
            if q_stride > 1
            else None
        )
        self.mlp = nn.Sequential(nn.Linear(out, 4 * out), nn.GELU(), nn.Linear(4 * out, out))

    def forward(self, x: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, tuple[int, int, int]]:
        y = self.norm1(x)
        found, smaller = self.attention(y, size)
        short = self.project(y) if self.project else x
        if self.pool:
            grid = short[:, 1:].transpose(1, 2).unflatten(2, size)
            short = torch.cat([short[:, :1], self.pool(grid).flatten(2).transpose(1, 2)], 1)
        x = short + found
        return x + self.mlp(self.norm2(x)), smaller


class MViTv2(nn.Module):
    """34.5 M parameters at full size with 400 classes (MViTv2-S, 16 x 4).

    Args:
        classes: Of the head.
        width, depth: Of the small model, as shares.
        frames: T of a clip.
        size: Pixels of a side, to which larger clips are averaged; relative positions depend on it.
        dropout: Before the head.
        motion: See `vlact.models.convnet3d.to_input`.
        mean: Whether the head reads the mean of the patches, as Rev-MViT's does, in place of the
            class token, through which a short training from nothing learns slowly.
    """

    def __init__(
        self,
        classes: int,
        width: float = 1.0,
        depth: float = 1.0,
        frames: int = 16,
        size: int = 224,
        dropout: float = 0.5,
        motion: bool = False,
        mean: bool = False,
    ):
        super().__init__()
        self.mean = mean
        self.frames, self.size, self.motion, dim = frames, size, motion, thinner(96, width)
        self.patch = nn.Conv3d(6 if motion else 3, dim, PATCH, STRIDE, tuple(k // 2 for k in PATCH))
        self.cls = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))
        grid, kv, blocks = (
            (frames // STRIDE[0], size // STRIDE[1], size // STRIDE[2]),
            key_stride(size),
            [],
        )
        for i, n in enumerate(shallower(DEPTHS, depth)):
            for k in range(n):
                wider = 2 if i and not k else 1
                kv = max(1, kv // wider)
                blocks.append(
                    Block(dim * 2 ** max(0, i - (wider - 1)), dim * 2**i, 2**i, grid, wider, kv)
                )
                grid = (grid[0], -(-grid[1] // wider), -(-grid[2] // wider))
        self.blocks, self.norm = nn.ModuleList(blocks), nn.LayerNorm(dim * 8)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(dim * 8, classes)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C)."""
        x = self.patch(to_input(clips, self.motion, self.size))
        size = tuple(x.shape[2:])
        x = torch.cat([self.cls.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            x, size = block(x, size)
        x = self.norm(x)
        return self.head(self.dropout(x[:, 1:].mean(1) if self.mean else x[:, 0]))
