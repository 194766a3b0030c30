"""What people hand to the evaluator and to the readers: labels, empty tables, repeated keys, csv of
every kind, long texts.
"""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import localization_slow as slow

from vlact import schema
from vlact.datasets import activitynet, folder, thumos14
from vlact.metrics import detad, localization
from vlact.metrics.localization import evaluate, left_out
from vlact.models.text import ClipText, sentence_encoder

GT = ["video", "start_s", "end_s", "label"]
PRED = [*GT, "score"]


def table(rows, columns=PRED):
    return pd.DataFrame(rows, columns=columns)


def segments(truth_labels, found_labels):
    """Ground truth and the same segments as predictions, one video a label."""
    truth = [(f"v{i}", 0.0, 5.0, x) for i, x in enumerate(truth_labels)]
    found = [(f"v{i}", 0.0, 5.0, x, 0.9) for i, x in enumerate(found_labels)]
    return table(truth, GT), table(found)


# Labels
@pytest.mark.parametrize(
    "truth, found",
    [
        ("Throw Discus", "ThrowDiscus"),
        ("Throw Discus", "throw_discus"),
        ("Jet\u00e9", "Jete\u0301"),
        ("Diving", " Diving "),
        ("3", 3.0),
    ],
)
def test_one_label_in_another_spelling_is_matched_and_said(truth, found):
    gt, pred = segments(["Diving 2", truth], ["Diving 2", found])
    with pytest.warns(UserWarning, match=f"taken for the same: .*{str(truth)}"):
        assert evaluate(gt, pred, tious=(0.5,))["ap"].tolist() == [1.0, 1.0]
    assert (detad.kinds(gt, pred)["kind"] == "true positive").all()


def test_labels_of_which_none_is_in_common_are_named():
    gt, pred = segments([0, 1], ["Diving", "Golf"])
    message = r"no label is in ground_truth; predictions have \['Diving', 'Golf'\].*\[0, 1\]"
    with pytest.raises(ValueError, match=message):
        evaluate(gt, pred, tious=(0.5,))
    with pytest.warns(UserWarning, match="labels without ground truth"):
        assert evaluate(gt, pred, tious=(0.5,), strict=1)["ap"].tolist() == [0.0, 0.0]


def test_two_spellings_in_one_table_are_an_error_that_names_both(tmp_path):
    gt, pred = segments(["Long Jump", "LongJump"], ["Long Jump", "Long Jump"])
    with pytest.raises(ValueError, match="ground_truth: 'Long Jump' and 'LongJump' are two"):
        evaluate(gt, pred, tious=(0.5,))
    with pytest.raises(ValueError, match="predictions: 'Long Jump' and 'LongJump' are two"):
        evaluate(gt.head(1), gt.assign(score=1.0), tious=(0.5,))
    assert schema.label_key("1 1") != schema.label_key("11")
    notes = [{"segment": [0, 1], "label": x} for x in ("Golf", "golf")]
    (path := tmp_path / "t.json").write_text(json.dumps({"a": {"annotations": notes}}))
    with pytest.raises(ValueError, match="t.json: 'Golf' and 'golf' are two spellings"):
        activitynet.ground_truth(path, None)


def test_another_clock_is_said():
    start = np.arange(20) * 10.0
    gt = table([("v", s, s + 4, "a") for s in start], GT)
    for factor in (25, 1 / 25, 1000):
        pred = gt.assign(start_s=gt["start_s"] * factor, end_s=gt["end_s"] * factor, score=0.5)
        with pytest.warns(UserWarning, match="on another clock"):
            evaluate(gt, pred, tious=(0.5,))


