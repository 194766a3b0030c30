"""Annotation table to arrays of clips, read from the video files."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from vlact import video
from vlact.runtime.jobs import run, write_whole


@dataclass
class Clips:
    """Clips of the table's kept rows, in its order.

    Attributes:
        table: The rows, index 0..N-1.
        frames: uint8 (N, views, T, size, size, 3), RGB.
        skipped: One line for every row left out, with the reason.
    """

    table: pd.DataFrame
    frames: np.ndarray
    skipped: list[str] = field(default_factory=list)


def fit(frames: np.ndarray, size: int) -> np.ndarray:
    """Shorter side to `size` pixels (antialiased), then the central square: uint8 (T, H, W, 3)."""
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


def _read_file(
    folder: str,
    name: str,
    rows: list[tuple],
    num_frames: int,
    window_s: float | None,
    views: int,
    size: int,
):
    """Clips of one file: (row, frames or an error text) pairs; `rows` are (row, start_s, end_s)."""
    path = Path(folder) / name
    try:
        info = video.probe(path)
    except video.VideoError as error:
        return [(row, str(error)) for row, _, _ in rows]
    plans, out = [], []
    for row, start_s, end_s in rows:
        if end_s > info.duration_s + 0.5 / info.fps:
            out.append(
                (
                    row,
                    f"{path}: the segment {start_s:g}..{end_s:g} s ends after the file ({info.duration_s:.3f} s); correct end_s",
                )
            )
        else:
            times = video.clip_times(
                start_s, min(end_s, info.duration_s), num_frames, window_s, views
            )
            plans.append((row, video.nearest_frames(info, times)))
    if plans:
        needed = np.unique(np.concatenate([p.ravel() for _, p in plans]))
        try:
            frames = fit(video.read(path, needed, info), size)
        except video.VideoError as error:
            return out + [(row, str(error)) for row, _ in plans]
        out += [(row, frames[np.searchsorted(needed, p)]) for row, p in plans]
    return out


def load(
    folder: str | Path,
    table: pd.DataFrame,
    num_frames: int,
    size: int,
    window_s: float | None = None,
    views: int = 1,
    skip_bad: bool = False,
    workers: int = 1,
    source: str = "annotation table",
) -> Clips:
    """Decode the clips of every row; each file is opened once.

    Args:
        folder: Where the videos of column `video` lie.
        table: Annotation table, see `vlact.schema`.
        num_frames: T, frames per clip.
        size: Side of the square frames in pixels.
        window_s: Clip length in seconds; None takes whole segments.
        views: Temporal clips per row (1 is centred).
        skip_bad: Leave rows out whose file or segment is unusable and list them, instead of raising.
        workers: Processes that decode.
        source: What to call the table in errors, usually its path.

    Raises:
        ValueError: An unusable row (unless `skip_bad`), or no usable row at all; names source and line.
    """
    table = table.reset_index(drop=True)
    jobs = [
        (
            str(folder),
            name,
            list(zip(rows.index, rows["start_s"], rows["end_s"], strict=True)),
            num_frames,
            window_s,
            views,
            size,
        )
        for name, rows in table.groupby("video", sort=False)
    ]
    frames = np.zeros((len(table), views, num_frames, size, size, 3), np.uint8)
    kept, skipped = np.zeros(len(table), bool), []
    for done in run(_read_file, jobs, workers, "reading clips"):
        for row, result in done:
            if isinstance(result, str):
                skipped.append((row, f"{source}, line {row + 2}: {result}"))
            else:
                frames[row], kept[row] = result, True
    lines = [line for _, line in sorted(skipped)]
    if lines and not skip_bad:
        more = (
            f" (and {len(lines) - 1} more rows; skip_bad=True leaves them out)"
            if len(lines) > 1
            else ""
        )
        raise ValueError(lines[0] + more)
    if not kept.any():
        raise ValueError(f"{source}: no usable row; first problem: {lines[0]}")
    return Clips(table[kept].reset_index(drop=True), frames if kept.all() else frames[kept], lines)


def save_frames(path: Path, frames: np.ndarray) -> None:
    """Write frames as npy, all or nothing, for processes that map them instead of copying."""

    def save(data: np.ndarray, to: Path) -> None:
        with to.open("wb") as file:  # a bare name would get a suffix
            np.save(file, data)

    write_whole(path, save, frames)
