"""Stage `arena`: the calibrated world on disk, what language says of it, and every row of
ActionVLM's tables there, by seed and group of recordings.

Seed number i trains on recordings that it draws from a pool; all are tested on the same ones.
Vision alone and priors run on `arena.seeds` seeds, rows that are trained with language on
`arena.literal_seeds`, ablations on `arena.ablation_seeds`. A job whose scores are there is not run
again, so that a stopped stage goes on with the next.
"""

import json
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd

from vlact.datasets import activitynet
from vlact.language.descriptions import describe
from vlact.params import Params
from vlact.runtime import jobs
from vlact.runtime.jobs import write_whole
from vlact.stages import Stage
from vlact.stages.alignment import ALIGNMENT, alignment, extract
from vlact.stages.localizers import recipe_of, shape_of
from vlact.stages.stadium import durations_of

ARENA = Stage("arena", __name__, ("arena", "vlm", "tal"), ALIGNMENT)

WITH = "fixed λ = 1.0"  # the row that ablations take a part from
TEXTS = ("names", "random text", "noise")  # what language may read by a name


def headline():
    """Rows that are trained with language, on every seed; vision alone is `PriorJob`'s."""
    from vlact.papers.actionvlm.experiments import Variant

    return [
        Variant("language only", 1.0, vision=False),
        Variant(WITH, 1.0),
        Variant("full (Eq. 1)", "eq1"),
    ]


def ablations():
    """Rows that run on some seeds."""
    from vlact.papers.actionvlm.experiments import Variant

    curve = [Variant(f"fixed λ = {x}", x) for x in (0.2, 0.4, 0.6, 0.8)]
    return [
        *curve,
        Variant("learnable λ w/o L_adv", "learned"),
        Variant(f"{WITH}, noise", 1.0, lm="noise"),
        Variant(f"{WITH}, w/o T_desc", 1.0, described=False, ground=False),
        Variant(f"{WITH}, w/o special tokens", 1.0, read_from=("vis", "vis", "vis")),
        Variant(f"{WITH}, w/o [loc]", 1.0, read_from=("cls", "cls", "adv")),
        Variant(f"{WITH}, w/o L_tg", 1.0, text_weight=0.0),
        Variant("full (Eq. 1), means lost", "eq1", repaired=False),
        Variant("full, paired advantage", "paired"),
    ]


def described(actions: dict) -> dict[str, str]:
    """Class to description."""
    return {k: describe([b.pose for b in a.beats]) for k, a in actions.items()}


def drawn(truth: pd.DataFrame, seed: int, count: int, classes: list[str]) -> dict[str, float]:
    """Seconds of the recordings that a seed trains on, `count` of each class from the pool; a
    larger draw holds the smaller ones.
    """
    pool = truth[truth["split"] == "train"].drop_duplicates("video")
    own = pool["video"].str.split("_").str[2]
    out = {}
    for k, label in enumerate(classes):
        mine = pool[own == label.lower()].sort_values("video")
        order = np.random.default_rng((seed, k)).permutation(len(mine))[:count]
        out |= dict(mine.iloc[order][["video", "duration_s"]].itertuples(index=False, name=None))
    return out


def film(p: Params, folder, work) -> tuple[pd.DataFrame, str]:
    """Recordings, ground_truth.json, events.json and features.safetensors; returns the ground truth
    of all splits and the features' path.
    """
    from vlact.models.poses import PoseEncoder
    from vlact.worlds import arena, broadcast

    a, size, fps = p.arena, p.stadium.size, float(p.stadium.fps)
    planned = arena.bouts({"train": a.pool, "test": a.test}, a.bout_seconds, a.seed, a.pairs)
    todo = [partial(broadcast.film_job, b, str(folder), str(work), size, fps) for b in planned]
    found = jobs.run(todo, p.workers, "filming the arena")
    rows = [
        {"video": f["video"], "split": f["split"], "duration_s": f["duration_s"], **one}
        for f in found
        for one in f["annotations"]
    ]
    truth = pd.DataFrame(rows)
    activitynet.write_ground_truth(truth, folder / "ground_truth.json")
    events = {f["video"]: {"distractors": f["distractors"], "poses": f["poses"]} for f in found}
    write_whole(
        folder / "events.json",
        lambda d, f: f.write_text(json.dumps(d) + "\n", encoding="utf-8"),
        events,
    )
    path = folder / "features.safetensors"
    if not path.is_file():
        eye = p.data / "aligned" / "eye.safetensors"
        names = [f["video"] for f in found]
        extract(p, PoseEncoder, eye, folder, names, fps, work, path)
    return truth, str(path)


