"""CLIP's text tower out of files of open_clip's names. It stands apart from the families of
`vlact.models.checkpoints`, which take texts through `vlact.models.text`, which takes this.
"""

from pathlib import Path

from torch import Tensor, nn

from vlact.models.files import built
from vlact.models.weights import Rules, blocks_of, family, read, translate

HEAD_WIDTH = 64  # channels of a head of attention
WANTED = ("visual.conv1.weight", "token_embedding.weight")
TEXT: Rules = [(r"(visual\..*|logit_scale)", ""), (r"(.*)", r"\1")]


def text_tower(said: dict[str, Tensor], path: str | Path) -> nn.Module:
    """open_clip's text tower with its weights; the shape follows from them."""
    from open_clip.model import CLIPTextCfg, _build_text_tower

    words, width = said["token_embedding.weight"].shape
    shape = CLIPTextCfg(
        context_length=len(said["positional_embedding"]),
        vocab_size=words,
        width=width,
        heads=max(1, width // HEAD_WIDTH),
        layers=blocks_of(said, "transformer.resblocks."),
    )
    embed = said["text_projection"].shape[1]
    return built(lambda: _build_text_tower(embed, shape, quick_gelu=True), said, path)


def clip_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights of both towers of a CLIP in open_clip's format.

    Raises:
        FileNotFoundError, ValueError: See `vlact.models.weights.read`; or a file without a vision
            transformer.
    """
    state = read(path)
    if not set(WANTED) <= set(state):
        raise ValueError(
            f"{path}: expected open_clip's names, such as {WANTED}; got {sorted(state)[:3]}"
        )
    return state


@family("CLIP")
def openai_text(path: str | Path) -> nn.Module:
    """The text tower of an OpenAI ViT in open_clip's format; the shape follows from the file.

    Raises:
        FileNotFoundError, ValueError: See `clip_weights`; or weights that do not fit.
    """
    return text_tower(translate(clip_weights(path), TEXT, path), path)
