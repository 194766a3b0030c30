"""Readers of the real datasets on files made on the spot, `make doctor`, and synonym providers against a local server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pandas as pd
import pytest

from vlact import doctor, schema, video
from vlact.datasets import __main__ as command
from vlact.datasets import ata, gtea, ikea
from vlact.language import providers, tasks
from vlact.language.trees import Trees
from vlact.stages.ace import clip_table, fold


def film(path, frames, fps):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    video.write(path, rng.integers(0, 255, (frames, 32, 32, 3), dtype=np.uint8), fps)


# ATA
@pytest.fixture
def toys(tmp_path):
    film(tmp_path / "p01_front.mp4", 60, 30)
    rows = ["p01_front.mp4,0,29,fasten_screw,P1,train", "p01_front.mp4,30,44,SIL,P1,train", "p01_front.mp4,45,59,pickup,P9,test"]
    (tmp_path / "actions.csv").write_text("video,start_frame,end_frame,label,participant,split\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_ata_frames_become_seconds_and_names_become_ace_s(toys):
    table = ata.read(toys)
    assert table["label"].tolist() == ["fasten screw", "idle", "pick up item"] and table["view"].unique().tolist() == ["front"]
    assert table["start_s"].tolist() == pytest.approx([0, 1, 1.5]) and table["end_s"].tolist() == pytest.approx([1, 1.5, 2])
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
SCANS = {f"Lack/000{k}_white_floor_{c:02d}_01_2019_08_0{k}": c for k, c in enumerate((1, 2, 4, 8, 11), 1)}


@pytest.fixture
def furniture(tmp_path):
    database = {}
    for i, scan in enumerate(SCANS):
        for view in ikea.VIEWS:
            film(tmp_path / scan / view / "images" / "scan_video.avi", 50 + i, 25)
        labels = ["NA", "flip table", "lay down leg", "slide bottom of drawer", "position the drawer right side up", "lay down shelf"]
        annotation = [{"label": label, "segment": [8 * k, 8 * k + 7]} for k, label in enumerate(labels)]
        database[scan] = {"subset": "training", "annotation": annotation}
    (tmp_path / "gt_segments.json").write_text(json.dumps({"database": database}))
    return tmp_path


def test_ikea_has_a_row_a_view_environments_from_calibration_and_ace_s_names(furniture):
    table = ikea.read(furniture)
    assert len(table) == 5 * 5 * 3 and table["group"].value_counts().to_dict() == {"env1": 30, "env2": 15, "env4": 15, "env5": 15}
    assert {"slide bottom panel", "position drawer right side up", "lay down leg", "lay down shelf"} <= set(table["label"])
    assert table["end_s"].sub(table["start_s"]).round(6).unique().tolist() == [0.32]
    task = tasks.dataset("ikea")
    assert task.classes["lay down leg"][0] == "base" and task.classes["lay down shelf"][0] == "novel"
    left = fold(table.assign(split="train"), 1)
    assert set(left.loc[left["split"] == "test", "group"]) == {"env2"}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: next(iter(d.values()))["annotation"][1].update(label="eat table"), "segment 1: unknown label 'eat table'"),
        (lambda d: next(iter(d.values()))["annotation"][1].pop("segment"), r"segment 1: expected a label and a segment"),
        (lambda d: next(iter(d.values()))["annotation"][1].update(segment=[900, 950]), "start after .*scan_video.avi ends"),
        (lambda d: d.update({"Lack/0001_white_floor_03_x": d.popitem()[1]}), "expected <person>_<colour>_<configuration>_<calibration>"),
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
        (tmp_path / "splits" / f"test.split{s}.bundle").write_text("".join(f"{n}.txt\n" for n in names))
    return tmp_path


def test_gtea_runs_of_labels_become_segments_by_subject(kitchen):
    table = gtea.read(kitchen)
    assert len(table) == 8 * 3 and sorted(table["group"].unique()) == ["S1", "S2", "S3", "S4"]
    first = table[table["video"] == "videos/S1_Cheese_C1.mp4"]
    assert first["label"].tolist() == ["take ingredient", "stir ingredient", "put ingredient"]
    assert first["start_s"].tolist() == pytest.approx([5 / 15, 20 / 15, 40 / 15]) and first["split"].unique().tolist() == ["train"]
    assert clip_table(fold(table, 3), tasks.dataset("gtea"), (("train", "base"),))["part"].value_counts()["test"] > 0


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("groundTruth/S2_Tea_C1.txt", "take\n" * 45 + "fly\n", "line 46: unknown label 'fly'"),
        ("groundTruth/S2_Tea_C1.txt", "take\n" * 90, "about 15 labels a second; found 90 for 3.0 s"),
        ("splits/test.split2.bundle", "S2_Tea_C1.txt\nS1_Tea_C1.txt\n", "expected the videos of one subject, found"),
        ("splits/test.split2.bundle", "S2_Milk_C1.txt\n", "S2_Milk_C1.txt: GTEA expects one label a frame"),
    ],
)
def test_gtea_says_what_is_wrong_and_where(kitchen, name, text, message):
    (kitchen / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        gtea.read(kitchen)


# Folds and tables
def test_a_fold_without_a_class_warns_and_keeps_it_a_candidate(kitchen):
    table = gtea.read(kitchen)
    with pytest.warns(UserWarning, match=r"no training clip of the base classes \['open ingredient', 'pour ingredient'"):
        kept = clip_table(fold(table, 0), tasks.dataset("gtea"), (("train", "base"),))
    assert set(kept["label"][kept["mode"] == "base"]) == {0, 5}


def test_the_command_writes_a_table_the_pipeline_reads(kitchen, capsys):
    assert command.main(["gtea", str(kitchen)]) == 0
    assert len(schema.read_annotations(kitchen / "annotations.csv")) == 24
    assert "24 segments of 3 classes" in capsys.readouterr().out
    (kitchen / "groundTruth" / "S1_Tea_C1.txt").unlink()
    assert command.main(["gtea", str(kitchen)]) == 2 and "S1_Tea_C1.txt" in capsys.readouterr().err


# The doctor
def test_doctor_lists_every_need_and_compares_counts(tmp_path, monkeypatch, capsys, kitchen):
    command.main(["gtea", str(kitchen)])
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr("vlact.params.ROOT", tmp_path)
    folder = tmp_path / "data/paper/worlds/gtea"
    folder.mkdir(parents=True)
    (folder / "annotations.csv").write_text((kitchen / "annotations.csv").read_text())
    (tmp_path / "params.yaml").write_text((schema.Path(__file__).parents[1] / "params.yaml").read_text())
    monkeypatch.setattr("vlact.params.load.__defaults__", ("smoke", None, tmp_path / "params.yaml"))
    table = doctor.examine("paper").set_index("name")
    assert table.loc["ATA", "found"] == "missing" and table.loc["ATA", "path"] == "data/paper/worlds/ata/annotations.csv"
    assert "clips 24 (published 525, DIFFERS)" in table.loc["GTEA", "counts"] and "subjects 4 (published 4)" in table.loc["GTEA", "counts"]
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
        lines = "\n".join(f"{word}{len(Chat.asked)} {action.split(' ')[-1]}" for word in ("move", "shift", "carry"))
        answer = {"choices": [{"message": {"content": lines}}]} if not self.broken else {"error": self.broken}
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
    made = providers.make_trees("mine", actions, 3, "furniture assembly", providers.Endpoint(server, "m", tmp_path, "secret"))
    assert made.m == 3 and list(made.words) == ["push", "spin"] and len(Chat.asked) == 2 * 3
    path, key, prompt = Chat.asked[0]
    assert path == "/v1/chat/completions" and key == "Bearer secret"
    assert "2 synonyms of the action (push table) during furniture assembly" in prompt
    kept = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert set(kept) == {"prompt", "model", "date", "answer"} and "secret" not in json.dumps(kept)
    again = providers.make_trees("mine", actions, 3, "furniture assembly", providers.Endpoint(None, "m", tmp_path))
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
    answer = "let fall item\n2. lower item\nRelease item\ndeposit block\ndrop item\nlet fall item\nset down item.\nplace item\n\nitem"
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
    loaded = Trees.load(tmp_path / "mine.yaml", tuple(v for v, _ in tasks.GTEA_BASE + tasks.GTEA_NOVEL))
    assert loaded.m == 3 and isinstance(pd.DataFrame(loaded.words), pd.DataFrame)
