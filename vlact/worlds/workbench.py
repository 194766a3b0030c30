"""The workbench: hands and tools act on things. A verb is a motion program, an action verb x
object.

Each program is a few lines on a `Bench`, which keeps a clock (0 at the start of the action, 1 at
its end), the pose of every actor, and what the hand holds. The same programs serve four visual
domains: "tutorial" (the pretraining corpus), "assembly" (ATA), "furniture" (IKEA) and "kitchen"
(GTEA), which differ in cameras, light, colours, surfaces, clutter and people, never in what a verb
means.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from vlact.worlds.scene import Body, Camera, Part, Scene, Surface, Track
from vlact.worlds.things import (
    FREE,
    OBJECTS,
    TOOLS,
    TUTORIAL_OBJECTS,
    Look,
    Made,
    Vec,
    hand,
    hsv,
    thing,
)


# Moves: what one actor does during one step of the clock.
def to(x: float, y: float, z: float) -> dict:
    """Move to a point."""
    return {"to": (x, y, z)}


def by(x: float, y: float, z: float) -> dict:
    """Move by a vector; what the hand holds comes along."""
    return {"by": (x, y, z)}


def turn(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> dict:
    """Turn by degrees about x (nod), y (spin) and z (roll)."""
    return {"turn": (x, y, z)}


def grow(x: float = 1.0, y: float = 1.0, z: float = 1.0) -> dict:
    """Scale by factors."""
    return {"grow": (x, y, z)}


def fade(opacity: float) -> dict:
    """Reach an opacity, 0..1."""
    return {"fade": opacity}


def tint(r: float, g: float, b: float) -> dict:
    """Multiply the colours by a tint."""
    return {"tint": (r, g, b)}


@dataclass
class Actor:
    """One body with its keyframes so far; `keys` rows are (clock, values)."""

    parts: list[Part]
    height: float  # from the body's origin to its top
    half: float  # half width

    def __post_init__(self):
        self.now = {"pos": np.zeros(3), "rot": np.zeros(3), "scale": np.ones(3)}
        self.now |= {"opacity": np.ones(1), "colour": np.ones(3)}
        self.keys: dict[str, list] = {k: [] for k in self.now}
        self.ease = True

    def note(self, clock: float) -> None:
        """Write the present state down as a keyframe."""
        for k, value in self.now.items():
            self.keys[k].append((clock, *value))

    def body(self, duration_s: float, backwards: bool) -> Body:
        tracks = {}
        for k, rows in self.keys.items():
            rows = np.asarray(rows)
            if backwards:
                rows = rows[::-1].copy()
                rows[:, 0] = 1 - rows[:, 0]
            rows[:, 0] *= duration_s
            tracks[k] = Track(rows, self.ease)
        return Body(self.parts, **tracks)


class Bench:
    """The stage on which a program runs.

    Attributes:
        rng: Draws this clip's nuisances (start place, amplitude, number of strokes).
        palette: Callable giving a fresh colour of the domain.
        big: Amplitude factor of this person, about 0.85 to 1.15.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        obj: str,
        palette: Callable,
        skin: Vec,
        sleeve: Vec,
        big: float = 1.0,
        look: Look = FREE,
    ):
        self.rng, self.palette, self.big, self.clock = rng, palette, big, 0.0
        self.skin, self.sleeve = skin, sleeve
        self.actors: dict[str, Actor] = {}
        self.held: set[str] = set()
        x, z = rng.uniform(-0.15, 0.15), rng.uniform(-0.1, 0.15)
        self.add("obj", thing(obj, rng, palette, look), (x, 0.0, z))
        self.add("hand", hand(skin, sleeve), (x + 0.75, 0.55, z + 0.55))

    # Actors
    def add(self, name: str, made: Made, at: Vec) -> Actor:
        """Put a new actor on the stage, its origin at `at`."""
        actor = self.actors[name] = Actor(*made)
        actor.now["pos"] = np.asarray(at, dtype=float)
        return actor

    def wield(self, tool: str, reach: Vec = (0.0, 0.0, 0.0)) -> None:
        """Give the hand a tool whose working tip is over the object, displaced by `reach`."""
        made, grip = TOOLS[tool](self.palette)
        tip = self.top() + reach
        self.add("tool", made, tuple(tip))
        self.put("hand", tip + grip)
        self.held.add("tool")

    def second_hand(self, at: Vec) -> None:
        """A left hand, mirrored."""
        parts, h, w = hand(self.skin, self.sleeve)
        self.add("left", ([_mirror_part(p) for p in parts], h, w), at)

    # Where things are
    def at(self, name: str = "obj") -> np.ndarray:
        return self.actors[name].now["pos"].copy()

    def top(self, name: str = "obj") -> np.ndarray:
        return self.at(name) + (0, self.actors[name].height * self.actors[name].now["scale"][1], 0)

    def put(self, name: str, where) -> None:
        """Place an actor before the action starts."""
        self.actors[name].now["pos"] = np.asarray(where, dtype=float).copy()

    # Time
    def step(self, until: float, **moves: dict) -> None:
        """Run the clock to `until` while the named actors make their moves."""
        for actor in self.actors.values():
            actor.note(self.clock)
        for name, move in moves.items():
            now = self.actors[name].now
            shift = np.zeros(3)
            if "to" in move:
                shift = np.asarray(move["to"]) - now["pos"]
            if "by" in move:
                shift = np.asarray(move["by"], dtype=float) * (1, self.big, 1)
            for other in {name} | (self.held if name == "hand" else set()):
                self.actors[other].now["pos"] = self.actors[other].now["pos"] + shift
            now["rot"] = now["rot"] + move.get("turn", (0, 0, 0))
            now["scale"] = now["scale"] * move.get("grow", (1, 1, 1))
            now["colour"] = now["colour"] * move.get("tint", (1, 1, 1))
            if "fade" in move:
                now["opacity"] = np.array([move["fade"]])
        self.clock = until
        for actor in self.actors.values():
            actor.note(self.clock)

    # Phrases that many verbs share
    def reach(self, until: float = 0.25, name: str = "obj") -> None:
        """The hand comes down on top of something."""
        self.step(until, hand=to(*self.top(name)))

    def grab(self, until: float = 0.25) -> None:
        """The hand comes down on the object and holds it."""
        self.reach(until)
        self.held.add("obj")

    def start_held(self, up: float) -> None:
        """Begin with the object in the hand, `up` above the table."""
        self.put("obj", self.at() + (0, up, 0))
        self.put("hand", self.top())
        self.held.add("obj")

    def leave(self, until: float = 1.0) -> None:
        """Let go and withdraw the hand to the right and the viewer."""
        self.held.clear()
        self.step(until, hand=by(0.55, 0.45, 0.5))

    def strokes(self, until: float, n: int, *moves: dict[str, dict]) -> None:
        """Repeat a cycle of moves n times."""
        dt = (until - self.clock) / (n * len(moves))
        for _ in range(n):
            for move in moves:
                self.step(self.clock + dt, **move)

    def scene(self, duration_s: float, backwards: bool = False) -> list[Body]:
        """All bodies with tracks in seconds, the action reversed in time if asked."""
        if self.clock < 1:
            self.step(1.0)
        return [a.body(duration_s, backwards) for a in self.actors.values()]


