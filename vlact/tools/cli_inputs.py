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
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from vlact import schema
from vlact.datasets import activitynet, activitynet13, epic, thumos14

SEGMENT = ("video", "start_s", "end_s", "label")
TRAIN, TEST = ("train", "training", "val"), ("test", "testing", "validation")


@dataclass(frozen=True)
class Truth:
    """Annotations `video, start_s, end_s, label` and, where known, `split, duration_s`."""

    table: pd.DataFrame
    layout: str
    ambiguous: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)

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
    elif path.suffix == ".json":
        content = schema.json_object(path)
        entries = [v for v in content.values() if isinstance(v, dict)]
        listed = [v["annotations"] for v in entries if isinstance(v.get("annotations"), list)]
        first = [notes[0] for notes in listed if notes]
        if any(isinstance(note, dict) and "class" in note for note in first):
            layout, table = "RTD-Net", thumos14.anno_action(path)
        elif any("duration_second" in v for v in entries):
            layout, table = "BMN", activitynet13.bmn(path, path.with_name("video_info_new.csv"))
        else:
            layout, table = "ActivityNet", activitynet.ground_truth(path, None)
    else:
        layout, table, ambiguous = _csv_truth(path, task, classes, spellings)
    notes, known = [], sorted(set(table["split"].astype(str))) if "split" in table else []
    if subset == "auto":
        subset = next((s for s in TEST if s in known), None) if len(known) > 1 else None
        if subset:
            notes.append(f"{path.name}: subset {subset!r} of {known}; --subset takes another")
    if subset is not None:
        if subset not in known:
            raise ValueError(f"{path}: no subset {subset!r}; expected one of {known or 'none'}")
        table = table[table["split"].astype(str) == subset].reset_index(drop=True)
    if table.empty:
        raise ValueError(f"{path}: expected at least one annotated segment, found none")
    return Truth(table, layout, ambiguous, notes)


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
        raise ValueError(
            f"{path}, line {row + first}: score must be a number; got {table['score'][row]!r}"
        )
    return table.assign(score=number)


def read_results(path: Path, classes: Path | None = None) -> pd.DataFrame:
    """Detections `video, start_s, end_s, label, score` of any system.

    Args:
        path: ActivityNet's JSON; csv or parquet with these columns; or THUMOS14's text,
            "video start end class score" a line.
        classes: "<number> <name>" a line, for classes that are numbers.

    Raises:
        FileNotFoundError, ValueError: No such file, another layout, a broken row.
    """
    wanted = (*SEGMENT, "score")
    if path.suffix == ".json":
        table = activitynet.results(path)
    elif path.suffix == ".parquet":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        table = pd.read_parquet(path)
        if missing := [c for c in wanted if c not in table]:
            raise ValueError(f"{path}: missing columns {missing}; expected {list(wanted)}")
    elif path.suffix == ".csv":
        what = f"a csv with columns {','.join(wanted)}"
        table = schema.csv(path, wanted, what)
        table = scores(schema.sound(table, path), path, 2).reset_index(drop=True)
    else:
        rows = [line.split() for line in schema.text(path).splitlines()]
        for number, row in enumerate(rows, 1):
            if len(row) not in (0, 5):
                raise ValueError(f"{path}, line {number}: expected 'video start end class score'")
        # row i of the table is line i + 1 of the file, also where lines are blank
        lines = [i for i, row in enumerate(rows) if row]
        table = pd.DataFrame([rows[i] for i in lines], index=lines, columns=list(wanted))
        table = schema.sound(table, path, first=1)
        table = scores(table, path, 1).reset_index(drop=True)
    if classes:
        names = {str(n): name for n, name in thumos14.class_list(classes).items()}
        table["label"] = table["label"].astype(str).map(lambda x: names.get(x, x))
    return table


def read_encoder(spec: str, options: dict | None = None):
    """What `vlact.training.features.extract` takes, and a note (json-able) that names it again.

    Args:
        spec: A vlact encoder's .safetensors; "open_clip:MODEL[:PRETRAINED]", where PRETRAINED is a
            tag or a local file; or "FILE.py:CLASS", see the module.
        options: Of a class of one's own.

    Raises:
        FileNotFoundError, ValueError: None of them, or what it says is not there.
    """
    note = {"encoder": spec, "options": options or {}}
    if spec.startswith("open_clip:"):
        model, size, _ = open_clip_model(*spec.split(":", 2)[1:])
        encode, num_frames = (lambda clips: image_features(model, clips)[:, 0]), 1
    elif ".py:" in spec:
        model, describe = own_encoder(spec, options or {})
        encode, num_frames, size = model.encode, describe["num_frames"], describe["image_size"]
    else:
        return vlact_encoder(Path(spec)), note
    from torch import nn

    class Adapter(nn.Module):
        """The two calls that `extract` makes."""

        config = SimpleNamespace(num_frames=num_frames, image_size=size)

        def __init__(self):
            super().__init__()
            self.model = model

        def first(self, clips, frozen_blocks):
            return clips

        def last(self, clips, frozen_blocks):
            import torch

            found = torch.as_tensor(np.asarray(encode(clips.cpu().numpy())))
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
            f"{path}: no such encoder; expected a vlact .safetensors, open_clip:MODEL:PRETRAINED, "
            "or FILE.py:CLASS"
        )
    for kind in ENCODERS.values():
        try:
            return kind.load(path).eval()
        except (ValueError, TypeError, KeyError, RuntimeError):  # of another kind
            continue
    raise ValueError(f"{path}: expected an encoder of {sorted(ENCODERS)}")


def open_clip_model(name: str, pretrained: str = ""):
    """Model, side of its images in pixels, and its tokenizer; never with random weights."""
    import open_clip

    if not pretrained and ":" not in name:
        raise ValueError(f"open_clip:{name}: say which weights, a tag or a file: {name}:TAG")
    if not name.startswith(("hf-hub:", "local-dir:")) and name not in open_clip.list_models():
        raise ValueError(f"{name!r}: open_clip knows no such model; see open_clip.list_models()")
    try:
        model = open_clip.create_model(
            name, pretrained or None, load_weights=True, require_pretrained=True
        ).eval()
    except (RuntimeError, FileNotFoundError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"open_clip:{name}:{pretrained}: no such weights; {first}") from None
    size = model.visual.image_size
    size = size[0] if isinstance(size, tuple | list) else size
    return model, size, open_clip.get_tokenizer(name)


def image_features(model, clips) -> np.ndarray:
    """uint8 (B, T, H, W, 3) to image features of every frame (B, T, D), in open_clip's norm."""
    import open_clip
    import torch

    norm = open_clip.get_model_preprocess_cfg(model)
    mean, std = torch.tensor(norm["mean"]), torch.tensor(norm["std"])
    frames = torch.as_tensor(clips).flatten(0, 1).float() / 255
    with torch.no_grad():
        found = model.encode_image(((frames - mean) / std).permute(0, 3, 1, 2))
    return found.float().unflatten(0, clips.shape[:2]).numpy()


def read_options(text: str) -> dict:
    """`--options`, a JSON object.

    Raises:
        ValueError: Something else.
    """
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"--options {text!r}: expected a JSON object; {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"--options {text!r}: expected a JSON object")
    return found
