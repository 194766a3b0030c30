"""What the command line reads: ground truth and results in whichever layout they come, encoders.

An encoder of one's own is a class in a Python file, `--encoder my_encoder.py:MyEncoder`, with two
methods besides what it is made with:

    class MyEncoder:
        def __init__(self, **options): ...      # --options, a JSON object
        def describe(self) -> dict: ...         # {"num_frames": T, "image_size": pixels of a side}
        def encode(self, clips): ...            # uint8 (B, T, H, W, 3) RGB -> (B, D) numbers

Name and options are kept beside the features, and a localizer trained on these is given clips of
the same encoder again. Code is run only where the user names its file, never because a file does.
"""

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from vlact import schema
from vlact.datasets import activitynet, activitynet13, epic, pickled, thumos14

SEGMENT = ("video", "start_s", "end_s", "label")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".ts", ".mpg", ".mpeg", ".wmv", ".flv")
TIOUS = {
    "thumos14": (0.3, 0.4, 0.5, 0.6, 0.7),
    "activitynet": tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist()),
    "epic": (0.1, 0.2, 0.3, 0.4, 0.5),
}
SHEETS = (".xlsx", ".xls", ".ods")
LIBRARIES = ("open_clip:", "transformers:", "videomae:")  # of `vlact.models.by_name`
TRANSFER = ("label", "predicted", "set", "trained_on")
AMBIGUOUS = "ambiguous"  # of THUMOS14: no class, what is found there is neither right nor wrong
PART = r"^video_(test|validation)_\d+$"  # what names of THUMOS14's videos say
TRAIN, TEST = ("train", "training", "val"), ("test", "testing", "validation")


def thresholds(given: str) -> tuple[float, ...]:
    """A name of `TIOUS`, or numbers with commas between."""
    try:
        return TIOUS.get(given) or tuple(float(x) for x in given.split(","))
    except ValueError:
        raise ValueError(
            f"--tious {given!r}: expected one of {sorted(TIOUS)} or 0.5,0.75"
        ) from None


# Videos
def films(where: list[Path]) -> list[Path]:
    """Video files, and those in folders.

    Raises:
        FileNotFoundError: None there.
    """
    out = []
    for path in where:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in VIDEOS)
        if not inside or not inside[0].exists():
            raise FileNotFoundError(f"{path}: expected a video or a folder of {', '.join(VIDEOS)}")
        out += inside
    return out


def films_of(names: list[str], where: Path | None) -> dict[str, Path]:
    """The file of every video that is in a folder.

    Raises:
        FileNotFoundError: No such folder.
    """
    from vlact.video import files

    out = {}
    if where and not where.is_dir():
        raise FileNotFoundError(f"{where}: expected a folder of videos; there is none")
    for name in names if where else ():
        try:
            out |= files(where, [name])
        except FileNotFoundError:
            print(f"note: {where}: no file of {name!r}; it gets no clip", file=sys.stderr)
    return out


