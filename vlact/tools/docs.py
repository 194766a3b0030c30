"""What is generated for readers: environment.yml, the results map of a published run, costs."""

import re
from pathlib import Path

import pandas as pd

from vlact import ROOT
from vlact.language import srt
from vlact.report.tables import markdown, write_again, write_text
from vlact.tools import notebooks
from vlact.tools.environment import environment

PUBLISHED = ("study", "real")  # runs whose results are committed
PAPERS = {
    "ace": "ACE",
    "actionvlm": "ActionVLM",
    "transfer": "Motion transfer",
    "beyond": "beyond the papers",
}
SHOWN = (".png", ".md")


def results_page(profile: str) -> str:
    """The results map of a published run as a page: every table and figure, what makes it."""
    table = pd.read_csv(ROOT / "figures" / profile / "index.csv")
    rows = []
    for row in table.itertuples():
        links = [f"[{Path(f).suffix[1:]}]({f})" for f in row.files.split() if f.endswith(SHOWN)]
        item = re.sub(r"^(table|figure)", lambda m: m[1].capitalize() + " ", row.item)
        cells = {"paper": PAPERS[row.paper], "item": item if row.paper != "beyond" else "–"}
        cells |= {"what": row.title, "result": ", ".join(links)}
        cells |= {"notebook": f"[{row.notebook[:2]}](../../notebooks/{row.notebook})"}
        rows.append(cells | {"stage": f"`{row.stage}`"})
    head = (
        f"# Results of `{profile}`\n\nEvery table and figure, and the notebook and the stage that "
        f"make it. [run.json](run.json) says on what machine, with which versions and of which "
        f"commit each stage was run. `make repro PROFILE={profile}` makes all of it again, into "
        f"data/{profile}/figures.\n\n"
    )
    if (ROOT / "figures" / profile / "zoo.md").is_file():
        head += "[zoo.md](zoo.md) lists the trained weights.\n\n"
    if "trees" in set(table["stage"]):  # ATA, IKEA and GTEA under the names of Tables 7-9
        tests = ", ".join(f"{d} {h}" for d, h in srt.SHA256.items())
        head += f"SRT accuracies of ACE's tables are of SRT v1 (vlact.language.srt): {tests}.\n\n"
    return head + markdown(pd.DataFrame(rows), markup=True)


def docs() -> None:
    """Write everything that is generated; a test compares it with what is committed."""
    write_text(ROOT / "environment.yml", environment())
    for profile in PUBLISHED:
        write_again(ROOT / "figures" / profile)
        write_text(ROOT / "figures" / profile / "README.md", results_page(profile))
    for path, minutes in notebooks.costs().items():
        write_text(path, notebooks.costed(path.read_text(encoding="utf-8"), minutes))
