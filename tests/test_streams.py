"""Videos that are read window by window: the same numbers as in memory, and never more of them than
a window.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vlact import video
from vlact.models.actionformer import LocalizerConfig
from vlact.papers.actionvlm import localizing
from vlact.papers.actionvlm.accounting import check_features, standard
from vlact.training import features, loop, streams

DIM, LENGTH = 6, 32


@pytest.fixture
def stored(tmp_path):
    """Features of five recordings with an action each, their file, and what a job needs besides."""
    chance, found, rows = torch.Generator().manual_seed(0), {}, []
    for i in range(5):
        x = 0.3 * torch.randn(90 + i, DIM, generator=chance)
        x[10 + 9 * i : 22 + 9 * i, i % 2] += 3
        found[f"v{i}"] = x
        rows.append((f"v{i}", 5 + 4.5 * i, 11 + 4.5 * i, ("jump", "run")[i % 2]))
    save_file(found, tmp_path / "f.safetensors")
    columns = ["video", "start_s", "end_s", "label"]
    pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "t.parquet")
    return found, tmp_path / "f.safetensors"


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_slices_of_a_file_are_those_of_its_arrays(kind, tmp_path):
    x = {"a": torch.randn(70, DIM).to(kind), "b": torch.randn(3, DIM).to(kind)}
    save_file(x, tmp_path / "f.safetensors", metadata={"made": "here"})
    found = streams.stored(tmp_path / "f.safetensors", at_most=0)
    assert list(found) == ["a", "b"] and found["a"].shape == (70, DIM) and found["a"].ndim == 2
    for part in (slice(0, 5), slice(60, 200), slice(-4, None), slice(9, 9), slice(None)):
        assert torch.equal(found["a"][part], x["a"][part])
        assert torch.equal(found["a"].float()[part], x["a"][part].float())
    assert torch.equal(torch.cat(list(streams.blocks(found["b"]))), x["b"])
    whole = streams.stored(tmp_path / "f.safetensors")
    assert torch.equal(whole["b"], x["b"])
    for bad in (3, slice(0, 9, 2)):
        with pytest.raises(IndexError, match="read by slices of steps"):
            found["a"][bad]


def test_parts_are_joined_array_by_array(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "COPIED", 100)
    parts, found = [], {}
    for i, kind in enumerate((torch.float32, torch.float16)):
        mine = {f"v{i}{k}": torch.randn(9 + k, 3).to(kind) for k in range(3)}
        parts.append(tmp_path / f"{i}.safetensors")
        save_file(mine, parts[-1], metadata={"part": str(i)})
        found |= mine
    names = {f"new {k}": k for k in sorted(found, reverse=True)}
    streams.joined(parts, tmp_path / "all.safetensors", names)
    whole = load_file(tmp_path / "all.safetensors")
    assert all(torch.equal(whole[k], found[old]) for k, old in names.items())
    assert set(whole) == set(names)
    with pytest.raises(ValueError, match="no features of 1 videos, such as 'v9'"):
        streams.joined(parts, tmp_path / "all.safetensors", {"a": "v9"})
    with pytest.raises(ValueError, match="'v00' is in .*0.safetensors, too; expected one"):
        streams.joined(parts[:1] * 2, tmp_path / "all.safetensors")


def test_what_cannot_be_streamed(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no features")
    with pytest.raises(ValueError, match="broken.safetensors: expected a safetensors file"):
        streams.stored(tmp_path / "broken.safetensors", at_most=0)
    save_file({"a": torch.ones(2, 3, dtype=torch.long)}, tmp_path / "whole.safetensors")
    with pytest.raises(ValueError, match="a: expected numbers of F64, F32, F16, BF16; got I64"):
        streams.stored(tmp_path / "whole.safetensors", at_most=0)
    save_file({"a": torch.full((80, 2), torch.nan)}, tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match="a: 80 of 80 steps .* not finite, the first at step 0"):
        check_features(streams.stored(tmp_path / "bad.safetensors", at_most=0), ["a"])


def test_standardisation_of_a_stream_is_that_of_its_array(stored, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK", 7)
    found, path = stored
    read = streams.stored(path, at_most=0)
    for a, b in zip(standard(found, found), standard(read, read), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert all(x.finite for x in read.values())


def test_a_job_on_streamed_features_reads_windows_and_finds_the_same(stored, tmp_path, monkeypatch):
    found, path = stored
    seconds = {v: 0.5 * len(x) for v, x in found.items()}
    shape = LocalizerConfig(DIM, 2, dim=16, heads=2, embeds=1, stems=1, levels=3)
    recipe = {"window": LENGTH, "batch_size": 2, "epochs": 3, "lr": 3e-3, "weight_decay": 0.05}
    recipe |= {"noise": 0.1, "reg_weight": 1.0, "ema": 0.9, "pre_nms_topk": 50}
    recipe |= {"nms": {"sigma": 0.5, "max_seg_num": 20}}
    read, slices = streams.Stored.__getitem__, []

    def counted(self, steps):
        out = read(self, steps)
        slices.append(out.numel() * out.element_size())
        return out

    def job(name):
        given = str(path), {"train": seconds, "test": seconds}, str(tmp_path / "t.parquet")
        clock = {"step_s": 0.5, "offset_s": 0.0}
        more = ["jump", "run"], clock, vars(shape) | {"ranges": ()}, recipe
        problem = localizing.Problem(*given, *more)
        localizing.localize_job("ActionFormer", problem, 0, str(tmp_path / name), None)
        return pd.read_parquet(tmp_path / f"{name}.parquet")

    here = job("here")
    monkeypatch.setattr(streams, "IN_MEMORY", 0)
    monkeypatch.setattr(streams, "BLOCK", LENGTH)
    monkeypatch.setattr(streams.Stored, "__getitem__", counted)
    there = job("there")
    assert len(slices) > 20 and max(slices) == LENGTH * DIM * 4  # never a whole recording
    assert here["label"].tolist() == there["label"].tolist() and len(here)
    for column in ("start_s", "end_s", "score"):
        np.testing.assert_allclose(here[column], there[column], atol=1e-3)


def test_a_film_by_windows_is_the_film(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (21, 40, 48, 3), dtype=np.uint8)
    video.write(tmp_path / "a.mp4", pixels, 8)
    whole = features.frames(tmp_path / "a.mp4", 8, 2, 4, 32)
    film = features.Film(tmp_path / "a.mp4", 8, 2, 4, 32)
    assert film.shape == tuple(whole.shape) and film.finite
    for part in (slice(0, 3), slice(5, 9), slice(9, 99)):
        assert torch.equal(film[part], whole[part])


# What a checkpoint holds
class Half(nn.Module):
    """Half of it is frozen, a weight of that has two names."""

    def __init__(self):
        super().__init__()
        self.old, self.new = nn.Linear(50, 50).requires_grad_(False), nn.Linear(50, 1)
        self.same = self.old

    def forward(self):
        return self.new(self.old(torch.ones(50))).square().sum()


def test_a_checkpoint_holds_no_frozen_weight_and_is_gone_on_from(tmp_path):
    def train(steps, stop, path):
        torch.manual_seed(0)
        model = Half()

        def loss_of(step):
            if step == stop:
                raise KeyboardInterrupt
            return model()

        given = ({"m": model}, loss_of, steps, 1e-2, 0.0, torch.Generator(), "half", str(path))
        try:
            loop.fit(*given, every=2, ema=0.9)
        except KeyboardInterrupt:
            return torch.load(path, weights_only=True)
        return model.state_dict()

    whole = train(6, None, tmp_path / "a.pt")
    state = train(6, 4, tmp_path / "b.pt")
    assert set(state["m"]) == {"new.weight", "new.bias"}
    again = train(6, None, tmp_path / "b.pt")
    assert all(torch.equal(again[k], whole[k]) for k in whole)
    del state["m"]["new.bias"]
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c.pt: expected the 2 weights .*missing \['new.bias'\]"):
        train(6, None, tmp_path / "c.pt")


def test_weights_of_an_optimizer_are_grouped_by_part():
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "eye": nn.Linear(2, 2)})
    model["lm"] = nn.ModuleDict({"lora_A": nn.Linear(2, 2), "base": nn.Linear(2, 2)})
    model["lm"]["base"].requires_grad_(False)
    from functools import partial

    found = loop.grouped({"m": model}, partial(localizing.by_part, {"slow_lr": 5e-6}))
    assert [(g.get("lr"), len(g["params"])) for g in found] == [(None, 2), (5e-6, 4)]
