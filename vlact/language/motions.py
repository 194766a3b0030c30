"""Coarse motions and the contexts they are seen in: the taxonomies of the motion-transfer
benchmark, as published.

A coarse class has several fine ones, each the motion in one context; the fine classes fall into two
sets that share all coarse classes. Which coarse class a fine one belongs to is given for Syn-TA;
for SSv2-TA it is its first word, and for K400-TA it follows from the order of the published lists.
"""

from pathlib import Path

import pandas as pd

FILE = Path(__file__).parent / "motions.csv"
COLUMNS = ("set", "fine_id", "fine", "coarse_id", "coarse")
SETS = (1, 2)


def taxonomy(dataset: str, path: Path = FILE) -> pd.DataFrame:
    """All fine classes of a dataset.

    Args:
        dataset: "Syn-TA", "K400-TA", "SSv2-TA", or what stands under `dataset` in a file of one's
            own.
        path: csv with the columns `dataset` and `COLUMNS`.

    Returns:
        `COLUMNS`, and for Syn-TA `number`, the class's number within its coarse class. Fine ids
        start at 0 in both sets.

    Raises:
        ValueError: No such dataset, or what `check` finds.
    """
    table = pd.read_csv(path, keep_default_na=False)
    found = table[table["dataset"] == dataset].drop(columns="dataset").reset_index(drop=True)
    if found.empty:
        raise ValueError(
            f"{path}: no dataset {dataset!r}; expected one of {sorted(table['dataset'].unique())}"
        )
    check(found, f"{path}: {dataset}")
    return found


def check(table: pd.DataFrame, where: str) -> None:
    """Whether a taxonomy can serve.

    Raises:
        ValueError: Sets other than 1 and 2, a fine class without a coarse parent or in both sets,
            ids that are not 0, 1, .. of each set, one coarse id with two names, or a coarse class
            that one set lacks.
    """
    if missing := [c for c in COLUMNS if c not in table]:
        raise ValueError(f"{where}: missing columns {missing}; expected {', '.join(COLUMNS)}")
    if tuple(sorted(table["set"].unique())) != SETS:
        raise ValueError(
            f"{where}: expected sets 1 and 2, got {sorted(table['set'].unique().tolist())}"
        )
    bare = table[
        (table["coarse"].astype(str) == "")
        | pd.to_numeric(table["coarse_id"], errors="coerce").isna()
    ]
    if len(bare):
        raise ValueError(
            f"{where}: the fine class {bare['fine'].iloc[0]!r} (set {bare['set'].iloc[0]}) has no "
            "coarse class; give it one"
        )
    both = set(table.loc[table["set"] == 1, "fine"]) & set(table.loc[table["set"] == 2, "fine"])
    if both:
        raise ValueError(
            f"{where}: the sets overlap in {len(both)} fine classes, for example "
            f"{sorted(both)[0]!r}; leave it in one"
        )
    for which, part in table.groupby("set"):
        if sorted(part["fine_id"]) != list(range(len(part))):
            raise ValueError(
                f"{where}: fine ids of set {which} must be 0..{len(part) - 1}, each once"
            )
    names = table.groupby("coarse_id")["coarse"].unique()
    if (two := names[names.map(len) > 1]).size:
        raise ValueError(
            f"{where}: coarse id {two.index[0]} has several names: {list(two.iloc[0])}"
        )
    lacking = table.groupby("coarse")["set"].nunique()
    if (lacking < len(SETS)).any():
        raise ValueError(
            f"{where}: the coarse class {lacking[lacking < len(SETS)].index[0]!r} has fine "
            "classes in one set only"
        )


def coarse_names(table: pd.DataFrame) -> list[str]:
    """Coarse classes in the order of their ids."""
    return table.drop_duplicates("coarse_id").sort_values("coarse_id")["coarse"].tolist()


def fine_names(table: pd.DataFrame, which: int) -> list[str]:
    """Fine classes of a set in the order of their ids."""
    return table[table["set"] == which].sort_values("fine_id")["fine"].tolist()
