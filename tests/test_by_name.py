"""Models by name: what they answer is what their own library answers on the same pixels.

Weights are random, shapes are those of the libraries' configurations, small in width and depth;
`make fuzz` takes the published shapes, too.
"""

import json
import os

import numpy as np
import pytest
import torch

from vlact import hub
from vlact.models import by_name

SIDE, FRAMES = 32, 4
VIT = {"image_size": SIDE, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16}
RESNET = {"image_size": SIDE, "width": 8, "layers": [1, 1, 1, 1]}
CONVNEXT = {"image_size": SIDE, "timm_model_name": "convnext_atto", "timm_proj": "linear",
            "timm_pool": "avg"}  # fmt: skip
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 64, "image_size": SIDE, "num_frames": FRAMES}  # fmt: skip
LABELS = {"id2label": {0: "drop", 1: "spin", 2: "lift"}}
MEAN, STD = [0.4, 0.45, 0.5], [0.2, 0.25, 0.3]


WHOLE = pytest.mark.skipif(not os.environ.get("VLACT_FUZZ"), reason="whole models: make fuzz")


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture
def clips():
    return noise(2, FRAMES, SIDE, SIDE)


def pixels(clips):
    """By hand: (B, T, 3, H, W)."""
    x = torch.tensor(clips).permute(0, 1, 4, 2, 3).double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    return ((x - mean) / std).float()


