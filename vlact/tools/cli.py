"""The command line: `vlact COMMAND --help`.

Every command writes into a folder of the user's choice, never among committed results, and ends
with a line that says what was written. It exits with 0; with 1 where `check` found something; with
2 and one line where the input is at fault (`--debug` anywhere shows the traceback).
"""

import importlib.util
import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from vlact import CHECKOUT, ROOT, __version__
from vlact.datasets import activitynet
from vlact.runtime.extras import extra_of, lacking
from vlact.schema import label_key
from vlact.tools import cli_inputs as inputs

app = typer.Typer(
    name="vlact",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Score, check, recognize and localize actions; reproduce the papers.",
    epilog="--debug anywhere shows the traceback of an error. Exit codes: 0 done, 1 `check` found "
    "something, 2 the input is at fault.",
)
NEEDS = {  # modules that a command imports beyond the core
    "check": (),
    "doctor": (),
    "score": (),
    "transfer": (),
    "features": ("av", "safetensors", "transformers", "open_clip"),
    "localize": ("av", "safetensors", "transformers", "numba", "huggingface_hub", "matplotlib"),
    "recognize": ("av", "safetensors", "transformers", "huggingface_hub"),
    "srt": ("av", "open_clip"),
    "train-localizer": ("safetensors", "transformers", "numba", "pyarrow"),
    "repro": ("dvc", "papermill", "nbconvert"),
    "verify": ("scipy",),
    "site": ("jinja2", "nbconvert"),
}
TIOUS = {
    "thumos14": (0.3, 0.4, 0.5, 0.6, 0.7),
    "activitynet": tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist()),
    "epic": (0.1, 0.2, 0.3, 0.4, 0.5),
}
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
RECOGNIZERS = ("ActionRecognizer", "MotionRecognizer")
LOCALIZERS = ("ActionLocalizer", "VisionLanguageLocalizer")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Subset = Annotated[str, typer.Option(help="Part of the truth; 'all' or, by itself, the test part.")]
Classes = Annotated[
    Path | None, typer.Option(help="'<number> <name>' a line, of numbered classes.")
]
Task = Annotated[str, typer.Option(help="Of EPIC-Kitchens: verb, noun or action.")]
Encoder = Annotated[
    str, typer.Option(help="vlact .safetensors, open_clip:MODEL:WEIGHTS, FILE.py:CLASS")
]
Options = Annotated[str, typer.Option(help="Of FILE.py:CLASS, a JSON object.")]


def out_option(default: str):
    """`--out`, a folder; `--report` is another name for it."""
    return Annotated[Path, typer.Option("--out", "--report", "-o", help=f"Folder ({default}).")]


def folder(out: Path) -> Path:
    """The folder, made where there was none.

    Raises:
        ValueError: One of this checkout's own.
    """
    out = out.expanduser()
    for own in ("figures", "vlact", "notebooks", "tests") if CHECKOUT else ():
        if out.resolve().is_relative_to(ROOT / own):
            raise ValueError(
                f"--out {out}: {ROOT / own} is the project's own; choose another folder"
            )
    out.mkdir(parents=True, exist_ok=True)
    return out


def end(result: dict, text: str, as_json: bool, out: Path | None, look: str) -> None:
    """The result on stdout, then what was written and how to look at it."""
    print(json.dumps(result, indent=1, default=str) if as_json else text)
    if out is not None:
        print(f"written: {out}; {look}", file=sys.stderr if as_json else sys.stdout)


def thresholds(given: str) -> tuple[float, ...]:
    """A name of `TIOUS`, or numbers with commas between."""
    try:
        return TIOUS.get(given) or tuple(float(x) for x in given.split(","))
    except ValueError:
        raise ValueError(
            f"--tious {given!r}: expected one of {sorted(TIOUS)} or 0.5,0.75"
        ) from None


def films(where: list[Path]) -> list[Path]:
    """Video files, and those in folders.

    Raises:
        FileNotFoundError: None there.
    """
    out = []
    for path in where:
        inside = (
            sorted(p for p in path.iterdir() if p.suffix.lower() in VIDEOS)
            if path.is_dir()
            else [path]
        )
        if not inside or not inside[0].exists():
            raise FileNotFoundError(f"{path}: expected a video or a folder of {', '.join(VIDEOS)}")
        out += inside
    return out


