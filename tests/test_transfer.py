"""Motion transfer: its measures against the published tables, and the models' full-size shapes
against their papers.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from vlact.language.motions import coarse_names, taxonomy
from vlact.metrics.transfer import accuracies, averaged, transfer
from vlact.models import files
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.frames import FrameEncoder
from vlact.report import published


@pytest.mark.parametrize("table", ["transfer_table2", "transfer_table3"])
def test_measures_agree_with_every_published_row(table):
    paper, rows = published.read(table), 0
    for _, part in paper.groupby(["dataset", "setting", "method"], sort=False):
        found = part.groupby("metric")["mean"].first()
        splits = dict(zip(part["split"], part["mean"], strict=True))
        known = next((v for k, v in splits.items() if k.endswith(("KC", "-K"))), None)
        unknown = next((v for k, v in splits.items() if k.endswith(("UC", "-U"))), None)
        if known is None or unknown is None or "HM" not in found:
            continue
        mine, rows = transfer(known, unknown), rows + 1
        assert mine["d_abs"] == pytest.approx(found["D_abs"], abs=0.011)
        assert -0.01 < mine["hm"] - found["HM"] < 0.25, (
            "the mean of two harmonic means lies at or below that of the means"
        )
    assert rows == {"transfer_table2": 48, "transfer_table3": 15}[table]


def test_drops_by_hand_and_bad_numbers():
    assert transfer(80.0, 20.0) == {"d_abs": 60.0, "d_rel": 75.0, "hm": 32.0}
    assert transfer(0.0, 0.0)["hm"] == 0 and np.isnan(transfer(0.0, 0.0)["d_rel"])
    for bad in ((-1.0, 2.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="must be numbers >= 0"):
            transfer(*bad)


def predictions():
    rows = []
    for trained_on, right in ((1, {1: 4, 2: 1}), (2, {1: 2, 2: 3})):
        for which, n in right.items():
            rows += [
                {"trained_on": trained_on, "set": which, "label": 0, "predicted": int(i >= n)}
                for i in range(4)
            ]
    return pd.DataFrame(rows).assign(model="m", seed=0, task="coarse")


def test_both_directions_are_averaged_after_their_harmonic_means():
    runs = accuracies(predictions())
    assert runs[["known", "unknown"]].to_numpy().tolist() == [[100, 25], [75, 50]] and runs[
        "hm"
    ].tolist() == [40, 60]
    mean = averaged(runs).iloc[0]
    assert (mean["known"], mean["unknown"], mean["d_abs"], mean["hm"]) == (87.5, 37.5, 50, 50)
    with pytest.raises(ValueError, match="expected both training sets"):
        averaged(runs.head(1))
    with pytest.raises(ValueError, match="no clips of set 1, which it was trained on"):
        accuracies(predictions().query("set == 2"))
    alone = accuracies(predictions().query("set == trained_on"))
    assert alone["known"].tolist() == [100, 75] and alone["hm"].isna().all()


FULL = published.read("transfer_models").set_index("model")


@pytest.mark.parametrize("kind", FULL.index)
def test_full_size_shapes_are_the_published_ones(kind):
    from vlact.papers.transfer.full_size import count

    paper, ours = FULL.loc[kind], count(kind)
    assert (ours["frames"], ours["pixels"]) == (paper["frames"], paper["pixels"])
    assert ours[paper["counted"]] == pytest.approx(paper["parameters_m"], rel=0.005)
    if not np.isnan(paper["gmacs"]):
        # ours leave out norms, pooling and text
        assert ours["gmacs"] == pytest.approx(paper["gmacs"], rel=0.02)


# The benchmark
def bench(n=6):
    """Clips whose coarse class is how fast they brighten and whose set is their colour."""
    from vlact.papers.transfer.benchmark import TransferBenchmark

    taxonomy = pd.DataFrame(
        [(s, f, f"f{s}{f}", c, f"c{c}") for s in (1, 2) for f, c in ((0, 0), (1, 0), (2, 1))],
        columns=["set", "fine_id", "fine", "coarse_id", "coarse"],
    )
    rng, rows, frames = np.random.default_rng(0), [], []
    for r in taxonomy.itertuples():
        for part in ("train", "val"):
            for i in range(n):
                rows.append((f"{r.fine}_{part}{i}", r.set, part, r.coarse_id, r.fine_id))
                level = (
                    40
                    + (8 if r.coarse_id else 2) * np.arange(8)[:, None, None, None]
                    + rng.integers(0, 30, (8, 32, 32, 3))
                )
                level[..., r.set - 1] += 60 * r.fine_id
                frames.append(level.clip(0, 255).astype(np.uint8))
    table = pd.DataFrame(rows, columns=["video", "set", "part", "coarse_id", "fine_id"])
    return TransferBenchmark(np.stack(frames), table, taxonomy)


RECIPE = {"epochs": 12, "batch_size": 6, "lr": 2e-2, "weight_decay": 0.0, "smoothing": 0.0}


class Brightening(torch.nn.Module):
    """Mean colours over time to logits: what a user's own model may be."""

    def __init__(self, names):
        super().__init__()
        self.head = torch.nn.Linear(24, len(names))

    def forward(self, clips):
        x = clips.float().mean((2, 3)) / 50
        return self.head((x - x.mean(1, keepdim=True)).flatten(1))


