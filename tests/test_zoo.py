"""Every method of the zoo: it learns, trains what it says, keeps what never changes, and is what
its paper says.
"""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from vlact.language import tasks
from vlact.language.trees import ActionTexts
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.frames import FrameEncoder, inflate
from vlact.models.text import TextTower, sentence_encoder
from vlact.models.zoo import Recognizer
from vlact.models.zoo.ace import ACE, LITERAL, SLOW
from vlact.models.zoo.bike import BIKE, SHARPNESS
from vlact.models.zoo.lavila import LaViLa
from vlact.models.zoo.procvlr import ProcVLR
from vlact.models.zoo.text4vis import Text4Vis
from vlact.models.zoo.vifi import ViFi
from vlact.models.zoo.vifi_prompts import PROMPTS, TEXT_BLOCKS, ViFiPrompts
from vlact.papers.ace import finetuning
from vlact.papers.ace.finetuning import encode, finetune, frozen_features, take, wise_ft
from vlact.training.loop import autocast

BASE = ["fasten screw", "take block"]
ACTIONS = [("fasten", "screw"), ("take", "block")]
CONFIG = DualConfig(
    image_size=32, patch_size=16, num_frames=4, dim=32, depth=2, heads=2, embed_dim=12, text_dim=384
)
AMOUNTS = {"tau": 0.05, "batch_size": 8, "momentum": 0.5, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def words():
    task = tasks.dataset("ata")
    texts = sorted({*ActionTexts(ACTIONS, task.trees).texts, *BASE, "red", "blue", "bright"})
    return dict(zip(texts, sentence_encoder()(texts), strict=True))


def make(method, words):
    # untrained towers that tell red from blue
    seed = 0 if method in ("vifi", "vifi_prompts", "text4vis", "bike") else 3
    torch.manual_seed(seed)
    common = {"words": words, "base": BASE, "tau": 0.05}
    dual, frames = DualEncoder(CONFIG).eval(), FrameEncoder(CONFIG).eval()
    plan = ActionTexts(ACTIONS, tasks.dataset("ata").trees)
    return {
        "procvlr": lambda: ProcVLR(dual, blocks=1, **common),
        "lavila": lambda: LaViLa(dual, blocks=1, train_text=1.0, **common),
        "ace": lambda: ACE(dual, blocks=1, plan=plan, seed=seed, **common, **LITERAL),
        "slow": lambda: ACE(dual, blocks=1, plan=plan, seed=seed, **common, **SLOW),
        "ace_tower": lambda: ACE(
            dual,
            blocks=1,
            plan=plan,
            seed=seed,
            **common,
            **LITERAL,
            tower=TextTower(sentence_encoder(), plan.texts, 1),
        ),
        "vifi": lambda: ViFi(
            frames, TextTower(sentence_encoder(), list(words), 1), blocks=1, **common
        ),
        "vifi_prompts": lambda: ViFiPrompts(
            frames, TextTower(sentence_encoder(), list(words), TEXT_BLOCKS, PROMPTS), **common
        ),
        "text4vis": lambda: Text4Vis(frames, blocks=1, **common),
        "bike": lambda: BIKE(
            frames,
            blocks=1,
            lexicon=["red", "blue", "bright"] * 2,
            encode_text=sentence_encoder(),
            **common,
        ),
    }[method]()


METHODS = [
    "procvlr",
    "lavila",
    "ace",
    "slow",
    "ace_tower",
    "vifi",
    "vifi_prompts",
    "text4vis",
    "bike",
]
TRAINS = {  # what may change, by the start of the parameter's name; everything else must not
    "procvlr": (
        "encoder.trunk.encoder.layer.1",
        "encoder.trunk.layernorm",
        "encoder.video_projection",
    ),
    "lavila": (
        "encoder.trunk.encoder.layer.1",
        "encoder.trunk.layernorm",
        "encoder.video_projection",
        "encoder.text_projection",
    ),
    "vifi": (
        "clip.visual.transformer.resblocks.1",
        "clip.visual.ln_post",
        "clip.visual.proj",
        "clip.text_projection",
        "text.layers",
    ),
    "vifi_prompts": ("prompts", "text.prompts"),
    "text4vis": (
        "temporal",
        "clip.visual.transformer.resblocks.1",
        "clip.visual.ln_post",
        "clip.visual.proj",
    ),
}
TRAINS |= {"ace": TRAINS["lavila"], "slow": TRAINS["lavila"], "bike": TRAINS["text4vis"]}
TRAINS["ace_tower"] = (*TRAINS["lavila"], "tower.layers")


def problem(shuffled=False):
    """Red against blue clips; with shuffled labels there is nothing to learn."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % 2
    clips = torch.randint(0, 60, (32, 4, 32, 32, 3), generator=generator)
    clips = (clips + 150 * torch.eye(3, dtype=torch.long)[2 * labels][:, None, None, None]).to(
        torch.uint8
    )
    return clips, labels[torch.randperm(32, generator=generator)] if shuffled else labels


def accuracy(method, kept, labels):
    return float(
        (method.similarity(encode(method, kept), method.base).argmax(1) == labels).float().mean()
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_and_changes_only_what_it_trains(name, words):
    method, (clips, labels) = make(name, words), problem()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    kept, seen = frozen_features(method, clips), []
    finetune(
        method,
        [take(kept, slice(0, 24))] * 2,
        labels[:24],
        AMOUNTS,
        0.005,
        [10, 25],
        0,
        seen.append,
    )
    assert seen == [10, 25] and accuracy(method, kept, labels) > 0.9
    changed = {k for k, v in method.state_dict().items() if not torch.equal(v, before[k])}
    assert all(k.startswith(TRAINS[name]) for k in changed), changed
    assert all(any(k.startswith(part) for k in changed) for part in TRAINS[name])


def test_halfway_is_the_mean_of_before_and_after_and_a_copy(words):
    method, (clips, labels) = make("ace", words), problem()
    start = [p.detach().clone() for p, _ in method.trained()]
    untouched = {k: v.clone() for k, v in method.state_dict().items()}
    finetune(
        method, [frozen_features(method, clips)], labels, AMOUNTS, 0.05, [2], 0, lambda _: None
    )
    after = [p.detach().clone() for p, _ in method.trained()]
    mean = wise_ft(method, start)
    for (parameter, _), a, b in zip(mean.trained(), start, after, strict=True):
        assert torch.allclose(parameter, (a + b) / 2)
    assert all(torch.equal(p, b) for (p, _), b in zip(method.trained(), after, strict=True))
    trained = {id(p) for p, _ in mean.trained()}
    for name, p in mean.named_parameters():
        assert id(p) in trained or torch.equal(p, untouched[name])


def test_shuffled_labels_teach_nothing_and_trackers_hear_of_every_epoch(words, monkeypatch):
    method, (clips, labels) = make("ace", words), problem(shuffled=True)
    kept, heard = frozen_features(method, clips), []
    monkeypatch.setattr(finetuning.trackers, "log_of", lambda run: nullcontext(heard.append))
    finetune(method, [take(kept, slice(0, 24))], labels[:24], AMOUNTS, 0.05, [6], 0, lambda _: None)
    assert [row["step"] for row in heard] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(row["loss"]) and row["loss"] > 0 for row in heard)
    assert accuracy(method, take(kept, slice(24, 32)), labels[24:]) < 0.9


@pytest.mark.parametrize("name", ["ace", "vifi_prompts", "bike"])
def test_the_same_seed_gives_the_same_weights(name, words):
    def train():
        method, (clips, labels) = make(name, words), problem()
        finetune(
            method, [frozen_features(method, clips)], labels, AMOUNTS, 0.02, [1], 0, lambda _: None
        )
        return method.state_dict()

    one, two = train(), train()
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("name", ["procvlr", "vifi", "text4vis", "vifi_prompts"])
def test_what_is_kept_gives_the_scores_of_the_whole_model(name, words):
    method, (clips, _) = make(name, words), problem()
    with torch.no_grad():
        kept = method.frozen_features(clips[:3])
        encoder = method.encoder if name == "procvlr" else method.clip
        whole = {
            "procvlr": lambda: encoder(clips[:3]),
            "vifi": lambda: encoder(clips[:3]),
            # its temporal transformer starts as the identity
            "text4vis": lambda: encoder(clips[:3]),
            "vifi_prompts": lambda: None,
        }[name]()
        if whole is not None:
            assert torch.allclose(method.embed(kept), whole, atol=1e-5)
        else:  # prompts change the frozen model's answer
            assert not torch.allclose(method.embed(kept), encoder(clips[:3]), atol=1e-5)
        text = method.embed_texts(BASE)
        assert torch.allclose(
            method.scores(kept, [[b] for b in BASE]), method.embed(kept) @ text.T, atol=1e-5
        )
        both = method.scores(kept, [BASE])[:, 0]
        assert torch.allclose(both, method.scores(kept, [[b] for b in BASE]).mean(1), atol=1e-5)


def test_bike_weighs_frames_by_the_concept_like_a_loop(words):
    method, (clips, _) = make("bike", words), problem()
    with torch.no_grad():
        kept = {k: v.float() for k, v in method.frozen_features(clips[:3]).items()}
        names = [[b] for b in BASE]
        got, frames, actions = (
            method.scores(kept, names),
            method.frames(kept),
            method.actions(names),
        )
        for i in range(3):
            written = method.clip.embed_text(kept["attributes"][i : i + 1])[0]
            for c in range(2):
                weight = torch.softmax(
                    torch.stack([SHARPNESS * f @ actions[c] for f in frames[i]]), 0
                )
                pooled = normalize(
                    sum(w * f for w, f in zip(weight, frames[i], strict=True)), dim=0
                )
                assert got[i, c].item() == pytest.approx(
                    (pooled @ actions[c] + written @ actions[c]).item() / 2, abs=1e-5
                )


def test_inflation_sees_every_frame_as_the_image_tower_does():
    torch.manual_seed(0)
    config = DualConfig(**{**CONFIG.__dict__, "motion_input": False})
    frames, video = FrameEncoder(config).eval(), DualEncoder(config).eval()
    for p in (*frames.visual.parameters(),):
        torch.nn.init.normal_(p, std=0.1)
    inflate(video, frames)
    video.trunk.embeddings.time_embeddings.data.zero_()
    # a still picture
    clip = torch.randint(0, 255, (1, 1, 32, 32, 3), dtype=torch.uint8).expand(1, 4, -1, -1, -1)
    with torch.no_grad():
        got = video.trunk.layernorm(video.first(clip, 2))[:, 1:].mean(1)
        visual = frames.visual
        wanted, _ = visual._pool(frames.first(clip, 2).flatten(0, 1))
    assert torch.allclose(got[0], wanted[0], atol=1e-4)


def test_a_text_tower_of_any_depth_starts_as_the_sentence_encoder():
    encoder, texts = sentence_encoder(), ["pick up the block", "lay down side panel", "spin"]
    for blocks in (0, 2, 6):
        tower = TextTower(encoder, texts, blocks).eval()
        assert torch.allclose(tower(texts[::-1]), encoder(texts[::-1]), atol=1e-5)
    prompted = TextTower(encoder, texts, 6, prompts=3)
    assert {n for n, p in prompted.named_parameters() if p.requires_grad} == {"prompts"}
    assert not torch.allclose(prompted(texts), encoder(texts), atol=1e-3)


def test_autocast_changes_attention_by_rounding_only(words):
    method, (clips, _) = make("vifi", words), problem()
    with torch.no_grad():
        exact = method.embed(method.frozen_features(clips[:2]))
        with autocast():
            fast = method.embed(method.frozen_features(clips[:2]))
    assert torch.allclose(exact, fast, atol=0.03) and not torch.equal(exact, fast)


def test_the_interface_says_what_is_missing():
    method = Recognizer({}, ["take block"], 0.02)
    for call in (
        lambda: method.frozen_features(None),
        method.trained,
        lambda: method.embed({}),
        lambda: method.embed_texts([]),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_ace_without_anything_is_procvlr(words):
    """Ablations leave the plain softmax when everything is switched off."""
    off = {"leaf": False, "shadow": False, "fixed": True, "rand": False, "train_text": 0.0}
    torch.manual_seed(0)
    dual = DualEncoder(CONFIG).eval()
    plan = ActionTexts(ACTIONS, tasks.dataset("ata").trees)
    ace = ACE(dual, words, BASE, 0.05, 1, plan, seed=0, **off)
    plain = ProcVLR(dual, words, BASE, 0.05, 1)
    clips, labels = problem()
    kept = take(frozen_features(ace, clips), slice(0, 6))
    kept = {k: v.float() for k, v in kept.items()}
    assert ace.loss(kept, labels[:6]).item() == pytest.approx(
        plain.loss(kept, labels[:6]).item(), rel=1e-5
    )
    assert np.isfinite(ace.loss(kept, labels[:6]).item())
