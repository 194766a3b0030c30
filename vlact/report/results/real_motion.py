"""Numbers of motion transfer on real clips, from its answers; percent."""

from dataclasses import dataclass, field
from typing import Protocol as Shape

import numpy as np
import pandas as pd

from vlact.metrics.transfer import transfer
from vlact.report.results.real import below, of_claim

LEARNT, LOSS = 50.0, 20.0  # percent of motions known; points that are lost, as in the ledger


class Protocol(Shape):
    """What is read of `vlact.papers.transfer.real.Protocol`."""

    level: float
    resamples: int
    chance_factor: float


@dataclass(frozen=True)
class Interval:
    """A mean with ends of its interval, percent."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class Scores:
    """Of one model on one setup; `d_rel` and others are of the means over directions.

    Attributes:
        known, unknown, hm: Percent; known and HM are nan where a setup has no known context.
        chance: Percent. runs, clips: How many.
    """

    known: Interval
    unknown: Interval
    hm: Interval
    chance: float
    runs: int
    clips: int
    extra: dict = field(default_factory=dict)


def scored(predictions: pd.DataFrame, level: float, resamples: int, seed: int = 0) -> Scores:
    """KC, UC and HM of one model on one setup, with intervals over test clips and runs.

    Both are resampled: runs, and clips within each direction and context, a clip with all its
    answers. A percentile interval.

    Args:
        predictions: See `transfer_job`.
        level: Of the intervals.
        resamples: How many.
        seed: Of the resampling.
    """
    found = predictions.assign(right=predictions["label"] == predictions["predicted"])
    runs = sorted(found["run"].unique())
    right = {}  # by direction and context: runs by clips, nan where a run did not see a clip
    for key, part in found.groupby(["trained_on", "known"]):
        right[key] = (
            part.groupby(["run", "clip"])["right"].mean().unstack().reindex(runs).to_numpy(float)
        )
    directions = sorted({d for d, _ in right})
    chance = 100.0 / found["label"].nunique()
    draw = np.random.default_rng(seed)
    keys = [(d, k) for k in (True, False) for d in directions]
    sampled = {k: np.full(resamples + 1, np.nan) for k in keys}
    chosen = draw.integers(len(runs), size=(resamples, len(runs)))
    of_runs = np.stack([np.bincount(c, minlength=len(runs)) for c in chosen])
    for key in keys:
        if key not in right:
            continue
        x = right[key]
        there, filled = ~np.isnan(x), np.nan_to_num(x)
        weights = draw.multinomial(x.shape[1], np.full(x.shape[1], 1 / x.shape[1]), resamples)
        above = np.einsum("br,rc,bc->b", of_runs, filled, weights)
        below = np.einsum("br,rc,bc->b", of_runs, there.astype(float), weights)
        sampled[key] = 100 * np.r_[filled.sum() / there.sum(), above / np.maximum(below, 1)]
    known = np.mean([sampled[d, True] for d in directions], axis=0)
    unknown = np.mean([sampled[d, False] for d in directions], axis=0)
    hm = np.mean([_harmonic(sampled[d, True], sampled[d, False]) for d in directions], axis=0)
    tail = (1 - level) / 2

    def interval(x: np.ndarray) -> Interval:
        ends = np.nanquantile(x[1:], [tail, 1 - tail]) if np.isfinite(x).any() else (np.nan,) * 2
        return Interval(float(x[0]), float(ends[0]), float(ends[1]))

    # means are of the sample itself, not of its resamples
    drops = transfer(known[0], unknown[0]) if np.isfinite(known[0]) else {}
    clips = found["clip"].nunique()
    return Scores(*map(interval, (known, unknown, hm)), chance, len(runs), clips, drops)


def _harmonic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(a + b == 0, 0.0, 2 * a * b / (a + b))


def table_of(predictions: pd.DataFrame, p: Protocol) -> pd.DataFrame:
    """A row for each setup, model and kind of input.

    Columns: `setup, model, sees, known, known_low, known_high`, the same of `unknown` and `hm`,
    `d_abs, d_rel, chance, counts` (KC above `chance_factor` times chance), `runs, clips`; percent.
    """
    rows = []
    for key, part in predictions.groupby(["setup", "model", "sees"], sort=False):
        s = scored(part, p.level, p.resamples)
        row = dict(zip(("setup", "model", "sees"), key, strict=True))
        for name in ("known", "unknown", "hm"):
            x = getattr(s, name)
            row |= {name: x.mean, f"{name}_low": x.low, f"{name}_high": x.high}
        row |= {k: s.extra.get(k, np.nan) for k in ("d_abs", "d_rel")}
        counts = bool(s.known.mean > p.chance_factor * s.chance)
        rows.append(row | {"chance": s.chance, "counts": counts, "runs": s.runs, "clips": s.clips})
    return pd.DataFrame(rows)


def runs_of(predictions: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of every run, a row each: `setup, model, sees, trained_on, run, known, unknown`,
    percent; folds of one run are taken together.
    """
    found = predictions.assign(right=100.0 * (predictions["label"] == predictions["predicted"]))
    key = ["setup", "model", "sees", "trained_on", "run"]
    wide = found.groupby([*key, "known"], sort=False)["right"].mean().unstack()
    wide = wide.reindex(columns=[True, False]).rename(columns={True: "known", False: "unknown"})
    return wide.rename_axis(columns=None).reset_index()


