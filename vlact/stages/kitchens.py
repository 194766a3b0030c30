"""Stage `kitchens`: egocentric sequences with verb and noun tasks, ActionFormer and ActionVLM on
them (ActionVLM, Table 7).

Seed number i trains on recordings of its own; all are tested on the same ones. The encoder is the
one that ACE's pretraining aligned with egocentric narrations, and language is aligned on the same
narrated recordings. Real data, EPIC-Kitchens-100, has one training set and is read as the stadium's
is, see `vlact.stages.alignment.published`.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from vlact import schema
from vlact.datasets import activitynet
from vlact.params import Params
from vlact.runtime import jobs
from vlact.runtime.jobs import write_whole
from vlact.stages import Stage
from vlact.stages.alignment import extract, published
from vlact.stages.localizers import recipe_of, shape_of
from vlact.stages.pretrain import PRETRAIN, pretraining
from vlact.stages.stadium import durations_of

KITCHENS = Stage(
    "kitchens",
    __name__,
    ("kitchen", "tal", "align", "vlm"),
    PRETRAIN,
)  # fmt: skip
TASKS = ("verb", "noun")
PAUSE = "idle"


def narrations(p: Params) -> dict[str, tuple[dict, list[str], dict[str, list[str]]]]:
    """For each task what language is aligned on: events of narrated recordings, those held out (a
    tenth), wordings.
    """
    table = schema.read_annotations(p.data / "worlds" / "vlog" / "annotations.csv")
    out = {}
    for task, column in zip(TASKS, ("verb", "object"), strict=True):
        rows = table[~table["verb"].isin([PAUSE]) & (table[column] != "")]
        said = (
            rows["caption"]
            if task == "noun"
            else [
                c.removesuffix(f" {o}")
                for c, o in zip(rows["caption"], rows["object"], strict=True)
            ]
        )
        heard = (
            rows.assign(said=rows[column] if task == "noun" else said)
            .groupby(column)["said"]
            .unique()
        )
        told = {k: list(dict.fromkeys([k, *v])) for k, v in heard.items()}
        events = {}
        for video, part in rows.groupby("video", sort=False):
            found = [
                {"start_s": r.start_s, "end_s": r.end_s, "label": getattr(r, column)}
                for r in part.itertuples()
            ]
            events[video] = {"routines": found, "poses": [{**r, "pose": r["label"]} for r in found]}
        out[task] = events, sorted(events)[-max(1, len(events) // 10) :], told
    return out


def variants() -> list:
    """Rows of ActionVLM."""
    from vlact.papers.actionvlm.experiments import Variant

    return [Variant("fixed λ = 1.0", 1.0), Variant("full (Eq. 1)", "eq1")]


@dataclass
class Task:
    """What is trained and tested on: "verb" or "noun".

    Attributes:
        truth: Ground truth, see `vlact.datasets.activitynet.ground_truth`.
        called: Class to description.
        aligned: Folder of its reader.
    """

    truth: pd.DataFrame
    called: dict[str, str]
    aligned: Path


def videos_of(p: Params) -> Path:
    """Where the recordings lie: filmed by the stage, or EPIC-Kitchens-100's own with verb.json and
    noun.json beside them.
    """
    return p.data / "kitchens" if p.world.source == "rendered" else p.data / "worlds" / "epic"


def read(p: Params, work: Path) -> tuple[dict[str, Task], Path, float]:
    """The tasks of real data, the file of features of every video, and seconds of a step.

    Raises:
        FileNotFoundError: Ground truth, a video, or published weights, that are not there.
    """
    folder, tasks = videos_of(p), {}
    for name in TASKS:
        if not (path := folder / f"{name}.json").is_file():
            raise FileNotFoundError(
                f"{path}: profile {p.profile!r} reads real data; expected EPIC-Kitchens-100's "
                f"{name}s in ActivityNet's layout, which "
                f"`python -m vlact.datasets epic FOLDER {path} --task {name}` writes"
            )
        truth = activitynet.ground_truth(path, None)
        tasks[name] = Task(truth, {k: k for k in sorted(truth["label"].unique())}, folder)
    published(
        p,
        folder,
        folder,
        list(dict.fromkeys(v for t in tasks.values() for v in t.truth["video"])),
        work,
    )
    return tasks, folder / "features.safetensors", p.tal.stride / p.stadium.fps


def filmed(p: Params, folder: Path, work: Path) -> tuple[dict[str, Task], Path, float]:
    """As `read`, of recordings filmed to `folder`; gate.csv says how well language reads."""
    from vlact.language.descriptions import describe
    from vlact.models.dual import DualEncoder
    from vlact.papers.actionvlm.alignment import AlignJob
    from vlact.worlds.corpus import film_job
    from vlact.worlds.kitchen import BARE, EPIC_NOUNS, EPIC_VERBS
    from vlact.worlds.kitchen import kitchens as planned
    from vlact.worlds.things import Look

    pretraining(p, must_exist=True)
    k, w, seeds = p.kitchen, p.world, p.seeds[: p.kitchen.seeds]
    counts = {f"train{i}": k.train for i in range(len(seeds))} | {"test": k.test}
    look = Look(w.colours, w.scale)
    given = str(folder), str(work / "films"), w.size, w.fps, w.step_s, look
    todo = [partial(film_job, r, *given) for r in planned(counts, k.actions, w.seed)]
    rows = pd.DataFrame(sum(jobs.run(todo, p.workers, "filming kitchens"), []))
    rows["duration_s"] = rows.groupby("video")["end_s"].transform("max")
    rows = rows[rows["verb"] != PAUSE]

    def seen(name: str, source, videos: list[str]) -> dict:
        """Features of videos, also as one file."""
        (work / name).mkdir(exist_ok=True)
        encoder = p.data / "pretrained" / f"vlog{p.seeds[0]}.safetensors"
        given, out = (p, DualEncoder, encoder, source), work / f"{name}.safetensors"
        extract(*given, videos, float(w.fps), work / name, out)
        found = load_file(out)
        return {v: found[v] for v in videos}

    found, told = seen("features", folder, list(rows["video"].unique())), narrations(p)
    heard = seen(
        "heard",
        p.data / "worlds" / "vlog",
        list(dict.fromkeys(v for events, *_ in told.values() for v in events)),
    )
    everything = torch.cat(list(heard.values()))
    mean, std = everything.mean(0), everything.std(0).clamp(min=1e-3)
    # standardised as language will see them
    for name, part in (("features", found), ("heard", heard)):
        write_whole(
            work / f"{name}.safetensors",
            save_file,
            {v: (x - mean) / std for v, x in part.items()},
        )
    step_s, names = p.tal.stride / w.fps, [x.replace(" ", "-") for x in (*EPIC_VERBS, *EPIC_NOUNS)]
    align = asdict(p.align) | {"steps": k.align_steps}
    todo = []
    for task, (events, held_out, words) in told.items():
        out = work / task
        given = str(work / "heard.safetensors"), events, held_out, names, step_s, p.tal.window
        kept = {"out": str(out / "reader.safetensors"), "checkpoint": str(out / "reader.pt")}
        todo.append(AlignJob(*given, align, words, bias=0.0, **kept))
    read = jobs.kept(work / "readers.json", jobs.run, todo, p.workers, "alignment in kitchens")
    gates = [
        {"task": task, **row} for task, (_, gate) in zip(told, read, strict=True) for row in gate
    ]
    pd.DataFrame(gates).to_csv(
        folder / "gate.csv", index=False, lineterminator="\n", float_format="%.6f"
    )
    tasks = {}
    for task, classes in zip(TASKS, (EPIC_VERBS, EPIC_NOUNS), strict=True):
        truth = rows if task == "verb" else rows[~rows["verb"].isin(BARE)]
        truth = truth.assign(
            label=truth["verb" if task == "verb" else "object"].str.replace(" ", "-")
        )
        truth = truth[["video", "start_s", "end_s", "label", "split", "duration_s"]]
        activitynet.write_ground_truth(truth, folder / f"{task}.json")
        tasks[task] = Task(
            truth,
            {c.replace(" ", "-"): describe([c], None, told[task][2]) for c in classes},
            work / task,
        )
    return tasks, work / "features.safetensors", step_s


def kitchens(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/kitchens`: detections.parquet (task, model, seed); of rendered ones also
    mp4 files, verb.json and noun.json (ActivityNet's layout), and gate.csv.

    Raises:
        FileNotFoundError: Real data asked for and not there.
    """
    folder = p.data / "kitchens"
    if not KITCHENS.must_run(p, folder, must_exist):
        return
    from vlact.papers.actionvlm.experiments import VisionLanguageJob
    from vlact.papers.actionvlm.localizing import LocalizeJob, Problem

    work = KITCHENS.work(p)
    tasks, features, step_s = (
        filmed(p, folder, work) if p.world.source == "rendered" else read(p, work)
    )
    clock, alone, told, everything = (
        {"step_s": step_s},
        [],
        [],
        pd.concat([t.truth for t in tasks.values()]),
    )
    for name, task in tasks.items():
        path = work / f"{name}.parquet"
        task.truth.drop(columns="split").to_parquet(path, index=False)
        made = shape_of(p, features, len(task.called))
        for i, s in enumerate(p.seeds[: p.kitchen.seeds]):
            own = f"train{i}" if p.world.source == "rendered" else "train"
            durations = {
                "train": durations_of(everything, own),
                "test": durations_of(everything, "test"),
            }
            given, out = (str(features), durations, str(path)), str(work / f"{name}{s}")
            mine = Problem(*given, list(task.called), clock, made, recipe_of(p))
            alone.append(LocalizeJob("ActionFormer", mine, s, out, f"{out}.pt"))
            for variant in variants():
                out = str(work / f"{name}{s}-{len(told)}")
                mine = Problem(*given, task.called, clock, made, recipe_of(p) | asdict(p.vlm))
                mine = variant, mine, str(task.aligned), {}
                told.append(VisionLanguageJob(*mine, s, out, f"{out}.pt"))
    jobs.run(alone, p.workers, "localizers in kitchens")
    jobs.run(told, p.workers, "ActionVLM in kitchens")
    found = [
        pd.read_parquet(f"{job.out}.parquet").assign(task=Path(job.problem.truth).stem)
        for job in alone + told
    ]
    pd.concat(found, ignore_index=True).to_parquet(folder / "detections.parquet", index=False)
    KITCHENS.finish(p, folder)
