"""Films whose frames carry their own numbers, in any container, made on the spot by PyAV."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 10  # of a number: ten columns, white for one; below them their opposites
EDGE = 0.3  # of a cell that is not looked at, where codecs smear
DARK, LIGHT = 30, 225


def draw(number: int, width: int = 80, height: int = 48) -> np.ndarray:
    """A frame that shows `number`: uint8 (height, width, 3)."""
    bits = number >> np.arange(BITS) & 1
    cells = np.where(np.stack([bits, 1 - bits]), LIGHT, DARK).astype(np.uint8)
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * BITS // width
    return np.repeat(cells[rows][:, columns, None], 3, 2)


def number(image: np.ndarray) -> int | None:
    """The number that a frame (H, W, 3) shows; None where it shows none."""
    height, width = image.shape[0] / 2, image.shape[1] / BITS
    cells = np.empty((2, BITS))
    for r, c in np.ndindex(2, BITS):
        top, left = int((r + EDGE) * height), int((c + EDGE) * width)
        part = image[top : int((r + 1 - EDGE) * height) + 1, left : int((c + 1 - EDGE) * width) + 1]
        cells[r, c] = part.mean()
    if (np.abs(cells - 128) < 40).any() or ((cells[0] > 128) == (cells[1] > 128)).any():
        return None
    return int(((cells[0] > 128) << np.arange(BITS)).sum())


def film(
    path: Path,
    count: int = 30,
    rate: Fraction | int = 25,
    codec: str = "libx264",
    form: str | None = None,
    size: tuple[int, int] = (80, 48),
    pix_fmt: str = "yuv420p",
    gop: int = 8,
    b: int = 2,
    options: dict | None = None,
    container: dict | None = None,
    stamps: list[int] | None = None,
    clock: Fraction | None = None,
    sound: tuple[float, float] | None = None,
    late: float = 0.0,
    first: int = 0,
    title: str = "",
) -> Path:
    """Numbered frames as a file.

    Args:
        path: Where to; its ending says the container, unless `form` does.
        count, rate, codec, size, pix_fmt, gop, b: Of the picture; size is (width, height).
        options, container: Of encoder and muxer.
        stamps, clock: Presentation stamps and their tick in seconds; else k / rate.
        sound: Start and length in seconds of a silent track.
        late: Seconds that the picture starts later.
        first: Number of the first frame.
        title: Of the file.
    """
    clock = clock or 1 / Fraction(rate)
    stamps = stamps or list(range(count))
    with av.open(str(path), "w", format=form, container_options=container or {}) as out:
        out.metadata.update({"title": title} if title else {})
        picture = out.add_stream(codec, rate=Fraction(rate))
        picture.width, picture.height, picture.pix_fmt = *size, pix_fmt
        picture.codec_context.gop_size, picture.codec_context.max_b_frames = gop, b
        picture.codec_context.time_base, picture.thread_count = clock, 1
        picture.options = {"crf": "12"} if codec == "libx264" else {}
        picture.options |= options or {}
        if sound:
            track = out.add_stream("mp2" if form == "mpeg" else "aac", rate=16000, layout="mono")
            begin, length = sound
            for i in range(int(length * 16000 / 1024)):
                silence = np.zeros((1, 1024), np.int16 if form == "mpeg" else np.float32)
                kind = "s16" if form == "mpeg" else "fltp"
                part = av.AudioFrame.from_ndarray(silence, format=kind, layout="mono")
                part.sample_rate, part.pts = 16000, int(begin * 16000) + 1024 * i
                part.time_base = Fraction(1, 16000)
                out.mux(track.encode(part))
            out.mux(track.encode())
        for i, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(draw(first + i, *size), format="rgb24")
            frame.pts, frame.time_base = stamp + round(late / clock), clock
            out.mux(picture.encode(frame))
        out.mux(picture.encode())
    if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
        # as root it takes the highest real-time priority and leaves its caller with it
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


def remux(path: Path, to: Path, shift_s: float = 0.0, form: str | None = None, **options) -> Path:
    """The same packets in another container or at another time."""
    with (
        av.open(str(path)) as source,
        av.open(str(to), "w", format=form, container_options=options) as out,
    ):
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            shift = round(shift_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = streams[packet.stream_index]
            out.mux(packet)
    return to
