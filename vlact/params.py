"""params.yaml, read once and checked: every number of every profile, and where results go."""

import json
import re
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import yaml

from vlact import CHECKOUT, ROOT

# the checkout's own, else the copy that a wheel has
FILE = ROOT / "params.yaml" if CHECKOUT else Path(__file__).with_name("params.yaml")


NOTHING = "its numbers decide nothing. Published results: figures/study and figures/real."
SAYS = {  # of what a profile's numbers can say
    "smoke": f"tiny worlds, to show that everything runs; {NOTHING}",
    "mini": f"worlds at full size, two seeds; {NOTHING}",
    "study": "the published run on rendered worlds; levels are not comparable with the papers'.",
    "real": "the published run on real video, small sets and a frozen encoder.",
    "paper": "real datasets and checkpoints.",
}


class Record:
    """A section: pydantic takes nothing that it does not know, and no text for a number."""

    __pydantic_config__ = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class World(Record):
    """The rendered worlds, or the folder of real data that takes their place."""

    source: str  # "rendered" or "folder"
    seed: int
    size: int  # pixels, square
    fps: float
    tutorial_videos: int
    tutorial_steps: int  # narrated actions per video
    tutorial_step_s: float
    vlog_videos: int  # the same, filmed from the head
    steps: int  # actions per recording of the three datasets
    step_s: float
    colours: Literal["free", "own"]  # of things, see `vlact.worlds.things.Look`
    scale: float  # of things
    ata: dict  # arguments of `vlact.worlds.corpus.ata`, and so on
    ikea: dict
    gtea: dict


@dataclass(frozen=True)
class Model(Record):
    """Shape of the dual encoder, see `vlact.models.dual`."""

    image_size: int
    patch_size: int
    num_frames: int
    dim: int
    depth: int
    heads: int
    embed_dim: int
    text_dim: int
    pool: str
    motion_input: bool
    conv_stem: bool
    quick_gelu: bool = False
    text: str = ""


@dataclass(frozen=True)
class Pretrain(Record):
    """The pretraining ladder: CLIP on frames, labelled trunk, alignment with captions; and LaViLa's
    narrations.
    """

    frame_steps: int
    frame_batch_size: int
    frame_lr: float
    steps: int
    batch_size: int
    lr: float
    weight_decay: float
    object_weight: float
    align_clips: int  # training clips that the projections see
    align_steps: int
    align_batch_size: int
    align_lr: float
    align_noise: float  # share of captions that name another clip
    held_noise: float  # the same for the encoder that is told less (`novel`)
    vlog_steps: int
    # what the encoder that ACE starts from is told of the programs that are novel to one of its
    # datasets: labels and captions; captions alone; nothing (their clips stay, with the object)
    novel: Literal["labelled", "captioned", "unnamed"]
    more_seeds: list  # that ACE alone takes, beside the profile's
    # `frames` and `trunk`: published files in place of the first two rungs
    checkpoints: dict = field(default_factory=dict)

    @property
    def held_frames(self) -> bool:
        """Whether CLIP on frames is trained once more without the captions of `novel`."""
        return self.novel == "unnamed" and "frames" not in self.checkpoints


@dataclass(frozen=True)
class Ace(Record):
    """Fine-tuning and its grid."""

    tau: float
    batch_size: int
    momentum: float
    weight_decay: float
    trained_blocks: int  # last blocks of the video or image tower
    window_s: float
    views: int  # temporal clips per segment in evaluation
    lrs: list
    epochs: list
    grid_seeds: int  # the first so many, on which the whole grid is trained
    tunes: int  # fine-tunings of each pretraining seed, of the headline rows
    known_seeds: int  # the first so many, of the rows whose pretraining was told all names
    folds: bool  # whether rows of the tables take all folds with every seed, else one a seed
    text_blocks: int  # last blocks of the text trunk that ViFi-CLIP trains
    idle: bool  # ATA's idle class counts as a base action
    children: int  # most children that a tree node keeps, itself counted
    frames: int = 0  # of a clip; 0 for as many as the model has
    own: dict = field(default_factory=dict)  # dataset to what of these differs there

    def of(self, dataset: str) -> "Ace":
        """What holds for one dataset."""
        return replace(self, **self.own.get(dataset, {}), own={})


@dataclass(frozen=True)
class Stadium(Record):
    """The untrimmed world."""

    seed: int
    size: int
    fps: float
    train: int  # recordings of a class for each seed
    test: int
    seconds: float  # of a recording, at least
    drills: int  # recordings of no sport, for alignment
    drill_seconds: float
    session_test: int  # longer recordings, annotated as in ActivityNet
    session_seconds: float