def recipe_for(p: Params, count: int) -> dict:
    """Training and test on `count` recordings a class: as many steps whatever their number."""
    a, recipe = p.arena, recipe_of(p) | asdict(p.vlm)
    recipe |= {"epochs": a.epochs * a.train / count, "pre_nms_topk": a.pre_nms_topk}
    return recipe | {"nms": recipe["nms"] | {"max_seg_num": a.max_seg_num}}


def planned(p: Params, truth: pd.DataFrame, features: str, folder, work) -> dict:
    """Every job by name, those first that most depends on.

    Args:
        truth, features: From `film`.
        folder: Of the stage's output.
        work: For what a killed run goes on from.
    """
    from vlact.metrics.proposals import derangements
    from vlact.papers.actionvlm.localizing import Problem
    from vlact.papers.actionvlm.trials import AnswerTrialJob, PriorJob, TrialJob
    from vlact.worlds.arena import classes, unseen

    a, table = p.arena, work / "ground_truth.parquet"
    truth.drop(columns="split").to_parquet(table, index=False)
    trained, others = described(classes(a.pairs)), described(unseen())
    names, shape = list(trained), shape_of(p, features, len(trained))
    clock, aligned = {"step_s": p.tal.stride / p.stadium.fps}, str(p.data / "aligned")
    test = durations_of(truth, "test")
    known = set(truth["video"][truth["label"].isin(names)])
    closed = {v: s for v, s in test.items() if v in known}
    order = [int(i) for i in derangements(len(names), 1)[0]]
    controls = {"language off": None, "deranged": order} | {k: k for k in TEXTS}
    out: dict = {}

    def files(name: str) -> dict:
        return {"out": str(folder / "rows" / name), "checkpoint": str(work / f"{name}.pt")}

    def problem(seed: int, count: int, test: dict[str, float]) -> Problem:
        durations = {"train": drawn(truth, seed, count, names), "test": test}
        given = features, durations, str(table), trained, clock, shape
        return Problem(*given, recipe_for(p, count))

    def prior(name: str, seed: int, count: int, **more) -> None:
        given = problem(seed, count, test), str(folder / "heard.safetensors"), others, seed
        out[name] = PriorJob(*given, **files(name), **more)

    for seed in range(a.seeds):
        prior(f"prior-{seed}", seed, a.train)
    for count in a.sweep:
        for seed in range(a.sweep_seeds):
            prior(f"scarce{count}-{seed}", seed, count, controls=False)
    rows = [(v, s, True) for s in range(a.literal_seeds) for v in headline()]
    rows += [(v, s, False) for s in range(a.ablation_seeds) for v in ablations()]
    for variant, seed, full in rows:
        given = problem(seed, a.train, closed), aligned
        told = controls if full else {"language off": None}
        name = f"{variant.name.replace(' ', '_').replace('/', '')}-{seed}"
        out[name] = TrialJob(variant, *given, told, seed, **files(name))
    for seed in range(a.ablation_seeds):
        given = problem(seed, a.train, closed), aligned
        name = f"answers-{seed}"
        out[name] = AnswerTrialJob(*given, {"deranged": order}, seed, **files(name))
    return out


def arena(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/arena`: recordings, ground_truth.json, events.json, features, what language
    said (heard.safetensors), and of every row and seed scores, detections, frames and curve
    (`rows/`); see `vlact.papers.actionvlm.trials`.
    """
    folder = p.data / "arena"
    if not ARENA.must_run(p, folder, must_exist):
        return
    from vlact.papers.actionvlm.trials import HearJob
    from vlact.worlds.arena import classes, unseen

    alignment(p, must_exist=True)
    work, rows = ARENA.work(p), folder / "rows"
    rows.mkdir(exist_ok=True)
    truth, features = film(p, folder, work)
    heard = folder / "heard.safetensors"
    if not heard.is_file():
        videos, read = list(truth["video"].unique()), str(p.data / "aligned")
        texts = described(classes(p.arena.pairs)), described(unseen())
        HearJob(features, videos, *texts, read, str(heard))()
    todo = planned(p, truth, features, folder, work)
    kept = [partial(jobs.kept, rows / f"{name}.json", job) for name, job in todo.items()]
    jobs.run(kept, p.workers, "the arena")
    ARENA.finish(p, folder)
