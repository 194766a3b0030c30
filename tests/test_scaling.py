"""Training over many processes: the same curve on one and two, and after a kill; settings that are
shipped can be read.
"""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from reference import processes
from torch import nn

from vlact import ROOT, video
from vlact.papers import scaling
from vlact.papers.actionvlm import scaling as localizing
from vlact.papers.scaling import Moments, Recipe, Shares


class Floats(nn.Module):
    def forward(self, x):
        return x.float() / 255


OPTIONS = [
    "--kind",
    "MViTv2",
    "--options",
    '{"width": 0.25, "depth": 0.2, "frames": 8, "size": 32, "dropout": 0}',
]
OPTIONS += "--frames 8 --size 32 --batch-size 8 --steps 8 --every 2 --workers 0".split()
OPTIONS += "--window-s 1.5 --ema 0.9".split()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twelve clips of a block that goes left, right or nowhere: the table and the folder."""
    folder, rng, rows = tmp_path_factory.mktemp("clips"), np.random.default_rng(0), []
    for i in range(12):
        frames, way = np.full((16, 48, 48, 3), 40, np.uint8), i % 3
        for t in range(16):
            x = (2 * t, 30 - 2 * t, 15)[way] + 8
            frames[t, 10:30, x : x + 8] = rng.integers(100, 255)
        video.write(folder / f"{i}.mp4", frames, 8)
        rows.append((f"{i}.mp4", 0.0, 2.0, ("right", "left", "still")[way], "train", "a"))
    table = pd.DataFrame(rows, columns=["video", "start_s", "end_s", "label", "split", "group"])
    table.to_csv(folder / "a.csv", index=False)
    return folder / "a.csv", folder


ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(source, out, count: int, *more: str, program=scaling.main, options=OPTIONS) -> str:
    """The program on one process or more, and what it said."""
    out.mkdir(exist_ok=True)
    given, log = [*map(str, source), str(out), *options, *more], out / "log"
    processes.together(count, program, given, log=log)
    return log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def alone(source, tmp_path_factory):
    """The curve of one process."""
    out = tmp_path_factory.mktemp("alone")
    assert re.search(r"8 steps, loss \d", run(source, out, 1))
    return pd.read_csv(out / "curve.csv")


def test_two_processes_give_the_curve_of_one(source, alone, tmp_path):
    # --standalone: on any port that is free
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    given = [*map(str, source), str(tmp_path), *OPTIONS, "--stop", "6"]
    launched = [*launch, "-m", "vlact.papers.scaling", *given]
    subprocess.run(launched, env=os.environ | ENVIRONMENT, check=True)
    # there were two
    assert sorted(x.name for x in tmp_path.glob("state-*/random*")) == [
        "random_states_0.pkl",
        "random_states_1.pkl",
    ]
    (state,) = tmp_path.glob("state-*")
    halfway = json.loads((state / "curve.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose([x["loss"] for x in halfway], alone["loss"][:6], atol=1e-5)
    run(source, tmp_path, 1)  # and one goes on where two stopped
    np.testing.assert_allclose(
        pd.read_csv(tmp_path / "curve.csv")["loss"], alone["loss"], atol=1e-5
    )
    assert alone["loss"].std() > 0.02  # it is a curve


def killed_once_a_state_is_kept(arguments: list[str]) -> None:
    keep = scaling.keep

    def keep_and_die(*given) -> None:
        keep(*given)
        os.kill(os.getpid(), signal.SIGKILL)

    scaling.keep = keep_and_die
    os.environ |= ENVIRONMENT
    scaling.main(arguments)


def test_a_killed_process_leaves_a_state_to_go_on_from(source, alone, tmp_path):
    out = tmp_path / "run"
    given = [*map(str, source), str(out), *OPTIONS]
    assert processes.run(killed_once_a_state_is_kept, given) == -signal.SIGKILL
    # what a kill in the middle of writing leaves
    (out / "unfinished-4").mkdir()
    run(source, out, 1, "--accumulate", "1")
    np.testing.assert_allclose(pd.read_csv(out / "curve.csv")["loss"], alone["loss"], atol=1e-5)
    assert [x.name for x in out.glob("*-*")] == ["state-0000008"]


def test_passes_of_one_update_add_up(source, tmp_path):
    clips, curves = (
        Moments(source[1], pd.read_csv(source[0]), np.arange(12) % 3, 8, 16, None, 0),
        [],
    )
    for accumulate in (1, 4):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), Floats(), nn.Linear(8 * 16 * 16 * 3, 3))
        recipe = Recipe(steps=4, batch_size=8, accumulate=accumulate, lr=1e-4)
        curves.append(
            scaling.train(scaling.Objective(model, 0.1), clips, recipe, tmp_path / str(accumulate))[
                "loss"
            ]
        )
    np.testing.assert_allclose(*curves, atol=1e-5)
    assert curves[0].std() > 1e-4


def test_ace_on_two_processes_learns_as_on_one_and_leaves_an_encoder(source, tmp_path):
    """Its draws of synonyms are the same in every process."""
    from vlact.models.dual import DualConfig, DualEncoder

    torch.manual_seed(0)
    start = DualEncoder(
        DualConfig(
            image_size=32,
            patch_size=16,
            num_frames=4,
            dim=24,
            depth=2,
            heads=2,
            embed_dim=16,
            text_dim=384,
        )
    )
    start.save(tmp_path / "start.safetensors")
    table = pd.read_csv(source[0]).replace(
        {"label": {"right": "push block", "left": "pull block", "still": "hold block"}}
    )
    table.to_csv(tmp_path / "named.csv", index=False)
    options = ["--kind", "ACE", "--clip", str(tmp_path / "start.safetensors")]
    options += "--frames 4 --size 32 --batch-size 8 --steps 6 --every 3 --workers 0".split()
    options += "--lr 0.05 --momentum 0.9 --weight-decay 0".split()
    options += ["--options", '{"blocks": 1, "tau": 0.1}']
    curves, given = [], (tmp_path / "named.csv", source[1])
    for count in (1, 2):
        run(given, tmp_path / str(count), count, options=options)
        curves.append(pd.read_csv(tmp_path / str(count) / "curve.csv")["loss"])
    np.testing.assert_allclose(*curves, atol=1e-5)
    assert curves[0].std() > 1e-3
    trained = DualEncoder.load(tmp_path / "2" / "encoder.safetensors")
    moved = {
        k for k, v in trained.state_dict().items() if not torch.equal(v, start.state_dict()[k])
    }
    assert (
        any("layer.1." in k for k in moved)
        and not any("layer.0." in k for k in moved)
        and "text_projection.weight" in moved
    )


@pytest.fixture
def recordings(tmp_path):
    """Features of eight recordings with an action each, as a file, and their ground truth."""
    from safetensors.torch import save_file

    from vlact.datasets import activitynet

    chance, features, rows = torch.Generator().manual_seed(0), {}, []
    for i in range(8):
        x, start = 0.3 * torch.randn(60 + i, 6, generator=chance), 6 + 3 * i
        x[start : start + 12, i % 2] += 3
        features[f"v{i}"] = x
        rows.append(
            (
                f"v{i}",
                0.5 * start,
                0.5 * (start + 12),
                ("jump", "run")[i % 2],
                "training",
                0.5 * len(x),
            )
        )
    save_file(features, tmp_path / "features.safetensors")
    columns = ["video", "start_s", "end_s", "label", "split", "duration_s"]
    activitynet.write_ground_truth(pd.DataFrame(rows, columns=columns), tmp_path / "truth.json")
    return tmp_path / "truth.json", tmp_path / "features.safetensors", features


LOCALIZING = "--profile smoke --step-s 0.5 --batch-size 4 --steps 12 --every 6".split()
LOCALIZING += "--workers 0 --lr 5e-3 --ema 0.9".split()


def test_a_localizer_on_two_processes_learns_as_on_one_and_finds(recordings, tmp_path):
    """Its loss is divided by a count over all processes."""
    from vlact.papers.actionvlm.localizing import Localizer

    curves, (*given, features) = [], recordings
    for count in (1, 2):
        run(
            given,
            tmp_path / str(count),
            count,
            program=localizing.main,
            options=LOCALIZING,
        )
        curves.append(pd.read_csv(tmp_path / str(count) / "curve.csv")["loss"])
    np.testing.assert_allclose(*curves, atol=1e-5)
    assert curves[0].std() > 0.02
    localizer = Localizer.load(tmp_path / "2" / "localizer.safetensors")
    found = localizer.detect(features, {v: 0.5 * len(x) for v, x in features.items()})
    assert set(found["label"]) <= {"jump", "run"} and len(found)


@pytest.fixture
def aligned(tmp_path):
    """A reader of two classes, never trained, as alignment leaves one, and descriptions."""
    from safetensors.torch import save_file

    from vlact.language.prompts import clauses, tokenizer
    from vlact.models.actionvlm import Reader, ReaderConfig

    torch.manual_seed(0)
    folder, texts = (
        tmp_path / "aligned",
        {"jump": "the person first runs, then leaps", "run": "the person first bends, then runs"},
    )
    folder.mkdir()
    words = tokenizer(list(texts), 33)
    language = {"feature_dim": 6, "numbers": words.convert_tokens_to_ids("0")}
    Reader(ReaderConfig(len(words), 3, 8, 16, 2, 2, 4, language)).save(
        folder / "reader.safetensors"
    )
    save_file(
        {c: torch.randn(8) for t in texts.values() for c in clauses(t)},
        folder / "clauses.safetensors",
    )
    (folder / "words.json").write_text(
        json.dumps({"names": list(texts), "steps": 32}), encoding="utf-8"
    )
    (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    return [
        "--kind",
        "ActionVLM",
        "--aligned",
        str(folder),
        "--descriptions",
        str(tmp_path / "texts.json"),
    ]


def test_actionvlm_on_two_processes_learns_as_on_one_and_finds(recordings, aligned, tmp_path):
    """Class means, advantages and words are counted over all processes; every other epoch language
    rests.
    """
    from vlact.papers.actionvlm.experiments import VisionLanguageLocalizer

    curves, (*given, features) = [], recordings
    for count in (1, 2):
        run(
            given,
            tmp_path / str(count),
            count,
            program=localizing.main,
            options=[*LOCALIZING, *aligned],
        )
        curves.append(pd.read_csv(tmp_path / str(count) / "curve.csv")["loss"])
    np.testing.assert_allclose(*curves, atol=1e-5)
    assert curves[0].std() > 0.02
    trained = VisionLanguageLocalizer.load(tmp_path / "2" / "actionvlm.safetensors")
    moved = trained.model.reader.branch.advantage.weight
    assert moved.abs().sum() > 0  # it starts from zero, and L_adv is all that moves it
    found = trained.detect(features, {v: 0.5 * len(x) for v, x in features.items()})
    assert set(found["label"]) <= {"jump", "run"} and len(found)


@pytest.mark.parametrize("weight", ["eq1", "paired"])
def test_actionvlm_goes_on_where_it_was_killed(weight, recordings, aligned, tmp_path):
    """Means of an epoch that was cut in two are kept, too."""
    *given, _ = map(str, recordings)
    for out, more in (("whole", []), ("halves", ["--stop", "5"]), ("halves", [])):
        assert (
            localizing.main(
                [*given, str(tmp_path / out), *LOCALIZING, *aligned, "--weight", weight, *more]
            )
            == 0
        )
    curves = [pd.read_csv(tmp_path / out / "curve.csv")["loss"] for out in ("whole", "halves")]
    np.testing.assert_allclose(*curves, atol=1e-6)


@pytest.mark.parametrize("head", ["TriDet", "DyFADet"])
def test_actionvlm_is_on_any_localizer_of_points(head, recordings, aligned, tmp_path):
    from vlact.papers.actionvlm.experiments import VisionLanguageLocalizer

    *given, features = recordings
    options = [*LOCALIZING, *aligned, "--localizer", head, "--steps", "4", "--weight", "paired"]
    assert localizing.main([*map(str, given), str(tmp_path / "out"), *options]) == 0
    trained = VisionLanguageLocalizer.load(tmp_path / "out" / "actionvlm.safetensors")
    assert type(trained.model.localizer).__name__ == head
    seconds = {v: 0.5 * len(x) for v, x in features.items()}
    assert set(trained.detect(features, seconds)["label"]) <= {"jump", "run"}


def test_actionvlm_over_a_published_language_model(recordings, aligned, tmp_path, monkeypatch):
    """Its weights stay in their folder: the run's model holds LoRA and what is new, and finds as
    it did.
    """
    from safetensors.torch import load_file
    from test_vision_language import publish

    from vlact.models import files
    from vlact.models.actionvlm import Reader
    from vlact.papers.actionvlm.experiments import VisionLanguageLocalizer

    monkeypatch.setattr(files, "ROOT", tmp_path)  # the language model lies in the repository
    *given, features = recordings
    folder = tmp_path / "aligned"
    (folder / "clauses.safetensors").unlink()
    Reader.over(lm := publish(tmp_path / "lm"), 6, lm_stride=4).save(folder / "reader.safetensors")
    (folder / "words.json").write_text(json.dumps({"folder": lm, "steps": 32}), encoding="utf-8")
    assert localizing.main([*map(str, given), str(tmp_path / "out"), *LOCALIZING, *aligned]) == 0
    path = tmp_path / "out" / "actionvlm.safetensors"
    (state,) = (tmp_path / "out").glob("state-*")
    for file in (path, state / "model.safetensors", tmp_path / "out" / "model.safetensors"):
        kept = list(load_file(file))
        assert not [k for k in kept if "base_layer" in k or "embed_tokens" in k]
        assert any("lora_B" in k for k in kept)
    found = VisionLanguageLocalizer.load(path).detect(
        features, {v: 0.5 * len(x) for v, x in features.items()}
    )
    assert set(found["label"]) <= {"jump", "run"} and len(found)
    (folder / "words.json").write_text("{}", encoding="utf-8")
    assert localizing.main([*map(str, given), str(tmp_path / "out"), *LOCALIZING, *aligned]) == 1


def test_what_actionvlm_cannot_be_trained_on(recordings, aligned, tmp_path, capsys):
    *given, _ = map(str, recordings)
    (tmp_path / "short.json").write_text('{"jump": "the person leaps"}', encoding="utf-8")
    for more, message in (
        (aligned[:4], "expected --aligned, the folder of the alignment stage, and --descriptions"),
        (
            [*aligned, "--weight", "much"],
            "--weight 'much': expected eq1, paired, learned or a number",
        ),
        (
            [*aligned, "--aligned", str(tmp_path)],
            "reader.safetensors: no such file; expected reader.safetensors, words.json",
        ),
        (
            [*aligned, "--descriptions", str(tmp_path / "short.json")],
            "short.json: no description of 'run', a class of the ground truth",
        ),
        (
            [*aligned, "--descriptions", str(recordings[1])],
            "features.safetensors: expected json, a description by class",
        ),
    ):
        assert localizing.main([*given, str(tmp_path / "out"), *LOCALIZING, *more]) == 1
        assert message in capsys.readouterr().err


def test_what_a_localizer_cannot_be_trained_on(tmp_path, capsys):
    (tmp_path / "features").mkdir()
    (tmp_path / "truth.json").write_text(
        '{"a": {"subset": "training", "annotations": [{"segment": [1, 2], "label": "jump"}]}}',
        encoding="utf-8",
    )
    given = [
        str(tmp_path / "truth.json"),
        str(tmp_path / "features"),
        str(tmp_path / "out"),
        "--step-s",
        "0.5",
        "--profile",
        "smoke",
    ]
    assert localizing.main(given) == 1
    assert (
        "features: no features of 1 of 1 videos, for example 'a'; extract them first"
        in capsys.readouterr().err
    )
    (tmp_path / "broken.safetensors").write_bytes(b"no features")
    for name, message in (
        ("nowhere", "found nothing"),
        ("broken.safetensors", "expected a safetensors file with an array"),
    ):
        assert localizing.main([given[0], str(tmp_path / name), *given[2:]]) == 1
        assert f"{name}: " in (said := capsys.readouterr().err) and message in said
    assert localizing.main([*given, "--accumulate", "2"]) == 1
    assert "the loss counts positive points of whole batches; expected 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind, options",
    [("I3D", {"width": 0.13, "depth": 0.7}), ("MViTv2", {"width": 0.25, "depth": 0.4, "size": 32})],
)
def test_blocks_that_are_run_again_keep_less_and_learn_the_same(kind, options):
    from vlact.papers.transfer.benchmark import build

    clips, labels = (
        torch.randint(0, 255, (2, 8, 32, 32, 3), dtype=torch.uint8),
        torch.tensor([0, 1]),
    )

    def learn(change):
        torch.manual_seed(0)
        model, kept = build(kind, ["a", "b"], options | {"frames": 8}), []
        names = list(model.state_dict())
        task = scaling.Objective(change(model), 0.1)
        torch.manual_seed(1)  # dropout
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: (kept.append(x.numel()), x)[1], lambda x: x
        ):
            loss = task(clips, labels)
        loss.backward()
        assert list(model.state_dict()) == names
        return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()]), sum(kept)

    plain, again = learn(lambda m: m), learn(scaling.thrifty)
    assert plain[0] == pytest.approx(again[0], abs=1e-6) and again[2] < 0.8 * plain[2]
    torch.testing.assert_close(again[1], plain[1], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (2, 1), (4, 2), (2, 4)])
def test_every_clip_of_a_batch_is_seen_once(processes, accumulate):
    recipe = Recipe(steps=5, batch_size=16, accumulate=accumulate)
    whole = [sorted(batch) for batch in Shares(10, Recipe(steps=5, batch_size=16), 0, 1, 0)]
    shares = [list(Shares(10, recipe, rank, processes, 2)) for rank in range(processes)]
    assert len(shares[0]) == len(Shares(10, recipe, 0, processes, 2)) == 3 * accumulate
    for step in range(2, 5):
        parts = [share[(step - 2) * accumulate + k] for share in shares for k in range(accumulate)]
        assert sorted(sum(parts, [])) == whole[step] and len({len(x) for x in parts}) == 1


def test_a_batch_that_cannot_be_shared_out():
    with pytest.raises(
        ValueError,
        match="batch_size 10 must be a multiple of accumulate x processes = 2 x 4; "
        "the nearest is 8",
    ):
        Shares(10, Recipe(steps=1, batch_size=10, accumulate=2), 0, 4, 0)


def test_clips_follow_from_seed_step_and_row(source):
    table = pd.read_csv(source[0])
    clips = [Moments(source[1], table, np.arange(12), 8, 32, 1.0, seed) for seed in (0, 0, 1)]
    first, again, other = (c[3, 5][0] for c in clips)
    assert (
        torch.equal(first, again)
        and not torch.equal(first, other)
        and not torch.equal(first, clips[0][4, 5][0])
    )
    assert first.shape == (8, 32, 32, 3) and first.dtype == torch.uint8 and clips[0][3, 5][1] == 5
    with pytest.raises(video.VideoError, match="none.mp4"):
        Moments(source[1], table.assign(video="none.mp4"), np.arange(12), 8, 32, None, 0)[0, 0]


def test_averaged_weights_need_whole_ones(tmp_path):
    class Shared:
        distributed_type = "FSDP"

    with pytest.raises(
        ValueError,
        match="ema 0.9 needs whole weights in every process; FSDP shares them out, DDP does not",
    ):
        scaling.train(
            scaling.Objective(nn.Linear(2, 2), 0.1),
            [],
            Recipe(steps=1, ema=0.9),
            tmp_path,
            Shared(),
        )


def test_another_recipe_in_the_same_folder(tmp_path):
    scaling.agree(tmp_path, Recipe(steps=5))
    # of a time with fewer options
    (tmp_path / "recipe.json").write_text('{"steps": 5, "lr": 0.001}', encoding="utf-8")
    scaling.agree(tmp_path, Recipe(steps=5))
    with pytest.raises(
        ValueError,
        match=r"recipe.json: the run there has another recipe, "
        r"\{'lr': \(0.001, 0.01\)\} \(there, here\)",
    ):
        scaling.agree(tmp_path, Recipe(steps=5, lr=0.01))


def tiny_run(source, out, **more):
    clips = Moments(source[1], pd.read_csv(source[0]), np.arange(12) % 3, 2, 16, None, 0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Floats(), nn.Linear(2 * 16 * 16 * 3, 3))
    recipe = Recipe(steps=3, batch_size=4, lr=1e-4, **more)
    return scaling.train(scaling.Objective(model, 0.1), clips, recipe, out)["loss"].tolist()


def test_a_tracker_is_told_loss_and_rate_of_every_step(source, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    alone, followed = tiny_run(source, tmp_path / "a"), tmp_path / "b"
    assert tiny_run(source, followed, tracker="tensorboard") == alone
    events = EventAccumulator(str(followed / "log")).Reload()
    told = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in ("loss", "lr")}
    assert told["loss"] == [(k + 1, pytest.approx(x, rel=1e-6)) for k, x in enumerate(alone)]
    assert [step for step, _ in told["lr"]] == [1, 2, 3] and told["lr"][0][1] > 0
    # who looks on changes nothing
    scaling.agree(followed, Recipe(steps=3, batch_size=4, lr=1e-4))


def test_a_tracker_that_is_not_there_is_named(source, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="tensorbord.*Choose between"):
        tiny_run(source, tmp_path / "a", tracker="tensorbord")
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(ValueError, match="tracker 'wandb': its package is not installed"):
        tiny_run(source, tmp_path / "b", tracker="wandb")


def test_a_loss_that_is_no_number_stops_the_run(source, tmp_path):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, clips):
            return self.weight.expand(len(clips), 3) * float("nan")

    clips = Moments(source[1], pd.read_csv(source[0]), np.arange(12) % 3, 8, 32, None, 0)
    with pytest.raises(FloatingPointError, match=r"step 0: the loss is nan; lower lr \(0.001\)"):
        scaling.train(
            scaling.Objective(Broken(), 0.1), clips, Recipe(steps=2, batch_size=4), tmp_path
        )


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed"])
def test_settings_can_be_read_by_accelerate(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(ROOT / "vlact" / "tools" / "launch" / f"{name}.yaml"))
    assert config.num_processes == 8 and config.mixed_precision == "bf16"
    assert (
        config.distributed_type
        == {"ddp": "MULTI_GPU", "fsdp": "FSDP", "deepspeed": "DEEPSPEED"}[name]
    )


def test_the_slurm_script_is_bash():
    script = ROOT / "vlact" / "tools" / "launch" / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "vlact/tools/launch/ddp.yaml" in script.read_text(encoding="utf-8")


def test_a_language_model_that_could_not_be_found_again_is_refused_before_training(tmp_path):
    from vlact.models import files

    with pytest.raises(ValueError, match="its language model: expected a path in the repository"):
        files.inside("/elsewhere/lm", tmp_path / "actionvlm.safetensors", "its language model")
    assert files.inside(str(tmp_path / "lm"), tmp_path / "actionvlm.safetensors", "it")
