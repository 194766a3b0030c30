"""The stadium: what its labels say is so, from the scene itself."""

import numpy as np
import pytest
from test_across import SPORTS

from vlact import video
from vlact.worlds import broadcast
from vlact.worlds.broadcast import Broadcast, drills, film, plan, thumos
from vlact.worlds.scene import Track
from vlact.worlds.stadium import (
    ACTIONS,
    FOREARM,
    GROUND,
    POSES,
    SHANK,
    THIGH,
    TORSO,
    UPPER_ARM,
    Beat,
    Take,
    beats,
    look,
    place_body,
    pose,
    shoot,
    skeleton,
    whole,
)

THUMOS14 = (
    "BaseballPitch BasketballDunk Billiards CleanAndJerk CliffDiving CricketBowling CricketShot "
    "Diving FrisbeeCatch GolfSwing "
    "HammerThrow HighJump JavelinThrow LongJump PoleVault Shotput SoccerPenalty TennisSwing "
    "ThrowDiscus VolleyballSpiking"
).split()


def performed(label, what="action", seed=0):
    """A shot of one event and the points of the body during it."""
    take = Take(np.random.default_rng(seed), 1.0)
    take.cut()
    take.act(label, ACTIONS[label], what)
    start, end, _, _ = take.segments[0]
    times = np.linspace(start, end, 60)
    return take, times, place_body(take.keys[0], times, ACTIONS[label].stand)


# Poses
def test_the_classes_are_those_of_thumos14_in_their_order():
    assert list(ACTIONS) == THUMOS14


def test_limbs_keep_their_length_in_any_pose():
    angles = np.random.default_rng(0).uniform(-180, 180, (50, 13))
    at = skeleton(angles)
    for side in "rl":
        for a, b, length in (
            ("shoulder", "elbow", UPPER_ARM),
            ("elbow", "hand", FOREARM),
            ("hip", "knee", THIGH),
            ("knee", "foot", SHANK),
        ):
            assert np.allclose(
                np.linalg.norm(at[f"{side}_{a}"] - at[f"{side}_{b}"], axis=1), length
            )
    assert np.allclose(np.linalg.norm(at["neck"] - at["pelvis"], axis=1), TORSO)


def points(name):
    return {k: v[0] for k, v in skeleton(POSES[name][None]).items()}


def test_poses_are_what_they_are_called():
    stand = points("stand")
    assert stand["head"][1] > stand["neck"][1] > 0 > stand["r_knee"][1] > stand["r_foot"][1]
    assert stand["r_hip"][2] > 0 > stand["l_hip"][2]
    overhead, squat, kick, upside, entry, thrown, cock = map(
        points, "overhead,squat,kick,upside down,entry,thrown,cock".split(",")
    )
    assert min(overhead["r_hand"][1], overhead["l_hand"][1]) > overhead["head"][1]
    assert squat["r_foot"][1] > stand["r_foot"][1] + 0.3  # the pelvis sinks by as much
    assert kick["r_foot"][0] > 0.5 > kick["l_foot"][0]
    assert upside["head"][1] < 0 < upside["r_foot"][1]
    assert entry["r_hand"][1] == min(p[1] for p in entry.values())
    assert thrown["r_hand"][0] > 0.3 and cock["r_hand"][0] < 0


def test_wrong_joints_and_poses_are_named():
    with pytest.raises(ValueError, match="unknown joint 'tail'"):
        pose(tail=3)
    with pytest.raises(ValueError, match="unknown pose 'fly'"):
        Beat("fly", 0.3)
    assert (
        beats("run*3, crouch .2 +.3 ^.1 @90")[-1] == Beat("crouch", 0.2, 0.3, 0.1, 90.0)
        and len(beats("run*3")) == 3
    )


# Actions
def reached(label):
    return [b.pose for b in ACTIONS[label].beats]


def test_classes_are_as_hard_as_declared():
    common = {"run left", "run right", "leap", "crouch"}
    for label, action in ACTIONS.items():
        others = {p for other in ACTIONS if other != label for p in reached(other)} | common
        if action.design == "own":
            assert set(reached(label)) - others, label
        if action.design == "shared":
            mine, twin = set(reached(label)), set(reached(action.twin))
            assert ACTIONS[action.twin].twin == label and mine & twin, label
    # the same two poses, the other way round
    assert reached("Shotput")[1:3] == reached("FrisbeeCatch")[:1:-1]
    assert {k for k, a in ACTIONS.items() if a.design == "reversed"} == {
        "Billiards",
        "CleanAndJerk",
        "FrisbeeCatch",
        "Shotput",
    }


