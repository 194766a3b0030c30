"""How many seeds, folds or test items a claim needs, from a csv or parquet of scores.

    python -m vlact.tools.power SCORES --random seed video --by method ACE ProcVLR --effect 3

One row a score. `--random` names the factors that the claim generalises over; other columns that
tell rows apart, such as a fine-tuning seed within an encoder, go to `--within`. With `--by` the
second method is taken from the first, row by row; without it `--value` is a difference already.

Exit code 0: printed, 2: the table is not fit for it, said in a line.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from vlact.report import power
from vlact.report.statistics import LEVEL, POWER, paired


def parser() -> argparse.ArgumentParser:
    said = argparse.ArgumentParser(prog="vlact.tools.power", description=__doc__.splitlines()[0])
    said.add_argument("scores", type=Path, help="csv or parquet, one row a score")
    said.add_argument("--random", nargs="+", default=["seed"], help="crossed random factors")
    said.add_argument("--within", nargs="*", default=[], help="columns nested in them")
    said.add_argument("--value", default="value", help="column of the score")
    said.add_argument("--by", nargs=3, metavar=("COLUMN", "OURS", "OTHER"), help="what is compared")
    said.add_argument("--where", nargs="*", default=[], metavar="COLUMN=VALUE", help="rows to keep")
    said.add_argument(
        "--effect", type=float, required=True, help="effect to find, in the score's unit"
    )
    said.add_argument(
        "--level", type=float, default=LEVEL, help="over the parts of a claim together"
    )
    said.add_argument("--parts", type=int, default=1, help="parts of the claim; Holm's first step")
    return said


def differences(asked: argparse.Namespace) -> pd.Series:
    """The scores that were asked for, by factor.

    Raises:
        ValueError: A column or value that the table does not have, methods that do not pair.
    """
    table = (
        pd.read_parquet(asked.scores)
        if asked.scores.suffix == ".parquet"
        else pd.read_csv(asked.scores)
    )
    factors, by = [*asked.random, *asked.within], asked.by or []
    conditions = [x.partition("=")[::2] for x in asked.where]
    wanted = [*factors, asked.value, *by[:1], *(column for column, _ in conditions)]
    if lacking := [c for c in wanted if c not in table]:
        raise ValueError(f"{asked.scores}: no column {lacking}; there are {list(table)}")
    for column, value in [*conditions, *((by[0], v) for v in by[1:])]:
        if value not in (there := sorted(table[column].astype(str).unique())):
            raise ValueError(f"{asked.scores}, {column}: no {value!r}; there are {there[:10]}")
    for column, value in conditions:
        table = table[table[column].astype(str) == value]
    if not by:
        return table.set_index(factors)[asked.value].astype(float)
    ours, other = (
        table[table[by[0]].astype(str) == name].set_index(factors)[asked.value].astype(float)
        for name in by[1:]
    )
    return paired(ours, other, by[1:])


def main(arguments: list[str]) -> int:
    asked = parser().parse_args(arguments)
    try:
        values = differences(asked)
        found = power.spread(values, asked.random, str(asked.scores))
        level = asked.level / asked.parts
        plan = power.plan(found, asked.effect, level)
    except (ValueError, OSError) as error:
        print(f"power: {error}", file=sys.stderr)
        return 2
    error, df = found.error(found.sizes)
    print(
        f"mean {values.mean():+.3g}, standard error {error:.3g}, {df:.3g} degrees of freedom; at "
        f"level {level:.3g} the table finds {found.detectable(level=level):.3g} in {POWER:.0%} of "
        "studies"
    )
    print(
        "share of the mean's variance: "
        + ", ".join(f"{name} {value:.0f} %" for name, value in power.share(found).items())
    )
    print(f"needed to find {asked.effect:g}, one factor at a time, the others as they are:")
    print(plan.to_string(index=False, float_format="{:.3g}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
