"""Experiments that need two of the papers: other wordings, and the weight of language for clips."""

import numpy as np
import pytest
import torch
import yaml
from torch.nn.functional import one_hot

from vlact import ROOT
from vlact.language.descriptions import WORDS, describe
from vlact.language.prompts import clauses, encode_clauses, prompt_of, tokenizer
from vlact.models.actionformer import ActionFormer, LocalizerConfig
from vlact.models.actionvlm import Reader, ReaderConfig
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.text import sentence_encoder
from vlact.papers import across
from vlact.papers.actionvlm import experiments as vl
from vlact.papers.actionvlm.localizing import Clock
from vlact.stages.across import READERS, runs_of

OTHERS = yaml.safe_load(
    (ROOT / "vlact" / "language" / "pose_names.yaml").read_text(encoding="utf-8")
)
SPORTS = "baseball pitch basketball dunk billiard clean jerk cliff div cricket bowl frisbee catch "
SPORTS += "golf hammer javelin vault shotput soccer penalty tennis discus volley racket bat barbell"


def test_new_wordings_are_new_and_name_no_sport():
    assert list(OTHERS) == list(WORDS) and {len(v) for v in OTHERS.values()} == {2}
    known = {w for wordings in WORDS.values() for w in wordings}
    every = [w for wordings in OTHERS.values() for w in wordings]
    assert not known & set(every) and all(clauses(f"the person {w}") == [w] for w in every)
    assert not [s for s in SPORTS.split() if any(s in w for w in every)]
    runs = runs_of(OTHERS)
    assert list(runs) == ["read 1", "read 2", "read 3", "new 1", "new 2"]
    assert (
        runs["read 1"]["leap"] == WORDS["leap"][:1] and runs["new 2"]["leap"] == OTHERS["leap"][1:]
    )


def test_clauses_are_standardised_by_the_words_of_training(tmp_path):
    plain = across.clause_features([WORDS, OTHERS])
    usual = encode_clauses(
        [f"the person {w}" for v in WORDS.values() for w in v], sentence_encoder()
    )
    assert all(torch.allclose(plain[k], usual[k], atol=1e-5) for k in usual) and len(plain) > len(
        usual
    )
    encoder = DualEncoder(DualConfig(32, 16, 4, 32, 1, 2, 12, 384, "mean"))
    encoder.save(tmp_path / "e.safetensors")
    passed = across.clause_features([WORDS, OTHERS], str(tmp_path / "e.safetensors"))
    with torch.no_grad():
        raw = encoder.text_projection(sentence_encoder()([f"the person {c}" for c in usual]))
    assert torch.allclose(
        torch.stack([passed[c] for c in usual]), (raw - raw.mean(0)) / raw.std(0), atol=1e-4
    )
    assert len(passed["runs"]) == 12 and set(passed) == set(plain)


def drills(videos=3, length=64):
    """Recordings of noise with many different drills: candidates are drawn until ten differ."""
    rng, poses, features, events = np.random.default_rng(0), sorted(WORDS), {}, {}
    for v in range(videos):
        rows, routines = [], []
        for first in range(0, 15, 3):
            names = [poses[int(k)] for k in rng.permutation(len(poses))[:3]]
            rows += [
                {"start_s": first + i, "end_s": first + i + 1.0, "pose": n}
                for i, n in enumerate(names)
            ]
            routines.append({"start_s": first, "end_s": first + 3.0, "label": " > ".join(names)})
        events[f"v{v}"] = {"poses": rows, "routines": routines}
        features[f"v{v}"] = torch.from_numpy(rng.normal(size=(length, 8)).astype(np.float32))
    return features, events


def test_a_reader_is_asked_in_three_kinds_of_words(tmp_path):
    from safetensors.torch import save_file

    features, events = drills()
    save_file(features, tmp_path / "f.safetensors")
    recipe = {
        "batch_size": 2,
        "noise": 0.1,
        "text_weight": 0.2,
        "hidden": 32,
        "layers": 1,
        "heads": 1,
        "lm_stride": 2,
        "steps": 2,
        "lr": 1e-3,
    }
    names = [f"Sport{c}" for c in "ABCDEFGHIJKL"]
    given = (
        str(tmp_path / "f.safetensors"),
        events,
        ["v2"],
        names,
        0.25,
        32,
        recipe,
        OTHERS,
        0,
        None,
    )
    rows = across.reading_job(True, "", *given)
    assert [r["words"] for r in rows] == ["usual", "drawn", "other"] and all(
        0 <= r["pointer"] <= 1 and r["frames"] for r in rows
    )
    assert across.reading_job(True, "", *given) == rows != across.reading_job(False, "", *given)
    assert {drawn for drawn, _ in READERS.values()} == {True, False}


