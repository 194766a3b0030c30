"""Training a localizer over many processes, on features that were extracted before: the loop of
`vlact.papers.scaling` on windows of time.

    accelerate launch --config_file vlact/tools/launch/ddp.yaml -m vlact.papers.actionvlm.scaling
    thumos_gt.json features runs/actionformer \\
        --subset validation --batch-size 8 --step-s 0.1333 --offset-s 0.2667

`--kind ActionVLM --aligned FOLDER --descriptions FILE` trains a localizer and the language model of
the alignment stage, which take turns by epochs (Alg. 1).

Shape, window, epochs and numbers of training are those of a profile: of `--profile paper` a
published localizer's own on THUMOS14, and ActionVLM's own block `vlm`. An epoch of a localizer is
counted by `vlact.papers.actionvlm.localizing.steps_of`, one of ActionVLM takes every recording as
often as it has windows (`vlact.papers.actionvlm.localizing.Windows`). Which part of it a window
shows follows from seed, step and video. Features beyond a gigabyte are read window by window.

With `--encoder FILE` ActionVLM is trained on frames: FEATURES is then the folder of videos, which
are decoded window by window, and a VideoMAE learns with the rest (`eye.safetensors`). The run's
localizer.safetensors is what
`vlact.papers.actionvlm.localizing.Localizer` loads and `vlact.hub.ActionLocalizer` takes, its
actionvlm.safetensors what `vlact.hub.VisionLanguageLocalizer` takes.
"""

import argparse
import glob
import json
import sys
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from vlact import params
from vlact.datasets import activitynet, features
from vlact.language.prompts import Prompt, language_of, prompt_of, targets
from vlact.losses.actionvlm import ClassMeans, advantage, advantage_loss
from vlact.losses.localization import Points, assign, detection_loss, points
from vlact.models import files
from vlact.models.checkpoints import VideoMAE
from vlact.models.eye import Eye, tower_of
from vlact.papers.actionvlm.accounting import (
    INSIDE,
    MOST_LEFT_OUT,
    check_classes,
    checked,
    standard,
)
from vlact.papers.actionvlm.experiments import (
    ADVANTAGE_WEIGHT,
    USUAL,
    ActionVLM,
    Variant,
    VisionLanguageLocalizer,
    answers,
    frame_losses,
    make_reader,
)
from vlact.papers.actionvlm.localizing import (
    KINDS,
    POINTS,
    Clock,
    Localizer,
    Published,
    Sequence,
    by_part,
    holding,
    planned,
    sequences,
    steps_of,
    window,
)
from vlact.papers.actionvlm.localizing import Windows as Epochs
from vlact.papers.scaling import Recipe, options_of, train
from vlact.training.features import Film
from vlact.training.streams import IN_MEMORY, Stream, scaled, stored
from vlact.video import VideoError

TOLD = "ActionVLM"  # the kind that language tells
SUFFIXES = (".npy", ".pt", ".pth", ".h5", ".hdf5", ".csv")


class Windows(Dataset):
    """Random windows of videos as (step, part), with what is to be said of their points.

    Args:
        videos: See `vlact.papers.actionvlm.localizing.sequences`.
        parts: Where windows come from: a video, and the k-th of n parts of it.
        length, at, classes: Steps of a window, points of the pyramid, C.
        noise: Standard deviation, added to standardised features.
        inside: See `vlact.papers.actionvlm.localizing.window`.
        seed: Of what is drawn.
        published: Whether windows are drawn as in `vlact.papers.actionvlm.localizing.Published`.
    """

    def __init__(
        self,
        videos: list[Sequence],
        parts: list[tuple[int, int, int]],
        length: int,
        at: Points,
        classes: int,
        noise: float,
        inside: float,
        seed: int,
        published: bool = False,
    ):
        self.published = Published(videos, length, 1, seed, inside) if published else None
        self.videos, self.parts, self.length, self.points = videos, parts, length, at
        self.inside = inside
        self.classes, self.noise, self.seed = classes, noise, seed

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, at: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features (length, F), mask (length,), and of P points target (P, C) and offset (P, 2)."""
        x, mask, segments, labels = self.cut(*at)
        return x, mask, *assign(self.points, segments, labels, self.classes)[:2]

    def cut(self, step: int, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The window, see `vlact.papers.actionvlm.localizing.window`, with noise."""
        chance = torch.Generator().manual_seed(hash((self.seed, step, row)) % 2**63)
        video, k, n = self.parts[row]
        one = self.videos[video]
        if self.published:
            rng = np.random.default_rng([self.seed, step, row])
            x, *rest = self.published.one(one, rng)
        else:
            last = max(0, len(one.features) - self.length)
            place = (k + float(torch.rand((), generator=chance))) / n
            x, *rest = window(one, min(last, int(place * (last + 1))), self.length, self.inside)
        if self.noise and x.is_floating_point():
            x = x + self.noise * torch.randn(x.shape, generator=chance)
        return x, *rest


