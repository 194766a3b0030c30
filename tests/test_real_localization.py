"""Localization on real video: folds, baselines, published scores as segments, intervals."""

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from vlact.datasets.real import fir, tcn
from vlact.datasets.real.recordings import Recordings, within
from vlact.datasets.real.skeletons import joined
from vlact.datasets.real.utkinect import Sequences
from vlact.metrics import segmentation
from vlact.metrics.localization import evaluate, summary
from vlact.models.aligned import AlignedConfig, AlignedEncoder
from vlact.papers.actionvlm import real, real_language
from vlact.report.results import real_localization as numbers


def table(rows, columns=("video", "start_s", "end_s", "label")):
    return pd.DataFrame(rows, columns=list(columns))


def test_folds_test_every_recording_once():
    groups = {v: f"{v[:8]} {v.split('_')[3]}" for v in fir.VIDEOS}
    found = real.folds("fir", groups)
    assert sorted(v for f in found for v in f.test) == sorted(fir.VIDEOS)
    assert [len(f.test) for f in found] == [6, 7, 8]
    rooms = [{groups[v].split()[1] for v in f.test} for f in found]
    assert rooms == [{"01"}, {"01"}, {"02"}]
    people = {f"s{s:02d}_e{e:02d}": f"s{s:02d}" for s in range(1, 11) for e in (1, 2)}
    for fold in real.folds("utkinect", people):
        assert not {people[v] for v in fold.test} & {people[v] for v in fold.train}
    assert len(real.folds("gtea", {v: v for v in "abc"})) == 3


def test_a_recording_that_no_fold_tests_is_an_error():
    groups = {v: f"{v[:8]} {v.split('_')[3]}" for v in fir.VIDEOS} | {"new": "20210101 03"}
    with pytest.raises(ValueError, match="test every recording once"):
        real.folds("fir", groups)


def test_intervals_are_cut_left_out_and_named():
    given = table(
        [
            ("a", 1.0, 2.0, "x"),
            ("a", 9.0, 12.0, "y"),
            ("a", 11.0, 12.0, "x"),
            ("a", np.nan, np.nan, "x"),
            ("a", 3.0, 3.0, "x"),
        ]
    )
    found, notes = within(given, {"a": 10.0})
    assert found["end_s"].tolist() == [2.0, 10.0]
    said = " ".join(notes)
    assert len(notes) == 4
    for words in ("not finite", "after the end", "not end after", "ends after the recording"):
        assert words in said


def test_scores_of_segmentation_by_hand():
    truth = np.array([0, 0, 1, 1, 1, 1, 2, 2, 0, 0])
    answer = np.array([0, 1, 1, 1, 1, 2, 2, 2, 2, 1])
    # segments of the answer: 1 (1-5), 2 (5-9), 1 (9-10); of the truth: 1 (2-6), 2 (6-8)
    assert segmentation.hits(truth, answer, 0.5, background=0) == (2, 1, 0)
    assert segmentation.hits(truth, answer, 0.6, background=0) == (1, 2, 1)
    assert segmentation.edit(truth, answer, background=0) == pytest.approx(100 * (1 - 1 / 3))
    found = segmentation.scores([truth], [answer], (0.5, 0.6), background=0)
    assert found["accuracy"] == 60.0
    assert found["F1@50"] == pytest.approx(80.0) and found["F1@60"] == pytest.approx(40.0)
    same = segmentation.scores([truth], [truth], background=0)
    assert set(same.values()) == {100.0}
    with pytest.raises(ValueError, match="one answer a frame"):
        segmentation.scores([truth], [answer[:-1]])


def test_an_action_is_taken_once():
    truth, answer = np.array([0, 1, 1, 1, 1, 0]), np.array([0, 1, 1, 0, 1, 1])
    assert segmentation.hits(truth, answer, 0.1, background=0) == (1, 1, 0)


