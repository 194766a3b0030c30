"""Targets, losses, ActionFormer and decoding, against loops and by what they must not depend on."""

import numpy as np
import pytest
import torch
from reference import localization_targets_slow as slow

from vlact import detection
from vlact.losses.localization import RANGES, assign, detection_loss, diou, focal, points
from vlact.models.actionformer import ActionFormer, LocalizerConfig

CONFIG = LocalizerConfig(feature_dim=6, classes=3, dim=16, heads=2, embeds=1, stems=1, levels=3)


def scene(seed, n=6, length=64):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 8 * (length - 4), n) / 8  # exact in single precision, so that borders are the same in both
    segments = np.stack([start, np.minimum(start + rng.integers(8, 240, n) / 8, length)], 1)
    segments[1] = segments[0]  # two classes at one place
    return torch.tensor(segments, dtype=torch.float32), torch.tensor(rng.integers(0, 5, n))


# Targets and losses
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("radius", [1.5, 0.5, 100.0])
def test_targets_equal_the_loop(seed, radius):
    at, (segments, labels) = points(64, 4), scene(seed)
    target, offset, owner = assign(at, segments, labels, 5, radius)
    rows = list(zip(at.t.tolist(), at.low.tolist(), at.high.tolist(), at.stride.tolist(), strict=True))
    wanted = slow.assign(rows, segments.tolist(), labels.tolist(), 5, radius)
    assert (owner >= 0).any()
    for p, (classes, distances, who) in enumerate(wanted):
        assert target[p].tolist() == classes and int(owner[p]) == who
        if distances:
            assert offset[p].tolist() == pytest.approx(distances, abs=1e-4)


def test_nothing_to_find_makes_every_point_negative():
    target, offset, owner = assign(points(16, 2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), 3)
    assert target.shape == (24, 3) and not target.any() and not offset.any() and (owner == -1).all()


def test_points_stand_at_multiples_of_their_stride():
    at = points(8, 3)
    assert at.t.tolist() == [*range(8), 0, 2, 4, 6, 0, 4] and at.stride.unique().tolist() == [1, 2, 4]
    assert (at.low[0], at.high[0]) == RANGES[0]
    with pytest.raises(ValueError, match="multiple of 4 for 3 levels; got 6"):
        points(6, 3)
    with pytest.raises(ValueError, match="ranges must name every level"):
        points(8, 3, RANGES[:2])


def test_losses_equal_the_formulas_in_value_and_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    distances = (torch.rand(2, 7, 2, generator=generator, dtype=torch.float64) + 0.1).requires_grad_()
    target = (torch.rand(2, 7, 3, generator=generator) < 0.3).double()
    offset = torch.rand(2, 7, 2, generator=generator, dtype=torch.float64) + 0.1
    valid = torch.rand(2, 7, generator=generator) < 0.8

    def oracle():
        cls = sum(slow.focal(logits[b, p, c].item(), target[b, p, c].item()) for b, p in valid.nonzero().tolist() for c in range(3))
        pos = [(b, p) for b, p in valid.nonzero().tolist() if target[b, p].any()]
        return cls / 4, sum(slow.diou(distances[b, p].tolist(), offset[b, p].tolist()) for b, p in pos) / 4

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
    assert focal(torch.tensor([8.0]), torch.tensor([1.0])).item() < 1e-8 < focal(torch.tensor([-8.0]), torch.tensor([1.0])).item()


# ActionFormer
def test_padding_changes_nothing():
    torch.manual_seed(0)
    model = ActionFormer(CONFIG).eval()
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
    config = LocalizerConfig(feature_dim=6, classes=3, dim=16, heads=2, embeds=1, stems=1, levels=1, window=3)
    model, x, mask = ActionFormer(config).eval(), torch.randn(1, 32, 6), torch.ones(1, 32, dtype=torch.bool)
    other = x.clone()
    other[0, 31] += 5
    with torch.no_grad():
        change = (model(x, mask)[0] - model(other, mask)[0]).abs().sum(-1)[0]
    assert change[-1] > 0 and change[:20].max() == 0
    with pytest.raises(ValueError, match="window must be odd or 0; got 4"):
        LocalizerConfig(feature_dim=6, classes=3, window=4)


