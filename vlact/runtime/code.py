"""What a piece of Python depends on: the files of this project that it imports, and theirs, as one
hash.

A stage's key and DVC's view of a notebook are both made of it, so that no list of files is kept by
hand.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from vlact import ROOT

NO_RESULT = (  # parameters are watched by DVC itself; how jobs are run changes no number
    "vlact/__init__.py",
    "vlact/_renamed.py",
    "vlact/params.py",
    "vlact/runtime/__init__.py",
    "vlact/runtime/code.py",
    "vlact/runtime/jobs.py",
    "vlact/runtime/warm.py",
)
DATA = (".csv", ".txt", ".yaml")


@cache
def names_in(source: str) -> tuple[frozenset[str], frozenset[str]]:
    """Modules that a text of Python imports, anywhere in it, and its strings of one word."""
    modules, words = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if " " not in node.value:
                words.add(node.value)
    return frozenset(modules), frozenset(words)


def _files_of(module: str) -> Iterator[Path]:
    """The file of a dotted name below the repository or its tests, and the packages that it is in."""
    parts = module.split(".")
    for root in (ROOT, ROOT / "tests"):
        for n in range(1, len(parts) + 1):
            place = root.joinpath(*parts[:n])
            yield from (f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file())


def library(source: str) -> list[Path]:
    """Files of this project that a text of Python depends on, sorted.

    Modules that it imports, theirs, and data that any of them names: by file name or stem, or its
    folder by the path below vlact.
    """
    todo, seen, said = [source], set(), set()
    while todo:
        modules, words = names_in(todo.pop())
        said |= words
        for module in modules:
            if not module.startswith(("vlact", "reference")):
                continue
            for file in set(_files_of(module)) - seen:
                seen.add(file)
                todo.append(file.read_text(encoding="utf-8"))
    data = [f for f in (ROOT / "vlact").rglob("*") if f.suffix in DATA]
    data += (ROOT / "tests/reference").glob("*.py")

    def folder(file: Path) -> str:
        return str(file.relative_to(ROOT).parent).removeprefix("vlact/")

    named = {f for f in data if {f.name, f.stem, folder(f)} & said}
    return sorted(f for f in seen | named if f.relative_to(ROOT).as_posix() not in NO_RESULT)


def file_hash(path: Path) -> str:
    """Of what a file means: of Python the syntax tree without docstrings, of others the bytes."""
    if path.suffix != ".py":
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return hashlib.md5(ast.dump(tree).encode(), usedforsecurity=False).hexdigest()


@cache
def module_hash(module: str) -> str:
    """Of a module of this project, such as "vlact.stages.ace", and of everything that it depends
    on.
    """
    digest = hashlib.sha256()
    for file in library(f"import {module}"):
        digest.update(f"{file.relative_to(ROOT).as_posix()} {file_hash(file)}\n".encode())
    return digest.hexdigest()[:16]