def _board(b: Bench, at: Vec, half: float = 0.42, height: float = 0.1) -> None:
    c = b.palette()
    b.add(
        "base", ([Part("box", (half, height, half * 0.8), c, (0, height, 0))], 2 * height, half), at
    )


def _bowl(b: Bench, at: Vec) -> None:
    c = b.palette()
    parts = [
        Part("torus", (0.4, 0.13, 0.4), c, (0, 0.16, 0), pattern="sectors", colour2=b.palette()),
        Part("cylinder", (0.3, 0.05, 0.3), c, (0, 0.06, 0)),
    ]
    b.add("base", (parts, 0.3, 0.4), at)


def _halves(b: Bench) -> None:
    """Replace the object by two halves, `obj` on the left and `half` on the right."""
    c, c2, at = b.palette(), b.palette(), b.at()
    for name, side in (("obj", -1), ("half", 1)):
        part = Part(
            "box", (0.22, 0.14, 0.18), c, (side * 0.22, 0.14, 0), pattern="half", colour2=c2
        )
        b.add(name, ([part], 0.28, 0.22), tuple(at))


def _hinged(b: Bench) -> None:
    """A box (`obj`) with a lid (`lid`) hinged at the back, shut."""
    c, at = b.palette(), b.at()
    b.add("obj", ([Part("box", (0.36, 0.18, 0.3), c, (0, 0.18, 0))], 0.36, 0.36), tuple(at))
    lid = Part(
        "box", (0.38, 0.03, 0.3), b.palette(), (0, 0.03, 0.3), pattern="half", colour2=b.palette()
    )
    b.add("lid", ([lid], 0.06, 0.38), tuple(at + (0, 0.36, -0.3)))


# The programs. They read as what a person would do.
def pick_up(b):
    b.grab(0.35)
    b.step(0.95, hand=by(0, 0.85, 0))


def drop(b):
    b.start_held(0.95)
    b.step(0.3)
    b.held.clear()
    fall = b.at()[1]
    b.step(0.4, obj=by(0, -0.3 * fall / b.big, 0), hand=by(0.12, 0.08, 0))
    b.step(0.55, obj=by(0, -0.7 * fall / b.big, 0) | turn(z=b.rng.choice([-35, 35])))


def take(b):
    b.grab(0.35)
    b.step(0.5, hand=by(0.1, 0.15, 0.1))
    b.step(1.0, hand=by(0.9, 0.25, 1.1))