class ToldWindows(Windows):
    """Windows, and their actions as text for the language model.

    Args:
        words: Its tokenizer.
        names: Of the classes.
        reach: Steps that it reads at once; a window is a multiple of it.
        epoch_steps: Steps of an epoch.
        most_words: Tokens of an answer that are kept.
        more: Of `Windows`.

    Raises:
        ValueError: A window that is no multiple.
    """

    def __init__(
        self, words, names: list[str], reach: int, epoch_steps: int, most_words: int, *more
    ):
        super().__init__(*more)
        if self.length % reach:
            raise ValueError(
                f"a window of {self.length} steps is no multiple of the {reach} that the "
                f"language model reads at once"
            )
        self.words, self.names, self.reach, self.epoch_steps, self.most_words = (
            words,
            names,
            reach,
            epoch_steps,
            most_words,
        )
        self.most = max(len(one.labels) for one in self.videos)

    def __getitem__(self, at: tuple[int, int]) -> tuple[Tensor, ...]:
        """As `Windows`, then the actions' points (P,), segments (N, 2) and classes (N,), -1 where
        there is none, text (parts, M), of each part its first `most_words` tokens, and the step's
        epoch and whether it opens it.
        """
        x, mask, segments, labels = self.cut(*at)
        said = targets(self.words, answers([(x, mask, segments, labels)], self.names, self.reach))[
            :, : self.most_words
        ]
        text = said.new_full((len(said), self.most_words), -100)
        text[:, : said.shape[1]] = said
        spans, kinds = segments.new_zeros(self.most, 2), labels.new_full((self.most,), -1)
        spans[: len(labels)], kinds[: len(labels)] = segments, labels
        epoch, place = divmod(at[0], self.epoch_steps)
        return (
            x,
            mask,
            *assign(self.points, segments, labels, self.classes),
            spans,
            kinds,
            text,
            epoch,
            place == 0,
        )


def over_processes(*sums: Tensor) -> tuple[list[Tensor], int]:
    """Sums over the parts of a batch that all processes have, and how many processes there are."""
    if not torch.distributed.is_initialized():
        return list(sums), 1
    for x in sums:
        torch.distributed.all_reduce(x)
    return list(sums), torch.distributed.get_world_size()


class Located(nn.Module):
    """A localizer as one call from windows to the loss (Eq. 6 of ActionVLM).

    Its normaliser is a running count of positive points of the whole batch, which all processes
    share.

    Args:
        model: One of `KINDS`.
        numbers: Of training: `reg_weight` of the boundaries, `smoothing` of labels, and what a
            published recipe says besides, see `vlact.papers.actionvlm.localizing.by_part`.
    """

    def __init__(self, model: nn.Module, numbers: dict):
        super().__init__()
        self.model, self.numbers = model, numbers
        self.reg_weight, self.smoothing = numbers["reg_weight"], numbers.get("smoothing", 0.0)

    def options(self, name: str, weight: Tensor) -> dict:
        """What AdamW does otherwise with a weight."""
        return by_part(self.numbers, name, weight)

    def forward(self, x: Tensor, mask: Tensor, target: Tensor, offset: Tensor) -> Tensor:
        return self.detection(self.model, *self.model(x, mask), target, offset)

    def detection(
        self,
        localizer: nn.Module,
        logits: Tensor,
        distances: Tensor,
        valid: Tensor,
        target: Tensor,
        offset: Tensor,
    ) -> Tensor:
        """Both terms of Eq. 6."""
        (positive,), processes = over_processes(((target.sum(-1) > 0) & valid).sum().float())
        localizer.positives.lerp_(positive, 0.1)
        count = (
            localizer.positives.clamp(min=1) / processes
        )  # the mean over processes is then the whole batch's sum / M
        power = getattr(localizer.config, "iou_power", 0.0)  # TriDet's
        given = (logits, distances, target, offset, valid, count, self.smoothing, power)
        found = detection_loss(*given, localizer.config.by_class)
        return found["cls"] + self.reg_weight * found["reg"]


