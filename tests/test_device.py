"""On a GPU everything must lie where the model does: every training here, on one that is not there,
gives what the CPU gives, but for the rounding of bf16 where attention is chosen by device.
"""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import test_across
import test_localizer
import test_training
import test_transfer
import test_vision_language
import test_zoo
import torch
from reference.elsewhere import own_gpu, pretended, where
from safetensors.torch import load_file, save_file
from test_training import corpus  # noqa: F401 -- a fixture
from test_transfer import start  # noqa: F401
from test_vision_language import reader  # noqa: F401
from test_zoo import words  # noqa: F401
from torch import nn

from vlact.language.descriptions import WORDS
from vlact.models import actionformer
from vlact.models.poses import PoseEncoder
from vlact.papers.ace.finetuning import encode, finetune, frozen_features
from vlact.papers.actionvlm import alignment as aligning
from vlact.papers.actionvlm import experiments as vl
from vlact.papers.actionvlm import localizing
from vlact.papers.transfer import benchmark as transferring
from vlact.runtime import device, jobs
from vlact.training import features, pretraining


def both(run, tmp_path) -> list:
    """What `run(folder)` returns on the CPU and elsewhere."""
    (here := tmp_path / "here").mkdir()
    (there := tmp_path / "there").mkdir()
    found = [run(here)]
    with pretended():
        found.append(run(there))
    return found


def same_tables(folder, *names):
    for name in names:
        pd.testing.assert_frame_equal(
            pd.read_parquet(folder / "here" / name), pd.read_parquet(folder / "there" / name)
        )


@pytest.fixture
def one_order(monkeypatch):
    """Convolutions of localizers add up in the order of a GPU's everywhere: the CPU has its own."""
    monkeypatch.setattr(actionformer, "ROWS", 1 << 30)


