"""A user's own clips: a folder of videos and a csv `path,start_s,end_s,label,split`.

`train` rows make the base classes, `test` rows the test; a label that occurs only in `test` is
novel.
"""

from pathlib import Path

import pandas as pd

from vlact import schema
from vlact.language.tasks import Task, classes_of
from vlact.language.trees import Trees, nearest_trees

COLUMNS = ("path", "start_s", "end_s", "label", "split")
SPLITS = ("train", "val", "test")


def read(csv: str | Path, outside: bool = False) -> pd.DataFrame:
    """The csv as an annotation table (`video` = path, `group` = the video).

    Args:
        csv: The file.
        outside: Paths may lead out of the folder, see `vlact.schema.stay_inside`.

    Raises:
        ValueError: Unknown or missing columns, times that are no numbers or out of order, an
            unknown split, an empty label or one in two spellings, a path that leads out of the
            folder, seconds of a video that are in two splits, no train or no test row; names the
            file and the line.
    """
    wanted = f"a csv with columns {', '.join(COLUMNS)}"
    if not Path(csv).is_file():
        raise ValueError(f"{csv}: expected {wanted}, found no file")
    table = schema.csv(csv, COLUMNS, f"{wanted}; a label with a comma in quotes")
    if unknown := [c for c in table if c not in COLUMNS]:
        raise ValueError(f"{csv}, line 1: unknown columns {unknown}; expected {wanted}")

    def fail(bad: pd.Series, what) -> None:
        if bad.any():
            row = int(bad.idxmax())
            raise ValueError(f"{csv}, line {row + 2}: {what(table.loc[row])}")

    fail(table["path"].str.strip() == "", lambda r: f"path must not be empty; got {r['path']!r}")
    table = schema.spans(table, csv, outside)
    fail(
        table["label"].str.strip() == "",
        lambda r: (
            "label must be a verb and what it is done to, such as 'pick up cup'; "
            f"got {r['label']!r}"
        ),
    )
    fail(
        ~table["split"].isin(SPLITS),
        lambda r: f"split must be one of {SPLITS}; got {r['split']!r}",
    )
    for split in ("train", "test"):
        if split not in set(table["split"]):
            found = table["split"].value_counts().to_dict()
            raise ValueError(f"{csv}: split {split!r} is empty; found {found}")
    table = table.rename(columns={"path": "video"}).assign(group=lambda t: t["video"])
    schema.disjoint(table, csv)
    return table


def split_label(label: str, verbs: list[str]) -> tuple[str, str]:
    """Verb and object of a label: the longest known verb it starts with, else its first word."""
    label = " ".join(label.split())
    known = [v for v in verbs if label == v or label.startswith(f"{v} ")]
    verb = max(known, key=len) if known else label.split(" ")[0]
    return verb, label[len(verb) :].strip()


def task(table: pd.DataFrame, encode, trees: str | Path | None = None, m: int = 6) -> Task:
    """Base and novel actions of a user's table, with trees and ten or fewer test names per class.

    Args:
        table: From `read`.
        encode: Strings to unit features; used to make trees where no file is given.
        trees: A tree file with every verb of the labels; None makes trees of the nearest words of
            the shipped lexicon, which know nothing of the sense and are fit for a first look only.
        m: Children per node of trees made here.

    Raises:
        ValueError: A tree file that lacks a verb of the labels; names file and label.
    """
    lexicon = Trees.load("ata").lexicon()
    given = Trees.load(trees) if trees is not None else None
    known = list(given.words) if given else lexicon
    pairs = {label: split_label(label, known) for label in dict.fromkeys(table["label"])}
    if given:
        for label, (verb, _) in pairs.items():
            if verb not in given.words:
                row = int(table.index[table["label"] == label][0])
                raise ValueError(
                    f"{trees}: no tree for label {label!r} (line {row + 2} of the csv); "
                    f"expected it to start with one of {sorted(given.words)}, or add one"
                )
    chosen = given or nearest_trees(
        "nearest words", dict.fromkeys(v for v, _ in pairs.values()), lexicon, encode, m
    )
    seen = dict.fromkeys(table.loc[table["split"] == "train", "label"])
    base = tuple(pairs[x] for x in seen)
    novel = tuple(
        pairs[x]
        for x in dict.fromkeys(table.loc[table["split"] == "test", "label"])
        if x not in seen
    )
    runs = (
        tuple(tuple(chosen.children(v)[r] for v, _ in novel) for r in range(min(10, chosen.m)))
        if novel
        else ()
    )
    return Task("own clips", base, novel, runs, chosen, classes_of(base, novel))
