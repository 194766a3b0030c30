"""Which world and pretraining put ACE's *baselines* where the paper has them.

A candidate is a handful of changed parameters. It is rendered and pretrained with seeds of its own
(no figure uses them), and three baselines are measured: the pretrained model without fine-tuning on
unseen actions, ProcVLR and an image model (ViFi-CLIP) after fine-tuning on seen ones. ACE is never
run here, so nothing can be tuned towards it. The log says what was tried and how far each candidate
is from the published values, in points:

    python -m vlact.papers.ace.calibration candidates.yaml log.csv
"""

import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import yaml

from vlact import params
from vlact.metrics.selection import choose
from vlact.papers.ace.trials import Trial
from vlact.report import published
from vlact.runtime import jobs

SEED = 100  # of worlds and of pretraining; the profiles use 0 to 9
EPOCHS, LRS = [3, 9], [0.008]  # of the baselines, chosen on base validation
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
    "ViFi-CLIP (ft)": ("vifi", "ViFi (ft)", "seen"),
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
    whole = {"vifi": {"start": "clip", "text_blocks": 1, "blocks": depth}}
    return [
        Trial(d, name, method, **whole.get(method, {}))
        for d in ("ata", "ikea", "gtea")
        for name, (method, *_) in BASELINES.items()
    ]


def pretrained(p: params.Params) -> tuple[dict[str, str], pd.DataFrame]:
    """The ladder without LaViLa for one candidate; a rung that another one has trained alike is
    taken from it.

    Returns:
        `frames` and `seed`, files of encoders; and the trunk's curve.
    """
    from safetensors.torch import save_file

    from vlact.models.text import sentence_encoder
    from vlact.stages import pretrain as stage
    from vlact.training import pretraining as rungs

    table, frames = stage.frames_of(p, "tutorial", None, 1)
    work = p.scratch / "rungs"
    work.mkdir(parents=True, exist_ok=True)
    texts, captions = work / "captions.safetensors", table["caption"].tolist()
    if not texts.is_file():
        words = sorted(set(captions))
        save_file(dict(zip(words, sentence_encoder(p.model.text)(words), strict=True)), texts)
    hidden = table["verb"].isin(stage.novel_programs())
    labels = stage.labels_of(table, hidden if p.pretrain.novel != "labelled" else None)
    rows = stage.rows_of(table)
    spoken = stage.rows_of(table, hidden if p.pretrain.novel == "unnamed" else None)
    config, model = asdict(p.pretrain), asdict(p.model)

    def rung(kind: str, function, *given) -> tuple[str, list[dict]]:
        mine = {k: v for k, v in config.items() if k.startswith(USES[kind])}
        known = jobs.key(kind, mine, model, SEED, *given)
        out, note = work / f"{kind}-{known}.safetensors", work / f"{kind}-{known}.json"
        return str(out), jobs.kept(note, lambda: function(str(out), str(work / f"{known}.pt")))

    looks, _ = rung(
        "frames",
        lambda out, state: rungs.pretrain_frames(
            config, model, str(frames), captions, rows, str(texts), out, state, SEED
        ),
    )
    trunk, curve = rung(
        "trunk",
        lambda out, state: rungs.pretrain(
            config, model, str(frames), labels | rows, looks, out, state, SEED
        ),
        looks,
        labels,
    )
    heard = spoken["train"]
    told = [captions[i] for i in heard]
    aligned, _ = rung(
        "seed",
        lambda out, _: rungs.align(config, trunk, str(frames), told, heard, str(texts), out, SEED),
        trunk,
        heard,
    )
    kind = "seed" if p.pretrain.novel == "labelled" else "held"
    return {"frames": looks, kind: aligned}, pd.DataFrame(curve)


def measure(name: str, changes: dict) -> pd.DataFrame:
    """Baselines of one candidate: the columns of `targets`, with `candidate, here, distance, verb,
    object` (validation accuracies of pretraining, percent).

    Args:
        name: Of the candidate.
        changes: `section__name: value` over profile `study`.
    """
    from vlact.stages.ace import Bench
    from vlact.stages.worlds import WORLDS, worlds

    changes = {"ace__views": 1, "workers": 1, "seeds": [SEED], "world__seed": SEED} | changes
    p = params.load("study", "calibration", **changes)
    # candidates on one world share its files
    p = params.load("study", f"calibration-{WORLDS.key(p)}", **changes)
    worlds(p)
    files, curve = pretrained(p)
    (p.data / "pretrained").mkdir(exist_ok=True)
    for kind, path in files.items():
        shutil.copy(path, p.data / "pretrained" / f"{kind}{SEED}.safetensors")
    rows = []
    for kind in files:
        mine = [t for t in trials(p.model.depth) if (t.start == "clip") == (kind == "frames")]
        work = p.scratch / "baselines" / jobs.key(files[kind], asdict(p.ace))
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(p, mine, work)
        if not all(bench.out(t, u).is_file() for t in mine for u in bench.probes(t)):
            bench.keep()
        todo = [bench.job(t, u, LRS, EPOCHS) for t in mine for u in bench.probes(t)]
        rows += [row for found in jobs.run(todo, 1, name) for row in found]
    grid = pd.DataFrame(rows)
    cells = grid.merge(choose(grid), on=["dataset", "model", "leaf", "test", "lr", "epoch"])
    cells = cells.set_index(["dataset", "model"])
    rows = targets()
    rows["here"] = [
        100 * float(cells.loc[(r.dataset, r.baseline), f"{r.split}_acc"]) for r in rows.itertuples()
    ]
    rows["epochs"] = [int(cells.loc[(r.dataset, r.baseline), "epoch"]) for r in rows.itertuples()]
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


def main(candidates: str, log: str) -> None:
    """Measure every candidate of a yaml file (name to changes) that the log lacks."""
    path = Path(log)
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["candidate"])
    for name, changes in yaml.safe_load(Path(candidates).read_text(encoding="utf-8")).items():
        if name not in set(done["candidate"]):
            done = pd.concat([done, measure(name, changes or {})], ignore_index=True)
            done.to_csv(path, index=False, lineterminator="\n")
    sys.stdout.write(summary(done).to_string() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
