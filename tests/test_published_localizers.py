"""ActionFormer, TriDet and DyFADet as published: names and shapes of their authors' checkpoints,
what their authors' code answered once on weights that anyone can make again, and local attention.

ActionFormer: happyharrycn/actionformer_release at 61ea7eb. TriDet: dingfengshi/TriDet at 764b816.
DyFADet: yangle15/DyFADet-pytorch at f645caf. Their soft-NMS in C++ was a loop of the same rule.
"""

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from test_known_answers import waves

from vlact.losses.localization import RANGES, assign, detection_loss, diou, giou, points, ranges_of
from vlact.models import localizer_checkpoints as checkpoints
from vlact.models.actionformer import (
    ActionFormer,
    LocalizerConfig,
    dense_attention,
    local_attention,
)
from vlact.models.dyfadet import DyFADet, DyFADetConfig
from vlact.models.localizer_presets import PRESETS, preset
from vlact.models.tridet import GroupNorm, TriDet, TriDetConfig
from vlact.papers.actionvlm import accounting
from vlact.papers.actionvlm.localizing import Clock, Localizer

KINDS = {"ActionFormer": ActionFormer, "TriDet": TriDet, "DyFADet": DyFADet}
SMALL = {"levels": 4, "head_dim": 24, "dropout": 0.1, "official": True}
CONFIGS = {
    "ActionFormer": LocalizerConfig(12, 3, dim=16, heads=2, window=5, **SMALL),
    "TriDet": TriDetConfig(
        12, 3, dim=32, mlp_dim=40, kernel=3, widening=1.5, bins=4, iou_power=0.2, **SMALL
    ),
    "DyFADet": DyFADetConfig(12, 3, dim=32, mlp_dim=40, kernel=3, widening=1.5, **SMALL),
}
WINDOWS = {"ActionFormer": 128, "TriDet": 64, "DyFADet": 64}


def published(kind, **changes):
    """A model of a small shape, and weights by formula under the names of its authors' code."""
    from dataclasses import replace

    model = KINDS[kind](replace(CONFIGS[kind], **changes))
    return model, waves({k: x for k, x in model.state_dict().items() if k != "positives"})


def loaded(kind, tmp_path, **changes):
    """The same, through a checkpoint as the authors' training leaves it."""
    model, state = published(kind, **changes)
    wrapped = {f"module.{k}": x for k, x in state.items()}
    other = {k: torch.zeros_like(x) for k, x in wrapped.items()}
    path = tmp_path / "epoch_034.pth.tar"
    torch.save({"epoch": 34, "state_dict": other, "state_dict_ema": wrapped}, path)
    return checkpoints.load(path, model), path


def features(steps=50):
    x = torch.sin(0.37 * torch.arange(steps * 12, dtype=torch.float64) ** 1.1)
    return x.float().view(steps, 12)


# Names and shapes
@pytest.mark.parametrize(
    "kind, data, count, told",
    [
        ("ActionFormer", "thumos14_i3d", 229, "b360bba52a02dc1a"),
        ("ActionFormer", "activitynet_tsp", 229, "156b6dcf8edaa4f7"),
        ("ActionFormer", "activitynet_i3d", 229, "9504df7c51be41b8"),
        ("ActionFormer", "epic_verb", 229, "4ecbc7f905596c29"),
        ("ActionFormer", "epic_noun", 229, "45d85095180cc981"),
        ("TriDet", "thumos14_i3d", 192, "57465451c5f3ac19"),
        ("TriDet", "activitynet_tsp", 192, "6a201f59417dca06"),
        ("TriDet", "epic_verb", 192, "d4ef22f86da0ee31"),
        ("TriDet", "epic_noun", 192, "3d0a7ba731c03bcc"),
        ("DyFADet", "thumos14_i3d", 280, "2ad91ef485a9a4a9"),
        ("DyFADet", "activitynet_tsp", 280, "9c95cc429431cbdd"),
        ("DyFADet", "epic_verb", 280, "c66b9693b66cfef0"),
        ("DyFADet", "epic_noun", 280, "78334d3b31f8b0ac"),
    ],
)
def test_every_weight_has_the_name_and_shape_of_the_authors_code(kind, data, count, told):
    """`told` is the hash of the names and shapes that their code lists for the configuration."""
    with torch.device("meta"):
        own = KINDS[kind](preset(kind, data).config).state_dict()
    rows = [f"{k} {list(x.shape)}" for k, x in sorted(own.items()) if k != "positives"]
    assert len(rows) == count
    assert hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16] == told


