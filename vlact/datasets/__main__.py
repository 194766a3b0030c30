"""From a dataset's own layout to what is read here.

`python -m vlact.datasets ata|ikea|gtea FOLDER` writes FOLDER/annotations.csv. `python -m vlact.datasets thumos14|epic FOLDER OUT` writes
ground truth in ActivityNet's layout, subsets "train" and "test": THUMOS14's validation and test sets, EPIC-Kitchens-100's
training and validation csv.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from vlact import schema, video
from vlact.datasets import activitynet, ata, epic, gtea, ikea, thumos14

CLIPS = {"ata": ata.read, "ikea": ikea.read, "gtea": gtea.read}


def thumos(folder: Path) -> pd.DataFrame:
    """Both sets: `video, start_s, end_s, label, split`; their text files lie in the folder or below it."""
    parts = []
    for name, split in (("val", "train"), ("test", "test")):
        found = next(iter(sorted(folder.rglob(f"*_{name}.txt"))), folder / name)
        parts.append(thumos14.ground_truth(found.parent, name)[0].assign(split=split))
    return pd.concat(parts, ignore_index=True)


def kitchens(folder: Path, task: str) -> pd.DataFrame:
    """Both sets: `video, start_s, end_s, label, split`."""
    files = {"train": "EPIC_100_train.csv", "test": "EPIC_100_validation.csv"}
    return pd.concat([epic.ground_truth(folder / f, task).assign(split=s) for s, f in files.items()], ignore_index=True)


def lasting(table: pd.DataFrame, videos: Path | None) -> pd.DataFrame:
    """With `duration_s`, of the video files in a folder; without one as long as the last action needs.

    Raises:
        FileNotFoundError: A video that is not in the folder.
    """
    if videos is None:
        return table.assign(duration_s=table.groupby("video")["end_s"].transform("max"))
    there = video.files(videos, table["video"].unique())
    return table.assign(duration_s=table["video"].map({v: video.probe(path).duration_s for v, path in there.items()}))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m vlact.datasets", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset", choices=[*sorted(CLIPS), "epic", "thumos14"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?", help="of thumos14 and epic: the json to write")
    parser.add_argument("--videos", type=Path, help="of thumos14 and epic: whose durations are taken; else up to the last action's end")
    parser.add_argument("--task", default="verb", choices=sorted(epic.TASKS), help="of epic")
    parser.add_argument("--no-idle", action="store_true", help="leave ATA's idle class out")
    given = parser.parse_args(arguments)
    if (given.out is None) != (given.dataset in CLIPS):
        parser.error(f"{given.dataset}: expected {'FOLDER alone' if given.dataset in CLIPS else 'FOLDER and OUT'}")
    try:
        if given.dataset in CLIPS:
            table = CLIPS[given.dataset](given.folder, **({"idle": not given.no_idle} if given.dataset == "ata" else {}))
            schema.write_annotations(out := given.folder / "annotations.csv", table)
        else:
            table = thumos(given.folder) if given.dataset == "thumos14" else kitchens(given.folder, given.task)
            activitynet.write_ground_truth(lasting(table, given.videos), out := given.out)
    except (ValueError, FileNotFoundError, video.VideoError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{out}: {len(table)} segments of {table['label'].nunique()} classes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
