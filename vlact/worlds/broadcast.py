"""Untrimmed recordings of the stadium on disk: real mp4 files with ground truth, broken-off and
reversed distractors.

As in THUMOS14, a recording shows one sport, several instances of it, and much else; every instance
of CliffDiving is annotated as Diving, too. Sessions are longer and annotated as in ActivityNet: a
whole stretch of one performance after another is one instance. Drills show no sport at all, see
`vlact.worlds.stadium.drill`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlact import video
from vlact.language.descriptions import moments
from vlact.runtime.jobs import kept
from vlact.worlds.render import render
from vlact.worlds.stadium import ACTIONS, PROPS, Action, Take, drill, look, shoot

ALSO = {"CliffDiving": "Diving"}
SESSIONS = (  # classes that ActivityNet-1.3 has, too
    "CleanAndJerk", "CricketBowling", "HammerThrow", "HighJump", "JavelinThrow", "LongJump",
    "PoleVault", "Shotput", "ThrowDiscus",
    "VolleyballSpiking",
)  # fmt: skip
EVENTS = ("action", "broken", "reversed", "wait", "walk")
CHANCES = {
    "own": (0.44, 0.24, 0.0, 0.16, 0.16),
    "shared": (0.44, 0.24, 0.0, 0.16, 0.16),
    "reversed": (0.36, 0.16, 0.2, 0.14, 0.14),
}


@dataclass(frozen=True)
class Broadcast:
    """One recording to film; without a label it is of drills."""

    name: str
    label: str
    seed: tuple[int, ...]
    split: str
    seconds: float
    session: bool = False

    def plan(self) -> tuple[Take, Action]:
        """What happens in it, see `plan`."""
        return plan(self)


def thumos(counts: dict[str, int], seconds: float, seed: int) -> list[Broadcast]:
    """Recordings a class and split, such as `{"train": 4, "test": 6}`, each of about `seconds`."""
    return [
        Broadcast(
            f"video_{split}_{k * counts[split] + i:07d}", label, (seed, 40, s, k, i), split, seconds
        )
        for s, split in enumerate(counts)
        for k, label in enumerate(ACTIONS)
        for i in range(counts[split])
    ]


def sessions(counts: dict[str, int], seconds: float, seed: int) -> list[Broadcast]:
    """Sessions a class and split, as `thumos`."""
    return [
        Broadcast(
            f"session_{split}_{k * counts[split] + i:07d}",
            label,
            (seed, 42, s, k, i),
            split,
            seconds,
            True,
        )
        for s, split in enumerate(counts)
        for k, label in enumerate(SESSIONS)
        for i in range(counts[split])
    ]


def drills(count: int, seconds: float, seed: int) -> list[Broadcast]:
    """Recordings for the alignment of language with vision; the last fifth is held out."""
    return [
        Broadcast(
            f"drill_{i:05d}",
            "",
            (seed, 41, i),
            "held out" if 5 * i >= 4 * count else "drill",
            seconds,
        )
        for i in range(count)
    ]


def plan(broadcast: Broadcast) -> tuple[Take, Action]:
    """What happens in a recording, and whose prop and place it shows.

    Half of the events follow in the same shot, the others a cut.
    """
    rng = np.random.default_rng((*broadcast.seed, 1))
    take = Take(rng, look(np.random.default_rng((*broadcast.seed, 2))).pace)
    if not broadcast.label:
        prop = PROPS[rng.integers(len(PROPS))]
        while take.now < broadcast.seconds:
            if not take.keys or rng.random() < 0.5:
                take.cut()
            else:
                take.to_start()
            if rng.random() < 0.15:
                take.wait(walk=rng.random() < 0.5)
            else:
                one = drill(rng, prop)
                take.act(" > ".join(moments([b.pose for b in one.beats])), one, "drill")
        return take, Action((), prop)
    action = ACTIONS[broadcast.label]
    if broadcast.session:
        return _practise(take, broadcast, action), action
    while take.now < broadcast.seconds or not any(s[2] == "action" for s in take.segments):
        what = EVENTS[rng.choice(len(EVENTS), p=CHANCES[action.design])]
        if not take.keys or action.stand or what == "reversed" or rng.random() < 0.5:
            take.cut()
        else:
            take.to_start()
        if what in ("wait", "walk"):
            take.wait(walk=what == "walk" and not action.stand)
        else:
            take.act(broadcast.label, action, what)
    return take, action


def _practise(take: Take, broadcast: Broadcast, action: Action) -> Take:
    """Fill a session: standing about, walking and broken-off attempts, then performance after
    performance, once or twice.
    """
    rng, found = take.rng, []

    def begin() -> None:
        if not take.keys or action.stand or rng.random() < 0.5:
            take.cut()
        else:
            take.to_start()

    times = rng.integers(1, 3)
    share = rng.uniform(0.35, 0.75) * broadcast.seconds / times  # of one instance
    rest = (broadcast.seconds - share * times) * rng.dirichlet(np.full(times + 1, 3.0))
    for k, pause in enumerate(rest):
        until = take.now + pause
        while take.now < until:
            begin()
            if rng.random() < 0.4:
                take.act(broadcast.label, action, "broken")
            else:
                take.wait(walk=not action.stand and rng.random() < 0.5)
        if k < times:
            first, until = len(take.segments), take.now + share
            while take.now < until:
                begin()
                take.act(broadcast.label, action)
            found.append((take.segments[first][0], take.segments[-1][1], "action", broadcast.label))
            del take.segments[first:]
    take.segments += found
    return take


def film(broadcast: Broadcast, folder: Path, size: int, fps: float) -> dict:
    """Render a recording to `folder/<name>.mp4`.

    Returns:
        `video`, `split`, `duration_s`, `annotations` (rows start_s, end_s, label; of drills "pose >
        pose"), `distractors` (the same and what: "broken" or "reversed") and `poses` (start_s,
        end_s, pose), in seconds of the file.
    """
    take, action = broadcast.plan()
    rng, seen = (
        np.random.default_rng((*broadcast.seed, 3)),
        look(np.random.default_rng((*broadcast.seed, 2))),
    )
    total = int(take.now * fps)
    frames, scenes, times = np.arange(total) / fps, [], []
    for keys in take.keys:
        start, end = keys[0][0], keys[-1][0]
        mine = frames[(frames >= start) & (frames < end)]
        if len(mine):
            scenes.append(shoot(keys, action, take.flights, seen, mine, rng))
            times.append(mine)
    drawn = np.concatenate(render(scenes, times, (size, size)))
    if rng.random() < 0.5:
        drawn = drawn[:, :, ::-1]
    video.write(folder / f"{broadcast.name}.mp4", np.ascontiguousarray(drawn), fps)
    end = total / fps

    def rows(found):
        return [
            {"start_s": s, "end_s": min(e, end), **more} for s, e, more in found if s < end - 0.25
        ]

    labels = [
        (s, e, {"label": name})
        for s, e, what, label in take.segments
        if what in ("action", "late", "drill")
        for name in (label, ALSO.get(label))
        if name
    ]
    return {
        "video": f"{broadcast.name}.mp4",
        "split": broadcast.split,
        "duration_s": end,
        "annotations": rows(labels),
        "distractors": rows(
            [
                (s, e, {"what": w, "label": label})
                for s, e, w, label in take.segments
                if w in ("broken", "reversed")
            ]
        ),
        "poses": rows([(s, e, {"pose": p}) for s, e, p in take.poses]),
    }


def film_job(broadcast: Broadcast, folder: str, notes: str, size: int, fps: float) -> dict:
    """`film` that leaves what it returns in the folder `notes`, so that a killed stage films no
    video twice.
    """
    return kept(Path(notes) / f"{broadcast.name}.json", film, broadcast, Path(folder), size, fps)
