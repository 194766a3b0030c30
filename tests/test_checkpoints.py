"""Published checkpoints: files with the real names, made on the spot, into the models here; outputs
against other code.
"""

import pytest
import torch
from reference.internvideo2 import internvideo2 as slow_internvideo2
from reference.timesformer import timesformer as slow
from reference.videomae import videomae as slow_videomae

from vlact.models import checkpoints
from vlact.models.checkpoints import _internvideo2, _videomae
from vlact.models.dual import DualConfig, DualEncoder
from vlact.models.frames import FrameEncoder
from vlact.models.text import TextTower
from vlact.models.zoo.mvitv2 import MViTv2


def published_timesformer(dim=16, depth=2, frames=4, patches=4, size=8, prefix="model."):
    """Weights under the names of facebookresearch/TimeSformer."""
    torch.manual_seed(0)
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 1 + patches, dim),
        "time_embed": (1, frames, dim),
    }
    shapes |= {"patch_embed.proj.weight": (dim, 3, size, size), "patch_embed.proj.bias": (dim,)}
    for i in range(depth):
        at = f"blocks.{i}"
        for name in ("norm1", "norm2", "temporal_norm1"):
            shapes |= {f"{at}.{name}.weight": (dim,), f"{at}.{name}.bias": (dim,)}
        for name in ("attn", "temporal_attn"):
            shapes |= {
                f"{at}.{name}.qkv.weight": (3 * dim, dim),
                f"{at}.{name}.qkv.bias": (3 * dim,),
            }
            shapes |= {f"{at}.{name}.proj.weight": (dim, dim), f"{at}.{name}.proj.bias": (dim,)}
        shapes |= {f"{at}.temporal_fc.weight": (dim, dim), f"{at}.temporal_fc.bias": (dim,)}
        shapes |= {f"{at}.mlp.fc1.weight": (4 * dim, dim), f"{at}.mlp.fc1.bias": (4 * dim,)}
        shapes |= {f"{at}.mlp.fc2.weight": (dim, 4 * dim), f"{at}.mlp.fc2.bias": (dim,)}
    shapes |= {
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "head.weight": (400, dim),
        "head.bias": (400,),
    }
    return {prefix + k: 0.3 * torch.randn(s) for k, s in shapes.items()}


def encoder(frames=4, **more):
    return DualEncoder(
        DualConfig(
            16, 8, frames, 16, 2, 2, 8, 12, "cls", motion_input=False, conv_stem=False, **more
        )
    )


@pytest.mark.parametrize("prefix", ["model.", "module.model.", ""])
def test_timesformer_sees_what_its_paper_says(tmp_path, prefix):
    state = published_timesformer(prefix=prefix)
    torch.save({"epoch": 15, "model_state": state, "cfg": "TRAIN:\n"}, tmp_path / "t.pyth")
    found = encoder()
    # a head of 400 classes is no projection
    assert not checkpoints.timesformer(tmp_path / "t.pyth", found)
    clip = torch.randint(0, 255, (4, 16, 16, 3), dtype=torch.uint8)
    pixels = (clip.permute(0, 3, 1, 2) / 255 - 0.45) / 0.225  # as its authors feed it
    expected = slow({k.removeprefix(prefix): v for k, v in state.items()}, pixels, heads=2)
    with torch.no_grad():
        ours = found.trunk(found.prepare(clip[None])).last_hidden_state[0]
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


def test_another_number_of_frames_takes_the_nearest_times(tmp_path):
    state = published_timesformer()
    torch.save({"model_state": state}, tmp_path / "t.pyth")
    checkpoints.timesformer(tmp_path / "t.pyth", found := encoder(8))
    times = found.trunk.embeddings.time_embeddings
    assert torch.equal(times[:, ::2], state["model.time_embed"]) and torch.equal(
        times[:, 1::2], state["model.time_embed"]
    )


