"""Training and testing of ActionVLM: a localizer and a language model that take turns (Alg. 1), and
its variants.

Even epochs are vision-only, odd ones let language in; what differs between the rows of the tables
is a `Variant`. The weights of a variant can be tested under other conditions than it was trained
in: with language switched off, with the descriptions of other classes, with a weight of one's own.
"""

import zlib
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vlact.language.descriptions import NOTHING, SEPARATOR, random_text
from vlact.language.prompts import Prompt, language_of, prompt_of, targets
from vlact.losses.actionvlm import (
    ClassMeans,
    advantage,
    advantage_loss,
    frame_classes,
    frame_loss,
)
from vlact.losses.localization import assign, detection_loss, diou, focal, points
from vlact.models import files
from vlact.models.actionformer import LocalizerConfig
from vlact.models.actionvlm import (
    ActionVLM,
    Reader,
    ReaderConfig,
    Variant,
    in_half,
    language_weight,
    lora,
    make_reader,
    noise_of,
    refilled,
    told,
)
from vlact.papers.actionvlm.accounting import checked
from vlact.papers.actionvlm.localizing import (
    KINDS,
    POINTS,
    Clock,
    Localizer,
    Problem,
    Sequence,
    Windows,
    by_part,
    draw,
    name_of,
    slide,
    stack,
    starts,
    window,
)
from vlact.papers.actionvlm.saved import (
    classes_of,
    clock_of,
    prompt_in,
    recipe_of,
    shape_of,
    standard_of,
)
from vlact.runtime.device import beside, moved, put
from vlact.runtime.jobs import job_of, write_table
from vlact.training.loop import fit

ADVANTAGE_WEIGHT = 0.1  # lambda_adv of Eq. 9
RUNNING = 0.1  # share of a batch in the running number of positive points, as in ActionFormer
LEAST_STD = 1e-3  # of a feature that never changes
SHARPNESS = 3  # of a selector: standard deviations of advantage count so many times
ANSWER_DECAY = 0.01  # weight decay of readers that answer in text
TEXTS = ("names", "random text", "noise")  # what language may read by a name
ASKED = 32  # windows that are answered at once
KIND = "actionvlm"  # how files call a trained one
USUAL = "ActionFormer"  # the localizer of ActionVLM, where a recipe's `localizer` names no other
NOTE = {  # what the header of such a file holds
    "head": str,
    "localizer": dict,
    "reader": dict,
    "variant": dict,
    "reach": int,
    "classes": list[str],
    "clock": dict,
    "recipe": dict,
    "weight": float | None,
    "rank": int,
}


def built_of(config: LocalizerConfig) -> torch.nn.Module:
    """The localizer of which this is the shape."""
    return next(kind for kind, shape in KINDS.values() if shape is type(config))(config)


def frame_losses(
    logits: Tensor, distances: Tensor, wanted: list[tuple], at, classes: int, length: int
) -> tuple[Tensor, Tensor]:
    """Loss and class of every frame of a batch, both (B, T); `wanted` holds segments, labels and
    `assign`'s three of each row.
    """
    losses, labels = [], []
    for one, far, (segments, kinds, target, offset, owner) in zip(
        logits, distances, wanted, strict=True
    ):
        positive = owner >= 0
        if far.ndim == 3:  # of every class, as TriDet has them
            own = kinds[owner.clamp(min=0)] if len(kinds) else torch.zeros_like(owner)
            far = far[torch.arange(len(far), device=far.device), own]
        each = focal(one, target).sum(-1)
        each = each + torch.zeros_like(each).masked_scatter(
            positive, diou(far[positive], offset[positive])
        )
        label, mine = frame_classes(segments, kinds, length, classes)
        losses.append(frame_loss(each, owner, mine, at))
        labels.append(label)
    return torch.stack(losses), torch.stack(labels)


def answers(cut: list[tuple], names: list[str], reach: int) -> list[str]:
    """The actions of windows as text, one for every part of `reach` steps: what of them lies in it,
    a step or more.
    """
    out = []
    for x, _, segments, labels in cut:
        for first in range(0, len(x), reach):
            part = (segments - first).clamp(0, reach)
            inside = part[:, 1] - part[:, 0] >= 1
            rows = sorted(
                zip(part[inside].round().long().tolist(), labels[inside].tolist(), strict=True)
            )
            out.append(SEPARATOR.join(f"{names[k]} {a} {b}" for (a, b), k in rows) or NOTHING)
    return out


