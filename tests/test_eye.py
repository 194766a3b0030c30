"""ActionVLM on frames: its encoder sees what VideoMAE sees, keeps little, and learns with the rest;
Re2TAL's backbone keeps less still.
"""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from test_checkpoints import published_videomae
from test_known_answers import pixels, same, waves
from torch import nn

from vlact import video
from vlact.datasets import activitynet
from vlact.models.actionformer import LocalizerConfig
from vlact.models.adatad import EndToEnd, Tower, TowerConfig
from vlact.models.checkpoints import VideoMAE
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.eye import Eye, tower_of
from vlact.models.re2tal import Re2TAL, Re2TALConfig, ReSwin, ReSwinConfig
from vlact.models.wired import Propagated, Rewired
from vlact.papers.actionvlm import scaling
from vlact.papers.actionvlm.experiments import VisionLanguageLocalizer
from vlact.papers.actionvlm.localizing import seen_by
from vlact.tools.plans import kept_bytes
from vlact.training.features import Film


def test_a_tower_sees_what_a_published_videomae_sees(tmp_path):
    torch.save({"module": published_videomae()}, tmp_path / "v.pth")
    encoder = VideoMAE.load(tmp_path / "v.pth", num_frames=4, image_size=16, heads=2)
    clips = pixels(8, 16)
    with torch.no_grad():
        tokens = encoder.first(clips.unflatten(1, (2, 4))[0], 0)  # (2, 2 x 4, 16)
        expected = tokens.unflatten(1, (2, 4)).mean(2).flatten(0, 1)
        tower = tower_of(encoder)
        torch.testing.assert_close(tower(clips)[0], expected, atol=1e-5, rtol=1e-4)
        eye = Eye(tower, 4)  # half as many steps as tokens
        assert eye(clips.unflatten(1, (2, 4))).shape == (1, 2, 16)
    eye.save(tmp_path / "eye.safetensors")
    again = Eye.load(tmp_path / "eye.safetensors")
    torch.testing.assert_close(again.features(clips), eye.features(clips))


def test_activations_that_are_computed_again_are_not_kept():
    """By window, in clips: with ordinary backpropagation several times as steep."""
    curve = {}
    for save_memory in (False, True):
        tower = Tower(TowerConfig(16, 4, 2, patch=8, num_frames=4, image_size=16), save_memory)
        run = lambda clips, tower=tower: kept_bytes(  # noqa: E731
            tower, lambda: tower.train()(pixels(4 * clips, 16)).sum()
        )[0]
        curve[save_memory] = run(4) - run(2)
    assert 0 < curve[True] < 0.3 * curve[False]


WIDE = 64  # a head of attention


