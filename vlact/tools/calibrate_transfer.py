"""Which recipe each model of the motion-transfer benchmark is trained by, and which weights the
terms of disentanglement have.

Clips, encoders and seeds are of a world of their own, `SEED`, which no table uses. A model's recipe
is judged by what it knows of new clips of the contexts that it was trained on (coarse motions,
set 1); what it knows of other contexts is neither computed nor kept. First the learning rate is
tried, as multiples of that in the parameters, for the epochs there; then fewer or more epochs at
the chosen one. The weights of terms are there for unknown contexts, so in this world they are
judged by these.

    python -m vlact.tools.calibrate_transfer vlact/tools/calibrate_transfer.yaml

adds what it measures to the table `vlact.report.results.transfer.CALIBRATION` and, of terms, to one
beside it, and prints what to set in params.yaml.
"""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from vlact import params
from vlact.language.motions import SETS, coarse_names, fine_names, taxonomy
from vlact.metrics.transfer import accuracies
from vlact.params import Params
from vlact.report.results.transfer import CALIBRATION, LEARNT
from vlact.report.tables import write_text
from vlact.runtime import jobs
from vlact.runtime.jobs import kept
from vlact.stages.disentangle import BASE, options_of
from vlact.stages.pretrain import trained_frames
from vlact.stages.synta import synta
from vlact.stages.transfer import (
    Row,
    prepared,
    recipe_of,
    rows_of,
    start_of,
    starts,
    words_of,
)
from vlact.stages.worlds import worlds

SEED = 100  # of the world, of encoders and of trainings; the profiles use 0 to 99
SET = 1  # that models are trained on
EVERY = 4  # every how many-th training clip says how well these are fitted
KEYS = ["model", "lr", "epochs", "train_ids"]


def world(profile: str, **changes) -> Params:
    """Parameters of a profile on the calibration world."""
    own = {"seeds": [SEED], "pretrain__more_seeds": [], "synta__seed": SEED, "world__seed": SEED}
    return params.load(profile, "calibration", **own | changes)


def tried(
    kind: str,
    options: dict,
    recipe: dict,
    frames: str,
    table: str,
    clip: str,
    words: str,
    weights: str,
) -> dict[str, float]:
    """Train a model on coarse motions: `known` and `fitted`, percent of new and of training clips.

    Args:
        kind, options, clip: See `vlact.papers.transfer.benchmark.build`.
        recipe: See `vlact.papers.transfer.benchmark.TransferBenchmark.train`.
        frames, table, words: See `vlact.papers.transfer.benchmark.transfer_job`.
        weights: Where the trained weights go.
    """
    from safetensors.torch import load_file

    from vlact.models import files
    from vlact.papers.transfer.benchmark import TransferBenchmark, build

    bench = TransferBenchmark.read(frames, table, taxonomy("Syn-TA"))
    known = load_file(words)
    model, _ = bench.train(
        lambda names: build(kind, names, options, clip, known), "coarse", SET, recipe, SEED, kind
    )
    truth = bench.table["coarse_id"].to_numpy()
    rows = {"known": bench.rows(SET, "val"), "fitted": bench.rows(SET, "train")[::EVERY]}
    files.save(weights, "transfer", {"kind": kind}, model.state_dict())
    return {k: 100 * float((bench.answer(model, r) == truth[r]).mean()) for k, r in rows.items()}


def tried_job(note: str, given: dict) -> dict[str, float]:
    """`tried` that leaves its numbers in a file, so that a killed search tries nothing twice."""
    return kept(Path(note), lambda: tried(**given))


class Search:
    """Recipes of one world.

    Args:
        p: From `world`.
        grid: `rates` (multiples of the learning rate) and `epochs` (multiples of the epochs).
    """

    def __init__(self, p: Params, grid: dict):
        self.p, self.grid = p, grid
        synta(p)
        worlds(p)
        seen = asdict(p.synta), asdict(p.world), p.transfer.train_ids, p.transfer.clip_frames
        self.work = p.scratch / f"calibration-{jobs.key(*seen)}"
        self.work.mkdir(parents=True, exist_ok=True)
        classes = taxonomy("Syn-TA")
        names = [*coarse_names(classes), *(n for s in SETS for n in fine_names(classes, s))]
        self.words = words_of(p, names, self.work / "words.safetensors")
        self.source = prepared(p, self.work, "realistic")
        self.clip = trained_frames(p, self.work, [SEED])[SEED]

    def file(self, row: Row, rate: float, more: float) -> Path:
        """Where a trial's numbers go."""
        t = self.p.transfer
        known = jobs.key(asdict(row), rate, more, t.train_ids, t.pretrain_epochs)
        return self.work / f"{row.label}-{known}.json"

    def run(self, todo: list[tuple[Row, float, float]]) -> list[dict]:
        """Try recipes: rows, multiples of their learning rate and of their epochs."""
        made, facts, before = [], [], self.work / "starts"
        starts(self.p, self.work, before, [row for row, *_ in todo], [SEED])
        for row, rate, more in todo:
            options, recipe = recipe_of(self.p, row.options)
            recipe |= {"lr": recipe["lr"] * rate, "epochs": round(recipe["epochs"] * more)}
            clip, note = self.clip, self.file(row, rate, more)
            if row.origin:
                clip = str(start_of(before, row.origin, SEED))
            if row.teacher:
                own = next(r for r in rows_of(self.p) if r.label == row.teacher)
                clip = str(self.file(own, 1.0, 1.0).with_suffix(".safetensors"))
            given = {"kind": row.kind, "options": options, "recipe": recipe, "clip": clip}
            given |= dict(zip(("frames", "table"), self.source, strict=True))
            weights = str(note.with_suffix(".safetensors"))
            made.append(
                partial(tried_job, str(note), given | {"words": self.words, "weights": weights})
            )
            facts.append(
                {"model": row.label, "lr": recipe["lr"], "epochs": recipe["epochs"]}
                | {"train_ids": self.p.transfer.train_ids, "seed": SEED}
            )
        found = jobs.run(made, self.p.workers, "recipes")
        return [fact | numbers for fact, numbers in zip(facts, found, strict=True)]

    def table(self, rows: list[Row]) -> pd.DataFrame:
        """Every trial of some rows: rates first; then, at the chosen rate, fewer epochs for a model
        that has reached `LEARNT`, more for one that has not.
        """
        first = self.run([(row, rate, 1.0) for row in rows for rate in self.grid["rates"]])
        best = chosen(pd.DataFrame(first), self.clips)
        more = []
        for row in rows:
            rate = best.loc[row.label, "lr"] / recipe_of(self.p, row.options)[1]["lr"]
            learnt = best.loc[row.label, "known"] >= LEARNT
            more += [(row, rate, x) for x in self.grid["epochs"] if (x < 1) == learnt]
        return pd.DataFrame(first + self.run(more))

    @property
    def clips(self) -> int:
        """Validation clips that recipes are judged by."""
        table = pd.read_parquet(self.source[1])
        return int(((table["set"] == SET) & (table["part"] == "val")).sum())