def test_presets_are_those_of_the_papers():
    found = preset("ActionFormer", "thumos14_i3d")
    assert found.config.windows == (19,) * 6 and found.config.multiple == 576
    assert found.recipe["nms"]["max_seg_num"] == 200 and found.training.lr == 1e-4
    assert PRESETS["TriDet", "activitynet_tsp"].config.multiple == 480
    shapes = [getattr(p.config, "localizer", p.config) for p in PRESETS.values()]
    assert all(max(r for _, r in shape.ranges or RANGES) == 10000 for shape in shapes)
    with pytest.raises(ValueError, match="no published configuration of 'TriDet' on 'gtea'"):
        preset("TriDet", "gtea")


# Answers
ANSWERS = {
    "ActionFormer": (
        [
            [-0.11058, -0.052654, -0.287963],
            [0.263228, -0.462124, 0.151072],
            [0.261834, -0.424412, 0.077603],
        ],
        [[4.13333, 4.14721], [4.8, 4.81474], [3.46267, 3.47053], [2.39615, 2.40402]],
        [0.596757, 0.592316, 0.591982, 0.590728],
        200,
        (0.452284, 0.149015),
    ),
    "TriDet": (
        [
            [0.393084, -0.134647, -0.140014],
            [0.388663, -0.06995, -0.264023],
            [0.350893, -0.033062, -0.299482],
        ],
        [[1.61162, 2.1453], [3.19276, 4.2666], [2.14046, 3.22981], [6.39386, 6.66667]],
        [0.654033, 0.650651, 0.649431, 0.642811],
        256,
        (0.410737, 0.080478),
    ),
}


@pytest.mark.parametrize("kind", ["ActionFormer", "TriDet"])
def test_answers_are_those_of_the_authors_code(kind, tmp_path):
    model, _ = loaded(kind, tmp_path)
    logits, segments, scores, count, _ = ANSWERS[kind]
    length, x = WINDOWS[kind], features()
    padded = torch.cat([x, torch.zeros(length - len(x), 12)])[None]
    with torch.no_grad():
        found = model(padded, torch.arange(length)[None] < len(x))[0][0]
    at = [0, len(x) - 1, length + 24]  # the border of the padding, too, on two levels
    torch.testing.assert_close(found[at], torch.tensor(logits), atol=2e-5, rtol=1e-4)
    recipe = {"window": length, "whole": True, "min_steps": 0.05, "pre_nms_topk": 2000}
    most = {"ActionFormer": 200, "TriDet": 2000}[kind]
    recipe["nms"] = {"sigma": 0.5, "max_seg_num": most, "min_score": 0.001}
    clock = Clock(4 / 30, 8 / 30)
    finder = Localizer(model, ["a", "b", "c"], clock, recipe, torch.zeros(12), torch.ones(12))
    table = finder.detect({"v": x}, {"v": len(x) * 4 / 30})
    assert len(table) == count and set(table["label"][:4]) == {"a"}
    best = torch.tensor(table[["start_s", "end_s"]].to_numpy()[:4])
    torch.testing.assert_close(best, torch.tensor(segments).double(), atol=2e-5, rtol=1e-4)
    top = torch.tensor(table["score"].to_numpy()[:4]).double()
    torch.testing.assert_close(top, torch.tensor(scores).double(), atol=2e-5, rtol=1e-4)


