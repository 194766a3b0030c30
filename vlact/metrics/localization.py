"""Average precision of temporal action localization, on tables of segments.

Ground truth has the columns `video, start_s, end_s, label`, predictions `video, start_s, end_s,
label, score`. Two protocols, whose numbers must not be mixed:

* `activitynet` (also used for THUMOS14 and EPIC-Kitchens by ActionFormer, OpenTAD, MMAction2):
  predictions in order of score take the free ground truth of their video with the highest tIoU, if
  tIoU >= threshold; interpolated precision.
* `thumos14` (the challenge's own kit): every ground truth, in file order, takes the free prediction
  of highest tIoU, if tIoU > threshold; a false positive that touches an ambiguous interval does not
  count; precision is averaged over the true positives, not interpolated.

Both are one-sided picks in a fixed order, so one function finds either matching, for all videos and
classes at once (`_holders`).

Labels of the two tables are matched by `vlact.schema.label_key`. What is left out of a score is
counted by reason in `attrs["left_out"]`, see `left_out`, and a warning says it.
"""

import warnings

import numpy as np
import pandas as pd

from vlact.schema import label_key, spelled_once

PROTOCOLS = ("activitynet", "thumos14")
THUMOS14_TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
ACTIVITYNET_TIOUS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())
EPIC_TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5)
PAIRS_AT_ONCE = 1 << 20
MANY_PAIRS = 1 << 22  # from here on they are not held, but gone through by a compiled loop
SAME_S = 1e-3  # two ground truths of one label closer than this at both ends are duplicates
MOST_LEFT_OUT = 0.9  # share of a table without which there is still a score
HARDLY = 0.01  # share of the instances that are met, below which the clocks are compared
OTHER_CLOCK = 3.0  # predictions that end so many times later or earlier are on another clock
BEYOND = 1.5  # the same, against the duration of the video


