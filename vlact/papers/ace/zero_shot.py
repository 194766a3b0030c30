"""Naming actions without having seen one: what photographs and their captions teach.

ConSE (Norouzi et al., ICLR 2014) stands a clip where its most likely ImageNet classes are in the
space of words. The alignment learns two linear heads on Flickr8k's images and captions, InfoNCE,
over frozen features. Both are averaged. The control learns the same on captions that belong to
other images.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from vlact.models.aligned import AlignedConfig, AlignedEncoder
from vlact.runtime.jobs import track

TOP = 10  # classes that ConSE averages, as published
BATCH = 512  # images
WEIGHT_DECAY = 0.01
TEMPERATURE = 0.07  # that training starts from
LOOK = 5  # epochs between two looks at the dev images


def conse(shown: Tensor, names: Tensor) -> Tensor:
    """Where clips stand among words.

    Args:
        shown: Probabilities of classes (N, C), of one clip a row.
        names: Unit embeddings of the classes' names (C, D).

    Returns:
        (N, D), unit length: names of the `TOP` most likely classes, weighted by probability.
    """
    best = shown.topk(min(TOP, shown.shape[1]), dim=1)
    return normalize((best.values[..., None] * names[best.indices]).sum(1), dim=-1)


def both(*scores: np.ndarray) -> np.ndarray:
    """Mean of several models' scores (N, C), each standardised over a clip's candidates."""
    apart = [(s - s.mean(1, keepdims=True)) / (s.std(1, keepdims=True) + 1e-9) for s in scores]
    return np.mean(apart, 0)


@dataclass(frozen=True)
class Retrieval:
    """Recall at 1 of images and captions, fractions."""

    text_of_image: float
    image_of_text: float

    @property
    def mean(self) -> float:
        return (self.text_of_image + self.image_of_text) / 2


@torch.inference_mode()
def retrieve(encoder: AlignedEncoder, images: Tensor, captions: Tensor) -> Retrieval:
    """How often the nearest caption of an image is one of its own, and the nearest image of a
    caption is its own.

    Args:
        encoder: Aligned.
        images: Features (N, dim).
        captions: Text features (N, K, text_dim), K of every image.
    """
    seen = encoder.embed_video(encoder.last(images[:, None], 0))
    said = encoder.embed_text(captions.flatten(0, 1))
    near, own = seen @ said.T, torch.arange(len(images))
    text = (near.argmax(1) // captions.shape[1] == own).float().mean()
    image = (near.argmax(0) == own.repeat_interleave(captions.shape[1])).float().mean()
    return Retrieval(float(text), float(image))


def align(
    images: Tensor,
    captions: Tensor,
    dev: tuple[Tensor, Tensor],
    lr: float,
    epochs: int,
    seed: int,
    shuffled: bool = False,
) -> tuple[AlignedEncoder, list[dict]]:
    """Two linear heads by InfoNCE: an image, and one of its captions an epoch.

    Args:
        images: Training features (N, dim).
        captions: Their text features (N, K, text_dim).
        dev: Images and captions to choose the epoch on.
        lr: AdamW's rate, falling to 0 by a cosine.
        epochs: Most.
        seed: Of weights, order, captions.
        shuffled: Every image gets the captions of another one, the control; there is nothing to
            choose by then, and the last epoch is kept.

    Returns:
        The encoder after its best epoch on the dev images, and a row `epoch, dev_r1` a look.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    encoder = AlignedEncoder(AlignedConfig(images.shape[1], captions.shape[-1]))
    encoder.standardise(images)
    if shuffled:
        captions = captions[torch.randperm(len(captions), generator=rng)]
    scale = nn.Parameter(torch.tensor(1 / TEMPERATURE).log())
    steps = -(-len(images) // BATCH) * epochs
    optimizer = torch.optim.AdamW([*encoder.parameters(), scale], lr, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    looks, best, kept = [], -1.0, None
    for epoch in track(range(1, epochs + 1), epochs, "alignment with captions"):
        which = torch.randint(captions.shape[1], (len(images),), generator=rng)
        for rows in torch.randperm(len(images), generator=rng).split(BATCH):
            seen = encoder.embed_video(encoder.last(images[rows][:, None], 0))
            logits = scale.exp() * seen @ encoder.embed_text(captions[rows, which[rows]]).T
            own = torch.arange(len(rows))
            loss = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % LOOK == 0 or epoch == epochs:
            found = retrieve(encoder, *dev).mean
            looks.append({"epoch": epoch, "dev_r1": found})
            if found > best or shuffled:
                best, kept = found, {k: v.clone() for k, v in encoder.state_dict().items()}
    encoder.load_state_dict(kept)
    return encoder.eval().requires_grad_(False), looks
