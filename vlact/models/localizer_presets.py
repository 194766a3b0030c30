"""Shapes and numbers of localizers by data set, as their authors' configurations have them: what
training, detection and checkpoints of every command and job take them from.

ActionFormer (ECCV 2022): happyharrycn/actionformer_release, commit 61ea7eb. TriDet (CVPR 2023):
dingfengshi/TriDet, commit 764b816. DyFADet (ECCV 2024): yangle15/DyFADet-pytorch, commit f645caf.
AdaTAD (CVPR 2024): sming256/OpenTAD, commit 3dd7b03. Not here: configurations that concatenate
several features (Ego4D), HACS, FineAction, and AdaTAD beyond THUMOS14.
"""

from dataclasses import asdict, dataclass, replace

from vlact.models.actionformer import LocalizerConfig
from vlact.models.adatad import AdaTADConfig, TowerConfig
from vlact.models.dyfadet import DyFADetConfig
from vlact.models.tridet import TriDetConfig

EPIC = ((0, 4), (2, 8), (4, 16), (8, 32), (16, 64), (32, 10000))  # levels overlap
WIDTHS = {"official": True, "dropout": 0.1, "levels": 6, "heads": 4}
THUMOS_TEST = {"pre_nms_topk": 2000, "nms": {"sigma": 0.5, "max_seg_num": 200, "min_score": 0.001}}
EPIC_TEST = {"pre_nms_topk": 5000, "nms": {"sigma": 0.4, "max_seg_num": 2000, "min_score": 0.001}}


# windows half a window apart meet in seconds of two digits, scores have four
OPENTAD_TEST = {
    "whole": False,
    "overlap": 0.5,
    "pre_nms_topk": 2000,
    "by_level": False,
    "digits": (2, 4),
    "nms": {"sigma": 0.7, "max_seg_num": 2000, "min_score": 0.0},
}


def _one_class(voting: float, sigma: float, most: int) -> dict:
    """ActivityNet: classes are an external classifier's, segments of all of them meet and vote."""
    nms = {"sigma": sigma, "max_seg_num": most, "min_score": 0.001, "multiclass": False}
    return {"pre_nms_topk": 2000, "nms": nms | {"voting_threshold": voting}}


@dataclass(frozen=True)
class Training:
    """Numbers of training.

    Attributes:
        epochs: In all; one is as many windows as there are videos.
        batch_size: Windows.
        lr, weight_decay: Of AdamW; only weights of convolutions and linear maps decay.
        positives: M at first.
        warmup_epochs: Of `epochs`, in which the rate rises.
        clip: Norm of the gradient.
        noise: Standard deviation, added to features.
        smoothing: Of labels.
        reg_weight: Of the second loss.
        ema: Decay of the moving average of weights, from the first step on.
        adapter_lr: Of AdaTAD's adapters, 0 for `lr`.
        inside: Share of an action that a window must hold.
        least: Share of the rate that is left at the end.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    positives: float
    warmup_epochs: int = 5
    clip: float = 1.0
    noise: float = 0.0
    smoothing: float = 0.0
    reg_weight: float = 1.0
    ema: float = 0.999
    adapter_lr: float = 0.0
    inside: float = 0.5
    least: float = 0.0

    @property
    def recipe(self) -> dict:
        """As `vlact.papers.actionvlm.localizing.train` takes it."""
        out = asdict(self)
        warmup = out.pop("warmup_epochs") / self.epochs
        return out | {"warmup": warmup, "by_video": True, "spared": True, "rising": False}


@dataclass(frozen=True)
class Preset:
    """A published configuration.

    Attributes:
        config: Shape.
        window: Steps in training, and at test at the least.
        feat_stride, num_frames, fps: Of the features, see `vlact.datasets.features.grid`; fps 0 is
            each video's own.
        training: Numbers of training.
        test: What differs at test from `recipe`'s whole videos: NMS, candidates before it.
        rescaled: Whether each video's features are stretched to `window` steps.
        min_steps: Steps that a segment must be longer than.
        image_size: Pixels of frames, where these are seen in place of features.
    """

    config: LocalizerConfig | AdaTADConfig
    window: int
    feat_stride: int
    num_frames: int
    training: Training
    test: dict
    fps: float = 0.0
    rescaled: bool = False
    min_steps: float | None = 0.05
    image_size: int = 0

    @property
    def recipe(self) -> dict:
        """As `vlact.papers.actionvlm.localizing.Localizer` takes it, training's numbers with it."""
        test = {"window": self.window, "whole": True, "min_steps": self.min_steps}
        return self.training.recipe | test | self.test


