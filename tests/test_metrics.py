"""Metrics on tables small enough to count by hand."""

import numpy as np
import pandas as pd
import pytest

from vlact.metrics.classification import (
    harmonic_mean,
    macro_f1,
    paired_interval,
    random_guess,
    srt,
    top1,
)
from vlact.metrics.concepts import concept_space
from vlact.metrics.selection import best_cells, choose, score_grid
from vlact.metrics.synonyms import SynonymRobustnessTest


def test_accuracy_and_f1_by_hand():
    labels, predicted = [0, 0, 0, 1, 2], [0, 0, 1, 1, 1]
    assert top1(labels, predicted) == 3 / 5
    # class 0: tp 2, fp 0, fn 1 -> 4/5; class 1: tp 1, fp 2, fn 0 -> 1/2; class 2: 0
    assert macro_f1(labels, predicted) == pytest.approx((0.8 + 0.5 + 0) / 3)
    assert macro_f1([0, 1], [0, 1]) == 1 and macro_f1([0, 1], [1, 0]) == 0


def test_f1_agrees_with_scikit_learn():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    assert macro_f1(labels, predicted) == pytest.approx(
        f1_score(labels, predicted, average="macro")
    )


@pytest.mark.parametrize("labels, predicted", [([], []), ([1], [1, 2])])
def test_empty_or_uneven_input_is_refused(labels, predicted):
    with pytest.raises(ValueError, match="same non-zero length"):
        top1(labels, predicted)


def test_harmonic_mean():
    assert harmonic_mean(0.9, 0.608) == pytest.approx(0.7257, abs=1e-4)  # ACE on ATA prints 72.6
    assert harmonic_mean(0, 0) == 0


def test_random_guess_equals_a_simulation():
    labels = np.repeat([0, 1, 2], [6000, 3000, 1000])
    expected = random_guess(labels, 3)
    rng = np.random.default_rng(0)
    runs = [rng.integers(0, 3, len(labels)) for _ in range(20)]
    assert expected["acc"] == pytest.approx(1 / 3)
    assert np.mean([macro_f1(labels, r) for r in runs]) == pytest.approx(expected["f1"], abs=3e-3)
    assert random_guess([0, 1, 2, 3, 4], 5)["f1"] == pytest.approx(0.2)


def test_srt_is_mean_and_std_over_runs():
    table = pd.DataFrame({"run": [0, 0, 1, 1], "label": [0, 1, 0, 1], "predicted": [0, 1, 0, 0]})
    found = srt(table)
    assert found["srt_acc_mean"] == 0.75 and found["srt_acc_std"] == 0.25
    with pytest.raises(ValueError, match="at least two runs"):
        srt(table[table["run"] == 0])
    with pytest.raises(ValueError, match="same clips"):
        srt(table.iloc[:3])


def test_paired_interval_against_scipy():
    from scipy import stats

    a, b = np.array([3.0, 4, 5, 7]), np.array([1.0, 4, 2, 4])
    found, wanted = paired_interval(a, b), stats.ttest_rel(a, b)
    assert found["p"] == pytest.approx(wanted.pvalue) and found["wins"] == 3 and found["n"] == 4
    assert (found["low"], found["high"]) == pytest.approx(tuple(wanted.confidence_interval(0.95)))
    assert paired_interval([1, 2], [0, 1])["p"] == 0.0
    with pytest.raises(ValueError, match="same length"):
        paired_interval([1], [1])


def predictions(right_by_cell):
    """A prediction table in which the given number of 4 clips is right on validation."""
    rows = []
    for (lr, epoch), right in right_by_cell.items():
        for seed in (0, 1):
            for split, mode, runs in (
                ("val", "base", 1),
                ("test", "base", 1),
                ("test", "novel", 2),
            ):
                for run in range(runs):
                    for clip in range(4):
                        hit = clip < (right if split == "val" else 4 - right)
                        rows.append(
                            {
                                "model": "A",
                                "seed": seed,
                                "lr": lr,
                                "epoch": epoch,
                                "split": split,
                                "mode": mode,
                                "run": run,
                                "clip": clip,
                                "label": clip % 2,
                                "predicted": clip % 2 if hit else 1 - clip % 2,
                            }
                        )
    return pd.DataFrame(rows)


def test_the_choice_looks_at_validation_only_and_breaks_ties_to_the_short_schedule():
    table = predictions({(0.1, 5): 2, (0.1, 10): 3, (0.3, 5): 3})  # test scores run the other way
    assert choose(score_grid(table))[["lr", "epoch"]].values.tolist() == [[0.3, 5]]
    other = table.copy()
    test = other["split"] == "test"
    other.loc[test, "predicted"] = other.loc[test, "label"]
    assert choose(score_grid(other)).equals(choose(score_grid(table)))


def test_each_dataset_and_inference_variant_has_its_own_choice():
    one = predictions({(0.1, 5): 2, (0.3, 5): 3}).assign(
        model="ProcVLR", dataset="ata", leaf=False, test="shipped"
    )
    two = predictions({(0.1, 5): 3, (0.3, 5): 2}).assign(
        model="ProcVLR", dataset="ata", leaf=True, test="shipped"
    )
    grid = score_grid(pd.concat([one, two]))
    assert choose(grid).set_index("leaf")["lr"].to_dict() == {False: 0.3, True: 0.1}
    best = best_cells(grid)
    assert sorted(best["method"].unique()) == ["ProcVLR", "ProcVLR + test leaf"] and len(best) == 4
    assert len(best_cells(grid, every=True)) == 8


