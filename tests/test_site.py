"""The results site: complete, safe to build over an earlier one, and right in a real browser where
there is one.
"""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape

from vlact import ROOT, params, video
from vlact.report import site, tables

CHROMIUM = next(
    (x for x in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if x), None
)
PROFILE = "study"
WIDTHS = 360, 768, 1280, 1920
SCHEMES = {"light": 1, "dark": 0}  # Chromium's numbers of them
CHECK = """<!doctype html><link rel="icon" href="data:,"><body><script>
const pages = %s, widths = %s, found = [];
const until = (test) => new Promise((done) => { const t0 = Date.now(); (function ask() {
  if (test() || Date.now() - t0 > 60000) done(); else setTimeout(ask, 40); })(); });
const rgba = (text) => [...text.matchAll(/[\\d.]+/g)].map(Number);
const bright = ([r, g, b]) => [r, g, b].map((x) => x / 255)
  .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
  .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
(async () => {
  // notebooks at one width: what they show is not the site's
  const shown = (width) => pages.filter((x) => width === widths[0] || !x.includes("/"));
  for (const width of widths) for (const page of shown(width)) {
    const frame = document.createElement("iframe"), first = width === widths[0];
    frame.style = `width:${width}px;height:800px;border:0`;
    frame.src = page;
    document.body.replaceChildren(frame);
    await new Promise((done) => (frame.onload = done));
    const inside = frame.contentDocument, all = (x) => [...inside.querySelectorAll(x)];
    const style = (x) => frame.contentWindow.getComputedStyle(x);
    for (const x of all("details")) x.open = true;
    if (first) for (const image of all("img")) image.loading = "eager";
    const videos = first ? all("video") : [], images = first ? all("img") : [];
    for (const v of videos) v.play().catch(() => {});
    const plays = (x) => x.currentTime > 0;
    await until(() => images.every((x) => x.complete) && videos.every(plays));
    const behind = (x) => {
      for (; x; x = x.parentElement) {
        const back = rgba(style(x).backgroundColor);
        if (back.length < 4 || back[3] === 1) return back;
      }
      return [255, 255, 255];
    };
    const contrast = (x) => {
      const [a, b] = [rgba(style(x).color), behind(x)].map(bright).sort((a, b) => b - a);
      return (a + 0.05) / (b + 0.05);
    };
    const texts = page.includes("/") ? all("main > p, h1, nav a, footer")
      : all("p, h1, h2, a, th, td, small, summary, li, dt, dd, span, button, caption");
    found.push({ page, width, over: inside.documentElement.scrollWidth - width,
      cut: page.includes("/") ? [] : all(".scroll, .flow, .cite, main section, main ul")
        .filter((x) => x.scrollWidth > x.clientWidth + 1).map((x) => x.innerText.slice(0, 60)),
      faint: texts.filter((x) => x.innerText.trim() && contrast(x) < 4.5)
        .map((x) => x.innerText.slice(0, 40)),
      images: images.filter((x) => !x.naturalWidth).map((x) => x.src),
      videos: videos.filter((x) => !plays(x) || x.error).map((x) => x.src),
      played: videos.length, back: behind(inside.body),
      small: all("p, td, dd, li").filter((x) => parseFloat(style(x).fontSize) < 12).length,
      links: first ? all("a[href], link[href]").map((x) => x.href) : [] });
  }
  const answers = {};
  for (const link of new Set(found.flatMap((x) => x.links).map((x) => x.split("#")[0])))
    if (link.startsWith(location.origin)) answers[link] = (await fetch(link)).status;
  await fetch("/found", { method: "POST", body: JSON.stringify({ found, answers }) });
})();
</script></body>"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The committed results as a site, with one film of each kind, and the folder."""
    folder = tmp_path_factory.mktemp("site")
    p = params.load(PROFILE, PROFILE)
    (work := folder / "data" / PROFILE / "worlds" / "ata").mkdir(parents=True)
    frames = np.zeros((8, 64, 64, 3), np.uint8)
    frames[:, :, :32] = 200
    video.write(work / "p00.mp4", frames, 8)
    pd.DataFrame({"video": ["p00.mp4"]}).to_csv(work / "annotations.csv", index=False)

    class Here(type(p)):
        data = folder / "data" / PROFILE

    here = Here(**{f: getattr(p, f) for f in p.__dataclass_fields__})
    site.build(here, folder / "pages")
    return here, folder / "pages"


def test_every_item_of_the_results_map_is_there(built):
    p, folder = built
    for row in pd.read_csv(site.results_of(p) / "index.csv").itertuples():
        page = (folder / f"{row.paper}.html").read_text(encoding="utf-8")
        assert f'id="{row.item}"' in page, row.item
        for name in row.files.split():
            assert (folder / "figures" / name).read_bytes() == (
                site.results_of(p) / name
            ).read_bytes()
            assert name.split("/")[1].rsplit(".", 1)[0] in page or name.endswith(".md"), name