# The place itself
def test_a_gpu_that_is_not_there_refuses_what_a_gpu_would():
    with pretended() as place:
        model = device.put(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
        assert (
            device.of(model) == model[0].weight.device == place
            and torch.zeros(1).device == device.CPU
        )
        near, far = torch.ones(3, 4), device.beside(model, torch.ones(3, 4))
        with pytest.raises(
            RuntimeError,
            match="linear: expected all tensors on privateuseone:0, "
            r"found one of shape \(3, 4\) on cpu",
        ):
            model(near)
        for wrong in (
            lambda: far + near,
            lambda: torch.cat([far, near]),
            lambda: near[far[:, 0].long()],
            lambda: near.mul_(far),
        ):
            with pytest.raises(RuntimeError, match="expected all tensors on"):
                wrong()
        with pytest.raises(TypeError, match="use Tensor.cpu"):
            far.numpy()
        assert (
            far[torch.tensor([0, 1])].device == place
            and (2 * far * torch.tensor(2.0)).device == place
        )
        assert (
            far.cpu().device == device.CPU
            and far.to("cpu").numpy().sum() == 12
            and near.to(far.device).device == place
        )
        assert torch.arange(3, device=place).device == place and far.new_zeros(2).device == place
    assert device.chosen() == device.CPU


def test_where_models_go(monkeypatch):
    try:
        device.choose("auto")
        assert device.chosen() == device.CPU and device.wanted() == "auto"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        device.choose("auto")
        assert str(device.chosen()) == "cuda:0"
    finally:
        device.choose("cpu")
    assert device.of(nn.Identity()) == device.CPU
    given = device.moved(
        {"a": (torch.zeros(1), [torch.ones(2)]), "b": "text", "c": 3}, torch.device("meta")
    )
    assert given["a"][1][0].is_meta and (given["b"], given["c"]) == ("text", 3)


def test_every_worker_has_a_gpu_of_its_own(tmp_path):
    meet = [partial(own_gpu, str(tmp_path), 2, 2)] * 2
    try:
        found = jobs.run(meet, 2, "places")
    finally:
        jobs.close()
    assert len({process for _, process in found}) == 2
    assert {place for place, _ in found} == {"cuda:0", "cuda:1"}


def test_more_workers_than_gpus_share_them_evenly_whatever_each_may_see(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # record locks are a process's own, so that one process stands for three
    held = []

    def locked(path):
        if str(path) in held:
            return None
        held.append(str(path))
        return path

    monkeypatch.setattr(device, "_locked", locked)
    numbers = []
    for seen in ("", "1,0", "0,1"):
        monkeypatch.setattr(device, "_claim", None)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        numbers.append(device.claimed())
    # what the second calls 0 is another GPU than the first's; the third finds both taken
    assert numbers == [0, 0, 0]
    assert [path.rpartition("/")[2] for path in held] == ["0.0", "1.0", "0.1"]


def test_workers_put_models_where_the_stage_says():
    try:
        device.choose("meta")
        assert set(jobs.run([partial(where, 1), partial(where, 2)], 2, "places")) == {
            ("meta", "meta")
        }
    finally:
        device.choose("cpu")
        jobs.close()


# Every training
@pytest.mark.parametrize("kind", test_transfer.OPTIONS)
def test_models_of_the_benchmark(kind, start, tmp_path):  # noqa: F811
    one = test_transfer.bench(2)
    np.save(tmp_path / "f.npy", one.frames)
    one.table.to_parquet(tmp_path / "t.parquet")
    given = (
        kind,
        test_transfer.OPTIONS[kind],
        str(tmp_path / "f.npy"),
        str(tmp_path / "t.parquet"),
        one.taxonomy,
    )
    recipe = test_transfer.RECIPE | {"epochs": 1, "batch_size": 6}

    def run(folder):
        out = (str(folder / "o"), str(folder / "o.pt"), str(folder / "w"))
        curve = transferring.transfer_job(*given, "coarse", 1, recipe, 0, *start[:2], *out)
        if kind in transferring.BY_NAME:
            runs = [one.names("coarse", 1)] * 2
            renamed = (str(folder / "w"), str(folder / "r"), str(folder / "r.pt"))
            transferring.rename_job(*given, runs, 1, recipe, 0, *start[:2], *renamed)
        return curve

    here, there = both(run, tmp_path)
    assert here == there
    same_tables(tmp_path, "o", *(["r"] if kind in transferring.BY_NAME else []))


@pytest.mark.parametrize("arm", ["disentangled", "context swap, mean removed"])
def test_the_disentangled(arm, start, tmp_path):  # noqa: F811
    from vlact import params
    from vlact.stages.disentangle import options_of

    one, p = test_transfer.bench(2), params.load("smoke")
    np.save(tmp_path / "f.npy", one.frames)
    one.table.to_parquet(tmp_path / "t.parquet")
    given = (
        str(tmp_path / "f.npy"),
        str(tmp_path / "t.parquet"),
        one.taxonomy,
        1,
        test_transfer.RECIPE | {"epochs": 1},
        0,
        *start[:2],
    )
    trunk = test_transfer.OPTIONS["EZ-CLIP"] | {"frames": 4}

    def run(folder):
        transferring.disentangle_job(
            arm, trunk, options_of(p, arm), *given, str(folder / "o"), str(folder / "o.pt")
        )

    both(run, tmp_path)
    same_tables(tmp_path, "o")


@pytest.mark.parametrize("method", test_zoo.METHODS)
def test_methods_that_go_by_name(method, words, tmp_path):  # noqa: F811
    clips, labels = test_zoo.problem()

    def run(folder):
        one = device.put(test_zoo.make(method, device.put(words)))
        kept = frozen_features(one, clips)
        assert all(x.device == device.CPU for x in kept.values())
        finetune(one, [kept] * 2, labels, test_zoo.AMOUNTS, 0.02, [1], 0, lambda _: None)
        seen = encode(one, kept)
        return one.similarity(seen, [[b] for b in test_zoo.BASE]).detach().cpu(), [
            p.detach().cpu() for p, _ in one.trained()
        ]

    (here, weights), (there, others) = both(run, tmp_path)
    assert torch.allclose(here, there, atol=1e-3)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(weights, others, strict=True))


def test_the_pretraining_ladder(corpus, tmp_path):  # noqa: F811
    folder, labels = corpus
    captions = [f"take {'red' if c else 'blue'} thing" for c in labels["object"]]
    test_training.caption_files(folder, captions)
    config = test_training.CONFIG | {
        "steps": 4,
        "frame_steps": 4,
        "align_steps": 4,
        "vlog_steps": 4,
    }
    given = (
        str(folder / "frames.npy"),
        captions,
        labels["train"],
        str(folder / "texts.safetensors"),
    )

    def run(out):
        rows = {k: labels[k] for k in ("train", "val")}
        texts, at = (
            str(folder / "texts.safetensors"),
            {k: str(out / k) for k in ("frames", "trunk", "align", "vlog")},
        )
        frames = pretraining.pretrain_frames(
            config,
            test_training.SMALL,
            str(folder / "frames.npy"),
            captions,
            rows,
            texts,
            at["frames"],
            str(out / "f.pt"),
            0,
        )
        trunk = pretraining.pretrain(
            config,
            test_training.SMALL,
            str(folder / "frames.npy"),
            labels,
            at["frames"],
            at["trunk"],
            str(out / "t.pt"),
            0,
        )
        told = (given[0], [captions[i] for i in given[2]], *given[2:])
        return (
            frames,
            trunk,
            pretraining.align(config, at["trunk"], *told, at["align"], 0),
            pretraining.narrate(config, at["align"], *told, at["vlog"], 0),
        )

    here, there = both(run, tmp_path)
    assert here == there
    for name in ("frames", "trunk", "align", "vlog"):
        mine, other = load_file(tmp_path / "here" / name), load_file(tmp_path / "there" / name)
        assert all(torch.equal(x, other[k]) for k, x in mine.items())


@pytest.mark.parametrize("kind", localizing.KINDS)
def test_localizers(kind, one_order, tmp_path):
    found, durations, truth = test_localizer.bumps(6, 0)
    save_file(found, tmp_path / "f.safetensors")
    truth.to_parquet(tmp_path / "truth.parquet")
    parts = {"train": dict(list(durations.items())[:4]), "test": dict(list(durations.items())[4:])}
    shape = {
        "feature_dim": 4,
        "classes": 2,
        "dim": 16,
        "heads": 2,
        "embeds": 1,
        "stems": 1,
        "levels": 3,
    }
    recipe = test_localizer.RECIPE | {"epochs": 2}

    def run(folder):
        problem = localizing.Problem(
            str(tmp_path / "f.safetensors"),
            parts,
            str(tmp_path / "truth.parquet"),
            ["a", "b"],
            {"step_s": 0.5},
            shape,
            recipe,
        )
        return localizing.localize_job(kind, problem, 0, str(folder / "o"), str(folder / "o.pt"))

    here, there = both(run, tmp_path)
    assert here == there
    same_tables(tmp_path, "o.parquet")


@pytest.mark.parametrize(
    "variant",
    [
        vl.Variant("eq1", "eq1"),
        vl.Variant("paired", "paired", lm="random"),
        vl.Variant("generated", "generated", described=False, folds=2),
    ],
    ids=lambda v: v.name,
)
def test_action_vlm(variant, reader, one_order, tmp_path):  # noqa: F811
    problem = test_vision_language.problem(tmp_path, epochs=2)

    def run(folder):
        curve = vl.vision_language_job(
            variant,
            problem,
            str(reader),
            {"language off": None, "deranged 0": [1, 0]},
            0,
            str(folder / "o"),
            str(folder / "o.pt"),
            str(folder / "w"),
        )
        loaded = vl.VisionLanguageLocalizer.load(folder / "w")
        assert device.of(loaded.model) == device.CPU
        loaded.detect(load_file(problem.features), problem.durations["test"])
        return curve

    here, there = both(run, tmp_path)
    assert here == there
    same_tables(tmp_path, "o.parquet", "o-frames.parquet")


def test_answers(reader, tmp_path):  # noqa: F811
    given = test_vision_language.problem(tmp_path, epochs=1), str(reader)
    here, there = both(
        lambda f: vl.answer_job(*given, {"deranged 0": [1, 0]}, 0, str(f / "a"), str(f / "a.pt")),
        tmp_path,
    )
    assert here[-1]["loss"] == pytest.approx(there[-1]["loss"], rel=1e-3)
    assert len(pd.read_parquet(tmp_path / "here" / "a.parquet")) == len(
        pd.read_parquet(tmp_path / "there" / "a.parquet")
    )


def test_alignment(tmp_path):
    found, events = test_across.drills()
    save_file(found, tmp_path / "f.safetensors")
    names, recipe = (
        [f"Sport{c}" for c in "ABCDEFGHIJKL"],
        {"batch_size": 2, "noise": 0.1, "text_weight": 0.2, "lr": 1e-3, "steps": 2},
    )
    recipe |= {"hidden": 32, "layers": 1, "heads": 1, "lm_stride": 2, "bias_steps": 1}
    given = (str(tmp_path / "f.safetensors"), events, ["v2"], names, 0.25, 32, recipe, WORDS, 0.5)
    (here, gate), (there, other) = both(
        lambda f: aligning.align_job(*given, str(f / "reader.safetensors"), str(f / "r.pt")),
        tmp_path,
    )
    assert (
        here[-1]["loss"] == pytest.approx(there[-1]["loss"], rel=1e-3)
        and gate[0]["frames"] == other[0]["frames"]
    )


def test_the_eye_and_what_it_sees(tmp_path):
    from vlact.worlds.broadcast import drills as planned
    from vlact.worlds.broadcast import film

    found = [film(b, tmp_path, 32, 8.0) for b in planned(2, 6.0, 1)]
    events = {f["video"]: {"poses": f["poses"], "routines": f["annotations"]} for f in found}
    recipe, last = (
        {"threads": 1, "pose_steps": 2, "pose_batch_size": 16, "pose_lr": 1e-3},
        found[-1]["video"],
    )

    def run(folder):
        curve = aligning.pose_job(
            str(tmp_path),
            events,
            [last],
            32,
            8.0,
            recipe,
            str(folder / "eye"),
            str(folder / "eye.pt"),
        )
        return curve, features.extract_job(
            PoseEncoder, str(folder / "eye"), str(tmp_path), [last], 8.0, 2, str(folder / "seen")
        )

    here, there = both(run, tmp_path)
    assert here[0] == there[0] and torch.equal(load_file(here[1])[last], load_file(there[1])[last])


def test_end_to_end(tmp_path):
    from vlact import video
    from vlact.models.dual import DualConfig, DualEncoder

    rng, durations = np.random.default_rng(0), {"train": {"a.mp4": 3.0}, "test": {"b.mp4": 3.0}}
    for name in ("a.mp4", "b.mp4"):
        video.write(tmp_path / name, rng.integers(0, 255, (24, 32, 32, 3), dtype=np.uint8), 8)
    pd.DataFrame(
        [{"video": v, "start_s": 1.0, "end_s": 2.0, "label": "lit"} for v in ("a.mp4", "b.mp4")]
    ).to_parquet(tmp_path / "t.parquet")
    torch.manual_seed(0)
    DualEncoder(
        DualConfig(**test_localizer.SHAPE, pool="mean", motion_input=True, conv_stem=True)
    ).save(tmp_path / "e.safetensors")
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
    recipe = test_localizer.RECIPE | {"window": 16, "batch_size": 2, "epochs": 2, "stride": 2}
    table = str(tmp_path / "t.parquet"), ["lit"], {"step_s": 0.25}
    problem = localizing.Problem(str(tmp_path), durations, *table, shape, recipe)
    given = problem, 8.0, str(tmp_path / "e.safetensors"), 0
    here, there = both(
        lambda f: localizing.end_to_end_job(*given, str(f / "o"), str(f / "o.pt")), tmp_path
    )
    assert here == there
    same_tables(tmp_path, "o.parquet")
