"""Shapes and numbers of localizers by data set, as their authors' configurations have them.

ActionFormer (ECCV 2022): happyharrycn/actionformer_release, commit 61ea7eb. TriDet (CVPR 2023):
dingfengshi/TriDet, commit 764b816. DyFADet (ECCV 2024): yangle15/DyFADet-pytorch, commit f645caf.
Not here: configurations that concatenate several features (Ego4D), HACS, FineAction, and those of
AdaTAD, whose model is simplified here.
"""

from dataclasses import dataclass, field

from vlact.models.actionformer import LocalizerConfig
from vlact.models.dyfadet import DyFADetConfig
from vlact.models.tridet import TriDetConfig

EPIC = ((0, 4), (2, 8), (4, 16), (8, 32), (16, 64), (32, 10000))  # levels overlap
WIDTHS = {"official": True, "dropout": 0.1, "levels": 6, "heads": 4}
THUMOS_TEST = {"pre_nms_topk": 2000, "nms": {"sigma": 0.5, "max_seg_num": 200, "min_score": 0.001}}
EPIC_TEST = {"pre_nms_topk": 5000, "nms": {"sigma": 0.4, "max_seg_num": 2000, "min_score": 0.001}}


def _one_class(voting: float, sigma: float, most: int) -> dict:
    """ActivityNet: classes are an external classifier's, segments of all of them meet and vote."""
    nms = {"sigma": sigma, "max_seg_num": most, "min_score": 0.001, "multiclass": False}
    return {"pre_nms_topk": 2000, "nms": nms | {"voting_threshold": voting}}


@dataclass(frozen=True)
class Preset:
    """A published configuration.

    Attributes:
        config: Shape.
        window: Steps in training, and at test at the least.
        feat_stride, num_frames, fps: Of the features, see `vlact.datasets.features.grid`; fps 0 is
            each video's own.
        rescaled: Whether each video's features are stretched to `window` steps.
        training: `epochs` (after `warmup_epochs`), `batch_size`, `lr`, `weight_decay`,
            `clip` (norm of the gradient), `positives` (M at first), `noise`, `smoothing`,
            `reg_weight`, `ema`.
        test: Recipe of `vlact.papers.actionvlm.localizing.Localizer`: whole videos, NMS, and the
            steps that a segment must be longer than.
    """

    config: LocalizerConfig
    window: int
    feat_stride: int
    num_frames: int
    training: dict
    test: dict
    fps: float = 0.0
    rescaled: bool = False
    min_steps: float = 0.05
    recipe: dict = field(init=False)

    def __post_init__(self):
        test = {"window": self.window, "whole": True, "min_steps": self.min_steps}
        object.__setattr__(self, "recipe", test | self.test)


def _training(epochs, batch_size, lr, weight_decay, positives, **more) -> dict:
    usual = {"warmup_epochs": 5, "clip": 1.0, "noise": 0.0, "smoothing": 0.0, "reg_weight": 1.0}
    own = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
    return usual | {"ema": 0.999, "positives": positives} | own | more


def _actionformer(feature_dim: int, classes: int, dim: int = 512, **more) -> LocalizerConfig:
    return LocalizerConfig(feature_dim, classes, dim=dim, **WIDTHS, **more)


def _tridet(feature_dim: int, classes: int, dim: int = 512, **more) -> TriDetConfig:
    return TriDetConfig(feature_dim, classes, dim=dim, **WIDTHS, **more)


def _dyfadet(feature_dim: int, classes: int, dim: int = 512, **more) -> DyFADetConfig:
    return DyFADetConfig(feature_dim, classes, dim=dim, **WIDTHS, **more)


def _epic(
    config: LocalizerConfig, epochs: int, smoothing: float, lr: float = 1e-4, **more
) -> Preset:
    numbers = _training(epochs, 2, lr, 0.05, 250, smoothing=smoothing, **more)
    return Preset(config, 2304, 16, 32, numbers, EPIC_TEST, fps=30)


