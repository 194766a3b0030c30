"""Figures with one look (vlact.mplstyle), written as png, pdf and the csv of what is plotted, byte
for byte reproducible; what they are made of, and a measure of what makes one hard to read.
"""

import os
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.runtime.extras import needs

with needs("vlact.report.figures"):
    import matplotlib
    import matplotlib.style
    import matplotlib.text

STYLE = Path(__file__).with_name("vlact.mplstyle")
matplotlib.style.use(STYLE)

COLUMN, PAGE = 3.4, 7.2  # inches: of a column of a paper, and of its text
SMALLEST = 5.0  # points of letters
LETTER = 0.54  # mean width of a letter, of its size
LINE = 1.25  # height of a line of text, of its size
POINTS = 72  # of an inch
NEAR, FAR = 4.0, 100.0  # points between a name and what it names
OVERLAP = 1.0  # points by which boxes of two texts may meet


def save(
    fig,
    folder: Path,
    stem: str,
    data: pd.DataFrame | None = None,
    vector: bool = True,
    caption: str = "",
) -> list[str]:
    """Write `stem`.png, .pdf (unless `vector` is False), .csv of the data and .md of the caption;
    returns the file names.
    """
    from vlact.report.tables import write_caption, write_text

    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for kind in ("png", "pdf") if vector else ("png",):
        temporary = folder / f".{stem}.{kind}"
        metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
        fig.savefig(temporary, format=kind, bbox_inches="tight", metadata=metadata)
        os.replace(temporary, folder / f"{stem}.{kind}")
        names.append(f"{stem}.{kind}")
    if data is not None:
        text = data.to_csv(index=False, lineterminator="\n", float_format="%.4f")
        write_text(folder / f"{stem}.csv", text)
        names.append(f"{stem}.csv")
    if caption:
        write_caption(folder / f"{stem}.md", caption)
        names.append(f"{stem}.md")
    return names


# What makes a figure hard to read
def faults(fig) -> list[str]:
    """Texts that cover each other, letters that are too small, a figure wider than a page."""
    fig.draw_without_rendering()
    found = []
    if fig.get_figwidth() > PAGE + 0.01:
        found.append(f"{fig.get_figwidth():.1f} inches wide, at most {PAGE}")
    shown = texts(fig)
    for text in shown:
        if text.get_fontsize() < SMALLEST:
            found.append(f"{text.get_text()!r} of {text.get_fontsize():.1f} points")
    slack = OVERLAP * fig.dpi / POINTS
    extent = matplotlib.text.Text.get_window_extent  # of an annotation without its arrow
    boxes = [extent(t).padded(-slack / 2) for t in shown]
    for i, a in enumerate(boxes):
        found += [
            f"{shown[i].get_text()!r} covers {shown[j].get_text()!r}"
            for j, b in enumerate(boxes[:i])
            if a.overlaps(b)
        ]
    return found


def texts(fig) -> list:
    """Every text that is drawn; tick labels beyond the ends of their axis are not."""
    ticks, hidden = set(), set()
    for axes in fig.get_axes():
        if not axes.get_visible():
            hidden |= set(axes.findobj(matplotlib.text.Text))
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            edge = 1e-6 * (high - low)
            labels = set(axis.findobj(matplotlib.text.Text)) - {axis.label, axis.offsetText}
            ticks |= labels
            shown = axes.axison and axis.get_visible()
            inside = [
                label
                for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
                if shown and low - edge <= tick.get_loc() <= high + edge
                for label in (tick.label1, tick.label2)
            ]
            ticks -= set(inside)
            hidden |= set() if shown else {axis.label, axis.offsetText}
    every = fig.findobj(matplotlib.text.Text)
    return [
        t
        for t in every
        if t.get_visible() and t.get_text().strip() and t not in ticks and t not in hidden
    ]


# Parts
def room(text: str, size: float) -> float:
    """About how wide a text is, inches; `size` in points."""
    return LETTER * size / POINTS * max(map(len, text.split("\n")))


