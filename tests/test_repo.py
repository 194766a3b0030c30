"""What holds for the repository as a whole."""

import importlib
import json
import re
import subprocess
import sys
import tomllib

import numpy as np
import pandas as pd
import pytest
import yaml

import vlact
from vlact import ROOT, params
from vlact.report import figures, layout, published, tables
from vlact.runtime import code
from vlact.stages import Stage
from vlact.tools import dag, docs, notebooks, results_map

TRACKED = [
    f
    for f in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    if f
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(notebook, kind="code"):
    return [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == kind]


# Environment
def test_environment_file_follows_from_project_and_lock():
    assert (ROOT / "environment.yml").read_text() == docs.environment(), "run `make lock`"


def test_every_dependency_is_locked_with_hashes_and_installed():
    from importlib.metadata import version

    from packaging.requirements import Requirement

    lock = (ROOT / "requirements.lock").read_text()
    pinned = yaml.safe_load(docs.environment())["dependencies"][-1]["pip"]
    for line in pinned[:-1]:
        found = Requirement(line)
        entry = rf"(?mi)^{re.escape(line.split(';')[0].strip())}.*\\\n +--hash=sha256:"
        assert re.search(entry, lock), line
        here = found.marker is None or found.marker.evaluate()
        if here and found.name != "decord":
            installed = version(found.name).split("+")[0]
            assert installed in found.specifier, f"{line}: installed {installed}"
    named = {Requirement(line).name.lower().replace(".", "-") for line in pinned[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    direct = {Requirement(x).name.lower().replace(".", "-") for x in asked} - {"vlact"}
    assert {x.replace("_", "-") for x in direct} <= {x.replace("_", "-") for x in named}


def test_no_registry_host_or_machine_path_in_tracked_files():
    hosts = [
        "files.python" + "hosted.org",
        "pypi" + ".org",
        "download." + "pytorch.org",
        "file" + "://",
    ]
    homes = re.compile(r"(^|[^A-Za-z0-9_.])/(ro" + r"ot|ho" + r"me|Us" + r"ers)/[A-Za-z0-9_.-]+")
    for name in TRACKED:
        if name.endswith((".png", ".safetensors")) or not (ROOT / name).is_file():
            continue
        text = (ROOT / name).read_text(errors="replace")
        found = [h for h in hosts if h in text] + [m[0] for m in homes.finditer(text)][:1]
        assert not found, f"{name}: {found}"


def test_importing_vlact_imports_nothing_heavy():
    heavy = "('torch', 'transformers', 'decord')"
    code = "import sys, vlact, vlact.params, vlact.schema\n"
    code += f"print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "[]"
    listing = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import vlact"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "torch" not in listing


def test_results_notebooks_never_need_torch():
    rooms = "metrics.selection, vlact.metrics.concepts, vlact.report.figures"
    rooms += ", vlact.report.tables, vlact.report.published"
    code = f"import sys, vlact.{rooms}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# The house
def test_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "vlact.__version__"}
    assert vlact.__version__ == str(citation["version"])
    assert len(citation["references"]) == 3
    assert f"## {vlact.__version__}" in (ROOT / "CHANGELOG.md").read_text()


# Notebooks
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_executed_and_normalised(notebook):
    raw = notebook.read_text()
    code = cells(notebook)
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1)), (
        "run `make execute`"
    )
    assert sum(bool(c["outputs"]) for c in code) >= 2
    normal = (
        json.dumps(
            notebooks.normalise(json.loads(raw)), indent=1, sort_keys=True, ensure_ascii=False
        )
        + "\n"
    )
    assert raw == normal


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_keeps_the_house_rules(notebook):
    prose = ["".join(c["source"]) for c in cells(notebook, "markdown")]
    first, answer = prose[0], prose[-1]
    assert (
        re.match(rf"# {notebook.stem[:2]} · ", first)
        and re.search(r"\*\*Question\*\* [^|]+\?", first)
        and "**Cost**" in first
    )
    last = json.loads(notebook.read_text())["cells"][-1]
    assert "".join(last["source"]) == answer and answer.startswith("**Answer** ")
    assert len(layout.sentences(answer)) == 1 and len(answer.split()) <= layout.MOST_WORDS
    parameters = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    assert len(parameters) == 1
    assert "".join(parameters[0]["source"]).startswith('profile = "smoke"\nworkspace = "scratch"')
    for cell in cells(notebook):
        source = "".join(cell["source"])
        assert (
            len(source) <= 40 * 80  # forty full lines, however they are wrapped
            and "class " not in source.split("\n")[0]
            and "%pip" not in source
            and "pyplot" not in source  # drawings are functions, measured in test_figures.py
        )
        assert "nbval-skip" not in cell["metadata"].get("tags", [])


