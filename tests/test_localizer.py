"""Targets, losses, ActionFormer and decoding, against loops and by what they must not depend on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from reference import localization_targets_slow as slow

from vlact.losses.localization import RANGES, assign, detection_loss, diou, focal, points
from vlact.models.actionformer import ActionFormer, LocalizerConfig
from vlact.models.detection import candidates
from vlact.models.dyfadet import DyFADet, DyFADetConfig, Dynamic, Gate
from vlact.models.tridet import TriDet, TriDetConfig, expected_distance
from vlact.papers.actionvlm import localizing

CONFIG = LocalizerConfig(feature_dim=6, classes=3, dim=16, heads=2, embeds=1, stems=1, levels=3)


def scene(seed, n=6, length=64):
    rng = np.random.default_rng(seed)
    start = (
        rng.integers(0, 8 * (length - 4), n) / 8
    )  # exact in single precision, so that borders are the same in both
    segments = np.stack([start, np.minimum(start + rng.integers(8, 240, n) / 8, length)], 1)
    segments[1] = segments[0]  # two classes at one place
    return torch.tensor(segments, dtype=torch.float32), torch.tensor(rng.integers(0, 5, n))


# Targets and losses
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("radius", [1.5, 0.5, 100.0])
def test_targets_equal_the_loop(seed, radius):
    at, (segments, labels) = points(64, 4), scene(seed)
    target, offset, owner = assign(at, segments, labels, 5, radius)
    rows = list(
        zip(at.t.tolist(), at.low.tolist(), at.high.tolist(), at.stride.tolist(), strict=True)
    )
    wanted = slow.assign(rows, segments.tolist(), labels.tolist(), 5, radius)
    assert (owner >= 0).any()
    for p, (classes, distances, who) in enumerate(wanted):
        assert target[p].tolist() == classes and int(owner[p]) == who
        if distances:
            assert offset[p].tolist() == pytest.approx(distances, abs=1e-4)


def test_nothing_to_find_makes_every_point_negative():
    target, offset, owner = assign(
        points(16, 2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), 3
    )
    assert target.shape == (24, 3) and not target.any() and not offset.any() and (owner == -1).all()


def test_points_stand_at_multiples_of_their_stride():
    at = points(8, 3)
    assert at.t.tolist() == [*range(8), 0, 2, 4, 6, 0, 4] and at.stride.unique().tolist() == [
        1,
        2,
        4,
    ]
    assert (at.low[0], at.high[0]) == RANGES[0]
    with pytest.raises(ValueError, match="multiple of 4 for 3 levels; got 6"):
        points(6, 3)
    with pytest.raises(ValueError, match="ranges must name every level"):
        points(8, 3, RANGES[:2])


def test_losses_equal_the_formulas_in_value_and_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    distances = (
        torch.rand(2, 7, 2, generator=generator, dtype=torch.float64) + 0.1
    ).requires_grad_()
    target = (torch.rand(2, 7, 3, generator=generator) < 0.3).double()
    offset = torch.rand(2, 7, 2, generator=generator, dtype=torch.float64) + 0.1
    valid = torch.rand(2, 7, generator=generator) < 0.8

    def oracle():
        cls = sum(
            slow.focal(logits[b, p, c].item(), target[b, p, c].item())
            for b, p in valid.nonzero().tolist()
            for c in range(3)
        )
        pos = [(b, p) for b, p in valid.nonzero().tolist() if target[b, p].any()]
        return cls / 4, sum(
            slow.diou(distances[b, p].tolist(), offset[b, p].tolist()) for b, p in pos
        ) / 4

    found = detection_loss(logits, distances, target, offset, valid, 4.0)
    assert (found["cls"].item(), found["reg"].item()) == pytest.approx(oracle(), rel=1e-9)
    sum(found.values()).backward()
    for tensor, which in ((logits, 0), (distances, 1)):
        for index in ((0, 1, 0), (1, 3, 1), (0, 5, 1)):
            step, before = 1e-5, tensor.data[index].item()
            tensor.data[index] = before + step
            up = oracle()[which]
            tensor.data[index] = before - step
            down = oracle()[which]
            tensor.data[index] = before
            assert tensor.grad[index].item() == pytest.approx((up - down) / (2 * step), abs=1e-7)


def test_diou_is_zero_for_the_right_segment_and_focal_small_for_the_sure_and_right():
    assert diou(torch.tensor([2.0, 3.0]), torch.tensor([2.0, 3.0])).item() == 0
    assert (
        focal(torch.tensor([8.0]), torch.tensor([1.0])).item()
        < 1e-8
        < focal(torch.tensor([-8.0]), torch.tensor([1.0])).item()
    )


# ActionFormer, TriDet
def make(kind, **more):
    torch.manual_seed(0)
    shape = {
        "feature_dim": 6,
        "classes": 3,
        "dim": 16,
        "heads": 2,
        "embeds": 1,
        "stems": 1,
        "levels": 3,
    } | more
    kinds = {
        "actionformer": (ActionFormer, LocalizerConfig),
        "tridet": (TriDet, TriDetConfig),
        "dyfadet": (DyFADet, DyFADetConfig),
    }
    model, config = kinds[kind]
    return model(config(**shape, **({"bins": 4} if kind == "tridet" else {}))).eval()


@pytest.mark.parametrize("kind", ["actionformer", "tridet", "dyfadet"])
def test_padding_changes_nothing(kind):
    model = make(kind)
    x = torch.randn(1, 16, 6)
    whole = torch.ones(1, 16, dtype=torch.bool)
    padded = torch.cat([x, torch.randn(1, 16, 6)], 1)
    mask = torch.cat([whole, ~whole], 1)
    with torch.no_grad():
        alone, together = model(x, whole), model(padded, mask)
    assert together[2].sum() == alone[2].sum() == 16 + 8 + 4
    for a, b in zip(alone[:2], together[:2], strict=True):
        assert torch.allclose(a[alone[2]], b[together[2]], atol=1e-5)


def test_a_window_keeps_far_steps_apart():
    torch.manual_seed(0)
    config = LocalizerConfig(
        feature_dim=6, classes=3, dim=16, heads=2, embeds=1, stems=1, levels=1, window=3
    )
    model, x, mask = (
        ActionFormer(config).eval(),
        torch.randn(1, 32, 6),
        torch.ones(1, 32, dtype=torch.bool),
    )
    other = x.clone()
    other[0, 31] += 5
    with torch.no_grad():
        change = (model(x, mask)[0] - model(other, mask)[0]).abs().sum(-1)[0]
    assert change[-1] > 0 and change[:20].max() == 0
    with pytest.raises(ValueError, match="window must be odd or 0; got 4"):
        LocalizerConfig(feature_dim=6, classes=3, window=4)


@pytest.mark.parametrize("kind", ["actionformer", "tridet", "dyfadet"])
def test_the_same_features_in_both_branches_are_one_pass(kind):
    model, x, mask = make(kind), torch.randn(2, 8, 6), torch.ones(2, 8, dtype=torch.bool)
    with torch.no_grad():
        one, two = model(x, mask), model(x, mask, x.clone())
        third = model(x, mask, x + 1)
    assert (
        torch.allclose(one[1], two[1])
        and torch.allclose(one[0], third[0], atol=1e-6)
        and not torch.allclose(one[1], third[1])
    )


@pytest.mark.parametrize("ahead", [False, True])
def test_a_border_is_the_expectation_over_the_steps_around(ahead):
    generator = torch.Generator().manual_seed(0)
    border, offset = (
        torch.randn(1, 7, generator=generator),
        torch.randn(1, 7, 4, generator=generator),
    )
    mask = torch.tensor([[True] * 6 + [False]])
    found = expected_distance(border, offset, mask, ahead)
    for t in range(6):
        steps = [(k, t + k if ahead else t - k) for k in range(4)]
        weight = {
            k: np.exp(border[0, i].item() + offset[0, t, k].item()) for k, i in steps if 0 <= i < 6
        }
        assert found[0, t].item() == pytest.approx(
            sum(k * w for k, w in weight.items()) / sum(weight.values()), rel=1e-5
        )
    assert found.isfinite().all() and (found <= 3).all()


@pytest.mark.parametrize("kind", ["tridet", "dyfadet"])
def test_other_localizers_learn_where_an_action_is(kind):
    """One bump, always the same: the best point's segment lies on it after some steps."""
    model = make(kind, feature_dim=4, classes=2).train()
    at, mask = points(16, 3), torch.ones(1, 16, dtype=torch.bool)
    x = torch.zeros(1, 16, 4)
    x[0, 5:9, 1] = 2
    target, offset, _ = assign(at, torch.tensor([[5.0, 9.0]]), torch.tensor([1]), 2)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(80):
        logits, distances, valid = model(x, mask)
        loss = sum(
            detection_loss(logits, distances, target[None], offset[None], valid, 3.0).values()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        logits, distances, valid = (y[0] for y in model(x, mask))
    found = candidates(logits, distances, valid, at)
    best = int(np.argmax(found["score"]))
    assert (
        found["label"][best] == 1
        and found["score"][best] > 0.5
        and np.abs(found["segment"][best] - [5, 9]).max() < 0.5
    )


def test_a_gate_that_is_shut_says_nothing_and_an_open_one_listens_to_its_taps():
    torch.manual_seed(0)
    config = DyFADetConfig(feature_dim=6, classes=3, dim=16, levels=3)
    gate, x, mask = Gate(16, 16, 1.5), torch.randn(1, 9, 16), torch.ones(1, 9, dtype=torch.bool)
    with torch.no_grad():
        assert (gate(x, mask) > 0.2).all()  # at first all are open
        for bias, opened in ((-1.0, 0.0), (0.0, 0.0), (50.0, 1.0)):
            gate.gate_conv.bias.fill_(bias)
            assert torch.allclose(gate(x, mask), torch.full_like(x, opened), atol=1e-6)
        mixer = Dynamic(16, 16, config, gated=True)
        mixer.kernel_conv = gate
        other = x.clone()
        other[0, 3] += 1
        moved = (mixer(x, mask) - mixer(other, mask)).abs().sum(-1)[0] > 1e-6
        assert moved.nonzero()[:, 0].tolist() == [2, 3, 4]
        gate.gate_conv.bias.fill_(-1.0)
        assert torch.equal(mixer(x, mask), mixer(other, mask))
    # The norm then sees a bias that is not near zero, where its gradient would be 1 / sqrt(eps)
    mixer(x, mask)[..., 0].sum().backward()
    assert 0 < mixer.conv.bias.grad.norm() < 0.1 * x.shape[1] / mixer.norm.eps**0.5


def test_levels_tell_their_neighbours():
    torch.manual_seed(0)
    model = make("dyfadet")
    levels = [torch.randn(1, n, 16) for n in (8, 4, 2)]
    masks = [torch.ones(1, n, dtype=torch.bool) for n in (8, 4, 2)]
    layer, changed = model.cls_head.head[0], [x.clone() for x in levels]
    changed[0] += 1
    with torch.no_grad():
        layer.scale_weight.fill_(1.0)
        for mixer in layer.dynamic_convs:
            mixer.kernel_conv.gate_conv.bias.fill_(1.0)
        before, after = layer(levels, masks), layer(changed, masks)
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [False, False, True]


# End to end
SHAPE = {
    "image_size": 32,
    "patch_size": 16,
    "num_frames": 4,
    "dim": 32,
    "depth": 2,
    "heads": 2,
    "embed_dim": 12,
    "text_dim": 16,
}


def end_to_end(**options):
    from vlact.models.adatad import EndToEnd
    from vlact.models.dual import DualConfig, DualEncoder

    torch.manual_seed(0)
    encoder = DualEncoder(
        DualConfig(**SHAPE, pool="mean", motion_input=True, conv_stem=True)
    ).eval()
    localizer = ActionFormer(
        LocalizerConfig(feature_dim=32, classes=2, dim=16, heads=2, embeds=1, stems=1, levels=2)
    )
    return encoder, EndToEnd(encoder, localizer, **options)


FRAMES = torch.randint(
    0, 255, (2, 8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def test_adapters_start_as_the_identity_and_a_feature_is_the_mean_of_its_frame():
    encoder, model = end_to_end(stride=2)
    with torch.no_grad():
        found = model.features(FRAMES)
        tokens = encoder.trunk.layernorm(encoder.first(FRAMES[:1, 4:], 2))[0, 1:].view(
            4, 4, 32
        )  # positions, frames
        pooled = encoder.last(encoder.first(FRAMES[:1, 4:], 0), 0)
    assert found.shape == (2, 4, 32) and torch.allclose(
        found[0, 2:], tokens.mean(0)[::2], atol=1e-6
    )
    assert torch.allclose(tokens.mean((0, 1)), pooled[0], atol=1e-6)
    with pytest.raises(ValueError, match="multiple of the encoder's 4; got 6"):
        model.features(FRAMES[:, :6])


def test_time_flows_along_each_position_only():
    """What an adapter adds depends on the neighbouring frames of the same patch and on nothing
    else.
    """
    from vlact.models.adatad import Adapter

    torch.manual_seed(0)
    adapter = Adapter(8)
    torch.nn.init.normal_(adapter.up_proj.weight)
    tokens = torch.randn(1, 5, 3, 8)  # five frames, three positions
    other = tokens.clone()
    other[0, 2, 1] += 1
    with torch.no_grad():
        moved = (adapter(tokens) - adapter(other)).abs().sum(-1)[0] > 1e-6
    assert moved.nonzero().tolist() == [[t, 1] for t in (1, 2, 3)]


def test_adapters_of_an_encoder_of_clips_reach_over_their_borders_and_a_frozen_one_does_not():
    other = FRAMES.clone()
    other[:, 4:] = 255 - other[:, 4:]  # the second of two clips
    for adapted in (True, False):
        _, model = end_to_end(adapted=adapted)
        for adapter in model.adapters:
            torch.nn.init.normal_(adapter.up_proj.weight)
        with torch.no_grad():
            moved = (model.features(FRAMES) - model.features(other)).abs().amax(-1)[0] > 1e-6
        assert moved[4:].all() and bool(moved[:4].any()) == adapted


@pytest.mark.parametrize("save_memory", [False, True])
def test_only_adapters_and_localizer_learn_and_saving_memory_changes_nothing(save_memory):
    grads = []
    for option in (False, save_memory):
        _, model = end_to_end(save_memory=option)
        model.train()
        logits, distances, _ = model(
            FRAMES.unflatten(1, (-1, 1)), torch.ones(2, 8, dtype=torch.bool)
        )
        (logits.sum() + distances.sum()).backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert not model.encoder.training and all(
        n.startswith(("adapters", "localizer")) for n in grads[0]
    )
    assert grads[0]["adapters.0.up_proj.weight"].abs().sum() > 0
    assert grads[0].keys() == grads[1].keys() and all(
        torch.allclose(grads[0][n], grads[1][n], atol=1e-6) for n in grads[0]
    )


# Windows, training, decoding
RECIPE = {
    "window": 32,
    "batch_size": 8,
    "epochs": 72,
    "lr": 4e-3,
    "weight_decay": 0.01,
    "noise": 0.0,
    "reg_weight": 1.0,
    "ema": 0.9,
    "pre_nms_topk": 2000,
    "nms": {"max_seg_num": 2},
}
CLOCK = localizing.Clock(0.5, 0.25)


def former(config):
    torch.manual_seed(0)
    return ActionFormer(config)


def bumps(videos, seed, length=48):
    """Videos in which two kinds of bumps rise from noise, one of each, as features, durations and
    ground truth.
    """
    rng, features, rows = np.random.default_rng(seed), {}, []
    for v in range(videos):
        x = 0.3 * rng.standard_normal((length, 4))
        for kind, first in enumerate(rng.permutation([2, 26])):
            start, n = first + rng.integers(0, 6), rng.integers(5, 13)
            x[start : start + n, kind] += 2
            rows.append(
                {
                    "video": f"v{v}",
                    "start_s": start * 0.5,
                    "end_s": (start + n) * 0.5,
                    "label": "ab"[kind],
                }
            )
        features[f"v{v}"] = torch.tensor(x, dtype=torch.float32)
    return features, {v: length * 0.5 for v in features}, pd.DataFrame(rows)


def test_it_learns_to_find_and_name_segments_and_resumes_to_the_same(
    tmp_path, monkeypatch, until_killed
):
    from vlact.metrics.localization import evaluate
    from vlact.training import loop as training

    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 40)
    config = LocalizerConfig(
        feature_dim=4, classes=2, dim=16, heads=2, embeds=1, stems=1, levels=3, dropout=0.1
    )
    features, durations, truth = bumps(24, 0)
    parts = localizing.sequences(features, durations, truth, ["a", "b"], CLOCK)
    model, curve = localizing.train(parts[:16], former(config), RECIPE, seed=0)
    found = localizing.Localizer(model, ["a", "b"], CLOCK, RECIPE, torch.zeros(4), torch.ones(4))
    found.save(tmp_path / "localizer.safetensors")
    loaded = localizing.Localizer.load(tmp_path / "localizer.safetensors")
    table = loaded.detect(features, {s.name: s.duration_s for s in parts[16:]})
    pd.testing.assert_frame_equal(
        table, found.detect(features, {s.name: s.duration_s for s in parts[16:]})
    )
    with pytest.raises(ValueError, match=r"v0: features of shape \(9, 5\); expected \(T, 4\)"):
        loaded.detect({"v0": torch.zeros(9, 5)}, {"v0": 4.5})
    seen = truth[truth["video"].isin([s.name for s in parts[16:]])]
    assert evaluate(seen, table, tious=(0.5,))["ap"].mean() > 0.9
    assert table.groupby("video").size().max() == 2 and curve[-1]["loss"] < 0.5 * curve[0]["loss"]

    until_killed(
        localizing.train, parts[:16], former(config), RECIPE, 0, str(tmp_path / "state.pt")
    )
    again, same = localizing.train(
        parts[:16], former(config), RECIPE, 0, str(tmp_path / "state.pt")
    )
    assert same == curve and all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_windows_cut_actions_and_forget_what_is_hardly_in_them():
    features = torch.arange(10.0)[:, None].expand(10, 6)
    sequence = localizing.Sequence(
        "v",
        5.0,
        features,
        torch.tensor([[0.0, 4.0], [3.0, 7.0], [8.0, 10.0]]),
        torch.tensor([0, 1, 2]),
    )
    x, mask, segments, labels = localizing.window(sequence, 4, 8)
    assert (
        x[:, 0].tolist() == [4, 5, 6, 7, 8, 9, 0, 0] and mask.tolist() == [True] * 6 + [False] * 2
    )
    assert segments.tolist() == [[0, 3], [4, 6]] and labels.tolist() == [1, 2]


@pytest.mark.parametrize("steps, wanted", [(5, [0]), (8, [0]), (9, [0, 1]), (20, [0, 4, 8, 12])])
def test_sliding_windows_cover_everything(steps, wanted):
    assert localizing.starts(steps, 8) == wanted


@pytest.mark.parametrize(
    "change, message",
    [
        ({"label": "z"}, r"ground truth, row 0: unknown class 'z'"),
        ({"end_s": 0.0}, r"ground truth, row 0 \(v0\): end_s must be after start_s; got .* to 0.0"),
        ({"end_s": float("nan")}, "end_s must be after start_s"),
    ],
)
def test_bad_ground_truth_is_named(change, message):
    features, durations, truth = bumps(2, 0)
    truth.loc[0, list(change)] = list(change.values())
    with pytest.raises(ValueError, match=message):
        localizing.sequences(features, durations, truth, ["a", "b"], CLOCK)
    with pytest.raises(ValueError, match="no features of 1 videos, for example 'v9'"):
        localizing.sequences(features, durations | {"v9": 1.0}, bumps(2, 0)[2], ["a", "b"], CLOCK)


def test_candidates_are_thinned_level_by_level():
    at = points(8, 2)
    logits, distances = torch.full((12, 2), -20.0), torch.full((12, 2), 1.0)
    logits[0, 1], logits[7, 0], logits[9, 0] = 3.0, 2.0, 1.0
    found = candidates(logits, distances, torch.ones(12, dtype=torch.bool), at)
    assert found["label"].tolist() == [1, 0, 0] and found["point"].tolist() == [0, 7, 9]
    assert found["segment"].tolist() == [[-1, 1], [6, 8], [0, 4]]
    one = candidates(logits, distances, torch.ones(12, dtype=torch.bool), at, start=10, top_k=1)
    assert one["point"].tolist() == [0, 9] and one["segment"].tolist() == [[9, 11], [10, 14]]
    assert candidates(logits, distances, torch.arange(12) > 0, at)["point"].tolist() == [7, 9]


def test_strangers_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="x.safetensors: expected a 'localizer' entry"):
        localizing.Localizer.load(tmp_path / "x.safetensors")


def test_features_do_not_depend_on_the_rate_or_size_of_the_file(tmp_path):
    """One film of eight frames a second as it is, with every frame twice at sixteen, and at twice
    the size.
    """
    from vlact import video
    from vlact.models.dual import DualConfig, DualEncoder
    from vlact.training.features import extract

    shape = dict(
        image_size=32,
        patch_size=16,
        num_frames=4,
        dim=32,
        depth=1,
        heads=2,
        embed_dim=12,
        text_dim=16,
    )
    encoder = DualEncoder(
        DualConfig(**shape, pool="mean", motion_input=True, conv_stem=True)
    ).eval()
    base = np.random.default_rng(0).integers(0, 255, (21, 4, 4, 3), dtype=np.uint8)
    frames = base.repeat(8, 1).repeat(8, 2)
    video.write(tmp_path / "a.mp4", frames, 8)
    video.write(tmp_path / "b.mp4", frames.repeat(2, 0), 16)
    video.write(tmp_path / "c.mp4", frames.repeat(2, 1).repeat(2, 2), 8)
    shares = []
    found = {k: extract(encoder, tmp_path / f"{k}.mp4", 8.0, 2, tell=shares.append) for k in "abc"}
    assert sum(shares) == pytest.approx(3) and len(shares) >= 3
    assert found["a"].shape == (11, 32)
    for other in "bc":
        assert (
            found[other].shape == (11, 32)
            and (found[other] - found["a"]).abs().max() < 0.25 * found["a"].abs().max()
        )
    assert torch.allclose(
        extract(encoder, tmp_path / "a.mp4", 8.0, 2, batch_size=3), found["a"], atol=0.05
    )


def test_frames_come_by_steps_and_are_learnt_from_end_to_end(tmp_path, monkeypatch):
    from vlact import video
    from vlact.models.dual import DualConfig, DualEncoder
    from vlact.training import features

    rng, rows, durations = np.random.default_rng(0), [], {"train": {}, "test": {}}
    for v, part in enumerate(["train"] * 3 + ["test"]):
        shot = rng.integers(0, 60, (27, 32, 32, 3), dtype=np.uint8)
        shot[8:16, 8:24, 8:24] += 150
        video.write(tmp_path / f"v{v}.mp4", shot, 8)
        durations[part][f"v{v}.mp4"] = 27 / 8
        rows.append({"video": f"v{v}.mp4", "start_s": 1.0, "end_s": 2.0, "label": "lit"})
    found = features.frames(tmp_path / "v0.mp4", 8.0, 2, 2, 32)
    assert (
        found.shape == (14, 2, 32, 32, 3)
        and found.dtype == torch.uint8
        and torch.equal(found[-1, 0], found[-1, 1])
    )
    assert torch.equal(
        found.flatten(0, 1)[:27], torch.from_numpy(video.read(tmp_path / "v0.mp4", range(27)))
    )
    torch.manual_seed(0)
    DualEncoder(DualConfig(**SHAPE, pool="mean", motion_input=True, conv_stem=True)).save(
        tmp_path / "e.safetensors"
    )
    pd.DataFrame(rows).to_parquet(tmp_path / "truth.parquet")
    shape = {
        "feature_dim": 32,
        "classes": 1,
        "dim": 16,
        "heads": 2,
        "embeds": 1,
        "stems": 1,
        "levels": 2,
        "dropout": 0.0,
    }
    recipe = RECIPE | {"window": 16, "batch_size": 2, "epochs": 2, "stride": 2}
    table = str(tmp_path / "truth.parquet"), ["lit"], {"step_s": 0.25}
    problem = localizing.Problem(str(tmp_path), durations, *table, shape, recipe)
    eye = 8.0, str(tmp_path / "e.safetensors"), 0
    out = str(tmp_path / "o"), str(tmp_path / "o.pt")
    curve = localizing.end_to_end_job(problem, *eye, *out)
    table = pd.read_parquet(tmp_path / "o.parquet")
    assert (
        np.isfinite(curve[-1]["loss"])
        and set(table["video"]) == {"v3.mp4"}
        and set(table["model"]) == {"AdaTAD"}
    )
    monkeypatch.setattr(localizing, "IN_MEMORY", 0)  # films, decoded window by window
    for kind in localizing.WIRED:
        out = str(tmp_path / kind), None
        short = replace(problem, recipe=recipe | {"epochs": 1})
        localizing.end_to_end_job(short, *eye, *out, kind=kind)
        assert set(pd.read_parquet(tmp_path / f"{kind}.parquet")["model"]) == {kind}
    with pytest.raises(video.VideoError, match="v9.mp4"):
        features.frames(tmp_path / "v9.mp4", 8.0, 2, 2, 32)
