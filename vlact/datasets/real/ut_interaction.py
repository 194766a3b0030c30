"""UT-Interaction (Ryoo and Aggarwal 2010), segmented: two sets of 60 clips, six interactions.

Names are `index_sequence_class.avi`; set 1 (parking lot) has sequences 1-10, set 2 (lawn) 11-20.
Original layout: `ut-interaction_segmented_set1/segmented_set1/*.avi`, or `segmented_set1/*.avi`.
Packed: `set1/*.mp4`. Clips of class 6 ("other") are no part of the sixty.
"""

import re
from pathlib import Path

import pandas as pd

from vlact import video
from vlact.datasets.real import Clips, broken, place
from vlact.datasets.real.incomplete import left_out

SET = "ut_interaction"
NAME = re.compile(r"(\d+)_(\d+)_(\d)\.(avi|mp4)")
ACTIONS = ("shake hands", "hug", "kick", "point", "punch", "push")
OTHER = 6
CLIPS = 60  # in a set
SETS = {"set1": range(1, 11), "set2": range(11, 21)}  # sequences
LAYOUTS = {  # where the clips of a set are; the first that is there counts
    "packed": ("{}",),
    "original": ("ut-interaction_segmented_{0}/segmented_{0}", "segmented_{}"),
}


def _home(folder: Path, name: str) -> tuple[str, Path]:
    for layout, places in LAYOUTS.items():
        for inner in places:
            if (path := folder / inner.format(name)).is_dir():
                return layout, path
    tried = [str(folder / p.format(name)) for ps in LAYOUTS.values() for p in ps]
    raise ValueError(f"{folder}: UT-Interaction expects {name} in one of {tried}, found none")


def read(folder: str | Path | None = None, skip: bool = False) -> Clips:
    """All clips of both sets; `group` is the sequence, further columns `set, sequence, duration_s`.

    Args:
        folder: See the module; the set's own place if not given.
        skip: Go on without clips that are missing or cut, which are named and counted.

    Raises:
        vlact.datasets.real.SetMissing: The set is not here.
        ValueError: Neither layout, a name of another set, a sequence of the other set, or clips
            that are missing or cut.
    """
    folder = Path(folder) if folder is not None else place(SET)
    rows, problems, layouts = [], [], set()
    for name, sequences in SETS.items():
        layout, home = _home(folder, name)
        layouts.add(layout)
        there = set()
        for path in sorted(p for p in home.iterdir() if p.suffix in (".avi", ".mp4")):
            found = NAME.fullmatch(path.name)
            if not found or int(found[3]) > OTHER:
                raise ValueError(
                    f"{path}: expected a name index_sequence_class with a class from 0 to {OTHER}"
                )
            index, sequence, number = int(found[1]), int(found[2]), int(found[3])
            if number == OTHER:
                continue
            if sequence not in sequences:
                raise ValueError(f"{path}: sequence {sequence} is not of {name}")
            there.add(index)
            if why := broken(path):
                problems.append(why)
                continue
            seconds, film = video.probe(path).duration_s, path.relative_to(folder).as_posix()
            group = f"{name} {sequence}"
            rows.append((film, ACTIONS[number], group, "none", name, sequence, seconds))
        problems += [f"{home / str(i)}_*: not there" for i in range(CLIPS) if i not in there]
    if len(layouts) > 1:
        raise ValueError(f"{folder}: one set is packed, the other is not; bring both alike")
    left_out(problems, folder, f"UT-Interaction has {len(SETS)} sets of {CLIPS} clips", skip)
    columns = ["video", "label", "group", "split", "set", "sequence", "duration_s"]
    table = pd.DataFrame(rows, columns=columns)
    return Clips(SET, folder, table, layouts.pop(), tuple(problems))
