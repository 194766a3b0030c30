"""The sample clips that Syn-TA's authors published, five a fine class and rendering:
`synta_samples/<coarse>/<fine>[_front]_id_<n>.mp4`, `synta_rb_samples/..`.
"""

import re
from pathlib import Path

import pandas as pd

from vlact.datasets.real import Clips, SetMissing, place, whole

NAMES = ("synta_samples", "synta_rb_samples")
FILE = re.compile(r"(?P<fine>.+?)(?P<front>_front)?_id_(?P<id>\d+)\.mp4")


def read(folder: str | Path | None = None, skip: bool = False) -> Clips:
    """Every sample.

    Args:
        folder: What holds either folder or both; the set's own place if not given.
        skip: Leave out clips that are cut or broken.

    Returns:
        Its table has `video, label` (coarse motion), `fine, group` (the id: what was drawn for the
        clip), `split` ("none"), `style` ("front" or "free" camera) and `rendering` (the folder).

    Raises:
        vlact.datasets.real.SetMissing: Neither folder is here.
        ValueError: A name of another form; clips cut or broken without `skip`.
    """
    folder = Path(folder) if folder is not None else place("synta_samples").parent
    rows = []
    for name in NAMES:
        for file in sorted((folder / name).glob("*/*.mp4")):
            found = FILE.fullmatch(file.name)
            if not found:
                raise ValueError(f"{file}: expected a name like punch_front_id_3.mp4")
            rows.append(
                {
                    "video": file.relative_to(folder).as_posix(),
                    "label": file.parent.name.replace("_", " "),
                    "fine": found["fine"].replace("_", " "),
                    "group": found["id"],
                    "split": "none",
                    "style": "front" if found["front"] else "free",
                    "rendering": name,
                }
            )
    if not rows:
        raise SetMissing("synta_samples", folder / "synta_samples")
    table, left_out = whole("synta_samples", folder, pd.DataFrame(rows), skip)
    return Clips("synta_samples", folder, table, "original", left_out)
