"""TimeSformer: facebookresearch/TimeSformer (K400, HowTo100M), and ProcedureVRL, whose trunk is the
same.
"""

from pathlib import Path

import torch

from vlact.models.dual import DualEncoder
from vlact.models.weights import Rules, family, load, own_pixels, read, stretch, translate

MEAN, STD = (0.45,) * 3, (0.225,) * 3  # of pixels in 0..1 that these files were trained on
TIMESFORMER: Rules = [
    (r"cls_token", "embeddings.cls_token"),
    (r"pos_embed", "embeddings.position_embeddings"),
    (r"time_embed", "embeddings.time_embeddings"),
    (r"patch_embed\.proj\.(weight|bias)", r"embeddings.patch_embeddings.projection.\1"),
    (r"blocks\.(\d+)\.norm1\.(\w+)", r"encoder.layer.\1.layernorm_before.\2"),
    (r"blocks\.(\d+)\.norm2\.(\w+)", r"encoder.layer.\1.layernorm_after.\2"),
    (r"blocks\.(\d+)\.temporal_norm1\.(\w+)", r"encoder.layer.\1.temporal_layernorm.\2"),
    (r"blocks\.(\d+)\.temporal_fc\.(\w+)", r"encoder.layer.\1.temporal_dense.\2"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", r"encoder.layer.\1.attention.attention.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"encoder.layer.\1.attention.output.dense.\2"),
    (
        r"blocks\.(\d+)\.temporal_attn\.qkv\.(\w+)",
        r"encoder.layer.\1.temporal_attention.attention.qkv.\2",
    ),
    (
        r"blocks\.(\d+)\.temporal_attn\.proj\.(\w+)",
        r"encoder.layer.\1.temporal_attention.output.dense.\2",
    ),
    (r"blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"encoder.layer.\1.intermediate.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"encoder.layer.\1.output.dense.\2"),
    (r"norm\.(weight|bias)", r"layernorm.\1"),
    (r"head\.(weight|bias)", r"head.\1"),
]


@family("TimeSformer")
def timesformer(path: str | Path, encoder: DualEncoder, rules: Rules = TIMESFORMER) -> bool:
    """Published weights into the trunk of a `DualEncoder`; another number of frames is stretched.

    Args:
        path: A .pyth file of TimeSformer (divided space-time attention) or ProcedureVRL.
        encoder: With `conv_stem=False, motion_input=False`.
        rules: Of the names; more may be added in front, for heads of other models.

    Returns:
        Whether its projections are set, too: a head with as many rows as the shared space has
        dimensions leads into CLIP's space (ProcedureVRL), where the text's projection is the
        identity. A head of classes is left out and the projections stay as they are.

    Raises:
        ValueError: See `translate` and `load`.
    """
    bare = {k.removeprefix("module.").removeprefix("model."): v for k, v in read(path).items()}
    state = translate(bare, rules, path)
    head = {k: state.pop(f"head.{k}") for k in ("weight", "bias") if f"head.{k}" in state}
    if (times := "embeddings.time_embeddings") in state:
        state[times] = stretch(state[times], encoder.config.num_frames)
    if (patch := "embeddings.patch_embeddings.projection") + ".weight" in state:
        state[f"{patch}.weight"], more = own_pixels(state[f"{patch}.weight"], MEAN, STD)
        state[f"{patch}.bias"] = state[f"{patch}.bias"] + more
    load(encoder.trunk, state, path)
    encoder.eval()
    config = encoder.config
    if (
        set(head) != {"weight", "bias"}
        or len(head["weight"]) != config.embed_dim
        or config.text_dim != config.embed_dim
    ):
        return False
    load(encoder.video_projection, head, path)
    load(
        encoder.text_projection,
        {"weight": torch.eye(config.embed_dim), "bias": torch.zeros(config.embed_dim)},
        path,
    )
    return True
