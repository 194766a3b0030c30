"""Published checkpoints into the models here: names translated, every key accounted for, nothing
unpickled but tensors.

A translation is a list of (pattern, replacement); every key of the file must match one, and the
model must get every weight it has, or the error lists what is missing and what is left.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vlact.models import convnet3d
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.frames import FrameEncoder
from vlact.models.internvideo2 import InternVideo2, InternVideo2Config, other_frames
from vlact.models.moving import MovingFrames
from vlact.models.text import ClipText
from vlact.models.zoo import x3d
from vlact.models.zoo.slowfast import SlowFast
from vlact.models.zoo.uniformerv2 import UniFormerV2
from vlact.models.zoo.xclip import XCLIP as XCLIPModel

Rules = list[tuple[str, str]]


def read(path: str | Path) -> dict[str, Tensor]:
    """Weights of a .safetensors, .pt, .pth or .pyth file; of the usual wrappings the part that
    holds them.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No weights in it.
        pickle.UnpicklingError: Something other than tensors and plain containers in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; `make doctor PROFILE=paper` says where to get it"
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("model_state", "state_dict", "model", "module"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    found = (
        {k: v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not found:
        raise ValueError(
            f"{path}: expected a dict of weights, plain or under 'model_state', 'state_dict', "
            "'model' or 'module'"
        )
    return found


def translate(state: dict[str, Tensor], rules: Rules, path: str | Path) -> dict[str, Tensor]:
    """Rename every key by the first rule that matches it whole; a replacement of "" leaves the
    weight out.

    Raises:
        ValueError: Keys that no rule knows, or two that become one.
    """
    out, unknown = {}, []
    for key, value in state.items():
        for pattern, replacement in rules:
            if re.fullmatch(pattern, key):
                if replacement:
                    name = re.sub(pattern, replacement, key)
                    if name in out:
                        raise ValueError(f"{path}: {key!r} and another key both become {name!r}")
                    out[name] = value
                break
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{path}: {len(unknown)} unexpected keys, for example {unknown[:3]}; is this another "
            "model's file?"
        )
    return out


def load(module: nn.Module, state: dict[str, Tensor], path: str | Path) -> nn.Module:
    """Fill a module, strictly.

    Raises:
        ValueError: Missing or unexpected names, or shapes that differ; names them all.
    """
    own = module.state_dict()
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    odd = [
        f"{k}: {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in sorted(set(own) & set(state))
        if own[k].shape != state[k].shape
    ]
    if missing or extra or odd:
        raise ValueError(f"{path}: missing {missing}, unexpected {extra}, of another shape {odd}")
    module.load_state_dict(state)
    return module.eval()


def own_head(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state, with the model's own head in place of one of other classes."""
    if "head.weight" in state and state["head.weight"].shape != model.head.weight.shape:
        state = state | {f"head.{k}": v for k, v in model.head.state_dict().items()}
    return state


def stretch(table: Tensor, length: int) -> Tensor:
    """Rows (1, L, D) to another number of them, each new row the nearest old one, as TimeSformer
    does with frames.
    """
    return (
        table
        if table.shape[1] == length
        else interpolate(table.transpose(1, 2), length, mode="nearest").transpose(1, 2)
    )


def own_pixels(
    weight: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """A patch projection (D, C, h, w) made for (x - mean) / std, x in 0..1, as one for pixels in
    -1..1, which encoders here take.

    Returns:
        The weight, and what to add to the bias (D,).
    """
    mean, std = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)
    return weight / (2 * std), (weight * (0.5 - mean) / std).sum((1, 2, 3))


# TimeSformer: facebookresearch/TimeSformer (K400, HowTo100M) and ProcedureVRL, whose trunk is the
# same
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
        state[f"{patch}.weight"], more = own_pixels(
            state[f"{patch}.weight"], (0.45,) * 3, (0.225,) * 3
        )
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


# MViTv2: torchvision's mvit_v2_s (KINETICS400_V1)
MVITV2: Rules = [
    (r"conv_proj\.(weight|bias)", r"patch.\1"),
    (r"pos_encoding\.class_token", "cls"),
    (r"(blocks\.\d+\.norm[12]\.\w+)", r"\1"),
    (r"(blocks\.\d+\.project\.\w+)", r"\1"),
    (r"(blocks\.\d+)\.attn\.qkv\.(\w+)", r"\1.attention.qkv.\2"),
    (r"(blocks\.\d+)\.attn\.project\.0\.(\w+)", r"\1.attention.out.\2"),
    *[
        (rf"(blocks\.\d+)\.attn\.rel_pos_{axis}", rf"\1.attention.rel.{i}")
        for i, axis in enumerate("thw")
    ],
    *[
        (rf"(blocks\.\d+)\.attn\.pool_{x}\.pool\.weight", rf"\1.attention.pools.{i}.conv.weight")
        for i, x in enumerate("qkv")
    ],
    *[
        (rf"(blocks\.\d+)\.attn\.pool_{x}\.norm_act\.0\.(\w+)", rf"\1.attention.pools.{i}.norm.\2")
        for i, x in enumerate("qkv")
    ],
    (r"(blocks\.\d+\.mlp)\.0\.(\w+)", r"\1.0.\2"),
    (r"(blocks\.\d+\.mlp)\.3\.(\w+)", r"\1.2.\2"),
    (r"(norm\.\w+)", r"\1"),
    (r"head\.1\.(\w+)", r"head.\1"),
]


def mvitv2(path: str | Path, model: nn.Module) -> nn.Module:
    """torchvision's weights into `vlact.models.zoo.mvitv2.MViTv2`; a head of other classes keeps
    its initialisation.

    Raises:
        ValueError: See `translate` and `load`.
    """
    state = translate(read(path), MVITV2, path)
    state["cls"] = state["cls"].view(1, 1, -1)
    return load(model, own_head(state, model), path)


# ResNet50 (C2D), I3D, X3D and SlowFast: PyTorchVideo's files
def _bottleneck(theirs: str, ours: str) -> Rules:
    """A residual block; what is squeezed is X3D's."""
    return [
        (rf"{theirs}\.branch1_conv\.weight", f"{ours}.shortcut.0.weight"),
        (rf"{theirs}\.branch1_norm\.(\w+)", rf"{ours}.shortcut.1.\1"),
        (rf"{theirs}\.branch2\.conv_([abc])\.weight", rf"{ours}.\1.0.weight"),
        (rf"{theirs}\.branch2\.norm_([abc])(?:\.0)?\.(\w+)", rf"{ours}.\1.1.\2"),
        (rf"{theirs}\.branch2\.norm_b\.1\.block\.(\d\.\w+)", rf"{ours}.squeeze.gate.\1"),
    ]


def _stages(theirs: str, ours: str, numbers: tuple[int, ...], depths: tuple[int, ...]) -> Rules:
    """Residual blocks: {i} in a name is the stage, {j} its block, {n} that of all; `numbers` are
    theirs of the stages.
    """
    places = [(i, j) for i, depth in enumerate(depths) for j in range(depth)]
    pairs = [
        (theirs.format(i=numbers[i], j=j), ours.format(i=i, j=j, n=n))
        for n, (i, j) in enumerate(places)
    ]
    return [rule for pair in pairs for rule in _bottleneck(*pair)]


HEAD: Rules = [(r"blocks\.[56]\.proj\.(\w+)", r"head.\1")]
CONVNET3D: Rules = [
    (r"blocks\.0\.conv\.weight", "stem.0.0.weight"),
    (r"blocks\.0\.norm\.(\w+)", r"stem.0.1.\1"),
    # the second pools
    *_stages(r"blocks\.{i}\.res_blocks\.{j}", "stages.{i}.{j}", (1, 3, 4, 5), convnet3d.DEPTHS),
    *HEAD,
]
SLOWFAST: Rules = [
    (r"blocks\.0\.multipathway_blocks\.([01])\.conv\.weight", r"stems.\1.0.0.weight"),
    (r"blocks\.0\.multipathway_blocks\.([01])\.norm\.(\w+)", r"stems.\1.0.1.\2"),
    (r"blocks\.([0-3])\.multipathway_fusion\.conv_fast_to_slow\.weight", r"join.\1.0.weight"),
    (r"blocks\.([0-3])\.multipathway_fusion\.norm\.(\w+)", r"join.\1.1.\2"),
    *_stages(
        r"blocks\.{i}\.multipathway_blocks\.0\.res_blocks\.{j}",
        "slow.{i}.{j}",
        (1, 2, 3, 4),
        convnet3d.DEPTHS,
    ),
    *_stages(
        r"blocks\.{i}\.multipathway_blocks\.1\.res_blocks\.{j}",
        "fast.{i}.{j}",
        (1, 2, 3, 4),
        convnet3d.DEPTHS,
    ),
    *HEAD,
]
X3D: Rules = [
    (r"blocks\.0\.conv\.conv_t\.weight", "stem.0.weight"),  # it is the one in space
    (r"blocks\.0\.conv\.conv_xy\.weight", "stem.1.0.weight"),
    (r"blocks\.0\.norm\.(\w+)", r"stem.1.1.\1"),
    *_stages(r"blocks\.{i}\.res_blocks\.{j}", "blocks.{n}", (1, 2, 3, 4), x3d.DEPTHS),
    (r"blocks\.5\.pool\.pre_conv\.weight", f"blocks.{sum(x3d.DEPTHS)}.0.weight"),
    (r"blocks\.5\.pool\.pre_norm\.(\w+)", rf"blocks.{sum(x3d.DEPTHS)}.1.\1"),
    (r"blocks\.5\.pool\.post_conv\.weight", "last.weight"),
    *HEAD,
]


def pytorchvideo(path: str | Path, model: nn.Module) -> nn.Module:
    """PyTorchVideo's weights into `ResNet50` (its C2D), `I3D`, `SlowFast` or `X3D` of
    `vlact.models.zoo`.

    A head of other classes keeps its initialisation. X3D's first shortcut loses its norm:
    SlowFast's code base has one there, PyTorchVideo does not.

    Raises:
        ValueError: See `translate` and `load`.
    """
    rules = (
        X3D
        if isinstance(model, x3d.X3D)
        else SLOWFAST
        if isinstance(model, SlowFast)
        else CONVNET3D
    )
    state = translate(read(path), rules, path)
    if rules is X3D:
        model.blocks[0].shortcut[1] = nn.Identity()
        if "last.weight" in state:
            state["last.weight"] = state["last.weight"].flatten(1)
    return load(model, own_head(state, model), path)


# VideoMAE and VideoMAEv2: the official fine-tuned files
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
    for key in [k for k in state if k.endswith(".attn.qkv.weight")]:
        for name, part in zip(("query", "key", "value"), state.pop(key).chunk(3), strict=True):
            state[key.replace("qkv", name)] = part
    dim, _, tubelet, patch, _ = state["patch_embed.proj.weight"].shape
    config = VideoMAEConfig(
        image_size=image_size, patch_size=patch, num_frames=num_frames, tubelet_size=tubelet, hidden_size=dim, qkv_bias=True,
        num_hidden_layers=1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks.")), use_mean_pooling=True,
        num_attention_heads=heads or dim // 64, intermediate_size=len(state["blocks.0.mlp.fc1.bias"]), layer_norm_eps=1e-6,
        num_labels=len(state["head.weight"]),
    )  # fmt: skip
    return load(VideoMAEForVideoClassification(config), translate(state, VIDEOMAE, path), path)


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


# InternVideo2: what only teaches or classifies is left out
INTERNVIDEO2: Rules = [
    (r"((?:patch_embed|blocks|clip_projector)\..+|cls_token|pos_embed)", r"\1"),
    (r"(?:clip_|mae_)?(?:img_)?pos_embed|(?:(?:final_)?(?:clip|mae)_decoder|fc_norm|head)\..+", ""),
]


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
    places, side = state["pos_embed"].shape[1] - 1, 224 // patch
    if places % side**2:
        raise ValueError(
            f"{path}: {places} positions are no whole number of frames of 224 pixels ({side**2} "
            "patches)"
        )
    state["pos_embed"] = other_frames(state["pos_embed"], side**2, num_frames)
    config = InternVideo2Config(
        224, patch, num_frames, dim, blocks_of(state, "blocks."), heads or dim // 64, len(state["blocks.0.mlp.fc1.bias"]), pool_heads,
        len(state["clip_projector.cross_attn.proj.bias"]),
    )  # fmt: skip
    return load(InternVideo2(config), state, path)


class VideoEncoder:
    """A published encoder of clips, for `vlact.training.features.extract`, whichever the file is
    of.
    """

    @staticmethod
    def load(path: str | Path) -> nn.Module:
        """VideoMAE's or InternVideo2's, told apart by the names in the file.

        Raises:
            FileNotFoundError, ValueError: See `read`, `videomae` and `internvideo2`.
        """
        return (
            internvideo2(path).eval()
            if any("clip_projector" in k for k in read(path))
            else VideoMAE.load(path)
        )


# CLIP: open_clip's files of OpenAI's weights
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def blocks_of(state: dict[str, Tensor], prefix: str) -> int:
    """How many numbered blocks stand after a prefix."""
    return 1 + max(int(k.removeprefix(prefix).split(".")[0]) for k in state if k.startswith(prefix))


def image_tower(
    seen: dict[str, Tensor], num_frames: int, mean: tuple, std: tuple, text: str = ""
) -> tuple[FrameEncoder, dict[str, Tensor]]:
    """A tower of the shape that open_clip's `visual.` weights have, empty, and the weights for
    pixels in -1..1.

    Its text features are already in the shared space: the projection starts as the identity.
    """
    dim, _, patch, _ = seen["visual.conv1.weight"].shape
    side, embed = (
        round((len(seen["visual.positional_embedding"]) - 1) ** 0.5),
        seen["visual.proj"].shape[1],
    )
    shape = (
        side * patch,
        patch,
        num_frames,
        dim,
        blocks_of(seen, "visual.transformer.resblocks."),
        max(1, dim // 64),
        embed,
        embed,
    )
    pixels, more = own_pixels(seen["visual.conv1.weight"], mean, std)
    places = seen["visual.positional_embedding"].clone()
    places[1:] += more  # the projection has no bias; every patch gets a position
    seen = seen | {"visual.conv1.weight": pixels, "visual.positional_embedding": places}
    seen |= {"text_projection.weight": torch.eye(embed), "text_projection.bias": torch.zeros(embed)}
    config = DualConfig(
        *shape, "cls", motion_input=False, conv_stem=False, quick_gelu=True, text=text
    )
    return FrameEncoder(config), seen


def text_tower(said: dict[str, Tensor], path: str | Path) -> nn.Module:
    """open_clip's text tower with its weights; the shape follows from them."""
    from open_clip.model import CLIPTextCfg, _build_text_tower

    words, width = said["token_embedding.weight"].shape
    shape = {
        "context_length": len(said["positional_embedding"]),
        "vocab_size": words,
        "width": width,
        "heads": max(1, width // 64),
    }
    shape = CLIPTextCfg(**shape, layers=blocks_of(said, "transformer.resblocks."))
    return load(
        _build_text_tower(said["text_projection"].shape[1], shape, quick_gelu=True), said, path
    )


def openai_clip(path: str | Path, num_frames: int = 8) -> tuple[FrameEncoder, ClipText]:
    """Both towers of an OpenAI ViT in open_clip's format (`open_clip_model.safetensors`); shapes
    follow from the file.

    Args:
        path: The file.
        num_frames: T that video models made of it will see.

    Raises:
        ValueError: See `translate` and `load`; or a file without a vision transformer.
    """
    state = read(path)
    wanted = ("visual.conv1.weight", "token_embedding.weight")
    if not set(wanted) <= set(state):
        raise ValueError(
            f"{path}: expected open_clip's names, such as {wanted}; got {sorted(state)[:3]}"
        )
    seen = translate(state, [(r"(visual\..*)", r"\1"), (r".*", "")], path)
    clip, seen = image_tower(seen, num_frames, OPENAI_MEAN, OPENAI_STD, str(path))
    said = translate(state, [(r"(visual\..*|logit_scale)", ""), (r"(.*)", r"\1")], path)
    return load(clip, seen, path), ClipText(text_tower(said, path))


# UniFormerV2: MMAction2's files
UNIFORMERV2: Rules = [
    (r"backbone\.((?:class|positional)_embedding|conv1\.weight|ln_pre\.\w+)", r"clip.visual.\1"),
    (r"backbone\.(transformer\.resblocks\.\d+\.(?:ln_1|ln_2|attn|mlp)\..+)", r"clip.visual.\1"),
    *(
        (
            rf"backbone\.transformer\.resblocks\.(\d+)\.lmhra{n + 1}\.pos_embed\.{i}\.(\w+)",
            rf"locals.\1.{n}.{part}.\2",
        )
        for n in (0, 1)
        for i, part in enumerate(("norm", "inside", "along", "out"))
    ),
    (r"backbone\.transformer\.dpe\.(\d+)\.(\w+)", r"globals.\1.near.\2"),
    *(
        (rf"backbone\.transformer\.dec\.(\d+)\.{theirs}\.(.+)", rf"globals.\1.{ours}.\2")
        for theirs, ours in (
            ("ln_1", "norm_q"),
            ("ln_2", "norm"),
            ("ln_3", "norm_x"),
            ("attn", "attention"),
        )
    ),
    (r"backbone\.transformer\.dec\.(\d+)\.mlp\.c_fc\.(\w+)", r"globals.\1.mlp.0.\2"),
    (r"backbone\.transformer\.dec\.(\d+)\.mlp\.c_proj\.(\w+)", r"globals.\1.mlp.3.\2"),
    (r"backbone\.transformer\.temporal_cls_token", "query"),
    (r"backbone\.transformer\.(balance|norm\.\w+)", r"\1"),
    (r"cls_head\.fc_cls\.(\w+)", r"head.\1"),
]
PYSLOWFAST_MEAN, PYSLOWFAST_STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)


def uniformerv2(path: str | Path, classes: int, num_frames: int = 8) -> UniFormerV2:
    """A published UniFormerV2; shapes, and whether there are local blocks, follow from the file.

    Args:
        path: The file.
        classes: Of the head; one of other classes than the file's starts anew.
        num_frames: T.

    Raises:
        ValueError: See `translate` and `load`.
    """
    state = translate(read(path), UNIFORMERV2, path)
    if not {"query", "clip.visual.conv1.weight", "clip.visual.positional_embedding"} <= set(state):
        raise ValueError(
            f"{path}: expected a whole UniFormerV2 under MMAction2's names; got {sorted(state)[:3]}"
        )
    dim = state["query"].shape[-1]
    seen = {k.removeprefix("clip."): v for k, v in state.items() if k.startswith("clip.")}
    seen["visual.conv1.weight"] = seen["visual.conv1.weight"].flatten(2, 3)  # one frame at a time
    # not used
    seen |= {
        "visual.ln_post.weight": torch.ones(dim),
        "visual.ln_post.bias": torch.zeros(dim),
        "visual.proj": torch.eye(dim),
    }
    clip, seen = image_tower(seen, num_frames, PYSLOWFAST_MEAN, PYSLOWFAST_STD)
    model = UniFormerV2(classes, clip.requires_grad_(False), local="locals.0.0.out.weight" in state)
    flat = {
        k: v.flatten(-3) if v.dim() == 5 else v for k, v in state.items() if k.startswith("locals.")
    }
    # convolutions of one place are linear
    flat |= {k: v[..., 0] for k, v in flat.items() if v.dim() == 3 and ".along." not in k}
    state = {k: v for k, v in state.items() if not k.startswith("clip.")} | flat
    return load(model, own_head(state | {f"clip.{k}": v for k, v in seen.items()}, model), path)


# X-CLIP: transformers' layout (microsoft/xclip-base-patch16 and others)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
    clip, visual = image_tower(visual, len(seen["integrate.position"]), IMAGENET_MEAN, IMAGENET_STD)
    texts = list(dict.fromkeys([*names, *others]))
    words = dict(zip(texts, ClipText(text_tower(said, path), unit=False)(texts), strict=True))
    model = XCLIPModel(
        MovingFrames(clip.config), words, names, float((-state["logit_scale"]).exp())
    )
    return load(model, seen | {f"clip.{k}": v for k, v in visual.items()}, path)


def language_model(
    folder: str | Path, dtype: torch.dtype = torch.bfloat16, taught: bool = True
) -> nn.Module:
    """The causal language model of a transformers folder, for
    `vlact.models.actionvlm.LanguageBranch`.

    Takes Qwen2.5 (or any causal model with `model` and `lm_head`) and InternVL in transformers' own
    layout, of which only the language part is kept. No code of the folder is run and nothing is
    downloaded.

    Args:
        folder: With config.json and safetensors.
        dtype: Of the weights.
        taught: False for its shape with random weights.

    Raises:
        FileNotFoundError: No such folder, or one without config or safetensors.
        ValueError: Weights that are missing, left over or of another shape, or a folder that asks
            for code of its own.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    folder = Path(folder)
    for name in ("config.json", "*.safetensors"):
        if not list(folder.glob(name)):
            raise FileNotFoundError(
                f"{folder}: expected a transformers folder with {name}; `make doctor "
                "PROFILE=paper` says where to get it"
            )
    if "auto_map" in json.loads((folder / "config.json").read_text()):
        raise ValueError(
            f"{folder}: its config asks for code of its own (auto_map), which is not run; take "
            "the same model in '-hf' layout"
        )
    whole = AutoConfig.from_pretrained(folder)
    if not taught:
        return AutoModelForCausalLM.from_config(
            getattr(whole, "text_config", whole), attn_implementation="sdpa", dtype=dtype
        )
    kind = (
        AutoModelForImageTextToText
        if hasattr(whole, "text_config") and hasattr(whole, "vision_config")
        else AutoModelForCausalLM
    )
    given = {
        "dtype": dtype,
        "attn_implementation": "sdpa",
        "local_files_only": True,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    model, found = kind.from_pretrained(folder, ignore_mismatched_sizes=True, **given)
    wrong = {
        k: sorted(map(str, found[k]))[:5]
        for k in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if found[k]
    }
    if wrong:
        raise ValueError(f"{folder}: weights do not fit its config: {wrong}")
    if kind is AutoModelForCausalLM:
        return model
    alone = AutoModelForCausalLM.from_config(
        whole.text_config, attn_implementation="sdpa", dtype=dtype
    )
    alone.model.load_state_dict(model.model.language_model.state_dict())
    alone.lm_head.load_state_dict(model.lm_head.state_dict())
    return alone
