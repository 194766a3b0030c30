"""Training and testing of localizers on features in time: windows, one loop for every method,
sliding windows.

A feature file (safetensors) holds one array (T, F) a video; `Clock` says which second a step stands
for.
"""

import math
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from vlact.losses.localization import assign, detection_loss, points
from vlact.models import files
from vlact.models.actionformer import ActionFormer, LocalizerConfig
from vlact.models.adatad import EndToEnd
from vlact.models.asl import ASL, ASLConfig
from vlact.models.detection import candidates, members
from vlact.models.digit import DiGIT, DiGITConfig
from vlact.models.dual import DualEncoder
from vlact.models.dyfadet import DyFADet, DyFADetConfig
from vlact.models.localizer_presets import applied
from vlact.models.pred_detr import PredDETR, PredDETRConfig
from vlact.models.tridet import TriDet, TriDetConfig
from vlact.models.wired import WIRED
from vlact.papers.actionvlm import saved
from vlact.papers.actionvlm.accounting import (
    INSIDE,
    MOST_LEFT_OUT,
    check_classes,
    check_clock,
    check_features,
    checked,
    standard,
)
from vlact.runtime.device import beside, put
from vlact.runtime.jobs import job_of, write_table
from vlact.training.features import Film, frames
from vlact.training.loop import fit
from vlact.training.streams import IN_MEMORY, scaled, stored

KINDS = {
    "ActionFormer": (ActionFormer, LocalizerConfig),
    "TriDet": (TriDet, TriDetConfig),
    "DyFADet": (DyFADet, DyFADetConfig),
    "ASL": (ASL, ASLConfig),
    "DiGIT": (DiGIT, DiGITConfig),
    "Pred-DETR": (PredDETR, PredDETRConfig),
}
# those that share ActionFormer's loss, on points; the others bring their own
POINTS = [k for k, (kind, _) in KINDS.items() if not hasattr(kind, "loss")]
SLOW = 0.05  # rate of a pretrained encoder that is trained too, of that of a new localizer
WINDOWS = 8  # run at once at test
LONGEST = 4096  # steps to which a window grows by itself
CROP, TRIALS = (0.9, 1.0), 200  # of published training windows, see `Published`
SHAPE = ("dim", "heads", "embeds", "stems", "levels", "dropout")  # of a localizer, in `Tal`
COLUMNS = {
    "video": object,
    "start_s": float,
    "end_s": float,
    "label": object,
    "score": float,
}  # of detections


def name_of(model: nn.Module) -> str:
    """Of a localizer in `KINDS`."""
    return next(k for k, (kind, _) in KINDS.items() if kind is type(model))


@dataclass(frozen=True)
class Clock:
    """Step i of a video's features stands for `offset_s + i * step_s`."""

    step_s: float
    offset_s: float = 0.0

    def steps(self, seconds: np.ndarray) -> np.ndarray:
        return (np.asarray(seconds, dtype=np.float64) - self.offset_s) / self.step_s

    def seconds(self, steps: np.ndarray) -> np.ndarray:
        return np.asarray(steps, dtype=np.float64) * self.step_s + self.offset_s


@dataclass
class Sequence:
    """One video: features (T, F) or whatever else a model sees of T steps, in memory or a stream;
    actions in steps (N, 2), their classes (N,).
    """

    name: str
    duration_s: float
    features: Tensor
    segments: Tensor
    labels: Tensor


