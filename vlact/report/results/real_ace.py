"""Numbers of ACE on real clips, from prediction and score tables of the stages; percent."""

import numpy as np
import pandas as pd

from vlact.metrics.classification import paired_interval
from vlact.metrics.selection import best_cells
from vlact.report.results.real import below, of_claim

RESAMPLES = 1000  # of source films
LEVEL = 0.95
SCORES = {
    "seen_acc": "seen acc",
    "unseen_acc": "unseen acc",
    "hm_acc": "HM acc",
    "srt_acc_mean": "SRT acc",
    "srt_acc_std": "SRT acc std",
    "unseen_f1": "unseen F1",
    "srt_f1_mean": "SRT F1",
}
TOLD_LEAF = ("ACE", "w/o")  # methods whose leaves are part of them
NAMES = {"jhmdb": "JHMDB", "ucf101": "UCF101"}
CLOSE = 5.0  # points within which something is competitive, as in the ledger
RIVALS = ("ProcVLR", "ViFi-like", "Text4Vis-like")


def over_films(right: np.ndarray, films: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean (percent) over clips, whole films resampled.

    Args:
        right: A number a clip, 0..1.
        films: Which film each clip is of.
    """
    codes, _ = pd.factorize(films)
    sums, counts = np.bincount(codes, right), np.bincount(codes)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return 100 * float(low), 100 * float(high)


def zero_shot(named: pd.DataFrame, films: pd.Series) -> pd.DataFrame:
    """Models that saw no clip: accuracy by the root names and over all label sets.

    Args:
        named: `model, seed, leaf, run, clip, label, predicted`, see `vlact.stages.real_video`.
        films: Source film of every clip, by clip.

    Returns:
        `model, names, acc, acc low, acc high, acc std over seeds, SRT acc, SRT low, SRT high`.
    """
    rows, chance = [], 100 / named["label"].nunique()
    named = named.assign(right=named["label"] == named["predicted"])
    for (model, leaf), part in named.groupby(["model", "leaf"], sort=False):
        row = {"model": model, "names": "with test leaves" if leaf else "alone"}
        for head, some in (("acc", part[part["run"] == 0]), ("SRT acc", part)):
            per_clip = some.groupby("clip")["right"].mean()
            row[head] = 100 * per_clip.mean()
            row[f"{head} low"], row[f"{head} high"] = over_films(
                per_clip.to_numpy(float), films.loc[per_clip.index].to_numpy()
            )
        seeds = part[part["run"] == 0].groupby("seed")["right"].mean()
        row["acc std over seeds"] = 100 * seeds.std(ddof=1) if len(seeds) > 1 else np.nan
        rows.append(row)
    first = {"model": "chance", "names": "–", "acc": chance, "SRT acc": chance}
    return pd.DataFrame([first, *rows])


def by_class(named: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Accuracy of each class by the root names alone, a column a model."""
    some = named[(named["run"] == 0) & ~named["leaf"]]
    right = some.assign(right=100.0 * (some["label"] == some["predicted"]))
    table = right.pivot_table(index="label", columns="model", values="right")
    return table.set_axis([names[i] for i in table.index]).rename_axis("class").reset_index()


def chosen(scores: pd.DataFrame, every: bool = False) -> pd.DataFrame:
    """Scores of every trial at its method's chosen cell (at all cells, if `every`), with the
    variant's name as `method`.
    """
    found = best_cells(scores, every)
    name = found["model"]
    at_test = found["leaf"] & ~name.str.startswith(TOLD_LEAF)
    return found.assign(method=name.where(~at_test, name + " + test leaf"))


def by_partition(found: pd.DataFrame, key: str) -> pd.DataFrame:
    """Percent of each method (columns) in each partition (rows), over splits and seeds."""
    return 100 * found.pivot_table(
        index="partition", columns="method", values=key, aggfunc="mean", sort=False
    )


def methods(found: pd.DataFrame, novel: int) -> pd.DataFrame:
    """Every method at its chosen cell: mean, 95 % t interval over partitions, and the spread over
    seeds.

    Args:
        found: From `chosen`, of one data set.
        novel: Classes that a partition tests; chance is one in so many.
    """
    chance = 100 / novel
    rows = [{"method": "chance", "unseen acc": f"{chance:.1f}", "SRT acc": f"{chance:.1f}"}]
    for method, part in found.groupby("method", sort=False):
        cell = part.iloc[0]
        row = {"method": method, "lr": f"{cell['lr']:g}", "epochs": f"{cell['epoch']}"}
        for key, head in SCORES.items():
            values = by_partition(part, key)[method].to_numpy()
            row[head] = interval(values)
        seeds = part.groupby("seed")["srt_acc_mean"].mean()
        spread = 100 * seeds.std(ddof=1) if len(seeds) > 1 else np.nan
        rows.append(row | {"SRT acc, std over seeds": spread})
    return pd.DataFrame(rows)[["method", "lr", "epochs", *SCORES.values(), list(rows[-1])[-1]]]


def interval(values: np.ndarray) -> str:
    """ "mean [low, high]" of a few values, t; the mean alone of one."""
    if len(values) < 2:
        return f"{np.mean(values):.1f}"
    found = paired_interval(values, np.zeros(len(values)))
    return f"{found['mean']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"


def paired(found: pd.DataFrame, pairs: list[tuple[str, str]], keys=tuple(SCORES)) -> pd.DataFrame:
    """Differences of methods in points, paired over partitions.

    Returns:
        `ours, minus, metric, mean, low, high, partitions won`; pairs with a method that was not run
        are left out.
    """
    rows = []
    for key in keys:
        table = by_partition(found, key)
        for ours, minus in pairs:
            if ours not in table or minus not in table or len(table) < 2:
                continue
            got = paired_interval(table[ours], table[minus])
            won = f"{got['wins']}/{got['n']}"
            row = {"ours": ours, "minus": minus, "metric": SCORES[key]}
            row |= {k: got[k] for k in ("mean", "low", "high")}
            rows.append(row | {"partitions won": won})
    return pd.DataFrame(rows)


def confused(predictions: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """What novel classes are taken for by a method, by root names: share of a class's clips.

    Args:
        predictions: Of one method and data set, mode "novel".
        classes: `partition, number, label` of the novel classes.

    Returns:
        `label, taken for, percent, clips`, most first; right answers left out.
    """
    some = predictions[predictions["run"] == 0]
    some = some.merge(classes, left_on=["partition", "label"], right_on=["partition", "number"])
    taken = classes.rename(columns={"number": "predicted", "label": "taken for"})
    some = some.rename(columns={"label_y": "name"}).merge(taken, on=["partition", "predicted"])
    count = some.groupby("name").size()
    found = some.groupby(["name", "taken for"]).size().rename("clips").reset_index()
    found["percent"] = 100 * found["clips"] / found["name"].map(count)
    found = found[found["name"] != found["taken for"]].rename(columns={"name": "label"})
    return found.sort_values(["percent", "label"], ascending=[False, True], ignore_index=True)


def claims(found: pd.DataFrame) -> pd.DataFrame:
    """Claims of ACE, each partition of the classes a unit: means over splits and seeds, percent.

    Args:
        found: `dataset, method, partition` and scores as fractions, see `chosen`.
    """
    out = []
    for d, mine in found.groupby("dataset", sort=False, observed=True):

        def score(method: str, key: str = "srt_acc_mean", mine=mine) -> pd.Series:
            own = mine[mine["method"] == method]
            return 100 * own.groupby("partition")[key].mean()

        def add(name: str, which: str, what: str, values: pd.Series, d=d) -> None:
            out.append(of_claim(name, which, f"{NAMES[d]}: {what}", values))

        for other in RIVALS:
            gain = score("ACE", "hm_acc") - score(other, "hm_acc")
            add("A4", f"{d} {other}", f"harmonic mean over {other}", gain)
            gain = score("ACE", "seen_acc") + CLOSE - score(other, "seen_acc")
            add("A5", f"{d} {other}", f"seen accuracy plus {CLOSE:g} over {other}", gain)
        for key, name in (("seen_acc", "seen"), ("srt_acc_mean", "SRT")):
            gain = score("ACE", key) - score("ProcVLR", key)
            add("A6", f"{d} {name}", f"{name} accuracy over ProcVLR", gain)
        leaf, shadow, rand, fixed = (
            f"w/o {x}" for x in ("leaf augmentation", "shadow negatives", "L_rand", "L_fixed")
        )
        std = {m: score(m, "srt_acc_std") for m in ("ACE", leaf, shadow, rand)}
        wider = std[leaf] - std["ACE"]
        add("A7", d, "SRT std without it over with it", wider)
        most = wider - (std[rand] - std["ACE"])
        add("A7", f"{d} most", "that over the same of L_rand", most)
        add("A9", d, "SRT std with over without them", std["ACE"] - std[shadow])
        for name, without in (("A8", shadow), ("A10", rand), ("A11", fixed)):
            lost = score("ACE") - score(without)
            add(name, d, f"SRT accuracy of ACE over {without}", lost)
    return below(out)
