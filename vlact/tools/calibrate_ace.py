"""Which world and pretraining put ACE's *baselines* where the paper has them.

A candidate is a handful of changed parameters. It is rendered and pretrained with seeds of its own
(no figure uses them), and three baselines are measured: the pretrained model without fine-tuning on
unseen actions, ProcVLR and an image model (Text4Vis) after fine-tuning on seen ones. ACE is never
run here, so nothing can be tuned towards it. The log says what was tried and how far each candidate
is from the published values, in points:

    python -m vlact.tools.calibrate_ace vlact/tools/calibrate_ace.yaml log.csv
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
from vlact.report import published, tables
from vlact.report.tables import write_text
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
    "seed": ("align",),
}
CLOSE = 10.0  # points from the published value that count as matched
BASELINES = {  # name here: trial, the paper's row, what is compared
    "zero-shot": ("zero_shot", "pretraining=yes, ACE=no", "unseen"),
    "ProcVLR": ("procvlr", "ProcVLR", "seen"),
    "Text4Vis": ("text4vis", "Text4Vis", "seen"),
}


def targets() -> pd.DataFrame:
    """Published accuracies, percent: `dataset, baseline, split, published`, NaN where none is."""
    tables = pd.concat([published.read(f"ace_table{n}") for n in (1, 2, 5)])
    tables = tables[(tables["metric"] == "acc") & (tables["setting"] != "srt")]
    rows = []
    for dataset in ("ata", "ikea", "gtea"):
        mine = tables[tables["dataset"].str.lower().str.startswith(dataset)]
        for name, (_, row, split) in BASELINES.items():
            found = mine[(mine["method"] == row) & (mine["split"] == split)]["mean"]
            value = float(found.iloc[0]) if len(found) else float("nan")
            rows.append({"dataset": dataset, "baseline": name, "split": split, "published": value})
    return pd.DataFrame(rows)


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
    """CLIP on frames, the same for all candidates of a world."""
    table, frames, texts = corpus_of(p)
    given = asdict(p.pretrain), asdict(p.model), frames, table["caption"].tolist()

    def train(out: str, state: str) -> list[dict]:
        return pretrain_frames(*given, rows_of(table), texts, out, state, seed)

    return rung(p, seed, "frames", train)[0]


def pretrained(p: Params, seed: int = SEED) -> tuple[dict[str, str], pd.DataFrame]:
    """The ladder up to the encoder that ACE starts from.

    Returns:
        `frames`, and `held` (`seed` where it was told all names), files of encoders; and the
        trunk's curve.
    """
    table, frames, texts = corpus_of(p)
    hidden, captions = table["verb"].isin(novel_programs()), table["caption"].tolist()
    labels = labels_of(table, hidden if p.pretrain.novel != "labelled" else None) | rows_of(table)
    heard = rows_of(table, hidden if p.pretrain.novel == "unnamed" else None)["train"]
    config, model, looks = asdict(p.pretrain), asdict(p.model), frames_rung(p, seed)

    def train(out: str, state: str) -> list[dict]:
        return pretrain(config, model, frames, labels, looks, out, state, seed)

    trunk, curve = rung(p, seed, "trunk", train, looks, labels)
    told = [captions[i] for i in heard]

    def speak(out: str, _: str) -> list[dict]:
        return align(config, trunk, frames, told, heard, texts, out, seed)

    aligned, _ = rung(p, seed, "seed", speak, trunk, heard)
    kind = "seed" if p.pretrain.novel == "labelled" else "held"
    return {"frames": looks, kind: aligned}, pd.DataFrame(curve)


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


def summary(log: pd.DataFrame) -> pd.DataFrame:
    """A row a candidate: what the baselines reach, and the largest and mean distance in points."""
    named = log.assign(what=log["dataset"].str.upper() + " " + log["baseline"])
    wide = named.pivot(index="candidate", columns="what", values="here")
    wide = wide.reindex(columns=named["what"].unique(), index=log["candidate"].unique())
    by = log.groupby("candidate", sort=False)
    facts = by[["verb", "object"]].first()
    facts["mean distance"] = by["distance"].mean().round(1)
    facts["largest distance"] = by["distance"].max()
    facts["matched"] = by["distance"].apply(lambda x: f"{(x <= CLOSE).sum()}/{x.notna().sum()}")
    return wide.join(facts)


def page(log: pd.DataFrame) -> str:
    """The log as one page of markdown: published values, what each candidate reaches, changes."""
    wanted = targets().set_index(["dataset", "baseline"])["published"]
    shown = summary(log)
    shown.index = [f"{n}: {log[log['candidate'] == n]['changes'].iloc[0]}" for n in shown.index]
    aims = {f"{d.upper()} {b}": value for (d, b), value in wanted.items()}
    shown = pd.concat([pd.DataFrame(aims, index=["published"]), shown])
    shown = shown.map(lambda x: f"{x:.1f}" if isinstance(x, float) else x)
    table = tables.markdown(shown.fillna("–").replace("nan", "–").reset_index(names="candidate"))
    return (
        "# Which world and pretraining ACE's tables are run in\n\n"
        f"Baselines alone, percent; distances in points. Worlds and pretraining of seed {SEED}, "
        "which no table uses. Zero-shot: unseen actions by their names; ProcVLR, Text4Vis: seen "
        "actions after fine-tuning, at the epoch that base validation chooses. Verb, object: "
        "validation accuracy of the trunk's labels. Changes are over profile `study`. Written by "
        f"`python -m vlact.tools.calibrate_ace`.\n\n{table}\n"
    )


def main(candidates: str, log: str) -> None:
    """Measure every candidate of a yaml file (name to changes) that the log lacks; a page goes
    beside the log.
    """
    path = Path(log)
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["candidate"])
    for name, changes in yaml.safe_load(Path(candidates).read_text(encoding="utf-8")).items():
        if name not in set(done["candidate"]):
            done = pd.concat([done, measure(name, changes or {})], ignore_index=True)
            done.to_csv(path, index=False, lineterminator="\n")
            write_text(path.with_suffix(".md"), page(done))
    sys.stdout.write(summary(done).to_string() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
