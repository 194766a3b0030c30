"""Stage `language_size`: ActionVLM in the arena with a language model of twice the layers.

The larger reader is aligned on the same drills, by the same recipe; what is trained with it is what
`vlact.stages.arena` trains with the smaller one, on the same recordings and seeds.
"""

import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pandas as pd

from vlact.datasets import activitynet
from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import CSV, Stage
from vlact.stages.arena import ARENA, arena, described, drawn, headline, recipe_for
from vlact.stages.localizers import shape_of
from vlact.stages.stadium import durations_of

SIZE = Stage("language_size", __name__, ("arena", "vlm", "tal", "align"), ARENA)
LARGER = 2  # times the layers: the paper's 3B has about twice the weights of 1.5B
NAMED = ", larger language model"


def aligned(p: Params, work: Path) -> Path:
    """A folder as that of stage `alignment`, with the larger reader; gate.csv has both readers."""
    from vlact.language.descriptions import WORDS
    from vlact.papers.actionvlm.alignment import AlignJob
    from vlact.worlds.arena import NAMES
    from vlact.worlds.stadium import ACTIONS

    small, folder = p.data / "aligned", work / "aligned"
    folder.mkdir(exist_ok=True)
    drills = json.loads((p.data / "stadium" / "drills.json").read_text(encoding="utf-8"))
    held_out = [v for v, d in drills.items() if d["split"] == "held out"]
    recipe = asdict(p.align) | {"layers": LARGER * p.align.layers}
    step_s = p.tal.stride / p.stadium.fps
    given = str(small / "features.safetensors"), drills, held_out, [*ACTIONS, *NAMES], step_s
    job = AlignJob(
        *given,
        p.tal.window,
        recipe,
        WORDS,
        0.0,
        str(folder / "reader.safetensors"),
        str(work / "reader.pt"),
        threads=p.align.threads,
    )
    _, gate = jobs.kept(work / "reader.json", lambda: jobs.run([job], 1, "larger reader")[0])
    before = pd.read_csv(small / "gate.csv").query("reader == 'language'")
    rows = pd.DataFrame([{"reader": f"language{NAMED}", **row} for row in gate])
    pd.concat([before, rows]).to_csv(folder / "gate.csv", **CSV)
    return folder


def language_size(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/arena/larger`: gate.csv, and scores of every row and seed (`rows/`), as the
    arena's.
    """
    folder = p.data / "arena" / "larger"
    arena(p, must_exist=True)
    if not SIZE.must_run(p, folder, must_exist):
        return
    from vlact.papers.actionvlm.localizing import Problem
    from vlact.papers.actionvlm.trials import TrialJob
    from vlact.worlds.arena import classes

    work, rows, here = SIZE.work(p), folder / "rows", p.data / "arena"
    rows.mkdir(exist_ok=True)
    reader = aligned(p, work)
    shutil.copy(reader / "gate.csv", folder / "gate.csv")
    truth = activitynet.ground_truth(here / "ground_truth.json", None)
    table = work / "ground_truth.parquet"
    truth.drop(columns="split").to_parquet(table, index=False)
    actions, features = described(classes(p.arena.pairs)), str(here / "features.safetensors")
    known = set(truth["video"][truth["label"].isin(list(actions))])
    test = {v: s for v, s in durations_of(truth, "test").items() if v in known}
    clock, shape = {"step_s": p.tal.stride / p.stadium.fps}, shape_of(p, features, len(actions))
    full, recipe, todo = headline()[-1], recipe_for(p, p.arena.train), []
    for seed in range(p.arena.ablation_seeds):
        durations = {"train": drawn(truth, seed, p.arena.train, list(actions)), "test": test}
        problem = Problem(features, durations, str(table), actions, clock, shape, recipe)
        variant, name = replace(full, name=f"{full.name}{NAMED}"), f"full-{seed}"
        files = {"out": str(rows / name), "checkpoint": str(work / f"{name}.pt")}
        job = TrialJob(variant, problem, str(reader), {"language off": None}, seed, **files)
        todo.append(partial(jobs.kept, rows / f"{name}.json", job))
    jobs.run(todo, p.workers, "a larger language model")
    SIZE.finish(p, folder)
