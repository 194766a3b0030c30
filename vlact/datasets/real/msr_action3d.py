"""MSR-Action3D (Li et al., CVPR workshops 2010), skeletons: 567 sequences, 20 actions, ten people.

Original layout: a text a sequence, `a01_s01_e01_skeleton3D.txt`, twenty lines a frame, `x y z
confidence` in metres. Packed: `msr_action3d_skeletons.npz`.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.datasets.real import place
from vlact.datasets.real.incomplete import left_out
from vlact.datasets.real.skeletons import Skeletons, arrays, joined, usable, whole

SET = "msr_action3d"
NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)")
ACTIONS = (
    *("high arm wave", "horizontal arm wave", "hammer", "hand catch", "forward punch"),
    *("high throw", "draw x", "draw tick", "draw circle", "hand clap"),
    *("two hand wave", "side boxing", "bend", "forward kick", "side kick"),
    *("jogging", "tennis swing", "tennis serve", "golf swing", "pick up and throw"),
)
SEQUENCES = 567
PACKED = "msr_action3d_skeletons.npz"
ENDING = "_skeleton3D.txt"
# Its order of joints begins with shoulders and alternates sides. Sides were told apart by the
# direction of toes, the order by heights and bones of constant length.
ORDER = (6, 3, 2, 19, 0, 7, 9, 11, 1, 8, 10, 12, 4, 13, 15, 17, 5, 14, 16, 18)


def _table(names: list[str], where: Path) -> pd.DataFrame:
    rows = []
    for name in names:
        found = NAME.fullmatch(name)
        if not found or not 1 <= int(found[1]) <= len(ACTIONS):
            raise ValueError(
                f"{where}: {name!r} is no name of MSR-Action3D; expected aAA_sSS_eEE with an "
                f"action from 1 to {len(ACTIONS)}"
            )
        numbers = (int(found[k]) for k in (2, 3))
        rows.append((name, ACTIONS[int(found[1]) - 1], f"s{found[2]}", *numbers))
    return pd.DataFrame(rows, columns=["video", "label", "group", "subject", "repetition"])


def _text(file: Path) -> np.ndarray:
    try:
        lines = np.loadtxt(file, dtype=np.float32, ndmin=2)
        return lines.reshape(-1, 20, lines.shape[1])[..., :3]
    except ValueError as error:
        raise ValueError(
            f"{file}: expected twenty lines `x y z confidence` a frame; {error}"
        ) from None


def read(folder: str | Path | None = None, skip: bool = False) -> Skeletons:
    """All sequences; `group` is the person, further columns `subject, repetition`. Joints that the
    sensor lost stay at zero.

    Args:
        folder: With the packed file, else with text files.
        skip: Go on without sequences that are missing or unusable, which are named and counted.

    Raises:
        vlact.datasets.real.SetMissing: The set is not here.
        ValueError: Neither layout, a name of another set, a file that is no sequence, or sequences
            that are missing or unusable.
    """
    folder = Path(folder) if folder is not None else place(SET)
    packed, files = folder / PACKED, sorted(folder.glob(f"a??_s??_e??{ENDING}"))
    if packed.is_file():
        z = arrays(packed, ("names", "offset", "joints_xyzc"))
        table = _table(z["names"].tolist(), packed)
        joints = z["joints_xyzc"][:, ORDER, :3]
        found = Skeletons(table, joints, z["offset"], "packed")
    elif files:
        table = _table([f.name.removesuffix(ENDING) for f in files], folder)
        found = joined(table, [_text(f)[:, ORDER] for f in files], "original")
    else:
        raise ValueError(
            f"{folder}: MSR-Action3D expects {PACKED} or aAA_sSS_eEE{ENDING}, found none"
        )
    lost = [f"{n} more" for n in [SEQUENCES - len(found.table)] if n > 0]
    left_out(lost + usable(found), folder, f"MSR-Action3D has {SEQUENCES} sequences", skip)
    return found.of(whole(found))
