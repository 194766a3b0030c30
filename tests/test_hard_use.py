"""Hard use: thousands of malformed files into every reader, the evaluator under properties,
strangers' files, full disks.
"""

import ast
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from reference.processes import countdown, run
from reference.waiting import until
from torch import nn

from vlact import ROOT, schema
from vlact.datasets import activitynet, activitynet13, epic, features, folder, thumos14, transfer
from vlact.language.trees import Trees
from vlact.metrics.localization import evaluate
from vlact.models import files
from vlact.runtime import jobs
from vlact.runtime.jobs import write_whole
from vlact.tools import cli_inputs
from vlact.training.loop import fit

PHASES = (Phase.explicit, Phase.generate)
CLASSES = {7: "BaseballPitch", 9: "BasketballDunk"}
NOTES = {
    "subset": "test",
    "duration": 20.0,
    "annotations": [{"segment": [1.0, 4.5], "label": "Diving"}],
}
SOURCES = {  # reader: a good file, and how it is read
    "own clips": (
        "path,start_s,end_s,label,split\na.mp4,0,1,drop cup,train\nb.mp4,1,2,push cup,test\n",
        ".csv",
        folder.read,
    ),
    "activitynet": (
        json.dumps({"database": {"v_a": NOTES, "b": NOTES}}),
        ".json",
        lambda p: activitynet.ground_truth(p, "test"),
    ),
    "results": (
        json.dumps(
            {"results": {"a": [{"segment": [1, 2], "label": "x", "score": 0.5}], "v_b": []}}
        ),
        ".json",
        activitynet.results,
    ),
    "bmn": (
        json.dumps(
            {"v_a": {"duration_second": 20, "annotations": [{"segment": [1, 2], "label": "x"}]}}
        ),
        ".json",
        lambda p: activitynet13.bmn(p, p.parent / "videos.csv"),
    ),
    "tsp": (
        "filename,t-start,t-end,action-label,video-duration,temporal-region-label,video-name\na.mp4,1.0,2.0,x,9.0,Action,a\n"
        "a.mp4,2.0,3.0,x,9.0,No action,a\n",
        ".csv",
        activitynet13.tsp,
    ),
    "epic": (
        "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
        "P01_1,P01,P01_01,00:00:01.00,00:00:02.50,0,10\nP02_1,P02,P02_01,00:01:01.00,00:01:02.50,3,4\n",
        ".csv",
        lambda p: epic.ground_truth(p, "action"),
    ),
    "thumos text": (
        "video_test_0000004  0.2  1.1\nvideo_test_0000006  52.6  58.3\n",
        "_test.txt",
        lambda p: thumos14.ground_truth(p.parent, "test")[0],
    ),
    "thumos classes": ("7 BaseballPitch\n9 BasketballDunk\n", ".txt", thumos14.class_list),
    "g-tad annotations": (
        "video,type,typeIdx,start,end,startFrame,endFrame\nvideo_test_0000004,Diving,5,0.2,1.1,6,33\n",
        ".csv",
        thumos14.annotation_csv,
    ),
    "g-tad ground truth": (
        "video-name,t-init,t-end,f-init,f-end,video-duration,frame-rate,video-frames,label-idx\nvideo_test_0000004,0.2,1.1,6,33,9.0,30.0,270,7\n"
        "video_test_0000004,2.0,3.0,60,90,9.0,30.0,270,-1\n",
        ".csv",
        lambda p: thumos14.groundtruth_csv(p, CLASSES)[0],
    ),
    "rtd-net": (
        json.dumps(
            {
                "video_test_0000004": {
                    "duration_second": 9.0,
                    "annotations": [{"segment": [0.2, 1.1], "class": "Diving"}],
                }
            }
        ),
        ".json",
        thumos14.anno_action,
    ),
    "cuhk scores": (
        json.dumps({"results": {"a": [0.1, 0.9]}, "class": ["x", "y"]}),
        ".json",
        features.cuhk_scores,
    ),
    "annotations": (
        "video,start_s,end_s,label,split,group,verb,object\na.mp4,0,1,drop "
        "cup,train,P01,drop,cup\nb.mp4,1,2,push cup,test,P02,push,cup\n",
        ".csv",
        schema.read_annotations,
    ),
    "synonym trees": (
        "# two verbs\nlift: {lift: [raise, hoist], raise: [lift, hoist], hoist: [lift, raise]}\n"
        "drop:\n  drop: [release, let go]\n  release: [drop, let go]\n  let go: [drop, release]\n",
        ".yaml",
        lambda p: Trees.load(p, ("lift",)),
    ),
    "motion lists": ("a/b c.mp4 0\nd.mp4 1\ne.mp4 1\n", ".txt", lambda p: transfer.read_list(p, 2)),
    "truth of the command line": (
        "video,start_s,end_s,label,split\na,0,1,run,train\nb,1,2,run,test\n",
        ".csv",
        lambda p: cli_inputs.read_truth(p).table,
    ),
    "results of the command line": (
        "video,start_s,end_s,label,score\na,0,1,run,.5\nb,1,2,run,1e-3\n",
        ".csv",
        cli_inputs.read_results,
    ),
    "results as text": ("a 0 1 run .5\nb 1 2 run 1e-3\n", ".txt", cli_inputs.read_results),
    "features, csv": ("0,1,2\n0.5,1.5,2.5\n3.5,4.5,5.5\n", ".csv", features.read),
}
JUNK = [
    "",
    "nan",
    "-1",
    "inf",
    "-inf",
    "1e309",
    "1e-320",
    "NULL",
    "null",
    "0x1F",
    "١٢",
    "é",
    "\x00",
    '"',
    "'",
    "[]",
    "{}",
    "[[",
    "true",
    ",",
    ":",
    "\t",
    "\r",
]
JUNK += [
    "99999999999999999999",
    "a" * 300,
    "-0",
    "1,2",
    "=1+1",
    "../../etc/passwd",
    "- -",
    "&x",
    "*x",
    "!!python/object/apply:os.system [id]",
]
change = st.tuples(
    st.sampled_from(["cut", "drop", "double", "flip", "junk", "number", "swap"]),
    st.floats(0, 0.999),
    st.sampled_from(JUNK),
    st.integers(1, 255),
)


