"""Sequences of joints from a depth sensor, in one order of joints.

The order is that of Kinect's first version, `JOINTS`; metres, y up, z away from the sensor.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

JOINTS = (
    *("hip centre", "spine", "shoulder centre", "head"),
    *("left shoulder", "left elbow", "left wrist", "left hand"),
    *("right shoulder", "right elbow", "right wrist", "right hand"),
    *("left hip", "left knee", "left ankle", "left foot"),
    *("right hip", "right knee", "right ankle", "right foot"),
)


@dataclass(frozen=True)
class Skeletons:
    """A set of sequences.

    Attributes:
        table: A row a sequence: `video` (its name), `label, group`, and what else its name says
            (`subject`, `view`, ..).
        joints: Of all sequences after each other, metres (N, 20, 3), in the order of `JOINTS`.
        offset: First frame of each sequence, and the end of the last (S + 1,).
        layout: "original" or "packed".
    """

    table: pd.DataFrame
    joints: np.ndarray
    offset: np.ndarray
    layout: str

    def __post_init__(self):
        if not (len(self.offset) == len(self.table) + 1 and self.offset[-1] == len(self.joints)):
            raise ValueError(
                f"{len(self.table)} sequences, {len(self.offset)} offsets up to "
                f"{self.offset[-1]}, {len(self.joints)} frames: they do not fit"
            )

    def __getitem__(self, i: int) -> np.ndarray:
        """Joints of one sequence (T, 20, 3)."""
        return self.joints[self.offset[i] : self.offset[i + 1]]

    def of(self, keep: np.ndarray) -> "Skeletons":
        """Some of the sequences, by a mask (S,)."""
        rows = np.flatnonzero(keep)
        parts = [self[i] for i in rows]
        joints = np.concatenate(parts) if parts else self.joints[:0]
        offset = np.concatenate([[0], np.cumsum([len(p) for p in parts], dtype=np.int64)])
        table = self.table.iloc[rows].reset_index(drop=True)
        return Skeletons(table, joints, offset, self.layout)


def joined(table: pd.DataFrame, parts: list[np.ndarray], layout: str) -> Skeletons:
    """A set from the sequences of its table, each (T, 20, 3)."""
    offset = np.concatenate([[0], np.cumsum([len(p) for p in parts], dtype=np.int64)])
    joints = np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, 20, 3), np.float32)
    return Skeletons(table.reset_index(drop=True), joints, offset, layout)


def arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of a packed set, read without pickle.

    Raises:
        ValueError: No npz, or one that lacks an array; names both.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            if missing := [n for n in names if n not in found.files]:
                raise ValueError(f"it lacks {missing}, it has {found.files}")
            return {n: found[n] for n in names}
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path}: expected the arrays {list(names)} in a npz; {error}; bring it again"
        ) from None


def usable(found: Skeletons) -> list[str]:
    """What is wrong with sequences, a line each: no frame, or joints that are no finite numbers."""
    out = []
    for i, name in enumerate(found.table["video"]):
        own = found[i]
        if not len(own):
            out.append(f"{name}: no frame")
        elif not np.isfinite(own).all():
            frame = int(np.flatnonzero(~np.isfinite(own).all((1, 2)))[0])
            out.append(f"{name}: joints are not finite in frame {frame}")
    return out


def whole(found: Skeletons) -> np.ndarray:
    """Which sequences `usable` has nothing against (S,)."""
    bad = {line.split(":")[0] for line in usable(found)}
    return ~found.table["video"].isin(bad).to_numpy()
