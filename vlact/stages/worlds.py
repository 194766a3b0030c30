"""Stage `worlds`: the pretraining corpora and the three datasets."""

from functools import partial

import pandas as pd

from vlact import schema
from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage

WORLDS = Stage(
    "worlds",
    __name__,
    ("world",),
)  # fmt: skip
CORPORA = ("tutorial", "vlog", "ata", "ikea", "gtea")


def worlds(p: Params, must_exist: bool = False) -> None:
    """Render every corpus to `data/<workspace>/worlds/<name>`: mp4 files and annotations.csv.

    With `world.source: folder` nothing is rendered: the same folders must hold real data.

    Raises:
        FileNotFoundError: Real data asked for and not there.
    """
    folder = p.data / "worlds"
    if p.world.source == "folder":
        for name in CORPORA:
            if not (folder / name / "annotations.csv").is_file():
                raise FileNotFoundError(
                    f"{folder / name / 'annotations.csv'}: profile {p.profile!r} reads real data; "
                    "expected a csv with columns "
                    f"{', '.join(schema.ANNOTATION)} and the videos beside it, found none"
                )
        return
    if not WORLDS.must_run(p, folder, must_exist):
        return
    from vlact.worlds import corpus
    from vlact.worlds.things import Look

    w, work = p.world, WORLDS.work(p)
    look = Look(w.colours, w.scale)
    sets = {
        "tutorial": (
            corpus.tutorials(w.tutorial_videos, w.tutorial_steps, w.seed),
            w.tutorial_step_s,
        ),
        "vlog": (
            corpus.tutorials(w.vlog_videos, w.tutorial_steps, w.seed, "ego"),
            w.tutorial_step_s,
        ),
        "ata": (corpus.ata(**w.ata, steps=w.steps, seed=w.seed), w.step_s),
        "ikea": (corpus.ikea(**w.ikea, steps=w.steps, seed=w.seed), w.step_s),
        "gtea": (corpus.gtea(**w.gtea, steps=w.steps, seed=w.seed), w.step_s),
    }
    for name, (recordings, mean_s) in sets.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        given = str(folder / name), str(work / name), w.size, w.fps, mean_s, look
        todo = [partial(corpus.film_job, r, *given) for r in recordings]
        rows = sum(jobs.run(todo, p.workers, f"rendering {name}"), [])
        schema.write_annotations(folder / name / "annotations.csv", pd.DataFrame(rows))
    WORLDS.finish(p, folder)
