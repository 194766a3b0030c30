"""Localization on real video: folds, baselines, published frame-wise scores, intervals.

The protocol is `real.yaml` beside this file; nothing is chosen elsewhere. Localizers are trained by
`vlact.papers.actionvlm.localizing`, as on any other features.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from vlact.datasets.real import tcn
from vlact.datasets.real.utkinect import Sequences
from vlact.metrics import segmentation
from vlact.metrics.localization import evaluate, summary
from vlact.papers.actionvlm.accounting import Account, account
from vlact.papers.actionvlm.localizing import Clock, Problem, localize_job, sequences
from vlact.runtime.jobs import write_table

PROTOCOL = Path(__file__).with_name("real.yaml")
COLUMNS = ["video", "start_s", "end_s", "label", "score"]
VISIBLE_S = 0.125  # on either side of a step, frames of a depth sensor that it averages


@dataclass(frozen=True)
class Protocol:
    """`real.yaml`, see there."""

    rate_hz: float
    seeds: tuple[int, ...]
    tious: tuple[float, ...]
    level: float
    resamples: int
    localizers: tuple[str, ...]
    baselines: tuple[str, ...]
    most_left_out: float
    recipe: dict
    shape: dict
    sets: dict
    grouping: dict
    published: dict
    language: dict
    open: dict


@cache
def protocol() -> Protocol:
    """As committed."""
    found = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))
    return Protocol(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})


@dataclass(frozen=True)
class Fold:
    """Recordings to train and to test on."""

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


def folds(dataset: str, groups: dict[str, str]) -> list[Fold]:
    """Of a set of the protocol; every recording is tested once.

    Args:
        dataset: "fir", "gtea" or "utkinect".
        groups: Of every recording, as its reader gives them.

    Raises:
        ValueError: A recording that no fold tests, or a fold without recordings.
    """
    if dataset == "fir":
        wanted = [
            (f["name"], {f"{day} {f['room']}" for day in f["days"]})
            for f in protocol().sets["fir"]["folds"]
        ]
    elif dataset == "utkinect":
        people = sorted(set(groups.values()))
        halves = (("odd", people[::2]), ("even", people[1::2]))
        wanted = [(f"{name} subjects", set(own)) for name, own in halves]
    else:
        wanted = [(name, {name}) for name in sorted(set(groups.values()))]
    out = []
    for name, own in wanted:
        test = tuple(v for v, g in groups.items() if g in own)
        out.append(Fold(name, tuple(v for v in groups if v not in test), test))
    tested = [v for f in out for v in f.test]
    if sorted(tested) != sorted(groups) or any(not f.test or not f.train for f in out):
        raise ValueError(
            f"{dataset}: expected folds that test every recording once; got "
            f"{ {f.name: len(f.test) for f in out} } of {len(groups)}"
        )
    return out


def pose_features(found: Sequences, rate_hz: float) -> dict[str, Tensor]:
    """Joints at a constant rate: (T, 120) a sequence, positions and how they change.

    Positions are relative to the hips, those of the hips to their median over the sequence; metres,
    metres a second. A step is the mean of the frames `VISIBLE_S` around it, or the nearest frame.
    """
    out = {}
    offset = found.skeletons.offset
    for i, name in enumerate(found.skeletons.table["video"]):
        joints, seconds = found.skeletons[i], found.seconds[offset[i] : offset[i + 1]]
        hips = joints[:, :1]
        x = np.concatenate([hips - np.median(hips, 0), joints[:, 1:] - hips], 1)
        x = x.reshape(len(x), -1)
        count = max(1, round(found.recordings.durations[name] * rate_hz))
        at = np.arange(count) / rate_hz
        low = np.searchsorted(seconds, at - VISIBLE_S)
        high = np.searchsorted(seconds, at + VISIBLE_S, "right")
        near = np.abs(seconds[None] - at[:, None]).argmin(1)
        sums = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, 0)])
        mean = (sums[high] - sums[low]) / np.maximum(high - low, 1)[:, None]
        steps = np.where((high > low)[:, None], mean, x[near])
        change = np.gradient(steps, axis=0) * rate_hz if count > 1 else np.zeros_like(steps)
        out[name] = torch.from_numpy(np.concatenate([steps, change], 1).astype(np.float32))
    return out


# Localizers
@dataclass(frozen=True)
class Localize:
    """One localizer on one fold.

    Attributes:
        dataset, kind, fold, seed: What.
        features: safetensors, by recording.
        truth: Parquet, `video, start_s, end_s, label`.
        durations: "train" and "test" to the recordings' seconds.
        classes: Names.
        feature_dim: F.
        out: Where the detections go (`out`.parquet).
    """

    dataset: str
    kind: str
    fold: str
    seed: int
    features: str
    truth: str
    durations: dict[str, dict[str, float]]
    classes: tuple[str, ...]
    feature_dim: int
    out: str


def train_job(job: Localize) -> list[dict]:
    """Train it by the protocol's recipe; returns the curve."""
    p = protocol()
    own = p.sets[job.dataset]
    shape = p.shape | {"feature_dim": job.feature_dim, "classes": len(job.classes)}
    shape |= {"levels": own["levels"]}
    recipe = p.recipe | {"window": own["window"], "epochs": own["epochs"]}
    given = job.features, job.durations, job.truth, list(job.classes), {"step_s": 1 / p.rate_hz}
    problem = Problem(*given, shape, recipe)
    return localize_job(job.kind, problem, job.seed, job.out, f"{job.out}.pt", p.most_left_out)


