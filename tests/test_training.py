"""The pretraining ladder, the text trunk, checkpoints and jobs."""

import json
import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from reference.processes import countdown, run
from safetensors.torch import save_file
from torch import nn

from vlact import params
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.text import MINILM_SHA256, SentenceEncoder, find_minilm, sentence_encoder
from vlact.papers.ace.finetuning import Mean
from vlact.runtime import jobs
from vlact.stages.pretrain import labels_of, novel_programs, rows_of
from vlact.stages.pretrain import pretraining as stage
from vlact.stages.worlds import worlds
from vlact.training import loop as training
from vlact.training import pretraining, trackers
from vlact.training.pretraining import NOTHING

SMALL = {
    "image_size": 32,
    "patch_size": 16,
    "num_frames": 4,
    "dim": 32,
    "depth": 2,
    "heads": 2,
    "embed_dim": 12,
    "text_dim": 16,
    "pool": "mean",
    "motion_input": True,
    "conv_stem": True,
}
CONFIG = {
    "frame_steps": 24,
    "frame_batch_size": 8,
    "frame_lr": 0.002,
    "vlog_steps": 30,
    "steps": 24,
    "batch_size": 8,
    "lr": 0.002,
    "weight_decay": 0.05,
    "object_weight": 0.5,
    "align_steps": 60,
    "align_batch_size": 16,
    "align_clips": 64,
    "align_lr": 0.01,
    "align_noise": 0.0,
}


@pytest.fixture
def corpus(tmp_path):
    """Clips whose square moves left or right (verb) and is red or blue (object)."""
    rng = np.random.default_rng(0)
    frames = np.full((48, 1, 4, 32, 32, 3), 40, np.uint8)
    verb, colour = rng.integers(0, 2, 48), rng.integers(0, 2, 48)
    for i in range(48):
        for t in range(4):
            x = 4 + 6 * (t if verb[i] else 3 - t)
            frames[i, 0, t, 10:20, x : x + 8, 2 * colour[i]] = 230
    np.save(tmp_path / "frames.npy", frames)
    labels = {
        "verb": verb.tolist(),
        "object": colour.tolist(),
        "train": list(range(36)),
        "val": list(range(36, 48)),
    }
    return tmp_path, labels


def test_hidden_programs_lose_their_label_and_their_captions_and_keep_their_object():
    table = pd.DataFrame({"verb": ["spin", "take", "spin"], "object": ["pin", "", "nut"]})
    table["split"] = ["train", "train", "val"]
    hidden = table["verb"].isin(novel_programs())
    assert hidden.tolist() == [True, False, True] and "put down" not in novel_programs()
    told, shown = labels_of(table), labels_of(table, hidden)
    assert told["verb"][0] == told["verb"][2] != NOTHING and told["object"][1] == NOTHING
    assert shown["verb"] == [NOTHING, shown["verb"][1], NOTHING] != NOTHING
    assert shown["object"] == told["object"]
    assert rows_of(table) == {"train": [0, 1], "val": [2]}
    assert rows_of(table, hidden) == {"train": [1], "val": []}


def test_the_mean_of_weights_is_that_of_all_epochs_so_far():
    mean = Mean()
    for value in (1.0, 2.0, 6.0):
        mean.add([torch.full((2,), value)])
    assert mean.value[0].tolist() == pytest.approx([3, 3])


def pretrain(corpus, name, steps=24, seed=0):
    folder, labels = corpus
    config = CONFIG | {"steps": steps}
    return pretraining.pretrain(
        config,
        SMALL,
        str(folder / "frames.npy"),
        labels,
        None,
        str(folder / f"{name}.safetensors"),
        str(folder / f"{name}.pt"),
        seed,
    )


def pretrain_frames(corpus, name, seed=0):
    folder, labels = corpus
    captions = [f"take {'red' if c else 'blue'} thing" for c in labels["object"]]
    texts = folder / "captions.safetensors"
    features = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    save_file(
        dict(
            zip(sorted(set(captions)), torch.nn.functional.normalize(features, dim=1), strict=True)
        ),
        texts,
    )
    out, checkpoint = str(folder / f"{name}.safetensors"), str(folder / f"{name}.pt")
    return pretraining.pretrain_frames(
        CONFIG,
        SMALL,
        str(folder / "frames.npy"),
        captions,
        labels,
        str(texts),
        out,
        checkpoint,
        seed,
    )


