"""Results: score tables keep what they are given, reported numbers are those of planted data, and
nothing else computes any.
"""

import ast
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vlact import ROOT, params
from vlact.report.results import ace, across, actionvlm, common, transfer

SEEDS = range(5)
RESULTS = ("12", "13", "22", "23", "24", "25", "31", "32", "33", "34", "40")  # notebooks


@pytest.fixture
def run(tmp_path):
    """A run's parameters whose data and figures lie in a folder of the test."""
    p = params.load("smoke", "scratch")
    return SimpleNamespace(
        **{k: getattr(p, k) for k in ("ace", "tal", "stadium", "vlm", "world", "transfer")},
        **{
            "profile": "smoke",
            "workspace": "scratch",
            "seeds": list(SEEDS),
            "ace_seeds": list(SEEDS),
        },
        data=tmp_path,
        figures=tmp_path / "figures",
        results=lambda stage: tmp_path / "figures" / stage,
    )


def write(folder, name, table):
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / f"{name}.parquet")


# Score tables
def test_a_score_table_comes_back_as_it_was_and_two_of_a_row_are_named(run):
    table = pd.DataFrame({"method": ["a", "b"], "seed": [0, 0], "acc": [1 / 3, np.nan]})
    common.keep(run, "stage", "t", table, ["method", "seed"])
    found = common.Scores(run).scores("stage", "t")
    assert found["acc"].equals(table["acc"]) and found["method"].tolist() == ["a", "b"]
    with pytest.raises(ValueError, match=r"stage, scores 't'.*'method': 'a', 'seed': 0"):
        common.keep(run, "stage", "t", table.iloc[[0, 1, 0]], ["method", "seed"])
    with pytest.raises(FileNotFoundError, match="stage 'other' keeps; run `make repro"):
        common.Scores(run).scores("other", "t")


def test_published_scores_need_no_workspace(run, tmp_path):
    common.keep(run, "stage", "t", pd.DataFrame({"seed": [1]}), ["seed"])
    elsewhere = (tmp_path / "figures").rename(tmp_path / "published")
    assert common.Scores(run, elsewhere).kept("stage", "t")
    assert not common.Scores(run).kept("stage", "t")


def test_pairs_are_of_the_seeds_that_both_have():
    ours, theirs = pd.Series([3.0, 5.0, 9.0], [0, 1, 2]), pd.Series([2.0, 3.0], [1, 0])
    found = common.paired(ours, theirs)
    assert found["n"] == 2 and found["mean"] == 1.5 and found["wins"] == 1
    assert common.change(found, wins=" ").startswith("+1.5 [") and common.change(None) == "–"
    assert common.paired(ours, theirs[:1]) is None and common.interval(None) == "–"


# ACE
def cells(method, srt, chosen=True):
    """A method's cell on ATA; `srt` by seed."""
    scores = dict.fromkeys(("val_acc", "seen_acc", "seen_f1", "unseen_acc", "unseen_f1"), 0.5)
    scores |= dict.fromkeys(("hm_acc", "hm_f1", "srt_acc_std", "srt_f1_mean", "srt_f1_std"), 0.25)
    given = {"dataset": "ata", "model": method, "method": method, "leaf": False, "test": "shipped"}
    table = pd.DataFrame({"seed": SEEDS, "fold": 0, "tune": 0, "srt_acc_mean": srt})
    return table.assign(**given, **scores, lr=0.01, epoch=3, chosen=chosen, grid=True)


@pytest.fixture
def planted_ace(run):
    """ACE ten points above BIKE, which is above the other rivals; a cell that was not chosen."""
    noise = np.linspace(-0.02, 0.02, len(SEEDS))
    rows = [cells("ACE", 0.6 + noise), cells("BIKE", 0.5 + noise), cells("ACE", 0.9, False)]
    rows += [cells(m, 0.3 - noise) for m in ace.RIVALS if m != "BIKE"]
    grid = pd.concat(rows, ignore_index=True)
    grid.loc[~grid["chosen"], "epoch"] = 9
    common.keep(run, "ace_results", "grid", grid, ace.CELL)
    chance = pd.DataFrame({"dataset": "ata", "seed": SEEDS, "fold": 0, "acc": 0.1, "f1": 0.05})
    common.keep(run, "ace_results", "chance", chance, ["dataset", "seed", "fold"])
    return ace.Ace(run)


def test_a_method_is_read_in_percent_from_its_chosen_cell(planted_ace):
    assert planted_ace.ace("ata").tolist() == pytest.approx([58, 59, 60, 61, 62])
    assert planted_ace.guess("ata") == pytest.approx(10)


