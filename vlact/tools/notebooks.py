"""Notebooks as files: run by papermill for a stage or in place, normalised; what they cost."""

import base64
import io
import json
import logging
import re
import sys
import time
from pathlib import Path

from vlact import ROOT
from vlact.report.tables import write_text
from vlact.tools import provenance
from vlact.tools.dag import parameters, stage_of

NOTEBOOKS = ROOT / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"  # lives as long as its kernel
CELL_TIMEOUT_S = 3600  # of a notebook that is run in place: it hangs
START_TIMEOUT_S = 600  # of a kernel; a busy machine takes minutes to import everything


def code_of(notebook: Path) -> str:
    """Code cells and their tags as one text; outputs, prose and metadata do not count."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [
        (c["metadata"].get("tags", []), "".join(c["source"]))
        for c in cells
        if c["cell_type"] == "code"
    ]
    marked = [f"# %% {' '.join(tags)}".rstrip() + f"\n{source}" for tags, source in code]
    return "\n\n".join(marked) + "\n"


def run(name: str, profile: str) -> int:
    """Execute a notebook for a stage, into data/executed.

    Args:
        name: File name without its end.
        profile: Of params.yaml; its workspace has the same name.

    Returns:
        0; 1 where a cell failed, after its own message.
    """
    import papermill

    out = ROOT / "data" / "executed" / f"{profile}-{name}.ipynb"
    out.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        papermill.execute_notebook(
            NOTEBOOKS / f"{name}.ipynb",
            out,
            parameters={"profile": profile, "workspace": profile},
            kernel_name="python3",
            request_save_on_cell_execute=False,
            progress_bar=False,
            log_output=True,
            start_timeout=START_TIMEOUT_S,
        )
    except papermill.PapermillExecutionError as error:
        print(f"{error.ename}: {error.evalue}", file=sys.stderr)
        print(f"cell {error.exec_count} of notebooks/{name}.ipynb; all of it in {out}")
        return 1
    provenance.note(profile, name)
    return 0


def small(picture: str) -> str:
    """A PNG in base64 with 256 colours, where that is smaller."""
    from PIL import Image

    image, out = Image.open(io.BytesIO(base64.b64decode(picture))), io.BytesIO()
    if image.mode == "P":  # it is small
        return picture
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return min(picture, base64.b64encode(out.getvalue()).decode(), key=len)


def normalise(notebook: dict) -> dict:
    """A notebook without what changes from run to run: counts from 1, no times, no widget state."""
    count = 0
    for i, cell in enumerate(notebook["cells"]):
        tags = cell["metadata"].get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
        cell["id"] = f"cell-{i:02d}"
        if cell["cell_type"] != "code":
            continue
        if "".join(cell["source"]).strip():
            count += 1
            cell["execution_count"] = count
        outputs = []
        for output in cell["outputs"]:
            if output.get("name") == "stderr":
                continue
            if output["output_type"] in ("display_data", "execute_result"):
                output["metadata"] = {}
                output["data"].pop(WIDGET, None)
                if picture := output["data"].get("image/png"):
                    output["data"]["image/png"] = small(picture)
            if output["output_type"] == "execute_result":
                output["execution_count"] = count
            outputs.append(output)
        cell["outputs"] = outputs
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def execute(names: list[str]) -> None:
    """Run notebooks in place on their tiny default and store the outputs, normalised.

    Args:
        names: Parts of file names; all notebooks if empty.
    """
    import nbformat
    from nbclient import NotebookClient

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and not any(n in path.name for n in names):
            continue
        start = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT_S,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(NOTEBOOKS)}},
        ).execute()
        normal = normalise(json.loads(nbformat.writes(notebook)))
        text = json.dumps(normal, indent=1, sort_keys=True, ensure_ascii=False)
        write_text(path, text + "\n")
        print(f"{path.name}: {time.monotonic() - start:.0f} s", flush=True)


# What they cost
def costs() -> dict[Path, dict[str, float]]:
    """Minutes of the stage of every notebook, by profile, from `stage_minutes` in params.yaml."""
    minutes = parameters()["stage_minutes"]
    return {
        NOTEBOOKS / f"{notebook}.ipynb": {k: m[stage] for k, m in minutes.items() if stage in m}
        for notebook, stage in stage_of().items()
    }


def costed(text: str, minutes: dict[str, float]) -> str:
    """A notebook's file with the time that it takes, by profile."""
    names = {
        "smoke": "tiny {}",
        "mini": "`mini` {} (on one of two cores)",
        "study": "`study` {} (on both)",
        "real": "`real` {} (on both)",
    }
    said = [
        name.format(f"{60 * m:.0f} s" if (m := minutes[k]) < 1 else f"{m:.2g} min")
        for k, name in names.items()
        if k in minutes
    ]
    return re.sub(r"(\*\*Cost\*\* )[^\\\"]*", lambda found: found[1] + " · ".join(said), text)