PRESETS = {
    ("ActionFormer", "thumos14"): Preset(
        _actionformer(2048, 20, window=19),
        2304, 4, 16, _training(30, 2, 1e-4, 0.05, 100), THUMOS_TEST,
    ),
    ("ActionFormer", "activitynet-tsp"): Preset(
        _actionformer(512, 1, 256, window=(7, 7, 7, 7, 7, 0), positions=192),
        192, 16, 16, _training(10, 16, 1e-3, 0.05, 200, smoothing=0.1, reg_weight=2.0),
        _one_class(0.9, 0.75, 100), fps=15, rescaled=True, min_steps=0.001,
    ),
    ("ActionFormer", "activitynet-i3d"): Preset(
        _actionformer(2048, 1, 256, window=(7, 7, 7, 7, 7, 0), positions=192),
        192, 16, 16, _training(10, 16, 1e-3, 0.05, 200, smoothing=0.1, reg_weight=2.0),
        _one_class(0.9, 0.75, 100), fps=25, rescaled=True, min_steps=0.001,
    ),
    ("ActionFormer", "epic-verb"): _epic(
        _actionformer(2304, 97, window=9, ranges=EPIC), 16, 0.0
    ),
    ("ActionFormer", "epic-noun"): _epic(
        _actionformer(2304, 300, window=9, ranges=EPIC), 16, 0.1
    ),
    ("TriDet", "thumos14"): Preset(
        _tridet(2048, 20, kernel=1, widening=5, mlp_dim=768, spread=0.0, iou_power=0.2),
        2304, 4, 16, _training(20, 2, 1e-4, 0.025, 100, warmup_epochs=20, noise=0.0005),
        {"pre_nms_topk": 2000, "nms": {"sigma": 0.5, "max_seg_num": 2000, "min_score": 0.001}},
    ),
    ("TriDet", "activitynet-tsp"): Preset(
        _tridet(
            512, 1, 256, kernel=15, widening=1.3, mlp_dim=2048, head_dim=512, positions=768,
            bins=12, spread=0.2, iou_power=1.0,
        ),
        768, 16, 16,
        _training(5, 16, 1e-3, 0.04, 400, warmup_epochs=10, noise=0.5, smoothing=0.1, clip=0.4),
        _one_class(0.95, 0.7, 200), fps=15, min_steps=0.1,
    ),
    ("TriDet", "epic-verb"): _epic(
        _tridet(
            2304, 97, kernel=5, widening=2, mlp_dim=1024, spread=0.0, iou_power=0.25, ranges=EPIC
        ),
        22, 0.0,
    ),
    ("TriDet", "epic-noun"): _epic(
        _tridet(
            2304, 300, kernel=1, widening=4, mlp_dim=1024, spread=0.0, iou_power=0.25, ranges=EPIC
        ),
        14, 0.1,
    ),
    ("DyFADet", "thumos14"): Preset(
        _dyfadet(2048, 20, kernel=1, widening=5, mlp_dim=768, spread=0.0),
        2304, 4, 16, _training(20, 2, 1e-4, 0.025, 100, warmup_epochs=20, noise=0.00001),
        {"pre_nms_topk": 2000, "nms": {"sigma": 0.5, "max_seg_num": 2000, "min_score": 0.001}},
    ),
    ("DyFADet", "activitynet-tsp"): Preset(
        _dyfadet(
            512, 1, 256, kernel=15, widening=1.2, mlp_dim=2048, head_dim=512, positions=768,
            spread=0.15,
        ),
        768, 16, 16, _training(10, 8, 5e-4, 0.05, 400, noise=0.7, smoothing=0.1, clip=0.4),
        _one_class(0.95, 0.7, 200), fps=15, min_steps=0.1,
    ),
    ("DyFADet", "epic-verb"): _epic(
        _dyfadet(2304, 97, kernel=5, widening=2, mlp_dim=1024, spread=0.0, ranges=EPIC),
        15, 0.0, warmup_epochs=10, noise=0.00001,
    ),
    ("DyFADet", "epic-noun"): _epic(
        _dyfadet(2304, 300, kernel=1, widening=4, mlp_dim=1024, spread=0.0, tau=2.0, ranges=EPIC),
        20, 0.1, lr=2e-4, noise=0.000001,
    ),
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