def broken(text: str, changes: list[tuple]) -> bytes:
    """A file with some things gone wrong."""
    data = text.encode()
    for kind, where, junk, bits in changes:
        at = int(where * len(data))
        lines = data.split(b"\n")
        k = int(where * len(lines))
        if kind == "cut":
            data = data[:at]
        elif kind == "drop":
            data = b"\n".join(lines[:k] + lines[k + 1 :])
        elif kind == "double":
            data = b"\n".join(lines[: k + 1] + lines[k:])
        elif kind == "swap":
            data = b"\n".join(lines[k:] + lines[:k])
        elif kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
        elif kind == "junk":
            data = data[:at] + junk.encode() + data[at:]
        elif kind == "number":  # the number at or after a place becomes something else
            if found := re.search(rb"-?\d+(\.\d+)?", data[at:]):
                data = data[: at + found.start()] + junk.encode() + data[at + found.end() :]
    return data


def sound(table) -> bool:
    """What any table of segments promises."""
    if not isinstance(table, pd.DataFrame):
        return True
    if {"start_s", "end_s"} <= set(table):
        times = table[["start_s", "end_s"]].to_numpy(float)
        return (
            bool(np.isfinite(times).all())
            and table["video"].notna().all()
            and (table["label"].notna().all() if "label" in table else True)
        )
    return True


@pytest.mark.parametrize("name", SOURCES)
def test_a_good_file_is_read(name, tmp_path):
    text, suffix, read = SOURCES[name]
    (tmp_path / "videos.csv").write_text("video,subset\nv_a,training\n", encoding="utf-8")
    (path := tmp_path / f"file{suffix}").write_text(text, encoding="utf-8")
    assert sound(read(path))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", SOURCES)
def test_a_broken_file_is_refused_in_words_or_read_soundly(name, tmp_path_factory):
    text, suffix, read = SOURCES[name]
    place = tmp_path_factory.mktemp("broken")
    (place / "videos.csv").write_text("video,subset\nv_a,training\n", encoding="utf-8")
    path = place / f"file{suffix}"

    @settings(phases=PHASES)
    @given(st.lists(change, min_size=1, max_size=3))
    def every(changes):
        path.write_bytes(broken(text, changes))
        try:
            found = read(path)
        except (ValueError, FileNotFoundError) as error:
            assert path.name in str(error), (
                f"does not name the file: {type(error).__name__}: {error}"
            )
        else:
            assert sound(found), f"a wrong number without a word:\n{found}"

    every()


# The evaluator
segment = st.tuples(
    st.sampled_from("ab"), st.floats(0, 50), st.floats(0.1, 20), st.sampled_from("xy")
)


def table(rows, scores=None) -> pd.DataFrame:
    out = pd.DataFrame(
        [(v, s, s + d, c) for v, s, d, c in rows], columns=["video", "start_s", "end_s", "label"]
    )
    return out if scores is None else out.assign(score=scores)


