"""ActionVLM's training: what each row of the tables trains and reads, and the cross-fitted
selector.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from vlact.language.descriptions import WORDS, describe
from vlact.language.prompts import (
    INSTRUCTION,
    encode_clauses,
    language_of,
    prompt_of,
    targets,
    tokenizer,
)
from vlact.losses.actionvlm import ClassMeans, frame_classes, frame_loss
from vlact.losses.localization import assign, diou, focal, points
from vlact.models.actionformer import LocalizerConfig
from vlact.models.actionvlm import Reader, ReaderConfig, log_prior
from vlact.papers.actionvlm import experiments as vl
from vlact.papers.actionvlm.experiments import Selector, Setting, Variant, VisionLanguageLocalizer
from vlact.papers.actionvlm.localizing import Clock, Problem, Sequence, Windows, window

CLASSES = {"Leap": describe(["run left", "leap"]), "Squat": describe(["squat", "rack"])}
LENGTH = 16
RECIPE = {
    "window": LENGTH,
    "batch_size": 4,
    "epochs": 4,
    "noise": 0.1,
    "reg_weight": 1.0,
    "ema": 0.5,
    "lr": 2e-3,
    "weight_decay": 0.05,
    "rank": 4,
    "warm_epochs": 1,
    "pre_nms_topk": 2000,
    "nms": {"sigma": 0.5, "max_seg_num": 20},
}
CONFIG = LocalizerConfig(feature_dim=6, classes=2, dim=8, heads=2, embeds=1, stems=1, levels=2)


def features_of(strings):
    return torch.stack(
        [torch.randn(8, generator=torch.Generator().manual_seed(sum(map(ord, s)))) for s in strings]
    )


SAID = encode_clauses([f"the person {w}" for said in WORDS.values() for w in said], features_of)
TOKENS = tokenizer(list(CLASSES), LENGTH + 1)


@pytest.fixture
def reader(tmp_path):
    torch.manual_seed(0)
    language = {"feature_dim": 6, "numbers": TOKENS.convert_tokens_to_ids("0")}
    Reader(ReaderConfig(len(TOKENS), len(WORDS), 8, 16, 2, 1, 8, language)).save(
        tmp_path / "reader.safetensors"
    )
    Reader.load(tmp_path / "reader.safetensors").save(tmp_path / "biased_reader.safetensors")
    save_file(SAID, tmp_path / "clauses.safetensors")
    (tmp_path / "words.json").write_text(
        json.dumps({"names": list(CLASSES), "steps": LENGTH}), encoding="utf-8"
    )
    return tmp_path


def videos(n=4, seed=0, length=40):
    generator, out = torch.Generator().manual_seed(seed), []
    for i in range(n):
        x = 0.3 * torch.randn(length, 6, generator=generator)
        segments, labels = (
            torch.tensor([[4.0, 9.0], [18.0, 24.0], [30.0, 36.0]]),
            torch.tensor([i % 2, 1 - i % 2, i % 2]),
        )
        for (a, b), k in zip(segments.int().tolist(), labels.tolist(), strict=True):
            x[a:b, k] += 2
        out.append(Sequence(f"v{i}", length * 0.25, x, segments, labels))
    return out


def setting(train=None):
    prompt, bare = (
        prompt_of(TOKENS, list(CLASSES), list(CLASSES.values()), SAID, x) for x in (True, False)
    )
    return Setting(
        train or videos(),
        prompt,
        bare,
        TOKENS,
        list(CLASSES),
        CONFIG,
        RECIPE,
        LENGTH,
        torch.zeros(6),
        torch.ones(6),
    )


def trained(reader, variant, **more):
    return vl.train(setting(), replace(variant, **more), str(reader), 0)


VARIANTS = [
    Variant("vision"),
    Variant("fixed", 0.7),
    Variant("eq1", "eq1"),
    Variant("paired", "paired"),
    Variant("learned", "learned"),
    Variant("generated", "generated"),
    Variant("language only", 1.0, vision=False),
    Variant("no text", 1.0, text_weight=0.0, described=False, ground=False),
    Variant("random", 1.0, lm="random"),
    Variant("biased", 1.0, lm="biased"),
    Variant("noise", 1.0, lm="noise"),
    Variant("prior", 1.0, fusion="prior"),
    Variant("prior, eq1", "eq1", fusion="prior"),
    Variant("prior at test", 0.25, fusion="prior", joint=False),
    Variant("means lost", "eq1", repaired=False),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_every_row_trains_and_its_weight_lies_where_it_should(reader, variant):
    model, curve = trained(reader, variant)
    assert np.isfinite(curve[-1]["loss"]) and not model.training
    if not variant.reads:
        assert model.reader is None
        return
    x, mask, *_ = window(videos()[0], 0, LENGTH)
    with torch.no_grad():
        said = model.read(x[None], mask[None], setting().prompt)
        weight = model.weight(said)
    assert weight.shape == (1, LENGTH) and (weight >= 0).all() and (weight <= 1).all()
    if not isinstance(variant.weight, str):
        assert (weight == variant.weight).all()


def test_only_lora_and_what_speaks_of_frames_learn(reader):
    before = Reader.load(reader / "reader.safetensors").state_dict()
    model, _ = trained(reader, Variant("fixed", 1.0))
    after = {
        k.replace("base_model.model.", "").replace(".base_layer", ""): v
        for k, v in model.reader.state_dict().items()
    }
    moved = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert moved and all(k.startswith(("branch.give_out", "branch.advantage")) for k in moved)
    assert any("lora_B" in k and v.abs().sum() > 0 for k, v in model.reader.state_dict().items())


def test_lora_learns_at_a_rate_of_its_own(reader):
    frozen = replace(setting(), recipe=RECIPE | {"lora_lr": 0.0})
    model, _ = vl.train(frozen, Variant("fixed", 1.0), str(reader), 0)
    assert not any(v.any() for k, v in model.reader.state_dict().items() if "lora_B" in k)
    before = Reader.load(reader / "reader.safetensors").branch.give_out.state_dict()
    after = model.reader.branch.give_out.state_dict()
    assert not any(torch.equal(v, after[k]) for k, v in before.items())


def test_vision_epochs_are_the_same_steps_whatever_language_does(reader):
    """One epoch of any row is vision-only: until then all rows are one model."""
    found = [
        trained(reader, v, epochs=0.25)[0].localizer.state_dict()
        for v in (Variant("v"), Variant("f", 1.0), Variant("e", "eq1"))
    ]
    for k in found[0]:
        assert torch.equal(found[0][k], found[1][k]) and torch.equal(found[0][k], found[2][k]), k
    later = [
        trained(reader, v, epochs=0.5)[0].localizer.state_dict()
        for v in (Variant("v"), Variant("f", 1.0))
    ]
    assert any(not torch.equal(later[0][k], later[1][k]) for k in later[0])


def test_a_killed_run_goes_on_to_the_same_model(reader, tmp_path, monkeypatch):
    monkeypatch.setattr("vlact.training.loop.CHECKPOINT_EVERY", 3)
    variant, path = Variant("eq1", "eq1"), str(reader)
    whole, curve = vl.train(setting(), variant, path, 0, str(tmp_path / "a.pt"))
    steps = []

    def stop(*given, **more):
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(1)
        return vl_fit(*given, **more)

    vl_fit, real = vl.frame_losses, vl.frame_losses
    monkeypatch.setattr(vl, "frame_losses", stop)
    with pytest.raises(KeyboardInterrupt):
        vl.train(setting(), variant, path, 0, str(tmp_path / "b.pt"))
    monkeypatch.setattr(vl, "frame_losses", real)
    again, rest = vl.train(setting(), variant, path, 0, str(tmp_path / "b.pt"))
    assert rest == curve and all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_frame_losses_equal_one_row_at_a_time():
    generator, at = torch.Generator().manual_seed(0), points(LENGTH, 2)
    wanted = [
        (s, k, *assign(at, s, k, 2)) for *_, s, k in (window(v, 0, LENGTH) for v in videos(3))
    ]
    logits, distances = (
        torch.randn(3, 24, 2, generator=generator),
        torch.rand(3, 24, 2, generator=generator),
    )
    found, labels = vl.frame_losses(logits, distances, wanted, at, 2, LENGTH)
    for i, (segments, kinds, target, offset, owner) in enumerate(wanted):
        each = focal(logits[i], target).sum(1)
        for q in range(24):
            if owner[q] >= 0:
                each[q] += diou(distances[i, q], offset[q])
        label, mine = frame_classes(segments, kinds, LENGTH, 2)
        assert torch.allclose(
            found[i], frame_loss(each, owner, mine, at), atol=1e-6
        ) and torch.equal(labels[i], label)


def test_class_means_are_those_of_the_last_vision_epoch():
    means = ClassMeans(2)
    means.close()
    assert means.mean.isnan().all()
    means.add(torch.tensor([1.0, 3.0]), torch.tensor([0, 0]))
    means.add(torch.tensor([[5.0]]), torch.tensor([[2]]))
    assert means.mean.isnan().all()
    means.close()
    assert means.mean[0] == 2 and means.mean[1].isnan() and means.mean[2] == 5
    means.close()
    assert means.mean[0] == 2, "a language epoch adds nothing and leaves them"
    means.add(torch.tensor([7.0]), torch.tensor([1]))
    means.close()
    assert means.mean.tolist() == [2, 7, 5], "a class that the epoch did not meet keeps its mean"


def test_a_long_window_is_read_in_parts_that_do_not_know_of_each_other(reader):
    model, prompt = trained(reader, Variant("fixed", 1.0))[0], setting().prompt
    x, mask, *_ = window(videos(1)[0], 0, 2 * LENGTH)
    mask[-3:] = False
    whole = model.read(x[None], mask[None], prompt)
    for part in (slice(0, LENGTH), slice(LENGTH, 2 * LENGTH)):
        alone = model.read(x[None, part], mask[None, part], prompt)
        for key in ("cls", "loc", "advantage", "pointer"):
            assert torch.allclose(whole[key][:, part], alone[key], atol=1e-4), key


def test_answers_number_the_frames_of_each_part():
    cut = (
        torch.zeros(32, 6),
        None,
        torch.tensor([[4.0, 20.0], [16.0, 16.4], [25.0, 30.0]]),
        torch.tensor([1, 0, 0]),
    )
    assert vl.answers([cut], list(CLASSES), 16) == ["Squat 4 16", "Squat 0 4 ; Leap 9 14"]
    assert vl.answers([cut], list(CLASSES), 8)[1:3] == ["Squat 0 8", "Squat 0 4"]
    assert vl.answers([(cut[0], None, cut[2][:0], cut[3][:0])], list(CLASSES), 32) == ["nothing"]


# Conditions at test
def localizer(model, **more):
    return VisionLanguageLocalizer(
        model, list(CLASSES), Clock(0.25), RECIPE, torch.zeros(6), torch.ones(6), **more
    )


def test_conditions_change_what_they_say_and_nothing_else(reader):
    model, test = trained(reader, Variant("fixed", 1.0))[0], videos(2, seed=5)
    x, times, prompt = (
        {v.name: v.features for v in test},
        {v.name: v.duration_s for v in test},
        setting().prompt,
    )
    own = localizer(model, prompt=prompt).detect(x, times)
    off = localizer(model).detect(x, times)
    assert localizer(model, prompt=prompt, weight=1.0).detect(x, times).equals(own)
    assert localizer(model, prompt=prompt, weight=0.0).detect(x, times).equals(
        off
    ) and not own.equals(off)
    swapped = prompt_of(TOKENS, list(CLASSES), list(CLASSES.values())[::-1], SAID)
    assert not localizer(model, prompt=swapped).detect(x, times).equals(own)


def test_names_random_text_and_noise_stand_for_language(reader, tmp_path):
    given = problem(tmp_path), str(reader)
    conditions = {"names": "names", "random": "random text", "noise": "noise", "off": None}

    def found(name):
        out = str(tmp_path / name)
        job = (Variant("f", 1.0), *given, conditions, 0, out, f"{out}.pt")
        vl.vision_language_job(*job)
        return pd.read_parquet(f"{out}.parquet")

    first, again = found("a"), found("b")
    assert first.equals(again), "noise is the same whenever it is asked for"
    parts = [x.drop(columns="condition").to_numpy().tolist() for _, x in first.groupby("condition")]
    assert len(parts) == 5 and all(parts[i] != parts[j] for i in range(5) for j in range(i)), (
        "each condition is heard"
    )
    with pytest.raises(ValueError, match="expected one of .*got 'nonsense'"):
        job = (Variant("f", 1.0), *given, {"x": "nonsense"}, 0, str(tmp_path / "a"))
        vl.vision_language_job(*job, str(tmp_path / "c.pt"))


def test_held_out_choices_never_see_labels_of_what_they_are_scored_on(reader, monkeypatch):
    model, test = trained(reader, Variant("fixed", 1.0))[0], videos(5, seed=5)
    x, times = {v.name: v.features for v in test}, {v.name: v.duration_s for v in test}
    plain, fitted = localizer(model, prompt=setting().prompt), []
    real = vl.gains_of

    def seen(model, prompt, videos, *rest):
        fitted.append({v.name for v in videos})
        return real(model, prompt, videos, *rest)

    monkeypatch.setattr(vl, "gains_of", seen)
    found = vl.held_out(plain, test, x, times, noise=False)
    assert fitted == [{"v1", "v3"}, {"v0", "v2", "v4"}]
    assert set(found["video"]) == set(times) and set(found["condition"]) == {"held out"}
    # what it finds in one half does not depend on that half's labels
    others = [replace(v, labels=1 - v.labels) if i % 2 == 0 else v for i, v in enumerate(test)]
    same = vl.held_out(plain, others, x, times, noise=False)
    even = {v.name for v in test[::2]}
    assert same[same["video"].isin(even)].equals(found[found["video"].isin(even)])
    assert not same.equals(found)
    with pytest.raises(ValueError, match="two test recordings"):
        vl.held_out(plain, test[:1], x, times, noise=False)


# Language as a prior
def test_a_prior_is_added_to_the_logits_of_every_level():
    generator = torch.Generator().manual_seed(0)
    pointer, weight = torch.randn(2, 8, 4, generator=generator), torch.rand(2, 8)
    mask = torch.arange(8) < torch.tensor([[8], [5]])
    found, row = log_prior(pointer, mask, weight, [1, 2, 4]), 0
    assert found.shape == (2, 14, 3)
    for stride in (1, 2, 4):
        for first in range(0, 8, stride):
            for b in range(2):
                frames = [t for t in range(first, first + stride) if mask[b, t]]
                for c in range(3):
                    wanted = 0.0
                    if frames:
                        q = np.mean([pointer[b, t].softmax(0)[c].item() for t in frames])
                        mine = np.mean([weight[b, t].item() for t in frames])
                        wanted = mine * np.log(max(q, 0.01) * 4)
                    assert found[b, row, c].item() == pytest.approx(wanted, abs=1e-5)
            row += 1
    # a pointer that knows nothing adds nothing
    flat = log_prior(torch.zeros(1, 8, 4), mask[:1], torch.ones(1, 8), [1, 2])
    assert flat.abs().max() < 1e-6
    with pytest.raises(ValueError, match="fusion must be one of"):
        Variant("x", 1.0, fusion="sum")
    with pytest.raises(ValueError, match="needs vision's logits"):
        Variant("x", 1.0, fusion="prior", vision=False)


def test_a_prior_leaves_boundaries_to_vision_and_joins_at_test_if_asked(reader):
    x, mask, *_ = window(videos()[0], 0, LENGTH)
    vision = trained(reader, Variant("vision"))[0]
    late = trained(reader, Variant("late", 0.25, fusion="prior", joint=False))[0]
    for a, b in zip(
        vision.localizer.state_dict().values(), late.localizer.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), "trained on vision alone"
    with torch.no_grad():
        said = late.read(x[None], mask[None], setting().prompt)
        alone = vision.detect(x[None], mask[None], None, None)
        with_ = late.detect(x[None], mask[None], said, late.weight(said))
    assert torch.equal(alone[1], with_[1]) and not torch.equal(alone[0], with_[0])


# Windows
def test_an_epoch_takes_every_recording_and_every_class_whatever_comes_before():
    several = [*videos(5), *videos(2, seed=9, length=90)]
    windows = Windows(several, 40, 2, seed=3)
    assert windows.steps == 5, "five short ones, two of two windows"
    for epoch in range(3):
        cuts = [c for k in range(windows.steps) for c in windows(epoch * windows.steps + k)]
        first = {c[0][:1].sum().item() for c in cuts}
        assert {v.features[:1].sum().item() for v in several[:5]} <= first
        assert {k for c in cuts for k in c[3].tolist()} == {0, 1}
    again = Windows(several, 40, 2, seed=3)
    assert torch.equal(again(7)[1][0], windows(7)[1][0]), "a batch depends on its step alone"
    assert any(
        not torch.equal(a[0], b[0]) for a, b in zip(windows(0), windows(windows.steps), strict=True)
    )


# The selector
def test_ridge_is_scikit_s_and_finds_what_decides():
    from sklearn.linear_model import Ridge

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 15, generator=generator) * 3 + 1
    gain = 0.2 * x[:, 3] - 0.1 * x[:, 7] + 0.1 * torch.randn(400, generator=generator)
    found = Selector.fit(x, gain, 0.05)
    z = (x - x.mean(0)) / x.std(0)
    other = Ridge(alpha=0.05 * 400).fit(z.double().numpy(), gain.double().numpy())
    assert np.allclose(found.slope, other.coef_, atol=1e-5) and found.offset == pytest.approx(
        other.intercept_, abs=1e-5
    )
    weight = found(x)
    assert (weight[gain > 0.5] > 0.5).float().mean() > 0.9 and (
        weight[gain < -0.5] == 0
    ).float().mean() > 0.9
    assert weight.min() >= 0 and weight.max() < 1


def test_a_frame_is_as_certain_as_the_surest_point_over_it():
    at, logits = points(8, 2), torch.full((1, 12, 1), -9.0)
    logits[0, 2], logits[0, 8 + 3] = 2.0, 1.0
    found = vl.certainty(logits, at, 8)[0, :, 0]
    assert [round(v, 2) for v in found.tolist()] == [0, 0, 0.88, 0, 0, 0, 0.73, 0.73]


def test_each_fold_s_advantages_come_from_a_model_that_never_saw_it(reader, monkeypatch):
    seen = []

    def train(setting_, *given):
        seen.append({v.name for v in setting_.train})
        return "model", []

    def gains(model, prompt, mine, recipe):
        seen.append({v.name for v in mine})
        return torch.randn(9, 15), torch.randn(9)

    monkeypatch.setattr(vl, "train", train)
    monkeypatch.setattr(vl, "gains_of", gains)
    vl.cross_fit(setting(videos(7)), Variant("f", 1.0, folds=3), "reader", 0, "x.pt")
    names = {f"v{i}" for i in range(7)}
    assert len(seen) == 6 and all(
        a | b == names and not a & b for a, b in zip(seen[::2], seen[1::2], strict=True)
    )
    assert set.union(*seen[1::2]) == names


# Jobs
def problem(tmp_path, **more):
    train, test = videos(4), [replace(v, name=f"t{v.name}") for v in videos(2, seed=9)]
    save_file(
        {v.name: v.features.contiguous() for v in train + test}, tmp_path / "features.safetensors"
    )
    rows = [
        {
            "video": v.name,
            "start_s": a * 0.25,
            "end_s": b * 0.25,
            "label": list(CLASSES)[k],
            "duration_s": v.duration_s,
        }
        for v in train + test
        for (a, b), k in zip(v.segments.tolist(), v.labels.tolist(), strict=True)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "truth.parquet", index=False)
    times = {
        "train": {v.name: v.duration_s for v in train},
        "test": {v.name: v.duration_s for v in test},
    }
    shape = {
        k: getattr(CONFIG, k)
        for k in ("feature_dim", "classes", "dim", "heads", "embeds", "stems", "levels")
    }
    return Problem(
        str(tmp_path / "features.safetensors"),
        times,
        str(tmp_path / "truth.parquet"),
        CLASSES,
        {"step_s": 0.25},
        shape,
        RECIPE | more,
    )


def test_a_job_writes_detections_of_every_condition_and_a_row_a_frame(reader, tmp_path):
    given = problem(tmp_path), str(reader)
    conditions = {"language off": None, "deranged 0": [1, 0], "half": 0.5}
    vl.vision_language_job(
        Variant("f", 1.0, folds=2),
        *given,
        conditions,
        0,
        str(tmp_path / "o"),
        str(tmp_path / "o.pt"),
    )
    found, frames = (
        pd.read_parquet(tmp_path / "o.parquet"),
        pd.read_parquet(tmp_path / "o-frames.parquet"),
    )
    wanted = {
        "own",
        *conditions,
        "λ = 0.4",
        "selective",
        "held out",
        "held out, noise",
        "selective, deranged 0",
        "λ = 0.4, deranged 0",
    }
    assert (
        set(found["condition"]) == wanted
        and set(found["label"]) <= set(CLASSES)
        and set(found["video"]) == {"tv0", "tv1"}
    )
    assert (
        len(frames) == 80
        and frames["selected"].between(0, 1).all()
        and (frames["weight"] == 1).all()
    )


def test_answers_are_text_of_every_window_under_every_order(reader, tmp_path):
    given = problem(tmp_path), str(reader)
    vl.answer_job(*given, {"deranged 0": [1, 0]}, 0, str(tmp_path / "a"), str(tmp_path / "a.pt"))
    found = pd.read_parquet(tmp_path / "a.parquet")
    assert (
        found.groupby("condition").size().to_dict() == {"own": 6, "deranged 0": 6}
        and found["start"].isin([0, 16, 24]).all()
    )


def test_one_step_under_the_paper_s_shapes():
    """768 frames, four tokens each, 900 of text, Qwen2.5-1.5B's widths, LoRA of rank 128; one
    decoder layer of the 28.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from vlact.models.actionformer import ActionFormer
    from vlact.models.actionvlm import LanguageBranch, LanguageConfig, aggregate
    from vlact.models.cost import QWEN25_1B5, sequence_length

    q, frames, dim, rank = QWEN25_1B5, 768, 384, 128
    shape = Qwen2Config(
        vocab_size=q.vocabulary,
        hidden_size=q.hidden,
        intermediate_size=q.intermediate,
        num_hidden_layers=1,
        num_attention_heads=q.heads,
        num_key_value_heads=q.kv_heads,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    lm = Qwen2ForCausalLM._from_config(shape, attn_implementation="sdpa", dtype=torch.bfloat16)
    lm = get_peft_model(lm, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))
    trained = sum(p.numel() for p in lm.parameters() if p.requires_grad)
    assert trained == q.lora_weights(rank) // 28
    branch = LanguageBranch(lm, LanguageConfig(dim)).bfloat16()
    localizer = ActionFormer(
        LocalizerConfig(
            feature_dim=dim, classes=20, dim=64, heads=4, embeds=2, stems=2, levels=6, window=19
        )
    )
    x, mask = torch.randn(1, frames, dim), torch.ones(1, frames, dtype=torch.bool)
    prompt, target = (
        torch.randint(0, q.vocabulary, (1, 900)),
        torch.randint(0, q.vocabulary, (1, 60)),
    )
    seen = {}
    lm.base_model.model.model.register_forward_hook(
        lambda m, a, k, out: seen.update(n=out.last_hidden_state.shape[1]), with_kwargs=True
    )
    said = branch(x.bfloat16(), mask, prompt, torch.ones_like(prompt, dtype=torch.bool), target)
    weight = torch.full((1, frames), 0.245)
    found = localizer(
        aggregate(x, said["cls"].float(), weight), mask, aggregate(x, said["loc"].float(), weight)
    )
    at, segments, labels = (
        points(frames, 6),
        torch.tensor([[100.0, 140.0], [300.0, 420.0]]),
        torch.tensor([3, 7]),
    )
    each, _ = vl.frame_losses(
        *found[:2], [(segments, labels, *assign(at, segments, labels, 20))], at, 20, frames
    )
    (
        each.mean() + 0.1 * said["text_loss"] + 0.1 * (said["advantage"].float() ** 2).mean()
    ).backward()
    # start of text, and all of it but the last
    assert seen["n"] == sequence_length(frames) + 1 + 59
    learnt = [p for p in (*lm.parameters(), *localizer.parameters()) if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learnt)


