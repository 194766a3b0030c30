"""ActionVLM: every reported number, from the scores that its stages keep."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.datasets import activitynet
from vlact.metrics import proposals
from vlact.metrics.localization import (
    ACTIVITYNET_TIOUS,
    EPIC_TIOUS,
    THUMOS14_TIOUS,
    evaluate,
    summary,
)
from vlact.params import Params
from vlact.report import published, tables
from vlact.report.results.common import NONE, Scores, change, keep, paired, spread

VISION, FIXED, FULL = "vision only", "fixed λ = 1.0", "full (Eq. 1)"
RANDOM, ANSWERS = "fixed λ = 1.0, random LM", "question answering"
POSES, TUTORIALS = "pose encoder on drills", "TimeSformer on tutorials"
BIASED = (("language only", "language only, biased LM"), (FIXED, "fixed λ = 1.0, biased LM"))
DESIGNS = ("own", "shared", "reversed")
TEN = 10  # frames, of which habit writes multiples
DISTRACTORS = 2  # a class, of Table 5
RUN = ["model", "condition", "seed"]
WEIGHTS = {f"fixed λ = {x}": f"fixed lambda_lang = {x}" for x in (1.0, 0.8, 0.6, 0.4, 0.2)} | {
    VISION: "fixed lambda_lang = 0.0",
    "LM-generated λ": "LLM-generated",
    "learnable λ w/o L_adv": "learnable",
    "full, paired advantage": None,
    FULL: "full, with",
}
ABLATIONS = {
    FIXED: "ActionVLM (full, with priors in description)",
    "fixed λ = 1.0, w/o T_desc": "w/o action description",
    "fixed λ = 1.0, w/o special tokens": "w/o special tokens",
    "fixed λ = 1.0, w/o [loc]": "w/o [loc]",
    "fixed λ = 1.0, w/o L_tg": "w/o text generation",
    "fixed λ = 1.0, w/o grounding": None,
    "fixed λ = 1.0, grounding only": None,
    RANDOM: None,
}
PRIOR, PRIOR_FULL = "prior, λ = 1.0", "prior, full (Eq. 1)"
LATE, NOISE = "prior at test, λ = 0.25", "fixed λ = 1.0, noise"
CONTROLS = {  # what language reads at test, or what stands for it
    "language off": "language off",
    "names": "names only",
    "random text": "random text",
    "noise": "Gaussian noise",
}
HELD_OUT = ("held out", "held out, noise")  # chosen with labels of other test recordings
LISTENS = {  # λ at test to the conditions with right and with wrong descriptions
    "λ = 0": ("language off", "language off"),
    "λ = 0.4": ("λ = 0.4", "λ = 0.4, deranged 0"),
    "λ = 1": ("own", "deranged 0"),
    "selective": ("selective", "selective, deranged 0"),
}
NOTHING = pd.Series(dtype=float, index=pd.Index([], dtype=int, name="seed"))
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of recordings with wrong descriptions


def classes() -> list[str]:
    """The stadium's actions, numbered as in the table of frames."""
    from vlact.worlds.stadium import ACTIONS

    return list(ACTIONS)


def design() -> pd.Series:
    """How the stadium means each action to be told apart: "own", "shared" or "reversed"."""
    from vlact.worlds.stadium import ACTIONS

    return pd.Series({k: a.design for k, a in ACTIONS.items()})


def truth_of(p: Params, name: str = "ground_truth") -> pd.DataFrame:
    """Ground truth of the stadium's test recordings, or of its test "sessions"."""
    return activitynet.ground_truth(p.data / "stadium" / f"{name}.json", "test")


# What stages keep
def scored(
    truth: pd.DataFrame,
    found: pd.DataFrame,
    keys: list[str],
    tious: tuple[float, ...] = THUMOS14_TIOUS,
) -> pd.DataFrame:
    """Average precision (fractions) by `keys`, `label` and `tiou`."""
    parts = [
        evaluate(truth, part, tious=tious).assign(**dict(zip(keys, key, strict=True)))
        for key, part in found.groupby(keys, sort=False)
    ]
    return pd.concat(parts, ignore_index=True)[[*keys, "label", "tiou", "ap"]]


def keep_localizers(p: Params) -> None:
    """Scores of stage `localizers`."""
    found = pd.read_parquet(p.data / "localizers" / "detections.parquet")
    ap = scored(truth_of(p), found, ["model", "seed"])
    keep(p, "localizers", "ap", ap, ["model", "seed", "label", "tiou"])


