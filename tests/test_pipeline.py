"""`make repro` round DVC: what runs and in which order, the switch, the estimate of the time left,
and what a killed run leaves.
"""

import json
import os
import re

import pytest
import yaml

from vlact.tools import pipeline

WAIT_FOR_ALIGNMENT = (
    "alignment localisers actionvlm encoders own_localisation across claims index speed".split()
)
PARAMS = (pipeline.ROOT / "params.yaml").read_text()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with this repository's params.yaml and graph, and a `dvc` that notes which stages
    it was asked for.

    `dvc(changed, then)`: what `dvc status` says has changed, and what the script does with a stage,
    `$stage`.
    """
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "dvc.yaml").write_text((pipeline.ROOT / "dvc.yaml").read_text())
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(pipeline, "ROOT", tmp_path)
    monkeypatch.setattr(pipeline, "DVC", ["dvc"])
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def dvc(changed=(), then=""):
        path, found = tmp_path / "bin" / "dvc", json.dumps({stage: [] for stage in changed})
        note = 'for stage; do :; done\necho "begin $stage $*" >> log'
        path.write_text(
            f"#!/bin/sh\n[ $1 = status ] && echo '{found}' && exit\n{note}\n{then}\necho \"end "
            '$stage" >> log\n'
        )
        path.chmod(0o755)

    return tmp_path, dvc


def profile(folder):
    return yaml.safe_load((folder / "params.yaml").read_text())["run"]["name"]


def begun(folder):
    return [
        line.split()[1]
        for line in (folder / "log").read_text().splitlines()
        if line.startswith("begin")
    ]


def test_what_changed_and_what_comes_after_runs_two_at_a_time_after_its_inputs(project, capfd):
    folder, dvc = project
    dvc(
        ["alignment@smoke", "speed@smoke"],
        "grep -q '<<: \\*smoke #' params.yaml || exit 9\necho \"Running stage '$stage':\"\nsleep "
        "0.02",
    )
    assert pipeline.repro("smoke") == 0
    out, ran, after = capfd.readouterr().out, begun(folder), pipeline.graph("smoke")
    assert sorted(ran) == sorted(f"{s}@smoke" for s in WAIT_FOR_ALIGNMENT)
    running, done, most = set(), set(), 0
    for line in (folder / "log").read_text().splitlines():
        what, stage = line.split()[:2]
        if what == "begin":
            assert after[stage] & set(ran) <= done
            running.add(stage)
            most = max(most, len(running))
        else:
            running.remove(stage)
            done.add(stage)
    assert most == 2
    assert (
        re.search(r"\[1/9\] alignment: about \d+ min left in all", out)
        and "alignment | Running stage 'alignment@smoke':" in out
    )
    assert re.search(r"smoke: up to date after 0.\d min", out)
    assert profile(folder) == "mini" and not (folder / "data/tmp/profile").exists()


def test_the_stage_that_most_waits_for_goes_first_on_the_cores(project):
    folder, dvc = project
    dvc(["stadium@mini", "worlds@mini"], 'echo "$stage $(nice)" >> nices\nsleep 0.1')
    assert pipeline.repro("mini") == 0
    nices = dict(line.split() for line in (folder / "nices").read_text().splitlines())
    own = str(os.nice(0))
    assert nices["worlds@mini"] == own != nices["stadium@mini"] and {
        own,
        nices["stadium@mini"],
    } == set(nices.values())


def test_nothing_changed_runs_nothing_and_force_runs_all(project, capfd):
    folder, dvc = project
    dvc()
    assert pipeline.repro("smoke") == 0 and not (folder / "log").exists()
    assert "up to date" in capfd.readouterr().out
    assert pipeline.main(["repro", "smoke", "-f"]) == 0
    lines = [x for x in (folder / "log").read_text().splitlines() if x.startswith("begin")]
    assert len(lines) == len(pipeline.graph("smoke")) == 24
    assert lines[0] == "begin nbsrc --wait-for-lock repro --single-item --force nbsrc"


def test_a_stage_that_fails_stops_what_comes_after_it(project, capfd):
    folder, dvc = project
    # ends when the failure has been seen
    beside = "until [ -e failed ]; do sleep 0.01; done\nsleep 1"
    dvc(
        ["worlds@smoke", "stadium@smoke"],
        f"[ $stage = worlds@smoke ] && touch failed && exit 3\n{beside}",
    )
    assert pipeline.repro("smoke") == 3
    assert set(begun(folder)) == {"worlds@smoke", "stadium@smoke"}
    assert "smoke: stopped after" in capfd.readouterr().out and profile(folder) == "mini"


def test_a_status_that_fails_is_handed_on_and_the_switch_goes_back(project):
    folder, dvc = project
    dvc()
    (folder / "bin" / "dvc").write_text("#!/bin/sh\nexit 251\n")
    assert pipeline.repro("smoke") == 251 and profile(folder) == "mini"


def test_a_killed_run_leaves_no_wrong_switch_behind_and_edits_survive(project):
    folder, dvc = project
    (folder / "data/tmp").mkdir(parents=True)
    (folder / "data/tmp/profile").write_text("mini")  # as a run killed while on smoke leaves things
    edited = pipeline.switch("smoke").replace("tau: 0.02", "tau: 0.05")
    (folder / "params.yaml").write_text(edited)
    dvc()
    assert pipeline.repro("mini") == 0
    assert profile(folder) == "mini" and "tau: 0.05" in (folder / "params.yaml").read_text()


def test_real_data_is_never_given_to_dvc_to_make(project, monkeypatch, capfd):
    """DVC empties a stage's folder before it runs it: data/paper/worlds is the user's."""
    folder, dvc = project
    dvc(["worlds@paper", "claims@paper", "trees@paper"])
    monkeypatch.setattr(pipeline, "BY_NAME", ["sh", "-c", "echo by name $0 $1 >> log"])
    (film := folder / "data" / "paper" / "worlds" / "ata" / "p01.mp4").parent.mkdir(parents=True)
    film.write_text("hours of filming")
    assert pipeline.repro("paper") == 0 and begun(folder) == ["trees@paper"]
    assert sorted(x for x in (folder / "log").read_text().splitlines() if x.startswith("by")) == [
        f"by name {stage} paper" for stage in ("alignment", "stadium", "worlds")
    ]
    assert "left out are stages of the rendered worlds: own_clips, " in (
        said := capfd.readouterr().out
    )
    assert "paper: kitchens is left out, data/paper/worlds/epic is not there" in said
    assert pipeline.repro("paper", force=True) == 0 and film.read_text() == "hours of filming"
    ran, known = {s.split("@")[0] for s in begun(folder)}, yaml.safe_load(PARAMS)["real_data"]
    assert "pretrain" in ran and not ran & {
        *known["by_name"],
        *known["left_out"],
        *known["if_there"],
    }
    (film.parents[1] / "epic").mkdir()
    assert pipeline.repro("paper", force=True) == 0 and "kitchens@paper" in begun(folder)


def test_plain_dvc_does_not_empty_folders_of_real_data():
    """`dvc repro` with `run: *paper` goes round `make`; folders outlive their stage, and a forced
    run starts from nothing.
    """
    outs = {
        name: stage.get("outs", [])
        for name, stage in yaml.safe_load((pipeline.ROOT / "dvc.yaml").read_text())[
            "stages"
        ].items()
    }
    kept = {
        next(iter(o)).split("/")[-1]
        for stage in outs.values()
        for o in stage
        if isinstance(o, dict) and o[next(iter(o))].get("persist")
    }
    assert kept == set(pipeline.PERSISTENT)


def test_a_forced_run_renders_again(project):
    folder, dvc = project
    dvc()
    (old := folder / "data" / "smoke" / "worlds" / "made_by.json").parent.mkdir(parents=True)
    old.write_text("{}")
    assert pipeline.repro("smoke") == 0 and old.is_file()
    assert pipeline.repro("smoke", force=True) == 0 and not old.parent.exists()


def test_a_stage_keeps_what_a_killed_run_left_and_nothing_of_other_parameters(
    tmp_path, monkeypatch
):
    from vlact import params
    from vlact.stages import Stage

    monkeypatch.setattr(params, "ROOT", tmp_path)
    stage, p = Stage("films", (), ("seeds",)), params.load("smoke", "films")
    (folder := p.data / "films").mkdir(parents=True)
    # first run, the same after a kill, other parameters
    for seeds, there in (([0], []), ([0], ["a.mp4"]), ([1], [])):
        p = params.load("smoke", "films", seeds=seeds)
        assert stage.must_run(p, folder, False)
        assert sorted(f.name for f in folder.glob("*.mp4")) == there
        (folder / "a.mp4").write_text("film")
    stage.finish(p, folder)
    assert sorted(f.name for f in folder.iterdir()) == [
        "a.mp4",
        "made_by.json",
    ] and not stage.must_run(p, folder, False)


def test_an_unknown_profile_changes_nothing_and_says_which_there_are(project, capsys):
    folder, _ = project
    assert pipeline.main(["repro", "huge"]) == 2
    assert (
        "PROFILE: expected one of ['mini', 'paper', 'smoke', 'study'], got 'huge'"
        in capsys.readouterr().err
    )
    assert (folder / "params.yaml").read_text() == PARAMS
    assert pipeline.main(["dance"]) == 2


def test_index_gathers_the_map_of_every_stage(project):
    folder, _ = project
    (folder / "figures/mini/map").mkdir(parents=True)
    row = {
        "paper": "ace",
        "item": "table1",
        "title": "t",
        "files": "a.csv b.md",
        "notebook": "12_x.ipynb",
        "stage": "s",
    }
    (folder / "figures/mini/map/s.json").write_text(json.dumps([row]))
    pipeline.index("mini")
    assert (
        folder / "figures/mini/index.csv"
    ).read_text() == "paper,item,title,files,notebook,stage\nace,table1,t,a.csv b.md,12_x.ipynb,s\n"
    assert (
        "| ACE | Table 1 | t | [md](figures/mini/b.md) | [12](notebooks/12_x.ipynb) | `s` |"
        in pipeline.results_table("mini")
    )


def test_every_stage_runs_by_its_name():
    import importlib

    from vlact.stages.__main__ import HOMES, STAGES

    files = {f.stem for f in (pipeline.ROOT / "vlact" / "stages").glob("*.py")} - {
        "__init__",
        "__main__",
        "own",
    }
    assert {HOMES.get(s, s) for s in STAGES} == files
    assert all(
        callable(getattr(importlib.import_module(f"vlact.stages.{HOMES.get(s, s)}"), s))
        for s in STAGES
    )
