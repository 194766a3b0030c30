"""ACE: every reported number, from the scores that its stages keep."""

import re
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd

from vlact.language import srt as label_sets
from vlact.metrics.classification import (
    macro_f1,
    paired_interval,
    random_guess,
    srt,
    top1,
)
from vlact.metrics.concepts import concept_space
from vlact.metrics.selection import best_cells
from vlact.metrics.synonyms import SynonymRobustnessTest
from vlact.params import Params
from vlact.report import published, tables
from vlact.report.results.common import Scores, both_ways, change, keep, paired

NAMES = {"ata": "ATA", "ikea": "IKEA", "gtea": "GTEA"}
RIVALS = ("ViFi-CLIP (ft)", "ViFi-CLIP (pr)", "BIKE", "Text4Vis", "ProcVLR")  # Tables 1 and 2
# recipes of ours, beside literal ACE
CANDIDATES = (
    *("ACE, halfway", "ACE, averaged", "ACE slow", "ACE slow, halfway", "ACE slow, averaged"),
    *("ACE anchored", "ACE anchored, halfway", "ACE leaves alone", "ACE leaves alone, halfway"),
)
OWN = ("ACE", *CANDIDATES)
MAIN = ("ACE", "ACE, halfway", "ACE slow, halfway")  # that meet every other method
METHODS = (
    *("ViFi-CLIP (ft)", "ViFi-CLIP (pr)", "BIKE", "Text4Vis", "LaViLa", "ProcVLR"),
    *("ProcVLR, halfway", *OWN),
)
# what a method starts from here; the papers' starts are beside the published numbers
STARTS = {
    "ViFi": "frames and captions",
    "BIKE": "frames and captions",
    "Text4Vis": "frames and captions",
    "zero-shot CLIP": "frames and captions",
    "LaViLa": "egocentric narrations",
}
TUTORIALS = "instructional clips"
CONTROLS = (
    *("zero-shot CLIP", "zero-shot", "zero-shot + test leaf", "ProcVLR + test leaf"),
    "ProcVLR, halfway + test leaf",
    *("ProcVLR + text proj.", "ProcVLR + text proj. + test leaf"),
    *("ProcVLR + slow text proj.", "ProcVLR + slow text proj. + test leaf"),
)
HEAD = {
    "seen_acc": "seen acc",
    "seen_f1": "seen F1",
    "unseen_acc": "unseen acc",
    "unseen_f1": "unseen F1",
    "hm_acc": "HM acc",
    "hm_f1": "HM F1",
    "srt_acc_mean": "SRT acc",
    "srt_acc_std": "SRT acc std",
    "srt_f1_mean": "SRT F1",
    "srt_f1_std": "SRT F1 std",
}
GUESSED = ("unseen_acc", "unseen_f1", "srt_acc_mean", "srt_f1_mean")  # what chance has a value of
PARTS = ("leaf augmentation", "shadow negatives", "L_rand", "L_fixed")
UNIT = ["seed", "fold", "tune"]  # one training: pretraining seed, fold, fine-tuning
CELL = ["dataset", "method", "test", *UNIT, "lr", "epoch"]
METRICS = ("acc", "f1")
PAIRED = ("srt_acc_mean", "srt_f1_mean", "unseen_acc", "seen_acc", "srt_acc_std")
SPACE = ("within", "between", "nearest")


# What stages keep
def keep_results(p: Params) -> None:
    """Scores of stage `ace_results`: every cell of the grid, the chosen cells' test clips, chance,
    and the similarities of Figure 1.
    """
    grid = pd.read_csv(p.data / "ace" / "scores.csv")
    keep(p, "ace_results", "grid", best_cells(grid, every=True), CELL)

    answers = pd.read_parquet(p.data / "ace" / "predictions.parquet")
    texts = {c: str for c in ("dataset", "model", "split", "mode")}
    answers = best_cells(answers.astype(texts), every=True)
    test = answers[answers["split"] == "test"]
    right = (test["label"] == test["predicted"]).astype("int16")
    test = test.assign(right=right, right_root=right * (test["run"] == 0))
    item = ["dataset", "method", "seed", "mode", "clip", "label"]
    clips = test.groupby(item, sort=False).agg(
        runs=("right", "size"), right=("right", "sum"), right_root=("right_root", "sum")
    )
    keep(p, "ace_results", "clips", clips.reset_index(), item)

    root = answers.query("mode == 'novel' and run == 0 and model == 'zero-shot' and not leaf")
    chance = []
    for dataset, part in root.groupby("dataset"):
        for (seed, fold), mine in part.groupby(["seed", "fold"]):
            guess = random_guess(mine["label"], part["label"].nunique())
            chance.append({"dataset": dataset, "seed": seed, "fold": fold, **guess})
    keep(p, "ace_results", "chance", pd.DataFrame(chance), ["dataset", "seed", "fold"])

    similar = pd.read_parquet(p.data / "ace" / "ata" / "similarity.parquet")
    similar = similar[similar["model"] != "pretrained"].reset_index(drop=True)
    # a name that two synonyms share stands twice
    times = similar.groupby(["model", "clips_of", "name_of", "name"], sort=False).cumcount()
    named = ["model", "clips_of", "name_of", "name", "times"]
    keep(p, "ace_results", "similarity", similar.assign(times=times), named)


