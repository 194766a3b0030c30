"""The ledger: every claim is tested or says why not, verdicts follow from parts and what was fixed
beforehand, and planted effects are found.
"""

import re

import numpy as np
import pandas as pd
import pytest

from vlact import ROOT
from vlact.report import claims, evidence, published, verdicts
from vlact.report.claims import FAILS, HOLDS, LARGER, NO_SIZE, NOT_HERE, OPEN, SMALLER, Part
from vlact.report.results.actionvlm import VISION, ActionVLM

ROWS = published.read("claims")
FIXED = published.read("claims_parts")
TESTED = [i for i in ROWS["id"] if i not in claims.UNTESTABLE]


def seeds(*values) -> pd.Series:
    return pd.Series(values, pd.RangeIndex(len(values), name="seed"), dtype=float)


def around(mean: float, spread: float = 1.0, n: int = 5) -> pd.Series:
    """n values with this mean and standard deviation."""
    values = np.linspace(-1, 1, n)
    return seeds(*(mean + spread * values / values.std(ddof=1)))


def parts_of(name: str, *values: pd.Series, published=None, family="main") -> pd.DataFrame:
    """Parts of a claim as `verdicts.decide` wants them."""
    rows = [verdicts.row(name, str(i), f"part {i}", v, ["seed"]) for i, v in enumerate(values)]
    parts = pd.DataFrame(rows).reindex(columns=verdicts.COLUMNS).fillna({"why": ""})
    return parts.assign(published=published, family=family)


# What was fixed beforehand
def test_every_claim_is_tested_or_says_why_not():
    assert len(ROWS) == 51 and ROWS["id"].is_unique
    for name in ROWS["id"]:
        assert (name in claims.CLAIMS) != (name in claims.UNTESTABLE), name
    assert set(claims.UNTESTABLE) == {"V12", "V13", "T3", "T5", "T6", "T8"}
    assert all("would test it" in why for why in claims.UNTESTABLE.values())


def test_rules_name_families_that_there_are():
    assert not FIXED.duplicated(["id", "part"]).any()
    assert set(FIXED["id"]) == set(TESTED)
    for name, rule in ROWS.set_index("id")["rule"].items():
        assert rule == verdicts.ALL or rule in set(FIXED[FIXED["id"] == name]["family"]), name


@pytest.mark.parametrize(
    ("name", "table", "dataset", "split", "metric", "setting"),
    [
        ("A1", 1, "ATA", "unseen", "acc", "srt"),
        ("A1", 1, "ATA", "unseen", "f1", "srt"),
        ("A2", 1, "IKEA", "unseen", "acc", "srt"),
        ("A3", 2, "GTEA", "unseen", "f1", "srt"),
        ("A4", 1, "ATA", "hm", "acc", "default"),
        ("A4", 1, "IKEA", "hm", "acc", "default"),
        ("A4", 2, "GTEA", "hm", "acc", "default"),
    ],
)
def test_rivals_and_sizes_are_those_of_the_papers_tables(
    name, table, dataset, split, metric, setting
):
    rows = published.read(f"ace_table{table}")
    keys = {"dataset": dataset, "split": split, "metric": metric, "setting": setting}
    rows = rows[(rows[list(keys)] == pd.Series(keys)).all(axis=1)].set_index("method")["mean"]
    rest = rows.drop(["Ours (ACE)", "Random"], errors="ignore").sort_values()
    word = {"acc": "accuracy", "f1": "F1"}[metric] if setting == "srt" else dataset.lower()
    fixed = FIXED[(FIXED["id"] == name) & FIXED["part"].str.startswith(word)]
    found = fixed.assign(rival=fixed["rival"].str.replace("ViFi-CLIP", "ViFi"))
    found = found.set_index("rival")["published"]
    wanted = rows["Ours (ACE)"] - rest
    pd.testing.assert_series_equal(found.sort_index(), wanted.sort_index(), check_names=False)


