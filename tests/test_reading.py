"""Prompts, the reader, and its alignment on drills: what it is asked, what it may see, when it
counts as reading.
"""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from vlact import ROOT
from vlact.language.descriptions import WORDS as POSE_WORDS
from vlact.language.descriptions import describe
from vlact.language.prompts import (
    INSTRUCTION,
    clauses,
    encode_clauses,
    prompt_of,
    prompts,
    targets,
    tokenizer,
)
from vlact.models.actionvlm import Reader, ReaderConfig
from vlact.models.poses import PoseConfig, PoseEncoder
from vlact.papers.actionvlm import alignment as aligning
from vlact.papers.actionvlm.alignment import (
    CANDIDATES,
    IGNORE,
    POSES,
    Drills,
    alignment_loss,
    backwards,
    pointing,
    pose_labels,
    reading_gate,
)

NAMES = [f"Sport{c}" for c in "ABCDEFGHIJKL"]
WINDOW = 32


def features_of(strings):
    """Distinct features of strings, without a sentence encoder."""
    return torch.stack(
        [
            torch.randn(16, generator=torch.Generator().manual_seed(sum(map(ord, s))))
            for s in strings
        ]
    )


SAID = encode_clauses(
    [f"the person {w}" for said in POSE_WORDS.values() for w in said], features_of
)
WORDS = tokenizer(NAMES, WINDOW + 1)


def reader(**more):
    torch.manual_seed(0)
    language = {"feature_dim": 8, "numbers": WORDS.convert_tokens_to_ids("0")} | more
    return Reader(
        ReaderConfig(
            len(WORDS), len(POSES), clause_dim=16, hidden=32, layers=2, heads=1, language=language
        )
    ).eval()


def drills(videos=4, seed=0, length=96, step_s=0.25):
    """Drills without pictures: the feature of a step is a noisy code of the pose that is on its
    way.
    """
    rng, code = (
        np.random.default_rng(seed),
        torch.randn(len(POSES), 8, generator=torch.Generator().manual_seed(5)),
    )
    features, events, noise = {}, {}, torch.Generator().manual_seed(seed)
    for v in range(videos):
        now, poses, routines = 0.0, [], []
        while now < length * step_s - 6:
            now += 1.0
            start, names = now, [POSES[4 * i] for i in rng.permutation(8)[: rng.integers(2, 4)]]
            for p in names:
                poses.append({"start_s": now, "end_s": now + 1.0, "pose": p})
                now += 1.0
            routines.append({"start_s": start, "end_s": now, "label": " > ".join(names)})
        labels = torch.from_numpy(pose_labels(poses, np.arange(length) * step_s))
        features[f"v{seed}{v}"] = code[labels.clamp(0)] * (labels >= 0)[
            :, None
        ] + 0.05 * torch.randn(length, 8, generator=noise)
        events[f"v{seed}{v}"] = {"poses": poses, "routines": routines}
    return Drills(features, events, NAMES, SAID, WORDS, step_s, WINDOW)


def test_too_few_drills_for_ten_candidates():
    few = drills(1)
    few.events["v00"]["routines"] = few.events["v00"]["routines"][:2]
    with pytest.raises(
        ValueError,
        match="4 different drills, either way round, in 1 recordings; expected 10 or more",
    ):
        Drills(few.features, few.events, NAMES, SAID, WORDS, 0.25, WINDOW)


# Prompts
def test_a_description_falls_into_its_clauses():
    text = describe(["run left", "leap", "sit in sand"])
    assert clauses(text) == ["runs", "leaps with an arm up", "lands sitting"]
    assert clauses("the person runs") == ["runs"] and clauses("Someone dives, gracefully") == [
        "Someone dives, gracefully"
    ]


def test_every_pose_s_wordings_come_back_as_one_clause_each():
    rng = np.random.default_rng(0)
    for _ in range(200):
        names = [POSES[i] for i in rng.permutation(len(POSES))[:3]]
        found = clauses(describe(names, rng))
        assert all(c in SAID for c in found) and len(found) == len(describe(names).split(", "))