def test_numbers_of_a_table_stand_on_its_page(built):
    p, folder = built
    page = (folder / "transfer.html").read_text(encoding="utf-8")
    for row in pd.read_csv(
        site.results_of(p) / "transfer" / "transfer_table2.csv", dtype=str
    ).itertuples():
        number, spread = row.HM.split(" ", 1)
        wanted = f'data-of="model">{row.model}</td>.*?{number} <small>{spread}</small>'
        assert re.search(wanted, page, re.DOTALL), row.model


def test_the_start_page_plays_a_small_film_of_the_rendered_worlds(built):
    film = built[1] / "teaser.mp4"
    assert film.stat().st_size < 1_000_000
    info = video.probe(film)
    shown = video.read(film, [0, 40, 80], info).astype(float)
    assert info.duration_s == pytest.approx(8, abs=0.2) and shown.shape[1:] == (192, 588, 3)
    # each of the three worlds is there and moves
    for left in (0, 198, 396):
        part = shown[:, :, left : left + 192]
        assert part.std() > 10 and np.abs(np.diff(part, axis=0)).mean() > 2
    page = (built[1] / "index.html").read_text(encoding="utf-8")
    assert 'src="teaser.mp4" aria-label="Three rendered films' in page


def test_pages_ask_nobody_else(built):
    for path in built[1].rglob("*.html"):
        asked = re.findall(
            r'(?:src|href)="((?:https?:)?//[^"]+)"', path.read_text(encoding="utf-8")
        )
        loaded = re.findall(
            r'(?:src="|<link[^>]*href="|@import |url\()((?:https?:)?//[^")]+)',
            path.read_text(encoding="utf-8"),
        )
        assert not loaded, f"{path.name}: loads {loaded[:2]}, of {asked[:3]}"


def test_text_of_results_cannot_become_markup(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "notebooks", lambda *_: [])  # they take a while, and are built above
    p = params.load("smoke", "smoke")

    class Here(type(p)):
        figures, data = tmp_path / "figures", tmp_path / "data"

    here = Here(**{f: getattr(p, f) for f in p.__dataclass_fields__})
    files = tables.save(
        pd.DataFrame({"a": ["<script>alert(1)</script>"]}),
        here.figures / "s",
        "bad",
        caption="<b onclick=x>",
    )
    row = {
        "paper": "ace",
        "item": "table1",
        "title": "<img src=x>",
        "files": " ".join(f"s/{f}" for f in files),
        "notebook": "12_ace_results.ipynb",
        "stage": "s",
    }
    pd.DataFrame([row]).to_csv(here.figures / "index.csv", index=False)
    site.build(here, tmp_path / "site")
    page = (tmp_path / "site" / "ace.html").read_text(encoding="utf-8")
    assert (
        "<script>alert" not in page
        and "<b onclick" not in page
        and "<img src=x" not in page
        and "&lt;script&gt;alert" in page
    )


def test_a_run_of_few_seeds_says_so_and_a_missing_figure_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "notebooks", lambda *_: [])
    p = params.load("smoke", "smoke")

    class Here(type(p)):
        figures, data = tmp_path / "figures", tmp_path / "data"

    here = Here(**{f: getattr(p, f) for f in p.__dataclass_fields__})
    row = dict.fromkeys(site.RESULTS, "x") | {"paper": "ace", "files": "s/a.png"}
    here.figures.mkdir()
    pd.DataFrame([row]).to_csv(here.figures / "index.csv", index=False)
    wanted = (
        "index.csv: expected the file s/a.png, which is not there; run `make repro PROFILE=smoke`"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(wanted)):
        site.build(here, tmp_path / "site")
    assert not (tmp_path / "site").exists()
    (here.figures / "s").mkdir()
    (here.figures / "s" / "a.png").write_bytes(b"")
    page = site.build(here, tmp_path / "site").read_text(encoding="utf-8")
    assert f"{len(p.seeds)} seeds decide nothing" in page


EVIL = """# A title
<img src=x onerror=alert(1)> <svg onload=alert(1)><circle/></svg> [link](javascript:alert(1))
<a href=" java&#10;script:alert(1)">x</a> <a href="data:text/html,<script>alert(1)</script>">y</a>
<iframe src="https://elsewhere/"></iframe> <form action="https://elsewhere/"><input></form>
<style>@import "https://elsewhere/x.css"</style> <link rel=stylesheet href="https://elsewhere/y">
<base href="https://elsewhere/"> <img src="https://elsewhere/x.png"> <b onmouseover=alert(1)>z</b>

| a | b |
|---|---|
| 1 | 2 |
"""


