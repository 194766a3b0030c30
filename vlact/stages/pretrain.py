"""Stage `pretrain`: the pretraining ladder, one set of encoders a seed."""

import itertools
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from vlact import ROOT, schema
from vlact.params import Params
from vlact.runtime import jobs
from vlact.runtime.code import module_hash
from vlact.stages import Stage
from vlact.stages.worlds import WORLDS, worlds
from vlact.training.pretraining import (
    NOTHING,
    AlignJob,
    HoldOutJob,
    NarrateJob,
    PretrainFramesJob,
    PretrainJob,
    published,
)
from vlact.video import clips

PRETRAIN = Stage(
    "pretrain",
    __name__,
    ("model", "pretrain", "seeds"),
    WORLDS,
)

# of rungs that were trained here
CURVE = ["stage", "seed", "step", "loss", "val_caption", "val_verb", "val_object"]


def frames_of(
    p: Params, name: str, window_s: float | None, views: int, frames: int = 0
) -> tuple[pd.DataFrame, Path]:
    """Clips of one corpus, decoded from its files once and kept as npy in the scratch folder; of
    `frames` frames, 0 for as many as the model has.
    """
    frames = frames or p.model.num_frames
    folder = p.data / "worlds" / name
    csv = folder / "annotations.csv"
    table = schema.read_annotations(csv)
    code = module_hash("vlact.video.clips")
    key = jobs.key(csv, code, WORLDS.key(p), frames, p.model.image_size, window_s, views)
    path = p.scratch / "clips" / f"{key}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = clips.load(
            folder,
            table,
            frames,
            p.model.image_size,
            window_s,
            views,
            workers=p.workers,
            source=str(csv),
        )
        clips.save_frames(path, found.frames)
    return table, path


def novel_programs() -> set[str]:
    """Motion programs of the actions that one of ACE's datasets calls novel."""
    from vlact.language.tasks import DATASETS
    from vlact.worlds.corpus import PROGRAM

    return {PROGRAM.get(verb, verb) for _, novel in DATASETS.values() for verb, _ in novel}


def labels_of(table: pd.DataFrame, hidden: pd.Series | None = None) -> dict[str, list[int]]:
    """Class numbers of verb and object of every clip; `NOTHING` where none is told, as of the verb
    of `hidden` clips.
    """
    told = table[["verb", "object"]].copy()
    if hidden is not None:
        told.loc[hidden, "verb"] = ""
    return {
        k: np.where(told[k] == "", NOTHING, pd.factorize(told[k], sort=True)[0]).tolist()
        for k in told
    }


def rows_of(table: pd.DataFrame, hidden: pd.Series | None = None) -> dict[str, list[int]]:
    """Row numbers of the training and the validation clips, without the `hidden` ones."""
    shown = True if hidden is None else ~hidden
    return {
        split: np.flatnonzero((table["split"] == split) & shown).tolist()
        for split in ("train", "val")
    }


def trained_frames(p: Params, work: Path, seeds: list[int]) -> dict[int, str]:
    """CLIP on frames for seeds that `pretraining` has none for, in the scratch folder of a stage:
    files by seed.
    """
    from safetensors.torch import save_file

    from vlact.models.text import sentence_encoder

    files = {s: str(work / f"frames{s}.safetensors") for s in seeds}
    if not (todo := [s for s in seeds if not Path(files[s]).is_file()]):
        return files
    table, frames = frames_of(p, "tutorial", None, 1)
    captions, texts = table["caption"].tolist(), str(work / "captions.safetensors")
    words = sorted(set(captions))
    save_file(dict(zip(words, sentence_encoder(p.model.text)(words), strict=True)), texts)
    given = asdict(p.pretrain), asdict(p.model), str(frames), captions, rows_of(table), texts
    made = [PretrainFramesJob(*given, files[s], str(work / f"frames{s}.pt"), seed=s) for s in todo]
    jobs.run(made, p.workers, "frames of more seeds")
    frames.unlink()
    return files


