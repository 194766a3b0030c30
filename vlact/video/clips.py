"""Annotation table to arrays of clips, read from the video files."""

import contextlib
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlact.runtime.jobs import run, write_whole
from vlact.video.decode import stream
from vlact.video.index import VideoError, VideoInfo, probe
from vlact.video.sampling import clip_times, nearest_frames

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Clips:
    """Clips of the table's kept rows, in its order.

    Attributes:
        table: The rows, index 0..N-1.
        frames: uint8 (N, views, T, size, size, 3), RGB.
        skipped: One line for every row left out, with the reason.
    """

    table: "pd.DataFrame"
    frames: np.ndarray
    skipped: list[str] = field(default_factory=list)


def fit(frames: np.ndarray, size: int) -> np.ndarray:
    """Shorter side to `size` pixels (antialiased), then the central square.

    Args:
        frames: uint8 (T, H, W, 3), or one frame (H, W, 3).
        size: Side in pixels.

    Returns:
        uint8 (T, size, size, 3), or (size, size, 3).
    """
    if frames.ndim == 3:
        return fit(frames[None], size)[0]
    if frames.shape[1:3] == (size, size):
        return frames
    import torch

    scale = size / min(frames.shape[1:3])
    shape = [max(size, round(s * scale)) for s in frames.shape[1:3]]
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    x = torch.nn.functional.interpolate(
        x, shape, mode="bilinear", antialias=True, align_corners=False
    )
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    x = x[:, :, top : top + size, left : left + size].round().clamp(0, 255).to(torch.uint8)
    return x.permute(0, 2, 3, 1).numpy()


def _plan(info: VideoInfo, rows: list[tuple], n: int, window_s: float | None, views: int):
    """(frame numbers (rows, views, n) of good rows, their numbers, (row, reason) of the others)."""
    plans, kept, bad = [], [], []
    first_s, end = info.times[0], info.duration_s
    for row, start_s, end_s in rows:
        segment = f"the segment {start_s:g}..{end_s:g} s"
        if end_s > end + 0.5 / info.fps:
            bad.append(
                (row, f"{info.path}: {segment} ends after the file ({end:.3f} s); correct end_s")
            )
        elif end_s <= first_s:
            late = f"ends before the first frame ({first_s:.3f} s)"
            bad.append((row, f"{info.path}: {segment} {late}; correct end_s"))
        else:
            times = clip_times(start_s, min(end_s, end), n, window_s, views)
            plans.append(nearest_frames(info, times))
            kept.append(row)
    return np.array(plans, np.int64).reshape(-1, views, n), kept, bad


def _read_file(
    folder: str, name: str, rows: list[tuple], window_s: float | None, out: np.ndarray | str
) -> list[tuple[int, str]]:
    """Clips of one file into `out`, in one pass; (row, reason) of those that cannot be read.

    Args:
        folder, name: The file.
        rows: (row, start_s, end_s).
        window_s: See `load`.
        out: (N, views, T, size, size, 3), or the npy file of it.
    """
    out = np.load(out, mmap_mode="r+") if isinstance(out, str) else out
    views, n, size = out.shape[1:4]
    path, done = Path(folder) / name, -1
    try:
        info = probe(path)
    except VideoError as error:
        return [(row, str(error)) for row, _, _ in rows]
    plans, kept, bad = _plan(info, rows, n, window_s, views)
    good = np.ones(len(kept), bool)
    while (ahead := plans[good][plans[good] > done]).size:
        try:
            for number, image in stream(path, ahead, info, lambda x: fit(x, size)):
                for i, view, t in np.argwhere(plans == number):
                    out[kept[i], view, t] = image
                done = number
        except VideoError as error:  # of the next frame; rows without it may be whole
            lost = good & (plans == ahead[ahead > done].min()).any((1, 2))
            bad += [(kept[i], str(error)) for i in np.flatnonzero(lost)]
            good &= ~lost
    return bad


@contextlib.contextmanager
def _array(shape: tuple[int, ...], shared: bool):
    """(array of zeros, what a job writes into); shared ones lie in a file, gone afterwards."""
    if not shared:
        whole = np.zeros(shape, np.uint8)
        yield whole, whole
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = str(Path(folder) / "clips.npy")
        whole = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
        yield whole, file


def load(
    folder: str | Path,
    table: "pd.DataFrame",
    num_frames: int,
    size: int,
    window_s: float | None = None,
    views: int = 1,
    skip_bad: bool = False,
    workers: int = 1,
    source: str = "annotation table",
) -> Clips:
    """Decode the clips of every row; each file is read in one pass, frames are fitted as they come.

    Beside the result, memory holds a frame or two, whatever the films' lengths.

    Args:
        folder: Where the videos of column `video` lie.
        table: Annotation table, see `vlact.schema`.
        num_frames: T, frames per clip.
        size: Side of the square frames in pixels.
        window_s: Clip length in seconds; None takes whole segments.
        views: Temporal clips per row (1 is centred).
        skip_bad: Leave rows out whose file or segment is unusable, and list them.
        workers: Processes that decode.
        source: What to call the table in errors, usually its path.

    Raises:
        ValueError: An unusable row (unless `skip_bad`), or no usable one; names source and line.
    """
    table = table.reset_index(drop=True)
    shape = (len(table), views, num_frames, size, size, 3)
    films = list(table.groupby("video", sort=False))
    with _array(shape, workers > 1 and len(films) > 1) as (frames, out):
        todo = []
        for name, r in films:
            spans = list(zip(r.index, r["start_s"], r["end_s"], strict=True))
            todo.append(partial(_read_file, str(folder), name, spans, window_s, out))
        bad = sorted(line for lines in run(todo, workers, "reading clips") for line in lines)
    lines = [f"{source}, line {row + 2}: {reason}" for row, reason in bad]
    if lines and not skip_bad:
        more = (
            f" (and {len(lines) - 1} more rows; skip_bad=True leaves them out)"
            if len(lines) > 1
            else ""
        )
        raise ValueError(lines[0] + more)
    kept = np.delete(np.arange(len(table)), [row for row, _ in bad])
    if not len(kept):
        raise ValueError(f"{source}: no usable row; first problem: {lines[0]}")
    for i, row in enumerate(kept):  # in place: a copy would take the memory twice
        if i != row:
            frames[i] = frames[row]
    return Clips(table.loc[kept].reset_index(drop=True), frames[: len(kept)], lines)


def save_frames(path: Path, frames: np.ndarray) -> None:
    """Write frames as npy, all or nothing, for processes that map them instead of copying."""

    def save(data: np.ndarray, to: Path) -> None:
        with to.open("wb") as file:  # a bare name would get a suffix
            np.save(file, data)

    write_whole(path, save, frames)