def test_any_model_goes_through_both_directions_and_learns():
    one, found = bench(), []
    for which in (1, 2):
        model, curve = one.train(Brightening, "coarse", which, RECIPE, 0)
        found.append(one.predict(model, "coarse", which).assign(model="mine", seed=0))
        assert curve[-1]["loss"] < 0.6 and not model.training
    mean = averaged(accuracies(pd.concat(found))).iloc[0]
    assert mean["known"] > 85 and mean["unknown"] > 60
    fine = one.predict(one.train(Brightening, "fine", 2, RECIPE, 0)[0], "fine", 2)
    assert set(fine["set"]) == {2} and set(fine["label"]) == {0, 1, 2} and len(fine) == 18
    again = one.train(Brightening, "coarse", 1, RECIPE, 0)[0]
    assert torch.equal(
        again.head.weight, one.train(Brightening, "coarse", 1, RECIPE, 0)[0].head.weight
    )


def test_a_model_that_needs_more_frames_than_there_are_is_named():
    from vlact.papers.transfer.benchmark import TransferBenchmark, spread

    clips = torch.arange(8).view(1, 8, 1, 1, 1).expand(1, 8, 2, 2, 3)
    assert spread(clips, 4)[0, :, 0, 0, 0].tolist() == [1, 3, 5, 7] and spread(clips, 8)[
        0, :, 0, 0, 0
    ].tolist() == list(range(8))
    with pytest.raises(ValueError, match="needs 32 frames and the clips have 8"):
        spread(clips, 32)
    with pytest.raises(ValueError, match="as many clips as rows; got 3 and 72"):
        TransferBenchmark(bench().frames[:3], bench().table, bench().taxonomy)


