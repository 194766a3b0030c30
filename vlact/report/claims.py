"""The claims ledger: what the three papers say, beside what came out here.

`report/published/claims.csv` has the sentences. A claim that can be tested has a function here
under its id, which turns score tables into differences that the claim says are above zero: paired
over seeds, over models and seeds where the sentence is about models. Rivals and published sizes
were fixed beforehand in `report/published/claims_parts.csv`; `vlact.report.verdicts` decides.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from vlact import ROOT
from vlact.params import Params
from vlact.report import evidence, published, verdicts
from vlact.report.evidence import FAILS, HOLDS, OPEN
from vlact.report.results.ace import NAMES, PARTS, RIVALS, Ace
from vlact.report.results.actionvlm import FIXED, FULL, VISION, ActionVLM
from vlact.report.results.arena import LARGER as LARGER_LM
from vlact.report.results.arena import judged
from vlact.report.results.common import FOLDER
from vlact.report.results.transfer import Transfer
from vlact.report.verdicts import LARGER, NO_SIZE, NOT_HERE, SMALLER

__all__ = ["FAILS", "HOLDS", "LARGER", "NOT_HERE", "NO_SIZE", "OPEN", "SMALLER"]

PAPERS = {"A": Ace, "V": judged, "T": Transfer}  # from the letter that its claims begin with
SRT = {"accuracy": "srt_acc_mean", "F1": "srt_f1_mean"}
CLOSE = 5.0  # points within which something is competitive, or unchanged
LOSS = evidence.LOSS
FUNCTIONS = 0.5  # of vision alone: a rival below it does not function
LEARNT = 50.0  # percent of coarse motions in known contexts from which a drop is read
GENERALISERS = ("VideoDG", "STDN", "CIR")
ONE_CARD = "latency was measured on one card (notebook 41), others would test it"
CLIPS = "its clips cannot be rendered; a run of the profile `paper` on them would test it"
UNTESTABLE = {
    "V12": f"{ONE_CARD}: language takes 2.1 to 4.5 times the time of vision only, published 1.2",
    "V13": f"{ONE_CARD}; question answering at full size has not been measured there",
    "T3": f"Kinetics: {CLIPS}",
    "T5": f"Kinetics and Something-Something: {CLIPS}",
    "T6": f"Kinetics and Something-Something: {CLIPS}",
    "T8": f"Kinetics: {CLIPS}",
}
NO_REAL = "the profile `real` has not run"
CLAIMS: dict[str, Callable] = {}  # from a claim's number, such as "A1", to its parts


class Part(NamedTuple):
    """A difference that a claim says is above zero.

    Attributes:
        part: Its name in `published/claims_parts.csv`.
        what: In words.
        values: In points unless `what` says otherwise, by the factors that its index names.
        random: The factors that the claim generalises over, crossed.
    """

    part: str
    what: str
    values: pd.Series
    random: tuple[str, ...] = ("seed",)
    caution: str = ""  # what a reader has to know before "holds"


def claim(parts: Callable) -> Callable:
    """Decorator: the function yields the parts of the claim that it is named after."""
    return CLAIMS.setdefault(parts.__name__.upper(), parts)


def rival(name: str, part: str) -> str:
    """Whom a part of a claim that names one method is tested against: the paper's second best."""
    fixed = published.read("claims_parts").set_index(["id", "part"])["rival"]
    return fixed[name, part]


def highest(r: Ace, dataset: str) -> Iterator[Part]:
    """Against every method of the paper's tables: who is best here is not known beforehand."""
    low = r.caution(dataset)
    for name, key in SRT.items():
        for other in RIVALS:
            gain = r.gain(dataset, "ACE", other, key)
            yield Part(f"{name} {other}", f"SRT {name} over {other}", gain, caution=low)


@claim
def a1(r):
    return highest(r, "ata")


@claim
def a2(r):
    return highest(r, "ikea")


@claim
def a3(r):
    return highest(r, "gtea")


def over_rivals(r: Ace, key: str, what: str, more: float = 0.0) -> Iterator[Part]:
    """A score of ACE, `more` added, against every method of the paper's tables and dataset."""
    for d in NAMES:
        for other in RIVALS:
            gain = r.gain(d, "ACE", other, key) + more
            yield Part(f"{d} {other}", f"{NAMES[d]}: {what} over {other}", gain)


@claim
def a4(r):
    return over_rivals(r, "hm_acc", "harmonic mean")


@claim
def a5(r):
    return over_rivals(r, "seen_acc", f"seen accuracy plus {CLOSE:g}", CLOSE)