def label(
    axis, points: np.ndarray, names: list[str], size: float = 6, around: np.ndarray | None = None
) -> None:
    """Names beside points (N, 2) of data, none over another: each at the nearest free place, with
    a line to its point where that is not beside it.

    Limits of the axis must be set. Points `around` (M, 2) stay free, too. A name that finds no
    place is left out.
    """
    axis.figure.draw_without_rendering()
    scale, frame = axis.figure.dpi / POINTS, axis.bbox
    to_data = axis.transData.inverted().transform
    dots = axis.transData.transform(points if around is None else around)
    taken = [(x - scale, y - scale, x + scale, y + scale) for x, y in dots]
    for (x, y), name in zip(axis.transData.transform(points), names, strict=True):
        text = axis.text(0, 0, name, fontsize=size)
        width, height = text.get_window_extent().padded(0.5 * scale).size
        text.remove()
        places = (
            (reach, x + np.cos(way) * (reach + width / 2), y + np.sin(way) * (reach + height / 2))
            for reach in scale * np.arange(NEAR, FAR, NEAR)
            for way in np.linspace(0, 2 * np.pi, 16, endpoint=False)
        )
        for reach, cx, cy in places:
            box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
            inside = frame.x0 <= box[0] and box[2] <= frame.x1
            inside = inside and frame.y0 <= box[1] and box[3] <= frame.y1
            if inside and not any(_meet(box, other) for other in taken):
                away = reach > scale * NEAR  # too far to be read as one with its point
                break
        else:
            continue
        taken.append(box)
        line = {"arrowstyle": "-", "lw": 0.4, "color": "0.5", "shrinkA": 0, "shrinkB": 1}
        beside = axis.annotate(
            name,
            to_data((x, y)),
            to_data((cx, cy)),
            fontsize=size,
            ha="center",
            va="center",
            arrowprops=line if away else None,
            annotation_clip=False,
        )
        beside.set_in_layout(False)  # it would move what it was placed by


