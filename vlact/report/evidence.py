"""What the papers' own tables say about the claims on many models and several datasets.

Models are the units there: a paper prints one number a model and no seeds. Differences over models
go through the same intervals as ours, correlations through Spearman's test; what is a statement
about an order or about the existence of a model is read off.
"""

from collections.abc import Callable, Iterator

import pandas as pd

from vlact.report import published
from vlact.report.statistics import LEVEL, effect, signs
from vlact.runtime.extras import needs

with needs("vlact.report.evidence"):
    from scipy.stats import spearmanr

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"
SYNTA, KINETICS, SOMETHING = DATASETS = ("Syn-TA", "K400-TA", "SSv2-TA")
LOSS = 20.0  # points, "about 20 points or more"


def table(number: int, metric: str, split: str = "", setting: str = "") -> pd.DataFrame:
    """A metric of one of the paper's tables by method and dataset.

    Args:
        number: 2 to 5.
        split, setting: What those columns begin with and contain.
    """
    rows = published.read(f"transfer_table{number}")
    rows = rows[(rows["metric"] == metric) & rows["split"].str.startswith(split)]
    rows = rows[rows["setting"].str.contains(setting, regex=True)]
    return rows.pivot_table(index="method", columns="dataset", values="mean")


def learners(metric: str, split: str = "") -> pd.DataFrame:
    """Table 2 without the methods for domain generalisation: 13 models."""
    return table(2, metric, split, "unimodal|multimodal")


def over_models(**differences: pd.Series) -> tuple[str, str]:
    """Verdict on differences that a claim says are above 0, Holm over them, and in words."""
    effects = [effect(x.rename_axis("model"), ["model"], n) for n, x in differences.items()]
    found = signs(effects, [0.0] * len(effects))
    words = [
        f"{name.replace('_', ' ')} {e.mean:+.1f} [{e.interval()[0]:+.1f}, {e.interval()[1]:+.1f}], "
        f"{e.wins}/{e.units['model']} models"
        for name, e in zip(differences, effects, strict=True)
    ]
    verdict = FAILS if -1 in found else HOLDS if all(f == 1 for f in found) else OPEN
    return verdict, "; ".join(words)


def size_and_transfer(dataset: str) -> tuple[float, float]:
    """Spearman's ρ of parameters and HM over 13 models, and its p."""
    hm = learners("HM")[dataset]
    sizes = published.read("transfer_sizes").set_index("model")["parameters_m"]
    found = spearmanr(sizes.loc[hm.index], hm)
    return float(found.statistic), float(found.pvalue)


def _t1() -> tuple[str, str]:
    drop = learners("D_abs")[SYNTA]
    return over_models(drop=drop, drop_less_20=drop - LOSS)


def _t2() -> tuple[str, str]:
    multimodal = table(3, "HM").index
    gaps = {
        name: (table(2, "acc", coarse).loc[multimodal] - table(3, "acc", fine))[SYNTA]
        for name, coarse, fine in (
            ("known", "CoarseMotion-KC", "FineMotion-K"),
            ("unknown", "CoarseMotion-UC", "FineMotion-U"),
        )
    }
    return over_models(**gaps)


def _t3() -> tuple[str, str]:
    hm = learners("HM")
    return over_models(**{"HM on K400-TA over Syn-TA": hm[KINETICS] - hm[SYNTA]})


def _t4() -> tuple[str, str]:
    return over_models(HM_plain_over_realistic=_plain("coarse"))


def _t5() -> tuple[str, str]:
    # one test decides, the other must not
    (space, p), (time, other) = (size_and_transfer(d) for d in (KINETICS, SOMETHING))
    found = HOLDS if p <= LEVEL / 2 and space > 0 and other > LEVEL else OPEN
    return (
        found,
        f"ρ of size and HM {space:.2f}, p {p:.3f} (K400); {time:.2f}, p {other:.2f} (SSv2)",
    )


def _t6() -> tuple[str, str]:
    best = table(3, "HM").idxmax()
    return HOLDS if best.is_unique else FAILS, ", ".join(f"{best[d]} on {d}" for d in DATASETS)


def _t8() -> tuple[str, str]:
    fine, coarse = table(3, "acc", "FineMotion-U"), table(2, "acc", "CoarseMotion-UC")
    gain = (fine - coarse.loc[fine.index])[KINETICS].sort_values()
    name = gain.index[-1]
    said = f"{name} {fine.loc[name, KINETICS]:.1f} fine, {coarse.loc[name, KINETICS]:.1f} coarse"
    return HOLDS if gain.iloc[-1] > 0 else FAILS, f"{said} (K400-TA, unknown)"


def _t9() -> tuple[str, str]:
    hm = table(2, "HM")[SYNTA].sort_values()
    said = ", ".join(f"{m} {v:.1f}" for m, v in hm[:-3:-1].items())
    return HOLDS if hm.index[-1] == "AIM" else FAILS, f"{said} (HM)"


def _t10() -> tuple[str, str]:
    drop = table(2, "D_abs", setting="domain")
    said = ", ".join(f"{m} {v:.1f}" for m, v in drop[SYNTA].items())
    verdict = HOLDS if (drop > 0).all(axis=None) else FAILS
    return verdict, f"{said} on Syn-TA; at least {drop.min(axis=None):.1f} on every dataset"


def _t11() -> tuple[str, str]:
    rho, p = size_and_transfer(SYNTA)
    hm = learners("HM")[SYNTA]
    small, large = hm["X3D"], hm["ViFi-CLIP"]
    said = f"ρ of size and HM {rho:.2f}, p {p:.2f}; X3D {small:.1f}, ViFi-CLIP {large:.1f}"
    return HOLDS if p > LEVEL and small > large else FAILS, said


def _t12() -> tuple[str, str]:
    return over_models(HM_plain_over_realistic=_plain("fine"))


def _plain(task: str) -> pd.Series:
    """HM on plain minus that on realistic backgrounds by model, Table 4."""
    plain, realistic = (table(4, "HM", setting=f"{task}; {b}") for b in ("plain", "realistic"))
    return (plain - realistic)[SYNTA]


TESTS: dict[str, Callable[[], tuple[str, str]]] = {
    "T1": _t1,
    "T2": _t2,
    "T3": _t3,
    "T4": _t4,
    "T5": _t5,
    "T6": _t6,
    "T8": _t8,
    "T9": _t9,
    "T10": _t10,
    "T11": _t11,
    "T12": _t12,
}


def from_tables() -> Iterator[tuple[str, str, str]]:
    """Claims that the published tables can be asked about: id, verdict, why."""
    for name, test in TESTS.items():
        yield name, *test()
