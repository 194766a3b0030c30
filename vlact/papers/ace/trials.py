"""Jobs that tie training to prediction: one call, one method with one seed, its scores and
predictions.

Each is importable, takes paths and plain values, and leaves its result under a key in the scratch
folder, so that a killed stage goes on where it was.
"""

import json
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from vlact.language.tasks import Task
from vlact.language.trees import ActionTexts, phrase
from vlact.metrics.selection import score_grid
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.frames import FrameEncoder
from vlact.models.text import TextTower, sentence_encoder
from vlact.models.zoo import Kept, Recognizer
from vlact.papers.ace.finetuning import (
    Mean,
    clone,
    encode,
    finetune,
    frozen_features,
    take,
    wise_ft,
    with_weights,
)
from vlact.papers.ace.prediction import predict, rows
from vlact.runtime.device import put
from vlact.runtime.jobs import job_of, write_json, write_table, write_whole

FINE_TUNINGS = 1000  # apart, so that no two fine-tunings of two seeds draw alike


@dataclass(frozen=True)
class Trial:
    """One trained model of one dataset: what the tables vary.

    Attributes:
        dataset: "ata", "ikea" or "gtea".
        name: As in the tables.
        method: File of `vlact.models.zoo`.
        start: "pretrained" (the ladder's TimeSformer), "familiar" (the one that was told the names
            of novel actions, too), "random", "vlog" (LaViLa's) or "clip" (frames).
        tree: Of the base actions: "shipped", "manual", "context-free", or "3x11" (first x second
            order).
        tests: Trees of the novel actions, one test each; the training tree if empty.
        leaf: Inference variants, with and without leaf augmentation.
        blocks: Last blocks trained of the video or image tower; None takes the profile's.
        text_blocks: Last blocks trained of the text trunk.
        wise_ft: Inference variants, with the tuned weights and with those halfway back, see
            `vlact.papers.ace.finetuning.wise_ft`; the latter are called "<name>, halfway".
        averaged: Inference variants, with the last weights and with the mean of those after every
            epoch so far; the latter are called "<name>, averaged".
        options: Further arguments of the method.
        verb_only: Objects and classes merged, see `vlact.language.tasks.verb_only`.
        design: How often it is trained, a key of `vlact.stages.ace.DESIGNS`.
    """

    dataset: str
    name: str
    method: str
    start: str = "pretrained"
    tree: str = "shipped"
    tests: tuple[str, ...] = ()
    leaf: tuple[bool, ...] = (False,)
    blocks: int | None = None
    text_blocks: int = 0
    wise_ft: tuple[bool, ...] = (False,)
    averaged: tuple[bool, ...] = (False,)
    options: dict = field(default_factory=dict)
    verb_only: bool = False
    design: str = "some"

    @property
    def trained(self) -> bool:
        return self.method != "zero_shot"

    @property
    def variants(self) -> list[tuple[bool, bool]]:
        """Whether weights are averaged, and halfway back, of each variant; never both."""
        return [x for x in product(self.averaged, self.wise_ft) if x != (True, True)]

    @property
    def names(self) -> list[str]:
        """Of its variants in tables."""
        return [self.name + ", averaged" * a + ", halfway" * b for a, b in self.variants]


@dataclass(frozen=True)
class Files:
    """Where one seed of one dataset finds its input.

    Attributes:
        encoders: Start to safetensors file; "random" has none.
        frames: npy of uint8 clips (N, views, T, H, W, 3).
        words: safetensors of the frozen features of every string.
        table: Parquet of clips, see `vlact.stages.ace.clip_table`.
        kept: Folder for activations of frozen parts.
        fold: Number of the fold that the table is of.
        folds: Tables of the other folds, whose clips are kept with this one's.
    """

    encoders: dict[str, str]
    frames: str
    words: str
    table: str
    kept: str
    fold: int = 0
    folds: tuple[str, ...] = ()


def encoder_of(trial: Trial, files: Files, model: dict, seed: int):
    """The encoder a trial starts from, as pretrained."""
    if trial.start == "random":
        torch.manual_seed(seed)
        return DualEncoder(DualConfig(**model)).eval()
    return (FrameEncoder if trial.start == "clip" else DualEncoder).load(
        files.encoders[trial.start]
    )


