"""Scene to frames: a batched ray caster in torch, on CPU or GPU.

Speed comes from three things: a bounding-sphere test as one matrix product per frame leaves few
(frame, pixel, part) triples to intersect; floor and wall are computed once per distinct camera;
the surviving hits are painted back to front in as many passes as parts overlap in a pixel.
A pixel-by-pixel version of the same picture is kept in `tests/reference/`.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlact.worlds.scene import PATTERNS, SHAPES, SURFACES, Scene, Surface, sample

FAR = 1e6
GOLDEN = (1 + 5**0.5) / 2
TORUS_RATIO = 0.32  # tube radius over outer radius of the unit torus


def render(
    scenes: Sequence[Scene],
    times: Sequence[np.ndarray],
    size: tuple[int, int] = (64, 64),
    supersample: int = 1,
    device: str | torch.device = "cpu",
) -> list[np.ndarray]:
    """Draw scenes at the given times.

    Args:
        scenes: S scenes.
        times: For each scene the times (T_s,) in seconds.
        size: Height and width in pixels.
        supersample: Rays per pixel along each side; averaged.
        device: Where to compute.

    Returns:
        One uint8 array (T_s, H, W, 3), RGB, per scene.

    Raises:
        ValueError: If the numbers of scenes and of time arrays differ.
    """
    if len(scenes) != len(times):
        raise ValueError(f"times must hold one array per scene; got {len(times)} for {len(scenes)}")
    h, w = size[0] * supersample, size[1] * supersample
    with torch.inference_mode():
        batch = _gather(scenes, times, device)
        image = _draw(batch, h, w)
        if supersample > 1:
            image = image.view(len(image), size[0], supersample, size[1], supersample, 3).mean(
                (2, 4)
            )
        frames = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return np.split(frames, np.cumsum([len(t) for t in times])[:-1])


def _gather(scenes, times, device) -> dict:
    """All frames of all scenes as tensors over F frames, N parts (padded), U distinct cameras."""
    samples = [
        sample(s, np.asarray(t, dtype=np.float64)) for s, t in zip(scenes, times, strict=True)
    ]
    n = max(s["shape"].size for s in samples)

    def stack(key, fill=0.0):
        rows = np.full((sum(map(len, times)), n, *samples[0][key].shape[2:]), fill, np.float32)
        start = 0
        for s, t in zip(samples, times, strict=True):
            rows[start : start + len(t), : s["shape"].size] = s[key]
            start += len(t)
        return torch.as_tensor(rows, device=device)

    views, view_of_frame, surfaces = [], [], []
    for scene, t in zip(scenes, times, strict=True):
        poses = np.concatenate([scene.camera.eye(t), scene.camera.target(t)], axis=1)
        distinct, index = np.unique(poses, axis=0, return_inverse=True)
        view_of_frame.append(index.reshape(-1) + len(views))
        views += [(*row, scene.camera.fov) for row in distinct]
        surfaces += [scene] * len(distinct)
    return {
        **{k: stack(k) for k in ("centre", "rot", "colour", "colour2", "opacity")},
        "size": stack("size", fill=1.0),
        "shape": stack("shape").long(),
        "pattern": stack("pattern").long(),
        "views": torch.as_tensor(np.asarray(views), dtype=torch.float32, device=device),
        "view_of_frame": torch.as_tensor(np.concatenate(view_of_frame), device=device),
        "surfaces": surfaces,
    }


def _rays(views: Tensor, h: int, w: int) -> Tensor:
    """Unit ray directions (U, H*W, 3) for views (U, 7) = eye, target, fov."""
    eye, target = views[:, :3], views[:, 3:6]
    forward = torch.nn.functional.normalize(target - eye, dim=1)
    up = torch.zeros_like(forward)
    up[:, 1] = 1.0
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=1)
    up = torch.linalg.cross(right, forward)
    half = torch.tan(torch.deg2rad(views[:, 6]) / 2)[:, None, None]
    y, x = torch.meshgrid(
        1 - (torch.arange(h, device=views.device) + 0.5) * 2 / h,
        ((torch.arange(w, device=views.device) + 0.5) * 2 - w) / h,
        indexing="ij",
    )
    d = forward[:, None] + half * (
        x.reshape(1, -1, 1) * right[:, None] + y.reshape(1, -1, 1) * up[:, None]
    )
    return torch.nn.functional.normalize(d, dim=-1)


def _texture(surface: Surface, u: Tensor, v: Tensor) -> Tensor:
    """Mixing weight in 0..1 of `colour2` at surface coordinates (P,)."""
    kind = SURFACES.index(surface.kind)
    u, v = u / surface.scale, v / surface.scale
    if kind == 0:
        return torch.zeros_like(u)
    if kind == 3:
        return ((u.floor() + v.floor()) % 2).abs()
    rng = np.random.default_rng(surface.seed)
    total = torch.zeros_like(u)
    for octave, weight in ((2, 0.5), (5, 0.3), (11, 0.2)):
        grid = torch.as_tensor(rng.random((32, 32)), dtype=u.dtype, device=u.device)
        a, b = u * octave, v * octave * (0.15 if kind == 2 else 1.0)
        i, j = a.floor(), b.floor()
        fa, fb = a - i, b - j
        fa, fb = fa * fa * (3 - 2 * fa), fb * fb * (3 - 2 * fb)
        i, j = i.long() % 32, j.long() % 32
        i1, j1 = (i + 1) % 32, (j + 1) % 32
        row0 = grid[i, j] * (1 - fa) + grid[i1, j] * fa
        row1 = grid[i, j1] * (1 - fa) + grid[i1, j1] * fa
        total += weight * (row0 * (1 - fb) + row1 * fb)
    return ((total - 0.5) * 2.2 + 0.5).clamp(0, 1)


def _background(batch: dict, rays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Floor and wall seen by each distinct view: colour (U, P, 3), point (U, P, 3), distance (U,
    P).
    """
    eye = batch["views"][:, None, :3]
    down = rays[..., 1] < -1e-4
    t_floor = torch.where(down, -eye[..., 1] / rays[..., 1].clamp(max=-1e-4), FAR)
    away = rays[..., 2] < -1e-4
    wall_z = torch.tensor([-s.wall_distance for s in batch["surfaces"]], device=rays.device)
    t_wall = torch.where(away, (wall_z[:, None] - eye[..., 2]) / rays[..., 2].clamp(max=-1e-4), FAR)
    t = torch.minimum(t_floor, t_wall).clamp(max=FAR)
    point = eye + rays * t[..., None]
    colour = torch.empty_like(rays)
    first = 0
    for _, views in itertools.groupby(batch["surfaces"], key=id):  # all views of a scene at once
        scene, *more = views
        at = slice(first, first := first + 1 + len(more))
        on_floor = t_floor[at] <= t_wall[at]
        for surface, mask, axes in (
            (scene.floor, on_floor, (0, 2)),
            (scene.wall, ~on_floor, (0, 1)),
        ):
            p = point[at][mask]
            mix = _texture(surface, p[:, axes[0]].clamp(-50, 50), p[:, axes[1]].clamp(-50, 50))
            c1, c2 = (
                torch.tensor(c, dtype=torch.float32, device=p.device)
                for c in (surface.colour, surface.colour2)
            )
            colour[at][mask] = c1 + mix[:, None] * (c2 - c1)
        colour[at] *= torch.where(on_floor, 1.0, 0.92)[..., None]
    return colour, point, t