def test_a_prompt_holds_instruction_names_and_clauses_and_says_where_each_candidate_ends():
    rows = [
        [("SportA", ["runs"]), ("SportB", ["runs", "lands sitting"])],
        [("SportC", []), ("SportA", ["lands sitting"])],
    ]
    made, n = prompts(WORDS, rows, SAID), len(INSTRUCTION.split())
    assert made.ids.shape == (2, n + 5) and made.mask.sum(1).tolist() == [n + 5, n + 3]
    assert made.at.tolist() == [[n + 1, n + 4], [n, n + 2]]
    assert WORDS.convert_ids_to_tokens(made.names[1, :, 0].tolist()) == ["SportC", "SportA"]
    assert WORDS.decode(made.ids[0, n:]).split() == [
        "SportA",
        "<clause>",
        "SportB",
        "<clause>",
        "<clause>",
    ]
    assert (
        torch.equal(made.clauses[0, n + 1], SAID["runs"])
        and not made.clauses[0, n].any()
        and not made.blank().clauses.any()
    )


@pytest.mark.parametrize(
    "rows, message",
    [
        ([[("SportZ", ["runs"])]], "lacks the name 'SportZ'"),
        (
            [[("SportA", ["flies to the moon"])]],
            "SportA: no features of the clause 'flies to the moon'",
        ),
        ([[("SportA", [])], []], "as many candidates"),
    ],
)
def test_what_a_prompt_cannot_hold_is_named(rows, message):
    with pytest.raises(ValueError, match=message):
        prompts(WORDS, rows, SAID)


def test_names_and_answers_must_be_words_of_the_tokenizer():
    with pytest.raises(ValueError, match="one word each; got 'Pole Vault'"):
        tokenizer(["Pole Vault"], 3)
    assert targets(WORDS, ["SportA 3 7 ; SportB 9 12", "nothing"]).shape == (2, 8)
    with pytest.raises(ValueError, match="lacks a word of 'SportA 3 99'"):
        targets(WORDS, ["SportA 3 99"])


def test_clauses_are_standardised_over_all_of_them():
    whole = torch.stack(list(SAID.values()))
    assert whole.mean(0).abs().max() < 1e-5 and (whole.std(0) - 1).abs().max() < 1e-4


# The reader
def example(model, text=False):
    batch = drills().batch(3, np.random.default_rng(0))
    return batch, model(
        batch["features"], batch["mask"], batch["prompt"], batch["answer"] if text else None
    )


def test_the_pointer_has_a_key_for_none_and_grounding_reaches_classes_only():
    model = reader()
    with torch.no_grad():
        batch, out = example(model)
        bare = model(batch["features"], batch["mask"], batch["prompt"], ground=False)
        only = model(batch["features"], batch["mask"], batch["prompt"], ground="only")
        turned = replace(batch["prompt"], names=batch["prompt"].names.flip(1))
        other = model(batch["features"], batch["mask"], turned, ground="only")
    assert out["pointer"].shape == (3, WINDOW, CANDIDATES + 1) and out["candidates"].shape == (
        3,
        CANDIDATES,
        32,
    )
    assert not torch.allclose(out["cls"], bare["cls"]) and torch.allclose(out["loc"], bare["loc"])
    assert torch.equal(out["pointer"], bare["pointer"]) and torch.equal(only["loc"], out["loc"])
    assert not torch.allclose(only["cls"], out["cls"]) and not torch.allclose(
        only["cls"], other["cls"]
    )


def test_frames_carry_their_numbers_only_if_asked():
    batch = drills().batch(1, np.random.default_rng(0))
    still = batch["features"][:, :1].expand(-1, WINDOW, -1)
    for numbers in (-1, WORDS.convert_tokens_to_ids("0")):
        model = reader(numbers=numbers)
        torch.nn.init.normal_(model.branch.causal_lm().get_input_embeddings().weight)
        tokens, *_ = model.branch._tokens(
            still, batch["mask"], model.embed(batch["prompt"]), batch["prompt"].mask, None
        )
        same = torch.allclose(tokens[:, 0], tokens[:, 4], atol=1e-6)
        assert same == (numbers < 0)


@pytest.mark.parametrize("read_from", [("vis", "vis", "vis"), ("cls", "cls", "adv")])
def test_ablations_read_other_tokens(read_from):
    usual, other = reader(), reader(read_from=read_from)
    with torch.no_grad():
        (_, a), (_, b) = example(usual), example(other)
    assert torch.equal(a["hidden"], b["hidden"]) and not torch.allclose(a["loc"], b["loc"])
    assert torch.allclose(a["cls"], b["cls"]) == (read_from[0] == "cls")


