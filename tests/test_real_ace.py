"""ACE on real clips: classes, guards, zero-shot models and trials, on numbers made on the spot."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch.nn.functional import normalize

from vlact import ROOT, params
from vlact.language.trees import Trees, phrase
from vlact.metrics.selection import choose
from vlact.models.aligned import AlignedConfig, AlignedEncoder
from vlact.papers.ace import real, zero_shot
from vlact.report import claims, verdicts
from vlact.report.results import real_ace as report
from vlact.tools import dag


# Classes and names
@pytest.mark.parametrize("name, classes, novel", [("jhmdb", 21, 7), ("ucf101", 15, 5)])
def test_every_class_is_novel_once_a_shuffle_and_no_test_word_was_trained(name, classes, novel):
    actions, trees = list(real.ACTIONS[name].values()), Trees.load(name)
    assert len(actions) == classes and [phrase(*a) for a in actions] == list(real.ACTIONS[name])
    found = real.partitions(actions, 4)
    assert len(found) == 12 and len(set(found)) == 12
    for shuffle in (found[i : i + 3] for i in range(0, 12, 3)):
        assert sorted(c for part in shuffle for c in part) == list(range(classes))
    assert not trees.crossings()
    for part in found:
        assert len(part) == novel
        task = real.task_of(name, trees, part)
        assert not task.shared_verbs and len(task.srt) == trees.m == 5
        trained = {w for v, _ in task.base for k in trees.words[v].values() for w in k}
        asked = {w for v, _ in task.novel for k in trees.words[v].values() for w in k}
        assert not trained & asked and not trained & {v for v, _ in task.novel}
        # every name is asked for once
        assert all(len({run[i] for run in task.srt}) == 5 for i in range(novel))


def test_the_guard_names_a_word_on_both_sides():
    words = {
        v: {v: [f"{v} it", "do"], f"{v} it": [v + "1", v + "2"], "do": [v + "3", v + "4"]}
        for v in "xy"
    }
    with pytest.raises(ValueError, match=r"'do' stands under \['x'\].*\['y'\], which is tested"):
        real.guard(Trees("t", words), {"x"}, {"y"})
    with pytest.raises(ValueError, match="base and novel verbs"):
        real.guard(Trees("t", {"x": words["x"]}), {"x"}, {"x"})


def test_validation_takes_whole_films_of_every_class():
    rows = [("a", f"f{i // 4}") for i in range(40)] + [("b", f"g{i // 2}") for i in range(20)]
    table = pd.DataFrame(rows, columns=["label", "group"], index=range(100, 160))
    held = real.validation(table, 0)
    share = pd.Series(held, table.index).groupby(table["label"]).mean()
    assert share.between(0.15, 0.3).all()
    assert (pd.Series(held, table.index).groupby(table["group"]).nunique() == 1).all()
    assert (held == real.validation(table, 0)).all() and (held != real.validation(table, 1)).any()


# Models that saw no clip
def test_conse_stands_among_the_names_of_the_likely_classes():
    names = normalize(torch.eye(12), dim=-1)
    shown = torch.zeros(2, 12)
    shown[0, 3] = 1.0
    shown[1, [4, 5]] = torch.tensor([0.75, 0.25])
    found = zero_shot.conse(shown, names)
    assert torch.allclose(found[0], names[3])
    assert torch.allclose(found[1, 4] / found[1, 5], torch.tensor(3.0))
    # the eleventh class of even odds is not looked at
    assert (zero_shot.conse(torch.full((1, 12), 1 / 12), names) > 0).sum() == zero_shot.TOP


def test_scores_of_two_models_count_alike_whatever_their_scale():
    a, b = np.array([[0.0, 1.0, 2.0]]), np.array([[500.0, 100.0, 0.0]])
    assert zero_shot.both(a, a * 1000).argmax() == 2
    expected = zero_shot.both(a, b / 1000)
    assert np.allclose(zero_shot.both(a, b), expected, atol=1e-4)


def captioned(count, seed, mix):
    """Images and captions that share a hidden cause: (N, 12), (N, 2, 10), seen through `mix`."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(count, 6))
    images = cause @ mix[0] + 0.05 * rng.normal(size=(count, 12))
    texts = [cause @ mix[1] + 0.05 * rng.normal(size=(count, 10)) for _ in range(2)]
    return tuple(torch.tensor(x).float() for x in (images, np.stack(texts, 1)))


