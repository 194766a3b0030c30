"""ATA (Ghoddoosian et al., ICCV 2023): 1,152 videos of toy assembly, four cameras, 32 participants.

The data is handed out by its owner on request and its annotation format is not published, so the
reader takes one csv, `actions.csv`, with the columns `video, start_frame, end_frame, label,
participant, split` (frames inclusive, from 0; split train, val or test), labels by the dataset's
names (`fasten_screw`, `SIL`, ..) or ACE's.
"""

from pathlib import Path

import pandas as pd

from vlact import schema
from vlact.datasets.layout import FrameTimes, require
from vlact.language.tasks import ATA_BASE, ATA_NOVEL
from vlact.language.trees import phrase
from vlact.schema import ANNOTATION

COLUMNS = ("video", "start_frame", "end_frame", "label", "participant", "split")
RENAMED = {
    "drop": "drop item",
    "pickup": "pick up item",
    "SIL": "idle",
}  # the dataset's names where words differ
VIEWS = ("front", "side", "overhead", "global")


def read(folder: str | Path, idle: bool = True) -> pd.DataFrame:
    """Annotation table of ATA.

    Args:
        folder: Holds `actions.csv` and the videos it names.
        idle: Keep the idle class (`SIL`): ACE's 10 base classes only add up with it.

    Raises:
        ValueError: A missing file or column, an unknown label or split, frames out of order or past
            the video's end; names file and line.
    """
    folder = Path(folder)
    wanted = f"a csv with columns {', '.join(COLUMNS)}"
    csv = require(folder / "actions.csv", "ATA", wanted)
    table = schema.csv(csv, COLUMNS, wanted)
    schema.stay_inside(table["video"], lambda i: f"{csv}, line {table.index[i] + 2}")
    known = {phrase(*a) for a in ATA_BASE + ATA_NOVEL}
    times, rows = FrameTimes(folder), []
    for row in table.itertuples():
        where = f"{csv}, line {row.Index + 2}"
        label = RENAMED.get(row.label, row.label.replace("_", " "))
        if label not in known:
            raise ValueError(
                f"{where}: unknown label {row.label!r}; expected one of {sorted(known)} or the "
                "dataset's own names"
            )
        if row.split not in ("train", "val", "test"):
            raise ValueError(f"{where}: split must be train, val or test; got {row.split!r}")
        if label == "idle" and not idle:
            continue
        start_s, end_s = times.seconds(row.video, row.start_frame, row.end_frame, where)
        rows.append(
            (
                row.video,
                start_s,
                end_s,
                label,
                row.split,
                row.participant,
                next((v for v in VIEWS if v in row.video.lower()), ""),
            )
        )
    return pd.DataFrame(rows, columns=[*ANNOTATION, "view"])
