"""What a notebook shows: whose table, films, and lists to choose from."""

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest

from vlact import params, video
from vlact.report import show, tables


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, in order."""
    out = []
    monkeypatch.setattr(show, "_display", out.append)
    return out


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published run of `study` with one table, and a run's folder with another of that name."""
    monkeypatch.setattr(show, "ROOT", tmp_path)
    home = tmp_path / "figures" / "study"
    tables.save(pd.DataFrame({"who": ["<b>"], "acc": [70.0]}), home / "s", "t", caption="Five.")
    (home / "run.json").write_text(json.dumps({"stages": {"s": {"date": "2026-01-02"}}}))
    own = tmp_path / "own" / "s"
    tables.save(pd.DataFrame({"who": ["mine"], "acc": [1.0]}), own, "t")
    return own


def test_a_notebook_by_itself_shows_the_published_table(published, shown):
    show.table(params.load("smoke", "scratch"), published, "t")
    page = shown[0]._repr_html_()
    assert "70.0" in page and "&lt;b&gt;" in page and "Published run: study, 2026-01-02." in page
    assert repr(shown[0]) == "t: 1 rows. Published run: study, 2026-01-02."


def test_a_stage_shows_its_own_table(published, shown):
    show.table(params.load("study", "study"), published, "t")
    assert "mine" in shown[0]._repr_html_() and repr(shown[0]) == "t: 1 rows."


def test_what_was_never_published_is_said_to_decide_nothing(published, shown):
    tables.save(pd.DataFrame({"who": ["mine"], "acc": [1.0]}), published, "new")
    show.table(params.load("smoke", "scratch"), published, "new", "absent")
    assert repr(shown[0]).endswith("This run: smoke, tiny worlds, decides nothing.")
    assert repr(shown[1]) == "absent: this run made no such table."


def frames_in(page: str) -> int:
    import av

    coded = page.split("base64,")[1].split('"')[0]
    with av.open(io.BytesIO(base64.b64decode(coded))) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_film_plays_in_the_page(shown):
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), dtype=np.uint8)
    show.film(frames, 3, "<i>")
    assert repr(shown[0]) == "<i>: 6 frames, 2.0 s" and "&lt;i&gt;" in shown[0]._repr_html_()
    assert frames_in(shown[0]._repr_html_()) == 6


def test_a_segment_is_cut_at_its_ends_and_at_the_longest(tmp_path, shown):
    frames = np.zeros((150, 32, 32, 3), np.uint8)
    video.write(tmp_path / "a.mp4", frames, 10)
    show.segment(tmp_path / "a.mp4", 1.0, 2.0)
    show.segment(tmp_path / "a.mp4", 2.0, 99.0)
    assert [frames_in(x._repr_html_()) for x in shown] == [10, 100]


def test_a_list_shows_the_first_and_then_what_is_chosen(shown):
    seen = []
    show.browse(["a", "b"], seen.append)
    assert seen == [0]
    bundle = shown[0]._repr_mimebundle_()
    assert bundle["text/plain"] == "2 to choose from where this runs" and len(bundle) > 1
    shown[0].widget.children[0].value = 1
    assert seen == [0, 1]
