"""`python -m vlact.tools.rejudge PROFILE`: a printed ledger under today's rules.

A claim whose stages have been published since with their score tables is judged on those. Of the
others the ledger that was printed before has each part's mean, 95 % interval and number of seeds.
That is enough for the verdicts of `vlact.report.verdicts`, where the part is still the one that is
asked for. Where the rival is another now, `ace_paired.csv` of the same run is asked for the
difference; where that has it not, the part waits for a new run, and the table says so.

Writes figures/<profile>/rules.md and .csv: each claim before and after, and why it changed. The
next `publish` of a ledger, which follows these rules itself, takes them away.
"""

import contextlib
import re
import sys
from pathlib import Path

import pandas as pd

from vlact import ROOT, params
from vlact.report import claims, evidence, published, tables, verdicts
from vlact.report.evidence import FAILS, HOLDS, OPEN
from vlact.report.power import MOST, seeds_for
from vlact.report.results.common import FOLDER
from vlact.report.statistics import LEVEL, Effect, ScoreFault
from vlact.report.tables import FEWEST_SEEDS

DATASETS = {"A1": "ATA", "A2": "IKEA", "A3": "GTEA"}
NOT_KEPT = "what was fixed now is not in the printed ledger, waits for a new run"
METRICS = {"accuracy": "SRT acc", "F1": "SRT F1"}
OTHERS = {  # parts of which the printed ledger has another comparison
    ("A7", "ata most"),
    ("A7", "ikea most"),
    ("A14", "least"),
    ("A14", "most"),
    ("A14", "middle"),
    ("V3", "mAP"),
}
NONE = "–"  # in the printed ledger
NEW = "new claim: not in the printed ledger, waits for a new run"


def shared(name: str, over: str, n: int) -> str:
    """What forbids a verdict and the printed table does not show, "" for nothing."""
    if over == "models":
        return "2 seeds"  # that every model was trained on
    if name == "T7":
        return f"{n} seeds share encoders, whose means are not in the printed ledger"
    return f"{n} {over if n != 1 else over[:-1]}" if n < FEWEST_SEEDS else ""


def renewed(folder: Path) -> pd.DataFrame:
    """Parts of today's claims, from tables printed by a run.

    Args:
        folder: figures/<profile>, with claims/claims_parts.csv and ace_results/ace_paired.csv.

    Returns:
        Rows as `vlact.report.verdicts.judge` wants them, and `source`, where the numbers are from.
    """
    fresh = scored(folder)
    old = pd.read_csv(folder / "claims" / "claims_parts.csv", na_values="–")
    pairs = pd.read_csv(folder / "ace_results" / "ace_paired.csv", na_values="–")
    pairs = pairs[pairs["ours"] == "ACE"].set_index(["dataset", "minus", "metric"])
    rows = []
    for name, fixed in published.read("claims_parts").groupby("id", sort=False):
        if name in fresh:
            rows += fresh[name].assign(source="scores").to_dict("records")
            continue
        printed = [*old[old["id"] == name].itertuples()]
        for i, part in enumerate(fixed.itertuples()):
            row = {"id": name, "part": part.part, "what": part.part, "over": "seeds", "why": NEW}
            if name == "A4":  # the rivals that were best are the only ones printed
                words = f"{part.part.split()[0].upper()}: harmonic mean over {part.rival}"
                same = [x for x in printed if x.part == words]
                row |= of_printed(same[0]) if same else {"why": NOT_KEPT}
            elif i < len(printed):
                row |= of_printed(printed[i])
            if (name, part.part) in OTHERS:
                row |= {"why": NOT_KEPT, "mean": None, "se": None}
            elif found := pair(name, part, pairs):
                row |= found
            rows.append(row)
    return pd.DataFrame(rows)


def scored(folder: Path) -> dict[str, pd.DataFrame]:
    """Parts of the claims whose stages were published with their scores, by claim."""
    found = {}
    for name in claims.CLAIMS if any(folder.glob(f"*/{FOLDER}")) else ():
        with contextlib.suppress(FileNotFoundError):
            found[name] = claims.measure(params.load(folder.name), folder, [name])
    return found


def of_printed(part) -> dict:
    """A printed part."""
    row = {"what": part.part, "over": part.over, "n": str(part.n), "mean": part.mean}
    row |= {"why": shared(part.id, part.over, part.n), "source": "claims_parts.csv"}
    if part.id == "T7":
        return row  # its interval takes them for independent
    try:
        effect = Effect.of_interval(part.mean, part.low, part.high, part.n, part.over[:-1])
    except ScoreFault as fault:
        return row | {"why": row["why"] or str(fault)}
    return row | verdicts.numbers(effect) | {"why": row["why"], "wins": part.wins}


