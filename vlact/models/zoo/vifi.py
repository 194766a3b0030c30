"""ViFi-CLIP (CVPR 2023), fine-tuned: CLIP on every frame, the mean of the frame embeddings, nothing
new.

Trained: both encoders, as deep as `blocks` and `text_blocks` say (the paper: all of both), and the
text projection. Deviation: SGD on the common grid instead of AdamW at 2e-6; no mixup, no label
smoothing.
"""

from torch import Tensor
from torch.nn.functional import normalize

from vlact.models.frames import FrameEncoder
from vlact.models.text import TextTower
from vlact.models.zoo import Kept, Recognizer, every


class ViFi(Recognizer):
    """Cosine of the mean frame embedding and the label.

    Args:
        clip: Pretrained frame encoder; changed in place.
        text: The last blocks of the text trunk, trainable.
        words, base, tau: See `Recognizer`.
        blocks: Last blocks of the image tower to train.
    """

    def __init__(
        self,
        clip: FrameEncoder,
        text: TextTower,
        words: dict[str, Tensor],
        base: list[str],
        tau: float,
        blocks: int,
    ):
        super().__init__(words, base, tau)
        self.clip, self.text, self.frozen = (
            clip.requires_grad_(False),
            text,
            clip.config.depth - blocks,
        )

    def frozen_features(self, clips: Tensor) -> Kept:
        return {"tokens": self.clip.first(clips, self.frozen)}

    def trained(self):
        parts = [
            *self.clip.visual.transformer.resblocks[self.frozen :],
            self.clip.visual.ln_post,
            self.text,
            self.clip.text_projection,
        ]
        return [pair for part in parts for pair in every(part)] + [
            (self.clip.visual.proj.requires_grad_(), 1.0)
        ]

    def embed(self, kept: Kept) -> Tensor:
        frames = normalize(self.clip.last(kept["tokens"], self.frozen).float(), dim=-1)
        return normalize(frames.mean(1), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        return self.clip.embed_text(self.text(texts))
