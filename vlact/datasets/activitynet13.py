"""ActivityNet-1.3 in the layouts of BMN (one JSON and a csv of videos) and of TSP (one csv); ids
without "v_".

The official JSON is read by `vlact.datasets.activitynet`.
"""

from pathlib import Path

import pandas as pd

from vlact.datasets.activitynet import pair
from vlact.schema import csv, json_object, sound

COLUMNS = ["video", "start_s", "end_s", "label", "split", "duration_s"]


def bmn(
    annotations: str | Path, videos: str | Path | None, subset: str | None = None
) -> pd.DataFrame:
    """Annotations of BMN's `anno_action.json`, with subset and duration as in its
    `video_info_new.csv`; MMAction2 has one such JSON a subset, and no csv.

    Args:
        annotations: `{"v_<id>": {"duration_second", "annotations": [{"segment", "label"}]}}`.
        videos: csv with the columns `video` and `subset`; None where there is none, then the
            subset is "" and every video of the JSON counts.
        subset: "training", "validation", "testing"; None takes all.

    Returns:
        `COLUMNS`; `attrs["videos"]` lists all videos of the subset, annotated or not.

    Raises:
        ValueError: Missing columns, an unknown subset, a video of the csv that the JSON lacks, or a
            broken annotation.
    """
    content, rows, listed = json_object(annotations), [], []
    if videos is None:
        info = pd.DataFrame({"video": list(content), "subset": ""})
    else:
        info = csv(videos, ("video", "subset"), "BMN's video_info_new.csv")
    if subset is not None and subset not in set(info["subset"]):
        raise ValueError(
            f"{videos}: no video of subset {subset!r}; expected one of "
            f"{sorted(info['subset'].unique())}"
        )
    for r in info.itertuples():
        if subset is not None and r.subset != subset:
            continue
        if r.video not in content:
            raise ValueError(
                f"{annotations}: lacks {r.video!r}, which {Path(videos).name}, line "
                f"{r.Index + 2}, has"
            )
        name, entry = r.video.removeprefix("v_"), content[r.video]
        listed.append(name)
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("annotations"), list)
            or "duration_second" not in entry
        ):
            raise ValueError(
                f"{annotations}: {r.video}: expected "
                f'{{"duration_second", "annotations": [..]}}; got {entry!r}'
            )
        for i, note in enumerate(entry["annotations"]):
            try:
                segment = pair(note["segment"], "")
                duration = float(entry["duration_second"])
                rows.append((name, *segment, note["label"], r.subset, duration))
            except (KeyError, TypeError, ValueError, OverflowError):
                raise ValueError(
                    f'{annotations}: {r.video}, annotation {i}: expected "label" and "segment"; '
                    f"got {note!r}"
                ) from None
    table = sound(pd.DataFrame(rows, columns=COLUMNS), annotations, "annotation {}", 0)
    table.attrs["videos"] = listed
    return table


def tsp(path: str | Path, split: str = "") -> pd.DataFrame:
    """Actions of TSP's `activitynet_v1-3_{train,valid}_tsp_groundtruth.csv`, whose other rows are
    background.

    Args:
        path: The csv.
        split: What to write into that column.

    Raises:
        ValueError: Missing columns, or no row that is an action.
    """
    wanted = {
        "video-name": "video",
        "t-start": "start_s",
        "t-end": "end_s",
        "action-label": "label",
        "video-duration": "duration_s",
    }
    table = csv(path, (*wanted, "temporal-region-label"), "TSP's groundtruth csv")
    found = table[table["temporal-region-label"] == "Action"]
    if found.empty:
        raise ValueError(
            f"{path}: no row with temporal-region-label 'Action'; got "
            f"{sorted(map(str, table['temporal-region-label'].unique()))[:5]}"
        )
    return (
        sound(found.rename(columns=wanted), path)
        .assign(split=split)[COLUMNS]
        .reset_index(drop=True)
    )
