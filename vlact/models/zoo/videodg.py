"""VideoDG (TPAMI 2021): an adversarial pyramid network for domain generalisation.

Relations of frames at two reaches are classified: of neighbours (local), of all frames (global),
and of the local ones among each other (cross). To make them hold in domains that training never
shows, the frame features are moved uphill on the loss by a step of length `alpha` and the moved
ones are learned too. Our reading of the paper; its code is not used.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from vlact.models.convnet3d import Frames2D, spread

SEGMENTS, HIDDEN = 5, 256


class VideoDG(nn.Module):
    """ResNet-50 on five frames, and the pyramid.

    Args:
        classes: Of the heads.
        width, depth, motion, size: See `vlact.models.convnet3d.Frames2D`.
        alpha: Length of the adversarial step, as a share of the features' own length.
        dropout: Before the heads.
    """

    def __init__(
        self,
        classes: int,
        width: float = 1.0,
        depth: float = 1.0,
        motion: bool = False,
        alpha: float = 0.01,
        dropout: float = 0.5,
        size: int | None = None,
    ):
        super().__init__()
        self.backbone, self.alpha = Frames2D(width, depth, motion, size=size), alpha
        dim, pairs = self.backbone.dim, SEGMENTS - 1
        self.near = nn.Linear(2 * dim, HIDDEN)
        self.all = nn.Linear(SEGMENTS * dim, HIDDEN)
        self.cross = nn.Linear(pairs * HIDDEN, HIDDEN)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(HIDDEN, classes) for _ in range(3))

    def pyramid(self, frames: Tensor) -> Tensor:
        """Frame features (B, 5, D) to logits of the three relations (3, B, C)."""
        near = relu(self.near(torch.cat([frames[:, :-1], frames[:, 1:]], -1)))
        relations = (
            near.mean(1),
            relu(self.all(frames.flatten(1))),
            relu(self.cross(near.flatten(1))),
        )
        return torch.stack(
            [head(self.dropout(r)) for head, r in zip(self.heads, relations, strict=True)]
        )

    def look(self, clips: Tensor) -> Tensor:
        return self.backbone(spread(clips, SEGMENTS)).mean((3, 4)).transpose(1, 2)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C), the mean of the three."""
        return self.pyramid(self.look(clips)).mean(0)

    def loss(self, clips: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        frames = self.look(clips)

        def of(x: Tensor) -> Tensor:
            return (
                sum(
                    cross_entropy(logits, labels, label_smoothing=smoothing)
                    for logits in self.pyramid(x)
                )
                / 3
            )

        told = frames.detach().requires_grad_()
        (slope,) = torch.autograd.grad(of(told), told)
        norm = (
            told.flatten(1).norm(dim=1)[:, None, None]
            / slope.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
        )
        return (of(frames) + of(frames + self.alpha * norm * slope)) / 2