@pytest.mark.fuzz
@given(
    st.lists(segment, min_size=1, max_size=12),
    st.lists(st.tuples(segment, st.floats(0, 1)), min_size=1, max_size=25),
    st.randoms(),
)
def test_average_precision_keeps_its_laws(truth, said, chance):
    given_truth = table(truth)
    known = [(s, p) for s, p in said if s[3] in set(given_truth["label"])]
    scores = [p + 1e-6 * i for i, (_, p) in enumerate(known)]  # no ties
    predictions, tious = table([s for s, _ in known], scores), [0.3, 0.5, 0.7]
    if not set(predictions["video"]) & set(given_truth["video"]):
        return  # an error, tested elsewhere
    ap = evaluate(given_truth, predictions, tious=tious)["ap"].to_numpy()
    assert ((ap >= 0) & (ap <= 1)).all()
    order = list(range(len(predictions)))
    chance.shuffle(order)
    # order of rows means nothing
    assert np.allclose(
        ap, evaluate(given_truth.iloc[::-1], predictions.iloc[order], tious=tious)["ap"]
    )
    later = [
        t.assign(start_s=t["start_s"] * 4, end_s=t["end_s"] * 4) for t in (given_truth, predictions)
    ]
    # nor the unit of time (a power of two loses no digits)
    assert np.allclose(ap, evaluate(*later, tious=tious)["ap"])
    low = pd.concat(
        [predictions, predictions.assign(score=-1 - predictions["score"])], ignore_index=True
    )
    # more guesses behind the last cost nothing
    assert (evaluate(given_truth, low, tious=tious)["ap"].to_numpy() >= ap - 1e-12).all()
    whole = given_truth.drop_duplicates().assign(score=5.0)
    best = pd.concat(
        [whole, predictions.assign(score=predictions["score"] - 10)], ignore_index=True
    )
    # knowing everything is perfect
    assert np.allclose(evaluate(given_truth.drop_duplicates(), best, tious=tious)["ap"], 1)


@pytest.mark.fuzz
@given(
    st.sampled_from(["video", "start_s", "end_s", "label", "score"]),
    st.sampled_from([None, "", "nan", float("nan"), float("inf"), -3.0, "junk", [], 10**30]),
)
def test_a_wrong_cell_of_a_prediction_is_an_error_or_counts_as_wrong(column, value):
    truth = table([("a", 0.0, 5.0, "x"), ("b", 1.0, 5.0, "x")])
    said = table([("a", 0.0, 5.0, "x"), ("b", 1.0, 5.0, "x")], [0.9, 0.8]).astype(object)
    said.at[1, column] = value
    try:
        ap = evaluate(truth, said, tious=[0.5])["ap"].to_numpy()
    except (ValueError, TypeError) as error:
        assert str(error)
    else:
        assert np.isfinite(ap).all() and ((ap >= 0) & (ap <= 1)).all()


# Strangers
def test_nothing_in_the_library_can_run_what_it_reads():
    for path in (ROOT / "vlact").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", "")
                names = {a.name for a in node.names} | {module}
                # labels of published sets: no name is looked up, see tests/test_real_readers.py
                plain = {"pickle"} if path.name == "plain_pickle.py" else set()
                assert not names & {"pickle", "dill", "cloudpickle", "marshal"} - plain, path
                assert module != "joblib" or "load" not in names, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called, given_words = (
                    ast.unparse(node.func),
                    {k.arg: ast.unparse(k.value) for k in node.keywords},
                )
                if called == "torch.load":
                    assert given_words.get("weights_only") == "True", f"{path}:{node.lineno}"
                assert given_words.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"
                assert given_words.get("trust_remote_code", "False") == "False", (
                    f"{path}:{node.lineno}"
                )
                assert called not in (
                    "yaml.load",
                    "joblib.load",
                    "pd.read_pickle",
                    "yaml.unsafe_load",
                    "np.fromregex",
                ), f"{path}:{node.lineno}"


class Evil:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_pickles_from_strangers_do_not_run(tmp_path):
    from vlact.models import checkpoints

    for name, read in (
        ("m.pth", checkpoints.read),
        ("f.pt", features.read),
        ("f.npy", features.read),
    ):
        path, evil = tmp_path / name, Evil(tmp_path / "it ran")
        torch.save({"model": evil}, path) if path.suffix != ".npy" else np.save(
            path, np.array([evil], object), allow_pickle=True
        )
        with pytest.raises((pickle.UnpicklingError, ValueError)):
            read(path)
    assert not (tmp_path / "it ran").exists()


# Disks
FULL = """
import resource, sys
from pathlib import Path
import numpy as np, pandas as pd, torch
from vlact.runtime.jobs import write_whole
from vlact.report.tables import write_text
from vlact.video.clips import save_frames
from vlact.models import files
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
big = {"w": torch.randn(100, 100)}
table = pd.DataFrame(np.random.rand(5000, 3), columns=list("abc"))
ways = {
    "a.txt": lambda p: write_text(p, "x" * 10000),
    "b.txt": lambda p: write_whole(p, lambda t, f: f.write_text(t), "x" * 10000),
    "c.npy": lambda p: save_frames(p, np.zeros(10000, np.uint8)),
    "d.safetensors": lambda p: files.save(p, "k", {}, big),
    "e.parquet": lambda p: write_whole(p, lambda d, f: d.to_parquet(f), table),
}
for name, way in ways.items():
    (folder / name).write_text("before")
    try:
        way(folder / name)
        print(name, "no error")
    except Exception as error:
        print(name, type(error).__name__)
"""


