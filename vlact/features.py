"""Features in time of whole videos, from a pretrained encoder: the pre-extracted regime of localisation."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from vlact import device, video
from vlact.video.clips import fit
from vlact.jobs import write_whole
from vlact.models.dual import DualEncoder
from vlact.models.frames import FrameEncoder
from vlact.models.poses import OFFSETS, PoseEncoder
from vlact.training import autocast

CHUNK = 512  # frames decoded at once; a long video never lies in memory whole


@torch.no_grad()
def extract(
    encoder: DualEncoder | FrameEncoder | PoseEncoder, path: Path, fps: float, stride: int, batch_size: int = 64, mirrored: bool = False
) -> torch.Tensor:
    """Pooled features (T, dim) of clips centred on every `stride`-th frame; frames beyond an end repeat the last.

    Args:
        encoder: Sees some frames of `image_size` pixels, where it lies; other sizes are fitted, see `vlact.clips.fit`.
        path: A video.
        fps: Rate at which its frames are taken, whatever its own.
        stride: Frames at that rate from one feature to the next.
        batch_size: Clips that the encoder sees at once.
        mirrored: Left and right exchanged.

    Raises:
        vlact.video.VideoError: It cannot be read.
    """
    info = video.probe(path)
    if isinstance(encoder, PoseEncoder):
        around, embed = np.array(OFFSETS), encoder
    elif isinstance(encoder, FrameEncoder):
        around, embed = np.zeros(1, int), lambda clips: encoder.last(encoder.first(clips, 0), 0)[:, 0]
    else:
        clip = encoder.config.num_frames
        around, embed = np.arange(clip) - (clip - 1) // 2, lambda clips: encoder.last(encoder.first(clips, 0), 0)
    frame, place = video.nearest_frames(info, np.arange(max(1, round(info.duration_s * fps))) / fps), device.of(encoder)
    centres, out = np.arange(0, len(frame), stride), []
    for first in range(0, len(centres), max(1, CHUNK // stride)):
        part = centres[first : first + max(1, CHUNK // stride)]
        wanted = frame[np.clip(part[:, None] + around, 0, len(frame) - 1)]
        needed = np.unique(wanted)
        frames = fit(video.read(path, needed, info), encoder.config.image_size)[:, :, :: -1 if mirrored else 1]
        for rows in np.array_split(np.searchsorted(needed, wanted), -(-len(wanted) // batch_size)):
            with autocast(place.type):
                out.append(embed(torch.from_numpy(frames[rows]).to(place)).float().cpu())
    return torch.cat(out)


def frames(path: Path, fps: float, stride: int, multiple: int, size: int) -> torch.Tensor:
    """All frames of a video, those of each step together: uint8 (T, stride, size, size, 3), the last one repeated at the end.

    Args:
        path, fps, stride: See `extract`.
        multiple: T is one of it.
        size: Pixels of a side.

    Raises:
        vlact.video.VideoError: It cannot be read.
    """
    info = video.probe(path)
    frame = video.nearest_frames(info, np.arange(max(1, round(info.duration_s * fps))) / fps)
    whole = np.concatenate([frame, np.repeat(frame[-1:], -len(frame) % (stride * multiple))])
    return torch.from_numpy(fit(video.read(path, whole, info), size)).unflatten(0, (-1, stride))


def extract_job(kind: type, encoder: str, folder: str, names: list[str], fps: float, stride: int, out: str, mirrored: bool = False) -> str:
    """Features of some videos as one safetensors file, unless an earlier run left it there; `kind` is the encoder's class.

    The encoder runs where `vlact.device` says.
    """
    if not Path(out).is_file():
        model = device.put(kind.load(encoder).eval())
        found = {name: extract(model, Path(folder) / name, fps, stride, mirrored=mirrored).contiguous() for name in names}
        write_whole(Path(out), lambda data, path: save_file(data, path), found)
    return out


def gather(files: list[str], out: Path) -> None:
    """Several feature files as one."""
    write_whole(out, lambda data, path: save_file(data, path), {k: v for f in files for k, v in load_file(f).items()})
