"""What stands in front of the camera, as data: bodies, their keyframes, cameras, light.

Axes: x to the right, y up, z towards the viewer; the table (floor) is the plane y = 0 and the wall
the plane z = -wall_distance. Lengths are in table units (a hand is about 0.5 wide), angles in
degrees, times in seconds from the start of the scene. Nothing here draws; see `render.py`.
"""

from dataclasses import dataclass, field

import numpy as np

SHAPES = (
    "sphere",
    "box",
    "cylinder",
    "cone",
    "pyramid",
    "torus",
    "capsule",
    "prism",
    "dodecahedron",
    "icosahedron",
)
PATTERNS = ("plain", "half", "stripes", "sectors", "checker")
SURFACES = ("plain", "noise", "grain", "tiles")


class Track:
    """A keyframed quantity: piecewise interpolation with eased or constant speed.

    Args:
        keys: Rows `(t, v1, .. vD)` or one constant `(v1, .. vD)` given as `Track.of`; `t` in
            seconds, not decreasing (two equal times make a jump).
        ease: True: speed goes to zero at every key (smoothstep); False: constant speed.
    """

    def __init__(self, keys, ease: bool = True):
        keys = np.atleast_2d(np.asarray(keys, dtype=np.float64))
        if keys.shape[1] < 2:
            raise ValueError(f"keys must be rows (t, v1, ..); got shape {keys.shape}")
        if (np.diff(keys[:, 0]) < 0).any():
            raise ValueError(f"key times must not decrease; got {keys[:, 0].tolist()}")
        self.times, self.values, self.ease = keys[:, 0], keys[:, 1:], ease

    @classmethod
    def of(cls, *value: float) -> "Track":
        """A constant, for example `Track.of(0, 1, 0)`."""
        return cls([(0.0, *value)])

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """Values at times `t` (T,), as (T, D); held before the first and after the last."""
        t = np.asarray(t, dtype=np.float64)
        if len(self.times) == 1:
            return np.repeat(self.values, len(t), axis=0)
        i = np.clip(np.searchsorted(self.times, t, side="right") - 1, 0, len(self.times) - 2)
        span = np.maximum(self.times[i + 1] - self.times[i], 1e-9)
        u = np.clip((t - self.times[i]) / span, 0.0, 1.0)[:, None]
        if self.ease:
            u = u * u * (3 - 2 * u)
        return self.values[i] * (1 - u) + self.values[i + 1] * u


@dataclass
class Part:
    """One primitive of a body, in the body's own frame.

    The shapes fill the unit cube [-1, 1]^3 before `size` (half extents) is applied: cylinder, cone,
    pyramid and capsule stand along y (apex up), the torus lies in the xz plane, the prism is a
    triangle in it.
    """

    shape: str
    size: tuple[float, float, float]
    colour: tuple[float, float, float] = (0.7, 0.7, 0.7)  # RGB in 0..1
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pattern: str = "plain"
    colour2: tuple[float, float, float] = (0.2, 0.2, 0.2)

    def __post_init__(self):
        for name, allowed in (("shape", SHAPES), ("pattern", PATTERNS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}; got {getattr(self, name)!r}")


@dataclass
class Body:
    """Parts that move together; `rot` is Euler degrees, applied as Ry Rx Rz (turn, nod, roll)."""

    parts: list[Part]
    pos: Track = field(default_factory=lambda: Track.of(0, 0, 0))
    rot: Track = field(default_factory=lambda: Track.of(0, 0, 0))
    scale: Track = field(default_factory=lambda: Track.of(1, 1, 1))
    colour: Track = field(default_factory=lambda: Track.of(1, 1, 1))  # multiplies the parts'
    opacity: Track = field(default_factory=lambda: Track.of(1))  # 0..1


@dataclass
class Surface:
    """Floor or wall: two colours mixed by a procedural texture."""

    colour: tuple[float, float, float] = (0.75, 0.75, 0.75)
    colour2: tuple[float, float, float] = (0.6, 0.6, 0.6)
    kind: str = "plain"
    scale: float = 1.0  # table units per texture period
    seed: int = 0

    def __post_init__(self):
        if self.kind not in SURFACES:
            raise ValueError(f"kind must be one of {SURFACES}; got {self.kind!r}")


@dataclass
class Camera:
    """A pinhole camera; `fov` is the full vertical angle in degrees."""

    eye: Track = field(default_factory=lambda: Track.of(0, 2.2, 3.4))
    target: Track = field(default_factory=lambda: Track.of(0, 0.4, 0))
    fov: float = 40.0


@dataclass
class Scene:
    """Everything one shot needs."""

    bodies: list[Body]
    camera: Camera = field(default_factory=Camera)
    floor: Surface = field(default_factory=Surface)
    wall: Surface = field(default_factory=lambda: Surface((0.85, 0.85, 0.88)))
    wall_distance: float = 2.5
    light: tuple[float, float, float] = (0.4, 1.0, 0.5)  # direction towards the light
    ambient: float = 0.45  # share of light that has no direction, 0..1


def euler(deg: np.ndarray) -> np.ndarray:
    """Rotation matrices Ry(y) Rx(x) Rz(z) for angles (.., 3) = (x, y, z) in degrees."""
    c, s = np.cos(np.radians(deg)), np.sin(np.radians(deg))
    (cx, cy, cz), (sx, sy, sz) = np.moveaxis(c, -1, 0), np.moveaxis(s, -1, 0)
    rows = [
        [cy * cz + sy * sx * sz, -cy * sz + sy * sx * cz, sy * cx],
        [cx * sz, cx * cz, -sx],
        [-sy * cz + cy * sx * sz, sy * sz + cy * sx * cz, cy * cx],
    ]
    return np.stack([np.stack(r, axis=-1) for r in rows], axis=-2)


def sample(scene: Scene, times: np.ndarray) -> dict[str, np.ndarray]:
    """The scene at `times` (T,) in seconds, as flat arrays over its N parts.

    Returns:
        `centre` (T, N, 3), `rot` (T, N, 3, 3) part to world, `size` (T, N, 3) half extents,
        `colour` and `colour2` (T, N, 3), `opacity` (T, N), `shape` and `pattern` (1, N) as indices
        into `SHAPES` and `PATTERNS`.
    """
    out: dict[str, list] = {
        k: [] for k in ("centre", "rot", "size", "colour", "colour2", "opacity")
    }
    shape, pattern = [], []
    for body in scene.bodies:
        pos, turn, scale = body.pos(times), euler(body.rot(times)), body.scale(times)
        tint, opacity = body.colour(times), body.opacity(times)[:, 0]
        own = {
            k: np.array([getattr(part, k) for part in body.parts], dtype=np.float64)
            for k in ("offset", "rot", "size", "colour", "colour2")
        }
        offset = np.einsum("tij,tnj->tni", turn, scale[:, None] * own["offset"])
        out["centre"].append(pos[:, None] + offset)
        out["rot"].append(turn[:, None] @ euler(own["rot"]))
        out["size"].append(scale[:, None] * own["size"])
        out["colour"].append(tint[:, None] * own["colour"])
        out["colour2"].append(tint[:, None] * own["colour2"])
        out["opacity"].append(np.repeat(opacity[:, None], len(body.parts), axis=1))
        shape += [SHAPES.index(part.shape) for part in body.parts]
        pattern += [PATTERNS.index(part.pattern) for part in body.parts]
    stacked = {k: np.concatenate(v, axis=1) for k, v in out.items()}
    return stacked | {"shape": np.asarray([shape]), "pattern": np.asarray([pattern])}