# The account
def test_everything_that_is_left_out_is_accounted_for():
    gt = table([("v", 0, 10, "a"), ("v", 0, 10, "a"), ("v", 5, 5, "a"), ("w", 1, 2, "b")], GT)
    gt["duration_s"] = 9.0
    rows = [("v", 0, 10, "a", 0.9), ("v", 0, 10, "a", 0.9), ("v", 3, 2, "a", 0.8)]
    rows += [("v", 0, 1, "c", 0.7), ("x", 0, 1, "a", 0.6), ("w", 1, 2, "b", np.nan)]
    options = {"tious": (0.5,), "invalid": "drop", "duplicates": "drop", "degenerate": "drop"}
    with pytest.warns(UserWarning, match="3 of 6 predictions: .*labels without ground truth: .'c'"):
        found = evaluate(gt, table(rows), **options)
    account = left_out(found)
    for name, (before, after) in {"ground_truth": (4, 2), "predictions": (6, 3)}.items():
        mine = account[account["table"] == name].groupby("what")["segments"].sum()
        assert mine["in"] == before == mine["used"] + mine["left out"] and mine["used"] == after
    reasons = account.set_index(["table", "reason"])["segments"]
    assert reasons["predictions"].drop("").to_dict() == {
        "time or score is no finite number": 1,
        "class without ground truth": 1,
        "end not after start": 1,
        "video without ground truth: false positive": 1,
        "ends after the video": 2,
        "repeats another: false positive": 1,
    }
    with pytest.raises(ValueError, match=r"more than strict=0.4"):
        evaluate(gt, table(rows), **options, strict=0.4)


# Empty is a result
@pytest.mark.parametrize("found", [[], [("a", 0, 5, "Flying", 0.9)]])
def test_no_prediction_of_a_known_class_goes_through_the_analysis(found):
    gt = table([("a", 0.0, 5.0, "Diving"), ("b", 1.0, 2.0, "Golf")], GT)
    top = detad.kinds(gt, table(found))
    assert len(top) == 0 and len(detad.false_positives(top)) == 0
    assert (detad.impact(gt, top, (0.3, 0.5)) == 0).all()
    known = detad.characteristics(gt, {"a": 10.0, "b": 10.0})
    who = detad.sensitivity(known, table(found), detad.quintiles(known))
    assert (who["missed"] == 1).all() and (who["ap_n"] == 0).all()
    assert (evaluate(gt, table(found), tious=(0.5,), strict=1)["ap"] == 0).all()


def test_a_video_without_actions_is_known(tmp_path):
    notes = [{"segment": [0, 5], "label": "Diving"}]
    content = {"a": {"annotations": notes}, "quiet": {"annotations": []}}
    (path := tmp_path / "t.json").write_text(json.dumps(content))
    gt = activitynet.ground_truth(path, None)
    found = evaluate(gt, table([("quiet", 0, 5, "Diving", 0.9)]), tious=(0.5,))
    assert found["ap"].tolist() == [0.0] and found.attrs["report"]["foreign"] == 1


def test_costs_are_judged_at_each_threshold_and_never_negative():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 100, 40)
    gt = table([("v", s, s + 5, "ab"[i % 2]) for i, s in enumerate(start)], GT)
    near = gt.iloc[rng.integers(0, 40, 300)].reset_index(drop=True)
    pred = near.assign(start_s=near["start_s"] + rng.normal(0, 2, 300), score=rng.random(300))
    pred["end_s"] = pred["start_s"] + rng.uniform(2, 8, 300)
    tious = (0.1, 0.3, 0.5, 0.7)
    top = detad.kinds(gt, pred)
    costs = detad.impact(gt, top, tious)
    assert (costs >= 0).all() and costs.attrs == {"tious": tious, "normalized": False}
    for kind in detad.KINDS[1:]:
        gains = []
        for tiou in tious:
            judged = detad.kinds(gt, pred, tiou)
            scores = [
                np.mean(
                    [
                        slow.activitynet_ap(
                            list(gt[gt["label"] == x][GT[:3]].itertuples(index=False, name=None)),
                            list(
                                t[t["label"] == x][[*GT[:3], "score"]].itertuples(
                                    index=False, name=None
                                )
                            ),
                            tiou,
                        )
                        for x in "ab"
                    ]
                )
                for t in (judged[judged["kind"] != kind], judged)
            ]
            gains.append(scores[0] - scores[1])
        assert costs[kind] == pytest.approx(np.mean(gains), abs=1e-12)
    even = detad.impact(
        gt, top, tious, normalized=True
    )  # classes of equal size: nothing to normalise
    assert np.allclose(even, costs)


