"""Claims as they can be asked on real video: differences that a claim says are above zero.

A stage of the profile `real` keeps them as `scores/claims.csv`, from which the ledger makes its
second verdict. Parts, rivals and sizes stand in `published/claims_parts_real.csv`; a size is the
mean over the datasets that the paper prints it for.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from vlact.papers.actionvlm.real import Resampled, protocol
from vlact.papers.actionvlm.real_language import FULL, ONLY
from vlact.params import Params
from vlact.report.results.common import FOLDER
from vlact.report.tables import write_text

COLUMNS = ["id", "part", "what", "value"]
NAMES = {"jhmdb": "JHMDB", "ucf101": "UCF101"}
CLOSE = 5.0  # points within which something is competitive, as in the ledger
LEARNT, LOSS = 50.0, 20.0  # percent of motions known; points that are lost, as in the ledger
RIVALS = ("ProcVLR", "ViFi-like", "Text4Vis-like")
VISION = "ActionFormer"


def keep(p: Params, stage: str, table: pd.DataFrame) -> None:
    """Write a stage's differences beside its tables."""
    path = p.results(stage) / FOLDER / "claims.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = table.to_csv(index=False, lineterminator="\n", float_format="%.6f")
    write_text(path, text)


def rows(name: str, part: str, what: str, values: pd.Series) -> pd.DataFrame:
    """A part of a claim: a row a unit, the factors as columns."""
    given = {"id": name, "part": part, "what": what}
    return values.rename("value").reset_index().assign(**given)


def table_of(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Parts below each other, the fixed columns first; without a part there are no rows."""
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    found = pd.concat(parts, ignore_index=True)
    return found[COLUMNS + [c for c in found if c not in COLUMNS]]


def ace(found: pd.DataFrame) -> pd.DataFrame:
    """Claims of ACE, each partition of the classes a unit: means over splits and seeds, percent.

    Args:
        found: `dataset, method, partition` and scores as fractions, see `vlact.report.real.chosen`.
    """
    out = []
    for d, mine in found.groupby("dataset", sort=False, observed=True):

        def score(method: str, key: str = "srt_acc_mean", mine=mine) -> pd.Series:
            own = mine[mine["method"] == method]
            return 100 * own.groupby("partition")[key].mean()

        def add(name: str, part: str, what: str, values: pd.Series, d=d) -> None:
            out.append(rows(name, part, f"{NAMES[d]}: {what}", values))

        for other in RIVALS:
            gain = score("ACE", "hm_acc") - score(other, "hm_acc")
            add("A4", f"{d} {other}", f"harmonic mean over {other}", gain)
            gain = score("ACE", "seen_acc") + CLOSE - score(other, "seen_acc")
            add("A5", f"{d} {other}", f"seen accuracy plus {CLOSE:g} over {other}", gain)
        for key, name in (("seen_acc", "seen"), ("srt_acc_mean", "SRT")):
            gain = score("ACE", key) - score("ProcVLR", key)
            add("A6", f"{d} {name}", f"{name} accuracy over ProcVLR", gain)
        leaf, shadow, rand, fixed = (
            f"w/o {x}" for x in ("leaf augmentation", "shadow negatives", "L_rand", "L_fixed")
        )
        std = {m: score(m, "srt_acc_std") for m in ("ACE", leaf, shadow, rand)}
        wider = std[leaf] - std["ACE"]
        add("A7", d, "SRT std without it over with it", wider)
        most = wider - (std[rand] - std["ACE"])
        add("A7", f"{d} most", "that over the same of L_rand", most)
        add("A9", d, "SRT std with over without them", std["ACE"] - std[shadow])
        for name, without in (("A8", shadow), ("A10", rand), ("A11", fixed)):
            lost = score("ACE") - score(without)
            add(name, d, f"SRT accuracy of ACE over {without}", lost)
    return table_of(out)


def transfer(runs: pd.DataFrame, setups: dict[str, str]) -> pd.DataFrame:
    """Claims of motion transfer; units are models and training contexts, means over seeds.

    Args:
        runs: `setup, model, sees, trained_on, run, known, unknown`, percent.
        setups: Setup to its set; of each set the first that has a known context is taken, so that
            no clip counts in two.
    """
    if runs.empty:
        return table_of([])
    known = runs.dropna(subset=["known"])
    first: dict[str, str] = {}
    for setup in known["setup"].unique():
        first.setdefault(setups[setup], setup)
    known = known[known["setup"].isin(first.values()) & known["sees"].isin(["pixels", "joints"])]
    known = known.assign(
        context=known["setup"] + ", " + known["trained_on"].astype(str),
        drop=known["known"] - known["unknown"],
        hm=2 * known["known"] * known["unknown"] / (known["known"] + known["unknown"]).clip(1e-9),
    )
    means = known.groupby(["model", "context"])[["known", "drop", "hm"]].mean()
    drop, out = means["drop"].unstack("context").dropna(), []
    learnt = means["known"].groupby("model").mean()
    drop = drop[learnt.loc[drop.index] >= LEARNT].stack()
    what = f"known over unknown contexts, models that know {LEARNT:g} %"
    out.append(rows("T1", "drop", what, drop))
    out.append(rows("T1", "less", f"the same less {LOSS:g}", drop - LOSS))
    hm = means["hm"].unstack("model")
    if "two branches" in hm:
        gain = (hm["two branches"] - hm["temporal convolution"]).dropna()
        out.append(rows("T7", "base", "HM, two branches over one, joints", gain))
    return table_of(out)


def within(truth: pd.DataFrame, detections: pd.DataFrame, videos: list[str]) -> pd.Series:
    """mAP within each recording, percent, mean over thresholds and seeds."""
    each = []
    for _, own in detections.groupby("seed"):
        scored = Resampled(truth, own.reset_index(drop=True), videos, protocol().tious)
        each.append([scored.map(one).mean() for one in np.eye(len(videos), dtype=int)])
    return pd.Series(100 * np.mean(each, 0), pd.Index(videos, name="recording"))


def localization(
    detections: pd.DataFrame, truth_of: Callable[[str], tuple[pd.DataFrame, list[str]]]
) -> pd.DataFrame:
    """Claims of ActionVLM, each recording a unit.

    Args:
        detections: Of all sets, models and seeds, with `dataset`.
        truth_of: A set's ground truth and recordings, by its name.
    """
    found: dict[str, list[pd.Series]] = {}
    for dataset in detections.loc[detections["model"] == FULL, "dataset"].unique():
        mine = detections[detections["dataset"] == dataset]
        for model in (FULL, VISION, ONLY, "DyFADet"):
            own = mine[mine["model"] == model]
            found.setdefault(model, []).append(
                within(truth_of(dataset)[0], own, truth_of(dataset)[1])
            )
    if not found:
        return table_of([])
    score = {model: pd.concat(parts) for model, parts in found.items()}
    what = "mAP within a recording"
    return table_of(
        [
            rows(
                "V1", "mAP", f"{what}, Eq. 5 over ActionFormer alone", score[FULL] - score[VISION]
            ),
            rows("V3", "mAP", f"{what}, Eq. 5 over DyFADet", score[FULL] - score["DyFADet"]),
            rows("V4", "mAP", f"{what}, vision over language alone", score[VISION] - score[ONLY]),
        ]
    )
