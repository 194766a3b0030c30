"""ViT-TAD: what its authors' code answered once on weights and pixels that anyone can make again.

MCG-NJU/ViT-TAD at 1f63a63.
"""

import pytest
import torch
from test_known_answers import pixels, same, waves

from vlact.models import vittad
from vlact.models.actionformer import LocalizerConfig
from vlact.models.adatad import TowerConfig
from vlact.models.vittad import COMPUTED, ViTTAD, ViTTADConfig

FRAMES = 32
BACK = [  # from our names to theirs
    ("backbone.patch_embed.projection.", "backbone.model.patch_embed.proj."),
    ("mlp.layers.0.0.", "mlp.fc1."),
    ("mlp.layers.1.", "mlp.fc2."),
    ("backbone.blocks.", "backbone.model.blocks."),
    ("backbone.pos", "backbone.model.pos"),
    ("neck.", "neck.0.encoder.layers."),
]


def published(classes=3, save_memory=False):
    """A model of a small shape, and weights by formula under the names of its authors' code."""
    shape = LocalizerConfig(16, classes, dim=16, heads=2, stems=2, levels=3)
    tower = TowerConfig(16, 3, 2, adapted=False, dropout=0.0)
    model = ViTTAD(ViTTADConfig(shape, tower, FRAMES), save_memory)
    state, out = waves({k: x for k, x in model.state_dict().items() if k not in COMPUTED}), {}
    for key, x in state.items():
        if key.startswith("head.scales."):
            x = torch.tensor([1 + 0.1 * int(key.split(".")[2])])
        for ours, theirs in BACK:
            key = key.replace(ours, theirs)
        out[key] = x
    return model, out


@pytest.fixture
def file(tmp_path):
    torch.save({"state_dict": published()[1]}, tmp_path / "v.pth")
    return tmp_path / "v.pth"


def test_answers_are_those_of_the_authors_code(file):
    model, clip = vittad.load(file, published()[0]), pixels(FRAMES, 48)
    with torch.no_grad():
        seen = model.backbone(clip)
        logits, far, valid = model(clip.unflatten(1, (16, 2)), torch.ones(1, 16, dtype=torch.bool))
    wanted = [-7.4835, 8.653431, -8.179625, 9.481586, -8.234715, 9.562372]
    same(seen[0, [0, 7, 15], :2], wanted, atol=1e-5)
    at = [0, 9, 16, 27]  # of two levels, and the last one
    wanted = [-0.002979, -0.336469, 0.007581, 0.038075, -0.296228, 0.046741]
    wanted += [-0.002979, -0.336469, 0.007581, 0.078774, -0.255386, 0.087456]
    same(logits[0, at], wanted, atol=1e-6)
    wanted = [0.768403, 0.983735, 0.751393, 0.962748, 0.749853, 0.983704, 0.670167, 0.903099]
    same(far[0, at], wanted, atol=1e-6)
    assert valid.shape == (1, 16 + 8 + 4)


def test_it_learns_whole_and_computes_activations_again(file):
    grads, clip = [], pixels(FRAMES, 32).unflatten(1, (16, 2))
    for save_memory in (False, True):
        model = vittad.load(file, published(save_memory=save_memory)[0]).train()
        logits, far, _ = model(clip, torch.ones(1, 16, dtype=torch.bool))
        (logits.sum() + far.sum()).backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(g is not None for g in grads[0])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_what_does_not_fit_is_named(file, tmp_path):
    with pytest.raises(ValueError, match=r"of another shape \['head.cls.bias: \(3,\) for \(5,\)'"):
        vittad.load(file, published(classes=5)[0])
    torch.save({"state_dict": {"other.weight": torch.ones(1)}}, tmp_path / "o.pth")
    with pytest.raises(ValueError, match=r"unexpected \['other.weight'\]"):
        vittad.load(tmp_path / "o.pth", published()[0])
    for frames in (24, 48):
        with pytest.raises(ValueError, match=f"multiple of 16, 32 at most; got {frames}"):
            published()[0].backbone(pixels(frames, 32))