def films_of(names: list[str], where: Path | None) -> dict[str, Path]:
    """The file of every video that is in a folder."""
    from vlact.video import files

    out = {}
    for name in names if where else ():
        try:
            out |= files(where, [name])
        except FileNotFoundError:
            print(f"note: {where}: no file of {name!r}; it gets no clip", file=sys.stderr)
    return out


def absent_of(command: str) -> list[str]:
    """Modules that a command imports and that are not installed."""
    return [m for m in NEEDS.get(command, ()) if importlib.util.find_spec(m) is None]


# One's own data
@app.command()
def score(
    results: Annotated[
        Path, typer.Argument(help="Detections: ActivityNet's JSON, csv, parquet or text.")
    ],
    truth: Annotated[Path, typer.Argument(help="Ground truth in any layout that vlact reads.")],
    out: out_option("vlact-score") = Path("vlact-score"),
    subset: Subset = "auto",
    tious: Annotated[
        str, typer.Option(help="thumos14, activitynet, epic, or 0.5,0.75")
    ] = "thumos14",
    videos: Annotated[Path | None, typer.Option(help="Folder of the videos, for clips.")] = None,
    classes: Classes = None,
    task: Task = "verb",
    invalid: Annotated[
        str, typer.Option(help="end <= start: error, drop, false_positive")
    ] = "error",
    resamples: Annotated[int, typer.Option(min=0, help="Of the videos, for intervals.")] = 100,
    as_json: Json = False,
):
    """Score any system's detections: mAP by both protocols, kinds of error, a report."""
    from vlact.report import own

    given = inputs.read_truth(truth, None if subset == "all" else subset, task, classes)
    found = inputs.read_results(results, classes)
    options = {"tious": thresholds(tious), "ambiguous": given.ambiguous, "invalid": invalid}
    seconds = given.durations(found)
    made = own.score(
        given.table,
        found,
        durations=seconds,
        resamples=resamples,
        title=f"{results.name} against {truth.name}",
        **options,
    )
    made.notes[:0] = [f"{truth}: {given.layout}, {len(given.table)} segments.", *given.notes]
    out = folder(out)
    own.write(made, out, films_of(list(made.lanes), videos))
    text = made.tables["scores"].round(4).to_string(index=False)
    notes = "".join(f"note: {n}\n" for n in given.notes)
    end(own.as_dict(made), notes + text, as_json, out, f"open {out / 'report.html'}")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="Annotations in any layout that vlact reads.")],
    out: out_option("vlact-check") = Path("vlact-check"),
    videos: Annotated[
        Path | None, typer.Option(help="Folder of the videos, for their ends.")
    ] = None,
    classes: Classes = None,
    task: Task = "verb",
    as_json: Json = False,
):
    """Look for what is wrong in annotations: overlaps, ends, spellings; exit code 1 if any is."""
    from vlact.video import probe

    given = inputs.read_truth(file, None, task, classes, spellings=True)
    table = given.table.assign(row=np.arange(len(given.table)))
    if files := films_of(sorted(set(table["video"])), videos):
        table["duration_s"] = table["video"].map({v: probe(f).duration_s for v, f in files.items()})
    problems = [("no length", r) for r in table[table["end_s"] <= table["start_s"]].itertuples()]
    problems += [("before the start", r) for r in table[table["start_s"] < 0].itertuples()]
    if "duration_s" in table:
        late = table[table["end_s"] > table["duration_s"] + 0.5]
        problems += [("beyond the end", r) for r in late.itertuples()]
    keys = ["video", "label"]
    same = table[table.duplicated([*keys, "start_s", "end_s"])]
    problems += [("there twice", r) for r in same.itertuples()]
    ordered = table.sort_values([*keys, "start_s"], kind="stable")
    before = ordered.groupby(keys)["end_s"].transform(lambda x: x.cummax().shift())
    again = set(same["row"])
    over = [r for r in ordered[ordered["start_s"] < before].itertuples() if r.row not in again]
    problems += [("overlaps its own class", r) for r in over]
    columns = ["video", "start_s", "end_s", "label"]
    rows = [{"what": what, **{c: getattr(r, c) for c in columns}} for what, r in problems]
    plain = {x: label_key(x) for x in table["label"].unique()}
    for _, names in pd.Series(plain).groupby(plain).groups.items() if plain else ():
        if len(names) > 1:
            rows.append({"what": "spelt differently", "label": " | ".join(map(str, sorted(names)))})
    counts = table.groupby("label").agg(segments=("video", "size"), videos=("video", "nunique"))
    length = (table["end_s"] - table["start_s"]).groupby(table["label"]).median()
    out, counts = folder(out), counts.assign(median_s=length.round(2)).reset_index()
    found = pd.DataFrame(rows, columns=["what", *columns])
    found.to_csv(out / "problems.csv", index=False)
    counts.to_csv(out / "classes.csv", index=False)
    kinds = found["what"].value_counts().to_dict()
    parts = table["split"].value_counts().to_dict() if "split" in table else {}
    result = {
        "layout": given.layout,
        "segments": len(table),
        "videos": table["video"].nunique(),
        "classes": len(counts),
        "parts": parts,
        "problems": kinds,
    }
    text = "\n".join(
        [
            ", ".join(f"{k} {v}" for k, v in result.items()),
            found.head(20).to_string() if rows else "no problem found",
        ]
    )
    end(result, text, as_json, out, f"open {out / 'problems.csv'}")
    raise typer.Exit(1 if rows else 0)


