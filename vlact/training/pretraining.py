"""The pretraining ladder: CLIP on frames, the video trunk, both projections, and LaViLa's
narrations.

Published weights can stand in for the first two rungs (`published`). The rungs are jobs
(`vlact.runtime.jobs.run`): files and plain values in, an encoder as safetensors and its curve out.
Supervision of each is declared in its docstring.
"""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.frames import FrameEncoder, inflate
from vlact.runtime.device import beside, put
from vlact.runtime.jobs import job_of
from vlact.training.loop import augment, autocast, batches, fit

TEMPERATURE = 0.05  # of clips against captions
FIRST_TEMPERATURE = 0.07  # of frames against captions, where CLIP begins to learn its own
DECAY = 0.01  # of the weights of projections
CURVE_EVERY = 50  # steps
NOTHING = -100  # object label of a clip without a named object; cross entropy passes over it


def clips_of(frames: str, rows: list[int] | None = None) -> Tensor:
    """uint8 (N, T, H, W, 3), the first view of the clips in an npy file (N, views, T, H, W, 3), or
    some of them.
    """
    clips = torch.from_numpy(np.load(frames, mmap_mode="c"))[:, 0]
    return clips if rows is None else clips[torch.tensor(rows)]


def caption_bank(captions: list[str], texts: str) -> tuple[Tensor, Tensor]:
    """Trunk features of the distinct captions (K, text_dim), and each caption's row in them (N,).

    Args:
        captions: N strings.
        texts: safetensors with the features (text_dim,) of every one.
    """
    bank, trunk = sorted(set(captions)), load_file(texts)
    number = {c: i for i, c in enumerate(bank)}
    return torch.stack([trunk[c] for c in bank]), torch.tensor([number[c] for c in captions])


@torch.no_grad()
def pool(encoder: DualEncoder, clips: Tensor, batch_size: int = 64) -> Tensor:
    """Pooled features (N, dim) of uint8 clips (N, T, H, W, 3), where the encoder lies."""
    with autocast():
        return torch.cat(
            [
                encoder.last(encoder.first(beside(encoder, part), 0), 0).float()
                for part in clips.split(batch_size)
            ]
        )


def published(kind: str, path: str, model: dict, out: str) -> bool:
    """A published file in place of a rung.

    Args:
        kind: "frames", OpenAI's CLIP in open_clip's format; "trunk", a TimeSformer, ProcedureVRL's
            or another.
        path: The file.
        model: `DualConfig` as a dict.
        out: Where the encoder goes (safetensors).

    Returns:
        Whether its projections are set.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: A file of another model, or of another shape than `model`.
    """
    from vlact.models import checkpoints

    config, ready = DualConfig(**model), True
    if kind == "frames":
        encoder, _ = checkpoints.openai_clip(path, config.num_frames)
        found, wanted = asdict(encoder.config) | {"text": config.text}, asdict(config)
        if odd := {k: (v, wanted[k]) for k, v in found.items() if v != wanted[k]}:
            said = ", ".join(f"{k} {a}, there {b}" for k, (a, b) in odd.items())
            raise ValueError(f"{path}: its shape is not that of params.yaml (model): {said}")
        encoder.config = config
    else:
        torch.manual_seed(0)  # of projections that it lacks
        ready = checkpoints.timesformer(path, encoder := DualEncoder(config))
    encoder.save(out)
    return ready


