"""Re2TAL (CVPR 2023): end-to-end localization through a video backbone whose activations are not
kept but computed backwards, and ActionFormer on what it sees.

A stage of Video Swin is rewired: its input is two equal streams, a block adds attention of the
second to the first and an MLP of the first to the second (y1 = x1 + F(x2), y2 = x2 + G(y1)), the
mean of both goes on. So the backward pass finds a block's input from its output, and a stage keeps
its last output alone, however many blocks it has.

Parameters have the names of OpenTAD's files (sming256/OpenTAD, commit 3dd7b03), its Re2Swin-T among
them. Otherwise than there no paths are dropped in training (there 0.2), and norms are trained like
all else.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vlact.models.actionformer import ActionFormer
from vlact.models.adatad import MEAN, STD, AdaTAD, AdaTADConfig
from vlact.models.zoo.revmvit import Reversible, ReversibleBlock
from vlact.runtime.extras import needs

with needs("vlact.models.re2tal"):
    from torchvision.models.swin_transformer import PatchMerging
    from torchvision.models.video.swin_transformer import PatchEmbed3d, ShiftedWindowAttention3d


@dataclass(frozen=True)
class ReSwinConfig:
    """Shape of the backbone, Re2Swin-T's unless said.

    Attributes:
        dim: Channels of the first stage, twice as many in each next one.
        depths, heads: Blocks and heads by stage.
        window: Frames (of tokens), rows and columns that attend to each other.
        patch: Frames, rows and columns of a token.
        mlp_ratio: Width of an MLP, as a multiple of the channels.
        num_frames: Of which a window has a multiple.
    """

    dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: tuple[int, int, int] = (8, 7, 7)
    patch: tuple[int, int, int] = (2, 4, 4)
    mlp_ratio: float = 4.0
    num_frames: int = 2


@dataclass(frozen=True)
class Re2TALConfig(AdaTADConfig):
    """The same of `Re2TAL`."""

    tower: ReSwinConfig = field(default_factory=ReSwinConfig)
    scale: int = 2


class Attend(nn.Module):
    """F of a block: a norm, and attention within windows (B, T, H, W, D)."""

    def __init__(self, dim: int, heads: int, window: list[int], shift: list[int]):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ShiftedWindowAttention3d(dim, window, shift, heads)

    def forward(self, x: Tensor, size=None) -> Tensor:
        return self.attn(self.norm1(x))


class Mix(nn.Module):
    """G of a block: a norm and an MLP."""

    def __init__(self, dim: int, inside: int):
        super().__init__()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, inside), "fc2": nn.Linear(inside, dim)})

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class Block(ReversibleBlock):
    """Two streams (B, T, H, W, D) to the same."""

    def __init__(self, config: ReSwinConfig, stage: int, shifted: bool):
        nn.Module.__init__(self)
        dim, window = config.dim * 2**stage, list(config.window)
        shift = [w // 2 if shifted else 0 for w in window]
        attend = Attend(dim, config.heads[stage], window, shift)
        parts = {"Fm": attend, "Gm": Mix(dim, int(dim * config.mlp_ratio))}
        self.inv_block = nn.ModuleDict(parts)

    @property
    def f(self) -> Attend:
        """What of the second stream is added to the first."""
        return self.inv_block["Fm"]

    @property
    def g(self) -> Mix:
        """What of the first stream is then added to the second."""
        return self.inv_block["Gm"]


class Stage(nn.Module):
    """Blocks, every other one with shifted windows, and half the height and width at the end."""

    def __init__(self, config: ReSwinConfig, stage: int, last: bool, reversible: bool):
        super().__init__()
        self.reversible = reversible
        self.blocks = nn.ModuleList(
            Block(config, stage, i % 2 == 1) for i in range(config.depths[stage])
        )
        self.downsample = None if last else PatchMerging(config.dim * 2**stage)

    def forward(self, x: Tensor) -> Tensor:
        y1 = y2 = x
        if self.reversible and torch.is_grad_enabled():
            y1, y2 = Reversible.apply(x, x, self.blocks, None)
        else:
            for block in self.blocks:
                y1, y2 = block(y1, y2, None)
        x = (y1 + y2) / 2
        return x if self.downsample is None else self.downsample(x)


class ReSwin(nn.Module):
    """uint8 frames (B, F, H, W, 3) to features (B, F / patch frames, D), means over positions.

    Args:
        config: Shape.
        reversible: False keeps all activations: the same numbers with ordinary backpropagation.
    """

    def __init__(self, config: ReSwinConfig, reversible: bool = True):
        super().__init__()
        self.config, last = config, len(config.depths) - 1
        self.patch_embed = PatchEmbed3d(list(config.patch), 3, config.dim, nn.LayerNorm)
        self.layers = nn.ModuleList(
            Stage(config, i, i == last, reversible) for i in range(last + 1)
        )
        self.norm3 = nn.LayerNorm(config.dim * 2**last)
        self.register_buffer("mean", torch.tensor(MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(STD), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        x = ((frames.to(self.mean.dtype) - self.mean) / self.std).permute(0, 4, 1, 2, 3)
        x = self.patch_embed(x)
        for stage in self.layers:
            x = stage(x)
        return self.norm3(x).mean((2, 3))


class Re2TAL(AdaTAD):
    """Frames to class logits and distances at every point.

    Args:
        config: Shape.
        reversible: See `ReSwin`.
    """

    def __init__(self, config: Re2TALConfig, reversible: bool = True):
        nn.Module.__init__(self)
        self.shape, self.tower = config, ReSwin(config.tower, reversible)
        self.localizer = ActionFormer(config.localizer)
