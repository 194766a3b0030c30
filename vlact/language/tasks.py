"""What a base-to-novel experiment asks: which actions are seen, which unseen, and by what names.

ATA: 10 base and 5 novel actions; the ten label sets of the Synonym Robustness Test are those of ACE's
Table 7. A task for one's own clips is made from the csv's labels and a tree file.
"""

from dataclasses import dataclass
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
    ("drop", "item"), ("balance", "part"), ("pick up", "item"), ("spin", "block"), ("hammer", "pin"),
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Base and novel actions, the names that the SRT gives the novel ones, and the trees of all verbs.

    Attributes:
        srt: One list a run, the verb each novel action goes by; run 0 holds the root verbs.
    """

    name: str
    base: tuple[Action, ...]
    novel: tuple[Action, ...]
    srt: tuple[tuple[str, ...], ...]
    trees: Trees

    def __post_init__(self):
        for run, names in enumerate(self.srt):
            if len(names) != len(self.novel):
                raise ValueError(f"task {self.name!r}, SRT run {run + 1}: expected {len(self.novel)} names, got {len(names)}")
            for (root, _), name in zip(self.novel, names, strict=True):
                self.trees.children(root, name)  # raises for a name without a node

    def names(self, mode: str, run: int, leaf: bool) -> list[list[str]]:
        """The strings that stand for each action, one list an action.

        Args:
            mode: "base" (root labels) or "novel" (the names of an SRT run).
            run: SRT run, 0 = root labels; ignored for base.
            leaf: True: the M children of each name (leaf augmentation, Eq. 3); False: the name alone.
        """
        actions = self.base if mode == "base" else self.novel
        words = [v for v, _ in actions] if mode == "base" else self.srt[run]
        kids = [self.trees.children(v, w) if leaf else [w] for (v, _), w in zip(actions, words, strict=True)]
        return [[phrase(k, o) for k in ks] for ks, (_, o) in zip(kids, actions, strict=True)]

    def texts(self) -> list[str]:
        """Every string that inference can ask for."""
        sets = [self.names("base", 0, True)] + [self.names("novel", r, True) for r in range(len(self.srt))]
        return list(dict.fromkeys(t for s in sets for ts in s for t in ts))

    def nodes(self) -> list[tuple[str, str, int, str]]:
        """Every tree node of every action: mode, label, order (0 root, 1, 2) and the node's string."""
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
            out[phrase(root, obj)] = float(np.mean([self.trees.overlap(root, a, b) for a, b in pairs]))
        return out


def srt_labels(dataset: str) -> list[list[str]]:
    """Label sets of the paper's Tables 7-9: `ATA`, `IKEA` or `GTEA`, one list of labels a run."""
    sets = yaml.safe_load(SRT_FILE.read_text())
    if dataset not in sets:
        raise ValueError(f"{SRT_FILE}: no label sets for {dataset!r}; expected one of {sorted(sets)}")
    return sets[dataset]


def ata(trees: Trees, idle: bool = True) -> Task:
    """The ATA task.

    Args:
        trees: Trees of all its verbs.
        idle: Whether the idle class is a base action. ACE's 10 + 5 classes only add up with it; the
            paper does not list its base classes.
    """
    base = tuple(a for a in ATA_BASE if idle or a[0] != "idle")
    runs = [tuple(label.removesuffix(f" {o}") for label, (_, o) in zip(r, ATA_NOVEL, strict=True)) for r in srt_labels("ATA")]
    return Task("ata", base, ATA_NOVEL, tuple(runs), trees)
