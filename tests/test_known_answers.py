"""What other people's code answered on weights and pixels that anyone can make again, to the digits
printed here.

InternVideo2: its authors' code, as shipped in t2v_metrics 3.0, with the GELU of its fused layers.
VideoMAE: MMAction2 1.2.0. TimeSformer: the port of its authors' code in towhee.models 1.1.3.
Networks of 3-D convolutions: PyTorchVideo 0.1.5. UniFormerV2: MMAction2 1.2.0.
"""

import pytest
import torch
from test_checkpoints import (
    encoder,
    mmaction2,
    published_internvideo2,
    published_timesformer,
    published_videomae,
)

from vlact.models import checkpoints
from vlact.models.zoo.i3d import I3D
from vlact.models.zoo.resnet50 import ResNet50
from vlact.models.zoo.slowfast import SlowFast
from vlact.models.zoo.x3d import X3D
from vlact.papers.transfer.benchmark import build


def waves(state):
    """Weights by formula: a sine along every tensor, its phase the place of its name among the
    sorted ones.
    """
    out = {}
    for i, key in enumerate(sorted(state)):
        wave, kind = (
            torch.sin(1.7 * torch.arange(state[key].numel(), dtype=torch.float64) + i),
            key.rsplit(".", 1)[-1],
        )
        wave = wave.view(state[key].shape).float()
        if kind == "running_var" or (kind in ("weight", "gamma") and wave.dim() == 1):
            out[key] = 1 + 0.5 * wave
        else:
            out[key] = wave * (2 / wave[0].numel()) ** 0.5 if wave.dim() > 1 else 0.3 * wave
    return out | {k: v for k, v in state.items() if k.endswith("num_batches_tracked")}


def pixels(frames, size):
    """A clip (1, T, H, W, 3) by formula."""
    n = torch.arange(frames * size * size * 3, dtype=torch.float64)
    return (
        (127.5 + 127 * torch.sin(0.9 * n**1.1))
        .round()
        .to(torch.uint8)
        .view(1, frames, size, size, 3)
    )


def same(found, expected, atol=2e-5):
    torch.testing.assert_close(
        found.detach().flatten(), torch.tensor(expected), atol=atol, rtol=1e-5
    )


def test_internvideo2(tmp_path):
    state = {
        k: v
        for k, v in published_internvideo2().items()
        if "decoder" not in k and "_pos_embed" not in k
    }
    torch.save(waves(state), tmp_path / "i.pth")
    found = checkpoints.internvideo2(tmp_path / "i.pth", 2, heads=2, pool_heads=4)(pixels(2, 224))
    answer = [
        -0.2343564,
        -0.9910474,
        0.9721715,
        0.0616014,
        -0.8237073,
        0.6730324,
        -0.0116959,
        -0.5617755,
    ]
    same(found[:, :8], answer, atol=5e-6)  # the exact GELU is 2e-5 away


def test_videomae(tmp_path):
    theirs = mmaction2(published_videomae())
    torch.save(waves({k: v for k, v in theirs.items() if "pos_embed" not in k}), tmp_path / "v.pth")
    model = checkpoints.VideoMAE.load(tmp_path / "v.pth", num_frames=4, image_size=16, heads=2)
    found = model.model.classifier(model.last(model.first(pixels(4, 16), 0), 0))
    same(found, [0.697459, 1.584347, -2.148334, 0.653165, 1.418473])


@pytest.mark.parametrize("frames, answer", [
    (4, [-0.365217, -0.158235, 0.559018, -0.559277, -0.423872, 1.703376]),
    (8, [-0.369335, -0.204085, 0.583613, -0.550593, -0.470827, 1.71647]),
])  # fmt: skip
def test_timesformer_on_frames_as_it_was_trained_and_on_more(tmp_path, frames, answer):
    torch.save({"model_state": waves(published_timesformer())}, tmp_path / "t.pyth")
    checkpoints.timesformer(tmp_path / "t.pyth", model := encoder(frames))
    same(model.last(model.first(pixels(frames, 16), 0), 0)[:, :6], answer)


