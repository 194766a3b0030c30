"""Motion transfer on real clips: known and unknown contexts, models, and their accuracies.

The protocol is `real.yaml` beside this file; nothing is chosen elsewhere. A clip is `steps` moments
of what a model sees, (S, D): frame features, joints, or one feature of a frozen encoder.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor, nn

from vlact.losses.disentanglement import (
    among_siblings,
    consistency,
    decorrelation,
    hsic,
    reverse,
)
from vlact.models.disentangled import stretched, swapped
from vlact.runtime.jobs import job_of, write_whole
from vlact.training.loop import batches, fit

PROTOCOL = Path(__file__).with_name("real.yaml")
TINY = 1e-12  # of a penalty, where training clips are all alike
ODD_EVEN = ("odd", "even")  # subjects, by their number
CONTEXTS = ("branches", "swap", "reversal", "independent")  # heads that learn from contexts, too


@dataclass(frozen=True)
class Model:
    """One row of the tables; see `real.yaml`.

    Attributes:
        name: Of the row.
        sees: Kinds of input that it takes; it is run on each that a set has.
        head: "ridge", "logistic", or a network: "convolution", "transformer"; convolutions trained
            as `vlact.models.disentangled` says: "tempo" and those of `CONTEXTS`.
        of: Parts of the description of a clip, for linear heads: "mean", "change", "course".
        removed: Whether a network sees clips less their own mean.
        standard: "train", or "context": each context by its own mean and spread, without labels.
    """

    name: str
    sees: tuple[str, ...]
    head: str
    of: tuple[str, ...] = ()
    removed: bool = False
    standard: str = "train"

    @property
    def linear(self) -> bool:
        return self.head in ("ridge", "logistic")


@dataclass(frozen=True)
class Setup:
    """Which clips are known and unknown context; see `real.yaml`."""

    name: str
    set: str
    by: str
    folds: int
    train: int = 0
    test: int = 0


@dataclass(frozen=True)
class Protocol:
    """`real.yaml`, see there."""

    seeds: tuple[int, ...]
    steps: int
    looked: dict[str, int]
    difference_images: tuple[str, ...]
    chance_factor: float
    penalties: tuple[float, ...]
    logistic: tuple[float, ...]
    components: int
    network: dict
    disentangled: dict
    level: float
    resamples: int
    setups: dict[str, Setup]
    models: dict[str, Model]
    why_not: dict[str, str]


@cache
def protocol() -> Protocol:
    """As committed."""
    found = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))
    setups = {k: Setup(k, **v) for k, v in found.pop("setups").items()}
    models = {
        k: Model(k, **{n: tuple(x) if isinstance(x, list) else x for n, x in v.items()})
        for k, v in found.pop("models").items()
    }
    tuples = {k: tuple(v) for k, v in found.items() if isinstance(v, list)}
    return Protocol(**found | tuples, setups=setups, models=models)


# Known and unknown
@dataclass(frozen=True)
class Split:
    """Rows of a set's table.

    Attributes:
        setup, trained_on: Names.
        fold: Its number; -1 where there is none.
        train, known, unknown: Rows; `known` may be empty.
    """

    setup: str
    trained_on: str
    fold: int
    train: np.ndarray
    known: np.ndarray
    unknown: np.ndarray


def splits(setup: Setup, table: pd.DataFrame) -> list[Split]:
    """Every direction and fold of a setup.

    Args:
        setup: See `real.yaml`.
        table: Of the set, index 0..N-1: `label`, and the columns that `by` asks for.

    Raises:
        ValueError: An empty part of a split: the set lacks what the setup needs.
    """
    way = {"set": _by_set, "view": _by_view, "people": _by_people}.get(setup.by, _by_condition)
    out = way(setup, table)
    for one in out:
        parts = {"train": one.train, "unknown": one.unknown}
        if setup.folds:
            parts["known"] = one.known
        if empty := [k for k, v in parts.items() if not len(v)]:
            raise ValueError(
                f"{setup.name}, trained on {one.trained_on}, fold {one.fold}: no clip in {empty}; "
                "expected the whole set"
            )
    return out


def _rows(*masks) -> np.ndarray:
    return np.flatnonzero(np.logical_and.reduce([np.asarray(m) for m in masks]))


def _by_set(setup: Setup, table: pd.DataFrame) -> list[Split]:
    fold = (table["sequence"] - table.groupby("set")["sequence"].transform("min")) // 2
    out = []
    for name in sorted(table["set"].unique()):
        mine = table["set"] == name
        for i in range(setup.folds):
            at = (mine & (fold != i), mine & (fold == i), ~mine)
            out.append(Split(setup.name, name, i, *(_rows(m) for m in at)))
    return out


def _by_view(setup: Setup, table: pd.DataFrame) -> list[Split]:
    fold = (table["subject"] - 1) * setup.folds // table["subject"].max()
    out = []
    views = sorted(table["view"].unique())
    for held in views:
        name = "views " + " and ".join(str(v) for v in views if v != held)
        mine, other = table["view"] != held, table["view"] == held
        if not setup.folds:
            none = np.zeros(0, np.int64)
            out.append(Split(setup.name, name, -1, _rows(mine), none, _rows(other)))
        for i in range(setup.folds):
            at = (mine & (fold != i), mine & (fold == i), other & (fold == i))
            out.append(Split(setup.name, name, i, *(_rows(m) for m in at)))
    return out


def _by_people(setup: Setup, table: pd.DataFrame) -> list[Split]:
    last = table.groupby(["label", "subject"])["repetition"].transform("max")
    held, out = table["repetition"] == last, []
    for i, name in enumerate(ODD_EVEN):
        mine = table["subject"] % 2 == 1 - i
        at = (mine & ~held, mine & held, ~mine)
        out.append(Split(setup.name, f"{name} subjects", 0, *(_rows(m) for m in at)))
    return out


def _by_condition(setup: Setup, table: pd.DataFrame) -> list[Split]:
    kinds = sorted(table[setup.by].unique())
    enough = None
    for i in range(setup.folds):
        part = table[f"split{i + 1}"]
        for side, least in (("train", setup.train), ("test", setup.test)):
            counts = (
                table[part == side].groupby(["label", setup.by]).size().unstack(fill_value=0)
            ).reindex(columns=kinds, fill_value=0)
            good = set(counts.index[(counts >= least).all(axis=1)])
            enough = good if enough is None else enough & good
    inside, out = table["label"].isin(enough or ()), []
    for name in kinds:
        mine = (table[setup.by] == name) & inside
        for i in range(setup.folds):
            part = table[f"split{i + 1}"]
            at = (mine & (part == "train"), mine & (part == "test"))
            unknown = _rows(inside & (table[setup.by] != name) & (part == "test"))
            out.append(Split(setup.name, str(name), i, *(_rows(m) for m in at), unknown))
    return out


# Clips
def describe(x: np.ndarray, of: tuple[str, ...]) -> list[np.ndarray]:
    """Parts of the description of clips (N, S, D), each (N, ..).

    "mean": over time. "change": mean of absolute differences, and spread over time. "course": the
    clip less its own mean, step after step.
    """
    mean = x.mean(1, keepdims=True)
    parts = {
        "mean": lambda: mean[:, 0],
        "change": lambda: np.concatenate([np.abs(np.diff(x, axis=1)).mean(1), x.std(1)], 1),
        "course": lambda: (x - mean).reshape(len(x), -1),
    }
    return [parts[p]() for p in of]


def standardised(
    parts: list[np.ndarray], split: Split, how: str = "train"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Descriptions of training, known and unknown clips, all parts of equal weight.

    Args:
        parts: Each (N, ..).
        split: Its rows.
        how: "train", or "context": unknown clips by their own mean and spread.
    """
    out = []
    for rows in (split.train, split.known, split.unknown):
        columns = []
        for x in parts:
            own = rows if how == "context" and rows is split.unknown else split.train
            mean, std = x[own].mean(0), x[own].std(0)
            scaled = (x[rows] - mean) / np.where(std > 0, std, 1)
            columns.append(scaled / np.sqrt(x.shape[1]))
        out.append(np.concatenate(columns, 1).astype(np.float64))
    return tuple(out)


