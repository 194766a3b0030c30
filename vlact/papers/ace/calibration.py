"""Which world and pretraining put ACE's *baselines* where the paper has them.

A candidate is a handful of changed parameters. It is rendered and pretrained with seeds of its own
(no figure uses them), and three baselines are measured: the pretrained model without fine-tuning on
unseen actions, ProcVLR and an image model (ViFi-CLIP) after fine-tuning on seen ones. ACE is never
run here, so nothing can be tuned towards it. The log says what was tried and how far each candidate
is from the published values, in points:

    python -m vlact.papers.ace.calibration candidates.yaml log.csv
"""

import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import yaml

from vlact import params
from vlact.metrics.selection import choose
from vlact.papers.ace.trials import Trial
from vlact.report import published
from vlact.runtime import jobs

SEED = 100  # of worlds and of pretraining; the profiles use 0 to 9
EPOCHS, LRS = [3, 9], [0.008]  # of the baselines, chosen on base validation
CLOSE = 10.0  # points from the published value that count as matched
BASELINES = {  # name here: trial, the paper's row, what is compared
    "zero-shot": ("zero_shot", "pretraining=yes, ACE=no", "unseen"),
    "ProcVLR": ("procvlr", "ProcVLR", "seen"),
    "ViFi-CLIP (ft)": ("vifi", "ViFi (ft)", "seen"),
}


def targets() -> pd.DataFrame:
    """Published accuracies, percent: `dataset, baseline, split, published`, NaN where none is."""
    tables = pd.concat([published.read(f"ace_table{n}") for n in (1, 2, 5)])
    tables = tables[(tables["metric"] == "acc") & (tables["setting"] != "srt")]
    rows = []
    for dataset in ("ata", "ikea", "gtea"):
        mine = tables[tables["dataset"].str.lower().str.startswith(dataset)]
        for name, (_, row, split) in BASELINES.items():
            found = mine[(mine["method"] == row) & (mine["split"] == split)]["mean"]
            value = float(found.iloc[0]) if len(found) else float("nan")
            rows.append({"dataset": dataset, "baseline": name, "split": split, "published": value})
    return pd.DataFrame(rows)


def trials(depth: int) -> list[Trial]:
    """The baselines of every dataset; the image model is trained whole, as in the paper."""
    whole = {"vifi": {"start": "clip", "text_blocks": 1, "blocks": depth}}
    return [
        Trial(d, name, method, **whole.get(method, {}))
        for d in ("ata", "ikea", "gtea")
        for name, (method, *_) in BASELINES.items()
    ]


def measure(name: str, changes: dict) -> pd.DataFrame:
    """Baselines of one candidate: the columns of `targets`, with `candidate, here, distance, verb,
    object` (validation accuracies of pretraining, percent).

    Args:
        name: Of the candidate.
        changes: `section__name: value` over profile `study`.
    """
    from vlact.stages.ace import Bench
    from vlact.stages.pretrain import pretraining
    from vlact.stages.worlds import WORLDS, worlds

    p = params.load("study", "calibration", seeds=[SEED], world__seed=SEED, **changes)
    # candidates on one world share its files
    p = params.load(
        "study",
        f"calibration-{WORLDS.key(p)}",
        seeds=[SEED],
        world__seed=SEED,
        workers=1,
        **changes,
    )
    worlds(p)
    pretraining(p)
    work = p.scratch / "calibration" / jobs.key(name, asdict(p))
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(p, trials(p.model.depth), work)
    bench.keep()
    todo = [bench.job(t, SEED, LRS, EPOCHS) for t in bench.trials.values()]
    grid = pd.DataFrame([row for rows in jobs.run(todo, 1, name) for row in rows])
    cells = grid.merge(choose(grid), on=["dataset", "model", "leaf", "test", "lr", "epoch"])
    cells = cells.set_index(["dataset", "model"])
    curve = pd.read_csv(p.data / "pretrained" / "curves.csv").query("stage == 'trunk'").iloc[-1]
    rows = targets()
    rows["here"] = [
        100 * float(cells.loc[(r.dataset, r.baseline), f"{r.split}_acc"]) for r in rows.itertuples()
    ]
    rows["distance"] = (rows["here"] - rows["published"]).abs()
    rows.insert(0, "candidate", name)
    said = "; ".join(f"{k}: {v}" for k, v in changes.items()) or "none"
    return rows.assign(
        verb=100 * curve["val_verb"], object=100 * curve["val_object"], seed=SEED, changes=said
    ).round(1)


def summary(log: pd.DataFrame) -> pd.DataFrame:
    """A row a candidate: what the baselines reach, and the largest and mean distance in points."""
    named = log.assign(what=log["dataset"].str.upper() + " " + log["baseline"])
    wide = named.pivot(index="candidate", columns="what", values="here")
    wide = wide.reindex(columns=named["what"].unique(), index=log["candidate"].unique())
    by = log.groupby("candidate", sort=False)
    facts = by[["verb", "object"]].first()
    facts["mean distance"] = by["distance"].mean().round(1)
    facts["largest distance"] = by["distance"].max()
    facts["matched"] = by["distance"].apply(lambda x: f"{(x <= CLOSE).sum()}/{x.notna().sum()}")
    return wide.join(facts)


def main(candidates: str, log: str) -> None:
    """Measure every candidate of a yaml file (name to changes) that the log lacks."""
    path = Path(log)
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["candidate"])
    for name, changes in yaml.safe_load(Path(candidates).read_text(encoding="utf-8")).items():
        if name not in set(done["candidate"]):
            done = pd.concat([done, measure(name, changes or {})], ignore_index=True)
            done.to_csv(path, index=False, lineterminator="\n")
    print(summary(done).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
