"""Stage `transfer`: models on coarse motions of Syn-TA, both directions; some of them also on plain backgrounds."""

from dataclasses import asdict

import pandas as pd

from vlact import clips, jobs
from vlact.datasets import transfer as lists
from vlact.language.motions import SETS, taxonomy
from vlact.params import Params
from vlact.stages import READING, Stage
from vlact.stages.synta import SYNTA, synta

TRANSFER = Stage(
    "transfer",
    ("stages/transfer.py", "transferring.py", "training.py", "models/convnet3d.py", "models/zoo/resnet50.py", "models/zoo/i3d.py",
     "models/zoo/x3d.py", "models/zoo/slowfast.py", "models/zoo/mvitv2.py", *READING),
    ("transfer", "seeds"),
    SYNTA,
)  # fmt: skip


def transfer(p: Params, must_exist: bool = False) -> None:
    """`data/<workspace>/transfer`: predictions.parquet (model, seed, background, and `TransferBenchmark.predict`'s columns), curves.csv."""
    folder = p.data / "transfer"
    if not TRANSFER.must_run(p, folder, must_exist):
        return
    from vlact.transferring import transfer_job
    from vlact.worlds.synta import BACKGROUNDS, SECONDS

    synta(p, must_exist=True)
    t, work, classes, source = p.transfer, TRANSFER.work(p), taxonomy("Syn-TA"), p.data / "synta"
    table = lists.clips(source, classes, source / BACKGROUNDS[0])
    table.to_parquet(work / "table.parquet", index=False)
    todo, names = [], []
    for background in BACKGROUNDS:
        path = work / f"{background}.npy"
        if not path.is_file():
            whole = table.assign(start_s=0.0, end_s=SECONDS)
            found = clips.load(source / background, whole, t.clip_frames, p.synta.size, workers=p.workers, source=str(source))
            clips.save_frames(path, found.frames[:, 0])
        for kind, options in t.models.items():
            if background == "plain" and kind not in t.plain:
                continue
            for which in SETS:
                for s in p.seeds[: t.seeds]:
                    out = str(work / f"{background}-{kind}-{which}-{s}")
                    given = (kind, options, str(path), str(work / "table.parquet"), classes, "coarse", which, asdict(t), s)
                    todo.append((*given, f"{out}.parquet", f"{out}.pt"))
                    names.append({"background": background, "model": kind, "trained_on": which, "seed": s})
    curves = jobs.run(transfer_job, todo, p.workers, "motion transfer")
    found = [pd.read_parquet(job[-2]).assign(background=n["background"]) for job, n in zip(todo, names, strict=True)]
    pd.concat(found, ignore_index=True).to_parquet(folder / "predictions.parquet", index=False)
    rows = [{**n, **row} for n, curve in zip(names, curves, strict=True) for row in curve]
    pd.DataFrame(rows).to_csv(folder / "curves.csv", index=False, lineterminator="\n", float_format="%.6f")
    for background in BACKGROUNDS:
        (work / f"{background}.npy").unlink()
    TRANSFER.finish(p, folder)
