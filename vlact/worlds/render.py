"""Scene to frames: a ray caster whose loops are compiled by numba.

Floor and wall are computed once per distinct camera. In a frame every ray that passes through a
part's bounding sphere is intersected with the part, and the nearest opaque hit of a pixel is
shaded; hits of transparent parts in front of it are laid over it, the farthest first. A picture
made the slow way, by marching along rays, is kept in `tests/reference/`.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from vlact.runtime.compiling import compiled
from vlact.worlds.scene import PATTERNS, SHAPES, SURFACES, Scene, Surface, sample

FAR = 1e6
NEAR = 1e-3  # along a ray; nearer hits are the eye's own
FLAT = 1e-4  # a ray's component below which it runs along a surface
TINY = 1e-9  # divisors are kept this far from zero
SEEN, SOLID = 0.01, 0.99  # opacity from which a part is drawn, and hides what is behind it
GOLDEN = (1 + 5**0.5) / 2
TORUS_RATIO = 0.32  # tube radius over outer radius of the unit torus
TORUS_STEPS, TORUS_GAP = 24, 0.02  # steps towards it along a ray, distance that counts as a hit
WALL_SHARE = 0.92  # of the floor's light
SHADOW_REACH, SHADOW_EDGE, SHADOW_DEPTH = 1.3, 1.15, 0.45  # in mean half extents; its blur; at most
CELLS = 32  # of a noise grid's side
OCTAVES = ((2, 0.5), (5, 0.3), (11, 0.2))  # frequency and weight of the noise's grids
GRAIN = 0.15  # how much slower wood changes along its grain


def _mirrored(*normals: tuple[float, float, float]) -> list[tuple[float, float, float, float]]:
    """Planes at c = GOLDEN with these normals, cyclically permuted, under every sign."""
    turned = {(n[k], n[(k + 1) % 3], n[(k + 2) % 3]) for n in normals for k in range(3)}
    signs = itertools.product((1, -1), repeat=3)
    return [
        (*n, GOLDEN)
        for n in sorted(
            {tuple(s * x for s, x in zip(sign, n, strict=True)) for sign in signs for n in turned}
        )
    ]


# Polyhedra by their planes n . q <= c, as rows (n, c)
POLYHEDRA = {
    "box": [(*(s * row), 1) for row in np.eye(3) for s in (1, -1)],
    "pyramid": [(0, -1, 0, 1), (2, 1, 0, 1), (-2, 1, 0, 1), (0, 1, 2, 1), (0, 1, -2, 1)],
    "prism": [(0, -1, 0, 1), (0, 1, 0, 1), (0, 0, -1, 1), (2, 0, 1, 1), (-2, 0, 1, 1)],
    "dodecahedron": _mirrored((0, GOLDEN, 1)),
    "icosahedron": _mirrored((1, 1, 1), (0, GOLDEN, 1 / GOLDEN)),
}
PLANES = np.array([row for rows in POLYHEDRA.values() for row in rows], dtype=np.float64)
_counts = [len(POLYHEDRA.get(shape, ())) for shape in SHAPES]
_before = dict(zip(POLYHEDRA, np.cumsum([0, *map(len, POLYHEDRA.values())]), strict=False))
PLANES_OF = np.array([(_before.get(s, 0), n) for s, n in zip(SHAPES, _counts, strict=True)])
SPHERE, CYLINDER, CONE, TORUS, CAPSULE = (
    SHAPES.index(s) for s in ("sphere", "cylinder", "cone", "torus", "capsule")
)
HALF, STRIPES, SECTORS, CHECKER = (
    PATTERNS.index(s) for s in ("half", "stripes", "sectors", "checker")
)
PLAIN, GRAINED, TILES = (SURFACES.index(s) for s in ("plain", "grain", "tiles"))


def render(
    scenes: Sequence[Scene], times: Sequence[np.ndarray], size: tuple[int, int] = (64, 64)
) -> list[np.ndarray]:
    """Draw scenes at the given times.

    Args:
        scenes: S scenes.
        times: For each scene the times (T_s,) in seconds.
        size: Height and width in pixels.

    Returns:
        One uint8 array (T_s, H, W, 3), RGB, per scene.

    Raises:
        ValueError: If the numbers of scenes and of time arrays differ.
    """
    if len(scenes) != len(times):
        raise ValueError(f"times must hold one array per scene; got {len(times)} for {len(scenes)}")
    return [
        _film(scene, np.asarray(t, dtype=np.float64), *size)
        for scene, t in zip(scenes, times, strict=True)
    ]


def _film(scene: Scene, times: np.ndarray, h: int, w: int) -> np.ndarray:
    """Frames (T, H, W, 3) of one scene, camera by camera."""
    part = sample(scene, times)
    centre, size = part["centre"], part["size"]
    local = part["rot"] / size[:, :, None]  # its columns turn a world vector into the part's frame
    round_parts = part["shape"] == SPHERE
    radius = np.where(round_parts, size.max(-1), np.linalg.norm(size, axis=-1))
    squat = np.minimum(size[..., 0] / size[..., 1], 1.0)
    # Along the first two axes a shadow is a disc; the third leads to the light
    light = np.asarray(scene.light) / np.linalg.norm(scene.light)
    side = np.array([light[1], -light[0], 0.0]) / np.hypot(light[0], light[1])
    axes = np.stack([side, np.cross(light, side), light])
    lit, reach = centre @ axes.T, SHADOW_REACH * size.mean(-1)

    ground = scene.floor, scene.wall
    surfaces = (
        np.array([SURFACES.index(s.kind) for s in ground]),
        np.array([s.scale for s in ground]),
        np.array([(s.colour, s.colour2) for s in ground]),
        np.stack([_grids(s) for s in ground]),
    )
    frames = np.empty((len(times), h * w, 3), dtype=np.uint8)
    poses = np.concatenate([scene.camera.eye(times), scene.camera.target(times)], axis=1)
    distinct, view = np.unique(poses, axis=0, return_inverse=True)
    for k, pose in enumerate(distinct):
        eye, rays = pose[:3], _rays(pose, scene.camera.fov, h, w)
        colour, point, depth = _background(eye, rays, float(scene.wall_distance), *surfaces)
        seen = rays, colour, depth, point @ axes.T, light, float(scene.ambient)
        for f in np.flatnonzero(view.reshape(-1) == k):
            away = centre[f] - eye
            origin = -np.einsum("ni,nij->nj", away, local[f])
            # a ray meets the bounding sphere if it goes at least this far along `away`
            least = np.sqrt(np.maximum((away**2).sum(-1) - radius[f] ** 2, 0.0))
            _draw(
                frames[f], *seen, lit[f], reach[f], away, least, local[f], origin, squat[f],
                part["colour"][f], part["colour2"][f], part["opacity"][f], part["shape"][0],
                part["pattern"][0],
            )  # fmt: skip
    return frames.reshape(len(times), h, w, 3)


def _rays(pose: np.ndarray, fov: float, h: int, w: int) -> np.ndarray:
    """Unit directions (H*W, 3) of the rays of a camera, `pose` being eye and target (6,)."""
    forward = pose[3:] - pose[:3]
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    half = math.tan(math.radians(fov) / 2)
    y = half * (1 - (np.arange(h) + 0.5) * 2 / h)
    x = half * ((np.arange(w) + 0.5) * 2 - w) / h
    d = forward + y[:, None, None] * np.cross(right, forward) + x[None, :, None] * right
    return (d / np.linalg.norm(d, axis=-1, keepdims=True)).reshape(-1, 3)


def _grids(surface: Surface) -> np.ndarray:
    """Random values (octaves, CELLS, CELLS) that a surface's noise is made of."""
    rng = np.random.default_rng(surface.seed)
    return np.stack([rng.random((CELLS, CELLS)) for _ in OCTAVES])


