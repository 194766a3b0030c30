"""Motion transfer: every reported number, from the scores that its stages keep."""

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from vlact.metrics.transfer import TASKS, accuracies, averaged
from vlact.params import Params
from vlact.report import evidence, published, tables
from vlact.report.results.common import NONE, Scores, change, keep, paired, spread
from vlact.report.statistics import ScoreFault, effect, signs
from vlact.runtime.extras import needs

with needs(__name__):
    from scipy.stats import spearmanr

BASE, FULL = "EZ-CLIP", "disentangled"  # arms of the disentanglement
DIFFERENCES = ", differences"  # after the name of a model that sees frame differences, too
VALUES = {"D_abs": "d_abs", "D_rel": "d_rel", "HM": "hm"}  # as printed, as computed
READABLE = 90  # percent of coarse motions known, from which a drop can be interpreted
LEARNT = 80  # percent known on the calibration world that every recipe should reach
# what `vlact.tools.calibrate_transfer` measured of recipes
CALIBRATION = Path(__file__).parents[2] / "papers" / "transfer" / "calibration.csv"
# designs that keep motion and context apart, judged against the base together
CANDIDATES = (
    FULL,
    "context swap",
    "feature differences",
    "mean removed",
    "tempo",
    "gradient reversal",
    "HSIC",
)
PAIRS = (  # arms that the text compares, and the sign that is expected
    (FULL, BASE, 1),
    (FULL, "twice as long", 1),
    (FULL, "fine labels only", 0),
    (FULL, "two branches", 0),
    ("mean removed", "frames in order", 0),
    ("feature differences", "frames in order", 0),
    ("dynamic input", BASE, 0),
)
RUN = ["model", "seed", "task", "trained_on"]
CLIP = ["set", "video", "label", "predicted"]


# What stages keep
def keep_transfer(p: Params) -> None:
    """Scores of stage `transfer`: every run on known and unknown contexts, and every clip."""
    answers = pd.read_parquet(p.data / "transfer" / "predictions.parquet")
    runs = [
        accuracies(part).assign(background=background)
        for background, part in answers.groupby("background", sort=False)
    ]
    keys = ["background", *RUN]
    keep(p, "transfer", "runs", pd.concat(runs, ignore_index=True), keys)
    keep(p, "transfer", "clips", answers[[*keys, *CLIP]], [*keys, "set", "video"])


def keep_disentangle(p: Params) -> None:
    """Scores of stage `disentangle`: every arm's runs, and every clip."""
    answers = pd.read_parquet(p.data / "disentangle" / "predictions.parquet")
    keep(p, "disentangle", "runs", accuracies(answers), RUN)
    keep(p, "disentangle", "clips", answers[[*RUN, *CLIP]], [*RUN, "set", "video"])


