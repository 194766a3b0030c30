"""`make site`: every table, figure, claim, video and notebook of a profile as static pages that
work offline.

Nothing is computed here: the pages show what `make repro` left in data/<profile>/figures, else the
published results in figures/<profile>; videos of data/<profile> where they are on this machine; and
the notebooks as the pipeline executed them, else as they are committed.

None of it is trusted. Results are text and are escaped; of a notebook only the tags below are kept;
no path leaves its folder; and the pages' policy lets a browser run no script but the site's own.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import yaml

from vlact import ROOT
from vlact.params import Params, load
from vlact.report import layout, teaser
from vlact.report.tables import caption_of, read, write_text

RESULTS = ("paper", "item", "title", "files", "notebook", "stage")  # columns of the results map
TAGS = (  # that a notebook's page may have
    "a b blockquote br code dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 hr i "
    "img li ol p pre s span strong sub summary sup table tbody td tfoot th thead tr ul"
).split()
ATTRIBUTES = {"alt", "class", "colspan", "id", "rowspan", "title"}
LINK = re.compile(r"https?://\S+|mailto:\S+|(?!//)[\w./-]*(#\S*)?")
PICTURE = re.compile(r"data:image/(png|jpeg|gif|svg\+xml);base64,[A-Za-z0-9+/=\s]+")
FIRST = 3  # recordings shown of each world
UNFOLDED = 36  # rows of a table
PAGES = Path(__file__).parent / "pages"
STYLES = ("default", "github-dark")  # of code, in light and in dark


def papers() -> dict[str, dict]:
    """What the pages say of each paper, in the order of the pages."""
    told = yaml.safe_load((PAGES / "papers.yaml").read_text(encoding="utf-8"))
    words = "title", "authors", "venue", "question", "headline", "about", "bibtex"
    blank = dict.fromkeys(words, "")
    return {paper: blank | said for paper, said in told.items()}


def results_of(p: Params) -> Path:
    """Where a profile's tables and figures lie: those of a run here, else the published ones."""
    published = ROOT / "figures" / p.profile
    here = (p.figures / "index.csv").is_file()
    return published if not here and published.is_dir() else p.figures


def build(p: Params, out: Path) -> Path:
    """Write the pages of a profile to `out`, which is replaced as a whole.

    Returns:
        The start page.

    Raises:
        FileNotFoundError: The profile has no figures yet.
        ValueError: `out` holds something that is no site.
    """
    index = results_of(p) / "index.csv"
    if not index.is_file():
        raise FileNotFoundError(
            f"{index}: no results of profile {p.profile!r}; run `make repro PROFILE={p.profile}` "
            "first"
        )
    if out.exists() and not (out / "site.css").is_file():
        raise ValueError(
            f"{out}: expected an earlier site or nothing, found other files; choose another folder"
        )
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        pages(p, results(index), fresh)
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return out / "index.html"


def results(index: Path) -> pd.DataFrame:
    """The results map.

    Raises:
        ValueError: A column that is not there, or a file that is not in the map's folder.
    """
    table = pd.read_csv(index, dtype=str, keep_default_na=False)
    if missing := [c for c in RESULTS if c not in table]:
        raise ValueError(f"{index}: expected the columns {RESULTS}; missing {missing}")
    for files in table["files"]:
        for name in files.split():
            if not re.fullmatch(r"\w[\w-]*/\w[\w.-]*", name):
                raise ValueError(f"{index}: files: expected <stage>/<name>; got {name!r}")
    return table


def inside(folder: Path, name: str, path: Path) -> Path:
    """A file of a folder, which a table names.

    Raises:
        ValueError: The name leads out of the folder; says which table has it.
    """
    found = Path(os.path.normpath(folder / name))
    if not found.is_relative_to(os.path.normpath(folder)):
        raise ValueError(f"{path}: expected a video in its folder; got {name!r}")
    return found


