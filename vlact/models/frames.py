"""CLIP on single frames: open_clip's image tower and projected sentence features, one space.

What ViFi-CLIP, BIKE and Text4Vis start from. It sees no motion, so what it knows of an action is
the object and the pose, which is the bias that ACE's Table 1 speaks of. The `mini` shape has few
blocks, 64 px and the convolutional stem of `vlact.models.dual`.
"""

from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlact.models import files
from vlact.models.dual import DualConfig, conv_stem, read_config


class FrameEncoder(nn.Module):
    """Image and text encoder of CLIP; the image tower is cut in two like `DualEncoder`."""

    def __init__(self, config: DualConfig):
        super().__init__()
        from open_clip.transformer import QuickGELU, VisionTransformer

        self.config = config
        self.visual = VisionTransformer(
            config.image_size,
            config.patch_size,
            config.dim,
            config.depth,
            config.heads,
            4.0,
            output_dim=config.embed_dim,
            no_ln_pre=config.conv_stem,
            pool_type="avg" if config.pool == "mean" else "tok",
            act_layer=QuickGELU if config.quick_gelu else nn.GELU,
        )
        if config.conv_stem:
            self.visual.conv1 = conv_stem(3, config.dim, config.patch_size)
        self.text_projection = nn.Linear(config.text_dim, config.embed_dim)

    def first(self, clips: Tensor, frozen_blocks: int) -> Tensor:
        """uint8 clips (B, T, H, W, 3) to tokens of every frame (B, T, 1 + P, dim) after the first
        blocks.
        """
        frames = clips.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1
        tokens = self.visual._embeds(frames)
        for block in self.visual.transformer.resblocks[:frozen_blocks]:
            tokens = block(tokens)
        return tokens.unflatten(0, clips.shape[:2])

    def last(self, tokens: Tensor, frozen_blocks: int) -> Tensor:
        """Tokens from `first` to frame embeddings (B, T, D), not normalised."""
        shape, tokens = tokens.shape[:2], tokens.flatten(0, 1)
        for block in self.visual.transformer.resblocks[frozen_blocks:]:
            tokens = block(tokens)
        pooled, _ = self.visual._pool(tokens)
        return (pooled @ self.visual.proj).unflatten(0, shape)

    def embed_text(self, features: Tensor) -> Tensor:
        """Frozen text features (N, text_dim) to the shared space (N, D), unit length."""
        return normalize(self.text_projection(features).float(), dim=-1)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 clips (B, T, H, W, 3) to clip embeddings (B, D): the mean over the frames' unit
        embeddings.
        """
        return normalize(
            normalize(self.last(self.first(clips, 0), 0).float(), dim=-1).mean(1), dim=-1
        )

    def save(self, path) -> None:
        """Weights and shape as one safetensors file."""
        files.save(path, "config", asdict(self.config), self.state_dict())

    @classmethod
    def load(cls, path) -> "FrameEncoder":
        """Read what `save` wrote; raises like `DualEncoder.load`."""
        config, state = read_config(path)
        return files.built(lambda: cls(config), state, path)


@torch.no_grad()
def inflate(encoder, frames: FrameEncoder) -> None:
    """Start a TimeSformer (`DualEncoder`) from an image tower, as its authors do from ImageNet
    weights.

    Patch embedding, spatial attention and MLP are copied; temporal attention keeps its
    initialisation with a zero output layer (`temporal_dense`), so that at first every frame is seen
    as the image tower sees it.
    """
    visual, trunk = frames.visual, encoder.trunk
    trunk.embeddings.cls_token.copy_(visual.class_embedding.view(1, 1, -1))
    trunk.embeddings.position_embeddings.copy_(visual.positional_embedding[None])
    own, given = trunk.embeddings.patch_embeddings.projection, visual.conv1
    state = {k: v.clone() for k, v in own.state_dict().items()}
    for key, value in given.state_dict().items():
        if state[key].shape == value.shape:
            state[key] = value
        else:  # six input channels: colour as given, motion as initialised
            state[key][:, : value.shape[1]] = value
    own.load_state_dict(state)
    for layer, block in zip(trunk.encoder.layer, visual.transformer.resblocks, strict=True):
        pairs = [
            (layer.layernorm_before, block.ln_1),
            (layer.attention.output.dense, block.attn.out_proj),
            (layer.layernorm_after, block.ln_2),
            (layer.intermediate.dense, block.mlp.c_fc),
            (layer.output.dense, block.mlp.c_proj),
        ]
        for mine, theirs in pairs:
            mine.weight.copy_(theirs.weight)
            mine.bias.copy_(theirs.bias)
        layer.attention.attention.qkv.weight.copy_(block.attn.in_proj_weight)
        layer.attention.attention.qkv.bias.copy_(block.attn.in_proj_bias)
        nn.init.zeros_(layer.temporal_dense.weight)
        nn.init.zeros_(layer.temporal_dense.bias)
    trunk.layernorm.weight.copy_(visual.ln_post.weight)
    trunk.layernorm.bias.copy_(visual.ln_post.bias)
