"""The machinery round the notebooks, for `make` and DVC: `python -m vlact.tools.pipeline COMMAND`.

repro PROFILE [-f]      `dvc repro` on several stages at a time; -f runs every stage again
repro PROFILE --dry-run memory, hours and files of every stage; begins nothing
summary PROFILE         what a run made, and where to look
notebook NAME PROFILE   one notebook by papermill, for a stage
code                    code of every notebook, and hashes of all that it imports, to data/code
index PROFILE           gather the results map of a profile into data/<profile>/figures
execute [NAME ..]       run notebooks in place on their tiny default and store the outputs
publish PROFILE         copy a run's tables and figures to figures/<profile>, with run.json
docs                    write what is generated: environment.yml, notebooks' costs
"""

import csv
import fcntl
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

from vlact import ROOT
from vlact.report.tables import FEWEST_SEEDS, write_text
from vlact.runtime import forkserver, leash
from vlact.runtime.code import file_hash, library
from vlact.tools import notebooks
from vlact.tools.dag import Refused, fingerprint, graph, known, parameters, persistent, short

DVC = [sys.executable, "-m", "vlact.runtime.forkserver", "-m", "dvc"]
BY_NAME = [sys.executable, "-m", "vlact.stages"]
GIVES_WAY = ["nice", "-n", "5"]  # more would starve it on a busy machine
# glibc: freed memory is used again, not mapped
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
HINTS = (  # lines of DVC and of kernels that tell a reader nothing
    "To track the changes",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config core.autostage",
    "Use `dvc push`",
    "Updating lock file",
    "[IPKernelApp] WARNING | Kernel is running over TCP",
    "[IPKernelApp] ERROR | KeyboardInterrupt caught in kernel",
    "Loading weights:",
)
BUSY, INTERRUPTED = 3, 130  # exit codes


# What stages depend on
def code() -> None:
    """Code cells of every notebook to data/code, and a hash of each library file that they need."""
    for notebook in sorted(notebooks.NOTEBOOKS.glob("*.ipynb")):
        text = notebooks.code_of(notebook)
        hashes = [f"# {file_hash(f)} {f.relative_to(ROOT)}\n" for f in library(text)]
        write_text(ROOT / "data" / "code" / f"{notebook.stem}.py", text + "\n" + "".join(hashes))


# Results map
def index(profile: str) -> None:
    """Every table and figure of a profile: index.csv, and index.html to look at them."""
    from vlact.report import gallery
    from vlact.tools import results_map

    folder = ROOT / "data" / profile / "figures"
    table = results_map.gathered(folder)
    write_text(folder / "index.csv", table.to_csv(index=False, lineterminator="\n"))
    write_text(folder / "index.html", gallery.page(table, folder, profile, caveat(profile)))


def caveat(profile: str) -> str:
    """What a run of few seeds cannot say; "" for one that can."""
    seeds = len(parameters()["profiles"][profile]["seeds"])
    if seeds >= FEWEST_SEEDS:
        return ""
    return (
        f"{seeds} seeds decide nothing: this run shows that everything works.\n"
        "What the papers' claims come to stands in figures/study/README.md."
    )


def summary(profile: str) -> None:
    """Say what a run made, where to look, and what it can decide."""
    folder = ROOT / "data" / profile / "figures"
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {k: sum(r["item"].startswith(k) for r in rows) for k in ("table", "figure")}
    more = sum(r["paper"] == "beyond" for r in rows)
    print(
        f"{profile}: {kinds['table']} tables and {kinds['figure']} figures of the papers and "
        f"{more} more"
    )
    print(f"look at {folder.relative_to(ROOT)}/index.html, or run `make site PROFILE={profile}`")
    if said := caveat(profile):
        print(said)


# Before a run
def room_for(profile: str, needed_gb: float) -> None:
    """Look whether the disk has room.

    Raises:
        Refused: It has not; says how much is needed and free.
    """
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < needed_gb:
        raise Refused(
            f"{profile} needs about {needed_gb:.1f} GB of disk and {free_gb:.1f} GB are free in "
            f"{ROOT}; make room, or choose a smaller profile"
        )


def alone(profile: str):
    """An open file that marks this checkout as busy until the process ends, however it ends.

    Raises:
        Refused: Another run is going on.
    """
    path = ROOT / "data" / "tmp" / "run"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise Refused(
            f"another run is going on in this checkout ({file.read().strip() or 'just begun'}); "
            "wait for it or stop it; nothing was changed"
        ) from None
    file.truncate(0)
    file.write(f"PROFILE={profile}, process {os.getpid()}, since {time.strftime('%H:%M')}\n")
    file.flush()
    return file


