"""The report on one's own data: scores, errors and every video's timeline, as csv and as one page.

The page is a single file without scripts: it opens from disk, loads nothing from anywhere (its
content security policy forbids it), and everything that comes from files is escaped. Clips are at
most `SIDE` pixels and `CLIP_S` seconds, `BYTES` in all; what goes beyond is linked.
"""

import base64
import io
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from vlact import __version__, video
from vlact.metrics import detad
from vlact.metrics.localization import (
    MOST_LEFT_OUT,
    PROTOCOLS,
    agree,
    assignments,
    evaluate,
    summary,
)
from vlact.runtime.extras import needs
from vlact.runtime.jobs import track, write_whole

SIDE, CLIP_S, CLIP_FPS, BYTES = 320, 30.0, 15.0, 50_000_000
SHOWN = 200  # videos with a timeline on the page; the csv has all
AT = 0.5  # tIoU at which a detection is right or wrong
LEVEL = 0.95
CHUNK = 16  # frames decoded at once
TIES = {"activitynet": "stable", "thumos14": "by-video"}  # as the official codes order equal scores
GAP = 1.5  # between touching segments, of a picture 1000 wide
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200)
MOST_TICKS = 10
COLOURS = dict(
    zip(
        (*detad.KINDS, "found", "missed", "detection"),
        "#009E73 #E69F00 #CC79A7 #56B4E9 #D55E00 #999999 #009E73 #B00020 #0072B2".split(),
        strict=True,
    )
)
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; "
    "base-uri 'none'; form-action 'none'"
)
STYLE = """
:root{color-scheme:light dark} body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;
max-width:70rem;padding:0 1rem} table{border-collapse:collapse;font-size:13px}
.wide{overflow-x:auto}
td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #8884} td:first-child,
th:first-child{text-align:left} video{max-width:320px;display:block;margin:.3rem 0}
svg{width:100%;height:auto} svg text{font:11px sans-serif;fill:currentColor}
.key b{margin:0 .2em 0 1em} .key i{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .8em}
section{margin:1.5rem 0} .small{font-size:13px;opacity:.8} h2{margin:2rem 0 .3rem}
nav a{margin-right:1em}
"""
SAYS = {  # what a table is, under its heading; those without are not on the page
    "results": "Accuracy in percent, mean over seeds; SRT: every novel class by each synonym.",
    "scores": "Mean average precision at each tIoU, in percent; in brackets the interval.",
    "videos": "Worst first. Found, missed and wrong at tIoU {at}; F1 of both.",
    "worst": "The surest wrong detections, then the longest instances that were missed.",
    "confusion": "Rows: what happens. Columns: what its surest detection at tIoU {at} says.",
    "errors": "What the best detections are, G being the number of instances: the first G, the "
    "second, and so on; shares.",
    "costs": "What mean average precision would gain without each kind of error.",
    "sensitivity": "Average precision (normalised to the same share of positives) and share missed "
    "of instances by their size; the ends of each bucket stand beside it.",
    "account": "What came in, what was used, and what was left out and why.",
}
FIRST = ("results", "scores", "videos", "timelines")  # of the page
ORDER = (*FIRST, *(name for name in SAYS if name not in FIRST))
LANES = {"truth": ("found", "missed"), "detections": (*detad.KINDS, "detection")}


@dataclass(frozen=True)
class Findings:
    """What there is to report; tables are written as csv under their names.

    Attributes:
        title: Of the page.
        tables: By name; `scores` and `videos` come first on the page, long ones are cut there.
        lanes: By video, worst first: what a lane is called to its segments
            `start_s, end_s, label, score, kind`.
        durations: Seconds, by video.
        notes: What a reader must know of how this was made.
        left_out: The account of `evaluate`, see `vlact.metrics.localization.left_out`.
    """

    title: str
    tables: dict[str, pd.DataFrame]
    lanes: dict[str, dict[str, pd.DataFrame]]
    durations: dict[str, float]
    notes: list[str] = field(default_factory=list)
    left_out: list[dict] = field(default_factory=list)


