"""`make repro` round DVC: what runs in which order, who is refused, what a killed run leaves."""

import json
import os
import re
import signal
import subprocess
import sys

import pandas as pd
import psutil
import pytest
import yaml
from reference.waiting import LIMIT_S, until

from vlact.runtime import leash
from vlact.tools import dag, pipeline, results_map

WAIT_FOR_ALIGNMENT = (
    *("alignment", "localizers", "actionvlm", "encoders", "arena", "own_localization", "across"),
    *("claims", "index", "speed"),
)


def at(stage, profile="smoke"):
    """A stage's address."""
    return f"{dag.GRAPH}:{stage}@{profile}"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with this repository's parameters and graph, and a `dvc` that notes which stages it
    was asked for.

    `dvc(changed, then)`: what `dvc status` says has changed, and what the script does with a stage,
    `$stage`.
    """
    for name in ("params.yaml", dag.GRAPH):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((pipeline.ROOT / name).read_text())
    for profile in ("smoke", "mini", "paper"):
        (folder := tmp_path / "data" / profile / "figures").mkdir(parents=True)
        pd.DataFrame(columns=results_map.COLUMNS).to_csv(folder / "index.csv", index=False)
    (tmp_path / "bin").mkdir()
    for module in (pipeline, dag):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(pipeline, "DVC", ["dvc"])
    monkeypatch.setattr(pipeline, "room_for", lambda profile, needed_gb: None)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def dvc(changed=(), then=""):
        path, found = tmp_path / "bin" / "dvc", json.dumps({stage: [] for stage in changed})
        note = 'for stage; do :; done\necho "begin $stage $*" >> log'
        path.write_text(
            f"#!/bin/sh\n[ $1 = status ] && echo '{found}' && exit\n{note}\n{then}\n"
            'echo "end $stage" >> log\n'
        )
        path.chmod(0o755)

    return tmp_path, dvc


def lines(folder, first):
    path = folder / "log"
    text = path.read_text() if path.exists() else ""
    return [line.split()[1] for line in text.splitlines() if line.startswith(first)]


def test_what_changed_and_what_comes_after_runs_two_at_a_time_after_its_inputs(project, capfd):
    folder, dvc = project
    dvc([at("alignment"), at("speed")], "echo \"Running stage '$stage':\"")
    before = (folder / "params.yaml").read_bytes()
    assert pipeline.repro("smoke") == 0
    out, after = capfd.readouterr().out, dag.graph("smoke")
    ran = lines(folder, "begin")
    assert sorted(ran) == sorted(map(at, WAIT_FOR_ALIGNMENT))
    running, done = set(), set()
    for line in (folder / "log").read_text().splitlines():
        what, stage = line.split()[:2]
        if what == "begin":
            assert after[stage] & set(ran) <= done
            running.add(stage)
            assert len(running) <= 2
        else:
            running.remove(stage)
            done.add(stage)
    assert re.search(r"\[1/10\] alignment: about \d+ min left in all", out)
    assert f"alignment | Running stage '{at('alignment')}':" in out
    assert re.search(r"smoke: up to date after \d+.\d min", out)
    assert "2 seeds decide nothing" in out and "data/smoke/figures/index.html" in out
    assert (folder / "params.yaml").read_bytes() == before


def test_two_stages_run_at_a_time(project):
    folder, dvc = project
    # each ends when the other has begun
    dvc([at("worlds"), at("stadium")], "until [ $(grep -c begin log) -ge 2 ]; do :; done")
    assert pipeline.repro("smoke") == 0


def test_the_stage_that_most_waits_for_goes_first_on_the_cores(project):
    folder, dvc = project
    both = "until [ $(grep -c begin log) -ge 2 ]; do :; done"
    dvc([at("stadium", "mini"), at("worlds", "mini")], f'echo "$stage $(nice)" >> nices\n{both}')
    assert pipeline.repro("mini") == 0
    nices = dict(line.split() for line in (folder / "nices").read_text().splitlines())
    chain, own = pipeline.Run("mini", True, {}).chain, os.nice(0)
    pair = at("stadium", "mini"), at("worlds", "mini")
    first, second = sorted(pair, key=chain.get, reverse=True)
    assert int(nices[first]) == own
    assert int(nices[second]) > own or own == 19


def test_nothing_changed_runs_nothing_and_force_runs_all(project, capfd):
    folder, dvc = project
    dvc()
    assert pipeline.repro("smoke") == 0 and not (folder / "log").exists()
    assert "up to date" in capfd.readouterr().out
    assert pipeline.main(["repro", "smoke", "-f"]) == 0
    ran = [x for x in (folder / "log").read_text().splitlines() if x.startswith("begin")]
    assert len(ran) == len(dag.graph("smoke")) == 25
    code = f"{dag.GRAPH}:code"
    assert ran[0] == f"begin {code} --wait-for-lock repro --single-item --force {code}"


def test_after_a_run_without_work_dvc_is_asked_again_when_a_file_has_changed(project):
    folder, dvc = project
    dvc([at("speed")])
    assert pipeline.repro("smoke") == 0 and lines(folder, "begin") == [at("speed")]
    dvc()
    assert pipeline.repro("smoke") == 0
    dvc([at("speed")])
    assert pipeline.repro("smoke") == 0 and lines(folder, "begin") == [at("speed")]
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text() + "\n")
    assert pipeline.repro("smoke") == 0 and lines(folder, "begin") == 2 * [at("speed")]


def test_a_stage_that_fails_stops_what_comes_after_it(project, capfd):
    folder, dvc = project
    dvc([at("worlds"), at("stadium")], f"[ $stage = {at('worlds')} ] && exit 3")
    assert pipeline.repro("smoke") == 3
    begun = set(lines(folder, "begin"))
    assert at("worlds") in begun and at("pretrain") not in begun
    assert "smoke: stopped after" in capfd.readouterr().out


def test_what_a_killed_stage_leaves_behind_does_not_hold_the_run(project):
    """Its child has the pipe that the run reads, in a session of its own."""
    folder, dvc = project
    orphan = f"{sys.executable} -c 'import os, time; os.setsid(); time.sleep(600)'"
    dvc([at("speed")], f"{orphan} &\nkill -9 $$")
    assert pipeline.repro("smoke") == -signal.SIGKILL


def test_a_status_that_fails_is_handed_on(project):
    folder, dvc = project
    dvc()
    (folder / "bin" / "dvc").write_text("#!/bin/sh\nexit 251\n")
    assert pipeline.repro("smoke") == 251


@pytest.mark.parametrize(
    "given, said",
    [("smok", "did you mean 'smoke'"), ("huge", "got 'huge'"), ("", "expected one of mini, paper")],
)
def test_an_unknown_profile_is_refused_with_the_near_name(project, capfd, given, said):
    assert pipeline.main(["repro", given]) == 2
    assert said in capfd.readouterr().err


def test_a_disk_without_room_is_refused_at_the_start(monkeypatch, capfd):
    usage = type("usage", (), {"free": 3e8})
    monkeypatch.setattr(pipeline.shutil, "disk_usage", lambda path: usage)
    assert pipeline.main(["repro", "smoke"]) == 2
    assert re.search(r"needs about 1.0 GB of disk and 0.3 GB are free", capfd.readouterr().err)


def test_a_second_run_says_so_and_changes_nothing(project, capfd):
    folder, dvc = project
    dvc([at("worlds")])
    with pipeline.alone("mini"):
        before = sorted(folder.rglob("*"))
        assert pipeline.main(["repro", "smoke"]) == pipeline.BUSY
        assert sorted(folder.rglob("*")) == before
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "another run is going on" in said and "PROFILE=mini" in said
    # the file of a run that is gone stops nobody
    assert pipeline.repro("smoke") == 0


def test_real_data_is_never_given_to_dvc_to_make(project, monkeypatch, capfd):
    """DVC empties a stage's folder before it runs it: data/paper/worlds is the user's."""
    folder, dvc = project
    dvc([at(s, "paper") for s in ("worlds", "claims", "trees")])
    monkeypatch.setattr(pipeline, "BY_NAME", ["sh", "-c", "echo byname $0 $1 >> log"])
    (film := folder / "data" / "paper" / "worlds" / "ata" / "p01.mp4").parent.mkdir(parents=True)
    film.write_text("hours of filming")
    assert pipeline.repro("paper") == 0 and lines(folder, "begin") == [at("trees", "paper")]
    assert sorted(lines(folder, "byname")) == ["alignment", "stadium", "worlds"]
    said = capfd.readouterr().out
    assert "left out are stages of the rendered worlds: " in said and "own_clips" in said
    assert "paper: kitchens is left out, data/paper/worlds/epic is not there" in said
    assert pipeline.repro("paper", force=True) == 0 and film.read_text() == "hours of filming"
    rules = yaml.safe_load((folder / "params.yaml").read_text())["real_data"]
    ran = {dag.short(s) for s in lines(folder, "begin")}
    left = {*rules["by_name"], *rules["left_out"], *rules["if_there"]}
    assert "pretrain" in ran and not ran & left
    (film.parents[1] / "epic").mkdir()
    assert pipeline.repro("paper", force=True) == 0
    assert at("kitchens", "paper") in lines(folder, "begin")


def test_plain_dvc_does_not_empty_folders_of_real_data():
    """Folders of real data outlive their stage."""
    by_name = dag.parameters()["real_data"]["by_name"]
    read = {out for s in by_name for out in dag.stages("paper")[s]["outs"] if "figures" not in out}
    assert read <= set(dag.persistent("paper")) and "data/paper/worlds" in read
    assert "data/real/real_ace" in dag.persistent("real")


def test_a_forced_run_renders_again(project):
    folder, dvc = project
    dvc()
    (old := folder / "data" / "smoke" / "worlds" / "made_by.json").parent.mkdir(parents=True)
    old.write_text("{}")
    assert pipeline.repro("smoke") == 0 and old.is_file()
    assert pipeline.repro("smoke", force=True) == 0 and not old.parent.exists()


# Killed is not stuck
FAMILY = """
import os, subprocess, sys
from vlact.runtime import leash

