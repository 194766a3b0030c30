"""AdaTAD as its authors wrote it: names and shapes of OpenTAD's files, and what OpenTAD's code (at
3dd7b03, with MMCV 2.1.0 and MMEngine 0.10.7) answered once, in double precision, on weights and
pixels that anyone can make again.
"""

import hashlib
import re
from dataclasses import replace

import pytest
import torch
from test_known_answers import pixels, waves

from vlact.losses.localization import assign, detection_loss, points
from vlact.models import localizer_checkpoints as checkpoints
from vlact.models.actionformer import ActionFormer, LocalizerConfig
from vlact.models.adatad import Adapter, AdaTAD, AdaTADConfig, Tower, TowerConfig
from vlact.models.localizer_presets import PRESETS, preset

SMALL = LocalizerConfig(16, 3, dim=16, heads=2, levels=4, dropout=0.1, official=True, opentad=True)
TOWER = TowerConfig(16, 3, 2, patch=8, num_frames=4, image_size=32)
FRAMES, VALID, START = 32, 27, torch.tensor(100)
THEIRS = [  # our names of the localizer and OpenTAD's
    (r"tower\.(.+)", r"backbone.model.backbone.\1"),
    (r"backbone\.embd\.(\d)\.conv\.(.+)", r"projection.embed.\1.conv.\2"),
    (r"backbone\.embd_norm\.(\d)\.(.+)", r"projection.embed.\1.norm.\2"),
    (r"backbone\.(.+)", r"projection.\1"),
    (r"(neck\..+)", r"\1"),
    (r"(cls|reg)_head\.head\.(\d)\.conv\.(.+)", r"rpn_head.\1_convs.\2.conv.\3"),
    (r"(cls|reg)_head\.norm\.(\d)\.(.+)", r"rpn_head.\1_convs.\2.norm.\3"),
    (r"cls_head\.cls_head\.conv\.(.+)", r"rpn_head.cls_head.\1"),
    (r"reg_head\.offset_head\.conv\.(.+)", r"rpn_head.reg_head.\1"),
    (r"reg_head\.scale\.(\d)\.scale", r"rpn_head.scale.\1.scale"),
    ("positives", "rpn_head.loss_normalizer"),
]


def theirs(model):
    """A state of the model's shapes under OpenTAD's names."""
    out = {}
    for key, x in model.state_dict().items():
        key = key.removeprefix("localizer.")
        name = next(re.sub(p, n, key) for p, n in THEIRS if re.fullmatch(p, key))
        a_norm = x.ndim == 3 and x.shape[::2] == (1, 1) and not name.endswith(".scale")
        out[name] = x.flatten() if a_norm else x
    return out


def published(**changes):
    """A small model and weights by formula under OpenTAD's names."""
    model = AdaTAD(AdaTADConfig(SMALL, TowerConfig(**(vars(TOWER) | changes))))
    state = {k: x for k, x in theirs(model).items() if k != "rpn_head.loss_normalizer"}
    return model, waves(state) | {"rpn_head.loss_normalizer": START}


def loaded(folder):
    model, state = published()
    wrapped = {f"module.{k}": x for k, x in state.items()}
    torch.save({"epoch": 1, "state_dict": {}, "state_dict_ema": wrapped}, folder / "a.pth")
    return checkpoints.load(folder / "a.pth", model).double()


@pytest.mark.parametrize(
    "size, count, told, weights",
    [
        ("s", 499, "764cf885a3c5808a", (49582504, 1006860, 22886796)),
        ("b", 499, "6ba7ad7327e3f928", (117517096, 4004364, 90231564)),
        ("l", 763, "b3084bdb37395c0d", (345756724, 14217240, 318077976)),
        ("h", 939, "f312440e9ed27094", (689272636, 29593632, 661200672)),
        ("g", 1115, "63f298431b1dba87", (1084625604, 44746280, 1056357032)),
    ],
)
def test_every_weight_has_the_name_and_shape_of_the_authors_code(size, count, told, weights):
    """`told` is the hash of the names and shapes that OpenTAD lists for THUMOS14; weights are all,
    those of adapters, those of the tower.
    """
    with torch.device("meta"):
        model = AdaTAD(preset("AdaTAD", f"thumos14_videomae_{size}").config)
    rows = [f"{k} {list(x.shape)}" for k, x in sorted(theirs(model).items())]
    assert len(rows) == count
    assert hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16] == told
    named = dict(model.named_parameters())
    sums = (
        sum(p.numel() for k, p in named.items() if part in k) for part in ("", "adapter", "tower.")
    )
    assert tuple(sums) == weights
    learnt = sum(p.numel() for k, p in model.tower.named_parameters() if p.requires_grad)
    assert learnt == weights[1]  # the tower is frozen but for its adapters


