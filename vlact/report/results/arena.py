"""ActionVLM in the arena: the same claims as in the stadium, from scores by seed and by group of
recordings, so that intervals hold for other seeds and for other recordings.
"""

from functools import cached_property
from pathlib import Path

import pandas as pd

from vlact.datasets import activitynet
from vlact.metrics.groups import groups_of
from vlact.params import Params
from vlact.report.results.actionvlm import (
    FIXED,
    FULL,
    LATE,
    NOTHING,
    PRIOR,
    RUN,
    VISION,
    WEIGHTS,
    ActionVLM,
    ambiguous,
    keep_answers,
    pooled,
)
from vlact.report.results.common import NONE, keep, spread
from vlact.report.statistics import Effect, ScoreFault, effect

AT_TEST, TRAINED, ONLY = "prior at test", "prior, trained", "language only"
OFF, OPEN, OWN = "language off", "open ", "own descriptions"
LARGER = f"{FULL}, larger language model"
CONTROLS = {  # what language reads at test, or what stands for it
    "deranged": "descriptions of others",
    "names": "names only",
    "random text": "random text",
    "noise": "Gaussian noise",
    OFF: OFF,
}
THERE = {AT_TEST: LATE, TRAINED: PRIOR}  # what rows are called in the stadium
CELLS = ("seed", "group")
CLIPS = 10  # a class, of Table 5


def designs(pairs: int) -> pd.Series:
    """How each class is to be told apart: "own" poses or "reversed" order."""
    from vlact.worlds.arena import classes

    return pd.Series({k: a.design for k, a in classes(pairs).items()})


def keep_arena(p: Params) -> None:
    """Scores of stage `arena`, from the files of its jobs: average precision of all test recordings
    (`ap`) and by group of them (`groups`), the scarcity sweep (`scarce`), weights by class, clips
    that only look like an action, how text fails, and how well readers of two sizes read (`gate`).
    """
    folder = p.data / "arena" / "rows"
    larger = p.data / "arena" / "larger"
    places = {f.stem: f.parent for f in folder.glob("*.json")}
    places |= {f.stem: f.parent for f in (larger / "rows").glob("*.json")}
    names = sorted(places)

    def read(kind: str, wanted: list[str]) -> pd.DataFrame:
        paths = [places[n] / f"{n}{kind}.parquet" for n in wanted]
        found = [alias(pd.read_parquet(f)) for f in paths if f.is_file()]
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame()

    scarce = [n for n in names if n.startswith("scarce")]
    rest = [n for n in names if n not in scarce]
    rows, keys = read("", rest), [*RUN, "label"]
    whole, parts = rows[rows["group"] < 0], rows[rows["group"] >= 0]
    keep(p, "arena", "ap", whole.drop(columns="group"), [*keys, "tiou"])
    parts = parts.groupby([*keys, "group"], sort=False)["ap"].mean().reset_index()
    keep(p, "arena", "groups", parts, [*keys, "group"])
    if scarce:
        counts = {n: int(n.removeprefix("scarce").split("-")[0]) for n in scarce}
        found = [read("", [n]).assign(recordings=k) for n, k in counts.items()]
        by = ["recordings", *RUN, "group"]
        found = pd.concat(found, ignore_index=True).query("group >= 0")
        found = found.groupby(by, sort=False)["ap"].mean().reset_index()
        keep(p, "arena", "scarce", found, by)
    if len(weights := read("-frames", rest)):
        keep(p, "arena", "weights", weights, ["model", "seed", "group", "label"])
    truth = activitynet.ground_truth(p.data / "arena" / "ground_truth.json", "test")
    known = list(designs(p.arena.pairs).index)
    truth, found = truth[truth["label"].isin(known)], read("-found", rest)
    own = found[found["condition"] == "own"]
    clips = ambiguous(p.data / "arena" / "events.json", truth, own, CLIPS)
    groups = groups_of(truth, known)
    clips = clips.assign(group=clips["video"].map(groups)).drop(columns="video")
    keep(p, "arena", "ambiguous", clips, ["model", "seed", "clip"])
    if len(answers := read("-texts", rest)):
        keep_answers(p, "arena", truth, answers[answers["condition"] == "own"], known)
    if (gate := larger / "gate.csv").is_file():
        keep(p, "arena", "gate", pd.read_csv(gate), ["reader", "descriptions"])
    size = {"what": "recordings", "instances": len(truth), "videos": truth["video"].nunique()}
    keep(p, "arena", "sizes", pd.DataFrame([size]), ["what"])


def alias(table: pd.DataFrame) -> pd.DataFrame:
    """The same with what no prior joins by its own name, vision alone."""
    if not {"model", "condition"} <= set(table):
        return table
    alone = table["model"].eq(AT_TEST) & table["condition"].eq(OFF)
    return pd.concat([table, table[alone].assign(model=VISION, condition="own")])


