"""A run's tables and figures as the committed results, with where they come from."""

import contextlib
import json
import shutil

from vlact import ROOT, params
from vlact.report.tables import write_text
from vlact.tools import docs, zoo
from vlact.tools.provenance import run_of
from vlact.tools.results_map import gathered


def publish(profile: str) -> int:
    """Copy data/<profile>/figures to figures/<profile>; stages that were not made here keep theirs,
    and so does one whose published run is the same and was drawn again since.

    run.json says of each stage on what machine, with which versions and of which commit it was run.

    Returns:
        0; 2 where there is nothing to publish.
    """
    source, to = ROOT / "data" / profile / "figures", ROOT / "figures" / profile
    if profile not in docs.PUBLISHED or not source.is_dir():
        expected = f"expected one of {docs.PUBLISHED} after `make repro PROFILE=..`"
        print(f"publish: {expected}; data/{profile}/figures is not there")
        return 2
    path = to / "run.json"
    run = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"stages": {}}
    for folder in sorted(x for x in source.iterdir() if x.is_dir()):
        made, there = run_of(profile, folder), run["stages"].get(folder.name, {})
        if len(there) > len(made) and there == there | made:  # what is published says more of it
            continue
        shutil.rmtree(to / folder.name, ignore_errors=True)
        shutil.copytree(folder, to / folder.name)
        run["stages"][folder.name] = made
    if (source / "claims").is_dir():
        for name in ("rules.md", "rules.csv"):  # of the ledger before, see vlact.tools.rejudge
            (to / name).unlink(missing_ok=True)
    write_text(to / "index.csv", gathered(to).to_csv(index=False, lineterminator="\n"))
    p = params.load(profile)
    with contextlib.suppress(FileNotFoundError):  # a run whose weights are gone keeps its page
        write_text(to / "zoo.md", zoo.page(p.data, profile, zoo.table(p.data, profile)))
    write_text(path, json.dumps(run, indent=1) + "\n")
    docs.docs()
    print(f"figures/{profile}: {len(run['stages'])} stages, see README.md and run.json there")
    return 0
