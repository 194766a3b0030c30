"""How fast videos are read, and whether rightly: `python -m vlact.tools.bench_video [FILE ..]`.

Without a file, films of plain and odd kinds are made here; their frames carry their numbers. Every
reader that is installed has its turn in every round; a ratio says how many times faster this one
is.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.runtime.jobs import write_whole
from vlact.tools.bench import Comparison
from vlact.tools.provenance import on_machine
from vlact.video import cache, index, probe, stream
from vlact.video.encode import write

ROUNDS, SPREAD = 5, 16  # times that each is run; frames of a clip
MOST = 600  # frames of "all": the first ones of a long film
COUNT, WIDTH, HEIGHT, BITS = 300, 320, 240, 10  # of a film made here
LIBRARIES = ("av", "decord", "opencv-python-headless", "torchcodec")


# Films
@dataclass(frozen=True)
class Kind:
    """A kind of film.

    Attributes:
        ending, form: Of the file; `form` where the ending does not say it.
        rate: Frames a second.
        options: Of the container.
        cut: Frames before the start, which an edit list hides.
        stamps: Of the frames, in 1 / rate; 0, 1, 2, .. if not given.
    """

    ending: str
    form: str | None = None
    rate: Fraction = Fraction(25)
    options: dict = field(default_factory=dict)
    cut: int = 0
    stamps: tuple[int, ...] = ()


FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
VARYING = tuple(np.cumsum(np.resize([1, 1, 2, 1, 5], COUNT)).tolist())
KINDS = {
    "mp4": Kind(".mp4"),
    "mkv, 24000/1001 a second": Kind(".mkv", rate=Fraction(24000, 1001)),
    "mkv without a length": Kind(".mkv", options={"live": "1"}),
    "avi, B-frames": Kind(".avi"),
    "mpegts": Kind(".ts", "mpegts"),
    "mp4 in fragments": Kind(".mp4", options=FRAGMENTS),
    "mp4 cut by an edit list": Kind(".mp4", cut=10),
    "mp4, frames of varying length": Kind(".mp4", stamps=VARYING),
}


def draw(number: int) -> np.ndarray:
    """A frame whose columns are the number's bits, white for one."""
    bits = np.arange(WIDTH) * BITS // WIDTH
    row = (30 + 195 * (number >> bits & 1)).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3))


