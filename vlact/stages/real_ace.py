"""Stage `real_ace`: ACE and its baselines on real clips, every partition, split and seed."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd
from safetensors.torch import save_file

from vlact.language.trees import Trees, phrase
from vlact.metrics.selection import choose
from vlact.models.text import sentence_encoder
from vlact.papers.ace.real import ACTIONS, Files, Trial, TrialJob, partitions
from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage
from vlact.stages.real_video import VIDEO, real_video

REAL_ACE = Stage("real_ace", __name__, ("real", "ace"), VIDEO)
CELL = ["dataset", "model", "leaf", "lr", "epoch"]


def trials(p: Params, name: str, splits: int) -> list[Trial]:
    """Every partition, official split and seed of one set."""
    actions = list(ACTIONS[name].values())
    return [
        Trial(name, number, novel, split, seed)
        for number, novel in enumerate(partitions(actions, p.real.shuffles))
        for split in range(1, splits + 1)
        for seed in range(p.real.seeds)
    ]


def strings_of(name: str, trees: Trees) -> list[str]:
    """Every string that any partition can ask for: all words with all objects."""
    objects = dict.fromkeys(o for _, o in ACTIONS[name].values())
    return sorted({phrase(w, o) for w in trees.lexicon() for o in objects})


def real_ace(p: Params, must_exist: bool = False) -> Path:
    """Train and test every method; choose each one's cell on base validation clips.

    Writes to data/<workspace>/real_ace: `scores.parquet` (one row a trial and cell),
    `chosen.csv` (each method's cell) and `predictions.parquet` (of the chosen cells, one row a
    trial, label set and clip). A set that is not here has no rows.

    Raises:
        FileNotFoundError: In a pipeline, what `real_video` writes is missing or stale.
    """
    out = p.data / "real_ace"
    if not REAL_ACE.must_run(p, out, must_exist):
        return out
    video, work = real_video(p, must_exist=p.workspace == p.profile), REAL_ACE.work(p)
    ace = asdict(p.ace) | {"batch_size": p.real.batch_size}
    say, todo = sentence_encoder(), []
    for name in ACTIONS:
        table, trees = video / f"{name}.parquet", Trees.load(name)
        if not table.is_file():
            continue
        words, file = strings_of(name, trees), work / f"{name}-words.safetensors"
        if not file.is_file():
            told = dict(zip(words, say(words), strict=True))
            jobs.write_whole(file, lambda d, f: save_file(d, f), told)
        columns = pd.read_parquet(table).columns
        splits = sum(c.startswith("split") for c in columns)
        for trial in trials(p, name, splits):
            aligned = video / "aligned" / f"{trial.seed}.safetensors"
            start = str(aligned) if name == "jhmdb" and aligned.is_file() else ""
            files = Files(str(table), str(video / f"{name}.safetensors"), str(file), start)
            grid = p.real.lrs, p.real.epochs
            path = str(work / f"{trial.name}.parquet")
            todo.append(TrialJob(trial, files, trees, ace, *grid, path))
    jobs.run(todo, p.workers, "ACE on real clips")
    if todo:
        paths = [Path(job.out) for job in todo]
        scores = pd.concat([pd.read_parquet(f.with_suffix(".scores.parquet")) for f in paths])
        cells = choose(scores)
        kept = [pd.read_parquet(f).merge(cells[CELL], on=CELL) for f in paths]
        predictions = pd.concat(kept, ignore_index=True)
        for column in ("dataset", "model", "split", "mode"):
            predictions[column] = predictions[column].astype("category")
        scores.to_parquet(out / "scores.parquet", index=False)
        cells.to_csv(out / "chosen.csv", index=False, lineterminator="\n")
        predictions.drop(columns=["lr", "epoch"]).to_parquet(
            out / "predictions.parquet", index=False
        )
    REAL_ACE.finish(p, out)
    return out
