"""Beyond the papers: what makes a context new, and two papers at once."""

from functools import cached_property

import numpy as np
import pandas as pd

from vlact.metrics.localization import THUMOS14_TIOUS
from vlact.params import Params
from vlact.report import tables
from vlact.report.results.ace import Ace
from vlact.report.results.actionvlm import scored, truth_of
from vlact.report.results.common import Scores, interval, keep, paired
from vlact.worlds.factors import FACTORS

SHARED, ALL = "nothing", "everything"  # what is new
UNIT = ["way", "model", "trained_on"]


# What stages keep
def keep_factors(p: Params) -> None:
    """Scores of stage `factors`: right answers by part, and by the name that motions go by."""
    answers = pd.read_parquet(p.data / "factors" / "factors.parquet")
    right = 100.0 * (answers["label"] == answers["predicted"])
    parts = right.groupby([answers[k] for k in ("model", "seed", "part")], sort=False)
    parts = parts.agg(accuracy="mean", clips="size").reset_index()
    keep(p, "factors", "parts", parts, ["model", "seed", "part"])
    names = pd.read_parquet(p.data / "factors" / "names.parquet")
    runs = [c for c in names if c.startswith("run")]
    known = names["set"] == names["trained_on"]
    right = names[runs].eq(names["label"], axis=0).mul(100)
    right = right.assign(context=known.map({True: "known", False: "unknown"}))
    keys = ["model", "seed", "context", "trained_on"]
    by = right.join(names[["model", "seed", "trained_on"]]).groupby(keys, sort=False)
    table = by[runs].mean().assign(clips=by.size()).reset_index()
    keep(p, "factors", "names", table, keys)


def keep_across(p: Params) -> None:
    """Scores of stage `across`: readers by wording, ActionVLM by wording, weights of clips."""
    from sklearn.metrics import roc_auc_score

    folder = p.data / "across"
    reading = pd.read_csv(folder / "reading.csv")
    keep(p, "across", "reading", reading, ["reader", "seed", "words"])
    wordings = pd.read_parquet(folder / "wordings.parquet")
    ap = scored(truth_of(p), wordings, ["words"], THUMOS14_TIOUS)
    keep(p, "across", "wordings", ap, ["words", "label", "tiou"])
    weighed = pd.read_parquet(folder / "weighed.parquet")
    known = weighed["set"] == weighed["trained_on"]
    weighed["context"] = known.map({True: "known", False: "unknown"})
    weighed["right"] = 100.0 * (weighed["label"] == weighed["predicted"])
    keys = [*UNIT, "context"]
    by = weighed.groupby(keys, sort=False)
    table = by.agg(right=("right", "mean"), weight=("weight", "mean"), clips=("weight", "size"))
    keep(p, "across", "weighed", table.reset_index(), keys)
    clip = ["model", "trained_on", "video"]
    helps = weighed[weighed["way"] == "oracle"].set_index(clip)["weight"]
    rows = []
    for way, part in weighed.groupby("way", sort=False):
        part = part.set_index(clip)
        mine, auc = helps.loc[part.index], np.nan
        if way != "oracle" and part["weight"].nunique() > 1 and mine.nunique() > 1:
            auc = roc_auc_score(mine, part["weight"])
        rows.append({"way": way, "auc": auc})
    keep(p, "across", "ranking", pd.DataFrame(rows), ["way"])


