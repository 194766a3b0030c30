"""`vlact localize --checkpoint`: a localizer's official checkpoint on public features, or on videos
where it sees frames (AdaTAD), with the post-processing of its authors.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vlact import video
from vlact.datasets import features
from vlact.losses.localization import points
from vlact.models import localizer_checkpoints as checkpoints
from vlact.models.adatad import AdaTAD
from vlact.models.detection import candidates
from vlact.models.localizer_presets import PRESETS, Preset, preset
from vlact.models.nms import suppress
from vlact.papers.actionvlm.localizing import KINDS, Clock, Localizer
from vlact.runtime.device import beside, put
from vlact.runtime.jobs import track
from vlact.schema import json_object
from vlact.tools.account import Account

FEATURES = (".npy", ".npz", ".pt", ".pth", ".csv", ".h5", ".hdf5")
AMBIGUOUS = "Ambiguous"  # THUMOS14's label of what is not scored
CLOCK_KEYS = ("duration", "fps", "frame")  # of a video in a truth file


@dataclass(frozen=True)
class Known:
    """What a file of annotations says besides them.

    Attributes:
        classes: Names by number; () if it has none.
        seconds, rate: Of its videos: how long they last, and frames a second.
        only: Videos of the part that was asked for; None for all.
    """

    classes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    rate: dict[str, float] = field(default_factory=dict)
    only: frozenset[str] | None = None


def known(path: Path | None, subset: str = "") -> Known:
    """Names, durations and rates of a JSON of annotations in ActivityNet's layout, as ActionFormer
    and OpenTAD bring them: `{"database": {video: {"subset", "duration", "fps" or "frame",
    "annotations": [{"label", "label_id"}]}}}`. Without `label_id` names have the order of the
    alphabet, as OpenTAD's.

    Raises:
        ValueError: Another file, a number that is none, a name with two numbers, or no such subset.
    """
    if path is None:
        return Known()
    database = json_object(path).get("database")
    if not isinstance(database, dict) or not all(isinstance(v, dict) for v in database.values()):
        raise ValueError(f'{path}: expected {{"database": {{video: {{..}}}}}}')
    names, found = {}, {k: {} for k in CLOCK_KEYS}
    for name, entry in database.items():
        for key in CLOCK_KEYS:
            value = entry.get(key)
            if value is not None:
                if not isinstance(value, int | float) or not 0 < value < float("inf"):
                    raise ValueError(
                        f"{path}: {name}: expected {key} as a number above 0; got {value!r}"
                    )
                found[key][name] = float(value)
        for note in entry.get("annotations") or ():
            label, number = note.get("label"), note.get("label_id")
            if label == AMBIGUOUS:
                continue
            if names.setdefault(label, number) != number:
                raise ValueError(
                    f"{path}: {name}: {label!r} has number {number}; before {names[label]}"
                )
    numbered = {k: v for k, v in names.items() if v is not None}
    if numbered and sorted(numbered.values()) != list(range(len(names))):
        raise ValueError(
            f"{path}: expected label_id 0 to {len(names) - 1}, one a label; got "
            f"{sorted(numbered.values())[:5]}"
        )
    order = sorted(names, key=numbered.get) if numbered else sorted(map(str, names))
    seconds, frames = found["duration"], found["frame"]
    counted = {v: n / seconds[v] for v, n in frames.items() if v in seconds}
    parts = {str(entry.get("subset")) for entry in database.values()}
    if subset and subset not in parts:
        raise ValueError(f"{path}: no subset {subset!r}; expected one of {sorted(parts)}")
    only = frozenset(v for v, e in database.items() if str(e.get("subset")) == subset)
    return Known(tuple(order), seconds, counted | found["fps"], only if subset else None)


def names_of(given: Known, wanted: int, path: Path | None) -> list[str]:
    """Of the classes; their numbers where no file names them.

    Raises:
        ValueError: The file names another number of classes.
    """
    if wanted == 1:
        return ["action"]  # an external classifier says which
    if given.classes and len(given.classes) != wanted:
        raise ValueError(f"{path}: has {len(given.classes)} classes; expected {wanted}")
    return list(given.classes) or [str(i) for i in range(wanted)]


def built(path: Path, data: str = "") -> tuple[torch.nn.Module, Preset]:
    """The model of a checkpoint and the published configuration that it was made with.

    Args:
        path: See `vlact.models.localizer_checkpoints.read`.
        data: Of a preset; if "" the one whose weights have the names and shapes of the file's.
            Which localizer it is, the file says.

    Raises:
        ValueError: No localizer in the file, no such configuration of it, or weights of another
            shape; names what the file has and what was expected.
    """
    state = checkpoints.read(path)
    kind = checkpoints.kind_of(state)
    there = {own: sorted(d for k, d in PRESETS if k == own) for own, _ in PRESETS}
    if kind not in there:
        raise ValueError(
            f"{path}: expected a checkpoint of {', '.join(there)}; got "
            f"{kind or 'names such as ' + ', '.join(sorted(state)[:3])}"
        )
    if data and data not in there[kind]:
        raise ValueError(
            f"--preset {data!r}: {path} holds {kind}; expected one of {', '.join(there[kind])}"
        )
    misfits = []
    for name in [data] if data else there[kind]:
        own = preset(kind, name)
        with torch.device("meta"):  # first its shapes alone
            shape = _model(kind, own)
        try:
            checkpoints.compared(path, shape, state)
        except ValueError as error:
            misfits.append((name, error))
            continue
        return put(checkpoints.fill(path, _model(kind, own), state)), own
    if data:
        raise misfits[0][1]
    listed = "; ".join(f"{k}: {str(e).removeprefix(f'{path}: ')}" for k, e in misfits)
    raise ValueError(f"{path}: holds {kind} of no published configuration; {listed}")


def _model(kind: str, own: Preset) -> torch.nn.Module:
    return AdaTAD(own.config) if kind == "AdaTAD" else KINDS[kind][0](own.config)


def sources(
    where: Path, endings: tuple[str, ...], only: frozenset[str] | None, account: Account
) -> list[Path]:
    """A file, or those of a folder; videos that were asked for and have none are counted.

    Raises:
        ValueError: None there of these endings, or more are not there than the account allows.
    """
    inside = sorted(where.iterdir()) if where.is_dir() else [where]
    every = [p for p in inside if p.is_file() and p.suffix.lower() in endings]
    found = [p for p in every if only is None or p.stem.removeprefix("v_") in only]
    if not found:
        raise ValueError(f"{where}: expected files of {', '.join(endings)}; found none to look at")
    there = {p.stem.removeprefix("v_") for p in every}
    account.add("videos", "in", "", sorted(there | (only or there)))
    gone = sorted((only or there) - there)
    account.add("videos", "left out", f"not in {where}", gone)
    account.add("videos", "not asked for", "not of --subset", sorted(there - (only or there)))
    account.add("videos", "used", "", len(found))
    account.settle()
    return found


def detect(
    checkpoint: Path,
    data: str,
    where: Path,
    truth: Path | None,
    fps: float = 0.0,
    subset: str = "",
    account: Account | None = None,
) -> pd.DataFrame:
    """Detections `video, start_s, end_s, label, score` of an official checkpoint.

    Args:
        checkpoint: See `built`.
        data: Name of the configuration, see `built`.
        where: A file of features or a folder of them; videos, for AdaTAD.
        truth: See `known`; None where rates, durations and names are not needed.
        fps: Of the frames that features were made of, where neither `truth` nor the configuration
            says it.
        subset: Part of `truth` that is looked at; all if "".
        account: Is told what became of the videos; without it none may be missing.

    Raises:
        ValueError: See `known`, `built`, `sources`, `vlact.datasets.features.read`; features of
            another width, or a rate that nothing says.
    """
    given, account = known(truth, subset), account or Account(0.0)
    model, own = built(checkpoint, data)
    classes = names_of(given, model.config.classes, truth)
    if isinstance(model, AdaTAD):
        paths = sources(where, video.ENDINGS, given.only, account)
        found = [see(model, own, p, classes) for p in track(paths, len(paths), "videos")]
        return pd.concat(found, ignore_index=True)
    tables, paths = [], sources(where, FEATURES, given.only, account)
    for path in track(paths, len(paths), "videos"):
        name = path.stem.removeprefix("v_")
        rate = own.fps or given.rate.get(name, 0.0) or fps
        if not rate > 0:
            raise ValueError(
                f"{path}: frames a second are not known; expected them in --truth, or --fps"
            )
        x = features.read(path)
        if x.shape[1] != model.config.feature_dim == len(x):
            warnings.warn(f"{path}: its array is (F, T); it is turned round", stacklevel=2)
            x = x.T.contiguous()
        if x.shape[1] != model.config.feature_dim:
            raise ValueError(
                f"{path}: features have {x.shape[1]} numbers a step; {checkpoint} was made for "
                f"{model.config.feature_dim}"
            )
        x, clock = on_clock(x, own, rate)
        seconds = given.seconds.get(name, float(clock.seconds(len(x))))
        width = model.config.feature_dim
        plain = torch.zeros(width), torch.ones(width)  # features are as they come
        localizer = Localizer(model, classes, clock, own.recipe, *plain)
        tables.append(localizer.detect({name: x}, {name: seconds}))
    return pd.concat(tables, ignore_index=True)


def on_clock(x: Tensor, own: Preset, rate: float) -> tuple[Tensor, Clock]:
    """Features as the configuration takes them, and which second a step stands for."""
    stride, seen = float(own.feat_stride), float(own.num_frames)
    if own.rescaled:
        stride = seen = ((len(x) - 1) * stride + seen) / own.window
        x = interpolate(x.T[None], own.window, mode="linear", align_corners=False)[0].T
    return x, Clock(*features.grid(stride, rate, seen))


def fitted(frame: np.ndarray, size: int) -> np.ndarray:
    """A frame (H, W, 3) with its shorter side at `size` pixels, bilinear and not smoothed before as
    OpenTAD has it, then the central square.
    """
    x = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    short = min(x.shape[2:])
    shape = [round(n * size / short) for n in x.shape[2:]]
    x = interpolate(x, shape, mode="bilinear", align_corners=False)[0]
    top, left = ((n - size) // 2 for n in shape)
    x = x[:, top : top + size, left : left + size].round().to(torch.uint8)
    return x.permute(1, 2, 0).numpy()


def windows(
    path: Path, info: video.VideoInfo, own: Preset, scale: int
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Sliding windows of a video as OpenTAD cuts them, in one pass.

    Yields:
        First step, valid steps, and fitted frames uint8 (window x scale, H, W, 3), of which the
        last is repeated where the video ends.
    """
    wanted = np.arange(0, len(info.times), own.feat_stride // scale)
    steps, hop = len(wanted) // scale, int(own.window * (1 - own.recipe["overlap"]))
    stream = video.stream(path, wanted, info, lambda x: fitted(x, own.image_size))
    held, first = [], 0
    for i in range(max(1, steps // hop)):
        start = min(i * hop, max(0, steps - own.window))
        held, first = held[(start - first) * scale :], start
        while len(held) < own.window * scale and (frame := next(stream, None)) is not None:
            held.append(frame[1])
        valid = min(own.window, len(held) // scale)
        yield start, valid, np.stack(held + held[-1:] * (own.window * scale - len(held)))
        if i * hop + own.window > steps:
            return


@torch.inference_mode()
def see(model: AdaTAD, own: Preset, path: Path, classes: list[str]) -> pd.DataFrame:
    """What AdaTAD finds in a video."""
    info, tables = video.probe(path), []
    rate = len(info.times) / info.duration_s
    at = points(own.window, model.config.levels, model.config.ranges)
    for start, valid, frames in windows(path, info, own, model.shape.scale):
        steps = torch.from_numpy(frames).unflatten(0, (own.window, -1))[None]
        mask = torch.arange(own.window)[None] < valid
        found = [x[0].cpu() for x in model(*beside(model, (steps, mask)))]
        part = candidates(
            *found,
            at,
            start,
            top_k=own.recipe["pre_nms_topk"],
            by_level=own.recipe["by_level"],
        )
        seconds = (part["segment"] * own.feat_stride / rate).clip(0, info.duration_s)
        tables.append(pd.DataFrame({
            "video": path.stem,
            "start_s": seconds[:, 0].round(own.recipe["digits"][0]),
            "end_s": seconds[:, 1].round(own.recipe["digits"][0]),
            "label": np.array(classes, object)[part["label"]],
            "score": part["score"].astype(np.float64).round(own.recipe["digits"][1]),
        }))  # fmt: skip
    return suppress(pd.concat(tables, ignore_index=True), **own.recipe["nms"])