def clips_of(folder: Path, classes: list[str]) -> dict[Path, int]:
    """Clips in a folder of folders that are named like classes, with their class's number.

    Raises:
        FileNotFoundError, ValueError: No such folder, or folders of other names.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: expected a folder with a folder of clips for each class"
        )
    there = sorted(p.name for p in folder.iterdir() if p.is_dir())
    if not there or (odd := [n for n in there if n not in classes]):
        raise ValueError(
            f"{folder}: expected folders named like {classes}; got {odd if there else 'none'}"
        )
    return {p: classes.index(n) for n in there for p in films([folder / n])}


# Annotations and results
@dataclass(frozen=True)
class Truth:
    """Annotations `video, start_s, end_s, label` and, where known, `split, duration_s`."""

    table: pd.DataFrame
    layout: str
    ambiguous: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)
    others: int = 0  # rows of parts that were not asked for
    aside: int = 0  # ambiguous ones among the others' rows

    @property
    def rows(self) -> int:
        """Of all parts."""
        return len(self.table) + self.others + self.aside

    def durations(self, *others: pd.DataFrame) -> dict[str, float]:
        """Seconds of every video; where the file has none, up to the last segment of any table."""
        ends = pd.concat([t[["video", "end_s"]] for t in (self.table, *others)])
        out = ends.groupby("video")["end_s"].max().to_dict()
        if "duration_s" in self.table:
            out |= self.table.dropna(subset="duration_s").groupby("video")["duration_s"].max()
        return {v: float(s) for v, s in out.items()}


def read_truth(
    path: Path,
    subset: str | None = "auto",
    task: str = "verb",
    classes: Path | None = None,
    spellings: bool = False,
) -> Truth:
    """Ground truth in any layout that `vlact.datasets` knows, found by its content.

    Args:
        path: ActivityNet's JSON, RTD-Net's, or BMN's beside its video_info_new.csv; a csv of
            G-TAD, TSP, EPIC-Kitchens or with the columns `video,start_s,end_s,label[,split]`;
            or the folder of THUMOS14's text files.
        subset: Which part; None all, "auto" the test part where there are several.
        task: Of EPIC-Kitchens: "verb", "noun" or "action".
        classes: "<number> <name>" a line, for layouts that have numbers.
        spellings: A csv of the last kind may spell one label in two ways, for `vlact check`.

    Raises:
        FileNotFoundError, ValueError: No such file, an unknown layout or subset, a broken row.
    """
    ambiguous = None
    if path.is_dir():
        layout, parts = "THUMOS14 text files", []
        for split in ("val", "test"):
            if any(path.glob(f"*_{split}.txt")):
                table, vague = thumos14.ground_truth(path, split)
                parts.append(table)
                ambiguous = vague if split == "test" else ambiguous
        if not parts:
            raise ValueError(f"{path}: expected <Class>_test.txt or <Class>_val.txt, found none")
        table = pd.concat(parts, ignore_index=True)
    elif path.suffix.lower() in SHEETS:
        raise ValueError(f"{path}: expected a csv or a JSON, found a spreadsheet; save it as csv")
    elif path.suffix.lower() == ".json":
        content = schema.json_object(path)
        entries = [v for v in content.values() if isinstance(v, dict)]
        listed = [v["annotations"] for v in entries if isinstance(v.get("annotations"), list)]
        first = [notes[0] for notes in listed if notes]
        if any(isinstance(note, dict) and "class" in note for note in first):
            layout, table = "RTD-Net", thumos14.anno_action(path)
            part = table["video"].astype(str).str.extract(PART, expand=False).fillna("")
            table = table.assign(split=part)  # both of THUMOS14's are in one file
        elif any("duration_second" in v for v in entries):
            beside = path.with_name("video_info_new.csv")
            layout = "BMN"
            table = activitynet13.bmn(path, beside if beside.is_file() else None)
        elif "results" in content and "database" not in content:
            raise ValueError(f"{path}: expected ground truth, got results; results come first")
        else:
            layout, table = "ActivityNet", activitynet.ground_truth(path, None)
    else:
        layout, table, ambiguous = _csv_truth(path, task, classes, spellings)
    table = bare(table, path)
    notes, known = [], sorted(set(table["split"].astype(str))) if "split" in table else []
    vague = table["label"].map(schema.label_key) == AMBIGUOUS
    if vague.any():
        notes.append(f"{path.name}: {vague.sum()} ambiguous segments are set aside, as no class")
        ambiguous = pd.concat([ambiguous, table.loc[vague, list(SEGMENT[:3])]], ignore_index=True)
        table = table[~vague].reset_index(drop=True)
    if subset == "auto":
        subset = next((s for s in TEST if s in known), None) if len(known) > 1 else None
        if subset:
            notes.append(f"{path.name}: subset {subset!r} of {known}; --subset takes another")
        elif len(known) > 1:
            notes.append(f"{path.name}: all of {known} together; --subset takes one")
    whole = len(table)
    if subset is not None:
        if subset not in known:
            raise ValueError(f"{path}: no subset {subset!r}; expected one of {known or 'none'}")
        table = table[table["split"].astype(str) == subset].reset_index(drop=True)
    if table.empty:
        raise ValueError(f"{path}: expected at least one annotated segment, found none")
    return Truth(table, layout, ambiguous, notes, whole - len(table), int(vague.sum()))


def bare(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table with videos' ids without "v_", as `vlact.datasets.activitynet` reads them, and
    without the ending of a file, unless two files differ by it alone.

    Raises:
        ValueError: An id with and without "v_".
    """
    ids = pd.Series(table["video"].astype(str).unique())
    short = ids.str.removeprefix("v_")
    if short.duplicated().any():
        video = short[short.duplicated()].iloc[0]
        raise ValueError(
            f"{path}: {video!r} and 'v_{video}' are both there; expected one form of an id"
        )
    stems = short.map(lambda x: x[: -len(end)] if (end := ending(x)) else x)
    if not stems.duplicated().any():
        short = stems
    called = dict(zip(ids, short, strict=True))
    return table.assign(video=table["video"].astype(str).map(called).astype("str"))


