"""Stages `ace_train` and `ace_sweeps`: every trained model of the ACE tables and figures.

The grid (every method of Tables 1-3 and 6 on every dataset) is trained at each rate and tested at
each epoch, on the first seeds; the choice is made on base-class validation. At the chosen cell a
method is then trained as often as its design says (`DESIGNS`): pretraining seeds, all folds of the
datasets that have folds, several fine-tunings. The sweeps (Tables 4-5, Figures 3-4) are trained at
the schedule chosen for ACE on their dataset. Where a design has one fold a seed, seed number i
takes fold i, so that folds and seeds vary together.
"""

import shutil
import warnings
from dataclasses import asdict, dataclass, replace
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
from vlact.stages import CSV, Stage
from vlact.stages.pretrain import PRETRAIN, frames_of, pretraining

ACE = Stage(
    "ace",
    __name__,
    ("ace",),
    PRETRAIN,
)  # fmt: skip
SWEEPS = Stage("ace_sweeps", __name__, (), ACE)

FOLDED = ("ikea", "gtea")
# how often a trial is trained at its chosen cell: seeds ("all", or the grid's), all folds or one a
# seed, the profile's fine-tunings or one
DESIGNS = {
    "headline": ("all", True, True),
    "rival": ("all", True, False),
    "claim": ("all", False, False),
    "some": ("grid", False, False),
}
KNOWN = ", names known"  # to pretraining: rows that start from the familiar encoder
NAMES = {"ata": "ATA", "ikea": "IKEA", "gtea": "GTEA"}
BOTH = (False, True)


def grid_trials(p: Params) -> list[Trial]:
    """Tables 1, 2, 3 and 6, with the controls that they lack.

    Image models are trained whole, as in their papers; `ace.text_blocks` says how much of the text
    trunk ViFi-CLIP trains.
    """
    from vlact.models.zoo.ace import ANCHORED, LEAVES, LITERAL, SLOW

    whole, proj = p.model.depth, "ProcVLR + text proj."
    out = []
    for d in tasks.DATASETS:
        ours = Trial(d, "ACE", "ace", leaf=(True,), wise_ft=BOTH, design="rival")
        proc = Trial(d, "ProcVLR", "procvlr", leaf=BOTH)
        vifi = Trial(d, "ViFi-CLIP (ft)", "vifi", "clip", blocks=whole, design="claim")
        out += [
            Trial(d, "zero-shot CLIP", "zero_shot", "clip"),
            replace(vifi, text_blocks=p.ace.text_blocks),
            Trial(d, "ViFi-CLIP (pr)", "vifi_prompts", "clip", design="claim"),
            replace(vifi, name="BIKE", method="bike"),
            replace(vifi, name="Text4Vis", method="text4vis"),
            Trial(d, "zero-shot", "zero_shot", leaf=BOTH, design="rival"),
            replace(proc, wise_ft=BOTH, design="headline"),
            replace(proc, name=proj, options={"train_text": 1.0}),
            replace(proc, name="ProcVLR + slow text proj.", options={"train_text": 0.1}),
            replace(ours, averaged=BOTH, options=LITERAL, design="headline"),
            replace(ours, name="ACE slow", averaged=BOTH, options=SLOW),
            replace(ours, name="ACE anchored", options=ANCHORED, design="claim"),
            replace(ours, name="ACE leaves alone", options=LEAVES, design="claim"),
        ]
        if p.ace.known_seeds:
            out += [
                replace(x, name=x.name + KNOWN, start="familiar", design="claim")
                for x in (
                    Trial(d, "zero-shot", "zero_shot"),
                    replace(proc, wise_ft=BOTH),
                    replace(ours, options=LITERAL),
                    replace(ours, name="ACE slow", options=SLOW),
                )
            ]
    gtea = Trial("gtea", "LaViLa", "lavila", "vlog", options={"train_text": 1.0}, design="claim")
    out.append(gtea)
    for d in ("ata", "ikea"):
        ours = Trial(d, "ACE", "ace", leaf=(True,), options=LITERAL, design="claim")
        for name, change in (
            ("leaf augmentation", "leaf"),
            ("shadow negatives", "shadow"),
            ("L_rand", "rand"),
            ("L_fixed", "fixed"),
        ):
            options = LITERAL | {change: False}
            leaf = (change != "leaf",)
            out.append(replace(ours, name=f"w/o {name}", leaf=leaf, options=options))
        verbs = {"wise_ft": BOTH, "verb_only": True, "design": "some"}
        out += [
            Trial(d, "ProcVLR, verbs only", "procvlr", leaf=BOTH, **verbs),
            replace(ours, name="ACE, verbs only", **verbs),
        ]
    return out