def test_answers_of_dyfadet_are_those_of_its_authors_code(tmp_path):
    model, _ = loaded("DyFADet", tmp_path)
    x = features()
    padded = torch.cat([x, torch.zeros(64 - len(x), 12)])[None]
    with torch.no_grad():
        logits, distances, _ = model(padded, torch.arange(64)[None] < len(x))
    wanted = [
        [0.411654, -0.131683, -0.164469],
        [0.374157, -0.068282, -0.252829],
        [0.374122, -0.068224, -0.25291],
    ]
    at = [0, 49, 88]
    torch.testing.assert_close(logits[0, at], torch.tensor(wanted), atol=2e-6, rtol=1e-5)
    far = torch.tensor([[0.0, 5.9e-05], [0.0, 0.0083], [0.0, 0.013415]])
    torch.testing.assert_close(distances[0, at], far, atol=2e-6, rtol=1e-5)


def further(state):
    """Distances of DyFADet's small model are next to nothing; one step more, on both sides."""
    key = "reg_head.offset_head.conv.bias"
    return state | {key: state[key] + 1}


def test_detections_of_dyfadet_are_those_of_its_authors_code():
    model, state = published("DyFADet")
    model.load_state_dict(further(state) | {"positives": model.positives})
    recipe = preset("DyFADet", "thumos14_i3d").recipe | {"window": 64}
    classes, clock = ["a", "b", "c"], Clock(4 / 30, 8 / 30)
    finder = Localizer(model.eval(), classes, clock, recipe, torch.zeros(12), torch.ones(12))
    table = finder.detect({"v": features()}, {"v": 50 * 4 / 30})
    assert len(table) == 21 and set(table["label"][:4]) == {"a"}
    wanted = [[0.07588, 0.42621], [5.40551, 5.754], [2.20551, 2.554], [3.27218, 3.62067]]
    best = torch.tensor(table[["start_s", "end_s"]].to_numpy()[:4])
    torch.testing.assert_close(best, torch.tensor(wanted).double(), atol=1e-5, rtol=0)
    top = table["score"].to_numpy()[:4]
    assert top == pytest.approx([0.601494, 0.593626, 0.593623, 0.59362], abs=2e-6)


@pytest.mark.parametrize("smoothing, cls", [(0.1, 0.4272979), (0.0, 0.4365587)])
def test_the_loss_of_dyfadet_is_that_of_its_authors_code(smoothing, cls):
    """A point of two classes is regressed twice."""
    model, state = published("DyFADet")
    model.eval().load_state_dict(further(state) | {"positives": model.positives})
    x = torch.cat([features(), torch.zeros(14, 12)])[None]
    logits, distances, valid = model(x, torch.arange(64)[None] < 50)
    spans = torch.tensor([[3.0, 9.0], [20.0, 44.0], [20.0, 44.0], [30.0, 33.5]])
    target, offset, _ = assign(points(64, 4), spans, torch.tensor([0, 1, 2, 1]), 3)
    assert (target.sum(-1) == 2).any()
    given = logits, distances, target[None], offset[None], valid, 91.3, smoothing
    found = detection_loss(*given, by_class=model.config.by_class)
    assert found["cls"].item() == pytest.approx(cls, abs=2e-6)
    assert found["reg"].item() == pytest.approx(0.2034661, abs=2e-6)


@pytest.mark.parametrize("kind", ["ActionFormer", "TriDet"])
def test_losses_are_those_of_the_authors_code(kind):
    model, state = published(kind, dropout=0.0)
    model.load_state_dict(state | {"positives": model.positives})
    length, x, start = WINDOWS[kind], features(), 100
    padded = torch.cat([x, torch.zeros(length - len(x), 12)])[None]
    logits, distances, valid = model(padded, torch.arange(length)[None] < len(x))
    spans = torch.tensor([[3.0, 9.0], [20.0, 44.0], [20.0, 44.0], [30.0, 33.5]])
    target, offset, _ = assign(points(length, 4), spans, torch.tensor([0, 1, 2, 1]), 3)
    mean = 0.9 * start + 0.1 * ((target.sum(-1) > 0) & valid[0]).sum()
    power = getattr(model.config, "iou_power", 0.0)
    given = logits, distances, target[None], offset[None], valid, mean, 0.1, power
    found = detection_loss(*given)
    assert (found["cls"].item(), found["reg"].item()) == pytest.approx(ANSWERS[kind][4], abs=2e-6)


