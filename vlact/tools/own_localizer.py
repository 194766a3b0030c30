"""A localizer on one's own truth and features: `vlact train-localizer`, and `localize` with it."""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

from vlact import hub, params
from vlact.datasets import activitynet
from vlact.papers.actionvlm.accounting import INSIDE
from vlact.papers.actionvlm.accounting import account as account_of
from vlact.papers.actionvlm.localizing import (
    KINDS,
    Clock,
    Localizer,
    Problem,
    holding,
    localize_job,
    planned,
    sequences,
)
from vlact.report import own
from vlact.runtime.extras import needs
from vlact.tools import cli_inputs as inputs
from vlact.tools.account import Account
from vlact.training.features import extract

with needs("vlact.tools.own_localizer"):
    from safetensors.torch import save_file


@dataclass(frozen=True)
class Plan:
    """What there is to train on.

    Attributes:
        kind: One of `KINDS`.
        title: Of the report.
        every: All annotations.
        parts: Those of "train" and of "test".
        source: Where the features are.
        note: What is known of how they were made.
        clock: `step_s` and `offset_s`.
        profile: Whose shape and numbers of training.
        transpose: Whether arrays of features are (F, T).
    """

    kind: str
    title: str
    every: pd.DataFrame
    parts: dict[str, pd.DataFrame]
    source: Path
    note: dict
    clock: dict[str, float]
    profile: str
    transpose: bool = False

    @property
    def classes(self) -> list[str]:
        """Of the training part; no other can be learnt."""
        return sorted(self.parts["train"]["label"].unique())

    @property
    def unseen(self) -> list[str]:
        """Classes that only the test part has."""
        return sorted(set(self.parts["test"]["label"]) - set(self.classes))


@dataclass(frozen=True)
class Trained:
    """What training left: detections in the test videos that have features, and their seconds."""

    detections: pd.DataFrame
    durations: dict[str, float]


def plan(
    truth: Path,
    features: Path,
    kind: str,
    train: str,
    test: str,
    step_s: float,
    offset_s: float,
    profile: str,
    transpose: bool = False,
) -> Plan:
    """See the options of `vlact train-localizer`.

    Raises:
        ValueError: An unknown kind, no such parts, or features of which no clock is known.
    """
    if kind not in KINDS:
        raise ValueError(f"--kind {kind!r}: expected one of {sorted(KINDS)}")
    every = inputs.read_truth(truth, None).table
    names = sorted(set(every["split"])) if "split" in every else []
    train = train or next((s for s in inputs.TRAIN if s in names), "")
    test = test or next((s for s in inputs.TEST if s in names and s != train), "")
    if not {train, test} <= set(names) or train == test:
        raise ValueError(f"{truth}: expected a training and a test part; found {names or 'none'}")
    parts = {
        k: every[every["split"] == s].reset_index(drop=True)
        for k, s in (("train", train), ("test", test))
    }
    if both := sorted(set(parts["train"]["video"]) & set(parts["test"]["video"])):
        raise ValueError(
            f"{truth}: {both[0]!r} is in {train!r} and in {test!r}; expected every video in one"
        )
    note = inputs.read_note(features / "features.json")
    clock = {
        "step_s": step_s or note.get("step_s", 0),
        "offset_s": offset_s or note.get("offset_s", 0.0),
    }
    if not clock["step_s"] > 0:
        raise ValueError(
            f"{features}: no features.json; pass --step-s, the seconds between features"
        )
    whole = features / "features.safetensors"
    source = whole if whole.is_file() else features
    title = f"{kind} on {truth.name}"
    return Plan(kind, title, every, parts, source, note, clock, profile, transpose)