def test_answers_are_those_of_the_authors_code(tmp_path):
    model, clip = loaded(tmp_path), pixels(FRAMES, 24)
    with torch.no_grad():
        seen = model.features(clip)[0]
        mask = torch.arange(FRAMES)[None] < VALID
        logits, distances, _ = model(clip.unflatten(1, (FRAMES, 1)), mask)
    features = [  # of steps 0, 3, 26 and 31, the first channels
        [-9.6184398, -1.6738613, 0.6970221, -6.2602083],
        [-8.8874531, -1.7820202, -0.4710865, -7.9579877],
        [-8.7296140, -1.7309067, -0.5243253, -7.9883649],
        [-9.0513247, -1.8841902, -0.8702062, -9.1192776],
    ]
    near = {"atol": 2e-6, "rtol": 0}
    wanted = torch.tensor(features, dtype=torch.float64)
    torch.testing.assert_close(seen[[0, 3, 26, 31], :4], wanted, **near)
    at, wanted = [0, 13, 26, 32, 48, 57], torch.tensor([
        [0.714037, 1.018069, 0.641485],
        [-0.409886, -0.055963, -0.375543],
        [-0.731664, -0.423138, -0.785682],
        [0.712617, 1.088348, 0.782997],
        [0.519165, 0.871107, 0.543406],
        [-0.543661, -0.268406, -0.665245],
    ], dtype=torch.float64)  # fmt: skip
    torch.testing.assert_close(logits[0, at], wanted, **near)
    before, after = [0, 0, 0.001078, 0, 0, 0.028944], [0, 0, 0.036425, 0.06398, 0.005233, 0.005671]
    wanted = torch.tensor([before, after], dtype=torch.float64).T
    torch.testing.assert_close(distances[0, at], wanted, **near)


def test_the_loss_is_that_of_the_authors_code(tmp_path):
    model, clip = loaded(tmp_path), pixels(FRAMES, 24)
    mask = torch.arange(FRAMES)[None] < VALID
    logits, distances, valid = model(clip.unflatten(1, (FRAMES, 1)), mask)
    spans = torch.tensor([[3.0, 9.0], [12.0, 22.0], [12.0, 22.0]])
    target, offset, _ = assign(points(FRAMES, 4), spans, torch.tensor([0, 1, 2]), 3)
    count = ((target.sum(-1) > 0) & valid[0]).sum()
    found = detection_loss(logits, distances, target[None], offset[None], valid, count)
    wanted = 3.3354227542877197, 1.0262122894181265
    assert (found["cls"].item(), found["reg"].item()) == pytest.approx(wanted, abs=2e-6)


def test_the_frozen_control_has_no_adapters_and_the_answers_of_the_authors_code(tmp_path):
    model, _ = published(adapted=False)
    state = {k: x for k, x in published()[1].items() if "adapter" not in k}
    torch.save(state, tmp_path / "f.pth")
    frozen = checkpoints.load(tmp_path / "f.pth", model).double()
    assert not any(p.requires_grad for p in frozen.tower.parameters())
    with torch.no_grad():
        seen = frozen.features(pixels(FRAMES, 24))[0]
    features = [
        [-6.1249435, 1.9984901, 4.0321499, -4.4512510],
        [-5.6584761, 2.1447652, 3.5355983, -5.2259652],
        [-5.3478615, 2.3375180, 3.6060354, -5.1858861],
        [-6.2783436, 2.0640164, 3.6579936, -5.5317522],
    ]
    wanted = torch.tensor(features, dtype=torch.float64)
    torch.testing.assert_close(seen[[0, 3, 26, 31], :4], wanted, atol=2e-6, rtol=0)


