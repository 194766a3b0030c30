"""The arena: a second untrimmed world, in which language can earn its weight.

A routine is a chain of the stadium's poses. Some chains are two classes, one for each direction:
they share their poses and differ in order alone, which a description says and few recordings do
not. Prop and place are drawn for every recording and tell nothing. Other chains are trained on
by nobody (`HELD_OUT`): their classes are known by description only. A recording shows one class
(and its twin, where it has one), attempts that are broken off, and performances whose beginning the
shot has missed, which count in full.

Neighbours in every chain are neighbours in the stadium's classes, too, so that no drill has shown
them to the language model, in either order.
"""

from dataclasses import dataclass, replace

import numpy as np

from vlact.worlds.broadcast import Broadcast
from vlact.worlds.stadium import PROPS, Action, Take, beats, look

EVENTS = ("action", "twin", "broken", "late", "wait", "walk")
CHANCES = (0.36, 0.14, 0.2, 0.12, 0.09, 0.09)
PLACES = ("", "wicket", "table", "net", "tall net", "goal", "sand", "bar", "high bar", "hoop")
LEAST_LATE = 3  # beats that a performance has of which the first may be missed


@dataclass(frozen=True)
class Chain:
    """Poses in order.

    Attributes:
        name, back: Of the class, and of the one that has them from the last to the first.
        action: Its beats.
    """

    name: str
    back: str
    action: Action

    @property
    def backwards(self) -> Action:
        """The other direction; the athlete stays on the spot."""
        turned = tuple(replace(b, go=0.0, turn=0.0) for b in self.action.beats[::-1])
        return replace(self.action, beats=turned)


def _chain(name: str, back: str, text: str) -> Chain:
    return Chain(name, back, Action(beats(text)))


CHAINS = (
    _chain("Hoist", "Lower", "squat .6, rack .5, overhead .5"),
    _chain("Parry", "Recover", "address .5, swing back .45, block .45"),
    _chain("Stroke", "Unwind", "guard .35, forehand back .4, forehand through .35, racket high .4"),
    _chain("Hurl", "Regather", "wind up .5, cock .45, over the top .35, thrown .4"),
    _chain("Thrust", "Gather", "shot at neck .55, arm out .55"),
    _chain("Jab", "Withdraw", "bend over table .6, cue forward .5"),
    _chain("Fling", "Coil", "discus wind .55, discus out .5"),
    _chain("Smash", "Sink", "crouch .35, leap .4 ^.6, spike .4 ^.3"),
    _chain("Whirl", "Unwhirl", "wheel .45, wheel .45 @360, wheel out .4"),
    _chain("Punt", "Reset", "kick back .45, kick .4"),
)
HELD_OUT = (
    _chain("Loft", "Unloft", "address .45, swing back .45, swing through .35, finish high .4"),
    _chain("Spring", "Settle", "edge .5, push off .5"),
)
NAMES = tuple(n for c in (*CHAINS, *HELD_OUT) for n in (c.name, c.back))


def classes(pairs: int) -> dict[str, Action]:
    """The classes that are trained on: every chain, and the first `pairs` in both directions.

    `Action.design` is "reversed" for those that have a `twin`, "own" for the others.

    Raises:
        ValueError: More pairs than chains, or fewer than none.
    """
    if not 0 <= pairs <= len(CHAINS):
        raise ValueError(f"pairs must be in 0..{len(CHAINS)}; got {pairs}")
    return _both(CHAINS[:pairs]) | {c.name: c.action for c in CHAINS[pairs:]}


def unseen() -> dict[str, Action]:
    """The classes that are known by description only."""
    return _both(HELD_OUT)


def _both(chains: tuple[Chain, ...]) -> dict[str, Action]:
    out = {}
    for c in chains:
        out[c.name] = replace(c.action, design="reversed", twin=c.back)
        out[c.back] = replace(c.backwards, design="reversed", twin=c.name)
    return out


@dataclass(frozen=True)
class Bout(Broadcast):
    """A recording of the arena.

    Attributes:
        pairs: See `classes`.
    """

    pairs: int = 0

    def plan(self) -> tuple[Take, Action]:
        """What happens in the recording, and whose prop and place it shows."""
        rng = np.random.default_rng((*self.seed, 1))
        take = Take(rng, look(np.random.default_rng((*self.seed, 2))).pace)
        known = classes(self.pairs) | unseen()
        prop, place = (x[rng.integers(len(x))] for x in (PROPS, PLACES))
        mine = replace(known[self.label], prop=prop, place=place)
        own = "action", self.label
        while take.now < self.seconds or own not in {s[2:] for s in take.segments}:
            what = EVENTS[rng.choice(len(EVENTS), p=CHANCES)]
            label = mine.twin if what == "twin" and mine.twin else self.label
            late = what == "late" and len(mine.beats) >= LEAST_LATE
            if not take.keys or late or rng.random() < 0.5:
                take.cut()
            else:
                take.to_start()
            if what in ("wait", "walk"):
                take.wait(walk=what == "walk")
            elif late:
                take.late(label, mine)
            else:
                take.act(label, known[label], "broken" if what == "broken" else "action")
        return take, mine


def bouts(counts: dict[str, int], seconds: float, seed: int, pairs: int) -> list[Bout]:
    """Recordings of each class by split, each of about `seconds`; of those that are known by
    description only in "test" alone.
    """
    names = list(NAMES)
    every = {"test": [*classes(pairs), *unseen()]}
    return [
        Bout(
            f"bout_{split}_{label.lower()}_{i:03d}",
            label,
            (seed, 43, s, names.index(label), i),
            split,
            seconds,
            pairs=pairs,
        )
        for s, split in enumerate(sorted(counts))
        for label in every.get(split, list(classes(pairs)))
        for i in range(counts[split])
    ]
