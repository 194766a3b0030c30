"""ASL (ICCV 2023), simplified: ActionFormer whose loss listens most to the frames that tell most.

How much a point inside an action tells is its action sensitivity, for the class and for the
boundaries: by class, learnt Gaussians over the place inside the action (one for the class, two for
the boundaries), and by instance, a quality that is predicted from the features and learns to be the
probability of the class and the overlap. Their sum weighs the losses of positive points; at test
nothing changes.

There is no public code. Otherwise than in the paper the contrastive loss on sensitive frames is
left out; weights have a mean of one over a batch, without which all of them fall; the Gaussians
start at the middle, and at a quarter from either end, as wide as half the action.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlact.losses.localization import assign, diou, focal, giou, points
from vlact.models.actionformer import ActionFormer, Head, LocalizerConfig

RUNNING = 0.1  # share of a batch in the running number of positive points
QUALITY_WEIGHT = 1.0
STARTS = (0.0, -0.5, 0.5)  # of the Gaussians, from -1 at an action's start to 1 at its end
WIDTH = 0.5


@dataclass(frozen=True)
class ASLConfig(LocalizerConfig):
    """Shape of ASL, ActionFormer's."""


class ASL(ActionFormer):
    """As `ActionFormer`; brings its own loss."""

    def __init__(self, config: ASLConfig):
        super().__init__(config)
        self.quality = Head(config, 2, "quality", detached=True)
        self.middle = nn.Parameter(torch.tensor(STARTS).repeat(config.classes, 1))
        self.width = nn.Parameter(torch.full((config.classes, len(STARTS)), WIDTH))

    def sensitivity(self, place: Tensor, kind: Tensor) -> Tensor:
        """By class, for the class and for the boundaries (N, 2), of points (N,) at places -1..1 in
        actions of classes (N,).
        """
        away = (place[:, None] - self.middle[kind]) / self.width[kind]
        bell = (-0.5 * away.square()).exp()
        return torch.stack([bell[:, 0], bell[:, 1] + bell[:, 2]], -1)

    def loss(
        self, features: Tensor, mask: Tensor, wanted: list[tuple[Tensor, Tensor]], smoothing=0.0
    ) -> Tensor:
        """Classes and boundaries, weighed by sensitivity, and the quality that is part of it.

        Args:
            features, mask: See `ActionFormer.forward`.
            wanted: Of each video segments (N, 2) in steps and classes (N,).
            smoothing: Of labels.
        """
        logits, distances, valid = self(features, mask)
        levels, masks = self.backbone(features, mask)
        quality = torch.cat(self.quality(self.neck(levels, masks), masks), 1).sigmoid()
        at = points(features.shape[1], self.config.levels, self.config.ranges)
        at = type(at)(*(x.to(features.device) for x in vars(at).values()))
        target, offset, owner = map(
            torch.stack,
            zip(*(assign(at, s, k, self.config.classes) for s, k in wanted), strict=True),
        )
        positive = (owner >= 0) & valid
        row = torch.nonzero(positive)[:, 0]
        kinds = torch.nn.utils.rnn.pad_sequence([k for _, k in wanted], True)
        kind = kinds[row, owner[positive]] if len(row) else row
        self.positives.lerp_(positive.sum().float(), RUNNING)
        count = self.positives.clamp(min=1)

        far, near, own = distances[positive], offset[positive], quality[positive]
        place = (near[:, 0] - near[:, 1]) / near.sum(-1).clamp(min=1e-6)
        weight = self.sensitivity(place, kind) + own.detach()
        weight = weight / weight.mean(0).clamp(min=1e-6)

        soft = target * (1 - smoothing) + smoothing / (target.shape[-1] + 1)
        each = focal(logits, soft).sum(-1)
        scale = torch.ones_like(each).masked_scatter(positive, weight[:, 0])
        known = torch.stack(
            [logits[positive].sigmoid().gather(1, kind[:, None])[:, 0], 1 - giou(far, near)], -1
        )
        missed = (own - known.detach()).square().sum()
        found = (each * scale)[valid].sum() + (diou(far, near) * weight[:, 1]).sum()
        return (found + QUALITY_WEIGHT * missed) / count
