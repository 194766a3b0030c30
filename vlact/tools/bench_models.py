"""Local attention in blocks against the dense one with a mask, by length: CPU time and peak memory.

python -m vlact.tools.bench_models [--lengths 1024 2304 ..] [--window 19]
"""

import argparse
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pandas as pd
import torch

from vlact.models.actionformer import dense_attention, local_attention
from vlact.tools.bench import Comparison

HEADS, DIM = 4, 128  # of ActionFormer as published; DIM a head
ROUNDS = 3  # the best counts
LENGTHS = (1024, 2304, 4608, 9216, 16384)
WINDOW = 19  # steps attended to
SMALL_MOST = 2304  # steps of which the dense one takes less than a GiB
DENSE_MOST = 9216  # steps from which on a dense mask and its scores do not fit a small machine


def measure(kind: str, steps: int, window: int) -> tuple[float, float]:
    """CPU seconds and MiB that a pass and its gradient take on one thread, in a process of its own.

    Args:
        kind: "local" or "dense".
        steps: T.
        window: Odd.
    """
    torch.set_num_threads(1)
    attend = {"local": local_attention, "dense": dense_attention}[kind]
    q, k, v = (torch.randn(1, steps, HEADS, DIM, requires_grad=True) for _ in range(3))
    mask, best = torch.ones(1, steps, dtype=torch.bool), float("inf")
    attend(*(x[:, :window] for x in (q, k, v)), mask[:, :window], window).sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(ROUNDS):
        start = time.process_time()
        attend(q, k, v, mask, window).sum().backward()
        best = min(best, time.process_time() - start)
    return best, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def compare(lengths: list[int], window: int) -> list[dict]:
    """A row a length: `steps`, seconds and MiB of both, `time` and `memory`, local by dense; None
    where the dense one is left out.
    """
    rows = []
    # A fresh process each: the peak of memory never falls
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for steps in lengths:
            local = pool.submit(measure, "local", steps, window).result()
            dense = (None, None)
            if steps <= DENSE_MOST:
                dense = pool.submit(measure, "dense", steps, window).result()
            ratio = [a / b if b else None for a, b in zip(local, dense, strict=True)]
            row = {"steps": steps, "local_s": local[0], "local_mib": local[1]}
            row |= {"dense_s": dense[0], "dense_mib": dense[1]}
            rows.append(row | {"time": ratio[0], "memory": ratio[1]})
    return rows


def table(repeats: int = ROUNDS) -> pd.DataFrame:
    """Local against dense, rows as of `vlact.tools.bench.Comparison`, for lengths that any machine
    holds.
    """
    lengths = [steps for steps in LENGTHS if steps <= SMALL_MOST]
    rounds, found = [compare(lengths, WINDOW) for _ in range(repeats)], []
    for rows in zip(*rounds, strict=True):
        ours_s, theirs_s = (tuple(row[k] for row in rows) for k in ("local_s", "dense_s"))
        work = f"local attention of {rows[0]['steps']} steps"
        found.append(Comparison(work, "dense, with a mask", ours_s, theirs_s, None, None).row())
    return pd.DataFrame(found)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="vlact.tools.bench_models", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="steps")
    parser.add_argument("--window", type=int, default=WINDOW, help="steps attended to, odd")
    given = parser.parse_args(arguments)
    rows = compare(given.lengths, given.window)
    lines = ["  ".join(f"{name:>9}" for name in rows[0])]
    for row in rows:
        cells = (
            "-" if x is None else f"{x:.3f}" if isinstance(x, float) else x for x in row.values()
        )
        lines.append("  ".join(f"{x:>9}" for x in cells))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
