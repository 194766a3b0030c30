"""Stage `across`: ACE's question put to ActionVLM's language, and ActionVLM's question put to
classifiers that go by names.
"""

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import yaml

from vlact.language import descriptions
from vlact.language.motions import SETS, coarse_names, taxonomy
from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage
from vlact.stages.ace import ace
from vlact.stages.actionvlm import ACTIONVLM, actionvlm
from vlact.stages.stadium import durations_of, truth_of
from vlact.stages.transfer import prepared, recipe_of, transfer, words_of

ACROSS = Stage(
    "across",
    __name__,
    ("across", "world", "model", "pretrain", "ace", "synta", "transfer"),
    ACTIONVLM,
)
OTHERS = Path(descriptions.__file__).parent / "pose_names.yaml"
READERS = {  # whether training draws wordings, and whose text side the clauses pass
    "one wording": (False, ""),
    "drawn wordings": (True, ""),
    "drawn wordings, pretrained text": (True, "pretrained/seed{}.safetensors"),
    "drawn wordings, ACE's text": (True, "ace/ata-ace.safetensors"),
}


def runs_of(others: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """One wording of every pose a run, by name: the three that alignment has read, then those that
    it never met.
    """
    known = {f"read {i + 1}": {k: [w[i]] for k, w in descriptions.WORDS.items()} for i in range(3)}
    return known | {f"new {i + 1}": {k: [w[i]] for k, w in others.items()} for i in range(2)}


def across(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/across`: reading.csv (readers by wording), wordings.parquet (ActionVLM's
    detections by wording of the descriptions), weighed.parquet (clips under every way to weigh
    language).

    Raises:
        FileNotFoundError: Real data asked for; the experiments are of the rendered worlds.
    """
    folder = p.data / "across"
    if p.world.source == "folder":
        raise FileNotFoundError(
            f"{folder}: profile {p.profile!r} reads real data; these experiments are of the "
            "rendered worlds"
        )
    if not ACROSS.must_run(p, folder, must_exist):
        return
    from vlact.papers.across import ReadingJob, WeighJob, rename_localizer
    from vlact.papers.transfer.benchmark import BY_NAME
    from vlact.worlds.stadium import ACTIONS

    actionvlm(p, must_exist=True)
    ace(p, must_exist=True)
    transfer(p, must_exist=True)
    a, work, others = p.across, ACROSS.work(p), yaml.safe_load(OTHERS.read_text(encoding="utf-8"))
    drills = json.loads((p.data / "stadium" / "drills.json").read_text(encoding="utf-8"))
    held_out = [v for v, d in drills.items() if d["split"] == "held out"]
    recipe, features = (
        asdict(p.align) | {"steps": a.steps, "lm_stride": a.lm_stride},
        str(p.data / "aligned" / "features.safetensors"),
    )
    step_s, todo, rows = p.tal.stride / p.stadium.fps, [], []
    for name, (drawn, encoder) in READERS.items():
        for s in p.seeds[: a.seeds]:
            text = str(p.data / encoder.format(p.seeds[0])) if encoder else ""
            given = features, drills, held_out, list(ACTIONS), step_s, p.tal.window, recipe, others
            kept = str(work / f"reading{len(todo)}.pt")
            todo.append(ReadingJob(drawn, text, *given, seed=s, checkpoint=kept))
            rows.append({"reader": name, "seed": s})
    found = jobs.kept(work / "reading.json", jobs.run, todo, p.workers, "readers")
    table = pd.DataFrame(
        [{**row, **gate} for row, gates in zip(rows, found, strict=True) for gate in gates]
    )
    table.to_csv(folder / "reading.csv", index=False, lineterminator="\n", float_format="%.6f")

    poses, runs = {k: [b.pose for b in x.beats] for k, x in ACTIONS.items()}, runs_of(others)
    told = rename_localizer(
        str(p.data / "actionvlm" / "actionvlm.safetensors"),
        features,
        durations_of(truth_of(p), "test"),
        poses,
        list(runs.values()),
    )
    names = {-1: "language off"} | dict(enumerate(runs))
    told.assign(words=told["run"].map(names)).drop(columns="run").to_parquet(
        folder / "wordings.parquet", index=False
    )

    classes = taxonomy("Syn-TA")
    source, words = (
        prepared(p, work, "realistic"),
        words_of(p, coarse_names(classes), work / "words.safetensors"),
    )
    start, s = str(p.data / "pretrained" / f"frames{p.seeds[0]}.safetensors"), p.seeds[0]
    todo = []
    for kind in (k for k in p.transfer.models if k in BY_NAME):
        for which in SETS:
            weights, out = (
                str(x / f"{kind}-coarse-{which}") for x in (p.data / "transfer" / "weights", work)
            )
            options, _ = recipe_of(p, p.transfer.models[kind])
            given = kind, options, *source, classes, which, s, start, words
            kept = {"weights": f"{weights}.safetensors", "out": f"{out}.parquet"}
            todo.append(WeighJob(*given, **kept))
    jobs.run(todo, p.workers, "language for clips")
    pd.concat([pd.read_parquet(job.out) for job in todo], ignore_index=True).to_parquet(
        folder / "weighed.parquet", index=False
    )
    ACROSS.finish(p, folder)
