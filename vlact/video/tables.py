"""The sample tables of an mp4 or mov header: presentation stamps without reading the film.

ISO/IEC 14496-12, section 8: `ctts` holds what is added to a sample's decoding stamp, `stts` how
long samples last, `elst` what of the track is shown, `tkhd` how the picture is turned. FFmpeg gives
the decoding stamps, but not `ctts`; without it an hour of film would be read from end to end.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LARGEST = 1 << 28  # bytes of a header that is read; a day of film has about 2^26
UNTURNED = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)  # 16.16 and 2.30 fixed point
# Where the fields of a box lie, by its version: after the words before them.
TRACK_ID, TRACK_MATRIX, MOVIE_MATRIX = {0: 12, 1: 20}, {0: 40, 1: 52}, {0: 36, 1: 48}


@dataclass(frozen=True)
class Table:
    """What the header says of one track.

    Attributes:
        offsets: (N,) presentation less decoding stamp, in the track's ticks, in decoding order.
        last: Ticks that the last sample lasts.
        matrix: The nine numbers of the display matrix.
    """

    offsets: np.ndarray
    last: int
    matrix: tuple[int, ...]


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of the content of every box."""
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:  # a 64-bit size follows
            size, start = struct.unpack_from(">Q", data, start)[0], start + 8
        stop = at + size if size else end  # 0: to the end
        if stop < start or stop > end:
            raise ValueError("a box is longer than the one around it")
        yield kind, start, stop
        at = stop


def _header(path: Path) -> bytes | None:
    """The content of the file's one `moov` box."""
    with path.open("rb") as file:
        length, at = path.stat().st_size, 0
        while at + 8 <= length:
            file.seek(at)
            size, kind = struct.unpack(">I4s", file.read(8))
            start = at + 8
            if size == 1:
                size, start = struct.unpack(">Q", file.read(8))[0], start + 8
            stop = at + size if size else length
            if stop < start or stop > length:
                return None
            if kind == b"moov":
                file.seek(start)
                return file.read(stop - start) if stop - start <= LARGEST else None
            at = stop
    return None


def _find(data: bytes, at: int, end: int, *kinds: bytes) -> tuple[int, int] | None:
    """Content of the box at a path of kinds."""
    for kind in kinds:
        found = next(((a, b) for k, a, b in _boxes(data, at, end) if k == kind), None)
        if found is None:
            return None
        at, end = found
    return at, end


def _runs(data: bytes, place: tuple[int, int], count: int) -> np.ndarray | None:
    """Pairs (times, value) of a table, None where they are not of `count` samples."""
    at, end = place
    pairs = struct.unpack_from(">I", data, at + 4)[0]
    if at + 8 + 8 * pairs > end:
        return None
    runs = np.frombuffer(data, ">i4", 2 * pairs, at + 8).reshape(-1, 2).astype(np.int64)
    return runs if (runs[:, 0] > 0).all() and runs[:, 0].sum() == count else None


def _shows_all(data: bytes, place: tuple[int, int] | None) -> bool:
    """Whether an edit list only moves the track: an empty edit, then one at its own pace."""
    if place is None:
        return True
    at, _ = place
    form, count = (">Qqhh" if data[at] else ">Iihh"), struct.unpack_from(">I", data, at + 4)[0]
    if not 1 <= count <= 2:
        return False
    edits = [
        struct.unpack_from(form, data, at + 8 + i * struct.calcsize(form)) for i in range(count)
    ]
    return all(e[1] == -1 for e in edits[:-1]) and edits[-1][1] >= 0 and edits[-1][2:] == (1, 0)


def read(path: Path, track: int, count: int) -> Table | None:
    """The table of a track of `count` samples; None where more is needed to know what is shown."""
    try:
        data = _header(path)
        if data is None or _find(
            data, 0, len(data), b"mvex"
        ):  # the samples of fragments are elsewhere
            return None
        if movie := _find(data, 0, len(data), b"mvhd"):
            if struct.unpack_from(">9i", data, movie[0] + MOVIE_MATRIX[data[movie[0]]]) != UNTURNED:
                return None
        for kind, at, end in _boxes(data, 0, len(data)):
            head = _find(data, at, end, b"tkhd") if kind == b"trak" else None
            if (
                head is None
                or struct.unpack_from(">I", data, head[0] + TRACK_ID[data[head[0]]])[0] != track
            ):
                continue
            tables = _find(data, at, end, b"mdia", b"minf", b"stbl")
            if tables is None or not _shows_all(data, _find(data, at, end, b"edts", b"elst")):
                return None
            lasts, offsets = (_find(data, *tables, k) for k in (b"stts", b"ctts"))
            lasts = _runs(data, lasts, count) if lasts else None
            found = _runs(data, offsets, count) if offsets else np.array([[count, 0]])
            if lasts is None or found is None or not len(lasts):
                return None
            matrix = struct.unpack_from(">9i", data, head[0] + TRACK_MATRIX[data[head[0]]])
            return Table(np.repeat(found[:, 1], found[:, 0]), int(lasts[-1, 1]), matrix)
    except (struct.error, ValueError, KeyError, OSError):
        pass
    return None
