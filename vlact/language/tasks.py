"""What a base-to-novel experiment asks: which actions are seen, which unseen, and by what names.

ATA has 10 base and 5 novel actions, IKEA 21 and 10, GTEA 6 and 4; the ten label sets of the Synonym
Robustness Test are those of ACE's Tables 7-9. A task for one's own clips is made from the csv's
labels and a tree file.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from vlact.language.trees import Action, Trees, phrase

SRT_FILE = Path(__file__).parent / "srt.yaml"
ATA_BASE: tuple[Action, ...] = (
    ("fasten", "screw"), ("insert", "screw"), ("take", "block"), ("idle", ""), ("take", "part"),
    ("fasten", "nut"), ("take", "ring"), ("take", "plate"), ("tighten", "screw"), ("insert", "pin"),
)  # fmt: skip
ATA_NOVEL: tuple[Action, ...] = (
    ("drop", "item"), ("balance", "part"), ("pick up", "item"), ("spin", "block"),
    ("hammer", "pin"),
)  # fmt: skip
IKEA_BASE: tuple[Action, ...] = (
    ("align", "leg screw with table thread"), ("align", "side panel holes with front panel dowels"),
    ("attach", "drawer back panel"), ("attach", "drawer side panel"), ("attach", "shelf to table"),
    ("flip", "shelf"), ("flip", "table"), ("flip", "table top"), ("insert", "drawer pin"),
    ("lay down", "leg"),
    ("pick up", "back panel"), ("pick up", "bottom panel"), ("pick up", "front panel"),
    ("pick up", "leg"),
    ("pick up", "pin"), ("pick up", "shelf"), ("pick up", "side panel"), ("pick up", "table top"),
    ("rotate", "table"), ("spin", "leg"), ("tighten", "leg"),
)  # fmt: skip
IKEA_NOVEL: tuple[Action, ...] = (  # "lay down" is in both, as in the paper
    ("lay down", "shelf"), ("lay down", "side panel"), ("lay down", "front panel"),
    ("push", "table top"),
    ("position", "drawer right side up"), ("lay down", "table top"), ("slide", "bottom panel"),
    ("push", "table"),
    ("lay down", "bottom panel"), ("lay down", "back panel"),
)  # fmt: skip
GTEA_BASE: tuple[Action, ...] = tuple(
    (v, "ingredient") for v in ("take", "open", "pour", "close", "scoop", "put")
)
GTEA_NOVEL: tuple[Action, ...] = tuple(
    (v, "ingredient") for v in ("shake", "fold", "stir", "spread")
)
DATASETS = {
    "ata": (ATA_BASE, ATA_NOVEL),
    "ikea": (IKEA_BASE, IKEA_NOVEL),
    "gtea": (GTEA_BASE, GTEA_NOVEL),
}


@dataclass(frozen=True)
class Task:
    """Base and novel actions, the names that the SRT gives the novel ones, and the trees of all
    verbs.

    Attributes:
        srt: One list a run, the verb each novel action goes by; run 0 holds the root verbs.
        trees: For every verb of both modes; those of the base actions serve training.
        classes: Label of the annotation table to mode ("base" or "novel") and class number.
    """

    name: str
    base: tuple[Action, ...]
    novel: tuple[Action, ...]
    srt: tuple[tuple[str, ...], ...]
    trees: Trees
    classes: dict[str, tuple[str, int]]

    def __post_init__(self):
        for verb, obj in self.base + self.novel:
            for word in self.trees.words.get(verb, {}).get(verb, ()):
                if obj and word.endswith(f" {obj}"):
                    raise ValueError(
                        f"tree {self.trees.name!r}, {verb!r}: {word!r} names the object {obj!r}; "
                        "a child is a verb alone"
                    )
        for run, names in enumerate(self.srt):
            if len(names) != len(self.novel):
                raise ValueError(
                    f"task {self.name!r}, SRT run {run + 1}: expected {len(self.novel)} names, "
                    f"got {len(names)}"
                )
            for (root, _), name in zip(self.novel, names, strict=True):
                self.trees.children(root, name)  # raises for a name without a node

    def names(self, mode: str, run: int, leaf: bool) -> list[list[str]]:
        """The strings that stand for each action, one list an action.

        Args:
            mode: "base" (root labels) or "novel" (the names of an SRT run).
            run: SRT run, 0 = root labels; ignored for base.
            leaf: True: the M children of each name (leaf augmentation, Eq. 3); False: the name
                alone.
        """
        actions = self.base if mode == "base" else self.novel
        words = [v for v, _ in actions] if mode == "base" else self.srt[run]
        kids = [
            self.trees.children(v, w) if leaf else [w]
            for (v, _), w in zip(actions, words, strict=True)
        ]
        return [[phrase(k, o) for k in ks] for ks, (_, o) in zip(kids, actions, strict=True)]

    @property
    def shared_verbs(self) -> list[str]:
        """Verbs of both modes: their trees have served training when the test asks for them (IKEA's
        "lay down").
        """
        base = {v for v, _ in self.base}
        return list(dict.fromkeys(v for v, _ in self.novel if v in base))

    def texts(self, leaf: bool = True) -> list[str]:
        """Every string that inference can ask for, with or without leaf augmentation."""
        sets = [self.names("base", 0, leaf)] + [
            self.names("novel", r, leaf) for r in range(len(self.srt))
        ]
        return list(dict.fromkeys(t for s in sets for ts in s for t in ts))

    def nodes(self) -> list[tuple[str, str, int, str]]:
        """Every tree node of every action: mode, label, order (0 root, 1, 2) and its string."""
        out = []
        for mode, actions in (("base", self.base), ("novel", self.novel)):
            for verb, obj in actions:
                first = self.trees.children(verb)
                second = [w for k in first for w in self.trees.children(verb, k) if w not in first]
                order = dict.fromkeys(second, 2) | dict.fromkeys(first, 1) | {verb: 0}
                words = [*first, *dict.fromkeys(second)]
                out += [(mode, phrase(verb, obj), order[w], phrase(w, obj)) for w in words]
        return out

    def overlaps(self) -> dict[str, float]:
        """Mean Jaccard overlap of test children between the SRT runs, per novel class.

        Shared children make the names of a class alike by construction and shrink the SRT std; the
        paper does not report it.
        """
        out = {}
        for c, (root, obj) in enumerate(self.novel):
            words = [names[c] for names in self.srt]
            pairs = [(a, b) for i, a in enumerate(words) for b in words[i + 1 :]]
            out[phrase(root, obj)] = float(
                np.mean([self.trees.overlap(root, a, b) for a, b in pairs])
            )
        return out


def srt_labels(dataset: str) -> list[list[str]]:
    """Label sets of the paper's Tables 7-9: `ATA`, `IKEA` or `GTEA`, one list of labels a run."""
    sets = yaml.safe_load(SRT_FILE.read_text(encoding="utf-8"))
    if dataset not in sets:
        raise ValueError(
            f"{SRT_FILE}: no label sets for {dataset!r}; expected one of {sorted(sets)}"
        )
    return sets[dataset]


