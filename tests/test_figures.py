"""Figures are fit to print: no text over another, letters that can be read, no wider than a page,
colours that colour-blind readers tell apart.

Each committed one is drawn from its csv where that holds all that it needs, else from made rows;
and each from a made table larger than any run's.
"""

import itertools

import numpy as np
import pandas as pd
import pytest

from vlact import ROOT
from vlact.language import tasks
from vlact.language.motions import taxonomy
from vlact.language.trees import phrase
from vlact.report import draw, figures, teaser
from vlact.worlds import arena, stadium

STUDY, REAL = ROOT / "figures" / "study", ROOT / "figures" / "real"
SEGMENT = ["start_s", "end_s", "label", "score"]
LONG = "the person first bends forward, then squats, then brings both hands overhead from the hip"
FAR = 0.1  # least distance of two colours, linear RGB
# Machado, Oliveira and Fernandes (2009), severity 1, linear RGB
BLIND = {
    "protan": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "deutan": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
}


def read(name, run=STUDY):
    return pd.read_csv(run / f"{name}.csv", na_values="–")


def clip(moments):
    """Frames (T, H, W, 3) of noise."""
    return np.random.default_rng(0).integers(0, 255, (moments, 24, 24, 3)).astype(np.uint8)


def segments(*rows):
    return pd.DataFrame(rows, columns=SEGMENT)


def similarity():
    """As `vlact.report.results.ace.Ace.matrices` arranges them."""
    rows, found = read("ace_results/ace_figure1"), {}
    for model, part in rows.groupby("model", sort=False):
        once = part.drop_duplicates(["clips_of", "name_of", "name"])
        wide = once.pivot(index="clips_of", columns=["name_of", "name"], values="cosine")
        found[model] = wide.sub(wide.mean(axis=1), axis=0)
    return draw.similarity(found)


def grid():
    table = read("ace_results/ace_grid")
    methods = ["ViFi-CLIP (ft)", "ProcVLR + text proj. + test leaf", "ACE slow", "ACE, halfway"]
    methods += ["Text4Vis", "ProcVLR", "ACE"]
    names = {"ata": "ATA", "ikea": "IKEA", "gtea": "GTEA"}
    return draw.grid(table, methods, {(d, m): (0.004, 3) for d in names for m in methods}, names)


def recordings():
    names = ("truth", "distractors", "question answering", "vision only", "full (Eq. 1)", "λ = 1")
    lanes = {
        name: segments(
            *((3 * i + 0.3 * k, 3 * i + 1.4, "VolleyballSpiking", 0.5) for i in range(5)),
            (15, 15.9, "FrisbeeCatch", 0.9),
        )
        for k, name in enumerate(names)
    }
    return draw.recordings([(clip(30), lanes, 16.0)] * 2, 0.25, 5)


def timeline(moments=16):
    lanes = {
        "ground truth": segments((1, 3, "shake hands", 1.0), (4, 6, "push", 1.0)),
        "distractors": segments(),
        "ActionFormer": segments(*((k, k + 2.5, f"stand up {k}", k / 20) for k in range(20))),
    }
    return draw.recordings([(clip(moments), lanes, 21.0)])


def weights():
    told = [(2.4, 4.6, "CleanAndJerk"), (5.8, 7.8, LONG * 3), (9, 10.2, LONG), (16, 18, LONG)]
    told = pd.DataFrame(told, columns=SEGMENT[:3])
    lanes = {"truth": told[:1], "looks like it": told[1:]}
    lanes |= {"full (Eq. 1)": segments((2.3, 4.7, "CleanAndJerk", 0.9))}
    at = np.linspace(0, 18, 72)
    curves = {
        name: pd.DataFrame({"seconds": at, "weight": high * np.sin(at) ** 2})
        for name, high in (("full (Eq. 1)", 0.02), ("LM-generated λ", 0.5))
    }
    return draw.weights_over_time(clip(40), lanes, curves, 18.0)


def drops():
    """Two runs a model, as far apart as the table says."""
    rows = []
    for row in read("transfer/transfer_table2").itertuples():
        known, unknown = ([float(x) for x in cell.split(" ± ")] for cell in (row.KC, row.UC))
        for seed, way in enumerate((-1, 1)):
            run = (x[0] + way * x[1] / np.sqrt(2) for x in (known, unknown))
            rows.append((row.model, seed, *run))
    strips = [(f"set {k}: {LONG}", clip(5)) for k in (1, 2)]
    return draw.drops(pd.DataFrame(rows, columns=["model", "seed", "known", "unknown"]), strips)


