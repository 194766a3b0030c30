"""How a table is read: blocks of few rows, the best in bold, spreads small, a short caption.

A table's csv holds every row and number. What people look at, its markdown, its LaTeX and the site,
is arranged here from the same cells, so that no page can say anything else than the csv.
"""

import re
from dataclasses import dataclass, field
from html import escape
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FEWEST_SEEDS = 5  # independent seeds, or other units, below which nothing is decided
MOST_ROWS = 15  # of a block
MOST_SHOWN = 120  # rows of a table; of a longer one its first block is shown
MOST_WORDS = 60  # of a caption
NONE = "–"
HERE, PUBLISHED = "here", "published"
# a number, how far it may be off, and what else stands in its cell
CELL = re.compile(r"([+−-]?\d[\d.,]*)(?: (± ?[\d.]+|\[[^\]]*\]))?(/\d+|,? .*)?")
EQUAL = re.compile(r"\[([+−-]?[\d.]+), \1\]")  # an interval without width
NO_SPREAD = re.compile(r"± 0\.0+$")
# columns of scores of which the highest is the best
SCORE = re.compile(
    r"((verb|noun|seen|unseen|HM|SRT|published|ours) )?(acc|F1|mAP|HM)|mAP@[\d.]+|0\.\d+|F1@\d+"
    r"|[KU]C?|set [12]|unknown"
)
BARE = re.compile(r"(?i)random|chance")  # rows that are no method
SEEDS = re.compile(
    r"(\d+)(?: pretraining| independent)? seeds?\b(?! [\[\d])|others (\d+)\b|(\d+) for rows"
)
ABBREVIATED = re.compile(r"\b(Fig|Figs|Eq|Eqs|vs|e\.g|i\.e|cf|proj|No)\.$")


@dataclass(frozen=True)
class Layout:
    """What the cells of a table do not say about how it is read.

    Attributes:
        by: Columns whose values begin a block of their own; those that a table lacks are skipped.
        rows: Column that `parts` goes by.
        parts: Title of a block to the pattern of the rows that it takes, in this order; rows that
            no pattern meets come first.
        metrics: Column of what each row measures: its values become columns, methods the rows.
        published: Columns with published numbers, beside those whose names say so.
        where: On what the numbers of a table with published ones were measured here.
        renamed: What the publisher calls a row, to what it is called where it was measured here.
        theirs: What a row is called here, to what it is called beside the published number.
    """

    by: tuple[str, ...] = ()
    rows: str = "method"
    parts: dict[str, str] = field(default_factory=dict)
    metrics: str = ""
    published: tuple[str, ...] = ()
    where: str = ""
    renamed: dict[str, str] = field(default_factory=dict)
    theirs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """Some rows of a table.

    Attributes:
        title: What they have in common; "" for a table of one block.
        table: Their cells, text.
        best: True where a cell is the best of its column, of `table`'s shape.
    """

    title: str
    table: "pd.DataFrame"
    best: "pd.DataFrame"