def run_on_frames(tmp_path, *more) -> int:
    """ActionVLM on six films of a block that moves left or right, by the command line."""
    from vlact.language.prompts import tokenizer
    from vlact.models.actionvlm import Reader, ReaderConfig

    torch.manual_seed(0)
    rng, rows, names = np.random.default_rng(0), [], ["left", "right"]
    (films := tmp_path / "films").mkdir(exist_ok=True)
    for i in range(6):
        frames = np.full((80, 16, 16, 3), 40, np.uint8)
        for t in range(20, 50):
            x = (t % 12, 11 - t % 12)[i % 2]
            frames[t, 4:12, x : x + 4] = rng.integers(100, 255)
        video.write(films / f"v{i}.mp4", frames, 4)
        rows.append((f"v{i}", 5.0, 12.5, names[i % 2], "training", 20.0))
    columns = ["video", "start_s", "end_s", "label", "split", "duration_s"]
    activitynet.write_ground_truth(pd.DataFrame(rows, columns=columns), tmp_path / "truth.json")
    torch.save({"module": published_videomae(WIDE)}, tmp_path / "v.pth")
    texts = {"left": "the block first rests, then goes left", "right": "it rests, then goes right"}
    (folder := tmp_path / "aligned").mkdir(exist_ok=True)
    words = tokenizer(list(texts), 33)
    language = {"feature_dim": WIDE, "numbers": words.convert_tokens_to_ids("0")}
    shape = ReaderConfig(len(words), 3, 8, 16, 2, 2, 4, language)
    Reader(shape).save(folder / "reader.safetensors")
    from vlact.language.prompts import clauses

    said = {c: torch.randn(8) for t in texts.values() for c in clauses(t)}
    save_file(said, folder / "clauses.safetensors")
    (folder / "words.json").write_text(json.dumps({"names": names, "steps": 32}), encoding="utf-8")
    (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    options = "--profile smoke --kind ActionVLM --steps 4 --every 4 --batch-size 2 --workers 0"
    options += " --step-s 0.5 --fps 4 --size 16 --lr 1e-3 --slow-lr 1e-4 --ema 0.5"
    given = [tmp_path / "truth.json", films, tmp_path / "out", "--aligned", folder]
    given += ["--descriptions", tmp_path / "texts.json", "--encoder", tmp_path / "v.pth"]
    return scaling.main([*map(str, given), *options.split(), *more])


def test_actionvlm_learns_on_frames_with_its_encoder(tmp_path):
    assert run_on_frames(tmp_path) == 0
    eye = Eye.load(tmp_path / "out" / "eye.safetensors")
    before = tower_of(VideoMAE.load(tmp_path / "v.pth", image_size=16)).state_dict()
    moved = {k: (x - before[k]).abs().max() for k, x in eye.tower.state_dict().items()}
    assert moved.pop("pos_embed") == 0 and 0 < max(moved.values()) < 2e-3  # four steps at 1e-4
    finder = VisionLanguageLocalizer.load(tmp_path / "out" / "actionvlm.safetensors")
    film = Film(tmp_path / "films" / "v0.mp4", 4, 2, 8, 16)
    seen = {"v0": seen_by(eye, film, 32)}
    assert seen["v0"].shape == (len(film), WIDE)
    assert set(finder.detect(seen, {"v0": 20.0})["label"]) <= {"left", "right"}


def test_what_cannot_be_trained_on_frames(tmp_path, capsys):
    assert run_on_frames(tmp_path, "--kind", "TriDet") == 1
    assert "--encoder: expected --kind ActionVLM; got TriDet" in capsys.readouterr().err
    (tmp_path / "films" / "v0.mp4").unlink()
    assert run_on_frames(tmp_path, "--fps", "1") == 1
    assert "expected a frame or more a step" in capsys.readouterr().err


# Re2TAL
SMALL = ReSwinConfig(8, (2, 2), (2, 4), (2, 3, 3))
SEEN = [-1.441347, 1.756455, 0.557175, -0.667637, -1.461459, 1.702231, 0.62584, -0.673967]
SEEN += [-1.437245, 2.029226, 0.309499, -0.655306, -1.531798, 1.789401, 0.728442, -0.746456]
NORM = 129.73592  # of the gradient of sum(seen^2) by the weights that make tokens


def weights(model):
    return waves({k: x for k, x in model.state_dict().items() if "_index" not in k})


def test_re2tal_sees_what_its_authors_code_sees_and_learns_the_same():
    """OpenTAD at 3dd7b03 over MMAction2 at 4d6c934."""
    found = {}
    for reversible in (True, False):
        model = ReSwin(SMALL, reversible)
        model.load_state_dict(weights(model), strict=False)
        seen = model(pixels(8, 28))
        seen.square().sum().backward()
        found[reversible] = [p.grad for p in model.parameters()]
        same(seen[0, :, :4], SEEN, atol=1e-5)
        assert model.patch_embed.proj.weight.grad.norm().item() == pytest.approx(NORM, rel=1e-4)
    for a, b in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(a, b, atol=1e-3 * b.abs().max().item(), rtol=1e-3)


def test_reversible_stages_keep_as_much_however_deep_they_are():
    kept = {}
    for reversible in (True, False):
        for depth in (2, 4):
            model = ReSwin(ReSwinConfig(8, (depth,), (2,), (2, 3, 3)), reversible)
            kept[reversible, depth] = kept_bytes(model, lambda m=model: m(pixels(8, 28)).sum())[0]
    assert kept[True, 4] == kept[True, 2] < 0.4 * kept[False, 2]
    assert kept[False, 4] > 1.7 * kept[False, 2]


def test_a_file_of_re2tal_loads_by_its_authors_names(tmp_path):
    from vlact.models import localizer_checkpoints as checkpoints

    shape = LocalizerConfig(16, 2, dim=16, heads=2, levels=3, official=True, opentad=True)
    model = Re2TAL(Re2TALConfig(shape, SMALL))
    names = {new.replace("\\1", "{}"): old for old, new in checkpoints.OPENTAD}
    assert names and model.config is shape
    state = {f"backbone.model.backbone.{k}": x for k, x in weights(model.tower).items()}
    torch.save({"state_dict": state}, tmp_path / "r.pth")
    assert checkpoints.kind_of(checkpoints.read(tmp_path / "r.pth")) == "Re2TAL"
    with pytest.raises(ValueError, match="holds Re2TAL; expected ActionFormer"):
        from vlact.models.actionformer import ActionFormer

        checkpoints.load(tmp_path / "r.pth", ActionFormer(LocalizerConfig(16, 2)))
    with torch.no_grad():
        frames = pixels(16, 28).unflatten(1, (8, 2))
        logits, _, valid = model.eval()(frames, torch.ones(1, 8, dtype=torch.bool))
    assert logits.shape == (1, 14, 2) and valid.all()


# In the encoder made here
@pytest.fixture
def encoder():
    torch.manual_seed(0)
    shape = {"image_size": 32, "patch_size": 16, "num_frames": 4, "dim": 16, "depth": 3, "heads": 4}
    return lambda: DualEncoder(DualConfig(**shape, embed_dim=8, text_dim=8, pool="mean"))


def test_a_rewired_encoder_learns_as_by_ordinary_backpropagation_and_keeps_less(encoder):
    start, clip, found = encoder(), pixels(8, 32), {}
    for reversible in (True, False):
        model = Rewired(copy.deepcopy(start), nn.Identity(), 2, reversible).train()
        kept, seen = kept_bytes(model, lambda m=model: m.features(clip))
        seen.square().sum().backward()
        grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        found[reversible] = kept, seen.detach(), grads
    torch.testing.assert_close(found[True][1], found[False][1])
    assert found[True][0] < 0.65 * found[False][0] and len(found[True][2]) > 60
    for name, grad in found[False][2].items():
        torch.testing.assert_close(found[True][2][name], grad, atol=1e-4, rtol=1e-3)
    # the weights it had, all of them
    own = sum(p.numel() for p in start.trunk.parameters())
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == own


def test_propagation_starts_as_the_encoder_and_reaches_over_the_borders_of_clips(encoder):
    start, clip = encoder(), pixels(8, 32)
    plain = EndToEnd(copy.deepcopy(start), nn.Identity(), adapted=False).eval()
    model = Propagated(copy.deepcopy(start), nn.Identity()).eval()
    other = clip.clone()
    other[:, 4:] = 255 - other[:, 4:]  # the second of two clips
    with torch.no_grad():
        tokens = model.encoder.first(clip.unflatten(1, (2, 4))[0], 0)
        torch.testing.assert_close(model.through(tokens, 1, 4), plain.through(tokens, 1, 4))
        model.after = nn.ModuleList()
        torch.testing.assert_close(model.features(clip)[:, :4], model.features(other)[:, :4])
        for attention in model.inner.values():
            nn.init.eye_(attention.proj.weight)
        assert (model.features(clip) - model.features(other))[:, :4].abs().max() > 1e-3