class Factors(Scores):
    """One factor at a time, and motions by other names, percent."""

    @cached_property
    def parts(self) -> pd.DataFrame:
        """Accuracy by model and seed, a column a part."""
        table = self.scores("factors", "parts")
        return table.set_index(["model", "seed", "part"])["accuracy"].unstack()

    def clips(self) -> int:
        """Clips of a part."""
        return self.scores("factors", "parts")["clips"].max()

    def seeds(self) -> int:
        """How many seeds there are."""
        return self.parts.index.get_level_values("seed").nunique()

    def lost(self) -> pd.DataFrame:
        """Accuracy where something is new, and the points lost, paired over seeds."""
        rows = []
        for model, part in self.parts.groupby(level="model"):
            part = part.droplevel("model")
            for what in (SHARED, *FACTORS, ALL):
                row = {"model": model, "new": what, "accuracy": part[what].mean()}
                row |= {"points lost": (part[SHARED] - part[what]).mean()}
                found = paired(part[SHARED], part[what]) if what != SHARED else None
                rows.append(row | {"interval": interval(found)})
        return pd.DataFrame(rows)

    def most_and_least(self) -> str:
        """Which factor costs most, and which least, over models."""
        lost = self.lost()
        single = lost[lost["new"].isin(FACTORS)].groupby("new", sort=False)["points lost"].mean()
        return (
            f"most is lost where {single.idxmax()} is new ({single.max():.1f}), least where "
            f"{single.idxmin()} is ({single.min():.1f})"
        )

    @cached_property
    def names(self) -> pd.DataFrame:
        """Accuracy by model, seed, context and training set, a column a run of names."""
        return self.scores("factors", "names")

    @property
    def other_runs(self) -> list[str]:
        """Runs in which motions go by other names than their own."""
        return [c for c in self.names if c.startswith("run") and c != "run0"]

    @cached_property
    def by_context(self) -> pd.DataFrame:
        """Accuracy by model, seed and context, both directions pooled; run0 and the others."""
        runs, keys = ["run0", *self.other_runs], ["model", "seed", "context"]
        total = self.names[runs].mul(self.names["clips"], axis=0)
        by = [self.names[k] for k in keys]
        total = total.groupby(by, sort=False).sum()
        return total.div(self.names["clips"].groupby(by, sort=False).sum(), axis=0)

    def renamed(self) -> pd.DataFrame:
        """The Synonym Robustness Test on coarse motions; the std is over runs."""
        rows, means = [], self.by_context
        for model in self.names["model"].unique():
            row = {"model": model}
            for context in ("known", "unknown"):
                mine = means.loc[model].xs(context, level="context")
                row[f"{context}, own name"] = mine["run0"].mean()
                row[f"{context}, other names"] = mine[self.other_runs].mean(axis=1).mean()
                row[f"{context}, std"] = mine.std(axis=1, ddof=0).mean()
            rows.append(row)
        return pd.DataFrame(rows)

    def enhanced(self, controls: list[str]) -> pd.DataFrame:
        """ACE minus the same encoder trained otherwise, paired over seeds."""
        other = self.by_context[self.other_runs].mean(axis=1)
        values, rows = {"own name": self.by_context["run0"], "other names": other}, []
        for control in controls:
            for context in ("known", "unknown"):
                for what, by in values.items():
                    ours, theirs = (by[m].xs(context, level="context") for m in ("ACE", control))
                    row = {"against": control, "contexts": context, "names": what}
                    row |= {"ACE minus it": (ours - theirs).mean()}
                    rows.append(row | {"interval": interval(paired(ours, theirs))})
        return pd.DataFrame(rows)