def test_frame_scores_become_segments_with_their_mean_score():
    scores = np.zeros((6, 3))
    scores[1:4, 2], scores[4:, 1] = [0.5, 0.7, 0.9], 0.4
    one = tcn.Scores("v", "s", 1, np.array([0, 2, 2, 2, 0, 0]), scores.argmax(1), scores)
    found = real.as_segments(one, ("none", "a", "b"), 2.0)
    assert found["label"].tolist() == ["b", "a"]
    assert found["start_s"].tolist() == [0.5, 2.0] and found["end_s"].tolist() == [2.0, 3.0]
    assert found["score"].tolist() == pytest.approx([0.7, 0.4])
    assert real.truth_of(one, ("none", "a", "b"), 2.0)["label"].tolist() == ["b"]


def made(seed=0, videos=5):
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for v in range(videos):
        for i in range(4):
            start = 10.0 * i + rng.uniform(0, 3)
            end = start + rng.uniform(2, 5)
            label = "abc"[rng.integers(3)]
            truth.append((f"v{v}", start, end, label))
            for _ in range(3):
                a = start + rng.normal()
                found.append(
                    (f"v{v}", a, a + rng.uniform(1, 6), "abc"[rng.integers(3)], rng.random())
                )
    return table(truth), table(found, (*("video", "start_s", "end_s", "label"), "score"))


def test_resampled_map_is_the_evaluators_with_every_recording_once():
    truth, found = made()
    videos = sorted(truth["video"].unique())
    one = numbers.Resampled(truth, found, videos, (0.1, 0.3, 0.5))
    ours = one.map(np.ones(len(videos), int))
    theirs = evaluate(truth, found, tious=(0.1, 0.3, 0.5)).groupby("tiou")["ap"].mean()
    assert np.allclose(ours, theirs)


def test_resampled_map_of_some_recordings_is_the_evaluators_on_those():
    truth, found = made(1)
    videos = sorted(truth["video"].unique())
    weights = np.array([1, 0, 1, 1, 0])
    kept = [v for v, w in zip(videos, weights, strict=True) if w]
    own, theirs = (t[t["video"].isin(kept)].reset_index(drop=True) for t in (truth, found))
    one = numbers.Resampled(truth, found, videos, (0.2,))
    assert one.map(weights)[0] == pytest.approx(summary(evaluate(own, theirs, tious=(0.2,)))["mAP"])


def test_intervals_hold_the_mean_and_seeds_are_named():
    truth, found = made(2)
    every = pd.concat([found.assign(seed=0), made(3)[1].assign(seed=1)], ignore_index=True)
    s = numbers.scored(truth, every, sorted(truth["video"].unique()), real.protocol())
    assert s.low <= s.mean <= s.high and len(s.by_seed) == 2
    assert s.mean == pytest.approx(np.mean(s.by_seed)) == pytest.approx(np.mean(s.by_tiou))


def test_class_prior_knows_lengths_and_nothing_else():
    truth = table([("a", 0, 2, "x"), ("a", 4, 6, "x"), ("a", 6, 10, "y")])
    found = real.class_prior(truth, {"b": 8.0})
    assert set(found["video"]) == {"b"}
    lengths = (found["end_s"] - found["start_s"]).groupby(found["label"]).first()
    assert lengths.to_dict() == {"x": 2.0, "y": 4.0}
    assert found.groupby("label")["score"].first().to_dict() == pytest.approx(
        {"x": 2 / 3, "y": 1 / 3}
    )
    assert found["end_s"].max() <= 8.0


def test_groups_are_runs_above_thresholds_of_a_class():
    scores = np.array([[0.0], [0.0], [1.0], [1.0], [0.45], [0.0]])
    found = table(
        real.grouped(scores, "v", ["a"], 0.5, 3.0), (*("video", "start_s", "end_s", "label"), "s")
    )
    spans = set(zip(found["start_s"], found["end_s"], strict=True))
    assert spans == {(1.0, 2.5), (1.0, 2.0)}
    assert real.grouped(np.zeros((4, 1)), "v", ["a"], 0.5, 2.0) == []


