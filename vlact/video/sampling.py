"""Which frames stand for a segment, and which file is which video."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vlact.video.index import VideoInfo

# Endings that a video's file may have where its name has none.
ENDINGS = ("", ".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".ts", ".mpg", ".mpeg", ".wmv")
ENDINGS += (".flv", ".MP4", ".MOV", ".AVI")
SLACK_S = 1e-6  # rounding of a time that a caller computed


def clip_times(
    start_s: float, end_s: float, n_frames: int, window_s: float | None = None, views: int = 1
) -> np.ndarray:
    """Times of `n_frames` evenly spaced frames in each of `views` windows inside a segment.

    One view is centred on the segment's mid-point; several are spread evenly from its start to its
    end (ACE, appendix 6.1: centred in training, three clips in evaluation). Where the paper is
    silent: a window longer than the segment shrinks to it, so no neighbour leaks in.

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
    """Numbers of the frames on screen at the given times (seconds since the start of the file).

    Before the first frame it is the first one, after the end the last one.
    """
    shown = np.searchsorted(info.times, np.asarray(times_s) + SLACK_S, side="right") - 1
    return np.clip(shown, 0, len(info.times) - 1)


def files(folder: str | Path, names: Iterable[str]) -> dict[str, Path]:
    """The file of every video, by name: with or without "v_" before it and an ending after it.

    Raises:
        FileNotFoundError: Some are not in the folder; says how many, and names one.
    """
    names, forms = list(names), [start + "{}" + end for start in ("", "v_") for end in ENDINGS]

    def find(name: str) -> Path | None:
        return next((p for f in forms if (p := Path(folder) / f.format(name)).is_file()), None)

    there = {name: find(name) for name in names}
    if missing := [name for name, path in there.items() if path is None]:
        count = f"{len(missing)} of {len(names)} videos are not there"
        raise FileNotFoundError(f"{folder}: {count}, for example {missing[0]!r}")
    return there
