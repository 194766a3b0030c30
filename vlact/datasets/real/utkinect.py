"""UTKinect-Action3D (Xia et al., CVPR workshops 2012), skeletons: 20 untrimmed sequences of ten
people, ten actions.

Original layout: `joints_s01_e01.txt`, a line a frame (its number, 20 joints x, y, z in metres), and
`actionLabel.txt`. Packed: `utkinect_skeletons.npz` and the same labels. Frame numbers count the
sensor's thirty frames a second, of which about every second was kept; labels are such numbers.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.datasets.real import place
from vlact.datasets.real.incomplete import left_out
from vlact.datasets.real.recordings import Recordings, within
from vlact.datasets.real.skeletons import Skeletons, arrays, joined
from vlact.schema import text

ACTIONS = {
    "walk": "walk",
    "sitDown": "sit down",
    "standUp": "stand up",
    "pickUp": "pick up",
    "carry": "carry",
    "throw": "throw",
    "push": "push",
    "pull": "pull",
    "waveHands": "wave hands",
    "clapHands": "clap hands",
}
SET = "utkinect"
SEQUENCES = tuple(f"s{s:02d}_e{e:02d}" for s in range(1, 11) for e in (1, 2))
FRAMES_PER_S = 30.0
PACKED = "utkinect_skeletons.npz"
LABELS = "actionLabel.txt"
LINE = re.compile(r"(\w+)\s*:\s*(\S+)\s+(\S+)\s*")


@dataclass(frozen=True)
class Sequences:
    """Joints, the second of each frame (N,) since its sequence's first one, and intervals."""

    skeletons: Skeletons
    seconds: np.ndarray
    recordings: Recordings


def _intervals(path: Path) -> list[tuple[str, str, float, float]]:
    """Sequence, action, first and last frame of every line."""
    if not path.is_file():
        raise ValueError(f"{path}: UTKinect expects its labels there, found nothing")
    rows, sequence = [], None
    for i, line in enumerate(text(path).splitlines(), 1):
        line = line.strip()
        if re.fullmatch(r"s\d\d_e\d\d", line):
            sequence = line
        elif line:
            found = LINE.fullmatch(line)
            try:
                if sequence is None or found[1] not in ACTIONS:
                    raise ValueError
                rows.append((sequence, ACTIONS[found[1]], float(found[2]), float(found[3])))
            except (TypeError, ValueError):
                raise ValueError(
                    f"{path}, line {i}: expected `sSS_eEE`, or `action: first last` with one of "
                    f"{list(ACTIONS)}; got {line!r}"
                ) from None
    return rows


def _text(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers (T,) and joints (T, 20, 3)."""
    try:
        lines = np.loadtxt(file, dtype=np.float64, ndmin=2)
        return lines[:, 0], lines[:, 1:].reshape(len(lines), 20, 3)
    except ValueError as error:
        raise ValueError(
            f"{file}: expected a frame number and sixty coordinates a line; {error}"
        ) from None


def _joints(folder: Path) -> tuple[Skeletons, np.ndarray]:
    packed = folder / PACKED
    if packed.is_file():
        z = arrays(packed, ("names", "offset", "frame", "joints"))
        table = pd.DataFrame({"video": z["names"].tolist()})
        return Skeletons(table, z["joints"], z["offset"], "packed"), z["frame"].astype(np.float64)
    files = {n: folder / f"joints_{n}.txt" for n in SEQUENCES}
    there = {n: _text(f) for n, f in files.items() if f.is_file()}
    if not there:
        raise ValueError(f"{folder}: UTKinect expects {PACKED} or joints_sSS_eEE.txt, found none")
    table = pd.DataFrame({"video": list(there)})
    found = joined(table, [joints for _, joints in there.values()], "original")
    return found, np.concatenate([frames for frames, _ in there.values()])


def read(folder: str | Path | None = None, skip: bool = False) -> Sequences:
    """All sequences; `groups` are people.

    A second counts from the first frame that was kept. An interval without numbers (there is one),
    after the last frame or across it is named in `recordings.notes`.

    Args:
        folder: See the module; the set's own place if not given.
        skip: Go on without sequences that are missing, which are named and counted.

    Raises:
        vlact.datasets.real.SetMissing: The set is not here.
        ValueError: Neither layout, a line that is no label, joints that are not finite, or
            sequences that are missing.
    """
    folder = Path(folder) if folder is not None else place(SET)
    found, frame = _joints(folder)
    rows = _intervals(folder / LABELS)
    names = found.table["video"].tolist()
    lost = [f"{n}: not there" for n in SEQUENCES if n not in names]
    left_out(lost, folder, f"UTKinect has {len(SEQUENCES)} sequences", skip)
    if not np.isfinite(found.joints).all():
        i = int(np.flatnonzero(~np.isfinite(found.joints).all((1, 2)))[0])
        name = names[int(np.searchsorted(found.offset, i, side="right")) - 1]
        raise ValueError(f"{folder}: {name} has joints that are not finite; bring it again")
    first = np.repeat(frame[found.offset[:-1]], np.diff(found.offset))
    seconds = (frame - first) / FRAMES_PER_S
    zero = {n: frame[a] for n, a in zip(names, found.offset[:-1], strict=True)}
    durations = {
        n: float(seconds[b - 1]) + 2 / FRAMES_PER_S  # every second frame was kept
        for n, b in zip(names, found.offset[1:], strict=True)
    }
    truth = pd.DataFrame(
        [
            (n, (a - zero[n]) / FRAMES_PER_S, (b - zero[n]) / FRAMES_PER_S, label)
            for n, label, a, b in rows
            if n in zero
        ],
        columns=["video", "start_s", "end_s", "label"],
    )
    truth["start_s"] = truth["start_s"].clip(lower=0)  # a label before the first kept frame
    truth, notes = within(truth, durations)
    groups = {n: n[:3] for n in names}
    return Sequences(
        found, seconds, Recordings(truth, durations, {}, found.layout, tuple(notes), groups)
    )
