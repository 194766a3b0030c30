"""ACE: every reported number, from the scores that its stages keep."""

import re
from functools import cached_property

import numpy as np
import pandas as pd

from vlact.metrics.classification import (
    macro_f1,
    paired_interval,
    random_guess,
    srt,
    top1,
)
from vlact.metrics.concepts import concept_space
from vlact.metrics.selection import best_cells, choose
from vlact.metrics.synonyms import SynonymRobustnessTest
from vlact.params import Params
from vlact.report import published, tables
from vlact.report.results.common import Scores, both_ways, change, keep

NAMES = {"ata": "ATA", "ikea": "IKEA", "gtea": "GTEA"}
RIVALS = ("ViFi-CLIP (ft)", "ViFi-CLIP (pr)", "BIKE", "Text4Vis", "ProcVLR")  # Tables 1 and 2
OWN = ("ACE", "ACE, halfway", "ACE slow, halfway")
METHODS = (
    *("ViFi-CLIP (ft)", "ViFi-CLIP (pr)", "BIKE", "Text4Vis", "LaViLa", "ProcVLR"),
    *("ACE", "ACE slow", "ProcVLR, halfway", "ACE slow, halfway", "ACE, halfway"),
)
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
CELL = ["dataset", "method", "test", "seed", "lr", "epoch"]
METRICS = ("acc", "f1")
PAIRED = ("srt_acc_mean", "srt_f1_mean", "unseen_acc", "seen_acc", "srt_acc_std")
SPACE = ("within", "between", "nearest")


# What stages keep
def keep_results(p: Params) -> None:
    """Scores of stage `ace_results`: every cell of the grid, the chosen cells' test clips, chance,
    and the similarities of Figure 1.
    """
    grid = pd.read_csv(p.data / "ace" / "scores.csv")
    keys = [k for k in ("dataset", "model", "leaf", "test", "lr", "epoch") if k in grid]
    cells = best_cells(grid, every=True).merge(
        choose(grid)[keys].assign(chosen=True), on=keys, how="left"
    )
    keep(p, "ace_results", "grid", cells.assign(chosen=cells["chosen"].notna()), CELL)

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
        for seed, mine in part.groupby("seed"):
            guess = random_guess(mine["label"], part["label"].nunique())
            chance.append({"dataset": dataset, "seed": seed, **guess})
    keep(p, "ace_results", "chance", pd.DataFrame(chance), ["dataset", "seed"])

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
    for dataset in NAMES:
        nodes = pd.read_parquet(p.data / "ace" / dataset / "concepts.parquet")
        for (mode, model), part in nodes.groupby(["mode", "model"], sort=False):
            row = {"dataset": dataset, "mode": mode, "model": model, "seed": p.seeds[0]}
            rows.append(row | concept_space(part))
    keep(p, "ace_sweeps", "concepts", pd.DataFrame(rows), ["dataset", "mode", "model", "seed"])


