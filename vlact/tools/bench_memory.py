"""How much memory videos take by their length: `python -m vlact.tools.bench_memory [out.csv]`.

Films of 720p are made on the spot. Each number is the peak of a process of its own, less what it
held with imports, encoder and decoder loaded, in MB: features of the whole film, and forty segments
of sixteen frames.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

SECONDS, SHORT_S = (15, 30, 60, 120), 1
HEIGHT, WIDTH, FPS = 720, 1280, 30
SEGMENTS, FRAMES, SIDE = 40, 16, 112
KB, MB = 1024, 2**20


def film(path: Path, seconds: float) -> Path:
    """Moving stripes, written frame by frame."""
    import av

    across = np.arange(WIDTH)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for i in range(round(seconds * FPS)):
            row = ((across + 4 * i) // 40 % 2 * 180 + 30).astype(np.uint8)
            image = np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def features(path: Path) -> None:
    """Of the whole film, eight frames a second."""
    from vlact.models.dual import DualConfig, DualEncoder
    from vlact.training.features import extract

    eye = DualEncoder(DualConfig(SIDE, 16, FRAMES, 64, 1, 2, 16, 384, "mean")).eval()
    extract(eye, path, 8.0, 4)


def segments(path: Path) -> None:
    """Forty of them, evenly over the film."""
    from vlact.video import clips, probe

    ends = np.linspace(0, probe(path).duration_s, SEGMENTS + 1)
    rows = {"video": path.name, "start_s": ends[:-1], "end_s": ends[1:], "label": "a"}
    clips.load(path.parent, pd.DataFrame(rows), FRAMES, SIDE)


WORK = {"features": features, "40 segments": segments}


def measure(work: str, film_path: str, warm: str) -> None:
    """In a process of its own: prints MB above what was held after a short film."""
    import resource

    WORK[work](Path(warm))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    held = pages * resource.getpagesize()
    WORK[work](Path(film_path))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KB
    print(json.dumps((peak - held) / MB))


def table() -> pd.DataFrame:
    """Rows `work, seconds, above_mb`."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        warm = film(Path(folder) / "warm.mp4", SHORT_S)
        for seconds in SECONDS:
            path = film(Path(folder) / f"{seconds}.mp4", seconds)
            for work in WORK:
                command = [sys.executable, "-m", __spec__.name, "--one", work, str(path), str(warm)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                above = json.loads(done.stdout.splitlines()[-1])
                rows.append({"work": work, "seconds": seconds, "above_mb": round(above)})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", help="a csv")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return measure(*given.one)
    found = table()
    print(found.pivot(index="seconds", columns="work", values="above_mb").to_string())
    if given.out:
        found.to_csv(given.out, index=False)
    return None


if __name__ == "__main__":
    main()