@claim
def a6(r):
    for d in NAMES:
        for key, name in (("seen_acc", "seen"), ("srt_acc_mean", "SRT")):
            gain, low = r.gain(d, "ACE", "ProcVLR", key), r.caution(d) if name == "SRT" else ""
            yield Part(
                f"{d} {name}", f"{NAMES[d]}: {name} accuracy over ProcVLR", gain, caution=low
            )


@claim
def a7(r):
    for d in ("ata", "ikea"):
        other = rival("A7", f"{d} most")
        leaf, rest = (r.gain(d, f"w/o {x}", "ACE", "srt_acc_std") for x in (PARTS[0], other))
        yield Part(d, f"{NAMES[d]}: SRT std without it over with it", leaf)
        yield Part(f"{d} most", f"{NAMES[d]}: that over the same of {other}", leaf - rest)


def lost(r: Ace, dataset: str, part: str) -> pd.Series:
    """SRT accuracy of ACE minus that without a part of it."""
    return r.gain(dataset, "ACE", f"w/o {part}")


@claim
def a8(r):
    for d in ("ata", "ikea"):
        yield Part(d, f"{NAMES[d]}: SRT accuracy with over without them", lost(r, d, PARTS[1]))
    more = lost(r, "ikea", PARTS[1]) - lost(r, "ata", PARTS[1])
    yield Part("more", "the loss on IKEA over that on ATA", more)


@claim
def a9(r):
    for d in ("ata", "ikea"):
        wider = r.gain(d, "ACE", f"w/o {PARTS[1]}", "srt_acc_std")
        yield Part(d, f"{NAMES[d]}: SRT std with over without them", wider)


@claim
def a10(r):
    for d in ("ata", "ikea"):
        yield Part(d, f"{NAMES[d]}: SRT accuracy with over without L_rand", lost(r, d, "L_rand"))


@claim
def a11(r):
    for d in ("ata", "ikea"):
        yield Part(d, f"{NAMES[d]}: SRT accuracy with over without L_fixed", lost(r, d, "L_fixed"))


@claim
def a12(r):
    for part, key in SRT.items():
        gain = r.gain("gtea", "manual tree", "shipped tree", key, tests=("manual", "shipped"))
        yield Part(part, f"SRT {part}, manual over shipped trees", gain, caution=r.caution("gtea"))


@claim
def a13(r):
    gain = r.gain("gtea", "shipped tree", "manual tree", tests=("shipped", "shipped"))
    what = "SRT accuracy on shipped names, trained on shipped over manual trees"
    yield Part("accuracy", what, gain, caution=r.caution("gtea"))


