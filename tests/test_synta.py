"""Syn-TA: the physical statement of every label holds in the scene, the taxonomy and the published
lists are read loudly.
"""

import numpy as np
import pandas as pd
import pytest

from vlact import video
from vlact.datasets import transfer
from vlact.language.motions import check, coarse_names, fine_names, taxonomy
from vlact.worlds import synta
from vlact.worlds.synta import OUTSIDE, RADIUS, STEPS, act

TAXONOMY = taxonomy("Syn-TA").astype({"number": int})
NUMBERS = {(r.coarse, r.number): r.coarse_id for r in TAXONOMY.itertuples()}


def staged(coarse: str, number: int, times: int = 12):
    return [
        act(NUMBERS[coarse, number], number, np.random.default_rng((7, i))) for i in range(times)
    ]


def still(one) -> bool:
    return np.allclose(one.pos, one.pos[0]) and np.allclose(one.size, one.size[0])


def moment(values, level) -> int:
    """First moment at which an array passes a level."""
    return int(np.argmax(values > level))


def turning(one, centre, axes) -> float:
    """Full turns about a centre in a plane, signed."""
    x, y = (one.pos[:, k] - centre[:, k] for k in axes)
    return float(np.diff(np.unwrap(np.arctan2(y, x))).sum() / (2 * np.pi))


def gap(a, b) -> np.ndarray:
    """Between the surfaces of two solids, at most (STEPS,): of bounding spheres in the plane."""
    return np.linalg.norm((a.pos - b.pos)[:, [0, 2]], axis=1) - 0.62 * RADIUS * (a.size + b.size)


# The taxonomy
def test_the_taxonomies_are_the_published_ones():
    counts = {"Syn-TA": (20, 53, 47), "K400-TA": (41, 111, 94), "SSv2-TA": (26, 81, 68)}
    for name, (coarse, one, two) in counts.items():
        table = taxonomy(name)
        assert (len(coarse_names(table)), len(fine_names(table, 1)), len(fine_names(table, 2))) == (
            coarse,
            one,
            two,
        )
    assert coarse_names(TAXONOMY)[:3] == ["appearing", "arriving", "bouncing"]
    for coarse, part in TAXONOMY.groupby("coarse"):
        assert sorted(part["number"]) == list(range(1, len(part) + 1)), coarse


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda t: t.assign(coarse=t["coarse"].where(t.index != 4, "")),
            "'Single object arriving beside another.*no coarse class",
        ),
        (
            lambda t: t.assign(fine=t["fine"].where(t.index != 60, t["fine"][0])),
            "sets overlap in 1 fine classes",
        ),
        (lambda t: t[t["set"] == 1], r"expected sets 1 and 2, got \[1\]"),
        (
            lambda t: t.assign(fine_id=t["fine_id"].where(t.index != 5, 99)),
            "fine ids of set 1 must be 0..52",
        ),
        (
            lambda t: t.assign(coarse=t["coarse"].where(t.index != 5, "hopping")),
            "coarse id 2 has several names",
        ),
        (
            lambda t: t[~((t["set"] == 2) & (t["coarse_id"] == 19))],
            "'teleporting' has fine classes in one set only",
        ),
        (lambda t: t.drop(columns="fine"), "missing columns"),
    ],
)
def test_a_taxonomy_that_cannot_serve_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        check(change(TAXONOMY.reset_index(drop=True)), "mine.csv")


def test_an_unknown_dataset_is_named():
    with pytest.raises(ValueError, match="no dataset 'Kinetics'; expected one of"):
        taxonomy("Kinetics")


