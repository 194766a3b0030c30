"""Scene, renderer and workbench."""

import colorsys
import sys
from pathlib import Path

import numpy as np
import pytest

from vlact.language import tasks
from vlact.metrics.classification import random_guess
from vlact.worlds import workbench
from vlact.worlds.corpus import EXPONENT, SHOWN, ata, gtea, ikea, long_tailed, tutorials
from vlact.worlds.render import render
from vlact.worlds.scene import (
    PATTERNS,
    SHAPES,
    Body,
    Camera,
    Part,
    Scene,
    Surface,
    Track,
    euler,
    sample,
)
from vlact.worlds.things import FREE, Look, thing

sys.path.insert(0, str(Path(__file__).parent))
from reference.render_slow import render_flat


def test_track_interpolates_holds_ends_and_jumps():
    track = Track([(0, 0.0), (1, 10.0), (1, 20.0), (2, 20.0)], ease=False)
    assert track(np.array([-1, 0.5, 1.0, 3])).ravel().tolist() == [0, 5, 20, 20]
    eased = Track([(0, 0.0), (1, 1.0)])
    assert eased(np.array([0.25])).item() == pytest.approx(0.25**2 * (3 - 0.5))


@pytest.mark.parametrize(
    "keys, message", [([(1, 0.0), (0, 1.0)], "must not decrease"), ([[0.0]], "rows")]
)
def test_track_rejects_bad_keys(keys, message):
    with pytest.raises(ValueError, match=message):
        Track(keys)


def test_unknown_shape_pattern_surface_are_named():
    for make in (
        lambda: Part("blob", (1, 1, 1)),
        lambda: Part("box", (1, 1, 1), pattern="dots"),
        lambda: Surface(kind="lava"),
    ):
        with pytest.raises(ValueError, match="must be one of"):
            make()


def test_euler_turns_about_one_axis_each():
    x, y, z = np.eye(3)
    assert np.allclose(euler(np.array([90.0, 0, 0])) @ y, z)  # nod: up goes to the viewer
    assert np.allclose(euler(np.array([0.0, 90, 0])) @ z, x)  # spin: the front goes to the right
    assert np.allclose(euler(np.array([0.0, 0, 90])) @ x, y)  # roll: the right goes up


def lone(shape, pattern="half", rot=(25, 40, 15), size=(0.5, 0.6, 0.4), high=1.2):
    part = Part(shape, size, (0.9, 0.3, 0.2), pattern=pattern, colour2=(0.1, 0.3, 0.8))
    camera = Camera(Track.of(0.3, 2.0, 3.2), Track.of(0, 1.0, 0), 45)
    return Scene(
        [Body([part], Track.of(0, high, 0), Track.of(*rot))], camera, light=(0.3, 1.0, 0.6)
    )


@pytest.mark.parametrize("shape, pattern", list(zip(SHAPES, [*PATTERNS, *PATTERNS], strict=True)))
def test_fast_renderer_equals_the_slow_one(shape, pattern):
    scene = lone(shape, pattern)
    slow, which = render_flat(scene, 0.0, 24, 24)
    fast = render([scene], [np.array([0.0])], (24, 24))[0][0] / 255
    on_part = which >= 0
    assert on_part.sum() > 40
    close = np.abs(fast - slow).max(-1) < 0.02
    # A pixel whose ray grazes an edge may fall on either side of it.
    assert close[on_part].mean() > 0.95
    shadow_free = np.zeros_like(on_part)
    shadow_free[:4] = True
    assert close[shadow_free & ~on_part].all()


def test_a_batch_of_scenes_equals_one_by_one_whatever_their_sizes():
    scenes = [
        lone("box"),
        Scene([*lone("torus").bodies, *lone("cone", high=0.7).bodies]),
        lone("capsule"),
    ]
    times = [np.arange(3) / 3, np.arange(5) / 5, np.array([0.0])]
    together = render(scenes, times, (32, 32))
    for scene, t, frames in zip(scenes, times, together, strict=True):
        assert np.abs(frames.astype(int) - render([scene], [t], (32, 32))[0]).max() <= 1


def test_shadow_darkens_the_floor_below_and_nothing_else():
    # the origin is the picture's centre
    camera = Camera(Track.of(0, 3.0, 4.0), Track.of(0, 0, 0), 50)
    high = Scene(
        [Body([Part("sphere", (0.4, 0.4, 0.4))], Track.of(0, 1.5, 0))],
        camera,
        light=(0.0, 1.0, 0.0),
    )
    frame = render([high], [np.array([0.0])], (65, 65))[0][0].astype(float).sum(-1)
    assert frame[32, 32] == pytest.approx(0.55 * frame[64, 0], rel=0.02)
    assert frame[64, 0] == frame[64, 64] == frame[50, 32]