@compiled
def _texture(kind, grids, u, v):
    """Mixing weight in 0..1 of a surface's second colour at coordinates u, v in its periods."""
    if kind == PLAIN:
        return 0.0
    if kind == TILES:
        return abs((math.floor(u) + math.floor(v)) % 2)
    total = 0.0
    for k in range(len(OCTAVES)):
        octave, weight = OCTAVES[k]
        a, b = u * octave, v * octave * (GRAIN if kind == GRAINED else 1.0)
        i, j = math.floor(a), math.floor(b)
        fa, fb = a - i, b - j
        fa, fb = fa * fa * (3 - 2 * fa), fb * fb * (3 - 2 * fb)
        i0, j0 = int(i) % CELLS, int(j) % CELLS
        i1, j1 = (i0 + 1) % CELLS, (j0 + 1) % CELLS
        grid = grids[k]
        row0 = grid[i0, j0] * (1 - fa) + grid[i1, j0] * fa
        row1 = grid[i0, j1] * (1 - fa) + grid[i1, j1] * fa
        total += weight * (row0 * (1 - fb) + row1 * fb)
    return min(max((total - 0.5) * 2.2 + 0.5, 0.0), 1.0)


@compiled
def _background(eye, rays, wall_distance, kinds, scales, colours, noise):
    """What a camera sees of floor (row 0 of the surfaces) and wall (row 1): colour (P, 3), point
    (P, 3), distance (P,).
    """
    colour, point = np.empty_like(rays), np.empty_like(rays)
    depth = np.empty(len(rays))
    for p in range(len(rays)):
        ray = rays[p]
        floor = -eye[1] / ray[1] if ray[1] < -FLAT else FAR
        wall = (-wall_distance - eye[2]) / ray[2] if ray[2] < -FLAT else FAR
        depth[p] = t = min(floor, wall, FAR)
        for c in range(3):
            point[p, c] = eye[c] + ray[c] * t
        k = 0 if floor <= wall else 1
        u = min(max(point[p, 0], -50.0), 50.0) / scales[k]
        v = min(max(point[p, 2 if k == 0 else 1], -50.0), 50.0) / scales[k]
        mix = _texture(kinds[k], noise[k], u, v)
        for c in range(3):
            one = colours[k, 0, c] + mix * (colours[k, 1, c] - colours[k, 0, c])
            colour[p, c] = one if k == 0 else one * WALL_SHARE
    return colour, point, depth


