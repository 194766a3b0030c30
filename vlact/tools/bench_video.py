"""How fast videos are read: `python -m vlact.tools.bench_video FILE ..`; below 1 this one is
faster.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.tools.bench import Comparison
from vlact.video import cache, index, probe, stream
from vlact.video.encode import write

ROUNDS, SPREAD = 5, 16  # times that each is run; frames of a clip
MOST = 600  # frames of "all": the first ones of a long film


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


READERS = {"vlact": _vlact, "decord": _decord, "PyAV": _pyav, "OpenCV": _opencv}
NOT_THERE = (ImportError, OSError, RuntimeError)  # a reader, or a library of its own
FILM, FILM_FPS = (300, 120, 160, 3), 30  # the shape of what `table` reads
READERS["torchcodec"] = _torchcodec  # those that are not installed have empty rows


def _round(reader, path: str, tasks: dict[str, np.ndarray], best: dict[str, float]) -> None:
    for task, wanted in tasks.items():
        with tempfile.TemporaryDirectory() as os.environ["XDG_CACHE_HOME"]:
            start = time.perf_counter()
            if sum(1 for _ in reader(path, wanted)) != len(wanted):
                raise RuntimeError(f"{path}: frames are missing")
            best[task] = min(best.get(task, float("inf")), time.perf_counter() - start)


def tasks_of(path: str) -> dict[str, np.ndarray]:
    """Frames to read, ascending, by the name of the task."""
    info = probe(path)
    n, share = len(info.times), np.linspace(0, 1, SPREAD)
    tasks = {"first frame": np.zeros(1, int), "all frames": np.arange(min(n, MOST))}
    tasks["16 frames"] = (share * min(n - 1, 10 * info.fps)).astype(int)
    tasks["16 in the middle"] = n // 2 + (share * min(n // 2 - 1, 4 * info.fps)).astype(int)
    return tasks


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
            taken: dict[str, float] = {}
            try:
                _round(READERS[name], path, tasks, taken)
            except NOT_THERE:
                continue
            rounds[name].append(taken)
    ours, rows = rounds.pop("vlact"), []
    for name, theirs in rounds.items():
        for task in tasks if len(theirs) == repeats else ():
            sides = (tuple(x[task] for x in side) for side in (ours, theirs))
            rows.append(Comparison(f"reading {task}", name, *sides, None, None).row())
    return pd.DataFrame(rows)


def main() -> None:
    """Print a table for every file: milliseconds of this reader, ratios against the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    for path in parser.parse_args().files:
        info, tasks = probe(path), tasks_of(path)
        best: dict[str, dict[str, float]] = {name: {} for name in READERS}
        failed: dict[str, str] = {}
        for name in list(READERS) * ROUNDS:
            try:
                _round(READERS[name], path, tasks, best[name])
            except NOT_THERE as error:
                best[name].clear()
                failed[name] = f"not read: {' '.join(str(error).split())[:60]}"
            except Exception as error:  # peers raise anything where a film is odd
                if name == "vlact":
                    raise
                failed[name] = f"not read: {' '.join(str(error).split())[-60:]}"
        print(
            f"{path}: {info.width} x {info.height}, {len(info.times)} frames",
            *(f"{t:>20}" for t in tasks),
        )
        for name, row in best.items():
            cells = (best["vlact"][t] / x if name != "vlact" else x * 1e3 for t, x in row.items())
            shown = [f"  {failed[name]}"] if name in failed else [f"{c:20.2f}" for c in cells]
            print(f"{'/ ' + name if name != 'vlact' else 'ms':14}", *shown)


if __name__ == "__main__":
    main()
