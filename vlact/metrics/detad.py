"""Error analysis of localization in the manner of DETAD (Alwassel et al., ECCV 2018).

False positives by kind and what each kind costs; how the score and the misses depend on length,
coverage and the number of instances. Ground truth and predictions are the tables of
`vlact.metrics.localization`; no predictions, or none of a known class, are results like others.
"""

import numpy as np
import pandas as pd

from vlact.metrics.localization import agree, assignments, evaluate

KINDS = (
    "true positive",
    "double detection",
    "wrong label",
    "localization",
    "confusion",
    "background",
)
SIZES = ("XS", "S", "M", "L", "XL")
BUCKETS = {  # upper ends of XS, S, M, L; DETAD's own
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
    """The table with `length_s`, `coverage` (share of the video) and `instances` (in the video).

    Raises:
        ValueError: A video without a duration.
    """
    if missing := sorted(set(ground_truth["video"]) - set(durations)):
        raise ValueError(
            f"durations: expected seconds of every video; {len(missing)} are missing, "
            f"for example {missing[0]!r}"
        )
    length = (ground_truth["end_s"] - ground_truth["start_s"]).astype(float)
    return ground_truth.assign(
        length_s=length,
        coverage=length / ground_truth["video"].map(durations).astype(float),
        instances=ground_truth.groupby("video")["label"].transform("size"),
    )


def quintiles(ground_truth: pd.DataFrame) -> dict[str, tuple[float, ...]]:
    """Buckets of about equal size for data that no published ends fit; see `BUCKETS`."""
    names, shares = ("coverage", "length_s", "instances"), [0.2, 0.4, 0.6, 0.8]
    return {k: tuple(ground_truth[k].astype(float).quantile(shares)) for k in names}


def sizes(values: pd.Series, ends: tuple[float, ...]) -> pd.Series:
    """XS to XL by upper ends (inclusive)."""
    place = np.searchsorted(np.asarray(ends, float), values.to_numpy(), side="left")
    return pd.Series(np.array(SIZES, object)[place], index=values.index)


def _top(ground_truth: pd.DataFrame, predictions: pd.DataFrame, most: int) -> pd.DataFrame:
    """Of each class the best `most` times as many predictions as it has instances.

    Returns:
        The predictions, best first, with their place in multiples of the number as `multiple`.
    """
    predictions = agree(ground_truth, predictions)
    many = ground_truth["label"].value_counts()
    ranked = predictions[predictions["label"].isin(many.index)]
    ranked = ranked.sort_values("score", ascending=False, kind="stable")
    place = ranked.groupby("label").cumcount() / ranked["label"].map(many).astype(float)
    return ranked.assign(multiple=place)[place < most]


def kinds(
    ground_truth: pd.DataFrame,
    predictions: pd.DataFrame,
    tiou: float = 0.5,
    most: int = 10,
    near: str = "label",
) -> pd.DataFrame:
    """Every prediction's kind.

    A prediction that takes no instance is judged by the instance it overlaps most: with at least
    `tiou` it is a double detection or has the wrong label, with at least 0.1 its borders are wrong
    (localization) or borders and label (confusion), else it is background.

    With `near="first"` kinds are those of the authors' code, but for a video without any instance:
    there all is background, where their code goes on with the instances of the video before.

    Args:
        ground_truth, predictions: See the module.
        tiou: Threshold of a true positive.
        most: Of each class only the best `most` x G predictions count, G its instances.
        near: Which of two instances of equal overlap, as where a segment has two labels: see
            `vlact.metrics.localization.assignments`.

    Returns:
        The predictions that count, best first, with `kind` and `multiple`, their place in multiples
        of G; `attrs` say how they were judged: `tiou`, `most`, `near`.

    Raises:
        ValueError: See `vlact.metrics.localization.assignments`.
    """
    top = _top(ground_truth, predictions, most)
    out = top.assign(kind=_judge(ground_truth, top, tiou, near))
    out.attrs = {"tiou": tiou, "most": most, "near": near}
    return out


def _judge(ground_truth: pd.DataFrame, top: pd.DataFrame, tiou: float, near: str) -> np.ndarray:
    """Kind of each prediction at a threshold, see `kinds`."""
    found = assignments(ground_truth, top, tiou, near=near)
    nearest, overlap = found["near"].to_numpy(), found["tiou"].to_numpy()
    hit, same = nearest >= 0, np.zeros(len(top), bool)
    same[hit] = ground_truth["label"].to_numpy()[nearest[hit]] == top["label"].to_numpy()[hit]
    close = hit & (overlap >= tiou)
    conditions = [found["taken"].to_numpy() >= 0, close & same, close, hit & same, hit]
    return np.select(conditions, [np.array(k, object) for k in KINDS[:-1]], KINDS[-1])


def false_positives(kinds: pd.DataFrame) -> pd.DataFrame:
    """Share of each kind among the best G, 2 G, .. predictions of what `kinds` returned.

    Returns:
        Rows 1 G, 2 G, .., columns `KINDS`; no row where no prediction counts.
    """
    group = np.floor(kinds["multiple"].astype(float)).astype(int) + 1
    if kinds.empty:
        return pd.DataFrame(columns=list(KINDS), dtype=float).rename_axis("of G")
    shares = pd.crosstab(group, kinds["kind"], normalize="index")
    return shares.reindex(columns=list(KINDS), fill_value=0.0).rename_axis("of G")


def impact(
    ground_truth: pd.DataFrame,
    kinds: pd.DataFrame,
    tious: tuple[float, ...],
    normalized: bool = False,
) -> pd.Series:
    """How much mean AP over `tious` rises when the errors of one kind are taken away, by kind.

    As in DETAD, an error is judged anew at each threshold, where it is taken away: a detection that
    is right at 0.3 and an error at 0.5 stays at 0.3. So what remains keeps its hits and no cost is
    negative.

    Args:
        ground_truth: See the module.
        kinds: What `kinds` returned.
        tious: Thresholds.
        normalized: Of normalised AP (DETAD, Eq. 2), as in DETAD's figures; else of plain AP.

    Returns:
        Gains 0..1 by kind; `attrs["tious"]` and `attrs["normalized"]`.

    Raises:
        ValueError: See `vlact.metrics.localization.evaluate`.
    """
    top, near = kinds.drop(columns="kind"), kinds.attrs.get("near", "label")
    usual = len(ground_truth) / max(1, ground_truth["label"].nunique())

    def score(table: pd.DataFrame, tiou: float, right: np.ndarray) -> float:
        if table.empty:
            return 0.0
        if not normalized:
            return float(evaluate(ground_truth, table, tious=(tiou,))["ap"].mean())
        labels = table["label"].to_numpy()
        many = ground_truth["label"].value_counts()
        return float(np.mean([_ap_n(right[labels == k], n, usual) for k, n in many.items()]))

    gains = {k: [] for k in KINDS[1:]}
    for tiou in tious:
        kind = _judge(ground_truth, top, tiou, near)
        right = kind == KINDS[0]
        whole = score(top, tiou, right)
        for k in gains:
            stay = kind != k
            gains[k].append(score(top[stay], tiou, right[stay]) - whole if not stay.all() else 0.0)
    out = pd.Series({k: float(np.mean(g)) for k, g in gains.items()}, name="mAP gained")
    out.attrs = {"tious": tuple(map(float, tious)), "normalized": normalized}
    return out


def _ap_n(hit: np.ndarray, instances: int, usual: float) -> float:
    """Normalised AP of one class (DETAD, Eq. 2).

    Args:
        hit: Which of its predictions, best first, take an instance (N,).
        instances: Of the class.
        usual: Mean number of instances of a class.
    """
    recall = np.arange(1, hit.sum() + 1) / instances
    false = np.flatnonzero(hit) - np.arange(hit.sum())
    precision = recall * usual / (recall * usual + false)
    return np.maximum.accumulate(precision[::-1]).sum() / instances


def sensitivity(
    ground_truth: pd.DataFrame,
    predictions: pd.DataFrame,
    buckets: dict[str, tuple[float, ...]],
    tiou: float = 0.5,
    most: int = 10,
) -> pd.DataFrame:
    """Normalised mean AP and misses by characteristic.

    Instances outside a bucket, and the predictions that take them, are left out; precision is
    normalised to the mean number of instances of a class, so that buckets of different size compare
    (DETAD, Eq. 2).

    Args:
        ground_truth: With the columns that `buckets` names, see `characteristics`.
        predictions: See the module.
        buckets: Characteristic to upper ends, see `BUCKETS`.
        tiou, most: See `kinds`.

    Returns:
        Rows `characteristic, bucket, num_gt, ap_n, missed, above, up_to`: the last two are a
        bucket's ends, the upper one inclusive. First the row "all"; buckets without instances are
        left out. `attrs["tiou"]` and `attrs["most"]` say how they were judged.

    Raises:
        ValueError: No ground truth, or see `vlact.metrics.localization.assignments`.
    """
    if ground_truth.empty:
        raise ValueError("ground_truth has no row: nothing can be missed or found")
    top = _top(ground_truth, predictions, most).reset_index(drop=True)
    taken = assignments(ground_truth, top, tiou)["taken"].to_numpy()
    missed = ~np.isin(np.arange(len(ground_truth)), taken)
    usual = len(ground_truth) / ground_truth["label"].nunique()
    labels, of = ground_truth["label"].to_numpy(), top["label"].to_numpy()

    def row(name: str, bucket: str, inside: np.ndarray, above: float, up_to: float) -> dict:
        counts = (taken < 0) | inside[np.maximum(taken, 0)]
        scores = [
            _ap_n((taken >= 0)[counts & (of == x)], (inside & (labels == x)).sum(), usual)
            for x in np.unique(labels[inside])
        ]
        return {
            "characteristic": name,
            "bucket": bucket,
            "num_gt": int(inside.sum()),
            "ap_n": np.mean(scores),
            "missed": missed[inside].mean(),
            "above": above,
            "up_to": up_to,
        }

    rows = [row("all", "all", np.ones(len(ground_truth), bool), -np.inf, np.inf)]
    for name, ends in buckets.items():
        size = sizes(ground_truth[name], ends).to_numpy()
        borders = (-np.inf, *ends, np.inf)
        for i, s in enumerate(SIZES[: len(ends) + 1]):
            if (size == s).any():
                rows.append(row(name, s, size == s, borders[i], borders[i + 1]))
    out = pd.DataFrame(rows)
    out.attrs = {"tiou": tiou, "most": most}
    return out
