"""IKEA ASM (Ben-Shabat et al., WACV 2021): 371 furniture assemblies, three cameras, five
environments.

Layout: `gt_segments.json` (per scan the inclusive frame segments with their labels) and the videos
as `<furniture>/<scan>/dev{1,2,3}/images/scan_video.avi`. A scan is called
`<person>_<colour>_<configuration>_<calibration>_<room>_<date..>`; its calibration tells the
environment. Frames were labelled on recordings of variable rate, so every file's own frame times
count (released files have 25 fps).
"""

import json
from pathlib import Path

import pandas as pd

from vlact.datasets.layout import FrameTimes, require
from vlact.language.tasks import IKEA_BASE, IKEA_NOVEL
from vlact.language.trees import phrase
from vlact.schema import ANNOTATION

ENVIRONMENTS = {
    1: "env1",
    2: "env1",
    4: "env2",
    5: "env2",
    6: "env3",
    7: "env3",
    8: "env4",
    9: "env5",
    10: "env5",
    11: "env5",
}
RENAMED = {
    "position the drawer right side up": "position drawer right side up",
    "slide bottom of drawer": "slide bottom panel",
}
LEFT_OUT = ("NA", "other")
VIEWS = ("dev1", "dev2", "dev3")


def environment(scan: str) -> str:
    """Environment of a scan, from the calibration number in its name.

    Raises:
        ValueError: A name without a known calibration number.
    """
    fields = Path(scan).name.split("_")
    number = int(fields[3]) if len(fields) > 4 and fields[3].isdigit() else None
    if number not in ENVIRONMENTS:
        raise ValueError(
            f"scan {scan!r}: expected <person>_<colour>_<configuration>_<calibration>_.. with "
            f"one of {sorted(ENVIRONMENTS)}"
        )
    return ENVIRONMENTS[number]


def read(folder: str | Path) -> pd.DataFrame:
    """Annotation table: one row a segment and view; `group` is the environment, folds leave one
    out.

    "lay down" stays in base (leg) and novel (everything else), as the paper has it. Every fifth
    scan of an environment, in the order of their names, is for validation when its environment is
    not the one left out.

    Raises:
        ValueError: A missing file, an unknown label or a scan without environment, frames out of
            order; names file and segment.
    """
    folder = Path(folder)
    path = require(folder / "gt_segments.json", "IKEA ASM", "the published segments")
    try:
        scans = json.loads(path.read_text())["database"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected json with a 'database' of scans; found {type(error).__name__}: "
            f"{error}"
        ) from None
    known = {phrase(*a) for a in IKEA_BASE + IKEA_NOVEL}
    times, rows, seen = FrameTimes(folder), [], {}
    for scan in sorted(scans):
        env = environment(scan)
        seen[env] = seen.get(env, 0) + 1
        split = "val" if seen[env] % 5 == 0 else "train"
        for k, entry in enumerate(scans[scan].get("annotation", ())):
            where = f"{path}, scan {scan!r}, segment {k}"
            try:
                label, (first, last) = entry["label"], entry["segment"]
            except (KeyError, TypeError, ValueError):
                raise ValueError(
                    f"{where}: expected a label and a segment [first, last]; found {entry!r}"
                ) from None
            if label in LEFT_OUT:
                continue
            label = RENAMED.get(label, label)
            if label not in known:
                raise ValueError(
                    f"{where}: unknown label {label!r}; expected one of {sorted(known)}"
                )
            for view in VIEWS:
                name = f"{scan}/{view}/images/scan_video.avi"
                start_s, end_s = times.seconds(name, first, last, where)
                rows.append((name, start_s, end_s, label, split, env, view))
    return pd.DataFrame(rows, columns=[*ANNOTATION, "view"])
