"""Training over many processes: what `vlact.papers.transfer.benchmark` and ACE's fine-tuning do on
a laptop, at the scale of real data.

Clips are decoded while they are needed, batches are shared out over processes, and everything drawn
by chance follows from the seed, the step and the clip. So a run does not depend on how many
processes it has, up to the order of sums, nor on
where it was killed: it goes on from its last checkpoint on any number of them.

    accelerate launch --config_file vlact/tools/launch/ddp.yaml -m vlact.papers.scaling
    annotations.csv videos runs/i3d --kind I3D --steps 20000

`vlact.papers.actionvlm.scaling` puts localizers through the same loop.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from vlact import schema, video
from vlact.models import files
from vlact.papers.transfer.benchmark import recolour
from vlact.runtime.jobs import track, write_whole
from vlact.training import trackers
from vlact.training.loop import (
    CLIP,
    WARMUP,
    averaged,
    frozen,
    grouped,
    trained_state,
    warmup_cosine,
)
from vlact.video.clips import fit as square


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: Updates of the weights.
        batch_size: Clips of an update, over all processes and accumulated passes.
        accumulate: Passes of an update; each sees `batch_size / accumulate / processes` clips.
        lr: Highest rate, after `warmup` of the steps; half a cosine follows.
        momentum: Of SGD at a constant rate, as ACE is fine-tuned; 0 takes AdamW.
        weight_decay: On all parameters.
        smoothing: Of labels.
        ema: Highest decay of a running mean of the weights (`moving_average`), which is what is
            saved at the end; 0 keeps none.
        seed: Order, moments, colours, dropout.
        every: Steps between two checkpoints.
        compile: Whether `torch.compile` is used.
        recompute: Whether blocks keep no activations, see `thrifty`.
        warmup: Share of the steps in which the rate rises.
        least: Share of the rate that is left at the end.
        max_norm: Of the gradient.
        constant: Whether `ema` is the same from the first step on, as published, see `averaged`.
        slow_lr: Highest rate of what a task calls slow, see `train`; 0 for `lr`.
        tracker: Of accelerate, that loss and rate of every step go to, such as "tensorboard" (event
            files in the run's folder `log`) or "wandb"; "" for none.
    """

    steps: int
    batch_size: int = 40
    accumulate: int = 1
    lr: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.05
    smoothing: float = 0.1
    ema: float = 0.0
    seed: int = 0
    every: int = 500
    compile: bool = False
    recompute: bool = False
    warmup: float = WARMUP
    least: float = 0.0
    max_norm: float = CLIP
    constant: bool = False
    slow_lr: float = 0.0
    tracker: str = ""


class Moments(Dataset):
    """Clips of an annotation table, decoded when they are asked for, as (step, row).

    Args:
        folder: Where the videos lie.
        table: Annotation table, see `vlact.schema`.
        labels: Class number of every row.
        num_frames: T.
        size: Side of the square frames in pixels.
        window_s: Length of a clip; it is placed anywhere in the segment. None takes whole segments.
        seed: Of what is drawn.
    """

    def __init__(
        self,
        folder: Path,
        table: pd.DataFrame,
        labels: np.ndarray,
        num_frames: int,
        size: int,
        window_s: float | None,
        seed: int,
    ):
        self.folder, self.table, self.labels = Path(folder), table.reset_index(drop=True), labels
        self.num_frames, self.size, self.window_s, self.seed = num_frames, size, window_s, seed

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, at: tuple[int, int]) -> tuple[Tensor, int]:
        """uint8 (T, H, W, 3), coloured anew, and its class.

        Raises:
            VideoError: A file that cannot be read; names it.
        """
        step, row = at
        given, chance = (
            self.table.iloc[row],
            torch.Generator().manual_seed(hash((self.seed, step, row)) % 2**63),
        )
        start, end = given["start_s"], given["end_s"]
        if self.window_s is not None and end - start > self.window_s:
            start += float(torch.rand((), generator=chance)) * (end - start - self.window_s)
            end = start + self.window_s
        info = video.probe(self.folder / given["video"])
        frames = video.nearest_frames(
            info, video.clip_times(start, min(end, info.duration_s), self.num_frames)[0]
        )
        needed, place = np.unique(frames, return_inverse=True)
        clip = square(video.read(info.path, needed, info), self.size)[place]
        return recolour(torch.from_numpy(clip)[None], chance)[0], int(self.labels[row])