@dataclass
class Setting:
    """What all variants of a seed share.

    Attributes:
        train: Standardised training videos.
        prompt: Of all classes, one row; `bare` the same without descriptions.
        words: Tokenizer.
        classes: Names.
        config: Of the localizer.
        recipe: `Tal` and `Vlm` as one dict.
        reach: See `ActionVLM`.
        mean, std: Of the standardisation.
    """

    train: list[Sequence]
    prompt: Prompt
    bare: Prompt
    words: object
    classes: list[str]
    config: LocalizerConfig
    recipe: dict
    reach: int
    mean: Tensor
    std: Tensor


def train(
    setting: Setting, variant: Variant, aligned: str, seed: int, checkpoint: str | None = None
) -> tuple[ActionVLM, list[dict]]:
    """Train one variant; `aligned` is the folder of the alignment stage.

    Returns:
        The model with averaged weights, in evaluation mode, and the curve.
    """
    recipe, config = setting.recipe, setting.config
    torch.manual_seed(seed)
    generator, at = torch.Generator().manual_seed(seed), points(recipe["window"], config.levels)
    localizer = built_of(config)
    torch.manual_seed(seed)
    reads = variant.reads and not variant.frozen
    language = make_reader(aligned, variant, recipe["rank"]) if reads else None
    model = put(ActionVLM(localizer, language, setting.mean, setting.std, variant, setting.reach))
    checked(setting.train, recipe["window"], config.levels)
    windows = Windows(setting.train, recipe["window"], recipe["batch_size"], seed)
    steps = windows.steps * max(1, round(variant.epochs * recipe["epochs"]))
    means = put(ClassMeans(config.classes))
    prompt = beside(model, setting.prompt if variant.described else setting.bare) if reads else None
    over = beside(model, at)
    measured = variant.weight in ("eq1", "paired")

    def loss_of(step: int) -> Tensor:
        epoch = step // windows.steps
        if step % windows.steps == 0:
            if not variant.repaired:
                means.mean.fill_(torch.nan)
            means.close()

        # windows of videos, and what every point of theirs is to find
        batch = recipe["batch_size"], recipe["window"], generator
        cut = windows(step) if variant.repaired else draw(setting.train, *batch)
        x, mask = stack(cut)
        x, heard = told(x, config.feature_dim) if variant.frozen else (x, None)
        x = x + recipe["noise"] * torch.randn(x.shape, generator=generator)
        # dropped paths come from the global state
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        wanted = [(s, k, *assign(at, s, k, config.classes)) for *_, s, k in cut]
        x, mask, wanted, heard = beside(model, (x, mask, wanted, heard))
        target, offset = torch.stack([w[2] for w in wanted]), torch.stack([w[3] for w in wanted])

        # language takes part in odd epochs (Alg. 1), without vision in all
        odd = epoch % 2 == 1 or not variant.vision
        language = variant.reads and variant.joint and odd
        said = weight = None
        if language and variant.frozen:
            said, weight = heard, mask * float(variant.weight)
        elif language:
            text = (
                targets(setting.words, answers(cut, setting.classes, setting.reach))
                if variant.text_weight
                else None
            )
            said = model.read(x, mask, prompt, beside(model, text))
            said = noise_of(said, generator) if variant.lm == "noise" else said
            weight = model.weight(said, warm=epoch < 2 * recipe["warm_epochs"])

        # the detection loss, L_det of Eq. 9
        logits, distances, valid = model.detect(x, mask, said, weight)
        localizer.positives.lerp_(((target.sum(-1) > 0) & valid).sum().float(), RUNNING)
        many, power = localizer.positives.clamp(min=1), getattr(config, "iou_power", 0.0)
        given = logits, distances, target, offset, valid, many, 0.0, power, config.by_class
        found = detection_loss(*given)
        loss = found["cls"] + recipe["reg_weight"] * found["reg"]

        # L_adv: vision epochs measure the mean of each class, language epochs compare with it
        if measured:
            each, label = frame_losses(
                logits.detach(), distances.detach(), wanted, over, config.classes, recipe["window"]
            )
            if not language:
                means.add(each[mask], label[mask])
            else:
                if variant.weight == "eq1":
                    gain = advantage(means.mean, label, each)
                else:
                    with torch.no_grad():
                        without, _ = frame_losses(
                            *model.detect(x, mask, None, None)[:2],
                            wanted,
                            over,
                            config.classes,
                            recipe["window"],
                        )
                    gain = without - each
                loss = loss + ADVANTAGE_WEIGHT * advantage_loss(said["advantage"], gain, mask)

        # L_tg, the text
        if language and reads and variant.text_weight:
            loss = loss + variant.text_weight * said["text_loss"]
        return loss

    modules, given = (
        {"model": model, "means": means},
        (recipe["lr"], recipe["weight_decay"], generator, variant.name, checkpoint),
    )
    options = partial(by_part, recipe | {"slow_lr": recipe.get("lora_lr")})
    curve = fit(modules, loss_of, steps, *given, ema=recipe["ema"], options=options)
    return model.eval(), curve


