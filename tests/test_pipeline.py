"""`make repro` round DVC: the switch, the estimate of the time left, and what a killed run leaves."""

import os
import re

import pytest
import yaml

from vlact import pipeline

PARAMS = (pipeline.ROOT / "params.yaml").read_text()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with this repository's params.yaml and a `dvc` that only talks."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(pipeline, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def dvc(script):
        path = tmp_path / "bin" / "dvc"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return tmp_path, dvc


def profile(folder):
    return yaml.safe_load((folder / "params.yaml").read_text())["run"]["name"]


def test_stages_are_announced_with_the_time_left_and_the_switch_goes_back(project, capfd):
    folder, dvc = project
    dvc("grep '<<: \\*smoke #' params.yaml >&2\necho \"Running stage 'worlds@smoke':\"\necho \"Running stage 'own_clips@smoke':\"\nexit 3")
    assert pipeline.repro("smoke", []) == 3
    out, err = capfd.readouterr()
    assert re.search(r"\[1/22\] worlds: about \d+ min left in all", out) and "[7/22] own_clips" in out
    assert "*smoke" in err, "dvc must see the profile that was asked for"
    assert profile(folder) == "mini" and not (folder / "data/tmp/profile").exists()


def test_a_killed_run_leaves_no_wrong_switch_behind_and_edits_survive(project):
    folder, dvc = project
    (folder / "data/tmp").mkdir(parents=True)
    (folder / "data/tmp/profile").write_text("mini")  # as a run killed while on smoke leaves things
    edited = pipeline.switch("smoke").replace("tau: 0.02", "tau: 0.05")
    (folder / "params.yaml").write_text(edited)
    dvc("exit 0")
    assert pipeline.repro("mini", []) == 0
    assert profile(folder) == "mini" and "tau: 0.05" in (folder / "params.yaml").read_text()


def test_an_unknown_profile_changes_nothing_and_says_which_there_are(project, capsys):
    folder, _ = project
    assert pipeline.main(["repro", "huge"]) == 2
    assert "PROFILE: expected one of ['mini', 'paper', 'smoke', 'study'], got 'huge'" in capsys.readouterr().err
    assert (folder / "params.yaml").read_text() == PARAMS
    assert pipeline.main(["dance"]) == 2


def test_index_gathers_the_map_of_every_stage(project):
    import json

    folder, _ = project
    (folder / "figures/mini/map").mkdir(parents=True)
    row = {"paper": "ace", "item": "table1", "title": "t", "files": "a.csv b.md", "notebook": "12_x.ipynb", "stage": "s"}
    (folder / "figures/mini/map/s.json").write_text(json.dumps([row]))
    pipeline.index("mini")
    assert (
        folder / "figures/mini/index.csv"
    ).read_text() == "paper,item,title,files,notebook,stage\nace,table1,t,a.csv b.md,12_x.ipynb,s\n"
    assert "| ACE | Table 1 | t | [md](figures/mini/b.md) | [12](notebooks/12_x.ipynb) | `s` |" in pipeline.results_table("mini")
