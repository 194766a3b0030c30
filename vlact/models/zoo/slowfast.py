"""SlowFast (ICCV 2019): a wide pathway on few frames and a narrow one on all, joined at every stage."""

import torch
from torch import Tensor, nn

from vlact.models.convnet3d import DEPTHS, Stem, conv, stage, to_input

SLOW, FAST = ((1,), (1,), (1,), (3,), (3,)), ((5,), (3,), (3,), (3,), (3,))


class SlowFast(nn.Module):
    """34.6 M parameters at full size with 400 classes (R50, 8 x 8).

    Args:
        classes: Of the head.
        width: Channels of the slow stem.
        depths: Blocks of the stages.
        frames: Of the fast pathway, T of a clip.
        alpha: Every how many-th frame the slow pathway sees.
        beta: The fast pathway is so many times narrower.
        fusion: Temporal kernel from fast to slow.
        dropout: Before the head.
    """

    def __init__(
        self,
        classes: int,
        width: int = 64,
        depths=DEPTHS,
        frames: int = 32,
        alpha: int = 4,
        beta: int = 8,
        fusion: int = 7,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.frames, self.alpha, thin = frames, alpha, max(1, width // beta)
        self.stems = nn.ModuleList([Stem(width, SLOW[0][0]), Stem(thin, FAST[0][0])])
        slow, fast = [width, *(4 * width * 2**i for i in range(4))], [thin, *(4 * thin * 2**i for i in range(4))]
        self.join = nn.ModuleList(conv(f, 2 * f, (fusion, 1, 1), (alpha, 1, 1)) for f in fast[:4])
        strides = (1, 2, 2, 2)
        self.slow = nn.ModuleList(stage(slow[i] + 2 * fast[i], width * 2**i, depths[i], SLOW[i + 1], strides[i]) for i in range(4))
        self.fast = nn.ModuleList(stage(fast[i], thin * 2**i, depths[i], FAST[i + 1], strides[i]) for i in range(4))
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(slow[-1] + fast[-1], classes)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C)."""
        x = to_input(clips)
        slow, fast = self.stems[0](x[:, :, :: self.alpha]), self.stems[1](x)
        for join, wide, narrow in zip(self.join, self.slow, self.fast, strict=True):
            slow, fast = wide(torch.cat([slow, join(fast).relu()], 1)), narrow(fast)
        return self.head(self.dropout(torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1)))