def tiou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Temporal intersection over union of segments a and b (.., 2), seconds.

    Returns:
        0..1; nan where both are points.
    """
    inter = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
    inter = np.maximum(inter, 0.0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - inter
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
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
    strict: float = MOST_LEFT_OUT,
) -> pd.DataFrame:
    """Average precision of every class at every threshold.

    The tables are not changed. A class without predictions has AP 0. Predictions in videos without
    ground truth are false positives; a warning says how many there are.

    Args:
        ground_truth: Columns `video, start_s, end_s, label`; numbers may be strings. With
            `attrs["videos"]`, as `vlact.datasets.activitynet` gives it, videos without an action
            are known; with `duration_s` times are compared with it.
        predictions: The same columns and `score`.
        tious: Thresholds in (0, 1].
        protocol: "activitynet" or "thumos14", see above.
        ambiguous: Intervals (`video, start_s, end_s`) of the `thumos14` protocol.
        invalid: Predictions with end <= start: "error", "drop", or "false_positive" (they count and
            never match). "drop" also leaves out times and scores that are no finite numbers.
        ties: Order of equal scores: "stable" (as listed); "by-video" (videos sorted by name, within
            one as listed: the kit of THUMOS14); or "numpy-reversed", the `argsort()[::-1]` of the
            official ActivityNet code, which differs between numpy versions and processors.
        duplicates: Ground truth of one label within 1 ms of another at both ends: "keep" (the
            official code) or "drop" (OpenTAD, ActionFormer).
        degenerate: Ground truth with end <= start: "keep" (counts, never matches) or "drop".
        unknown: Predictions of classes without ground truth: "ignore" or "error".
        strict: Share of the rows of a table, 0..1, above which there is no score if so many are
            left out; 0 stops at the first. Below 1, no label in common is an error, too.

    Returns:
        Rows `label, tiou, ap, num_gt, num_pred`, labels sorted. `attrs["report"]` counts what the
        options touched: `ignored` (unknown class), `invalid`, `duplicates`, `degenerate`, `tied`
        (predictions whose score another one of their class has) and `foreign` (in videos without
        ground truth). `attrs["left_out"]`: see `left_out`.

    Raises:
        ValueError: A missing column, a segment or score that is no finite number, an invalid
            segment where `invalid="error"`, no ground truth, no video or no label in common, the
            same id with and without "v_", a label in two spellings, an unknown class where
            `unknown="error"`, more left out than `strict`, a wrong option or threshold.
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
    if not 0 <= strict <= 1:
        raise ValueError(f"strict must be a share in 0..1; got {strict}")
    if ambiguous is not None and protocol != "thumos14":
        raise ValueError(
            "ambiguous intervals belong to protocol='thumos14'; the activitynet protocol has none"
        )
    gt, _ = _columns(ground_truth, "ground_truth", False)
    pred, broken = _columns(predictions, "predictions", True, drop=invalid == "drop")
    if not len(gt["video"]):
        raise ValueError(
            "ground_truth has no row; is the subset's name right "
            "('test', 'testing' and 'validation' are all in use)?"
        )
    names = ("ignored", "invalid", "duplicates", "degenerate", "tied", "foreign")
    report = dict.fromkeys(names, 0)

    # ground truth: what is left out of it, and its classes
    truths = _Account("ground_truth", gt)
    bad = gt["segment"][:, 1] <= gt["segment"][:, 0]
    report["degenerate"] = int(bad.sum())
    again = _repeated(gt, ~bad if degenerate == "drop" else np.ones(len(bad), bool))
    report["duplicates"] = int(again.sum())
    if degenerate == "drop":
        truths.leave_out("end not after start", bad)
    else:
        truths.note("end not after start: counts, is never met", bad)
    if duplicates == "drop":
        truths.leave_out("repeats another within 1 ms", again)
    else:
        truths.note("repeats another within 1 ms: counts", again)
    truths.close()
    gt = {k: v[truths.used] for k, v in gt.items()}
    if not len(gt["video"]):
        raise ValueError("ground_truth has no row left after dropping degenerate segments")
    labels, gt_class = _classes(gt["label"])

    # predictions: their classes, and what is left out of them
    found = _Account("predictions", pred)
    known, respelled = _known(labels, pred["label"])
    if unknown == "error" and (known < 0).any():
        odd = _some(pred["label"][known < 0])
        raise ValueError(
            f"predictions: classes without ground truth {odd}; "
            f"expected some of {labels.tolist()[:20]}"
        )
    if len(known) and (known < 0).all() and strict < 1:
        raise ValueError(
            f"predictions: no label is in ground_truth; predictions have {_some(pred['label'])}, "
            f"ground truth has {labels.tolist()[:5]}; give both the same names, or pass strict=1 "
            "(--max-dropped 1) for a score of 0"
        )
    report["ignored"] = int((known < 0).sum())
    wrong = ~broken & ~(pred["segment"][:, 1] > pred["segment"][:, 0])
    report["invalid"] = int(wrong.sum())
    if wrong.any() and invalid == "error":
        row = int(np.flatnonzero(wrong)[0])
        start, end = pred["segment"][row]
        raise ValueError(
            f"predictions, row {row}: end_s must be greater than start_s; got {start:g} to {end:g} "
            f"({report['invalid']} such rows); "
            "repair them, or pass invalid='drop' or 'false_positive'"
        )
    found.leave_out("time or score is no finite number", broken)
    found.unknown = known < 0
    found.leave_out("class without ground truth", found.unknown)
    if invalid == "drop":
        found.leave_out("end not after start", wrong)
    elif invalid == "false_positive":
        found.note("end not after start: false positive", wrong)
    found.close()
    keep = found.used
    pred, pred_class = {k: v[keep] for k, v in pred.items()}, known[keep]
    vague = {"video": gt["video"][:0]}
    if ambiguous is not None:
        vague, _ = _columns(ambiguous.assign(label=""), "ambiguous", False)
    videos = np.unique(np.concatenate([gt["video"], vague["video"]]))
    gt_video, pred_video = (pd.Index(videos).get_indexer(t["video"]) for t in (gt, pred))
    report["foreign"] = _foreign(videos, ground_truth.attrs.get("videos", ()), pred, pred_video)
    rows = np.flatnonzero(keep)[pred_video < 0]
    found.note("video without ground truth: false positive", np.isin(np.arange(len(keep)), rows))
    for account, table in ((truths, ground_truth), (found, predictions)):
        account.note("ends after the video", _beyond(ground_truth, table))

    # predictions of a class after each other, best first
    if ties != "numpy-reversed":
        listed = np.zeros(len(pred_class))
        if ties == "by-video":
            listed = np.unique(pred["video"], return_inverse=True)[1]
        order = np.lexsort((listed, -pred["score"], pred_class))
    else:
        of = [np.flatnonzero(pred_class == c) for c in range(len(labels))]
        order = [i[np.argsort(pred["score"][i])[::-1]] for i in of]
        order = np.concatenate(order) if len(pred_class) else np.zeros(0, int)
    segment, score = pred["segment"][order], pred["score"][order]
    pred_class, pred_video = pred_class[order], pred_video[order]
    num_gt, num_pred = (np.bincount(c, minlength=len(labels)) for c in (gt_class, pred_class))
    tied = np.zeros(len(score), bool)
    if len(score):
        same = (score[1:] == score[:-1]) & (pred_class[1:] == pred_class[:-1])
        tied = np.append(same, False) | np.insert(same, 0, False)
        report["tied"] = int(tied.sum())
    twice = np.zeros(len(keep), bool)
    likely = order[tied]  # only they can repeat another
    columns = pred["video"][likely], pred_class[tied], pred["score"][likely]
    ends = pred["segment"][likely].T
    twice[np.flatnonzero(keep)[likely]] = _duplicated(*columns, *ends)
    found.note("repeats another: false positive", twice)

    shielded = np.zeros(len(segment), bool)
    if len(vague["video"]):
        vague_video = pd.Index(videos).get_indexer(vague["video"])
        shielded = _touching(pred_video, segment, vague_video, vague["segment"])
    # a group: a class of a video; predictions elsewhere are in none
    gt_group = gt_video * len(labels) + gt_class
    pred_group = np.where(pred_video >= 0, pred_video * len(labels) + pred_class, -1)
    if protocol == "activitynet":
        holders = _holders(pred_group, segment, gt_group, gt["segment"], tious, False)
        hits = np.zeros((len(tious), len(segment)), bool)
        for hit, holder in zip(hits, holders, strict=True):
            hit[holder[holder >= 0]] = True
    else:
        hits = _holders(gt_group, gt["segment"], pred_group, segment, tious, True) >= 0
    ap = np.zeros((len(tious), len(labels)))
    for i, hit in enumerate(hits):
        ranked = np.flatnonzero(hit | ~shielded)
        first = np.searchsorted(pred_class[ranked], np.arange(len(labels) + 1))
        for c, mine in enumerate(np.split(hit[ranked], first[1:-1])):
            ap[i, c] = _ap(mine, num_gt[c], interpolated=protocol == "activitynet")
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
    out.attrs["left_out"] = truths.rows + found.rows
    met = int(hits[int(np.argmin(tious))].sum())
    _say(truths, found, respelled, strict)
    if met < HARDLY * len(gt["video"]):
        _compare_clocks(ground_truth, gt, pred, met, min(tious))
    return out


