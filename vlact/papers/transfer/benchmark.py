"""The motion-transfer benchmark: train on the clips of one set, test on both, and the other way
round.

A model is anything that turns clips into logits: `KINDS` holds those of the paper that are here,
and `TransferBenchmark` takes one of your own.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vlact import ROOT
from vlact.language.motions import SETS, coarse_names, fine_names
from vlact.language.trees import ActionTexts, Trees
from vlact.models import files
from vlact.models.convnet3d import spread, start_from_change
from vlact.models.disentangled import Disentangled
from vlact.models.dual import DualEncoder
from vlact.models.moving import MovingFrames
from vlact.models.zoo import Recognizer
from vlact.models.zoo.ace import ACE, LITERAL
from vlact.models.zoo.actionclip import ActionCLIP
from vlact.models.zoo.aim import AIM
from vlact.models.zoo.cir import CIR
from vlact.models.zoo.ezclip import EZCLIP
from vlact.models.zoo.froster import FROSTER
from vlact.models.zoo.i3d import I3D
from vlact.models.zoo.mvitv2 import MViTv2
from vlact.models.zoo.procvlr import ProcVLR
from vlact.models.zoo.resnet50 import ResNet50
from vlact.models.zoo.revmvit import RevMViT
from vlact.models.zoo.slowfast import SlowFast
from vlact.models.zoo.stdn import STDN
from vlact.models.zoo.uniformerv2 import UniFormerV2
from vlact.models.zoo.videodg import VideoDG
from vlact.models.zoo.vifi import ViFi
from vlact.models.zoo.x3d import X3D
from vlact.models.zoo.xclip import XCLIP
from vlact.runtime.device import beside, of, put
from vlact.runtime.jobs import job_of, write_whole
from vlact.training.loop import autocast, batches, fit

SCRATCH = {
    "ResNet50": ResNet50,
    "I3D": I3D,
    "X3D": X3D,
    "SlowFast": SlowFast,
    "MViTv2": MViTv2,
    "Rev-MViT": RevMViT,
}
OVER_CLIP = {"AIM": AIM, "UniformerV2": UniFormerV2}
BY_NAME = {
    "ActionCLIP": ActionCLIP,
    "X-CLIP": XCLIP,
    "ViFi-CLIP": ViFi,
    "EZ-CLIP": EZCLIP,
    "FROSTER": FROSTER,
}
TIMESFORMER = {"ProcVLR": ProcVLR, "ACE": ACE}
DOMAINS = {"VideoDG": VideoDG, "STDN": STDN, "CIR": CIR}
MOTION_TREES = Path(__file__).parents[2] / "language" / "motion_trees.yaml"
JITTER = 0.15  # of colours; clips are never mirrored: some fine classes differ by nothing else


def recolour(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Mix the colours of each clip, one draw a clip: uint8 (B, T, H, W, 3) to the same."""
    mix = torch.eye(3) + JITTER * torch.randn(len(clips), 3, 3, generator=generator)
    shape = clips.shape
    flat = (clips.reshape(shape[0], -1, 3).float() - 128) @ mix + 128
    return flat.clamp_(0, 255).to(torch.uint8).view(shape)


def precision(model: nn.Module):
    """bf16 for models that say `bf16 = True`; on CPUs it makes depthwise convolutions slower, and
    those of a few channels undefined.
    """
    return autocast(of(model).type) if getattr(model, "bf16", False) else nullcontext()


class Known(nn.Module):
    """Frozen features of known strings, where a method asks for a text tower."""

    def __init__(self, words: dict[str, Tensor]):
        super().__init__()
        self.words = words

    def forward(self, texts: list[str]) -> Tensor:
        return torch.stack([self.words[t] for t in texts])