def test_a_notebook_s_page_keeps_what_is_read_and_nothing_that_acts(tmp_path, monkeypatch):
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    outputs = [
        {"text/html": "<table><tr><td onclick='alert(1)'>7</td></tr></table><script>f()</script>"},
        {"image/svg+xml": "<svg onload='alert(1)'><circle r='3'/></svg>"},
        {"image/png": 'iVBORw0KGgo="><script>alert(2)</script>'},
        {"text/latex": "$x$ <img src=q onerror=alert(5)>"},
        {"application/javascript": "alert(4)"},
    ]
    cells = [new_markdown_cell(EVIL)]
    cells.append(new_code_cell("x = 1", outputs=[new_output("display_data", o) for o in outputs]))
    cells[0].metadata["tags"] = ['"><script>alert(7)</script>']
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "01_evil.ipynb")
    monkeypatch.setattr(site, "ROOT", tmp_path)
    pages = {}

    def write(name, template, body, **given):
        pages[name] = str(body)

    site.notebooks(params.load("smoke", "smoke"), tmp_path, write)
    page = pages["notebooks/01_evil.html"]
    tags = re.findall(r"<(\w+)([^>]*)>", page)
    assert {t for t, _ in tags} <= {*site.TAGS}
    for _, attributes in tags:
        names = set(re.findall(r"\s([\w-]+)=", re.sub(r'"[^"]*"', '""', attributes)))
        assert names <= {*site.ATTRIBUTES, "href", "src"}, attributes
    for place in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert place.startswith(("#", "data:image/")), place
    # what a reader came for is there
    assert re.search(r"<h1[^>]*>A title", page)
    assert "<td>7</td>" in page and "<td>2</td>" in page and "data:image/svg+xml;base64," in page


def test_every_page_lets_only_the_site_s_own_script_run(built):
    for path in built[1].rglob("*.html"):
        page = path.read_text()
        policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page)[
            1
        ]
        rules = {r.split()[0]: r.split()[1:] for r in policy.split(";")}
        assert rules["default-src"] == ["'none'"] and "unsafe" not in policy
        assert rules["script-src"] == ["'self'", "file:"]
        # before anything that it is to rule
        assert page.index("Content-Security-Policy") < page.index("<link")
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", page.split("<main")[0])


@pytest.mark.parametrize("name", ["../../secret.txt", "/etc/passwd", "a/../b.csv"])
def test_the_results_map_names_files_of_its_folder_only(name, tmp_path):
    row = dict.fromkeys(site.RESULTS, "x") | {"files": f"a/fine.csv {name}"}
    pd.DataFrame([row]).to_csv(tmp_path / "index.csv", index=False)
    with pytest.raises(ValueError, match=r"index.csv: files: expected <stage>/<name>; got"):
        site.results(tmp_path / "index.csv")
    pd.DataFrame({"paper": ["ace"]}).to_csv(tmp_path / "index.csv", index=False)
    with pytest.raises(ValueError, match=r"index.csv: expected the columns .* missing \['item'"):
        site.results(tmp_path / "index.csv")


def test_a_table_of_videos_names_files_of_its_folder_only(tmp_path):
    p = params.load("smoke", "smoke")

    class Here(type(p)):
        data = tmp_path / "data"

    here = Here(**{f: getattr(p, f) for f in p.__dataclass_fields__})
    (folder := here.data / "worlds" / "ata").mkdir(parents=True)
    (tmp_path / "data" / "secret.txt").write_text("x")
    pd.DataFrame({"video": ["../../secret.txt"]}).to_csv(folder / "annotations.csv", index=False)
    with pytest.raises(ValueError, match=r"annotations.csv: expected a video in its folder"):
        site.videos(here, tmp_path / "site")


def test_a_table_s_text_is_no_markup():
    table = pd.DataFrame(
        {
            "a|b": ["<img src=x onerror=f()>", "[x](javascript:f())", "two\nlines | and"],
            "n": "1 < 2",
        }
    )
    found = tables.markdown(table)
    assert "<img" not in found and "](" not in found and "1 < 2" in found
    assert len(found.splitlines()) == 5
    assert all(len(re.findall(r"(?<!\\)\|", x)) == 3 for x in found.splitlines())
    said = tables.tex(r"\input{/etc/passwd} $x^2$ ~")
    assert r"\textbackslash{}input\{/etc/passwd\} \$x\textasciicircum{}2\$" in said


def test_a_caption_stays_in_its_comment(tmp_path):
    tables.save(pd.DataFrame({"a": ["1"]}), tmp_path, "t", caption="one\n\\input{x}")
    last = (tmp_path / "t.tex").read_text().split("\\end{tabular}\n")[1]
    assert all(line.startswith("%") for line in last.splitlines())