# Which frames language helps: learnt on recordings that the model was not trained on
def certainty(logits: Tensor, at, length: int) -> Tensor:
    """The greatest probability of each class at any level's point over a frame: (B, P, C) to (B, T,
    C).
    """
    over = [
        logits[:, at.stride == s].sigmoid().repeat_interleave(int(s), 1)[:, :length]
        for s in at.stride.unique()
    ]
    return torch.stack(over).amax(0)


def signals(model: ActionVLM, x: Tensor, mask: Tensor, said: dict[str, Tensor], at) -> Tensor:
    """Fifteen numbers that say how sure vision, language at full weight and the pointer are, and
    whether they agree (B, T, 15).

    They mean the same in models of different folds, which hidden states do not.
    """
    length, stride = x.shape[1], model.reader.branch.config.lm_stride
    alone = certainty(model.detect(x, mask, None, None)[0], at, length)
    full = certainty(model.detect(x, mask, said, torch.ones_like(said["advantage"]))[0], at, length)
    pointer = said["pointer"].softmax(-1)[..., :-1].repeat_interleave(stride, 1)[:, :length]
    pointer = pointer[..., : alone.shape[-1]]
    entropy = -(pointer * pointer.clamp(min=1e-6).log()).sum(-1)
    tops = [p.topk(2, -1).values.unbind(-1) for p in (alone, full, pointer)]
    best = [p.argmax(-1) for p in (alone, full, pointer)]
    pairs = [(alone * pointer).sum(-1), (full * pointer).sum(-1), (alone * full).sum(-1)]
    agree = [(best[a] == best[b]).float() for a, b in ((0, 1), (0, 2), (1, 2))]
    more = [tops[0][0] * tops[2][0], tops[1][0] * tops[2][0]]
    return torch.stack([*(x for pair in tops for x in pair), entropy, *pairs, *agree, *more], -1)


@dataclass
class Selector:
    """Advantage of a frame from its signals, by ridge regression, and the weight that it earns.

    Attributes:
        mean, std: Of the signals (15,).
        slope: (15,). offset: scalar. scale: standard deviation of the advantages that it was fitted
            to.
    """

    mean: Tensor
    std: Tensor
    slope: Tensor
    offset: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, x: Tensor, gain: Tensor, ridge: float = 0.01) -> "Selector":
        """Least squares on standardised signals (N, 15) with a penalty of `ridge` N on the squared
        slope; gains (N,).
        """
        mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
        z = ((x - mean) / std).double()
        system = z.T @ z + ridge * len(z) * torch.eye(z.shape[1], dtype=torch.double)
        slope = torch.linalg.solve(system, z.T @ (gain - gain.mean()).double()).float()
        return cls(mean, std, slope, gain.mean(), gain.std().clamp(min=1e-9))

    def __call__(self, x: Tensor) -> Tensor:
        """lambda = 2 sigmoid(ReLU(3 Â / scale)) - 1 of signals (.., 15)."""
        mean, std, slope, offset, scale = moved(
            (self.mean, self.std, self.slope, self.offset, self.scale), x.device
        )
        return language_weight(SHARPNESS * ((x - mean) / std @ slope + offset) / scale)


def noise_at(said: dict[str, Tensor], first: tuple[str, int]) -> dict[str, Tensor]:
    """Noise for what was said (see `noise_of`) of the windows that begin with `first`, the same
    whenever they are read.
    """
    seed = zlib.crc32("{} {}".format(*first).encode())
    return noise_of(said, torch.Generator().manual_seed(seed))