class Reasoned(Located):
    """ActionVLM as one call from `ToldWindows` to the loss (Eq. 9): even epochs on vision alone,
    odd ones with language.

    Class means, advantages and text are summed over all processes before they are divided.

    Args:
        model: Localizer and reader, and where it is trained on frames an eye.
        prompt: One row, of all classes.
        warm_epochs: See `vlact.papers.actionvlm.experiments.train`.
        length: Steps of a window.
        numbers: See `Located`.
    """

    def __init__(
        self, model: ActionVLM, prompt: Prompt, warm_epochs: int, length: int, numbers: dict
    ):
        super().__init__(model, numbers)
        model.half = False  # accelerate's settings say how precise
        self.warm_epochs, self.length, self.means = (
            warm_epochs,
            length,
            ClassMeans(model.config.classes),
        )
        at = points(length, model.config.levels, model.config.ranges)
        for part, fixed in (("prompt", prompt), ("points", at)):
            for name, x in vars(fixed).items():
                self.register_buffer(f"{part}_{name}", x, persistent=False)

    def elsewhere(self, name: str) -> bool:
        """Whether a weight of the model stays in the folder of a published language model."""
        part, _, rest = name.partition(".")
        return part == "reader" and self.model.reader.elsewhere(rest)

    def fixed(self, part: str, kind: type):
        """The prompt or the points, on the device of the model."""
        return kind(*(getattr(self, f"{part}_{name}") for name in kind.__dataclass_fields__))

    def forward(self, x, mask, target, offset, owner, spans, kinds, text, epoch, opens) -> Tensor:
        model, variant, epoch = self.model, self.model.variant, int(epoch[0])
        language, said, weight = epoch % 2 == 1 or not variant.vision, None, None
        if opens[0]:
            self.means.close()
        x = model.see(x)
        if language:
            said = model.read(
                x,
                mask,
                self.fixed("prompt", Prompt),
                text.flatten(0, 1) if variant.text_weight else None,
            )
            weight = model.weight(said, warm=epoch < 2 * self.warm_epochs)
        logits, distances, valid = model.detect(x, mask, said, weight)
        loss = self.detection(model.localizer, logits, distances, valid, target, offset)
        if variant.weight in ("eq1", "paired"):
            rows = [
                (s[k >= 0], k[k >= 0], t, o, w)
                for s, k, t, o, w in zip(spans, kinds, target, offset, owner, strict=True)
            ]
            shape = rows, self.fixed("points", Points), model.config.classes, self.length
            each, label = frame_losses(logits.detach(), distances.detach(), *shape)
            if not language:
                mine = ClassMeans(model.config.classes).to(x.device)
                mine.add(each[mask], label[mask])
                (total, count), _ = over_processes(mine.total, mine.count)
                self.means.total += total
                self.means.count += count
            else:
                if variant.weight == "eq1":
                    gain = advantage(self.means.mean, label, each)
                else:
                    with torch.no_grad():
                        gain = (
                            frame_losses(*model.detect(x, mask, None, None)[:2], *shape)[0] - each
                        )
                loss = loss + ADVANTAGE_WEIGHT * self.share(
                    advantage_loss(said["advantage"], gain, mask), mask
                )
        if language and variant.text_weight:
            loss = loss + variant.text_weight * self.share(said["text_loss"], text != -100)
        return loss

    def share(self, mean: Tensor, counted: Tensor) -> Tensor:
        """A mean over what one process counts, weighted so that the mean over processes is that
        over the whole batch.
        """
        own = counted.sum().float()
        (whole,), processes = over_processes(own.clone())
        return mean * own * processes / whole.clamp(min=1)


class Filed(Stream):
    """Features of a video that have a file of their own, see `vlact.datasets.features.read`."""

    finite = True  # or `read` refuses

    def __init__(self, path: Path):
        self.path, self.shape = path, tuple(features.read(path).shape)

    def __getitem__(self, steps: slice) -> Tensor:
        first, end = self.between(steps)
        return features.read(self.path)[first:end].clone()


