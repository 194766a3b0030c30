"""What is learnt on drills before any sport is seen: an eye for poses, then language that reads
what the eye sees.

A drill shows two to four poses in an order that no class has (`vlact.worlds.stadium.drill`), and
its description says which. The reader learns to point from every frame to the description that
fits, among ten, half of which are backwards versions or of other drills; names are given out at
random, so that they mean nothing yet. The reading
gate then asks whether it can: on held-out recordings, with descriptions that it never met. Language
for kitchens is aligned in the same way, on narrated sequences, where the verbs or the nouns are the
"poses" and each is a drill.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from vlact import video
from vlact.language.descriptions import NOTHING, SEPARATOR, WORDS, describe
from vlact.language.prompts import clauses, encode_clauses, prompts, targets, tokenizer
from vlact.models.actionvlm import Reader, ReaderConfig
from vlact.models.poses import OFFSETS, PoseConfig, PoseEncoder
from vlact.runtime.device import beside, put
from vlact.runtime.jobs import job_of, write_json, write_whole
from vlact.training.loop import autocast, fit

POSES = sorted(WORDS)
CANDIDATES = 10
IGNORE = -100
JITTER = 0.15  # of colours
FRAMES_EACH = 8  # of a recording in a batch: decoded recordings all lie in memory
DECAY = 0.01  # of weights
GATE_EVERY = 250  # steps
GATE_WHILE, GATE_AFTER = 4, 24  # batches of the reading gate while training, and at its end


def pose_labels(poses: list[dict], times: np.ndarray, known: list[str] = POSES) -> np.ndarray:
    """Number of the pose that is on its way at each time, `IGNORE` where nothing is: rows start_s,
    end_s, pose.
    """
    out = np.full(len(times), IGNORE)
    for row in poses:
        out[(times >= row["start_s"]) & (times < row["end_s"])] = known.index(row["pose"])
    return out


def pose_job(
    folder: str,
    events: dict[str, dict],
    held_out: list[str],
    size: int,
    fps: float,
    recipe: dict,
    out: str,
    checkpoint: str,
):
    """Train the pose encoder on drills, standardise its features over them, and write it.

    Args:
        folder: Of the recordings.
        events: By video, with `poses`.
        held_out: Videos to test on.
        size, fps: Of the recordings.
        recipe: `Align` as a dict.
        out: Where the encoder goes.
        checkpoint: See `vlact.training.loop.fit`.

    Returns:
        The curve, with held-out accuracy.
    """
    frames, labels = {}, {}
    for name, event in events.items():
        info = video.probe(Path(folder) / name)
        frames[name] = (
            torch.from_numpy(video.read(info.path, np.arange(len(info.times)), info))
            .permute(0, 3, 1, 2)
            .contiguous()
        )
        labels[name] = torch.from_numpy(
            pose_labels(event["poses"], np.arange(len(info.times)) / fps)
        )
    torch.manual_seed(0)
    model, generator = (
        put(PoseEncoder(PoseConfig(image_size=size, poses=len(POSES)))),
        torch.Generator().manual_seed(0),
    )
    seen, around = [n for n in events if n not in set(held_out)], torch.tensor(OFFSETS)

    def clips(name: str, at: Tensor) -> Tensor:  # in -2..2
        return (
            frames[name][(at[:, None] + around).clamp(0, len(frames[name]) - 1)]
            .float()
            .sub_(128)
            .div_(64)
        )

    def draw(high: int, n: int) -> Tensor:
        return torch.randint(high, (n,), generator=generator)

    def loss_of(step: int) -> Tensor:
        found, wanted = (
            torch.empty(
                recipe["pose_batch_size"] // FRAMES_EACH, FRAMES_EACH, len(OFFSETS), 3, size, size
            ),
            [],
        )
        for out, i in zip(found, draw(len(seen), len(found)).tolist(), strict=True):
            at = draw(len(frames[seen[i]]), FRAMES_EACH)
            x = clips(seen[i], at)
            x = x.flip(4) if draw(2, 1) else x
            mix = torch.eye(3) + JITTER * torch.randn(3, 3, generator=generator)
            # planes of colour: mixing is one product
            torch.clamp(mix.T @ x.flatten(3), -2, 127 / 64, out=out.flatten(3))
            wanted.append(labels[seen[i]][at])
        with autocast():
            logits = model.head(model.look(beside(model, found.flatten(0, 1))))
        return cross_entropy(logits.float(), beside(model, torch.cat(wanted)), ignore_index=IGNORE)

    @torch.no_grad()
    def validate() -> dict:
        right = []
        for name in held_out:
            at = torch.arange(0, len(frames[name]), 4)
            wanted = labels[name][at]
            said = model.head(model.look(beside(model, clips(name, at)))).argmax(1).cpu()
            right.append((said == wanted)[wanted != IGNORE].float())
        return {"held_out_pose_accuracy": torch.cat(right).mean().item()}

    torch.set_num_threads(recipe["threads"])
    curve = fit(
        {"model": model},
        loss_of,
        recipe["pose_steps"],
        recipe["pose_lr"],
        0.05,
        generator,
        "poses",
        checkpoint,
        validate,
        200,
    )
    torch.set_num_threads(1)
    with torch.no_grad():
        some = torch.cat(
            [
                model.eval().look(
                    beside(model, clips(name, torch.arange(0, len(frames[name]), 16)))
                )
                for name in seen
            ]
        )
    model.mean.copy_(some.mean(0))
    model.std.copy_(some.std(0).clamp(min=1e-3))
    model.save(out)
    return curve


@dataclass
class Drills:
    """Recordings of drills as sequences of features, from which windows with ten candidates are
    drawn.

    Attributes:
        features: Standardised, by video (T, D).
        events: By video: `poses` and `routines` (rows start_s, end_s, label; the label is poses, "a
            > b").
        names: Given out to candidates at random.
        said: Features of clauses.
        words: Tokenizer.
        step_s: Seconds of a step.
        window: Steps.
        told: Wordings of every pose.
        bias: Share of the drills against the alphabet (of their first and last pose) whose
            description is given the wrong way round, as captions that name the usual order do; 0 is
            honest.
        mirrored: Features of the same recordings with left and right exchanged; where there are
            any, half of the windows are of them.

    Raises:
        ValueError: Fewer different drills than candidates.
    """

    features: dict[str, Tensor]
    events: dict[str, dict]
    names: list[str]
    said: dict[str, Tensor]
    words: object
    step_s: float
    window: int
    told: dict[str, list[str]] = field(default_factory=lambda: WORDS)
    bias: float = 0.0
    mirrored: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        shown = [self.events[v]["routines"] for v in self.features]
        known = {x for rows in shown for r in rows for x in (r["label"], backwards(r["label"]))}
        if len(known := known | set(self.told if not all(shown) else ())) < CANDIDATES:
            raise ValueError(
                f"{len(known)} different drills, either way round, in {len(shown)} recordings; "
                f"expected {CANDIDATES} or more"
            )

    @property
    def poses(self) -> list[str]:
        return sorted(self.told)

    def batch(self, size: int, rng: np.random.Generator) -> dict:
        """Windows with candidates.

        Returns:
            `features` (B, T, D), `mask` (B, T), `prompt`, `answer` (token targets), `pointer` (B,
            T) in [0, CANDIDATES], the last for "none of them", `now` (B, T), `ends` (B, CANDIDATES,
            2), poses; `IGNORE` where cut off.
        """
        rows = [self._window(rng) for _ in range(size)]
        stacked = {
            k: torch.stack([r[k] for r in rows])
            for k in ("features", "mask", "pointer", "now", "ends")
        }
        candidates = [
            [
                (name, clauses(describe(label.split(" > "), rng, self.told)))
                for name, label in zip(r["names"], r["labels"], strict=True)
            ]
            for r in rows
        ]
        return stacked | {
            "prompt": prompts(self.words, candidates, self.said),
            "answer": targets(self.words, [r["answer"] for r in rows]),
        }

    def _window(self, rng: np.random.Generator) -> dict:
        video_ = list(self.features)[rng.integers(len(self.features))]
        whole, event = (
            (self.mirrored if self.mirrored and rng.random() < 0.5 else self.features)[video_],
            self.events[video_],
        )
        first = int(rng.integers(max(1, len(whole) - self.window + 1)))
        x = whole[first : first + self.window]
        n = len(x)
        times, low, high = (
            (first + np.arange(n)) * self.step_s,
            first * self.step_s,
            (first + n) * self.step_s,
        )
        near = [r for r in event["routines"] if r["end_s"] > low and r["start_s"] < high]
        inside = [
            r
            for r in near
            if min(r["end_s"], high) - max(r["start_s"], low) > 0.75 * (r["end_s"] - r["start_s"])
        ]
        shown = list(dict.fromkeys(r["label"] for r in inside))
        told = {
            x: backwards(x) if backwards(x) < x and rng.random() < self.bias else x for x in shown
        }
        shown = [told[shown[i]] for i in rng.permutation(len(shown))[: CANDIDATES // 2]]
        labels = list(dict.fromkeys(shown))
        for label in shown:
            if rng.random() < 0.5 and (other := backwards(label)) not in labels:
                labels.append(other)
        while len(labels) < CANDIDATES:
            routines = self.events[list(self.features)[rng.integers(len(self.features))]][
                "routines"
            ]
            label = (
                routines[rng.integers(len(routines))]["label"]
                if routines
                else self.poses[rng.integers(len(self.told))]
            )
            label = backwards(label) if rng.random() < 0.5 else label
            if label not in labels:
                labels.append(label)
        labels = [labels[i] for i in rng.permutation(CANDIDATES)]
        names = [self.names[i] for i in rng.permutation(len(self.names))[:CANDIDATES]]
        pointer, items = np.full(n, CANDIDATES), []
        for r in near:
            steps = (times >= r["start_s"]) & (times <= r["end_s"])
            label = told[r["label"]] if r in inside else ""
            pointer[steps] = (
                IGNORE
                if r not in inside
                else labels.index(label)
                if label in labels
                else CANDIDATES
            )
            if label in labels and steps.any():
                at = np.flatnonzero(steps)
                items.append(f"{names[labels.index(label)]} {at[0]} {at[-1] + 1}")
        now = pose_labels(event["poses"], times, self.poses)
        ends = [[self.poses.index(label.split(" > ")[i]) for i in (0, -1)] for label in labels]
        rest = self.window - n
        return {
            "features": pad(x, (0, 0, 0, rest)),
            "mask": torch.arange(self.window) < n,
            "pointer": pad(torch.from_numpy(pointer), (0, rest), value=IGNORE),
            "now": pad(torch.from_numpy(now), (0, rest), value=IGNORE),
            "ends": torch.tensor(ends),
            "labels": labels,
            "names": names,
            "answer": SEPARATOR.join(items) or NOTHING,
        }


def backwards(label: str) -> str:
    """The poses of a drill from the last to the first."""
    return " > ".join(label.split(" > ")[::-1])


def alignment_loss(reader: Reader, batch: dict, text_weight: float) -> Tensor:
    """Pointer, poses of frames, first and last pose of candidates and of frames, and the answer as
    text.
    """
    batch = beside(reader, batch)
    with autocast():
        out = reader(
            batch["features"],
            batch["mask"],
            batch["prompt"],
            batch["answer"] if text_weight else None,
        )
    out = {k: v.float() for k, v in out.items()}
    frames, pointer, ends = (
        out["middle"][:, :, 1],
        batch["pointer"][:, :: reader.branch.config.lm_stride],
        batch["ends"],
    )
    now = batch["now"][:, :: reader.branch.config.lm_stride]
    loss = cross_entropy(out["pointer"].flatten(0, 1), pointer.flatten(), ignore_index=IGNORE)
    loss = loss + cross_entropy(
        reader.now(frames).flatten(0, 1), now.flatten(), ignore_index=IGNORE
    )
    active = (pointer >= 0) & (pointer < CANDIDATES)
    mine = torch.gather(ends, 1, pointer.clamp(0, CANDIDATES - 1)[..., None].expand(-1, -1, 2))[
        active
    ]
    for i, head in enumerate((reader.first, reader.last)):
        loss = loss + 0.5 * cross_entropy(
            head(out["candidates"]).flatten(0, 1), ends[..., i].flatten()
        )
        if len(mine):
            loss = loss + 0.5 * cross_entropy(head(frames[active]), mine[:, i])
    return loss + text_weight * out["text_loss"] if text_weight else loss


@torch.no_grad()
def reading_gate(
    reader: Reader,
    drills: Drills,
    batches: int = 12,
    batch_size: int = 8,
    blank: bool = False,
    seed: int = 9,
) -> dict:
    """How often frames point to the description that fits, among ten (backwards versions included).

    Args:
        reader: In evaluation mode.
        drills: Recordings that it was not aligned on.
        batches, batch_size, seed: What is drawn from them.
        blank: With nothing in the descriptions; a reader must fall to chance.

    Returns:
        `pointer`, of action frames; `none`, of other frames that point to none of them; `pose`,
        named right; `frames`.
    """
    rng, right = np.random.default_rng(seed), {"pointer": [], "none": [], "pose": []}
    for _ in range(batches):
        batch = beside(reader, drills.batch(batch_size, rng))
        with autocast():
            out = reader(
                batch["features"],
                batch["mask"],
                batch["prompt"].blank() if blank else batch["prompt"],
            )
        out = {k: v.float() for k, v in out.items()}
        stride = reader.branch.config.lm_stride
        pointer, now = batch["pointer"][:, ::stride], batch["now"][:, ::stride]
        active = (pointer >= 0) & (pointer < CANDIDATES)
        right["pointer"].append((out["pointer"][..., :-1].argmax(-1) == pointer)[active])
        right["none"].append((out["pointer"].argmax(-1) == pointer)[pointer == CANDIDATES])
        right["pose"].append((reader.now(out["middle"][:, :, 1]).argmax(-1) == now)[now >= 0])
    found = {k: torch.cat(v).float() for k, v in right.items()}
    return {k: v.mean().item() for k, v in found.items()} | {"frames": len(found["pointer"])}


@torch.no_grad()
def pointing(
    reader: Reader,
    features: dict[str, Tensor],
    truth,
    prompt,
    classes: list[str],
    step_s: float,
    window: int,
):
    """Where frames of actions point to, among all classes, in windows side by side.

    Args:
        reader: In evaluation mode, not trained on these recordings.
        features: Standardised, by video.
        truth: Columns `video, start_s, end_s, label`.
        prompt: Of all classes, one row.
        classes: Names, in the prompt's order.
        step_s, window: See `Drills`.

    Returns:
        A table with one row for each frame of an action: `video, step, label, pointed` and `right`;
        where several actions cover a frame any of them is right.
    """
    rows = []
    for name, part in truth.groupby("video", sort=False):
        x, n = features[name], len(features[name])
        padded = pad(x, (0, 0, 0, -n % window)).unflatten(0, (-1, window))
        mask = (torch.arange(len(padded) * window) < n).view(-1, window)
        with autocast():
            given = beside(reader, (padded, mask, prompt.expand(len(padded))))
            pointer = reader(*given)["pointer"][..., :-1].argmax(-1).cpu()
        pointer = (
            pointer.repeat_interleave(reader.branch.config.lm_stride, 1)[:, :window]
            .flatten()[:n]
            .numpy()
        )
        at = np.arange(n) * step_s
        inside = (at[:, None] >= part["start_s"].to_numpy()) & (
            at[:, None] <= part["end_s"].to_numpy()
        )
        for t in np.flatnonzero(inside.any(1)):
            labels = part["label"].to_numpy()[inside[t]]
            said = classes[pointer[t]]
            rows.append(
                {
                    "video": name,
                    "step": int(t),
                    "label": labels[0],
                    "pointed": said,
                    "right": said in labels,
                }
            )
    return pd.DataFrame(rows)


def align_job(
    features: str,
    events: dict[str, dict],
    held_out: list[str],
    names: list[str],
    step_s: float,
    window: int,
    recipe: dict,
    told: dict[str, list[str]],
    bias: float,
    out: str,
    checkpoint: str,
    start_from: str | None = None,
    threads: int = 1,
    mirrored: str = "",
) -> tuple[list[dict], list[dict]]:
    """Train the reader on drills, write it, and put it through the reading gate.

    Args:
        features: safetensors with those of all drills, standardised.
        events, held_out: See `pose_job`; events with `routines`.
        names: Class names, given out at random here.
        step_s, window: See `Drills`.
        recipe: `Align` as a dict.
        told: See `Drills`.
        bias: See `Drills`; of what it is aligned on, the gate is honest.
        out: Where the reader goes; the clauses' features (clauses.safetensors) and what its
            tokenizer is made of (words.json) go beside it.
        checkpoint: See `vlact.training.loop.fit`.
        start_from: Another reader, to go on from for `bias_steps`.
        threads: With another number results differ in the last digits.
        mirrored: Of `features`, those of the drills to learn from, mirrored; see `Drills`.

    Returns:
        The curve, and the gate's rows: `descriptions` ("right" or "blank") and what `reading_gate`
        returns.
    """
    from vlact.models.text import sentence_encoder

    words, features = tokenizer(names, window + 1), load_file(features)
    said = encode_clauses(
        [f"the person {w}" for wordings in told.values() for w in wordings], sentence_encoder()
    )
    common = {
        "names": names,
        "said": said,
        "words": words,
        "step_s": step_s,
        "window": window,
        "told": told,
    }
    turned = load_file(mirrored) if mirrored else {}
    seen = Drills(
        {k: features[k] for k in events if k not in set(held_out)},
        events,
        **common,
        bias=bias,
        mirrored=turned,
    )
    rest = Drills({k: features[k] for k in held_out}, events, **common)
    torch.manual_seed(0)
    dim = next(iter(features.values())).shape[1]
    language = {
        "feature_dim": dim,
        "numbers": words.convert_tokens_to_ids("0"),
        "lm_stride": recipe["lm_stride"],
    }
    shape = {k: recipe[k] for k in ("hidden", "layers", "heads")}
    reader = put(
        Reader.load(start_from)
        if start_from
        else Reader(ReaderConfig(len(words), len(told), **shape, language=language))
    )
    steps = recipe["bias_steps" if start_from else "steps"]
    generator = torch.Generator().manual_seed(0)

    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng((1, step))
        batch = seen.batch(recipe["batch_size"], rng)
        batch["features"] = batch["features"] + recipe["noise"] * torch.randn(
            batch["features"].shape, generator=generator
        )
        return alignment_loss(reader, batch, recipe["text_weight"])

    def validate() -> dict:
        return reading_gate(reader, rest, GATE_WHILE)

    write_whole(Path(out).with_name("clauses.safetensors"), save_file, said)
    write_json(Path(out).with_name("words.json"), {"names": names, "steps": window})
    torch.set_num_threads(threads)
    curve = fit(
        {"reader": reader},
        loss_of,
        steps,
        recipe["lr"],
        DECAY,
        generator,
        "alignment",
        checkpoint,
        validate,
        GATE_EVERY,
    )
    torch.set_num_threads(1)
    reader.eval().save(out)
    return curve, [
        {"descriptions": k, **reading_gate(reader, rest, GATE_AFTER, blank=k == "blank")}
        for k in ("right", "blank")
    ]


PoseJob = job_of(pose_job, tracked=True)
AlignJob = job_of(align_job, tracked=True)
