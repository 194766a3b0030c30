"""The recipes of data/README.md, typed as printed, on small files under the names that they use."""

import json
import re
import shlex

import numpy as np
import pytest
import torch
from test_checkpoints import published_videomae
from test_cli import vlact  # noqa: F401

from vlact import ROOT, video
from vlact.datasets import __main__ as datasets
from vlact.language import srt

BLOCK = re.compile(r"```\n(.*?)```", re.S)
SMALL = {"train-localizer": ["--profile", "smoke", "--epochs", "1", "--resamples", "0"]}


def recipe(title: str) -> list[list[str]]:
    """The words of each line of the block below a bold title."""
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    (block,) = BLOCK.findall(text[text.index(f"**{title}") :])[:1]
    return [shlex.split(line) for line in block.splitlines()]


def film(path, count, colour):
    frames = np.full((count, 32, 48, 3), 40, np.uint8)
    frames[count // 4 : count // 2, :, :, colour] = 220
    video.write(path, frames, 30)


def test_clip_on_ata(vlact, tmp_path, monkeypatch):  # noqa: F811
    import open_clip

    eye = {"width": 32, "layers": 1, "image_size": 32, "patch_size": 16, "head_width": 16}
    words = {"width": 32, "layers": 1, "context_length": 77, "vocab_size": 49408, "heads": 2}
    shape = {"embed_dim": 16, "vision_cfg": eye, "text_cfg": words}
    (tmp_path / "ViT-B-16-small.json").write_text(json.dumps(shape))
    open_clip.add_model_config(tmp_path)
    torch.save(open_clip.create_model("ViT-B-16-small").state_dict(), tmp_path / "openai")
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(srt.load("ata").novel):
        (tmp_path / "ata-clips" / name).mkdir(parents=True)
        film(tmp_path / "ata-clips" / name / "c.mp4", 16, i % 3)
    ((first, *words),) = recipe("CLIP on ATA")
    assert first == "vlact"
    words[words.index("ViT-B-16")] = "ViT-B-16-small"  # of the same name but for its size
    code, out, said = vlact(*words)
    assert code == 0 and "SRT v1 ata" in out, said


@pytest.mark.filterwarnings("ignore")
def test_videomae_and_actionformer_on_thumos14(vlact, tmp_path, monkeypatch):  # noqa: F811
    state = published_videomae(dim=64, depth=1)
    state["patch_embed.proj.weight"] = 0.02 * torch.randn(64, 3, 2, 16, 16)
    torch.save({"module": state}, tmp_path / "vit_b_k710_dl_from_giant.pth")
    for folder in ("annotations", "videos"):
        (tmp_path / folder).mkdir()
    rows = {"val": [], "test": []}
    for i, part in enumerate(("val", "val", "test", "test")):
        names = {"val": f"video_validation_000000{i + 1}", "test": f"video_test_000000{i + 2}"}
        film(tmp_path / "videos" / f"{names[part]}.mp4", 120, i % 2)
        rows[part].append(f"{names[part]} 1.0 2.0")
    for part, lines in rows.items():
        (tmp_path / "annotations" / f"Diving_{part}.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    for words in recipe("VideoMAEv2 and ActionFormer"):
        if words[0] == "python":
            assert words[1:3] == ["-m", "vlact.datasets"]
            assert not datasets.main(words[3:])
            continue
        assert words[0] == "vlact"
        code, _, said = vlact(*words[1:], *SMALL.get(words[1], []))
        assert code == 0, said
    assert (tmp_path / "shown" / "report.html").is_file()