class Across(Factors):
    """Experiments that need two papers, percent."""

    @cached_property
    def readers(self) -> pd.DataFrame:
        """Right pointers by reader and seed, a column a kind of wording."""
        table = self.scores("across", "reading")
        table = table.assign(pointer=100 * table["pointer"])
        return table.pivot_table(index=["reader", "seed"], columns="words", values="pointer")

    def reading(self, base: str = "drawn wordings") -> pd.DataFrame:
        """ACE's recipe in ActionVLM's descriptions, against one of the readers."""
        rows, base = [], self.readers.loc[base]
        for name in self.scores("across", "reading")["reader"].unique():
            mine = self.readers.loc[name]
            row = {"reader": name}
            row |= {k: tables.spread(mine[k], 1) for k in ("usual", "drawn", "other")}
            row |= {"lost in other words": (mine["usual"] - mine["other"]).mean()}
            gap = (mine["other"] - base["other"]).mean()
            row |= {"other words against drawn wordings": gap}
            rows.append(row | {"interval": interval(paired(mine["other"], base["other"]))})
        return pd.DataFrame(rows)

    def reader_seeds(self) -> int:
        """How many seeds readers have."""
        return self.readers.index.get_level_values("seed").nunique()

    def wording_map(self) -> pd.Series:
        """mAP of ActionVLM by the wording of its descriptions, percent."""
        ap = self.scores("across", "wordings")
        by = ap.groupby(["words", "tiou"], sort=False)["ap"].mean()
        return 100 * by.groupby("words", sort=False).mean()

    def robust(self) -> pd.DataFrame:
        """The Synonym Robustness Test for every model with a text side."""
        rows = []
        cells = Ace(self.p, self.folder).cells.query("dataset == 'ata' and test == 'shipped'")
        # names alone, where a model has both
        cells = cells[cells["leaf"] == cells.groupby("model")["leaf"].transform("min")]
        cells = cells[~cells["model"].str.contains("w/o|verbs only|names known")]
        for model, part in cells.groupby("model", sort=False):
            row = {"world": "ATA, unseen actions", "model": model}
            row |= {"own words": 100 * part["unseen_acc"].mean()}
            row |= {"other words": 100 * part["srt_acc_mean"].mean()}
            rows.append(row | {"std over runs": 100 * part["srt_acc_std"].mean()})
        known = self.names[self.names["context"] == "known"]
        for model, mine in known.groupby("model", sort=False):
            row = {"world": "Syn-TA, coarse motions", "model": model}
            row |= {"own words": mine["run0"].mean()}
            row |= {"other words": mine[self.other_runs].mean(axis=1).mean()}
            runs = mine[["run0", *self.other_runs]]
            rows.append(row | {"std over runs": runs.std(axis=1, ddof=0).mean()})
        ap = self.wording_map()
        own = ap["read 1"]
        for kind, words in {"read": "it has read", "new": "never met"}.items():
            mine = np.array([v for k, v in ap.items() if k.startswith(kind) and k != "read 1"])
            row = {"world": "stadium, mAP", "model": f"ActionVLM, wordings {words}"}
            row |= {"own words": own, "other words": mine.mean()}
            rows.append(row | {"std over runs": np.std([own, *mine])})
        return pd.DataFrame(rows).assign(lost=lambda t: t["own words"] - t["other words"])

    @cached_property
    def units(self) -> pd.DataFrame:
        """Accuracy in known and unknown contexts and HM by way of weighing, model and training
        set.
        """
        right = self.scores("across", "weighed").set_index([*UNIT, "context"])["right"].unstack()
        both = (right["known"] + right["unknown"]).clip(lower=1e-9)
        return right.assign(HM=2 * right["known"] * right["unknown"] / both)

    def unit_count(self) -> int:
        """How many models and directions there are."""
        return len(self.units.groupby(["model", "trained_on"]))

    def weighing(self, full: str = "fixed λ = 1") -> pd.DataFrame:
        """Language that must earn its weight, for clips; paired over models and directions."""
        table = self.scores("across", "weighed")
        auc = self.scores("across", "ranking").set_index("way")["auc"]
        table["total"] = table["weight"] * table["clips"]
        sums = table.groupby(["way", "context"])[["total", "clips"]].sum()
        weight, rows, base = sums["total"] / sums["clips"], [], self.units.loc[full]
        for way in table["way"].unique():
            mine = self.units.loc[way]
            row = {"λ": way, **{k: mine[k].mean() for k in ("known", "unknown", "HM")}}
            row |= {"HM against fixed λ = 1": (mine["HM"] - base["HM"]).mean()}
            row |= {"interval": interval(paired(mine["HM"], base["HM"]))}
            row |= {f"mean λ, {k}": weight[way, k] for k in ("known", "unknown")}
            rows.append(row | {"AUC": auc[way]})
        return pd.DataFrame(rows)
