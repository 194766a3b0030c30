"""Methods that recognise actions by name, one short file each, behind one interface.

`vlact.papers.ace.finetuning.finetune` and the Synonym Robustness Test need of a method what
`Recognizer` lists. A method starts from a pretrained encoder, holds the frozen features of the
words it may meet, and says itself what of a clip never changes while it trains, so that this is
computed once.
"""

import math

import torch
from torch import Tensor, nn

Kept = dict[str, Tensor]  # first dimension: clips


class Recognizer(nn.Module):
    """Interface of a method. Text comes as `names`: for each action the strings whose mean it goes
    by.

    Attributes:
        logit_scale: 1 / tau.
        words: Frozen trunk features (text_dim,) of every string that will be asked for.
    """

    def __init__(self, words: dict[str, Tensor], base: list[str], tau: float):
        super().__init__()
        if not 0 < tau < math.inf:
            raise ValueError(f"tau must be above 0 and finite; got {tau}")
        self.words, self.logit_scale, self.base = words, 1 / tau, [[b] for b in base]

    def frozen_features(self, clips: Tensor) -> Kept:
        """What of uint8 clips (B, T, H, W, 3) stays the same during training."""
        raise NotImplementedError

    def trained(self) -> list[tuple[nn.Parameter, float]]:
        """Parameters to train, each with its factor on the learning rate."""
        raise NotImplementedError

    def embed(self, kept: Kept) -> Tensor:
        """Unit video embeddings (B, D)."""
        raise NotImplementedError

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Unit embeddings of strings (N, D)."""
        raise NotImplementedError

    def actions(self, names: list[list[str]]) -> Tensor:
        """Text side of actions (C, D): the mean over each action's strings, not normalised again
        (Eq. 3 of ACE).
        """
        texts = list(dict.fromkeys(t for ts in names for t in ts))
        row, embedded = {t: i for i, t in enumerate(texts)}, self.embed_texts(texts)
        return torch.stack([embedded[[row[t] for t in ts]].mean(0) for ts in names])

    def encode(self, kept: Kept) -> Kept:
        """What clips show, whatever names they are compared with."""
        return {"video": self.embed(kept)}

    def similarity(self, seen: Kept, names: list[list[str]]) -> Tensor:
        """Similarity (B, C) of what `encode` saw and actions, in -1..1."""
        return seen["video"] @ self.actions(names).T

    def scores(self, kept: Kept, names: list[list[str]]) -> Tensor:
        """`similarity` of `encode`."""
        return self.similarity(self.encode(kept), names)

    def loss(self, kept: Kept, labels: Tensor) -> Tensor:
        """Softmax over the base labels; a scalar."""
        return nn.functional.cross_entropy(self.logit_scale * self.scores(kept, self.base), labels)


def every(module: nn.Module, scale: float = 1.0) -> list[tuple[nn.Parameter, float]]:
    """All parameters of a module with one factor, set to train."""
    return [(p.requires_grad_(), scale) for p in module.parameters()]
