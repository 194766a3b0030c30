"""What holds for the repository as a whole."""

import ast
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

import vlact
from vlact import ROOT, params
from vlact.report import figures, published, tables
from vlact.tools import pipeline

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
    assert (ROOT / "environment.yml").read_text() == pipeline.environment(), "run `make lock`"


def test_every_direct_dependency_is_locked_with_hashes_and_installed():
    from importlib.metadata import version

    from packaging.requirements import Requirement

    lock = (ROOT / "requirements.lock").read_text()
    for line in re.findall(r"- \"?([A-Za-z0-9._-]+==[^\"\n]+)", pipeline.environment()):
        wanted = Requirement(line)
        name, pinned = wanted.name, str(wanted.specifier).removeprefix("==")
        entry = (
            rf"(?mi)^{re.sub('[-_.]', '[-_.]', name)}=={re.escape(pinned)}.*\\\n +--hash=sha256:"
        )
        assert re.search(entry, lock), name
        if wanted.marker is None or wanted.marker.evaluate():
            assert version(name).split("+")[0] == pinned, (
                f"{name}: installed {version(name)}, locked {pinned}"
            )


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
    code = "import sys, vlact, vlact.params, vlact.schema\nprint([m for m in ('torch', 'transformers', 'decord') if m in sys.modules])"
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
    rooms = "metrics.selection, vlact.metrics.concepts, vlact.report.figures, vlact.report.tables, vlact.report.published"
    code = f"import sys, vlact.{rooms}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# The house
ORDER = [
    "warm",
    "params",
    "jobs",
    "schema",
    "language",
    "metrics",
    "video",
    "worlds",
    "clips",
    "datasets",
    "losses",
    "models",
    "training",
    "pretraining",
    "finetuning",
    "inference",
    "nms",
    "detection",
    "features",
    "aligning",
    "localizing",
    "vision_language",
    "transferring",
    "across",
    "scaling",
    "scaling_localisers",
    "full_size",
    "plans",
    "measuring",
    "runs",
    "hub",
    "stages",
    "report",
    "claims",
    "site",
    "doctor",
    "pipeline",
]


def test_modules_import_only_from_their_left():
    allowed = {  # siblings that must not know each other
        "losses": {"jobs"},
        "models": {"jobs", "losses", "language"},
        "metrics": {"language"},
        "report": set(),
    }
    for path in sorted((ROOT / "vlact").rglob("*.py")):
        room = path.relative_to(ROOT / "vlact").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [f"{node.module}.{a.name}" for a in node.names]
                if isinstance(node, ast.ImportFrom) and node.module
                else []
            )
            for name in names:
                parts = name.split(".")
                if (
                    parts[0] != "vlact"
                    or len(parts) < 2
                    or parts[1] not in ORDER
                    or parts[1] == room
                ):
                    continue
                left = ORDER.index(parts[1]) < ORDER.index(room) and parts[1] in allowed.get(
                    room, ORDER
                )
                assert left, f"{path.relative_to(ROOT)} (room {room}) imports vlact.{parts[1]}"


def test_version_is_the_same_everywhere():
    import tomllib

    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert "version" in whole["project"]["dynamic"]
    assert whole["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "vlact.__version__"}
    assert vlact.__version__ == str(citation["version"])
    assert len(citation["references"]) == 3
    assert f"## {vlact.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_ruff_finds_nothing():
    for arguments in (["check"], ["format", "--check"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--quiet", "."], cwd=ROOT, check=True
        )


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
            pipeline.normalise(json.loads(raw)), indent=1, sort_keys=True, ensure_ascii=False
        )
        + "\n"
    )
    assert raw == normal


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_keeps_the_house_rules(notebook):
    first = "".join(cells(notebook, "markdown")[0]["source"])
    assert (
        re.match(rf"# {notebook.stem[:2]} · ", first)
        and "**Question**" in first
        and "**Cost**" in first
    )
    parameters = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    assert len(parameters) == 1
    assert "".join(parameters[0]["source"]).startswith('profile = "smoke"\nworkspace = "scratch"')
    for cell in cells(notebook):
        source = "".join(cell["source"])
        assert (
            len(source.splitlines()) <= 40
            and "class " not in source.split("\n")[0]
            and "%pip" not in source
        )
        assert "nbval-skip" not in cell["metadata"].get("tags", [])


