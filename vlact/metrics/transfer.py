"""How well motions transfer to contexts that training never showed: drops and harmonic means, as
the benchmark's tables have them.
"""

import numpy as np
import pandas as pd

TASKS = {"coarse": ("CoarseMotion-KC", "CoarseMotion-UC"), "fine": ("FineMotion-K", "FineMotion-U")}


def transfer(known: float, unknown: float) -> dict[str, float]:
    """Drops and harmonic mean of two accuracies, all in the same unit.

    Returns:
        `d_abs` = known - unknown (points); `d_rel` = 100 (known - unknown) / known (percent; nan
        where known is 0; the paper does not print its definition); `hm` = 2 known unknown / (known
        + unknown), 0 where both are.

    Raises:
        ValueError: An accuracy that is negative or no number.
    """
    if not (np.isfinite([known, unknown]).all() and known >= 0 and unknown >= 0):
        raise ValueError(
            f"accuracies must be numbers >= 0; got known={known!r}, unknown={unknown!r}"
        )
    both = known + unknown
    return {
        "d_abs": known - unknown,
        "d_rel": 100 * (known - unknown) / known if known else float("nan"),
        "hm": 2 * known * unknown / both if both else 0.0,
    }


def accuracies(predictions: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each run on known and unknown contexts.

    Args:
        predictions: `model, seed, task` ("coarse" or "fine"), `trained_on` (the set), `set` (of the
            clip), `label`, `predicted`; validation clips only.

    Returns:
        A row for each model, seed, task and `trained_on`: `known` and `unknown` in percent (nan
            where a model was not
        asked, such as fine classes by name of a model without text), and what `transfer` returns.

    Raises:
        ValueError: A run without clips of the set that it was trained on.
    """
    rows = []
    for key, part in predictions.groupby(["model", "seed", "task", "trained_on"], sort=False):
        right = (part["label"] == part["predicted"]).groupby(part["set"]).mean() * 100
        if key[3] not in right.index:
            raise ValueError(
                f"{key[0]}, seed {key[1]}, {key[2]}: no clips of set {key[3]}, which it was "
                f"trained on; got sets {list(right.index)}"
            )
        others = right.drop(key[3])
        row = dict(zip(("model", "seed", "task", "trained_on"), key, strict=True)) | {
            "known": right[key[3]]
        }
        row["unknown"] = others.mean() if len(others) else float("nan")
        rows.append(
            row
            | (
                transfer(row["known"], row["unknown"])
                if len(others)
                else dict.fromkeys(("d_abs", "d_rel", "hm"), float("nan"))
            )
        )
    return pd.DataFrame(rows)


def averaged(runs: pd.DataFrame) -> pd.DataFrame:
    """Both directions as one row, as the tables print them: the mean over `trained_on` of what
    `accuracies` returned.

    HM is the mean of the two harmonic means, so it may lie below the harmonic mean of the printed
    accuracies.

    Raises:
        ValueError: A run that lacks one direction.
    """
    key, values = ["model", "seed", "task"], ["known", "unknown", "d_abs", "d_rel", "hm"]
    counts = runs.groupby(key, sort=False)["trained_on"].nunique()
    if (counts != 2).any():
        raise ValueError(
            f"expected both training sets of every run; {counts[counts != 2].index[0]} has "
            f"{counts[counts != 2].iloc[0]}"
        )
    return runs.groupby(key, sort=False)[values].mean().reset_index()
