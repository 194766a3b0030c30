"""The video-text dual encoder of ProcedureVRL (CVPR 2023) and ACE: TimeSformer, text, one space.

E(clip): `transformers.TimesformerModel` with divided space-time attention, pooled and projected.
G(text): frozen sentence features, projected. Both outputs have unit length. The video trunk is cut
in two so that the activations of its frozen first blocks can be kept instead of computed every
epoch.

Deviations of the `mini` shape from TimeSformer-B, none of which `paper` uses: few blocks, 64 px,
mean pooling over all tokens (`pool="mean"`), the difference to the previous frame as three more
input channels (`motion_input`), and three small convolutions in place of the patch projection
(`conv_stem`). With the patch projection, training needs several times as many steps.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlact.models import files

# brings frame differences to the spread of the frames; at 2, learning starts hundreds of steps
# later
MOTION_SCALE = 10.0


@dataclass(frozen=True)
class DualConfig:
    """Shape of the encoder."""

    image_size: int  # pixels, square
    patch_size: int  # pixels
    num_frames: int
    dim: int  # width of the TimeSformer
    depth: int  # blocks
    heads: int
    embed_dim: int  # D, the shared space
    text_dim: int  # width of the frozen text features
    pool: str = "mean"  # "mean" over all tokens, or "cls"
    motion_input: bool = True
    conv_stem: bool = True
    # of an image tower: x sigmoid(1.702 x), which OpenAI's weights were trained with
    quick_gelu: bool = False
    text: str = ""  # whose features of texts it takes, see `vlact.models.text.sentence_encoder`

    def __post_init__(self):
        files.bounded(self, image_size=files.PIXELS, patch_size=files.PIXELS)
        files.bounded(self, num_frames=files.FRAMES, depth=files.BLOCKS, heads=files.HEADS)
        files.bounded(self, dim=files.WIDTH, embed_dim=files.WIDTH, text_dim=files.WIDTH)
        if self.pool not in ("cls", "mean"):
            raise ValueError(f"pool must be 'cls' or 'mean'; got {self.pool!r}")
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads; got {self.dim} and {self.heads}")


def conv_stem(channels: int, dim: int, patch_size: int) -> nn.Sequential:
    """Three convolutions with the stride and output shape of a patch projection."""
    return nn.Sequential(
        nn.Conv2d(channels, dim // 4, patch_size // 4, patch_size // 4),
        nn.BatchNorm2d(dim // 4),
        nn.ReLU(),
        nn.Conv2d(dim // 4, dim // 2, 3, 2, 1),
        nn.BatchNorm2d(dim // 2),
        nn.ReLU(),
        nn.Conv2d(dim // 2, dim, 3, 2, 1),
    )


class DualEncoder(nn.Module):
    """E and G of ACE; see the module's text."""

    def __init__(self, config: DualConfig):
        super().__init__()
        from transformers import TimesformerConfig, TimesformerModel

        self.config = config
        self.trunk = TimesformerModel(
            TimesformerConfig(
                image_size=config.image_size,
                patch_size=config.patch_size,
                num_channels=6 if config.motion_input else 3,
                num_frames=config.num_frames,
                hidden_size=config.dim,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.dim,
                # about 1/sqrt(dim) of the small network
                initializer_range=0.06 if config.conv_stem else 0.02,
            )
        )
        if config.conv_stem:
            self.trunk.embeddings.patch_embeddings.projection = conv_stem(
                self.trunk.config.num_channels, config.dim, config.patch_size
            )
        nn.init.trunc_normal_(self.trunk.embeddings.time_embeddings, std=0.02)
        self.video_projection = nn.Linear(config.dim, config.embed_dim)
        self.text_projection = nn.Linear(config.text_dim, config.embed_dim)

    def prepare(self, clips: Tensor) -> Tensor:
        """uint8 clips (B, T, H, W, 3) to the trunk's input (B, T, C, H, W) in about -1..1."""
        x = clips.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
        if self.config.motion_input:
            motion = torch.zeros_like(x)
            motion[:, 1:] = x[:, 1:] - x[:, :-1]
            x = torch.cat([x, MOTION_SCALE * motion], 2)
        return x

    def first(self, clips: Tensor, frozen_blocks: int) -> Tensor:
        """uint8 clips (B, T, H, W, 3) to tokens (B, 1 + P*T, dim) after the first blocks."""
        tokens = self.trunk.embeddings(self.prepare(clips))
        for layer in self.trunk.encoder.layer[:frozen_blocks]:
            tokens = layer(tokens)[0]
        return tokens

    def last(self, tokens: Tensor, frozen_blocks: int) -> Tensor:
        """Tokens from `first` to pooled features (B, dim)."""
        for layer in self.trunk.encoder.layer[frozen_blocks:]:
            tokens = layer(tokens)[0]
        tokens = self.trunk.layernorm(tokens)
        return tokens[:, 0] if self.config.pool == "cls" else tokens[:, 1:].mean(1)

    def tunable(self, frozen_blocks: int) -> list[nn.Module]:
        """What is trained of the video side behind the frozen blocks."""
        return [
            *self.trunk.encoder.layer[frozen_blocks:],
            self.trunk.layernorm,
            self.video_projection,
        ]

    def embed_video(self, features: Tensor) -> Tensor:
        """Pooled features (B, dim) to the shared space (B, D), unit length."""
        return normalize(self.video_projection(features).float(), dim=-1)

    def embed_text(self, features: Tensor) -> Tensor:
        """Frozen text features (N, text_dim) to the shared space (N, D), unit length."""
        return normalize(self.text_projection(features).float(), dim=-1)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 clips (B, T, H, W, 3) to video embeddings (B, D)."""
        return self.embed_video(self.last(self.first(clips, 0), 0))

    def save(self, path) -> None:
        """Weights and shape as one safetensors file."""
        files.save(path, "config", asdict(self.config), self.state_dict())

    @classmethod
    def load(cls, path) -> "DualEncoder":
        """Read what `save` wrote.

        Raises:
            ValueError: Another file, one whose weights do not fit its shape, or one whose text
                tower lies elsewhere, see `vlact.models.files.inside`.
        """
        config, state = read_config(path)
        return files.built(lambda: cls(config), state, path)


def read_config(path) -> tuple[DualConfig, dict[str, Tensor]]:
    """Shape and weights of an encoder's file; raises like `DualEncoder.load`."""
    note, state = files.read(path, "config")
    config = files.config_of(DualConfig, note, path)
    files.inside(config.text, path, "text")
    return config, state