RECIPES = {
    "controls": r"^zero-shot|\+ (?:slow )?(?:text proj\.|test leaf)",
    "variants of ours": r"halfway|averaged|slow|anchored|leaves alone|verbs only",
}
WEIGHTS = {
    "weights": r"^fixed λ = 0|^learnable|^LM-generated|paired advantage",
    "without a part, and only a part": r"w/o|only$|equal vision epochs",
    "other language models": r"(?:random|biased) LM",
}
# rows of ActionVLM, here and as the paper has them
FULL, FIXED, METHOD = "full (Eq. 1)", "fixed λ = 1.0", "ActionVLM"
WITHOUT = ("w/o T_desc", "w/o special tokens", "w/o [loc]", "w/o L_tg")
BESIDE = Layout(
    by=("dataset",),
    metrics="metric",
    where="small encoders, rendered clips",
    renamed={"Ours (ACE)": "ACE"},
)
BY_DATASET, BY_SETUP = Layout(by=("dataset",)), Layout(by=("setup",))
SYNTA = "small models, rendered Syn-TA"
ACE = Layout(by=("dataset",), parts=RECIPES)
LAYOUTS = {
    **dict.fromkeys(("ace_table1", "ace_table2", "ace_schedules", "ace_recipes"), ACE),
    **dict.fromkeys((f"ace_table{k}_published" for k in (1, 2, 6)), BESIDE),
    **dict.fromkeys(("ace_table1_real", "ace_table5", "ace_table5_published"), BY_DATASET),
    "ace_table3": Layout(by=("dataset",), rows="setting", where="rendered clips"),
    "actionvlm_controls": Layout(rows="model", parts=WEIGHTS),
    "actionvlm_table1_thumos14": Layout(
        by=("source", "setting"),
        published=(*(f"0.{k}" for k in range(3, 8)), "published mAP"),
        where="pose encoder, rendered stadium",
        renamed={
            "ActionVLM-3B (ours)": "full method",
            "ActionVLM-1.5B (ours)": "full method, small language model",
        },
    ),
    "actionvlm_table1_activitynet": Layout(
        by=("source", "setting"), where="pose encoder, rendered sessions"
    ),
    **dict.fromkeys(("actionvlm_table3", "arena_fusion", "arena_open"), Layout(by=("model",))),
    "actionvlm_table4": Layout(where="rendered stadium", theirs={FULL: METHOD}),
    "actionvlm_table9": Layout(
        where="rendered stadium",
        theirs={FIXED: METHOD} | {f"{FIXED}, {part}": f"{METHOD}, {part}" for part in WITHOUT},
    ),
    "actionvlm_table7": Layout(by=("task", "source"), where="rendered kitchens"),
    "actionvlm_table8": Layout(by=("source",), where="rendered stadium"),
    "localization_vision_only": Layout(by=("classes",)),
    "transfer_table2": Layout(by=("kind",), where=SYNTA),
    "transfer_table3": Layout(where=SYNTA),
    "transfer_table4": Layout(by=("task",), where=SYNTA),
    "transfer_table5": Layout(
        where=SYNTA, theirs={"EZ-CLIP": "Base-Coarse", "disentangled": "Ours (disentangled)"}
    ),
    "transfer_directions": Layout(by=("task", "trained_on")),
    "claims": Layout(by=("paper",)),
    **dict.fromkeys(("real_motion_scores", "transfer_table2_real", "real_motion_pairs"), BY_SETUP),
    "transfer_table5_real": BY_SETUP,
    **dict.fromkeys(("localization_real", "localization_errors_real"), BY_DATASET),
    **dict.fromkeys(("localization_gains_real", "real_localization_scores"), BY_DATASET),
}
# columns that say whose numbers they are, and that part of their names
THEIRS, WHOSE = (
    re.compile(r"published( .*)?|.*, published"),
    re.compile(r",? ?\b(published|ours|here)\b ?"),
)


# Blocks
def blocks(table: "pd.DataFrame", stem: str = "", caption: str = "") -> list[Block]:
    """A table as it is read.

    Args:
        table: Cells as text; its columns keep their names.
        stem: The table's name, for `LAYOUTS`.
        caption: Says of how many seeds the numbers are, where no column does.

    Returns:
        Blocks of at most `MOST_ROWS` rows; of a table longer than `MOST_SHOWN` the first alone.
    """
    layout = LAYOUTS.get(stem, Layout())
    parts = _sources(table.astype(str).reset_index(drop=True), layout)
    if len(table) > MOST_SHOWN:
        parts = islice(parts, 1)
    # a table of published numbers alone need not say so in its columns
    whose = (PUBLISHED,) if stem.endswith(f"_{PUBLISHED}") else ()
    found = []
    for titles, part in parts:
        theirs = () if titles[:1] and titles[0].startswith(HERE) else whose
        name = ", ".join(filter(None, titles))
        found.append(Block(name, part, best(part, (*titles, *theirs), caption)))
    return found


def _sources(table: "pd.DataFrame", layout: Layout):
    """Published and own numbers apart, each in blocks."""
    text = [_is_text(table[c]) for c in table]
    numbers = [c for c, is_text in zip(table, text, strict=True) if not is_text]
    theirs = [c for c in numbers if c in layout.published or THEIRS.fullmatch(c)]
    leading = table.columns[: text.index(False) if numbers else None]
    keys = [c for c in leading if c != layout.metrics]
    if not theirs or not keys or "source" in table:
        yield from _parts((), table, layout)
        return
    # a difference would stand on both rows
    ours = [c for c in table if c not in (*theirs, *keys, layout.metrics, "difference")]
    here = f"{HERE}: {layout.where}" if layout.where else HERE
    for title, columns in ((PUBLISHED, theirs), (here, ours)):
        head = [*keys, layout.metrics] if layout.metrics else keys
        part = table[[*head, *columns]]
        part = part[(part[columns] != NONE).any(axis=1)] if columns else part[:0]
        names = layout.renamed if title == here else layout.theirs
        part = part.replace({k: names for k in keys})
        if layout.metrics and len(part):
            part = _metrics_as_columns(part, keys, layout.metrics, columns)
        names = {c: WHOSE.sub("", c).strip() or c for c in part if c not in keys}
        if len(part):
            yield from _parts((title,), part.rename(columns=names), layout)


