"""The machinery round the notebooks, for `make` and DVC: `python -m vlact.tools.pipeline COMMAND`.

nbsrc                code cells of every notebook, and hashes of all that they import, to
data/nbsrc: what stages depend on execute [NAME ..]    run notebooks in place on their tiny default
and store the outputs, normalised index PROFILE        gather the results map of a profile into
figures/<profile>/index.csv docs                 write what is generated: environment.yml, README's
results table, what notebooks cost repro PROFILE [-f]   `dvc repro` on two stages at a time, with an
estimate of the time left; -f runs every stage again
"""

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import yaml

from vlact import ROOT
from vlact.report.tables import markdown, write_text
from vlact.runtime import warm
from vlact.runtime.code import file_hash, library
from vlact.tools.environment import environment

NOTEBOOKS = ROOT / "notebooks"
PAPERS = ("ace", "actionvlm", "transfer", "beyond")
HINTS = (
    "To track the changes",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config core.autostage",
    "Use `dvc push`",
    "Updating lock file",
    "[IPKernelApp] WARNING | Kernel is running over TCP",  # within this machine
    # every kernel is interrupted before it is told to end
    "[IPKernelApp] ERROR | KeyboardInterrupt caught in kernel",
    "Loading weights:",
)
DVC = [sys.executable, "-m", "vlact.runtime.warm", "-m", "dvc"]
BY_NAME = [sys.executable, "-m", "vlact.stages"]
GIVES_WAY = ["nice", "-n", "19"]
# folders that DVC does not empty, see dvc.yaml
PERSISTENT = ("worlds", "stadium", "aligned", "kitchens")
# glibc: freed memory is used again, not mapped
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
MAP_COLUMNS = ["paper", "item", "title", "files", "notebook", "stage"]


# Notebooks
def code_of(notebook: Path) -> str:
    """Code cells and their tags as one text; outputs, prose and metadata do not count."""
    cells = json.loads(notebook.read_text())["cells"]
    code = [
        (c["metadata"].get("tags", []), "".join(c["source"]))
        for c in cells
        if c["cell_type"] == "code"
    ]
    return (
        "\n\n".join(f"# %% {' '.join(tags)}".rstrip() + f"\n{source}" for tags, source in code)
        + "\n"
    )


def nbsrc() -> None:
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        code = code_of(notebook)
        hashes = [f"# {file_hash(f)} {f.relative_to(ROOT)}\n" for f in library(code)]
        write_text(ROOT / "data" / "nbsrc" / f"{notebook.stem}.py", code + "\n" + "".join(hashes))


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
    import nbformat
    from nbclient import NotebookClient

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and not any(n in path.name for n in names):
            continue
        start = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(NOTEBOOKS)}},
        ).execute()
        text = json.dumps(
            normalise(json.loads(nbformat.writes(notebook))),
            indent=1,
            sort_keys=True,
            ensure_ascii=False,
        )
        write_text(path, text + "\n")
        print(f"{path.name}: {time.monotonic() - start:.0f} s", flush=True)


# Results map
def index(profile: str) -> None:
    folder = ROOT / "figures" / profile
    rows = [
        row
        for path in sorted((folder / "map").glob("*.json"))
        for row in json.loads(path.read_text())
    ]

    # papers first, in each its tables, then its figures; the rest by notebook
    def place(row: dict) -> tuple:
        numbered = re.fullmatch(r"(table|figure)(\d+)", row["item"])
        item = (("table", "figure").index(numbered[1]), int(numbered[2])) if numbered else (2, 0)
        return PAPERS.index(row["paper"]), item, row["notebook"], row["item"]

    table = pd.DataFrame(sorted(rows, key=place), columns=MAP_COLUMNS)
    write_text(folder / "index.csv", table.to_csv(index=False, lineterminator="\n"))


def results_table(profile: str = "study") -> str:
    """README's results map, from the committed index."""
    table = pd.read_csv(ROOT / "figures" / profile / "index.csv")
    names = dict(
        zip(PAPERS, ("ACE", "ActionVLM", "Motion transfer", "beyond the papers"), strict=True)
    )
    rows = []
    for row in table.itertuples():
        shown = [f for f in row.files.split() if f.endswith((".png", ".md"))]
        links = ", ".join(f"[{Path(f).suffix[1:]}](figures/{profile}/{f})" for f in shown)
        item = (
            re.sub(r"^(table|figure)", lambda m: m[1].capitalize() + " ", row.item)
            if row.paper != "beyond"
            else "–"
        )
        rows.append(
            [
                names[row.paper],
                item,
                row.title,
                links,
                f"[{row.notebook[:2]}](notebooks/{row.notebook})",
                f"`{row.stage}`",
            ]
        )
    return markdown(
        pd.DataFrame(rows, columns=["paper", "item", "what", "result", "notebook", "stage"])
    )