def left_out(scores: pd.DataFrame) -> pd.DataFrame:
    """What became of the rows of both tables, of what `evaluate` returned; write it with `to_csv`.

    Returns:
        Rows `table, what, reason, videos, labels, segments`. `what` is "in", "left out" (the
        reasons exclude each other), "used", and "noted" (used all the same). Segments in = used +
        left out.
    """
    columns = ["table", "what", "reason", "videos", "labels", "segments"]
    return pd.DataFrame(scores.attrs["left_out"], columns=columns)


class _Account:
    """Rows of one table: in, left out by reason, used."""

    def __init__(self, name: str, table: dict):
        self.name, self.table, self.rows, self.unknown = name, table, [], None
        self.used = np.ones(len(table["video"]), bool)
        self._add("in", "", self.used)

    def _add(self, what: str, reason: str, mask: np.ndarray) -> None:
        if mask.any() or what in ("in", "used"):
            videos, labels = (len(pd.unique(self.table[c][mask])) for c in ("video", "label"))
            row = {"table": self.name, "what": what, "reason": reason}
            counts = {"videos": videos, "labels": labels, "segments": int(mask.sum())}
            self.rows.append(row | counts)

    def leave_out(self, reason: str, mask: np.ndarray) -> None:
        """Those of the mask that no earlier reason has left out."""
        self._add("left out", reason, mask & self.used)
        self.used = self.used & ~mask

    def note(self, reason: str, mask: np.ndarray) -> None:
        """Something about rows that stay."""
        self._add("noted", reason, mask & self.used)

    def close(self) -> None:
        """All rows are accounted for."""
        self._add("used", "", self.used)
        if self.count("in") != self.count("used") + self.count("left out"):
            raise RuntimeError(f"{self.name}: rows are not accounted for: {self.rows}")

    def count(self, what: str) -> int:
        """Segments of that kind."""
        return sum(row["segments"] for row in self.rows if row["what"] == what)

    def words(self) -> str:
        """What is left out, in a sentence."""
        out = [r for r in self.rows if r["what"] == "left out"]
        parts = [
            f"{r['segments']} ({r['reason']}; {r['videos']} videos, {r['labels']} labels)"
            for r in out
        ]
        return f"{self.count('left out')} of {self.count('in')} {self.name}: " + ", ".join(parts)