def push(b):
    b.step(0.3, hand=to(*(b.at() + (0.05, 0.15, b.actors["obj"].half + 0.08))))
    b.step(0.95, hand=by(0, 0, -0.95), obj=by(0, 0, -0.95))


def pull(b):
    b.grab(0.3)
    b.step(0.95, hand=by(0, 0, 0.85))


def slide(b):
    side = b.rng.choice([-1, 1])
    b.put("obj", b.at() - (0.45 * side, 0, 0))
    b.grab(0.3)
    b.step(0.95, hand=by(0.95 * side, 0, 0))


def spin(b):
    b.step(0.2, hand=to(*(b.at() + (b.actors["obj"].half + 0.06, 0.2, 0.1))))
    b.actors["obj"].ease = False
    b.step(0.3, hand=by(0, 0, -0.25), obj=turn(y=60))
    b.step(1.0, hand=by(0.4, 0.3, 0.5), obj=turn(y=440))


def rotate(b):
    b.grab(0.3)
    b.step(0.9, hand=turn(y=60), obj=turn(y=120))


def roll(b):
    side = b.rng.choice([-1, 1])
    b.put("obj", b.at() - (0.6 * side, 0, 0))
    b.step(0.25, hand=to(*(b.at() + (-0.1 * side, 0.3, 0.1))))
    h = b.actors["obj"].height / 2
    for actor in (b.actors["obj"],):  # turn about the middle, not the foot
        actor.parts = [
            replace(p, offset=(p.offset[0], p.offset[1] - h, p.offset[2])) for p in actor.parts
        ]
        actor.now["pos"] = actor.now["pos"] + (0, h, 0)
        actor.ease = False
        for row in actor.keys["pos"]:
            actor.keys["pos"][actor.keys["pos"].index(row)] = (row[0], row[1], h, row[3])
    b.step(1.0, obj=by(1.25 * side, 0, 0) | turn(z=-360 * side), hand=by(0.25 * side, 0.2, 0.2))


def flip(b):
    b.grab(0.25)
    b.step(0.5, hand=by(0, 0.55, 0), obj=turn(x=-90))
    b.step(0.85, hand=by(0, -0.3, 0), obj=turn(x=-90))


def tilt(b):
    b.grab(0.3)
    b.step(0.8, obj=turn(z=42), hand=by(-0.25, 0, 0))


def shake(b):
    b.start_held(0.5)
    b.strokes(1.0, 4, {"hand": by(0.32, 0.08, 0)}, {"hand": by(-0.32, -0.08, 0)})


def wave(b):
    b.put("hand", b.at() + (0.1, 1.0, 0.2))
    b.strokes(1.0, 3, {"hand": by(0.4, 0, 0) | turn(z=-25)}, {"hand": by(-0.4, 0, 0) | turn(z=25)})


def swing(b):
    b.start_held(0.5)
    parts = b.actors["obj"].parts
    top = b.actors["obj"].height + 0.15
    b.actors["obj"].parts = [
        replace(p, offset=(p.offset[0], p.offset[1] - top, p.offset[2])) for p in parts
    ]
    b.put("obj", b.at() + (0, top, 0))
    b.put("hand", b.at())
    b.actors["obj"].now["rot"] = np.array([0.0, 0, -40])
    b.strokes(1.0, 2, {"obj": turn(z=80)}, {"obj": turn(z=-80)})


def hammer(b):
    b.wield("hammer", (0, 0.6, 0))
    b.actors["tool"].now["rot"] = np.array([0.0, 0, -35])
    down = {"hand": by(0, -0.55, 0), "tool": turn(z=35), "obj": by(0, -0.05, 0)}
    b.strokes(1.0, 3, down, {"hand": by(0, 0.5, 0), "tool": turn(z=-35)})


def tap(b):
    b.reach(0.2)
    b.strokes(1.0, 4, {"hand": by(0, 0.16, 0)}, {"hand": by(0, -0.16, 0)})


def press(b):
    b.reach(0.3)
    h = b.actors["obj"].height
    b.step(0.7, hand=by(0, -0.5 * h / b.big, 0), obj=grow(1.12, 0.5, 1.12))


def squeeze(b):
    b.second_hand(tuple(b.at() + (-0.75, 0.2, 0)))
    half = b.actors["obj"].half
    b.step(
        0.3, hand=to(*(b.at() + (half + 0.1, 0.2, 0))), left=to(*(b.at() + (-half - 0.1, 0.2, 0)))
    )
    close = {
        "hand": by(-0.45 * half, 0, 0),
        "left": by(0.45 * half, 0, 0),
        "obj": grow(0.5, 1.15, 1),
    }
    apart = {
        "hand": by(0.45 * half, 0, 0),
        "left": by(-0.45 * half, 0, 0),
        "obj": grow(2, 1 / 1.15, 1),
    }
    b.strokes(1.0, 2, close, apart)


