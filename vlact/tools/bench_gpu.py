"""A GPU against one core of the processor beside it, and local against dense attention on it:
`python -m vlact.tools.bench_gpu out.csv`.

Shapes are the papers', weights random. A row holds median, least and most milliseconds of a step,
memory, and, where the same step ran on both, by how much the answers differ (||a - b|| / ||b||).
`vlact.tools.measuring` has ActionVLM's Table 6.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor, nn

from vlact.models import actionformer
from vlact.models.actionformer import ActionFormer, LocalizerConfig
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.imagenet import ImageEncoder
from vlact.papers.transfer.full_size import VIT_B16
from vlact.runtime.jobs import write_whole

# ActionFormer on THUMOS14, as published
THUMOS = LocalizerConfig(
    2048, 20, dim=512, heads=4, embeds=2, stems=2, levels=6, window=19, official=True
)
LENGTHS = (2304, 4608, 9216, 16384)
LIBRARIES = ("torch", "transformers", "numpy")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WARM = {"cuda": 3, "cpu": 1}  # calls before the clock
CLIPS, FRAMES = {"cuda": 16, "cpu": 2}, 8  # in a batch of features; of a clip


def clock(step: Callable, device: str, repeats: int) -> dict[str, float]:
    """Milliseconds of a call, median, least and most; GB held at most (0 on a CPU)."""
    spent, cuda, warm = [], device == "cuda", WARM[device]
    for k in range(warm + repeats):
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        if k >= warm:
            spent.append(1e3 * (time.perf_counter() - start))
    return {
        "ms": statistics.median(spent),
        "least_ms": min(spent),
        "most_ms": max(spent),
        "GB": torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0,
    }


def trained(model: nn.Module, loss: Callable[[], Tensor], device: str, precision: str) -> Callable:
    """A training step: loss, gradient, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step() -> None:
        with _autocast(device, precision):
            found = loss()
        optimizer.zero_grad()
        found.backward()
        optimizer.step()

    return step


def _autocast(device: str, precision: str):
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


def localizer(steps: int, device: str, precision: str, dense: bool, repeats: int) -> dict:
    """ActionFormer's step on two windows of features."""
    torch.manual_seed(0)
    model = ActionFormer(THUMOS).to(device)
    features = torch.randn(2, steps, THUMOS.feature_dim).to(device)
    mask = torch.ones(2, steps, dtype=torch.bool, device=device)

    def loss() -> Tensor:
        logits, distances, _ = model(features, mask)
        return logits.float().square().mean() + distances.float().mean()

    attend = actionformer.dense_attention if dense else actionformer.local_attention
    with patch.object(actionformer, "local_attention", attend):
        return clock(trained(model, loss, device, precision), device, repeats)


def agreement(model: nn.Module, given: tuple[Tensor, ...]) -> float:
    """||GPU - CPU|| / ||CPU|| of a model's first answer in float32."""
    with torch.inference_mode():
        found = []
        for device in ("cpu", "cuda"):
            out = model.to(device).eval()(*(x.to(device) for x in given))
            found.append((out[0] if isinstance(out, tuple) else out).float().cpu())
    return float((found[1] - found[0]).norm() / found[0].norm())


def towers(clips: int) -> dict[str, tuple[nn.Module, tuple[Tensor]]]:
    """Encoders of frames and of clips, with a batch."""
    torch.manual_seed(0)
    given = torch.randint(0, 255, (clips, FRAMES, 224, 224, 3), dtype=torch.uint8)
    return {
        "EfficientNet-Lite0": (ImageEncoder(), (given.flatten(0, 1),)),
        "TimeSformer-B": (DualEncoder(replace(VIT_B16, num_frames=FRAMES)), (given,)),
    }


def features(device: str, precision: str, repeats: int) -> list[dict]:
    """Frames a second of encoders at 224 pixels."""
    rows = []
    for name, (model, given) in towers(CLIPS[device]).items():
        model, given = model.to(device).eval(), tuple(x.to(device) for x in given)

        def step(model=model, given=given) -> None:
            with torch.inference_mode(), _autocast(device, precision):
                model(*given)

        found = clock(step, device, repeats)
        found["frames_s"] = 1e3 * FRAMES * CLIPS[device] / found["ms"]
        rows.append({"what": f"features of {name}", **found})
    return rows


def small(device: str, repeats: int) -> dict:
    """A step of a model of `study`'s size: what starting kernels costs."""
    torch.manual_seed(0)
    config = DualConfig(64, 16, 4, 48, 2, 2, 64, 384, "mean")
    model = DualEncoder(config).to(device)
    clips = torch.randint(0, 255, (32, 4, 64, 64, 3), dtype=torch.uint8).to(device)
    step = trained(model, lambda: model(clips).square().mean(), device, "bfloat16")
    return clock(step, device, repeats)


def everything(repeats: int):
    """Rows of all that is measured, as they come."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    mask = torch.ones(1, LENGTHS[0], dtype=torch.bool)
    given = torch.randn(1, LENGTHS[0], THUMOS.feature_dim), mask
    yield {
        "what": "ActionFormer's logits, GPU against CPU",
        "difference": agreement(ActionFormer(THUMOS), given),
    }
    for name, (model, batch) in towers(2).items():
        yield {
            "what": f"features of {name}, GPU against CPU",
            "difference": agreement(model, batch),
        }
    for steps in LENGTHS:
        for precision in PRECISIONS:
            for dense in (False, True):
                row = {
                    "what": f"ActionFormer's step, 2 x {steps} x {THUMOS.feature_dim}",
                    "attention": "dense" if dense else "local",
                    "precision": precision,
                    "device": "cuda",
                }
                try:
                    yield row | localizer(steps, "cuda", precision, dense, repeats)
                except torch.cuda.OutOfMemoryError:
                    yield row | {"note": "out of memory"}
                torch.cuda.empty_cache()
    yield {
        "what": f"ActionFormer's step, 2 x {LENGTHS[0]} x {THUMOS.feature_dim}",
        "attention": "local",
        "precision": "float32",
        "device": "cpu",
        **localizer(LENGTHS[0], "cpu", "float32", False, 2),
    }
    for device, precision in (("cuda", "float32"), ("cuda", "bfloat16"), ("cpu", "float32")):
        for row in features(device, precision, repeats if device == "cuda" else 1):
            yield row | {"precision": precision, "device": device}
    for device in ("cuda", "cpu"):
        row = {"what": "a step of study's size, 32 clips", "precision": "bfloat16"}
        yield row | {"device": device} | small(device, 20)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="vlact.tools.bench_gpu", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("out", type=Path, help="csv to write")
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no GPU here: nothing to measure", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    machine = f"{torch.cuda.get_device_name()}; {platform.machine()}, one thread; {libraries}"
    rows = []
    for row in everything(given.repeats):
        print(row, flush=True)
        rows.append(row | {"machine": machine})
        table = pd.DataFrame(rows)
        write_whole(given.out, lambda d, f: d.to_csv(f, index=False, lineterminator="\n"), table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