def classes_of(predictions: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of every class, runs and directions together: `setup, model, sees, label, known,
    unknown`, percent.
    """
    found = predictions.assign(right=100.0 * (predictions["label"] == predictions["predicted"]))
    key = ["setup", "model", "sees", "label"]
    wide = found.groupby([*key, "known"], sort=False)["right"].mean().unstack()
    wide = wide.reindex(columns=[True, False]).rename(columns={True: "known", False: "unknown"})
    return wide.rename_axis(columns=None).reset_index()


# What is set against each other: does taking the clip's own mean away, or anything else that parts
# motion from appearance, help in an unknown context?
PAIRS = (
    ("mean removed, ridge", "appearance, ridge"),
    ("motion, ridge", "appearance, ridge"),
    ("both, ridge", "appearance, ridge"),
    ("appearance, per context", "appearance, ridge"),
    ("mean removed, ridge", "both, ridge"),
    ("temporal convolution, mean removed", "temporal convolution"),
    ("temporal transformer, mean removed", "temporal transformer"),
    ("two branches", "temporal convolution"),
    ("two branches, mean removed", "temporal convolution, mean removed"),
    ("tempo", "temporal convolution"),
    ("context swap", "temporal convolution"),
    ("gradient reversal", "temporal convolution"),
    ("HSIC", "temporal convolution"),
)


def pairs_of(predictions: pd.DataFrame, p: Protocol) -> pd.DataFrame:
    """`PAIRS` on every setup: `setup, sees, ours, other, points, low, high`, of UC; `verdict` is
    "above", "below", "not separated", or "no interval" where all resamples are alike.
    """
    rows = []
    for (setup, sees), part in predictions.groupby(["setup", "sees"], sort=False):
        there = set(part["model"])
        for ours, other in PAIRS:
            if {ours, other} <= there:
                x = paired(part, p, setup, ours, other, sees)
                verdict = "above" if x.low > 0 else "below" if x.high < 0 else "not separated"
                verdict = "no interval" if x.low == x.high else verdict
                row = {"setup": setup, "sees": sees, "ours": ours, "other": other}
                row |= {"points": x.mean, "low": x.low, "high": x.high, "verdict": verdict}
                rows.append(row)
    return pd.DataFrame(rows)


def paired(
    predictions: pd.DataFrame, p: Protocol, setup: str, ours: str, other: str, sees: str
) -> Interval:
    """UC of one model less another's, in points: each clip's mean over runs, the same clips of both
    resampled together.
    """
    part = predictions[
        (predictions["setup"] == setup) & (predictions["sees"] == sees) & ~predictions["known"]
    ]
    right = {}
    for name in (ours, other):
        own = part[part["model"] == name]
        own = own.assign(right=own["label"] == own["predicted"])
        right[name] = own.groupby(["trained_on", "clip"])["right"].mean()
    gap = 100 * (right[ours] - right[other])
    draw, out = np.random.default_rng(0), []
    for _, one in gap.groupby(level=0):
        x = one.to_numpy()
        picks = draw.integers(len(x), size=(p.resamples, len(x)))
        out.append(np.r_[x.mean(), x[picks].mean(1)])
    both = np.mean(out, axis=0)
    tail = (1 - p.level) / 2
    low, high = np.quantile(both[1:], [tail, 1 - tail])
    return Interval(float(both[0]), float(low), float(high))


def claims(runs: pd.DataFrame, setups: dict[str, str]) -> pd.DataFrame:
    """Claims of motion transfer; units are models and training contexts, means over seeds.

    Args:
        runs: `setup, model, sees, trained_on, run, known, unknown`, percent.
        setups: Setup to its set; of each set the first that has a known context is taken, so that
            no clip counts in two.
    """
    if runs.empty:
        return below([])
    known = runs.dropna(subset=["known"])
    first: dict[str, str] = {}
    for setup in known["setup"].unique():
        first.setdefault(setups[setup], setup)
    known = known[known["setup"].isin(first.values()) & known["sees"].isin(["pixels", "joints"])]
    known = known.assign(
        context=known["setup"] + ", " + known["trained_on"].astype(str),
        drop=known["known"] - known["unknown"],
        hm=2 * known["known"] * known["unknown"] / (known["known"] + known["unknown"]).clip(1e-9),
    )
    means = known.groupby(["model", "context"])[["known", "drop", "hm"]].mean()
    drop, out = means["drop"].unstack("context").dropna(), []
    learnt = means["known"].groupby("model").mean()
    drop = drop[learnt.loc[drop.index] >= LEARNT].stack()
    what = f"known over unknown contexts, models that know {LEARNT:g} %"
    out.append(of_claim("T1", "drop", what, drop))
    out.append(of_claim("T1", "less", f"the same less {LOSS:g}", drop - LOSS))
    hm = means["hm"].unstack("model")
    if "two branches" in hm:
        gain = (hm["two branches"] - hm["temporal convolution"]).dropna()
        out.append(of_claim("T7", "base", "HM, two branches over one, joints", gain))
    return below(out)
