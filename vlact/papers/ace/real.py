"""ACE on real clips: partitions of the classes, methods on a frozen encoder, and their trials.

Every class is novel in one partition of each shuffle. Methods see the same frozen frame features
and start from the same heads; what they train are the heads, as ACE trains its last layers.
Everything is chosen on base classes of the training part: a fifth of its source films validates.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from vlact.language.tasks import Task, classes_of
from vlact.language.trees import Action, ActionTexts, Trees, phrase
from vlact.metrics.selection import score_grid
from vlact.models.aligned import AlignedConfig, AlignedEncoder
from vlact.models.zoo import Kept, Recognizer, every
from vlact.models.zoo.ace import ACE, LITERAL, SLOW
from vlact.models.zoo.procvlr import ProcVLR
from vlact.models.zoo.text4vis import Temporal
from vlact.papers.ace.finetuning import clone, encode, finetune, take, wise_ft
from vlact.papers.ace.prediction import predict, rows
from vlact.papers.ace.zero_shot import both
from vlact.runtime.jobs import job_of, write_table

THIRDS = 3  # partitions of a shuffle
VALIDATION = 0.2  # of a class's training clips, whole source films
PARTITION_SEED = 2026
RIDGE = (1e2, 1e3, 1e4, 1e5)  # grid of the closed form
BLOCKS = 1  # of a transformer over time
SLOW_RATE = 0.1  # of Text4Vis's image side, as published

JHMDB: dict[str, Action] = {
    label: (label.split(" ")[0], " ".join(label.split(" ")[1:]))
    for label in (
        *("brush hair", "catch", "clap", "climb stairs", "golf", "jump", "kick ball", "pick"),
        *("pour", "pullup", "push", "run", "shoot ball", "shoot bow", "shoot gun", "sit"),
        *("stand", "swing baseball", "throw", "walk", "wave"),
    )
}
# Labels that do not begin with their verb stand whole.
UCF101: dict[str, Action] = {
    "apply eye makeup": ("apply", "eye makeup"),
    "apply lipstick": ("apply", "lipstick"),
} | {
    label: (label, "")
    for label in (
        *("archery", "baby crawling", "balance beam", "band marching", "baseball pitch"),
        *("basketball", "basketball dunk", "bench press", "biking", "billiards"),
        *("blow dry hair", "blowing candles", "body weight squats"),
    )
}
ACTIONS = {"jhmdb": JHMDB, "ucf101": UCF101}


# Classes
def partitions(actions: list[Action], shuffles: int) -> list[tuple[int, ...]]:
    """Novel classes of every partition: each shuffle cuts all classes into three, as even as
    classes that share a verb, which stay together, let them be.

    >>> partitions([("a", ""), ("b", "x"), ("b", "y"), ("c", ""), ("d", ""), ("e", "")], 1)
    [(1, 2), (3, 4), (0, 5)]
    """
    rng, out = np.random.default_rng(PARTITION_SEED), []
    verbs = list(dict.fromkeys(v for v, _ in actions))
    blocks = [[i for i, (v, _) in enumerate(actions) if v == verb] for verb in verbs]
    for _ in range(shuffles):
        thirds: list[list[int]] = [[] for _ in range(THIRDS)]
        order = [blocks[i] for i in rng.permutation(len(blocks))]
        # large blocks first: they would not fit later
        for block in sorted(order, key=len, reverse=True):
            smallest = min(thirds, key=len)
            smallest += block
        out += [tuple(sorted(third)) for third in thirds]
    return out


def task_of(name: str, trees: Trees, novel: tuple[int, ...]) -> Task:
    """The task of a partition; run r of the test names every class by the r-th child of its root.

    Raises:
        ValueError: A word of a novel verb's tree stands in a base verb's; names both.
    """
    actions = list(ACTIONS[name].values())
    new = tuple(actions[i] for i in novel)
    base = tuple(a for i, a in enumerate(actions) if i not in novel)
    guard(trees, {v for v, _ in base}, {v for v, _ in new})
    runs = tuple(zip(*(trees.children(v) for v, _ in new), strict=True))
    return Task(name, base, new, runs, trees, classes_of(base, new))


def names_of_all(actions: list[Action], trees: Trees, leaf: bool) -> list[list[list[str]]]:
    """For every run of the test the strings of each action: its verb's r-th child, alone or with
    that one's own children.
    """
    out = []
    for run in range(trees.m):
        words = [trees.children(verb)[run] for verb, _ in actions]
        kids = [
            trees.children(v, w) if leaf else [w] for (v, _), w in zip(actions, words, strict=True)
        ]
        out.append([[phrase(k, o) for k in ks] for ks, (_, o) in zip(kids, actions, strict=True)])
    return out


def guard(trees: Trees, base: set[str], novel: set[str]) -> None:
    """No name that the test uses, and none of its children, may have been seen in training.

    Raises:
        ValueError: One was; names it and the verbs.
    """
    for word, roots in trees.crossings().items():
        if base & set(roots) and novel & set(roots):
            raise ValueError(
                f"trees {trees.name!r}: {word!r} stands under {sorted(base & set(roots))}, which "
                f"is trained, and under {sorted(novel & set(roots))}, which is tested"
            )
    if base & novel:
        raise ValueError(f"trees {trees.name!r}: {sorted(base & novel)} are base and novel verbs")


def validation(table: pd.DataFrame, seed: int) -> np.ndarray:
    """Which rows of training clips validate: whole source films, a fifth of every class.

    Args:
        table: `label`, `group`.
        seed: Which films.
    """
    rng, out = np.random.default_rng(seed), np.zeros(len(table), bool)
    for _, part in table.groupby("label", sort=True):
        wanted, taken = VALIDATION * len(part), 0
        for group in rng.permutation(sorted(part["group"].unique())):
            own = part.index[part["group"] == group]
            if taken and taken + len(own) > wanted + 1:
                continue
            if taken >= wanted:
                break
            out[table.index.get_indexer(own)] = True
            taken += len(own)
    return out


# Methods
class FrameMean(ProcVLR):
    """As ViFi-CLIP: the mean of unit frame embeddings, both sides trained.

    Deviation: the text trunk is frozen, its head is trained.
    """

    def embed(self, kept: Kept) -> Tensor:
        frames = self.encoder.embed_video(self.encoder.frames(kept["tokens"]))
        return normalize(frames.mean(1), dim=-1)


class FrameTransformer(ProcVLR):
    """As Text4Vis: a transformer over frame embeddings against frozen text, the image head at a
    tenth of the rate.

    Deviation: one block in place of six.
    """

    def __init__(self, encoder: AlignedEncoder, *args, **more):
        super().__init__(encoder, *args, **more)
        self.temporal = Temporal(encoder.config.embed_dim, encoder.config.num_frames, BLOCKS)

    def trained(self):
        return every(self.temporal) + every(self.encoder.video_projection, SLOW_RATE)

    def embed(self, kept: Kept) -> Tensor:
        frames = self.encoder.embed_video(self.encoder.frames(kept["tokens"]))
        return normalize(normalize(self.temporal(frames).float(), dim=-1).mean(1), dim=-1)


class InWords(Recognizer):
    """Clips that stand in the space of words as they are: `kept["words"]` holds unit vectors."""

    def trained(self):
        return []

    def embed(self, kept: Kept) -> Tensor:
        return kept["words"]

    def embed_texts(self, texts: list[str]) -> Tensor:
        return normalize(torch.stack([self.words[t] for t in texts]), dim=-1)


class Both(InWords):
    """`InWords` and an aligned encoder, averaged, see `vlact.papers.ace.zero_shot.both`."""

    def __init__(self, aligned: ProcVLR, words, base, tau):
        super().__init__(words, base, tau)
        self.aligned = aligned

    def encode(self, kept: Kept) -> Kept:
        return {"words": kept["words"], "video": self.aligned.embed(kept)}

    def similarity(self, seen: Kept, names: list[list[str]]) -> Tensor:
        apart = [
            seen["words"] @ self.actions(names).T,
            seen["video"] @ self.aligned.actions(names).T,
        ]
        return torch.from_numpy(both(*(x.numpy() for x in apart)))


class Ridge(InWords):
    """Least squares from standardised clip features to the words of their labels, in closed form.

    Args:
        encoder: Standardises.
        features, labels: Training clips (N, T, dim) and base classes.
        penalty: On the weights.
    """

    def __init__(self, encoder: AlignedEncoder, features, labels, penalty: float, words, base, tau):
        super().__init__(words, base, tau)
        self.encoder = encoder
        x = encoder.last(features, 0).double()
        y = self.embed_texts(base).double()[labels]
        self.centre, self.offset = x.mean(0), y.mean(0)
        x, y = x - self.centre, y - self.offset
        kernel = x @ x.T + penalty * torch.eye(len(x), dtype=x.dtype)
        self.weight = x.T @ torch.linalg.solve(kernel, y)

    def embed(self, kept: Kept) -> Tensor:
        x = self.encoder.last(kept["tokens"], 0).double() - self.centre
        return normalize(x @ self.weight + self.offset, dim=-1).float()


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    Attributes:
        name: As in the tables.
        kind: "zero_shot", "conse", "both", "ridge", "procvlr", "vifi", "text4vis" or "ace".
        leaf: Inference variants, with and without the children of a name.
        wise_ft: Inference variants, with the tuned weights and with those halfway back.
        options: Further arguments of the method.
    """

    name: str
    kind: str
    leaf: tuple[bool, ...] = (False, True)
    wise_ft: tuple[bool, ...] = (False,)
    options: dict = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        return self.kind in ("procvlr", "vifi", "text4vis", "ace")

    @property
    def sees(self) -> str:
        """What of a clip it is given: a few frames, or the mean of all."""
        return "frames" if self.kind in ("vifi", "text4vis") else "mean"