def test_sizes_of_models_come_from_the_published_tables():
    drop = evidence.table(2, "D_abs")["Syn-TA"]
    sizes = FIXED.set_index(["id", "part"])["published"]
    thirteen = drop.drop(list(claims.GENERALISERS))
    assert sizes["T1", "drop"] == pytest.approx(thirteen.mean(), abs=0.05)
    for model in claims.GENERALISERS:
        assert sizes["T10", model] == pytest.approx(drop[model], abs=0.06)


# From parts to verdicts
@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([around(4)], HOLDS),
        ([around(-4)], FAILS),
        ([around(0.5)], OPEN),
        ([around(4), around(3)], HOLDS),
        ([around(4), around(0.5)], OPEN),
        ([around(4), around(-4)], FAILS),
        ([around(-1.6)], FAILS),  # p = 0.02
        ([around(-1.6), around(0.1), around(0.1)], OPEN),  # three parts ask for p below 0.017
    ],
)
def test_a_verdict_on_sign_follows_from_all_parts(values, wanted):
    assert verdicts.decide(parts_of("V1", *values))[0]["verdict"] == wanted


@pytest.mark.parametrize(
    ("value", "size", "wanted"),
    [
        (around(4), 10, SMALLER),
        (around(12), 10, LARGER),
        (around(10, 0.5), 10, LARGER),  # above eight tenths
        (around(9), 10, OPEN),
        (around(9.4, 0.3), 10, SMALLER),
        (around(2), 0, LARGER),
        (around(2), -5, LARGER),
        (around(2), None, NO_SIZE),
    ],
)
def test_a_verdict_on_size_compares_with_the_published_number(value, size, wanted):
    assert verdicts.decide(parts_of("V1", value, published=size))[0]["size"] == wanted


def test_only_the_family_of_the_rule_decides():
    parts = parts_of("T7", around(4), around(-4)).assign(family=["base", "controls"])
    found, judged = verdicts.decide(parts, "base")
    assert found["verdict"] == HOLDS and judged["sign"].tolist() == [1, 0]
    assert verdicts.decide(parts)[0]["verdict"] == FAILS
    with pytest.raises(ValueError, match=r"'most': no such family.*base.*controls"):
        verdicts.decide(parts, "most")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (seeds(9, 10), "2 seeds"),
        (seeds(9), "1 seed"),
        (seeds(9, 10, 11, 12), "4 seeds"),
        (seeds(5.5, 5.5, 5.5, 5.5, 5.5), "V1, part 1: all 5 differences are 5.5"),
        (seeds(1, 2, np.nan, 4, 5), "V1, part 1: no score at seed 2"),
        (pd.concat([around(4), seeds(1)]), "V1, part 1: repeated: seed 0"),
        (seeds(), "0 seeds"),
    ],
)
def test_without_sound_data_there_is_a_reason_and_no_verdict(value, why):
    found, judged = verdicts.decide(parts_of("V1", around(9), value, published=1.0))
    assert (found["verdict"], found["size"]) == (OPEN, OPEN) and why in found["why"]
    assert judged["sign"].tolist() == [0, 0]


def test_the_detectable_effect_stands_beside_the_verdict():
    found, judged = verdicts.decide(parts_of("V1", around(4, 1), around(4, 3)))
    assert found["detects"] == judged["detects"].max()
    assert judged["detects"].iloc[1] == pytest.approx(3 * judged["detects"].iloc[0])
    alone = verdicts.decide(parts_of("V1", around(4, 3)))[0]["detects"]
    assert alone < found["detects"]  # two parts are tested at half the level each


def test_models_share_seeds_and_two_seeds_decide_nothing():
    index = pd.MultiIndex.from_product([range(12), range(2)], names=["model", "seed"])
    values = pd.Series(np.random.default_rng(0).normal(20, 1, 24), index)
    row = verdicts.row("T1", "drop", "drop", values, claims.RUNS)
    assert row["why"] == "2 seeds" and row["n"] == "12 × 2" and row["over"] == "models × seeds"
    assert row["low"] > 15


