"""Stage `own_clips`: a user's own videos through zero-shot, fine-tuning and the SRT."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages.ace import ACE, BOTH, clip_table
from vlact.stages.pretrain import pretraining
from vlact.video import clips


def own_clips(
    p: Params,
    folder: Path,
    csv: Path,
    trees: Path | None,
    lr: float,
    epochs: int,
    skip_bad: bool = False,
):
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
        The task, the prediction table (its `clip` is a row of the clips' table) and the clips read,
        with the rows that were skipped.

    Raises:
        ValueError: See `vlact.datasets.folder.read`, `vlact.video.clips.load`.
    """
    from safetensors.torch import save_file

    from vlact.datasets import folder as own
    from vlact.models.text import sentence_encoder
    from vlact.models.zoo.ace import LITERAL, SLOW
    from vlact.papers.ace.trials import Files, Trial, TuneJob, keep_job, plan_texts

    pretraining(p, must_exist=True)
    table = own.read(csv)
    found = clips.load(
        folder,
        table,
        p.model.num_frames,
        p.model.image_size,
        p.ace.window_s,
        p.ace.views,
        skip_bad,
        p.workers,
        str(csv),
    )
    for split in ("train", "test"):
        if split not in set(found.table["split"]):
            raise ValueError(
                f"{csv}: no usable row is left in split {split!r}; skipped: "
                f"{'; '.join(found.skipped)}"
            )
    say = sentence_encoder(p.model.text)
    task = own.task(found.table, say, trees)
    kept = clip_table(found.table, task, (("train", "base"),))
    work = (
        p.scratch
        / "own"
        / jobs.key(ACE.key(p), csv, str(folder), str(trees), lr, epochs, found.table.to_csv())
    )
    work.mkdir(parents=True, exist_ok=True)
    clips.save_frames(work / "clips.npy", found.frames)
    words = sorted({*task.texts(), *plan_texts(task)})
    save_file(dict(zip(words, say(words), strict=True)), work / "words.safetensors")
    kept.to_parquet(work / "clips.parquet", index=False)
    model, ace, todo = asdict(p.model), asdict(p.ace), []
    for s in p.seeds:
        encoders = {"pretrained": str(p.data / "pretrained" / f"seed{s}.safetensors")}
        files = Files(
            encoders,
            *(
                str(work / n)
                for n in ("clips.npy", "words.safetensors", "clips.parquet", f"kept{s}")
            ),
        )
        for trial in (
            Trial("own", "zero-shot", "zero_shot", leaf=BOTH),
            Trial("own", "ProcVLR", "procvlr", leaf=BOTH),
            Trial("own", "ACE", "ace", leaf=(True,), options=LITERAL),
            Trial("own", "ACE slow", "ace", leaf=(True,), wise_ft=(True,), options=SLOW),
        ):
            keep_job(trial, files, task, model, ace, s)
            out = str(work / f"{trial.name}-{s}.parquet")
            todo.append(TuneJob(trial, files, {"own": task}, model, ace, [lr], [epochs], s, out))
    jobs.run(todo, p.workers, "own clips")
    predictions = pd.concat([pd.read_parquet(job.out) for job in todo], ignore_index=True)
    shutil.rmtree(work)
    return task, predictions, found


def findings(task, predictions: pd.DataFrame, found: clips.Clips, results: pd.DataFrame, model):
    """The report on one's own clips: every video's test clips, by what a model takes them for.

    Args:
        task, predictions, found: From `own_clips`.
        results: A row a model, for the page.
        model: Whose predictions of the first seed, under the classes' own names, are shown.
    """
    from vlact.report import own

    names = {
        "base": [" ".join(a).strip() for a in task.base],
        "novel": [" ".join(a).strip() for a in task.novel],
    }
    mine = predictions[(predictions["model"] == model) & (predictions["split"] == "test")]
    mine = mine[(mine["run"] == 0) & (mine["seed"] == mine["seed"].min())]
    table = found.table.loc[mine["clip"]].reset_index(drop=True)[["video", "start_s", "end_s"]]
    for column, number in (("label", "label"), ("said", "predicted")):
        table[column] = [names[m][k] for m, k in zip(mine["mode"], mine[number], strict=True)]
    right = table["label"] == table["said"]
    table = table.assign(score=float("nan"), kind=right.map({True: "found", False: "missed"}))
    verdict = right.map({True: "true positive", False: "wrong label"})
    said = table.assign(label=table["said"], kind=verdict)
    share = right.groupby(table["video"]).agg(["size", "sum"])
    videos = pd.DataFrame({"clips": share["size"], "right": share["sum"]})
    videos = videos.assign(accuracy=videos["right"] / videos["clips"])
    videos = videos.sort_values("accuracy", kind="stable").reset_index()
    lanes = {
        v: {lane: t[t["video"] == v] for lane, t in (("truth", table), (model, said))}
        for v in videos["video"]
    }
    tables = {
        "results": results,
        "videos": videos,
        "confusion": pd.crosstab(table["label"], table["said"]).rename_axis("truth").reset_index(),
        "clips": table.drop(columns=["kind", "score"]),
    }
    ends = found.table.groupby("video")["end_s"].max()
    durations = {v: float(ends[v]) for v in videos["video"]}
    notes = [f"Left out: {line}" for line in found.skipped]
    notes.append(f"{len(table)} test clips; timelines and confusion are of {model}, first seed.")
    return own.Findings("Your own clips", tables, lanes, durations, notes)
