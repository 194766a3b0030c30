"""What frozen models see of real clips at a few moments: pixels, differences, poses of people.

Also joints of depth sensors as those models and Shift-GCN take them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vlact import video
from vlact.datasets.real.skeletons import JOINTS, Skeletons
from vlact.models.imagenet import ImageEncoder, squash
from vlact.models.movenet import SIZE, MoveNet
from vlact.models.shift_gcn import ShiftGCN, upright
from vlact.runtime.jobs import job_of, write_whole

LATER_S = 0.1  # between the two frames of a difference
AMPLIFIED = 2.0  # differences, round mid-grey
BATCH = 16  # frames that the encoder sees at once
# Shift-GCN sees so many frames of a sequence at least, which is repeated, and at most, which are
# evenly spaced; NTU's own 300 take eight times as long and name the samples alike.
FEWEST, MOST = 64, 128
LEFT, RIGHT = JOINTS.index("left shoulder"), JOINTS.index("right shoulder")
HEAD, NECK = JOINTS.index("head"), JOINTS.index("shoulder centre")
HANDS = JOINTS.index("left hand"), JOINTS.index("right hand")


@dataclass(frozen=True)
class Look:
    """Some clips of a set.

    Attributes:
        folder, names: The films.
        steps: Moments of each.
        kinds: Of "pixels", "differences", "poses".
        movenet: Its file, for poses.
        parts: Whether poses are looked for in the left and the right half, too, where two people
            meet.
        out: Where arrays go (npz), one a kind, rows in the order of names.
    """

    folder: str
    names: tuple[str, ...]
    steps: int
    kinds: tuple[str, ...]
    out: str
    movenet: str = ""
    parts: bool = False


def moments(path: Path, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames evenly spaced from first to last, and those `LATER_S` after them (before, at the end).

    Returns:
        uint8 (steps, H, W, 3) each.
    """
    info = video.probe(path)
    last = len(info.times) - 1
    now = np.round(np.linspace(0, last, steps)).astype(int)
    gap = max(1, round(LATER_S * len(info.times) / info.duration_s))
    later = np.where(now + gap <= last, now + gap, np.maximum(now - gap, 0))
    frames = video.read(path, np.concatenate([now, later]), info)
    return frames[:steps], frames[steps:]