def test_every_key_of_a_checkpoint_is_accounted_for(tmp_path):
    state = published_timesformer()
    torch.save({"model_state": state | {"model.extra.weight": torch.zeros(1)}}, tmp_path / "a.pyth")
    with pytest.raises(
        ValueError, match=r"a.pyth: 1 unexpected keys, for example \['extra.weight'\]"
    ):
        checkpoints.timesformer(tmp_path / "a.pyth", encoder())
    torch.save(
        {"model_state": {k: v for k, v in state.items() if "blocks.1.norm2" not in k}},
        tmp_path / "b.pyth",
    )
    with pytest.raises(
        ValueError,
        match=r"b.pyth: missing \['encoder.layer.1.layernorm_after.bias', "
        r"'encoder.layer.1.layernorm_after.weight'\]",
    ):
        checkpoints.timesformer(tmp_path / "b.pyth", encoder())
    torch.save({"model_state": published_timesformer(size=4)}, tmp_path / "c.pyth")
    with pytest.raises(
        ValueError,
        match=r"of another shape \['embeddings.patch_embeddings.projection.weight: \(16, 3, 4, 4\)",
    ):
        checkpoints.timesformer(tmp_path / "c.pyth", encoder())
    with pytest.raises(FileNotFoundError, match="no such checkpoint; `make doctor"):
        checkpoints.timesformer(tmp_path / "d.pyth", encoder())
    torch.save({"epoch": 3}, tmp_path / "e.pyth")
    with pytest.raises(ValueError, match="expected a dict of weights"):
        checkpoints.read(tmp_path / "e.pyth")
    with pytest.raises(ValueError, match="both become 'x'"):
        checkpoints.translate({"a": torch.zeros(1), "b": torch.zeros(1)}, [(r"[ab]", "x")], "f")


def test_a_checkpoint_from_a_stranger_cannot_run_code(tmp_path):

    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"model_state": {"x": Evil()}}, tmp_path / "e.pyth")
    with pytest.raises(ValueError, match="e.pyth: expected a whole file of tensors and plain"):
        checkpoints.read(tmp_path / "e.pyth")
    assert not (tmp_path / "ran").exists()


