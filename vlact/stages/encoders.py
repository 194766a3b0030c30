"""Stage `encoders`: ActionFormer on what other encoders see of the stadium, features and end to end
(ActionVLM, Tables 1 and 8).
"""

from dataclasses import replace

import pandas as pd

from vlact.params import Params
from vlact.runtime import jobs
from vlact.stages import Stage
from vlact.stages.alignment import dim_of, extract
from vlact.stages.localizers import LOCALIZERS, localizers, problems, recipe_of
from vlact.stages.pretrain import pretraining
from vlact.stages.stadium import truth_of

ENCODERS = Stage(
    "encoders",
    __name__,
    ("world", "model", "pretrain", "vlm"),
    LOCALIZERS,
)


def encoders(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/encoders/detections.parquet`: of every seed, with the columns `encoder` and
    `dim`.

    The encoders are those of ACE's pretraining, first seed: a TimeSformer that has seen hands at
    work, and CLIP on frames. "end to end" trains adapters in the former (AdaTAD), "end to end,
    frozen" is the same without them, and of `Tal.kinds` those that train the encoder itself, all
    for the first `vlm.ablation_seeds`.
    """
    folder = p.data / "encoders"
    if not ENCODERS.must_run(p, folder, must_exist):
        return
    from vlact.models.dual import DualEncoder
    from vlact.models.frames import FrameEncoder
    from vlact.models.wired import WIRED
    from vlact.papers.actionvlm.localizing import EndToEndJob, LocalizeJob
    from vlact.worlds.stadium import ACTIONS

    localizers(p, must_exist=True)
    pretraining(p, must_exist=True)
    work, names, todo, rows = ENCODERS.work(p), list(truth_of(p)["video"].unique()), [], []
    given = problems(p, work, list(ACTIONS), recipe_of(p))
    for label, kind, stem in (
        ("TimeSformer on tutorials", DualEncoder, "seed"),
        ("CLIP on frames", FrameEncoder, "frames"),
    ):
        path = work / f"{stem}.safetensors"
        weights = p.data / "pretrained" / f"{stem}{p.seeds[0]}.safetensors"
        (work / stem).mkdir(exist_ok=True)
        read = p, kind, weights, p.data / "stadium", names, float(p.stadium.fps), work / stem
        extract(*read, path)
        dim = dim_of(path)
        for i, s in enumerate(p.seeds):
            out = str(work / f"{stem}-{s}")
            config = given[i].config | {"feature_dim": dim}
            problem = replace(given[i], features=str(path), config=config)
            todo.append(LocalizeJob("ActionFormer", problem, s, out, f"{out}.pt"))
            rows.append({"encoder": label, "dim": dim})
    whole, first = [], str(p.data / "pretrained" / f"seed{p.seeds[0]}.safetensors")
    for i, s in enumerate(p.seeds[: p.vlm.ablation_seeds]):
        config = given[i].config | {"feature_dim": p.model.dim}
        problem = replace(given[i], features=str(p.data / "stadium"), config=config)
        source, name = (problem, float(p.stadium.fps), first), "end to end"
        for adapted, label in ((True, name), (False, f"{name}, frozen")):
            out = str(work / f"{label.replace(', ', '-').replace(' ', '-')}-{s}")
            whole.append(EndToEndJob(*source, s, out, f"{out}.pt", adapted=adapted))
            rows.append({"encoder": f"TimeSformer on tutorials, {label}", "dim": p.model.dim})
        for kind in filter(WIRED.__contains__, p.tal.kinds):
            out = str(work / f"{kind}-{s}")
            whole.append(EndToEndJob(*source, s, out, f"{out}.pt", kind=kind))
            rows.append({"encoder": f"TimeSformer on tutorials, {kind}", "dim": p.model.dim})
    # what lasts longest first
    jobs.run(whole + todo, p.workers, "localizers on other encoders")
    found = [
        pd.read_parquet(f"{job.out}.parquet").assign(**row)
        for job, row in zip(todo + whole, rows, strict=True)
    ]
    pd.concat(found, ignore_index=True).to_parquet(folder / "detections.parquet", index=False)
    ENCODERS.finish(p, folder)
