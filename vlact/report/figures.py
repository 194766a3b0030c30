"""Figures with one look, written as png, svg and the csv of what is plotted, byte for byte reproducible."""

import os
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

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
        "axes.prop_cycle": matplotlib.cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555"]),
    }
)


def save(fig, folder: Path, stem: str, data: pd.DataFrame | None = None, vector: bool = True, caption: str = "") -> list[str]:
    """Write `stem`.png, .svg (unless `vector` is False), .csv of the data and .md of the caption; returns the file names."""
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

        write_text(folder / f"{stem}.csv", data.to_csv(index=False, lineterminator="\n", float_format="%.4f"))
        names.append(f"{stem}.csv")
    if caption:
        from vlact.report.tables import write_text

        write_text(folder / f"{stem}.md", caption + "\n")
        names.append(f"{stem}.md")
    return names


def contact_sheet(rows: list[np.ndarray], names: list[str], columns: int = 2, scale: float = 0.55, room: float = 1.3):
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
    fig, axes = plt.subplots(lines, columns, figsize=size, dpi=60, squeeze=False)  # small in a notebook, whole in the file
    for axis in axes.flat:
        axis.axis("off")
    for i, (strip, name) in enumerate(zip(rows, names, strict=True)):
        axis = axes[i % lines, i // lines]
        axis.imshow(np.concatenate(list(strip), axis=1), aspect="equal")
        axis.text(-6, strip.shape[1] / 2, name, ha="right", va="center", fontsize=8)
    fig.subplots_adjust(left=room / size[0], wspace=room / (t * scale), hspace=0.02)
    return fig
