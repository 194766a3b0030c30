"""CLIP's image tower shown how frames differ from the ones before: what video models here make of
CLIP.

A tower of 64 pixels and three blocks sees little of motion in single frames. With `motion`, the
difference to the frame before enters as three more channels of the first convolution, whose new
weights are zero, so that a video model starts from what CLIP sees; the stem is then trained, also
by methods that freeze CLIP. `paper` has neither.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from vlact.models import files
from vlact.models.dual import DualConfig
from vlact.models.frames import FrameEncoder

MOTION_SCALE = 5.0  # brings frame differences to the spread of the frames


class MovingFrames(FrameEncoder):
    """`FrameEncoder` whose first convolution may see differences. Frozen, but for the stem where
    there is motion.

    Args:
        config: Its shape.
        motion: See the module's text; asks for a convolutional stem.

    Raises:
        ValueError: `motion` of a tower without a convolutional stem.
    """

    def __init__(self, config: DualConfig, motion: bool = False):
        super().__init__(config)
        if motion and not config.conv_stem:
            raise ValueError(
                "motion=True needs a tower with a convolutional stem (conv_stem: true); this one "
                "has a patch projection"
            )
        self.motion = motion
        if motion:
            old = self.visual.conv1[0]
            new = nn.Conv2d(6, old.out_channels, old.kernel_size, old.stride)
            with torch.no_grad():
                new.weight.zero_()
                new.weight[:, :3], new.bias[:] = old.weight, old.bias
            self.visual.conv1[0] = new
        self.requires_grad_(False)
        self.visual.conv1.requires_grad_(motion)

    @classmethod
    def start(cls, path, motion: bool = False, frames: int | None = None) -> "MovingFrames":
        """From a file of a `FrameEncoder`; `frames` replaces its T."""
        clip = FrameEncoder.load(path)
        self = cls(replace(clip.config, num_frames=frames or clip.config.num_frames), motion)
        state = clip.state_dict()
        if motion:
            name = "visual.conv1.0.weight"
            state[name] = torch.cat([state[name], torch.zeros_like(state[name])], 1)
        return files.fill(self, state, path)

    def first(self, clips: Tensor, frozen_blocks: int) -> Tensor:
        """uint8 clips (B, T, H, W, 3) to tokens of every frame (B, T, 1 + P, dim) after the first
        blocks.
        """
        if not self.motion:
            return super().first(clips, frozen_blocks)
        x = clips.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
        x = torch.cat([x, MOTION_SCALE * (x - torch.cat([x[:, :1], x[:, :-1]], 1))], 2)
        tokens = self.visual._embeds(x.flatten(0, 1))
        for block in self.visual.transformer.resblocks[:frozen_blocks]:
            tokens = block(tokens)
        return tokens.unflatten(0, clips.shape[:2])

    def train(self, mode: bool = True):
        """The norms of a stem that is not trained keep what they have seen."""
        super().train(mode)
        self.visual.conv1.train(mode and self.motion)
        return self
