"""Detections as ActionFormer and its kin leave them: `eval_results.pkl`, a pickle of arrays.

Nothing of it is run: the three names that an array's pickle asks for get stand-ins from here, which
keep what they are given; every other name is refused.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from vlact.datasets.real import plain_pickle
from vlact.runtime.damage import DAMAGED

NAMES = {"video-id": "video", "t-start": "start_s", "t-end": "end_s"}  # theirs and ours
COLUMNS = (*NAMES, "label", "score")
KINDS = frozenset("biuf")  # of numbers: booleans, whole ones, fractions
MOST_BYTES = 2**30


class _Type:
    """Of an array's numbers, as it is called."""

    def __init__(self, name, *_):
        self.name = name

    def __setstate__(self, state):  # (version, order of bytes, ..)
        self.order = state[1]

    def numpy(self) -> np.dtype:
        kind = np.dtype(str(self.name))
        if kind.kind not in KINDS:
            raise ValueError(f"an array of {self.name!r}")
        return kind.newbyteorder(getattr(self, "order", "=").replace("|", "="))


class _Array:
    """An array's bytes, shape and type."""

    def __init__(self, *_):
        self.state = None

    def __setstate__(self, state):
        self.state = state

    def numpy(self) -> np.ndarray:
        _, shape, kind, fortran, data = self.state
        order = "F" if fortran else "C"
        return np.frombuffer(data, kind.numpy()).reshape(shape, order=order)


def _from_buffer(data, kind, shape, order) -> _Array:
    made = _Array()
    made.state = (1, shape, kind, order == "F", bytes(data))
    return made


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode("latin-1") if encoding == "latin1" else b""


STAND_INS = {
    ("multiarray", "_reconstruct"): _Array,
    ("numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encoded,
}


class _Arrays(plain_pickle._Plain):
    def find_class(self, module: str, name: str):
        found = STAND_INS.get((module.rpartition(".")[2], name))
        return found or super().find_class(module, name)


def results(path: str | Path) -> pd.DataFrame:
    """Rows `video, start_s, end_s, label, score`; labels are numbers, as texts.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Anything else than lists and arrays of equal length under these names.
    """
    wanted = f"{path}: expected a pickle of lists and arrays {', '.join(COLUMNS)}"
    if Path(path).stat().st_size > MOST_BYTES:
        raise ValueError(f"{wanted}; got {Path(path).stat().st_size} bytes")
    try:
        with Path(path).open("rb") as file:
            content = _Arrays(file).load()
        columns = {
            c: (x.numpy() if isinstance(x := content[c], _Array) else np.array(list(x)))
            for c in COLUMNS
        }
        if len({x.shape for x in columns.values()}) > 1 or columns["score"].ndim != 1:
            raise ValueError(f"shapes {[x.shape for x in columns.values()]}")
        table = pd.DataFrame(columns).rename(columns=NAMES)
        numbers = table[["start_s", "end_s", "score"]].astype(float)
        return table.assign(label=table["label"].astype(str), **numbers)
    except (*DAMAGED, MemoryError, OverflowError) as error:
        raise ValueError(f"{wanted}; {type(error).__name__}: {error}") from None
