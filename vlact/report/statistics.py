"""What a table of scores says about a difference: interval, test, power, faults.

Scores are repeated over factors: pretraining seeds, fine-tuning seeds, folds, test recordings. The
factors over which a sentence generalises are *random*. They are crossed (each seed meets each
recording); whatever is nested in one of them (three fine-tuning seeds of one pretrained encoder,
clips of one fold) is averaged within it, so that the outermost units carry the uncertainty.

The interval of a mean is a t interval. Its variance comes from the mean squares of the crossed
factors, its degrees of freedom are Satterthwaite's; with one random factor that is the paired t
test. `vlact.report.coverage` shows why: over five seeds a percentile bootstrap covers 84 %.

Sources: F. E. Satterthwaite, An approximate distribution of estimates of variance components,
Biometrics 1946; A. B. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007; S. Holm,
A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod, sqrt

import numpy as np
import pandas as pd

from vlact.report.tables import FEWEST_SEEDS
from vlact.runtime.extras import needs

with needs("vlact.report.statistics"):
    from scipy import special, stats

LEVEL = 0.05  # share of claims without an effect for which one may be found
POWER = 0.80  # with which an effect is to be found
SAME = 1e-9  # relative difference of numbers that are one but for rounding


class ScoreFault(ValueError):
    """A score table that no verdict may be drawn from; the message names table and rows."""


@dataclass(frozen=True)
class Effect:
    """A mean difference and what is known about it.

    Attributes:
        mean, se: In the scores' unit; `se` is above 0.
        df: Degrees of freedom of the standard error.
        units: How many units of each random factor, such as {"seed": 5}.
        wins: Units of the first factor whose own mean is above 0.
    """

    mean: float
    se: float
    df: float
    units: Mapping[str, int]
    wins: int = 0

    @classmethod
    def of_interval(cls, mean: float, low: float, high: float, n: int, over: str) -> "Effect":
        """From a printed 95 % t interval over `n` units, for tables whose scores are gone."""
        half = (high - low) / 2
        if n < 2 or not half > 0:
            raise ScoreFault(f"an interval of positive width over >= 2 {over}s; got {low}, {high}")
        return cls(mean, half / stats.t.ppf(0.975, n - 1), n - 1.0, {over: n})

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Low and high of the interval that misses the truth in `level` of studies."""
        half = stats.t.ppf(1 - level / 2, self.df) * self.se
        return self.mean - half, self.mean + half

    def p(self, null: float = 0.0) -> float:
        """Two-sided p of the hypothesis that the true mean is `null`."""
        return float(2 * stats.t.sf(abs(self.mean - null) / self.se, self.df))

    def detectable(self, level: float = LEVEL, power: float = POWER) -> float:
        """The smallest true effect whose sign this design finds with probability `power`."""
        return self.se * noncentrality(self.df, level, power)

    @property
    def few(self) -> str:
        """The factor that has too few units to decide anything, as "2 seeds"; "" if none has."""
        factor, n = min(self.units.items(), key=lambda x: x[1])
        return f"{n} {factor}{'s' * (n != 1)}" if n < FEWEST_SEEDS else ""


def noncentrality(df: float, level: float = LEVEL, power: float = POWER) -> float:
    """Standard errors that a true effect must be from 0 to be found with probability `power`."""
    return float(special.nctdtrinc(df, 1 - power, stats.t.ppf(1 - level / 2, df)))


def mean_squares(y: np.ndarray, crossed: int) -> dict[tuple[int, ...], tuple[np.ndarray, int]]:
    """Mean square and degrees of freedom of each factor and each interaction.

    Args:
        y: (.., n1, .., nk), complete tables of `crossed` = k factors; leading axes are studies.

    Returns:
        By the factors' numbers, such as (0,), (1,), (0, 1): (mean squares (..), df).
    """
    axes = range(y.ndim - crossed, y.ndim)
    n = y.shape[y.ndim - crossed :]
    groups = [g for k in range(crossed + 1) for g in combinations(range(crossed), k)]
    margins = {
        g: y.mean(tuple(a for i, a in enumerate(axes) if i not in g), keepdims=True) for g in groups
    }
    found = {}
    for group in groups[1:]:
        # what is left of the margin once all smaller margins are taken out
        inside = [g for g in groups if set(g) <= set(group)]
        effect = sum((-1) ** (len(group) - len(g)) * margins[g] for g in inside)
        repeats = prod(size for i, size in enumerate(n) if i not in group)
        df = prod(n[i] - 1 for i in group)
        found[group] = (repeats * (effect**2).sum(tuple(axes)) / df, df)
    return found


