"""Flickr8k (Hodosh, Young, Hockenmaier, JAIR 2013): 8,091 images with five captions each.

Original layout: `Flickr8k.token.txt` (a line: IMAGE#N, a tab, a caption) and
`Flickr_8k.{train,dev,test}Images.txt`, the images as files in a folder. The packed copy has
captions.txt (image, number, caption; tabs), splits.txt (image, part; tabs) and features of an image
encoder in flickr8k_effnetlite0.npz. Images that are in no feature file and in no folder, such as
those that a repository added to the lists, are left out and counted.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlact.datasets.real import SetMissing, place

PACKED, TEXT, IMAGES = "flickr8k_features", "flickr8k_text", "flickr8k_images"
PARTS = ("train", "dev", "test")
CAPTIONS = 5  # an image


@dataclass(frozen=True)
class Captioned:
    """Images and what people said of them.

    Attributes:
        images: N file names, sorted.
        captions: Five a name.
        part: N of "train", "dev", "test", "none".
        layout: "original" or "packed".
        features: (N, 1280) of the packed copy; None where images are files.
        folder: Of the image files; None where there are none.
        left_out: Names in the lists that have no image here.
    """

    images: list[str]
    captions: list[list[str]]
    part: list[str]
    layout: str
    features: np.ndarray | None
    folder: Path | None
    left_out: tuple[str, ...] = ()


def read(text: str | Path | None = None, images: str | Path | None = None) -> Captioned:
    """Every image that is here.

    Args:
        text: Folder of the captions and lists; the set's own place if not given.
        images: Folder of the image files, of the original layout.

    Raises:
        vlact.datasets.real.SetMissing: Captions, or images and their features, are not here.
        ValueError: A line of another layout, an image with other than five captions, or in two
            parts; names file and line.
    """
    text = Path(text) if text is not None else place(PACKED, TEXT)
    original = text / "Flickr8k.token.txt"
    if original.is_file():
        said = _captions(original, lambda cells: (*cells[0].rsplit("#", 1), cells[1]), 2)
        files = {p: text / f"Flickr_8k.{p}Images.txt" for p in PARTS}
        lines = [(f, n, x, p) for p, f in files.items() for n, x in _lines(f)]
        folder = Path(images) if images is not None else place(IMAGES)
        there, features = {p.name for p in folder.iterdir()}, None
    else:
        said = _captions(text / "captions.txt", tuple, 3)
        file = text / "splits.txt"
        lines = [(file, n, *_cells(file, n, x, 2)) for n, x in _lines(file)]
        folder, packed = None, text / "flickr8k_effnetlite0.npz"
        if not packed.is_file():
            raise SetMissing(PACKED if images is None else IMAGES, packed)
        with np.load(packed, allow_pickle=False) as content:
            names, values = content["n"].tolist(), content["X"]
        there, features = set(names), dict(zip(names, values, strict=True))
    part: dict[str, str] = {}
    for file, n, name, which in lines:
        if which not in (*PARTS, "none"):
            raise ValueError(f"{file}, line {n}: expected one of {PARTS} or none, got {which!r}")
        if part.setdefault(name, which) != which:
            raise ValueError(f"{file}, line {n}: {name!r} is in {part[name]}, too")
    kept = sorted(set(said) & there)
    return Captioned(
        kept,
        [said[name] for name in kept],
        [part.get(name, "none") for name in kept],
        "original" if original.is_file() else "packed",
        None if features is None else np.stack([features[name] for name in kept]),
        folder,
        tuple(sorted(set(said) - there)),
    )


def _lines(file: Path):
    """Numbered lines that are not empty."""
    if not file.is_file():
        raise ValueError(f"{file}: expected a list of Flickr8k, found no such file")
    lines = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
    return [(n, line.strip()) for n, line in lines if line.strip()]


def _cells(file: Path, n: int, line: str, count: int) -> list[str]:
    cells = line.split("\t")
    if len(cells) != count:
        raise ValueError(f"{file}, line {n}: expected {count} cells and tabs, got {line[:80]!r}")
    return cells


def _captions(file: Path, of, count: int) -> dict[str, list[str]]:
    """Image to its captions; `of` gives image, number and caption of a line's cells."""
    out: dict[str, dict[str, str]] = {}
    for n, line in _lines(file):
        cells = of(_cells(file, n, line, count))
        if len(cells) != 3 or not cells[1].isdigit():
            raise ValueError(
                f"{file}, line {n}: expected image, number, caption; got {line[:80]!r}"
            )
        out.setdefault(cells[0], {})[cells[1]] = cells[2].strip()
    if odd := sorted(name for name, found in out.items() if len(found) != CAPTIONS):
        raise ValueError(
            f"{file}: {len(odd)} images have other than {CAPTIONS} captions, for example "
            f"{odd[0]!r} with {len(out[odd[0]])}"
        )
    return {name: [found[k] for k in sorted(found)] for name, found in out.items()}
