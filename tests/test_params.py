"""What papermill hands over is what a person means, or refused with the near names."""

import ast
import json

import pytest

from vlact import ROOT, params

GIVEN = {"profile": "smoke", "workspace": "scratch", "In": [""], "_i": "x", "json": json}


@pytest.mark.parametrize(
    "kind, text, meant",
    [
        (bool, "False", False),
        (bool, "yes", True),
        (bool, True, True),
        (list, "[1, 2]", [1, 2]),
        (type(None), "null", None),
        (float, "1", 1.0),
        (float, "1e-3", 1e-3),
        (int, "5", 5),
        (str, "5", "5"),
        (str, "", ""),
    ],
)
def test_text_means_what_a_person_means(kind, text, meant):
    found = params.of_notebook(GIVEN | {"given": text}, given=kind)["given"]
    assert found == meant and type(found) is type(meant)


@pytest.mark.parametrize(
    "more, said",
    [
        ({"reads": "maybe"}, "reads: expected bool, got 'maybe'"),
        ({"reads": 1}, "reads: expected bool, got 1"),
        ({"reads": "[1, "}, "reads: expected bool"),
        ({"reeds": True}, "unknown parameter 'reeds', did you mean 'reads'?; expected one of"),
        ({"profile": "smok"}, "unknown profile 'smok', did you mean 'smoke'?"),
        ({"workspace": "smoek"}, "workspace: no such folder under data/: 'smoek'; did you mean"),
        ({"workspace": "mini"}, "workspace: 'mini' holds results of profile 'mini'"),
        ({"workspace": "../figures"}, "workspace: expected the name of a folder under data/"),
    ],
)
def test_anything_else_is_named_with_what_was_expected(more, said):
    with pytest.raises(ValueError) as error:
        params.of_notebook(GIVEN | {"reads": False} | more, reads=bool)
    assert said in str(error.value)


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match="reads: expected bool.*; unknown profile 'smok'"):
        params.of_notebook(GIVEN | {"reads": "maybe", "profile": "smok"}, reads=bool)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_every_notebook_checks_its_parameters_before_anything_else(path):
    cells = [
        c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"
    ]
    first, second = ("".join(c["source"]) for c in cells[:2])
    assert "parameters" in cells[0]["metadata"]["tags"]
    given = {n.targets[0].id: n.value.value for n in ast.parse(first).body}
    shown = params.banner(given["profile"], given["workspace"])
    assert cells[1]["outputs"][0]["text"] == [f"{shown}\n"], "run `make notebooks`"
    assert "globals().update(" in second and "params.of_notebook(" in second
    calls = [n for n in ast.walk(ast.parse(second)) if isinstance(n, ast.Call)]
    kinds = {k.arg: k.value.id for call in calls for k in call.keywords}
    assert {"profile": "str", "workspace": "str", **kinds} == {
        name: type(value).__name__ for name, value in given.items()
    }
