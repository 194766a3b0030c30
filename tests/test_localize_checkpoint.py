"""`vlact localize --checkpoint`: official files, made on the spot with their names and shapes, on
features and videos to a results file; and files that are no such thing.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from vlact import video
from vlact.datasets import activitynet
from vlact.models import localizer_presets
from vlact.models.adatad import AdaTAD, TowerConfig
from vlact.papers.actionvlm.localizing import KINDS, Clock, Localizer
from vlact.tools import cli, published_localizer
from vlact.tools.published_localizer import detect, known, windows


def official(folder, kind, data, wrapped=True):
    """A file as training leaves it: an epoch, weights that are not the mean, and the mean."""
    torch.manual_seed(0)
    model = KINDS[kind][0](localizer_presets.preset(kind, data).config).eval()
    state = {k: x for k, x in model.state_dict().items() if k != "positives"}
    content = state
    if wrapped:
        mean = {f"module.{k}": x for k, x in state.items()}
        content = {"epoch": 9, "state_dict": {"module.x": torch.zeros(1)}, "state_dict_ema": mean}
    torch.save(content, folder / "their.pth.tar")
    return model, folder / "their.pth.tar"


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        cli.main(["localize", *map(str, arguments)])
    assert left.value.code == 0


def features(folder, steps, width):
    rng = np.random.default_rng(0)
    return rng.normal(size=(steps, width)).astype(np.float32), folder


THUMOS = {
    "database": {
        "video_test_0000001": {
            "subset": "Test", "duration": 20.0, "fps": 25.0,
            "annotations": [
                {"label": f"Class{i}", "segment": [1, 2], "label_id": 19 - i} for i in range(20)
            ],
        },
        "video_validation_0000002": {
            "subset": "Validation", "duration": 9.0, "fps": 25.0, "annotations": [],
        },
    }
}  # fmt: skip


def test_actionformer_of_thumos14_on_a_folder_of_features(tmp_path, capsys):
    model, path = official(tmp_path, "ActionFormer", "thumos14_i3d")
    x, _ = features(tmp_path, 120, 2048)
    (tmp_path / "i3d").mkdir()
    for name in THUMOS["database"]:
        np.save(tmp_path / "i3d" / f"{name}.npy", x)
    (tmp_path / "thumos14.json").write_text(json.dumps(THUMOS))
    options = "--checkpoint", path, "--out", tmp_path / "out"  # its shapes say which preset
    asked = "--truth", tmp_path / "thumos14.json", "--subset", "Test"
    run(tmp_path / "i3d", *options, *asked, "--json")
    said = json.loads(capsys.readouterr().out)
    table = activitynet.results(tmp_path / "out" / "segments.json")
    counted = {(r["what"], r["reason"]): r["count"] for r in said.pop("account")}
    assert said == {"videos": 1, "segments": 200} and len(table) == 200
    assert counted == {("in", ""): 2, ("not asked for", "not of --subset"): 1, ("used", ""): 1}
    # a step every 4 of 25 frames a second, from the middle of 16 frames on
    own = localizer_presets.preset("ActionFormer", "thumos14_i3d")
    clock, plain = Clock(4 / 25, 8 / 25), (torch.zeros(2048), torch.ones(2048))
    names = [f"Class{19 - i}" for i in range(20)]
    finder = Localizer(model, names, clock, own.recipe, *plain)
    wanted = finder.detect({"v": torch.from_numpy(x)}, {"v": 20.0})
    assert table["label"].tolist() == wanted["label"].tolist()
    for column in ("start_s", "end_s", "score"):
        np.testing.assert_allclose(table[column], wanted[column], rtol=1e-6)
    assert table["end_s"].max() <= 20 and table["score"].min() >= 0.001


@pytest.mark.parametrize(
    "kind, ending, rescaled",
    [("ActionFormer", ".npz", True), ("TriDet", ".pt", False), ("DyFADet", ".npy", False)],
)
def test_every_kind_on_activitynet_and_each_kind_of_file(kind, ending, rescaled, tmp_path):
    model, path = official(tmp_path, kind, "activitynet_tsp", wrapped=kind == "TriDet")
    x, file = features(tmp_path, 50, 512)[0], tmp_path / f"v_abc{ending}"
    if ending == ".npz":
        np.savez(file, feats=x, fps=15.0)
    elif ending == ".pt":
        torch.save(torch.from_numpy(x), file)
    else:
        np.save(file, x)
    table = detect(path, "activitynet_tsp", file, None)
    assert len(table) and set(table["video"]) == {"abc"} and set(table["label"]) == {"action"}
    # fifty steps of 16 frames at 15 a second, the first one's middle at frame 8
    seen, clock = torch.from_numpy(x), Clock(16 / 15, 8 / 15)
    if rescaled:
        one = (49 * 16 + 16) / 192  # frames of a step, once there are 192
        seen = torch.nn.functional.interpolate(seen.T[None], 192, mode="linear")[0].T
        clock = Clock(one / 15, one / 30)
    own = localizer_presets.preset(kind, "activitynet_tsp")
    finder = Localizer(model, ["action"], clock, own.recipe, torch.zeros(512), torch.ones(512))
    wanted = finder.detect({"abc": seen}, {"abc": float(clock.seconds(len(seen)))})
    for column in ("start_s", "end_s", "score"):
        np.testing.assert_allclose(table[column], wanted[column], rtol=1e-6)


def tiny(monkeypatch, tmp_path):
    """AdaTAD on windows of 16 frames of 32 pixels, and its file."""
    own = localizer_presets.preset("AdaTAD", "thumos14_videomae_s")
    tower = TowerConfig(16, 2, 2, patch=16, num_frames=4, image_size=32)
    shape = replace(own.config.localizer, feature_dim=16, dim=16, heads=2, levels=3, classes=2)
    own = replace(own, config=replace(own.config, localizer=shape, tower=tower))
    own = replace(own, window=16, image_size=32)
    monkeypatch.setitem(localizer_presets.PRESETS, ("AdaTAD", "thumos14_videomae_s"), own)
    from test_adatad import theirs

    torch.manual_seed(0)
    model = AdaTAD(own.config).eval()
    torch.save({"state_dict_ema": theirs(model)}, tmp_path / "a.pth")
    return model, own, tmp_path / "a.pth"


def test_adatad_sees_a_video_in_windows(monkeypatch, tmp_path):
    model, own, path = tiny(monkeypatch, tmp_path)
    shot = np.random.default_rng(0).integers(0, 255, (150, 36, 48, 3), dtype=np.uint8)
    video.write(tmp_path / "film.mp4", shot, 25)
    info = video.probe(tmp_path / "film.mp4")
    cut = list(windows(tmp_path / "film.mp4", info, own, 1))
    # 38 frames, one in four; windows half a window apart, the last ends with the film
    assert [(start, valid) for start, valid, _ in cut] == [(0, 16), (8, 16), (16, 16), (22, 16)]
    assert np.array_equal(cut[0][2][8:], cut[1][2][:8])
    table = detect(path, "thumos14_videomae_s", tmp_path / "film.mp4", None)
    assert set(table["video"]) == {"film"} and set(table["label"]) <= {"0", "1"}
    assert 0 <= table["start_s"].min() and table["end_s"].max() <= 6 and len(table) > 1
    # The surest of all windows is the first pick, in seconds of two digits and a score of four
    best = 0.0
    for _, valid, frames in cut:
        mask = torch.arange(16)[None] < valid
        with torch.inference_mode():
            logits, *_ = model(torch.from_numpy(frames)[None, :, None], mask)
        best = max(best, logits[mask.new_ones(1, logits.shape[1])].sigmoid().max().item())
    assert table["score"].iloc[0] == pytest.approx(round(best, 4), abs=1e-6)


def test_a_short_video_is_one_window_that_repeats_its_last_frame(monkeypatch, tmp_path):
    _, own, path = tiny(monkeypatch, tmp_path)
    video.write(tmp_path / "s.mp4", np.zeros((20, 32, 32, 3), np.uint8) + 7, 25)
    cut = list(windows(tmp_path / "s.mp4", video.probe(tmp_path / "s.mp4"), own, 1))
    assert [(start, valid) for start, valid, _ in cut] == [(0, 5)]
    assert np.array_equal(cut[0][2][5:], np.repeat(cut[0][2][4:5], 11, 0))
    assert detect(path, "thumos14_videomae_s", tmp_path, None)["end_s"].max() <= 0.8


def failing(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        cli.main(["localize", *map(str, arguments)])
    assert left.value.code == 2
    return capsys.readouterr().err


def test_what_is_wrong_is_named(tmp_path, capsys):
    _, path = official(tmp_path, "ActionFormer", "activitynet_tsp", wrapped=False)
    x = features(tmp_path, 30, 512)[0]
    np.save(tmp_path / "v.npy", x)
    at = tmp_path / "v.npy", "--out", tmp_path / "o", "--checkpoint", path, "--preset"
    assert "expected one of activitynet_i3d, activitynet_tsp" in failing(capsys, *at, "gtea")
    wide = failing(capsys, *at, "activitynet_i3d")
    assert "their.pth.tar: made for 512 features; expected 2048" in wide
    assert "made for 1 classes; expected 20" in failing(capsys, *at, "thumos14_i3d")
    np.save(tmp_path / "v.npy", x[:, :100])
    assert "v.npy: features have 100 numbers a step; " in failing(capsys, *at, "activitynet_tsp")
    np.save(tmp_path / "v.npy", x)
    whole, key = path.read_bytes(), "cls_head.cls_head.conv.weight"
    state = torch.load(path, weights_only=True)
    torch.save(state | {key: state[key].expand(7, -1, -1).clone()}, path)
    said = failing(capsys, *at[:-1])
    assert "their.pth.tar: holds ActionFormer of no published configuration; " in said
    assert "; activitynet_tsp: made for 7 classes; expected 1; " in said
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut off or holds something else" in failing(capsys, *at, "activitynet_tsp")
    torch.save({"fc.weight": torch.zeros(2)}, path)
    said = failing(capsys, *at, "activitynet_tsp")
    assert (
        "expected a checkpoint of ActionFormer, TriDet, DyFADet, AdaTAD; got names such as" in said
    )
    assert "expected --model or --checkpoint; not both" in failing(capsys, tmp_path / "v.npy")
    (tmp_path / "empty").mkdir()
    torch.save({"their": 1}, tmp_path / "w.pth")
    said = failing(capsys, tmp_path / "empty", *at[1:4], tmp_path / "w.pth", "--preset", "x")
    assert "w.pth: expected weights, alone or under 'state_dict'" in said


def test_a_rate_and_names_that_are_not_there_are_asked_for(tmp_path):
    _, path = official(tmp_path, "TriDet", "epic_verb")
    np.save(tmp_path / "v.npy", features(tmp_path, 30, 2304)[0])
    table = detect(path, "epic_verb", tmp_path / "v.npy", None)  # a rate is published
    assert set(table["label"]) <= {str(i) for i in range(97)}
    content = {"database": {"v": {"subset": "val", "annotations": [{"label": "a"}]}}}
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="t.json: has 1 classes; expected 97"):
        detect(path, "epic_verb", tmp_path / "v.npy", tmp_path / "t.json")
    with pytest.raises(ValueError, match="no subset 'x'; expected one of"):
        known(tmp_path / "t.json", "x")
    for entry, message in (
        ({"fps": 0}, "expected fps as a number above 0; got 0"),
        ({"annotations": [{"label": "a", "label_id": 1}]}, "expected label_id 0 to 0"),
        ({"annotations": [{"label": "a", "label_id": 0}, {"label": "a"}]}, "'a' has number None"),
    ):
        (tmp_path / "t.json").write_text(json.dumps({"database": {"v": entry}}))
        with pytest.raises(ValueError, match=message):
            known(tmp_path / "t.json")
    (tmp_path / "t.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match='expected {"database"'):
        known(tmp_path / "t.json")
    own = localizer_presets.preset("ActionFormer", "thumos14_i3d")
    assert own.fps == 0 and published_localizer.on_clock(torch.zeros(9, 1), own, 30.0)[1].step_s > 0
