"""The Synonym Robustness Test (ACE, section 4.1) for any model, and the leak guards that belong
beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vlact.metrics.classification import macro_f1, srt, top1


@dataclass(frozen=True)
class SynonymRobustnessTest:
    """Every unseen class goes by ten names, one run each; the names are the same for every model.

    Attributes:
        names: One list a run; in it one list of strings a class, whose mean embedding the class
            goes by: the name alone, or with leaf augmentation its children too. Run 0 holds the
            root labels.
        overlap: Mean Jaccard overlap of the strings of a class between runs, 0..1. Shared strings
            make runs alike by construction and shrink the std; it is reported beside it.

    Example: a model with two functions of its own.

        test = SynonymRobustnessTest.of("ata", leaf=False)
        row = test.score(my_text_encoder, my_video_embeddings, labels)
        print(row["srt_acc_mean"], row["srt_acc_std"], test.overlap)

    Or with predictions made elsewhere, one row a run and clip: `test.score_table(table)`.
    """

    names: list[list[list[str]]]

    def __post_init__(self):
        sizes = {len(run) for run in self.names}
        if len(self.names) < 2 or len(sizes) != 1 or not min(sizes):
            raise ValueError(
                "names must be two or more runs over the same classes; got classes per run "
                f"{[len(r) for r in self.names]}"
            )
        for r, run in enumerate(self.names):
            for c, strings in enumerate(run):
                if not strings or not all(isinstance(t, str) and t.strip() for t in strings):
                    raise ValueError(
                        f"names[{r}][{c}] must be a list of strings that are not empty; got "
                        f"{strings!r}"
                    )

    @classmethod
    def of(cls, dataset: str, leaf: bool = True, trees=None) -> "SynonymRobustnessTest":
        """The published names of "ata", "ikea" or "gtea", with the shipped trees' children or
        alone.

        Args:
            dataset: Which.
            leaf: Leaf augmentation.
            trees: `vlact.language.trees.Trees` of its verbs, in place of the shipped ones.
        """
        from vlact.language.tasks import dataset as task_of

        task = task_of(dataset, trees)
        return cls([task.names("novel", run, leaf) for run in range(len(task.srt))])

    @property
    def classes(self) -> list[str]:
        """Root labels, in the order of the class numbers."""
        return [strings[0] for strings in self.names[0]]

    @property
    def overlap(self) -> float:
        pairs = [(a, b) for i, a in enumerate(self.names) for b in self.names[i + 1 :]]
        return float(
            np.mean(
                [
                    len(set(x) & set(y)) / len(set(x) | set(y))
                    for a, b in pairs
                    for x, y in zip(a, b, strict=True)
                ]
            )
        )

    def score(
        self, embed_texts: Callable[[list[str]], np.ndarray], video: np.ndarray, labels: np.ndarray
    ) -> dict[str, float]:
        """Classify every clip under every run's names.

        Args:
            embed_texts: Strings to embeddings (N, D); of any length, they are normalised here.
            video: Clip embeddings (N, D), or (N, views, D) whose scores are averaged.
            labels: Class numbers (N,), in the order of `classes`.

        Returns:
            `unseen_acc`, `unseen_f1` (root labels), `srt_acc_mean`, `srt_acc_std`, `srt_f1_mean`,
            `srt_f1_std`.

        Raises:
            ValueError: Shapes that do not fit, labels out of range, or values that are not finite.
        """
        video, labels = _unit(video, "video"), np.asarray(labels)
        if video.ndim == 2:
            video = video[:, None]
        if video.ndim != 3 or labels.shape != video.shape[:1] or not len(labels):
            raise ValueError(
                f"video must be (N, D) or (N, views, D) with N > 0 labels; got {video.shape} "
                f"and {labels.shape}"
            )
        texts = list(dict.fromkeys(t for run in self.names for strings in run for t in strings))
        row, embedded = (
            {t: i for i, t in enumerate(texts)},
            _unit(embed_texts(texts), "embed_texts"),
        )
        if embedded.shape != (len(texts), video.shape[2]):
            raise ValueError(
                f"embed_texts must give {(len(texts), video.shape[2])} for {len(texts)} "
                f"strings; got {embedded.shape}"
            )
        tables = []
        for r, run in enumerate(self.names):
            actions = np.stack([embedded[[row[t] for t in strings]].mean(0) for strings in run])
            predicted = (video @ actions.T).mean(1).argmax(1)
            tables.append(
                pd.DataFrame(
                    {
                        "run": r,
                        "clip": np.arange(len(labels)),
                        "label": labels,
                        "predicted": predicted,
                    }
                )
            )
        return self.score_table(pd.concat(tables))

    def score_table(self, table: pd.DataFrame) -> dict[str, float]:
        """Scores of predictions made elsewhere: columns `run`, `label`, `predicted`, and as many
        clips in every run.

        Raises:
            ValueError: Missing columns or runs, class numbers out of range, runs of different
                length.
        """
        missing = [c for c in ("run", "label", "predicted") if c not in table]
        if missing:
            raise ValueError(f"prediction table: missing columns {missing}; found {list(table)}")
        if set(table["run"]) != set(range(len(self.names))):
            raise ValueError(
                f"prediction table: expected runs 0..{len(self.names) - 1}; found "
                f"{sorted(set(table['run']))}"
            )
        for column in ("label", "predicted"):
            bad = ~table[column].isin(range(len(self.classes)))
            if bad.any():
                found = table.loc[bad.to_numpy(), column].iloc[0]
                raise ValueError(
                    f"prediction table, column {column}: expected class numbers "
                    f"0..{len(self.classes) - 1}; found {found}"
                )
        root = table[table["run"] == 0]
        out = {
            "unseen_acc": top1(root["label"], root["predicted"]),
            "unseen_f1": macro_f1(root["label"], root["predicted"]),
        }
        return out | srt(table)


def _unit(x, name: str) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: expected finite values; found nan or inf")
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
