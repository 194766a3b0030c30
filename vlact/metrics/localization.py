"""Average precision of temporal action localisation, on tables of segments.

Ground truth has the columns `video, start_s, end_s, label`, predictions `video, start_s, end_s, label, score`.
Two protocols, whose numbers must not be mixed:

* `activitynet` (also used for THUMOS14 and EPIC-Kitchens by ActionFormer, OpenTAD, MMAction2): predictions in
  order of score take the free ground truth of their video with the highest tIoU, if tIoU >= threshold;
  interpolated precision.
* `thumos14` (the challenge's own kit): every ground truth, in file order, takes the free prediction of highest
  tIoU, if tIoU > threshold; a false positive that touches an ambiguous interval does not count; precision is
  averaged over the true positives, not interpolated.

Both are one-sided picks in a fixed order, so one function finds either matching, for all videos and classes at
once (`match`).
"""

import warnings

import numpy as np
import pandas as pd

PROTOCOLS = ("activitynet", "thumos14")
THUMOS14_TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
ACTIVITYNET_TIOUS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())
EPIC_TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5)
PAIRS_AT_ONCE = 1 << 20
SAME_S = 1e-3  # two ground truths of one label closer than this at both ends are duplicates


def tiou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Temporal intersection over union of segments a and b (.., 2), seconds; nan where both are points."""
    inter = np.maximum(np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0]), 0.0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - inter
    with np.errstate(invalid="ignore", divide="ignore"):
        return inter / union


def evaluate(
    ground_truth: pd.DataFrame,
    predictions: pd.DataFrame,
    *,
    tious: tuple[float, ...],
    protocol: str = "activitynet",
    ambiguous: pd.DataFrame | None = None,
    invalid: str = "error",
    ties: str = "stable",
    duplicates: str = "keep",
    degenerate: str = "keep",
    unknown: str = "ignore",
) -> pd.DataFrame:
    """Average precision of every class at every threshold.

    The tables are not changed. A class without predictions has AP 0. Predictions in videos without ground truth
    are false positives; a warning says how many there are.

    Args:
        ground_truth: Columns `video, start_s, end_s, label`; numbers may be strings.
        predictions: The same and `score`.
        tious: Thresholds in (0, 1].
        protocol: "activitynet" or "thumos14", see above.
        ambiguous: Intervals (`video, start_s, end_s`) of the `thumos14` protocol.
        invalid: Predictions with end <= start: "error", "drop", or "false_positive" (they count and never match).
        ties: Order of equal scores: "stable" (as listed); "by-video" (videos sorted by name, within
            one as listed: the kit of THUMOS14); or "numpy-reversed", the `argsort()[::-1]` of the official ActivityNet code, which differs
            between numpy versions and processors.
        duplicates: Ground truth of one label within 1 ms of another at both ends: "keep" (the official code) or
            "drop" (OpenTAD, ActionFormer).
        degenerate: Ground truth with end <= start: "keep" (counts, never matches) or "drop".
        unknown: Predictions of classes without ground truth: "ignore" or "error".

    Returns:
        Rows `label, tiou, ap, num_gt, num_pred`, labels sorted. `attrs["report"]` counts what the options
        touched: `ignored` (unknown class), `invalid`, `duplicates`, `degenerate`, `tied` (predictions whose
        score another one of their class has) and `foreign` (in videos without ground truth).

    Raises:
        ValueError: A missing column, a segment or score that is no finite number, an invalid segment where
            `invalid="error"`, no ground truth, no video in common, the same id with and without "v_", an
            unknown class where `unknown="error"`, a wrong option or threshold.
    """
    _check(protocol, PROTOCOLS, "protocol")
    _check(invalid, ("error", "drop", "false_positive"), "invalid")
    _check(ties, ("stable", "by-video", "numpy-reversed"), "ties")
    _check(duplicates, ("keep", "drop"), "duplicates")
    _check(degenerate, ("keep", "drop"), "degenerate")
    _check(unknown, ("ignore", "error"), "unknown")
    tious = tuple(float(t) for t in np.atleast_1d(np.asarray(tious, dtype=float)))
    if not tious or not all(0 < t <= 1 for t in tious):
        raise ValueError(f"tious must be thresholds in (0, 1]; got {tious}")
    if ambiguous is not None and protocol != "thumos14":
        raise ValueError(
            "ambiguous intervals belong to protocol='thumos14'; the activitynet protocol has none"
        )
    gt, pred = (
        _columns(ground_truth, "ground_truth", False),
        _columns(predictions, "predictions", True),
    )
    if not len(gt["video"]):
        raise ValueError(
            "ground_truth has no row; is the subset's name right ('test', 'testing' and 'validation' are all in use)?"
        )
    report = dict.fromkeys(("ignored", "invalid", "duplicates", "degenerate", "tied", "foreign"), 0)
    bad = gt["segment"][:, 1] <= gt["segment"][:, 0]
    report["degenerate"] = int(bad.sum())
    if degenerate == "drop":
        gt = {k: v[~bad] for k, v in gt.items()}
    again = _repeated(gt)
    report["duplicates"] = int(again.sum())
    if duplicates == "drop":
        gt = {k: v[~again] for k, v in gt.items()}
    if not len(gt["video"]):
        raise ValueError("ground_truth has no row left after dropping degenerate segments")
    labels, gt_class = np.unique(gt["label"], return_inverse=True)
    known = pd.Index(labels).get_indexer(pred["label"])
    if unknown == "error" and (known < 0).any():
        names = sorted(set(pred["label"][known < 0]))
        raise ValueError(
            f"predictions: classes without ground truth {names[:5]}; expected some of {labels.tolist()[:20]}"
        )
    report["ignored"] = int((known < 0).sum())
    wrong = ~(pred["segment"][:, 1] > pred["segment"][:, 0])
    report["invalid"] = int(wrong.sum())
    if wrong.any() and invalid == "error":
        row = int(np.flatnonzero(wrong)[0])
        start, end = pred["segment"][row]
        raise ValueError(
            f"predictions, row {row}: end_s must be greater than start_s; got {start:g} to {end:g} ({report['invalid']} such rows); "
            "repair them, or pass invalid='drop' or 'false_positive'"
        )
    keep = (known >= 0) & (~wrong if invalid == "drop" else True)
    pred, pred_class = {k: v[keep] for k, v in pred.items()}, known[keep]
    vague = (
        _columns(ambiguous.assign(label=""), "ambiguous", False)
        if ambiguous is not None
        else {"video": gt["video"][:0]}
    )
    videos = np.unique(np.concatenate([gt["video"], vague["video"]]))
    gt_video, pred_video = (pd.Index(videos).get_indexer(t["video"]) for t in (gt, pred))
    report["foreign"] = _foreign(videos, pred, pred_video)

    # predictions of a class after each other, best first
    if ties != "numpy-reversed":
        listed = (
            np.unique(pred["video"], return_inverse=True)[1]
            if ties == "by-video"
            else np.zeros(len(pred_class))
        )
        order = np.lexsort((listed, -pred["score"], pred_class))
    else:
        of = [np.flatnonzero(pred_class == c) for c in range(len(labels))]
        order = (
            np.concatenate([i[np.argsort(pred["score"][i])[::-1]] for i in of])
            if len(pred_class)
            else np.zeros(0, int)
        )
    segment, score = pred["segment"][order], pred["score"][order]
    pred_class, pred_video = pred_class[order], pred_video[order]
    num_gt, num_pred = (np.bincount(c, minlength=len(labels)) for c in (gt_class, pred_class))
    if len(score):
        same = (score[1:] == score[:-1]) & (pred_class[1:] == pred_class[:-1])
        report["tied"] = int((np.append(same, False) | np.insert(same, 0, False)).sum())
    p, g, overlap = _pairs(
        pred_video,
        pred_class,
        segment,
        gt_video,
        gt_class,
        gt["segment"],
        min(tious),
        protocol == "thumos14",
    )
    shielded = (
        _touching(
            pred_video, segment, pd.Index(videos).get_indexer(vague["video"]), vague["segment"]
        )
        if len(vague["video"])
        else np.zeros(len(segment), bool)
    )

    ap = np.zeros((len(tious), len(labels)))
    for i, threshold in enumerate(tious):
        hit = np.zeros(len(segment), bool)
        if protocol == "activitynet":
            near = overlap >= threshold
            a, b, o = p[near], g[near], overlap[near]
            pick = np.lexsort((b, -o, a))
            taken = match(a[pick], b[pick], len(gt_class))
            hit[taken[taken >= 0]] = True
        else:
            near = overlap > threshold
            a, b, o = g[near], p[near], overlap[near]
            pick = np.lexsort((b, -o, a))
            hit = match(a[pick], b[pick], len(segment)) >= 0
        ranked = np.flatnonzero(hit | ~shielded)
        first = np.searchsorted(pred_class[ranked], np.arange(len(labels) + 1))
        for c, hits in enumerate(np.split(hit[ranked], first[1:-1])):
            ap[i, c] = _ap(hits, num_gt[c], interpolated=protocol == "activitynet")
    out = pd.DataFrame(
        {
            "label": np.repeat(labels, len(tious)),
            "tiou": np.tile(tious, len(labels)),
            "ap": ap.T.reshape(-1),
            "num_gt": np.repeat(num_gt, len(tious)),
            "num_pred": np.repeat(num_pred, len(tious)),
        }
    )
    out.attrs["report"] = report
    return out


def summary(table: pd.DataFrame) -> dict[str, float]:
    """mAP at every threshold of what `evaluate` returned, and their mean: `mAP@0.50`, .., `mAP`."""
    means = table.groupby("tiou")["ap"].mean()
    return {f"mAP@{t:.2f}": float(v) for t, v in means.items()} | {"mAP": float(means.mean())}


def assignments(
    ground_truth: pd.DataFrame, predictions: pd.DataFrame, threshold: float, across: float = 0.1
) -> pd.DataFrame:
    """What each prediction is, at one threshold of ActivityNet's protocol: one row a prediction, in the table's order.

    Args:
        ground_truth, predictions: As in `evaluate`; segments must be valid.
        threshold: tIoU.
        across: Least tIoU to count as near anything.

    Returns:
        `taken`, row number of the ground truth that the prediction takes, -1 if none; `near`, row number of the
        ground truth of any class with the highest tIoU of at least `across`, -1 if none (of equal ones the
        prediction's own class goes first); `tiou` with it.
    """
    gt, pred = (
        _columns(ground_truth, "ground_truth", False),
        _columns(predictions, "predictions", True),
    )
    labels, videos = (
        pd.Index(np.unique(np.concatenate([gt[k], pred[k]]).astype(str)))
        for k in ("label", "video")
    )
    gt_class, pred_class = (labels.get_indexer(t["label"].astype(str)) for t in (gt, pred))
    gt_video, pred_video = (videos.get_indexer(t["video"].astype(str)) for t in (gt, pred))
    order = np.lexsort((-pred["score"], pred_class))
    p, g, overlap = _pairs(
        pred_video[order],
        pred_class[order],
        pred["segment"][order],
        gt_video,
        gt_class,
        gt["segment"],
        threshold,
        False,
    )
    pick = np.lexsort((g, -overlap, p))
    holder = match(p[pick], g[pick], len(gt_class))
    taken = np.full(len(pred_class), -1)
    taken[order[holder[holder >= 0]]] = np.flatnonzero(holder >= 0)
    anyone = np.zeros_like
    p, g, overlap = _pairs(
        pred_video,
        anyone(pred_class),
        pred["segment"],
        gt_video,
        anyone(gt_class),
        gt["segment"],
        across,
        False,
    )
    pick = np.lexsort((g, gt_class[g] != pred_class[p], -overlap, p))
    first = pick[np.flatnonzero(np.diff(p[pick], prepend=-1))]
    near, best = np.full(len(pred_class), -1), np.zeros(len(pred_class))
    near[p[first]], best[p[first]] = g[first], overlap[first]
    return pd.DataFrame({"taken": taken, "near": near, "tiou": best}, index=predictions.index)


def match(chooser: np.ndarray, thing: np.ndarray, things: int) -> np.ndarray:
    """Who ends up with each thing when choosers, in order of number, take the first free one of their list.

    The order of choosing is the same for all things, so the sequential pick is the only stable matching, and
    proposing in rounds finds it: all who have nothing ask for the next thing on their list, and every thing
    keeps the chooser of lowest number. All lists of all videos go through together.

    Args:
        chooser: Numbers of the choosers of all wanted pairs, ascending.
        thing: The thing of each pair; within one chooser in order of preference.
        things: How many there are.

    Returns:
        Chooser of each thing (things,), -1 where it stays free.
    """
    holder = np.full(things, np.iinfo(np.int64).max)
    start = np.flatnonzero(np.diff(chooser, prepend=-1))
    who, last = chooser[start], np.append(start[1:], len(chooser))
    asking, at = np.arange(len(who)), start.copy()
    while len(asking):
        wanted = thing[at[asking]]
        before = holder[wanted]
        np.minimum.at(holder, wanted, who[asking])
        lost = asking[holder[wanted] != who[asking]]
        displaced = np.unique(
            before[(before != holder[wanted]) & (before < np.iinfo(np.int64).max)]
        )
        asking = np.concatenate([lost, np.searchsorted(who, displaced)])
        at[asking] += 1
        asking = asking[at[asking] < last[asking]]
    return np.where(holder == np.iinfo(np.int64).max, -1, holder)


def _ap(hit: np.ndarray, num_gt: int, interpolated: bool) -> float:
    """Area under precision and recall of ranked predictions; precision at the k-th hit, at place r, is k / r."""
    place = np.flatnonzero(hit) + 1
    precision = np.arange(1, len(place) + 1) / place
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(precision.sum() / num_gt)


def _pairs(
    pred_video, pred_class, segment, gt_video, gt_class, gt_segment, lowest: float, strict: bool
):
    """Pairs of one video and class with tIoU of at least `lowest`: prediction, ground truth, tIoU."""
    classes = max(int(gt_class.max()), int(pred_class.max()) if len(pred_class) else 0) + 1
    key = gt_video * classes + gt_class
    by_key = np.argsort(key, kind="stable")
    wanted = np.where(pred_video >= 0, pred_video * classes + pred_class, -1)
    low, high = (
        np.searchsorted(key[by_key], wanted),
        np.searchsorted(key[by_key], wanted, side="right"),
    )
    many = high - low
    found, done = [], np.concatenate([[0], np.cumsum(many)])
    while (start := len(found) and found[-1][3]) < len(segment):
        stop = max(
            start + 1, int(np.searchsorted(done, done[start] + PAIRS_AT_ONCE, side="right")) - 1
        )
        n = many[start:stop]
        p = np.repeat(np.arange(start, stop), n)
        g = by_key[
            np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(low[start:stop], n)
        ]
        overlap = tiou(segment[p], gt_segment[g])
        near = overlap > lowest if strict else overlap >= lowest
        found.append((p[near], g[near], overlap[near], stop))
    if not found:
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    return tuple(np.concatenate([f[k] for f in found]) for k in range(3))


def _touching(pred_video, segment, vague_video, vague_segment) -> np.ndarray:
    """Which predictions overlap an ambiguous interval of their video."""
    out = np.zeros(len(segment), bool)
    for video, (start, end) in zip(vague_video, vague_segment, strict=True):
        out |= (pred_video == video) & (
            np.minimum(segment[:, 1], end) > np.maximum(segment[:, 0], start)
        )
    return out


def _repeated(gt: dict) -> np.ndarray:
    """Rows of the ground truth that repeat an earlier one of their video and label."""
    out = np.zeros(len(gt["video"]), bool)
    for rows in (
        pd.DataFrame({"v": gt["video"], "l": gt["label"]})
        .groupby(["v", "l"], sort=False)
        .indices.values()
    ):
        if len(rows) > 1:
            s = gt["segment"][rows]
            same = (np.abs(s[:, None] - s[None]) <= SAME_S).all(-1)
            out[rows] = np.tril(same, -1).any(1)
    return out


def _foreign(videos: np.ndarray, pred: dict, pred_video: np.ndarray) -> int:
    """Predictions in videos without ground truth, with a warning; an error where the ids cannot be meant so."""
    names = set(pred["video"])
    for where, some in (("ground_truth", set(videos)), ("predictions", names)):
        if both := sorted(n for n in some if f"v_{n}" in some):
            raise ValueError(
                f"{where}: {both[0]!r} and 'v_{both[0]}' are both there; expected one form of an id"
            )
    strange = sorted(names - set(videos))
    if names and len(strange) == len(names):
        bare = {str(v).removeprefix("v_") for v in videos}
        hint = (
            "; they differ by the prefix 'v_'"
            if any(str(n).removeprefix("v_") in bare for n in names)
            else ""
        )
        raise ValueError(
            f"predictions: no video is in ground_truth{hint}; predictions have {strange[:3]}, ground truth has {videos.tolist()[:3]}"
        )
    many = int((pred_video < 0).sum())
    if many:
        warnings.warn(
            f"{many} predictions in {len(strange)} videos without ground truth count as false positives: {strange[:3]}",
            stacklevel=3,
        )
    return many


def _columns(table: pd.DataFrame, name: str, scored: bool) -> dict[str, np.ndarray]:
    """Checked columns as arrays: `video`, `label`, `segment` (N, 2) and `score` if `scored`."""
    wanted = ("video", "start_s", "end_s", "label", *(("score",) if scored else ()))
    if missing := [c for c in wanted if c not in table.columns]:
        raise ValueError(
            f"{name}: missing columns {missing}; expected {list(wanted)}, got {list(table.columns)}"
        )
    numbers = {}
    for c in wanted:
        if c in ("video", "label"):
            continue
        numbers[c] = pd.to_numeric(table[c], errors="coerce").to_numpy(dtype=float)
        if (bad := ~np.isfinite(numbers[c])).any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"{name}, row {row}: {c} must be a finite number; got {table[c].iloc[row]!r} ({int(bad.sum())} such rows)"
            )
    out = {"video": table["video"].to_numpy(), "label": table["label"].to_numpy()}
    for c in ("video", "label"):
        if pd.isna(out[c]).any():
            raise ValueError(f"{name}, row {int(np.flatnonzero(pd.isna(out[c]))[0])}: {c} is empty")
    out["segment"] = np.stack([numbers["start_s"], numbers["end_s"]], 1)
    return out | ({"score": numbers["score"]} if scored else {})


def _check(value: str, allowed: tuple[str, ...], name: str) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}; got {value!r}")