def test_adapters_reach_over_the_borders_of_clips_and_the_frozen_encoder_does_not():
    clip = pixels(FRAMES, 16)
    other = clip.clone()
    other[:, 4:8] = 255 - other[:, 4:8]  # the second clip of four frames
    for adapted in (True, False):
        model = AdaTAD(AdaTADConfig(SMALL, TowerConfig(**(vars(TOWER) | {"adapted": adapted}))))
        for name, weight in model.named_parameters():
            if "up_proj.weight" in name:
                torch.nn.init.normal_(weight)
        with torch.no_grad():
            moved = (model.eval().tower(clip) - model.tower(other)).abs().amax(-1)[0] > 1e-6
        clips = set((moved.nonzero()[:, 0] // 2).tolist())  # a clip has two steps
        assert clips >= {0, 1, 2} if adapted else clips == {1}


def test_adapters_start_as_the_identity_and_only_they_and_the_localizer_learn():
    torch.manual_seed(0)
    tokens = torch.randn(1, 4, 3, 8)
    assert torch.equal(Adapter(8)(tokens), tokens)
    grads = []
    for option in (False, True):
        torch.manual_seed(0)
        shape = TowerConfig(**(vars(TOWER) | {"dropout": 0.0}))
        model = AdaTAD(AdaTADConfig(SMALL, shape), save_memory=option).eval()
        model.tower.train()
        frames = pixels(FRAMES, 16).unflatten(1, (FRAMES, 1))
        logits, reach, _ = model(frames, torch.ones(1, FRAMES, dtype=torch.bool))
        (logits.sum() + reach.sum()).backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.allclose(grads[0][n], grads[1][n], atol=1e-5) for n in grads[0])
    assert all(n.startswith("localizer.") or ".adapter." in n for n in grads[0])
    assert grads[0]["tower.blocks.0.adapter.up_proj.weight"].abs().sum() > 0


def test_several_frames_a_step_and_frames_that_make_no_clip():
    model = AdaTAD(AdaTADConfig(SMALL, TOWER, scale=4)).eval()
    with torch.no_grad():
        assert model.features(pixels(FRAMES, 16)).shape == (1, 8, 16)
        with pytest.raises(ValueError, match="multiple of the encoder's 4; got 6"):
            model.features(pixels(6, 16))
        with pytest.raises(ValueError, match="at least 8 pixels a side; got 4 x 4"):
            model.features(pixels(4, 4))


def test_a_file_of_another_kind_or_shape_is_named(tmp_path):
    model, state = published()
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds AdaTAD; expected OpenTAD's ActionFormer"):
        checkpoints.load(tmp_path / "a.pth", ActionFormer(SMALL))
    torch.save(state | {"backbone.model.cls_head.weight": START}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match="more.pth: 1 unexpected keys"):
        checkpoints.load(tmp_path / "more.pth", model)
    torch.save({"epoch": 1, "state_dict": {"x": START}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth: holds no localizer \(x ..\); expected AdaTAD"):
        checkpoints.load(tmp_path / "x.pth", model)


def test_opentad_s_actionformer_on_features_loads_too(tmp_path):
    state = {k: x for k, x in published()[1].items() if not k.startswith("backbone.")}
    torch.save({"state_dict": {f"module.{k}": x for k, x in state.items()}}, tmp_path / "f.pth")
    found = checkpoints.load(tmp_path / "f.pth", ActionFormer(SMALL)).state_dict()
    whole = loaded(tmp_path).float().localizer.state_dict()
    assert found.keys() == whole.keys() and all(torch.equal(found[k], whole[k]) for k in found)


def test_presets_are_those_of_the_paper():
    sizes = [data for kind, data in PRESETS if kind == "AdaTAD"]
    assert sizes == [f"thumos14_videomae_{s}" for s in "sblhg"]
    small, base = (preset("AdaTAD", name) for name in sizes[:2])
    assert small.training.adapter_lr == 2e-4 and base.training.adapter_lr == 1e-4
    assert small.window == 768 and small.recipe["nms"]["sigma"] == 0.7


# Sizes
@pytest.mark.parametrize("size, gmacs", [("s", 57), ("b", 180), ("l", 597), ("h", 1192)])
def test_towers_cost_what_videomae_publishes(size, gmacs):
    """Its paper's multiply-adds of 16 frames of 224 pixels, in 1e9, rounded; AdaTAD's own paper
    counts memory, no operations.
    """
    from torch.utils.flop_counter import FlopCounterMode

    shape = preset("AdaTAD", f"thumos14_videomae_{size}").config.tower
    frames = torch.zeros(1, 16, 224, 224, 3, dtype=torch.uint8, device="meta")
    with torch.device("meta"), FlopCounterMode(display=False) as counted, torch.no_grad():
        Tower(replace(shape, adapted=False)).eval()(frames)
    assert counted.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=3e-3)


def test_the_small_network_has_as_many_weights_as_the_authors_file():
    """Theirs for VideoMAE-S on THUMOS14 has 200,938,640 bytes, some 400 of them to name each
    tensor.
    """
    with torch.device("meta"):
        state = AdaTAD(preset("AdaTAD", "thumos14_videomae_s").config).state_dict()
    numbers = 4 * sum(x.numel() for x in state.values())
    assert 0 < 200_938_640 - numbers < 500 * len(state)
