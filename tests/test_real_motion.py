"""Motion transfer on real clips: splits that leak nothing, heads, intervals; frozen encoders."""

import numpy as np
import pandas as pd
import pytest
import torch

from vlact.models.shift_gcn import JOINTS, ShiftGCN, TemporalShift, turn, upright
from vlact.papers.transfer import looking, real
from vlact.report.results import real_motion as numbers


def ut_table():
    rows = [
        (f"{s}/{q}_{k}", f"action {k}", s, q)
        for s, first in (("set1", 1), ("set2", 11))
        for q in range(first, first + 10)
        for k in range(3)
    ]
    return pd.DataFrame(rows, columns=["video", "label", "set", "sequence"])


def people_table(views=(1, 2, 3)):
    rows = [
        (f"a{k}_s{s}_e{e}_v{v}", f"action {k}", s, e, v)
        for k in range(3)
        for s in range(1, 11)
        for e in range(3)
        for v in views
    ]
    return pd.DataFrame(rows, columns=["video", "label", "subject", "repetition", "view"])


def test_every_setup_keeps_test_clips_and_held_out_groups_away_from_training():
    p = real.protocol()
    tables = {
        "ut_interaction": ut_table(),
        "nw_ucla": people_table(),
        "msr_action3d": people_table(),
    }
    groups = {"set": "sequence", "view": "subject"}
    for setup in p.setups.values():
        if setup.set not in tables:
            continue
        table = tables[setup.set]
        found = real.splits(setup, table)
        assert found, setup.name
        for one in found:
            assert not set(one.train) & (set(one.known) | set(one.unknown)), setup.name
            if setup.by in groups and setup.folds:
                column = table[groups[setup.by]]
                held = set(column.iloc[one.known])
                assert not held & set(column.iloc[one.train]), setup.name
            contexts = {"set": "set", "view": "view"}.get(setup.by)
            if contexts:
                seen = set(table[contexts].iloc[one.train])
                assert set(table[contexts].iloc[one.known]) <= seen
                assert not set(table[contexts].iloc[one.unknown]) & seen
            else:
                odd = {s % 2 for s in table["subject"].iloc[one.train]}
                assert odd.isdisjoint({s % 2 for s in table["subject"].iloc[one.unknown]})


def test_known_and_unknown_test_clips_are_all_of_the_set():
    p, table = real.protocol(), ut_table()
    found = real.splits(p.setups["ut_interaction"], table)
    for name in ("set1", "set2"):
        known = np.concatenate([s.known for s in found if s.trained_on == name])
        assert sorted(known) == np.flatnonzero(table["set"] == name).tolist()


def test_conditions_leave_out_classes_with_too_few_clips():
    rows = []
    for label, most in (("many", 8), ("few", 3)):
        for camera in ("moving", "still"):
            for part, n in (("train", most), ("test", 4)):
                rows += [(f"{label}{camera}{part}{i}", label, camera, part) for i in range(n)]
    table = pd.DataFrame(rows, columns=["video", "label", "camera", "split1"])
    table = table.assign(split2=table["split1"], split3=table["split1"])
    found = real.splits(real.protocol().setups["jhmdb_camera"], table)
    assert {s.trained_on for s in found} == {"moving", "still"} and len(found) == 6
    used = np.concatenate([np.r_[s.train, s.known, s.unknown] for s in found])
    assert set(table["label"].iloc[used]) == {"many"}


def test_a_set_that_lacks_a_context_is_named():
    table = ut_table().query("set == 'set1'").reset_index(drop=True)
    with pytest.raises(ValueError, match=r"ut_interaction, trained on set1, fold 0.*unknown"):
        real.splits(real.protocol().setups["ut_interaction"], table)


def test_leave_one_out_of_ridge_is_what_leaving_one_out_gives():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(12, 5)), np.arange(12) % 3
    x += 0.5 * labels[:, None]
    grid = (0.01, 1.0, 100.0)

    def fitted(rows, penalty):
        """By its definition, with one penalty: the same multiple as on all clips."""
        mean, base = x[rows].mean(0), np.eye(3)[labels[rows]].mean(0)
        a, t = x[rows] - mean, np.eye(3)[labels[rows]] - base
        whole = x - x.mean(0)
        own = penalty * np.trace(whole @ whole.T) / len(x)
        weights = np.linalg.solve(a.T @ a + own * np.eye(5), a.T @ t)
        return lambda z: (z - mean) @ weights + base

    def error(penalty):
        out = []
        for i in range(len(x)):
            rows = np.delete(np.arange(len(x)), i)
            out.append(np.eye(3)[labels[i]] - fitted(rows, penalty)(x[i]))
        return np.mean(np.square(out))

    best = min(grid, key=error)
    (scores,) = real.ridge(x, labels, [x + 0.1], grid)
    assert np.allclose(scores, fitted(np.arange(len(x)), best)(x + 0.1))


