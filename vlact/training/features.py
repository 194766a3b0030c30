"""Features in time of whole videos, from a pretrained encoder: localization's usual input."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from vlact import video
from vlact.models.dual import DualEncoder
from vlact.models.frames import FrameEncoder
from vlact.models.imagenet import ImageEncoder
from vlact.models.poses import OFFSETS, PoseEncoder
from vlact.runtime import device
from vlact.runtime.jobs import job_of, run, write_whole
from vlact.training.loop import autocast
from vlact.training.streams import Stream, joined
from vlact.video.clips import fit

CHUNK = 512  # frames between two places where a batch may end
CPU_BYTES = 4 << 20  # of the fitted frames that an encoder sees at once on a CPU, as uint8


def _grid(info: video.VideoInfo, fps: float) -> np.ndarray:
    """Numbers of the frames on screen at a constant rate, from the start of the file to its end."""
    count = max(1, round(info.duration_s * fps))
    return video.nearest_frames(info, np.arange(count) / fps)


def _windows(
    info: video.VideoInfo,
    wanted: np.ndarray,
    batches: list[np.ndarray],
    size: int,
    fitted: Callable[[np.ndarray, int], np.ndarray] = fit,
) -> Iterator[np.ndarray]:
    """Fitted frames of each batch of windows, in one pass over the film.

    Args:
        info: Of the film.
        wanted: (T, K) frame numbers, each column rising.
        batches: Rows of `wanted`, in order.
        size: Pixels of a side.
        fitted: How frames become squares.

    Yields:
        uint8 (len(batch), K, size, size, 3).
    """
    frames = video.stream(info.path, wanted.ravel(), info, lambda x: fitted(x, size))
    every, spans = np.unique(wanted), [(wanted[rows].min(), wanted[rows].max()) for rows in batches]
    held = (np.searchsorted(every, b, "right") - np.searchsorted(every, a) for a, b in spans)
    # One block for all: many small ones that live on would leave holes of a whole frame's size.
    block = np.empty((max(held), size, size, 3), np.uint8)
    free, place = list(range(len(block))), {}
    for rows, (first, last) in zip(batches, spans, strict=True):
        for number in [n for n in place if n < first]:  # no later window sees it
            free.append(place.pop(number))
        while last not in place:
            number, image = next(frames)
            place[number] = free.pop()
            block[place[number]] = image
        yield block[[[place[n] for n in row] for row in wanted[rows].tolist()]]


def _batches(count: int, stride: int, most: int) -> list[np.ndarray]:
    """Rows 0..count-1 in batches of at most `most`, evenly within every `CHUNK` frames."""
    step = max(1, CHUNK // stride)
    parts = (np.arange(first, min(first + step, count)) for first in range(0, count, step))
    return [rows for part in parts for rows in np.array_split(part, -(-len(part) // most))]


@torch.no_grad()
def extract(
    encoder: DualEncoder | FrameEncoder | ImageEncoder | PoseEncoder,
    path: Path,
    fps: float,
    stride: int,
    batch_size: int = 64,
    mirrored: bool = False,
    tell: Callable[[float], None] | None = None,
) -> torch.Tensor:
    """Pooled features of clips centred on every `stride`-th frame.

    Frames beyond an end repeat the one there.
    The film is decoded once, frames are fitted as they come; memory does not grow with its length.

    Args:
        encoder: Sees some frames of `image_size` pixels, where it lies; other sizes are fitted, see
            `vlact.video.clips.fit`, or its own `fit`.
        path: A video.
        fps: Rate at which its frames are taken, whatever its own.
        stride: Frames at that rate from one feature to the next.
        batch_size: Clips that the encoder sees at once; fewer on a CPU where they are large.
        mirrored: Left and right exchanged.
        tell: Called after each batch with its share of the film, 0..1, as
            `vlact.runtime.jobs.Progress.update`.

    Returns:
        (T, dim), float32, on the CPU.

    Raises:
        vlact.video.VideoError: It cannot be read.
    """
    info = video.probe(path)
    if isinstance(encoder, PoseEncoder):
        around, embed = np.array(OFFSETS), encoder
    elif isinstance(encoder, FrameEncoder):
        around = np.zeros(1, int)
        embed = lambda clips: encoder.last(encoder.first(clips, 0), 0)[:, 0]  # noqa: E731
    elif isinstance(encoder, ImageEncoder):
        around = np.zeros(1, int)
        embed = lambda clips: encoder(clips[:, 0])  # noqa: E731
    else:
        clip = encoder.config.num_frames
        around = np.arange(clip) - (clip - 1) // 2
        embed = lambda clips: encoder.last(encoder.first(clips, 0), 0)  # noqa: E731
    frame, place = _grid(info, fps), device.of(encoder)
    centres, size = np.arange(0, len(frame), stride), encoder.config.image_size
    wanted = frame[np.clip(centres[:, None] + around, 0, len(frame) - 1)]  # (T, K)
    most = batch_size
    if place.type == "cpu":
        most = max(1, min(most, CPU_BYTES // (len(around) * size * size * 3)))
    batches, out = _batches(len(wanted), stride, most), torch.empty(0)
    seen = _windows(info, wanted, batches, size, getattr(encoder, "fit", fit))
    for rows, clips in zip(batches, seen, strict=True):
        clips = np.ascontiguousarray(clips[:, :, :, ::-1]) if mirrored else clips
        with autocast(place.type):
            found = embed(torch.from_numpy(clips).to(place)).float().cpu()
        if not len(out):  # one block: small ones that live on keep the memory between them
            out = torch.empty(len(wanted), *found.shape[1:])
        out[torch.from_numpy(rows)] = found
        if tell:
            tell(len(rows) / len(wanted))
    return out


def frames(path: Path, fps: float, stride: int, multiple: int, size: int) -> torch.Tensor:
    """All frames of a video, those of each step together, the last one repeated at the end.

    Args:
        path, fps, stride: See `extract`.
        multiple: T is one of it.
        size: Pixels of a side.

    Returns:
        uint8 (T, stride, size, size, 3).

    Raises:
        vlact.video.VideoError: It cannot be read.
    """
    info = video.probe(path)
    frame = _grid(info, fps)
    whole = np.concatenate([frame, np.repeat(frame[-1:], -len(frame) % (stride * multiple))])
    out = np.empty((len(whole), size, size, 3), np.uint8)
    for number, image in video.stream(path, whole, info, lambda x: fit(x, size)):
        out[np.searchsorted(whole, number) : np.searchsorted(whole, number, "right")] = image
    return torch.from_numpy(out).unflatten(0, (-1, stride))


class Film(Stream):
    """Frames of a video, those of each step together: what `frames` gives, read window by window.

    Args:
        path, fps, stride, multiple, size: See there.

    Raises:
        vlact.video.VideoError: It cannot be read, here or when it is looked at.
    """

    finite = True

    def __init__(self, path: Path, fps: float, stride: int, multiple: int, size: int):
        self.info = video.probe(path)
        frame = _grid(self.info, fps)
        last = np.repeat(frame[-1:], -len(frame) % (stride * multiple))
        self.frame, self.size = np.concatenate([frame, last]).reshape(-1, stride), size
        self.shape = (*self.frame.shape, size, size, 3)

    def __getitem__(self, steps: slice) -> torch.Tensor:
        first, end = self.between(steps)
        wanted = self.frame[first:end].ravel()
        out = np.empty((len(wanted), self.size, self.size, 3), np.uint8)
        shown = lambda x: fit(x, self.size)  # noqa: E731
        for number, image in video.stream(self.info.path, wanted, self.info, shown):
            out[np.searchsorted(wanted, number) : np.searchsorted(wanted, number, "right")] = image
        return torch.from_numpy(out).unflatten(0, (-1, self.frame.shape[1]))


def extract_job(
    kind: type,
    encoder: str,
    folder: str,
    names: list[str],
    fps: float,
    stride: int,
    out: str,
    mirrored: bool = False,
) -> str:
    """Features of some videos as one safetensors file, unless an earlier run left it there.

    `kind` is the encoder's class; it runs where `vlact.runtime.device` says.
    """
    if not Path(out).is_file():
        model = device.put(kind.load(encoder).eval())
        found = {}
        for name in names:
            seen = extract(model, Path(folder) / name, fps, stride, mirrored=mirrored)
            found[name] = seen.contiguous()
        write_whole(Path(out), save_file, found)
    return out


ExtractJob = job_of(extract_job)


def extract_all(
    kind: type,
    encoder: str,
    folder: Path,
    names: list[str],
    fps: float,
    out: Path,
    work: Path,
    workers: int = 1,
    part: int = 32,
) -> dict[str, torch.Tensor]:
    """Features of every video at a constant rate, one safetensors file that an earlier run may have
    left; a killed run goes on with the next `part` videos.

    Args:
        kind, encoder: Class and file of the encoder, see `extract_job`.
        folder, names: The videos; names may hold any character.
        fps: Features a second.
        out: The whole.
        work: Where parts are kept until it is there; nothing else may be in that folder.
        workers: Processes.

    Returns:
        Name to (T, dim).

    Raises:
        vlact.video.VideoError: One that cannot be read.
    """
    if not out.is_file():
        work.mkdir(parents=True, exist_ok=True)
        parts = [names[i : i + part] for i in range(0, len(names), part)]
        common = kind, encoder, str(folder)
        todo = [
            ExtractJob(*common, p, fps, 1, f"{work}/{i}.safetensors") for i, p in enumerate(parts)
        ]
        joined(run(todo, workers, f"features of {len(names)} videos"), out)
        shutil.rmtree(work)
    return load_file(out)