def fake(value=2.0) -> pd.DataFrame:
    """Parts of every claim, all alike."""
    return pd.DataFrame(
        verdicts.row(f.id, f.part, "x", around(value, 0.1), ["seed"]) for f in FIXED.itertuples()
    )


def test_every_claim_has_a_row_and_is_shown_somewhere():
    found = claims.ledger(fake()).set_index("id")
    assert found.index.tolist() == ROWS["id"].tolist() and (found["section"] != "").all()
    assert all((ROOT / "notebooks" / n).is_file() for n in found["notebook"])
    assert (found.loc[TESTED, "verdict"] == HOLDS).all() and (found["detects"].dropna() > 0).all()
    untested = found.loc[list(claims.UNTESTABLE)]
    assert (untested[["verdict", "size"]] == NOT_HERE).all(axis=None)
    assert found.loc["V4", "ours"].startswith("x: +2.00 [+1.88, +2.12], 5 seeds")
    assert found.loc["V12", "ours"] == claims.UNTESTABLE["V12"]
    assert found.loc["V4", "size"] == SMALLER and found.loc["V8", "size"] == LARGER


def test_evidence_stands_in_columns_of_its_own():
    found = claims.ledger(fake()).set_index("id")
    assert (found["real verdict"] == "").all() and (found["real why"] == claims.NO_REAL).all()
    real = fake(-2)
    found = claims.ledger(fake(), real[real["id"] == "A1"]).set_index("id")
    assert found.loc["A1", ["verdict", "real verdict"]].tolist() == [HOLDS, FAILS]
    assert found.loc["A1", "real size"] == SMALLER and found.loc["A2", "real verdict"] == ""
    assert found.loc["T5", "published tables"].startswith("holds: ρ of size and HM 0.67, p 0.012")


def test_parts_that_the_claims_file_does_not_name_are_refused():
    parts = fake()
    with pytest.raises(ValueError, match=r"differ in \[\('A1', 'F1 BIKE'\)\]"):
        verdicts.judge(parts[~((parts["id"] == "A1") & (parts["part"] == "F1 BIKE"))])


def test_decisions_expected_wrong_are_counted():
    judged = verdicts.judge(fake())[0]
    said = verdicts.expected_wrong(judged)
    assert f"of {len(TESTED)} claims" in said and f"{0.05 * len(TESTED):.1f} are expected" in said
    judged.loc["A1", "why"] = "2 seeds"
    assert f"of {len(TESTED) - 1} claims" in verdicts.expected_wrong(judged)


# What the published tables say
def test_published_tables_settle_what_they_can():
    found = {name: (verdict, why) for name, verdict, why in evidence.from_tables()}
    assert set(found) <= set(ROWS["id"])
    assert all(found[name][0] == HOLDS for name in ("T3", "T5", "T6", "T9", "T10", "T11", "T12"))
    rho = {d: evidence.size_and_transfer(d) for d in evidence.DATASETS}
    assert rho["K400-TA"] == pytest.approx((0.67, 0.012), abs=0.005)
    assert rho["SSv2-TA"][0] == pytest.approx(0.15, abs=0.005)
    assert rho["Syn-TA"][0] == pytest.approx(0.10, abs=0.005)
    assert "11/13 models" in found["T3"][1]


def test_a_table_that_says_otherwise_is_heard(monkeypatch):
    rows = published.read("transfer_table2")
    best = (rows["method"] == "AIM") & (rows["dataset"] == "Syn-TA") & (rows["metric"] == "HM")
    rows.loc[best, "mean"] = 1.0
    read = published.read
    table = {"transfer_table2": rows}
    monkeypatch.setattr(published, "read", lambda n: table[n] if n in table else read(n))
    assert evidence.TESTS["T9"]()[0] == FAILS


