"""Tables for readers: few rows a block, the best in bold where something is decided, captions
short.
"""

import functools
import json
import re
import shutil

import pandas as pd
import pytest

from vlact import ROOT
from vlact.report import layout, tables

PAGES = sorted(p for p in ROOT.glob("figures/*/*/*.md"))
TABLES = [p for p in PAGES if p.with_suffix(".tex").is_file()]
PUBLISHED = ROOT / "vlact" / "report" / "published"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FEW = "Mean ± std over 2 seeds."
ENOUGH = "Mean ± std over 5 seeds."


def shown(rows, columns, stem="", caption=ENOUGH):
    return layout.blocks(pd.DataFrame(rows, columns=columns), stem, caption)


def bold(block):
    return {
        (block.table.iloc[i, 0], c) for c in block.table for i in block.best.index[block.best[c]]
    }


# What is committed
@pytest.mark.parametrize("run", ["study", "real"])
def test_pages_are_what_their_csv_say_in_short_blocks_with_short_captions(run, tmp_path):
    written = {p: p.read_text(encoding="utf-8") for p in PAGES if p.parts[-3] == run}
    for path, text in written.items():
        for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
            assert block.count("\n") - 2 <= layout.MOST_ROWS, path.name
        # what is no table, no title and no finding
        said = [x for x in text.splitlines() if not x.startswith(("|", "**", "- "))]
        said = re.sub(r"The first \d+ of .*", "", " ".join(said))
        assert len(said.split()) <= layout.MOST_WORDS, path.name
    shutil.copytree(ROOT / "figures" / run, tmp_path / run)
    tables.write_again(tmp_path / run)
    for path in (p for p in ROOT.glob(f"figures/{run}/*/*") if p.suffix in (".md", ".tex")):
        anew = tmp_path / path.relative_to(ROOT / "figures")
        assert anew.read_bytes() == path.read_bytes(), f"{path.name}: run pipeline docs"


@functools.cache
def committed():
    """Every block of every committed table, its path, and whether it is the publisher's."""
    found = []
    for path in TABLES:
        table = pd.read_csv(path.with_suffix(".csv"), dtype=str, keep_default_na=False)
        for block in layout.blocks(table, path.stem, tables.caption_of(path)):
            theirs = layout.PUBLISHED in f"{path.stem} {block.title}"
            found.append((path, block, theirs and not block.title.startswith(layout.HERE)))
    return found


def test_no_number_measured_here_stands_on_a_row_of_the_paper():
    for path, block, theirs in committed():
        cells = block.table.to_numpy().ravel()
        ours = [x for x in cells if re.search(r"\(ours\)|^Ours", x)]
        assert theirs or not ours, path.stem


def test_a_row_of_the_paper_has_its_name_and_only_numbers_that_the_paper_prints():
    count = 0
    for path, block, theirs in committed():
        name = re.match(r"[a-z]+_table[0-9]+", path.stem)
        source = PUBLISHED / f"{name[0] if name else ''}.csv"
        if not theirs or not source.is_file():
            continue
        printed = source.read_text(encoding="utf-8")
        known = {float(x) for x in re.findall(r"[0-9]+(?:\.[0-9]+)?", printed)}
        for column in block.table.columns[1:]:
            for cell in block.table[column]:
                found = layout.CELL.fullmatch(cell)
                if found:
                    count += 1
                    number = abs(float(found[1].replace("−", "-")))
                    off = 0.51 * 10.0 ** -len(found[1].partition(".")[2])  # as it is rounded
                    assert any(abs(number - x) <= off for x in known), (path.stem, cell)
        assert not block.table.iloc[:, 0].str.contains("fixed λ = 1.0, ").any(), path.stem
    assert count > 300


def test_nothing_is_bold_and_nothing_has_a_verdict_below_five_seeds():
    for path, block, theirs in committed():
        rows = layout._seeds(block.table, tables.caption_of(path))[block.best.any(axis=1)]
        assert theirs or (rows >= layout.FEWEST_SEEDS).all(), path.stem
    verdict = r"is (?:above|below|not separated)[^\n]*? \[([^,]+), ([^\]]+)\], \d+/(\d+)"
    found = [x for p in PAGES for x in re.findall(verdict, p.read_text(encoding="utf-8"))]
    assert found and all(float(a) < float(b) and int(n) >= 5 for a, b, n in found)


def test_every_layout_is_of_a_table_that_a_notebook_writes():
    made = {
        word
        for path in NOTEBOOKS
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        for word in re.findall(r"\w+", "".join(cell["source"]))
    }
    written = made | {p.stem for p in TABLES}
    assert [stem for stem in layout.LAYOUTS if stem not in written] == []


# Blocks
def test_controls_and_variants_stand_apart_from_the_rows_of_the_paper():
    methods = ("Random", "ProcVLR", "ACE", "zero-shot", "ProcVLR + test leaf", "ACE, halfway")
    rows = [(d, m, "50.0 ± 1.0") for d in ("ATA", "IKEA") for m in methods]
    found = {
        b.title: list(b.table["method"])
        for b in shown(rows, ["dataset", "method", "SRT acc"], "ace_table1")
    }
    assert found["ATA"] == ["Random", "ProcVLR", "ACE"]
    assert found["ATA, controls"] == ["zero-shot", "ProcVLR + test leaf"]
    assert found["IKEA, variants of ours"] == ["ACE, halfway"]


