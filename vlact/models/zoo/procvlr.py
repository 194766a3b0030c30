"""ProcedureVRL (CVPR 2023) as ACE fine-tunes it: TimeSformer against the frozen text of the labels.

Trained: the last blocks of the TimeSformer, its final norm and the video projection. `train_text`
adds the text projection, the control between ProcVLR and ACE that ACE's tables lack.
"""

import torch
from torch import Tensor

from vlact.models.dual import DualEncoder
from vlact.models.zoo import Kept, Recognizer, every


class ProcVLR(Recognizer):
    """Cross entropy over the base labels.

    Args:
        encoder: Pretrained; changed in place.
        words, base, tau: See `Recognizer`.
        blocks: Last blocks of the TimeSformer to train.
        train_text: Factor on the text projection's learning rate; 0 freezes it.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        words: dict[str, Tensor],
        base: list[str],
        tau: float,
        blocks: int,
        train_text: float = 0.0,
    ):
        super().__init__(words, base, tau)
        self.encoder, self.train_text = encoder.requires_grad_(False), train_text
        self.frozen = encoder.config.depth - blocks

    def frozen_features(self, clips: Tensor) -> Kept:
        return {"tokens": self.encoder.first(clips, self.frozen)}

    def trained(self):
        parts = self.encoder.tunable(self.frozen)
        out = [pair for part in parts for pair in every(part)]
        return out + (
            every(self.encoder.text_projection, self.train_text) if self.train_text else []
        )

    def embed(self, kept: Kept) -> Tensor:
        return self.encoder.embed_video(self.encoder.last(kept["tokens"], self.frozen).float())

    def embed_texts(self, texts: list[str]) -> Tensor:
        return self.encoder.embed_text(torch.stack([self.words[t] for t in texts]))
