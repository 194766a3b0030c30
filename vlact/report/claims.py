"""The claims ledger: what the three papers say, beside what came out here.

`report/published/claims.csv` has the sentences. A claim that can be tested has a function here
under its id, which turns what the stages left into differences that the claim says are above zero:
by seed, or by model where the sentence is about models. A 95 % t interval decides each. A claim
holds if all its parts lie above zero, does not if one lies below, and is not decided otherwise.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from vlact import ROOT
from vlact.metrics.classification import paired_interval
from vlact.params import Params
from vlact.report import published
from vlact.report.results.ace import NAMES, PARTS, Ace
from vlact.report.results.actionvlm import FIXED, FULL, VISION, ActionVLM
from vlact.report.results.transfer import Transfer

PAPERS = {"A": Ace, "V": ActionVLM, "T": Transfer}  # from the letter that its claims begin with
CLOSE = 5.0  # points within which something is competitive, or unchanged
LOSS = 20.0  # points, "about 20 points or more"
LEARNT = 50.0  # percent of coarse motions in known contexts from which a drop is read
LATENCY = "latency at full size asks for a GPU; its arithmetic stands beside the published figures"
UNTESTABLE = {
    "V2": "one size of language model is aligned here",
    "V12": LATENCY,
    "V13": LATENCY,
    "T3": "clips of Kinetics and Something-Something cannot be rendered",
    "T5": "clips of Kinetics and Something-Something cannot be rendered",
    "T6": "clips of Kinetics and Something-Something cannot be rendered",
    "T8": "clips of Kinetics cannot be rendered",
}
CLAIMS: dict[str, Callable] = {}  # from a claim's number, such as "A1", to its parts
HOLDS, FAILS, OPEN, NOT_HERE = "holds", "does not hold", "not decided", "not testable here"


class Part(NamedTuple):
    """A difference that a claim says is above zero.

    Attributes:
        what: In words.
        values: In points unless `what` says otherwise; by seed or by model.
        over: What the interval is over, "seeds" or "models".
    """

    what: str
    values: pd.Series
    over: str = "seeds"


def claim(parts: Callable) -> Callable:
    """Decorator: the function yields the parts of the claim that it is named after."""
    return CLAIMS.setdefault(parts.__name__.upper(), parts)


def highest(r: Ace, dataset: str) -> Iterator[Part]:
    for key, name in (("srt_acc_mean", "accuracy"), ("srt_f1_mean", "F1")):
        rival, found = r.best_rival(dataset, key)
        yield Part(f"SRT {name} over {rival}", r.ace(dataset, "ACE", key) - found)


@claim
def a1(r):
    return highest(r, "ata")


@claim
def a2(r):
    return highest(r, "ikea")


@claim
def a3(r):
    return highest(r, "gtea")


@claim
def a4(r):
    for d in NAMES:
        rival, found = r.best_rival(d, "hm_acc")
        yield Part(f"{NAMES[d]}: harmonic mean over {rival}", r.ace(d, "ACE", "hm_acc") - found)


@claim
def a5(r):
    for d in NAMES:
        rival, found = r.best_rival(d, "seen_acc")
        yield Part(
            f"{NAMES[d]}: seen accuracy plus {CLOSE:g} over {rival}",
            r.ace(d, "ACE", "seen_acc") + CLOSE - found,
        )


@claim
def a6(r):
    for d in NAMES:
        for key, name in (("seen_acc", "seen"), ("srt_acc_mean", "SRT")):
            yield Part(
                f"{NAMES[d]}: {name} accuracy over ProcVLR",
                r.ace(d, "ACE", key) - r.ace(d, "ProcVLR", key),
            )


@claim
def a7(r):
    for d in ("ata", "ikea"):
        calmer = {
            x: r.ace(d, f"w/o {x}", "srt_acc_std") - r.ace(d, "ACE", "srt_acc_std") for x in PARTS
        }
        rest = max(PARTS[1:], key=lambda x: calmer[x].mean())
        yield Part(f"{NAMES[d]}: SRT std without it over with it", calmer[PARTS[0]])
        yield Part(f"{NAMES[d]}: that over the same of {rest}", calmer[PARTS[0]] - calmer[rest])


def lost(r: Ace, dataset: str, part: str) -> pd.Series:
    """SRT accuracy of ACE minus that without a part of it."""
    return r.ace(dataset) - r.ace(dataset, f"w/o {part}")


@claim
def a8(r):
    for d in ("ata", "ikea"):
        yield Part(f"{NAMES[d]}: SRT accuracy with over without them", lost(r, d, PARTS[1]))
    yield Part(
        "the loss on IKEA over that on ATA", lost(r, "ikea", PARTS[1]) - lost(r, "ata", PARTS[1])
    )


@claim
def a9(r):
    for d in ("ata", "ikea"):
        yield Part(
            f"{NAMES[d]}: SRT std with over without them",
            r.ace(d, "ACE", "srt_acc_std") - r.ace(d, f"w/o {PARTS[1]}", "srt_acc_std"),
        )


@claim
def a10(r):
    for d in ("ata", "ikea"):
        yield Part(f"{NAMES[d]}: SRT accuracy with over without L_rand", lost(r, d, "L_rand"))


@claim
def a11(r):
    for d in ("ata", "ikea"):
        yield Part(f"{NAMES[d]}: SRT accuracy with over without L_fixed", lost(r, d, "L_fixed"))


@claim
def a12(r):
    for key, name in (("srt_acc_mean", "accuracy"), ("srt_f1_mean", "F1")):
        manual, shipped = (
            r.swept("gtea", "manual tree", key, "manual"),
            r.swept("gtea", "shipped tree", key, "shipped"),
        )
        yield Part(f"SRT {name}, manual over shipped trees", manual - shipped)


@claim
def a13(r):
    manual, shipped = (
        r.swept("gtea", "manual tree", test="shipped"),
        r.swept("gtea", "shipped tree", test="shipped"),
    )
    yield Part(
        "SRT accuracy on shipped names, trained on shipped over manual trees", shipped - manual
    )


@claim
def a14(r):
    found = {m: r.swept("ata", m) for m in r.sizes}
    worst, best = (f(found, key=lambda m: found[m].mean()) for f in (min, max))
    whole = max(r.sizes, key=lambda m: sum(map(int, re.findall(r"\d+", m))))
    yield Part(
        f"SRT accuracy of the worst number ({worst}) over none",
        found[worst] - r.swept("ata", "no synonym"),
    )
    if best != whole:
        yield Part(f"of the best number ({best}) over all", found[best] - found[whole])


@claim
def a15(r):
    base = r.ace("ata", "ACE", "seen_f1") - r.swept("ata", "2 text blocks", "seen_f1")
    yield Part(f"ATA: {CLOSE:g} over the change of base F1, 2 blocks", CLOSE - base.abs())
    yield Part(
        "ATA: novel F1, projection over 2 blocks",
        r.ace("ata", "ACE", "unseen_f1") - r.swept("ata", "2 text blocks", "unseen_f1"),
    )


@claim
def a16(r):
    for d in ("ata", "ikea"):
        yield Part(
            f"{NAMES[d]}: base F1, {r.deepest} over {r.p.ace.trained_blocks}",
            r.swept(d, r.deepest, "seen_f1") - r.ace(d, "ACE", "seen_f1"),
        )


@claim
def a17(r):
    yield Part(
        f"ATA: {CLOSE:g} over the distance from chance",
        CLOSE - (r.ace("ata", "zero-shot", "unseen_acc") - r.guess("ata")).abs(),
    )
    yield Part(
        "IKEA: chance over unseen accuracy",
        r.guess("ikea") - r.ace("ikea", "zero-shot", "unseen_acc"),
    )


@claim
def a18(r):
    for d in ("ata", "ikea"):
        yield Part(
            f"{NAMES[d]}: unseen accuracy, pretrained over random",
            r.ace(d, "ACE", "unseen_acc") - r.swept(d, "random start", "unseen_acc"),
        )


@claim
def a19(r):
    for d in NAMES:
        for mode in r.modes(d):
            before, after = (r.concepts(d, mode, m) for m in ("pretrained", "ACE"))
            yield Part(
                f"{NAMES[d]}, {mode}: cosine distance within, before over after",
                before["within"] - after["within"],
            )
            yield Part(
                f"{NAMES[d]}, {mode}: between, after over before",
                after["between"] - before["between"],
            )


@claim
def a20(r):
    yield Part(
        "default labels, LaViLa over ACE",
        r.ace("gtea", "LaViLa", "unseen_acc") - r.ace("gtea", "ACE", "unseen_acc"),
    )
    yield Part("SRT, ACE over LaViLa", r.ace("gtea") - r.ace("gtea", "LaViLa"))


@claim
def v1(r):
    yield Part("mAP of the full method over vision only", r.map(FULL) - r.map(VISION))


@claim
def v3(r):
    alone = {m: r.map(m) for m in ("ActionFormer", "TriDet", "DyFADet")}
    best = max(alone, key=lambda m: alone[m].mean())
    yield Part(
        f"mAP of the full method over {best}, the best on features alone", r.map(FULL) - alone[best]
    )


@claim
def v4(r):
    yield Part("mAP of vision over language alone", r.map(VISION) - r.map("language only"))


@claim
def v5(r):
    for kind in ("fixed", "infinite"):
        yield Part(f"share of {kind} answers over none", r.failing(kind))


@claim
def v6(r):
    yield Part(
        "LAP, answers over language only", r.lap("question answering") - r.lap("language only")
    )
    yield Part("LAP, language only over the full method", r.lap("language only") - r.lap(FULL))


@claim
def v7(r):
    yield Part(
        "gain of the full method, hard over easy classes",
        r.hard_minus_easy(r.ap[FULL, "own"] - r.ap[VISION, "own"]),
    )


@claim
def v8(r):
    yield Part("mean λ (0–1), hard over easy classes", r.hard_minus_easy(r.weight_by_label(FULL)))


@claim
def v9(r):
    yield Part("mAP with over without it", r.map(FULL) - r.map("learnable λ w/o L_adv"))


@claim
def v10(r):
    for other in (VISION, FIXED):
        yield Part(f"mAP at λ = 0.4 over {other}", r.map("fixed λ = 0.4") - r.map(other))
    yield Part("adaptive over λ = 0.4", r.map(FULL) - r.map("fixed λ = 0.4"))


@claim
def v11(r):
    vision, full = r.ambiguous(VISION), r.ambiguous(FULL)
    yield Part("confidence, vision only over adaptive", vision["confidence"] - full["confidence"])
    yield Part("length, vision only over adaptive", vision["length"] - full["length"])


@claim
def v14(r):
    gain = {
        task: r.kitchens[task, FULL] - r.kitchens[task, "ActionFormer"] for task in ("verb", "noun")
    }
    yield Part("verbs: full method over vision only", gain["verb"])
    yield Part("gain on verbs over gain on nouns", gain["verb"] - gain["noun"])


@claim
def v15(r):
    mine, images = (
        r.encoders["ActionFormer", encoder]
        for encoder in ("TimeSformer on tutorials", "CLIP on frames")
    )
    yield Part("mAP on a TimeSformer's features over CLIP's", mine - images)


@claim
def v16(r):
    yield Part(
        "mAP with over without descriptions, λ = 1", r.map(FIXED) - r.map(f"{FIXED}, w/o T_desc")
    )


@claim
def v17(r):
    for kind in ("[loc]", "special tokens"):
        yield Part(
            f"mAP with over without {kind}, λ = 1", r.map(FIXED) - r.map(f"{FIXED}, w/o {kind}")
        )


@claim
def v18(r):
    yield Part("mAP with over without it, λ = 1", r.map(FIXED) - r.map(f"{FIXED}, w/o L_tg"))


@claim
def v19(r):
    yield Part(
        "share of multiples of ten, written over true", r.tens("written") - r.tens("ground truth")
    )


def thirteen(found: pd.Series) -> pd.Series:
    """The models of the paper's Table 2."""
    printed = published.read("transfer_table2")
    return found.reindex(
        [
            m
            for m in printed.loc[~printed["setting"].str.contains("domain"), "method"].unique()
            if m in found.index
        ]
    )