class Shares:
    """Batches of one process: its share of each pass of each update, as (step, row), from `start`
    on.
    """

    def __init__(self, n: int, recipe: Recipe, rank: int, processes: int, start: int):
        whole = recipe.accumulate * processes
        if recipe.batch_size % whole:
            raise ValueError(
                f"batch_size {recipe.batch_size} must be a multiple of accumulate x processes = "
                f"{recipe.accumulate} x {processes}; "
                f"the nearest is {max(1, round(recipe.batch_size / whole)) * whole}"
            )
        self.n, self.recipe, self.rank, self.processes, self.start = (
            n,
            recipe,
            rank,
            processes,
            start,
        )

    def __len__(self) -> int:
        return (self.recipe.steps - self.start) * self.recipe.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        chance, queue, size = (
            torch.Generator().manual_seed(self.recipe.seed),
            torch.empty(0, dtype=torch.long),
            self.recipe.batch_size,
        )
        for step in range(self.recipe.steps):
            while len(queue) < size:
                queue = torch.cat([queue, torch.randperm(self.n, generator=chance)])
            batch, queue = queue[:size].tolist(), queue[size:]
            if step >= self.start:
                for part in range(self.recipe.accumulate):
                    mine = batch[
                        part * self.processes + self.rank :: self.recipe.accumulate * self.processes
                    ]
                    yield [(step, row) for row in mine]


class Objective(nn.Module):
    """A model as one call from a batch to the loss, which is what processes share.

    Args:
        model: uint8 clips (B, T, H, W, 3) to logits, or with a method `loss(clips, labels,
            smoothing)`.
        smoothing: Of labels.
    """

    def __init__(self, model: nn.Module, smoothing: float):
        super().__init__()
        self.model, self.smoothing = model, smoothing

    def forward(self, clips: Tensor, labels: Tensor) -> Tensor:
        if hasattr(self.model, "loss"):
            return self.model.loss(clips, labels, self.smoothing)
        return cross_entropy(self.model(clips).float(), labels, label_smoothing=self.smoothing)


def thrifty(model: nn.Module) -> nn.Module:
    """The model, changed in place: blocks of a row (two or more of one class) keep their inputs
    only and are run again backwards.

    Same losses and gradients for about a third more time. Batch norms count a batch twice in their
    running means.
    """
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    rows = [
        m for m in model.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1
    ]
    for row in rows:
        if len({type(block) for block in row}) == 1 and next(row[0].children(), None) is not None:
            for name, block in row.named_children():
                setattr(row, name, checkpoint_wrapper(block))
    return model