# Numbers
def score(
    truth: pd.DataFrame,
    found: pd.DataFrame,
    *,
    tious: tuple[float, ...],
    durations: dict[str, float],
    ambiguous: pd.DataFrame | None = None,
    invalid: str = "error",
    strict: float = MOST_LEFT_OUT,
    resamples: int = 200,
    buckets: dict | None = None,
    title: str = "Localization",
) -> Findings:
    """Both protocols with intervals over videos, confusion, kinds of error, every video.

    Args:
        truth, found, tious, ambiguous, invalid, strict: See `vlact.metrics.localization.evaluate`.
        durations: Seconds of every video.
        resamples: Of the videos, with replacement, for the intervals; 0 for none.
        buckets: See `vlact.metrics.detad.sensitivity`; fifths of the truth if not given.
        title: Of the page.

    Raises:
        ValueError: See `evaluate`.
    """
    rows, classes, notes = [], [], []
    for protocol in PROTOCOLS:
        options = {"tious": tious, "protocol": protocol, "ties": TIES[protocol], "invalid": invalid}
        options["strict"] = strict
        if protocol == "thumos14":
            options["ambiguous"] = ambiguous
        table = evaluate(truth, found, **options)
        classes.append(table.assign(protocol=protocol))
        spread = _spread(truth, found, resamples, options)
        for metric, value in summary(table).items():
            low, high = spread.get(metric, (np.nan, np.nan))
            rows.append((protocol, metric, value, low, high))
        counted, left_out = table.attrs["report"], table.attrs["left_out"]
    if said := ", ".join(f"{n} {what}" for what, n in counted.items() if n):
        notes.append(f"Counted on the way: {said}.")
    truth = truth.reset_index(drop=True)
    usable = (found["end_s"] > found["start_s"]) & np.isfinite(found["score"])
    valid = agree(truth, found[usable]).reset_index(drop=True)
    kinds = detad.kinds(truth, valid, AT)
    described = detad.characteristics(truth, durations)
    instances, best = _instances(truth, kinds)
    videos = _videos(instances, best)
    tables = {
        "scores": pd.DataFrame(rows, columns=["protocol", "metric", "value", "low", "high"]),
        "videos": videos,
        "errors": detad.false_positives(kinds).reset_index(),
        "costs": detad.impact(truth, kinds, tious).rename_axis("kind").reset_index(),
        "confusion": _confusion(instances, best),
        "sensitivity": detad.sensitivity(described, valid, buckets or detad.quintiles(described)),
        "classes": pd.concat(classes, ignore_index=True),
        "instances": instances,
        "detections": kinds,
        "worst": _worst(instances, best),
    }
    shown = instances.assign(kind=instances["verdict"], score=1.0)
    lanes = {
        v: {"truth": shown[shown["video"] == v], "detections": best[best["video"] == v]}
        for v in videos["video"]
    }
    drawn = f"{LEVEL:.0%} over {resamples} draws of the videos" if spread else "none"
    notes.append(
        f"Intervals: {drawn}. Errors, confusion and timelines: tIoU {AT}, of each class as many of "
        "its best detections as it has instances."
    )
    return Findings(title, tables, lanes, durations, notes, left_out)


def _spread(truth, found, resamples: int, options: dict) -> dict[str, tuple[float, float]]:
    """Low and high end of every metric when the videos are drawn anew, with replacement."""
    rows = [t.reset_index(drop=True).groupby("video").indices for t in (truth, found)]
    names, chance, drawn = sorted(rows[0]), np.random.default_rng(0), []
    if len(names) < 2:  # drawn anew it is always itself
        return {}
    nothing = np.zeros(0, int)
    for _ in track(range(resamples), resamples, f"resampling videos, {options['protocol']}"):
        picked = chance.integers(len(names), size=len(names))
        tables = []
        for table, where in zip((truth, found), rows, strict=True):
            parts = [where.get(names[i], nothing) for i in picked]
            copy = np.repeat(np.arange(len(picked)), [len(p) for p in parts])
            # a video that is drawn twice counts as two
            tables.append(table.iloc[np.concatenate(parts)].assign(video=copy))
        if tables[1].empty:
            continue
        vague = options.get("ambiguous")
        if vague is not None:
            place = pd.DataFrame({"video": [names[i] for i in picked], "copy": range(len(picked))})
            vague = vague.merge(place, on="video").assign(video=lambda t: t["copy"])
        with warnings.catch_warnings(action="ignore"):
            drawn.append(summary(evaluate(*tables, **options | {"ambiguous": vague})))
    ends = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    return {k: tuple(v.quantile(ends)) for k, v in pd.DataFrame(drawn).items()}


