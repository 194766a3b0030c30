"""Syn-TA: 100 fine motions of simple solids, five on average for each of 20 coarse ones.

A coarse motion is a function below, a fine one a case of it: a few lines on the pieces that `Stage`
offers. Taxonomy, sets, ids and file names are as published (`vlact/language/motions.csv`); the
motions themselves are this project's, after the sentences. Two departures: the free camera looks
from within 35 degrees of the front and not from all round, so that "left", "right" and "clockwise"
stay true in the picture; and backgrounds are procedural, not generated images.
"""

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np

from vlact import video
from vlact.runtime.jobs import kept
from vlact.worlds.render import render
from vlact.worlds.scene import Body, Camera, Part, Scene, Surface, Track

SECONDS = 2.5  # 60 frames at 24 a second
STEPS = 121  # moments at which a motion is written down
TRAIN_IDS, VAL_IDS = range(1, 31), range(31, 51)
STYLES = ("", "_front")
RADIUS = 0.42
FAR = 8.0  # from the camera to the middle
OUTSIDE = 4.8  # from the middle; nothing there is in the picture

PRIMITIVES: dict[str, tuple[str, tuple[float, float, float]]] = {
    "cube": ("box", (0.9, 0.9, 0.9)),
    "sphere": ("sphere", (1, 1, 1)),
    "cone": ("cone", (1, 1.1, 1)),
    "cylinder": ("cylinder", (0.85, 1, 0.85)),
    "torus": ("torus", (1.15, 0.4, 1.15)),
    "icosphere": ("icosahedron", (1.05, 1.05, 1.05)),
    "pyramid": ("pyramid", (1.05, 1.05, 1.05)),
    "dodecahedron": ("dodecahedron", (1.05, 1.05, 1.05)),
    "capsule": ("capsule", (0.7, 1.2, 0.7)),
    "prism": ("prism", (1.05, 0.9, 1.0)),
}


@dataclass
class Thing:
    """One solid; every array has a row for each of `STEPS` moments."""

    primitive: str
    pos: np.ndarray  # (STEPS, 3), of its centre
    size: np.ndarray  # (STEPS,), of RADIUS
    colour: np.ndarray  # (STEPS, 3)
    opacity: np.ndarray  # (STEPS,)
    turn: float  # degrees about the vertical

    def stay(self, x: float, z: float, y: float | None = None) -> "Thing":
        """Stand at a place; on the floor unless `y` is given."""
        high = self.height if y is None else np.full(STEPS, y)
        self.pos = np.stack([np.full(STEPS, x), high, np.full(STEPS, z)], 1)
        return self

    @property
    def height(self) -> np.ndarray:
        """Of the centre of one that stands on the floor (STEPS,)."""
        return RADIUS * self.size * PRIMITIVES[self.primitive][1][1]

    def move(self, path: np.ndarray, y: np.ndarray | float | None = None) -> "Thing":
        """Go along (STEPS, 2) on the floor, or at heights `y` above it."""
        up = 0.0 if y is None else y
        self.pos = np.stack([path[:, 0], self.height + up, path[:, 1]], 1)
        return self