def train(todo: Plan, changed: dict, seed: int, out: Path, account: Account) -> Trained:
    """Train, detect in the test videos; the model goes to `out` as localizer.safetensors.

    Args:
        todo: From `plan`.
        changed: `preset`, `epochs` and `window` in place of the profile's.
        seed: Of weights and windows.
        out: A folder.
        account: Is told what became of videos and segments.

    Raises:
        ValueError: More is left out than the account allows, or see `localize_job`.
    """
    listed = {k: list(part["video"].unique()) for k, part in todo.parts.items()}
    found, bad = inputs.present_features(
        todo.source, [*listed["train"], *listed["test"]], todo.transpose
    )
    used = account.files("videos", [*listed["train"], *listed["test"]], bad)
    listed = {k: [v for v in vs if v in set(used)] for k, vs in listed.items()}
    if empty := [k for k, vs in listed.items() if not vs]:
        raise ValueError(f"{todo.source}: no features of any video of the {empty[0]}ing part")
    known = todo.every.drop_duplicates("video").set_index("video")
    known = known.get("duration_s", pd.Series(dtype=float)).dropna()
    clock = todo.clock
    lasts = {
        v: float(known.get(v, len(x) * clock["step_s"] + clock["offset_s"]))
        for v, x in found.items()
    }
    dim = next(iter(found.values())).shape[1]
    tal = asdict(params.load(todo.profile).tal)
    recipe, config = planned(tal, todo.kind, dim, len(todo.classes), changed)
    if recipe["window"] < 1 or recipe["window"] % (step := 2 ** (recipe["levels"] - 1)):
        near = max(step, round(recipe["window"] / step) * step)
        raise ValueError(
            f"--window {recipe['window']}: expected a multiple of {step} features, such as {near}"
        )
    _count(todo, found, lasts, listed["train"], recipe, config, account)
    work = out / "work"
    work.mkdir(exist_ok=True)
    save_file({k: x.contiguous() for k, x in found.items()}, work / "features.safetensors")
    todo.every.to_parquet(work / "truth.parquet", index=False)
    problem = Problem(
        features=str(work / "features.safetensors"),
        durations={k: {v: lasts[v] for v in vs} for k, vs in listed.items()},
        truth=str(work / "truth.parquet"),
        classes=todo.classes,
        clock=clock,
        config=config,
        recipe=recipe,
    )
    kept = str(out / "localizer"), str(work / "state.pt")
    localize_job(todo.kind, problem, seed, *kept, most_left_out=account.most)
    detections = pd.read_parquet(out / "localizer.parquet")[[*inputs.SEGMENT, "score"]]
    (out / "localizer.parquet").unlink()
    shutil.rmtree(work)
    activitynet.write_results(detections, out / "detections.json")
    (out / "features.json").write_text(json.dumps(todo.note | clock, indent=1) + "\n")
    return Trained(detections, lasts)


def _count(todo, found, lasts, videos, recipe: dict, config: dict, account: Account) -> None:
    """What becomes of the segments of the training part; nothing is trained yet."""
    part, of = todo.parts["train"], "training segments"
    with_features = part[part["video"].isin(videos)]
    account.add(of, "in", "", len(part))
    account.add(of, "left out", "of videos without features", len(part) - len(with_features))
    seconds, clock = {v: lasts[v] for v in videos}, Clock(**todo.clock)
    mine = sequences(found, seconds, with_features, todo.classes, clock)
    shape = KINDS[todo.kind][1](**config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training says that windows grow
        window = holding(mine, recipe, shape.levels)
    inside = recipe.get("inside", INSIDE)
    counted = account_of(mine, window, shape.levels, shape.ranges, inside)
    for reason in counted.left_out:
        account.add(of, "left out", reason.reason, reason.count)
    account.add(of, "used", "", counted.used)
    test = todo.parts["test"]
    account.add("classes", "in", "", sorted({*todo.classes, *todo.unseen}))
    account.add("classes", "used", "", todo.classes)
    rows = int(test["label"].isin(todo.unseen).sum())
    reason = f"only in the test part, with {rows} of its segments: never found"
    account.add("classes", "not asked for", reason, todo.unseen)
    account.settle()


def scored(todo: Plan, made: Trained, tious, resamples: int, account: Account) -> own.Findings:
    """The report on the detections; videos without features count, as missed."""
    test = todo.parts["test"]
    seconds = inputs.Truth(test, "").durations(made.detections) | made.durations
    found = own.score(
        test,
        made.detections,
        tious=tious,
        durations=seconds,
        resamples=resamples,
        invalid="drop",
        strict=1,
        title=todo.title,
    )
    account.scored(found.left_out, {"ground_truth": "test segments", "predictions": "detections"})
    return found


def trained(folder: str | Path) -> Path | None:
    """The localizer that `train` left in a folder; None where it holds something else, such as what
    `save_pretrained` of `vlact.hub` writes.
    """
    path = Path(folder) / hub.LOCALIZER
    return path if path.is_file() and not (Path(folder) / hub.CONFIG).is_file() else None


@torch.inference_mode()
def detect(
    path: Path,
    video: Path,
    encoder: str,
    duration_s: float,
    tell: Callable[[float], None] | None = None,
) -> pd.DataFrame:
    """Detections of a localizer from `train`, on features as it was trained on.

    Args:
        path: Its file.
        video: To look at.
        encoder: Of the features, where it is code of the user's own.
        duration_s: Of the video.
        tell: See `vlact.training.features.extract`.

    Raises:
        ValueError: An encoder that only the user can name, or no note of how features were made.
    """
    note = inputs.read_note(path.with_name("features.json"))
    named = note.get("encoder", "")
    if not encoder and (not named or ".py:" in named):  # code is run only where the user names it
        raise ValueError(f"{path.parent}: pass --encoder {named or 'that its features are of'}")
    eye, _ = inputs.read_encoder(encoder or named, note.get("options"))
    if not {"fps", "stride"} <= set(note):
        raise ValueError(
            f"{path.with_name('features.json')}: no fps and stride; extract with `vlact features`"
        )
    seen = extract(eye, video, note["fps"], note["stride"], tell=tell)
    return Localizer.load(path).detect({video.name: seen}, {video.name: duration_s})
