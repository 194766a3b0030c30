"""How fast videos are read, against other readers: `python -m vlact.video.bench FILE ..`.

Ratios of the best times of several rounds, all readers in turn in one process, index not kept, one
thread each: below 1 this one is faster. A reader that is not installed has no row.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np

from vlact.video import cache, index, probe, stream

ROUNDS, SPREAD = 5, 16  # times that each is run; frames of a clip
MOST = 600  # frames of "all": the first ones of a long film


def _vlact(path: str, wanted: np.ndarray) -> Iterator[np.ndarray]:
    cache._memory.clear()
    index.take(None)
    return (frame for _, frame in stream(path, wanted))


def _decord(path: str, wanted: np.ndarray) -> Iterator[np.ndarray]:
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    if len(wanted) <= SPREAD:
        yield from reader.get_batch(wanted).asnumpy()
    else:
        yield from (reader[int(i)].asnumpy() for i in wanted)


def _pyav(path: str, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """A loop that seeks to the first frame's time and decodes all from there."""
    import av

    times = probe(path).times
    with av.open(path) as container:
        film = container.streams.video[0]
        film.thread_count, left = 1, set(wanted.tolist())
        container.seek(int((times[wanted[0]]) / film.time_base), stream=film)
        for frame in container.decode(film):
            number = int(np.searchsorted(times, frame.time - 1e-3))
            if number in left:
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
    for part in np.array_split(wanted, -(-len(wanted) // SPREAD)):
        yield from film.get_frames_at(part.tolist()).data.numpy()


PEERS = {"decord": _decord, "PyAV": _pyav, "OpenCV": _opencv, "torchcodec": _torchcodec}


def _spread(first: int, length: float) -> np.ndarray:
    return first + np.unique(np.linspace(0, length - 1, SPREAD).astype(int))


def _works(reader: Callable, path: str) -> bool:
    try:
        next(iter(reader(path, np.zeros(1, int))))
    except (ImportError, OSError, RuntimeError):  # not there, or without libraries of its own
        return False
    return True


def _times(path: str, readers: dict, tasks: dict) -> dict:
    """Best seconds of each reader at each task, in turn, no index kept."""
    best = {(r, t): float("inf") for r in readers for t in tasks}
    for task, wanted in tasks.items():
        for _ in range(ROUNDS if len(wanted) <= SPREAD else 2):
            for name, reader in readers.items():
                with tempfile.TemporaryDirectory() as folder:
                    os.environ["XDG_CACHE_HOME"] = folder
                    start = time.perf_counter()
                    if sum(1 for _ in reader(path, wanted)) != len(wanted):
                        raise RuntimeError(f"{name} does not give all frames of {path}")
                    best[name, task] = min(best[name, task], time.perf_counter() - start)
    return best


def main() -> None:
    """Print a table for every file: milliseconds of this reader, ratios against the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    for path in parser.parse_args().files:
        info = probe(path)
        n, rate = len(info.times), info.fps
        tasks = {"first frame": np.zeros(1, int), "16 frames": _spread(0, min(n, 10 * rate))}
        tasks["clip in the middle"] = _spread(n // 2, min(n // 2, 4 * rate))
        tasks["all frames"] = np.arange(min(n, MOST))
        readers = {"vlact": _vlact} | {k: f for k, f in PEERS.items() if _works(f, path)}
        best = _times(path, readers, tasks)
        print(f"{path}: {info.width} x {info.height}, {n} frames, {info.duration_s:.1f} s")
        print(" " * 12 + "".join(f"{task:>20}" for task in tasks))
        print("vlact, ms   " + "".join(f"{best['vlact', t] * 1e3:20.1f}" for t in tasks))
        for name in list(readers)[1:]:
            row = (best["vlact", t] / best[name, t] for t in tasks)
            print(f"/ {name:10}" + "".join(f"{r:20.2f}" for r in row))


if __name__ == "__main__":
    main()
