"""Latency and memory of the papers' true shapes with random weights, on whatever card is there:
`python -m vlact.tools.measuring out.csv`.

Table 6 of ActionVLM (vision alone, and with a language model that sees every frame or every n-th),
a step of ACE with and without what it keeps, and the renderer. Nothing is downloaded. Not yet
measured on a GPU: the file is committed when it is.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlact.models.actionformer import ActionFormer, LocalizerConfig
from vlact.models.actionvlm import LanguageBranch, LanguageConfig, aggregate
from vlact.models.adatad import Adapter
from vlact.models.cost import QWEN25_1B5, QWEN25_3B, Decoder
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.zoo.procvlr import ProcVLR
from vlact.papers.transfer.full_size import VIT_B16
from vlact.runtime.jobs import write_whole

VISION = {"S": (384, 6, 12), "B": (768, 12, 12)}  # VideoMAEv2: channels, heads, blocks
STRIDES = (1, 4, 8, 16)


@dataclass(frozen=True)
class Window:
    """What is measured: 768 frames of 160 pixels, 900 tokens of instruction, 60 of answer, as the
    paper has it.
    """

    frames: int = 768
    pixels: int = 160
    text: int = 900
    answer: int = 60
    head: int = 512  # channels of the localizer
    levels: int = 6


def clock(step: Callable, device: str, repeats: int) -> dict[str, float]:
    """Median milliseconds of a call after two that warm up, and the most memory held during it, GB
    (0 on CPUs).
    """
    cuda, spent = device.startswith("cuda"), []
    for k in range(repeats + 2):
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        if k >= 2:
            spent.append(1e3 * (time.perf_counter() - start))
    return {
        "ms": statistics.median(spent),
        "GB": torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0,
    }


class AdaptedVideo(nn.Module):
    """A frozen VideoMAE whose blocks are each followed by AdaTAD's adapter, as features of frames.

    Args:
        hidden, heads, layers: Of the tower.
        pixels: Of a side; clips have 16 frames, a token spans two.
    """

    def __init__(self, hidden: int, heads: int, layers: int, pixels: int):
        super().__init__()
        from transformers import VideoMAEConfig, VideoMAEModel

        shape = {
            "image_size": pixels,
            "num_frames": 16,
            "hidden_size": hidden,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
        }
        self.tower = VideoMAEModel(
            VideoMAEConfig(**shape, intermediate_size=4 * hidden)
        ).requires_grad_(False)
        self.adapters = nn.ModuleList(Adapter(hidden) for _ in range(layers))

    def block(self, k: int, x: Tensor) -> Tensor:
        x = self.tower.encoder.layer[k](x)
        x = x[0] if isinstance(x, tuple) else x
        # adapters mix over all clips
        return self.adapters[k](x.reshape(1, 8 * len(x), -1, x.shape[-1])).reshape(x.shape)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 16, 3, H, W) to features (1, 16 B, D)."""
        x = self.tower.embeddings(clips, None)
        for k in range(len(self.adapters)):
            x = (
                checkpoint(self.block, k, x, use_reentrant=False)
                if torch.is_grad_enabled()
                else self.block(k, x)
            )
        return x.unflatten(1, (8, -1)).mean(2).repeat_interleave(2, 1).flatten(0, 1)[None]


def language(decoder: Decoder, dim: int, lm_stride: int, rank: int) -> LanguageBranch:
    """ActionVLM's branch over a Qwen2 of a shape, random weights in bf16, with LoRA."""
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = Qwen2Config(
        vocab_size=decoder.vocabulary,
        hidden_size=decoder.hidden,
        intermediate_size=decoder.intermediate,
        num_hidden_layers=decoder.layers,
        num_attention_heads=decoder.heads,
        num_key_value_heads=decoder.kv_heads,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    )
    lm = Qwen2ForCausalLM._from_config(shape, attn_implementation="sdpa", dtype=torch.bfloat16)
    lm.gradient_checkpointing_enable()
    lm = get_peft_model(lm, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))
    return LanguageBranch(lm, LanguageConfig(dim, lm_stride=lm_stride)).bfloat16()


