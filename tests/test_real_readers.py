"""Readers of real clips, poses and recordings, on tiny files of the original layouts."""

import gzip
import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest

from vlact import video
from vlact.datasets.real import (
    SetMissing,
    fir,
    gtea,
    msr_action3d,
    ntu,
    nw_ucla,
    plain_pickle,
    tcn,
    ut_interaction,
    utkinect,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def film(path, seconds=2.0, fps=10.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    t = int(seconds * fps)
    frames = np.random.default_rng(t).integers(0, 255, (t, 32, 48, 3), np.uint8)
    video.write(path, frames, fps)
    return path


def quiet(read, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(*args, **kwargs)


# Northwestern-UCLA
def ucla(folder, rng, names=("a01_s01_e00_v01", "a12_s10_e04_v03")):
    joints = {}
    for i, name in enumerate(names):
        joints[name] = np.round(rng.normal(size=(3 + i, 20, 3)) * 1000) / 2000
        body = {"file_name": name, "skeletons": joints[name].tolist()}
        (folder / f"{name}.json").write_text(json.dumps(body))
    return joints


def test_ucla_takes_labels_from_names_and_says_how_many_are_missing(tmp_path, rng):
    joints = ucla(tmp_path, rng)
    with pytest.raises(ValueError, match=r"1484 sequences; 1 missing .* 1482 more.*skip=True"):
        nw_ucla.read(tmp_path)
    with pytest.warns(UserWarning, match="1482 more; left out"):
        found = nw_ucla.read(tmp_path, skip=True)
    assert found.layout == "original"
    row = found.table.iloc[1]
    assert (row["label"], row["subject"], row["repetition"], row["view"]) == ("carry", 10, 4, 3)
    assert np.allclose(found[1], joints["a12_s10_e04_v03"], atol=1e-6)


def test_ucla_packed_is_the_same(tmp_path, rng):
    joints = ucla(tmp_path, rng)
    original = quiet(nw_ucla.read, tmp_path, skip=True)
    offset = np.cumsum([0, *(len(j) for j in joints.values())])
    packed = np.round(np.concatenate(list(joints.values())) * 2000).astype(np.int16)
    np.savez(tmp_path / nw_ucla.PACKED, names=list(joints), offset=offset, joints_half_mm=packed)
    found = quiet(nw_ucla.read, tmp_path, skip=True)
    assert found.layout == "packed" and found.table.equals(original.table)
    assert np.allclose(found.joints, original.joints, atol=1e-6)


def test_ucla_names_what_is_wrong(tmp_path, rng):
    with pytest.raises(ValueError, match="found none"):
        nw_ucla.read(tmp_path)
    ucla(tmp_path, rng, ("a01_s01_e00_v01",))
    (tmp_path / "a07_s01_e00_v01.json").write_text('{"skeletons": []}')
    with pytest.raises(ValueError, match=r"a07_s01_e00_v01.json: expected skeletons \(T, 20, 3\)"):
        nw_ucla.read(tmp_path, skip=True)
    ucla(tmp_path, rng, ("a07_s01_e00_v01",))
    with pytest.raises(ValueError, match="'a07_s01_e00_v01' is no name of NW-UCLA"):
        nw_ucla.read(tmp_path, skip=True)


def test_ucla_holds_its_names_against_published_labels(tmp_path, rng):
    ucla(tmp_path, rng)
    rows = [{"file_name": "a12_s10_e04_v03", "length": 4, "label": 10}]
    (tmp_path / "val_label.pkl").write_bytes(pickle.dumps(rows))
    assert len(quiet(nw_ucla.read, tmp_path, skip=True).table) == 2
    rows[0]["label"] = 3
    (tmp_path / "val_label.pkl").write_bytes(pickle.dumps(rows))
    with pytest.raises(ValueError, match=r"val_label.pkl, row 0 \(a12_s10_e04_v03\): label 3"):
        quiet(nw_ucla.read, tmp_path, skip=True)


def test_a_sequence_of_nan_is_named(tmp_path, rng):
    ucla(tmp_path, rng)
    joints = np.full((2, 20, 3), np.nan)
    body = json.dumps({"skeletons": joints.tolist()}).replace("NaN", "1e999")
    (tmp_path / "a02_s01_e00_v01.json").write_text(body)
    with pytest.warns(UserWarning, match="a02_s01_e00_v01: joints are not finite in frame 0"):
        found = nw_ucla.read(tmp_path, skip=True)
    assert len(found.table) == 2


def test_pickles_of_labels_run_nothing(tmp_path):
    path = tmp_path / "labels.pkl"
    rows = [{"file_name": "a", "length": 3}, ["b", 1]]
    path.write_bytes(pickle.dumps(rows))
    assert plain_pickle.load(path) == rows
    marker = tmp_path / "ran"

    class Code:
        def __reduce__(self):
            return open, (str(marker), "w")

    for bad, words in (
        (Code(), r"asks for (io|_io)\.open"),
        ([np.float64(1.0)], "asks for numpy"),
        ([1.5], "float"),
        ([None], "NoneType"),
        ({"a": (1, 2)}, "tuple"),
    ):
        path.write_bytes(pickle.dumps(bad))
        with pytest.raises(ValueError, match=f"labels.pkl: expected a pickle of lists.*{words}"):
            plain_pickle.load(path)
    assert not marker.exists()
    path.write_bytes(pickle.dumps(rows)[:-9])
    with pytest.raises(ValueError, match="labels.pkl: expected a pickle"):
        plain_pickle.load(path)


# MSR-Action3D
def test_msr_brings_joints_into_one_order(tmp_path):
    joints = np.zeros((2, 20, 4), np.float32)
    joints[:, 6] = [0, 1, 2, 1]  # hips, by its own order
    joints[:, 19] = [0, 1.7, 2, 1]  # head
    np.savetxt(tmp_path / "a20_s03_e02_skeleton3D.txt", joints.reshape(-1, 4))
    found = quiet(msr_action3d.read, tmp_path, skip=True)
    assert found.table["label"].tolist() == ["pick up and throw"]
    assert found.table["subject"].tolist() == [3] and found.layout == "original"
    assert found[0][:, 0, 1].tolist() == [1, 1] and np.allclose(found[0][:, 3, 1], 1.7)
    np.savez(
        tmp_path / msr_action3d.PACKED,
        names=["a20_s03_e02"],
        offset=np.array([0, 2]),
        joints_xyzc=joints,
    )
    packed = quiet(msr_action3d.read, tmp_path, skip=True)
    assert packed.layout == "packed" and np.allclose(packed.joints, found.joints)


def test_msr_names_a_file_that_is_cut(tmp_path):
    np.savetxt(tmp_path / "a01_s01_e01_skeleton3D.txt", np.zeros((30, 4)))
    with pytest.raises(ValueError, match=r"a01_s01_e01_skeleton3D.txt: expected twenty lines"):
        msr_action3d.read(tmp_path, skip=True)


# UTKinect
def kinect(folder, labels):
    frames = np.arange(190, 190 + 2 * 60, 2)
    lines = np.concatenate([frames[:, None], np.zeros((60, 60))], 1)
    np.savetxt(folder / "joints_s10_e02.txt", lines, fmt="%.3f")
    (folder / "actionLabel.txt").write_text(labels)


def test_utkinect_counts_seconds_from_its_first_frame(tmp_path):
    kinect(tmp_path, "s10_e02\nwalk: 220 250\ncarry:  NaN NaN\nsitDown: 290 400 \n")
    found = quiet(utkinect.read, tmp_path, skip=True)
    truth = found.recordings.truth
    assert truth["label"].tolist() == ["walk", "sit down"]
    assert truth["start_s"].tolist() == pytest.approx([1.0, 100 / 30])
    assert truth["end_s"].tolist() == pytest.approx([2.0, 4.0])
    assert found.recordings.durations == pytest.approx({"s10_e02": 4.0})
    assert found.seconds[:3].tolist() == pytest.approx([0, 2 / 30, 4 / 30])
    said = " ".join(found.recordings.notes)
    assert "carry, nan to nan" in said and "ends after the recording, cut" in said


def test_utkinect_names_a_line_that_is_no_label(tmp_path):
    kinect(tmp_path, "s10_e02\nwalk: 220 250\njump: 260 270\n")
    with pytest.raises(ValueError, match=r"actionLabel.txt, line 3: expected.*jump"):
        utkinect.read(tmp_path, skip=True)


# UT-Interaction
def test_ut_interaction_reads_names_and_leaves_class_six_out(tmp_path):
    home = tmp_path / "ut-interaction_segmented_{0}" / "segmented_{0}"
    first = [str(home).format(s) for s in ("set1", "set2")]
    for folder, name in ((first[0], "0_1_4"), (first[0], "61_1_6"), (first[1], "58_20_4")):
        film(tmp_path.joinpath(folder, f"{name}.avi"))
    with pytest.raises(ValueError, match=r"118 missing or unusable, such as .*1_\*: not there"):
        ut_interaction.read(tmp_path)
    found = quiet(ut_interaction.read, tmp_path, skip=True)
    assert found.layout == "original" and found.table["label"].tolist() == ["punch", "punch"]
    assert found.table["sequence"].tolist() == [1, 20]
    assert len(found.left_out) == 118
    assert all((found.folder / v).is_file() for v in found.table["video"])


def test_ut_interaction_names_a_cut_clip(tmp_path):
    for name in ("set1/0_1_4.mp4", "set1/1_1_2.mp4", "set2/0_11_4.mp4"):
        film(tmp_path / name)
    cut = tmp_path / "set1/1_1_2.mp4"
    cut.write_bytes(cut.read_bytes()[:300])
    found = quiet(ut_interaction.read, tmp_path, skip=True)
    assert found.layout == "packed" and len(found.table) == 2
    assert any("1_1_2.mp4" in line for line in found.left_out)
    film(tmp_path / "set2/1_3_4.mp4")
    with pytest.raises(ValueError, match="sequence 3 is not of set2"):
        quiet(ut_interaction.read, tmp_path, skip=True)


# FIR
def test_fir_labels_are_on_the_thermal_clock(tmp_path):
    name = fir.VIDEOS[0]
    film(tmp_path / "video" / f"{name}.mp4", 10.0)
    (tmp_path / "labels").mkdir()
    line = f"{name}.csv,8,16,walk,16,60,sit,60,120,lying,900,950,walk,"
    (tmp_path / "labels/labels.csv").write_text(f"{line}\nother_recording.csv,1,2,walk\n")
    found = quiet(fir.read, tmp_path, skip=True)
    assert found.layout == "original" and list(found.durations) == [name]
    assert found.truth["label"].tolist() == ["walk", "sit", "lying"]
    assert found.truth["start_s"].tolist()[:2] == pytest.approx([8 / 7.793, 16 / 7.793])
    assert found.truth["end_s"].max() == pytest.approx(10.0)
    assert any("starts after the end" in n for n in found.notes)
    assert any("lying" in n and "cut" in n for n in found.notes)
    assert found.groups[name] == "20200626 01"


def test_fir_names_what_is_missing_and_what_is_no_label(tmp_path):
    name = fir.VIDEOS[0]
    film(tmp_path / "video_8fps" / f"{name}.mp4")
    labels = tmp_path / "labels.csv"
    labels.write_text(f"{name}.csv,8,16,walk\n")
    with pytest.raises(ValueError, match="FIR has 21 recordings with video; 20 missing"):
        fir.read(tmp_path)
    assert quiet(fir.read, tmp_path, skip=True).layout == "packed"
    for line, words in (
        ("8,16", "start, end, action over and over; got 2 cells"),
        ("8,16,dance", "unknown action 'dance'"),
        ("8,x,walk", "expected frame numbers, got '8' and 'x'"),
    ):
        labels.write_text(f"{name}.csv,{line}\n")
        with pytest.raises(ValueError, match=f"labels.csv, line 1 .*{words}"):
            fir.read(tmp_path, skip=True)


# GTEA and TCN's scores
def cells(folder, videos, length=12, classes=11):
    from scipy.io import savemat

    home = folder / "predictions/GTEA/video_ED-TCN_L2_C25"
    home.mkdir(parents=True)
    held = {k: np.empty((1, len(videos)), object) for k in "YPS"}
    for i in range(len(videos)):
        truth = np.array([[0] * 3 + [10] * 6 + [0] * (length - 9)])
        held["Y"][0, i], held["P"][0, i] = truth, truth
        held["S"][0, i] = np.full((length, classes), 1 / classes)
    savemat(home / "2.mat", held)
    split = folder / "splits/GTEA/Split_2"
    split.mkdir(parents=True)
    (split / "test.txt").write_text("\n".join(videos) + "\n")


def test_gtea_takes_published_truth_at_three_a_second(tmp_path):
    for name in gtea.VIDEOS:
        film(tmp_path / "videos" / f"{name}.mp4", 5.0)
    cells(tmp_path / "tcn", gtea.VIDEOS[::-1])
    found = gtea.read(tmp_path / "videos", tmp_path / "tcn")
    assert list(found.durations) == list(gtea.VIDEOS)
    assert set(found.truth["label"]) == {"take"}
    assert found.truth["start_s"].unique().tolist() == [1.0]
    assert found.truth["end_s"].unique().tolist() == [3.0]
    assert found.layout.startswith("packed")


def test_gtea_takes_texts_where_they_are(tmp_path):
    name = gtea.VIDEOS[0]
    film(tmp_path / f"{name}.mp4", 4.0)
    (tmp_path / "groundTruth").mkdir()
    text = tmp_path / "groundTruth" / f"{name}.txt"
    text.write_text("\n".join(["background"] * 15 + ["open"] * 30))
    found = quiet(gtea.read, tmp_path, skip=True)
    assert found.layout.startswith("original") and len(found.truth) == 1
    assert found.truth.iloc[0].tolist() == [name, 1.0, 3.0, "open"]
    text.write_text("\n".join(["background"] * 15 + ["fly"] * 30))
    with pytest.raises(ValueError, match="unknown labels \\['fly'\\]"):
        gtea.read(tmp_path, skip=True)
    text.write_text("\n".join(["open"] * 150))
    with pytest.raises(ValueError, match="its labels end at 10.0 s"):
        gtea.read(tmp_path)


def test_cells_that_do_not_fit_are_named(tmp_path):
    cells(tmp_path, gtea.VIDEOS)
    (one, *_) = tcn.read(tmp_path, "GTEA", "ED-TCN", 2)
    assert one.video == gtea.VIDEOS[0] and one.scores.shape == (12, 11)
    (tmp_path / "splits/GTEA/Split_2/test.txt").write_text("S2_Tea_C1\n")
    with pytest.raises(ValueError, match=r"2.mat: expected 1 cells, one a video"):
        tcn.read(tmp_path, "GTEA", "ED-TCN", 2)
    with pytest.raises(FileNotFoundError, match="expected 1.mat or Split_1.mat"):
        tcn.read(tmp_path, "GTEA", "ED-TCN", 1)


# NTU
def test_ntu_reads_the_first_body(tmp_path):
    def frame(bodies):
        lines = [str(bodies)]
        for b in range(bodies):
            lines += ["72057594037 0 1 1", "25"] + [f"{b} {j} 2 0 0" for j in range(25)]
        return lines

    text = "\n".join(["3", *frame(1), *frame(0), *frame(2)]) + "\n"
    path = tmp_path / "S001C001P001R001A001.skeleton"
    path.write_text(text)
    found = ntu.read(path)
    assert found.shape == (2, 25, 3) and found[1, 4].tolist() == [0, 4, 2]
    packed = path.with_suffix(".skeleton.gz")
    packed.write_bytes(gzip.compress(text.encode()))
    assert np.array_equal(ntu.read(packed), found)
    path.write_text(text[:200])
    with pytest.raises(ValueError, match="expected a skeleton file of NTU"):
        ntu.read(path)


def test_a_set_that_is_not_here_says_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VLACT_REALDATA", str(tmp_path))
    for read in (
        *(nw_ucla.read, msr_action3d.read, utkinect.read),
        *(ut_interaction.read, fir.read, gtea.read),
    ):
        with pytest.raises(SetMissing, match=r"dvc update data/sources/\w+\.dvc"):
            read()


def test_tables_have_what_splits_ask_for(tmp_path, rng):
    ucla(tmp_path, rng)
    found = quiet(nw_ucla.read, tmp_path, skip=True)
    assert {"video", "label", "group"} <= set(found.table)
    assert isinstance(found.of(np.array([False, True])).table, pd.DataFrame)
    assert len(found.of(np.array([False, True])).joints) == 4
