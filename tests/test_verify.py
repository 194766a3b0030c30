"""`make verify`: what it lets pass and what it finds, on results with known differences."""

import json

import numpy as np
import pandas as pd
import pytest

from vlact import params
from vlact.report import claims
from vlact.report.verdicts import LARGER, SMALLER
from vlact.tools import dag, provenance, verify

SEEDS, ROWS = 5, 40


def results(rng, mean=50.0):
    """Forty methods, mean and spread over five seeds each, as printed."""
    runs = rng.normal(mean, 4.0, (ROWS, SEEDS))
    cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(runs.mean(1), runs.std(1, ddof=1), strict=True)]
    return pd.DataFrame({"method": [f"m{i}" for i in range(ROWS)], "acc": cells})


def write(folder, table, stage="ace_results", name="t"):
    (folder / stage).mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / stage / f"{name}.csv", index=False)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A published run and one here; `runs(a, b)` writes a table of each and verifies."""
    for module in (verify, provenance, dag):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "params.yaml").write_text("profiles: {study: {seeds: [0, 1, 2, 3, 4]}}")
    ours, theirs = tmp_path / "data/study/figures", tmp_path / "figures/study"
    ours.mkdir(parents=True)
    (ours / "index.csv").write_text("")

    def go(published, here, stage="ace_results", machine=None):
        write(theirs, published, stage)
        write(ours, here, stage)
        note = {"stages": {stage: {"machine": machine}}}
        (theirs / "run.json").write_text(json.dumps(note))
        return verify.verify("study")

    return go, ours, theirs


def test_other_seeds_of_the_same_thing_pass_nearly_always(runs):
    go, *_ = runs
    rng = np.random.default_rng(0)
    alarms = sum(go(results(rng), results(rng)) for _ in range(40))
    assert alarms <= 6  # 5 % of 40 are expected; more than 6 have a chance below 1 %


def test_one_number_that_is_far_off_is_found_and_named(runs, capsys):
    go, *_ = runs
    rng = np.random.default_rng(1)
    published, here = results(rng), results(rng)
    here.loc[7, "acc"] = "80.0 ± 4.0"
    assert go(published, here) == 1
    said = capsys.readouterr().out
    assert "ace_results/t.csv, row 7, acc" in said and "here 80.0" in said
    assert go(published, here.drop(index=[39])) == 1


def test_what_needs_no_training_is_equal_or_named(runs):
    go, *_ = runs
    counts = pd.DataFrame({"corpus": ["ata"], "clips": [150]})
    assert go(counts, counts, "worlds") == 0
    assert go(counts, counts.assign(clips=151), "worlds") == 1


def test_the_same_machine_gives_equal_numbers_or_is_named(runs, capsys):
    go, *_ = runs
    rng = np.random.default_rng(2)
    table = results(rng)
    moved = table.assign(
        acc=table["acc"].str.replace(r"^(\d+)", lambda m: str(int(m[1]) + 1), regex=True)
    )
    here = provenance.machine()
    assert go(table, table, machine=here) == 0 and "equal" in capsys.readouterr().out
    assert go(table, moved, machine=here) == 1
    assert go(table, moved, machine={**here, "cpu": "another"}) == 0


def test_a_reversed_verdict_is_found(runs, capsys):
    go, ours, theirs = runs
    table = results(np.random.default_rng(3))
    for folder, verdict in ((theirs, "holds"), (ours, "does not hold")):
        ledger = pd.DataFrame({"id": ["A1", "A2"], "verdict": [verdict, "not decided"]})
        ledger["size"] = ["not decided", SMALLER if verdict == "holds" else LARGER]
        write(folder, ledger, "claims", "claims")
    assert go(table, table) == 1
    assert "reversed: A1, A2 size" in capsys.readouterr().out


def test_a_ledger_that_its_score_tables_do_not_give_is_found(tmp_path, monkeypatch):
    folder, p = tmp_path, params.load("smoke")
    parts = pd.DataFrame({"id": ["A1", "A2"], "part": "x", "n": 5, "mean": [1.234, np.nan]})
    parts = parts.assign(low=[0.5, np.nan], high=[2.0, np.nan])
    printed = parts.astype(object).assign(mean=["1.23", "–"]).fillna("–")
    write(folder, printed, "claims", "claims_parts")
    monkeypatch.setattr(claims, "measure", lambda p, folder: parts)
    assert verify.unfounded(folder, p) == []
    (folder / "ace_results" / "scores").mkdir(parents=True)
    (folder / "ace_results" / "scores" / "grid.parquet").write_bytes(b"")
    assert verify.unfounded(folder, p) == []
    write(folder, printed.assign(low=["0.52", "–"]), "claims", "claims_parts")
    assert verify.unfounded(folder, p) == ["A1, x"]
    write(folder, printed[:1], "claims", "claims_parts")
    assert verify.unfounded(folder, p) == ["A2, x"]


def test_two_seeds_make_no_interval():
    theirs = pd.DataFrame(
        {"file": ["ace/t.csv"], "row": [0], "column": ["acc"], "value": [50.0], "sd": [1.0]}
    )
    found = verify.compare(theirs.assign(value=90.0), theirs, set(), seeds=2)
    assert found["how"].tolist() == ["not compared"]


def test_nothing_to_compare_with_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verify, "ROOT", tmp_path)
    assert verify.verify("mini") == 2 and "figures/mini.csv" in capsys.readouterr().err


def test_a_small_reference_is_written_and_read(runs, monkeypatch):
    _, ours, theirs = runs
    write(ours, results(np.random.default_rng(4)))
    write(ours, results(np.random.default_rng(5)), name="behind_a_figure")
    (ours / "ace_results" / "t.tex").write_text("")
    theirs.mkdir(parents=True)
    verify.write("study")
    assert verify.verify("study") == 0
    kept = (theirs.parent / "study.csv").read_text()
    assert "t.csv,7,acc," in kept and "behind" not in kept
