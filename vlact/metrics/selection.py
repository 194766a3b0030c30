"""Scores of every cell of a grid, and the choice on base-class validation."""

import pandas as pd

from vlact.metrics.classification import harmonic_mean, macro_f1, srt, top1


def score_grid(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per model, seed, lr and epoch.

    Columns (fractions): `val_acc` (base classes of the validation split), `seen_acc`, `seen_f1`,
    `unseen_acc`, `unseen_f1` (root labels), `hm_acc`, `hm_f1`, and those of
    `vlact.metrics.classification.srt`.
    """
    out = []
    for cell, part in predictions.groupby(["model", "seed", "lr", "epoch"], sort=False, observed=True):
        val, seen = (part[(part["split"] == s) & (part["mode"] == "base")] for s in ("val", "test"))
        novel = part[(part["split"] == "test") & (part["mode"] == "novel")]
        root = novel[novel["run"] == 0]
        row = dict(zip(("model", "seed", "lr", "epoch"), cell, strict=True))
        row["val_acc"] = top1(val["label"], val["predicted"])
        for name, rows in (("seen", seen), ("unseen", root)):
            row[f"{name}_acc"] = top1(rows["label"], rows["predicted"])
            row[f"{name}_f1"] = macro_f1(rows["label"], rows["predicted"])
        for metric in ("acc", "f1"):
            row[f"hm_{metric}"] = harmonic_mean(row[f"seen_{metric}"], row[f"unseen_{metric}"])
        out.append(row | srt(novel))
    return pd.DataFrame(out)


def choose(predictions: pd.DataFrame) -> pd.DataFrame:
    """For each model the lr and epoch with the best mean validation accuracy on base classes.

    No novel class and no test clip is looked at. Ties go to the shorter, then the gentler schedule.

    Returns:
        Indexed by model: `lr`, `epoch`, `val_acc` (mean over seeds).
    """
    val = predictions[(predictions["split"] == "val") & (predictions["mode"] == "base")]
    right = (val["label"] == val["predicted"]).groupby([val["model"], val["lr"], val["epoch"]], observed=True).mean()
    table = right.rename("val_acc").reset_index()
    table["model"] = table["model"].astype(str)
    table["val_acc"] = table["val_acc"].round(9)
    table = table.sort_values(["model", "val_acc", "epoch", "lr"], ascending=[True, False, True, True])
    return table.groupby("model", sort=True).first()