def _metrics_as_columns(part, keys: list[str], metrics: str, columns: list[str]):
    """A row a method, a column a metric; a mean and its std in one cell."""
    mean, std = columns[0], columns[1:2]
    cells = part[mean]
    if std:
        known = part[std[0]] != NONE
        cells = cells.where(~known, cells + " ± " + part[std[0]])
    wide = part.assign(cell=cells).pivot_table(
        index=keys, columns=metrics, values="cell", aggfunc="first", sort=False
    )
    return wide.fillna(NONE).reset_index().rename_axis(columns=None)


def _parts(titles: tuple[str, ...], table: "pd.DataFrame", layout: Layout):
    """Blocks of a table by what its rows are, in each by its columns, then by their number."""
    by = [c for c in layout.by if c in table] or _long(table)
    for name, rows in _by_pattern(table, layout):
        if by:
            for values, part in rows.groupby(by, sort=False):
                here = {HERE: f"{HERE}: {layout.where}"} if layout.where else {}
                head = (here.get(x, x) for x in values)
                yield from _by_number((*titles, *head, name), part.drop(columns=by))
        else:
            yield from _by_number((*titles, name), rows)


def _long(table: "pd.DataFrame") -> list[str]:
    """The column that a long table is cut by: its first, if that names stretches of rows."""
    first = table.iloc[:, 0]
    stretches = (first != first.shift()).sum()
    fits = first.value_counts().max() <= MOST_ROWS and 1 < stretches == first.nunique()
    return [table.columns[0]] if len(table) > MOST_ROWS and fits and stretches < 9 else []


def _by_pattern(table: "pd.DataFrame", layout: Layout) -> list[tuple[str, "pd.DataFrame"]]:
    """Rows that no pattern meets, then those of each, and what they are called."""
    if layout.rows not in table:
        return [("", table)]
    left, found = table, []
    for name, pattern in layout.parts.items():
        mine = left[layout.rows].str.contains(pattern, regex=True)
        found.append((name, left[mine]))
        left = left[~mine]
    return [("", left), *found]


