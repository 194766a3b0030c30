"""vlact/models/zoo/systems.md says of every system of the tables what it is here: what it names is
there.
"""

import importlib

import pytest

from vlact import ROOT
from vlact.papers.actionvlm.localizing import KINDS
from vlact.papers.transfer.benchmark import BY_NAME, DOMAINS, OVER_CLIP, SCRATCH, TIMESFORMER
from vlact.report import published

COLUMNS = ["system", "file", "status", "checkpoint", "tested"]
NONE = "–"


def rows() -> list[dict[str, str]]:
    text = (ROOT / "vlact" / "models" / "zoo" / "systems.md").read_text(encoding="utf-8")
    cells = [
        [x.strip() for x in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith(("| system", "| **"))
    ]
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells]


def test_every_system_of_the_tables_has_a_row():
    named = [row["system"] for row in rows()]
    assert len(named) == len(set(named))
    here = {*KINDS, *SCRATCH, *OVER_CLIP, *BY_NAME, *DOMAINS, *TIMESFORMER}
    table = published.read("actionvlm_table1")["method"].unique()
    printed = {"ActionVLM" if x.startswith("ActionVLM") else x for x in table}
    assert not (here | printed) - set(named)
    files = {row["file"].split(" ")[0] for row in rows()}
    zoo = {f"vlact/models/zoo/{f.name}" for f in (ROOT / "vlact/models/zoo").glob("[a-z]*.py")}
    assert not zoo - files


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["system"])
def test_what_a_row_names_is_there(row):
    if row["file"] == NONE:
        assert row["status"].startswith("published row only: ") and row["tested"] == NONE
        return
    file, _, name = row["file"].partition(" ")
    assert (ROOT / file).is_file()
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    assert hasattr(module, name.strip("`"))
    assert row["status"].split(" ")[0].strip(";,") in ("faithful", "simplified:")
    test = row["tested"].rpartition(" ")[2]
    assert test.startswith("tests/test_") and (ROOT / test).is_file()
    if row["status"].startswith("faithful"):  # against whom
        assert ": " in row["tested"]