def test_buckets_come_with_their_ends():
    gt = table([("v", 0, 2, "a"), ("v", 10, 30, "a")], GT)
    known = detad.characteristics(gt, {"v": 100.0})
    who = detad.sensitivity(known, gt.assign(score=1.0), {"length_s": (3, 6, 12, 18)})
    assert who[["bucket", "above", "up_to"]].values.tolist() == [
        ["all", -np.inf, np.inf],
        ["XS", -np.inf, 3],
        ["XL", 18, np.inf],
    ]


# JSON
@pytest.mark.parametrize(
    "text, message",
    [
        ('{"results": {"a": [], "a": []}}', "'a' stands twice"),
        ('{"results": {"a" : [], "b": [], "a" : []}}', "'a' stands twice"),
        (
            '{"results": {"a": [{"segment": [0, 1], "label": "x", "label": "y", "score": 1}]}}',
            "twice",
        ),
        ('{"results": {"a": [], "a": []}, "note": ": b"}', "'a' stands twice"),
        ('{"results": ' + "[" * 200 + "]" * 200 + "}", "nested at most 64 levels"),
        ('{"results": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested at most 64 levels"),
        (
            '{"results": {"a": [{"segment": "12", "label": "x", "score": 1}]}}',
            "must be .start, end.",
        ),
        (
            '{"results": {"a": [{"segment": [0, NaN], "label": "x", "score": 1}]}}',
            "must be .start, end.",
        ),
        ('{"results": {"../a": []}}', "leads out of the folder"),
        ('{"results": {"/etc/passwd": []}}', "leads out of the folder"),
    ],
)
def test_json_that_would_lose_something_is_refused(tmp_path, text, message):
    (path := tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        activitynet.results(path)
    assert "r.json" in str(error.value)


def test_numbers_of_a_json_are_those_of_the_standard_library(tmp_path):
    rng = np.random.default_rng(0)
    entries = [
        {"segment": [float(a), float(a + b)], "label": f": {c}", "score": float(s)}
        for a, b, c, s in zip(
            rng.random(500) * 1e3,
            rng.random(500),
            rng.integers(0, 9, 500),
            rng.random(500),
            strict=True,
        )
    ]
    (path := tmp_path / "r.json").write_text(json.dumps({"results": {"v_a": entries, "b": []}}))
    found, wanted = activitynet.results(path), json.loads(path.read_text())["results"]["v_a"]
    assert found[["start_s", "end_s"]].to_numpy().tolist() == [x["segment"] for x in wanted]
    assert found["score"].tolist() == [x["score"] for x in wanted]
    assert found["label"].tolist() == [x["label"] for x in wanted] and set(found["video"]) == {"a"}


# csv
ROWS = [["a.mp4", "1.5", "62.5", "NA", "train"], ["b.mp4", "0.5", "2.5", "1e5", "test"]]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_is_read_by_its_own_separator_encoding_and_cells(tmp_path, separator, encoding, end):
    rows = [list(r) for r in ROWS]
    if separator != ",":
        rows[0][1] = "1,5"
    rows[0][2] = "00:01:02.5"
    lines = [separator.join(r) for r in [list(folder.COLUMNS), *rows]]
    (path := tmp_path / "mine.csv").write_bytes((end.join(lines) + end).encode(encoding))
    found = folder.read(path)
    assert found[["start_s", "end_s"]].values.tolist() == [[1.5, 62.5], [0.5, 2.5]]
    assert found["label"].tolist() == ["NA", "1e5"]


@pytest.mark.parametrize(
    "line, message",
    [
        ("c.mp4,1:02,70,pick up cup,test", "line 4: start_s .*write seconds or hh:mm:ss"),
        ('c.mp4,"1,5",70,pick up cup,test', "line 4: start_s .*write 1.5, not 1,5"),
        ("c.mp4,1,5,70,pick up cup,test", "line 4: 6 cells, but line 1 names 5 columns"),
        ("c.mp4,1,5,test", "line 4: 4 cells, but line 1 names 5 columns"),
        ("../c.mp4,1,5,pick up cup,test", "line 4: '../c.mp4' leads out of the folder"),
        ("/tmp/c.mp4,1,5,pick up cup,test", "line 4: '/tmp/c.mp4' leads out of the folder"),
        ("C:\\\\c.mp4,1,5,pick up cup,test", "line 4: .*leads out of the folder"),
        ("c.mp4,1,5,na,test", "'NA' and 'na' are two spellings of one label"),
        ("a.mp4,60,65,pick up cup,test", "lines 2 and 4: 'a.mp4', second 60, is in split 'train'"),
        ("\n\nc.mp4,x,5,pick up cup,test", "line 6: start_s must be seconds"),
    ],
)
def test_a_bad_row_of_one_s_own_csv_is_named(tmp_path, line, message):
    lines = [",".join(r) for r in [list(folder.COLUMNS), *ROWS]]
    (path := tmp_path / "mine.csv").write_text("\n".join([*lines, line]) + "\n")
    with pytest.raises(ValueError, match=message):
        folder.read(path)


def test_paths_may_lead_out_when_asked(tmp_path, monkeypatch):
    lines = [",".join(r) for r in [list(folder.COLUMNS), *ROWS]]
    (path := tmp_path / "mine.csv").write_text("\n".join(lines).replace("a.mp4", "../a.mp4"))
    assert folder.read(path, outside=True)["video"][0] == "../a.mp4"
    monkeypatch.setenv(schema.OUTSIDE, "1")
    assert folder.read(path)["video"][0] == "../a.mp4"


def test_a_class_called_null_stays_a_class(tmp_path):
    (path := tmp_path / "g.csv").write_text("video,type,start,end\n007,null,0.5,1.5\nNA,True,1,2\n")
    found = thumos14.annotation_csv(path)
    assert found["video"].tolist() == ["007", "NA"] and found["label"].tolist() == ["null", "True"]


def test_a_video_of_two_splits_is_not_written(tmp_path):
    rows = [("a", 0, 1, "x", "train", 9.0), ("a", 2, 3, "x", "test", 9.0)]
    two = pd.DataFrame(rows, columns=[*GT, "split", "duration_s"])
    with pytest.raises(ValueError, match=r"'a' has split \['train', 'test'\]"):
        activitynet.write_ground_truth(two, tmp_path / "t.json")


# Texts
def test_a_text_beyond_the_context_is_an_error_that_names_it():
    from open_clip.transformer import TextTransformer

    small = {"width": 16, "heads": 2, "layers": 1, "output_dim": 8}
    clip = ClipText(TextTransformer(context_length=77, vocab_size=49408, **small))
    for encoder, limit in ((sentence_encoder(), 512), (clip, 77)):
        fits, cut = " ".join(["cup"] * (limit - 2)), " ".join(["cup"] * (limit - 1))
        assert torch.isfinite(encoder([fits])).all()
        with pytest.raises(ValueError, match=f"cup.*: {limit + 1} tokens, but .* at most {limit}"):
            encoder(["short", cut])


# Random tables
times = st.one_of(st.floats(0, 50), st.integers(0, 20), st.floats(allow_nan=True))
names = st.sampled_from(["a", "b", "v_a", "c"])
classes = st.sampled_from(["x", "X", "y", "x x", 1, "1", "z"])
scores = st.one_of(st.floats(0, 1), st.just(0.5), st.floats())
truths = st.lists(st.tuples(names, times, times, classes), max_size=12)
founds = st.lists(st.tuples(names, times, times, classes, scores), max_size=20)
tidy_class, tidy = st.sampled_from(["x", "y"]), st.integers(0, 20)
tidy_truths = st.lists(
    st.tuples(st.sampled_from("ab"), tidy, tidy, tidy_class), min_size=1, max_size=12
)
tidy_founds = st.lists(
    st.tuples(st.sampled_from("ab"), tidy, tidy, tidy_class, st.sampled_from([0.1, 0.5, 0.9])),
    max_size=25,
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.fuzz
@given(truths, founds, st.sampled_from(["error", "drop", "false_positive"]), st.booleans())
def test_any_table_is_scored_or_refused_with_a_word(truth, found, invalid, thumos):
    gt, pred = table(truth, GT).astype(object), table(found).astype(object)
    protocol = localization.PROTOCOLS[thumos]
    try:
        out = evaluate(gt, pred, tious=(0.3, 0.5), invalid=invalid, protocol=protocol)
    except ValueError as error:
        assert str(error)
        return
    assert out["ap"].between(0, 1).all()
    account = left_out(out)
    for _, mine in account.groupby("table"):
        by = mine.groupby("what")["segments"].sum()
        assert by["in"] == by["used"] + by.get("left out", 0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("many", [localization.MANY_PAIRS, -1])
@pytest.mark.fuzz
@given(truth=tidy_truths, found=tidy_founds)
def test_random_tables_score_as_the_loop_says(many, truth, found):
    """Points, ties and duplicates among them; held pairs and the compiled loop."""
    gt = table(truth, GT)
    pred = table([f for f in found if f[3] in set(gt["label"])])
    if len(pred) and not set(pred["video"]) & set(gt["video"]):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(localization, "MANY_PAIRS", many)
        options = {"tious": (0.3, 0.5, 1.0), "invalid": "false_positive"}
        here = evaluate(gt, pred, **options).set_index(["label", "tiou"])["ap"]
        there = evaluate(gt, pred, **options, protocol="thumos14").set_index(["label", "tiou"])[
            "ap"
        ]
    for label, tiou in here.index:
        mine = [t[:3] for t in truth if t[3] == label]
        said = [(*f[:3], f[4]) for f in found if f[3] == label]
        assert here[label, tiou] == pytest.approx(slow.activitynet_ap(mine, said, tiou), abs=1e-12)
        assert there[label, tiou] == pytest.approx(
            slow.thumos14_ap(mine, said, [], tiou), abs=1e-12
        )


@pytest.mark.fuzz
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6), st.integers(0, 6)), min_size=1))
def test_repeated_rows_are_those_that_a_loop_finds(rows):
    step = 0.0004  # of a second: some within 1 ms, some not
    ends = np.array([(s, e) for _, s, e in rows]) * step
    gt = {"video": np.array([v for v, _, _ in rows]), "label": np.array(["x"] * len(rows))}
    found = localization._repeated(gt | {"segment": ends}, np.ones(len(rows), bool))
    for i, (video, *_) in enumerate(rows):
        near = (np.abs(ends[:i] - ends[i]) <= localization.SAME_S).all(1)
        assert found[i] == (near & (gt["video"][:i] == video)).any()


@pytest.mark.parametrize(
    "entry",
    [
        {"segment": [1, 2], "label": "x", "score": []},
        {"segment": [1, 2], "label": "x", "score": [0.5]},
        {"segment": [[1], [2]], "label": "x", "score": 0.5},
    ],
)
def test_lists_in_place_of_numbers_are_named(entry, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"results": {"v": [entry]}}))
    with pytest.raises(ValueError, match=r"results\.json: v, result 0"):
        activitynet.results(path)