@app.command()
def features(
    videos: Annotated[list[Path], typer.Argument(help="Videos, or folders of them.")],
    encoder: Encoder,
    out: out_option("vlact-features") = Path("vlact-features"),
    fps: Annotated[float, typer.Option(min=0.01, help="Frames a second that are looked at.")] = 8.0,
    stride: Annotated[int, typer.Option(min=1, help="Frames from one feature to the next.")] = 4,
    options: Options = "",
    as_json: Json = False,
):
    """Features in time of whole videos, by a vlact encoder, open_clip, or one of your own.

    Your own is a class in FILE.py with two methods: describe() gives {"num_frames": T,
    "image_size": pixels}, encode(clips) turns uint8 clips (B, T, H, W, 3) into (B, D) numbers.
    Its name and --options are written to features.json beside the features.
    """
    from safetensors.torch import save_file

    from vlact.runtime.jobs import track, write_whole
    from vlact.training.features import extract
    from vlact.video import probe

    model, note = inputs.read_encoder(encoder, inputs.read_options(options))
    paths = films(videos)
    for path in paths:  # a broken one is said before the long work
        probe(path)
    if len({p.stem for p in paths}) < len(paths):
        raise ValueError("two videos have one name; features are kept by it, rename one")
    found = {
        p.stem: extract(model, p, fps, stride).contiguous()
        for p in track(paths, len(paths), "videos")
    }
    out = folder(out)
    write_whole(out / "features.safetensors", lambda data, to: save_file(data, to), found)
    note |= {"fps": fps, "stride": stride, "step_s": stride / fps, "offset_s": 0.0}
    note["videos"] = {k: list(x.shape) for k, x in found.items()}
    (out / "features.json").write_text(json.dumps(note, indent=1) + "\n")
    text = "\n".join(f"{k}: {x[0]} steps of {x[1]} numbers" for k, x in note["videos"].items())
    end(note, text, as_json, out, f"train on it: vlact train-localizer TRUTH {out}")


