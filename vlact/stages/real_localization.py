"""Stage `real_localization`: localizers on features in time of real recordings. Profile `real`
alone.
"""

import json
import warnings
from pathlib import Path

import pandas as pd

from vlact.datasets.real import Clips, SetMissing, fir, gtea, utkinect
from vlact.datasets.real.recordings import Recordings
from vlact.params import Params
from vlact.runtime import jobs
from vlact.runtime.jobs import write_whole
from vlact.stages.real import OfSets, features
from vlact.stages.real_motion import only_real

LOCALIZATION = OfSets(
    "real_localization",
    __name__,
    ("real",),
    sets=("fir_image_action", "gtea_s2", "utkinect", "tcn_scores"),
)
FILMS = {"fir": fir.read, "gtea": gtea.read}


def recordings(name: str, skip: bool) -> Recordings:
    """Of "fir", "gtea" or "utkinect".

    Raises:
        vlact.datasets.real.SetMissing: The set is not here.
    """
    return utkinect.read(skip=skip).recordings if name == "utkinect" else FILMS[name](skip=skip)


def as_clips(found: Recordings, name: str) -> Clips:
    """Films of recordings, as `vlact.stages.real.features` wants them."""
    home = next(iter(found.files.values())).parent
    table = pd.DataFrame({"video": [f.name for f in found.files.values()], "label": ""})
    return Clips(name, home, table, found.layout)


def real_localization(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/real_localization`: detections.parquet (all sets, models, seeds),
    scores.csv, errors.csv, published.csv, grouping.csv, windows.csv, curves.csv and notes.json.
    """
    folder = p.data / "real_localization"
    if not only_real(p) or not LOCALIZATION.must_run(p, folder, must_exist):
        return
    from vlact.papers.actionvlm import real

    work, pr = LOCALIZATION.work(p), real.protocol()
    sets, notes = {}, {"sets": {}, "missing": {}, "open": pr.open}
    for name in pr.sets:
        try:
            sets[name] = _prepared(p, name, work)
        except SetMissing as missing:
            notes["missing"][name] = str(missing)
            warnings.warn(str(missing), stacklevel=2)
            continue
        found = sets[name][0]
        notes["sets"][name] = {"layout": found.layout, "labels": list(found.notes)}
    trainings, groupings = [], []
    for name, (found, path, truth, dim) in sets.items():
        classes = tuple(sorted(found.truth["label"].unique()))
        for i, fold in enumerate(real.folds(name, found.groups)):
            durations = {
                part: {v: found.durations[v] for v in videos}
                for part, videos in (("train", fold.train), ("test", fold.test))
            }
            common = {"features": path, "truth": truth, "durations": durations, "classes": classes}
            out = str(work / f"{name}-group-{i}")
            groupings.append(real.Group(name, fold.name, out=out, **common))
            for kind in pr.localizers:
                for seed in pr.seeds:
                    out = str(work / f"{name}-{kind}-{i}-{seed}")
                    job = real.Localize(
                        name, kind, fold.name, seed, feature_dim=dim, out=out, **common
                    )
                    trainings.append(job)
    chosen = jobs.run([KeptGroupJob(j) for j in groupings], p.workers, "ridge + grouping")
    curves = jobs.run([KeptTrainingJob(j) for j in trainings], p.workers, "localizers")
    every = _gathered(sets, trainings, groupings)
    every.to_parquet(folder / "detections.parquet", index=False)
    by_set = {k: (found, every[every["dataset"] == k]) for k, (found, *_) in sets.items()}
    tables = {
        "scores": real.table_of(by_set),
        "errors": real.errors_of(by_set),
        "windows": _windows(sets),
        "grouping": pd.DataFrame(
            [{"dataset": j.dataset, **c} for j, c in zip(groupings, chosen, strict=True)]
        ),
        "curves": pd.DataFrame(
            [
                {"dataset": j.dataset, "model": j.kind, "fold": j.fold, "seed": j.seed, **row}
                for j, curve in zip(trainings, curves, strict=True)
                for row in curve
            ]
        ),
    }
    try:
        tables["published"] = real.published()
    except SetMissing as missing:
        notes["missing"]["tcn_scores"] = str(missing)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n", float_format="%.4f")
    text = json.dumps(notes, indent=1) + "\n"
    write_whole(folder / "notes.json", lambda t, f: f.write_text(t, encoding="utf-8"), text)
    LOCALIZATION.finish(p, folder)


def _prepared(p: Params, name: str, work: Path) -> tuple[Recordings, str, str, int]:
    """A set's recordings, files of its features and truth, and the width of the features."""
    from safetensors.torch import load_file, save_file

    from vlact.papers.actionvlm.real import pose_features, protocol

    if name == "utkinect":
        whole = utkinect.read(skip=p.real.skip)
        found, path = whole.recordings, work / "utkinect.safetensors"
        save_file(pose_features(whole, protocol().rate_hz), path)
    else:
        found, path = recordings(name, p.real.skip), work / f"{name}.safetensors"
        seen = features(p, as_clips(found, name), protocol().rate_hz)
        save_file({v: seen[f.name].contiguous() for v, f in found.files.items()}, path)
    truth = work / f"{name}-truth.parquet"
    found.truth.to_parquet(truth, index=False)
    dim = next(iter(load_file(path).values())).shape[1]
    return found, str(path), str(truth), int(dim)


def _kept_training(job) -> list[dict]:
    from vlact.papers.actionvlm.real import train_job

    return jobs.kept(Path(f"{job.out}.json"), train_job, job)


KeptTrainingJob = jobs.job_of(_kept_training, tracked=True)


def _kept_group(job) -> dict:
    from vlact.papers.actionvlm.real import group_job

    return jobs.kept(Path(f"{job.out}.json"), group_job, job)


KeptGroupJob = jobs.job_of(_kept_group)


def _gathered(sets: dict, trainings: list, groupings: list) -> pd.DataFrame:
    """Detections of every set, model and seed, baselines and published systems among them."""
    from vlact.papers.actionvlm import real

    tables = []
    for job in groupings:
        found = pd.read_parquet(f"{job.out}.parquet")
        tables.append(found.assign(dataset=job.dataset, model="ridge + grouping", seed=0))
        truth = pd.read_parquet(job.truth)
        prior = real.class_prior(
            truth[truth["video"].isin(job.durations["train"])], job.durations["test"]
        )
        tables.append(prior.assign(dataset=job.dataset, model="class prior", seed=0))
    for job in trainings:
        found = pd.read_parquet(f"{job.out}.parquet")
        tables.append(found.assign(dataset=job.dataset, model=job.kind, seed=job.seed))
    if "gtea" in sets:
        try:
            tables.append(real.published_detections().assign(dataset="gtea", seed=0))
        except SetMissing as missing:
            warnings.warn(str(missing), stacklevel=2)
    columns = ["dataset", "model", "seed", *real.COLUMNS]
    return pd.concat(tables, ignore_index=True)[columns]


def _windows(sets: dict) -> pd.DataFrame:
    """How many actions windows can teach, with the protocol's length and with 64 steps."""
    from safetensors.torch import load_file

    from vlact.papers.actionvlm import real

    rows = []
    for name, (found, path, *_) in sets.items():
        seen, own = load_file(path), real.protocol().sets[name]["window"]
        for window in sorted({64, own}):
            lost = real.visible(name, seen, found.truth, found.durations, window)
            row = {"dataset": name, "window": window, "actions": lost.given, "used": lost.used}
            rows.append(row | {"left_out": lost.lost, "why": str(lost)})
    return pd.DataFrame(rows)
