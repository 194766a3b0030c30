"""Jobs of a stage: processes, their progress, and files that are whole or not there."""

import contextlib
import multiprocessing
import os
import pickle
import platform
import subprocess
import sys
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import LocalCluster
from reference.elsewhere import own_gpu
from reference.waiting import until
from reference.work import SlowStepsJob, hold_two, slow_steps, squares

from vlact.runtime import jobs


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other allocators give back by themselves, or never"
)
def test_a_process_that_waits_for_workers_has_given_back_what_it_freed():
    def resident():
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )

    jobs.run(squares(1, 2), 2, "squares")
    held = [b"x" * 100_000 for _ in range(4000)]
    pins = held[::50]  # between them lies what is freed, out of the allocator's own sight
    del held
    before = resident()
    jobs.run(squares(1, 2), 2, "squares")
    assert before - resident() > 300e6 and len(pins) == 80
    jobs.close()


def test_jobs_keep_their_order_and_pass_errors_on(tmp_path):
    wanted = squares(5, 1, 4)
    assert jobs.run(wanted, 2, "squares") == [25, 1, 16] == jobs.run(wanted, 1, "squares")
    with pytest.raises(ValueError, match="three"):
        jobs.run(squares(1, 3), 2, "squares")
    assert jobs.run(wanted, 2, "squares") == [25, 1, 16]  # a new pool after an error
    jobs.close()


@pytest.mark.parametrize(
    "kind, wanted", [(SlowStepsJob, [0.2] * 5 + [0.25] * 4), (partial(partial, slow_steps), [1, 1])]
)
def test_inner_steps_of_a_job_count_only_where_it_says_so(kind, wanted, monkeypatch):
    monkeypatch.setenv("VLACT_PROGRESS", "lines")
    amounts = []
    monkeypatch.setattr(jobs.Progress, "update", lambda self, amount=1.0: amounts.append(amount))
    assert jobs.run([kind(5), kind(3, more=1)], 2, "outer") == [5, 4]
    jobs.close()
    assert sorted(amounts) == sorted(wanted)


def test_a_job_is_a_frozen_record_of_its_functions_arguments():
    job = SlowStepsJob(5)
    assert (job.steps, job.more, job.tracked, job()) == (5, 0, True, 5)
    assert job == SlowStepsJob(steps=5) and pickle.loads(pickle.dumps(job)) == job
    with pytest.raises(FrozenInstanceError):
        job.steps = 6
    with pytest.raises(TypeError, match="unexpected keyword argument 'step'"):
        SlowStepsJob(step=5)


def test_no_worker_outlives_a_parent_that_is_killed(tmp_path):
    parent = multiprocessing.get_context("spawn").Process(target=hold_two, args=[str(tmp_path)])
    parent.start()
    notes = [tmp_path / str(k) for k in range(2)]
    until(lambda: all(n.is_file() and n.read_text() for n in notes), "two jobs that work")
    workers = [psutil.Process(int(n.read_text(encoding="utf-8"))) for n in notes]
    parent.kill()
    parent.join()
    until(lambda: not any(alive(w) for w in workers), "the end of orphans")


def alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def test_a_cluster_gives_the_same_results(tmp_path, monkeypatch):
    """Two dask workers, as `VLACT_DASK=tcp://scheduler:8786` reaches those of other machines."""
    wanted = [*squares(5, 1, 4), SlowStepsJob(7)]
    here = jobs.run(wanted, 2, "here")
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        monkeypatch.setenv(jobs.CLUSTER, cluster.scheduler_address)
        assert jobs.run(wanted, 1, "there") == here == [25, 1, 16, 7]
        with pytest.raises(ValueError, match="three"):
            jobs.run(squares(1, 3), 2, "there")
        # each of its workers has a GPU of its own, though nobody numbers them
        meet = [partial(own_gpu, str(tmp_path), 2, 2)] * 2
        found = dict(jobs.run(meet, 1, "there"))
    assert sorted(found) == ["cuda:0", "cuda:1"] and len(set(found.values())) == 2
    jobs.close()


def test_progress_prints_plain_lines_with_the_time_left(capsys, monkeypatch):
    monkeypatch.setenv("VLACT_PROGRESS", "lines")
    now = 0.0
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now)
    progress = jobs.Progress(4, "work", every_s=90.0)
    for _ in range(4):
        now += 60.0  # a minute for each of four pieces of work
        progress.update()
    assert capsys.readouterr().err.splitlines() == [
        "work: 50 %, 2.0 min left",
        "work: 100 %, 0.0 min left",
    ]


def test_two_jobs_may_write_the_same_file_and_what_a_killed_one_left_is_removed(tmp_path):
    path = tmp_path / "shared.txt"
    (tmp_path / "shared.txt.999999999.tmp").write_text("half", encoding="utf-8")
    here = str(Path(__file__).parent)
    code = (
        f"import sys; sys.path.insert(0, {here!r})\n"
        f"from reference.work import write_often\nwrite_often({str(path)!r})"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(2)
    ]
    errors = [child.communicate(timeout=600)[1].decode() for child in both]
    assert all(child.returncode == 0 for child in both), errors
    assert path.read_text(encoding="utf-8") == "x" * 5000 and [
        f.name for f in tmp_path.iterdir()
    ] == ["shared.txt"]


def test_what_a_killed_film_left_half_written_is_removed_and_nothing_else(tmp_path):
    from vlact import video

    for name in ("a.mp4.999999999.tmp", f"a.mp4.{os.getppid()}.tmp", "b.mp4"):
        (tmp_path / name).write_text("", encoding="utf-8")
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    jobs.kept(
        tmp_path / "note.json", lambda folder: video.write(folder / "a.mp4", frames, 8), tmp_path
    )
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(
        ["a.mp4", f"a.mp4.{os.getppid()}.tmp", "b.mp4", "note.json"]
    )


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        jobs.write_whole(
            tmp_path / "a.txt", lambda data, f: f.write_text(str(1 / data), encoding="utf-8"), 0
        )
    assert not list(tmp_path.iterdir())
