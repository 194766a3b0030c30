"""The command line: `vlact COMMAND --help`.

Every command writes into a folder of the user's choice, never among committed results, says what
became of everything that it was given, and ends with a line that says what was written. It exits
with 0; with 1 where `check` found something; with 2 and one line where the input is at fault
(`--debug` anywhere shows the traceback).
"""

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import warnings
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from vlact import CHECKOUT, ROOT, __version__
from vlact.runtime.extras import extra_of, lacking
from vlact.tools import cli_inputs as inputs
from vlact.tools.account import Account

app = typer.Typer(
    name="vlact",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Score, check, recognize and localize actions; reproduce the papers.",
    epilog="--debug anywhere shows the traceback of an error. Exit codes: 0 done, 1 `check` found "
    "something, 2 the input is at fault.",
)
NEEDS: dict[str, tuple[str, ...]] = {}  # by command, modules that it imports beyond the core
RECOGNIZERS = ("ActionRecognizer", "MotionRecognizer")
LOCALIZERS = ("ActionLocalizer", "VisionLanguageLocalizer")
PRINTED = 20  # rows of a long table
TOGETHER = "install both again from one index"
LATE_S = 0.5  # that an annotation may end after its video

Subset = Annotated[str, typer.Option(help="Part of the truth; 'all' or, by itself, the test part.")]
Classes = Annotated[
    Path | None, typer.Option(help="'<number> <name>' a line, of numbered classes.")
]
Task = Annotated[str, typer.Option(help="Of EPIC-Kitchens: verb, noun or action.")]
Encoder = Annotated[
    str, typer.Option(help="vlact .safetensors, a name of `vlact.hub.load`, or FILE.py:CLASS")
]
Options = Annotated[str, typer.Option(help="Of FILE.py:CLASS, a JSON object.")]
Tious = Annotated[str, typer.Option(help="thumos14, activitynet, epic, or 0.5,0.75")]
Films = Annotated[list[Path], typer.Argument(help="Videos, or folders of them.")]
OwnVideos = Annotated[Path | None, typer.Option(help="Folder of the videos, for clips and ends.")]
Resamples = Annotated[int, typer.Option(min=0, help="Of the videos, for intervals.")]


