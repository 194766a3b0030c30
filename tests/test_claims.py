"""The ledger: every claim is tested or says why not, a verdict follows from intervals alone, and
planted effects are found.
"""

import numpy as np
import pandas as pd
import pytest

from vlact import ROOT
from vlact.report import claims, published
from vlact.report.claims import FAILS, HOLDS, OPEN, Part, verdict
from vlact.report.results.actionvlm import VISION, ActionVLM

ROWS = published.read("claims")


def test_every_claim_is_tested_or_says_why_not():
    assert len(ROWS) == 47 and ROWS["id"].is_unique
    for name in ROWS["id"]:
        assert hasattr(claims, name.lower()) != (name in claims.UNTESTABLE), name


def test_every_claim_has_a_row_and_is_shown_somewhere():
    tested = [i for i in ROWS["id"] if i not in claims.UNTESTABLE]
    parts = pd.DataFrame(
        {
            "id": tested,
            "part": "x",
            "over": "seeds",
            "n": 5,
            "mean": 2.0,
            "low": 1.0,
            "high": 3.0,
            "wins": 5,
        }
    )
    found = claims.ledger(parts).set_index("id")
    assert found.index.tolist() == ROWS["id"].tolist() and (found["section"] != "").all()
    assert all((ROOT / "notebooks" / n).is_file() for n in found["notebook"])
    assert (found.loc[tested, "verdict"] == HOLDS).all() and (
        found.loc[list(claims.UNTESTABLE), "verdict"] == claims.NOT_HERE
    ).all()
    assert found.loc["V4", "ours"] == "x: +2.00 [+1.00, +3.00], 5 seeds"
    assert found.loc["V12", "ours"] == claims.UNTESTABLE["V12"]


@pytest.mark.parametrize(
    ("intervals", "wanted"),
    [
        ([(1, 3)], HOLDS),
        ([(1, 3), (0.1, 9)], HOLDS),
        ([(1, 3), (-1, 9)], OPEN),
        ([(1, 3), (-5, -1)], FAILS),
        ([(-1, 1)], OPEN),
        ([(np.nan, np.nan)], OPEN),  # one seed
        ([(1, 3), (np.nan, np.nan)], OPEN),
    ],
)
def test_a_verdict_follows_from_intervals(intervals, wanted):
    assert verdict([{"low": low, "high": high} for low, high in intervals]) == wanted


class Planted(ActionVLM):
    """Scores of two kinds of models, five seeds, one so many points above the other."""

    def __init__(self, gap: float):
        self.gap, self.noise = gap, np.random.default_rng(0)

    def map(self, model: str, condition: str = "own") -> pd.Series:
        return pd.Series(50 + self.gap * (model == VISION) + self.noise.normal(0, 1, 5), range(5))


@pytest.mark.parametrize(("gap", "wanted"), [(10, HOLDS), (-10, FAILS), (0, OPEN)])
def test_a_planted_effect_is_found(gap, wanted, monkeypatch):
    (part,) = claims.v4(Planted(gap))  # vision above language alone
    monkeypatch.setattr(claims, "PAPERS", {"V": lambda p, folder: None})
    monkeypatch.setattr(claims.published, "read", lambda name: ROWS[ROWS["id"] == "V4"])
    monkeypatch.setitem(claims.CLAIMS, "V4", lambda r: iter([part]))
    found = claims.measure(None)
    assert found["mean"].iloc[0] == pytest.approx(gap, abs=1.5) and found["n"].iloc[0] == 5
    assert claims.ledger(found)["verdict"].iloc[0] == wanted


def test_seeds_that_only_one_side_has_do_not_count_and_one_decides_nothing(monkeypatch):
    both = pd.Series([5.0, 6.0], [0, 1]) - pd.Series([1.0], [0])
    monkeypatch.setattr(claims, "PAPERS", {"V": lambda p, folder: None})
    monkeypatch.setattr(claims.published, "read", lambda name: ROWS[ROWS["id"] == "V4"])
    for values, n, text in (
        (both, 1, "x: +4.00, 1 seed"),
        (both * np.nan, 0, "x: nothing to compare"),
    ):
        monkeypatch.setitem(claims.CLAIMS, "V4", lambda r, values=values: iter([Part("x", values)]))
        found = claims.measure(None)
        assert found["n"].iloc[0] == n and claims.ledger(found).iloc[0][
            ["verdict", "ours"]
        ].tolist() == [OPEN, text]


def test_hard_and_easy_classes_are_told_by_other_seeds():
    r = ActionVLM.__new__(ActionVLM)
    names = [f"c{i:02d}" for i in range(20)]
    index = pd.MultiIndex.from_product(
        [[VISION], ["own"], range(3), names], names=["model", "condition", "seed", "label"]
    )
    r.__dict__["ap"] = pd.Series(np.tile(np.arange(20.0), 3), index)
    # seed 0 has it the other way round
    r.__dict__["ap"].loc[(VISION, "own", 0)] = np.arange(20.0)[::-1]
    # and is not asked about itself
    assert r.groups(0) == (["c00", "c01"], ["c16", "c17", "c18", "c19"])
    by_label = pd.Series(
        np.arange(20.0), pd.MultiIndex.from_product([[0], names], names=["seed", "label"])
    )
    assert r.hard_minus_easy(by_label)[0] == pytest.approx(0.5 - 17.5)