def test_the_body_stands_on_the_ground_and_jumps_off_it():
    for label in ("GolfSwing", "Shotput", "CleanAndJerk", "Billiards"):
        _, _, at = performed(label)
        assert np.allclose(np.min([p[:, 1] for p in at.values()], axis=0), GROUND, atol=1e-6), label
    hips = {
        label: performed(label)[2]["pelvis"]
        for label in ("HighJump", "LongJump", "PoleVault", "VolleyballSpiking")
    }
    assert hips["PoleVault"][:, 1].max() > hips["HighJump"][:, 1].max() > 1.3
    assert np.ptp(hips["LongJump"][:, 0]) > 3 and hips["VolleyballSpiking"][:, 1].max() > 1.3


@pytest.mark.parametrize("label", ["Diving", "CliffDiving"])
def test_divers_start_high_turn_over_and_enter_with_the_hands(label):
    _, _, at = performed(label)
    assert at["r_foot"][0, 1] == pytest.approx(ACTIONS[label].stand + GROUND, abs=1e-3)
    assert at["head"][-1, 1] < at["r_foot"][-1, 1] and at["r_hand"][-1, 1] < 0


def test_throwers_turn_as_often_as_they_should():
    for label, turns in (("HammerThrow", 3), ("ThrowDiscus", 1)):
        take, times, _ = performed(label)
        yaw = Track(np.asarray(take.keys[0]))(times)[:, 2]
        assert np.ptp(yaw) // 360 == turns and (np.diff(yaw) >= -1e-9).all()


def test_the_barbell_goes_up_and_a_ball_flies_ahead():
    _, _, at = performed("CleanAndJerk")
    assert at["r_hand"][-1, 1] - at["r_hand"][:20, 1].min() > 1.2
    take, times, _ = performed("BaseballPitch")
    scene = shoot(
        take.keys[0],
        ACTIONS["BaseballPitch"],
        take.flights,
        look(np.random.default_rng(0)),
        times,
        np.random.default_rng(0),
    )
    ball = next(
        b for b in scene.bodies if len(b.parts) == 1 and b.parts[0].size == (0.075, 0.075, 0.075)
    ).pos(times)
    gone = times > take.flights[0][0]
    assert gone.any() and (np.diff(ball[gone, 0]) > 0).all() and ball[-1, 0] - ball[gone][0, 0] > 1


def test_broken_performances_miss_the_end_and_reversed_ones_run_backwards():
    for label in ACTIONS:
        take, *_ = performed(label, "broken")
        start, end, what, _ = take.segments[0]
        inside = [p for s, e, p in take.poses if s >= start - 1e-9 and e <= end + 1e-9]
        n = whole(ACTIONS[label])
        assert (
            what == "broken"
            and inside == reached(label)[:n]
            and reached(label)[n] not in inside
            and n >= 1
        )
    deeds = {label: reached(label)[whole(a)] for label, a in ACTIONS.items()}
    assert (
        deeds["BasketballDunk"] == "slam"
        and deeds["VolleyballSpiking"] == "spike"
        and deeds["CleanAndJerk"] == "overhead"
    )
    take, *_ = performed("CleanAndJerk", "reversed")
    start, end, *_ = take.segments[0]
    assert [p for s, e, p in take.poses if s >= start - 1e-9 and e <= end + 1e-9] == reached(
        "CleanAndJerk"
    )[::-1]


# Recordings
def test_a_recording_has_actions_and_distractors_that_never_overlap():
    kinds = set()
    for k, label in enumerate(ACTIONS):
        take, _ = plan(Broadcast("x", label, (3, k), "train", 32.0))
        found = sorted(take.segments)
        assert all(a[1] <= b[0] + 1e-9 for a, b in zip(found, found[1:], strict=False)) and any(
            s[2] == "action" for s in found
        )
        assert take.now >= 32 and {s[3] for s in found} == {label}
        kinds |= {(s[2], ACTIONS[label].design == "reversed") for s in found}
    assert (
        ("reversed", True) in kinds
        and ("reversed", False) not in kinds
        and ("broken", False) in kinds
    )


def test_drills_hold_no_order_that_a_class_has_nor_its_reverse():
    found = [
        s
        for i in range(12)
        for s in plan(Broadcast("x", "", (3, 41, i), "drill", 32.0))[0].segments
    ]
    orders = [name.split(" > ") for *_, what, name in found if what == "drill"]
    assert len(orders) == len(found) > 60 and len({tuple(o) for o in orders}) > 0.95 * len(orders)
    steps = {(a.removesuffix(" right"), b) for o in orders for a, b in zip(o, o[1:], strict=False)}
    taken = {
        (a, b)
        for label in ACTIONS
        for a, b in zip(reached(label), reached(label)[1:], strict=False)
    }
    assert not steps & (taken | {(b, a) for a, b in taken})
    assert {"tuck", "cue forward", "run left"} <= {p for o in orders for p in o}
    both = drills(10, 8.0, 3)
    assert [b.split for b in both] == ["drill"] * 8 + ["held out"] * 2 and not {
        b.label for b in both
    } - {""}


