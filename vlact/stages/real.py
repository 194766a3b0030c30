"""What stages of real data share: which sets are here, in what state, and features of their films.

A stage whose set is not here is not run: it says which command brings the set, and the run goes on.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vlact import ROOT
from vlact.datasets import real
from vlact.models.imagenet import LITE0, LITE0_SHA256, ImageEncoder
from vlact.params import Params
from vlact.report.tables import write_text
from vlact.runtime import jobs
from vlact.stages import Stage
from vlact.training.features import extract_all

CACHE = ROOT / "data" / "tmp" / "features"  # of films, for every profile and workspace


def state(name: str) -> str:
    """What a set holds, as a hash of names and sizes; "" where it is not here."""
    at = real.root() / name
    files = [at] if at.is_file() else sorted(f for f in at.rglob("*") if f.is_file())
    if not files:
        return ""
    lines = "\n".join(f"{f.relative_to(real.root()).as_posix()} {f.stat().st_size}" for f in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class OfSets(Stage):
    """A stage that reads sets, beside what `Stage` says.

    Attributes:
        sets: Names below the sets' folder, those of packed copies among them; another state of one
            is another output.
    """

    sets: tuple[str, ...] = ()

    def key(self, p: Params) -> str:
        return jobs.key(super().key(p), {name: state(name) for name in self.sets})


def real_sets(p: Params) -> Path:
    """Note which sets are here: data/<workspace>/sets.json, which DVC compares between runs."""
    names = sorted(f.name for f in real.root().iterdir()) if real.root().is_dir() else []
    found = {name: state(name) for name in sorted({*names, *real.sources()})}
    note = p.data / "sets.json"
    write_text(note, json.dumps(found, indent=1) + "\n")
    return note


def features(p: Params, clips: real.Clips, fps: float | None = None) -> dict[str, torch.Tensor]:
    """Pooled features of every film's frames by EfficientNet-Lite0: video to (T, 1280).

    Made once a set, encoder and rate, and kept in data/tmp/features.

    Args:
        p: Profile.
        clips: A reader's result.
        fps: Features a second; the profile's if not given.

    Raises:
        FileNotFoundError: The encoder's weights are not here; says what brings them.
        vlact.video.VideoError: A film cannot be read.
    """
    rate, names = fps or p.real.fps, sorted(clips.table["video"].unique())
    sizes = [(name, (clips.folder / name).stat().st_size) for name in names]
    name = f"{clips.name}-{jobs.key(sizes, rate, LITE0_SHA256)}"
    out, work = CACHE / f"{name}.safetensors", CACHE / f"{name}.parts"
    folder, encoder = clips.folder, str(LITE0)
    return extract_all(ImageEncoder, encoder, folder, names, rate, out, work, p.workers)


def spread(frames: torch.Tensor, count: int) -> torch.Tensor:
    """`count` rows of (T, dim), evenly spaced over all of them; rows repeat where T is smaller."""
    rows = torch.linspace(0, len(frames) - 1, count).round().long()
    return frames[rows]


def lacking(sets: Sequence[str]) -> str:
    """One line for each of several sets that is not here; "" where all are."""
    gone = [name for name in sets if not state(name)]
    return "\n".join(str(real.SetMissing(name, real.root() / name)) for name in gone)