def test_code_of_a_notebook_ignores_prose_and_outputs(tmp_path):
    notebook = json.loads(NOTEBOOKS[0].read_text())
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps(notebook))
    before = notebooks.code_of(path)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = ["other prose"]
        else:
            cell["outputs"], cell["execution_count"] = [], 99
    path.write_text(json.dumps(notebook))
    assert notebooks.code_of(path) == before
    next(c for c in notebook["cells"] if c["cell_type"] == "code")["source"] = ["x = 1"]
    path.write_text(json.dumps(notebook))
    assert notebooks.code_of(path) != before


# The pipeline
def test_make_runs_every_notebook_after_those_that_it_reads():
    """Lanes of a line run beside each other, lines after each other."""
    lines = re.findall(r"(?m)^\t\$\(call NBVAL.*", (ROOT / "Makefile").read_text())
    lanes = [re.findall(r"NBVAL,([\d ]+)\)", line) for line in lines]
    graph, stage_of = dag.graph("mini") | dag.graph("real"), notebooks.stage_of()
    number = {stage: name[:2] for name, stage in stage_of.items()}
    before: set[str] = set()
    for line in lanes:
        for lane in line:
            done = set(before)
            for one in lane.split():
                stage = next(s for s in graph if number.get(dag.short(s)) == one)
                reads = {number.get(dag.short(x)) for x in graph[stage]} - {None}
                assert reads <= done, f"notebook {one} reads {reads - done}, which come later"
                done.add(one)
        before |= {one for lane in line for one in lane.split()}
    assert before == {n.stem[:2] for n in NOTEBOOKS}


def test_graph_lists_every_notebook():
    stages = yaml.safe_load((ROOT / dag.GRAPH).read_text())["stages"]
    assert set(notebooks.stage_of()) == {n.stem for n in NOTEBOOKS}
    for name, stage in notebooks.stage_of().items():
        assert f"code/{name}.py" in stages[stage]["deps"]
        assert stages[stage]["cmd"].split() == ["${run}", name, "${item.p}"]


def test_the_graph_is_short_and_every_stage_knows_its_parameters():
    """A stage's own key is made of sections of the parameters: DVC must watch them, or those before
    it must, whose data then changes.
    """
    text = (ROOT / dag.GRAPH).read_text()
    assert len(text.splitlines()) <= 280
    stages, keys = yaml.safe_load(text)["stages"], {}
    for file in (ROOT / "vlact" / "stages").glob("[a-z]*.py"):
        module = importlib.import_module(f"vlact.stages.{file.stem}")
        mine = [x for x in vars(module).values() if isinstance(x, Stage)]
        keys |= {x.name: x for x in mine if x.module == module.__name__}
    graph = dag.graph("mini") | dag.graph("real")
    after = {dag.short(k): set(map(dag.short, v)) for k, v in graph.items()}

    def watched(stage):
        own = {
            x.split(".")[-1]
            for file in stages[stage].get("params", ())
            for x in file["../params.yaml"]
        }
        return own.union(*(watched(before) for before in after[stage]))

    names = {"ace": "ace_train", "language_size": "arena"}
    for name, stage in keys.items():
        missing = set(stage.sections) - watched(names.get(name, name))
        assert not missing, f"data/dvc.yaml, {name}: parameters {missing} are not watched"


def test_plain_dvc_repro_makes_the_default_profile_and_no_other():
    default = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert list(default) == ["mini"] and default["mini"]["deps"] == ["data/mini/figures/index.csv"]
    graph = yaml.safe_load((ROOT / dag.GRAPH).read_text())
    assert graph["stages"]["index"]["outs"][0] == "${item.p}/figures/index.csv"
    assert {*graph["vars"][0]["profiles"], "real"} == set(params.PROFILES)


def library(name: str) -> set[str]:
    (notebook,) = (n for n in NOTEBOOKS if n.stem.endswith(name))
    return {str(f.relative_to(ROOT)) for f in code.library(notebooks.code_of(notebook))}