def sweep_trials(m: int, depth: int, usual: int) -> list[Trial]:
    """Tables 4 and 5, Figures 3 and 4, for ATA's trees of size `m` and a tower of `depth` blocks of
    which `usual` are trained.
    """
    from vlact.models.zoo.ace import LITERAL, SLOW

    ace = Trial("ata", "", "ace", leaf=(True,), options=LITERAL, design="claim")
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
        out += [replace(ace, dataset=d, name=f"{k} text blocks", text_blocks=k) for k in (1, 2)]
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


@cache
def caption_words() -> frozenset[str]:
    """What narrators of the pretraining corpus call actions."""
    from vlact.worlds.corpus import CAPTIONS

    return frozenset(w for words in CAPTIONS.values() for w in words)


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
            else tasks.named_by_tree(
                replace(task, trees=trees, srt=task.srt[:1]), heard=caption_words()
            )
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


@dataclass(frozen=True, order=True)
class Unit:
    """One training of a trial: pretraining seed, fold, number of the fine-tuning."""

    seed: int
    fold: int = 0
    tune: int = 0


class Bench:
    """Files, words and clips of every seed and dataset, made once and shared by all trials of a
    stage.
    """

    def __init__(self, p: Params, trials: list[Trial], work: Path, encoders: Path | None = None):
        from safetensors.torch import save_file

        from vlact.models.text import sentence_encoder
        from vlact.worlds.corpus import CAPTIONS
        from vlact.worlds.things import TUTORIAL_OBJECTS

        self.p, self.work, self.pretrained = p, work, encoders or p.data / "pretrained"
        lexicon = sorted({*(w for ws in CAPTIONS.values() for w in ws[:3]), *TUTORIAL_OBJECTS})
        self.ace = {d: asdict(p.ace.of(d)) | {"lexicon": lexicon} for d in tasks.DATASETS}
        self.tests = {self.id(t): tasks_of(t, p.ace) for t in trials}
        self.trials = {self.id(t): t for t in trials}
        self.files: dict[tuple[str, bool, int, int], Files] = {}
        self.folds: dict[str, int] = {}
        for d in dict.fromkeys(t.dataset for t in trials):
            given = p.ace.of(d)
            annotations, frames = frames_of(p, d, given.window_s, given.views, given.frames)
            self.folds[d] = annotations["group"].nunique() if d in FOLDED else 1
            mine = [t for t in trials if t.dataset == d]
            words = {
                w
                for t in mine
                for task in self.tests[self.id(t)].values()
                for w in (*task.texts(), *plan_texts(task), *(x for *_, x in task.nodes()))
            }
            words = sorted(words | set(lexicon))
            path = work / f"{d}-words.safetensors"
            if not path.is_file():
                write_whole(
                    path,
                    save_file,
                    dict(zip(words, sentence_encoder(p.model.text)(words), strict=True)),
                )
            for verb_only in sorted({t.verb_only for t in mine}):
                some = next(t for t in mine if t.verb_only == verb_only)
                task, kind = next(iter(self.tests[self.id(some)].values())), "verbs-" * verb_only
                tables = []
                for number in range(self.folds[d]):
                    table = fold(annotations, number) if d in FOLDED else annotations
                    tables.append(str(work / f"{d}-{kind}{number}.parquet"))
                    clip_table(table, task).to_parquet(tables[-1], index=False)
                for s in p.ace_seeds:
                    kept = str(p.scratch / "kept" / ACE.key(p) / f"{d}-{kind}{s}")
                    for number, table in enumerate(tables):
                        others = tuple(x for x in tables if x != table)
                        self.files[d, verb_only, s, number] = Files(
                            self.encoders(s), str(frames), str(path), table, kept, number, others
                        )

    def encoders(self, seed: int) -> dict[str, str]:
        """Start of a trial to its file."""
        named = {"familiar": "seed", "vlog": "vlog"}
        named["clip"] = "heldframes" if self.p.pretrain.held_frames else "frames"
        named["pretrained"] = "seed" if self.p.pretrain.novel == "labelled" else "held"
        return {k: str(self.pretrained / f"{n}{seed}.safetensors") for k, n in named.items()}

    @staticmethod
    def id(trial: Trial) -> str:
        return f"{trial.dataset}-{trial.name}".replace("/", "").replace(" ", "_")

    def own_fold(self, dataset: str, seed: int) -> int:
        """The fold that goes with a seed where it has only one."""
        return self.p.ace_seeds.index(seed) % self.folds[dataset]

    def probes(self, trial: Trial) -> list[Unit]:
        """On which the grid is trained."""
        seeds = self.p.ace_seeds[: self.p.ace.grid_seeds]
        return [Unit(s, self.own_fold(trial.dataset, s)) for s in seeds if self.has(trial, s)]

    def units(self, trial: Trial) -> list[Unit]:
        """On which it is trained at its chosen cell, by its design."""
        seeds, folds, tunes = DESIGNS[trial.design]
        if seeds == "grid":
            return self.probes(trial)
        every = folds and self.p.ace.folds
        return [
            Unit(s, number, tune)
            for s in self.p.ace_seeds
            if self.has(trial, s)
            for number in range(self.folds[trial.dataset])
            if every or number == self.own_fold(trial.dataset, s)
            for tune in range(self.p.ace.tunes if tunes and trial.trained else 1)
        ]

    def has(self, trial: Trial, seed: int) -> bool:
        """Whether a seed has the encoder that the trial starts from."""
        return trial.start != "familiar" or seed in self.p.ace_seeds[: self.p.ace.known_seeds]

    def file(self, trial: Trial, unit: Unit) -> Files:
        return self.files[trial.dataset, trial.verb_only, unit.seed, unit.fold]

    def keep(self) -> None:
        """Activations of every frozen part that some trial starts from."""
        todo = {}
        for trial in self.trials.values():
            ace = self.ace[trial.dataset]
            for unit in {u.seed: u for u in self.units(trial)}.values():
                files = self.file(trial, unit)
                task = next(iter(self.tests[self.id(trial)].values()))
                todo.setdefault(
                    kept_file(trial, files, ace),
                    KeepJob(trial, files, task, asdict(self.p.model), ace, unit.seed),
                )
        jobs.run(list(todo.values()), self.p.workers, "frozen blocks")

    def job(
        self,
        trial: Trial,
        unit: Unit,
        lrs: list[float],
        epochs: list[int],
        model_out: str | None = None,
    ) -> TuneJob:
        files, tests = self.file(trial, unit), self.tests[self.id(trial)]
        given = files, tests, asdict(self.p.model), self.ace[trial.dataset]
        out = str(self.out(trial, unit, Path(model_out).stem if model_out else ""))
        return TuneJob(trial, *given, lrs, epochs, unit.seed, out, model_out, unit.tune)

    def out(self, trial: Trial, unit: Unit, suffix: str = "") -> Path:
        """Where a job's predictions go."""
        name = f"{self.id(trial)}-s{unit.seed}-f{unit.fold}-t{unit.tune}{suffix}"
        return self.work / f"{name}.parquet"


