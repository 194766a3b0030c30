"""Readers of the real datasets on files made on the spot, `make doctor`, and synonym providers
against a local server.
"""

import hashlib
import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import HfApi
from reference.realdata import REALDATA, needs_realdata

from vlact import schema, video
from vlact.datasets import __main__ as command
from vlact.datasets import activitynet, activitynet13, ata, features, gtea, ikea, thumos14
from vlact.datasets import epic as epic_kitchens
from vlact.language import providers, tasks
from vlact.language.trees import Trees
from vlact.models.text import MINILM_SHA256
from vlact.stages.ace import clip_table, fold
from vlact.tools import doctor


def film(path, frames, fps):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    video.write(path, rng.integers(0, 255, (frames, 32, 32, 3), dtype=np.uint8), fps)


# ATA
@pytest.fixture
def toys(tmp_path):
    film(tmp_path / "p01_front.mp4", 60, 30)
    rows = [
        "p01_front.mp4,0,29,fasten_screw,P1,train",
        "p01_front.mp4,30,44,SIL,P1,train",
        "p01_front.mp4,45,59,pickup,P9,test",
    ]
    (tmp_path / "actions.csv").write_text(
        "video,start_frame,end_frame,label,participant,split\n" + "\n".join(rows) + "\n"
    )
    return tmp_path


def test_ata_frames_become_seconds_and_names_become_ace_s(toys):
    table = ata.read(toys)
    assert table["label"].tolist() == ["fasten screw", "idle", "pick up item"] and table[
        "view"
    ].unique().tolist() == ["front"]
    assert table["start_s"].tolist() == pytest.approx([0, 1, 1.5]) and table[
        "end_s"
    ].tolist() == pytest.approx([1, 1.5, 2])
    assert ata.read(toys, idle=False)["label"].tolist() == ["fasten screw", "pick up item"]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("fasten_screw", "juggle", "line 2: unknown label 'juggle'"),
        (",train", ",practice", "line 2: split must be train, val or test; got 'practice'"),
        ("0,29", "29,0", "line 2: expected 0 <= start_frame <= end_frame; got 29 and 0"),
        ("45,59", "90,99", r"line 4: frames 90..99 start after .*p01_front.mp4 ends \(60 frames\)"),
        ("0,29", "0,x", "line 2: frames must be whole numbers"),
        ("p01_front.mp4,0", "gone.mp4,0", "line 2: .*gone.mp4: expected a video file"),
        ("participant", "who", r"line 1: missing columns \['participant'\]"),
    ],
)
def test_ata_says_what_is_wrong_and_where(toys, old, new, message):
    csv = toys / "actions.csv"
    csv.write_text(csv.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        ata.read(toys)


# IKEA
SCANS = {
    f"Lack/000{k}_white_floor_{c:02d}_01_2019_08_0{k}": c for k, c in enumerate((1, 2, 4, 8, 11), 1)
}


@pytest.fixture
def furniture(tmp_path):
    database = {}
    for i, scan in enumerate(SCANS):
        for view in ikea.VIEWS:
            film(tmp_path / scan / view / "images" / "scan_video.avi", 50 + i, 25)
        labels = [
            "NA",
            "flip table",
            "lay down leg",
            "slide bottom of drawer",
            "position the drawer right side up",
            "lay down shelf",
        ]
        annotation = [
            {"label": label, "segment": [8 * k, 8 * k + 7]} for k, label in enumerate(labels)
        ]
        database[scan] = {"subset": "training", "annotation": annotation}
    (tmp_path / "gt_segments.json").write_text(json.dumps({"database": database}))
    return tmp_path


def test_ikea_has_a_row_a_view_environments_from_calibration_and_ace_s_names(furniture):
    table = ikea.read(furniture)
    assert len(table) == 5 * 5 * 3 and table["group"].value_counts().to_dict() == {
        "env1": 30,
        "env2": 15,
        "env4": 15,
        "env5": 15,
    }
    assert {
        "slide bottom panel",
        "position drawer right side up",
        "lay down leg",
        "lay down shelf",
    } <= set(table["label"])
    assert table["end_s"].sub(table["start_s"]).round(6).unique().tolist() == [0.32]
    task = tasks.dataset("ikea")
    assert (
        task.classes["lay down leg"][0] == "base" and task.classes["lay down shelf"][0] == "novel"
    )
    left = fold(table.assign(split="train"), 1)
    assert set(left.loc[left["split"] == "test", "group"]) == {"env2"}


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda d: next(iter(d.values()))["annotation"][1].update(label="eat table"),
            "segment 1: unknown label 'eat table'",
        ),
        (
            lambda d: next(iter(d.values()))["annotation"][1].pop("segment"),
            r"segment 1: expected a label and a segment",
        ),
        (
            lambda d: next(iter(d.values()))["annotation"][1].update(segment=[900, 950]),
            "start after .*scan_video.avi ends",
        ),
        (
            lambda d: d.update({"Lack/0001_white_floor_03_x": d.popitem()[1]}),
            "expected <person>_<colour>_<configuration>_<calibration>",
        ),
    ],
)
def test_ikea_says_what_is_wrong_and_where(furniture, change, message):
    path = furniture / "gt_segments.json"
    content = json.loads(path.read_text())
    change(content["database"])
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        ikea.read(furniture)


def test_ikea_without_or_with_another_json(tmp_path):
    with pytest.raises(ValueError, match="gt_segments.json: IKEA ASM expects .*make doctor"):
        ikea.read(tmp_path)
    (tmp_path / "gt_segments.json").write_text("[]")
    with pytest.raises(ValueError, match="expected json with a 'database'"):
        ikea.read(tmp_path)


