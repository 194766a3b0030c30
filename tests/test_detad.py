"""Error analysis of localization: kinds by a loop, what each costs, buckets on real annotations."""

import json

import numpy as np
import pandas as pd
import pytest
from reference import localization_slow as slow
from test_localization import GT, PRED, REALDATA, needs_realdata, table, world

from vlact.metrics import detad
from vlact.metrics.localization import assignments, evaluate


@pytest.mark.parametrize("seed", range(8))
def test_kinds_equal_a_loop_over_predictions(seed):
    gt, pred, _ = world(seed)
    found = detad.kinds(gt, pred, tiou=0.5, most=2)
    free, wanted = set(range(len(gt))), {}
    instances = list(gt.itertuples(index=False, name=None))
    for label, part in pred.groupby("label"):
        count = 2 * (gt["label"] == label).sum()
        for i, (video, start, end, _, _) in zip(
            part.sort_values("score", ascending=False).index[:count],
            part.sort_values("score", ascending=False)[PRED].itertuples(index=False, name=None),
            strict=False,
        ):
            overlap = [slow.iou(g[1:3], (start, end)) if g[0] == video else 0 for g in instances]
            mine = [j for j in free if instances[j][3] == label and overlap[j] >= 0.5]
            best = max(
                range(len(gt)),
                key=lambda j, o=overlap, label=label: (o[j], instances[j][3] == label),
            )
            right = instances[best][3] == label
            if mine:
                free.discard(max(mine, key=lambda j, o=overlap: o[j]))
                wanted[i] = "true positive"
            elif overlap[best] >= 0.5:
                wanted[i] = "double detection" if right else "wrong label"
            elif overlap[best] >= 0.1:
                wanted[i] = "localization" if right else "confusion"
            else:
                wanted[i] = "background"
    assert found["kind"].to_dict() == wanted and set(found["kind"]) <= set(detad.KINDS)


def test_each_kind_once():
    gt = table([("v", 0, 10, "a"), ("v", 20, 30, "b"), ("w", 0, 10, "a")], GT)
    pred = table(
        [
            ("v", 0, 10, "a", 0.9),
            ("v", 1, 10, "a", 0.8),
            ("v", 20, 29, "a", 0.7),
            ("w", 7, 12, "a", 0.6),
            ("v", 28, 33, "a", 0.5),
            ("v", 50, 60, "a", 0.4),
            ("v", 0, 10, "c", 1.0),
        ]
    )
    found = detad.kinds(gt, pred)
    assert found["kind"].tolist() == list(detad.KINDS) and found["multiple"].tolist() == [
        0,
        0.5,
        1,
        1.5,
        2,
        2.5,
    ]
    shares = detad.false_positives(found)
    assert (
        shares.index.tolist() == [1, 2, 3]
        and shares.loc[1, "true positive"] == 0.5
        and np.allclose(shares.sum(axis=1), 1)
    )
    gains = detad.impact(gt, found, (0.5,))
    assert (
        list(gains.index) == list(detad.KINDS[1:])
        and (gains >= 0).all()
        and gains["background"] == 0
    )
    late = pd.concat([pred, table([("w", 0, 10, "a", 0.1)])], ignore_index=True)
    costs = detad.impact(gt, detad.kinds(gt, late), (0.5,))
    alone = late[detad.kinds(gt, late).reindex(late.index)["kind"] != "double detection"]
    whole = evaluate(gt, late[late["label"] != "c"], tious=(0.5,))["ap"].mean()
    assert costs["double detection"] == pytest.approx(
        evaluate(gt, alone[alone["label"] != "c"], tious=(0.5,))["ap"].mean() - whole
    )
    assert costs["double detection"] > 0


def test_a_segment_with_two_labels_is_near_its_own():
    gt = table([("v", 0, 10, "b"), ("v", 0, 10, "a")], GT)
    found = assignments(gt, table([("v", 0, 8, "a", 1.0)]), 0.9)
    assert found[["taken", "near"]].values.tolist() == [[-1, 1]] and found["tiou"][0] == 0.8
    # DETAD's code takes the instance that stands first
    pred = table([("v", 0, 4, "a", 1.0)])
    assert detad.kinds(gt, pred)["kind"].tolist() == ["localization"]
    first = detad.kinds(gt, pred, near="first")
    assert first["kind"].tolist() == ["confusion"]
    missed = detad.kinds(gt, pd.concat([pred, table([("v", 0, 9, "a", 0.5)])]), near="first")
    assert detad.impact(gt, missed, (0.5,)).loc[["localization", "confusion"]].tolist() == [0, 0.25]
    with pytest.raises(ValueError, match="near: expected .* got 'own'"):
        detad.kinds(gt, pred, near="own")


