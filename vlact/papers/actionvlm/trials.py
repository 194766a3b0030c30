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
from vlact.papers.actionvlm.localizing import Localizer, Problem, sequences, stack
from vlact.runtime.device import beside, put
from vlact.runtime.jobs import job_of, write_table, write_whole

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
    write_whole(Path(out), save_file, heard)


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
    problem: Problem,
    heard: str,
    unseen: dict[str, str],
    seed: int,
    out: str,
    checkpoint: str,
    controls: bool = True,
) -> list[dict]:
    """Vision alone, a prior that joins it at test, and one that it is trained with.

    Args:
        problem: Its classes are those that are trained.
        heard: From `hear_job`.
        unseen: See `hear_job`.
        seed, checkpoint: See `vlact.papers.actionvlm.localizing.localize_job`.
        out: Scores go to `out`.parquet: `model, condition, seed` and the columns of `scored`;
            detections under `KEPT` conditions to `out`-found.parquet.
        controls: Whether other hearings, noise and unseen classes are tested, too.

    Returns:
        The curve.
    """
    table, found, said = problem.actions(), load_file(problem.features), load_file(heard)
    names, durations = list(problem.classes), problem.durations
    time, recipe = problem.time, problem.recipe
    mean, std = standard(found, durations["train"])
    known = table["video"].isin(durations["train"]) & table["label"].isin(names)
    shape, curve, models = LocalizerConfig(**problem.config), [], {}
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

    test = problem.actions("test")
    groups, scores, kept = groups_of(test, [*names, *unseen]), [], []
    known = set(test["video"][test["label"].isin(names)])
    closed = {v: s for v, s in durations["test"].items() if v in known}
    worlds = [("", names, closed)]
    if controls:
        worlds.append(("open ", [*names, *unseen], durations["test"]))
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
    for stem, parts in ((out, scores), (f"{out}-found", kept)):
        write_table(f"{stem}.parquet", pd.concat(parts, ignore_index=True).assign(seed=seed))
    return curve


def write_scores(problem: Problem, found: dict[tuple, pd.DataFrame], out: str) -> dict[str, int]:
    """Scores of detections by model, condition and seed, in `out`.parquet; returns the test
    recordings' groups.
    """
    test = problem.actions("test")
    groups, keys = groups_of(test, list(problem.classes)), ("model", "condition", "seed")
    scores = [
        scored(test, part, groups).assign(**dict(zip(keys, key, strict=True)))
        for key, part in found.items()
    ]
    write_table(f"{out}.parquet", pd.concat(scores, ignore_index=True))
    return groups


def trial_job(
    variant: Variant,
    problem: Problem,
    aligned: str,
    conditions: dict,
    seed: int,
    out: str,
    checkpoint: str,
) -> list[dict]:
    """`vlact.papers.actionvlm.experiments.vision_language_job`, scored.

    Args:
        out: Scores go to `out`.parquet, detections to `out`-found.parquet (see `prior_job`), and
            what `frames_of` returns, means by group and class, to `out`-frames.parquet; the weights
            of the first group's steps to `out`-steps.parquet.
        variant, problem, aligned, conditions, seed, checkpoint: As there.

    Returns:
        The curve.
    """
    raw = f"{out}-raw"
    curve = vision_language_job(variant, problem, aligned, conditions, seed, raw, checkpoint)
    found = pd.read_parquet(f"{raw}.parquet")
    runs = dict(list(found.groupby(["model", "condition", "seed"], sort=False)))
    groups = write_scores(problem, runs, out)
    write_table(f"{out}-found.parquet", found[found["condition"].isin(KEPT)])
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
        known = dict(enumerate([*problem.classes, ""]))  # "" outside actions
        weights["label"] = weights["label"].map(known)
        write_table(f"{out}-frames.parquet", weights)
        # of the first group every step, for a picture
        steps = frames.loc[frames["group"] == 0, ["video", "step", "weight"]]
        write_table(f"{out}-steps.parquet", steps)
        Path(f"{raw}-frames.parquet").unlink()
    Path(f"{raw}.parquet").unlink()
    return curve


def answer_trial_job(
    problem: Problem,
    aligned: str,
    orders: dict[str, list[int]],
    seed: int,
    out: str,
    checkpoint: str,
) -> list[dict]:
    """`vlact.papers.actionvlm.experiments.answer_job`, its answers in `out`-texts.parquet, scored
    in `out`.parquet as in `trial_job`.
    """
    curve = answer_job(problem, aligned, orders, seed, f"{out}-texts", checkpoint)
    answers = pd.read_parquet(f"{out}-texts.parquet")
    seconds, names = problem.durations["test"], list(problem.classes)
    said = spoken(answers, names, problem.time.step_s, seconds)
    asked = answers["condition"].unique()
    runs = {(ANSWERS, c, seed): said[said["condition"] == c] for c in asked}
    write_scores(problem, runs, out)
    return curve


HearJob, PriorJob = job_of(hear_job), job_of(prior_job, tracked=True)
TrialJob = job_of(trial_job, tracked=True)
AnswerTrialJob = job_of(answer_trial_job, tracked=True)
