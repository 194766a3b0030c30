"""Frames by their numbers: from the key frame before, each held against the index, one at a time.

PyAV decodes. decord does where `VLACT_VIDEO=decord` asks for it and is known to be right: plain
mp4 or mov, whole, upright, starting at zero.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from vlact.video import index as indexes
from vlact.video.index import VideoError, VideoInfo, failures, open_file, probe

BACK = (0, 1, 3, 8)  # key frames that a start goes further back, one try after another
LEAD_S = (0.3, 3.0, 15.0)  # the same in seconds, for files whose packets tell no more
FAR_S = 5.0  # from one wanted frame to the next; a seek is worth it beyond
LOST = 1000  # frames without stamps after a seek, none of them the wanted one: give up
SPARE = 0.8  # of the free memory that frames asked for at once may take


class _Untrue(Exception):
    """The file is not as its index says; a surer way of making it may help."""


def read(path: str | Path, indices: Iterable[int], info: VideoInfo | None = None) -> np.ndarray:
    """Decode the frames with the given indices, upright.

    All of them lie in memory at once; `stream` gives them one by one.

    Args:
        path: The file.
        indices: Frame numbers in 0..N-1, in any order, repeats allowed.
        info: What `probe` said, if already known.

    Returns:
        uint8 (len(indices), H, W, 3), RGB. A frame of another size than the first is scaled to it.

    Raises:
        VideoError: See `probe`; also when a frame number is out of range, when one does not decode,
            when the frames do not fit into memory, or when the shape changes within the film.
    """
    info = info or probe(path)
    indices = np.asarray(list(indices), dtype=np.int64)
    shape = (len(indices), info.height, info.width, 3)
    if (need := int(np.prod(shape))) > SPARE * (free := _free_memory()):
        size = f"{len(indices)} frames of {info.width} x {info.height}"
        found = f"{size} ({need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free)"
        raise VideoError(
            f"{path}: expected frames that fit into memory, asked for {found}; ask for fewer"
        )
    _check_range(info, indices)
    out = np.empty(shape, np.uint8)
    order = np.argsort(indices, kind="stable")
    places = np.split(order, np.flatnonzero(np.diff(indices[order])) + 1)
    for (_, image), at in zip(stream(path, indices, info, _same_size(info)), places, strict=False):
        out[at] = image
    return out


def _free_memory() -> int:
    import psutil

    return psutil.virtual_memory().available


def _check_range(info: VideoInfo, indices: np.ndarray) -> None:
    if len(indices) and (indices.min() < 0 or indices.max() >= len(info.times)):
        asked = f"{indices.min()}..{indices.max()}"
        raise VideoError(
            f"{info.path}: expected frame numbers in 0..{len(info.times) - 1}, got {asked}"
        )


def _same_size(info: VideoInfo) -> Callable[[np.ndarray], np.ndarray]:
    """Scales frames of another size but the same shape to that of the first."""

    def scale(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if (height, width) == (info.height, info.width):
            return image
        if abs(height * info.width - width * info.height) > max(height * info.width, 1) * 0.02:
            sizes = f"{info.width} x {info.height}, then {width} x {height}"
            remedy = "read clips of one size (vlact.video.clips.load) or re-encode"
            raise VideoError(f"{info.path}: expected frames of one shape, found {sizes}; {remedy}")
        from PIL import Image

        return np.asarray(Image.fromarray(image).resize((info.width, info.height), Image.BILINEAR))

    return scale


def stream(
    path: str | Path,
    indices: Iterable[int],
    info: VideoInfo | None = None,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Frames in one pass, each once, in rising order; memory does not grow with their number.

    Args:
        path: The file.
        indices: Frame numbers in 0..N-1, in any order.
        info: What `probe` said, if already known.
        change: Applied to every upright frame, uint8 (H, W, 3), as it is decoded.

    Yields:
        (number, frame).

    Raises:
        VideoError: See `read`.
    """
    backend = os.environ.get("VLACT_VIDEO") or "av"
    if backend not in ("decord", "av"):
        raise ValueError(f"VLACT_VIDEO must be 'decord' or 'av'; got {backend!r}")
    given, info = info, info or probe(path)
    if info.index is None:
        info = probe(info.path)
    wanted = np.unique(np.asarray(list(indices), dtype=np.int64))
    _check_range(info, wanted)
    frames = _decord(info, wanted) if backend == "decord" and _plain(info) else None
    if frames is None:
        frames = _by_frames(info, wanted) if info.index.way == 2 else _by_packets(info, wanted)
    done = 0
    try:
        for number, image in frames:
            done += 1
            yield number, change(image) if change else image
    except _Untrue as error:
        if info.index.way == 2:
            twice = f"decode twice alike ({error})"
            raise VideoError(f"{info.path}: expected frames that {twice}; re-encode it") from None
        again = indexes.remake(info, 1 if info.index.way == 0 else 2)
        same = len(again.times) == len(info.times) and np.allclose(
            again.times, info.times, atol=1e-3
        )
        if not same and (given is not None or done):
            remedy = "its index was made again: call probe once more"
            raise VideoError(
                f"{info.path}: expected what its index says, found {error}; {remedy}"
            ) from None
        yield from stream(path, wanted[done:], again, change)
    except failures() as error:
        raise indexes.unreadable(info.path, error) from None


