"""Designs that keep motion and context apart, on EZ-CLIP: what the motion-transfer paper calls
disentanglement is known by name only; all of these are this project's own.

One trunk. z_c is matched with the names of coarse classes, z_f with those of fine ones; at test
only z_c is asked, in a context that training never showed.

    loss = EZ-CLIP's on z_c + fine CE(z_f) + decorrelate decorrelation(z_c, z_f)
         + consistent consistency + adversary CE(context from reversed z_c)
         + independent (HSIC(z_c, z_f) + CE(context from z_f))

What is seen may be changed, too: `dynamic` clips less their own mean over time, in pixels (a prior
made by hand for a camera that stands still, so an upper bound rather than a method); `swap`, a
clip's motion on the mean picture of another context of its coarse class; `tempo`, a stretch of the
clip, drawn anew each time, in place of all of it; `head`, which reads the frames' embeddings in
order: as they are, less their own mean, or their differences.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from vlact.losses.disentanglement import (
    among_siblings,
    consistency,
    decorrelation,
    hsic,
    reverse,
)
from vlact.models.convnet3d import spread
from vlact.models.zoo.actionclip import divergence
from vlact.models.zoo.ezclip import EZCLIP, motion_loss

HEADS = ("mean", "course", "less mean", "differences")
SHORTEST = 0.5  # of a clip, the stretch that `tempo` shows
SEEN = 2  # times the trunk's frames that `tempo` draws from
GREY = 128


def dynamic(clips: Tensor) -> Tensor:
    """Clips minus their mean over time, round mid-grey: uint8 (B, T, H, W, 3) to the same."""
    x = clips.float()
    return (x - x.mean(1, keepdim=True) + GREY).clamp_(0, 255).to(torch.uint8)


def swapped(clips: Tensor, fine: Tensor, parent: Tensor) -> Tensor:
    """Clips on the mean picture of another clip of the batch: one of the same coarse and another
    fine class; where there is none a clip stays as it is.

    The mean picture keeps a shade of the other clip's motion. As the coarse class is the same, that
    does not speak against the label.

    Args:
        clips: (B, T, ..), uint8 frames or features.
        fine: Fine classes (B,).
        parent: Coarse class of each fine one (F,).
    """
    coarse = parent[fine]
    others = (coarse[:, None] == coarse) & (fine[:, None] != fine)
    some = others.any(1)
    if not some.any():
        return clips
    chosen = torch.multinomial(others[some].float(), 1)[:, 0]
    x, still = clips.float(), clips.float().mean(1, keepdim=True)
    moved, out = x[some] - still[some] + still[chosen], clips.clone()
    out[some] = (moved if clips.is_floating_point() else moved.clamp(0, 255)).to(clips.dtype)
    return out


def stretched(clips: Tensor, frames: int) -> Tensor:
    """So many evenly spaced frames of a stretch of each clip, its length and begin drawn: (B, T,
    ..) to (B, frames, ..).
    """
    b, t = clips.shape[:2]
    length = SHORTEST + (1 - SHORTEST) * torch.rand(b, 1)
    at = (1 - length) * torch.rand(b, 1) + length * (torch.arange(frames) + 0.5) / frames
    return clips[torch.arange(b)[:, None], (at * t).long().clamp_max(t - 1).to(clips.device)]


class Disentangled(nn.Module):
    """Clips to coarse logits; trained with fine labels, which say the coarse ones.

    Args:
        trunk: EZ-CLIP whose `base` are the coarse classes.
        fine: Names of the fine classes of the training set.
        parent: Coarse class of each of them (F,).
        branches: A linear layer for each of z_c and z_f; False matches one embedding with both
            kinds of names.
        fine_weight, decorrelate, consistent, adversary, independent: Weights of the terms; 0 leaves
            one out.
        head: One of `HEADS`; "mean" is EZ-CLIP's own.
        dynamic, swap, tempo: See the module's text.

    Raises:
        ValueError: A head that is none; a term that needs two branches without them.
    """

    bf16 = True

    def __init__(
        self,
        trunk: EZCLIP,
        fine: list[str],
        parent: Tensor,
        branches: bool = False,
        fine_weight: float = 0.0,
        decorrelate: float = 0.0,
        consistent: float = 0.0,
        adversary: float = 0.0,
        independent: float = 0.0,
        head: str = "mean",
        dynamic: bool = False,
        swap: bool = False,
        tempo: bool = False,
    ):
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"head must be one of {HEADS}; got {head!r}")
        if (decorrelate or independent) and not branches:
            raise ValueError(
                "decorrelate and independent keep two embeddings apart; they need branches=True"
            )
        self.trunk, self.head = trunk, head
        self.dynamic, self.swap, self.tempo = dynamic, swap, tempo
        self.frames = trunk.frames * (SEEN if tempo else 1)
        self.fine = [[f] for f in fine]
        self.register_buffer("parent", parent, persistent=False)
        self.weights = {
            "fine": fine_weight,
            "decorrelate": decorrelate,
            "consistent": consistent,
            "adversary": adversary,
            "independent": independent,
        }
        dim = trunk.clip.config.embed_dim
        self.branches = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2)) if branches else None
        for branch in self.branches or ():
            nn.init.eye_(branch.weight)
            nn.init.zeros_(branch.bias)
        steps = trunk.frames - (head == "differences")
        self.order = (
            nn.Sequential(nn.Flatten(), nn.LayerNorm(steps * dim), nn.Linear(steps * dim, dim))
            if head != "mean"
            else None
        )
        self.context = nn.Linear(dim, len(fine)) if adversary or independent else None
        for parameter, _ in trunk.trained():
            parameter.requires_grad_()

    def pooled(self, frames: Tensor) -> Tensor:
        """Embeddings of frames (B, T, D) to one of the clip (B, D)."""
        if self.order is None:
            return frames.mean(1)
        frames = normalize(frames, dim=-1)
        if self.head == "less mean":
            frames = frames - frames.mean(1, keepdim=True)
        if self.head == "differences":
            frames = frames[:, 1:] - frames[:, :-1]
        return self.order(frames)

    def look(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (B, T, H, W, 3) to unit z_c and z_f (B, D), and the frame embeddings (B, T, D)."""
        clips = spread(clips, self.trunk.frames)
        kept = self.trunk.frozen_features(dynamic(clips) if self.dynamic else clips)
        frames = self.trunk.frame_embeddings(kept)
        x = self.pooled(frames)
        parts = [branch(x) for branch in self.branches] if self.branches else [x, x]
        return *(normalize(z.float(), dim=-1) for z in parts), frames

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C) over coarse classes."""
        return self.trunk.logit_scale * self.look(clips)[0] @ self.trunk.actions(self.trunk.base).T

    def loss(self, clips: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """`labels` (B,) are fine; `smoothing` is not used, as in EZ-CLIP."""
        w, scale = self.weights, self.trunk.logit_scale
        if self.tempo:
            clips = stretched(clips, self.trunk.frames)
        if self.swap:
            clips = swapped(clips, labels, self.parent)
        z_c, z_f, frames = self.look(clips)
        mine, text = self.parent[labels], self.trunk.actions(self.trunk.base)
        coarse, same = scale * z_c @ text.T, mine[:, None] == mine
        batch = coarse[:, mine]
        total = (divergence(batch, same) + divergence(batch.T, same)) / 2
        total = total + self.trunk.motion * motion_loss(frames)
        if w["fine"] or w["consistent"]:
            fine = scale * z_f @ self.trunk.actions(self.fine).T
            total = total + w["fine"] * cross_entropy(fine, labels)
            if w["consistent"]:
                total = total + w["consistent"] * consistency(coarse, fine, self.parent)
        if w["decorrelate"]:
            total = total + w["decorrelate"] * decorrelation(z_c, z_f)
        if w["adversary"]:
            total = total + w["adversary"] * self.told(reverse(z_c), labels)
        if w["independent"]:
            apart = hsic(z_c, z_f) + self.told(z_f, labels)
            total = total + w["independent"] * apart
        return total

    def told(self, z: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of the context, told from an embedding (B, D), the coarse class given."""
        logits = self.trunk.logit_scale * self.context(z)
        return cross_entropy(among_siblings(logits, self.parent, labels), labels)
