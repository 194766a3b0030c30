"""Terms that keep a coarse and a fine embedding of one clip apart and their answers in agreement.

The paper's excerpt names two branches and says that cues of the fine one help coarse recognition;
the terms are this project's own design.
"""

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, softmax


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