def pages(p: Params, index: pd.DataFrame, out: Path) -> None:
    """Write every page of the site."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    told = papers()
    nav = [("index.html", "Home"), *((f"{k}.html", v["short"]) for k, v in told.items())]
    nav += [("claims.html", "Claims"), ("videos.html", "Videos")]

    def write(name: str, template: str, **given) -> None:
        frame = {"root": "../" * name.count("/"), "here": name, "nav": nav, "profile": p.profile}
        frame["note"] = (
            ""
            if len(p.seeds) >= layout.FEWEST_SEEDS
            else (f"{len(p.seeds)} seeds decide nothing: this run shows that everything works.")
        )
        write_text(out / name, made.get_template(template).render(frame | given))

    look = (PAGES / "site.css").read_text(encoding="utf-8") + code_style()
    write_text(out / "site.css", look)
    write_text(out / "site.js", (PAGES / "site.js").read_text(encoding="utf-8"))
    (out / "figures").mkdir()
    for name in sorted({f for files in index["files"] for f in files.split()}):
        if not (results_of(p) / name).is_file():
            raise FileNotFoundError(
                f"{results_of(p) / 'index.csv'}: expected the file {name}, which is not there; run "
                f"`make repro PROFILE={p.profile}`"
            )
        (to := out / "figures" / name).parent.mkdir(exist_ok=True)
        shutil.copy(results_of(p) / name, to)

    books, ledger = notebooks(p, out, write), claims(results_of(p))
    films = videos(p, out)
    teaser.write(out / "teaser.mp4")
    for paper, said in told.items():
        items = [item(results_of(p), row) for row in index[index["paper"] == paper].itertuples()]
        mine = [c for c in ledger if c["paper"] == paper]
        write(
            f"{paper}.html",
            "results.html",
            title=said["short"],
            said=said,
            items=items,
            ledger=mine,
            later=LATER if any(c["before"] for c in mine) else "",
        )
    names = {k: v["short"] for k, v in told.items()}
    if ledger:
        counts = pd.Series([c["verdict"] for c in ledger]).value_counts()
        write(
            "claims.html",
            "claims.html",
            title="Claims",
            ledger=ledger,
            counts=list(counts.items()),
            papers=names,
            caption=caption_of(results_of(p) / "claims" / "claims.md"),
        )
    else:
        write("claims.html", "page.html", title="Claims", body="The ledger is not made yet.")
    write("videos.html", "videos.html", title="Videos", groups=films)
    count = pd.DataFrame(ledger, columns=["paper", "now"]).groupby(["paper", "now"]).size()
    write(
        "index.html",
        "home.html",
        title="Results",
        papers=told,
        items=index["paper"].value_counts().to_dict(),
        film=teaser.ABOUT,
        verdicts=count.unstack(fill_value=0) if len(count) else None,
        claims=len(ledger),
        notebooks=books,
    )


def code_style() -> str:
    """Colours of code in notebooks, light and dark."""
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=s).get_style_defs(".highlight") for s in STYLES)
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def claims(folder: Path) -> list[dict]:
    """The ledger's rows for the templates; none where it is not made yet."""
    path, later = folder / "claims" / "claims.csv", folder / "rules.csv"
    if not path.is_file():
        return []
    rows = [claim(row) for row in pd.read_csv(path, keep_default_na=False).to_dict("records")]
    if later.is_file():  # see `vlact.tools.rejudge`
        now = pd.read_csv(later, keep_default_na=False).set_index("id")
        for row in rows:
            row |= {"now": now["verdict"][row["id"]], "before": row["verdict"]}
            if row["now"] != row["verdict"]:
                row["more"] += [(UNDER_RULES, f"{row['now']}; {now['reason'][row['id']]}")]
    return rows


UNDER_RULES = "under today's rules, with what ran since"
LATER = f"Verdicts {UNDER_RULES}; the ledger has those of this run's first version beside them."
MORE = {  # columns of the ledger beside verdict and parts, by what they are called
    "size": "size",
    "why": "no verdict because",
    "detects": "smallest effect found",
    "real verdict": "on real video",
    "real size": "its size there",
    "published tables": "the paper's own tables",
}


def claim(row: dict) -> dict:
    """A row of the ledger, as the template wants it."""
    name = row["notebook"]
    return (
        {"now": row["verdict"], "before": ""}
        | {k: row[k] for k in ("id", "paper", "place", "claim", "verdict", "section")}
        | {
            "published": row["published effect"],
            "more": [
                (MORE[k], row[k]) for k in MORE if row.get(k, "–") not in ("", "–", row["ours"])
            ],
            # parts are set apart by semicolons, but not those inside an interval
            "ours": re.split(r"; (?=[^\[\]]*:)", row["ours"]),
            "notebook": f"notebooks/{Path(name).stem}.html" if name else "",
            "notebook_name": name,
        }
    )


def item(folder: Path, row) -> dict:
    """A row of the results map, as the template wants it."""
    files = row.files.split()
    stems: dict[str, set[str]] = {}
    for file in files:
        stems.setdefault(str(Path(file).with_suffix("")), set()).add(Path(file).suffix)
    name = (
        re.sub(r"^(table|figure)", lambda m: m[1].capitalize() + " ", row.item)
        if row.paper != "beyond"
        else ""
    )
    found = {
        "id": row.item,
        "name": name,
        "title": row.title,
        "stage": row.stage,
        "notebook_name": row.notebook,
    }
    found |= {
        "notebook": f"notebooks/{Path(row.notebook).stem}.html",
        "pictures": [],
        "tables": [],
        "captions": [],
    }
    found["downloads"] = [
        {"link": f"figures/{f}", "name": Path(f).name}
        for f in files
        if not f.endswith((".png", ".md"))
    ]
    for stem, kinds in stems.items():
        if ".png" in kinds:
            found["pictures"].append(f"figures/{stem}.png")
            found["captions"].append(layout.said(caption_of(folder / f"{stem}.md")))
        elif ".csv" in kinds:
            found["tables"].append(table(folder, stem))
    return found


