"""Video files, good and bad, and the tables that point into them."""

import struct

import av
import numpy as np
import pandas as pd
import pytest
from reference.realdata import REALDATA

from vlact import schema, video
from vlact.datasets import folder as own
from vlact.video import clips

REAL = REALDATA / "video_clips"


def moving(n=16, height=48, width=64):
    """A bright square that moves to the right on a dark ramp."""
    frames = np.zeros((n, height, width, 3), np.uint8)
    frames[...] = np.linspace(20, 80, width, dtype=np.uint8)[:, None]
    for i in range(n):
        frames[i, 8:20, 2 * i : 2 * i + 12] = (220, 60, 40)
    return frames


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    video.write(path, moving(), 8)
    return path


def test_written_frames_come_back(clip):
    info = video.probe(clip)
    assert (len(info.times), info.height, info.width, info.rotation) == (16, 48, 64, 0)
    assert info.fps == pytest.approx(8) and info.duration_s == pytest.approx(2)
    error = np.abs(video.read(clip, range(16)).astype(int) - moving())
    assert error.mean() < 2.5


def test_both_backends_give_the_same_pixels_in_any_order(clip, monkeypatch):
    wanted = [7, 0, 7, 15]
    frames = {}
    for backend in ("decord", "av"):
        monkeypatch.setenv("VLACT_VIDEO", backend)
        if backend == "decord":
            pytest.importorskip("decord")
        frames[backend] = video.read(clip, wanted)
    assert (frames["decord"] == frames["av"]).all() and (frames["av"][0] == frames["av"][2]).all()
    monkeypatch.setenv("VLACT_VIDEO", "vhs")
    with pytest.raises(ValueError, match="'decord' or 'av'"):
        video.read(clip, [0])


def test_writing_is_all_or_nothing_and_byte_identical(clip, tmp_path):
    video.write(tmp_path / "again.mp4", moving(), 8)
    assert (tmp_path / "again.mp4").read_bytes() == clip.read_bytes()
    with pytest.raises(ValueError, match="uint8"):
        video.write(tmp_path / "no.mp4", moving().astype(float), 8)
    with pytest.raises(ValueError, match="N > 0"):
        video.write(tmp_path / "no.mp4", moving(0), 8)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.mp4", "clip.mp4"]


def test_bytes_do_not_depend_on_what_the_memory_held_before(tmp_path):
    rng, found = np.random.default_rng(0), set()
    frames = rng.integers(0, 255, (24, 64, 64, 3), dtype=np.uint8) // 2 + moving(24, 64, 64) // 2
    for k in range(8):
        used = [
            np.full(int(rng.integers(100, 300000)), rng.random() * 1e3, np.float32)
            for _ in range(200)
        ]
        del used
        video.write(tmp_path / f"{k}.mp4", frames, 8)
        found.add((tmp_path / f"{k}.mp4").read_bytes())
    assert len(found) == 1