# What commands have in common
class Run:
    """One call of a command: where it writes, what became of its input, how it ends.

    Args:
        out: Folder, made when it is first used.
        as_json: Whether the result goes to stdout as JSON.
        most: See `Account`.
    """

    def __init__(self, out: Path, as_json: bool, most: float):
        self.given, self.as_json, self.account = out, as_json, Account(most)

    def check(self) -> None:
        """Refuse a folder that cannot be written into, before the long work; nothing is made yet.

        Raises:
            ValueError: One of this checkout's own, or there is something else of its name.
        """
        out = self.given.expanduser()
        for own in ("figures", "vlact", "notebooks", "tests") if CHECKOUT else ():
            if out.resolve().is_relative_to(ROOT / own):
                raise ValueError(
                    f"--out {out}: {ROOT / own} is the project's own; choose another folder"
                )
        there = next(p for p in (out, *out.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ValueError(f"--out {out}: {there} is no folder that can be written into")

    @cached_property
    def out(self) -> Path:
        """The folder, made where there was none."""
        out = self.given.expanduser()
        out.mkdir(parents=True, exist_ok=True)
        return out

    def end(self, result: dict | list, text: str, look: str) -> None:
        """The account, the result on stdout, then what was written and how to look at it."""
        self.account.write(self.out)
        if self.as_json:
            if isinstance(result, dict):
                result |= {"account": self.account.table().to_dict("records")}
            text = json.dumps(result, indent=1, default=str)
        print(text)
        line = f"written: {self.out}; {look}"
        print(line, file=sys.stderr if self.as_json else sys.stdout)

    def report(self, made, films: dict[str, Path], say: str, then: str, **more) -> None:
        """Write the report on localization, then `end`; `then` is a further way to look at it."""
        from vlact.report import own

        self.account.settle()
        made.tables["account"] = self.account.table()
        own.write(made, self.out, films)
        text = "\n".join(
            [
                *(f"note: {n}" for n in say.splitlines()),
                made.tables["scores"].round(4).to_string(index=False),
            ]
        )
        look = f"open {self.out / 'report.html'}"
        self.end(own.as_dict(made) | more, text, look + then)

    def readable(self, films: list[Path], of: str = "videos") -> list[Path]:
        """Those of some videos that can be read; the others are said before the long work."""
        from vlact.video import VideoError, probe

        bad = {}
        for path in films:
            try:
                probe(path)
            except VideoError as error:
                bad[path] = str(error).removeprefix(f"{path}: ")
        return self.account.files(of, films, bad)


def command(name: str, *needs: str, dropped: float = 0.0):
    """Registers a command, with the options that all have: --out, --json, --max-dropped.

    Args:
        name: As the user types it.
        needs: Modules beyond the core.
        dropped: Share of its input that may be left out, if the user says nothing else.
    """
    NEEDS[name] = needs
    folder = typer.Option("--out", "--report", "-o", help=f"Folder (vlact-{name}).")
    share = typer.Option(
        "--max-dropped", min=0, max=1, help="Share of the input that may be left out."
    )
    printed = typer.Option("--json", help="Print the result as JSON.")
    shared = {
        "out": (Annotated[Path, folder], Path(f"vlact-{name}")),
        "max_dropped": (Annotated[float, share], dropped),
        "as_json": (Annotated[bool, printed], False),
    }

    def register(function):
        def called(out, max_dropped, as_json, **given):
            run = Run(out, as_json, max_dropped)
            run.check()
            function(run, **given)

        own = list(inspect.signature(function).parameters.values())[1:]
        kind = inspect.Parameter.KEYWORD_ONLY
        more = [
            inspect.Parameter(n, kind, default=value, annotation=hint)
            for n, (hint, value) in shared.items()
        ]
        given = [p.replace(kind=kind) for p in own] + more
        called.__signature__ = inspect.Signature(given)
        called.__annotations__ = {p.name: p.annotation for p in given}
        called.__doc__, called.__name__ = function.__doc__, function.__name__
        app.command(name)(called)
        return function

    return register


def absent_of(name: str) -> list[str]:
    """Modules that a command imports and that are not installed."""
    return [m for m in NEEDS.get(name, ()) if importlib.util.find_spec(m) is None]


# One's own data
@command("score", dropped=0.9)
def score(
    run: Run,
    results: Annotated[
        Path, typer.Argument(help="Detections: ActivityNet's JSON, csv, parquet or text.")
    ],
    truth: Annotated[Path, typer.Argument(help="Ground truth in any layout that vlact reads.")],
    subset: Subset = "auto",
    tious: Tious = "thumos14",
    videos: OwnVideos = None,
    classes: Classes = None,
    task: Task = "verb",
    invalid: Annotated[
        str, typer.Option(help="end <= start: error, drop, false_positive")
    ] = "error",
    resamples: Resamples = 100,
):
    """Score any system's detections: mAP by both protocols, kinds of error, a report."""
    from vlact.report import own

    given = inputs.read_truth(truth, None if subset == "all" else subset, task, classes)
    found, said = inputs.named(inputs.read_results(results, classes), truth)
    given.notes.extend([said] if said else [])
    made = own.score(
        given.table,
        found,
        tious=inputs.thresholds(tious),
        ambiguous=given.ambiguous,
        invalid=invalid,
        strict=run.account.most,
        durations=given.durations(found),
        resamples=resamples,
        title=f"{results.name} against {truth.name}",
    )
    run.account.add("rows of the truth", "in", "", given.rows)
    run.account.add("rows of the truth", "not asked for", "of another part", given.others)
    run.account.add("rows of the truth", "not asked for", "ambiguous, of no class", given.aside)
    run.account.add("rows of the truth", "used", "", len(given.table))
    run.account.scored(made.left_out, {"ground_truth": "instances", "predictions": "detections"})
    made.notes[:0] = [f"{truth}: {given.layout}, {len(given.table)} segments.", *given.notes]
    run.report(made, inputs.films_of(list(made.lanes), videos), "\n".join(given.notes), "")


@command("check")
def check(
    run: Run,
    file: Annotated[Path, typer.Argument(help="Annotations in any layout that vlact reads.")],
    videos: OwnVideos = None,
    classes: Classes = None,
    task: Task = "verb",
):
    """Look for what is wrong in annotations: overlaps, ends, spellings; exit code 1 if any is.

    With --max-dropped, if more than that share of the segments is.
    """
    from vlact.datasets.checking import classes_of, problems

    given = inputs.read_truth(file, None, task, classes, spellings=True)
    table = given.table
    if files := inputs.films_of(sorted(set(table["video"])), videos):
        from vlact.runtime.jobs import track
        from vlact.video import probe

        long = {v: probe(files[v]).duration_s for v in track(files, len(files), "videos")}
        table["duration_s"] = table["video"].map(long)
    found, counts = problems(table, LATE_S), classes_of(table)
    first = found.dropna(subset="row").drop_duplicates("row")["what"].value_counts()
    run.account.add("segments", "in", "", len(table))
    for what, count in first.items():
        run.account.add("segments", "left out", f"with a problem: {what}", int(count))
    run.account.add("segments", "used", "", len(table) - int(first.sum()))
    most, run.account.most = run.account.most, 1.0  # they are what was looked for
    found.drop(columns="row").to_csv(run.out / "problems.csv", index=False)
    counts.to_csv(run.out / "classes.csv", index=False)
    result = {
        "layout": given.layout,
        "segments": len(table),
        "videos": table["video"].nunique(),
        "classes": len(counts),
        "parts": table["split"].value_counts().to_dict() if "split" in table else {},
        "problems": found["what"].value_counts().to_dict(),
    }
    shown = found.drop(columns="row").head(20).to_string() if len(found) else "no problem found"
    text = ", ".join(f"{k} {v}" for k, v in result.items())
    run.end(result, f"{text}\n{shown}", f"open {run.out / 'problems.csv'}")
    spelt = int(found["row"].isna().sum())
    raise typer.Exit(int(first.sum() > most * len(table) or (most < 1 and spelt > 0)))


@command("features", "av", "safetensors", "transformers", "open_clip")
def features(
    run: Run,
    videos: Films,
    encoder: Encoder,
    fps: Annotated[float, typer.Option(min=0.01, help="Frames a second that are looked at.")] = 8.0,
    stride: Annotated[int, typer.Option(min=1, help="Frames from one feature to the next.")] = 4,
    options: Options = "",
):
    """Features in time of whole videos, by a vlact encoder, one of the hub, or one of your own.

    Your own is a class in FILE.py with two methods: describe() gives {"num_frames": T,
    "image_size": pixels}, encode(clips) turns uint8 clips (B, T, H, W, 3) into (B, D) numbers.
    Its name and --options are written to features.json beside the features.
    """
    from safetensors.torch import save_file

    from vlact.runtime.jobs import Progress, write_whole
    from vlact.training.features import extract

    model, note = inputs.read_encoder(encoder, inputs.read_options(options))
    paths = run.readable(inputs.films(videos))
    if len({p.stem for p in paths}) < len(paths):
        raise ValueError("two videos have one name; features are kept by it, rename one")
    with Progress(len(paths), "videos") as shown:
        found = {
            p.stem: extract(model, p, fps, stride, tell=shown.update).contiguous() for p in paths
        }
    write_whole(run.out / "features.safetensors", lambda data, to: save_file(data, to), found)
    note |= {"fps": fps, "stride": stride, "step_s": stride / fps, "offset_s": 0.0}
    note["videos"] = {k: list(x.shape) for k, x in found.items()}
    (run.out / "features.json").write_text(json.dumps(note, indent=1) + "\n")
    text = "\n".join(f"{k}: {x[0]} steps of {x[1]} numbers" for k, x in note["videos"].items())
    run.end(note, text, f"train on it: vlact train-localizer TRUTH {run.out}")


@command("train-localizer", "safetensors", "transformers", "numba", "pyarrow", dropped=0.5)
def train_localizer(
    run: Run,
    truth: Annotated[Path, typer.Argument(help="Ground truth with a training and a test part.")],
    features: Annotated[
        Path, typer.Argument(help="What `vlact features` wrote, or a folder of files.")
    ],
    kind: Annotated[str, typer.Option(help="ActionFormer, TriDet or DyFADet.")] = "ActionFormer",
    train: Annotated[str, typer.Option(help="Training part; found by its name if not given.")] = "",
    test: Annotated[str, typer.Option(help="Test part.")] = "",
    step_s: Annotated[
        float, typer.Option(help="Seconds between features, if no features.json.")
    ] = 0.0,
    offset_s: Annotated[float, typer.Option(help="Seconds that the first one stands for.")] = 0.0,
    transpose: Annotated[
        bool, typer.Option("--transpose", help="Arrays of features are (F, T).")
    ] = False,
    profile: Annotated[
        str, typer.Option(help="Of params.yaml: shape and numbers of training.")
    ] = "study",
    preset: Annotated[
        str, typer.Option(help="Published shape and numbers instead: thumos14_i3d, epic_verb ..")
    ] = "",
    epochs: Annotated[int, typer.Option(min=0, help="Instead of the profile's.")] = 0,
    window: Annotated[
        int, typer.Option(min=0, help="Features a window, instead of the profile's.")
    ] = 0,
    seed: int = 0,
    tious: Tious = "thumos14",
    videos: OwnVideos = None,
    resamples: Resamples = 100,
):
    """Train a localizer on your own truth and features, detect in the test part, score it."""
    from vlact.tools import own_localizer

    changed = {"preset": preset, "epochs": epochs, "window": window}
    changed = {k: v for k, v in changed.items() if v}
    todo = own_localizer.plan(
        truth, features, kind, train, test, step_s, offset_s, profile, transpose
    )
    made = own_localizer.train(todo, changed, seed, run.out, run.account)
    found = own_localizer.scored(todo, made, inputs.thresholds(tious), resamples, run.account)
    said = ""
    if todo.unseen:
        said = f"Only in the test part, never found: {', '.join(map(str, todo.unseen))}."
        found.notes.insert(0, said)
    more = {"classes": todo.classes, "only in the test part": todo.unseen}
    then = f"; vlact localize VIDEO --model {run.out}"
    run.report(found, inputs.films_of(list(found.lanes), videos), said, then, **more)


@command("recognize", "av", "safetensors", "transformers", "huggingface_hub")
def recognize(
    run: Run,
    videos: Films,
    model: Annotated[str, typer.Option(help="Folder that save_pretrained wrote, or a hub id.")],
    names: Annotated[
        str, typer.Option(help="Of actions, commas between; of a recognizer of actions.")
    ] = "",
):
    """Which of some names fits each clip."""
    from vlact.runtime.jobs import track

    loaded = inputs.hub_model(model, RECOGNIZERS)
    wanted = [n.strip() for n in names.split(",") if n.strip()]
    given = (wanted,) if type(loaded).__name__ == "ActionRecognizer" else ()
    paths = run.readable(inputs.films(videos), "clips")
    table = pd.concat(
        [loaded.predict(p, *given).assign(video=p.name) for p in track(paths, len(paths), "clips")]
    )[["video", "name", "score"]]
    table.to_csv(run.out / "names.csv", index=False)
    best = table.groupby("video", sort=False).head(3).round(3).to_string(index=False)
    run.end(table.to_dict("records"), best, f"open {run.out / 'names.csv'}")


@command("localize", "av", "safetensors", "transformers", "numba", "huggingface_hub", "matplotlib")
def localize(
    run: Run,
    video: Annotated[
        Path, typer.Argument(help="An untrimmed video; features or their folder with --checkpoint.")
    ],
    model: Annotated[
        str, typer.Option(help="Folder of save_pretrained or train-localizer, or a hub id.")
    ] = "",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Of ActionFormer, TriDet, DyFADet or AdaTAD, official.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Of --checkpoint, if its shapes are not to say: thumos14_i3d ..")
    ] = "",
    truth: Annotated[
        Path | None, typer.Option(help="Annotations that name classes, rates and durations.")
    ] = None,
    subset: Annotated[str, typer.Option(help="Part of --truth that is looked at.")] = "",
    fps: Annotated[float, typer.Option(min=0, help="Of frames, if --truth has none.")] = 0.0,
    encoder: Annotated[
        str, typer.Option(help="Of train-localizer's model, if it is FILE.py:CLASS.")
    ] = "",
    threshold: Annotated[
        float, typer.Option(help="Shown from this share of the best score.")
    ] = 0.2,
):
    """What happens when: segments as JSON, a timeline, the video with captions, a report.

    With an official --checkpoint: results as JSON, by its authors' numbers for its data set.
    """
    from vlact.datasets import activitynet

    if bool(model) == bool(checkpoint):
        raise ValueError("expected --model or --checkpoint; not both")
    if checkpoint:
        from vlact.tools import published_localizer

        asked = checkpoint, preset, video, truth, fps, subset
        found = published_localizer.detect(*asked, run.account)
        activitynet.write_results(found, run.out / "segments.json")
        counts = {"videos": found["video"].nunique(), "segments": len(found)}
        text = found.nlargest(PRINTED, "score").round(3).to_string(index=False)
        run.end(counts, text, f"score it: vlact score {run.out / 'segments.json'} TRUTH")
        return
    import matplotlib

    from vlact.models.nms import suppress
    from vlact.report import figures, own
    from vlact.runtime.jobs import Progress
    from vlact.tools import own_localizer
    from vlact.video import probe, read

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    info = probe(video)
    trained = own_localizer.trained(model)
    sees = None if trained else inputs.hub_model(model, LOCALIZERS)
    with Progress(1.0, "looking") as shown:
        if trained:
            given = trained, video, encoder, info.duration_s
            found = own_localizer.detect(*given, tell=shown.update)
        else:
            found = sees.predict(video, tell=shown.update)
    # of what overlaps, the surest
    alone = suppress(found, multiclass=False, method="hard", iou_threshold=0.3)
    best = alone[alone["score"] > threshold * alone["score"].max()].sort_values(
        "start_s", ignore_index=True
    )
    run.account.add("detections", "in", "", len(found))
    hidden = {"overlap a surer one": len(found) - len(alone)}
    hidden["below --threshold of the best score"] = len(alone) - len(best)
    for reason, count in hidden.items():  # segments.json has them
        run.account.add("detections", "not asked for", reason, count)
    run.account.add("detections", "used", "", len(best))
    activitynet.write_results(found, run.out / "segments.json")
    strip = read(video, np.linspace(0, len(info.times) - 1, 16).round().astype(int), info)
    fig, axes = plt.subplots(2, 1, figsize=(10, 2.2), height_ratios=(1, 1.2), layout="constrained")
    figures.timeline(axes, strip, {"detections": best}, info.duration_s)
    axes[1].set_xlabel(f"seconds of {video.name}")
    figures.save(fig, run.out, "timeline", vector=False)
    own.captioned(video, best, run.out / "captioned.mp4")
    made = own.detected(best.assign(video=video.name), {video.name: info.duration_s}, video.name)
    own.write(made, run.out, {video.name: video})
    shown = best[["start_s", "end_s", "label", "score"]]
    surest = shown.nlargest(PRINTED, "score").sort_index().round(2)
    text = surest.to_string(index=False) if len(shown) else "nothing found"
    if len(shown) > PRINTED:
        text += f"\n{len(shown) - PRINTED} less sure ones stand in segments.json"
    run.end({"segments": shown.to_dict("records")}, text, f"open {run.out / 'report.html'}")


@command("srt", "av", "open_clip")
def srt(
    run: Run,
    clips: Annotated[Path, typer.Argument(help="Folder with a folder of clips for each class.")],
    model: Annotated[str, typer.Option(help="open_clip's name of a model.")],
    weights: Annotated[str, typer.Option(help="open_clip's tag, or a local checkpoint.")],
    names: Annotated[
        Path | None, typer.Option(help='JSON: {"class": ["name", "synonym", ..]}')
    ] = None,
    dataset: Annotated[str, typer.Option(help="Of SRT v1 instead: ata, ikea or gtea.")] = "",
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip.")] = 8,
    prompt: Annotated[str, typer.Option(help="Where {} is the name.")] = "a video of a person, {}",
):
    """How much an open_clip model's accuracy depends on which synonym a class goes by."""
    import torch

    from vlact.runtime.jobs import track
    from vlact.training.features import extract
    from vlact.video import probe

    test, named = inputs.synonym_test(names, dataset)
    todo = inputs.clips_of(clips, test.classes)
    paths = run.readable(list(todo), "clips")
    heard = [test.classes[k] for k in sorted({todo[p] for p in paths})]
    run.account.add("classes", "in", "", test.classes)
    run.account.add("classes", "used", "", heard)
    without = [c for c in test.classes if c not in heard]
    run.account.add("classes", "not asked for", "without a clip: only wrong answers", without)
    eye, _ = inputs.read_encoder(f"open_clip:{model}:{weights}")
    seen = []
    for path in track(paths, len(paths), "clips"):
        each = extract(eye, path, frames / probe(path).duration_s, 1)
        seen.append(torch.nn.functional.normalize(each, dim=-1).mean(0).numpy())

    def embed(texts: list[str]) -> np.ndarray:
        return eye.model.embed_text([prompt.format(t) for t in texts])

    found = test.score(embed, np.stack(seen), np.array([todo[p] for p in paths]))
    row = {"model": f"{model}:{weights}", "clips": len(paths), **found, "overlap": test.overlap}
    table = pd.DataFrame([row | named])
    table.to_csv(run.out / "srt.csv", index=False)
    text = table.round(4).T.to_string(header=False)
    run.end(table.iloc[0].to_dict(), text, f"open {run.out / 'srt.csv'}")


@command("transfer")
def transfer(
    run: Run,
    clips: Annotated[
        Path, typer.Argument(help="csv of clips: label,predicted,set,trained_on[,model,seed,task]")
    ],
):
    """How far accuracy drops from known to unknown contexts, from a csv of clips and predictions.

    `set` is the context of the clip, `trained_on` that of the training clips of the run.
    """
    from vlact.metrics.transfer import accuracies
    from vlact.runtime.jobs import track

    table, bad = inputs.read_transfer(clips)
    table = table.loc[run.account.files("clips", list(table.index), bad)]
    models = [part for _, part in table.groupby("model", sort=False)]
    found = pd.concat(map(accuracies, track(models, len(models), "models")), ignore_index=True)
    found.to_csv(run.out / "transfer.csv", index=False)
    text = found.round(2).to_string(index=False)
    run.end(found.to_dict("records"), text, f"open {run.out / 'transfer.csv'}")


# The installation and the checkout
NEEDS |= {
    "doctor": (),
    "repro": ("dvc", "papermill", "nbconvert"),
    "verify": ("scipy",),
    "site": ("jinja2", "nbconvert"),
}


@app.command()
def doctor(
    profile: Annotated[
        str, typer.Option(help="Also count its datasets and checkpoints.")
    ] = "paper",
    full: Annotated[
        bool, typer.Option("--full", help="Every one of them, with hashes and sources.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
):
    """What runs here now, and what is missing for what."""
    from vlact import params
    from vlact.tools import overview

    chosen = params.load(profile)
    if full:
        from vlact.tools.doctor import main as every

        raise typer.Exit(every([profile]))
    absent = {name: absent_of(name) for name in NEEDS}
    found = overview.overview(profile, chosen, absent)
    print(json.dumps(found, indent=1) if as_json else "\n".join(overview.lines(profile, found)))
    if not as_json:
        print(f"nothing written; `vlact doctor --profile {profile} --full` says where to get it")


Profile = Annotated[str, typer.Argument(help="smoke, mini, study, paper ..")]


def in_checkout(what: str, *module: str) -> None:
    """A module of the checkout in a process of its own; its exit code is ours.

    Raises:
        ValueError: There is no checkout here.
    """
    if not CHECKOUT:
        raise ValueError(
            f"vlact {what} needs a checkout of the repository: clone it and `pip install -e .`"
        )
    if code := subprocess.run([sys.executable, "-m", *module], cwd=ROOT).returncode:
        raise typer.Exit(code)


@app.command()
def repro(profile: Profile = "mini", force: Annotated[bool, typer.Option("--force", "-f")] = False):
    """Every table and figure of a profile: data/<profile>/figures/index.html (in a checkout)."""
    in_checkout("repro", "vlact.tools.pipeline", "repro", profile, *(["-f"] if force else []))


@app.command()
def verify(profile: Profile = "study"):
    """Compare data/<profile>/figures, as `vlact repro` left it, with the published run.

    In a checkout; the page to look at is data/<profile>/figures/index.html.
    """
    in_checkout("verify", "vlact.tools.verify", profile)


@app.command()
def site(profile: Profile = "mini"):
    """Static pages of what lies in data/<profile>/figures/index.html (in a checkout)."""
    in_checkout("site", "vlact.report.site", profile)
    print(f"written: {ROOT / 'site'}; open {ROOT / 'site' / 'index.html'}")


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False):
    if version:
        print(f"vlact {__version__}")
        raise typer.Exit()


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; what is wrong with its input becomes one line on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    said = set()

    def note(message, *_, **__) -> None:  # a warning once, as a line
        if str(message) not in said:
            said.add(str(message))
            print(f"note: {message}", file=sys.stderr)

    warnings.showwarning = note
    try:
        app([a for a in arguments if a != "--debug"], prog_name="vlact")
    except Exception as error:  # one line, unless asked for more
        if "--debug" in arguments:
            raise
        if isinstance(error, ModuleNotFoundError) and extra_of(error.name):
            name = next((a for a in arguments if a in NEEDS), "this")
            absent = absent_of(name) or [error.name.split(".")[0]]
            line, code = lacking(f"vlact {name}", *absent), 2
        elif isinstance(error, ModuleNotFoundError):
            line, code = f"{error}: install it, or vlact again with what it depends on", 2
        elif isinstance(error, OSError) and error.strerror and error.filename:
            line, code = f"{error.filename}: {error.strerror}", 2
        elif isinstance(error, RuntimeError) and "torchvision::" in str(error):
            line, code = f"{error}: torch and torchvision are not of one build; {TOGETHER}", 2
        elif isinstance(error, ValueError | OSError):
            line, code = " ".join(str(error).split()), 2
        else:
            line, code = f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1
        end_bar = "\n" if sys.stderr.isatty() else ""
        print(f"{end_bar}vlact: {line}", file=sys.stderr)
        raise SystemExit(code) from None


if __name__ == "__main__":
    main()
