"""EZ-CLIP (2023): CLIP frozen in both towers, temporal prompts and adapters, and a loss that asks
frames to differ.

At every block each frame gets T more tokens: learned vectors plus the frame means, which the
block's own frozen attention has related along time. An adapter follows the spatial attention, one
stands in the text branch. The motion loss 1 / (C + V + 1) of the frame embeddings falls with the
mean absolute central difference C and the variance V. Class names are matched as in ActionCLIP (KL
over the batch). Deviation: the text adapter stands behind the sentence encoder, not in its blocks.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlact.models.frames import FrameEncoder
from vlact.models.zoo import Kept, Recognizer, every
from vlact.models.zoo.actionclip import divergence
from vlact.models.zoo.aim import Adapter


def motion_loss(frames: Tensor) -> Tensor:
    """Frame embeddings (B, T, D) to a scalar in 0..1; falls as frames differ more."""
    central = (frames[:, 2:] - frames[:, :-2]).abs().mean((1, 2)) / 2
    return (1 / (central + frames.var(1, correction=0).mean(1) + 1)).mean()


class EZCLIP(Recognizer):
    """5.2 M trained parameters at full size (ViT-B/16, adapters in all blocks of CLIP's text
    tower).

    Args:
        clip: Pretrained frame encoder; frozen.
        words, base, tau: See `Recognizer`.
        motion: Weight of the motion loss.
    """

    def __init__(
        self,
        clip: FrameEncoder,
        words: dict[str, Tensor],
        base: list[str],
        tau: float,
        motion: float = 1.0,
    ):
        super().__init__(words, base, tau)
        config, self.motion = clip.config, motion
        self.clip, self.frames = clip, config.num_frames
        self.time = nn.Parameter(torch.zeros(config.num_frames, 1, config.dim))
        self.prompts = nn.Parameter(0.02 * torch.randn(config.depth, config.num_frames, config.dim))
        self.adapters, self.text = (
            nn.ModuleList(Adapter(config.dim) for _ in range(config.depth)),
            Adapter(config.text_dim),
        )

    def frozen_features(self, clips: Tensor) -> Kept:
        return {"tokens": self.clip.first(clips, 0)}

    def trained(self):
        return (
            every(self.adapters)
            + every(self.text)
            + [(p.requires_grad_(), 1.0) for p in (self.time, self.prompts)]
        )

    def frame_embeddings(self, kept: Kept) -> Tensor:
        """(B, T, D), not normalised."""
        x = kept["tokens"] + self.time
        shape, t = x.shape[:2], x.shape[1]
        for block, prompts, adapter in zip(
            self.clip.visual.transformer.resblocks, self.prompts, self.adapters, strict=True
        ):
            told = x.mean(2) + prompts
            told = told + block.attention(block.ln_1(told))
            y = torch.cat([x, told.unsqueeze(1).expand(-1, t, -1, -1)], 2).flatten(0, 1)
            found = block.attention(block.ln_1(y))
            y = (y + found + adapter(found))[:, :-t]
            x = (y + block.mlp(block.ln_2(y))).unflatten(0, shape)
        return (
            (self.clip.visual._pool(x.flatten(0, 1))[0] @ self.clip.visual.proj)
            .unflatten(0, shape)
            .float()
        )

    def embed(self, kept: Kept) -> Tensor:
        return normalize(self.frame_embeddings(kept).mean(1), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        features = torch.stack([self.words[t] for t in texts])
        return self.clip.embed_text(features + self.text(features))

    def loss(self, kept: Kept, labels: Tensor) -> Tensor:
        frames = self.frame_embeddings(kept)
        scores = (
            self.logit_scale * normalize(frames.mean(1), dim=-1) @ self.actions(self.base)[labels].T
        )
        same = labels[:, None] == labels
        return (
            divergence(scores, same) + divergence(scores.T, same)
        ) / 2 + self.motion * motion_loss(frames)