def known_and_unknown():
    table = read("transfer/transfer_figure5")
    split = table["split"].str.extract(r"(?P<task>Coarse|Fine).*-(?P<side>K|U)")
    here = table.assign(task=split["task"].str.lower(), side=split["side"])
    here = here.pivot(index=["model", "task"], columns="side", values="here").reset_index()
    here = here.rename(columns={"K": "known", "U": "unknown"})
    runs = [here.assign(known=here["known"] + k, unknown=here["unknown"] + k) for k in (0, 4)]
    return draw.known_and_unknown(pd.concat(runs), table)


def looks():
    heat = np.random.default_rng(1).random((8, 24, 24))
    return draw.looks([(name, clip(8), heat) for name in ("rising", LONG * 2)])


def sheet(names, columns=2, moments=8):
    return lambda: figures.contact_sheet([clip(moments)] * len(names), names, columns)


def motions():
    return [f"{m.coarse_id}.{m.number} ({m.set}) {m.fine}" for m in taxonomy("Syn-TA").itertuples()]


def pointing(names):
    wide = pd.DataFrame(np.random.default_rng(2).random((len(names), 60)), index=names)
    said = segments((2, 4, names[0], 1.0), (7, 8, names[-1], 1.0))
    return draw.pointing(clip(16), wide, said, 15.0)


def sizes():
    table = read("transfer/transfer_figure6")
    return draw.sizes(table, {side: 0.42 for side in table["side"].unique()})


def real_grid():
    """As `draw.grid` asks for it; the committed means have no std beside them."""
    table = read("real_ace/grid", REAL)
    means = {f"{key}_mean": table[key] / 100 for key in ("val_acc", "srt_acc_mean")}
    methods = ["ViFi-like", "Text4Vis-like", "ProcVLR", "ProcVLR + text proj. + test leaf"]
    methods += ["ACE", "ACE slow", "ACE, halfway"]
    names = {"jhmdb": "JHMDB", "ucf101": "UCF101, 15 classes"}
    table = table.assign(**means, val_acc_std=np.nan, srt_acc_mean_std=np.nan)
    return draw.grid(table, methods, {}, names)


def label_sets():
    table = read("real_ace/ace_figure1_real", REAL)
    return draw.label_sets(table, {name: 14.3 for name in table["dataset"].unique()})


def many(count, **columns):
    """A table of `count` rows; what is a function makes a cell of its row's number."""
    return pd.DataFrame(
        [{k: f(i) if callable(f) else f for k, f in columns.items()} for i in range(count)]
    )


def runs(lines, *points):
    """Every combination of what identifies a line, of points along it and of five seeds."""
    rows = itertools.product(*lines.values(), *(p[1] for p in points), range(5))
    return pd.DataFrame(rows, columns=[*lines, *(p[0] for p in points), "seed"])


def classes():
    table = read("localizers/localization_classes")
    groups = {x: ("own", "shared", "reversed")[k % 3] for k, x in enumerate(table["label"])}
    return draw.classes(table, groups)


def errors():
    shares = read("own_localization/own_errors").set_index("of G")
    costs = pd.Series(0.03, index=list(shares.columns[1:]))
    return draw.errors(shares, costs, read("own_localization/own_sensitivity"))


