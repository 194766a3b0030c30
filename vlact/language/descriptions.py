"""Descriptions of actions as what happens in which order, for ActionVLM's T_desc and its alignment
corpus.
"""

from pathlib import Path

import numpy as np
import yaml

SEPARATOR, NOTHING = " ; ", "nothing"  # of answers, see `vlact.metrics.proposals`
WORDS: dict[str, list[str]] = yaml.safe_load(
    (Path(__file__).parent / "poses.yaml").read_text(encoding="utf-8")
)


def moments(poses: list[str], most: int = 4, words: dict[str, list[str]] = WORDS) -> list[str]:
    """The poses that tell an action: without repetitions in a row or strides of one run, at most
    `most`, first and last kept.

    >>> moments(["run left", "run right", "run left", "leap", "leap", "slam"])
    ['run left', 'leap', 'slam']
    """
    out: list[str] = []
    for name in poses:
        if not out or words[out[-1]][0] != words[name][0]:
            out.append(name)
    return out if len(out) <= most else [*out[: most - 2], *out[-2:]]


def describe(
    poses: list[str], rng: np.random.Generator | None = None, words: dict[str, list[str]] = WORDS
) -> str:
    """One sentence: what the person does first, then, and at the end.

    Args:
        poses: Names of poses in order, see `vlact.worlds.stadium.POSES`.
        rng: Draws the wording; the usual one if not given.
        words: Wordings of everything that may be done, the usual one first.

    Raises:
        ValueError: No pose, or an unknown one.
    """
    if not poses or (unknown := [p for p in poses if p not in words]):
        raise ValueError(
            f"poses must be some of {sorted(words)}; got {unknown if poses else 'none'}"
        )
    said = [
        words[p][0 if rng is None else rng.integers(len(words[p]))]
        for p in moments(poses, words=words)
    ]
    if len(said) == 1:
        return f"the person {said[0]}"
    return f"the person first {', then '.join(said[:-1])}, and ends when the person {said[-1]}"


def random_text(
    count: int, seed: int, clauses: int = 3, words: dict[str, list[str]] = WORDS
) -> list[str]:
    """Descriptions that describe nothing: so many sentences of poses drawn at random, each form as
    `describe` writes it. A control for what any text would do.
    """
    rng, poses = np.random.default_rng(seed), sorted(words)
    return [describe(list(rng.choice(poses, clauses, replace=False))) for _ in range(count)]