@claim
def t1(r):
    known = thirteen(r.by_model("coarse", "known"))
    drop = thirteen(r.by_model("coarse", "d_abs"))[known >= LEARNT]
    yield Part(f"known over unknown contexts, models that know {LEARNT:g} %", drop, "models")
    yield Part(f"the same less {LOSS:g}", drop - LOSS, "models")


@claim
def t2(r):
    for column in ("known", "unknown"):
        fine = r.by_model("fine", column)
        fine = fine[~fine.index.str.contains("all clips")]
        yield Part(
            f"{column} contexts, coarse over fine",
            r.by_model("coarse", column).reindex(fine.index) - fine,
            "models",
        )


@claim
def t4(r):
    plain = r.by_model("coarse", "hm", "plain")
    yield Part(
        "HM, plain over realistic",
        plain - r.by_model("coarse", "hm").reindex(plain.index),
        "models",
    )


@claim
def t7(r):
    yield Part("HM, disentangled over EZ-CLIP", r.arm("disentangled") - r.arm("EZ-CLIP"))
    yield Part(
        "HM, disentangled over EZ-CLIP with the same labels",
        r.arm("disentangled") - r.arm("fine labels only"),
    )


def verdict(parts: list[dict]) -> str:
    """Of a claim, from `low` and `high` of its parts (nan where one seed has no interval)."""
    if any(x["high"] < 0 for x in parts):
        return FAILS
    return HOLDS if all(x["low"] > 0 for x in parts) else OPEN