def readme(text: str) -> str:
    """README with its results table renewed between the two markers."""
    start, end = "<!-- results: generated by `make lock` -->\n", "<!-- /results -->"
    head, rest = text.split(start)
    return head + start + results_table() + end + rest.split(end)[1]


def costs() -> dict[Path, dict[str, float]]:
    """Minutes of the stage of every notebook, by profile, from `stage_minutes` in params.yaml."""
    minutes = yaml.safe_load((ROOT / "params.yaml").read_text())["stage_minutes"]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    made = {
        ROOT / found[0]: name
        for name, s in stages.items()
        if (found := re.search(r"notebooks/\w+\.ipynb", s.get("cmd", "")))
    }
    return {
        path: {k: m[name] for k, m in minutes.items() if name in m} for path, name in made.items()
    }


def costed(text: str, minutes: dict[str, float]) -> str:
    """A notebook's file with the time that it takes, by profile."""
    names = {
        "smoke": "tiny {}",
        "mini": "`mini` {} (on one of two cores)",
        "study": "`study` {} (on both)",
    }
    said = [
        name.format(f"{60 * m:.0f} s" if (m := minutes[k]) < 1 else f"{m:.2g} min")
        for k, name in names.items()
    ]
    return re.sub(r"(\*\*Cost\*\* )[^\\\"]*", lambda found: found[1] + " · ".join(said), text)


# Environment
def docs() -> None:
    write_text(ROOT / "environment.yml", environment())
    write_text(ROOT / "README.md", readme((ROOT / "README.md").read_text()))
    for path, minutes in costs().items():
        write_text(path, costed(path.read_text(), minutes))


# Running the graph
def switch(profile: str) -> str:
    """params.yaml with the run block pointing at a profile.

    Raises:
        ValueError: Unknown profile.
    """
    text = (ROOT / "params.yaml").read_text()
    known = sorted(yaml.safe_load(text)["profiles"])
    if profile not in known:
        raise ValueError(f"PROFILE: expected one of {known}, got {profile!r}")
    return re.sub(r"(?m)^  <<: \*\w+", f"  <<: *{profile}", text)


