"""The video-text dual encoder of ProcedureVRL (CVPR 2023) and ACE: TimeSformer, text, one space.

E(clip): `transformers.TimesformerModel` with divided space-time attention, pooled and projected.
G(text): frozen sentence features, projected. Both outputs have unit length. The video trunk is cut in
two so that the activations of its frozen first blocks can be kept instead of computed every epoch.

Deviations of the `mini` shape from TimeSformer-B, none of which `paper` uses: few blocks, 64 px, mean
pooling over all tokens (`pool="mean"`), the difference to the previous frame as three more input
channels (`motion_input`), and three small convolutions in place of the patch projection
(`conv_stem`). With the patch projection, training needs several times as many steps.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

MOTION_SCALE = 10.0  # brings frame differences to the spread of the frames; at 2, learning starts hundreds of steps later


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

    def __post_init__(self):
        if self.pool not in ("cls", "mean"):
            raise ValueError(f"pool must be 'cls' or 'mean'; got {self.pool!r}")


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
                initializer_range=0.06 if config.conv_stem else 0.02,  # about 1/sqrt(dim) of the small network
            )
        )
        if config.conv_stem:
            self.trunk.embeddings.patch_embeddings.projection = conv_stem(self.trunk.config.num_channels, config.dim, config.patch_size)
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
        """Weights and shape as one safetensors file, written whole or not at all."""
        save_module(self, path)

    @classmethod
    def load(cls, path) -> "DualEncoder":
        """Read what `save` wrote.

        Raises:
            ValueError: The file has no shape in its header or does not fit it.
        """
        return load_module(cls, path)


def save_module(module: nn.Module, path) -> None:
    """Weights and `module.config` as one safetensors file, written whole or not at all."""
    import json
    import os

    from safetensors.torch import save_file

    state = {k: v.contiguous() for k, v in module.state_dict().items()}
    save_file(state, f"{path}.tmp", metadata={"config": json.dumps(asdict(module.config))})
    os.replace(f"{path}.tmp", path)


def load_module(kind: type, path):
    """A `kind(DualConfig)` from a file of `save_module`, strictly, in evaluation mode."""
    import json

    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        header = (file.metadata() or {}).get("config")
        if header is None:
            raise ValueError(f"{path}: expected a 'config' entry in the safetensors header; was it written by {kind.__name__}.save?")
        model = kind(DualConfig(**json.loads(header)))
        missing, unexpected = model.load_state_dict({k: file.get_tensor(k) for k in file.keys()}, strict=False)
    model.eval()
    if missing or unexpected:
        raise ValueError(f"{path}: missing {list(missing)[:5]}, unexpected {list(unexpected)[:5]}")
    return model
