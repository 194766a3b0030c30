"""The stages of the pipeline as functions: files in, files out, resumable.

A notebook calls its own stage, and those before it, which return at once when their outputs are there
and were made by the same code and parameters. In a scratch workspace (a notebook opened by itself) a
stale or missing input is made on the spot; in a pipeline workspace it is an error that says to run
`dvc repro`.
"""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from vlact import clips, jobs, schema
from vlact.params import Params

CODE = {  # what each stage's outputs depend on, as files under vlact/
    "worlds": ("worlds", "language/captions.yaml", "video.py"),
    "pretrain": ("models", "training.py", "clips.py", "video.py"),
    "ace": ("models", "training.py", "clips.py", "video.py", "losses", "language", "inference.py", "runs.py"),
}


def stage_key(p: Params, stage: str) -> str:
    """Hash of the code and parameters that a stage and those before it depend on."""
    values = asdict(p)
    parts: list = [jobs.source_key(*CODE["worlds"]), values["world"]]
    if stage != "worlds":
        parts += [jobs.source_key(*CODE["pretrain"]), values["model"], values["pretrain"], values["seeds"]]
    if stage == "ace":
        parts += [jobs.source_key(*CODE["ace"]), values["ace"]]
    return jobs.key(*parts)


def _done(p: Params, stage: str, folder: Path) -> bool:
    note = folder / "made_by.json"
    return note.is_file() and json.loads(note.read_text())["key"] == stage_key(p, stage)


def _finish(p: Params, stage: str, folder: Path) -> None:
    temporary = folder / "made_by.tmp"
    temporary.write_text(json.dumps({"stage": stage, "key": stage_key(p, stage)}) + "\n")
    os.replace(temporary, folder / "made_by.json")
    shutil.rmtree(p.scratch / stage, ignore_errors=True)


def _need(p: Params, stage: str, folder: Path) -> bool:
    """Whether an input stage must run here; outside scratch workspaces that is an error."""
    if _done(p, stage, folder):
        return False
    if p.workspace == p.profile:
        raise FileNotFoundError(f"{folder}: expected the output of stage '{stage}' made by this code and these parameters; run `make repro PROFILE={p.profile}`")
    return True


# 1. Worlds
def worlds(p: Params, must_exist: bool = False) -> None:
    """Render both corpora to `data/<workspace>/worlds/{tutorial,ata}`: mp4 files and annotations.csv.

    With `world.source: folder` nothing is rendered: the same two folders must hold real data.

    Raises:
        FileNotFoundError: Real data asked for and not there.
    """
    folder = p.data / "worlds"
    if p.world.source == "folder":
        for name in ("tutorial", "ata"):
            if not (folder / name / "annotations.csv").is_file():
                raise FileNotFoundError(
                    f"{folder / name / 'annotations.csv'}: profile {p.profile!r} reads real data; expected a csv with columns "
                    f"{', '.join(schema.ANNOTATION)} and the videos beside it, found none"
                )
        return
    if _done(p, "worlds", folder) or (must_exist and not _need(p, "worlds", folder)):
        return
    from vlact.worlds import corpus

    w, work = p.world, p.scratch / "worlds" / stage_key(p, "worlds")
    sets = {
        "tutorial": (corpus.tutorials(w.tutorial_videos, w.tutorial_steps, w.seed), w.tutorial_step_s),
        "ata": (corpus.ata(w.ata_people, w.ata_repeats, w.ata_steps, w.seed), w.ata_step_s),
    }
    for name, (recordings, mean_s) in sets.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        todo = [(r, str(folder / name), str(work / name), w.size, w.fps, mean_s) for r in recordings]
        rows = sum(jobs.run(corpus.film_job, todo, p.workers, f"rendering {name}"), [])
        corpus.write_table(folder / name / "annotations.csv", rows)
    _finish(p, "worlds", folder)


# 2. Pretraining
def frames_of(p: Params, name: str, window_s: float | None, views: int) -> tuple[pd.DataFrame, Path]:
    """Clips of one corpus, decoded from its files once and kept as npy in the scratch folder."""
    folder = p.data / "worlds" / name
    csv = folder / "annotations.csv"
    table = schema.read_annotations(csv)
    code = jobs.source_key("clips.py", "video.py")
    path = p.scratch / "clips" / f"{jobs.key(csv, code, stage_key(p, 'worlds'), p.model.num_frames, p.model.image_size, window_s, views)}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = clips.load(folder, table, p.model.num_frames, p.model.image_size, window_s, views, workers=p.workers, source=str(csv))
        clips.save_frames(path, found.frames)
    return table, path


