"""Average precision of segments: both protocols against loops, real files with known scores, and
bad input.
"""

import json

import numpy as np
import pandas as pd
import pytest
from reference import localization_slow as slow
from reference.realdata import REALDATA, needs_realdata

from vlact.datasets import activitynet, epic, thumos14
from vlact.metrics.localization import ACTIVITYNET_TIOUS, THUMOS14_TIOUS, evaluate, match, summary
from vlact.tools import bench_metrics

GT = ["video", "start_s", "end_s", "label"]
PRED = [*GT, "score"]


def table(rows, columns=PRED):
    return pd.DataFrame(rows, columns=columns)


def world(seed, videos=4, classes=3, ties=False):
    """Random ground truth, predictions round it and ambiguous intervals."""
    rng = np.random.default_rng(seed)
    n, m = 24, 160
    start = rng.uniform(0, 50, n)
    gt = pd.DataFrame(
        {
            "video": rng.integers(0, videos, n).astype(str),
            "start_s": start,
            "end_s": start + rng.uniform(0.5, 12, n),
        }
    )
    gt["label"] = rng.integers(0, classes, n).astype(str)
    near = gt.iloc[rng.integers(0, n, m)].reset_index(drop=True)
    start, end = near["start_s"] + rng.normal(0, 2, m), near["end_s"] + rng.normal(0, 2, m)
    pred = near.assign(
        start_s=np.minimum(start, end),
        end_s=np.maximum(start, end) + 0.01,
        score=rng.uniform(size=m),
    )
    pred["label"] = np.where(
        rng.random(m) < 0.3, rng.integers(0, classes, m).astype(str), pred["label"]
    )
    if ties:
        pred["score"] = pred["score"].round(1)
    start = rng.uniform(0, 50, 6)
    vague = pd.DataFrame(
        {"video": rng.integers(0, videos, 6).astype(str), "start_s": start, "end_s": start + 4.0}
    )
    return gt, pred, vague


def rows_of(frame, label, columns):
    return list(frame[frame["label"] == label][columns].itertuples(index=False, name=None))


# The protocols
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("ties", [False, True])
def test_both_protocols_equal_the_loop_that_reads_like_them(seed, ties):
    gt, pred, vague = world(seed, ties=ties)
    tious = (0.1, 0.3, 0.5, 0.75)
    here = evaluate(gt, pred, tious=tious).set_index(["label", "tiou"])["ap"]
    there = evaluate(gt, pred, tious=tious, protocol="thumos14", ambiguous=vague).set_index(
        ["label", "tiou"]
    )["ap"]
    forgiven = list(vague.itertuples(index=False, name=None))
    for label in sorted(set(gt["label"])):
        mine, found = (
            rows_of(gt, label, GT[:3]),
            rows_of(pred, label, ["video", "start_s", "end_s", "score"]),
        )
        for tiou in tious:
            assert here[label, tiou] == pytest.approx(
                slow.activitynet_ap(mine, found, tiou), abs=1e-12
            )
            assert there[label, tiou] == pytest.approx(
                slow.thumos14_ap(mine, found, forgiven, tiou), abs=1e-12
            )


def test_first_come_first_served_in_rounds_equals_taking_turns():
    rng = np.random.default_rng(0)
    for _ in range(200):
        choosers, things = rng.integers(1, 12, 2)
        wishes = [rng.permutation(things)[: rng.integers(0, things + 1)] for _ in range(choosers)]
        wanted = np.full(things, -1)
        for who, wish in enumerate(wishes):
            free = [t for t in wish if wanted[t] < 0]
            if free:
                wanted[free[0]] = who
        chooser = np.repeat(np.arange(choosers), [len(w) for w in wishes])
        assert np.array_equal(match(chooser, np.concatenate(wishes).astype(int), things), wanted)


def test_a_second_detection_takes_the_next_best_free_truth():
    gt = table([("v", 0, 10, "a"), ("v", 1, 11, "a")], GT)
    pred = table([("v", 0, 10, "a", 0.9), ("v", 0, 10, "a", 0.8)])
    assert evaluate(gt, pred, tious=(0.5,))["ap"][0] == 1.0


def test_a_tiou_equal_to_the_threshold_matches_in_one_protocol_only():
    gt, pred = table([("v", 0, 10, "a")], GT), table([("v", 0, 5, "a", 1.0)])
    assert evaluate(gt, pred, tious=(0.5,))["ap"][0] == 1.0
    assert evaluate(gt, pred, tious=(0.5,), protocol="thumos14")["ap"][0] == 0.0


