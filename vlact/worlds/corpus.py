"""Recordings on disk: many actions in one mp4 file, and the annotation table that says which is
where.

`tutorials` is the pretraining corpus (all verb programs, narrated), filmed from in front or by a
camera on the head. `ata`, `ikea` and `gtea` are ACE's datasets in miniature: ATA split by
participant, the other two in folds (`group` is the environment or the subject that a fold leaves
out; `split` says what a recording is for when its group stays in).

How often each class occurs is a power law over the order of the label lists, for which class is how
frequent is not published; its exponents give the published F1 of random guessing over the novel
classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from vlact import video
from vlact.language.tasks import ATA_BASE, ATA_NOVEL, GTEA_BASE, GTEA_NOVEL, IKEA_BASE, IKEA_NOVEL
from vlact.runtime.jobs import kept
from vlact.worlds.render import render
from vlact.worlds.things import ANYTHING, FREE, TUTORIAL_OBJECTS, Look
from vlact.worlds.workbench import ATA_VIEWS, IKEA_VIEWS, OBJECTLESS, VERBS, act, person, place

CAPTIONS = yaml.safe_load(
    (Path(__file__).parent.parent / "language" / "captions.yaml").read_text(encoding="utf-8")
)
# novel classes; base classes half of it, theirs is not published
EXPONENT = {"ata": 0.94, "ikea": 1.53, "gtea": 1.14}
PROGRAM = {"put": "put down"}  # dataset verbs whose motion program has another name
SHOWN = {  # what a label's object looks like; other objects are things of that name
    "leg screw with table thread": "leg",
    "side panel holes with front panel dowels": "side panel",
    "drawer back panel": "back panel",
    "drawer side panel": "side panel",
    "shelf to table": "shelf",
    "drawer pin": "pin",
    "drawer right side up": "drawer",
}
INGREDIENTS = ("cup", "bottle", "can", "plate", "box", "ball", "cone")


@dataclass(frozen=True)
class Recording:
    """What to film: one person in one place performing actions one after the other."""

    name: str
    domain: str
    seed: tuple[int, ...]
    person_seed: tuple[int, ...]
    room_seed: tuple[int, ...] | None  # None: a room of its own
    view: str
    split: str
    group: str
    actions: tuple[tuple[str, str], ...]  # (verb, object)


def film(
    recording: Recording, folder: Path, size: int, fps: float, mean_s: float, look: Look = FREE
) -> list[dict]:
    """Render a recording to `folder/<name>.mp4` and return its annotation rows.

    Args:
        recording: What to film.
        folder: Where the file goes.
        size: Height and width in pixels.
        fps: Frames per second of the file.
        mean_s: Average length of an action in seconds; a person's pace and chance vary it.
        look: Of the things.
    """
    who = person(recording.domain, np.random.default_rng(recording.person_seed))
    rng = np.random.default_rng(recording.seed)
    room = None if recording.room_seed is None else np.random.default_rng(recording.room_seed)
    where = place(recording.domain, rng, recording.view, room, look)
    scenes, times, rows, start = [], [], [], 0
    for verb, obj in recording.actions:
        frames = max(8, round(mean_s * who.pace * rng.uniform(0.85, 1.15) * fps))
        program = PROGRAM.get(verb, verb)
        shown = (
            INGREDIENTS[rng.integers(len(INGREDIENTS))]
            if obj == "ingredient"
            else SHOWN.get(obj, obj)
        )
        scenes.append(act(program, shown, who, where, rng, frames / fps))
        times.append(np.arange(frames) / fps)
        words = CAPTIONS[program]
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
    drawn = np.concatenate(render(scenes, times, (size, size)))
    video.write(folder / f"{recording.name}.mp4", drawn, fps)
    return rows


def film_job(
    recording: Recording,
    folder: str,
    notes: str,
    size: int,
    fps: float,
    mean_s: float,
    look: Look = FREE,
) -> list[dict]:
    """`film` that leaves its rows in the folder `notes`, so that a killed stage films no video
    twice.
    """
    return kept(
        Path(notes) / f"{recording.name}.json",
        film,
        recording,
        Path(folder),
        size,
        fps,
        mean_s,
        look,
    )


def tutorials(
    videos: int, steps: int, seed: int, view: str = "any", val_share: float = 0.1
) -> list[Recording]:
    """The pretraining corpus: each video one person and place with `steps` narrated actions.

    Every verb program occurs equally often (to within one); objects are uniform, and none is named
    where the program brings its own things. The last videos are the validation split.
    """
    rng = np.random.default_rng((seed, 1, view == "ego"))
    total, named = videos * steps, TUTORIAL_OBJECTS + ANYTHING
    verbs = np.concatenate([rng.permutation(len(VERBS)) for _ in range(total // len(VERBS) + 1)])[
        :total
    ]
    objects = rng.integers(len(named), size=total)
    first_val = videos - max(1, round(videos * val_share))
    out = []
    for v in range(videos):
        at = range(v * steps, (v + 1) * steps)
        actions = tuple(
            (VERBS[verbs[i]], "" if VERBS[verbs[i]] in OBJECTLESS else named[objects[i]])
            for i in at
        )
        split, kind = "val" if v >= first_val else "train", int(view == "ego")
        name = f"{'vlog' if kind else 'tutorial'}{v:04d}"
        out.append(
            Recording(
                name,
                "tutorial",
                (seed, 2, kind, v),
                (seed, 3, kind, v),
                None,
                view,
                split,
                f"narrator{v}",
                actions,
            )
        )
    return out


def long_tailed(actions: tuple, count: int, exponent: float) -> list[tuple[str, str]]:
    """`count` or a few more performances: rank r occurs in proportion to r^-exponent, each at least
    once.
    """
    share = np.arange(1, len(actions) + 1) ** -exponent
    times = np.maximum(1, np.round(count * share / share.sum())).astype(int)
    return [a for a, n in zip(actions, times, strict=True) for _ in range(n)]


def _performances(
    base: tuple, novel: tuple, clips: dict[str, int], exponent: float
) -> list[tuple[str, str]]:
    return long_tailed(base, clips["base"], exponent / 2) + (
        long_tailed(novel, clips["novel"], exponent) if novel else []
    )


def _sessions(
    name: str,
    number: int,
    todo: list,
    steps: int,
    views: tuple,
    seed: int,
    split,
    group: str,
    domain: str,
    room,
) -> list:
    """Recordings of one person: the actions in random order, `steps` a recording, the views in
    turn.

    `split` is a name, or a callable from the recording's number to one.
    """
    order = np.random.default_rng((seed, 4, number)).permutation(len(todo))
    out = []
    for r, at in enumerate(range(0, len(todo), steps)):
        view, actions = (
            views[(r + number) % len(views)],
            tuple(todo[i] for i in order[at : at + steps]),
        )
        part = split(r) if callable(split) else split
        full = f"{name}_r{r}_{view}"
        out.append(
            Recording(
                full,
                domain,
                (seed, 5, number, r),
                (seed, 6, number),
                room,
                view,
                part,
                group,
                actions,
            )
        )
    return out


def ata(people: dict[str, int], clips: dict[str, int], steps: int, seed: int) -> list[Recording]:
    """Toy assembly in miniature: 10 base and 5 novel actions, four cameras, splits by participant.

    Args:
        people: Participants per split, keys train, val and test.
        clips: Performances per participant: `base`, and `novel` (test only: no novel action is
            rendered for the others).
        steps: Actions per recording.
        seed: World seed.
    """
    out, number = [], 0
    for split, count in people.items():
        for _ in range(count):
            todo = _performances(
                ATA_BASE, ATA_NOVEL if split == "test" else (), clips, EXPONENT["ata"]
            )
            name = f"p{number:02d}"
            out += _sessions(
                name, number, todo, steps, ATA_VIEWS, seed, split, name, "assembly", None
            )
            number += 1
    return out


def _every(n: int) -> Callable[[int], str]:
    return lambda r: "val" if r % n == n - 1 else "train"


def ikea(people: int, clips: dict[str, int], steps: int, seed: int) -> list[Recording]:
    """Furniture assembly in miniature: 21 base and 10 novel actions, five environments, three
    cameras.

    Args:
        people: Participants per environment.
        clips: Performances per participant, `base` and `novel`, long-tailed.
        steps: Actions per recording; every fifth recording is for validation.
        seed: World seed.
    """
    out = []
    for number in range(5 * people):
        env = number // people
        todo = _performances(IKEA_BASE, IKEA_NOVEL, clips, EXPONENT["ikea"])
        name = f"env{env + 1}_p{number:02d}"
        out += _sessions(
            name,
            100 + number,
            todo,
            steps,
            IKEA_VIEWS,
            seed,
            _every(5),
            f"env{env + 1}",
            "furniture",
            (seed, 7, env),
        )
    return out


def gtea(clips: dict[str, int], steps: int, seed: int) -> list[Recording]:
    """Cooking in miniature: 6 base and 4 novel verbs, four subjects, a camera on the head;
    arguments as in `ikea`.
    """
    out = []
    for number in range(4):
        todo = _performances(GTEA_BASE, GTEA_NOVEL, clips, EXPONENT["gtea"])
        out += _sessions(
            f"S{number + 1}",
            200 + number,
            todo,
            steps,
            ("ego",),
            seed,
            _every(5),
            f"S{number + 1}",
            "kitchen",
            None,
        )
    return out