def test_moving_averages_keep_constants_and_width():
    x = np.arange(6.0)[:, None]
    assert np.allclose(real.moving_average(np.ones((6, 2)), 5), 1)
    assert real.moving_average(x, 3)[:, 0].tolist() == [0.5, 1, 2, 3, 4, 4.5]
    assert np.allclose(real.moving_average(x, 1), x)
    assert real.around(x, 1)[:, 0].tolist() == [0.5, 1, 2, 3, 4, 4.5]


def test_frame_ridge_is_least_squares_with_a_penalty():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)), rng.normal(size=(40, 2))
    found = real.FrameRidge(x, y)(x, 0.5)
    z = (x - x.mean(0)) / x.std(0)
    own = 0.5 * np.trace(z.T @ z) / 4
    weights = np.linalg.solve(z.T @ z + own * np.eye(4), z.T @ (y - y.mean(0)))
    assert np.allclose(found, z @ weights + y.mean(0))


def seen(tmp_path):
    """Six recordings of 30 s, four features a second: which action happens is one of them."""
    rng, features, rows = np.random.default_rng(0), {}, []
    for v in range(6):
        x = 0.3 * rng.normal(size=(120, 6))
        for i, start in enumerate(range(2, 26, 8)):
            label, end = (v + i) % 2, start + 3 + (v + i) % 3
            x[4 * start : 4 * end, label] += 2
            rows.append((f"v{v}", float(start), float(end), "ab"[label]))
        features[f"v{v}"] = torch.tensor(x, dtype=torch.float32)
    save_file(features, tmp_path / "x.safetensors")
    truth = table(rows)
    truth.to_parquet(tmp_path / "t.parquet")
    durations = {
        "train": {f"v{v}": 30.0 for v in range(4)},
        "test": {f"v{v}": 30.0 for v in range(4, 6)},
    }
    common = {
        "features": str(tmp_path / "x.safetensors"),
        "truth": str(tmp_path / "t.parquet"),
        "durations": durations,
        "classes": ("a", "b"),
    }
    return truth[truth["video"].isin(durations["test"])].reset_index(drop=True), common


def test_ridge_and_grouping_finds_what_steps_show(tmp_path):
    truth, common = seen(tmp_path)
    chosen = real.group_job(real.Group("gtea", "f", out=str(tmp_path / "g"), **common))
    found = pd.read_parquet(tmp_path / "g.parquet")
    assert summary(evaluate(truth, found, tious=(0.5,)))["mAP"] > 0.9
    assert set(found["video"]) == {"v4", "v5"} and chosen["inner_map"] > 0.9