def difference(now: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Images of what changed, round mid-grey: uint8, the shape of both."""
    gap = later.astype(np.float32) - now
    return (128 + AMPLIFIED * gap).round().clip(0, 255).astype(np.uint8)


def views(frames: np.ndarray, parts: bool) -> list[np.ndarray]:
    """The frames, and with `parts` their left and right halves."""
    half = frames.shape[2] // 2
    return [frames, frames[:, :, :half], frames[:, :, half:]] if parts else [frames]


@torch.inference_mode()
def look_job(job: Look) -> str:
    """Look at the clips, unless an earlier run did; returns where the arrays are."""
    if Path(job.out).is_file():
        return job.out
    encoder = ImageEncoder.load() if {"pixels", "differences"} & set(job.kinds) else None
    people = MoveNet(job.movenet) if "poses" in job.kinds else None
    found = {k: [] for k in job.kinds}

    def seen(frames: np.ndarray) -> np.ndarray:
        squares = torch.from_numpy(squash(frames, encoder.config.image_size))
        return torch.cat([encoder(part) for part in squares.split(BATCH)]).half().numpy()

    for name in job.names:
        now, later = moments(Path(job.folder) / name, job.steps)
        if "pixels" in found:
            found["pixels"].append(seen(now))
        if "differences" in found:
            found["differences"].append(seen(difference(now, later)))
        if people:
            each = [people(squash(v, SIZE)) for v in views(now, job.parts)]
            found["poses"].append(np.concatenate(each, 1).reshape(job.steps, -1))
    arrays = {k: np.stack(v) for k, v in found.items()}
    write_whole(Path(job.out), _save, arrays)
    return job.out


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def brought(x: np.ndarray, steps: int) -> np.ndarray:
    """A sequence (T, ..) at `steps` moments evenly spaced from its first to its last frame."""
    at = np.linspace(0, len(x) - 1, steps)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(x) - 1)
    share = (at - low).reshape(-1, *[1] * (x.ndim - 1))
    return (x[low] * (1 - share) + x[high] * share).astype(np.float32)


def body(joints: np.ndarray) -> np.ndarray:
    """Joints (T, J, 3) of a depth sensor, first one the hips, to what a model sees (T, 3 J).

    Each joint relative to the hips, and the hips relative to where they were first, in metres.
    """
    hips = joints[:, :1]
    own = np.concatenate([hips - hips[:1], joints[:, 1:] - hips], 1)
    return own.reshape(len(joints), -1)


def turned(joints: np.ndarray, left: int, right: int) -> np.ndarray:
    """Joints (T, J, 3), y up, turned about y: the line of shoulders, in the mean, lies along x."""
    line = (joints[:, right] - joints[:, left]).mean(0)
    size = np.hypot(line[0], line[2])
    if size == 0:
        return joints
    c, s = line[0] / size, line[2] / size
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], joints.dtype)
    return joints @ turn.T


def joints_of(found: Skeletons, steps: int) -> dict[str, np.ndarray]:
    """Inputs "joints" and "turned" (N, steps, 60) of a depth sensor's sequences."""
    whole = [found[i] for i in range(len(found.table))]
    front = [turned(j, LEFT, RIGHT) for j in whole]
    return {
        "joints": np.stack([brought(body(j), steps) for j in whole]),
        "turned": np.stack([brought(body(j), steps) for j in front]),
    }


def as_ntu(joints: np.ndarray) -> np.ndarray:
    """Joints (T, 20, 3) in Kinect's first order to the 25 of its second (T, 25, 3).

    The first twenty stand in the same order, but for the neck, which the first sensor has not: here
    it is a third of the way from the shoulders' centre to the head. The shoulders' centre is joint
    20; tips of hands and thumbs are where the hands are.
    """
    neck = joints[:, NECK] + (joints[:, HEAD] - joints[:, NECK]) / 3
    out = np.concatenate([joints, np.zeros((len(joints), 5, 3), joints.dtype)], 1)
    out[:, 2], out[:, 20] = neck, joints[:, NECK]
    for hand, tips in zip(HANDS, ((21, 22), (23, 24)), strict=True):
        out[:, tips] = joints[:, hand, None]
    return out


def fitted(joints: np.ndarray) -> np.ndarray:
    """Frames as Shift-GCN is given them here, see `FEWEST` and `MOST`."""
    if len(joints) > MOST:
        return joints[np.round(np.linspace(0, len(joints) - 1, MOST)).astype(int)]
    return np.concatenate([joints] * -(-FEWEST // len(joints)))[: max(FEWEST, len(joints))]


@torch.inference_mode()
def shift_gcn_job(joints: str, offset: list[int], weights: str, out: str) -> str:
    """Frozen features (N, 1, 256) of sequences of joints, unless an earlier run left them.

    Args:
        joints: npy (F, 20, 3), sequences after each other. offset: Their first frames and the end.
        weights: Shift-GCN's. out: npy.
    """
    if not Path(out).is_file():
        model, every = ShiftGCN.load(weights), np.load(joints)
        found = []
        for first, last in zip(offset[:-1], offset[1:], strict=True):
            own = torch.from_numpy(fitted(as_ntu(every[first:last])).astype(np.float32))
            found.append(model.features(upright(own).permute(2, 0, 1)[None, ..., None])[0])
        array = torch.stack(found).numpy()
        write_whole(Path(out), lambda d, f: f.write_bytes(_npy(d)), array)
    return out


ShiftGcnJob = job_of(shift_gcn_job)


def _npy(array: np.ndarray) -> bytes:
    import io

    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()
