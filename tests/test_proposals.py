"""Localization as text: round trip, every kind of failure, LAP."""

import numpy as np
import pandas as pd
import pytest

from vlact.metrics import proposals

CLASSES = ["Diving", "Golf Swing"]


def test_what_is_written_is_read_again_with_falling_scores():
    segments = pd.DataFrame(
        [(3.0, 12.5, "Golf Swing"), (20.0, 31.0, "Diving")], columns=["start", "end", "label"]
    )
    text = proposals.write(segments)
    assert text == "Golf Swing 3 12.5 ; Diving 20 31"
    found, invalid = proposals.read(text, CLASSES)
    pd.testing.assert_frame_equal(found[["start", "end", "label"]], segments)
    assert invalid == 0 and found["score"].tolist() == [1.0, 0.5]
    assert (
        proposals.write(segments.head(0)) == "nothing"
        and len(proposals.read("nothing", CLASSES)[0]) == 0
    )


@pytest.mark.parametrize(
    "text",
    [
        "Diving 3",
        "3 5",
        "Diving five 9",
        "Diving 9 3",
        "Diving 3 3",
        "Surfing 3 9",
        "",
        "Diving 3 9 12",
    ],
)
def test_what_says_nothing_is_counted_as_invalid(text):
    found, invalid = proposals.read(f"{text} ; Diving 1 2", CLASSES)
    assert len(found) == 1 and invalid == 1


def test_failures_are_told_apart():
    answers = {
        "heart1": "Diving 5 9 ; Golf Swing 20 30",
        "heart2": "Golf Swing 5 9 ; Diving 20 30",
        "heart3": "Diving 5 9 ; Diving 20 30",
        "good": "Diving 6 9",
        "whole": "Diving 0 63",
        "again": "Diving 6 9 ; Diving 6 9",
        "endless": "Diving 11 12",
        "broken": "Diving 11 ; Diving 9 3 ; Diving 1 2",
        "silent": "nothing",
    }
    found = proposals.failures(
        answers, {v: v != "endless" for v in answers}, 64, CLASSES
    ).set_index("video")
    assert found.index[found["fixed"]].tolist() == ["heart1", "heart2", "heart3", "whole"]
    assert found.index[found["infinite"]].tolist() == ["again", "endless"]
    assert found["invalid"].to_dict() == {v: 2 / 3 if v == "broken" else 0.0 for v in answers}
    assert found.loc["heart1", ["round", "boundaries"]].tolist() == [0.5, 4] and np.isnan(
        found.loc["silent", "round"]
    )
    with pytest.raises(ValueError, match=r"same videos; they differ in \['x'\]"):
        proposals.failures({"x": ""}, {}, 64, CLASSES)


def test_lap_is_the_relative_drop_and_derangements_move_everything():
    assert proposals.language_advantage_on_performance(0.5, [0.4, 0.45]) == pytest.approx(15.0)
    assert proposals.language_advantage_on_performance(0.5, [0.6]) == pytest.approx(-20.0)
    with pytest.raises(ValueError, match="at least one derangement"):
        proposals.language_advantage_on_performance(0.5, [])
    found = proposals.derangements(5, 4)
    assert len(found) == 4 and all(
        sorted(d) == [0, 1, 2, 3, 4] and (d != np.arange(5)).all() for d in found
    )
    assert all((a == b).all() for a, b in zip(found, proposals.derangements(5, 4), strict=True))
    with pytest.raises(ValueError, match="at least two classes; got 1"):
        proposals.derangements(1, 1)