class Ace(Scores):
    """ACE's scores by seed, percent, and its tables."""

    @cached_property
    def grid(self) -> pd.DataFrame:
        """Every cell of the grid, a row a seed; `chosen` marks those that validation chose."""
        return self.scores("ace_results", "grid")

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Chosen cells of the grid, a row a seed."""
        return self.grid[self.grid["chosen"]].drop(columns="chosen").reset_index(drop=True)

    @cached_property
    def sweeps(self) -> pd.DataFrame:
        """Cells of the sweeps, a row a seed."""
        return self.scores("ace_sweeps", "sweeps")

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

    def best_rival(self, dataset: str, key: str) -> tuple[str, pd.Series]:
        """The method of the paper's tables, ACE apart, with the highest mean."""
        found = {m: self.ace(dataset, m, key) for m in RIVALS}
        name = max(found, key=lambda m: found[m].mean())
        return name, found[name]

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
                row |= {"lr": f"{cell['lr'].iloc[0]:g}", "epochs": f"{cell['epoch'].iloc[0]}"}
                row |= {head: tables.spread(cell[key]) for key, head in HEAD.items()}
                rows.append(row | {"SRT overlap": self.overlap(dataset, cell)})
        columns = ["dataset", "method", "lr", "epochs", *HEAD.values(), "SRT overlap"]
        return pd.DataFrame(rows).reindex(columns=columns)

    @staticmethod
    def overlap(dataset: str, cell: pd.DataFrame) -> str:
        """What the label sets of a cell's test share, two digits."""
        return f"{SynonymRobustnessTest.of(dataset, bool(cell['leaf'].iloc[0])).overlap:.2f}"

    def compare(
        self, dataset: str, ours: str, other: str, key: str = "srt_acc_mean", expected: int = 1
    ) -> str:
        """Two methods paired over seeds, as a sentence; `expected` is the published sign."""
        return self.versus(
            dataset,
            (ours, self.cell(dataset, ours)),
            (other, self.cell(dataset, other)),
            key,
            expected,
        )

    @staticmethod
    def versus(
        dataset: str,
        ours: tuple[str, pd.DataFrame],
        other: tuple[str, pd.DataFrame],
        key: str = "srt_acc_mean",
        expected: int = 1,
    ) -> str:
        """As `compare`, of rows by seed and what they are called."""
        mine, theirs = 100 * ours[1][key], 100 * other[1][key]
        found = paired_interval(mine, theirs.loc[mine.index])
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
        for ours in ("ACE, halfway", "ACE slow, halfway"):
            for other in ("ACE", "ProcVLR, halfway + test leaf"):
                said.append(self.compare(dataset, ours, other, expected=0))
        return " ".join(said)

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
        """ACE and its other recipes against every method, paired over seeds, points."""
        rows = []
        for dataset in NAMES:
            for ours in OWN:
                for method in CONTROLS + METHODS:
                    mine, other = self.cell(dataset, ours), self.cell(dataset, method)
                    if method == ours or not len(other):
                        continue
                    for key in PAIRED:
                        found = paired_interval(100 * mine[key], 100 * other[key].loc[mine.index])
                        wins = f"{found.pop('wins')}/{found.pop('n')}"
                        row = {"dataset": NAMES[dataset], "ours": ours, "minus": method}
                        rows.append(row | {"metric": HEAD[key], **found, "seeds won": wins})
        return pd.DataFrame(rows)

    def findings(self, others: tuple[str, ...]) -> list[str]:
        """A sentence a pair of `paired`, on SRT accuracy, for some of the other methods."""
        said, rows = [], self.paired[self.paired["metric"] == "SRT acc"]
        for row in rows[rows["minus"].isin(others)].itertuples():
            word = "above" if row.low > 0 else "below" if row.high < 0 else "not separated from"
            found = f"{row.mean:+.1f} [{row.low:+.1f}, {row.high:+.1f}], {row[-1]} seeds"
            said.append(
                f"{row.dataset}: {row.ours} is {word} {row.minus} on SRT accuracy: {found}."
            )
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
            full = self.cell(dataset, "ACE")
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
                    key = "srt_acc_mean"
                    found = paired_interval(100 * full[key], 100 * cell[key].loc[full.index])
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
        manual = self.sweep("gtea", "manual tree", "manual")
        shipped = self.sweep("gtea", "shipped tree", "shipped")
        said = [self.versus("gtea", ("manual trees", manual), ("shipped trees", shipped))]
        for d in ("gtea", "ata"):
            free = self.sweep(d, "context-free tree", "shipped")
            whole = shipped if d == "gtea" else self.cell(d, "ACE")
            pair = ("training on shipped trees", whole), ("training on context-free trees", free)
            said.append(self.versus(d, *pair, expected=0))
            for name, variant in (
                ("ACE slow", ", slow"),
                ("ACE, halfway", ", halfway"),
                ("ACE slow, halfway", ", slow, halfway"),
            ):
                calm = self.sweep(d, f"context-free tree{variant}", "shipped")
                pair = (f"{name} on context-free trees", calm), ("ACE on them", free)
                said.append(self.versus(d, *pair, expected=0))
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
            for other in (("zero-shot", before), ("ACE from a random start", random)):
                said.append(self.versus(d, ("ACE", ours), other, "unseen_acc"))
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
        full = self.sweep("ata", f"{whole:.0f} first, {whole:.0f} second")
        pair = ("all synonyms", full), ("no synonym", self.sweep("ata", "no synonym"))
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
            deep = self.sweep(d, f"{deepest} video blocks")
            pair = ("all video blocks", deep), (usual, self.cell(d, "ACE"))
            said.append(self.versus(d, *pair, "seen_f1"))
        pair = ("2 text blocks", self.sweep("ata", "2 text blocks"))
        pair = pair, ("the projection alone", self.cell("ata", "ACE"))
        said.append(self.versus("ata", *pair, "unseen_f1", -1))
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
        rows = self.space[self.space["model"] != "ProcVLR"].drop(columns="seed")
        rows = rows.assign(dataset=rows["dataset"].map(NAMES), model=rows["model"].map(names))
        return rows.rename(columns={"mode": "concepts", "model": "text side"})

    def tighter(self) -> str:
        """From before to after ACE, in words."""
        said = []
        for dataset in NAMES:
            for mode in self.modes(dataset):
                a, b = (self.concepts(dataset, mode, m).iloc[0] for m in ("pretrained", "ACE"))
                change_of = ", ".join(f"{k} {a[k]:.2f} to {b[k]:.2f}" for k in SPACE)
                said.append(f"{NAMES[dataset]}, {mode}: {change_of}.")
        return " ".join(said)


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