def stretch(b):
    half = b.actors["obj"].half
    b.second_hand(tuple(b.at() + (-half, 0.25, 0)))
    b.step(0.25, hand=to(*(b.at() + (half, 0.25, 0))))
    b.step(0.9, hand=by(half * 1.2, 0, 0), left=by(-half * 1.2, 0, 0), obj=grow(2.2, 0.75, 0.85))


def insert(b):
    _board(b, (b.at()[0] - 0.35, 0.0, b.at()[2]))
    h = b.actors["obj"].height
    b.put("obj", b.at() + (0.4, 0.35, 0.1))
    b.put("hand", b.top())
    b.held.add("obj")
    b.step(0.45, hand=to(*(b.top("base") + (0, 0.3 + h, 0))))
    b.step(0.9, hand=by(0, -(0.3 + 0.7 * h) / b.big, 0))


def fasten(b):
    _board(b, tuple(b.at()))
    b.put("obj", b.at() + (0, 0.12, 0))
    b.wield("screwdriver")
    for name in ("obj", "tool"):
        b.actors[name].ease = False
    drive = {"hand": by(0, -0.06, 0), "obj": by(0, -0.06, 0) | turn(y=-180), "tool": turn(y=-180)}
    b.strokes(1.0, 4, drive)


def tighten(b):
    _board(b, tuple(b.at()))
    b.put("obj", b.at() + (0, 0.1, 0))
    b.wield("wrench")
    swing = {"tool": turn(y=55), "obj": turn(y=55), "hand": by(-0.35, 0, -0.65)}
    back = {"tool": turn(y=-55), "hand": by(0.35, 0, 0.65)}
    b.strokes(1.0, 2, swing, back)


def balance(b):
    c, at = b.palette(), b.at()
    b.add("base", ([Part("pyramid", (0.16, 0.2, 0.16), c, (0, 0.2, 0))], 0.4, 0.16), tuple(at))
    b.put("obj", at + (0, 0.4, 0))
    b.put("hand", b.top())
    b.step(0.25, hand=by(0.3, 0.25, 0.15), obj=turn(z=16))
    b.step(0.45, obj=turn(z=-30))
    b.step(0.65, obj=turn(z=25))
    b.step(0.82, obj=turn(z=-18))
    b.step(1.0, obj=turn(z=9))


def throw(b):
    b.start_held(0.3)
    b.step(0.3, hand=by(0.25, 0.1, 0.3))
    b.step(0.5, hand=by(-0.4, 0.5, -0.4))
    b.held.clear()
    b.step(0.7, obj=by(-0.5, 0.35, -0.5) | turn(z=120), hand=by(0.1, -0.2, 0.1))
    b.step(1.0, obj=by(-0.9, -0.5, -0.6) | turn(z=160))


def stack(b):
    _board(b, (b.at()[0] - 0.4, 0.0, b.at()[2]), 0.26, 0.2)
    b.put("obj", b.at() + (0.4, 0, 0))
    b.grab(0.25)
    b.step(0.5, hand=by(-0.3, 0.75 / b.big, 0))
    b.step(0.8, hand=to(*(b.top("base") + (0, b.actors["obj"].height, 0))))
    b.leave()


def knock_over(b):
    half = b.actors["obj"].half
    b.step(0.35, hand=to(*(b.top() + (half + 0.25, -0.1, 0.05))))
    b.step(0.5, hand=by(-0.35, 0, 0))
    b.step(0.85, obj=turn(z=88) | by(-0.1, 0.1, 0), hand=by(0.2, 0.1, 0.1))


def lay_down(b):
    b.start_held(0.55)
    b.step(0.55, hand=by(-0.15, -0.2, 0), obj=turn(z=50))
    b.step(0.8, hand=by(-0.15, -0.3, 0), obj=turn(z=38))
    b.leave()


def cut(b):
    _halves(b)
    b.wield("knife", (0, 0.05, 0.15))
    saw = ({"hand": by(0, -0.06, -0.35)}, {"hand": by(0, -0.06, 0.35)})
    b.strokes(0.75, 2, *saw)
    b.step(
        1.0,
        obj=by(-0.3, 0, 0) | turn(z=12),
        half=by(0.3, 0, 0) | turn(z=-12),
        hand=by(0.1, 0.35, 0.2),
    )


def chop(b):
    b.wield("knife", (-0.25, 0.5, 0.1))
    down = {"hand": by(0.06, -0.5, 0)}
    b.strokes(1.0, 4, down, {"hand": by(0.06, 0.5, 0)})


def stir(b):
    _bowl(b, tuple(b.at()))
    b.actors["obj"].now["opacity"] = np.zeros(1)
    b.wield("spoon")
    b.put("tool", b.at("base") + (0.2, 0.14, 0))
    b.put("hand", b.at("tool") + TOOLS["spoon"](b.palette)[1])
    quarter = 0.2
    circle = [
        by(-quarter, 0, -quarter),
        by(-quarter, 0, quarter),
        by(quarter, 0, quarter),
        by(quarter, 0, -quarter),
    ]
    b.strokes(1.0, 3, *({"hand": m} for m in circle))


