"""Sets of real video, poses and features: where they lie, who made them, and what a reader gives.

Every set is named in `data/sources/<set>.dvc`, as `dvc import --no-exec` writes it: the public
repository, its revision and path, with licence, citation and the set's own page in `meta`. The data
comes beside that file, or lies in the folder that VLACT_REALDATA names. Nothing of it is committed.
A reader takes a set's original layout, or a packed copy, and says which one it was.
"""

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from vlact import ROOT, video

SOURCES = ROOT / "data" / "sources"  # the imports, and what they bring
FOLDER = "VLACT_REALDATA"  # in the environment: another folder that holds the sets
DAMAGED = ("is cut short", "is damaged")  # how notes of `vlact.video.probe` begin


@dataclass(frozen=True)
class Source:
    """Where a set comes from.

    Attributes:
        name: Of the set, and of what the import brings.
        url, revision, path: Of the public repository.
        page: The set's own page.
        licence, cite: As that page, or the repository, states them.
        about: What it is, in a line.
        needed_by: Which of the papers' questions it answers.
        packed: What a packed copy of it is called.
    """

    name: str
    url: str
    revision: str
    path: str
    page: str
    licence: str
    cite: str
    about: str
    needed_by: str
    packed: str = ""

    @property
    def at(self) -> Path | None:
        """Where it, or a packed copy, lies; None where neither is here."""
        names = (self.name, self.packed) if self.packed else (self.name,)
        return next((root() / name for name in names if (root() / name).exists()), None)


class SetMissing(FileNotFoundError):
    """A set is not on this machine; the message names it and the command that brings it.

    Attributes:
        name: Of the set.
        looked: Where it was looked for.
    """

    def __init__(self, name: str, looked: Path):
        self.name, self.looked = name, looked
        super().__init__(
            f"{looked}: the set {name!r} is not here; in a checkout `{command(name)}` brings it, "
            f"or {FOLDER} names a folder that holds it"
        )

    def __reduce__(self):
        return SetMissing, (self.name, self.looked)


@dataclass(frozen=True)
class Clips:
    """What a reader found.

    Attributes:
        name: Of the set.
        folder: What `video` of the table is relative to.
        table: One row a clip, or an interval of an untrimmed video, index 0..N-1: `video` (posix
            path below `folder`, or a sequence's name where there is no film), `label` (words with
            blanks between them), `group` (person, place or source video: what must not be on both
            sides of a split), `split`, or `split1`, `split2`, .. where several are official
            ("train", "test" or "none"). Intervals have `start_s, end_s` on the video's clock. What
            else the names say stands in columns of its own.
        layout: "original" or "packed".
        left_out: A line for every clip that is named and is missing, cut or broken.
        arrays: What a packed file holds beside its names, by row of the table.
    """

    name: str
    folder: Path
    table: pd.DataFrame
    layout: str
    left_out: tuple[str, ...] = ()
    arrays: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def said(self) -> str:
        """One line for tables and logs."""
        rows, classes = len(self.table), self.table["label"].nunique()
        out = f"{self.name}: {rows} of {classes} classes, {self.layout} layout"
        return out + f", {len(self.left_out)} left out" * bool(self.left_out)


@cache
def sources() -> dict[str, Source]:
    """Every set by name, from the import files of this checkout."""
    out = {}
    for file in sorted(SOURCES.glob("*.dvc")):
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        (dep,) = found["deps"]
        repo = dep["repo"]
        out[file.stem] = Source(
            file.stem, repo["url"], repo["rev"], dep["path"], about=found["desc"], **found["meta"]
        )
    return out


def command(name: str) -> str:
    """What brings a set."""
    return f"dvc update data/sources/{name}.dvc"


def root() -> Path:
    """The folder that holds the sets."""
    return Path(os.environ.get(FOLDER) or SOURCES)


def place(name: str, *instead: str) -> Path:
    """Where a set, or one of the names that packed copies of it have, lies.

    Args:
        name: As in `sources`.
        instead: Other names below `root`, in order.

    Raises:
        SetMissing: Nowhere; names the set and the command that brings it.
    """
    for at in (name, *instead):
        if (root() / at).exists():
            return root() / at
    raise SetMissing(name, root() / name)


def broken(path: Path) -> str:
    """Why a film cannot be used whole; nothing where it can."""
    if not path.is_file():
        return f"{path}: is missing"
    try:
        info = video.probe(path)
    except video.VideoError as error:
        return str(error)
    return "; ".join(f"{path}: {note}" for note in info.notes if note.startswith(DAMAGED))


def whole(name: str, folder: Path, table: pd.DataFrame, skip: bool) -> tuple[pd.DataFrame, tuple]:
    """The table's rows whose films are there and whole, index 0..N-1, and a line for each other.

    Raises:
        ValueError: Some are not, and `skip` is false: counts them, and names the first few.
    """
    reasons = {v: why for v in table["video"].unique() if (why := broken(folder / v))}
    if reasons and not skip:
        shown = "\n  ".join(list(reasons.values())[:5])
        raise ValueError(
            f"{name}: {len(reasons)} of {table['video'].nunique()} clips are missing, cut or "
            f"broken; bring them again, or leave them out with --skip:\n  {shown}"
        )
    kept = table[~table["video"].isin(reasons)].reset_index(drop=True)
    return kept, tuple(reasons.values())
