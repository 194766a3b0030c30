"""ViT-TAD (2024): a plain video transformer on a whole window, and a light head on what it sees.

VideoMAE's blocks see chunks of sixteen frames; after every third block each patch position attends
to itself over the whole window, and what it finds is added (inner propagation). Means over
positions pass three more blocks (post propagation) and are pooled to a pyramid; the head's last
convolution looks where it likes (deformable, modulated). All of it is trained.

Names and shapes are those of the authors' code (MCG-NJU/ViT-TAD, commit 1f63a63), VideoMAE's
apart, see `load`. Simplified is the training: targets and losses are ActionFormer's, as those of
every localizer here; theirs have a background class and ranges of their own.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, max_pool1d
from torch.utils.checkpoint import checkpoint

from vlact.models import files
from vlact.models.actionformer import HIDDEN, Factor, LocalizerConfig
from vlact.models.adatad import SPREAD, Attention, Tower, TowerConfig
from vlact.models.localizer_checkpoints import read

EVERY = 3  # blocks, of which the last one is followed by attention over the window
TAPS = 3  # of the head's convolutions
CONVS = 3  # of each branch, before the deformable one
RENAMED = [  # names of theirs and ours
    (r"backbone\.model\.patch_embed\.proj\.", "backbone.patch_embed.projection."),
    (r"backbone\.model\.(blocks\.\d+\.mlp)\.fc1\.", r"backbone.\1.layers.0.0."),
    (r"backbone\.model\.(blocks\.\d+\.mlp)\.fc2\.", r"backbone.\1.layers.1."),
    (r"backbone\.model\.", "backbone."),
]
COMPUTED = {"backbone.pos_embed", "positives"}  # what no file holds


@dataclass(frozen=True)
class ViTTADConfig:
    """Shape of ViT-TAD.

    Attributes:
        localizer: `classes`, `levels`, `stems` (blocks after the tower), `heads` (theirs) and
            `prior` of it.
        tower: VideoMAE, without adapters.
        frames: Of a window, at most.
    """

    localizer: LocalizerConfig
    tower: TowerConfig = field(default_factory=lambda: TowerConfig(adapted=False))
    frames: int = 256


class WindowTower(Tower):
    """uint8 frames (B, F, H, W, 3) to features (B, F / tubelet, D), each having seen the window."""

    def __init__(self, config: TowerConfig, frames: int, save_memory: bool):
        super().__init__(config, save_memory)
        del self.fc_norm
        steps = frames // config.tubelet
        self.pos_embed_temporal = nn.Parameter(torch.empty(1, steps, config.dim))
        nn.init.trunc_normal_(self.pos_embed_temporal, std=SPREAD)
        for block in self.blocks[EVERY - 1 :: EVERY]:
            block.attn_global_residual = Attention(config.dim, config.heads)
            nn.init.zeros_(block.attn_global_residual.proj.weight)
            nn.init.zeros_(block.attn_global_residual.proj.bias)

    def forward(self, frames: Tensor) -> Tensor:
        b, f, height, width, _ = frames.shape
        clip, patch, steps = self.config.num_frames, self.config.patch, f // self.config.tubelet
        if f % clip or steps > self.pos_embed_temporal.shape[1]:
            most = self.pos_embed_temporal.shape[1] * self.config.tubelet
            raise ValueError(f"frames must be a multiple of {clip}, {most} at most; got {f}")
        rows, columns = height // patch, width // patch
        x = (frames.to(self.mean.dtype) - self.mean) / self.std
        x = self.patch_embed.projection(x.permute(0, 4, 1, 2, 3)).flatten(3)  # (B, D, T, P)
        x = x.permute(0, 2, 3, 1) + self.pos_embed_temporal[:, :steps, None]
        x = x.unflatten(1, (f // clip, -1)).flatten(2, 3) + self.places(rows, columns)
        x = x.flatten(0, 1)  # chunks
        for block in self.blocks:
            given = block, x, steps, rows * columns
            if self.save_memory and self.training:
                x = checkpoint(self._block, *given, use_reentrant=False)
            else:
                x = self._block(*given)
        return x.reshape(b, steps, rows * columns, -1).mean(2)

    @staticmethod
    def _block(block: nn.Module, x: Tensor, steps: int, positions: int) -> Tensor:
        x = block(x, steps, positions)
        if not hasattr(block, "attn_global_residual"):
            return x
        over = x.reshape(-1, steps, positions, x.shape[-1]).transpose(1, 2)
        seen = block.attn_global_residual(over.flatten(0, 1)).view(over.shape)
        return x + seen.transpose(1, 2).reshape(x.shape)


class After(nn.Module):
    """A pre-norm block on steps (B, T, D)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, inside = Attention(dim, heads), HIDDEN * dim
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, inside), "fc2": nn.Linear(inside, dim)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class DeformableConv(nn.Module):
    """A convolution (B, D, T) whose taps are moved and weighted, each step's by itself."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, TAPS, TAPS)
        self.p_conv, self.m_conv = (nn.Conv1d(dim, TAPS, 3, padding=1) for _ in range(2))
        for conv in (self.p_conv, self.m_conv):
            nn.init.zeros_(conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[-1]
        at = torch.arange(steps, device=x.device)[:, None] + torch.arange(TAPS, device=x.device)
        at = at - TAPS // 2 + self.p_conv(x).transpose(1, 2)  # (B, T, taps)
        place = (2 * at + 1) / steps - 1  # of images one pixel high
        grid = torch.stack([place, torch.zeros_like(place)], -1)
        seen = grid_sample(x[:, :, None], grid, "bilinear", "zeros", align_corners=False)
        weighed = seen * self.m_conv(x).sigmoid().transpose(1, 2)[:, None]
        return self.conv(weighed.flatten(2))


class FcosHead(nn.Module):
    """Two branches, the same on all levels; distances have a factor for each."""

    def __init__(self, dim: int, config: LocalizerConfig):
        super().__init__()

        def branch() -> nn.Sequential:
            convs = [nn.Conv1d(dim, dim, TAPS, padding=1) for _ in range(CONVS)]
            layers = [*convs, DeformableConv(dim)]
            return nn.Sequential(*(x for layer in layers for x in (layer, nn.ReLU())))

        self.cls_convs, self.reg_convs = branch(), branch()
        self.cls = nn.Conv1d(dim, config.classes, 3, padding=1)
        self.reg = nn.Conv1d(dim, 2, 3, padding=1)
        self.scales = nn.ModuleList(Factor() for _ in range(config.levels))
        nn.init.normal_(self.cls.weight, std=0.01)
        nn.init.constant_(self.cls.bias, torch.tensor(config.prior).logit().item())

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Levels (B, D, T) to class logits (B, P, C) and distances (B, P, 2), in strides."""
        logits = [self.cls(self.cls_convs(x)) for x in levels]
        reach = [self.reg(self.reg_convs(x)) for x in levels]
        reach = [(x * f.scale).exp() for x, f in zip(reach, self.scales, strict=True)]
        return torch.cat(logits, 2).transpose(1, 2), torch.cat(reach, 2).transpose(1, 2)


