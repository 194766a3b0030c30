"""The stages of the pipeline as functions: files in, files out, resumable. One file a stage and
paper.

A notebook calls its own stage, and those before it, which return at once when their outputs are
there and were made by the same code and parameters. In a scratch workspace (a notebook opened by
itself) a stale or missing input is made on the spot; in a pipeline workspace it is an error that
says to run `make repro`.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from vlact.params import Params
from vlact.runtime import device, jobs
from vlact.runtime.code import module_hash
from vlact.runtime.extras import needs
from vlact.runtime.jobs import write_whole
from vlact.training import trackers

with needs(__name__):
    import safetensors  # noqa: F401  # of most modules

CSV = {"index": False, "lineterminator": "\n", "float_format": "%.6f"}
BEGUN = "begun_by.json"  # of a folder that is not finished


@dataclass(frozen=True)
class Stage:
    """What a stage's output depends on.

    Attributes:
        name: Also of its scratch folder.
        module: Where it is defined; the code that this imports is what its output depends on.
        sections: Of the parameters.
        after: The stage whose output it reads.
    """

    name: str
    module: str
    sections: tuple[str, ...] = ()
    after: "Stage | None" = None

    def key(self, p: Params) -> str:
        """Hash of the code and parameters that this stage and those before it depend on."""
        before = self.after.key(p) if self.after else ""
        return jobs.key(before, module_hash(self.module), {k: asdict(p)[k] for k in self.sections})

    def work(self, p: Params) -> Path:
        """Where it keeps what a killed run goes on from."""
        folder = p.scratch / self.name / self.key(p)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def done(self, p: Params, folder: Path) -> bool:
        """Whether `folder` holds the stage's output, made by this code and these parameters."""
        note = folder / "made_by.json"
        return note.is_file() and json.loads(note.read_text(encoding="utf-8"))["key"] == self.key(p)

    def finish(self, p: Params, folder: Path) -> None:
        """Sign the stage's output and throw its checkpoints away."""
        self._sign(p, folder / "made_by.json")
        (folder / BEGUN).unlink(missing_ok=True)
        shutil.rmtree(p.scratch / self.name, ignore_errors=True)

    def _sign(self, p: Params, note: Path) -> None:
        text = json.dumps({"stage": self.name, "key": self.key(p)}) + "\n"
        write_whole(note, lambda t, f: f.write_text(t, encoding="utf-8"), text)

    def must_run(self, p: Params, folder: Path, must_exist: bool) -> bool:
        """Whether the stage has to run; `must_exist` asks on behalf of a later stage.

        What other code or parameters left in the folder is thrown away; what a killed run left is
        kept.

        Raises:
            FileNotFoundError: A later stage of a pipeline workspace finds its input missing or
                stale.
        """
        device.choose(p.device)
        trackers.choose(p.tracker, p.data / "logs")
        if self.done(p, folder):
            return False
        if must_exist and p.workspace == p.profile:
            raise FileNotFoundError(
                f"{folder}: expected the output of stage '{self.name}' made by this code and "
                "these parameters; "
                f"run `make repro PROFILE={p.profile}`"
            )
        begun = folder / BEGUN
        if not begun.is_file() or json.loads(begun.read_text(encoding="utf-8"))["key"] != self.key(
            p
        ):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._sign(p, begun)
        return True


def tables_of(todo: list, suffix: str = "") -> pd.DataFrame:
    """What jobs wrote, `out`<suffix>.parquet, as one table."""
    return pd.concat(
        [pd.read_parquet(f"{job.out}{suffix}.parquet") for job in todo], ignore_index=True
    )


def write_curves(folder: Path, names: list[dict], curves: list[list[dict]]) -> None:
    """Curves of training in curves.csv: rows with the columns that name each, and its own."""
    rows = [{**n, **row} for n, curve in zip(names, curves, strict=True) for row in curve]
    pd.DataFrame(rows).to_csv(folder / "curves.csv", **CSV)
