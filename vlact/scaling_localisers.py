"""Training a localiser over many processes, on features that were extracted before: the loop of `vlact.scaling` on windows of time.

    accelerate launch --config_file vlact/launch/ddp.yaml -m vlact.scaling_localisers thumos_gt.json features runs/actionformer \\
        --subset validation --batch-size 8 --step-s 0.1333 --offset-s 0.2667

Shape, window and numbers of training are those of a profile (`--profile paper`: ActionFormer on THUMOS14). An epoch shows each
video once, a random window of it; which one follows from seed, step and video. The run's localiser.safetensors is
what `vlact.localizing.Localiser` loads and `vlact.hub.Finder` takes.
"""

import argparse
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
from vlact.localizing import KINDS, Clock, Localiser, Sequence, sequences, window
from vlact.losses.localization import assign, detection_loss, points
from vlact.models import files
from vlact.scaling import Recipe, options_of, train

SUFFIXES = (".npy", ".pt", ".pth", ".h5", ".hdf5", ".csv")


class Windows(Dataset):
    """Random windows of videos as (step, video), with what is to be said of their points.

    Args:
        videos: See `vlact.localizing.sequences`.
        length, levels, classes: Steps of a window, of the pyramid, C.
        noise: Standard deviation, added to standardised features.
        seed: Of what is drawn.
    """

    def __init__(self, videos: list[Sequence], length: int, levels: int, classes: int, noise: float, seed: int):
        self.videos, self.length, self.classes, self.noise, self.seed = videos, length, classes, noise, seed
        self.points = points(length, levels)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, at: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features (length, F), mask (length,), and of P points target (P, C) and offset (P, 2)."""
        step, row = at
        one, chance = self.videos[row], torch.Generator().manual_seed(hash((self.seed, step, row)) % 2**63)
        start = int(torch.randint(max(0, len(one.features) - self.length) + 1, (), generator=chance))
        x, mask, segments, labels = window(one, start, self.length)
        target, offset, _ = assign(self.points, segments, labels, self.classes)
        return x + self.noise * torch.randn(x.shape, generator=chance), mask, target, offset


class Located(nn.Module):
    """A localiser as one call from windows to the loss (Eq. 6 of ActionVLM).

    Its normaliser is a running count of positive points of the whole batch, which all processes share.

    Args:
        model: One of `KINDS`.
        reg_weight: Of the boundaries.
        smoothing: Of labels.
    """

    def __init__(self, model: nn.Module, reg_weight: float, smoothing: float):
        super().__init__()
        self.model, self.reg_weight, self.smoothing = model, reg_weight, smoothing

    def forward(self, x: Tensor, mask: Tensor, target: Tensor, offset: Tensor) -> Tensor:
        logits, distances, valid = self.model(x, mask)
        positive, processes = ((target.sum(-1) > 0) & valid).sum().float(), 1
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(positive)
            processes = torch.distributed.get_world_size()
        self.model.positives.lerp_(positive, 0.1)
        count = self.model.positives.clamp(min=1) / processes  # the mean over processes is then the whole batch's sum / M
        found = detection_loss(logits, distances, target, offset, valid, count, self.smoothing)
        return found["cls"] + self.reg_weight * found["reg"]


def features_of(path: Path, videos: list[str]) -> dict[str, Tensor]:
    """Features (T, F) by video: from one safetensors file, or from a folder of files that `vlact.datasets.features.read` knows.

    Raises:
        ValueError: Nothing at `path`, a video without features, or a file that cannot be read.
    """
    if not path.exists():
        raise ValueError(f"{path}: expected a safetensors file, or a folder with one file of features a video; found nothing")
    if path.is_file():
        try:
            there = {k: x.float() for k, x in load_file(path).items()}
        except SafetensorError as error:
            raise ValueError(f"{path}: expected a safetensors file with an array (T, F) a video; {error}") from None
    else:
        there = {f.stem.removeprefix("v_"): f for f in sorted(path.iterdir()) if f.suffix in SUFFIXES}
    if missing := [v for v in videos if v not in there]:
        raise ValueError(f"{path}: no features of {len(missing)} of {len(videos)} videos, for example {missing[0]!r}; extract them first")
    return {v: there[v] if path.is_file() else features.read(there[v]) for v in videos}


def main(arguments: list[str]) -> int:
    profile = argparse.ArgumentParser(add_help=False)
    profile.add_argument(
        "--profile", default="paper", choices=params.PROFILES, help="of params.yaml, whose section `tal` gives the numbers"
    )
    tal = params.load(profile.parse_known_args(arguments)[0].profile).tal
    parser = argparse.ArgumentParser(prog="vlact.scaling_localisers", description=__doc__.split("\n\n")[0], parents=[profile])
    parser.add_argument("truth", type=Path, help="ground truth in ActivityNet's layout (json)")
    parser.add_argument("features", type=Path, help="safetensors, or a folder with one file a video")
    parser.add_argument("out", type=Path, help="folder of the run")
    parser.add_argument("--subset", default="training", help="of the ground truth")
    parser.add_argument("--kind", default="ActionFormer", choices=list(KINDS))
    parser.add_argument("--step-s", type=float, required=True, help="seconds from one feature to the next")
    parser.add_argument("--offset-s", type=float, default=0.0, help="seconds that the first feature stands for")
    parser.add_argument("--workers", type=int, default=2, help="processes that cut windows, for each training process")
    parser.add_argument("--stop", type=int, help="end early, after so many steps")
    options_of(parser, steps=0, batch_size=tal.batch_size, lr=tal.lr, weight_decay=tal.weight_decay, smoothing=0.0, ema=tal.ema)
    given = parser.parse_args(arguments)
    from accelerate import Accelerator

    try:
        if given.accumulate > 1:
            raise ValueError(f"--accumulate {given.accumulate}: the loss counts positive points of whole batches; expected 1")
        truth = activitynet.ground_truth(given.truth, given.subset)
        found = features_of(given.features, list(truth["video"].unique()))
        every = torch.cat(list(found.values()))
        mean, std, clock = every.mean(0), every.std(0).clamp(min=1e-3), Clock(given.step_s, given.offset_s)
        classes = sorted(truth["label"].unique())
        durations = {v: float(clock.seconds(len(x))) for v, x in found.items()}
        videos = sequences({v: (x - mean) / std for v, x in found.items()}, durations, truth, classes, clock)
        given.steps = given.steps or max(1, round(tal.epochs * len(videos) / given.batch_size))
        recipe = Recipe(**{f.name: getattr(given, f.name) for f in fields(Recipe)})
        torch.manual_seed(recipe.seed)  # the same start in every process
        shape = {k: getattr(tal, k) for k in ("dim", "heads", "embeds", "stems", "levels", "dropout")}
        kind, config = KINDS[given.kind]
        model = kind(config(feature_dim=len(mean), classes=len(classes), **shape))
        windows, accelerator = Windows(videos, tal.window, tal.levels, len(classes), tal.noise, recipe.seed), Accelerator()
        curve = train(Located(model, tal.reg_weight, recipe.smoothing), windows, recipe, given.out, accelerator, given.workers, given.stop)
    except (ValueError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        return 1
    if accelerator.is_main_process:
        if (whole := given.out / "model.safetensors").is_file():
            numbers = asdict(tal) | {"nms": {"sigma": tal.nms_sigma, "max_seg_num": tal.max_seg_num}}
            model = files.fill(model.cpu(), load_file(whole), whole)
            Localiser(model, classes, clock, numbers, mean, std).save(given.out / "localiser.safetensors")
        print(f"{len(curve)} steps, loss {curve['loss'].iloc[-1]:.4f}; {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