# Heads
def ridge(
    train: np.ndarray, labels: np.ndarray, tests: list[np.ndarray], penalties: tuple[float, ...]
) -> list[np.ndarray]:
    """Least squares on one-hot labels with a penalty chosen by its leave-one-out error.

    Args:
        train: (N, D). labels: Numbers (N,), of 0..C-1.
        tests: Others (M, D).
        penalties: Times the mean of the kernel's diagonal.

    Returns:
        Scores (M, C) of each.
    """
    mean = train.mean(0)
    x = train - mean
    targets = np.eye(labels.max() + 1)[labels]
    base = targets.mean(0)
    kernel = x @ x.T
    values, vectors = np.linalg.eigh(kernel)
    seen = vectors.T @ (targets - base)
    best, chosen = np.inf, None
    for penalty in penalties:
        own = max(penalty * np.trace(kernel) / len(x), TINY)
        shrink = np.clip(values, 0, None) / (np.clip(values, 0, None) + own)
        fitted = vectors @ (shrink[:, None] * seen)
        # a clip's own share of its answer, with that of the mean
        share = (vectors**2 @ shrink) + 1 / len(x)
        left = (targets - base - fitted) / np.clip(1 - share, 1e-6, None)[:, None]
        if (error := (left**2).mean()) < best:
            best, chosen = error, own
    weights = vectors @ (seen / (np.clip(values, 0, None) + chosen)[:, None])
    return [(t - mean) @ x.T @ weights + base for t in tests]