class Transfer(Scores):
    """Accuracies by run, percent, and what the tables make of them."""

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Accuracies by background, model, task, training set and seed."""
        return self.scores("transfer", "runs")

    @cached_property
    def complete(self) -> pd.DataFrame:
        """Runs that were asked about unknown contexts, too."""
        return self.runs[self.runs["unknown"].notna()]

    @cached_property
    def transfer(self) -> pd.DataFrame:
        """Accuracies by background, model, task and seed, both directions averaged."""
        parts = self.complete.groupby("background", sort=False)
        return pd.concat(
            [averaged(part).assign(background=b) for b, part in parts], ignore_index=True
        )

    @cached_property
    def arms(self) -> pd.DataFrame:
        """Accuracies of the disentanglement's arms by training set and seed."""
        return self.scores("disentangle", "runs")

    def arm(self, name: str, trained_on: int | None = None, column: str = "hm") -> pd.Series:
        """HM of an arm by seed, or another column; both directions averaged, or one."""
        mine = self.arms[self.arms["model"] == name]
        if trained_on is not None:
            mine = mine[mine["trained_on"] == trained_on]
        return mine.groupby("seed")[column].mean()

    # Notebook 31
    @cached_property
    def clips(self) -> pd.DataFrame:
        """Every run's answer to every test clip, by background."""
        return self.scores("transfer", "clips")

    @cached_property
    def realistic(self) -> pd.DataFrame:
        """`transfer` on realistic backgrounds."""
        return self.transfer[self.transfer["background"] == "realistic"]

    @cached_property
    def contexts(self) -> pd.DataFrame:
        """Accuracy by background, model, task, seed and context (fine class, each known to one
        training set and unknown to the other): `known, unknown, d_abs`.
        """
        clips = self.clips
        right = 100.0 * (clips["label"] == clips["predicted"])
        table = clips.assign(
            context=clips["video"].str.replace(r"(_front)?_id_\d+\.\w+$", "", regex=True),
            side=np.where(clips["set"] == clips["trained_on"], "known", "unknown"),
            right=right,
        )
        keys = ["background", "model", "task", "seed", "context"]
        wide = table.groupby([*keys, "side"])["right"].mean().unstack("side")
        wide = wide.reindex(columns=["known", "unknown"])
        return wide.assign(d_abs=wide["known"] - wide["unknown"]).reset_index()

    def interval(self, model: str, task: str, column: str, background: str = "realistic") -> str:
        """95 % interval of a column's mean over seeds and contexts, crossed; over contexts alone
        where there is one seed.
        """
        rows = self.contexts.query("background == @background and task == @task")
        rows = rows[rows["model"] == model]
        random = ["seed", "context"] if rows["seed"].nunique() > 1 else ["context"]
        try:
            low, high = effect(rows.set_index(random)[column].dropna(), random).interval()
        except ScoreFault:
            return NONE
        return f"[{low:.1f}, {high:.1f}]"

    def beside(self, number: int) -> pd.DataFrame:
        """Published rows of Syn-TA and ours: Table 2 (coarse motions) or 3 (fine ones).

        Ours end in the interval of D_abs over seeds and contexts, the number of seeds and, for
        coarse motions, HM with frame differences and what the recipe reached on the calibration
        world.
        """
        task, short = {2: ("coarse", ("KC", "UC")), 3: ("fine", ("K", "U"))}[number]
        paper = published.read(f"transfer_table{number}").query("dataset == 'Syn-TA'")
        mine, rows = self.realistic[self.realistic["task"] == task], []
        calibrated = self.calibrated() if task == "coarse" else {}
        for (setting, method), part in paper.groupby(["setting", "method"], sort=False):
            accuracy = part[part["metric"] == "acc"].set_index("split")["mean"]
            drop = part.set_index("metric")["mean"]
            row = {"kind": setting.split("; ")[1], "model": method}
            row |= {
                f"{s}, published": accuracy[split]
                for s, split in zip(short, TASKS[task], strict=True)
            }
            row |= {f"{m}, published": drop[m] for m in ("D_abs", "HM")}
            found = mine[mine["model"] == method]
            names = dict(zip(short, ("known", "unknown"), strict=True)) | VALUES
            row |= {k: spread(found[v]) for k, v in names.items()}
            row |= {"95 % of D_abs": self.interval(method, task, "d_abs") if len(found) else NONE}
            row |= {"seeds": found["seed"].nunique() or NONE}
            if task == "coarse":
                moved = mine[mine["model"] == method + DIFFERENCES]["hm"]
                row |= {"HM, differences": spread(moved)}
                row |= {"KC, calibration": calibrated.get(method, NONE)}
            rows.append(row)
        return pd.DataFrame(rows)

    def calibrated(self) -> dict[str, str]:
        """Known accuracy of every model's recipe on the calibration world, and why it is below
        `LEARNT` where it is; {} without the search's results.
        """
        if not CALIBRATION.is_file():
            return {}
        t, out = self.p.transfer, {}
        log = pd.read_csv(CALIBRATION)
        for model, options in t.models.items():
            recipe = {"lr": options.get("lr", t.lr), "epochs": t.epochs_of(options)}
            mine = log[(log["model"] == model) & (log["train_ids"] == t.train_ids)]
            same = mine[np.isclose(mine["lr"], recipe["lr"]) & (mine["epochs"] == recipe["epochs"])]
            if len(same):
                best = same["known"].mean()
                out[model] = f"{best:.1f}" if best >= LEARNT else f"{best:.1f}: {too_low(mine)}"
        return out

    def ranks(self) -> pd.DataFrame:
        """Spearman's ρ of models here and published (Syn-TA, coarse), and of what may explain it.

        Rows: KC, UC, D_abs and HM here against published; those models alone that know `LEARNT` %
        here; HM against KC on either side, which says how far a ranking by HM is one of what was
        learnt at all.
        """
        here = self.coarse.assign(d_abs=self.coarse["known"] - self.coarse["unknown"])
        paper = pd.DataFrame(
            {
                "known": evidence.learners("acc", TASKS["coarse"][0])[evidence.SYNTA],
                "unknown": evidence.learners("acc", TASKS["coarse"][1])[evidence.SYNTA],
                "d_abs": evidence.learners("D_abs")[evidence.SYNTA],
                "hm": evidence.learners("HM")[evidence.SYNTA],
            }
        )
        models = paper.index.intersection(here.index)
        here, paper = here.loc[models], paper.loc[models]
        names = {"known": "KC", "unknown": "UC", "d_abs": "D_abs", "hm": "HM"}
        pairs = {f"{n}: here, published": (here[k], paper[k]) for k, n in names.items()}
        learnt = models[here["known"] >= LEARNT]
        pairs |= {
            f"HM: here, published; KC here {LEARNT} % or more": (
                here.loc[learnt, "hm"],
                paper.loc[learnt, "hm"],
            ),
            "here: HM, KC": (here["hm"], here["known"]),
            "published: HM, KC": (paper["hm"], paper["known"]),
        }
        return pd.DataFrame(
            [{"of": of, "models": len(x), **rank(x, y)} for of, (x, y) in pairs.items()]
        )

    @cached_property
    def coarse(self) -> pd.DataFrame:
        """Coarse motions on realistic backgrounds, mean over seeds, by model that sees what its
        paper's sees.
        """
        rows = self.realistic[self.realistic["task"] == "coarse"]
        rows = rows[~rows["model"].str.endswith(DIFFERENCES)]
        return rows.groupby("model", sort=False)[["known", "unknown", "hm", "d_rel"]].mean()

    def findings(self) -> list[str]:
        """Who knows most, who transfers best, and whether known contexts are easier."""
        coarse = self.coarse
        best, highest = coarse["known"].idxmax(), coarse["hm"].idxmax()
        known, unknown = coarse.loc[best, ["known", "unknown"]]
        care = f"({READABLE} % and more: its drop can be interpreted)"
        if known < READABLE:
            care = f"(below {READABLE} %: read its drop with care)"
        easier = (coarse["known"] > coarse["unknown"]).sum()
        return [
            f"{best} knows {known:.1f} % of the coarse motions in known contexts {care} and "
            f"{unknown:.1f} % in unknown ones; the highest HM is {coarse['hm'].max():.1f}, of "
            f"{highest}.",
            f"Known above unknown: {easier} of {len(coarse)} models.",
        ]

    def directions(self) -> pd.DataFrame:
        """Accuracies and HM by task, model and training set, mean over seeds."""
        rows = self.complete[self.complete["background"] == "realistic"]
        both = rows.groupby(["task", "model", "trained_on"], sort=False)
        return both[["known", "unknown", "hm"]].mean()

    def table4(self) -> pd.DataFrame:
        """HM on plain and realistic backgrounds, published and ours."""
        rows = []
        paper = published.read("transfer_table4")
        for (setting, model), part in paper.groupby(["setting", "method"], sort=False):
            task, background = setting.split("; ")[0], setting.split("; ")[1].split()[0]
            row = {"task": task, "model": model, "background": background}
            rows.append(row | {"printed": part["mean"].iloc[0]})
        paper = pd.DataFrame(rows).pivot_table(
            index=["task", "model"], columns="background", values="printed", sort=False
        )
        rows, backgrounds = [], ("realistic", "plain")
        for (task, model), printed in paper.iterrows():
            mine = self.transfer[
                (self.transfer["model"] == model) & (self.transfer["task"] == task)
            ]
            row = {"task": task, "model": model}
            row |= {f"{k}, published": printed[k] for k in backgrounds}
            hm = {k: mine[mine["background"] == k]["hm"] for k in backgrounds}
            rows.append(row | {k: spread(v) for k, v in hm.items()})
        return pd.DataFrame(rows)

    def known_and_unknown(self, models: list[str]) -> pd.DataFrame:
        """Figure 5: coarse and fine accuracies of models that go by name, published and here, by
        model and split.
        """
        shown = {}
        for model in models:
            for task, pair in TASKS.items():
                printed = published.read(f"transfer_table{2 if task == 'coarse' else 3}")
                printed = printed.query("dataset == 'Syn-TA' and method == @model")
                mine = self.realistic
                mine = mine[(mine["model"] == model) & (mine["task"] == task)]
                for split, ours in zip(pair, ("known", "unknown"), strict=True):
                    paper = printed[printed["split"] == split]["mean"].iloc[0]
                    shown[model, split] = {"published": paper, "here": mine[ours].mean()}
        return pd.DataFrame(shown).T

    def sizes(self, here: dict[str, int], full: pd.DataFrame) -> pd.DataFrame:
        """Figure 6: size, HM and relative drop of every model, here and published.

        Args:
            here: Parameters of the models of this run.
            full: `model` and `M in all`, millions of parameters at full size.
        """
        rows = [
            {"side": "here", "model": m, "M": count / 1e6}
            | {k: self.coarse.loc[m, k] for k in ("hm", "d_rel")}
            for m, count in here.items()
        ]
        size_of, paper = full.set_index("model")["M in all"], published.read("transfer_table2")
        for (dataset, model), part in paper.groupby(["dataset", "method"], sort=False):
            found = dict(zip(part["split"] + " " + part["metric"], part["mean"], strict=True))
            known, drop = found["CoarseMotion-KC acc"], found["KC->UC D_abs"]
            row = {"side": dataset, "model": model, "M": size_of[model]}
            rows.append(row | {"hm": found["KC->UC HM"], "d_rel": 100 * drop / known})
        return pd.DataFrame(rows)

    # Notebook 32
    @cached_property
    def arm_clips(self) -> pd.DataFrame:
        """Every arm's answer to every test clip."""
        return self.scores("disentangle", "clips")

    def compared(self, ours: str, other: str) -> dict | None:
        """HM of an arm minus that of another, paired over the seeds that both have."""
        return paired(self.arm(ours), self.arm(other))

    def table5(self) -> pd.DataFrame:
        """HM of every arm by training set, and its change from the base, of HM and of UC."""
        paper = published.read("transfer_table5").query("dataset == 'Syn-TA'")
        paper = paper.set_index(["method", "setting"])["mean"]
        printed = {BASE: "Base-Coarse", FULL: "Ours (disentangled)"}
        rows, signed = [], self.candidates()
        for arm in self.arms["model"].unique():
            row, mine = {"arm": arm}, self.arms[self.arms["model"] == arm]
            for which in (1, 2):
                named = arm in printed
                row[f"set {which}, published"] = (
                    paper[printed[arm], f"coarse; set {which}"] if named else None
                )
                row[f"set {which}"] = spread(self.arm(arm, which))
            row |= {"KC": mine["known"].mean(), "UC": mine["unknown"].mean()}
            for name, column in (("HM", "hm"), ("UC", "unknown")):
                pair = [self.arm(x, column=column) for x in (arm, BASE)]
                found = paired(*pair) if arm != BASE else None
                row[f"change of {name}"] = change(found, wins=", ") if found else NONE
            rows.append(row | {"UC, all candidates": signed.get(arm, NONE)})
        return pd.DataFrame(rows)

    def candidates(self) -> dict[str, str]:
        """Which of `CANDIDATES` are above or below the base in unknown contexts, Holm's correction
        over all of them; {} below `tables.FEWEST_SEEDS` seeds.
        """
        base = self.arm(BASE, column="unknown")
        gains = {c: (self.arm(c, column="unknown") - base).dropna() for c in CANDIDATES}
        gains = {c: x for c, x in gains.items() if len(x) >= tables.FEWEST_SEEDS}
        effects = [effect(x, name=c) for c, x in gains.items()]
        words = {1: "above the base", -1: "below the base", 0: "not separated"}
        found = signs(effects, [0.0] * len(effects)) if effects else []
        return {c: words[sign] for c, sign in zip(gains, found, strict=True)}

    def arms_compared(self) -> list[str]:
        """Sentences on the arms that the text compares, where there are seeds enough."""
        return [
            tables.verdict(ours, other, "HM", found, expected)
            for ours, other, expected in PAIRS
            if (found := self.compared(ours, other))
        ]

    def failures(self) -> tuple[str, pd.DataFrame]:
        """The model that knows most coarse motions (first seed, realistic), and its wrong answers
        in unknown contexts.
        """
        first = self.clips.query("background == 'realistic' and task == 'coarse'")
        first = first[first["model"].isin(self.p.transfer.models)]
        first = first[first["seed"] == self.p.seeds[0]]
        known = first[first["set"] == first["trained_on"]]
        right = (known["label"] == known["predicted"]).groupby(known["model"]).mean()
        best = right.idxmax()
        asked = first[(first["model"] == best) & (first["set"] != first["trained_on"])]
        return best, asked[asked["label"] != asked["predicted"]]

    def repaired(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Clips of unknown contexts (seed 0) that only the disentangled model gets right, that only
        the base does, and all: `video, trained_on, label` and both answers.
        """
        first = self.arm_clips[self.arm_clips["seed"] == 0]
        first = first[(first["set"] != first["trained_on"]) & first["model"].isin([BASE, FULL])]
        answers = first.pivot_table(
            index=["video", "trained_on", "label"], columns="model", values="predicted"
        )
        answers = answers.astype(int).reset_index()
        base, full = answers[BASE] == answers["label"], answers[FULL] == answers["label"]
        return answers[~base & full], answers[base & ~full], answers

    def repaired_by_motion(self, names: list[str]) -> pd.DataFrame:
        """How many clips of every motion are repaired and broken."""
        repaired, broken, _ = self.repaired()
        sides = {"repaired": repaired, "broken": broken}
        counts = pd.DataFrame({k: part.groupby("label").size() for k, part in sides.items()})
        counts = counts.reindex(range(len(names))).fillna(0).astype(int)
        return counts.assign(motion=names).reset_index()


def confusions(wrong: pd.DataFrame) -> pd.DataFrame:
    """How many `clips` of a label are taken for another."""
    return wrong.groupby(["label", "predicted"]).size().rename("clips").reset_index()


def rank(x: pd.Series, y: pd.Series) -> dict[str, float]:
    """Spearman's `ρ` and its `p`; nan below three pairs, or where one side is all alike."""
    if len(x) < 3 or x.nunique() == 1 or y.nunique() == 1:
        return {"ρ": float("nan"), "p": float("nan")}
    found = spearmanr(x, y)
    return {"ρ": float(found.statistic), "p": float(found.pvalue)}


def too_low(tried: pd.DataFrame) -> str:
    """Why no recipe of a model's search knows `LEARNT` % of the calibration world's clips.

    Args:
        tried: Rows of the search: `epochs, known, fitted` (percent of validation and of training
            clips).
    """
    best = tried.loc[tried["known"].idxmax()]
    if best["known"] >= LEARNT:
        return f"{best['known']:.1f} at {best['epochs']:g} epochs, beyond the budget"
    if best["fitted"] < LEARNT:
        return f"fits {best['fitted']:.1f} % of its own training clips, at most so many epochs"
    return f"fits {best['fitted']:.1f} % of its training clips: too few of them"


def size_rank(side: pd.DataFrame) -> float:
    """Rank correlation of size and HM over one side of Figure 6; nan below three models."""
    return side[["M", "hm"]].corr("spearman").iloc[0, 1] if len(side) > 2 else float("nan")
