"""Stage `stadium`: the untrimmed world on disk, and the drills that language is aligned on.

Seed number i trains on a set of recordings of its own; all are tested on the same recordings.
"""

import json
from collections import defaultdict
from functools import partial

import pandas as pd

from vlact.datasets import activitynet
from vlact.params import Params
from vlact.runtime import jobs
from vlact.runtime.jobs import write_whole
from vlact.stages import Stage

STADIUM = Stage(
    "stadium",
    __name__,
    ("stadium", "seeds"),
)  # fmt: skip

EVENT = ["start_s", "end_s", "what", "label"]


def stadium(p: Params, must_exist: bool = False) -> None:
    """Film every recording to `data/<workspace>/stadium`: mp4 files, ground_truth.json and
    sessions.json in ActivityNet's layout, events.json, drills.json.

    Drills have no class and are not in the ground truth; drills.json has their `routines`, labelled
    with their poses.

    With `world.source: folder` nothing is filmed: the folder must hold real data.

    Raises:
        FileNotFoundError: Real data asked for and not there.
    """
    folder = p.data / "stadium"
    if p.world.source == "folder":
        if not (folder / "ground_truth.json").is_file():
            raise FileNotFoundError(
                f"{folder / 'ground_truth.json'}: profile {p.profile!r} reads real data; expected "
                "ground truth in ActivityNet's layout "
                "with subsets 'train' and 'test', and the videos beside it, found none"
            )
        return
    if not STADIUM.must_run(p, folder, must_exist):
        return
    from vlact.worlds import broadcast

    s, work = p.stadium, STADIUM.work(p)
    counts = {f"train{i}": s.train for i in range(len(p.seeds))} | {"test": s.test}
    planned = broadcast.thumos(counts, s.seconds, s.seed) + broadcast.drills(
        s.drills, s.drill_seconds, s.seed
    )
    planned += broadcast.sessions(counts | {"test": s.session_test}, s.session_seconds, s.seed)
    given = str(folder), str(work), s.size, s.fps
    todo = [partial(broadcast.film_job, b, *given) for b in planned]
    found = jobs.run(todo, p.workers, "filming the stadium")
    drills = {
        f["video"]: {"split": f["split"], "poses": f["poses"], "routines": f["annotations"]}
        for f in found
        if "drill" in f["video"]
    }
    found = [f for f in found if f["video"] not in drills]
    rows = [
        {"video": f["video"], "split": f["split"], "duration_s": f["duration_s"], **a}
        for f in found
        for a in f["annotations"]
    ]
    rows, long = pd.DataFrame(rows), {b.name + ".mp4" for b in planned if b.session}
    for name, part in (
        ("ground_truth", rows[~rows["video"].isin(long)]),
        ("sessions", rows[rows["video"].isin(long)]),
    ):
        activitynet.write_ground_truth(part, folder / f"{name}.json")
    events = {f["video"]: {"distractors": f["distractors"], "poses": f["poses"]} for f in found}
    for name, content in (("events", events), ("drills", drills)):
        write_whole(
            folder / f"{name}.json",
            lambda text, path: path.write_text(text, encoding="utf-8"),
            json.dumps(content) + "\n",
        )
    STADIUM.finish(p, folder)


def truth_of(p: Params, name: str = "ground_truth") -> pd.DataFrame:
    """Ground truth of the stadium, or of its "sessions", all splits."""
    return activitynet.ground_truth(p.data / "stadium" / f"{name}.json", None)


def events_of(p: Params) -> dict[str, dict]:
    """What recordings show beside their actions, by video: `distractors` (rows with `EVENT`) and
    `poses`.

    Of real data the distractors are THUMOS14's ambiguous intervals, where events.json stands beside
    the ground truth.
    """
    path = p.data / "stadium" / "events.json"
    return defaultdict(
        lambda: {"distractors": [], "poses": []},
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {},
    )


def durations_of(truth: pd.DataFrame, split: str) -> dict[str, float]:
    """Seconds of every video of a split."""
    part = truth[truth["split"] == split].drop_duplicates("video")
    return dict(zip(part["video"], part["duration_s"], strict=True))
