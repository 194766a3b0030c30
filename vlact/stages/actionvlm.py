"""Stage `actionvlm`: every row of ActionVLM's tables, trained and tested under all conditions.

Headline rows run on every seed, the others, and the cross-fitted selector, on the first
`vlm.ablation_seeds`. A seed is a training set and an initialisation.
"""

import json
from dataclasses import asdict, replace

import pandas as pd

from vlact.language.descriptions import describe
from vlact.metrics.proposals import derangements
from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage, tables_of, write_curves
from vlact.stages.alignment import alignment
from vlact.stages.localizers import LOCALIZERS, problems, recipe_of
from vlact.stages.stadium import truth_of

ACTIONVLM = Stage(
    "actionvlm",
    __name__,
    ("vlm",),
    LOCALIZERS,
)

DERANGED, FOLDS = 2, 4
SESSION = {"batch_size": 2}  # long windows


def headline():
    """Rows that run on every seed."""
    from vlact.papers.actionvlm.experiments import Variant

    return [
        Variant("vision only"),
        Variant("fixed λ = 1.0", 1.0),
        Variant("full (Eq. 1)", "eq1"),
        Variant("fixed λ = 1.0, random LM", 1.0, lm="random"),
        # what any further input would do
        Variant("fixed λ = 1.0, noise", 1.0, lm="noise"),
        # ours: language as a prior over classes in place of Eq. 5
        Variant("prior, λ = 1.0", 1.0, fusion="prior"),
        Variant("prior, full (Eq. 1)", "eq1", fusion="prior"),
        Variant("prior at test, λ = 0.25", 0.25, fusion="prior", joint=False),
    ]


def ablations():
    """Rows that run on some seeds."""
    from vlact.papers.actionvlm.experiments import Variant

    out = [Variant(f"fixed λ = {x}", x) for x in (0.2, 0.4, 0.6, 0.8)]
    out += [
        Variant("vision only, equal vision epochs", epochs=0.5),
        Variant("language only", 1.0, vision=False),
        Variant("language only, biased LM", 1.0, vision=False, lm="biased"),
        Variant("fixed λ = 1.0, biased LM", 1.0, lm="biased"),
        Variant("learnable λ w/o L_adv", "learned"),
        Variant("LM-generated λ", "generated"),
        Variant("full, paired advantage", "paired"),
        Variant("fixed λ = 1.0, w/o T_desc", 1.0, described=False, ground=False),
        Variant("fixed λ = 1.0, w/o special tokens", 1.0, read_from=("vis", "vis", "vis")),
        Variant("fixed λ = 1.0, w/o [loc]", 1.0, read_from=("cls", "cls", "adv")),
        Variant("fixed λ = 1.0, w/o L_tg", 1.0, text_weight=0.0),
        Variant("fixed λ = 1.0, w/o grounding", 1.0, ground=False),
        Variant("fixed λ = 1.0, grounding only", 1.0, ground="only"),
    ]
    return out


def descriptions(p: Params | None = None, name: str = "ground_truth") -> dict[str, str]:
    """Class to description, of the ground truth or of "sessions".

    Of real data from descriptions.json beside the ground truth, if it is there; else from the poses
    of its beats in the stadium, whose classes are those of THUMOS14 and come first; a class that
    the stadium lacks goes by its name.

    Raises:
        ValueError: descriptions.json lacks a class; names it.
    """
    from vlact.worlds.broadcast import SESSIONS
    from vlact.worlds.stadium import ACTIONS

    known = {k: describe([b.pose for b in a.beats]) for k, a in ACTIONS.items()}
    classes = list(known) if name == "ground_truth" else SESSIONS
    if p and p.world.source == "folder":
        there, own = set(truth_of(p, name)["label"]), p.data / "stadium" / "descriptions.json"
        classes = [k for k in known if k in there] + sorted(there - set(known))
        known = (
            json.loads(own.read_text(encoding="utf-8"))
            if own.is_file()
            else {k: known.get(k, k) for k in classes}
        )
        if missing := [k for k in classes if k not in known]:
            raise ValueError(
                f"{own}: no description of {missing[0]!r}, one of {len(missing)} classes of "
                f"{name}.json that it lacks"
            )
    return {k: known[k] for k in classes}


