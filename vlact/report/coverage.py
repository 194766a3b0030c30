"""How often intervals hold the truth, over simulated studies whose truth is known."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vlact.report.statistics import LEVEL, mean_error
from vlact.runtime.extras import needs

with needs("vlact.report.coverage"):
    from scipy import stats

TRUTH = 1.0  # the effect that every study looks for
RESAMPLED = 500  # studies for the slow methods
DRAWS = 500  # resamples of a study


@dataclass(frozen=True)
class Design:
    """A kind of study.

    Attributes:
        sizes: Units of each crossed random factor.
        spread: Standard deviation of each factor, then that of their interaction.
        nested: Runs within each cell, with `within` as their standard deviation.
        skewed: Whether the first factor's deviations are exponential instead of normal.
    """

    name: str
    sizes: tuple[int, ...]
    spread: tuple[float, ...]
    nested: int = 1
    within: float = 0.0
    skewed: bool = False


DESIGNS = (
    *(Design(f"{n} seeds", (n,), (1.0,)) for n in (5, 6, 10, 20)),
    *(Design(f"{n} seeds, skewed", (n,), (1.0,), skewed=True) for n in (5, 10, 20)),
    Design("6 encoders with 3 seeds each", (6,), (1.0,), nested=3, within=1.5),
    Design("5 encoders with 2 seeds each", (5,), (1.0,), nested=2, within=1.5),
    Design("5 seeds × 40 recordings", (5, 40), (1.0, 3.0, 3.0)),
    Design("10 seeds × 40 recordings", (10, 40), (1.0, 3.0, 3.0)),
    Design("5 seeds × 40 recordings, seeds alike", (5, 40), (0.2, 3.0, 3.0)),
    Design("12 models × 5 seeds", (12, 5), (3.0, 0.5, 2.0)),
    Design("5 seeds × 4 folds", (5, 4), (1.5, 1.5, 1.5)),
    Design("10 seeds × 4 folds", (10, 4), (1.5, 1.5, 1.5)),
    Design("5 seeds × 4 folds, noise alone", (5, 4), (0.0, 0.0, 1.5)),
)


def simulate(design: Design, studies: int, rng: np.random.Generator) -> np.ndarray:
    """Paired differences of many studies, (studies, n1, .., nk), nested runs averaged."""
    k = len(design.sizes)
    y = np.full((studies, *design.sizes), TRUTH)
    for axis, (n, deviation) in enumerate(zip(design.sizes, design.spread[:k], strict=True)):
        shape = [studies] + [n if i == axis else 1 for i in range(k)]
        skewed = design.skewed and axis == 0
        drawn = rng.exponential(size=shape) - 1 if skewed else rng.normal(size=shape)
        y = y + deviation * drawn
    if k > 1:
        y = y + design.spread[k] * rng.normal(size=y.shape)
    runs = design.within * rng.normal(size=(*y.shape, design.nested))
    return y + runs.mean(-1)


def t_interval(y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The interval of `vlact.report.statistics`."""
    axes = tuple(range(1, y.ndim))
    se, df = mean_error(y, len(axes))
    half = stats.t.ppf(1 - LEVEL / 2, df) * se
    return y.mean(axes) - half, y.mean(axes) + half


def percentile(y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles of a bootstrap that draws the units of all crossed factors."""
    drawn = np.broadcast_to(y[:, None], (len(y), DRAWS, *y.shape[1:]))
    for n in y.shape[1:]:
        weights = rng.multinomial(n, np.full(n, 1 / n), size=(len(y), DRAWS)) / n
        # the first factor that is left is summed out with the units' weights
        drawn = np.einsum("sdn,sdn...->sd...", weights, drawn)
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2], axis=1)
    return low, high


def accelerated(y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bias-corrected and accelerated (BCa) bootstrap over one factor; nan over several."""
    if y.ndim > 2:
        return (np.full(len(y), np.nan),) * 2
    found = stats.bootstrap((y,), np.mean, axis=-1, n_resamples=DRAWS, rng=rng).confidence_interval
    return found.low, found.high


METHODS = {"t": t_interval, "percentile": percentile, "BCa": accelerated}


def coverage(
    studies: int = 10_000, seed: int = 0, methods: tuple[str, ...] = tuple(METHODS)
) -> pd.DataFrame:
    """Percent of studies whose 95 % interval holds the truth; of `RESAMPLED` by the slow methods.

    Returns:
        One row a design of `DESIGNS`: `design`, a column a method, `t width` (the mean
        width of the t interval, in units of the effect).
    """
    rows = []
    for number, design in enumerate(DESIGNS):
        rng = np.random.default_rng([seed, number])
        y = simulate(design, studies, rng)
        row = {"design": design.name}
        for name in methods:
            low, high = METHODS[name](y if name == "t" else y[:RESAMPLED], rng)
            held = (low <= TRUTH) & (high >= TRUTH)
            row[name] = np.nan if np.isnan(low).all() else 100 * held.mean()
            if name == "t":
                row["t width"] = (high - low).mean()
        rows.append(row)
    return pd.DataFrame(rows)
