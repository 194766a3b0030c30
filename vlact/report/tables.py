"""Tables as csv, markdown and LaTeX with the same digits, byte for byte the same on every run."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlact.report import layout
from vlact.report.layout import FEWEST_SEEDS

if TYPE_CHECKING:
    import pandas as pd

METRIC_DIGITS = 4
COUNTS = ("lr", "epochs", "n", "seeds", "set")  # columns that are no percentages
NUMBER = r"^\s*([+-]?\d+(?:\.\d+)?)(?: ± [\d.]+)?\s*$"


def write_text(path: Path, text: str) -> None:
    """Write a small file, all or nothing, with unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def spread(values, scale: float = 100, digits: int = 1) -> str:
    """Mean ± standard deviation (ddof 1) of fractions, in percent; a single one has no spread."""
    import pandas as pd

    values = scale * pd.Series(list(values), dtype=float)
    return f"{values.mean():.{digits}f}" + (
        f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    )


def plain(text: str) -> str:
    """Text for markdown, in which what would begin a tag or a link is a character."""
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text).replace("](", "]\\(")


def markdown(table: "pd.DataFrame", markup: bool = False) -> str:
    """A GitHub table of the columns, cells as they print; none is markup unless asked for."""

    def line(cells) -> str:
        # a line break would end the table
        shown = [c if markup else plain(c) for c in cells]
        cells = [" ".join(c.replace("|", "\\|").splitlines()) for c in shown]
        return "| " + " | ".join(cells) + " |\n"

    rows = table.astype(str).to_numpy().tolist()
    return "".join(map(line, [map(str, table.columns), ["---"] * table.shape[1], *rows]))


def arranged(
    block: layout.Block, bold: Callable[[str], str], small: Callable[[str], str], text
) -> "pd.DataFrame":
    """A block's cells as markup: the best in bold, spreads small, all else by `text`."""
    import pandas as pd

    def cell(value: str, best: bool) -> str:
        found = layout.CELL.fullmatch(value)
        number, spread, rest = found.groups("") if found else (value, "", "")
        number = bold(text(number)) if best else text(number)
        return number + (f" {small(text(spread))}" if spread else "") + text(rest)

    rows = zip(block.table.to_numpy().tolist(), block.best.to_numpy().tolist(), strict=True)
    cells = [[cell(*pair) for pair in zip(*row, strict=True)] for row in rows]
    return pd.DataFrame(cells, columns=[text(c) for c in block.table])