def test_published_and_own_numbers_stand_apart():
    rows = [("A", "70.0", "50.0 ± 1.0"), ("B", "80.0", "–")]
    theirs, ours = shown(rows, ["model", "HM, published", "HM"], "transfer_table3")
    assert theirs.title == "published" and ours.title.startswith("here: ")
    assert list(theirs.table["HM"]) == ["70.0", "80.0"] and list(ours.table["model"]) == ["A"]


def test_metrics_become_columns():
    rows = [
        ("ATA", "Ours (ACE)", "SRT acc", "59.4", "3.2", "49.6", "9.0", "-9.8"),
        ("ATA", "Ours (ACE)", "seen acc", "80.0", "–", "63.8", "–", "-16.2"),
    ]
    columns = ["dataset", "method", "metric", "published", "published std", "ours"]
    columns += ["ours std over seeds", "difference"]
    theirs, ours = shown(rows, columns, "ace_table1_published")
    assert theirs.table.to_dict("records") == [
        {"method": "Ours (ACE)", "SRT acc": "59.4 ± 3.2", "seen acc": "80.0"}
    ]
    assert ours.table.to_dict("records") == [
        {"method": "ACE", "SRT acc": "49.6 ± 9.0", "seen acc": "63.8"}
    ]


def test_a_long_table_is_cut_and_a_very_long_one_begun():
    table = pd.DataFrame({"model": [f"m{k}" for k in range(200)], "n": "1"})
    assert [len(b.table) for b in layout.blocks(table[:31])] == [11, 11, 9]
    (first,) = layout.blocks(table)
    assert list(first.table["model"]) == [f"m{k}" for k in range(len(first.table))]
    assert layout.short(table, [first], "t") == (
        f"The first {len(first.table)} of 200 rows; all are in t.csv."
    )


# The best
def test_the_best_is_bold_and_guessing_is_not():
    rows = [("Random", "99.0"), ("A", "50.0 ± 1.0"), ("B", "60.0 ± 2.0"), ("C", "60.0 ± 3.0")]
    (block,) = shown(rows, ["method", "SRT acc"])
    assert bold(block) == {("B", "SRT acc"), ("C", "SRT acc")}


@pytest.mark.parametrize(
    ("cell", "caption"),
    [
        ("60.0 ± 2.0", FEW),
        ("60.0 ± 2.0", "headline rows 5 seeds, others 2"),
        ("60.0 ± 2.0", ""),
        ("60.0 ± 0.0", ENOUGH),
        ("60.0 [60.0, 60.0]", ENOUGH),
    ],
)
def test_what_decides_nothing_is_not_bold(cell, caption):
    (block,) = shown([("A", "50.0 ± 1.0"), ("B", cell)], ["method", "HM"], caption=caption)
    assert not block.best.to_numpy().any()


def test_a_column_of_seeds_goes_before_the_caption():
    rows = [("A", "5 × 3 × 1", "50.0 ± 1.0"), ("B", "2 × 1 × 1", "60.0 ± 1.0")]
    (block,) = shown(rows, ["method", "runs", "HM"])
    assert not block.best.to_numpy().any()
    (block,) = shown([rows[0], ("B", "5 × 1 × 1", "60.0 ± 1.0")], ["method", "runs", "HM"])
    assert bold(block) == {("B", "HM")}


def test_a_page_says_why_nothing_is_bold(tmp_path):
    table = pd.DataFrame({"method": ["A", "B"], "HM": ["1.0 ± 0.1", "2.0 ± 0.1"]})
    table["change"] = ["–", "+1.0 [+1.0, +1.0]"]
    tables.save(table, tmp_path, "t", caption=FEW)
    text = (tmp_path / "t.md").read_text()
    assert "Nothing here is in bold: 2 seeds decide nothing." in text
    assert "An interval without width decides nothing" in text and "**2.0" not in text
    tables.save(table, tmp_path, "t", caption=ENOUGH)
    assert "| B | **2.0** <sub>± 0.1</sub> |" in (tmp_path / "t.md").read_text()
    assert r"B & \textbf{2.0} {\scriptsize $\pm$ 0.1}" in (tmp_path / "t.tex").read_text()


# Captions
def test_a_caption_ends_where_findings_begin():
    about = "Percent, see Fig. 3 and Eq. 1. Mean over 5 seeds."
    first = "A is above B: +2.0 [+1.0, +3.0], 5/5 seeds; as published."
    assert layout.said(f"{about} {first} Then more.") == (about, [first, "Then more."])


def test_a_caption_has_sixty_words_at_most():
    sentence = "One two three four five six seven eight nine ten."
    head, findings = layout.said(" ".join([sentence] * 9))
    assert len(head.split()) == layout.MOST_WORDS and len(findings) == 3
    endless = "; ".join(["one two three four five six"] * 12) + "."
    head, findings = layout.said(endless)
    assert 0 < len(head.split()) <= layout.MOST_WORDS and " ".join([head, *findings]) == endless


def test_html_escapes_and_names_every_cell():
    (block,) = shown([("<b>", "50.0 ± 1.0"), ("B", "60.0 ± 1.0")], ["a&b", "HM"])
    page = layout.html(block)
    assert "&lt;b&gt;" in page and 'data-of="a&amp;b"' in page
    assert '<td class="n" data-of="HM"><b>60.0</b> <small>± 1.0</small></td>' in page