def said_segments(p: Params, truth: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Detections that answers in text name."""
    ends = truth.drop_duplicates("video").set_index("video")["duration_s"]
    step_s = p.tal.stride / p.stadium.fps
    return proposals.spoken(answers, classes(), step_s, ends.to_dict()).assign(model=ANSWERS)


def keep_actionvlm(p: Params) -> None:
    """Scores of stage `actionvlm`: average precision of every row under every condition, how text
    fails, weights by class, distractors, sessions, and what wrong descriptions cost.
    """
    folder, truth = p.data / "actionvlm", truth_of(p)
    found = pd.read_parquet(folder / "detections.parquet")
    answers = pd.read_parquet(folder / "answers.parquet")
    said = said_segments(p, truth, answers)
    ap = [scored(truth, found, RUN)]
    if len(said):
        ap.append(scored(truth, said, RUN))
    spoke = set(said[["condition", "seed"]].itertuples(index=False, name=None))
    asked = answers[["condition", "seed"]].drop_duplicates()
    for run in asked.itertuples(index=False, name=None):
        if run not in spoke:
            silent = pd.MultiIndex.from_product(
                [[ANSWERS], [run[0]], [run[1]], sorted(truth["label"].unique()), THUMOS14_TIOUS],
                names=[*RUN, "label", "tiou"],
            )
            ap.append(silent.to_frame(index=False).assign(ap=0.0))
    keep(p, "actionvlm", "ap", pd.concat(ap, ignore_index=True), [*RUN, "label", "tiou"])
    own = found[found["condition"] == "own"]
    clips = ambiguous(p.data / "stadium" / "events.json", truth, own)
    keep(p, "actionvlm", "ambiguous", clips, ["model", "seed", "clip"])
    keep(p, "actionvlm", "wrong", wrong_descriptions(truth, found), ["share", "weight", "seed"])
    keep_answers(p, "actionvlm", truth, answers[answers["condition"] == "own"], classes())
    _keep_frames(p)
    sizes = {"recordings": truth}
    if (folder / "sessions.parquet").is_file():  # real data has none
        sizes["sessions"] = truth_of(p, "sessions")
        long = pd.read_parquet(folder / "sessions.parquet")
        ap = scored(sizes["sessions"], long, ["model", "seed"], ACTIVITYNET_TIOUS)
        keep(p, "actionvlm", "sessions", ap, ["model", "seed", "label", "tiou"])
    rows = [
        {"what": k, "instances": len(t), "videos": t["video"].nunique()} for k, t in sizes.items()
    ]
    keep(p, "actionvlm", "sizes", pd.DataFrame(rows), ["what"])


def keep_answers(
    p: Params, stage: str, truth: pd.DataFrame, answers: pd.DataFrame, known: list[str]
) -> None:
    """How each answer of a stage fails, and which frame numbers are written."""
    rows, numbers = [], []
    for seed, part in answers.groupby("seed"):
        key = part["video"] + " " + part["start"].astype(str)
        texts, ended = (dict(zip(key, part[c], strict=True)) for c in ("text", "ended"))
        rows.append(proposals.failures(texts, ended, p.tal.window, known).assign(seed=seed))
        said = [np.ravel(proposals.read(t, known)[0][["start", "end"]]) for t in part["text"]]
        numbers.append(_counted(np.concatenate(said), what="written", seed=seed))
    step_s = p.tal.stride / p.stadium.fps
    real = (truth[["start_s", "end_s"]].to_numpy() / step_s % p.tal.window).round()
    numbers.append(_counted(real.ravel(), what="ground truth", seed=-1))
    failures = pd.concat(rows, ignore_index=True).rename(columns={"video": "answer"})
    keep(p, stage, "answers", failures, ["seed", "answer"])
    keep(p, stage, "numbers", pd.concat(numbers), ["what", "seed", "number"])


def _counted(numbers: np.ndarray, **where) -> pd.DataFrame:
    """How often each number occurs."""
    found, times = np.unique(numbers.astype(float), return_counts=True)
    return pd.DataFrame({"number": found, "times": times}).assign(**where)


def _keep_frames(p: Params) -> None:
    """Weights by class, and how well they follow language's advantage, from the table of frames."""
    frames, known = pd.read_parquet(p.data / "actionvlm" / "frames.parquet"), classes()
    frames["right"] = frames["pointer"] == frames["label"]
    by = frames.groupby(["model", "seed", "label"], sort=False)
    weights = by.agg(frames=("weight", "size"), weight=("weight", "mean"), right=("right", "sum"))
    weights = weights.reset_index()
    weights["label"] = weights["label"].map(dict(enumerate([*known, ""])))  # "" outside actions
    keep(p, "actionvlm", "weights", weights, ["model", "seed", "label"])
    inside = frames[frames["label"] < len(known)]
    rows, chosen = [], []
    for (model, seed), part in inside.groupby(["model", "seed"], sort=False):
        rows.append({"model": model, "seed": seed} | equation1(part))
        part = part.dropna(subset="selected")
        if model == FIXED and len(part):
            chosen.append({"seed": seed} | selection(part))
    keep(p, "actionvlm", "advantage", pd.DataFrame(rows), ["model", "seed"])
    keep(p, "actionvlm", "selection", pd.DataFrame(chosen, columns=["seed", *SELECTION]), ["seed"])


def equation1(frames: pd.DataFrame) -> dict[str, float]:
    """Of frames inside actions: whether Eq. 1's target and its prediction follow the paired
    advantage.
    """
    mean_v = (frames["gain"] + frames["loss"]).groupby(frames["label"]).transform("mean")
    target, gain, said = mean_v - frames["loss"], frames["gain"], frames["predicted"]
    follows = np.corrcoef(target, gain)[0, 1] if gain.std() > 0 else np.nan
    predicts = np.corrcoef(said, gain)[0, 1] if said.std() > 1e-9 else np.nan
    return {
        "paired advantage": gain.mean(),
        "frames helped": (gain > 0).mean(),
        "corr(Eq. 1, paired)": follows,
        "corr(Â, paired)": predicts,
        "E[ReLU(Eq. 1)]": target.clip(lower=0).mean(),
    }


SELECTION = ("AUC", "correlation", "λ where it helps", "λ where it hurts")


def selection(frames: pd.DataFrame) -> dict[str, float]:
    """How well the selected weight tells frames that language helps."""
    helps, rank = frames["gain"] > 0, frames["selected"].rank()
    pairs = helps.sum() * (~helps).sum()
    auc = (rank[helps].sum() - helps.sum() * (helps.sum() + 1) / 2) / max(1, pairs)
    weight = frames["selected"]
    found = (auc, weight.corr(frames["gain"]), weight[helps].mean(), weight[~helps].mean())
    return dict(zip(SELECTION, found, strict=True))


def ambiguous(
    path: Path, truth: pd.DataFrame, found: pd.DataFrame, most: int = DISTRACTORS
) -> pd.DataFrame:
    """What each model makes of clips that only look like an action (Table 5).

    Args:
        path: Of events.json.
        truth, found: Ground truth, and detections with `model` and `seed`.
        most: Clips a class.

    Returns:
        `model, seed, clip, video, label, confidence, length`: score of the surest detection over
        more than half of the clip, and the share that it covers; 0 where there is none.
    """
    events = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    clips = pd.DataFrame(
        [
            {"video": v, **d}
            for v in truth["video"].unique()
            for d in events.get(v, {}).get("distractors", ())
        ],
        columns=["video", "start_s", "end_s", "what", "label"],
    )
    clips = clips.groupby("label", sort=False).head(most).reset_index(drop=True)
    rows = []
    for (model, seed), part in found.groupby(["model", "seed"], sort=False):
        by_video = dict(list(part.groupby("video")))
        for c in clips.itertuples():
            over = by_video.get(c.video, part.iloc[:0])
            low, high = (over[k].clip(c.start_s, c.end_s) for k in ("start_s", "end_s"))
            share = (high - low) / (c.end_s - c.start_s)
            over = over[share > 0.5]
            best = over["score"].idxmax() if len(over) else None
            said = (0.0, 0.0) if best is None else (over.loc[best, "score"], share[best])
            rows.append((model, seed, c.Index, c.video, c.label, *said))
    columns = ["model", "seed", "clip", "video", "label", "confidence", "length"]
    return pd.DataFrame(rows, columns=columns)


def pointing_table(found: pd.DataFrame, described: dict[str, str]) -> tuple[pd.DataFrame, str]:
    """How often action frames point to their own class before any training, percent: a row a
    class, and all of them in words.

    Args:
        found: `label, right`, a row a frame, see `vlact.papers.actionvlm.alignment.pointing`.
        described: Description of every class.
    """
    right = 100 * found.groupby("label")["right"].mean().reindex(list(described))
    table = pd.DataFrame(
        {
            "class": described.keys(),
            "frames that point to it": right.to_numpy(),
            "description": described.values(),
        }
    )
    return table, (
        f"{100 * found['right'].mean():.1f} % of {len(found)} action frames; chance is "
        f"{100 / len(described):.0f} %."
    )


def wrong_descriptions(truth: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """mAP (percent) of the model of λ = 1 by `share` of recordings whose descriptions belong to
    other classes, `weight` at test and `seed`.
    """
    names, mine = truth["video"].unique(), found[found["model"] == FIXED]
    mixed, rows = names[np.random.default_rng(0).permutation(len(names))], []
    for share in SHARES:
        wrong = mine["video"].isin(set(mixed[: round(share * len(mixed))]))
        for weight, (right, other) in LISTENS.items():
            asked = mine[mine["condition"] == np.where(wrong, other, right)]
            for seed, part in asked.groupby("seed"):
                value = 100 * evaluate(truth, part, tious=THUMOS14_TIOUS)["ap"].mean()
                rows.append({"share": share, "weight": weight, "seed": seed, "mAP": value})
    return pd.DataFrame(rows, columns=["share", "weight", "seed", "mAP"])


def keep_encoders(p: Params) -> None:
    """Scores of stage `encoders`: what localizers make of each encoder's features."""
    other = pd.read_parquet(p.data / "encoders" / "detections.parquet")
    other = other.assign(method="ActionFormer")
    mine = pd.read_parquet(p.data / "localizers" / "detections.parquet")
    mine = mine.query("model == 'ActionFormer'").assign(method="ActionFormer", encoder=POSES)
    full = pd.read_parquet(p.data / "actionvlm" / "detections.parquet")
    full = full.query("model == @FULL and condition == 'own'")
    full = full.assign(method="ActionVLM (full)", encoder=POSES)
    keys = ["method", "encoder", "seed"]
    ap = scored(truth_of(p), pd.concat([other, mine, full]), keys)
    keep(p, "encoders", "ap", ap, [*keys, "label", "tiou"])


def keep_kitchens(p: Params) -> None:
    """Scores of stage `kitchens`, and what the recordings hold."""
    folder = p.data / "kitchens"
    source = folder if p.world.source == "rendered" else p.data / "worlds" / "epic"
    found, ap, sizes = pd.read_parquet(folder / "detections.parquet"), [], []
    for task, part in found.groupby("task", sort=False):
        truth = activitynet.ground_truth(source / f"{task}.json", "test")
        ap.append(scored(truth, part, ["task", "model", "seed"], EPIC_TIOUS))
        count = {"instances": len(truth), "classes": truth["label"].nunique()}
        sizes.append({"task": task, **count, "videos": truth["video"].nunique()})
    keys = ["task", "model", "seed", "label", "tiou"]
    keep(p, "kitchens", "ap", pd.concat(ap, ignore_index=True), keys)
    keep(p, "kitchens", "sizes", pd.DataFrame(sizes), ["task"])
    if (folder / "gate.csv").is_file():  # of real data no language was aligned beforehand
        gate = pd.read_csv(folder / "gate.csv")
        keep(p, "kitchens", "gate", gate, ["task", "descriptions"])


# Numbers
def by_tiou(ap: pd.DataFrame) -> pd.DataFrame:
    """mAP in percent, seeds by thresholds."""
    return 100 * ap.groupby(["seed", "tiou"])["ap"].mean().unstack()


def spreads(per: pd.DataFrame) -> dict[str, str]:
    """Cells of a table, of `by_tiou`: each threshold and their mean, "mAP"."""
    return {f"{t:.1f}": spread(per[t]) for t in per} | {"mAP": spread(per.mean(axis=1))}


def printed(values: pd.Series, tious: tuple[float, ...]) -> dict[str, str]:
    """Cells of a published row, of values by metric."""
    cells = {f"{t:.1f}": f"{values[f'mAP@{t:.1f}']:.1f}" for t in tious}
    return cells | {"mAP": f"{values['mAP@avg']:.1f}"}


class ActionVLM(Scores):
    """ActionVLM's scores by seed, percent, and its tables.

    Attributes:
        stage: Whose scores are read.
        random: Factors over which `cells` vary.
        calibrated: Whether its world was made so that vision alone and language alone come out as
            published.
    """

    stage: str = "actionvlm"
    random: tuple[str, ...] = ("seed",)
    calibrated: bool = False

    @property
    def stadium(self) -> "ActionVLM":
        """The world that was not calibrated, where all localizers are trained."""
        return self

    @cached_property
    def by_class(self) -> pd.DataFrame:
        """Average precision in percent by `model, condition, seed, label, tiou`, of ActionVLM, of
        answers in text and of the localizers on vision alone.
        """
        others = self.scores("localizers", "ap").assign(condition="own")
        table = pd.concat([self.scores("actionvlm", "ap"), others], ignore_index=True)
        return table.assign(ap=100 * table["ap"])

    @cached_property
    def ap(self) -> pd.Series:
        """Average precision in percent by `model, condition, seed, label`, averaged over tIoU
        0.3–0.7.
        """
        return self.by_class.groupby([*RUN, "label"])["ap"].mean().sort_index()

    def map(self, model: str, condition: str = "own") -> pd.Series:
        """mAP by seed, percent."""
        if (model, condition) not in self.ap.index.droplevel(["seed", "label"]):
            return NOTHING
        return self.ap[model, condition].groupby("seed").mean()

    def labelled(self, model: str, condition: str = "own") -> pd.Series:
        """Average precision in percent by the random factors and class."""
        if (model, condition) not in self.ap.index.droplevel(["seed", "label"]):
            return NOTHING
        return self.ap[model, condition]

    def cells(self, model: str, condition: str = "own") -> pd.Series:
        """mAP in percent by the random factors."""
        return self.map(model, condition)

    def over(self, model: str, other: str, condition: str = "own", base: str = "own") -> pd.Series:
        """One model's mAP minus another's, over the seeds that both have."""
        ours, theirs = self.cells(model, condition), self.cells(other, base)
        return (ours - theirs).dropna() if len(ours) and len(theirs) else NOTHING

    def map_of(self, model: str, labels: list[str], condition: str = "own") -> pd.Series:
        """mAP over some classes by seed, percent."""
        mine = self.ap[model, condition]
        return mine[mine.index.get_level_values("label").isin(labels)].groupby("seed").mean()

    def at_tious(self, model: str) -> dict[str, str]:
        """mAP at every threshold, mean ± std over seeds."""
        part = self.by_class[self.by_class["model"] == model].query("condition == 'own'")
        per = part.groupby(["seed", "tiou"])["ap"].mean().unstack()
        return {f"{t:.1f}": spread(per.get(t, NOTHING)) for t in THUMOS14_TIOUS}

    def lap(self, model: str) -> pd.Series:
        """Language advantage on performance by seed, percent, over the derangements."""
        conditions = [
            c for c in self.ap.loc[model].index.unique("condition") if c.startswith("deranged")
        ]
        own, wrong = self.map(model), [self.map(model, c) for c in conditions]
        seeds = [s for s in own.index if wrong and own[s] > 0 and all(s in w for w in wrong)]
        advantage = proposals.language_advantage_on_performance
        return pd.Series({s: advantage(own[s], [w[s] for w in wrong]) for s in seeds}, dtype=float)

    def versus(self, model: str, other: str, condition: str = "own", base: str = "own") -> str:
        """One model under a condition minus another under a base condition, paired over the seeds
        that both have, in words.
        """
        return change(paired(self.map(model, condition), self.map(other, base)), wins=" ")

    def groups(self, seed: int) -> tuple[list[str], list[str]]:
        """The hard tenth and the easy fifth of classes, by what vision alone makes of them on the
        other seeds.
        """
        own = self.ap[VISION, "own"]
        others = own[own.index.get_level_values("seed") != seed].groupby("label").mean()
        order = others.sort_values(kind="stable").index
        return list(order[: max(1, len(order) // 10)]), list(order[-len(order) // 5 :])

    def hard_minus_easy(self, by_label: pd.Series) -> pd.Series:
        """Of a value by random factors and label, its mean on hard classes minus that on easy ones,
        by the factors.
        """
        seeds, labels = (by_label.index.get_level_values(k) for k in ("seed", "label"))
        known = {s: self.groups(s) for s in seeds.unique()}
        means = []
        for k in range(2):  # hard, easy
            mine = [b in known[a][k] for a, b in zip(seeds, labels, strict=True)]
            means.append(by_label[mine].groupby(list(self.random)).mean())
        return means[0] - means[1]

    def designs(self) -> pd.Series:
        """How each class is to be told apart."""
        return design()

    # Weights
    @cached_property
    def weights(self) -> pd.DataFrame:
        """Test frames by `model, seed, label` ("" outside actions): how many, their mean λ, and how
        often the pointer is right.
        """
        return self.scores(self.stage, "weights")

    @cached_property
    def watched(self) -> set[str]:
        """Models that have a weight."""
        return set(self.weights["model"])

    def weight(self, model: str, labels: list[str] | None = None) -> pd.Series:
        """Mean λ of test frames inside actions (of some classes), by seed."""
        mine = self.weights[(self.weights["model"] == model) & (self.weights["label"] != "")]
        mine = mine[mine["label"].isin(labels)] if labels is not None else mine
        return pooled(mine, "weight", mine["seed"])

    def weight_by_label(self, model: str) -> pd.Series:
        """Mean λ of a class's test frames, by seed and label."""
        mine = self.weights[(self.weights["model"] == model) & (self.weights["label"] != "")]
        return mine.set_index(["seed", "label"])["weight"]

    # Answers in text
    @cached_property
    def answers(self) -> pd.DataFrame:
        """How each answer fails, see `proposals.failures`; a row a seed and answer."""
        return self.scores(self.stage, "answers")

    def failing(self, kind: str) -> pd.Series:
        """Share of answers that are "fixed", "infinite" or "invalid", by seed, percent."""
        return 100 * self.answers.groupby("seed")[kind].mean()

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """How often each frame number is "written", by seed, and in the "ground truth"."""
        return self.scores(self.stage, "numbers")

    def tens(self, what: str) -> pd.Series | float:
        """Share of multiples of ten, percent; of what is written by seed."""
        mine = self.numbers[self.numbers["what"] == what]
        round_ = mine["times"].where(mine["number"] % TEN == 0, 0)
        if what == "written":
            return 100 * (
                round_.groupby(mine["seed"]).sum() / mine["times"].groupby(mine["seed"]).sum()
            )
        return 100 * round_.sum() / mine["times"].sum()

    # Other stages
    def ambiguous(self, model: str) -> pd.DataFrame:
        """Confidence and covered share by the random factors, percent, on clips that only look like
        an action (Table 5).
        """
        clips = self.scores(self.stage, "ambiguous")
        mine = clips[clips["model"] == model].groupby(list(self.random))
        return 100 * mine[["confidence", "length"]].mean()

    @cached_property
    def encoders(self) -> pd.Series:
        """mAP by method, encoder and seed, percent."""
        ap = self.scores("encoders", "ap")
        return 100 * ap.groupby(["method", "encoder", "seed"])["ap"].mean()

    @cached_property
    def kitchens(self) -> pd.Series:
        """mAP by task, model, seed, percent."""
        ap = self.scores("kitchens", "ap")
        return 100 * ap.groupby(["task", "model", "seed"])["ap"].mean().sort_index()

    # Notebook 22
    def vision_only(self) -> pd.DataFrame:
        """Localizers on vision alone, over all classes and by the stadium's design."""
        ap = self.scores("localizers", "ap")
        ap, rows = ap.assign(design=ap["label"].map(design())), []
        for model, mine in ap.groupby("model", sort=False):
            for group, part in [("all", mine), *mine.groupby("design")]:
                per_seed = pd.DataFrame([summary(x) for _, x in part.groupby("seed")])
                row = {"localizer": model, "classes": group, "n": part["label"].nunique()}
                rows.append(row | {k: tables.spread(per_seed[k]) for k in per_seed})
        return pd.DataFrame(rows)

    def vision_by_class(self, model: str = "ActionFormer") -> pd.DataFrame:
        """Mean and std over seeds of a localizer's AP by class, percent, in order of design."""
        ap = self.scores("localizers", "ap").query("model == @model")
        groups = design()
        order = [label for d in DESIGNS for label in groups[groups == d].index]
        by_class = ap.groupby(["label", "seed"])["ap"].mean().groupby("label")
        return 100 * by_class.agg(["mean", "std"]).loc[order]

    # Notebook 23
    def controls(self) -> tuple[pd.DataFrame, str]:
        """Every row with language as trained, off and deranged, and sentences on its controls."""
        rows = []
        for model in self.scores("actionvlm", "ap")["model"].unique():
            if model == ANSWERS:
                continue
            own = self.map(model)
            row = {"model": model, "seeds": len(own), "mAP": spread(own)}
            row |= {"− vision only": self.versus(model, VISION)}
            if model in self.watched:
                row |= {"language off": spread(self.map(model, "language off"))}
                row |= {"LAP": spread(self.lap(model))}
                mine = self.weights[self.weights["model"] == model]
                inside, outside = mine[mine["label"] != ""], mine[mine["label"] == ""]
                row |= {"λ in actions": f"{pooled(inside, 'weight'):.3f}"}
                row |= {"λ outside": f"{pooled(outside, 'weight'):.3f}"}
                right = 100 * inside["right"].sum() / inside["frames"].sum()
                row |= {"points right": f"{right:.0f}"}
            rows.append(row)
        head = pd.DataFrame(rows).fillna(NONE).sort_values("seeds", ascending=False, kind="stable")
        said = f"Random LM minus aligned LM at λ = 1: {self.versus(RANDOM, FIXED)}. "
        return head, said + "".join(f"{b} minus {a}: {self.versus(b, a)}. " for a, b in BIASED)

    def table1(self) -> pd.DataFrame:
        """Table 1 on THUMOS14: published rows, and below them ours, which are of another world."""
        paper = published.read("actionvlm_table1").query("dataset == 'THUMOS14'")
        rows = []
        for (setting, method), part in paper.groupby(["setting", "method"], sort=False):
            values = part.groupby("metric")["mean"].mean()
            row = {"source": "published", "setting": setting, "method": method}
            cells = {f"{t:.1f}": values.get(f"mAP@{t:.1f}") for t in THUMOS14_TIOUS}
            cells["mAP"] = values.get("mAP@avg")
            rows.append(row | {k: NONE if v is None else f"{v:.1f}" for k, v in cells.items()})
        here = {k: k for k in self.scores("localizers", "ap")["model"].unique()}
        here |= {f"ActionVLM, {k}": k for k in (VISION, FULL, PRIOR)}
        for method, model in here.items():
            row = {"source": "here", "setting": "pre-extracted", "method": method}
            rows.append(row | self.at_tious(model) | {"mAP": spread(self.map(model))})
        return pd.DataFrame(rows)

    def size(self, what: str) -> pd.Series:
        """`instances` and `videos` of the test "recordings" or "sessions"; 0 for none."""
        sizes = self.scores("actionvlm", "sizes").set_index("what")
        return sizes.reindex([what]).fillna(0).astype(int).loc[what]

    def table1_sessions(self) -> pd.DataFrame:
        """Table 1 on ActivityNet-1.3: published, and ours in sessions."""
        paper, rows = published.read("actionvlm_table1").query("dataset == 'ActivityNet-1.3'"), []
        for (setting, method), part in paper.groupby(["setting", "method"], sort=False):
            values = part.groupby("metric")["mean"].mean()
            row = {"source": "published", "setting": setting, "method": method}
            row |= {
                t: f"{values[f'mAP@{t}']:.1f}"
                for t in ("0.5", "0.75", "0.95")
                if f"mAP@{t}" in values
            }
            rows.append(row | {"mAP": f"{values['mAP@avg']:.1f}", "− vision only": NONE})
        long = {}
        if self.size("sessions")["videos"]:
            for (model, seed), part in self.scores("actionvlm", "sessions").groupby(
                ["model", "seed"], sort=False
            ):
                long.setdefault(model, {})[seed] = summary(part)
        long = {model: 100 * pd.DataFrame(found).T for model, found in long.items()}
        for model, found in long.items():
            name = "ActionFormer (vision only)" if model == VISION else f"ActionVLM, {model}"
            row = {"source": "here", "setting": "pre-extracted", "method": name}
            row |= {t.rstrip("0"): spread(found[f"mAP@{t}"]) for t in ("0.50", "0.75", "0.95")}
            gap = None if model == VISION else paired(found["mAP"], long[VISION]["mAP"])
            rows.append(row | {"mAP": spread(found["mAP"]), "− vision only": change(gap, " ")})
        return pd.DataFrame(rows)

    def table2(self) -> pd.DataFrame:
        """Answers in text (QA) against features (FA), and how text fails."""
        features = ("language only", "language only, biased LM", VISION, FIXED)
        features += ("fixed λ = 1.0, grounding only", FULL)
        rows = []
        for model, kind in {ANSWERS: "QA", **dict.fromkeys(features, "FA")}.items():
            row = {"kind": kind, "model": model} | self.at_tious(model)
            row["mAP"] = spread(self.map(model))
            if kind == "QA":
                row |= {k: spread(self.failing(k)) for k in ("fixed", "infinite", "invalid")}
            rows.append(row | {"LAP": spread(self.lap(model)) if model != VISION else NONE})
        return pd.DataFrame(rows).fillna("0.0")

    def all_groups(self, seed: int) -> dict[str, list[str]]:
        """Classes by what vision alone makes of them on the other seeds, and by design."""
        hard, easy = self.groups(seed)
        own = self.ap[VISION, "own"]
        others = own[own.index.get_level_values("seed") != seed].groupby("label").mean()
        order = others.sort_values(kind="stable").index
        medium = [x for x in order if x not in easy + hard]
        found, by = {"hard": hard, "medium": medium, "easy": easy}, self.designs()
        known = [d for d in DESIGNS if d in set(by)]
        return found | {f"design: {d}": list(by[by == d].index) for d in known}

    def table3(self) -> tuple[pd.DataFrame, str]:
        """Gains by group of classes, and who is hard and easy."""
        seeds = self.p.seeds[: self.p.vlm.ablation_seeds]
        by, rows = {s: self.all_groups(s) for s in seeds}, []
        for model in (ANSWERS, "learnable λ w/o L_adv", FULL, FIXED):
            for group, labels in by[seeds[0]].items():
                base, mine = (
                    pd.Series([self.map_of(m, by[s][group]).get(s, np.nan) for s in seeds])
                    for m in (VISION, model)
                )
                row = {"model": model, "group": group, "n": len(labels)}
                row |= {"vision only": base.mean(), "mAP": mine.mean()}
                row |= {"gain": (mine - base).mean(), "mLA": NONE}
                if model in self.watched:
                    weights = [self.weight(model, by[s][group]).get(s, np.nan) for s in seeds]
                    row["mLA"] = f"{np.mean(weights):.3f}"
                rows.append(row)
        hard, easy = (
            ", ".join(dict.fromkeys(x for s in seeds for x in by[s][group]))
            for group in ("hard", "easy")
        )
        about = f"Percent, mean over seeds {seeds}; "
        about += "hard, medium and easy by vision-only AP of the other seeds. "
        return pd.DataFrame(rows), about + f"Hard: {hard}. Easy: {easy}."

    def table4(self) -> pd.DataFrame:
        """How much weight for language; every weight is a model of its own."""
        paper, rows = published.read("actionvlm_table4").query("metric == 'mAP@avg'"), []
        for model, words in WEIGHTS.items():
            row = {"λ": model if model != VISION else "fixed λ = 0 (vision only)"}
            row |= self.at_tious(model) | {"mAP": spread(self.map(model))}
            row |= {k: spread(self.map_of(model, [k])) for k in ("Billiards", "FrisbeeCatch")}
            shared = self.p.seeds[: self.p.vlm.ablation_seeds]
            row |= {"mAP, shared seeds": self.map(model).reindex(shared).mean()}
            learnt = model in self.watched and not model.startswith("fixed")
            row["mean λ"] = f"{self.weight(model).mean():.3f}" if learnt else "as set"
            rows.append(row | {"published": published_of(paper, words)})
        return pd.DataFrame(rows)

    def table5(self) -> pd.DataFrame:
        """Confidence and covered share on clips that only look like an action."""
        clips, rows = self.scores("actionvlm", "ambiguous"), []
        for model in WEIGHTS:
            mine = clips[clips["model"] == model].groupby("seed")
            length = mine["length"]
            found = {"mConf": mine["confidence"].mean(), "mLen": length.mean()}
            found |= {"none": length.apply(lambda x: (x == 0).mean())}
            for t in (0.3, 0.5, 0.7):
                found[f"acc@{t}"] = length.apply(lambda x, t=t: (x < t).mean())
            rows.append({"model": model} | {k: tables.spread(v) for k, v in found.items()})
        return pd.DataFrame(rows)

    def clips(self) -> int:
        """How many clips Table 5 asks about."""
        return self.scores("actionvlm", "ambiguous")["clip"].nunique()

    def table9(self) -> pd.DataFrame:
        """Descriptions, special tokens, text generation, at λ = 1."""
        paper, rows = published.read("actionvlm_table9").query("metric == 'mAP@avg'"), []
        for model, words in ABLATIONS.items():
            row = {"model": model} | self.at_tious(model) | {"mAP": spread(self.map(model))}
            row |= {"minus λ = 1.0": self.versus(model, FIXED) if model != FIXED else NONE}
            row |= {"LAP": spread(self.lap(model)) if model in self.watched else NONE}
            rows.append(row | {"published": published_of(paper, words)})
        return pd.DataFrame(rows)

    def advantage(self) -> pd.DataFrame:
        """Whether Eq. 1 measures language's advantage, means over seeds."""
        table = self.scores("actionvlm", "advantage").drop(columns="seed")
        return table.groupby("model", sort=False).mean().reset_index()

    def selective(self) -> tuple[pd.DataFrame, str]:
        """The model of λ = 1 with other weights at test, and how well λ is chosen."""
        conditions = {"language off": "λ = 0", "λ = 0.4": "λ = 0.4", "own": "λ = 1"}
        rows = []
        for condition, name in (conditions | {k: k for k in ("selective", *HELD_OUT)}).items():
            row = {"weight at test": name, "mAP": spread(self.map(FIXED, condition))}
            row["− λ = 0"] = self.versus(FIXED, FIXED, condition, base="language off")
            row["− λ = 1"] = self.versus(FIXED, FIXED, condition)
            if name in ("λ = 0.4", "λ = 1", "selective"):
                lead = "" if name == "λ = 1" else f"{condition}, "
                wrong = [self.map(FIXED, f"{lead}deranged {i}") for i in (0, 1)]
                row["other descriptions"] = spread(pd.concat(wrong, axis=1).mean(axis=1))
            rows.append(row)
        quality = self.scores("actionvlm", "selection").drop(columns="seed")
        words = "; ".join(f"{k} {tables.spread(quality[k], 1, 2)}" for k in quality)
        return pd.DataFrame(rows).fillna(NONE), words

    def fusions(self) -> pd.DataFrame:
        """Eq. 5 and language as a prior side by side, under the same controls at test."""
        rows = []
        for model in (FIXED, FULL, PRIOR, PRIOR_FULL, LATE, NOISE):
            row = {"model": model, "mAP": spread(self.map(model))}
            row["− vision only"] = self.versus(model, VISION)
            wrong = [self.map(model, f"deranged {i}") for i in (0, 1)]
            row["other descriptions"] = spread(pd.concat(wrong, axis=1).mean(axis=1))
            row |= {name: spread(self.map(model, c)) for c, name in CONTROLS.items()}
            rows.append(row)
        return pd.DataFrame(rows).fillna(NONE)

    def wrong(self) -> pd.DataFrame:
        """mAP and its gain over language off by share of wrong descriptions, weight and seed."""
        table = self.scores("actionvlm", "wrong")
        base = table[table["weight"] == "λ = 0"].set_index(["share", "seed"])["mAP"]
        gain = table["mAP"] - table.set_index(["share", "seed"]).index.map(base)
        return table.assign(gain=gain)

    def histogram(self) -> pd.DataFrame:
        """How often each frame of the window is written, and is in the ground truth."""
        window = self.p.tal.window
        out = pd.DataFrame({"frame": np.arange(window + 1)})
        for what in ("written", "ground truth"):
            mine = self.numbers[self.numbers["what"] == what]
            frame = mine["number"].astype(int).clip(0, window)
            counts = np.bincount(frame, weights=mine["times"], minlength=window + 1)
            out[what] = counts.astype(int)
        return out

    @staticmethod
    def habits(histogram: pd.DataFrame) -> list[tuple[str, pd.Series, float]]:
        """What is written and what is true: the share of every frame and of multiples of ten,
        percent.
        """
        out = []
        for what in ("written", "ground truth"):
            total = max(1, histogram[what].sum())
            tens = 100 * (histogram[what][::TEN].sum() / total)
            out.append((what, 100 * histogram[what] / total, tens))
        return out

    def findings(self) -> list[str]:
        """Sentences from the tables, whichever way they come out."""
        off = self.versus(FIXED, VISION, "language off")
        said = [
            f"Language at full weight minus vision only: {self.versus(FIXED, VISION)}.",
            f"The same weights with language off, minus vision only: {off}.",
            f"A random language model minus vision only: {self.versus(RANDOM, VISION)}; minus "
            f"aligned: {self.versus(RANDOM, FIXED)}.",
            f"The full method minus vision only: {self.versus(FULL, VISION)}; minus full weight: "
            f"{self.versus(FULL, FIXED)}.",
            f"Its mean λ: {self.weight(FULL).mean():.3f}.",
            f"LAP at full weight: {self.lap(FIXED).mean():.1f} %; of the full method: "
            f"{self.lap(FULL).mean():.1f} %.",
        ]
        table = self.table3()[0].query("model == @FIXED").set_index("group")
        for group in ("hard", "medium", "easy"):
            gain = table.loc[group, "gain"]
            said.append(f"Gain of full weight on {group} classes: {gain:+.1f}.")
        return said

    # Notebooks 24 and 25
    def table8(self) -> tuple[pd.DataFrame, list[str]]:
        """Table 8: localization by vision encoder, and sentences on ours."""
        rows = []
        paper = published.read("actionvlm_table8")
        for (vision, method), part in paper.groupby(["setting", "method"], sort=False):
            row = {"source": "published", "method": method}
            row |= {"encoder": vision.removeprefix("vision=")}
            rows.append(row | printed(part.set_index("metric")["mean"], THUMOS14_TIOUS))
        ap = self.scores("encoders", "ap")
        for (method, encoder), part in ap.groupby(["method", "encoder"], sort=False):
            row = {"source": "here", "method": method, "encoder": encoder}
            rows.append(row | spreads(by_tiou(part)))
        own, said = self.encoders["ActionFormer"], []
        for encoder in ap["encoder"].unique():
            if encoder != POSES and (found := paired(own[POSES], own[encoder])):
                pair = "ActionFormer on the pose encoder", f"the same on {encoder}"
                said.append(tables.verdict(*pair, "mAP", found, 0))
        whole = f"{TUTORIALS}, end to end"
        for other, what in (
            (TUTORIALS, "frozen features of the same encoder"),
            (f"{whole}, frozen", "the same without adapters"),
        ):
            if found := paired(own[whole], own[other]):
                said.append(tables.verdict("end to end", what, "mAP", found, 0))
        return pd.DataFrame(rows), said

    def table7(self, encoder: str) -> tuple[pd.DataFrame, str]:
        """Table 7: kitchens by verb and noun, and what stands under it.

        Args:
            encoder: What ours is called.
        """
        rows, said = [], []
        keys = ["setting", "method", "note"]
        for (task, method, note), part in published.read("actionvlm_table7").groupby(
            keys, sort=False
        ):
            row = {"task": task, "source": "published", "method": method}
            row |= {"encoder": note.split("; ")[0].removeprefix("vision=")}
            rows.append(row | printed(part.groupby("metric")["mean"].mean(), EPIC_TIOUS))
        ap, sizes = self.scores("kitchens", "ap"), self.scores("kitchens", "sizes")
        for (task, model), part in ap.groupby(["task", "model"], sort=False):
            per = by_tiou(part)
            name = model if model == "ActionFormer" else f"ActionVLM, {model}"
            row = {"task": task, "source": "here", "method": name, "encoder": encoder}
            rows.append(row | spreads(per))
            alone = by_tiou(ap[ap["task"] == task].query("model == 'ActionFormer'"))
            found = paired(per.mean(axis=1), alone.mean(axis=1))
            if model != "ActionFormer" and found:
                said.append(
                    tables.verdict(f"{task.capitalize()}s: {model}", "vision only", "mAP", found, 0)
                )
        count = ", ".join(
            f"{r.instances} instances of {r.classes} {r.task}s" for r in sizes.itertuples()
        )
        about = f"Ours: mean ± std over {self.p.kitchen.seeds} seed(s), {count} in "
        about += f"{sizes['videos'].iloc[0]} recordings. "
        if self.kept("kitchens", "gate"):
            gate = self.scores("kitchens", "gate").set_index(["task", "descriptions"])["pointer"]
            about += "".join(
                f"Language points to the right {t} of ten in {100 * gate[t, 'right']:.0f} % of "
                "held-out frames. "
                for t in sizes["task"]
            )
        return pd.DataFrame(rows), about + " ".join(said)


def published_of(paper: pd.DataFrame, words: str | None) -> float | None:
    """The published mean of rows whose method says so."""
    if words is None:
        return None
    return paper[paper["method"].str.contains(words, regex=False)]["mean"].mean()


def pooled(rows: pd.DataFrame, key: str, by=None):
    """Mean over frames of rows that hold `frames` and a mean over them."""
    total, count = rows[key] * rows["frames"], rows["frames"]
    if by is None:
        return total.sum() / count.sum()
    return total.groupby(by).sum() / count.groupby(by).sum()