@torch.inference_mode()
def gains_of(
    model: ActionVLM, prompt: Prompt, videos: list[Sequence], recipe: dict, noise: bool = False
) -> tuple[Tensor, Tensor]:
    """Signals (N, 15) and paired advantages L(0) - L(1) (N,) of all frames of videos that the model
    was not trained on; with `noise` in the place of what language says.
    """
    length = recipe["window"]
    at, xs, gains, prompt = (
        beside(model, points(length, model.config.levels)),
        [],
        [],
        beside(model, prompt),
    )
    for where, cut in slide(videos, length, 0.0):
        cut = beside(model, cut)
        x, mask = stack(cut)
        wanted = [(s, k, *assign(at, s, k, model.config.classes)) for *_, s, k in cut]
        said = model.read(x, mask, prompt)
        if noise or model.variant.lm == "noise":
            said = noise_at(said, where[0])
        alone, full = (
            frame_losses(
                *model.detect(x, mask, *given)[:2], wanted, at, model.config.classes, length
            )[0]
            for given in ((None, None), (said, torch.ones_like(said["advantage"])))
        )
        xs.append(signals(model, x, mask, said, at)[mask].cpu())
        gains.append((alone - full)[mask].cpu())
    return torch.cat(xs), torch.cat(gains)


def cross_fit(
    setting: Setting, variant: Variant, aligned: str, seed: int, checkpoint: str
) -> Selector:
    """Advantages measured where they generalise: each fold's recordings by a model that was trained
    on the others.
    """
    found = []
    for k in range(variant.folds):
        mine, rest = (
            setting.train[k :: variant.folds],
            [x for i, x in enumerate(setting.train) if i % variant.folds != k],
        )
        model, _ = train(replace(setting, train=rest), variant, aligned, seed, f"{checkpoint}-{k}")
        found.append(gains_of(model, setting.prompt, mine, setting.recipe))
    return Selector.fit(*(torch.cat(x) for x in zip(*found, strict=True)))