def test_notebook_parameters_are_what_the_pipeline_passes():
    """papermill only warns about a misspelt parameter."""
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in graph.items():
        found = re.search(r"notebooks/(\S+\.ipynb)", stage["cmd"])
        if found:
            source = "".join(
                next(
                    c
                    for c in cells(ROOT / "notebooks" / found[1])
                    if "parameters" in c["metadata"].get("tags", [])
                )["source"]
            )
            known = {n.targets[0].id for n in ast.parse(source).body}
            passed = set(re.findall(r" -[rp] (\w+) ", stage["cmd"]))
            assert passed and passed <= known, f"stage {name}: {passed - known}"


def test_code_of_a_notebook_ignores_prose_and_outputs(tmp_path):
    notebook = json.loads(NOTEBOOKS[0].read_text())
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps(notebook))
    before = pipeline.code_of(path)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = ["other prose"]
        else:
            cell["outputs"], cell["execution_count"] = [], 99
    path.write_text(json.dumps(notebook))
    assert pipeline.code_of(path) == before
    next(c for c in notebook["cells"] if c["cell_type"] == "code")["source"] = ["x = 1"]
    path.write_text(json.dumps(notebook))
    assert pipeline.code_of(path) != before


# The pipeline
def test_graph_lists_every_notebook():
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert [next(iter(o)) for o in graph["nbsrc"]["outs"]] == [
        f"data/nbsrc/{n.stem}.py" for n in NOTEBOOKS
    ]
    for notebook in NOTEBOOKS:
        (stage,) = (s for s in graph.values() if f"notebooks/{notebook.name}" in s["cmd"])
        assert f"data/nbsrc/{notebook.stem}.py" in stage["deps"]


def library(name: str) -> set[str]:
    (notebook,) = (n for n in NOTEBOOKS if n.stem.endswith(name))
    return {str(f.relative_to(ROOT)) for f in pipeline.library(pipeline.code_of(notebook))}


def test_a_notebook_depends_on_all_that_it_imports_and_names():
    assert {"vlact/models/nms.py", "tests/reference/nms_slow.py"} <= library("speed")
    transfer = library("31_transfer")
    assert {f"vlact/models/zoo/{n}.py" for n in ("x3d", "froster", "cir")} | {
        "vlact/stages/transfer.py",
        "vlact/video.py",
    } <= transfer
    assert {"vlact/language/motions.csv", "vlact/report/published/transfer_table2.csv"} <= transfer
    assert not transfer & {
        "vlact/papers/actionvlm/alignment.py",
        "vlact/models/nms.py",
        "vlact/params.py",
        "vlact/runtime/jobs.py",
        "vlact/runtime/warm.py",
        "vlact/report/site.py",
    }
    assert "tests/reference/ace_naive.py" in library(
        "ace_training"
    ) and "vlact/language/trees/gtea_manual.yaml" in library("trees")


def test_what_a_notebook_depends_on_is_written_with_hashes(tmp_path, monkeypatch):
    import hashlib

    (tmp_path / "vlact" / "deep").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    files = {
        "one.py": "def f():\n    from vlact.deep import two\n",
        "deep/__init__.py": "",
        "deep/two.py": "NAME = 'words'\n",
        "words.csv": "a\n",
        "other.csv": "",
    }
    for name, text in files.items():
        (tmp_path / "vlact" / name).write_text(text)
    cell = {"cell_type": "code", "metadata": {}, "source": ["import vlact.one\n"], "outputs": []}
    (tmp_path / "notebooks" / "01_x.ipynb").write_text(json.dumps({"cells": [cell]}))
    monkeypatch.setattr(pipeline, "ROOT", tmp_path)
    monkeypatch.setattr(pipeline, "NOTEBOOKS", tmp_path / "notebooks")
    pipeline.nbsrc()
    lines = (tmp_path / "data/nbsrc/01_x.py").read_text().splitlines()
    wanted = ("deep/__init__.py", "deep/two.py", "one.py", "words.csv")
    assert (
        lines[-4:] == [f"# {hashlib.md5(files[n].encode()).hexdigest()} vlact/{n}" for n in wanted]
        and "import vlact.one" in lines
    )


def test_stage_keys_cover_only_files_that_the_graph_knows():
    """What a stage's own staleness check looks at must also make DVC run the stage again."""
    from vlact.stages.ace import ACE
    from vlact.stages.actionvlm import ACTIONVLM
    from vlact.stages.pretrain import PRETRAIN
    from vlact.stages.transfer import TRANSFER
    from vlact.stages.worlds import WORLDS

    given = {
        WORLDS: "01_worlds",
        PRETRAIN: "pretraining",
        ACE: "ace_training",
        ACTIONVLM: "23_actionvlm",
        TRANSFER: "31_transfer",
    }
    for stage, notebook in given.items():
        files = [
            f
            for name in stage.files
            for f in (sorted((ROOT / "vlact" / name).rglob("*")) or [ROOT / "vlact" / name])
        ]
        missing = {
            str(f.relative_to(ROOT)) for f in files if f.suffix in (".py", ".yaml")
        } - library(notebook)
        assert not missing, f"stage {stage.name}: {missing}"