@app.command("train-localizer")
def train_localizer(
    truth: Annotated[Path, typer.Argument(help="Ground truth with a training and a test part.")],
    features: Annotated[
        Path, typer.Argument(help="What `vlact features` wrote, or a folder of files.")
    ],
    out: out_option("vlact-localizer") = Path("vlact-localizer"),
    kind: Annotated[str, typer.Option(help="ActionFormer, TriDet or DyFADet.")] = "ActionFormer",
    train: Annotated[str, typer.Option(help="Training part; found by its name if not given.")] = "",
    test: Annotated[str, typer.Option(help="Test part.")] = "",
    step_s: Annotated[
        float, typer.Option(help="Seconds between features, if no features.json.")
    ] = 0.0,
    offset_s: Annotated[float, typer.Option(help="Seconds that the first one stands for.")] = 0.0,
    profile: Annotated[
        str, typer.Option(help="Of params.yaml: shape and numbers of training.")
    ] = "study",
    preset: Annotated[
        str, typer.Option(help="Published shape and numbers instead: thumos14_i3d, epic_verb ..")
    ] = "",
    epochs: Annotated[int, typer.Option(help="Instead of the profile's.")] = 0,
    window: Annotated[int, typer.Option(help="Features a window, instead of the profile's.")] = 0,
    most_left_out: Annotated[
        float, typer.Option(min=0, max=1, help="Share of actions that windows may leave out.")
    ] = 0.5,
    seed: int = 0,
    tious: Annotated[
        str, typer.Option(help="thumos14, activitynet, epic, or 0.5,0.75")
    ] = "thumos14",
    videos: Annotated[Path | None, typer.Option(help="Folder of the videos, for clips.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Of the videos, for intervals.")] = 100,
    as_json: Json = False,
):
    """Train a localizer on your own truth and features, detect in the test part, score it."""
    from safetensors.torch import save_file

    from vlact import params
    from vlact.papers.actionvlm.localizing import KINDS, localize_job, planned
    from vlact.papers.actionvlm.scaling import features_of
    from vlact.report import own

    if kind not in KINDS:
        raise ValueError(f"--kind {kind!r}: expected one of {sorted(KINDS)}")
    every = inputs.read_truth(truth, None).table
    names = sorted(set(every["split"])) if "split" in every else []
    train = train or next((s for s in inputs.TRAIN if s in names), "")
    test = test or next((s for s in inputs.TEST if s in names and s != train), "")
    if not {train, test} <= set(names) or train == test:
        raise ValueError(f"{truth}: expected a training and a test part; found {names or 'none'}")
    parts = {s: every[every["split"] == s].reset_index(drop=True) for s in (train, test)}
    listed = {k: list(parts[s]["video"].unique()) for k, s in (("train", train), ("test", test))}
    note = features / "features.json"
    note = json.loads(note.read_text()) if note.is_file() else {}
    clock = {
        "step_s": step_s or note.get("step_s", 0),
        "offset_s": offset_s or note.get("offset_s", 0.0),
    }
    if not clock["step_s"] > 0:
        raise ValueError(
            f"{features}: no features.json; pass --step-s, the seconds between features"
        )
    whole = features / "features.safetensors"
    found = features_of(whole if whole.is_file() else features, [*listed["train"], *listed["test"]])
    known = (
        every.drop_duplicates("video").set_index("video").get("duration_s", pd.Series(dtype=float))
    )
    lasts = {
        v: float(known.get(v, len(x) * clock["step_s"] + clock["offset_s"]))
        for v, x in found.items()
    }
    classes = sorted(parts[train]["label"].unique())
    unseen = sorted(set(parts[test]["label"]) - set(classes))
    changed = {"preset": preset, "epochs": epochs, "window": window}
    changed = {k: v for k, v in changed.items() if v}
    dim = next(iter(found.values())).shape[1]
    tal = asdict(params.load(profile).tal)
    recipe, config = planned(tal, kind, dim, len(classes), changed)
    out = folder(out)
    work = out / "work"
    work.mkdir(exist_ok=True)
    save_file({k: x.contiguous() for k, x in found.items()}, work / "features.safetensors")
    every.to_parquet(work / "truth.parquet", index=False)
    localize_job(
        kind=kind,
        features=str(work / "features.safetensors"),
        truth=str(work / "truth.parquet"),
        durations={k: {v: lasts[v] for v in vs} for k, vs in listed.items()},
        config=config,
        classes=classes,
        clock=clock,
        recipe=recipe,
        seed=seed,
        out=str(out / "localizer"),
        checkpoint=str(work / "state.pt"),
        most_left_out=most_left_out,
    )
    detections = pd.read_parquet(out / "localizer.parquet")[[*inputs.SEGMENT, "score"]]
    (out / "localizer.parquet").unlink()
    shutil.rmtree(work)
    activitynet.write_results(detections, out / "detections.json")
    (out / "features.json").write_text(json.dumps(note | clock, indent=1) + "\n")
    options = {"tious": thresholds(tious), "resamples": resamples, "invalid": "drop"}
    title = f"{kind} on {truth.name}"
    made = own.score(parts[test], detections, durations=lasts, title=title, **options)
    if unseen:
        made.notes.insert(0, f"Only in the test part, never found: {', '.join(map(str, unseen))}.")
    own.write(made, out, films_of(list(made.lanes), videos))
    said = "".join(f"note: {n}\n" for n in made.notes[:1] if unseen)
    text = said + made.tables["scores"].round(4).to_string(index=False)
    result = own.as_dict(made) | {"classes": classes, "only in the test part": unseen}
    end(
        result,
        text,
        as_json,
        out,
        f"open {out / 'report.html'}; vlact localize VIDEO --model {out}",
    )


