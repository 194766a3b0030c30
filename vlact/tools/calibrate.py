"""Calibration of the arena on baselines only.

`python -m vlact.tools.calibrate PROFILE CSV SETTINGS SEEDS [vision|language]`

Settings are rows of numbers for `Arena`, as yaml: `[{seed: 901, pairs: 6, train: 2}]`. A world is
filmed from that seed, apart from those of the results. What is trained is vision alone and language
alone; ActionVLM itself is not run. Every setting that was tried is a row of the file.
"""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import yaml

from vlact import params
from vlact.papers.actionvlm.experiments import Variant
from vlact.papers.actionvlm.localizing import Problem
from vlact.papers.actionvlm.trials import trial_job
from vlact.params import Params
from vlact.report.tables import write_text
from vlact.runtime.jobs import key
from vlact.stages.arena import described, drawn, film, recipe_for, shape_of
from vlact.stages.stadium import durations_of
from vlact.worlds.arena import classes

BASELINES = (Variant("vision only"), Variant("language only", 1.0, vision=False))
FIRST_SEED = 900  # of a world: those of results are below
EASY, HARD = 5, 10  # the share of classes that is one, as in the paper: a fifth, a tenth


def tried(p: Params, row: int, only: str = "") -> list[dict]:
    """Baselines on one world, percent.

    Args:
        p: With the setting in `arena`.
        row: The seed of training.
        only: What the baseline's name begins with; both if empty.

    Raises:
        ValueError: A seed of a world that results may use.
    """
    if p.arena.seed < FIRST_SEED:
        raise ValueError(f"seed: expected {FIRST_SEED} or more; got {p.arena.seed}")
    a = p.arena
    world = {"seed": a.seed, "pairs": a.pairs, "seconds": a.bout_seconds, "test": a.test}
    world["pool"] = a.pool
    folder = p.scratch / "calibration" / key(world)
    (work := folder / "work").mkdir(parents=True, exist_ok=True)
    truth, features = film(p, folder, work)
    trained = described(classes(a.pairs))
    names, table = list(trained), folder / "truth.parquet"
    truth = truth[truth["label"].isin(names)]
    truth.drop(columns="split").to_parquet(table, index=False)
    durations = {
        "train": drawn(truth, row, a.train, names),
        "test": durations_of(truth, "test"),
    }
    shape, clock = shape_of(p, features, len(names)), {"step_s": p.tal.stride / p.stadium.fps}
    recipe, aligned, rows = recipe_for(p, a.train), str(p.data / "aligned"), []
    for variant in (v for v in BASELINES if v.name.startswith(only)):
        out = str(work / f"{variant.name}-{row}-{key(asdict(a), recipe)}")
        problem = Problem(features, durations, str(table), trained, clock, shape, recipe)
        trial_job(variant, problem, aligned, {}, row, out, f"{out}.pt")
        ap = pd.read_parquet(f"{out}.parquet").query("group == -1 and condition == 'own'")
        by = 100 * ap.groupby("label")["ap"].mean().sort_values()
        own = by.index.isin([k for k, x in classes(a.pairs).items() if not x.twin])
        rows.append(
            {"world": a.seed, "pairs": a.pairs, "train": a.train, "seconds": a.bout_seconds}
            | {"test": a.test, "epochs": a.epochs, "training seed": row, "model": variant.name}
            | {"mAP": by.mean(), "hard": by[: max(1, len(by) // HARD)].mean()}
            | {"easy": by[-(len(by) // EASY) :].mean()}
            | {"paired": by[~own].mean(), "alone": by[own].mean()}
        )
    return rows


def main(profile: str, csv: str, settings: str, rows: str = "0", only: str = "") -> int:
    """Try settings on so many training seeds, and add each to the file."""
    p, path = replace(params.load(profile), workers=1), Path(csv)
    for setting in yaml.safe_load(settings):
        for row in rows.split(","):
            mine = replace(p, arena=replace(p.arena, **setting))
            new = pd.DataFrame(tried(mine, int(row), only))
            print(new.round(1).to_string(index=False), flush=True)
            table = pd.concat([pd.read_csv(path), new]) if path.is_file() else new
            text = table.to_csv(index=False, lineterminator="\n", float_format="%.1f")
            write_text(path, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