class ByName(nn.Module):
    """A method that recognises by name, as a model of clips to logits.

    Attributes:
        names: The classes, which may change after training.
    """

    bf16 = True

    def __init__(self, method: Recognizer, names: list[str]):
        super().__init__()
        self.method, self.names = method, names
        for parameter, _ in method.trained():
            parameter.requires_grad_()
        if isinstance(method, ProcVLR):
            self.frames = method.encoder.config.num_frames
        else:
            self.frames = method.clip.config.num_frames
            method.clip.visual.conv1.requires_grad_(method.clip.motion)

    def train(self, mode: bool = True):
        super().train(mode)
        if isinstance(self.method, ProcVLR):
            self.method.encoder.trunk.embeddings.eval()  # frozen, so are the norms of its stem
        return self

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to logits (B, C) over `names`."""
        return self.method.logit_scale * self.method.scores(
            self.method.frozen_features(clips), [[n] for n in self.names]
        )

    def loss(self, clips: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """The method's own, which knows no smoothing."""
        # what it draws follows the training loop's chance, so that a killed run resumes
        if isinstance(self.method, ACE):
            self.method.rng = np.random.default_rng(int(torch.randint(2**31, ())))
        return self.method.loss(self.method.frozen_features(clips), labels)


def build(
    kind: str,
    names: list[str],
    options: dict,
    clip: str | None = None,
    words: dict[str, Tensor] | None = None,
) -> nn.Module:
    """A model of the benchmark.

    Args:
        kind: One of `SCRATCH`, `OVER_CLIP`, `BY_NAME`, `TIMESFORMER`, `DOMAINS`; `TIMESFORMER` on
            coarse motions of Syn-TA only.
        names: The classes.
        options: Of its class; and `bf16` for any, see `precision`; `change`, see
            `vlact.models.convnet3d.start_from_change`; `pretrained`, see `clip`; `weights`, a
            published file (a path from the repository's root), for ResNet50, I3D, X3D, SlowFast and
            MViTv2, and for UniformerV2 and X-CLIP, which it describes whole; `taught` for CIR, see
            `clip`.
        clip: File of a `FrameEncoder`, for those that start from CLIP; of a `DualEncoder` for
            `TIMESFORMER`; of a SlowFast that `transfer_job` trained, for CIR with `taught`; of what
            `pretrain_job` trained, for a model of `SCRATCH` or `DOMAINS` with `pretrained`.
        words: Frozen features of every string that they may meet.

    Raises:
        FileNotFoundError: No such file of weights.
        ValueError: No such kind, weights of a kind that has none, or of another model.
    """
    own = {k: v for k, v in options.items() if k not in ("bf16", "change", "pretrained")}
    model = _build(kind, names, own, clip, words)
    if options.get("pretrained"):
        start_from(model, clip)
    elif options.get("change") and not options.get("taught"):  # a teacher stays as it is
        start_from_change(model)
    if "bf16" in options:
        model.bf16 = options["bf16"]
    return model


def start_from(model: nn.Module, path: str) -> None:
    """Weights of a model like this one that knows other classes; what has a row a class stays.

    Raises:
        ValueError: Weights of another model.
    """
    learnt, own = files.read(path, "transfer")[1], model.state_dict()
    other = [k for k, x in own.items() if k not in learnt or learnt[k].shape[1:] != x.shape[1:]]
    if other or len(learnt) != len(own):
        raise ValueError(
            f"{path}: expected the weights of {type(model).__name__} in this shape; "
            f"{other[:2] or sorted(set(learnt) - set(own))[:2]} do not fit"
        )
    same = {k: x for k, x in learnt.items() if x.shape == own[k].shape}
    model.load_state_dict(own | same)