def mean_error(y: np.ndarray, crossed: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard error of the mean over `crossed` random factors, and its degrees of freedom.

    Args:
        y: As in `mean_squares`; every factor has at least two units.

    Returns:
        se and df, both (..). Where interactions drown the factors, the variance is that of the
        largest factor: an interval may be too wide, never shorter than over one factor alone.
    """
    squares, n = mean_squares(y, crossed), y.shape[y.ndim - crossed :]
    single = np.max([squares[i,][0] for i in range(crossed)], axis=0)
    total = sum((-1) ** (len(g) + 1) * square for g, (square, _) in squares.items())
    total = np.maximum(total, single)
    df = satterthwaite(total, list(squares.values()), min(n) - 1)
    return np.sqrt(total / prod(n)), df


def satterthwaite(total, squares: Sequence[tuple], least: int):
    """Degrees of freedom of a sum of mean squares, at least `least`.

    A mean square of f degrees of freedom has (1 + 2 / f) σ⁴ as the mean of its square, hence the
    two that are added and taken away; for a single mean square the result is f.
    """
    spread = sum(square**2 / (df + 2) for square, df in squares)
    with np.errstate(invalid="ignore", divide="ignore"):  # a table of equal values has no spread
        return np.maximum(total**2 / spread - 2, least)


def components(y: np.ndarray, crossed: int) -> dict[tuple[int, ...], float]:
    """Variance components of one table, by factor and interaction; below 0 counts as 0."""
    squares, n = mean_squares(y, crossed), y.shape[y.ndim - crossed :]
    found: dict[tuple[int, ...], float] = {}
    for group in sorted(squares, key=len, reverse=True):
        # a mean square holds its own component and those of all interactions with it
        above = sum(
            variance * prod(n[i] for i in range(crossed) if i not in larger)
            for larger, variance in found.items()
            if set(group) < set(larger)
        )
        repeats = prod(n[i] for i in range(crossed) if i not in group)
        found[group] = max(0.0, (float(squares[group][0]) - above) / repeats)
    return found


def faults(values: pd.Series, random: Sequence[str]) -> list[str]:
    """What is wrong with a score table, each fault in words with its rows; [] if nothing is.

    Args:
        values: One score a row; the index has a named level for each factor.
        random: Its levels that are random factors; the others are nested in them.
    """
    if values.empty:
        return ["no rows"]
    found = []
    if lacking := [f for f in random if f not in values.index.names]:
        return [
            f"no column {', '.join(lacking)}; there are {', '.join(map(str, values.index.names))}"
        ]
    if len(bad := values.index[values.isna()]):
        found.append(f"no score at {_rows(bad)}")
    if len(twice := values.index[values.index.duplicated()].unique()):
        found.append(f"repeated: {_rows(twice)}")
    sizes = values[~values.index.duplicated()].groupby(list(random), sort=False).size()
    if len(random) > 1:
        whole = pd.MultiIndex.from_product(sizes.index.levels, names=list(random))
        if len(gone := whole.difference(sizes.index)):
            found.append(f"missing: {_rows(gone)}")
    if len(short := sizes.index[sizes < sizes.max()]):
        found.append(f"fewer rows than the {sizes.max()} of the others: {_rows(short)}")
    return found


def paired(
    ours: pd.Series, other: pd.Series, names: Sequence[str] = ("ours", "other")
) -> pd.Series:
    """ours − other, row by row.

    Raises:
        ScoreFault: A row that one of the two lacks, or has twice.
    """
    for series, name in zip((ours, other), names, strict=True):
        if len(twice := series.index[series.index.duplicated()].unique()):
            raise ScoreFault(f"{name}: repeated: {_rows(twice)}")
    said = [
        f"only {name} has {_rows(lone)}"
        for name, lone in (
            (names[0], ours.index.difference(other.index)),
            (names[1], other.index.difference(ours.index)),
        )
        if len(lone)
    ]
    if said:
        raise ScoreFault(f"{names[0]} and {names[1]} are not of the same items: {'; '.join(said)}")
    return ours - other.reindex(ours.index)


def cells(values: pd.Series, random: Sequence[str], name: str) -> np.ndarray:
    """Means by unit of each random factor, (n1, .., nk).

    Raises:
        ScoreFault: See `faults`.
    """
    if found := faults(values, random):
        raise ScoreFault(f"{name}: {'; '.join(found)}")
    means = values.groupby(list(random), sort=True).mean()
    shape = [means.index.get_level_values(f).nunique() for f in random]
    return means.to_numpy(float).reshape(shape)


def effect(values: pd.Series, random: Sequence[str] = ("seed",), name: str = "scores") -> Effect:
    """Mean of paired differences, as an estimate for all units of the random factors.

    Args:
        values: See `faults`.
        random: The crossed random factors, outermost units: ("seed",), ("seed", "video"), ..
        name: What the scores are of, for errors.

    Raises:
        ScoreFault: See `faults`; one unit only; all units alike, which is an interval of no width.
    """
    y = cells(values, random, name)
    units = dict(zip(random, y.shape, strict=True))
    if min(y.shape) < 2:
        raise ScoreFault(f"{name}: an interval asks for two units a factor; got {units}")
    if np.ptp(y) <= SAME * max(1.0, np.abs(y).max()):
        raise ScoreFault(
            f"{name}: all {y.size} differences are {y.flat[0]:g}, an interval of no "
            "width; look for runs that share a seed or a file"
        )
    se, df = mean_error(y, y.ndim)
    wins = int((y.mean(tuple(range(1, y.ndim))) > 0).sum())
    return Effect(float(y.mean()), float(se), float(df), units, wins)


def bootstrap(
    statistic: Callable[..., float], units: Mapping[str, int], draws: int = 1000, seed: int = 0
) -> Effect:
    """An effect that is no mean of rows, such as a difference of mAP or of a spread.

    The units of one random factor at a time are drawn with replacement, those of the others stay;
    the variances add up. Whatever is nested in a unit comes with it.

    Args:
        statistic: Called with an array of unit numbers for each factor, by its name.
        units: How many units each factor has, at least two each.

    Raises:
        ScoreFault: Fewer than two units of a factor, or a statistic that never changes.
    """
    if min(units.values()) < 2:
        raise ScoreFault(f"a bootstrap asks for two units a factor; got {dict(units)}")
    rng = np.random.default_rng(seed)
    whole = {factor: np.arange(n) for factor, n in units.items()}
    variances = {}
    for factor, n in units.items():
        found = [statistic(**whole | {factor: rng.integers(n, size=n)}) for _ in range(draws)]
        variances[factor] = np.var(found) * n / (n - 1)  # n draws of n units vary too little
    total = sum(variances.values())
    if not total > 0:
        raise ScoreFault(f"the statistic is the same in all draws of {', '.join(units)}")
    freedom = [(v, units[f] - 1) for f, v in variances.items()]
    df = satterthwaite(total, freedom, min(units.values()) - 1)
    return Effect(float(statistic(**whole)), sqrt(total), float(df), dict(units))


def signs(effects: Sequence[Effect], nulls: Sequence[float], level: float = LEVEL) -> list[int]:
    """+1 above its null, −1 below, 0 not decided, of each effect; Holm's correction over all."""
    p = np.array([e.p(null) for e, null in zip(effects, nulls, strict=True)])
    found = [0] * len(p)
    # from the surest on, each at the level shared by those that are left, until one fails
    for left, i in enumerate(np.argsort(p, kind="stable")):
        if p[i] > level / (len(p) - left):
            break
        found[i] = int(np.sign(effects[i].mean - nulls[i]))
    return found


def _rows(index: pd.Index, shown: int = 3) -> str:
    """Rows of an index in words, the first few of them."""
    rows = [
        ", ".join(
            f"{n} {v}"
            for n, v in zip(index.names, r if isinstance(r, tuple) else (r,), strict=True)
        )
        for r in index[:shown]
    ]
    more = f" and {len(index) - shown} more" if len(index) > shown else ""
    return "; ".join(rows) + more