@pytest.mark.parametrize("train", [pretrain, pretrain_frames])
def test_pretraining_is_the_same_for_a_seed_and_learns(corpus, monkeypatch, train):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 8)
    one, two, other = train(corpus, "one"), train(corpus, "two"), train(corpus, "other", seed=1)
    assert one == two and one != other and [r["step"] for r in one] == [8, 16, 24]
    assert (corpus[0] / "one.safetensors").read_bytes() == (
        corpus[0] / "two.safetensors"
    ).read_bytes()
    assert one[-1]["loss"] < one[0]["loss"]


@pytest.mark.parametrize("train", [pretrain, pretrain_frames])
def test_pretraining_goes_on_from_a_checkpoint_to_the_same_bytes(
    corpus, monkeypatch, train, until_killed
):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 8)
    whole = train(corpus, "whole")
    until_killed(train, corpus, "resumed", saves=2)
    assert not (corpus[0] / "resumed.safetensors").exists()
    assert train(corpus, "resumed") == whole
    assert (corpus[0] / "resumed.safetensors").read_bytes() == (
        corpus[0] / "whole.safetensors"
    ).read_bytes()


def caption_files(folder, captions):
    """Trunk features of every distinct caption, all far apart, and an encoder to start from."""
    features = torch.nn.functional.normalize(
        torch.randn(len(set(captions)), 16, generator=torch.Generator().manual_seed(0)), dim=1
    )
    trunk = dict(zip(sorted(set(captions)), features, strict=True))
    save_file(trunk, folder / "texts.safetensors")
    torch.manual_seed(0)
    DualEncoder(DualConfig(**SMALL)).save(folder / "start.safetensors")
    return trunk


def test_an_encoder_held_out_of_names_has_projections_of_its_own(
    corpus,
):
    folder, labels = corpus
    captions = [f"move {'red' if c else 'blue'}" for c in labels["object"]]
    caption_files(folder, captions)
    files = [str(folder / n) for n in ("texts.safetensors", "held.safetensors", "held.pt")]
    config, heard = CONFIG | {"steps": 2, "align_steps": 2}, list(range(10))
    curve = pretraining.hold_out(
        config, SMALL, str(folder / "frames.npy"), labels, captions, heard, files[0], None,
        *files[1:], 0,
    )  # fmt: skip
    assert curve == pretrain(corpus, "plain", steps=2)
    held, plain = (DualEncoder.load(folder / f"{n}.safetensors") for n in ("held", "plain"))
    for name, weight in plain.trunk.state_dict().items():
        assert torch.equal(held.trunk.state_dict()[name], weight), name
    assert not torch.equal(held.text_projection.weight, plain.text_projection.weight)
    assert not list(folder.glob("*.trunk"))


@pytest.mark.parametrize(
    "job, config", [("align", {"align_steps": 300}), ("narrate", {"lr": 0.01, "vlog_steps": 60})]
)
def test_captions_and_their_clips_come_together(corpus, job, config):
    folder, labels = corpus
    captions = [f"move {'red' if c else 'blue'}" for c in labels["object"]]
    trunk, rows = caption_files(folder, captions), list(range(40))
    wanted = torch.tensor([sorted(trunk).index(c) for c in captions])

    def learn(**more):
        files = (
            str(folder / "start.safetensors"),
            str(folder / "frames.npy"),
            [captions[i] for i in rows],
            rows,
        )
        out = str(folder / "out.safetensors")
        curve = getattr(pretraining, job)(
            CONFIG | config | more, *files, str(folder / "texts.safetensors"), out, 0
        )
        encoder = DualEncoder.load(out)
        with torch.no_grad():
            scores = (
                encoder(torch.from_numpy(np.load(folder / "frames.npy"))[:, 0])
                @ encoder.embed_text(torch.stack([trunk[c] for c in sorted(trunk)])).T
            )
        return curve, (scores.argmax(1) == wanted).float()[40:].mean()

    curve, right = learn()
    assert curve[-1]["loss"] < curve[0]["loss"] and right == 1.0
    if job == "align":
        assert learn(align_noise=1.0)[1] < 1.0  # captions of other clips teach nothing