def test_a_table_prints_mean_and_spread_over_seeds(planted_ace):
    table = planted_ace.table("ata", ("BIKE", "ACE", "nobody")).set_index("method")
    assert table.index.tolist() == ["Random", "BIKE", "ACE"]
    assert table.loc["ACE", ["pretraining", "runs"]].tolist() == [
        "instructional clips",
        "5 × 1 × 1",
    ]
    assert table.loc["ACE", ["SRT acc", "lr", "epochs"]].tolist() == ["60.0 ± 1.6", "0.01", "3"]
    assert table.loc["Random", "SRT acc"] == "10.0"
    said = planted_ace.compare("ata", "ACE", "Text4Vis")
    assert said.startswith("ATA: ACE is above Text4Vis on SRT acc: +30.0 [")


def test_fine_tunings_are_averaged_within_a_seed_and_compared_where_both_have_them(run):
    more = cells("ACE", 0.5).assign(tune=1)
    rows = pd.concat([cells("ACE", 0.6), more, cells("BIKE", 0.4)], ignore_index=True)
    common.keep(run, "ace_results", "grid", rows, ace.CELL)
    r = ace.Ace(run)
    assert r.ace("ata").tolist() == pytest.approx([55] * 5)
    assert r.design("ata", "ACE") == "5 × 1 × 2"
    # BIKE has only the first fine-tuning, which is what it is compared with
    assert r.gain("ata", "ACE", "BIKE").tolist() == pytest.approx([20] * 5)
    assert len(r.gain("ata", "ACE", "nobody")) == 0


def test_a_method_below_chance_or_its_own_start_is_said_to_be(planted_ace):
    scores = planted_ace.trained
    start = cells("zero-shot", 0.7)
    common.keep(
        planted_ace.p,
        "ace_results",
        "grid",
        pd.concat([scores, start], ignore_index=True),
        ace.CELL,
    )
    r = ace.Ace(planted_ace.p)
    assert r.caution("ata") == "ATA: SRT accuracy of ACE, 60.0, is below its own start (70.0)."
    assert r.caution("ata", "ACE", "BIKE") == ""


def test_the_row_of_a_method_whose_pretraining_knew_all_names():
    assert ace.told("ACE, halfway") == "ACE, names known, halfway"
    assert ace.told("ProcVLR + test leaf") == "ProcVLR, names known + test leaf"


def test_clips_of_chosen_cells_are_counted_over_label_sets(run):
    folder = run.data / "ace"
    (folder / "ata").mkdir(parents=True)
    cells("zero-shot", 0.5).drop(columns="method").to_csv(folder / "scores.csv", index=False)
    rows = [("novel", k, 7, 1, int(k != 2)) for k in range(4)] + [("base", 0, 8, 0, 3)]
    answers = pd.DataFrame(rows, columns=["mode", "run", "clip", "label", "predicted"])
    given = {"dataset": "ata", "model": "zero-shot", "leaf": False, "test": "shipped", "seed": 0}
    given |= {"fold": 0, "tune": 0}
    answers.assign(**given, split="test", lr=0.01, epoch=3).to_parquet(
        folder / "predictions.parquet"
    )
    similar = pd.DataFrame({"model": ["pretrained", "ACE"], "clips_of": "x", "name_of": "x"})
    similar = similar.assign(name="x", cosine=0.5)
    similar.to_parquet(folder / "ata" / "similarity.parquet")
    ace.keep_results(run)
    clips = ace.Ace(run).scores("ace_results", "clips").set_index("clip")
    assert clips.loc[7, ["runs", "right", "right_root"]].tolist() == [4, 3, 1]
    assert clips.loc[8, ["runs", "right", "right_root"]].tolist() == [1, 0, 0]
    assert ace.Ace(run).similar["model"].tolist() == ["ACE"]


# ActionVLM
def test_average_precision_is_kept_by_class_and_averaged_once():
    truth = pd.DataFrame({"video": ["v", "v"], "start_s": [0.0, 5.0], "end_s": [2.0, 9.0]})
    truth["label"] = ["a", "b"]
    exact = truth.assign(score=1.0, model="exact", seed=0)
    half = exact[exact["label"] == "a"].assign(model="half")
    ap = actionvlm.scored(truth, pd.concat([exact, half]), ["model", "seed"])
    assert actionvlm.by_tiou(ap[ap["model"] == "half"]).to_numpy().tolist() == [[50.0] * 5]
    assert actionvlm.spreads(actionvlm.by_tiou(ap[ap["model"] == "exact"]))["mAP"] == "100.0"


def test_means_over_frames_weigh_classes_by_their_frames(run):
    rows = {"model": "m", "seed": [0, 0, 1, 0], "label": ["a", "b", "a", ""]}
    weights = pd.DataFrame({**rows, "frames": [1, 3, 2, 9], "weight": [0.8, 0.0, 0.5, 1.0]})
    common.keep(run, "actionvlm", "weights", weights, ["model", "seed", "label"])
    r = actionvlm.ActionVLM(run)
    assert r.weight("m").to_dict() == pytest.approx({0: 0.2, 1: 0.5})  # not outside actions
    assert r.weight("m", ["a"]).to_dict() == pytest.approx({0: 0.8, 1: 0.5})
    assert r.weight_by_label("m")[0, "b"] == 0