def action_vlm(
    vision: tuple[int, int, int],
    decoder: Decoder | None,
    lm_stride: int,
    window: Window,
    device: str,
    repeats: int,
    rank: int = 128,
):
    """Training and evaluation of one window: `train ms, train GB, eval ms, eval GB`."""
    torch.manual_seed(0)
    with torch.device(device):
        eye = AdaptedVideo(*vision, window.pixels)
        shape = LocalizerConfig(
            feature_dim=vision[0],
            classes=20,
            dim=window.head,
            heads=4,
            embeds=2,
            stems=2,
            levels=window.levels,
            window=19,
        )
        head, said = (
            ActionFormer(shape),
            language(decoder, vision[0], lm_stride, rank) if decoder else None,
        )
        clips = torch.randn(window.frames // 16, 16, 3, window.pixels, window.pixels)
        mask = torch.ones(1, window.frames, dtype=torch.bool)
        most = decoder.vocabulary if decoder else 2
        prompt, target = (
            torch.randint(0, most, (1, window.text)),
            torch.randint(0, most, (1, window.answer)),
        )
        weight = torch.full((1, window.frames), 0.245)
    learnt = [
        p
        for part in (eye, head, said)
        if part is not None
        for p in part.parameters()
        if p.requires_grad
    ]
    optimizer = torch.optim.AdamW(learnt, 1e-4)

    def found(answer: Tensor | None) -> Tensor:
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            x, extra = eye(clips), 0.0
            if said is None:
                return sum(part.float().mean() for part in head(x.float(), mask)[:2])
            out = said(
                x.bfloat16(), mask, prompt, torch.ones_like(prompt, dtype=torch.bool), answer
            )
            extra = out["text_loss"].float() if answer is not None else 0.0
            both = [aggregate(x.float(), out[k].float(), weight) for k in ("cls", "loc")]
            return sum(part.float().mean() for part in head(both[0], mask, both[1])[:2]) + extra

    def train() -> None:
        found(target if said is not None else None).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def evaluate() -> None:
        with torch.inference_mode():
            found(None)

    out = {}
    for name, step in (("train", train), ("eval", evaluate)):
        out |= {f"{name} {k}": v for k, v in clock(step, device, repeats).items()}
    return out


def ace(config: DualConfig, batch: int, blocks: int, device: str, repeats: int) -> dict[str, float]:
    """A step of ACE's video side: every clip through every block, and from what the frozen blocks
    left.
    """
    torch.manual_seed(0)
    with torch.device(device):
        method = ProcVLR(
            DualEncoder(config), {"a": torch.ones(config.text_dim)}, ["a"], 0.02, blocks
        )
        clips = torch.randint(
            0,
            255,
            (batch, config.num_frames, config.image_size, config.image_size, 3),
            dtype=torch.uint8,
        )
    method.requires_grad_(False)
    for parameter, _ in method.trained():
        parameter.requires_grad_()
    with torch.no_grad(), torch.autocast(device.split(":")[0], torch.bfloat16):
        kept = method.frozen_features(clips)

    def step(given: Callable) -> Callable:
        def run() -> None:
            with torch.autocast(device.split(":")[0], torch.bfloat16):
                loss = method.embed(given()).float().sum()
            loss.backward()

        return run

    naive, cached = (
        clock(step(lambda: method.frozen_features(clips)), device, repeats),
        clock(step(lambda: kept), device, repeats),
    )
    return {
        "naive ms": naive["ms"],
        "naive GB": naive["GB"],
        "cached ms": cached["ms"],
        "cached GB": cached["GB"],
    }


def rendered(device: str, size: int, frames: int, repeats: int) -> dict[str, float]:
    """Frames a second of the renderer."""
    import numpy as np

    from vlact.worlds.render import render
    from vlact.worlds.scene import Body, Camera, Part, Scene, Track

    parts = [
        Part(s, (0.4, 0.5, 0.3), (0.9, 0.3, 0.2), pattern="half", colour2=(0.1, 0.3, 0.8))
        for s in ("box", "sphere", "cylinder")
    ]
    bodies = [
        Body([part], Track.of(0.8 * k - 0.8, 1.0, 0), Track.of(20, 40 * k, 10))
        for k, part in enumerate(parts)
    ]
    scene = Scene(
        bodies, Camera(Track.of(0.3, 2.0, 3.2), Track.of(0, 1.0, 0), 45), light=(0.3, 1.0, 0.6)
    )
    found = clock(
        lambda: render([scene], [np.arange(frames) / frames], (size, size), device=device),
        device,
        repeats,
    )
    return {"frames/s": 1e3 * frames / found["ms"], "GB": found["GB"]}


def everything(device: str, repeats: int) -> Iterator[tuple[dict, Callable]]:
    """What is measured: its name and `lm_stride`, and what measures it."""
    names = {None: "vision only", QWEN25_1B5: "Qwen2.5-1.5B", QWEN25_3B: "Qwen2.5-3B"}
    for size, shape in VISION.items():
        for decoder, stride in [
            (None, None),
            *((d, s) for d in (QWEN25_1B5, QWEN25_3B) for s in STRIDES),
        ]:
            row = {"what": f"VideoMAEv2-{size}, {names[decoder]}", "lm_stride": stride}
            yield row, partial(action_vlm, shape, decoder, stride or 1, Window(), device, repeats)
    row = {"what": "ACE step, TimeSformer-B, 16 clips of 30 frames", "lm_stride": None}
    yield row, partial(ace, replace(VIT_B16, num_frames=30), 16, 3, device, repeats)
    yield (
        {"what": "renderer, 224 pixels", "lm_stride": None},
        partial(rendered, device, 224, 120, repeats),
    )


def main(arguments: list[str]) -> int:
    """Measure what the file does not hold of this card and these versions; every row is written as
    soon as it is there.
    """
    parser = argparse.ArgumentParser(
        prog="vlact.tools.measuring", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("out", type=Path, help="csv to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args(arguments)
    if given.device == "cpu":
        print(
            "no GPU here: these shapes are for one; --device cpu is not offered, the plan is in "
            "notebook 42",
            file=sys.stderr,
        )
        return 1
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    machine = f"{torch.cuda.get_device_name()}, {versions}"
    table = (
        pd.read_csv(given.out)
        if given.out.is_file()
        else pd.DataFrame(columns=["what", "lm_stride", "machine"])
    )
    if not {"what", "lm_stride", "machine"} <= set(table):
        print(
            f"{given.out}: expected a file of this module, got columns {list(table)[:5]}; name "
            "another",
            file=sys.stderr,
        )
        return 1
    there = set(zip(table["what"], table["lm_stride"].fillna(0), table["machine"], strict=True))
    for row, measure in everything(given.device, given.repeats):
        if (row["what"], row["lm_stride"] or 0, machine) in there:
            continue
        try:
            row |= measure()
        except torch.cuda.OutOfMemoryError:
            row["note"] = "out of memory"
        torch.cuda.empty_cache()
        print(row, flush=True)
        table = pd.concat(
            [table, pd.DataFrame([row | {"machine": machine, "date": f"{date.today()}"}])],
            ignore_index=True,
        )
        write_whole(given.out, lambda d, f: d.to_csv(f, index=False, lineterminator="\n"), table)
    print(table.to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