def train(
    task: nn.Module,
    items: Dataset,
    recipe: Recipe,
    out: Path,
    accelerator=None,
    workers: int = 0,
    stop: int | None = None,
) -> pd.DataFrame:
    """Train, keeping `out`/state-<step> to go on from, and `out`/model.safetensors and curve.csv at
    the end.

    Args:
        task: A batch to its mean loss, with the `model` that is kept, such as `Objective`. Batch
            norms see the whole batch on GPUs; on CPUs each process has statistics of its own. Of
            frozen weights no state is kept. It may have `options`, name and weight to what AdamW
            does otherwise with it, see `vlact.training.loop.fit`, and `elsewhere`, whether a weight
            by name of the model stays out of the file at the end.
        items: Tuples of tensors by (step, row), such as `Moments`; batches of them are what `task`
            is called with.
        recipe: See `Recipe`.
        out: Folder of the run; a run that is there is gone on with.
        accelerator: From `accelerate launch`; made here if not given.
        workers: Processes that decode, for each process that trains.
        stop: End early, after so many steps, as if killed right after a checkpoint.

    Returns:
        `step, loss` (of the whole batch, over all processes), the same in every process.

    Raises:
        ValueError: A batch that cannot be shared out evenly, a run in `out` with another recipe, a
            running mean of weights that are shared out (FSDP, DeepSpeed), or a tracker that is not
            there.
        FloatingPointError: A loss that is no number.
    """
    from accelerate import Accelerator

    accelerator = accelerator or Accelerator()
    if recipe.ema and accelerator.distributed_type in ("FSDP", "DEEPSPEED"):
        raise ValueError(
            f"ema {recipe.ema:g} needs whole weights in every process; "
            f"{accelerator.distributed_type} shares them out, DDP does not"
        )
    accelerator.gradient_accumulation_steps = recipe.accumulate
    out.mkdir(parents=True, exist_ok=True)
    agree(out, recipe)
    if recipe.tracker:
        follow(accelerator, out, recipe)
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        task.model = nn.SyncBatchNorm.convert_sync_batchnorm(task.model)
    if recipe.recompute:
        thrifty(task.model)
    groups = grouped({"task": task}, getattr(task, "options", lambda name, weight: {}))
    kind = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    optimizer = (
        torch.optim.SGD(groups, momentum=recipe.momentum, **kind)
        if recipe.momentum
        else torch.optim.AdamW(groups, **kind)
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    wrapped, optimizer = accelerator.prepare(
        torch.compile(task) if recipe.compile else task, optimizer
    )
    # of what is trained: a copy of a frozen language model would be as large as it
    learnt = nn.ParameterList(p for p in task.model.parameters() if p.requires_grad)
    mean = averaged(learnt, recipe.ema, not recipe.constant) if recipe.ema else None
    accelerator.register_save_state_pre_hook(leave_out)
    start, curve = resume(accelerator, wrapped, out, mean)
    shares = Shares(len(items), recipe, accelerator.process_index, accelerator.num_processes, start)
    loader = DataLoader(
        items,
        batch_sampler=shares,
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        persistent_workers=workers > 0,
    )
    batches, end = iter(loader), min(recipe.steps, stop or recipe.steps)
    wrapped.train()
    for step in track(range(start, end), end, f"training, process {accelerator.process_index}"):
        rise = recipe.steps, recipe.warmup, recipe.least
        share = 1 if recipe.momentum else warmup_cosine(step, *rise)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share
        total = torch.zeros((), device=accelerator.device)
        for _ in range(recipe.accumulate):
            batch = [x.to(accelerator.device, non_blocking=True) for x in next(batches)]
            # what a method draws is the same in every process
            torch.manual_seed(hash((recipe.seed, step)) % 2**63)
            with accelerator.accumulate(wrapped):
                loss = wrapped(*batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(wrapped.parameters(), recipe.max_norm)
                optimizer.step()
                optimizer.zero_grad()
            total += loss.detach() / recipe.accumulate
        if mean is not None:
            mean.update_parameters(learnt)
        loss = accelerator.reduce(total, "mean").item()
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"step {step}: the loss is {loss}; lower lr ({recipe.lr:g}), or look at what is "
                "in this batch"
            )
        curve.append({"step": step + 1, "loss": loss})
        if recipe.tracker:
            accelerator.log({"loss": loss, "lr": recipe.lr * share}, step + 1)
        if (step + 1) % recipe.every == 0 or step + 1 == end:
            keep(accelerator, out, step + 1, curve, mean)
    found = pd.DataFrame(curve)
    if recipe.tracker:
        accelerator.end_training()
    if end == recipe.steps:
        elsewhere = getattr(task, "elsewhere", lambda name: False)
        finish(accelerator, wrapped, mean, task.model, out, found, elsewhere)
    return found


def follow(accelerator, out: Path, recipe: Recipe) -> None:
    """Begin to log a run where `Recipe.tracker` says.

    Raises:
        ValueError: accelerate knows no such tracker, or its package is not installed.
    """
    accelerator.log_with = trackers.available(recipe.tracker, out)
    accelerator.project_configuration.set_directories(str(out))
    accelerator.init_trackers("log", config=asdict(recipe))


def agree(out: Path, recipe: Recipe) -> None:
    """Note the recipe of a run, or find the same one there."""
    path, mine, usual = (
        out / "recipe.json",
        asdict(replace(recipe, tracker="")),  # who looks on changes nothing
        {f.name: f.default for f in fields(Recipe)},
    )
    other = usual | json.loads(path.read_text(encoding="utf-8")) if path.is_file() else mine
    if changed := {k: (other[k], mine[k]) for k in mine if other[k] != mine[k]}:
        raise ValueError(
            f"{path}: the run there has another recipe, {changed} (there, here); choose another "
            "folder or the same recipe"
        )
    if not path.is_file():
        write_whole(
            path,
            lambda text, f: f.write_text(text, encoding="utf-8"),
            json.dumps(mine, indent=1) + "\n",
        )


def leave_out(models: list[nn.Module], weights: list[dict[str, Tensor]], folder: str) -> None:
    """Before a state is written: without frozen weights, which are billions in a language model.
    Sharded weights (FSDP, DeepSpeed) are not among `weights`, and are written whole.
    """
    for model, state in zip(models, weights, strict=False):
        for name in frozen(model) & set(state):
            del state[name]


def keep(accelerator, out: Path, step: int, curve: list[dict], mean: nn.Module | None) -> None:
    """Write `state-<step>` under another name, rename it when whole, and drop the one before."""
    fresh, final = out / f"unfinished-{step}", out / f"state-{step:07d}"
    if accelerator.is_main_process:
        shutil.rmtree(fresh, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(fresh)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if mean is not None:
            torch.save(mean.state_dict(), fresh / "mean.pt")
        (fresh / "curve.json").write_text(json.dumps(curve), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        fresh.rename(final)
        for old in sorted(out.glob("state-*"))[:-1] + list(out.glob("unfinished-*")):
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def resume(
    accelerator, wrapped: nn.Module, out: Path, mean: nn.Module | None
) -> tuple[int, list[dict]]:
    """Load the last whole state, if there is one; returns its step and curve.

    Raises:
        ValueError: A state of another model; names the weights that it lacks.
    """
    states = sorted(out.glob("state-*"))
    if not states:
        return 0, []
    if (file := states[-1] / "model.safetensors").is_file():
        own = trained_state(wrapped)
        with safe_open(file, "pt") as there:
            # of a weight with two names one is written
            written = {own[k].data_ptr() for k in there.keys() if k in own}
        if lacking := sorted(k for k, x in own.items() if x.data_ptr() not in written):
            raise ValueError(f"{file}: a state of another model, it lacks {lacking[:5]}")
    accelerator.load_state(states[-1], strict=False)
    if mean is not None:
        mean.load_state_dict(
            torch.load(states[-1] / "mean.pt", weights_only=True, map_location=accelerator.device)
        )
    curve = json.loads((states[-1] / "curve.json").read_text(encoding="utf-8"))
    return curve[-1]["step"], curve


def finish(
    accelerator,
    wrapped: nn.Module,
    mean: nn.Module | None,
    model: nn.Module,
    out: Path,
    curve: pd.DataFrame,
    elsewhere: Callable[[str], bool],
) -> None:
    """Write the weights (their running mean, if there is one) and the curve."""
    weights = accelerator.get_state_dict(wrapped)  # gathers shards, so every process takes part
    if not accelerator.is_main_process:
        return
    own = {k.removeprefix("_orig_mod.").removeprefix("model."): v for k, v in weights.items()}
    if mean is not None:
        trained = (p for p in model.parameters() if p.requires_grad)
        means = {id(p): x for p, x in zip(trained, mean.module, strict=True)}
        named = model.state_dict(keep_vars=True).items()
        own |= {k: means[id(p)] for k, p in named if id(p) in means}
    own = {k: v.detach().cpu().contiguous().clone() for k, v in own.items() if not elsewhere(k)}
    write_whole(out / "model.safetensors", lambda d, f: save_file(d, f), own)
    write_whole(
        out / "curve.csv", lambda d, f: d.to_csv(f, index=False, lineterminator="\n"), curve
    )


def by_name(
    kind: str,
    table: pd.DataFrame,
    clip: str | None,
    options: dict,
    trees: str | None,
    device: torch.device,
) -> tuple[nn.Module, dict[str, int]]:
    """ACE or ProcVLR on the training rows of a table: the model, and the number of each label.

    Args:
        kind: "ACE" or "ProcVLR".
        table: See `vlact.schema`; a label is a verb and what it acts on.
        clip: File of the `DualEncoder` to start from.
        options: `tau` (0.02), `blocks` (last ones to train, 3), and the options of
            `vlact.models.zoo.ace.ACE` but for trees.
        trees: A tree file; None makes trees of nearest words, see `vlact.datasets.folder.task`.
        device: Where features of words go.

    Raises:
        ValueError: No encoder file, or a tree file that lacks a verb.
    """
    from vlact.datasets.folder import task
    from vlact.language.trees import ActionTexts, phrase
    from vlact.models.dual import DualEncoder
    from vlact.models.text import sentence_encoder
    from vlact.models.zoo.ace import ACE, LITERAL
    from vlact.models.zoo.procvlr import ProcVLR
    from vlact.papers.transfer.benchmark import ByName

    if clip is None:
        raise ValueError(
            f"--clip: {kind} starts from a pretrained encoder; name the file of one "
            "(vlact.models.checkpoints makes them)"
        )
    encode = sentence_encoder()
    chosen, options = task(table, encode, trees), {"tau": 0.02, "blocks": 3} | options
    plan, names = (
        ActionTexts(list(chosen.base), chosen.trees),
        [phrase(*action) for action in chosen.base],
    )
    words = dict(
        zip(texts := [*dict.fromkeys([*names, *plan.texts])], encode(texts).to(device), strict=True)
    )
    given = (DualEncoder.load(clip), words, names, options.pop("tau"), options.pop("blocks"))
    method = (
        ACE(*given, plan, **LITERAL | options, seed=0)
        if kind == "ACE"
        else ProcVLR(*given, **options)
    )
    return ByName(method, names), {
        label: i for i, label in enumerate(dict.fromkeys(table["label"]))
    }


def options_of(parser: argparse.ArgumentParser, **usual) -> None:
    """Every field of `Recipe` as an option, with its default or another one from `usual`; those
    without must be given.
    """
    for field in fields(Recipe):
        default = usual.get(field.name, None if field.default is MISSING else field.default)
        option = (
            {"action": "store_true", "default": bool(default)}
            if field.type is bool
            else {"type": field.type, "default": default, "required": default is None}
        )
        parser.add_argument(f"--{field.name.replace('_', '-')}", **option)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="vlact.papers.scaling", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "table", type=Path, help="annotation table (csv); rows of split 'train' are taken"
    )
    parser.add_argument("videos", type=Path, help="folder of its videos")
    parser.add_argument("out", type=Path, help="folder of the run")
    parser.add_argument(
        "--kind",
        default="I3D",
        help="model of vlact.papers.transfer.benchmark.build; ACE and ProcVLR leave "
        "encoder.safetensors too",
    )
    parser.add_argument("--options", type=json.loads, default={}, help="its options, as json")
    parser.add_argument(
        "--clip",
        help="FrameEncoder file, for models that start from CLIP; DualEncoder file for ACE and "
        "ProcVLR",
    )
    parser.add_argument("--trees", help="synonym trees (yaml) of ACE; nearest words if not given")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="pixels of a side")
    parser.add_argument(
        "--window-s", type=float, help="seconds of a clip; whole segments if not given"
    )
    parser.add_argument(
        "--workers", type=int, default=4, help="decoding processes for each training process"
    )
    parser.add_argument("--stop", type=int, help="end early, after so many steps")
    options_of(parser)
    given = parser.parse_args(arguments)
    from accelerate import Accelerator

    from vlact.models.text import sentence_encoder
    from vlact.models.zoo.actionclip import TEMPLATES
    from vlact.papers.transfer.benchmark import BY_NAME, TIMESFORMER, build

    try:
        recipe = Recipe(**{f.name: getattr(given, f.name) for f in fields(Recipe)})
        table = schema.read_annotations(given.table).query("split == 'train'")
        names = sorted(table["label"].unique())
        if not names:
            raise ValueError(f"{given.table}: expected rows of split 'train', found none")
        accelerator = Accelerator()
        torch.manual_seed(recipe.seed)  # the same start in every process
        if given.kind in TIMESFORMER:
            model, number = by_name(
                given.kind, table, given.clip, given.options, given.trees, accelerator.device
            )
        else:
            texts = (
                [t.format(n) for n in names for t in (*TEMPLATES, "{}")]
                if given.kind in (*BY_NAME, "CIR")
                else []
            )
            words = (
                dict(zip(texts, sentence_encoder()(texts).to(accelerator.device), strict=True))
                if texts
                else None
            )
            model, number = (
                build(given.kind, names, given.options, given.clip, words),
                {n: i for i, n in enumerate(names)},
            )
        labels = table["label"].map(number).to_numpy()
        clips = Moments(
            given.videos, table, labels, given.frames, given.size, given.window_s, recipe.seed
        )
        curve = train(
            Objective(model, recipe.smoothing),
            clips,
            recipe,
            given.out,
            accelerator,
            given.workers,
            given.stop,
        )
    except (ValueError, FloatingPointError, video.VideoError) as error:
        print(error, file=sys.stderr)
        return 1
    if accelerator.is_main_process:
        if given.kind in TIMESFORMER and (whole := given.out / "model.safetensors").is_file():
            files.fill(model, load_file(whole), whole).method.encoder.save(
                given.out / "encoder.safetensors"
            )
        print(f"{len(curve)} steps, loss {curve['loss'].iloc[-1]:.4f}; {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