def _draw(batch: dict, h: int, w: int) -> Tensor:
    """Frames (F, H, W, 3) in 0..1.

    Below, `fn` indexes (frame, part) pairs and `up` (view, pixel).
    """
    rays = _rays(batch["views"], h, w)
    back, point, depth = (x.flatten(0, 1) for x in _background(batch, rays))
    view, pixels = batch["view_of_frame"], h * w
    eye, light, across, ambient = _lighting(batch)
    centre, size, opacity = batch["centre"], batch["size"], batch["opacity"]
    parts = centre.shape[1]
    solid = opacity > 0.01
    radius = torch.where(batch["shape"] == SHAPES.index("sphere"), size.amax(-1), size.norm(dim=-1))
    size, opacity, rot = size.flatten(0, 1), opacity.flatten(), batch["rot"].flatten(0, 1)

    def triples(mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Indices fn, f, up and frame pixel of the true entries of a mask (F, N, P)."""
        flat = mask.flatten().nonzero().squeeze(1)
        fn = torch.div(flat, pixels, rounding_mode="floor")
        f = torch.div(fn, parts, rounding_mode="floor")
        pixel = flat - fn * pixels
        return fn, f, view[f] * pixels + pixel, f * pixels + pixel

    # Soft shadow on floor and wall. In the plane across the light, a shadow is a disc round the
    # part's centre, so one product of (u, v, u^2 + v^2, 1) with the centres gives squared
    # distances.
    # (F, P, 2), (F, N, 2)
    flat, flat_c = point.view(len(rays), -1, 3)[view] @ across, centre @ across
    lhs = torch.stack([*flat.unbind(-1), flat.square().sum(-1), torch.ones_like(flat[..., 0])], 1)
    rhs = torch.cat(
        [-2 * flat_c, torch.ones_like(flat_c[..., :1]), flat_c.square().sum(-1, keepdim=True)], -1
    )
    reach = (1.3 * size.mean(-1)).view(-1, parts)
    gap2 = rhs @ lhs  # (F, N, P)
    limit = torch.where(solid, (1.15 * reach).square(), -1.0)
    fn, f, up, fp = triples(gap2 < limit[..., None])
    shade = (
        1.15
        - gap2.flatten()[fn * pixels + fp - f * pixels].clamp(min=0).sqrt() / reach.flatten()[fn]
    )
    below = ((_take(point, up) - _take(centre.flatten(0, 1), fn)) * _take(light, f)).sum(-1) < 0
    shade = torch.where(below, shade.clamp(max=0.45) * opacity[fn], 0.0)
    dark = torch.zeros(len(view) * pixels, device=shade.device).scatter_reduce_(
        0, fp, shade, "amax"
    )
    image = back.view(len(rays), -1, 3)[view].flatten(0, 1) * (1 - dark)[:, None]

    # Candidate triples (the ray passes within the bounding sphere), then exact intersection by
    # shape.
    to_centre = centre - eye[:, None]  # (F, N, 3)
    nearest = (to_centre.square().sum(-1) - radius.square()).clamp(min=0).sqrt()
    nearest = torch.where(solid, nearest, FAR)
    fn, f, up, fp = triples(to_centre @ rays.transpose(1, 2)[view] > nearest[..., None])
    shape = batch["shape"].flatten()[fn]
    local = (rot / size[:, None, :]).flatten(1)  # world vector to part frame, rows of 9
    origin = -(rot * to_centre.flatten(0, 1)[:, :, None]).sum(1) / size
    squat = (size[:, 0] / size[:, 1]).clamp(max=1.0)
    kept = []
    for k in shape.unique().tolist():
        at = (shape == k).nonzero().squeeze(1)
        i, j = fn[at], up[at]
        o, d = (
            _take(origin, i),
            (_take(rays.flatten(0, 1), j)[:, :, None] * _take(local, i).view(-1, 3, 3)).sum(1),
        )
        t, normal = INTERSECT[SHAPES[k]](o, d, squat[i])
        hit = ((t > 1e-3) & (t < depth[j])).nonzero().squeeze(1)
        at, t = at[hit], t[hit]
        q = _take(o, hit) + _take(d, hit) * t[:, None]
        kept.append((fn[at], f[at], fp[at], t, q, _take(normal, hit)))
    if not kept:
        return image.view(-1, h, w, 3)
    fn, f, fp, t, q, normal = (torch.cat(x) for x in zip(*kept, strict=True))
    opaque = opacity[fn] > 0.99
    nearest = torch.full((len(image),), FAR, device=t.device)
    nearest.scatter_reduce_(0, fp[opaque], t[opaque], "amin")
    shown = (t <= nearest[fp]).nonzero().squeeze(1)
    fn, f, fp, t, q, normal = (_take(x, shown) for x in (fn, f, fp, t, q, normal))

    world = (_take(rot.flatten(1), fn).view(-1, 3, 3) * (normal / _take(size, fn))[:, None, :]).sum(
        -1
    )
    lambert = (torch.nn.functional.normalize(world, dim=-1) * _take(light, f)).sum(-1).clamp(min=0)
    mix = _pattern(batch["pattern"].flatten()[fn], q)[:, None]
    colour1, colour2 = batch["colour"].flatten(0, 1), batch["colour2"].flatten(0, 1)
    colour = torch.lerp(_take(colour1, fn), _take(colour2, fn), mix)
    colour = colour * (ambient[f] + (1 - ambient[f]) * lambert)[:, None]
    return _paint(image, fp, t, colour, opacity[fn]).view(-1, h, w, 3)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of `x`; several times faster on CPU than `x[index]`."""
    return x.index_select(0, index)


def _lighting(batch: dict) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per frame: eye (F, 3), direction to the light (F, 3), two directions across it, ambient
    share.

    The directions across the light are columns (F, 3, 2); the ambient share is (F,).
    """
    view, device = batch["view_of_frame"], batch["views"].device
    light = torch.tensor([s.light for s in batch["surfaces"]], dtype=torch.float32, device=device)
    ambient = torch.tensor(
        [s.ambient for s in batch["surfaces"]], dtype=torch.float32, device=device
    )
    light = torch.nn.functional.normalize(light, dim=1)
    side = torch.nn.functional.normalize(
        torch.stack([light[:, 1], -light[:, 0], light[:, 2] * 0], -1), dim=1
    )
    across = torch.stack([side, torch.linalg.cross(light, side)], dim=-1)
    return batch["views"][view, :3], light[view], across[view], ambient[view]


def _paint(image: Tensor, pixel: Tensor, t: Tensor, colour: Tensor, opacity: Tensor) -> Tensor:
    """Put hits on `image` (F*P, 3): the opaque ones, then the transparent ones, farthest first."""
    solid = opacity > 0.99
    image[pixel[solid]] = colour[solid]
    order = torch.argsort(t[~solid], descending=True)
    pixel, colour, opacity = (x[~solid][order] for x in (pixel, colour, opacity[:, None]))
    while len(pixel):  # one layer of distinct pixels at a time
        first = torch.full((len(image),), len(pixel), device=pixel.device)
        index = torch.arange(len(pixel), device=pixel.device)
        now = first.scatter_reduce_(0, pixel, index, "amin")[pixel] == index
        at = pixel[now]
        image[at] = torch.lerp(image[at], colour[now], opacity[now])
        pixel, colour, opacity = pixel[~now], colour[~now], opacity[~now]
    return image


def _pattern(kind: Tensor, q: Tensor) -> Tensor:
    """Weight (K,) of the second colour at part coordinates `q` (K, 3) in [-1, 1]."""
    x, y, z = q.unbind(-1)
    azimuth = torch.atan2(z, x)
    choices = {
        "half": x > 0,
        "stripes": torch.sin(7 * y) > 0,
        "sectors": torch.sin(3 * azimuth) > 0,
        "checker": torch.sin(4 * azimuth) * torch.sin(6 * y + 0.5) > 0,
    }
    mix = torch.zeros_like(x)
    for name, value in choices.items():
        mix = torch.where((kind == PATTERNS.index(name)) & value, 1.0, mix)
    return mix


# Intersections in the part frame, where every shape fills [-1, 1]^3. Each takes origins `o` (K, 3),
# directions `d` (K, 3, not normalised) and `squat` (K,), the ratio of width to height (at most 1),
# and returns the distance along the ray (K,), FAR where it misses, and the part-frame normal (K,
# 3).


def _quadric(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roots t0 <= t1 of a t^2 + 2 b t + c (a > 0) and whether they are real."""
    disc = b * b - a * c
    root = disc.clamp(min=0).sqrt()
    a = torch.where(a.abs() < 1e-9, 1e-9, a)
    return (-b - root) / a, (-b + root) / a, disc > 0


def _slab(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Interval of t in which -1 <= o + d t <= 1."""
    d = torch.where(d.abs() < 1e-9, 1e-9, d)
    a, b = (-1 - o) / d, (1 - o) / d
    return torch.minimum(a, b), torch.maximum(a, b)


def _sphere(o: Tensor, d: Tensor, squat: Tensor):
    t0, _, real = _quadric((d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1)
    return torch.where(real, t0, FAR), o + d * t0[:, None]


def _box(o: Tensor, d: Tensor, squat: Tensor):
    enter, leave = _slab(o, d)
    t0, axis = enter.max(-1)
    normal = torch.zeros_like(o).scatter_(1, axis[:, None], -d.gather(1, axis[:, None]).sign())
    return torch.where(t0 < leave.amin(-1), t0, FAR), normal


def _capped(o: Tensor, d: Tensor, side0: Tensor, side1: Tensor, valid: Tensor, side_normal: Tensor):
    """A body of revolution between the planes y = -1 and y = 1."""
    cap0, cap1 = _slab(o[:, 1], d[:, 1])
    t0 = torch.maximum(side0, cap0)
    hit = valid & (t0 < torch.minimum(side1, cap1))
    cap_normal = torch.zeros_like(o)
    cap_normal[:, 1] = -d[:, 1].sign()
    normal = torch.where((side0 > cap0)[:, None], side_normal, cap_normal)
    return torch.where(hit, t0, FAR), normal


def _cylinder(o: Tensor, d: Tensor, squat: Tensor):
    flat = torch.tensor([1.0, 0.0, 1.0], device=o.device)
    of, df = o * flat, d * flat
    t0, t1, real = _quadric((df * df).sum(-1), (of * df).sum(-1), (of * of).sum(-1) - 1)
    return _capped(o, d, t0, t1, real, of + df * t0[:, None])


def _cone(o: Tensor, d: Tensor, squat: Tensor):
    # Inside: x^2 + z^2 <= ((1 - y) / 2)^2 with y <= 1; the part above the apex is cut by the slab.
    k = (1 - o[:, 1]) / 2
    dk = -d[:, 1] / 2
    a = d[:, 0] ** 2 + d[:, 2] ** 2 - dk * dk
    b = o[:, 0] * d[:, 0] + o[:, 2] * d[:, 2] - k * dk
    c = o[:, 0] ** 2 + o[:, 2] ** 2 - k * k
    r0, r1, real = _quadric(a, b, c)
    r0, r1 = torch.minimum(r0, r1), torch.maximum(r0, r1)
    # A ray steeper than the side (a < 0) is inside one nappe before r0 and inside the other after
    # r1.
    steep, falling = a < 0, d[:, 1] < 0
    t0 = torch.where(steep, torch.where(falling, r1, -FAR), r0)
    t1 = torch.where(steep, torch.where(falling, FAR, r0), r1)
    q = o + d * t0[:, None]
    normal = torch.stack([q[:, 0], (1 - q[:, 1]) / 4, q[:, 2]], dim=-1)
    return _capped(o, d, t0, t1, real | steep, normal)


def _convex(planes: list[tuple[float, float, float, float]]):
    """A polyhedron from its planes n . q <= c, as rows (n, c)."""

    def intersect(o: Tensor, d: Tensor, squat: Tensor):
        n, c = torch.tensor(planes, dtype=o.dtype, device=o.device).split([3, 1], 1)
        den = d @ n.T
        den = torch.where(den.abs() < 1e-9, 1e-9, den)
        t = (c.T - o @ n.T) / den
        t0, face = torch.where(den < 0, t, -FAR).max(-1)
        t1 = torch.where(den > 0, t, FAR).amin(-1)
        return torch.where(t0 < t1, t0, FAR), n[face]

    return intersect


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


def _torus(o: Tensor, d: Tensor, squat: Tensor):
    # No cheap closed form: march along the ray by the distance function, on these few rays only.
    major, minor = 1 - TORUS_RATIO, TORUS_RATIO
    speed = d.norm(dim=-1)
    t = -(o * d).sum(-1) / speed.square() - 1.8 / speed  # just before the bounding sphere

    def ring(q):
        planar = (q[:, 0].square() + q[:, 2].square()).sqrt().clamp(min=1e-6)
        return planar, ((planar - major).square() + (q[:, 1] * minor).square()).sqrt() - minor

    for _ in range(24):
        t = t + ring(o + d * t[:, None])[1] / speed
    q = o + d * t[:, None]
    planar, gap = ring(q)
    centre = q * (major / planar)[:, None]
    normal = (q - centre) * torch.tensor([1.0, 0.0, 1.0], device=o.device)
    normal[:, 1] = q[:, 1] * minor * minor
    return torch.where(gap.abs() < 0.02, t, FAR), normal


def _capsule(o: Tensor, d: Tensor, squat: Tensor):
    # Stretch y until the caps are round: a stick of radius 1 about the segment |y| <= stem. A ray
    # that meets it meets the endless cylinder, at the stick's side or beyond one end, where a ball
    # stands.
    stretch = torch.stack([torch.ones_like(squat), 1 / squat, torch.ones_like(squat)], -1)
    stem = (1 / squat - 1).clamp(min=0)
    o, d = o * stretch, d * stretch
    of, df = o[:, ::2], d[:, ::2]
    t, _, real = _quadric((df * df).sum(-1), (of * df).sum(-1), (of * of).sum(-1) - 1)
    y = o[:, 1] + d[:, 1] * t
    end = torch.minimum(torch.maximum(y, -stem), stem)
    shift = torch.zeros_like(o)
    shift[:, 1] = end
    t_cap, _ = _sphere(o - shift, d, squat)
    t = torch.where(y.abs() <= stem, t, t_cap)
    return torch.where(real, t, FAR), (o + d * t[:, None] - shift) * stretch


INTERSECT = {
    "sphere": _sphere,
    "box": _box,
    "cylinder": _cylinder,
    "cone": _cone,
    "pyramid": _convex([(0, -1, 0, 1), (2, 1, 0, 1), (-2, 1, 0, 1), (0, 1, 2, 1), (0, 1, -2, 1)]),
    "torus": _torus,
    "capsule": _capsule,
    "prism": _convex([(0, -1, 0, 1), (0, 1, 0, 1), (0, 0, -1, 1), (2, 0, 1, 1), (-2, 0, 1, 1)]),
    "dodecahedron": _convex(_mirrored((0, GOLDEN, 1))),
    "icosahedron": _convex(_mirrored((1, 1, 1), (0, GOLDEN, 1 / GOLDEN))),
}