def test_opacity_blends_back_to_front():
    def ball(z, colour, opacity):
        return Body(
            [Part("sphere", (0.4, 0.4, 0.4), colour)], Track.of(0, 1, z), opacity=Track.of(opacity)
        )

    camera = Camera(Track.of(0, 1, 4), Track.of(0, 1, 0), 30)
    scene = Scene([ball(0.6, (1, 0, 0), 0.5), ball(-0.6, (0, 0, 1), 1.0)], camera, ambient=1.0)
    pixel = render([scene], [np.array([0.0])], (33, 33))[0][0, 16, 16]
    assert pixel.tolist() == pytest.approx([128, 0, 128], abs=1)


def test_render_needs_times_for_every_scene():
    with pytest.raises(ValueError, match="one array per scene"):
        render([lone("box")], [])


# The workbench
def acted(verb, obj="block", seed=0):
    rng = np.random.default_rng(seed)
    who = workbench.person("tutorial", rng)
    who.left_handed = False  # a left-hander's spin goes the other way; mirroring has its own test
    return workbench.act(verb, obj, who, workbench.place("tutorial", rng), rng, 2.0)


def path_of(verb, body=0, obj="block", seed=0):
    """Position and rotation of a body (0 = the object, 1 = the hand) over 33 times."""
    b = acted(verb, obj, seed).bodies[body]
    t = np.linspace(0, 2, 33)
    return b.pos(t), b.rot(t)


@pytest.mark.parametrize("verb", workbench.VERBS)
def test_every_program_runs_moves_and_stays_in_sight(verb):
    scene = acted(verb, seed=3)
    frames = render([scene], [np.linspace(0, 1.95, 8)], (32, 32))[0].astype(int)
    assert np.abs(np.diff(frames, axis=0)).max() > 20, "nothing moves"
    assert all(b.pos(np.array([0.0, 1.0, 2.0]))[:, 1].min() > -0.6 for b in scene.bodies), (
        "something sinks through the table"
    )


def test_things_of_their_own_colour_have_it_in_every_recording_and_size_is_a_factor():
    def hues(look, name="cup"):
        found = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            where = workbench.place("furniture", rng, look=look)
            parts, _, half = thing(name, rng, where.palette, look)
            found.append(colorsys.rgb_to_hsv(*parts[0].colour)[0])
        return np.exp(2j * np.pi * np.array(found)), half

    (free, half), (own, large) = hues(FREE), hues(Look("own", 1.5))
    other, _ = hues(Look("own"), "nut")
    assert abs(own.mean()) > 0.99 and large > 1.2 * half
    assert abs(own.mean() - other.mean()) > 0.2
    assert not np.allclose(free, own)


