"""Stage `real_localization`: localizers on features in time of real recordings. Profile `real`
alone.
"""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd

from vlact.datasets.real import Clips, SetMissing, fir, gtea, utkinect
from vlact.datasets.real.recordings import Recordings
from vlact.params import Params
from vlact.report.results import real_localization as numbers
from vlact.runtime import jobs
from vlact.runtime.jobs import write_whole
from vlact.stages.real import OfSets, features
from vlact.stages.real_motion import only_real
from vlact.stages.real_video import VIDEO, real_video

LOCALIZATION = OfSets(
    "real_localization",
    __name__,
    ("real",),
    VIDEO,
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
    from vlact.papers.actionvlm.real_language import TRAINED

    aligned = real_video(p, must_exist=True) / "aligned"
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
    trainings, groupings, languages, priors = [], [], [], []
    for name, (found, path, truth, dim) in sets.items():
        classes = tuple(sorted(found.truth["label"].unique()))
        told = _told(name, classes, aligned, work, notes)
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
                    if kind == "ActionFormer" and told:
                        reader = told, str(aligned / f"{seed}.safetensors")
                        priors.append((job, *reader, f"{job.out}-prior.parquet"))
                        for row in TRAINED:
                            out = str(work / f"{name}-{TRAINED.index(row)}-{i}-{seed}")
                            languages.append((replace(job, out=out), row, *reader))
    chosen = jobs.run([KeptGroupJob(j) for j in groupings], p.workers, "ridge + grouping")
    curves = jobs.run([KeptTrainingJob(j) for j in trainings], p.workers, "localizers")
    read = [KeptLanguageJob(*given) for given in languages]
    curves += jobs.run(read, p.workers, "localizers that read")
    jobs.run([KeptPriorJob(*given) for given in priors], p.workers, "language as a prior")
    heard = [(j.dataset, f"{j.out}.parquet") for j, *_ in languages]
    heard += [(j.dataset, out) for j, *_, out in priors]
    every = _gathered(sets, trainings, groupings, heard)
    every.to_parquet(folder / "detections.parquet", index=False)
    by_set = {k: (found, every[every["dataset"] == k]) for k, (found, *_) in sets.items()}
    trained = [(j, j.kind) for j in trainings] + [(j, row) for j, row, *_ in languages]
    tables = {
        "scores": numbers.table_of(by_set, pr),
        "errors": numbers.errors_of(by_set, pr),
        "windows": _windows(sets),
        "grouping": pd.DataFrame(
            [{"dataset": j.dataset, **c} for j, c in zip(groupings, chosen, strict=True)]
        ),
        "curves": pd.DataFrame(
            [
                {"dataset": j.dataset, "model": model, "fold": j.fold, "seed": j.seed, **row}
                for (j, model), curve in zip(trained, curves, strict=True)
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


def _told(name: str, classes: tuple[str, ...], aligned: Path, work: Path, notes: dict) -> str:
    """File of a set's descriptions as text features; "" where nothing reads them."""
    from safetensors.torch import save_file

    from vlact.papers.actionvlm import real
    from vlact.papers.actionvlm.real_language import embedded

    if name not in real.protocol().language["sets"]:
        return ""
    lacking = [s for s in real.protocol().seeds if not (aligned / f"{s}.safetensors").is_file()]
    if lacking:
        notes["missing"]["language"] = f"no alignment with captions of the seeds {lacking}"
        return ""
    path = work / f"{name}-descriptions.safetensors"
    save_file({"descriptions": embedded(name, classes)}, path)
    return str(path)


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


def _kept_language(job, row: str, told: str, aligned: str) -> list[dict]:
    from vlact.papers.actionvlm.real_language import language_job

    return jobs.kept(Path(f"{job.out}.json"), language_job, job, row, told, aligned)


KeptLanguageJob = jobs.job_of(_kept_language, tracked=True)


def _kept_prior(job, told: str, aligned: str, out: str) -> bool:
    from vlact.papers.actionvlm.real_language import prior_job

    return jobs.kept(Path(f"{out}.json"), prior_job, job, told, aligned, out)


KeptPriorJob = jobs.job_of(_kept_prior)


def _gathered(
    sets: dict, trainings: list, groupings: list, heard: list[tuple[str, str]]
) -> pd.DataFrame:
    """Detections of every set, model and seed, baselines and published systems among them.

    Args:
        sets, trainings, groupings: As prepared.
        heard: Set and file of each row that reads descriptions.
    """
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
    tables += [pd.read_parquet(file).assign(dataset=dataset) for dataset, file in heard]
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
