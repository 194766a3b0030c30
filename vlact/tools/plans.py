"""Memory and hours of the experiments at paper scale, before anyone spends them: counted on shapes
alone, without a GPU.

Memory of a training step is that of weights, gradients, optimizer and of what the forward pass
keeps for the backward one; the last is counted by running the full-size model on the meta device
and adding up every tensor that autograd saves. Hours are operations, counted in the same pass, over
the rated speed of a card times a utilisation. Both are plans: a framework's own buffers and
fragmentation come on top (`OVERHEAD`), and decoding may be what is waited for.
"""

from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vlact.models.cost import QWEN25_1B5, QWEN25_3B, Decoder, sequence_length, tokens_within
from vlact.models.dual import DualEncoder
from vlact.models.zoo.procvlr import ProcVLR
from vlact.papers.transfer.benchmark import BY_NAME, OVER_CLIP, SCRATCH
from vlact.papers.transfer.full_size import CLIP_SHAPE, SHAPES, VIT_B16, made

CARDS = {  # memory in GB, dense bf16 operations a second as rated
    "RTX 4090": (24, 165e12),
    "L40S": (48, 362e12),
    "A100": (80, 312e12),
    "H200": (140, 989e12),
}
UTILISATION = 0.35  # of the rated speed that training at these sizes reaches on one card
L40, READS = 181e12, 0.55  # its dense bf16 operations a second; share that a forward pass reaches
OVERHEAD = 2.0  # GB: context, workspace, fragments
GB = 1e9


