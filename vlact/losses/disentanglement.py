"""Terms that keep a coarse and a fine embedding of one clip apart and their answers in agreement.

The paper's excerpt names two branches and says that cues of the fine one help coarse recognition;
the terms are this project's own designs.

Sources: Y. Ganin, V. Lempitsky, Unsupervised domain adaptation by backpropagation, ICML 2015 (the
reversed gradient); A. Gretton et al., Measuring statistical dependence with Hilbert-Schmidt norms,
ALT 2005 (HSIC); S. Kornblith et al., Similarity of neural network representations revisited, ICML
2019 (its normalised form).
"""

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, softmax


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return -grad


def reverse(x: Tensor) -> Tensor:
    """The same values; gradients that flow back through it change sign."""
    return _Reverse.apply(x)


def among_siblings(fine: Tensor, parent: Tensor, labels: Tensor) -> Tensor:
    """Logits (B, F) of fine classes in which only those of each clip's own coarse class compete.

    What is left to tell apart is the context alone: the coarse class is given.

    Args:
        fine: Logits (B, F).
        parent: Coarse class of each fine one (F,).
        labels: Fine classes of the clips (B,).
    """
    return fine.masked_fill(parent[labels][:, None] != parent, float("-inf"))


def hsic(x: Tensor, y: Tensor) -> Tensor:
    """How far two embeddings of a batch depend on each other, in 0..1.

    Args:
        x, y: (B, D) and (B, E), B > 1.

    Returns:
        HSIC with Gaussian kernels as wide as the median distance, as a share of its largest value.

    Raises:
        ValueError: Fewer than two clips.
    """
    if len(x) < 2:
        raise ValueError(f"hsic needs at least two clips, got {len(x)}; make the batch larger")

    def centred(z: Tensor) -> Tensor:
        far = torch.cdist(z.float(), z.float()).square()
        width = far.detach()[~torch.eye(len(z), dtype=torch.bool, device=z.device)].median()
        kernel = (-far / width.clamp_min(1e-12)).exp()
        return kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()

    k, m = centred(x), centred(y)
    return (k * m).sum() / (k.norm() * m.norm()).clamp_min(1e-12)


def decorrelation(coarse: Tensor, fine: Tensor) -> Tensor:
    """Squared correlations between two embeddings over a batch.

    Args:
        coarse, fine: (B, D) each, B > 1.

    Returns:
        The mean over D x D of the squared Pearson correlation of one dimension with another, in
        0..1.

    Raises:
        ValueError: Fewer than two clips, of which nothing correlates.
    """
    if len(coarse) < 2:
        raise ValueError(
            f"decorrelation needs at least two clips, got {len(coarse)}; make the batch larger"
        )

    def standard(x: Tensor) -> Tensor:
        x = x.float() - x.float().mean(0)
        return x / x.norm(dim=0).clamp_min(1e-6)

    return (standard(coarse).T @ standard(fine)).square().mean()


def children_sum(fine: Tensor, parent: Tensor, coarse_classes: int) -> Tensor:
    """Probabilities (B, F) of fine classes to those of their coarse classes (B, C); `parent` (F,)
    holds numbers below C.
    """
    return fine.new_zeros(len(fine), coarse_classes).index_add_(1, parent, fine)


def consistency(coarse: Tensor, fine: Tensor, parent: Tensor) -> Tensor:
    """KL of the coarse answer from what the fine answer implies, which is taken as given.

    Args:
        coarse: Logits (B, C).
        fine: Logits (B, F); no gradient flows into them.
        parent: Coarse class of each fine one (F,).

    Returns:
        Mean over the batch, 0 or more, in nats.
    """
    implied = children_sum(softmax(fine.detach().float(), 1), parent, coarse.shape[1])
    return kl_div(log_softmax(coarse.float(), 1), implied, reduction="batchmean")
