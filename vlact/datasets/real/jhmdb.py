"""JHMDB (Jhuang et al., ICCV 2013): 928 clips of 15 to 40 frames, 21 classes, 3 official splits.

Original layout: a folder a class with NAME.avi in it, alone, in `data` or in `ReCompress_Videos`;
the splits as `splits/CLASS_test_split1.txt` or zipped as `splits.zip` (a line: NAME.avi, and 1 for
train or 2 for test). The packed copy has NAME.mp4 and splits.zip in one folder. A name ends in what
HMDB51 says of a clip: `.._CLASS_f_nm_np1_fr_goo_2`, visible body parts, camera motion, people,
view, quality, number. Names hold `#`, `!`, `@`, `%`, `&` and brackets.
"""

import re
import zipfile
from pathlib import Path

import pandas as pd

from vlact.datasets.real import Clips, command, place, whole

NAME = "jhmdb_clips"
SPLITS = (1, 2, 3)
PARTS = {"0": "none", "1": "train", "2": "test"}
CONDITIONS = re.compile(
    r"(?P<source>.+)_(?P<visible>[fhlu])_(?P<camera>cm|nm)_np(?P<people>\d)"
    r"_(?P<view>ba|fr|le|ri)_(?P<quality>bad|med|goo)_(?P<number>\d+)"
)
WORDS = {
    "visible": {"f": "full", "h": "head", "l": "lower", "u": "upper"},
    "camera": {"cm": "moving", "nm": "still"},
    "view": {"ba": "back", "fr": "front", "le": "left", "ri": "right"},
    "quality": {"bad": "bad", "med": "medium", "goo": "good"},
}


def read(folder: str | Path | None = None, skip: bool = False) -> Clips:
    """Every clip that the split files name.

    Args:
        folder: The classes' folders, or one above them; the set's own place if not given.
        skip: Leave out clips that are missing, cut or broken.

    Returns:
        Its table has `video, label, group` (the source film), `split1, split2, split3` and
        `visible, camera, people, view, quality`.

    Raises:
        vlact.datasets.real.SetMissing: The set is not here.
        ValueError: No split files, a line of another layout, a clip in a split of another class, a
            name that says nothing of its conditions; or clips missing, cut or broken without
            `skip`.
    """
    folder = Path(folder) if folder is not None else place(NAME)
    for inner in ("data", "ReCompress_Videos"):
        folder = folder / inner if (folder / inner).is_dir() else folder
    parts = _splits(folder)
    rows = {}
    for (label, number), lines in sorted(parts.items()):
        for name, part in lines.items():
            row = rows.setdefault((label, name), {f"split{n}": "none" for n in SPLITS})
            row[f"split{number}"] = part
    found, packed = [], False
    for (label, name), row in rows.items():
        film = f"{label}/{name}.avi"
        if not (folder / film).is_file() and (folder / label / f"{name}.mp4").is_file():
            film, packed = f"{label}/{name}.mp4", True
        found.append({"video": film, "label": label.replace("_", " "), **_conditions(name), **row})
    table, left_out = whole("jhmdb", folder, pd.DataFrame(found), skip)
    return Clips("jhmdb", folder, table, "packed" if packed else "original", left_out)


def _conditions(name: str) -> dict:
    """Source film and conditions of a clip's name."""
    found = CONDITIONS.fullmatch(name)
    if not found:
        raise ValueError(
            f"jhmdb: {name!r}: expected a name that ends in body parts, camera, people, view, "
            "quality and number, such as .._golf_f_nm_np1_fr_goo_2"
        )
    told = {k: words[found[k]] for k, words in WORDS.items()}
    return {"group": found["source"], "people": int(found["people"])} | told


def _splits(folder: Path) -> dict[tuple[str, int], dict[str, str]]:
    """(class, number of the split) to clip and part, of a folder or a zip."""
    places = [folder / "splits", folder.parent / "splits"]
    texts = {p.name: p for at in places if at.is_dir() for p in sorted(at.glob("*_split[123].txt"))}
    texts = {name: p.read_text(encoding="utf-8") for name, p in texts.items()}
    zips = [folder / "splits.zip", *(folder.parent / f for f in ("splits.zip", "jhmdb_splits.zip"))]
    for file in zips if not texts else ():
        if not texts and file.is_file():
            with zipfile.ZipFile(file) as content:
                names = [n for n in content.namelist() if re.search(r"_split[123]\.txt$", n)]
                texts = {Path(n).name: content.read(n).decode() for n in sorted(names)}
    if not texts:
        raise ValueError(
            f"{folder}: expected JHMDB's splits as splits/CLASS_test_split1.txt or splits.zip in "
            f"it or beside it, found none; `{command('jhmdb_splits.zip')}` brings them"
        )
    out = {}
    for name, text in texts.items():
        label, number = re.fullmatch(r"(.+)_test_split(\d)\.txt", name).groups()
        lines = out[label, int(number)] = {}
        for n, line in enumerate(text.splitlines(), 1):
            cells = line.rsplit(" ", 1)
            if not line.strip():
                continue
            if len(cells) != 2 or not cells[0].endswith(".avi") or cells[1].strip() not in PARTS:
                raise ValueError(f"{name}, line {n}: expected `NAME.avi 0|1|2`, got {line!r}")
            lines[cells[0].removesuffix(".avi")] = PARTS[cells[1].strip()]
    return out
