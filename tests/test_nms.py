"""NMS and voting against the loops that detectors run, in picks, order and scores."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from reference import nms_slow

from vlact import ROOT
from vlact.models.nms import soft_nms, suppress, vote


def clustered(n, seed, actions=15, seconds=200):
    """Candidates round a few actions, as a detector emits them."""
    rng = np.random.default_rng(seed)
    centre, length, which = (
        rng.uniform(5, seconds - 5, actions),
        rng.uniform(2, 10, actions),
        rng.integers(0, actions, n),
    )
    middle, long = (
        centre[which] + rng.normal(0, 0.25, n) * length[which],
        length[which] * np.exp(rng.normal(0, 0.3, n)),
    )
    return np.stack([middle - long / 2, middle + long / 2], 1), rng.beta(1, 3, n).astype(np.float32)


def thin(n, seed):
    """Candidates that hardly overlap."""
    rng = np.random.default_rng(seed)
    middle, long = rng.uniform(0, 3 * n, n), rng.uniform(1, 8, n)
    return np.stack([middle - long / 2, middle + long / 2], 1), rng.uniform(0.05, 1, n).astype(
        np.float32
    )


@pytest.mark.parametrize("method", nms_slow.METHODS)
@pytest.mark.parametrize("make", [clustered, thin])
@pytest.mark.parametrize("n", [1, 2, 37, 300])
def test_picks_order_and_scores_are_those_of_the_loop(method, make, n):
    segments, scores = make(n, seed=n)
    for options in ({}, {"sigma": 0.9, "iou_threshold": 0.5, "min_score": 0.05}):
        picks, lowered = soft_nms(segments, scores, method=method, **options)
        wanted, fell = nms_slow.soft_nms(segments, scores, method, **options)
        assert picks.tolist() == wanted and np.allclose(lowered, fell, atol=1e-6)


@pytest.mark.parametrize("method", nms_slow.METHODS)
@pytest.mark.parametrize("make", [clustered, thin])
def test_thousands_of_random_lists_are_the_loop_s_to_the_last_bit_ties_included(method, make):
    rng = np.random.default_rng(len(method))
    for seed in range(480):
        n = int(rng.integers(1, 90))
        segments, scores = make(n, seed) if make is thin else make(n, seed, actions=4, seconds=40)
        if seed % 3 == 0:  # equal scores, twice the same segment, whole seconds
            scores, segments = scores.round(1), segments.round()
            segments[:, 1] = np.maximum(segments[:, 1], segments[:, 0])
        if seed % 4 == 0:
            segments -= 20  # starts below 0
        numbers = {
            "sigma": float(rng.choice([0.01, 0.4, 0.5, 0.9])),
            "iou_threshold": float(rng.choice([0.1, 0.5, 1.0])),
            "min_score": float(rng.choice([0.0, 0.001, 0.3])),
        }
        picks, lowered = soft_nms(segments, scores, method=method, **numbers)
        wanted, fell = nms_slow.in_order(segments, scores, method, **numbers)
        assert picks.tolist() == wanted and np.array_equal(lowered, np.array(fell, np.float32))
        most = int(rng.integers(1, 12))  # those that tie with the last follow
        few, low = soft_nms(segments, scores, method=method, max_seg_num=most, **numbers)
        until = sum(x >= fell[min(most, len(fell)) - 1] for x in fell)
        assert few.tolist() == wanted[:until] and np.array_equal(low, lowered[:until])


@pytest.mark.parametrize("group", [[7, 7, -3], [2**40, 2**40, 0], [0.5, 0.5, 0.25]])
def test_groups_may_be_any_numbers(group):
    segments = np.array([[-1.0, 2], [-2, 2], [-9, 0]])
    picks, _ = soft_nms(segments, np.array([0.5, 0.6, 0.7]), np.array(group))
    assert picks.tolist() == [2, 1, 0]


def test_many_groups_at_once_are_each_on_their_own():
    segments, scores = clustered(700, seed=3)
    group = np.random.default_rng(0).integers(-3, 9, 700) * 10
    picks, lowered = soft_nms(segments, scores, group)
    wanted = []
    for g in np.unique(group):
        rows = np.flatnonzero(group == g)
        wanted += rows[nms_slow.soft_nms(segments[rows], scores[rows])[0]].tolist()
    assert picks.tolist() == wanted and len(lowered) == len(picks)


def test_the_best_of_a_group_is_picked_whatever_its_score():
    segments = np.array([[0, 1], [0, 1], [5, 6]])
    picks, lowered = soft_nms(segments, np.array([1e-5, 2e-5, 0.5]), np.array([0, 0, 1]))
    assert picks.tolist() == [1, 2] and lowered.tolist() == pytest.approx([2e-5, 0.5])


def test_nothing_in_nothing_out_and_equal_scores_as_listed():
    assert [len(x) for x in soft_nms(np.zeros((0, 2)), np.zeros(0))] == [0, 0]
    segments = np.array([[0, 1], [10, 11], [20, 21]])
    assert soft_nms(segments, np.array([0.5, 0.5, 0.5]))[0].tolist() == [0, 1, 2]
    assert soft_nms(
        np.repeat(segments[:1], 3, 0), np.array([0.5] * 3), method="hard", min_score=0.0
    )[0].tolist() == [0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros((2, 3)), np.zeros(2)), r"expected segments \(N, 2\)"),
        ((np.zeros((2, 2)), np.zeros(2), np.zeros(3)), r"got \(2, 2\), \(2,\), \(3,\)"),
        ((np.array([[0, np.nan]]), np.ones(1)), "must be finite"),
        ((np.zeros((1, 2)), np.array([np.inf])), "must be finite"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        soft_nms(*arguments)
    with pytest.raises(ValueError, match="method must be"):
        soft_nms(np.zeros((1, 2)), np.ones(1), method="mean")


@pytest.mark.parametrize("weight_by_iou", [True, False])
@pytest.mark.parametrize("threshold", [0.3, 0.7, 1.0])
def test_voting_equals_the_dense_matrix(weight_by_iou, threshold):
    segments, scores = clustered(400, seed=8)
    picks = segments[soft_nms(segments, scores)[0]]
    assert np.allclose(
        vote(picks, segments, scores, threshold, weight_by_iou),
        nms_slow.vote(picks, segments, scores, threshold, weight_by_iou),
    )


def test_a_pick_without_voters_stays():
    assert vote(np.array([[3.0, 3.0]]), np.array([[0.0, 9.0]]), np.ones(1), 0.5).tolist() == [
        [3.0, 3.0]
    ]


def test_suppress_keeps_the_best_of_each_video():
    segments, scores = clustered(300, seed=5)
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {"video": rng.choice(["b", "a"], 300), "start_s": segments[:, 0], "end_s": segments[:, 1]}
    )
    table = table.assign(label=rng.choice(["x", "y"], 300), score=scores)
    found = suppress(table, max_seg_num=10)
    assert (
        found.groupby("video").size().to_dict() == {"a": 10, "b": 10}
        and found["video"].iloc[0] == table["video"].iloc[0]
    )
    one = table[(table["video"] == "a") & (table["label"] == "x")]
    best = nms_slow.soft_nms(one[["start_s", "end_s"]].to_numpy(), one["score"].to_numpy())
    mine = suppress(table, max_seg_num=999).query("video == 'a' and label == 'x'")
    assert np.allclose(mine["start_s"], one["start_s"].iloc[best[0]]) and np.allclose(
        mine["score"], best[1], atol=1e-6
    )
    moved = suppress(table, multiclass=False, voting_threshold=0.7)
    still = suppress(table, multiclass=False)
    assert (moved["score"] == still["score"]).all() and not np.allclose(
        moved["start_s"], still["start_s"]
    )
    own = table[table["video"] == "a"]
    wanted = vote(
        still.query("video == 'a'")[["start_s", "end_s"]].to_numpy(),
        own[["start_s", "end_s"]].to_numpy(),
        own["score"].to_numpy(),
        0.7,
    )
    assert np.allclose(moved.query("video == 'a'")[["start_s", "end_s"]], wanted)
    with pytest.raises(ValueError, match="voting needs multiclass=False"):
        suppress(table, voting_threshold=0.7)


@pytest.mark.parametrize(
    "make, n", [(clustered, 200), (clustered, 2000), (clustered, 5000), (thin, 2000)]
)
def test_the_picks_of_compiled_loops(tmp_path, make, n):
    """Gaussian, hard, and twenty classes: the picks of C++."""
    compiled = nms_slow.compiled(tmp_path)
    if compiled is None:
        pytest.skip("no g++ to compile the loop with")
    segments, scores = make(n, seed=n)
    group = np.random.default_rng(0).integers(0, 20, n)
    each = [(rows, *compiled(segments[rows], scores[rows])) for rows in
            (np.flatnonzero(group == k) for k in range(20))]  # fmt: skip
    for ours, wanted, fell in (
        (soft_nms(segments, scores), *compiled(segments, scores)),
        (
            soft_nms(segments, scores, method="hard", iou_threshold=0.5),
            *compiled(segments, scores, "hard", iou_threshold=0.5),
        ),
        (
            soft_nms(segments, scores, group),
            np.concatenate([rows[p] for rows, p, _ in each]),
            np.concatenate([f for _, _, f in each]),
        ),
    ):
        picks, lowered = ours
        assert sorted(picks.tolist()) == sorted(int(i) for i in wanted)
        assert np.allclose(np.sort(lowered), np.sort(fell), atol=1e-6)
        if n < 5000:  # beyond, neighbours whose scores differ in the last bit may change places
            assert picks.tolist() == [int(i) for i in wanted]


@pytest.mark.parametrize("method", nms_slow.METHODS)
@pytest.mark.parametrize("multiclass", [True, False])
def test_stopping_early_gives_the_picks_of_going_on_ties_included(method, multiclass):
    rng = np.random.default_rng(2)
    for seed in range(20):
        segments, scores = clustered(200, seed=seed)
        table = pd.DataFrame({"video": rng.integers(0, 2, 200), "start_s": segments[:, 0]})
        label = rng.integers(0, 3, 200)
        table = table.assign(end_s=segments[:, 1], label=label, score=scores.round(1))
        whole = suppress(table, multiclass=multiclass, max_seg_num=10**6, method=method)
        for most in (1, 3, 10):
            wanted = whole.groupby("video", sort=False).head(most).reset_index(drop=True)
            found = suppress(table, multiclass=multiclass, max_seg_num=most, method=method)
            pd.testing.assert_frame_equal(found, wanted)
    with pytest.raises(ValueError, match="max_seg_num must be at least 1; got 0"):
        suppress(table, max_seg_num=0)


def test_compiled_code_has_a_place_where_no_cache_can_be_written(tmp_path):
    package = tmp_path / "vlact"
    shutil.copytree(ROOT / "vlact", package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (package, *(p for p in package.rglob("*") if p.is_dir())):
        (folder / "__pycache__").write_text("")  # nobody can write into a file, not even root
    (tmp_path / "home").write_text("")
    code = (
        "import numpy as np, vlact; from vlact.models.nms import soft_nms; print(vlact.__file__); "
        "print(soft_nms(np.array([[0, 1.0], [0, 0.9], [5, 6.0]]), np.array([9, 8, 7]))[0].tolist())"
    )
    left_out = ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "PYTHONPATH")
    (tmp_path / "temporary").mkdir()
    given = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}
    given |= {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={k: v for k, v in os.environ.items() if k not in left_out} | given,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(package / "__init__.py"), "[0, 2, 1]"]
    assert "cannot be written: compiled code is kept in" in done.stderr
    (kept,) = (tmp_path / "temporary").glob("vlact-numba-*")
    assert kept.stat().st_mode & 0o077 == 0 and list(kept.rglob("*.nbi"))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sigma": 0.0}, "sigma must be above 0"),
        ({"iou_threshold": 1.5}, r"iou_threshold in \(0, 1\]"),
    ],
)
def test_parameters_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        soft_nms(np.array([[0.0, 1.0]]), np.ones(1), **options)