@dataclass
class Stage:
    """Where a motion is written: chance, time, and the pieces that motions are made of.

    Attributes:
        rng: Everything that the fine class leaves open.
        t: Moments, 0 to 1.
        things: What is there.
        solids, hues: What is drawn from where a sentence leaves shape and colour open; hues in
            0..6.
    """

    rng: np.random.Generator
    solids: tuple[str, ...] = tuple(PRIMITIVES)
    hues: tuple[float, float] = (0.0, 6.0)
    t: np.ndarray = field(default_factory=lambda: np.linspace(0, 1, STEPS))
    things: list[Thing] = field(default_factory=list)

    def __post_init__(self):
        self.begin, self.end = self.rng.uniform(0.05, 0.15), self.rng.uniform(0.8, 0.92)
        self.side = float(self.rng.choice([-1, 1]))

    # Chance
    def draw(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def paint(self, value: tuple[float, float] = (0.55, 1.0)) -> np.ndarray:
        """A saturated colour (3,)."""
        h, s, v = self.rng.uniform(*self.hues), self.rng.uniform(0.65, 1), self.rng.uniform(*value)
        k = (np.array([5, 3, 1]) + h) % 6
        return v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1)

    def many(self) -> int:
        return int(self.rng.integers(3, 5))

    def spots(self, n: int, gap: float = 1.1, reach: float = 1.7) -> np.ndarray:
        """Places on the floor (n, 2), x and z, apart from each other."""
        found: list[np.ndarray] = []
        while len(found) < n:
            for _ in range(200):
                one = np.array([self.draw(-reach, reach), self.draw(-1.1, 1.1)])
                if all(np.linalg.norm(one - x) > gap for x in found):
                    found.append(one)
                    break
            else:
                found = []
        return np.array(found)

    # Solids
    def thing(
        self,
        size: float | np.ndarray | None = None,
        primitive: str | None = None,
        like: Thing | None = None,
    ) -> Thing:
        """A new solid at a place of its own; `like` another one it has its shape, colour, size and
        place.
        """
        if like is not None:
            one = Thing(
                like.primitive,
                like.pos.copy(),
                like.size.copy(),
                like.colour.copy(),
                like.opacity.copy(),
                like.turn,
            )
        else:
            size = self.draw(0.85, 1.15) if size is None else size
            kind = primitive or self.solids[self.rng.integers(len(self.solids))]
            one = Thing(
                kind,
                np.zeros((STEPS, 3)),
                np.ones(STEPS) * size,
                np.tile(self.paint(), (STEPS, 1)),
                np.ones(STEPS),
                self.draw(0, 360),
            )
            one.stay(self.draw(-0.8, 0.8), self.draw(-0.6, 0.6))
        self.things.append(one)
        return one

    def group(self, n: int, **more) -> list[Thing]:
        """Solids that stand apart from each other."""
        return [self.thing(**more).stay(x, z) for x, z in self.spots(n)]

    # Time
    def ramp(self, start: float | None = None, end: float | None = None) -> np.ndarray:
        """0 before `start`, 1 after `end`, smooth between (STEPS,)."""
        start, end = self.begin if start is None else start, self.end if end is None else end
        u = np.clip((self.t - start) / (end - start), 0, 1)
        return u * u * (3 - 2 * u)

    def steady(self, start: float = 0.0, end: float = 1.0) -> np.ndarray:
        """The same at constant speed."""
        return np.clip((self.t - start) / (end - start), 0, 1)

    def slot(self, i: int, n: int) -> tuple[float, float]:
        """Start and end of the i-th of n turns, one after the other."""
        whole = (self.end - self.begin) / n
        return self.begin + i * whole, self.begin + (i + 0.9) * whole

    # Paths on the floor, (STEPS, 2)
    def line(self, a, b, u: np.ndarray | None = None) -> np.ndarray:
        """From a to b as `u` goes from 0 to 1; between the usual start and end if not given."""
        u = self.ramp() if u is None else u
        return np.asarray(a) + (np.asarray(b) - np.asarray(a)) * u[:, None]

    def legs(self, points, u: np.ndarray) -> np.ndarray:
        """Along a polyline at even speed in `u`."""
        points = np.asarray(points, dtype=float)
        far = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
        return np.stack(
            [np.interp(u * far[-1], far, points[:, k]) for k in range(points.shape[1])], 1
        )

    def outside(self, spot) -> np.ndarray:
        """A place out of the picture, to the side of a spot."""
        side = np.sign(spot[0]) if abs(spot[0]) > 0.3 else self.side
        return np.array([side * OUTSIDE, spot[1] + self.draw(-0.5, 0.5)])

    # Motions that several classes share
    def fade(self, one: Thing, start: float, end: float, out: bool) -> None:
        u = self.ramp(start, end)
        one.opacity = 1 - u if out else u

    def arrive(self, one: Thing, spot, start: float, end: float) -> Thing:
        return one.move(self.line(self.outside(spot), spot, self.ramp(start, end)))

    def depart(self, one: Thing, spot, start: float, end: float) -> Thing:
        return one.move(self.line(spot, self.outside(spot), self.ramp(start, end)))

    def grow(self, one: Thing, a: float, b: float) -> None:
        """Change size from a to b, where it stands."""
        x, z = one.pos[0, 0], one.pos[0, 2]
        one.size = a + (b - a) * self.ramp()
        one.stay(x, z)

    def hops(
        self, high: float, n: int, keep: float, start: float = 0.0, end: float = 1.0
    ) -> np.ndarray:
        """Heights (STEPS,) of n bounces from `high`, each `keep` as high as the last; begins at the
        top.
        """
        tops = high * keep ** np.arange(n + 1)
        spans = np.r_[np.sqrt(tops[0]), 2 * np.sqrt(tops[1:])]
        ends = np.cumsum(spans) / spans.sum() * (end - start) + start
        out, low = np.zeros(STEPS), start
        for i, (top, until) in enumerate(zip(tops, ends, strict=True)):
            at = (self.t >= low) & (self.t < until)
            u = (self.t[at] - low) / (until - low)
            out[at] = top * (1 - u**2) if i == 0 else 4 * top * u * (1 - u)
            low = until
        out[self.t < start] = high
        return out

    def morph(self, one: Thing, into: str, start: float, end: float) -> Thing:
        """Turn into another shape: the old one fades while the new one, in its place, comes up."""
        new = self.thing(like=one)
        new.primitive, u = into, self.ramp(start, end)
        new.pos = new.pos + (new.height - one.height)[:, None] * np.array([0, 1, 0])
        new.opacity, one.opacity = one.opacity * u, one.opacity * (1 - u)
        return new

    def vertical(self, up: bool, n: int) -> None:
        """Falling and rising: 1 straight, 2 zigzag, 3 at an angle, 4 along a curve."""
        one, u, high = self.thing(), self.steady(0.05, 0.95), self.draw(2.3, 2.6)
        x, z, wide = self.draw(-0.9, 0.9), self.draw(-0.4, 0.4), self.draw(0.9, 1.3)
        match n:
            case 1:
                away = np.zeros(STEPS)
            case 2:
                away = 0.8 * np.interp(
                    u * self.rng.integers(3, 5) % 1, [0, 0.25, 0.75, 1], [0, 1, -1, 0]
                )
            case 3:
                x, away = -self.side * wide, self.side * 2 * wide * u
            case 4:
                x, away = (
                    -self.side * wide,
                    self.side * 2 * wide * (1 - np.sqrt(1 - u**2) if up else np.sin(np.pi / 2 * u)),
                )
        y = high * u if up else high * (1 - u**2)
        one.move(np.stack([x + away, np.full(STEPS, z)], 1), y)

    def pair(self, gap: float = 1.0) -> np.ndarray:
        """Two places beside each other, the second on the side from which one comes."""
        middle = np.array([self.draw(-0.5, 0.5), self.draw(-0.5, 0.5)])
        return middle + np.array([[-self.side * gap / 2, 0], [self.side * gap / 2, 0]])