with leash.held(dict(os.environ)) as environment:
    # a child in a session of its own, and its child in another
    inner = "import time; print('up', flush=True); time.sleep(600)"
    outer = "import subprocess as s, sys; s.run(sys.argv[1:], start_new_session=True)"
    command = [sys.executable, "-c", outer, sys.executable, "-c", inner]
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    print("RUN", environment[leash.NAME], flush=True)
    sys.stdin.read()  # until told to end
"""


def run_with_family():
    """A run with a child and a grandchild in sessions of their own, once all are there."""
    process = subprocess.Popen(
        [sys.executable, "-c", FAMILY],
        cwd=pipeline.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    found = {}
    while len(found) < 2:
        word, *rest = process.stdout.readline().split()
        found[word] = rest
    return process, found["RUN"][0]


def all_gone(run):
    """Wait until no process of a run is left."""
    until(lambda: not leash.carriers(run), "the end of all that a run started")
    return True


@pytest.mark.parametrize("how", ["the run", "its group"])
def test_a_killed_run_leaves_no_orphan(how):
    process, run = run_with_family()
    assert len(leash.carriers(run)) >= 2
    if how == "the run":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(LIMIT_S)
    assert all_gone(run)


def test_a_run_that_ends_takes_along_what_it_started():
    process, run = run_with_family()
    process.stdin.close()
    assert process.wait(LIMIT_S) == 0 and all_gone(run)


def test_a_killed_watcher_is_not_needed_by_a_run_that_ends():
    process, run = run_with_family()
    for child in psutil.Process(process.pid).children():
        if "vlact.runtime.leash" in " ".join(child.cmdline()):
            child.kill()
    process.stdin.close()
    assert process.wait(LIMIT_S) == 0 and all_gone(run)


# Stages and the results map
def test_a_stage_keeps_what_a_killed_run_left_and_nothing_of_other_parameters(
    tmp_path, monkeypatch
):
    from vlact import params
    from vlact.stages import Stage

    monkeypatch.setattr(params, "ROOT", tmp_path)
    stage, p = Stage("films", "vlact.params", ("seeds",)), params.load("smoke", "films")
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


def test_index_gathers_the_map_of_every_stage(project):
    folder, _ = project
    (made := folder / "data/mini/figures/s").mkdir(parents=True)
    pd.DataFrame({"a": ["<b>", "x"], "n": [1, 2]}).to_csv(made / "a.csv", index=False)
    (made / "a.md").write_text("| a |")
    (made / "b.png").write_bytes(b"")
    row = {"paper": "ace", "item": "table1", "title": "t & u", "files": "s/a.csv s/a.md s/b.png"}
    (made / "map.json").write_text(json.dumps([row | {"notebook": "12_x.ipynb", "stage": "s"}]))
    pipeline.index("mini")
    index = folder / "data/mini/figures/index.csv"
    assert index.read_text().splitlines() == [
        ",".join(results_map.COLUMNS),
        "ace,table1,t & u,s/a.csv s/a.md s/b.png,12_x.ipynb,s",
    ]
    page = index.with_name("index.html").read_text()
    assert "t &amp; u" in page and "&lt;b&gt;" in page and '<img src="s/b.png"' in page
    assert "seeds decide nothing" in page and "Content-Security-Policy" in page


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
