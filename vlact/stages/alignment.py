"""Stage `alignment`: an eye for poses and language that reads what it sees, both learnt on drills;
features of every recording.

One eye and one reader serve all seeds. What any localizer sees of the stadium are this stage's
features, so that vision alone has seen whatever language has.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open

from vlact import ROOT, video
from vlact.params import Params
from vlact.runtime import device, jobs
from vlact.runtime.jobs import write_json
from vlact.stages import CSV, Stage, write_curves
from vlact.stages.stadium import STADIUM, stadium, truth_of

ALIGNMENT = Stage("alignment", __name__, ("align", "tal"), STADIUM)

PARTS = 8  # of what is extracted, each kept
FILES = ("features.safetensors", "reader.safetensors", "clauses.safetensors", "words.json")


def extract(
    p: Params,
    kind: type,
    encoder: Path,
    folder: Path,
    names: list[str] | dict[str, str],
    fps: float,
    work: Path,
    out: Path,
    mirrored: bool = False,
) -> None:
    """Features of videos, many at once, in one file `out` (safetensors); what an earlier run left
    in `work` is taken.

    Args:
        kind, encoder: Of the encoder, and its file.
        folder, names: The videos; names that are other in `out` go to the files'.
        fps: Of the videos.
        work: A folder.
        mirrored: Whether frames are.
    """
    from vlact.training.features import ExtractJob
    from vlact.training.streams import joined

    files = list(names.values()) if isinstance(names, dict) else names
    # long videos may follow one another
    parts = [part for i in range(PARTS) if (part := files[i::PARTS])]
    given = kind, str(encoder), str(folder)
    todo = [
        ExtractJob(*given, x, fps, p.tal.stride, str(work / f"{out.stem}.{i}"), mirrored)
        for i, x in enumerate(parts)
    ]
    # as safetensors orders a file
    names = names if isinstance(names, dict) else {name: name for name in sorted(names)}
    joined(jobs.run(todo, p.workers, out.stem), out, names)


def dim_of(features: Path) -> int:
    """F of a file of features, one array (T, F) a video."""
    with safe_open(str(features), "pt") as file:
        return file.get_slice(next(iter(file.keys()))).get_shape()[1]


def published(p: Params, folder: Path, source: Path, names: list[str], work: Path) -> None:
    """What real videos are read with, in `folder`, each unless it is there: their features by a
    published encoder, and a reader over a published language model, which no drill has taught.

    features.safetensors may as well come from elsewhere, one array (T, F) a video.

    Args:
        source: Where the videos lie, see `vlact.video.files`.
        names: Of the videos.
        work: For what a killed run goes on from.

    Raises:
        FileNotFoundError: A video, or published weights, that are not there.
    """
    from vlact.models.actionvlm import Reader
    from vlact.models.checkpoints import VideoEncoder

    device.choose(p.device)
    folder.mkdir(parents=True, exist_ok=True)
    features, a = folder / "features.safetensors", p.align
    if not features.is_file():
        there = {v: file.name for v, file in video.files(source, names).items()}
        given = p, VideoEncoder, ROOT / a.encoder, source, there, float(p.stadium.fps), work
        extract(*given, features)
    if not (folder / "reader.safetensors").is_file():
        words = {"folder": a.language, "steps": a.reach}
        write_json(folder / "words.json", words)
        torch.manual_seed(0)
        Reader.over(a.language, dim_of(features), a.lm_stride).save(folder / "reader.safetensors")


def alignment(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/aligned`: eye, reader, biased_reader, clauses and features (by video) as
    safetensors, words.json (of the reader's tokenizer), gate.csv, curves.csv.

    With `world.source: folder` nothing is trained, see `published`; sessions are read where there
    is a sessions.json.

    Raises:
        FileNotFoundError: Of real data, videos or published weights that are not there.
    """
    folder = p.data / "aligned"
    if p.world.source == "folder":
        stadium(p, must_exist=True)
        sets = [
            n for n in ("ground_truth", "sessions") if (p.data / "stadium" / f"{n}.json").is_file()
        ]
        names = list(dict.fromkeys(v for n in sets for v in truth_of(p, n)["video"]))
        published(p, folder, p.data / "stadium", names, ALIGNMENT.work(p))
        return
    if not ALIGNMENT.must_run(p, folder, must_exist):
        return
    from vlact.language.descriptions import WORDS
    from vlact.models.poses import PoseEncoder
    from vlact.papers.actionvlm.alignment import AlignJob, PoseJob
    from vlact.worlds.arena import NAMES
    from vlact.worlds.stadium import ACTIONS

    stadium(p, must_exist=True)
    source, work = p.data / "stadium", ALIGNMENT.work(p)
    recipe, fps = asdict(p.align), float(p.stadium.fps)
    drills = json.loads((source / "drills.json").read_text(encoding="utf-8"))
    held_out = [v for v, d in drills.items() if d["split"] == "held out"]
    eye = work / "eye.safetensors"
    given = str(source), drills, held_out, p.stadium.size, fps, recipe
    poses = PoseJob(*given, out=str(eye), checkpoint=str(work / "eye.pt"))
    curves = {"poses": jobs.kept(work / "eye.json", lambda: jobs.run([poses], 1, "poses")[0])}
    recordings = [v for n in ("ground_truth", "sessions") for v in truth_of(p, n)["video"].unique()]
    given, features = (p, PoseEncoder, eye, source), work / "features.safetensors"
    extract(*given, [*drills, *recordings], fps, work, features)
    turned = work / "mirrored.safetensors" if p.align.mirrored else ""
    if turned:
        learnt = [v for v in drills if v not in set(held_out)]
        extract(*given, learnt, fps, work, turned, mirrored=True)
    names, step_s = [*ACTIONS, *NAMES], p.tal.stride / fps
    given = str(features), drills, held_out, names, step_s, p.tal.window, recipe, WORDS
    gates, first = [], None
    for name, stem, bias in (
        ("language", "reader", 0.0),
        ("biased language", "biased_reader", recipe["bias"]),
    ):  # one goes on from the other
        out = str(work / f"{stem}.safetensors")
        kept = {"out": out, "checkpoint": str(work / f"{stem}.pt"), "start_from": first}
        job = AlignJob(*given, bias, **kept, threads=p.align.threads, mirrored=str(turned))
        curves[name], gate = jobs.kept(
            work / f"{stem}.json", lambda job=job: jobs.run([job], 1, "alignment")[0]
        )
        gates, first = gates + [{"reader": name, **row} for row in gate], out
    pd.DataFrame(gates).to_csv(folder / "gate.csv", **CSV)
    write_curves(folder, [{"what": k} for k in curves], list(curves.values()))
    for name in ("eye.safetensors", "biased_reader.safetensors", *FILES):
        shutil.copy(work / name, folder / name)
    ALIGNMENT.finish(p, folder)