class Arena(ActionVLM):
    """As `ActionVLM`, from the arena's scores."""

    stage, random, calibrated = "arena", CELLS, True

    @property
    def stadium(self) -> ActionVLM:
        return ActionVLM(self.p, self.folder)

    @cached_property
    def by_class(self) -> pd.DataFrame:
        table = self.scores("arena", "ap")
        return table.assign(ap=100 * table["ap"])

    @cached_property
    def _groups(self) -> pd.Series:
        table = self.scores("arena", "groups")
        return 100 * table.set_index([*RUN, "group", "label"])["ap"].sort_index()

    def labelled(self, model: str, condition: str = "own") -> pd.Series:
        """Average precision in percent by seed, group and class."""
        known = self._groups.index.droplevel(["seed", "group", "label"])
        if (model, condition) not in known:
            return NOTHING
        return self._groups[model, condition]

    def cells(self, model: str, condition: str = "own") -> pd.Series:
        found = self.labelled(model, condition)
        return found.groupby(list(CELLS)).mean() if len(found) else found

    def weight_by_label(self, model: str) -> pd.Series:
        mine = self.weights[(self.weights["model"] == model) & (self.weights["label"] != "")]
        return mine.set_index([*CELLS, "label"])["weight"]

    def extent(self) -> str:
        """What was run, beside what the profile asks for."""
        a, size = self.p.arena, self.scores("arena", "sizes").set_index("what").loc["recordings"]
        known = len(self.designs())
        run, asked = size["videos"] // known, a.test
        words = f"{run} test recordings of each of {known} classes, {size['instances']} instances"
        if run < asked:
            words += f" (of {asked} recordings that the profile asks for: the rest was not run)"
        seeds = self.map(VISION).size
        if seeds < a.seeds:
            words += f"; {seeds} of {a.seeds} seeds"
        return f"{words}."

    def gap(self, model: str, condition: str, other: str, base: str = "own") -> Effect | None:
        """Difference in mAP over seeds and recordings; None where there is none to be had."""
        return measured(self.over(model, other, condition, base))

    def fusions(self) -> pd.DataFrame:
        """Eq. 5 and language as a prior, each under the same controls at test: a row what language
        reads; beside their own descriptions the stadium, which is not calibrated.
        """
        rows, stadium = [], self.stadium
        for model in (VISION, ONLY, FIXED, FULL, AT_TEST, TRAINED, f"{FIXED}, noise"):
            own = self.map(model)
            if not len(own):
                continue
            for condition, name in ({"own": OWN} | CONTROLS).items():
                found = self.map(model, condition)
                if not len(found):
                    continue
                row = {"model": model, "language": name, "seeds": len(found)}
                row |= {"mAP": spread(found), "stadium": NONE}
                if condition == "own" and stadium.kept("actionvlm", "ap"):
                    row["stadium"] = spread(stadium.map(THERE.get(model, model)))
                rows.append(row | {"− vision only": said(self.gap(model, condition, VISION))})
        return pd.DataFrame(rows).fillna(NONE)

    def chance(self) -> str:
        """How many controls gain over vision alone at 5 %, and how many would by chance."""
        found = [
            e
            for model in (FIXED, FULL, AT_TEST, TRAINED)
            for condition in ("deranged", "names", "random text", "noise")
            if (e := self.gap(model, condition, VISION))
        ]
        above = sum(e.mean > 0 and e.p() <= 0.05 for e in found)
        return (
            f"{above} of {len(found)} controls gain over vision alone at a two-sided 5 %; by "
            f"chance {0.025 * len(found):.1f} would."
        )

    def curve(self) -> pd.DataFrame:
        """How much weight for language, each a model of its own (Table 4): `λ` (nan where it is not
        set), `model, seeds, mAP, gain, low, high`, gain over vision alone.
        """
        rows = []
        for model in WEIGHTS:
            if model == VISION or not len(own := self.map(model)):
                continue
            weight = float(model.split("= ")[1]) if model.startswith("fixed") else float("nan")
            row = {"λ": weight, "model": model, "seeds": len(own), "mAP": own.mean()}
            found = self.gap(model, "own", VISION)
            low, high = found.interval() if found else (float("nan"),) * 2
            mean = found.mean if found else float("nan")
            rows.append(row | {"gain": mean, "low": low, "high": high})
        return pd.DataFrame(rows)

    def language_sizes(self) -> pd.DataFrame:
        """The full method with language models of two sizes, on the seeds that both have."""
        gate = self.scores("arena", "gate").query("descriptions == 'right'").set_index("reader")
        rows, both = [], self.map(LARGER).index
        for model, reader in ((FULL, "language"), (LARGER, f"language{LARGER[len(FULL) :]}")):
            row = {"model": model, "reads right": f"{100 * gate.loc[reader, 'pointer']:.1f}"}
            own = self.map(model)
            row |= {"seeds": len(both), "mAP": spread(own[own.index.isin(both)])}
            row["− vision only"] = said(self.gap(model, "own", VISION))
            other = self.gap(model, "own", FULL) if model != FULL else None
            rows.append(row | {"− smaller": said(other)})
        return pd.DataFrame(rows)

    def scarcity(self) -> pd.DataFrame:
        """mAP and gain by recordings a class: `recordings, model, mAP, gain, low, high, seeds`."""
        table, rows = self.scores("arena", "scarce"), []
        keys = ["recordings", "model", "condition", *CELLS]
        cells = 100 * table.set_index(keys)["ap"].sort_index()
        for count in sorted(table["recordings"].unique()):
            base = cells[count, AT_TEST, OFF]
            for model, condition in ((VISION, OFF), (AT_TEST, "own"), (TRAINED, "own")):
                mine = cells[count, AT_TEST if model == VISION else model, condition]
                row = {"recordings": count, "model": model, "mAP": mine.mean()}
                row["seeds"] = mine.index.unique("seed").size
                gain = (mine - base).dropna()
                found = measured(gain) if model != VISION else None
                low, high = found.interval() if found else (float("nan"),) * 2
                mean = gain.mean() if model != VISION else float("nan")
                rows.append(row | {"gain": mean, "low": low, "high": high})
        return pd.DataFrame(rows)

    def by_ambiguity(self) -> pd.DataFrame:
        """Gains and weights on hard, medium and easy classes, grouped on the other seeds."""
        rows, seeds = [], self.map(VISION).index
        by = {s: self.all_groups(s) for s in seeds}
        for model in (FIXED, FULL, AT_TEST, TRAINED):
            mine, base = self.labelled(model), self.labelled(VISION)
            gain = (mine - base).dropna()
            for group in by[seeds[0]]:
                chosen = in_groups(gain, {s: x[group] for s, x in by.items()})
                row = {"model": model, "group": group, "n": len(by[seeds[0]][group])}
                vision = in_groups(base, {s: x[group] for s, x in by.items()})
                row["vision only"] = f"{vision.mean():.1f}" if len(vision) else NONE
                row["gain"] = said(measured(chosen))
                row["λ"] = NONE
                if model in self.watched:
                    weight = self.weight_by_label(model)
                    weight = in_groups(weight, {s: x[group] for s, x in by.items()})
                    row["λ"] = f"{weight.mean():.3f}"
                rows.append(row)
        return pd.DataFrame(rows)

    def designs(self) -> pd.Series:
        return designs(self.p.arena.pairs)

    def open_vocabulary(self) -> pd.DataFrame:
        """Classes that nothing was trained on, among all: mAP under every condition."""
        from vlact.worlds.arena import unseen

        rows, labels = [], {"unseen": set(unseen()), "trained": set(self.designs().index)}
        for name in (AT_TEST, TRAINED):
            for condition in ("own", *CONTROLS):
                found = self.labelled(OPEN + name, condition)
                off = self.labelled(OPEN + name, OFF)
                if not len(found):
                    continue
                row = {"model": name, "language": CONTROLS.get(condition, OWN)}
                for what, mine in labels.items():
                    own, base = (
                        x[x.index.get_level_values("label").isin(mine)].groupby(list(CELLS)).mean()
                        for x in (found, off)
                    )
                    row[f"{what} mAP"] = f"{own.mean():.1f}"
                    gain = measured(own - base) if condition != OFF else None
                    row[f"{what} − language off"] = said(gain)
                rows.append(row)
        return pd.DataFrame(rows)

    def repair(self) -> pd.DataFrame:
        """Eq. 1 before and after its class means were repaired, and with other targets."""
        rows = []
        for model in (FULL, "full (Eq. 1), means lost", "full, paired advantage"):
            if not len(own := self.map(model)):
                continue
            row = {"model": model, "seeds": len(own), "mAP": spread(own)}
            row["− vision only"] = said(self.gap(model, "own", VISION))
            inside = self.weights[(self.weights["model"] == model) & (self.weights["label"] != "")]
            row["λ in actions"] = f"{pooled(inside, 'weight'):.3f}" if len(inside) else NONE
            row["Â in actions"] = f"{pooled(inside, 'predicted'):.3f}" if len(inside) else NONE
            rows.append(row | {"− repaired": said(self.gap(model, "own", FULL))})
        return pd.DataFrame(rows)


def judged(p: Params, folder: Path | None = None) -> ActionVLM:
    """The scores by which claims are decided: the arena's, where it was run."""
    found = Arena(p, folder)
    return found if found.kept("arena", "groups") else ActionVLM(p, folder)


def in_groups(values: pd.Series, labels: dict[int, list[str]]) -> pd.Series:
    """Means over some classes, each seed its own, by seed and group."""
    index = values.index
    wanted = [
        b in labels[a]
        for a, b in zip(
            index.get_level_values("seed"), index.get_level_values("label"), strict=True
        )
    ]
    return values[wanted].groupby(list(CELLS)).mean()


def measured(values: pd.Series) -> Effect | None:
    """Mean over seeds and groups of recordings; None where there are too few, or all alike."""
    try:
        return effect(values, CELLS)
    except ScoreFault:
        return None


def said(found: Effect | None) -> str:
    """An effect in words: mean, 95 % interval."""
    if found is None:
        return NONE
    low, high = found.interval()
    return f"{found.mean:+.1f} [{low:+.1f}, {high:+.1f}]"