class _Pictures:
    """Decoded frames to upright RGB arrays."""

    def __init__(self, info: VideoInfo):
        from av.video.reformatter import VideoReformatter

        self.info, self.reformatter = info, VideoReformatter()  # one, for it keeps its tables

    def __call__(self, frame) -> np.ndarray:
        image = self.reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        swap, rows, columns = self.info.upright
        if swap:
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[:: -1 if rows else 1, :: -1 if columns else 1])


class _Reader:
    """Packets of a film's video stream from a key frame on."""

    def __init__(self, info: VideoInfo):
        self.info, self.index = info, info.index
        container, stream, packets = indexes.take(info.path) or (*open_file(info.path), [])
        self.use(container, stream, packets)

    def use(self, container, stream, packets=()) -> None:
        self.container, self.stream, self.context = container, stream, stream.codec_context
        if stream.index != self.index.stream:
            raise _Untrue("another stream")
        self.packets = chain(packets, container.demux(stream))
        self.at = 0  # place in `index.coded` of the next packet

    def reopen(self) -> None:
        self.container.close()
        self.use(*open_file(self.info.path))

    def go(self, key: int, back: int) -> bool:
        """Stand before key frame `key`, or some before it; False where that cannot be."""
        if key - back <= 0:
            if back or self.at:
                self.reopen()
            return True
        try:
            self.container.seek(
                int(self.index.coded[self.index.keys[key - back]]), stream=self.stream
            )
            packets = self.container.demux(self.stream)
            for packet in packets:
                if packet.is_keyframe and packet.size:
                    break
            else:
                return False
        except failures():
            return False
        place = self.index.place(packet.pts)
        if place is None or place > self.index.keys[key]:
            return False
        self.packets, self.at = chain([packet], packets), place
        return True


