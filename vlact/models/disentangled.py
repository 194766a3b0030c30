"""A coarse and a fine branch on EZ-CLIP: this project's design of what the motion-transfer paper
calls disentanglement.

One trunk, two linear branches: z_c is matched with the names of coarse classes, z_f with those of
fine ones.

    loss = EZ-CLIP's on z_c + w_fine CE(z_f) + w_decorrelate decorrelation(z_c, z_f) + w_consistent
    consistency

At test only z_c is asked, in a context that training never showed. With `gate` the fine embedding
adds a residual to it, as strong as a gate of both says. `stream` chooses what a branch sees: "rgb"
the clip; "dynamic" the clip minus its mean over time, which takes all that stands still away (a
prior made by hand for a camera that stands still, so an upper bound rather than a method); "two"
gives the dynamic clip to the coarse branch and the clip itself to the fine one.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from vlact.losses.disentanglement import consistency, decorrelation
from vlact.models.zoo.actionclip import divergence
from vlact.models.zoo.ezclip import EZCLIP, motion_loss

STREAMS = ("rgb", "dynamic", "two")


def dynamic(clips: Tensor) -> Tensor:
    """Clips minus their mean over time, round mid-grey: uint8 (B, T, H, W, 3) to the same."""
    x = clips.float()
    return (x - x.mean(1, keepdim=True) + 128).clamp_(0, 255).to(torch.uint8)


class Disentangled(nn.Module):
    """Clips to coarse logits; trained with fine labels, which say the coarse ones.

    Args:
        trunk: EZ-CLIP whose `base` are the coarse classes.
        fine: Names of the fine classes of the training set.
        parent: Coarse class of each of them (F,).
        branches: False matches one embedding with both kinds of names.
        fine_weight, decorrelate, consistent: Weights of the terms; 0 leaves one out.
        gate: See the module's text.
        stream: One of `STREAMS`.

    Raises:
        ValueError: A stream that is none, or a gate without branches.
    """

    bf16 = True

    def __init__(
        self,
        trunk: EZCLIP,
        fine: list[str],
        parent: Tensor,
        branches: bool = True,
        fine_weight: float = 0.5,
        decorrelate: float = 0.0,
        consistent: float = 0.0,
        gate: bool = False,
        stream: str = "rgb",
    ):
        super().__init__()
        if stream not in STREAMS:
            raise ValueError(f"stream must be one of {STREAMS}; got {stream!r}")
        if gate and not branches:
            raise ValueError(
                "gate=True adds the fine branch to the coarse one; it needs branches=True"
            )
        self.trunk, self.frames, self.stream = trunk, trunk.frames, stream
        self.fine = [[f] for f in fine]
        self.register_buffer("parent", parent, persistent=False)
        self.weights = {"fine": fine_weight, "decorrelate": decorrelate, "consistent": consistent}
        dim = trunk.clip.config.embed_dim
        self.branches = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2)) if branches else None
        for branch in self.branches or ():
            nn.init.eye_(branch.weight)
            nn.init.zeros_(branch.bias)
        self.gate, self.residual = (
            (nn.Linear(2 * dim, 1), nn.Linear(dim, dim)) if gate else (None, None)
        )
        if gate:
            nn.init.constant_(self.gate.bias, -2.0)
        for parameter, _ in trunk.trained():
            parameter.requires_grad_()

    def look(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (B, T, H, W, 3) to unit z_c and z_f (B, D), and the frame embeddings of the coarse
        branch (B, T, D).
        """
        frames = self.trunk.frame_embeddings(
            self.trunk.frozen_features(clips if self.stream == "rgb" else dynamic(clips))
        )
        other = (
            self.trunk.frame_embeddings(self.trunk.frozen_features(clips))
            if self.stream == "two"
            else frames
        )
        if not self.branches:
            z = normalize(frames.mean(1), dim=-1)
            return z, normalize(other.mean(1), dim=-1), frames
        coarse, fine = (
            normalize(b(x.mean(1)).float(), dim=-1)
            for b, x in zip(self.branches, (frames, other), strict=True)
        )
        if self.gate:
            share = self.gate(torch.cat([coarse, fine], 1)).sigmoid()
            coarse = normalize((coarse + share * self.residual(fine)).float(), dim=-1)
        return coarse, fine, frames

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C) over coarse classes."""
        return self.trunk.logit_scale * self.look(clips)[0] @ self.trunk.actions(self.trunk.base).T

    def loss(self, clips: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """`labels` (B,) are fine; `smoothing` is not used, as in EZ-CLIP."""
        w, scale = self.weights, self.trunk.logit_scale
        z_c, z_f, frames = self.look(clips)
        mine, text = self.parent[labels], self.trunk.actions(self.trunk.base)
        coarse, same = scale * z_c @ text.T, mine[:, None] == mine
        batch = coarse[:, mine]
        total = (
            divergence(batch, same) + divergence(batch.T, same)
        ) / 2 + self.trunk.motion * motion_loss(frames)
        if w["fine"] or w["consistent"]:
            fine = scale * z_f @ self.trunk.actions(self.fine).T
            total = total + w["fine"] * cross_entropy(fine, labels)
            if w["consistent"]:
                total = total + w["consistent"] * consistency(coarse, fine, self.parent)
        return total + w["decorrelate"] * decorrelation(z_c, z_f) if w["decorrelate"] else total
