"""Action Concept Enhancement (WACV 2025) on ProcVLR's encoder, and its ablations (Table 3).

The literal method is `LITERAL`. Against its forgetting on long schedules stand beside it in the
tables: `SLOW`, what a prototype suggested (the text projection learns ten times slower than the
video side, and no drawn synonym of L_rand ever serves as a label); `LEAVES`, the same without
shadow negatives, so that training differs from ProcVLR's by averaged leaves alone; `ANCHORED`,
which holds the names where the pretrained text side put them; and any of them at test with its
weights halfway back to the pretrained ones (`vlact.papers.ace.finetuning.wise_ft`) or averaged over
the epochs.
"""

import numpy as np
import torch
from torch import Tensor

from vlact.language.trees import ActionTexts
from vlact.losses.ace import ace_loss, leaf_average
from vlact.models.dual import DualEncoder
from vlact.models.zoo import Kept, every
from vlact.models.zoo.procvlr import ProcVLR

LITERAL = {"leaf": True, "shadow": True, "fixed": True, "rand": True, "train_text": 1.0}
SLOW = LITERAL | {"rand": False, "train_text": 0.1}
ANCHORED = LITERAL | {"anchor": 3.0}
LEAVES = SLOW | {"shadow": False}


class ACE(ProcVLR):
    """Eq. 3-9.

    Args:
        plan: Index tables of the base actions' trees.
        leaf: Leaf augmentation, Eq. 3; without it every label is one string.
        shadow: Shadow negatives, Eq. 6-8.
        fixed, rand: The two terms of Eq. 9.
        seed: Draws of synonyms and shadow negatives.
        anchor: Weight of a term that holds every name of the training trees where the pretrained
            text side put it: 1 − cosine, mean over the names.
        tower: Last blocks of the text trunk, to be trained too (Figure 4); None keeps the trunk's
        features. encoder, words, base, tau, blocks, train_text: See `ProcVLR`.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        words,
        base,
        tau,
        blocks,
        plan: ActionTexts,
        leaf,
        shadow,
        fixed,
        rand,
        train_text,
        seed: int,
        tower=None,
        anchor: float = 0.0,
    ):
        super().__init__(encoder, words, base, tau, blocks, train_text)
        self.plan, self.leaf, self.shadow, self.fixed, self.rand = plan, leaf, shadow, fixed, rand
        self.rng, self.tower, self.anchor = np.random.default_rng(seed), tower, anchor
        self.register_buffer("text", torch.stack([words[t] for t in plan.texts]), persistent=False)
        with torch.no_grad():  # words may lie elsewhere than the encoder, which moves later
            held = encoder.embed_text(self.text.to(encoder.text_projection.weight.device))
            self.register_buffer("held", held, persistent=False)

    def trained(self):
        return super().trained() + (every(self.tower) if self.tower else [])

    def embed_texts(self, texts: list[str]) -> Tensor:
        return (
            self.encoder.embed_text(self.tower(texts)) if self.tower else super().embed_texts(texts)
        )

    def loss(self, kept: Kept, labels: Tensor) -> Tensor:
        drawn, shadow = self.plan.draw(self.rng)
        fixed = self.plan.fixed if self.leaf else self.plan.root
        if not self.leaf:
            drawn, shadow = drawn[:, :1], shadow[:, :1]
        asked = {
            "fixed": fixed if self.fixed else None,
            "drawn": drawn if self.rand else None,
            "shadow": shadow if self.shadow else None,
        }
        loss = sum(
            ace_loss(self.embed(kept), labels, self.logit_scale, **self.embed_sets(asked)).values()
        )
        return loss + self.anchor * self.drift() if self.anchor else loss

    def drift(self) -> Tensor:
        """How far the names have gone from where they started, 0..2."""
        return 1 - (self.encoder.embed_text(self.text) * self.held).sum(-1).mean()

    def embed_sets(self, sets: dict[str, np.ndarray | None]) -> dict[str, Tensor | None]:
        """Leaf-averaged embeddings (C, D) of index tables (C, M) into `plan.texts`, projecting each
        string once.
        """
        asked = {k: torch.as_tensor(v) for k, v in sets.items() if v is not None}
        rows, inverse = torch.unique(
            torch.cat([v.flatten() for v in asked.values()]), return_inverse=True
        )
        embedded = (
            self.embed_texts([self.plan.texts[i] for i in rows])
            if self.tower
            else self.encoder.embed_text(self.text[rows])
        )
        out, start = dict.fromkeys(sets), 0
        for k, v in asked.items():
            out[k] = leaf_average(embedded, inverse[start : start + v.numel()].view(v.shape))
            start += v.numel()
        return out