BACK = (False, True)
WITHOUT = {
    "leaf augmentation": "leaf",
    "shadow negatives": "shadow",
    "L_rand": "rand",
    "L_fixed": "fixed",
}
METHODS = (
    Method("zero-shot, alignment", "zero_shot"),
    Method("zero-shot, ConSE", "conse"),
    Method("zero-shot, both", "both"),
    Method("ridge to words", "ridge"),
    Method("ProcVLR", "procvlr", wise_ft=BACK),
    Method("ProcVLR + text proj.", "procvlr", options={"train_text": 1.0}),
    Method("ViFi-like", "vifi", options={"train_text": 1.0}),
    Method("Text4Vis-like", "text4vis"),
    Method("ACE", "ace", (True,), BACK, LITERAL),
    Method("ACE slow", "ace", (True,), BACK, SLOW),
    *(
        Method(f"w/o {name}", "ace", (key != "leaf",), options=LITERAL | {key: False})
        for name, key in WITHOUT.items()
    ),
)
ALIGNED = ("zero_shot", "conse", "both")  # need an encoder that was aligned, and classes it knows


@dataclass(frozen=True)
class Trial:
    """All methods on one partition of one split with one seed.

    Attributes:
        dataset: "jhmdb" or "ucf101".
        partition: Number, see `partitions`.
        novel: Its novel classes.
        split: Number of the official split.
        seed: Validation films, order, draws, new layers.
    """

    dataset: str
    partition: int
    novel: tuple[int, ...]
    split: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.partition:02d}-{self.split}-{self.seed}"


