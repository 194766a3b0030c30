"""Figures are fit to print: no text over another, letters that can be read, no wider than a page,
colours that colour-blind readers tell apart.

Each is drawn from its committed csv where that holds all that it needs, else from a few made rows.
"""

import numpy as np
import pandas as pd
import pytest

from vlact import ROOT
from vlact.language.motions import taxonomy
from vlact.report import draw, figures

STUDY = ROOT / "figures" / "study"
SEGMENT = ["start_s", "end_s", "label", "score"]
LONG = "the person first bends forward, then squats, then brings both hands overhead from the hip"
FAR = 0.1  # least distance of two colours, linear RGB
# Machado, Oliveira and Fernandes (2009), severity 1, linear RGB
BLIND = {
    "protan": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "deutan": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
}


def read(name):
    return pd.read_csv(STUDY / f"{name}.csv")


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
    return draw.recordings([(clip(30), lanes, 16.0)] * 2, 0.25)


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


def synta():
    motions = taxonomy("Syn-TA")
    names = [f"{m.coarse_id}.{m.number} ({m.set}) {m.fine}" for m in motions.itertuples()]
    return figures.contact_sheet([clip(6)] * len(names), names, columns=3)


def classes():
    table = read("localizers/localization_classes")
    groups = {x: ("own", "shared", "reversed")[k % 3] for k, x in enumerate(table["label"])}
    return draw.classes(table, groups)


def errors():
    shares = read("own_localization/own_errors").set_index("of G")
    costs = pd.Series(0.03, index=list(shares.columns[1:]))
    return draw.errors(shares, costs, read("own_localization/own_sensitivity"))


DRAWN = {
    "ace_figure1": similarity,
    "ace_figure3": lambda: draw.synonyms(read("ace_sweeps/ace_figure3"), 40.0),
    "ace_figure4": lambda: draw.layers(read("ace_sweeps/ace_figure4")),
    "ace_figure5": lambda: draw.concepts(read("ace_sweeps/ace_figure5")),
    "ace_grid": grid,
    "ace_diagnostics": lambda: draw.schedules(read("ace_sweeps/ace_diagnostics")),
    "actionvlm_figure4": recordings,
    "actionvlm_figure5": weights,
    "actionvlm_figure6": lambda: draw.written_frames(
        read("actionvlm/actionvlm_figure6"), {"written": 50.0, "ground truth": 10.0}
    ),
    "actionvlm_wrong_descriptions": lambda: draw.wrong_descriptions(
        read("actionvlm/actionvlm_wrong_descriptions")
    ),
    "arena_table4": lambda: draw.weights_of_language(read("arena/arena_table4")),
    "arena_scarcity": lambda: draw.scarcity(read("arena/arena_scarcity")),
    "claims_figure": lambda: draw.claims(read("claims/claims_figure")),
    "contact_synta": synta,
    "localization_classes": classes,
    "localization_real_figure": lambda: draw.localizers(
        pd.read_csv(ROOT / "figures/real/real_localization/localization_real_figure.csv")
    ),
    "own_errors": errors,
    "transfer_figure1": drops,
    "transfer_figure5": known_and_unknown,
    "transfer_figure8": looks,
}


@pytest.fixture(autouse=True)
def closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.mark.parametrize("name", DRAWN)
def test_no_text_of_a_figure_covers_another(name):
    fig = DRAWN[name]()
    assert figures.faults(fig) == []
    assert len(figures.texts(fig)) > 1


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
