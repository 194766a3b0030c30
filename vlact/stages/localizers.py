"""Stage `localizers`: ActionFormer, TriDet, DyFADet and others (`Tal.kinds`) on vision alone, for
every seed.
"""

import shutil
from dataclasses import asdict
from pathlib import Path

from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage, tables_of, write_curves
from vlact.stages.alignment import ALIGNMENT, alignment, dim_of
from vlact.stages.stadium import durations_of, truth_of

LOCALIZERS = Stage("localizers", __name__, (), ALIGNMENT)


def shape_of(p: Params, features: Path, classes: int) -> dict:
    """Of a localizer on a file of features, as a dict of
    `vlact.models.actionformer.LocalizerConfig`.
    """
    own = {k: getattr(p.tal, k) for k in ("dim", "heads", "embeds", "stems", "levels", "dropout")}
    own |= {"window": p.tal.attend}
    return {"feature_dim": dim_of(features), "classes": classes, **own}


def problems(p: Params, work: Path, classes, recipe: dict, name: str = "ground_truth") -> list:
    """`vlact.papers.actionvlm.localizing.Problem` of every seed, of a ground truth (`truth_of`)."""
    from vlact.papers.actionvlm.localizing import Problem

    truth, path = truth_of(p, name), work / f"{name}.parquet"
    truth.drop(columns="split").to_parquet(path, index=False)
    features = p.data / "aligned" / "features.safetensors"
    clock = {"step_s": p.tal.stride / p.stadium.fps}
    given = classes, clock, shape_of(p, features, truth["label"].nunique()), recipe
    out = []
    for i, _ in enumerate(p.seeds):
        # real data has one training set
        own = f"train{i}" if f"train{i}" in set(truth["split"]) else "train"
        durations = {"train": durations_of(truth, own), "test": durations_of(truth, "test")}
        out.append(Problem(str(features), durations, str(path), *given))
    return out


def recipe_of(p: Params) -> dict:
    """`Tal` with the options of `vlact.models.nms.suppress`."""
    tal = {k: x for k, x in asdict(p.tal).items() if k != "kinds"}
    return tal | {"nms": {"sigma": p.tal.nms_sigma, "max_seg_num": p.tal.max_seg_num}}


def localizers(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/localizers`: detections.parquet, curves.csv, and the first seed's
    ActionFormer, localizer.safetensors.
    """
    folder = p.data / "localizers"
    if not LOCALIZERS.must_run(p, folder, must_exist):
        return
    from vlact.papers.actionvlm.localizing import KINDS, LocalizeJob
    from vlact.worlds.stadium import ACTIONS

    alignment(p, must_exist=True)
    work, todo = LOCALIZERS.work(p), []
    given = problems(p, work, list(ACTIONS), recipe_of(p))
    for kind in filter(KINDS.__contains__, p.tal.kinds):
        for problem, s in zip(given, p.seeds, strict=True):
            out = str(work / f"{kind}{s}")
            todo.append(LocalizeJob(kind, problem, s, out, f"{out}.pt"))
    curves = jobs.run(todo, p.workers, "localizers")
    shutil.copy(f"{todo[0].out}.safetensors", folder / "localizer.safetensors")
    tables_of(todo).to_parquet(folder / "detections.parquet", index=False)
    write_curves(folder, [{"model": job.kind, "seed": job.seed} for job in todo], curves)
    LOCALIZERS.finish(p, folder)