def scores_of(done: list[list[dict]]) -> pd.DataFrame:
    """Rows of all jobs."""
    return pd.DataFrame([row for rows in done for row in rows])


def train_grid(bench: Bench) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every trial on the grid, then at its chosen cells on the rest of its design.

    Returns:
        Scores of both, with `grid` (whether a row is of the grid) and `chosen`; and the chosen
        cells.
    """
    from vlact.metrics.selection import CASE, choose

    p, trials = bench.p, list(bench.trials.values())
    todo = [
        bench.job(t, u, list(a.lrs), list(a.epochs))
        for t in trials
        for a in (p.ace.of(t.dataset),)
        for u in bench.probes(t)
    ]
    grid = scores_of(jobs.run(todo, p.workers, "fine-tuning grid"))
    chosen = choose(grid)
    todo = []
    for t in trials:
        cells = chosen[(chosen["dataset"] == t.dataset) & chosen["model"].isin(t.names)]
        rates, epochs = sorted(set(cells["lr"])), sorted({int(e) for e in cells["epoch"]})
        rest = [u for u in bench.units(t) if u not in bench.probes(t)]
        todo += [bench.job(t, u, rates, epochs) for u in rest]
    rest = scores_of(jobs.run(todo, p.workers, "fine-tuning at the chosen cells"))
    cells = [*(k for k in CASE if k in grid), "lr", "epoch"]
    scores = pd.concat([grid.assign(grid=True), rest.assign(grid=False)], ignore_index=True)
    scores = scores.merge(chosen[cells].assign(chosen=True), on=cells, how="left")
    scores["chosen"] = scores["chosen"].notna()
    return scores[scores["grid"] | scores["chosen"]], chosen


def ace(p: Params, must_exist: bool = False) -> None:
    """The whole grid: `data/<workspace>/ace/scores.csv`, the chosen cells' predictions, and what
    the figures need.
    """
    folder = p.data / "ace"
    if not ACE.must_run(p, folder, must_exist):
        return
    pretraining(p, must_exist=True)
    bench = Bench(p, grid_trials(p), ACE.work(p))
    bench.keep()
    scores, chosen = train_grid(bench)
    cells = ["dataset", "model", "leaf", "test", "lr", "epoch"]
    found = [
        pd.read_parquet(bench.out(t, u)).merge(chosen[cells], on=cells)
        for t in bench.trials.values()
        for u in dict.fromkeys([*bench.probes(t), *bench.units(t)])
    ]
    predictions = pd.concat(found, ignore_index=True).astype(
        {c: "category" for c in ("dataset", "model", "test", "split", "mode")}
    )
    for d in tasks.DATASETS:
        for s in p.ace_seeds:
            names = ("ProcVLR", "ACE", "ACE, halfway") if s == p.ace_seeds[0] else ("ACE",)
            concepts_of(bench, chosen, d, s, names, folder)
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    scores.to_csv(folder / "scores.csv", **CSV)
    ACE.finish(p, folder)


def concepts_of(
    bench: Bench, chosen: pd.DataFrame, dataset: str, seed: int, names: tuple, folder: Path
) -> None:
    """Chosen models of one seed, saved, and how they lay out concepts: `<folder>/<dataset>` for the
    first seed, `<folder>/<dataset>-<seed>` for the others.
    """
    p, models, keep = bench.p, {}, []
    unit, first = Unit(seed, bench.own_fold(dataset, seed)), seed == bench.p.ace_seeds[0]
    mine = chosen[chosen["dataset"] == dataset]
    for name in names:
        plain = name.removesuffix(", halfway")
        trial = bench.trials[bench.id(Trial(dataset, plain, ""))]
        trial = replace(trial, wise_ft=("halfway" in name,), averaged=(False,))
        cell = mine[(mine["model"] == name) & (mine["leaf"] == trial.leaf[0])].iloc[0]
        place = folder if first else bench.work
        out = str(place / f"{dataset}-{name.lower().replace(', ', '_')}.safetensors")
        out = out if first else out.replace(".safetensors", f"-{seed}.safetensors")
        keep.append(bench.job(trial, unit, [float(cell["lr"])], [int(cell["epoch"])], out))
        models[name] = (out, trial.leaf[0])
    jobs.run(keep, p.workers, f"chosen models of {NAMES[dataset]}, seed {seed}")
    files, given = bench.file(trial, unit), bench.ace[dataset]
    models = {"pretrained": (files.encoders["pretrained"], False), **models}
    concept_job(
        models,
        files,
        str(kept_file(trial, files, given)),
        bench.tests[bench.id(trial)]["shipped"],
        p.ace.tau,
        p.ace.trained_blocks,
        p.ace.views,
        str(folder / (dataset if first else f"{dataset}-{seed}")),
    )


def ace_sweeps(p: Params, must_exist: bool = False) -> None:
    """Trees, starts, numbers of synonyms and trained layers at ACE's chosen schedule:
    `data/<workspace>/ace_sweeps/scores.csv`.
    """
    folder = p.data / "ace_sweeps"
    if not SWEEPS.must_run(p, folder, must_exist):
        return
    ace(p, must_exist=True)
    m = min(p.ace.children, shipped("ata").m)
    bench = Bench(p, sweep_trials(m, p.model.depth, p.ace.trained_blocks), SWEEPS.work(p))
    bench.keep()
    scores = pd.read_csv(p.data / "ace" / "scores.csv")
    chosen = scores[scores["chosen"] & (scores["model"] == "ACE")]
    chosen = chosen.drop_duplicates("dataset").set_index("dataset")
    todo = []
    for trial in bench.trials.values():
        cell = chosen.loc[trial.dataset]
        at = [float(cell["lr"])], [int(cell["epoch"])]
        todo += [bench.job(trial, u, *at) for u in bench.units(trial)]
    scores = scores_of(jobs.run(todo, p.workers, "sweeps"))
    scores.to_csv(folder / "scores.csv", **CSV)
    SWEEPS.finish(p, folder)
    shutil.rmtree(p.scratch / "kept", ignore_errors=True)
