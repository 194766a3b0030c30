"""What an installed wheel holds, and what runs with the core's libraries alone."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from vlact import ROOT
from vlact.runtime.extras import EXTRAS

MOST_BYTES = 3_000_000
CORE = ("numpy", "pandas", "pydantic", "pyyaml", "torch")
# Lets only some distributions, and what they require, be imported.
ONLY = """
import importlib.abc, re, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
def plain(name): return re.sub('[-_.]+', '-', name).lower()
allowed, todo = set(), {given!r}
while todo:
    name = plain(todo.pop())
    if name not in allowed:
        allowed.add(name)
        try:
            lines = [r for r in requires(name) or () if 'extra ==' not in r]
        except PackageNotFoundError:
            lines = []
        todo += [re.match('[A-Za-z0-9._-]+', r)[0] for r in lines]
of = packages_distributions()
class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        top = name.split('.')[0]
        if top in of and top != 'vlact' and not allowed & {{plain(d) for d in of[top]}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Only())
import importlib.util
find = importlib.util.find_spec
def quiet(name, package=None):
    try:
        return find(name, package)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = quiet
"""


def core() -> list[str]:
    """What `pip install vlact` brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [re.match("[A-Za-z0-9._-]+", d)[0] for d in project["dependencies"]]


def only(distributions, code, folder, path, *arguments):
    """A process that can import some distributions alone, outside the checkout."""
    return subprocess.run(
        [sys.executable, "-c", ONLY.format(given=list(distributions)) + code, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a clean copy of the checkout, and the folder where it is unpacked."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "params.yaml",
        "README.md",
        "LICENSE",
    ):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "vlact", source / "vlact", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (file,) = out.glob("*.whl")
    zipfile.ZipFile(file).extractall(out / "site")
    return file


def test_wheel_is_small_and_holds_all_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.stat().st_size < MOST_BYTES
    data = [f for f in (ROOT / "vlact").rglob("*") if f.is_file() and f.suffix in (".yaml", ".csv")]
    data += [*(ROOT / "vlact").rglob("pages/*"), ROOT / "vlact" / "py.typed"]
    missing = [f for f in data if f.relative_to(ROOT).as_posix() not in names]
    assert len(data) > 30 and not missing
    assert "vlact/params.yaml" in names and not any(n.startswith("tests/") for n in names)


def test_core_modules_need_five_libraries_only(wheel, tmp_path):
    code = """
import vlact.losses.ace, vlact.losses.actionvlm, vlact.losses.disentanglement
import vlact.losses.localization, vlact.metrics.classification, vlact.metrics.detad
import vlact.metrics.localization, vlact.metrics.proposals, vlact.metrics.synonyms
import vlact.metrics.transfer, vlact.models.nms, vlact.schema, vlact.params
import vlact.language.descriptions, vlact.language.motions, vlact.language.tasks
import vlact.language.trees, vlact.datasets.activitynet, vlact.report.published
import numpy as np
print(vlact.CHECKOUT, vlact.params.load("paper").profile, vlact.language.trees.Trees.load("ata").m)
try:
    vlact.models.nms.soft_nms(np.zeros((1, 2)), np.ones(1))
except ModuleNotFoundError as error:
    print(error)
"""
    done = only(CORE, code, tmp_path, wheel.parent / "site")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("False paper ")
    assert second == "vlact.models.nms needs numba: pip install 'vlact[models]'"


def test_every_other_module_names_the_extra_that_it_lacks(wheel, tmp_path):
    code = """
import importlib, pkgutil, vlact
for found in pkgutil.walk_packages(vlact.__path__, "vlact."):
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        print(error)
"""
    done = only(core(), code, tmp_path, wheel.parent / "site")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 20 and all("pip install 'vlact[" in x for x in lines), done.stdout


@pytest.mark.parametrize("module, unwanted", [
    ("vlact.metrics.localization", ("torch", "matplotlib", "scipy", "numba")),
    ("vlact.losses", ("matplotlib", "transformers", "scipy", "numba", "av")),
])  # fmt: skip
def test_import_brings_nothing_that_it_does_not_need(module, unwanted):
    code = f"import sys, {module}; print([m for m in {unwanted!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_command_line_of_the_wheel_with_the_core_alone(wheel, tmp_path):
    (tmp_path / "truth.csv").write_text("video,start_s,end_s,label\na,0,2,run\na,4,6,jump\n")
    (tmp_path / "found.csv").write_text("video,start_s,end_s,label,score\na,0,2,run,.9\n")
    names = core()
    code, site = "from vlact.tools.cli import main; main(sys.argv[1:])", wheel.parent / "site"

    def vlact(*arguments):
        return only(names, code, tmp_path, site, *arguments)

    scored = vlact("score", "found.csv", "truth.csv", "-o", "out", "--resamples", "3")
    assert scored.returncode == 0, scored.stderr
    assert re.search(r"activitynet +mAP@0\.50 +0\.5", scored.stdout)
    assert (tmp_path / "out" / "report.html").is_file()
    doctor = vlact("doctor")
    assert doctor.returncode == 0 and "runs now   check, doctor, score, transfer\n" in doctor.stdout
    assert "no checkout" in doctor.stdout
    for command in ("repro", "verify", "site"):
        done = vlact(command)
        assert done.returncode == 2 and "needs a checkout" in done.stderr
        assert done.stderr.count("\n") == 1
    lacks = vlact("localize", "a.mp4", "--model", "nowhere")
    assert lacks.returncode == 2 and "pip install 'vlact[video,models]'" in lacks.stderr
    assert lacks.stderr.count("\n") == 1


# Extras
def test_every_module_of_an_extra_is_in_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    called = {"open_clip": "open-clip-torch", "sklearn": "scikit-learn", "PIL": "pillow"}
    brought = {"nbformat": "nbconvert"}  # comes with it
    for extra, modules in EXTRAS.items():
        lines = project["optional-dependencies"][extra]
        names = {re.sub("[-_.]+", "-", re.match("[A-Za-z0-9._-]+", x)[0]).lower() for x in lines}
        for module in modules:
            name = called.get(module) or brought.get(module) or module.replace("_", "-")
            assert name in names, f"{module} is said to come with {extra}"


def test_lock_is_of_three_pythons_and_names_no_index():
    lock, project = (ROOT / "requirements.lock").read_text(), (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.11,<3.14"' in project
    assert "index-url" not in lock and "find-links" not in lock
    assert re.search(r"(?m)^decord==.*sys_platform != 'darwin'", lock)
