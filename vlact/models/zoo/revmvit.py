"""Rev-MViT (CVPR 2022): a multiscale vision transformer whose blocks can be run backwards, so that
training keeps no activations inside a stage.

A reversible block has two streams, y1 = x1 + F(x2) and y2 = x2 + G(y1), F pooling attention and G
an MLP; backwards, x2 = y2 - G(y1) and x1 = y1 - F(x2) are computed again where the gradient needs
them. Between stages both streams are averaged, pass an ordinary block that halves height and width
and doubles channels, and part again. Keys and values pass strided convolutions as in MViT;
positions are learned per place and per frame. The base model of the paper.
"""

import torch
from torch import Tensor, nn

from vlact.models.convnet3d import shallower, thinner, to_input
from vlact.models.zoo.mvitv2 import DEPTHS, PATCH, STRIDE, key_stride


class Pool(nn.Module):
    """Strided depthwise convolution of the tokens of one head: (B, heads, N, D) to fewer."""

    def __init__(self, dim: int, stride: int):
        super().__init__()
        self.conv = nn.Conv3d(dim, dim, 3, (1, stride, stride), 1, groups=dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, size: tuple[int, int, int]) -> Tensor:
        b, heads, _, d = x.shape
        # channels last in memory, too: convolved twice as fast
        grid = x.reshape(b * heads, *size, d).permute(0, 4, 1, 2, 3)
        return self.norm(self.conv(grid).flatten(2).transpose(1, 2)).view(b, heads, -1, d)


class Attention(nn.Module):
    """Pre-norm pooling attention, `dim` to `out` channels; queries are pooled where `q_stride` is
    more than 1.
    """

    def __init__(self, dim: int, out: int, heads: int, kv_stride: int, q_stride: int = 1):
        super().__init__()
        self.heads, self.norm, self.qkv, self.out = (
            heads,
            nn.LayerNorm(dim),
            nn.Linear(dim, 3 * out),
            nn.Linear(out, out),
        )
        self.q, self.k, self.v = (Pool(out // heads, s) for s in (q_stride, kv_stride, kv_stride))

    def forward(self, x: Tensor, size: tuple[int, int, int]) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = self.q(q, size), self.k(k, size), self.v(v, size)
        found = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(-1) @ v
        return self.out(found.transpose(1, 2).flatten(2))


def mlp(dim: int) -> nn.Sequential:
    """Pre-norm MLP, four times as wide inside."""
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
    )


class ReversibleBlock(nn.Module):
    """Streams (B, N, D), twice, to the same."""

    def __init__(self, dim: int, heads: int, kv_stride: int):
        super().__init__()
        self.f, self.g = Attention(dim, dim, heads, kv_stride), mlp(dim)

    def forward(self, x1: Tensor, x2: Tensor, size) -> tuple[Tensor, Tensor]:
        y1 = x1 + self.f(x2, size)
        return y1, x2 + self.g(y1)

    def backward_pass(
        self, y1: Tensor, y2: Tensor, d1: Tensor, d2: Tensor, size
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Outputs and their gradients to inputs and their gradients; those of the weights are added
        to `.grad`.
        """
        with torch.enable_grad():
            y1 = y1.detach().requires_grad_()
            g = self.g(y1)
            g.backward(d2)
        x2, d1 = y2 - g.detach(), d1 + y1.grad
        with torch.enable_grad():
            x2 = x2.requires_grad_()
            f = self.f(x2, size)
            f.backward(d1)
        return y1.detach() - f.detach(), x2.detach(), d1, d2 + x2.grad


class Reversible(torch.autograd.Function):
    """A run of reversible blocks that keeps its output only."""

    @staticmethod
    def forward(ctx, x1: Tensor, x2: Tensor, blocks: nn.ModuleList, size):
        for block in blocks:
            x1, x2 = block(x1, x2, size)
        ctx.blocks, ctx.size = blocks, size
        ctx.save_for_backward(x1, x2)
        return x1, x2

    @staticmethod
    def backward(ctx, d1: Tensor, d2: Tensor):
        y1, y2 = ctx.saved_tensors
        for block in reversed(ctx.blocks):
            y1, y2, d1, d2 = block.backward_pass(y1, y2, d1, d2, ctx.size)
        return d1, d2, None, None


class Between(nn.Module):
    """An ordinary block between two stages: half the height and width, twice the channels."""

    def __init__(self, dim: int, heads: int, kv_stride: int):
        super().__init__()
        self.attention, self.mlp = Attention(dim, 2 * dim, heads, kv_stride, 2), mlp(2 * dim)
        self.project, self.pool = (
            nn.Linear(dim, 2 * dim),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )

    def forward(self, x: Tensor, size) -> Tensor:
        short = (
            self.pool(self.project(x).transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2)
        )
        x = short + self.attention(x, size)
        return x + self.mlp(x)


class RevMViT(nn.Module):
    """The base model, 16 x 4.

    Args:
        classes: Of the head.
        width, depth: Of the base model, as shares.
        frames: T of a clip.
        size: Pixels of a side, to which larger clips are averaged.
        dropout: Before the head.
        motion: See `vlact.models.convnet3d.to_input`.
        reversible: False keeps all activations: the same numbers with ordinary backpropagation.
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
        reversible: bool = True,
    ):
        super().__init__()
        self.frames, self.size, self.motion, self.reversible, dim = (
            frames,
            size,
            motion,
            reversible,
            thinner(96, width),
        )
        self.patch = nn.Conv3d(6 if motion else 3, dim, PATCH, STRIDE, tuple(k // 2 for k in PATCH))
        grid, kv = (frames // STRIDE[0], size // STRIDE[1], size // STRIDE[2]), key_stride(size)
        self.place = nn.Parameter(0.02 * torch.randn(1, grid[1] * grid[2], dim))
        self.time = nn.Parameter(0.02 * torch.randn(grid[0], 1, dim))
        self.between, self.stages = nn.ModuleList(), nn.ModuleList()
        for i, n in enumerate(shallower(DEPTHS, depth)):
            if i:
                kv = max(1, kv // 2)
                self.between.append(Between(dim, 2**i, kv))
                dim *= 2
            self.stages.append(
                nn.ModuleList(ReversibleBlock(dim, 2**i, kv) for _ in range(n - bool(i)))
            )
        self.norm, self.dropout, self.head = (
            nn.LayerNorm(2 * dim),
            nn.Dropout(dropout),
            nn.Linear(2 * dim, classes),
        )

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C)."""
        x = self.patch(to_input(clips, self.motion, self.size))
        size = tuple(x.shape[2:])
        x1 = x2 = x.flatten(2).transpose(1, 2) + (self.time + self.place).flatten(0, 1)
        for i, blocks in enumerate(self.stages):
            if i:
                x1 = x2 = self.between[i - 1]((x1 + x2) / 2, size)
                size = (size[0], -(-size[1] // 2), -(-size[2] // 2))
            if self.reversible and len(blocks) and torch.is_grad_enabled():
                x1, x2 = Reversible.apply(x1, x2, blocks, size)
            else:
                for block in blocks:
                    x1, x2 = block(x1, x2, size)
        return self.head(self.dropout(self.norm(torch.cat([x1, x2], -1)).mean(1)))