def ending(name: str) -> str:
    """Of a video's file, or nothing."""
    return next((name[-len(e) :] for e in VIDEOS if name.lower().endswith(e)), "")


def _csv_truth(path: Path, task: str, classes: Path | None, spellings: bool):
    """Layout, table and ambiguous intervals of a csv, by the names of its columns."""
    columns = set(schema.csv(path, (), "a csv of annotations with a header line"))
    if {"video-name", "label-idx"} <= columns:
        numbers = schema.csv(path, ("label-idx",), "G-TAD's groundtruth.csv")["label-idx"]
        names = thumos14.class_list(classes) if classes else _numbered(numbers)
        return "G-TAD", *thumos14.groundtruth_csv(path, names)
    if {"video", "type", "start", "end"} <= columns:
        return "G-TAD", thumos14.annotation_csv(path), None
    if {"t-start", "action-label"} <= columns:
        return "TSP", activitynet13.tsp(path), None
    if {"video_id", "verb_class"} <= columns:
        return "EPIC-Kitchens", epic.ground_truth(path, task), None
    wanted = f"a csv with columns {','.join(SEGMENT)} and, if there are parts, split"
    table = schema.csv(path, SEGMENT, wanted)
    labels = table["label"]
    if spellings:  # all of one label look alike while the rest is looked at
        table = table.assign(label=labels.map(schema.label_key))
    table = schema.sound(table, path).assign(label=labels)
    if "split" in table and not spellings:
        schema.disjoint(table, path)
    return "csv", table.reset_index(drop=True), None


def _numbered(numbers: pd.Series) -> dict[int, str]:
    """Classes that have no name are called by their number; what is none is left to the reader."""
    found = {n.strip() for n in numbers}
    return {int(n): n for n in found if n.isdecimal()}


def scores(table: pd.DataFrame, path: Path, first: int) -> pd.DataFrame:
    """The table with `score` as numbers; `first` is the line of the row of index 0.

    Raises:
        ValueError: A score that is no number; names the line.
    """
    separator = table.attrs.get("separator", ",")
    plain = table["score"] if separator == "," else table["score"].str.replace(",", ".")
    number = pd.to_numeric(plain, errors="coerce").astype(float)
    # "nan" is left to `evaluate`, which can drop it
    bad = number.isna() & (table["score"].str.strip().str.lower() != "nan")
    if bad.any():
        row = bad.idxmax()
        cell = table["score"][row]
        remedy = "; write 0.5, not 0,5" if "," in cell else ""
        where = f"{path}, line {row + first}"
        raise ValueError(f"{where}: score must be a number; got {cell!r}{remedy}")
    return table.assign(score=number)


def read_results(path: Path, classes: Path | None = None) -> pd.DataFrame:
    """Detections `video, start_s, end_s, label, score` of any system.

    Args:
        path: ActivityNet's JSON; csv or parquet with these columns; ActionFormer's
            eval_results.pkl; or THUMOS14's text, "video start end class score" a line.
        classes: "<number> <name>" a line, for classes that are numbers.

    Raises:
        FileNotFoundError, ValueError: No such file, another layout, a broken row.
    """
    wanted, kind = (*SEGMENT, "score"), path.suffix.lower()
    if kind == ".json":
        table = activitynet.results(path)
    elif kind == ".parquet":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        table = pd.read_parquet(path)
        if missing := [c for c in wanted if c not in table]:
            raise ValueError(f"{path}: missing columns {missing}; expected {list(wanted)}")
    elif kind in (".pkl", ".pickle"):
        table = pickled.results(path)
    elif kind not in ("", ".csv", ".tsv", ".txt"):
        raise ValueError(f"{path}: expected results as .json, .csv, .tsv, .parquet, .txt or .pkl")
    elif kind in (".csv", ".tsv"):
        what = f"a csv with columns {','.join(wanted)}"
        table = schema.csv(path, wanted, what, empty=True)
        table = scores(schema.sound(table, path), path, 2).reset_index(drop=True)
    else:
        rows = [line.split() for line in schema.text(path).splitlines()]
        for number, row in enumerate(rows, 1):
            if len(row) not in (0, 5):
                raise ValueError(
                    f"{path}, line {number}: expected 'video start end class score' with blanks "
                    f"between; got {' '.join(row):.80}"
                )
        # row i of the table is line i + 1 of the file, also where lines are blank
        lines = [i for i, row in enumerate(rows) if row]
        table = pd.DataFrame([rows[i] for i in lines], index=lines, columns=list(wanted))
        table = schema.sound(table, path, first=1)
        table = scores(table, path, 1).reset_index(drop=True)
    if classes:
        names = {str(n): name for n, name in thumos14.class_list(classes).items()}
        table["label"] = table["label"].astype(str).map(lambda x: names.get(x, x))
    table = bare(table, path)
    if table.empty:  # nothing found; columns without rows have no kind by themselves
        table = table.astype(dict.fromkeys(("start_s", "end_s", "score"), float))
    return table