def _training(epochs, batch_size, lr, weight_decay, positives, **more) -> Training:
    """`epochs` are those after the rate has risen, as the authors of ActionFormer count."""
    epochs += more.get("warmup_epochs", Training.warmup_epochs)
    return Training(epochs, batch_size, lr, weight_decay, positives, **more)


def _actionformer(feature_dim: int, classes: int, dim: int = 512, **more) -> LocalizerConfig:
    return LocalizerConfig(feature_dim, classes, dim=dim, **WIDTHS, **more)


def _tridet(feature_dim: int, classes: int, dim: int = 512, **more) -> TriDetConfig:
    return TriDetConfig(feature_dim, classes, dim=dim, **WIDTHS, **more)


def _dyfadet(feature_dim: int, classes: int, dim: int = 512, **more) -> DyFADetConfig:
    return DyFADetConfig(feature_dim, classes, dim=dim, **WIDTHS, **more)


def _epic(
    config: LocalizerConfig, epochs: int, smoothing: float, lr: float = 1e-4, **more
) -> Preset:
    numbers = _training(epochs, 2, lr, 0.05, 250, smoothing=smoothing, inside=0.3, **more)
    return Preset(config, 2304, 16, 32, numbers, EPIC_TEST, fps=30)


def _adatad(tower: TowerConfig, adapter_lr: float = 1e-4) -> Preset:
    """Every fourth frame of THUMOS14 in windows of 768, half a window apart."""
    config = AdaTADConfig(_actionformer(tower.dim, 20, opentad=True), tower)
    # it ends after 60 of the 100 epochs for which the rate falls
    numbers = Training(100, 2, 1e-4, 0.05, 100, adapter_lr=adapter_lr, inside=0.75)
    return Preset(config, 768, 4, 0, numbers, OPENTAD_TEST, min_steps=None, image_size=160)


