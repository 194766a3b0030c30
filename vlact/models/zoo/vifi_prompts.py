"""ViFi-CLIP with prompts (CVPR 2023, section 3.3): frozen CLIP, learned vectors at every block of
both towers.

The encoders stay as they are; only deep prompts learn, which is why nothing of a clip but its patch
embedding can be kept. ACE's version first fine-tunes CLIP on procedural video; here CLIP has seen
frames of the tutorials, which are procedural. Deviations: prompts at all image blocks and the last
`TEXT_BLOCKS` text blocks (the paper: the first 9 of 12 of both), 4 per block in place of 16, random
in place of "a photo of a".
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlact.models.frames import FrameEncoder
from vlact.models.text import TextTower
from vlact.models.zoo import Kept, Recognizer

PROMPTS, TEXT_BLOCKS = 4, 3


class ViFiPrompts(Recognizer):
    """As `ViFi`, with prompts in place of fine-tuning; `text` must have been made with `PROMPTS`
    prompts.
    """

    def __init__(
        self,
        clip: FrameEncoder,
        text: TextTower,
        words: dict[str, Tensor],
        base: list[str],
        tau: float,
    ):
        super().__init__(words, base, tau)
        self.clip, self.text = clip.requires_grad_(False), text
        self.prompts = nn.Parameter(0.02 * torch.randn(clip.config.depth, PROMPTS, clip.config.dim))

    def frozen_features(self, clips: Tensor) -> Kept:
        return {"tokens": self.clip.first(clips, 0)}

    def trained(self):
        return [(self.prompts, 1.0), (self.text.prompts, 1.0)]

    def embed(self, kept: Kept) -> Tensor:
        tokens, visual = kept["tokens"].flatten(0, 1), self.clip.visual
        for block, prompts in zip(visual.transformer.resblocks, self.prompts, strict=True):
            prompts = prompts.to(tokens.dtype).expand(len(tokens), -1, -1)
            tokens = block(torch.cat([tokens, prompts], 1))[:, :-PROMPTS]
        frames = (visual._pool(tokens)[0] @ visual.proj).unflatten(0, kept["tokens"].shape[:2])
        return normalize(normalize(frames.float(), dim=-1).mean(1), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        return self.clip.embed_text(self.text(texts))