def pretraining(p: Params, must_exist: bool = False) -> None:
    """The ladder for every seed, as safetensors and curves.csv under `data/<workspace>/pretrained`.

    `frames<k>`: CLIP on frames, with captions. `seed<k>`: the TimeSformer inflated from it, trained
    on labels, then aligned with captions. `heldframes<k>`, `held<k>`: the same two, told less of
    the actions that ACE calls novel (`pretrain.novel`). `vlog<k>`: `seed<k>`, trained further on
    egocentric narrations. With `pretrain.checkpoints` published weights stand in for CLIP and the
    trunk, the same for every seed.
    """
    folder = p.data / "pretrained"
    if not PRETRAIN.must_run(p, folder, must_exist):
        return
    from safetensors.torch import save_file

    from vlact.models.text import sentence_encoder

    worlds(p, must_exist=True)
    work = PRETRAIN.work(p)
    table, frames = frames_of(p, "tutorial", None, 1)
    vlog, vlog_frames = frames_of(p, "vlog", None, 1)
    words = sorted({*table["caption"], *vlog["caption"]})
    texts = str(work / "captions.safetensors")
    save_file(dict(zip(words, sentence_encoder(p.model.text)(words), strict=True)), texts)
    labels, rows = labels_of(table), rows_of(table)
    config, model, captions = asdict(p.pretrain), asdict(p.model), table["caption"].tolist()

    def at(kind: str, s: int, end: str = "safetensors") -> str:
        return str(
            (folder if end == "safetensors" and kind != "trunk" else work) / f"{kind}{s}.{end}"
        )

    def saved(kind: str, s: int) -> tuple[str, str]:
        return at(kind, s), at(kind, s, "pt")

    given = config, model, str(frames)
    files, looks, trunks, aligned = p.pretrain.checkpoints, [], [], []
    ready = {
        k: jobs.kept(
            work / f"{k}.json",
            lambda k=k: published(k, str(ROOT / files[k]), model, at(k, p.ace_seeds[0])),
        )
        for k in files
    }
    for kind, s in itertools.product(ready, p.ace_seeds[1:]):
        shutil.copy(at(kind, p.ace_seeds[0]), at(kind, s))
    if "frames" not in ready:
        todo = [
            PretrainFramesJob(*given, captions, rows, texts, *saved("frames", s), seed=s)
            for s in p.ace_seeds
        ]
        looks = jobs.run(todo, p.workers, "frames")
    if "trunk" not in ready:
        todo = [
            PretrainJob(*given, labels | rows, at("frames", s), *saved("trunk", s), seed=s)
            for s in p.ace_seeds
        ]
        trunks = jobs.run(todo, p.workers, "pretraining")
    heard = sorted(
        np.random.default_rng(p.world.seed)
        .permutation(rows["train"])[: p.pretrain.align_clips]
        .tolist()
    )
    told = [captions[i] for i in heard]
    if ready.get("trunk"):
        for s in p.ace_seeds:
            shutil.copy(at("trunk", s), at("seed", s))
    else:
        todo = [
            AlignJob(config, at("trunk", s), str(frames), told, heard, texts, at("seed", s), s)
            for s in p.ace_seeds
        ]
        aligned = jobs.run(todo, p.workers, "alignment")
        if p.pretrain.novel != "labelled":
            hidden = table["verb"].isin(novel_programs())
            known = hidden & (p.pretrain.novel == "unnamed")
            shown = [i for i in heard if not known[i]]
            told_less = config | {"align_noise": p.pretrain.held_noise}
            start = "frames"
            if p.pretrain.held_frames:
                start, less = "heldframes", rows_of(table, known)
                todo = [
                    PretrainFramesJob(*given, captions, less, texts, *saved(start, s), seed=s)
                    for s in p.ace_seeds
                ]
                jobs.run(todo, p.workers, "frames without the novel actions")
            todo = [
                HoldOutJob(
                    told_less,
                    *given[1:],
                    labels_of(table, hidden) | rows,
                    captions,
                    shown,
                    texts,
                    at(start, s),
                    at("held", s),
                    str(work / f"held{s}.pt"),
                    s,
                )
                for s in p.ace_seeds
            ]
            jobs.run(todo, p.workers, "pretraining without the novel actions")
    told = vlog["caption"].tolist()
    everything = list(range(len(vlog)))
    todo = [
        NarrateJob(
            config, at("seed", s), str(vlog_frames), told, everything, texts, at("vlog", s), s
        )
        for s in p.ace_seeds
    ]
    narrated = jobs.run(todo, p.workers, "narrations")
    curves = [
        {"stage": stage, "seed": s, **row}
        for stage, found in (
            ("frames", looks),
            ("trunk", trunks),
            ("align", aligned),
            ("vlog", narrated),
        )
        # none of a rung that a published file stands in for
        for s, curve in zip(p.ace_seeds, found, strict=False)
        for row in curve
    ]
    pd.DataFrame(curves, columns=CURVE).to_csv(
        folder / "curves.csv", index=False, lineterminator="\n"
    )
    frames.unlink()
    vlog_frames.unlink()
    PRETRAIN.finish(p, folder)
