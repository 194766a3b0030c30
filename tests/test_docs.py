"""What readers are told to type works as printed."""

import re
import subprocess
import sys

import pytest
import yaml

from vlact import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", "data/README.md")
MOST_LINES = 150  # of README
BLOCK = re.compile(r"```python\n(.*?)```\n+```text\n(.*?)```", re.S)
SNIPPETS = [
    (page, code, said)
    for page in PAGES
    for code, said in BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("page, code, said", SNIPPETS, ids=lambda x: str(x)[:12])
def test_a_snippet_prints_what_is_printed_below_it(page, code, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == said


def test_every_snippet_has_its_output_and_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("```python") == len([x for x in SNIPPETS if x[0] == "README.md"]) == 3
    assert len(text.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_links_exist(page):
    text, makefile = ((ROOT / f).read_text(encoding="utf-8") for f in (page, "Makefile"))
    for target in re.findall(r"(?:`|^)make (\w+)", text, re.M):
        assert re.search(rf"(?m)^{target}:", makefile), target
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / link).exists(), link
    for module in re.findall(r"-m (vlact[\w.]*)", text):
        file = ROOT / module.replace(".", "/")
        assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), module


@pytest.mark.parametrize("page", PAGES)
def test_stages_parameters_and_files_of_commands_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    graph, given = (
        yaml.safe_load((ROOT / f).read_text(encoding="utf-8"))
        for f in ("data/dvc.yaml", "params.yaml")
    )
    for stage, profile in re.findall(r"data/dvc\.yaml:(\w+)@(\w+)", text):
        assert stage in graph["stages"] and profile in given["profiles"], stage
    for path in re.findall(r"-S '([\w.]+)=", text):
        here = given
        for word in path.split("."):
            assert word in here, path
            here = here[word]
    for name in re.findall(r"\b((?:tests|vlact)/[\w/]+\.\w+)", text):
        assert (ROOT / name).is_file(), name


def test_the_page_of_findings_links_to_files_that_exist():
    page = ROOT / "figures" / "study" / "findings.md"
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert len(links) > 20 and not [x for x in links if not (page.parent / x).exists()]
