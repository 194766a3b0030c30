"""VideoMAE and VideoMAEv2: the official fine-tuned files, and MMAction2's copies of them."""

from pathlib import Path

import torch
from torch import Tensor, nn

from vlact.models.files import built
from vlact.models.weights import Rules, blocks_of, family, read, translate

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in 0..1
HEAD_WIDTH = 64  # channels of a head of attention
VIDEOMAE: Rules = [
    (r"patch_embed\.proj\.(\w+)", r"videomae.embeddings.patch_embeddings.projection.\1"),
    (r"blocks\.(\d+)\.norm1\.(\w+)", r"videomae.encoder.layer.\1.layernorm_before.\2"),
    (r"blocks\.(\d+)\.norm2\.(\w+)", r"videomae.encoder.layer.\1.layernorm_after.\2"),
    (r"blocks\.(\d+)\.attn\.q_bias", r"videomae.encoder.layer.\1.attention.attention.query.bias"),
    (r"blocks\.(\d+)\.attn\.v_bias", r"videomae.encoder.layer.\1.attention.attention.value.bias"),
    (
        r"blocks\.(\d+)\.attn\.(query|key|value)\.weight",
        r"videomae.encoder.layer.\1.attention.attention.\2.weight",
    ),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"videomae.encoder.layer.\1.attention.output.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"videomae.encoder.layer.\1.intermediate.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"videomae.encoder.layer.\1.output.dense.\2"),
    (r"fc_norm\.(\w+)", r"fc_norm.\1"),
    (r"head\.(\w+)", r"classifier.\1"),
]
MMACTION2: Rules = [  # its copies of them, which OpenTAD reads too, by their official names
    (r"backbone\.patch_embed\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (r"backbone\.(blocks\.\d+\.mlp)\.layers\.0\.0\.(\w+)", r"\1.fc1.\2"),
    (r"backbone\.(blocks\.\d+\.mlp)\.layers\.1\.(\w+)", r"\1.fc2.\2"),
    (r"backbone\.((?:blocks|fc_norm)\..+)", r"\1"),
    (r"backbone\.pos_embed", ""),  # sines and cosines, computed here
    (r"cls_head\.fc_cls\.(\w+)", r"head.\1"),
]


@family("VideoMAE")
def videomae(
    path: str | Path, num_frames: int = 16, image_size: int = 224, heads: int | None = None
) -> nn.Module:
    """A fine-tuned VideoMAE or VideoMAEv2 (S, B, L) as
    `transformers.VideoMAEForVideoClassification`; shapes follow from the file.

    Args:
        path: Such as `vit_s_k710_dl_from_giant.pth`, or MMAction2's file of the same weights; it
            holds one matrix for queries, keys and values.
        num_frames, image_size: Of a clip. Positions are computed, so any will do.
        heads: Of attention; channels / 64 if not given.

    Raises:
        ValueError: See `translate` and `load`; or a file without VideoMAE's names, or with
            positions that were learned.
    """
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    state = read(path)
    if "backbone.patch_embed.projection.weight" in state:
        start = torch.tensor([[[0.0, 1.0]]])  # sine and cosine of zero
        if (state.get("backbone.pos_embed", start)[0, 0].view(-1, 2) != start).any():
            raise ValueError(
                f"{path}: expected backbone.pos_embed to be sines and cosines, found a learned "
                "table"
            )
        state = translate(state, MMACTION2, path)
    wanted = (
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.q_bias",
        "head.weight",
    )
    if lacking := [k for k in wanted if k not in state]:
        raise ValueError(f"{path}: expected the names of a fine-tuned VideoMAE; missing {lacking}")
    # one matrix of theirs is three here
    for key in [k for k in state if k.endswith(".attn.qkv.weight")]:
        for name, part in zip(("query", "key", "value"), state.pop(key).chunk(3), strict=True):
            state[key.replace("qkv", name)] = part
    dim, _, tubelet, patch, _ = state["patch_embed.proj.weight"].shape
    config = VideoMAEConfig(
        image_size=image_size,
        patch_size=patch,
        num_frames=num_frames,
        tubelet_size=tubelet,
        hidden_size=dim,
        qkv_bias=True,
        num_hidden_layers=blocks_of(state, "blocks."),
        use_mean_pooling=True,
        num_attention_heads=heads or dim // HEAD_WIDTH,
        intermediate_size=len(state["blocks.0.mlp.fc1.bias"]),
        layer_norm_eps=1e-6,
        num_labels=len(state["head.weight"]),
    )
    state = translate(state, VIDEOMAE, path)
    return built(lambda: VideoMAEForVideoClassification(config), state, path)


class VideoMAE(nn.Module):
    """A fine-tuned VideoMAE as an encoder of clips, for `vlact.training.features.extract`: the mean
    of its tokens after the norm.

    Args:
        model: From `videomae`.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.config = model, model.config  # which has num_frames and image_size

    @classmethod
    def load(cls, path: str | Path, **shape) -> "VideoMAE":
        """From a published file; `shape` as in `videomae`.

        Raises:
            ValueError: See `videomae`.
        """
        return cls(videomae(path, **shape)).eval()

    def first(self, clips: Tensor, frozen_blocks: int) -> Tensor:
        """uint8 clips (B, T, H, W, 3) to tokens (B, N, dim); all blocks or none, as `frozen_blocks`
        is 0.
        """
        mean, std = (
            torch.tensor(x, device=clips.device).view(3, 1, 1)
            for x in (IMAGENET_MEAN, IMAGENET_STD)
        )
        return self.model.videomae(
            (clips.permute(0, 1, 4, 2, 3) / 255 - mean) / std
        ).last_hidden_state

    def last(self, tokens: Tensor, frozen_blocks: int) -> Tensor:
        """Tokens from `first` to features (B, dim)."""
        return self.model.fc_norm(tokens.mean(1))
