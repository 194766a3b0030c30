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
from safetensors.torch import load_file, save_file

from vlact import ROOT, video
from vlact.params import Params
from vlact.runtime import device, jobs
from vlact.runtime.jobs import write_whole
from vlact.stages import Stage
from vlact.stages.stadium import STADIUM, stadium, truth_of

ALIGNMENT = Stage(
    "alignment",
    __name__,
    ("align", "tal"),
    STADIUM,
)  # fmt: skip

PARTS = 8  # of what is extracted, each kept
FILES = ("features.safetensors", "reader.safetensors", "clauses.safetensors", "words.json")


def extract(
    p: Params,
    kind: type,
    encoder: Path,
    folder: Path,
    names: list[str],
    fps: float,
    work: Path,
    mirrored: bool = False,
) -> dict:
    """Features of videos, many at once, by video; see `parts_of`."""
    files = parts_of(p, kind, encoder, folder, names, fps, work, mirrored)
    found = {k: v for f in files for k, v in load_file(f).items()}
    return {name: found[name] for name in names}


def parts_of(
    p: Params,
    kind: type,
    encoder: Path,
    folder: Path,
    names: list[str],
    fps: float,
    work: Path,
    mirrored: bool = False,
) -> list[str]:
    """Files of features of videos, many at once; what an earlier run left in `work` is taken."""
    from vlact.training.features import ExtractJob

    # long videos may follow one another
    parts = [part for i in range(PARTS) if (part := names[i::PARTS])]
    stem, given = "mirrored" if mirrored else "features", (kind, str(encoder), str(folder))
    todo = [
        ExtractJob(*given, x, fps, p.tal.stride, str(work / f"{stem}.{i}"), mirrored)
        for i, x in enumerate(parts)
    ]
    return jobs.run(todo, p.workers, stem)


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
    from vlact.training.streams import joined

    device.choose(p.device)
    folder.mkdir(parents=True, exist_ok=True)
    features, a = folder / "features.safetensors", p.align
    if not features.is_file():
        there = {v: file.name for v, file in video.files(source, names).items()}
        parts = parts_of(
            p,
            VideoEncoder,
            ROOT / a.encoder,
            source,
            list(there.values()),
            float(p.stadium.fps),
            work,
        )
        joined(parts, features, there)
    if not (folder / "reader.safetensors").is_file():
        words = {"folder": a.language, "steps": a.reach}
        write_whole(
            folder / "words.json", lambda d, f: f.write_text(json.dumps(d), encoding="utf-8"), words
        )
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
    source, work, recipe, fps = (
        p.data / "stadium",
        ALIGNMENT.work(p),
        asdict(p.align),
        float(p.stadium.fps),
    )
    drills = json.loads((source / "drills.json").read_text(encoding="utf-8"))
    held_out = [v for v, d in drills.items() if d["split"] == "held out"]
    eye = work / "eye.safetensors"
    given = str(source), drills, held_out, p.stadium.size, fps, recipe
    poses = PoseJob(*given, out=str(eye), checkpoint=str(work / "eye.pt"))
    curves = {"poses": jobs.kept(work / "eye.json", lambda: jobs.run([poses], 1, "poses")[0])}
    found = extract(
        p,
        PoseEncoder,
        eye,
        source,
        [*drills, *truth_of(p)["video"].unique(), *truth_of(p, "sessions")["video"].unique()],
        fps,
        work,
    )
    write_whole(work / "features.safetensors", lambda d, f: save_file(d, f), found)
    turned = work / "mirrored.safetensors" if p.align.mirrored else ""
    if turned:
        seen = extract(
            p,
            PoseEncoder,
            eye,
            source,
            [v for v in drills if v not in set(held_out)],
            fps,
            work,
            mirrored=True,
        )
        write_whole(turned, lambda d, f: save_file(d, f), seen)
    step_s = p.tal.stride / fps
    given = (
        str(work / "features.safetensors"),
        drills,
        held_out,
        [*ACTIONS, *NAMES],
        step_s,
        p.tal.window,
        recipe,
        WORDS,
    )
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
    pd.DataFrame(gates).to_csv(
        folder / "gate.csv", index=False, lineterminator="\n", float_format="%.6f"
    )
    rows = [{"what": k, **row} for k, curve in curves.items() for row in curve]
    pd.DataFrame(rows).to_csv(
        folder / "curves.csv", index=False, lineterminator="\n", float_format="%.6f"
    )
    for name in ("eye.safetensors", "biased_reader.safetensors", *FILES):
        shutil.copy(work / name, folder / name)
    ALIGNMENT.finish(p, folder)
