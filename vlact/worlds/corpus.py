"""Recordings on disk: many actions in one mp4 file, and the annotation table that says which is where.

`tutorials` is the pretraining corpus (all verb programs, narrated); `ata` is the toy-assembly
dataset in miniature, split by participant as the real one (train, one validation group, test).
"""

import csv
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from vlact import video
from vlact.language.tasks import ATA_BASE, ATA_NOVEL
from vlact.worlds.render import render
from vlact.worlds.workbench import ATA_VIEWS, OBJECTLESS, OBJECTS, VERBS, act, person, place

CAPTIONS = yaml.safe_load((Path(__file__).parent.parent / "language" / "captions.yaml").read_text())
NAMED_OBJECTS = tuple(o for o in OBJECTS if o not in ("object", "toy"))


@dataclass(frozen=True)
class Recording:
    """What to film: one person in one place performing actions one after the other."""

    name: str
    domain: str
    seed: tuple[int, ...]
    person_seed: tuple[int, ...]
    view: str
    split: str
    group: str
    actions: tuple[tuple[str, str], ...]  # (verb, object)


def film(recording: Recording, folder: Path, size: int, fps: float, mean_s: float) -> list[dict]:
    """Render a recording to `folder/<name>.mp4` and return its annotation rows.

    Args:
        recording: What to film.
        folder: Where the file goes.
        size: Height and width in pixels.
        fps: Frames per second of the file.
        mean_s: Average length of an action in seconds; a person's pace and chance vary it.
    """
    who = person(recording.domain, np.random.default_rng(recording.person_seed))
    rng = np.random.default_rng(recording.seed)
    where = place(recording.domain, rng, recording.view)
    scenes, times, rows, start = [], [], [], 0
    for verb, obj in recording.actions:
        frames = max(8, round(mean_s * who.pace * rng.uniform(0.85, 1.15) * fps))
        scenes.append(act(verb, obj, who, where, rng, frames / fps))
        times.append(np.arange(frames) / fps)
        words = CAPTIONS[verb]
        chance = 1 / np.arange(1, len(words) + 1) ** 0.7
        word = words[rng.choice(len(words), p=chance / chance.sum())]
        rows.append(
            {
                "video": f"{recording.name}.mp4",
                "start_s": start / fps,
                "end_s": (start + frames) / fps,
                "label": f"{verb} {obj}".strip(),
                "split": recording.split,
                "group": recording.group,
                "verb": verb,
                "object": obj,
                "view": recording.view,
            }
            | ({"caption": f"{word} {obj}".strip()} if recording.domain == "tutorial" else {})
        )
        start += frames
    shots = [f for i in range(0, len(scenes), 4) for f in render(scenes[i : i + 4], times[i : i + 4], (size, size))]
    video.write(folder / f"{recording.name}.mp4", np.concatenate(shots), fps)
    return rows


def film_job(recording: Recording, folder: str, notes: str, size: int, fps: float, mean_s: float) -> list[dict]:
    """`film` that leaves its rows in the folder `notes`, so that a killed stage films no video twice."""
    note = Path(notes) / f"{recording.name}.json"
    if note.is_file():
        return json.loads(note.read_text())
    rows = film(recording, Path(folder), size, fps, mean_s)
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = note.with_suffix(".tmp")
    temporary.write_text(json.dumps(rows))
    os.replace(temporary, note)
    return rows


def tutorials(videos: int, steps: int, seed: int, val_share: float = 0.1) -> list[Recording]:
    """The pretraining corpus: each video one person and place with `steps` narrated actions.

    Every verb program occurs equally often (to within one); objects are uniform, and none is named where
    the program brings its own things. The last videos
    are the validation split.
    """
    rng = np.random.default_rng((seed, 1))
    total = videos * steps
    verbs = np.concatenate([rng.permutation(len(VERBS)) for _ in range(total // len(VERBS) + 1)])[:total]
    objects = rng.integers(len(NAMED_OBJECTS), size=total)
    first_val = videos - max(1, round(videos * val_share))
    out = []
    for v in range(videos):
        at = range(v * steps, (v + 1) * steps)
        actions = tuple((VERBS[verbs[i]], "" if VERBS[verbs[i]] in OBJECTLESS else NAMED_OBJECTS[objects[i]]) for i in at)
        split = "val" if v >= first_val else "train"
        out.append(Recording(f"tutorial{v:04d}", "tutorial", (seed, 2, v), (seed, 3, v), "front", split, f"narrator{v}", actions))
    return out


def ata(people: dict[str, int], repeats: dict[str, int], steps: int, seed: int) -> list[Recording]:
    """Toy assembly in miniature: 10 base and 5 novel actions, four cameras, splits by participant.

    Args:
        people: Participants per split, keys train, val and test.
        repeats: How often each participant performs each action: keys train and val (base actions
            only: nothing of a novel action is rendered for them), base and novel (test).
        steps: Actions per recording.
        seed: World seed.
    """
    out, number = [], 0
    for split, count in people.items():
        for _ in range(count):
            rng = np.random.default_rng((seed, 4, number))
            if split == "test":
                todo = list(ATA_BASE) * repeats["base"] + list(ATA_NOVEL) * repeats["novel"]
            else:
                todo = list(ATA_BASE) * repeats[split]
            todo = [todo[i] for i in rng.permutation(len(todo))]
            for r, at in enumerate(range(0, len(todo), steps)):
                view = tuple(ATA_VIEWS)[(r + number) % len(ATA_VIEWS)]
                name, actions = f"p{number:02d}_r{r}_{view}", tuple(todo[at : at + steps])
                out.append(Recording(name, "assembly", (seed, 5, number, r), (seed, 6, number), view, split, f"p{number:02d}", actions))
            number += 1
    return out


def write_table(path: Path, rows: list[dict]) -> None:
    """Write annotation rows as csv, all or nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text.getvalue())
    os.replace(temporary, path)
