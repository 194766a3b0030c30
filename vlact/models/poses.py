"""A small convolutional encoder of athletes' frames, the stadium's E_vis: one feature a frame, from
it and its neighbours.

It stands for a video encoder pretrained on people in motion. It learns from the drills that the
language model is aligned on, so that a localizer on vision alone has seen whatever language has.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vlact.models import files

OFFSETS = (-2, 0, 2)  # frames that are seen for a feature


@dataclass(frozen=True)
class PoseConfig:
    """Shape of the encoder: pixels of a side, channels of its layers (each halves the image),
    features, poses named.
    """

    image_size: int = 64
    channels: tuple[int, ...] = (32, 48, 64, 96)
    dim: int = 96
    poses: int = 0

    def __post_init__(self):
        files.bounded(self, image_size=files.PIXELS, dim=files.WIDTH)
        files.bounded(self, 0, poses=files.WIDTH)
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels must be one number or more, from 1; got {self.channels}")


class PoseEncoder(nn.Module):
    """Frames to features; `head` names the pose that the body is on its way to."""

    def __init__(self, config: PoseConfig):
        super().__init__()
        self.config, layers, width = config, [], 9
        for channels in config.channels:
            layers += [
                nn.Conv2d(width, channels, 3, 2, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            width = channels
        self.body = nn.Sequential(*layers)
        self.out = nn.Linear(
            width * (config.image_size // 2 ** len(config.channels)) ** 2, config.dim
        )
        self.head = nn.Linear(config.dim, config.poses)
        self.register_buffer("mean", torch.zeros(config.dim))
        self.register_buffer("std", torch.ones(config.dim))

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, 3, H, W, 3), frames at `OFFSETS`, to standardised features (B, dim)."""
        return (self.see(clips) - self.mean) / self.std

    def see(self, clips: Tensor) -> Tensor:
        """The same before standardisation, what `head` reads."""
        return self.look(clips.permute(0, 1, 4, 2, 3).float().sub_(128).div_(64))

    def look(self, x: Tensor) -> Tensor:
        """`see` of frames as (B, 3, 3, H, W) in -2..2: from the middle one and both differences."""
        before, now, after = x.unbind(1)
        x = torch.cat([now, now - before, after - now], 1).contiguous(
            memory_format=torch.channels_last
        )
        return self.out(self.body(x).flatten(1))

    def save(self, path: str | Path) -> None:
        """Weights and shape as one safetensors file."""
        files.save(path, "poses", asdict(self.config), self.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> "PoseEncoder":
        """Read what `save` wrote.

        Raises:
            ValueError: Another file, or one whose weights do not fit its shape.
        """
        note, state = files.read(path, "poses")
        config = files.config_of(PoseConfig, note, path)
        return files.built(lambda: cls(config), state, path)