@dataclass
class VisionLanguageLocalizer(Localizer):
    """A trained ActionVLM under given conditions.

    Attributes:
        prompt: What it reads; None switches language off.
        weight: Replaces the model's own lambda: a number or a `Selector`.
        noise: Whether Gaussian noise stands for what language says, see `noise_at`.
        heard: What language said, by what comes first in a group of windows; copies that read the
            same share it.
    """

    prompt: Prompt | None = None
    weight: float | Selector | None = None
    noise: bool = False
    heard: dict[tuple[str, int], dict[str, Tensor]] = field(default_factory=dict)

    def run(
        self, first: tuple[str, int], cut: list[tuple[Tensor, Tensor, Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        model, cut = self.model, beside(self.model, cut)
        x, mask = stack(cut)
        if self.prompt is None:
            return model.detect(x, mask, None, None)
        if (said := self.heard.get(first)) is None:
            said = self.heard[first] = model.read(x, mask, beside(model, self.prompt))
        if self.noise or model.variant.lm == "noise":
            said = noise_at(said, first)
        if self.weight is None:
            weight = model.weight(said)
        elif isinstance(self.weight, Selector):
            at = beside(model, points(x.shape[1], model.config.levels))
            weight = self.weight(signals(model, x, mask, said, at))
        else:
            weight = torch.full_like(said["advantage"], self.weight)
        return model.detect(x, mask, said, weight)

    def save(self, path: str | Path) -> None:
        """Weights, prompt and all else as one safetensors file; of `weight` a number only."""
        model, adapters = self.model, getattr(self.model.reader.branch.lm, "peft_config", None)
        parts = {
            "localizer": model.localizer.state_dict(),
            "reader": {
                k: v for k, v in model.reader.state_dict().items() if not model.reader.elsewhere(k)
            },
            "prompt": vars(self.prompt),
            "standard": {"mean": self.mean, "std": self.std},
        }
        note = {
            "head": name_of(model.localizer),
            "localizer": asdict(model.config),
            "reader": asdict(model.reader.config),
            "variant": asdict(model.variant),
            "reach": model.reach,
            "classes": self.classes,
            "clock": asdict(self.clock),
            "recipe": self.recipe,
            "weight": self.weight,
            "rank": adapters["default"].r if adapters else 0,  # of LoRA
        }
        state = {f"{part}.{k}": v for part, found in parts.items() for k, v in found.items()}
        files.save(path, KIND, note, state)

    @classmethod
    def load(cls, path: str | Path) -> "VisionLanguageLocalizer":
        """Read what `save` wrote.

        Raises:
            ValueError: Another file, one whose weights do not fit its shape, or one whose language
                model lies elsewhere, see `vlact.models.files.inside`.
        """
        note, state = files.read(path, KIND)
        note = files.checked(note, NOTE, path, KIND, ("head",))
        head = note.get("head", USUAL)  # of the first version
        if head not in POINTS:
            raise ValueError(f"{path}: head: expected one of {POINTS}; got {head!r}")
        parts = {k: {} for k in ("localizer", "reader", "prompt", "standard")}
        for key, value in state.items():
            part, _, name = key.partition(".")
            if part not in parts:
                raise ValueError(f"{path}: expected weights of {sorted(parts)}; got {key!r}")
            parts[part][name] = value

        # the reader, with LoRA where it was trained with it
        variant = files.config_of(Variant, note["variant"], path)
        shape = files.config_of(ReaderConfig, note["reader"], path)
        files.inside(shape.lm, path, "lm")
        rank = note["rank"]
        if not 0 <= rank <= files.WIDTH:
            raise ValueError(f"{path}: rank must be in 0..{files.WIDTH}; got {rank}")
        reader = refilled(
            lambda: lora(Reader(shape), rank) if rank else Reader(shape),
            shape.lm,
            parts["reader"],
            path,
        )
        reader.branch.config = replace(reader.branch.config, read_from=variant.read_from)

        # the localizer, and both together
        config = shape_of(KINDS[head][1], note["localizer"], path)
        localizer = files.built(lambda: built_of(config), parts["localizer"], path)
        mean, std = standard_of(parts["standard"], config.feature_dim, path)
        recipe = recipe_of(note["recipe"], path)
        if not 1 <= note["reach"] <= recipe["window"] or recipe["window"] % note["reach"]:
            raise ValueError(
                f"{path}: reach must divide the window of {recipe['window']} steps; got "
                f"{note['reach']}"
            )
        model = ActionVLM(localizer, reader, mean, std, variant, note["reach"]).eval()

        return cls(
            model,
            classes_of(note["classes"], config.classes, path),
            clock_of(Clock, note["clock"], path),
            recipe,
            mean,
            std,
            prompt_in(parts["prompt"], shape.vocabulary, shape.clause_dim, path),
            note["weight"],
        )


def held_out(
    plain: VisionLanguageLocalizer,
    test: list[Sequence],
    features: dict[str, Tensor],
    durations: dict[str, float],
    noise: bool,
) -> pd.DataFrame:
    """Headroom without leakage: what a selector finds that has seen labels of test recordings, but
    never of those that it is tested on.

    Every other recording tells it where language helps, and it chooses on the rest; then the other
    way round. With `noise` in the place of language whatever it gains is not language's.

    Returns:
        Detections with the condition "held out" or "held out, noise".
    """
    out, mine = [], replace(plain, noise=noise)
    for k in range(2):
        seen, asked = test[1 - k :: 2], [x.name for x in test[k::2]]
        if not seen or not asked:
            raise ValueError(f"expected two test recordings or more; got {len(test)}")
        gains = gains_of(plain.model, plain.prompt, seen, plain.recipe, noise)
        chooser = replace(mine, weight=Selector.fit(*gains), heard={})
        out.append(chooser.detect(features, {v: durations[v] for v in asked}))
    return pd.concat(out).assign(condition="held out, noise" if noise else "held out")


@torch.inference_mode()
def frames_of(
    model: ActionVLM,
    prompt: Prompt,
    test: list[Sequence],
    recipe: dict,
    selector: Selector | None = None,
) -> pd.DataFrame:
    """One row a frame of the test videos, windows side by side.

    Returns:
        `video`, `step`, `label` (class number, C for background), `weight` (lambda), `predicted`
        (Â), `gain`, the paired advantage L(0) - L(lambda) at the same weights, `loss`, L(lambda),
        `pointer`, the candidate pointed at, K for none, and with a selector `selected`, its lambda.
    """
    config, length, prompt = model.config, recipe["window"], beside(model, prompt)
    at, rows, stride = (
        beside(model, points(length, config.levels)),
        [],
        model.reader.branch.config.lm_stride,
    )
    for where, cut in slide(test, length, 0.0):
        cut = beside(model, cut)
        wanted = [(s, k, *assign(at, s, k, config.classes)) for *_, s, k in cut]
        x, mask = stack(cut)
        said = model.read(x, mask, prompt)
        if model.variant.lm == "noise":
            said = noise_at(said, where[0])
        own = model.weight(said)
        with_, label = frame_losses(
            *model.detect(x, mask, said, own)[:2], wanted, at, config.classes, length
        )
        without, _ = frame_losses(
            *model.detect(x, mask, None, None)[:2], wanted, at, config.classes, length
        )
        pointed = said["pointer"].argmax(-1).repeat_interleave(stride, 1)[:, :length]
        columns = {
            "label": label,
            "weight": own,
            "predicted": said["advantage"],
            "gain": without - with_,
            "loss": with_,
            "pointer": pointed,
        }
        if selector:
            columns["selected"] = selector(signals(model, x, mask, said, at))
        columns, mask = {k: v.cpu() for k, v in columns.items()}, mask.cpu()
        step = torch.tensor([s for _, s in where])[:, None] + torch.arange(length)
        name = np.repeat([v for v, _ in where], mask.sum(1).numpy())
        rows.append(
            pd.DataFrame(
                {"video": name, "step": step[mask].numpy()}
                | {k: v[mask].numpy() for k, v in columns.items()}
            )
        )
    return pd.concat(rows, ignore_index=True).drop_duplicates(["video", "step"])


def prepare(
    problem: Problem, aligned: str
) -> tuple[Setting, list[Sequence], dict[str, Tensor], dict[str, Tensor]]:
    """What the jobs below start from: setting, test videos, features by video as they are, features
    of clauses.
    """
    found, *moments = problem.read()
    names, recipe = list(problem.classes), problem.recipe
    words, reach, said = language_of(aligned)
    prompt, bare = (
        prompt_of(words, names, list(problem.classes.values()), said, x) for x in (True, False)
    )
    config = KINDS[recipe.get("localizer", USUAL)][1](**problem.config)
    mine, test = (problem.sequences(part, found, *moments) for part in ("train", "test"))
    setting = Setting(mine, prompt, bare, words, names, config, recipe, reach, *moments)
    return setting, test, found, said


def vision_language_job(
    variant: Variant,
    problem: Problem,
    aligned: str,
    conditions: dict[str, list[int] | float | str | None],
    seed: int,
    out: str,
    checkpoint: str,
    weights: str = "",
) -> list[dict]:
    """Train one variant and test it under several conditions.

    Args:
        variant: What to train.
        problem: Its classes go to descriptions.
        aligned: Folder of the alignment stage.
        conditions: Name to what language reads: a list, which class's description stands with each
            name; a number, the weight that replaces the model's own; "names" only, "random text",
            or "noise" in the place of what it says; None switches language off. "own" is always
            tested.
        seed, checkpoint: See `vlact.papers.actionvlm.localizing.localize_job`.
        out: Detections go to `out`.parquet with the column `condition`, what `frames_of` returns to
            `out`-frames.parquet, see `Variant.watched`.
        weights: Where to leave the trained model, if anywhere; see `VisionLanguageLocalizer.save`.

    Returns:
        The curve.
    """
    setting, test, found, said = prepare(problem, aligned)
    recipe, seconds, texts = problem.recipe, problem.durations["test"], [*problem.classes.values()]
    model, curve = train(setting, variant, aligned, seed, checkpoint)
    own = (setting.prompt if variant.described else setting.bare) if variant.reads else None
    given = setting.classes, problem.time, recipe, setting.mean, setting.std
    plain = VisionLanguageLocalizer(model, *given, own)
    if weights:
        plain.save(weights)

    def reading(texts: list[str]) -> VisionLanguageLocalizer:
        other = prompt_of(setting.words, setting.classes, texts, said)
        return replace(plain, prompt=other, heard={})

    tested = {"own": plain}
    for name, asked in conditions.items() if variant.reads else ():
        match asked:
            case None:
                tested[name] = replace(plain, prompt=None)
            case list():
                tested[name] = reading([texts[i] for i in asked])
            case "names":
                tested[name] = replace(plain, prompt=setting.bare, heard={})
            case "random text":
                tested[name] = reading(random_text(len(texts), seed))
            case "noise":
                tested[name] = replace(plain, noise=True)
            case str():
                raise ValueError(f"{name}: expected one of {TEXTS}; got {asked!r}")
            case _:
                tested[name] = replace(plain, weight=asked)
    # a weight that is chosen by cross-fitting stands beside a constant one
    if variant.folds:
        chosen = replace(plain, weight=cross_fit(setting, variant, aligned, seed, checkpoint))
        tested |= {"λ = 0.4": replace(plain, weight=0.4), "selective": chosen}
        for name, one in (("selective", chosen), ("λ = 0.4", tested["λ = 0.4"])):
            tested |= {
                f"{name}, {k}": replace(one, prompt=x.prompt, heard=x.heard)
                for k, x in tested.items()
                if k.startswith("deranged")
            }

    # every condition finds its own detections, with the same weights
    detections = [x.detect(found, seconds).assign(condition=name) for name, x in tested.items()]
    if variant.folds and len(test) > 1:  # halves
        detections += [held_out(plain, test, found, seconds, noise) for noise in (False, True)]
    detections = pd.concat(detections, ignore_index=True).assign(model=variant.name, seed=seed)
    if variant.watched(conditions):
        frames = frames_of(model, own, test, recipe, chosen.weight if variant.folds else None)
        write_table(f"{out}-frames.parquet", frames.assign(model=variant.name, seed=seed))
    write_table(f"{out}.parquet", detections)
    return curve


def answer_job(
    problem: Problem,
    aligned: str,
    orders: dict[str, list[int]],
    seed: int,
    out: str,
    checkpoint: str,
) -> list[dict]:
    """Localization as question answering (VTimeLLM, TimeMarker): the whole reader learns to write
    the actions of a window.

    Args:
        orders: Name to which class's description stands with each name; "own" is always tested.
        out: Answers go to `out`.parquet: `video, start` (first step of the window), `condition,
            text, ended`.
        problem, aligned, seed, checkpoint: See `vision_language_job`.

    Returns:
        The curve.
    """
    setting, test, _, said = prepare(problem, aligned)
    recipe, words = problem.recipe, setting.words
    torch.manual_seed(seed)
    reader, generator = (
        Reader.load(f"{aligned}/reader.safetensors"),
        torch.Generator().manual_seed(seed),
    )
    reader = put(lora(reader, recipe["rank"]) if reader.config.lm else reader)
    whole, mean, std = beside(reader, (setting.prompt, setting.mean, setting.std))
    length, most = recipe["window"], reader.most_words
    windows = Windows(setting.train, length, recipe["batch_size"], seed)

    def loss_of(step: int) -> Tensor:
        cut = windows(step)
        x, mask = stack(cut)
        x = x + recipe["noise"] * torch.randn(x.shape, generator=generator)
        text = targets(words, answers(cut, setting.classes, length))
        x, mask, text = beside(reader, (x, mask, text))
        with in_half(reader):
            raw = (x * std + mean) * mask[..., None]
            return reader(raw, mask, whole.expand(len(x)), text)["text_loss"]

    steps = windows.steps * max(1, round(recipe["epochs"]))
    given = recipe["lr"], ANSWER_DECAY, generator, "answers", checkpoint
    curve = fit({"reader": reader}, loss_of, steps, *given)
    reader.eval()
    texts, rows = list(problem.classes.values()), []
    where = [
        (one.name, s, *window(one, s, length)[:2])
        for one in test
        for s in starts(len(one.features), length, 0.0)
    ]
    for name, order in ({"own": list(range(len(texts)))} | orders).items():
        told = prompt_of(words, setting.classes, [texts[i] for i in order], said)
        prompt = beside(reader, told)
        for k in range(0, len(where), ASKED):
            part = where[k : k + ASKED]
            cut = torch.stack([w[2] for w in part]), torch.stack([w[3] for w in part])
            x, mask = beside(reader, cut)
            raw, asked = (x * std + mean) * mask[..., None], prompt.expand(len(part))
            with torch.inference_mode():
                read = raw, mask, reader.embed(asked), asked.mask
                written = reader.branch.generate(*read, words.eos_token_id, most)
            for (video, start, *_), ids in zip(part, written, strict=True):
                row = {"video": video, "start": start, "condition": name}
                rows.append(row | {"text": words.decode(ids), "ended": len(ids) < most})
    write_table(f"{out}.parquet", pd.DataFrame(rows).assign(seed=seed))
    return curve


VisionLanguageJob = job_of(vision_language_job, tracked=True)
AnswerJob = job_of(answer_job, tracked=True)
