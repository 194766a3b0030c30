"""The command line, as a user types it, on files made here."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vlact import ROOT, video
from vlact.report import own
from vlact.tools import cli, cli_inputs

NASTY = "<img src=x onerror=alert(1)>"
ENCODER = """
class Colour:
    def __init__(self, scale=1.0):
        self.scale = scale
    def describe(self):
        return {"num_frames": 2, "image_size": 16}
    def encode(self, clips):
        return clips.mean((1, 2, 3)) * self.scale / 255
"""


@pytest.fixture
def vlact(capsys, monkeypatch):
    """Runs a command: exit code, stdout, stderr."""
    monkeypatch.setenv("VLACT_PROGRESS", "lines")

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(a) for a in arguments])
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Six films whose colour is their action, their truth, an encoder that sees colours."""
    folder, database = tmp_path_factory.mktemp("toy"), {}
    (folder / "films").mkdir()
    for i in range(6):
        frames, notes = np.full((96, 48, 64, 3), 40, np.uint8), []
        for k in range(3):
            start, colour = 32 * k + 4, (i + k) % 2
            frames[start : start + 20, :, :, colour] = 220
            label = ("red", "green")[colour]
            notes.append({"segment": [start / 8, (start + 20) / 8], "label": label})
        notes += [{"segment": [0, 1], "label": NASTY}] * (i == 5)
        video.write(folder / "films" / f"v{i}.mp4", frames, 8)
        part = "train" if i < 4 else "test"
        database[f"v{i}"] = {"subset": part, "duration": 12.0, "annotations": notes}
    (folder / "truth.json").write_text(json.dumps({"database": database}))
    (folder / "mine.py").write_text(ENCODER)
    return folder


def results(folder, rows) -> Path:
    """A results file with these `video, start_s, end_s, label, score`."""
    out = {}
    for name, start, stop, label, score in rows:
        out.setdefault(name, []).append({"segment": [start, stop], "label": label, "score": score})
    (folder / "results.json").write_text(json.dumps({"results": out}))
    return folder / "results.json"


# Score and its report
def test_score_gives_known_numbers_by_both_protocols_and_one_safe_page(vlact, toy, tmp_path):
    rows = [("v4", 0.5, 3.0, "red", 0.9), ("v4", 8.5, 11.0, "red", 0.8)]
    rows += [("v5", 4.5, 7.0, "green", 0.7), ("v5", 0.5, 3.0, "green", 0.6)]
    given = results(tmp_path, rows)
    code, out, _ = vlact("score", given, toy / "truth.json", "-o", tmp_path / "s", "--resamples", 8,
                         "--videos", toy / "films", "--json")  # fmt: skip
    found = json.loads(out)
    # red: v4 has two and both are found, v5 has one, which is not: 2 of 3, nothing wrong
    table = pd.read_csv(tmp_path / "s" / "classes.csv").query("tiou == 0.5")
    ap = table[table["protocol"] == "activitynet"].set_index("label")["ap"]
    assert code == 0 and ap[NASTY] == 0 and ap["red"] == pytest.approx(2 / 3, abs=1e-6)
    mean = found["activitynet"]["mAP@0.50"]
    assert mean["value"] == pytest.approx(ap.mean(), abs=1e-6)
    assert mean["low"] <= mean["value"] <= mean["high"] and "thumos14" in found
    videos = pd.read_csv(tmp_path / "s" / "videos.csv")
    assert videos["video"].tolist() == ["v5", "v4"] and videos["f1"].is_monotonic_increasing
    page = (tmp_path / "s" / "report.html").read_text()
    assert "default-src 'none'" in page and "<script" not in page and NASTY not in page
    assert "&lt;img src=x" in page and page.count("data:video/mp4;base64,") == 2
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