def _by_number(titles: tuple[str, ...], table: "pd.DataFrame"):
    count = -(-len(table) // MOST_ROWS)
    size = -(-len(table) // max(1, count))
    for k in range(count):
        part = table.iloc[k * size : (k + 1) * size].reset_index(drop=True)
        yield (*titles, f"{k + 1} of {count}") if count > 1 else titles, part


def _is_text(cells) -> bool:
    """Whether a column says what its rows are."""
    return not cells.map(lambda x: x == NONE or CELL.fullmatch(x) is not None).all()


# The best
def best(table: "pd.DataFrame", titles: tuple[str, ...], caption: str) -> "pd.DataFrame":
    """Which cells are in bold: the highest scores of at least two rows.

    A number measured here needs `FEWEST_SEEDS`, and a spread that is not zero.
    """
    import pandas as pd

    marked = pd.DataFrame(False, index=table.index, columns=table.columns)
    enough = _seeds(table, caption) >= FEWEST_SEEDS
    if PUBLISHED in titles:
        enough[:] = True
    method = ~table.iloc[:, 0].str.contains(BARE)
    for column in (c for c in table if SCORE.fullmatch(c)):
        values = (
            table[column].str.extract(CELL)[0].str.replace("−", "-").str.rstrip(",").astype(float)
        )
        values = values[method]
        top = values == values.max()
        # what decides nothing is not passed over for the second best
        decided = enough & ~table[column].map(_without_width)
        if values.notna().sum() > 1 and decided[top[top].index].all():
            marked[column] = top.reindex(table.index, fill_value=False)
    return marked


def _without_width(cell: str) -> bool:
    return bool(EQUAL.search(cell) or NO_SPREAD.search(cell))


def _seeds(table: "pd.DataFrame", caption: str):
    """Of how many seeds each row is; 0 where neither a column nor the caption says so."""
    import pandas as pd

    for column in ("runs", "seeds"):
        if column in table and table[column].str.fullmatch(r"\d+( ×.*)?|–").all():
            return table[column].str.extract(r"^(\d+)")[0].fillna(0).astype(int)
    return pd.Series(seeds(caption), index=table.index)


def seeds(caption: str) -> int:
    """The fewest seeds that a caption speaks of; 0 if it does not."""
    found = [int("".join(x)) for x in SEEDS.findall(caption.replace("(s)", "s"))]
    return min(found, default=0)


def cautions(shown: list[Block], caption: str) -> list[str]:
    """Why a table has no best, and what its intervals without width say."""
    said, cells = [], [c for b in shown for c in b.table.to_numpy().ravel()]
    own = [b for b in shown if PUBLISHED not in b.title]
    count = seeds(caption)
    if 0 < count < FEWEST_SEEDS and any(SCORE.fullmatch(c) for b in own for c in b.table):
        said.append(f"Nothing here is in bold: {count} seed{'s' * (count > 1)} decide nothing.")
    if any(EQUAL.search(c) for c in cells):
        said.append("An interval without width decides nothing: all its seeds are equal.")
    return [x for x in said if x not in caption]


# Captions
def said(caption: str) -> tuple[str, list[str]]:
    """A caption of at most `MOST_WORDS`, and what else it says, a sentence each.

    Comparisons with their interval are findings; what follows a full caption is, too.
    """
    head, findings, words = [], [], 0
    for sentence in sentences(caption):
        count = len(sentence.split())
        compares = re.search(r"\[[+−-]?[\d.]+, [+−-]?[\d.]+\]", sentence)
        if findings or compares or words + count > MOST_WORDS:
            findings.append(sentence)
        else:
            head.append(sentence)
            words += count
    return " ".join(head), findings


def sentences(text: str) -> list[str]:
    """The sentences of a text; one that is longer than a caption is cut at its semicolons."""
    found = []
    for piece in re.split(r"(?<=[.!?])\s+(?=[A-ZÀ-ÞΑ-Ωα-ω0-9(\[\"“])|\n+", text.strip()):
        if found and ABBREVIATED.search(found[-1]):
            found[-1] += f" {piece}"
        elif piece:
            found.append(piece)
    long = [re.split(r"(?<=;) ", x) if len(x.split()) > MOST_WORDS else [x] for x in found]
    return [x for pieces in long for x in pieces]


def short(table: "pd.DataFrame", shown: list[Block], stem: str) -> str:
    """What a page says of a table of which it shows a part; "" where it shows all."""
    rows = sum(len(b.table) for b in shown)
    if len(table) <= MOST_SHOWN:
        return ""
    return f"The first {rows} of {len(table)} rows; all are in {stem}.csv."


# Pages
def html(block: Block) -> str:
    """A block as an HTML table, escaped; on a phone each row is a card, see site.css."""
    names = [escape(c) for c in block.table]
    numeric = [not _is_text(block.table[c]) for c in block.table]
    # long sentences may break, names and numbers may not
    prose = [block.table[c].str.len().max() > 40 for c in block.table]
    kinds = ["n" if n else "t" if t else "" for n, t in zip(numeric, prose, strict=True)]
    head = "".join(f'<th class="{k}">{c}</th>' for c, k in zip(names, kinds, strict=True))
    rows = []
    cells = block.table.to_numpy().tolist(), block.best.to_numpy().tolist()
    for row, marks in zip(*cells, strict=True):
        line = zip(row, marks, names, kinds, strict=True)
        shown = (
            f'<td class="{k}" data-of="{c}">{html_cell(value, mark)}</td>'
            for value, mark, c, k in line
        )
        rows.append(f"<tr>{''.join(shown)}</tr>")
    title = f"<caption>{escape(block.title)}</caption>" if block.title else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    kind = "scroll prose" if sum(prose) > 1 else "scroll"
    return f'<div class="{kind}"><table>{title}{body}</table></div>'


def html_cell(value: str, bold: bool) -> str:
    """A cell: the number, its spread small."""
    found = CELL.fullmatch(value)
    number, spread, rest = found.groups("") if found else (value, "", "")
    number = f"<b>{escape(number)}</b>" if bold else escape(number)
    return number + (f" <small>{escape(spread)}</small>" if spread else "") + escape(rest)
