"""One page with everything that a run made: data/<profile>/figures/index.html."""

import html
from pathlib import Path

import pandas as pd

from vlact.report import layout
from vlact.report.tables import caption_of

POLICY = "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem }
img { max-width: 100%; background: white }
section { margin: 2.5rem 0; overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0 }
nav { columns: 3; font-size: 13px }
nav a { display: block; color: inherit }
td, th { padding: .15rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #8884 }
td:first-child, th:first-child, caption { text-align: left }
caption { font-weight: 600; white-space: nowrap }
small { display: block; opacity: .75 }
th, td.t, .prose td { white-space: normal }
.note { padding: .5rem 1rem; border-left: 4px solid #c80 }
"""


def page(index: pd.DataFrame, folder: Path, profile: str, note: str = "") -> str:
    """The page.

    Args:
        index: The results map, see `vlact.tools.pipeline`.
        folder: Where the files of the map lie; pictures are linked from there.
        profile: What was run.
        note: A sentence on what this run can decide.
    """
    parts, contents = [], []
    for k, row in enumerate(index.itertuples()):
        files = row.files.split()
        shown = [f'<img src="{html.escape(f)}" alt="">' for f in files if f.endswith(".png")]
        tables = [f for f in files if f.endswith(".csv") and f.replace(".csv", ".md") in files]
        shown += [_table(folder / f) for f in tables]
        title = html.escape(f"{row.paper}, {row.item}: {row.title}")
        contents.append(f'<a href="#{k}">{title}</a>')
        head = f'<h2 id="{k}">{title}</h2>'
        made = f"<p>{html.escape(f'notebooks/{row.notebook}, stage {row.stage}')}</p>"
        parts.append(f"<section>{head}{made}{''.join(shown)}</section>")
    said = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>vlact, {html.escape(profile)}</title><style>{STYLE}</style>"
        f"<h1>Results of {html.escape(profile)}</h1>{said}"
        f"<nav>{''.join(contents)}</nav>{''.join(parts)}</html>\n"
    )


def _table(path: Path) -> str:
    """The blocks of a table, and what it says, as on the site."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    said = caption_of(path.with_suffix(".md"))
    blocks = layout.blocks(table, path.stem, said)
    head, findings = layout.said(said)
    findings += layout.cautions(blocks, said)
    lines = [head, layout.short(table, blocks, path.stem), *findings]
    return "".join(map(layout.html, blocks)) + "".join(
        f"<p>{html.escape(x)}</p>" for x in lines if x
    )