def saved(folder, name, **more):
    """A folder of transformers with random weights; the library's own model."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, name.split("For")[0].removesuffix("Model") + "Config")(**more)
    model = getattr(transformers, name)(config).eval()
    model.save_pretrained(folder)
    said = {"do_normalize": True, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return model


def same_classifier(theirs, folder, clips):
    """Ours, which says what theirs says of these clips."""
    ours = hub.load(f"transformers:{folder}")
    assert ours.describe() == {"num_frames": clips.shape[1], "image_size": clips.shape[2]}
    with torch.no_grad():
        expected = theirs(pixel_values=pixels(clips)).logits
        # the features are what the head sees
        again = theirs.classifier(torch.tensor(ours.encode(clips)))
    assert torch.allclose(torch.tensor(ours.classify(clips)), expected, atol=1e-5)
    assert torch.allclose(again, expected, atol=1e-5)
    return ours


@WHOLE
@pytest.mark.fuzz
@pytest.mark.parametrize("name, frames", [("VideoMAE", 16), ("Timesformer", 8)])
def test_a_video_classifier_of_the_published_shape(name, frames, tmp_path):
    theirs = saved(tmp_path, f"{name}ForVideoClassification")
    assert theirs.config.hidden_size == 768 and theirs.config.num_hidden_layers == 12
    same_classifier(theirs, tmp_path, noise(1, frames, 224, 224))


@pytest.mark.parametrize("name, given", [
    ("VideoMAEForVideoClassification", {"patch_size": 16, "tubelet_size": 2}),
    ("TimesformerForVideoClassification", {"patch_size": 16}),
    ("VivitForVideoClassification", {"tubelet_size": [2, 16, 16]}),
])  # fmt: skip
def test_a_video_classifier_answers_as_its_library_does(name, given, clips, tmp_path):
    theirs = saved(tmp_path, name, **SHAPE, **given, **LABELS)
    ours = same_classifier(theirs, tmp_path, clips)
    assert ours.classes == ["drop", "spin", "lift"]
    with pytest.raises(ValueError, match=r"expected uint8 clips \(B, 4, 32, 32, 3\); got"):
        ours.encode(clips[:, :3])


def test_a_video_encoder_without_a_head_gives_the_mean_of_its_tokens(clips, tmp_path):
    theirs = saved(tmp_path, "VideoMAEModel", **SHAPE, patch_size=16, tubelet_size=2)
    ours = hub.load(f"transformers:{tmp_path}")
    with torch.no_grad():
        expected = theirs(pixel_values=pixels(clips)).last_hidden_state.mean(1)
    assert np.allclose(ours.encode(clips), expected, atol=1e-5) and ours.classes == []
    with pytest.raises(ValueError, match="has no classifier"):
        ours.classify(clips)


@pytest.mark.parametrize("dim, depth", [
    (64, 1), pytest.param(768, 12, marks=[WHOLE, pytest.mark.fuzz]),
])  # fmt: skip
def test_videomae_of_its_authors_gives_what_its_head_sees(dim, depth, tmp_path):
    from test_checkpoints import published_videomae

    state = published_videomae(dim=dim, depth=depth)
    state["patch_embed.proj.weight"] = 0.02 * torch.randn(dim, 3, 2, 16, 16)
    torch.save({"module": state}, tmp_path / "v.pth")
    ours = hub.load(f"videomae:{tmp_path / 'v.pth'}")
    clip = noise(1, 16, 224, 224)
    assert ours.describe() == {"num_frames": 16, "image_size": 224}
    head = torch.tensor(ours.encode(clip)) @ state["head.weight"].T + state["head.bias"]
    assert np.allclose(ours.classify(clip), head, atol=1e-5)
    with pytest.raises(FileNotFoundError, match=r"none\.pth: expected a checkpoint"):
        hub.load("videomae:none.pth")


def test_x_clip_sees_a_video_as_its_library_does(clips, tmp_path):
    eye = SHAPE | {"patch_size": 16, "mit_hidden_size": 32, "mit_num_hidden_layers": 1,
                   "mit_num_attention_heads": 2, "mit_intermediate_size": 64}  # fmt: skip
    words = {k: SHAPE[k] for k in SHAPE if k not in ("image_size", "num_frames")}
    theirs = saved(tmp_path, "XCLIPModel", vision_config=eye, text_config=words, projection_dim=32,
                   prompt_num_attention_heads=2)  # fmt: skip
    with pytest.warns(UserWarning, match="no tokenizer, so no texts"):
        ours = hub.load(f"transformers:{tmp_path}")
    with torch.no_grad():
        expected = theirs.get_video_features(pixel_values=pixels(clips))
    expected = expected if isinstance(expected, torch.Tensor) else expected.pooler_output
    assert np.allclose(ours.encode(clips), expected, atol=1e-5)


@pytest.mark.parametrize("kind, vision", [("vit", VIT), ("resnet", RESNET), ("next", CONVNEXT)])
def test_an_open_clip_answers_as_its_library_does(kind, vision, clips, tmp_path):
    import open_clip

    name = f"tiny-{kind}-by-name"
    shape = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
    (tmp_path / f"{name}.json").write_text(json.dumps(shape))
    open_clip.add_model_config(tmp_path)
    ours = same_open_clip(name, clips[:, :1], tmp_path)
    with pytest.raises(ValueError, match="longer than the 77 tokens"):
        ours.embed_text(["spin " * 100])
    assert len(ours.embed_text(["spin " * 75])) == 1


@WHOLE
@pytest.mark.fuzz
@pytest.mark.parametrize("name, side", [("ViT-B-16", 224), ("RN50", 224), ("convnext_base", 224)])
def test_an_open_clip_of_the_published_shape(name, side, tmp_path):
    same_open_clip(name, noise(1, 1, side, side), tmp_path)


def same_open_clip(name, clips, folder):
    """Ours of random weights, which says what theirs says of these frames and of two texts."""
    import open_clip
    from PIL import Image

    torch.manual_seed(0)
    theirs, side = open_clip.create_model(name).eval(), clips.shape[2]
    torch.save(theirs.state_dict(), folder / "w.pt")
    ours = hub.load(f"open_clip:{name}:{folder / 'w.pt'}")
    assert ours.describe() == {"num_frames": 1, "image_size": side}
    transform = open_clip.image_transform(side, is_train=False, mean=theirs.visual.image_mean,
                                          std=theirs.visual.image_std)  # fmt: skip
    with torch.no_grad():
        images = torch.stack([transform(Image.fromarray(c[0])) for c in clips])
        expected = theirs.encode_image(images)
        said = theirs.encode_text(open_clip.get_tokenizer(name)(["a", "to spin a block"]))
    assert np.allclose(ours.encode(clips), expected, atol=1e-5)
    assert np.allclose(ours.embed_text(["a", "to spin a block"]), said, atol=1e-5)
    return ours


def test_every_architecture_of_open_clip_has_a_name():
    import open_clip

    assert len(open_clip.list_models()) > 100
    for name in ("ViT-B-16", "RN50", "convnext_base"):
        with pytest.raises(ValueError, match="say which weights"):
            hub.load(f"open_clip:{name}")


@pytest.mark.parametrize("name, says", [
    ("open_clip:vit-b-16/openai", "'ViT-B-16' is one"),
    ("open_clip:ViT-B-16/nowhere", "no such weights"),
    ("transformers:", "expected open_clip:ARCHITECTURE/PRETRAINED"),
])  # fmt: skip
def test_what_is_no_name_is_said(name, says):
    with pytest.raises(ValueError, match=says):
        by_name.load(name)


def test_folders_that_are_no_models_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: expected a folder of transformers"):
        hub.load(f"transformers:{tmp_path}")
    saved(tmp_path, "VideoMAEModel", **SHAPE, patch_size=16, tubelet_size=2)
    config = json.loads((tmp_path / "config.json").read_text())
    config["num_hidden_layers"] = 3  # of which the file has two
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="lacks .* of the weights"):
        hub.load(f"transformers:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="transformers:"):
        hub.load(f"transformers:{tmp_path}")
    (tmp_path / hub.CONFIG).write_text('{"kind": "Something"}')
    with pytest.raises(ValueError, match="expected one of"):
        hub.load(str(tmp_path))