def keep_sweeps(p: Params) -> None:
    """Scores of stage `ace_sweeps`: trees, starts, synonyms, layers, and how concepts lie."""
    sweeps = best_cells(pd.read_csv(p.data / "ace_sweeps" / "scores.csv"), every=True)
    keep(p, "ace_sweeps", "sweeps", sweeps, CELL)
    rows = []
    for dataset, seed in product(NAMES, p.ace_seeds):
        folder = dataset if seed == p.seeds[0] else f"{dataset}-{seed}"
        nodes = pd.read_parquet(p.data / "ace" / folder / "concepts.parquet")
        for (mode, model), part in nodes.groupby(["mode", "model"], sort=False):
            row = {"dataset": dataset, "mode": mode, "model": model, "seed": seed}
            rows.append(row | concept_space(part))
    keep(p, "ace_sweeps", "concepts", pd.DataFrame(rows), ["dataset", "mode", "model", "seed"])


class Ace(Scores):
    """ACE's scores by seed, percent, and its tables."""

    @cached_property
    def trained(self) -> pd.DataFrame:
        """Every training; `grid` marks those of the grid, `chosen` cells that validation chose."""
        return self.scores("ace_results", "grid")

    @cached_property
    def grid(self) -> pd.DataFrame:
        """Every cell of the grid, a row a seed."""
        return self.trained[self.trained["grid"]]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Chosen cells, a row a training."""
        rows = self.trained[self.trained["chosen"]]
        return rows.drop(columns=["chosen", "grid"]).reset_index(drop=True)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Chosen cells, a row a seed: the mean over its folds and fine-tunings."""
        return by_seed(self.runs)

    @cached_property
    def swept_runs(self) -> pd.DataFrame:
        """Cells of the sweeps, a row a training."""
        return self.scores("ace_sweeps", "sweeps")

    @cached_property
    def sweeps(self) -> pd.DataFrame:
        """Cells of the sweeps, a row a seed."""
        return by_seed(self.swept_runs)

    def cell(self, dataset: str, method: str) -> pd.DataFrame:
        """Rows of a method's chosen cell, by seed."""
        mine = (self.cells["dataset"] == dataset) & (self.cells["method"] == method)
        return self.cells[mine].set_index("seed")

    def sweep(self, dataset: str, model: str, test: str | None = None) -> pd.DataFrame:
        """Rows of a model of the sweeps, by seed; `test` names the tree it is tested by."""
        mine = (self.sweeps["dataset"] == dataset) & (self.sweeps["model"] == model)
        rows = self.sweeps[mine]
        return rows[rows["test"] == test if test else slice(None)].set_index("seed")

    def ace(self, dataset: str, method: str = "ACE", key: str = "srt_acc_mean") -> pd.Series:
        """A score of a method by seed, percent."""
        return 100 * self.cell(dataset, method)[key]

    def swept(
        self, dataset: str, model: str, key: str = "srt_acc_mean", test: str | None = None
    ) -> pd.Series:
        """A score of a model of the sweeps by seed, percent."""
        return 100 * self.sweep(dataset, model, test)[key]

    def units(self, dataset: str, method: str, test: str | None = None) -> pd.DataFrame:
        """Scores of a method of the grid or the sweeps (fractions) by seed, fold and fine-tuning;
        `test` names the tree it is tested by.
        """
        rows = self.runs[(self.runs["dataset"] == dataset) & (self.runs["method"] == method)]
        if not len(rows) and self.kept("ace_sweeps", "sweeps"):
            swept = self.swept_runs
            rows = swept[(swept["dataset"] == dataset) & (swept["model"] == method)]
        return rows[rows["test"] == test if test else slice(None)].set_index(UNIT)

    def pair(
        self,
        dataset: str,
        ours: str,
        other: str,
        key: str = "srt_acc_mean",
        tests: tuple[str | None, str | None] = (None, None),
    ) -> tuple[pd.Series, pd.Series]:
        """A score of two methods by seed, percent: means over the folds and fine-tunings that both
        have. A method of fewer fine-tunings meets the first ones of the other.
        """
        found = [self.units(dataset, m, t)[key] for m, t in zip((ours, other), tests, strict=True)]
        both = found[0].index.intersection(found[1].index)
        mine, theirs = (100 * x[both].groupby("seed").mean() for x in found)
        return mine, theirs

    def gain(self, dataset: str, ours: str, other: str, key: str = "srt_acc_mean", **tests):
        """`pair` as differences by seed, points."""
        mine, theirs = self.pair(dataset, ours, other, key, **tests)
        return mine - theirs

    def caution(self, dataset: str, method: str = "ACE", start: str = "zero-shot") -> str:
        """Whether a trained method is below chance or its own start on SRT accuracy, in words."""
        reached, before = self.ace(dataset, method).mean(), self.ace(dataset, start).mean()
        low = [
            f"{what} ({limit:.1f})"
            for what, limit in (("chance", self.guess(dataset)), ("its own start", before))
            if reached < limit
        ]
        said = f"{NAMES[dataset]}: SRT accuracy of {method}, {reached:.1f}, is below "
        return said + " and ".join(low) + "." if low else ""

    @cached_property
    def chance(self) -> pd.DataFrame:
        """Accuracy and F1 (fractions) of guessing novel classes, by dataset."""
        return self.scores("ace_results", "chance").groupby("dataset")[["acc", "f1"]].mean()

    def guess(self, dataset: str) -> float:
        """Accuracy of guessing novel classes, percent."""
        return 100 * self.chance.loc[dataset, "acc"]

    @property
    def sizes(self) -> list[str]:
        """Trees of ATA by how many children roots and their synonyms have."""
        models = self.sweeps.query("dataset == 'ata'")["model"].unique()
        return [m for m in models if re.fullmatch(r"\d+ first, \d+ second", m)]

    @property
    def deepest(self) -> str:
        """The model of the sweeps with the most trained blocks of the video encoder."""
        models = [m for m in self.sweeps["model"].unique() if m.endswith("video blocks")]
        return max(models, key=lambda m: int(m.split()[0]))

    @cached_property
    def space(self) -> pd.DataFrame:
        """How concepts lie, a row a dataset, mode ("base" or "novel"), model and seed."""
        return self.scores("ace_sweeps", "concepts")

    def modes(self, dataset: str) -> list[str]:
        """Kinds of concepts of a dataset."""
        return list(self.space[self.space["dataset"] == dataset]["mode"].unique())

    def concepts(self, dataset: str, mode: str, model: str) -> pd.DataFrame:
        """Measures of the concept space of a model, by seed."""
        wanted = {"dataset": dataset, "mode": mode, "model": model}
        rows = (self.space[list(wanted)] == pd.Series(wanted)).all(axis=1)
        return self.space[rows].set_index("seed")

    # Tables 1, 2 and 6
    def table(self, dataset: str, methods: tuple[str, ...]) -> pd.DataFrame:
        """Methods of a dataset as the tables print them, after guessing; mean ± std over seeds."""
        guess = self.chance.loc[dataset]
        shown = {
            HEAD[key]: f"{100 * guess['acc' if 'acc' in key else 'f1']:.1f}" for key in GUESSED
        }
        rows = [{"dataset": NAMES[dataset], "method": "Random"} | shown]
        for method in methods:
            cell = self.cell(dataset, method)
            if len(cell):
                row = {"dataset": NAMES[dataset], "method": method}
                row |= {"pretraining": start_of(method), "runs": self.design(dataset, method)}
                row |= {"lr": f"{cell['lr'].iloc[0]:g}", "epochs": f"{cell['epoch'].iloc[0]:.0f}"}
                row |= {head: tables.spread(cell[key]) for key, head in HEAD.items()}
                rows.append(row | {"SRT overlap": self.overlap(dataset, cell)})
        columns = ["dataset", "method", "pretraining", "runs", "lr", "epochs", *HEAD.values()]
        return pd.DataFrame(rows).reindex(columns=[*columns, "SRT overlap"])

    def design(self, dataset: str, method: str) -> str:
        """How often a method was trained: seeds × folds × fine-tunings of each."""
        index = self.units(dataset, method).index
        seeds = index.unique("seed").size
        folds = index.droplevel("tune").unique().size // seeds
        return f"{seeds} × {folds} × {index.unique('tune').size}"

    @staticmethod
    def overlap(dataset: str, cell: pd.DataFrame) -> str:
        """What the label sets of a cell's test share, two digits."""
        return f"{SynonymRobustnessTest.of(dataset, bool(cell['leaf'].iloc[0])).overlap:.2f}"

    def compare(
        self, dataset: str, ours: str, other: str, key: str = "srt_acc_mean", expected: int = 1
    ) -> str:
        """Two methods paired over seeds, as a sentence; `expected` is the published sign."""
        return self.versus(dataset, (ours, ours), (other, other), key, expected)

    def versus(
        self,
        dataset: str,
        ours: tuple[str, str],
        other: tuple[str, str],
        key: str = "srt_acc_mean",
        expected: int = 1,
        tests: tuple[str | None, str | None] = (None, None),
    ) -> str:
        """As `compare`; each method with what it is called, and the trees of their tests."""
        mine, theirs = self.pair(dataset, ours[1], other[1], key, tests)
        if len(mine) < 2:
            return f"{NAMES[dataset]}: {ours[0]} and {other[0]} share no two seeds."
        found = paired_interval(mine, theirs)
        said = tables.verdict(ours[0], other[0], HEAD[key], found, expected)
        return f"{NAMES[dataset]}: {said}"

    def claims(self, dataset: str) -> str:
        """What stands under a dataset's table: ACE against methods and controls."""
        said = [
            self.compare(dataset, "ACE", other)
            for other in ("ProcVLR", "ViFi-CLIP (ft)", "BIKE", "Text4Vis")
        ]
        calmer = -1 if dataset != "gtea" else 0
        said.append(self.compare(dataset, "ACE", "ProcVLR", "srt_acc_std", calmer))
        for control in ("ProcVLR + test leaf", "ProcVLR + text proj. + test leaf"):
            said.append(self.compare(dataset, "ACE", control, expected=0))
        for ours in CANDIDATES:
            for other in ("ACE", "ProcVLR + test leaf"):
                said.append(self.compare(dataset, ours, other, expected=0))
        said += [x for m in ("ACE", "ProcVLR") if (x := self.caution(dataset, m))]
        test = label_sets.load(dataset)
        said.append(f"Label sets: {test.name}, sha256 {test.sha256}.")
        return " ".join(said)

    def known(self) -> tuple[pd.DataFrame, list[str]]:
        """Both columns, names held out of pretraining and names known to it: means over seeds of
        those rows that have both, and sentences on the second. Empty where no encoder was told.
        """
        rows, said = [], []
        for dataset in NAMES:
            for method in (m for m in METHODS + CONTROLS if len(self.cell(dataset, told(m)))):
                row = {"dataset": NAMES[dataset], "method": method}
                for name, column in ((method, "held out"), (told(method), "known")):
                    cell = self.cell(dataset, name)
                    for key in ("unseen_acc", "hm_acc", "srt_acc_mean"):
                        row[f"{HEAD[key]}, {column}"] = tables.spread(cell[key])
                rows.append(row)
            for ours in MAIN:
                for other, key in product(
                    ("ProcVLR", "ProcVLR + test leaf"), ("srt_acc_mean", "hm_acc")
                ):
                    if rows and ours != other:
                        said.append(self.compare(dataset, told(ours), told(other), key, 0))
        return pd.DataFrame(rows), said

    def better(self) -> pd.DataFrame:
        """Every recipe of ours against ACE and ProcVLR with leaves at test, on SRT accuracy and the
        harmonic mean, in both columns: differences in points.
        """
        rows = []
        for dataset, ours in product(NAMES, CANDIDATES):
            row = {"dataset": NAMES[dataset], "recipe": ours}
            for other, key, names in product(
                ("ACE", "ProcVLR + test leaf"), ("srt_acc_mean", "hm_acc"), ("held out", "known")
            ):
                pair = (ours, other) if names == "held out" else (told(ours), told(other))
                found = paired(*self.pair(dataset, *pair, key))
                row[f"{HEAD[key]} over {other}, names {names}"] = change(found)
            rows.append(row)
        return pd.DataFrame(rows)

    def beside(self, number: int) -> pd.DataFrame:
        """Ours beside the published numbers of Table 1, 2 or 6, percent."""
        ours = {"Ours (ACE)": "ACE", "ViFi (ft)": "ViFi-CLIP (ft)", "ViFi (pr)": "ViFi-CLIP (pr)"}
        keys = {("default", s, m): f"{s}_{m}" for s in ("seen", "unseen", "hm") for m in METRICS}
        keys |= {("srt", "unseen", m): f"srt_{m}_mean" for m in METRICS}
        rows = []
        for row in published.read(f"ace_table{number}").itertuples():
            dataset, key = row.dataset.lower(), keys[row.setting, row.split, row.metric]
            mine = self.ace(dataset, ours.get(row.method, row.method), key)
            if row.method == "Random":
                mine = pd.Series([100 * self.chance.loc[dataset, row.metric]])
            mean, std = (mine.mean(), mine.std(ddof=1)) if len(mine) else (None, None)
            shown = {"dataset": row.dataset, "method": row.method, "metric": HEAD[key]}
            shown |= {"published": row.mean, "published std": row.std}
            shown |= {"ours": mean, "ours std over seeds": std}
            rows.append(shown | {"difference": None if mean is None else mean - row.mean})
        floats = ("published", "published std", "ours", "ours std over seeds", "difference")
        return pd.DataFrame(rows).astype(dict.fromkeys(floats, float))

    @cached_property
    def paired(self) -> pd.DataFrame:
        """`MAIN` against every method, paired over seeds, points."""
        rows = []
        for dataset in NAMES:
            for ours in MAIN:
                for method in CONTROLS + METHODS:
                    if method == ours or not len(self.cell(dataset, method)):
                        continue
                    for key in PAIRED:
                        found = paired_interval(*self.pair(dataset, ours, method, key))
                        wins = f"{found.pop('wins')}/{found.pop('n')}"
                        row = {"dataset": NAMES[dataset], "ours": ours, "minus": method}
                        rows.append(row | {"metric": HEAD[key], **found, "seeds won": wins})
        return pd.DataFrame(rows)

    def findings(self, others: tuple[str, ...]) -> list[str]:
        """A sentence a pair of `paired`, on SRT accuracy, for some of the other methods."""
        said, rows = [], self.paired[self.paired["metric"] == "SRT acc"]
        for row in rows[rows["minus"].isin(others)].itertuples():
            wins, n = map(int, row[-1].split("/"))
            found = {"mean": row.mean, "low": row.low, "high": row.high, "wins": wins, "n": n}
            verdict = tables.verdict(row.ours, row.minus, "SRT accuracy", found, expected=0)
            said.append(f"{row.dataset}: {verdict}")
        return said

    # The grid
    def curve(self, dataset: str, method: str, key: str) -> pd.DataFrame:
        """Mean and std over seeds by `lr, epoch`, percent."""
        part = self.grid.query("dataset == @dataset and method == @method")
        return 100 * part.groupby(["lr", "epoch"])[key].agg(["mean", "std"])

    def grid_table(self) -> pd.DataFrame:
        """Mean and std over seeds of every cell, fractions."""
        keys = ["val_acc", "seen_acc", "srt_acc_mean", "srt_acc_std"]
        cells = self.grid.groupby(["dataset", "method", "lr", "epoch"], sort=False)[keys]
        return both_ways(cells.agg(["mean", "std"]))

    def schedules(self) -> tuple[pd.DataFrame, list[str]]:
        """What a schedule can cost: worst and best cell of every method, and sentences on the
        recipes that were meant to lower it.
        """
        by_cell = {
            k: 100 * t.pivot(index="seed", columns=["lr", "epoch"], values="srt_acc_mean")
            for k, t in self.grid.groupby(["dataset", "method"], sort=False)
        }
        measures = {
            "worst schedule": lambda t: t.min(axis=1),
            "range over schedules": lambda t: t.max(axis=1) - t.min(axis=1),
        }
        rows, against = [], {}
        for (dataset, method), cells in by_cell.items():
            mean = cells.mean()
            chosen = 100 * self.cell(dataset, method)["srt_acc_mean"].mean()
            row = {"dataset": NAMES[dataset], "method": method, "chosen cell": chosen}
            row |= {"worst cell": mean.min(), "best cell": mean.max()}
            row["worst − best"] = mean.min() - mean.max()
            for what, of in measures.items():
                theirs = by_cell[dataset, "ACE"].loc[cells.index]
                found = against[dataset, method, what] = paired_interval(of(cells), of(theirs))
                row[f"{what} − ACE's"] = "–" if method == "ACE" else change(found)
            rows.append(row)
        order = {"by": ["dataset", "worst cell"], "ascending": [True, False]}
        said = [
            f"{NAMES[d]}: "
            + tables.verdict(m, "ACE", f"SRT accuracy, {what}", against[d, m, what], 0)
            for d in NAMES
            for m in ("ACE slow, halfway", "ACE, halfway")
            for what in measures
        ]
        return pd.DataFrame(rows).sort_values(**order, kind="stable"), said

    # Figure 1
    @cached_property
    def similar(self) -> pd.DataFrame:
        """Mean cosine of the clips of each novel class of ATA to every name."""
        return self.scores("ace_results", "similarity").drop(columns="times")

    def matrices(self) -> dict[str, pd.DataFrame]:
        """Of each model, classes by names, each row centred."""
        classes = list(dict.fromkeys(self.similar["clips_of"]))
        out = {}
        for model, part in self.similar.groupby("model", sort=False):
            first = part[part["clips_of"] == classes[0]]
            names = first.groupby("name_of", sort=False)["name"].apply(list)
            columns = [(c, n) for c in classes for n in dict.fromkeys(names[c])]
            once = part.drop_duplicates(["clips_of", "name_of", "name"])
            wide = once.pivot(index="clips_of", columns=["name_of", "name"], values="cosine")
            wide = wide.loc[classes, columns]
            out[model] = wide.sub(wide.mean(axis=1), axis=0)
        return out

    def gap(self) -> pd.Series:
        """By model: cosine of clips to the names of their own class minus to those of others."""
        own = self.similar["clips_of"] == self.similar["name_of"]
        halves = (self.similar[own], self.similar[~own])
        ours, others = (half.groupby("model", sort=False)["cosine"].mean() for half in halves)
        return ours - others

    # Table 3
    def ablations(self) -> tuple[pd.DataFrame, str]:
        """Table 3 with its controls, and sentences on ACE against every ablation."""
        settings = ("ProcVLR + test leaf", "ProcVLR + text proj.")
        settings += ("ProcVLR + text proj. + test leaf", *(f"w/o {part}" for part in PARTS))
        settings += ("ACE", "ACE slow", "ACE slow, halfway", "ACE, halfway")
        paper = published.read("ace_table3").set_index(["dataset", "method", "metric"])["mean"]
        rows = []
        for dataset in ("ata", "ikea"):
            for name in settings:
                cell = self.cell(dataset, name)
                row = {"dataset": NAMES[dataset], "setting": name}
                row |= {
                    HEAD[k]: tables.spread(cell[k])
                    for k in ("srt_acc_mean", "srt_acc_std", "srt_f1_mean")
                }
                row |= {"SRT overlap": self.overlap(dataset, cell)}
                row |= {"seen acc": tables.spread(cell["seen_acc"])}
                row |= {"published SRT acc": paper.get((NAMES[dataset], name, "acc"))}
                if name != "ACE":
                    found = paired_interval(*self.pair(dataset, "ACE", name))
                    row |= {"ACE minus it": change(found)}
                    row |= {"seeds": f"{found['wins']}/{found['n']}"}
                rows.append(row)
        said = [self.compare(d, "ACE", f"w/o {part}") for d in ("ata", "ikea") for part in PARTS]
        return pd.DataFrame(rows), " ".join(said)

    def verbs(self) -> pd.DataFrame:
        """Verbs alone against verbs with objects."""
        keys = ("seen_acc", "unseen_acc", "srt_acc_mean", "srt_acc_std")
        rows = []
        for dataset in ("ata", "ikea"):
            for name in ("ProcVLR", "ACE"):
                for variant in ("", ", halfway"):
                    for suffix in ("", ", verbs only"):
                        cell = self.cell(dataset, name + suffix + variant)
                        row = {"dataset": NAMES[dataset], "method": name + variant}
                        row |= {"labels": "verb" if suffix else "verb and object"}
                        rows.append(row | {HEAD[k]: tables.spread(cell[k]) for k in keys})
        return pd.DataFrame(rows)

    # Tables 4 and 5
    def trees(self) -> tuple[pd.DataFrame, str]:
        """Table 4, and sentences: whose trees train better."""
        rows = []
        for (dataset, model, test), cell in self.sweeps[
            self.sweeps["model"].str.contains(" tree")
        ].groupby(["dataset", "model", "test"], sort=False):
            trained, _, variant = model.partition(" tree")
            row = {"dataset": NAMES[dataset]}
            row |= {"method": "ACE" + variant.replace(", slow", " slow", 1)}
            row |= {"training tree": trained, "test tree": test}
            keys = ("srt_acc_mean", "srt_acc_std", "srt_f1_mean")
            rows.append(row | {HEAD[k]: tables.spread(cell[k]) for k in keys})
        pair = ("manual trees", "manual tree"), ("shipped trees", "shipped tree")
        said = [self.versus("gtea", *pair, tests=("manual", "shipped"))]
        free, both = "context-free tree", ("shipped", "shipped")
        for d in ("gtea", "ata"):
            whole = "shipped tree" if d == "gtea" else "ACE"
            pair = ("training on shipped trees", whole), ("training on context-free trees", free)
            said.append(self.versus(d, *pair, expected=0, tests=both))
            for name, variant in (
                ("ACE slow", ", slow"),
                ("ACE, halfway", ", halfway"),
                ("ACE slow, halfway", ", slow, halfway"),
            ):
                pair = (f"{name} on context-free trees", free + variant), ("ACE on them", free)
                said.append(self.versus(d, *pair, expected=0, tests=both))
        return pd.DataFrame(rows), " ".join(said)

    def pretraining(self) -> tuple[pd.DataFrame, str]:
        """Table 5, and sentences: what pretraining and ACE are worth, each without the other."""
        keys = ("seen_acc", "seen_f1", "unseen_acc", "unseen_f1")
        rows, said = [], []
        for d in ("ata", "ikea"):
            before, ours = self.cell(d, "zero-shot"), self.cell(d, "ACE")
            random = self.sweep(d, "random start")
            for pretrained, tuned, cell in (
                ("yes", "no", before),
                ("no", "yes", random),
                ("yes", "yes", ours),
            ):
                row = {"dataset": NAMES[d], "pretraining": pretrained, "ACE": tuned}
                rows.append(row | {HEAD[k]: tables.spread(cell[k]) for k in keys})
            for name, other in (("zero-shot",) * 2, ("ACE from a random start", "random start")):
                said.append(self.versus(d, ("ACE", "ACE"), (name, other), "unseen_acc"))
        return pd.DataFrame(rows), " ".join(said)

    # Figures 3 and 4
    @cached_property
    def by_size(self) -> pd.DataFrame:
        """Sweeps of ATA with children of the root (`first`) and of its synonyms (`second`)."""
        size = self.sweeps["model"].str.extract(r"^(\d+) first, (\d+) second$").astype(float)
        return self.sweeps.assign(first=size[0], second=size[1]).query("dataset == 'ata'")

    def synonyms(self, order: str, key: str, band: str | None = None) -> pd.DataFrame:
        """Mean and half width of a band, percent, by the children of one order, the other whole.

        Args:
            order: "first" or "second".
            key: The score.
            band: The score whose mean is the width; the std over seeds without one.
        """
        other = "second" if order == "first" else "first"
        part = self.by_size[self.by_size[other] == self.by_size["first"].max()].groupby(order)
        width = part[band].mean() if band else part[key].std()
        return pd.DataFrame({"mean": 100 * part[key].mean(), "width": 100 * width})

    def synonyms_table(self) -> tuple[pd.DataFrame, str]:
        """What Figure 3 plots, and sentences on all synonyms against none."""
        keys = ["srt_acc_mean", "srt_acc_std", "seen_acc"]
        sized = self.by_size.dropna(subset="first").groupby(["first", "second"])[keys]
        whole = self.by_size["first"].max()
        pair = ("all synonyms", f"{whole:.0f} first, {whole:.0f} second"), ("no synonym",) * 2
        said = [self.versus("ata", *pair), self.versus("ata", *pair, "srt_acc_std", -1)]
        return both_ways(sized.agg(["mean", "std"])), " ".join(said)

    @cached_property
    def layers(self) -> pd.DataFrame:
        """F1 (fractions) by `dataset, side, blocks` and seed; 0 text blocks are the projection
        alone, -1 nothing.
        """
        ours = self.cells.query("method == 'ACE'")
        cells = [("video", self.p.ace.trained_blocks, ours), ("text", 0, ours)]
        cells.append(("text", -1, self.sweeps.query("model == 'text frozen'")))
        for model, part in self.sweeps.groupby("model"):
            if model.endswith("blocks"):
                cells.append((model.split()[1], int(model.split()[0]), part))
        rows = [
            {"dataset": NAMES[r.dataset], "side": side, "blocks": k}
            | {"base": r.seen_f1, "novel": r.unseen_f1, "SRT": r.srt_f1_mean}
            for side, k, part in cells
            for r in part.query("dataset != 'gtea'").itertuples()
        ]
        return pd.DataFrame(rows)

    def layers_table(self) -> tuple[pd.DataFrame, str]:
        """What Figure 4 plots, and sentences on the deepest encoders."""
        keys = ["base", "novel", "SRT"]
        table = self.layers.groupby(["dataset", "side", "blocks"])[keys].agg(["mean", "std"])
        usual, said = f"{self.p.ace.trained_blocks}", []
        deepest = max(usual, self.deepest.split()[0], key=int)
        for d in ("ata", "ikea"):
            deep = "ACE" if deepest == usual else f"{deepest} video blocks"
            said.append(self.versus(d, ("all video blocks", deep), (usual, "ACE"), "seen_f1"))
            pair = ("2 text blocks",) * 2, ("the projection alone", "ACE")
            said.append(self.versus(d, *pair, "unseen_f1", -1))
        return both_ways(table), " ".join(said)

    # Why a schedule fails, and concepts
    def diagnostics(self) -> pd.DataFrame:
        """Of methods whose text projection learns, at every cell, means over seeds: how far it
        moved, how close the novel roots came, SRT accuracy with one side swapped (fractions).
        """
        models = ["ProcVLR + text proj.", "ProcVLR + slow text proj."]
        models += ["ACE", "ACE slow", "ACE, halfway"]
        why = self.grid.dropna(subset="moved")
        why = why[why["leaf"] & why["model"].isin(models)]
        keys = ["moved", "novel_cosine", "srt_acc_mean", "swap_text", "swap_video"]
        return why.groupby(["dataset", "model", "lr", "epoch"])[keys].mean().reset_index()

    def space_table(self) -> pd.DataFrame:
        """How concepts lie before and after ACE, as printed beside Figure 5."""
        names = {"pretrained": "before", "ACE": "after ACE", "ACE, halfway": "after ACE, halfway"}
        rows = self.space[self.space["model"] != "ProcVLR"]
        keys = ["dataset", "mode", "model"]
        rows = rows.groupby(keys, sort=False)[list(SPACE)].mean().reset_index()
        rows = rows.assign(dataset=rows["dataset"].map(NAMES), model=rows["model"].map(names))
        return rows.rename(columns={"mode": "concepts", "model": "text side"})

    def tighter(self) -> str:
        """From before to after ACE, in words."""
        said = []
        for dataset in NAMES:
            for mode in self.modes(dataset):
                sides = (self.concepts(dataset, mode, m) for m in ("pretrained", "ACE"))
                a, b = (x[list(SPACE)].mean() for x in sides)
                change_of = ", ".join(f"{k} {a[k]:.2f} to {b[k]:.2f}" for k in SPACE)
                said.append(f"{NAMES[dataset]}, {mode}: {change_of}.")
        return " ".join(said)


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over folds and fine-tunings, a row a cell, test and seed."""
    keys = ["dataset", "model", "method", "leaf", "test", "seed", "lr", "epoch"]
    return rows.groupby(keys, sort=False).mean(numeric_only=True).reset_index()


def told(method: str) -> str:
    """The row of a method that starts from an encoder which was told all names."""
    plain = method.removesuffix(" + test leaf")
    name, *more = plain.split(", ")
    leaf = method[len(plain) :]
    return ", ".join([name, "names known", *more]) + leaf


def start_of(method: str) -> str:
    """What a method's encoder was pretrained on."""
    return next((s for name, s in STARTS.items() if method.startswith(name)), TUTORIALS)


