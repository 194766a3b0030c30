"""GTEA (Fathi et al., CVPR 2011) in the ms-tcn layout: 28 egocentric videos, 4 subjects.

`groundTruth/<video>.txt` has one label a frame (15 fps), `splits/test.split{1..4}.bundle` the
folds, `videos/` the files. Runs of one label are the segments; "background" is left out. As in ACE
the label is the verb and the word "ingredient".
"""

from itertools import groupby
from pathlib import Path

import pandas as pd

from vlact import video
from vlact.datasets.layout import require
from vlact.language.tasks import GTEA_BASE, GTEA_NOVEL
from vlact.schema import ANNOTATION

FPS = 15.0
ENDINGS = (".mp4", ".avi", ".mov", ".mkv")


def read(folder: str | Path) -> pd.DataFrame:
    """Annotation table; `group` is the subject, whom a fold leaves out; one dish of each other
    subject is for validation.

    Times are those of the labels stretched over the file: its probed duration by the number of
        labels.

    Raises:
        ValueError: A missing file, an unknown label, a fold that is not one subject, or labels
            whose rate over the file is not within a tenth of 15 a second; names file and line.
    """
    folder = Path(folder)
    known = {v for v, _ in GTEA_BASE + GTEA_NOVEL}
    rows = []
    for number in range(1, 5):
        bundle = require(
            folder / "splits" / f"test.split{number}.bundle", "GTEA", "the fold's list of videos"
        )
        names = [
            line.strip().removesuffix(".txt")
            for line in bundle.read_text().splitlines()
            if line.strip()
        ]
        subjects = sorted({n.split("_")[0] for n in names})
        if len(subjects) != 1:
            raise ValueError(
                f"{bundle}: expected the videos of one subject, found {subjects or 'none'}"
            )
        for k, name in enumerate(sorted(names)):
            truth = require(folder / "groundTruth" / f"{name}.txt", "GTEA", "one label a frame")
            labels = truth.read_text().split()
            found = next(
                (
                    folder / "videos" / f"{name}{e}"
                    for e in ENDINGS
                    if (folder / "videos" / f"{name}{e}").is_file()
                ),
                None,
            )
            if found is None:
                raise ValueError(
                    f"{folder / 'videos' / name}: GTEA expects the video there with one of "
                    f"{ENDINGS}, found none"
                )
            duration_s = video.probe(found).duration_s
            if not 0.9 * FPS < len(labels) / duration_s < 1.1 * FPS:
                raise ValueError(
                    f"{truth}: expected about {FPS:g} labels a second; found {len(labels)} for "
                    f"{duration_s:.1f} s of {found.name}"
                )
            step, at = duration_s / len(labels), 0
            for verb, run in groupby(labels):
                n = len(list(run))
                if verb != "background":
                    if verb not in known:
                        raise ValueError(
                            f"{truth}, line {at + 1}: unknown label {verb!r}; expected one of "
                            f"{sorted(known)} or background"
                        )
                    split = "val" if k == len(names) - 1 else "train"
                    rows.append(
                        (
                            f"videos/{found.name}",
                            at * step,
                            (at + n) * step,
                            f"{verb} ingredient",
                            split,
                            subjects[0],
                            "ego",
                        )
                    )
                at += n
    return pd.DataFrame(rows, columns=[*ANNOTATION, "view"])