def test_borders_teach_the_pyramid_nothing_and_iou_weighs_the_class():
    model = KINDS["TriDet"](TriDetConfig(12, 3, dim=16, levels=2, bins=4)).train()
    x, mask = features(16)[None], torch.ones(1, 16, dtype=torch.bool)
    levels, masks = model.backbone(x, mask)
    sum(y.sum() for y in model.start_head(model.neck(levels, masks), masks)).backward()
    assert model.start_head.head[0].conv.weight.grad.abs().sum() > 0
    assert model.backbone.embd[0].conv.weight.grad is None
    logits, target = torch.zeros(1, 2, 1), torch.tensor([[[1.0], [0.0]]])
    offset, valid = torch.tensor([[[2.0, 2.0], [0.0, 0.0]]]), torch.ones(1, 2, dtype=torch.bool)
    half = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]])
    assert giou(half[0, 0], offset[0, 0]).item() == pytest.approx(0.5)
    plain, weighed = (
        detection_loss(logits, half, target, offset, valid, 1.0, 0.0, p)["cls"] for p in (0.0, 2.0)
    )
    negative = detection_loss(logits, half, target * 0, offset, valid, 1.0)["cls"] / 2
    assert (weighed - negative).item() == pytest.approx(0.25 * (plain - negative).item())
    every = torch.stack([half, half * 2], 2)  # of two classes
    two = torch.cat([target, target * 0], -1)
    chosen = detection_loss(logits.expand(1, 2, 2), every, two, offset, valid, 1.0)["reg"]
    assert chosen.item() == pytest.approx(diou(half[0, 0], offset[0, 0]).item())


def test_a_group_norm_over_valid_steps_is_the_one_of_the_steps_alone():
    norm, x = GroupNorm(32), torch.randn(2, 9, 32)
    padded = torch.cat([x, 7 * torch.ones(2, 4, 32)], 1)
    mask = torch.arange(13).expand(2, -1) < 9
    torch.testing.assert_close(norm(padded, mask)[:, :9], norm(x, None), atol=1e-5, rtol=1e-4)


# The last range
@pytest.mark.parametrize("levels", [1, 2, 3, 5, 6, 7])
def test_the_last_level_regresses_whatever_is_longer(levels):
    ranges = ranges_of(levels)
    assert ranges[0][0] == 0 and ranges[-1][1] == 10000 and len(ranges) == levels
    assert all(a[1] == b[0] for a, b in zip(ranges, ranges[1:], strict=False))
    assert ranges_of(6) == RANGES == ((0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 10000))
    at = points(512, levels)
    target = assign(at, torch.tensor([[20.0, 480.0]]), torch.tensor([0]), 1)[0]
    assert target.sum() > 0 and (at.stride[target[:, 0] > 0] == 2 ** (levels - 1)).all()


def test_ranges_of_a_configuration_count():
    from vlact.papers.actionvlm.localizing import Sequence

    one = Sequence("v", 64.0, torch.zeros(64, 2), torch.tensor([[3.0, 61.0]]), torch.tensor([0]))
    short = accounting.account([one], 64, 2, ((0, 4), (4, 8)))
    assert short.left_out[0].reason == accounting.FURTHER
    assert accounting.account([one], 64, 2).used == 1
    with pytest.raises(ValueError, match="ranges must name each of 3 levels; got 1"):
        LocalizerConfig(4, 2, levels=3, ranges=((0, 4),))