@dataclass(frozen=True)
class Arena(Record):
    """The calibrated world; size and rate are the stadium's, see `vlact.worlds.arena`."""

    seed: int
    pairs: int  # chains that are two classes, one for each direction
    pool: int  # recordings of a class that seeds draw their training recordings from
    test: int  # recordings of a class
    bout_seconds: float  # of a recording, at least
    train: int  # recordings of a class that a seed trains on
    epochs: int  # on so many; with more recordings fewer, in as many steps
    seeds: int  # of vision alone and of priors
    literal_seeds: int  # of Eq. 5, language alone and the full method
    ablation_seeds: int  # of the others
    sweep: list  # recordings of a class, the scarcity that is swept over
    sweep_seeds: int
    pre_nms_topk: int
    max_seg_num: int


@dataclass(frozen=True)
class Kitchen(Record):
    """Untrimmed egocentric sequences; size, rate and seed are the world's."""

    seeds: int  # how many of the profile's
    train: int  # recordings for each seed
    test: int
    actions: int  # of a recording
    align_steps: int  # of language on narrations


@dataclass(frozen=True)
class Tal(Record):
    """Localizers: features in time, shape (see `vlact.models.actionformer`), training, NMS."""

    stride: int  # frames from one feature to the next
    window: int  # features
    dim: int
    heads: int
    embeds: int
    stems: int
    levels: int
    dropout: float
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    noise: float  # standard deviation, added to standardised features in training
    reg_weight: float
    ema: float  # highest decay of the moving average of weights
    pre_nms_topk: int  # candidates of a window and level
    nms_sigma: float
    max_seg_num: int
    attend: int = 0  # features that one attends to at most (odd), on every level; 0 for all
    # published shape and numbers in place of these, see `vlact.models.localizer_presets`
    preset: str = ""
    # localizers that stage `localizers` trains, of `vlact.papers.actionvlm.localizing.KINDS`, and
    # those that stage `encoders` trains on frames, of `vlact.models.wired.WIRED`
    kinds: list = field(default_factory=lambda: ["ActionFormer", "TriDet", "DyFADet"])


@dataclass(frozen=True)
class Align(Record):
    """The stadium's pose encoder, and the language model that reads what it sees, see
    `vlact.papers.actionvlm.alignment`.
    """

    # of each of its jobs, which run one after the other; 2 where nothing runs beside them
    threads: int
    pose_steps: int
    pose_batch_size: int  # frames
    pose_lr: float
    steps: int
    batch_size: int  # windows
    lr: float
    noise: float  # standard deviation, added to standardised features in training
    text_weight: float
    hidden: int
    layers: int
    heads: int
    lm_stride: int
    # of a second reader, see `vlact.papers.actionvlm.alignment.Drills`; the first is honest
    bias: float
    bias_steps: int  # that the second one takes from the first
    mirrored: bool  # whether language learns from drills seen in a mirror, too
    # share of held-out frames that must point to the right description before any result counts
    gate: float
    # of real videos: a published VideoMAE or InternVideo2, which sees them in place of the eye
    encoder: str = ""
    # a published language model's folder, in place of the one that learns from drills
    language: str = ""
    reach: int = 0  # steps that it reads at once


@dataclass(frozen=True)
class Vlm(Record):
    """ActionVLM, see `vlact.papers.actionvlm.experiments`; what is not here is as in `Tal`."""

    epochs: int  # half of them with language
    rank: int  # of LoRA
    warm_epochs: int  # with language, at a fixed weight
    batch_size: int  # windows; the paper has 1 on THUMOS14
    # of LoRA, and of an encoder that is trained: a twentieth of `Tal.lr`, as published
    lora_lr: float
    ablation_seeds: int  # of the rows that are no headline
    session_seeds: int  # of the longer recordings
    # features; a whole multiple of `Tal.window`, which the language model reads at once
    session_window: int


@dataclass(frozen=True)
class Synta(Record):
    """Syn-TA: 100 fine classes, each with so many ids in two camera styles."""

    seed: int
    size: int
    fps: float
    train_ids: int  # at most 30
    val_ids: int  # at most 20


@dataclass(frozen=True)
class Transfer(Record):
    """The motion-transfer benchmark, see `vlact.papers.transfer.benchmark`."""

    # kind to options of its class, and what of the recipe below is its own
    models: dict
    differences: dict  # those that are also shown differences between frames, to own options
    plain: list  # those that also learn coarse motions on plain backgrounds
    plain_fine: list  # and fine ones
    train_ids: int  # of the training ids that are there; clips of the others are held out
    clip_frames: int  # of a clip on disk, evenly spaced; a model may take fewer
    seeds: int  # the first so many, of coarse motions on realistic backgrounds
    few_seeds: int  # of the other rows
    # on rendered tutorials, of models whose option `pretrained` is a learning rate for it
    pretrain_epochs: float
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    smoothing: float  # of labels

    def epochs_of(self, options: dict) -> int:
        """Of a model, whose option `times` multiplies the profile's."""
        return max(1, round(options.get("epochs", self.epochs) * options.get("times", 1)))