def test_clips_of_the_page_are_small_short_and_end_when_it_is_full(toy, tmp_path, monkeypatch):
    import io

    import av

    frames = np.zeros((80, 120, 640, 3), np.uint8)
    video.write(tmp_path / "long.mp4", frames, 2)  # 40 s
    data, end_s = own.clip(tmp_path / "long.mp4", 5.0)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.pix_fmt) == (320, 60, "yuv420p")
        assert float(container.duration / av.time_base) == pytest.approx(30, abs=0.6)
    assert end_s == 35
    monkeypatch.setattr(own, "BYTES", 10)
    table = pd.DataFrame(
        {"video": ["long.mp4"], "start_s": 1.0, "end_s": 2.0, "label": "a", "score": 1}
    )
    made = own.detected(table, {"long.mp4": 40.0}, "t")
    page = own.page(made, tmp_path, {"long.mp4": tmp_path / "long.mp4"})
    assert "base64" not in page and '<a href="long.mp4">' in page


def test_interval_narrows_to_the_value_where_every_video_is_alike(tmp_path):
    rows = [(f"v{i}", 0.0, 2.0, "a") for i in range(6)]
    truth = pd.DataFrame(rows, columns=cli_inputs.SEGMENT)
    options = {"tious": (0.5,), "durations": {v: 4.0 for v, *_ in rows}, "resamples": 10}
    made = own.score(truth, truth.assign(score=1.0), **options)
    table = made.tables["scores"]
    assert (table[["value", "low", "high"]] == 1).all(axis=None)
    assert made.tables["confusion"].set_index("truth").loc["a", "a"] == 6
    alone = own.score(truth.head(1), truth.head(1).assign(score=1.0), **options)
    assert alone.tables["scores"][["low", "high"]].isna().all(axis=None)
    assert any("Intervals: none." in note for note in alone.notes)


def test_confusion_says_what_an_instance_is_taken_for():
    truth = pd.DataFrame(
        [("v", 0, 2, "a"), ("v", 4, 6, "b"), ("v", 8, 9, "b")], columns=cli_inputs.SEGMENT
    )
    found = pd.DataFrame(
        [("v", 0, 2, "b", 0.9), ("v", 4, 6, "b", 0.8)], columns=[*cli_inputs.SEGMENT, "score"]
    )
    made = own.score(truth, found, tious=(0.5,), durations={"v": 9.0}, resamples=0)
    table = made.tables["confusion"].set_index("truth")
    assert table.loc["a"].to_dict() == {"b": 1, "nothing": 0}
    assert table.loc["b"].to_dict() == {"b": 1, "nothing": 1}


def test_detections_of_a_label_in_another_spelling_count_in_every_table():
    truth = pd.DataFrame([("v", 0, 2, "long jump")], columns=cli_inputs.SEGMENT)
    found = truth.assign(label="LongJump", score=0.9)
    made = own.score(truth, found, tious=(0.5,), durations={"v": 9.0}, resamples=0)
    assert (made.tables["scores"]["value"] == 1).all()
    assert made.tables["confusion"].set_index("truth").loc["long jump", "long jump"] == 1


def test_scores_of_a_csv_are_numbers_with_a_comma_where_semicolons_separate(tmp_path):
    rows = ["video;start_s;end_s;label;score", "a;0,5;2;run;0,25", "", "007;1;2;run;1e-3"]
    (tmp_path / "r.csv").write_text("\n".join(rows))
    found = cli_inputs.read_results(tmp_path / "r.csv")
    assert found["score"].tolist() == [0.25, 0.001] and found["start_s"].tolist() == [0.5, 1]
    assert found["video"].tolist() == ["a", "007"] and found.index.tolist() == [0, 1]