TINY = {"width": 0.13, "depth": 0.2, "motion": True}
OPTIONS = {
    **{k: TINY | {"frames": 8} for k in ("ResNet50", "I3D", "X3D", "SlowFast")},
    **{k: TINY | {"frames": 8, "size": 32} for k in ("MViTv2", "Rev-MViT")},
    **{k: {"motion": True} for k in ("AIM", "UniformerV2")},
    **{
        k: {"motion": True, "tau": 0.1}
        for k in ("ActionCLIP", "X-CLIP", "ViFi-CLIP", "EZ-CLIP", "FROSTER")
    },
    **{k: TINY for k in ("VideoDG", "STDN")},
    "CIR": TINY | {"frames": 8, "hidden": 16, "dim": 8},
}
SMALL = DualConfig(32, 16, 8, 32, 2, 2, 16, 12, "mean", motion_input=True, conv_stem=True)
# the former pools pairs of frames, which a reversal keeps together
NEEDS_NO_ORDER = ("ResNet50", "ViFi-CLIP")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Files of a small CLIP and of features of the words of `bench`, and the words."""
    from safetensors.torch import save_file

    from vlact.models.zoo.actionclip import TEMPLATES

    folder = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    FrameEncoder(SMALL).save(folder / "clip.safetensors")
    names = [*coarse_names(bench().taxonomy), *bench().taxonomy["fine"]]
    words = {t.format(n): torch.randn(12) for n in names for t in TEMPLATES}
    save_file(words, folder / "words.safetensors")
    return str(folder / "clip.safetensors"), str(folder / "words.safetensors"), words


def made(kind, start, names=("c0", "c1"), **more):
    from vlact.papers.transfer.benchmark import build

    return build(kind, list(names), OPTIONS[kind] | more, start[0], start[2])


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_job_writes_predictions_and_resumes_to_the_same(
    kind, start, tmp_path, monkeypatch, until_killed
):
    from vlact.papers.transfer import benchmark as transferring
    from vlact.training import loop as training

    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    one = bench(2)
    np.save(tmp_path / "f.npy", one.frames)
    one.table.to_parquet(tmp_path / "t.parquet")
    recipe = RECIPE | {"epochs": 2, "batch_size": 3}
    given = (kind, OPTIONS[kind], str(tmp_path / "f.npy"), str(tmp_path / "t.parquet"))
    given = (*given, one.taxonomy, "coarse", 1, recipe, 0, *start[:2])
    curve = transferring.transfer_job(*given, str(tmp_path / "a"), str(tmp_path / "a.pt"))

    until_killed(transferring.transfer_job, *given, str(tmp_path / "b"), str(tmp_path / "b.pt"))
    assert (
        transferring.transfer_job(
            *given, str(tmp_path / "b"), str(tmp_path / "b.pt"), str(tmp_path / "w")
        )
        == curve
    )
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a"), pd.read_parquet(tmp_path / "b"))
    assert (tmp_path / "w").is_file()


@pytest.mark.parametrize("kind", OPTIONS)
def test_only_what_may_looks_at_the_order_of_frames(kind, start):
    torch.manual_seed(0)
    model = made(kind, start, motion=False).eval()
    with torch.no_grad():
        for module in model.modules():  # blocks start as their shortcuts, adapters as nothing
            if isinstance(module, torch.nn.BatchNorm3d):
                torch.nn.init.ones_(module.weight)
            if isinstance(module, torch.nn.Linear | torch.nn.Conv1d) and not module.weight.any():
                torch.nn.init.normal_(module.weight, std=0.3)
        for name, parameter in model.named_parameters():
            if name.endswith("time"):
                torch.nn.init.normal_(parameter)
        clips = torch.randint(0, 255, (2, 8, 32, 32, 3), dtype=torch.uint8)
        forwards, backwards = model(clips), model(clips.flip(1))
    assert torch.allclose(forwards, backwards, atol=1e-5) == (kind in NEEDS_NO_ORDER)


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_model_learns_the_problem_that_has_an_answer(kind, start):
    from vlact.papers.transfer.benchmark import build

    recipe = RECIPE | {"epochs": 25, "batch_size": 12, "lr": 1e-2, "smoothing": 0.1}
    one = bench(8)
    model, curve = one.train(
        lambda names: build(kind, names, OPTIONS[kind], *start[::2]), "coarse", 1, recipe, 0
    )
    found = one.predict(model, "coarse", 1).query("set == 1")
    assert (found["label"] == found["predicted"]).mean() > (0.6 if kind == "CIR" else 0.7), curve


@pytest.mark.parametrize("kind", ["AIM", "EZ-CLIP", "FROSTER"])
def test_frozen_clip_stays_frozen_and_a_fine_tuned_one_does_not(kind, start):
    from vlact.papers.transfer.benchmark import build

    one, recipe = bench(2), RECIPE | {"epochs": 2}
    given = FrameEncoder.load(start[0]).state_dict()

    def moved(kind, **more):
        model, _ = one.train(
            lambda names: build(kind, names, OPTIONS[kind] | more, *start[::2]),
            "coarse",
            1,
            recipe,
            0,
        )
        clip = (model.method if hasattr(model, "method") else model).clip
        return {
            k
            for k, v in clip.state_dict().items()
            if v.shape == given[k].shape and not torch.equal(v, given[k])
        }

    allowed = ("visual.conv1", "text_projection")
    assert all(k.startswith(allowed) for k in moved(kind)) and all(
        k.startswith("text_projection") for k in moved(kind, motion=False)
    )
    assert any("resblocks" in k for k in moved("UniformerV2"))


def test_motion_enters_clip_without_changing_what_it_sees(start):
    from vlact.models.moving import MovingFrames

    clips = torch.randint(0, 255, (2, 8, 32, 32, 3), dtype=torch.uint8)
    plain, moving = FrameEncoder.load(start[0]), MovingFrames.start(start[0], motion=True)
    torch.testing.assert_close(moving(clips), plain(clips))
    moving(clips).sum().backward()
    assert (
        moving.visual.conv1[0].weight.grad[:, 3:].abs().max() > 0
        and moving.visual.proj.grad is None
    )
    assert MovingFrames.start(start[0], frames=4).config.num_frames == 4
    with pytest.raises(ValueError, match="needs a tower with a convolutional stem"):
        MovingFrames(DualConfig(32, 16, 8, 32, 2, 2, 16, 12, "mean", conv_stem=False), motion=True)


def test_adapters_start_from_what_clip_sees(start):
    clips = torch.randint(0, 255, (2, 8, 32, 32, 3), dtype=torch.uint8)
    seen = FrameEncoder.load(start[0])(clips)
    torch.testing.assert_close(
        made("FROSTER", start).method.encode(made("FROSTER", start).method.frozen_features(clips))[
            "video"
        ],
        seen,
    )
    aim = made("AIM", start)
    tower = aim.clip
    tokens = tower.visual.transformer(tower.first(clips, 0).flatten(0, 1)).unflatten(0, (2, 8))
    torch.testing.assert_close(aim.eval()(clips), aim.head(aim.pooled(tokens)))


def test_reversible_blocks_give_the_gradients_of_ordinary_ones_and_keep_less():
    from vlact.models.zoo.revmvit import RevMViT

    clips, kept = torch.randint(0, 255, (2, 8, 32, 32, 3), dtype=torch.uint8), {}
    torch.manual_seed(0)
    model = RevMViT(5, width=0.17, depth=0.5, frames=8, size=32, dropout=0.0)
    grads = {}
    for reversible in (True, False):
        model.reversible, sizes = reversible, []
        model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: (sizes.append(x.numel()), x)[1], lambda x: x
        ):
            out = model(clips).square().sum()
        kept[reversible] = sum(sizes)
        out.backward()
        grads[reversible] = {k: p.grad.clone() for k, p in model.named_parameters()}
    for name, grad in grads[False].items():
        torch.testing.assert_close(grads[True][name], grad, atol=2e-4, rtol=2e-3, msg=name)
    assert kept[True] < 0.6 * kept[False]


def test_losses_of_the_zoo_by_hand(start):
    from vlact.models.zoo.actionclip import divergence
    from vlact.models.zoo.ezclip import motion_loss

    scores = torch.tensor([[1.0, 2.0, 0.5], [0.0, 1.0, 3.0], [2.0, 0.0, 1.0]])
    same = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]]).bool()
    expected = 0.0
    for row, mask in zip(scores, same, strict=True):
        share = mask.float() / mask.sum()
        expected += sum(
            s * (np.log(s) - q)
            for s, q in zip(share.tolist(), row.log_softmax(0).tolist(), strict=True)
            if s
        )
    assert divergence(scores, same).item() == pytest.approx(expected / 3, abs=1e-6)
    still = torch.ones(2, 4, 3)
    assert motion_loss(still).item() == 1.0
    frames = torch.arange(4.0).view(1, 4, 1).expand(1, 4, 3)
    assert motion_loss(frames).item() == pytest.approx(1 / (1.0 + 1.25 + 1))


def test_domain_methods_do_what_they_say(start):
    from vlact.models.zoo.cir import pseudo_domains
    from vlact.models.zoo.stdn import MixStyle

    torch.manual_seed(0)
    clips, labels = torch.from_numpy(bench(4).frames[:8]), torch.tensor([0, 1] * 4)
    dg = made("VideoDG", start).eval()
    frames = dg.look(clips)

    def loss(x):
        return sum(torch.nn.functional.cross_entropy(y, labels) for y in dg.pyramid(x)).item()

    told = frames.detach().requires_grad_()
    (slope,) = torch.autograd.grad(
        sum(torch.nn.functional.cross_entropy(y, labels) for y in dg.pyramid(told)), told
    )
    assert loss(frames + 1e-3 * slope / slope.norm() * frames.norm()) > loss(frames)

    mix, x = MixStyle(), torch.randn(4, 3, 2, 5, 5) * torch.arange(1.0, 5).view(4, 1, 1, 1, 1)
    assert mix.eval()(x) is x
    mix.train()
    for _ in range(20):
        y = mix(x)
        shape = (y - y.mean((2, 3, 4), keepdim=True)) / y.std((2, 3, 4), keepdim=True)
        torch.testing.assert_close(
            shape,
            (x - x.mean((2, 3, 4), keepdim=True)) / x.std((2, 3, 4), keepdim=True),
            atol=1e-3,
            rtol=1e-3,
        )

    cir = made("CIR", start).eval()
    domains = pseudo_domains(clips)
    assert domains.min() >= 0 and domains.max() <= 3
    x = torch.randn(4, 8)
    built, some = cir.rebuild(x, torch.tensor([0, 0, 1, 1]))
    swapped = cir.rebuild(torch.cat([x[:1], x[1:] * 1.0]), torch.tensor([0, 0, 1, 1]))[0]
    assert some.all() and torch.equal(built, swapped)
    alone = cir.rebuild(x, torch.tensor([0, 1, 1, 1]))[0]
    torch.testing.assert_close(alone[1], x[0])  # the only other domain has one clip
    assert not cir.rebuild(x, torch.zeros(4, dtype=torch.long))[1].any()


def test_models_that_go_by_name_are_asked_for_the_other_sets_fine_classes(start):
    from vlact.papers.transfer.benchmark import build

    one = bench(2)
    model, _ = one.train(
        lambda names: build("EZ-CLIP", names, OPTIONS["EZ-CLIP"], *start[::2]),
        "fine",
        1,
        RECIPE | {"epochs": 1},
        0,
    )
    found = one.predict(model, "fine", 1)
    assert set(found["set"]) == {1, 2} and model.names == one.names("fine", 2) == [
        "f20",
        "f21",
        "f22",
    ]
    coarse, _ = one.train(
        lambda names: build("EZ-CLIP", names, OPTIONS["EZ-CLIP"], *start[::2]),
        "coarse",
        1,
        RECIPE | {"epochs": 1},
        0,
    )
    again = one.rename(coarse, 1, [["c0", "c1"], ["c1", "c0"]])
    assert (again["run0"] == 1 - again["run1"]).all()
    assert (
        again.set_index("video")["run0"].to_dict()
        == one.predict(coarse, "coarse", 1).set_index("video")["predicted"].to_dict()
    )
    with pytest.raises(ValueError, match="no model 'I4D'; expected one of"):
        build("I4D", ["a"], {})


def test_ace_learns_coarse_motions_by_their_trees(tmp_path):
    from vlact.language.trees import ActionTexts, Trees
    from vlact.papers.transfer.benchmark import MOTION_TREES, ByName, build
    from vlact.stages.factors import other_names

    classes = taxonomy("Syn-TA")
    own, runs = coarse_names(classes), other_names(classes)
    trees = Trees.load(MOTION_TREES, tuple(own))
    assert runs[0] == own and len(runs) == 6 and not trees.crossings()
    assert not {n for run in runs[1:] for n in run} & set(trees.lexicon()), (
        "test names must not stand in the training trees"
    )
    assert len({n for run in runs for n in run}) == 6 * 20
    plan = ActionTexts([(n, "") for n in own], trees)
    DualEncoder(DualConfig(32, 16, 4, 32, 1, 2, 16, 12, "mean")).save(tmp_path / "e")
    words = {t: torch.randn(12) for t in {*plan.texts, *own}}
    clips = torch.randint(0, 255, (4, 4, 32, 32, 3), dtype=torch.uint8)
    for kind, extra in (("ACE", {}), ("ProcVLR", {}), ("ProcVLR", {"train_text": 1.0})):
        model = build(kind, own, {"tau": 0.1} | extra, str(tmp_path / "e"), words)
        assert isinstance(model, ByName) and model.frames == 4 and model(clips).shape == (4, 20)
        model.loss(clips, torch.arange(4)).backward()
        changed = model.method.encoder.text_projection.weight.grad is not None
        assert changed == (kind == "ACE" or bool(extra))


# Disentanglement
def test_terms_of_disentanglement_by_hand():
    from vlact.losses.disentanglement import children_sum, consistency, decorrelation, hsic

    torch.manual_seed(0)
    a, b = torch.randn(6, 3), torch.randn(6, 4)
    table = np.corrcoef(a.numpy().T, b.numpy().T)[:3, 3:]
    assert decorrelation(a, b).item() == pytest.approx((table**2).mean(), abs=1e-6)
    assert decorrelation(a, a * 3 + 1).item() >= 1 / 3  # the diagonal is 1
    parent = torch.tensor([0, 1, 0])
    fine = torch.tensor([[0.2, 0.5, 0.3]])
    torch.testing.assert_close(children_sum(fine, parent, 2), torch.tensor([[0.5, 0.5]]))
    logits = fine.log().requires_grad_()
    agree = torch.tensor([[0.0, 0.0]], requires_grad=True)
    assert consistency(agree, logits, parent).item() == pytest.approx(0, abs=1e-6)
    off = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = consistency(off, logits, parent)
    loss.backward()
    p = off.detach().softmax(1)[0]
    assert loss.item() == pytest.approx(sum(0.5 * np.log(0.5 / q) for q in p.tolist()), abs=1e-6)
    assert logits.grad is None and off.grad[0, 0] > 0
    for term in (decorrelation, hsic):
        with pytest.raises(ValueError, match="at least two clips, got 1"):
            term(a[:1], b[:1])


def test_dependence_reversal_and_siblings_by_hand():
    from vlact.losses.disentanglement import among_siblings, hsic, reverse

    torch.manual_seed(0)
    x, other = torch.randn(40, 3), torch.randn(40, 3)
    assert hsic(x, x).item() == pytest.approx(1) and hsic(x, 2 * x + 1).item() == pytest.approx(1)
    # dependence without correlation: each of the two is a function of the other's length
    bent = x.square().sum(1, keepdim=True)
    assert hsic(x, bent) > 2 * hsic(x, other) > 0
    still = torch.zeros(40, 3, requires_grad=True)
    hsic(still, other).backward()
    assert torch.isfinite(still.grad).all()

    z = torch.ones(2, requires_grad=True)
    (reverse(z) * torch.tensor([1.0, 2.0])).sum().backward()
    assert z.grad.tolist() == [-1, -2]

    logits = torch.tensor([[5.0, 0.0, 1.0], [5.0, 0.0, 1.0]])
    told = among_siblings(logits, torch.tensor([0, 1, 0]), torch.tensor([2, 1])).softmax(1)
    share = float(torch.tensor(4.0).sigmoid())
    assert told[0].tolist() == pytest.approx([share, 0, 1 - share], abs=1e-6)
    assert told[1].tolist() == [0, 1, 0]


def test_a_swap_takes_the_still_picture_of_another_context_of_the_same_motion():
    from vlact.models.disentangled import stretched, swapped

    level = torch.tensor([10, 60, 110, 160], dtype=torch.uint8)
    clips = level.view(4, 1, 1, 1, 1).expand(4, 4, 2, 2, 3).clone()
    clips[0, :, 0, 0, 0] = torch.tensor([0, 20, 0, 20], dtype=torch.uint8)
    parent = torch.tensor([0, 0, 1])
    fine = torch.tensor([0, 1, 2, 2])  # the last two have no other context in the batch
    found = swapped(clips, fine, parent)
    assert torch.equal(found[2:], clips[2:])
    assert found[0, :, 0, 0, 0].tolist() == [50, 70, 50, 70] and (found[0, :, 1, 1] == 60).all()
    assert (found[1] == clips[0].float().mean(0)).all()

    torch.manual_seed(0)
    time = torch.arange(8, dtype=torch.uint8).view(1, 8, 1, 1, 1).expand(64, 8, 1, 1, 1)
    at = stretched(time, 4).flatten(1).float()
    assert at.shape == (64, 4) and (at.diff(dim=1) >= 0).all() and at.max() <= 7
    reach = at[:, -1] - at[:, 0]
    assert reach.min() < 5 <= reach.max()  # of half the clip, and of nearly all of it


@pytest.mark.parametrize(
    "arm",
    ("EZ-CLIP", "disentangled", "gradient reversal", "HSIC", "mean removed")
    + ("feature differences", "context swap, tempo", "dynamic input"),
)
def test_every_arm_learns_and_the_base_is_ezclip(arm, start, tmp_path):
    from vlact import params
    from vlact.papers.transfer.benchmark import disentangle_job, transfer_job
    from vlact.stages.disentangle import options_of

    one, p = bench(8), params.load("smoke")
    np.save(tmp_path / "f.npy", one.frames)
    one.table.to_parquet(tmp_path / "t.parquet")
    recipe = RECIPE | {"epochs": 25 if arm != "EZ-CLIP" else 2, "batch_size": 12, "lr": 1e-2}
    common = (str(tmp_path / "f.npy"), str(tmp_path / "t.parquet"), one.taxonomy)
    trunk = OPTIONS["EZ-CLIP"] | {"frames": 4}
    disentangle_job(
        arm,
        trunk,
        options_of(p, arm),
        *common,
        1,
        recipe,
        0,
        *start[:2],
        str(tmp_path / "o"),
        str(tmp_path / "o.pt"),
    )
    found = pd.read_parquet(tmp_path / "o")
    assert set(found["model"]) == {arm} and set(found["set"]) == {1, 2}
    if arm == "EZ-CLIP":
        transfer_job(
            "EZ-CLIP",
            trunk,
            *common,
            "coarse",
            1,
            recipe,
            0,
            *start[:2],
            str(tmp_path / "e"),
            str(tmp_path / "e.pt"),
        )
        assert (pd.read_parquet(tmp_path / "e")["predicted"] == found["predicted"]).mean() > 0.95
    else:
        mine = found.query("set == 1")
        assert (mine["label"] == mine["predicted"]).mean() > 0.7


def test_dynamic_input_by_hand_and_bad_designs(start):
    from vlact.models.disentangled import Disentangled, dynamic

    clips = torch.full((1, 4, 2, 2, 3), 50, dtype=torch.uint8)
    clips[0, :, 0, 0, 0] = torch.tensor([0, 100, 0, 100], dtype=torch.uint8)
    moved = dynamic(clips)
    assert (
        (moved[0, :, 1, 1] == 128).all()
        and moved[0, :, 0, 0, 0].tolist() == [78, 178, 78, 178]
        and clips[0, 0, 1, 1, 0] == 50
    )
    trunk = made("EZ-CLIP", start).method
    with pytest.raises(ValueError, match="head must be one of"):
        Disentangled(trunk, ["f"], torch.zeros(1, dtype=torch.long), head="deep")
    with pytest.raises(ValueError, match="they need branches=True"):
        Disentangled(trunk, ["f"], torch.zeros(1, dtype=torch.long), independent=0.1)


def test_every_seed_has_an_encoder_of_its_own(monkeypatch, tmp_path):
    from vlact import params
    from vlact.report.results.transfer import CANDIDATES
    from vlact.stages import disentangle

    asked = []
    monkeypatch.setattr(
        disentangle,
        "trained_frames",
        lambda p, work, seeds: asked.extend(seeds) or {s: f"{work}/{s}" for s in seeds},
    )
    p = params.load("smoke", disentangle__seeds=4, seeds=[0, 3], pretrain__more_seeds=[5])
    found = disentangle.encoders(p, tmp_path)
    assert list(found) == [0, 3, 5, 1] and asked == [1] and len(set(found.values())) == 4
    assert list(disentangle.encoders(params.load("smoke"), tmp_path)) == [0]
    assert tuple(disentangle.CANDIDATES) == CANDIDATES


# Rows of the tables
def test_rows_are_those_of_the_tables_and_a_pupil_comes_after_its_teacher():
    from vlact import params
    from vlact.stages import transfer as stage

    p = params.load("study")
    rows = stage.rows_of(p)
    printed = {
        (task, background): {r.label for r in rows if (r.task, r.background) == (task, background)}
        for task in ("coarse", "fine")
        for background in ("realistic", "plain")
    }
    models = {n: set(published.read(f"transfer_table{n}")["method"]) for n in (2, 3)}
    assert models[2] <= printed["coarse", "realistic"]
    assert models[3] == printed["fine", "realistic"] == printed["fine", "plain"]
    paper = published.read("transfer_table4")
    coarse = set(paper[paper["setting"].str.startswith("coarse")]["method"])
    assert coarse == printed["coarse", "plain"]
    moved = {r.label: r.options for r in rows if r.label.endswith(stage.DIFFERENCES)}
    assert len(moved) == 4 and all(o["motion"] for o in moved.values())
    assert not any(r.options.get("motion") for r in rows if r.label not in moved)
    assert rows[-1].kind == "CIR" and rows[-1].teacher == "SlowFast"
    assert len({r.name(1, 0) for r in rows}) == len(rows)
    few = {"transfer__models": {"CIR": {"taught": True}}, "transfer__differences": {}}
    few |= {"transfer__plain": [], "transfer__plain_fine": []}
    with pytest.raises(ValueError, match=r"taught: \['SlowFast'\] asked for"):
        stage.rows_of(params.load("study", **few))


def test_the_recipe_that_is_chosen_is_short_and_slow():
    from vlact.tools.calibrate_transfer import SEED, chosen, world

    rows = [
        ("a", 1e-3, 3, 70.0),
        ("a", 2e-3, 3, 81.0),
        ("a", 4e-3, 3, 82.0),  # within a standard error of the rate before it
        ("a", 2e-3, 6, 95.0),
        ("b", 1e-3, 3, 40.0),
        ("b", 2e-3, 3, 60.0),
        ("b", 2e-3, 6, 66.0),
    ]
    log = pd.DataFrame(rows, columns=["model", "lr", "epochs", "known"])
    found = chosen(log, clips=400)
    assert found.loc["a", ["lr", "epochs", "known"]].tolist() == [2e-3, 3, 81.0]
    assert found.loc["b", ["lr", "epochs"]].tolist() == [2e-3, 6]
    p = world("study")
    assert p.seeds == [SEED] and p.synta.seed == p.world.seed == SEED and p.profile != p.workspace


@pytest.mark.parametrize("kind", ["I3D", "X3D", "SlowFast", "MViTv2", "Rev-MViT"])
def test_a_start_from_change_sees_nothing_of_what_stands_still(kind, start):
    torch.manual_seed(0)
    model = made(kind, start, motion=False, change=True)
    over_time = [m for m in model.modules() if isinstance(m, torch.nn.Conv3d)]
    first = next(m for m in over_time if m.kernel_size[0] > 1).weight
    half = first.shape[0] // 2
    sums = first.sum(2).abs().flatten(1).amax(1)
    assert sums[:half].max() < 1e-4 and sums[half:].min() > 1e-3
    again = made(kind, start, motion=False)
    assert len(list(again.parameters())) == len(list(model.parameters()))
    with pytest.raises(ValueError, match="ResNet50 has no convolution over time"):
        made("ResNet50", start, change=True)


@pytest.mark.parametrize("kind", ["ResNet50", "I3D", "X3D", "SlowFast", "VideoDG", "STDN"])
def test_larger_clips_are_averaged_down_to_the_size(kind, start):
    torch.manual_seed(0)
    clips = torch.randint(0, 255, (2, 8, 16, 16, 3), dtype=torch.uint8)
    large = clips.repeat_interleave(2, 2).repeat_interleave(2, 3)
    model = made(kind, start, motion=False, size=16).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(large), model(clips), atol=1e-4, rtol=1e-4)


def test_a_taught_method_leaves_its_teacher_as_it_is(start, tmp_path):
    from vlact.models import files
    from vlact.papers.transfer.benchmark import build

    one, shape = bench(4), TINY | {"frames": 8}
    teacher = build("SlowFast", ["c0", "c1"], shape)
    files.save(tmp_path / "w", "transfer", {"kind": "SlowFast"}, teacher.state_dict())
    options = shape | {"hidden": 16, "dim": 8, "taught": True, "change": True}
    pupil, _ = one.train(
        lambda names: build("CIR", names, options, str(tmp_path / "w"), start[2]),
        "coarse",
        1,
        RECIPE | {"epochs": 2},
        0,
    )
    given, kept = teacher.state_dict(), pupil.backbone.state_dict()
    assert kept and all(torch.equal(x, given[k]) for k, x in kept.items())
    fresh = build("CIR", ["c0", "c1"], options, str(tmp_path / "w"), start[2])
    assert not torch.equal(pupil.mlp[0].weight, fresh.mlp[0].weight)


# Factors
@pytest.mark.parametrize("kind", ["I3D", "MViTv2", "VideoDG", "STDN"])
def test_a_model_that_was_trained_before_starts_there_but_for_its_classes(kind, tmp_path):
    from vlact.papers.transfer.benchmark import build, pretrain_job

    clips = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    out, recipe = tmp_path / "start", RECIPE | {"epochs": 1, "batch_size": 3}
    given = kind, OPTIONS[kind], str(tmp_path / "clips.npy"), ["x", "y", "z"], [0, 1, 2, 0, 1, 2]
    kept = str(out), str(tmp_path / "state.pt")
    assert pretrain_job(*given, list(range(6)), recipe, 0, *kept)
    assert pretrain_job(*given, list(range(6)), recipe, 0, *kept) == []  # a killed run goes on
    learnt = files.read(out, "transfer")[1]
    torch.manual_seed(1)
    made = build(kind, ["c0", "c1"], OPTIONS[kind] | {"pretrained": 1e-3}, str(out)).state_dict()
    fresh = {k for k, x in made.items() if not torch.equal(x, learnt[k].to(x.dtype))}
    assert fresh and all(made[k].shape[0] == 2 and learnt[k].shape[0] == 3 for k in fresh)
    with pytest.raises(ValueError, match="start: expected the weights of"):
        other = "I3D" if kind != "I3D" else "MViTv2"
        build(other, ["c0", "c1"], OPTIONS[other] | {"pretrained": 1e-3}, str(out))


def test_a_factor_that_is_new_is_drawn_from_the_other_half_and_no_other():
    from vlact.worlds import factors
    from vlact.worlds.synta import PRIMITIVES, SECONDS

    def facts(new, seed):
        one = factors.compose(16, 1, new, np.random.default_rng(seed))  # rising, straight up
        shapes = {
            (b.parts[0].shape, tuple(np.round(np.array(b.parts[0].size) / 0.42, 3)))
            for b in one.bodies
        }
        solids = {k for k, v in PRIMITIVES.items() if (v[0], tuple(np.round(v[1], 3))) in shapes}
        times = factors.moments(new, 8.0)
        low, early, late, top = one.bodies[0].pos(np.array([0, 0.4, times[-1] / SECONDS, 1]) * 2.5)
        eye = one.camera.eye(np.array([0.0]))[0]
        return {
            "object": solids <= set(factors.SOLIDS[1]),
            "texture": one.bodies[0].parts[0].pattern == factors.PATTERNS[1],
            "count": len(one.bodies) > 1,
            "background": one.floor.kind == "tiles",
            "viewpoint": eye[1] == 2.1,  # level
            "scale": np.hypot(eye[0], eye[2]) > 10,
            # more than half of the way in two fifths of the time
            "pace": bool((early - low)[1] > 0.5 * (top - low)[1]),
            "duration": bool(np.diff(times)[0] > 0.2),  # seconds of the motion from frame to frame
            "truncation": bool((late - low)[1] < 0.7 * (top - low)[1]),
        }

    for seed in range(4):
        assert not any(facts((), seed).values())
        for name in facts((), seed):
            found = facts((name,), seed)
            assert found.pop(name) and not any(found.values()), name
    assert len(factors.moments(("duration",), 8.0)) == len(factors.moments(("truncation",), 8.0))
    with pytest.raises(ValueError, match=r"unknown factors \['weather'\]"):
        factors.compose(0, 1, ("weather",), np.random.default_rng(0))
    assert set(factors.SOLIDS[0]) | set(factors.SOLIDS[1]) == set(PRIMITIVES) and not set(
        factors.SOLIDS[0]
    ) & set(factors.SOLIDS[1])


@pytest.mark.parametrize("size", [32, 64, 96])
def test_attention_of_small_multiscale_transformers_reaches_all_patches(size):
    """Keys eight patches apart, as at 224 pixels, show the first block of a small image its upper
    left corner only.
    """
    from vlact.models.zoo.mvitv2 import MViTv2, key_stride
    from vlact.models.zoo.revmvit import RevMViT

    assert [key_stride(s) for s in (224, 256, 112, 64, 32, 16)] == [8, 8, 4, 2, 1, 1]
    shape, grid = (
        {"width": 0.25, "depth": 0.2, "frames": 4, "size": size},
        (2, size // 4, size // 4),
    )
    one, two = MViTv2(5, **shape).blocks[0].attention, RevMViT(5, **shape).stages[0][0].f
    tokens = torch.randn(1, 2 * (size // 4) ** 2, 24, requires_grad=True)
    for found in (one(torch.cat([tokens[:, :1], tokens], 1), grid)[0], two(tokens, grid)):
        reached = torch.autograd.grad(found[:, 0].sum(), tokens)[0].abs().sum(-1)
        assert (reached > 0).all()


def test_relative_positions_are_counted_on_the_finer_grid():
    from vlact.models.zoo.mvitv2 import offsets

    assert offsets(3, 3).tolist() == [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
    assert offsets(4, 2).tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]] and offsets(
        2, 4
    ).tolist() == [[3, 2, 1, 0], [5, 4, 3, 2]]
