"""Jobs that tie training to prediction: one call, one model, its rows of the prediction table.

Each is importable, takes paths and plain values, and leaves its result under a key in the scratch folder,
so that a killed stage goes on where it was.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from vlact.inference import embed_names, predict, rows
from vlact.language.tasks import Task
from vlact.language.trees import ActionTexts, phrase
from vlact.models.dual import DualEncoder
from vlact.training import align, finetune, keep_tokens, pool

# What each trained model switches on; `tests` lists the inference variants reported from it.
RECIPES = {
    "procvlr": {"leaf": False, "shadow": False, "L_fixed": True, "L_rand": False, "train_text": False},
    "procvlr_text": {"leaf": False, "shadow": False, "L_fixed": True, "L_rand": False, "train_text": True},
    "ace": {"leaf": True, "shadow": True, "L_fixed": True, "L_rand": True, "train_text": True},
}
RECIPES["ace_context_free"] = RECIPES["ace"]
TESTS = {  # (trained model, leaf augmentation at test): name in the tables
    ("zero_shot", False): "zero-shot",
    ("zero_shot", True): "zero-shot + test leaf",
    ("procvlr", False): "ProcVLR",
    ("procvlr", True): "ProcVLR + test leaf",
    ("procvlr_text", False): "ProcVLR + text proj.",
    ("procvlr_text", True): "ProcVLR + text proj. + test leaf",
    ("ace_context_free", True): "ACE, context-free tree",
    ("ace", True): "ACE",
}


def _write(path: Path, function, data, *args, **kwargs) -> None:
    temporary = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    function(data, temporary, *args, **kwargs)
    temporary.replace(path)


def align_job(
    encoder: str, frames: str, captions: list[str], train: list[int], texts: str, config: dict, out: str, seed: int
) -> list[dict]:
    """Stage 2 of pretraining for one seed: pool the corpus once, fit both projections, write the encoder."""
    model = DualEncoder.load(encoder)
    clips = torch.from_numpy(np.load(frames, mmap_mode="c"))[:, 0][torch.tensor(train)]
    curve = align(model, config, pool(model, clips, 0), captions, load_file(texts), seed)
    model.save(out)
    return curve


def token_job(encoder: str, frames: str, train: list[int], test: list[int], blocks: int, out: str) -> None:
    """Keep what the frozen part says of every clip.

    Writes `train` (2, N, L, dim): the centred view, plain and mirrored; `test` (M, views, L, dim); and the
    zero-shot embeddings `pooled` (M, views, dim).
    """
    path = Path(out)
    if path.is_file():
        return
    model = DualEncoder.load(encoder)
    frozen = model.config.depth - blocks
    clips = torch.from_numpy(np.load(frames, mmap_mode="c"))
    views = clips.shape[1]
    centre = clips[torch.tensor(train)][:, views // 2]
    plain, mirrored = (keep_tokens(model, c, frozen) for c in (centre, centre.flip(3)))
    tokens = keep_tokens(model, clips[torch.tensor(test)].flatten(0, 1), frozen)
    pooled = pool(model, tokens, frozen)
    kept = {"train": torch.stack([plain, mirrored]), "test": tokens.unflatten(0, (-1, views)).contiguous()}
    _write(path, save_file, kept | {"pooled": pooled.unflatten(0, (-1, views)).contiguous()})


def ace_job(
    encoder: str,
    tokens: str,
    texts: str,
    task: Task,
    table: pd.DataFrame,
    trained: str,
    ace: dict,
    lr: float,
    epochs: list[int],
    seed: int,
    out: str,
    model_out: str | None = None,
) -> None:
    """Fine-tune one model and write its prediction rows (parquet).

    Args:
        encoder: Pretrained encoder of this seed.
        tokens: What `token_job` wrote.
        texts: safetensors of the frozen features of every string.
        task: Actions, names and trees.
        table: Clips: `clip`, `part` ("train" or "test"), `mode` ("base" or "novel"), `split`, `label` number.
        trained: Key of `RECIPES`, or "zero_shot" (nothing is trained).
        ace: `Ace` as a dict.
        lr: Learning rate; recorded as 0 for zero-shot.
        epochs: Epochs at which to predict.
        seed: Order, mirroring, draws.
        out: Where the rows go.
        model_out: Also save the encoder after the last epoch.
    """
    path = Path(out)
    if path.is_file() and (model_out is None or Path(model_out).is_file()):
        return
    torch.manual_seed(seed)
    model, kept, trunk = DualEncoder.load(encoder), load_file(tokens), load_file(texts)
    frozen = model.config.depth - ace["trained_blocks"]
    train, test = table[table["part"] == "train"], table[table["part"] == "test"].reset_index(drop=True)
    found = []

    def note(epoch: int) -> None:
        pooled = kept["pooled"]
        if trained != "zero_shot":
            pooled = pool(model, kept["test"].flatten(0, 1), frozen).unflatten(0, kept["test"].shape[:2])
        with torch.inference_mode():
            video = model.embed_video(pooled)
        for (split, mode), part in test.groupby(["split", "mode"], sort=False):
            for leaf in (x for name, x in TESTS if name == trained):
                predicted = predict(model, task, video[torch.tensor(part.index.tolist())], mode, leaf, trunk)
                constant = {"model": TESTS[trained, leaf], "seed": seed, "lr": lr, "epoch": epoch, "split": split, "mode": mode}
                found.append(rows(predicted, part["label"].to_numpy(), part["clip"].to_numpy(), **constant))

    if trained == "zero_shot":
        note(0)
    else:
        plan = ActionTexts(list(task.base), task.trees)
        text = torch.stack([trunk[t] for t in plan.texts])
        labels = torch.tensor(train["label"].to_numpy(), dtype=torch.long)
        finetune(model, kept["train"], labels, text, plan, RECIPES[trained], ace, lr, epochs, seed, note)
    if model_out:
        model.save(model_out)
    _write(path, lambda d, p: d.to_parquet(p, index=False), pd.concat(found, ignore_index=True))


def concept_job(models: dict[str, str], tokens: str, texts: str, task: Task, table: pd.DataFrame, frozen: int, out: str) -> None:
    """What the figures need of the chosen models, as two parquet files in the folder `out`.

    `concepts`: one row a tree node and model: `model, mode, concept, order, text, e0..` (unit embeddings of
    the node alone, without leaf averaging). `similarity`: mean cosine of the test clips of each novel class
    to every name of every novel class, as the model scores it: `model, clips_of, name_of, name, cosine`.
    """
    kept, trunk = load_file(tokens), load_file(texts)
    test = table[table["part"] == "test"].reset_index(drop=True)
    nodes = task.nodes()
    concepts, similar = [], []
    for name, path in models.items():
        model, leaf = DualEncoder.load(path), name == "ACE"
        with torch.inference_mode():
            embedded = model.embed_text(torch.stack([trunk[t] for *_, t in nodes])).numpy()
            video = model.embed_video(pool(model, kept["test"].flatten(0, 1), frozen)).unflatten(0, kept["test"].shape[:2]).mean(1)
        words = pd.DataFrame(nodes, columns=["mode", "concept", "order", "text"])
        words.insert(0, "model", name)
        concepts.append(pd.concat([words, pd.DataFrame(embedded).add_prefix("e")], axis=1))
        for run, names in enumerate(task.srt):
            cosine = (video @ embed_names(model, task.names("novel", run, leaf), trunk).T).numpy()
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
    _write(Path(out) / "concepts.parquet", lambda d, f: d.to_parquet(f, index=False), pd.concat(concepts, ignore_index=True))
    _write(Path(out) / "similarity.parquet", lambda d, f: d.to_parquet(f, index=False), pd.DataFrame(similar))
