"""Numbers of localization on real video, from ground truth and detections; percent."""

from dataclasses import dataclass
from typing import Protocol as Shape

import numpy as np
import pandas as pd

from vlact.datasets.real.recordings import Recordings
from vlact.metrics.detad import false_positives, impact, kinds
from vlact.metrics.localization import assignments
from vlact.report.results.real import below, of_claim

Found = dict[str, tuple[Recordings, pd.DataFrame]]  # a set's recordings and all detections


class Protocol(Shape):
    """What is read of `vlact.papers.actionvlm.real.Protocol`."""

    tious: tuple[float, ...]
    level: float
    resamples: int


class Resampled:
    """mAP over any sample of recordings, from one matching of all of them.

    Detections take actions of their own recording alone, so a sample changes only how recordings
    weigh where detections are ranked. With every weight 1 it is what `evaluate` says.

    Args:
        truth: Of all recordings. detections: Of one model and seed.
        videos: All recordings, in the order of the weights.
        tious: Thresholds.
    """

    def __init__(
        self,
        truth: pd.DataFrame,
        detections: pd.DataFrame,
        videos: list[str],
        tious: tuple[float, ...],
    ):
        number = {v: i for i, v in enumerate(videos)}
        self.classes = []
        taken = [assignments(truth, detections, t)["taken"].to_numpy() >= 0 for t in tious]
        for label, own in truth.groupby("label"):
            mine = (detections["label"] == label).to_numpy()
            order = np.argsort(-detections["score"].to_numpy()[mine], kind="stable")
            where = detections["video"].map(number).to_numpy()[mine][order]
            hits = np.stack([t[mine][order] for t in taken])
            instances = np.bincount(own["video"].map(number), minlength=len(videos))
            self.classes.append((label, where, hits, instances))

    def ap(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """AP of each class at every threshold (K,), nan where no sampled recording has the class.

        Args:
            weights: How often each recording is in the sample (V,).
        """
        out = {}
        for label, where, hits, instances in self.classes:
            whole = instances @ weights
            if not whole:
                out[label] = np.full(len(hits), np.nan)
                continue
            own = weights[where].astype(float)
            right = np.cumsum(hits * own, 1)
            precision = right / np.maximum(np.cumsum(own), 1e-12)
            best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
            out[label] = (best * hits * own).sum(1) / whole
        return out

    def map(self, weights: np.ndarray) -> np.ndarray:
        """Mean over classes at every threshold (K,)."""
        return np.nanmean(list(self.ap(weights).values()), axis=0)


@dataclass(frozen=True)
class Score:
    """mAP of a model, percent.

    Attributes:
        mean: Over thresholds and seeds. low, high: Interval over recordings and seeds.
        by_tiou: Over seeds, at every threshold.
        by_seed: Over thresholds, of every seed.
    """

    mean: float
    low: float
    high: float
    by_tiou: tuple[float, ...]
    by_seed: tuple[float, ...]


def scored(truth: pd.DataFrame, detections: pd.DataFrame, videos: list[str], p: Protocol) -> Score:
    """mAP of one model with an interval: seeds and recordings resampled together.

    Args:
        truth: Of all recordings. videos: All of them.
        detections: Of every seed, with `seed`.
    """
    draw = np.random.default_rng(0)
    each = [
        Resampled(truth, own.reset_index(drop=True), videos, p.tious)
        for _, own in detections.groupby("seed")
    ]
    ones = np.ones(len(videos), int)
    own = np.array([one.map(ones) for one in each])
    samples = []
    for _ in range(p.resamples):
        weights = np.bincount(draw.integers(len(videos), size=len(videos)), minlength=len(videos))
        picks = draw.integers(len(each), size=len(each))
        count = np.bincount(picks, minlength=len(each))
        chosen = [(each[i].map(weights).mean(), n) for i, n in enumerate(count) if n]
        samples.append(np.average([m for m, _ in chosen], weights=[n for _, n in chosen]))
    tail = (1 - p.level) / 2
    low, high = 100 * np.quantile(samples, [tail, 1 - tail])
    tious, seeds = (tuple((100 * own.mean(axis)).tolist()) for axis in (0, 1))
    return Score(100 * float(own.mean()), float(low), float(high), tious, seeds)


def table_of(found: Found, p: Protocol) -> pd.DataFrame:
    """A row for each set and model.

    Args:
        found: Set to its recordings and all detections, with `model, seed`.

    Returns:
        `dataset, model, mAP, low, high, mAP@0.1, .., seeds, each seed, recordings`, percent.
    """
    rows = []
    for dataset, (recordings, detections) in found.items():
        videos = list(recordings.durations)
        for model, own in detections.groupby("model", sort=False):
            s = scored(recordings.truth, own, videos, p)
            row = {"dataset": dataset, "model": model, "mAP": s.mean, "low": s.low, "high": s.high}
            row |= {f"mAP@{t:g}": x for t, x in zip(p.tious, s.by_tiou, strict=True)}
            row |= {"seeds": len(s.by_seed), "each seed": " ".join(f"{x:.1f}" for x in s.by_seed)}
            rows.append(row | {"recordings": len(videos)})
    return pd.DataFrame(rows)


def errors_of(found: Found, p: Protocol) -> pd.DataFrame:
    """DETAD's view, means over seeds: what the best G detections of each class are, G its
    instances, and how much mAP rises without each kind of error.

    Returns:
        `dataset, model, kind, share, gain`: percent of the best G, points of mAP.
    """
    rows = []
    for dataset, (recordings, detections) in found.items():
        for model, own in detections.groupby("model", sort=False):
            shares, gains = [], []
            for _, part in own.groupby("seed"):
                judged = kinds(recordings.truth, part.reset_index(drop=True))
                shares.append(false_positives(judged).iloc[0])
                gains.append(impact(recordings.truth, judged, p.tious))
            share, gain = pd.concat(shares, axis=1).mean(axis=1), pd.concat(gains, axis=1)
            gain = gain.mean(axis=1)
            rows += [
                {
                    "dataset": dataset,
                    "model": model,
                    "kind": k,
                    "share": 100 * share[k],
                    "gain": 100 * gain[k] if k in gain else np.nan,
                }
                for k in share.index
            ]
    return pd.DataFrame(rows)


def within(
    truth: pd.DataFrame, detections: pd.DataFrame, videos: list[str], tious: tuple[float, ...]
) -> pd.Series:
    """mAP within each recording, percent, mean over thresholds and seeds."""
    each = []
    for _, own in detections.groupby("seed"):
        scored = Resampled(truth, own.reset_index(drop=True), videos, tious)
        each.append([scored.map(one).mean() for one in np.eye(len(videos), dtype=int)])
    return pd.Series(100 * np.mean(each, 0), pd.Index(videos, name="recording"))


def claims(found: Found, p: Protocol, models: dict[str, str]) -> pd.DataFrame:
    """Claims of ActionVLM, each recording a unit.

    Args:
        found: Every set with its detections of all models and seeds.
        models: How detections name `full` (Eq. 5), `vision` and `language` alone, `other`.
    """
    score: dict[str, list[pd.Series]] = {what: [] for what in models}
    for recordings, detections in found.values():
        if not (detections["model"] == models["full"]).any():
            continue
        for what, model in models.items():
            own = detections[detections["model"] == model]
            videos = list(recordings.durations)
            score[what].append(within(recordings.truth, own, videos, p.tious))
    if not score["full"]:
        return below([])
    mean, said = {what: pd.concat(x) for what, x in score.items()}, "mAP within a recording"
    eq5 = f"{said}, Eq. 5 over"
    return below(
        [
            of_claim("V1", "mAP", f"{eq5} {models['vision']} alone", mean["full"] - mean["vision"]),
            of_claim("V3", "mAP", f"{eq5} {models['other']}", mean["full"] - mean["other"]),
            of_claim(
                "V4",
                "mAP",
                f"{said}, vision over language alone",
                mean["vision"] - mean["language"],
            ),
        ]
    )
