"""What a localizer cannot learn from is counted and named, or refused; nothing is dropped without a
word.
"""

import warnings

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from vlact.losses.localization import assign, points
from vlact.models.actionformer import ActionFormer, LocalizerConfig
from vlact.papers.actionvlm import accounting, localizing
from vlact.papers.actionvlm.localizing import Clock, Localizer, Sequence, steps_of, window

LENGTH, LEVELS, STEPS = 16, 3, 48
RECIPE = {
    "window": LENGTH,
    "batch_size": 2,
    "noise": 0.0,
    "reg_weight": 1.0,
    "epochs": 1,
    "lr": 1e-3,
    "weight_decay": 0.0,
    "ema": 0.9,
    "pre_nms_topk": 50,
    "nms": {"max_seg_num": 5},
}


def model():
    torch.manual_seed(0)
    return ActionFormer(
        LocalizerConfig(feature_dim=4, classes=2, dim=8, heads=2, embeds=1, stems=1, levels=LEVELS)
    )


def video(*spans, name="v0", steps=STEPS, labels=None):
    """A video with these actions, in steps."""
    x = torch.randn(steps, 4, generator=torch.Generator().manual_seed(0))
    return Sequence(
        name,
        float(steps),
        x,
        torch.tensor(spans, dtype=torch.float32).view(-1, 2),
        torch.tensor(labels or [0] * len(spans)),
    )


def truth(*rows):
    return pd.DataFrame(rows, columns=["video", "start_s", "end_s", "label"])


def given(**features):
    features = features or {"a": torch.randn(STEPS, 4), "b": torch.randn(STEPS, 4)}
    return features, {v: float(len(x)) for v, x in features.items()}


GOOD = truth(("a", 3, 9, "x"), ("b", 20, 26, "y"))


# The account
@pytest.mark.parametrize(
    "span, reason",
    [
        ((3, 9), None),
        ((0, 1.2), None),  # a point at step 1
        ((2, 23), None),  # 16 of 21 steps are in a window
        ((44, 52), accounting.OUTSIDE),
        ((44, 49), None),
        ((60, 64), accounting.OUTSIDE),
        ((-6, 2), accounting.OUTSIDE),
        ((2, 24), accounting.LONGER),
        ((5.2, 5.7), accounting.BETWEEN),
        ((5.0, 6.0), accounting.BETWEEN),  # a point on the border is not inside
        ((0, 48), accounting.LONGER),
    ],
)
def test_every_action_is_used_or_has_a_reason(span, reason):
    found = accounting.account([video((30, 36), span)], LENGTH, LEVELS)
    assert found.given == 2 and found.used + found.lost == 2
    assert [x.reason for x in found.left_out] == ([reason] if reason else [])
    assert ("v0, steps" in str(found)) == bool(reason) and len(found.table()) == bool(reason)


@pytest.mark.parametrize("steps, inside", [(9, 0.3), (16, 0.75), (17, 0.5), (48, 0.75), (48, 0.3)])
def test_the_account_is_what_windows_show(steps, inside):
    """An action is used exactly where `window` and `assign` make a point positive for it."""
    chance, at = torch.Generator().manual_seed(steps), points(LENGTH, LEVELS)
    start = torch.randint(-20, 8 * steps, (150,), generator=chance) / 8
    size = torch.randint(1, 200, (150,), generator=chance) / 8
    for a, n in zip(start.tolist(), size.tolist(), strict=True):
        one = video((a, a + n), steps=steps)
        seen = False
        for s in range(max(0, steps - LENGTH) + 1):
            *_, spans, kinds = window(one, s, LENGTH, inside)
            seen = seen or bool(assign(at, spans, kinds, 1)[0].any())
        found = accounting.account([one], LENGTH, LEVELS, inside=inside)
        assert (found.used == 1) == seen, (a, a + n)


def test_repeated_actions_are_counted_once_and_overlapping_ones_both():
    found = accounting.account(
        [video((3, 9), (3, 9), (3, 9), (4, 9), labels=[0, 0, 1, 0])], LENGTH, LEVELS
    )
    assert (found.given, found.used) == (4, 3) and found.left_out[0].reason == accounting.REPEATED


def test_no_account_without_balance():
    with pytest.raises(AssertionError, match="3 actions came in, 1 are used and 1 left out"):
        accounting.Account(3, 1, (accounting.LeftOut("lost", 1, 1, ("v",)),))