def build(trial: Trial, encoder, task: Task, words: dict, ace: dict, seed: int) -> Recognizer:
    """A method, ready to train.

    Raises:
        ValueError: Unknown method.
    """
    from vlact.models.zoo.ace import ACE
    from vlact.models.zoo.bike import BIKE
    from vlact.models.zoo.lavila import LaViLa
    from vlact.models.zoo.procvlr import ProcVLR
    from vlact.models.zoo.text4vis import Text4Vis
    from vlact.models.zoo.vifi import ViFi
    from vlact.models.zoo.vifi_prompts import PROMPTS, TEXT_BLOCKS, ViFiPrompts

    torch.manual_seed(seed)
    blocks = ace["trained_blocks"] if trial.blocks is None else trial.blocks
    say = sentence_encoder(encoder.config.text)
    common = {"words": words, "base": [phrase(*a) for a in task.base], "tau": ace["tau"]}
    match "vifi" if trial.start == "clip" and not trial.trained else trial.method:
        case "procvlr" | "zero_shot":
            return ProcVLR(encoder, blocks=blocks, **common, **trial.options)
        case "lavila":
            return LaViLa(encoder, blocks=blocks, **common, **trial.options)
        case "ace":
            strings = sorted({*task.texts(), *plan_texts(task)})
            tower = TextTower(say, strings, trial.text_blocks) if trial.text_blocks else None
            plan = ActionTexts(list(task.base), task.trees)
            return ACE(
                encoder, blocks=blocks, plan=plan, seed=seed, tower=tower, **common, **trial.options
            )
        case "vifi":
            return ViFi(
                encoder,
                TextTower(say, task.texts(any(trial.leaf)), trial.text_blocks),
                blocks=blocks,
                **common,
            )
        case "vifi_prompts":
            tower = TextTower(say, task.texts(any(trial.leaf)), TEXT_BLOCKS, PROMPTS)
            return ViFiPrompts(encoder, tower, **common)
        case "text4vis":
            return Text4Vis(encoder, blocks=blocks, **common)
        case "bike":
            lexicon = ace["lexicon"]
            return BIKE(encoder, blocks=blocks, lexicon=lexicon, encode_text=say, **common)
    raise ValueError(f"method must be a file of vlact/models/zoo; got {trial.method!r}")


def plan_texts(task: Task) -> list[str]:
    """Strings that training with the task's trees draws from."""
    return ActionTexts(list(task.base), task.trees).texts


def kept_file(trial: Trial, files: Files, ace: dict) -> Path:
    """Where the activations that a trial starts from are kept; trials with the same frozen part
    share them.
    """
    blocks = ace["trained_blocks"] if trial.blocks is None else trial.blocks
    return (
        Path(files.kept)
        / f"{trial.start}-{'all' if trial.method == 'vifi_prompts' else blocks}.safetensors"
    )