def _say(truths: _Account, found: _Account, respelled: dict, strict: float) -> None:
    """Warn of what is left out; stop if it is too much."""
    for account in (truths, found):
        share = account.count("left out") / max(1, account.count("in"))
        if share > strict:
            raise ValueError(
                f"left out of the score: {account.words()}; more than strict={strict:g}; repair "
                "the "
                "tables, or allow it with a higher strict"
            )
    parts = [a.words() for a in (truths, found) if a.count("left out")]
    odd = pd.unique(found.table["label"][found.unknown]) if found.unknown is not None else []
    if len(odd):
        parts.append(f"labels without ground truth: {_some(odd)}")
    if parts:
        warnings.warn("left out of the score: " + "; ".join(parts), stacklevel=3)
    if respelled:
        pairs = [f"{a!r} as {b!r}" for a, b in list(respelled.items())[:5]]
        warnings.warn(
            f"predictions spell {len(respelled)} labels otherwise than ground_truth and are taken "
            f"for the same: {', '.join(pairs)}",
            stacklevel=3,
        )


def _some(labels) -> list:
    """The first five of the distinct labels, sorted where they can be."""
    found = list(dict.fromkeys(labels))
    try:
        return sorted(found)[:5]
    except TypeError:
        return sorted(found, key=str)[:5]


def _classes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels, sorted, and the number of each row's; one in two spellings is an error."""
    codes, names = pd.factorize(labels)
    spelled_once(names, "ground_truth")
    try:
        order = np.argsort(names, kind="stable")
    except TypeError:  # numbers and names
        order = np.argsort(names.astype(str), kind="stable")
    return names[order], np.argsort(order)[codes]


def _known(labels: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, dict]:
    """Number of each predicted label in `labels`, -1 for none, and which are spelled otherwise."""
    codes, names = pd.factorize(found)
    spelled_once(names, "predictions")
    keys = {label_key(label): i for i, label in enumerate(labels)}
    number = np.array([keys.get(label_key(name), -1) for name in names], dtype=int)
    pairs = {name: labels[i] for name, i in zip(names, number, strict=True) if i >= 0}
    respelled = {a: b for a, b in pairs.items() if str(a) != str(b)}
    return (number[codes] if len(names) else np.zeros(0, int)), respelled


