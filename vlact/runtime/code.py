"""What a piece of Python depends on: the files of this project that it imports, and theirs, as one
hash.

A stage's key and DVC's view of a notebook are both made of it, so that no list of files is kept by
hand.
"""

import ast
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vlact import ROOT

NO_RESULT = (  # parameters are watched by DVC itself; how jobs are run changes no number
    "vlact/__init__.py",
    "vlact/params.py",
    "vlact/runtime/__init__.py",
    "vlact/runtime/code.py",
    "vlact/runtime/jobs.py",
    "vlact/runtime/forkserver.py",
)
DATA = (".csv", ".txt", ".yaml")


def names_in(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Modules that Python imports, anywhere in it, and its strings of one word."""
    modules, words = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if " " not in node.value:
                words.add(node.value)
    return modules, words


@dataclass(frozen=True)
class Source:
    """A file of Python: what it imports and names, and a hash of what it means.

    Attributes:
        modules: Dotted names below this project.
        words: Strings of one word.
        hash: Of the syntax tree without docstrings, so that prose and layout do not count.
    """

    modules: frozenset[str]
    words: frozenset[str]
    hash: str

    @classmethod
    def of(cls, text: str) -> "Source":
        tree = ast.parse(text)
        modules, words = names_in(tree)
        for node in ast.walk(tree):
            documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            if documented and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        mine = {m for m in modules if m.startswith(("vlact", "reference"))}
        return cls(frozenset(mine), frozenset(words), _md5(ast.dump(tree).encode()))


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@cache
def _source(path: Path) -> Source:
    return Source.of(path.read_text(encoding="utf-8"))


@cache
def _files_of(module: str) -> tuple[Path, ...]:
    """The file of a dotted name below the repository or its tests, and the packages it is in."""
    parts, found = module.split("."), []
    for root in (ROOT, ROOT / "tests"):
        for n in range(1, len(parts) + 1):
            place = root.joinpath(*parts[:n])
            found += [f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file()]
    return tuple(found)


@cache
def _data_files() -> tuple[Path, ...]:
    return tuple(f for f in (ROOT / "vlact").rglob("*") if f.suffix in DATA)


def library(text: str) -> list[Path]:
    """Files of this project that a text of Python depends on, sorted.

    Modules that it imports, theirs, and data that any of them names: by file name or stem, or its
    folder by the path below vlact.
    """
    todo, seen, said = [Source.of(text)], set(), set()
    while todo:
        source = todo.pop()
        said |= source.words
        new = {f for m in source.modules for f in _files_of(m)} - seen
        seen |= new
        todo += [_source(f) for f in new]

    def folder(file: Path) -> str:
        return str(file.relative_to(ROOT).parent).removeprefix("vlact/")

    named = {f for f in _data_files() if {f.name, f.stem, folder(f)} & said}
    # an oracle is run by its file
    named |= {f for f in (ROOT / "tests/reference").glob("*.py") if f.name in said}
    return sorted(f for f in seen | named if f.relative_to(ROOT).as_posix() not in NO_RESULT)


def file_hash(path: Path) -> str:
    """Of what a file means: of Python see `Source`, of others the bytes."""
    return _source(path).hash if path.suffix == ".py" else _md5(path.read_bytes())


@cache
def module_hash(module: str) -> str:
    """Of a module of this project, such as "vlact.stages.ace", and of everything that it depends
    on.
    """
    digest = hashlib.sha256()
    for file in library(f"import {module}"):
        digest.update(f"{file.relative_to(ROOT).as_posix()} {file_hash(file)}\n".encode())
    return digest.hexdigest()[:16]
