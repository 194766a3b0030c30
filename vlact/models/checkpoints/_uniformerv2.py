"""UniFormerV2: MMAction2's files."""

from pathlib import Path

import torch

from vlact.models.checkpoints._clip import image_tower
from vlact.models.weights import Rules, family, load, own_head, read, translate
from vlact.models.zoo.uniformerv2 import UniFormerV2

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


@family("UniFormerV2")
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
    clip, seen = image_tower(seen, num_frames, PYSLOWFAST_MEAN, PYSLOWFAST_STD, path)
    model = UniFormerV2(classes, clip.requires_grad_(False), local="locals.0.0.out.weight" in state)
    flat = {
        k: v.flatten(-3) if v.dim() == 5 else v for k, v in state.items() if k.startswith("locals.")
    }
    # convolutions of one place are linear
    flat |= {k: v[..., 0] for k, v in flat.items() if v.dim() == 3 and ".along." not in k}
    state = {k: v for k, v in state.items() if not k.startswith("clip.")} | flat
    return load(model, own_head(state | {f"clip.{k}": v for k, v in seen.items()}, model), path)