def test_a_notebook_depends_on_all_that_it_imports_and_names():
    assert {"vlact/models/nms.py", "tests/reference/nms_slow.py"} <= library("speed")
    transfer = library("31_transfer")
    assert {f"vlact/models/zoo/{n}.py" for n in ("x3d", "froster", "cir")} | {
        "vlact/stages/transfer.py",
        "vlact/video/decode.py",
    } <= transfer
    assert {"vlact/language/motions.csv", "vlact/report/published/transfer_table2.csv"} <= transfer
    assert not transfer & {
        "vlact/papers/actionvlm/alignment.py",
        "vlact/models/nms.py",
        "vlact/params.py",
        "vlact/runtime/jobs.py",
        "vlact/runtime/forkserver.py",
        "vlact/report/site.py",
    }
    assert "tests/reference/ace_naive.py" in library(
        "ace_training"
    ) and "vlact/language/trees/gtea_manual.yaml" in library("trees")


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """A project of a few files: `one` imports `deep.two`, which names a csv."""
    files = {
        "one.py": "def f():\n    from vlact.deep import two\n",
        "deep/__init__.py": "",
        "deep/two.py": "NAME = 'words'\n",
        "words.csv": "a\n",
        "other.csv": "",
    }
    (tmp_path / "vlact" / "deep").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "vlact" / name).write_text(text)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    cached = [code._source, code._files_of, code._data_files, code.module_hash]

    def forget():
        for function in cached:
            function.cache_clear()

    forget()
    yield tmp_path / "vlact", forget
    forget()


def test_what_code_depends_on_is_found_by_its_imports(small_library):
    folder, _ = small_library
    found = [f.relative_to(folder).as_posix() for f in code.library("import vlact.one")]
    assert found == ["deep/__init__.py", "deep/two.py", "one.py", "words.csv"]


def test_prose_and_layout_change_no_key_but_meaning_and_data_do(small_library):
    folder, forget = small_library

    def key():
        forget()
        return code.module_hash("vlact.one")

    first, two = key(), folder / "deep" / "two.py"
    two.write_text('"""What it is."""\n\nNAME  =  "words"  # a comment\n')
    assert key() == first
    two.write_text("NAME = 'words'\nMORE = 1\n")
    assert key() != first
    two.write_text("NAME = 'words'\n")
    assert key() == first
    (folder / "words.csv").write_text("b\n")
    assert key() != first


def test_one_line_of_a_truth_writer_runs_the_stage_again(tmp_path, monkeypatch):
    """The stadium writes its ground truth through vlact/datasets/activitynet.py."""
    import shutil

    from vlact.stages.stadium import STADIUM

    shutil.copytree(ROOT / "vlact", tmp_path / "vlact", ignore=shutil.ignore_patterns("*.pyc"))
    monkeypatch.setattr(code, "ROOT", tmp_path)
    p = params.load("smoke")

    def key():
        for function in (code._source, code._files_of, code._data_files, code.module_hash):
            function.cache_clear()
        return STADIUM.key(p)

    before, writer = key(), tmp_path / "vlact" / "datasets" / "activitynet.py"
    text = writer.read_text()
    writer.write_text(text.replace("def write_ground_truth", "NEW = 1\n\n\ndef write_ground_truth"))
    changed = key()
    writer.write_text(text)
    assert key() == before != changed
    monkeypatch.undo()
    key()


def test_stage_minutes_name_the_stages_in_order():
    graph = list(yaml.safe_load((ROOT / dag.GRAPH).read_text())["stages"])
    minutes = yaml.safe_load((ROOT / "params.yaml").read_text())["stage_minutes"]
    for profile in ("smoke", "mini", "study"):
        assert [s for s in graph if s in minutes[profile]] == list(minutes[profile])


# Results
@pytest.mark.parametrize("profile", docs.PUBLISHED)
def test_results_map_is_complete_and_true(profile):
    folder = ROOT / "figures" / profile
    table = pd.read_csv(folder / "index.csv")
    assert list(table.columns) == results_map.COLUMNS
    graph = yaml.safe_load((ROOT / dag.GRAPH).read_text())["stages"]
    mapped = set()
    for row in table.itertuples():
        assert row.paper in results_map.PAPERS and row.stage in graph
        assert (ROOT / "notebooks" / row.notebook).is_file()
        assert all(f.startswith(f"{row.stage}/") for f in row.files.split())
        mapped |= set(row.files.split())
    files = {f.relative_to(folder).as_posix() for f in folder.glob("*/*") if f.is_file()}
    assert mapped == {f for f in files if not f.endswith("/map.json")}
    assert not table.duplicated(["paper", "item"]).any()
    made = json.loads((folder / "run.json").read_text())["stages"]
    assert set(made) == set(table["stage"]) and all(x["commit"] for x in made.values())
    assert (folder / "README.md").read_text() == docs.results_page(profile), "run `make docs`"