def pour(b):
    _bowl(b, (b.at()[0] - 0.35, 0.0, b.at()[2]))
    b.start_held(0.75)
    c = b.palette()
    at = b.at() + (-0.3, 0.1, 0)
    for i in range(3):
        drop_ = b.add(f"drop{i}", ([Part("sphere", (0.06, 0.08, 0.06), c)], 0.1, 0.1), tuple(at))
        drop_.now["opacity"] = np.zeros(1)
    b.step(0.35, obj=turn(z=95))
    for i in range(3):
        b.step(0.36 + 0.18 * i, **{f"drop{i}": fade(1)})
        b.step(0.52 + 0.18 * i, **{f"drop{i}": by(-0.05, -0.7, 0)})
    b.step(1.0, obj=turn(z=-60))


def scoop(b):
    _bowl(b, tuple(b.at()))
    b.actors["obj"].now["opacity"] = np.zeros(1)
    b.wield("spoon")
    b.put("tool", b.at("base") + (0.45, 0.55, 0))
    b.put("hand", b.at("tool") + TOOLS["spoon"](b.palette)[1])
    lump = b.add(
        "lump",
        ([Part("sphere", (0.11, 0.09, 0.11), b.palette())], 0.1, 0.1),
        tuple(b.at("base") + (-0.1, 0.15, 0)),
    )
    lump.now["opacity"] = np.zeros(1)
    b.step(0.35, hand=by(-0.35, -0.42, 0))
    b.step(0.5, hand=by(-0.2, 0.0, 0), lump=fade(1))
    b.held.add("lump")
    b.step(0.95, hand=by(0.2, 0.75, 0.1))


def spread(b):
    _board(b, tuple(b.at()), 0.5, 0.05)
    b.actors["obj"].now["opacity"] = np.zeros(1)
    layer = ([Part("cylinder", (0.12, 0.03, 0.12), b.palette())], 0.05, 0.12)
    b.add("layer", layer, tuple(b.top("base") + (0, 0.03, 0)))
    b.wield("knife", (0, 0, 0))
    b.put("tool", b.top("base") + (-0.25, 0.06, 0.1))
    b.put("hand", b.at("tool") + (0, 0.16, 0.55))
    right = {"hand": by(0.5, 0, 0), "layer": grow(1.4, 1, 1.35)}
    b.strokes(1.0, 2, right, {"hand": by(-0.5, 0, 0), "layer": grow(1.25, 1, 1.2)})


def wipe(b):
    b.put("obj", b.at() + (-0.6, 0, -0.35))
    b.wield("cloth")
    b.put("tool", (b.at()[0] + 0.2, 0.0, b.at()[2] + 0.55))
    b.put("hand", b.at("tool") + (0, 0.08, 0))
    b.strokes(1.0, 2, {"hand": by(0.8, 0, -0.15)}, {"hand": by(-0.8, 0, 0.15)})


def scrub(b):
    b.reach(0.2)
    circle = [by(-0.14, 0, -0.14), by(-0.14, 0, 0.14), by(0.14, 0, 0.14), by(0.14, 0, -0.14)]
    b.strokes(1.0, 3, *({"hand": m} for m in circle))


def fold(b):
    c, c2, at = b.palette(), b.palette(), b.at()
    sheet = Part("box", (0.3, 0.02, 0.34), c, (-0.3, 0.03, 0))
    b.add("obj", ([sheet], 0.05, 0.3), tuple(at))
    flap = Part("box", (0.3, 0.02, 0.34), c2, (0.3, 0.03, 0), pattern="half", colour2=c)
    b.add("flap", ([flap], 0.05, 0.3), tuple(at))
    b.step(0.25, hand=to(*(at + (0.55, 0.06, 0.1))))
    b.step(0.6, flap=turn(z=90), hand=to(*(at + (0.05, 0.6, 0.1))))
    b.step(0.95, flap=turn(z=85), hand=to(*(at + (-0.5, 0.15, 0.1))))


def open_(b):
    _hinged(b)
    b.step(0.25, hand=to(*(b.at() + (0, 0.4, 0.32))))
    b.step(0.9, lid=turn(x=-105), hand=by(0, 0.55, -0.5))


def break_(b):
    _halves(b)
    b.second_hand(tuple(b.at() + (-0.4, 0.25, 0)))
    b.step(0.2, hand=to(*(b.at() + (0.4, 0.25, 0))))
    b.step(0.45, hand=by(0, 0.45, 0), left=by(0, 0.45, 0), obj=by(0, 0.4, 0), half=by(0, 0.4, 0))
    b.step(
        0.75,
        hand=by(0.3, 0, 0),
        left=by(-0.3, 0, 0),
        obj=by(-0.3, 0, 0) | turn(z=-25),
        half=by(0.3, 0, 0) | turn(z=25),
    )