@dataclass(frozen=True)
class Files:
    """What a trial reads.

    Attributes:
        table: Parquet: `label, group, split1, ..`, row i is clip i.
        kept: Safetensors: `frames` (N, T, dim), `mean` (N, 1, dim) and, where ImageNet's classes
            are known of a clip, `words` (N, 384), where ConSE puts it.
        words: Safetensors: frozen text features of every string.
        encoder: An aligned encoder to start from; "" for heads that start by chance.
    """

    table: str
    kept: str
    words: str
    encoder: str = ""


def start_of(files: Files, tokens: Tensor, seed: int) -> AlignedEncoder:
    """The heads that every method starts from.

    Args:
        files: Names the aligned encoder, if there is one.
        tokens: Of the training clips (N, T, dim).
        seed: Of heads that start by chance.
    """
    if files.encoder:
        found = AlignedEncoder.load(files.encoder)
        config = replace(found.config, num_frames=tokens.shape[1])
        encoder = AlignedEncoder(config)
        encoder.load_state_dict(found.state_dict())
        return encoder.eval()
    torch.manual_seed(seed)
    encoder = AlignedEncoder(AlignedConfig(tokens.shape[-1], num_frames=tokens.shape[1]))
    encoder.standardise(tokens.flatten(0, 1))
    # one spread for all: principal components must not weigh alike
    encoder.spread.fill_(tokens.std())
    # the space is that of words
    torch.nn.init.eye_(encoder.text_projection.weight)
    torch.nn.init.zeros_(encoder.text_projection.bias)
    return encoder.eval()


def build(
    method: Method, encoder: AlignedEncoder, task: Task, words: dict, tau: float, seed: int
) -> Recognizer:
    """A method, ready to train.

    Raises:
        ValueError: Unknown kind.
    """
    torch.manual_seed(seed)
    common = {"words": words, "base": [phrase(*a) for a in task.base], "tau": tau}
    match method.kind:
        case "procvlr" | "zero_shot":
            return ProcVLR(encoder, blocks=0, **common, **method.options)
        case "vifi":
            return FrameMean(encoder, blocks=0, **common, **method.options)
        case "text4vis":
            return FrameTransformer(encoder, blocks=0, **common)
        case "ace":
            plan = ActionTexts(list(task.base), task.trees)
            return ACE(encoder, blocks=0, plan=plan, seed=seed, **common, **method.options)
        case "conse":
            return InWords(**common)
        case "both":
            return Both(ProcVLR(encoder, blocks=0, **common), **common)
    raise ValueError(f"unknown kind of method {method.kind!r}")