# Running the graph
def changed(after: dict[str, set[str]]) -> set[str]:
    """Stages that DVC would run, and all that come after them.

    Raises:
        subprocess.CalledProcessError: `dvc status` failed, and has said why.
    """
    # DVC reads the whole graph anew for every stage it is asked for: the last ones bring the rest
    last = [s for s in after if not any(s in before for before in after.values())]
    command = [*DVC, "status", "--json", "--with-deps", *last]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    out = set(json.loads(found)) & set(after)
    for stage in after:  # those before stand before it
        if after[stage] & out:
            out.add(stage)
    return out


class Run:
    """One run of a profile's graph: what is to be done, what is running, how long it takes.

    Attributes:
        after: Stages by address, with those that each waits for.
        by_name: Those that run without their notebook and without DVC, on real data.
        todo: What has to run and has not begun.
        running: When each running stage began.
    """

    def __init__(self, profile: str, force: bool, environment: dict[str, str]):
        numbers = parameters()
        self.profile, self.force, self.environment = profile, force, environment
        self.after, self.by_name = graph(profile), set()
        if numbers["profiles"][profile]["world"]["source"] != "rendered":
            self._leave_out(numbers["real_data"])
        elif force:
            for folder in persistent(profile):
                shutil.rmtree(ROOT / folder, ignore_errors=True)
        # DVC watches the data itself
        rest = {s: b - self.by_name for s, b in self.after.items() if s not in self.by_name}
        self.todo = (set(rest) if force else changed(rest)) | self.by_name
        self.count, self.at_once = len(self.todo), numbers["profiles"][profile]["parallel_stages"]
        minutes = numbers["stage_minutes"].get(profile, {})
        self.cost = {stage: minutes.get(short(stage), 0.1) for stage in self.after}
        # minutes from the start of a stage to the end of all that wait for it
        self.chain: dict[str, float] = {}
        for stage in reversed(self.after):
            later = [self.chain[s] for s in self.after if stage in self.after[s]]
            self.chain[stage] = self.cost[stage] + max(later, default=0.0)
        self.running: dict[str, float] = {}
        self.children: dict[str, subprocess.Popen] = {}
        self.ended: queue.SimpleQueue = queue.SimpleQueue()
        self.spent = self.expected = 0.0

    def _leave_out(self, rules: dict) -> None:
        """Stages of the rendered worlds, and those whose data is not there, see params.yaml."""
        address = {short(stage): stage for stage in self.after}
        self.by_name = {address[stage] for stage in rules["by_name"]}
        out = set(rules["left_out"])
        print(f"{self.profile}: left out are stages of the rendered worlds: {', '.join(out)}")
        for stage, folder in rules["if_there"].items():
            if not (ROOT / "data" / self.profile / folder).is_dir():
                out.add(stage)
                print(
                    f"{self.profile}: {stage} is left out, "
                    f"data/{self.profile}/{folder} is not there"
                )
        gone = {address[stage] for stage in out}
        self.after = {s: before - gone for s, before in self.after.items() if s not in gone}

    def minutes_left(self) -> float:
        """From `stage_minutes`, and from how long stages of this run took against it."""
        waiting = [self.chain[s] for s in self.todo]
        whole = sum(self.cost[s] for s in self.todo | set(self.running)) / self.at_once
        pace = self.spent / self.expected if self.expected > 0.2 else 1
        return max([*waiting, whole]) * pace

    def begin(self, stage: str) -> None:
        """Start a stage; it gives way on the cores to one that more waits for."""
        self.todo.remove(stage)
        number, left = self.count - len(self.todo), self.minutes_left()
        print(
            f"[{number}/{self.count}] {short(stage)}: about {left:.0f} min left in all", flush=True
        )
        forced = ["--force"] if self.force else []
        command = [*DVC, "--wait-for-lock", "repro", "--single-item", *forced, stage]
        if stage in self.by_name:
            command = [*BY_NAME, short(stage), self.profile]
        if any(self.chain[other] > self.chain[stage] for other in self.running):
            command = [*GIVES_WAY, *command]
        child = self.children[stage] = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment | {leash.PART: stage},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self.running[stage] = time.monotonic()
        reader = threading.Thread(target=self._relay, args=(stage, child), daemon=True)
        reader.start()
        threading.Thread(target=self._wait, args=(stage, child, reader), daemon=True).start()

    def _relay(self, stage: str, child: subprocess.Popen) -> None:
        for line in child.stdout:
            if line.strip() and not line.startswith(HINTS):
                print(f"{short(stage)} | {line}", end="", flush=True)

    def _wait(self, stage: str, child: subprocess.Popen, reader: threading.Thread) -> None:
        status = child.wait()
        if status:
            # what a killed process leaves behind would hold the pipe, and the next run's files
            leash.end(self.environment[leash.NAME], stage)
        reader.join()
        self.ended.put((stage, status))

    def ready(self) -> list[str]:
        """Stages whose inputs are there, the one that most waits for first."""
        open_ = self.todo | set(self.running)
        return sorted(
            (s for s in self.todo if not self.after[s] & open_), key=lambda s: -self.chain[s]
        )

    def go(self) -> int:
        """Run all; 0, or what the first stage that failed returned: those beside it end first."""
        failed = 0
        while self.running or (self.todo and not failed):
            for stage in self.ready()[: self.at_once - len(self.running)] if not failed else ():
                self.begin(stage)
            stage, status = self.ended.get()
            self.spent += (time.monotonic() - self.running.pop(stage)) / 60
            self.expected += self.cost[stage]
            failed = failed or status
        return failed

    def stop(self) -> None:
        """Interrupt what runs, and wait until it has stopped."""
        for stage in self.running:
            os.killpg(self.children[stage].pid, signal.SIGINT)
        while self.running:
            self.running.pop(self.ended.get()[0])


