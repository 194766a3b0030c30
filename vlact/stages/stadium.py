"""Stages `stadium` and `localisers`: the untrimmed world, its features, and localisers trained on vision alone.

Seed number i trains on a set of recordings of its own; all are tested on the same recordings.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from vlact import jobs
from vlact.datasets import activitynet
from vlact.jobs import write_whole
from vlact.params import Params
from vlact.stages import READING, Stage
from vlact.stages.pretrain import PRETRAIN, pretraining
from vlact.stages.worlds import WORLDS

STADIUM = Stage(
    "stadium",
    ("stages/stadium.py", "worlds/scene.py", "worlds/render.py", "worlds/stadium.py", "worlds/broadcast.py", "video.py"),
    ("stadium", "seeds"),
)
LOCALISERS = Stage(
    "localisers",
    (
        *(f for f in (*WORLDS.files, *PRETRAIN.files) if f not in (*STADIUM.files, *READING)),
        *READING,
        "features.py",
        "localizing.py",
        "detection.py",
        "nms.py",
        "losses/localization.py",
        "models/actionformer.py",
    ),
    ("world", "model", "pretrain", "tal"),
    STADIUM,
)


def stadium(p: Params, must_exist: bool = False) -> None:
    """Film every recording to `data/<workspace>/stadium`: mp4 files, ground_truth.json in ActivityNet's layout, events.json.

    With `world.source: folder` nothing is filmed: the folder must hold real data.

    Raises:
        FileNotFoundError: Real data asked for and not there.
    """
    folder = p.data / "stadium"
    if p.world.source == "folder":
        if not (folder / "ground_truth.json").is_file():
            raise FileNotFoundError(
                f"{folder / 'ground_truth.json'}: profile {p.profile!r} reads real data; expected ground truth in ActivityNet's layout "
                "with subsets 'train' and 'test', and the videos beside it, found none"
            )
        return
    if not STADIUM.must_run(p, folder, must_exist):
        return
    from vlact.worlds import broadcast

    s, work = p.stadium, STADIUM.work(p)
    counts = {f"train{i}": s.train for i in range(len(p.seeds))} | {"test": s.test}
    todo = [(b, str(folder), str(work), s.size, s.fps) for b in broadcast.thumos(counts, s.seconds, s.seed)]
    found = jobs.run(broadcast.film_job, todo, p.workers, "filming the stadium")
    rows = [{"video": f["video"], "split": f["split"], "duration_s": f["duration_s"], **a} for f in found for a in f["annotations"]]
    activitynet.write_ground_truth(pd.DataFrame(rows), folder / "ground_truth.json")
    events = {f["video"]: {"distractors": f["distractors"], "poses": f["poses"]} for f in found}
    write_whole(folder / "events.json", lambda text, path: path.write_text(text), json.dumps(events) + "\n")
    STADIUM.finish(p, folder)


def truth_of(p: Params) -> pd.DataFrame:
    """Ground truth of the stadium, all splits."""
    return activitynet.ground_truth(p.data / "stadium" / "ground_truth.json", None)


def durations_of(truth: pd.DataFrame, split: str) -> dict[str, float]:
    """Seconds of every video of a split."""
    part = truth[truth["split"] == split].drop_duplicates("video")
    return dict(zip(part["video"], part["duration_s"], strict=True))


def features_of(p: Params) -> Path:
    """Features of all recordings, extracted once and kept in the scratch folder."""
    truth, encoder = truth_of(p), p.data / "pretrained" / f"seed{p.seeds[0]}.safetensors"
    path = p.scratch / "features" / f"{jobs.key(STADIUM.key(p), encoder, p.tal.stride)}.safetensors"
    if not path.is_file():
        from vlact.features import extract_job, gather

        parts = np.array_split(truth["video"].unique(), max(1, 4 * p.workers))
        todo = [
            (str(encoder), str(p.data / "stadium"), list(names), float(p.stadium.fps), p.tal.stride, str(path.with_suffix(f".{i}")))
            for i, names in enumerate(parts)
            if len(names)
        ]
        files = jobs.run(extract_job, todo, p.workers, "features of the stadium")
        gather(files, path)
        for f in files:
            Path(f).unlink()
    return path


def localisers(p: Params, must_exist: bool = False) -> None:
    """Vision-only ActionFormer for every seed: `data/<workspace>/localisers/detections.parquet` and curves.csv; the first seed's model."""
    folder = p.data / "localisers"
    if not LOCALISERS.must_run(p, folder, must_exist):
        return
    from vlact.localizing import localise_job
    from vlact.worlds.stadium import ACTIONS

    stadium(p, must_exist=True)
    pretraining(p, must_exist=True)
    truth, work, t = truth_of(p), LOCALISERS.work(p), p.tal
    truth.drop(columns="split").to_parquet(work / "truth.parquet", index=False)
    features, clock = features_of(p), {"step_s": t.stride / p.stadium.fps}
    shape = {"feature_dim": p.model.dim, "classes": len(ACTIONS), "dropout": t.dropout}
    shape |= {k: getattr(t, k) for k in ("dim", "heads", "embeds", "stems", "levels")}
    recipe = asdict(t) | {"nms": {"sigma": t.nms_sigma, "max_seg_num": t.max_seg_num}}
    todo = []
    for i, s in enumerate(p.seeds):
        own = f"train{i}" if f"train{i}" in set(truth["split"]) else "train"  # real data has one training set
        durations = {"train": durations_of(truth, own), "test": durations_of(truth, "test")}
        out = str(work / str(s)), str(work / f"{s}.pt")
        todo.append((str(features), durations, str(work / "truth.parquet"), list(ACTIONS), clock, shape, recipe, s, *out))
    curves = jobs.run(localise_job, todo, p.workers, "localisers")
    detections = pd.concat([pd.read_parquet(f"{job[-2]}.parquet") for job in todo], ignore_index=True)
    shutil.copy(f"{todo[0][-2]}.safetensors", folder / "localiser.safetensors")
    detections.to_parquet(folder / "detections.parquet", index=False)
    rows = [{"seed": s, **row} for s, curve in zip(p.seeds, curves, strict=True) for row in curve]
    pd.DataFrame(rows).to_csv(folder / "curves.csv", index=False, lineterminator="\n", float_format="%.6f")
    LOCALISERS.finish(p, folder)
