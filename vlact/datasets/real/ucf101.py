"""UCF101 (Soomro, Zamir, Shah, 2012), 15 classes as published VGG16 features, official split 1.

Original layout: a folder a video, or files, `v_000001.mat` with (25, 4096) features of 25 frames
(MATLAB, fc6 after its ReLU), and `annos/actions.txt` (number, class), `annos/
videos_labels_subsets.txt` (video, class number, subset: 1 train, 2 test). The packed copy has the
first 128 principal components of every frame and the first 512 of each video's mean, those of the
training part, in ucf101_15_vgg16_fc6.npz. The same components are taken of the original here.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.datasets.real import Clips, place

PACKED, FEATURES, ANNOS = "ucf101_vgg16", "ucf101_features", "ucf101_annos"
SUBSETS = {1: "train", 2: "test"}
FRAMES, WIDE = 128, 512  # principal components of a frame, and of a video's mean
WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


def words(name: str) -> str:
    """ "ApplyEyeMakeup" as people write it.

    >>> words("ApplyEyeMakeup")
    'apply eye makeup'
    """
    return WORD.sub(" ", name).lower()


def read(
    features: str | Path | None = None, annos: str | Path | None = None, skip: bool = False
) -> Clips:
    """Every video of the features' classes.

    Args:
        features: Folder of the .mat files or of the packed copy; the set's own place if not given.
        annos: Folder of the two lists, of the original layout; beside the features, or the set's
            own place, if not given.
        skip: Leave out videos that the lists name and that have no features or broken ones.

    Returns:
        Its table has `video, label, group` (the video: the films that clips were cut from are not
        named), `split1`; its arrays `frames` (N, 25, 128) and `mean` (N, 512), float32.

    Raises:
        vlact.datasets.real.SetMissing: The set is not here.
        ValueError: A line of another layout; features that are missing, of another shape or not
            finite without `skip`.
    """
    features = Path(features) if features is not None else place(PACKED, FEATURES)
    if (packed := features / "ucf101_15_vgg16_fc6.npz").is_file():
        with np.load(packed, allow_pickle=False) as content:
            names, classes = content["names"].tolist(), content["classes"].tolist()
            label, subset = content["label"].tolist(), content["subset"].tolist()
            arrays = {k: content[n].astype(np.float32) for k, n in _PACKED.items()}
        first = min(label)  # classes count from 1 or from 0
        rows = [
            _row(n, classes[c - first], s) for n, c, s in zip(names, label, subset, strict=True)
        ]
        return Clips("ucf101", features, pd.DataFrame(rows), "packed", arrays=arrays)
    annos = Path(annos) if annos is not None else _beside(features)
    classes = dict(_list(annos / "actions.txt", 2))
    rows = _list(annos / "videos_labels_subsets.txt", 3)
    files = {name: _mat(features, name) for name, *_ in rows}
    covered = {number for name, number, _ in rows if files[name]}  # classes with features
    found, left_out, of_frames = [], [], []
    for name, number, subset in rows:
        if number not in covered:
            continue
        file = files[name]
        try:
            of_frames.append(_frames(file, features / name))
        except ValueError as error:
            left_out.append(str(error))
            continue
        found.append(_row(name, classes[number], int(subset)))
    if left_out and not skip:
        shown = "\n  ".join(left_out[:5])
        raise ValueError(
            f"ucf101: features of {len(left_out)} videos are missing or broken; bring them again, "
            f"or leave them out with --skip:\n  {shown}"
        )
    if not found:
        raise ValueError(f"{features}: expected files such as v_000001.mat, found none of the list")
    table = pd.DataFrame(found)
    arrays = _components(np.stack(of_frames), (table["split1"] == "train").to_numpy())
    return Clips("ucf101", features, table, "original", tuple(left_out), arrays)


_PACKED = {"frames": "frames_pca128", "mean": "mean_pca512"}


def _row(name: str, label: str, subset: int) -> dict:
    return {"video": name, "label": words(label), "group": name, "split1": SUBSETS[int(subset)]}


def _beside(features: Path) -> Path:
    here = [features.parent / "annos", features / "annos"]
    return next((f for f in here if f.is_dir()), None) or place(ANNOS)


def _list(file: Path, count: int) -> list[list[str]]:
    """Cells of every line, split at blanks."""
    if not file.is_file():
        raise ValueError(f"{file}: expected a list of UCF101, found no such file")
    out = []
    for n, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        cells = line.split()
        if cells and (len(cells) != count or not any(c.isdigit() for c in cells)):
            raise ValueError(f"{file}, line {n}: expected {count} cells, got {line!r}")
        out += [cells] if cells else []
    return out


def _mat(features: Path, name: str) -> Path | None:
    """A video's one file, alone or the only one in its folder."""
    inside = sorted((features / name).glob("*.mat"))
    alone = features / f"{name}.mat"
    return alone if alone.is_file() else inside[0] if len(inside) == 1 else None


def _frames(file: Path | None, folder: Path) -> np.ndarray:
    """Features (25, 4096) of one video.

    Raises:
        ValueError: No file, one that is no MATLAB file, or without one such array.
    """
    from scipy.io import loadmat

    if file is None:
        raise ValueError(f"{folder}: expected one .mat file in it")
    try:
        content = loadmat(file)
    except Exception as error:  # noqa: BLE001 - scipy raises whatever a broken file led to
        raise ValueError(f"{file}: is no MATLAB file that can be read: {error}") from None
    arrays = [x for k, x in content.items() if not k.startswith("__") and np.ndim(x) == 2]
    arrays = [x for x in arrays if x.dtype.kind == "f" and min(x.shape) > 1]
    if len(arrays) != 1 or not np.isfinite(arrays[0]).all():
        raise ValueError(f"{file}: expected one array of finite features, frames by numbers")
    found = arrays[0].astype(np.float32)
    return found if found.shape[0] < found.shape[1] else found.T


def _components(frames: np.ndarray, train: np.ndarray) -> dict[str, np.ndarray]:
    """Principal components of the training part, of frames and of means; deterministic."""

    def fitted(x: np.ndarray, of: np.ndarray, count: int) -> np.ndarray:
        count = min(count, *of.shape)
        centre = of.mean(0)
        _, axes = np.linalg.eigh((of - centre).T @ (of - centre))
        return (x - centre) @ axes[:, ::-1][:, :count]

    flat, means = frames.reshape(-1, frames.shape[-1]), frames.mean(1)
    few = fitted(flat, frames[train].reshape(-1, frames.shape[-1]), FRAMES)
    return {
        "frames": few.reshape(*frames.shape[:2], -1).astype(np.float32),
        "mean": fitted(means, means[train], WIDE).astype(np.float32),
    }