def test_ambiguous_intervals_forgive_even_in_videos_without_truth():
    gt = table([("v", 0, 10, "a"), ("v", 20, 30, "a")], GT)
    pred = table(
        [
            ("w", 0, 5, "a", 0.9),
            ("v", 0, 10, "a", 0.8),
            ("v", 15, 16, "a", 0.7),
            ("v", 20, 30, "a", 0.6),
        ]
    )
    vague = pd.DataFrame([("w", 4, 6), ("v", 15.5, 17)], columns=GT[:3])
    found = evaluate(gt, pred, tious=(0.5,), protocol="thumos14", ambiguous=vague)
    assert found["ap"][0] == 1.0 and found.attrs["report"]["foreign"] == 0


def test_classes_without_predictions_count_as_zero_and_others_are_ignored():
    gt = table([("v", 0, 10, "a"), ("v", 0, 10, "b")], GT)
    pred = table([("v", 0, 10, "a", 0.9), ("v", 0, 10, "c", 1.0)])
    found = evaluate(gt, pred, tious=(0.5,))
    assert found[["label", "ap", "num_gt", "num_pred"]].values.tolist() == [
        ["a", 1.0, 1, 1],
        ["b", 0.0, 1, 0],
    ]
    assert found.attrs["report"]["ignored"] == 1 and summary(found) == {"mAP@0.50": 0.5, "mAP": 0.5}
    with pytest.raises(ValueError, match=r"classes without ground truth \['c'\]"):
        evaluate(gt, pred, tious=(0.5,), unknown="error")


def test_no_prediction_at_all_scores_zero():
    found = evaluate(table([("v", 0, 10, "a")], GT), table([]), tious=THUMOS14_TIOUS)
    assert found["ap"].tolist() == [0.0] * 5 and found["num_pred"].sum() == 0


def test_duplicate_and_degenerate_truth_by_option():
    twice = table([("v", 0, 10, "a"), ("v", 0.0005, 10, "a")], GT)
    point = table([("v", 0, 10, "a"), ("v", 3, 3, "a")], GT)
    pred = table([("v", 0, 10, "a", 1.0)])
    for gt, option in ((twice, {"duplicates": "drop"}), (point, {"degenerate": "drop"})):
        assert evaluate(gt, pred, tious=(0.5,))["ap"][0] == 0.5
        assert evaluate(gt, pred, tious=(0.5,), **option)["ap"][0] == 1.0
    assert evaluate(twice, pred, tious=(0.5,)).attrs["report"]["duplicates"] == 1


def test_invalid_segments_are_an_error_unless_told_otherwise():
    gt = table([("v", 0, 10, "a")], GT)
    pred = table([("v", 5, 2, "a", 0.9), ("v", 4, 4, "a", 0.8), ("v", 0, 10, "a", 0.7)])
    with pytest.raises(
        ValueError, match=r"row 0: end_s must be greater than start_s; got 5 to 2 \(2 such rows\)"
    ):
        evaluate(gt, pred, tious=(0.5,))
    assert evaluate(gt, pred, tious=(0.5,), invalid="drop")["ap"][0] == 1.0
    assert evaluate(gt, pred, tious=(0.5,), invalid="false_positive")["ap"][0] == pytest.approx(
        1 / 3
    )


def test_equal_scores_go_as_listed_and_are_counted():
    gt = table([("v", 0, 10, "a")], GT)
    pred = table([("v", 50, 60, "a", 0.5), ("v", 0, 10, "a", 0.5), ("v", 70, 80, "a", 0.4)])
    found = evaluate(gt, pred, tious=(0.5,))
    assert found["ap"][0] == 0.5 and found.attrs["report"]["tied"] == 2
    assert evaluate(gt, pred.iloc[::-1], tious=(0.5,))["ap"][0] == 1.0
    assert evaluate(gt, pred, tious=(0.5,), ties="numpy-reversed")["ap"][0] == 1.0


def test_by_video_orders_equal_scores_by_the_name_of_the_video():
    gt = table([("a", 0, 10, "x"), ("b", 0, 10, "x")], GT)
    pred = table([("b", 50, 60, "x", 0.5), ("a", 0, 10, "x", 0.5)])
    assert evaluate(gt, pred, tious=(0.5,))["ap"][0] == 0.25
    assert evaluate(gt, pred, tious=(0.5,), ties="by-video")["ap"][0] == 0.5


def test_tables_are_left_alone_and_strings_are_read():
    gt, pred, _ = world(1)
    gt["start_s"] = gt["start_s"].astype(str)
    before = gt.copy(deep=True), pred.copy(deep=True)
    first, second = evaluate(gt, pred, tious=(0.5,)), evaluate(gt, pred, tious=(0.5,))
    pd.testing.assert_frame_equal(gt, before[0])
    pd.testing.assert_frame_equal(pred, before[1])
    pd.testing.assert_frame_equal(first, second)