# Stages
def test_no_result_counts_before_the_reader_reads(monkeypatch, tmp_path):
    from vlact import params
    from vlact.stages import actionvlm as stage

    monkeypatch.setattr(params, "ROOT", tmp_path)
    monkeypatch.setattr(stage, "alignment", lambda *a, **k: None)
    p = params.load("smoke", "gate", align__gate=0.8)
    (p.data / "aligned").mkdir(parents=True)
    pd.DataFrame([{"reader": "language", "descriptions": "right", "pointer": 0.41}]).to_csv(
        p.data / "aligned" / "gate.csv", index=False
    )
    with pytest.raises(ValueError, match="does not read: 0.41 .* expected 0.80"):
        stage.actionvlm(p)


# Published language models, as `paper` has them: small ones with the real layout
def publish(folder):
    """A transformers folder: a Qwen2 of random weights, in bf16 as published ones are, and a
    tokenizer that cuts words into pieces.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    whole, ends = Tokenizer(models.BPE()), ["<|endoftext|>", "<|im_end|>"]
    whole.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    whole.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    whole.train_from_iterator(
        CLASSES.values(),
        trainers.BpeTrainer(vocab_size=320, special_tokens=ends, initial_alphabet=letters),
    )
    PreTrainedTokenizerFast(
        tokenizer_object=whole, pad_token=ends[0], eos_token=ends[1]
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    Qwen2ForCausalLM(
        Qwen2Config(vocab_size=whole.get_vocab_size(), **shape, tie_word_embeddings=True)
    ).bfloat16().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def published(tmp_path):
    """The folder that the alignment stage leaves of one."""
    torch.manual_seed(0)
    Reader.over(lm := publish(tmp_path / "lm"), 6).save(tmp_path / "reader.safetensors")
    (tmp_path / "words.json").write_text(
        json.dumps({"folder": lm, "steps": LENGTH}), encoding="utf-8"
    )
    return tmp_path


def test_a_published_model_is_asked_in_words(published):
    words, steps, said = language_of(published)
    prompt = prompt_of(words, list(CLASSES), list(CLASSES.values()), said)
    assert (steps, said, prompt.clauses.shape[-1]) == (LENGTH, {}, 0)
    first, second = prompt.at[0].tolist()
    assert words.decode(prompt.ids[0, : first + 1]) == f"{INSTRUCTION} Leap: {CLASSES['Leap']}."
    assert (
        words.decode(prompt.ids[0, first + 1 : second + 1]) == f" Squat: {CLASSES['Squat']}."
        and second + 1 == prompt.ids.shape[1]
    )
    assert [words.decode([i for i in own if i >= 0]) for own in prompt.names[0].tolist()] == [
        " Leap",
        " Squat",
    ]
    assert (
        len(targets(words, ["Leap 3 17"])[0]) > 5
        and targets(words, ["Leap"])[0, -1] == words.eos_token_id
    )


def setting_of(folder):
    words, _, said = language_of(folder)
    prompt, bare = (
        prompt_of(words, list(CLASSES), list(CLASSES.values()), said, x) for x in (True, False)
    )
    return replace(setting(), prompt=prompt, bare=bare, words=words)


@pytest.mark.parametrize(
    "variant",
    [v for v in VARIANTS if v.reads and v.joint and v.lm != "biased"],
    ids=lambda v: v.name,
)
def test_every_row_trains_over_a_published_model(published, variant):
    """LoRA and all that is new learn; the model's own weights stay as they are, in their folder."""
    from safetensors.torch import load_file

    own = load_file(published / "lm" / "model.safetensors")
    start = Reader.load(published / "reader.safetensors")
    model, curve = vl.train(setting_of(published), variant, str(published), 0)
    lm, name = model.reader.branch.causal_lm(), "model.layers.0.mlp.up_proj"
    kept = torch.equal(lm.get_submodule(name).base_layer.weight.cpu(), own[f"{name}.weight"])
    assert kept == (variant.lm != "random") and np.isfinite([row["loss"] for row in curve]).all()
    moved = {k for k, v in model.reader.named_parameters() if v.requires_grad}
    assert (
        any("lora_A" in k for k in moved)
        and "branch.take_in.1.weight" in moved
        and not any("base_layer" in k for k in moved)
    )
    assert not torch.equal(model.reader.branch.take_in[1].weight, start.branch.take_in[1].weight)
    x, mask = torch.randn(2, LENGTH, 6), torch.ones(2, LENGTH, dtype=torch.bool)
    with torch.inference_mode():
        weight = model.weight(model.read(x, mask, setting_of(published).prompt))
    assert ((weight >= 0) & (weight <= 1)).all()


