"""Accuracy, F1, harmonic mean, the Synonym Robustness Test and paired intervals.

All fractions 0..1. Conventions are those of ACE, section 4.1.
"""

import numpy as np
import pandas as pd

from vlact.runtime.extras import needs


def top1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Share of clips whose prediction is right.

    Raises:
        ValueError: Empty input or different lengths.
    """
    labels, predicted = _pair(labels, predicted)
    return float((labels == predicted).mean())


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Unweighted mean of per-class F1 over the classes that occur in `labels`.

    A class never predicted has F1 = 0. Predictions of classes outside `labels` count as misses.

    >>> round(macro_f1([0, 0, 1], [0, 1, 1]), 4)  # F1 of both classes is 2/3
    0.6667
    """
    labels, predicted = _pair(labels, predicted)
    scores = []
    for c in np.unique(labels):
        hit = ((labels == c) & (predicted == c)).sum()
        scores.append(2 * hit / ((labels == c).sum() + (predicted == c).sum()))
    return float(np.mean(scores))


def harmonic_mean(seen: float, unseen: float) -> float:
    """HM = 2ab / (a + b), 0 where both are 0."""
    return 0.0 if seen + unseen == 0 else 2 * seen * unseen / (seen + unseen)


def random_guess(labels: np.ndarray, classes: int) -> dict[str, float]:
    """Expected accuracy and F1 of guessing uniformly among `classes`, from the label shares.

    For a class with share p, precision is p and recall 1/C, so F1 = 2 p / (C p + 1) in the limit of
    many clips.

    >>> random_guess([0, 0, 0, 1], classes=2)
    {'acc': 0.5, 'f1': 0.4666666666666667}
    """
    share = pd.Series(np.asarray(labels)).value_counts(normalize=True).to_numpy()
    return {"acc": 1 / classes, "f1": float(np.mean(2 * share / (classes * share + 1)))}


def srt(predictions: pd.DataFrame) -> dict[str, float]:
    """Synonym Robustness Test of one model: mean and std over the label sets ("runs").

    Args:
        predictions: Rows with `run`, `label`, `predicted`; every run covers the same clips.

    Returns:
        `srt_acc_mean`, `srt_acc_std`, `srt_f1_mean`, `srt_f1_std`; the std is that of the
        population of runs (ddof 0), as the ten runs are the whole test.

    Raises:
        ValueError: Fewer than two runs, or runs of different length.
    """
    sizes = predictions.groupby("run").size()
    if len(sizes) < 2 or sizes.nunique() > 1:
        raise ValueError(
            f"SRT needs at least two runs over the same clips; got clips per run {sizes.to_dict()}"
        )
    runs = [g for _, g in predictions.groupby("run")]
    acc = np.array([top1(g["label"].to_numpy(), g["predicted"].to_numpy()) for g in runs])
    f1 = np.array([macro_f1(g["label"].to_numpy(), g["predicted"].to_numpy()) for g in runs])
    return {
        "srt_acc_mean": float(acc.mean()),
        "srt_acc_std": float(acc.std()),
        "srt_f1_mean": float(f1.mean()),
        "srt_f1_std": float(f1.std()),
    }


def paired_interval(a: np.ndarray, b: np.ndarray, level: float = 0.95) -> dict[str, float]:
    """Mean of a - b over paired seeds with a t interval.

    Returns:
        `mean`, `low`, `high`, `p` (two-sided paired t test), `wins` (pairs with a > b), `n`.

    Raises:
        ValueError: Fewer than two pairs or different lengths.
    """
    with needs("paired_interval"):
        from scipy.special import stdtr, stdtrit

    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.size < 2:
        raise ValueError(
            f"paired_interval needs two arrays of the same length >= 2; got {a.shape} and {b.shape}"
        )
    d = a - b
    error = d.std(ddof=1) / np.sqrt(len(d))
    half = stdtrit(len(d) - 1, 0.5 + level / 2) * error
    p = float(2 * stdtr(len(d) - 1, -abs(d.mean() / error))) if error > 0 else float(d.mean() == 0)
    return {
        "mean": float(d.mean()),
        "low": float(d.mean() - half),
        "high": float(d.mean() + half),
        "p": p,
        "wins": int((d > 0).sum()),
        "n": len(d),
    }


def _pair(labels, predicted) -> tuple[np.ndarray, np.ndarray]:
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape or labels.size == 0:
        raise ValueError(
            f"labels and predicted must have the same non-zero length; got {labels.shape} and "
            f"{predicted.shape}"
        )
    return labels, predicted