def test_a_localizer_is_trained_by_the_protocol(tmp_path, monkeypatch):
    truth, common = seen(tmp_path)
    p = real.protocol()
    few = p.sets | {"gtea": {"window": 64, "levels": 4, "epochs": 25}}
    monkeypatch.setattr(real, "protocol", lambda: real.Protocol(**{**vars(p), "sets": few}))
    job = real.Localize(
        "gtea", "ActionFormer", "f", 0, feature_dim=6, out=str(tmp_path / "l"), **common
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curve = real.train_job(job)
    assert curve[-1]["loss"] < curve[0]["loss"] or len(curve) == 1
    found = pd.read_parquet(tmp_path / "l.parquet")
    assert summary(evaluate(truth, found, tious=(0.3,)))["mAP"] > 0.5

    # language: a reader to whom each of the first two features is what a description says
    reader = AlignedEncoder(AlignedConfig(6, 2, 2))
    reader.load_state_dict(
        reader.state_dict()
        | {"video_projection.weight": torch.eye(2, 6), "video_projection.bias": torch.zeros(2)}
        | {"text_projection.weight": torch.eye(2), "text_projection.bias": torch.zeros(2)}
    )
    reader.save(tmp_path / "reader.safetensors")
    save_file({"descriptions": torch.eye(2)}, tmp_path / "told.safetensors")
    read = str(tmp_path / "told.safetensors"), str(tmp_path / "reader.safetensors")
    full = dataclasses.replace(job, out=str(tmp_path / "full"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        real_language.language_job(full, real_language.FULL, *read)
    heard = pd.read_parquet(tmp_path / "full.parquet")
    real_language.prior_job(job, *read, str(tmp_path / "prior.parquet"))
    heard = pd.concat([heard, pd.read_parquet(tmp_path / "prior.parquet")])
    maps = {
        name: summary(evaluate(truth, own[own["seed"] == 0], tious=(0.3,)))["mAP"]
        for name, own in heard.groupby("model")
    }
    right, wrong = (real_language.prior_name(1.0, x) for x in ("", "deranged"))
    assert maps[right] > maps[wrong] and maps[real_language.FULL] > 0.5
    runs = heard[heard["model"].str.contains("Eq. 5")].groupby(["model", "seed"])["score"].sum()
    assert len(runs) == 4 and runs.round(6).nunique() == 3  # of two classes one derangement
    seeds = heard.groupby("model")["seed"].nunique()
    assert seeds[real_language.DERANGED] == seeds[wrong] == 2


def test_poses_at_a_constant_rate_say_where_and_how_fast():
    seconds = np.arange(0, 4, 0.1)
    joints = np.zeros((40, 20, 3), np.float32)
    joints[:, 1, 0] = seconds  # one joint moves a metre a second against the hips
    found = joined(table([("s01_e01",)], ("video",)), [joints], "original")
    whole = Sequences(found, seconds, Recordings(table([]), {"s01_e01": 4.0}, {}, "original"))
    x = real.pose_features(whole, 4.0)["s01_e01"]
    assert x.shape == (16, 120)
    assert torch.allclose(x[2:-2, 3], torch.arange(2, 14) / 4, atol=0.06)
    assert torch.allclose(x[2:-2, 63], torch.ones(12), atol=0.15)


def test_windows_count_what_they_cannot_hold(tmp_path):
    features = {"v": torch.randn(400, 4)}
    truth = table([("v", 0.0, 90.0, "long"), ("v", 91.0, 95.0, "short")])
    found = real.visible("gtea", features, truth, {"v": 100.0})
    assert (found.given, found.used, found.lost) == (2, 1, 1)
    assert real.visible("gtea", features, truth, {"v": 100.0}, 400).lost == 0


def test_errors_of_a_perfect_system_are_none():
    truth, _ = made(4)
    recordings = Recordings(truth, {v: 50.0 for v in truth["video"].unique()}, {}, "original")
    perfect = truth.assign(score=0.9, model="m", seed=0)
    found = numbers.errors_of({"s": (recordings, perfect)}, real.protocol())
    assert found.set_index("kind")["share"].to_dict()["true positive"] == 100.0
    assert found["gain"].fillna(0).abs().max() == 0


def test_claims_of_localizers_are_within_recordings():
    truth, _ = made(4)
    videos = sorted(truth["video"].unique())
    good = truth.assign(score=0.9, dataset="s", seed=0)
    bad = good.assign(label=np.where(good["video"] == videos[0], "none", good["label"]))
    tables = [
        (real_language.FULL, good), ("ActionFormer", bad), (real_language.ONLY, bad),
        ("DyFADet", good),
    ]  # fmt: skip
    every = pd.concat([own.assign(model=name) for name, own in tables])
    recordings = Recordings(truth, dict.fromkeys(videos, 50.0), {}, "original")
    names = {"full": real_language.FULL, "language": real_language.ONLY}
    names |= {"vision": "ActionFormer", "other": "DyFADet"}

    def claims(own):
        return numbers.claims({"s": (recordings, own)}, real.protocol(), names)

    found = claims(every.reset_index(drop=True)).set_index("id")
    gain = found.loc["V1"].set_index("recording")["value"]
    assert gain[videos[0]] == pytest.approx(100) and gain[videos[1:]].abs().max() < 1e-9
    assert found.loc["V3", "value"].abs().max() < 1e-9
    assert claims(every[every["model"] == "DyFADet"]).empty
