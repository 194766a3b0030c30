"""Stage `real_video`: features of real clips, the alignment with captions, and naming without
training.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlact.datasets import real
from vlact.datasets.real import flickr8k, jhmdb, ucf101
from vlact.language.trees import Trees
from vlact.models.aligned import AlignedEncoder
from vlact.models.imagenet import ImageEncoder, squash
from vlact.models.text import MINILM_SHA256, TextEncoder, sentence_encoder
from vlact.papers.ace import zero_shot
from vlact.papers.ace.real import ACTIONS, names_of_all
from vlact.params import Params
from vlact.report.tables import write_text
from vlact.runtime import jobs
from vlact.stages.real import CACHE, OfSets, features, spread

VIDEO = OfSets(
    "real_video",
    __name__,
    ("real",),
    sets=(
        *("jhmdb_clips", "jhmdb_splits.zip", "ucf101_vgg16", "ucf101_features", "ucf101_annos"),
        *("flickr8k_features", "flickr8k_text", "flickr8k_images"),
    ),
)
SHUFFLED = "shuffled captions"
PART = 1024  # captions between two words on progress


def real_video(p: Params, must_exist: bool = False) -> Path:
    """Clips, features and alignments, and the predictions of models that saw no clip.

    Writes to data/<workspace>/real_video: `sets.csv` (what was read, and what is not here),
    `<set>.parquet` (clips) and `<set>.safetensors` (what methods see of them),
    `aligned/<seed>.safetensors`, `alignment.csv` (the grid), `retrieval.csv`, and
    `zero_shot.parquet` (one row a model, seed, label set and clip).

    Args:
        p: Profile.
        must_exist: On behalf of a later stage.

    Raises:
        ValueError: A set that is here and broken; names what is wrong.
        FileNotFoundError: The image encoder's weights are not here.
    """
    out = p.data / "real_video"
    if not VIDEO.must_run(p, out, must_exist):
        return out
    read = {}
    for name, of in (("jhmdb", jhmdb.read), ("ucf101", ucf101.read), ("flickr8k", flickr8k.read)):
        try:
            # captions are a list: there is nothing to skip
            read[name] = of() if name == "flickr8k" else of(skip=p.real.skip)
        except real.SetMissing as error:
            read[name] = str(error)
    write_sets(out / "sets.csv", read)
    say = sentence_encoder() if any(map(_here, read.values())) else None
    aligned = _aligned(p, read["flickr8k"], say, out) if _here(read["flickr8k"]) else {}
    if _here(read["ucf101"]):
        clips = read["ucf101"]
        frames = torch.from_numpy(clips.arrays["frames"])
        few = torch.stack([spread(x, p.real.frames) for x in frames])
        mean = torch.from_numpy(clips.arrays["mean"])[:, None]
        _write(out / "ucf101", clips.table, {"frames": few, "mean": mean})
    if _here(read["jhmdb"]):
        clips, encoder = read["jhmdb"], ImageEncoder.load()
        every = features(p, clips)
        seen = [every[v] for v in clips.table["video"]]
        shown = torch.stack([encoder.classify(x).softmax(1).mean(0) for x in seen])
        kept = {
            "frames": torch.stack([spread(x, p.real.frames) for x in seen]),
            "mean": torch.stack([x.mean(0, keepdim=True) for x in seen]),
            "words": zero_shot.conse(shown, say(imagenet_names())),
        }
        _write(out / "jhmdb", clips.table, kept)
        named = _named(p, clips.table, kept, aligned, say)
        named.to_parquet(out / "zero_shot.parquet", index=False)
    VIDEO.finish(p, out)
    return out


def _here(found) -> bool:
    return not isinstance(found, str)


def write_sets(file: Path, read: dict) -> None:
    """What was read of each set, and what brings those that are not here."""
    rows = []
    for name, found in read.items():
        if isinstance(found, str):
            row = {"found": "missing", "layout": "", "clips": 0, "left out": 0, "said": found}
        else:
            count = len(found.images) if name == "flickr8k" else len(found.table)
            out = found.left_out
            row = {"found": "found", "layout": found.layout, "clips": count, "left out": len(out)}
            row["said"] = "; ".join(out[:5])
        rows.append({"set": name, **row})
    write_text(file, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def _write(stem: Path, table: pd.DataFrame, kept: dict[str, Tensor]) -> None:
    table.to_parquet(stem.with_suffix(".parquet"), index=False)
    kept = {k: v.float().contiguous() for k, v in kept.items()}
    jobs.write_whole(stem.with_suffix(".safetensors"), lambda d, f: save_file(d, f), kept)


def imagenet_names() -> list[str]:
    """The first name of each of ImageNet's 1,000 classes, in their usual order."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(i).split(",")[0] for i in range(info.num_classes())]


