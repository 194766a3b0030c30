"""Stages `real_looks` and `real_motion`: what frozen models see of real clips, and how motions
transfer to another context there. Profile `real` alone.
"""

import json
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.datasets.real import (
    Clips,
    SetMissing,
    jhmdb,
    msr_action3d,
    ntu,
    nw_ucla,
    place,
    ut_interaction,
)
from vlact.params import Params
from vlact.report.results import real_motion as numbers
from vlact.runtime import jobs
from vlact.runtime.jobs import write_whole
from vlact.stages import Stage
from vlact.stages.real import OfSets, features

# its code is that which looks: how answers are scored later does not make frames be seen again
LOOKS = OfSets(
    "real_looks",
    "vlact.papers.transfer.looking",
    ("real",),
    sets=(
        *("ut_interaction", "jhmdb_clips", "jhmdb_splits.zip", "nw_ucla", "msr_action3d"),
        *("coral_tflite", "shift_gcn_ntu", "ntu_samples"),
    ),
)
MOTION = Stage("real_motion", __name__, (), LOOKS)
FILMS = {"ut_interaction": ut_interaction.read, "jhmdb": jhmdb.read}
POSES = {"nw_ucla": nw_ucla.read, "msr_action3d": msr_action3d.read}
MOVENET = ("coral_tflite", "movenet_single_pose_lightning_ptq.tflite")
SHIFT_GCN = ("shift_gcn_ntu", "ntu_ShiftGCN_joint_xsub.pt")
SHIFT_GCN_VIEWS = ("shift_gcn_ntu", "ntu_ShiftGCN_joint_xview.pt")
PART = 24  # clips between two places where a killed run goes on
PROFILE = "real"


def only_real(p: Params) -> bool:
    """Whether stages on real data run in this profile."""
    return p.profile == PROFILE


def conditions(table: pd.DataFrame) -> pd.DataFrame:
    """JHMDB's table with its conditions in two kinds each: `facing`, `grade` beside `camera`."""
    facing = np.where(table["view"] == "front", "front", "other")
    grade = np.where(table["quality"] == "good", "good", "worse")
    return table.assign(facing=facing, grade=grade)


def _weights(where: tuple[str, str]) -> tuple[str, str]:
    """Path of some weights, or why they are not there."""
    try:
        path = place(where[0]) / where[1]
    except SetMissing as missing:
        return "", str(missing)
    return (str(path), "") if path.is_file() else ("", f"{path}: not there")


def _movenet() -> tuple[str, str]:
    """MoveNet's file, or why poses are not looked for."""
    from vlact.models.movenet import MoveNet

    path, why = _weights(MOVENET)
    if path:
        try:
            MoveNet(path)
        except ModuleNotFoundError as missing:
            return "", str(missing)
    return path, why


