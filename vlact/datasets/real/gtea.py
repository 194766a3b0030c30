"""GTEA (Fathi et al., CVPR 2011), the seven recordings of subject S2, untrimmed, ten verbs.

Truth is read from `groundTruth/<video>.txt` of the ms-tcn layout (a label a frame, 15 a second)
where it is beside the videos, else from what the authors of TCN published with their scores (three
labels a second, from second 0), see `vlact.datasets.real.tcn`.
"""

from itertools import groupby
from pathlib import Path

import pandas as pd

from vlact import video
from vlact.datasets.real import broken, place, tcn
from vlact.datasets.real.incomplete import left_out
from vlact.datasets.real.recordings import Recordings, within

SET = "gtea_s2"
VIDEOS = tuple(
    f"S2_{dish}_C1"
    for dish in ("Cheese", "CofHoney", "Coffee", "Hotdog", "Pealate", "Peanut", "Tea")
)
VERBS = tcn.GTEA_VERBS[1:]
TEXT_HZ, CELL_HZ = 15.0, 3.0  # labels a second
SPLIT = 2  # whose test videos are these seven
SYSTEM = "ED-TCN"  # whose file the truth is taken from; others carry the same at other rates
SLACK_S = 0.5  # by which the last label may end after the file


def _runs(name: str, labels: list[str], rate: float) -> list[tuple[str, float, float, str]]:
    """Runs of one label as intervals, background left out."""
    rows, at = [], 0
    for label, run in groupby(labels):
        n = len(list(run))
        if label != "background":
            rows.append((name, at / rate, (at + n) / rate, label))
        at += n
    return rows


def read(
    folder: str | Path | None = None, scores: str | Path | None = None, skip: bool = False
) -> Recordings:
    """All seven recordings.

    Args:
        folder: Of the videos (`S2_Tea_C1.mp4`), with or without `groundTruth`; the set's own place
            if not given.
        scores: Folder of TCN's scores, where there is no `groundTruth`; likewise.
        skip: Go on without recordings that are missing or cut, which are named and counted.

    Raises:
        vlact.datasets.real.SetMissing: The set, or TCN's scores, are not here.
        ValueError: An unknown label, or recordings that are missing or cut.
    """
    folder = Path(folder) if folder is not None else place(SET)
    texts = folder / "groundTruth"
    if texts.is_dir():
        layout, rate = "original (ms-tcn's text)", TEXT_HZ
        found = {v: texts / f"{v}.txt" for v in VIDEOS}
        labels = {v: f.read_text(encoding="utf-8").split() for v, f in found.items() if f.is_file()}
    else:
        layout, rate = "packed (TCN's cells)", CELL_HZ
        scores = Path(scores) if scores is not None else place(tcn.SET)
        cells = tcn.read(scores, "GTEA", SYSTEM, SPLIT)
        labels = {c.video: [tcn.GTEA_VERBS[k] for k in c.truth] for c in cells}
    rows, durations, files, problems = [], {}, {}, []
    for name in VIDEOS:
        if name not in labels:
            problems.append(f"{name}: no labels")
            continue
        if unknown := sorted(set(labels[name]) - {*tcn.GTEA_VERBS}):
            raise ValueError(
                f"{texts if texts.is_dir() else scores}: {name} has the unknown labels {unknown}; "
                f"expected {list(tcn.GTEA_VERBS)}"
            )
        path = next((p for e in video.ENDINGS if (p := folder / f"{name}{e}").is_file()), None)
        if path is None:
            problems.append(f"{name}: no video")
            continue
        if why := broken(path):
            problems.append(why)
            continue
        seconds = video.probe(path).duration_s
        if len(labels[name]) / rate > seconds + SLACK_S:
            last = len(labels[name]) / rate
            problems.append(f"{path}: {seconds:.1f} s, its labels end at {last:.1f} s")
            continue
        durations[name], files[name] = seconds, path
        rows += _runs(name, labels[name], rate)
    left_out(problems, folder, f"GTEA has {len(VIDEOS)} recordings of S2", skip)
    truth = pd.DataFrame(rows, columns=["video", "start_s", "end_s", "label"])
    truth, notes = within(truth, durations, SLACK_S)
    return Recordings(truth, durations, files, layout, tuple(notes), {v: v for v in durations})
