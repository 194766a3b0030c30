"""What a run would take, before it is begun."""

import pytest

from vlact import params
from vlact.tools import dag, dry_run, pipeline, plans


def test_every_stage_of_a_rendered_profile_has_hours_memory_and_files(capsys):
    found = dry_run.table("smoke").set_index("stage")
    graph = dag.graph("smoke")
    assert list(found.index) == [dag.short(s) for s in graph]
    trained = found.loc[["ace_train", "localizers", "actionvlm", "transfer"]]
    assert (trained["hours"] > 0).all() and (trained["GB"] > 0).all()
    assert found.loc["localizers", "writes"].startswith("data/smoke/localizers")
    assert pipeline.main(["repro", "smoke", "--dry-run"]) == 0
    assert "GB of disk. Nothing was begun." in capsys.readouterr().out
    assert pipeline.main(["repro", "smokey", "--dry-run"]) == 2
    assert "did you mean 'smoke'?" in capsys.readouterr().err


def test_at_full_size_trainings_are_counted_by_seeds_and_epochs(monkeypatch):
    step = plans.Step(4e9, 1e9, 1e15)
    for name in ("ace_step", "language_step", "transfer_step"):
        monkeypatch.setattr(plans, name, lambda *given: step)
    monkeypatch.setattr(dry_run, "localizer_step", lambda p, kind: (step, 2, 35))
    p, found = params.load("paper"), dry_run.table("paper").set_index("stage")
    assert found.loc["localizers", "GB"] == step.memory(2)
    runs = len(p.seeds) * len(p.tal.kinds)
    assert found.loc["localizers", "runs"] == runs
    whole = runs * 200 * 35 * step.flops
    assert found.loc["localizers", "hours"] == pytest.approx(
        whole / (plans.CARDS[dry_run.CARD][1] * plans.UTILISATION * 3600)
    )
    assert found.loc["actionvlm", "GB"] == step.memory(1)  # the paper's batch, not a localizer's
    assert "across" not in found.index  # of the rendered worlds


def test_a_localizer_of_the_paper_profile_has_its_published_numbers():
    step, batch, epochs = dry_run.localizer_step(params.load("paper"), "ActionFormer")
    assert (batch, epochs) == (2, 35) and step.fixed == pytest.approx(16 * 29.3e6, rel=0.02)
    assert 0.1e9 < step.kept < 3e9