def chosen(log: pd.DataFrame, clips: int) -> pd.DataFrame:
    """The recipe of each model: fewest epochs that reach `LEARNT`, else those that know most; and
    for these the lowest rate within a standard error of the best.

    Args:
        log: `model, lr, epochs, known`.
        clips: That `known` is a share of.

    Returns:
        Rows of `log`, by model.
    """
    rows = []
    for _, mine in log.groupby("model", sort=False):
        best = mine.groupby("epochs")["known"].max()
        epochs = best.index[best >= LEARNT].min() if (best >= LEARNT).any() else best.idxmax()
        mine, share = mine[mine["epochs"] == epochs], best[epochs] / 100
        error = 100 * np.sqrt(share * (1 - share) / clips)
        rows.append(mine[mine["known"] >= 100 * share - error].sort_values("lr").iloc[0])
    return pd.DataFrame(rows).set_index("model")


def arms(search: Search, weights: dict[str, list[float]]) -> pd.DataFrame:
    """What weights of terms do in unknown contexts of this world, both directions.

    Args:
        search: Whose clips and encoder.
        weights: Numbers to try by parameter of `disentangle`.
    """
    from vlact.papers.transfer.benchmark import DisentangleJob

    p, todo, facts = search.p, [], []
    own = {"adversary": "gradient reversal", "independent": "HSIC", "decorrelate": "disentangled"}
    wanted = [(BASE, "", 0.0)] + [(own[k], k, w) for k, ws in weights.items() for w in ws]
    trunk = p.transfer.models[BASE] | {"frames": p.disentangle.frames}
    options, recipe = recipe_of(p, trunk, lr=p.disentangle.lr, epochs=p.disentangle.epochs)
    for arm, term, weight in wanted:
        design = options_of(p, arm) | ({term: weight} if term else {})
        for which in SETS:
            out = str(search.work / f"arm-{arm.replace(' ', '_')}-{weight}-{which}")
            given = arm, options, design, *search.source, taxonomy("Syn-TA"), which, recipe, SEED
            kept_at = search.clip, search.words, f"{out}.parquet", f"{out}.pt"
            todo.append(DisentangleJob(*given, *kept_at))
            facts.append({"term": term, "weight": weight})
    jobs.run(todo, p.workers, "weights of terms")
    found = [
        accuracies(pd.read_parquet(job.out)).assign(**fact)
        for job, fact in zip(todo, facts, strict=True)
    ]
    table = pd.concat(found).groupby(["model", "term", "weight"], sort=False)
    return table[["known", "unknown", "hm"]].mean().reset_index()


def main(settings: str) -> None:
    """Search what `settings` (yaml) asks for: `profile`, `models`, `rates`, `epochs`, `weights`."""
    s = yaml.safe_load(Path(settings).read_text(encoding="utf-8"))
    search = Search(world(s["profile"], **s.get("changes", {})), s)
    wanted = (r for r in rows_of(search.p) if (r.task, r.background) == ("coarse", "realistic"))
    rows = {r.label: r for r in wanted}
    rows = [r for label, r in rows.items() if label in s.get("models", rows)]
    parts = ([r for r in rows if bool(r.teacher) == late] for late in (False, True))
    new = pd.concat([search.table(part) for part in parts if part])
    old = pd.read_csv(CALIBRATION) if CALIBRATION.is_file() else new.head(0)
    log = pd.concat([old, new]).drop_duplicates(KEYS, keep="last").sort_values(KEYS)
    write_text(CALIBRATION, log.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    for label, best in chosen(new, search.clips).iterrows():
        wanted = {k: float(best[k]) for k in ("lr", "epochs", "known", "fitted")}
        sys.stdout.write(f"{label}: {json.dumps(wanted)}\n")
    if s.get("weights"):
        table = arms(search, s["weights"])
        path = CALIBRATION.with_name(f"{CALIBRATION.stem}_arms.csv")
        write_text(path, table.to_csv(index=False, lineterminator="\n", float_format="%.2f"))
        sys.stdout.write(f"{table.round(1).to_string(index=False)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