def fading(s: Stage, n: int, out: bool) -> None:
    """Appearing, and disappearing (`out`)."""
    match n:
        case 1:
            s.fade(s.thing(), s.begin, s.end, out)
        case 2:
            for one in s.group(s.many()):
                s.fade(one, s.begin, s.end, out)
        case 3:
            for i, one in enumerate(found := s.group(s.many())):
                s.fade(one, *s.slot(i, len(found)), out)
        case 4:
            for one in s.group(4)[2:]:
                s.fade(one, s.begin, s.end, out)


def appearing(s: Stage, n: int) -> None:
    fading(s, n, out=False)


def coming(s: Stage, n: int, away: bool) -> None:
    """Arriving, and departing, which is the same `away`."""
    go = s.depart if away else s.arrive
    match n:
        case 1:
            go(s.thing(), s.spots(1)[0], s.begin, s.end)
        case 2:
            for spot in s.spots(s.many()):
                go(s.thing(), spot, s.begin, s.end)
        case 3:
            for i, spot in enumerate(found := s.spots(s.many())):
                go(s.thing(), spot, *s.slot(i, len(found)))
        case 4:
            *others, spot = s.spots(5, 1.0)
            for x, z in others:
                s.thing().stay(x, z)
            go(s.thing(), spot, s.begin, s.end)
        case 5 | 6:
            there, beside = s.pair()
            s.thing().stay(*there)
            if n == 5:
                go(s.thing(), beside, s.begin, s.end)
            else:  # and back again
                u = s.ramp(s.begin, 0.42) - s.ramp(0.58, s.end)
                s.thing().move(s.line([s.side * OUTSIDE, beside[1]], beside, 1 - u if away else u))


def arriving(s: Stage, n: int) -> None:
    coming(s, n, away=False)