def test_augmentation_keeps_type_and_shape_and_draws_anew():
    clips = torch.randint(
        0, 255, (3, 4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    generator = torch.Generator().manual_seed(1)
    a, b = training.augment(clips, generator), training.augment(clips, generator)
    assert a.dtype == torch.uint8 and a.shape == clips.shape and not torch.equal(a, b)


def test_batches_cover_every_row_once_an_epoch():
    seen = torch.cat(list(training.batches(10, 4, 5, torch.Generator().manual_seed(0))))
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))


def test_a_moving_average_forgets_what_training_began_with():
    from torch.optim.swa_utils import AveragedModel

    weights = torch.randn(13, 3, generator=torch.Generator().manual_seed(0))
    model = torch.nn.ParameterList([torch.zeros(3)])
    mean, expected = (
        AveragedModel(model, multi_avg_fn=training.moving_average(0.5)),
        weights[0].clone(),
    )
    for n, now in enumerate(weights):
        model[0].data.copy_(now)
        mean.update_parameters(model)
        decay = [
            1.0,
            2 / 11,
            3 / 12,
            4 / 13,
            5 / 14,
            6 / 15,
            7 / 16,
            8 / 17,
            0.5,
            0.5,
            0.5,
            0.5,
            0.5,
        ][n]
        expected = decay * expected + (1 - decay) * now
        torch.testing.assert_close(mean.module[0].data, expected)
    share, mean = [], AveragedModel(model, multi_avg_fn=training.moving_average(0.99))
    # as many steps as a localizer of `study` takes; a constant 0.99 would leave 0.2 of the first
    # weights
    for n in range(160):
        model[0].data.fill_(float(n == 0))
        mean.update_parameters(model)
        share.append(mean.module[0][0].item())
    assert share[0] == 1 and share[-1] < 1e-9
    for decay in (1.0, -0.1):
        with pytest.raises(
            ValueError, match=f"ema {decay:g}: expected a decay from 0 up to but not including 1"
        ):
            training.moving_average(decay)


def test_a_moving_average_is_the_one_of_the_whole_model_and_goes_on_from_a_checkpoint(tmp_path):
    from torch.optim.swa_utils import AveragedModel

    def made():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
        )
        model[0].weight.requires_grad_(False)
        return model, torch.Generator().manual_seed(0)

    def fitted(steps, seen=lambda model: None, checkpoint=None, stop=None, ema=0.9):
        model, generator = made()

        def loss_of(step):
            if step == stop:
                raise KeyboardInterrupt
            if step:
                seen(model)
            return model(torch.randn(8, 3, generator=generator)).square().mean()

        training.fit(
            {"model": model},
            loss_of,
            steps,
            0.1,
            0.5,
            generator,
            "test",
            checkpoint,
            every=5,
            ema=ema,
        )
        return model

    slow = AveragedModel(made()[0], multi_avg_fn=training.moving_average(0.9))
    slow.update_parameters(last := fitted(12, slow.update_parameters, ema=0.0))
    mean = fitted(12)
    for name, value in mean.state_dict().items():
        assert torch.equal(
            value, (last if "running" in name or "num_" in name else slow.module).state_dict()[name]
        ), name
    assert torch.equal(mean[0].weight, made()[0][0].weight) and not torch.equal(
        mean[2].weight, last[2].weight
    )
    with pytest.raises(KeyboardInterrupt):
        fitted(12, checkpoint=str(tmp_path / "state.pt"), stop=7)
    again = fitted(12, checkpoint=str(tmp_path / "state.pt"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), mean.state_dict().values(), strict=True)
    )


