"""Stage `disentangle`: designs that keep motion and context apart, on EZ-CLIP, each with its
controls, under one protocol; both directions of Syn-TA.
"""

from pathlib import Path

import pandas as pd

from vlact.language.motions import SETS, coarse_names, fine_names, taxonomy
from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage
from vlact.stages.pretrain import PRETRAIN, pretraining, trained_frames
from vlact.stages.synta import synta
from vlact.stages.transfer import prepared, recipe_of, words_of

DISENTANGLE = Stage(
    "disentangle",
    __name__,
    ("synta", "transfer", "disentangle"),
    PRETRAIN,
)
BASE, FULL = "EZ-CLIP", "disentangled"
TWO = {"branches": True, "fine_weight": True}
# Options of `vlact.models.disentangled.Disentangled`; True takes a weight from `disentangle` in the
# parameters. `epochs`: how many times those of the others.
CONTROLS: dict[str, dict] = {
    BASE: {},
    "twice as long": {"epochs": 2},
    "fine labels only": {"fine_weight": True},
    "two branches": TWO,
    "frames in order": {"head": "course"},
    "dynamic input": {"dynamic": True},
}
CANDIDATES: dict[str, dict] = {
    FULL: TWO | {"decorrelate": True, "consistent": True},
    "context swap": {"swap": True},
    "feature differences": {"head": "differences"},
    "mean removed": {"head": "less mean"},
    "tempo": {"tempo": True},
    "gradient reversal": {"adversary": True},
    "HSIC": {"branches": True, "independent": True},
}
PARTS: dict[str, dict] = {  # of `FULL`, and pairs of what candidates change
    "two branches, decorrelated": TWO | {"decorrelate": True},
    "two branches, consistent": TWO | {"consistent": True},
    "context swap, tempo": {"swap": True, "tempo": True},
    "context swap, mean removed": {"swap": True, "head": "less mean"},
}
ARMS = CONTROLS | CANDIDATES | PARTS
FEW = 2  # seeds of `PARTS`


def options_of(p: Params, arm: str) -> dict:
    """Of `vlact.models.disentangled.Disentangled`."""
    weights = {
        "fine_weight": p.disentangle.fine,
        "decorrelate": p.disentangle.decorrelate,
        "consistent": p.disentangle.consistent,
        "adversary": p.disentangle.adversary,
        "independent": p.disentangle.independent,
    }
    given = {k: v for k, v in ARMS[arm].items() if k != "epochs"}
    return given | {k: weights[k] for k in given if k in weights}


def encoders(p: Params, work: Path) -> dict[int, str]:
    """An encoder of its own for every seed: those of stage `pretrain`, and more where they are too
    few.
    """
    seeds = list(dict.fromkeys([*p.ace_seeds, *range(len(p.ace_seeds) + p.disentangle.seeds)]))
    seeds = seeds[: p.disentangle.seeds]
    kept = {
        s: str(p.data / "pretrained" / f"frames{s}.safetensors") for s in seeds if s in p.ace_seeds
    }
    return kept | trained_frames(p, work, [s for s in seeds if s not in kept])


def disentangle(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/disentangle/predictions.parquet`: as `transfer`'s, the arm as `model`; arms
    of `PARTS` on `FEW` seeds.

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
    for k, (seed, clip) in enumerate(encoders(p, work).items()):
        for arm, given in ARMS.items():
            if k >= FEW and arm in PARTS:
                continue
            options, recipe = recipe_of(p, trunk, lr=d.lr, epochs=d.epochs * given.get("epochs", 1))
            for which in SETS:
                out = str(work / f"{arm.replace(' ', '_')}-{which}-{seed}")
                own = options_of(p, arm)
                weights = (
                    str(folder / f"{arm}-{which}.safetensors")
                    if k == 0 and arm in (BASE, FULL)
                    else ""
                )
                given = arm, options, own, *source, classes, which, recipe, seed, clip, words
                todo.append(DisentangleJob(*given, f"{out}.parquet", f"{out}.pt", weights))
    jobs.run(todo, p.workers, "disentanglement")
    found = [pd.read_parquet(job.out) for job in todo]
    pd.concat(found, ignore_index=True).to_parquet(folder / "predictions.parquet", index=False)
    (work / "realistic.npy").unlink()
    DISENTANGLE.finish(p, folder)
