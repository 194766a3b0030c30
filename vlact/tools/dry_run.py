"""What a run of a profile takes, before anybody begins it: memory, hours and files of every stage.

    python -m vlact.tools.pipeline repro PROFILE --dry-run

On rendered worlds hours are those that the stage took when it was last measured (`stage_minutes` in
params.yaml), and memory is that of its processes. At full size both are counted on shapes, see
`vlact.tools.plans`: memory of a training step, hours of all trainings on one card; features that do
not fit into memory are streamed and take none. A stage without a number trains nothing to speak of.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from vlact import ROOT, params
from vlact.tools import dag

PROCESS_GB = 1.5  # of a process of the rendered worlds, at most: 0.9 to 1.4 were measured
CARD = "A100"
ACE_CLIPS = {"ATA": (12_000, 30), "IKEA ASM": (16_000, 25), "GTEA": (525, 15)}  # and frames
THUMOS14_VIDEOS = 200  # of training
SYNTA_CLIPS = 3_000  # of a camera style


@dataclass(frozen=True)
class Work:
    """Trainings of one kind.

    Attributes:
        step: See `vlact.tools.plans.Step`.
        batch: Clips or windows of a step.
        clips: That a training sees in all.
        runs: How many trainings.
    """

    step: object
    batch: int
    clips: float
    runs: int


def works(p: params.Params) -> Iterator[tuple[str, Work]]:
    """Stage and trainings of a profile of real data, at full size."""
    from vlact.models.cost import QWEN25_1B5, QWEN25_3B
    from vlact.papers.actionvlm.localizing import POINTS
    from vlact.stages.actionvlm import ablations, headline
    from vlact.tools import plans

    many = len(p.seeds)
    for count, frames in ACE_CLIPS.values():
        clips = count * max(p.ace.epochs)
        step = plans.ace_step(frames, p.ace.trained_blocks)
        yield "ace_train", Work(step, p.ace.batch_size, clips, many * len(p.ace.lrs))
    for kind in filter(POINTS.__contains__, p.tal.kinds):
        step, batch, epochs = localizer_step(p, kind)
        yield "localizers", Work(step, batch, THUMOS14_VIDEOS * epochs, many)
    lm = QWEN25_3B if "3B" in p.align.language else QWEN25_1B5
    said = plans.language_step(lm, p.align.reach or p.tal.window, p.align.lm_stride, p.vlm.rank)
    # every second epoch has language, and a window as many parts as it is longer than its reach
    parts = p.tal.window / (p.align.reach or p.tal.window)
    runs = len(headline()) * many + len(ablations()) * p.vlm.ablation_seeds
    clips = THUMOS14_VIDEOS * p.vlm.epochs * parts / 2
    yield "actionvlm", Work(said, p.vlm.batch_size, clips, runs)
    for kind in p.transfer.models:
        clips = SYNTA_CLIPS * p.transfer.epochs
        sets = 2 * (1 + (kind in p.transfer.plain))
        step = plans.transfer_step(kind)
        yield "transfer", Work(step, p.transfer.batch_size, clips, sets * p.transfer.seeds)


def localizer_step(p: params.Params, kind: str) -> tuple[object, int, int]:
    """A window of a localizer of points by its published numbers on shapes alone, its batch and its
    epochs.
    """
    import torch

    from vlact.papers.actionvlm.localizing import KINDS, planned
    from vlact.tools import plans

    numbers, shape = planned(asdict(p.tal), kind, 2048, 20)
    with torch.device("meta"):
        model = KINDS[kind][0](KINDS[kind][1](**shape))
        x = torch.empty(1, numbers["window"], 2048)
        mask = torch.empty(1, numbers["window"], dtype=torch.bool)

        def run() -> torch.Tensor:
            logits, distances, _ = model(x, mask)
            return logits.sum() + distances.sum()

        return plans.measured(model, run), numbers["batch_size"], numbers["epochs"]


def size_of(path: Path) -> int:
    """Bytes of a file or of all files in a folder; 0 for none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file())


def table(profile: str) -> pd.DataFrame:
    """A row a stage, in the order of the graph: `stage, GB, hours, runs, writes`; numbers are nan
    where there are none.
    """
    from vlact.tools.plans import CARDS

    p = params.load(profile)
    content = dag.parameters()
    minutes, own = content["stage_minutes"].get(profile, {}), dag.stages(profile)
    planned: dict[str, list[Work]] = {}
    rendered = p.world.source == "rendered"
    for stage, work in () if rendered else works(p):
        planned.setdefault(stage, []).append(work)
    left_out = () if rendered else content["real_data"]["left_out"]
    rows = []
    for stage in map(dag.short, dag.graph(profile)):
        if stage in left_out:
            continue
        row = {"stage": stage, "GB": math.nan, "hours": math.nan, "runs": math.nan}
        if stage in minutes:
            row |= {"GB": PROCESS_GB * p.workers, "hours": minutes[stage] / 60}
        if mine := planned.get(stage):
            speed = CARDS[CARD][1]
            row["GB"] = max(w.step.memory(w.batch) for w in mine)
            row["hours"] = sum(w.runs * w.step.hours(w.clips, speed) for w in mine)
            row["runs"] = sum(w.runs for w in mine)
        there = {x: size_of(ROOT / x) for x in own[stage].get("outs", ())}
        said = (f"{x} ({n / 1e9:.2f} GB there)" if n else x for x, n in there.items())
        row["writes"] = ", ".join(said)
        rows.append(row)
    return pd.DataFrame(rows)


def show(profile: str) -> None:
    """Print the table, and what all of it comes to; nothing is begun.

    Raises:
        vlact.tools.dag.Refused: Unknown profile.
    """
    found, p = table(dag.known(profile)), params.load(profile)
    content = dag.parameters()
    shown = found.assign(**{k: found[k].map(lambda x: f"{x:,.1f}") for k in ("GB", "hours")})
    shown["runs"] = found["runs"].map(lambda x: f"{x:,.0f}")
    print(shown.replace("nan", "-").to_string(index=False))
    hours = found["hours"].sum()
    if p.world.source == "rendered":
        where = f"at {p.parallel_stages} stages a time"
    else:
        where = (
            f"of one {CARD}, {hours / p.workers:,.0f} h on {p.workers} of them, without stages "
            f"that have no number; `make doctor PROFILE={profile}` says which files are missing"
        )
    disk = content["disk_gb"][profile]
    print(f"{profile}: {hours:,.1f} h {where}; {disk} GB of disk. Nothing was begun.")