@claim
def a14(r):
    # the row of Fig. 3 that varies the children of the root, all of theirs kept
    counts = {m: [int(x) for x in re.findall(r"\d+", m)] for m in r.sizes}
    second = max(b for _, b in counts.values())
    row = sorted((m for m in counts if counts[m][1] == second), key=lambda m: counts[m][0])
    least, middle, most = row[0], row[len(row) // 2], row[-1]
    for part, size in (("least", least), ("most", most)):
        gain = r.gain("ata", size, "no synonym")
        yield Part(part, f"SRT accuracy of {size} over none", gain)
    gain = r.gain("ata", middle, most)
    yield Part("middle", f"of {middle} over {most}", gain)


@claim
def a15(r):
    base, novel = (r.gain("ata", "ACE", "2 text blocks", key) for key in ("seen_f1", "unseen_f1"))
    yield Part("base", f"ATA: {CLOSE:g} over the change of base F1, 2 blocks", CLOSE - base.abs())
    yield Part("novel", "ATA: novel F1, projection over 2 blocks", novel)


@claim
def a16(r):
    for d in ("ata", "ikea"):
        gain = r.gain(d, r.deepest, "ACE", "seen_f1")
        yield Part(d, f"{NAMES[d]}: base F1, {r.deepest} over {r.p.ace.trained_blocks}", gain)


@claim
def a17(r):
    above = {d: r.ace(d, "zero-shot", "unseen_acc") - r.guess(d) for d in ("ata", "ikea")}
    what = f"ATA: {CLOSE:g} over the distance from chance"
    yield Part("ata", what, CLOSE - above["ata"].abs())
    yield Part("ikea", "IKEA: chance over unseen accuracy", -above["ikea"])


@claim
def a18(r):
    for d in ("ata", "ikea"):
        gain = r.gain(d, "ACE", "random start", "unseen_acc")
        yield Part(d, f"{NAMES[d]}: unseen accuracy, pretrained over random", gain)


@claim
def a19(r):
    for d in NAMES:
        for mode in r.modes(d):
            before, after = (r.concepts(d, mode, m) for m in ("pretrained", "ACE"))
            for part, tighter, what in (
                ("within", before["within"] - after["within"], "within, before over after"),
                ("between", after["between"] - before["between"], "between, after over before"),
            ):
                words = f"{NAMES[d]}, {mode}: cosine distance {what}"
                yield Part(f"{d} {mode} {part}", words, tighter)


@claim
def a20(r):
    default = r.gain("gtea", "LaViLa", "ACE", "unseen_acc")
    yield Part("default", "default labels, LaViLa over ACE", default)
    gain = r.gain("gtea", "ACE", "LaViLa")
    yield Part("SRT", "SRT, ACE over LaViLa", gain, caution=r.caution("gtea"))


@claim
def v1(r):
    gain = r.over(FULL, VISION)
    yield Part("mAP", "mAP of the full method over vision only", gain, r.random)


@claim
def v2(r):
    gain = r.over(LARGER_LM, FULL)
    what = "mAP of the full method with a language model of twice the layers over the smaller one"
    yield Part("mAP", what, gain, r.random)


@claim
def v3(r):
    other, r = rival("V3", "mAP"), r.stadium  # where the other localizers are trained
    gain, what = r.over(FULL, other), f"mAP of the full method over {other}, on features alone"
    theirs = r.map(other)
    if broken := int((theirs < r.map(VISION).mean() * FUNCTIONS).sum()):
        what += f"; {other} did not train on {broken} of {len(theirs)} seeds, which decides nothing"
        gain = gain.iloc[:0]
    yield Part("mAP", what, gain, r.random)


@claim
def v4(r):
    gain = r.over(VISION, "language only")
    what = "mAP of vision over language alone"
    # the arena was calibrated on these two rows
    yield Part("mAP", f"{what} (set by calibration)" if r.calibrated else what, gain, r.random)


@claim
def v5(r):
    for kind in ("fixed", "infinite"):
        yield Part(kind, f"share of {kind} answers over none", r.failing(kind))


@claim
def v6(r):
    answers, language, full = map(r.lap, ("question answering", "language only", FULL))
    # answers are trained on fewer seeds
    yield Part("answers", "LAP, answers over language only", (answers - language).dropna())
    yield Part("language", "LAP, language only over the full method", language - full)


@claim
def v7(r):
    gain = r.hard_minus_easy((r.labelled(FULL) - r.labelled(VISION)).dropna())
    yield Part("gain", "gain of the full method, hard over easy classes", gain, r.random)


@claim
def v8(r):
    weight = r.hard_minus_easy(r.weight_by_label(FULL))
    yield Part("weight", "mean λ (0–1), hard over easy classes", weight, r.random)


@claim
def v9(r):
    gain = r.over(FULL, "learnable λ w/o L_adv")
    yield Part("mAP", "mAP with over without it", gain, r.random)


@claim
def v10(r):
    best = "fixed λ = 0.4"
    for part, other in (("vision", VISION), ("fixed", FIXED)):
        yield Part(part, f"mAP at λ = 0.4 over {other}", r.over(best, other), r.random)
    yield Part("adaptive", "adaptive over λ = 0.4", r.over(FULL, best), r.random)


@claim
def v11(r):
    vision, full = r.ambiguous(VISION), r.ambiguous(FULL)
    for part in ("confidence", "length"):
        gain = (vision[part] - full[part]).dropna()
        yield Part(part, f"{part}, vision only over adaptive", gain, r.random)


@claim
def v14(r):
    gain = {
        task: r.kitchens[task, FULL] - r.kitchens[task, "ActionFormer"] for task in ("verb", "noun")
    }
    yield Part("verbs", "verbs: full method over vision only", gain["verb"])
    yield Part("gain", "gain on verbs over gain on nouns", gain["verb"] - gain["noun"])


@claim
def v15(r):
    mine, images = (
        r.encoders["ActionFormer", encoder]
        for encoder in ("TimeSformer on tutorials", "CLIP on frames")
    )
    yield Part("mAP", "mAP on a TimeSformer's features over CLIP's", mine - images)


def without(r: ActionVLM, part: str) -> pd.Series:
    """mAP at full weight of language minus that without a part of the method."""
    return r.over(FIXED, f"{FIXED}, w/o {part}")


@claim
def v16(r):
    what = "mAP with over without descriptions, λ = 1"
    yield Part("mAP", what, without(r, "T_desc"), r.random)


@claim
def v17(r):
    for part in ("[loc]", "special tokens"):
        yield Part(part, f"mAP with over without {part}, λ = 1", without(r, part), r.random)


@claim
def v18(r):
    yield Part("mAP", "mAP with over without it, λ = 1", without(r, "L_tg"), r.random)


@claim
def v19(r):
    more = r.tens("written") - r.tens("ground truth")
    yield Part("share", "share of multiples of ten, written over true", more)


RUNS = ("model", "seed")  # what a sentence about models generalises over
MODELS = RUNS[:1]  # where rows have few seeds, which are averaged
SHARED = "over models alone: what the few seeds that they share have in common is not in it"


def runs(r: Transfer, task: str, column: str, background: str = "realistic") -> pd.Series:
    """A column of the transfer runs by model and seed, both directions averaged."""
    mine = (r.transfer["task"] == task) & (r.transfer["background"] == background)
    return r.transfer[mine].set_index(list(RUNS))[column]


def of_models(values: pd.Series, models) -> pd.Series:
    """The rows of these models."""
    return values[values.index.isin(models, level="model")]


def thirteen() -> list[str]:
    """The models of the paper's Table 2, those for domain generalisation apart."""
    return list(evidence.learners("HM").index)


@claim
def t1(r):
    known = of_models(runs(r, "coarse", "known"), thirteen()).groupby("model").mean()
    drop = of_models(runs(r, "coarse", "d_abs"), known.index[known >= LEARNT])
    yield Part("drop", f"known over unknown contexts, models that know {LEARNT:g} %", drop, RUNS)
    yield Part("less", f"the same less {LOSS:g}", drop - LOSS, RUNS)


@claim
def t2(r):
    for column in ("known", "unknown"):
        fine = runs(r, "fine", column)
        gain = (runs(r, "coarse", column) - fine).dropna()
        yield Part(column, f"{column} contexts, coarse over fine", gain, MODELS, SHARED)


def plain(r: Transfer, task: str) -> pd.Series:
    """HM on plain minus that on realistic backgrounds, of the models that were asked for both."""
    return (runs(r, task, "hm", "plain") - runs(r, task, "hm")).dropna()


@claim
def t4(r):
    yield Part("HM", "HM, plain over realistic", plain(r, "coarse"), MODELS, SHARED)


@claim
def t7(r):
    for part, other in (("base", "EZ-CLIP"), ("labels", "fine labels only")):
        gain = r.arm("disentangled") - r.arm(other)
        same = " with the same labels" if part == "labels" else ""
        yield Part(part, f"HM, disentangled over EZ-CLIP{same}", gain)


def of_model(values: pd.Series, model: str) -> pd.Series:
    """The rows of one model by seed; none where it was not run."""
    return of_models(values, [model]).droplevel("model")


@claim
def t9(r):
    hm = runs(r, "coarse", "hm")
    for other in thirteen():
        if other != "AIM":
            gain = of_model(hm, "AIM") - of_model(hm, other)
            yield Part(f"HM {other}", f"HM, AIM over {other}", gain)


@claim
def t10(r):
    drop = runs(r, "coarse", "d_abs")
    for model in GENERALISERS:
        yield Part(model, f"{model}: known over unknown contexts", of_model(drop, model))


@claim
def t11(r):
    other = rival("T11", "HM")
    hm = runs(r, "coarse", "hm")
    yield Part("HM", f"HM, X3D over {other}", of_model(hm, "X3D") - of_model(hm, other))


@claim
def t12(r):
    yield Part("HM", "HM, plain over realistic", plain(r, "fine"), MODELS, SHARED)


def measure(p: Params, folder: Path | None = None, only: Sequence[str] = ()) -> pd.DataFrame:
    """Every part of every claim that can be tested, from score tables alone.

    Args:
        p: Parameters of the run.
        folder: Where its tables and figures are, if not in the workspace.
        only: These claims, all if none is named.

    Returns:
        Rows of `vlact.report.verdicts.row`.

    Raises:
        FileNotFoundError: Scores that no stage kept.
    """
    wanted = [x for x in only or published.read("claims")["id"] if x not in UNTESTABLE]
    papers = {x: PAPERS[x](p, folder) for x in dict.fromkeys(name[0] for name in wanted)}
    return pd.DataFrame(
        verdicts.row(name, part.part, part.what, part.values, part.random)
        | {"caution": part.caution}
        for name in wanted
        for part in CLAIMS[name](papers[name[0]])
    )


def measure_real(folder: Path = ROOT / "figures" / "real") -> pd.DataFrame | None:
    """Parts of claims that were asked on real video.

    A stage of the profile `real` that tests claims keeps `scores/claims.csv`: one row a unit with
    `id, part` (of `published/claims_parts.csv`), `what`, `value` (a paired difference that the
    claim says is above 0) and a column for each random factor, empty where a part has it not.

    Args:
        folder: Tables and figures of the profile.

    Returns:
        As `measure`; None where no stage has kept such a table.

    Raises:
        ValueError: A column is missing; names file and columns.
    """
    fixed, rows = ["id", "part", "what", "value"], []
    for path in sorted(folder.glob(f"*/{FOLDER}/claims.csv")):
        table = pd.read_csv(path)
        if lacking := [c for c in fixed if c not in table]:
            raise ValueError(f"{path}: no column {lacking}; there are {list(table)}")
        for (name, part, what), mine in table.groupby(fixed[:3], sort=False):
            factors = [c for c in table if c not in fixed and mine[c].notna().any()]
            values = mine.set_index(factors)["value"]
            rows.append(verdicts.row(name, part, what, values, factors))
    return pd.DataFrame(rows) if rows else None


def ledger(parts: pd.DataFrame, real: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a claim: sentence, place, published effect, verdicts and where the evidence is from.

    Args:
        parts: From `measure`, on rendered worlds.
        real: From `measure_real`.

    Returns:
        `verdict`, `size` from rendered worlds with the reason (`why`) for there being none and the
        smallest effect that the design `detects`; `real verdict`, `real size`; `published tables`,
        what the papers' own tables say; `ours`, the parts in words; where it is shown.
    """
    judged, parts = verdicts.judge(parts)
    real_judged = verdicts.judge(real, whole=False)[0] if real is not None else pd.DataFrame()
    printed = {name: f"{verdict}: {why}" for name, verdict, why in evidence.from_tables()}
    rows = []
    for c in published.read("claims").itertuples():
        # Section 4.2 is about Table 3
        kind, number = re.search(r"(Table|Fig)\D*(\d+)", c.place + " Table 3").groups()
        stem = f"{c.paper}_{'table' if kind == 'Table' else 'figure'}{number}"
        notebook, heading = shown_in(stem)
        mine = parts[parts["id"] == c.id]
        none = {"verdict": NOT_HERE, "size": NOT_HERE, "why": UNTESTABLE.get(c.id, "")}
        found = judged.loc[c.id].to_dict() if len(mine) else none | {"detects": None}
        there = real_judged.loc[c.id].to_dict() if c.id in real_judged.index else {}
        row = {"id": c.id, "paper": c.paper, "place": c.place, "claim": c.claim}
        row |= {"published effect": c.published_effect} | found
        row |= {f"real {k}": there.get(k, "") for k in ("verdict", "size")}
        row["real why"] = there.get("why", NO_REAL)
        row["published tables"] = printed.get(c.id, "")
        row["ours"] = "; ".join(map(sentence, mine.itertuples())) or none["why"]
        if cautions := [x for x in dict.fromkeys(mine["caution"]) if x]:
            row["ours"] += f". But {'; '.join(cautions)}"
        rows.append(row | {"notebook": notebook, "section": heading})
    return pd.DataFrame(rows)


def sentence(part) -> str:
    """A part in words: mean, 95 % interval, over how many."""
    if pd.isna(part.mean):
        return f"{part.what}: nothing to compare"
    interval = f" [{part.low:+.2f}, {part.high:+.2f}]" if part.low < part.high else ""
    return f"{part.what}: {part.mean:+.2f}{interval}, {part.n} {part.over}"


@cache
def saving_cells() -> list[tuple[str, str, str]]:
    """Cells of notebooks that save a table or figure: notebook, heading above, source."""
    found = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        heading = ""
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                heads = [x.lstrip("# ") for x in source.splitlines() if x.startswith("##")]
                heading = (heads or [heading])[-1]
            elif "save(" in source:
                found.append((path.name, heading, source))
    return found


def shown_in(stem: str) -> tuple[str, str]:
    """The notebook that makes a table or figure, and the heading under which it does; "", "" where
    none does.
    """
    makes = re.compile(rf'(save|=)\(.*"{stem}(?!\d)', re.DOTALL)
    shown = ((name, heading) for name, heading, source in saving_cells() if makes.search(source))
    return next(shown, ("", ""))