def test_sensitivity_of_perfect_predictions_is_perfect_and_misses_are_counted_where_they_are():
    gt = table([("v", 0, 2, "a"), ("v", 10, 15, "a"), ("v", 20, 22, "b"), ("w", 0, 30, "b")], GT)
    gt = detad.characteristics(gt, {"v": 100.0, "w": 60.0})
    assert gt["coverage"].tolist() == [0.02, 0.05, 0.02, 0.5] and gt["instances"].tolist() == [
        3,
        3,
        3,
        1,
    ]
    pred = gt[GT].assign(score=1.0)
    buckets = detad.BUCKETS["thumos14"]
    perfect = detad.sensitivity(gt, pred, buckets)
    assert (perfect["ap_n"] == 1).all() and (perfect["missed"] == 0).all()
    lengths = perfect[perfect["characteristic"] == "length_s"].set_index("bucket")["num_gt"]
    assert lengths.to_dict() == {"XS": 2, "S": 1, "XL": 1}
    short = detad.sensitivity(gt, pred[pred["end_s"] - pred["start_s"] > 3], buckets).set_index(
        ["characteristic", "bucket"]
    )
    assert short.loc[("length_s", "XS"), "missed"] == 1 and short.loc[
        ("length_s", "XL"), ["ap_n", "missed"]
    ].tolist() == [1, 0]
    assert short.loc[("all", "all"), "missed"] == 0.5


def test_normalised_ap_without_false_positives_is_the_recall():
    gt, pred, _ = world(3)
    found = detad.sensitivity(gt, pred, {}, most=10**6)
    even = gt.groupby("label").head(
        gt["label"].value_counts().min()
    )  # classes of equal size: N is each one's own
    assert len(found) == 1 and 0 < found["ap_n"][0] < 1
    same = detad.sensitivity(even, pred, {}, most=10**6)["ap_n"][0]
    assert same == pytest.approx(evaluate(even, pred, tious=(0.5,))["ap"].mean(), abs=1e-12)


def test_buckets_include_their_upper_end_and_missing_durations_are_named():
    assert detad.sizes(pd.Series([0.5, 3, 3.01, 99]), (3, 6, 12, 18)).tolist() == [
        "XS",
        "XS",
        "S",
        "XL",
    ]
    with pytest.raises(ValueError, match="1 are missing, for example 'v'"):
        detad.characteristics(table([("v", 0, 2, "a")], GT), {})


@needs_realdata
def test_characteristics_are_those_published_for_thumos14():
    path = REALDATA / "thumos14" / "other_formats" / "thumos14_test_extra_characteristics.json"
    rows, durations, wanted = [], {}, []
    for video, entry in json.loads(path.read_text())["database"].items():
        for note in entry["annotations"]:
            rows.append((video, *note["segment"], note["label"]))
            durations[video] = note["length"] / note["coverage"]
            wanted.append((note["length"], note["coverage"], note["num-instances"]))
    found = detad.characteristics(table(rows, GT), durations)[
        ["length_s", "coverage", "instances"]
    ].to_numpy()
    assert len(found) == 3358 and np.allclose(found, np.array(wanted), rtol=1e-6)


def wave(n, phase):
    return (np.sin(1.7 * n + phase) + 1) / 2


def test_costs_are_those_of_the_authors_code():
    """What HumamAlwassel/DETAD at 24f7d95 answered once, ten predictions an instance."""
    gt, pred, labels = [], [], "abc"
    for n in range(24):
        video, own = f"v{n // 4}", min(n % 4, 2)
        start = 20 * (n % 4) + 6 * wave(n, 0)
        end = start + 2 + 9 * wave(n, 1)
        gt.append((video, start, end, labels[own]))
        for i in range(4 * n, 4 * n + 4):
            middle = (start + end) / 2 + (wave(i, 2) - 0.5) * (end - start)
            half = (end - start) * (0.4 + 1.2 * wave(i, 3)) / 2
            label = labels[(own + (wave(i, 4) > 0.7)) % 3]
            pred.append((video, middle - half, middle + half, label, wave(i, 5)))
        pred.append((video, 90 + n, 92 + n, labels[n % 2], wave(n, 6)))
    gt, pred = table(gt, GT), table(pred)
    found = detad.kinds(gt, pred, 0.5, 10)
    for normalized, wanted in (
        (True, [0.0, 0.0667239, 0.0331308, 0.0078706, 0.024512]),
        (False, [0.0, 0.0626639, 0.0334562, 0.0072052, 0.021415]),
    ):
        costs = detad.impact(gt, found, (0.3, 0.5, 0.7), normalized)
        assert costs.tolist() == pytest.approx(wanted, abs=1e-7)