def named(found: pd.DataFrame, truth: Path) -> tuple[pd.DataFrame, str]:
    """Detections whose labels are numbers, named as the truth's `label_id` says; and a note.

    Args:
        found: From `read_results`.
        truth: A JSON of ActivityNet's layout; others have no numbers.
    """
    labels = found["label"].astype(str)
    if truth.suffix.lower() != ".json" or not len(found) or not labels.str.isdecimal().all():
        return found, ""
    database = schema.json_object(truth).get("database")
    entries = database.values() if isinstance(database, dict) else ()
    notes = [n for e in entries if isinstance(e, dict) for n in e.get("annotations") or ()]
    names = {str(n["label_id"]): n["label"] for n in notes if "label_id" in n and "label" in n}
    if not names or set(names) <= {str(x) for x in names.values()}:
        return found, ""
    label = labels.map(lambda x: names.get(x, x))
    return found.assign(label=label), f"labels are numbers; they are named by label_id of {truth}"


def read_encoder(spec: str, options: dict | None = None):
    """What `vlact.training.features.extract` takes, and a note (json-able) that names it again.

    Args:
        spec: A vlact encoder's .safetensors; a name of `vlact.models.by_name`, such as
            "open_clip:ViT-B-16/openai"; or "FILE.py:CLASS", see the module.
        options: Of a class of one's own.

    Raises:
        FileNotFoundError, ValueError: None of them, or what it says is not there.
    """
    note = {"encoder": spec, "options": options or {}}
    if spec.startswith(LIBRARIES):
        from vlact.models import by_name

        model = by_name.load(spec)
        describe = model.describe()
    elif ".py:" in spec:
        model, describe = own_encoder(spec, options or {})
    else:
        return vlact_encoder(Path(spec)), note
    from torch import nn

    class Adapter(nn.Module):
        """The two calls that `extract` makes."""

        config = SimpleNamespace(**describe)

        def __init__(self):
            super().__init__()
            self.model = model

        def first(self, clips, frozen_blocks):
            return clips

        def last(self, clips, frozen_blocks):
            import torch

            found = torch.as_tensor(np.asarray(model.encode(clips.cpu().numpy())))
            if found.ndim != 2 or len(found) != len(clips):
                shape = tuple(found.shape)
                raise ValueError(f"{spec}: encode must give ({len(clips)}, D) numbers; got {shape}")
            return found

    return Adapter(), note


def own_encoder(spec: str, options: dict):
    """An instance of "FILE.py:CLASS", and what it says of its clips."""
    file, _, name = spec.rpartition(":")
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file}: no such Python file; expected --encoder FILE.py:CLASS")
    found = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    if not hasattr(module, name):
        raise ValueError(f"{file}: no class {name!r}; expected --encoder FILE.py:CLASS")
    made = getattr(module, name)(**options)
    if lacks := [m for m in ("describe", "encode") if not callable(getattr(made, m, None))]:
        raise ValueError(f"{spec}: no method {lacks[0]}(); see `vlact features --help`")
    said = made.describe()
    for key in ("num_frames", "image_size"):
        if not isinstance(said.get(key), int) or said[key] < 1:
            raise ValueError(f"{spec}: describe() must give {key}, 1 or more; got {said!r}")
    return made, said


def vlact_encoder(path: Path):
    """The encoder of a file that `save` of one of them wrote."""
    from vlact.hub import ENCODERS

    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such encoder; expected a vlact .safetensors, "
            "open_clip:MODEL/PRETRAINED, transformers:FOLDER-OR-ID or FILE.py:CLASS"
        )
    for kind in ENCODERS.values():
        try:
            return kind.load(path).eval()
        except (ValueError, TypeError, KeyError, RuntimeError):  # of another kind
            continue
    raise ValueError(f"{path}: expected an encoder of {sorted(ENCODERS)}")