def repro(profile: str, force: bool = False) -> int:
    """Bring every stage up to date, `parallel_stages` of them at a time, in a good order.

    It changes no file that git tracks but data/dvc.lock. Real data is never given to DVC to make:
    see `real_data` in params.yaml. Whatever it started ends with it, see `vlact.runtime.leash`.

    Returns:
        0, or what the first stage that failed returned; 130 after Ctrl-C or a kill.

    Raises:
        Refused: Unknown profile, too little room, or another run.
    """
    numbers = parameters()
    room_for(known(profile), numbers["disk_gb"][profile])
    start = time.monotonic()
    environment = (
        os.environ
        | KEEP
        | {
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
            "JUPYTER_PREFER_ENV_PATH": "1",
            "VLACT_PROGRESS": "lines",
            "OMP_WAIT_POLICY": "PASSIVE",  # a thread that waits leaves its core to the other stage
        }
    )
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill is a Ctrl-C
    try:
        with ExitStack() as held:
            held.enter_context(alone(profile))
            # left by a run that had nothing to do: DVC knows the files as they are
            done, seen = ROOT / "data" / "tmp" / f"done-{profile}", fingerprint(profile)
            if not force and done.is_file() and done.read_text() == seen:
                print(f"{profile}: up to date", flush=True)
                summary(profile)
                return 0
            environment = held.enter_context(leash.held(environment))
            environment = held.enter_context(forkserver.serving(environment))
            run = Run(profile, force, environment)
            try:
                failed = run.go()
            except KeyboardInterrupt:
                run.stop()
                raise
        said = "stopped" if failed else "up to date"
        print(f"{profile}: {said} after {(time.monotonic() - start) / 60:.1f} min", flush=True)
        if not failed:
            if not run.count:
                done.write_text(seen)
            summary(profile)
        return failed
    except subprocess.CalledProcessError as error:  # `dvc status`, which has said why
        return error.returncode
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: list[str]) -> int:
    from vlact.tools import docs, publish

    command, *rest = arguments or [""]
    commands = {  # and how many arguments each takes
        "code": (code, (0,)),
        "notebook": (notebooks.run, (2,)),
        "index": (index, (1,)),
        "summary": (summary, (1,)),
        "publish": (publish.publish, (1,)),
        "docs": (docs.docs, (0,)),
    }
    try:
        if command == "repro" and rest and rest[1:] in ([], ["-f"]):
            return repro(rest[0], rest[1:] == ["-f"])
        if command == "repro" and rest[1:] == ["--dry-run"]:
            from vlact.tools import dry_run

            return dry_run.show(rest[0]) or 0
        if command == "execute":
            return notebooks.execute(rest) or 0
        if command in commands and len(rest) in commands[command][1]:
            return commands[command][0](*rest) or 0
    except Refused as error:
        print(error, file=sys.stderr)
        return BUSY if "another run" in str(error) else 2
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