def _build(
    kind: str, names: list[str], options: dict, clip: str | None, words: dict[str, Tensor] | None
) -> nn.Module:
    start = {k: v for k, v in options.items() if k in ("motion", "frames")}
    over = {k: v for k, v in options.items() if k not in start}
    if "weights" in options:
        from vlact.models import checkpoints

        path, rest = ROOT / options["weights"], {k: v for k, v in options.items() if k != "weights"}
        readers = {"MViTv2": checkpoints.mvitv2} | dict.fromkeys(
            ("ResNet50", "I3D", "X3D", "SlowFast"), checkpoints.pytorchvideo
        )
        if kind in readers:
            return readers[kind](path, SCRATCH[kind](len(names), **rest)).train()
        if kind not in ("UniformerV2", "X-CLIP") or rest:
            known = f"{', '.join(readers)}, and for UniformerV2 and X-CLIP without other options"
            raise ValueError(f"{kind}: weights are read for {known}; got {options}")
        if kind == "UniformerV2":
            return checkpoints.uniformerv2(path, len(names)).train()
        return ByName(checkpoints.xclip(path, names, words or ()), names).train()
    if kind in SCRATCH:
        return SCRATCH[kind](len(names), **options)
    if kind in OVER_CLIP:
        return OVER_CLIP[kind](len(names), MovingFrames.start(clip, **start), **over)
    if kind == "CIR":
        own = {k: v for k, v in options.items() if k != "taught"}
        if options.get("taught"):
            own["taught"] = files.read(clip, "transfer")[1]
        return CIR(len(names), torch.stack([words[n] for n in names]), **own)
    if kind in DOMAINS:
        return DOMAINS[kind](len(names), **options)
    if kind in TIMESFORMER:
        encoder = DualEncoder.load(clip)
        given = (encoder, words, names, over.pop("tau"), encoder.config.depth)
        if kind == "ProcVLR":
            return ByName(ProcVLR(*given, **over), names)
        plan = ActionTexts([(n, "") for n in names], Trees.load(MOTION_TREES, tuple(names)))
        return ByName(ACE(*given, plan, **(LITERAL | over), seed=0), names)
    if kind not in BY_NAME:
        raise ValueError(
            f"no model {kind!r}; expected one of "
            f"{[*SCRATCH, *OVER_CLIP, *BY_NAME, *TIMESFORMER, *DOMAINS]}"
        )
    encoder = MovingFrames.start(clip, **start)
    if kind == "ViFi-CLIP":
        return ByName(
            ViFi(encoder, Known(words), words, names, blocks=encoder.config.depth, **over), names
        )
    return ByName(BY_NAME[kind](encoder, words, names, **over), names)