@dataclass(frozen=True)
class Disentangle(Record):
    """Designs on EZ-CLIP, see `vlact.models.disentangled`; the arms stand in
    `vlact.stages.disentangle`.
    """

    seeds: int  # each with a pretrained encoder of its own
    frames: int  # T
    epochs: int
    lr: float
    fine: float  # weights of the terms
    decorrelate: float
    consistent: float
    adversary: float
    independent: float


@dataclass(frozen=True)
class Factors(Record):
    """One factor at a time from shared to new, see `vlact.worlds.factors`; names for motions."""

    train: int  # clips a fine class
    test: int  # clips a fine class and factor
    seeds: int  # the first so many
    kinds: list  # models of the benchmark
    epochs: int
    ace_seeds: int  # the first so many
    ace_epochs: int
    ace_lr: float


@dataclass(frozen=True)
class Across(Record):
    """Readers that are aligned on other wordings or text; what is not here is as in `Align`."""

    steps: int
    lm_stride: int
    seeds: int


@dataclass(frozen=True)
class Real(Record):
    """Real clips, see `vlact.papers.ace.real`; what is not here is as in `Ace`."""

    skip: bool  # leave out clips that are missing, cut or broken, and say so
    fps: float  # frames a second that the image encoder sees
    frames: int  # of a clip that methods see, evenly spaced
    align_seeds: int  # heads that are trained on captioned images
    align_lrs: list  # grid, chosen on its dev images
    align_epochs: int
    shuffles: int  # of the classes; each gives three partitions, every class novel in one of them
    seeds: int  # of training, the first so many
    lrs: list  # grid, chosen on base validation clips
    epochs: list
    batch_size: int


@dataclass(frozen=True)
class Params(Record):
    """One profile."""

    profile: str
    workspace: str
    workers: int  # processes of a stage
    parallel_stages: int  # stages that `make repro` runs at a time
    device: str  # where models are trained and run, see `vlact.runtime.device.choose`
    tracker: str  # of accelerate, where training is logged, see `vlact.training.trackers`; "": none
    seeds: list
    world: World
    model: Model
    pretrain: Pretrain
    ace: Ace
    stadium: Stadium
    arena: Arena
    kitchen: Kitchen
    tal: Tal
    align: Align
    vlm: Vlm
    synta: Synta
    transfer: Transfer
    disentangle: Disentangle
    factors: Factors
    across: Across
    real: Real

    @property
    def ace_seeds(self) -> list[int]:
        """Pretraining seeds of ACE's stages."""
        return list(dict.fromkeys([*self.seeds, *self.pretrain.more_seeds]))

    @property
    def data(self) -> Path:
        """Where stages leave data: `data/<workspace>`."""
        return ROOT / "data" / self.workspace

    @property
    def figures(self) -> Path:
        """Where tables and figures go, a folder a stage; `make publish` copies them."""
        return self.data / "figures"

    def results(self, stage: str) -> Path:
        """Where a stage leaves its tables and figures."""
        return self.figures / stage

    def metrics(self, stage: str) -> Path:
        """Where a stage leaves its headline numbers, for `dvc metrics`."""
        return self.data / "metrics" / f"{stage}.json"

    @property
    def scratch(self) -> Path:
        """Checkpoints and caches, never an output of a stage."""
        return ROOT / "data" / "tmp" / self.workspace


PROFILES = ("smoke", "mini", "study", "real", "paper")
SCRATCH = "scratch"  # workspace of a notebook that is opened by itself


def load(
    profile: str = "smoke",
    workspace: str | None = None,
    path: Path = FILE,
    **changes,
) -> Params:
    """Read one profile.

    Args:
        profile: "smoke", "mini", "study", "real" or "paper".
        workspace: Folder name under data/ for the results; the profile's name if not given.
        path: The yaml file.
        changes: `section__name=value` overrides, for example `ace__lrs=[0.01]`.

    Raises:
        ValueError: Unknown profile, unknown, missing or mistyped parameter; names file, line and
            parameter, and the near names.
    """
    from pydantic import TypeAdapter, ValidationError

    text = Path(path).read_text(encoding="utf-8")
    profiles = yaml.safe_load(text)["profiles"]
    if profile not in profiles:
        raise ValueError(f"{path}: {_unknown('profile', profile, profiles)}")
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in profiles[profile].items()}
    for name, value in changes.items():
        section, _, key = name.partition("__")
        target = values.get(section) if key else values
        if not isinstance(target, dict) or (key or section) not in target:
            raise ValueError(
                f"{name}: no such parameter; expected section__name "
                f"with a section of {sorted(k for k in values if isinstance(values[k], dict))}"
            )
        target[key or section] = value
    if values.pop("name", None) != profile:
        raise ValueError(f"{path}: profiles.{profile}.name must be {profile!r}")
    values |= {"profile": profile, "workspace": workspace or profile}
    try:
        return TypeAdapter(Params).validate_json(json.dumps(values))
    except ValidationError as error:
        said = []
        for wrong in error.errors():
            where = ("profiles", profile, *wrong["loc"])
            given = "__".join(wrong["loc"])
            place = given if given in changes else f"{path}, line {_line(text, where)}"
            said.append(f"{place}: {'.'.join(where)}: {_wrong(wrong)}")
        raise ValueError("; ".join(said)) from None


