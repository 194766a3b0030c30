"""Which frames a file shows, and when: made once, kept, and checked at every access.

A player's clock decides: presentation stamps less the start of the file, edit lists honoured,
frames that are decoded but not shown left out. Of three ways the first sure one is taken:

* the header's tables, for plain mp4 and mov (an hour of film in the blink of an eye);
* the packets' stamps, for mp4, mov, Matroska and WebM whose packets are one shown frame each;
* decoding all of it, for the rest: formats without presentation stamps (AVI), with clocks that wrap
  or jump (MPEG-TS, MPEG-PS), fields in packets of their own, edit lists that repeat, and so on.
  Every frame's checksum is kept, so that a later access knows whether it got the right one.
"""

import os
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from vlact.runtime.extras import needs
from vlact.video import cache, tables

MICROSECONDS = 1_000_000  # of a container's start, by FFmpeg's convention
# What FFmpeg may open: films. Playlists, scripts and lists of pictures open other files.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,wtv,flv,live_flv,f4v,ogg,rm,nut,"
    "mxf,mxf_opatom,gxf,dv,ivf,obu,av1,h264,hevc,vvc,m4v,mjpeg,vc1,vc1test,yuv4mpegpipe,gif,apng,webp,"
    "webp_anim,amv,dirac,h261,h263,cavsvideo,swf,roq,bink,smk,nsv,viv,xa,mtv,mp3,flac,aac,wav,aiff,au,ac3,"
    "w64,caf,amr,tta,ape,wv,dts,eac3"
)
STAMPED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # a presentation stamp on every packet
UNSTAMPED = {"avi"}  # none on any; FFmpeg makes some up
JUMPING = {"mpegts", "mpeg"}  # clocks that may start again
# Codecs of which a packet is a frame (VP8 has hidden ones, which say so).
ONE_EACH = {"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "prores", "dnxhd", "ffv1", "png"}
VP8_SHOWN = 0x10  # bit of a VP8 frame's first byte, RFC 6386, section 9.1
PROGRESSIVE = (0, 1)  # AVFieldOrder: unknown, progressive
MOST_PIXELS = 8192 * 8192  # of a frame; more is a broken or hostile header
PRIMING_S = 0.2  # sound before zero up to this is the encoder's lead-in, which players leave out
GAP_S = 0.1  # a picture that starts later than this after the file is said
SWAPPED_S = 0.5  # a step back by less is a stamp that a decoder guessed, not a new clock
SHORT_S = 0.25  # a film that ends earlier than its header says by more than this is cut short
GUESSED = 2.5  # frames that a guessed stamp may be off
JUMP_S = 10.0  # a step of a broadcast clock beyond this is a new clock, as FFmpeg has it
COARSE_S = 0.0005  # clocks with longer ticks round times
ROUNDED = 0.51  # of a tick: what rounding alone moves a time
RATES = tuple(r / d for r in (24, 25, 30, 50, 60) for d in (1.001, 1))  # of films and broadcasts
CHECKED = 8  # packets that the header's tables are held against
LONG = 4096  # frames; indexes from packets of shorter films are not worth a file
COPLANAR = {f"yuv{j}{n}p" for j in ("", "j") for n in (420, 422, 444)}  # 8 bits, a byte a sample


class VideoError(ValueError):
    """A file that cannot serve as a video; the message names it, says why and what to do."""


class VideoWarning(UserWarning):
    """Something about a file that its user should know; the message names it."""


@dataclass(frozen=True)
class Index:
    """What ties a file's frames to its packets.

    Attributes:
        stream: Number of the stream in the file.
        way: How it was made: 0 from the header, 1 from packets, 2 from decoded frames.
        coded: (M,) presentation stamps in ticks; in decoding order, of all packets, or of decoded
            frames in the order in which they are shown.
        shown: (M,) whether it is shown.
        keys: (K,) which of `coded` decoding can start at.
        broken: (M,) whether it is known not to decode.
        digests: (N,) checksum of every decoded frame; empty for the other ways.
    """

    stream: int
    way: int
    coded: np.ndarray
    shown: np.ndarray
    keys: np.ndarray
    broken: np.ndarray
    digests: np.ndarray

    @cached_property
    def order(self) -> np.ndarray:
        """(N,) place in `coded` of every frame, in the order in which they are shown."""
        shown = np.flatnonzero(self.shown)
        return shown if self.way == 2 else shown[np.argsort(self.coded[shown], kind="stable")]

    @cached_property
    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """(M,) stamps of all packets in rising order, and their places in `coded`."""
        places = np.argsort(self.coded, kind="stable")
        return self.coded[places], places

    def place(self, pts: int | None) -> int | None:
        """Where in `coded` a packet with this stamp is."""
        stamps, places = self.sorted
        at = np.searchsorted(stamps, pts) if pts is not None else len(stamps)
        return int(places[at]) if at < len(stamps) and stamps[at] == pts else None

    def starts(self, frames: np.ndarray) -> np.ndarray:
        """For each frame, the last of `keys` coded and shown no later; it decodes from there."""
        places = self.order[frames]
        found = np.searchsorted(self.keys, places, side="right") - 1
        while (late := (self.coded[self.keys[found]] > self.coded[places]) & (found > 0)).any():
            found = found - late
        return found


@dataclass(frozen=True, eq=False)  # arrays are not equal or unequal as a whole
class VideoInfo:
    """What a file shows.

    Attributes:
        path: The file.
        times: (N,) seconds since the start of the file at which each frame appears, rising.
        duration_s: End of the last frame, on the same clock.
        height, width: Of an upright frame, in pixels as stored (no stretching of oblong pixels).
        rotation: Counter-clockwise degrees that stored frames are turned by: 0, 90, 180 or 270.
        upright: How stored frames become upright: whether rows and columns are exchanged, then
            whether rows, then columns run backwards.
        notes: What a user should know, without the file's name.
        index: Where the frames are in the file.
    """

    path: Path
    times: np.ndarray
    duration_s: float
    height: int
    width: int
    rotation: int
    upright: tuple[bool, bool, bool] = (False, False, False)
    notes: tuple[str, ...] = ()
    index: Index | None = field(default=None, repr=False, compare=False)

    @property
    def fps(self) -> float:
        """Mean frame rate in frames per second, from the first frame on."""
        return len(self.times) / (self.duration_s - self.times[0])


ARRAYS = ("coded", "shown", "keys", "broken", "digests")  # of an index
VALUES = (
    "duration_s",
    "height",
    "width",
    "rotation",
    "upright",
    "notes",
)  # of what is known of a file


def unreadable(path: Path, error: Exception) -> VideoError:
    """What FFmpeg's refusal of a file means."""
    if getattr(error, "errno", None) == 22:  # EINVAL: not on the list of formats
        said = "its format is none that is read here; playlists and scripts are not"
        return VideoError(f"{path}: expected a video, found something else ({said}); leave it out")
    said = f"found broken data ({error}); re-encode or leave it out"
    return VideoError(f"{path}: expected a readable video, {said}")


def failures() -> type[Exception]:
    """What PyAV raises on broken data."""
    import av

    return av.error.FFmpegError


def _cover():
    """The mark of a picture that belongs to a sound file."""
    import av

    return av.stream.Disposition.attached_pic


def open_file(path: Path):
    """(container, the stream that a player shows); no other file and no network is opened.

    Raises:
        VideoError: No video stream, or bytes that are no video.
    """
    import av

    only = {
        "format_whitelist": FORMATS,
        "protocol_whitelist": "file",
        "max_pixels": str(MOST_PIXELS),
    }
    try:
        container = av.open(f"file:{path}", options=only, metadata_errors="ignore")
    except (failures(), IndexError, OverflowError, ValueError) as error:
        raise unreadable(path, error) from None
    cover = _cover()
    stream = container.streams.best("video")
    if stream is None or stream.disposition & cover:
        stream = next((s for s in container.streams.video if not s.disposition & cover), None)
    if stream is None or stream.codec_context is None:
        kinds = {"cover picture" if s.disposition & cover else s.type for s in container.streams}
        container.close()
        found = ", ".join(sorted(kinds)) or "no stream"
        raise VideoError(
            f"{path}: expected a video stream, found only {found}; leave this file out"
        )
    stream.codec_context.thread_count = 1  # the same work on every machine, and little memory
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    return container, stream


def probe(path: str | Path) -> VideoInfo:
    """Which frames a file shows and when, their size and how they are turned.

    The index behind it is kept (see `vlact.video.cache`), so that a second call costs little.

    Raises:
        VideoError: Missing file, no video stream, no frames, or bytes that are no video.

    Warns:
        VideoWarning: The picture starts after the sound, or some of the file is missing or broken.
    """
    return _probe(Path(path), 0)


def remake(info: VideoInfo, way: int) -> VideoInfo:
    """The index again, by a surer way than one that turned out wrong, which it replaces."""
    return _probe(info.path, way)


def _probe(path: Path, way: int) -> VideoInfo:
    with needs("reading a video"):
        import av
    if not path.is_file():
        raise VideoError(f"{path}: expected a video file, found none; check the path in your csv")
    try:
        key = cache.key(path, av.__version__, av.ffmpeg_version_info)
    except OSError as error:
        raise VideoError(
            f"{path}: expected a readable file ({error}); check who may read it"
        ) from None
    kept = cache.load(key) if not way else None
    info = _from_kept(path, *kept) if kept else None
    if info is None:
        try:
            info = _made(path, way)
        except failures() as error:
            raise unreadable(path, error) from None
        arrays = {k: getattr(info.index, k) for k in ARRAYS} | {"times": info.times}
        values = {k: getattr(info, k) for k in VALUES}
        values |= {"stream": info.index.stream, "way": info.index.way}
        cache.save(key, values, arrays, info.index.way == 2 or len(info.times) >= LONG)
    for note in info.notes:
        warnings.warn(f"{path}: {note}", VideoWarning, stacklevel=3)
    return info


def _from_kept(path: Path, values: dict, arrays: dict) -> VideoInfo | None:
    """None where what is kept is not of this form."""
    try:
        arrays, values = dict(arrays), dict(values)
        times = arrays.pop("times")
        index = Index(values.pop("stream"), values.pop("way"), **arrays)
        values |= {k: tuple(values[k]) for k in ("upright", "notes")}
        return VideoInfo(path, times, index=index, **values)
    except (KeyError, TypeError):
        return None


def _made(path: Path, way: int) -> VideoInfo:
    container, stream = open_file(path)
    try:
        stamped = container.format.name in STAMPED
        declared = stream.frames if stamped else 0  # others count frames for show
        if declared > path.stat().st_size:  # not a byte for each
            size = f"{stream.codec_context.width} x {stream.codec_context.height}"
            held = f"{declared} frames of {size} in {path.stat().st_size} bytes"
            raise VideoError(f"{path}: its header declares {held}, which cannot be; leave it out")
        notes: list[str] = []
        if (films := sum(not s.disposition & _cover() for s in container.streams.video)) > 1:
            notes.append(f"holds {films} video streams; number {stream.index} is read")
        info, packets = _from_tables(path, container, stream, notes) if way <= 0 else (None, [])
        if info:
            _hold(path, container, stream, packets)
            return info
    except BaseException:
        container.close()
        raise
    container.close()
    info = _from_packets(path, notes) if way <= 1 and stamped else None
    return info or _from_frames(path, notes)


# An open file, left by a probe for the read that mostly follows
_held: list[tuple] = []


def _mark(path: Path) -> tuple:
    """What tells open files apart; also the process: forked ones share the place of reading."""
    state = path.stat()
    return os.getpid(), str(path), state.st_size, state.st_mtime_ns, state.st_ino


def _hold(path: Path, container, stream, packets: list) -> None:
    take(None)
    _held.append((_mark(path), container, stream, packets))


def take(path: Path | None) -> tuple | None:
    """(container, stream, packets that were read) of the file probed last, if it is this one."""
    while _held:
        mark, container, *rest = _held.pop()
        if path is not None and mark == _mark(path):
            return container, *rest
        container.close()
    return None


# The clock
def _start(container, first_s: float) -> float:
    """The start of the file in seconds of its own clock; `first_s` is the first frame's."""
    if container.start_time is None:
        return first_s
    start = container.start_time / MICROSECONDS
    if -PRIMING_S <= start < 0:
        start = 0.0
    return min(start, first_s)


def _on_grid(times: np.ndarray, tick: float, stream) -> tuple[np.ndarray, float | None]:
    """Times that a coarse clock rounded, put back on the frame rate that they were rounded from.

    Matroska's clock counts milliseconds: at 24000/1001 frames a second 41.708 ms are stored as 42.
    A clock is put right only if every frame lies within a tick of a multiple of the rate's step.

    Returns:
        The times, and the usual step in seconds where there is such a rate.
    """
    if tick < COARSE_S or len(times) < 2:
        return times, None
    given = [float(r) for r in (stream.base_rate, stream.average_rate, stream.guessed_rate) if r]
    usual = [f for r in given for f in (round(r), round(r * 1.001) / 1.001)]
    found, least = (times, None), np.inf
    for rate in [*given, *usual, *RATES]:
        if rate <= 0 or tick * rate > 0.5:  # ticks as long as frames round nothing
            continue
        steps = np.round((times - times[0]) * rate)
        exact = times[0] + steps / rate
        off = np.abs(exact - times).max()
        if off <= tick and off < least and (np.diff(steps) > 0).all():
            found, least = (exact, float(np.median(np.diff(steps))) / rate), off
        if least <= ROUNDED * tick:  # no other rate is needed: the clock only rounded
            break
    return found


def _timed(container, stream, pts_s: np.ndarray, last_s: float, notes: list[str]):
    """(times on the file's clock, end of the last frame) of rising presentation times."""
    tick = float(stream.time_base)
    start = _start(container, float(pts_s[0]))
    times, step = _on_grid(pts_s - start, tick, stream)
    last_s = step or last_s or (float(np.median(np.diff(times))) if len(times) > 1 else 1.0)
    if times[0] > GAP_S:
        late = f"its picture starts {times[0]:.3f} s after the start of the file"
        notes.append(f"{late}; times count from the start of the file, as a player's clock does")
    elif start > GAP_S and container.format.name in STAMPED:  # others' clocks start anywhere
        notes.append(f"its clock starts at {start:.3f} s; times count from there")
    return times, float(times[-1] + last_s)


# How a picture is turned
def _turned(matrix: tuple[int, ...], notes: list[str]) -> tuple[int, tuple[bool, bool, bool]]:
    """(counter-clockwise degrees, how frames become upright) of a display matrix.

    A stored pixel (x, y) appears at (a x + c y, b x + d y), y downwards.
    """
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if a and d and not b and not c:
        upright = (False, d < 0, a < 0)
    elif b and c and not a and not d:
        upright = (True, b < 0, c < 0)
    else:
        notes.append("is turned by something else than a quarter; its frames are given as stored")
        return 0, (False, False, False)
    degrees = {(False, True, True): 180, (True, False, True): 270, (True, True, False): 90}
    return degrees.get(upright, 0), upright


def _matrix(frame) -> tuple[int, ...]:
    """The display matrix that comes with a decoded frame."""
    from av.sidedata.sidedata import Type

    for data in frame.side_data:
        if data.type == Type.DISPLAYMATRIX:
            return tuple(np.frombuffer(bytes(data), np.int32)[:9].tolist())
    return tables.UNTURNED


def _seen(height: int, width: int, matrix, notes: list[str]) -> dict:
    """The fields of `VideoInfo` that tell what an upright frame looks like."""
    rotation, upright = _turned(matrix, notes)
    if upright[0]:
        height, width = width, height
    return {"height": height, "width": width, "rotation": rotation, "upright": upright}


# The ways
def _codec(stream) -> str:
    """What is coded, whichever library decodes it."""
    return stream.codec_context.codec.canonical_name


def _from_tables(path: Path, container, stream, notes: list[str]) -> tuple[VideoInfo | None, list]:
    """From the header of a plain mp4 or mov: (None where not sure, packets that were read)."""
    count, context, packets = stream.frames, stream.codec_context, []
    plain = container.format.name.startswith("mov,") and _codec(stream) in ONE_EACH - {"vp8"}
    entries = stream.index_entries if plain and context.field_order in PROGRESSIVE else []
    table = tables.read(path, stream.id, count) if count and len(entries) == count else None
    if table is None:
        return None, packets
    rows = (
        (e.timestamp, e.is_keyframe, e.is_discard or not e.size, e.pos + e.size) for e in entries
    )
    found = np.array(list(rows))
    coded, keys = found[:, 0] + table.offsets, np.flatnonzero(found[:, 1])
    if found[:, 2].any() or found[:, 3].max() > path.stat().st_size:
        return None, packets
    for packet in container.demux(stream):
        packets.append(packet)
        if len(packets) == min(CHECKED, count):
            break
    stamps = [p.pts for p in packets]
    if None in stamps:
        return None, packets
    coded = coded + (stamps[0] - coded[0])  # by what the edit list moved the track
    whole, nothing = np.ones(count, bool), np.zeros(count, bool)
    if coded[: len(stamps)].tolist() != stamps or not _one_each(coded, whole, keys):
        return None, packets
    index = Index(stream.index, 0, coded, whole, keys, nothing, np.zeros(0, np.uint32))
    tick, said = float(stream.time_base), list(notes)
    pts_s = np.sort(coded).astype(np.float64) * tick
    times, end = _timed(container, stream, pts_s, table.last * tick, said)
    seen = _seen(context.height, context.width, table.matrix, said)
    return VideoInfo(path, times, end, **seen, notes=tuple(said), index=index), packets


def _one_each(coded: np.ndarray, shown: np.ndarray, keys: np.ndarray) -> bool:
    """Whether packets are frames: stamps all different, the first a key, none shown before it.

    Packets that an edit list hides may only lie before the first shown frame or after the last.
    """
    if not shown.any() or not len(keys) or keys[0] != 0 or len(np.unique(coded)) < len(coded):
        return False
    first, last = coded[shown].min(), coded[shown].max()
    hidden = coded[~shown]
    return coded[0] <= first and not ((hidden > first) & (hidden < last)).any()


def _from_packets(path: Path, notes: list[str]) -> VideoInfo | None:
    """From all packets' stamps; None where packets are not one shown frame each."""
    container, stream = open_file(path)
    rows, said, context = [], list(notes), stream.codec_context
    with container:
        if _codec(stream) not in ONE_EACH or context.field_order not in PROGRESSIVE:
            return None
        unseen, end_s = _codec(stream) == "vp8", 0.0
        try:
            for packet in container.demux():
                if not packet.size:
                    continue
                if packet.pts is not None:
                    end_s = max(
                        end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    )
                if packet.stream_index != stream.index:
                    continue
                if packet.pts is None:
                    return None
                hidden = packet.is_discard or (unseen and not bytes(packet)[0] & VP8_SHOWN)
                row = (
                    packet.pts,
                    packet.duration or 0,
                    packet.is_keyframe,
                    hidden,
                    packet.is_corrupt,
                )
                rows.append(row)
        except failures() as error:
            said.append(
                f"cannot be read to its end ({error}); its {len(rows)} first packets are used"
            )
        ends = [e.pos + e.size for e in stream.index_entries] if stream.frames else []
        missing = sum(e > path.stat().st_size for e in ends)
        stored = container.format.name.startswith("matroska")  # the length; others work it out
        declared_s = (container.duration or 0) / MICROSECONDS if stored else 0.0
    if not rows:
        raise VideoError(
            f"{path}: expected at least one frame, found 0; re-export or leave this file out"
        )
    if missing:
        said.append(f"is cut short: of {len(ends)} frames that it declares {missing} are missing")
    elif declared_s - end_s > SHORT_S:
        said.append(f"is cut short: it declares {declared_s:.3f} s and ends at {end_s:.3f} s")
    table = np.array(rows, np.int64)
    coded, keys, shown = table[:, 0], np.flatnonzero(table[:, 2]), table[:, 3] == 0
    # VP8's hidden frames lie among the others.
    if not _one_each(coded, shown | unseen, keys) or not shown.any():
        return None
    container, stream = open_file(path)
    with container:
        frame = next(container.decode(stream), None)
        if frame is None:
            raise VideoError(
                f"{path}: its packets decode to no frame; re-encode or leave this file out"
            )
        if frame.interlaced_frame:
            return None
        nothing = np.zeros(0, np.uint32)
        index = Index(stream.index, 1, coded, shown, keys, table[:, 4] != 0, nothing)
        tick = float(stream.time_base)
        pts_s = coded[index.order].astype(np.float64) * tick
        times, end = _timed(container, stream, pts_s, table[index.order[-1], 1] * tick, said)
        seen = _seen(frame.height, frame.width, _matrix(frame), said)
    return VideoInfo(path, times, end, **seen, notes=tuple(said), index=index)


def digest(frame) -> int:
    """Checksum of a decoded frame's pixels."""
    import zlib

    found = zlib.crc32(b"%d %d" % (frame.width, frame.height))
    if frame.format.name not in COPLANAR:
        return zlib.crc32(np.ascontiguousarray(frame.to_ndarray(format="rgb24")), found)
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # padded to the right
        found = zlib.crc32(np.ascontiguousarray(rows[: plane.height, : plane.width]), found)
    return found


def _from_frames(path: Path, notes: list[str]) -> VideoInfo:
    """From decoding all of it."""
    container, stream = open_file(path)
    frames, stamps, said, shape, broken, failed = [], [], list(notes), None, False, 0
    with container:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except failures():
                packet, broken, failed = None, True, failed + 1
            if packet is None:
                break
            if packet.size:
                stamps.append(packet.dts)
            try:
                for frame in packet.decode():
                    if frame.key_frame and not frame.is_corrupt:
                        broken = False
                    broken |= frame.is_corrupt
                    shape = shape or (frame.height, frame.width, _matrix(frame))
                    row = (frame.pts, frame.duration or 0, frame.key_frame, broken, digest(frame))
                    frames.append(row)
            except failures():
                # What comes before the first frame belongs to a film whose head is cut off.
                broken, failed = bool(frames), failed + bool(frames)
        if not frames:
            raise VideoError(
                f"{path}: its packets decode to no frame; re-encode or leave this file out"
            )
        tick = float(stream.time_base)
        held = max((s + 1 for s in stamps if s is not None), default=0)  # with empty ones, in AVI
        if container.format.name in UNSTAMPED and (stream.frames - held) * tick > SHORT_S:
            said.append(f"is cut short: it declares {stream.frames} frames and holds {held}")
        bad = np.array([f[3] for f in frames])
        if bad.any() or failed:
            lost = f"{bad.sum()} of {len(frames)} frames and {failed} packets"
            said.append(f"is damaged: {lost} do not decode")
        pts, pts_s, last_s = _shown_at(container, stream, frames, stamps, said)
        times, end = _timed(container, stream, pts_s, last_s, said)
        seen = _seen(*shape, said)
    keys = np.flatnonzero([f[2] for f in frames])
    digests = np.array([f[4] for f in frames], np.uint32)
    index = Index(stream.index, 2, pts, np.ones(len(frames), bool), keys, bad, digests)
    return VideoInfo(path, times, end, **seen, notes=tuple(said), index=index)


def _shown_at(container, stream, frames: list[tuple], stamps: list, notes: list[str]):
    """(stamps as they come, seconds rising, length of the last in seconds) of decoded frames."""
    tick, name = float(stream.time_base), container.format.name
    given = (
        stream.codec_context.framerate if name == "mpeg" else None
    )  # in the pictures' own header
    rate = float(given or stream.average_rate or stream.guessed_rate or 25)
    known = all(f[0] is not None for f in frames)
    pts = np.array([f[0] if f[0] is not None else -1 for f in frames], np.int64)
    if name in UNSTAMPED or not known:
        # One packet a frame: the decoding stamps, in order, are when frames are shown.
        dts = sorted(s for s in stamps if s is not None)
        if len(dts) == len(frames) and len(set(dts)) == len(dts):
            return pts, np.array(dts, np.float64) * tick, 1 / rate
        return pts, np.arange(len(frames)) / rate, 1 / rate
    seconds = pts.astype(np.float64) * tick
    # A pack of MPEG-PS has one stamp for all its pictures; FFmpeg guesses the others.
    steady = seconds[0] + np.arange(len(seconds)) / rate
    guessed = name == "mpeg" and _codec(stream) in ("mpeg1video", "mpeg2video")
    if guessed and np.abs(seconds - steady).max() < GUESSED / rate:
        return pts, steady, 1 / rate
    if (
        len(set(pts.tolist())) == len(pts)
        and (np.maximum.accumulate(seconds) - seconds).max() < SWAPPED_S
    ):
        seconds = np.sort(seconds)  # guessed stamps of neighbours may change places
    steps, usual = np.diff(seconds), frames[-1][1] * tick
    ahead = steps[(steps > 0) & (steps < JUMP_S)]
    usual = float(np.median(ahead)) if len(ahead) else usual or 1 / rate
    jumps = (steps <= 0) | ((steps > JUMP_S) & (name in JUMPING))
    if jumps.any():
        at = int(np.flatnonzero(jumps)[0])
        seen = f"from {seconds[at]:.3f} to {seconds[at + 1]:.3f} s at frame {at + 1}"
        notes.append(f"its clock jumps {jumps.sum()} times, first {seen}; it is counted on")
        seconds = seconds[0] + np.concatenate([[0.0], np.cumsum(np.where(jumps, usual, steps))])
    return pts, seconds, frames[-1][1] * tick
