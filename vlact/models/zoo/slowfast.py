"""SlowFast (ICCV 2019): a wide pathway on few frames and a narrow one on all, joined at every
stage.
"""

import torch
from torch import Tensor, nn

from vlact.models.convnet3d import DEPTHS, Stem, conv, shallower, stage, thinner, to_input

SLOW, FAST = ((1,), (1,), (1,), (3,), (3,)), ((5,), (3,), (3,), (3,), (3,))


class SlowFast(nn.Module):
    """34.6 M parameters at full size with 400 classes (R50, 8 x 8).

    Args:
        classes: Of the head.
        width, depth: Of ResNet-50, as shares.
        frames: Of the fast pathway, T of a clip.
        alpha: Every how many-th frame the slow pathway sees.
        beta: The fast pathway is so many times narrower.
        fusion: Temporal kernel from fast to slow.
        dropout: Before the head.
        motion, size: See `vlact.models.convnet3d.to_input`.
    """

    def __init__(
        self,
        classes: int,
        width: float = 1.0,
        depth: float = 1.0,
        frames: int = 32,
        alpha: int = 4,
        beta: int = 8,
        fusion: int = 7,
        dropout: float = 0.5,
        motion: bool = False,
        size: int | None = None,
    ):
        super().__init__()
        self.size = size
        wide, depths = thinner(64, width), shallower(DEPTHS, depth)
        self.motion, self.frames, self.alpha, thin = motion, frames, alpha, max(2, wide // beta)
        self.stems = nn.ModuleList([Stem(wide, SLOW[0][0], motion), Stem(thin, FAST[0][0], motion)])
        slow, fast = (
            [wide, *(4 * wide * 2**i for i in range(4))],
            [thin, *(4 * thin * 2**i for i in range(4))],
        )
        self.join = nn.ModuleList(conv(f, 2 * f, (fusion, 1, 1), (alpha, 1, 1)) for f in fast[:4])
        strides = (1, 2, 2, 2)
        self.slow = nn.ModuleList(
            stage(slow[i] + 2 * fast[i], wide * 2**i, depths[i], SLOW[i + 1], strides[i])
            for i in range(4)
        )
        self.fast = nn.ModuleList(
            stage(fast[i], thin * 2**i, depths[i], FAST[i + 1], strides[i]) for i in range(4)
        )
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(slow[-1] + fast[-1], classes)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C)."""
        x = to_input(clips, self.motion, self.size)
        slow, fast = self.stems[0](x[:, :, :: self.alpha]), self.stems[1](x)
        for join, broad, narrow in zip(self.join, self.slow, self.fast, strict=True):
            slow, fast = broad(torch.cat([slow, join(fast).relu()], 1)), narrow(fast)
        return self.head(self.dropout(torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1)))