# The encoder
def test_training_is_logged_by_the_tracker_of_a_profile(monkeypatch, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def train():
        model = nn.Linear(2, 1)
        for weight in model.parameters():
            nn.init.ones_(weight)
        draw = torch.Generator().manual_seed(0)
        return training.fit(
            {"m": model}, lambda step: model(torch.ones(3, 2)).square().mean(), 4, 1e-2, 0.0, draw,
            "toy", every=2, validate=lambda: {"acc": 0.5, "split": "val"},
        )  # fmt: skip

    for name in (trackers.TRACKER, trackers.LOGS):  # put back after the test
        monkeypatch.setenv(name, "")
    alone = train()
    trackers.choose("tensorboard", tmp_path)
    assert train() == alone  # who looks on changes nothing
    events = EventAccumulator(str(tmp_path / "toy")).Reload()
    for name in ("loss", "acc"):
        told = [(e.step, pytest.approx(e.value, rel=1e-6)) for e in events.Scalars(name)]
        assert [(row["step"], row[name]) for row in alone] == told
    with pytest.raises(ValueError, match="tensorbord.*Choose between"):
        trackers.choose("tensorbord", tmp_path)


def test_encoder_file_round_trip_and_strangers_are_refused(tmp_path):
    encoder = DualEncoder(DualConfig(**SMALL)).eval()
    clips = torch.randint(0, 255, (2, 4, 32, 32, 3), dtype=torch.uint8)
    encoder.save(tmp_path / "e.safetensors")
    with torch.no_grad():
        assert torch.equal(DualEncoder.load(tmp_path / "e.safetensors")(clips), encoder(clips))
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="x.safetensors: expected a 'config' entry"):
        DualEncoder.load(tmp_path / "x.safetensors")
    save_file(
        {"x": torch.zeros(1)}, tmp_path / "y.safetensors", metadata={"config": json.dumps(SMALL)}
    )
    with pytest.raises(ValueError, match="missing .* unexpected"):
        DualEncoder.load(tmp_path / "y.safetensors")


def test_the_trunk_is_the_library_s_timesformer():
    """With the paper's shape options, E is transformers' model up to projection and scale."""
    from torch.nn.functional import normalize

    encoder = DualEncoder(
        DualConfig(**SMALL | {"pool": "cls", "motion_input": False, "conv_stem": False})
    ).eval()
    clips = torch.randint(0, 255, (2, 4, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        hidden = encoder.trunk(clips.permute(0, 1, 4, 2, 3).float() / 127.5 - 1).last_hidden_state[
            :, 0
        ]
        assert torch.allclose(
            encoder(clips), normalize(encoder.video_projection(hidden), dim=-1), atol=1e-5
        )
        for frozen in (0, 1, 2):
            assert torch.allclose(
                encoder.last(encoder.first(clips, frozen), frozen), hidden, atol=1e-5
            )


def test_a_wrong_pool_is_named():
    with pytest.raises(ValueError, match="'cls' or 'mean'"):
        DualConfig(**SMALL | {"pool": "max"})


# The text trunk
def test_sentence_features_know_what_words_mean():
    encoder = sentence_encoder()
    x = encoder(["pick up the cup", "lift the mug", "tighten a screw"])
    assert x.shape == (3, 384) and torch.allclose(x.norm(dim=1), torch.ones(3), atol=1e-5)
    assert x[0] @ x[1] > x[0] @ x[2] + 0.2


def test_a_string_is_encoded_once(monkeypatch):
    encoder, calls = sentence_encoder(), []
    real = SentenceEncoder.encode
    monkeypatch.setattr(
        SentenceEncoder,
        "encode",
        lambda self, texts: calls.append(list(texts)) or real(self, texts),
    )
    encoder(["a quite new string", "another new string"])
    encoder(["another new string", "a third new string", "a quite new string"])
    assert [sorted(c) for c in calls] == [
        ["a quite new string", "another new string"],
        ["a third new string"],
    ]


def test_wrong_or_missing_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        find_minilm(tmp_path)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=f"expected sha256 {MINILM_SHA256}"):
        find_minilm(tmp_path)


# Killed
def pretrained_or_killed(name: str, checkpoints: int) -> None:
    """The pretraining stage, killed after so many checkpoints, or never (0)."""
    moment, save = countdown(checkpoints), jobs.Checkpoint.save

    def saved(self, state) -> None:
        save(self, state)
        moment()

    jobs.Checkpoint.save, training.CHECKPOINT_EVERY = saved, 4
    small = {"pretrain__steps": 16, "pretrain__frame_steps": 8, "world__tutorial_videos": 4}
    stage(params.load("smoke", name, workers=1, seeds=[0], **small))


def test_a_stage_killed_again_and_again_ends_with_the_same_bytes():
    """kill -9 in the middle of pretraining, twice; then the bytes of a run of one piece."""
    names = [f"killtest_{os.getpid()}_{k}" for k in "ab"]
    folders = {n: params.load("smoke", n) for n in names}
    try:
        assert run(pretrained_or_killed, names[0], 0) == 0
        killed = [run(pretrained_or_killed, names[1], checkpoints) for checkpoints in (1, 2)]
        assert killed == [-signal.SIGKILL] * 2
        assert run(pretrained_or_killed, names[1], 0) == 0
        files = {
            n: {
                f.relative_to(p.data): f.read_bytes()
                for f in sorted(p.data.rglob("*"))
                if f.is_file()
            }
            for n, p in folders.items()
        }
        assert files[names[0]] == files[names[1]]
        assert any(f.suffix == ".safetensors" for f in files[names[0]])
    finally:
        for p in folders.values():
            shutil.rmtree(p.data, ignore_errors=True)
            shutil.rmtree(p.scratch, ignore_errors=True)


def test_a_stale_input_of_a_pipeline_workspace_says_to_run_the_pipeline(monkeypatch, tmp_path):
    p = params.load("mini", "mini")
    monkeypatch.setattr("vlact.stages.Stage.done", lambda *a: False)
    with pytest.raises(FileNotFoundError, match="make repro PROFILE=mini"):
        worlds(p, must_exist=True)


def test_the_paper_profile_says_what_data_it_expects():
    with pytest.raises(
        FileNotFoundError, match="data/paper/worlds/tutorial/annotations.csv.*real data"
    ):
        worlds(params.load("paper"))


# Parameters
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"profile": "huge"}, "unknown profile 'huge'; expected one of"),
        ({"profile": "mini", "ace__temperature": 1}, "ace__temperature: no such parameter"),
        (
            {"profile": "mini", "ace__tau": "warm"},
            "profiles.mini.ace.tau: expected float, got 'warm'",
        ),
        ({"profile": "mini", "seeds": 3}, "profiles.mini.seeds: expected list"),
        ({"profile": "mini", "ace__idle": 1}, "ace.idle: expected bool"),
    ],
)
def test_bad_parameters_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        params.load(**arguments)


