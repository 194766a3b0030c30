"""FIR Image Action Dataset (Zhang, 2020), its 21 recordings with video: a room from above, nine
actions.

Original layout: `video/<name>.mp4` (25 frames a second) and `labels/labels.csv`. Packed:
`video_8fps/<name>.mp4` (every third frame on the same clock) and `labels.csv`. A line of the labels
is a recording's name and start, end, action over and over, in frames of the thermal sensor.
"""

import csv
import io
from pathlib import Path

import pandas as pd

from vlact import video
from vlact.datasets.real import broken, place
from vlact.datasets.real.incomplete import left_out
from vlact.datasets.real.recordings import Recordings, within
from vlact.schema import text

SET = "fir_image_action"
THERMAL_HZ = 7.793  # measured: its time stamps
ACTIONS = (
    *("walk", "standup", "sitdown", "sit", "falling"),
    *("falled", "lying", "sleeping", "active"),
)
VIDEOS = tuple(
    f"{stamp}_mlx90640_{rest}"
    for stamp, rest in (
        *((f"20200626_{t}", "01_light_none") for t in (154313, 154556, 155946, 160522, 161431)),
        ("20200626_175151", "01_light_none"),
        *((f"20200627_{t}", "01_light_none") for t in (185209, 190147, 192440, 212458)),
        *((f"20200628_{t}", "01_light_none") for t in (144536, 145326)),
        ("20200628_183032", "01_light_natural"),
        ("20200628_222843", "02_light_none"),
        *((f"20200629_{t}", "02_light_none") for t in (115049, 115413, 140431, 140714, 141043)),
        *((f"20200629_{t}", "02_light_none") for t in (162656, 174209)),
    )
)
LAYOUTS = {
    "packed": ("video_8fps", "labels.csv"),
    "original": ("video", "labels/labels.csv"),
}
SLACK_S = 0.2  # by which clocks of video and thermal sensor may disagree at the end


def _intervals(path: Path) -> list[tuple[str, float, float, str]]:
    rows = []
    for i, cells in enumerate(csv.reader(io.StringIO(text(path))), 1):
        while cells and not cells[-1].strip():
            cells.pop()
        if not cells:
            continue
        name, rest = cells[0].strip().removesuffix(".csv"), cells[1:]
        if name not in VIDEOS:
            continue
        if len(rest) % 3:
            raise ValueError(
                f"{path}, line {i} ({name}): expected start, end, action over and over; got "
                f"{len(rest)} cells, the last {rest[-1]!r}"
            )
        for a, b, label in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            label = label.strip()
            if label not in ACTIONS:
                raise ValueError(
                    f"{path}, line {i} ({name}): unknown action {label!r}; expected {ACTIONS}"
                )
            try:
                rows.append((name, float(a) / THERMAL_HZ, float(b) / THERMAL_HZ, label))
            except ValueError:
                raise ValueError(
                    f"{path}, line {i} ({name}): expected frame numbers, got {a!r} and {b!r}"
                ) from None
    return rows


def read(folder: str | Path | None = None, skip: bool = False) -> Recordings:
    """All 21 recordings; `groups` are "<day> <room>".

    Args:
        folder: See the module; the set's own place if not given.
        skip: Go on without recordings that are missing or cut, which are named and counted.

    Raises:
        vlact.datasets.real.SetMissing: The set is not here.
        ValueError: Neither layout, a line that is no label, or recordings that are missing or cut.
    """
    folder = Path(folder) if folder is not None else place(SET)
    layout = next((k for k, (v, _) in LAYOUTS.items() if (folder / v).is_dir()), None)
    if layout is None:
        tried = [str(folder / v) for v, _ in LAYOUTS.values()]
        raise ValueError(f"{folder}: FIR expects its videos in one of {tried}, found none")
    home, labels = (folder / x for x in LAYOUTS[layout])
    if not labels.is_file():
        raise ValueError(f"{labels}: FIR expects its labels there, found nothing")
    rows = _intervals(labels)
    labelled, durations, files, problems = {r[0] for r in rows}, {}, {}, []
    for name in VIDEOS:
        path = home / f"{name}.mp4"
        if name not in labelled:
            problems.append(f"{name}: no labels")
        elif why := broken(path):
            problems.append(why)
        else:
            durations[name], files[name] = video.probe(path).duration_s, path
    left_out(problems, folder, f"FIR has {len(VIDEOS)} recordings with video", skip)
    truth = pd.DataFrame(
        [r for r in rows if r[0] in durations], columns=["video", "start_s", "end_s", "label"]
    )
    truth, notes = within(truth, durations, SLACK_S)
    groups = {v: f"{v[:8]} {v.split('_')[3]}" for v in durations}
    return Recordings(truth, durations, files, layout, tuple(notes), groups)