def named(path: str) -> str:
    """How many of NTU's samples Shift-GCN's published weights name rightly, in words."""
    import torch

    from vlact.models.shift_gcn import PADDED, ShiftGCN, upright

    try:
        files = sorted(place("ntu_samples").glob("*.skeleton*"))
    except SetMissing as missing:
        return str(missing)
    model, right = ShiftGCN.load(path), 0
    for file in files:
        own = upright(torch.from_numpy(ntu.read(file)))
        frames = own.repeat(-(-PADDED // len(own)), 1, 1)[:PADDED]
        x = torch.zeros(1, 3, PADDED, 25, 2)  # the second person is not there
        x[0, ..., 0] = frames.permute(2, 0, 1)
        with torch.inference_mode():
            right += int(model(x).argmax()) + 1 == int(file.name.split(".")[0][-3:])
    return f"{right} of {len(files)} samples of NTU named rightly by the published weights"


def looks(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/real_looks`: a table (parquet) a set, an array (npy) a set and kind of
    input, and notes.json: layouts, what is missing, why a kind of input is.
    """
    folder = p.data / "real_looks"
    if not only_real(p) or not LOOKS.must_run(p, folder, must_exist):
        return
    notes = {"sets": {}, "missing": {}, "why": {}}
    for name, read in (FILMS | POSES).items():
        try:
            found = read(skip=p.real.skip)
        except SetMissing as missing:
            notes["missing"][name] = str(missing)
            warnings.warn(str(missing), stacklevel=2)
            continue
        table = conditions(found.table) if name == "jhmdb" else found.table
        table.to_parquet(folder / f"{name}.parquet", index=False)
        notes["sets"][name] = {"layout": found.layout, "clips": len(table)}
        if isinstance(found, Clips):
            notes["sets"][name]["left_out"] = list(found.left_out)
            _films(p, folder, name, found, notes)
        else:
            _joints(p, folder, name, found, notes)
    text = json.dumps(notes, indent=1) + "\n"
    write_whole(folder / "notes.json", lambda t, f: f.write_text(t, encoding="utf-8"), text)
    LOOKS.finish(p, folder)


def _films(p: Params, folder: Path, name: str, found: Clips, notes: dict) -> None:
    from vlact.papers.transfer.looking import Look, brought, look_job
    from vlact.papers.transfer.real import protocol

    movenet, why = _movenet()
    if why:
        notes["why"]["poses"] = why
    work, names = LOOKS.work(p), found.table["video"].tolist()
    steps, todo, kinds = protocol().looked[name], [], ["poses"] * bool(movenet)
    if name in protocol().difference_images:
        kinds += ["pixels", "differences"]
    else:  # as every other stage sees them
        seen = features(p, found)
        pixels = np.stack([brought(seen[n].numpy(), steps) for n in names])
        np.save(folder / f"{name}-pixels.npy", pixels)
    for i in range(0, len(names), PART) if kinds else ():
        own, out = tuple(names[i : i + PART]), str(work / f"{name}-{i}.npz")
        both = name == "ut_interaction"  # two people
        look = Look(str(found.folder), own, steps, tuple(kinds), out, movenet, both)
        todo.append(partial(look_job, look))
    files = jobs.run(todo, p.workers, f"looking at {name}")
    parts = [np.load(f) for f in files]
    for kind in kinds:
        np.save(folder / f"{name}-{kind}.npy", np.concatenate([x[kind] for x in parts]))


def _joints(p: Params, folder: Path, name: str, found, notes: dict) -> None:
    from vlact.papers.transfer.looking import ShiftGcnJob, joints_of
    from vlact.papers.transfer.real import protocol

    for kind, x in joints_of(found, protocol().steps).items():
        np.save(folder / f"{name}-{kind}.npy", x)
    weights, why = _weights(SHIFT_GCN)
    if why:
        notes["why"]["shift_gcn"] = why
        return
    if "shift_gcn" not in notes["sets"]:
        notes["sets"]["shift_gcn"] = {"check": named(_weights(SHIFT_GCN_VIEWS)[0])}
    work = LOOKS.work(p)
    np.save(work / f"{name}.npy", found.joints)
    rows = range(0, len(found.table), 8 * PART)
    todo = []
    for i in rows:
        offset = found.offset[i : i + 8 * PART + 1].tolist()
        out = str(work / f"{name}-shift-{i}.npy")
        todo.append(ShiftGcnJob(str(work / f"{name}.npy"), offset, weights, out))
    files = jobs.run(todo, p.workers, f"Shift-GCN on {name}")
    np.save(folder / f"{name}-shift_gcn.npy", np.concatenate([np.load(f) for f in files]))


def real_motion(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/real_motion`: predictions.parquet, scores.csv, runs.csv, classes.csv and
    pairs.csv, see `vlact.papers.transfer.real`.
    """
    folder = p.data / "real_motion"
    if not only_real(p):
        return
    looks(p, must_exist=must_exist)
    if not MOTION.must_run(p, folder, must_exist):
        return
    from vlact.papers.transfer.real import TransferJob, jobs_of, protocol

    work, seen, todo, given = MOTION.work(p), p.data / "real_looks", [], protocol()
    for setup in given.setups.values():
        path = seen / f"{setup.set}.parquet"
        if not path.is_file():
            continue
        inputs = {
            f.stem.removeprefix(f"{setup.set}-"): str(f)
            for f in sorted(seen.glob(f"{setup.set}-*.npy"))
        }
        for i, job in enumerate(jobs_of(setup, pd.read_parquet(path), inputs, str(path))):
            todo.append(TransferJob(job, str(work / f"{setup.name}-{i}.parquet")))
    jobs.run(todo, p.workers, "motion transfer on real clips")
    every = pd.concat([pd.read_parquet(job.out) for job in todo], ignore_index=True)
    every.to_parquet(folder / "predictions.parquet", index=False)
    tables = {
        "scores": numbers.table_of(every, given),
        "runs": numbers.runs_of(every),
        "classes": numbers.classes_of(every),
        "pairs": numbers.pairs_of(every, given),
    }
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n", float_format="%.4f")
    MOTION.finish(p, folder)
