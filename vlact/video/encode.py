"""Frames to a video file, byte for byte the same on every run."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from vlact.runtime.extras import needs
from vlact.runtime.jobs import write_whole

CONTAINERS = {".mkv": "matroska", ".mov": "mov", ".avi": "avi"}  # others are mp4


def write(path: str | Path, frames: np.ndarray, fps: float, crf: int = 10) -> None:
    """Encode uint8 frames (N, H, W, 3) as h264 in yuv444p; the file appears only when complete.

    Raises:
        ValueError: If `frames` is not uint8 (N, H, W, 3) with N > 0.
    """
    with needs("writing a video"):
        import av
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(
            f"frames must be uint8 (N, H, W, 3) with N > 0; got {frames.dtype} {frames.shape}"
        )

    def encode(frames: np.ndarray, temporary: Path) -> None:
        form = CONTAINERS.get(Path(path).suffix, "mp4")
        with av.open(str(temporary), "w", format=form) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv444p"
            stream.thread_count = 1
            # x264's vector code reads memory it never wrote (macroblock trees for one):
            # without these, bytes differ from run to run.
            x264 = {"x264-params": "mbtree=0:asm=0"}
            stream.options = {"crf": str(crf), "preset": "veryfast"} | x264
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())

    write_whole(Path(path), encode, frames)
