"""The papers' figures: a table in, a figure out.

Notebooks and tests draw with the same functions, most of them from the csv beside the figure.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd

from vlact.report import figures
from vlact.report.figures import COLUMN, LETTER, LINE, PAGE, POINTS
from vlact.report.layout import FEWEST_SEEDS
from vlact.report.results.common import over_runs

VERDICTS = {1: ("above zero", "C2"), -1: ("below zero", "C1"), 0: ("not separated", "C6")}
REACH = 30  # points beyond which an interval is cut
ROW = 0.135  # inches of a row of a forest plot
LANES = PAGE - 1.6  # inches that segments have beside the names of their lanes
STYLES = ("-", "--", "-.", ":")  # of curves that may coincide
MARKERS = "os^Dv<>"
SPLITS = {  # of Figure 5: task, contexts, colour
    "CoarseMotion-KC": ("coarse", "known", "C0"),
    "CoarseMotion-UC": ("coarse", "unknown", "C4"),
    "FineMotion-K": ("fine", "known", "C1"),
    "FineMotion-U": ("fine", "unknown", "C5"),
}


def _subplots(rows: int = 1, columns: int = 1, height: float = 2.4, width: float = PAGE, **options):
    import matplotlib.pyplot as plt

    return plt.subplots(
        rows, columns, figsize=(width, height), layout="constrained", squeeze=False, **options
    )


def _band(axis, by: pd.DataFrame, k: int, name: str) -> None:
    """The k-th curve: `mean` over the index of `by`, and one `std` to each side."""
    style = {"color": f"C{k % 7}", "marker": MARKERS[k % 7], "ms": 2.5, "ls": STYLES[k % 4]}
    axis.plot(by.index, by["mean"], label=name, **style)
    ends = by["mean"] - by["std"], by["mean"] + by["std"]
    axis.fill_between(by.index, *ends, color=f"C{k % 7}", alpha=0.15, lw=0)


# Pretraining
def pretraining(curves: pd.DataFrame):
    """What encoders learn in pretraining: mean over seeds, bands of one std.

    Args:
        curves: `stage` (frames, trunk, align, vlog), `seed, step`, `loss` (nats), and the fractions
            `val_caption, val_verb, val_object` of held-out clips.
    """
    lines = (  # panel, stage, column, what it is called, units in one
        (0, "frames", "val_caption", "frame to caption", 100),
        (1, "trunk", "val_verb", "verb program", 100),
        (1, "trunk", "val_object", "object word", 100),
        (2, "align", "loss", "alignment", 1),
        (2, "vlog", "loss", "narrations", 1),
    )
    fig, axes = _subplots(1, 3)
    for k, (panel, stage, column, name, unit) in enumerate(lines):
        by = unit * over_runs(curves[curves["stage"] == stage], "step", column)
        _band(axes[0, panel], by, k, name)
    axes[0, 0].set(title="CLIP on frames", ylabel="own caption nearer, %", ylim=(45, 100))
    axes[0, 1].set(title="trunk", ylabel="accuracy, %", ylim=(0, 100))
    axes[0, 2].set(title="alignment and narrations", ylabel="caption loss, nats")
    for axis in axes[0]:
        axis.set_xlabel("steps")
    fig.legend(loc="outside lower center", ncols=len(lines))
    return fig


# ACE
def similarity(matrices: dict[str, pd.DataFrame]):
    """Figure 1: clips of classes (rows) by names (columns), one colour scale for all models.

    Args:
        matrices: By model; columns are pairs of a class and a name of it, in order of class.
    """
    reach = max(wide.abs().to_numpy().max() for wide in matrices.values())
    fig, axes = _subplots(len(matrices), height=0.5 + 1.25 * len(matrices), sharex=True)
    for axis, (name, wide) in zip(axes[:, 0], matrices.items(), strict=True):
        shown = axis.imshow(wide, aspect="auto", cmap="PuOr_r", vmin=-reach, vmax=reach)
        axis.set_yticks(range(len(wide)), wide.index)
        axis.set_title(name, loc="left")
        axis.grid(False)
        classes = [c for c, _ in wide]
        for k in range(1, len(classes)):  # a line between names of different classes
            if classes[k] != classes[k - 1]:
                axis.axvline(k - 0.5, color="k", lw=0.6)
    names = [n.rsplit(" ", 1)[0] for _, n in wide]
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=5.5)
    axis.tick_params(axis="x", length=0)
    fig.colorbar(shown, ax=axes, label="cosine, less the row's mean", aspect=40, pad=0.01)
    return fig


def trees(table: pd.DataFrame):
    """Figure 2: roots, their synonyms, and the synonyms of those.

    Args:
        table: `root, child, words`: a row a synonym of the first order, its own apart by commas.
    """
    import matplotlib.pyplot as plt

    size, left, middle = 6, 0.9, 2.1  # points of letters; inches at which columns begin
    across = [POINTS * wide / (LETTER * size) for wide in (left, middle - left, PAGE - middle)]
    rows = [
        [textwrap.fill(x, int(n) - 3) for x, n in zip(row, across, strict=True)]
        for row in table[["root", "child", "words"]].astype(str).to_numpy()
    ]
    # a row is as high as its longest cell, and a root begins after a gap
    lines = np.array([1.2 + max(x.count("\n") for x in row[1:]) for row in rows])
    lines += np.array([table["root"].ne(table["root"].shift())]).ravel()
    height = LINE * size / POINTS * lines.sum()
    at = height - LINE * size / POINTS * (np.cumsum(lines) - 0.5)
    fig = plt.figure(figsize=(PAGE, height))
    axis = fig.add_axes((0, 0, 1, 1), xlim=(0, PAGE), ylim=(0, height))
    axis.set_axis_off()
    for _, part in table.reset_index(drop=True).groupby("root", sort=False):
        y = at[part.index].mean()
        axis.text(0, y, rows[part.index[0]][0], size=size + 1, weight="bold", va="center")
        for k in part.index:
            axis.plot([left - 0.25, left - 0.05], [y, at[k]], color="0.7", lw=0.6)
            # a parent that is its own child
            weight = "bold" if rows[k][1] == rows[k][0] else "normal"
            axis.text(left, at[k], rows[k][1], size=size, weight=weight, va="center")
            axis.text(middle, at[k], rows[k][2], size=size, color="0.3", va="center")
    return fig


def concepts(points: pd.DataFrame):
    """Figure 5: words in the plane, each tied to the middle of its concept.

    Args:
        points: `mode, model, concept, order, text, x, y`.
    """
    modes, models = list(points["mode"].unique()), list(points["model"].unique())
    fig, axes = _subplots(len(modes), len(models), height=3.4 * len(modes))
    for (mode, model), part in points.groupby(["mode", "model"], sort=False):
        axis = axes[modes.index(mode), models.index(model)]
        when = "before" if model == "pretrained" else "after"
        axis.set(title=f"{mode} concepts, {when} ACE", xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[["left", "bottom"]].set_visible(False)
        middles = part.groupby("concept", sort=False)[["x", "y"]].mean()
        for k, (concept, nodes) in enumerate(part.groupby("concept", sort=False)):
            x, y = middles.loc[concept]
            for node in nodes.itertuples():
                axis.plot([x, node.x], [y, node.y], color=f"C{k % 7}", lw=0.5, alpha=0.6)
            marker = "osD^vP"[k // 7 % 6]
            axis.scatter(nodes["x"], nodes["y"], s=7, marker=marker, color=f"C{k % 7}", lw=0)
        axis.margins(0.12)
    for (mode, model), part in points.groupby(["mode", "model"], sort=False):
        middles = part.groupby("concept", sort=False)[["x", "y"]].mean()
        axis = axes[modes.index(mode), models.index(model)]
        around = part[["x", "y"]].to_numpy()
        figures.label(axis, middles.to_numpy(), list(middles.index), size=5, around=around)
    return fig


def synonyms(table: pd.DataFrame, none: float):
    """Figure 3: accuracy by how many synonyms of one order, the other whole.

    Args:
        table: `first, second` and `srt_acc_mean`, `srt_acc_std`, `seen_acc`, each with `_mean` and
            `_std`, fractions.
        none: Accuracy without any synonym, percent.
    """
    # the band is the spread over label sets inside a run for SRT, over seeds for base
    lines = {"novel, SRT": ("srt_acc_mean_mean", "srt_acc_std_mean")}
    lines |= {"base": ("seen_acc_mean", "seen_acc_std")}
    whole = table["first"].max()
    fig, axes = _subplots(1, 2, sharey=True)
    for axis, (order, other) in zip(
        axes[0], (("first", "second"), ("second", "first")), strict=True
    ):
        part = table[table[other] == whole].set_index(order).sort_index()
        for k, (name, (mean, width)) in enumerate(lines.items()):
            middle, half = 100 * part[mean], 100 * part[width]
            axis.plot(middle.index, middle, STYLES[k], marker="os"[k], ms=3, label=name)
            axis.fill_between(middle.index, middle - half, middle + half, alpha=0.15, lw=0)
        axis.axhline(none, color="0.4", ls=":", lw=1, label="novel, no synonym at all")
        axis.set_xlabel(f"{order}-order children")
    axes[0, 0].set_ylabel("accuracy, %")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def layers(table: pd.DataFrame):
    """Figure 4: F1 by how many blocks are trained.

    Args:
        table: `side, dataset, blocks` and `base`, `novel`, `SRT`, each with `_mean` and `_std`.
    """
    groups = list(table.groupby(["side", "dataset"]))
    fig, axes = _subplots(1, len(groups), height=2.2, sharey=True)
    for axis, ((side, dataset), part) in zip(axes[0], groups, strict=True):
        for k, mode in enumerate(("base", "novel", "SRT")):
            mean, std = (100 * part[f"{mode}_{x}"] for x in ("mean", "std"))
            style = {"marker": "os^"[k], "ms": 3, "ls": STYLES[k], "color": f"C{k}"}
            axis.errorbar(part["blocks"], mean, std, label=mode, **style)
        axis.set_xticks(part["blocks"], ["–" if t < 0 else t for t in part["blocks"]])
        axis.set(title=f"{dataset}, {side} encoder", xlabel="trained blocks (–: frozen)")
    axes[0, 0].set_ylabel("F1, %")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def grid(table: pd.DataFrame, methods: Sequence[str], chosen: dict, names: dict[str, str]):
    """What each learning rate and epoch come to, and the cells that validation chose.

    Args:
        table: `dataset, method, lr, epoch` and `val_acc`, `srt_acc_mean`, each with `_mean` and
            `_std`, fractions.
        methods: Columns of the figure.
        chosen: By dataset and method its learning rate and epoch.
        names: Of datasets.
    """
    scores = {"val_acc": "validation", "srt_acc_mean": "SRT"}
    panels = [(d, *x) for d in names for x in scores.items()]
    high = 0.7 + 1.15 * len(panels)
    fig, axes = _subplots(len(panels), len(methods), height=high, sharex=True, sharey="row")
    for line, (dataset, key, score) in zip(axes, panels, strict=True):
        for axis, method in zip(line, methods, strict=True):
            mine = table[(table["dataset"] == dataset) & (table["method"] == method)]
            for k, (lr, curve) in enumerate(mine.groupby("lr")):
                x = curve["epoch"]
                mean, std = (100 * curve[f"{key}_{part}"] for part in ("mean", "std"))
                axis.plot(x, mean, STYLES[k % 4], marker=".", color=f"C{k}", label=f"lr {lr:g}")
                axis.fill_between(x, mean - std, mean + std, color=f"C{k}", alpha=0.15, lw=0)
                best_lr, best_epoch = chosen.get((dataset, method), (np.nan, np.nan))
                if np.isclose(lr, best_lr):
                    at = curve[x == best_epoch]
                    circle = {"mfc": "none", "mec": "k", "ms": 7, "clip_on": False}
                    axis.plot(at["epoch"], 100 * at[f"{key}_mean"], "o", **circle)
        line[0].set_ylabel(f"{names[dataset]}\n{score}, %")
    for axis, method in zip(axes[0], methods, strict=True):
        axis.set_title(textwrap.fill(method, 14), fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("epochs")
    handles, labels = axes[0, -1].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)))
    return fig


def schedules(table: pd.DataFrame):
    """Why a schedule fails: movement of the text projection, collapse, and swapped sides.

    Args:
        table: `model, moved, novel_cosine, srt_acc_mean, swap_text`, fractions, a row a schedule.
    """
    panels = (
        ("moved", "novel_cosine", "movement of the text projection, %", "cosine of novel roots"),
        ("novel_cosine", "srt_acc_mean", "cosine of novel roots", "SRT, %"),
        ("srt_acc_mean", "swap_text", "SRT, %", "SRT with the first text side, %"),
    )
    shown = table.copy()
    for column in ("moved", "srt_acc_mean", "swap_text"):
        shown[column] *= 100
    fig, axes = _subplots(1, 3, height=2.7)
    for axis, (x, y, below, beside) in zip(axes[0], panels, strict=True):
        for k, (model, rows) in enumerate(shown.groupby("model")):
            style = {"color": f"C{k % 7}", "marker": "os^Dv<>"[k % 7], "s": 9, "lw": 0}
            axis.scatter(rows[x], rows[y], label=model, **style)
        axis.set(xlabel=below, ylabel=beside)
    axes[0, 2].axline((30, 30), slope=1, color="0.6", lw=0.8)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


# ActionVLM
def alignment(curves: pd.DataFrame, gate: float, chance: float):
    """How eye and reader learn on drills, on held-out recordings.

    Args:
        curves: `what` (poses, language), `step`, and fractions `held_out_pose_accuracy`, and
            `pointer, none, pose` of the language model.
        gate: Fraction that the pointer has to reach.
        chance: Of guessing among the descriptions, a fraction.
    """
    lines = (
        (0, "poses", "held_out_pose_accuracy", "eye names the pose"),
        (1, "language", "pointer", "points to the description"),
        (1, "language", "none", "points to none"),
        (1, "language", "pose", "reader names the pose"),
    )
    fig, axes = _subplots(1, 2, sharey=True)
    for k, (panel, what, column, name) in enumerate(lines):
        by = 100 * over_runs(curves[curves["what"] == what], "step", column)
        _band(axes[0, panel], by, k, name)
    axes[0, 1].axhline(100 * gate, color="k", lw=0.7, ls=":", label="gate")
    axes[0, 1].axhline(100 * chance, color="k", lw=0.7, label="chance")
    axes[0, 0].set(title="pose encoder", xlabel="steps", ylabel="held out, %", ylim=(0, 100))
    axes[0, 1].set(title="language model", xlabel="steps")
    fig.legend(loc="outside lower center", ncols=3)
    return fig


def pointing(frames: np.ndarray, pointer: pd.DataFrame, truth: pd.DataFrame, duration_s: float):
    """Which description every moment of a recording points to.

    Args:
        frames: uint8 (T, H, W, 3), evenly spaced.
        pointer: Probabilities, a row a description, a column a step of the features.
        truth: `start_s, end_s, label`.
        duration_s: Of the recording.
    """
    heights = 0.6, 0.135 * len(pointer) + 0.4
    fig, axes = _subplots(2, height=sum(heights) + 0.2, height_ratios=heights)
    strip, axis = axes[:, 0]
    ends = (0, duration_s, len(pointer) - 0.5, -0.5)
    shown = axis.imshow(pointer, aspect="auto", extent=ends, cmap="magma", vmin=0, vmax=1)
    names = list(pointer.index)
    axis.set_yticks(range(len(names)), names, fontsize=6)
    for r in truth.itertuples():
        axis.plot([r.start_s, r.end_s], [names.index(r.label)] * 2, color="C4", lw=2)
    axis.set(xlim=(0, duration_s), xlabel="seconds (lines: ground truth)")
    axis.grid(False)
    fig.colorbar(shown, ax=[strip, axis], label="probability", aspect=40, pad=0.01)
    figures.strip(strip, frames)
    return fig


def wrong_descriptions(table: pd.DataFrame):
    """What is left of a gain where descriptions are another class's.

    Args:
        table: `share` (of recordings, a fraction), `weight, seed, gain` (points).
    """
    weights = list(table.groupby("weight", sort=False))
    fig, axes = _subplots(height=2.2 + 0.15 * len(weights), width=COLUMN)
    for k, (name, part) in enumerate(weights):
        by = over_runs(part, "share", "gain")
        style = {"marker": MARKERS[k % 7], "ms": 3, "ls": STYLES[k % 4], "color": f"C{k % 7}"}
        axes[0, 0].errorbar(100 * by.index, by["mean"], by["std"], label=name, **style)
    axes[0, 0].axhline(0, color="k", lw=0.7)
    axes[0, 0].set(xlabel="recordings with wrong descriptions, %")
    axes[0, 0].set(ylabel="mAP less language off, points")
    fig.legend(loc="outside lower center")
    return fig


def weights_of_language(curve: pd.DataFrame):
    """Table 4: gain of language by its weight, those that are set beforehand on an axis, those that
    are learnt beside them.

    Args:
        curve: `λ` (nan where it is learnt), `model, gain, low, high`, points.
    """
    fig, axes = _subplots(1, 2, height=2.6, width_ratios=(3, 2), sharey=True)
    for axis, part in zip(
        axes[0], (curve[curve["λ"].notna()], curve[curve["λ"].isna()]), strict=True
    ):
        at = part["λ"] if part["λ"].notna().any() else np.arange(len(part))
        error = [part["gain"] - part["low"], part["high"] - part["gain"]]
        axis.errorbar(at, part["gain"], error, fmt="o", ms=3, capsize=2, lw=0.8)
        axis.axhline(0, color="0.4", lw=0.7)
    axes[0, 0].set(xlabel="λ, set beforehand", ylabel="mAP over vision only, points")
    learnt = [textwrap.fill(m, 12) for m in curve.loc[curve["λ"].isna(), "model"]]
    axes[0, 1].set_xticks(range(len(learnt)), learnt, rotation=90 if len(learnt) > 4 else 0)
    axes[0, 1].set(xlabel="λ, learnt", xlim=(-0.5, len(learnt) - 0.5))
    return fig


def scarcity(table: pd.DataFrame):
    """mAP, and gain over vision alone, by training recordings a class.

    Args:
        table: `recordings, model, mAP, gain, low, high`; gains of vision alone are nan.
    """
    fig, axes = _subplots(1, 2, height=2.6)
    for k, (model, part) in enumerate(table.groupby("model", sort=False)):
        part = part.sort_values("recordings")
        style = {"marker": "os^"[k % 3], "ms": 3, "color": f"C{k}", "ls": STYLES[k % 4]}
        axes[0, 0].plot(part["recordings"], part["mAP"], label=model, **style)
        if part["gain"].notna().any():
            axes[0, 1].plot(part["recordings"], part["gain"], **style)
            ends = part["low"], part["high"]
            axes[0, 1].fill_between(part["recordings"], *ends, alpha=0.2, color=f"C{k}")
    axes[0, 1].axhline(0, color="0.4", lw=0.7)
    counts = sorted(table["recordings"].unique())
    for axis, what in zip(axes[0], ("mAP, %", "mAP over vision only, points"), strict=True):
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, counts)
        axis.set(xlabel="training recordings a class", ylabel=what)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def written_frames(table: pd.DataFrame, tens: dict[str, float]):
    """Figure 6: which frames of a window are written, and which are true.

    Args:
        table: `frame` and, of each of `tens`, how often.
        tens: By column the percent that are multiples of ten.
    """
    fig, axes = _subplots(1, len(tens), height=2.2, sharey=True)
    for axis, (what, share) in zip(axes[0], tens.items(), strict=True):
        axis.bar(table["frame"], 100 * table[what] / max(1, table[what].sum()), color="C0")
        axis.set(title=f"{what}: {share:.0f} % are multiples of ten", xlabel="frame of the window")
    axes[0, 0].set_ylabel("share, %")
    return fig


def classes(table: pd.DataFrame, groups: dict[str, str]):
    """Average precision of every class, its seeds' spread, in the colours of groups.

    Args:
        table: `label, mean, std`, percent.
        groups: Of every label.
    """
    fig, axes = _subplots(1, 1, height=2.8)
    names = list(dict.fromkeys(groups[x] for x in table["label"]))
    for k, name in enumerate(names):
        mine = table["label"].map(groups) == name
        at, rows = np.flatnonzero(mine), table[mine]
        axes[0, 0].bar(at, rows["mean"], color=f"C{k}", label=name)
        # an accuracy is no less than 0 and no more than 100
        ends = np.minimum(rows["std"], rows["mean"]), np.minimum(rows["std"], 100 - rows["mean"])
        axes[0, 0].errorbar(at, rows["mean"], ends, fmt="none", ecolor="k", elinewidth=0.7)
    axes[0, 0].set_xticks(range(len(table)), table["label"], rotation=90)
    axes[0, 0].set(ylabel="AP, %", ylim=(0, 100))
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return fig


def localizers(scores: pd.DataFrame):
    """mAP of localizers by dataset, with its interval, every seed a dot; published ones apart.

    Args:
        scores: `dataset, model, mAP, low, high, each seed`, percent; the last as text.
    """
    sets = list(dict.fromkeys(scores["dataset"]))
    rows = [int((scores["dataset"] == name).sum()) for name in sets]
    fig, axes = _subplots(
        len(sets), height=0.16 * sum(rows) + 0.5 * len(sets), height_ratios=rows, sharex=True
    )
    for axis, name in zip(axes[:, 0], sets, strict=True):
        mine = scores[scores["dataset"] == name].reset_index(drop=True)
        theirs = mine["model"].str.contains("published")
        for k, part in ((0, mine[~theirs]), (6, mine[theirs])):
            ends = np.abs(part[["low", "high"]].sub(part["mAP"], axis=0)).T.to_numpy()
            axis.barh(part.index, part["mAP"], 0.75, color=f"C{k}", alpha=0.7)
            axis.errorbar(
                part["mAP"], part.index, xerr=ends, fmt="none", ecolor="k", elinewidth=0.7
            )
        for y, each in enumerate(mine["each seed"].astype(str)):
            seeds = [float(x) for x in each.split()]
            axis.plot(seeds, [y] * len(seeds), ".", color="k", ms=3)
        axis.set_yticks(mine.index, mine["model"], fontsize=6.5)
        axis.set_ylim(len(mine) - 0.4, -0.6)
        axis.set_title(name, loc="left")
    axes[-1, 0].set_xlabel("mAP, % (dots: seeds; lines: 95 % intervals)")
    return fig


def errors(shares: pd.DataFrame, costs: pd.Series, who: pd.DataFrame):
    """What goes wrong: kinds of error among the best detections, what each costs, who is missed.

    Args:
        shares: By multiple of the number of instances the share of each kind, a column a kind.
        costs: By kind of error the mAP that it costs, a fraction.
        who: `characteristic, bucket, ap_n, missed`, fractions.
    """
    colours = dict(zip(shares, ("C2", "C0", "C1", "C3", "C4", "C6"), strict=False))
    fig, axes = _subplots(1, 3, height=3.0, width_ratios=(1, 1, 1.7))
    below = np.zeros(len(shares))
    for kind, colour in colours.items():
        x, high = np.arange(len(shares)), 100 * shares[kind]
        axes[0, 0].bar(x, high, 0.9, below, color=colour, label=kind)
        below = below + high.to_numpy()
    axes[0, 0].set_xticks(range(len(shares)), shares.index)
    axes[0, 0].set(xlabel="best detections, in G", ylabel="share, %")
    names = [textwrap.fill(x, 12) for x in costs.index]
    axes[0, 1].barh(names, 100 * costs, color=[colours.get(x, "C5") for x in costs.index])
    axes[0, 1].set(xlabel="mAP gained without, points")
    for shift, column, name in ((-0.2, "ap_n", "normalised AP"), (0.2, "missed", "missed")):
        axes[0, 2].bar(np.arange(len(who)) + shift, 100 * who[column], 0.4, label=name)
    buckets = who["characteristic"].str.removesuffix("_s") + " " + who["bucket"].astype(str)
    axes[0, 2].set_xticks(range(len(who)), buckets, rotation=90)
    axes[0, 2].set_ylabel("%")
    axes[0, 2].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return fig


def recordings(
    shown: Sequence[tuple[np.ndarray, dict[str, pd.DataFrame], float]],
    step_s: float | None = None,
    size: float = 6,
):
    """Figure 4: recordings under each other, and what each source makes of them.

    Args:
        shown: Frames (T, H, W, 3), none of them where T is 0, lanes as of `figures.timeline`, and
            seconds of each recording.
        step_s: Seconds between features, where the features of a segment are to be written.
        size: Of letters, points.
    """
    heights = []
    for frames, lanes, duration_s in shown:
        parts = figures.packed(lanes, duration_s, LANES, step_s, size).values()
        line = LINE * size / POINTS * (1 if step_s is None else 2)
        heights += [0.7 if len(frames) else 0.02]
        heights += [1.15 * line * sum(len(x) for x in parts) + 0.3]
    fig, axes = _subplots(len(heights), height=sum(heights) + 0.2, height_ratios=heights)
    for k, (frames, lanes, duration_s) in enumerate(shown):
        figures.timeline(axes[2 * k : 2 * k + 2, 0], frames, lanes, duration_s, step_s, size)
    steps = "" if step_s is None else "; numbers are steps of the features"
    axes[-1, 0].set_xlabel(f"seconds{steps}")
    return fig


def weights_over_time(
    frames: np.ndarray,
    lanes: dict[str, pd.DataFrame],
    curves: dict[str, pd.DataFrame],
    duration_s: float,
):
    """Figure 5: a recording, its truth, boundaries with their confidence, the weight of language,
    and what its distractors look like.

    Args:
        frames: uint8 (T, H, W, 3), evenly spaced.
        lanes: "truth" and "looks like it" (`start_s, end_s, label`), and detections by model
            (`score`, too, and where it is known `right`: whether their class is).
        curves: By model `seconds, weight`, the weight in 0 to 1.
        duration_s: Of the recording.
    """
    told = {
        k: v.assign(
            label=[textwrap.shorten(x, 90, placeholder=" …") for x in v["label"]], score=0.6
        )
        for k, v in lanes.items()
        if "score" not in v
    }
    found = {k: v for k, v in lanes.items() if "score" in v}
    parts = figures.packed(told, duration_s, LANES).values()
    heights = [0.6, 0.12 * sum(len(x) for x in parts) + 0.1, *[0.5] * len(found), 1.3]
    fig, axes = _subplots(
        len(heights), height=sum(heights) + 1.0, height_ratios=heights, sharex=False
    )
    axes = axes[:, 0]
    for axis in axes[1:]:
        axis.set_xlim(0, duration_s)
    for axis in axes[1:-1]:
        axis.tick_params(labelbottom=False)
    for axis, (name, rows) in zip(axes[2:-1], found.items(), strict=True):
        # the height of a segment is its confidence
        right = rows["right"] if "right" in rows else pd.Series(True, index=rows.index)
        for k, part in ((0, rows[right]), (1, rows[~right])):
            look = {"align": "edge", "color": f"C{k}", "edgecolor": f"C{k}", "alpha": 0.45}
            width = part["end_s"] - part["start_s"]
            axis.bar(part["start_s"], 100 * part["score"], width, hatch="//" * k, **look)
        axis.set(ylim=(0, 100), yticks=[0, 100])
        words = f"{textwrap.fill(name, 14)}\nconfidence, %"
        axis.set_ylabel(words, rotation=0, ha="right", va="center", fontsize=7)
    for k, (name, curve) in enumerate(curves.items()):
        axes[-1].plot(curve["seconds"], curve["weight"], STYLES[k % 4], color=f"C{k}", label=name)
    # most weights are near zero
    axes[-1].set_yscale("function", functions=(np.sqrt, np.square))
    axes[-1].set(ylim=(0, 1), yticks=[0, 0.05, 0.2, 0.5, 1], xlabel="seconds")
    axes[-1].set_ylabel("λ", rotation=0, ha="right", va="center")
    fig.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figures.timeline(axes[:2], frames, told, duration_s)
    return fig


# Transfer
def drops(table: pd.DataFrame, strips: Sequence[tuple[str, np.ndarray]] = (), chance: float = 5.0):
    """Figure 1: what every model makes of known and of unknown contexts, every run a dot.

    Args:
        table: `model, seed, known, unknown`, percent, a row a run.
        strips: Clips (T, H, W, 3) of the question, and what each is called.
        chance: Accuracy of guessing, percent.
    """
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(table["model"]))
    rows = -(-len(strips) // 2)
    height = 0.19 * len(models) + 0.6 + 1.05 * rows
    fig = plt.figure(figsize=(PAGE, height), layout="constrained")
    grid = fig.add_gridspec(rows + 1, 2, height_ratios=[1] * rows + [(height - rows) / 1.0])
    axis = fig.add_subplot(grid[rows, :])
    for i, (name, frames) in enumerate(strips):
        picture = fig.add_subplot(grid[i // 2, i % 2])
        picture.imshow(np.concatenate(list(frames), 1))
        picture.set_axis_off()
        picture.set_title(textwrap.fill(name, 55), fontsize=7)
    at = {m: k for k, m in enumerate(models)}
    for k, side in enumerate(("known", "unknown")):
        mean, std = over_runs(table, "model", side).loc[models].to_numpy().T
        y = np.arange(len(models)) + (k - 0.5) * 0.38
        axis.barh(y, mean, 0.36, color=f"C{k}", label=f"{side} contexts")
        axis.errorbar(mean, y, xerr=std, fmt="none", ecolor="k", elinewidth=0.7)
        runs = table["model"].map(at) + (k - 0.5) * 0.38
        axis.plot(table[side], runs, ".", color="k", ms=2)
    axis.axvline(chance, color="0.4", ls=":", lw=1)
    axis.set_yticks(range(len(models)), models)
    axis.set(xlabel="accuracy of coarse motions, % (dots: runs, bars: std, dotted: chance)")
    axis.set(xlim=(0, 100), ylim=(len(models) - 0.4, -0.6))
    fig.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def known_and_unknown(here: pd.DataFrame, table: pd.DataFrame):
    """Figure 5: coarse and fine motions, known and unknown, as printed and here.

    Args:
        here: `model, task, known, unknown`, percent, a row a run.
        table: `model, split, published`, percent; its models are shown.
    """
    models = list(dict.fromkeys(table["model"]))
    fig, axes = _subplots(1, 2, height=2.5, sharey=True)
    for k, (split, (task, side, colour)) in enumerate(SPLITS.items()):
        x = np.arange(len(models)) + (k - 1.5) * 0.2
        printed = table[table["split"] == split].set_index("model")["published"][models]
        axes[0, 0].bar(x, printed, 0.19, color=colour, label=split)
        runs = over_runs(here[here["task"] == task], "model", side).loc[models]
        axes[0, 1].bar(x, runs["mean"], 0.19, color=colour)
        bars = {"fmt": "none", "ecolor": "k", "elinewidth": 0.7}
        axes[0, 1].errorbar(x, runs["mean"], runs["std"], **bars)
    for axis, title in zip(axes[0], ("published", "here (bars: std over runs)"), strict=True):
        axis.set_xticks(range(len(models)), models)
        axis.set(title=f"Syn-TA, {title}", ylim=(0, 100))
    axes[0, 0].set_ylabel("accuracy, %")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def sizes(table: pd.DataFrame, ranks: dict[str, float]):
    """Figure 6: harmonic mean and relative drop of every model, its parameters as area.

    Args:
        table: `side` (a panel), `model, M` (millions of parameters), `hm, d_rel` (percent).
        ranks: Rank correlation of size and HM by side.
    """
    sides, models = list(ranks), list(dict.fromkeys(table["model"]))
    high = 2.3 + 0.16 * -(-len(models) // 5)
    fig, axes = _subplots(1, len(sides), height=high, sharex=True, sharey=True)
    for axis, side in zip(axes[0], sides, strict=True):
        part = table[table["side"] == side]
        for r in part.itertuples():
            k = models.index(r.model)
            look = {"color": f"C{k % 7}", "marker": MARKERS[k // 7 % 7], "alpha": 0.7, "lw": 0}
            axis.scatter(r.d_rel, r.hm, s=8 + 180 * r.M / part["M"].max(), **look)
        axis.set_title(f"{side}\nsize and HM: ρ = {ranks[side]:.2f}")
        axis.set(xlabel="relative drop, %")
        axis.margins(0.15)
    axes[0, 0].set_ylabel("HM, %")
    for k, model in enumerate(models):
        look = {"color": f"C{k % 7}", "marker": MARKERS[k // 7 % 7], "ls": ""}
        axes[0, 0].plot([], [], ms=4, label=model, **look)
    fig.legend(loc="outside lower center", ncols=5)
    return fig


def factors(lost: pd.DataFrame):
    """Points that each model loses where one factor of a context is new, with 95 % intervals.

    Args:
        lost: `model, new, points lost`, and `interval` as text, "[low, high]" or a dash.
    """
    news, models = list(dict.fromkeys(lost["new"])), list(dict.fromkeys(lost["model"]))
    ends = lost["interval"].str.extract(r"\[([^,]+), ([^\]]+)\]").astype(float)
    high = len(news) * max(0.16, 0.09 * len(models)) + 0.7 + 0.15 * len(models)
    fig, axes = _subplots(height=high, width=COLUMN)
    for k, model in enumerate(models):
        mine = lost["model"] == model
        points = lost.loc[mine, "points lost"].to_numpy(float)
        y = lost.loc[mine, "new"].map(news.index) + (k - (len(models) - 1) / 2) * 0.8 / len(models)
        axes[0, 0].barh(y, points, 0.75 / len(models), color=f"C{k % 7}", label=model)
        off = np.abs(ends[mine].to_numpy() - points[:, None]).T
        axes[0, 0].errorbar(points, y, xerr=off, fmt="none", ecolor="k", elinewidth=0.7)
    axes[0, 0].axvline(0, color="k", lw=0.6)
    axes[0, 0].set_yticks(range(len(news)), news)
    axes[0, 0].set(ylim=(len(news) - 0.5, -0.5), xlabel="points lost where it is new")
    fig.legend(loc="outside lower center", ncols=2)
    return fig


def looks(rows: Sequence[tuple[str, np.ndarray, np.ndarray]], what: str = "cosine to the name"):
    """Figures 8 and 10: frames under the heat of where a model looks.

    Args:
        rows: What a row is called, its frames (T, H, W, 3), and the heat of each (T, H, W).
        what: The heat measures.
    """
    import matplotlib.pyplot as plt

    gap, head, margin = 0.04, 0.2, 0.75  # inches: between frames, of a name, of the bar
    frames = max(len(pictures) for _, pictures, _ in rows)
    side = (PAGE - margin) / frames - gap
    height = len(rows) * (side + head) + gap
    fig = plt.figure(figsize=(PAGE, height))
    low, high = (float(f([f(h) for *_, h in rows])) for f in (np.min, np.max))
    for k, (name, pictures, heats) in enumerate(rows):
        top = height - k * (side + head)
        fig.text(0, (top - 0.14) / height, textwrap.shorten(name, 110, placeholder=" …"), size=7)
        for i, (picture, heat) in enumerate(zip(pictures, heats, strict=True)):
            box = i * (side + gap) / PAGE, (top - head - side) / height, side / PAGE, side / height
            axis = fig.add_axes(box)
            axis.imshow(picture)
            shown = axis.imshow(heat, cmap="inferno", alpha=0.5, vmin=low, vmax=high)
            axis.set_axis_off()
    place = fig.add_axes(((PAGE - margin + 0.05) / PAGE, 0.1, 0.12 / PAGE, 0.75))
    bar = fig.colorbar(shown, cax=place, label=what)
    bar.solids.set_alpha(1)
    return fig


# Across papers
def renamed(table: pd.DataFrame):
    """What is left of every model's score when names are other ones, worlds apart.

    Args:
        table: `world, model, own words, other words, std over runs`, percent.
    """
    worlds = list(dict.fromkeys(table["world"]))
    fig, axes = _subplots(height=0.15 * len(table) + 1.0 + 0.15 * len(worlds), width=COLUMN)
    axis, y = axes[0, 0], np.arange(len(table))
    for k, world in enumerate(worlds):
        mine, colour = (table["world"] == world).to_numpy(), f"C{k % 7}"
        own, other, std = (
            table.loc[mine, ["own words", "other words", "std over runs"]].to_numpy().T
        )
        axis.hlines(y[mine], own, other, color=colour, lw=0.8)
        axis.plot(own, y[mine], "o", color=colour, ms=4, label=world)
        bars = {"fmt": "s", "mfc": "white", "ms": 3.5, "elinewidth": 0.7}
        axis.errorbar(other, y[mine], xerr=std, color=colour, **bars)
    names = [textwrap.shorten(x, 36, placeholder=" …") for x in table["model"]]
    axis.set_yticks(y, names, fontsize=6.5)
    axis.set(ylim=(len(table) - 0.4, -0.6))
    axis.set_xlabel("own words (filled), other words (open,\n± std over runs), %")
    fig.legend(loc="outside lower center")
    return fig


# Real video
def named(table: pd.DataFrame, chance: float):
    """Accuracy of every class for models that saw none, percent.

    Args:
        table: `class`, and a column a model.
        chance: Of guessing, percent.
    """
    models, x = [c for c in table if c != "class"], np.arange(len(table))
    fig, axes = _subplots(height=2.9)
    for k, model in enumerate(models):
        at = x + (k - (len(models) - 1) / 2) * 0.8 / len(models)
        axes[0, 0].bar(at, table[model], 0.8 / len(models), color=f"C{k % 7}", label=model)
    axes[0, 0].axhline(chance, color="0.4", lw=1, ls=":", label="chance")
    axes[0, 0].set_xticks(x, table["class"], rotation=90, fontsize=6.5)
    axes[0, 0].set(xlim=(-0.7, len(x) - 0.3), ylim=(0, 100), ylabel="accuracy, %")
    fig.legend(loc="outside upper right", ncols=5)
    return fig


def label_sets(table: pd.DataFrame, chance: dict[str, float]):
    """Accuracy by what classes are called, their own names first.

    Args:
        table: `dataset, model` and a column a label set, percent.
        chance: Of guessing by dataset, percent.
    """
    columns, models = list(table.columns[2:]), list(dict.fromkeys(table["model"]))
    fig, axes = _subplots(1, len(chance), height=2.2 + 0.15 * -(-len(models) // 3), sharey=True)
    for axis, (dataset, guess) in zip(axes[0], chance.items(), strict=True):
        for row in table[table["dataset"] == dataset].itertuples(index=False):
            k = models.index(row.model)
            style = {"color": f"C{k % 7}", "marker": MARKERS[k % 7], "ms": 3, "ls": STYLES[k % 4]}
            axis.plot(range(1, 1 + len(columns)), row[2:], **style)
        axis.axhline(guess, color="0.4", lw=1, ls=":")
        axis.set_xticks(range(1, 1 + len(columns)))
        axis.set(title=dataset, xlabel="label set (1: own names; dotted: chance)")
    axes[0, 0].set_ylabel("novel classes, %")
    for k, model in enumerate(models):
        style = {"color": f"C{k % 7}", "marker": MARKERS[k % 7], "ms": 3, "ls": STYLES[k % 4]}
        axes[0, 0].plot([], [], label=model, **style)
    fig.legend(loc="outside lower center", ncols=3)
    return fig


def contexts(scores: pd.DataFrame):
    """Known and unknown context of every model by setup, with their intervals.

    Args:
        scores: `setup, model, chance`, and `known, unknown`, each with `_low` and `_high`, percent.
    """
    setups = list(scores.groupby("setup", sort=False))
    pairs = [setups[k : k + 2] for k in range(0, len(setups), 2)]
    heights = [0.15 * max(len(x) for _, x in pair) + 0.25 for pair in pairs]
    fig, axes = _subplots(
        len(pairs), 2, height=sum(heights) + 0.9, height_ratios=heights, sharex=True
    )
    for axis in axes.flat[len(setups) :]:
        axis.set_visible(False)
    for axis, (setup, part) in zip(axes.flat, setups, strict=False):
        for k, side in enumerate(("known", "unknown")):
            y = np.arange(len(part)) + (k - 0.5) * 0.4
            ends = part[[f"{side}_low", f"{side}_high"]].sub(part[side], axis=0).abs()
            label = f"{side} context" if setup == setups[0][0] else None
            axis.barh(y, part[side], 0.38, color=f"C{k}", label=label)
            bars = {"fmt": "none", "ecolor": "k", "elinewidth": 0.6, "capsize": 1}
            axis.errorbar(part[side], y, xerr=ends.to_numpy().T, **bars)
        axis.axvline(part["chance"].iloc[0], color="0.4", lw=1, ls=":")
        axis.set_yticks(range(len(part)), part["model"], fontsize=6)
        axis.set(xlim=(0, 100), ylim=(len(part) - 0.4, -0.6))
        axis.set_title(setup, loc="left")
    for axis in axes.flat[max(0, len(setups) - 2) : len(setups)]:
        axis.set_xlabel("accuracy, % (dotted: chance)")
        axis.tick_params(labelbottom=True)
    fig.legend(loc="outside lower center", ncols=2)
    return fig


def actions(classes: pd.DataFrame):
    """Accuracy of each action where its context is known and where it is not, a panel a model.

    Args:
        classes: `model, label, known, unknown`, percent.
    """
    models = list(classes.groupby("model", sort=False))
    most = max(len(part) for _, part in models)
    columns = max(1, min(len(models), int(PAGE / (0.6 + 0.13 * most))))
    rows = -(-len(models) // columns)
    fig, axes = _subplots(rows, columns, height=0.4 + 2.1 * rows, sharey=True)
    for axis in axes.flat[len(models) :]:
        axis.set_visible(False)
    for axis, (model, part) in zip(axes.flat, models, strict=False):
        for k, side in enumerate(("known", "unknown")):
            at = np.arange(len(part)) + (k - 0.5) * 0.4
            axis.bar(at, part[side], 0.38, color=f"C{k}")
        axis.set_xticks(range(len(part)), part["label"], rotation=90, fontsize=6.5)
        axis.set(title=textwrap.fill(model, 20), ylim=(0, 100))
    for k, side in enumerate(("known", "unknown")):
        axes[0, 0].bar([0], [0], color=f"C{k}", label=f"{side} context")
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy, %")
    fig.legend(loc="outside lower center", ncols=2)
    return fig


# Claims
def _sign(part) -> int:
    """Whether a part lies above (1) or below (-1) zero; what decides nothing is neither."""
    if hasattr(part, "sign"):
        return int(part.sign)
    decided = part.n >= FEWEST_SEEDS and part.low < part.high
    return int(part.low > 0) - int(part.high < 0) if decided else 0


def claims(parts: pd.DataFrame):
    """Every part of every claim with its 95 % interval, papers apart.

    Args:
        parts: `id, part, n, mean, low, high`, points in the direction of the claim; the first
            letter of `id` is its paper's. Where there are, `what` says it in words, and `sign` is
            the ledger's, with its correction.
    """
    parts = parts.dropna(subset=["low", "high"])
    what = "what" if "what" in parts else "part"
    papers = {"A": "ACE", "V": "ActionVLM", "T": "Motion transfer"}
    columns: tuple[list, list] = ([], [])
    for letter, paper in papers.items():
        mine = list(parts[parts["id"].str[0] == letter].itertuples())
        if mine:
            shorter = min(columns[:2] if letter != "A" else columns[:1], key=len)
            shorter += [paper, *mine]
    most = max(map(len, columns))
    fig, axes = _subplots(1, 2, height=ROW * most + 0.9)
    for axis, rows in zip(axes[0], columns, strict=True):
        names = []
        for y, row in enumerate(rows):
            if isinstance(row, str):
                names.append(row)
                continue
            names.append(textwrap.shorten(f"{row.id} {getattr(row, what)}", 46, placeholder=" …"))
            sign = _sign(row)
            colour = VERDICTS[sign][1]
            axis.plot(np.clip([row.low, row.high], -REACH, REACH), [y, y], color=colour)
            axis.plot(np.clip(row.mean, -REACH, REACH), y, "ods"[sign], ms=3, color=colour)
            for end in (row.low, row.high):
                if abs(end) > REACH:  # goes on
                    way = int(np.sign(end))
                    axis.plot(way * REACH, y, "<>"[way > 0], ms=3, color=colour)
        axis.axvline(0, color="k", lw=0.6)
        axis.set_yticks(range(len(rows)), names, fontsize=5.5)
        for tick, row in zip(axis.get_yticklabels(), rows, strict=True):
            if isinstance(row, str):
                tick.set(fontweight="bold", fontsize=6.5)
        axis.tick_params(axis="y", length=0)
        axis.set(xlim=(-REACH - 1, REACH + 1), ylim=(most - 0.5, -0.7))
        axis.set_xlabel("points in the direction of the claim")
    for sign, (name, colour) in VERDICTS.items():
        axes[0, 1].plot([], [], color=colour, marker="ods"[sign], ms=3, label=name)
    fig.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