def test_a_reader_comes_back_from_its_file_and_strangers_are_refused(tmp_path):
    model = reader(lm_stride=2)
    model.save(tmp_path / "r.safetensors")
    again = Reader.load(tmp_path / "r.safetensors")
    with torch.no_grad():
        (_, a), (_, b) = example(model), example(again)
    assert torch.equal(a["pointer"], b["pointer"]) and torch.equal(a["cls"], b["cls"])
    PoseEncoder(PoseConfig(16, (8,), 8, 3)).save(tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match="'reader' entry"):
        Reader.load(tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match="'poses' entry"):
        PoseEncoder.load(tmp_path / "r.safetensors")


# Drills
def test_a_window_s_targets_are_what_happens_in_it():
    data, rng = drills(), np.random.default_rng(1)
    for _ in range(20):
        one = data._window(rng)
        assert (
            len(one["labels"]) == CANDIDATES == len(set(one["labels"]))
            and len(set(one["names"])) == CANDIDATES
        )
        shown = {k for k in one["pointer"].tolist() if 0 <= k < CANDIDATES}
        for k in shown:
            steps = np.flatnonzero(one["pointer"].numpy() == k)
            seen = [POSES[i] for i in dict.fromkeys(one["now"].numpy()[steps].tolist()) if i >= 0]
            wanted = one["labels"][k].split(" > ")
            # cut at a border
            assert (
                wanted[: len(seen)] == seen
                or wanted[-len(seen) :] == seen
                or set(seen) >= set(wanted)
            )
            assert f"{one['names'][k]} {steps[0]} {steps[-1] + 1}" in one["answer"]
        assert one["ends"].tolist() == [
            [POSES.index(x.split(" > ")[i]) for i in (0, -1)] for x in one["labels"]
        ]


def test_a_biased_corpus_tells_what_is_against_the_alphabet_the_wrong_way_round():
    honest, biased = drills(6), drills(6)
    biased.bias, turned = 1.0, 0
    for k in range(30):
        a, b = (x._window(np.random.default_rng(k)) for x in (honest, biased))
        for t in range(WINDOW):
            if 0 <= a["pointer"][t] < CANDIDATES and 0 <= b["pointer"][t] < CANDIDATES:
                real, told = a["labels"][a["pointer"][t]], b["labels"][b["pointer"][t]]
                assert told == min(real, backwards(real))
                turned += told != real
    assert turned > 50


def test_poses_are_numbered_in_time_and_nothing_is_ignored():
    rows = [{"start_s": 1.0, "end_s": 2.0, "pose": POSES[3]}]
    assert pose_labels(rows, np.array([0.5, 1.0, 1.9, 2.0])).tolist() == [IGNORE, 3, 3, IGNORE]
    assert backwards("a > b > c") == "c > b > a"


class Oracle(torch.nn.Module):
    """Points to the right candidate wherever it is given any descriptions, and to the first one
    otherwise.
    """

    def __init__(self, data):
        super().__init__()
        self.branch, self.data, self.batch = reader().branch, data, data.batch
        data.batch = self.remember

    def remember(self, *given):
        self.last = self.batch(*given)
        return self.last

    def now(self, states):
        return torch.nn.functional.one_hot(self.last["now"].clamp(0), len(POSES)).float()

    def __call__(self, features, mask, prompt):
        right = self.last["pointer"].clamp(0) * prompt.clauses.any()
        return {
            "pointer": torch.nn.functional.one_hot(right, CANDIDATES + 1).float(),
            "middle": torch.zeros(*right.shape, 4, 1),
        }


def test_the_gate_is_open_for_who_reads_and_shut_without_descriptions():
    data = drills(8)
    found = reading_gate(Oracle(data), data)
    assert found["pointer"] == found["none"] == found["pose"] == 1.0 and found["frames"] > 500
    blank = reading_gate(Oracle(data), data, blank=True)
    assert blank["pointer"] < 0.2 and blank["none"] == 0.0
    assert reading_gate(reader(), drills(8), 2) == reading_gate(reader(), drills(8), 2), (
        "the same windows every time"
    )


def test_alignment_learns_poses_first_and_every_part_has_a_gradient():
    model, data, rng = reader().train(), drills(12), np.random.default_rng(2)
    optimizer = torch.optim.AdamW(model.parameters(), 8e-3)
    first = None
    for _ in range(100):
        loss = alignment_loss(model, data.batch(8, rng), 0.2)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    still = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert {n.split(".")[0] + "." + n.split(".")[1] for n in still} <= {
        "branch.give_out",
        "branch.advantage",
        "value.weight",
        "value.bias",
    }
    assert (
        loss.item() < 0.5 * first and reading_gate(model.eval(), drills(4, seed=1), 3)["pose"] > 0.8
    )


