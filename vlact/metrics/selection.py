"""Scores of every cell of a grid, and the choice on base-class validation."""

import numpy as np
import pandas as pd

from vlact.metrics.classification import harmonic_mean, macro_f1, srt, top1

CASE = ("dataset", "model", "leaf", "test")


def score_grid(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per model, seed, fold, fine-tuning (`tune`), lr and epoch, and per value of
    `dataset`, `leaf` and `test`, where the table has them.

    Columns (fractions): `val_acc` (base classes of the validation split), `seen_acc`, `seen_f1`,
    `unseen_acc`, `unseen_f1` (root labels), `hm_acc`, `hm_f1`, and those of
    `vlact.metrics.classification.srt`. What has no clip, or no second run, is nan.
    """
    every = (*CASE, "seed", "fold", "tune", "lr", "epoch")
    out, keys = [], [k for k in every if k in predictions]
    for cell, part in predictions.groupby(keys, sort=False, observed=True):
        val, seen = (part[(part["split"] == s) & (part["mode"] == "base")] for s in ("val", "test"))
        novel = part[(part["split"] == "test") & (part["mode"] == "novel")]
        root = novel[novel["run"] == 0]
        row = dict(zip(keys, cell, strict=True))
        for name, rows in (("val", val), ("seen", seen), ("unseen", root)):
            row[f"{name}_acc"] = top1(rows["label"], rows["predicted"]) if len(rows) else np.nan
            row[f"{name}_f1"] = macro_f1(rows["label"], rows["predicted"]) if len(rows) else np.nan
        del row["val_f1"]
        for metric in ("acc", "f1"):
            row[f"hm_{metric}"] = harmonic_mean(row[f"seen_{metric}"], row[f"unseen_{metric}"])
        out.append(row | (srt(novel) if novel["run"].nunique() > 1 else {}))
    return pd.DataFrame(out)


def choose(grid: pd.DataFrame) -> pd.DataFrame:
    """For each case the lr and epoch with the best mean validation accuracy on base classes.

    A case is a value of `dataset`, `model`, `leaf`, `test`, as far as the grid has these columns.
    No novel class and no test clip is looked at. Ties go to the shorter, then the gentler schedule.

    Args:
        grid: From `score_grid`.

    Returns:
        One row a case: its columns, `lr`, `epoch`, `val_acc` (mean over seeds).
    """
    case = [k for k in CASE if k in grid]
    table = (
        grid.groupby([*case, "lr", "epoch"], sort=False, observed=True)["val_acc"]
        .mean()
        .round(9)
        .reset_index()
    )
    best = table.sort_values(
        ["val_acc", "epoch", "lr"], ascending=[False, True, True], kind="stable"
    )
    return best.groupby(case, sort=False, observed=True).head(1).sort_index().reset_index(drop=True)


def best_cells(grid: pd.DataFrame, every: bool = False) -> pd.DataFrame:
    """Rows of the chosen cells (of all cells, if `every`), with the name of each inference variant
    as `method`.
    """
    keys = [k for k in (*CASE, "lr", "epoch") if k in grid]
    rows = grid if every else grid.merge(choose(grid)[keys], on=keys)
    at_test = (
        rows["leaf"] & rows["model"].str.startswith(("ProcVLR", "zero-shot"))
        if "leaf" in rows
        else False
    )
    return rows.assign(method=rows["model"].where(~at_test, rows["model"] + " + test leaf"))
