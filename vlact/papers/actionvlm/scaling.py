"""Training a localizer over many processes, on features that were extracted before: the loop of
`vlact.papers.scaling` on windows of time.

    accelerate launch --config_file vlact/tools/launch/ddp.yaml -m vlact.papers.actionvlm.scaling
    thumos_gt.json features runs/actionformer \\
        --subset validation --batch-size 8 --step-s 0.1333 --offset-s 0.2667

`--kind ActionVLM --aligned FOLDER --descriptions FILE` trains a localizer and the language model of
the alignment stage, which take turns by epochs (Alg. 1).

Shape, window and numbers of training are those of a profile (`--profile paper`: ActionFormer on
THUMOS14). Steps are counted as every loop here counts them
(`vlact.papers.actionvlm.localizing.steps_of`: an epoch has as many steps of features as the
videos), windows are drawn video after video, a random one of each; which one follows from seed,
step and video. The run's localiser.safetensors is what
`vlact.papers.actionvlm.localizing.Localizer` loads and `vlact.hub.ActionLocalizer` takes, its
reasoner.safetensors what `vlact.hub.VisionLanguageLocalizer` takes.
"""

import argparse
import json
import sys
from dataclasses import asdict, fields
from pathlib import Path

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
from vlact.models.actionvlm import tied
from vlact.papers.actionvlm.accounting import MOST_LEFT_OUT, check_classes, checked, standard
from vlact.papers.actionvlm.experiments import (
    ADVANTAGE_WEIGHT,
    ActionVLM,
    Variant,
    VisionLanguageLocalizer,
    answers,
    frame_losses,
    make_reader,
)
from vlact.papers.actionvlm.localizing import (
    KINDS,
    Clock,
    Localizer,
    Sequence,
    sequences,
    steps_of,
    window,
)
from vlact.papers.scaling import Recipe, options_of, train

SUFFIXES = (".npy", ".pt", ".pth", ".h5", ".hdf5", ".csv")