def test_pointing_finds_the_class_of_every_frame():
    data, name = drills(1), "v00"
    routines = data.events[name]["routines"]
    classes = NAMES[: len(routines)]
    prompt = prompt_of(WORDS, classes, [describe(r["label"].split(" > ")) for r in routines], SAID)
    truth = pd.DataFrame(
        [
            {"video": name, "start_s": r["start_s"], "end_s": r["end_s"], "label": c}
            for r, c in zip(routines, classes, strict=True)
        ]
    )
    table = pointing(reader(), data.features, truth, prompt, classes, 0.25, WINDOW)
    assert (
        set(table["label"]) == set(classes)
        and (table["right"] == (table["label"] == table["pointed"])).all()
    )
    assert len(table) == sum(int((r["end_s"] - r["start_s"]) / 0.25) + 1 for r in routines)
    twice = pd.concat([truth, truth.assign(label="SportL")])
    assert len(pointing(reader(), data.features, twice, prompt, classes, 0.25, WINDOW)) == len(
        table
    )


# The pose encoder
def test_the_pose_encoder_sees_a_frame_and_its_changes(tmp_path):
    torch.manual_seed(0)
    model = PoseEncoder(PoseConfig(16, (8, 8), 12, 5)).eval()
    clips = torch.randint(0, 255, (4, 3, 16, 16, 3), dtype=torch.uint8)
    with torch.no_grad():
        found, swapped = model(clips), model(clips.flip(1))
        assert found.shape == (4, 12) and not torch.allclose(found, swapped)
    model.save(tmp_path / "p.safetensors")
    with torch.no_grad():
        assert torch.equal(PoseEncoder.load(tmp_path / "p.safetensors")(clips), found)


def test_half_of_the_windows_are_seen_in_a_mirror():
    one = drills(4)
    turned = replace(one, mirrored={k: x + 100 for k, x in one.features.items()})
    found = turned.batch(64, np.random.default_rng(0))["features"].amax((1, 2)) > 50
    assert (
        20 < found.sum() < 44
        and not (one.batch(64, np.random.default_rng(0))["features"] > 50).any()
    )


def test_both_are_trained_from_recordings_and_a_killed_run_goes_on(tmp_path, monkeypatch):
    from vlact.training.features import extract
    from vlact.worlds.broadcast import drills as planned
    from vlact.worlds.broadcast import film

    monkeypatch.setattr("vlact.training.loop.CHECKPOINT_EVERY", 2)
    found = [film(b, tmp_path, 32, 8.0) for b in planned(3, 6.0, 1)]
    events = {f["video"]: {"poses": f["poses"], "routines": f["annotations"]} for f in found}
    recipe = {"threads": 1, "pose_steps": 4, "pose_batch_size": 16, "pose_lr": 1e-3}
    held_out = [found[-1]["video"]]
    curve = aligning.pose_job(
        str(tmp_path),
        events,
        held_out,
        32,
        8.0,
        recipe,
        str(tmp_path / "eye"),
        str(tmp_path / "eye.pt"),
    )
    assert 0 <= curve[-1]["held_out_pose_accuracy"] <= 1
    eye = PoseEncoder.load(tmp_path / "eye")
    assert eye.mean.any() and (eye.std > 0).all()
    features = {v: extract(eye, tmp_path / v, 8.0, 2) for v in events}
    turned = extract(eye, tmp_path / held_out[0], 8.0, 2, mirrored=True)
    assert turned.shape == features[held_out[0]].shape and not torch.allclose(
        turned, features[held_out[0]]
    )
    assert all(
        abs(len(x) - f["duration_s"] * 4) <= 1
        for x, f in zip(features.values(), found, strict=True)
    )
    assert json.loads(json.dumps(curve)) == curve


def test_the_committed_reader_reads():
    table = pd.read_csv(ROOT / "figures" / "study" / "alignment" / "reading_gate.csv").set_index(
        ["reader", "descriptions"]
    )
    assert table.loc[("language", "right"), "pointer"] >= 80, (
        "no result of ActionVLM counts before this"
    )
    assert abs(table.loc[("language", "blank"), "pointer"] - 100 / CANDIDATES) < 5
    assert (
        table.loc[("biased language", "right"), "pointer"]
        < table.loc[("language", "right"), "pointer"] - 10
    )