# From scores to parts
class Planted(ActionVLM):
    """Scores of two kinds of models, five seeds, one so many points above the other."""

    def __init__(self, gap: float):
        self.gap, self.noise = gap, np.random.default_rng(0)

    def map(self, model: str, condition: str = "own") -> pd.Series:
        return seeds(*(50 + self.gap * (model == VISION) + self.noise.normal(0, 1, 5)))


@pytest.mark.parametrize(("gap", "wanted"), [(10, HOLDS), (-10, FAILS), (0, OPEN)])
def test_a_planted_effect_is_found(gap, wanted, monkeypatch):
    monkeypatch.setattr(claims, "PAPERS", {"V": lambda p, folder: Planted(gap)})
    monkeypatch.setattr(
        claims, "UNTESTABLE", dict.fromkeys(ROWS["id"].drop(ROWS.index[ROWS["id"] == "V4"]), "")
    )
    found = claims.measure(None)  # vision above language alone
    assert found["mean"].iloc[0] == pytest.approx(gap, abs=1.5) and found["n"].iloc[0] == "5"
    assert claims.ledger(found).set_index("id").loc["V4", "verdict"] == wanted


def test_each_part_has_the_rival_that_was_fixed():
    class Asked:
        p = None

        def gain(self, dataset, ours, other, key=""):
            return around(1)

        def caution(self, dataset):
            return f"{dataset} is below chance"

    rivals = FIXED.set_index(["id", "part"])["rival"]
    for name, test in (("A1", claims.a1), ("A2", claims.a2), ("A4", claims.a4)):
        for part in test(Asked()):
            assert re.search(re.escape(rivals[name, part.part]) + "$", part.what)
            assert isinstance(part, Part) and part.values.mean() == pytest.approx(1)
            # of SRT accuracy; A4 is about seen and unseen alike
            assert part.caution.endswith("below chance") == (name != "A4")


def test_a_ledger_says_what_a_reader_must_know_before_holds():
    parts = fake()
    low = parts["id"].map({"A12": "GTEA is below chance"}).fillna("")
    said = claims.ledger(parts.assign(caution=low)).set_index("id")["ours"]
    assert said["A12"].endswith(". But GTEA is below chance")
    assert not said.drop("A12").str.contains("But").any()


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


# On real video
def test_claims_on_real_video_are_read_from_what_its_stages_keep(tmp_path):
    assert claims.measure_real(tmp_path) is None
    kept = tmp_path / "real_ace" / "scores" / "claims.csv"
    kept.parent.mkdir(parents=True)
    table = pd.DataFrame({"id": "A6", "part": "gtea SRT", "what": "over ProcVLR"}, range(20))
    table = table.assign(seed=np.repeat(range(5), 4), fold=np.tile(range(4), 5), video=np.nan)
    table["value"] = 5 + np.random.default_rng(0).normal(0, 0.5, 20)
    table.to_csv(kept, index=False)
    found = claims.measure_real(tmp_path)
    assert found[["n", "over"]].iloc[0].tolist() == ["5 × 4", "seeds × folds"]
    # four folds are too few to speak of others
    rows = claims.ledger(fake(), found).set_index("id")
    assert rows.loc["A6", ["real verdict", "real why"]].tolist() == [OPEN, "4 folds"]
    table.drop(columns="fold").groupby(["id", "part", "what", "seed"], as_index=False)[
        "value"
    ].mean().to_csv(kept, index=False)
    rows = claims.ledger(fake(), claims.measure_real(tmp_path)).set_index("id")
    assert rows.loc["A6", ["real verdict", "real size"]].tolist() == [HOLDS, LARGER]
    table.assign(part="nothing").to_csv(kept, index=False)
    with pytest.raises(ValueError, match="'nothing'"):
        claims.ledger(fake(), claims.measure_real(tmp_path))
    table.drop(columns="value").to_csv(kept, index=False)
    with pytest.raises(ValueError, match=r"real_ace.*no column \['value'\]"):
        claims.measure_real(tmp_path)