def logistic(
    train: np.ndarray, labels: np.ndarray, tests: list[np.ndarray], grid: tuple[float, ...]
) -> list[np.ndarray]:
    """Logistic regression on unit-variance features, C chosen by three inner folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    scale = np.sqrt(train.shape[1])
    few = min(3, int(np.bincount(labels).min()))
    if few < 2:
        raise ValueError("logistic regression needs two training clips of every class or more")
    folds = StratifiedKFold(few, shuffle=True, random_state=0)
    search = GridSearchCV(LogisticRegression(max_iter=300), {"C": list(grid)}, cv=folds)
    search.fit(train * scale, labels)
    return [search.predict_proba(t * scale) if len(t) else np.zeros((0, 1)) for t in tests]


class Temporal(nn.Module):
    """A small network over the moments of a clip: (B, S, D) to an embedding (B, W).

    Args:
        features: D. steps: S.
        kind: "convolution" or "transformer".
        dim, layers, heads, dropout: Its shape.
    """

    def __init__(
        self,
        features: int,
        steps: int,
        kind: str,
        dim: int,
        layers: int,
        heads: int,
        dropout: float,
    ):
        super().__init__()
        self.kind, self.into, self.drop = kind, nn.Linear(features, dim), nn.Dropout(dropout)
        if kind == "transformer":
            self.at = nn.Parameter(0.02 * torch.randn(1, steps, dim))
            block = nn.TransformerEncoderLayer(
                dim, heads, 2 * dim, dropout, "gelu", batch_first=True, norm_first=True
            )
            self.body = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        else:
            # a convolution of three taps: as a product, three times faster on a CPU
            self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
            self.body = nn.ModuleList(nn.Linear(3 * dim, dim) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(self.drop(x))
        if self.kind == "transformer":
            return self.drop(self.body(x + self.at).mean(1))
        for norm, layer in zip(self.norms, self.body, strict=True):
            y = nn.functional.pad(nn.functional.gelu(norm(x)), (0, 0, 1, 1))
            x = x + self.drop(layer(torch.cat([y[:, :-2], y[:, 1:-1], y[:, 2:]], 2)))
        return self.drop(x.mean(1))


class Recognizer(nn.Module):
    """A trunk and a linear head for actions; for `CONTEXTS` what tells fine classes, too.

    Args:
        trunk: See `Temporal`.
        dim: Its width.
        classes: Actions.
        kind: Head of a `Model`.
        parent: Action of each fine class (F,), for `CONTEXTS`.
        weights: Of the terms, see `vlact.losses.disentanglement`.
    """

    def __init__(
        self,
        trunk: nn.Module,
        dim: int,
        classes: int,
        kind: str = "convolution",
        parent: Tensor | None = None,
        weights: dict | None = None,
    ):
        super().__init__()
        self.trunk, self.head = trunk, nn.Linear(dim, classes)
        self.kind, self.weights = kind, weights or {}
        self.branches = self.fine = None
        if kind in ("branches", "independent"):
            self.branches = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))
        if kind in CONTEXTS:
            self.fine = nn.Linear(dim, len(parent))
            self.register_buffer("parent", parent)

    def forward(self, x: Tensor) -> Tensor:
        z = self.trunk(x)
        return self.head(self.branches[0](z) if self.branches else z)

    def loss(self, x: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        """`labels` (B,) are fine for `CONTEXTS`, else actions."""
        mine, w = self.parent[labels] if self.kind in CONTEXTS else labels, self.weights
        if self.kind == "tempo":
            x = stretched(x, x.shape[1])
        if self.kind == "swap":
            x = swapped(x, labels, self.parent)
        z = self.trunk(x)
        z_c, z_f = (branch(z) for branch in self.branches) if self.branches else (z, z)
        coarse = self.head(z_c)
        loss = nn.functional.cross_entropy(coarse, mine, label_smoothing=smoothing)
        if self.kind == "branches":
            fine = self.fine(z_f)
            loss = loss + w["fine"] * nn.functional.cross_entropy(fine, labels)
            loss = loss + w["decorrelate"] * decorrelation(z_c, z_f)
            return loss + w["consistent"] * consistency(coarse, fine, self.parent)
        if self.kind == "reversal":
            return loss + w["adversary"] * self.told(reverse(z), labels)
        if self.kind == "independent":
            return loss + w["independent"] * (hsic(z_c, z_f) + self.told(z_f, labels))
        return loss

    def told(self, z: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of the context, told from an embedding, the action given."""
        fine = among_siblings(self.fine(z), self.parent, labels)
        return nn.functional.cross_entropy(fine, labels)