def test_training_says_what_it_leaves_out_and_stops_where_it_is_most():
    videos = [video((3, 9), (5.2, 5.7)), video((3, 9), (1, 40), name="v1")]
    with pytest.warns(
        UserWarning,
        match="2 of 4 actions cannot be learnt .*between two points.*v0, steps 5.2 to "
        "5.7.*longer than the window",
    ):
        localizing.train(videos, model(), RECIPE, 0)
    # a recipe's own share counts in the account as in training
    with pytest.warns(UserWarning, match="1 of 4 actions cannot be learnt .*between two points"):
        localizing.train(videos, model(), RECIPE | {"inside": 0.3}, 0)
    with pytest.raises(
        ValueError,
        match="2 of 4 actions .* 50% of them, more than the 40% of `most_left_out`; expected "
        "windows",
    ):
        localizing.train(videos, model(), RECIPE, 0, most_left_out=0.4)
    with pytest.raises(ValueError, match="2 of 2 actions"):
        localizing.train([video((1, 40), (60, 70))], model(), RECIPE, 0, most_left_out=1.0)
    with pytest.raises(ValueError, match="no action in any training video"):
        localizing.train([video()], model(), RECIPE, 0)
    with pytest.raises(ValueError, match="most_left_out: expected a share from 0 to 1; got 3"):
        localizing.train(videos, model(), RECIPE, 0, most_left_out=3)


def test_good_videos_are_trained_on_without_a_word():
    features, durations = given()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        localizing.train(
            localizing.sequences(features, durations, GOOD, ["x", "y"], Clock(1.0)),
            model(),
            RECIPE,
            0,
        )


# Features
def broken(value, step=7):
    x = torch.randn(STEPS, 4)
    x[step, 2] = value
    return x


@pytest.mark.parametrize(
    "bad, message",
    [
        (
            broken(float("nan")),
            "b: 1 of 48 steps of features hold numbers that are not finite, the first at step 7",
        ),
        (broken(float("-inf")), "b: 1 of 48 steps .* step 7"),
        (
            broken(1e6).half(),
            "b: 1 of 48 steps .* step 7; extract them again .half precision overflows",
        ),
        (
            torch.zeros(0, 4),
            r"b: expected features \(T, F\) with at least one step and one number; got shape "
            r"\(0, 4\)",
        ),
        (torch.zeros(9), r"b: expected features \(T, F\)"),
        (torch.zeros(9, 3), r"b: features of shape \(9, 3\); expected \(T, 4\) as "),
        (torch.zeros(4, 9), r"b: features of shape \(4, 9\); expected \(T, 4\) as "),
    ],
)
def test_features_that_nothing_can_be_told_from_are_refused(bad, message, tmp_path):
    features, durations = given(a=torch.randn(STEPS, 4), b=bad)
    durations["b"] = max(durations["b"], 1.0)
    with pytest.raises(ValueError, match=message):
        localizing.sequences(features, durations, GOOD, ["x", "y"], Clock(1.0))
    with pytest.raises(ValueError, match=message):
        Localizer(model(), ["x", "y"], Clock(1.0), RECIPE, torch.zeros(4), torch.ones(4)).detect(
            features, durations
        )
    with pytest.raises(ValueError, match=message):
        accounting.standard(features, features)
    save_file(features, tmp_path / "f.safetensors")
    GOOD.to_parquet(tmp_path / "t.parquet")
    for split in ({"train": durations, "test": {}}, {"train": {"a": 48.0}, "test": durations}):
        with pytest.raises(ValueError, match=message):
            shape = {
                "feature_dim": 4,
                "classes": 2,
                "dim": 8,
                "heads": 2,
                "embeds": 1,
                "stems": 1,
                "levels": LEVELS,
            }
            table = str(tmp_path / "t.parquet"), ["x", "y"], {"step_s": 1.0}
            source = str(tmp_path / "f.safetensors"), split, *table, shape, RECIPE
            out = str(tmp_path / "o"), str(tmp_path / "o.pt")
            localizing.localize_job("ActionFormer", localizing.Problem(*source), 0, *out)


def test_a_training_video_that_broke_later_is_refused():
    videos = [video((3, 9)), video((3, 9), name="v1")]
    videos[1].features[5] = torch.nan
    with pytest.raises(ValueError, match="v1: 1 of 48 steps .* step 5"):
        localizing.train(videos, model(), RECIPE, 0)


def test_a_video_of_one_step_is_counted_and_searched():
    one = video((0, 1), steps=1)
    assert accounting.account([one], LENGTH, LEVELS).left_out[0].reason == accounting.BETWEEN
    finder = Localizer(
        model().eval(), ["x", "y"], Clock(1.0), RECIPE, torch.zeros(4), torch.ones(4)
    )
    assert set(finder.detect({"v": torch.randn(1, 4)}, {"v": 1.0})["video"]) <= {"v"}
    with pytest.raises(
        ValueError, match="1 steps of features in 1 training videos; expected two or more"
    ):
        accounting.standard({"v": torch.randn(1, 4)}, ["v"])