def features_of(path: Path, videos: list[str]) -> dict[str, Tensor | Stream]:
    """Features (T, F) by video: from one safetensors file, or from a folder of files that
    `vlact.datasets.features.read` knows; in memory where all are small, streamed otherwise.

    Raises:
        ValueError: Nothing at `path`, a video without features, or a file that cannot be read.
    """
    if not path.exists():
        raise ValueError(
            f"{path}: expected a safetensors file, or a folder with one file of features a "
            f"video; found nothing"
        )
    if path.is_file():
        there = stored(path)
    else:
        there = {}
        for file in (f for f in sorted(path.iterdir()) if f.suffix in SUFFIXES):
            other = there.setdefault(file.stem.removeprefix("v_"), file)
            if other is not file:
                raise ValueError(f"{path}: {other.name} and {file.name} are of one video; keep one")
    if missing := [v for v in videos if v not in there]:
        raise ValueError(
            f"{path}: no features of {len(missing)} of {len(videos)} videos, for example "
            f"{missing[0]!r}; extract them first"
        )
    if path.is_file():
        return {v: x if isinstance(x := there[v], Stream) else x.float() for v in videos}
    small = sum(there[v].stat().st_size for v in videos) <= IN_MEMORY
    return {v: (features.read if small else Filed)(there[v]) for v in videos}


def with_language(
    localizer: nn.Module,
    given: argparse.Namespace,
    classes: list[str],
    mean: Tensor,
    std: Tensor,
    rank: int,
) -> tuple[ActionVLM, Prompt, object]:
    """ActionVLM of a localizer and an aligned reader, the prompt of all classes, and the reader's
    tokenizer.

    Raises:
        ValueError: A file that is not there or holds something else, a class without a description,
            an unknown weight.
    """
    if given.aligned is None or given.descriptions is None:
        raise ValueError(
            "--kind ActionVLM: expected --aligned, the folder of the alignment stage, and "
            "--descriptions, json of class to text"
        )
    weight = given.weight
    if weight not in ("eq1", "paired", "learned"):
        try:
            weight = float(weight)
        except ValueError:
            raise ValueError(
                f"--weight {weight!r}: expected eq1, paired, learned or a number"
            ) from None
    needed = [given.aligned / name for name in ("reader.safetensors", "words.json")] + [
        given.descriptions
    ]
    if missing := [str(f) for f in needed if not f.is_file()]:
        raise ValueError(
            f"{missing[0]}: no such file; expected {', '.join(f.name for f in needed)}"
        )
    try:
        texts = json.loads(given.descriptions.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{given.descriptions}: expected json, a description by class; {error}"
        ) from None
    if lacking := [
        c for c in classes if not isinstance(texts, dict) or not isinstance(texts.get(c), str)
    ]:
        raise ValueError(
            f"{given.descriptions}: no description of {lacking[0]!r}, a class of the ground truth"
        )
    try:
        words, reach, said = language_of(given.aligned)
    except (FileNotFoundError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"{given.aligned}: expected what the alignment stage leaves there; {error}"
        ) from None
    prompt, variant = (
        prompt_of(words, classes, [texts[c] for c in classes], said),
        Variant(f"ActionVLM, {weight}", weight),
    )
    torch.manual_seed(given.seed)
    language = make_reader(str(given.aligned), variant, rank)
    # what is trained has to be read again: before the first step, not after the last
    files.inside(language.config.lm, given.out / "actionvlm.safetensors", "its language model")
    return ActionVLM(localizer, language, mean, std, variant, reach), prompt, words


def films_of(given: argparse.Namespace, videos: list[str]) -> tuple[Eye, dict[str, Film]]:
    """The encoder that is trained on frames, and every video as a film that is read by windows.

    Raises:
        ValueError: Another model than ActionVLM, no such video, or a file that is no VideoMAE.
        VideoError: A video that cannot be read.
    """
    if given.kind != TOLD:
        raise ValueError(
            f"--encoder: expected --kind ActionVLM; got {given.kind} (AdaTAD trains adapters, see "
            f"vlact.papers.actionvlm.localizing.end_to_end_job)"
        )
    found = {v: sorted(given.features.glob(f"{glob.escape(v)}.*")) for v in videos}
    paths = {v: next(iter(there), None) for v, there in found.items()}
    if missing := [v for v, path in paths.items() if path is None]:
        raise ValueError(
            f"{given.features}: no video {missing[0]}.* and {len(missing) - 1} others; expected "
            f"the files of {len(videos)} videos"
        )
    scale = round(given.step_s * given.fps)
    if scale < 1:
        raise ValueError(
            f"--step-s {given.step_s:g} and --fps {given.fps:g}: expected a frame or more a step"
        )
    eye = Eye(tower_of(VideoMAE.load(given.encoder, image_size=given.size)), scale)
    return eye, {v: Film(path, given.fps, scale, 1, given.size) for v, path in paths.items()}