def components(x: np.ndarray, count: int) -> np.ndarray:
    """Directions of largest variance (D, count) of rows (N, D) whose mean is zero."""
    _, vectors = np.linalg.eigh(x.T.astype(np.float64) @ x.astype(np.float64))
    return vectors[:, ::-1][:, :count].astype(np.float32)


def prepared(x: np.ndarray, rows: np.ndarray, removed: bool, count: int) -> Tensor:
    """Clips (N, S, D) as networks see them: standardised by the training frames, at most `count`
    principal components of them.
    """
    x = x - x.mean(1, keepdims=True) if removed else x
    frames = x[rows].reshape(-1, x.shape[2])
    mean, std = frames.mean(0), frames.std(0)
    x = (x - mean) / np.where(std > 0, std, 1)
    if x.shape[2] > count:
        own = x[rows].reshape(-1, x.shape[2])
        x = x @ components(own, count)
        x = x / x[rows].reshape(-1, count).std(0).clip(1e-6)
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))


def network(
    x: Tensor, labels: np.ndarray, classes: int, fine: np.ndarray | None, kind: str, seed: int
) -> nn.Module:
    """Train a network on clips.

    Args:
        x: Training clips (N, S, D).
        labels: Actions (N,). fine: Fine classes (N,), for `CONTEXTS`.
        classes: Actions.
        kind: Head of a model.
        seed: Weights, batches, dropout.
    """
    p = protocol()
    given = dict(p.network)
    lr, decay, size = (given.pop(k) for k in ("lr", "weight_decay", "batch_size"))
    updates, smoothing = given.pop("updates"), given.pop("smoothing")
    torch.manual_seed(seed)
    body = "transformer" if kind == "transformer" else "convolution"
    trunk = Temporal(x.shape[2], x.shape[1], body, **given)
    parent = None
    if kind in CONTEXTS:
        parent = torch.zeros(int(fine.max()) + 1, dtype=torch.long)
        parent[torch.from_numpy(fine)] = torch.from_numpy(labels)
    model = Recognizer(trunk, given["dim"], classes, kind, parent, p.disentangled)
    target = torch.from_numpy(fine if kind in CONTEXTS else labels)
    generator = torch.Generator().manual_seed(seed)
    order = list(batches(len(x), min(size, len(x)), updates, generator))

    def loss_of(step: int) -> Tensor:
        return model.loss(x[order[step]], target[order[step]], smoothing)

    fit({"model": model}, loss_of, updates, lr, decay, generator, "network")
    return model.eval()