def bouncing(s: Stage, n: int) -> None:
    stop = s.draw(0.75, 0.9)
    match n:
        case 1:
            one = s.thing()
            one.move(one.pos[:, [0, 2]], s.hops(s.draw(1.8, 2.4), 4, 0.55, 0.03, stop))
        case 2 | 3:
            found = s.group(s.many())
            highs = (
                s.draw(1.7, 2.1) + s.rng.uniform(-0.12, 0.12, 4)
                if n == 2
                else s.rng.permutation([2.7, 1.7, 0.9, 0.45])
            )
            for one, high in zip(found, highs, strict=False):
                one.move(one.pos[:, [0, 2]], s.hops(high, 4, 0.55, 0.03, stop))
        case 4:
            z, wall = s.draw(-0.4, 0.4), s.side * 1.6
            slab = s.thing(primitive="cube").stay(wall + s.side * 0.45, z)
            slab.size[:] = 2.2
            slab.pos[:, 1] = slab.height
            away = s.hops(2.4, 3, 0.6, 0.03, stop)
            s.thing(size=0.9).move(
                np.stack([wall - s.side * (0.65 + away), np.full(STEPS, z)], 1), 0.4
            )
        case 5:
            z = s.draw(-0.5, 0.5)
            s.thing().move(
                s.line([-s.side * 1.9, z], [s.side * 1.9, z], s.steady()),
                s.hops(s.draw(1.2, 1.6), 4, 0.85),
            )
        case 6:
            one = s.thing()
            one.move(one.pos[:, [0, 2]], s.hops(s.draw(1.1, 1.7), int(s.rng.integers(3, 5)), 1.0))
        case 7 | 8:
            steps, rise, z = 4, 0.5, s.draw(-0.3, 0.3)
            u = s.steady() * steps
            stair, inside = (
                np.minimum(np.floor(u), steps - 1),
                u - np.minimum(np.floor(u), steps - 1),
            )
            hop = 4 * 0.75 * inside * (1 - inside)
            going = rise * (steps - stair - inside**2 if n == 7 else stair + np.sqrt(inside))
            s.thing(size=0.85).move(
                s.line([-s.side * 1.7, z], [s.side * 1.7, z], s.steady()), going + hop
            )


def changing_colour(s: Stage, n: int) -> None:
    def turn(one: Thing, *colours) -> None:
        at = np.linspace(s.begin, s.end, len(colours))
        one.colour = np.stack([np.interp(s.t, at, np.array(colours)[:, k]) for k in range(3)], 1)

    def far(colour: np.ndarray) -> np.ndarray:
        return next(c for c in (s.paint() for _ in count()) if np.abs(c - colour).sum() > 0.9)

    match n:
        case 1:
            colours = [s.paint()]
            while len(colours) < 5:
                colours.append(far(colours[-1]))
            turn(s.thing(), *colours)
        case 2:
            one, other = s.group(2)
            a, b = one.colour[0], far(one.colour[0])
            turn(one, a, b)
            turn(other, b, a)
        case 3 | 4:
            bright = s.paint((0.9, 1.0))
            turn(s.thing(), *((bright, 0.12 * bright) if n == 3 else (0.12 * bright, bright)))
        case 5:
            one = s.thing()
            other = far(one.colour[0])
            turn(one, one.colour[0], other, other, one.colour[0])


def changing_shape(s: Stage, n: int) -> None:
    def another(*known: str) -> str:
        return str(s.rng.choice([k for k in PRIMITIVES if k not in known]))

    match n:
        case 1 | 2 | 3 | 4:
            into = ("pyramid", "cube", "sphere", "cylinder")[n - 1]
            s.morph(s.thing(primitive=another(into)), into, s.begin, s.end)
        case 5:
            one, other = s.group(2)
            other.primitive = another(one.primitive)
            other.stay(other.pos[0, 0], other.pos[0, 2])
            first, second = one.primitive, other.primitive
            s.morph(one, second, s.begin, s.end)
            s.morph(other, first, s.begin, s.end)
        case 6:
            one = s.thing()
            new = s.morph(one, another(one.primitive), s.begin, s.end)
            new.opacity = s.ramp(s.begin, 0.4) - s.ramp(0.6, s.end)
            one.opacity = 1 - new.opacity


def cloning(s: Stage, n: int) -> None:
    middle = np.array([s.draw(-0.4, 0.4), s.draw(-0.3, 0.3)])
    one = s.thing(size=0.9).stay(*middle)
    match n:
        case 1 | 2:
            copy, ahead = (
                s.thing(like=one),
                np.array([s.side * s.draw(1.2, 1.5), s.draw(-0.2, 0.2)]),
            )
            apart, go = np.array([0, 0.55]), s.ramp(0.4, s.end)
            split = s.ramp(s.begin, 0.4)
            for body, sign in ((one, 1), (copy, -1)):
                body.move(
                    middle
                    + sign * apart * split[:, None]
                    + ahead * (1 if n == 1 else sign) * go[:, None]
                )
        case 3 | 4:
            copies = s.many()
            angle = np.linspace(0, 2 * np.pi, copies, endpoint=False) + s.draw(0, 2)
            for i, a in enumerate(angle):
                start, end = s.slot(i, copies) if n == 3 else (s.begin, s.end)
                s.thing(like=one).move(
                    s.line(middle, middle + [1.4 * np.cos(a), 0.95 * np.sin(a)], s.ramp(start, end))
                )
        case 5:
            for side, colour in ((1, one.colour[0]), (-1, one.colour[0][[1, 2, 0]])):
                copy = s.thing(like=one).move(
                    s.line(middle, middle + [side * s.draw(1.0, 1.3), s.draw(-0.3, 0.3)])
                )
                copy.colour = one.colour + (colour - one.colour) * s.ramp(s.begin, 0.5)[:, None]