def hub_model(model: str, kinds: tuple[str, ...]):
    """A model that `save_pretrained` wrote, of one of these kinds, from a folder or the hub."""
    from huggingface_hub import hf_hub_download

    import vlact.hub as hub

    local = Path(model) / hub.CONFIG
    if not local.is_file():
        if Path(model).exists() or Path(model).is_absolute() or model.count("/") != 1:
            raise FileNotFoundError(
                f"{local}: expected a folder that save_pretrained wrote, or a hub id"
            )
        local = Path(hf_hub_download(model, hub.CONFIG))
    said = json.loads(local.read_text()).get("kind")
    now = {old: new for new, old in hub.KINDS.items()}  # files of the first version
    kind = now.get(said, said)
    if kind not in kinds:
        raise ValueError(f"{local}: expected one of {kinds}; got {said!r}")
    return getattr(hub, kind).from_pretrained(model)


@app.command()
def recognize(
    videos: Annotated[list[Path], typer.Argument(help="Clips, or folders of them.")],
    model: Annotated[str, typer.Option(help="Folder that save_pretrained wrote, or a hub id.")],
    names: Annotated[
        str, typer.Option(help="Of actions, commas between; of a recognizer of actions.")
    ] = "",
    out: out_option("vlact-recognize") = Path("vlact-recognize"),
    as_json: Json = False,
):
    """Which of some names fits each clip."""
    from vlact.runtime.jobs import track

    loaded, wanted = (
        hub_model(model, RECOGNIZERS),
        [n.strip() for n in names.split(",") if n.strip()],
    )
    given = (wanted,) if type(loaded).__name__ == "ActionRecognizer" else ()
    paths = films(videos)
    table = pd.concat(
        [loaded.predict(p, *given).assign(video=p.name) for p in track(paths, len(paths), "clips")]
    )
    table, out = table[["video", "name", "score"]], folder(out)
    table.to_csv(out / "names.csv", index=False)
    best = table.groupby("video", sort=False).head(3)
    end(
        table.to_dict("records"),
        best.round(3).to_string(index=False),
        as_json,
        out,
        f"open {out / 'names.csv'}",
    )