def published_uniformerv2(local, dim=128, depth=5, late=4, classes=5):
    """A state under MMAction2's names, of a tower of 32 pixels in patches of 16."""
    wide, inner = 4 * dim, int(dim / 1.5)
    attention = {
        "in_proj_weight": (3 * dim, dim),
        "in_proj_bias": (3 * dim,),
        "out_proj.weight": (dim, dim),
        "out_proj.bias": (dim,),
    }
    mlp = {
        "c_fc.weight": (wide, dim),
        "c_fc.bias": (wide,),
        "c_proj.weight": (dim, wide),
        "c_proj.bias": (dim,),
    }
    block = {f"attn.{k}": v for k, v in attention.items()} | {f"mlp.{k}": v for k, v in mlp.items()}
    shapes = {
        "class_embedding": (dim,),
        "positional_embedding": (5, dim),
        "conv1.weight": (dim, 3, 1, 16, 16),
    }
    shapes |= {"transformer.temporal_cls_token": (1, 1, dim), "transformer.balance": (dim,)}
    norms = ["ln_pre", "transformer.norm"]
    for i in range(depth):
        start = f"transformer.resblocks.{i}."
        shapes |= {start + k: v for k, v in block.items()}
        norms += [f"{start}ln_1", f"{start}ln_2"]
        for n in (1, 2) if local else ():
            near, norms = f"{start}lmhra{n}.pos_embed.", [*norms, f"{start}lmhra{n}.pos_embed.0"]
            shapes |= {
                f"{near}0.running_mean": (dim,),
                f"{near}0.running_var": (dim,),
                f"{near}0.num_batches_tracked": (),
            }
            shapes |= {f"{near}1.weight": (inner, dim, 1, 1, 1), f"{near}1.bias": (inner,)}
            shapes |= {f"{near}2.weight": (inner, 1, 3, 1, 1), f"{near}2.bias": (inner,)}
            shapes |= {f"{near}3.weight": (dim, inner, 1, 1, 1), f"{near}3.bias": (dim,)}
    for i in range(late):
        shapes |= {
            f"transformer.dpe.{i}.weight": (dim, 1, 3, 3, 3),
            f"transformer.dpe.{i}.bias": (dim,),
        }
        shapes |= {f"transformer.dec.{i}.{k}": v for k, v in block.items()}
        norms += [f"transformer.dec.{i}.ln_{n}" for n in (1, 2, 3)]
    shapes |= {f"{norm}.{k}": (dim,) for norm in norms for k in ("weight", "bias")}
    made = {f"backbone.{k}": torch.zeros(v) for k, v in shapes.items()}
    return made | {
        "cls_head.fc_cls.weight": torch.zeros(classes, dim),
        "cls_head.fc_cls.bias": torch.zeros(classes),
    }


@pytest.mark.parametrize("local, answer", [
    (True, [-1.381364, -1.184345, 2.869204, -2.367886, 0.354558]),
    (False, [1.033611, 1.279349, -2.636133, 1.961737, -0.053905]),
])  # fmt: skip
def test_uniformerv2(tmp_path, local, answer):
    torch.save({"state_dict": (state := waves(published_uniformerv2(local)))}, tmp_path / "u.pth")
    same(checkpoints.uniformerv2(tmp_path / "u.pth", 5, 4)(pixels(4, 32)), answer)
    model = build("UniformerV2", ["a", "b"], {"weights": str(tmp_path / "u.pth")})
    model(pixels(8, 32).expand(2, -1, -1, -1, -1)).sum().backward()
    still = {k for k, p in model.named_parameters() if p.grad is None}
    assert all(k.startswith("clip.") and "transformer" not in k for k in still) and len(still) == 10
    gone = "backbone.transformer.dec.1.ln_3.bias"
    torch.save({k: v for k, v in state.items() if k != gone}, tmp_path / "v.pth")
    with pytest.raises(ValueError, match=r"v.pth: missing \['globals.1.norm_x.bias'\]"):
        checkpoints.uniformerv2(tmp_path / "v.pth", 5)
    torch.save({gone: state[gone]}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="w.pth: expected a whole UniFormerV2"):
        checkpoints.uniformerv2(tmp_path / "w.pth", 5)


NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def block(theirs, own, ours, inner=""):
    """A residual block under PyTorchVideo's names; X3D's middle norm is inside another module."""
    made = {}
    for part, conv, norm in (
        ("shortcut", "branch1_conv", "branch1_norm"),
        *((x, f"branch2.conv_{x}", f"branch2.norm_{x}") for x in "abc"),
    ):
        made[f"{theirs}.{conv}.weight"] = own.get(f"{ours}.{part}.0.weight")
        made |= {
            f"{theirs}.{norm}{inner if part == 'b' else ''}.{k}": own.get(f"{ours}.{part}.1.{k}")
            for k in NORM
        }
    gate = ("0.weight", "0.bias", "2.weight", "2.bias")
    made |= {
        f"{theirs}.branch2.norm_b.1.block.{k}": own.get(f"{ours}.squeeze.gate.{k}") for k in gate
    }
    return {k: v for k, v in made.items() if v is not None}


