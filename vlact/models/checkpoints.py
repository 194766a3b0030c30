"""Published checkpoints into the models here: names translated, every key accounted for, nothing unpickled but tensors.

A translation is a list of (pattern, replacement); every key of the file must match one, and the model must get every
weight it has, or the error lists what is missing and what is left.
"""

import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vlact.models.dual import DualEncoder

Rules = list[tuple[str, str]]


def read(path: str | Path) -> dict[str, Tensor]:
    """Weights of a .safetensors, .pt, .pth or .pyth file; of the usual wrappings the part that holds them.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No weights in it.
        pickle.UnpicklingError: Something other than tensors and plain containers in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; `make doctor PROFILE=paper` says where to get it")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("model_state", "state_dict", "model", "module"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    found = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not found:
        raise ValueError(f"{path}: expected a dict of weights, plain or under 'model_state', 'state_dict', 'model' or 'module'")
    return found


def translate(state: dict[str, Tensor], rules: Rules, path: str | Path) -> dict[str, Tensor]:
    """Rename every key by the first rule that matches it whole; a replacement of "" leaves the weight out.

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
        raise ValueError(f"{path}: {len(unknown)} unexpected keys, for example {unknown[:3]}; is this another model's file?")
    return out


def load(module: nn.Module, state: dict[str, Tensor], path: str | Path) -> nn.Module:
    """Fill a module, strictly.

    Raises:
        ValueError: Missing or unexpected names, or shapes that differ; names them all.
    """
    own = module.state_dict()
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    odd = [
        f"{k}: {tuple(state[k].shape)} for {tuple(own[k].shape)}" for k in sorted(set(own) & set(state)) if own[k].shape != state[k].shape
    ]
    if missing or extra or odd:
        raise ValueError(f"{path}: missing {missing}, unexpected {extra}, of another shape {odd}")
    module.load_state_dict(state)
    return module.eval()


def stretch(table: Tensor, length: int) -> Tensor:
    """Rows (1, L, D) to another number of them, each new row the nearest old one, as TimeSformer does with frames."""
    return table if table.shape[1] == length else interpolate(table.transpose(1, 2), length, mode="nearest").transpose(1, 2)


# TimeSformer: facebookresearch/TimeSformer (K400, HowTo100M) and ProcedureVRL, whose trunk is the same
TIMESFORMER: Rules = [
    (r"(?:module\.)?(?:model\.)?cls_token", "embeddings.cls_token"),
    (r"(?:module\.)?(?:model\.)?pos_embed", "embeddings.position_embeddings"),
    (r"(?:module\.)?(?:model\.)?time_embed", "embeddings.time_embeddings"),
    (r"(?:module\.)?(?:model\.)?patch_embed\.proj\.(weight|bias)", r"embeddings.patch_embeddings.projection.\1"),
    (r"(?:module\.)?(?:model\.)?blocks\.(\d+)\.norm1\.(\w+)", r"encoder.layer.\1.layernorm_before.\2"),
    (r"(?:module\.)?(?:model\.)?blocks\.(\d+)\.norm2\.(\w+)", r"encoder.layer.\1.layernorm_after.\2"),
    (r"(?:module\.)?(?:model\.)?blocks\.(\d+)\.temporal_norm1\.(\w+)", r"encoder.layer.\1.temporal_layernorm.\2"),
    (r"(?:module\.)?(?:model\.)?blocks\.(\d+)\.temporal_fc\.(\w+)", r"encoder.layer.\1.temporal_dense.\2"),
    (r"(?:module\.)?(?:model\.)?blocks\.(\d+)\.attn\.qkv\.(\w+)", r"encoder.layer.\1.attention.attention.qkv.\2"),
    (r"(?:module\.)?(?:model\.)?blocks\.(\d+)\.attn\.proj\.(\w+)", r"encoder.layer.\1.attention.output.dense.\2"),
    (r"(?:module\.)?(?:model\.)?blocks\.(\d+)\.temporal_attn\.qkv\.(\w+)", r"encoder.layer.\1.temporal_attention.attention.qkv.\2"),
    (r"(?:module\.)?(?:model\.)?blocks\.(\d+)\.temporal_attn\.proj\.(\w+)", r"encoder.layer.\1.temporal_attention.output.dense.\2"),
    (r"(?:module\.)?(?:model\.)?blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"encoder.layer.\1.intermediate.dense.\2"),
    (r"(?:module\.)?(?:model\.)?blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"encoder.layer.\1.output.dense.\2"),
    (r"(?:module\.)?(?:model\.)?norm\.(weight|bias)", r"layernorm.\1"),
    (r"(?:module\.)?(?:model\.)?head\.(weight|bias)", ""),  # of its own classes
]


def timesformer(path: str | Path, encoder: DualEncoder, rules: Rules = TIMESFORMER) -> DualEncoder:
    """Published weights into the trunk of a `DualEncoder`; another number of frames is stretched.

    Args:
        path: A .pyth file of TimeSformer (divided space-time attention).
        encoder: With `conv_stem=False, motion_input=False`; its projections stay as they are.
        rules: Of the names; more may be added in front, for heads of other models.

    Raises:
        ValueError: See `translate` and `load`.
    """
    state = translate(read(path), rules, path)
    if (times := "embeddings.time_embeddings") in state:
        state[times] = stretch(state[times], encoder.config.num_frames)
    load(encoder.trunk, state, path)
    return encoder.eval()


# MViTv2: torchvision's mvit_v2_s (KINETICS400_V1)
MVITV2: Rules = [
    (r"conv_proj\.(weight|bias)", r"patch.\1"),
    (r"pos_encoding\.class_token", "cls"),
    (r"(blocks\.\d+\.norm[12]\.\w+)", r"\1"),
    (r"(blocks\.\d+\.project\.\w+)", r"\1"),
    (r"(blocks\.\d+)\.attn\.qkv\.(\w+)", r"\1.attention.qkv.\2"),
    (r"(blocks\.\d+)\.attn\.project\.0\.(\w+)", r"\1.attention.out.\2"),
    *[(rf"(blocks\.\d+)\.attn\.rel_pos_{axis}", rf"\1.attention.rel.{i}") for i, axis in enumerate("thw")],
    *[(rf"(blocks\.\d+)\.attn\.pool_{x}\.pool\.weight", rf"\1.attention.pools.{i}.conv.weight") for i, x in enumerate("qkv")],
    *[(rf"(blocks\.\d+)\.attn\.pool_{x}\.norm_act\.0\.(\w+)", rf"\1.attention.pools.{i}.norm.\2") for i, x in enumerate("qkv")],
    (r"(blocks\.\d+\.mlp)\.0\.(\w+)", r"\1.0.\2"),
    (r"(blocks\.\d+\.mlp)\.3\.(\w+)", r"\1.2.\2"),
    (r"(norm\.\w+)", r"\1"),
    (r"head\.1\.(\w+)", r"head.\1"),
]


def mvitv2(path: str | Path, model: nn.Module) -> nn.Module:
    """torchvision's weights into `vlact.models.zoo.mvitv2.MViTv2`; a head of other classes keeps its initialisation.

    Raises:
        ValueError: See `translate` and `load`.
    """
    state = translate(read(path), MVITV2, path)
    state["cls"] = state["cls"].view(1, 1, -1)
    if state["head.weight"].shape != model.head.weight.shape:
        state |= {f"head.{k}": v for k, v in model.head.state_dict().items()}
    return load(model, state, path)
