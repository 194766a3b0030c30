"""A printed ledger under today's rules: what it has is judged, what it lacks waits."""

import pandas as pd
import pytest

from vlact import ROOT
from vlact.report import published
from vlact.report.evidence import FAILS, HOLDS, OPEN
from vlact.tools import rejudge

RULES = ROOT / "figures" / "study" / "rules.md"
PARTS = [  # id, part, over, n, mean, low, high, wins
    ("A12", "SRT accuracy, manual over shipped trees", "seeds", 5, 11.2, 2.7, 19.7, 5),
    ("A12", "SRT F1, manual over shipped trees", "seeds", 5, 8.9, 3.5, 14.3, 5),
    ("A10", "ATA: with over without L_rand", "seeds", 5, -2.1, -10.0, 5.8, 3),
    ("A10", "IKEA: with over without L_rand", "seeds", 5, 1.1, -0.6, 2.8, 4),
    ("V4", "mAP of vision over language alone", "seeds", 2, 9.5, 4.3, 14.8, 2),
    ("V1", "mAP of the full method over vision only", "seeds", 5, 5.5, 5.5, 5.5, 5),
    ("V3", "mAP over ActionFormer", "seeds", 5, -9.0, -10.0, -8.0, 0),
    ("T4", "HM, plain over realistic", "models", 12, 8.9, 3.1, 14.7, 12),
]


@pytest.fixture
def printed(tmp_path):
    columns = ["id", "part", "over", "n", "mean", "low", "high", "wins"]
    tmp_path = tmp_path / "figures" / "printed"
    (tmp_path / "claims").mkdir(parents=True)
    pd.DataFrame(PARTS, columns=columns).to_csv(
        tmp_path / "claims" / "claims_parts.csv", index=False
    )
    rows = [
        (d, "ACE", m, k, 10.0 if d == "ATA" else -10.0, *((8.0, 12.0) if d == "ATA" else (-12, -8)))
        for d in ("ATA", "IKEA", "GTEA")
        for m in published.read("claims_parts").query("id == 'A1'")["rival"].unique()
        for k in ("SRT acc", "SRT F1", "seen acc")
    ]
    pairs = pd.DataFrame(
        rows, columns=["dataset", "ours", "minus", "metric", "mean", "low", "high"]
    )
    (tmp_path / "ace_results").mkdir()
    pairs = pairs.assign(**{"seeds won": "5/5"})
    pairs.to_csv(tmp_path / "ace_results" / "ace_paired.csv", index=False)
    before = {"A12": HOLDS, "V4": HOLDS, "A10": OPEN, "V3": FAILS, "T4": HOLDS, "A2": OPEN}
    ledger = pd.DataFrame({"id": list(before), "verdict": list(before.values())})
    ledger.to_csv(tmp_path / "claims" / "claims.csv", index=False)
    return tmp_path


def test_a_printed_ledger_is_judged_by_what_it_has(printed):
    found = rejudge.before_and_after(printed).set_index("id")
    assert found.index.tolist() == published.read("claims")["id"].tolist()
    assert found.loc["A12", ["before", "verdict", "reason"]].tolist() == [HOLDS, HOLDS, "as before"]
    # the published size is 18.3 on ATA
    assert found.loc["A10", "size"] == "smaller than published"
    # 3.35 points of deviation and 13.0 published, two parts
    assert found.loc["A12", "seeds"] == "5"
    # rivals come from the table of pairs
    assert found.loc[["A1", "A2"], "verdict"].tolist() == [HOLDS, FAILS]
    assert "ace_paired.csv" in found.loc["A1", "source"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("V4", "2 seeds"),
        ("T4", "2 seeds"),
        ("V1", "positive width"),
        ("V3", "waits"),
        ("T9", "new"),
    ],
)
def test_what_it_lacks_gives_no_verdict_and_a_reason(printed, name, why):
    found = rejudge.before_and_after(printed).set_index("id").loc[name]
    assert found["verdict"] == OPEN and why in found["reason"]


def test_the_document_says_where_it_is_from(printed, monkeypatch, capsys):
    monkeypatch.setattr(rejudge, "ROOT", printed.parents[1])
    assert rejudge.main([printed.name]) == 0
    text = (printed / "rules.md").read_text(encoding="utf-8")
    assert "elsewhere from printed means, intervals and numbers of seeds" in text
    assert text.count("\n| ") == 1 + 1 + 51
    assert rejudge.main(["nothing"]) == 2 and "is not there" in capsys.readouterr().err


@pytest.mark.skipif(not RULES.is_file(), reason="a ledger published since follows the rules")
def test_the_committed_document_is_what_the_code_gives():
    found = rejudge.before_and_after(ROOT / "figures" / "study")
    text = RULES.read_text(encoding="utf-8")
    for row in found.itertuples():
        assert f"| {row.id} | {row.claim} | {row.before} | {row.verdict} | {row.size} |" in text