def test_unknown_and_missing_keys_of_the_file_are_named(tmp_path):
    text = (params.ROOT / "params.yaml").read_text(encoding="utf-8")
    for old, new, message in (
        ("tau: 0.02", "tua: 0.02", "ace.tua: unknown parameter 'tua', did you mean 'tau'?"),
        ("tau: 0.02", "tua: 0.02", "ace.tau: missing"),
        ("tau: 0.02", "tau: 2e-2", "ace.tau: expected float, got '2e-2' (str)"),
        ("depth: 2", "depth: 2.5", "model.depth: expected int, got 2.5 (float)"),
        (
            "model: &small",
            "modle: &small",
            "modle: unknown parameter 'modle', did you mean 'model'?",
        ),
    ):
        path = tmp_path / "params.yaml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        line = text[: text.index(old)].count("\n") + 1
        with pytest.raises(ValueError) as error:
            params.load("smoke", path=path)
        section = (
            line if "missing" not in message else text[: text.index("ace: &ace")].count("\n") + 1
        )
        assert f"{path}, line {section}: profiles.smoke.{message}" in str(error.value)


def test_a_line_is_found_where_a_section_goes_on_from_another(tmp_path):
    path, shared = tmp_path / "params.yaml", "profiles:\n  a: &a\n    x: {y: 1}\n"
    path.write_text(shared + "  mini:\n    <<: *a\n    name: mini\n    x: {y: 1}\n")
    with pytest.raises(ValueError, match="params.yaml, line 7: profiles.mini.x: unknown parameter"):
        params.load("mini", path=path)
    path.write_text(shared + "  mini:\n    <<: *a\n    name: mini\n")
    with pytest.raises(ValueError, match="params.yaml, line 3: profiles.mini.x: unknown parameter"):
        params.load("mini", path=path)


def test_every_profile_loads_and_shapes_the_encoder():
    for profile in params.PROFILES:
        p = params.load(profile)
        assert p.model.depth >= p.ace.trained_blocks and len(p.seeds) >= 2
