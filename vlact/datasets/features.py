"""Pre-extracted features as others publish them, when their steps are, and scores of an external
video classifier.

A step of ActionFormer's features stands for `num_frames` frames from `i * feat_stride` on; OpenTAD
counts from `offset_frames`; features rescaled to a fixed length, as for ActivityNet, divide the
video evenly.
"""

import math
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vlact.runtime.damage import DAMAGED
from vlact.runtime.extras import needs
from vlact.schema import csv, json_object

USUAL = "feats"


def read(path: str | Path, key: str | None = None, transpose: bool = False) -> torch.Tensor:
    """Features (T, D) of one video, float32.

    Args:
        path: .npy, .npz, .pt or .pth (tensors only), .csv (a header line, as mmaction2's TSN
            features), .h5 or .hdf5.
        key: Of a .pt that is a dict, of an npz or an h5; not needed where there is one entry only,
            or one is `feats`, as in ActionFormer's packs.
        transpose: The file has (D, T).

    Raises:
        ValueError: Another ending, an array that is not two-dimensional (leading axes of one are
            dropped), numbers that are not finite, or a key that is not there.
    """
    path = Path(path)
    if path.suffix == ".npy":
        found = _array(path)
    elif path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                found = torch.from_numpy(np.array(file[_key(file.files, key, path)]))
        except (OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: expected a whole .npz of numbers; {error}") from None
    elif path.suffix in (".pt", ".pth"):
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except DAMAGED as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{path}: expected a whole file of tensors; {first}") from None
        if isinstance(found, dict):
            found = found[_key(found, key, path)]
    elif path.suffix == ".csv":
        table = csv(path, (), "a csv of numbers with a header line")
        table = table.apply(pd.to_numeric, errors="coerce")
        found = torch.from_numpy(np.array(table, dtype=np.float32))
    elif path.suffix in (".h5", ".hdf5"):
        with needs("an h5 file"):
            import h5py

        try:
            with h5py.File(path) as file:
                found = torch.from_numpy(file[_key(file, key, path)][()])
        except (OSError, TypeError) as error:
            raise ValueError(
                f"{path}: expected an h5 file with one array an entry; {error}"
            ) from None
    else:
        raise ValueError(
            f"{path}: expected .npy, .npz, .pt, .pth, .csv, .h5 or .hdf5, got {path.suffix!r}"
        )
    found = torch.as_tensor(found).float()
    while found.ndim > 2 and len(found) == 1:
        found = found[0]
    if found.ndim != 2:
        raise ValueError(f"{path}: expected features (T, D), got shape {tuple(found.shape)}")
    if not found.isfinite().all():
        raise ValueError(
            f"{path}: {int((~found.isfinite()).any(1).sum())} of {len(found)} steps have "
            "numbers that are not finite"
        )
    return found.T.contiguous() if transpose else found


def _array(path: str | Path) -> torch.Tensor:
    """A .npy of numbers."""
    try:
        return torch.from_numpy(np.array(np.load(path, allow_pickle=False)))
    except (ValueError, EOFError, TypeError) as error:
        raise ValueError(f"{path}: expected a .npy of numbers; {error}") from None


def _key(entries, key: str | None, path: Path) -> str:
    if key is None and len(entries) == 1:
        return next(iter(entries))
    wanted = USUAL if key is None else key
    if wanted not in list(entries):
        raise ValueError(
            f"{path}: no entry {wanted!r}; pass `key`, one of {sorted(map(str, entries))[:5]}"
        )
    return wanted


def grid(
    feat_stride: float, fps: float, num_frames: float = 0.0, offset_frames: float = 0.0
) -> tuple[float, float]:
    """Seconds from one step to the next, and those that step 0 stands for: `Clock(*grid(..))` of
    `vlact.papers.actionvlm.localizing`.

    Args:
        feat_stride: Frames from one step to the next.
        fps: Of the frames.
        num_frames: That a step has seen; it stands for their middle (ActionFormer: 4, 30, 16 on
            THUMOS14 with I3D).
        offset_frames: Of the first step (OpenTAD), with `num_frames` 0.

    Raises:
        ValueError: A stride or rate that is not positive, or negative frames.
    """
    if not (feat_stride > 0 and fps > 0 and num_frames >= 0):
        raise ValueError(
            f"expected feat_stride > 0, fps > 0, num_frames >= 0; got {feat_stride}, {fps}, "
            f"{num_frames}"
        )
    return feat_stride / fps, (0.5 * num_frames + offset_frames) / fps


def rescaled(length: int, duration_s: float) -> tuple[float, float]:
    """`grid` of features stretched to `length` steps, whatever the video's own length
    (ActivityNet).
    """
    return grid(1.0, length / duration_s)


def cuhk_scores(path: str | Path) -> pd.DataFrame:
    """Scores of videos by class, from a JSON `{"results": {id: [..]}, "class": [..]}` as CUHK's for
    ActivityNet.

    Returns:
        A row a video (ids without "v_"), a column a class.

    Raises:
        ValueError: Other keys, or a video with another number of scores than there are classes.
    """
    content = json_object(path)
    if not isinstance(content.get("results"), dict) or not isinstance(content.get("class"), list):
        raise ValueError(f'{path}: expected {{"results": {{id: [..]}}, "class": [..]}}')
    for video, scores in content["results"].items():
        if not isinstance(scores, list) or len(scores) != len(content["class"]):
            number = len(scores) if isinstance(scores, list) else repr(scores)
            raise ValueError(
                f"{path}: {video!r} has {number} scores for {len(content['class'])} classes"
            )
        if not all(isinstance(s, int | float) and math.isfinite(s) for s in scores):
            raise ValueError(f"{path}: {video!r} has a score that is no number: {scores}")
    found = {v.removeprefix("v_"): s for v, s in content["results"].items()}
    return pd.DataFrame.from_dict(found, orient="index", columns=content["class"])


def untrimmednet_scores(
    path: str | Path, classes: dict[int, str], prefix: str = "video_test_"
) -> pd.DataFrame:
    """Scores of THUMOS14's test videos by class, from UntrimmedNet's `uNet_test.npy`.

    Args:
        path: (videos, classes) array; row `video number - 1`, column `class number - 1`.
        classes: Number to name, see `vlact.datasets.thumos14.class_list`.
        prefix: Of the videos' names.

    Raises:
        ValueError: An array with too few columns for the class numbers.
    """
    scores = _array(path).numpy()
    if scores.ndim != 2 or scores.shape[1] < max(classes):
        raise ValueError(
            f"{path}: expected (videos, {max(classes)} or more classes), got shape {scores.shape}"
        )
    names = [f"{prefix}{i + 1:07d}" for i in range(len(scores))]
    return pd.DataFrame(
        {name: scores[:, number - 1] for number, name in classes.items()}, index=names
    )


def fuse(proposals: pd.DataFrame, scores: pd.DataFrame, top_k: int = 2) -> pd.DataFrame:
    """Class-agnostic proposals times the best classes of a video classifier, as BMN, G-TAD and
    ActionFormer on ActivityNet.

    Args:
        proposals: `video, start_s, end_s, score`; further columns are kept, `label` is replaced.
        scores: A row a video, a column a class.
        top_k: Classes a video.

    Returns:
        `top_k` rows a proposal with `label` and `score` = its own times the class's; best class
        first.

    Raises:
        ValueError: A video without scores, or more classes wanted than there are.
    """
    if missing := sorted(set(proposals["video"]) - set(scores.index)):
        raise ValueError(
            f"scores: no row for {missing[0]!r} ({len(missing)} videos of the proposals are "
            "missing)"
        )
    if not 1 <= top_k <= scores.shape[1]:
        raise ValueError(f"top_k must be 1..{scores.shape[1]}, got {top_k}")
    table = scores.loc[proposals["video"]].to_numpy()
    best = np.argsort(-table, axis=1, kind="stable")[:, :top_k]
    out = proposals.loc[proposals.index.repeat(top_k)].reset_index(drop=True)
    out["label"] = scores.columns.to_numpy()[best].ravel()
    out["score"] = out["score"] * np.take_along_axis(table, best, 1).ravel()
    return out