def table(folder: Path, stem: str) -> dict:
    """A csv as it is read, see `vlact.report.layout`, and what it says."""
    from markupsafe import Markup

    blocks, head, findings = read(folder, stem)
    sizes = pd.Series([len(b.table) for b in blocks], dtype=int)
    return {
        "name": Path(stem).name,
        # what is seen before anything is unfolded
        "first": max(1, int((sizes.cumsum() <= UNFOLDED).sum())),
        "blocks": [Markup(layout.html(b)) for b in blocks],  # nosec B704: `html` escapes
        "caption": head,
        "findings": findings,
    }


def notebooks(p: Params, out: Path, write) -> list[tuple[str, str]]:
    """Notebooks as pages; returns their links and titles."""
    import nbformat
    from markupsafe import Markup
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True
    )
    exporter.log.setLevel("ERROR")  # it asks for alternative texts of plots
    found = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        executed = ROOT / "data" / "executed" / f"{p.workspace}-{path.name}"
        book = nbformat.read(executed if executed.is_file() else path, as_version=4)
        title = next(
            (
                x.lstrip("# ")
                for c in book.cells
                for x in c.source.splitlines()
                if x.startswith("# ")
            ),
            path.stem,
        )
        body, _ = exporter.from_notebook_node(book)
        body = re.sub(r'href="(\w+)\.ipynb', r'href="\1.html', harmless(body))
        link = f"notebooks/{path.stem}.html"
        # `harmless` has left nothing that acts
        body = Markup(f'<div class="notebook">{body}</div>')  # nosec B704
        write(link, "page.html", title=title, body=body)
        found.append((link, title))
    return found


def harmless(body: str) -> str:
    """HTML with `TAGS` alone, links that go somewhere and pictures that are in it."""
    import bleach

    def kept(tag: str, name: str, value: str) -> bool:
        if tag == "a" and name == "href":
            return bool(LINK.fullmatch(value))
        if tag == "img" and name == "src":
            return bool(PICTURE.fullmatch(value))
        return name in ATTRIBUTES

    # what a script or a style says is nothing to read
    body = re.sub(r"<(script|style)\b.*?</\1\s*>", "", body, flags=re.DOTALL | re.IGNORECASE)
    protocols = ("http", "https", "mailto", "data")
    return bleach.clean(body, tags=TAGS, attributes=kept, protocols=protocols, strip=True)


def videos(p: Params, out: Path) -> list[tuple[str, list[dict]]]:
    """Samples of every world on this machine, copied to the site: group, and link and label of
    each.
    """
    wanted = {}
    for name in ("ata", "ikea", "gtea"):
        path = p.data / "worlds" / name / "annotations.csv"
        if path.is_file():
            first = pd.read_csv(path)["video"].drop_duplicates().head(FIRST)
            wanted[f"{name.upper()} in miniature"] = [
                (inside(path.parent, v, path), f"recording {v}") for v in first
            ]
    if (truth := p.data / "stadium" / "ground_truth.json").is_file():
        from vlact.datasets import activitynet

        first = (
            activitynet.ground_truth(truth, "test")
            .drop_duplicates("label")
            .sort_values("label", kind="stable")
        )
        wanted["Stadium"] = [
            (inside(truth.parent, r.video, truth), r.label) for r in first.itertuples()
        ]
    if (p.data / "synta" / "realistic").is_dir():
        from vlact.datasets import transfer as lists
        from vlact.language.motions import taxonomy

        classes = taxonomy("Syn-TA")
        folder = p.data / "synta" / "realistic"
        clips = lists.clips(p.data / "synta", classes, folder)
        clips = clips[clips["part"] == "val"].merge(
            classes[["set", "fine_id", "coarse", "fine"]], on=["set", "fine_id"]
        )
        for which, part in clips.groupby("set"):
            first = part.drop_duplicates("coarse").sort_values("coarse", kind="stable")
            wanted[f"Syn-TA, set {which}"] = [
                (inside(folder, r.video, p.data / "synta"), f"{r.coarse}: {r.fine}")
                for r in first.itertuples()
            ]
    groups = []
    for k, (group, found) in enumerate(wanted.items()):
        shown = []
        for i, (path, label) in enumerate(found):
            if path.is_file():
                (out / "videos").mkdir(exist_ok=True)
                shutil.copy(path, out / "videos" / f"{k}-{i}.mp4")
                shown.append({"link": f"videos/{k}-{i}.mp4", "label": label})
        groups += [(group, shown)] if shown else []
    return groups


def main(arguments: list[str]) -> int:
    profile = arguments[0] if arguments else "mini"
    try:
        print(build(load(profile, profile), ROOT / "site"))
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
