"""Effects, intervals and ranks against slow computations of another kind, on planted effects."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.linear_model import LinearRegression

from cae_cli.statistics.effects import MOST_LEVELS, Factor, effects
from cae_cli.statistics.interval import interval, t_quantile
from cae_cli.statistics.ranking import places


def grid(*counts):
    """(n, keys) codes of a full grid; the last is the seed."""
    return np.array(list(itertools.product(*map(range, counts))), np.intp)


def factors_of(codes, **numbers):
    return {
        name: Factor(codes[:, k], numbers.get(name))
        for k, name in enumerate("abc"[: codes.shape[1] - 1])
    }


def explain(y, codes, images=None, **numbers):
    zeros = np.zeros(len(y), np.intp)
    return effects(y, factors_of(codes, **numbers), codes[:, -1], zeros if images is None else images)


# -- intervals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [*range(1, 31), 99, 100, 999])
def test_quantiles_of_students_t_are_those_of_scipy(freedom):
    for inside in (0.5, 0.9, 0.95, 0.99, 0.999, 1 - 0.05 / 121):
        assert_allclose(t_quantile(inside, freedom), stats.t.ppf((1 + inside) / 2, freedom), rtol=1e-10)


def test_an_interval_is_the_textbooks():
    values = [20.1, 20.5, 19.7, 20.2]
    found = interval(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert_allclose([found.value - found.margin, found.value + found.margin], [low, high])
    assert found.n == 4


def test_of_one_value_nobody_knows_the_spread():
    found = interval([3.0, np.nan])
    assert (found.value, found.n) == (3.0, 1)
    assert np.isnan(found.margin) and not found.is_told


# -- size --------------------------------------------------------------------------------------------


def test_on_a_full_grid_an_effect_is_the_difference_of_marginal_means():
    codes = grid(3, 2, 4)
    y = np.random.default_rng(0).normal(size=len(codes))
    found = explain(y, codes)
    for k, name in enumerate("ab"):
        for level in range(1, 3 - k):
            a, b = codes[:, k] == level, codes[:, k] == 0
            per_seed = [
                y[a & (codes[:, -1] == s)].mean() - y[b & (codes[:, -1] == s)].mean() for s in range(4)
            ]
            expected = stats.ttest_1samp(per_seed, 0).confidence_interval(0.95)
            effect = found.keys[name].levels[level]
            assert_allclose(effect.value, np.mean(per_seed))
            assert_allclose(
                [effect.value - effect.margin, effect.value + effect.margin],
                [expected.low, expected.high],
            )


def test_on_a_grid_with_holes_an_effect_is_the_least_squares_of_each_seed():
    rng = np.random.default_rng(1)
    codes = grid(3, 2, 2, 5)
    kept = rng.random(len(codes)) < 0.7
    y = rng.normal(size=len(codes)) + codes[:, 0] * (1 + codes[:, 1])
    found = explain(np.where(kept, y, np.nan), codes)
    design = np.column_stack([codes[:, 0] == 1, codes[:, 0] == 2, codes[:, 1] == 1, codes[:, 2] == 1])
    fits = []
    for s in range(5):
        rows = kept & (codes[:, -1] == s)
        assert np.linalg.matrix_rank(np.column_stack([np.ones(rows.sum()), design[rows]])) == 5
        fits.append(LinearRegression().fit(design[rows], y[rows]).coef_)
    expected = np.mean(fits, axis=0)
    got = [*found.keys["a"].levels[1:], found.keys["b"].levels[1], found.keys["c"].levels[1]]
    assert_allclose([effect.value for effect in got], expected, atol=1e-9)
    assert found.jobs == kept.sum()


def test_without_noise_a_planted_effect_is_found_exactly_whatever_is_missing():
    codes = grid(3, 3, 3)
    y = np.array([0, 2, -1])[codes[:, 0]] + np.array([0, 0.5, 4])[codes[:, 1]] + 10 * codes[:, -1]
    y = y.astype(float)
    y[[0, 5, 9, 13, 26]] = np.nan
    found = explain(y, codes)
    assert_allclose([level.value for level in found.keys["a"].levels], [0, 2, -1], atol=1e-9)
    assert_allclose([level.value for level in found.keys["b"].levels], [0, 0.5, 4], atol=1e-9)
    assert_allclose(found.rest, 0, atol=1e-12)


def test_what_a_seed_does_to_all_its_jobs_is_no_part_of_an_effects_interval():
    rng = np.random.default_rng(2)
    codes = grid(2, 3, 4)
    y = 0.5 * codes[:, 0] + 0.01 * rng.normal(size=len(codes))
    quiet = explain(y, codes).keys["a"].levels[1]
    loud = explain(y + 100 * np.array([0, 3, -1, 7.0])[codes[:, -1]], codes).keys["a"].levels[1]
    assert_allclose([loud.value, loud.margin], [quiet.value, quiet.margin], rtol=1e-6)
    assert loud.is_told


def test_the_spread_over_other_keys_is_no_noise_and_with_one_seed_nothing_is_told():
    codes = grid(2, 8, 1)
    y = 3.0 * codes[:, 0] + np.sin(codes[:, 1])
    effect = explain(y, codes).keys["a"].levels[1]
    assert_allclose(effect.value, 3)
    assert effect.n == 1 and np.isnan(effect.margin) and not effect.is_told


def test_keys_that_always_change_together_have_no_effects_of_their_own():
    codes = grid(2, 3)
    both = np.column_stack([codes[:, 0], codes[:, 0], codes[:, 1]])
    found = explain(codes[:, 0] + 0.0, both)
    assert [found.keys[name].levels[1].n for name in "ab"] == [0, 0]


def test_a_value_whose_jobs_all_failed_has_no_effect_and_the_others_keep_theirs():
    codes = grid(3, 3)
    y = np.where(codes[:, 0] == 1, np.nan, codes[:, 0] * 2.0)
    levels = explain(y, codes).keys["a"].levels
    assert levels[1].n == 0 and np.isnan(levels[1].value)
    assert_allclose(levels[2].value, 4)


def test_jobs_measured_on_other_images_are_not_compared():
    codes = grid(2, 2, 3)  # data, loss, seed
    y = 50.0 * codes[:, 0] + 1.5 * codes[:, 1]
    found = explain(y, codes, images=codes[:, 0])
    assert found.keys["a"].levels[1].n == 0
    assert_allclose(found.keys["b"].levels[1].value, 1.5)
    assert_allclose(found.keys["b"].share, 1)


@pytest.mark.parametrize("holes", [0.0, 0.25])
@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_intervals_hold_the_truth_at_least_nine_times_in_ten(seeds, holes):
    rng = np.random.default_rng(10 * seeds + round(100 * holes))
    codes = grid(3, 2, seeds)
    truth = np.array([0, 0.7, -0.3])
    held = []
    for _ in range(300):
        of_seed = 2 * rng.normal(size=seeds)
        y = truth[codes[:, 0]] + 0.4 * codes[:, 1] + of_seed[codes[:, -1]] + rng.normal(size=len(codes))
        y[rng.random(len(y)) < holes] = np.nan
        for level, effect in enumerate(explain(y, codes).keys["a"].levels):
            if level and effect.n > 1:
                held.append(abs(effect.value - truth[level]) <= effect.margin)
    assert len(held) > 200
    assert 0.9 <= np.mean(held) < 1


# -- share -------------------------------------------------------------------------------------------


def test_shares_on_a_full_grid_are_the_sums_of_squares_of_the_textbook():
    codes = grid(3, 2, 4)
    y = np.random.default_rng(3).normal(size=len(codes)) + codes[:, 0]
    found = explain(y, codes)
    total = ((y - y.mean()) ** 2).sum()
    shares = []
    for k in range(3):
        means = np.array([y[codes[:, k] == level].mean() for level in codes[:, k]])
        shares.append(((means - y.mean()) ** 2).sum() / total)
    got = [found.keys["a"].share, found.keys["b"].share, found.seed_share]
    assert_allclose(got, shares)
    assert_allclose(sum(got) + found.rest, 1)
    assert found.freedom == 24 - 1 - 2 - 1 - 3


def test_shares_on_a_grid_with_holes_are_type_two_sums_of_squares():
    rng = np.random.default_rng(4)
    codes = grid(3, 2, 2, 3)
    codes = codes[rng.random(len(codes)) < 0.6]
    y = rng.normal(size=len(codes)) + 2 * codes[:, 1]

    def left(keys):
        columns = [(codes[:, k] == level) for k in keys for level in range(1, codes[:, k].max() + 1)]
        design = np.column_stack([np.ones(len(y)), *columns]).astype(float)
        solved = np.linalg.pinv(design.T @ design) @ design.T @ y  # normal equations
        return ((y - design @ solved) ** 2).sum()

    found = explain(y, codes)
    total, everything = ((y - y.mean()) ** 2).sum(), left(range(4))
    for k, name in enumerate("abc"):
        without = left([other for other in range(4) if other != k])
        assert_allclose(found.keys[name].share, (without - everything) / total, atol=1e-9)
    assert_allclose(found.rest, everything / total)


def test_a_key_without_effect_explains_as_little_as_a_shuffled_one():
    rng = np.random.default_rng(5)
    codes = grid(3, 3, 4)
    y = 2.0 * codes[:, 0] + rng.normal(size=len(codes))
    found = explain(y, codes)

    def shuffled(k):
        mixed = codes.copy()
        mixed[:, k] = rng.permutation(mixed[:, k])
        return explain(y, mixed).keys["ab"[k]].share

    assert found.keys["a"].share > max(shuffled(0) for _ in range(200))
    beaten = np.mean([shuffled(1) >= found.keys["b"].share for _ in range(200)])
    assert beaten > 0.05


def test_nothing_is_explained_where_all_jobs_are_alike():
    codes = grid(2, 2, 2)
    found = explain(np.full(8, 20.3), codes)
    assert np.isnan(found.keys["a"].share) and np.isnan(found.rest)
    assert not found.keys["a"].levels[1].is_told


def test_a_key_that_changes_nothing_to_the_bit_has_no_effect_beside_one_that_does():
    codes = grid(2, 3, 3)
    found = explain(20.3 + 1.1 * codes[:, 1] + 0.7 * codes[:, 2], codes)
    assert found.keys["a"].levels[1].value == 0 and not found.keys["a"].levels[1].is_told
    assert found.keys["b"].levels[1].is_told


def test_no_job_at_all_is_no_error():
    codes = grid(2, 3)
    found = explain(np.full(6, np.nan), codes)
    assert (found.jobs, found.seeds) == (0, 0)
    assert found.keys["a"].levels[1].n == 0


# -- interactions and trends -------------------------------------------------------------------------


def test_a_pure_interaction_is_told_and_larger_than_the_main_effects():
    rng = np.random.default_rng(6)
    codes = grid(2, 2, 5)
    y = np.where(codes[:, 0] == codes[:, 1], 1.0, -1.0) + 0.1 * rng.normal(size=len(codes))
    [both] = explain(y, codes).interactions
    assert both.keys == ("a", "b") and both.is_told and both.exceeds == ("a", "b")
    assert both.share > 0.95


def test_of_noise_alone_few_interactions_are_told():
    rng = np.random.default_rng(7)
    codes = grid(3, 3, 4)
    told = [explain(rng.normal(size=len(codes)), codes).interactions[0].is_told for _ in range(300)]
    assert np.mean(told) < 0.1


def test_the_share_of_an_interaction_is_what_cell_means_add_to_main_effects():
    codes = grid(3, 2, 4)
    y = np.random.default_rng(8).normal(size=len(codes))
    [both] = explain(y, codes).interactions
    cells = np.array([y[(codes[:, :2] == own[:2]).all(axis=1)].mean() for own in codes])
    parts = [
        np.array([y[codes[:, k] == level].mean() for level in codes[:, k]]) - y.mean() for k in (0, 1)
    ]
    added = ((cells - y.mean() - sum(parts)) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert_allclose(both.share, added)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([2.0, 4, 8], 0.25), ([0.001, 0.01, 0.1], 1.0), ([1000001.0, 1000002.0, 1000003.0], 1.0)],
)
def test_a_trend_is_the_slope_over_numbers_or_over_their_logarithms(numbers, expected):
    numbers = np.array(numbers)
    codes = grid(3, 2, 3)
    x = np.log10(numbers) if numbers[-1] >= 10 * numbers[0] else numbers
    y = expected * x[codes[:, 0]] + 0.3 * codes[:, 1] + codes[:, 2]
    trend = explain(y, codes, a=numbers).keys["a"].trend
    assert_allclose(trend.value, expected, rtol=1e-6)
    assert trend.n == 3


def test_two_numbers_are_a_difference_and_no_trend():
    codes = grid(2, 3)
    assert explain(codes[:, 0] * 1.0, codes, a=np.array([1.0, 2])).keys["a"].trend is None


def test_a_key_of_many_numbers_is_a_line_and_leaves_the_others_their_effects():
    rng = np.random.default_rng(9)
    n = 40
    codes = np.column_stack([rng.permutation(n), rng.integers(0, 2, n), np.zeros(n, int)])
    numbers = 10 ** rng.uniform(-4, -1, n)
    assert n > MOST_LEVELS
    y = 0.8 * np.log10(numbers)[codes[:, 0]] + 1.7 * codes[:, 1]
    found = explain(y, codes, a=numbers)
    assert found.keys["a"].levels == ()
    assert_allclose([found.keys["a"].trend.value, found.keys["b"].levels[1].value], [0.8, 1.7])


# -- ranks -------------------------------------------------------------------------------------------


def ranked(rows, *, rises=True):
    """Places from rows of (configuration, seed, images, value)."""
    c, s, i, y = map(np.array, zip(*rows, strict=True))
    return places(y.astype(float), c, s, i, rises=rises)


def test_configurations_stand_by_their_mean_over_seeds():
    rng = np.random.default_rng(11)
    y = rng.normal(size=(5, 3))
    found = ranked([(c, s, 0, y[c, s]) for c in range(5) for s in range(3)])
    assert [place.configuration for place in found] == list(np.argsort(-y.mean(axis=1)))
    assert [place.rank for place in found] == [1, 2, 3, 4, 5]
    first = found[0].configuration
    for place in found[1:]:
        expected = stats.ttest_rel(y[place.configuration], y[first])
        assert_allclose(place.behind.value, (y[place.configuration] - y[first]).mean())
        assert place.is_tied == (expected.pvalue > 0.05)


def test_less_may_be_better():
    found = ranked([(0, 0, 0, 0.3), (1, 0, 0, 0.1)], rises=False)
    assert [place.configuration for place in found] == [1, 0]


def test_a_difference_is_paired_so_that_loud_seeds_hide_nothing():
    rows = [(c, s, 0, 10.0 * s - 0.1 * c + 0.001 * (c * s % 3)) for c in range(2) for s in range(4)]
    assert not ranked(rows)[1].is_tied


def test_one_seed_ties_nobody_and_tells_nothing():
    behind = ranked([(0, 0, 0, 20.0), (1, 0, 0, 19.0)])[1]
    assert behind.behind.n == 1 and not behind.is_tied and not behind.behind.is_told


def test_other_images_are_ranked_by_themselves():
    found = ranked([(0, 0, 0, 20.0), (1, 0, 1, 30.0), (2, 0, 1, 31.0), (3, 0, 0, 21.0)])
    assert [(p.configuration, p.group, p.rank) for p in found] == [
        (3, 0, 1),
        (0, 0, 2),
        (2, 1, 1),
        (1, 1, 2),
    ]


def test_configurations_on_the_same_several_splits_are_one_group():
    rows = [(c, s, s, c + 0.1 * s) for c in range(3) for s in range(2)]
    assert {place.group for place in ranked(rows)} == {0}


def test_a_configuration_without_values_stands_last_and_unranked():
    found = ranked([(0, 0, 0, np.nan), (1, 0, 0, 5.0)])
    assert [(p.configuration, p.rank) for p in found] == [(1, 1), (0, None)]