def departing(s: Stage, n: int) -> None:
    coming(s, n, away=True)


def disappearing(s: Stage, n: int) -> None:
    fading(s, n, out=True)


def expanding(s: Stage, n: int) -> None:
    small, medium, large = s.draw(0.35, 0.45), s.draw(1.1, 1.3), s.draw(2.0, 2.3)
    match n:
        case 1 | 2:
            s.grow(s.thing(), small, medium if n == 1 else large)
        case 3:
            for one, a in zip(s.group(2), (0.3, 0.6), strict=True):
                s.grow(one, a, 1.35)
        case 4:
            one, other = s.group(2)
            other.primitive, other.turn = one.primitive, one.turn
            s.grow(one, small, 0.95)
            s.grow(other, small, 1.9)


def falling(s: Stage, n: int) -> None:
    s.vertical(False, n)


def following(s: Stage, n: int) -> None:
    u, z, gap, late = s.steady(), s.draw(-0.4, 0.4), 0.22, 0.55
    a, b = np.array([-s.side * 1.9, z]), np.array([s.side * 1.9, z + s.draw(-0.3, 0.3)])
    match n:
        case 1 | 3:
            for i in range(2 if n == 1 else s.many()):
                s.thing(size=0.8).move(
                    s.line(a - (b - a) * (gap * i - 0.1), b - (b - a) * gap * i, u)
                )
        case 2:
            s.thing(size=0.8).move(s.line(a + (b - a) * gap, b + (b - a) * gap, u))
            turn = a + (b - a) * 0.5
            s.thing(size=0.8).move(
                s.legs([a, turn, turn + [s.side * 0.5, 1.6 * np.sign(0.01 - z)]], u)
            )
        case 4:
            wave = np.linspace(-0.3, 1.2, 60)
            points = np.stack(
                [
                    a[0] + (b[0] - a[0]) * wave,
                    z + 0.75 * np.sin(2 * np.pi * wave * s.draw(1.2, 1.6)),
                ],
                1,
            )
            for lag in (0.16, 0.0):
                s.thing(size=0.8).move(s.legs(points, (u + lag) / 1.3))
        case 5:
            s.thing(size=0.8).move(s.line(a + (b - a) * gap, b + (b - a) * 0.1, u))
            wait = a + [s.side * 0.4, 1.3 * np.sign(0.01 - z)]
            s.thing(size=0.8).move(
                s.legs([wait, a + (b - a) * 0.25, b - (b - a) * 0.12], s.steady(late - 0.15, 1.0))
            )


def merging(s: Stage, n: int) -> None:
    def join(spots, at, size: float, new: float, speeds=None) -> None:
        """Move to one place, where one solid of size `new` takes over."""
        until = 0.7
        for spot in spots:
            one = s.thing(size=size)
            one.move(s.line(spot, at, s.ramp(s.begin, until)))
            one.opacity = 1 - s.ramp(until - 0.08, until)
        one = s.thing(size=new).stay(*at)
        one.opacity = s.ramp(until - 0.08, until)

    match n:
        case 1:
            a, b = s.pair(2.6)
            join([a, b], (a + b) / 2, 1.0, 1.1)
        case 2:
            z, until, ahead = s.draw(-0.4, 0.4), 0.6, s.side
            u = s.steady()
            for start in (-0.2, -1.9):
                meet = ahead * 0.5
                path = s.line([ahead * start, z], [meet, z], s.steady(0, until))
                one = s.thing(size=0.95).move(path)
                one.opacity = 1 - s.ramp(until - 0.08, until)
            one = s.thing(size=1.05).move(
                s.line(
                    [ahead * 0.5, z],
                    [ahead * (0.5 + 0.7 / until * 0.4 * 2), z],
                    s.steady(until, 1.0),
                )
            )
            one.opacity = s.ramp(until - 0.08, until) * (u >= 0)
        case 3:
            join(s.spots(s.many(), 1.1), np.array([0.0, 0.0]), 0.8, 1.8)
        case 4:
            for side in (-1, 1):
                at = np.array([side * 1.0, s.draw(-0.3, 0.3)])
                join([at + [0.65, 0.6], at - [0.65, 0.6]], at, 0.7, 1.45)


