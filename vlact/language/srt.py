"""SRT v1: the label sets, splits and protocol of the Synonym Robustness Test, as data.

A result that names the hash was made with exactly these names. The file is never edited; other
names are another version.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("srt_v1.yaml")
SHA256 = {  # of each dataset's entry, see `digest`
    "ata": "2de1e5a5297ad69ca7cf864f1232b9bfc7cc6ba78a6ef012a43bfb2c3e8be5e7",
    "ikea": "61861ab55ceb6c4daf7fd01cb2701934f9f7434c5566700785275a065c9d5b56",
    "gtea": "1f3903d0a8624d8a145c0c7083a8697d2d2fd756987e836a2f705034f4ab8a82",
}


@dataclass(frozen=True)
class SynonymSets:
    """What the test asks of one dataset.

    Attributes:
        name: "SRT v1 ata", and so on.
        base: Classes that may be trained on.
        novel: Classes that are asked for; none of their clips is trained on.
        runs: In each run a list of strings a novel class: its one name. Run 0 holds the labels.
        sha256: Names all of it.
    """

    name: str
    base: list[str]
    novel: list[str]
    runs: list[list[list[str]]]
    sha256: str


def digest(content) -> str:
    """sha256 of something json-able, whatever its layout in a file."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def load(dataset: str) -> SynonymSets:
    """The label sets of "ata", "ikea" or "gtea".

    Raises:
        ValueError: Another dataset, or a file that is not as it was published.
    """
    if dataset not in SHA256:
        raise ValueError(f"dataset {dataset!r}: expected one of {sorted(SHA256)}")
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    sets = content["datasets"][dataset]
    if (found := digest(sets)) != SHA256[dataset]:
        raise ValueError(
            f"{FILE}: {dataset} has sha256 {found}; expected {SHA256[dataset]}, which "
            f"{content['version']} has; install the package again"
        )
    runs = [[[name] for name in run] for run in sets["runs"]]
    return SynonymSets(f"{content['version']} {dataset}", sets["base"], sets["novel"], runs, found)
