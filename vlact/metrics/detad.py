"""Error analysis of localisation in the manner of DETAD (Alwassel et al., ECCV 2018).

False positives by kind and what each kind costs; how the score and the misses depend on length, coverage and the
number of instances. Ground truth and predictions are the tables of `vlact.metrics.localization`.
"""

import numpy as np
import pandas as pd

from vlact.metrics.localization import assignments, evaluate

KINDS = (
    "true positive",
    "double detection",
    "wrong label",
    "localization",
    "confusion",
    "background",
)
SIZES = ("XS", "S", "M", "L", "XL")
BUCKETS = {  # upper ends of XS, S, M, L; DETAD's own for ActivityNet, those of later work for THUMOS14
    "thumos14": {
        "coverage": (0.02, 0.04, 0.06, 0.08),
        "length_s": (3, 6, 12, 18),
        "instances": (1, 40, 80, np.inf),
    },
    "activitynet": {
        "coverage": (0.2, 0.4, 0.6, 0.8),
        "length_s": (30, 60, 120, 180),
        "instances": (1, 4, 8, np.inf),
    },
}


def characteristics(ground_truth: pd.DataFrame, durations: dict[str, float]) -> pd.DataFrame:
    """The table with `length_s`, `coverage` (share of the video) and `instances` (of any class in the video).

    Raises:
        ValueError: A video without a duration.
    """
    if missing := sorted(set(ground_truth["video"]) - set(durations)):
        raise ValueError(
            f"durations: expected seconds of every video; {len(missing)} are missing, for example {missing[0]!r}"
        )
    length = ground_truth["end_s"] - ground_truth["start_s"]
    return ground_truth.assign(
        length_s=length,
        coverage=length / ground_truth["video"].map(durations),
        instances=ground_truth.groupby("video")["label"].transform("size"),
    )


def quintiles(ground_truth: pd.DataFrame) -> dict[str, tuple[float, ...]]:
    """Buckets of about equal size for data that no published ends fit; see `BUCKETS`."""
    return {
        k: tuple(ground_truth[k].quantile([0.2, 0.4, 0.6, 0.8]))
        for k in ("coverage", "length_s", "instances")
    }


def sizes(values: pd.Series, ends: tuple[float, ...]) -> pd.Series:
    """XS to XL by upper ends (inclusive)."""
    return pd.Series(
        np.array(SIZES, object)[
            np.searchsorted(np.asarray(ends, float), values.to_numpy(), side="left")
        ],
        index=values.index,
    )


def _top(ground_truth: pd.DataFrame, predictions: pd.DataFrame, most: int) -> pd.DataFrame:
    """Of each class the best `most` times as many predictions as it has instances, with their place as a multiple of that."""
    many = ground_truth["label"].value_counts()
    ranked = predictions[predictions["label"].isin(many.index)].sort_values(
        "score", ascending=False, kind="stable"
    )
    place = ranked.groupby("label").cumcount() / ranked["label"].map(many)
    return ranked.assign(multiple=place)[place < most]


def kinds(
    ground_truth: pd.DataFrame, predictions: pd.DataFrame, tiou: float = 0.5, most: int = 10
) -> pd.DataFrame:
    """Every prediction's kind.

    A prediction that takes no instance is judged by the instance it overlaps most: with at least `tiou` it is a
    double detection or has the wrong label, with at least 0.1 its borders are wrong (localization) or borders
    and label (confusion), else it is background.

    Args:
        ground_truth, predictions: See the module.
        tiou: Threshold of a true positive.
        most: Of each class only the best `most` x G predictions count, G its instances, as in DETAD.

    Returns:
        The predictions that count, best first, with `kind` and `multiple`, their place in multiples of G.
    """
    top = _top(ground_truth, predictions, most)
    found = assignments(ground_truth, top, tiou)
    same = np.zeros(len(top), bool)
    hit = found["near"].to_numpy() >= 0
    same[hit] = (
        ground_truth["label"].to_numpy()[found["near"].to_numpy()[hit]]
        == top["label"].to_numpy()[hit]
    )
    close = found["tiou"].to_numpy() >= tiou
    conditions = [found["taken"].to_numpy() >= 0, hit & close & same, hit & close, hit & same, hit]
    return top.assign(kind=np.select(conditions, KINDS[:-1], KINDS[-1]))


def false_positives(kinds: pd.DataFrame) -> pd.DataFrame:
    """Share of each kind among the best G, 2 G, .. predictions of what `kinds` returned: rows 1 G, 2 G, .., columns `KINDS`."""
    group = np.floor(kinds["multiple"]).astype(int) + 1
    return (
        pd.crosstab(group, kinds["kind"], normalize="index")
        .reindex(columns=list(KINDS), fill_value=0.0)
        .rename_axis("of G")
    )


def impact(ground_truth: pd.DataFrame, kinds: pd.DataFrame, tious: tuple[float, ...]) -> pd.Series:
    """How much mean AP over `tious` rises when the errors of one kind are taken away, by kind."""

    def score(table: pd.DataFrame) -> float:
        return float(evaluate(ground_truth, table, tious=tious)["ap"].mean()) if len(table) else 0.0

    whole = score(kinds)
    return pd.Series(
        {k: score(kinds[kinds["kind"] != k]) - whole for k in KINDS[1:]}, name="mAP gained"
    )


def sensitivity(
    ground_truth: pd.DataFrame,
    predictions: pd.DataFrame,
    buckets: dict[str, tuple[float, ...]],
    tiou: float = 0.5,
    most: int = 10,
) -> pd.DataFrame:
    """Normalised mean AP and misses by characteristic.

    Instances outside a bucket, and the predictions that take them, are left out; precision is normalised to the
    mean number of instances of a class, so that buckets of different size compare (DETAD, Eq. 2).

    Args:
        ground_truth: With the columns that `buckets` names, see `characteristics`.
        predictions: See the module.
        buckets: Characteristic to upper ends, see `BUCKETS`.
        tiou, most: See `kinds`.

    Returns:
        Rows `characteristic, bucket, num_gt, ap_n, missed`; first the row "all"; buckets without instances are left out.
    """
    top = _top(ground_truth, predictions, most).reset_index(drop=True)
    taken = assignments(ground_truth, top, tiou)["taken"].to_numpy()
    missed = ~np.isin(np.arange(len(ground_truth)), taken)
    usual = len(ground_truth) / ground_truth["label"].nunique()
    labels, of = ground_truth["label"].to_numpy(), top["label"].to_numpy()

    def row(name: str, bucket: str, inside: np.ndarray) -> dict:
        counts = (taken < 0) | inside[np.maximum(taken, 0)]
        scores = []
        for label in np.unique(labels[inside]):
            hit = (taken >= 0)[counts & (of == label)]
            recall = np.arange(1, hit.sum() + 1) / (inside & (labels == label)).sum()
            false = np.flatnonzero(hit) - np.arange(hit.sum())
            precision = recall * usual / (recall * usual + false)
            scores.append(
                np.maximum.accumulate(precision[::-1]).sum() / (inside & (labels == label)).sum()
            )
        return {
            "characteristic": name,
            "bucket": bucket,
            "num_gt": int(inside.sum()),
            "ap_n": np.mean(scores),
            "missed": missed[inside].mean(),
        }

    rows = [row("all", "all", np.ones(len(ground_truth), bool))]
    for name, ends in buckets.items():
        size = sizes(ground_truth[name], ends).to_numpy()
        rows += [row(name, s, size == s) for s in SIZES if (size == s).any()]
    return pd.DataFrame(rows)