def graph(profile: str) -> dict[str, set[str]]:
    """Every stage of dvc.yaml by its address, and the stages whose outputs it reads."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

    def paths(stage: dict, what: str) -> list[str]:
        return [
            (x if isinstance(x, str) else next(iter(x))).replace("${item.profile}", profile)
            for x in stage.get(what, ())
        ]

    address = {
        name: f"{name}@{profile}" if "matrix" in stage else name for name, stage in stages.items()
    }
    made = {out: address[name] for name, stage in stages.items() for out in paths(stage, "outs")}
    return {
        address[name]: {
            by
            for out, by in made.items()
            for d in paths(stage, "deps")
            if f"{d}/".startswith(f"{out}/")
        }
        for name, stage in stages.items()
    }


def changed(after: dict[str, set[str]]) -> set[str]:
    """Stages that DVC would run, and all that come after them."""
    found = subprocess.run(
        [*DVC, "status", "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    out = set(json.loads(found)) & set(after)
    for stage in after:  # those before stand before it
        if after[stage] & out:
            out.add(stage)
    return out


def repro(profile: str, force: bool = False) -> int:
    """Bring every stage up to date: `dvc repro --single-item` on each, `lanes` of them at a time,
    in an order that lasts shortest.

    A stage that starts beside one that more waits for gives way to it on the cores.

    Real data is never given to DVC to make: see `real_data` in params.yaml.

    Before each stage it says how long the rest should take, from `stage_minutes` in params.yaml
    (measured on two cores) and from how long the stages of this run took against theirs.

    Returns:
        0, or what the first stage that failed returned; those beside it end first. 130 after Ctrl-C
        or a kill.
    """
    switched, numbers = switch(profile), yaml.safe_load((ROOT / "params.yaml").read_text())
    # which profile to go back to, also after a run that was killed
    kept = ROOT / "data" / "tmp" / "profile"
    if not kept.is_file():
        write_text(kept, numbers["run"]["name"])
    minutes, shape, start = (
        numbers["stage_minutes"].get(profile, {}),
        numbers["profiles"][profile],
        time.monotonic(),
    )
    write_text(ROOT / "params.yaml", switched)
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "VLACT_PROGRESS": "lines",
    }
    # a thread that waits leaves its core to the other lanes
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    environment |= KEEP
    ended, running, children, failed, spent, expected = queue.SimpleQueue(), {}, {}, 0, 0.0, 0.0
    # a kill is a Ctrl-C
    before, ready_made = signal.signal(signal.SIGTERM, signal.default_int_handler), ExitStack()

    def begin(stage: str) -> None:
        command = [
            *DVC,
            "--wait-for-lock",
            "repro",
            "--single-item",
            *(["--force"] if force else []),
            stage,
        ]
        if stage in by_name:
            command = [*BY_NAME, stage.split("@")[0], profile]
        if any(chain[other] > chain[stage] for other in running):
            command = [*GIVES_WAY, *command]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        child = children[stage] = subprocess.Popen(
            command, cwd=ROOT, env=environment, start_new_session=True, **pipes
        )
        running[stage] = time.monotonic()
        threading.Thread(target=relay, args=(stage, child), daemon=True).start()

    def relay(stage: str, child: subprocess.Popen) -> None:
        for line in child.stdout:
            if line.strip() and not line.startswith(HINTS):
                print(f"{stage.split('@')[0]} | {line}", end="", flush=True)
        ended.put((stage, child.wait()))

    try:
        environment = ready_made.enter_context(warm.serving(environment))
        after, by_name = graph(profile), set()
        if shape["world"]["source"] == "rendered":
            for stage in PERSISTENT if force else ():
                shutil.rmtree(ROOT / "data" / profile / stage, ignore_errors=True)
        else:
            by_name = {f"{stage}@{profile}" for stage in numbers["real_data"]["by_name"]}
            left_out = {stage: f"{stage}@{profile}" for stage in numbers["real_data"]["left_out"]}
            lacking = {
                s: folder
                for s, folder in numbers["real_data"]["if_there"].items()
                if not (ROOT / "data" / profile / folder).is_dir()
            }
            print(
                f"{profile}: left out are stages of the rendered worlds: {', '.join(left_out)}",
                flush=True,
            )
            for stage, folder in lacking.items():
                print(
                    f"{profile}: {stage} is left out, data/{profile}/{folder} is not there",
                    flush=True,
                )
            left_out |= {stage: f"{stage}@{profile}" for stage in lacking}
            after = {
                stage: before - set(left_out.values())
                for stage, before in after.items()
                if stage not in left_out.values()
            }
        # DVC watches the data itself
        rest = {stage: before - by_name for stage, before in after.items() if stage not in by_name}
        todo = (set(rest) if force else changed(rest)) | by_name
        cost = {stage: minutes.get(stage.split("@")[0], 0.1) for stage in after}
        chain = {}  # minutes from the start of a stage to the end of all that wait for it
        for stage in reversed(after):
            chain[stage] = cost[stage] + max(
                (chain[s] for s in after if stage in after[s]), default=0.0
            )
        count = len(todo)
        while running or (todo and not failed):
            ready = (
                sorted(
                    (s for s in todo if not after[s] & (todo | set(running))),
                    key=lambda s: -chain[s],
                )
                if not failed
                else []
            )
            for stage in ready[: shape["lanes"] - len(running)]:
                left = max(
                    [chain[s] for s in todo]
                    + [sum(cost[s] for s in todo | set(running)) / shape["lanes"]]
                )
                left *= spent / expected if expected > 0.2 else 1
                print(
                    f"[{count - len(todo) + 1}/{count}] {stage.split('@')[0]}: about {left:.0f} "
                    "min left in all",
                    flush=True,
                )
                begin(stage)
                todo.remove(stage)
            stage, code = ended.get()
            spent, expected, failed = (
                spent + (time.monotonic() - running.pop(stage)) / 60,
                expected + cost[stage],
                failed or code,
            )
        print(
            f"{profile}: {'stopped' if failed else 'up to date'} after "
            f"{(time.monotonic() - start) / 60:.1f} min",
            flush=True,
        )
        return failed
    except subprocess.CalledProcessError as error:  # `dvc status`, which has said why
        return error.returncode
    except KeyboardInterrupt:
        for stage in running:
            os.killpg(children[stage].pid, signal.SIGINT)
        while running:  # they stop their stages
            running.pop(ended.get()[0])
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
        ready_made.close()
        write_text(
            ROOT / "params.yaml",
            switch(kept.read_text() if kept.is_file() else numbers["run"]["name"]),
        )
        kept.unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    command, *rest = arguments or [""]
    if command == "repro" and rest and rest[1:] in ([], ["-f"]):
        try:
            return repro(rest[0], rest[1:] == ["-f"])
        except ValueError as error:  # an unknown profile
            print(error, file=sys.stderr)
            return 2
    if command == "index" and len(rest) == 1:
        index(rest[0])
    elif command == "execute":
        execute(rest)
    elif command == "nbsrc" and not rest:
        nbsrc()
    elif command == "docs" and not rest:
        docs()
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