SPECIAL = {  # of LaTeX
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "±": r"$\pm$",
    "#": r"\#",
    "→": r"$\to$",
    "−": "$-$",
    # what would be a command
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def tex(value) -> str:
    """Text for LaTeX, in which nothing is a command."""
    return "".join(SPECIAL.get(c, c) for c in " ".join(str(value).splitlines()))


def latex(block: layout.Block) -> str:
    """A booktabs tabular of a block; needs the package booktabs."""
    shown = arranged(block, r"\textbf{{{}}}".format, r"{{\scriptsize {}}}".format, tex)
    head, *lines = [
        " & ".join(row) + r" \\" for row in [list(shown.columns), *shown.to_numpy().tolist()]
    ]
    spec = "l" + "r" * (shown.shape[1] - 1)
    return "\n".join(
        [
            *([f"% {' '.join(block.title.splitlines())}"] if block.title else []),
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
            head,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def verdict(ours: str, other: str, what: str, found: dict, expected: int = 1) -> str:
    """What a paired interval says, beside what the paper says.

    Args:
        ours, other: Names of the two methods.
        what: The metric, in percent.
        found: From `vlact.metrics.classification.paired_interval` on percent, ours minus other.
        expected: Sign of the published difference: 1, -1 or 0 (none claimed).
    """
    interval = f"{found['mean']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"
    interval += f", {found['wins']}/{found['n']} seeds"
    if found["n"] < FEWEST_SEEDS:
        return f"{ours} minus {other} on {what}: {interval}; {found['n']} seeds decide nothing."
    if not found["low"] < found["high"]:
        return f"{ours} minus {other} on {what}: {interval}; equal ones decide nothing."
    sign = 1 if found["low"] > 0 else -1 if found["high"] < 0 else 0
    word = {1: "above", -1: "below", 0: "not separated from"}[sign]
    holds = (
        ""
        if not expected
        else "; as published"
        if sign == expected
        else "; undecided"
        if not sign
        else "; against the paper"
    )
    return f"{ours} is {word} {other} on {what}: {interval}{holds}."


def save(
    table: "pd.DataFrame", folder: Path, stem: str, digits: int = 1, caption: str = ""
) -> list[str]:
    """Write `stem`.csv, .md and .tex; floats with `digits` decimals, missing values as a dash.

    The csv has all rows; the others are arranged as `vlact.report.layout` says, with the caption
    below, and what it says beyond sixty words as a list.

    Returns:
        The file names, for the results map.
    """
    import pandas as pd

    shown = table.copy()
    for column in shown:
        if pd.api.types.is_float_dtype(shown[column]):
            shown[column] = shown[column].map(lambda x: "–" if pd.isna(x) else f"{x:.{digits}f}")
    shown = shown.fillna("–")
    write_text(folder / f"{stem}.csv", shown.to_csv(index=False, lineterminator="\n"))
    write_pages(shown, folder, stem, caption)
    return [f"{stem}.{kind}" for kind in ("csv", "md", "tex")]


def write_pages(shown: "pd.DataFrame", folder: Path, stem: str, caption: str) -> None:
    """The markdown and LaTeX of a table whose csv is written."""
    parts = layout.blocks(shown.astype(str), stem, caption)
    head, findings = layout.said(caption)
    findings += layout.cautions(parts, caption)
    head = " ".join(filter(None, [head, layout.short(shown, parts, stem)]))
    pages = []
    for part in parts:
        cells = arranged(part, "**{}**".format, "<sub>{}</sub>".format, plain)
        title = f"**{plain(part.title)}**\n\n" if part.title else ""
        pages.append(title + markdown(cells, markup=True))
    pages += [f"{plain(head)}\n"] if head else []
    pages += ["".join(f"- {plain(x)}\n" for x in findings)] if findings else []
    write_text(folder / f"{stem}.md", "\n".join(pages))
    comments = [f"% {line}\n" for x in (head, *findings) for line in x.splitlines() if line]
    write_text(folder / f"{stem}.tex", "\n".join(map(latex, parts)) + "".join(comments))


def caption_of(path: Path) -> str:
    """What a written page says beside its tables; "" where there is none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    tables = ("|", "**")
    said = [x.removeprefix("- ") for x in lines if x and not x.startswith(tables)]
    # `plain` made them harmless
    text = "\n".join(said).replace("&lt;", "<").replace("]\\(", "](")
    return re.sub(
        r"(The first \d+ of|Nothing here is in bold:|An interval without) [^\n]*", "", text
    )


def read(folder: Path, stem: str) -> tuple[list[layout.Block], str, list[str]]:
    """A written table as it is read: its blocks, its caption and its findings."""
    import pandas as pd

    name = Path(stem).name
    cells = pd.read_csv(folder / f"{stem}.csv", dtype=str, keep_default_na=False)
    said = caption_of(folder / f"{stem}.md")
    blocks = layout.blocks(cells, name, said)
    head, findings = layout.said(said)
    head = " ".join(filter(None, [head, layout.short(cells, blocks, name)]))
    return blocks, head, findings + layout.cautions(blocks, said)


def write_caption(path: Path, caption: str) -> None:
    """What stands beside a figure, its findings as a list."""
    head, findings = layout.said(caption)
    said = "".join(f"- {plain(x)}\n" for x in findings)
    write_text(path, f"{plain(head)}\n" + (f"\n{said}" if said else ""))


def write_again(folder: Path) -> None:
    """What is read of every table and figure below a folder anew, from its csv and its caption."""
    import pandas as pd

    for path in sorted(folder.glob("*/*.md")):
        if path.with_suffix(".tex").is_file():
            shown = pd.read_csv(path.with_suffix(".csv"), dtype=str, keep_default_na=False)
            write_pages(shown, path.parent, path.stem, caption_of(path))
        else:
            write_caption(path, caption_of(path))


def numbers(table: "pd.DataFrame") -> dict[str, float]:
    """What was measured here in a table of percent, as fractions, for `dvc metrics`.

    Args:
        table: Columns of text say what a row is, the others hold numbers, also as "12.3 ± 0.4".
            Published numbers, intervals, counts and schedules are left out.

    Returns:
        "what a row is/column" to fraction.
    """
    table = table[~(table.astype(str) == "published").any(axis=1)].reset_index(drop=True)
    cells = table.astype(object).map(str)
    found = {c: cells[c].str.extract(NUMBER)[0].astype(float) for c in cells}
    text = [
        c for c in cells if found[c].isna().all() and not cells[c].str.contains(r"\[[+-]").any()
    ]
    measured = [
        c for c in cells if found[c].notna().any() and c not in COUNTS and "published" not in c
    ]
    out = {}
    for row in cells.index:
        name = ", ".join(cells.loc[row, text])
        values = {f"{name}/{c}": found[c][row] / 100 for c in measured}
        out |= {k: v for k, v in values.items() if v == v}
    return out


def results_map(
    folder: Path, stage: str, notebook: str, rows: list[dict], metrics: dict | None = None
) -> None:
    """Note what a stage made: map.json beside its figures, which `pipeline index` gathers.

    Args:
        folder: Where the stage's figures lie, data/<profile>/figures/<stage>.
        stage: DVC stage.
        notebook: File name under notebooks/.
        rows: `paper` (ace, actionvlm, transfer, beyond), `item` (table1, figure5, ..), `title`,
            `files` (list).
        metrics: Headline numbers by name, fractions 0 to 1, for `dvc metrics`; to
            data/<profile>/metrics/<stage>.json.

    Raises:
        ValueError: An unknown paper.
        FileNotFoundError: A file that is not there.
    """
    for row in rows:
        if row["paper"] not in ("ace", "actionvlm", "transfer", "beyond"):
            raise ValueError(
                f"results map, {row['item']}: paper must be ace, actionvlm, transfer or beyond; "
                f"got {row['paper']!r}"
            )
        missing = [f for f in row["files"] if not (folder / f).is_file()]
        if missing:
            raise FileNotFoundError(f"results map, {row['item']}: {missing} not found in {folder}")
    full = []
    for row in rows:
        files = " ".join(f"{stage}/{f}" for f in row["files"])
        full.append({**row, "files": files, "notebook": notebook, "stage": stage})
    write_text(folder / "map.json", json.dumps(full, indent=1) + "\n")
    if metrics is not None:
        numbers = {k: round(float(v), METRIC_DIGITS) for k, v in metrics.items()}
        path = folder.parents[1] / "metrics" / f"{stage}.json"
        write_text(path, json.dumps(numbers, indent=1) + "\n")