def test_the_switch_changes_one_line_and_refuses_unknown_profiles():
    text = (ROOT / "params.yaml").read_text()
    for profile in params.PROFILES:
        new = pipeline.switch(profile)
        assert yaml.safe_load(new)["run"]["name"] == profile
        assert sum(a != b for a, b in zip(text.split("\n"), new.split("\n"), strict=True)) <= 1
    with pytest.raises(ValueError, match="PROFILE: expected one of .* got 'huge'"):
        pipeline.switch("huge")
    assert yaml.safe_load(text)["run"]["name"] == "mini"


def test_stage_minutes_name_the_stages_in_order():
    graph = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    minutes = yaml.safe_load((ROOT / "params.yaml").read_text())["stage_minutes"]
    for profile in ("smoke", "mini", "study"):
        assert [s for s in graph if s in minutes[profile]] == list(minutes[profile])


# Results
@pytest.mark.parametrize("profile", ["smoke", "mini", "study"])
def test_results_map_is_complete_and_true(profile):
    folder = ROOT / "figures" / profile
    table = pd.read_csv(folder / "index.csv")
    assert list(table.columns) == pipeline.MAP_COLUMNS
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    mapped = set()
    for row in table.itertuples():
        assert row.paper in ("ace", "actionvlm", "transfer", "beyond") and row.stage in graph
        assert (ROOT / "notebooks" / row.notebook).is_file()
        mapped |= set(row.files.split())
    on_disk = {f.name for f in folder.iterdir() if f.is_file()} - {"index.csv"}
    assert mapped == on_disk
    outs = {
        next(iter(o)).split("/")[-1]
        for s in graph.values()
        for o in s.get("outs", ())
        if isinstance(o, dict) and next(iter(o)).startswith("figures/")
    }
    assert on_disk <= outs
    assert not table.duplicated(["paper", "item"]).any()


def test_committed_figures_were_made_by_the_committed_code():
    import hashlib

    lock = yaml.load((ROOT / "dvc.lock").read_text(), yaml.CSafeLoader)["stages"]
    pipeline.nbsrc()
    for name, stage in lock.items():
        if not name.endswith(("@smoke", "@mini", "@study")):
            continue
        for out in stage.get("outs", ()):
            if out["path"].startswith("figures/"):
                assert hashlib.md5((ROOT / out["path"]).read_bytes()).hexdigest() == out["md5"], (
                    out["path"]
                )
        for dep in stage["deps"]:
            path = ROOT / dep["path"]
            if dep["path"].startswith(("vlact", "data/nbsrc")):
                assert hashlib.md5(path.read_bytes()).hexdigest() == dep["md5"], (
                    f"{name}: {dep['path']} changed since; run `make repro`"
                )


def test_notebooks_say_what_they_cost():
    known = pipeline.costs()
    assert set(known) == set((ROOT / "notebooks").glob("*.ipynb"))
    for path, minutes in known.items():
        text = path.read_text()
        assert text.count("**Cost**") == 1 and pipeline.costed(text, minutes) == text, (
            f"{path.name}: run `make lock`"
        )
    said = "tiny 12 s · `mini` 1 min (on one of two cores) · `study` 12 min (on both)"
    assert (
        pipeline.costed('"**Cost** long\\n"', {"smoke": 0.2, "mini": 1.0, "study": 12.34})
        == f'"**Cost** {said}\\n"'
    )


def test_readme_shows_the_results_map_and_names_files_that_exist():
    text = (ROOT / "README.md").read_text()
    assert pipeline.readme(text) == text, "run `make lock`"
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
    said = (ROOT / "figures" / "study" / "claims.md").read_text().splitlines()[-1]
    assert re.search(r"Of \d+ claims: .*", said)[0] in text, (
        "README's sentence on the ledger is not what the ledger says"
    )
    for target in re.findall(r"`make (\w+)", text):
        assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text()), target


@pytest.mark.parametrize("number, rows", [(1, 104), (2, 52), (6, 8)])
def test_tables_have_the_published_numbers_and_every_difference_adds_up(number, rows):
    table = pd.read_csv(
        ROOT / "figures" / "mini" / f"ace_table{number}_published.csv", na_values="–"
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
    assert [(a, b) for a, b, _ in spans[1:]] == [r[:2] for r in rows] and all(
        round(-y) == 2 for *_, y in spans[1:]
    )
    plt.close(fig)
