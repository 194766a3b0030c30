"""Bottleneck residual networks over clips, as in SlowFast's code base: what C2D, I3D and SlowFast
are made of.

Convolutions are (time, height, width). A block is Tx1x1, 1x3x3, 1x1x1; the depth is that of
ResNet-50 unless scaled.
"""

import torch
from torch import Tensor, nn

DEPTHS = (3, 4, 6, 3)
MEAN, STD = 114.75, 57.375  # of pixels
MOTION_SCALE = 5.0  # brings frame differences to the spread of the frames


def thinner(channels: int, width: float) -> int:
    """Channels of a network scaled in width, a multiple of eight."""
    return max(8, round(channels * width / 8) * 8)


def shallower(depths: tuple[int, ...], depth: float) -> tuple[int, ...]:
    """Blocks of a network scaled in depth, at least one a stage."""
    return tuple(max(1, round(n * depth)) for n in depths)


def spread(clips: Tensor, frames: int) -> Tensor:
    """Evenly spaced frames of clips (B, T, H, W, 3).

    Raises:
        ValueError: More frames are wanted than there are.
    """
    have = clips.shape[1]
    if frames > have:
        raise ValueError(
            f"the model needs {frames} frames and the clips have {have}; read more frames a clip, "
            "or give the model fewer"
        )
    return clips[:, ((torch.arange(frames) + 0.5) * have / frames).long()]


def to_input(clips: Tensor, motion: bool = False, size: int | None = None) -> Tensor:
    """uint8 (B, T, H, W, 3) to (B, 3, T, H, W), standardised.

    Args:
        clips: As read.
        motion: With the differences to the frame before as three more channels.
        size: Pixels of a side to average down to, where clips are larger.
    """
    x = ((clips.float() - MEAN) / STD).permute(0, 4, 1, 2, 3)
    if size and size < clips.shape[2]:
        x = nn.functional.adaptive_avg_pool3d(x, (None, size, size))
    if not motion:
        return x
    return torch.cat([x, MOTION_SCALE * (x - torch.cat([x[:, :, :1], x[:, :, :-1]], 2))], 1)


@torch.no_grad()
def start_from_change(model: nn.Module) -> None:
    """Let half of the channels of the first convolution over time begin as differences of frames.

    Their kernels get the mean over time taken out, so that what stands still is not in them. What
    the model sees, and what it can learn, stays as it is; it is where a short training begins.

    Raises:
        ValueError: A model that has no convolution over time.
    """
    over_time = (m for m in model.modules() if isinstance(m, nn.Conv3d) and m.kernel_size[0] > 1)
    first = next(over_time, None)
    if first is None:
        raise ValueError(f"{type(model).__name__} has no convolution over time; take `change` out")
    half = first.weight[: first.out_channels // 2]
    half.copy_(MOTION_SCALE * (half - half.mean(2, keepdim=True)))


def conv(
    dim: int,
    out: int,
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int] = (1, 1, 1),
    groups: int = 1,
) -> nn.Sequential:
    """Convolution of the same extent, and its norm."""
    return nn.Sequential(
        nn.Conv3d(
            dim, out, kernel, stride, tuple(k // 2 for k in kernel), groups=groups, bias=False
        ),
        nn.BatchNorm3d(out),
    )


class Bottleneck(nn.Module):
    """One block; `time` is the kernel of its first convolution."""

    def __init__(self, dim: int, inner: int, out: int, time: int, stride: int):
        super().__init__()
        self.a = conv(dim, inner, (time, 1, 1))
        self.b = conv(inner, inner, (1, 3, 3), (1, stride, stride))
        self.c = conv(inner, out, (1, 1, 1))
        self.shortcut = (
            conv(dim, out, (1, 1, 1), (1, stride, stride))
            if dim != out or stride > 1
            else nn.Identity()
        )
        nn.init.zeros_(self.c[1].weight)  # a block starts as its shortcut

    def forward(self, x: Tensor) -> Tensor:
        return (self.shortcut(x) + self.c(self.b(self.a(x).relu()).relu())).relu()


def stage(dim: int, inner: int, depth: int, times: tuple[int, ...], stride: int) -> nn.Sequential:
    """Blocks of one resolution; the temporal kernels `times` take turns."""
    blocks = [
        Bottleneck(
            dim if i == 0 else 4 * inner,
            inner,
            4 * inner,
            times[i % len(times)],
            stride if i == 0 else 1,
        )
        for i in range(depth)
    ]
    return nn.Sequential(*blocks)


class Stem(nn.Sequential):
    """The first convolution and the pooling after it."""

    def __init__(self, out: int, time: int, motion: bool = False):
        super().__init__(
            conv(6 if motion else 3, out, (time, 7, 7), (1, 2, 2)),
            nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )


class ConvNet3D(nn.Module):
    """Clips to logits on one pathway.

    Args:
        classes: Of the head.
        times: Temporal kernels of the stem and of the four stages; several of a stage take turns.
        width, depth: Of ResNet-50, as shares.
        frames: T that a clip must have.
        dropout: Before the head.
        motion, size: See `to_input`.
    """

    def __init__(
        self,
        classes: int,
        times: tuple,
        width: float = 1.0,
        depth: float = 1.0,
        frames: int = 8,
        dropout: float = 0.5,
        motion: bool = False,
        size: int | None = None,
    ):
        super().__init__()
        self.motion, self.size, self.frames, first, depths = (
            motion,
            size,
            frames,
            thinner(64, width),
            shallower(DEPTHS, depth),
        )
        self.stem = Stem(first, times[0][0], motion)
        dims = [first, *(4 * first * 2**i for i in range(4))]
        self.stages = nn.ModuleList(
            stage(dims[i], first * 2**i, depths[i], times[i + 1], 1 if i == 0 else 2)
            for i in range(4)
        )
        self.halve = nn.MaxPool3d((2, 1, 1))  # time, after the first stage
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(dims[-1], classes)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C)."""
        x = self.stem(to_input(clips, self.motion, self.size))
        for i, blocks in enumerate(self.stages):
            x = blocks(x)
            x = self.halve(x) if i == 0 else x
        return self.head(self.dropout(x.mean((2, 3, 4))))


class Frames2D(nn.Module):
    """Frames one by one: uint8 clips (B, T, H, W, 3) to maps (B, D, T, h, w) of a 2-D ResNet.

    Args:
        width, depth: Of ResNet-50, as shares.
        motion, size: See `to_input`.
        between: Module after each of the first three stages.
    """

    def __init__(
        self,
        width: float = 1.0,
        depth: float = 1.0,
        motion: bool = False,
        between: type[nn.Module] = nn.Identity,
        size: int | None = None,
    ):
        super().__init__()
        self.motion, self.size = motion, size
        first, depths = thinner(64, width), shallower(DEPTHS, depth)
        self.stem, self.between = Stem(first, 1, motion), between()
        dims = [first, *(4 * first * 2**i for i in range(4))]
        self.dim, self.stages = (
            dims[-1],
            nn.ModuleList(
                stage(dims[i], first * 2**i, depths[i], (1,), 2 if i else 1) for i in range(4)
            ),
        )

    def forward(self, clips: Tensor) -> Tensor:
        x = self.stem(to_input(clips, self.motion, self.size))
        for i, blocks in enumerate(self.stages):
            x = blocks(x) if i == 3 else self.between(blocks(x))
        return x