def test_what_has_no_clip_is_nan():
    table = predictions({(0.1, 5): 1})
    only = table[(table["split"] == "test") & (table["mode"] == "base")]
    grid = score_grid(only)
    assert (
        grid[["val_acc", "unseen_acc", "hm_acc"]].isna().all(axis=None)
        and "srt_acc_mean" not in grid
    )
    assert grid["seen_acc"].notna().all() and len(
        score_grid(table[table["mode"] == "novel"])
    ) == len(score_grid(table))


def test_score_grid_has_one_row_a_cell_and_seed():
    grid = score_grid(predictions({(0.1, 5): 1}))
    assert len(grid) == 2
    row = grid.iloc[0]
    assert (
        row["val_acc"] == 0.25
        and row["seen_acc"] == row["unseen_acc"] == row["srt_acc_mean"] == 0.75
    )
    assert row["hm_acc"] == pytest.approx(0.75) and row["srt_acc_std"] == 0


def test_concept_space_by_hand():
    nodes = pd.DataFrame(
        {
            "concept": ["a", "a", "a", "b", "b"],
            "order": [0, 1, 2, 0, 1],
            "e0": [1, 1, 0.0, 0, 0],
            "e1": [0, 0, 1.0, 1, 1],
        }
    )
    found = concept_space(nodes)  # centres (1, 0) and (0, 1); the second-order node of a lies on b
    assert (
        found["nearest"] == 0.8
        and found["between"] == 1.0
        and found["within"] == pytest.approx(0.2)
    )
    with pytest.raises(ValueError, match="two concepts"):
        concept_space(nodes[nodes["concept"] == "a"])


# The Synonym Robustness Test for strangers
def stranger(texts):
    """A text encoder that knows nothing but the first letter."""
    return (
        np.array([[float(t[0] == c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts]) + 1e-3
    )


def test_srt_equals_a_loop_over_runs_and_clips():
    test = SynonymRobustnessTest([[["ask", "azure"], ["bid"]], [["crow", "bell"], ["bark"]]])
    rng = np.random.default_rng(0)
    video, labels = rng.random((20, 2, 26)), rng.integers(0, 2, 20)
    got = test.score(stranger, video, labels)
    hits = []
    for run in test.names:
        right = 0
        for clip, label in zip(video, labels, strict=True):
            scores = []
            for strings in run:
                cosines = [
                    np.dot(view, e) / np.linalg.norm(view) / np.linalg.norm(e)
                    for e in stranger(strings)
                    for view in clip
                ]
                scores.append(np.mean(cosines))
            right += int(np.argmax(scores) == label)
        hits.append(right / len(labels))
    assert got["srt_acc_mean"] == pytest.approx(np.mean(hits)) and got[
        "srt_acc_std"
    ] == pytest.approx(np.std(hits))
    assert got["unseen_acc"] == pytest.approx(hits[0]) and test.overlap == 0


def test_srt_of_the_published_names():
    test = SynonymRobustnessTest.of("ata", leaf=False)
    assert test.classes == ["drop item", "balance part", "pick up item", "spin block", "hammer pin"]
    assert len(test.names) == 10 and all(len(s) == 1 for run in test.names for s in run)
    with_leaf = SynonymRobustnessTest.of("gtea")
    assert all(len(s) == 9 for run in with_leaf.names for s in run) and 0 < with_leaf.overlap < 0.1


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v, y, t: (v[:, :5], y, stranger), "embed_texts must give"),
        (lambda v, y, t: (v, y[:3], stranger), "with N > 0 labels"),
        (lambda v, y, t: (v * np.nan, y, stranger), "video: expected finite"),
        (
            lambda v, y, t: (v, y + 9, stranger),
            "column label: expected class numbers 0..1; found 9",
        ),
    ],
)
def test_srt_names_what_does_not_fit(change, message):
    test = SynonymRobustnessTest([[["ask"], ["bid"]], [["crow"], ["bark"]]])
    video, labels, encode = change(np.ones((4, 26)), np.zeros(4, int), stranger)
    with pytest.raises(ValueError, match=message):
        test.score(encode, video, labels)


def test_srt_tables_and_names_are_checked():
    test = SynonymRobustnessTest([[["ask"], ["bid"]], [["crow"], ["bark"]]])
    table = pd.DataFrame({"run": [0, 0, 1, 1], "label": [0, 1, 0, 1], "predicted": [0, 1, 1, 1]})
    assert test.score_table(table)["srt_acc_mean"] == 0.75
    with pytest.raises(ValueError, match=r"missing columns \['label'\]"):
        test.score_table(table.drop(columns="label"))
    with pytest.raises(ValueError, match=r"expected runs 0..1; found \[0\]"):
        test.score_table(table[table["run"] == 0])
    for names in (
        [[["a"], ["b"]]],
        [[["a"]], [["a"], ["b"]]],
        [[["a"], []], [["a"], ["b"]]],
        [[["a"], [" "]], [["a"], ["b"]]],
    ):
        with pytest.raises(ValueError, match="names"):
            SynonymRobustnessTest(names)