@app.command()
def localize(
    video: Annotated[
        Path, typer.Argument(help="An untrimmed video; features or their folder with --checkpoint.")
    ],
    model: Annotated[
        str, typer.Option(help="Folder of save_pretrained or train-localizer, or a hub id.")
    ] = "",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Of ActionFormer, TriDet, DyFADet or AdaTAD, official.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Of --checkpoint: thumos14_i3d, epic_verb ..")] = "",
    truth: Annotated[
        Path | None, typer.Option(help="Annotations that name classes, rates and durations.")
    ] = None,
    subset: Annotated[str, typer.Option(help="Part of --truth that is looked at.")] = "",
    fps: Annotated[float, typer.Option(min=0, help="Of frames, if --truth has none.")] = 0.0,
    out: out_option("vlact-localize") = Path("vlact-localize"),
    encoder: Annotated[
        str, typer.Option(help="Of train-localizer's model, if it is FILE.py:CLASS.")
    ] = "",
    threshold: Annotated[
        float, typer.Option(help="Shown from this share of the best score.")
    ] = 0.2,
    as_json: Json = False,
):
    """What happens when: segments as JSON, a timeline, the video with captions, a report.

    With an official --checkpoint and the --preset it was made with: results as JSON.
    """
    if checkpoint or not model:
        if model or not checkpoint:
            raise ValueError("expected --model, or --checkpoint with --preset; not both")
        from vlact.tools import published_localizer

        found = published_localizer.detect(checkpoint, preset, video, truth, fps, subset)
        out = folder(out)
        activitynet.write_results(found, out / "segments.json")
        counts = {"videos": found["video"].nunique(), "segments": len(found)}
        text = found.nlargest(10, "score").round(3).to_string(index=False)
        end(counts, text, as_json, out, f"score it: vlact score {out / 'segments.json'} TRUTH")
        return
    import matplotlib

    from vlact.models.nms import suppress
    from vlact.report import figures, own
    from vlact.video import probe, read

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    info, trained = probe(video), Path(model) / "localizer.safetensors"
    if trained.is_file():
        found = _by_trained(trained, video, encoder, info.duration_s)
    else:
        found = hub_model(model, LOCALIZERS).predict(video)
    # of what overlaps, the surest
    best = suppress(found, multiclass=False, method="hard", iou_threshold=0.3)
    best = best[best["score"] > threshold * best["score"].max()].sort_values(
        "start_s", ignore_index=True
    )
    out = folder(out)
    activitynet.write_results(found, out / "segments.json")
    strip = read(video, np.linspace(0, len(info.times) - 1, 16).round().astype(int), info)
    fig, axes = plt.subplots(2, 1, figsize=(10, 2.2), height_ratios=(1, 1.2), layout="constrained")
    figures.timeline(axes, strip, {"detections": best}, info.duration_s)
    axes[1].set_xlabel(f"seconds of {video.name}")
    figures.save(fig, out, "timeline", vector=False)
    own.captioned(video, best, out / "captioned.mp4")
    made = own.detected(best.assign(video=video.name), {video.name: info.duration_s}, video.name)
    own.write(made, out, {video.name: video})
    columns = ["start_s", "end_s", "label", "score"]
    text = best[columns].round(2).to_string(index=False)
    end(
        {"segments": best[columns].to_dict("records")},
        text,
        as_json,
        out,
        f"open {out / 'report.html'}",
    )


def _by_trained(path: Path, video: Path, encoder: str, duration_s: float) -> pd.DataFrame:
    """Detections of a localizer from `train-localizer`, on features as it was trained on."""
    from vlact.papers.actionvlm.localizing import Localizer
    from vlact.training.features import extract

    note = json.loads(path.with_name("features.json").read_text())
    named = note.get("encoder", "")
    if not encoder and (not named or ".py:" in named):  # code is run only where the user names it
        raise ValueError(f"{path.parent}: pass --encoder {named or 'that its features are of'}")
    eye, _ = inputs.read_encoder(encoder or named, note.get("options"))
    if not {"fps", "stride"} <= set(note):
        raise ValueError(
            f"{path.with_name('features.json')}: no fps and stride; extract with `vlact features`"
        )
    seen = extract(eye, video, note["fps"], note["stride"])
    return Localizer.load(path).detect({video.name: seen}, {video.name: duration_s})