def actionvlm(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/actionvlm`: detections.parquet (model, seed, condition), the same of the
    sessions (sessions.parquet), frames.parquet, answers.parquet, curves.csv, and
    actionvlm.safetensors, the first seed's localizer at a fixed λ of 1.

    Raises:
        ValueError: The reader did not pass its gate.
    """
    folder = p.data / "actionvlm"
    if not ACTIONVLM.must_run(p, folder, must_exist):
        return
    from vlact.papers.actionvlm.experiments import TEXTS, AnswerJob, VisionLanguageJob

    alignment(p, must_exist=True)
    # real data has none
    gate, biased = (p.data / "aligned" / name for name in ("gate.csv", "biased_reader.safetensors"))
    if gate.is_file() and (read := pd.read_csv(gate)["pointer"].iloc[0]) < p.align.gate:
        raise ValueError(
            f"the language model does not read: {read:.2f} of the frames of held-out drills point "
            "to the right description, "
            f"expected {p.align.gate:.2f} (align.gate); align it longer (align.steps)"
        )
    work, recipe = ACTIONVLM.work(p), recipe_of(p) | asdict(p.vlm)
    classes, aligned = descriptions(p), str(p.data / "aligned")
    given = problems(p, work, classes, recipe)
    swaps = {
        f"deranged {i}": [int(x) for x in order]
        for i, order in enumerate(derangements(len(classes), DERANGED))
    }
    todo, names, asked = [], [], {}
    some = p.seeds[: p.vlm.ablation_seeds]
    for variant in (rows := headline()) + [
        v for v in ablations() if v.lm != "biased" or biased.is_file()
    ]:
        told = variant in rows or not variant.vision or variant.ground == "only"
        conditions = {"language off": None} | swaps | {k: k for k in TEXTS} if told else {}
        for i, s in enumerate(p.seeds if variant in rows else some):
            one = (
                replace(variant, folds=FOLDS)
                if variant.name == "fixed λ = 1.0" and s in some
                else variant
            )
            out = str(work / f"{len(todo)}")
            weights = str(folder / "actionvlm.safetensors") if one.folds and not i else ""
            kept = out, f"{out}.pt", weights
            todo.append(VisionLanguageJob(one, given[i], aligned, conditions, s, *kept))
            # of one seed every row is asked the same
            out = str(work / f"answers{s}")
            asked.setdefault(s, AnswerJob(given[i], aligned, swaps, s, out, f"{out}.pt"))
            names.append({"model": variant.name, "seed": s})
    long, heard = [], []  # they take longest, and go first
    if (p.data / "stadium" / "sessions.json").is_file():  # real data need not have any
        mine = recipe | SESSION | {"window": p.vlm.session_window}
        given = problems(p, work, descriptions(p, "sessions"), mine, "sessions")
        for variant in headline()[:3]:
            for i, s in enumerate(p.seeds[: p.vlm.session_seeds]):
                out = str(work / f"session{len(long)}")
                long.append(VisionLanguageJob(variant, given[i], aligned, {}, s, out, f"{out}.pt"))
                heard.append({"model": f"{variant.name}, sessions", "seed": s})
    asked = list(asked.values())
    curves = jobs.run(long + todo + asked, p.workers, "ActionVLM")
    names = heard + names + [{"model": "question answering", "seed": job.seed} for job in asked]
    tables = {"answers": tables_of(asked), "detections": tables_of(todo)}
    if long:
        tables["sessions"] = tables_of(long)
    tables["frames"] = tables_of([j for j in todo if j.variant.watched(j.conditions)], "-frames")
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    write_curves(folder, names, curves)
    ACTIONVLM.finish(p, folder)