def test_only_published_runs_are_committed():
    there = {f.split("/")[1] for f in TRACKED if f.startswith("figures/")}
    assert there <= {
        *docs.PUBLISHED,
        "questions.png",
        "smoke.csv",
        "bench.csv",
        "gpu.csv",
    }  # for `make verify`, speed
    imports = {f for f in TRACKED if f.startswith("data/sources/") and f.endswith(".dvc")}
    assert (
        not {f for f in TRACKED if f.startswith("data/")}
        - imports
        - {
            "data/README.md",
            "data/dvc.yaml",
            "data/dvc.lock",
        }
    )


def test_publishing_copies_a_run_and_says_where_it_was_made(tmp_path, monkeypatch):
    from vlact.tools import provenance, publish

    for module in (publish, provenance, docs):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "docs", lambda: None)
    assert publish.publish("study") == 2 and publish.publish("mini") == 2
    (made := tmp_path / "data/study/figures/trees").mkdir(parents=True)
    (made / "a.csv").write_text("a")
    (old := tmp_path / "figures/study/trees/old.csv").parent.mkdir(parents=True)
    old.write_text("")
    (old.parents[1] / "run.json").write_text(json.dumps({"stages": {"worlds": {"commit": "c"}}}))
    assert publish.publish("study") == 0
    to = tmp_path / "figures/study"
    assert (to / "trees/a.csv").is_file() and not old.exists() and (to / "index.csv").is_file()
    run = json.loads((to / "run.json").read_text())["stages"]
    assert run["worlds"] == {"commit": "c"} and run["trees"]["machine"]["versions"]["torch"]
    assert "kept no note" in run["trees"]["note"]


def test_run_json_has_machine_and_commit_of_each_stage_when_it_ran(tmp_path, monkeypatch):
    from vlact.tools import provenance, publish

    for module in (publish, provenance, docs):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "docs", lambda: None)
    row = dict.fromkeys(results_map.COLUMNS, "") | {"paper": "beyond"}
    for stage, notebook, commit in (("trees", "10_trees", "one"), ("synta", "30_synta", "two")):
        (folder := tmp_path / "data/study/figures" / stage).mkdir(parents=True)
        (folder / "map.json").write_text(json.dumps([row | {"notebook": f"{notebook}.ipynb"}]))
        monkeypatch.setattr(provenance, "commit", lambda commit=commit: commit)
        provenance.note("study", notebook)
    monkeypatch.setattr(provenance, "commit", lambda: "that of publishing")
    assert publish.publish("study") == 0
    run = json.loads((tmp_path / "figures/study/run.json").read_text())["stages"]
    assert {k: v["commit"] for k, v in run.items()} == {"trees": "one", "synta": "two"}
    assert all(v["machine"]["cpu"] and "note" not in v for v in run.values())

    run["trees"] |= {"drawn again": "with other colours"}  # and published so: that stays
    (tmp_path / "figures/study/run.json").write_text(json.dumps({"stages": run}))
    for stage in run:
        (tmp_path / "figures/study" / stage / "map.json").write_text("[]")
    assert publish.publish("study") == 0
    told = json.loads((tmp_path / "figures/study/run.json").read_text())["stages"]
    assert told == run
    kept = {k: (tmp_path / "figures/study" / k / "map.json").read_text() == "[]" for k in run}
    assert kept == {"trees": True, "synta": False}


def test_notebooks_say_what_they_cost():
    known = notebooks.costs()
    assert set(known) == set((ROOT / "notebooks").glob("*.ipynb"))
    for path, minutes in known.items():
        text = path.read_text()
        assert text.count("**Cost**") == 1 and notebooks.costed(text, minutes) == text, (
            f"{path.name}: run `make lock`"
        )
    said = "tiny 12 s · `mini` 1 min (on one of two cores) · `study` 12 min (on both)"
    assert (
        notebooks.costed('"**Cost** long\\n"', {"smoke": 0.2, "mini": 1.0, "study": 12.34})
        == f'"**Cost** {said}\\n"'
    )


def test_readme_names_files_that_exist():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
    said = (ROOT / "figures" / "study" / "claims" / "claims.md").read_text()
    assert re.search(r"Of \d+ claims: .*", said)[0] in text, (
        "README's sentence on the ledger is not what the ledger says"
    )
    for target in re.findall(r"`make (\w+)", text):
        assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text()), target