def measure(p: Params, folder: Path | None = None) -> pd.DataFrame:
    """Every part of every claim that can be tested, from score tables alone.

    Args:
        p: Parameters of the run.
        folder: Where its tables and figures are, if not in the workspace.

    Returns:
        `id, part, over` (seeds or models), `n, mean, low, high, wins`; low and high are nan where n
        is below 2, mean where it is 0.
    """
    papers = {letter: paper(p, folder) for letter, paper in PAPERS.items()}
    rows = []
    for name in published.read("claims")["id"]:
        if name in UNTESTABLE:
            continue
        for part in CLAIMS[name](papers[name[0]]):
            values = part.values.dropna().to_numpy(dtype=float)
            one = {"mean": values.mean() if len(values) else np.nan, "low": np.nan, "high": np.nan}
            one |= {"wins": int((values > 0).sum()), "n": len(values)}
            found = paired_interval(values, np.zeros_like(values)) if len(values) > 1 else one
            found = {k: found[k] for k in ("n", "mean", "low", "high", "wins")}
            rows.append({"id": name, "part": part.what, "over": part.over} | found)
    return pd.DataFrame(rows)


def ledger(parts: pd.DataFrame) -> pd.DataFrame:
    """One row a claim: the sentence, its place, the published effect, ours, the verdict, and where
    it is shown.

    Args:
        parts: From `measure`.
    """
    rows = []
    for c in published.read("claims").itertuples():
        mine = parts[parts["id"] == c.id]
        # Section 4.2 is about Table 3
        kind, number = re.search(r"(Table|Fig)\D*(\d+)", c.place + " Table 3").groups()
        notebook, heading = shown_in(
            f"{c.paper}_{'table' if kind == 'Table' else 'figure'}{number}"
        )
        row = {
            "id": c.id,
            "paper": c.paper,
            "place": c.place,
            "claim": c.claim,
            "published effect": c.published_effect,
        }
        row |= {"verdict": verdict(mine.to_dict("records")) if len(mine) else NOT_HERE}
        row |= {
            "ours": "; ".join(map(sentence, mine.itertuples())) if len(mine) else UNTESTABLE[c.id]
        }
        rows.append(row | {"notebook": notebook, "section": heading})
    return pd.DataFrame(rows)


def sentence(part) -> str:
    """A part in words: mean, 95 % interval, over how many."""
    if not part.n:
        return f"{part.part}: nothing to compare"
    interval = f" [{part.low:+.2f}, {part.high:+.2f}]" if part.n > 1 else ""
    over = part.over if part.n > 1 else part.over.removesuffix("s")
    return f"{part.part}: {part.mean:+.2f}{interval}, {part.n} {over}"


def shown_in(stem: str) -> tuple[str, str]:
    """The notebook that makes a table or figure, and the heading under which it does; "", "" where
    none does.
    """
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        heading = ""
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                heading = (
                    [x.lstrip("# ") for x in source.splitlines() if x.startswith("##")] or [heading]
                )[-1]
            elif re.search(rf'(save|=)\(.*"{stem}(?!\d)', source, re.DOTALL) and "save(" in source:
                return path.name, heading
    return "", ""