def test_a_localizer_under_other_words(tmp_path):
    import json

    from safetensors.torch import save_file

    torch.manual_seed(0)
    poses = {"Leap": ["run left", "leap"], "Squat": ["squat", "rack"]}
    words = tokenizer(list(poses), 17)
    said = across.clause_features([WORDS])
    language = {"feature_dim": 8, "numbers": words.convert_tokens_to_ids("0")}
    reader = vl.lora(Reader(ReaderConfig(len(words), len(WORDS), 384, 16, 2, 1, 8, language)), 4)
    with torch.no_grad():
        for name, parameter in reader.named_parameters():
            if "lora" in name or "give_out" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    localizer = ActionFormer(
        LocalizerConfig(feature_dim=8, classes=2, dim=16, heads=2, embeds=1, stems=1, levels=2)
    )
    recipe = {"window": 16, "pre_nms_topk": 20, "nms": {"max_seg_num": 5}}
    mean, std = torch.zeros(8), torch.ones(8)
    whole = vl.ActionVLM(localizer, reader, mean, std, vl.Variant("row", 1.0), 16).eval()
    prompt = prompt_of(words, list(poses), [describe(p) for p in poses.values()], said)
    model = vl.VisionLanguageLocalizer(whole, list(poses), Clock(0.25), recipe, mean, std, prompt)
    model.save(tmp_path / "r.safetensors")
    features = {"a": torch.randn(40, 8)}
    save_file(features, tmp_path / "features.safetensors")
    save_file(said, tmp_path / "clauses.safetensors")
    (tmp_path / "words.json").write_text(
        json.dumps({"names": list(poses), "steps": 16}), encoding="utf-8"
    )
    runs = [{k: [w[0]] for k, w in WORDS.items()}, {k: [w[1]] for k, w in OTHERS.items()}]
    given = (
        str(tmp_path / "r.safetensors"),
        str(tmp_path / "features.safetensors"),
        {"a": 10.0},
        poses,
    )
    found = across.rename_localizer(*given, runs)
    assert found["run"].unique().tolist() == [-1, 0, 1]
    own = model.detect(features, {"a": 10.0})
    scores = {k: part["score"].to_numpy() for k, part in found.groupby("run")}
    assert np.allclose(scores[0], own["score"], atol=1e-6)
    assert not np.allclose(scores[1], scores[0], atol=1e-6) and not np.allclose(
        scores[-1], scores[0], atol=1e-6
    )


def clips(n, noise, trust, seed, classes=5):
    """Features that tell the class through noise, and scores by name that are right where `trust`
    says so.
    """
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=g)
    x = one_hot(y, classes).float() @ torch.randn(
        classes, 16, generator=torch.Generator().manual_seed(1)
    )
    right = torch.rand(n, generator=g) < trust
    named = torch.where(right, y, torch.randint(0, classes, (n,), generator=g))
    sure = torch.where(right, 6.0, 1.0)[:, None]  # language knows what it knows
    return x + noise * torch.randn(n, 16, generator=g), sure * one_hot(named, classes), y


def test_language_earns_its_weight_where_it_can_be_seen_to_help():
    seen = {
        "train": clips(300, 0.5, 1.0, 0),
        "held out": clips(300, 3.0, 0.5, 1),
        "test": clips(400, 3.0, 0.5, 2),
    }
    found = across.weigh(seen, 5, 0)
    y = seen["test"][2]
    right = {
        way: float((logits.argmax(1) == y).float().mean())
        for (way, _), (logits, _) in found.items()
    }
    assert right["oracle"] >= max(
        v for k, v in right.items() if k not in ("oracle", "language only")
    )
    assert right["fixed λ = 0"] + 0.1 < right["fixed λ = 1"]
    weight = {way: w for (way, _), (_, w) in found.items()}
    helps = weight["oracle"].bool()
    assert weight["selective"][helps].mean() > 1.2 * weight["selective"][~helps].mean()
    assert all(((w >= 0) & (w <= 1)).all() for w in weight.values())
    again = across.weigh(seen, 5, 0)
    assert all(torch.equal(found[k][0], again[k][0]) for k in found)


def test_opinions_are_sure_of_what_is_sure():
    vision, language = (
        torch.tensor([[9.0, 0, 0], [0.0, 0, 0]]),
        torch.tensor([[9.0, 0, 0], [0, 9.0, 0]]),
    )
    said = across.opinion(vision, language)
    assert said.shape == (2, 10) and said[0, 0] > 0.99 and said[1, 0] == pytest.approx(1 / 3)
    assert said[0, 4] < 0.01 < said[1, 4] and said[:, 9].tolist() == [1.0, 0.0]
