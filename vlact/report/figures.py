"""Figures with one look, written as png, svg and the csv of what is plotted, byte for byte
reproducible.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.runtime.extras import needs

with needs("vlact.report.figures"):
    import matplotlib

matplotlib.rcParams.update(
    {
        "svg.hashsalt": "vlact",
        "svg.fonttype": "none",
        "figure.dpi": 110,
        "savefig.dpi": 150,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "image.interpolation": "nearest",
        "axes.prop_cycle": matplotlib.cycler(
            color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555"]
        ),
    }
)


def save(
    fig,
    folder: Path,
    stem: str,
    data: pd.DataFrame | None = None,
    vector: bool = True,
    caption: str = "",
) -> list[str]:
    """Write `stem`.png, .svg (unless `vector` is False), .csv of the data and .md of the caption;
    returns the file names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for kind in ("png", "svg") if vector else ("png",):
        temporary = folder / f".{stem}.{kind}"
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        fig.savefig(temporary, format=kind, bbox_inches="tight", metadata=metadata)
        os.replace(temporary, folder / f"{stem}.{kind}")
        names.append(f"{stem}.{kind}")
    if data is not None:
        from vlact.report.tables import write_text

        write_text(
            folder / f"{stem}.csv",
            data.to_csv(index=False, lineterminator="\n", float_format="%.4f"),
        )
        names.append(f"{stem}.csv")
    if caption:
        from vlact.report.tables import write_text

        write_text(folder / f"{stem}.md", caption + "\n")
        names.append(f"{stem}.md")
    return names


def timeline(
    axes,
    frames: np.ndarray,
    lanes: dict[str, pd.DataFrame],
    duration_s: float,
    step_s: float | None = None,
    size: float = 6,
) -> None:
    """A recording and, under it, its segments by source; those of one source that would cover each
    other share its lane.

    Args:
        axes: Two of one width: for the film strip and for the lanes.
        frames: uint8 (T, H, W, 3), evenly spaced over the recording.
        lanes: What a source is called to its segments: `start_s, end_s, label`, and `score`, the
            strength of the colour.
        duration_s: Of the recording.
        step_s: Seconds between features, if the features that a segment spans are to be written,
            too.
        size: Of letters, points.
    """
    axes[0].imshow(np.concatenate(list(frames), 1), aspect="auto")
    axes[0].axis("off")
    letter_s = (
        0.54
        * size
        / 72
        / (axes[1].get_position().width * axes[1].figure.get_figwidth())
        * duration_s
    )
    for k, rows in enumerate(lanes.values()):
        free_s, drawn = [], []  # when each part of the lane is free again
        for r in rows.sort_values("start_s").itertuples():
            words = (
                r.label
                if step_s is None
                else f"{r.label}\n{r.start_s / step_s:.0f}–{r.end_s / step_s:.0f}"
            )
            room_s = letter_s * max(map(len, words.split("\n")))
            left_s = max(0.0, min(r.start_s, duration_s - room_s))
            part = next((i for i, s in enumerate(free_s) if s <= left_s), len(free_s))
            free_s[part : part + 1] = [max(r.end_s, left_s + room_s)]
            drawn.append((r, part, left_s, words))
        height = 0.86 / max(1, len(free_s))
        for r, part, left_s, words in drawn:
            # letters stay readable
            y, strength = 0.43 - k - height * (part + 0.5), 0.7 * min(1.0, max(0.25, r.score))
            shade = 1 - strength * (1 - np.array(matplotlib.colors.to_rgb(f"C{k}")))
            axes[1].barh(y, r.end_s - r.start_s, left=r.start_s, height=0.92 * height, color=shade)
            axes[1].text(
                left_s + 0.3 * letter_s,
                y,
                words,
                fontsize=size,
                va="center",
                linespacing=0.95,
                clip_on=True,
            )
    axes[1].set_yticks(-np.arange(len(lanes)), list(lanes), fontsize=8)
    axes[1].set_axisbelow(True)
    axes[1].set(xlim=(0, duration_s), ylim=(0.5 - len(lanes), 0.5))


def contact_sheet(
    rows: list[np.ndarray],
    names: list[str],
    columns: int = 2,
    scale: float = 0.55,
    room: float = 1.3,
):
    """Film strips under each other for the eye to judge.

    Args:
        rows: One uint8 array (T, H, W, 3) a strip, all of one shape.
        names: What each strip is called, written left of it.
        columns: Strips side by side.
        scale: Inches per frame.
        room: Inches for a name.

    Returns:
        A matplotlib figure.
    """
    import matplotlib.pyplot as plt

    t, lines = rows[0].shape[0], -(-len(rows) // columns)
    size = columns * (t * scale + room), lines * scale * 1.02
    # small in a notebook, whole in the file
    fig, axes = plt.subplots(lines, columns, figsize=size, dpi=60, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, (strip, name) in enumerate(zip(rows, names, strict=True)):
        axis = axes[i % lines, i // lines]
        axis.imshow(np.concatenate(list(strip), axis=1), aspect="equal")
        axis.text(-6, strip.shape[1] / 2, name, ha="right", va="center", fontsize=8)
    fig.subplots_adjust(left=room / size[0], wspace=room / (t * scale), hspace=0.02)
    return fig