def published_3d(model):
    """A state of the model's shapes under PyTorchVideo's names."""
    own, made = dict(model.state_dict()), {}
    if isinstance(model, X3D):
        own = {k: v for k, v in own.items() if not k.startswith("blocks.0.shortcut.1.")}
        made |= {
            "blocks.0.conv.conv_t.weight": own["stem.0.weight"],
            "blocks.0.conv.conv_xy.weight": own["stem.1.0.weight"],
        }
        made |= {f"blocks.0.norm.{k}": own[f"stem.1.1.{k}"] for k in NORM}
        for n, (stage, j) in enumerate(
            (i, j) for i, depth in enumerate((3, 5, 11, 7), 1) for j in range(depth)
        ):
            made |= block(f"blocks.{stage}.res_blocks.{j}", own, f"blocks.{n}", ".0")
        made |= {
            "blocks.5.pool.pre_conv.weight": own["blocks.26.0.weight"],
            "blocks.5.pool.post_conv.weight": own["last.weight"][..., None, None, None],
        }
        made |= {f"blocks.5.pool.pre_norm.{k}": own[f"blocks.26.1.{k}"] for k in NORM}
    elif isinstance(model, SlowFast):
        for way, name in enumerate(("slow", "fast")):
            made[f"blocks.0.multipathway_blocks.{way}.conv.weight"] = own[f"stems.{way}.0.0.weight"]
            made |= {
                f"blocks.0.multipathway_blocks.{way}.norm.{k}": own[f"stems.{way}.0.1.{k}"]
                for k in NORM
            }
            for stage, j in ((i, j) for i, depth in enumerate((3, 4, 6, 3)) for j in range(depth)):
                made |= block(
                    f"blocks.{stage + 1}.multipathway_blocks.{way}.res_blocks.{j}",
                    own,
                    f"{name}.{stage}.{j}",
                )
        for i in range(4):
            made[f"blocks.{i}.multipathway_fusion.conv_fast_to_slow.weight"] = own[
                f"join.{i}.0.weight"
            ]
            made |= {
                f"blocks.{i}.multipathway_fusion.norm.{k}": own[f"join.{i}.1.{k}"] for k in NORM
            }
    else:
        made["blocks.0.conv.weight"] = own["stem.0.0.weight"]
        made |= {f"blocks.0.norm.{k}": own[f"stem.0.1.{k}"] for k in NORM}
        for stage, j in ((i, j) for i, depth in enumerate((3, 4, 6, 3)) for j in range(depth)):
            made |= block(
                f"blocks.{(1, 3, 4, 5)[stage]}.res_blocks.{j}", own, f"stages.{stage}.{j}"
            )
    made |= {
        f"blocks.{5 if isinstance(model, X3D) else 6}.proj.{k}": own[f"head.{k}"]
        for k in ("weight", "bias")
    }
    assert len(made) == len(own)
    return made


@pytest.mark.parametrize("kind, frames, shape, answer", [
    (ResNet50, 8, {"width": 0.125}, [9.889173, 0.113667, -9.893431, 1.633863, 9.590586]),
    (I3D, 8, {"width": 0.125}, [9.978287, 0.039936, -9.969378, 1.721157, 9.650941]),
    (SlowFast, 32, {"width": 0.25}, [-18.623924, -10.278511, 6.739174, 18.027485, 13.76479]),
    (X3D, 16, {}, [0.429391, -0.207197, -0.557945, -0.165857, 0.002351]),
])  # fmt: skip
def test_networks_of_3d_convolutions(tmp_path, kind, frames, shape, answer):
    state = waves(published_3d(kind(5, **shape)))
    torch.save({"model_state": state}, tmp_path / "p.pyth")
    same(
        checkpoints.pytorchvideo(tmp_path / "p.pyth", kind(5, **shape))(pixels(frames, 32)), answer
    )
    fresh = kind(3, **shape)
    before = fresh.head.weight.clone()
    assert torch.equal(
        checkpoints.pytorchvideo(tmp_path / "p.pyth", fresh).head.weight, before
    )  # of other classes
    gone = next(k for k in state if "branch2.conv_b" in k)
    torch.save({"model_state": {k: v for k, v in state.items() if k != gone}}, tmp_path / "q.pyth")
    with pytest.raises(ValueError, match=r"q.pyth: missing \['\w+(\.\d+)+\.b.0.weight'\]"):
        checkpoints.pytorchvideo(tmp_path / "q.pyth", kind(5, **shape))
    with pytest.raises(ValueError, match="unexpected keys|missing"):
        checkpoints.pytorchvideo(tmp_path / "p.pyth", (X3D if kind is SlowFast else SlowFast)(5))