@compiled
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled
def _draw(
    frame, rays, back, depth, ground, light, ambient, lit, reach, away, least, local, origin, squat,
    colours, colours2, opacities, shapes, patterns,
):  # fmt: skip
    """Fill a frame (P, 3), uint8: shadows on the background, then the parts.

    `ground` and `lit` are points of the background and centres of parts in axes of the light.
    """
    pixels, count = len(rays), len(away)
    dark, nearest = np.zeros(pixels), np.full(pixels, FAR)
    image, hit, clear = np.empty((pixels, 3)), np.empty(3), 0
    for n in range(count):
        if opacities[n] <= SEEN:
            continue
        clear += opacities[n] <= SOLID
        edge = (SHADOW_EDGE * reach[n]) ** 2
        for p in range(pixels):
            gap = (ground[p, 0] - lit[n, 0]) ** 2 + (ground[p, 1] - lit[n, 1]) ** 2
            if gap < edge and ground[p, 2] < lit[n, 2]:
                shade = min(SHADOW_EDGE - math.sqrt(gap) / reach[n], SHADOW_DEPTH)
                dark[p] = max(dark[p], shade * opacities[n])
    for p in range(pixels):
        for c in range(3):
            image[p, c] = back[p, c] * (1 - dark[p])

    # Opaque parts first: what lies behind them is not shaded. Hits of others (distance, colour,
    # opacity) are kept by pixel, the farthest first.
    layers, used = np.empty((clear + 1, pixels, 5)), np.zeros(pixels, np.int64)
    for solid in (True, False):
        for n in range(count):
            if opacities[n] <= SEEN or (opacities[n] > SOLID) != solid:
                continue
            turn, (o0, o1, o2) = local[n], (origin[n, 0], origin[n, 1], origin[n, 2])
            for p in range(pixels):
                ray = rays[p]
                if _dot(away[n], ray) <= least[n]:
                    continue
                d0, d1, d2 = _dot(ray, turn[:, 0]), _dot(ray, turn[:, 1]), _dot(ray, turn[:, 2])
                t, n0, n1, n2 = _meet(shapes[n], o0, o1, o2, d0, d1, d2, squat[n])
                if not NEAR < t < depth[p] or t > nearest[p]:
                    continue
                norm = slope = 0.0
                for c in range(3):
                    one = turn[c, 0] * n0 + turn[c, 1] * n1 + turn[c, 2] * n2
                    norm, slope = norm + one * one, slope + one * light[c]
                slope = max(slope / max(math.sqrt(norm), TINY), 0.0)
                bright = ambient + (1 - ambient) * slope
                mix = _pattern(patterns[n], o0 + d0 * t, o1 + d1 * t, o2 + d2 * t)
                for c in range(3):
                    hit[c] = (colours[n, c] + mix * (colours2[n, c] - colours[n, c])) * bright
                if solid:
                    nearest[p], image[p] = t, hit
                    continue
                k, used[p] = used[p], used[p] + 1
                while k > 0 and layers[k - 1, p, 0] < t:
                    layers[k, p] = layers[k - 1, p]
                    k -= 1
                layers[k, p, 0], layers[k, p, 1:4], layers[k, p, 4] = t, hit, opacities[n]
    for p in range(pixels):
        for c in range(3):
            for k in range(used[p]):
                image[p, c] += layers[k, p, 4] * (layers[k, p, 1 + c] - image[p, c])
            frame[p, c] = round(min(max(image[p, c], 0.0), 1.0) * 255)


