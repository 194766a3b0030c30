"""Which world and pretraining put ACE's *baselines* where the paper has them.

A candidate is a handful of changed parameters. It is rendered and pretrained with seeds of its own
(no figure uses them), and three baselines are measured: the pretrained model without fine-tuning on
unseen actions, ProcVLR and an image model (Text4Vis) after fine-tuning on seen ones. ACE is never
run here, so nothing can be tuned towards it. The log says what was tried and how far each candidate
is from the published values, in points:

    python -m vlact.tools.calibrate_ace vlact/tools/calibrate_ace.yaml

adds to `vlact.report.results.ace_regime.CALIBRATION` what it lacks; notebook 12 shows it.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import yaml

from vlact import params
from vlact.metrics.selection import choose
from vlact.papers.ace.trials import Trial
from vlact.params import Params
from vlact.report.results.ace_regime import BASELINES, CALIBRATION, summary, targets
from vlact.runtime import jobs
from vlact.runtime.jobs import write_whole
from vlact.stages.ace import Bench, scores_of
from vlact.stages.pretrain import frames_of, labels_of, novel_programs, rows_of
from vlact.stages.worlds import WORLDS, worlds
from vlact.training.pretraining import align, pretrain, pretrain_frames

SEED = 100  # of worlds and of pretraining; the profiles use 0 to 9
EPOCHS, LRS = [3, 9, 15], [0.008]  # of the baselines, chosen on base validation
# parameters of `pretrain` that a rung depends on begin with these
USES = {
    "frames": ("frame", "weight"),
    "trunk": ("steps", "batch", "lr", "weight", "object"),
    "seed": ("align", "held"),
}


def trials(depth: int) -> list[Trial]:
    """The baselines of every dataset; the image model is trained whole, as in the paper."""
    whole = {"text4vis": {"start": "clip", "blocks": depth}}
    return [
        Trial(d, name, method, **whole.get(method, {}))
        for d in ("ata", "ikea", "gtea")
        for name, (method, *_) in BASELINES.items()
    ]


def rung(p: Params, seed: int, kind: str, function: Callable, *given) -> tuple[str, list[dict]]:
    """An encoder's file and curve; one that was trained alike is taken as it is.

    Args:
        p: Parameters of a candidate.
        seed: Of pretraining.
        kind: A key of `USES`.
        function: Trains, given where the encoder and its checkpoint go.
        given: Whatever else the encoder depends on.
    """
    uses = {k: v for k, v in asdict(p.pretrain).items() if k.startswith(USES[kind])}
    known = jobs.key(kind, uses, asdict(p.model), seed, *given)
    out = p.scratch / "rungs" / f"{kind}-{known}.safetensors"
    note = out.with_suffix(".json")
    if not note.is_file():
        # candidates may train the same one side by side
        mine = out.with_suffix(f".{os.getpid()}")
        curve = function(str(mine), f"{mine}.pt")
        mine.replace(out)
        write_whole(note, lambda x, f: f.write_text(json.dumps(x), encoding="utf-8"), curve)
    return str(out), json.loads(note.read_text(encoding="utf-8"))


def corpus_of(p: Params) -> tuple[pd.DataFrame, str, str]:
    """The tutorials' table, and where their clips and the features of their captions are."""
    from safetensors.torch import save_file

    from vlact.models.text import sentence_encoder

    table, frames = frames_of(p, "tutorial", None, 1)
    texts = p.scratch / "rungs" / "captions.safetensors"
    if not texts.is_file():
        words = sorted(set(table["caption"]))
        features = dict(zip(words, sentence_encoder(p.model.text)(words), strict=True))
        write_whole(texts, save_file, features)
    return table, str(frames), str(texts)


def frames_rung(p: Params, seed: int = SEED) -> str:
    """CLIP on frames, the same for all candidates of a world that are told the same captions."""
    table, frames, texts = corpus_of(p)
    given = asdict(p.pretrain), asdict(p.model), frames, table["caption"].tolist()
    rows = rows_of(table, table["verb"].isin(novel_programs()) & p.pretrain.held_frames)

    def train(out: str, state: str) -> list[dict]:
        return pretrain_frames(*given, rows, texts, out, state, seed)

    return rung(p, seed, "frames", train, rows)[0]