def visible(
    dataset: str,
    features: dict[str, Tensor],
    truth: pd.DataFrame,
    durations: dict[str, float],
    window: int | None = None,
) -> Account:
    """How many of a set's actions windows can teach, of the protocol's length or another."""
    p = protocol()
    every = sequences(
        features, durations, truth, sorted(truth["label"].unique()), Clock(1 / p.rate_hz)
    )
    own = p.sets[dataset]
    return account(every, window or own["window"], own["levels"])


# Baselines
def class_prior(truth: pd.DataFrame, durations: dict[str, float]) -> pd.DataFrame:
    """What can be said without looking: each class's median length, over and over, half a length
    apart; scored by the class's share of the labels.

    Args:
        truth: Of the training recordings.
        durations: Of the test recordings.
    """
    lengths = (truth["end_s"] - truth["start_s"]).groupby(truth["label"])
    rows = []
    for label, own in lengths:
        length, share = float(own.median()), len(own) / len(truth)
        for video, last in durations.items():
            for start in np.arange(0, max(last - length, 0) + 1e-9, length / 2):
                rows.append((video, start, min(start + length, last), label, share))
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class Choice:
    """Of ridge + grouping: see `grouping` in `real.yaml`."""

    reach: int
    penalty: float
    smooth: int


def around(x: np.ndarray, reach: int) -> np.ndarray:
    """Features (T, F) of each step, the mean with `reach` steps on either side."""
    sums = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, 0)])
    at = np.arange(len(x))
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(x))
    return (sums[high] - sums[low]) / (high - low)[:, None]


def targets(part: pd.DataFrame, classes: list[str], steps: int, step_s: float) -> np.ndarray:
    """1 where a step lies in an interval of a class, else 0: (T, C)."""
    out = np.zeros((steps, len(classes)))
    at = np.arange(steps) * step_s
    for row in part.itertuples():
        out[(at >= row.start_s) & (at < row.end_s), classes.index(row.label)] = 1
    return out


class FrameRidge:
    """Least squares from steps to classes for every penalty, by one eigendecomposition.

    Args:
        x: Steps of the training recordings (N, F). y: Targets (N, C).
    """

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self.mean, self.std = x.mean(0), np.maximum(x.std(0), 1e-3)
        self.base = y.mean(0)
        x = (x - self.mean) / self.std
        self.values, self.vectors = np.linalg.eigh(x.T @ x)
        self.seen = self.vectors.T @ (x.T @ (y - self.base))

    def __call__(self, x: np.ndarray, penalty: float) -> np.ndarray:
        """Scores (T, C); the penalty is in multiples of the mean eigenvalue."""
        own = np.clip(self.values, 0, None)
        weights = self.vectors @ (self.seen / (own + penalty * own.mean())[:, None])
        return (x - self.mean) / self.std @ weights + self.base


def moving_average(x: np.ndarray, width: int) -> np.ndarray:
    """Mean over `width` steps (odd) round each, fewer at the ends: (T, C) to the same."""
    sums = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, 0)])
    at, half = np.arange(len(x)), width // 2
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(x))
    return (sums[high] - sums[low]) / (high - low)[:, None]


def grouped(
    scores: np.ndarray, video: str, classes: list[str], step_s: float, duration_s: float
) -> list[tuple]:
    """Segments of steps whose score is above each of several thresholds, which are shares of the
    class's range in the recording; scored by the mean inside.
    """
    rows = []
    for k, label in enumerate(classes):
        own = scores[:, k]
        low, high = own.min(), own.max()
        if high <= low:
            continue
        for threshold in protocol().grouping["thresholds"]:
            above = own >= low + threshold * (high - low)
            kind, spans = segmentation.segments(above.astype(int), background=0)
            for a, b in spans:
                end = min(b * step_s, duration_s)
                if end > a * step_s:
                    rows.append((video, a * step_s, end, label, float(own[a:b].mean())))
    return rows


@dataclass(frozen=True)
class Group:
    """Ridge + grouping on one fold; attributes as in `Localize`."""

    dataset: str
    fold: str
    features: str
    truth: str
    durations: dict[str, dict[str, float]]
    classes: tuple[str, ...]
    out: str