def test_recordings_are_files_with_the_ground_truth_of_what_was_filmed(tmp_path):
    one = Broadcast("a", "CliffDiving", (3, 1), "test", 6.0)
    found = film(one, tmp_path, 32, 8.0)
    info = video.probe(tmp_path / "a.mp4")
    assert len(info.times) == round(found["duration_s"] * 8) and found["split"] == "test"
    assert {a["label"] for a in found["annotations"]} == {"CliffDiving", "Diving"}
    assert all(
        0 <= a["start_s"] < a["end_s"] <= found["duration_s"]
        for a in found["annotations"] + found["distractors"]
    )
    first = (tmp_path / "a.mp4").read_bytes()
    assert film(one, tmp_path, 32, 8.0) == found and (tmp_path / "a.mp4").read_bytes() == first
    again = broadcast.film_job(one, str(tmp_path), str(tmp_path / "notes"), 32, 8.0)
    (tmp_path / "a.mp4").unlink()
    assert (
        broadcast.film_job(one, str(tmp_path), str(tmp_path / "notes"), 32, 8.0) == again == found
    )
    assert not (tmp_path / "a.mp4").exists()  # what an earlier run filmed is not filmed again


def test_sets_hold_every_class_and_share_no_seed():
    found = thumos({"train0": 2, "train1": 2, "test": 3}, 8.0, 1)
    assert len(found) == 20 * 7 == len({b.name for b in found}) == len({b.seed for b in found})
    assert all(sum(b.label == c and b.split == "test" for b in found) == 3 for c in ACTIONS)


# What is said of them
def test_every_pose_has_words_and_none_names_a_class():
    from vlact.language.descriptions import WORDS

    assert set(WORDS) == set(POSES)
    said = " ".join(w for words in WORDS.values() for w in words)
    assert not [
        s for s in SPORTS.split() if s in said.replace("somersault", "").replace("divid", "")
    ]


def test_descriptions_tell_the_order_and_tell_classes_apart():
    from vlact.language.descriptions import describe, moments

    said = {label: describe(reached(label)) for label in ACTIONS}
    same = {frozenset((a, b)) for a in said for b in said if a < b and said[a] == said[b]}
    assert same == {frozenset(("CliffDiving", "Diving"))}  # one is the other, from higher up
    shot, catch = moments(reached("Shotput")), moments(reached("FrisbeeCatch"))
    assert shot == catch[:0:-1] and describe(shot) != describe(shot[::-1])
    assert describe(["crouch"]) == "the person crouches"
    drawn = {describe(["crouch", "leap", "slam"], np.random.default_rng(k)) for k in range(40)}
    assert len(drawn) > 10
    with pytest.raises(ValueError, match="got none"):
        describe([])
    with pytest.raises(ValueError, match=r"got \['fly'\]"):
        describe(["crouch", "fly"])


# Kitchens
def test_kitchens_have_pauses_long_tails_and_no_shared_seed():
    from vlact.worlds.kitchen import BARE, EPIC_NOUNS, EPIC_VERBS, PAUSE, kitchens
    from vlact.worlds.workbench import OBJECTLESS, VERBS

    found = kitchens({"train0": 20, "train1": 20, "test": 20}, 12, 3)
    assert len({r.name for r in found}) == len({r.seed for r in found}) == 60 and found == kitchens(
        {"train0": 20, "train1": 20, "test": 20}, 12, 3
    )
    assert set(EPIC_VERBS) <= set(VERBS) and set(BARE) == set(EPIC_VERBS) & set(OBJECTLESS)
    done = [a for r in found for a in r.actions]
    verbs = [v for v, _ in done if v != PAUSE]
    assert len(verbs) == 720 and 180 < len(done) - 720 < 300
    assert verbs.count("take") > 2 * verbs.count("squeeze") > 0
    assert all(
        (n == "") == (v in BARE or v == PAUSE) and (n in EPIC_NOUNS or not n) for v, n in done
    )


def test_a_session_is_one_instance_a_stretch_of_performances():
    for k, one in enumerate(broadcast.sessions({"train": 2}, 44.0, 3)):
        take, action = plan(one)
        found = [s for s in take.segments if s[2] == "action"]
        assert action is ACTIONS[one.label] and 1 <= len(found) <= 2 and 44 <= take.now < 62, k
        assert all(e - s > 4 and label == one.label for s, e, _, label in found)
        done = sum(b.s for b in action.beats)
        assert sum(e - s for s, e, *_ in found) > 2 * done, "several performances"
        outside = [s for s in take.segments if s[2] == "broken"]
        assert all(e <= a or s >= b for s, e, *_ in outside for a, b, *_ in found)
