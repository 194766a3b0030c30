"""Stage `localizers`: ActionFormer, TriDet, DyFADet and others (`Tal.kinds`) on vision alone, for
every seed.
"""

import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage
from vlact.stages.alignment import ALIGNMENT, alignment, dim_of
from vlact.stages.stadium import durations_of, truth_of

LOCALIZERS = Stage(
    "localizers",
    __name__,
    (),
    ALIGNMENT,
)  # fmt: skip


def shape_of(p: Params, features: Path, classes: int) -> dict:
    """Of a localizer on a file of features, as a dict of
    `vlact.models.actionformer.LocalizerConfig`.
    """
    own = {k: getattr(p.tal, k) for k in ("dim", "heads", "embeds", "stems", "levels", "dropout")}
    own |= {"window": p.tal.attend}
    return {"feature_dim": dim_of(features), "classes": classes, **own}


def common(p: Params, work, name: str = "ground_truth") -> tuple[str, list[dict], str, dict, dict]:
    """What every localizer is given: features, videos of each seed, ground truth (see `truth_of`),
    clock and shape.
    """
    truth, features, path = (
        truth_of(p, name),
        p.data / "aligned" / "features.safetensors",
        work / f"{name}.parquet",
    )
    truth.drop(columns="split").to_parquet(path, index=False)
    durations = []
    for i, _ in enumerate(p.seeds):
        # real data has one training set
        own = f"train{i}" if f"train{i}" in set(truth["split"]) else "train"
        durations.append({"train": durations_of(truth, own), "test": durations_of(truth, "test")})
    return (
        str(features),
        durations,
        str(path),
        {"step_s": p.tal.stride / p.stadium.fps},
        shape_of(p, features, truth["label"].nunique()),
    )


def recipe_of(p: Params) -> dict:
    """`Tal` with the options of `vlact.models.nms.suppress`."""
    tal = {k: x for k, x in asdict(p.tal).items() if k != "kinds"}
    return tal | {"nms": {"sigma": p.tal.nms_sigma, "max_seg_num": p.tal.max_seg_num}}


def localizers(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/localizers`: detections.parquet, curves.csv, and the first seed's
    ActionFormer, localiser.safetensors.
    """
    folder = p.data / "localizers"
    if not LOCALIZERS.must_run(p, folder, must_exist):
        return
    from vlact.papers.actionvlm.localizing import KINDS, LocalizeJob
    from vlact.worlds.stadium import ACTIONS

    alignment(p, must_exist=True)
    work, recipe = LOCALIZERS.work(p), recipe_of(p)
    features, durations, truth, clock, shape = common(p, work)
    todo = []
    for kind in filter(KINDS.__contains__, p.tal.kinds):
        for i, s in enumerate(p.seeds):
            out = str(work / f"{kind}{s}")
            given = features, durations[i], truth, list(ACTIONS), clock, shape, recipe
            todo.append(LocalizeJob(kind, *given, seed=s, out=out, checkpoint=f"{out}.pt"))
    curves = jobs.run(todo, p.workers, "localizers")
    detections = pd.concat(
        [pd.read_parquet(f"{job.out}.parquet") for job in todo], ignore_index=True
    )
    shutil.copy(f"{todo[0].out}.safetensors", folder / "localiser.safetensors")
    detections.to_parquet(folder / "detections.parquet", index=False)
    rows = [
        {"model": job.kind, "seed": job.seed, **row}
        for job, curve in zip(todo, curves, strict=True)
        for row in curve
    ]
    pd.DataFrame(rows).to_csv(
        folder / "curves.csv", index=False, lineterminator="\n", float_format="%.6f"
    )
    LOCALIZERS.finish(p, folder)