def number(image: np.ndarray) -> int:
    """The number that a frame of `draw` shows."""
    middles = (np.arange(BITS) * 2 + 1) * WIDTH // (2 * BITS)
    return int(((image[HEIGHT // 2, middles].mean(-1) > 128) << np.arange(BITS)).sum())


def film(path: Path, kind: Kind) -> Path:
    """Numbered frames, H.264 with B-frames; those that an edit list hides come before number 0."""
    import av

    given = {"format": kind.form, "container_options": kind.options}
    with av.open(str(path), "w", **given) as out:
        picture = out.add_stream("libx264", rate=kind.rate)
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        picture.codec_context.gop_size, picture.codec_context.max_b_frames = 48, 2
        picture.options = {"preset": "veryfast"}
        for i in range(-kind.cut, COUNT):
            image = draw(i % (1 << BITS))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = kind.stamps[i] if kind.stamps else i, 1 / kind.rate
            out.mux(picture.encode(frame))
        out.mux(picture.encode())
    return path


# Readers
def _vlact(path: str, wanted: np.ndarray) -> Iterator[np.ndarray]:
    cache._memory.clear()
    index.take(None)
    return (frame for _, frame in stream(path, wanted))


def _decord(path: str, wanted: np.ndarray) -> Iterator[np.ndarray]:
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    parts = np.array_split(wanted, -(-len(wanted) // SPREAD))
    return (x for part in parts for x in reader.get_batch(part).asnumpy())


def _pyav(path: str, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """The usual loop: to the key frame before the first frame's time, then all from there."""
    import av

    with av.open(path) as container:
        film = container.streams.video[0]
        film.thread_count, left = 1, set(wanted.tolist())
        container.seek(int(wanted[0] / film.average_rate / film.time_base), stream=film)
        for frame in container.decode(film):
            if (number := round(frame.time * film.average_rate)) in left:
                left.discard(number)
                yield frame.to_ndarray(format="rgb24")
            if not left:
                return


def _opencv(path: str, wanted: np.ndarray) -> Iterator[np.ndarray]:
    import cv2

    film, last = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]), -1
    for i in wanted:
        if i != last + 1:
            film.set(cv2.CAP_PROP_POS_FRAMES, int(i))
        yield cv2.cvtColor(film.read()[1], cv2.COLOR_BGR2RGB)
        last = i


def _torchcodec(path: str, wanted: np.ndarray) -> Iterator[np.ndarray]:
    from torchcodec.decoders import VideoDecoder

    film = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1)
    parts = np.array_split(wanted, -(-len(wanted) // SPREAD))
    return (x for part in parts for x in film.get_frames_at(part.tolist()).data.numpy())


READERS = {  # those that are not installed are said
    "vlact": _vlact,
    "decord": _decord,
    "PyAV": _pyav,
    "OpenCV": _opencv,
    "torchcodec": _torchcodec,
}
NOT_THERE = (ImportError, OSError, RuntimeError)  # a reader, or a library of its own
FILM, FILM_FPS = (300, 120, 160, 3), 30  # the shape of what `table` reads


def tasks_of(path: str) -> dict[str, np.ndarray]:
    """Frames to read, ascending, by the name of the task."""
    info = probe(path)
    n, share = len(info.times), np.linspace(0, 1, SPREAD)
    tasks = {"first frame": np.zeros(1, int), "all frames": np.arange(min(n, MOST))}
    tasks["16 frames"] = (share * min(n - 1, 10 * info.fps)).astype(int)
    tasks["16 in the middle"] = n // 2 + (share * min(n // 2 - 1, 4 * info.fps)).astype(int)
    return tasks


def timed(reader, path: str, tasks: dict[str, np.ndarray]) -> dict[str, float]:
    """Processor seconds of every task, the index made anew for each.

    Raises:
        RuntimeError: Frames are missing.
    """
    taken = {}
    for task, wanted in tasks.items():
        with tempfile.TemporaryDirectory() as os.environ["XDG_CACHE_HOME"]:
            start = time.process_time()
            count = sum(1 for _ in reader(path, wanted))
            taken[task] = time.process_time() - start
        if count != len(wanted):
            raise RuntimeError(f"{count} of {len(wanted)} frames come")
    return taken


def table(repeats: int = ROUNDS) -> pd.DataFrame:
    """Reading a film made here, against every reader that is installed; rows as of
    `vlact.tools.bench.Comparison`.
    """
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in READERS}
    with tempfile.TemporaryDirectory() as folder:
        path, rng = str(Path(folder) / "film.mp4"), np.random.default_rng(0)
        write(path, rng.integers(0, 256, FILM, dtype=np.uint8), FILM_FPS)
        tasks = tasks_of(path)
        for name in list(READERS) * repeats:
            try:
                rounds[name].append(timed(READERS[name], path, tasks))
            except NOT_THERE:
                continue
    ours, rows = rounds.pop("vlact"), []
    for name, theirs in rounds.items():
        for task in tasks if len(theirs) == repeats else ():
            sides = (tuple(x[task] for x in side) for side in (ours, theirs))
            rows.append(Comparison(f"reading {task}", name, *sides, None, None).row())
    return pd.DataFrame(rows)


def against(path: str, kind: str, numbered: bool) -> list[dict]:
    """A row a reader: `film, reader, right, ` the tasks' ratios (this one: milliseconds), `said`.

    Args:
        path: The film.
        kind: What it is called.
        numbered: Whether it was made here, so that wrong frames are seen.
    """
    tasks, rows = tasks_of(path), {}
    best: dict[str, dict[str, float]] = {name: {} for name in READERS}
    for name, reader in READERS.items():
        rows[name] = {"film": kind, "reader": name, "right": "", "said": ""}
        try:
            found = reader(path, tasks["all frames"])
            if numbered:
                seen = [number(x) for x in found]
                right = sum(a == b for a, b in zip(seen, range(COUNT), strict=False))
                rows[name]["right"] = f"{right} of {COUNT}"
        except Exception as error:  # peers raise anything where a film is odd
            if name == "vlact":
                raise
            rows[name]["said"] = f"not read: {' '.join(str(error).split())[-60:]}"
    for name in [n for n in READERS if not rows[n]["said"]] * ROUNDS:
        try:
            taken = timed(READERS[name], path, tasks)
        except Exception as error:
            if name == "vlact":
                raise
            rows[name]["said"] = f"not read: {' '.join(str(error).split())[-60:]}"
            continue
        best[name] = {t: min(x, best[name].get(t, x)) for t, x in taken.items()}
    for name, row in rows.items():
        if not row["said"]:
            ours = best["vlact"]
            row |= {t: x * 1e3 if name == "vlact" else x / ours[t] for t, x in best[name].items()}
    return list(rows.values())


def versions() -> str:
    """The machine, and the readers that are installed."""
    said = []
    for library in LIBRARIES:
        try:
            said.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            said.append(f"no {library}")
    return f"{on_machine()}, {', '.join(said)}"


def main(arguments: list[str] | None = None) -> None:
    """Print a row for every film and reader: milliseconds of this one, ratios of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="films; without any, some are made")
    parser.add_argument("--out", type=Path, help="a csv")
    given = parser.parse_args(arguments)
    rows = [row for path in given.files for row in against(path, path, False)]
    with tempfile.TemporaryDirectory() as folder:
        for kind, how in {} if given.files else KINDS.items():
            path = film(Path(folder) / f"film{how.ending}", how)
            rows += against(str(path), kind, True)
    found, on = pd.DataFrame(rows), versions()
    found = found[[c for c in found if c != "said"] + ["said"]]
    print(on)
    print(found.round(2).to_string(index=False, na_rep=""))
    if given.out:
        write_whole(given.out, lambda data, to: data.to_csv(to, index=False), found.assign(on=on))


if __name__ == "__main__":
    main(sys.argv[1:])
