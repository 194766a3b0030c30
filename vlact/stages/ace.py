"""Stage `ace_train`: the whole fine-tuning grid on ATA."""

from dataclasses import asdict

import numpy as np
import pandas as pd

from vlact import jobs
from vlact.params import Params
from vlact.stages import finish, must_run, stage_key
from vlact.stages.pretrain import frames_of, pretraining


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
    if not must_run(p, "ace", folder, must_exist):
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
    used = (task, control) if "ace_context_free" in p.ace.methods else (task,)
    words = {t for k in used for t in k.texts() + ActionTexts(list(k.base), k.trees).texts}
    words = sorted(words | {t for *_, t in task.nodes()})
    texts = work / "texts.safetensors"
    if not texts.is_file():
        save_file(dict(zip(words, sentence_encoder()(words), strict=True)), texts)
    config = asdict(p.ace)
    encoder = {s: str(p.data / "pretrained" / f"seed{s}.safetensors") for s in p.seeds}
    tokens = {s: str(work / f"tokens{s}.safetensors") for s in p.seeds}
    train, test = (table["clip"][table["part"] == part].tolist() for part in ("train", "test"))
    jobs.run(
        token_job, [(encoder[s], str(frames), train, test, p.ace.trained_blocks, tokens[s]) for s in p.seeds], p.workers, "frozen blocks"
    )

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
    finish(p, "ace", folder)
