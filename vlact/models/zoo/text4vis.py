"""Text4Vis (AAAI 2023): the frozen embeddings of the class names are the classifier of a video
branch.

A transformer over the frame embeddings (six blocks in the paper, two here) is added to CLIP's image
tower.
Trained: that transformer and, at a tenth of the rate as in the paper, the last blocks of the image
tower.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlact.models.frames import FrameEncoder
from vlact.models.zoo import Kept, Recognizer, every


class Temporal(nn.Module):
    """Frame embeddings (B, T, D) to the same, a residual transformer over time that starts as the
    identity.
    """

    def __init__(self, dim: int, frames: int, blocks: int = 2, heads: int = 4):
        super().__init__()
        from open_clip.transformer import Transformer

        self.position = nn.Parameter(0.02 * torch.randn(frames, dim))
        self.blocks = Transformer(dim, blocks, heads)
        for block in self.blocks.resblocks:
            nn.init.zeros_(block.attn.out_proj.weight)
            nn.init.zeros_(block.mlp.c_proj.weight)
            nn.init.zeros_(block.mlp.c_proj.bias)

    def forward(self, frames: Tensor) -> Tensor:
        position = self.position[: frames.shape[1]]
        return frames + (self.blocks(frames + position) - frames - position)


class Text4Vis(Recognizer):
    """Mean over time of the transformed frame embeddings against frozen text.

    Args:
        clip: Pretrained frame encoder; changed in place.
        words, base, tau: See `Recognizer`.
        blocks: Last blocks of the image tower to train.
    """

    def __init__(
        self, clip: FrameEncoder, words: dict[str, Tensor], base: list[str], tau: float, blocks: int
    ):
        super().__init__(words, base, tau)
        self.clip, self.frozen = clip.requires_grad_(False), clip.config.depth - blocks
        self.temporal = Temporal(clip.config.embed_dim, clip.config.num_frames)

    def frozen_features(self, clips: Tensor) -> Kept:
        return {"tokens": self.clip.first(clips, self.frozen)}

    def trained(self):
        tower = [*self.clip.visual.transformer.resblocks[self.frozen :], self.clip.visual.ln_post]
        return (
            every(self.temporal)
            + [pair for part in tower for pair in every(part, 0.1)]
            + [(self.clip.visual.proj.requires_grad_(), 0.1)]
        )

    def frames(self, kept: Kept) -> Tensor:
        """Unit frame embeddings (B, T, D) after the temporal transformer."""
        frames = normalize(self.clip.last(kept["tokens"], self.frozen).float(), dim=-1)
        return normalize(self.temporal(frames).float(), dim=-1)

    def embed(self, kept: Kept) -> Tensor:
        return normalize(self.frames(kept).mean(1), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        return self.clip.embed_text(torch.stack([self.words[t] for t in texts]))