def moving(s: Stage, n: int) -> None:
    far = s.draw(1.1, 1.4)
    a, b = s.spots(2, 2 * far)
    match n:
        case 1:
            s.thing().move(s.line(a, b, s.ramp(s.begin, 0.9)))
        case 2:
            start = s.draw(0.3, 0.45)
            s.thing().move(s.line(a, b, s.ramp(start, start + 0.15)))
        case 3:
            s.thing().move(s.line(a, b, s.ramp(s.begin, 0.5) - s.ramp(0.5, s.end)))
        case 4:
            swerve = np.array([-(b - a)[1], (b - a)[0]]) * 0.28 * np.sin(np.pi * s.ramp())[:, None]
            s.thing().move(s.line(a, b) + swerve)
            s.thing().move(s.line(b, a) - swerve)
        case 5 | 6:
            z, way = s.draw(-0.6, 0.6), 1 if n == 5 else -1
            s.thing().move(
                s.line(
                    [-way * s.draw(1.5, 1.9), z],
                    [way * s.draw(1.5, 1.9), z + s.draw(-0.2, 0.2)],
                    s.steady(0.05, 0.95),
                )
            )


def not_colliding(s: Stage, n: int) -> None:
    z, u = s.draw(-0.2, 0.2), s.steady(0.03, 0.97)
    swerve = 0.75 * np.exp(-(((u - 0.5) / 0.2) ** 2))
    ahead, middle = s.side * 1.9, np.stack([np.zeros(STEPS), np.ones(STEPS)], 1)
    match n:
        case 1:
            for way in (1, -1):
                s.thing().move(
                    s.line([-way * ahead, z], [way * ahead, z], u)
                    + way * 0.6 * swerve[:, None] * middle
                )
        case 2:
            s.thing().stay(0, z)
            s.thing().move(s.line([-ahead, z], [ahead, z], u) + 1.15 * swerve[:, None] * middle)
        case 3:
            for angle in 2 * np.pi * np.arange(3) / 3 + s.draw(0, 2):
                to, side = (
                    np.array([np.cos(angle), np.sin(angle)]),
                    np.array([-np.sin(angle), np.cos(angle)]),
                )
                s.thing(size=0.85).move(
                    s.line(-1.6 * to, 1.6 * to, u) + 0.9 * swerve[:, None] * side
                )
        case 4:
            angle = np.pi * 1.6 * u + s.draw(0, 6)
            for way, r in ((1, 1.5), (-1, 0.65)):
                s.thing(size=0.85).move(
                    r * np.stack([np.cos(way * angle), 0.75 * np.sin(way * angle)], 1)
                )
        case 5:
            for x in (-0.9, 0.0, 0.9):
                s.thing(size=0.8).stay(x, z + 0.55 * (-1 if x else 1))
            weave = 0.6 * np.cos(np.pi * 2.2 * (2 * u - 1)) * np.exp(-((2 * u - 1) ** 4))
            s.thing(size=0.75).move(
                s.line([-ahead * 1.1, z], [ahead * 1.1, z], u) - weave[:, None] * middle
            )


def occlusion(s: Stage, n: int) -> None:
    x, z = s.draw(-0.4, 0.4), s.draw(-0.7, -0.4)
    front = np.array([x, z + 1.1])
    match n:
        case 1:
            s.thing(size=1.9).stay(x, z)
            s.arrive(s.thing(size=0.55), front, s.begin, s.end)
        case 2:
            s.thing(size=0.6).stay(x, z)
            s.arrive(s.thing(size=1.9), front, s.begin, s.end)
        case 3 | 4:
            for place in [x] if n == 3 else [-1.0, 1.0]:
                a, b, round_ = (
                    np.array([place, z]),
                    np.array([place, z + 1.1]),
                    np.sin(np.pi * s.ramp())[:, None] * [0.75, 0],
                )
                shift = [0, 0] if n == 3 else [0.3, 0]
                s.thing(size=1.05).move(
                    s.line(b + shift, a + shift) + round_ * (1 if n == 3 else 0.9)
                )
                s.thing(size=1.05).move(s.line(a, b) - round_ * (1 if n == 3 else 0.9))