def pretrain_frames(
    config: dict,
    model: dict,
    frames: str,
    captions: list[str],
    rows: dict,
    texts: str,
    out: str,
    checkpoint: str,
    seed: int,
) -> list[dict]:
    """Rung 1: CLIP on single frames of the corpus, from captions.

    Supervision, declared: the caption of the clip a frame is taken from. Softmax over the distinct
    captions of a batch, as in `align`.

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
        The curve, with `val_caption`: the share of validation frames nearer to their own caption
        than to that of another clip (0.5 is chance).
    """
    clips, (text, target) = clips_of(frames), caption_bank(captions, texts)
    train, val = torch.tensor(rows["train"]), torch.tensor(rows["val"])
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    encoder, steps = put(FrameEncoder(DualConfig(**model))), config["frame_steps"]
    scale = put(
        nn.ParameterDict({"logit": nn.Parameter(torch.tensor(math.log(1 / FIRST_TEMPERATURE)))})
    )
    plan = list(batches(len(train), config["frame_batch_size"], steps, generator))

    def loss_of(step: int) -> Tensor:
        own = train[plan[step]]
        one = clips[own, torch.randint(clips.shape[1], (len(own),), generator=generator)]
        with autocast():
            images = encoder(beside(encoder, augment(one[:, None], generator)))
        candidates, which = torch.unique(target[own], return_inverse=True)
        said, which = encoder.embed_text(beside(encoder, text[candidates])), beside(encoder, which)
        return cross_entropy(scale["logit"].clamp(max=math.log(100)).exp() * images @ said.T, which)

    @torch.no_grad()
    def validate() -> dict:
        with autocast():
            seen = torch.cat([encoder(beside(encoder, part)) for part in clips[val].split(64)])
            found = seen @ encoder.embed_text(beside(encoder, text[target[val]])).T
        return {
            "val_caption": float((found.diagonal() > found.roll(1, 1).diagonal()).float().mean())
        }

    modules = {"encoder": encoder, "scale": scale}
    curve = fit(
        modules,
        loss_of,
        steps,
        config["frame_lr"],
        config["weight_decay"],
        generator,
        "frames",
        checkpoint,
        validate,
    )
    encoder.save(out)
    return curve


PretrainFramesJob = job_of(pretrain_frames, tracked=True)


def pretrain(
    config: dict,
    model: dict,
    frames: str,
    labels: dict,
    start_from: str | None,
    out: str,
    checkpoint: str,
    seed: int,
) -> list[dict]:
    """Rung 2: the video trunk, from labels of the motion program and the object.

    Supervision, declared: the name of the verb program and of the object of every rendered tutorial
    clip, by cross entropy. It stands in for the step labels that ProcedureVRL distils from its
    captions; no text enters here and the projections stay untouched.

    Args:
        config: `Pretrain` as a dict.
        model: `DualConfig` as a dict.
        frames: npy of uint8 clips (N, 1, T, H, W, 3).
        labels: `verb` and `object`, lists of N class numbers (`NOTHING` where none); `train` and
            `val`, row numbers.
        start_from: Image tower to inflate (rung 1), or None.
        out: Where the encoder goes (safetensors).
        checkpoint: Where the state goes while training.
        seed: Initialisation and order.

    Returns:
        The curve, with val_verb and val_object (accuracies, 0..1).
    """
    clips, target = clips_of(frames), {k: torch.tensor(labels[k]) for k in ("verb", "object")}
    train, val = torch.tensor(labels["train"]), torch.tensor(labels["val"])
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    encoder = DualEncoder(DualConfig(**model))
    if start_from:
        inflate(encoder, FrameEncoder.load(start_from))
    heads = nn.ModuleDict({k: nn.Linear(model["dim"], int(t.max()) + 1) for k, t in target.items()})
    encoder, heads = put(encoder), put(heads)
    plan = list(batches(len(train), config["batch_size"], config["steps"], generator))

    def loss_of(step: int) -> Tensor:
        rows = train[plan[step]]
        with autocast():
            features = encoder.last(
                encoder.first(beside(encoder, augment(clips[rows], generator)), 0), 0
            )
            logits = {k: head(features).float() for k, head in heads.items()}
        losses = {k: cross_entropy(logits[k], beside(encoder, target[k][rows])) for k in target}
        return losses["verb"] + config["object_weight"] * losses["object"]

    def validate() -> dict:
        pooled, hits = pool(encoder, clips[val]), {}
        for k, head in heads.items():
            named = target[k][val] != NOTHING
            hits[f"val_{k}"] = float(
                (head(pooled).argmax(1).cpu() == target[k][val])[named].float().mean()
            )
        return hits

    modules = {"trunk": encoder.trunk, "heads": heads}
    curve = fit(
        modules,
        loss_of,
        config["steps"],
        config["lr"],
        config["weight_decay"],
        generator,
        "pretraining",
        checkpoint,
        validate,
    )
    encoder.save(out)
    return curve


PretrainJob = job_of(pretrain, tracked=True)


