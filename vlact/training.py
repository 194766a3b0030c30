"""All training: the pretraining ladder and fine-tuning, each a function of files and parameters.

Every function here is a job (`vlact.jobs.run`): single-threaded, deterministic for its seed on one kind
of CPU, with a checkpoint from which a killed run goes on to the same bytes.
"""

import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vlact.jobs import Checkpoint, track
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.frames import FrameEncoder, inflate
from vlact.models.zoo import Kept, Recogniser

CHECKPOINT_EVERY = 100  # steps
NOTHING = -100  # object label of a clip without a named object; cross entropy passes over it


@contextmanager
def autocast(device: str = "cpu"):
    """bf16 autocast: on CPUs with bf16 instructions twice as fast, on others correct and slower.

    On CPUs attention over a few dozen tokens is also twice as fast spelled out as in the fused kernel.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with torch.autocast(device, torch.bfloat16):
        if device != "cpu":
            yield
        else:
            with sdpa_kernel(SDPBackend.MATH):
                yield


def augment(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror, mix colours and shift brightness, one draw a clip: uint8 (B, T, H, W, 3) to the same."""
    out = torch.empty_like(clips)
    for i, clip in enumerate(clips):  # clip by clip stays in the processor's cache: three times faster
        x = clip.permute(3, 0, 1, 2).float()
        if torch.rand((), generator=generator) < 0.5:
            x = x.flip(3)
        mix = torch.eye(3) + 0.15 * torch.randn(3, 3, generator=generator)
        mix = mix * (1 + 0.2 * torch.randn((), generator=generator))
        shift = 128 * (1 - mix.sum(1)) + 20 * torch.randn(3, generator=generator)
        x = (mix @ x.reshape(3, -1)).add_(shift[:, None]).clamp_(0, 255).view(x.shape)
        out[i] = x.permute(1, 2, 3, 0)
    return out


def batches(n: int, batch_size: int, steps: int, generator: torch.Generator):
    """`steps` index batches from fresh permutations of n; the rest of an epoch opens the next batch."""
    queue = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(n, generator=generator)])
        yield queue[:batch_size]
        queue = queue[batch_size:]


def warmup_cosine(step: int, steps: int, warmup: float = 0.1) -> float:
    """Factor on the learning rate: linear warm-up over a share of the steps, then half a cosine."""
    first = max(1, int(warmup * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))


class Resumable:
    """Modules, optimiser, schedule and random state of one training loop, with the curve so far."""

    def __init__(self, path: str, generator: torch.Generator, **parts):
        self.saved, self.generator, self.parts = Checkpoint(Path(path)), generator, parts

    def load(self) -> tuple[int, list[dict]]:
        """The step to go on from and the curve; (0, []) where nothing was saved."""
        state = self.saved.load()
        if state is None:
            return 0, []
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        return state["step"], state["curve"]

    def save(self, step: int, curve: list[dict]) -> None:
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        self.saved.save(parts | {"generator": self.generator.get_state(), "step": step, "curve": curve})


def caption_bank(captions: list[str], trunk: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Trunk features of the distinct captions (K, text_dim), and each caption's row in them (N,)."""
    bank = sorted(set(captions))
    number = {c: i for i, c in enumerate(bank)}
    return torch.stack([trunk[c] for c in bank]), torch.tensor([number[c] for c in captions])


def pretrain_frames(
    config: dict, model: dict, frames: str, captions: list[str], rows: dict, texts: str, out: str, checkpoint: str, seed: int
):
    """Rung 1 of the ladder: CLIP on single frames of the corpus, from captions.

    Supervision, declared: the caption of the clip a frame is taken from. Softmax over the distinct captions
    of a batch, as in `align`.

    Args:
        config: `Pretrain` as a dict.
        model: `DualConfig` as a dict.
        frames: npy of uint8 clips (N, 1, T, H, W, 3).
        captions: One a clip.
        rows: `train` and `val`, row numbers.
        texts: safetensors of the trunk's features of every caption.
        out: Where the encoder goes (safetensors).
        checkpoint: Where the state goes while training.
        seed: Initialisation and order.

    Returns:
        The curve: rows with step, loss, and `val_caption`, the share of validation frames nearer to their own
        caption than to that of another clip (0.5 is chance).
    """
    from safetensors.torch import load_file

    clips = torch.from_numpy(np.load(frames, mmap_mode="c"))[:, 0]
    text, target = caption_bank(captions, load_file(texts))
    train, val = torch.tensor(rows["train"]), torch.tensor(rows["val"])
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    encoder = FrameEncoder(DualConfig(**model))
    scale = torch.nn.ParameterDict({"logit": torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))})
    parameters = [*encoder.parameters(), *scale.parameters()]
    steps = config["frame_steps"]
    optimizer = torch.optim.AdamW(parameters, config["frame_lr"], weight_decay=config["weight_decay"], fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, steps))
    plan = list(batches(len(train), config["frame_batch_size"], steps, generator))
    state = Resumable(checkpoint, generator, encoder=encoder, scale=scale, optimizer=optimizer, schedule=schedule)
    (start, curve), losses = state.load(), []
    for step in track(range(start, steps), steps, "frames"):
        own = train[plan[step]]
        one = clips[own, torch.randint(clips.shape[1], (len(own),), generator=generator)]
        with autocast():
            images = encoder(augment(one[:, None], generator))
        candidates, which = torch.unique(target[own], return_inverse=True)
        loss = cross_entropy(scale["logit"].clamp(max=math.log(100)).exp() * images @ encoder.embed_text(text[candidates]).T, which)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            encoder.eval()
            with torch.no_grad(), autocast():
                found = torch.cat([encoder(part) for part in clips[val].split(64)]) @ encoder.embed_text(text[target[val]]).T
            encoder.train()
            right = (found.diagonal() > found.roll(1, 1).diagonal()).float().mean()
            curve.append({"step": step + 1, "loss": float(np.mean(losses)), "val_caption": float(right)})
            losses = []
            state.save(step + 1, curve)
    encoder.save(out)
    return curve


