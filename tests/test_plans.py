"""Plans for paper scale: what is counted on shapes alone is what real tensors take."""

import pandas as pd
import pytest
import torch
from torch import nn

from vlact.models.cost import QWEN25_1B5, QWEN25_3B
from vlact.models.zoo.resnet50 import ResNet50
from vlact.tools import plans


def test_kept_bytes_are_those_counted_by_hand():
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    x = torch.randn(7, 10)
    kept, out = plans.kept_bytes(model, lambda: model(x).sum())
    # the input, and what ReLU gave, which the second layer keeps too
    assert kept == 4 * 7 * (10 + 20)
    out.backward()


def test_shapes_without_numbers_keep_as_much_as_numbers():
    found = {}
    for device in ("cpu", "meta"):
        torch.manual_seed(0)
        with torch.device(device):
            model = ResNet50(10, width=0.13, depth=0.34, frames=4).train()
            clips = torch.zeros(2, 4, 32, 32, 3, dtype=torch.uint8)
            step = plans.measured(model, lambda model=model, clips=clips: model(clips).sum(), 2)
        found[device] = step.fixed, step.kept, step.flops
    assert found["meta"] == pytest.approx(found["cpu"], rel=0.02)


def test_a_step_is_three_forward_passes_and_adam_takes_sixteen_bytes():
    from vlact.papers.transfer.full_size import count

    for kind in ("I3D", "X3D"):
        step, whole = plans.transfer_step(kind), count(kind)
        assert step.flops == pytest.approx(6e9 * whole["gmacs"], rel=0.1)
        assert step.fixed == pytest.approx(16e6 * whole["all"], rel=0.01)


def test_reversible_blocks_keep_less_and_a_frozen_tower_weighs_less():
    assert plans.transfer_step("Rev-MViT").kept < 0.5 * plans.transfer_step("MViTv2").kept
    assert plans.transfer_step("EZ-CLIP").fixed < 0.25 * plans.transfer_step("X-CLIP").fixed


def test_what_fits_fits():
    step = plans.Step(fixed=4e9, kept=0.5e9, flops=1e12)
    assert step.batch_within(24) == 36 and step.memory(36) <= 24 < step.memory(37)
    assert step.batch_within(5) == 0
    assert step.hours(3600, 1e12 / plans.UTILISATION) == pytest.approx(1)


def test_the_language_model_costs_what_its_shape_says():
    small, large = (plans.language_step(d, 768) for d in (QWEN25_1B5, QWEN25_3B))
    assert small.fixed > 2 * 1.5e9 and large.fixed > 2 * 3.0e9 and large.flops > 1.8 * small.flops
    assert plans.language_step(QWEN25_3B, 768, lm_stride=16).flops < 0.3 * large.flops


def test_every_experiment_has_a_plan():
    table = plans.table()
    assert (
        len(table) >= 20 and table["GB"].between(2, 80).all() and (table["H200: hours"] > 0).all()
    )
    hours = table[[f"{c}: hours" for c in plans.CARDS]].to_numpy()
    assert (hours < 24).all(), "a day on one card is enough for every single run"


# What a GPU is to measure, in small on the CPU
def test_table_6_has_a_row_a_way_against_vision_only():
    from vlact.models.cost import Decoder
    from vlact.tools import measuring

    shape = {"frames": 32, "pixels": 32, "text": 12, "answer": 5, "asked": 16, "head": 32}
    window = measuring.Window(**shape, levels=2)
    decoder = Decoder(32, 2, 64, 4, 2, 50)
    rows = measuring.table6((24, 2, 2), decoder, (1, 4), window, "cpu", 2, rank=4)
    ways = ["vision only", "ActionVLM, lm_stride 1", "ActionVLM, lm_stride 4", "question answering"]
    assert [r["way"] for r in rows] == [f"{p}, {w}" for p in ("eval", "train") for w in ways]
    assert all(r["ratio"] == 1 for r in rows[::4]) and all(r["rounds"] == 2 for r in rows)


def test_adapters_learn_and_the_tower_does_not():
    from vlact.tools.measuring import AdaptedVideo

    torch.manual_seed(0)
    model = AdaptedVideo(24, 2, 2, 32)
    clips = torch.randn(2, 16, 3, 32, 32)
    out = model(clips)
    assert out.shape == (1, 32, 24)
    plain = (
        model.tower(clips)
        .last_hidden_state.unflatten(1, (8, -1))
        .mean(2)
        .repeat_interleave(2, 1)
        .flatten(0, 1)[None]
    )
    torch.testing.assert_close(out, plain)  # adapters start as nothing
    out.sum().backward()
    assert all(a.up_proj.weight.grad is not None for a in model.adapters) and all(
        p.grad is None for p in model.tower.parameters()
    )


def test_steps_run_where_they_are_told():
    from vlact.models.dual import DualConfig
    from vlact.tools import measuring

    shape = {"motion_input": False, "conv_stem": False}
    config = DualConfig(32, 16, 4, 32, 3, 2, 16, 384, "cls", **shape)
    rows = measuring.ace(config, 2, 1, "cpu", 1)
    assert [r["way"] for r in rows] == ["frozen blocks kept", "every block anew"]
    first, second = measuring.features("EfficientNet-Lite0", 32, 8, "cpu", 1)
    assert first["difference"] == 0 and "frames/s" in second


def test_measuring_keeps_every_row_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    from vlact.tools import measuring

    asked, out = [], tmp_path / "gpu.csv"

    def measured(name):
        def run(*given):
            asked.append(name)
            if len(asked) == 2:
                raise torch.cuda.OutOfMemoryError
            if len(asked) == 5:
                raise KeyboardInterrupt
            return [{"way": "a", "ms": 1.0}, {"way": "b", "ms": 2.0}]

        return run

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Card")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    for name in ("table6", "localizer", "ace", "features"):
        monkeypatch.setattr(measuring, name, measured(name))
    with pytest.raises(KeyboardInterrupt):
        measuring.main([str(out), "--device", "cuda"])
    first = pd.read_csv(out)
    assert len(first) == 7 and first["note"].tolist()[2] == "out of memory"
    assert first["machine"].str.startswith("Card, torch ").all()
    assert measuring.main([str(out), "--device", "cuda"]) == 0
    table = pd.read_csv(out)
    pd.testing.assert_frame_equal(table.head(7), first)
    assert asked == [*["table6"] * 4, *["localizer"] * 2, "ace", *["features"] * 2]
    assert len(table) == 15 and table["date"].notna().all()
    assert measuring.main([str(out), "--device", "cuda"]) == 0 and len(asked) == 9
    out.write_text("a,b\n1,2\n", encoding="utf-8")
    assert measuring.main([str(out), "--device", "cuda"]) == 1
    assert out.read_text(encoding="utf-8") == "a,b\n1,2\n"
