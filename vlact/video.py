"""Video files to frames and back: the one place that knows containers and codecs.

decord reads where it can (imported only when used: its native library is best left unloaded
otherwise), PyAV reads the rest and everything when `VLACT_VIDEO=av`; both give the same pixels.
Frame times come from the container's packets, so variable frame rates are handled.
"""

import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlact.runtime.jobs import write_whole

CONTAINERS = {".mkv": "matroska", ".mov": "mov", ".avi": "avi"}  # others are mp4
ENDINGS = (
    "",
    ".mp4",
    ".mkv",
    ".webm",
    ".avi",
    ".mov",
    ".MP4",
)  # that a video's file may have where its name has none


class VideoError(ValueError):
    """A file that cannot serve as a video; the message names it, says why and what to do."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: `times` (N,) in seconds from its first frame, size after rotation."""

    path: Path
    times: np.ndarray
    duration_s: float  # end of the last frame
    height: int
    width: int
    rotation: int  # counter-clockwise degrees to apply to stored frames: 0, 90, 180 or 270

    @property
    def fps(self) -> float:
        """Mean frame rate in frames per second."""
        return len(self.times) / self.duration_s


def probe(path: str | Path) -> VideoInfo:
    """Read a file's frame times, size and rotation without decoding all of it.

    Raises:
        VideoError: Missing file, no video stream, no frames, or bytes that are no video.
    """
    import av

    path = Path(path)
    if not path.is_file():
        raise VideoError(f"{path}: expected a video file, found none; check the path in your csv")
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                kinds = sorted({s.type for s in container.streams}) or ["no stream"]
                raise VideoError(
                    f"{path}: expected a video stream, found only {', '.join(kinds)}; leave this file out"
                )
            stream = container.streams.video[0]
            packets = [p for p in container.demux(stream) if p.pts is not None and p.size]
            if not packets:
                raise VideoError(
                    f"{path}: expected at least one frame, found 0; re-export or leave this file out"
                )
            base = float(stream.time_base)
            times = np.sort(np.asarray([p.pts for p in packets], dtype=np.float64)) * base
            last = float(packets[-1].duration or 0) * base
            container.seek(0)
            frame = next(container.decode(stream), None)
            if frame is None:
                raise VideoError(
                    f"{path}: its packets decode to no frame; re-encode or leave this file out"
                )
            rotation = int(getattr(frame, "rotation", 0) or 0) % 360
            height, width = frame.height, frame.width
    except VideoError:
        raise
    except (av.error.FFmpegError, IndexError, OverflowError, ValueError) as error:
        raise VideoError(
            f"{path}: expected a readable video, found broken data ({error}); re-encode or leave it out"
        ) from None
    if rotation in (90, 270):
        height, width = width, height
    times -= times[0]
    step = last or (float(np.median(np.diff(times))) if len(times) > 1 else 1.0)
    return VideoInfo(path, times, float(times[-1] + step), height, width, rotation)


def read(path: str | Path, indices, info: VideoInfo | None = None) -> np.ndarray:
    """Decode the frames with the given indices, upright.

    Args:
        path: The file.
        indices: Frame numbers in 0..N-1, in any order, repeats allowed.
        info: What `probe` said, if already known.

    Returns:
        uint8 (len(indices), H, W, 3), RGB.

    Raises:
        VideoError: See `probe`; also when a frame number is out of range or fails to decode.
    """
    info = info or probe(path)
    indices = np.asarray(list(indices), dtype=np.int64)
    if len(indices) and (indices.min() < 0 or indices.max() >= len(info.times)):
        raise VideoError(
            f"{path}: expected frame numbers in 0..{len(info.times) - 1}, got {indices.min()}..{indices.max()}"
        )
    backend = os.environ.get("VLACT_VIDEO") or (
        "decord" if importlib.util.find_spec("decord") else "av"
    )
    if backend not in ("decord", "av"):
        raise ValueError(f"VLACT_VIDEO must be 'decord' or 'av'; got {backend!r}")
    frames = _read_decord(info, indices) if backend == "decord" else None
    if frames is None:
        frames = _read_av(info, indices)
    return frames


def _read_decord(info: VideoInfo, indices: np.ndarray) -> np.ndarray | None:
    """None where decord cannot serve the file (AV1, broken indices); PyAV then has its turn."""
    import decord

    try:
        reader = decord.VideoReader(str(info.path), num_threads=1)
        if len(reader) != len(info.times):
            return None
        frames = reader.get_batch(indices).asnumpy()  # decord turns frames upright by itself
    except (decord.DECORDError, RuntimeError, IndexError):
        return None
    return frames if frames.shape[1:3] == (info.height, info.width) else None


