"""Metrics on tables small enough to count by hand."""

import numpy as np
import pandas as pd
import pytest

from vlact.metrics.classification import harmonic_mean, macro_f1, paired_interval, random_guess, srt, top1
from vlact.metrics.concepts import concept_space
from vlact.metrics.selection import choose, score_grid


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
    assert macro_f1(labels, predicted) == pytest.approx(f1_score(labels, predicted, average="macro"))


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
            for split, mode, runs in (("val", "base", 1), ("test", "base", 1), ("test", "novel", 2)):
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
    assert choose(table).loc["A", ["lr", "epoch"]].tolist() == [0.3, 5]
    other = table.copy()
    test = other["split"] == "test"
    other.loc[test, "predicted"] = other.loc[test, "label"]
    assert choose(other).equals(choose(table))


def test_score_grid_has_one_row_a_cell_and_seed():
    grid = score_grid(predictions({(0.1, 5): 1}))
    assert len(grid) == 2
    row = grid.iloc[0]
    assert row["val_acc"] == 0.25 and row["seen_acc"] == row["unseen_acc"] == row["srt_acc_mean"] == 0.75
    assert row["hm_acc"] == pytest.approx(0.75) and row["srt_acc_std"] == 0


def test_concept_space_by_hand():
    nodes = pd.DataFrame({"concept": ["a", "a", "a", "b", "b"], "order": [0, 1, 2, 0, 1], "e0": [1, 1, 0.0, 0, 0], "e1": [0, 0, 1.0, 1, 1]})
    found = concept_space(nodes)  # centres (1, 0) and (0, 1); the second-order node of a lies on b
    assert found["nearest"] == 0.8 and found["between"] == 1.0 and found["within"] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="two concepts"):
        concept_space(nodes[nodes["concept"] == "a"])
