"""Nothing is dropped silently: what each command was given is what it used plus what it lists."""

import json

import numpy as np
import pandas as pd
import pytest
from test_cli import ENCODER, toy, vlact  # noqa: F401

from vlact import video
from vlact.language import srt
from vlact.metrics.synonyms import SynonymRobustnessTest
from vlact.tools.account import FILE, Account


def settled(folder) -> dict:
    """(of, what, reason) to count of a written account; it must add up."""
    table = pd.read_csv(folder / FILE, keep_default_na=False)
    for _, mine in table.groupby("of"):
        by = mine.groupby("what")["count"].sum()
        lost = by.get("left out", 0) + by.get("not asked for", 0)
        assert by["in"] == by["used"] + lost
    return table.set_index(["of", "what", "reason"])["count"].to_dict()


def test_an_account_that_does_not_add_up_stops():
    account = Account(1)
    account.add("clips", "in", "", ["a", "b"])
    account.add("clips", "used", "", 1)
    with pytest.raises(RuntimeError, match="2 clips came in, 1 were used, 0 left out"):
        account.settle()


@pytest.mark.parametrize("most, stops", [(0.0, True), (0.4, True), (0.5, False), (1.0, False)])
def test_more_than_the_share_that_may_be_left_out_stops(most, stops):
    account = Account(most)
    if stops:
        with pytest.raises(ValueError, match=r"1 of 2 clips are left out: 1 broken \(b\).*0"):
            account.files("clips", ["a", "b"], {"b": "broken"})
    else:
        assert account.files("clips", ["a", "b"], {"b": "broken"}) == ["a"]


def test_score_accounts_for_instances_and_detections(vlact, tmp_path):  # noqa: F811
    truth = "video,start_s,end_s,label,split\na,0,2,run,test\na,4,6,run,test\nb,0,1,run,train\n"
    (tmp_path / "t.csv").write_text(truth)
    rows = ["a,0,2,run,.9", "a,4,4,run,.8", "a,0,1,fly,.7", "x,0,1,run,.6"]
    (tmp_path / "r.csv").write_text("video,start_s,end_s,label,score\n" + "\n".join(rows))
    given = ["score", tmp_path / "r.csv", tmp_path / "t.csv", "-o", tmp_path / "o"]
    given += ["--resamples", 0, "--invalid", "drop"]
    code, out, said = vlact(*given, "--json")
    found = settled(tmp_path / "o")
    assert code == 0 and found["detections", "left out", "class without ground truth"] == 1
    assert found["detections", "left out", "end not after start"] == 1
    assert found["detections", "used", ""] == 2 and found["instances", "used", ""] == 2
    assert found["rows of the truth", "not asked for", "of another part"] == 1
    assert "2 of 4 detections are left out" in said
    assert len(json.loads(out)["account"]) == len(found)
    assert "class without ground truth" in (tmp_path / "o" / "report.html").read_text()
    code, _, said = vlact(*given, "--max-dropped", 0.4)
    assert code == 2 and "2 of 4 predictions" in said


def test_check_accounts_for_segments(vlact, tmp_path):  # noqa: F811
    rows = ["a,0,2,run,train", "a,1,3,run,train", "b,0,2,run,train", "b,5,6,run,test"]
    (tmp_path / "t.csv").write_text("video,start_s,end_s,label,split\n" + "\n".join(rows))
    code, out, _ = vlact("check", tmp_path / "t.csv", "-o", tmp_path / "o", "--json")
    found = settled(tmp_path / "o")
    assert code == 1 and found["segments", "used", ""] == 1
    assert json.loads(out)["problems"] == {
        "its video is in two parts": 2,
        "overlaps its own class": 1,
    }
    assert vlact("check", tmp_path / "t.csv", "-o", tmp_path / "o", "--max-dropped", 0.8)[0] == 0


