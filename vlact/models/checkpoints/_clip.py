"""CLIP: open_clip's files of OpenAI's weights."""

from pathlib import Path

import torch
from torch import Tensor

from vlact.models.clip_text import HEAD_WIDTH, TEXT, clip_weights, text_tower
from vlact.models.dual import DualConfig
from vlact.models.files import built
from vlact.models.frames import FrameEncoder
from vlact.models.text import ClipText
from vlact.models.weights import Rules, blocks_of, family, own_pixels, translate

# of pixels in 0..1
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGE: Rules = [(r"(visual\..*)", r"\1"), (r".*", "")]


def image_tower(
    seen: dict[str, Tensor],
    num_frames: int,
    mean: tuple,
    std: tuple,
    path: str | Path,
    text: str = "",
) -> tuple[FrameEncoder, dict[str, Tensor]]:
    """A tower of open_clip's `visual.` weights, and these for pixels in -1..1.

    Its text features are already in the shared space: the projection starts as the identity.

    Args:
        seen: The weights, under open_clip's names.
        num_frames: T that video models made of it will see.
        mean, std: Of the pixels in 0..1 that they were trained on.
        path: Named in errors.
        text: See `DualConfig.text`.

    Raises:
        ValueError: Weights that are no tower's.
    """
    dim, _, patch, _ = seen["visual.conv1.weight"].shape
    # one position is the class token's
    side = round((len(seen["visual.positional_embedding"]) - 1) ** 0.5)
    embed = seen["visual.proj"].shape[1]
    config = DualConfig(
        image_size=side * patch,
        patch_size=patch,
        num_frames=num_frames,
        dim=dim,
        depth=blocks_of(seen, "visual.transformer.resblocks."),
        heads=max(1, dim // HEAD_WIDTH),
        embed_dim=embed,
        text_dim=embed,
        pool="cls",
        motion_input=False,
        conv_stem=False,
        quick_gelu=True,
        text=text,
    )
    pixels, more = own_pixels(seen["visual.conv1.weight"], mean, std)
    places = seen["visual.positional_embedding"].clone()
    places[1:] += more  # the projection has no bias; every patch gets a position
    seen = seen | {"visual.conv1.weight": pixels, "visual.positional_embedding": places}
    seen |= {"text_projection.weight": torch.eye(embed), "text_projection.bias": torch.zeros(embed)}
    return built(lambda: FrameEncoder(config), seen, path), seen


@family("CLIP")
def openai_clip(path: str | Path, num_frames: int = 8) -> tuple[FrameEncoder, ClipText]:
    """Both towers of an OpenAI ViT in open_clip's format (`open_clip_model.safetensors`); shapes
    follow from the file.

    Args:
        path: The file.
        num_frames: T that video models made of it will see.

    Raises:
        FileNotFoundError, ValueError: See `read`, `translate` and `load`; or a file without a
            vision transformer.
    """
    state = clip_weights(path)
    seen, said = translate(state, IMAGE, path), translate(state, TEXT, path)
    clip, _ = image_tower(seen, num_frames, OPENAI_MEAN, OPENAI_STD, path, str(path))
    return clip, ClipText(text_tower(said, path))
