"""What the models of the motion-transfer benchmark are at full size: parameters and operations,
counted on shapes alone.
"""

import pandas as pd
import torch

from vlact.models.dual import DualConfig
from vlact.models.moving import MovingFrames
from vlact.models.zoo.actionclip import TEMPLATES
from vlact.models.zoo.vifi import ViFi
from vlact.papers.transfer.benchmark import BY_NAME, DOMAINS, OVER_CLIP, SCRATCH, ByName, Known

VIT_B16 = DualConfig(224, 16, 8, 768, 12, 12, 512, 384, "cls", motion_input=False, conv_stem=False)
CLASSES = 400  # of Kinetics, which the published counts are for
# frames, pixels
SHAPES = {
    "ResNet50": (8, 256),
    "I3D": (8, 256),
    "X3D": (16, 256),
    "SlowFast": (32, 256),
    "CIR": (32, 256),
}
SHAPES |= {"MViTv2": (16, 224), "Rev-MViT": (16, 224)}
CLIP_SHAPE = (8, 224)
# of EZ-CLIP in CLIP's own text tower; ours has one behind the sentence encoder
TEXT_ADAPTERS = 12 * 2 * 512 * 128


def made(kind: str):
    """The full-size model on the meta device: shapes without numbers."""
    with torch.device("meta"):
        if kind in SCRATCH:
            return SCRATCH[kind](CLASSES)
        if kind == "CIR":
            return DOMAINS[kind](CLASSES, torch.empty(CLASSES, VIT_B16.text_dim))
        if kind in DOMAINS:
            return DOMAINS[kind](CLASSES)
        clip = MovingFrames(VIT_B16)
        if kind in OVER_CLIP:  # the published UniFormerV2 for Kinetics has no local blocks
            return OVER_CLIP[kind](
                CLASSES, clip, **({"local": False} if kind == "UniformerV2" else {})
            )
        words, names = {t.format("a"): torch.empty(VIT_B16.text_dim) for t in TEMPLATES}, ["a"]
        if kind == "ViFi-CLIP":
            return ByName(ViFi(clip, Known(words), words, names, 0.01, VIT_B16.depth), names)
        return ByName(BY_NAME[kind](clip, words, names, 0.01), names)


def count(kind: str) -> dict[str, float]:
    """One model: million parameters counted in several ways, billion multiply-adds of one clip.

    Returns:
        `all`, without FROSTER's teacher, which serves training only; for those that go by name
        `video side`, `with text` (CLIP's text tower in place of the projection that stands for it
        here), `with text, without its table`, and for EZ-CLIP `trained, with text adapters`;
        `gmacs`, text left out; `frames, pixels` of the clip.
    """
    from open_clip.model import CLIPTextCfg, _build_text_tower
    from torch.utils.flop_counter import FlopCounterMode

    model, (frames, pixels) = made(kind), SHAPES.get(kind, CLIP_SHAPE)
    out = {
        "all": float(
            sum(p.numel() for name, p in model.named_parameters() if ".teacher." not in name)
        )
    }
    if kind in BY_NAME:
        with torch.device("meta"):
            tower = _build_text_tower(VIT_B16.embed_dim, CLIPTextCfg())
        text = sum(p.numel() for p in tower.parameters())
        stand_in = [model.method.clip.text_projection] + (
            [model.method.text] if kind == "EZ-CLIP" else []
        )
        mine = sum(p.numel() for part in stand_in for p in part.parameters())
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        out["video side"] = out["all"] - mine
        out["with text"] = out["video side"] + text
        out["with text, without its table"] = (
            out["with text"] - tower.token_embedding.weight.numel()
        )
        if kind == "EZ-CLIP":
            out["trained, with text adapters"] = (
                trained - sum(p.numel() for p in model.method.text.parameters()) + TEXT_ADAPTERS
            )
    elif kind in OVER_CLIP:
        out["all"] -= sum(p.numel() for p in model.clip.text_projection.parameters())
    model.eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        model(torch.empty(1, frames, pixels, pixels, 3, dtype=torch.uint8))
    return {k: v / 1e6 for k, v in out.items()} | {
        "gmacs": counter.get_total_flops() / 2e9,
        "frames": frames,
        "pixels": pixels,
    }


def beside_published(published: pd.DataFrame) -> pd.DataFrame:
    """A row a model: what was published (`transfer_models.csv`) and what is counted here, in the
    same way.
    """
    paper, rows = published.set_index("model"), []
    for kind in (*SCRATCH, *OVER_CLIP, *BY_NAME, *DOMAINS):
        ours, printed = count(kind), paper.loc[kind] if kind in paper.index else None
        counted = "all" if printed is None else printed["counted"]
        row = {
            "model": kind,
            "counted": counted,
            "M, published": None if printed is None else printed["parameters_m"],
        }
        row |= {"M": ours[counted], "M in all": ours.get("with text", ours["all"])}
        row |= {
            "G multiply-adds, published": None if printed is None else printed["gmacs"],
            "G multiply-adds": ours["gmacs"],
        }
        rows.append(
            row
            | {
                "clip": f"{ours['frames']} x {ours['pixels']} px",
                "source": "–" if printed is None else printed["source"],
            }
        )
    return pd.DataFrame(rows)