def sequences(
    features: dict[str, Tensor],
    durations: dict[str, float],
    truth: pd.DataFrame,
    classes: list[str],
    clock: Clock,
) -> list[Sequence]:
    """All videos of `durations` as sequences.

    Args:
        features: By video; (T, F) become float32, whatever numbers they are.
        durations: Seconds, by video; which videos are wanted, and in which order.
        truth: Columns `video, start_s, end_s, label`.
        classes: Their numbers are the labels.
        clock: Of the features.

    Raises:
        ValueError: An unknown class, an action that does not end after it starts (names the row),
            features that are missing, empty or not finite (names video and step), a clock that is
            no positive number or puts most actions outside the features.

    Actions of videos that are not in `durations`, and features and durations that disagree, are
    named in a warning.
    """
    unknown = ~truth["label"].isin(classes)
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise ValueError(
            f"ground truth, row {row}: unknown class {truth['label'].iloc[row]!r}; expected one "
            f"of {classes}"
        )
    if (
        bad := ~(
            (truth["end_s"] > truth["start_s"])
            & np.isfinite(truth["end_s"])
            & np.isfinite(truth["start_s"])
        )
    ).any():
        row = int(np.flatnonzero(bad)[0])
        found = truth.iloc[row]
        raise ValueError(
            f"ground truth, row {row} ({found['video']}): end_s must be after start_s; got "
            f"{found['start_s']} to {found['end_s']} (seconds)"
        )
    check_features(features, durations)
    check_clock(truth, {v: len(features[v]) for v in durations}, durations, clock)
    if (others := ~truth["video"].isin(durations)).any():
        name = truth["video"][others].iloc[0]
        warnings.warn(
            f"{int(others.sum())} of {len(truth)} actions are of videos that were not asked for, "
            f"such as {name!r}; they are left out",
            stacklevel=2,
        )
    number, out = {c: i for i, c in enumerate(classes)}, []
    own = {v: part for v, part in truth.groupby("video", sort=False)}
    for video, duration in durations.items():
        part = own.get(video, truth.head(0))
        spans = torch.tensor(
            clock.steps(part[["start_s", "end_s"]].to_numpy()), dtype=torch.float32
        ).view(-1, 2)
        kinds = torch.tensor([number[x] for x in part["label"]], dtype=torch.long)
        x = features[video]  # frames (T, ..) stay as they are
        out.append(Sequence(video, duration, x.float() if x.ndim == 2 else x, spans, kinds))
    return out


@dataclass(frozen=True)
class Problem:
    """What a job learns from and is tested on, and by which numbers.

    Attributes:
        features: safetensors, by video, standardised by the training videos; a large file is
            streamed, see `vlact.training.streams`.
        durations: "train" and "test" to the videos' seconds.
        truth: Parquet of the ground truth.
        classes: Names; to descriptions where language reads them.
        clock: `Clock` as a dict.
        config: The localizer's shape as a dict.
        recipe: `Tal` as a dict, where language takes part with `Vlm`.
    """

    features: str
    durations: dict[str, dict[str, float]]
    truth: str
    classes: list[str] | dict[str, str]
    clock: dict
    config: dict
    recipe: dict

    @property
    def time(self) -> Clock:
        return Clock(**self.clock)

    def actions(self, part: str = "") -> pd.DataFrame:
        """Ground truth, of all videos or of a part."""
        table = pd.read_parquet(self.truth)
        return table[table["video"].isin(self.durations[part])] if part else table

    def read(self) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Features by video, and by what they are standardised (F,).

        Raises:
            ValueError: See `check_features` and `check_classes`.
        """
        found = stored(self.features)
        check_features(found, [*self.durations["train"], *self.durations["test"]])
        check_classes(self.actions(), self.durations)
        return found, *standard(found, self.durations["train"])

    def sequences(self, part: str, found: dict[str, Tensor], *moments: Tensor) -> list[Sequence]:
        """Videos of a part, standardised by `moments` if there are any; see `sequences`."""
        seconds = self.durations[part]
        if moments:
            found = {v: scaled(found[v], *moments) for v in seconds}
        return sequences(found, seconds, self.actions(part), list(self.classes), self.time)


def window(
    sequence: Sequence, start: int, length: int, inside: float = INSIDE, most: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Steps `start` to `start + length`, or `most` of them: features (length, F) padded with zeros,
    mask, and the actions that lie in it.

    An action is cut to the window; one of which a share less than `inside` remains is left out.
    """
    part = sequence.features[start : start + (length if most is None else most)]
    features = torch.cat([part, part.new_zeros(length - len(part), *part.shape[1:])])
    mask = torch.arange(length) < len(part)
    cut = (sequence.segments - start).clamp(0, len(part))
    whole = sequence.segments[:, 1] - sequence.segments[:, 0]
    keep = (cut[:, 1] - cut[:, 0]) >= inside * whole
    return features, mask, cut[keep], sequence.labels[keep]


