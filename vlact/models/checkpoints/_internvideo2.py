"""InternVideo2's video tower: what only teaches or classifies is left out."""

from pathlib import Path

from vlact.models.files import built
from vlact.models.internvideo2 import InternVideo2, InternVideo2Config, other_frames
from vlact.models.weights import Rules, blocks_of, family, read, translate

PIXELS = 224  # of a side of the released files' frames
HEAD_WIDTH = 64  # channels of a head of attention
INTERNVIDEO2: Rules = [
    (r"((?:patch_embed|blocks|clip_projector)\..+|cls_token|pos_embed)", r"\1"),
    (r"(?:clip_|mae_)?(?:img_)?pos_embed|(?:(?:final_)?(?:clip|mae)_decoder|fc_norm|head)\..+", ""),
]


@family("InternVideo2")
def internvideo2(
    path: str | Path, num_frames: int = 8, heads: int | None = None, pool_heads: int = 16
) -> InternVideo2:
    """InternVideo2's video tower (B/14 and its larger sisters); shapes follow from the file.

    Names are those of the authors' code, which gives the same outputs on the same weights; no
    published file was at hand to try.

    Args:
        path: Such as the released B/14, distilled; of a file with more towers (`vision_encoder.`
            and others) only this one is read.
        num_frames: Of a clip; positions of another number are interpolated.
        heads, pool_heads: Of attention, channels / 64 if not given, and of the pooling.

    Raises:
        ValueError: See `translate` and `load`; or a file without InternVideo2's names.
    """
    raw, tower = read(path), "vision_encoder."
    if any(k.startswith(tower) for k in raw):
        raw = {k.removeprefix(tower): v for k, v in raw.items() if k.startswith(tower)}
    wanted = (
        "patch_embed.proj.weight",
        "blocks.0.attn.q_norm.weight",
        "blocks.0.ls1.gamma",
        "clip_projector.cross_attn.proj.weight",
    )
    if lacking := [k for k in (*wanted, "pos_embed") if k not in raw]:
        raise ValueError(f"{path}: expected the names of InternVideo2; missing {lacking}")
    state = translate(raw, INTERNVIDEO2, path)
    dim, _, tubelet, patch, _ = state["patch_embed.proj.weight"].shape
    if tubelet != 1:
        raise ValueError(
            f"{path}: patches span {tubelet} frames; expected 1, as in the released files"
        )
    # one position is the class token's
    places, side = state["pos_embed"].shape[1] - 1, PIXELS // patch
    if places % side**2:
        raise ValueError(
            f"{path}: {places} positions are no whole number of frames of {PIXELS} pixels "
            f"({side**2} patches)"
        )
    state["pos_embed"] = other_frames(state["pos_embed"], side**2, num_frames)
    config = InternVideo2Config(
        image_size=PIXELS,
        patch_size=patch,
        num_frames=num_frames,
        dim=dim,
        depth=blocks_of(state, "blocks."),
        heads=heads or dim // HEAD_WIDTH,
        hidden=len(state["blocks.0.mlp.fc1.bias"]),
        pool_heads=pool_heads,
        embed_dim=len(state["clip_projector.cross_attn.proj.bias"]),
    )
    return built(lambda: InternVideo2(config), state, path)
