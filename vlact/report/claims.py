"""The claims ledger: what the three papers say, beside what came out here.

`report/published/claims.csv` has the sentences. A claim that can be tested has a function here
under its id, which turns what the stages left into differences that the claim says are above zero:
by seed, or by model where the sentence is about models. A 95 % t interval decides each. A claim
holds if all its parts lie above zero, does not if one lies below, and is not decided otherwise.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from vlact import ROOT
from vlact.datasets import activitynet
from vlact.metrics import proposals
from vlact.metrics.classification import paired_interval, random_guess
from vlact.metrics.concepts import concept_space
from vlact.metrics.localization import EPIC_TIOUS, THUMOS14_TIOUS, evaluate
from vlact.metrics.selection import best_cells
from vlact.metrics.transfer import accuracies, averaged
from vlact.params import Params
from vlact.report import published

NAMES = {"ata": "ATA", "ikea": "IKEA", "gtea": "GTEA"}
RIVALS = ("ViFi-CLIP (ft)", "ViFi-CLIP (pr)", "BIKE", "Text4Vis", "ProcVLR")  # ACE's Tables 1 and 2
PARTS = ("leaf augmentation", "shadow negatives", "L_rand", "L_fixed")
VISION, FIXED, FULL = "vision only", "fixed λ = 1.0", "full (Eq. 1)"
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


class Results:
    """What the stages of a workspace left, each table read when it is asked for."""

    def __init__(self, p: Params):
        self.p = p

    # ACE
    @cached_property
    def cells(self) -> pd.DataFrame:
        """Chosen cells of the grid, a row a seed."""
        return best_cells(pd.read_csv(self.p.data / "ace" / "scores.csv"))

    @cached_property
    def sweeps(self) -> pd.DataFrame:
        return best_cells(pd.read_csv(self.p.data / "ace_sweeps" / "scores.csv"), every=True)

    def ace(self, dataset: str, method: str = "ACE", key: str = "srt_acc_mean") -> pd.Series:
        """A score of a method by seed, percent."""
        mine = self.cells[(self.cells["dataset"] == dataset) & (self.cells["method"] == method)]
        return 100 * mine.set_index("seed")[key]

    def swept(
        self, dataset: str, model: str, key: str = "srt_acc_mean", test: str | None = None
    ) -> pd.Series:
        mine = self.sweeps[(self.sweeps["dataset"] == dataset) & (self.sweeps["model"] == model)]
        return 100 * mine[mine["test"] == test if test else slice(None)].set_index("seed")[key]

    def best_rival(self, dataset: str, key: str) -> tuple[str, pd.Series]:
        """The method of the paper's tables, ACE apart, with the highest mean."""
        found = {m: self.ace(dataset, m, key) for m in RIVALS}
        name = max(found, key=lambda m: found[m].mean())
        return name, found[name]

    def guess(self, dataset: str) -> float:
        """Accuracy of guessing novel classes, percent."""
        asked = pd.read_parquet(
            self.p.data / "ace" / "predictions.parquet",
            columns=["dataset", "model", "mode", "run", "label"],
        )
        labels = asked.query(
            "dataset == @dataset and model == 'zero-shot' and mode == 'novel' and run == 0"
        )["label"]
        return 100 * random_guess(labels, labels.nunique())["acc"]

    # ActionVLM
    @property
    def step_s(self) -> float:
        """Seconds from one feature to the next."""
        return self.p.tal.stride / self.p.stadium.fps

    @cached_property
    def truth(self) -> pd.DataFrame:
        return activitynet.ground_truth(self.p.data / "stadium" / "ground_truth.json", "test")

    @property
    def classes(self) -> list[str]:
        """The stadium's actions, numbered as in `frames`."""
        from vlact.worlds.stadium import ACTIONS

        return list(ACTIONS)

    @cached_property
    def detections(self) -> pd.DataFrame:
        """Of every localizer, with question answering as one more model."""
        folder, shown = (
            self.p.data,
            ["video", "start_s", "end_s", "label", "score", "model", "seed", "condition"],
        )
        others = pd.read_parquet(folder / "localizers" / "detections.parquet").assign(
            condition="own"
        )
        encoders = pd.read_parquet(folder / "encoders" / "detections.parquet").assign(
            condition="own"
        )
        encoders["model"] = "ActionFormer, " + encoders["encoder"]
        seconds, said = self.truth.drop_duplicates("video").set_index("video")["duration_s"], []
        for row in self.answers.itertuples():
            table = proposals.read(row.text, self.classes)[0]
            times = ((row.start + table[["start", "end"]]) * self.step_s).clip(
                upper=seconds[row.video]
            )
            where = {k: getattr(row, k) for k in ("video", "model", "seed", "condition")}
            said.append(
                table[["label", "score"]].assign(
                    start_s=times["start"], end_s=times["end"], **where
                )
            )
        said = pd.concat(said, ignore_index=True)
        said = said[said["end_s"] > said["start_s"] + 1e-3]
        tables = [
            pd.read_parquet(folder / "actionvlm" / "detections.parquet"),
            others,
            encoders,
            said,
        ]
        return pd.concat([t[shown] for t in tables], ignore_index=True)

    @cached_property
    def answers(self) -> pd.DataFrame:
        return pd.read_parquet(self.p.data / "actionvlm" / "answers.parquet").assign(
            model="question answering"
        )

    @cached_property
    def frames(self) -> pd.DataFrame:
        return pd.read_parquet(self.p.data / "actionvlm" / "frames.parquet")

    @cached_property
    def ap(self) -> pd.DataFrame:
        """Average precision in percent by `model, condition, seed, label`, averaged over tIoU
        0.3–0.7; 0 of answers that say nothing.
        """
        keys = ["model", "condition", "seed"]
        wanted = self.detections[
            self.detections["condition"].str.fullmatch(r"own|λ = 0\.4|deranged \d")
        ]
        found = [
            evaluate(self.truth, part, tious=THUMOS14_TIOUS).assign(
                **dict(zip(keys, key, strict=True))
            )
            for key, part in wanted.groupby(keys, sort=False)
        ]
        ap = 100 * pd.concat(found).groupby([*keys, "label"])["ap"].mean()
        asked = self.answers[keys].drop_duplicates().itertuples(index=False, name=None)
        silent = [
            (*key, label)
            for key in asked
            if key not in ap.index.droplevel("label")
            for label in self.classes
        ]
        return (
            pd.concat(
                [ap, pd.Series(0.0, pd.MultiIndex.from_tuples(silent, names=ap.index.names))]
            ).sort_index()
            if silent
            else ap
        )

    def map(self, model: str, condition: str = "own") -> pd.Series:
        """mAP by seed, percent."""
        return self.ap[model, condition].groupby("seed").mean()

    def lap(self, model: str) -> pd.Series:
        """Language advantage on performance by seed, percent."""
        conditions = [
            c for c in self.ap.loc[model].index.unique("condition") if c.startswith("deranged")
        ]
        own, wrong = self.map(model), [self.map(model, c) for c in conditions]
        return pd.Series(
            {
                s: proposals.language_advantage_on_performance(own[s], [w[s] for w in wrong])
                for s in own.index
                if own[s] > 0
            }
        )

    def groups(self, seed: int) -> tuple[list[str], list[str]]:
        """The hard tenth and the easy fifth of classes, by what vision alone makes of them on the
        other seeds.
        """
        own = self.ap[VISION, "own"]
        others = (
            own[own.index.get_level_values("seed") != seed]
            .groupby("label")
            .mean()
            .sort_values(kind="stable")
            .index
        )
        return list(others[: max(1, len(others) // 10)]), list(others[-len(others) // 5 :])

    def hard_minus_easy(self, by_label: pd.Series) -> pd.Series:
        """Of a value by seed and label, its mean on hard classes minus that on easy ones."""
        out = {}
        for seed, part in by_label.groupby("seed"):
            hard, easy = self.groups(seed)
            part = part.droplevel("seed")
            out[seed] = part.reindex(hard).mean() - part.reindex(easy).mean()
        return pd.Series(out)

    def ambiguous(self, model: str) -> pd.DataFrame:
        """Confidence and covered share by seed, percent, on clips that only look like an action
        (Table 5).
        """
        events = json.loads((self.p.data / "stadium" / "events.json").read_text(encoding="utf-8"))
        clips = pd.DataFrame(
            [
                {"video": v, **d}
                for v in self.truth["video"].unique()
                for d in events[v]["distractors"]
            ]
        )
        clips = clips.groupby("label", sort=False).head(2)
        mine, rows = (
            self.detections[
                (self.detections["model"] == model) & (self.detections["condition"] == "own")
            ],
            [],
        )
        for seed, part in mine.groupby("seed"):
            for c in clips.itertuples():
                over = part[part["video"] == c.video]
                share = (
                    over["end_s"].clip(c.start_s, c.end_s)
                    - over["start_s"].clip(c.start_s, c.end_s)
                ) / (c.end_s - c.start_s)
                over = over[share > 0.5]
                best = over["score"].idxmax() if len(over) else None
                rows.append(
                    (seed, 0.0, 0.0)
                    if best is None
                    else (seed, over.loc[best, "score"], share[best])
                )
        return (
            100
            * pd.DataFrame(rows, columns=["seed", "confidence", "length"]).groupby("seed").mean()
        )

    @cached_property
    def kitchens(self) -> pd.Series:
        """mAP by task, model, seed, percent."""
        folder, rows = self.p.data / "kitchens", {}
        truth = {
            task: activitynet.ground_truth(folder / f"{task}.json", "test")
            for task in ("verb", "noun")
        }
        for key, part in pd.read_parquet(folder / "detections.parquet").groupby(
            ["task", "model", "seed"], sort=False
        ):
            rows[key] = 100 * evaluate(truth[key[0]], part, tious=EPIC_TIOUS)["ap"].mean()
        return pd.Series(rows).sort_index()

    # Motion transfer
    @cached_property
    def transfer(self) -> pd.DataFrame:
        """Accuracies by background, model, task and seed, both directions averaged."""
        asked = pd.read_parquet(self.p.data / "transfer" / "predictions.parquet")
        found = []
        for background, part in asked.groupby("background", sort=False):
            runs = accuracies(part)
            found.append(averaged(runs[runs["unknown"].notna()]).assign(background=background))
        return pd.concat(found, ignore_index=True)

    def by_model(self, task: str, column: str, background: str = "realistic") -> pd.Series:
        mine = self.transfer[
            (self.transfer["task"] == task) & (self.transfer["background"] == background)
        ]
        return mine.groupby("model", sort=False)[column].mean()

    def arm(self, name: str) -> pd.Series:
        """HM of an arm of the disentanglement by seed, both directions averaged."""
        runs = accuracies(pd.read_parquet(self.p.data / "disentangle" / "predictions.parquet"))
        return runs[runs["model"] == name].groupby("seed")["hm"].mean()


def claim(parts: Callable) -> Callable:
    """Decorator: the function yields the parts of the claim that it is named after."""
    return CLAIMS.setdefault(parts.__name__.upper(), parts)


def highest(r: Results, dataset: str) -> Iterator[Part]:
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


def lost(r: Results, dataset: str, part: str) -> pd.Series:
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
    sizes = [
        m
        for m in r.sweeps.query("dataset == 'ata'")["model"].unique()
        if re.fullmatch(r"\d+ first, \d+ second", m)
    ]
    found = {m: r.swept("ata", m) for m in sizes}
    worst, best = (f(found, key=lambda m: found[m].mean()) for f in (min, max))
    whole = max(sizes, key=lambda m: sum(map(int, re.findall(r"\d+", m))))
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
    deepest = max(
        (m for m in r.sweeps["model"].unique() if m.endswith("video blocks")),
        key=lambda m: int(m.split()[0]),
    )
    for d in ("ata", "ikea"):
        yield Part(
            f"{NAMES[d]}: base F1, {deepest} over {r.p.ace.trained_blocks}",
            r.swept(d, deepest, "seen_f1") - r.ace(d, "ACE", "seen_f1"),
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
        nodes = pd.read_parquet(r.p.data / "ace" / d / "concepts.parquet")
        for mode, part in nodes.groupby("mode", sort=False):
            before, after = (concept_space(part[part["model"] == m]) for m in ("pretrained", "ACE"))
            first = r.p.seeds[:1]
            yield Part(
                f"{NAMES[d]}, {mode}: cosine distance within, before over after",
                pd.Series(before["within"] - after["within"], first),
            )
            yield Part(
                f"{NAMES[d]}, {mode}: between, after over before",
                pd.Series(after["between"] - before["between"], first),
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
    rows = {}
    for seed, part in r.answers[r.answers["condition"] == "own"].groupby("seed"):
        key = part["video"] + " " + part["start"].astype(str)
        texts, ended = (dict(zip(key, part[c], strict=True)) for c in ("text", "ended"))
        rows[seed] = proposals.failures(texts, ended, r.p.tal.window, r.classes)[
            ["fixed", "infinite"]
        ].mean()
    found = 100 * pd.DataFrame(rows).T
    for kind in ("fixed", "infinite"):
        yield Part(f"share of {kind} answers over none", found[kind])


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
    own = r.frames[(r.frames["model"] == FULL) & (r.frames["label"] < len(r.classes))]
    own = own.assign(label=own["label"].map(dict(enumerate(r.classes))))
    yield Part(
        "mean λ (0–1), hard over easy classes",
        r.hard_minus_easy(own.groupby(["seed", "label"])["weight"].mean()),
    )


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
    images = r.map("ActionFormer, CLIP on frames")
    yield Part(
        "mAP on a TimeSformer's features over CLIP's",
        r.map("ActionFormer, TimeSformer on tutorials") - images,
    )


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
    real = (r.truth[["start_s", "end_s"]].to_numpy() / r.step_s % r.p.tal.window).round()
    shares = {}
    for seed, part in r.answers[r.answers["condition"] == "own"].groupby("seed"):
        said = np.concatenate(
            [np.ravel(proposals.read(t, r.classes)[0][["start", "end"]]) for t in part["text"]]
        )
        shares[seed] = 100 * ((said % 10 == 0).mean() - (real % 10 == 0).mean())
    yield Part("share of multiples of ten, written over true", pd.Series(shares))


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


def measure(p: Params) -> pd.DataFrame:
    """Every part of every claim that can be tested.

    Returns:
        `id, part, over` (seeds or models), `n, mean, low, high, wins`; low and high are nan where n
        is below 2, mean where it is 0.
    """
    r, rows = Results(p), []
    for name in published.read("claims")["id"]:
        if name in UNTESTABLE:
            continue
        for part in CLAIMS[name](r):
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
