"""The results map: every table and figure of a run, from the map.json that each stage leaves."""

import json
import re
from pathlib import Path

import pandas as pd

PAPERS = ("ace", "actionvlm", "transfer", "beyond")
COLUMNS = ["paper", "item", "title", "files", "notebook", "stage"]


def gathered(folder: Path) -> pd.DataFrame:
    """Rows of all stages below a folder: papers first, in each its tables, then its figures."""
    maps = sorted(folder.glob("*/map.json"))
    rows = [row for path in maps for row in json.loads(path.read_text(encoding="utf-8"))]

    def place(row: dict) -> tuple:
        numbered = re.fullmatch(r"(table|figure)(\d+)", row["item"])
        item = (("table", "figure").index(numbered[1]), int(numbered[2])) if numbered else (2, 0)
        return PAPERS.index(row["paper"]), item, row["notebook"], row["item"]

    return pd.DataFrame(sorted(rows, key=place), columns=COLUMNS)
