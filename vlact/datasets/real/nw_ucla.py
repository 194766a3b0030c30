"""Northwestern-UCLA (Wang et al., CVPR 2014), skeletons: 1,484 sequences, ten actions, ten people,
three views.

Original layout: a JSON a sequence, `a01_s01_e00_v01.json` (action, subject, repetition, view), with
`skeletons` (T, 20, 3) in metres. Packed: `nw_ucla_skeletons.npz`. Labels come from names; where
`val_label.pkl` lies beside them, its labels and lengths must agree.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.datasets.real import place, plain_pickle
from vlact.datasets.real.incomplete import left_out
from vlact.datasets.real.skeletons import Skeletons, arrays, joined, usable, whole
from vlact.schema import json_object

SET = "nw_ucla"
NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d)")
ACTIONS = {  # by their number in names, which has gaps
    1: "pick up with one hand",
    2: "pick up with two hands",
    3: "drop trash",
    4: "walk around",
    5: "sit down",
    6: "stand up",
    8: "donning",
    9: "doffing",
    11: "throw",
    12: "carry",
}
SEQUENCES = 1484
PACKED = "nw_ucla_skeletons.npz"
HALF_MM = 2000.0  # packed joints are whole numbers of half a millimetre


def _table(names: list[str], where: Path) -> pd.DataFrame:
    rows = []
    for name in names:
        found = NAME.fullmatch(name)
        action = int(found[1]) if found else None
        if action not in ACTIONS:
            raise ValueError(
                f"{where}: {name!r} is no name of NW-UCLA; expected aAA_sSS_eEE_vVV with an "
                f"action of {sorted(ACTIONS)}"
            )
        numbers = (int(found[k]) for k in (2, 3, 4))
        rows.append((name, ACTIONS[action], f"s{found[2]}", *numbers))
    return pd.DataFrame(rows, columns=["video", "label", "group", "subject", "repetition", "view"])


def _agree(found: Skeletons, path: Path) -> None:
    """Hold names and lengths against the labels that were published with them."""
    numbers = {name: i + 1 for i, name in enumerate(ACTIONS.values())}
    row = {name: i for i, name in enumerate(found.table["video"])}
    for k, said in enumerate(plain_pickle.load(path)):
        i = row.get(said["file_name"])
        if i is None:
            continue
        mine = numbers[found.table["label"].iloc[i]], len(found[i])
        if mine != (said["label"], said["length"]):
            raise ValueError(
                f"{path}, row {k} ({said['file_name']}): label {said['label']} and "
                f"{said['length']} frames; by its name and joints it is {mine[0]} and {mine[1]}"
            )


def read(folder: str | Path | None = None, skip: bool = False) -> Skeletons:
    """All sequences; `group` is the person, further columns `subject, repetition, view`.

    Args:
        folder: With the packed file, else with JSON files.
        skip: Go on without sequences that are missing or unusable, which are named and counted.

    Raises:
        vlact.datasets.real.SetMissing: The set is not here.
        ValueError: Neither layout, a name of another set, joints of another shape, labels that
            disagree, or sequences that are missing or unusable.
    """
    folder = Path(folder) if folder is not None else place(SET)
    packed, files = folder / PACKED, sorted(folder.rglob("a??_s??_e??_v??.json"))
    if packed.is_file():
        z = arrays(packed, ("names", "offset", "joints_half_mm"))
        table = _table(z["names"].tolist(), packed)
        joints = z["joints_half_mm"].astype(np.float32) / HALF_MM
        found = Skeletons(table, joints, z["offset"], "packed")
    elif files:
        parts = []
        for file in files:
            own = np.asarray(json_object(file).get("skeletons"), dtype=np.float32)
            if own.ndim != 3 or own.shape[1:] != (20, 3):
                raise ValueError(f"{file}: expected skeletons (T, 20, 3), got {own.shape}")
            parts.append(own)
        found = joined(_table([f.stem for f in files], folder), parts, "original")
    else:
        raise ValueError(f"{folder}: NW-UCLA expects {PACKED} or aAA_sSS_eEE_vVV.json, found none")
    labels = folder / "val_label.pkl"
    if labels.is_file():
        _agree(found, labels)
    lost = [f"{n} more" for n in [SEQUENCES - len(found.table)] if n > 0]
    left_out(lost + usable(found), folder, f"NW-UCLA has {SEQUENCES} sequences", skip)
    return found.of(whole(found))
