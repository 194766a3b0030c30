"""Stage `transfer`: models on coarse and fine motions of Syn-TA, both directions; some of them also
on plain backgrounds.
"""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from vlact.datasets import transfer as lists
from vlact.language.motions import SETS, coarse_names, fine_names, taxonomy
from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage
from vlact.stages.pretrain import PRETRAIN, pretraining
from vlact.stages.synta import synta
from vlact.video import clips

TRANSFER = Stage("transfer", __name__, ("synta", "transfer"), PRETRAIN)


def prepared(p: Params, work: Path, background: str, whole: bool = False) -> tuple[str, str]:
    """Frames (npy) and rows (parquet) of all clips on a background, in the scratch folder of a
    stage.

    Training clips whose id is above `transfer.train_ids` are in a part of their own, "more", unless
    `whole`.
    """
    from vlact.worlds.synta import SECONDS

    source, path = p.data / "synta", work / f"{background}.npy"
    tables = work / "table.parquet", work / "whole.parquet"
    if not path.is_file():
        table = lists.clips(source, taxonomy("Syn-TA"), source / background)
        beyond = (table["part"] == "train") & (
            table["video"].str.extract(r"_id_(\d+)\.")[0].astype(int) > p.transfer.train_ids
        )
        table.assign(part=table["part"].mask(beyond, "more")).to_parquet(tables[0], index=False)
        table.to_parquet(tables[1], index=False)
        found = clips.load(
            source / background,
            table.assign(start_s=0.0, end_s=SECONDS),
            p.transfer.clip_frames,
            p.synta.size,
            workers=p.workers,
            source=str(source),
        )
        clips.save_frames(path, found.frames[:, 0])
    return str(path), str(tables[whole])


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


def recipe_of(p: Params, options: dict, **changes) -> tuple[dict, dict]:
    """Options of a model's class and the recipe it is trained by; an `lr` among the options is its
    own.
    """
    recipe = {
        k: v
        for k, v in asdict(p.transfer).items()
        if k in ("epochs", "batch_size", "lr", "weight_decay", "smoothing")
    }
    own = {k: v for k, v in options.items() if k != "lr"}
    return own, recipe | ({"lr": options["lr"]} if "lr" in options else {}) | changes


def transfer(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/transfer`: predictions.parquet, curves.csv, and `weights` of models that go
    by name, first seed.

    The predictions have, beside `TransferBenchmark.predict`'s columns, `model, seed, background`;
    models of `transfer.more` stand there as "<kind>, all clips".
    """
    folder = p.data / "transfer"
    if not TRANSFER.must_run(p, folder, must_exist):
        return
    from vlact.papers.transfer.benchmark import BY_NAME, TransferJob
    from vlact.worlds.synta import BACKGROUNDS

    synta(p, must_exist=True)
    pretraining(p, must_exist=True)
    t, work, classes = p.transfer, TRANSFER.work(p), taxonomy("Syn-TA")
    (folder / "weights").mkdir(exist_ok=True)
    words = words_of(
        p,
        [*coarse_names(classes), *(n for s in SETS for n in fine_names(classes, s))],
        work / "words.safetensors",
    )
    wanted = [("realistic", k, "coarse", t.epochs, False) for k in t.models]
    wanted += [("realistic", k, "coarse", e, True) for k, e in t.more.items()]
    wanted += [("realistic", k, "fine", t.epochs, False) for k in t.models if k in BY_NAME]
    wanted += [("plain", k, "coarse", t.epochs, False) for k in t.plain] + [
        ("plain", k, "fine", t.epochs, False) for k in t.plain_fine
    ]
    todo, names = [], []
    for background, kind, task, epochs, whole in wanted:
        source = prepared(p, work, background, whole)
        options, recipe = recipe_of(p, t.models[kind], epochs=epochs)
        for which in SETS:
            for s in p.seeds[: t.seeds]:
                out = f"{background}-{kind}-{task}-{'more' if whole else 'usual'}-{which}-{s}"
                keep = (
                    kind in BY_NAME and background == "realistic" and s == p.seeds[0] and not whole
                )
                weights = (
                    str(folder / "weights" / f"{kind}-{task}-{which}.safetensors") if keep else ""
                )
                clip = str(p.data / "pretrained" / f"frames{s}.safetensors")
                given = kind, options, *source, classes, task, which, recipe, s, clip, words
                kept = str(work / f"{out}.parquet"), str(work / f"{out}.pt"), weights
                todo.append(TransferJob(*given, *kept))
                row = {
                    "background": background,
                    "model": f"{kind}, all clips" if whole else kind,
                    "task": task,
                    "trained_on": which,
                    "seed": s,
                }
                names.append(row)
    curves = jobs.run(todo, p.workers, "motion transfer")
    found = [
        pd.read_parquet(job.out).assign(**{k: n[k] for k in ("background", "model")})
        for job, n in zip(todo, names, strict=True)
    ]
    pd.concat(found, ignore_index=True).to_parquet(folder / "predictions.parquet", index=False)
    rows = [{**n, **row} for n, curve in zip(names, curves, strict=True) for row in curve]
    pd.DataFrame(rows).to_csv(
        folder / "curves.csv", index=False, lineterminator="\n", float_format="%.6f"
    )
    for background in BACKGROUNDS:
        (work / f"{background}.npy").unlink(missing_ok=True)
    TRANSFER.finish(p, folder)
