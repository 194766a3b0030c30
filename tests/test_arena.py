"""The arena: what its recordings hold, what seeds train on, and a prior that is heard once."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from test_vision_language import CONFIG, LENGTH, RECIPE

from vlact import ROOT, params
from vlact.language.descriptions import describe
from vlact.metrics.groups import GROUPS, groups_of, scored
from vlact.metrics.localization import THUMOS14_TIOUS, evaluate
from vlact.models.actionformer import ActionFormer
from vlact.models.actionvlm import ActionVLM, Variant
from vlact.papers.actionvlm import trials
from vlact.papers.actionvlm.localizing import Clock, Problem
from vlact.stages.arena import drawn
from vlact.tools import calibrate
from vlact.worlds import arena
from vlact.worlds.stadium import neighbours

PAIRS = 6


# The world
def test_twins_differ_in_order_alone():
    known = arena.classes(PAIRS) | arena.unseen()
    twins = [(k, a) for k, a in known.items() if a.twin]
    assert len(twins) == 2 * PAIRS + 2 * len(arena.HELD_OUT)
    for name, action in twins:
        other = known[action.twin]
        assert other.twin == name
        assert [b.pose for b in action.beats] == [b.pose for b in other.beats][::-1]
    said = {describe([b.pose for b in a.beats]) for a in known.values()}
    assert len(said) == len(known)


def test_no_drill_has_shown_what_a_class_shows():
    for action in (arena.classes(0) | arena.unseen()).values():
        poses = [b.pose for b in action.beats]
        pairs = {(a, b) for a, b in zip(poses, poses[1:], strict=False) if a != b}
        assert pairs and pairs <= neighbours()


def test_recordings_show_one_pair_and_hold_late_ones():
    planned = arena.bouts({"train": 1, "test": 1}, 7.0, 5, PAIRS)
    assert not {b.label for b in planned if b.split == "train"} & set(arena.unseen())
    late = 0
    for bout in planned:
        take, mine = bout.plan()
        assert {s[3] for s in take.segments} <= {bout.label, mine.twin}
        assert ("action", bout.label) in {s[2:] for s in take.segments}
        for start, end, what, _ in take.segments:
            poses = [x for a, b, x in take.poses if a >= start and b <= end]
            whole = [b.pose for b in mine.beats]
            if what == "late":
                late += 1
                assert len(poses) == len(whole) - 1
    assert late > 3
    with pytest.raises(ValueError, match="pairs must be in 0..10; got 15"):
        arena.classes(15)


# Seeds and groups
def test_a_larger_draw_holds_the_smaller_and_seeds_differ():
    names = ["Hoist", "Lower"]
    truth = pd.DataFrame(
        [
            {
                "video": f"bout_train_{k.lower()}_{i:03d}.mp4",
                "split": "train",
                "duration_s": 9.0 + i,
            }
            for k in names
            for i in range(6)
        ]
    )
    two, four = (drawn(truth, 1, n, names) for n in (2, 4))
    assert len(two) == 4 and set(two) < set(four)
    assert set(drawn(truth, 2, 2, names)) != set(two)
    assert two == drawn(truth.sample(frac=1, random_state=0), 1, 2, names)


def recordings(n=40, classes=("Leap", "Squat")):
    """Truth with as many recordings of either class, an action in each."""
    return pd.DataFrame(
        [
            {"video": f"{k}{i:02d}", "start_s": 1.0, "end_s": 2.25, "label": k, "duration_s": 4.0}
            for k in classes
            for i in range(n // 2)
        ]
    )


def test_groups_are_alike_and_their_scores_are_those_of_their_recordings():
    truth = recordings()
    groups = groups_of(truth, ["Leap", "Squat"])
    assert sorted(groups.values()) == sorted(list(range(GROUPS)) * 4)
    rng = np.random.default_rng(0)
    found = truth.assign(score=rng.random(len(truth)), start_s=truth["start_s"] + rng.random(40))
    table = scored(truth, found, groups)
    for group in (-1, 3):
        mine = [x[x["video"].map(groups) == group] if group >= 0 else x for x in (truth, found)]
        wanted = evaluate(*mine, tious=THUMOS14_TIOUS).sort_values(["label", "tiou"])["ap"]
        got = table[table["group"] == group].sort_values(["label", "tiou"])["ap"]
        assert np.allclose(got, wanted)


def test_calibration_has_worlds_and_models_of_its_own():
    log = pd.read_csv(ROOT / "vlact" / "worlds" / "arena_calibration.csv")
    assert set(log["model"]) <= {v.name for v in calibrate.BASELINES}
    assert log["world"].min() >= calibrate.FIRST_SEED
    for profile in params.PROFILES:
        p = params.load(profile)
        assert p.arena.seed < calibrate.FIRST_SEED
    with pytest.raises(ValueError, match="seed: expected 900 or more; got 3"):
        calibrate.tried(p, 0)


# A prior that is heard once
@pytest.fixture
def job(tmp_path):
    """Recordings whose features say when and whose prior says what."""
    generator, names = torch.Generator().manual_seed(0), ["Leap", "Squat"]
    truth = recordings(40, ("Leap", "Squat", "Sink"))
    features, heard = {}, {}
    for row in truth.itertuples():
        x = 0.3 * torch.randn(LENGTH, 6, generator=generator)
        x[4:9, 0] += 2
        features[row.video] = x
        for lead, known in (("", names), ("open ", [*names, "Sink"])):
            right = torch.zeros(LENGTH, len(known) + 1)
            if row.label in known:
                right[4:9, known.index(row.label)] = 4
            for hearing in trials.HEARINGS:
                says = right if hearing == "own" else right[:, torch.randperm(len(known) + 1)]
                heard[f"{lead}{hearing}/{row.video}"] = says.half()
    save_file(features, tmp_path / "features.safetensors")
    save_file(heard, tmp_path / "heard.safetensors")
    truth.to_parquet(tmp_path / "truth.parquet", index=False)
    seconds = dict(truth[["video", "duration_s"]].itertuples(index=False, name=None))
    train = {v: s for v, s in seconds.items() if v[-1] in "02" and not v.startswith("Sink")}
    durations = {"train": train, "test": {v: s for v, s in seconds.items() if v not in train}}
    trained, unseen = dict.fromkeys(names, "x"), {"Sink": "y"}
    config = {k: getattr(CONFIG, k) for k in ("feature_dim", "dim", "heads", "embeds", "stems")}
    problem = Problem(
        str(tmp_path / "features.safetensors"), durations, str(tmp_path / "truth.parquet"), trained,
        {"step_s": 0.25}, config | {"classes": 2, "levels": 2}, RECIPE | {"epochs": 20},
    )  # fmt: skip
    heard, out = str(tmp_path / "heard.safetensors"), str(tmp_path / "out")
    return trials.PriorJob(problem, heard, unseen, 0, out, f"{out}.pt")


def test_a_prior_says_what_vision_cannot_and_its_controls_say_nothing(job):
    job()
    ap = pd.read_parquet(f"{job.out}.parquet").query("group == -1")
    ap = 100 * ap.groupby(["model", "condition"])["ap"].mean()
    off = ap["prior at test", "language off"]
    for model in ("prior at test", "prior, trained"):
        assert ap[model, "own"] > off + 15
        assert ap[model, "own"] > ap[model, "noise"] + 15
    # of three classes one was never trained: without language it is told from no other
    new = pd.read_parquet(f"{job.out}.parquet").query("group == -1 and label == 'Sink'")
    new = 100 * new.groupby(["model", "condition"])["ap"].mean()
    assert new["open prior at test", "own"] > new["open prior at test", "language off"] + 15
    found = pd.read_parquet(f"{job.out}-found.parquet")
    assert set(found["condition"]) == set(trials.KEPT)


def test_language_off_is_the_localizer_itself():
    torch.manual_seed(0)
    model = ActionVLM(
        ActionFormer(CONFIG), None, torch.zeros(6), torch.ones(6), Variant("vision only"), LENGTH
    ).eval()
    x, mask = torch.randn(2, LENGTH, 9), torch.ones(2, LENGTH, dtype=torch.bool)
    cut = [(a, b, None, None) for a, b in zip(x, mask, strict=True)]
    mean, std = torch.zeros(9), torch.ones(9)
    given = model, ["Leap", "Squat"], Clock(0.25), RECIPE, mean, std
    with torch.no_grad():
        off = trials.PriorLocalizer(*given).run(("v", 0), cut)
        wanted = model.localizer(x[..., :6], mask)
        told = trials.PriorLocalizer(*given, weight=1.0)
        noise = replace(told, noise=True)
        says, again = (noise.run(("v", 0), cut)[0] for _ in range(2))
        assert torch.equal(off[0], wanted[0]) and torch.equal(off[1], wanted[1])
        assert not torch.equal(told.run(("v", 0), cut)[0], off[0])
        assert torch.equal(says, again)