def map_of_concepts(p: Params, dataset: str = "ikea") -> pd.DataFrame:
    """Figure 5: every node of the pretrained text side and of ACE's in the plane (t-SNE).

    Returns:
        `mode, model, concept, order, text, x, y`.
    """
    from sklearn.manifold import TSNE

    nodes = pd.read_parquet(p.data / "ace" / dataset / "concepts.parquet")
    nodes = nodes[nodes["model"].isin(["pretrained", "ACE"])]
    embedding = [c for c in nodes if c[0] == "e" and c[1:].isdigit()]
    points = []
    for _, part in nodes.groupby(["mode", "model"], sort=False):
        plane = TSNE(perplexity=8, init="pca", random_state=0)
        xy = plane.fit_transform(part[embedding].to_numpy(np.float64))
        kept = part[["mode", "model", "concept", "order", "text"]]
        points.append(kept.assign(x=xy[:, 0], y=xy[:, 1]))
    return pd.concat(points)


def of_own_clips(answers: pd.DataFrame, novel: int) -> pd.DataFrame:
    """Accuracy and F1 on somebody's own test clips, percent, mean over seeds, a row a model.

    Args:
        answers: From `vlact.stages.own.own_clips`.
        novel: How many novel classes there are.
    """
    at_test = answers["leaf"] & ~answers["model"].str.startswith("ACE")
    named, rows = answers["model"] + np.where(at_test, " + test leaf", ""), []
    test = answers[answers["split"] == "test"]
    for (model, seed), part in test.groupby([named, "seed"], sort=False):
        base, new = (part[part["mode"] == m] for m in ("base", "novel"))
        row = {"model": model, "seed": seed}
        row["seen acc"] = top1(base["label"], base["predicted"]) if len(base) else None
        if len(new):
            root, runs = new[new["run"] == 0], srt(new)
            row |= {"unseen acc": top1(root["label"], root["predicted"])}
            row |= {"unseen F1": macro_f1(root["label"], root["predicted"]), "chance": 1 / novel}
            row |= {"SRT acc": runs["srt_acc_mean"], "SRT acc std": runs["srt_acc_std"]}
        rows.append(row)
    return 100 * pd.DataFrame(rows).drop(columns="seed").groupby("model", sort=False).mean()
