"""Stage `transfer`: models on coarse and fine motions of Syn-TA, on realistic and on plain
backgrounds, both directions; before, those that do not come from CLIP on other clips.
"""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd

from vlact.datasets import transfer as lists
from vlact.language.motions import SETS, coarse_names, fine_names, taxonomy
from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage
from vlact.stages.pretrain import PRETRAIN, frames_of, labels_of, pretraining
from vlact.stages.pretrain import rows_of as split_of
from vlact.stages.synta import synta
from vlact.video import clips

TRANSFER = Stage("transfer", __name__, ("synta", "transfer"), PRETRAIN)


DIFFERENCES = ", differences"  # after the name of a model that sees frame differences, too
# whose features a method is trained on; the other one is trained before, on the same clips
TEACHERS = {"CIR": "SlowFast"}


@dataclass(frozen=True)
class Row:
    """A model on a task and background, in both directions.

    Attributes:
        kind: Of `vlact.papers.transfer.benchmark`.
        task, background: See there.
        options: Of its class, and what of the recipe is its own.
        seeds: The first so many.
        label: What it is called in the tables.
    """

    kind: str
    task: str
    background: str
    options: dict
    seeds: int
    label: str

    @property
    def origin(self) -> str:
        """What it is called among models that were trained on tutorials, "" if it comes from CLIP
        or from nothing.
        """
        seen = "_differences" if self.options.get("motion") else ""
        return self.kind + seen if self.options.get("pretrained") else ""

    @property
    def teacher(self) -> str:
        """Of `TEACHERS`, "" for none."""
        return TEACHERS[self.kind] if self.options.get("taught") else ""

    def name(self, which: int, seed: int) -> str:
        """Of the files of one training."""
        return f"{self.background}-{self.label}-{self.task}-{which}-{seed}".replace(", ", "_")


def rows_of(p: Params) -> list[Row]:
    """Every row of Tables 2 to 4, and those that see differences between frames; a method that has
    a teacher comes after it.

    Raises:
        ValueError: A model, or a teacher, is not among `transfer.models`.
    """
    from vlact.papers.transfer.benchmark import BY_NAME

    t = p.transfer
    taught = [TEACHERS[k] for k in TEACHERS if t.models.get(k, {}).get("taught")]
    asked = {"plain": t.plain, "plain_fine": t.plain_fine, "differences": t.differences}
    for where, names in (asked | {"taught": taught}).items():
        if lacking := [k for k in names if k not in t.models]:
            raise ValueError(
                f"transfer.{where}: {lacking} asked for, and transfer.models has only "
                f"{list(t.models)}; add the model there, or take it out here"
            )
    wanted = [(k, "coarse", "realistic", t.seeds) for k in t.models]
    wanted += [(k, "fine", "realistic", t.few_seeds) for k in t.models if k in BY_NAME]
    wanted += [(k, "coarse", "plain", t.few_seeds) for k in t.plain]
    wanted += [(k, "fine", "plain", t.few_seeds) for k in t.plain_fine]
    rows = [Row(k, task, b, t.models[k], n, k) for k, task, b, n in wanted]
    moved = [(k, t.models[k] | {"motion": True} | own) for k, own in t.differences.items()]
    rows += [
        Row(k, "coarse", "realistic", options, t.few_seeds, f"{k}{DIFFERENCES}")
        for k, options in moved
    ]
    return sorted(rows, key=lambda row: bool(row.teacher))


def prepared(p: Params, work: Path, background: str) -> tuple[str, str]:
    """Frames (npy) and rows (parquet) of all clips on a background, in the scratch folder of a
    stage.

    Training clips whose id is above `transfer.train_ids` are in a part of their own, "more".
    """
    from vlact.worlds.synta import SECONDS

    source, path = p.data / "synta", work / f"{background}.npy"
    rows = work / "table.parquet"
    if not path.is_file():
        table = lists.clips(source, taxonomy("Syn-TA"), source / background)
        beyond = (table["part"] == "train") & (
            table["video"].str.extract(r"_id_(\d+)\.")[0].astype(int) > p.transfer.train_ids
        )
        table.assign(part=table["part"].mask(beyond, "more")).to_parquet(rows, index=False)
        found = clips.load(
            source / background,
            table.assign(start_s=0.0, end_s=SECONDS),
            p.transfer.clip_frames,
            p.synta.size,
            workers=p.workers,
            source=str(source),
        )
        clips.save_frames(path, found.frames[:, 0])
    return str(path), str(rows)


def starts(p: Params, work: Path, folder: Path, rows: list[Row], seeds: list[int]) -> None:
    """Train the models that start from motion programs of the tutorials, one a seed: files
    `<origin>-<seed>.safetensors` in `folder`.

    Args:
        work: Scratch folder of the stage.
        rows: Whose `origin` counts, on the first `seeds` of each.
        seeds: All of them.
    """
    wanted = {(r.origin, s): r for r in rows if r.origin for s in seeds[: r.seeds]}
    todo = {k: r for k, r in wanted.items() if not start_of(folder, *k).is_file()}
    if not todo:
        return
    from vlact.papers.transfer.benchmark import PretrainJob

    table, frames = frames_of(p, "tutorial", None, 1, p.transfer.clip_frames)
    names = sorted(table["verb"].unique())  # of motion programs, in the order of `labels_of`
    made = []
    for (origin, seed), row in todo.items():
        own = {"epochs": p.transfer.pretrain_epochs, "lr": row.options["pretrained"]}
        options, recipe = recipe_of(p, row.options, **own)
        given = str(frames), names, labels_of(table)["verb"], split_of(table)["train"]
        kept = str(start_of(folder, origin, seed)), str(work / f"start-{origin}-{seed}.pt")
        made.append(PretrainJob(row.kind, options, *given, recipe, seed, *kept))
    jobs.run(made, p.workers, "models on tutorials")
    frames.unlink()


