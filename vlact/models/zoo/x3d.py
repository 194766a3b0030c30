"""X3D (CVPR 2020): a small 2-D network expanded in time, width and depth; depthwise 3-D
convolutions, squeeze and excitation.
"""

import torch
from torch import Tensor, nn

from vlact.models.convnet3d import conv, shallower, thinner, to_input

WIDTHS, DEPTHS = (24, 48, 96, 192), (3, 5, 11, 7)


def eighths(value: float) -> int:
    """The next multiple of eight, up if the nearest one loses more than a tenth."""
    near = max(8, int(value + 4) // 8 * 8)
    return near + 8 if near < 0.9 * value else near


class Squeeze(nn.Module):
    """Channels weighted by what the whole clip has of them."""

    def __init__(self, dim: int, ratio: float = 1 / 16):
        super().__init__()
        inner = eighths(dim * ratio)
        self.gate = nn.Sequential(
            nn.Conv3d(dim, inner, 1), nn.ReLU(), nn.Conv3d(inner, dim, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3, 4), keepdim=True))


class Block(nn.Module):
    """Widen, convolve each channel in space and time, narrow."""

    def __init__(self, dim: int, out: int, stride: int, squeeze: bool):
        super().__init__()
        inner = int(2.25 * out)
        self.a, self.b = (
            conv(dim, inner, (1, 1, 1)),
            conv(inner, inner, (3, 3, 3), (1, stride, stride), groups=inner),
        )
        self.squeeze, self.c = (
            Squeeze(inner) if squeeze else nn.Identity(),
            conv(inner, out, (1, 1, 1)),
        )
        self.shortcut = (
            conv(dim, out, (1, 1, 1), (1, stride, stride))
            if dim != out or stride > 1
            else nn.Identity()
        )
        nn.init.zeros_(self.c[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.silu(self.squeeze(self.b(self.a(x).relu())))
        return (self.shortcut(x) + self.c(y)).relu()


class X3D(nn.Module):
    """3.8 M parameters at full size with 400 classes (X3D-M).

    Args:
        classes: Of the head.
        width, depth: Of X3D-M, as shares.
        frames: T of a clip.
        dropout: Before the head.
        motion, size: See `vlact.models.convnet3d.to_input`.
    """

    def __init__(
        self,
        classes: int,
        width: float = 1.0,
        depth: float = 1.0,
        frames: int = 16,
        dropout: float = 0.5,
        motion: bool = False,
        size: int | None = None,
    ):
        super().__init__()
        self.size = size
        widths, depths, last = (
            tuple(thinner(x, width) for x in WIDTHS),
            shallower(DEPTHS, depth),
            thinner(2048, width),
        )
        self.motion, self.frames, first, top = motion, frames, widths[0], int(2.25 * widths[-1])
        space = nn.Conv3d(6 if motion else 3, first, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.stem = nn.Sequential(space, conv(first, first, (5, 1, 1), groups=first), nn.ReLU())
        dims, blocks = [first, *widths], []
        for i, depth in enumerate(depths):
            blocks += [
                Block(dims[i] if k == 0 else widths[i], widths[i], 2 if k == 0 else 1, k % 2 == 0)
                for k in range(depth)
            ]
        self.blocks = nn.Sequential(*blocks, conv(widths[-1], top, (1, 1, 1)), nn.ReLU())
        self.last, self.dropout, self.head = (
            nn.Linear(top, last, bias=False),
            nn.Dropout(dropout),
            nn.Linear(last, classes),
        )

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C)."""
        x = self.blocks(self.stem(to_input(clips, self.motion, self.size))).mean((2, 3, 4))
        return self.head(self.dropout(torch.relu(self.last(x))))