@dataclass
class TransferBenchmark:
    """Clips of both sets.

    Attributes:
        frames: uint8 (N, T, H, W, 3), in memory or mapped.
        table: A row a clip, in the same order: `video, set, part, coarse_id, fine_id`, see
            `vlact.datasets.transfer.clips`.
        taxonomy: See `vlact.language.motions.taxonomy`.
    """

    frames: np.ndarray
    table: pd.DataFrame
    taxonomy: pd.DataFrame

    def __post_init__(self):
        if len(self.frames) != len(self.table):
            raise ValueError(
                f"expected as many clips as rows; got {len(self.frames)} and {len(self.table)}"
            )

    @classmethod
    def read(cls, frames: str, table: str, taxonomy: pd.DataFrame) -> "TransferBenchmark":
        """From an npy file, which is mapped, and a parquet file."""
        return cls(np.load(frames, mmap_mode="r"), pd.read_parquet(table), taxonomy)

    def names(self, task: str, which: int) -> list[str]:
        """Classes to tell apart: coarse ones, or the fine ones of the set."""
        return coarse_names(self.taxonomy) if task == "coarse" else fine_names(self.taxonomy, which)

    def rows(self, which: int, part: str) -> np.ndarray:
        """Numbers of the clips of a set and part."""
        return np.flatnonzero((self.table["set"] == which) & (self.table["part"] == part))

    def clips(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.frames[rows]))

    @torch.no_grad()
    def answer(self, model: nn.Module, rows: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """The class (N,) that a model gives to each of some clips."""
        model.eval()
        found = []
        for k in range(0, len(rows), batch_size):
            clips = self.clips(rows[k : k + batch_size])
            with precision(model):
                seen = beside(model, spread(clips, getattr(model, "frames", clips.shape[1])))
                found.append(model(seen).float().argmax(1).cpu())
        return torch.cat(found).numpy()

    def predict(self, model: nn.Module, task: str, trained_on: int) -> pd.DataFrame:
        """What a trained model says of the validation clips of both sets; of fine classes in its
        own set only, unless it goes by name.

        Args:
            model: uint8 clips (B, T, H, W, 3) to logits over `names`; with an attribute `frames` it
                is given so many, with an attribute `names` it is asked for fine classes of the
                other set by their names.
            task: "coarse" or "fine".
            trained_on: The set.

        Returns:
            `video, set, task, trained_on, label, predicted`.
        """
        out, by_name = [], hasattr(model, "names")
        for which in SETS if task == "coarse" or by_name else (trained_on,):
            rows = self.rows(which, "val")
            if by_name:
                model.names = self.names(task, which)
            part = self.table.iloc[rows]
            row = {"video": part["video"].to_numpy(), "set": which, "task": task}
            row |= {"trained_on": trained_on, "label": part[f"{task}_id"].to_numpy()}
            out.append(pd.DataFrame(row | {"predicted": self.answer(model, rows)}))
        return pd.concat(out, ignore_index=True)

    @torch.no_grad()
    def rename(
        self, model: "ByName", trained_on: int, runs: list[list[str]], batch_size: int = 64
    ) -> pd.DataFrame:
        """The Synonym Robustness Test on coarse motions: validation clips of both sets, the classes
        by other names.

        Args:
            model: Trained.
            trained_on: The set.
            runs: The names of all classes, one list a run; the first are those it was trained with.

        Returns:
            `video, set, trained_on, label`, and `run0, run1, ..`, what was answered.
        """
        model.eval()
        rows = np.concatenate([self.rows(which, "val") for which in SETS])
        found = []
        for k in range(0, len(rows), batch_size):
            with precision(model):
                seen = beside(model, spread(self.clips(rows[k : k + batch_size]), model.frames))
                seen = model.method.encode(model.method.frozen_features(seen))
                said = (model.method.similarity(seen, [[n] for n in names]) for names in runs)
                found.append(torch.stack([x.float().argmax(1).cpu() for x in said]))
        part, answers = self.table.iloc[rows], torch.cat(found, 1).numpy()
        row = {"video": part["video"].to_numpy(), "set": part["set"].to_numpy()}
        row |= {"trained_on": trained_on, "label": part["coarse_id"].to_numpy()}
        return pd.DataFrame(row | {f"run{i}": a for i, a in enumerate(answers)})

    def train(
        self,
        make: Callable[[list[str]], nn.Module],
        task: str,
        trained_on: int,
        recipe: dict,
        seed: int,
        label: str = "transfer",
        checkpoint: str | None = None,
    ) -> tuple[nn.Module, list[dict]]:
        """Train a model on the training clips of one set.

        Args:
            make: Class names to a model, see `predict`; with a method `loss(clips, labels,
                smoothing)` it is trained by that, otherwise by cross entropy.
            task, trained_on: See `predict`.
            recipe: `epochs, batch_size, lr, weight_decay, smoothing`.
            seed: Initialisation, order, colours, dropout.
            label, checkpoint: See `vlact.training.loop.fit`.

        Returns:
            The model in evaluation mode, and the curve.
        """
        rows = self.rows(trained_on, "train")
        target = torch.from_numpy(self.table[f"{task}_id"].to_numpy()[rows])
        given = self.names(task, trained_on), self.frames, rows, target
        return learn(make, *given, recipe, seed, label, checkpoint)


def learn(
    make: Callable[[list[str]], nn.Module],
    names: list[str],
    frames: np.ndarray,
    rows: np.ndarray,
    target: Tensor,
    recipe: dict,
    seed: int,
    label: str = "transfer",
    checkpoint: str | None = None,
) -> tuple[nn.Module, list[dict]]:
    """Train a model of clips.

    Args:
        make, recipe, seed, label, checkpoint: See `TransferBenchmark.train`.
        names: The classes.
        frames: uint8 (N, T, H, W, 3), in memory or mapped.
        rows: Numbers of the clips to train on (R,).
        target: Their classes (R,).

    Returns:
        The model in evaluation mode, and the curve.
    """
    torch.manual_seed(seed)
    model = put(make(names))
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, round(recipe["epochs"] * len(rows) / recipe["batch_size"]))
    order = list(
        batches(len(rows), recipe["batch_size"], steps, torch.Generator().manual_seed(seed))
    )

    def loss_of(step: int) -> Tensor:
        clips = torch.from_numpy(np.ascontiguousarray(frames[rows[order[step].numpy()]]))
        clips = recolour(spread(clips, getattr(model, "frames", clips.shape[1])), generator)
        # dropout comes from the global state
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        clips, labels = beside(model, (clips, target[order[step]]))
        with precision(model):
            if hasattr(model, "loss"):
                return model.loss(clips, labels, recipe["smoothing"])
            return cross_entropy(model(clips).float(), labels, label_smoothing=recipe["smoothing"])

    how = recipe["lr"], recipe["weight_decay"], generator, label, checkpoint
    curve = fit({"model": model}, loss_of, steps, *how)
    return model.eval(), curve