def read_options(text: str) -> dict:
    """`--options`, a JSON object.

    Raises:
        ValueError: Something else.
    """
    try:
        found = schema.json_text(text or "{}")
    except ValueError as error:
        raise ValueError(f"--options {text!r}: expected a JSON object; {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"--options {text!r}: expected a JSON object")
    return found


def read_note(path: Path) -> dict:
    """features.json, or nothing where there is none."""
    return schema.json_object(path) if path.is_file() else {}


def present_features(source: Path, videos: list[str], transpose: bool = False):
    """Features (T, F) by video, and why others have none: (found, reason by video).

    Args:
        source: See `vlact.papers.actionvlm.scaling.features_of`.
        videos: Those that are wanted.
        transpose: Arrays are (F, T).

    Raises:
        ValueError: Nothing at `source`, or arrays that do not go together; says which.
    """
    from vlact.papers.actionvlm.accounting import check_features
    from vlact.papers.actionvlm.scaling import features_of

    found, bad = {}, {}
    try:
        found = features_of(source, videos)
    except ValueError:
        if not source.exists():
            raise
        for video in videos:
            try:
                found |= features_of(source, [video])
            except ValueError as error:
                missing = "no features of" in str(error)
                bad[video] = "without features" if missing else str(error)
    if transpose:
        found = {v: x.T.contiguous() for v, x in found.items()}
    try:
        check_features(found, found)
    except ValueError as error:
        raise ValueError(f"{source}: {str(error).replace('(x.T)', 'with --transpose')}") from None
    return found, bad


def read_transfer(path: Path):
    """Clips `label, predicted, set, trained_on, model, seed, task` of a csv, and what is wrong.

    Returns:
        The table, and a reason for every row that has an empty cell.
    """
    table = schema.csv(path, TRANSFER, f"a csv with columns {','.join(TRANSFER)}")
    bad = {}
    for column in reversed(TRANSFER):
        empty = table.index[table[column].str.strip() == ""]
        bad |= {i: f"{path}, line {i + 2}: {column} is empty" for i in empty}
    for column, usual in (("model", "model"), ("seed", "0"), ("task", "coarse")):
        table[column] = table[column] if column in table else usual
    return table, bad


def synonym_test(names: Path | None, dataset: str):
    """The Synonym Robustness Test of one's own names, or of SRT v1; and what names it in a result.

    Args:
        names: JSON, class to its names, as many of each; the first is the class's own.
        dataset: "ata", "ikea" or "gtea" of `vlact.language.srt`.

    Raises:
        ValueError: Both or none of them, or names of another form.
    """
    from vlact.language import srt
    from vlact.metrics.synonyms import SynonymRobustnessTest

    if bool(names) == bool(dataset):
        raise ValueError("expected --names FILE.json or --dataset ata|ikea|gtea, one of them")
    if dataset:
        test = srt.load(dataset)
        return SynonymRobustnessTest(test.runs), {"test": test.name, "sha256": test.sha256}
    given = schema.json_object(names)
    count = len(next(iter(given.values()), []) or [])
    for key, value in given.items():
        if not isinstance(value, list) or len(value) != count:
            raise ValueError(f"{names}: {key!r}: expected lists of names, as many for each class")
    runs = [[[value[r]] for value in given.values()] for r in range(count)]
    return SynonymRobustnessTest(runs), {"test": names.name, "sha256": srt.digest(given)}


def hub_model(model: str, kinds: tuple[str, ...]):
    """A model that `save_pretrained` wrote, of one of these kinds, from a folder or the hub.

    Raises:
        FileNotFoundError, ValueError: Neither of them, or a model of another kind.
    """
    import vlact.hub as hub

    local = Path(model) / hub.CONFIG
    if not local.is_file() and (Path(model).exists() or model.count("/") != 1 or model[0] in "./"):
        raise FileNotFoundError(
            f"{local}: expected a folder that save_pretrained wrote, or a hub id"
        )
    loaded = hub.load(model)
    if (kind := type(loaded).__name__) not in kinds:
        raise ValueError(f"{local}: expected one of {kinds}; got {kind!r}")
    return loaded