def pretraining(p: Params, must_exist: bool = False) -> None:
    """Both rungs of the ladder for every seed: `data/<workspace>/pretrained/seed<k>.safetensors`, curves.csv."""
    folder = p.data / "pretrained"
    if _done(p, "pretrain", folder) or (must_exist and not _need(p, "pretrain", folder)):
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
    labels |= {split: np.flatnonzero(table["split"] == split).tolist() for split in ("train", "val")}
    config, model = asdict(p.pretrain), asdict(p.model)
    todo = [(config, model, str(frames), labels, str(work / f"trunk{s}.safetensors"), str(work / f"trunk{s}.pt"), s) for s in p.seeds]
    curves = jobs.run(pretrain, todo, p.workers, "pretraining")
    captions = table["caption"][labels["train"]].tolist()
    words = sorted(set(captions))
    texts = work / "captions.safetensors"
    save_file(dict(zip(words, sentence_encoder()(words), strict=True)), texts)
    todo = [
        (str(work / f"trunk{s}.safetensors"), str(frames), captions, labels["train"], str(texts), config, str(folder / f"seed{s}.safetensors"), s)
        for s in p.seeds
    ]
    aligned = jobs.run(align_job, todo, p.workers, "alignment")
    rows = [{"stage": stage, "seed": s, **row} for stage, found in (("trunk", curves), ("align", aligned)) for s, curve in zip(p.seeds, found, strict=True) for row in curve]
    pd.DataFrame(rows).to_csv(folder / "curves.csv", index=False, lineterminator="\n")
    _finish(p, "pretrain", folder)


# 3. ACE
def ata_task(p: Params):
    """The ATA task with the shipped trees, and the one with context-free trees."""
    from vlact.language import tasks
    from vlact.language.trees import Trees, context_free
    from vlact.models.text import sentence_encoder

    verbs = tuple(dict.fromkeys(v for v, _ in tasks.ATA_BASE + tasks.ATA_NOVEL))
    trees = Trees.load("ata", verbs)
    return tasks.ata(trees, p.ace.idle), tasks.ata(context_free(trees, sentence_encoder()), p.ace.idle)


def clip_table(table: pd.DataFrame, task, needed=(("train", "base"), ("val", "base"), ("test", "novel"))) -> pd.DataFrame:
    """Rows of the annotation table that the task uses, with class numbers.

    Adds `clip` (row of the annotation table), `mode` ("base" or "novel"), `part` ("train" or "test") and
    the class number `label` within its mode. Novel actions outside the test split are left out.

    Raises:
        ValueError: A label that is no action of the task, or a split without a clip that it needs.
    """
    from vlact.language.trees import phrase

    number = {phrase(*a): ("base", i) for i, a in enumerate(task.base)} | {phrase(*a): ("novel", i) for i, a in enumerate(task.novel)}
    unknown = sorted(set(table["label"]) - set(number))
    if unknown:
        row = int(table.index[table["label"] == unknown[0]][0])
        raise ValueError(f"line {row + 2}: unknown label {unknown[0]!r}; expected one of {sorted(number)}")
    out = pd.DataFrame(
        {
            "clip": np.arange(len(table)),
            "split": table["split"].to_numpy(),
            "mode": [number[x][0] for x in table["label"]],
            "label": [number[x][1] for x in table["label"]],
        }
    )
    out["part"] = np.where(out["split"] == "train", "train", "test")
    out = out[(out["mode"] == "base") | (out["split"] == "test")].reset_index(drop=True)
    for split, mode in needed:
        if not ((out["split"] == split) & (out["mode"] == mode)).any():
            raise ValueError(f"split {split!r} has no clip of a {mode} action; expected some for {' and '.join(map(str, needed))}")
    return out