def draw(
    videos: list[Sequence],
    count: int,
    length: int,
    generator: torch.Generator,
    inside: float = INSIDE,
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Random windows, see `window`; a video is as likely as it is long."""
    share, out = torch.tensor([float(len(s.features)) for s in videos]), []
    for i in torch.multinomial(share, count, True, generator=generator).tolist():
        last = max(0, len(videos[i].features) - length)
        start = int(torch.randint(last + 1, (), generator=generator))
        out.append(window(videos[i], start, length, inside))
    return out


class Published:
    """Windows as the authors of ActionFormer, TriDet, DyFADet and AdaTAD draw them.

    An epoch takes each video once, in random order; what fills no batch is left out. Of a longer
    video it is a random window, of a shorter one a random stretch of `CROP` of it; one that holds
    `inside` of an action, if `TRIALS` draws find it. Batches depend on seed and step alone.

    Args:
        videos: Training videos.
        length: Steps of a window.
        batch_size: Windows.
        seed: Of order and places.
        inside: See `window`.
    """

    def __init__(
        self, videos: list[Sequence], length: int, batch_size: int, seed: int, inside: float
    ):
        self.videos, self.length, self.seed, self.inside = videos, length, seed, inside
        self.batch_size = min(batch_size, len(videos))
        self.steps = len(videos) // self.batch_size

    def __call__(self, step: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        epoch, batch = divmod(step, self.steps)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.videos))
        rng = np.random.default_rng([self.seed, epoch, batch])
        first = batch * self.batch_size
        return [self.one(self.videos[i], rng) for i in order[first : first + self.batch_size]]

    def one(
        self, video: Sequence, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A window of a video."""
        steps = most = len(video.features)
        if steps > self.length:
            most = self.length
        else:
            low, high = (max(1, round(share * steps)) for share in CROP)
            most = int(rng.integers(low, high + 1))
        for _ in range(TRIALS):
            start = int(rng.integers(steps - most + 1))
            found = window(video, start, self.length, self.inside, most)
            if len(found[2]) or not len(video.segments):
                break
        return found


class Windows:
    """Random windows without replacement, batch by batch, see `window`.

    An epoch takes every recording, a longer one once for every `length` steps of it, each time from
    another part. Batches depend on seed and step alone, so that a training that goes on from a
    checkpoint sees what it would have seen.

    Args:
        videos: Training videos.
        length: Steps of a window.
        batch_size: Windows.
        seed: Of order and places.

    Attributes:
        steps: Batches of an epoch; the last one is filled from the epoch's front.
    """

    def __init__(self, videos: list[Sequence], length: int, batch_size: int, seed: int):
        self.videos, self.length, self.batch_size, self.seed = videos, length, batch_size, seed
        counts = [max(1, round(len(s.features) / length)) for s in videos]
        self.parts = [(i, k, n) for i, n in enumerate(counts) for k in range(n)]
        self.steps = -(-len(self.parts) // batch_size)

    def __call__(self, step: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        epoch, batch = divmod(step, self.steps)
        rng = np.random.default_rng([self.seed, epoch])
        order, place = rng.permutation(len(self.parts)), rng.random(len(self.parts))
        mine = np.arange(batch * self.batch_size, (batch + 1) * self.batch_size) % len(order)
        out = []
        for at in order[mine]:
            i, k, n = self.parts[at]
            last = max(0, len(self.videos[i].features) - self.length)
            first = min(last, int((k + place[at]) / n * (last + 1)))
            out.append(window(self.videos[i], first, self.length))
        return out


def stack(cut: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Features (B, length, F) and masks (B, length) of windows."""
    return torch.stack([c[0] for c in cut]), torch.stack([c[1] for c in cut])


def steps_of(videos: list[Sequence], recipe: dict, epochs: float) -> int:
    """Batches of so many epochs, for every loop that trains on windows: one epoch has as many steps
    of features as the videos, whatever windows hold of padding; or, as published, as many windows
    as there are videos.

    Args:
        videos: Training videos.
        recipe: Its `window` (steps), `batch_size` (windows), and `by_video` where it is published.
        epochs: How many.
    """
    if recipe.get("by_video"):
        return round(epochs) * max(1, len(videos) // recipe["batch_size"])
    windows = sum(len(s.features) for s in videos) / recipe["window"]
    return max(1, round(epochs * windows / recipe["batch_size"]))


def planned(
    tal: dict, kind: str, feature_dim: int, classes: int, changed: dict | None = None
) -> tuple[dict, dict]:
    """Recipe and shape of a localizer, for the command line and for jobs alike.

    Args:
        tal: `vlact.params.Tal` as a dict.
        kind: One of `KINDS`.
        feature_dim, classes: Of the data.
        changed: What a user says otherwise: `preset`, the published numbers of that name, see
            `vlact.models.localizer_presets`; then `epochs`, `window` and so on, over these.

    Returns:
        `recipe` and `config` of `localize_job`.

    Raises:
        ValueError: No such preset.
    """
    changed, tal = dict(changed or {}), {k: x for k, x in tal.items() if k != "kinds"}
    data = changed.pop("preset", "") or tal.get("preset", "")
    recipe = (
        tal
        | {"preset": ""}
        | {"nms": {"sigma": tal["nms_sigma"], "max_seg_num": tal["max_seg_num"]}}
    )
    config = {k: tal[k] for k in SHAPE} | {"window": tal["attend"]}
    config |= {"feature_dim": feature_dim, "classes": classes}
    if data:
        recipe, config = applied(kind, data, recipe, config)
    return recipe | changed, config


def holding(videos: list[Sequence], recipe: dict, levels: int, clip: int = 1) -> int:
    """Steps of a window that holds every action of the videos: the recipe's, or where one is longer
    as many more as it needs, a multiple of `clip`, up to `LONGEST`, which is said in a warning.
    What is longer still counts as left out, see `vlact.papers.actionvlm.accounting.account`. A
    published recipe's window stays.
    """
    given, steps = recipe["window"], math.lcm(2 ** (levels - 1), clip)
    # what lies outside the features is in no window
    lasting = [
        float((s.segments.clamp(0, len(s.features)) @ torch.tensor([-1.0, 1.0])).max())
        for s in videos
        if len(s.segments)
    ]
    longest = max(lasting, default=0.0)
    most = max(given, LONGEST // steps * steps)
    if recipe.get("by_video") or longest <= given:
        return given
    whole = min(most, -(-math.ceil(longest) // steps) * steps)
    if whole > given:
        count = sum(int(((s.segments[:, 1] - s.segments[:, 0]) > given).sum()) for s in videos)
        warnings.warn(
            f"{count} actions are longer than a window of {given} steps, the longest has "
            f"{longest:g}; windows have {whole} instead",
            stacklevel=3,
        )
    return whole


def starts(steps: int, length: int, overlap: float = 0.5) -> list[int]:
    """First steps of sliding windows that cover a sequence; the last one ends with it. A short one
    has a single window.
    """
    if steps <= length:
        return [0]
    hop = max(1, round(length * (1 - overlap)))
    return [*range(0, steps - length, hop), steps - length]


def slide(videos: list[Sequence], length: int, overlap: float = 0.5):
    """All sliding windows, a few at a time: (video, first step) of each, and the windows."""
    every = [(one, s) for one in videos for s in starts(len(one.features), length, overlap)]
    for i in range(0, len(every), WINDOWS):
        part = every[i : i + WINDOWS]
        yield [(one.name, s) for one, s in part], [window(one, s, length) for one, s in part]


def train(
    sequences: list[Sequence],
    model: nn.Module,
    recipe: dict,
    seed: int,
    checkpoint: str | None = None,
    most_left_out: float = MOST_LEFT_OUT,
) -> tuple[nn.Module, list[dict]]:
    """Train a localizer on random windows.

    Args:
        sequences: Training videos.
        model: One of `KINDS`, or an `EndToEnd` on frames; it moves to where `vlact.runtime.device`
            says.
        recipe: `Tal` as a dict, or a published one, see
            `vlact.models.localizer_presets.Training.recipe`; noise is added to features only.
        seed: Windows, noise.
        checkpoint: See `vlact.training.loop.fit`.
        most_left_out: Share of actions that may be left out; each reason is named in a warning, see
            `vlact.papers.actionvlm.accounting.account`, which gives the same as a table.

    Returns:
        The model with averaged weights (EMA), in evaluation mode, and the curve.

    Raises:
        ValueError: More actions are left out, or features that are empty or not finite.
    """
    given = {s.name: s.features for s in sequences}
    frames_of = any(x.ndim > 2 for x in given.values())  # of an `EndToEnd`
    check_features(given, given, None if frames_of else model.config.feature_dim)
    generator, config, model = torch.Generator().manual_seed(seed), model.config, put(model)
    inside = recipe.get("inside", INSIDE)
    checked(sequences, recipe["window"], config.levels, most_left_out, config.ranges, inside)
    at = points(recipe["window"], config.levels, config.ranges)
    power = getattr(config, "iou_power", 0.0)  # TriDet's
    smoothing = recipe.get("smoothing", 0.0)
    if "positives" in recipe:
        model.positives.fill_(recipe["positives"])

    published = None
    if recipe.get("by_video"):
        published = Published(sequences, recipe["window"], recipe["batch_size"], seed, inside)

    def loss_of(step: int) -> Tensor:
        if published:
            cut = published(step)
        else:
            cut = draw(sequences, recipe["batch_size"], recipe["window"], generator, inside)
        x, mask = stack(cut)
        if recipe["noise"] and x.is_floating_point():
            x = x + recipe["noise"] * torch.randn(x.shape, generator=generator)
        torch.manual_seed(
            int(torch.randint(2**31, (), generator=generator))
        )  # paths are dropped from the global state, which no checkpoint has
        if hasattr(model, "loss"):
            given = x, mask, [(s, k) for *_, s, k in cut]
            return model.loss(*beside(model, given), smoothing)
        target, offset = (
            torch.stack(t)
            for t in list(
                zip(*(assign(at, s, k, config.classes) for *_, s, k in cut), strict=True)
            )[:2]
        )
        x, mask, target, offset = beside(model, (x, mask, target, offset))
        logits, distances, valid = model(x, mask)
        model.positives.lerp_(((target.sum(-1) > 0) & valid).sum().float(), 0.1)
        mean = model.positives.clamp(min=1)
        given = logits, distances, target, offset, valid, mean
        found = detection_loss(*given, smoothing, power, config.by_class)
        return found["cls"] + recipe["reg_weight"] * found["reg"]

    steps, given = (
        steps_of(sequences, recipe, recipe["epochs"]),
        (recipe["lr"], recipe["weight_decay"], generator, "localizer", checkpoint),
    )
    names = "ema", "rising", "warmup", "least", "clip"
    more = {k: recipe[k] for k in names if k in recipe}
    options = partial(by_part, recipe)
    curve = fit({"model": model}, loss_of, steps, *given, **more, options=options)
    return model.eval(), curve


def as_published(recipe: dict, name: str, weight: Tensor) -> dict:
    """What a published recipe does otherwise with a weight, see `vlact.training.loop.fit`: with
    `spared` norms, biases and factors do not decay; with `adapter_lr` adapters learn at that rate.
    """
    if ".adapter." in name and recipe.get("adapter_lr"):
        return {"lr": recipe["adapter_lr"]}
    a_norm = weight.ndim == 1 or weight.ndim == 3 and weight.shape[::2] == (1, 1)
    if recipe.get("spared") and (a_norm or not name.endswith("weight")):
        return {"weight_decay": 0.0}
    return {}


def by_part(recipe: dict, name: str, weight: Tensor) -> dict:
    """As `as_published`; with `slow_lr` LoRA and a vision encoder learn at that rate, as in
    ActionVLM.
    """
    slow = "lora_" in name or "eye." in name or name.startswith(("encoder.", "blocks."))
    rate = {"lr": recipe["slow_lr"]} if slow and recipe.get("slow_lr") is not None else {}
    return as_published(recipe, name, weight) | rate


@dataclass
class Localizer:
    """A trained model with everything needed to use it on a video's features.

    Attributes:
        model: In evaluation mode.
        classes: Names, by number.
        clock: Of the features.
        recipe: `Tal` as a dict, with `nms`, options of `vlact.models.nms.suppress`. With `whole`
            it is done as the authors of ActionFormer and TriDet do: a video passes at once, padded
            to the window or to `config.multiple` steps, NMS is done on steps, ends are cut after
            it; `min_steps` is what a segment must be longer than. See
            `vlact.models.localizer_presets`.
        mean, std: By which features are standardised (F,).
    """

    model: nn.Module
    classes: list[str]
    clock: Clock
    recipe: dict
    mean: Tensor
    std: Tensor

    def run(
        self, first: tuple[str, int], cut: list[tuple[Tensor, Tensor, Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The model on windows, see `window`; `first` is the video and the first step of the first
        one.
        """
        return self.model(*beside(self.model, stack(cut)))

    @torch.inference_mode()
    def candidates(self, features: dict[str, Tensor], durations: dict[str, float]) -> pd.DataFrame:
        """What sliding windows find before NMS: `video, start_s, end_s, label, score`.

        Args:
            features: By video (T, F), not standardised.
            durations: Seconds, by video; which are wanted.

        Raises:
            ValueError: Features that are missing, empty, not finite (names video and step) or of
                another dimension than the model, a duration that is no positive number, or a model
                whose answer is not finite.
        """
        check_features(features, durations, len(self.mean))
        none = pd.DataFrame(columns=["video", "start_s", "end_s"])
        check_clock(none, {v: len(features[v]) for v in durations}, durations, self.clock)
        levels, sets = self.model.config.levels, getattr(self.model, "sets", False)
        # without NMS windows must not overlap: a set is of a whole video
        whole = self.recipe.get("whole", False) or sets
        videos, tables = [], []
        unknown = torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)  # its actions
        for video, seconds in durations.items():
            x = scaled(features[video], self.mean, self.std)
            videos.append(Sequence(video, seconds, x, *unknown))
        found = (
            one
            for where, cut in (
                self._whole(videos) if whole else slide(videos, self.recipe["window"])
            )
            for one in zip(where, *self.run(where[0], cut), strict=True)
        )
        at = {}  # points by length
        for (video, start), *one in found:
            if not all(x.isfinite().all() for x in one[:2]):
                raise ValueError(
                    f"{video}: the model's answer is not finite from step {start} on; its "
                    f"weights or `mean` and `std` are bad"
                )
            most = {"top_k": self.recipe["pre_nms_topk"], "min_steps": self.recipe.get("min_steps")}
            one = [x.cpu() for x in one]
            if sets:
                part = members(*one, start, **most)
            else:
                length = len(one[0]) * 2 ** (levels - 1) // (2**levels - 1)
                if length not in at:
                    at[length] = points(length, levels)
                part = candidates(*one, at[length], start, **most)
            seconds = self.clock.seconds(part["segment"])
            if sets or not whole:
                seconds = seconds.clip(0, durations[video])
            columns = {
                "start_s": seconds[:, 0],
                "end_s": seconds[:, 1],
                "label": np.array(self.classes, object)[part["label"]],
            }
            tables.append(
                pd.DataFrame({"video": video, **columns, "score": part["score"].astype(np.float64)})
            )
        nothing = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
        table = pd.concat(tables, ignore_index=True) if tables else nothing
        return table if whole and not sets else table[table["end_s"] > table["start_s"] + 1e-3]

    def _whole(self, videos: list[Sequence]):
        """As `slide`, each video in a single window that holds it."""
        multiple = self.model.config.multiple
        for one in videos:
            steps = len(one.features)
            longer = -(-steps // multiple) * multiple
            length = longer if steps > self.recipe["window"] else self.recipe["window"]
            yield [(one.name, 0)], [window(one, 0, length)]

    def detect(self, features: dict[str, Tensor], durations: dict[str, float]) -> pd.DataFrame:
        """Detections in every video of `durations`, after NMS: `video, start_s, end_s, label,
        score`; see `candidates`.
        """
        from vlact.models.nms import suppress  # numba, a second of its own

        found = self.candidates(features, durations)
        if getattr(self.model, "sets", False):  # no NMS
            best = found.sort_values("score", ascending=False, kind="stable")
            return best.groupby("video", sort=False).head(self.recipe["nms"]["max_seg_num"])
        if not self.recipe.get("whole") or found.empty:
            return suppress(found, **self.recipe["nms"])
        ends = ["start_s", "end_s"]  # as published NMS is done on steps
        steps = found.assign(
            **dict(zip(ends, self.clock.steps(found[ends].to_numpy()).T, strict=True))
        )
        kept = suppress(steps, **self.recipe["nms"])
        last = kept["video"].map(durations).to_numpy()[:, None]
        seconds = self.clock.seconds(kept[ends].to_numpy()).clip(0, last)
        return kept.assign(**dict(zip(ends, seconds.T, strict=True)))

    def save(self, path: str | Path) -> None:
        """Weights and everything else as one safetensors file, written whole or not at all."""
        state = self.model.state_dict() | {"standard.mean": self.mean, "standard.std": self.std}
        note = {
            "kind": name_of(self.model),
            "config": asdict(self.model.config),
            "classes": self.classes,
        }
        files.save(
            path, "localizer", note | {"clock": asdict(self.clock), "recipe": self.recipe}, state
        )

    @classmethod
    def load(cls, path: str | Path) -> "Localizer":
        """Read what `save` wrote.

        Raises:
            ValueError: Another file, one that is cut off, or one whose weights do not fit its
                shape.
        """
        note, state = files.read(path, "localizer")
        wanted = {"kind": str, "config": dict, "classes": list[str], "clock": dict, "recipe": dict}
        note = files.checked(note, wanted, path, "localizer")
        if note["kind"] not in KINDS:
            raise ValueError(
                f"{path}: expected a localizer of {sorted(KINDS)}, got {note['kind']!r}"
            )
        kind, shape = KINDS[note["kind"]]
        config = saved.shape_of(shape, note["config"], path)
        standard = {
            k: state.pop(f"standard.{k}") for k in ("mean", "std") if f"standard.{k}" in state
        }
        return cls(
            files.built(lambda: kind(config), state, path),
            saved.classes_of(note["classes"], config.classes, path),
            saved.clock_of(Clock, note["clock"], path),
            saved.recipe_of(note["recipe"], path),
            *saved.standard_of(standard, config.feature_dim, path),
        )


def localize_job(
    kind: str,
    problem: Problem,
    seed: int,
    out: str,
    checkpoint: str,
    most_left_out: float = MOST_LEFT_OUT,
) -> list[dict]:
    """Train one localizer; write it (`out`.safetensors) and its detections on the test videos
    (`out`.parquet).

    Args:
        kind: One of `KINDS`.
        problem: With a recipe's `preset` shape and numbers are the published ones of that name.
        seed: See `train`.
        out: Where model and detections go, without suffix.
        checkpoint: Where the state goes while training.
        most_left_out: See `train`.

    Returns:
        The curve.

    Raises:
        ValueError: Features, clock or actions that nothing can be learnt from, see `sequences` and
            `train`.
    """
    recipe, config = problem.recipe, problem.config
    if recipe.get("preset"):
        recipe, config = applied(kind, recipe["preset"], recipe, config)
    found, mean, std = problem.read()
    mine = problem.sequences("train", found, mean, std)
    torch.manual_seed(seed)
    model = KINDS[kind][0](KINDS[kind][1](**config))
    recipe = recipe | {"window": holding(mine, recipe, model.config.levels)}
    model, curve = train(mine, model, recipe, seed, checkpoint, most_left_out)
    localizer = Localizer(model, list(problem.classes), problem.time, recipe, mean, std)
    detections = localizer.detect(found, problem.durations["test"])
    localizer.save(f"{out}.safetensors")
    write_table(f"{out}.parquet", detections.assign(model=kind, seed=seed))
    return curve


@torch.inference_mode()
def seen_by(model: EndToEnd, video: Tensor | Film, window: int) -> Tensor:
    """Features (T, D) of a video's frames: at once of frames in memory, so many steps after the
    other of a film.
    """
    parts = (
        [video]
        if isinstance(video, Tensor)
        else (video[i : i + window] for i in range(0, len(video), window))
    )
    frames = (beside(model, x.flatten(0, 1)[None]) for x in parts)
    return torch.cat([model.features(x)[0].float().cpu() for x in frames])


def end_to_end_job(
    problem: Problem,
    fps: float,
    encoder: str,
    seed: int,
    out: str,
    checkpoint: str,
    most_left_out: float = MOST_LEFT_OUT,
    adapted: bool = True,
    kind: str = "AdaTAD",
) -> list[dict]:
    """Train an ActionFormer with the encoder's adapters (AdaTAD), or with the encoder itself, on
    frames; write its detections on the test videos (`out`.parquet).

    Args:
        problem: Its `features` are the videos' folder; frames lie in memory if all of them together
            are small, see `vlact.training.streams.IN_MEMORY`.
        fps: Of the videos.
        encoder: A `DualEncoder`'s file.
        seed, out, checkpoint, most_left_out: See `localize_job`.
        adapted: Whether there are adapters; otherwise the encoder is frozen, the control.
        kind: "AdaTAD", or one of `vlact.models.wired.WIRED`, which train the encoder, at a rate of
            `SLOW` times the recipe's.

    Returns:
        The curve.
    """
    recipe, config, stride = problem.recipe, problem.config, problem.recipe["stride"]
    eye, durations = DualEncoder.load(encoder), problem.durations
    size, clip = eye.config.image_size, eye.config.num_frames
    wanted = [v for part in ("train", "test") for v in durations[part]]
    seconds = sum(sum(one.values()) for one in durations.values())
    # a film that is streamed is decoded window by window
    whole = seconds * fps * size * size * 3 <= IN_MEMORY
    found = {
        v: (frames if whole else Film)(
            Path(problem.features) / v, fps, stride, clip // stride, size
        )
        for v in wanted
    }
    check_classes(problem.actions(), durations)
    mine = problem.sequences("train", found)
    steps = clip // math.gcd(clip, stride)
    recipe = recipe | {"window": holding(mine, recipe, LocalizerConfig(**config).levels, steps)}
    torch.manual_seed(seed)
    localizer = ActionFormer(LocalizerConfig(**config))
    if kind in WIRED:
        model = WIRED[kind](eye, localizer, stride)
        recipe = {"slow_lr": SLOW * recipe["lr"]} | recipe
    else:
        model = EndToEnd(eye, localizer, stride, adapted=adapted)
    model, curve = train(mine, model, recipe, seed, checkpoint, most_left_out)
    seen = {v: seen_by(model, found[v], recipe["window"]) for v in durations["test"]}
    same = torch.zeros(config["feature_dim"]), torch.ones(config["feature_dim"])
    given = list(problem.classes), problem.time, recipe
    detections = Localizer(model.localizer, *given, *same).detect(seen, durations["test"])
    kind = kind if adapted else f"{kind}, frozen"
    write_table(f"{out}.parquet", detections.assign(model=kind, seed=seed))
    return curve


LocalizeJob = job_of(localize_job, tracked=True)
EndToEndJob = job_of(end_to_end_job, tracked=True)
