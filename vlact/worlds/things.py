"""Things on the workbench: objects by their word, hands, and tools with their grips."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vlact.worlds.scene import Part

Vec = tuple[float, float, float]
# parts, height of the top over the origin (on the table), half width
Made = tuple[list[Part], float, float]

# Solids: half width, half height, half depth, shape, pattern. The origin is on the table.
SOLIDS: dict[str, tuple[float, float, float, str, str]] = {
    "block": (0.26, 0.22, 0.26, "box", "half"),
    "box": (0.34, 0.26, 0.34, "box", "plain"),
    "ring": (0.34, 0.12, 0.34, "torus", "sectors"),
    "plate": (0.44, 0.05, 0.44, "cylinder", "sectors"),
    "pin": (0.07, 0.36, 0.07, "cylinder", "stripes"),
    "nut": (0.2, 0.11, 0.2, "torus", "half"),
    "cup": (0.2, 0.26, 0.2, "cylinder", "stripes"),
    "ball": (0.26, 0.26, 0.26, "sphere", "half"),
    "bottle": (0.15, 0.4, 0.15, "capsule", "checker"),
    "can": (0.19, 0.3, 0.19, "cylinder", "checker"),
    "book": (0.4, 0.07, 0.28, "box", "half"),
    "cone": (0.26, 0.34, 0.26, "cone", "sectors"),
    "leg": (0.1, 0.5, 0.1, "box", "stripes"),
    "shelf": (0.55, 0.05, 0.2, "box", "stripes"),
    "panel": (0.36, 0.3, 0.05, "box", "plain"),
    "table top": (0.48, 0.06, 0.4, "box", "plain"),
    "side panel": (0.18, 0.38, 0.05, "box", "half"),
    "back panel": (0.42, 0.24, 0.03, "box", "checker"),
    "bottom panel": (0.4, 0.03, 0.34, "box", "sectors"),
}  # fmt: skip
GOLDEN = 0.618034  # of a turn: hues of neighbours in `OBJECTS` lie far from each other
ANYTHING = ("item", "part")  # words for a thing of any shape
TUTORIAL_OBJECTS = (
    "block", "box", "ring", "plate", "pin", "screw", "nut", "cup", "ball", "bottle", "can", "book",
    "cone",
    "leg", "shelf", "panel", "table", "drawer",
)  # fmt: skip
OBJECTS = (*SOLIDS, "screw", "table", "drawer", "front panel", *ANYTHING)


@dataclass(frozen=True)
class Look:
    """What makes things of a world easy or hard to tell apart.

    Attributes:
        colours: "free": a thing has any colour of the recording's palette; "own": every word has
            a hue of its own, in all recordings, as the parts of one toy or of one make of furniture
            have.
        scale: Of all things, 1 being a block half as wide as a hand.
    """

    colours: str = "free"
    scale: float = 1.0


FREE = Look()


def hsv(h: float, s: float, v: float) -> Vec:
    """RGB, all in 0..1."""
    k = (np.array([5.0, 3.0, 1.0]) + h * 6) % 6
    return tuple(v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1))


def own_colours(name: str, rng: np.random.Generator, palette: Callable) -> tuple[Vec, Vec]:
    """A light and a dark colour of the word's own hue, as bright as the recording's palette."""
    hue = (OBJECTS.index(name) * GOLDEN + rng.normal(0, 0.01)) % 1
    value = float(np.clip(max(palette()), 0.6, 1.0))
    return hsv(hue, rng.uniform(0.7, 1.0), value), hsv(hue, rng.uniform(0.4, 0.7), 0.5 * value)


def thing(name: str, rng: np.random.Generator, palette: Callable, look: Look = FREE) -> Made:
    """An object by its word; sizes vary a little, and an item or a part has any shape."""
    s = rng.uniform(0.9, 1.15) * look.scale
    own = look.colours == "own"
    c, c2 = own_colours(name, rng, palette) if own else (palette(), palette())
    if name in ANYTHING:
        shape = ("box", "cylinder", "cone", "pyramid", "capsule", "sphere")[rng.integers(6)]
        h = 0.26 * s
        return (
            [Part(shape, (0.22 * s, h, 0.22 * s), c, (0, h, 0), pattern="half", colour2=c2)],
            2 * h,
            0.22 * s,
        )
    if name == "screw":  # point down, with a head
        w, h = 0.12 * s, 0.3 * s
        parts = [
            Part("cone", (w, h, w), c, (0, h, 0), (180, 0, 0), "stripes", c2),
            Part(
                "cylinder", (w * 1.5, 0.05, w * 1.5), c, (0, 2 * h, 0), pattern="half", colour2=c2
            ),
        ]
        return parts, 2 * h + 0.05, w * 1.5
    if name == "table":
        w, h = 0.46 * s, 0.5 * s
        feet = [
            Part("box", (0.05, h / 2, 0.05), c2, (x * w * 0.85, h / 2, z * w * 0.6))
            for x in (-1, 1)
            for z in (-1, 1)
        ]
        return (
            [Part("box", (w, 0.05, w * 0.75), c, (0, h, 0), pattern="half", colour2=c2), *feet],
            h + 0.05,
            w,
        )
    if name == "drawer":  # open above
        w, h, d = 0.38 * s, 0.15 * s, 0.3 * s
        sides = [Part("box", (0.03, h, d), c, (x * w, h, 0)) for x in (-1, 1)]
        ends = [Part("box", (w, h, 0.03), c2 if z > 0 else c, (0, h, z * d)) for z in (-1, 1)]
        return [Part("box", (w, 0.02, d), c2, (0, 0.02, 0)), *sides, *ends], 2 * h, w
    if name == "front panel":  # with a knob
        w, h = 0.46 * s, 0.2 * s
        parts = [
            Part("box", (w, h, 0.05), c, (0, h, 0)),
            Part("sphere", (0.08, 0.08, 0.08), c2, (0, h, 0.1)),
        ]
        return parts, 2 * h, w
    w, h, d, shape, pattern = SOLIDS[name]
    return (
        [Part(shape, (w * s, h * s, d * s), c, (0, h * s, 0), pattern=pattern, colour2=c2)],
        2 * h * s,
        w * s,
    )


def hand(skin: Vec, sleeve: Vec) -> Made:
    """A right hand; the origin is between the fingertips, the arm comes from the right and the
    front.
    """
    parts = [
        Part("sphere", (0.17, 0.12, 0.2), skin, (0.12, 0.16, 0.16)),
        Part("capsule", (0.05, 0.14, 0.05), skin, (-0.06, 0.08, 0.06), (0, 0, -25)),
        Part("capsule", (0.05, 0.14, 0.05), skin, (0.06, 0.06, 0.0), (20, 0, 10)),
        Part("capsule", (0.1, 0.55, 0.1), sleeve, (0.4, 0.42, 0.6), (52, 0, -32)),
    ]
    return parts, 0.3, 0.2


def stick(radius: float, half: float, colour: Vec, offset: Vec, rot: Vec = (0, 0, 0)) -> Part:
    return Part("capsule", (radius, half, radius), colour, offset, rot)


# Tools: (parts, height, half width), and where the hand grips relative to the working tip.
TOOLS: dict[str, Callable] = {
    "hammer": lambda c: (
        (
            [Part("box", (0.13, 0.11, 0.22), c(), (0, 0.1, 0)),
             stick(0.05, 0.4, c(), (0.4, 0.12, 0.05), (0, 0, 90))],
            0.2,
            0.2,
        ),
        np.array([0.65, 0.12, 0.05]),
    ),
    "screwdriver": lambda c: (
        (
            [stick(0.035, 0.25, (0.75, 0.75, 0.8), (0, 0.22, 0)),
             Part("cylinder", (0.1, 0.2, 0.1), c(), (0, 0.6, 0), pattern="sectors", colour2=c())],
            0.8,
            0.1,
        ),
        np.array([0.0, 0.68, 0.05]),
    ),
    "wrench": lambda c: (
        (
            [Part("torus", (0.17, 0.06, 0.17), c()), stick(0.06, 0.42, c(), (0.5, 0.03, 0.1),
                                                           (0, 0, 90))],
            0.1,
            0.2,
        ),
        np.array([0.85, 0.08, 0.1]),
    ),
    "knife": lambda c: (
        (
            [Part("box", (0.02, 0.12, 0.36), (0.85, 0.85, 0.9), (0, 0.1, 0)),
             stick(0.05, 0.2, c(), (0, 0.14, 0.5), (90, 0, 0))],
            0.2,
            0.1,
        ),
        np.array([0.0, 0.16, 0.55]),
    ),
    "spoon": lambda c: (
        (
            [Part("sphere", (0.13, 0.06, 0.16), c(), (0, 0.05, 0)),
             stick(0.03, 0.4, c(), (0.12, 0.4, 0.2), (25, 0, -18))],
            0.7,
            0.1,
        ),
        np.array([0.22, 0.65, 0.33]),
    ),
    "cloth": lambda c: (
        ([Part("box", (0.3, 0.04, 0.24), c(), (0, 0.04, 0), pattern="half", colour2=c())], 0.08,
         0.3),
        np.array([0.0, 0.08, 0.0]),
    ),
    "brush": lambda c: (
        (
            [Part("box", (0.08, 0.12, 0.05), c(), (0, 0.1, 0)),
             stick(0.035, 0.3, c(), (0.1, 0.45, 0.1), (12, 0, -18))],
            0.7,
            0.1,
        ),
        np.array([0.2, 0.62, 0.2]),
    ),
}  # fmt: skip