def orbiting(s: Stage, n: int) -> None:
    u, first, r = s.steady(0.03, 0.97), s.draw(0, 2 * np.pi), s.draw(1.1, 1.4)

    def ring(angle: np.ndarray) -> np.ndarray:
        # clockwise from above: x right, z towards the viewer
        return r * np.stack([np.cos(angle), 0.85 * np.sin(angle)], 1)

    match n:
        case 1 | 2:
            s.thing().stay(0, 0)
            s.thing(size=0.7).move(ring(first + (1 if n == 1 else -1) * 2 * np.pi * 1.1 * u))
        case 3:
            s.thing().stay(0, 0)
            s.thing(size=0.7).move(ring(first + 2 * np.pi * 1.5 * (u - 2 * np.clip(u - 0.5, 0, 1))))
        case 4:
            angle = first + 2 * np.pi * np.clip(2 * u, 0, 1)
            later = first + np.pi + 2 * np.pi * np.clip(2 * u - 1, 0, 1)
            there = ring(np.array([first]))[0]
            s.thing(size=0.8).move(np.where((u < 0.5)[:, None], ring(angle), there))
            s.thing(size=0.8).move(np.where((u < 0.5)[:, None], [[0.0, 0.0]], there + ring(later)))
        case 5 | 6:
            angle = first + (1 if n == 5 else -1) * 2 * np.pi * 1.1 * u
            centre = 1.55
            s.thing(size=0.9).stay(0, 0, centre)
            one = s.thing(size=0.65)
            one.pos = np.stack(
                [1.1 * np.sin(angle), centre + 1.1 * np.cos(angle), np.zeros(STEPS)], 1
            )


def rising(s: Stage, n: int) -> None:
    s.vertical(True, n)


def shooting(s: Stage, n: int) -> None:
    def shot(a, b, start: float) -> None:
        u = s.steady(start, start + s.draw(0.4, 0.5))
        s.thing(size=0.7).move(s.line(a, b, u), s.draw(1.6, 2.2) * 4 * u * (1 - u))

    near, x, depth, start = float(s.rng.choice([-1, 1])), 1.8, 0.95, s.draw(0.08, 0.25)
    corner = np.array([s.side * x, near * depth])
    match n:
        case 1:
            shot(corner, -corner, start)
        case 2 | 3:
            way = 1 if n == 2 else -1
            shot([way * x, near * depth], [-way * x, near * depth], start)
        case 4:
            shot(corner, -corner, start)
            shot(corner, -corner, start + 0.3)
        case 5:
            shot(corner + [0, 0.15], -corner + [0, 0.15], start)
            shot(-corner - [0, 0.15], corner - [0, 0.15], start)


def shrinking(s: Stage, n: int) -> None:
    large = s.draw(2.0, 2.3)
    match n:
        case 1 | 2:
            s.grow(s.thing(), large, s.draw(1.0, 1.2) if n == 1 else s.draw(0.22, 0.3))
        case 3:
            for one, a in zip(s.group(2), (1.9, 1.3), strict=True):
                s.grow(one, a, 0.55)
        case 4:
            for one, a, b in zip(s.group(2), (1.9, 1.4), (0.9, 0.35), strict=True):
                s.grow(one, a, b)


def teleporting(s: Stage, n: int) -> None:
    x, z = s.draw(1.4, 1.7), s.draw(0.75, 0.95)
    corners = (
        np.array([[-x, -z], [x, -z], [x, z], [-x, z]])[s.rng.permutation(4)]
        if n != 4
        else np.array([[-x, -z], [x, -z], [x, z], [-x, z]])
    )
    when = s.draw(0.35, 0.6)

    def jump(a, b) -> None:
        s.thing().move(np.where((s.t < when)[:, None], [a], [b]))

    match n:
        case 1:
            jump(corners[0], corners[1])
        case 2:
            s.thing().stay(0, 0)
            jump(corners[0], corners[1])
        case 3:
            a = corners[0]
            jump(a, -a)
            jump(-a, a)
        case 4:
            for a, b in zip(corners, np.roll(corners, int(s.rng.integers(1, 4)), 0), strict=True):
                jump(a, b)
        case 5:
            a, b = corners[:2]
            inward = np.array([-np.sign(a[0]) * 0.85, 0])
            s.thing().stay(*(a + inward))
            jump(a, b)


MOTIONS = (
    appearing, arriving, bouncing, changing_colour, changing_shape, cloning, departing,
    disappearing, expanding, falling,
    following, merging, moving, not_colliding, occlusion, orbiting, rising, shooting, shrinking,
    teleporting,
)  # fmt: skip


def act(coarse: int, number: int, rng: np.random.Generator, **limits) -> Stage:
    """The motion of a fine class, by its coarse class and its number therein; what its sentence
    leaves open is drawn within `limits`.
    """
    stage = Stage(rng, **limits)
    MOTIONS[coarse](stage, number)
    return stage