def _wrong(error: dict) -> str:
    """What pydantic found, in words."""
    *sections, key = error["loc"]
    if error["type"] == "missing":
        return "missing"
    if error["type"] == "unexpected_keyword_argument":
        kind = Params
        for name in sections:
            kind = kind.__annotations__[name]
        return _unknown("parameter", key, [f.name for f in fields(kind)])
    kind = error["type"].split("_")[0].replace("string", "str").replace("dataclass", "section")
    return f"expected {kind}, got {error['input']!r} ({type(error['input']).__name__})"


def _line(text: str, keys: tuple[str, ...]) -> int:
    """The line of params.yaml where a key stands, or of the section that lacks it."""

    def find(node: yaml.Node, key: str) -> tuple[yaml.Node, yaml.Node] | None:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        if own := [(k, v) for k, v in pairs if k.value == key]:
            return own[0]
        for k, v in pairs:  # a section may go on from others
            if k.tag == "tag:yaml.org,2002:merge":
                for other in v.value if isinstance(v, yaml.SequenceNode) else [v]:
                    if found := find(other, key):
                        return found
        return None

    node, line = yaml.compose(text), 1
    for key in keys:
        if not (found := find(node, key)):
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


WORDS = {"true": True, "yes": True, "false": False, "no": False}
SIMPLE = (str, int, float, bool, list, dict, type(None))


def of_notebook(given: dict, /, **kinds: type) -> dict:
    """A notebook's parameters as they are meant, whichever way papermill handed them over.

    `-r` hands over text: "False", "[1, 2]" and "null" mean what a person means. To be called before
    anything else is imported, as `globals().update(of_notebook(globals(), lr=float))`.

    Args:
        given: The notebook's names.
        kinds: The type of every parameter but `profile` and `workspace`.

    Returns:
        Every parameter in its type.

    Raises:
        ValueError: An unknown parameter, profile or workspace, or a value of another type; names
            all of them, and the near names.
    """
    kinds = {"profile": str, "workspace": str, **kinds}
    hidden = {"In", "Out", "exit", "quit"}
    names = {k for k, v in given.items() if isinstance(v, SIMPLE) and not k.startswith("_")}
    wrong = [_unknown("parameter", x, kinds) for x in sorted(names - set(kinds) - hidden)]
    out = {}
    for name, kind in kinds.items():
        try:
            out[name] = _meant(given[name], kind)
        except ValueError:
            wrong.append(f"{name}: expected {kind.__name__}, got {given[name]!r}")
    if out.get("profile", PROFILES[0]) not in PROFILES:
        wrong.append(_unknown("profile", out["profile"], PROFILES))
    wrong += _workspace(out.get("profile", ""), out.get("workspace", SCRATCH))
    if wrong:
        raise ValueError("; ".join(wrong))
    print(banner(out["profile"], out["workspace"]))  # noqa: T201  (a notebook shows it)
    return out


def banner(profile: str, workspace: str) -> str:
    """What stands on top of a notebook: which profile made what it shows, and what that can say."""
    return f"Run with profile {profile}, workspace {workspace}: {SAYS.get(profile, 'as given.')}"


def _unknown(what: str, name: str, known) -> str:
    near = get_close_matches(name, known, 1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}{hint}; expected one of {', '.join(sorted(known))}"


def _workspace(profile: str, name: str) -> list[str]:
    """What is wrong with a workspace's name, if anything."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        return [f"workspace: expected the name of a folder under data/, got {name!r}"]
    if name in (profile, SCRATCH):
        return []
    if name in PROFILES:
        return [f"workspace: {name!r} holds results of profile {name!r}, this is {profile!r}"]
    near = get_close_matches(name, (*PROFILES, SCRATCH), 1)
    if near and not (ROOT / "data" / name).is_dir():
        return [f"workspace: no such folder under data/: {name!r}; did you mean {near[0]!r}?"]
    return []


def _meant(value, kind: type):
    """A value in its type; text as a person means it.

    Raises:
        ValueError: It is of another type.
    """
    if isinstance(value, str) and kind is not str:
        text = value.strip()
        try:
            # yaml takes 1e-3 for text
            value = float(text) if kind is float else yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError from error
        value = WORDS.get(text.lower(), value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError
    return value