def _read_av(info: VideoInfo, indices: np.ndarray) -> np.ndarray:
    import av

    wanted, out = set(indices.tolist()), {}
    try:
        with av.open(str(info.path), metadata_errors="ignore") as container:
            container.streams.video[0].thread_count = 1
            for i, frame in enumerate(container.decode(video=0)):
                if i in wanted:
                    out[i] = frame.to_ndarray(format="rgb24")
                if len(out) == len(wanted):
                    break
    except av.error.FFmpegError as error:
        raise VideoError(
            f"{info.path}: decoding stopped at frame {len(out)} ({error}); re-encode or leave it out"
        ) from None
    missing = sorted(wanted - set(out))
    if missing:
        raise VideoError(
            f"{info.path}: frames {missing[:5]} do not decode; re-encode or leave it out"
        )
    return _rotate(np.stack([out[i] for i in indices.tolist()]), info.rotation)


def _rotate(frames: np.ndarray, degrees: int) -> np.ndarray:
    if degrees % 90:
        return frames
    return np.ascontiguousarray(np.rot90(frames, degrees // 90, axes=(1, 2)))


def clip_times(
    start_s: float, end_s: float, n_frames: int, window_s: float | None = None, views: int = 1
) -> np.ndarray:
    """Times of `n_frames` evenly spaced frames in each of `views` windows inside a segment.

    One view is centred on the segment's mid-point; several are spread evenly from its start to its
    end (ACE, appendix 6.1: centred in training, three clips in evaluation). Where the paper is silent:
    a window longer than the segment shrinks to the segment, so no neighbour leaks in.

    Args:
        start_s: Segment start in seconds.
        end_s: Segment end in seconds, after `start_s`.
        n_frames: Frames per clip.
        window_s: Length of a clip in seconds; None takes the whole segment.
        views: Clips per segment.

    Returns:
        (views, n_frames), seconds, each in [start_s, end_s].
    """
    length = end_s - start_s
    window = min(window_s or length, length)
    slack = length - window
    share = np.array([0.5]) if views == 1 else np.linspace(0, 1, views)
    within = (np.arange(n_frames) + 0.5) / n_frames * window
    return start_s + share[:, None] * slack + within


def nearest_frames(info: VideoInfo, times_s: np.ndarray) -> np.ndarray:
    """Numbers of the frames on screen at the given times (seconds from the first frame)."""
    return np.clip(
        np.searchsorted(info.times, np.asarray(times_s) + 1e-6, side="right") - 1,
        0,
        len(info.times) - 1,
    )


def files(folder: str | Path, names: Iterable[str]) -> dict[str, Path]:
    """The file of every video, by name: with or without "v_" before it and an ending after it.

    Raises:
        FileNotFoundError: Some are not in the folder; says how many, and names one.
    """
    names, forms = list(names), [start + "{}" + end for start in ("", "v_") for end in ENDINGS]
    there = {
        name: next((path for f in forms if (path := Path(folder) / f.format(name)).is_file()), None)
        for name in names
    }
    if missing := [name for name, path in there.items() if path is None]:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(names)} videos are not there, for example {missing[0]!r}"
        )
    return there


def write(path: str | Path, frames: np.ndarray, fps: float, crf: int = 10) -> None:
    """Encode uint8 frames (N, H, W, 3) as h264 in yuv444p; the file appears only when complete.

    Raises:
        ValueError: If `frames` is not uint8 (N, H, W, 3) with N > 0.
    """
    from fractions import Fraction

    import av

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(
            f"frames must be uint8 (N, H, W, 3) with N > 0; got {frames.dtype} {frames.shape}"
        )

    def encode(frames: np.ndarray, temporary: Path) -> None:
        with av.open(
            str(temporary), "w", format=CONTAINERS.get(Path(path).suffix, "mp4")
        ) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.height, stream.width, stream.pix_fmt = (
                frames.shape[1],
                frames.shape[2],
                "yuv444p",
            )
            stream.thread_count = 1
            # x264's vector code reads memory it never wrote (macroblock trees for one): bytes differ from run to run.
            stream.options = {
                "crf": str(crf),
                "preset": "veryfast",
                "x264-params": "mbtree=0:asm=0",
            }
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())

    write_whole(Path(path), encode, frames)
