"""THUMOS14's own text files: one a class, `video start end` a row, and one of ambiguous intervals."""

from pathlib import Path

import pandas as pd

COLUMNS = ["video", "start_s", "end_s"]


def ground_truth(folder: str | Path, split: str = "test") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Annotations `video, start_s, end_s, label, split` and ambiguous intervals `video, start_s, end_s`, in file order.

    Args:
        folder: With `<Class>_<split>.txt` and `Ambiguous_<split>.txt`.
        split: "test" or "val".

    Raises:
        FileNotFoundError: No file of the split.
        ValueError: A row that is not `video start end`.
    """
    files = sorted(Path(folder).glob(f"*_{split}.txt"))
    if not files:
        raise FileNotFoundError(f"{folder}: expected <Class>_{split}.txt, one a class, as in THUMOS14's temporal annotations")
    found = {file.name.removesuffix(f"_{split}.txt"): _rows(file) for file in files}
    ambiguous = found.pop("Ambiguous", pd.DataFrame(columns=COLUMNS))
    tables = [table.assign(label=label, split=split) for label, table in found.items()]
    return pd.concat(tables, ignore_index=True), ambiguous


def _rows(file: Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            video, start, end = line.split()
            rows.append((video, float(start), float(end)))
        except ValueError:
            raise ValueError(f"{file}, line {number}: expected 'video start end'; got {line!r}") from None
    return pd.DataFrame(rows, columns=COLUMNS)