def agree(ground_truth: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions with labels spelled as in the ground truth; those of other classes stay.

    Raises:
        ValueError: One of the tables has a label in two spellings.
    """
    names = pd.unique(ground_truth["label"])
    keys = spelled_once(names, "ground_truth")
    found = pd.unique(predictions["label"])
    spelled_once(found, "predictions")
    other = {f: keys.get(label_key(f), f) for f in found}
    if all(f is o or (f == o and type(f) is type(o)) for f, o in other.items()):
        return predictions
    return predictions.assign(label=predictions["label"].map(other))


def _compare_clocks(ground_truth, gt: dict, pred: dict, met: int, lowest: float) -> None:
    """Warn if predictions that hardly meet the ground truth end much later or earlier than it."""
    last = pd.Series(gt["segment"][:, 1]).groupby(gt["video"]).max()
    said = pd.Series(pred["segment"][:, 1]).groupby(pred["video"]).max()
    both = last.index.intersection(said.index)
    both = both[(last[both] > 0) & (said[both] > 0)]
    if not len(both):
        return
    ratio = (said[both] / last[both]).sort_values()
    middle = ratio.index[len(ratio) // 2]
    late = ratio[middle] > OTHER_CLOCK
    if late and (ends := _durations(ground_truth)) is not None:
        late = said[middle] > BEYOND * ends.get(middle, np.inf)
    if late or ratio[middle] < 1 / OTHER_CLOCK:
        warnings.warn(
            f"predictions meet {met} of {len(gt['video'])} instances at tIoU {lowest:g}, and in "
            "most "
            f"videos they end at another time: in {middle!r} at {said[middle]:g}, the ground truth "
            f"at {last[middle]:g} s; are they on another clock (frames, feature steps, "
            "milliseconds)? Times must be seconds",
            stacklevel=3,
        )


def _durations(ground_truth: pd.DataFrame) -> pd.Series | None:
    """Seconds by video, where they are known."""
    if "duration_s" not in ground_truth:
        return None
    number = pd.to_numeric(ground_truth["duration_s"], errors="coerce")
    return number.groupby(ground_truth["video"].to_numpy()).max()


def _beyond(ground_truth: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """Which rows end after their video, by more than the rounding of an annotation."""
    ends = _durations(ground_truth)
    if ends is None:
        return np.zeros(len(table), bool)
    end = pd.to_numeric(table["end_s"], errors="coerce").to_numpy(float)
    return end > ends.reindex(table["video"].to_numpy()).to_numpy(float) + SAME_S


def _duplicated(*columns) -> np.ndarray:
    """Which rows repeat an earlier one."""
    return pd.DataFrame(dict(enumerate(columns))).duplicated().to_numpy()


def summary(table: pd.DataFrame) -> dict[str, float]:
    """mAP at every threshold of what `evaluate` returned, and their mean: `mAP@0.50`, .., `mAP`."""
    means = table.groupby("tiou")["ap"].mean()
    return {f"mAP@{t:.2f}": float(v) for t, v in means.items()} | {"mAP": float(means.mean())}


def assignments(
    ground_truth: pd.DataFrame,
    predictions: pd.DataFrame,
    threshold: float,
    across: float = 0.1,
    near: str = "label",
) -> pd.DataFrame:
    """What each prediction is, at one threshold of ActivityNet's protocol.

    Args:
        ground_truth, predictions: As in `evaluate`; segments must be valid.
        threshold: tIoU.
        across: Least tIoU to count as near anything.
        near: Of instances of equal tIoU the one of the prediction's class ("label"), or the one
            that stands first in the table ("first", as DETAD's code).

    Returns:
        One row a prediction, in the table's order: `taken`, row number of the ground truth that the
        prediction takes, -1 if none; `near`, row number of the ground truth of any class with the
        highest tIoU of at least `across`, -1 if none; `tiou` with it.

    Raises:
        ValueError: A missing column, a time or score that is no finite number, a label in two
            spellings, another `near`.
    """
    if near not in ("label", "first"):
        raise ValueError(f'near: expected "label" or "first", got {near!r}')
    predictions = agree(ground_truth, predictions)
    gt, _ = _columns(ground_truth, "ground_truth", False)
    pred, _ = _columns(predictions, "predictions", True)
    coded = {}
    for column in ("label", "video"):
        both = np.concatenate([gt[column].astype(str), pred[column].astype(str)])
        codes = np.unique(both, return_inverse=True)[1]
        coded[column] = codes[: len(gt[column])], codes[len(gt[column]) :]
    (gt_class, pred_class), (gt_video, pred_video) = coded["label"], coded["video"]
    classes = max(gt_class.max(initial=0), pred_class.max(initial=0)) + 1
    order = np.lexsort((-pred["score"], pred_class))
    group = (pred_video * classes + pred_class)[order], gt_video * classes + gt_class
    (holder,) = _holders(
        group[0], pred["segment"][order], group[1], gt["segment"], (threshold,), False
    )
    taken = np.full(len(pred_class), -1)
    taken[order[holder[holder >= 0]]] = np.flatnonzero(holder >= 0)
    nearest, best = np.full(len(pred_class), -1), np.zeros(len(pred_class))
    for p, g, overlap in _pairs(
        pred_video, pred["segment"], gt_video, gt["segment"], across, False
    ):
        other = (gt_class[g] != pred_class[p]) & (near == "label")
        pick = np.lexsort((g, other, -overlap, p))
        first = pick[np.flatnonzero(np.diff(p[pick], prepend=-1))]
        nearest[p[first]], best[p[first]] = g[first], overlap[first]
    columns = {"taken": taken, "near": nearest, "tiou": best}
    return pd.DataFrame(columns, index=predictions.index)


def match(chooser: np.ndarray, thing: np.ndarray, things: int) -> np.ndarray:
    """Who ends up with each thing when choosers, in order of number, take the first free one of
    their list.

    The order of choosing is the same for all things, so the sequential pick is the only stable
    matching, and proposing in rounds finds it: all who have nothing ask for the next thing on their
    list, and every thing keeps the chooser of lowest number. All lists of all videos go through
    together.

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
    """Area under precision and recall of ranked predictions; precision at the k-th hit, at place r,
    is k / r.
    """
    place = np.flatnonzero(hit) + 1
    precision = np.arange(1, len(place) + 1) / place
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(precision.sum() / num_gt)


def _windows(chooser_group, chooser, thing_group, thing, lowest: float):
    """Where things can lie that have a tIoU of at least `lowest` with a chooser.

    tIoU >= t of a chooser s..e of length d needs a start in [e - d / t, e - t d]: the thing covers
    at least t d of it, and both together are at most d / t long. So things sorted by group and
    start have those of a chooser next to each other.

    Returns:
        Order of the things, and for each chooser the first and the last but one place in it.
    """
    order = np.lexsort((thing[:, 0], thing_group))
    key = np.empty(len(order), complex)  # compared by group, then start
    key.real, key.imag = thing_group[order], thing[order, 0]
    start, end = chooser[:, 0], chooser[:, 1]
    with np.errstate(over="ignore", invalid="ignore"):
        length = end - start
        slack = 1e-9 * (np.abs(start) + np.abs(end) + np.abs(length) / lowest)
        first, last = end - length / lowest - slack, end - lowest * length + slack
    asked = np.empty(len(chooser), complex)
    asked.real, asked.imag = chooser_group, first
    low = np.searchsorted(key, asked)
    asked.imag = last
    high = np.maximum(low, np.searchsorted(key, asked, side="right"))
    return order, low, high


def _pairs(chooser_group, chooser, thing_group, thing, lowest: float, strict: bool):
    """Pairs of one group with tIoU of at least `lowest`, some at a time: choosers, things, tIoUs.

    All pairs of a chooser come together, choosers in order of number.
    """
    order, low, high = _windows(chooser_group, chooser, thing_group, thing, lowest)
    many = high - low
    done = np.concatenate([[0], np.cumsum(many)])
    start = 0
    while start < len(chooser):
        stop = int(np.searchsorted(done, done[start] + PAIRS_AT_ONCE, side="right")) - 1
        stop = max(start + 1, stop)
        n = many[start:stop]
        c = np.repeat(np.arange(start, stop), n)
        t = order[
            np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(low[start:stop], n)
        ]
        overlap = tiou(chooser[c], thing[t])
        near = overlap > lowest if strict else overlap >= lowest
        yield c[near], t[near], overlap[near]
        start = stop


def _holders(chooser_group, chooser, thing_group, thing, tious, strict: bool) -> np.ndarray:
    """Who takes each thing when choosers, in order, take the free thing of highest tIoU.

    Args:
        chooser_group, thing_group: Only those of one group meet.
        chooser, thing: Segments (.., 2).
        tious: Thresholds.
        strict: Whether tIoU must be above the threshold; else at least equal.

    Returns:
        Chooser of each thing by threshold (len(tious), things), -1 where it stays free.
    """
    lowest = min(tious)
    order, low, high = _windows(chooser_group, chooser, thing_group, thing, lowest)
    if (high - low).sum() > MANY_PAIRS:
        from vlact.metrics.turns import take_turns

        holders = np.empty((len(tious), len(thing)), int)
        at = np.ascontiguousarray(thing[order])
        mine = np.ascontiguousarray(chooser)
        holders[:, order] = take_turns(mine, low, high, at, order, np.array(tious), strict)
        return holders
    found = list(_pairs(chooser_group, chooser, thing_group, thing, lowest, strict))
    if not found:
        return np.full((len(tious), len(thing)), -1)
    c, t, overlap = (np.concatenate(parts) for parts in zip(*found, strict=True))
    pick = np.lexsort((t, -overlap, c))
    c, t, overlap = c[pick], t[pick], overlap[pick]
    near = (overlap > x if strict else overlap >= x for x in tious)
    return np.stack([match(c[mask], t[mask], len(thing)) for mask in near])


def _touching(pred_video, segment, vague_video, vague_segment) -> np.ndarray:
    """Which predictions overlap an ambiguous interval of their video."""
    out = np.zeros(len(segment), bool)
    for video, (start, end) in zip(vague_video, vague_segment, strict=True):
        out |= (pred_video == video) & (
            np.minimum(segment[:, 1], end) > np.maximum(segment[:, 0], start)
        )
    return out


def _repeated(gt: dict, among: np.ndarray) -> np.ndarray:
    """Rows of the ground truth that repeat an earlier one of their video and label, within 1 ms."""
    out = np.zeros(len(gt["video"]), bool)
    rows = np.flatnonzero(among)
    codes = [pd.factorize(gt[c][rows])[0] for c in ("video", "label")]
    start, end = gt["segment"][rows].T
    exact = _duplicated(*codes, start, end)
    out[rows[exact]] = True
    # those that differ: neighbours lie in the same or the next cell of starts, sorted by end
    rows, start, end = rows[~exact], start[~exact], end[~exact]
    group = codes[0][~exact] * (codes[1].max(initial=0) + 1) + codes[1][~exact]
    with np.errstate(over="ignore"):
        cell = np.floor(start / (2 * SAME_S))
    cells = pd.MultiIndex.from_arrays([group, cell])
    number, known = pd.factorize(cells)
    order = np.lexsort((end, number))
    key = np.empty(len(order), complex)
    key.real, key.imag = number[order], end[order]
    for step in (-1, 0, 1):
        there = known.get_indexer(pd.MultiIndex.from_arrays([group, cell + step]))
        asked = np.empty(len(rows), complex)
        asked.real, asked.imag = there, end - 2 * SAME_S
        low = np.searchsorted(key, asked)
        asked.imag = end + 2 * SAME_S
        many = np.where(there >= 0, np.searchsorted(key, asked, side="right") - low, 0)
        for some in np.array_split(np.arange(len(rows)), 1 + many.sum() // PAIRS_AT_ONCE):
            n = many[some]
            a = np.repeat(some, n)
            b = order[np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(low[some], n)]
            same = (np.abs(start[a] - start[b]) <= SAME_S) & (np.abs(end[a] - end[b]) <= SAME_S)
            out[rows[a[same & (b < a)]]] = True
    return out


def _foreign(videos: np.ndarray, listed, pred: dict, pred_video: np.ndarray) -> int:
    """Predictions in videos without ground truth, with a warning for those that nobody knows.

    Args:
        videos: With ground truth.
        listed: All videos of the subset, where they are known.
        pred, pred_video: Predictions and their places in `videos`.
    """
    names = set(pd.unique(pred["video"]))
    for where, some in (("ground_truth", set(videos)), ("predictions", names)):
        if both := sorted(str(n) for n in some if f"v_{n}" in some):
            raise ValueError(
                f"{where}: {both[0]!r} and 'v_{both[0]}' are both there; expected one form of an id"
            )
    strange = sorted(names - set(videos) - set(listed), key=str)
    if names and len(strange) == len(names):
        bare = {str(v).removeprefix("v_") for v in videos}
        keys = {label_key(v) for v in videos}
        hint = ""
        if any(str(n).removeprefix("v_") in bare for n in names):
            hint = "; they differ by the prefix 'v_'"
        elif any(label_key(n) in keys for n in names):
            hint = "; they differ in spelling"
        raise ValueError(
            f"predictions: no video is in ground_truth{hint}; "
            f"predictions have {strange[:3]}, ground truth has {videos.tolist()[:3]}"
        )
    if strange:
        many = int(np.isin(pred["video"], strange).sum())
        warnings.warn(
            f"{many} predictions in {len(strange)} videos without ground truth count as false "
            f"positives: {strange[:3]}",
            stacklevel=3,
        )
    return int((pred_video < 0).sum())


def _columns(
    table: pd.DataFrame, name: str, scored: bool, drop: bool = False
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Checked columns as arrays: `video`, `label`, `segment` (N, 2) and `score` if `scored`.

    Returns:
        The columns, and which rows hold a number that is not finite; an error without `drop`.
    """
    wanted = ("video", "start_s", "end_s", "label", *(("score",) if scored else ()))
    if missing := [c for c in wanted if c not in table.columns]:
        raise ValueError(
            f"{name}: missing columns {missing}; expected {list(wanted)}, got {list(table.columns)}"
        )
    numbers, broken = {}, np.zeros(len(table), bool)
    for c in wanted:
        if c in ("video", "label"):
            continue
        try:
            numbers[c] = pd.to_numeric(table[c], errors="coerce").to_numpy(dtype=float)
        except TypeError:  # a list, a table
            rows = [isinstance(x, str | int | float | np.number) for x in table[c]]
            row = rows.index(False)
            raise ValueError(
                f"{name}, row {row}: {c} must be a finite number; got {table[c].iloc[row]!r}"
            ) from None
        if (bad := ~np.isfinite(numbers[c])).any() and not drop:
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"{name}, row {row}: {c} must be a finite number; "
                f"got {table[c].iloc[row]!r} ({int(bad.sum())} such rows)"
            )
        broken |= bad
    out = {"video": table["video"].to_numpy(), "label": table["label"].to_numpy()}
    for c in ("video", "label"):
        if (empty := pd.isna(out[c])).any():
            raise ValueError(f"{name}, row {int(np.flatnonzero(empty)[0])}: {c} is empty")
        try:
            pd.unique(out[c])
        except TypeError:
            rows = [isinstance(x, str | int | float | np.generic) for x in out[c]]
            row = rows.index(False)
            raise ValueError(
                f"{name}, row {row}: {c} must be a text or a number; got {out[c][row]!r}"
            ) from None
    out["segment"] = np.stack([numbers["start_s"], numbers["end_s"]], 1)
    return out | ({"score": numbers["score"]} if scored else {}), broken


def _check(value: str, allowed: tuple[str, ...], name: str) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}; got {value!r}")
