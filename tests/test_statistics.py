"""Intervals hold the truth as often as they say, faults are named, power is as planned."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vlact.report import coverage, power
from vlact.report.statistics import (
    Effect,
    ScoreFault,
    bootstrap,
    components,
    effect,
    faults,
    mean_error,
    paired,
    signs,
)
from vlact.tools import power as command


def scores(rng, sizes, spread, mean=0.0, names=("seed", "video")):
    """Differences with a normal deviation for each factor and for the interaction."""
    y = np.full(sizes, mean, dtype=float)
    for axis, deviation in enumerate(spread[: len(sizes)]):
        y += deviation * rng.normal(size=[n if i == axis else 1 for i, n in enumerate(sizes)])
    y += spread[-1] * rng.normal(size=sizes)
    index = pd.MultiIndex.from_product([range(n) for n in sizes], names=names[: len(sizes)])
    return pd.Series(y.ravel(), index)


@pytest.fixture(scope="module")
def covered():
    # of 10,000 studies, so that chance moves a share by 0.2
    return coverage.coverage(studies=10_000, methods=("t",)).set_index("design")["t"]


def test_intervals_hold_the_truth_in_95_percent_of_studies(covered):
    alone = covered.index.str.contains("skewed|noise alone")
    assert covered[~alone].between(93, 97).all(), covered
    assert len(covered[~alone]) == 12


def test_where_the_interval_is_wrong_it_is_known_which_way(covered):
    # chi-squared scores need more seeds; folds and seeds that do not matter make it too wide
    assert covered[covered.index.str.contains("skewed")].between(85, 94).all()
    assert covered["5 seeds × 4 folds, noise alone"] > 97


def test_a_percentile_bootstrap_over_five_seeds_does_not(monkeypatch):
    monkeypatch.setattr(coverage, "DESIGNS", coverage.DESIGNS[:1])
    found = coverage.coverage(studies=1000, methods=("percentile", "BCa")).iloc[0]
    assert found["percentile"] < 88 and found["BCa"] < 88


def test_one_factor_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    ours, other = (pd.Series(rng.normal(size=7), pd.RangeIndex(7, name="seed")) for _ in range(2))
    found, wanted = effect(paired(ours, other)), stats.ttest_rel(ours, other)
    low, high = wanted.confidence_interval()
    assert found.interval() == pytest.approx((low, high)) and found.df == pytest.approx(6)
    assert found.p() == pytest.approx(wanted.pvalue)
    assert found.wins == (ours > other).sum() and found.units == {"seed": 7}


def test_what_is_nested_does_not_count_as_more_units():
    rng = np.random.default_rng(1)
    values = scores(rng, (6, 3), (1.0, 0.0, 1.0), names=("encoder", "seed"))
    outer = values.groupby("encoder").mean().rename_axis("encoder")
    assert effect(values, ["encoder"]) == effect(outer, ["encoder"])


def test_components_come_back():
    y = scores(np.random.default_rng(2), (400, 300), (2.0, 3.0, 1.0)).to_numpy().reshape(400, 300)
    found = components(y, 2)
    assert [np.sqrt(found[g]) for g in ((0,), (1,), (0, 1))] == pytest.approx([2, 3, 1], rel=0.1)


def test_three_factors_have_the_variance_that_was_planted():
    rng = np.random.default_rng(3)
    deviations = (1.0, 2.0, 0.5)
    y = sum(
        d * rng.normal(size=(4000, *(n if i == axis else 1 for i, n in enumerate((5, 8, 6)))))
        for axis, d in enumerate(deviations)
    ) + rng.normal(size=(4000, 5, 8, 6))
    error, df = mean_error(y, 3)
    assert np.sqrt((error**2).mean()) == pytest.approx(y.mean((1, 2, 3)).std(), rel=0.05)
    inside = abs(y.mean((1, 2, 3))) <= stats.t.ppf(0.975, df) * error
    assert 0.93 <= inside.mean() <= 0.97


def test_a_bootstrap_of_means_is_the_interval_of_means():
    rng = np.random.default_rng(4)
    values = scores(rng, (8, 40), (1.0, 3.0, 1.0), mean=2.0)
    table = values.unstack().to_numpy()
    found = bootstrap(
        lambda seed, video: table[np.ix_(seed, video)].mean(), {"seed": 8, "video": 40}, 2000
    )
    wanted = effect(values, ["seed", "video"])
    assert found.mean == pytest.approx(wanted.mean)
    assert found.se == pytest.approx(wanted.se, rel=0.1)
    assert found.df == pytest.approx(wanted.df, rel=0.25)


def test_a_nested_bootstrap_holds_the_truth():
    # 6 encoders with 3 seeds each, all on the same 5 folds of 6 items, paired differences
    rng, held, studies = np.random.default_rng(12), 0, 400
    for _ in range(studies):
        y = 1 + rng.normal(size=(6, 1, 1, 1)) + rng.normal(0, 0.7, (6, 3, 1, 1))
        y = y + rng.normal(size=(1, 1, 5, 1)) + rng.normal(0, 0.7, (1, 1, 5, 6))
        table = (y + rng.normal(size=(6, 3, 5, 6))).mean((1, 3))
        found = bootstrap(
            lambda encoder, fold, table=table: table[encoder][:, fold].mean(),
            {"encoder": 6, "fold": 5},
            draws=200,
        )
        low, high = found.interval()
        held += low <= 1 <= high
    assert 0.93 <= held / studies <= 0.97


def test_a_bootstrap_of_something_that_never_changes_is_refused():
    with pytest.raises(ScoreFault, match="the same in all draws of seed"):
        bootstrap(lambda seed: 1.0, {"seed": 5})
    with pytest.raises(ScoreFault, match="two units"):
        bootstrap(lambda seed: seed.mean(), {"seed": 1})


def test_holm_decides_fewer_than_each_part_alone():
    parts = [Effect(2.6, 1.0, 9, {"seed": 10}), Effect(-9.0, 1.0, 9, {"seed": 10})]
    assert signs(parts[:1], [0]) == [1] and signs(parts, [0, 0]) == [1, -1]
    weak = Effect(2.4, 1.0, 9, {"seed": 10})  # p = 0.04
    assert signs([weak], [0]) == [1] and signs([weak, weak], [0, 0]) == [0, 0]
    assert signs([weak], [5.0]) == [-1] and signs([], []) == []


def test_holm_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(11)
    for _ in range(4):
        parts = [Effect(m, 1.0, 9, {"seed": 10}) for m in rng.normal(0, 2.5, 6)]
        wanted = multipletests([e.p() for e in parts], method="holm")[0]
        assert [s != 0 for s in signs(parts, [0] * 6)] == wanted.tolist()


def test_a_printed_interval_gives_the_effect_back():
    values = scores(np.random.default_rng(5), (6,), (1.0, 1.0), mean=1.0)
    first = effect(values)
    again = Effect.of_interval(first.mean, *first.interval(), 6, "seed")
    assert (again.se, again.df) == pytest.approx((first.se, first.df))
    with pytest.raises(ScoreFault, match="positive width"):
        Effect.of_interval(5.5, 5.5, 5.5, 5, "seed")


FULL = scores(np.random.default_rng(6), (5, 4), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("values", "random", "said"),
    [
        (FULL.drop((2, 1)), ["seed", "video"], "missing: seed 2, video 1"),
        (FULL.drop((2, 1)), ["seed"], "fewer rows than the 4 of the others: seed 2"),
        (pd.concat([FULL, FULL[[(3, 0)]]]), ["seed", "video"], "repeated: seed 3, video 0"),
        (FULL.where(FULL.index != (4, 2)), ["seed"], "no score at seed 4, video 2"),
        (FULL, ["fold"], "no column fold; there are seed, video"),
    ],
)
def test_faults_of_a_table_are_named_with_their_rows(values, random, said):
    assert said in "; ".join(faults(values, random))
    with pytest.raises(ScoreFault, match=f"ATA, accuracy: .*{said}"):
        effect(values, random, "ATA, accuracy")


def test_a_sound_table_has_no_faults():
    assert faults(FULL, ["seed", "video"]) == faults(FULL, ["seed"]) == []


def test_methods_of_other_items_do_not_pair():
    with pytest.raises(ScoreFault, match="ACE and BIKE are not of the same items: only BIKE has"):
        paired(FULL.drop((0, 0)), FULL, ["ACE", "BIKE"])
    with pytest.raises(ScoreFault, match="other: repeated: seed 1, video 1"):
        paired(FULL, pd.concat([FULL, FULL[[(1, 1)]]]))
    mixed = FULL.sample(frac=1, random_state=0)
    assert (paired(FULL, mixed) == 0).all()


def test_an_interval_without_width_is_an_error_that_names_the_part():
    with pytest.raises(ScoreFault, match="^A1, F1: all 5 differences are 5.5, an interval of no"):
        effect(FULL * 0 + 5.5, ["seed"], "A1, F1")
    with pytest.raises(ScoreFault, match="A1: an interval asks for two units"):
        effect(FULL[[(0, 0)]], ["seed"], "A1")


def test_too_few_units_are_said():
    assert Effect(1, 1, 1, {"seed": 2}).few == "2 seeds"
    assert Effect(1, 1, 1, {"model": 12, "seed": 1}).few == "1 seed"
    assert Effect(1, 1, 4, {"seed": 5}).few == ""


def test_the_detectable_effect_is_found_in_80_percent_of_studies():
    rng = np.random.default_rng(7)
    true = Effect(0, 1 / np.sqrt(6), 5, {"seed": 6}).detectable()
    assert true == pytest.approx(stats_power_of_six(), rel=1e-3)
    y = true + rng.normal(size=(20_000, 6))
    error, df = mean_error(y, 1)
    found = y.mean(1) - stats.t.ppf(0.975, df) * error > 0
    assert found.mean() == pytest.approx(0.80, abs=0.01)


def stats_power_of_six() -> float:
    from statsmodels.stats.power import TTestPower

    return TTestPower().solve_power(nobs=6, alpha=0.05, power=0.8)


def test_a_plan_says_what_another_study_then_finds():
    rng = np.random.default_rng(8)
    pilot = power.spread(scores(rng, (40, 60), (1.0, 4.0, 2.0)), ["seed", "video"])
    error, df = pilot.error((6, 20, 1))
    assert error == pytest.approx(np.sqrt(1 / 6 + 16 / 20 + 4 / 120), rel=0.15)
    assert 5 <= df <= 24
    # recordings carry the error: seeds alone never get below it
    assert pilot.needed(0, 1.0) is None
    needed = pilot.needed(1, 2.0)
    assert pilot.detectable((40, needed, 1)) <= 2.0 < pilot.detectable((40, needed - 1, 1))


def test_rows_within_a_cell_are_a_component_of_their_own():
    rng = np.random.default_rng(9)
    values = scores(rng, (200, 3), (1.0, 0.0, 2.0), names=("encoder", "seed"))
    found = power.spread(values, ["encoder"])
    assert found.sizes == (200, 3)
    assert [np.sqrt(found.variances[0,]), np.sqrt(found.within)] == pytest.approx([1, 2], rel=0.15)
    shares = power.share(found)
    assert shares.sum() == pytest.approx(100) and shares[power.RUNS] > shares["encoder"]
    assert power.plan(found, 0.5)["factor"].tolist() == ["encoder", power.RUNS]
    with pytest.raises(ValueError, match="above 0; got -1"):
        power.plan(found, -1)


def test_the_planning_command_pairs_methods_and_says_what_is_needed(tmp_path, capsys):
    ours = scores(np.random.default_rng(10), (6, 10), (1.0, 1.0, 1.0), mean=3.0)
    table = pd.concat(
        [
            ours.rename("value").reset_index().assign(method="ACE"),
            (ours * 0).rename("value").reset_index().assign(method="BIKE"),
        ]
    ).assign(set="ATA")
    path = tmp_path / "scores.csv"
    table.to_csv(path, index=False)
    asked = [str(path), "--random", "seed", "video", "--by", "method", "ACE"]
    assert command.main([*asked, "BIKE", "--effect", "1", "--where", "set=ATA"]) == 0
    said = capsys.readouterr().out
    assert "needed to find 1" in said and "seed × video" in said
    assert command.main([*asked, "Text4Vis", "--effect", "1"]) == 2
    assert "method: no 'Text4Vis'; there are ['ACE', 'BIKE']" in capsys.readouterr().err
    table.drop(index=0).to_csv(path, index=False)
    assert command.main([*asked, "BIKE", "--effect", "1"]) == 2
    assert "missing: seed 0, video 0" in capsys.readouterr().err
    table.drop(columns="video").to_csv(path, index=False)
    assert command.main([*asked, "BIKE", "--effect", "1"]) == 2
    assert "no column ['video']" in capsys.readouterr().err
