"""A dual encoder on features that never change: linear heads into one space of video and text.

It has the face of `vlact.models.dual.DualEncoder` that methods of `vlact.models.zoo` train, with no
blocks: frames come as pooled features of a frozen image encoder, text as that of a frozen trunk.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlact.models import files


@dataclass(frozen=True)
class AlignedConfig:
    """Shape of an `AlignedEncoder`."""

    dim: int  # of a frame's features
    text_dim: int = 384
    embed_dim: int = 384
    num_frames: int = 8
    depth: int = 0  # blocks that could be trained
    text: str = ""  # all-MiniLM-L6-v2

    def __post_init__(self):
        files.bounded(self, dim=files.WIDTH, text_dim=files.WIDTH, embed_dim=files.WIDTH)
        files.bounded(self, num_frames=files.FRAMES)


class AlignedEncoder(nn.Module):
    """E and G of ACE as linear maps of standardised features.

    Attributes:
        mean, spread: Of the features (dim,) that heads were trained on; features less the mean,
            divided by the spread, go into the head.
    """

    def __init__(self, config: AlignedConfig):
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.dim))
        self.register_buffer("spread", torch.ones(config.dim))
        self.video_projection = nn.Linear(config.dim, config.embed_dim)
        self.text_projection = nn.Linear(config.text_dim, config.embed_dim)

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Take mean and spread from features (N, dim)."""
        self.mean.copy_(features.mean(0))
        self.spread.copy_(features.std(0) + 1e-3 * features.std())

    def frames(self, features: Tensor) -> Tensor:
        """Frame features (B, T, dim), standardised."""
        return (features.float() - self.mean) / self.spread

    def last(self, features: Tensor, frozen_blocks: int) -> Tensor:
        """Frame features (B, T, dim) to those of clips (B, dim), their mean."""
        return self.frames(features).mean(1)

    def tunable(self, frozen_blocks: int) -> list[nn.Module]:
        """What is trained of the video side."""
        return [self.video_projection]

    def embed_video(self, features: Tensor) -> Tensor:
        """Standardised features (.., dim) to the shared space (.., D), unit length."""
        return normalize(self.video_projection(features).float(), dim=-1)

    def embed_text(self, features: Tensor) -> Tensor:
        """Frozen text features (N, text_dim) to the shared space (N, D), unit length."""
        return normalize(self.text_projection(features).float(), dim=-1)

    def save(self, path) -> None:
        """Weights and shape as one safetensors file."""
        files.save(path, "config", asdict(self.config), self.state_dict())

    @classmethod
    def load(cls, path) -> "AlignedEncoder":
        """Read what `save` wrote; raises like `vlact.models.dual.DualEncoder.load`."""
        note, state = files.read(path, "config")
        config = files.config_of(AlignedConfig, note, path)
        return files.built(lambda: cls(config), state, path)
