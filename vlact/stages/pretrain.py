"""Stage `pretrain`: the pretraining ladder, one encoder a seed."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from vlact import clips, jobs, schema
from vlact.params import Params
from vlact.stages import finish, must_run, stage_key
from vlact.stages.worlds import worlds
from vlact.training import NOTHING


def frames_of(p: Params, name: str, window_s: float | None, views: int) -> tuple[pd.DataFrame, Path]:
    """Clips of one corpus, decoded from its files once and kept as npy in the scratch folder."""
    folder = p.data / "worlds" / name
    csv = folder / "annotations.csv"
    table = schema.read_annotations(csv)
    code = jobs.source_key("clips.py", "video.py")
    path = (
        p.scratch / "clips" / f"{jobs.key(csv, code, stage_key(p, 'worlds'), p.model.num_frames, p.model.image_size, window_s, views)}.npy"
    )
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = clips.load(folder, table, p.model.num_frames, p.model.image_size, window_s, views, workers=p.workers, source=str(csv))
        clips.save_frames(path, found.frames)
    return table, path


def pretraining(p: Params, must_exist: bool = False) -> None:
    """Both rungs of the ladder for every seed: `data/<workspace>/pretrained/seed<k>.safetensors`, curves.csv."""
    folder = p.data / "pretrained"
    if not must_run(p, "pretrain", folder, must_exist):
        return
    from safetensors.torch import save_file

    from vlact.models.text import sentence_encoder
    from vlact.runs import align_job
    from vlact.training import pretrain

    worlds(p, must_exist=True)
    folder.mkdir(parents=True, exist_ok=True)
    work = p.scratch / "pretrain" / stage_key(p, "pretrain")
    work.mkdir(parents=True, exist_ok=True)
    table, frames = frames_of(p, "tutorial", None, 1)
    labels = {k: pd.factorize(table[k], sort=True)[0].tolist() for k in ("verb", "object")}
    labels["object"] = np.where(table["object"] == "", NOTHING, labels["object"]).tolist()
    labels |= {split: np.flatnonzero(table["split"] == split).tolist() for split in ("train", "val")}
    config, model = asdict(p.pretrain), asdict(p.model)
    todo = [(config, model, str(frames), labels, str(work / f"trunk{s}.safetensors"), str(work / f"trunk{s}.pt"), s) for s in p.seeds]
    curves = jobs.run(pretrain, todo, p.workers, "pretraining")
    heard = sorted(np.random.default_rng(p.world.seed).permutation(labels["train"])[: p.pretrain.align_clips].tolist())
    captions = table["caption"][heard].tolist()
    words = sorted(set(captions))
    texts = work / "captions.safetensors"
    save_file(dict(zip(words, sentence_encoder()(words), strict=True)), texts)
    todo = [
        (str(work / f"trunk{s}.safetensors"), str(frames), captions, heard, str(texts), config, str(folder / f"seed{s}.safetensors"), s)
        for s in p.seeds
    ]
    aligned = jobs.run(align_job, todo, p.workers, "alignment")
    rows = [
        {"stage": stage, "seed": s, **row}
        for stage, found in (("trunk", curves), ("align", aligned))
        for s, curve in zip(p.seeds, found, strict=True)
        for row in curve
    ]
    pd.DataFrame(rows).to_csv(folder / "curves.csv", index=False, lineterminator="\n")
    frames.unlink()
    finish(p, "pretrain", folder)