# Bad input
TRUTH, FOUND = table([("v", 0, 10, "a")], GT), table([("v", 0, 10, "a", 1.0)])


@pytest.mark.parametrize(
    "gt, pred, options, message",
    [
        (TRUTH.head(0), FOUND, {}, "ground_truth has no row; is the subset's name right"),
        (TRUTH, FOUND.assign(video="w"), {}, "no video is in ground_truth; predictions have"),
        (TRUTH, FOUND.assign(video="v_v"), {}, "they differ by the prefix 'v_'"),
        (
            TRUTH,
            table([("v", 0, 1, "a", 1.0), ("v_v", 0, 1, "a", 1.0)]),
            {},
            "predictions: 'v' and 'v_v' are both there",
        ),
        (TRUTH.drop(columns="label"), FOUND, {}, r"ground_truth: missing columns \['label'\]"),
        (TRUTH, FOUND.drop(columns="score"), {}, r"predictions: missing columns \['score'\]"),
        (
            TRUTH,
            FOUND.assign(score=float("nan")),
            {},
            "predictions, row 0: score must be a finite number",
        ),
        (
            TRUTH,
            FOUND.assign(start_s="soon"),
            {},
            "predictions, row 0: start_s must be a finite number; got 'soon'",
        ),
        (
            TRUTH.assign(end_s=float("inf")),
            FOUND,
            {},
            "ground_truth, row 0: end_s must be a finite number",
        ),
        (TRUTH.assign(label=None), FOUND, {}, "ground_truth, row 0: label is empty"),
        (TRUTH, FOUND, {"tious": (0.0,)}, "tious must be thresholds in"),
        (TRUTH, FOUND, {"protocol": "voc"}, "protocol must be one of"),
        (TRUTH, FOUND, {"ties": "random"}, "ties must be one of"),
        (TRUTH, FOUND, {"ambiguous": TRUTH}, "ambiguous intervals belong to protocol='thumos14'"),
    ],
)
def test_bad_input_is_named(gt, pred, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(gt, pred, **({"tious": (0.5,)} | options))


def test_predictions_in_strange_videos_are_announced():
    with pytest.warns(UserWarning, match="1 predictions in 1 videos without ground truth"):
        found = evaluate(
            TRUTH, table([("w", 0, 1, "a", 1.0), ("v", 0, 10, "a", 0.5)]), tious=(0.5,)
        )
    assert found["ap"][0] == 0.5


# Real files
@needs_realdata
def test_the_kit_of_thumos14_is_met_to_the_last_digit():
    """S-CNN's detections: 20 classes at five thresholds, as its authors computed them."""
    from scipy.io import loadmat

    gt, vague = thumos14.ground_truth(REALDATA / "thumos14" / "annotations_test")
    assert (len(gt), gt["video"].nunique(), len(vague)) == (3358, 212, 99)
    folder = REALDATA / "thumos14" / "predictions" / "scnn"
    names = (REALDATA / "thumos14" / "annotations_test" / "detclasslist.txt").read_text().split()
    names = dict(zip(map(int, names[::2]), names[1::2], strict=True))
    authors = loadmat(folder / "res_scnn_thumos14.mat")["AP_all"]
    for i, tiou in enumerate((0.1, 0.2, 0.3, 0.4, 0.5)):
        pred = pd.read_csv(folder / f"derived_scnn_det_thr{tiou}.txt", sep=" ", names=PRED)
        found = evaluate(
            gt,
            pred.assign(label=pred["label"].map(names)),
            tious=(tiou,),
            protocol="thumos14",
            ambiguous=vague,
            ties="by-video",
        )
        theirs = dict(zip(names.values(), authors[0, i].ravel(), strict=True))
        assert max(abs(r.ap - theirs[r.label]) for r in found.itertuples()) < 1e-9


@needs_realdata
def test_activitynet_files_score_as_published():
    folder = REALDATA / "mmaction2_tests" / "eval_localization"
    gt, pred = (
        activitynet.ground_truth(folder / "gt.json", "validation"),
        activitynet.results(folder / "result.json"),
    )
    found = summary(evaluate(gt, pred, tious=ACTIVITYNET_TIOUS))
    assert [found[k] for k in ("mAP@0.50", "mAP@0.75", "mAP@0.95", "mAP")] == pytest.approx(
        [0.714286, 0.597222, 0.5, 0.617758], abs=1e-6
    )


@needs_realdata
def test_activitynet_s_own_sample_submission():
    """The ground truth itself at score 1: 1.0 as it stands, less where its 21 duplicates are
    dropped.
    """
    pred = activitynet.results(REALDATA / "activitynet13" / "sample_detection_prediction.json")
    assert (len(pred), pred["video"].nunique()) == (7654, 4926)
    options = {"tious": ACTIVITYNET_TIOUS, "invalid": "drop", "degenerate": "drop"}
    found = evaluate(pred.drop(columns="score"), pred, **options)
    assert summary(found)["mAP"] == 1.0
    assert {k: found.attrs["report"][k] for k in ("duplicates", "degenerate")} == {
        "duplicates": 21,
        "degenerate": 3,
    }
    assert summary(evaluate(pred.drop(columns="score"), pred, **options, duplicates="drop"))[
        "mAP"
    ] == pytest.approx(0.998825, abs=2e-4)


# The JSON layouts
def test_json_layouts_round_trip_and_lose_the_prefix(tmp_path):
    gt = table([("v_a", 0.0, 1.5, "x"), ("v_a", 2.0, 3.0, "y"), ("b", 1.0, 2.0, "x")], GT).assign(
        split="test", duration_s=9.0
    )
    activitynet.write_ground_truth(gt, tmp_path / "gt.json")
    again = activitynet.ground_truth(tmp_path / "gt.json", "test")
    pd.testing.assert_frame_equal(again, gt.assign(video=["a", "a", "b"]))
    assert again.attrs["videos"] == ["a", "b"]
    pred = table([("a", 0.0, 1.0, "x", 0.5)])
    activitynet.write_results(pred, tmp_path / "results.json")
    pd.testing.assert_frame_equal(activitynet.results(tmp_path / "results.json"), pred)


@pytest.mark.parametrize(
    "reader, content, message",
    [
        (
            lambda f: activitynet.ground_truth(f, "val"),
            {"database": {"a": {"subset": "test"}}},
            r"no video of subset 'val'; expected one of \['test'\]",
        ),
        (
            lambda f: activitynet.ground_truth(f, None),
            {"database": {"a": {"annotations": [{"segment": [1], "label": "x"}]}}},
            r"a, annotation 0: segment must be \[start, end\]",
        ),
        (activitynet.results, {"results": {"a": [], "v_a": []}}, "'a' and 'v_a' are both there"),
        (activitynet.results, {"detections": {}}, 'expected {"results": {id: '),
        (activitynet.results, [], "expected a JSON object; got list"),
    ],
)
def test_bad_json_is_named(tmp_path, reader, content, message):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        reader(tmp_path / "x.json")


def test_no_json_and_bad_text_rows_are_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match="x.json: expected JSON"):
        activitynet.results(tmp_path / "x.json")
    (tmp_path / "Diving_test.txt").write_text("video_1 3.0 4.0\nvideo_1 3.0\n")
    with pytest.raises(ValueError, match="Diving_test.txt, line 2: expected 'video start end'"):
        thumos14.ground_truth(tmp_path)
    with pytest.raises(FileNotFoundError, match="_val.txt"):
        thumos14.ground_truth(tmp_path, "val")


