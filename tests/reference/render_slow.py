"""The renderer pixel by pixel in numpy: one ray, one part at a time. Oracle for
`vlact.worlds.render`.

Intersections are found by marching each part's implicit function along the ray in small steps and
bisecting, which shares nothing with the closed forms of the fast renderer.
"""

import numpy as np

from vlact.worlds.scene import PATTERNS, SHAPES, sample

TUBE = 0.32


def inside(shape, q, squat):
    """Whether part coordinates q (K, 3) are inside the unit shape."""
    x, y, z = q.T
    if shape == "sphere":
        return x**2 + y**2 + z**2 < 1
    if shape == "box":
        return (abs(q) < 1).all(1)
    if shape == "cylinder":
        return (x**2 + z**2 < 1) & (abs(y) < 1)
    if shape == "cone":
        return (np.hypot(x, z) < (1 - y) / 2) & (abs(y) < 1)
    if shape == "pyramid":
        return (np.maximum(abs(x), abs(z)) < (1 - y) / 2) & (y > -1)
    if shape == "torus":
        return (np.hypot(x, z) - (1 - TUBE)) ** 2 + (y * TUBE) ** 2 < TUBE**2
    if shape == "prism":
        return (abs(y) < 1) & (z > -1) & (abs(x) < (1 - z) / 2)
    x_, y_, z_, gold = abs(x), abs(y), abs(z), 1.6180339887498949
    if shape == "dodecahedron":
        return np.max([y_ + z_ / gold, x_ + y_ / gold, z_ + x_ / gold], 0) < 1
    if shape == "icosahedron":
        return (
            np.max(
                [(x_ + y_ + z_) / gold, y_ + z_ / gold**2, x_ + y_ / gold**2, z_ + x_ / gold**2], 0
            )
            < 1
        )
    over = np.maximum(abs(y) - (1 - squat), 0) / squat  # capsule
    return x**2 + z**2 + over**2 < 1


def first_hit(shape, o, d, squat, far, steps=4000):
    t = np.linspace(1e-3, far, steps)
    within = inside(shape, o + t[:, None] * d, squat)
    if not within.any():
        return None
    k = within.argmax()
    low, high = t[max(k - 1, 0)], t[k]
    for _ in range(30):
        mid = (low + high) / 2
        low, high = (low, mid) if inside(shape, (o + mid * d)[None], squat)[0] else (mid, high)
    return high


def normal_at(shape, q, squat):
    """Outward normal of the implicit function by differences of a smooth version."""

    def level(q):
        x, y, z = q
        if shape == "box":
            return np.abs(q).max()
        if shape == "cylinder":
            return max(np.hypot(x, z), abs(y))
        if shape == "cone":
            return max(np.hypot(x, z) + (y - 1) / 2, -1 - y)
        if shape == "pyramid":
            return max(max(abs(x), abs(z)) + (y - 1) / 2, -1 - y)
        if shape == "torus":
            return (np.hypot(x, z) - (1 - TUBE)) ** 2 + (y * TUBE) ** 2
        if shape == "capsule":
            return x**2 + z**2 + (max(abs(y) - (1 - squat), 0) / squat) ** 2
        if shape == "prism":
            return max(abs(y), -z, 2 * abs(x) + z)
        x_, y_, z_, gold = abs(x), abs(y), abs(z), 1.6180339887498949
        if shape == "dodecahedron":
            return max(y_ + z_ / gold, x_ + y_ / gold, z_ + x_ / gold)
        if shape == "icosahedron":
            return max(
                (x_ + y_ + z_) / gold, y_ + z_ / gold**2, x_ + y_ / gold**2, z_ + x_ / gold**2
            )
        return x**2 + y**2 + z**2

    e = 1e-4
    return np.array([level(q + e * a) - level(q - e * a) for a in np.eye(3)])


def render_flat(scene, t, height, width):
    """One frame of a scene with plain surfaces and no shadow: float (H, W, 3) in 0..1, and part
    index (H, W).
    """
    parts = sample(scene, np.array([t]))
    eye, target = scene.camera.eye(np.array([t]))[0], scene.camera.target(np.array([t]))[0]
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    half = np.tan(np.radians(scene.camera.fov) / 2)
    light = np.array(scene.light) / np.linalg.norm(scene.light)
    image, which = np.zeros((height, width, 3)), np.full((height, width), -1)
    for i in range(height):
        for j in range(width):
            d = forward + half * (
                (2 * (j + 0.5) - width) / height * right + (1 - 2 * (i + 0.5) / height) * up
            )
            d /= np.linalg.norm(d)
            t_floor = -eye[1] / d[1] if d[1] < -1e-4 else 1e6
            t_wall = (-scene.wall_distance - eye[2]) / d[2] if d[2] < -1e-4 else 1e6
            nearest = min(t_floor, t_wall)
            image[i, j] = (
                scene.floor.colour if t_floor <= t_wall else 0.92 * np.array(scene.wall.colour)
            )
            for n in range(parts["shape"].shape[1]):
                shape, size = SHAPES[parts["shape"][0, n]], parts["size"][0, n]
                turn = parts["rot"][0, n]
                o, dl = (turn.T @ (eye - parts["centre"][0, n])) / size, (turn.T @ d) / size
                squat = min(size[0] / size[1], 1.0)
                hit = first_hit(shape, o, dl, squat, min(nearest, 8.0))
                if hit is None or hit >= nearest:
                    continue
                nearest, q = hit, o + hit * dl
                world = turn @ (normal_at(shape, q, squat) / size)
                lambert = max(0.0, world @ light / np.linalg.norm(world))
                azimuth = np.arctan2(q[2], q[0])
                mix = {
                    "plain": False,
                    "half": q[0] > 0,
                    "stripes": np.sin(7 * q[1]) > 0,
                    "sectors": np.sin(3 * azimuth) > 0,
                    "checker": np.sin(4 * azimuth) * np.sin(6 * q[1] + 0.5) > 0,
                }[PATTERNS[parts["pattern"][0, n]]]
                colour = parts["colour2" if mix else "colour"][0, n]
                image[i, j] = colour * (scene.ambient + (1 - scene.ambient) * lambert)
                which[i, j] = n
    return image, which
