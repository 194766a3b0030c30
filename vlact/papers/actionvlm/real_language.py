"""ActionVLM's language on real video, read by the alignment with captioned photographs.

Of every step the alignment says which description it fits: cosines of the step and the classes'
descriptions, less their mean over the training recordings, as a distribution. `Reading` makes of it

    F_lang      descriptions weighted by it, beside F_vis at the localizer's input (Eq. 5, λ fixed)
    log prior   added to the logits of a localizer that was trained on vision alone

under the controls of the rendered worlds: descriptions that belong to other classes, and noise.
Descriptions and numbers are `language` in `real.yaml`.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlact.metrics.proposals import derangements
from vlact.models.actionvlm import LEAST_PRIOR
from vlact.models.aligned import AlignedEncoder
from vlact.models.text import sentence_encoder
from vlact.papers.actionvlm.localizing import Localizer
from vlact.papers.actionvlm.real import Localize, protocol, train_job
from vlact.runtime.jobs import write_table

FULL, ONLY, NOISE = "ActionVLM, Eq. 5 (λ = 1)", "language only", "Eq. 5, noise for language"
OFF, DERANGED = "Eq. 5, language off at test", "Eq. 5, deranged at test"
TRAINED = (FULL, NOISE, ONLY)
SEEDS_APART = 100  # two derangements of a seed are two runs of it
LEAST = 1e-6  # of a score, so that it has a logit


def embedded(dataset: str, classes: tuple[str, ...]) -> Tensor:
    """Frozen text features (C, 384) of the classes' descriptions.

    Raises:
        ValueError: A class without a description in the protocol; names it.
    """
    told = protocol().language["descriptions"][dataset]
    if lacking := [c for c in classes if c not in told]:
        raise ValueError(f"real.yaml: {dataset} has no description of {lacking}; add it")
    return sentence_encoder()([told[c] for c in classes])


def prior_name(weight: float, control: str = "") -> str:
    """Of a row: language as a prior at test."""
    return f"prior at test, λ = {weight:g}" + (f", {control}" if control else "")


@dataclass(frozen=True)
class Reading:
    """What language says of a fold's recordings.

    Attributes:
        said: Logits of every step over classes (T, C), by recording.
        descriptions: Of the classes, embedded (C, D).
    """

    said: dict[str, Tensor]
    descriptions: Tensor

    @classmethod
    def of(cls, job: Localize, told: str, aligned: str) -> "Reading":
        """Read all recordings of a fold.

        Args:
            job: Its features and training recordings.
            told: From `embedded`.
            aligned: File of the aligned encoder.
        """
        every, encoder = load_file(job.features), AlignedEncoder.load(aligned).eval()
        with torch.no_grad():
            words = encoder.embed_text(load_file(told)["descriptions"])
            near = {
                v: encoder.embed_video(encoder.frames(every[v])) @ words.T
                for part in job.durations.values()
                for v in part
            }
        # a description that fits everything says nothing
        mean = torch.cat([near[v] for v in job.durations["train"]]).mean(0)
        temperature = protocol().language["temperature"]
        return cls({v: (x - mean) / temperature for v, x in near.items()}, words)

    def deranged(self, number: int) -> "Reading":
        """What is said of a class is what fits the description of another one."""
        orders = derangements(len(self.descriptions), number + 1)
        order = torch.from_numpy(orders[number])
        # descriptions stay: F_lang is a sum over classes, which forgets an order of both
        return Reading({v: x[:, order] for v, x in self.said.items()}, self.descriptions)

    def noise(self, seed: int) -> "Reading":
        """Gaussian noise of the same spread in place of what is said."""
        rng = torch.Generator().manual_seed(seed)
        spread = torch.cat(list(self.said.values())).std()
        drawn = {v: spread * torch.randn(x.shape, generator=rng) for v, x in self.said.items()}
        return Reading(drawn, self.descriptions)

    def features(self) -> dict[str, Tensor]:
        """F_lang (T, D), by recording: descriptions, weighted by how well they fit."""
        return {v: x.softmax(1) @ self.descriptions for v, x in self.said.items()}

    def gains(self, found: pd.DataFrame, step_s: float) -> np.ndarray:
        """λ-free log prior of candidates' classes: log q - log u, q the mean over their steps.

        Args:
            found: `video, start_s, end_s, number`, the class's number.
            step_s: Seconds between steps.
        """
        out = np.zeros(len(found))
        at = found.groupby("video", sort=False).indices
        for video, rows in at.items():
            likely = self.said[video].softmax(1).double().numpy()
            sums = np.concatenate([np.zeros((1, likely.shape[1])), np.cumsum(likely, 0)])
            part, last = found.iloc[rows], len(likely)
            first = np.clip(np.floor(part["start_s"] / step_s), 0, last - 1).astype(int)
            end = np.clip(np.ceil(part["end_s"] / step_s), first + 1, last).astype(int)
            number = part["number"].to_numpy()
            mean = (sums[end, number] - sums[first, number]) / (end - first)
            out[rows] = np.log(np.maximum(mean, LEAST_PRIOR)) + math.log(likely.shape[1])
        return out


def features_of(kind: str, seen: dict[str, Tensor], language: dict[str, Tensor]) -> dict:
    """A row's features of every recording: F_vis and F_lang after each other, or F_lang alone."""
    if kind == ONLY:
        return {v: x.contiguous() for v, x in language.items()}
    return {v: torch.cat([seen[v], x], 1).contiguous() for v, x in language.items()}


