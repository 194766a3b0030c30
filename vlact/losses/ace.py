"""Losses of Action Concept Enhancement (ACE, WACV 2025), Eq. 3-9.

Symbols: `video` is E(I), `text` G(.), both of unit length; `logit_scale` is 1/tau (tau = 0.02);
`leaves` are the indices of an action's children, the dagger set of the paper.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def leaf_average(text: Tensor, leaves: Tensor) -> Tensor:
    """Mean embedding of each action's children, the text half of Eq. 3.

    The mean is not normalised again: its product with a unit video embedding then equals the mean
    of the M cosines of Eq. 3.

    Args:
        text: Unit embeddings of strings (N, D).
        leaves: Rows of `text` that are the children of each action (C, M).

    Returns:
        (C, D), of length at most 1.
    """
    return text[leaves].mean(1)


def similarity(video: Tensor, actions: Tensor, logit_scale: float) -> Tensor:
    """S(I, a) of Eq. 3, all pairs: (B, D) and (C, D) to (B, C), in [-logit_scale, logit_scale]."""
    return logit_scale * video @ actions.T


def classification_loss(
    video: Tensor, labels: Tensor, actions: Tensor, logit_scale: float, shadow: Tensor | None = None
) -> Tensor:
    """Mean of -log P(n, a), Eq. 8; without `shadow` the plain softmax of Eq. 1-2.

    Args:
        video: (B, D), unit length.
        labels: True classes (B,), in [0, C).
        actions: Text side of the C actions (C, D), from `leaf_average`.
        logit_scale: 1 / tau.
        shadow: Shadow negative of each class (C, D); each clip meets only its own class's.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: `shadow` has another shape than `actions`.
    """
    logits = similarity(video, actions, logit_scale)
    if shadow is not None:
        if shadow.shape != actions.shape:
            raise ValueError(
                f"shadow must have the shape of actions {tuple(actions.shape)}; got "
                f"{tuple(shadow.shape)}"
            )
        own = logit_scale * (video * shadow[labels]).sum(-1, keepdim=True)  # class C + 1
        logits = torch.cat([logits, own], 1)
    return cross_entropy(logits, labels)


def ace_loss(
    video: Tensor,
    labels: Tensor,
    logit_scale: float,
    fixed: Tensor | None = None,
    drawn: Tensor | None = None,
    shadow: Tensor | None = None,
) -> dict[str, Tensor]:
    """The two terms of Eq. 9; their sum is the loss, and leaving one out is its ablation of Table
    3.

    Args:
        video: (B, D), unit length.
        labels: True classes (B,).
        logit_scale: 1 / tau.
        fixed: Root labels a (C, D).
        drawn: Synonyms drawn for this step, a+ of Eq. 4 (C, D).
        shadow: Shadow negatives a- of Eq. 7 (C, D), shared by both terms.

    Returns:
        `L_fixed` and `L_rand`, those whose labels were given.

    Raises:
        ValueError: Neither `fixed` nor `drawn` is given.
    """
    named = {"L_fixed": fixed, "L_rand": drawn}
    if fixed is None and drawn is None:
        raise ValueError("ace_loss needs fixed or drawn action embeddings; got neither")
    return {
        k: classification_loss(video, labels, a, logit_scale, shadow)
        for k, a in named.items()
        if a is not None
    }