@app.command()
def srt(
    clips: Annotated[Path, typer.Argument(help="Folder with a folder of clips for each class.")],
    model: Annotated[str, typer.Option(help="open_clip's name of a model.")],
    weights: Annotated[str, typer.Option(help="open_clip's tag, or a local checkpoint.")],
    names: Annotated[
        Path | None, typer.Option(help='JSON: {"class": ["name", "synonym", ..]}')
    ] = None,
    dataset: Annotated[str, typer.Option(help="Published names instead: ata, ikea or gtea.")] = "",
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip.")] = 8,
    prompt: Annotated[str, typer.Option(help="Where {} is the name.")] = "a video of a person, {}",
    out: out_option("vlact-srt") = Path("vlact-srt"),
    as_json: Json = False,
):
    """How much an open_clip model's accuracy depends on which synonym a class goes by."""
    import open_clip
    import torch

    from vlact import schema
    from vlact.metrics.synonyms import SynonymRobustnessTest
    from vlact.runtime.jobs import track
    from vlact.training.features import extract
    from vlact.video import probe

    if bool(names) == bool(dataset):
        raise ValueError("expected --names FILE.json or --dataset ata|ikea|gtea, one of them")
    if names:
        given = schema.json_object(names)
        if odd := [
            k
            for k, v in given.items()
            if not isinstance(v, list) or len(v) != len(next(iter(given.values())))
        ]:
            raise ValueError(
                f"{names}: {odd[0]!r}: expected lists of names, as many for each class"
            )
        runs = [
            [[v[r]] for v in given.values()] for r in range(len(next(iter(given.values()), [])))
        ]
        test, classes = SynonymRobustnessTest(runs), list(given)
    else:
        if dataset not in ("ata", "ikea", "gtea"):
            raise ValueError(f"--dataset {dataset!r}: expected ata, ikea or gtea")
        test = SynonymRobustnessTest.of(dataset, leaf=False)
        classes = test.classes
    if not clips.is_dir():
        raise FileNotFoundError(f"{clips}: expected a folder with a folder of clips for each class")
    there = sorted(p.name for p in clips.iterdir() if p.is_dir())
    if not there or (odd := [n for n in there if n not in classes]):
        raise ValueError(
            f"{clips}: expected folders named like {classes}; got {odd if there else 'none'}"
        )
    todo = [(p, classes.index(n)) for n in there for p in films([clips / n])]
    eye, _ = inputs.read_encoder(f"open_clip:{model}:{weights}")
    tokenize, seen = open_clip.get_tokenizer(model), []
    for path, _ in track(todo, len(todo), "clips"):
        each = extract(eye, path, frames / probe(path).duration_s, 1)
        seen.append(torch.nn.functional.normalize(each, dim=-1).mean(0).numpy())

    def embed(texts: list[str]) -> np.ndarray:
        with torch.no_grad():
            return (
                eye.model.encode_text(tokenize([prompt.format(t) for t in texts])).float().numpy()
            )

    found = test.score(embed, np.stack(seen), np.array([c for _, c in todo]))
    out = folder(out)
    table = pd.DataFrame(
        [{"model": f"{model}:{weights}", "clips": len(todo), **found, "overlap": test.overlap}]
    )
    table.to_csv(out / "srt.csv", index=False)
    end(
        table.iloc[0].to_dict(),
        table.round(4).T.to_string(header=False),
        as_json,
        out,
        f"open {out / 'srt.csv'}",
    )


@app.command()
def transfer(
    clips: Annotated[
        Path, typer.Argument(help="csv of clips: label,predicted,set,trained_on[,model,seed,task]")
    ],
    out: out_option("vlact-transfer") = Path("vlact-transfer"),
    as_json: Json = False,
):
    """How far accuracy drops from known to unknown contexts, from a csv of clips and predictions.

    `set` is the context of the clip, `trained_on` that of the training clips of the run.
    """
    from vlact import schema
    from vlact.metrics.transfer import accuracies

    columns = ("label", "predicted", "set", "trained_on")
    table = schema.csv(clips, columns, f"a csv with columns {','.join(columns)}")
    for column in columns:
        if (empty := table[column].str.strip() == "").any():
            raise ValueError(f"{clips}, line {int(empty.idxmax()) + 2}: {column} is empty")
    for column, usual in (("model", "model"), ("seed", "0"), ("task", "coarse")):
        table[column] = table[column] if column in table else usual
    found, out = accuracies(table), folder(out)
    found.to_csv(out / "transfer.csv", index=False)
    text = found.round(2).to_string(index=False)
    end(found.to_dict("records"), text, as_json, out, f"open {out / 'transfer.csv'}")


