"""Motion transfer: its measures against the published tables, and the models' full-size shapes against their papers."""

import numpy as np
import pandas as pd
import pytest
import torch

from vlact.metrics.transfer import accuracies, averaged, transfer
from vlact.report import published


@pytest.mark.parametrize("table", ["transfer_table2", "transfer_table3"])
def test_measures_agree_with_every_published_row(table):
    paper, rows = published.read(table), 0
    for _, part in paper.groupby(["dataset", "setting", "method"], sort=False):
        found = part.groupby("metric")["mean"].first()
        splits = dict(zip(part["split"], part["mean"], strict=True))
        known = next((v for k, v in splits.items() if k.endswith(("KC", "-K"))), None)
        unknown = next((v for k, v in splits.items() if k.endswith(("UC", "-U"))), None)
        if known is None or unknown is None or "HM" not in found:
            continue
        mine, rows = transfer(known, unknown), rows + 1
        assert mine["d_abs"] == pytest.approx(found["D_abs"], abs=0.011)
        assert -0.01 < mine["hm"] - found["HM"] < 0.25, "the mean of two harmonic means lies at or below that of the means"
    assert rows == {"transfer_table2": 48, "transfer_table3": 15}[table]


def test_drops_by_hand_and_bad_numbers():
    assert transfer(80.0, 20.0) == {"d_abs": 60.0, "d_rel": 75.0, "hm": 32.0}
    assert transfer(0.0, 0.0)["hm"] == 0 and np.isnan(transfer(0.0, 0.0)["d_rel"])
    for bad in ((-1.0, 2.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="must be numbers >= 0"):
            transfer(*bad)


def predictions():
    rows = []
    for trained_on, right in ((1, {1: 4, 2: 1}), (2, {1: 2, 2: 3})):
        for which, n in right.items():
            rows += [{"trained_on": trained_on, "set": which, "label": 0, "predicted": int(i >= n)} for i in range(4)]
    return pd.DataFrame(rows).assign(model="m", seed=0, task="coarse")


def test_both_directions_are_averaged_after_their_harmonic_means():
    runs = accuracies(predictions())
    assert runs[["known", "unknown"]].to_numpy().tolist() == [[100, 25], [75, 50]] and runs["hm"].tolist() == [40, 60]
    mean = averaged(runs).iloc[0]
    assert (mean["known"], mean["unknown"], mean["d_abs"], mean["hm"]) == (87.5, 37.5, 50, 50)
    with pytest.raises(ValueError, match="expected both training sets"):
        averaged(runs.head(1))
    with pytest.raises(ValueError, match="no clips of set 1, which it was trained on"):
        accuracies(predictions().query("set == 2"))
    alone = accuracies(predictions().query("set == trained_on"))
    assert alone["known"].tolist() == [100, 75] and alone["hm"].isna().all()


FULL = {  # as published: million parameters with 400 classes, billion multiply-adds of a clip of so many frames and pixels
    "resnet50.ResNet50": (24.33, 25.89, 8, 256),
    "i3d.I3D": (28.04, 37.53, 8, 256),
    "slowfast.SlowFast": (34.57, 65.71, 32, 256),
    "x3d.X3D": (3.79, 6.2, 16, 256),
    "mvitv2.MViTv2": (34.54, 64.2, 16, 224),
}


@pytest.mark.parametrize("name", FULL)
def test_full_size_shapes_are_the_published_ones(name):
    from importlib import import_module

    from torch.utils.flop_counter import FlopCounterMode

    file, kind = name.split(".")
    parameters, operations, frames, pixels = FULL[name]
    with torch.device("meta"):
        model = getattr(import_module(f"vlact.models.zoo.{file}"), kind)(400).eval()
        with FlopCounterMode(display=False) as counter:
            assert model(torch.empty(1, frames, pixels, pixels, 3, dtype=torch.uint8)).shape == (1, 400)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(parameters, abs=0.006)
    assert counter.get_total_flops() / 2e9 == pytest.approx(operations, rel=0.02)  # ours leave out norms and pooling
    assert model.frames == frames


# The benchmark
def bench(n=6):
    """Clips whose coarse class is how fast they brighten and whose set is their colour."""
    from vlact.transferring import TransferBenchmark

    taxonomy = pd.DataFrame(
        [(s, f, f"f{s}{f}", c, f"c{c}") for s in (1, 2) for f, c in ((0, 0), (1, 0), (2, 1))],
        columns=["set", "fine_id", "fine", "coarse_id", "coarse"],
    )
    rng, rows, frames = np.random.default_rng(0), [], []
    for r in taxonomy.itertuples():
        for part in ("train", "val"):
            for i in range(n):
                rows.append((f"{r.fine}_{part}{i}", r.set, part, r.coarse_id, r.fine_id))
                level = 40 + (8 if r.coarse_id else 2) * np.arange(8)[:, None, None, None] + rng.integers(0, 30, (8, 32, 32, 3))
                level[..., r.set - 1] += 60 * r.fine_id
                frames.append(level.clip(0, 255).astype(np.uint8))
    table = pd.DataFrame(rows, columns=["video", "set", "part", "coarse_id", "fine_id"])
    return TransferBenchmark(np.stack(frames), table, taxonomy)


RECIPE = {"epochs": 12, "batch_size": 6, "lr": 2e-2, "weight_decay": 0.0, "smoothing": 0.0}


class Brightening(torch.nn.Module):
    """Mean colours over time to logits: what a user's own model may be."""

    def __init__(self, classes):
        super().__init__()
        self.head = torch.nn.Linear(24, classes)

    def forward(self, clips):
        x = clips.float().mean((2, 3)) / 50
        return self.head((x - x.mean(1, keepdim=True)).flatten(1))


def test_any_model_goes_through_both_directions_and_learns():
    one, found = bench(), []
    for which in (1, 2):
        model, curve = one.train(Brightening, "coarse", which, RECIPE, 0)
        found.append(one.predict(model, "coarse", which).assign(model="mine", seed=0))
        assert curve[-1]["loss"] < 0.6 and not model.training
    mean = averaged(accuracies(pd.concat(found))).iloc[0]
    assert mean["known"] > 85 and mean["unknown"] > 60
    fine = one.predict(one.train(Brightening, "fine", 2, RECIPE, 0)[0], "fine", 2)
    assert set(fine["set"]) == {2} and set(fine["label"]) == {0, 1, 2} and len(fine) == 18
    again = one.train(Brightening, "coarse", 1, RECIPE, 0)[0]
    assert torch.equal(again.head.weight, one.train(Brightening, "coarse", 1, RECIPE, 0)[0].head.weight)


def test_a_model_that_needs_more_frames_than_there_are_is_named():
    from vlact.transferring import TransferBenchmark, spread

    clips = torch.arange(8).view(1, 8, 1, 1, 1).expand(1, 8, 2, 2, 3)
    assert spread(clips, 4)[0, :, 0, 0, 0].tolist() == [1, 3, 5, 7] and spread(clips, 8)[0, :, 0, 0, 0].tolist() == list(range(8))
    with pytest.raises(ValueError, match="needs 32 frames and the clips have 8"):
        spread(clips, 32)
    with pytest.raises(ValueError, match="as many clips as rows; got 3 and 72"):
        TransferBenchmark(bench().frames[:3], bench().table, bench().taxonomy)


@pytest.mark.parametrize("kind", ["ResNet50", "I3D", "X3D", "SlowFast", "MViTv2"])
def test_a_job_writes_predictions_and_resumes_to_the_same(kind, tmp_path, monkeypatch, until_killed):
    from vlact import training, transferring

    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    one = bench(2)
    np.save(tmp_path / "f.npy", one.frames)
    one.table.to_parquet(tmp_path / "t.parquet")
    recipe, options = (
        RECIPE | {"epochs": 2, "batch_size": 3},
        {"width": 0.13, "depth": 0.2, "frames": 8, "motion": True} | ({"size": 32} if kind == "MViTv2" else {}),
    )
    given = (kind, options, str(tmp_path / "f.npy"), str(tmp_path / "t.parquet"), one.taxonomy, "coarse", 1, recipe, 0)
    curve = transferring.transfer_job(*given, str(tmp_path / "a"), str(tmp_path / "a.pt"))

    until_killed(transferring.transfer_job, *given, str(tmp_path / "b"), str(tmp_path / "b.pt"))
    assert transferring.transfer_job(*given, str(tmp_path / "b"), str(tmp_path / "b.pt")) == curve
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a"), pd.read_parquet(tmp_path / "b"))


@pytest.mark.parametrize("kind", ["ResNet50", "I3D", "X3D", "SlowFast", "MViTv2"])
def test_only_what_may_looks_at_the_order_of_frames(kind):
    from vlact.transferring import KINDS

    torch.manual_seed(0)
    more = {"size": 32} if kind == "MViTv2" else {}
    model = KINDS[kind](5, width=0.13, depth=0.34, frames=8, **more).eval()
    for module in model.modules():  # blocks start as their shortcuts
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.ones_(module.weight)
    clips = torch.randint(0, 255, (2, 8, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        forwards, backwards = model(clips), model(clips.flip(1))
    same = torch.allclose(forwards, backwards, atol=1e-5)
    assert same == (kind == "ResNet50"), "C2D pools pairs of frames, which a reversal keeps together"


def test_relative_positions_are_counted_on_the_finer_grid():
    from vlact.models.zoo.mvitv2 import offsets

    assert offsets(3, 3).tolist() == [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
    assert offsets(4, 2).tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]] and offsets(2, 4).tolist() == [[3, 2, 1, 0], [5, 4, 3, 2]]