pretrain_frames.tracked = True


def pretrain(
    config: dict, model: dict, frames: str, labels: dict, start_from: str | None, out: str, checkpoint: str, seed: int
) -> list[dict]:
    """Rung 2 of the ladder: the video trunk, from labels of the motion program and the object.

    Supervision, declared: the name of the verb program and of the object of every rendered tutorial
    clip, by cross entropy. It stands in for the step labels that ProcedureVRL distils from its
    captions; no text enters here and the projections stay untouched.

    Args:
        config: `Pretrain` as a dict.
        model: `DualConfig` as a dict.
        frames: npy of uint8 clips (N, 1, T, H, W, 3).
        labels: `verb` and `object`, lists of N class numbers (`NOTHING` where none); `train` and `val`, row numbers.
        start_from: Image tower to inflate (rung 1), or None.
        out: Where the encoder goes (safetensors).
        checkpoint: Where the state goes while training.
        seed: Initialisation and order.

    Returns:
        The curve: rows with step, loss, val_verb, val_object (accuracies, 0..1).
    """
    clips = torch.from_numpy(np.load(frames, mmap_mode="c"))[:, 0]
    target = {k: torch.tensor(labels[k]) for k in ("verb", "object")}
    train, val = torch.tensor(labels["train"]), torch.tensor(labels["val"])
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    encoder = DualEncoder(DualConfig(**model))
    if start_from:
        inflate(encoder, FrameEncoder.load(start_from))
    heads = torch.nn.ModuleDict({k: torch.nn.Linear(model["dim"], int(t.max()) + 1) for k, t in target.items()})
    parameters = [*encoder.trunk.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, config["lr"], weight_decay=config["weight_decay"], fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, config["steps"]))
    plan = list(batches(len(train), config["batch_size"], config["steps"], generator))
    state = Resumable(checkpoint, generator, encoder=encoder, heads=heads, optimizer=optimizer, schedule=schedule)
    (start, curve), losses = state.load(), []
    for step in track(range(start, config["steps"]), config["steps"], "pretraining"):
        rows = train[plan[step]]
        with autocast():
            features = encoder.last(encoder.first(augment(clips[rows], generator), 0), 0)
            logits = {k: head(features).float() for k, head in heads.items()}
        loss = cross_entropy(logits["verb"], target["verb"][rows])
        loss = loss + config["object_weight"] * cross_entropy(logits["object"], target["object"][rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == config["steps"]:
            encoder.eval()
            pooled = pool(encoder, clips[val])
            encoder.train()
            hits = {}
            for k, head in heads.items():
                named = target[k][val] != NOTHING
                hits[f"val_{k}"] = float((head(pooled).argmax(1) == target[k][val])[named].float().mean())
            curve.append({"step": step + 1, "loss": float(np.mean(losses)), **hits})
            losses = []
            state.save(step + 1, curve)
    encoder.save(out)
    return curve


pretrain.tracked = True


@torch.no_grad()
def pool(encoder: DualEncoder, clips: Tensor, batch_size: int = 64) -> Tensor:
    """Pooled features (N, dim) of uint8 clips (N, T, H, W, 3)."""
    with autocast():
        return torch.cat([encoder.last(encoder.first(part, 0), 0).float() for part in clips.split(batch_size)])


def align(encoder: DualEncoder, config: dict, features: Tensor, captions: list[str], trunk: dict[str, Tensor], seed: int) -> list[dict]:
    """Rung 3 of the ladder: both projections, from captions, on cached features of the frozen trunk.

    Supervision, declared: one caption per clip (a synonym of its program's name and its object), a share
    `align_noise` of them taken from another clip. Softmax over the distinct captions of a batch.

    Args:
        encoder: Its projections are trained in place.
        config: `Pretrain` as a dict.
        features: Pooled video features (N, dim).
        captions: N strings.
        trunk: Sentence features (text_dim,) of every distinct caption.
        seed: Order and noise.

    Returns:
        The curve: rows with step and loss.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    text, target = caption_bank(captions, trunk)
    wrong = torch.rand(len(target), generator=generator) < config["align_noise"]
    target[wrong] = target[torch.randint(len(target), (int(wrong.sum()),), generator=generator)]
    for layer in (encoder.video_projection, encoder.text_projection):
        layer.reset_parameters()
    parameters = [*encoder.video_projection.parameters(), *encoder.text_projection.parameters()]
    optimizer = torch.optim.AdamW(parameters, config["align_lr"], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, config["align_steps"]))
    curve, losses = [], []
    for step, rows in enumerate(batches(len(target), config["align_batch_size"], config["align_steps"], generator)):
        candidates, own = torch.unique(target[rows], return_inverse=True)
        video, words = encoder.embed_video(features[rows]), encoder.embed_text(text[candidates])
        loss = cross_entropy(video @ words.T / 0.05, own)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == config["align_steps"]:
            curve.append({"step": step + 1, "loss": float(np.mean(losses))})
            losses = []
    return curve


def narrate(encoder: DualEncoder, config: dict, clips: Tensor, captions: list[str], trunk: dict[str, Tensor], seed: int) -> list[dict]:
    """LaViLa's pretraining: video trunk and both projections together, contrastively, on narrated clips.

    Symmetric softmax over the batch (InfoNCE); clips with the same narration count as each other's positives.

    Args:
        encoder: Trained in place.
        config: `Pretrain` as a dict.
        clips: uint8 (N, T, H, W, 3).
        captions: N narrations.
        trunk: Sentence features of every distinct narration.
        seed: Order.

    Returns:
        The curve: rows with step and loss.
    """
    generator = torch.Generator().manual_seed(seed)
    text, target = caption_bank(captions, trunk)
    optimizer = torch.optim.AdamW(encoder.parameters(), config["lr"] / 3, weight_decay=config["weight_decay"], fused=True)
    steps, curve, losses = config["vlog_steps"], [], []
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, steps))
    encoder.train()
    for step, rows in enumerate(track(batches(len(target), config["batch_size"], steps, generator), steps, "narrations")):
        with autocast():
            features = encoder.last(encoder.first(augment(clips[rows], generator), 0), 0)
        logits = encoder.embed_video(features.float()) @ encoder.embed_text(text[target[rows]]).T / 0.05
        same = (target[rows][:, None] == target[rows]).float()
        same = same / same.sum(1, keepdim=True)
        loss = (cross_entropy(logits, same) + cross_entropy(logits.T, same)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            curve.append({"step": step + 1, "loss": float(np.mean(losses))})
            losses = []
    encoder.eval()
    return curve


def take(kept: Kept, rows) -> Kept:
    """Some clips of what was kept."""
    return {k: v[rows] for k, v in kept.items()}


@torch.no_grad()
def keep(method: Recogniser, clips: Tensor, batch_size: int = 64) -> Kept:
    """`Recogniser.keep` of many clips (N, T, H, W, 3), activations in bf16."""
    with autocast():
        parts = [method.keep(part) for part in clips.split(batch_size)]
    return {k: torch.cat([p[k] for p in parts]).to(torch.bfloat16) for k in parts[0]}


@torch.no_grad()
def look(method: Recogniser, kept: Kept, batch_size: int = 64) -> Kept:
    """`Recogniser.look` at many clips, batch by batch."""
    n = len(next(iter(kept.values())))
    with autocast():
        parts = [method.look(take(kept, slice(i, i + batch_size))) for i in range(0, n, batch_size)]
    return {k: torch.cat([p[k].float() for p in parts]) for k in parts[0]}


def finetune(method: Recogniser, views: list[Kept], labels: Tensor, ace: dict, lr: float, epochs: list[int], seed: int, on_epoch) -> None:
    """Fine-tune a method, calling `on_epoch(epoch)` at the listed epochs.

    SGD at a constant rate (the ACE paper prints none), so one run passes through every listed epoch.

    Args:
        method: Trained in place, the parameters it names with their factors on the rate.
        views: What was kept of each of several fixed views of the clips (plain and mirrored).
        labels: Base classes (N,).
        ace: `Ace` as a dict.
        lr: Learning rate.
        epochs: Increasing epoch numbers.
        seed: Order and mirroring.
        on_epoch: Called with the epoch number, the method in evaluation mode.
    """
    method.requires_grad_(False)
    groups: dict[float, list] = {}
    for parameter, factor in method.trained():
        groups.setdefault(factor, []).append(parameter.requires_grad_())
    parameters = [p for group in groups.values() for p in group]
    settings = [{"params": group, "lr": lr * factor} for factor, group in groups.items()]
    optimizer = torch.optim.SGD(settings, lr, momentum=ace["momentum"], weight_decay=ace["weight_decay"])
    generator = torch.Generator().manual_seed(seed)
    method.eval()
    stacked = {k: torch.stack([v[k] for v in views]) for k in views[0]}
    for epoch in range(1, max(epochs) + 1):
        for rows in torch.randperm(len(labels), generator=generator).split(ace["batch_size"]):
            view = torch.randint(len(views), (len(rows),), generator=generator)
            with autocast():
                loss = method.loss({k: v[view, rows] for k, v in stacked.items()}, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
        if epoch in epochs:
            on_epoch(epoch)
