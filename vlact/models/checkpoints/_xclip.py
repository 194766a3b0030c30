"""X-CLIP: transformers' layout (microsoft/xclip-base-patch16 and others)."""

from collections.abc import Iterable
from pathlib import Path

import torch

from vlact.models.checkpoints._clip import image_tower
from vlact.models.checkpoints._videomae import IMAGENET_MEAN, IMAGENET_STD
from vlact.models.clip_text import text_tower
from vlact.models.moving import MovingFrames
from vlact.models.text import ClipText
from vlact.models.weights import Rules, family, load, read, translate
from vlact.models.zoo.xclip import XCLIP as XCLIPModel


def _layer(theirs: str, ours: str) -> Rules:
    """One transformer block of transformers' CLIP as open_clip's."""
    return [
        (rf"{theirs}\.layer_norm([12])\.(\w+)", rf"{ours}.ln_\2.\3"),
        (rf"{theirs}\.self_attn\.in_proj_(\w+)", rf"{ours}.attn.in_proj_\2"),
        (rf"{theirs}\.self_attn\.out_proj\.(\w+)", rf"{ours}.attn.out_proj.\2"),
        (rf"{theirs}\.mlp\.fc1\.(\w+)", rf"{ours}.mlp.c_fc.\2"),
        (rf"{theirs}\.mlp\.fc2\.(\w+)", rf"{ours}.mlp.c_proj.\2"),
    ]


XCLIP_TEXT: Rules = [
    (r"text_model\.embeddings\.token_embedding\.weight", "token_embedding.weight"),
    (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    *_layer(r"text_model\.encoder\.layers\.(\d+)", r"transformer.resblocks.\1"),
    (r"text_model\.final_layer_norm\.(\w+)", r"ln_final.\1"),
    (r"text_projection\.weight", "text_projection"),
    (r"text_model\.embeddings\.position_ids|(?!text_).*", ""),
]
XCLIP: Rules = [
    (r"vision_model\.embeddings\.class_embedding", "clip.visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", "clip.visual.conv1.weight"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "clip.visual.positional_embedding"),
    (r"vision_model\.(pre|post)_layernorm\.(\w+)", r"clip.visual.ln_\1.\2"),
    *_layer(r"vision_model\.encoder\.layers\.(\d+)", r"clip.visual.transformer.resblocks.\1"),
    (r"vision_model\.encoder\.layers\.(\d+)\.message_fc\.(\w+)", r"messages.\1.make.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.message_ln\.(\w+)", r"messages.\1.norm.\2"),
    (
        r"vision_model\.encoder\.layers\.(\d+)\.message_attn\.in_proj_(\w+)",
        r"messages.\1.attention.in_proj_\2",
    ),
    (
        r"vision_model\.encoder\.layers\.(\d+)\.message_attn\.out_proj\.(\w+)",
        r"messages.\1.attention.out_proj.\2",
    ),
    (r"visual_projection\.weight", "clip.visual.proj"),
    (r"mit\.position_embedding", "integrate.position"),
    *_layer(r"mit\.encoder\.layers\.(\d+)", r"integrate.blocks.resblocks.\1"),
    (r"prompts_visual_layernorm\.(\w+)", r"patches.0.\1"),
    (r"prompts_visual_projection", "patches.1.weight"),
    (r"prompts_generator\.layernorm\.(\w+)", r"seen.\1"),
    (r"prompts_generator\.alpha", "scale"),
    (
        r"prompts_generator\.decoder\.(\d+)\.cross_attn\.in_proj_weight",
        r"readers.\1.attention.in_proj_weight",
    ),
    (
        r"prompts_generator\.decoder\.(\d+)\.cross_attn\.proj\.(\w+)",
        r"readers.\1.attention.out_proj.\2",
    ),
    (r"prompts_generator\.decoder\.(\d+)\.norm1\.(\w+)", r"readers.\1.norm.\2"),
    (r"prompts_generator\.decoder\.(\d+)\.norm3\.(\w+)", r"readers.\1.norm_mlp.\2"),
    (r"prompts_generator\.decoder\.(\d+)\.mlp\.0\.(\w+)", r"readers.\1.mlp.0.\2"),
    (r"prompts_generator\.decoder\.(\d+)\.mlp\.3\.(\w+)", r"readers.\1.mlp.2.\2"),
    (r"text_.*|logit_scale|.*position_ids", ""),
]


@family("X-CLIP")
def xclip(path: str | Path, names: list[str], others: Iterable[str] = ()) -> XCLIPModel:
    """A published X-CLIP in transformers' layout, ready to tell `names` apart; shapes follow from
    the file.

    Args:
        path: Its safetensors or bin file.
        names: The classes; their features come from the file's own text tower.
        others: Further strings that it may be asked for.

    Raises:
        ValueError: See `translate` and `load`; or a file that is no X-CLIP.
    """
    state = read(path)
    wanted = (
        "vision_model.embeddings.patch_embedding.weight",
        "mit.position_embedding",
        "prompts_generator.alpha",
        "logit_scale",
    )
    if lacking := [k for k in wanted if k not in state]:
        raise ValueError(f"{path}: expected transformers' names of an X-CLIP; missing {lacking}")
    # queries, keys and values are one matrix here
    for key in [k for k in state if ".q_proj." in k]:
        parts = [state.pop(key.replace(".q_proj.", f".{x}_proj.")) for x in "qkv"]
        state[key.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    said, seen = translate(state, XCLIP_TEXT, path), translate(state, XCLIP, path)
    said["text_projection"] = said["text_projection"].T
    for name in ("clip.visual.proj", "patches.1.weight"):
        seen[name] = seen[name].T
    seen["integrate.position"] = seen["integrate.position"][0]
    visual = {k.removeprefix("clip."): v for k, v in seen.items() if k.startswith("clip.")}
    frames = len(seen["integrate.position"])
    clip, visual = image_tower(visual, frames, IMAGENET_MEAN, IMAGENET_STD, path)
    texts = list(dict.fromkeys([*names, *others]))
    words = dict(zip(texts, ClipText(text_tower(said, path), unit=False)(texts), strict=True))
    model = XCLIPModel(
        MovingFrames(clip.config), words, names, float((-state["logit_scale"]).exp())
    )
    return load(model, seen | {f"clip.{k}": v for k, v in visual.items()}, path)