CLASSES = {
    name: [phrase(*x) for x in (*base, *novel)] for name, (base, novel) in tasks.DATASETS.items()
}
DRAWN = {
    "ace_figure1": similarity,
    "ace_figure1_real": label_sets,
    "ace_figure2": lambda: draw.trees(read("trees/ace_figure2")),
    "ace_figure3": lambda: draw.synonyms(read("ace_sweeps/ace_figure3"), 40.0),
    "ace_figure4": lambda: draw.layers(read("ace_sweeps/ace_figure4")),
    "ace_figure5": lambda: draw.concepts(read("ace_sweeps/ace_figure5")),
    "ace_grid": grid,
    "ace_diagnostics": lambda: draw.schedules(read("ace_sweeps/ace_diagnostics")),
    "across_srt_figure": lambda: draw.renamed(read("across/across_srt_figure")),
    "actionvlm_figure1": sheet([f"{x}: {LONG * 2}" for x in ("FrisbeeCatch", "Shotput")], 1, 10),
    "actionvlm_figure4": recordings,
    "actionvlm_figure5": weights,
    "actionvlm_figure6": lambda: draw.written_frames(
        read("actionvlm/actionvlm_figure6"), {"written": 50.0, "ground truth": 10.0}
    ),
    "actionvlm_wrong_descriptions": lambda: draw.wrong_descriptions(
        read("actionvlm/actionvlm_wrong_descriptions")
    ),
    "alignment": lambda: draw.alignment(read("alignment/alignment"), 0.8, 0.1),
    "arena_figure5": weights,
    "arena_table4": lambda: draw.weights_of_language(read("arena/arena_table4")),
    "arena_scarcity": lambda: draw.scarcity(read("arena/arena_scarcity")),
    "claims_figure": lambda: draw.claims(read("claims/claims_figure")),
    "contact_arena": sheet([*arena.NAMES[:8], *arena.unseen()]),
    "contact_ata": sheet(CLASSES["ata"]),
    "contact_gtea": sheet(CLASSES["gtea"]),
    "contact_ikea": sheet(CLASSES["ikea"]),
    "contact_kitchens": sheet(["open", "close", "turn on", "cut"] * 6),
    "contact_sessions": sheet(["Billiards: 3–21 s, 25–40 s\nof 48 s"] * 3, 1, 12),
    "contact_stadium": sheet(list(stadium.ACTIONS), 2, 10),
    "contact_synta": sheet(motions(), 3, 6),
    "contact_synta_styles": sheet(["realistic", "realistic, front", "plain", "plain, front"], 1),
    "contact_verbs": sheet(["pick up", "flip over the lid"] * 28, 3),
    "drills": sheet([f"{LONG}, {LONG}"] * 6),
    "grid": real_grid,
    "localization_classes": classes,
    "localization_real_figure": lambda: draw.localizers(
        read("real_localization/localization_real_figure", REAL)
    ),
    "localization_timeline": timeline,
    **dict.fromkeys(
        (f"localization_timeline_{x}" for x in ("fir", "gtea", "utkinect")),
        lambda: timeline(0),
    ),
    "motion_factors_figure": lambda: draw.factors(read("factors/motion_factors_figure")),
    "own_errors": errors,
    "own_timeline": timeline,
    "pretraining": lambda: draw.pretraining(read("pretrain/pretraining")),
    "questions": sheet(list(teaser.QUESTIONS), 1),
    "reading_pointer": lambda: pointing([*stadium.ACTIONS, "none of them"]),
    "transfer_figure1": drops,
    "transfer_figure1_real": lambda: draw.actions(read("real_motion/transfer_figure1_real", REAL)),
    "transfer_figure5": known_and_unknown,
    "transfer_figure5_real": lambda: draw.contexts(read("real_motion/transfer_figure5_real", REAL)),
    "transfer_figure6": sizes,
    "transfer_figure7": sheet([f"{LONG}\nsays: {LONG}"] * 6, 2, 6),
    "transfer_figure8": looks,
    "transfer_figure9": sheet([f"rising\nbase: {LONG}"] * 6, 2, 6),
    "transfer_figure10": looks,
    "zero_shot_classes": lambda: draw.named(read("real_video/zero_shot_classes", REAL), 100 / 21),
}
MODELS = [f"a model of a very long name, variant {k}" for k in range(30)]
ENDS = {"low": lambda i: -2.0 - i % 7, "high": lambda i: 40.0 + i % 9}
LARGE = {  # more rows, longer names than any run has
    "actions": lambda: draw.actions(
        many(
            80,
            model=lambda i: MODELS[i % 4],
            label=lambda i: f"action {i // 4}",
            known=99.0,
            unknown=1.0,
        )
    ),
    "alignment": lambda: draw.alignment(
        runs({"what": ("poses", "language")}, ("step", range(0, 100_000, 2_500))).assign(
            held_out_pose_accuracy=1.0, pointer=1.0, none=1.0, pose=1.0
        ),
        0.99,
        0.01,
    ),
    "claims": lambda: draw.claims(
        many(
            240,
            id=lambda i: f"{'AVT'[i % 3]}{i}",
            part=lambda i: f"{LONG} {i}",
            n=5,
            mean=9.0,
            **ENDS,
        )
    ),
    "classes": lambda: draw.classes(
        many(60, label=lambda i: f"ThrowDiscus{i}", mean=99.0, std=9.0),
        {f"ThrowDiscus{i}": f"group {i % 3}" for i in range(60)},
    ),
    "concepts": lambda: draw.concepts(
        many(
            400,
            mode=lambda i: ("base", "novel")[i % 2],
            concept=lambda i: f"take apart {i // 20}",
            model=lambda i: ("pretrained", "ACE")[i // 2 % 2],
            x=lambda i: np.sin(i * i),
            y=lambda i: np.cos(i * i),
        )
    ),
    "contexts": lambda: draw.contexts(
        many(
            180,
            setup=lambda i: f"msr_action3d_people_{i // 18}",
            model=lambda i: MODELS[i % 18],
            chance=5.0,
            known=60.0,
            known_low=50.0,
            known_high=100.0,
            unknown=40.0,
            unknown_low=0.0,
            unknown_high=100.0,
        )
    ),
    "drops": lambda: draw.drops(runs({"model": MODELS}).assign(known=100.0, unknown=0.0)),
    "factors": lambda: draw.factors(
        many(
            72,
            model=lambda i: MODELS[i % 6],
            new=lambda i: f"factor of a context {i // 6}",
            interval="[-99.9, 99.9]",
            **{"points lost": 50.0},
        )
    ),
    "label_sets": lambda: draw.label_sets(
        many(
            30,
            dataset=lambda i: ("JHMDB", "UCF101, 101 classes", "HMDB51")[i % 3],
            model=lambda i: MODELS[i // 3],
            **{f"label set {k}": 50.0 for k in range(10)},
        ),
        dict.fromkeys(("JHMDB", "UCF101, 101 classes", "HMDB51"), 5.0),
    ),
    "layers": lambda: draw.layers(
        many(
            48,
            side=lambda i: ("video", "text")[i % 2],
            dataset=lambda i: ("ATA", "IKEA")[i // 24],
            blocks=lambda i: i // 2 % 12 - 1,
            **{f"{x}_{y}": 0.5 for x in ("base", "novel", "SRT") for y in ("mean", "std")},
        )
    ),
    "localizers": lambda: draw.localizers(
        many(
            60,
            dataset=lambda i: f"set {i // 20}",
            model=lambda i: MODELS[i % 20],
            mAP=30.0,
            low=0.0,
            high=100.0,
            **{"each seed": "20.1 30.2 40.3"},
        )
    ),
    "named": lambda: draw.named(
        many(60, **{"class": lambda i: f"climb stairs {i}"}, **dict.fromkeys(MODELS[:4], 99.0)), 5.0
    ),
    "pointing": lambda: pointing([f"an action of a long name {k}" for k in range(60)]),
    "pretraining": lambda: draw.pretraining(
        runs(
            {"stage": ("frames", "trunk", "align", "vlog")}, ("step", range(0, 99_999, 2_500))
        ).assign(loss=1234.5, val_caption=1.0, val_verb=1.0, val_object=0.0)
    ),
    "renamed": lambda: draw.renamed(
        many(
            60,
            world=lambda i: f"world {i // 12} of a long name",
            model=lambda i: MODELS[i % 12],
            **{"own words": 99.0, "other words": 50.0, "std over runs": 40.0},
        )
    ),
    "scarcity": lambda: draw.scarcity(
        many(
            24,
            recordings=lambda i: 2 ** (i // 3),
            model=lambda i: MODELS[i % 3],
            mAP=99.0,
            gain=-9.9,
            **ENDS,
        )
    ),
    "schedules": lambda: draw.schedules(
        many(
            60,
            model=lambda i: MODELS[i % 6],
            moved=1.0,
            novel_cosine=lambda i: i / 60,
            srt_acc_mean=1.0,
            swap_text=0.1,
        )
    ),
    "sizes": lambda: draw.sizes(
        many(
            120,
            side=lambda i: f"SSv2-TA {i % 4}",
            model=lambda i: MODELS[i // 4][21:],
            M=lambda i: i + 1.0,
            hm=lambda i: i % 100,
            d_rel=lambda i: i * i % 100,
        ),
        {f"SSv2-TA {k}": -0.123 for k in range(4)},
    ),
    "trees": lambda: draw.trees(
        many(
            22,
            root=lambda i: f"disassemble entirely {i // 11}",
            words=f"{LONG}, {LONG}, {LONG}",
            child=lambda i: f"take to pieces one by one {i}",
        )
    ),
    "weights_of_language": lambda: draw.weights_of_language(
        many(
            16,
            **{"λ": lambda i: i / 10 if i < 11 else np.nan},
            model="learnable λ without L_adv",
            gain=10.0,
            **ENDS,
        )
    ),
    "wrong_descriptions": lambda: draw.wrong_descriptions(
        runs({"weight": MODELS[:8]}, ("share", np.arange(0, 1.01, 0.1))).assign(gain=-99.9)
    ),
}


@pytest.fixture(autouse=True)
def closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def test_every_committed_figure_is_measured():
    committed = {p.stem for p in (ROOT / "figures").rglob("*.png")}
    assert committed - set(DRAWN) == set()
    assert {p.stem for p in ROOT.glob("figures/*/*/*.pdf")} <= committed


@pytest.mark.parametrize("name", DRAWN)
def test_no_text_of_a_figure_covers_another(name):
    fig = DRAWN[name]()
    assert figures.faults(fig) == []
    assert len(figures.texts(fig)) > 1


@pytest.mark.parametrize("name", LARGE)
def test_no_text_covers_another_where_a_table_is_large(name):
    assert figures.faults(LARGE[name]()) == []


def test_the_measure_finds_what_is_wrong():
    import matplotlib.pyplot as plt

    fig, axis = plt.subplots(figsize=(9, 2))
    axis.plot([0, 1])
    axis.text(0.5, 0.5, "one")
    axis.text(0.5, 0.5, "two")
    axis.text(0.1, 0.5, "tiny", fontsize=3)
    axis.set_xlim(0.2, 1)  # the label of 0 is not drawn
    found = " ".join(figures.faults(fig))
    assert "'two' covers 'one'" in found and "'tiny' of 3.0 points" in found
    assert "9.0 inches wide" in found and "covers '0" not in found


def test_names_beside_points_are_all_there():
    import matplotlib.pyplot as plt

    fig, axis = plt.subplots(layout="constrained")
    points = np.repeat([[0.5, 0.5]], 12, axis=0)  # all at one place
    axis.set(xlim=(0, 1), ylim=(0, 1))
    figures.label(axis, points, [f"name {k}" for k in range(12)])
    assert len(axis.texts) == 12 and figures.faults(fig) == []


def test_a_strip_keeps_the_shape_of_its_frames():
    import matplotlib.pyplot as plt

    fig, axis = plt.subplots(figsize=(7, 1))
    frames = np.zeros((20, 10, 10, 3), np.uint8)
    figures.strip(axis, frames)
    shown = axis.images[0].get_array()
    box = axis.get_window_extent()
    assert shown.shape[1] / shown.shape[0] == pytest.approx(box.width / box.height, rel=0.02)
    black = (shown[5] == 0).all(axis=1)
    assert black[:10].all() and black[-10:].all() and black.sum() % 10 == 0


def test_a_part_that_decides_nothing_has_no_colour():
    rows = [("A1", 5, 1.0, 3.0), ("A2", 2, 1.0, 3.0), ("A3", 5, 2.0, 2.0), ("A4", 5, -3.0, -1.0)]
    parts = pd.DataFrame(rows, columns=["id", "n", "low", "high"])
    assert [draw._sign(row) for row in parts.itertuples()] == [1, 0, 0, -1]


def test_colours_are_told_apart_by_colour_blind_readers():
    import matplotlib

    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    seen = np.array([matplotlib.colors.to_rgb(c) for c in cycle])
    linear = np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4)
    for kind, matrix in BLIND.items():
        as_seen = (linear @ np.array(matrix).T).clip(0, 1)
        apart = np.linalg.norm(as_seen[:, None] - as_seen[None], axis=-1)
        assert apart[~np.eye(len(cycle), dtype=bool)].min() > FAR, kind
