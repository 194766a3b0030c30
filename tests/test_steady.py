"""No test races: what a test proves depends on no clock, no place and no person.

Read from the syntax trees of the tests and of the cells that nbval compares.
"""

import ast
import json
import re
from pathlib import Path

import pytest

from vlact import ROOT

# the one module that may wait, see its own words, and the one that measures for notebook 41
WAITING = "tests/reference/waiting.py"
CLOCKS = {
    *("perf_counter", "process_time", "thread_time", "monotonic", "getrusage", "cpu_times"),
    *("perf_counter_ns", "process_time_ns", "thread_time_ns", "monotonic_ns", "time_ns"),
    *("default_timer", "timeit", "time.time", "time.clock_gettime"),
    *("timed", "raced", "bench.spent"),
}
SLEEPS = {"sleep", "sched_yield"}
PLACES = {
    *("Path.home", "expanduser", "getuser", "getlogin", "getpwuid"),
    *("isatty", "get_terminal_size", "setlocale", "getlocale", "getpreferredencoding"),
}
ENVIRONMENT = {"HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TERM", "COLUMNS"}
# keys of tables that hold a measured time
TIMES = re.compile(r"(^|[ _(])(ms|seconds|minutes)\)?$|/s$|^(seconds|elapsed|duration)$")
WAITS = {"wait", "join", "communicate", "run", "check_call", "check_output", "poll", "get"}
LEAST_LIMIT_S = 120  # what only ends a hung test must not end a slow one
SERVERS = {"bind", "HTTPServer", "ThreadingHTTPServer"}
SHARED = re.compile(r"^shared(/|$)")


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or an attribute, or nothing."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def named(node: ast.AST, names: set[str]) -> str | None:
    """The name of `names` that a name, an attribute or an import is."""
    if isinstance(node, ast.alias):
        return node.name if node.name in names else None
    found = dotted(node)
    last = found.rpartition(".")[2]
    return next((n for n in (".".join(found.split(".")[-2:]), last) if n in names), None)


def constant(node: ast.AST | None, kind: type):
    return node.value if isinstance(node, ast.Constant) and type(node.value) is kind else None


def short_wait(node: ast.AST) -> str | None:
    """A limit in seconds that a busy machine could reach."""
    if not isinstance(node, ast.Call) or named(node.func, WAITS) is None:
        return None
    limits = [k.value for k in node.keywords if k.arg == "timeout"]
    if named(node.func, {"wait", "join"}):
        limits += node.args[:1]
    for limit in limits:
        seconds = constant(limit, int)
        if seconds is None:
            seconds = constant(limit, float)
        if seconds is not None and seconds < LEAST_LIMIT_S:
            return f"{dotted(node.func)} waits {seconds:g} s"
    return None


def from_outside(node: ast.AST) -> str | None:
    """An environment variable of a person, a port, or a folder beside the project."""
    if isinstance(node, ast.Subscript) and dotted(node.value).endswith("environ"):
        if isinstance(node.ctx, ast.Load) and constant(node.slice, str) in ENVIRONMENT:
            return f"reads ${constant(node.slice, str)}"
    if isinstance(node, ast.Call) and dotted(node.func) in ("os.getenv", "os.environ.get"):
        if constant(node.args[0], str) in ENVIRONMENT:
            return f"reads ${constant(node.args[0], str)}"
    if isinstance(node, ast.Call) and named(node.func, SERVERS):
        address = node.args[0] if node.args else None
        if isinstance(address, ast.Tuple) and constant(address.elts[-1], int):
            return f"port {constant(address.elts[-1], int)}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        if SHARED.search(constant(node.right, str) or ""):
            return f"{node.right.value!r}, a folder beside the project"
    if (constant(node, str) or "").startswith("../shared"):
        return f"{node.value!r}, a folder beside the project"
    return None