def pretrained(p: Params, seed: int = SEED) -> tuple[dict[str, str], pd.DataFrame]:
    """The ladder up to the encoder that ACE starts from.

    Returns:
        `heldframes` and `held` (`frames` and `seed` where they were told all names), files of
        encoders; and the trunk's curve.
    """
    table, frames, texts = corpus_of(p)
    hidden, captions = table["verb"].isin(novel_programs()), table["caption"].tolist()
    labels = labels_of(table, hidden if p.pretrain.novel != "labelled" else None) | rows_of(table)
    heard = rows_of(table, hidden if p.pretrain.novel == "unnamed" else None)["train"]
    config, model, looks = asdict(p.pretrain), asdict(p.model), frames_rung(p, seed)
    noise = "align_noise" if p.pretrain.novel == "labelled" else "held_noise"

    def train(out: str, state: str) -> list[dict]:
        return pretrain(config, model, frames, labels, looks, out, state, seed)

    trunk, curve = rung(p, seed, "trunk", train, looks, labels)
    told = [captions[i] for i in heard]

    def speak(out: str, _: str) -> list[dict]:
        wrong = {"align_noise": config[noise]}
        return align(config | wrong, trunk, frames, told, heard, texts, out, seed)

    aligned, _ = rung(p, seed, "seed", speak, trunk, heard)
    kind = "seed" if p.pretrain.novel == "labelled" else "held"
    first = "heldframes" if p.pretrain.held_frames else "frames"
    return {first: looks, kind: aligned}, pd.DataFrame(curve)


def measure(name: str, changes: dict) -> pd.DataFrame:
    """A candidate's world rendered and its baselines measured, see `baselines`.

    Args:
        name: Of the candidate.
        changes: `section__name: value` over profile `study`.
    """
    own = {"seeds": [SEED], "pretrain__more_seeds": [], "world__seed": SEED}
    changes = own | {"ace__views": 1, "workers": 1} | changes
    p = params.load("study", "calibration", **changes)
    # candidates on one world share its files
    p = params.load("study", f"calibration-{WORLDS.key(p)}", **changes)
    worlds(p)
    return baselines(name, p, changes)


def baselines(name: str, p: Params, changes: dict) -> pd.DataFrame:
    """Pretrain a candidate whose world is there, and measure its baselines.

    Returns:
        The columns of `targets`, with `candidate, here, epochs, distance` (points) and `verb,
        object` (validation accuracies of the trunk, percent).
    """
    files, curve = pretrained(p)
    work = p.scratch / "baselines" / jobs.key(name, asdict(p))
    work.mkdir(parents=True, exist_ok=True)
    for kind, path in files.items():
        shutil.copy(path, work / f"{kind}{SEED}.safetensors")
    bench = Bench(p, trials(p.model.depth), work, encoders=work)
    bench.keep()
    todo = [bench.job(t, u, LRS, EPOCHS) for t in bench.trials.values() for u in bench.probes(t)]
    grid = scores_of(jobs.run(todo, 1, name))
    cells = grid.merge(choose(grid), on=["dataset", "model", "leaf", "test", "lr", "epoch"])
    cells = cells.set_index(["dataset", "model"])
    rows = targets()
    mine = [cells.loc[(r.dataset, r.baseline)] for r in rows.itertuples()]
    rows["here"] = [100 * c[f"{s}_acc"] for c, s in zip(mine, rows["split"], strict=True)]
    rows["epochs"] = [int(c["epoch"]) for c in mine]
    rows["distance"] = (rows["here"] - rows["published"]).abs()
    rows.insert(0, "candidate", name)
    last = curve.iloc[-1]
    said = "; ".join(f"{k}: {v}" for k, v in changes.items())
    balance = {"verb": 100 * last["val_verb"], "object": 100 * last["val_object"]}
    return rows.assign(**balance, seed=SEED, changes=said).round(1)


def main(candidates: str, log: str = str(CALIBRATION)) -> None:
    """Measure every candidate of a yaml file (name to changes) that the log lacks."""
    path = Path(log)
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["candidate"])
    for name, changes in yaml.safe_load(Path(candidates).read_text(encoding="utf-8")).items():
        if name not in set(done["candidate"]):
            done = pd.concat([done, measure(name, changes or {})], ignore_index=True)
            text = done.to_csv(index=False, lineterminator="\n")
            write_whole(path, lambda x, f: f.write_text(x, encoding="utf-8"), text)
    sys.stdout.write(summary(done).to_string() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
