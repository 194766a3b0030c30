"""Stage `disentangle`: coarse and fine branches on EZ-CLIP, each term and each control, both
directions of Syn-TA.
"""

import pandas as pd

from vlact.language.motions import SETS, coarse_names, fine_names, taxonomy
from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage
from vlact.stages.pretrain import PRETRAIN, pretraining
from vlact.stages.synta import synta
from vlact.stages.transfer import prepared, recipe_of, words_of

DISENTANGLE = Stage(
    "disentangle",
    __name__,
    ("synta", "transfer", "disentangle"),
    PRETRAIN,
)
BASE, FULL = "EZ-CLIP", "disentangled"
ARMS: dict[str, dict] = {  # which terms, which input, how many times the epochs
    BASE: {"branches": False, "fine": False},
    "twice as long": {"branches": False, "fine": False, "epochs": 2},
    "fine labels only": {"branches": False},
    "two branches": {},
    "two branches, decorrelated": {"decorrelate": True},
    "two branches, consistent": {"consistent": True},
    FULL: {"decorrelate": True, "consistent": True},
    "disentangled, gated": {"decorrelate": True, "consistent": True, "gate": True},
    "dynamic input": {"branches": False, "fine": False, "stream": "dynamic"},
    "disentangled, two streams": {"decorrelate": True, "consistent": True, "stream": "two"},
}
HEADLINE = (
    BASE,
    "twice as long",
    "fine labels only",
    "two branches",
    FULL,
    "dynamic input",
    "disentangled, two streams",
)


def options_of(p: Params, arm: str) -> dict:
    """Of `vlact.models.disentangled.Disentangled`."""
    d, given = p.disentangle, ARMS[arm]
    weights = {
        "fine_weight": d.fine * given.get("fine", True),
        "decorrelate": d.decorrelate * given.get("decorrelate", False),
    }
    plain = {k: v for k, v in given.items() if k in ("branches", "gate", "stream")}
    return plain | weights | {"consistent": d.consistent * given.get("consistent", False)}


def disentangle(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/disentangle/predictions.parquet`: as `transfer`'s, the arm as `model`; arms
    outside `HEADLINE` on two seeds.

    Beside it the weights of `BASE` and `FULL`, seed 0, both directions.
    """
    folder = p.data / "disentangle"
    if not DISENTANGLE.must_run(p, folder, must_exist):
        return
    from vlact.papers.transfer.benchmark import DisentangleJob

    synta(p, must_exist=True)
    pretraining(p, must_exist=True)
    d, work, classes = p.disentangle, DISENTANGLE.work(p), taxonomy("Syn-TA")
    words = words_of(
        p,
        [*coarse_names(classes), *(n for s in SETS for n in fine_names(classes, s))],
        work / "words.safetensors",
    )
    trunk, todo = p.transfer.models[BASE] | {"frames": d.frames}, []
    source = prepared(p, work, "realistic")
    for seed in range(d.seeds):
        clip = str(p.data / "pretrained" / f"frames{p.seeds[seed % len(p.seeds)]}.safetensors")
        for arm, given in ARMS.items():
            if seed >= 2 and arm not in HEADLINE:
                continue
            options, recipe = recipe_of(p, trunk, lr=d.lr, epochs=d.epochs * given.get("epochs", 1))
            for which in SETS:
                out = str(work / f"{arm.replace(' ', '_')}-{which}-{seed}")
                own = options_of(p, arm)
                weights = (
                    str(folder / f"{arm}-{which}.safetensors")
                    if seed == 0 and arm in (BASE, FULL)
                    else ""
                )
                given = arm, options, own, *source, classes, which, recipe, seed, clip, words
                todo.append(DisentangleJob(*given, f"{out}.parquet", f"{out}.pt", weights))
    jobs.run(todo, p.workers, "disentanglement")
    found = [pd.read_parquet(job.out) for job in todo]
    pd.concat(found, ignore_index=True).to_parquet(folder / "predictions.parquet", index=False)
    (work / "realistic.npy").unlink()
    DISENTANGLE.finish(p, folder)