def image_features(p: Params, found: flickr8k.Captioned) -> Tensor:
    """Features (N, 1280) of captioned images: the packed ones, or of the files."""
    if found.features is not None:
        return torch.from_numpy(found.features).float()
    from PIL import Image

    encoder, out = ImageEncoder.load(), []
    with torch.inference_mode():
        for name in jobs.track(found.images, len(found.images), "features of images"):
            with Image.open(found.folder / name) as image:
                pixels = np.asarray(image.convert("RGB"))
            frame = torch.from_numpy(squash(pixels, encoder.config.image_size))
            out.append(encoder(frame[None])[0])
    return torch.stack(out)


def caption_features(found: flickr8k.Captioned, say: TextEncoder) -> Tensor:
    """Frozen text features (N, 5, 384) of all captions, kept; a killed run goes on."""
    said = [c for captions in found.captions for c in captions]
    name = f"flickr8k-captions-{jobs.key(said, MINILM_SHA256)}"
    file, work = CACHE / f"{name}.safetensors", CACHE / f"{name}.parts"
    if not file.is_file():
        order = sorted(range(len(said)), key=lambda i: len(said[i]))  # little padding
        parts = [order[i : i + PART] for i in range(0, len(order), PART)]
        out = torch.empty(len(said), say.dim)
        for n, rows in enumerate(jobs.track(parts, len(parts), "features of captions")):
            part = work / f"{n}.safetensors"
            if not part.is_file():
                some = {"captions": say.encode([said[i] for i in rows])}
                jobs.write_whole(part, lambda d, f: save_file(d, f), some)
            out[rows] = load_file(part)["captions"]
        jobs.write_whole(file, lambda d, f: save_file(d, f), {"captions": out})
        shutil.rmtree(work)
    return load_file(file)["captions"].unflatten(0, (len(found.captions), -1))


def _aligned(p: Params, found: flickr8k.Captioned, say, out: Path) -> dict[str, AlignedEncoder]:
    """Heads of every seed by rate and epoch as chosen on the dev images, and the control's."""
    images = image_features(p, found)
    text = caption_features(found, say)
    part = np.array(found.part)
    of = {k: (images[part == k], text[part == k]) for k in flickr8k.PARTS}
    looks, models = [], {}
    for lr in p.real.align_lrs:
        for seed in range(p.real.align_seeds):
            models[lr, seed], rows = zero_shot.align(
                *of["train"], of["dev"], lr, p.real.align_epochs, seed
            )
            looks += [{"lr": lr, "seed": seed, **row} for row in rows]
    grid = pd.DataFrame(looks)
    write_text(out / "alignment.csv", grid.to_csv(index=False, lineterminator="\n"))
    best = grid.groupby(["lr", "seed"])["dev_r1"].max().groupby("lr").mean().idxmax()
    chosen = {str(seed): models[best, seed] for seed in range(p.real.align_seeds)}
    control = zero_shot.align(*of["train"], of["dev"], best, p.real.align_epochs, 0, shuffled=True)
    rows = []
    for seed, model in (chosen | {SHUFFLED: control[0]}).items():
        model.save(out / "aligned" / f"{seed}.safetensors")
        found_of = zero_shot.retrieve(model, *of["test"])
        rows.append({"model": seed, "lr": best, **vars(found_of)})
    write_text(out / "retrieval.csv", pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    return chosen | {SHUFFLED: control[0]}


def _named(p: Params, table, kept: dict[str, Tensor], aligned: dict, say) -> pd.DataFrame:
    """Predictions among all 21 classes: `model, seed, leaf, run, clip, label, predicted`."""
    trees, actions = Trees.load("jhmdb"), ACTIONS["jhmdb"]
    label = table["label"].map({k: i for i, k in enumerate(actions)}).to_numpy()
    found = []
    for leaf in (False, True):
        for run, names in enumerate(names_of_all(list(actions.values()), trees, leaf)):
            words = [say(strings) for strings in names]
            conse = (kept["words"] @ torch.stack([w.mean(0) for w in words]).T).numpy()
            scores = {("ConSE", "0"): conse}
            for seed, model in aligned.items():
                with torch.inference_mode():
                    seen = model.embed_video(model.last(kept["mean"], 0))
                    said = torch.stack([model.embed_text(w).mean(0) for w in words])
                mine = (seen @ said.T).numpy()
                if seed == SHUFFLED:
                    scores["alignment, shuffled captions", "0"] = mine
                else:
                    scores["alignment", seed] = mine
                    scores["both", seed] = zero_shot.both(conse, mine)
            for (model, seed), score in scores.items():
                constant = {"model": model, "seed": int(seed), "leaf": leaf, "run": run}
                rows = {"clip": np.arange(len(label)), "label": label}
                found.append(pd.DataFrame({**constant, **rows, "predicted": score.argmax(1)}))
    return pd.concat(found, ignore_index=True)