def seen_by(method: Method, kept: Kept) -> Kept:
    """What a method is given of clips."""
    return {"tokens": kept[method.sees]} | {k: v for k, v in kept.items() if k == "words"}


def candidates(
    trial: Trial,
    files: Files,
    task: Task,
    words: dict,
    kept: Kept,
    train: tuple[Tensor, Tensor],
    ace: dict,
    grid: tuple[list[float], list[int]],
) -> Iterator[tuple[str, Method, Recognizer, float, int]]:
    """Every method at every cell of its grid: name, method, model, rate, epoch."""

    for method in METHODS:
        if method.kind in ALIGNED and not files.encoder:
            continue
        own = seen_by(method, take(kept, train[0]))

        def fresh(method=method, own=own) -> Recognizer:
            start = start_of(files, own["tokens"], trial.seed)
            return build(method, start, task, words, ace["tau"], trial.seed)

        if method.kind == "ridge":
            start = start_of(files, own["tokens"], trial.seed)
            for penalty in RIDGE:
                base = [phrase(*a) for a in task.base]
                args = start, own["tokens"], train[1], penalty, words, base, ace["tau"]
                yield method.name, method, Ridge(*args), penalty, 0
        elif not method.trained:
            yield method.name, method, fresh(), 0.0, 0
        for lr in grid[0] if method.trained else ():
            model, found = fresh(), []
            weights = [p.detach().clone() for p, _ in model.trained()]

            def note(epoch: int, model=model, weights=weights, method=method, found=found):
                for back in method.wise_ft if files.encoder else (False,):
                    # copies: training goes on
                    kept_now = wise_ft(model, weights) if back else clone(model)
                    found.append((kept_now, back, epoch))

            run = f"{method.name}-{trial.seed}-{lr:g}"
            finetune(model, [own], train[1], ace, lr, grid[1], trial.seed, note, run)
            for tuned, back, epoch in found:
                yield method.name + ", halfway" * back, method, tuned, lr, epoch


def trial_job(
    trial: Trial,
    files: Files,
    trees: Trees,
    ace: dict,
    lrs: list[float],
    epochs: list[int],
    out: str,
) -> None:
    """All methods of one trial at every cell of their grids: predictions (parquet), scores beside.

    A trial that an earlier run left is not run again.
    """
    path, note = Path(out), Path(out).with_suffix(".scores.parquet")
    if note.is_file():
        return
    task = task_of(trial.dataset, trees, trial.novel)
    table, kept = pd.read_parquet(files.table), load_file(files.kept)
    words = load_file(files.words)
    place = {f"{label}": task.classes[phrase(*a)] for label, a in ACTIONS[trial.dataset].items()}
    mode, number = (table["label"].map(lambda x, i=i: place[x][i]) for i in (0, 1))
    part, base = table[f"split{trial.split}"], mode == "base"
    held = np.zeros(len(table), bool)
    training = table.index[(part == "train") & base]
    held[training] = validation(table.loc[training], trial.seed)
    train = torch.tensor(np.flatnonzero((part == "train") & base & ~held))
    asked = {
        ("val", "base"): np.flatnonzero(held),
        ("test", "base"): np.flatnonzero((part == "test") & base),
        ("test", "novel"): np.flatnonzero((part == "test") & ~base),
    }
    labels, found = torch.tensor(number.to_numpy()), []
    given = train, labels[train]
    for name, method, model, lr, epoch in candidates(
        trial, files, task, words, kept, given, ace, (lrs, epochs)
    ):
        for (split, which), at in asked.items():
            seen = encode(model, seen_by(method, take(kept, torch.tensor(at))), len(at))
            for leaf in method.leaf:
                predicted = predict(model, task, seen, 1, which, leaf)
                constant = {"model": name, "leaf": leaf, "lr": lr, "epoch": epoch}
                constant |= {"split": split, "mode": which}
                found.append(rows(predicted, labels[at].numpy(), at, **constant))
    predictions = pd.concat(found, ignore_index=True)
    case = {"dataset": trial.dataset, "partition": trial.partition}
    case |= {"official": trial.split, "seed": trial.seed}
    scores = score_grid(predictions).assign(**case)
    write_table(path, predictions.assign(**case))
    write_table(note, scores)


TrialJob = job_of(trial_job)