def noise_like(language: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Gaussian noise in place of F_lang."""
    rng = torch.Generator().manual_seed(seed)
    return {v: torch.randn(x.shape, generator=rng) for v, x in language.items()}


def language_job(job: Localize, row: str, told: str, aligned: str) -> list[dict]:
    """Train one row of `TRAINED` on one fold; write its detections, and those of its controls at
    test, to `out`.parquet with their names as `model`.

    Args:
        job: Of an ActionFormer on the same fold and seed; `out` is the row's own.
        row: One of `TRAINED`.
        told, aligned: See `Reading.of`.

    Returns:
        The curve.
    """
    reading, seen = Reading.of(job, told, aligned), load_file(job.features)
    language = reading.features()
    heard = noise_like(language, job.seed) if row == NOISE else language
    given, path = features_of(row, seen, heard), f"{job.out}-features.safetensors"
    save_file(given, path)
    dim = next(iter(given.values())).shape[1]
    curve = train_job(replace(job, features=path, feature_dim=dim))
    own = pd.read_parquet(f"{job.out}.parquet")
    tables = [own.assign(model=row)]
    if row == FULL:
        localizer, test = Localizer.load(f"{job.out}.safetensors"), job.durations["test"]
        mean = torch.cat([language[v] for v in job.durations["train"]]).mean(0)
        asked = {(OFF, 0): {v: mean.expand_as(x) for v, x in language.items()}}
        for i in range(protocol().language["derangements"]):
            asked[DERANGED, i] = reading.deranged(i).features()
        for (name, i), changed in asked.items():
            found = localizer.detect(features_of(row, seen, changed), test)
            tables.append(found.assign(model=name, seed=job.seed + SEEDS_APART * i))
    every = pd.concat(tables, ignore_index=True)
    write_table(f"{job.out}.parquet", every)
    return curve


def prior_job(job: Localize, told: str, aligned: str, out: str) -> bool:
    """Language as a prior on an ActionFormer that was trained on vision alone; writes `out`, with
    the names of rows and controls as `model`.

    Args:
        job: That ActionFormer's.
        told, aligned: See `Reading.of`.
        out: Parquet.

    Returns:
        That it is written.
    """
    from vlact.models.nms import suppress

    given, reading = protocol().language, Reading.of(job, told, aligned)
    localizer = Localizer.load(f"{job.out}.safetensors")
    found = localizer.candidates(load_file(job.features), job.durations["test"])
    number = {c: i for i, c in enumerate(job.classes)}
    found["number"] = found["label"].map(number).astype(int)
    score = found["score"].clip(LEAST, 1 - LEAST).to_numpy()
    logit = np.log(score / (1 - score))
    readings = {("", 0): reading, ("noise", 0): reading.noise(job.seed)}
    readings |= {("deranged", i): reading.deranged(i) for i in range(given["derangements"])}
    tables = []
    for (control, i), one in readings.items():
        gain = one.gains(found, 1 / protocol().rate_hz)
        for weight in given["at_test"]:
            shifted = found.assign(score=1 / (1 + np.exp(-(logit + weight * gain))))
            kept = suppress(shifted.drop(columns="number"), **protocol().recipe["nms"])
            name = prior_name(weight, control)
            tables.append(kept.assign(model=name, seed=job.seed + SEEDS_APART * i))
    every = pd.concat(tables, ignore_index=True)
    write_table(out, every)
    return True