@pytest.mark.parametrize("number, rows", [(1, 104), (2, 52), (6, 8)])
def test_tables_have_the_published_numbers_and_every_difference_adds_up(number, rows):
    table = pd.read_csv(
        ROOT / "figures" / "study" / "ace_results" / f"ace_table{number}_published.csv",
        na_values="–",
    )
    paper = published.read(f"ace_table{number}")
    assert (
        len(table) == len(paper) == rows
        and (table["published"] - paper["mean"]).abs().max() < 0.051
    )
    both = table.dropna(subset="ours")
    assert set(both["method"]) == set(paper["method"])
    assert ((both["ours"] - both["published"] - both["difference"]).abs() < 0.11).all()


# Writers
@pytest.mark.parametrize(
    ("low", "high", "n", "wanted"),
    [
        (1.0, 3.0, 5, "A is above B on acc: +2.0 [+1.0, +3.0], 4/5 seeds; as published."),
        (
            -1.0,
            5.0,
            5,
            "A is not separated from B on acc: +2.0 [-1.0, +5.0], 4/5 seeds; undecided.",
        ),
        (1.0, 3.0, 2, "A minus B on acc: +2.0 [+1.0, +3.0], 4/2 seeds; 2 seeds decide nothing."),
        (2.0, 2.0, 5, "A minus B on acc: +2.0 [+2.0, +2.0], 4/5 seeds; equal ones decide nothing."),
    ],
)
def test_few_seeds_and_intervals_without_width_give_no_verdict(low, high, n, wanted):
    found = {"mean": 2.0, "low": low, "high": high, "wins": 4, "n": n}
    assert tables.verdict("A", "B", "acc", found) == wanted


def test_tables_and_figures_are_the_same_bytes_every_time(tmp_path):
    import matplotlib.pyplot as plt

    frame = pd.DataFrame({"method": ["A & B", "C"], "acc": [12.34, None]})
    for name in ("one", "two"):
        fig, axis = plt.subplots()
        axis.plot([1, 2])
        names = figures.save(fig, tmp_path / name, "f", frame) + tables.save(
            frame, tmp_path / name, "t"
        )
        plt.close(fig)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), (
            name
        )
    assert (tmp_path / "one" / "t.csv").read_text() == "method,acc\nA & B,12.3\nC,–\n"
    assert r"A \& B & 12.3 \\" in (tmp_path / "one" / "t.tex").read_text()
    assert (tmp_path / "one" / "t.md").read_text().splitlines()[2] == "| A & B | 12.3 |"


def test_results_map_refuses_unknown_papers_and_missing_files(tmp_path):
    row = {"paper": "ace", "item": "table1", "title": "t", "files": ["no.csv"]}
    with pytest.raises(FileNotFoundError, match="no.csv"):
        tables.results_map(tmp_path, "s", "n.ipynb", [row])
    with pytest.raises(ValueError, match="paper must be"):
        tables.results_map(tmp_path, "s", "n.ipynb", [{**row, "paper": "mine"}])
    with pytest.raises(ValueError, match="ace_table1"):
        published.read("table99")


def test_a_timeline_keeps_segments_and_labels_apart():
    import matplotlib.pyplot as plt

    rows = [
        (0.5, 1.0, "FrisbeeCatch", 0.9),
        (0.8, 2.0, "Shotput", 0.1),
        (1.5, 2.5, "CleanAndJerk", 0.5),
        (9.5, 10.0, "VolleyballSpiking", 0.2),
    ]
    found = pd.DataFrame(rows, columns=["start_s", "end_s", "label", "score"])
    fig, axes = plt.subplots(2, 1, figsize=(6, 6), layout="constrained")
    lanes = {"truth": found.head(1), "none": found.head(0), "detections": found}
    figures.timeline(axes, np.zeros((3, 4, 4, 3), np.uint8), lanes, 10.0, step_s=0.25)
    fig.canvas.draw()
    bars, texts = (
        [b.get_window_extent() for b in axes[1].patches],
        [t.get_window_extent() for t in axes[1].texts],
    )
    assert len(bars) == len(texts) == 5 and axes[1].texts[0].get_text() == "FrisbeeCatch\n2–4"
    for boxes in (bars, texts):
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(axes[1].bbox.x0 <= t.x0 and t.x1 <= axes[1].bbox.x1 for t in texts)
    spans = [
        (b.get_x(), b.get_x() + b.get_width(), b.get_y() + b.get_height() / 2)
        for b in axes[1].patches
    ]
    # the first two lanes have a line each
    assert sorted((a, b) for a, b, _ in spans[1:]) == [r[:2] for r in rows]
    assert -1 < spans[0][2] < 0 and all(y < -2 for *_, y in spans[1:])
    plt.close(fig)
