"""From a dataset's own layout to what is read here.

`python -m vlact.datasets ata|ikea|gtea FOLDER` writes FOLDER/annotations.csv.
`python -m vlact.datasets thumos14|activitynet13|epic FOLDER OUT` writes ground truth in
ActivityNet's layout, subsets "train" and "test": THUMOS14's validation and test sets,
ActivityNet-1.3's training and validation sets, EPIC-Kitchens-100's training and validation csv, by
name where its EPIC_100_<task>_classes.csv is there. THUMOS14's ambiguous intervals go into
events.json beside it.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from vlact import schema, video
from vlact.datasets import activitynet, activitynet13, ata, epic, gtea, ikea, thumos14
from vlact.runtime.jobs import write_whole

CLIPS = {"ata": ata.read, "ikea": ikea.read, "gtea": gtea.read}


def thumos(folder: Path) -> tuple[pd.DataFrame, dict[str, dict]]:
    """Both sets: `video, start_s, end_s, label, split`, and events, see
    `vlact.stages.stadium.events_of`; their text files lie in the folder or below it.
    """
    parts, events = [], {}
    for name, split in (("val", "train"), ("test", "test")):
        found = next(iter(sorted(folder.rglob(f"*_{name}.txt"))), folder / name)
        clear, ambiguous = thumos14.ground_truth(found.parent, name)
        parts.append(clear.assign(split=split))
        for i, row in enumerate(
            ambiguous.itertuples()
        ):  # each by a name of its own, so that none is taken for another's like
            shown = {
                "start_s": row.start_s,
                "end_s": row.end_s,
                "what": "ambiguous",
                "label": f"ambiguous {i}",
            }
            events.setdefault(row.video, {"distractors": [], "poses": []})["distractors"].append(
                shown
            )
    return pd.concat(parts, ignore_index=True), events


def kitchens(folder: Path, task: str) -> pd.DataFrame:
    """Both sets: `video, start_s, end_s, label, split`.

    Raises:
        ValueError: A class that the list of names lacks.
    """
    files = {"train": "EPIC_100_train.csv", "test": "EPIC_100_validation.csv"}
    table = pd.concat(
        [epic.ground_truth(folder / f, task).assign(split=s) for s, f in files.items()],
        ignore_index=True,
    )
    if not (path := folder / f"EPIC_100_{task}_classes.csv").is_file():
        return table
    names = epic.names(path)
    if odd := sorted(set(table["label"]) - set(names)):
        raise ValueError(f"{path}: no class {odd[0]!r}, which the annotations have")
    return table.assign(label=table["label"].map(names))


def activities(folder: Path) -> pd.DataFrame:
    """Both sets, of the official JSON or TSP's two csv: `video, start_s, end_s, label, split,
    duration_s`.

    Raises:
        FileNotFoundError: Neither is in the folder.
    """
    if official := next(iter(sorted(folder.glob("activity_net.v1-3*.json"))), None):
        parts = [activitynet.ground_truth(official, s) for s in ("training", "validation")]
    else:
        paths = [folder / f"activitynet_v1-3_{s}_tsp_groundtruth.csv" for s in ("train", "valid")]
        if missing := [f for f in paths if not f.is_file()]:
            raise FileNotFoundError(
                f"{missing[0]}: expected TSP's csv or ActivityNet's activity_net.v1-3.min.json, "
                "found neither"
            )
        parts = [activitynet13.tsp(f) for f in paths]
    return pd.concat(
        [part.assign(split=s) for part, s in zip(parts, ("train", "test"), strict=True)],
        ignore_index=True,
    )


def lasting(table: pd.DataFrame, videos: Path | None) -> pd.DataFrame:
    """With `duration_s`, of the video files in a folder; without one as it is, or as long as the
    last action needs.

    Raises:
        FileNotFoundError: A video that is not in the folder.
    """
    if videos is None and "duration_s" in table:
        return table
    if videos is None:
        return table.assign(duration_s=table.groupby("video")["end_s"].transform("max"))
    there = video.files(videos, table["video"].unique())
    return table.assign(
        duration_s=table["video"].map(
            {v: video.probe(path).duration_s for v, path in there.items()}
        )
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vlact.datasets",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("dataset", choices=[*sorted(CLIPS), "activitynet13", "epic", "thumos14"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?", help="of the last three: the json to write")
    parser.add_argument(
        "--videos",
        type=Path,
        help="of the last three: whose durations are taken; else ActivityNet's own, or up to "
        "the last action's end",
    )
    parser.add_argument("--task", default="verb", choices=sorted(epic.TASKS), help="of epic")
    parser.add_argument("--no-idle", action="store_true", help="leave ATA's idle class out")
    given = parser.parse_args(arguments)
    if (given.out is None) != (given.dataset in CLIPS):
        parser.error(
            f"{given.dataset}: expected "
            f"{'FOLDER alone' if given.dataset in CLIPS else 'FOLDER and OUT'}"
        )
    try:
        if given.dataset in CLIPS:
            table = CLIPS[given.dataset](
                given.folder, **({"idle": not given.no_idle} if given.dataset == "ata" else {})
            )
            schema.write_annotations(out := given.folder / "annotations.csv", table)
        else:
            table, events = thumos(given.folder) if given.dataset == "thumos14" else (None, None)
            if events is None:
                table = (
                    kitchens(given.folder, given.task)
                    if given.dataset == "epic"
                    else activities(given.folder)
                )
            activitynet.write_ground_truth(lasting(table, given.videos), out := given.out)
            if events is not None:
                write_whole(
                    out.with_name("events.json"),
                    lambda d, f: f.write_text(json.dumps(d) + "\n"),
                    events,
                )
    except (ValueError, FileNotFoundError, video.VideoError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{out}: {len(table)} segments of {table['label'].nunique()} classes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