def bounce(b):
    b.start_held(1.0)
    b.held.clear()
    up = b.at()[1]
    b.step(0.2, obj=to(*(b.at() - (0, up, 0))), hand=by(0.2, 0.1, 0.1))
    for k, until in ((0.6, 0.42), (0.0, 0.62), (0.35, 0.78), (0.0, 0.92)):
        b.step(until, obj=to(b.at()[0], k * up, b.at()[2]))


def point(b):
    b.step(0.35, hand=to(*(b.top() + (0.3, 0.18, 0.2))) | turn(z=20))
    b.strokes(1.0, 1, {"hand": by(-0.1, -0.05, -0.05)}, {"hand": by(0.05, 0.02, 0.02)})


def cover(b):
    c = b.palette()
    lid = Part("cone", (0.5, 0.42, 0.5), c, (0, 0.42, 0), pattern="sectors", colour2=b.palette())
    b.add("lid", ([lid], 0.84, 0.5), tuple(b.at() + (0.15, 0.85, 0.1)))
    b.put("hand", b.top("lid"))
    b.held.add("lid")
    b.step(0.8, hand=by(-0.15, -0.85 / b.big, -0.1))


def align(b):
    _board(b, (b.at()[0] - 0.4, 0.0, b.at()[2]), 0.22, 0.16)
    b.put("obj", b.at() + (0.5, 0, 0.25))
    b.actors["obj"].now["rot"] = np.array([0.0, 50, 0])
    b.grab(0.25)
    b.step(0.6, hand=by(0, 0, -0.25), obj=turn(y=-50))
    b.step(0.95, hand=by(-0.4, 0, 0))


def pass_over(b):
    b.start_held(0.4)
    b.put("obj", b.at() + (0.6, 0, 0))
    b.put("hand", b.top())
    b.second_hand(tuple(b.top() + (-1.6, 0.1, 0)))
    b.step(0.4, hand=by(-0.5, 0.1, 0), left=by(0.8, 0, 0))
    b.held.clear()
    b.step(0.55, hand=by(0.2, 0.1, 0), left=to(*b.top()))
    b.step(1.0, left=by(-0.75, 0, 0), obj=by(-0.75, 0, 0), hand=by(0.5, 0, 0.3))


def paint(b):
    b.wield("brush", (-0.2, -0.1, 0.1))
    left, right = (
        {"hand": by(-0.35, 0, 0)},
        {"hand": by(0.35, -0.05, 0), "obj": tint(0.45, 0.9, 0.5)},
    )
    b.strokes(1.0, 2, right, left)


def attach(b):
    _board(b, (b.at()[0] - 0.5, 0.0, b.at()[2]), 0.16, 0.3)
    b.put("obj", b.at() + (0.5, 0, 0.1))
    b.start_held(0.12)
    gap = b.at()[0] - b.actors["obj"].half - b.at("base")[0] - 0.16
    b.step(0.5, hand=by(-gap, 0, -0.1))
    b.strokes(0.8, 2, {"hand": by(0.08, 0, 0)}, {"hand": by(-0.08, 0, 0)})
    b.leave()


def position(b):
    half = b.actors["obj"].half
    b.actors["obj"].now["rot"] = np.array([0.0, 0, 90])
    b.put("obj", b.at() + (0.5, half, 0.25))
    b.grab(0.25)
    b.step(0.55, hand=by(-0.35, 0.3 / b.big, -0.15), obj=turn(z=-90))
    b.step(0.8, hand=by(-0.2, -(0.3 + half) / b.big, -0.1))
    b.leave()


def melt(b):
    b.step(0.2, hand=by(0.1, 0.1, 0.1))
    b.step(0.9, obj=grow(1.6, 0.15, 1.6))


def idle(b):
    b.put("hand", b.at() + (0.75, 0.05, 0.45))
    b.second_hand(tuple(b.at() + (-0.75, 0.05, 0.45)))
    b.step(0.5, hand=by(0.02, 0.03, 0), left=by(-0.02, 0.02, 0))
    b.step(1.0, hand=by(-0.02, -0.03, 0), left=by(0.02, -0.02, 0))


FORWARD: dict[str, Callable[[Bench], None]] = {
    "pick up": pick_up, "drop": drop, "take": take, "push": push, "pull": pull, "slide": slide,
    "spin": spin,
    "rotate": rotate, "roll": roll, "flip": flip, "tilt": tilt, "shake": shake, "wave": wave,
    "swing": swing,
    "hammer": hammer, "tap": tap, "press": press, "squeeze": squeeze, "stretch": stretch,
    "insert": insert,
    "fasten": fasten, "tighten": tighten, "balance": balance, "throw": throw, "stack": stack,
    "knock over": knock_over, "lay down": lay_down, "cut": cut, "chop": chop, "stir": stir,
    "pour": pour,
    "scoop": scoop, "spread": spread, "wipe": wipe, "scrub": scrub, "fold": fold, "open": open_,
    "break": break_,
    "bounce": bounce, "point": point, "cover": cover, "align": align, "pass": pass_over,
    "paint": paint,
    "melt": melt, "attach": attach, "position": position, "idle": idle,
}  # fmt: skip
BACKWARD: dict[str, Callable[[Bench], None]] = {  # the same motion, run backwards in time
    "put down": pick_up, "pull out": insert, "unfasten": fasten, "catch": throw, "unstack": stack,
    "unfold": fold, "close": open_, "uncover": cover, "stand up": knock_over,
}  # fmt: skip
VERBS = (*FORWARD, *BACKWARD)
OBJECTLESS = (  # programs that bring their own things, or touch none
    "idle", "wave", "stir", "scoop", "spread", "wipe", "fold", "unfold", "open", "close", "cut",
    "break",
)  # fmt: skip


