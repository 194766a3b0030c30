"""Losses of ActionVLM: language must earn its weight (Eq. 1, 3 and 9). How it is weighed, Eq. 2, 4
and 5, is `vlact.models.actionvlm`.

Symbols: L_v and L_vl are the detection losses of a frame without and with language, A = L_v - L_vl
its advantage, Â the predicted one, lambda its weight. Frames are steps of the features; background
counts as a class of its own, number C, because language has a weight there, too.
"""

import torch
from torch import Tensor, nn

from vlact.losses.localization import Points


def frame_classes(
    segments: Tensor, labels: Tensor, length: int, classes: int
) -> tuple[Tensor, Tensor]:
    """Class and action of every frame of one sequence.

    Args:
        segments: (N, 2) in steps. labels: (N,).
        length: T.
        classes: C, the number that background gets.

    Returns:
        `label` (T,) in [0, C] and `owner` (T,), the action, -1 for background. Where several
        actions cover a frame it belongs to the shortest, as points do.
    """
    t = torch.arange(length, dtype=segments.dtype, device=segments.device)
    if not len(segments):
        return torch.full_like(t, classes, dtype=torch.long), torch.full_like(
            t, -1, dtype=torch.long
        )
    inside = (t[:, None] >= segments[:, 0]) & (t[:, None] <= segments[:, 1])
    span = (segments[:, 1] - segments[:, 0]).expand(length, -1).masked_fill(~inside, torch.inf)
    shortest, owner = span.min(1)
    covered = shortest.isfinite()
    return torch.where(covered, labels[owner], classes), torch.where(covered, owner, -1)


def frame_loss(point_loss: Tensor, point_owner: Tensor, frame_owner: Tensor, at: Points) -> Tensor:
    """The detection loss of every frame, L^(l) of Eq. 1, from that of the points; the paper does
    not say how.

    A frame inside an action has the mean loss of the points that are to find this action, whatever
    their level; any other frame (and one whose action no point is to find) has the mean over levels
    of the point that covers it. Both are thus losses of one point, so that frames of all classes
    have the same unit.

    Args:
        point_loss: Focal loss summed over classes, plus DIoU where positive (P,).
        point_owner: From `assign` (P,).
        frame_owner: From `frame_classes` (T,).
        at: The points.

    Returns:
        (T,), >= 0.
    """
    length = len(frame_owner)
    covered, t = point_loss.new_zeros(length), torch.arange(length, device=point_loss.device)
    levels = at.stride.unique()
    for stride in levels:
        covered = covered + point_loss[at.stride == stride][(t // stride.long())]
    out = covered / len(levels)
    n = int(max(point_owner.max(), frame_owner.max())) + 1
    if n > 0:
        positive = point_owner >= 0
        total = point_loss.new_zeros(n).index_add(0, point_owner[positive], point_loss[positive])
        count = torch.bincount(point_owner[positive], minlength=n)
        of_action = total / count.clamp(min=1)
        found = (frame_owner >= 0) & (count[frame_owner.clamp(min=0)] > 0)
        out = torch.where(found, of_action[frame_owner.clamp(min=0)], out)
    return out


class ClassMeans(nn.Module):
    """Mean vision-only loss of every class over an epoch, L̃_v of Eq. 1 (Alg. 1, lines 5-8); a
    module so that a checkpoint keeps it.

    Attributes:
        mean: (C + 1,), of the last epoch that met the class; nan for one that no epoch met yet.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.register_buffer("total", torch.zeros(classes + 1))
        self.register_buffer("count", torch.zeros(classes + 1))
        self.register_buffer("mean", torch.full((classes + 1,), torch.nan))

    def add(self, loss: Tensor, label: Tensor) -> None:
        """Losses and classes of frames, same shape."""
        self.total.index_add_(0, label.flatten(), loss.detach().flatten())
        self.count += torch.bincount(label.flatten(), minlength=len(self.count))

    def close(self) -> None:
        """The epoch is over; a class without a frame keeps its mean."""
        torch.where(self.count > 0, self.total / self.count, self.mean, out=self.mean)
        self.total.zero_()
        self.count.zero_()


def advantage(class_mean: Tensor, label: Tensor, loss: Tensor) -> Tensor:
    """Eq. 1: how much better language makes a frame than the mean frame of its class without it.

    Args:
        class_mean: L̃_v (C + 1,), from the vision-only epoch before.
        label: Classes of the frames, any shape.
        loss: L_vl of the frames, same shape; no gradient passes.

    Returns:
        Same shape; 0 where the class has no mean yet.
    """
    return torch.nan_to_num(class_mean[label] - loss.detach(), nan=0.0)


def advantage_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Eq. 3: mean squared error of Â over valid frames; the target gets no gradient."""
    return ((predicted - target.detach()) ** 2)[mask].mean()