def test_features_and_training_account_for_videos_and_segments(vlact, toy, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(toy)
    (tmp_path / "films").mkdir()
    for i in range(6):
        data = (toy / "films" / f"v{i}.mp4").read_bytes()
        (tmp_path / "films" / f"v{i}.mp4").write_bytes(data if i != 1 else data[:200])
    (toy / "mine.py").write_text(ENCODER)
    seen = tmp_path / "seen"
    given = ["features", tmp_path / "films", "--encoder", "mine.py:Colour", "-o", seen]
    code, out, said = vlact(*given)
    assert code == 2 and "1 of 6 videos are left out" in said and "v1.mp4" in said
    assert "--max-dropped 0," in said and not (seen / "features.json").exists()
    code, _, said = vlact(*given, "--max-dropped", 0.2)
    assert code == 0 and settled(seen)["videos", "used", ""] == 5, said
    model = tmp_path / "model"
    given = ["train-localizer", "truth.json", seen, "-o", model, "--profile", "smoke"]
    given += ["--epochs", 1, "--resamples", 0]
    code, _, said = vlact(*given, "--max-dropped", 0.1)
    assert code == 2 and "1 of 6 videos are left out: 1 without features (v1)" in said
    code, _, said = vlact(*given)
    found = settled(model)
    assert code == 0 and found["videos", "left out", "without features"] == 1, said
    assert found["training segments", "left out", "of videos without features"] == 3
    assert found["classes", "in", ""] == 3 and found["classes", "used", ""] == 2
    assert found["test segments", "in", ""] == 7
    shown = tmp_path / "shown"
    code, _, said = vlact("localize", "films/v5.mp4", "--model", model, "-o", shown,
                          "--encoder", "mine.py:Colour")  # fmt: skip
    found = settled(shown)
    kept = json.loads((shown / "segments.json").read_text())["results"]["v5.mp4"]
    assert code == 0 and found["detections", "in", ""] == len(kept), said


def test_recognize_accounts_for_clips(vlact, toy, tmp_path):  # noqa: F811
    from vlact import hub
    from vlact.models.dual import DualConfig, DualEncoder

    eye = DualEncoder(DualConfig(32, 16, 4, 32, 1, 2, 16, 384, "mean"))
    hub.ActionRecognizer(eye).save_pretrained(tmp_path / "model")
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    films = [toy / "films" / "v0.mp4", tmp_path / "broken.mp4"]
    given = ["--model", tmp_path / "model", "--names", "drop, spin", "-o", tmp_path / "o"]
    assert vlact("recognize", *films, *given)[0] == 2
    code, *_ = vlact("recognize", *films, *given, "--max-dropped", 0.5)
    found = settled(tmp_path / "o")
    assert code == 0 and found["clips", "used", ""] == 1
    assert pd.read_csv(tmp_path / "o" / "names.csv")["video"].unique().tolist() == ["v0.mp4"]


def test_srt_accounts_for_clips_and_classes_and_names_its_version(vlact, tmp_path):  # noqa: F811
    import open_clip
    import torch

    eye = {"width": 32, "layers": 1, "image_size": 32, "patch_size": 16, "head_width": 16}
    words = {"width": 32, "layers": 1, "context_length": 77, "vocab_size": 49408, "heads": 2}
    shape = {"embed_dim": 16, "vision_cfg": eye, "text_cfg": words}
    (tmp_path / "tiny-account-clip.json").write_text(json.dumps(shape))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-account-clip").state_dict(), tmp_path / "w.pt")
    clips, names = tmp_path / "clips", srt.load("gtea").novel[:2]
    for name in names:
        (clips / name).mkdir(parents=True)
        video.write(clips / name / "c.mp4", np.zeros((4, 32, 32, 3), np.uint8), 8)
    (clips / names[0] / "d.mp4").write_bytes(b"nothing")
    given = ["srt", clips, "--model", "tiny-account-clip", "--weights", tmp_path / "w.pt"]
    given += ["--dataset", "gtea", "-o", tmp_path / "o", "--json"]
    assert vlact(*given)[0] == 2
    code, out, _ = vlact(*given, "--max-dropped", 0.4)
    found, row = settled(tmp_path / "o"), json.loads(out)
    assert code == 0 and found["clips", "in", ""] == 3 and found["clips", "used", ""] == 2
    assert found["classes", "in", ""] == 4 and found["classes", "used", ""] == 2
    assert row["test"] == "SRT v1 gtea" and row["sha256"] == srt.SHA256["gtea"]


def test_transfer_accounts_for_clips(vlact, tmp_path):  # noqa: F811
    rows = ["a,a,1,1", "a,b,2,1", "a,,2,1", "a,b,2,1"]
    (tmp_path / "c.csv").write_text("label,predicted,set,trained_on\n" + "\n".join(rows) + "\n")
    given = ["transfer", tmp_path / "c.csv", "-o", tmp_path / "o"]
    code, _, said = vlact(*given)
    assert code == 2 and "c.csv, line 4: predicted is empty" in said
    assert vlact(*given, "--max-dropped", 0.25)[0] == 0
    assert settled(tmp_path / "o")["clips", "used", ""] == 3


# Trained weights
def test_the_zoo_says_what_each_file_is(tmp_path):
    import hashlib

    from vlact.models.dual import DualConfig, DualEncoder
    from vlact.stages.__main__ import STAGES
    from vlact.tools import zoo

    data = tmp_path / "data" / "mini"
    with pytest.raises(FileNotFoundError, match="no trained weights"):
        zoo.table(data, "mini")
    path = data / "pretrained" / "seed0.safetensors"
    path.parent.mkdir(parents=True)
    DualEncoder(DualConfig(32, 16, 4, 32, 1, 2, 16, 384, "mean")).save(path)
    curve = "stage,seed,step,loss,val_verb\ntrunk,0,1,9,0.25\ntrunk,0,2,8,0.5\ntrunk,1,2,8,0.75\n"
    path.with_name("curves.csv").write_text(curve)
    found = zoo.table(data, "mini")
    (row,) = found.to_dict("records")
    assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (row["file"], row["numbers"]) == ("pretrained/seed0.safetensors", "val_verb 0.5")
    assert row["command"] == "python -m vlact.stages pretraining mini"
    assert row["command"].split()[3] in STAGES and '"dim": 32' in row["config"]
    assert "no note of machine" in zoo.page(data, "mini", found)
    # a run's note says where it was
    run = {"machine": {"cpu": "a", "cores": 2, "python": "3", "versions": {"torch": "2"}}}
    for file, content in (
        (data / "figures" / "pretrain" / "map.json", [{"notebook": "02_x.ipynb"}]),
        (data.parent / "executed" / "mini-02_x.json", run | {"commit": "abc", "date": "today"}),
        (data / "metrics" / "localizers.json", {"ActionFormer, all/mAP": 0.5, "TriDet/mAP": 1}),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    said = zoo.page(data, "mini", found)
    assert "Run of today, commit abc: a, 2 cores, python 3, torch 2." in said
    trained = data / "localizers" / "localizer.safetensors"
    assert zoo.numbers(data, trained, "localizers") == "mAP 0.5 (mean over seeds)"
    zoo.release(data, "mini", found, tmp_path / "release")
    copied = tmp_path / "release" / "pretrained" / "seed0.safetensors"
    assert copied.read_bytes() == path.read_bytes()
    assert row["sha256"] in (tmp_path / "release" / "README.md").read_text()


# SRT v1
@pytest.mark.parametrize("dataset", srt.SHA256)
def test_srt_v1_is_what_the_paper_s_tables_ask(dataset):
    sets, test = srt.load(dataset), SynonymRobustnessTest.of(dataset, leaf=False)
    assert sets.runs == test.names and sets.novel == test.classes and len(sets.runs) == 10
    assert not set(sets.base) & set(sets.novel)


def test_srt_v1_that_was_edited_is_refused(tmp_path, monkeypatch):
    text = srt.FILE.read_text(encoding="utf-8")
    (tmp_path / "srt.yaml").write_text(text.replace("deposit item", "drop item", 1))
    monkeypatch.setattr(srt, "FILE", tmp_path / "srt.yaml")
    with pytest.raises(ValueError, match=r"ata has sha256 .*; expected"):
        srt.load("ata")


# Other inputs of the kinds that once failed
@pytest.mark.parametrize("name, text", [
    ("none.json", '{"results": {}}'),
    ("none.json", '{"results": {"a": []}}'),
    ("none.csv", "video,start_s,end_s,label,score\n"),
    ("none.txt", ""),
])  # fmt: skip
def test_a_detector_that_found_nothing_is_scored(vlact, tmp_path, name, text):  # noqa: F811
    (tmp_path / "t.csv").write_text("video,start_s,end_s,label\na,0,2,run\n")
    (tmp_path / name).write_text(text)
    given = ["score", tmp_path / name, tmp_path / "t.csv", "-o", tmp_path / "o", "--json"]
    code, out, said = vlact(*given, "--resamples", 2)
    assert code == 0 and json.loads(out)["activitynet"]["mAP"]["value"] == 0, said
    assert settled(tmp_path / "o")["detections", "in", ""] == 0


@pytest.mark.parametrize("label", ["1.0", "r\u200bun", "ru\u00adn", "\ufeffrun"])
def test_marks_without_width_and_fractions_of_a_table_make_no_other_label(label):
    from vlact.schema import label_key

    assert label_key(label) in (label_key("run"), label_key(1))


def test_a_key_that_stands_twice_is_refused_in_yaml_and_in_options(tmp_path):
    from vlact.language.trees import Trees
    from vlact.tools import cli_inputs

    tree = "lift: {lift: [raise, hoist], raise: [lift, hoist], hoist: [lift, raise]}\n"
    (tmp_path / "t.yaml").write_text(tree + tree)
    with pytest.raises(ValueError, match=r"t\.yaml: .*'lift' is there twice"):
        Trees.load(tmp_path / "t.yaml")
    with pytest.raises(ValueError, match="--options .*'a' stands twice"):
        cli_inputs.read_options('{"a": 1, "a": 2}')


def test_two_files_of_features_of_one_video_are_named(tmp_path):
    from vlact.papers.actionvlm.scaling import features_of

    for name in ("x", "v_x"):
        np.save(tmp_path / f"{name}.npy", np.ones((5, 3), np.float32))
    with pytest.raises(ValueError, match="v_x.npy and x.npy are of one video"):
        features_of(tmp_path, ["x"])


def test_transposed_files_of_features_are_refused_or_turned(tmp_path):
    from vlact.tools import cli_inputs

    for name, steps in (("a", 5), ("b", 7)):
        np.save(tmp_path / f"{name}.npy", np.ones((3, steps)))  # (F, T), doubles
    with pytest.raises(ValueError, match=r"b: .*\(3, 7\).*perhaps .* \(F, T\).*--transpose"):
        cli_inputs.present_features(tmp_path, ["a", "b"])
    found, bad = cli_inputs.present_features(tmp_path, ["a", "b"], transpose=True)
    assert [tuple(x.shape) for x in found.values()] == [(5, 3), (7, 3)] and not bad


def test_a_csv_whose_splits_share_seconds_is_refused(tmp_path):
    from vlact.tools import cli_inputs

    rows = "a,0,2,run,train\na,1,3,run,test\n"
    (tmp_path / "t.csv").write_text("video,start_s,end_s,label,split\n" + rows)
    with pytest.raises(ValueError, match=r"lines 2 and 3: 'a', second 1, is in split"):
        cli_inputs.read_truth(tmp_path / "t.csv")