def test_alignment_finds_what_images_and_captions_share_and_the_control_does_not():
    rng = np.random.default_rng(7)
    mix = rng.normal(size=(6, 12)), rng.normal(size=(6, 10))
    train, dev, test = (captioned(n, seed, mix) for n, seed in ((400, 0), (60, 1), (60, 2)))
    encoder, looks = zero_shot.align(*train, dev, 1e-2, 20, 0)
    found = zero_shot.retrieve(encoder, *test)
    assert found.text_of_image > 0.5 and found.image_of_text > 0.5
    kept = max(row["dev_r1"] for row in looks)
    assert zero_shot.retrieve(encoder, *dev).mean == pytest.approx(kept)
    again, _ = zero_shot.align(*train, dev, 1e-2, 20, 0)
    assert torch.equal(again.text_projection.weight, encoder.text_projection.weight)
    control, _ = zero_shot.align(*train, dev, 1e-2, 20, 0, shuffled=True)
    assert zero_shot.retrieve(control, *test).mean < 0.1


def test_retrieval_by_hand():
    encoder = AlignedEncoder(AlignedConfig(2, 2, 2))
    for head in (encoder.video_projection, encoder.text_projection):
        torch.nn.init.eye_(head.weight)
        torch.nn.init.zeros_(head.bias)
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    captions = torch.tensor([[[1.0, 0.1], [0.1, 1.0]], [[0.0, 1.0], [0.2, 1.0]]])
    found = zero_shot.retrieve(encoder, images, captions)
    assert (found.text_of_image, found.image_of_text) == (1.0, 0.75)  # one caption fits the other


def test_an_aligned_encoder_is_saved_and_loaded_and_standardises(tmp_path):
    torch.manual_seed(0)
    encoder, x = AlignedEncoder(AlignedConfig(7, 5, 4)), torch.randn(50, 7) * 3 + 2
    encoder.standardise(x)
    assert encoder.frames(x).mean(0).abs().max() < 1e-5
    encoder.save(tmp_path / "e.safetensors")
    again = AlignedEncoder.load(tmp_path / "e.safetensors")
    seen = again.embed_video(again.last(x[:, None], 0))
    assert torch.equal(seen, encoder.embed_video(encoder.last(x[:, None], 0)))
    assert torch.allclose(seen.norm(dim=-1), torch.ones(50))