@dataclass(frozen=True)
class Step:
    """What a training step of one clip (or window) costs.

    Attributes:
        fixed: Bytes of weights, gradients and optimizer.
        kept: Bytes that the forward pass keeps, for each clip.
        flops: Operations of forward and backward pass, for each clip.
    """

    fixed: float
    kept: float
    flops: float

    def memory(self, batch: int) -> float:
        """GB of a step."""
        return (self.fixed + batch * self.kept) / GB + OVERHEAD

    def batch_within(self, gigabytes: float) -> int:
        """The largest batch that fits; 0 where not even one clip does."""
        return (
            max(0, int((gigabytes - OVERHEAD - self.fixed / GB) * GB // self.kept))
            if self.kept
            else 0
        )

    def hours(self, clips: float, flops_per_s: float) -> float:
        """To see so many clips once each on one card."""
        return clips * self.flops / (flops_per_s * UTILISATION) / 3600


def weights(module: nn.Module) -> float:
    """Bytes: trained weights in fp32 with gradient and Adam's two moments (16 each), frozen ones in
    bf16 (2).
    """
    return sum(p.numel() * (16 if p.requires_grad else 2) for p in module.parameters())


def kept_bytes(module: nn.Module, run) -> tuple[float, Tensor]:
    """Bytes of the distinct tensors that autograd saves in `run()`, parameters apart, and what it
    returned.
    """
    own, seen = {p.untyped_storage()._cdata for p in module.parameters()}, {}

    def note(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage._cdata not in own:
            # held, so that no address is used twice
            seen[storage._cdata] = (storage.nbytes(), storage)
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        out = run()
    return float(sum(n for n, _ in seen.values())), out


def measured(module: nn.Module, run, clips: int = 1) -> Step:
    """A step from a module on the meta device and a call that gives its loss.

    Backward passes of grouped convolutions are counted as if they had no groups, so a step is held
    to three forward passes.
    """
    with FlopCounterMode(display=False) as forward:
        kept, loss = kept_bytes(module, run)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    first = forward.get_total_flops()
    return Step(
        weights(module), kept / clips, min(first + backward.get_total_flops(), 3 * first) / clips
    )


def transfer_step(kind: str) -> Step:
    """A model of the motion-transfer benchmark at full size, activations in bf16."""
    model, (frames, pixels) = made(kind), SHAPES.get(kind, CLIP_SHAPE)
    model = model.to(torch.bfloat16).train()
    with torch.device("meta"):
        clips = torch.empty(2, frames, pixels, pixels, 3, dtype=torch.uint8)
    with torch.device("meta"), torch.autocast("cpu", enabled=False):
        return measured(model, lambda: half(model, model, clips).float().sum(), 2)


def half(model: nn.Module, run, *given):
    """What a call gives while every layer of a bf16 model narrows what comes in: clips are made
    floats of inside.
    """

    def narrow(module, given):
        return tuple(
            t.to(torch.bfloat16) if isinstance(t, Tensor) and t.is_floating_point() else t
            for t in given
        )

    hooks = [m.register_forward_pre_hook(narrow) for m in model.modules() if not list(m.children())]
    try:
        return run(*given)
    finally:
        for hook in hooks:
            hook.remove()


def language_step(
    decoder: Decoder,
    frames: int,
    lm_stride: int = 1,
    rank: int = 128,
    text: int = 900,
    answer: int = 60,
) -> Step:
    """One window through ActionVLM's language model with LoRA, each layer computed again in the
    backward pass.

    Kept are the inputs of every layer, and, of the one at work, its own: queries to values, the
    MLP's two inner products and their product, the adapters' inner ones; attention without its
    matrix of scores; logits of the answer.
    """
    tokens, h = sequence_length(frames, lm_stride, text), decoder.hidden
    layers = tokens * h * 2 * decoder.layers
    inner = (
        tokens
        * 2
        * (4 * h + 2 * decoder.kv_heads * decoder.head_dim + 3 * decoder.intermediate + 7 * rank)
    )
    logits = answer * decoder.vocabulary * (2 + 4 + 4)
    frozen = 2 * (decoder.layers * decoder.layer_weights + decoder.vocabulary * h)
    # forward twice (checkpointing), and the backward pass for inputs only: frozen matrices have no
    # gradient
    return Step(
        frozen + 16 * decoder.lora_weights(rank),
        layers + inner + logits,
        3 * decoder.forward_flops(tokens, answer),
    )


def ace_step(frames: int = 30, trained_blocks: int = 3) -> Step:
    """A clip through ACE's TimeSformer-B at 224 pixels, the last blocks trained; text features are
    kept and cost next to nothing.
    """
    with torch.device("meta"):
        encoder = DualEncoder(replace(VIT_B16, num_frames=frames))
        method = ProcVLR(encoder, {"a": torch.empty(VIT_B16.text_dim)}, ["a"], 0.02, trained_blocks)
    method.requires_grad_(False)
    for parameter, _ in method.trained():
        parameter.requires_grad_()
    method = method.to(torch.bfloat16)
    clips = torch.empty(2, frames, 224, 224, 3, dtype=torch.uint8, device="meta")

    def run() -> Tensor:
        with torch.no_grad():
            kept = half(method, method.frozen_features, clips)
        return half(method, method.embed, kept).float().sum()

    return measured(method, run, 2)


def vision_step(
    hidden: int, heads: int, frames: int = 768, pixels: int = 160, adapters: float = 0.25
) -> Step:
    """A window through VideoMAEv2 in clips of 16 frames, frozen, with AdaTAD's adapters, each block
    computed again backwards.

    Kept are the inputs of every block and the activations of one block, for all clips of the
    window.
    """
    from transformers import VideoMAEConfig, VideoMAEModel

    config = VideoMAEConfig(
        image_size=pixels,
        num_frames=16,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
    )
    with torch.device("meta"):
        model = VideoMAEModel(config).requires_grad_(False).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 16, 3, pixels, pixels))
    clips, tokens, layers = frames // 16, 8 * (pixels // 16) ** 2, config.num_hidden_layers
    trained = layers * (2 * hidden * round(adapters * hidden) + round(adapters * hidden) ** 2)
    # a block: norms, queries to values, output, MLP four times as wide
    kept = clips * tokens * 2 * hidden * (layers + 16)
    return Step(weights(model) + 16 * trained, kept, 3 * counter.get_total_flops() * clips)


# Hours of video, and frames from one clip of features to the next as the localizers take them
SETS = {
    "THUMOS14": (20, 4),
    "EPIC-KITCHENS-100": (100, 16),
    "ActivityNet-1.3": (648, 16),
    "a million hours": (1_000_000, 16),
}
FPS, CLIP, FEATURE_BYTES = (
    30,
    16,
    2 * 768,
)  # frames a second, of a clip; a feature in half precision
DECODED = 800  # frames a second that a core decodes
CARDS_A_MACHINE, CORES_A_MACHINE, MACHINES = 8, 16, 16
# US dollars of an hour of a rented card or core; an assumption, as utilisation is
PRICES, CORE_PRICE = {"A100": 2.0, "H200": 4.0}, 0.04


def language_latency(published_ms: float) -> tuple[pd.DataFrame, int]:
    """Table 6 of ActionVLM by arithmetic: a pass of the language model over a window of 768 frames
    on the paper's card, by how many frames it sees; and the most tokens that 3B reads in the time
    that was published.

    Args:
        published_ms: What language adds to a window.
    """
    rows = []
    for name, lm in {"Qwen2.5-1.5B": QWEN25_1B5, "Qwen2.5-3B": QWEN25_3B}.items():
        for lm_stride in (1, 4, 8, 16):
            tokens = sequence_length(768, lm_stride)
            flops = lm.forward_flops(tokens)
            perfect = 1e3 * flops / L40
            row = {"language model": name, "lm_stride": lm_stride, "tokens": tokens}
            row |= {"TFLOP forward": flops / 1e12, "ms on a perfect L40": perfect}
            row[f"ms at {READS * 100:.0f} %"] = perfect / READS
            row["fits the published ms"] = "yes" if perfect / READS <= published_ms else "no"
            rows.append(row)
    return pd.DataFrame(rows), tokens_within(QWEN25_3B, published_ms / 1e3, L40, READS)


def experiments() -> dict[str, tuple[Step, int, float]]:
    """What the papers ran: a step, its batch, and how many clips (windows) are seen in all."""
    small, base = vision_step(384, 6), vision_step(768, 12)
    out = {
        "ACE, ATA: 12,000 clips, 15 epochs": (ace_step(30), 16, 12_000 * 15),
        "ACE, IKEA ASM: 16,000 clips, 12 epochs": (ace_step(25), 16, 16_000 * 12),
        "ACE, GTEA: 525 clips, 12 epochs": (ace_step(15), 16, 525 * 12),
    }
    for name, eye in (("S", small), ("B", base)):
        out[f"AdaTAD-{name}, THUMOS14: 200 windows, 120 epochs"] = (eye, 1, 200 * 120)
        for size, lm in (("1.5B", QWEN25_1B5), ("3B", QWEN25_3B)):
            said = language_step(lm, 768)
            # every second epoch has language
            both = Step(eye.fixed + said.fixed, eye.kept + said.kept, eye.flops + said.flops / 2)
            out[f"ActionVLM-{name}-{size}, THUMOS14: 200 windows, 120 epochs"] = (
                both,
                1,
                200 * 120,
            )
    for kind in (*SCRATCH, *OVER_CLIP, *BY_NAME):
        out[f"{kind}, Syn-TA: both sets, 6,000 clips, 30 epochs"] = (
            transfer_step(kind),
            40,
            6_000 * 30,
        )
    alone = vision_step(768, 12, frames=16, pixels=224)
    clips = SETS["ActivityNet-1.3"][0] * 3600 * FPS / CLIP
    out["VideoMAEv2-B features, ActivityNet-1.3: 648 h, every 16 frames"] = (
        Step(0.2 * GB, alone.kept / 12, alone.flops / 3),
        32,
        clips,
    )
    return out


def features_cost() -> pd.DataFrame:
    """What VideoMAEv2-B's features of whole data sets cost on paper: a row a set and card with
    `hours` of video, `core h` of decoding every frame, `card h`, `TB` of features, `USD`, `USD an
    hour of video`, and `days` on `MACHINES` machines that share the videos.
    """
    flops, rows = vision_step(768, 12, frames=CLIP, pixels=224).flops / 3, []
    for name, (hours, stride) in SETS.items():
        frames = hours * 3600 * FPS
        cores = frames / DECODED / 3600
        for card, price in PRICES.items():
            clips = frames / stride
            cards = clips * flops / (CARDS[card][1] * UTILISATION) / 3600
            dollars = cores * CORE_PRICE + cards * price
            wall = max(cards / CARDS_A_MACHINE, cores / CORES_A_MACHINE) / MACHINES
            row = {"set": name, "card": card, "hours": hours, "clip every": stride}
            row |= {"core h": cores, "card h": cards, "TB": clips * FEATURE_BYTES / 1e12}
            row |= {"USD": dollars, "USD an hour of video": dollars / hours, "days": wall / 24}
            rows.append(row)
    return pd.DataFrame(rows)


def table() -> pd.DataFrame:
    """A row an experiment: memory of the papers' batch, and for each card the largest batch and the
    hours of one.
    """
    rows = []
    for name, (step, batch, clips) in experiments().items():
        row = {
            "experiment": name,
            "batch": batch,
            "GB": step.memory(batch),
            "TFLOP a clip": step.flops / 1e12,
        }
        for card, (memory, speed) in CARDS.items():
            most = step.batch_within(memory)
            row[f"{card} {memory} GB: batch"] = f"{min(most, 999)}" if most else "does not fit"
            row[f"{card}: hours"] = step.hours(clips, speed) if most else None
        rows.append(row)
    return pd.DataFrame(rows)
