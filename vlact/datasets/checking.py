"""What is wrong in a table of annotations, row by row."""

import numpy as np
import pandas as pd

from vlact.schema import label_key

SEGMENT = ["video", "start_s", "end_s", "label"]


def problems(table: pd.DataFrame, late_s: float) -> pd.DataFrame:
    """Rows `what, video, start_s, end_s, label, row` of everything that looks wrong.

    Args:
        table: `video, start_s, end_s, label` and, where they are known, `split, duration_s`.
        late_s: Seconds that a segment may end after its video.

    Returns:
        `row` is the number of the row in the table, missing where the problem is of no single row.
    """
    table = table.reset_index(drop=True).assign(row=np.arange(len(table)))
    masks = {
        "no length": table["end_s"] <= table["start_s"],
        "before the start": table["start_s"] < 0,
    }
    if "duration_s" in table:
        masks["beyond the end"] = table["end_s"] > table["duration_s"] + late_s
    again = table.duplicated([*SEGMENT])
    masks["there twice"] = again
    ordered = table.sort_values(["video", "label", "start_s"], kind="stable")
    before = ordered.groupby(["video", "label"])["end_s"].transform(lambda x: x.cummax().shift())
    masks["overlaps its own class"] = (ordered["start_s"] < before).reindex(table.index) & ~again
    if "split" in table:
        masks["its video is in two parts"] = table["video"].map(
            table.groupby("video")["split"].nunique() > 1
        )
    parts = [table[mask].assign(what=what) for what, mask in masks.items() if mask.any()]
    # one label under two names, as a row of its own
    plain = pd.Series({x: label_key(x) for x in table["label"].unique()}, dtype=object)
    for names in plain.groupby(plain).groups.values():
        if len(names) > 1:
            both = " | ".join(map(str, sorted(names)))
            parts.append(pd.DataFrame([{"what": "spelt differently", "label": both}]))
    columns = ["what", *SEGMENT, "row"]
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return found.reindex(columns=columns)


def classes_of(table: pd.DataFrame) -> pd.DataFrame:
    """Rows `label, segments, videos, median_s` of a table `video, start_s, end_s, label`."""
    counts = table.groupby("label").agg(segments=("video", "size"), videos=("video", "nunique"))
    length = (table["end_s"] - table["start_s"]).groupby(table["label"]).median()
    return counts.assign(median_s=length.round(2)).reset_index()
