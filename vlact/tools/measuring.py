"""Latency and memory of the papers' true shapes with random weights, on whatever is there:
`python -m vlact.tools.measuring out.csv [--device cpu]`.

Table 6 of ActionVLM (vision alone, with a language model that sees every frame or every n-th, and
the same language model that answers a question), and on a GPU steps of ACE and of the localizer,
and features. What is compared runs in turn, so that a machine that slows down slows all. Nothing is
downloaded. On CPUs one thread is used and its processor time counts. What was measured on a card is
in figures/gpu.csv.
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
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlact.models import actionformer
from vlact.models.actionformer import ActionFormer
from vlact.models.actionvlm import LanguageBranch, LanguageConfig, aggregate
from vlact.models.adatad import Adapter
from vlact.models.cost import QWEN25_1B5, QWEN25_3B, Decoder
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.imagenet import ImageEncoder
from vlact.models.localizer_presets import preset
from vlact.models.zoo.procvlr import ProcVLR
from vlact.papers.transfer.full_size import VIT_B16
from vlact.runtime.jobs import write_whole
from vlact.tools.provenance import processor

VISION = {"S": (384, 6, 12), "B": (768, 12, 12)}  # VideoMAEv2: channels, heads, blocks
DECODERS = {"Qwen2.5-1.5B": QWEN25_1B5, "Qwen2.5-3B": QWEN25_3B}
STRIDES = (1, 4, 8, 16)
ON_CPU = (1, 16)  # strides of which a CPU is asked, the dearest and the cheapest
LENGTHS = (2304, 4608, 9216, 16384)  # steps of the localizer
WARM = 2  # rounds before those that count
CLASSES = 20
KEYS = ("what", "way", "machine")


@dataclass(frozen=True)
class Window:
    """What is measured: 768 frames of 160 pixels, 900 tokens of instruction, 60 of answer, as the
    paper has it; a question is about 128 frames, which give a token each.
    """

    frames: int = 768
    pixels: int = 160
    text: int = 900
    answer: int = 60
    asked: int = 128
    head: int = 512  # channels of the localizer
    levels: int = 6


def in_turn(ways: dict[str, Callable], device: str, repeats: int, warm: int = WARM) -> list[dict]:
    """Several ways one after the other, round by round; `warm` rounds do not count.

    Returns:
        A row a way: `way`, the median, lowest and highest of its rounds in `ms` (of processor time
        on CPUs), the same of `ratio`, its time over that of the first way in the same round, and
        `GB`, the most memory held (0 on CPUs).
    """
    cuda, spent, held = device.startswith("cuda"), {k: [] for k in ways}, dict.fromkeys(ways, 0.0)
    clock = time.perf_counter if cuda else time.process_time
    for k in range(repeats + warm):
        for name, step in ways.items():
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            start = clock()
            step()
            if cuda:
                torch.cuda.synchronize()
                held[name] = max(held[name], torch.cuda.max_memory_allocated() / 1e9)
            if k >= warm:
                spent[name].append(1e3 * (clock() - start))
    first, rows = spent[next(iter(ways))], []
    for name, ms in spent.items():
        row = {"way": name, "rounds": repeats, "GB": held[name]}
        ratio = [a / b for a, b in zip(ms, first, strict=True)]
        for key, values in (("ms", ms), ("ratio", ratio)):
            row |= {key: statistics.median(values)}
            row |= {f"{key} lowest": min(values), f"{key} highest": max(values)}
        rows.append(row)
    return rows


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


class Models:
    """The models of Table 6: a tower with adapters, a localizer, and a language model that both
    ActionVLM and question answering use.

    Args:
        vision: Of `VISION`.
        decoder: The language model's shape; None for vision only.
        window: Their input.
        device: Where.
        rank: Of LoRA.
    """

    def __init__(
        self,
        vision: tuple[int, int, int],
        decoder: Decoder | None,
        window: Window,
        device: str,
        rank: int = 128,
    ):
        torch.manual_seed(0)
        self.window, self.kind = window, device.split(":")[0]
        published = preset("ActionFormer", "thumos14_i3d").config
        shape = replace(
            published, feature_dim=vision[0], dim=window.head, levels=window.levels, dropout=0.0
        )
        most = decoder.vocabulary if decoder else 2
        with torch.device(device):
            self.eye, self.head = AdaptedVideo(*vision, window.pixels), ActionFormer(shape)
            self.said = language(decoder, vision[0], 1, rank) if decoder else None
            self.clips = torch.randn(window.frames // 16, 16, 3, window.pixels, window.pixels)
            self.mask = torch.ones(1, window.frames, dtype=torch.bool)
            self.prompt = torch.randint(0, most, (1, window.text))
            self.target = torch.randint(0, most, (1, window.answer))
            self.weight = torch.full((1, window.frames), 0.245)
        parts = [self.eye, self.head] + ([self.said] if decoder else [])
        learnt = [p for part in parts for p in part.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learnt, 1e-4)

    def loss(self, lm_stride: int, train: bool) -> Tensor:
        """Of ActionVLM on a window; `lm_stride` 0 for vision only."""
        x = self.eye(self.clips)
        if not lm_stride:
            return sum(part.float().mean() for part in self.head(x.float(), self.mask)[:2])
        self.said.config = replace(self.said.config, lm_stride=lm_stride)
        valid = torch.ones_like(self.prompt, dtype=torch.bool)
        given = x.bfloat16(), self.mask, self.prompt, valid, self.target if train else None
        out = self.said(*given)
        both = [aggregate(x.float(), out[k].float(), self.weight) for k in ("cls", "loc")]
        loss = sum(part.float().mean() for part in self.head(both[0], self.mask, both[1])[:2])
        return loss + out["text_loss"].float() if train else loss

    def answer(self, train: bool) -> Tensor:
        """Question answering on fewer frames: teacher forcing, or an answer word by word."""
        lm, clips = self.said.causal_lm(), self.clips[: self.window.asked // 16]
        seen, embed = self.said.take_in(self.eye(clips).bfloat16()), lm.get_input_embeddings()
        x = torch.cat([seen, embed(self.prompt)], 1)
        if train:
            last = self.window.answer
            x = torch.cat([x, embed(self.target)], 1)
            logits = lm(inputs_embeds=x, use_cache=False, logits_to_keep=last + 1).logits[0, :-1]
            return nn.functional.cross_entropy(logits.float(), self.target[0])
        out = lm(inputs_embeds=x, use_cache=True, logits_to_keep=1)
        for _ in range(self.window.answer - 1):
            word, kept = out.logits[:, -1:].argmax(-1), out.past_key_values
            out = lm(input_ids=word, past_key_values=kept, use_cache=True)
        return out.logits.float().mean()

    def step(self, train: bool, lm_stride: int | None) -> Callable:
        """A step of training or an evaluation; `lm_stride` None is question answering."""

        def run() -> None:
            for part in (self.eye, self.head, self.said):
                if part is not None:
                    part.train(train)
            with torch.autocast(self.kind, torch.bfloat16), torch.inference_mode(not train):
                loss = self.answer(train) if lm_stride is None else self.loss(lm_stride, train)
            if train:
                loss.backward()
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)

        return run


def table6(
    vision: tuple[int, int, int],
    decoder: Decoder,
    strides: tuple[int, ...],
    window: Window,
    device: str,
    repeats: int,
    phases: tuple[str, ...] = ("eval", "train"),
    rank: int = 128,
) -> list[dict]:
    """Vision only, ActionVLM at some strides, and question answering; rows of `in_turn`."""
    models, rows = Models(vision, decoder, window, device, rank), []
    ways = {"vision only": 0} | {f"ActionVLM, lm_stride {s}": s for s in strides}
    for phase in phases:
        steps = {
            f"{phase}, {name}": models.step(phase == "train", stride)
            for name, stride in (ways | {"question answering": None}).items()
        }
        rows += in_turn(steps, device, repeats, WARM if device != "cpu" else 1)
    return rows


def localizer(steps: tuple[int, ...], device: str, repeats: int) -> list[dict]:
    """A training step of ActionFormer as published for THUMOS14, two windows, by their length: with
    attention in blocks and with a dense mask, in single precision and in bf16.
    """
    torch.manual_seed(0)
    config, kind = preset("ActionFormer", "thumos14_i3d").config, device.split(":")[0]
    model = ActionFormer(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    kernels = {"local": actionformer.local_attention, "dense": actionformer.dense_attention}

    def step(length: int, kernel: Callable, narrow: bool) -> Callable:
        with torch.device(device):
            x, mask = torch.randn(2, length, config.feature_dim), torch.ones(2, length).bool()

        def run() -> None:
            attend = patch.object(actionformer, "local_attention", kernel)
            with torch.autocast(kind, torch.bfloat16, narrow), attend:
                logits, reach, _ = model(x, mask)
            (logits.float().square().mean() + reach.float().mean()).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return run

    rows = []
    for t in steps:
        ways = {
            f"{t} steps, {name}{', bf16' * narrow}": step(t, kernel, narrow)
            for narrow in (False, True)
            for name, kernel in kernels.items()
        }
        rows += in_turn(ways, device, repeats)
    return rows


def towers(pixels: int, frames: int) -> dict[str, tuple[nn.Module, Tensor]]:
    """Encoders of frames and of clips of 8, with a batch."""
    torch.manual_seed(0)
    clips = torch.randint(0, 255, (frames // 8, 8, pixels, pixels, 3), dtype=torch.uint8)
    clip = DualEncoder(replace(VIT_B16, image_size=pixels, num_frames=8))
    return {
        "EfficientNet-Lite0": (ImageEncoder(), clips.flatten(0, 1)),
        "TimeSformer-B": (clip, clips),
    }


@torch.inference_mode()
def features(name: str, pixels: int, frames: int, device: str, repeats: int) -> list[dict]:
    """A batch of frames through one of `towers`, in single precision and in bf16; `difference` of
    the former from the CPU's answer, relative.
    """
    model, clips = towers(pixels, frames)[name]
    model.eval()
    here, given = model(clips[:2]), clips.to(device)
    there = model.to(device)(given[:2]).cpu()

    def look(narrow: bool) -> None:
        with torch.autocast(device.split(":")[0], torch.bfloat16, narrow):
            model(given)

    ways = {"single precision": partial(look, False), "bf16": partial(look, True)}
    rows = [r | {"frames/s": 1e3 * frames / r["ms"]} for r in in_turn(ways, device, repeats)]
    rows[0]["difference"] = float((there - here).norm() / here.norm())
    return rows


def ace(config: DualConfig, batch: int, blocks: int, device: str, repeats: int) -> list[dict]:
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
            method.zero_grad(set_to_none=True)

        return run

    ways = {"frozen blocks kept": step(lambda: kept)}
    ways["every block anew"] = step(lambda: method.frozen_features(clips))
    return in_turn(ways, device, repeats)


def everything(device: str, repeats: int) -> Iterator[tuple[str, Callable]]:
    """What is measured: its name, and what gives its rows."""
    if device == "cpu":
        given = VISION["S"], QWEN25_1B5, ON_CPU, Window(), device, repeats, ("eval",)
        yield "Table 6, VideoMAEv2-S, Qwen2.5-1.5B", partial(table6, *given)
        return
    for size, shape in VISION.items():
        for name, decoder in DECODERS.items():
            given = shape, decoder, STRIDES, Window(), device, repeats
            yield f"Table 6, VideoMAEv2-{size}, {name}", partial(table6, *given)
    yield "step of ActionFormer, 2 windows", partial(localizer, LENGTHS, device, repeats)
    given = replace(VIT_B16, num_frames=30), 16, 3, device, repeats
    yield "step of ACE, TimeSformer-B, 16 clips of 30 frames", partial(ace, *given)
    for name in ("EfficientNet-Lite0", "TimeSformer-B"):
        given = name, 224, 128, device, repeats
        yield f"features of {name} at 224 pixels", partial(features, *given)


def main(arguments: list[str]) -> int:
    """Measure what the file does not hold of this machine and these versions; rows are written as
    soon as they are there.
    """
    parser = argparse.ArgumentParser(
        prog="vlact.tools.measuring", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("out", type=Path, help="csv to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    given = parser.parse_args(arguments)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    machine = f"{processor()}, one thread, {versions}"
    if given.device != "cpu":
        machine = f"{torch.cuda.get_device_name()}, {versions}"
    torch.set_num_threads(1)
    table = pd.read_csv(given.out) if given.out.is_file() else pd.DataFrame(columns=KEYS)
    if not set(KEYS) <= set(table):
        print(
            f"{given.out}: expected a file of this module, got columns {list(table)[:5]}; name "
            "another",
            file=sys.stderr,
        )
        return 1
    there = set(zip(table["what"], table["machine"], strict=True))
    for what, measure in everything(given.device, given.repeats):
        if (what, machine) in there:
            continue
        try:
            rows = measure()
        except torch.cuda.OutOfMemoryError:
            rows = [{"note": "out of memory"}]
        torch.cuda.empty_cache()
        named = {"what": what, "machine": machine, "date": f"{date.today()}"}
        table = pd.concat([table, pd.DataFrame([named | row for row in rows])], ignore_index=True)
        print(table[table["what"] == what].to_string(index=False), flush=True)
        write_whole(given.out, lambda d, f: d.to_csv(f, index=False, lineterminator="\n"), table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