def start_of(folder: Path, origin: str, seed: int) -> Path:
    """Where `starts` leaves a model."""
    return folder / f"{origin}-{seed}.safetensors"


def words_of(p: Params, names: list[str], path: Path) -> str:
    """Frozen features of names as one file; where ActionCLIP is among the models, in its sentences,
    too.
    """
    from safetensors.torch import save_file

    from vlact.models.text import sentence_encoder
    from vlact.models.zoo.actionclip import TEMPLATES

    if not path.is_file():
        texts = sorted(
            {
                t.format(n)
                for n in names
                for t in (TEMPLATES if "ActionCLIP" in p.transfer.models else ("{}",))
            }
        )
        save_file(dict(zip(texts, sentence_encoder(p.model.text)(texts), strict=True)), path)
    return str(path)


RECIPE = ("epochs", "batch_size", "lr", "weight_decay", "smoothing")


def recipe_of(p: Params, options: dict, **changes) -> tuple[dict, dict]:
    """Options of a model's class and the recipe it is trained by; what of `RECIPE` stands among the
    options is its own, and `times` multiplies the epochs.
    """
    own = {k: v for k, v in options.items() if k in RECIPE}
    recipe = {k: getattr(p.transfer, k) for k in RECIPE} | own
    recipe["epochs"] = p.transfer.epochs_of(options)
    return {k: v for k, v in options.items() if k not in (*RECIPE, "times")}, recipe | changes


def transfer(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/transfer`: predictions.parquet, curves.csv, `weights` of models that go by
    name, first seed, and `starts` of those that were trained on tutorials before.

    The predictions have, beside `TransferBenchmark.predict`'s columns, `model, seed, background`;
    `model` is `Row.label`.
    """
    folder = p.data / "transfer"
    if not TRANSFER.must_run(p, folder, must_exist):
        return
    from vlact.papers.transfer.benchmark import BY_NAME, TransferJob
    from vlact.worlds.synta import BACKGROUNDS

    synta(p, must_exist=True)
    pretraining(p, must_exist=True)
    work, classes = TRANSFER.work(p), taxonomy("Syn-TA")
    (folder / "weights").mkdir(exist_ok=True)
    words = words_of(
        p,
        [*coarse_names(classes), *(n for s in SETS for n in fine_names(classes, s))],
        work / "words.safetensors",
    )
    sources = {b: prepared(p, work, b) for b in BACKGROUNDS}
    todo, names, rows = [], [], rows_of(p)
    starts(p, work, folder / "starts", rows, p.seeds)
    for row in rows:
        options, recipe = recipe_of(p, row.options)
        usual = row.label == row.kind  # what it sees is what its paper's sees
        named = usual and row.kind in BY_NAME and row.background == BACKGROUNDS[0]
        teaches = usual and row.task == "coarse" and any(x.teacher == row.kind for x in rows)
        for which, s in product(SETS, p.seeds[: row.seeds]):
            out, weights = work / row.name(which, s), ""
            if named and s == p.seeds[0]:
                weights = str(folder / "weights" / f"{row.kind}-{row.task}-{which}.safetensors")
            if teaches:
                weights = f"{out}.safetensors"
            start = p.data / "pretrained" / f"frames{s}.safetensors"
            if row.origin:
                start = start_of(folder / "starts", row.origin, s)
            if row.teacher:
                own = replace(row, label=row.teacher)
                start = work / f"{own.name(which, s)}.safetensors"
            given = row.kind, options, *sources[row.background], classes, row.task, which, recipe, s
            kept = f"{out}.parquet", f"{out}.pt", weights
            todo.append(TransferJob(*given, str(start), words, *kept))
            labels = {"background": row.background, "model": row.label, "task": row.task}
            names.append(labels | {"trained_on": which, "seed": s, "taught": bool(row.teacher)})
    curves = []
    for taught in (False, True):
        mine = [job for job, n in zip(todo, names, strict=True) if n["taught"] == taught]
        curves += jobs.run(mine, p.workers, "motion transfer") if mine else []
    found = [
        pd.read_parquet(job.out).assign(**{k: n[k] for k in ("background", "model")})
        for job, n in zip(todo, names, strict=True)
    ]
    pd.concat(found, ignore_index=True).to_parquet(folder / "predictions.parquet", index=False)
    rows = [{**n, **row} for n, curve in zip(names, curves, strict=True) for row in curve]
    pd.DataFrame(rows).drop(columns="taught").to_csv(
        folder / "curves.csv", index=False, lineterminator="\n", float_format="%.6f"
    )
    for background in BACKGROUNDS:
        (work / f"{background}.npy").unlink(missing_ok=True)
    TRANSFER.finish(p, folder)