def pair(name: str, part, pairs: pd.DataFrame) -> dict:
    """The part from `ace_paired.csv`, if it is against a rival that is fixed now; {} otherwise."""
    if name in DATASETS:
        words = METRICS[part.part.split()[0]]
        key, shift = (DATASETS[name], part.rival, words), 0.0
    elif name == "A5":
        dataset = part.part.split()[0].upper()
        key, shift = (dataset, part.rival, "seen acc"), claims.CLOSE
        words = f"seen acc + {shift:g}"
    else:
        return {}
    found = pairs.loc[key]
    wins, n = map(int, found["seeds won"].split("/"))
    effect = Effect.of_interval(*(found[["mean", "low", "high"]] + shift), n, "seed")
    row = {"what": f"{key[0]}: {words} over {part.rival}", "n": str(n), "over": "seeds"}
    source = {"source": "ace_paired.csv"}
    return row | verdicts.numbers(effect) | {"wins": wins} | source


def reason(before: str, row, parts: pd.DataFrame) -> str:
    """Why a claim's verdict is another now, or why it stays."""
    if row.why:
        return row.why
    decided = [f"{x.what} {x.mean:+.1f} [{x.low:+.1f}, {x.high:+.1f}]" for x in parts.itertuples()]
    if before == row.verdict:
        return "as before" if row.verdict != OPEN else f"detects {row.detects:.3g} or more"
    # the parts of a long claim that say most
    decided = sorted(decided, key=lambda x: float(re.search(r"[+-][\d.]+ \[", x)[0][:-2]))
    decided = decided[:2] + decided[-2:] if len(decided) > 4 else decided
    if before == FAILS and row.verdict == OPEN:
        return "below 0 alone, not with Holm over the parts: " + "; ".join(decided)
    if before == HOLDS and row.verdict == OPEN:
        return "above 0 alone, not with Holm over the parts: " + "; ".join(decided)
    return "rivals are those of the paper now: " + "; ".join(decided)


def needed(parts: pd.DataFrame) -> str:
    """Seeds with which every part of a claim that has a published size above 0 would find it."""
    wanted = []
    for x in parts[parts["se"].notna() & (parts["published"] > 0)].itertuples():
        if x.over == "seeds" and x.n.isdigit() and int(x.n) > 1:
            found = Effect(x.mean, x.se, x.df, {"seed": int(x.n)})
            wanted.append(seeds_for(found, x.published, LEVEL / len(parts)) or MOST + 1)
    if not wanted:
        return NONE
    return f"over {MOST}" if max(wanted) > MOST else str(max(max(wanted), FEWEST_SEEDS))


def before_and_after(folder: Path) -> pd.DataFrame:
    """Every claim's verdict as printed and under today's rules.

    Returns:
        `id, claim, before, verdict, size, published tables, detects, seeds,
        reason, source`; `seeds` as `needed`.
    """
    old = pd.read_csv(folder / "claims" / "claims.csv", keep_default_na=False).set_index("id")
    measured = renewed(folder)
    judged, parts = verdicts.judge(measured)
    printed = {name: verdict for name, verdict, _ in evidence.from_tables()}
    sources = measured.groupby("id")["source"].agg(lambda s: ", ".join(dict.fromkeys(s.dropna())))
    rows = []
    for c in published.read("claims").itertuples():
        before = old["verdict"].get(c.id, NONE)
        row = {"id": c.id, "claim": c.claim, "before": before}
        row["published tables"] = printed.get(c.id, NONE)
        if c.id not in judged.index:
            rows.append(row | {"verdict": before, "size": before, "reason": "as before"})
            continue
        after = judged.loc[c.id]
        row |= after.drop("why").to_dict()
        why = reason(before, after, parts[parts["id"] == c.id])
        row["seeds"] = needed(parts[parts["id"] == c.id])
        rows.append(row | {"reason": why, "source": sources[c.id]})
    columns = "id claim before verdict size detects seeds reason source".split()
    return pd.DataFrame(rows)[[*columns[:5], "published tables", *columns[5:]]]


def main(arguments: list[str]) -> int:
    folder = ROOT / "figures" / (arguments or ["study"])[0]
    if not (folder / "claims" / "claims_parts.csv").is_file():
        print(f"rejudge: {folder}/claims/claims_parts.csv is not there", file=sys.stderr)
        return 2
    found = before_and_after(folder)
    changed = int(((found["before"] != found["verdict"]) & (found["before"] != NONE)).sum())
    counts = ", ".join(f"{k} {v}" for k, v in found["verdict"].value_counts().items())
    caption = (
        "What this run's ledger comes to under today's rules: from scores where the source says "
        "so, elsewhere from printed means, intervals and numbers of seeds. "
        f"{changed} verdicts on sign are others, "
        f"{int((found['before'] == NONE).sum())} claims are new: {counts}. `detects` is the "
        "smallest effect found in 80 % of studies, `seeds` how many would find the published size."
    )
    found["detects"] = found["detects"].map(lambda x: "–" if pd.isna(x) else f"{x:.3g}")
    text = f"# The ledger of `{folder.name}` under today's rules\n\n{caption}\n\n"
    tables.write_text(folder / "rules.md", text + tables.markdown(found.fillna("–")))
    tables.write_text(folder / "rules.csv", found.to_csv(index=False, lineterminator="\n"))
    print(re.sub(r"\n+", "\n", found.to_string(index=False)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
