"""How large a study a claim needs, from the variance components of a table of scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod, sqrt

import numpy as np
import pandas as pd

from vlact.report.statistics import (
    LEVEL,
    POWER,
    Effect,
    ScoreFault,
    cells,
    components,
    noncentrality,
)

MOST = 10_000  # units of a factor; more are not looked for
RUNS = "runs within"  # rows of one cell: clips, or fine-tuning seeds of one pretrained encoder


@dataclass(frozen=True)
class Spread:
    """Where the differences of a study vary.

    Attributes:
        factors: Names of the crossed random factors.
        sizes: How many units each has, then the rows within a cell.
        variances: Of each factor and interaction, by the factors' numbers.
        within: Variance of the rows of one cell around its mean.
    """

    factors: tuple[str, ...]
    sizes: tuple[int, ...]
    variances: Mapping[tuple[int, ...], float]
    within: float

    def error(self, sizes: Sequence[int]) -> tuple[float, float]:
        """Standard error to expect of the mean, and its degrees of freedom, at other sizes."""
        *n, runs = sizes
        numbers = range(len(n))
        parts = dict(self.variances)
        parts[tuple(numbers)] += self.within / runs
        groups = [g for k in numbers for g in combinations(numbers, k + 1)]
        # what each mean square is on average at these sizes
        squares = {
            group: sum(
                variance * prod(n[i] for i in numbers if i not in larger)
                for larger, variance in parts.items()
                if set(group) <= set(larger)
            )
            for group in groups
        }
        total = sum((-1) ** (len(g) + 1) * square for g, square in squares.items())
        # these are true mean squares, not estimates, so Satterthwaite's formula needs no mending
        spread = sum(square**2 / prod(n[i] - 1 for i in g) for g, square in squares.items())
        df = total**2 / spread if spread > 0 else min(n) - 1
        return sqrt(total / prod(n)), max(df, min(n) - 1)

    def detectable(
        self, sizes: Sequence[int] = (), level: float = LEVEL, power: float = POWER
    ) -> float:
        """The smallest effect found with probability `power`; at the table's sizes if none are
        given.
        """
        error, df = self.error(sizes or self.sizes)
        return error * noncentrality(df, level, power)

    def needed(self, number: int, effect: float, level: float = LEVEL) -> int | None:
        """Units of one factor (or rows within a cell, the last number) that find `effect` with
        the other sizes as they are; None where `MOST` are too few.
        """

        def finds(units: int) -> bool:
            sizes = [units if i == number else n for i, n in enumerate(self.sizes)]
            return self.detectable(sizes, level) <= effect

        few, many = 1 if number == len(self.factors) else 2, MOST
        if not finds(many):
            return None
        # more units never find less, so halve the span
        while few < many:
            middle = (few + many) // 2
            few, many = (few, middle) if finds(middle) else (middle + 1, many)
        return few


def spread(values: pd.Series, random: Sequence[str], name: str = "scores") -> Spread:
    """Variance components of paired differences.

    Args:
        values, random: As in `vlact.report.statistics.effect`.

    Raises:
        ScoreFault: As there; one unit only of a factor.
    """
    y = cells(values, random, name)
    if min(y.shape) < 2:
        raise ScoreFault(f"{name}: components ask for two units a factor; got {y.shape}")
    inside = values.groupby(list(random))
    rows = int(inside.size().iloc[0])
    within = float(inside.var(ddof=1).mean()) if rows > 1 else 0.0
    variances = components(y, y.ndim)
    whole = tuple(range(y.ndim))
    # the cells' means vary also because their rows do
    variances[whole] = max(0.0, variances[whole] - within / rows)
    return Spread(tuple(random), (*y.shape, rows), variances, within)


def plan(found: Spread, effect: float, level: float = LEVEL) -> pd.DataFrame:
    """What more of each factor buys.

    Args:
        effect: True effect that is to be found, in the scores' unit, above 0.

    Returns:
        `factor, now, standard deviation, detects now, detects at twice, needed` (units of it that
        find the effect with the others as they are; "never" where no number does).

    Raises:
        ValueError: An effect that is not above 0.
    """
    if not effect > 0:
        raise ValueError(f"effect to find: expected a number above 0; got {effect}")
    rows = []
    for number, (factor, now) in enumerate(zip((*found.factors, RUNS), found.sizes, strict=True)):
        if factor == RUNS and now == 1:
            continue
        twice = [2 * n if i == number else n for i, n in enumerate(found.sizes)]
        own = found.within if factor == RUNS else found.variances[number,]
        rows.append(
            {
                "factor": factor,
                "now": now,
                "standard deviation": sqrt(own),
                "detects now": found.detectable(level=level),
                "detects at twice": found.detectable(twice, level),
                "needed": found.needed(number, effect, level) or "never",
            }
        )
    return pd.DataFrame(rows)


def seeds_for(found: Effect, size: float, level: float = LEVEL) -> int | None:
    """Seeds that find a true effect of `size`, of an effect over one factor; None: over `MOST`."""
    ((factor, n),) = found.units.items()
    alone = Spread((factor,), (n, 1), {(0,): found.se**2 * n}, 0.0)
    return alone.needed(0, size, level)


def share(found: Spread) -> pd.Series:
    """Percent of the mean's variance that each factor, interaction and row within accounts for."""
    *n, runs = found.sizes
    numbers = range(len(n))
    parts = {
        " × ".join(found.factors[i] for i in group): variance / prod(n[i] for i in group)
        for group, variance in found.variances.items()
    }
    parts[RUNS] = found.within / (prod(n[i] for i in numbers) * runs)
    shares = pd.Series(parts)
    return 100 * shares / shares.sum() if shares.sum() > 0 else shares * np.nan
