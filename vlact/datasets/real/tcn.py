"""Frame-wise scores that the authors of temporal convolutional networks published (Lea et al., CVPR
2017): GTEA and 50 Salads.

`predictions/<set>/../<system>/<split>.mat` has cells `Y` (truth), `P` (answers), `S` (scores), one
a video, in the order of `splits/<set>/Split_<n>/test.txt`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlact.schema import text

SET = "tcn_scores"
SYSTEMS = {  # folder of a system
    "GTEA": {
        "SVM": "GTEA/video_SVM",
        "tCNN": "GTEA/video_tCNN_C30",
        "DilatedTCN": "GTEA/video_DilatedTCN_L5_B2",
        "ED-TCN": "GTEA/video_ED-TCN_L2_C25",
    },
    "50Salads": {
        "SVM": "50Salads/mid/mid_video_SVM",
        "DilatedTCN": "50Salads/mid/mid_video_DilatedTCN_B3_L5",
        "ED-TCN": "50Salads/mid/mid_video_ED-TCN_L2_C15",
    },
}
# Test videos of GTEA's second split, where the lists are not there
GTEA_DISHES = ("Coffee", "Peanut", "Hotdog", "Tea", "Cheese", "Pealate", "CofHoney")
GTEA_VERBS = (  # by the numbers in the cells
    *("background", "close", "fold", "open", "pour", "put"),
    *("scoop", "shake", "spread", "stir", "take"),
)


@dataclass(frozen=True)
class Scores:
    """One video under one system.

    Attributes:
        video, system, split: Names.
        truth, answer: Class of each frame (T,).
        scores: Of each class (T, C).
    """

    video: str
    system: str
    split: int
    truth: np.ndarray
    answer: np.ndarray
    scores: np.ndarray


def names_of(folder: Path, dataset: str, split: int) -> list[str]:
    """Test videos of a split, in the order of the cells; none where no list of them is there."""
    path = folder / "splits" / dataset / f"Split_{split}" / "test.txt"
    if not path.is_file() and dataset == "GTEA" and split == 2:
        return [f"S2_{dish}_C1" for dish in GTEA_DISHES]
    if not path.is_file():
        return []
    return [line.strip() for line in text(path).splitlines() if line.strip()]


def read(folder: str | Path, dataset: str, system: str, split: int) -> list[Scores]:
    """Scores of a system on a split's test videos.

    Raises:
        FileNotFoundError: The split or the system's file is not there.
        ValueError: Cells that are missing, of another number than the split's videos, of different
            lengths, or not finite; names file and video.
    """
    from scipy.io import loadmat

    whole = Path(folder) / "predictions"  # of the repository; an import brings what is in it
    home = (whole if whole.is_dir() else Path(folder)) / SYSTEMS[dataset][system]
    places = home / f"{split}.mat", home / f"Split_{split}.mat"
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{home}: expected {split}.mat or Split_{split}.mat, found neither")
    found = loadmat(path)
    if lacking := [k for k in "YPS" if k not in found]:
        raise ValueError(f"{path}: expected cells Y, P and S; it lacks {lacking}")
    cells = [found[k].ravel() for k in "YPS"]
    names = names_of(Path(folder), dataset, split) or [
        f"split {split}, video {i}" for i in range(1, len(cells[0]) + 1)
    ]
    if any(len(c) != len(names) for c in cells):
        raise ValueError(
            f"{path}: expected {len(names)} cells, one a video of the split; got "
            f"{[len(c) for c in cells]}"
        )
    out = []
    for name, y, p, s in zip(names, *cells, strict=True):
        y, p, s = y.ravel().astype(int), p.ravel().astype(int), np.asarray(s, dtype=np.float64)
        if not (len(y) == len(p) == len(s)) or not np.isfinite(s).all():
            raise ValueError(
                f"{path}, {name}: expected as many answers and finite scores as labels; got "
                f"{len(y)}, {len(p)} and {s.shape}"
            )
        out.append(Scores(name, system, split, y, p, s))
    return out
