"""What the results on real video share: published tables, and claims as they can be asked there.

A claim's parts are differences that it says are above zero. A stage keeps them as
`scores/claims.csv`, from which the ledger makes its second verdict. Rivals and sizes stand in
`published/claims_parts_real.csv`; a size is the mean over the datasets that the paper prints it
for.
"""

import pandas as pd

from vlact import ROOT
from vlact.params import Params
from vlact.report.results.common import FOLDER, NONE
from vlact.report.tables import write_text

PROFILE = "real"
COLUMNS = ["id", "part", "what", "value"]


def published(p: Params, stage: str, name: str) -> pd.DataFrame:
    """A table of a stage on real data: this run's in profile `real`, else that of the published run
    (`figures/real`); no row where there is neither.
    """
    shown = ROOT / "figures" / PROFILE / stage / f"{stage}_{name}.csv"
    path = p.data / stage / f"{name}.csv" if p.profile == PROFILE else shown
    return pd.read_csv(path, na_values=NONE) if path.is_file() else pd.DataFrame()


def keep_claims(p: Params, stage: str, table: pd.DataFrame) -> None:
    """Write a stage's differences beside its tables."""
    path = p.results(stage) / FOLDER / "claims.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = table.to_csv(index=False, lineterminator="\n", float_format="%.6f")
    write_text(path, text)


def of_claim(name: str, part: str, what: str, values: pd.Series) -> pd.DataFrame:
    """A part of a claim: a row a unit, the factors as columns."""
    given = {"id": name, "part": part, "what": what}
    return values.rename("value").reset_index().assign(**given)


def below(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Parts below each other, the fixed columns first; without a part there are no rows."""
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    found = pd.concat(parts, ignore_index=True)
    return found[COLUMNS + [c for c in found if c not in COLUMNS]]
