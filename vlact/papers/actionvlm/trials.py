"""Trials in the arena: a row of the tables on one seed, tested under every control, and scored by
groups of recordings.

Language that is not trained says the same to every seed, so it is heard once (`hear_job`): a prior
costs as much as vision alone, which is what twenty seeds under six controls need. What is trained
with its localizer (Eq. 5) is `vlact.papers.actionvlm.experiments`.

Scores are of all test recordings, and of groups of them (`vlact.metrics.groups`).
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import pad

from vlact.language.descriptions import random_text
from vlact.language.prompts import Prompt, language_of, prompt_of
from vlact.metrics.groups import groups_of, scored
from vlact.metrics.proposals import derangements, spoken
from vlact.models.actionformer import LocalizerConfig
from vlact.models.actionvlm import Reader, Variant, in_half, log_prior, told
from vlact.papers.actionvlm.accounting import standard
from vlact.papers.actionvlm.experiments import (
    Setting,
    answer_job,
    noise_at,
    train,
    vision_language_job,
)
from vlact.papers.actionvlm.localizing import Clock, Localizer, sequences, stack
from vlact.runtime.device import beside, put
from vlact.runtime.jobs import job_of, write_whole

AT_ONCE = 32  # windows that are heard at once
AT_TEST = 0.25  # lambda of a prior that joins at test, fixed before the arena was made
HEARINGS = ("own", "deranged", "names", "random text")  # what language may read
KEPT = ("own", "language off")  # conditions whose detections are kept
ALONE, ANSWERS = "vision only", "question answering"


def hear_job(
    features: str, videos: list[str], trained: dict[str, str], unseen: dict[str, str],
    aligned: str, out: str,
) -> None:  # fmt: skip
    """What language as it was aligned points to in every recording, under every hearing.

    Args:
        features: safetensors, by video.
        videos: Those to be read.
        trained: Classes to descriptions, in order.
        unseen: The same of classes that are known by description only; they stand after these
            wherever a key begins with "open ".
        aligned: Folder of the alignment stage.
        out: safetensors, logits by "hearing/video" (T, C + 1) in half precision, the last class
            being "none of them".
    """
    found, (words, reach, said) = load_file(features), language_of(aligned)
    reader = put(Reader.load(f"{aligned}/reader.safetensors")).eval()
    heard = {}
    for lead, classes in (("", trained), ("open ", trained | unseen)):
        names, texts = list(classes), list(classes.values())
        other = derangements(len(texts), 1)[0]
        read = {
            "own": prompt_of(words, names, texts, said, True),
            "deranged": prompt_of(words, names, [texts[i] for i in other], said),
            "names": prompt_of(words, names, texts, said, False),
            "random text": prompt_of(words, names, random_text(len(texts), 0), said),
        }
        for hearing, prompt in read.items():
            for video, logits in _heard(reader, prompt, found, videos, reach).items():
                heard[f"{lead}{hearing}/{video}"] = logits.half()
    write_whole(Path(out), lambda d, f: save_file(d, f), heard)


@torch.inference_mode()
def _heard(
    reader: Reader, prompt: Prompt, features: dict[str, Tensor], videos: list[str], reach: int
) -> dict[str, Tensor]:
    """Logits of the pointer by video (T, C + 1), in parts of `reach` steps."""
    parts = [
        (v, features[v][a : a + reach]) for v in videos for a in range(0, len(features[v]), reach)
    ]
    out: dict[str, list[Tensor]] = {}
    for i in range(0, len(parts), AT_ONCE):
        some = parts[i : i + AT_ONCE]
        x = torch.stack([pad(x.float(), (0, 0, 0, reach - len(x))) for _, x in some])
        mask = torch.stack([torch.arange(reach) < len(x) for _, x in some])
        x, mask, asked = beside(reader, (x, mask, prompt.expand(len(some))))
        with in_half(reader):
            pointer = reader(x, mask, asked)["pointer"].float().cpu()
        stride = reader.branch.config.lm_stride
        for (video, mine), one in zip(some, pointer, strict=True):
            steps = one.repeat_interleave(stride, 0)[: len(mine)]
            out.setdefault(video, []).append(steps)
    return {v: torch.cat(x) for v, x in out.items()}


@dataclass
class PriorLocalizer(Localizer):
    """Vision's detections, with what language said added to the logits.

    Steps of the features carry both, see `vlact.models.actionvlm.told`.

    Attributes:
        weight: lambda; 0 is vision alone.
        noise: Whether Gaussian noise stands for what was said.
        unseen: How many classes come after those that the model knows: at a point each is as likely
            to vision as the likeliest of those.
        seen: What vision made of windows; copies of one model share it.
    """

    weight: float = 0.0
    noise: bool = False
    unseen: int = 0
    seen: dict = field(default_factory=dict)

    def run(self, first, cut):
        model = self.model
        x, mask = beside(model, stack(cut))
        x, said = told(x, model.config.feature_dim)
        if first not in self.seen:
            self.seen[first] = model.localizer(x, mask)
        logits, distances, valid = self.seen[first]
        if self.unseen:
            most = logits.amax(-1, keepdim=True)
            logits = torch.cat([logits, most.expand(*most.shape[:-1], self.unseen)], -1)
        if not self.weight:
            return logits, distances, valid
        if self.noise:
            said = noise_at(said, first)
        strides = [2**level for level in range(model.config.levels)]
        prior = log_prior(said["pointer"], mask, mask * self.weight, strides)
        return logits + prior, distances, valid


def with_hearing(
    features: dict[str, Tensor], heard: dict[str, Tensor], hearing: str, videos
) -> dict[str, Tensor]:
    """Features and what was said of every step, by video."""
    return {v: torch.cat([features[v].float(), heard[f"{hearing}/{v}"].float()], 1) for v in videos}


def prior_job(
    features: str,
    heard: str,
    durations: dict[str, dict[str, float]],
    truth: str,
    trained: dict[str, str],
    unseen: dict[str, str],
    clock: dict,
    config: dict,
    recipe: dict,
    seed: int,
    out: str,
    checkpoint: str,
    controls: bool = True,
) -> list[dict]:
    """Vision alone, a prior that joins it at test, and one that it is trained with.

    Args:
        features: safetensors, by video.
        heard: From `hear_job`.
        durations: "train" and "test" to the videos' seconds.
        truth: Parquet of the ground truth, of both.
        trained, unseen: See `hear_job`.
        clock, config, recipe, seed, checkpoint: See
            `vlact.papers.actionvlm.localizing.localize_job`.
        out: Scores go to `out`.parquet: `model, condition, seed` and the columns of `scored`;
            detections under `KEPT` conditions to `out`-found.parquet.
        controls: Whether other hearings, noise and unseen classes are tested, too.

    Returns:
        The curve.
    """
    table, found, said = pd.read_parquet(truth), load_file(features), load_file(heard)
    names, time = list(trained), Clock(**clock)
    mean, std = standard(found, durations["train"])
    known = table["video"].isin(durations["train"]) & table["label"].isin(names)
    shape, curve, models = LocalizerConfig(**config), [], {}
    for variant in (
        Variant(ALONE),
        Variant("prior, trained", 1.0, fusion="prior", frozen=True),
    ):
        both = with_hearing(found, said, "own", durations["train"])
        for v, x in both.items():
            x[:, : len(mean)] = (x[:, : len(mean)] - mean) / std
            both[v] = x if variant.frozen else x[:, : len(mean)]
        mine = sequences(both, durations["train"], table[known], names, time)
        setting = Setting(mine, None, None, None, names, shape, recipe, recipe["window"], mean, std)
        stem = f"{checkpoint}.{variant.frozen:d}"
        models[variant.name], rows = train(setting, variant, "", seed, stem)
        curve += [{"model": variant.name, **r} for r in rows]

    test = table[table["video"].isin(durations["test"])]
    groups, scores, kept = groups_of(test, [*trained, *unseen]), [], []
    known = set(test["video"][test["label"].isin(names)])
    closed = {v: s for v, s in durations["test"].items() if v in known}
    worlds = [("", names, closed)]
    if controls:
        worlds.append(("open ", [*trained, *unseen], durations["test"]))
    for lead, classes, seconds in worlds:
        wanted = test[test["video"].isin(list(seconds))]
        more = torch.zeros(len(classes) + 1), torch.ones(len(classes) + 1)
        full = [torch.cat(x) for x in zip((mean, std), more, strict=True)]
        hearings = HEARINGS if controls else HEARINGS[:1]
        given = {h: with_hearing(found, said, lead + h, seconds) for h in hearings}
        for row, model, weight in (
            ("prior at test", ALONE, 1.0 if lead else AT_TEST),
            ("prior, trained", "prior, trained", 1.0),
        ):
            plain = PriorLocalizer(
                models[model], classes, time, recipe, *full, unseen=len(classes) - len(names)
            )
            asked = {h: (h, replace(plain, weight=weight)) for h in hearings}
            asked["noise"] = "own", replace(plain, weight=weight, noise=True)
            asked["language off"] = "own", plain
            for condition, (hearing, localizer) in asked.items():
                where = {"model": lead + row, "condition": condition}
                detections = localizer.detect(given[hearing], seconds)
                scores.append(scored(wanted, detections, groups).assign(**where))
                if condition in KEPT and not lead:
                    kept.append(detections.assign(**where))
    scores = pd.concat(scores, ignore_index=True).assign(seed=seed)
    write_whole(Path(f"{out}.parquet"), lambda d, p: d.to_parquet(p, index=False), scores)
    kept = pd.concat(kept, ignore_index=True).assign(seed=seed)
    write_whole(Path(f"{out}-found.parquet"), lambda d, p: d.to_parquet(p, index=False), kept)
    return curve


def trial_job(
    variant: Variant,
    features: str,
    durations: dict[str, dict[str, float]],
    truth: str,
    classes: dict[str, str],
    clock: dict,
    config: dict,
    recipe: dict,
    aligned: str,
    conditions: dict,
    seed: int,
    out: str,
    checkpoint: str,
) -> list[dict]:
    """`vlact.papers.actionvlm.experiments.vision_language_job`, scored.

    Args:
        out: Scores go to `out`.parquet, detections to `out`-found.parquet (see `prior_job`), and
            what `frames_of` returns, means by group and class, to `out`-frames.parquet.
        variant, features, durations, truth, classes, clock, config, recipe, aligned, conditions,
            seed, checkpoint: As there.

    Returns:
        The curve.
    """
    raw = f"{out}-raw"
    given = features, durations, truth, classes, clock, config, recipe, aligned, conditions
    curve = vision_language_job(variant, *given, seed, raw, checkpoint)
    table, found = pd.read_parquet(truth), pd.read_parquet(f"{raw}.parquet")
    test = table[table["video"].isin(durations["test"])]
    groups, keys = groups_of(test, list(classes)), ["model", "condition", "seed"]
    scores = [
        scored(test, part, groups).assign(**dict(zip(keys, key, strict=True)))
        for key, part in found.groupby(keys, sort=False)
    ]
    scores = pd.concat(scores, ignore_index=True)
    write_whole(Path(f"{out}.parquet"), lambda d, p: d.to_parquet(p, index=False), scores)
    own = found[found["condition"].isin(KEPT)]
    write_whole(Path(f"{out}-found.parquet"), lambda d, p: d.to_parquet(p, index=False), own)
    if variant.watched(conditions):
        frames = pd.read_parquet(f"{raw}-frames.parquet")
        frames["right"] = frames["pointer"] == frames["label"]
        frames["group"] = frames["video"].map(groups)
        by = frames.groupby(["model", "seed", "group", "label"], sort=False)
        weights = by.agg(
            frames=("weight", "size"), weight=("weight", "mean"), right=("right", "sum"),
            gain=("gain", "mean"), predicted=("predicted", "mean"),
        )  # fmt: skip
        weights = weights.reset_index()
        known = dict(enumerate([*classes, ""]))  # "" outside actions
        weights["label"] = weights["label"].map(known)
        write_whole(
            Path(f"{out}-frames.parquet"), lambda d, p: d.to_parquet(p, index=False), weights
        )
        Path(f"{raw}-frames.parquet").unlink()
    Path(f"{raw}.parquet").unlink()
    return curve


def answer_trial_job(
    features: str,
    durations: dict[str, dict[str, float]],
    truth: str,
    classes: dict[str, str],
    clock: dict,
    config: dict,
    recipe: dict,
    aligned: str,
    orders: dict[str, list[int]],
    seed: int,
    out: str,
    checkpoint: str,
) -> list[dict]:
    """`vlact.papers.actionvlm.experiments.answer_job`, its answers in `out`-texts.parquet, scored
    in `out`.parquet as in `trial_job`.
    """
    given = features, durations, truth, classes, clock, config, recipe, aligned, orders
    curve = answer_job(*given, seed, f"{out}-texts", checkpoint)
    table, answers = pd.read_parquet(truth), pd.read_parquet(f"{out}-texts.parquet")
    test = table[table["video"].isin(durations["test"])]
    groups = groups_of(test, list(classes))
    said = spoken(answers, list(classes), clock["step_s"], durations["test"])
    scores = [
        scored(test, said[said["condition"] == c], groups).assign(condition=c)
        for c in answers["condition"].unique()
    ]
    scores = pd.concat(scores, ignore_index=True).assign(model=ANSWERS, seed=seed)
    write_whole(Path(f"{out}.parquet"), lambda d, p: d.to_parquet(p, index=False), scores)
    return curve


HearJob, PriorJob = job_of(hear_job), job_of(prior_job, tracked=True)
TrialJob = job_of(trial_job, tracked=True)
AnswerTrialJob = job_of(answer_trial_job, tracked=True)
