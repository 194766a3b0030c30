"""Stage `synta`: the clips of Syn-TA on disk, on both backgrounds, with lists in the published
layout.
"""

from functools import partial

import pandas as pd

from vlact.datasets import transfer
from vlact.language.motions import taxonomy
from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage

SYNTA = Stage(
    "synta",
    __name__,
    ("synta",),
)  # fmt: skip


def synta(p: Params, must_exist: bool = False) -> None:
    """Film every clip to `data/<workspace>/synta/<background>`; the lists beside them, see
    `vlact.datasets.transfer`.

    The ids are the first of those published for training (1 to 30) and for validation (31 to 50).
    """
    folder = p.data / "synta"
    if not SYNTA.must_run(p, folder, must_exist):
        return
    from vlact.worlds.synta import BACKGROUNDS, TRAIN_IDS, VAL_IDS, film_job

    s, work, table = p.synta, SYNTA.work(p), taxonomy("Syn-TA")
    ids = {"train": list(TRAIN_IDS)[: s.train_ids], "val": list(VAL_IDS)[: s.val_ids]}
    todo, rows = [], []
    for background in BACKGROUNDS:
        for r in table.itertuples():
            for part, wanted in ids.items():
                given = (r.coarse_id, r.coarse, int(r.number), wanted, background)
                place = str(folder / background), str(work), s.size, s.fps, s.seed
                todo.append(partial(film_job, *given, *place))
                rows.append((background, r.set, part, r.coarse_id, r.fine_id))
    found = jobs.run(todo, p.workers, "filming Syn-TA")
    clips = [
        (video, *row)
        for names, (background, *row) in zip(found, rows, strict=True)
        if background == BACKGROUNDS[0]
        for video in names
    ]
    transfer.write_lists(
        folder, pd.DataFrame(clips, columns=["video", "set", "part", "coarse_id", "fine_id"])
    )
    SYNTA.finish(p, folder)