# One by one
def test_equals_going_through_the_predictions_one_by_one():
    truth, found = bench_metrics.detections(40, 300, 2000, 20)
    ap = evaluate(truth, found, tious=THUMOS14_TIOUS)["ap"].to_numpy().reshape(20, 5)
    assert ap == pytest.approx(bench_metrics.one_by_one(truth, found), abs=1e-12)


# EPIC-Kitchens-100
@needs_realdata
def test_epic_has_the_published_counts():
    path = REALDATA / "epic_kitchens_100" / "EPIC_100_validation.csv"
    for task, classes in (("verb", 78), ("noun", 211), ("action", 1352)):
        found = epic.ground_truth(path, task)
        assert (len(found), found["video"].nunique(), found["label"].nunique()) == (
            9668,
            138,
            classes,
        )
    assert (found["end_s"] > found["start_s"]).all() and found["group"].str.match(r"^P\d\d$").all()


def test_epic_s_bad_rows_are_named(tmp_path):
    head = "video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
    (tmp_path / "x.csv").write_text(head + "P01_11,00:00:01.50,00:01:00.00,3,7\n")
    found = epic.ground_truth(tmp_path / "x.csv", "action")
    assert found.values.tolist() == [["P01_11", 1.5, 60.0, "3,7", "P01"]]
    (tmp_path / "x.csv").write_text(head + "P01_11,00:00:01.50,later,3,7\n")
    with pytest.raises(
        ValueError, match="x.csv, line 2: stop_timestamp must be HH:MM:SS.ss; got 'later'"
    ):
        epic.ground_truth(tmp_path / "x.csv")
    (tmp_path / "y.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"y.csv, line 1: missing columns \['video_id'"):
        epic.ground_truth(tmp_path / "y.csv")
    with pytest.raises(ValueError, match="task must be one of"):
        epic.ground_truth(tmp_path / "y.csv", "noise")