# Jobs
@dataclass(frozen=True)
class Job:
    """One split of a setup under all models that a set's inputs allow.

    Attributes:
        split: Rows.
        inputs: Kind of input to the file (npy) of its clips (N, S, D).
        table: Parquet of the set's table, with `video` and `label`.
        models: Names.
        fine: Column that makes fine classes of actions, for `CONTEXTS`; "" for none.
        runs: Seeds of networks; linear heads have run 0, or the fold's where `by_fold`.
        by_fold: Whether folds are repetitions (JHMDB's official splits) and not parts.
    """

    split: Split
    inputs: dict[str, str]
    table: str
    models: tuple[str, ...]
    fine: str = ""
    runs: tuple[int, ...] = (0,)
    by_fold: bool = False


FINE = {"view": "view", "people": "subject"}  # what makes fine classes, by a setup's `by`


def jobs_of(setup: Setup, table: pd.DataFrame, inputs: dict[str, str], path: str) -> list[Job]:
    """All splits of a setup.

    Args:
        setup: See `real.yaml`.
        table: Of the set. path: The same as parquet.
        inputs: Kind of input to its file.
    """
    p, out = protocol(), []
    fine = FINE.get(setup.by, "")
    for split in splits(setup, table):
        models = tuple(
            m.name
            for m in p.models.values()
            if set(m.sees) & set(inputs) and (m.head not in CONTEXTS or fine)
        )
        by_fold = bool(setup.train)
        runs = (p.seeds[split.fold],) if by_fold else p.seeds
        out.append(Job(split, inputs, path, models, fine, runs, by_fold))
    return out


def transfer_job(job: Job, out: str) -> int:
    """Train every model of a job, write its answers (`out`, parquet), unless an earlier run left
    them; how many there are.

    Columns: `setup, trained_on, fold, run, model, sees, clip, label, predicted, known`.
    """
    if Path(out).is_file():
        return len(pd.read_parquet(out))
    p, split = protocol(), job.split
    table = pd.read_parquet(job.table)
    names, numbers = np.unique(table["label"].to_numpy()[split.train], return_inverse=True)
    fine = None
    if job.fine:
        both = pd.Series(list(zip(table["label"], table[job.fine], strict=True)))
        fine = pd.factorize(both.iloc[split.train])[0]
    tests = (split.known, split.unknown)
    rows, kept = [], {}
    for name in job.models:
        model = p.models[name]
        for sees in [s for s in model.sees if s in job.inputs]:
            x = np.load(job.inputs[sees]).astype(np.float32)
            if model.linear:
                parts = standardised(describe(x, model.of), split, model.standard)
                head, grid = (
                    (ridge, p.penalties) if model.head == "ridge" else (logistic, p.logistic)
                )
                answers = {
                    split.fold if job.by_fold else 0: [
                        s.argmax(1) if len(s) else np.zeros(0, int)
                        for s in head(parts[0], numbers, list(parts[1:]), grid)
                    ]
                }
            else:
                key = (sees, model.removed)
                if key not in kept:
                    kept[key] = prepared(x, split.train, model.removed, p.components)
                clips, answers = kept[key], {}
                for run in job.runs:
                    net = network(clips[split.train], numbers, len(names), fine, model.head, run)
                    with torch.inference_mode():
                        answers[run] = [net(clips[t]).argmax(1).numpy() for t in tests]
            for run, found in answers.items():
                for known, at, answer in zip((True, False), tests, found, strict=True):
                    rows.append(
                        pd.DataFrame(
                            {
                                "setup": split.setup,
                                "trained_on": split.trained_on,
                                "fold": split.fold,
                                "run": run,
                                "model": name,
                                "sees": sees,
                                "clip": table["video"].to_numpy()[at],
                                "label": table["label"].to_numpy()[at],
                                "predicted": names[answer],
                                "known": known,
                            }
                        )
                    )
    found = pd.concat(rows, ignore_index=True)
    write_whole(Path(out), lambda d, f: d.to_parquet(f, index=False), found)
    return len(found)


TransferJob = job_of(transfer_job)