# People and places
DOMAINS = ("tutorial", "assembly", "furniture", "kitchen")


@dataclass
class Person:
    """What stays the same in all recordings of one participant."""

    skin: Vec
    sleeve: Vec
    pace: float  # action length relative to the average
    big: float  # amplitude of movements
    left_handed: bool


def person(domain: str, rng: np.random.Generator) -> Person:
    """Draw a participant. Toy assemblers wear gloves; one in ten narrators is left-handed, one in
    four of the others.

    Raises:
        ValueError: Unknown domain.
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain must be one of {DOMAINS}; got {domain!r}")
    if domain == "assembly":
        skin = hsv(rng.uniform(0.5, 0.75), rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.9))
    else:
        skin = hsv(rng.uniform(0.04, 0.09), rng.uniform(0.3, 0.6), rng.uniform(0.55, 0.95))
    left = bool(rng.random() < (0.1 if domain == "tutorial" else 0.25))
    sleeve = hsv(rng.random(), rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.9))
    return Person(skin, sleeve, rng.uniform(0.8, 1.25), rng.uniform(0.85, 1.15), left)


@dataclass
class Place:
    """Camera, light, surfaces and palette of one recording."""

    camera: Camera
    floor: Surface
    wall: Surface
    light: Vec
    ambient: float
    palette: Callable[[], Vec]
    clutter: int  # distractor objects that take no part
    look: Look = FREE


VIEWS = {  # fixed cameras: azimuth and elevation in degrees, distance
    "front": (0, 28, 3.6),
    "side": (48, 26, 3.7),
    "overhead": (0, 66, 3.7),
    "global": (-30, 38, 4.3),
    "dev1": (-24, 26, 3.9),
    "dev2": (46, 22, 4.0),
    "dev3": (12, 64, 3.9),
    "ego": (0, 56, 3.2),  # on the person's forehead, and never still
}
ATA_VIEWS, IKEA_VIEWS = ("front", "side", "overhead", "global"), ("dev1", "dev2", "dev3")
# domain: kinds of floor and of wall; (saturation, value) ranges of floor, wall and things; most
# distractors
LOOKS = {
    "tutorial": (("plain", "noise"), ("plain", "plain", "noise"),
                 ((0, 0.4), (0.5, 0.95)), ((0, 0.3), (0.5, 0.95)), ((0.3, 0.9), (0.6, 1)), 1),
    "assembly": (("grain", "tiles"), ("plain", "grain", "noise"),
                 ((0.2, 0.5), (0.45, 0.8)), ((0.1, 0.4), (0.4, 0.7)), ((0.5, 1), (0.4, 0.95)), 2),
    "furniture": (("grain", "noise"), ("plain", "tiles"),
                  ((0.1, 0.4), (0.35, 0.75)), ((0, 0.3), (0.5, 0.85)), ((0.05, 0.6), (0.2, 0.95)),
                  1),
    "kitchen": (("tiles", "grain"), ("tiles", "plain"),
                ((0, 0.3), (0.4, 0.9)), ((0, 0.3), (0.5, 0.9)), ((0.6, 1), (0.35, 1)), 2),
}  # fmt: skip


def _camera(view: str, rng: np.random.Generator) -> Camera:
    if view == "any":
        azimuth, elevation, distance = (
            rng.uniform(-40, 40),
            rng.uniform(15, 55),
            rng.uniform(3.2, 4.0),
        )
    else:
        azimuth, elevation, distance = VIEWS[view]
    azimuth, elevation = np.radians([azimuth + rng.normal(0, 3), elevation + rng.normal(0, 2)])
    target = np.array([0.0, 0.42, 0.0]) + rng.normal(0, 0.05, 3)
    direction = (
        np.sin(azimuth) * np.cos(elevation),
        np.sin(elevation),
        np.cos(azimuth) * np.cos(elevation),
    )
    eye = target + distance * np.asarray(direction)
    fov = 31 + rng.normal(0, 1.5)
    if view != "ego":
        return Camera(Track.of(*eye), Track.of(*target), fov)
    times = np.arange(0, 4.1, 0.5)  # the head moves every half second
    sway = np.cumsum(rng.normal(0, 0.06, (2, len(times), 3)), axis=1)
    return Camera(
        Track(np.column_stack([times, eye + sway[0]])),
        Track(np.column_stack([times, target + sway[1]])),
        fov + 4,
    )


def place(
    domain: str,
    rng: np.random.Generator,
    view: str = "any",
    room: np.random.Generator | None = None,
    look: Look = FREE,
) -> Place:
    """Draw where a recording takes place.

    Tutorial: any camera in front, plain or noisy surfaces of any lightness, mostly pastel things,
    at most
    one distractor: as varied as web video. Assembly: one of four fixed cameras (the overhead and
    the far one lie outside the tutorials' range), wood grain and tiles, saturated darker things.
    Furniture: rooms with three fixed cameras, all parts of one recording in one tone. Kitchen:
    tiles, a camera on the head.

    Args:
        domain: One of `DOMAINS`.
        rng: Draws camera, colours and clutter.
        view: A key of `VIEWS`, or "any".
        room: Draws surfaces and light; the same room can be drawn again for another recording.
            `rng` if not given.
        look: Of the things.
    """
    floors, walls, floor_range, wall_range, things_range, clutter = LOOKS[domain]
    room = room or rng
    camera = _camera(view, rng)

    def surface(
        kinds: tuple[str, ...], saturation: tuple[float, float], value: tuple[float, float]
    ) -> Surface:
        hue, s, v = room.random(), room.uniform(*saturation), room.uniform(*value)
        kind, scale, seed = (
            kinds[room.integers(len(kinds))],
            room.uniform(0.5, 1.6),
            int(room.integers(1 << 30)),
        )
        return Surface(hsv(hue, s, v), hsv(hue, min(1.0, 1.3 * s), 0.75 * v), kind, scale, seed)

    floor, wall = surface(floors, *floor_range), surface(walls, *wall_range)
    light, ambient = (room.uniform(-0.8, 0.8), 1.0, room.uniform(0.1, 0.8)), room.uniform(0.4, 0.6)
    tone = (rng.uniform(0.05, 0.11), rng.uniform(*things_range[0]), rng.uniform(*things_range[1]))

    def palette() -> Vec:
        if domain == "furniture":  # one tone of wood or lacquer, lighter and darker
            return hsv(tone[0], tone[1], float(np.clip(tone[2] * rng.uniform(0.65, 1.35), 0.1, 1)))
        return hsv(rng.random(), rng.uniform(*things_range[0]), rng.uniform(*things_range[1]))

    things = int(rng.random() < 0.3) if clutter == 1 else int(rng.integers(clutter + 1))
    return Place(camera, floor, wall, light, ambient, palette, things, look)


def act(
    verb: str, obj: str, who: Person, where: Place, rng: np.random.Generator, duration_s: float
) -> Scene:
    """The scene of one action.

    Args:
        verb: One of `VERBS`.
        obj: One of `vlact.worlds.things.OBJECTS`, or "" for an action without object (a random one
            lies there).
        who: The participant.
        where: The recording's place.
        rng: Draws the clip's own nuisances.
        duration_s: Length of the action in seconds.

    Raises:
        ValueError: For an unknown verb or object.
    """
    if verb not in VERBS:
        raise ValueError(f"verb must be one of {VERBS}; got {verb!r}")
    if obj and obj not in OBJECTS:
        raise ValueError(f"obj must be one of {OBJECTS} or ''; got {obj!r}")
    bench = Bench(
        rng,
        obj or str(rng.choice(TUTORIAL_OBJECTS)),
        where.palette,
        who.skin,
        who.sleeve,
        who.big,
        where.look,
    )
    (FORWARD.get(verb) or BACKWARD[verb])(bench)
    bodies = bench.scene(duration_s, backwards=verb in BACKWARD)
    if who.left_handed:
        bodies = [_mirror(b) for b in bodies]
    for _ in range(where.clutter):
        parts = thing(str(rng.choice(TUTORIAL_OBJECTS)), rng, where.palette, where.look)[0]
        x, z = rng.choice([-1, 1]) * rng.uniform(0.9, 1.3), rng.uniform(-1.2, -0.4)
        bodies.append(Body(parts, Track.of(x, 0, z), Track.of(0, rng.uniform(0, 360), 0)))
    return Scene(
        bodies, where.camera, where.floor, where.wall, light=where.light, ambient=where.ambient
    )


def _mirror_part(p: Part) -> Part:
    (x, y, z), (a, b, c) = p.offset, p.rot
    return replace(p, offset=(-x, y, z), rot=(a, -b, -c))


def _mirror(body: Body) -> Body:
    def flip_track(track: Track, signs) -> Track:
        return Track(np.column_stack([track.times, track.values * signs]), track.ease)

    return replace(
        body,
        parts=[_mirror_part(p) for p in body.parts],
        pos=flip_track(body.pos, (-1, 1, 1)),
        rot=flip_track(body.rot, (1, -1, -1)),
    )
