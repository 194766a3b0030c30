"""Syn-TA with its contexts under control: one factor at a time is new, all others are as in
training.

Training clips, and test clips where nothing is new, draw from the first half of every factor; a
test clip in which a factor is new draws that one from the other half. The motions are those of
`vlact.worlds.synta`.
"""

from pathlib import Path

import numpy as np

from vlact import video
from vlact.runtime.jobs import kept
from vlact.worlds.render import render
from vlact.worlds.scene import Scene
from vlact.worlds.synta import FAR, OUTSIDE, SECONDS, STEPS, STYLES, Stage, act, scene

FACTORS = (
    "object",
    "colour",
    "texture",
    "viewpoint",
    "scale",
    "count",
    "background",
    "pace",
    "duration",
    "truncation",
)
SOLIDS = (
    ("cube", "sphere", "cone", "torus", "capsule"),
    ("cylinder", "icosphere", "pyramid", "dodecahedron", "prism"),
)
HUES = ((0.0, 3.0), (3.0, 6.0))
PATTERNS = ("half", "stripes")
FLOORS = (("noise", "grain"), ("tiles",))
DISTANCES = (FAR, 1.4 * FAR)  # of the camera
SHORTER = 1.7  # times that a clip of new duration, or a truncated one, is shorter
UNEVEN = ((0.0, 0.4, 1.0), (0.0, 0.6, 1.0))  # a share of the time, that of the motion done by then


def uneven(stage: Stage) -> None:
    """Play every motion faster at first and slower then; it begins and ends as it did."""
    at = (np.interp(stage.t, *UNEVEN) * (STEPS - 1)).round().astype(int)
    for one in stage.things:
        for name in ("pos", "size", "colour", "opacity"):
            setattr(one, name, getattr(one, name)[at])


def moments(new: tuple[str, ...], fps: float) -> np.ndarray:
    """Seconds of the motion at which the frames of a clip are taken.

    A clip of new duration shows the whole motion in less time, at a higher pace; a truncated one
    shows it at its own pace and ends before it does. Neither stands still.
    """
    pace = SHORTER if "duration" in new else 1.0
    shown = SECONDS / SHORTER if "truncation" in new else SECONDS
    return np.arange(round(shown / pace * fps)) / fps * pace


def bystanders(stage: Stage) -> None:
    """Two more solids, behind to the left and to the right, that do nothing."""
    for side in (-1, 1):
        stage.thing().stay(side * OUTSIDE * stage.draw(0.4, 0.45), stage.draw(-1.7, -1.4))


def compose(coarse: int, number: int, new: tuple[str, ...], rng: np.random.Generator) -> Scene:
    """A clip's scene.

    Args:
        coarse, number: The fine class, see `vlact.worlds.synta.act`.
        new: Those of `FACTORS` that are drawn from the other half; what `moments` says of time is
            no part of the scene.
        rng: Everything else.

    Raises:
        ValueError: A factor that is none.
    """
    if unknown := set(new) - set(FACTORS):
        raise ValueError(f"new: unknown factors {sorted(unknown)}; expected some of {FACTORS}")
    half = {f: int(f in new) for f in FACTORS}
    stage = act(coarse, number, rng, solids=SOLIDS[half["object"]], hues=HUES[half["colour"]])
    if half["pace"]:
        uneven(stage)
    if half["count"]:
        bystanders(stage)
    return scene(
        stage,
        STYLES[half["viewpoint"]],
        "realistic",
        rng,
        PATTERNS[half["texture"]],
        FLOORS[half["background"]],
        DISTANCES[half["scale"]],
    )


def film(
    coarse: int,
    number: int,
    new: tuple[str, ...],
    label: str,
    ids: list[int],
    folder: Path,
    size: int,
    fps: float,
    seed: int,
) -> list[str]:
    """Clips of one fine class, `<label>/<coarse>_<number>_<id>.mp4`; returns their names.

    Args:
        coarse, number, new: See `compose`.
        label: Says in the file's name and in chance what is new.
        ids: Of the clips.
        folder, size, fps, seed: See `vlact.worlds.synta.film`.
    """
    names = [f"{label}/{coarse}_{number}_{i}.mp4" for i in ids]
    given = (seed, 72, sum(map(ord, label)), coarse, number)
    scenes = [compose(coarse, number, new, np.random.default_rng((*given, i))) for i in ids]
    times = moments(new, fps)
    for name, frames in zip(
        names, render(scenes, [times] * len(scenes), (size, size)), strict=True
    ):
        video.write(folder / name, frames, fps)
    return names


def film_job(
    coarse, number, new, label, ids, folder: str, notes: str, size, fps, seed
) -> list[str]:
    """`film` that leaves what it returns in the folder `notes`, so that a killed stage films
    nothing twice.
    """
    return kept(
        Path(notes) / f"{label}-{coarse}-{number}.json",
        film,
        coarse,
        number,
        new,
        label,
        ids,
        Path(folder),
        size,
        fps,
        seed,
    )