def test_the_same_features_in_both_branches_are_one_pass():
    model, x, mask = ActionFormer(CONFIG).eval(), torch.randn(2, 8, 6), torch.ones(2, 8, dtype=torch.bool)
    with torch.no_grad():
        one, two = model(x, mask), model(x, mask, x.clone())
        third = model(x, mask, x + 1)
    assert torch.allclose(one[1], two[1]) and torch.equal(one[0], third[0]) and not torch.allclose(one[1], third[1])


def test_it_learns_to_find_and_name_segments():
    """Two kinds of bumps in noise: after a few hundred steps every one is found, and called what it is."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    config = LocalizerConfig(feature_dim=4, classes=2, dim=16, heads=2, embeds=1, stems=1, levels=3)
    model, at = ActionFormer(config), points(32, 3)

    def make():
        x = 0.3 * torch.randn(32, 4, generator=generator)
        start, length, kind = (int(torch.randint(*r, (), generator=generator)) for r in ((1, 18), (4, 12), (0, 2)))
        x[start : start + length, kind] += 2
        return x, torch.tensor([[start, start + length]], dtype=torch.float32), torch.tensor([kind])

    optimizer, mask = torch.optim.AdamW(model.parameters(), 4e-3), torch.ones(8, 32, dtype=torch.bool)
    for _ in range(150):
        x, segments, labels = zip(*(make() for _ in range(8)), strict=True)
        target, offset, _ = map(torch.stack, zip(*(assign(at, s, c, 2) for s, c in zip(segments, labels, strict=True)), strict=True))
        logits, distances, valid = model(torch.stack(x), mask)
        loss = sum(detection_loss(logits, distances, target, offset, valid, float((target.sum(-1) > 0).sum())).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    good = 0
    for _ in range(20):
        x, segments, labels = make()
        with torch.no_grad():
            run = [y[0] for y in model(x[None], mask[:1])]
        table = detection.detect([("v", 16.0, lambda run=run: run)], at, ["a", "b"], 0.5, 0.0, {"max_seg_num": 1})
        start, end = (segments[0] / 2).tolist()
        best = table.iloc[0]
        inter = max(0, min(end, best["end_s"]) - max(start, best["start_s"]))
        good += best["label"] == "ab"[labels[0]] and inter / (max(end, best["end_s"]) - min(start, best["start_s"])) > 0.6
    assert good >= 18


# Decoding
def test_candidates_are_cut_to_the_video_and_thinned_level_by_level():
    at = points(8, 2)
    logits, distances = torch.full((12, 2), -20.0), torch.full((12, 2), 1.0)
    logits[0, 1], logits[7, 0], logits[9, 0] = 3.0, 2.0, 1.0
    found = detection.decode(logits, distances, torch.ones(12, dtype=torch.bool), at)
    assert found["label"].tolist() == [1, 0, 0] and found["point"].tolist() == [0, 7, 9]
    assert found["segment"].tolist() == [[-1, 1], [6, 8], [0, 4]]
    one = detection.decode(logits, distances, torch.ones(12, dtype=torch.bool), at, top_k=1)
    assert one["point"].tolist() == [0, 9]
    seen = detection.decode(logits, distances, torch.arange(12) > 0, at)
    assert seen["point"].tolist() == [7, 9]
    run = lambda: (logits, distances, torch.ones(12, dtype=torch.bool))  # noqa: E731
    table = detection.detect([("v", 3.5, run)], at, ["x", "y"], 0.5, 0.25, {})
    assert table["start_s"].min() == 0 and table["end_s"].max() <= 3.5 and set(table["label"]) == {"x", "y"}