def test_a_published_model_is_not_in_the_files_of_what_was_trained_over_it(published):
    assert (published / "reader.safetensors").stat().st_size < 120_000
    model, _ = vl.train(setting_of(published), Variant("fixed", 0.7), str(published), 0)
    whole = localizer(model, prompt=setting_of(published).prompt)
    whole.save(published / "r.safetensors")
    found, features = (
        VisionLanguageLocalizer.load(published / "r.safetensors"),
        {v.name: v.features for v in videos(2, 9)},
    )
    from safetensors.torch import load_file

    assert not [
        k
        for k in load_file(published / "r.safetensors")
        if "base_layer" in k or "embed_tokens" in k
    ]
    durations = {v: 10.0 for v in features}
    pd.testing.assert_frame_equal(
        found.detect(features, durations), whole.detect(features, durations)
    )


def test_a_published_model_answers(published, tmp_path):
    vl.answer_job(
        problem(tmp_path),
        str(published),
        {"deranged 0": [1, 0]},
        0,
        str(tmp_path / "a"),
        str(tmp_path / "a.pt"),
    )
    assert len(pd.read_parquet(tmp_path / "a.parquet")) == 12


def test_what_a_published_model_must_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="make doctor PROFILE=paper"):
        Reader.over(str(tmp_path / "nowhere"), 6)