@pytest.mark.parametrize("seed", range(4))
def test_programs_do_what_their_names_say(seed):
    up = path_of("pick up", seed=seed)[0][:, 1]
    assert up[-1] > up[0] + 0.6 and (np.diff(up) > -1e-9).all()
    assert np.allclose(path_of("put down", seed=seed)[0][:, 1], up[::-1], atol=1e-6)
    fall = path_of("drop", seed=seed)[0][:, 1]
    assert fall[0] > 0.8 and abs(fall[-1]) < 1e-6
    toward = path_of("take", seed=seed)[0]
    assert toward[-1, 2] > toward[0, 2] + 0.8
    assert path_of("push", seed=seed)[0][-1, 2] < path_of("push", seed=seed)[0][0, 2] - 0.7
    spin = path_of("spin", seed=seed)[1][:, 1]
    assert spin[-1] - spin[0] == pytest.approx(500) and (np.diff(spin) >= -1e-9).all()
    strokes = path_of("hammer", body=2, seed=seed)[0][:, 1]
    assert ((strokes[1:-1] < strokes[:-2]) & (strokes[1:-1] <= strokes[2:])).sum() >= 3
    sway = path_of("balance", seed=seed)
    assert np.ptp(sway[1][:, 2]) > 20 and np.allclose(sway[0], sway[0][0])
    screw = path_of("fasten", obj="screw", seed=seed)
    assert (
        abs(np.ptp(screw[1][:, 1])) == pytest.approx(720)
        and screw[0][-1, 1] < screw[0][0, 1] - 0.15
    )
    inserted = path_of("insert", obj="pin", seed=seed)[0][:, 1]
    assert inserted[-1] < inserted[len(inserted) // 2] - 0.2
    idle = path_of("idle", body=1, seed=seed)[0]
    assert np.linalg.norm(idle - idle[0], axis=1).max() < 0.1


def test_no_program_spins_faster_than_the_frame_rate_can_show():
    for verb in workbench.VERBS:
        for body in acted(verb).bodies:
            t = np.arange(0, 2, 1 / 8)
            assert np.abs(np.diff(body.rot(t), axis=0)).max() < 80, verb


def test_left_handed_people_mirror_the_action():
    rng = np.random.default_rng(0)
    who = workbench.person("assembly", rng)
    where = workbench.place("assembly", rng, "front")
    where.clutter = 0
    poses = []
    for left in (False, True):
        who.left_handed = left
        scene = workbench.act("take", "ring", who, where, np.random.default_rng(5), 2.0)
        poses.append(sample(scene, np.linspace(0, 2, 5))["centre"])
    assert np.allclose(poses[0][..., 0], -poses[1][..., 0]) and np.allclose(
        poses[0][..., 1:], poses[1][..., 1:]
    )


def test_unknown_words_are_named():
    for arguments in (("juggle", "block"), ("take", "dragon")):
        with pytest.raises(ValueError, match="must be one of"):
            acted(*arguments)
    with pytest.raises(ValueError, match="domain"):
        workbench.person("moon", np.random.default_rng(0))


def test_corpora_balance_verbs_and_keep_participants_apart():
    plan = tutorials(40, 14, seed=0)
    verbs = [v for r in plan for v, _ in r.actions]
    counts = [verbs.count(v) for v in workbench.VERBS]
    assert len(workbench.VERBS) >= 40 and max(counts) - min(counts) <= 1
    people = {}
    for r in ata({"train": 3, "val": 1, "test": 2}, {"base": 12, "novel": 8}, 10, 0):
        people.setdefault(r.split, set()).add(r.group)
        novel = {a for a in r.actions} & {("drop", "item"), ("spin", "block"), ("hammer", "pin")}
        assert r.split == "test" or not novel
    assert not people["train"] & people["test"] and not people["val"] & people["test"]


@pytest.mark.parametrize("name, published", [("ata", 0.185), ("ikea", 0.071), ("gtea", 0.228)])
def test_class_frequencies_give_the_published_f1_of_guessing(name, published):
    novel = tasks.DATASETS[name][1]
    drawn = [novel.index(a) for a in long_tailed(novel, 10000, EXPONENT[name])]
    assert random_guess(drawn, len(novel))["f1"] == pytest.approx(published, abs=0.0006)
    assert set(long_tailed(novel, 3, EXPONENT[name])) == set(novel)  # everybody at least once


def test_folds_hold_every_class_and_share_rooms_but_no_people():
    plan = ikea(2, {"base": 25, "novel": 12}, 10, 0)
    assert {r.group for r in plan} == {f"env{k}" for k in range(1, 6)} and {
        r.view for r in plan
    } == set(workbench.IKEA_VIEWS)
    for env in {r.group for r in plan}:
        mine = [r for r in plan if r.group == env]
        assert {a for r in mine for a in r.actions} == set(tasks.IKEA_BASE + tasks.IKEA_NOVEL)
        assert len({r.room_seed for r in mine}) == 1 and len({r.person_seed for r in mine}) == 2
    assert {r.split for r in plan} == {"train", "val"}
    cooks = gtea({"base": 20, "novel": 10}, 10, 0)
    assert {r.group for r in cooks} == {"S1", "S2", "S3", "S4"} and {r.view for r in cooks} == {
        "ego"
    }
    assert all(
        {a for r in cooks if r.group == s for a in r.actions}
        == set(tasks.GTEA_BASE + tasks.GTEA_NOVEL)
        for s in ("S1", "S4")
    )


def test_every_label_of_the_datasets_can_be_acted():
    for domain, view, actions in (
        ("furniture", "dev1", tasks.IKEA_BASE + tasks.IKEA_NOVEL),
        ("kitchen", "ego", [(v, "cup") for v, _ in tasks.GTEA_BASE + tasks.GTEA_NOVEL]),
    ):
        rng = np.random.default_rng(0)
        who, where = workbench.person(domain, rng), workbench.place(domain, rng, view)
        for verb, obj in actions:
            scene = workbench.act(
                "put down" if verb == "put" else verb, SHOWN.get(obj, obj), who, where, rng, 2.0
            )
            assert len(scene.bodies) >= 2


def test_a_room_is_the_same_for_every_recording_and_an_egocentric_camera_moves():
    one, two = (
        workbench.place("furniture", np.random.default_rng(s), "dev2", np.random.default_rng(9))
        for s in (1, 2)
    )
    assert (
        one.floor == two.floor
        and one.wall == two.wall
        and one.light == two.light
        and one.palette() != two.palette()
    )
    t = np.linspace(0, 2, 9)
    still, moving = (
        workbench.place("kitchen", np.random.default_rng(0), v).camera.eye(t)
        for v in ("front", "ego")
    )
    assert np.ptp(still, axis=0).max() == 0 and np.ptp(moving, axis=0).max() > 0.05


def test_things_attached_touch_and_a_positioned_drawer_ends_upright():
    scene = acted("attach", "shelf")
    t = np.array([2.0])
    shelf, post = scene.bodies[0], scene.bodies[2]
    gap = shelf.pos(t)[0, 0] - shelf.parts[0].size[0] - post.pos(t)[0, 0] - post.parts[0].size[0]
    assert abs(gap) < 0.05
    drawer = acted("position", "drawer").bodies[0]
    assert (
        drawer.rot(np.array([0.0]))[0, 2] == 90
        and drawer.rot(t)[0, 2] == 0
        and abs(drawer.pos(t)[0, 1]) < 0.05
    )
