"""Synonym trees (ACE, section 3.2) and the index tables that make training on them cheap.

A tree file maps each root verb to its first-order synonyms and each of those to its own:
`root: {root: [..], synonym: [..], ..}`. A word is always a child of itself. Trees are data; how a
file was made stands at its top.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from vlact.schema import text, yaml_text

FOLDER = Path(__file__).parent / "trees"
Action = tuple[str, str]  # verb, object ("" where there is none)


def phrase(verb: str, obj: str) -> str:
    """V + O: the verb whole, then the object."""
    return f"{verb} {obj}".strip()


@dataclass(frozen=True)
class Trees:
    """Trees of several root verbs with M children at every node, the node itself first."""

    name: str
    words: dict[str, dict[str, list[str]]]

    @classmethod
    def load(cls, path: str | Path, verbs: tuple[str, ...] = ()) -> "Trees":
        """Read and check a tree file.

        Args:
            path: A yaml file, or the name of a shipped one ("ata").
            verbs: Root verbs that must be there.

        Raises:
            ValueError: A root or a synonym without its own list, lists of different length, or a
                repeated word; the message names the file, the tree and the word.
        """
        path = Path(path)
        if not path.suffix:
            path = FOLDER / f"{path}.yaml"
        if not path.is_file():
            raise ValueError(
                f"{path}: expected a synonym tree file, found none; shipped are "
                f"{sorted(p.stem for p in FOLDER.glob('*.yaml'))}"
            )
        content = text(path)
        try:
            words = yaml_text(content)
        # ValueError: a date that is none
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise ValueError(f"{path}: expected yaml; {error}") from None
        if not isinstance(words, dict) or not words:
            raise ValueError(
                f"{path}: expected a mapping of root verbs to trees, found {type(words).__name__}"
            )
        missing = [v for v in verbs if v not in words]
        if missing:
            raise ValueError(
                f"{path}: no tree for the verbs {missing}; add them (present: {list(words)})"
            )
        sizes = set()
        for root, tree in words.items():
            if not isinstance(root, str) or not isinstance(tree, dict) or root not in tree:
                raise ValueError(
                    f"{path}, tree {root!r}: expected a verb and a mapping that lists the root's "
                    f"own synonyms under {root!r}"
                )
            for word in (root, *(tree[root] if isinstance(tree[root], list) else ())):
                children = tree.get(word) if isinstance(word, str) else None
                if not isinstance(children, list) or not children:
                    raise ValueError(f"{path}, tree {root!r}: no list of synonyms for {word!r}")
                sound = all(isinstance(c, str) and c.strip() for c in children)
                if not sound or len({word, *children}) != len(children) + 1:
                    raise ValueError(
                        f"{path}, tree {root!r}, word {word!r}: expected distinct words other "
                        f"than itself, found {children}"
                    )
                sizes.add(len(children))
        if len(sizes) > 1:
            raise ValueError(
                f"{path}: all lists must have the same length; found lengths {sorted(sizes)}"
            )
        return cls(path.stem, words)

    @property
    def m(self) -> int:
        """M, the number of children of a node, itself included."""
        return 1 + len(next(iter(next(iter(self.words.values())).values())))

    def children(self, root: str, word: str | None = None) -> list[str]:
        """The M children of the root, or of one of its first-order synonyms, the node itself first.

        Raises:
            ValueError: No such tree, or the word is no first-order synonym of the root.
        """
        word = word or root
        if root not in self.words or word not in self.words[root]:
            raise ValueError(
                f"tree {self.name!r}: no node {word!r} under root {root!r}; ask for one of "
                f"{sorted(self.words.get(root, self.words))}"
            )
        return [word, *self.words[root][word]]

    def limited(self, first: int, second: int) -> "Trees":
        """Only the first few children: `first` of the root, `second` of every synonym, each
        counting itself (ACE, Figure 3).

        Raises:
            ValueError: More children than there are, or fewer than one.
        """
        if not (1 <= first <= self.m and 1 <= second <= self.m):
            raise ValueError(
                f"tree {self.name!r}: expected 1..{self.m} children, got {first} of the root and "
                f"{second} of its synonyms"
            )
        words = {
            r: {w: kids[: (first if w == r else second) - 1] for w, kids in tree.items()}
            for r, tree in self.words.items()
        }
        return Trees(f"{self.name} {first}x{second}", words)

    def with_roots(self, other: "Trees", roots) -> "Trees":
        """These trees with those of some roots taken from another file."""
        return Trees(f"{self.name}/{other.name}", self.words | {r: other.words[r] for r in roots})

    def crossings(self) -> dict[str, list[str]]:
        """Words that are children of more than one root, first or second order, with those roots.

        Allowed, as the published trees have them: a word of the clip's own concept never serves as
        its shadow negative (Eq. 6), but another concept's test name may be a child of this one.
        """
        roots: dict[str, dict[str, None]] = {}
        for root, tree in self.words.items():
            for w in dict.fromkeys(w for node, kids in tree.items() for w in (node, *kids)):
                roots.setdefault(w, {})[root] = None
        return {w: list(found) for w, found in sorted(roots.items()) if len(found) > 1}

    def lexicon(self) -> list[str]:
        """Every word of every tree, sorted."""
        return sorted(
            {
                w
                for tree in self.words.values()
                for node, kids in tree.items()
                for w in (node, *kids)
            }
        )

    def overlap(self, root: str, a: str, b: str) -> float:
        """Jaccard overlap, 0..1, of the children of two nodes of one tree."""
        x, y = set(self.children(root, a)), set(self.children(root, b))
        return len(x & y) / len(x | y)


def _nearest(words: list[str], lexicon: list[str], encode, count: int) -> dict[str, list[str]]:
    """For each word the `count` nearest others of the lexicon by cosine of their features."""
    lexicon = sorted(set(lexicon) | set(words))
    features = np.asarray(encode(lexicon))
    where = {w: i for i, w in enumerate(lexicon)}
    near = np.argsort(-(features[[where[w] for w in words]] @ features.T), axis=1, kind="stable")
    return {
        w: [lexicon[j] for j in row if lexicon[j] != w][:count]
        for w, row in zip(words, near, strict=True)
    }


def nearest_trees(name: str, roots, lexicon: list[str], encode, m: int) -> Trees:
    """Trees of nearest words, in whatever sense, for verbs that have no written tree.

    Args:
        name: What to call them.
        roots: Root verbs.
        lexicon: Words to choose from.
        encode: Strings to unit features (N, d).
        m: Children per node, the node included.
    """
    first = _nearest(list(roots), lexicon, encode, m - 1)
    second = _nearest(sorted({w for kids in first.values() for w in kids}), lexicon, encode, m - 1)
    return Trees(
        name, {root: {root: kids} | {w: second[w] for w in kids} for root, kids in first.items()}
    )


def context_free(trees: Trees, encode) -> Trees:
    """The negative control: second-order words are the nearest of the lexicon whatever the sense.

    Tree size, vocabulary and the first order (the names that the test asks about) stay the same.

    Args:
        trees: The trees to take lexicon and first order from.
        encode: Strings to unit features (N, d).
    """
    words = sorted({w for tree in trees.words.values() for w in tree})
    near = _nearest(words, trees.lexicon(), encode, trees.m - 1)
    made = {
        root: {w: list(tree[root]) if w == root else near[w] for w in tree}
        for root, tree in trees.words.items()
    }
    return Trees(f"{trees.name} context-free", made)


@dataclass
class ActionTexts:
    """All strings that a set of actions can be called by, and index tables into them.

    Attributes:
        actions: C pairs (verb, object).
        texts: The N distinct strings; encode them once.
        root: Index of each action's label (C, 1).
        fixed: Children of each root label (C, M), Eq. 3.
        drawn: Children of every first-order synonym (C, M, M): drawn[i, k] belong to synonym k, Eq.
            4.
        shadow: For each class the children of every verb of its negative pool (P_i, M), Eq. 6-7.

    Where the second order is of another size than the first, its size is the last dimension of
    `drawn` and `shadow`, and the root's own children are cut to it or repeated in turn.

    Raises:
        ValueError: A class whose pool of negative verbs is empty; names the class.
    """

    actions: list[Action]
    trees: Trees
    texts: list[str] = field(default_factory=list)

    def __post_init__(self):
        index: dict[str, int] = {}

        def ids(words: list[str], obj: str) -> list[int]:
            return [index.setdefault(phrase(w, obj), len(index)) for w in words]

        kids = {v: self.trees.children(v) for v, _ in self.actions}
        second = (
            max(len(self.trees.children(v, k)) for v in kids for k in kids[v][1:])
            if self.trees.m > 1
            else 1
        )

        def below(verb: str, word: str) -> list[str]:
            found = self.trees.children(verb, word)
            return [found[i % len(found)] for i in range(second)]

        self.root = np.array([ids([v], o) for v, o in self.actions])
        self.fixed = np.array([ids(kids[v], o) for v, o in self.actions])
        self.drawn = np.array([[ids(below(v, k), o) for k in kids[v]] for v, o in self.actions])
        self.shadow = []
        for verb, obj in self.actions:
            pool = [
                (u, k)
                for u in dict.fromkeys(v for v, _ in self.actions)
                for k in kids[u]
                if k not in kids[verb]
            ]
            # a word once, from its first tree
            pool = list({k: (u, k) for u, k in reversed(pool)}.values())[::-1]
            if not pool:
                raise ValueError(
                    f"class {phrase(verb, obj)!r}: no negative verb is left; shadow negatives "
                    "need two root verbs with different children"
                )
            self.shadow.append(np.array([ids(below(u, k), obj) for u, k in pool]))
        self.texts = list(index)
        verbs = list(dict.fromkeys(v for v, _ in self.actions))
        self.verb_of = np.array([verbs.index(v) for v, _ in self.actions])

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One step's random labels a+ (C, M) and shadow negatives a- (C, M), as rows of `texts`.

        Actions that share a root verb get the same synonym (ACE, appendix 6.1).
        """
        synonym = rng.integers(self.fixed.shape[1], size=self.verb_of.max() + 1)[self.verb_of]
        drawn = self.drawn[np.arange(len(self.actions)), synonym]
        shadow = np.stack([pool[rng.integers(len(pool))] for pool in self.shadow])
        return drawn, shadow
