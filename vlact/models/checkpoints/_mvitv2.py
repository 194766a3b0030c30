"""MViTv2: torchvision's mvit_v2_s (KINETICS400_V1)."""

from pathlib import Path

from torch import nn

from vlact.models.weights import Rules, family, load, own_head, read, translate

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


@family("MViTv2")
def mvitv2(path: str | Path, model: nn.Module) -> nn.Module:
    """torchvision's weights into `vlact.models.zoo.mvitv2.MViTv2`; a head of other classes keeps
    its initialisation.

    Raises:
        ValueError: See `translate` and `load`.
    """
    state = translate(read(path), MVITV2, path)
    state["cls"] = state["cls"].view(1, 1, -1)
    return load(model, own_head(state, model), path)