def test_the_mean_is_appearance_and_the_course_is_motion():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 6, 3))
    moved = x + rng.normal(size=(4, 1, 3))  # another appearance, the same motion
    for part in ("change", "course"):
        assert np.allclose(*(real.describe(y, (part,))[0] for y in (x, moved)))
    assert not np.allclose(*(real.describe(y, ("mean",))[0] for y in (x, moved)))
    still = np.repeat(x[:, :1], 6, axis=1)
    assert np.allclose(real.describe(still, ("change",))[0], 0)


def test_standardising_by_context_takes_a_constant_shift_away():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(20, 4))
    x[10:] += 100
    split = real.Split("s", "a", 0, np.arange(5), np.arange(5, 10), np.arange(10, 20))
    train, _, unknown = real.standardised([x], split, "context")
    assert abs(unknown.mean()) < 1e-6 < abs(real.standardised([x], split)[2].mean())
    assert np.allclose(train, real.standardised([x], split)[0])


CANDIDATES = ("tempo", "context swap", "gradient reversal", "HSIC")


def made_job(tmp_path, runs=(0, 1)):
    """Clips of which the first half moves up and the other down, on shifted backgrounds."""
    rng = np.random.default_rng(3)
    n, steps = 60, 6
    label, context = np.arange(n) % 2, (np.arange(n) // 2) % 2
    course = np.linspace(-1, 1, steps)[None, :, None] * (2 * label - 1)[:, None, None]
    x = np.concatenate([course, 5.0 * context[:, None, None] + 0 * course], 2)
    np.save(tmp_path / "x.npy", (x + 0.05 * rng.normal(size=x.shape)).astype(np.float32))
    table = pd.DataFrame(
        {
            "video": [f"clip{i}" for i in range(n)],
            "label": np.array(["down", "up"], object)[label],
            "subject": np.arange(n) % 5,
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    rows = np.arange(n)
    split = real.Split(
        "made",
        "a",
        0,
        rows[(context == 0) & (rows < 40)],
        rows[(context == 0) & (rows >= 40)],
        rows[context == 1],
    )
    models = ("mean removed, ridge", "temporal convolution, mean removed", "two branches")
    models += CANDIDATES
    inputs = {"joints": str(tmp_path / "x.npy")}
    return real.Job(split, inputs, str(tmp_path / "t.parquet"), models, "subject", runs)


def test_a_job_answers_every_test_clip_once_a_run_and_learns_motion(tmp_path):
    out = tmp_path / "out.parquet"
    job = made_job(tmp_path)
    assert real.transfer_job(job, str(out)) == len(pd.read_parquet(out))
    found = pd.read_parquet(out)
    tests = len(job.split.known) + len(job.split.unknown)
    counts = found.groupby(["model", "run"]).size()
    assert set(counts) == {tests} and len(counts) == 1 + 2 * (2 + len(CANDIDATES))
    right = (found["label"] == found["predicted"]).groupby(found["model"]).mean()
    assert right["mean removed, ridge"] == 1.0
    assert right["temporal convolution, mean removed"] > 0.9
    known = found[found["known"]]
    learnt = (known["label"] == known["predicted"]).groupby(known["model"]).mean()
    assert (learnt[list(CANDIDATES)] > 0.9).all()
    again = tmp_path / "again.parquet"
    real.transfer_job(job, str(again))
    assert again.read_bytes() == out.read_bytes()


def test_scores_are_means_over_directions_and_intervals_hold_them():
    rows = []
    for direction, known, unknown in (("a", 8, 4), ("b", 6, 6)):
        for run in (0, 1):
            for kind, right in ((True, known), (False, unknown)):
                rows += [
                    (direction, run, f"{kind}{i}", "x" if i % 2 else "y", i < right, kind)
                    for i in range(10)
                ]
    found = pd.DataFrame(rows, columns=["trained_on", "run", "clip", "label", "ok", "known"])
    found["predicted"] = np.where(found["ok"], found["label"], "wrong")
    s = numbers.scored(found, 0.95, 200)
    assert s.known.mean == pytest.approx(70) and s.unknown.mean == pytest.approx(50)
    assert s.hm.mean == pytest.approx((2 * 80 * 40 / 120 + 60) / 2)
    assert s.known.low < 70 < s.known.high and s.chance == 50 and s.runs == 2
    assert s.extra["d_abs"] == pytest.approx(20)


def test_a_setup_without_known_context_has_unknown_alone():
    found = pd.DataFrame(
        {
            "trained_on": "a",
            "run": 0,
            "clip": ["1", "2"],
            "label": ["x", "y"],
            "predicted": ["x", "x"],
            "known": False,
        }
    )
    s = numbers.scored(found, 0.95, 50)
    assert np.isnan(s.known.mean) and np.isnan(s.hm.mean) and s.unknown.mean == 50


def test_a_shift_in_time_moves_channels_and_mixes_between_frames():
    shift = TemporalShift(3)
    with torch.no_grad():
        shift.ypos.copy_(torch.tensor([1.0, -1.0, 0.5]))
    x = torch.arange(4.0)[None, None, :, None].repeat(1, 3, 1, 2)
    y = shift(x)[0, :, :, 0].tolist()
    assert y == [[1, 2, 3, 0], [0, 0, 1, 2], [0.5, 1.5, 2.5, 1.5]]
    half = TemporalShift(3, stride=2)
    assert half(x).shape == (1, 3, 2, 2)


def test_a_body_stands_upright_whichever_way_it_was_seen():
    rng = np.random.default_rng(4)
    joints = torch.tensor(rng.normal(size=(5, JOINTS, 3)))
    a = torch.tensor(rng.normal(size=3))
    seen = joints @ turn(a, torch.tensor([0.0, 0.0, 1.0], dtype=a.dtype)).T + 3
    # what is left is a turn about the axis between shoulders, which is the same for both
    ours, theirs = upright(joints), upright(seen)
    shoulders = ours[0, 8] - ours[0, 4]
    assert torch.allclose(shoulders[1:], torch.zeros(2, dtype=shoulders.dtype), atol=1e-9)
    assert torch.allclose(ours.norm(dim=2), theirs.norm(dim=2))


def test_one_person_is_normed_as_the_first_of_two():
    torch.manual_seed(0)
    model = ShiftGCN().eval()
    n = model.data_bn
    n.running_mean.uniform_(-1, 1)
    n.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 3, 16, JOINTS, 2)
    with torch.inference_mode():
        both, one = model.features(x), model.features(x[..., :1])
    assert torch.allclose(both[:, :1], one, atol=1e-5)


def test_other_files_are_no_weights(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"other\.pt: expected Shift-GCN's NTU weights"):
        ShiftGCN.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="expected Shift-GCN's NTU weights"):
        ShiftGCN.load(path)


def test_turning_to_the_front_undoes_a_turn_about_the_vertical():
    rng = np.random.default_rng(5)
    joints = rng.normal(size=(7, 20, 3))
    c, s = np.cos(1.1), np.sin(1.1)
    other = joints @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    left, right = looking.LEFT, looking.RIGHT
    assert np.allclose(looking.turned(joints, left, right), looking.turned(other, left, right))


def test_a_body_does_not_say_where_it_stands():
    joints = np.random.default_rng(6).normal(size=(5, 20, 3))
    assert looking.body(joints).shape == (5, 60)
    assert np.allclose(looking.body(joints), looking.body(joints + [1.0, 2.0, 3.0]))


def test_sequences_are_brought_to_moments_by_their_ends():
    x = np.arange(5.0)[:, None]
    assert looking.brought(x, 3)[:, 0].tolist() == [0, 2, 4]
    assert looking.brought(x, 9)[1, 0] == 0.5
    assert looking.brought(x[:1], 4)[:, 0].tolist() == [0, 0, 0, 0]


def test_differences_are_grey_where_nothing_moves():
    now = np.full((1, 2, 2, 3), 100, np.uint8)
    later = now.copy()
    later[0, 0, 0] = 110
    found = looking.difference(now, later)
    assert found[0, 1, 1].tolist() == [128] * 3 and found[0, 0, 0].tolist() == [148] * 3


def test_short_sequences_are_repeated_and_long_ones_thinned_for_shift_gcn():
    joints = np.arange(10.0)[:, None, None] * np.ones((1, 20, 3))
    assert len(looking.fitted(joints)) == looking.FEWEST
    assert looking.fitted(joints)[10, 0, 0] == 0
    many = np.zeros((1000, 20, 3))
    assert len(looking.fitted(many)) == looking.MOST
    ntu = looking.as_ntu(joints)
    assert ntu.shape == (10, 25, 3) and np.allclose(ntu[:, 21], ntu[:, 7])


def test_claims_take_one_setup_of_each_set_and_models_that_know():
    rows = [
        (setup, model, "joints", direction, seed, known, known - drop)
        for setup in ("a1", "a2", "b1")
        for model, known, drop in (("knows", 80, 25), ("knows too", 70, 15), ("guesses", 30, 20))
        for direction in ("x", "y")
        for seed in (0, 1)
    ]
    rows += [("usual", "knows", "joints", "x", 0, np.nan, 50)]
    names = ["setup", "model", "sees", "trained_on", "run", "known", "unknown"]
    runs = pd.DataFrame(rows, columns=names)
    found = numbers.claims(runs, {"a1": "a", "a2": "a", "b1": "b", "usual": "b"})
    drop = found[found["part"] == "drop"]
    assert sorted(drop["context"].unique()) == ["a1, x", "a1, y", "b1, x", "b1, y"]
    assert drop.groupby("model")["value"].mean().to_dict() == {"knows": 25, "knows too": 15}
    assert found[found["part"] == "less"]["value"].mean() == 0
    assert "T7" not in set(found["id"])
    assert list(numbers.claims(runs.head(0), {})) == ["id", "part", "what", "value"]
