"""Verdicts on claims, from their parts and from what the claims file fixed beforehand.

`published/claims.csv` says which parts decide a claim (all, or those of one family), and
`published/claims_parts.csv` names of each part its family, the rival and the published size.

A claim has two verdicts. On sign: it holds if every part that decides is above 0, it does not if
one is below. On size: smaller than published if one part is below the published number, as
published or larger if every part is above what is `MARGIN` less. Each is under Holm's correction
over the parts that decide, so that a claim is wrongly decided in at most `LEVEL` of studies.
"""

from collections.abc import Sequence

import pandas as pd

from vlact.report import published
from vlact.report.evidence import FAILS, HOLDS, OPEN
from vlact.report.statistics import LEVEL, POWER, Effect, ScoreFault, effect, signs

NOT_HERE = "not testable here"
LARGER, SMALLER, NO_SIZE = "as published or larger", "smaller than published", "no published size"
# of a published size that may be missing in "as published", as in tests of equivalence
MARGIN = 0.2
ALL = "all parts"
DECIDED = (HOLDS, FAILS, LARGER, SMALLER)
COLUMNS = "id part what over n mean low high wins se df detects sign why caution".split()


def row(name: str, part: str, what: str, values: pd.Series, random: Sequence[str]) -> dict:
    """A part in numbers; `why` says what forbids a verdict, "" where nothing does.

    Args:
        name, part: Keys of `published/claims_parts.csv`.
        what: In words.
        values: Paired differences by named factors.
        random: The crossed random factors.
    """
    if values.index.nlevels == 1 and values.index.name is None:
        values = values.rename_axis(random[0])
    units = {f: values.index.unique(f).size for f in random if f in values.index.names}
    over = " × ".join(f"{f}s" for f in random)
    found = {"id": name, "part": part, "what": what, "over": over, "mean": values.mean()}
    found |= {"n": " × ".join(str(n) for n in units.values()), "why": "", "wins": 0}
    try:
        return found | numbers(effect(values, random, f"{name}, {what}"))
    except ScoreFault as fault:
        # too few units is the plainer reason
        few = Effect(0, 1, 1, units).few if units else ""
        return found | {"why": few or str(fault)}


def numbers(found: Effect) -> dict:
    """An effect as columns."""
    low, high = found.interval()
    return {
        "mean": found.mean,
        "low": low,
        "high": high,
        "wins": found.wins,
        "se": found.se,
        "df": found.df,
        "why": found.few,
    }


def of(part) -> Effect:
    """The effect of a row."""
    return Effect(part.mean, part.se, part.df, {})


def decide(parts: pd.DataFrame, rule: str = ALL) -> tuple[dict, pd.DataFrame]:
    """The verdicts on one claim.

    Args:
        parts: Its rows, with columns of `row`, `family` and `published`.
        rule: `ALL`, or the family whose parts decide.

    Returns:
        `verdict, size, why, detects` (largest over the parts that decide), and the parts with
        `detects` and `sign` (+1, 0, −1; 0 for parts that decide nothing).

    Raises:
        ValueError: No part is of the family.
    """
    parts = parts.assign(sign=0, detects=float("nan"))
    deciding = parts if rule == ALL else parts[parts["family"] == rule]
    if not len(deciding):
        raise ValueError(
            f"rule {rule!r}: no such family of parts; there are {sorted(parts['family'].unique())}"
        )
    known = [*deciding[deciding["se"].notna()].itertuples()]
    for part in known:
        parts.loc[part.Index, "detects"] = of(part).detectable(LEVEL / len(deciding), POWER)
    detects = parts["detects"].max()
    if reasons := [x for x in dict.fromkeys(deciding["why"]) if x]:
        return {"verdict": OPEN, "size": OPEN, "why": "; ".join(reasons), "detects": detects}, parts
    effects = [of(x) for x in known]
    parts.loc[deciding.index, "sign"] = found = signs(effects, [0.0] * len(effects))
    verdict = FAILS if -1 in found else HOLDS if all(s == 1 for s in found) else OPEN
    printed = [(of(x), x.published) for x in known if pd.notna(x.published)]
    size = size_of(*zip(*printed, strict=True)) if printed else NO_SIZE
    return {"verdict": verdict, "size": size, "why": "", "detects": detects}, parts


def size_of(effects: Sequence[Effect], sizes: Sequence[float]) -> str:
    """The verdict on size, from effects and their published sizes."""
    if -1 in signs(effects, sizes):
        return SMALLER
    least = [size - MARGIN * abs(size) for size in sizes]
    return LARGER if all(s == 1 for s in signs(effects, least)) else OPEN


def judge(parts: pd.DataFrame, whole: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Verdicts on all claims that have parts.

    Args:
        parts: Rows of `row`.
        whole: Whether all parts of a claim have to be there; on real video some cannot be asked.

    Returns:
        `verdict, size, why, detects` by claim, and the parts with what was fixed beforehand.

    Raises:
        ValueError: A part that the file does not name, or one of its parts that is missing.
    """
    rules = published.read("claims").set_index("id")["rule"]
    fixed = published.read("claims_parts").fillna({"rival": ""})
    mine = fixed[fixed["id"].isin(parts["id"])].set_index(["id", "part"])
    keys = pd.MultiIndex.from_frame(parts[["id", "part"]])
    wrong = {*keys} ^ {*mine.index} if whole else {*keys} - {*mine.index}
    if wrong := sorted(wrong):
        raise ValueError(f"claims_parts.csv and the measured parts differ in {wrong}")
    parts = parts.assign(caution=parts["caution"] if "caution" in parts else "")
    parts = parts.reindex(columns=COLUMNS).fillna({"why": ""})
    parts = parts.join(mine[["family", "rival", "published"]], on=["id", "part"])
    verdicts, judged = {}, []
    for name, group in parts.groupby("id", sort=False):
        verdicts[name], group = decide(group, rules[name])
        judged.append(group)
    return pd.DataFrame.from_dict(verdicts, orient="index"), pd.concat(judged)


def expected_wrong(verdicts: pd.DataFrame) -> str:
    """How many decisions may be wrong by chance: each verdict that could fall, at its level."""
    could = verdicts[verdicts["why"] == ""]
    sizes = could[could["size"] != NO_SIZE]
    signs_, sizes_ = could["verdict"].isin(DECIDED).sum(), sizes["size"].isin(DECIDED).sum()
    return (
        f"At {LEVEL:.0%} a claim, of {len(could)} claims with data for a verdict at most "
        f"{LEVEL * len(could):.1f} are expected to be decided wrongly on sign ({signs_} are "
        f"decided), and of {len(sizes)} at most {LEVEL * len(sizes):.1f} on size ({sizes_} are)."
    )