# From motions to pictures
BACKGROUNDS = ("realistic", "plain")


TEXTURES = ("noise", "grain", "tiles")


def scene(
    stage: Stage,
    style: str,
    background: str,
    rng: np.random.Generator,
    pattern: str = "half",
    textures: tuple[str, ...] = TEXTURES,
    far: float = FAR,
) -> Scene:
    """A motion in a place, seen by a camera.

    Args:
        stage: From `act`.
        style: One of `STYLES`: the free camera from above, or "_front", level and straight ahead.
        background: "realistic", textures of moderate contrast in colours of their own, or "plain".
        rng: For place, light and camera.
        pattern: Of the solids.
        textures: Of realistic floors and walls.
        far: From the camera to the middle.
    """
    times = stage.t * SECONDS
    bodies = []
    for one in stage.things:
        shape, size = PRIMITIVES[one.primitive]
        part = Part(
            shape,
            tuple(RADIUS * x for x in size),
            (1, 1, 1),
            rot=(0, one.turn, 0),
            pattern=pattern,
            colour2=(0.72, 0.72, 0.72),
        )
        tracks = (
            np.c_[times, x]
            for x in (
                one.pos,
                np.zeros((STEPS, 3)),
                np.repeat(one.size[:, None], 3, 1),
                one.colour,
                one.opacity,
            )
        )
        bodies.append(Body([part], *(Track(x, ease=False) for x in tracks)))
    azimuth, height = (
        (0.0, 2.1)
        if style == "_front"
        else (np.radians(rng.uniform(-35, 35)), rng.uniform(3.2, 4.6))
    )
    eye = (far * np.sin(azimuth), height, far * np.cos(azimuth))
    camera = Camera(Track.of(*eye), Track.of(0, 0.95, 0), 34)
    light = (rng.uniform(-0.6, 0.6), 1.0, rng.uniform(0.2, 0.8))
    if background == "plain":
        grey = rng.uniform(0.7, 0.9)
        floor, wall = Surface((grey,) * 3), Surface((grey + 0.05,) * 3)
    else:

        def surface() -> Surface:
            base = rng.uniform(0.25, 0.8) + rng.uniform(-0.15, 0.15, 3)
            other = base * rng.uniform(0.65, 0.88) + rng.uniform(-0.04, 0.04, 3)
            kind = textures[rng.integers(len(textures))]
            return Surface(
                tuple(base.clip(0, 1)),
                tuple(other.clip(0, 1)),
                kind,
                rng.uniform(0.8, 2.0),
                int(rng.integers(99)),
            )

        floor, wall = surface(), surface()
    return Scene(bodies, camera, floor, wall, 3.4, light, rng.uniform(0.45, 0.6))


def film(
    coarse: int,
    name: str,
    number: int,
    ids: list[int],
    background: str,
    folder: Path,
    size: int,
    fps: float,
    seed: int,
) -> list[str]:
    """Clips of one fine class, every id in both styles; the same motions for every background.

    Args:
        coarse, name, number: Coarse class, its name, the fine class's number therein.
        ids: From 1.
        background: One of `BACKGROUNDS`.
        folder: Clips go to `<coarse name>/<coarse name><number>[_front]_id_<id>.mp4` below it.
        size, fps, seed: Pixels of a side, frames a second, of the world.

    Returns:
        Their paths below the folder.
    """
    stem, scenes, names = name.replace(" ", "_"), [], []
    for i in ids:
        stage = act(coarse, number, np.random.default_rng((seed, 70, coarse, number, i)))
        for k, style in enumerate(STYLES):
            scenes.append(
                scene(
                    stage,
                    style,
                    background,
                    np.random.default_rng((seed, 71, coarse, number, i, k)),
                )
            )
            names.append(f"{stem}/{stem}{number}{style}_id_{i}.mp4")
    times = np.arange(round(SECONDS * fps)) / fps
    for one, shown in zip(names, scenes, strict=True):
        video.write(folder / one, render([shown], [times], (size, size))[0], fps)
    return names


def film_job(
    coarse: int,
    name: str,
    number: int,
    ids: list[int],
    background: str,
    folder: str,
    notes: str,
    size: int,
    fps: float,
    seed: int,
) -> list[str]:
    """`film` that leaves what it returns in the folder `notes`, so that a killed stage films
    nothing twice.
    """
    note = Path(notes) / f"{background}-{coarse}-{number}-{ids[0]}-{ids[-1]}.json"
    return kept(note, film, coarse, name, number, ids, background, Path(folder), size, fps, seed)
