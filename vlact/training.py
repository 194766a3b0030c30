"""All training: the pretraining ladder and fine-tuning, each a function of files and parameters.

Every function here is a job (`vlact.jobs.run`): single-threaded, deterministic for its seed on one kind
of CPU, with a checkpoint from which a killed run goes on to the same bytes.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vlact.jobs import Checkpoint, track
from vlact.losses.ace import ace_loss, leaf_average
from vlact.models.dual import DualConfig, DualEncoder

CHECKPOINT_EVERY = 100  # steps
NOTHING = -100  # object label of a clip without a named object; cross entropy passes over it


def autocast(device: str = "cpu"):
    """bf16 autocast: on CPUs with bf16 instructions twice as fast, on others correct and slower."""
    return torch.autocast(device, torch.bfloat16)


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


def pretrain(config: dict, model: dict, frames: str, labels: dict, out: str, checkpoint: str, seed: int) -> list[dict]:
    """Stage 1 of the ladder: the video trunk, from labels of the motion program and the object.

    Supervision, declared: the name of the verb program and of the object of every rendered tutorial
    clip, by cross entropy. It stands in for the step labels that ProcedureVRL distils from its
    captions; no text enters here and the projections stay untouched.

    Args:
        config: `Pretrain` as a dict.
        model: `DualConfig` as a dict.
        frames: npy of uint8 clips (N, 1, T, H, W, 3).
        labels: `verb` and `object`, lists of N class numbers (`NOTHING` where none); `train` and `val`, row numbers.
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
    heads = torch.nn.ModuleDict({k: torch.nn.Linear(model["dim"], int(t.max()) + 1) for k, t in target.items()})
    parameters = [*encoder.trunk.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, config["lr"], weight_decay=config["weight_decay"], fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, config["steps"]))
    saved, start, curve, losses = Checkpoint(Path(checkpoint)), 0, [], []
    plan = list(batches(len(train), config["batch_size"], config["steps"], generator))
    if (state := saved.load()) is not None:
        encoder.load_state_dict(state["encoder"])
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        generator.set_state(state["generator"])
        start, curve = state["step"], state["curve"]

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
            pooled = pool(encoder, clips[val], 0)
            encoder.train()
            hits = {}
            for k, head in heads.items():
                named = target[k][val] != NOTHING
                hits[f"val_{k}"] = float((head(pooled).argmax(1) == target[k][val])[named].float().mean())
            curve.append({"step": step + 1, "loss": float(np.mean(losses)), **hits})
            losses = []
            saved.save(
                {
                    "encoder": encoder.state_dict(),
                    "heads": heads.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "generator": generator.get_state(),
                    "step": step + 1,
                    "curve": curve,
                }
            )
    encoder.save(out)
    return curve


pretrain.tracked = True


@torch.no_grad()
def pool(encoder: DualEncoder, inputs: Tensor, frozen_blocks: int | None, batch_size: int = 64) -> Tensor:
    """Pooled features (N, dim) of uint8 clips (`frozen_blocks` 0) or of kept tokens."""
    out = []
    with autocast():
        for part in inputs.split(batch_size):
            tokens = encoder.first(part, 0) if part.dtype == torch.uint8 else part
            out.append(encoder.last(tokens, 0 if part.dtype == torch.uint8 else frozen_blocks).float())
    return torch.cat(out)


@torch.no_grad()
def keep_tokens(encoder: DualEncoder, clips: Tensor, frozen_blocks: int, batch_size: int = 64) -> Tensor:
    """Activations after the frozen part, bf16: what fine-tuning starts from every epoch."""
    with autocast():
        return torch.cat([encoder.first(part, frozen_blocks).to(torch.bfloat16) for part in clips.split(batch_size)])


def align(encoder: DualEncoder, config: dict, features: Tensor, captions: list[str], trunk: dict[str, Tensor], seed: int) -> list[dict]:
    """Stage 2 of the ladder: both projections, from captions, on cached features of the frozen trunk.

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
    bank = sorted(set(captions))
    text = torch.stack([trunk[c] for c in bank])
    number = {c: i for i, c in enumerate(bank)}
    target = torch.tensor([number[c] for c in captions])
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


def finetune(
    encoder: DualEncoder,
    tokens: Tensor,
    labels: Tensor,
    text: Tensor,
    plan,
    recipe: dict,
    ace: dict,
    lr: float,
    epochs: list[int],
    seed: int,
    on_epoch,
) -> None:
    """Fine-tune with ACE or one of its controls, calling `on_epoch(epoch)` at the listed epochs.

    Trains the last blocks, the final norm and the video projection; the text projection if the recipe
    says so. SGD at a constant rate (the paper prints none), so one run passes through every listed epoch.

    Args:
        encoder: Trained in place.
        tokens: Kept activations (V, N, L, dim): V fixed views of each clip (plain and mirrored).
        labels: Classes (N,).
        text: Frozen features of `plan.texts` (S, text_dim).
        plan: `vlact.language.trees.ActionTexts` of the base actions.
        recipe: `leaf`, `shadow`, `L_fixed`, `L_rand`, `train_text` (all bool).
        ace: `Ace` as a dict.
        lr: Learning rate.
        epochs: Increasing epoch numbers.
        seed: Order, mirroring and synonym draws.
        on_epoch: Called with the epoch number, the encoder in evaluation mode.
    """
    blocks = ace["trained_blocks"]
    frozen = encoder.config.depth - blocks
    encoder.requires_grad_(False)
    parts = [*encoder.trunk.encoder.layer[frozen:], encoder.trunk.layernorm, encoder.video_projection]
    parts += [encoder.text_projection] if recipe["train_text"] else []
    parameters = [p.requires_grad_() for part in parts for p in part.parameters()]
    optimizer = torch.optim.SGD(parameters, lr, momentum=ace["momentum"], weight_decay=ace["weight_decay"])
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    scale, n = 1 / ace["tau"], len(labels)
    fixed = torch.as_tensor(plan.fixed if recipe["leaf"] else plan.root)
    for epoch in range(1, max(epochs) + 1):
        for rows in torch.randperm(n, generator=generator).split(ace["batch_size"]):
            view = torch.randint(len(tokens), (len(rows),), generator=generator)
            with autocast():
                features = encoder.last(tokens[view, rows], frozen)
            video = encoder.embed_video(features.float())
            drawn, shadow = (torch.as_tensor(x) for x in plan.draw(rng))
            if not recipe["leaf"]:
                drawn, shadow = drawn[:, :1], shadow[:, :1]
            sets = {"fixed": fixed if recipe["L_fixed"] else None, "drawn": drawn if recipe["L_rand"] else None}
            sets["shadow"] = shadow if recipe["shadow"] else None
            loss = sum(ace_loss(video, labels[rows], scale, **embed_sets(encoder, text, sets)).values())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
        if epoch in epochs:
            on_epoch(epoch)


def embed_sets(encoder: DualEncoder, text: Tensor, sets: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    """Leaf-averaged embeddings of several label sets with one projection of the gathered rows."""
    asked = {k: v for k, v in sets.items() if v is not None}
    rows, inverse = torch.unique(torch.cat([v.flatten() for v in asked.values()]), return_inverse=True)
    embedded = encoder.embed_text(text[rows])
    out, start = dict.fromkeys(sets), 0
    for k, v in asked.items():
        out[k] = leaf_average(embedded, inverse[start : start + v.numel()].view(v.shape))
        start += v.numel()
    return out