def test_nothing_to_search_is_an_empty_table():
    finder = Localizer(
        model().eval(), ["x", "y"], Clock(1.0), RECIPE, torch.zeros(4), torch.ones(4)
    )
    for found in (finder.detect({}, {}), finder.candidates({}, {})):
        assert list(found) == ["video", "start_s", "end_s", "label", "score"] and not len(found)
        assert found["start_s"].dtype.kind == found["score"].dtype.kind == "f"
    with pytest.raises(ValueError, match="no features of 1 videos, for example 'v'"):
        finder.detect({}, {"v": 1.0})


def test_a_model_of_bad_weights_does_not_find_nothing_in_silence():
    bad = model().eval()
    with torch.no_grad():
        next(bad.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="v: the model's answer is not finite from step 0 on"):
        Localizer(bad, ["x", "y"], Clock(1.0), RECIPE, torch.zeros(4), torch.ones(4)).detect(
            {"v": torch.randn(9, 4)}, {"v": 9.0}
        )


# Clock, times and classes
@pytest.mark.parametrize(
    "clock, name",
    [(Clock(0.01), "step_s 0.01"), (Clock(1.0, 100.0), "offset_s 100"), (Clock(1000.0), None)],
)
def test_a_clock_that_does_not_fit_is_named(clock, name):
    features, durations = given()
    if name:
        with pytest.raises(
            ValueError,
            match=rf"{name}.* put 2 of 2 actions outside the features.*a has an action from 3 to "
            rf"9 s and 48 steps",
        ):
            localizing.sequences(features, durations, GOOD, ["x", "y"], clock)
    else:  # features reach further than the video
        with pytest.warns(
            UserWarning,
            match="features and durations of 2 of 2 videos disagree: those of a end at 48000 s "
            "of 48",
        ):
            localizing.sequences(features, durations, GOOD, ["x", "y"], clock)


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clock_is_a_positive_number(step):
    with pytest.raises(
        ValueError, match="step_s and offset_s: expected finite seconds, the former above 0"
    ):
        localizing.sequences(*given(), GOOD, ["x", "y"], Clock(step))


def test_durations_that_disagree_with_features_are_named():
    features, durations = given()
    with pytest.warns(
        UserWarning, match="of 1 of 2 videos disagree: those of b end at 48 s of 480"
    ):
        localizing.sequences(features, durations | {"b": 480.0}, GOOD, ["x", "y"], Clock(1.0))
    for bad in (0.0, -3.0, float("nan")):
        with pytest.raises(ValueError, match="b: expected a duration in seconds above 0"):
            localizing.sequences(features, durations | {"b": bad}, GOOD, ["x", "y"], Clock(1.0))


@pytest.mark.parametrize("start, end", [(0.0, float("inf")), (float("-inf"), 3.0)])
def test_times_without_end_are_refused(start, end):
    with pytest.raises(ValueError, match=r"ground truth, row 2 \(a\): end_s must be after start_s"):
        localizing.sequences(
            *given(),
            pd.concat([GOOD, truth(("a", start, end, "x"))], ignore_index=True),
            ["x", "y"],
            Clock(1.0),
        )


def test_actions_of_other_videos_are_named():
    with pytest.warns(
        UserWarning, match="1 of 3 actions are of videos that were not asked for, such as 'z'"
    ):
        localizing.sequences(
            *given(), pd.concat([GOOD, truth(("z", 1, 3, "x"))]), ["x", "y"], Clock(1.0)
        )


def test_classes_that_only_the_test_has_are_named():
    with pytest.warns(
        UserWarning,
        match="1 classes are only in test videos, with 1 of 1 actions, and cannot be learnt: 'y'",
    ):
        accounting.check_classes(GOOD, {"train": {"a": 1.0}, "test": {"b": 1.0}})


# Steps
def asked_of(folder, monkeypatch, tal, *more):
    """What the program for many processes would train: windows, recipe, and the videos."""
    from dataclasses import replace

    from vlact.datasets import activitynet
    from vlact.papers.actionvlm import scaling

    asked, smoke = [], scaling.params.load("smoke")
    features = {v: torch.randn(3 * smoke.tal.window, 4) for v in "ab"}
    save_file(features, folder / "f.safetensors")
    table = GOOD.assign(split="training", duration_s=float(3 * smoke.tal.window))
    activitynet.write_ground_truth(table, folder / "t.json")

    def stop(task, windows, recipe, *_):
        asked.extend((windows, recipe))
        raise ValueError("seen")

    monkeypatch.setattr(scaling, "train", stop)
    chosen = replace(smoke, tal=replace(smoke.tal, **tal))
    monkeypatch.setattr(scaling.params, "load", lambda *_: chosen)
    files = [str(folder / n) for n in ("t.json", "f.safetensors", "out")]
    assert scaling.main([*files, "--step-s", "1", "--batch-size", "2", *more]) == 1
    seconds = {v: 96.0 for v in "ab"}
    videos = localizing.sequences(features, seconds, GOOD, ["x", "y"], Clock(1.0))
    return *asked, videos, chosen.tal


