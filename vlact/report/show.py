"""What a notebook shows: tables as they are read, films that play, a slider over clips.

A notebook that is opened by itself runs on tiny worlds. Where a published run has the table, that
one is shown, and said to be.
"""

import base64
import io
import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from vlact import ROOT, video
from vlact.params import Params
from vlact.report import tables
from vlact.report.layout import html
from vlact.runtime.extras import needs

WIDTH, FPS, LONGEST_S = 320, 15.0, 10.0  # of a film on a page, at most; width in pixels


class Shown:
    """HTML on a page, a line of text where there is none."""

    def __init__(self, page: str, line: str):
        self.page, self.line = page, line

    def _repr_html_(self) -> str:
        return self.page

    def __repr__(self) -> str:
        return self.line


def _display(shown) -> None:
    from IPython.display import display  # there is one wherever a notebook runs

    display(shown)


def table(p: Params, folder: Path, *stems: str) -> None:
    """Show tables that `vlact.report.tables.save` wrote.

    Args:
        p: Of the run; in a scratch workspace the published run's table stands for its own.
        folder: Where the stage's tables are.
        stems: File names without end.
    """
    for stem in stems:
        place, whose = _home(p, folder, stem)
        if not (place / f"{stem}.csv").is_file():
            line = f"{stem}: this run made no such table."
            _display(Shown(f"<p>{escape(line)}</p>", line))
            continue
        blocks, head, findings = tables.read(place, stem)
        said = f"<p>{escape(' '.join(filter(None, [head, whose])))}</p>"
        listed = "".join(f"<li>{escape(x)}</li>" for x in findings)
        page = "".join(map(html, blocks)) + said + (f"<ul>{listed}</ul>" if listed else "")
        _display(Shown(page, f"{stem}: {sum(len(b.table) for b in blocks)} rows. {whose}".strip()))


def _home(p: Params, folder: Path, stem: str) -> tuple[Path, str]:
    """The folder of a table, and whose it is where that is not this run's."""
    if p.workspace == p.profile:
        return folder, ""
    for run in ("study", "real"):
        published = ROOT / "figures" / run / folder.name
        if (published / f"{stem}.csv").is_file():
            note = json.loads((published.parent / "run.json").read_text(encoding="utf-8"))
            made = note["stages"].get(folder.name, {})
            return published, f"Published run: {run}, {made.get('date', 'undated')}."
    return folder, f"This run: {p.profile}, tiny worlds, decides nothing."


def film(frames: np.ndarray, fps: float, title: str = "") -> None:
    """Show frames (T, H, W, 3) as a film that plays in the page."""
    from vlact.report.own import encode

    data = io.BytesIO()
    encode(data, iter(frames), *frames.shape[1:3], fps, WIDTH)
    coded = base64.b64encode(data.getvalue()).decode()
    player = f'<video controls loop muted src="data:video/mp4;base64,{coded}"></video>'
    line = f"{title}: {len(frames)} frames, {len(frames) / fps:.1f} s".removeprefix(": ")
    _display(Shown(f"<figure>{player}<figcaption>{escape(line)}</figcaption></figure>", line))


def segment(path: str | Path, start_s: float, end_s: float, title: str = "") -> None:
    """Show a piece of a video, at most `LONGEST_S` of it."""
    info = video.probe(path)
    rate, end_s = min(info.fps, FPS), min(end_s, start_s + LONGEST_S, info.duration_s)
    times = np.arange(start_s, max(end_s, start_s + 1 / rate), 1 / rate)
    film(video.read(path, video.nearest_frames(info, times), info), rate, title)


def browse(names: Sequence[str], look: Callable[[int], None]) -> None:
    """A list to choose from, and the first by itself, which is all that a stored page shows.

    Args:
        names: What can be chosen.
        look: Shows the one of a number.
    """
    with needs("a list to choose from in a notebook"):
        from ipywidgets import Dropdown, Output, VBox
    options = [(name, k) for k, name in enumerate(names)]
    choice, place = Dropdown(options=options, value=None, description="show"), Output()

    def show(change: dict) -> None:
        place.clear_output(wait=True)
        with place:
            look(change["new"])

    choice.observe(show, "value")
    _display(_Live(VBox([choice, place]), f"{len(names)} to choose from where this runs"))
    look(0)


class _Live:
    """A widget, and a line of text where no kernel runs."""

    def __init__(self, widget, line: str):
        self.widget, self.line = widget, line

    def _repr_mimebundle_(self, **given) -> dict:
        return self.widget._repr_mimebundle_(**given) | {"text/plain": self.line}