def test_missing_empty_and_text_files_are_named(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    for name in ("gone.mp4", "empty.mp4", "text.mp4"):
        with pytest.raises(video.VideoError, match=name):
            video.probe(tmp_path / name)


def test_truncated_and_corrupted_bytes_never_pass_silently(clip, tmp_path):
    data = clip.read_bytes()
    rng = np.random.default_rng(0)
    for k in range(30):
        broken = bytearray(data)
        if k < 10:
            broken = broken[: rng.integers(1, len(data) - 1)]
        else:
            for _ in range(40):
                broken[rng.integers(len(broken))] = rng.integers(256)
        path = tmp_path / f"broken{k}.mp4"
        path.write_bytes(bytes(broken))
        try:
            frames = video.read(path, [0, 5])
        except video.VideoError as error:
            assert path.name in str(error)
        else:
            assert frames.shape[0] == 2 and frames.dtype == np.uint8


def test_audio_only_file_says_what_it_found(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(video.VideoError, match="found only audio"):
        video.probe(path)


def test_zero_frame_file_is_refused(tmp_path, clip):
    data = bytearray(clip.read_bytes())
    at = data.find(b"stsz")
    struct.pack_into(">I", data, at + 12, 0)  # the table of sample sizes says: no samples
    path = tmp_path / "nothing.mp4"
    path.write_bytes(bytes(data))
    with pytest.raises(video.VideoError, match="nothing.mp4"):
        video.read(path, [0])


@pytest.mark.parametrize("backend", ["decord", "av"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_videos_come_upright(clip, tmp_path, degrees, backend, monkeypatch):
    """The display matrix of a phone video, written into the header by hand."""
    monkeypatch.setenv("VLACT_VIDEO", backend)
    data = bytearray(clip.read_bytes())
    at = data.find(b"tkhd") + 4 + 40  # version 0: the matrix starts 40 bytes into the box
    one = 1 << 16
    a, b = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]  # clockwise rotation for display
    struct.pack_into(">9i", data, at, a, b, 0, -b, a, 0, 0, 0, 1 << 30)
    path = tmp_path / f"turned{degrees}.mp4"
    path.write_bytes(bytes(data))
    upright = np.rot90(video.read(clip, [3]), -degrees // 90, axes=(1, 2))
    assert (video.read(path, [3]) == upright).all()
    info = video.probe(path)
    assert (info.height, info.width) == upright.shape[1:3]


def test_variable_frame_rate_is_read_by_time(tmp_path):
    path = tmp_path / "vfr.mp4"
    stamps = [0, 1, 2, 3, 13, 23, 33]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv444p"
        for pts, image in zip(stamps, moving(7), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    info = video.probe(path)
    assert info.times.tolist() == pytest.approx([s / 10 for s in stamps])
    assert video.nearest_frames(info, np.array([0.0, 0.25, 1.0, 1.3, 3.0, 99])).tolist() == [
        0,
        2,
        3,
        4,
        5,
        6,
    ]


def test_clip_times_are_centred_spread_and_inside():
    assert video.clip_times(2, 6, 4, window_s=2).tolist() == [[3.25, 3.75, 4.25, 4.75]]
    three = video.clip_times(2, 6, 2, window_s=2, views=3)
    assert three.tolist() == [[2.5, 3.5], [3.5, 4.5], [4.5, 5.5]]
    short = video.clip_times(2, 3, 2, window_s=5, views=3)
    assert (short == short[0]).all() and short.min() > 2 and short.max() < 3


# Real files
@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not beside the project")
@pytest.mark.parametrize(
    "name",
    [
        "decord_flipping_a_pancake.mkv",
        "mmaction2_demo_armwrestling.mp4",
        "mmaction2_test.mp4",
        "video_0.mov",
    ],
)
def test_real_clips_read_the_same_with_both_backends(name, monkeypatch):
    info = video.probe(REAL / name)
    wanted = [0, len(info.times) - 1, len(info.times) // 2]
    frames = {}
    for backend in ("decord", "av"):
        monkeypatch.setenv("VLACT_VIDEO", backend)
        frames[backend] = video.read(REAL / name, wanted)
    assert frames["av"].shape == (3, info.height, info.width, 3)
    assert (frames["decord"] == frames["av"]).all()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not beside the project")
def test_the_real_corrupted_file_raises_and_names_itself():
    with pytest.raises(video.VideoError, match="corrupted.mp4"):
        info = video.probe(REAL / "corrupted.mp4")
        video.read(REAL / "corrupted.mp4", range(len(info.times)))


# Tables of clips
def annotations(**columns):
    base = {
        "video": ["clip.mp4"],
        "start_s": [0.0],
        "end_s": [1.5],
        "label": ["take cup"],
        "split": ["train"],
        "group": ["a"],
    }
    return pd.DataFrame(base | columns)


def test_clips_are_read_resized_and_cropped(clip):
    found = clips.load(clip.parent, annotations(), 4, 32, window_s=1.0, views=3)
    assert found.frames.shape == (1, 3, 4, 32, 32, 3) and not found.skipped
    whole = clips.fit(video.read(clip, [7]), 32)[0].astype(int)
    assert (
        np.abs(found.frames[0, 1, 2] - whole).max() == 0
    )  # the third of four frames in 0.25..1.25 s is at 0.875 s


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"end_s": [2.4]}, r"table.csv, line 2: .*ends after the file \(2.000 s\)"),
        ({"video": ["gone.mp4"]}, "line 2: .*gone.mp4"),
    ],
)
def test_a_bad_row_is_named_with_its_line(clip, columns, message):
    with pytest.raises(ValueError, match=message):
        clips.load(clip.parent, annotations(**columns), 4, 32, source="table.csv")


def test_bad_files_are_skipped_and_listed_and_good_ones_still_read(clip):
    (clip.parent / "bad.mp4").write_text("no")
    two = pd.concat([annotations(video=["bad.mp4"]), annotations(), annotations(end_s=[9.0])])
    found = clips.load(clip.parent, two, 4, 32, skip_bad=True, source="t.csv")
    assert len(found.table) == 1 and found.frames.shape[0] == 1 and found.frames.any()
    assert [line.split(":")[0] for line in found.skipped] == ["t.csv, line 2", "t.csv, line 4"]
    with pytest.raises(ValueError, match="and 1 more rows"):
        clips.load(clip.parent, two, 4, 32)
    with pytest.raises(ValueError, match="no usable row"):
        clips.load(clip.parent, annotations(video=["bad.mp4"]), 4, 32, skip_bad=True)


HEADER = "path,start_s,end_s,label,split\n"


@pytest.mark.parametrize(
    "text, message",
    [
        ("path,start_s,end_s,label\nx.mp4,0,1,take cup\n", r"line 1: missing columns \['split'\]"),
        (
            HEADER.replace("split", "split,colour") + "x.mp4,0,1,take cup,train,red\n",
            r"unknown columns \['colour'\]",
        ),
        (HEADER, "at least one row"),
        (HEADER + "x.mp4,0,one,take cup,train\n", "line 2: end_s must be seconds >= 0; got 'one'"),
        (HEADER + "x.mp4,0,inf,take cup,train\n", "line 2: end_s must be seconds"),
        (HEADER + "x.mp4,-1,1,take cup,train\n", "line 2: start_s must be seconds >= 0; got '-1'"),
        (
            HEADER + "x.mp4,0,1,take cup,train\nx.mp4,3,2,take cup,test\n",
            "line 3: end_s must be after start_s; got start_s=3, end_s=2",
        ),
        (HEADER + "x.mp4,0,1,take cup,holdout\n", "line 2: split must be one of .* got 'holdout'"),
        (HEADER + "x.mp4,0,1, ,train\n", "line 2: label must be"),
        (HEADER + "x.mp4,0,1,take cup,train\n", "split 'test' is empty"),
        (HEADER + "x.mp4,0,1,take cup,test\n", "split 'train' is empty"),
    ],
)
def test_bad_csv_of_own_clips_names_file_line_and_remedy(tmp_path, text, message):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        own.read(path)
    assert "mine.csv" in str(error.value)
    with pytest.raises(ValueError, match="found no file"):
        own.read(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    "text, message",
    [
        ("video,start_s,end_s,label,split\nx,0,1,a,train\n", r"missing columns \['group'\]"),
        ("video,start_s,end_s,label,split,group\nx,1,1,a,train,g\n", "line 2: end_s must be after"),
        (
            "video,start_s,end_s,label,split,group\nx,zero,1,a,train,g\n",
            "line 2: start_s must be seconds",
        ),
        ("video,start_s,end_s,label,split,group\n", "at least one row"),
    ],
)
def test_bad_annotation_tables_are_named(tmp_path, text, message):
    path = tmp_path / "annotations.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        schema.read_annotations(path)


def test_a_label_without_a_tree_is_named_with_its_line(tmp_path):
    table = pd.DataFrame({"label": ["take cup", "juggle ball"], "split": ["train", "test"]})
    with pytest.raises(ValueError, match=r"'juggle ball' \(line 3 of the csv\)"):
        own.task(table, None, trees="ata")
    assert own.split_label("pick up item", ["pick", "pick up"]) == ("pick up", "item")
    assert own.split_label("juggle two balls", []) == ("juggle", "two balls")
    assert own.split_label("idle", ["idle"]) == ("idle", "")
