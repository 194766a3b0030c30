"""How far ACE's baselines are from the published ones in candidate worlds: the log of
`vlact.tools.calibrate_ace`.
"""

from pathlib import Path

import pandas as pd

from vlact.report import published

CALIBRATION = Path(__file__).parents[2] / "papers" / "ace" / "calibration.csv"
CLOSE = 10.0  # points from the published value that count as matched
BASELINES = {  # name here: trial, the paper's row, what is compared
    "zero-shot": ("zero_shot", "pretraining=yes, ACE=no", "unseen"),
    "ProcVLR": ("procvlr", "ProcVLR", "seen"),
    "Text4Vis": ("text4vis", "Text4Vis", "seen"),
}


def targets() -> pd.DataFrame:
    """Published accuracies, percent: `dataset, baseline, split, published`, NaN where none is."""
    tables = pd.concat([published.read(f"ace_table{n}") for n in (1, 2, 5)])
    tables = tables[(tables["metric"] == "acc") & (tables["setting"] != "srt")]
    rows = []
    for dataset in ("ata", "ikea", "gtea"):
        mine = tables[tables["dataset"].str.lower().str.startswith(dataset)]
        for name, (_, row, split) in BASELINES.items():
            found = mine[(mine["method"] == row) & (mine["split"] == split)]["mean"]
            value = float(found.iloc[0]) if len(found) else float("nan")
            rows.append({"dataset": dataset, "baseline": name, "split": split, "published": value})
    return pd.DataFrame(rows)


def summary(log: pd.DataFrame) -> pd.DataFrame:
    """The published values, then a row a candidate: what the baselines reach (percent), validation
    accuracies of the trunk, the mean and the largest distance in points, and how many are matched.
    """
    named = log.assign(what=log["dataset"].str.upper() + " " + log["baseline"])
    wide = named.pivot(index="candidate", columns="what", values="here")
    wide = wide.reindex(columns=named["what"].unique(), index=log["candidate"].unique())
    by = log.groupby("candidate", sort=False)
    wide = wide.join(by[["verb", "object"]].first())
    wide["mean distance"] = by["distance"].mean().round(1)
    wide["largest distance"] = by["distance"].max()
    wide["matched"] = by["distance"].apply(lambda x: f"{(x <= CLOSE).sum()}/{x.notna().sum()}")
    aims = targets()
    aims.index = aims["dataset"].str.upper() + " " + aims["baseline"]
    wanted = aims["published"].to_frame("published").T
    return (
        pd.concat([wanted, wide])
        .reset_index(names="candidate")
        .reindex(columns=["candidate", *wide.columns])
    )
