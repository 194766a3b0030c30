"""What the results of every paper share: score tables as files, pairs, changes in words.

A stage that makes results keeps its scores as small parquet files, `scores/<name>.parquet` beside
its tables: one row a method, seed and item (a clip, a class, an answer). Every reported number, the
ledger's too, is made from these alone.
"""

from pathlib import Path

import pandas as pd

from vlact.metrics.classification import paired_interval
from vlact.params import Params
from vlact.report import tables
from vlact.runtime.jobs import write_whole

FOLDER = "scores"
NONE = "–"  # where there is nothing to say


def keep(p: Params, stage: str, name: str, table: pd.DataFrame, keys: list[str]) -> None:
    """Write a score table beside the tables of a stage.

    Args:
        p: Whose workspace.
        stage: Folder below `p.figures`.
        name: Of the table.
        table: Its rows.
        keys: Columns that tell rows apart; text among them is stored once.

    Raises:
        ValueError: Two rows with the same keys.
    """
    twice = table[table.duplicated(keys)]
    if len(twice):
        row = twice.iloc[0][keys].to_dict()
        raise ValueError(f"{stage}, scores {name!r}: expected one row each; repeated is {row}")
    path = p.results(stage) / FOLDER / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda t, f: t.to_parquet(f, index=False, compression="zstd"), table)


def opened_alone(p: Params) -> bool:
    """Whether no pipeline runs the notebook, so that it makes what earlier ones would have kept."""
    return p.workspace != p.profile


class Scores:
    """Scores that the stages of a run kept, each table read when it is asked for.

    Args:
        p: The run's parameters.
        folder: Where its tables and figures are: those of the workspace, or published ones.
    """

    def __init__(self, p: Params, folder: Path | None = None):
        self.p, self.folder = p, folder or p.figures

    def kept(self, stage: str, name: str) -> bool:
        """Whether the stage kept such a table."""
        return (self.folder / stage / FOLDER / f"{name}.parquet").is_file()

    def scores(self, stage: str, name: str) -> pd.DataFrame:
        """A score table.

        Raises:
            FileNotFoundError: The stage did not keep it.
        """
        path = self.folder / stage / FOLDER / f"{name}.parquet"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: expected the scores that stage {stage!r} keeps; run "
                f"`make repro PROFILE={self.p.profile}`, or the stage's notebook"
            )
        return pd.read_parquet(path)


def paired(ours: pd.Series, theirs: pd.Series) -> dict | None:
    """Ours minus theirs over the seeds that both have, see `paired_interval`; None below two."""
    both = ours.index.intersection(theirs.index)
    return paired_interval(ours[both], theirs[both]) if len(both) > 1 else None


def change(found: dict | None, wins: str = "") -> str:
    """A paired difference in words, `wins` between its interval and the seeds won."""
    if found is None:
        return NONE
    text = f"{found['mean']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"
    return text + (f"{wins}{found['wins']}/{found['n']}" if wins else "")


def over_runs(table: pd.DataFrame, by: str, column: str) -> pd.DataFrame:
    """`mean` and `std` of a column, a row a value of `by`."""
    return table.groupby(by)[column].agg(["mean", "std"])


def interval(found: dict | None) -> str:
    """Both ends."""
    return f"[{found['low']:.1f}, {found['high']:.1f}]" if found else NONE


def spread(percent: pd.Series) -> str:
    """Mean ± standard deviation of percent over seeds; a dash for none."""
    return tables.spread(percent, 1) if len(percent) else NONE


def both_ways(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of `agg(["mean", "std"])` under one name each, the index as columns."""
    return table.set_axis(["_".join(c) for c in table], axis=1).reset_index()