def test_an_earlier_site_is_replaced_and_nothing_else(built, tmp_path, monkeypatch):
    monkeypatch.setattr(site, "notebooks", lambda *_: [])
    p, folder = built
    again = tmp_path / "site"
    shutil.copytree(folder, again)
    (again / "old.html").write_text("old", encoding="utf-8")
    assert site.build(p, again) == again / "index.html" and not (again / "old.html").exists()
    (other := tmp_path / "mine").mkdir()
    (other / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(
        ValueError, match="mine: expected an earlier site or nothing, found other files"
    ):
        site.build(p, other)
    assert (other / "thesis.tex").read_text(encoding="utf-8") == "x" and not list(
        tmp_path.glob(".*")
    )
    with pytest.raises(
        FileNotFoundError,
        match=r"index.csv: no results of profile 'paper'; run `make repro PROFILE=paper` first",
    ):
        site.build(replace(params.load("paper", "paper")), tmp_path / "none")


def test_each_paper_has_its_title_authors_links_abstract_method_claims_and_bibtex(built):
    for paper, said in site.papers().items():
        page = (built[1] / f"{paper}.html").read_text(encoding="utf-8")
        if said["title"]:
            for text in (said["title"], said["authors"], said["about"], *said["links"].values()):
                assert str(escape(text.strip())) in page, text
            assert page.count("<li><b>") == len(said["steps"]) and said["bibtex"][:12] in page
            assert 'class="verdict"' in page and "<b>" in page.split('id="table1"')[1]


def browse(folder, names, scheme, place):
    """What the pages measure of themselves in a real browser, and what it wrote to its console."""
    done, said = threading.Event(), {}

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/check.html":
                super().do_GET()
                return
            page = (CHECK % (json.dumps(names), json.dumps(WIDTHS))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page)

        def do_POST(self):
            said.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=folder)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = "headless=new no-sandbox disable-gpu no-first-run disable-background-networking "
    options += f"mute-audio enable-logging=stderr user-data-dir={place} "
    options += f"autoplay-policy=no-user-gesture-required window-size={max(WIDTHS)},1000 "
    options += f"blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    address = f"http://127.0.0.1:{server.server_port}/check.html"
    # whoever runs this may have no home, and a TMPDIR that is another's
    places = os.environ | {"HOME": str(place), "TMPDIR": tempfile.gettempdir()}
    log = place / "log"
    with open(log, "w", encoding="utf-8") as stderr:
        command = [CHROMIUM, *(f"--{x}" for x in options.split()), address]
        browser = subprocess.Popen(command, stderr=stderr, env=places)
        finished = done.wait(600)
        browser.kill()
        browser.wait()
    server.shutdown()
    written = log.read_text(encoding="utf-8")
    assert finished, written[-2000:]
    return said, [x for x in written.splitlines() if "CONSOLE" in x]


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_in_a_real_browser(built, tmp_path, scheme):
    """No console message, every image, video and link loads, nothing cut off from a phone to a wide
    screen, nothing faint and no small print, in light and in dark.
    """
    folder = built[1]
    names = sorted(str(x.relative_to(folder)) for x in folder.rglob("*.html"))
    if scheme == "dark":  # notebooks are seen in light
        names = [x for x in names if "/" not in x]
    said, console = browse(folder, names, scheme, tmp_path)
    assert not console, console[:5]
    for x in said["found"]:
        where = f"{x['page']} at {x['width']} px"
        missing = x["images"] + x["videos"]
        assert not missing, f"{where}: did not load {missing}"
        assert x["over"] <= 0, f"{where}: {x['over']} px too wide"
        assert not x["cut"], f"{where}: cut off {x['cut'][:3]}"
        assert not x["faint"], f"{where}: hard to see {x['faint'][:5]}"
        assert x["small"] == 0, f"{where}: {x['small']} texts under 12 px"
        assert (sum(x["back"][:3]) > 600) == (scheme == "light"), f"{where}: {x['back']}"
    assert sum(x["played"] for x in said["found"]) >= 2
    wrong = [k for k, v in said["answers"].items() if v != 200]
    assert len(said["answers"]) > 100 and not wrong, wrong


def test_pages_show_the_verdicts_of_later_rules_where_there_are_some(tmp_path):
    shown = site.claims(ROOT / "figures" / "study")
    shutil.copytree(ROOT / "figures" / "study" / "claims", tmp_path / "claims")
    before = site.claims(tmp_path)
    assert {c["now"] for c in before} == {c["verdict"] for c in before}
    assert not any(c["before"] for c in before)
    later = pd.DataFrame({"id": [c["id"] for c in before], "verdict": "holds", "reason": "why"})
    later.to_csv(tmp_path / "rules.csv", index=False)
    after = site.claims(tmp_path)
    assert {c["now"] for c in after} == {"holds"} and len(after) == len(shown)
    moved = [c for c in after if c["before"] != "holds"]
    assert moved and all((site.UNDER_RULES, "holds; why") in c["more"] for c in moved)