def _instances(truth: pd.DataFrame, kinds: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The truth with `verdict` ("found" or "missed"), `taken_as` and `score` of the surest
    detection that covers it; and the detections that count, each class's best ones.
    """
    best = kinds[kinds["multiple"] < 1].reset_index(drop=True)
    near = assignments(truth, best, AT)
    hit = near["taken"].to_numpy()
    verdict = np.where(np.isin(np.arange(len(truth)), hit), "found", "missed")
    covers = best.assign(row=near["near"])[near["tiou"] >= AT]
    surest = covers.sort_values("score", ascending=False).drop_duplicates("row").set_index("row")
    out = truth.assign(verdict=verdict)
    out["taken_as"] = surest["label"].reindex(out.index).fillna("nothing")
    out.loc[out["verdict"] == "found", "taken_as"] = out["label"]
    out["score"] = surest["score"].reindex(out.index)
    return out, best


def _confusion(instances: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """Instances by what they are taken for; the last row counts detections of nothing."""
    table = pd.crosstab(instances["label"], instances["taken_as"])
    background = best[best["kind"] == "background"]["label"].value_counts()
    table = table.reindex(columns=sorted(set(table) - {"nothing"} | set(background.index)))
    table = table.assign(
        nothing=(instances["taken_as"] == "nothing").groupby(instances["label"]).sum()
    )
    table.loc["(background)"] = background.reindex(table.columns)
    return table.fillna(0).astype(int).rename_axis("truth").reset_index()


def _videos(instances: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """A row a video, worst first: instances, found, missed, wrong detections, F1."""
    found = (instances["verdict"] == "found").groupby(instances["video"]).agg(["size", "sum"])
    wrong = (best["kind"] != "true positive").groupby(best["video"]).sum()
    out = pd.DataFrame({"instances": found["size"], "found": found["sum"]})
    out = out.reindex(out.index.union(wrong.index)).fillna(0).astype(int)
    out["missed"] = out["instances"] - out["found"]
    out["wrong"] = wrong.reindex(out.index).fillna(0).astype(int)
    errors = out["missed"] + out["wrong"]
    out["f1"] = 2 * out["found"] / (2 * out["found"] + errors).clip(lower=1)
    order = out.assign(errors=-errors).sort_values(["f1", "errors"], kind="stable").index
    return out.loc[order].rename_axis("video").reset_index()


def _worst(instances: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """The surest wrong detections and the longest instances that were missed."""
    columns = ["video", "start_s", "end_s", "label", "what", "score"]
    wrong = best[best["kind"] != "true positive"].assign(what=lambda t: t["kind"])
    missed = instances[instances["verdict"] == "missed"].assign(
        what=lambda t: "missed, taken for " + t["taken_as"].astype(str)
    )
    long = (missed["end_s"] - missed["start_s"]).sort_values(ascending=False, kind="stable").index
    return pd.concat([wrong[columns].head(20), missed.loc[long, columns].head(20)])


def detected(found: pd.DataFrame, durations: dict[str, float], title: str) -> Findings:
    """Detections alone, without truth."""
    columns = ["start_s", "end_s", "label", "score"]
    videos = found.groupby("video").agg(detections=("label", "size"), best=("score", "max"))
    lanes = {v: {"detections": t.assign(kind="detection")} for v, t in found.groupby("video")}
    tables = {"videos": videos.reset_index(), "detections": found[["video", *columns]]}
    return Findings(title, tables, {v: lanes.get(v, {}) for v in durations}, durations)


# Pictures
def frames_of(info: video.VideoInfo, wanted: np.ndarray):
    """Frames by number, one after the other; few lie in memory at once."""
    for first in range(0, len(wanted), CHUNK):
        yield from video.read(info.path, wanted[first : first + CHUNK], info)


def encode(to, frames, height: int, width: int, fps: float, longest: int) -> None:
    """H.264 in yuv420p, as browsers play it: a path or a buffer, no side above `longest` pixels."""
    with needs("a clip"):
        import av
    from fractions import Fraction

    scale = min(1.0, longest / max(height, width))
    with av.open(to, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = (max(2, 2 * round(x * scale / 2)) for x in (height, width))
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "28", "preset": "veryfast"}
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            small = frame.reformat(stream.width, stream.height, "yuv420p")
            container.mux(stream.encode(small))
        container.mux(stream.encode())


def clip(path: Path, start_s: float) -> tuple[bytes, float]:
    """At most `CLIP_S` seconds of a video as mp4, and where they end."""
    info = video.probe(path)
    end_s, rate = min(start_s + CLIP_S, info.duration_s), min(info.fps, CLIP_FPS)
    wanted = video.nearest_frames(
        info, np.arange(start_s, max(end_s, start_s + 1 / rate), 1 / rate)
    )
    out = io.BytesIO()
    encode(out, frames_of(info, wanted), info.height, info.width, rate, SIDE)
    return out.getvalue(), end_s


def captioned(path: Path, segments: pd.DataFrame, out: Path, longest: int = 640) -> None:
    """The whole video with the names of what happens written on it; without sound."""
    with needs("a captioned video"):
        from PIL import Image, ImageDraw, ImageFont

    info = video.probe(path)
    font = ImageFont.load_default(max(12, info.height // 18))

    def drawn(label_at: np.ndarray):
        for time_s, image in zip(label_at, frames_of(info, np.arange(len(label_at))), strict=True):
            now = segments[(segments["start_s"] <= time_s) & (time_s < segments["end_s"])]
            if len(now):
                picture = Image.fromarray(image)
                lines = [f"{r.label} {r.score:.2f}" for r in now.itertuples()]
                draw, at = ImageDraw.Draw(picture), (4, 2)
                draw.rectangle(draw.multiline_textbbox(at, "\n".join(lines), font=font), "black")
                draw.multiline_text(at, "\n".join(lines), "white", font)
                image = np.asarray(picture)
            yield image

    def save(times: np.ndarray, to: Path) -> None:
        shown = track(drawn(times), len(times), "captions")
        encode(str(to), shown, info.height, info.width, info.fps, longest)

    write_whole(out, save, info.times)


def timeline(lanes: dict[str, pd.DataFrame], duration_s: float) -> str:
    """Lanes of segments as svg; those of a lane that overlap stand under each other."""
    width, row, left, y = 1000, 18, 80, 4
    out = []
    scale = (width - left) / max(duration_s, 1e-9)
    for name, rows in lanes.items():
        free, top = [], y
        for r in rows.sort_values("start_s").itertuples():
            part = next((i for i, end in enumerate(free) if end <= r.start_s), len(free))
            free[part : part + 1] = [r.end_s]
            x, w = left + r.start_s * scale, max(1.0, (r.end_s - r.start_s) * scale - GAP)
            said = f"{r.label}, {r.start_s:.1f} to {r.end_s:.1f} s, {r.kind}"
            said += "" if pd.isna(r.score) else f", score {r.score:.2f}"
            # a letter is about seven units wide
            words = str(r.label) if 7 * len(str(r.label)) < w else ""
            out.append(
                f'<g><title>{escape(said)}</title><rect x="{x:.1f}" y="{top + part * row}" '
                f'width="{w:.1f}" height="{row - 3}" fill="{COLOURS[r.kind]}" fill-opacity=".6"/>'
                f'<text x="{x + 3:.1f}" y="{top + part * row + 12}">{escape(words)}</text></g>'
            )
        out.append(f'<text x="0" y="{top + 12}">{escape(name)}</text>')
        y += row * max(1, len(free)) + 4
    step = next((s for s in STEPS_S if duration_s / s <= MOST_TICKS), duration_s / MOST_TICKS)
    for k in range(int(duration_s / step) + 1):
        x = left + step * k * scale
        side = "end" if x > width - 20 else "middle"
        out.append(
            f'<path d="M{x:.1f} 2V{y}" stroke="currentColor" stroke-opacity=".15"/>'
            f'<text x="{x:.1f}" y="{y + 12}" text-anchor="{side}">{step * k:g} s</text>'
        )
    return f'<svg viewBox="0 0 {width} {y + 18}" role="img">{"".join(out)}</svg>'


# The page
def _table(table: pd.DataFrame, most: int = 60, shaded: bool = False) -> str:
    """The first rows as html; numbers with three digits after the point.

    Args:
        table: Any.
        most: Rows.
        shaded: Cells of numbers are darker the larger they are in their row.
    """

    def cell(x, whole: float) -> str:
        tint = ""
        if shaded and isinstance(x, int | np.integer) and whole:
            tint = f' style="background:rgba(0,114,178,{0.6 * x / whole:.2f})"'
        if isinstance(x, float | np.floating):
            x = "" if np.isnan(x) else f"{x:.3f}"
        return f"<td{tint}>{escape(str(x))}</td>"

    rows = ""
    for row in table.head(most).itertuples(index=False):
        whole = sum(x for x in row if isinstance(x, int | np.integer))
        rows += f"<tr>{''.join(cell(x, whole) for x in row)}</tr>"
    head = "".join(f"<th>{escape(str(c))}</th>" for c in table)
    more = f"<p class=small>{most} of {len(table)} rows; the csv has all.</p>" * (len(table) > most)
    return f"<div class=wide><table><tr>{head}</tr>{rows}</table></div>{more}"


def _shown(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table as a person reads it; the csv has the numbers."""
    if name == "scores":

        def cell(r) -> str:
            ends = "" if np.isnan(r["low"]) else f" [{100 * r['low']:.1f}, {100 * r['high']:.1f}]"
            return f"{100 * r['value']:.1f}{ends}"

        text = table.assign(value=table.apply(cell, axis=1))
        wide = text.pivot(index="protocol", columns="metric", values="value")
        return wide[table["metric"].unique()].rename_axis(columns=None).reset_index()
    if name == "sensitivity":

        def ends(r) -> str:
            low, high = r["above"], r["up_to"]
            parts = {f"above {low:.3g}": low, f"up to {high:.3g}": high}
            return " ".join(text for text, end in parts.items() if np.isfinite(end))

        table = table.assign(ends=table.apply(ends, axis=1)).drop(columns=["above", "up_to"])
        return table[["characteristic", "bucket", "ends", *table.columns[2:-1]]]
    if name == "account":
        return table.fillna("")
    return table


def _film(path: Path | None, start_s: float, out: Path, room: int) -> tuple[str, int]:
    """A player or a link for a video, and the bytes that it takes of the `room` that is left."""
    if path is None:
        return "", 0
    where = escape(quote(os.path.relpath(path.resolve(), out.resolve()).replace(os.sep, "/")))
    link = f'<a href="{where}">{escape(path.name)}</a>'
    if room <= 0:
        return f"<p class=small>{link} (not inside: the page is full)</p>", 0
    try:
        data, end_s = clip(path, start_s)
    except (video.VideoError, ModuleNotFoundError) as error:
        return f"<p class=small>{link}: {escape(str(error))}</p>", 0
    coded = base64.b64encode(data).decode()
    if len(coded) > room:
        return f"<p class=small>{link} (not inside: the page is full)</p>", 0
    player = f'<video controls preload="metadata" src="data:video/mp4;base64,{coded}"></video>'
    return f"{player}<p class=small>{start_s:.1f} to {end_s:.1f} s of {link}</p>", len(coded)


def _start(lanes: dict[str, pd.DataFrame], duration_s: float) -> float:
    """Where a clip of a long video begins: just before its first error, else its first action."""
    rows = pd.concat([*lanes.values(), pd.DataFrame({"start_s": [], "kind": []})])
    wrong = rows[~rows["kind"].isin(["found", "true positive"])]
    first = (wrong if len(wrong) else rows)["start_s"].min()
    return (
        0.0
        if duration_s <= CLIP_S or pd.isna(first)
        else max(0.0, min(first - 3, duration_s - CLIP_S))
    )


def page(found: Findings, out: Path, videos: dict[str, Path]) -> str:
    """The report as one html text.

    Args:
        found: From `score` or `detected`.
        out: The folder where it will lie, for links.
        videos: Files by video; those without one have no clip.
    """
    room, parts, shown = BYTES, [], list(found.lanes)[:SHOWN]
    for name in track(shown, len(shown), "report"):
        lanes, duration_s = found.lanes[name], found.durations[name]
        film, used = _film(videos.get(name), _start(lanes, duration_s), out, room)
        room -= used
        parts.append(
            f"<section><h3>{escape(name)}</h3>{timeline(lanes, duration_s)}{film}</section>"
        )
    used = {k for lanes in found.lanes.values() for t in lanes.values() for k in t["kind"].unique()}
    key = ""
    for lane, kinds in LANES.items():
        marks = [f'<i style="background:{COLOURS[k]}"></i>{k}' for k in kinds if k in used]
        key += f"<b>{lane}</b>{''.join(marks)}" if marks else ""
    cut = f"<p class=small>The first {SHOWN} of {len(found.lanes)}.</p>"
    body = {"timelines": f'<p class="key">{key}</p>{cut * (len(found.lanes) > SHOWN)}'}
    body["timelines"] += "".join(parts)
    for name in [n for n in SAYS if n in found.tables]:
        told = name == "results" or "scores" in found.tables  # without truth little is to be said
        said = escape(SAYS[name].format(at=AT)) if told else ""
        table = _table(_shown(name, found.tables[name]), shaded=name == "confusion")
        body[name] = f"<p class=small>{said}</p>{table}"
    order = [n for n in ORDER if n in body]
    sections = "".join(f'<h2 id="{n}">{n.capitalize()}</h2>{body[n]}' for n in order)
    links = "".join(f'<a href="#{n}">{n}</a>' for n in order)
    notes = "".join(f"<p class=small>{escape(n)}</p>" for n in found.notes)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(found.title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(found.title)}</h1><nav>{links}</nav>{notes}{sections}"
        f"<p class=small>vlact {__version__}</p></body></html>\n"
    )