def _meet(a: tuple, b: tuple) -> bool:
    """Whether two boxes (x0, y0, x1, y1) have a point in common."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def strip(axis, frames: np.ndarray) -> None:
    """As many of the frames (T, H, W, 3) as fit an axis side by side, evenly and unstretched."""
    axis.set_axis_off()
    axis.figure.draw_without_rendering()
    box, (_, height, width, _) = axis.bbox, frames.shape
    across = max(width, round(height * box.width / box.height))  # pixels of the whole strip
    count = min(len(frames), across // width)
    chosen = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    canvas = np.full((height, across, 3), 255, np.uint8)
    # a frame stands where its time is
    for left, frame in zip(np.linspace(0, across - width, count).round(), chosen, strict=True):
        canvas[:, int(left) : int(left) + width] = frame
    axis.imshow(canvas, aspect="auto")


def packed(
    lanes: dict[str, pd.DataFrame],
    duration_s: float,
    inches: float,
    step_s: float | None = None,
    size: float = 6,
) -> dict[str, list[list[tuple]]]:
    """The lines of every lane: those of its segments that would cover each other share none.

    Args:
        lanes, duration_s, step_s, size: As of `timeline`.
        inches: That the recording is wide.

    Returns:
        Of each lane its lines, at least one, each of segments, the seconds at which their words
        begin, and the words.
    """
    letter_s, found = LETTER * size / POINTS / inches * duration_s, {}
    for name, rows in lanes.items():
        lines, free_s = [[]], [0.0]  # when each line is free again
        for r in rows.sort_values("start_s").itertuples():
            words = r.label
            if step_s is not None:
                words += f"\n{r.start_s / step_s:.0f}–{r.end_s / step_s:.0f}"
            room_s = letter_s * (1 + max(map(len, words.split("\n"))))
            left_s = max(0.0, min(r.start_s, duration_s - room_s))
            line = next((i for i, s in enumerate(free_s) if s <= left_s), len(free_s))
            if line == len(free_s):
                lines.append([])
            free_s[line : line + 1] = [max(r.end_s, left_s + room_s)]
            lines[line].append((r, left_s, words))
        found[name] = lines
    return found


def timeline(
    axes,
    frames: np.ndarray,
    lanes: dict[str, pd.DataFrame],
    duration_s: float,
    step_s: float | None = None,
    size: float = 6,
) -> None:
    """A recording and, under it, its segments by source, each lane as high as it has lines.

    Args:
        axes: Two of one width: for the film strip and for the lanes.
        frames: uint8 (T, H, W, 3), evenly spaced over the recording; those that fit are shown. With
            none (T = 0) there is no strip.
        lanes: What a source is called to its segments: `start_s, end_s, label`, and `score`, the
            strength of the colour.
        duration_s: Of the recording.
        step_s: Seconds between features, if the features that a segment spans are to be written,
            too.
        size: Of letters, points.
    """
    # the names take room of their own before segments are put beside them
    axes[1].set_yticks(range(len(lanes)), list(lanes))
    axes[1].set(xlim=(0, duration_s))
    if len(frames):
        strip(axes[0], frames)
    else:
        axes[0].set_visible(False)
        axes[0].figure.draw_without_rendering()
    inches = axes[1].bbox.width / axes[1].figure.dpi
    top, middles = 0.0, []
    for k, lines in enumerate(packed(lanes, duration_s, inches, step_s, size).values()):
        middles.append(top - len(lines) / 2)
        full = np.array(matplotlib.colors.to_rgb(f"C{k % 7}"))
        for i, (r, left_s, words) in ((i, x) for i, line in enumerate(lines) for x in line):
            # letters stay readable
            strength = 0.7 * min(1.0, max(0.25, r.score))
            y, shade = top - i - 0.5, 1 - strength * (1 - full)
            axes[1].barh(y, r.end_s - r.start_s, left=r.start_s, height=0.86, color=shade)
            at = left_s + 0.15 * size / POINTS / inches * duration_s
            axes[1].text(at, y, words, fontsize=size, va="center", linespacing=0.95, clip_on=True)
        top -= len(lines)
        axes[1].axhline(top, color="0.85", lw=0.4)
    axes[1].set_yticks(middles, list(lanes))
    axes[1].grid(False, axis="y")
    axes[1].set_axisbelow(True)
    axes[1].set_ylim(top, 0)


def contact_sheet(
    rows: list[np.ndarray],
    names: list[str],
    columns: int = 2,
    scale: float | None = None,
    size: float = 6.5,
):
    """Film strips under each other for the eye to judge, each with its name above it.

    Args:
        rows: One uint8 array (T, H, W, 3) a strip, all of one shape.
        names: What each strip is called; long ones are wrapped.
        columns: Strips side by side.
        scale: Inches per frame; by default what fills a page.
        size: Of letters, points.

    Returns:
        A matplotlib figure.
    """
    import matplotlib.pyplot as plt

    t, height, width = rows[0].shape[:3]
    gap = 0.12  # inches between strips
    scale = scale or (PAGE - gap * (columns + 1)) / columns / t
    across = int(t * scale / (LETTER * size / POINTS))  # letters that fit above a strip
    wrapped = ["\n".join(textwrap.fill(x, across) for x in n.split("\n")) for n in names]
    lines = -(-len(rows) // columns)
    # a row is as high as its longest name asks for
    words = [
        1 + max(wrapped[i].count("\n") for i in range(k, len(rows), lines)) for k in range(lines)
    ]
    above = [LINE * size / POINTS * n + 0.05 for n in words]
    frame = scale * height / width
    whole = sum(above) + lines * (frame + 0.04)
    fig = plt.figure(figsize=(columns * (t * scale + gap) + gap, whole))
    top = whole
    for k in range(lines):
        top -= above[k] + frame
        for column, i in enumerate(range(k, len(rows), lines)):
            left = gap + column * (t * scale + gap)
            box = (left / fig.get_figwidth(), top / whole)
            axis = fig.add_axes((*box, t * scale / fig.get_figwidth(), frame / whole))
            axis.imshow(np.concatenate(list(rows[i]), axis=1), aspect="auto")
            axis.set_axis_off()
            shift = 2 / POINTS / frame
            axis.text(
                0, 1 + shift, wrapped[i], fontsize=size, va="bottom", transform=axis.transAxes
            )
        top -= 0.04
    return fig