# Trials
@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Clips of JHMDB's classes whose features hold the class's words, and text made by hashing."""
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    trees, labels = Trees.load("jhmdb"), list(real.ACTIONS["jhmdb"])
    # a word means its tree's verb, more or less
    means = {v: rng.normal(size=384) for v in trees.words}
    roots = {w: v for v, tree in trees.words.items() for k, ws in tree.items() for w in (k, *ws)}
    objects = {
        o: 0.5 * rng.normal(size=384) for o in {a[1] for a in real.ACTIONS["jhmdb"].values()}
    }
    words = {}
    for word, verb in roots.items():
        for obj, extra in objects.items():
            x = means[verb] + extra * bool(obj) + 0.3 * rng.normal(size=384)
            words[phrase(word, obj)] = torch.tensor(x / np.linalg.norm(x)).float()
    save_file(words, folder / "words.safetensors")
    rows, frames = [], []
    lift = rng.normal(size=(384, 40)) / 384**0.5
    for label in labels:
        for i in range(12):
            x = words[label].numpy() * 8 @ lift * 384**0.25
            frames.append(x + 0.3 * rng.normal(size=(4, 40)))
            split = "test" if i >= 8 else "train"
            rows.append((label, f"{label}{i // 2}", *[split] * 3))
    table = pd.DataFrame(rows, columns=["label", "group", "split1", "split2", "split3"])
    table.to_parquet(folder / "clips.parquet")
    tokens = torch.tensor(np.stack(frames)).float()
    there = torch.stack([words[row[0]] for row in rows])
    kept = {"frames": tokens, "mean": tokens.mean(1, keepdim=True), "words": there}
    save_file({k: v.contiguous() for k, v in kept.items()}, folder / "kept.safetensors")
    torch.manual_seed(0)
    encoder = AlignedEncoder(AlignedConfig(40))
    encoder.standardise(tokens.flatten(0, 1))
    encoder.save(folder / "aligned.safetensors")
    return folder, trees


def files_of(folder, encoder=True):
    names = ("clips.parquet", "kept.safetensors", "words.safetensors")
    start = str(folder / "aligned.safetensors") if encoder else ""
    return real.Files(*(str(folder / n) for n in names), start)


def run(world, out, encoder=True, epochs=(1, 3)):
    folder, trees = world
    novel = real.partitions(list(real.JHMDB.values()), 1)[0]
    ace = asdict(params.load("real").ace) | {"batch_size": 16}
    trial = real.Trial("jhmdb", 0, novel, 1, 0)
    real.trial_job(trial, files_of(folder, encoder), trees, ace, [0.03], list(epochs), str(out))
    return pd.read_parquet(out.with_suffix(".scores.parquet")), pd.read_parquet(out)


@pytest.fixture(scope="module")
def scored(world, tmp_path_factory):
    return run(world, tmp_path_factory.mktemp("trial") / "a.parquet")


def test_a_trial_has_every_method_and_learns(scored, world):
    scores, predictions = scored
    plain = {m.name for m in real.METHODS}
    back = {f"{m.name}, halfway" for m in real.METHODS if True in m.wise_ft}
    assert set(scores["model"]) == plain | back
    best = scores.groupby("model")["seen_acc"].max()
    assert best[["ProcVLR", "ACE", "ViFi-like", "ridge to words"]].min() > 0.8
    # what stands among the words is named rightly, and an encoder that knows nothing is not
    unseen = scores[~scores["leaf"]].set_index("model")["unseen_acc"]
    assert unseen["zero-shot, ConSE"] == 1.0 and unseen["zero-shot, alignment"] < 0.6
    of = predictions.query("model == 'ACE' and epoch == 3")
    clips = of.groupby(["split", "mode", "run"])["clip"].nunique()
    assert clips["test", "novel"].tolist() == [7 * 4] * 5 and clips["test", "base", 0] == 14 * 4
    table = pd.read_parquet(world[0] / "clips.parquet")
    groups = {s: set(table["group"][of.query("split == @s")["clip"]]) for s in ("val", "test")}
    assert not groups["val"] & groups["test"]
    assert clips["val", "base", 0] == 14 * 2  # a fifth of eight, in whole films of two


def test_a_trial_is_the_same_twice_and_done_once(scored, world, tmp_path):
    scores, predictions = run(world, tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(scores, scored[0])
    pd.testing.assert_frame_equal(predictions, scored[1])
    before = (tmp_path / "b.parquet").stat().st_mtime_ns
    run(world, tmp_path / "b.parquet", epochs=(1,))
    assert (tmp_path / "b.parquet").stat().st_mtime_ns == before


def test_without_an_aligned_encoder_only_methods_that_train_are_left(world, tmp_path):
    scores, _ = run(world, tmp_path / "c.parquet", encoder=False, epochs=(1,))
    names = {m.name for m in real.METHODS if m.kind not in real.ALIGNED}
    assert set(scores["model"]) == names  # there is nothing to go back to


def test_the_choice_looks_at_base_validation_alone(scored):
    scores, _ = scored
    worse = scores.assign(unseen_acc=0.0, srt_acc_mean=0.0, seen_acc=0.0)
    pd.testing.assert_frame_equal(choose(scores), choose(worse))
    found = report.chosen(scores)
    assert found.groupby(["method"]).size().max() == 1
    assert {"ProcVLR", "ProcVLR + test leaf", "ridge to words + test leaf"} <= set(found["method"])
    assert "ACE" in set(found["method"]) and "ACE + test leaf" not in set(found["method"])


def test_wise_ft_lies_between_start_and_end(world):
    """Halfway variants are copies: training goes on from the tuned weights."""
    folder, trees = world
    method = next(m for m in real.METHODS if m.name == "ProcVLR")
    task = real.task_of("jhmdb", trees, real.partitions(list(real.JHMDB.values()), 1)[0])
    start = AlignedEncoder.load(folder / "aligned.safetensors")
    weight = start.video_projection.weight.detach().clone()
    model = real.build(method, start, task, {}, 0.02, 0)
    with torch.no_grad():
        start.video_projection.weight.add_(2.0)
    back = real.wise_ft(model, [weight, start.video_projection.bias.detach().clone()])
    assert torch.allclose(back.encoder.video_projection.weight, weight + 1)
    assert torch.allclose(model.encoder.video_projection.weight, weight + 2)


# The profile
def test_real_has_stages_of_its_own_and_no_other_profile_has_them():
    mine = {dag.short(s) for s in dag.graph("real")}
    assert {"code", "real_sets", "real_video", "real_ace", "real_index"} <= mine
    assert not mine & {"worlds", "stadium", "index"}
    for profile in ("smoke", "mini", "study", "paper"):
        others = {dag.short(s) for s in dag.graph(profile)}
        assert "worlds" in others and not {s for s in others if s.startswith("real_")}
    after = {dag.short(s): set(map(dag.short, b)) for s, b in dag.graph("real").items()}
    assert after["real_ace"] == {"code", "real_video"} and "real_sets" in after["real_video"]


def test_real_is_the_protocol_in_writing():
    p = params.load("real").real
    text = (ROOT / "notebooks" / "51_real_ace.ipynb").read_text()
    for value in (*p.lrs, *(f"{e}" for e in p.epochs[:-1])):
        assert f"{value}" in text
    assert f"batch {p.batch_size}" in text and f"{p.seeds} seeds" in text
    assert {2: "six", 3: "nine", 4: "twelve"}[p.shuffles] in text
    plain = yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"]["real"]["real"]
    assert not plain["skip"]


# Numbers
def named_table():
    rows = [
        {"model": m, "seed": s, "leaf": False, "run": r, "clip": c, "label": c % 2, "predicted": 0}
        for m in ("a", "b")
        for s in ((0, 1) if m == "a" else (0,))
        for r in range(2)
        for c in range(10)
    ]
    table = pd.DataFrame(rows)
    table.loc[(table["model"] == "b") & (table["run"] == 0), "predicted"] = table["label"]
    return table


def test_zero_shot_table_by_hand():
    films = pd.Series([f"f{c // 2}" for c in range(10)])
    table = report.zero_shot(named_table(), films).set_index("model")
    assert table.loc["chance", "acc"] == 50.0
    assert table.loc["a", ["acc", "SRT acc"]].tolist() == [50.0, 50.0]
    assert table.loc["b", ["acc", "SRT acc"]].tolist() == [100.0, 75.0]
    # every film holds one clip of each class: there is nothing to resample
    assert table.loc["a", ["acc low", "acc high"]].tolist() == [50.0, 50.0]
    assert table.loc["a", "acc std over seeds"] == 0 and np.isnan(table.loc["b"].iloc[-1])
    each = report.by_class(named_table(), ["x", "y"]).set_index("class")
    assert each.loc["y", ["a", "b"]].tolist() == [0.0, 100.0]


def test_whole_films_are_resampled():
    right = np.repeat([1.0, 0.0], 50)
    wide = report.over_films(right, np.repeat(["a", "b"], 50))
    narrow = report.over_films(right, np.arange(100))
    assert wide == (0.0, 100.0) and 35 < narrow[0] < 45 < 55 < narrow[1] < 65


def test_differences_are_paired_over_partitions():
    rows = [
        {"method": m, "partition": k, "seed": s, "lr": 0.1, "epoch": 2}
        | dict.fromkeys(report.SCORES, (0.1 * k + (0.05 + 0.01 * k) * (m == "A") + 0.001 * s))
        for m in ("A", "B")
        for k in range(4)
        for s in range(2)
    ]
    found = pd.DataFrame(rows)
    row = report.paired(found, [("A", "B"), ("A", "not run")]).set_index("metric").loc["SRT acc"]
    assert row["mean"] == pytest.approx(6.5) and row["partitions won"] == "4/4"
    assert 0 < row["low"] < 6.5 < row["high"] < 9
    table = report.methods(found, 7).set_index("method")
    assert table.loc["chance", "SRT acc"] == "14.3"
    assert table.loc["B", "SRT acc"].startswith("15.1 [")
    assert table.loc["B", "SRT acc, std over seeds"] == pytest.approx(0.1 / 2**0.5)


def test_confused_classes_go_by_the_labels_of_their_partition():
    classes = pd.DataFrame(
        [(0, 0, "walk"), (0, 1, "run"), (1, 0, "sit"), (1, 1, "walk")],
        columns=["partition", "number", "label"],
    )
    rows = [(0, 0, 1), (0, 0, 0), (0, 1, 1), (1, 1, 0), (1, 1, 0), (1, 0, 0)]
    table = pd.DataFrame(rows, columns=["partition", "label", "predicted"]).assign(run=0)
    found = report.confused(table, classes)
    assert found[["label", "taken for", "clips"]].to_numpy().tolist() == [
        ["walk", "sit", 2],
        ["walk", "run", 1],
    ]
    assert found["percent"].tolist() == [50.0, 25.0]


def test_claims_are_differences_over_partitions_that_the_ledger_judges(tmp_path):
    better = {"ACE": 0.3, "w/o L_rand": 0.1}
    rows = [
        {"dataset": "jhmdb", "method": m, "partition": k, "seed": s}
        | dict.fromkeys(("seen_acc", "hm_acc", "srt_acc_mean"), better.get(m, 0.2) + 0.001 * k * i)
        | {"srt_acc_std": 0.05 - 0.03 * (m == "ACE") + 0.001 * k * i}
        for i, m in enumerate(("ACE", *report.RIVALS, *(f"w/o {x}" for x in real.WITHOUT)))
        for k in range(6)
        for s in range(2)
    ]
    found = report.claims(pd.DataFrame(rows))
    assert found.groupby(["id", "part"]).size().unique().tolist() == [6]
    first = found[found["partition"] == 0].set_index(["id", "part"])["value"]
    assert first["A10", "jhmdb"] == pytest.approx(20) and first["A9", "jhmdb"] == pytest.approx(-3)
    assert first["A5", "jhmdb ViFi-like"] == pytest.approx(15)
    (tmp_path / "real_ace" / "scores").mkdir(parents=True)
    found.to_csv(tmp_path / "real_ace" / "scores" / "claims.csv", index=False)
    judged = verdicts.judge(claims.measure_real(tmp_path), whole=False)[0]["verdict"]
    assert judged[["A4", "A6", "A10"]].eq("holds").all()
    assert judged["A9"] == "does not hold"
