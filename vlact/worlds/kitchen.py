"""Untrimmed egocentric sequences in the manner of EPIC-Kitchens-100: a verb and a noun an action,
pauses between them.
"""

import numpy as np

from vlact.worlds.corpus import Recording

# How often each occurs falls with its place in the list, as in the real set.
EPIC_VERBS = (
    "take",
    "put down",
    "open",
    "close",
    "wipe",
    "cut",
    "pour",
    "stir",
    "shake",
    "fold",
    "scoop",
    "squeeze",
)
EPIC_NOUNS = ("cup", "plate", "bottle", "box", "can", "ball")
# programs that bring their own things: a verb without a noun
BARE = ("open", "close", "wipe", "cut", "stir", "fold", "scoop")
PAUSE = "idle"


def kitchens(counts: dict[str, int], actions: int, seed: int) -> list[Recording]:
    """Recordings of every split, each by a person and in a place of its own.

    Args:
        counts: Recordings by split.
        actions: Actions of a recording; after every third, on average, nothing happens for as long
            as an action takes.
        seed: Of everything.
    """
    out = []
    for s, (split, count) in enumerate(counts.items()):
        for i in range(count):
            rng, todo = np.random.default_rng((seed, 60, s, i)), []
            for _ in range(actions):
                verb, noun = (_draw(rng, of) for of in (EPIC_VERBS, EPIC_NOUNS))
                todo.append((verb, "" if verb in BARE else noun))
                if rng.random() < 1 / 3:
                    todo.append((PAUSE, ""))
            name = f"P{s:02d}_{i:03d}"
            out.append(
                Recording(
                    name,
                    "kitchen",
                    (seed, 61, s, i),
                    (seed, 62, s, i),
                    None,
                    "ego",
                    split,
                    f"P{s:02d}",
                    tuple(todo),
                )
            )
    return out


def _draw(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    share = 1 / np.arange(1, len(names) + 1) ** 0.7
    return names[rng.choice(len(names), p=share / share.sum())]