# Layouts
def opentad(folder):
    """Truth as OpenTAD and ActionFormer have it: numbers, strings, what is ambiguous."""
    notes = [
        {"segment": ["1.0", "3.0"], "label": "Diving", "label_id": 7},
        {"segment": [5.0, 9.0], "label": "HighJump", "label_id": 0},
        {"segment": [20.0, 22.0], "label": "Ambiguous", "label_id": 20},
    ]
    entry = {"subset": "Test", "duration": "30.0", "frame": 900, "annotations": notes}
    path = folder / "thumos_14_anno.json"
    path.write_text(json.dumps({"database": {"video_test_0000004": entry}}))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_actionformer_and_opentad_leave_is_scored_as_it_is(vlact, tmp_path, protocol):
    truth, name = opentad(tmp_path), "video_test_0000004"
    columns = {
        "video-id": [name] * 3,
        "t-start": np.array([1, 5, 20], np.float32),
        "t-end": np.array([3, 9, 22], np.float32),
        "label": np.array([7, 0, 7]),  # the last one at what is ambiguous
        "score": np.array([0.9, 0.8, 0.95], np.float32),
    }
    (tmp_path / "eval_results.pkl").write_bytes(pickle.dumps(columns, protocol))
    rows = [(name, 1.0, 3.0, "Diving", 0.9), (name, 5.0, 9.0, "HighJump", 0.8)]
    for given in (tmp_path / "eval_results.pkl", results(tmp_path, rows)):
        code, out, said = vlact(
            "score", given, truth, "-o", tmp_path / "o", "--resamples", 0, "--json"
        )
        assert code == 0, said
        assert json.loads(out)["thumos14"]["mAP"]["value"] == 1
        table = pd.read_csv(tmp_path / "o" / "account.csv").fillna("").set_index(["of", "reason"])
        assert table.loc[("rows of the truth", "ambiguous, of no class"), "count"] == 1


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [Evil(), {"video-id": [Evil()]}, [1], {"score": np.ones(2)}])
def test_a_pickle_of_something_else_is_refused_and_not_run(tmp_path, capsys, content):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"x\.pkl: expected a pickle of lists and arrays"):
        cli_inputs.read_results(tmp_path / "x.pkl")
    assert capsys.readouterr().out == ""


def test_mmaction2_s_annotations_need_no_list_of_videos(tmp_path):
    notes = {"v_test1": {"duration_second": 9, "annotations": [{"segment": [0, 1], "label": "a"}]}}
    (tmp_path / "anet_anno_val.json").write_text(json.dumps(notes))
    found = cli_inputs.read_truth(tmp_path / "anet_anno_val.json").table
    assert found[["video", "duration_s"]].to_numpy().tolist() == [["test1", 9]]


def test_ids_are_compared_without_v_and_the_ending_of_a_file(tmp_path):
    rows = "v_a.mp4,0,1,x\nb.MKV,1,2,x\nc.d,1,2,x\n"
    (tmp_path / "t.csv").write_text("video,start_s,end_s,label\n" + rows)
    assert cli_inputs.read_truth(tmp_path / "t.csv").table["video"].tolist() == ["a", "b", "c.d"]
    (tmp_path / "t.csv").write_text("video,start_s,end_s,label\na.mp4,0,1,x\na.avi,1,2,x\n")
    assert cli_inputs.read_truth(tmp_path / "t.csv").table["video"].tolist() == ["a.mp4", "a.avi"]


