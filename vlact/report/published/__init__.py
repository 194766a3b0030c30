"""Numbers as the papers print them (percent), one csv a table: facts, no results of ours."""

from pathlib import Path

import pandas as pd


def read(table: str) -> pd.DataFrame:
    """A published table such as "ace_table1", in long format.

    Columns: `dataset, setting, method, split, metric, mean, std, ..`; mean and std in percent.

    Raises:
        ValueError: No such table; names those there are.
    """
    path = Path(__file__).parent / f"{table}.csv"
    if not path.is_file():
        raise ValueError(
            f"{table}: no such published table; expected one of "
            f"{sorted(p.stem for p in path.parent.glob('*.csv'))}"
        )
    return pd.read_csv(path)
