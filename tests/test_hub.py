"""Models as folders that others can load: what comes back gives the same answers, and what does not
fit says so.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from vlact import ROOT, video
from vlact.hub import ActionLocalizer, ActionRecognizer, MotionRecognizer, VisionLanguageLocalizer
from vlact.language.descriptions import WORDS, describe
from vlact.language.prompts import encode_clauses, prompt_of, tokenizer
from vlact.models.actionformer import ActionFormer, LocalizerConfig
from vlact.models.actionvlm import Reader, ReaderConfig
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.frames import FrameEncoder
from vlact.papers.actionvlm import experiments as vl
from vlact.papers.actionvlm.localizing import Clock, Localizer

SMALL = DualConfig(32, 16, 4, 32, 1, 2, 16, 384, "mean")


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.mp4"
    video.write(path, np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), dtype=np.uint8), 8)
    return path


@pytest.mark.parametrize("kind", [DualEncoder, FrameEncoder])
def test_a_namer_comes_back_and_names_alike(kind, film, tmp_path):
    torch.manual_seed(0)
    model = ActionRecognizer(kind(SMALL), tau=0.1)
    found = model.predict(film, ["drop", "spin", "push"])
    assert found["score"].sum() == pytest.approx(1) and found["score"].is_monotonic_decreasing
    model.save_pretrained(tmp_path / "model")
    loaded = ActionRecognizer.from_pretrained(tmp_path / "model")
    again = loaded.predict(film, ["drop", "spin", "push"])
    assert found.equals(again)
    files = {p.name for p in (tmp_path / "model").iterdir()}
    assert files == {"encoder.safetensors", "vlact.json", "config.json", "README.md"}
    assert "ActionRecognizer.from_pretrained" in (tmp_path / "model" / "README.md").read_text()
    part = model.predict(film, ["drop", "spin"], 1.0, 2.0)
    assert set(part["name"]) == {"drop", "spin"}
    with pytest.raises(ValueError, match="names must be two or more"):
        model.predict(film, ["drop"])
    with pytest.raises(
        ValueError, match=r"film.mp4: expected 0 <= start_s < end_s <= 5.000; got 2.0 and 9.0"
    ):
        model.predict(film, ["drop", "spin"], 2.0, 9.0)


def test_a_finder_comes_back_and_finds_alike(film, tmp_path):
    torch.manual_seed(0)
    shape = LocalizerConfig(feature_dim=32, classes=2, dim=16, heads=2, embeds=1, stems=1, levels=2)
    recipe = {
        "window": 16,
        "pre_nms_topk": 20,
        "nms": {"method": "gaussian", "sigma": 0.5, "max_seg_num": 5},
    }
    localizer = Localizer(
        ActionFormer(shape).eval(),
        ["drop", "spin"],
        Clock(0.25),
        recipe,
        torch.zeros(32),
        torch.ones(32),
    )
    model = ActionLocalizer(DualEncoder(SMALL), localizer, fps=8.0, stride=2)
    found = model.predict(film)
    assert len(found) and found["end_s"].max() <= 5.0 + 1e-6 and set(found["video"]) == {"film.mp4"}
    model.save_pretrained(tmp_path / "model")
    assert ActionLocalizer.from_pretrained(tmp_path / "model").predict(film).equals(found)


@pytest.mark.parametrize(
    "options",
    [
        {"branches": True, "decorrelate": 0.1, "consistent": 0.5},
        {"head": "less mean", "dynamic": True},
        {"branches": True, "independent": 0.1, "adversary": 0.1, "tempo": True},
    ],
)
def test_a_motion_recognizer_comes_back_and_names_alike(options, film, tmp_path):
    torch.manual_seed(0)
    FrameEncoder(SMALL).save(tmp_path / "clip.safetensors")
    trunk, names = {"tau": 0.05, "frames": 4}, ["rising", "falling"]
    fine = ["rising quickly", "rising slowly", "falling down"]
    clip = tmp_path / "clip.safetensors"
    model = MotionRecognizer.build(clip, names, fine, [0, 0, 1], trunk, options)
    with torch.no_grad():
        for parameter in model.model.parameters():  # as if trained
            parameter.add_(0.05 * torch.randn_like(parameter))
    found = model.predict(film)
    assert sorted(found["name"]) == sorted(names) and found["score"].sum() == pytest.approx(1)
    model.save_pretrained(tmp_path / "model")
    again = MotionRecognizer.from_pretrained(tmp_path / "model")
    assert again.predict(film).equals(found) and again.model.parent.tolist() == [0, 0, 1]
    assert {p.name for p in (tmp_path / "model").iterdir()} == {
        "encoder.safetensors",
        "motion.safetensors",
        "vlact.json",
        "README.md",
    }


def test_models_take_their_text_tower_along(film, tmp_path):
    from test_checkpoints import published_clip

    from vlact.models import checkpoints
    from vlact.models.text import sentence_encoder

    published_clip(path := tmp_path / "c.safetensors")
    clip, _ = checkpoints.openai_clip(path, 4)
    clip.config = vl.replace(clip.config, text=str(path))
    clip.save(tmp_path / "clip.safetensors")
    namer = ActionRecognizer(clip)
    mover = MotionRecognizer.build(
        tmp_path / "clip.safetensors",
        ["rising", "falling"],
        ["rising fast", "falling"],
        [0, 1],
        {"tau": 0.05},
        {},
    )
    found = namer.predict(film, ["drop", "spin"]), mover.predict(film)
    for name, model in (("namer", namer), ("mover", mover)):
        model.save_pretrained(tmp_path / name)
        assert (tmp_path / name / "text.safetensors").read_bytes() == path.read_bytes()
    path.unlink()
    sentence_encoder.cache_clear()
    again = (
        ActionRecognizer.from_pretrained(tmp_path / "namer").predict(film, ["drop", "spin"]),
        MotionRecognizer.from_pretrained(tmp_path / "mover").predict(film),
    )
    assert all(a.equals(b) for a, b in zip(found, again, strict=True))
    (tmp_path / "namer" / "text.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match="text.safetensors: expected a file that `save_pretrained` wrote"
    ):
        ActionRecognizer.from_pretrained(tmp_path / "namer")


@pytest.mark.parametrize("weight", [0.7, "eq1"])
def test_an_actionvlm_comes_back_and_finds_alike(weight, film, tmp_path):
    torch.manual_seed(0)
    classes = {"Leap": describe(["run left", "leap"]), "Squat": describe(["squat", "rack"])}
    words = tokenizer(list(classes), 17)
    said = encode_clauses(
        [f"the person {w}" for x in WORDS.values() for w in x], lambda x: torch.randn(len(x), 8)
    )
    language = {"feature_dim": 32, "numbers": words.convert_tokens_to_ids("0")}
    variant = vl.Variant("row", weight, read_from=("cls", "cls", "adv"))
    reader = vl.lora(Reader(ReaderConfig(len(words), len(WORDS), 8, 16, 2, 1, 8, language)), 4)
    reader.branch.config = vl.replace(reader.branch.config, read_from=variant.read_from)
    with torch.no_grad():
        for name, parameter in reader.named_parameters():  # LoRA starts as nothing
            if "lora" in name or "give_out" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    localizer = ActionFormer(
        LocalizerConfig(feature_dim=32, classes=2, dim=16, heads=2, embeds=1, stems=1, levels=2)
    )
    recipe = {
        "window": 16,
        "pre_nms_topk": 20,
        "nms": {"method": "gaussian", "sigma": 0.5, "max_seg_num": 5},
    }
    mean, std = torch.full((32,), 0.1), torch.full((32,), 0.9)
    whole = vl.ActionVLM(localizer, reader, mean, std, variant, 16).eval()
    prompt = prompt_of(words, list(classes), list(classes.values()), said)
    model = VisionLanguageLocalizer(
        DualEncoder(SMALL),
        vl.VisionLanguageLocalizer(whole, list(classes), Clock(0.25), recipe, mean, std, prompt),
        8.0,
        2,
    )
    found = model.predict(film)
    model.save_pretrained(tmp_path / "model")
    again = VisionLanguageLocalizer.from_pretrained(tmp_path / "model").predict(film)
    assert len(found) and again.equals(found)
    deaf = vl.replace(model.localizer, prompt=None, heard={})
    alone = VisionLanguageLocalizer(model.encoder, deaf, 8.0, 2).predict(film)
    assert not np.allclose(alone["score"], found["score"], atol=1e-4)


def test_a_folder_of_another_kind_says_so(film, tmp_path):
    ActionRecognizer(DualEncoder(SMALL)).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="vlact.json: expected a ActionLocalizer"):
        ActionLocalizer.from_pretrained(tmp_path / "model")
    note = tmp_path / "model" / "vlact.json"
    note.write_text(json.dumps({"kind": "ActionRecognizer", "encoder": "os.system"}))
    with pytest.raises(ValueError, match="with an encoder of"):
        ActionRecognizer.from_pretrained(tmp_path / "model")
    note.unlink()
    with pytest.raises(FileNotFoundError, match="expected a file that `save_pretrained` wrote"):
        ActionRecognizer.from_pretrained(tmp_path / "model")


def test_importing_the_hub_waits_for_large_libraries():
    large = ("open_clip", "transformers", "peft", "numba", "sklearn", "pandas", "matplotlib")
    code = f"import sys, vlact.hub; print([m for m in {large} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