def test_mvitv2_is_torchvision_s(tmp_path):
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    torch.manual_seed(0)
    setting, kv, size = [], 4, [4, 8, 8]
    for i, (dim, out, heads) in enumerate([(8, 8, 1), (8, 16, 2), (16, 16, 2)]):
        q = [1, 2, 2] if i == 1 else [1, 1, 1]
        kv = kv // 2 if i == 1 else kv
        setting.append(MSBlockConfig(heads, dim, out, [3, 3, 3], [3, 3, 3], q, [1, kv, kv]))
    theirs = MViT(
        (32, 32),
        8,
        setting,
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=True,
        num_classes=5,
        stochastic_depth_prob=0.0,
    ).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn_like(p))
    ours = MViTv2(5, width=8 / 96, depth=0.01, frames=8, size=32)
    assert size == [8 // 2, 32 // 4, 32 // 4]
    from torch import nn

    from vlact.models.zoo.mvitv2 import Block

    ours.blocks = nn.ModuleList(
        [
            Block(8, 8, 1, (4, 8, 8), 1, 4),
            Block(8, 16, 2, (4, 8, 8), 2, 2),
            Block(16, 16, 2, (4, 4, 4), 1, 2),
        ]
    )
    ours.norm, ours.head = nn.LayerNorm(16), nn.Linear(16, 5)
    torch.save(theirs.state_dict(), tmp_path / "m.pth")
    checkpoints.mvitv2(tmp_path / "m.pth", ours)
    clips = torch.randint(0, 255, (2, 8, 32, 32, 3), dtype=torch.uint8)
    from vlact.models.convnet3d import to_input

    with torch.no_grad():
        torch.testing.assert_close(ours(clips), theirs(to_input(clips)), atol=1e-4, rtol=1e-4)
    ours.head = nn.Linear(16, 3)
    kept = ours.head.weight.clone()
    assert torch.equal(checkpoints.mvitv2(tmp_path / "m.pth", ours).head.weight, kept)


def test_the_full_size_mvitv2_takes_torchvision_s_names():
    import torchvision

    with torch.device("meta"):
        theirs, ours = (
            torchvision.models.video.mvit_v2_s().state_dict(),
            MViTv2(400, size=224).state_dict(),
        )
    found = checkpoints.translate(theirs, checkpoints.MVITV2, "meta")
    assert set(found) == set(ours)
    assert {k: v.shape for k, v in found.items() if k != "cls"} == {
        k: v.shape for k, v in ours.items() if k != "cls"
    }


def published_clip(path):
    """A small CLIP of open_clip's, and its weights in a file."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
    from safetensors.torch import save_file

    torch.manual_seed(0)
    given = (
        CLIPVisionCfg(layers=2, width=128, patch_size=16, image_size=32),
        CLIPTextCfg(width=64, heads=1, layers=2),
    )
    theirs = CLIP(32, *given, quick_gelu=True).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.05 * torch.randn_like(p))
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, path)
    return theirs


def test_openai_s_clip_is_open_clip_s(tmp_path):
    from safetensors.torch import save_file
    from torch.nn.functional import normalize

    theirs = published_clip(tmp_path / "c.safetensors")
    clip, text = checkpoints.openai_clip(tmp_path / "c.safetensors", num_frames=3)
    frames = torch.randint(0, 255, (2, 3, 32, 32, 3), dtype=torch.uint8)
    mean, std = (
        torch.tensor(x).view(1, 3, 1, 1) for x in (checkpoints.OPENAI_MEAN, checkpoints.OPENAI_STD)
    )
    with torch.no_grad():
        expected = theirs.encode_image(
            (frames.flatten(0, 1).permute(0, 3, 1, 2) / 255 - mean) / std
        )
        torch.testing.assert_close(
            clip.last(clip.first(frames, 0), 0).flatten(0, 1), expected, atol=2e-5, rtol=1e-4
        )
        words = ["a video of rising", "rising"]
        said = normalize(theirs.encode_text(text.tokenize(words)), dim=-1)
        torch.testing.assert_close(text(words), said, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(clip.embed_text(text(words)), said, atol=1e-5, rtol=1e-5)
    texts = [*words, "rising slowly and then falling down"]
    # its last blocks, to be trained, begin as the tower itself; padding makes no difference
    for blocks in (0, 1, 2):
        tower = TextTower(text, texts, blocks)
        torch.testing.assert_close(tower(texts), text(texts), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(tower(words), text(words), atol=1e-5, rtol=1e-5)
        assert sum(p.numel() for p in tower.parameters()) == sum(
            p.numel() for b in list(text.layers)[2 - blocks :] for p in b.parameters()
        )
    prompted = TextTower(text, texts, 2, prompts=3)
    prompted(words).sum().backward()
    assert prompted.prompts.grad.abs().sum() > 0 and not any(
        p.requires_grad for p in prompted.layers.parameters()
    )
    assert clip.config.embed_dim == text.dim == 32 and clip.config.num_frames == 3
    gelu = [type(b.mlp.gelu).__name__ for b in clip.visual.transformer.resblocks]
    assert gelu == ["QuickGELU"] * 2
    broken = {
        k: v.contiguous() for k, v in theirs.state_dict().items() if k != "visual.ln_pre.bias"
    }
    save_file(broken, tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match=r"d.safetensors: missing \['visual.ln_pre.bias'\]"):
        checkpoints.openai_clip(tmp_path / "d.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "e.safetensors")
    with pytest.raises(ValueError, match="expected open_clip's names"):
        checkpoints.openai_clip(tmp_path / "e.safetensors")


def test_vit_b16_has_the_shapes_of_the_published_file():
    """The names and shapes that open_clip itself gives ViT-B-16-quickgelu."""
    from open_clip import get_model_config
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    config = get_model_config("ViT-B-16-quickgelu")
    with torch.device("meta"):
        theirs = CLIP(
            config["embed_dim"],
            CLIPVisionCfg(**config["vision_cfg"]),
            CLIPTextCfg(**config["text_cfg"]),
            quick_gelu=True,
        )
        ours = FrameEncoder(
            DualConfig(
                224,
                16,
                8,
                768,
                12,
                12,
                512,
                512,
                "cls",
                motion_input=False,
                conv_stem=False,
                quick_gelu=True,
            )
        )
    mine = {k: v.shape for k, v in ours.state_dict().items() if k.startswith("visual.")}
    assert (
        mine == {k: v.shape for k, v in theirs.state_dict().items() if k.startswith("visual.")}
        and config["quick_gelu"]
    )


def xclip_of_transformers(tmp_path):
    """A small X-CLIP of the library with random weights, and its file."""
    from safetensors.torch import save_file
    from transformers import XCLIPConfig, XCLIPModel

    torch.manual_seed(0)
    text = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
    }
    mit = {
        "mit_hidden_size": 64,
        "mit_intermediate_size": 256,
        "mit_num_hidden_layers": 1,
        "mit_num_attention_heads": 1,
    }
    vision |= mit | {"patch_size": 16, "num_frames": 4, "drop_path_rate": 0.0}
    theirs = XCLIPModel(
        XCLIPConfig(
            text_config=text, vision_config=vision, projection_dim=64, prompt_num_attention_heads=1
        )
    ).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.05 * torch.randn_like(p))
    save_file(
        {k: v.contiguous() for k, v in theirs.state_dict().items()}, tmp_path / "x.safetensors"
    )
    return theirs, tmp_path / "x.safetensors"


def test_xclip_is_that_of_transformers(tmp_path):
    import open_clip
    from safetensors.torch import load_file, save_file

    theirs, path = xclip_of_transformers(tmp_path)
    names = ["rising", "falling down", "spinning clockwise"]
    ours = checkpoints.xclip(path, names)
    clips = torch.randint(0, 255, (2, 4, 32, 32, 3), dtype=torch.uint8)
    mean, std = (
        torch.tensor(x).view(3, 1, 1) for x in (checkpoints.IMAGENET_MEAN, checkpoints.IMAGENET_STD)
    )
    ids = open_clip.get_tokenizer("ViT-B-16")(names)
    with torch.no_grad():
        expected = theirs(
            input_ids=ids, pixel_values=(clips.permute(0, 1, 4, 2, 3) / 255 - mean) / std
        ).logits_per_video
        found = ours.scores(ours.frozen_features(clips), [[n] for n in names])
    torch.testing.assert_close(found, expected / ours.logit_scale, atol=1e-5, rtol=1e-5)
    assert found.std() > 0.001
    lacking = {
        k: v
        for k, v in load_file(path).items()
        if k != "vision_model.encoder.layers.1.message_ln.bias"
    }
    save_file(lacking, tmp_path / "y.safetensors")
    with pytest.raises(ValueError, match=r"y.safetensors: missing \['messages.1.norm.bias'\]"):
        checkpoints.xclip(tmp_path / "y.safetensors", names)
    save_file({"x": torch.zeros(1)}, tmp_path / "z.safetensors")
    with pytest.raises(ValueError, match="expected transformers' names of an X-CLIP; missing"):
        checkpoints.xclip(tmp_path / "z.safetensors", names)


def published_videomae(dim=16, depth=2, classes=5):
    """Weights under the names of the official VideoMAEv2 files."""
    torch.manual_seed(0)
    shapes = {"patch_embed.proj.weight": (dim, 3, 2, 8, 8), "patch_embed.proj.bias": (dim,)}
    for i in range(depth):
        at = f"blocks.{i}"
        shapes |= {f"{at}.{n}.{k}": (dim,) for n in ("norm1", "norm2") for k in ("weight", "bias")}
        shapes |= {
            f"{at}.attn.qkv.weight": (3 * dim, dim),
            f"{at}.attn.q_bias": (dim,),
            f"{at}.attn.v_bias": (dim,),
        }
        shapes |= {f"{at}.attn.proj.weight": (dim, dim), f"{at}.attn.proj.bias": (dim,)}
        shapes |= {f"{at}.mlp.fc1.weight": (4 * dim, dim), f"{at}.mlp.fc1.bias": (4 * dim,)}
        shapes |= {f"{at}.mlp.fc2.weight": (dim, 4 * dim), f"{at}.mlp.fc2.bias": (dim,)}
    shapes |= {
        "fc_norm.weight": (dim,),
        "fc_norm.bias": (dim,),
        "head.weight": (classes, dim),
        "head.bias": (classes,),
    }
    return {k: 0.3 * torch.randn(s) for k, s in shapes.items()}


def test_videomae_sees_what_its_paper_says(tmp_path):
    state = published_videomae()
    torch.save({"module": state}, tmp_path / "v.pth")
    model = checkpoints.videomae(tmp_path / "v.pth", num_frames=4, image_size=16, heads=2)
    clip = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            model(clip[None]).logits[0], slow_videomae(state, clip, 2), atol=1e-5, rtol=1e-4
        )
        # as features are extracted with it
        encoder = checkpoints.VideoMAE.load(
            tmp_path / "v.pth", num_frames=4, image_size=16, heads=2
        )
        mean, std = (
            torch.tensor(x).view(3, 1, 1)
            for x in (checkpoints.IMAGENET_MEAN, checkpoints.IMAGENET_STD)
        )
        pixels = (255 * (0.05 * clip * std + mean)).clamp(0, 255).to(torch.uint8)
        seen = encoder.last(encoder.first(pixels.permute(0, 2, 3, 1)[None], 0), 0)
        expected = slow_videomae(state, (pixels / 255 - mean) / std, 2)
        torch.testing.assert_close(model.classifier(seen)[0], expected, atol=1e-5, rtol=1e-4)
    torch.save(
        {"module": {k: v for k, v in state.items() if k != "fc_norm.bias"}}, tmp_path / "w.pth"
    )
    with pytest.raises(ValueError, match=r"w.pth: missing \['fc_norm.bias'\]"):
        checkpoints.videomae(tmp_path / "w.pth", 4, 16, 2)
    torch.save({"module": {"encoder.x": torch.zeros(1)}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="expected the names of a fine-tuned VideoMAE; missing"):
        checkpoints.videomae(tmp_path / "x.pth")


def mmaction2(state):
    """Official names of VideoMAE as MMAction2's, with its table of positions for two by two patches
    at two times.
    """
    out = {"backbone.pos_embed": torch.tensor([0.0, 1.0]).repeat(8).expand(1, 8, 16).clone()}
    names = {
        "patch_embed.proj": "patch_embed.projection",
        "mlp.fc1": "mlp.layers.0.0",
        "mlp.fc2": "mlp.layers.1",
    }
    for key, value in state.items():
        for ours, other in names.items():
            key = key.replace(ours, other)
        out[
            key.replace("head.", "cls_head.fc_cls.")
            if key.startswith("head.")
            else f"backbone.{key}"
        ] = value
    return out


def test_videomae_in_mmaction2_s_file_is_the_same(tmp_path):
    state = published_videomae()
    theirs = mmaction2(state)
    torch.save(state, tmp_path / "ours.pth")
    torch.save({"meta": {"epoch": 1}, "state_dict": theirs}, tmp_path / "theirs.pth")
    ours, loaded = (
        checkpoints.videomae(tmp_path / f"{n}.pth", 4, 16, 2).state_dict()
        for n in ("ours", "theirs")
    )
    assert list(ours) == list(loaded) and all(torch.equal(v, loaded[k]) for k, v in ours.items())
    theirs["backbone.pos_embed"][0, 0, 3] = 0.5
    torch.save({"state_dict": theirs}, tmp_path / "learned.pth")
    with pytest.raises(
        ValueError, match="learned.pth: expected backbone.pos_embed to be sines and cosines"
    ):
        checkpoints.videomae(tmp_path / "learned.pth")


@pytest.mark.parametrize("dim, depth, millions", [(384, 12, 22), (768, 12, 86), (1024, 24, 304)])
def test_videomae_has_the_published_sizes(dim, depth, millions, monkeypatch):
    with torch.device("meta"):
        state = published_videomae(dim, depth, 710) | {
            "patch_embed.proj.weight": torch.empty(dim, 3, 2, 16, 16)
        }
        monkeypatch.setattr(_videomae, "read", lambda path: dict(state))
        model = checkpoints.videomae("meta")
    trunk = sum(p.numel() for name, p in model.named_parameters() if "classifier" not in name)
    assert trunk / 1e6 == pytest.approx(millions, rel=0.02)


def published_internvideo2(dim=16, depth=2, frames=2, patch=56, hidden=24, out=12):
    """Weights under the names of the authors' code."""
    torch.manual_seed(0)
    shapes = {"patch_embed.proj.weight": (dim, 3, 1, patch, patch), "patch_embed.proj.bias": (dim,)}
    shapes |= {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + frames * (224 // patch) ** 2, dim)}
    for i in range(depth):
        at = f"blocks.{i}"
        shapes |= {
            f"{at}.{n}": (dim,) for n in ("norm1.weight", "norm2.weight", "ls1.gamma", "ls2.gamma")
        }
        shapes |= {f"{at}.attn.{n}_norm.weight": (dim,) for n in "qk"}
        shapes |= {
            f"{at}.attn.qkv.weight": (3 * dim, dim),
            f"{at}.attn.proj.weight": (dim, dim),
            f"{at}.attn.proj.bias": (dim,),
        }
        shapes |= {f"{at}.mlp.fc1.weight": (hidden, dim), f"{at}.mlp.fc1.bias": (hidden,)}
        shapes |= {f"{at}.mlp.fc2.weight": (dim, hidden), f"{at}.mlp.fc2.bias": (dim,)}
    at = "clip_projector"
    shapes |= {f"{at}.norm1_{n}.{k}": (dim,) for n in "qkv" for k in ("weight", "bias")}
    shapes |= {f"{at}.cross_attn.{n}.weight": (dim, dim) for n in "qkv"} | {
        f"{at}.cross_attn.{n}_bias": (dim,) for n in "qkv"
    }
    shapes |= {f"{at}.cross_attn.proj.weight": (out, dim), f"{at}.cross_attn.proj.bias": (out,)}
    shapes |= {
        "clip_decoder.0.head.weight": (9, dim),
        "final_clip_decoder.norm.weight": (9,),
        "mae_decoder.0.norm.bias": (9,),
    }
    shapes |= {f"{n}pos_embed": (1, 3, dim) for n in ("clip_", "img_", "clip_img_", "mae_")}
    return {k: 0.3 * torch.randn(s) for k, s in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "vision_encoder."])
def test_internvideo2_sees_what_it_is_written_to(tmp_path, prefix):
    state = published_internvideo2()
    others = {"text_encoder.x": torch.zeros(1), "temp": torch.zeros(())} if prefix else {}
    torch.save({"module": {prefix + k: v for k, v in state.items()} | others}, tmp_path / "i.pth")
    model = checkpoints.internvideo2(tmp_path / "i.pth", 2, heads=2, pool_heads=4)
    clip = torch.randint(0, 255, (2, 224, 224, 3), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(
            model(clip[None])[0], slow_internvideo2(state, clip, 2, 4), atol=2e-5, rtol=1e-4
        )
        longer = checkpoints.internvideo2(tmp_path / "i.pth", 4, heads=2, pool_heads=4)
        assert longer(clip[None].repeat_interleave(2, 1)).shape == (1, 12)
    torch.testing.assert_close(
        longer.pos_embed[:, 1:].unflatten(1, (4, 16))[:, ::3],
        state["pos_embed"][:, 1:].unflatten(1, (2, 16)),
    )
    for lost, message in (
        ("blocks.1.ls2.gamma", r"missing \['blocks.1.ls2.gamma'\]"),
        ("pos_embed", "expected the names of InternVideo2"),
    ):
        torch.save({k: v for k, v in state.items() if k != lost}, tmp_path / "j.pth")
        with pytest.raises(ValueError, match=message):
            checkpoints.internvideo2(tmp_path / "j.pth", 2, 2, 4)
    torch.save(state | {"text_encoder.x": torch.zeros(1)}, tmp_path / "k.pth")
    with pytest.raises(ValueError, match="1 unexpected keys, for example"):
        checkpoints.internvideo2(tmp_path / "k.pth", 2, 2, 4)


def test_internvideo2_has_the_size_of_a_base_transformer(monkeypatch, tmp_path):
    with torch.device("meta"):
        state = published_internvideo2(768, 12, 8, 14, 3072, 768)
        monkeypatch.setattr(_internvideo2, "read", lambda path: dict(state))
        model = checkpoints.internvideo2("meta")
    parts = {n: sum(p.numel() for p in m.parameters()) / 1e6 for n, m in model.named_children()}
    assert parts["blocks"] == pytest.approx(85, rel=0.01)
    assert model.config.heads == 12 and model.pos_embed.shape == (1, 1 + 8 * 256, 768)


def test_features_of_a_video_by_internvideo2(tmp_path):
    """What localizers are trained on at paper scale comes out of it as out of any encoder here."""
    import numpy as np

    from vlact import video
    from vlact.training import features

    torch.save(published_internvideo2(), tmp_path / "i.pth")
    video.write(
        tmp_path / "v.mp4",
        np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), dtype=np.uint8),
        8,
    )
    model = checkpoints.internvideo2(tmp_path / "i.pth", 2, heads=2, pool_heads=4)
    found = features.extract(model, tmp_path / "v.mp4", 8, 4)
    assert found.shape == (3, 12) and found.isfinite().all()


def qwen(**more):
    from transformers import Qwen2Config

    shape = {
        "vocab_size": 60,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return Qwen2Config(**shape | {"num_key_value_heads": 2, "tie_word_embeddings": True} | more)


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_comes_from_a_folder_whole(tied, tmp_path):
    from transformers import Qwen2ForCausalLM

    from vlact.models.actionvlm import LanguageBranch, LanguageConfig

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(qwen(tie_word_embeddings=tied)).eval()
    model.save_pretrained(tmp_path)
    found, ids = checkpoints.language_model(tmp_path, torch.float32), torch.arange(12)[None]
    torch.testing.assert_close(found.eval()(ids).logits, model(ids).logits, atol=1e-5, rtol=0)
    branch = LanguageBranch(found, LanguageConfig(8))  # which accepts its attention
    said = branch(
        torch.randn(1, 4, 8),
        torch.ones(1, 4, dtype=torch.bool),
        ids,
        torch.ones_like(ids, dtype=torch.bool),
    )
    assert said["cls"].shape == (1, 4, 8)


def test_the_language_part_of_internvl(tmp_path):
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
    }
    config = InternVLConfig(
        vision_config=vision | {"patch_size": 14},
        text_config=qwen(tie_word_embeddings=False).to_dict(),
        image_token_id=59,
    )
    model = InternVLForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    found, ids = checkpoints.language_model(tmp_path, torch.float32).eval(), torch.arange(12)[None]
    torch.testing.assert_close(found(ids).logits, model(input_ids=ids).logits, atol=1e-5, rtol=0)
    assert not any("vision" in k for k in found.state_dict())


def test_a_language_model_that_does_not_fit_says_what(tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import Qwen2ForCausalLM

    with pytest.raises(FileNotFoundError, match="expected a transformers folder with config.json"):
        checkpoints.language_model(tmp_path)
    Qwen2ForCausalLM(qwen()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lacking = {k: v for k, v in weights.items() if k != "model.norm.weight"} | {
        "strange": torch.zeros(1)
    }
    save_file(lacking, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError,
        match=r"'missing_keys': \['model.norm.weight'\], 'unexpected_keys': \['strange'\]",
    ):
        checkpoints.language_model(tmp_path)
    weights["model.norm.weight"] = torch.zeros(5)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="mismatched_keys"):
        checkpoints.language_model(tmp_path)
    note = tmp_path / "config.json"
    note.write_text(note.read_text().replace("{", '{"auto_map": {"AutoModel": "evil.Model"},', 1))
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ValueError, match="asks for code of its own"):
        checkpoints.language_model(tmp_path)


def test_the_benchmark_starts_from_published_weights(tmp_path):
    """X-CLIP and MViTv2 as `paper` builds them: the file's weights, trainable, and other names
    after training.
    """
    from vlact.papers.transfer.benchmark import build

    _, path = xclip_of_transformers(tmp_path)
    words = {n: torch.zeros(64) for n in ("rising", "falling down", "spinning")}
    model = build("X-CLIP", ["rising", "spinning"], {"weights": str(path)}, None, words)
    clips = torch.randint(0, 255, (2, 4, 32, 32, 3), dtype=torch.uint8)
    assert model.frames == 4 and not model.method.clip.visual.conv1.weight.requires_grad
    model.loss(clips, torch.tensor([0, 1])).backward()
    assert model.method.clip.visual.proj.grad.abs().sum() > 0
    model.names = ["falling down", "rising", "spinning"]
    with torch.no_grad():
        assert model.eval()(clips).shape == (2, 3)
    with pytest.raises(
        ValueError,
        match="weights are read for MViTv2, ResNet50, I3D, X3D, SlowFast, and for UniformerV2",
    ):
        build("Rev-MViT", ["a", "b"], {"weights": str(path)})
    with pytest.raises(ValueError, match="unexpected keys"):
        build("I3D", ["a", "b"], {"weights": str(path)})
    with pytest.raises(FileNotFoundError, match="make doctor"):
        build("MViTv2", ["a", "b"], {"weights": str(tmp_path / "none.pth")})


def test_the_ladder_begins_with_published_weights(tmp_path, monkeypatch):
    """`pretrain` as `paper` runs it, on small files with the published names: CLIP's towers,
    ProcedureVRL's trunk and projection.
    """
    from dataclasses import replace

    import numpy as np
    import pandas as pd
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
    from safetensors.torch import save_file

    from vlact import params
    from vlact.models import files
    from vlact.models.text import sentence_encoder
    from vlact.stages import pretrain

    torch.manual_seed(0)
    towers = (
        CLIPVisionCfg(layers=2, width=64, patch_size=8, image_size=16),
        CLIPTextCfg(width=64, heads=1, layers=2),
    )
    theirs, clip = CLIP(32, *towers, quick_gelu=True), str(tmp_path / "clip.safetensors")
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, clip)
    trunk = published_timesformer(dim=64)
    torch.save({"model_state": trunk}, tmp_path / "classes.pyth")
    trunk |= {"model.head.weight": torch.randn(32, 64), "model.head.bias": torch.randn(32)}
    torch.save({"model_state": trunk}, tmp_path / "projection.pyth")

    rows = {
        "caption": ["pick up the cup", "spin the disc", "lay down the block", "spin the cup"],
        "verb": ["a", "b", "c", "b"],
    }
    table = pd.DataFrame(
        rows
        | {"object": ["cup", "disc", "block", "cup"], "split": ["train", "train", "train", "val"]}
    )
    rng = np.random.default_rng(0)

    def frames_of(p, name, *_):
        path = tmp_path / f"{name}{rng.integers(1 << 30)}.npy"
        np.save(path, rng.integers(0, 255, (4, 1, 4, 16, 16, 3), dtype=np.uint8))
        return table, path

    monkeypatch.setattr(pretrain, "frames_of", frames_of)
    monkeypatch.setattr(pretrain, "worlds", lambda *_, **__: None)
    monkeypatch.setattr(params, "ROOT", tmp_path)
    monkeypatch.setattr(files, "ROOT", tmp_path)
    sentence_encoder.cache_clear()
    shape = {
        "image_size": 16,
        "patch_size": 8,
        "num_frames": 4,
        "dim": 64,
        "heads": 1,
        "embed_dim": 32,
        "text_dim": 32,
    }
    shape |= {
        "pool": "cls",
        "motion_input": False,
        "conv_stem": False,
        "quick_gelu": True,
        "text": clip,
    }
    for name in ("classes", "projection"):
        p = params.load("smoke", name)
        steps = {
            "align_steps": 3,
            "vlog_steps": 2,
            "checkpoints": {"frames": clip, "trunk": str(tmp_path / f"{name}.pyth")},
        }
        p = replace(p, model=replace(p.model, **shape), pretrain=replace(p.pretrain, **steps))
        pretrain.pretraining(p)
        folder = p.data / "pretrained"
        seen, aligned = (
            FrameEncoder.load(folder / "frames1.safetensors"),
            DualEncoder.load(folder / "seed1.safetensors"),
        )
        assert (
            torch.equal(seen.visual.proj, theirs.visual.proj)
            and seen.config.quick_gelu
            and seen.config.text == clip
        )
        assert torch.equal(aligned.trunk.layernorm.weight, trunk["model.norm.weight"])
        stages = set(pd.read_csv(folder / "curves.csv")["stage"])
        known = torch.equal(aligned.video_projection.weight, trunk["model.head.weight"])
        assert (stages, known) == (
            ({"vlog"}, True) if name == "projection" else ({"align", "vlog"}, False)
        )
    said = sentence_encoder(clip)(["spin the disc"])
    torch.testing.assert_close(aligned.embed_text(said), said)  # CLIP's own space
    with pytest.raises(ValueError, match="its shape is not that of params.yaml.*dim 64, there 48"):
        pretrain.pretraining(replace(p, workspace="other", model=replace(p.model, dim=48)))