# Physics
def test_every_fine_class_has_a_program_with_whole_arrays():
    for row in TAXONOMY.itertuples():
        for stage in staged(row.coarse, row.number, 4):
            assert 1 <= len(stage.things) <= 9, row.fine
            for one in stage.things:
                assert (
                    one.pos.shape == (STEPS, 3)
                    and one.size.shape == one.opacity.shape == (STEPS,)
                    and one.colour.shape == (STEPS, 3)
                )
                assert (
                    np.isfinite(one.pos).all()
                    and one.opacity.min() >= 0
                    and one.opacity.max() <= 1
                    and one.size.min() > 0.1
                )
                assert (one.pos[:, 1] >= one.height - 1e-6).all() or (row.coarse, row.number) in {
                    ("orbiting", 5),
                    ("orbiting", 6),
                }, row.fine
                assert 0 <= one.colour.min() and one.colour.max() <= 1


def test_the_same_seed_is_the_same_motion_and_another_is_not():
    a, b, c = (act(12, 1, np.random.default_rng(s)).things[0].pos for s in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_single_two_and_multiple_are_as_many_as_they_say():
    alone = {
        "appearing": [1],
        "arriving": [1],
        "bouncing": [1, 5, 6, 7, 8],
        "changing color": [1, 3, 4, 5],
        "departing": [1],
    }
    alone |= {
        "disappearing": [1],
        "expanding": [1, 2],
        "falling": [1, 2, 3, 4],
        "moving in a path": [1, 2, 3, 5, 6],
    }
    alone |= {
        "rising": [1, 2, 3, 4],
        "shooting projectile": [1, 2, 3],
        "shrinking": [1, 2],
        "teleporting": [1],
    }
    two = {
        "arriving": [5, 6],
        "changing color": [2],
        "departing": [5, 6],
        "expanding": [3, 4],
        "following": [1, 2, 4, 5],
    }
    two |= {
        "moving in a path": [4],
        "not colliding": [1, 2, 4],
        "occlusion": [1, 2, 3],
        "orbiting": [1, 2, 3, 4, 5, 6],
    }
    two |= {"shooting projectile": [4, 5], "shrinking": [3, 4], "teleporting": [2, 3, 5]}
    many = {
        "appearing": [2, 3, 4],
        "arriving": [2, 3, 4],
        "bouncing": [2, 3],
        "departing": [2, 3, 4],
        "disappearing": [2, 3, 4],
    }
    many |= {"following": [3], "not colliding": [3, 5], "occlusion": [4], "teleporting": [4]}
    for wanted, allowed in ((alone, {1}), (two, {2}), (many, {3, 4, 5})):
        for coarse, numbers in wanted.items():
            for n in numbers:
                assert {len(s.things) for s in staged(coarse, n)} <= allowed, (coarse, n)


def test_opacity_rises_when_appearing_and_falls_when_disappearing_one_by_one_in_order():
    for coarse, sign in (("appearing", 1), ("disappearing", -1)):
        for n in (1, 2, 3, 4):
            for stage in staged(coarse, n):
                faded = [one for one in stage.things if not np.allclose(one.opacity, 1)]
                assert len(faded) == (2 if n == 4 else len(stage.things)) and all(
                    still(one) for one in stage.things
                )
                assert all(
                    (sign * np.diff(one.opacity) >= 0).all() and np.ptp(one.opacity) == 1
                    for one in faded
                )
                half = [moment(sign * one.opacity, sign * 0.5) for one in faded]
                assert (np.diff(half) > 8).all() if n == 3 else np.ptp(half) <= 2


def test_who_arrives_comes_from_outside_and_who_departs_leaves():
    for coarse, first, last in (("arriving", 0, -1), ("departing", -1, 0)):
        for n in (1, 2, 3, 4, 5):
            for stage in staged(coarse, n):
                moved = [one for one in stage.things if not still(one)]
                assert len(moved) == (1 if n in (1, 4, 5) else len(stage.things))
                assert all(
                    abs(one.pos[first, 0]) == pytest.approx(OUTSIDE) and abs(one.pos[last, 0]) < 2.2
                    for one in moved
                )
                if n == 3:
                    begun = [moment(np.abs(one.pos - one.pos[0]).sum(1), 0.3) for one in moved]
                    assert (np.diff(begun) > 8).all()
                if n == 5:
                    there = next(one for one in stage.things if still(one))
                    assert gap(moved[0], there)[last] < 1.0
        for stage in staged(coarse, 6):  # and back again
            one = stage.things[1]
            path = np.abs(one.pos[:, 0])
            assert (
                path[0] == pytest.approx(path[-1], abs=0.05)
                and np.ptp(path) > 2
                and 20 < np.argmax(np.abs(path - path[0])) < 100
            )


def test_bounces_lose_height_unless_perpetual_and_stairs_go_their_way():
    def tops(one, axis=1):
        y = one.pos[:, axis]
        return y[1:-1][(y[1:-1] >= y[:-2]) & (y[1:-1] > y[2:])]

    for n in (1, 2, 3):
        for stage in staged("bouncing", n):
            assert all(
                one.pos[-1, 1] == pytest.approx(one.height[-1], abs=0.01) for one in stage.things
            )
            assert all(
                (np.diff(tops(one)) < 0).all() and len(tops(one)) >= 3 for one in stage.things
            )
            spread = np.ptp([one.pos[0, 1] - one.height[0] for one in stage.things])
            assert n == 1 or (spread < 0.3 if n == 2 else spread > 1)
    for stage in staged("bouncing", 4):
        slab, one = stage.things
        away = np.abs(one.pos[:, 0] - slab.pos[:, 0])
        assert (
            still(slab)
            and ((away[1:-1] < away[:-2]) & (away[1:-1] <= away[2:])).sum() >= 3
            and np.ptp(one.pos[:, 1]) == 0
        )
    for stage in staged("bouncing", 5):
        assert (stage.side * np.diff(stage.things[0].pos[:, 0]) > 0).all() and len(
            tops(stage.things[0])
        ) >= 3
    for stage in staged("bouncing", 6):
        assert np.ptp(tops(stage.things[0])) < 0.1
    for n, sign in ((7, -1), (8, 1)):
        for stage in staged("bouncing", n):
            y = stage.things[0].pos[:, 1]
            assert sign * (y[-1] - y[0]) > 1 and len(tops(stage.things[0])) >= 3


def test_colours_change_and_nothing_else():
    for n in (1, 2, 3, 4, 5):
        for stage in staged("changing color", n):
            assert all(still(one) for one in stage.things)
            light = stage.things[0].colour.sum(1)
            start, end = stage.things[0].colour[0], stage.things[0].colour[-1]
            if n == 1:
                turns = np.abs(
                    np.diff(np.sign(np.diff(stage.things[0].colour, axis=0)), axis=0)
                ).sum()
                assert turns >= 3
            if n == 2:
                other = stage.things[1].colour
                assert (
                    np.allclose(start, other[-1])
                    and np.allclose(end, other[0])
                    and not np.allclose(start, end)
                )
            if n in (3, 4):
                assert (light[-1] < 0.3 * light[0]) if n == 3 else (light[0] < 0.3 * light[-1])
            if n == 5:
                assert (
                    np.allclose(start, end)
                    and np.abs(stage.things[0].colour - start).sum(1).max() > 0.9
                )


def test_shapes_change_into_what_is_said_in_place():
    for n, into in enumerate(("pyramid", "cube", "sphere", "cylinder"), 1):
        for stage in staged("changing shape", n):
            old, new = stage.things
            assert new.primitive == into != old.primitive and np.array_equal(
                old.pos[:, [0, 2]], new.pos[:, [0, 2]]
            )
            assert old.opacity[0] == new.opacity[-1] == 1 and old.opacity[-1] == new.opacity[0] == 0
    for stage in staged("changing shape", 5):
        one, other, new_one, new_other = stage.things
        assert (one.primitive, other.primitive) == (
            new_other.primitive,
            new_one.primitive,
        ) and one.primitive != other.primitive
    for stage in staged("changing shape", 6):
        assert [x.opacity[[0, 60, -1]].round(2).tolist() for x in stage.things] == [
            [1, 0, 1],
            [0, 1, 0],
        ]


def test_clones_start_as_one_and_are_identical():
    for n in range(1, 6):
        for stage in staged("cloning", n):
            assert all(
                np.allclose(one.pos[0, [0, 2]], stage.things[0].pos[0, [0, 2]], atol=1e-6)
                for one in stage.things
            )
            assert len({one.primitive for one in stage.things}) == 1 and len(stage.things) >= 2
            same = all(np.allclose(one.colour, stage.things[0].colour) for one in stage.things)
            assert same == (n != 5)
            if n in (1, 2):
                late = [one.pos[-1, 0] - one.pos[60, 0] for one in stage.things]
                assert (
                    np.sign(late[0]) == (1 if n == 1 else -1) * np.sign(late[1])
                    and gap(*stage.things)[-1] > 0
                )
            if n in (3, 4):
                copies = [one for one in stage.things if not still(one)]
                left = [moment(np.abs(one.pos - one.pos[0]).sum(1), 0.02) for one in copies]
                assert len(copies) >= 3 and (
                    (np.diff(left) > 5).all() if n == 3 else np.ptp(left) < 5
                )


def test_sizes_grow_and_shrink_as_said():
    sizes = {
        (c, n): np.array([[one.size[[0, -1]] for one in s.things] for s in staged(c, n)])
        for c in ("expanding", "shrinking")
        for n in range(1, 5)
    }
    assert (sizes["expanding", 1][..., 1] < 1.5).all() and (
        sizes["expanding", 2][..., 1] > 1.8
    ).all()
    assert (sizes["shrinking", 1][..., 1] > 0.9).all() and (
        sizes["shrinking", 2][..., 1] < 0.35
    ).all()
    for (coarse, n), found in sizes.items():
        assert ((found[..., 1] > found[..., 0]) == (coarse == "expanding")).all()
        first, last = (np.ptp(found[..., k], axis=1) for k in (0, 1))
        if n == 3:
            assert (first > 0.1).all() and (last < 1e-9).all()
        if n == 4:
            assert (last > 0.3).all() and (
                (first < 1e-9) if coarse == "expanding" else (first > 0.1)
            ).all()


def test_what_falls_falls_and_what_rises_rises():
    for coarse, sign in (("falling", -1), ("rising", 1)):
        for n in (1, 2, 3, 4):
            for stage in staged(coarse, n):
                x, y, _ = stage.things[0].pos.T
                assert (sign * np.diff(y) >= -1e-9).all() and np.ptp(y) > 2
                turns = (np.diff(np.sign(np.diff(x)[np.abs(np.diff(x)) > 1e-9])) != 0).sum()
                straight = np.abs(np.diff(x, 2)[8:-8]).max() < 1e-9
                assert {
                    1: np.ptp(x) == 0,
                    2: turns >= 3,
                    3: straight and np.ptp(x) > 1.5,
                    4: turns == 0 and np.ptp(x) > 1.5 and not straight,
                }[n]


def test_followers_keep_behind_and_late_ones_catch_up():
    for n in (1, 3, 4):
        for stage in staged("following", n):
            for ahead, behind in zip(stage.things, stage.things[1:], strict=False):
                far = np.linalg.norm((ahead.pos - behind.pos)[:, [0, 2]], axis=1)
                assert far.max() < 1.9 and far.min() > 0.2
                assert np.median(stage.side * (ahead.pos - behind.pos)[:, 0]) > 0.2
    for stage in staged("following", 2):
        far = np.linalg.norm((stage.things[0].pos - stage.things[1].pos)[:, [0, 2]], axis=1)
        assert far[:50].max() < 1.2 and far[-1] > 1.8
    for stage in staged("following", 5):
        leader, late = stage.things
        assert (
            still_until(late, 0.3) and np.abs(late.pos[-30:, 2] - leader.pos[-30:, 2]).max() < 0.6
        )


def still_until(one, share: float) -> bool:
    n = int(share * STEPS)
    return np.allclose(one.pos[:n], one.pos[0])


def test_merging_ends_with_fewer_and_what_does_not_collide_never_touches():
    for n, left in ((1, 1), (2, 1), (3, 1), (4, 2)):
        for stage in staged("merging", n):
            assert (
                sum(one.opacity[-1] > 0.5 for one in stage.things)
                == left
                < sum(one.opacity[0] > 0.5 for one in stage.things)
            )
            gone = [one for one in stage.things if one.opacity[-1] < 0.5]
            assert (
                min(
                    np.linalg.norm(a.pos[85] - b.pos[85])
                    for i, a in enumerate(gone)
                    for b in gone[i + 1 :]
                )
                < 0.5
            )
    for stage in staged("merging", 2):
        a, b, _ = stage.things
        speed = [np.abs(np.diff(one.pos[:60, 0])).mean() for one in (a, b)]
        assert speed[1] > 2 * speed[0] and np.sign(np.diff(a.pos[:60, 0]).sum()) == np.sign(
            np.diff(b.pos[:60, 0]).sum()
        )
    for n in range(1, 6):
        for stage in staged("not colliding", n):
            pairs = [(a, b) for i, a in enumerate(stage.things) for b in stage.things[i + 1 :]]
            assert min(gap(a, b).min() for a, b in pairs) > 0, n
            assert n == 4 or min(gap(a, b).min() for a, b in pairs) < 1, n
            assert sum(still(one) for one in stage.things) == {2: 1, 5: 3}.get(n, 0)


def test_paths_go_where_they_say():
    for n in range(1, 7):
        for stage in staged("moving in a path", n):
            one = stage.things[0]
            speed = np.linalg.norm(np.diff(one.pos, axis=0), axis=1)
            far = np.linalg.norm(one.pos[-1] - one.pos[0])
            if n in (1, 2):
                assert far > 1.8 and speed[-5:].max() < 1e-3 and ((speed.max() > 0.1) == (n == 2))
            if n == 3:
                assert far < 1e-6 and np.ptp(one.pos[:, 0]) + np.ptp(one.pos[:, 2]) > 1.5
            if n == 4:
                other = stage.things[1]
                assert np.allclose(one.pos[0, [0, 2]], other.pos[-1, [0, 2]]) and np.allclose(
                    one.pos[-1, [0, 2]], other.pos[0, [0, 2]]
                )
            if n in (5, 6):
                assert ((np.diff(one.pos[:, 0]) >= 0) == (n == 5)).mean() > 0.85 and abs(
                    one.pos[-1, 0] - one.pos[0, 0]
                ) > 2.5


def test_occluders_come_in_front_and_switched_ones_end_behind():
    for n in (1, 2):
        for stage in staged("occlusion", n):
            back, front = stage.things
            assert (
                front.pos[-1, 2] > back.pos[-1, 2] + 0.5
                and abs(front.pos[-1, 0] - back.pos[-1, 0]) < 0.1
            )
            assert (
                (front.size[0] < 0.5 * back.size[0])
                if n == 1
                else (back.size[0] < 0.5 * front.size[0])
            )
    for n in (3, 4):
        for stage in staged("occlusion", n):
            for a, b in zip(stage.things[::2], stage.things[1::2], strict=True):
                assert a.pos[0, 2] > b.pos[0, 2] + 0.5 and b.pos[-1, 2] > a.pos[-1, 2] + 0.5


def test_clockwise_is_clockwise():
    floor, upright = (0, 2), (0, 1)
    for n, wanted in ((1, 1.1), (2, -1.1)):
        for stage in staged("orbiting", n):
            centre, one = stage.things
            # x right, z to the viewer
            assert still(centre) and turning(one, centre.pos, floor) == pytest.approx(
                wanted, abs=0.02
            )
    for n, wanted in ((5, -1.1), (6, 1.1)):
        for stage in staged("orbiting", n):
            centre, one = stage.things
            # x right, y up
            assert still(centre) and turning(one, centre.pos, upright) == pytest.approx(
                wanted, abs=0.02
            )
    for stage in staged("orbiting", 3):
        centre, one = stage.things
        angle = np.unwrap(np.arctan2(one.pos[:, 2], one.pos[:, 0] / 0.85 * 0.85))
        assert angle[60] - angle[0] > 4 and angle[-1] - angle[60] < -4
    for stage in staged("orbiting", 4):
        first, second = stage.things
        assert np.allclose(second.pos[:58], second.pos[0]) and np.allclose(
            first.pos[63:], first.pos[-1]
        )
        assert np.diff(np.unwrap(np.arctan2(first.pos[4:60, 2], first.pos[4:60, 0]))).sum() > 5
        x, z = (second.pos[63:117, k] - first.pos[63:117, k] for k in (0, 2))
        assert np.diff(np.unwrap(np.arctan2(z, x))).sum() > 5


def test_projectiles_fly_in_an_arc_from_where_to_where():
    for n in range(1, 6):
        for stage in staged("shooting projectile", n):
            for one in stage.things:
                a, b = one.pos[0], one.pos[-1]
                assert one.pos[:, 1].max() > one.pos[0, 1] + 1.4 and one.pos[
                    -1, 1
                ] == pytest.approx(one.pos[0, 1], abs=1e-6)
                assert np.sign(a[0]) == -np.sign(b[0]) and np.abs(a[0]) > 1.5
                assert (np.sign(a[2]) == -np.sign(b[2])) == (n in (1, 4, 5))
            first, *more = stage.things
            assert n not in (2, 3) or (first.pos[0, 0] > 0) == (n == 2)
            if n == 4:
                assert np.allclose(
                    first.pos[0, [0, 2]], more[0].pos[0, [0, 2]]
                ) and not np.allclose(first.pos, more[0].pos)
            if n == 5:
                assert np.sign(first.pos[0, 0]) == -np.sign(more[0].pos[0, 0])


def test_teleporting_takes_no_time():
    for n, jumping in ((1, 1), (2, 1), (3, 2), (4, 4), (5, 1)):
        for stage in staged("teleporting", n):
            moved = [one for one in stage.things if not still(one)]
            assert len(moved) == jumping and all(
                (np.abs(np.diff(one.pos, axis=0)).sum(1) > 0).sum() == 1 for one in moved
            )
            if n in (3, 4):
                before, after = (
                    sorted(tuple(one.pos[k, [0, 2]].round(6)) for one in moved) for k in (0, -1)
                )
                assert before == after


# Pictures and lists
def test_clips_are_written_under_their_published_names_and_a_second_run_films_nothing(
    tmp_path, monkeypatch
):
    found = synta.film_job(
        2, "bouncing", 5, [1, 31], "plain", str(tmp_path / "v"), str(tmp_path / "n"), 32, 8.0, 3
    )
    assert (
        found[:2] == ["bouncing/bouncing5_id_1.mp4", "bouncing/bouncing5_front_id_1.mp4"]
        and len(found) == 4
    )
    info = video.probe(tmp_path / "v" / found[0])
    assert len(info.times) == 20 and (info.height, info.width) == (32, 32)
    monkeypatch.setattr(synta, "film", None)
    assert (
        synta.film_job(
            2, "bouncing", 5, [1, 31], "plain", str(tmp_path / "v"), str(tmp_path / "n"), 32, 8.0, 3
        )
        == found
    )


def test_backgrounds_change_the_place_and_not_the_motion():
    stage = act(12, 5, np.random.default_rng(0))
    real, plain = (synta.scene(stage, "", b, np.random.default_rng(1)) for b in synta.BACKGROUNDS)
    assert real.floor.kind != "plain" and plain.floor.kind == plain.wall.kind == "plain"
    assert np.array_equal(real.bodies[0].pos.values, plain.bodies[0].pos.values)
    assert np.array_equal(real.camera.eye.values, plain.camera.eye.values)


def lists(folder):
    rows = []
    for r in TAXONOMY.itertuples():
        rows += [
            (f"{r.coarse}/{r.number}_{k}.mp4", r.set, part, r.coarse_id, r.fine_id)
            for k, part in enumerate(transfer.PARTS)
        ]
    table = pd.DataFrame(rows, columns=["video", "set", "part", "coarse_id", "fine_id"])
    transfer.write_lists(folder, table)
    return table


def test_lists_are_read_as_they_were_written(tmp_path):
    table = lists(tmp_path)
    found = transfer.clips(tmp_path, TAXONOMY)
    key = ["set", "part", "video"]
    pd.testing.assert_frame_equal(
        found.sort_values(key, ignore_index=True),
        table[found.columns].sort_values(key, ignore_index=True),
    )
    assert (tmp_path / "fine_classes" / "val_set2_fine.txt").read_text(
        encoding="utf-8"
    ).splitlines()[0] == "appearing/3_1.mp4 0"


@pytest.mark.parametrize(
    "file, change, message",
    [
        (
            "coarse_classes/train_set1_coarse.txt",
            lambda t: t.replace(" 0\n", " 20\n", 1),
            "line 1: unknown class 20; expected 0..19",
        ),
        (
            "fine_classes/val_set2_fine.txt",
            lambda t: t.replace(" 46\n", " 47\n"),
            r"line 47: unknown class 47; expected 0..46",
        ),
        (
            "fine_classes/val_set2_fine.txt",
            lambda t: t.replace(" 3\n", "\n"),
            "line 4: expected '<path> <class id>'",
        ),
        (
            "coarse_classes/val_set1_coarse.txt",
            lambda t: t + t.splitlines()[0],
            "line 54: .* stands on line 1 already",
        ),
        (
            "coarse_classes/val_set1_coarse.txt",
            lambda t: "\n".join(t.splitlines()[1:]),
            "val_set1_coarse.txt: lacks 'appearing/1_1.mp4'",
        ),
        (
            "fine_classes/train_set1_fine.txt",
            lambda t: t.replace(" 0\n", " 52\n", 1),
            "stands on|has fine class 52, of coarse class 19",
        ),
        ("coarse_classes/train_set2_coarse.txt", lambda t: "", "expected at least one clip"),
    ],
)
def test_a_broken_list_is_named_with_its_line(tmp_path, file, change, message):
    lists(tmp_path)
    path = tmp_path / file
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        transfer.clips(tmp_path, TAXONOMY)


def test_overlapping_sets_and_missing_videos_are_named(tmp_path):
    lists(tmp_path)
    with pytest.raises(
        FileNotFoundError,
        match=r"appearing/1_0.mp4: named by the lists in .* not there \(200 of 200 missing\)",
    ):
        transfer.clips(tmp_path, TAXONOMY, tmp_path)
    for kind in transfer.KINDS:
        path = transfer.list_path(tmp_path, kind, "val", 1)
        path.write_text(
            path.read_text(encoding="utf-8").replace("appearing/1_1.mp4", "appearing/1_0.mp4"),
            encoding="utf-8",
        )
    with pytest.raises(
        ValueError, match=r"'appearing/1_0.mp4' is in several lists \(set 1 train, set 1 val\)"
    ):
        transfer.clips(tmp_path, TAXONOMY)
    (tmp_path / "coarse_classes" / "train_set1_coarse.txt").unlink()
    with pytest.raises(ValueError, match="expected a list of clips, found no file"):
        transfer.clips(tmp_path, TAXONOMY)