@compiled
def _pattern(kind, x, y, z):
    """Weight of a part's second colour at its own coordinates, in [-1, 1]."""
    if kind == HALF:
        on = x > 0
    elif kind == STRIPES:
        on = math.sin(7 * y) > 0
    elif kind == SECTORS:
        on = math.sin(3 * math.atan2(z, x)) > 0
    elif kind == CHECKER:
        on = math.sin(4 * math.atan2(z, x)) * math.sin(6 * y + 0.5) > 0
    else:
        on = False
    return 1.0 if on else 0.0


# Intersections in the part frame, where every shape fills [-1, 1]^3. Each takes the ray's origin
# `o` and direction `d` (not of unit length), and returns the distance along the ray, FAR where it
# misses, and the normal.


@compiled
def _meet(shape, o0, o1, o2, d0, d1, d2, squat):
    """`squat`: ratio of width to height, at most 1, of capsules."""
    if shape == SPHERE:
        return _sphere(o0, o1, o2, d0, d1, d2)
    if shape == CYLINDER or shape == CONE:
        return _capped(shape == CONE, o0, o1, o2, d0, d1, d2)
    if shape == TORUS:
        return _torus(o0, o1, o2, d0, d1, d2)
    if shape == CAPSULE:
        return _capsule(o0, o1, o2, d0, d1, d2, squat)
    first, count = PLANES_OF[shape]
    return _convex(first, count, o0, o1, o2, d0, d1, d2)


@compiled
def _off_zero(x):
    return TINY if abs(x) < TINY else x


@compiled
def _quadric(a, b, c):
    """Roots of a t^2 + 2 b t + c, the one with minus first, and whether they are real."""
    inside = b * b - a * c
    root, a = math.sqrt(max(inside, 0.0)), _off_zero(a)
    return (-b - root) / a, (-b + root) / a, inside > 0


@compiled
def _sphere(o0, o1, o2, d0, d1, d2):
    t, _, real = _quadric(
        d0 * d0 + d1 * d1 + d2 * d2,
        o0 * d0 + o1 * d1 + o2 * d2,
        o0 * o0 + o1 * o1 + o2 * o2 - 1,
    )
    return t if real else FAR, o0 + d0 * t, o1 + d1 * t, o2 + d2 * t