def options(arguments: list[str]) -> tuple[argparse.Namespace, params.Params]:
    """What the command line says, with what the chosen profile says of the chosen kind."""
    profile = argparse.ArgumentParser(add_help=False)
    profile.add_argument("--kind", default="ActionFormer", choices=[*POINTS, TOLD])
    profile.add_argument(
        "--profile",
        default="paper",
        choices=params.PROFILES,
        help="of params.yaml, whose section `tal` gives the numbers",
    )
    first = profile.parse_known_args(arguments)[0]
    chosen = params.load(first.profile)
    parser = argparse.ArgumentParser(
        prog="vlact.papers.actionvlm.scaling",
        description=__doc__.split("\n\n")[0],
        parents=[profile],
    )
    parser.add_argument("truth", type=Path, help="ground truth in ActivityNet's layout (json)")
    parser.add_argument(
        "features",
        type=Path,
        help="safetensors, or a folder with one file a video; with --encoder the folder of videos",
    )
    parser.add_argument("out", type=Path, help="folder of the run")
    parser.add_argument("--subset", default="training", help="of the ground truth")
    parser.add_argument(
        "--localizer", default="ActionFormer", choices=POINTS, help="of ActionVLM: on which it is"
    )
    parser.add_argument("--aligned", type=Path, help="of ActionVLM: folder of the alignment stage")
    parser.add_argument(
        "--descriptions", type=Path, help="of ActionVLM: json, class to description"
    )
    parser.add_argument(
        "--weight", default="eq1", help="of language: eq1, paired, learned, or a number"
    )
    parser.add_argument(
        "--encoder", type=Path, help="of ActionVLM: a VideoMAE that is trained on frames with it"
    )
    parser.add_argument("--size", type=int, default=160, help="pixels of frames, with --encoder")
    parser.add_argument("--fps", type=float, default=30.0, help="of frames, with --encoder")
    parser.add_argument(
        "--step-s", type=float, required=True, help="seconds from one feature to the next"
    )
    parser.add_argument(
        "--offset-s", type=float, default=0.0, help="seconds that the first feature stands for"
    )
    parser.add_argument(
        "--most-left-out",
        type=float,
        default=MOST_LEFT_OUT,
        help="share of actions that may be left out of training",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        help="processes that cut windows, for each training process",
    )
    parser.add_argument("--stop", type=int, help="end early, after so many steps")
    try:
        numbers, _ = numbers_of(
            chosen, first.kind, first.kind if first.kind in KINDS else USUAL, 1, 1
        )
    except ValueError as error:
        parser.error(str(error))
    usual = {k: numbers[k] for k in ("batch_size", "lr", "weight_decay", "ema")}
    usual |= {"slow_lr": numbers.get("slow_lr", 0.0), "constant": not numbers.get("rising", True)}
    names = {"warmup": "warmup", "least": "least", "clip": "max_norm"}
    usual |= {ours: numbers[k] for k, ours in names.items() if k in numbers}
    options_of(parser, steps=0, smoothing=numbers.get("smoothing", 0.0), **usual)
    return parser.parse_args(arguments), chosen


def numbers_of(
    chosen: params.Params, kind: str, localizer: str, feature_dim: int, classes: int
) -> tuple[dict, dict]:
    """Numbers of training and shape of a localizer: a published preset's where the profile names
    one, and of ActionVLM those of its own block.
    """
    tal = asdict(chosen.tal)
    if kind == TOLD:
        own = {"batch_size": chosen.vlm.batch_size, "slow_lr": chosen.vlm.lora_lr}
        tal |= {"preset": ""} | own
    return planned(tal, localizer, feature_dim, classes)


