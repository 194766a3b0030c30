"""The film on top of the project page: what the three papers' models see, side by side, rendered
while the page is built; and README's picture of the three questions, from the same frames:
`python -m vlact.report.teaser FILE.png`.
"""

import functools
import sys
import tempfile
from pathlib import Path

import numpy as np

from vlact import video
from vlact.report import figures
from vlact.report.own import encode

SIDE, GAP = 192, 6  # pixels of a picture, and between two
FPS, SECONDS = 12.0, 8.0
SEED = 11
# verb and object of the workbench; coarse motion and number of Syn-TA
ACTS = (("pick up", "block"), ("pour", "bottle"), ("stack", "box"), ("spin", "ring"))
SOLIDS = ((0, 1), (4, 1), (9, 1), (14, 1))
ABOUT = (
    "Three rendered films side by side: hands at a workbench pick up, pour, stack and spin things; "
    "an athlete performs in an arena; simple solids move past each other."
)
QUESTIONS = (
    "ACE: is an unseen action recognised whatever synonym names it (stack, pile up, put on top)?",
    "ActionVLM: does language help to find when an action begins and ends, and where in the film?",
    "Motion transfer: is a motion that was learnt in one context known in another?",
)
MOMENTS = 8  # of the film, in the picture


def write(path: Path) -> None:
    """Encode the film as mp4, H.264, which browsers play without anything else."""
    frames = film()
    encode(str(path), iter(frames), *frames.shape[1:3], FPS, frames.shape[2])


def questions():
    """The picture: under each question moments of its world."""
    at = np.linspace(0, round(SECONDS * FPS) - 1, MOMENTS).round().astype(int)
    lefts = [k * (SIDE + GAP) for k in range(3)]
    strips = [film()[at, :, left : left + SIDE] for left in lefts]
    return figures.contact_sheet(strips, list(QUESTIONS), columns=1, size=8)


@functools.cache
def film() -> np.ndarray:
    """Frames uint8 (T, H, W, 3), the same ones every time."""
    gap = np.full((round(SECONDS * FPS), SIDE, GAP, 3), 255, np.uint8)
    shown = _workbench(), gap, _arena(), gap, _solids()
    return np.concatenate(shown, axis=2)


def _times(count: int) -> np.ndarray:
    """Seconds of the frames of one of `count` clips of equal length."""
    return np.arange(round(SECONDS * FPS / count)) / FPS


def _workbench() -> np.ndarray:
    from vlact.worlds import workbench
    from vlact.worlds.render import render

    rng, at = np.random.default_rng(SEED), _times(len(ACTS))
    who, where = workbench.person("tutorial", rng), workbench.place("tutorial", rng)
    length = SECONDS / len(ACTS)
    scenes = [workbench.act(*what, who, where, rng, duration_s=length) for what in ACTS]
    return np.concatenate(render(scenes, [at] * len(scenes), (SIDE, SIDE)))


def _arena() -> np.ndarray:
    from vlact.worlds import arena, broadcast

    bout = arena.bouts({"test": 1}, SECONDS, SEED, len(arena.CHAINS))[0]
    with tempfile.TemporaryDirectory() as folder:
        name = broadcast.film(bout, Path(folder), SIDE, FPS)["video"]
        info = video.probe(Path(folder) / name)
        at = np.linspace(0, len(info.times) - 1, round(SECONDS * FPS)).round().astype(int)
        return video.read(info.path, at, info)


def _solids() -> np.ndarray:
    from vlact.worlds.factors import compose
    from vlact.worlds.render import render

    rng, at = np.random.default_rng(SEED), _times(len(SOLIDS))
    scenes = [compose(coarse, number, (), rng) for coarse, number in SOLIDS]
    return np.concatenate(render(scenes, [at] * len(scenes), (SIDE, SIDE)))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    figures.save(questions(), target.parent, target.stem, vector=False)
