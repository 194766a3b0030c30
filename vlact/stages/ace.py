"""Stages `ace_train` and `ace_sweeps`: every trained model of the ACE tables and figures.

The grid (every method of Tables 1-3 and 6 on every dataset) is trained at each rate and tested at
each epoch; the choice is made on base-class validation. The sweeps (Tables 4-5, Figures 3-4) are
trained at the schedule chosen for ACE on their dataset. Seed number i takes fold i of the datasets
that have folds, so that folds and seeds vary together; `paper` has one seed a fold of IKEA.
"""

import shutil
import warnings
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.language import tasks
from vlact.language.trees import Trees, context_free, phrase
from vlact.papers.ace.trials import (
    Files,
    KeepJob,
    Trial,
    TuneJob,
    concept_job,
    kept_file,
    plan_texts,
)
from vlact.params import Ace, Params
from vlact.runtime import jobs
from vlact.runtime.jobs import write_whole
from vlact.stages import Stage
from vlact.stages.pretrain import PRETRAIN, frames_of, pretraining

ACE = Stage(
    "ace",
    __name__,
    ("ace",),
    PRETRAIN,
)  # fmt: skip
SWEEPS = Stage("ace_sweeps", __name__, (), ACE)

FOLDED = ("ikea", "gtea")
NAMES = {"ata": "ATA", "ikea": "IKEA", "gtea": "GTEA"}
BOTH = (False, True)


def grid_trials() -> list[Trial]:
    """Tables 1, 2, 3 and 6, with the controls that they lack."""
    from vlact.models.zoo.ace import LITERAL, SLOW

    out = []
    for d in tasks.DATASETS:
        out += [
            Trial(d, "zero-shot CLIP", "zero_shot", "clip"),
            Trial(d, "ViFi-CLIP (ft)", "vifi", "clip", text_blocks=1),
            Trial(d, "ViFi-CLIP (pr)", "vifi_prompts", "clip"),
            Trial(d, "BIKE", "bike", "clip"),
            Trial(d, "Text4Vis", "text4vis", "clip"),
            Trial(d, "zero-shot", "zero_shot", leaf=BOTH),
            Trial(d, "ProcVLR", "procvlr", leaf=BOTH, wise_ft=BOTH),
            Trial(d, "ProcVLR + text proj.", "procvlr", leaf=BOTH, options={"train_text": 1.0}),
            Trial(
                d, "ProcVLR + slow text proj.", "procvlr", leaf=BOTH, options={"train_text": 0.1}
            ),
            Trial(d, "ACE", "ace", leaf=(True,), wise_ft=BOTH, options=LITERAL),
            Trial(d, "ACE slow", "ace", leaf=(True,), wise_ft=BOTH, options=SLOW),
        ]
    out.append(Trial("gtea", "LaViLa", "lavila", "vlog", options={"train_text": 1.0}))
    for d in ("ata", "ikea"):
        for name, change in (
            ("leaf augmentation", "leaf"),
            ("shadow negatives", "shadow"),
            ("L_rand", "rand"),
            ("L_fixed", "fixed"),
        ):
            out.append(
                Trial(
                    d,
                    f"w/o {name}",
                    "ace",
                    leaf=(change != "leaf",),
                    options=LITERAL | {change: False},
                )
            )
        out += [
            Trial(d, "ProcVLR, verbs only", "procvlr", leaf=BOTH, wise_ft=BOTH, verb_only=True),
            Trial(
                d,
                "ACE, verbs only",
                "ace",
                leaf=(True,),
                wise_ft=BOTH,
                options=LITERAL,
                verb_only=True,
            ),
        ]
    return out