class Windows(Dataset):
    """Random windows of videos as (step, video), with what is to be said of their points.

    Args:
        videos: See `vlact.papers.actionvlm.localizing.sequences`.
        length, levels, classes: Steps of a window, of the pyramid, C.
        noise: Standard deviation, added to standardised features.
        seed: Of what is drawn.
    """

    def __init__(
        self,
        videos: list[Sequence],
        length: int,
        levels: int,
        classes: int,
        noise: float,
        seed: int,
    ):
        self.videos, self.length, self.classes, self.noise, self.seed = (
            videos,
            length,
            classes,
            noise,
            seed,
        )
        self.points = points(length, levels)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, at: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features (length, F), mask (length,), and of P points target (P, C) and offset (P, 2)."""
        x, mask, segments, labels = self.cut(*at)
        return x, mask, *assign(self.points, segments, labels, self.classes)[:2]

    def cut(self, step: int, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The window, see `vlact.papers.actionvlm.localizing.window`, with noise."""
        one, chance = (
            self.videos[row],
            torch.Generator().manual_seed(hash((self.seed, step, row)) % 2**63),
        )
        start = int(
            torch.randint(max(0, len(one.features) - self.length) + 1, (), generator=chance)
        )
        x, *rest = window(one, start, self.length)
        return x + self.noise * torch.randn(x.shape, generator=chance), *rest


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
        reg_weight: Of the boundaries.
        smoothing: Of labels.
    """

    def __init__(self, model: nn.Module, reg_weight: float, smoothing: float):
        super().__init__()
        self.model, self.reg_weight, self.smoothing = model, reg_weight, smoothing

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
        found = detection_loss(*given)
        return found["cls"] + self.reg_weight * found["reg"]


class Reasoned(Located):
    """ActionVLM as one call from `ToldWindows` to the loss (Eq. 9): even epochs on vision alone,
    odd ones with language.

    Class means, advantages and text are summed over all processes before they are divided.

    Args:
        model: Localizer and reader.
        prompt: One row, of all classes.
        warm_epochs: See `vlact.papers.actionvlm.experiments.train`.
        length: Steps of a window.
        more: `reg_weight`, `smoothing`.
    """

    def __init__(self, model: ActionVLM, prompt: Prompt, warm_epochs: int, length: int, *more):
        super().__init__(model, *more)
        model.half = False  # accelerate's settings say how precise
        self.warm_epochs, self.length, self.means = (
            warm_epochs,
            length,
            ClassMeans(model.config.classes),
        )
        for part, fixed in (("prompt", prompt), ("points", points(length, model.config.levels))):
            for name, x in vars(fixed).items():
                self.register_buffer(f"{part}_{name}", x, persistent=False)

    def fixed(self, part: str, kind: type):
        """The prompt or the points, on the device of the model."""
        return kind(*(getattr(self, f"{part}_{name}") for name in kind.__dataclass_fields__))

    def forward(self, x, mask, target, offset, owner, spans, kinds, text, epoch, opens) -> Tensor:
        model, variant, epoch = self.model, self.model.variant, int(epoch[0])
        language, said, weight = epoch % 2 == 1 or not variant.vision, None, None
        if opens[0]:
            self.means.close()
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


def features_of(path: Path, videos: list[str]) -> dict[str, Tensor]:
    """Features (T, F) by video: from one safetensors file, or from a folder of files that
    `vlact.datasets.features.read` knows.

    Raises:
        ValueError: Nothing at `path`, a video without features, or a file that cannot be read.
    """
    if not path.exists():
        raise ValueError(
            f"{path}: expected a safetensors file, or a folder with one file of features a "
            f"video; found nothing"
        )
    if path.is_file():
        try:
            there = {k: x.float() for k, x in load_file(path).items()}
        except SafetensorError as error:
            raise ValueError(
                f"{path}: expected a safetensors file with an array (T, F) a video; {error}"
            ) from None
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
    return {v: there[v] if path.is_file() else features.read(there[v]) for v in videos}


def reasoner(
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
    files.inside(language.config.lm, given.out / "reasoner.safetensors", "its language model")
    return ActionVLM(localizer, language, mean, std, variant, reach), prompt, words


def main(arguments: list[str]) -> int:
    profile = argparse.ArgumentParser(add_help=False)
    profile.add_argument(
        "--profile",
        default="paper",
        choices=params.PROFILES,
        help="of params.yaml, whose section `tal` gives the numbers",
    )
    chosen = params.load(profile.parse_known_args(arguments)[0].profile)
    tal, vlm = chosen.tal, chosen.vlm
    reads = "ActionVLM" in arguments
    parser = argparse.ArgumentParser(
        prog="vlact.papers.actionvlm.scaling",
        description=__doc__.split("\n\n")[0],
        parents=[profile],
    )
    parser.add_argument("truth", type=Path, help="ground truth in ActivityNet's layout (json)")
    parser.add_argument(
        "features", type=Path, help="safetensors, or a folder with one file a video"
    )
    parser.add_argument("out", type=Path, help="folder of the run")
    parser.add_argument("--subset", default="training", help="of the ground truth")
    parser.add_argument("--kind", default="ActionFormer", choices=[*KINDS, "ActionVLM"])
    parser.add_argument("--aligned", type=Path, help="of ActionVLM: folder of the alignment stage")
    parser.add_argument(
        "--descriptions", type=Path, help="of ActionVLM: json, class to description"
    )
    parser.add_argument(
        "--weight", default="eq1", help="of language: eq1, paired, learned, or a number"
    )
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
    options_of(
        parser,
        steps=0,
        batch_size=vlm.batch_size if reads else tal.batch_size,
        lr=tal.lr,
        weight_decay=tal.weight_decay,
        smoothing=0.0,
        ema=tal.ema,
    )
    given = parser.parse_args(arguments)
    from accelerate import Accelerator, DistributedDataParallelKwargs

    try:
        if given.accumulate > 1:
            raise ValueError(
                f"--accumulate {given.accumulate}: the loss counts positive points of whole "
                f"batches; expected 1"
            )
        truth = activitynet.ground_truth(given.truth, given.subset)
        found = features_of(given.features, list(truth["video"].unique()))
        (mean, std), clock = standard(found, found), Clock(given.step_s, given.offset_s)
        classes, everything = (
            sorted(truth["label"].unique()),
            activitynet.ground_truth(given.truth, None),
        )
        others = set(everything["video"]) - set(truth["video"])
        check_classes(everything, {"train": dict.fromkeys(found), "test": dict.fromkeys(others)})
        durations = {v: float(clock.seconds(len(x))) for v, x in found.items()}
        if "duration_s" in truth:
            durations |= truth.groupby("video")["duration_s"].first().dropna().to_dict()
        videos = sequences(
            {v: (x - mean) / std for v, x in found.items()}, durations, truth, classes, clock
        )
        checked(videos, tal.window, tal.levels, given.most_left_out)
        size = {"window": tal.window, "batch_size": given.batch_size}
        given.steps = given.steps or steps_of(
            videos, size, (vlm if given.kind == "ActionVLM" else tal).epochs
        )
        recipe = Recipe(**{f.name: getattr(given, f.name) for f in fields(Recipe)})
        torch.manual_seed(recipe.seed)  # the same start in every process
        shape = {
            k: getattr(tal, k) for k in ("dim", "heads", "embeds", "stems", "levels", "dropout")
        } | {"window": tal.attend}
        cut = (videos, tal.window, tal.levels, len(classes), tal.noise, recipe.seed)
        kind, config = KINDS.get(given.kind, KINDS["ActionFormer"])
        model = kind(config(feature_dim=len(mean), classes=len(classes), **shape))
        if given.kind == "ActionVLM":
            model, prompt, words = reasoner(model, given, classes, mean, std, vlm.rank)
            told = (words, classes, model.reach, steps_of(videos, size, 1), model.reader.most_words)
            windows = ToldWindows(*told, *cut)
            task = Reasoned(
                model, prompt, vlm.warm_epochs, tal.window, tal.reg_weight, recipe.smoothing
            )
            task.factors = {"lora_": vlm.lora_lr / tal.lr}  # whatever rate is asked for
        else:
            windows, task = Windows(*cut), Located(model, tal.reg_weight, recipe.smoothing)
        resting = DistributedDataParallelKwargs(
            find_unused_parameters=given.kind == "ActionVLM"
        )  # language does every other epoch
        accelerator = Accelerator(kwargs_handlers=[resting])
        curve = train(task, windows, recipe, given.out, accelerator, given.workers, given.stop)
    except (ValueError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        return 1
    if accelerator.is_main_process:
        if (whole := given.out / "model.safetensors").is_file():
            numbers = asdict(tal) | {
                "nms": {"sigma": tal.nms_sigma, "max_seg_num": tal.max_seg_num}
            }
            weights = {k: v for k, v in load_file(whole).items() if not k.startswith("means.")}
            model = files.fill(model.cpu(), weights, whole, tied)
            if given.kind == "ActionVLM":
                VisionLanguageLocalizer(model, classes, clock, numbers, mean, std, prompt).save(
                    given.out / "reasoner.safetensors"
                )
            else:
                Localizer(model, classes, clock, numbers, mean, std).save(
                    given.out / "localiser.safetensors"
                )
        print(f"{len(curve)} steps, loss {curve['loss'].iloc[-1]:.4f}; {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