def main(arguments: list[str]) -> int:
    given, chosen = options(arguments)
    vlm, told = chosen.vlm, given.kind == TOLD
    from accelerate import Accelerator, DistributedDataParallelKwargs

    try:
        if given.accumulate > 1:
            raise ValueError(
                f"--accumulate {given.accumulate}: the loss counts positive points of whole "
                f"batches; expected 1"
            )
        truth = activitynet.ground_truth(given.truth, given.subset)
        wanted = list(truth["video"].unique())
        clock, eye = Clock(given.step_s, given.offset_s), None
        if given.encoder:
            eye, found = films_of(given, wanted)
            mean, std = torch.zeros(eye.tower.config.dim), torch.ones(eye.tower.config.dim)
        else:
            found = features_of(given.features, wanted)
            mean, std = standard(found, found)
        classes, everything = (
            sorted(truth["label"].unique()),
            activitynet.ground_truth(given.truth, None),
        )
        others = set(everything["video"]) - set(truth["video"])
        check_classes(everything, {"train": dict.fromkeys(found), "test": dict.fromkeys(others)})
        durations = {v: float(clock.seconds(len(x))) for v, x in found.items()}
        if "duration_s" in truth:
            durations |= truth.groupby("video")["duration_s"].first().dropna().to_dict()
        known = found if eye else {v: scaled(x, mean, std) for v, x in found.items()}
        videos = sequences(known, durations, truth, classes, clock)
        torch.manual_seed(given.seed)  # the same start in every process
        on = given.localizer if told else given.kind
        numbers, shape = numbers_of(chosen, given.kind, on, len(mean), len(classes))
        numbers |= {k: getattr(given, k) for k in ("batch_size", "lr", "smoothing")}
        numbers["slow_lr"] = given.slow_lr or None
        kind, config = KINDS[on]
        model = kind(config(**shape))
        if not told:  # language reads windows of one length
            numbers["window"] = holding(videos, numbers, model.config.levels)
        length = numbers["window"]
        inside, ranges = numbers.get("inside", INSIDE), model.config.ranges
        checked(videos, length, model.config.levels, given.most_left_out, ranges, inside)
        if "positives" in numbers:
            model.positives.fill_(numbers["positives"])
        at = points(length, model.config.levels, model.config.ranges)
        if told:
            epoch = Epochs(videos, length, given.batch_size, given.seed)
            parts, given.steps = epoch.parts, given.steps or epoch.steps * vlm.epochs
        else:
            parts = [(i, 0, 1) for i in range(len(videos))]
            given.steps = given.steps or steps_of(videos, numbers, numbers["epochs"])
        recipe = Recipe(**{f.name: getattr(given, f.name) for f in fields(Recipe)})
        cut = (videos, parts, length, at, len(classes), numbers["noise"], inside, recipe.seed)
        if told:
            model, prompt, words = with_language(model, given, classes, mean, std, vlm.rank)
            model.eye = eye
            said = (words, classes, model.reach, epoch.steps, model.reader.most_words)
            windows = ToldWindows(*said, *cut)
            task = Reasoned(model, prompt, vlm.warm_epochs, length, numbers)
        else:
            windows = Windows(*cut, published=numbers.get("by_video", False))
            task = Located(model, numbers)
        # language rests every other epoch
        resting = DistributedDataParallelKwargs(find_unused_parameters=told)
        accelerator = Accelerator(kwargs_handlers=[resting])
        curve = train(task, windows, recipe, given.out, accelerator, given.workers, given.stop)
    except (ValueError, FloatingPointError, VideoError) as error:
        print(error, file=sys.stderr)
        return 1
    if accelerator.is_main_process:
        if (whole := given.out / "model.safetensors").is_file():
            weights = {k: v for k, v in load_file(whole).items() if not k.startswith("means.")}
            absent = getattr(task, "elsewhere", lambda name: False)
            model = files.fill(model.cpu(), weights, whole, absent)
            if eye is not None:
                eye.save(given.out / "eye.safetensors")
                model.eye = None  # its features are what ActionVLM takes
            if told:
                VisionLanguageLocalizer(model, classes, clock, numbers, mean, std, prompt).save(
                    given.out / "actionvlm.safetensors"
                )
            else:
                Localizer(model, classes, clock, numbers, mean, std).save(
                    given.out / "localizer.safetensors"
                )
        print(f"{len(curve)} steps, loss {curve['loss'].iloc[-1]:.4f}; {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