class ViTTAD(nn.Module):
    """Frames to class logits and distances at every point.

    Args:
        config: Shape.
        save_memory: Whether activations are computed again in the backward pass.
    """

    def __init__(self, config: ViTTADConfig, save_memory: bool = False):
        super().__init__()
        self.shape, dim = config, config.tower.dim
        self.backbone = WindowTower(config.tower, config.frames, save_memory)
        own = config.localizer
        self.neck = nn.ModuleList(After(dim, own.heads) for _ in range(own.stems))
        self.head = FcosHead(dim, own)
        self.register_buffer("positives", torch.tensor(40.0))

    @property
    def config(self) -> LocalizerConfig:
        """Of the localizer."""
        return self.shape.localizer

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames, those of each step (B, T, tubelet, H, W, 3), and valid steps (B, T) to `logits`
        (B, P, C), `distances` (B, P, 2) in strides and `valid` (B, P), levels after each other.
        Frames of padded steps reach features next to them, as published.
        """
        x = self.backbone(frames.flatten(1, 2))
        for block in self.neck:
            x = block(x)
        levels, masks = [x.transpose(1, 2)], [mask]
        for _ in range(1, self.config.levels):
            levels.append(max_pool1d(levels[-1], 3, 2, 1))
            masks.append(masks[-1][:, ::2])
        return *self.head(levels), torch.cat(masks, 1)


def load(path: str | Path, model: ViTTAD, mean: bool = True) -> ViTTAD:
    """The model with the weights of its authors' file, see
    `vlact.models.localizer_checkpoints.read`.

    Raises:
        ValueError: A file that is cut off or of another architecture, number of classes or shape;
            names the weights.
    """
    state = {}
    for key, x in read(path, mean).items():
        for old, new in (*RENAMED, (r"neck\.0\.encoder\.layers\.", "neck.")):
            key = re.sub(f"^{old}", new, key)
        # a factor is a vector of one there
        state[key] = x[0] if key.startswith("head.scales.") and x.ndim == 1 else x
    return files.fill(model, state, path, COMPUTED.__contains__)