def group_job(job: Group) -> dict:
    """Choose on inner folds of the training recordings, train, detect, write `out`.parquet.

    Returns:
        What was chosen, and its inner mAP.
    """
    from vlact.models.nms import suppress

    p = protocol()
    every, truth = load_file(job.features), pd.read_parquet(job.truth)
    x = {v: every[v].double().numpy() for part in job.durations.values() for v in part}
    seconds = job.durations["train"] | job.durations["test"]
    step, classes = 1 / p.rate_hz, list(job.classes)
    y = {v: targets(truth[truth["video"] == v], classes, len(x[v]), step) for v in x}

    def detect(ridge: FrameRidge, video: str, choice: Choice) -> list[tuple]:
        scores = moving_average(
            ridge(around(x[video], choice.reach), choice.penalty), choice.smooth
        )
        return grouped(scores, video, classes, step, seconds[video])

    def trained(videos: list[str], reach: int) -> FrameRidge:
        steps = np.concatenate([around(x[v], reach) for v in videos])
        return FrameRidge(steps, np.concatenate([y[v] for v in videos]))

    def nms(rows: list[tuple]) -> pd.DataFrame:
        return suppress(pd.DataFrame(rows, columns=COLUMNS), **p.recipe["nms"])

    train = list(job.durations["train"])
    inner = [train[i::3] for i in range(min(3, len(train)))]
    grid, found = p.grouping, {}
    for reach in grid["reach"]:
        ridges = [trained([v for v in train if v not in held], reach) for held in inner]
        for penalty in grid["penalties"]:
            for smooth in grid["smooth"]:
                choice = Choice(reach, penalty, smooth)
                rows = [
                    row
                    for held, ridge in zip(inner, ridges, strict=True)
                    for v in held
                    for row in detect(ridge, v, choice)
                ]
                own = truth[truth["video"].isin(train)]
                found[choice] = summary(evaluate(own, nms(rows), tious=p.tious))["mAP"]
    best = max(found, key=found.get)
    ridge = trained(train, best.reach)
    detections = nms([row for v in job.durations["test"] for row in detect(ridge, v, best)])
    write_table(f"{job.out}.parquet", detections)
    return {"fold": job.fold, **vars(best), "inner_map": found[best]}


# Published frame-wise scores
def as_segments(one: tcn.Scores, names: tuple[str, ...], rate_hz: float) -> pd.DataFrame:
    """Runs of the answered class, scored by the mean of its score; class 0 is left out."""
    classes, spans = segmentation.segments(one.answer, background=0)
    rows = [
        (one.video, a / rate_hz, b / rate_hz, names[k], float(one.scores[a:b, k].mean()))
        for k, (a, b) in zip(classes, spans, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def truth_of(one: tcn.Scores, names: tuple[str, ...], rate_hz: float) -> pd.DataFrame:
    """Runs of the true class; class 0 is left out."""
    classes, spans = segmentation.segments(one.truth, background=0)
    rows = [
        (one.video, a / rate_hz, b / rate_hz, names[k])
        for k, (a, b) in zip(classes, spans, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS[:-1])


def published(folder: str | Path | None = None) -> pd.DataFrame:
    """Frame accuracy, edit and F1 of published systems, a row each; mAP of their segments.

    Means over the splits that are there. mAP is of all splits' videos together.

    Returns:
        `dataset, system, splits, videos, accuracy, edit, F1@10, .., mAP`, percent.

    Raises:
        vlact.datasets.real.SetMissing: The scores are not here.
    """
    from vlact.datasets.real import place

    p, rows = protocol(), []
    folder = Path(folder) if folder is not None else place(tcn.SET)
    for dataset, systems in tcn.SYSTEMS.items():
        for system in systems:
            by_split = [found for n in range(1, 6) if (found := _split(folder, dataset, system, n))]
            if not by_split:
                continue
            each = [
                segmentation.scores(
                    [one.truth for one in found],
                    [one.answer for one in found],
                    tuple(p.published["f1_tious"]),
                    background=0,
                )
                for found in by_split
            ]
            every = [one for found in by_split for one in found]
            names = tuple(map(str, range(every[0].scores.shape[1])))
            tables = [
                pd.concat([of(one, names, 1.0) for one in every], ignore_index=True)
                for of in (truth_of, as_segments)
            ]
            row = {"dataset": dataset, "system": system, "splits": len(each), "videos": len(every)}
            row |= {k: float(np.mean([e[k] for e in each])) for k in each[0]}
            row["mAP"] = 100 * summary(evaluate(*tables, tious=p.tious))["mAP"]
            rows.append(row)
    return pd.DataFrame(rows)


def _split(folder: Path, dataset: str, system: str, split: int) -> list[tcn.Scores]:
    try:
        return tcn.read(folder, dataset, system, split)
    except FileNotFoundError:
        return []


def published_detections(folder: str | Path | None = None) -> pd.DataFrame:
    """Published systems' segments in GTEA's seven recordings, on their clock, with `model`."""
    from vlact.datasets.real import place

    folder = Path(folder) if folder is not None else place(tcn.SET)
    given, out = protocol().published["gtea"], []
    for system, rate in given["rate_hz"].items():
        for one in _split(folder, "GTEA", system, given["split"]):
            out.append(as_segments(one, tcn.GTEA_VERBS, rate).assign(model=f"{system} (published)"))
    return pd.concat(out, ignore_index=True)