# GTEA
@pytest.fixture
def kitchen(tmp_path):
    for s in range(1, 5):
        names = [f"S{s}_{dish}_C1" for dish in ("Cheese", "Tea")]
        for name in names:
            film(tmp_path / "videos" / f"{name}.mp4", 45, 15)
            (tmp_path / "groundTruth").mkdir(exist_ok=True)
            labels = ["background"] * 5 + ["take"] * 15 + ["stir"] * 20 + ["put"] * 5
            (tmp_path / "groundTruth" / f"{name}.txt").write_text("\n".join(labels) + "\n")
        (tmp_path / "splits").mkdir(exist_ok=True)
        (tmp_path / "splits" / f"test.split{s}.bundle").write_text(
            "".join(f"{n}.txt\n" for n in names)
        )
    return tmp_path


def test_gtea_runs_of_labels_become_segments_by_subject(kitchen):
    table = gtea.read(kitchen)
    assert len(table) == 8 * 3 and sorted(table["group"].unique()) == ["S1", "S2", "S3", "S4"]
    first = table[table["video"] == "videos/S1_Cheese_C1.mp4"]
    assert first["label"].tolist() == ["take ingredient", "stir ingredient", "put ingredient"]
    assert first["start_s"].tolist() == pytest.approx([5 / 15, 20 / 15, 40 / 15]) and first[
        "split"
    ].unique().tolist() == ["train"]
    assert (
        clip_table(fold(table, 3), tasks.dataset("gtea"), (("train", "base"),))[
            "part"
        ].value_counts()["test"]
        > 0
    )


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("groundTruth/S2_Tea_C1.txt", "take\n" * 45 + "fly\n", "line 46: unknown label 'fly'"),
        (
            "groundTruth/S2_Tea_C1.txt",
            "take\n" * 90,
            "about 15 labels a second; found 90 for 3.0 s",
        ),
        (
            "splits/test.split2.bundle",
            "S2_Tea_C1.txt\nS1_Tea_C1.txt\n",
            "expected the videos of one subject, found",
        ),
        (
            "splits/test.split2.bundle",
            "S2_Milk_C1.txt\n",
            "S2_Milk_C1.txt: GTEA expects one label a frame",
        ),
    ],
)
def test_gtea_says_what_is_wrong_and_where(kitchen, name, text, message):
    (kitchen / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        gtea.read(kitchen)


# Folds and tables
def test_a_fold_without_a_class_warns_and_keeps_it_a_candidate(kitchen):
    table = gtea.read(kitchen)
    with pytest.warns(
        UserWarning,
        match=r"no training clip of the base classes \['open ingredient', 'pour ingredient'",
    ):
        kept = clip_table(fold(table, 0), tasks.dataset("gtea"), (("train", "base"),))
    assert set(kept["label"][kept["mode"] == "base"]) == {0, 5}


def test_the_command_writes_a_table_the_pipeline_reads(kitchen, capsys):
    assert command.main(["gtea", str(kitchen)]) == 0
    assert len(schema.read_annotations(kitchen / "annotations.csv")) == 24
    assert "24 segments of 3 classes" in capsys.readouterr().out
    (kitchen / "groundTruth" / "S1_Tea_C1.txt").unlink()
    assert command.main(["gtea", str(kitchen)]) == 2 and "S1_Tea_C1.txt" in capsys.readouterr().err


def test_the_command_writes_ground_truth_that_localizers_read(tmp_path, capsys):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "Diving_val.txt").write_text("video_validation_1 0.5 1.5\n")
    (tmp_path / "Diving_test.txt").write_text("video_test_1 0.5 1.5\nvideo_test_1 2.0 2.5\n")
    (tmp_path / "Ambiguous_test.txt").write_text("video_test_1 3.0 3.5\n")
    out = tmp_path / "truth.json"
    assert (
        command.main(["thumos14", str(tmp_path), str(out)]) == 0
        and "3 segments of 1 classes" in capsys.readouterr().out
    )
    found = activitynet.ground_truth(out, "test")
    assert found["end_s"].tolist() == [1.5, 2.5] and found["duration_s"].tolist() == [2.5, 2.5]
    assert activitynet.ground_truth(out, "train")["video"].tolist() == ["video_validation_1"]
    (shown,) = json.loads((tmp_path / "events.json").read_text())["video_test_1"]["distractors"]
    assert (shown["start_s"], shown["end_s"], shown["what"]) == (3.0, 3.5, "ambiguous")
    films = tmp_path / "films"
    films.mkdir()
    for name in ("video_validation_1.mkv", "v_video_test_1.mp4"):
        assert command.main(["thumos14", str(tmp_path), str(out), "--videos", str(films)]) == 2
        assert (
            "films: " in (said := capsys.readouterr().err)
            and "videos are not there, for example" in said
        )
        video.write(films / name, np.zeros((16, 16, 16, 3), np.uint8), 4)
    assert command.main(["thumos14", str(tmp_path), str(out), "--videos", str(films)]) == 0
    assert activitynet.ground_truth(out, None)["duration_s"].tolist() == [4.0, 4.0, 4.0]
    head = "video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
    for name, kitchen in (("train", "P01_01"), ("validation", "P02_01")):
        (tmp_path / f"EPIC_100_{name}.csv").write_text(
            head + f"{kitchen},00:00:01.00,00:00:02.50,3,7\n"
        )
    assert command.main(["epic", str(tmp_path), str(out), "--task", "noun"]) == 0
    assert activitynet.ground_truth(out, "test")["label"].tolist() == ["7"]
    (names := tmp_path / "EPIC_100_noun_classes.csv").write_text(
        "id,key,instances\n7,board:chopping,\"['board']\"\n"
    )
    assert command.main(["epic", str(tmp_path), str(out), "--task", "noun"]) == 0
    assert activitynet.ground_truth(out, "train")["label"].tolist() == ["board:chopping"]
    for text, said in (
        ("6,tap,", "no class '7'"),
        ("7,tap,\n7,cup,", "line 3: id '7' occurs twice"),
    ):
        names.write_text(f"id,key,instances\n{text}\n")
        assert (
            command.main(["epic", str(tmp_path), str(out), "--task", "noun"]) == 2
            and said in capsys.readouterr().err
        )
    assert command.main(["activitynet13", str(tmp_path), str(out)]) == 2
    assert (
        "expected TSP's csv or ActivityNet's activity_net.v1-3.min.json" in capsys.readouterr().err
    )
    entry = {"duration": 9.5, "annotations": [{"segment": [1, 2], "label": "Walking the dog"}]}
    official = {
        "database": {
            k: entry | {"subset": s}
            for k, s in (("a", "training"), ("b", "validation"), ("c", "testing"))
        }
    }
    (tmp_path / "activity_net.v1-3.min.json").write_text(json.dumps(official))
    assert command.main(["activitynet13", str(tmp_path), str(out)]) == 0
    found = activitynet.ground_truth(out, None)
    assert found["split"].tolist() == ["train", "test"] and found["duration_s"].tolist() == [
        9.5,
        9.5,
    ]
    (tmp_path / "EPIC_100_train.csv").unlink()
    assert (
        command.main(["epic", str(tmp_path), str(out)]) == 2
        and "EPIC_100_train.csv" in capsys.readouterr().err
    )
    for given in (["epic", str(tmp_path)], ["gtea", str(tmp_path), str(out)]):
        with pytest.raises(SystemExit):
            command.main(given)