def _by_packets(info: VideoInfo, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of a file whose packets are one frame each, known by their stamps."""
    if not len(wanted):
        return
    index, picture = info.index, _Pictures(info)
    places, starts = index.order[wanted], index.starts(wanted)
    # Frames that one run of packets gives: as long as the next one's key frame is no further on.
    runs, end = [], -2
    for i, (place, key) in enumerate(zip(places, starts, strict=True)):
        if index.keys[key] <= end + 1 and runs and key >= starts[runs[-1][0]]:
            runs[-1].append(i)
        else:
            runs.append([i])
            end = -1
        end = max(end, int(place))
    reader = _Reader(info)
    try:
        for run in runs:
            yield from _run(info, reader, picture, wanted[run], places[run], int(starts[run[0]]))
    finally:
        reader.container.close()


def _run(
    info, reader: _Reader, picture, wanted, places, key: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of one run of packets, in rising order; from further back where some lack."""
    from av.video.frame import PictureType

    index, done = info.index, 0
    stamps, last = index.coded[places], len(wanted)
    firsts = index.keys[index.starts(wanted)]
    # What a frame is predicted from may be shown after it, and only then says that it is damaged.
    # Until then the frame waits.
    reach = np.maximum.accumulate(index.coded[: int(places.max()) + 1])[places]

    def sound(frame, number: int) -> tuple[int, np.ndarray]:
        between = slice(firsts[number], places[number] + 1)  # from the key frame before it
        hit = any(between.start <= f < between.stop for f in failed)
        if hit or index.broken[between].any():
            raise _undecodable(info, wanted[number])
        return int(wanted[number]), picture(frame)

    for back in [b for b in BACK if b < key] + [key]:
        if not reader.go(key, back):
            continue
        entry = int(index.coded[reader.at])
        failed: list[int] = []
        waiting = []
        for frame in _decoded(reader, set(places[done:].tolist()), failed):
            if frame.pts is None:
                continue
            if entry is not None and frame.pts >= entry:
                if back < key and (frame.pts > entry or frame.pict_type != PictureType.I):
                    break  # a picture that is built up over several frames: no place to begin
                entry = None
            ahead = done + len(waiting)
            if ahead < last and frame.pts == stamps[ahead]:
                waiting.append(frame)
            elif ahead < last and frame.pts > stamps[ahead]:
                break  # it did not come
            while waiting and frame.pts >= reach[done]:
                yield sound(waiting.pop(0), done)
                done += 1
            if done == last:
                return
        for frame in waiting:
            yield sound(frame, done)
            done += 1
        if done == last:
            return
        if failed:
            raise _undecodable(info, wanted[done])
    raise _Untrue(f"no frame at {info.times[wanted[done]]:.3f} s")


def _undecodable(info: VideoInfo, number: int) -> VideoError:
    at = f"frame {number} at {info.times[number]:.3f} s does not decode"
    return VideoError(f"{info.path}: {at}; re-encode or leave it out")


def _decoded(reader: _Reader, needed: set[int], failed: list[int]) -> Iterator:
    """Decoded frames from where the reader stands to the last of `needed`, as they come.

    Args:
        reader: Stands before a key frame.
        needed: Places of wanted frames; others that nothing refers to are left out.
        failed: Gets the places of packets that do not decode.
    """
    context, index, last = reader.context, reader.index, max(needed)
    ended = False
    while not ended:
        packet = next(reader.packets, None)
        ended = packet is None
        if not ended and not packet.size:
            continue
        if not ended:
            place = reader.at
            if place >= len(index.coded) or packet.pts != index.coded[place]:
                raise _Untrue(f"a packet at {packet.pts} ticks")
            context.skip_frame = "DEFAULT" if place in needed else "NONREF"
            reader.at, ended = place + 1, place >= last
            frames = _try(context, packet, place, failed)
            yield from _sound(frames, index, failed)
    yield from _sound(_try(context, None, reader.at - 1, failed), index, failed)
    context.flush_buffers()
    reader.at = -1  # emptied: only a seek goes on from here


def _try(context, packet, place: int, failed: list[int]) -> list:
    try:
        return context.decode(packet)
    except failures():
        failed.append(place)
        return []


def _sound(frames: list, index, failed: list[int]) -> Iterator:
    for frame in frames:
        if frame.is_corrupt and (place := index.place(frame.pts)) is not None:
            failed.append(place)
        yield frame


def _by_frames(info: VideoInfo, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of any other file, known by their checksums."""
    index, picture, done = info.index, _Pictures(info), 0
    once = dict(zip(*np.unique(index.digests, return_counts=True), strict=True))
    container, stream = open_file(info.path)
    try:
        tick_s = float(stream.time_base)
        while done < len(wanted):
            number = int(wanted[done])
            if index.broken[number]:
                raise _undecodable(info, number)
            found = None
            for lead_s in LEAD_S:
                if info.times[number] - info.times[0] < lead_s + FAR_S:
                    break
                key = index.keys[max(0, np.searchsorted(index.keys, number, side="right") - 1)]
                stamp = int(index.coded[key] - lead_s / tick_s)
                found = _found(container, stream, stamp, index, number, once)
                if found:
                    break
            if found is None:  # from the beginning, counted
                container.close()
                container, stream = open_file(info.path)
                frames = _all(container, stream)
                found = _counted(frames, index, number)
            if found is None:
                raise _Untrue(f"no frame like number {number}")
            frame, frames = found
            yield number, picture(frame)
            done += 1
            # The next ones follow, as long as they are near and as the index says.
            while done < len(wanted) and info.times[wanted[done]] - info.times[number] < FAR_S:
                ahead = int(wanted[done])
                if index.broken[ahead]:
                    raise _undecodable(info, ahead)
                frame = next((f for i, f in enumerate(frames, number + 1) if i == ahead), None)
                if frame is None or indexes.digest(frame) != index.digests[ahead]:
                    break
                yield ahead, picture(frame)
                number, done = ahead, done + 1
    finally:
        container.close()


def _all(container, stream) -> Iterator:
    """Frames that decode, as the index counted them."""
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except failures():
                continue
    except failures():
        return


def _counted(frames: Iterator, index, number: int):
    """(frame, those after it) by counting; None where it is not the one of the index."""
    frame = next((f for i, f in enumerate(frames) if i == number), None)
    same = frame is not None and indexes.digest(frame) == index.digests[number]
    return (frame, frames) if same else None


def _found(container, stream, stamp: int, index, number: int, once: dict):
    """The same after a seek: by the checksum, and by the stamp where others look alike."""
    try:
        container.seek(stamp, stream=stream)
    except failures():
        return None
    frames, pts = _all(container, stream), index.coded[number]
    far = int(FAR_S / stream.time_base)
    for i, frame in enumerate(frames):
        stamped = frame.pts == pts
        if stamped or once[index.digests[number]] == 1:
            if indexes.digest(frame) == index.digests[number]:
                return frame, frames
        if i > LOST or (frame.pts is not None and frame.pts > pts + far):
            return None
    return None


# decord
def _plain(info: VideoInfo) -> bool:
    """Whether decord's answer is known to be right."""
    index = info.index
    return index.way == 0 and not any(info.upright) and info.times[0] == 0 and not info.notes


def _decord(info: VideoInfo, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]] | None:
    """None where decord cannot serve the file after all; PyAV then has its turn."""
    import decord

    try:
        reader = decord.VideoReader(str(info.path), num_threads=1)
        if len(reader) != len(info.times) or not len(wanted):
            return None
        stamps = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        first = reader[int(wanted[0])].shape[:2]
        if first != (info.height, info.width) or np.abs(stamps - info.times).max() > 1e-3:
            return None
    except (decord.DECORDError, RuntimeError, IndexError):
        return None
    return ((int(i), reader[int(i)].asnumpy()) for i in wanted)  # upright by itself