# Local attention
@pytest.mark.parametrize("steps, valid", [(1, 1), (7, 4), (33, 33), (64, 50), (100, 3), (130, 129)])
@pytest.mark.parametrize("window", [3, 9, 19, 81])
def test_attention_in_blocks_is_the_dense_one_in_value_and_gradient(steps, valid, window):
    torch.manual_seed(0)
    mask = torch.stack([torch.ones(steps), (torch.arange(steps) < valid).float()]).bool()
    weight = torch.randn(2, steps, 2, 4, dtype=torch.float64) * mask[..., None, None]
    found = []
    for attend in (dense_attention, local_attention):
        torch.manual_seed(1)
        qkv = [torch.randn(2, steps, 2, 4, dtype=torch.float64).requires_grad_() for _ in range(3)]
        out = attend(*qkv, mask, window) * mask[..., None, None]
        (out * weight).sum().backward()
        found.append([out, *(x.grad for x in qkv)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_what_attention_in_blocks_keeps_grows_with_length_and_not_with_its_square():
    def kept(attend, steps):
        q, sizes = torch.randn(1, steps, 2, 8, requires_grad=True), []
        mask = torch.ones(1, steps, dtype=torch.bool)
        pack = lambda x: (sizes.append(x.numel()), x)[1]  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            attend(q, q, q, mask, 19)
        return sum(sizes)

    short, long = (kept(local_attention, n) for n in (1024, 2048))
    assert long == pytest.approx(2 * short, rel=0.05)
    assert kept(local_attention, 16384) == pytest.approx(16 * short, rel=0.1)
    dense = [kept(dense_attention, n) for n in (1024, 2048)]
    assert dense[1] > 3 * dense[0] or dense[1] > 10 * long


def test_windows_by_level():
    config = LocalizerConfig(6, 3, dim=16, heads=2, levels=3, window=(3, 5, 0))
    assert config.windows == (3, 5, 0) and config.multiple == 8
    assert LocalizerConfig(**{**vars(config), "window": [3, 5, 0]}) == config
    for window, message in (((3, 4, 0), "window must be odd or 0"), ((3, 5), "one for each of 3")):
        with pytest.raises(ValueError, match=message):
            LocalizerConfig(6, 3, dim=16, heads=2, levels=3, window=window)


def test_positions_stretch_at_test_and_not_in_training():
    model = ActionFormer(LocalizerConfig(6, 3, dim=16, heads=2, levels=2, positions=8))
    x, mask = torch.randn(1, 16, 6), torch.ones(1, 16, dtype=torch.bool)
    assert "backbone.places" not in model.state_dict() and model.eval()(x, mask)[0].isfinite().all()
    with pytest.raises(ValueError, match="positions are made for 8 steps; got 16 in training"):
        model.train()(x, mask)


# Files
def test_a_plain_state_and_safetensors_are_read_too(tmp_path):
    model, state = published("ActionFormer")
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    torch.save({"state_dict": state}, tmp_path / "b.pth")
    for name in ("a.safetensors", "a.pth", "b.pth"):
        found = checkpoints.load(tmp_path / name, model).state_dict()
        assert all(torch.equal(found[k], x) for k, x in state.items())
    _, path = loaded("ActionFormer", tmp_path)
    assert not checkpoints.load(path, model, mean=False).reg_head.scale[0].scale.any()


def made(kind, **changes):
    """A model of a small shape and a state of it under its authors' names."""
    from dataclasses import replace

    import test_adatad as adatad

    if kind == "AdaTAD":
        shape = replace(adatad.SMALL, **changes)
        model = adatad.AdaTAD(adatad.AdaTADConfig(shape, adatad.TOWER))
        return model, adatad.theirs(model)
    model = KINDS[kind](replace(CONFIGS[kind], **changes))
    return model, {k: x for k, x in model.state_dict().items() if k != "positives"}


@pytest.mark.parametrize("kind", [*KINDS, "AdaTAD"])
def test_every_loader_reads_its_files_and_names_what_does_not_fit(kind, tmp_path):
    model, state = made(kind)
    wrapped = {f"module.{k}": x for k, x in state.items()}
    zeros = {k: torch.zeros_like(x) for k, x in state.items()}
    # names with and without "module.", and of two states the moving average
    for content in (state, {"state_dict": wrapped}, {"state_dict": zeros, "state_dict_ema": state}):
        torch.save(content, tmp_path / "good.pth")
        found = checkpoints.load(tmp_path / "good.pth", made(kind)[0]).state_dict()
        assert all(torch.equal(found[k], x) for k, x in model.state_dict().items())
    features = model.config.feature_dim
    for change, message in (
        ({"classes": 5}, "made for 3 classes; expected 5"),
        ({"feature_dim": 8}, f"made for {features} features; expected 8"),
        ({"dim": 48}, f"made for {model.config.dim} channels; expected 48"),
        ({"levels": 3}, "made for 4 levels; expected 3"),
        ({"dropout": 0.0}, r"0 are missing \(\), \d+ are not known \(.*branch.0.drop_path"),
        ({"head_dim": 8}, r"cls_head.head.0.* is \(.*; expected \(8"),
    ):
        with pytest.raises(ValueError, match=f"good.pth: .*{message}"):
            checkpoints.load(tmp_path / "good.pth", made(kind, **change)[0])
    others = [k for k in (*KINDS, "AdaTAD") if k != kind]
    for other in others:
        with pytest.raises(ValueError, match=f"good.pth: holds {kind}; expected {other}"):
            checkpoints.load(tmp_path / "good.pth", made(other)[0])
    whole, cut = (tmp_path / "good.pth").read_bytes(), tmp_path / "cut.pth"
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cut.pth: expected a whole checkpoint of tensors"):
            checkpoints.load(cut, model)
    key = next(iter(state))
    for content, message in (
        ({f"ema.{k}": x for k, x in wrapped.items()}, "names of weights begin with 'ema.module.'"),
        ({f"model.{k}": x for k, x in state.items()}, "begin with 'model.'; expected nothing or"),
        (state | wrapped, f"{len(state)} weights are there with 'module.' before their names and"),
        ({k: x for k, x in state.items() if k != key}, "expected the .* weights of .*; 1 are mis"),
        (state | {f"{key}.more": state[key]}, r"1 are not known|1 unexpected keys"),
        (state | {key: state[key] * torch.nan}, f"1 weights are not finite, for example {key}"),
        ({"ema_state_dict": state}, r"under 'state_dict' or 'state_dict_ema'; got \['ema_st"),
    ):
        torch.save(content, tmp_path / "bad.pth")
        with pytest.raises(ValueError, match=f"bad.pth: .*{message}"):
            checkpoints.load(tmp_path / "bad.pth", model)


def test_files_that_are_no_checkpoint_are_named(tmp_path):
    model, _ = published("ActionFormer")
    (tmp_path / "text.pth").write_bytes(b"weights")
    with pytest.raises(ValueError, match="text.pth: expected a whole checkpoint of tensors; it is"):
        checkpoints.load(tmp_path / "text.pth", model)
    with pytest.raises(ValueError, match="gone.pth: expected a checkpoint; found nothing"):
        checkpoints.load(tmp_path / "gone.pth", model)
    for content in ({"epoch": 3}, [1, 2], {"state_dict": {}}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(ValueError, match="other.pth: expected weights, alone or under"):
            checkpoints.load(tmp_path / "other.pth", model)


def test_a_saved_localizer_that_is_cut_off_is_named(tmp_path):
    from dataclasses import replace

    model = ActionFormer(
        replace(CONFIGS["ActionFormer"], ranges=((0, 4), (4, 8), (8, 16), (16, 99)))
    )
    recipe = {"window": 128, "pre_nms_topk": 10, "nms": {}}
    saved = Localizer(model, ["a", "b", "c"], Clock(1.0), recipe, torch.zeros(12), torch.ones(12))
    saved.save(path := tmp_path / "l.safetensors")
    assert Localizer.load(path).model.config == model.config
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="l.safetensors: expected a whole safetensors file"):
        Localizer.load(path)


def test_the_comparison_has_a_row_a_length(capsys):
    from vlact.tools import bench_models

    assert bench_models.main(["--lengths", "64", "--window", "9"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "steps" and row.split()[0] == "64" and float(row.split()[1]) > 0
