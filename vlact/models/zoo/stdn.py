"""STDN (NeurIPS 2023): diverse spatial groups and temporal relations against domain shift.

Positions of every frame are assigned softly to a few learned centres, so that a frame has several
summaries beside its mean; each of them is related over time at several scales (two frames, three,
.. all). MixStyle swaps channel statistics between clips after the first three stages. Two losses:
assignments should be sure (entropy), and relations of different groups and scales should differ
(cross-relation). Our reading of the paper; its code is not used.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, relu

from vlact.models.convnet3d import Frames2D, spread

SEGMENTS, GROUPS, HIDDEN, ENTROPY, CROSS = 5, 4, 256, 0.15, 0.5


class MixStyle(nn.Module):
    """Channel means and deviations of a clip (B, C, T, H, W) mixed with those of another of the
    batch, in half of the steps.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or torch.rand(()) < 0.5:
            return x
        mean, std = (
            x.mean((2, 3, 4), keepdim=True).detach(),
            x.std((2, 3, 4), keepdim=True).detach() + 1e-6,
        )
        share = torch.distributions.Beta(0.1, 0.1).sample((len(x), 1, 1, 1, 1)).to(x)
        other = torch.randperm(len(x))
        return (
            (x - mean) / std * (share * std + (1 - share) * std[other])
            + share * mean
            + (1 - share) * mean[other]
        )


class STDN(nn.Module):
    """ResNet-50 on five frames, groups, relations.

    Args:
        classes: Of the head.
        width, depth, motion, size: See `vlact.models.convnet3d.Frames2D`.
        dropout: Before the head.
    """

    def __init__(
        self,
        classes: int,
        width: float = 1.0,
        depth: float = 1.0,
        motion: bool = False,
        dropout: float = 0.3,
        size: int | None = None,
    ):
        super().__init__()
        self.backbone = Frames2D(width, depth, motion, MixStyle, size)
        dim = self.backbone.dim
        self.centres = nn.Parameter(torch.randn(GROUPS, dim) * dim**-0.5)
        self.relate = nn.ModuleList(nn.Linear(n * dim, HIDDEN) for n in range(2, SEGMENTS + 1))
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(HIDDEN, classes)

    def relations(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Relations (B, 1 + G, scales, H) of the whole frame and of each group, and assignments (B,
        T, P, G).
        """
        x = self.backbone(spread(clips, SEGMENTS)).flatten(3).permute(0, 2, 3, 1)  # (B, T, P, D)
        share = (normalize(x, dim=-1) @ normalize(self.centres, dim=-1).T * 10).softmax(-1)
        groups = (
            torch.einsum("btpg,btpd->bgtd", share, x)
            / share.sum(2).transpose(1, 2).clamp_min(1e-6)[..., None]
        )
        seen = torch.cat([x.mean(2).unsqueeze(1), groups], 1)
        found = [
            relu(layer(seen.unfold(2, n, 1).transpose(3, 4).flatten(3))).mean(2)
            for n, layer in enumerate(self.relate, 2)
        ]
        return torch.stack(found, 2), share

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C)."""
        return self.head(self.dropout(self.relations(clips)[0].mean((1, 2))))

    def loss(self, clips: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        found, share = self.relations(clips)
        entropy = -(share * share.clamp_min(1e-9).log()).sum(-1).mean()
        unit = normalize(found.flatten(1, 2), dim=-1)
        alike = unit @ unit.transpose(1, 2)
        n = alike.shape[1]
        cross = (alike.sum((1, 2)) - n).mean() / (n * (n - 1))
        logits = self.head(self.dropout(found.mean((1, 2))))
        return (
            cross_entropy(logits, labels, label_smoothing=smoothing)
            + ENTROPY * entropy
            + CROSS * cross
        )
