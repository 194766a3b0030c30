"""environment.yml: conda for Python, pip with every version of requirements.lock."""

import re
import tomllib

from vlact import ROOT


def locked() -> list[str]:
    """Every entry of the lock, `name==version` with its marker, without hashes."""
    lock = (ROOT / "requirements.lock").read_text()
    return [line.strip() for line in re.findall(r"(?m)^[A-Za-z0-9._-]+==[^\\\n]+", lock)]


def environment() -> str:
    """The file's text."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [f'      - "{line}"' if ";" in line else f"      - {line}" for line in locked()]
    return "\n".join(
        [
            "# Generated from pyproject.toml and requirements.lock by `make lock`.",
            f"name: {project['name']}",
            "channels:",
            "  - conda-forge",
            "dependencies:",
            "  - python=3.11",
            "  - pip",
            "  - pip:",
            *lines,
            "      - -e .",
            "",
        ]
    )