@needs_realdata
def test_thumos14_s_own_files_as_the_command_writes_them(tmp_path):
    assert command.main(["thumos14", str(REALDATA / "thumos14"), str(tmp_path / "t.json")]) == 0
    counts = activitynet.ground_truth(tmp_path / "t.json", None)["split"].value_counts()
    assert counts.to_dict() == {"test": 3358, "train": 3007}


# The doctor
class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does when asked for a model with the metadata of its files."""

    models: dict = {}
    asked: list = []

    def do_GET(self):
        Hub.asked.append(self.path)
        repo = self.path.removeprefix("/api/models/").removesuffix("?blobs=true")
        self.send_response(200 if repo in self.models else 404)
        if repo not in self.models:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        self.wfile.write(
            json.dumps(self.models.get(repo, {"error": "Repository not found"})).encode()
        )

    def log_message(self, *args):
        pass


def page(repo, revision, card, **files):
    siblings = [{"rfilename": "README.md", "size": 9, "blobId": "0" * 40}]
    for file, sha256 in files.items():
        lfs = {"sha256": sha256, "size": 7, "pointerSize": 127}
        siblings.append(
            {
                "rfilename": file.replace("__", "/") + ".safetensors",
                "size": 7,
                "blobId": "1" * 40,
                "lfs": lfs,
            }
        )
    return {repo: {"_id": "0", "id": repo, "sha": revision, "siblings": siblings, "cardData": card}}


def test_doctor_compares_hashes_and_licences_with_what_the_hub_states(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr("vlact.params.ROOT", tmp_path)
    sha, other = (hashlib.sha256(x).hexdigest() for x in (b"weights", b"other"))
    monkeypatch.setattr(Hub, "asked", [])
    models = page("a/one", "rev1", {"license": "mit"}, model=sha, sub__more=other)
    models |= page(
        "a/two",
        "rev2",
        {"license": "other", "license_name": "research"},
        m1=sha,
        m2=other,
        old__m3=sha,
    ) | page("a/bare", "rev3", None)
    monkeypatch.setattr(Hub, "models", models)
    files = {f"{name}.pth": b"other" for name in ("renamed", "moved", "swapped")} | {
        "lost.pth": b"else"
    }
    files |= {
        "good.pth": b"weights",
        "bad.pth": b"else",
        "hidden.pth": b"else",
        "two/m1.safetensors": b"weights",
    }
    files |= {"two/m2.safetensors": b"weights", "two/config.json": b"{}"}
    for name, content in files.items():
        path = tmp_path / "data" / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    source = {
        "good": "a/one/blob/main/model.safetensors",
        "renamed": "a/one/blob/main/sub/more.safetensors",
    }
    source |= {
        "moved": "a/one/blob/main/gone.safetensors",
        "lost": "a/one/blob/main/gone.safetensors",
        "swapped": source["good"],
    }
    source |= {
        "bad": source["good"],
        "hidden": "a/none",
        "two": "a/two",
        "far": "a/two",
        "near": source["good"],
        "bare": "a/bare",
    }
    at = {"two": "two/config.json", "far": "far/config.json"}
    needs = [
        doctor.Need(
            n,
            f"data/checkpoints/{at.get(n, n + '.pth')}",
            "1 MB",
            f"https://huggingface.co/{x}",
            "as we know",
            "tests",
        )
        for n, x in source.items()
    ]
    monkeypatch.setattr(
        doctor,
        "NEEDS",
        (
            *needs,
            doctor.Need("by hand", "data/checkpoints/x.pth", "1 MB", "a drive", "MIT", "tests"),
        ),
    )
    httpd = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setattr(
        doctor, "HfApi", lambda: HfApi(endpoint=f"http://127.0.0.1:{httpd.server_port}")
    )
    table = doctor.examine("paper").set_index("name")
    httpd.shutdown()
    httpd.server_close()
    assert sorted(Hub.asked) == [
        f"/api/models/a/{x}?blobs=true" for x in ("bare", "none", "one", "two")
    ]
    none = hashlib.sha256(b"else").hexdigest()
    assert table["sha256"].to_dict() == {
        "good": f"{sha} (as published, revision rev1)",
        "renamed": f"{other} (as published, revision rev1)",
        "bad": f"{none} (DIFFERS from the published {sha}: get it again)",
        "lost": f"{none} (DIFFERS from all files on its page: get it again)",
        "moved": f"{other} (as published, revision rev1)",
        "swapped": f"{other} (DIFFERS from the published {sha}: get it again)",
        "hidden": f"{none} (seen first; noted in SHA256SUMS)",
        "two": f"m1.safetensors {sha} (as published, revision rev2); "
        f"m2.safetensors {sha} (DIFFERS from the published {other}: get it again)",
        "far": f"m1.safetensors {sha} (published); m2.safetensors {other} (published); "
        f"old/m3.safetensors {sha} (published)",
        "near": f"model.safetensors {sha} (published)",
        "bare": "no *.safetensors on its page, but no large file",
        "by hand": "none stated; noted when first seen",
    }
    assert table.loc["good", "licence"] == "as we know; its page: mit" and table.loc[
        "two", "licence"
    ].endswith("its page: research")
    assert (
        table.loc["bare", "licence"].endswith("its page: no licence")
        and table.loc["hidden", "licence"] == "as we know"
    )
    said = capsys.readouterr().err
    assert "a/none: the hub does not show it (404" in said and "not reached" not in said
    assert (
        doctor.examine("paper").set_index("name").loc["near", "sha256"].startswith("on its page")
    )  # the server is gone
    assert capsys.readouterr().err.count("the hub was not reached") == 1
    monkeypatch.setattr(doctor, "HfApi", None)
    assert (
        len(doctor.examine("smoke")) == 12 and "not reached" not in capsys.readouterr().err
    )  # rendered profiles do not ask


def test_doctor_knows_hashes_by_name_from_the_hub_and_from_what_it_saw_first(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(doctor, "ask", lambda repos: {})
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr("vlact.params.ROOT", tmp_path)
    (folder := tmp_path / "data" / "checkpoints").mkdir(parents=True)
    sha, other = (hashlib.sha256(x).hexdigest() for x in (b"weights", b"other"))
    files = {
        "whole": ["m-00001.safetensors", "m-00002.safetensors"],
        "hollow": [],
        "hub": ["model.safetensors"],
    }
    for name, held in files.items():
        (folder / name).mkdir()
        for file in ["config.json", *held]:
            (folder / name / file).write_bytes(b"weights")
    single = [f"good-{sha[:8]}.pth", "bad-00000000.pth", "drive.pyth", "moved.pth"]
    for name in single:
        (folder / name).write_bytes(b"other" if name == "moved.pth" else b"weights")
    (notes := folder / ".cache/huggingface/download/distill").mkdir(parents=True)
    (notes / "deep.pth.metadata").write_text(
        f"rev1\n{other}\n1760000000.0\n"
    )  # the file is now moved.pth
    (notes := folder / "hub/.cache/huggingface/download").mkdir(parents=True)
    (notes / "model.safetensors.metadata").write_text(f"rev2\n{'1' * 64}\n1760000000.0\n")
    (notes / "config.json.metadata").write_text(f"rev2\n{'2' * 40}\n1760000000.0\n")
    given = ("1 MB", "https://huggingface.co/a/b", "MIT", "tests")
    paths = {n: f"{n}/config.json" for n in (*files, "absent")} | {
        n.split(".")[0].split("-")[0]: n for n in single
    }
    needs = [doctor.Need(n, f"data/checkpoints/{at}", *given) for n, at in paths.items()]
    needs += [doctor.Need("far-1234abcd", "data/checkpoints/far-1234abcd.pth", *given)]
    needs += [doctor.Need("gone", "data/checkpoints/gone.pyth", "1 MB", "by hand", "MIT", "tests")]
    needs += [doctor.Need("text", "", *given), doctor.Need("data", "{data}/x.csv", *given)]
    monkeypatch.setattr(doctor, "NEEDS", tuple(needs))
    known = {
        "good": f"{sha} (as published)",
        "bad": f"{sha} (DIFFERS from the published 00000000: get it again)",
        "moved": f"{other} (as published, revision rev1)",
        "hub": f"model.safetensors {sha} (DIFFERS from the published {'1' * 64}: get it again)",
        "hollow": "no *.safetensors beside config.json: get it again",
        "absent": "on its page; `hf download` keeps it beside the file",
        "far-1234abcd": "1234abcd.. (in its name)",
        "gone": "none stated; noted when first seen",
        "text": f"{MINILM_SHA256} (checked whenever it is read)",
        "data": "",
    }
    now = "seen first; noted in SHA256SUMS"
    first = {
        "drive": f"{sha} ({now})",
        "whole": f"m-00001.safetensors {sha} ({now}); m-00002.safetensors {sha} ({now})",
    }
    assert doctor.examine("paper").set_index("name")["sha256"].to_dict() == known | first
    sums = folder / "SHA256SUMS"
    assert (
        sums.read_text() == f"{sha}  drive.pyth\n{sha}  whole/m-00001.safetensors\n{sha}  "
        "whole/m-00002.safetensors\n"
    )
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    (folder / "drive.pyth").write_bytes(b"other thing")
    again = doctor.examine("paper").set_index("name")["sha256"]
    assert again["whole"] == first["whole"].replace(now, "as seen first")
    assert (
        f"(DIFFERS from {sha} in SHA256SUMS: get it again, or delete that line)" in again["drive"]
    )
    assert f"{sha}  drive.pyth" in sums.read_text()
    sums.unlink()
    sums.mkdir()  # in the way, as a folder of somebody else's would be
    monkeypatch.setattr(doctor, "noted", lambda path: {})
    assert doctor.examine("paper").set_index("name")["sha256"]["whole"] == first["whole"]
    assert "SHA256SUMS: new hashes could not be noted" in capsys.readouterr().err and not list(
        folder.glob("*.tmp")
    )
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "ask", lambda repos: {})
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr("vlact.params.ROOT", tmp_path)
    sums.rmdir()
    sums.write_text("drive.pyth\n")
    assert (
        doctor.main(["paper"]) == 2
        and "SHA256SUMS, line 1: expected 64 hexadecimal digits" in capsys.readouterr().err
    )


def test_doctor_lists_every_need_and_compares_counts(tmp_path, monkeypatch, capsys, kitchen):
    command.main(["gtea", str(kitchen)])
    monkeypatch.setattr(doctor, "ask", lambda repos: {})
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr("vlact.params.ROOT", tmp_path)
    folder = tmp_path / "data/paper/worlds/gtea"
    folder.mkdir(parents=True)
    (folder / "annotations.csv").write_text((kitchen / "annotations.csv").read_text())
    (tmp_path / "params.yaml").write_text(
        (schema.Path(__file__).parents[1] / "params.yaml").read_text()
    )
    monkeypatch.setattr("vlact.params.load.__defaults__", ("smoke", None, tmp_path / "params.yaml"))
    table = doctor.examine("paper").set_index("name")
    assert (
        table.loc["ATA", "found"] == "missing"
        and table.loc["ATA", "path"] == "data/paper/worlds/ata/annotations.csv"
    )
    assert (
        table.loc["EPIC-Kitchens-100", "path"] == "data/paper/worlds/epic/verb.json"
        and not table.loc["THUMOS14", "counts"]
    )
    truth = pd.DataFrame(
        {
            "video": ["a", "b"],
            "start_s": 0.0,
            "end_s": 1.0,
            "label": "x",
            "split": ["train", "test"],
            "duration_s": 2.0,
        }
    )
    (tmp_path / "data/paper/stadium").mkdir()
    activitynet.write_ground_truth(truth, tmp_path / "data/paper/stadium/ground_truth.json")
    said = doctor.examine("paper").set_index("name").loc["THUMOS14", "counts"]
    assert (
        "training segments 1 (published 3007, DIFFERS), test segments 1 (published 3358, "
        "DIFFERS), classes 1 (published 20" in said
    )
    assert (
        "clips 24 (published 525, DIFFERS)" in table.loc["GTEA", "counts"]
        and "subjects 4 (published 4)" in table.loc["GTEA", "counts"]
    )
    assert doctor.main(["paper"]) == 0 and "licence" in capsys.readouterr().out
    assert doctor.main(["moon"]) == 2 and "unknown profile 'moon'" in capsys.readouterr().err


# Providers
class Chat(BaseHTTPRequestHandler):
    """Answers with made-up synonyms and counts what it was asked."""

    asked: list = []
    broken = ""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        Chat.asked.append((self.path, self.headers.get("Authorization"), prompt))
        action = prompt.split("(")[1].split(")")[0]
        lines = "\n".join(
            f"{word}{len(Chat.asked)} {action.split(' ')[-1]}"
            for word in ("move", "shift", "carry")
        )
        answer = (
            {"choices": [{"message": {"content": lines}}]}
            if not self.broken
            else {"error": self.broken}
        )
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    Chat.asked, Chat.broken = [], ""
    httpd = HTTPServer(("127.0.0.1", 0), Chat)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/v1"
    httpd.shutdown()


def test_a_tree_is_asked_for_once_kept_with_its_prompt_and_made_again_offline(server, tmp_path):
    actions = [("push", "table"), ("push", "table top"), ("spin", "leg")]
    made = providers.make_trees(
        "mine",
        actions,
        3,
        "furniture assembly",
        providers.Endpoint(server, "m", tmp_path, "secret"),
    )
    assert made.m == 3 and list(made.words) == ["push", "spin"] and len(Chat.asked) == 2 * 3
    path, key, prompt = Chat.asked[0]
    assert path == "/v1/chat/completions" and key == "Bearer secret"
    assert "2 synonyms of the action (push table) during furniture assembly" in prompt
    kept = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert set(kept) == {"prompt", "model", "date", "answer"} and "secret" not in json.dumps(kept)
    again = providers.make_trees(
        "mine", actions, 3, "furniture assembly", providers.Endpoint(None, "m", tmp_path)
    )
    assert again == made and len(Chat.asked) == 6
    with pytest.raises(ValueError, match="no answer of model 'other' is kept"):
        providers.Endpoint(None, "other", tmp_path)("anything")


def test_answers_that_are_no_chat_and_servers_that_are_gone(server, tmp_path):
    Chat.broken = "overloaded"
    with pytest.raises(ValueError, match="expected a chat completion, got something else"):
        providers.Endpoint(server, "m", tmp_path)("a (drop item)")
    with pytest.raises(ValueError, match="expected a chat endpoint"):
        providers.Endpoint("http://127.0.0.1:9", "m", tmp_path)("a")
    assert not list(tmp_path.glob("*"))


def test_every_line_of_an_answer_is_judged():
    answer = (
        "let fall item\n2. lower item\nRelease item\ndeposit block\ndrop item\nlet fall item\n"
        "set down item.\nplace item\n\nitem"
    )
    verbs, problems = providers.check_answer(answer, ("drop", "item"), 4)
    assert verbs == ["let fall", "place"]
    reasons = (
        "numbering",
        "capital",
        "object is not 'item'",
        "verb itself",
        "there already",
        "punctuation",
        "object is not",
        "2 are usable",
    )
    assert len(problems) == len(reasons)
    for reason, problem in zip(reasons, problems, strict=True):
        assert reason in problem, (reason, problem)
    with pytest.raises(ValueError, match="synonyms of 'drop item': .*numbering"):
        providers.make_trees("t", [("drop", "item")], 5, "x", lambda prompt: answer)


def test_provider_command_offline_says_what_to_set(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(providers, "ROOT", tmp_path)
    monkeypatch.delenv("VLACT_LLM_URL", raising=False)
    assert providers.main(["ata", str(tmp_path / "mine.yaml")]) == 2
    assert "set VLACT_LLM_URL" in capsys.readouterr().err and not (tmp_path / "mine.yaml").exists()
    assert providers.main(["coin"]) == 2


def test_a_made_tree_can_be_saved_and_loaded_as_a_hand_edited_file(server, tmp_path, monkeypatch):
    monkeypatch.setattr(providers, "ROOT", tmp_path)
    monkeypatch.setattr(providers, "SIZE", {"gtea": 3})
    monkeypatch.setenv("VLACT_LLM_URL", server)
    assert providers.main(["gtea", str(tmp_path / "mine.yaml")]) == 0
    loaded = Trees.load(
        tmp_path / "mine.yaml", tuple(v for v, _ in tasks.GTEA_BASE + tasks.GTEA_NOVEL)
    )
    assert loaded.m == 3 and isinstance(pd.DataFrame(loaded.words), pd.DataFrame)


# Localization: others' layouts, features and scores
SMALL = [("v1", 0.5, 2.0, "HighJump"), ("v1", 3.0, 4.5, "Diving"), ("v2", 1.0, 9.0, "HighJump")]


def test_thumos14_reads_alike_from_every_layout(tmp_path):
    for label in ("HighJump", "Diving"):
        rows = [f"{v} {a} {b}" for v, a, b, name in SMALL if name == label]
        (tmp_path / f"{label}_test.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "Ambiguous_test.txt").write_text("v2 0.0 1.0\n")
    (tmp_path / "classes.txt").write_text("22 Diving\n31 HighJump\n")
    classes = thumos14.class_list(tmp_path / "classes.txt")
    lines = [f"{v},{name},0,{a},{b},0,0" for v, a, b, name in SMALL]
    (tmp_path / "a.csv").write_text(
        "video,type,type_idx,start,end,startFrame,endFrame\n" + "\n".join(lines) + "\n"
    )
    numbers = {v: k for k, v in classes.items()}
    lines = [f"{v},{a},{b},0,0,9,30,270,{numbers[name]}" for v, a, b, name in SMALL] + [
        "v2,0.0,1.0,0,0,9,30,270,-1"
    ]
    head = "video-name,t-init,t-end,f-init,f-end,video-duration,frame-rate,video-frames,label-idx\n"
    (tmp_path / "g.csv").write_text(head + "\n".join(lines) + "\n")
    videos = {
        v: {"annotations": [{"class": n, "segment": [a, b]} for w, a, b, n in SMALL if w == v]}
        for v in ("v1", "v2")
    }
    (tmp_path / "r.json").write_text(json.dumps(videos))

    expected = pd.DataFrame(SMALL, columns=["video", "start_s", "end_s", "label"])
    text, ambiguous = thumos14.ground_truth(tmp_path)
    csv, also = thumos14.groundtruth_csv(tmp_path / "g.csv", classes)
    order = ["video", "start_s"]
    for found in (
        text[expected.columns],
        thumos14.annotation_csv(tmp_path / "a.csv"),
        csv,
        thumos14.anno_action(tmp_path / "r.json"),
    ):
        pd.testing.assert_frame_equal(found.sort_values(order).reset_index(drop=True), expected)
    pd.testing.assert_frame_equal(ambiguous, also)

    (tmp_path / "g.csv").write_text(head + "v1,0,1,0,0,9,30,270,5\n")
    with pytest.raises(ValueError, match="g.csv, line 2: label-idx 5 is no class"):
        thumos14.groundtruth_csv(tmp_path / "g.csv", classes)
    (tmp_path / "classes.txt").write_text("22 Diving\nHighJump\n")
    with pytest.raises(ValueError, match="classes.txt, line 2: expected '<number> <class>'"):
        thumos14.class_list(tmp_path / "classes.txt")
    (tmp_path / "r.json").write_text('{"v1": {"annotations": [{"class": "A", "segment": [1]}]}}')
    with pytest.raises(ValueError, match="r.json: v1, annotation 0"):
        thumos14.anno_action(tmp_path / "r.json")
    (tmp_path / "a.csv").write_text("video,start\n")
    with pytest.raises(ValueError, match="a.csv, line 1: missing columns"):
        thumos14.annotation_csv(tmp_path / "a.csv")


@needs_realdata
def test_thumos14_counts_are_the_published_ones():
    folder = REALDATA / "thumos14"
    text, ambiguous = thumos14.ground_truth(folder / "annotations_test")
    classes = thumos14.class_list(folder / "annotations_test" / "detclasslist.txt")
    alphabetical = dict(enumerate(sorted(classes.values())))
    csv, also = thumos14.groundtruth_csv(
        folder / "other_formats" / "thumos14_test_groundtruth.csv", alphabetical
    )
    assert (
        len(text) == len(csv) == 3358
        and len(ambiguous) == len(also) == 99
        and text["label"].nunique() == len(classes) == 20
    )
    key = ["video", "start_s", "end_s", "label"]
    plain = thumos14.annotation_csv(folder / "other_formats" / "test_Annotation.csv")
    rtd = thumos14.anno_action(folder / "other_formats" / "thumos14_anno_action.json")
    test = rtd[rtd["video"].str.contains("test")]
    as_json = activitynet.ground_truth(folder / "other_formats" / "thumos_gt.json", "test")
    assert len(as_json) == 3311 and as_json["video"].nunique() == 210
    left_out = {"video_test_0000270", "video_test_0001292", "video_test_0001496"}
    assert set(text["video"]) - set(as_json["video"]) <= left_out
    used = text[~text["video"].isin(["video_test_0000270", "video_test_0001292"])]
    assert len(used) == 3329  # OpenTAD reports 3,325 for the same videos
    for other in (plain, test):
        both = text.round(1).merge(other[key].round(1), on=key)
        assert len(both) >= 0.98 * min(len(text), len(other))
    assert len(thumos14.ground_truth(folder / "annotations_val", "val")[0]) == 3007


def test_activitynet_reads_alike_from_bmn_and_tsp(tmp_path):
    notes = {
        "v_a": {
            "duration_second": 10.0,
            "annotations": [{"segment": [1.0, 2.5], "label": "Kayaking"}],
        }
    }
    notes["v_b"] = {"duration_second": 5.0, "annotations": []}
    (tmp_path / "n.json").write_text(json.dumps(notes))
    (tmp_path / "v.csv").write_text("video,numFrame,subset\nv_a,1,validation\nv_b,1,testing\n")
    head = (
        "video-name,t-start,t-end,action-label,video-duration,filename,fps,video-frames,"
        "temporal-region-label\n"
    )
    rows = [
        "a,1.0,2.5,Kayaking,10.0,v_a.mp4,30,300,Action",
        "a,0,1,Kayaking,10.0,v_a.mp4,30,300,No action",
    ]
    (tmp_path / "t.csv").write_text(head + "\n".join(rows) + "\n")
    found = activitynet13.bmn(tmp_path / "n.json", tmp_path / "v.csv", "validation")
    pd.testing.assert_frame_equal(
        found, activitynet13.tsp(tmp_path / "t.csv", "validation"), check_like=True
    )
    assert activitynet13.bmn(tmp_path / "n.json", tmp_path / "v.csv").attrs["videos"] == ["a", "b"]
    with pytest.raises(
        ValueError, match=r"no video of subset 'val'; expected one of \['testing', 'validation'\]"
    ):
        activitynet13.bmn(tmp_path / "n.json", tmp_path / "v.csv", "val")
    (tmp_path / "v.csv").write_text("video,subset\nv_c,testing\n")
    with pytest.raises(ValueError, match="n.json: lacks 'v_c', which v.csv, line 2, has"):
        activitynet13.bmn(tmp_path / "n.json", tmp_path / "v.csv")
    (tmp_path / "t.csv").write_text(head + rows[1] + "\n")
    with pytest.raises(ValueError, match="no row with temporal-region-label 'Action'"):
        activitynet13.tsp(tmp_path / "t.csv")


@needs_realdata
def test_activitynet_counts_are_the_published_ones(tmp_path):
    folder = REALDATA / "activitynet13"
    bmn = activitynet13.bmn(
        folder / "anet_anno_action.json", folder / "video_info_new.csv", "validation"
    )
    assert len(bmn) == 7293 and len(bmn.attrs["videos"]) == 4728
    assert command.main(["activitynet13", str(folder), str(tmp_path / "sessions.json")]) == 0
    valid = activitynet13.tsp(folder / "activitynet_v1-3_valid_tsp_groundtruth.csv")
    train = activitynet13.tsp(folder / "activitynet_v1-3_train_tsp_groundtruth.csv")
    assert (len(valid), len(train), valid["label"].nunique()) == (7654, 15410, 200)
    sessions = activitynet.ground_truth(tmp_path / "sessions.json", None)
    assert sessions["split"].value_counts().to_dict() == {"train": 15410, "test": 7654}
    official = activitynet.results(folder / "sample_detection_prediction.json")
    assert len(official) == len(valid) and set(official["video"]) == set(valid["video"])
    epic = REALDATA / "epic_kitchens_100" / "EPIC_100_validation.csv"
    assert len(epic_kitchens.names(epic.with_name("EPIC_100_verb_classes.csv"))) == 97
    assert len(epic_kitchens.names(epic.with_name("EPIC_100_noun_classes.csv"))) == 300
    assert (
        len(epic_kitchens.ground_truth(epic)) == 9668
        and epic_kitchens.ground_truth(epic, "noun")["label"].nunique() == 211
    )


def test_features_of_others_in_every_format(tmp_path):
    import torch

    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "b.npy", x.T[None])
    torch.save(torch.from_numpy(x), tmp_path / "c.pt")
    torch.save({"rgb": torch.from_numpy(x), "flow": torch.zeros(2, 2)}, tmp_path / "d.pth")
    pd.DataFrame(x, columns=["f0", "f1", "f2"]).to_csv(tmp_path / "e.csv", index=False)
    for found in (
        features.read(tmp_path / "a.npy"),
        features.read(tmp_path / "b.npy", transpose=True),
        features.read(tmp_path / "c.pt"),
        features.read(tmp_path / "d.pth", "rgb"),
        features.read(tmp_path / "e.csv"),
    ):
        np.testing.assert_allclose(found.numpy(), x, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"d.pth: no entry 'feats'; pass `key`, one of \['flow', 'rgb'\]"
    ):
        features.read(tmp_path / "d.pth")
    np.save(tmp_path / "f.npy", x[0])
    with pytest.raises(ValueError, match=r"f.npy: expected features \(T, D\), got shape \(3,\)"):
        features.read(tmp_path / "f.npy")
    x[2, 1] = np.nan
    np.save(tmp_path / "g.npy", x)
    with pytest.raises(ValueError, match="1 of 5 steps have numbers that are not finite"):
        features.read(tmp_path / "g.npy")
    with pytest.raises(
        ValueError, match="expected .npy, .npz, .pt, .pth, .csv, .h5 or .hdf5, got '.mat'"
    ):
        features.read(tmp_path / "h.mat")
    import h5py

    with h5py.File(tmp_path / "h.h5", "w") as file:
        file["v1"], file["v2"] = np.full((3, 2), 1.0), np.full((4, 2), 2.0)
    assert torch.equal(features.read(tmp_path / "h.h5", "v2"), torch.full((4, 2), 2.0))
    with pytest.raises(
        ValueError, match=r"h.h5: no entry 'feats'; pass `key`, one of \['v1', 'v2'\]"
    ):
        features.read(tmp_path / "h.h5")
    (tmp_path / "h.h5").write_text("no h5")
    with pytest.raises(ValueError, match="h.h5: expected an h5 file"):
        features.read(tmp_path / "h.h5")

    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"x": Evil()}, tmp_path / "i.pt")
    with pytest.raises(Exception, match="[Ww]eights"):
        features.read(tmp_path / "i.pt")


def test_grids_are_those_of_actionformer_opentad_and_activitynet():
    from vlact.papers.actionvlm.localizing import Clock

    actionformer = Clock(*features.grid(4, 30, num_frames=16))
    assert actionformer.seconds(10) == pytest.approx((10 * 4 + 0.5 * 16) / 30)
    opentad = Clock(*features.grid(4, 30, offset_frames=8))
    assert opentad.seconds(10) == pytest.approx((10 * 4 + 8) / 30)
    activity = Clock(*features.rescaled(100, 50.0))
    assert activity.seconds(100) == 50.0 and activity.steps(25.0) == 50.0
    with pytest.raises(ValueError, match="expected feat_stride > 0"):
        features.grid(0, 30)


def test_scores_of_a_video_classifier_multiply_proposals(tmp_path):
    (tmp_path / "s.json").write_text(
        json.dumps(
            {"results": {"v_a": [0.1, 0.7, 0.2], "b": [0.5, 0.2, 0.3]}, "class": ["x", "y", "z"]}
        )
    )
    scores = features.cuhk_scores(tmp_path / "s.json")
    proposals = pd.DataFrame(
        {"video": ["a", "b"], "start_s": [0.0, 1.0], "end_s": [1.0, 2.0], "score": [0.5, 1.0]}
    )
    found = features.fuse(proposals, scores)
    assert found["label"].tolist() == ["y", "z", "x", "z"] and found[
        "score"
    ].tolist() == pytest.approx([0.35, 0.1, 0.5, 0.3])
    assert "label" not in proposals and found["start_s"].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"no row for 'c' \(1 videos"):
        features.fuse(proposals.assign(video=["a", "c"]), scores)
    with pytest.raises(ValueError, match="top_k must be 1..3, got 4"):
        features.fuse(proposals, scores, 4)
    (tmp_path / "s.json").write_text(json.dumps({"results": {"a": [0.1]}, "class": ["x", "y"]}))
    with pytest.raises(ValueError, match="'a' has 1 scores for 2 classes"):
        features.cuhk_scores(tmp_path / "s.json")
    np.save(tmp_path / "u.npy", np.eye(3, dtype=np.float32))
    net = features.untrimmednet_scores(tmp_path / "u.npy", {1: "p", 3: "q"})
    assert net.loc["video_test_0000003"].to_dict() == {"p": 0, "q": 1}
    with pytest.raises(ValueError, match="4 or more classes"):
        features.untrimmednet_scores(tmp_path / "u.npy", {4: "p"})


@needs_realdata
def test_untrimmednet_names_most_thumos_videos_rightly():
    folder = REALDATA / "thumos14"
    classes = thumos14.class_list(folder / "annotations_test" / "detclasslist.txt")
    scores = features.untrimmednet_scores(folder / "classifier_scores" / "uNet_test.npy", classes)
    truth = thumos14.ground_truth(folder / "annotations_test")[0].groupby("video")["label"].agg(set)
    best = scores.loc[truth.index].idxmax(axis=1)
    assert np.mean([b in t for b, t in zip(best, truth, strict=True)]) > 0.8
