"""Every kind of film that people have: the frames that a player shows, at a player's times.

Frames carry their numbers (tests/films.py), so a wrong one is seen. Damaged, hostile and foreign
files are refused by name. Random films: 100 in an ordinary run, more with `make fuzz`.
"""

import os
import socket
import struct
import tempfile
import tracemalloc
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
from films import draw, film, number, remux
from hypothesis import given
from hypothesis import strategies as st

from vlact import video
from vlact.training import features
from vlact.video import cache, clips, decode, index

NTSC = Fraction(30000, 1001)
FILM = Fraction(24000, 1001)
OPEN = {"x264-params": "open-gop=1"}
VP8 = {"auto-alt-ref": "1", "lag-in-frames": "12", "deadline": "realtime"}
VP9 = {"deadline": "realtime", "cpu-used": "8"}
# Ending, then what `film` is given beside the frames.
KINDS = {
    "mp4": (".mp4", {}),
    "mov": (".mov", {}),
    "mkv": (".mkv", {}),
    "avi h264": (".avi", {}),
    "avi xvid": (".avi", {"codec": "mpeg4"}),
    "avi mjpeg": (".avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "b": 0}),
    "mp4 mpeg4": (".mp4", {"codec": "mpeg4"}),
    "ts": (".ts", {"form": "mpegts"}),
    "ts intra refresh": (".ts", {"form": "mpegts", "options": {"x264-params": "intra-refresh=1"}}),
    "mkv intra refresh": (".mkv", {"options": {"x264-params": "intra-refresh=1"}}),
    "mpeg1": (".mpg", {"form": "mpeg", "codec": "mpeg1video"}),
    "mpeg2": (".mpg", {"form": "mpeg", "codec": "mpeg2video"}),
    "wmv": (".wmv", {"form": "asf", "codec": "wmv2", "b": 0}),
    "flv": (".flv", {}),
    "nut": (".nut", {"form": "nut"}),
    "webm vp8, hidden frames": (".webm", {"codec": "libvpx", "b": 0, "options": VP8}),
    "webm vp9": (".webm", {"codec": "libvpx-vp9", "b": 0, "options": VP9}),
    "mp4 av1": (".mp4", {"codec": "libsvtav1", "b": 0, "options": {"preset": "12"}}),
    "mp4 hevc": (".mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
    "gif": (".gif", {"codec": "gif", "pix_fmt": "rgb8", "b": 0}),
    "apng": (".apng", {"codec": "apng", "pix_fmt": "rgb24", "form": "apng", "b": 0}),
    "mp4 open gop": (".mp4", {"options": OPEN}),
    "mkv open gop": (".mkv", {"options": OPEN}),
    "ts open gop": (".ts", {"form": "mpegts", "options": OPEN}),
    "mp4 fragments": (".mp4", {"container": {"movflags": "frag_keyframe+delay_moov"}}),
    "mp4 fast start": (".mp4", {"container": {"movflags": "faststart"}}),
    "mp4 negative offsets": (".mp4", {"container": {"movflags": "negative_cts_offsets"}}),
    "mp4 no edit list": (".mp4", {"container": {"use_editlist": "0"}}),
    "mp4 interlaced": (".mp4", {"options": {"flags": "+ildct+ilme", "x264-params": "tff=1"}}),
    "mkv odd size": (".mkv", {"size": (83, 51), "pix_fmt": "yuv444p"}),
    "mkv ten bits": (".mkv", {"pix_fmt": "yuv420p10le"}),
    "bare h264": (".h264", {"form": "h264"}),
}
COARSE = {
    "gif": 0.01,
    "flv": 0.001,
    "wmv": 0.001,
    "mkv": 0.001,
    "web": 0.001,
    "mpeg": 0.001,
    "apng": 0.001,
}  # ticks in seconds
QUICK = [k for k in KINDS if k not in ("mp4 hevc", "mp4 av1", "webm vp9")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Indexes of tests stay with the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    cache._memory.clear()


def make(folder: Path, kind: str, name: str = "film", **more) -> Path:
    ending, given_ = KINDS[kind]
    codec = given_.get("codec", "libx264")
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg cannot write {codec}")
    return film(folder / f"{name}{ending}", **(given_ | more))


def shown(path: Path, frames=None) -> list:
    return [
        number(x)
        for x in video.read(path, range(len(video.probe(path).times)) if frames is None else frames)
    ]


def quiet_probe(path: Path) -> video.VideoInfo:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", video.VideoWarning)
        return video.probe(path)


def table(*rows) -> pd.DataFrame:
    other = {"label": "take cup", "split": "train", "group": "a"}
    return pd.DataFrame([{"video": v, "start_s": a, "end_s": b} | other for v, a, b in rows])


# The right frame, in any order
def test_a_number_is_read_back_and_a_foreign_picture_has_none():
    assert [number(draw(i, 83, 51)) for i in (0, 1, 517, 1023)] == [0, 1, 517, 1023]
    assert number(draw(5)[:, ::-1]) != 5 and number(np.rot90(draw(5))) is None
    assert number(draw(5) // 2 + draw(6) // 2) is None


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_asked_for_alone_and_in_any_order(tmp_path, kind):
    path = make(tmp_path, kind, count=60)
    info = video.probe(path)
    order = np.random.default_rng(0).permutation(60)
    assert len(info.times) == 60 and shown(path) == list(range(60))
    assert shown(path, order) == order.tolist()
    assert [shown(path, [i])[0] for i in order[:10]] == order[:10].tolist()
    assert info.times == pytest.approx(np.arange(60) / 25, abs=1e-6)
    assert info.duration_s == pytest.approx(2.4, abs=0.011) and info.fps == pytest.approx(
        25, abs=0.2
    )


@pytest.mark.parametrize("kind", ["avi xvid", "mpeg2", "ts open gop", "wmv", "flv"])
def test_a_long_film_without_stamps_is_entered_in_the_middle(tmp_path, kind, monkeypatch):
    path = make(tmp_path, kind, count=900, gop=12)
    info = video.probe(path)
    decoded, count = [], decode._all
    monkeypatch.setattr(decode, "_all", lambda *a: (decoded.append(f) or f for f in count(*a)))
    wanted = [870, 700, 701, 640, 20, 880]
    assert shown(path, wanted) == wanted and info.times == pytest.approx(
        np.arange(900) / 25, abs=0.0011
    )
    assert len(decoded) < 900, "it was decoded from its beginning"
    assert info.index.way == 2


@pytest.mark.parametrize("rate", [FILM, NTSC, Fraction(60000, 1001), Fraction(24), Fraction(120)])
@pytest.mark.parametrize("ending", [".mkv", ".mp4", ".webm"])
def test_the_exact_time_of_a_frame_gives_that_frame(tmp_path, rate, ending):
    codec = {"codec": "libvpx-vp9", "b": 0, "options": VP9} if ending == ".webm" else {}
    info = video.probe(film(tmp_path / f"a{ending}", 100, rate, **codec))
    k = np.arange(100)
    assert (video.nearest_frames(info, k / float(rate)) == k).all()
    assert (video.nearest_frames(info, (k + 0.98) / float(rate)) == k).all()
    assert info.times == pytest.approx(k / float(rate), abs=1e-6)


def test_a_frame_lasts_as_long_as_its_neighbours_also_where_a_clock_could_count_faster(tmp_path):
    path = film(tmp_path / "slow.mkv", 12, rate=1)
    assert video.probe(path).duration_s == pytest.approx(12)


def test_few_frames_of_a_coarse_clock_are_on_a_rate_of_films(tmp_path):
    path = film(tmp_path / "few.wmv", 3, NTSC, codec="wmv2", form="asf", b=0, gop=1)
    assert video.probe(path).times == pytest.approx(np.arange(3) / float(NTSC), abs=5e-4)


def test_a_gap_in_a_millisecond_clock_keeps_the_rate_exact(tmp_path):
    stamps = [0, 1, 2, 9, 10, 40, 41]
    info = video.probe(film(tmp_path / "a.mkv", rate=FILM, stamps=stamps))
    assert info.times == pytest.approx([s / float(FILM) for s in stamps], abs=1e-9)


@pytest.mark.parametrize(
    "ending, form", [(".mp4", None), (".mkv", None), (".ts", "mpegts"), (".nut", "nut")]
)
def test_variable_rates_are_read_by_time(tmp_path, ending, form):
    stamps = [0, 40, 55, 300, 317, 1200, 1500, 1501]
    info = video.probe(
        film(tmp_path / f"a{ending}", form=form, stamps=stamps, clock=Fraction(1, 1000), b=1)
    )
    assert info.times == pytest.approx([s / 1000 for s in stamps], abs=1e-6)
    assert video.nearest_frames(info, [0.2, 0.3, 1.0, 1.4, 1.5, 9]).tolist() == [2, 3, 4, 5, 6, 7]
    assert shown(info.path) == list(range(8))


# Where the clock starts
@pytest.mark.parametrize(
    "ending, form", [(".mp4", None), (".mkv", None), (".ts", "mpegts"), (".mpg", "mpeg")]
)
def test_a_picture_later_than_the_sound_keeps_its_gap_and_says_so(tmp_path, ending, form):
    codec = "mpeg2video" if form == "mpeg" else "libx264"
    path = film(tmp_path / f"late{ending}", 75, form=form, codec=codec, sound=(0, 5), late=2)
    with pytest.warns(
        video.VideoWarning, match=rf"late{ending}: its picture starts 2.0\d\d s after the start"
    ):
        info = video.probe(path)
    lead = info.times[0] - 2  # sound encoders begin with some silence
    assert 0 <= lead < 0.1 and info.times - info.times[0] == pytest.approx(
        np.arange(75) / 25, abs=1e-6
    )
    assert info.duration_s == pytest.approx(5 + lead, abs=0.011) and info.fps == pytest.approx(
        25, abs=0.1
    )
    with pytest.warns(video.VideoWarning):
        found = clips.load(tmp_path, table((path.name, 3.0, 4.0)), 4, 48)
    seen = [
        number(x)
        for x in video.read(path, video.nearest_frames(info, [3.125, 3.375, 3.625, 3.875]), info)
    ]
    assert all(24 <= x < 50 for x in seen) and found.frames.shape == (1, 1, 4, 48, 48, 3)
    with pytest.raises(ValueError, match="ends before the first frame"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clips.load(tmp_path, table((path.name, 0.5, 1.5)), 4, 48)


def test_sound_before_the_picture_by_its_encoder_only_moves_nothing(tmp_path):
    info = video.probe(film(tmp_path / "a.mkv", 25, sound=(0, 1)))
    assert info.times == pytest.approx(np.arange(25) / 25, abs=0.0651)
    assert np.diff(info.times) == pytest.approx(np.full(24, 0.04), abs=1e-9)


@pytest.mark.parametrize("start_s", [95441.9, 95443.2, 3600.0, 12.3])
def test_a_broadcast_clock_that_starts_anywhere_or_wraps_counts_on(tmp_path, start_s):
    path = film(tmp_path / "a.ts", 60, form="mpegts", container={"output_ts_offset": str(start_s)})
    info = video.probe(path)  # 33 bits of a 90 kHz clock end after 95443.7 s
    assert info.times == pytest.approx(np.arange(60) / 25, abs=1e-4) and shown(path) == list(
        range(60)
    )


def test_a_clock_that_starts_again_counts_on(tmp_path):
    one, two = (film(tmp_path / f"{i}.ts", 40, form="mpegts", first=40 * i) for i in range(2))
    (tmp_path / "both.ts").write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.warns(video.VideoWarning, match="both.ts: its clock jumps 1 times"):
        info = video.probe(tmp_path / "both.ts")
    assert info.times == pytest.approx(np.arange(80) / 25, abs=1e-4)
    order = np.random.default_rng(1).permutation(80)
    with pytest.warns(video.VideoWarning):
        assert shown(info.path, order) == order.tolist()


def test_a_recording_that_begins_between_key_frames_begins_where_it_decodes(tmp_path):
    whole = film(tmp_path / "whole.ts", 60, form="mpegts", gop=20, options=OPEN)
    (tmp_path / "cut.ts").write_bytes(whole.read_bytes()[188 * 30 :])
    seen = shown(tmp_path / "cut.ts", range(len(quiet_probe(tmp_path / "cut.ts").times)))
    assert 0 < seen[0] and seen == list(range(seen[0], 60))
    info = quiet_probe(tmp_path / "cut.ts")
    for i in (0, len(seen) - 1, len(seen) // 2):
        assert number(video.read(info.path, [i], info)[0]) == seen[i]


def test_a_title_that_is_no_utf_8_stops_nothing(tmp_path):
    named = film(tmp_path / "named.mp4", 6, title="Cafe noir")
    data = named.read_bytes()
    assert data.count(b"Cafe noir") == 1
    named.write_bytes(data.replace(b"Cafe noir", "Café noir".encode("latin-1")))
    assert [number(x) for x in decode.read(named, range(6))] == list(range(6))


# Edit lists
@pytest.mark.parametrize("options", [{}, OPEN], ids=["closed", "open"])
@pytest.mark.parametrize("cut", [1, 7, 8, 17, 30])
def test_what_an_edit_list_cuts_off_is_not_there(tmp_path, cut, options):
    whole = film(tmp_path / "whole.mp4", 60, 30, gop=15, options=options)
    path = remux(whole, tmp_path / "cut.mp4", -cut / 30)
    info = video.probe(path)
    assert shown(path) == list(range(cut, 60)) and info.times == pytest.approx(
        np.arange(60 - cut) / 30, abs=1e-4
    )
    assert info.duration_s == pytest.approx((60 - cut) / 30, abs=0.002)
    for i in (0, 59 - cut, 20):
        assert shown(path, [i]) == [cut + i]


def edit(path: Path, *edits: tuple[int, int, int]) -> Path:
    """The edit list by hand: (length in film ticks, first of the track's ticks, whole rate)."""
    data = bytearray(path.read_bytes())
    at = data.find(b"elst")
    (size,) = struct.unpack_from(">I", data, at - 4)
    new = struct.pack(">I4sII", 16 + 12 * len(edits), b"elst", 0, len(edits))
    new += b"".join(struct.pack(">Iihh", length, start, rate, 0) for length, start, rate in edits)
    grown = len(new) - size
    data[at - 4 : at - 4 + size] = new
    for kind in (b"edts", b"trak", b"moov"):
        place = data.rfind(kind, 0, at) - 4
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + grown)
    path.write_bytes(bytes(data))
    return path


def test_edits_that_delay_shorten_and_repeat(tmp_path):
    tick = 12800 // 25  # of the track, for a frame; the film's own clock counts milliseconds
    lead = 2 * tick  # B-frames: the first is shown two frames after it is decoded
    delayed = edit(film(tmp_path / "delayed.mp4", 50, sound=(0, 3)), (500, -1, 1), (2000, lead, 1))
    info = quiet_probe(delayed)
    assert info.times == pytest.approx(0.5 + np.arange(50) / 25, abs=0.065) and shown(
        delayed, [0, 49]
    ) == [0, 49]
    short = edit(film(tmp_path / "short.mp4", 50), (1000, lead + 10 * tick, 1))
    assert shown(short) == list(range(10, 35)) and video.probe(short).duration_s == pytest.approx(1)
    # A part twice: whatever a player makes of it, times rise, and numbers are those of decoding
    # in order.
    twice = edit(film(tmp_path / "twice.mp4", 50), (800, lead, 1), (800, lead, 1))
    info = quiet_probe(twice)
    seen = [number(x) for x in video.read(twice, range(len(info.times)), info)]
    assert (np.diff(info.times) > 0).all() and None not in seen
    for i in range(0, len(seen), 7):
        assert number(video.read(twice, [i], info)[0]) == seen[i]


# Streams and sizes
def two_sizes(folder: Path, name: str, second: tuple[int, int]) -> Path:
    """A stream whose size changes at frame 25."""
    parts = b""
    for first, size in ((0, (80, 80)), (25, second)):
        part = film(folder / f"{first}.h264", 25, form="h264", size=size, first=first, gop=25, b=0)
        parts += part.read_bytes()
    (folder / "both.h264").write_bytes(parts)
    form = {".ts": "mpegts"}.get(Path(name).suffix)
    with (
        av.open(str(folder / "both.h264")) as source,
        av.open(str(folder / name), "w", format=form) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(p for p in source.demux() if p.size):
            packet.time_base, packet.pts, packet.dts, packet.stream = Fraction(1, 25), i, i, stream
            out.mux(packet)
    return folder / name


@pytest.mark.parametrize("backend", ["", "av", "decord"])
@pytest.mark.parametrize("name", ["changes.ts", "changes.mkv"])
def test_a_size_that_changes_is_fitted_frame_by_frame(tmp_path, name, backend, monkeypatch):
    if backend == "decord":
        pytest.importorskip("decord")
    monkeypatch.setenv("VLACT_VIDEO", backend)
    two_sizes(tmp_path, name, (64, 64))
    film(tmp_path / "steady.mp4", 50, size=(80, 80))
    found = clips.load(tmp_path, table(("steady.mp4", 0, 2), (name, 0, 2)), 4, 80, skip_bad=True)
    assert [[number(x) for x in clip[0]] for clip in found.frames] == [[6, 18, 31, 43]] * 2
    assert video.read(tmp_path / name, [0, 40]).shape == (2, 80, 80, 3) and shown(
        tmp_path / name
    ) == list(range(50))
    two_sizes(tmp_path, name, (64, 48))
    with pytest.raises(
        video.VideoError, match=rf"{name}: expected frames of one shape.*80 x 80, then 64 x 48"
    ):
        video.read(tmp_path / name, [0, 40])
    assert clips.load(tmp_path, table((name, 0, 2)), 4, 80).frames.shape == (1, 1, 4, 80, 80, 3)


@pytest.mark.parametrize(
    "matrix",
    [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0), (0, 1, -1, 0), (-1, 0, 0, -1)],
)
@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_mirrored_and_turned_pictures_come_as_a_player_shows_them(tmp_path, matrix, ending):
    data = bytearray(film(tmp_path / f"a{ending}", 10).read_bytes())
    stored = video.read(tmp_path / f"a{ending}", [3])[0]
    a, b, c, d = (x << 16 for x in matrix)
    struct.pack_into(">9i", data, data.find(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = tmp_path / f"turned{ending}"
    path.write_bytes(bytes(data))
    a, b, c, d = matrix
    height, width = stored.shape[:2]
    expected = np.zeros((width, height, 3) if b else stored.shape, np.uint8)
    for y, x in np.ndindex(
        height, width
    ):  # where each stored pixel appears; -1 counts from the other end
        right, down = a * x + c * y, b * x + d * y
        expected[down - (b + d < 0), right - (a + c < 0)] = stored[y, x]
    info = video.probe(path)
    assert (video.read(path, [3])[0] == expected).all() and (
        info.height,
        info.width,
    ) == expected.shape[:2]
    decoded = index._made(path, 2)  # the same from the frames as from the header
    assert (decoded.upright, decoded.rotation, decoded.height) == (
        info.upright,
        info.rotation,
        info.height,
    )


def test_of_several_streams_the_players_choice_is_read_and_said(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, width in zip(streams, (80, 160), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, width * 3 // 5, "yuv420p"
        for i in range(20):
            for stream, width in zip(streams, (80, 160), strict=True):
                frame = av.VideoFrame.from_ndarray(draw(i, width, width * 3 // 5), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode())
    with pytest.warns(video.VideoWarning, match="two.mkv: holds 2 video streams; number"):
        info = video.probe(path)
    with pytest.warns(video.VideoWarning):
        assert shown(path, [19, 0, 7]) == [19, 0, 7] and info.width in (80, 160)


@pytest.mark.parametrize("kind", ["mp3", "m4a"])
def test_a_cover_picture_is_no_film(tmp_path, kind):
    path = tmp_path / f"song.{kind}"
    with av.open(str(path), "w", format={"m4a": "mp4"}.get(kind)) as out:
        sound = out.add_stream("libmp3lame" if kind == "mp3" else "aac", rate=16000, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 80, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(draw(1), format="rgb24").reformat(format="yuvj420p")
        out.mux(cover.encode(picture))
        out.mux(cover.encode())
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate = 16000
        out.mux(sound.encode(silence))
        out.mux(sound.encode())
    with pytest.raises(
        video.VideoError, match=rf"song.{kind}: expected a video stream, found only audio, cover"
    ):
        video.probe(path)


# Hostile and foreign files
@pytest.mark.parametrize(
    "name", ["list.mp4", "list.m3u8", "list.mpd", "list.ffconcat", "list.sdp", "list.txt"]
)
def test_playlists_and_scripts_are_refused_and_open_nothing(tmp_path, name):
    film(tmp_path / "other.ts", form="mpegts")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        there = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        texts = [f"ffconcat version 1.0\nfile '{x}'\n" for x in ("other.ts", there)]
        texts += [
            f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{x}\n#EXT-X-ENDLIST\n"
            for x in ("other.ts", there)
        ]
        texts += [
            '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011">'
            f"<Period><BaseURL>{there}</BaseURL></Period></MPD>"
        ]
        texts += [
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
            "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
        ]
        for text in texts:
            (tmp_path / name).write_text(text)
            with pytest.raises(video.VideoError, match=f"{name}: expected a"):
                video.probe(tmp_path / name)
        with pytest.raises(BlockingIOError):
            server.accept()  # nobody knocked
    for address in (there, "concat:other.ts|other.ts", "pipe:0", "-"):
        with pytest.raises(video.VideoError, match="found none"):
            video.probe(address)


def test_names_that_look_like_something_else_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("http:a.mp4", "-i.mp4", "a%03d.mp4", "clip #1 é.mp4", "a|b.mp4"):
        film(tmp_path / "plain.mp4", 6).rename(tmp_path / name)
        assert shown(Path(name), [5, 0]) == [5, 0]


def test_a_length_that_cannot_be_is_refused_before_memory_is_taken(tmp_path):
    plain = film(
        tmp_path / "a.mov", 30, codec="rawvideo", pix_fmt="rgb24", b=0
    )  # samples of one size
    data, million = bytearray(plain.read_bytes()), 1_000_000
    assert shown(plain) == list(range(30))
    for box, at in ((b"stsz", 12), (b"stts", 12), (b"stsc", 16)):
        struct.pack_into(">I", data, data.find(box) + at, million)
    struct.pack_into(">HH", data, data.find(b"raw ") + 28, 8192, 4320)
    (tmp_path / "huge.mov").write_bytes(bytes(data))
    with pytest.raises(
        video.VideoError, match=r"huge.mov: its header declares 1000000 frames of 8192 x 4320"
    ):
        video.read(tmp_path / "huge.mov", range(million))


def test_more_frames_than_memory_holds_are_refused(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", 30)
    monkeypatch.setattr(decode, "_free_memory", lambda: 30 * 48 * 80 * 3)
    with pytest.raises(video.VideoError, match="a.mp4: expected frames that fit into memory"):
        video.read(path, range(30))
    assert len(list(video.stream(path, range(30)))) == 30
    with pytest.raises(
        video.VideoError, match=r"a.mp4: expected frame numbers in 0..29, got 5..30"
    ):
        video.read(path, [5, 30])


def test_a_frame_of_impossible_size_is_refused(tmp_path):
    path = tmp_path / "wide.y4m"
    path.write_bytes(b"YUV4MPEG2 W60000 H60000 F25:1 C420jpeg\nFRAME\n" + bytes(1000))
    with pytest.raises(video.VideoError, match="wide.y4m"):
        video.probe(path)


@pytest.mark.parametrize(
    "kind", ["mp4", "mkv", "ts", "avi h264", "mpeg2", "mp4 fragments", "avi mjpeg"]
)
def test_a_film_cut_short_gives_right_frames_and_says_so_or_is_refused(tmp_path, kind):
    path = make(
        tmp_path,
        kind,
        count=80,
        container=KINDS[kind][1].get(
            "container", {"movflags": "faststart"} if kind == "mp4" else {}
        ),
    )
    data, refused = path.read_bytes(), 0
    for share in (0.3, 0.6, 0.9):
        short = path.with_name(f"short{share}{path.suffix}")
        short.write_bytes(data[: int(len(data) * share)])
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                info = video.probe(short)
            except video.VideoError as error:  # the cut is in its header
                refused += 1
                assert short.name in str(error)
                continue
            n = len(info.times)
            for i in range(n):
                try:
                    seen = number(video.read(short, [i], info)[0])
                    # Frames that later ones need may lack; MPEG's last stamp is guessed.
                    assert abs(seen - info.times[i] * 25) < 0.1 + (kind == "mpeg2" and i == n - 1)
                except video.VideoError as error:
                    assert short.name in str(error) and i >= n - 4
            if kind in ("mp4", "mkv", "avi h264", "avi mjpeg") and n < 73:
                assert f"{short.name}: is cut short: " in str(said[0].message)
            if n < 73:
                with pytest.raises(ValueError, match=rf"line 2: .*{short.name}"):
                    clips.load(tmp_path, table((short.name, 0, 3.2)), 4, 48)
    assert refused < 2


@pytest.mark.parametrize("kind", ["mp4", "mkv", "mp4 mpeg4", "avi xvid"])
def test_what_follows_a_broken_packet_is_refused_up_to_the_next_key_frame(tmp_path, kind):
    path = make(tmp_path, kind, count=60, gop=12, b=0)
    with av.open(str(path)) as source:
        packets = [bytes(p) for p in source.demux(video=0) if p.size]
    data, broken = bytearray(path.read_bytes()), 30
    start, size = data.find(packets[broken]), len(packets[broken])
    data[start : start + size] = b"\xff" * size
    bad = path.with_name(f"bad{path.suffix}")
    bad.write_bytes(bytes(data))
    info = quiet_probe(bad)
    whole = 60 - len(info.times)  # a broken frame may be missing from decoded ones
    assert whole in (0, 1)
    first, after = 24, 36  # the key frames around it
    for i in (0, first, 27, after, 50):
        assert number(video.read(bad, [i - whole * (i > broken)], info)[0]) == i
    with pytest.raises(
        video.VideoError, match=rf"bad{path.suffix}: frame 3[2-4] at 1.\d+ s does not decode"
    ):
        video.read(bad, [33], info)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = table((bad.name, 0, 0.9), (bad.name, 1.0, 1.4), (bad.name, 1.5, 2.3))
        found = clips.load(tmp_path, rows, 4, 48, skip_bad=True)
    assert (
        found.table["start_s"].tolist() == [0, 1.5]
        and "line 3" in found.skipped[0]
        and bad.name in found.skipped[0]
    )


# The index is kept
def test_an_index_is_made_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    path, made = make(tmp_path, "avi xvid"), []
    original = index._made
    monkeypatch.setattr(index, "_made", lambda *a: made.append(a) or original(*a))
    first = video.probe(path)
    again = video.probe(path)
    cache._memory.clear()  # as another process
    third = video.probe(path)
    assert len(made) == 1 and (first.times == third.times).all()
    assert (first.times == again.times).all()
    assert (first.index.digests == third.index.digests).all() and shown(path) == list(range(30))
    film(path, 20, codec="mpeg4")
    assert len(video.probe(path).times) == 20 and len(made) == 2
    kept = list(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.npz"))
    assert len(kept) == 2 and not list(tmp_path.rglob("*.npz"))
    for file in kept:  # a damaged one is made again
        file.write_bytes(file.read_bytes()[:100])
    cache._memory.clear()
    assert len(video.probe(path).times) == 20 and len(made) == 3


def test_where_nothing_can_be_written_memory_keeps_the_index_with_a_word(tmp_path, monkeypatch):
    path = make(tmp_path, "avi xvid")
    (tmp_path / "blocked").write_text(
        "a file where a folder is wanted: nobody can write there, not even root"
    )
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    cache._writable.cache_clear()
    with pytest.warns(UserWarning, match="frame indexes are kept in .*temporary.*: .*blocked"):
        video.probe(path)
    assert list((tmp_path / "temporary").rglob("*.npz"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "blocked"))
    cache._writable.cache_clear()
    cache._memory.clear()
    with pytest.warns(UserWarning, match="kept in memory only"):
        assert len(video.probe(path).times) == 30
    assert shown(path) == list(range(30))
    cache._writable.cache_clear()


def test_a_file_that_changes_under_its_index_is_never_read_wrongly(tmp_path):
    path = film(tmp_path / "a.mp4", 40, gop=10)
    info = video.probe(path)
    film(path, 40, gop=7, first=100, b=0)
    try:
        assert (
            number(video.read(path, [25], info)[0]) == 125
        )  # the same times: the new film's frame
    except video.VideoError as error:
        assert "a.mp4" in str(error)
    film(path, 20, 10)
    with pytest.raises(video.VideoError, match="a.mp4"):
        video.read(path, [25], info)


def test_a_table_that_lies_is_found_out(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", 60, gop=12)
    honest = index.tables.read

    def lying(*args):
        table = honest(*args)
        offsets = table.offsets.copy()
        offsets[[30, 31]] = offsets[[31, 30]]  # two frames change places
        return index.tables.Table(offsets, table.last, table.matrix)

    monkeypatch.setattr(index.tables, "read", lying)
    assert shown(path) == list(range(60))


def test_a_forked_process_does_not_share_the_open_file(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", 10)
    video.probe(path)
    assert index._held
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert index.take(path) is None


# Memory
def test_memory_does_not_grow_with_length_or_with_the_number_of_segments(tmp_path):
    frame, size = 320 * 240 * 3, 24

    def peak(run) -> int:
        run()  # what is loaded once
        tracemalloc.start()
        try:
            run()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peaks = {}
    for n in (60, 240):
        path = film(tmp_path / f"{n}.mp4", n, size=(320, 240), options={"preset": "ultrafast"})
        segments = table(*((path.name, s, s + 0.4) for s in np.linspace(0, n / 25 - 0.5, n // 6)))
        peaks["all", n] = peak(lambda: sum(x.sum() for _, x in video.stream(path, range(n))))  # noqa: B023
        result = len(segments) * 8 * size * size * 3
        peaks["clips", n] = peak(lambda: clips.load(tmp_path, segments, 8, size)) - result  # noqa: B023
    assert max(peaks.values()) < 10 * frame, peaks


def test_clips_of_many_processes_are_those_of_one(tmp_path):
    for i in range(3):
        film(tmp_path / f"{i}.mp4", 40, first=40 * i, size=(80, 80))
    (tmp_path / "bad.mp4").write_text("no")
    rows = table(
        *((f"{i}.mp4", s, s + 0.5) for i in range(3) for s in (0, 0.6)),
        ("bad.mp4", 0, 1),
        ("0.mp4", 1, 1.5),
    )
    one, two = (
        clips.load(tmp_path, rows, 4, 80, views=2, skip_bad=True, workers=w) for w in (1, 2)
    )
    assert (one.frames == two.frames).all() and one.skipped == two.skipped and len(one.table) == 7
    assert number(one.frames[-1, 0, 0]) == 26 and one.table.equals(two.table)


# Random films
@st.composite
def films(draw_):
    """A random film: kind, frames, rate, key frames, B-frames, stamps, sound, cut."""
    kind = draw_(st.sampled_from(QUICK))
    # FFmpeg knows MPEG-TS by some packets; an APNG of one frame is a PNG.
    count = draw_(st.integers({"ts": 10, "ap": 2}.get(kind[:2], 1), 40))
    given_ = {
        "gop": draw_(st.integers(1, 15)),
        "rate": draw_(st.sampled_from([FILM, NTSC, 10, 25, 50])),
    }
    if KINDS[kind][1].get("b") != 0:
        given_["b"] = draw_(st.integers(0, 3))
    stamped = kind.startswith(("mp4", "mov", "mkv", "ts", "nut"))
    if stamped and draw_(st.booleans()):
        steps = draw_(st.lists(st.sampled_from([1, 1, 2, 3, 10]), min_size=count, max_size=count))
        given_["stamps"] = (np.cumsum(steps) - steps[0]).tolist()
    if stamped and kind != "mp4 no edit list" and draw_(st.booleans()):
        given_["sound"], given_["late"] = (0, 1.5), draw_(st.sampled_from([0, 0.36, 1]))
    edited = (
        kind in ("mp4", "mov", "mp4 open gop", "mp4 fast start", "mp4 mpeg4")
        and "sound" not in given_
    )
    cut = draw_(st.integers(0, count - 1)) if edited else 0
    return kind, count, given_, cut


@pytest.mark.fuzz
@given(films(), st.randoms(use_true_random=False))
def test_random_films_give_the_right_frames(tmp_path_factory, made, random):
    kind, count, given_, cut = made
    folder = tmp_path_factory.mktemp("random")
    if (
        KINDS[kind][1].get("codec") == "mpeg4"
        or kind in ("mpeg1", "mpeg2")
        and given_["rate"] == 10
    ):
        given_ = given_ | {"rate": 25}  # the rates that these codecs have
    path = make(folder, kind, count=count, **given_)
    stamps = np.array(given_.get("stamps") or range(count))
    if cut:
        path = remux(path, folder / f"cut{path.suffix}", -float(int(stamps[cut]) / given_["rate"]))
    info = quiet_probe(path)
    # FFmpeg drops the last frames where edit list (in milliseconds) and uneven steps do not agree:
    # the last ones of the file, which with B-frames need not be those that are shown last.
    dropped = count - cut - len(info.times)
    assert 0 <= dropped <= (2 if "stamps" in given_ and kind.startswith(("mp4", "mov")) else 0)
    shown_at = (stamps[cut:] - stamps[cut]) / float(given_["rate"])
    expected = np.arange(cut, count)
    if dropped:
        apart = np.abs(shown_at[:, None] - (info.times - info.times[0]))
        expected, shown_at = expected[apart.min(1) < 1e-3], shown_at[apart.min(1) < 1e-3]
        assert len(expected) == len(info.times) and expected[-5] == cut + len(expected) - 5
    order = list(range(len(expected)))
    random.shuffle(order)
    numbers = [number(x) for x in video.read(path, order, info)]
    assert numbers == expected[order].tolist(), f"{kind}: {given_}"
    alone = random.choice(order)
    assert number(video.read(path, [alone], info)[0]) == expected[alone]
    if "bare" not in kind:
        tick = next((t for k, t in COARSE.items() if kind.startswith(k)), 1e-4)
        assert info.times - info.times[0] == pytest.approx(shown_at, abs=tick * 1.01)
    assert (video.nearest_frames(info, info.times) == np.arange(len(expected))).all()


DAMAGED = ["mp4", "mkv", "ts", "avi xvid", "mpeg2", "mp4 fragments", "mp4 fast start", "gif", "flv"]
SHARE = st.floats(
    0, 1, exclude_max=True
)  # of a file or of a film: their sizes differ from run to run


@pytest.mark.fuzz
@given(
    kind=st.sampled_from(DAMAGED),
    noise=st.lists(st.tuples(SHARE, st.integers(0, 255)), max_size=40),
    kept=st.one_of(st.just(1.0), SHARE),
    pick=SHARE,
)
def test_damage_of_any_kind_is_a_video_error_or_frames(tmp_path_factory, kind, noise, kept, pick):
    path = make(tmp_path_factory.mktemp("damage"), kind, count=20)
    data = bytearray(path.read_bytes())
    for share, byte in noise:
        data[int(share * len(data))] = byte
    path.write_bytes(bytes(data[: int(kept * len(data)) + 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            info = video.probe(path)
            assert (np.diff(info.times) > 0).all() and info.duration_s > info.times[-1]
            frame = video.read(path, [int(pick * len(info.times))], info)
            assert frame.shape == (1, info.height, info.width, 3)
        except video.VideoError as error:
            assert path.name in str(error)


# Features
class Sum(torch.nn.Module):
    """An encoder whose feature says which frames it saw."""

    class config:
        num_frames, image_size = 4, 40

    def first(self, clips, depth):
        return clips[..., 0].float()

    def last(self, x, depth):
        return torch.stack([x.mean((1, 2, 3)), x[:, 0, :20, :20].mean((1, 2))], 1)


@pytest.mark.parametrize("stride, mirrored", [(1, False), (3, True), (7, False)])
def test_features_are_those_of_the_windows_around_every_step(
    tmp_path, stride, mirrored, monkeypatch
):
    path = film(tmp_path / "a.mp4", 100, size=(80, 40))
    info, sides = video.probe(path), []
    monkeypatch.setattr(features, "CHUNK", 16)
    frames = torch.from_numpy(clips.fit(video.read(path, range(100)), 40))
    frames = frames.flip(2) if mirrored else frames
    at = np.arange(round(info.duration_s * 10)) / 10
    shown_at = video.nearest_frames(info, at)
    centres = np.arange(0, len(at), stride)
    seen = np.clip(centres[:, None] + np.arange(-1, 3), 0, len(at) - 1)
    model = Sum()
    model.register_parameter("place", torch.nn.Parameter(torch.zeros(1)))
    direct = model.last(model.first(frames[shown_at[seen]], 0), 0)
    original = decode.stream
    monkeypatch.setattr(video, "stream", lambda *a: sides.append(a) or original(*a))
    found = features.extract(model, path, 10, stride, batch_size=5, mirrored=mirrored)
    assert torch.allclose(found, direct, atol=1e-4) and len(sides) == 1, "the film is read once"