def keep_job(trial: Trial, files: Files, task: Task, model: dict, ace: dict, seed: int) -> None:
    """What the frozen part of a trial's encoder says of every clip of every fold, computed once.

    Writes for every tensor `x` that the method keeps: `plain.x` and `mirrored.x` of the training
    clips' centred view, and `test.x` of the others, all views of a clip after each other;
    `rows.train` and `rows.test`, increasing, say which clips.
    """
    path = kept_file(trial, files, ace)
    if path.is_file():
        return
    words = put(load_file(files.words))
    table = pd.concat([pd.read_parquet(x) for x in (files.table, *files.folds)])
    shared = replace(trial, text_blocks=0)
    # what BIKE keeps serves all of them
    if trial.start == "clip" and trial.method != "vifi_prompts":
        shared = Trial(trial.dataset, trial.name, "bike", "clip", blocks=trial.blocks)
    method = put(build(shared, encoder_of(trial, files, model, seed), task, words, ace, seed))
    clips = torch.from_numpy(np.load(files.frames, mmap_mode="c"))
    train, test = (
        torch.tensor(np.unique(table["clip"][table["part"] == part])) for part in ("train", "test")
    )
    centre = clips[train][:, clips.shape[1] // 2]
    found = {
        "plain": frozen_features(method, centre),
        "mirrored": frozen_features(method, centre.flip(3)),
        "test": frozen_features(method, clips[test].flatten(0, 1)),
    }
    rows = {"rows.train": train, "rows.test": test}
    kept = {f"{part}.{k}": v for part, kept in found.items() for k, v in kept.items()}
    write_whole(path, save_file, rows | kept)


def kept_of(path: Path, part: str, clips: np.ndarray, views: int = 1) -> Kept:
    """What `keep_job` wrote of some clips.

    Args:
        path: Its file.
        part: "plain", "mirrored" or "test".
        clips: Rows of the annotation table (N,).
        views: Of a clip in this part.
    """
    stored = load_file(path)
    known = stored["rows.test" if part == "test" else "rows.train"]
    at = torch.searchsorted(known, torch.tensor(np.array(clips)))
    at = (at[:, None] * views + torch.arange(views)).flatten()
    return {
        k.removeprefix(f"{part}."): v[at] for k, v in stored.items() if k.startswith(f"{part}.")
    }


def tune_job(
    trial: Trial,
    files: Files,
    tests: dict[str, Task],
    model: dict,
    ace: dict,
    lrs: list[float],
    epochs: list[int],
    seed: int,
    out: str,
    model_out: str | None = None,
    tune: int = 0,
) -> list[dict]:
    """Train one method at every rate of the grid and test it at every listed epoch.

    Args:
        trial: What to train.
        files: Where everything is.
        tests: Name of the test tree to its task; the first is the one to train with.
        model: `DualConfig` as a dict, for a random start.
        ace: `Ace` as a dict, with `lexicon`.
        lrs: Learning rates; ignored where nothing is trained.
        epochs: Epochs at which to predict.
        seed: Of the pretrained encoder.
        out: Where the predictions go (parquet); the scores go beside them (json).
        model_out: Save the encoder after the last epoch of the last rate, halfway back if that is
                        is the last variant.
        tune: Number of the fine-tuning; with `seed` it draws order, mirroring, synonyms and new
            layers.

    Returns:
        One row per rate, epoch, leaf variant and test, see `vlact.metrics.selection.score_grid`;
        ACE-like trials add the diagnostics of `diagnose`.
    """
    path = Path(out)
    note = path.with_suffix(".json")
    if note.is_file() and (model_out is None or Path(model_out).is_file()):
        return json.loads(note.read_text(encoding="utf-8"))
    words, table = put(load_file(files.words)), pd.read_parquet(files.table)
    task, views = next(iter(tests.values())), ace["views"]
    train, test = (
        table[table["part"] == "train"],
        table[table["part"] == "test"].reset_index(drop=True),
    )
    parts = [
        (*key, part, _views_of(part, views))
        for key, part in test.groupby(["split", "mode"], sort=False)
    ]
    source, found, more = kept_file(trial, files, ace), [], []
    kept = kept_of(source, "test", test["clip"].to_numpy(), views)
    drawn = seed + FINE_TUNINGS * tune

    def fresh() -> Recognizer:
        return put(build(trial, encoder_of(trial, files, model, drawn), task, words, ace, drawn))

    def note_epoch(method: Recognizer, name: str, lr: float, epoch: int) -> Kept:
        seen = encode(method, kept)
        for split, mode, part, clips in parts:
            for test, asked in tests.items():
                for leaf in trial.leaf:
                    constant = {
                        "dataset": trial.dataset,
                        "model": name,
                        "leaf": leaf,
                        "test": test,
                        "seed": seed,
                        "fold": files.fold,
                        "tune": tune,
                    }
                    predicted = predict(method, asked, take(seen, clips), views, mode, leaf)
                    constant |= {"lr": lr, "epoch": epoch, "split": split, "mode": mode}
                    found.append(
                        rows(
                            predicted, part["label"].to_numpy(), part["clip"].to_numpy(), **constant
                        )
                    )
        return seen

    if not trial.trained:
        note_epoch(fresh(), trial.name, 0.0, 0)
    else:
        start = [kept_of(source, part, train["clip"].to_numpy()) for part in ("plain", "mirrored")]
        labels = torch.tensor(train["label"].to_numpy(), dtype=torch.long)
    diagnosed = (
        trial.method in ("ace", "procvlr")
        and trial.options.get("train_text")
        and not trial.text_blocks
    )
    diagnosed, before = diagnosed and "novel" in set(test["mode"]), None
    for lr in lrs if trial.trained else ():
        method = fresh()
        weights = [p.detach().clone() for p, _ in method.trained()]
        if diagnosed and before is None:
            before = clone(method), encode(method, kept)

        mean = Mean()
        every_epoch = list(range(1, max(epochs) + 1)) if any(trial.averaged) else epochs

        def on_epoch(
            epoch: int, method=method, weights=weights, before=before, lr=lr, mean=mean
        ) -> None:
            if any(trial.averaged):
                mean.add([p for p, _ in method.trained()])
            if epoch not in epochs:
                return
            for average, back in trial.variants:
                name = trial.name + ", averaged" * average + ", halfway" * back
                tested = with_weights(method, mean.value) if average else method
                tested = wise_ft(tested, weights) if back else tested
                seen = note_epoch(tested, name, lr, epoch)
                if diagnosed and tested is method:
                    sides = {"before": before, "after": (tested, seen)}
                    more.append(
                        {"model": name, "lr": lr, "epoch": epoch}
                        | diagnose(sides, task, test, views, trial.leaf[-1])
                    )

        run = f"{path.stem}-{lr:g}"
        finetune(method, start, labels, ace, lr, every_epoch, drawn, on_epoch, run)
        if model_out and lr == lrs[-1]:
            (wise_ft(method, weights) if trial.wise_ft[-1] else method).encoder.save(model_out)
    predictions = pd.concat(found, ignore_index=True)
    scores = score_grid(predictions)
    if more:
        scores = scores.merge(pd.DataFrame(more), on=["model", "lr", "epoch"], how="left")
    write_table(path, predictions)
    write_json(note, scores.to_dict("records"))
    return scores.to_dict("records")


def _views_of(part: pd.DataFrame, views: int) -> torch.Tensor:
    """Rows of kept views of a table of test clips."""
    return (torch.tensor(part.index.to_numpy())[:, None] * views + torch.arange(views)).flatten()


@torch.inference_mode()
def diagnose(
    sides: dict[str, tuple[Recognizer, Kept]],
    task: Task,
    test: pd.DataFrame,
    views: int,
    leaf: bool,
) -> dict:
    """Why a schedule fails: how far the text projection went, whether novel roots fell together,
    which side is to blame.

    Args:
        sides: "before" and "after" training: the method and what it sees of the test clips.
        task, views, leaf: As tested.
        test: Table of the test clips.

    Returns:
        `moved`: relative change of the text projection's weight; `novel_cosine`: mean cosine
        between the leaf-averaged embeddings of different novel roots; `swap_text`: SRT accuracy of
        the tuned video side with the initial text side; `swap_video`: of the initial video side
        with the tuned text side.
    """
    novel = test[(test["mode"] == "novel") & (test["split"] == "test")]
    clips, labels = _views_of(novel, views), novel["label"].to_numpy()
    old, new = (sides[k][0].encoder.text_projection.weight for k in ("before", "after"))

    def srt(video_side: str, text_side: str) -> float:
        predicted = predict(
            sides[text_side][0], task, take(sides[video_side][1], clips), views, "novel", leaf
        )
        return float((predicted == labels).mean())

    roots = torch.nn.functional.normalize(
        sides["after"][0].actions(task.names("novel", 0, True)), dim=-1
    )
    pairs = torch.triu_indices(len(roots), len(roots), 1)
    return {
        "moved": float((new - old).norm() / old.norm()),
        "novel_cosine": float((roots @ roots.T)[pairs[0], pairs[1]].mean()),
        "swap_text": srt("after", "before"),
        "swap_video": srt("before", "after"),
    }


def concept_job(
    models: dict[str, tuple[str, bool]],
    files: Files,
    source: str,
    task: Task,
    tau: float,
    blocks: int,
    views: int,
    out: str,
):
    """What the figures need of the chosen models, as two parquet files in the folder `out`.

    `concepts`: one row a tree node and model: `model, mode, concept, order, text, e0..` (unit
    embeddings of the node alone, without leaf averaging). `similarity`: mean cosine of the test
    clips of each novel class to every name of every novel class, as the model scores it: `model,
    clips_of, name_of, name, cosine`.

    Args:
        models: Name to encoder file and leaf augmentation.
        files, task: As in `tune_job`.
        source: What `keep_job` wrote.
        tau, blocks, views: Of the profile.
        out: Folder.
    """
    from vlact.models.zoo.procvlr import ProcVLR

    table, words = pd.read_parquet(files.table), put(load_file(files.words))
    test = table[table["part"] == "test"].reset_index(drop=True)
    kept = kept_of(Path(source), "test", test["clip"].to_numpy(), views)
    nodes, concepts, similar = task.nodes(), [], []
    for name, (path, leaf) in models.items():
        method = put(
            ProcVLR(DualEncoder.load(path), words, [phrase(*a) for a in task.base], tau, blocks)
        )
        with torch.inference_mode():
            embedded = method.embed_texts([t for *_, t in nodes]).cpu().numpy()
            video = encode(method, kept)["video"].unflatten(0, (-1, views)).mean(1)
        about = pd.DataFrame(nodes, columns=["mode", "concept", "order", "text"])
        about.insert(0, "model", name)
        concepts.append(pd.concat([about, pd.DataFrame(embedded).add_prefix("e")], axis=1))
        for run, names in enumerate(task.srt):
            with torch.inference_mode():
                cosine = (video @ method.actions(task.names("novel", run, leaf)).T).cpu().numpy()
            for c, (verb, obj) in enumerate(task.novel):
                mean = cosine[((test["mode"] == "novel") & (test["label"] == c)).to_numpy()].mean(0)
                similar += [
                    {
                        "model": name,
                        "clips_of": phrase(verb, obj),
                        "name_of": phrase(*task.novel[k]),
                        "name": phrase(w, task.novel[k][1]),
                        "cosine": float(mean[k]),
                    }
                    for k, w in enumerate(names)
                ]
    write_table(Path(out) / "concepts.parquet", pd.concat(concepts, ignore_index=True))
    write_table(Path(out) / "similarity.parquet", pd.DataFrame(similar))


KeepJob, TuneJob = job_of(keep_job), job_of(tune_job)
