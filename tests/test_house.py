"""The shape of the house: rooms, who may import whom, names in prose that must exist, lines that
fit a page.
"""

import ast
import importlib
import re
import subprocess
import sys

import pytest

from vlact import ROOT

# Data walks one way: a file imports only from rooms that stand to its left, or from its own.
LAW = (
    "params", "runtime", "schema", "video", "language", "worlds", "datasets", "losses", "models",
    "metrics", "training", "papers", "hub", "report", "stages", "tools",
)  # fmt: skip
# Siblings that must not know each other, whatever stands to their left.
MAY_IMPORT = {
    "losses": {"runtime"},
    "models": {"runtime", "schema", "language", "losses"},
    "metrics": {"runtime", "schema", "language"},
    "report": {
        *("params", "runtime", "schema", "video", "language", "worlds", "datasets", "metrics"),
    },
}
MOST_FLOORS = 7
WITHOUT_TORCH = ("metrics", "report")
PYTHON = sorted((ROOT / "vlact").rglob("*.py"))
PROSE = [ROOT / f for f in ("README.md", "CONTRIBUTING.md", "data/README.md")]


def room_of(path):
    return path.relative_to(ROOT / "vlact").parts[0].removesuffix(".py")


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{a.name}" for a in node.names)


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def private(path):
    """The package's face, and names of earlier versions: no rooms."""
    return room_of(path).startswith("_")


def test_files_import_only_from_their_left():
    for path in PYTHON:
        if private(path):
            continue
        room = room_of(path)
        assert room in LAW, f"{path.relative_to(ROOT)}: room {room!r} is not in LAW"
        for name in imported(parsed(path)):
            first, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if first != "vlact" or other not in LAW or other == room:
                continue
            left = LAW.index(other) < LAW.index(room) and other in MAY_IMPORT.get(room, LAW)
            assert left, f"{path.relative_to(ROOT)} (room {room}) imports vlact.{other}"


def test_the_house_has_few_floors():
    """A room stands a floor above the highest that it imports from."""
    floor = dict.fromkeys(LAW, 1)
    for room in LAW:  # those to its left have theirs
        for path in (p for p in PYTHON if room_of(p) == room):
            others = {n.split(".")[1] for n in imported(parsed(path)) if n.startswith("vlact.")}
            floor[room] = max(floor[room], *(floor[o] + 1 for o in others & set(LAW) - {room}), 1)
    assert max(floor.values()) <= MOST_FLOORS, floor


@pytest.mark.parametrize(
    "module, without",
    [
        ("vlact.metrics.localization", "torch matplotlib pydantic joblib multiprocessing"),
        ("vlact.models.nms", "torch pandas"),
        ("vlact.hub", "open_clip transformers peft numba matplotlib sklearn joblib pydantic"),
    ],
)
def test_what_a_newcomer_imports_brings_only_what_it_uses(module, without):
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert module in found.stdout.split(), found.stderr
    assert not set(without.split()) & set(found.stdout.split())


def test_metrics_and_report_never_import_torch():
    for path in PYTHON:
        if room_of(path) in WITHOUT_TORCH:
            torch = {n for n in imported(parsed(path)) if n.split(".")[0] == "torch"}
            assert not torch, f"{path.relative_to(ROOT)} imports {torch}"


def test_few_modules_stand_outside_a_room():
    assert len([f for f in (ROOT / "vlact").glob("*.py")]) <= 6
    assert len({room_of(f) for f in PYTHON if not private(f)}) <= 16


def exists(name):
    """Whether a dotted name is a module of this project, or something in one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for i, part in enumerate(parts[n:], n):
            if not hasattr(found, part):
                # a field of a dataclass has no attribute of its own
                return i == len(parts) - 1 and part in getattr(found, "__annotations__", {})
            found = getattr(found, part)
        return True
    return False


def named(text):
    """Dotted names of this project and its files that a text puts in backticks."""
    for quoted in re.findall(r"`([^`\n]+)`", text):
        for name in re.findall(r"(?<![\w./-])vlact(?:\.[A-Za-z_]\w*)+(?![\w/])", quoted):
            if not name.endswith((".json", ".yaml", ".egg")):
                yield name, exists
        for name in re.findall(r"(?<![\w./-])(?:vlact|tests|notebooks)/[\w/.-]+\.\w+", quoted):
            yield name, lambda file: (ROOT / file).exists()


@pytest.mark.parametrize("path", [*PYTHON, *PROSE], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_what_prose_names_exists(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        tree = ast.parse(text)
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        text = "\n".join(ast.get_docstring(n) or "" for n in ast.walk(tree) if isinstance(n, kinds))
    missing = [name for name, there in named(text) if not there(name)]
    assert not missing, f"{path.relative_to(ROOT)} names {missing}, which is not there"


def test_the_guards_see_what_they_guard_against():
    assert not exists("vlact.losses.nothing") and exists("vlact.losses.ace.leaf_average")
    assert exists("vlact.params.Params.world") and not exists("vlact.nowhere")
    assert [n for n, _ in named("`vlact.a.b` and `vlact/c.py`, vlact.d")] == [
        "vlact.a.b",
        "vlact/c.py",
    ]


def test_ruff_finds_nothing():
    for arguments in (["check", "--output-format", "concise"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--quiet", "."]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[:2000]


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