def test_real_videos_are_read_by_published_models(tmp_path, monkeypatch):
    """`paper`'s stages on the layouts of THUMOS14, ActivityNet and EPIC-Kitchens: features by
    VideoMAE, a reader over a language model, localizers, every row of ActionVLM."""
    from test_checkpoints import published_videomae

    from vlact import params, video
    from vlact.datasets import activitynet
    from vlact.stages.actionvlm import actionvlm, descriptions
    from vlact.stages.alignment import alignment
    from vlact.stages.kitchens import kitchens
    from vlact.stages.localizers import localizers

    monkeypatch.setattr(params, "ROOT", tmp_path)
    monkeypatch.setattr("vlact.models.files.ROOT", tmp_path)
    small, p = params.load("smoke"), params.load("paper", "films")
    p = replace(
        p,
        seeds=[0],
        workers=1,
        stadium=replace(p.stadium, fps=8),
        tal=replace(small.tal, epochs=2),
        vlm=replace(small.vlm, epochs=2),
    )
    torch.save(
        published_videomae(64) | {"patch_embed.proj.weight": torch.randn(64, 3, 2, 56, 56)},
        tmp_path / "v.pth",
    )
    given = {
        "encoder": str(tmp_path / "v.pth"),
        "language": publish(tmp_path / "lm"),
        "reach": 32,
        "lm_stride": 4,
    }
    p = replace(p, align=replace(p.align, **given))
    with pytest.raises(
        FileNotFoundError, match="ground_truth.json: profile 'paper' reads real data"
    ):
        alignment(p)
    source = p.data / "stadium"
    source.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    film = rng.integers(0, 255, (64, 32, 32, 3), dtype=np.uint8)
    for name in ("a", "b", "c", "d", "two"):
        shown = {"video": name, "split": "test" if name == "two" else "train", "duration_s": 8.0}
        rows += [
            shown | {"start_s": i * 0.4, "end_s": i * 0.4 + 0.4, "label": c}
            for i, c in enumerate(descriptions())
        ]
        if name != "two":
            video.write(source / f"v_{name}.mp4", film, 8)
    activitynet.write_ground_truth(pd.DataFrame(rows), source / "ground_truth.json")
    with pytest.raises(FileNotFoundError, match="1 of 5 videos are not there, for example 'two'"):
        alignment(p)
    video.write(source / "two.mp4", film[::-1], 8)
    (source / "descriptions.json").write_text(
        json.dumps({c: f"someone shows {c}" for c in reversed(descriptions())}), encoding="utf-8"
    )
    assert descriptions(p)["Diving"] == "someone shows Diving" and list(descriptions(p)) == list(
        descriptions()
    )
    long = [
        r | {"label": "Walking the dog" if r["label"] == "Diving" else r["label"]} for r in rows
    ]
    activitynet.write_ground_truth(pd.DataFrame(long), source / "sessions.json")
    with pytest.raises(
        ValueError,
        match="descriptions.json: no description of 'Walking the dog', one of 1 classes of "
        "sessions.json",
    ):
        descriptions(p, "sessions")
    (source / "descriptions.json").unlink()
    assert (
        descriptions(p, "sessions")["Walking the dog"] == "Walking the dog"
        and len(descriptions(p, "sessions")) == 20
    )
    alignment(p)
    made = (p.data / "aligned" / "reader.safetensors").stat().st_mtime_ns
    alignment(p)
    assert (p.data / "aligned" / "reader.safetensors").stat().st_mtime_ns == made
    localizers(p)
    actionvlm(p)
    frames, curves = (
        pd.read_parquet(p.data / "actionvlm" / "frames.parquet"),
        pd.read_csv(p.data / "actionvlm" / "curves.csv"),
    )
    assert {"full (Eq. 1)", "LM-generated λ"} <= set(frames["model"]) and curves[
        "loss"
    ].notna().all()
    assert not curves["model"].str.contains("biased").any() and set(frames["video"]) == {"two"}
    sessions = pd.read_parquet(p.data / "actionvlm" / "sessions.parquet")
    assert "full (Eq. 1)" in set(sessions["model"]) and "Walking the dog" in set(sessions["label"])
    with pytest.raises(
        FileNotFoundError,
        match="verb.json: profile 'paper' reads real data; expected .* vlact.datasets epic",
    ):
        kitchens(p)
    epic = p.data / "worlds" / "epic"
    shutil.copytree(source, epic, ignore=shutil.ignore_patterns("*.json"))
    for task, labels in (("verb", ("take", "put")), ("noun", ("tap", "board:chopping"))):
        named = [r | {"label": labels[i % 2]} for i, r in enumerate(rows)]
        activitynet.write_ground_truth(pd.DataFrame(named), epic / f"{task}.json")
    kitchens(p)
    found = pd.read_parquet(p.data / "kitchens" / "detections.parquet")
    assert set(found["model"]) == {"ActionFormer", "fixed λ = 1.0", "full (Eq. 1)"} and set(
        found["video"]
    ) == {"two"}
    assert (
        set(found["label"]) == {"take", "put", "tap", "board:chopping"}
        and (epic / "features.safetensors").is_file()
    )
