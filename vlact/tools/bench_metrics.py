"""How fast scoring, suppression and reading are: against slow oracles, and as the tables grow.

`python -m vlact.tools.bench_metrics` prints the tables; it needs a checkout, whose tests/reference
holds the oracles. Processor time, the least of several calls in turn.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from vlact import ROOT
from vlact.datasets import activitynet
from vlact.metrics.localization import THUMOS14_TIOUS, evaluate
from vlact.models.nms import soft_nms, suppress
from vlact.tools.bench import compare

TESTS = ROOT / "tests"
TIMES = 3
WINDOW_S = 200.0  # seconds of a video


def oracles():
    """The slow versions: `localization_slow`, `nms_slow`.

    Raises:
        FileNotFoundError: Not in a checkout.
    """
    if not (TESTS / "reference").is_dir():
        raise FileNotFoundError(f"{TESTS / 'reference'}: expected a checkout with its tests")
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    from reference import localization_slow, nms_slow

    return localization_slow, nms_slow


def least(*functions, times: int = TIMES) -> list[float]:
    """Least processor seconds of each, called in turn so that a slow machine slows all."""
    found = [np.inf] * len(functions)
    for _ in range(times):
        for i, function in enumerate(functions):
            begun = time.process_time()
            function()
            found[i] = min(found[i], time.process_time() - begun)
    return found


def detections(
    videos: int, truths: int, found: int, classes: int, length_s: float = WINDOW_S, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Random ground truth, and predictions round it."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, length_s, truths)
    truth = pd.DataFrame({"video": rng.integers(0, videos, truths), "start_s": start})
    truth["end_s"] = start + rng.uniform(1, 8, truths)
    truth["label"] = truth["video"] % classes
    near = truth.iloc[rng.integers(0, truths, found)].reset_index(drop=True)
    near["start_s"] += rng.normal(0, 1, found)
    near["end_s"] = near["start_s"] + rng.uniform(1, 8, found)
    return truth, near.assign(score=rng.uniform(size=found))


def candidates(count: int, seed: int, spread_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Segments (count, 2) spread over some seconds, and scores (count,)."""
    rng = np.random.default_rng(seed)
    middle, length = rng.uniform(0, spread_s, count), rng.uniform(1, 8, count)
    segments = np.stack([middle - length / 2, middle + length / 2], 1)
    return segments, rng.uniform(0.05, 1, count).astype(np.float32)


def one_by_one(truth: pd.DataFrame, found: pd.DataFrame) -> np.ndarray:
    """AP (classes, thresholds) by going through the predictions, as public evaluators do."""
    slow, _ = oracles()
    out = []
    for label, part in found.groupby("label"):
        mine = truth[truth["label"] == label].groupby("video")
        own = {v: g[["start_s", "end_s"]].to_numpy() for v, g in mine}
        arrays = part["video"].to_numpy(), part[["start_s", "end_s"]].to_numpy()
        out.append(slow.per_prediction(own, (*arrays, part["score"].to_numpy()), THUMOS14_TIOUS))
    return np.stack(out)


def table(repeats: int = TIMES) -> pd.DataFrame:
    """Against the oracles, rows as of `vlact.tools.bench.Comparison`."""
    _, nms_slow = oracles()
    rows = []

    def add(work: str, peer: str, ours, theirs) -> None:
        rows.append(compare(work, peer, ours, theirs, repeats).row())

    truth, found = detections(200, 3000, 40_000, 20)
    add(
        "mean AP, 40,000 detections",
        "one prediction after the other",
        lambda: evaluate(truth, found, tious=THUMOS14_TIOUS),
        lambda: one_by_one(truth, found),
    )
    with tempfile.TemporaryDirectory() as folder:
        compiled = nms_slow.compiled(folder)
        for count in (200, 2000, 5000) if compiled else ():
            for name, spread_s in (("dense", WINDOW_S), ("thin", 3.0 * count)):
                given = candidates(count, count, spread_s)
                add(
                    f"soft NMS of {count}, {name}",
                    "C++",
                    lambda g=given: soft_nms(*g),
                    lambda g=given: compiled(*g),
                )
        path = Path(folder) / "results.json"
        many = detections(200, 3000, 200_000, 20)[1].astype({"video": str, "label": str})
        activitynet.write_results(many, path)
        add(
            "results of 200,000 detections",
            "json.loads",
            lambda: activitynet.results(path),
            lambda: json.loads(path.read_text()),
        )
    return pd.DataFrame(rows)


def growth() -> pd.DataFrame:
    """Rows `work, size, seconds, exponent`: how the time grows, 1 is in proportion to the size."""
    rows = []

    def add(work: str, sizes: tuple[int, ...], prepare) -> None:
        before = None
        for size in sizes:
            call = prepare(size)
            call()
            (taken,) = least(call)
            exponent = np.nan
            if before:
                exponent = np.log(taken / before[1]) / np.log(size / before[0])
            rows.append({"work": work, "size": size, "seconds": taken, "exponent": exponent})
            before = size, taken

    def videos(size: int):
        truth, found = detections(size, 15 * size, 200 * size, 20)
        return lambda: evaluate(truth, found, tious=THUMOS14_TIOUS)

    def one_video(size: int):
        truth, found = detections(1, size, 4 * size, 1, length_s=float(size))
        return lambda: evaluate(truth, found, tious=THUMOS14_TIOUS)

    def suppression(size: int):
        parts = [candidates(2000, seed, 6000.0) for seed in range(size)]
        segments, scores = (np.concatenate(x) for x in zip(*parts, strict=True))
        ends = {"start_s": segments[:, 0], "end_s": segments[:, 1]}
        columns = {"video": np.repeat(np.arange(size), 2000), **ends, "label": "x", "score": scores}
        table = pd.DataFrame(columns)
        return lambda: suppress(table, multiclass=False)

    add("mean AP, videos", (200, 800, 3200), videos)
    add("mean AP, truths of one class in one video", (2048, 8192, 32768), one_video)
    add("suppression, videos of 2,000 candidates", (52, 210), suppression)
    return pd.DataFrame(rows)


def main() -> int:
    """Print both tables."""
    try:
        tables = table(), growth()
    except FileNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for found in tables:
        sys.stdout.write(found.to_string(index=False, float_format="{:.4f}".format) + "\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