def align(
    config: dict,
    start_from: str,
    frames: str,
    captions: list[str],
    rows: list[int],
    texts: str,
    out: str,
    seed: int,
) -> list[dict]:
    """Rung 3: both projections, from captions, on pooled features of the frozen trunk.

    Supervision, declared: one caption per clip (a synonym of its program's name and its object), a
    share `align_noise` of them taken from another clip. Softmax over the distinct captions of a
    batch.

    Args:
        config: `Pretrain` as a dict.
        start_from: Encoder of rung 2.
        frames: npy of uint8 clips (N, 1, T, H, W, 3).
        captions: One for each of `rows`.
        rows: Clips to learn from.
        texts, out, seed: As in `pretrain_frames`.

    Returns:
        The curve.
    """
    encoder = put(DualEncoder.load(start_from))
    features, (text, target) = pool(encoder, clips_of(frames, rows)), caption_bank(captions, texts)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(target), generator=generator) < config["align_noise"]
    target[wrong] = target[torch.randint(len(target), (int(wrong.sum()),), generator=generator)]
    modules = {"video": encoder.video_projection, "text": encoder.text_projection}
    for layer in modules.values():
        layer.reset_parameters()
    plan = list(batches(len(target), config["align_batch_size"], config["align_steps"], generator))

    def loss_of(step: int) -> Tensor:
        own = plan[step]
        candidates, which = torch.unique(target[own], return_inverse=True)
        said, which = encoder.embed_text(beside(encoder, text[candidates])), beside(encoder, which)
        return cross_entropy(encoder.embed_video(features[own]) @ said.T / TEMPERATURE, which)

    curve = fit(
        modules,
        loss_of,
        config["align_steps"],
        config["align_lr"],
        DECAY,
        generator,
        "alignment",
        every=CURVE_EVERY,
    )
    encoder.save(out)
    return curve


def hold_out(
    config: dict,
    model: dict,
    frames: str,
    labels: dict,
    captions: list[str],
    heard: list[int],
    texts: str,
    start_from: str,
    out: str,
    checkpoint: str,
    seed: int,
) -> list[dict]:
    """Rungs 2 and 3 once more, on a corpus that names only some of its actions.

    Args:
        config, model, frames, labels, start_from, out, checkpoint, seed: As in `pretrain`.
        captions, texts: As in `pretrain_frames`, for every clip.
        heard: Clips whose captions may be read.

    Returns:
        The curve of rung 2.
    """
    trunk = f"{out}.trunk"
    curve = pretrain(config, model, frames, labels, start_from, trunk, checkpoint, seed)
    align(config, trunk, frames, [captions[i] for i in heard], heard, texts, out, seed)
    Path(trunk).unlink()
    return curve


HoldOutJob = job_of(hold_out, tracked=True)


def narrate(
    config: dict,
    start_from: str,
    frames: str,
    captions: list[str],
    rows: list[int],
    texts: str,
    out: str,
    seed: int,
) -> list[dict]:
    """LaViLa's pretraining: video trunk and both projections together, contrastively, on narrated
    clips.

    Symmetric softmax over the batch (InfoNCE); clips with the same narration count as each other's
    positives.

    Args:
        config, start_from, frames, captions, rows, texts, out, seed: As in `align`, from the
            encoder of rung 3.

    Returns:
        The curve.
    """
    encoder = put(DualEncoder.load(start_from))
    clips, (text, target) = clips_of(frames, rows), caption_bank(captions, texts)
    generator = torch.Generator().manual_seed(seed)
    plan = list(batches(len(target), config["batch_size"], config["vlog_steps"], generator))

    def loss_of(step: int) -> Tensor:
        own = plan[step]
        with autocast():
            features = encoder.last(
                encoder.first(beside(encoder, augment(clips[own], generator)), 0), 0
            )
        logits = (
            encoder.embed_video(features.float())
            @ encoder.embed_text(beside(encoder, text[target[own]])).T
            / TEMPERATURE
        )
        same = beside(encoder, (target[own][:, None] == target[own]).float())
        same = same / same.sum(1, keepdim=True)
        return (cross_entropy(logits, same) + cross_entropy(logits.T, same)) / 2

    modules, lr = {"encoder": encoder}, config["lr"] / 3
    curve = fit(
        modules,
        loss_of,
        config["vlog_steps"],
        lr,
        config["weight_decay"],
        generator,
        "narrations",
        every=CURVE_EVERY,
    )
    encoder.save(out)
    return curve


AlignJob, NarrateJob = job_of(align), job_of(narrate)