def classes_of(base: tuple[Action, ...], novel: tuple[Action, ...]) -> dict[str, tuple[str, int]]:
    """Every action a class of its own."""
    return {
        phrase(*a): (mode, i)
        for mode, actions in (("base", base), ("novel", novel))
        for i, a in enumerate(actions)
    }


def dataset(name: str, trees: Trees | None = None, idle: bool = True) -> Task:
    """The task of one of ACE's datasets.

    Args:
        name: "ata", "ikea" or "gtea".
        trees: Trees of all its verbs; the shipped ones if not given.
        idle: Whether ATA's idle class is a base action. ACE's 10 + 5 classes only add up with it;
            the paper does not list its base classes.

    Raises:
        ValueError: Unknown dataset.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {sorted(DATASETS)}; got {name!r}")
    base, novel = DATASETS[name]
    base = tuple(a for a in base if idle or a[0] != "idle")
    runs = [
        tuple(label.removesuffix(f" {o}") for label, (_, o) in zip(r, novel, strict=True))
        for r in srt_labels(name.upper())
    ]
    trees = trees or Trees.load(name, tuple(dict.fromkeys(v for v, _ in base + novel)))
    return Task(name, base, novel, tuple(runs), trees, classes_of(base, novel))


def verb_only(task: Task, obj: str = "item") -> Task:
    """The same clips asked for their verb alone: one word as everybody's object, classes of one
    verb merged.

    Shows how much of a result rests on objects. In SRT run r a merged class goes by the name that
    its first class has there. Where a verb is in base and novel it stays in both, as the classes
    were.
    """
    actions = {"base": task.base, "novel": task.novel}
    verbs = {mode: list(dict.fromkeys(v for v, _ in found)) for mode, found in actions.items()}
    first = {
        mode: [[v for v, _ in found].index(v) for v in verbs[mode]]
        for mode, found in actions.items()
    }
    base, novel = (
        tuple((v, obj if actions[m][i][1] else "") for v, i in zip(verbs[m], first[m], strict=True))
        for m in actions
    )
    return replace(
        task,
        name=f"{task.name} verb-only",
        base=base,
        novel=novel,
        srt=tuple(tuple(run[i] for i in first["novel"]) for run in task.srt),
        classes={
            label: (mode, verbs[mode].index(actions[mode][i][0]))
            for label, (mode, i) in task.classes.items()
        },
    )


def named_by_tree(task: Task, runs: int = 10, seed: int = 0, heard: Collection[str] = ()) -> Task:
    """Test names drawn from the first order of the task's own trees, run 0 the roots.

    For trees that were edited by hand (ACE, Table 4, "manual test tree"), where the published names
    no longer fit.

    Args:
        heard: Words of the pretraining captions; none of them becomes a test name.

    Raises:
        ValueError: Every child of a root was heard.
    """
    rng = np.random.default_rng(seed)
    drawn = [tuple(v for v, _ in task.novel)]
    unheard = {v: [w for w in task.trees.children(v)[1:] if w not in heard] for v in drawn[0]}
    if empty := [v for v, words in unheard.items() if not words]:
        raise ValueError(
            f"tree {task.trees.name!r}: pretraining captions have every child of {empty}; expected "
            "one at least that is no caption"
        )
    drawn += [tuple(str(rng.choice(unheard[v])) for v, _ in task.novel) for _ in range(runs - 1)]
    return replace(task, srt=tuple(drawn))