def ace(p: Params, must_exist: bool = False) -> None:
    """The whole grid on ATA: `data/<workspace>/ace/predictions.parquet` and the chosen models of seed 0."""
    folder = p.data / "ace"
    if _done(p, "ace", folder) or (must_exist and not _need(p, "ace", folder)):
        return
    from safetensors.torch import save_file

    from vlact.language.trees import ActionTexts
    from vlact.metrics.selection import choose
    from vlact.models.text import sentence_encoder
    from vlact.runs import ace_job, concept_job, token_job

    pretraining(p, must_exist=True)
    folder.mkdir(parents=True, exist_ok=True)
    work = p.scratch / "ace" / stage_key(p, "ace")
    work.mkdir(parents=True, exist_ok=True)
    annotations, frames = frames_of(p, "ata", p.ace.window_s, p.ace.views)
    task, control = ata_task(p)
    table = clip_table(annotations, task)
    words = sorted({t for k in (task, control) for t in k.texts() + ActionTexts(list(k.base), k.trees).texts})
    texts = work / "texts.safetensors"
    if not texts.is_file():
        save_file(dict(zip(words, sentence_encoder()(words), strict=True)), texts)
    config = asdict(p.ace)
    encoder = {s: str(p.data / "pretrained" / f"seed{s}.safetensors") for s in p.seeds}
    tokens = {s: str(work / f"tokens{s}.safetensors") for s in p.seeds}
    train, test = (table["clip"][table["part"] == part].tolist() for part in ("train", "test"))
    jobs.run(token_job, [(encoder[s], str(frames), train, test, p.ace.trained_blocks, tokens[s]) for s in p.seeds], p.workers, "frozen blocks")

    def job(trained: str, seed: int, lr: float, epochs: list[int], model_out: str | None = None) -> tuple:
        which = control if trained == "ace_context_free" else task
        name = f"{trained}-s{seed}-lr{lr:g}-e{max(epochs)}{'-model' if model_out else ''}.parquet"
        return (encoder[seed], tokens[seed], str(texts), which, table, trained, config, lr, epochs, seed, str(work / name), model_out)

    todo = [job("zero_shot", s, 0.0, [0]) for s in p.seeds]
    todo += [job(m, s, lr, list(p.ace.epochs)) for s in p.seeds for m in p.ace.methods for lr in p.ace.lrs]
    jobs.run(ace_job, todo, p.workers, "fine-tuning grid")
    found = pd.concat([pd.read_parquet(j[10]) for j in todo], ignore_index=True)
    chosen = choose(found)
    keep = []
    for trained, name in (("procvlr", "ProcVLR"), ("ace", "ACE")):
        cell = chosen.loc[name]
        keep.append(job(trained, p.seeds[0], float(cell["lr"]), [int(cell["epoch"])], str(folder / f"{trained}.safetensors")))
    jobs.run(ace_job, keep, p.workers, "chosen models")
    models = {name: str(folder / f"{trained}.safetensors") for trained, name in (("procvlr", "ProcVLR"), ("ace", "ACE"))}
    frozen = p.model.depth - p.ace.trained_blocks
    concept_job(models, tokens[p.seeds[0]], str(texts), task, table, frozen, str(folder))
    for column in ("model", "split", "mode"):
        found[column] = found[column].astype("category")
    found.to_parquet(folder / "predictions.parquet", index=False)
    table.to_csv(folder / "clips.csv", index=False, lineterminator="\n")
    _finish(p, "ace", folder)


# 4. A user's own clips
def own_clips(p: Params, folder: Path, csv: Path, trees: Path | None, lr: float, epochs: int, skip_bad: bool = False):
    """Zero-shot, ProcVLR and ACE fine-tuning and the SRT on one's own videos, for every seed.

    Args:
        p: Profile; its pretrained encoders are used.
        folder: Where the videos are.
        csv: `path,start_s,end_s,label,split`, see `vlact.datasets.folder`.
        trees: Tree file; None uses nearest words.
        lr: Learning rate of both fine-tunings.
        epochs: Epochs of both.
        skip_bad: Leave unusable rows out and list them, instead of raising.

    Returns:
        The task, the prediction table and the list of skipped rows.

    Raises:
        ValueError: See `vlact.datasets.folder.read`, `vlact.clips.load`.
    """
    from safetensors.torch import save_file

    from vlact.datasets import folder as own
    from vlact.language.trees import ActionTexts
    from vlact.models.text import sentence_encoder
    from vlact.runs import ace_job, token_job

    pretraining(p, must_exist=True)
    table = own.read(csv)
    found = clips.load(folder, table, p.model.num_frames, p.model.image_size, p.ace.window_s, p.ace.views, skip_bad, p.workers, str(csv))
    for split in ("train", "test"):
        if split not in set(found.table["split"]):
            raise ValueError(f"{csv}: no usable row is left in split {split!r}; skipped: {'; '.join(found.skipped)}")
    task = own.task(found.table, sentence_encoder(), trees)
    kept = clip_table(found.table, task, (("train", "base"),))
    work = p.scratch / "own" / jobs.key(stage_key(p, "ace"), csv, str(folder), str(trees), lr, epochs, found.table.to_csv())
    work.mkdir(parents=True, exist_ok=True)
    clips.save_frames(work / "clips.npy", found.frames)
    words = sorted({*task.texts(), *ActionTexts(list(task.base), task.trees).texts})
    save_file(dict(zip(words, sentence_encoder()(words), strict=True)), work / "texts.safetensors")
    train, test = (kept["clip"][kept["part"] == part].tolist() for part in ("train", "test"))
    todo = []
    for s in p.seeds:
        encoder, tokens = str(p.data / "pretrained" / f"seed{s}.safetensors"), str(work / f"tokens{s}.safetensors")
        token_job(encoder, str(work / "clips.npy"), train, test, p.ace.trained_blocks, tokens)
        for trained in ("zero_shot", "procvlr", "ace"):
            out = str(work / f"{trained}{s}.parquet")
            todo.append((encoder, tokens, str(work / "texts.safetensors"), task, kept, trained, asdict(p.ace), lr, [epochs], s, out))
    jobs.run(ace_job, todo, p.workers, "own clips")
    predictions = pd.concat([pd.read_parquet(j[10]) for j in todo], ignore_index=True)
    shutil.rmtree(work)
    return task, predictions, found.skipped