def test_every_layout_of_truth_is_told_by_its_content(tmp_path):
    files = {
        "a.json": '{"database": {"x": {"subset": "test", "annotations": '
        '[{"segment": [0, 1], "label": "run"}]}}}',
        "r.json": '{"x": {"annotations": [{"segment": [0, 1], "class": "run"}]}}',
        "b.json": '{"v_x": {"duration_second": 3, '
        '"annotations": [{"segment": [0, 1], "label": "run"}]}}',
        "video_info_new.csv": "video,subset\nv_x,validation\n",
        "g.csv": "video,type,start,end\nx,run,0,1\n",
        "h.csv": "video-name,t-init,t-end,label-idx\nx,0,1,0\nx,2,3,-1\n",
        "t.csv": "video-name,t-start,t-end,action-label,video-duration,temporal-region-label\n"
        "x,0,1,run,3,Action\n",
        "e.csv": "video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
        "P1_x,00:00:00,00:00:01,3,4\n",
        "o.csv": "video,start_s,end_s,label\nx,0,1,run\n",
        "Run_test.txt": "x 0 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    layouts = {"a.json": "ActivityNet", "r.json": "RTD-Net", "b.json": "BMN", "g.csv": "G-TAD"}
    layouts |= {"h.csv": "G-TAD", "t.csv": "TSP", "e.csv": "EPIC-Kitchens", "o.csv": "csv"}
    for name, layout in layouts.items():
        found = cli_inputs.read_truth(tmp_path / name)
        assert found.layout == layout and len(found.table) == 1, name
        assert found.table.loc[0, ["start_s", "end_s"]].tolist() == [0, 1], name
    assert len(cli_inputs.read_truth(tmp_path / "h.csv").ambiguous) == 1
    assert cli_inputs.read_truth(tmp_path).layout == "THUMOS14 text files"


# Check
def test_check_names_every_kind_of_problem(vlact, tmp_path):
    rows = ["a,0,2,run", "a,1,3,run", "a,5,5,run", "a,0,2,run", "a,6,7,Run"]
    rows = ["video,start_s,end_s,label,duration_s", *(f"{r},10" for r in rows), "b,8,12,jump,10"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    code, out, _ = vlact("check", tmp_path / "t.csv", "-o", tmp_path / "c", "--json")
    assert code == 1
    assert json.loads(out)["problems"] == {
        "no length": 1,
        "beyond the end": 1,
        "there twice": 1,
        "overlaps its own class": 1,
        "spelt differently": 1,
    }
    (tmp_path / "good.csv").write_text("video,start_s,end_s,label\na,0,2,run\na,3,4,run\n")
    assert vlact("check", tmp_path / "good.csv", "-o", tmp_path / "c")[0] == 0


# From videos to a localizer and back
def test_features_train_and_localize_with_an_encoder_of_ones_own(vlact, toy, tmp_path, monkeypatch):
    monkeypatch.chdir(toy)  # the encoder's file is named as the user types it
    seen, model = tmp_path / "seen", tmp_path / "model"
    mine = ["--encoder", "mine.py:Colour", "--options", '{"scale": 2}', "--stride", 2]
    code, *_ = vlact("features", "films", *mine, "-o", seen)
    note = json.loads((seen / "features.json").read_text())
    assert code == 0 and note["options"] == {"scale": 2} and note["videos"]["v0"] == [48, 3]
    few = ["--profile", "smoke", "--epochs", 2, "--resamples", 0]
    code, out, said = vlact("train-localizer", "truth.json", seen, "-o", model, *few, "--json")
    found = json.loads(out)
    assert code == 0, said
    assert found["classes"] == ["green", "red"] and found["only in the test part"] == [NASTY]
    assert 0 <= found["activitynet"]["mAP"]["value"] <= 1 and not (model / "work").exists()
    refused = vlact("localize", "films/v5.mp4", "--model", model, "-o", tmp_path / "l")
    assert refused[0] == 2 and "pass --encoder mine.py:Colour" in refused[2]
    code, out, _ = vlact("localize", "films/v5.mp4", "--model", model, "-o", tmp_path / "l",
                         "--encoder", "mine.py:Colour", "--json")  # fmt: skip
    shown = json.loads(out)["segments"]
    assert code == 0 and shown and {s["label"] for s in shown} <= {"green", "red"}
    kept = json.loads((tmp_path / "l" / "segments.json").read_text())["results"]["v5.mp4"]
    assert max(s["score"] for s in kept) == pytest.approx(max(s["score"] for s in shown))
    assert (tmp_path / "l" / "timeline.png").stat().st_size > 1000
    assert len(video.probe(tmp_path / "l" / "captioned.mp4").times) == 96
    assert "data:video/mp4" in (tmp_path / "l" / "report.html").read_text()


def test_models_of_the_hub_recognize_and_localize(vlact, toy, tmp_path):
    import torch

    from vlact import hub
    from vlact.models.actionformer import ActionFormer, LocalizerConfig
    from vlact.models.dual import DualConfig, DualEncoder
    from vlact.papers.actionvlm.localizing import Clock, Localizer

    torch.manual_seed(0)
    recognizer, localizer = hub.ActionRecognizer, hub.ActionLocalizer
    eye = DualEncoder(DualConfig(32, 16, 4, 32, 1, 2, 16, 384, "mean"))
    model, film = recognizer(eye), toy / "films" / "v0.mp4"
    model.save_pretrained(tmp_path / "recognizer")
    given = ["--model", tmp_path / "recognizer", "-o", tmp_path / "r"]
    code, out, said = vlact("recognize", film, *given, "--names", "drop, spin", "--json")
    assert code == 0, said
    rows = pd.DataFrame(json.loads(out))
    assert rows["score"].tolist() == model.predict(film, ["drop", "spin"])["score"].tolist()
    assert "names must be two or more" in vlact("recognize", film, *given)[2]
    note = json.loads((tmp_path / "recognizer" / hub.CONFIG).read_text())
    old = note | {"kind": "Namer"}  # as the first version wrote it
    (tmp_path / "recognizer" / hub.CONFIG).write_text(json.dumps(old))
    code, _, said = vlact("recognize", film, *given, "--names", "drop, spin", "--json")
    assert code == 2 and "expected one of" in said and "'Namer'" in said

    shape = LocalizerConfig(feature_dim=32, classes=2, dim=16, heads=2, embeds=1, stems=1, levels=2)
    recipe = {"window": 16, "pre_nms_topk": 20, "nms": {"sigma": 0.5, "max_seg_num": 5}}
    inside = ActionFormer(shape).eval(), ["drop", "spin"], Clock(0.25), recipe
    model = localizer(eye, Localizer(*inside, torch.zeros(32), torch.ones(32)), fps=8.0, stride=2)
    model.save_pretrained(tmp_path / "localizer")
    given = ["--model", tmp_path / "localizer", "-o", tmp_path / "l"]
    code, out, said = vlact("localize", film, *given, "--threshold", 0, "--json")
    assert code == 0, said
    best = max(json.loads(out)["segments"], key=lambda s: s["score"])
    assert best["score"] == pytest.approx(model.predict(film)["score"].max())
    assert "expected one of ('ActionRecognizer'" in vlact("recognize", film, *given)[2]


def test_captions_are_written_on_the_frames_of_their_segment_only(toy, tmp_path):
    segments = pd.DataFrame({"start_s": [2.0], "end_s": [4.0], "label": "x", "score": 1.0})
    black = np.full((48, 96, 128, 3), 90, np.uint8)
    video.write(tmp_path / "in.mp4", black, 8)
    own.captioned(tmp_path / "in.mp4", segments, tmp_path / "out.mp4")
    frames = video.read(tmp_path / "out.mp4", range(48)).astype(int)
    changed = np.abs(frames - 90).max(axis=(1, 2, 3)) > 40
    assert np.flatnonzero(changed).tolist() == list(range(16, 32))


# Synonyms and contexts
def test_srt_of_a_local_checkpoint_equals_the_test_by_hand(vlact, toy, tmp_path):
    import open_clip
    import torch

    small = {"width": 32, "layers": 1}
    eye = small | {"image_size": 32, "patch_size": 16, "head_width": 16}
    words = small | {"context_length": 77, "vocab_size": 49408, "heads": 2}
    shape = {"embed_dim": 16, "vision_cfg": eye, "text_cfg": words}
    (tmp_path / "tiny-test-clip.json").write_text(json.dumps(shape))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-test-clip").state_dict(), tmp_path / "w.pt")
    for i, name in enumerate(("red", "green")):
        (tmp_path / "clips" / name).mkdir(parents=True)
        (tmp_path / "clips" / name / "c.mp4").write_bytes(
            (toy / "films" / f"v{i}.mp4").read_bytes()
        )
    names = {"red": ["red", "scarlet"], "green": ["green", "lime"]}
    (tmp_path / "n.json").write_text(json.dumps(names))
    given = ["srt", tmp_path / "clips", "--model", "tiny-test-clip", "--weights", tmp_path / "w.pt"]
    code, out, said = vlact(*given, "--names", tmp_path / "n.json", "-o", tmp_path / "o", "--json")
    assert code == 0, said
    row = json.loads(out)
    assert row["clips"] == 2 and row["overlap"] == 0
    assert row["srt_acc_mean"] in (0.0, 0.25, 0.5, 0.75, 1.0)
    (tmp_path / "clips" / "blue").mkdir()
    refused = vlact(*given, "--names", tmp_path / "n.json", "-o", tmp_path / "o")
    assert refused[0] == 2 and "got ['blue']" in refused[2]
    given[-1] = "none"  # random weights are never scored
    random = vlact(*given, "--names", tmp_path / "n.json")
    assert random[0] == 2


def test_transfer_counts_known_and_unknown_contexts(vlact, tmp_path):
    rows = ["a,a,1,1", "a,b,1,1", "a,a,2,1", "a,b,2,1", "a,b,2,1", "a,b,2,1"]
    (tmp_path / "c.csv").write_text("label,predicted,set,trained_on\n" + "\n".join(rows) + "\n")
    code, out, _ = vlact("transfer", tmp_path / "c.csv", "-o", tmp_path / "o", "--json")
    (row,) = json.loads(out)
    assert code == 0 and (row["known"], row["unknown"], row["d_abs"]) == (50, 25, 25)


# Bad input and the project's own folders
@pytest.mark.parametrize("arguments, says", [
    (["score", "nope.json", "truth.json"], "nope.json: No such file"),
    (["score", "truth.json", "truth.json"], 'expected {"results"'),
    (["score", "r.csv", "truth.json"], "missing columns ['score']"),
    (["check", "bad.csv"], "missing columns"),
    (["features", "broken.mp4", "--encoder", "mine.py:Colour"], "broken.mp4"),
    (["features", "films", "--encoder", "mine.py:Other"], "no class 'Other'"),
    (["features", "films", "--encoder", "mine.py:Colour", "--options", "["], "a JSON object"),
    (["localize", "films/v0.mp4", "--model", "films"], "a folder that save_pretrained wrote"),
    (["train-localizer", "truth.json", "films"], "pass --step-s"),
    (["score", "s.csv", "truth.json"], "s.csv, line 4: score must be a number; got 'high'"),
    (["score", "d.csv", "truth.json"], "d.csv, line 2: score must be a number; got '0,9'; write"),
    (["score", "t.xlsx", "truth.json"], "expected results as .json, .csv"),
    (["check", "t.xlsx"], "found a spreadsheet; save it as csv"),
    (["check", "truth.json", "-o", "e.csv"], "e.csv is no folder that can be written into"),
    (["transfer", "bad.csv"], "missing columns"),
    (["transfer", "e.csv"], "e.csv, line 3: predicted is empty"),
    (["recognize", "films", "--model", "films"], "expected a folder that save_pretrained wrote"),
])  # fmt: skip
def test_bad_input_ends_with_one_line_and_exit_code_2(vlact, toy, monkeypatch, arguments, says):
    monkeypatch.chdir(toy)
    (toy / "bad.csv").write_text("video,when\na,1\n")
    (toy / "r.csv").write_text("video,start_s,end_s,label\nv4,0,1,red\n")
    (toy / "s.csv").write_text(
        "video,start_s,end_s,label,score\nv4,0,1,red,.5\n\nv4,0,1,red,high\n"
    )
    (toy / "d.csv").write_text('video,start_s,end_s,label,score\nv4,0,1,red,"0,9"\n')
    (toy / "e.csv").write_text("label,predicted,set,trained_on\na,a,1,1\na, ,1,1\n")
    (toy / "broken.mp4").write_bytes(b"no video at all")
    code, out, said = vlact(*arguments)
    assert code == 2 and out == "" and says in said
    assert said.startswith("vlact: ") and said.count("\n") == 1 and "Traceback" not in said


def test_debug_shows_the_traceback(toy):
    with pytest.raises(FileNotFoundError):
        cli.main(["score", "nope.json", str(toy / "truth.json"), "--debug"])


def test_nothing_is_written_among_committed_results(vlact, toy, tmp_path):
    given = results(tmp_path, [("v4", 0.5, 3.0, "red", 0.9)])
    out = ROOT / "figures" / "mine"
    code, _, said = vlact("score", given, toy / "truth.json", "-o", out, "--resamples", 0)
    assert code == 2 and "the project's own" in said and not out.exists()


def test_every_command_has_help_and_is_known_to_doctor(vlact):
    commands = {c.name or c.callback.__name__ for c in cli.app.registered_commands}
    assert commands == set(cli.NEEDS)
    for command in commands:
        code, out, _ = vlact(command, "--help")
        assert code == 0 and "Usage" in out
    assert vlact("--version")[1].startswith("vlact ")