def test_many_processes_count_steps_as_the_job_does(tmp_path, monkeypatch):
    """Six windows of features in two videos: an epoch of a batch of two is three steps, not one."""
    _, recipe, videos, tal = asked_of(tmp_path, monkeypatch, {})
    counted = steps_of(videos, {"window": tal.window, "batch_size": 2}, tal.epochs)
    assert recipe.steps == counted == 3 * tal.epochs
    assert not recipe.constant and (recipe.max_norm, recipe.least) == (1.0, 0.0)


def test_many_processes_train_by_published_numbers(tmp_path, monkeypatch):
    asked = tmp_path, monkeypatch, {"preset": "activitynet_tsp"}, "--kind", "TriDet"
    windows, recipe, *_ = asked_of(*asked)
    assert recipe.constant and (recipe.ema, recipe.max_norm, recipe.least) == (0.999, 0.4, 0.05)
    assert recipe.warmup == pytest.approx(10 / 15) and recipe.steps == 15
    # a stretch of nine tenths or more of a video that is shorter than the window
    x, mask, *_ = windows[0, 0]
    assert len(x) == 768 and 86 <= mask.sum() <= 96


def test_many_processes_have_windows_that_hold_the_longest_action(tmp_path, monkeypatch):
    with pytest.warns(UserWarning, match="longer than a window of 4 steps.*windows have 8 instead"):
        windows, *_ = asked_of(tmp_path, monkeypatch, {"window": 4})
    assert windows.length == 8


def test_the_command_line_names_what_it_leaves_out(tmp_path, capsys):
    from vlact.datasets import activitynet
    from vlact.papers.actionvlm import scaling

    save_file({"a": broken(float("nan")), "b": torch.randn(STEPS, 4)}, tmp_path / "f.safetensors")
    activitynet.write_ground_truth(
        GOOD.assign(split="training", duration_s=48.0), tmp_path / "t.json"
    )
    files = [str(tmp_path / n) for n in ("t.json", "f.safetensors", "out")]
    assert scaling.main([*files, "--profile", "smoke", "--step-s", "1"]) == 1
    assert "a: 1 of 48 steps" in capsys.readouterr().err
    save_file({v: torch.randn(STEPS, 4) for v in "ab"}, tmp_path / "f.safetensors")
    assert scaling.main([*files, "--profile", "smoke", "--step-s", "0.01"]) == 1
    assert (
        "step_s 0.01 and offset_s 0 put 2 of 2 actions outside the features"
        in capsys.readouterr().err
    )
    far = pd.concat([GOOD, truth(("a", 0.2, 0.8, "x"))]).assign(split="training", duration_s=48.0)
    activitynet.write_ground_truth(far, tmp_path / "t.json")
    assert (
        scaling.main([*files, "--profile", "smoke", "--step-s", "1", "--most-left-out", "0.1"]) == 1
    )
    assert "33% of them, more than the 10% of `most_left_out`" in capsys.readouterr().err


def test_transposed_features_are_refused_with_what_to_do():
    features, durations = given(a=torch.randn(4, STEPS), b=torch.randn(4, 30))
    with pytest.raises(ValueError, match=r"b: .*\(4, 30\).*perhaps they are \(F, T\): turn"):
        localizing.sequences(features, durations, GOOD, ["x", "y"], Clock(1.0))
    finder = Localizer(model(), ["x", "y"], Clock(1.0), RECIPE, torch.zeros(4), torch.ones(4))
    with pytest.raises(ValueError, match=r"a: .*\(4, 48\); expected \(T, 4\).*\(x\.T\)"):
        finder.detect(features, durations)
    same, durations = given(a=torch.randn(STEPS, 6), b=torch.randn(STEPS, 6))
    videos = localizing.sequences(same, durations, GOOD, ["x", "y"], Clock(1.0))
    with pytest.raises(ValueError, match=r"a: .*\(48, 6\); expected \(T, 4\) as the model has"):
        localizing.train(videos, model(), RECIPE, 0)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int64, torch.uint8])
def test_features_of_any_numbers_train_as_the_same_floats(kind):
    numbers = {v: torch.randint(0, 9, (STEPS, 4)) for v in "ab"}
    _, durations = given(**numbers)
    curves = []
    for features in (numbers, {v: x.to(kind) for v, x in numbers.items()}):
        videos = localizing.sequences(features, durations, GOOD, ["x", "y"], Clock(1.0))
        torch.manual_seed(0)
        curves.append(localizing.train(videos, model(), RECIPE, 0)[1])
    assert curves[0] == curves[1]