PRESETS = {
    ("ActionFormer", "thumos14_i3d"): Preset(
        _actionformer(2048, 20, window=19),
        2304, 4, 16, _training(30, 2, 1e-4, 0.05, 100), THUMOS_TEST,
    ),
    ("ActionFormer", "activitynet_tsp"): Preset(
        _actionformer(512, 1, 256, window=(7, 7, 7, 7, 7, 0), positions=192),
        192, 16, 16, _training(10, 16, 1e-3, 0.05, 200, smoothing=0.1, reg_weight=2.0),
        _one_class(0.9, 0.75, 100), fps=15, rescaled=True, min_steps=0.001,
    ),
    ("ActionFormer", "activitynet_i3d"): Preset(
        _actionformer(2048, 1, 256, window=(7, 7, 7, 7, 7, 0), positions=192),
        192, 16, 16, _training(10, 16, 1e-3, 0.05, 200, smoothing=0.1, reg_weight=2.0),
        _one_class(0.9, 0.75, 100), fps=25, rescaled=True, min_steps=0.001,
    ),
    ("ActionFormer", "epic_verb"): _epic(
        _actionformer(2304, 97, window=9, ranges=EPIC), 16, 0.0
    ),
    ("ActionFormer", "epic_noun"): _epic(
        _actionformer(2304, 300, window=9, ranges=EPIC), 16, 0.1
    ),
    ("TriDet", "thumos14_i3d"): Preset(
        _tridet(2048, 20, kernel=1, widening=5, mlp_dim=768, spread=0.0, iou_power=0.2),
        2304, 4, 16, _training(20, 2, 1e-4, 0.025, 100, warmup_epochs=20, noise=0.0005),
        {"pre_nms_topk": 2000, "nms": {"sigma": 0.5, "max_seg_num": 2000, "min_score": 0.001}},
    ),
    ("TriDet", "activitynet_tsp"): Preset(
        _tridet(
            512, 1, 256, kernel=15, widening=1.3, mlp_dim=2048, head_dim=512, positions=768,
            bins=12, spread=0.2, iou_power=1.0,
        ),
        768, 16, 16,
        _training(
            5, 16, 1e-3, 0.04, 400, warmup_epochs=10, noise=0.5, smoothing=0.1, clip=0.4,
            least=0.05,
        ),
        _one_class(0.95, 0.7, 200), fps=15, min_steps=0.1,
    ),
    ("TriDet", "epic_verb"): _epic(
        _tridet(
            2304, 97, kernel=5, widening=2, mlp_dim=1024, spread=0.0, iou_power=0.25, ranges=EPIC
        ),
        22, 0.0, least=0.5,
    ),
    ("TriDet", "epic_noun"): _epic(
        _tridet(
            2304, 300, kernel=1, widening=4, mlp_dim=1024, spread=0.0, iou_power=0.25, ranges=EPIC
        ),
        14, 0.1,
    ),
    ("DyFADet", "thumos14_i3d"): Preset(
        _dyfadet(2048, 20, kernel=1, widening=5, mlp_dim=768, spread=0.0),
        2304, 4, 16, _training(20, 2, 1e-4, 0.025, 100, warmup_epochs=20, noise=0.00001),
        {"pre_nms_topk": 2000, "nms": {"sigma": 0.5, "max_seg_num": 2000, "min_score": 0.001}},
    ),
    ("DyFADet", "activitynet_tsp"): Preset(
        _dyfadet(
            512, 1, 256, kernel=15, widening=1.2, mlp_dim=2048, head_dim=512, positions=768,
            spread=0.15,
        ),
        768, 16, 16, _training(
            10, 8, 5e-4, 0.05, 400, noise=0.7, smoothing=0.1, clip=0.4, least=0.1
        ),
        _one_class(0.95, 0.7, 200), fps=15, min_steps=0.1,
    ),
    ("DyFADet", "epic_verb"): _epic(
        _dyfadet(2304, 97, kernel=5, widening=2, mlp_dim=1024, spread=0.0, ranges=EPIC),
        15, 0.0, warmup_epochs=10, noise=0.00001, least=0.5,
    ),
    ("DyFADet", "epic_noun"): _epic(
        _dyfadet(2304, 300, kernel=1, widening=4, mlp_dim=1024, spread=0.0, tau=2.0, ranges=EPIC),
        20, 0.1, lr=2e-4, noise=0.000001, least=0.25,
    ),
    ("AdaTAD", "thumos14_videomae_s"): _adatad(TowerConfig(384, 12, 6), 2e-4),
    ("AdaTAD", "thumos14_videomae_b"): _adatad(TowerConfig(768, 12, 12)),
    ("AdaTAD", "thumos14_videomae_l"): _adatad(TowerConfig(1024, 24, 16)),
    ("AdaTAD", "thumos14_videomae_h"): _adatad(TowerConfig(1280, 32, 16)),
    ("AdaTAD", "thumos14_videomae_g"): _adatad(TowerConfig(1408, 40, 16, 48 / 11, patch=14)),
}  # fmt: skip


def preset(kind: str, data: str) -> Preset:
    """The authors' configuration of a localizer on a data set.

    Raises:
        ValueError: There is none here; lists those there are.
    """
    if (kind, data) not in PRESETS:
        known = ", ".join(" on ".join(k) for k in PRESETS)
        raise ValueError(f"no published configuration of {kind!r} on {data!r}; expected {known}")
    return PRESETS[kind, data]


def applied(kind: str, data: str, recipe: dict, config: dict) -> tuple[dict, dict]:
    """A recipe and a shape of ours with a published configuration's numbers.

    Args:
        kind, data: See `preset`.
        recipe: Of `vlact.papers.actionvlm.localizing.train`; what the configuration does not say
            stays.
        config: Its `feature_dim` and `classes` stay, they are the data's.

    Raises:
        ValueError: See `preset`.
    """
    found = preset(kind, data)
    own = {k: config[k] for k in ("feature_dim", "classes")}
    return recipe | found.recipe, asdict(replace(found.config, **own))