def compares_times(node: ast.AST) -> str | None:
    """A comparison with what a table of times holds."""
    if not isinstance(node, ast.Compare) or isinstance(node.ops[0], ast.In | ast.NotIn):
        return None
    for inner in ast.walk(node):
        if isinstance(inner, ast.Subscript) and TIMES.search(constant(inner.slice, str) or ""):
            return f"compares the time {inner.slice.value!r}"
    return None


def offences(code: str, where: str) -> list[str]:
    """What in the code depends on a clock, a place or a person, a line each."""
    found = []
    for node in ast.walk(ast.parse(code)):
        said = None
        if isinstance(node, ast.Name | ast.Attribute | ast.alias):
            if name := named(node, CLOCKS):
                said = f"{name} is a clock"
            elif name := named(node, SLEEPS):
                said = f"{name} waits for nothing certain"
            elif name := named(node, PLACES):
                said = f"{name} depends on who runs this, and where"
        said = said or short_wait(node) or from_outside(node) or compares_times(node)
        if said:
            found.append(f"{where}:{getattr(node, 'lineno', 0)}: {said}")
    return sorted(set(found))


def compared(path: Path) -> list[tuple[str, str]]:
    """(place, code) of the cells whose outputs nbval compares, and of those that assert."""
    cells = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        code = "".join(cell["source"])
        tags = set(cell["metadata"].get("tags", []))
        ignored = bool(tags & {"nbval-ignore-output", "nbval-skip"})
        if cell["cell_type"] == "code" and (not ignored or "assert " in code):
            cells.append((f"notebooks/{path.name} cell {number}", code))
    return cells


def test_no_test_looks_at_a_clock_or_at_who_runs_it():
    found = []
    for path in [ROOT / "conftest.py", *sorted((ROOT / "tests").rglob("*.py"))]:
        name = path.relative_to(ROOT).as_posix()
        if path != Path(__file__) and name != WAITING:
            found += offences(path.read_text(encoding="utf-8"), name)
    assert not found, "\n".join(found)


def test_no_compared_cell_looks_at_a_clock_or_at_who_runs_it():
    cells = [c for path in sorted((ROOT / "notebooks").glob("*.ipynb")) for c in compared(path)]
    found = [line for where, code in cells for line in offences(code, where)]
    assert len(cells) > 50 and not found, "\n".join(found)


@pytest.mark.parametrize(
    "code, said",
    [
        ("import time\nassert time.perf_counter() - t < 3", "x:2: perf_counter is a clock"),
        ("from time import monotonic as now", "x:1: monotonic is a clock"),
        ("from reference.timing import timed", "x:1: timed is a clock"),
        ("time.sleep(3)", "x:1: sleep waits for nothing certain"),
        ("assert child.wait(10) == 0", "x:1: child.wait waits 10 s"),
        ("run(['a'], timeout=5)", "x:1: run waits 5 s"),
        ("assert found['train ms'] > found['eval ms']", "x:1: compares the time 'train ms'"),
        ("assert row['frames/s'] > 0", "x:1: compares the time 'frames/s'"),
        ("Path(__file__).parents[2] / 'shared/papers'", "x:1: 'shared/papers', a folder beside"),
        ("os.environ['HOME']", "x:1: reads $HOME"),
        ("Path.home() / 'a'", "x:1: Path.home depends on who runs this"),
        ("HTTPServer(('127.0.0.1', 8000), H)", "x:1: port 8000"),
    ],
)
def test_what_depends_on_a_clock_or_a_place_is_named(code, said):
    (line,) = offences(code, "x")
    assert line.startswith(said)


def test_what_is_certain_is_let_be():
    steady = (
        "monkeypatch.setenv('HOME', str(tmp_path))\nHTTPServer(('127.0.0.1', 0), H)\n"
        "child.wait(300)\nrun(['a'], timeout=120)\n', '.join(names)\ntime = [0, 1]\n"
        "assert set(found) == {'train ms', 'eval ms'}\nfound['duration_s'] == 3\n"
    )
    assert offences(steady, "x") == []
