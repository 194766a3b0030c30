"""Old names work for one version more, and say what they are called now."""

import ast
import importlib
import subprocess
import sys
import warnings

import pytest

from vlact import ROOT, _renamed

# a module whose file still stands has not moved yet
MOVED = [m for m in _renamed.MODULES if not (ROOT / f"{m.replace('.', '/')}.py").is_file()]


@pytest.mark.parametrize("old", MOVED)
def test_a_module_that_moved_is_the_same_under_its_old_name(old):
    sys.modules.pop(old, None)
    new = importlib.import_module(_renamed.MODULES[old])
    with pytest.warns(DeprecationWarning, match=rf"{old} is now {new.__name__}"):
        assert importlib.import_module(old) is new
    assert new.__spec__.name == new.__name__ == _renamed.MODULES[old]


@pytest.mark.parametrize("old", _renamed.NAMES)
def test_a_name_that_changed_is_the_same_thing(old):
    place, _, name = old.rpartition(".")
    home, _, now = _renamed.NAMES[old].rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{old} is now {_renamed.NAMES[old]}"):
        found = getattr(importlib.import_module(place), name)
    assert found is getattr(importlib.import_module(home), now)


def test_what_users_wrote_still_runs():
    code = (
        "import vlact.nms\n"
        "from vlact import jobs\n"
        "from vlact.transferring import build\n"
        "from vlact.training import fit\n"
        "from vlact.finetuning import keep, halfway\n"
        "from vlact.hub import Namer, Reasoner\n"
        "print(vlact.nms.suppress.__module__, keep.__name__, Namer.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.split() == ["vlact.models.nms", "frozen_features", "ActionRecognizer"]
    assert "<string>:1: DeprecationWarning: vlact.nms is now vlact.models.nms" in done.stderr
    assert "<string>:6: DeprecationWarning: vlact.hub.Namer is now" in done.stderr


def test_a_command_that_users_typed_still_runs():
    done = subprocess.run(
        [sys.executable, "-W", "always", "-m", "vlact.site", "nosuch"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    new = subprocess.run(
        [sys.executable, "-m", "vlact.report.site", "nosuch"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == new.returncode == 1
    assert "vlact.site is now vlact.report.site" in done.stderr
    assert new.stderr and new.stderr in done.stderr


def test_other_names_are_still_errors():
    with pytest.raises(ModuleNotFoundError, match="No module named 'vlact.nothing'"):
        importlib.import_module("vlact.nothing")
    with pytest.raises(AttributeError, match="module 'vlact.hub' has no attribute 'Nobody'"):
        importlib.import_module("vlact.hub").Nobody  # noqa: B018


def test_nothing_here_goes_by_an_old_name():
    old = set(_renamed.NAMES)
    for path in [*(ROOT / "vlact").rglob("*.py"), *(ROOT / "tests").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                used = {f"{node.module}.{a.name}" for a in node.names}
                assert not used & old, f"{path.relative_to(ROOT)} imports {used & old}"
                assert node.module not in MOVED, f"{path.relative_to(ROOT)}: {node.module}"


def test_the_package_itself_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        for name in ("vlact.hub", "vlact.losses.actionvlm", "vlact.papers.ace.trials"):
            importlib.import_module(name)


def test_models_and_their_files_do_not_import_each_other_in_circles():
    """Imports anywhere in a file count, those inside functions, too."""
    folder = ROOT / "vlact" / "models"
    graph = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        graph[name] = found
    # what is imported from a package runs the package first
    packages = ("vlact.models.checkpoints", "vlact.models.zoo")
    room = {n: next((p for p in packages if n.startswith(p)), n) for n in graph}
    between = {}
    for name, found in graph.items():
        mine = {room[f] for f in found if f in graph} - {room[name], "vlact.models"}
        between.setdefault(room[name], set()).update(mine)
    while leaves := [n for n, found in between.items() if not found & set(between)]:
        for n in leaves:
            del between[n]
    assert not between, f"these import each other: {between}"