def test_a_full_disk_leaves_what_was_there(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=600
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 5 and "no error" not in done.stdout, done.stdout + done.stderr[-500:]
    for name in ("a.txt", "b.txt", "c.npy", "d.safetensors", "e.parquet"):
        assert (tmp_path / name).read_text(encoding="utf-8") == "before", name


# Kills
STEPS, JOBS = 900, 3
EVERY = 12  # steps from checkpoint to checkpoint
KILLS = 6


def train_one(place: Path, number: int, moment) -> list[dict]:
    """A job that trains, keeps a checkpoint every few steps, and leaves weights."""
    torch.manual_seed(number)
    model = nn.Sequential(nn.Linear(64, 256), nn.Dropout(0.2), nn.Linear(256, 8))
    generator = torch.Generator().manual_seed(number)

    def loss_of(step: int) -> torch.Tensor:
        moment()
        x = torch.randn(64, 64, generator=generator)
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return nn.functional.cross_entropy(model(x), x[:, :8].argmax(1))

    curve = fit(
        {"model": model},
        loss_of,
        STEPS,
        0.01,
        0.01,
        generator,
        "kills",
        str(place / f"{number}.pt"),
        every=EVERY,
    )
    files.save(place / f"{number}.safetensors", "kills", {"number": number}, model.state_dict())
    return curve


def stage(place: Path, moments: int) -> None:
    """Several jobs and a table of them, as stages are made; killed at one of its moments, or never.

    A moment is a step, a file of which half is written, and a whole file before it has its name.
    """
    torch.set_num_threads(1)
    replace, moment = Path.replace, countdown(moments)

    def replaced(written: Path, name: Path) -> Path:
        data = written.read_bytes()
        written.write_bytes(data[: len(data) // 2])
        moment()
        written.write_bytes(data)
        moment()
        return replace(written, name)

    Path.replace = replaced
    curves = [jobs.kept(place / f"{k}.json", train_one, place, k, moment) for k in range(JOBS)]
    write_whole(
        place / "curves.csv", lambda d, f: d.to_csv(f, index=False), pd.DataFrame(sum(curves, []))
    )


def test_kills_change_no_byte(tmp_path):
    def result(place: Path) -> dict[str, bytes]:
        return {
            p.name: p.read_bytes()
            for p in sorted(place.iterdir())
            if p.suffix in (".safetensors", ".csv", ".json")
        }

    (whole := tmp_path / "whole").mkdir()
    (killed := tmp_path / "killed").mkdir()
    assert run(stage, whole, 0) == 0
    # all of these together are less than the whole, and most more than it takes to a checkpoint
    moments = np.random.default_rng(0).integers(1, STEPS * JOBS // KILLS, KILLS)
    assert {run(stage, killed, int(n)) for n in moments} == {-signal.SIGKILL}
    left = {p.name for p in killed.iterdir()}
    assert "0.json" in left and "curves.csv" not in left, left  # some way, and not to the end
    assert run(stage, killed, 0) == 0 and result(killed) == result(whole)
    assert {p.suffix for p in killed.iterdir()} == {".safetensors", ".csv", ".json", ".pt"}


def test_two_runs_of_the_pipeline_at_once_do_not_mix(tmp_path):
    """The second says that another one is at work, and what is made is whole."""
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["git", "init", "-q", "."], [*dvc, "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    # a stage that says that it is at work, and ends when it is told to
    (tmp_path / "stage.py").write_text(
        "from pathlib import Path\nPath('begun').touch()\n"
        "open('end').close()  # waits for who writes there\nPath('out.txt').write_text('done')\n",
        encoding="utf-8",
    )
    os.mkfifo(tmp_path / "end")
    stages = {"one": {"cmd": f'"{sys.executable}" stage.py', "outs": ["out.txt"]}}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": stages}), encoding="utf-8")
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        first = subprocess.Popen([*dvc, "repro"], cwd=tmp_path, stdout=log, stderr=log)
    until((tmp_path / "begun").exists, "the first run's stage", first)
    second = subprocess.run([*dvc, "repro"], cwd=tmp_path, capture_output=True, text=True)
    (tmp_path / "end").write_text("", encoding="utf-8")
    assert second.returncode != 0 and "is busy" in second.stderr, second.stderr
    assert first.wait(600) == 0 and (tmp_path / "out.txt").read_text(encoding="utf-8") == "done"
