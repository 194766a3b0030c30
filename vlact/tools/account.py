"""What became of everything that a command was given: used, or left out for a reason that is said.

One report for every command, printed and written as `account.csv`: what came in is what was used
plus what was left out, or the command stops; so it does where more is left out than the user
allows.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

EXAMPLES = 3  # of each reason, by name
COLUMNS = ["of", "what", "reason", "count", "examples"]
FILE = "account.csv"


@dataclass(frozen=True)
class Row:
    """Some things of one kind that fared alike.

    Attributes:
        of: Their kind: "videos", "detections", ..
        what: "in", "left out", "used", "not asked for" (left out because the user chose other ones)
            or "noted" (used, and something should be known).
        reason: Why, in words.
        count: How many.
        examples: Names of some.
    """

    of: str
    what: str
    reason: str
    count: int
    examples: str = ""


class Account:
    """Counts of each kind of thing: in, left out by reason, used.

    Args:
        most: Share of the things of a kind, 0..1, that may be left out.
    """

    def __init__(self, most: float):
        self.most, self.rows = most, []

    def add(self, of: str, what: str, reason: str, items: Iterable | int) -> None:
        """Things by name, or how many; nothing where there are none, but for "in" and "used"."""
        names = [] if isinstance(items, int) else [str(x) for x in items]
        count = items if isinstance(items, int) else len(names)
        if count or what in ("in", "used"):
            some = "; ".join(names[:EXAMPLES])
            self.rows.append(Row(of, what, reason, count, some))

    def files(self, of: str, given: Sequence, bad: dict) -> list:
        """Things of which some cannot be used: the others, in their order.

        Args:
            of: Their kind.
            given: All of them.
            bad: Reason by thing.

        Raises:
            ValueError: More of them cannot be used than `most`, or none can.
        """
        self.add(of, "in", "", given)
        for thing in given:
            if thing in bad:
                self.add(of, "left out", bad[thing], [thing])
        good = [x for x in given if x not in bad]
        self.add(of, "used", "", len(good))
        self.settle()
        return good

    def scored(self, rows: Iterable[dict], names: dict[str, str]) -> None:
        """The account of `vlact.metrics.localization.evaluate`, its `attrs["left_out"]`.

        Args:
            rows: Of both tables.
            names: What its tables are called here.
        """
        for row in rows:
            self.add(names[row["table"]], row["what"], row["reason"], row["segments"])

    def count(self, of: str, what: str) -> int:
        """Things of that kind that fared so."""
        return sum(r.count for r in self.rows if (r.of, r.what) == (of, what))

    def settle(self) -> None:
        """Everything is accounted for, and not too much of it is left out.

        Raises:
            RuntimeError: What came in is not what was used plus what was left out.
            ValueError: More is left out than `most`, or nothing is left; names the reasons.
        """
        for of in dict.fromkeys(r.of for r in self.rows):
            came, used, lost, others = (
                self.count(of, what) for what in ("in", "used", "left out", "not asked for")
            )
            if came != used + lost + others:
                raise RuntimeError(
                    f"{came} {of} came in, {used} were used, {lost} left out, {others} not asked "
                    "for: not all are accounted for"
                )
            if lost > self.most * (came - others) or (lost and not used and self.most < 1):
                raise ValueError(
                    f"{self.words(of)}; that is more than --max-dropped {self.most:g}, the share "
                    "that may be left out: mend them, or allow more"
                )

    def words(self, of: str) -> str:
        """What is left out of one kind, in a sentence."""
        reasons: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.of == of and row.what == "left out":
                reasons.setdefault(row.reason, []).append(row)
        parts = []
        for reason, rows in reasons.items():
            some = "; ".join([r.examples for r in rows if r.examples][:EXAMPLES])
            named = f" ({some})" if some else ""
            parts.append(f"{sum(r.count for r in rows)} {reason}{named}")
        lost, asked = self.count(of, "left out"), self.count(of, "in")
        asked -= self.count(of, "not asked for")
        return f"{lost} of {asked} {of} are left out: {', '.join(parts)}" if lost else ""

    def table(self) -> pd.DataFrame:
        """A row each: `of, what, reason, count, examples`."""
        return pd.DataFrame([vars(r) for r in self.rows], columns=COLUMNS)

    def lines(self) -> list[str]:
        """What is left out, and how much is used, a line for each kind of thing."""
        out = []
        for of in dict.fromkeys(r.of for r in self.rows):
            line = f"{of}: {self.count(of, 'in')} in, {self.count(of, 'used')} used"
            if others := self.count(of, "not asked for"):
                line += f", {others} not asked for"
            out.append(f"{line}; {said}" if (said := self.words(of)) else line)
            notes = [f"{r.count} {r.reason}" for r in self.rows if r.of == of and r.what == "noted"]
            out[-1] += f"; noted: {', '.join(notes)}" * bool(notes)
        return out

    def write(self, out: Path) -> None:
        """Settle it, print it on stderr and write it to `account.csv` in a folder."""
        self.settle()
        for line in self.lines():
            print(line, file=sys.stderr)
        self.table().to_csv(out / FILE, index=False, lineterminator="\n")
