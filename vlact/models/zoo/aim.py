"""AIM (ICLR 2023): CLIP's image tower stays as it is; small adapters make it look along time.

In every block the frozen spatial attention is used a second time over the frames of each position,
followed by an adapter; a second adapter follows the spatial attention, a third stands beside the
MLP. All adapters end in zeros, so that training starts from CLIP. Trained: adapters, a temporal
position, the head.
"""

import torch
from torch import Tensor, nn

from vlact.models.frames import FrameEncoder

RATIO, BESIDE = 0.25, 0.5  # width of an adapter; weight of the one beside the MLP


class Adapter(nn.Module):
    """A bottleneck that starts as zero."""

    def __init__(self, dim: int, ratio: float = RATIO):
        super().__init__()
        self.down, self.up = nn.Linear(dim, int(dim * ratio)), nn.Linear(int(dim * ratio), dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(nn.functional.gelu(self.down(x)))


class OverCLIP(nn.Module):
    """Logits from the tokens of CLIP's image tower.

    Args:
        clip: Pretrained; frozen but for what `MovingFrames.start` left open.
    """

    bf16 = True

    def __init__(self, clip: FrameEncoder):
        super().__init__()
        self.clip, self.frames = clip, clip.config.num_frames

    def pooled(self, tokens: Tensor) -> Tensor:
        """Tokens after the last block to the mean of the frames (B, D), before the projection."""
        return (
            self.clip.visual._pool(tokens.flatten(0, 1))[0].unflatten(0, tokens.shape[:2]).mean(1)
        )


class AIM(OverCLIP):
    """97 M parameters at full size, 11 M of them trained (ViT-B/16, 400 classes).

    Args:
        classes: Of the head.
        clip: Pretrained frame encoder; frozen.
        dropout: Before the head.
    """

    def __init__(self, classes: int, clip: FrameEncoder, dropout: float = 0.5):
        super().__init__(clip)
        dim, depth = clip.config.dim, clip.config.depth
        self.time = nn.Parameter(torch.zeros(self.frames, 1, dim))
        self.temporal, self.spatial, self.joint = (
            nn.ModuleList(Adapter(dim) for _ in range(depth)) for _ in range(3)
        )
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(dim, classes)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C)."""
        x = self.clip.first(clips, 0) + self.time
        b, t = x.shape[:2]
        for block, temporal, spatial, joint in zip(
            self.clip.visual.transformer.resblocks,
            self.temporal,
            self.spatial,
            self.joint,
            strict=True,
        ):
            along = block.attention(block.ln_1(x.transpose(1, 2).flatten(0, 1)))
            x = (x + temporal(along).unflatten(0, (b, -1)).transpose(1, 2)).flatten(0, 1)
            found = block.attention(block.ln_1(x))
            x = x + found + spatial(found)
            y = block.ln_2(x)
            x = (x + block.mlp(y) + BESIDE * joint(y)).unflatten(0, (b, t))
        return self.head(self.dropout(self.pooled(x)))
