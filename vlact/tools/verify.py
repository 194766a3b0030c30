"""`make verify`: what a run left, compared with the published numbers, on any machine.

On the same kind of processor with the same versions every file is equal, byte for byte. Elsewhere
videos are other bytes and training drifts apart, so there

- what needs no training (`UNTRAINED`) is equal to 1e-6,
- a trained number lies where the published run's seeds let a new run of as many seeds lie: a t test
  of the difference on the standard deviation pooled over a column of a table, Holm over all
  numbers, at `LEVEL`; fewer than `FEWEST_SEEDS` seeds make no such test,
- no decided verdict of the ledger is reversed.

Everywhere the published ledger is made anew from the published score tables, and has to be equal.

    python -m vlact.tools.verify PROFILE [--write]

Exit code 0: as published, 1: not, 2: nothing to compare with.

`--write` keeps the numbers of data/<profile>/figures as the reference of a profile that is
not published: figures/<profile>.csv.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from vlact import ROOT, params
from vlact.params import Params
from vlact.report import claims
from vlact.report.results.common import FOLDER as SCORES
from vlact.report.tables import FEWEST_SEEDS, write_text
from vlact.report.verdicts import DECIDED
from vlact.tools import provenance
from vlact.tools.dag import parameters

UNTRAINED = ("worlds", "trees", "synta", "plans")  # stages
LEVEL = 0.05  # of all tests together
CLOSE = 1e-6
HALF_A_DIGIT = 0.0051  # of the ledger's parts, which are printed with two
CELL = r"^\s*([+-]?\d+(?:\.\d+)?)(?: ± (\d+(?:\.\d+)?))?\s*$"
COLUMNS = ["file", "row", "column", "value", "sd"]


def numbers(folder: Path) -> pd.DataFrame:
    """Every number of the tables of a run.

    Args:
        folder: data/<profile>/figures or figures/<profile>.

    Returns:
        `file`, `row` (number), `column`, `value` and, where it is printed, `sd` over seeds.
    """
    found = []
    for path in sorted(folder.glob("*/*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for column in table:
            parts = table[column].str.extract(CELL).astype(float)
            part = pd.DataFrame({"row": parts.index, "value": parts[0], "sd": parts[1]})
            name = path.relative_to(folder).as_posix()
            found.append(part.dropna(subset="value").assign(file=name, column=column))
    return pd.concat(found, ignore_index=True)[COLUMNS] if found else pd.DataFrame(columns=COLUMNS)


def reference(profile: str) -> tuple[pd.DataFrame, dict]:
    """Published numbers of a profile, and the machine of each stage.

    Raises:
        FileNotFoundError: There are none.
    """
    folder, kept = ROOT / "figures" / profile, ROOT / "figures" / f"{profile}.csv"
    if (folder / "run.json").is_file():
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))["stages"]
        return numbers(folder), {stage: note.get("machine") for stage, note in run.items()}
    if kept.is_file():
        head, _, text = kept.read_text(encoding="utf-8").partition("\n")
        from io import StringIO

        return pd.read_csv(StringIO(text)), {"": json.loads(head.removeprefix("# "))}
    raise FileNotFoundError(
        f"nothing to compare with: figures/{profile} and figures/{profile}.csv are not there; "
        "profiles with a reference are study and smoke"
    )


def compare(ours: pd.DataFrame, theirs: pd.DataFrame, same: set[str], seeds: int) -> pd.DataFrame:
    """One row a number: how it was compared and whether it is as published.

    Args:
        ours, theirs: From `numbers`.
        same: Stages that were run on a machine like this one.
        seeds: Of either run.

    Returns:
        The columns of `theirs`, `here`, `how` ("equal", "to 1e-6", "interval", "not compared") and
        `good`.
    """
    from scipy.stats import t

    keys = ["file", "row", "column"]
    both = theirs.merge(
        ours[[*keys, "value"]].rename(columns={"value": "here"}), on=keys, how="left"
    )
    stage = both["file"].str.split("/").str[0]
    gap = (both["here"] - both["value"]).abs()
    both["how"] = np.select(
        [stage.isin(same), stage.isin(UNTRAINED), both["sd"].notna() & (seeds >= FEWEST_SEEDS)],
        ["equal", "to 1e-6", "interval"],
        "not compared",
    )
    # one spread for a column: a single one, of five seeds, is itself a guess
    pooled = (both["sd"] ** 2).groupby([both["file"], both["column"]]).transform("mean") ** 0.5
    rows = both["sd"].notna().groupby([both["file"], both["column"]]).transform("sum")
    error = pooled * np.sqrt(2 / seeds)
    p = 2 * t.sf(gap / error.clip(lower=CLOSE), rows * (seeds - 1))
    # a number that is missing here is not as published
    p = np.where(both["here"].isna(), 0.0, p)
    tested = np.flatnonzero(both["how"] == "interval")
    order = tested[np.argsort(p[tested])]
    bar = LEVEL / (len(order) - np.arange(len(order)))  # Holm
    passed = np.logical_or.accumulate(p[order] > bar) if len(order) else np.array([], bool)
    good = (both["here"].notna() & (gap <= CLOSE)).to_numpy(copy=True)
    good[order] = passed
    both["good"] = good | (both["how"] == "not compared").to_numpy()
    return both


def reversed_verdicts(ours: Path, theirs: Path) -> list[str]:
    """Claims that are decided in both ledgers, one way here and the other way there, on sign or on
    size.
    """
    if not (ours.is_file() and theirs.is_file()):
        return []
    here, there = (pd.read_csv(f).set_index("id") for f in (ours, theirs))
    found = []
    for column in ("verdict", "size"):
        if column in here and column in there:
            a, b = (t[column][t[column].isin(DECIDED)] for t in (here, there))
            both = b.index.intersection(a.index)
            found += [x + " size" * (column == "size") for x in both if a[x] != b[x]]
    return found


def unfounded(folder: Path, p: Params) -> list[str]:
    """Parts of a published ledger that the score tables beside it do not give.

    Args:
        folder: Of published tables and figures.
        p: Parameters of the run.

    Returns:
        Claim and part; none where no scores are kept.
    """
    path = folder / "claims" / "claims_parts.csv"
    if not (path.is_file() and any(folder.glob(f"*/{SCORES}/*.parquet"))):
        return []
    ours = claims.measure(p, folder)
    theirs = pd.read_csv(path, na_values="–", keep_default_na=False)
    keys, values = ["id", "part"], ["mean", "low", "high"]
    both = theirs.merge(ours, on=keys, how="outer", suffixes=("", " anew"), indicator="where")
    equal = both["where"] == "both"
    for value in values:
        here, there = both[value].astype(float), both[f"{value} anew"].astype(float)
        equal &= np.isclose(here, there, atol=HALF_A_DIGIT, rtol=0, equal_nan=True)
    return [f"{x.id}, {x.part}" for x in both[~equal].itertuples()]


def verify(profile: str) -> int:
    """Print what was compared and how; see the module for the exit code."""
    folder = ROOT / "data" / profile / "figures"
    try:
        theirs, machines = reference(profile)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    if not (folder / "index.csv").is_file():
        said = (
            f"{folder.relative_to(ROOT)}/index.csv is not there; run `make repro PROFILE={profile}`"
        )
        print(said, file=sys.stderr)
        return 2
    here = provenance.machine()
    stages = set(theirs["file"].str.split("/").str[0])
    same = {s for s in stages if machines.get(s, machines.get("")) == here}
    found = compare(numbers(folder), theirs, same, len(parameters()["profiles"][profile]["seeds"]))
    kinds = found.groupby("how")["good"].agg(["size", "sum"])
    print(f"{profile}: {len(same)} of {len(stages)} stages were published from a machine like this")
    for how, row in kinds.iterrows():
        said = f"{row['sum']} as published" if how != "not compared" else "no spread over seeds"
        print(f"{how:>13}: {row['size']:5} numbers, {said}")
    wrong = found[~found["good"]]
    for row in wrong.head(20).itertuples():
        print(f"  {row.file}, row {row.row}, {row.column}: published {row.value}, here {row.here}")
    turned = reversed_verdicts(
        folder / "claims" / "claims.csv", ROOT / "figures" / profile / "claims" / "claims.csv"
    )
    print(f"decided verdicts that are reversed: {', '.join(turned) or 'none'}")
    astray = unfounded(ROOT / "figures" / profile, params.load(profile))
    print(f"parts of the ledger that its score tables do not give: {'; '.join(astray) or 'none'}")
    return int(len(wrong) > 0 or bool(turned) or bool(astray))


def write(profile: str) -> int:
    """Keep the numbers of a run's tables as the reference of a profile that is not published."""
    folder = ROOT / "data" / profile / "figures"
    found = numbers(folder)
    # numbers behind figures are many; tables are also written for LaTeX
    tables = found["file"].map(lambda x: (folder / x).with_suffix(".tex").is_file())
    table = found[tables].to_csv(index=False, lineterminator="\n")
    write_text(
        ROOT / "figures" / f"{profile}.csv", f"# {json.dumps(provenance.machine())}\n{table}"
    )
    return 0


def main(arguments: list[str]) -> int:
    if len(arguments) == 1:
        return verify(arguments[0])
    if len(arguments) == 2 and arguments[1] == "--write":
        return write(arguments[0])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