# The installation and the checkout
@app.command()
def doctor(
    profile: Annotated[
        str, typer.Option(help="Also count its datasets and checkpoints.")
    ] = "paper",
    full: Annotated[
        bool, typer.Option("--full", help="Every one of them, with hashes and sources.")
    ] = False,
    as_json: Json = False,
):
    """What runs here now, and what is missing for what."""
    import torch

    from vlact import params

    chosen = params.load(profile)
    if full:
        from vlact.tools.doctor import main as every

        raise typer.Exit(every([profile]))
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    where = f"checkout {ROOT}" if CHECKOUT else "no checkout (installed from a wheel)"
    python = sys.version.split()[0]
    here = f"vlact {__version__}, Python {python}, torch {torch.__version__}, {place}, {where}"
    ready, missing = [], {}
    for name in sorted(NEEDS):
        if absent := absent_of(name):
            missing[name] = lacking(name, *absent).removeprefix(f"{name} needs ")
        elif name in ("repro", "verify", "site") and not CHECKOUT:
            missing[name] = "a checkout of the repository"
        else:
            ready.append(name)
    lines = [here, f"runs now   {', '.join(ready)}"]
    lines += [f"lacking    {name}: {what}" for name, what in missing.items()]
    needed = _data_of(profile, chosen) if importlib.util.find_spec("huggingface_hub") else {}
    for use, (count, lack) in needed.items():
        some = ", ".join(lack[:3]) + " .." * (len(lack) > 3)
        tail = f"; not {some}" * bool(lack)
        lines.append(f"{profile:10} {use}: {count - len(lack)} of {count} there{tail}")
    result = {"here": here, "runs": ready, "lacking": missing, profile: needed}
    print(json.dumps(result, indent=1) if as_json else "\n".join(lines))
    if not as_json:
        print(f"nothing written; `vlact doctor --profile {profile} --full` says where to get it")


def _data_of(profile: str, chosen) -> dict[str, tuple[int, list[str]]]:
    """By paper, how many datasets and checkpoints it needs, and those that are not there."""
    from vlact.tools.doctor import NEEDS as DATA

    if chosen.world.source == "rendered":
        return {}
    out = {}
    for need in DATA:
        path = need.path.format(data=f"data/{chosen.workspace}")
        count, lack = out.get(use := need.used_by.split(",")[0], (0, []))
        there = not need.path or (ROOT / path).exists()
        out[use] = (count + 1, lack if there else [*lack, need.name])
    return out


def in_checkout(what: str) -> None:
    """Raises:
    ValueError: There is no checkout here.
    """
    if not CHECKOUT:
        raise ValueError(
            f"vlact {what} needs a checkout of the repository: clone it and `pip install -e .`"
        )


Profile = Annotated[str, typer.Argument(help="smoke, mini, study, paper ..")]


def run(*command: str) -> None:
    """A module of the checkout in a process of its own; its exit code is ours."""
    if code := subprocess.run([sys.executable, "-m", *command], cwd=ROOT).returncode:
        raise typer.Exit(code)


@app.command()
def repro(profile: Profile = "mini", force: Annotated[bool, typer.Option("--force", "-f")] = False):
    """Every table and figure of a profile: data/<profile>/figures/index.html (in a checkout)."""
    in_checkout("repro")
    run("vlact.tools.pipeline", "repro", profile, *(["-f"] if force else []))


@app.command()
def verify(profile: Profile = "study"):
    """Compare data/<profile>/figures, as `vlact repro` left it, with the published run.

    In a checkout; the page to look at is data/<profile>/figures/index.html.
    """
    in_checkout("verify")
    run("vlact.tools.verify", profile)


@app.command()
def site(profile: Profile = "mini"):
    """Static pages of what lies in data/<profile>/figures/index.html (in a checkout)."""
    in_checkout("site")
    run("vlact.report.site", profile)
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
            command = next((a for a in arguments if a in NEEDS), "this")
            absent = absent_of(command) or [error.name.split(".")[0]]
            line, code = lacking(f"vlact {command}", *absent), 2
        elif isinstance(error, OSError) and error.strerror and error.filename:
            line, code = f"{error.filename}: {error.strerror}", 2
        elif isinstance(error, ValueError | OSError):
            line, code = " ".join(str(error).split()), 2
        else:
            line, code = f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1
        end_bar = "\n" if sys.stderr.isatty() else ""
        print(f"{end_bar}vlact: {line}", file=sys.stderr)
        raise SystemExit(code) from None


if __name__ == "__main__":
    main()
