"""Model to prediction table."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vlact.language.tasks import Task
from vlact.losses.ace import leaf_average, similarity
from vlact.models.dual import DualEncoder


@torch.inference_mode()
def embed_names(encoder: DualEncoder, names: list[list[str]], trunk: dict[str, Tensor]) -> Tensor:
    """Text side of actions (C, D): the mean over each action's strings.

    Args:
        encoder: Projects the text.
        names: Strings of each action, all lists of one length.
        trunk: Frozen features (text_dim,) of every string.
    """
    text = encoder.embed_text(torch.stack([trunk[t] for ts in names for t in ts]))
    return leaf_average(text, torch.arange(len(text)).view(len(names), -1))


@torch.inference_mode()
def predict(encoder: DualEncoder, task: Task, video: Tensor, mode: str, leaf: bool, trunk: dict[str, Tensor]) -> np.ndarray:
    """Predicted class of every clip in every run of the task.

    Args:
        encoder: The model.
        task: Names of the classes.
        video: Video embeddings (N, views, D); scores are averaged over the views.
        mode: "base" (one run) or "novel" (all SRT runs, the first with root labels).
        leaf: Leaf augmentation at test.
        trunk: Frozen features of every string.

    Returns:
        int8 (runs, N).
    """
    runs = 1 if mode == "base" else len(task.srt)
    out = []
    for run in range(runs):
        actions = embed_names(encoder, task.names(mode, run, leaf), trunk)
        scores = similarity(video.flatten(0, 1), actions, 1.0).view(*video.shape[:2], -1).mean(1)
        out.append(scores.argmax(-1).numpy().astype(np.int8))
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
