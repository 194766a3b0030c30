"""What other people's code answered on weights and pixels that anyone can make again, to the digits printed here.

InternVideo2: its authors' code, as shipped in t2v_metrics 3.0, with the GELU of its fused layers. VideoMAE: MMAction2 1.2.0.
TimeSformer: the port of its authors' code in towhee.models 1.1.3. Networks of 3-D convolutions: PyTorchVideo 0.1.5 with the weights
of ours copied in order; it leaves out the norm of X3D's first shortcut, which does nothing here.
"""

import pytest
import torch
from test_checkpoints import encoder, mmaction2, published_internvideo2, published_timesformer, published_videomae

from vlact.models import checkpoints
from vlact.models.zoo.i3d import I3D
from vlact.models.zoo.resnet50 import ResNet50
from vlact.models.zoo.slowfast import SlowFast
from vlact.models.zoo.x3d import X3D


def waves(state):
    """Weights by formula: a sine along every tensor, its phase the place of its name among the sorted ones."""
    out = {}
    for i, key in enumerate(sorted(state)):
        wave, kind = torch.sin(1.7 * torch.arange(state[key].numel(), dtype=torch.float64) + i), key.rsplit(".", 1)[-1]
        wave = wave.view(state[key].shape).float()
        if kind == "running_var" or (kind in ("weight", "gamma") and wave.dim() == 1):
            out[key] = 1 + 0.5 * wave
        else:
            out[key] = wave * (2 / wave[0].numel()) ** 0.5 if wave.dim() > 1 else 0.3 * wave
    return out | {k: v for k, v in state.items() if k.endswith("num_batches_tracked")}


def pixels(frames, size):
    """A clip (1, T, H, W, 3) by formula."""
    n = torch.arange(frames * size * size * 3, dtype=torch.float64)
    return (127.5 + 127 * torch.sin(0.9 * n**1.1)).round().to(torch.uint8).view(1, frames, size, size, 3)


def same(found, expected, atol=2e-5):
    torch.testing.assert_close(found.detach().flatten(), torch.tensor(expected), atol=atol, rtol=1e-5)


def test_internvideo2(tmp_path):
    state = {k: v for k, v in published_internvideo2().items() if "decoder" not in k and "_pos_embed" not in k}
    torch.save(waves(state), tmp_path / "i.pth")
    found = checkpoints.internvideo2(tmp_path / "i.pth", 2, heads=2, pool_heads=4)(pixels(2, 224))
    answer = [-0.2343564, -0.9910474, 0.9721715, 0.0616014, -0.8237073, 0.6730324, -0.0116959, -0.5617755]
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


@pytest.mark.parametrize("kind, frames, shape, answer", [
    (ResNet50, 8, {"width": 0.125}, [20.846975, 3.883708, -21.564123, -0.026363, 21.590801]),
    (I3D, 8, {"width": 0.125}, [21.283367, 4.684612, -22.143553, -0.723782, 22.294785]),
    (SlowFast, 32, {"width": 0.25}, [25.029814, 48.58672, 29.530363, -15.927815, -47.438797]),
    (X3D, 16, {}, [-0.696791, 0.54339, 1.264591, 0.93604, 0.511913]),
])  # fmt: skip
def test_networks_of_3d_convolutions(kind, frames, shape, answer):
    model = kind(5, **shape).eval()
    model.load_state_dict(waves(model.state_dict()))
    if kind is X3D:
        norm = model.blocks[0].shortcut[1]
        norm.weight.data.fill_((1 + norm.eps) ** 0.5)
        norm.running_var.fill_(1)
        for zero in (norm.bias.data, norm.running_mean):
            zero.zero_()
    same(model(pixels(frames, 32)), answer)