def test_habits_of_writing_are_shares_of_multiples_of_ten(run):
    numbers = pd.DataFrame({"what": ["written"] * 3 + ["ground truth"] * 2})
    numbers = numbers.assign(seed=[0, 0, 1, -1, -1], number=[10.0, 11.0, 20.0, 3.0, 30.0])
    numbers["times"] = [3, 1, 2, 1, 1]
    common.keep(run, "actionvlm", "numbers", numbers, ["what", "seed", "number"])
    r = actionvlm.ActionVLM(run)
    assert r.tens("written").to_dict() == {0: 75.0, 1: 100.0} and r.tens("ground truth") == 50
    frames = r.histogram().set_index("frame")
    assert frames.loc[20, "written"] == 2 and frames["ground truth"].sum() == 2


def test_what_looks_like_an_action_counts_from_half_of_it(run):
    path = run.data / "events.json"
    clip = {"start_s": 2.0, "end_s": 4.0, "what": "backwards", "label": "a"}
    path.write_text(json.dumps({"v": {"distractors": [clip]}}))
    found = pd.DataFrame({"video": "v", "start_s": [0.0, 2.5], "end_s": [2.9, 9.0]})
    found = found.assign(score=[0.9, 0.4], model="m", seed=[0, 0])
    (row,) = actionvlm.ambiguous(path, pd.DataFrame({"video": ["v"]}), found).itertuples()
    assert row.confidence == 0.4 and row.length == 0.75  # the surer one covers 0.45
    (none,) = actionvlm.ambiguous(path, pd.DataFrame({"video": ["v"]}), found[:1]).itertuples()
    assert none.confidence == none.length == 0


# Motion transfer
def answers(model, right, seed=0):
    """Four clips a set, trained on either; `right` of each are answered right, known and not."""
    rows = [
        (which, s, f"{s}/{k}", k, k if k < right[s != which] else 9)
        for which in (1, 2)
        for s in (1, 2)
        for k in range(4)
    ]
    table = pd.DataFrame(rows, columns=["trained_on", "set", "video", "label", "predicted"])
    return table.assign(model=model, seed=seed, task="coarse")


def test_arms_are_compared_by_seed_and_clip(run):
    base = [answers(transfer.BASE, (4, 1), s) for s in (0, 1)]
    full = [answers(transfer.FULL, (4, 3), s) for s in (0, 1)]
    (run.data / "disentangle").mkdir()
    pd.concat(base + full).to_parquet(run.data / "disentangle" / "predictions.parquet")
    transfer.keep_disentangle(run)
    r = transfer.Transfer(run)
    assert r.arm(transfer.BASE).tolist() == pytest.approx([40, 40])  # of 100 and 25
    assert r.compared(transfer.FULL, transfer.BASE)["mean"] == pytest.approx(600 / 7 - 40)
    repaired, broken, every = r.repaired()
    assert (len(repaired), len(broken), len(every)) == (4, 0, 8)
    assert r.repaired_by_motion(list("abcd"))["repaired"].tolist() == [0, 2, 2, 0]


def test_candidates_are_judged_together_in_unknown_contexts(run):
    # seed s of a candidate gains 25 points where it is right once more in unknown contexts
    tables = [answers(transfer.BASE, (4, 1), s) for s in range(6)]
    for arm, right in (("tempo", (3, 3, 3, 3, 3, 2)), ("HSIC", (1, 2, 1, 0, 1, 1))):
        tables += [answers(arm, (4, n), s) for s, n in enumerate(right)]
    (run.data / "disentangle").mkdir()
    pd.concat(tables).to_parquet(run.data / "disentangle" / "predictions.parquet")
    transfer.keep_disentangle(run)
    r = transfer.Transfer(run)
    assert r.candidates() == {"tempo": "above the base", "HSIC": "not separated"}
    table = r.table5().set_index("arm")
    assert table.loc["tempo", "change of UC"].startswith("+45.8 [") and (
        table.loc["tempo", "UC, all candidates"] == "above the base"
    )
    assert table.loc[transfer.BASE, "change of UC"] == common.NONE


def kept_transfer(run, right):
    """Scores of models by their right answers of four, known and not, by seed."""
    tables = []
    for model, by_seed in right.items():
        for seed, pair in enumerate(by_seed):
            mine = answers(model, pair, seed)
            names = mine["video"].str.replace("/", "/m") + "_id_31.mp4"
            tables.append(mine.assign(video=names, background="realistic"))
    (run.data / "transfer").mkdir()
    pd.concat(tables).to_parquet(run.data / "transfer" / "predictions.parquet")
    transfer.keep_transfer(run)
    return transfer.Transfer(run)


