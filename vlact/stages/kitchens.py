"""Stage `kitchens`: egocentric sequences with verb and noun tasks, and ActionFormer on them (ActionVLM, Table 7).

Seed number i trains on recordings of its own; all are tested on the same ones. The encoder is that of ACE's pretraining.
"""

import pandas as pd
from safetensors.torch import save_file

from vlact import jobs
from vlact.datasets import activitynet
from vlact.jobs import write_whole
from vlact.params import Params
from vlact.stages import Stage
from vlact.stages.alignment import extract
from vlact.stages.localisers import LOCALISERS, recipe_of
from vlact.stages.pretrain import PRETRAIN, pretraining
from vlact.stages.stadium import durations_of

KITCHENS = Stage("kitchens", ("stages/kitchens.py", "worlds/kitchen.py", "features.py", *LOCALISERS.files), ("kitchen", "tal"), PRETRAIN)
TASKS = ("verb", "noun")


def kitchens(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/kitchens`: mp4 files, verb.json and noun.json (ActivityNet's layout), detections.parquet (task, seed).

    Raises:
        FileNotFoundError: Real data asked for; see `vlact.datasets.epic` for its csv.
    """
    folder = p.data / "kitchens"
    if p.world.source == "folder":
        raise FileNotFoundError(f"{folder}: profile {p.profile!r} reads real data; EPIC-Kitchens-100 is read by vlact.datasets.epic")
    if not KITCHENS.must_run(p, folder, must_exist):
        return
    from vlact.localizing import localise_job
    from vlact.models.dual import DualEncoder
    from vlact.worlds.corpus import film_job
    from vlact.worlds.kitchen import BARE, EPIC_NOUNS, EPIC_VERBS, PAUSE
    from vlact.worlds.kitchen import kitchens as planned

    pretraining(p, must_exist=True)
    k, w, work = p.kitchen, p.world, KITCHENS.work(p)
    counts = {f"train{i}": k.train for i in range(len(p.seeds))} | {"test": k.test}
    todo = [(r, str(folder), str(work / "films"), w.size, w.fps, w.step_s) for r in planned(counts, k.actions, w.seed)]
    rows = pd.DataFrame(sum(jobs.run(film_job, todo, p.workers, "filming kitchens"), []))
    rows["duration_s"] = rows.groupby("video")["end_s"].transform("max")
    rows = rows[rows["verb"] != PAUSE]
    (work / "features").mkdir(exist_ok=True)
    encoder = p.data / "pretrained" / f"vlog{p.seeds[0]}.safetensors"
    found = extract(p, DualEncoder, encoder, folder, list(rows["video"].unique()), float(w.fps), work / "features")
    write_whole(work / "all.safetensors", lambda d, f: save_file(d, f), found)
    shape = {"feature_dim": next(iter(found.values())).shape[1], "dropout": p.tal.dropout}
    shape |= {x: getattr(p.tal, x) for x in ("dim", "heads", "embeds", "stems", "levels")}
    todo, names = [], []
    for task, classes in zip(TASKS, (EPIC_VERBS, EPIC_NOUNS), strict=True):
        truth = rows if task == "verb" else rows[~rows["verb"].isin(BARE)]
        truth = truth.assign(label=truth["verb" if task == "verb" else "object"])
        truth = truth[["video", "start_s", "end_s", "label", "split", "duration_s"]]
        activitynet.write_ground_truth(truth, folder / f"{task}.json")
        path = work / f"{task}.parquet"
        truth.drop(columns="split").to_parquet(path, index=False)
        for i, s in enumerate(p.seeds):
            durations = {"train": durations_of(rows, f"train{i}"), "test": durations_of(rows, "test")}
            out = str(work / f"{task}{s}")
            given = ("ActionFormer", str(work / "all.safetensors"), durations, str(path), list(classes), {"step_s": p.tal.stride / w.fps})
            todo.append((*given, shape | {"classes": len(classes)}, recipe_of(p), s, out, f"{out}.pt"))
            names.append(task)
    jobs.run(localise_job, todo, p.workers, "localisers in kitchens")
    found = [pd.read_parquet(f"{job[-2]}.parquet").assign(task=task) for job, task in zip(todo, names, strict=True)]
    pd.concat(found, ignore_index=True).to_parquet(folder / "detections.parquet", index=False)
    KITCHENS.finish(p, folder)