def sweep_trials(m: int, depth: int, usual: int) -> list[Trial]:
    """Tables 4 and 5, Figures 3 and 4, for ATA's trees of size `m` and a tower of `depth` blocks of
    which `usual` are trained.
    """
    from vlact.models.zoo.ace import LITERAL, SLOW

    ace = Trial("ata", "", "ace", leaf=(True,), options=LITERAL)
    trees = ("shipped", "manual")
    out = [replace(ace, dataset="gtea", name=f"{t} tree", tree=t, tests=trees) for t in trees]
    for d in ("gtea", "ata"):
        free = replace(
            ace,
            dataset=d,
            name="context-free tree",
            tree="context-free",
            tests=("shipped", "context-free"),
        )
        out += [
            replace(free, wise_ft=BOTH),
            replace(free, name="context-free tree, slow", wise_ft=BOTH, options=SLOW),
        ]
    sizes = sorted({1, 3, (m + 1) // 2, m})
    out += [
        replace(ace, name=f"{a} first, {m} second", tree=f"{a}x{m}", leaf=(True,)) for a in sizes
    ]
    out += [
        replace(ace, name=f"{m} first, {b} second", tree=f"{m}x{b}", leaf=(True,))
        for b in sizes[:-1]
    ]
    out += [replace(ace, name="no synonym", tree="1x1")]
    for d in ("ata", "ikea"):
        out += [replace(ace, dataset=d, name="random start", start="random")]
        out += [
            replace(ace, dataset=d, name=f"{k} video blocks", blocks=k)
            for k in sorted({0, depth} - {usual})
        ]
        out += [replace(ace, dataset=d, name="text frozen", options=LITERAL | {"train_text": 0.0})]
    out += [replace(ace, name=f"{k} text blocks", text_blocks=k) for k in (1, 2)]
    return out


@cache
def shipped(name: str) -> Trees:
    """A shipped tree file, read once."""
    return Trees.load(name)


@cache
def trees_of(dataset: str, kind: str, most: int) -> Trees:
    """Trees by the words of `Trial.tree`, with at most `most` children a node."""
    trees = shipped(f"{dataset}_manual" if kind == "manual" else dataset)
    trees = trees.limited(min(most, trees.m), min(most, trees.m))
    if kind == "context-free":
        from vlact.models.text import sentence_encoder

        return context_free(trees, sentence_encoder())
    return trees.limited(*map(int, kind.split("x"))) if kind[0].isdigit() else trees


@cache
def whole_task(dataset: str, idle: bool) -> tasks.Task:
    """The task with its shipped trees."""
    return tasks.dataset(dataset, shipped(dataset), idle)


def tasks_of(trial: Trial, ace: Ace) -> dict[str, tasks.Task]:
    """Name of each test tree to its task; base verbs always keep the training tree, which comes
    first.
    """
    own, out = trees_of(trial.dataset, trial.tree, ace.children), {}
    for kind in trial.tests or (trial.tree,):
        trees = own.with_roots(
            trees_of(trial.dataset, kind, ace.children),
            [v for v, _ in tasks.DATASETS[trial.dataset][1]],
        )
        task = whole_task(trial.dataset, ace.idle)
        task = (
            replace(task, trees=trees)
            if kind != "manual"
            else tasks.named_by_tree(replace(task, trees=trees, srt=task.srt[:1]))
        )
        out[kind] = tasks.verb_only(task) if trial.verb_only else task
    return out


def clip_table(
    table: pd.DataFrame,
    task: tasks.Task,
    needed=(("train", "base"), ("val", "base"), ("test", "novel")),
) -> pd.DataFrame:
    """Rows of the annotation table that the task uses, with class numbers.

    Adds `clip` (row of the annotation table), `mode` ("base" or "novel"), `part` ("train" or
    "test") and the class number `label` within its mode. Novel actions outside the test split are
    left out. A base class without a training clip stays a candidate and its test clips count, with
    a warning.

    Raises:
        ValueError: A label that is no action of the task, or a split without a clip that it needs.
    """
    unknown = sorted(set(table["label"]) - set(task.classes))
    if unknown:
        row = int(table.index[table["label"] == unknown[0]][0])
        raise ValueError(
            f"line {row + 2}: unknown label {unknown[0]!r}; expected one of {sorted(task.classes)}"
        )
    out = pd.DataFrame(
        {
            "clip": np.arange(len(table)),
            "split": table["split"].to_numpy(),
            "mode": [task.classes[x][0] for x in table["label"]],
            "label": [task.classes[x][1] for x in table["label"]],
        }
    )
    out["part"] = np.where(out["split"] == "train", "train", "test")
    out = out[(out["mode"] == "base") | (out["split"] == "test")].reset_index(drop=True)
    for split, mode in needed:
        if not ((out["split"] == split) & (out["mode"] == mode)).any():
            raise ValueError(
                f"split {split!r} has no clip of a {mode} action; expected some for "
                f"{' and '.join(map(str, needed))}"
            )
    trained = set(out["label"][out["part"] == "train"])
    if missing := [phrase(*a) for i, a in enumerate(task.base) if i not in trained]:
        warnings.warn(
            f"{task.name}: no training clip of the base classes {missing}; they stay candidates",
            stacklevel=2,
        )
    return out


def fold(table: pd.DataFrame, number: int) -> pd.DataFrame:
    """Leave one group out: all clips of group `number` (of the sorted groups, counted round) become
    the test split.
    """
    groups = sorted(table["group"].unique())
    return table.assign(
        split=table["split"].where(table["group"] != groups[number % len(groups)], "test")
    )


class Bench:
    """Files, words and clips of every seed and dataset, made once and shared by all trials of a
    stage.
    """

    def __init__(self, p: Params, trials: list[Trial], work: Path):
        from safetensors.torch import save_file

        from vlact.models.text import sentence_encoder
        from vlact.worlds.corpus import CAPTIONS
        from vlact.worlds.things import TUTORIAL_OBJECTS

        self.p, self.work = p, work
        self.ace = asdict(p.ace) | {
            "lexicon": sorted({*(w for ws in CAPTIONS.values() for w in ws[:3]), *TUTORIAL_OBJECTS})
        }
        self.tests = {self.id(t): tasks_of(t, p.ace) for t in trials}
        self.trials = {self.id(t): t for t in trials}
        self.files: dict[tuple[str, bool, int], Files] = {}
        for d in dict.fromkeys(t.dataset for t in trials):
            annotations, frames = frames_of(p, d, p.ace.window_s, p.ace.views)
            mine = [t for t in trials if t.dataset == d]
            words = {
                w
                for t in mine
                for task in self.tests[self.id(t)].values()
                for w in (*task.texts(), *plan_texts(task), *(x for *_, x in task.nodes()))
            }
            words = sorted(words | set(self.ace["lexicon"]))
            path = work / f"{d}-words.safetensors"
            if not path.is_file():
                write_whole(
                    path,
                    save_file,
                    dict(zip(words, sentence_encoder(p.model.text)(words), strict=True)),
                )
            for verb_only in sorted({t.verb_only for t in mine}):
                task = next(
                    iter(
                        self.tests[
                            self.id(next(t for t in mine if t.verb_only == verb_only))
                        ].values()
                    )
                )
                for i, s in enumerate(p.seeds):
                    table = clip_table(fold(annotations, i) if d in FOLDED else annotations, task)
                    table_file = work / f"{d}-{'verbs-' if verb_only else ''}{s}.parquet"
                    table.to_parquet(table_file, index=False)
                    encoders = {"pretrained": "seed", "vlog": "vlog", "clip": "frames"}
                    encoders = {
                        k: str(p.data / "pretrained" / f"{name}{s}.safetensors")
                        for k, name in encoders.items()
                    }
                    kept = (
                        p.scratch / "kept" / ACE.key(p) / f"{d}-{'verbs-' if verb_only else ''}{s}"
                    )
                    self.files[d, verb_only, s] = Files(
                        encoders, str(frames), str(path), str(table_file), str(kept)
                    )

    @staticmethod
    def id(trial: Trial) -> str:
        return f"{trial.dataset}-{trial.name}".replace("/", "").replace(" ", "_")

    def file(self, trial: Trial, seed: int) -> Files:
        return self.files[trial.dataset, trial.verb_only, seed]

    def keep(self) -> None:
        """Activations of every frozen part that some trial starts from."""
        todo = {}
        for trial in self.trials.values():
            for s in self.p.seeds:
                files = self.file(trial, s)
                task = next(iter(self.tests[self.id(trial)].values()))
                todo.setdefault(
                    kept_file(trial, files, self.ace),
                    KeepJob(trial, files, task, asdict(self.p.model), self.ace, s),
                )
        jobs.run(list(todo.values()), self.p.workers, "frozen blocks")

    def job(
        self,
        trial: Trial,
        seed: int,
        lrs: list[float],
        epochs: list[int],
        model_out: str | None = None,
    ) -> TuneJob:
        given = self.file(trial, seed), self.tests[self.id(trial)], asdict(self.p.model), self.ace
        out = str(self.out(trial, seed, Path(model_out).stem if model_out else ""))
        return TuneJob(trial, *given, lrs, epochs, seed, out, model_out)

    def out(self, trial: Trial, seed: int, suffix: str = "") -> Path:
        """Where a job's predictions go."""
        return self.work / f"{self.id(trial)}-s{seed}{suffix}.parquet"


def ace(p: Params, must_exist: bool = False) -> None:
    """The whole grid: `data/<workspace>/ace/scores.csv`, the chosen cells' predictions, and what
    the figures need.
    """
    folder = p.data / "ace"
    if not ACE.must_run(p, folder, must_exist):
        return
    from vlact.metrics.selection import choose

    pretraining(p, must_exist=True)
    bench = Bench(p, grid_trials(), ACE.work(p))
    bench.keep()
    todo = [
        bench.job(t, s, list(p.ace.lrs), list(p.ace.epochs))
        for t in bench.trials.values()
        for s in p.seeds
    ]
    scores = pd.DataFrame(
        [row for rows in jobs.run(todo, p.workers, "fine-tuning grid") for row in rows]
    )
    chosen = choose(scores)
    cells = [k for k in ("dataset", "model", "leaf", "test", "lr", "epoch") if k in chosen]
    found = [
        pd.read_parquet(bench.out(t, s)).merge(chosen[cells], on=cells)
        for t in bench.trials.values()
        for s in p.seeds
    ]
    predictions = pd.concat(found, ignore_index=True).astype(
        {c: "category" for c in ("dataset", "model", "test", "split", "mode")}
    )
    for d in tasks.DATASETS:
        models, keep = {}, []
        for name in ("ProcVLR", "ACE", "ACE, halfway"):
            trial = bench.trials[bench.id(Trial(d, name.removesuffix(", halfway"), ""))]
            trial = replace(trial, wise_ft=("halfway" in name,))
            cell = chosen[
                (chosen["dataset"] == d)
                & (chosen["model"] == name)
                & (chosen["leaf"] == trial.leaf[0])
            ].iloc[0]
            out = str(folder / f"{d}-{name.lower().replace(', ', '_')}.safetensors")
            keep.append(
                bench.job(trial, p.seeds[0], [float(cell["lr"])], [int(cell["epoch"])], out)
            )
            models[name] = (out, trial.leaf[0])
        jobs.run(keep, p.workers, f"chosen models of {NAMES[d]}")
        models = {
            "pretrained": (bench.file(trial, p.seeds[0]).encoders["pretrained"], False),
            **models,
        }
        task, files = bench.tests[bench.id(trial)]["shipped"], bench.file(trial, p.seeds[0])
        source = str(kept_file(trial, files, bench.ace))
        concept_job(
            models,
            files,
            source,
            task,
            p.ace.tau,
            p.ace.trained_blocks,
            p.ace.views,
            str(folder / d),
        )
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    scores.to_csv(folder / "scores.csv", index=False, lineterminator="\n", float_format="%.6f")
    ACE.finish(p, folder)


def ace_sweeps(p: Params, must_exist: bool = False) -> None:
    """Trees, starts, numbers of synonyms and trained layers at ACE's chosen schedule:
    `data/<workspace>/ace_sweeps/scores.csv`.
    """
    folder = p.data / "ace_sweeps"
    if not SWEEPS.must_run(p, folder, must_exist):
        return
    from vlact.metrics.selection import choose

    ace(p, must_exist=True)
    m = min(p.ace.children, shipped("ata").m)
    bench = Bench(p, sweep_trials(m, p.model.depth, p.ace.trained_blocks), SWEEPS.work(p))
    bench.keep()
    chosen = (
        choose(pd.read_csv(p.data / "ace" / "scores.csv"))
        .query("model == 'ACE'")
        .set_index("dataset")
    )
    todo = []
    for trial in bench.trials.values():
        cell = chosen.loc[trial.dataset]
        todo += [bench.job(trial, s, [float(cell["lr"])], [int(cell["epoch"])]) for s in p.seeds]
    scores = pd.DataFrame([row for rows in jobs.run(todo, p.workers, "sweeps") for row in rows])
    scores.to_csv(folder / "scores.csv", index=False, lineterminator="\n", float_format="%.6f")
    SWEEPS.finish(p, folder)
    shutil.rmtree(p.scratch / "kept", ignore_errors=True)
