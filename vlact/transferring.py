"""The motion-transfer benchmark: train on the clips of one set, test on both, and the other way round.

A model is anything that turns clips into logits: `KINDS` holds those of the paper that are here, and `TransferBenchmark`
takes one of your own.
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

from vlact.jobs import write_whole
from vlact.language.motions import SETS, fine_names
from vlact.models.zoo.i3d import I3D
from vlact.models.zoo.mvitv2 import MViTv2
from vlact.models.zoo.resnet50 import ResNet50
from vlact.models.zoo.slowfast import SlowFast
from vlact.models.zoo.x3d import X3D
from vlact.training import autocast, batches, fit

KINDS = {"ResNet50": ResNet50, "I3D": I3D, "X3D": X3D, "SlowFast": SlowFast, "MViTv2": MViTv2}
JITTER = 0.15  # of colours; clips are never mirrored: some fine classes differ by nothing else


def spread(clips: Tensor, frames: int) -> Tensor:
    """Evenly spaced frames of clips (B, T, H, W, 3).

    Raises:
        ValueError: More frames are wanted than there are.
    """
    have = clips.shape[1]
    if frames > have:
        raise ValueError(f"the model needs {frames} frames and the clips have {have}; read more frames a clip, or give the model fewer")
    return clips[:, ((torch.arange(frames) + 0.5) * have / frames).long()]


def recolour(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Mix the colours of each clip, one draw a clip: uint8 (B, T, H, W, 3) to the same."""
    mix = torch.eye(3) + JITTER * torch.randn(len(clips), 3, 3, generator=generator)
    shape = clips.shape
    flat = (clips.reshape(shape[0], -1, 3).float() - 128) @ mix + 128
    return flat.clamp_(0, 255).to(torch.uint8).view(shape)


def precision(model: nn.Module):
    """bf16 for models that say `bf16 = True`; on CPUs it makes depthwise convolutions slower, and those of a few channels undefined."""
    return autocast() if getattr(model, "bf16", False) else nullcontext()


@dataclass
class TransferBenchmark:
    """Clips of both sets.

    Attributes:
        frames: uint8 (N, T, H, W, 3), in memory or mapped.
        table: A row a clip, in the same order: `video, set, part, coarse_id, fine_id`, see `vlact.datasets.transfer.clips`.
        taxonomy: See `vlact.language.motions.taxonomy`.
    """

    frames: np.ndarray
    table: pd.DataFrame
    taxonomy: pd.DataFrame

    def __post_init__(self):
        if len(self.frames) != len(self.table):
            raise ValueError(f"expected as many clips as rows; got {len(self.frames)} and {len(self.table)}")

    def classes(self, task: str, trained_on: int) -> int:
        """How many there are to tell apart: coarse ones, or the fine ones of the set."""
        return self.taxonomy["coarse_id"].nunique() if task == "coarse" else len(fine_names(self.taxonomy, trained_on))

    def rows(self, which: int, part: str) -> np.ndarray:
        """Numbers of the clips of a set and part."""
        return np.flatnonzero((self.table["set"] == which) & (self.table["part"] == part))

    def clips(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.frames[rows]))

    @torch.no_grad()
    def predict(self, model: nn.Module, task: str, trained_on: int, batch_size: int = 64) -> pd.DataFrame:
        """What a trained model says of the validation clips: of both sets for coarse classes, of its own for fine ones.

        Args:
            model: uint8 clips (B, T, H, W, 3) to logits over `classes`; with an attribute `frames` it is given so many.
            task: "coarse" or "fine".
            trained_on: The set.

        Returns:
            `video, set, task, trained_on, label, predicted`.
        """
        model.eval()
        out = []
        for which in SETS if task == "coarse" else (trained_on,):
            rows = self.rows(which, "val")
            found = []
            for k in range(0, len(rows), batch_size):
                clips = self.clips(rows[k : k + batch_size])
                with precision(model):
                    found.append(model(spread(clips, getattr(model, "frames", clips.shape[1]))).float().argmax(1))
            part = self.table.iloc[rows]
            row = {"video": part["video"].to_numpy(), "set": which, "task": task, "trained_on": trained_on}
            out.append(pd.DataFrame(row | {"label": part[f"{task}_id"].to_numpy(), "predicted": torch.cat(found).numpy()}))
        return pd.concat(out, ignore_index=True)

    def train(
        self, make: Callable[[int], nn.Module], task: str, trained_on: int, recipe: dict, seed: int, label: str = "transfer",
        checkpoint: str | None = None,
    ) -> tuple[nn.Module, list[dict]]:  # fmt: skip
        """Train a model on the training clips of one set.

        Args:
            make: Number of classes to a model, see `predict`.
            task, trained_on: See `predict`.
            recipe: `epochs, batch_size, lr, weight_decay, smoothing`.
            seed: Initialisation, order, colours, dropout.
            label, checkpoint: See `vlact.training.fit`.

        Returns:
            The model in evaluation mode, and the curve.
        """
        torch.manual_seed(seed)
        model, generator = make(self.classes(task, trained_on)), torch.Generator().manual_seed(seed)
        rows = self.rows(trained_on, "train")
        target = torch.from_numpy(self.table[f"{task}_id"].to_numpy()[rows])
        steps = max(1, round(recipe["epochs"] * len(rows) / recipe["batch_size"]))
        order = list(batches(len(rows), recipe["batch_size"], steps, torch.Generator().manual_seed(seed)))

        def loss_of(step: int) -> Tensor:
            clips = self.clips(rows[order[step].numpy()])
            clips = recolour(spread(clips, getattr(model, "frames", clips.shape[1])), generator)
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))  # dropout comes from the global state
            with precision(model):
                logits = model(clips)
            return cross_entropy(logits.float(), target[order[step]], label_smoothing=recipe["smoothing"])

        curve = fit({"model": model}, loss_of, steps, recipe["lr"], recipe["weight_decay"], generator, label, checkpoint)
        return model.eval(), curve


def transfer_job(
    kind: str, options: dict, frames: str, table: str, taxonomy: pd.DataFrame, task: str, trained_on: int, recipe: dict, seed: int,
    out: str, checkpoint: str,
) -> list[dict]:  # fmt: skip
    """Train one of `KINDS` on one set and write its predictions (`out`).

    Args:
        kind: One of `KINDS`.
        options: Of its class.
        frames, table: Files of a `TransferBenchmark` (npy and parquet).
        taxonomy, task, trained_on, recipe, seed, checkpoint: See `TransferBenchmark.train`.

    Returns:
        The curve.
    """
    bench = TransferBenchmark(np.load(frames, mmap_mode="r"), pd.read_parquet(table), taxonomy)
    label = f"{kind}, {task}, set {trained_on}"
    model, curve = bench.train(lambda n: KINDS[kind](n, **options), task, trained_on, recipe, seed, label, checkpoint)
    found = bench.predict(model, task, trained_on).assign(model=kind, seed=seed)
    write_whole(Path(out), lambda d, p: d.to_parquet(p, index=False), found)
    return curve


transfer_job.tracked = True