def test_table_2_has_intervals_over_seeds_and_contexts_and_says_why_little_is_known(
    run, monkeypatch, tmp_path
):
    run.transfer = params.load("study").transfer
    monkeypatch.setattr(transfer, "CALIBRATION", tmp_path / "calibration.csv")
    r = kept_transfer(
        run,
        {
            "AIM": [(4, 2), (4, 1)],
            "AIM, differences": [(4, 4)],
            "X3D": [(3, 2)],
            "I3D": [(2, 1), (1, 1)],
        },
    )
    table = r.beside(2).set_index("model")
    assert "AIM, differences" not in table.index
    assert table.loc["AIM", "HM, differences"] == "100.0" and table.loc["AIM", "seeds"] == 2
    assert table.loc["X3D", "HM, differences"] == common.NONE == table.loc["CIR", "KC"]
    # by context: two seeds of known less unknown, eight contexts each
    gap = np.array([[0, 0, 1, 1] * 2, [0, 1, 1, 1] * 2]) * 100.0
    own = r.contexts.query("model == 'AIM'")["d_abs"].to_numpy().reshape(2, 8)
    assert own.tolist() == gap.tolist()
    low, high = map(float, table.loc["AIM", "95 % of D_abs"].strip("[]").split(", "))
    assert low < gap.mean() < high
    assert (table["KC, calibration"] == common.NONE).all()

    t = run.transfer
    aim, x3d = (t.models[m] for m in ("AIM", "X3D"))
    row = {k: {"train_ids": t.train_ids, "model": k} for k in ("AIM", "X3D", "I3D")}
    row = {k: r | {"epochs": t.epochs_of(t.models[k])} for k, r in row.items()}
    tried = [
        row["AIM"] | {"lr": aim["lr"], "known": 91.0, "fitted": 95.0},
        row["X3D"] | {"lr": x3d["lr"], "known": 60.0, "fitted": 62.0},
        row["X3D"] | {"lr": x3d["lr"], "epochs": 99, "known": 85.0, "fitted": 90.0},
        row["I3D"] | {"lr": t.models["I3D"]["lr"], "known": 50.0, "fitted": 99.0},
    ]
    pd.DataFrame(tried).to_csv(tmp_path / "calibration.csv", index=False)
    found = r.calibrated()
    assert found == {
        "AIM": "91.0",
        "X3D": "60.0: 85.0 at 99 epochs, beyond the budget",
        "I3D": "50.0: fits 99.0 % of its training clips: too few of them",
    }
    few = pd.DataFrame([tried[1]])
    assert transfer.too_low(few) == "fits 62.0 % of its own training clips, at most so many epochs"


def test_the_order_of_models_beside_the_published_one(run):
    # published by HM: AIM, X3D, I3D, FROSTER
    r = kept_transfer(
        run,
        {"AIM": [(4, 4)], "X3D": [(4, 3)], "I3D": [(3, 3)], "FROSTER": [(4, 1)], "CIR": [(1, 1)]},
    )
    ranks = r.ranks().set_index("of")
    assert ranks.loc["HM: here, published", "models"] == 4  # CIR is none of the thirteen
    assert ranks.loc["HM: here, published", "ρ"] == pytest.approx(1.0)
    learnt = ranks.loc["HM: here, published; KC here 80 % or more"]
    assert (learnt["models"], learnt["ρ"]) == (3, pytest.approx(1.0))
    assert np.isnan(transfer.rank(pd.Series([1.0, 1, 1]), pd.Series([1.0, 2, 3]))["ρ"])


def test_directions_of_unequal_size_are_pooled_by_clip(run):
    names = {"model": "m", "seed": 0, "context": "known", "trained_on": [1, 2]}
    table = pd.DataFrame({**names, "run0": [100.0, 0.0], "run1": [50.0, 50.0], "clips": [3, 1]})
    common.keep(run, "factors", "names", table, ["model", "seed", "context", "trained_on"])
    found = across.Factors(run).by_context.loc[("m", 0, "known")]
    assert found.to_dict() == {"run0": 75.0, "run1": 50.0}


# One place
@pytest.mark.parametrize("number", RESULTS)
def test_notebooks_of_results_compute_none(number):
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    found = {n.module for n in ast.walk(ast.parse(code)) if isinstance(n, ast.ImportFrom)}
    measures = {m for m in found if m.startswith(("vlact.metrics", "scipy", "sklearn"))}
    assert not measures and "vlact.report.results" in code


def test_the_ledger_reads_score_tables_alone():
    code = (ROOT / "vlact/report/claims.py").read_text(encoding="utf-8")
    assert "read_parquet" not in code and "p.data" not in code
