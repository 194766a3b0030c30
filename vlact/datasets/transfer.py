"""The lists of the motion-transfer benchmark (Syn-TA, K400-TA, SSv2-TA) as its authors publish
them.

    <folder>/coarse_classes/{train,val}_set{1,2}_coarse.txt    one clip a line: "<path> <coarse id>"
    <folder>/fine_classes/{train,val}_set{1,2}_fine.txt        "<path> <fine id>", ids of that set

Paths are relative to the folder of the videos.
"""

import re
from pathlib import Path

import pandas as pd

from vlact.language.motions import SETS, check
from vlact.runtime.jobs import write_whole
from vlact.schema import text

PARTS = ("train", "val")
KINDS = ("coarse", "fine")


def list_path(folder: Path, kind: str, part: str, which: int) -> Path:
    """Where a list lies."""
    return Path(folder) / f"{kind}_classes" / f"{part}_set{which}_{kind}.txt"


def read_list(path: Path, classes: int) -> pd.DataFrame:
    """One list: `video, id`.

    Raises:
        ValueError: No file, no rows, a line that is not "<path> <id>", an id that is none of the
            `classes`, or a video named twice; names the line.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a list of clips, found no file")
    rows, seen = [], {}
    for i, line in enumerate(text(path).splitlines(), 1):
        if not line.strip():
            continue
        name, _, number = line.strip().rpartition(" ")
        if not name or not re.fullmatch("[0-9]{1,9}", number):
            raise ValueError(f"{path}, line {i}: expected '<path> <class id>', got {line!r}")
        if int(number) >= classes:
            raise ValueError(f"{path}, line {i}: unknown class {number}; expected 0..{classes - 1}")
        if name in seen:
            raise ValueError(f"{path}, line {i}: {name!r} stands on line {seen[name]} already")
        seen[name] = i
        rows.append((name, int(number)))
    if not rows:
        raise ValueError(f"{path}: expected at least one clip, found none")
    return pd.DataFrame(rows, columns=["video", "id"])


def clips(folder: Path, taxonomy: pd.DataFrame, videos: Path | None = None) -> pd.DataFrame:
    """All clips of a dataset.

    Args:
        folder: Of the lists.
        taxonomy: See `vlact.language.motions.taxonomy`.
        videos: Where the clips must be; None does not look.

    Returns:
        `video, set, part, coarse_id, fine_id`.

    Raises:
        ValueError: See `read_list`; lists of the two kinds that name different clips or disagree
            about the coarse class; a clip in both sets, or in both parts of one.
        FileNotFoundError: A clip that is not there.
    """
    check(taxonomy, str(folder))
    found = []
    for which in SETS:
        mine = taxonomy[taxonomy["set"] == which].set_index("fine_id")["coarse_id"]
        for part in PARTS:
            path = {k: list_path(folder, k, part, which) for k in KINDS}
            coarse = read_list(path["coarse"], taxonomy["coarse_id"].nunique()).rename(
                columns={"id": "coarse_id"}
            )
            fine = read_list(path["fine"], len(mine)).rename(columns={"id": "fine_id"})
            both = coarse.merge(fine, on="video", how="outer", indicator=True)
            if len(odd := both[both["_merge"] != "both"]):
                have, lack = (
                    ("coarse", "fine")
                    if odd["_merge"].iloc[0] == "left_only"
                    else ("fine", "coarse")
                )
                raise ValueError(
                    f"{path[lack]}: lacks {odd['video'].iloc[0]!r}, which {path[have].name} has "
                    f"({len(odd)} such)"
                )
            both = coarse.merge(fine, on="video")
            wrong = both[both["fine_id"].map(mine) != both["coarse_id"]]
            if len(wrong):
                row = wrong.iloc[0]
                raise ValueError(
                    f"{path['fine']}: {row['video']!r} has fine class {row['fine_id']}, of "
                    f"coarse class {mine[row['fine_id']]}, but "
                    f"{path['coarse'].name} says {row['coarse_id']}"
                )
            found.append(both.assign(set=which, part=part))
    table = pd.concat(found, ignore_index=True)
    again = table[table["video"].duplicated(keep=False)]
    if len(again):
        where = ", ".join(
            f"set {r.set} {r.part}"
            for r in again[again["video"] == again["video"].iloc[0]].itertuples()
        )
        raise ValueError(
            f"{folder}: {again['video'].iloc[0]!r} is in several lists ({where}); sets and "
            "parts must not overlap"
        )
    if videos is not None and (
        missing := [v for v in table["video"] if not (Path(videos) / v).is_file()]
    ):
        raise FileNotFoundError(
            f"{Path(videos) / missing[0]}: named by the lists in {folder}, not there "
            f"({len(missing)} of {len(table)} missing)"
        )
    return table[["video", "set", "part", "coarse_id", "fine_id"]]


def write_lists(folder: Path, table: pd.DataFrame) -> None:
    """Write what `clips` reads."""
    for (which, part), rows in table.groupby(["set", "part"], sort=False):
        for kind in KINDS:
            text = "".join(
                f"{v} {i}\n" for v, i in zip(rows["video"], rows[f"{kind}_id"], strict=True)
            )
            write_whole(
                list_path(folder, kind, part, which), lambda data, path: path.write_text(data), text
            )
