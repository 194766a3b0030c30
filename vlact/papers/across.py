"""Experiments that need two of the papers at once.

ACE's question put to ActionVLM: does a language model that was aligned on drawn wordings, or on
text that ACE trained, still read descriptions in words that it never met? And ActionVLM's question
put to clips: when should a classifier that sees only pixels listen to one that goes by names?
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vlact.language.descriptions import WORDS, describe
from vlact.language.prompts import clauses, language_of, prompt_of, tokenizer
from vlact.losses.actionvlm import ClassMeans, advantage, advantage_loss
from vlact.models import files
from vlact.models.actionvlm import Reader, ReaderConfig, language_weight
from vlact.models.convnet3d import spread
from vlact.models.dual import DualEncoder
from vlact.models.text import sentence_encoder
from vlact.papers.actionvlm.alignment import Drills, alignment_loss, reading_gate
from vlact.papers.actionvlm.experiments import Selector, VisionLanguageLocalizer
from vlact.papers.transfer.benchmark import TransferBenchmark, build, precision
from vlact.runtime.device import beside, put
from vlact.runtime.jobs import job_of, write_table
from vlact.training.loop import fit

HEAD_STEPS, HEAD_LR, HIDDEN = 300, 0.01, 32  # of what is learned on frozen features
Wordings = dict[str, list[str]]


# Other wordings
def clause_features(texts: list[Wordings], encoder: str = "") -> dict[str, Tensor]:
    """Features of every clause, standardised over the first set of wordings, as
    `vlact.language.prompts.encode_clauses` does.

    Args:
        texts: Wordings of the poses; the first are those of training.
        encoder: A `DualEncoder`'s file, whose text projection they pass; "" takes the sentence
            encoder's own.
    """
    said = [
        sorted(
            {c for wordings in part.values() for w in wordings for c in clauses(f"the person {w}")}
        )
        for part in texts
    ]
    every = list(dict.fromkeys(c for part in said for c in part))
    with torch.no_grad():
        found = sentence_encoder()([f"the person {c}" for c in every]).clone()
        found = DualEncoder.load(encoder).text_projection(found) if encoder else found
    first = found[: len(said[0])]
    return dict(zip(every, (found - first.mean(0)) / first.std(0).clamp(min=1e-6), strict=True))


def reading_job(
    drawn: bool,
    encoder: str,
    features: str,
    events: dict[str, dict],
    held_out: list[str],
    names: list[str],
    step_s: float,
    window: int,
    recipe: dict,
    others: Wordings,
    seed: int,
    checkpoint: str,
) -> list[dict]:
    """Align a reader and ask it what it reads in other words.

    Args:
        drawn: Whether descriptions of training are worded in all the ways of poses.yaml, or in the
            usual one only.
        encoder: See `clause_features`. features, events, held_out, names, step_s, window, recipe,
        checkpoint: See `vlact.papers.actionvlm.alignment.align_job`.
        others: Wordings that training never has.
        seed: Initialisation and order.

    Returns:
        Rows `words` ("usual", "drawn", "other") and what `reading_gate` returns, on held-out
        drills.
    """
    usual = {pose: wordings[:1] for pose, wordings in WORDS.items()}
    said, given = clause_features([WORDS, others], encoder), load_file(features)
    common = {
        "names": names,
        "said": said,
        "words": tokenizer(names, window + 1),
        "step_s": step_s,
        "window": window,
    }
    seen = Drills(
        {k: given[k] for k in events if k not in set(held_out)},
        events,
        **common,
        told=WORDS if drawn else usual,
    )
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    language = {
        "feature_dim": next(iter(given.values())).shape[1],
        "numbers": common["words"].convert_tokens_to_ids("0"),
    }
    shape = {k: recipe[k] for k in ("hidden", "layers", "heads")} | {
        "clause_dim": len(next(iter(said.values())))
    }
    reader = put(
        Reader(
            ReaderConfig(
                len(common["words"]),
                len(WORDS),
                **shape,
                language=language | {"lm_stride": recipe["lm_stride"]},
            )
        )
    )

    def loss_of(step: int) -> Tensor:
        batch = seen.batch(recipe["batch_size"], np.random.default_rng((seed, step)))
        batch["features"] = batch["features"] + recipe["noise"] * torch.randn(
            batch["features"].shape, generator=generator
        )
        return alignment_loss(reader, batch, recipe["text_weight"])

    fit(
        {"reader": reader},
        loss_of,
        recipe["steps"],
        recipe["lr"],
        0.01,
        generator,
        "reading",
        checkpoint,
    )
    reader.eval()
    asked = {"usual": usual, "drawn": WORDS, "other": others}
    rest = {k: given[k] for k in held_out}
    return [
        {"words": k, **reading_gate(reader, Drills(rest, events, **common, told=told))}
        for k, told in asked.items()
    ]


def rename_localizer(
    path: str,
    features: str,
    durations: dict[str, float],
    poses: dict[str, list[str]],
    runs: list[Wordings],
):
    """The Synonym Robustness Test of a trained ActionVLM: detections when descriptions are worded
    otherwise.

    Args:
        path: What `VisionLanguageLocalizer.save` wrote, of a reader that was aligned on `WORDS`.
        features, durations: See `vlact.papers.actionvlm.localizing.Localizer.detect`.
        poses: Of each class, in order.
        runs: One wording of every pose a run.

    Returns:
        Detections with the column `run`; -1 is language switched off.
    """
    localizer, given = VisionLanguageLocalizer.load(path), load_file(features)
    words, *_ = language_of(Path(features).parent)
    said, found = clause_features([WORDS, *runs]), []
    for i, run in enumerate([None, *runs], -1):
        told = None if run is None else [describe(poses[k], None, run) for k in localizer.classes]
        prompt = None if told is None else prompt_of(words, localizer.classes, told, said)
        found.append(
            replace(localizer, prompt=prompt, heard={}).detect(given, durations).assign(run=i)
        )
    return pd.concat(found, ignore_index=True)


# Language for clips
def opinion(vision: Tensor, language: Tensor) -> Tensor:
    """Ten numbers (N, 10) that say how sure two classifiers are, from their logits (N, C), and
    whether they agree.
    """
    p, q = vision.softmax(-1), language.softmax(-1)
    tops = [x.topk(2, -1).values for x in (p, q)]
    entropy = [-(x * x.clamp(min=1e-6).log()).sum(-1) for x in (p, q)]
    other = [
        p.gather(1, q.argmax(-1, keepdim=True))[:, 0],
        q.gather(1, p.argmax(-1, keepdim=True))[:, 0],
    ]
    both = [(p * q).sum(-1), (p.argmax(-1) == q.argmax(-1)).float()]
    return torch.stack([*(t for top in tops for t in top.unbind(-1)), *entropy, *other, *both], -1)


def weigh(
    seen: dict[str, tuple[Tensor, Tensor, Tensor]], classes: int, seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Logits z_v + lambda z_l of test clips, for every way to set lambda.

    z_v is a linear head on frozen features, z_l the scores by name. "Eq. 1" and "paired" learn
    lambda from the features as ActionVLM does, on the clips that the head learns from: the target
    is the mean vision-only loss of the class minus the clip's loss with language, or the clip's own
    two losses. "selective" fits the gain on clips that neither has learned from.

    Args:
        seen: "train", "held out" and tests by any name: features (N, D), z_l (N, C), labels (N,).
        classes: C.
        seed: Initialisation.

    Returns:
        By (way, test): logits, and lambda (N,).
    """
    torch.manual_seed(seed)
    x, said, y = seen["train"]
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    head = nn.Linear(x.shape[1], classes)
    predictors = {
        k: nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1))
        for k in ("Eq. 1", "paired")
    }
    means = ClassMeans(classes)
    optimizer = torch.optim.AdamW(
        [p for m in (head, *predictors.values()) for p in m.parameters()],
        HEAD_LR,
        weight_decay=0.05,
    )
    z = (x - mean) / std
    for _ in range(HEAD_STEPS):
        alone, full = (
            cross_entropy(logits, y, reduction="none") for logits in (head(z), head(z) + said)
        )
        means.add(alone, y)
        means.close()
        targets = {"Eq. 1": advantage(means.mean, y, full), "paired": (alone - full).detach()}
        everyone = torch.ones_like(y, dtype=torch.bool)
        loss = alone.mean() + sum(
            advantage_loss(predictors[k](z)[:, 0], t, everyone) for k, t in targets.items()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    out = {}
    with torch.no_grad():
        x, said, y = seen["held out"]
        alone = head((x - mean) / std)
        gain = cross_entropy(alone, y, reduction="none") - cross_entropy(
            alone + said, y, reduction="none"
        )
        selector = Selector.fit(opinion(alone, said), gain)
        for test in (k for k in seen if k not in ("train", "held out")):
            x, said, y = seen[test]
            z = (x - mean) / std
            alone = head(z)
            better = cross_entropy(alone, y, reduction="none") > cross_entropy(
                alone + said, y, reduction="none"
            )
            ways = {f"fixed λ = {k}": torch.full((len(y),), float(k)) for k in (0, 0.4, 1)}
            ways |= {k: language_weight(f(z)[:, 0]) for k, f in predictors.items()}
            ways |= {"selective": selector(opinion(alone, said)), "oracle": better.float()}
            out |= {(k, test): (alone + w[:, None] * said, w) for k, w in ways.items()} | {
                ("language only", test): (said, torch.ones(len(y)))
            }
    return out


def weigh_job(
    kind: str,
    options: dict,
    frames: str,
    table: str,
    taxonomy: pd.DataFrame,
    trained_on: int,
    seed: int,
    start: str,
    words: str,
    weights: str,
    out: str,
) -> None:
    """`weigh` for coarse motions: a trained model that goes by name, and a head on its own
    features.

    Clips of training ids above `transfer.train_ids` ("more") are held out; without any, half of the
    training clips are.

    Args:
        kind, options, frames, table, taxonomy, trained_on, seed, start, words, weights: See
        `vlact.papers.transfer.benchmark.rename_job`.
        out: Answers go there: `video, set, label, way, predicted, weight, model, trained_on, seed`.
    """
    bench, known = (
        TransferBenchmark(np.load(frames, mmap_mode="r"), pd.read_parquet(table), taxonomy),
        put(load_file(words)),
    )
    names = bench.names("coarse", trained_on)
    model = put(
        files.fill(
            build(kind, names, options, start, known), files.read(weights, "transfer")[1], weights
        ).eval()
    )
    label = torch.from_numpy(bench.table["coarse_id"].to_numpy())

    @torch.no_grad()
    def look(rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        parts = []
        for k in range(0, len(rows), 64):
            with precision(model):
                kept = model.method.frozen_features(
                    beside(model, spread(bench.clips(rows[k : k + 64]), model.frames))
                )
                found = model.method.encode(kept)
                said = model.method.logit_scale * model.method.similarity(
                    found, [[n] for n in names]
                )
                parts.append((found["video"].float().cpu(), said.float().cpu()))
        return *(torch.cat(x) for x in zip(*parts, strict=True)), label[rows]

    train, held_out = bench.rows(trained_on, "train"), bench.rows(trained_on, "more")
    if not len(held_out):
        train, held_out = train[::2], train[1::2]
    tests = {which: bench.rows(which, "val") for which in sorted(set(bench.table["set"]))}
    found = weigh(
        {"train": look(train), "held out": look(held_out)} | {k: look(r) for k, r in tests.items()},
        len(names),
        seed,
    )
    rows = []
    for (way, which), (logits, weight) in found.items():
        part = bench.table.iloc[tests[which]]
        answer = {
            "video": part["video"].to_numpy(),
            "set": which,
            "label": part["coarse_id"].to_numpy(),
            "way": way,
        }
        rows.append(
            pd.DataFrame(answer | {"predicted": logits.argmax(1).numpy(), "weight": weight.numpy()})
        )
    table = pd.concat(rows, ignore_index=True).assign(model=kind, trained_on=trained_on, seed=seed)
    write_table(out, table)


ReadingJob = job_of(reading_job, tracked=True)
WeighJob = job_of(weigh_job)