def write(
    found: Findings,
    out: Path,
    videos: dict[str, Path] | None = None,
    say: Callable = lambda x: None,
) -> list[Path]:
    """report.html, scores.json where there are scores, and a csv of every table.

    Args:
        found: From `score` or `detected`.
        out: Folder.
        videos: Files by video.
        say: Is told of every file.

    Returns:
        The files.
    """
    made = []

    def keep(name: str, text: str) -> None:
        write_whole(out / name, lambda data, to: to.write_text(data, encoding="utf-8"), text)
        made.append(out / name)
        say(out / name)

    for name, table in found.tables.items():
        keep(f"{name}.csv", table.to_csv(index=False, lineterminator="\n", float_format="%.6f"))
    if "scores" in found.tables:
        keep("scores.json", json.dumps(as_dict(found), indent=1) + "\n")
    keep("report.html", page(found, out, videos or {}))
    return made


def as_dict(found: Findings) -> dict:
    """Scores by protocol and metric: value, low, high; null where there is no interval."""
    out = {}
    for r in found.tables["scores"].itertuples():
        ends = {
            k: None if pd.isna(getattr(r, k)) else float(getattr(r, k)) for k in ("low", "high")
        }
        out.setdefault(r.protocol, {})[r.metric] = {"value": float(r.value)} | ends
    return out