def pretrain_job(
    kind: str,
    options: dict,
    frames: str,
    names: list[str],
    target: list[int],
    rows: list[int],
    recipe: dict,
    seed: int,
    out: str,
    checkpoint: str,
) -> list[dict]:
    """Train a model of `SCRATCH` or `DOMAINS` on clips of something else, as the papers' models
    come from Kinetics or ImageNet, and leave its weights in `out`.

    Args:
        kind, options: See `build`.
        frames: npy of uint8 (N, 1, T, H, W, 3).
        names, target: Of the classes, and the class of each of the N clips.
        rows: Clips to train on.
        recipe, seed, checkpoint: See `TransferBenchmark.train`.

    Returns:
        The curve; empty where an earlier run left the weights.
    """
    if Path(out).is_file():
        return []
    clips, own = np.load(frames, mmap_mode="r")[:, 0], options | {"pretrained": False}
    chosen = np.asarray(rows)
    given = names, clips, chosen, torch.tensor(target)[chosen], recipe, seed
    make = lambda names: build(kind, names, own)  # noqa: E731
    model, curve = learn(make, *given, f"{kind}, before", checkpoint)
    files.save(out, "transfer", {"kind": kind, "options": own}, model.state_dict())
    return curve


PretrainJob = job_of(pretrain_job, tracked=True)


def transfer_job(
    kind: str,
    options: dict,
    frames: str,
    table: str,
    taxonomy: pd.DataFrame,
    task: str,
    trained_on: int,
    recipe: dict,
    seed: int,
    clip: str,
    words: str,
    out: str,
    checkpoint: str,
    weights: str = "",
) -> list[dict]:
    """Train a model of the benchmark on one set and write its predictions (`out`).

    Args:
        kind, options, clip: See `build`.
        frames, table: Files of a `TransferBenchmark` (npy and parquet).
        taxonomy, task, trained_on, recipe, seed, checkpoint: See `TransferBenchmark.train`.
        words: safetensors of the features of every string.
        weights: Where to leave the trained weights, if anywhere.

    Returns:
        The curve.
    """
    from safetensors.torch import load_file

    bench = TransferBenchmark.read(frames, table, taxonomy)
    known = put(load_file(words)) if kind in BY_NAME or kind == "CIR" else None
    label = f"{kind}, {task}, set {trained_on}"
    model, curve = bench.train(
        lambda names: build(kind, names, options, clip, known),
        task,
        trained_on,
        recipe,
        seed,
        label,
        checkpoint,
    )
    found = bench.predict(model, task, trained_on).assign(model=kind, seed=seed)
    if weights:
        files.save(
            weights,
            "transfer",
            {"kind": kind, "task": task, "trained_on": trained_on, "options": options},
            model.state_dict(),
        )
    write_whole(Path(out), lambda d, p: d.to_parquet(p, index=False), found)
    return curve


TransferJob = job_of(transfer_job, tracked=True)


