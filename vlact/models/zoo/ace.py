"""Action Concept Enhancement (WACV 2025) on ProcVLR's encoder, and its ablations (Table 3).

The literal method is `LITERAL`. Against its forgetting on long schedules stand beside it in the
tables: `SLOW`, what a prototype suggested (the text projection learns ten times slower than the
video side, and no drawn synonym of L_rand ever serves as a label), and either with its weights
halfway back to the pretrained ones at test (`vlact.papers.ace.finetuning.wise_ft`). "ACE slow,
halfway" is the recipe for schedules and trees that nobody could tune: chosen on one rendered world
(seed 2), judged on another (seed 3, the committed figures).
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


class ACE(ProcVLR):
    """Eq. 3-9.

    Args:
        plan: Index tables of the base actions' trees.
        leaf: Leaf augmentation, Eq. 3; without it every label is one string.
        shadow: Shadow negatives, Eq. 6-8.
        fixed, rand: The two terms of Eq. 9.
        seed: Draws of synonyms and shadow negatives.
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
    ):
        super().__init__(encoder, words, base, tau, blocks, train_text)
        self.plan, self.leaf, self.shadow, self.fixed, self.rand = plan, leaf, shadow, fixed, rand
        self.rng, self.tower = np.random.default_rng(seed), tower
        self.register_buffer("text", torch.stack([words[t] for t in plan.texts]), persistent=False)

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
        return sum(
            ace_loss(self.embed(kept), labels, self.logit_scale, **self.embed_sets(asked)).values()
        )

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
