"""Stage `factors`: what makes a context new, one factor at a time; and motions by other names, with
and without ACE's training.
"""

from functools import partial
from pathlib import Path

import pandas as pd
import yaml

from vlact.language import motions
from vlact.language.motions import SETS, coarse_names, taxonomy
from vlact.language.trees import ActionTexts, Trees
from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage
from vlact.stages.synta import synta
from vlact.stages.transfer import TRANSFER, prepared, recipe_of, start_of, transfer, words_of
from vlact.video import clips

NAMES = Path(motions.__file__).parent / "motion_names.yaml"
FACTORS = Stage(
    "factors",
    __name__,
    ("factors", "ace"),
    TRANSFER,
)  # fmt: skip
SHARED, ALL = "nothing", "everything"
TRAININGS = {  # on the TimeSformer of ACE's pretraining, all blocks
    "ProcVLR": ("ProcVLR", {}),
    "ProcVLR, text projection": ("ProcVLR", {"train_text": 1.0}),
    "ACE": ("ACE", {}),
}


def other_names(classes: pd.DataFrame) -> list[list[str]]:
    """Names of the coarse motions, a list a run; run 0 has their own."""
    own, names = coarse_names(classes), yaml.safe_load(NAMES.read_text(encoding="utf-8"))
    return [own, *map(list, zip(*(names[n] for n in own), strict=True))]


def filmed(p: Params, work: Path, classes: pd.DataFrame) -> tuple[str, str]:
    """Clips of the factor world as frames (npy) and rows (parquet); `part` says what is new."""
    from vlact.worlds.factors import FACTORS as EACH
    from vlact.worlds.factors import film_job, moments

    f, folder, kinds = (
        p.factors,
        work / "films",
        {"train": (), SHARED: (), **{x: (x,) for x in EACH}, ALL: EACH},
    )
    todo, rows = [], []
    for r in classes[classes["set"] == 1].itertuples():
        for label, new in kinds.items():
            ids = list(range(f.train if label == "train" else f.test))
            given = r.coarse_id, int(r.number), new, label, ids, str(folder), str(work)
            todo.append(partial(film_job, *given, p.synta.size, p.synta.fps, p.synta.seed))
            seconds = len(moments(new, p.synta.fps)) / p.synta.fps
            rows.append((1, label, r.coarse_id, r.fine_id, seconds))
    found = jobs.run(todo, p.workers, "filming factors")
    table = pd.DataFrame(
        [(video, *row) for names, row in zip(found, rows, strict=True) for video in names],
        columns=["video", "set", "part", "coarse_id", "fine_id", "end_s"],
    )
    table.to_parquet(work / "factors.parquet", index=False)
    path = work / "factors.npy"
    if not path.is_file():
        read = clips.load(
            folder,
            table.assign(start_s=0.0),
            p.transfer.clip_frames,
            p.synta.size,
            workers=p.workers,
            source=str(folder),
        )
        clips.save_frames(path, read.frames[:, 0])
    return str(path), str(work / "factors.parquet")


def factors(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/factors`: factors.parquet (answers where one factor is new), names.parquet
    (answers by other names).
    """
    folder = p.data / "factors"
    if not FACTORS.must_run(p, folder, must_exist):
        return
    from vlact.papers.transfer.benchmark import BY_NAME, MOTION_TREES, FactorsJob, RenameJob

    synta(p, must_exist=True)
    transfer(p, must_exist=True)
    f, work, classes = p.factors, FACTORS.work(p), taxonomy("Syn-TA")
    runs, own = other_names(classes), coarse_names(classes)
    plan = ActionTexts([(n, "") for n in own], Trees.load(MOTION_TREES, tuple(own)))
    words = words_of(
        p, [*{n for run in runs for n in run} | set(plan.texts)], work / "words.safetensors"
    )

    todo, source = [], filmed(p, work, classes)
    for kind in f.kinds:
        options, recipe = recipe_of(p, p.transfer.models[kind], epochs=f.epochs)
        for s in p.seeds[: f.seeds]:
            out = str(work / f"factors-{kind}-{s}")
            clip = str(p.data / "pretrained" / f"frames{s}.safetensors")
            if options.get("pretrained"):
                clip = str(start_of(p.data / "transfer" / "starts", kind, s))
            given = kind, options, *source, classes, recipe, s, clip, words
            todo.append(FactorsJob(*given, out=f"{out}.parquet", checkpoint=f"{out}.pt"))
    jobs.run(todo, p.workers, "factors")
    pd.concat([pd.read_parquet(job.out) for job in todo], ignore_index=True).to_parquet(
        folder / "factors.parquet", index=False
    )

    source, todo, labels = prepared(p, work, "realistic"), [], []

    def rename(label: str, kind: str, options: dict, **given) -> None:
        out = str(work / f"names-{label.replace(' ', '_')}-{given['trained_on']}-{given['seed']}")
        common = *source, classes, runs
        files = {"words": words, "out": f"{out}.parquet", "checkpoint": f"{out}.pt"}
        todo.append(RenameJob(kind, options, *common, **given, **files))
        labels.append(label)

    for which in SETS:
        for kind in (k for k in p.transfer.models if k in BY_NAME):
            weights = str(p.data / "transfer" / "weights" / f"{kind}-coarse-{which}.safetensors")
            options, _ = recipe_of(p, p.transfer.models[kind])
            start = str(p.data / "pretrained" / f"frames{p.seeds[0]}.safetensors")
            given = {"trained_on": which, "recipe": None, "seed": p.seeds[0]}
            rename(kind, kind, options, **given, start=start, weights=weights)
        for label, (kind, more) in TRAININGS.items():
            recipe = recipe_of(p, {"lr": f.ace_lr}, epochs=f.ace_epochs)[1]
            for s in p.seeds[: f.ace_seeds]:
                start = str(p.data / "pretrained" / f"seed{s}.safetensors")
                given = {"trained_on": which, "recipe": recipe, "seed": s}
                rename(label, kind, {"tau": p.ace.tau} | more, **given, start=start, weights="")
    jobs.run(todo, p.workers, "other names")
    found = [
        pd.read_parquet(job.out).assign(model=label)
        for job, label in zip(todo, labels, strict=True)
    ]
    pd.concat(found, ignore_index=True).to_parquet(folder / "names.parquet", index=False)
    FACTORS.finish(p, folder)