def rename_job(
    kind: str,
    options: dict,
    frames: str,
    table: str,
    taxonomy: pd.DataFrame,
    runs: list[list[str]],
    trained_on: int,
    recipe: dict | None,
    seed: int,
    start: str,
    words: str,
    weights: str,
    out: str,
    checkpoint: str,
) -> None:
    """`TransferBenchmark.rename` of a model from `weights`, or of one that is trained here.

    Args:
        kind, options, frames, table, taxonomy, trained_on, recipe, seed, words, out, checkpoint:
        See `transfer_job`.
        runs: See `TransferBenchmark.rename`.
        start: What the model starts from, `clip` of `build`.
        weights: What `transfer_job` left; "" trains by `recipe`.
    """
    from safetensors.torch import load_file

    bench, known = TransferBenchmark.read(frames, table, taxonomy), put(load_file(words))

    def make(names: list[str]) -> nn.Module:
        return build(kind, names, options, start, known)

    if weights:
        model = put(
            files.fill(
                make(bench.names("coarse", trained_on)), files.read(weights, "transfer")[1], weights
            )
        )
    else:
        model, _ = bench.train(
            make, "coarse", trained_on, recipe, seed, f"{kind}, set {trained_on}", checkpoint
        )
    found = bench.rename(model, trained_on, runs).assign(model=kind, seed=seed)
    write_whole(Path(out), lambda d, p: d.to_parquet(p, index=False), found)


RenameJob = job_of(rename_job, tracked=True)


def factors_job(
    kind: str,
    options: dict,
    frames: str,
    table: str,
    taxonomy: pd.DataFrame,
    recipe: dict,
    seed: int,
    clip: str,
    words: str,
    out: str,
    checkpoint: str,
) -> None:
    """Train a model where every factor is in its first half, and ask it where one is new.

    Args:
        table: As for `TransferBenchmark`, set 1 only; `part` says "train", or what is new. kind,
        options, frames, taxonomy, recipe, seed, clip, words, out, checkpoint: See `transfer_job`.
    """
    from safetensors.torch import load_file

    bench, known = TransferBenchmark.read(frames, table, taxonomy), put(load_file(words))
    model, _ = bench.train(
        lambda names: build(kind, names, options, clip, known),
        "coarse",
        1,
        recipe,
        seed,
        f"{kind}, factors",
        checkpoint,
    )
    rows = np.flatnonzero(bench.table["part"] != "train")
    part = bench.table.iloc[rows]
    found = part[["video", "part", "fine_id"]].assign(
        label=part["coarse_id"], predicted=bench.answer(model, rows), model=kind, seed=seed
    )
    write_whole(Path(out), lambda d, p: d.to_parquet(p, index=False), found)


FactorsJob = job_of(factors_job, tracked=True)


def disentangle_job(
    arm: str,
    trunk: dict,
    options: dict,
    frames: str,
    table: str,
    taxonomy: pd.DataFrame,
    trained_on: int,
    recipe: dict,
    seed: int,
    clip: str,
    words: str,
    out: str,
    checkpoint: str,
    weights: str = "",
) -> None:
    """Train one arm of the disentanglement on the fine labels of a set and write its coarse
    predictions.

    Args:
        arm: Its name.
        trunk: Options of EZ-CLIP.
        options: Of `vlact.models.disentangled.Disentangled`. frames, table, taxonomy, trained_on,
        recipe, seed, clip, words, out, checkpoint, weights: See `transfer_job`.
    """
    from safetensors.torch import load_file

    bench, known = TransferBenchmark.read(frames, table, taxonomy), put(load_file(words))
    coarse = coarse_names(taxonomy)
    mine = taxonomy[taxonomy["set"] == trained_on].sort_values("fine_id")
    parent = torch.tensor(mine["coarse_id"].tolist())

    def make(fine: list[str]) -> Disentangled:
        return Disentangled(
            build("EZ-CLIP", coarse, trunk, clip, known).method, fine, parent, **options
        )

    model, _ = bench.train(
        make, "fine", trained_on, recipe, seed, f"{arm}, set {trained_on}", checkpoint
    )
    if weights:
        files.save(
            weights,
            "disentangled",
            {"arm": arm, "trained_on": trained_on, "options": options},
            model.state_dict(),
        )
    found = bench.predict(model, "coarse", trained_on).assign(model=arm, seed=seed)
    write_whole(Path(out), lambda d, p: d.to_parquet(p, index=False), found)


DisentangleJob = job_of(disentangle_job, tracked=True)