@compiled
def _capped(cone, o0, o1, o2, d0, d1, d2):
    """Cylinder and cone: a side between the planes y = -1 and y = 1."""
    # Inside a cone: x^2 + z^2 <= ((1 - y) / 2)^2; what is above the apex is cut by the plane
    k, dk = ((1 - o1) / 2, -d1 / 2) if cone else (1.0, 0.0)
    a = d0 * d0 + d2 * d2 - dk * dk
    r0, r1, real = _quadric(a, o0 * d0 + o2 * d2 - k * dk, o0 * o0 + o2 * o2 - k * k)
    t0, t1 = min(r0, r1), max(r0, r1)
    if a < 0:  # steeper than the side: inside one nappe before t0, inside the other after t1
        real = True
        t0, t1 = (t1, FAR) if d1 < 0 else (-FAR, t0)
    d1 = _off_zero(d1)
    cap0, cap1 = (-1 - o1) / d1, (1 - o1) / d1
    cap0, cap1 = min(cap0, cap1), max(cap0, cap1)
    t = max(t0, cap0)
    if not real or t >= min(t1, cap1):
        return FAR, 0.0, 0.0, 0.0
    if t0 <= cap0:
        return t, 0.0, -1.0 if d1 > 0 else 1.0, 0.0
    rise = (1 - o1 - d1 * t) / 4 if cone else 0.0
    return t, o0 + d0 * t, rise, o2 + d2 * t


@compiled
def _convex(first, count, o0, o1, o2, d0, d1, d2):
    """A polyhedron, from its rows of `PLANES`."""
    enter, leave, face = -FAR, FAR, first
    for k in range(first, first + count):
        along = _off_zero(PLANES[k, 0] * d0 + PLANES[k, 1] * d1 + PLANES[k, 2] * d2)
        gap = PLANES[k, 3] - PLANES[k, 0] * o0 - PLANES[k, 1] * o1 - PLANES[k, 2] * o2
        t = gap / along
        if along > 0:
            leave = min(leave, t)
        elif t > enter:
            enter, face = t, k
    return enter if enter < leave else FAR, PLANES[face, 0], PLANES[face, 1], PLANES[face, 2]


@compiled
def _torus(o0, o1, o2, d0, d1, d2):
    # No cheap closed form: march along the ray by the distance function, on these few rays only
    major, minor = 1 - TORUS_RATIO, TORUS_RATIO
    fast = d0 * d0 + d1 * d1 + d2 * d2
    speed = math.sqrt(fast)
    t = -(o0 * d0 + o1 * d1 + o2 * d2) / fast - 1.8 / speed  # just before the bounding sphere
    planar = gap = 0.0
    for _ in range(TORUS_STEPS + 1):
        t += gap / speed
        q0, q1, q2 = o0 + d0 * t, o1 + d1 * t, o2 + d2 * t
        planar = max(math.sqrt(q0 * q0 + q2 * q2), 1e-6)
        gap = math.sqrt((planar - major) ** 2 + (q1 * minor) ** 2) - minor
    share = 1 - major / planar
    return t if abs(gap) < TORUS_GAP else FAR, q0 * share, q1 * minor * minor, q2 * share


@compiled
def _capsule(o0, o1, o2, d0, d1, d2, squat):
    # Stretch y until the caps are round: a stick of radius 1 about the segment |y| <= stem. A ray
    # that meets it meets the endless cylinder, at the stick's side or beyond one end, where a ball
    # stands.
    o1, d1, stem = o1 / squat, d1 / squat, max(1 / squat - 1, 0.0)
    t, _, real = _quadric(d0 * d0 + d2 * d2, o0 * d0 + o2 * d2, o0 * o0 + o2 * o2 - 1)
    if not real:
        return FAR, 0.0, 0.0, 0.0
    y = o1 + d1 * t
    end = min(max(y, -stem), stem)
    if abs(y) > stem:
        t = _sphere(o0, o1 - end, o2, d0, d1, d2)[0]
    return t, o0 + d0 * t, (o1 + d1 * t - end) / squat, o2 + d2 * t
