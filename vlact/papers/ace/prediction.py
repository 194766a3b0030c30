"""Method to prediction table."""

import numpy as np
import pandas as pd
import torch

from vlact.language.tasks import Task
from vlact.models.zoo import Kept, Recognizer


@torch.inference_mode()
def predict(
    method: Recognizer, task: Task, seen: Kept, views: int, mode: str, leaf: bool
) -> np.ndarray:
    """Predicted class of every clip in every run of the task.

    Args:
        method: Compares what it saw with names.
        task: Names of the classes.
        seen: From `vlact.papers.ace.finetuning.encode`, all views of a clip after each other; their
            scores are averaged.
        views: Per clip.
        mode: "base" (one run) or "novel" (all SRT runs, the first with root labels).
        leaf: Leaf augmentation at test.

    Returns:
        int8 (runs, N).
    """
    out = []
    for run in range(1 if mode == "base" else len(task.srt)):
        scores = method.similarity(seen, task.names(mode, run, leaf))
        out.append(
            scores.unflatten(0, (-1, views)).mean(1).argmax(-1).cpu().numpy().astype(np.int8)
        )
    return np.stack(out)


def rows(predicted: np.ndarray, labels: np.ndarray, clips: np.ndarray, **constant) -> pd.DataFrame:
    """Prediction table of one call of `predict`: one row a run and clip."""
    runs, n = predicted.shape
    return pd.DataFrame(
        {
            **constant,
            "run": np.repeat(np.arange(runs, dtype=np.int8), n),
            "clip": np.tile(clips.astype(np.int32), runs),
            "label": np.tile(labels.astype(np.int8), runs),
            "predicted": predicted.reshape(-1),
        }
    )
