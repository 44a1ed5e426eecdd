"""Effects, intervals and ranks against slow computations of another kind, on planted effects."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from cae_cli.statistics.effects import effects
from cae_cli.statistics.interval import interval, wilson
from cae_cli.statistics.ranking import ranked as ranking


def grid(*counts):
    """(n, keys) codes of a full grid; the last is the seed."""
    return np.array(list(itertools.product(*map(range, counts))), np.intp)


def explain(y, codes, images=None):
    zeros = np.zeros(len(y), np.intp)
    keys = dict(zip("abc", codes.T[:-1], strict=False))
    return effects(y, keys, codes[:, -1], zeros if images is None else images)


# -- intervals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4, 31, 100, 1000])
def test_an_interval_is_the_integral_of_the_density_of_students_t(count):
    values = np.random.default_rng(count).normal(size=count)
    found = interval(values)
    t = found.margin / (values.std(ddof=1) / np.sqrt(count))
    freedom = count - 1
    angles = (np.arange(200_000) + 0.5) / 200_000 * np.pi - np.pi / 2  # t = √f tan(angle)
    density = np.cos(angles) ** (freedom - 1)
    inside = np.abs(np.sqrt(freedom) * np.tan(angles)) <= t
    assert density[inside].sum() / density.sum() == pytest.approx(0.95, abs=1e-4)


@pytest.mark.parametrize(("count", "of"), [(0, 60), (1, 3), (57, 60), (60, 60)])
def test_a_wilson_interval_ends_where_the_score_test_rejects(count, of):
    low, high = wilson(count, of)
    for end in (low, high):
        if 0 < end < 1:
            z = (count / of - end) / np.sqrt(end * (1 - end) / of)
            assert abs(z) == pytest.approx(1.959964, abs=1e-5)
    assert (low == 0) == (count == 0) and (high == 1) == (count == of)


def test_an_interval_is_that_of_the_textbook():
    values = [20.1, 20.5, 19.7, 20.2]
    found = interval(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert_allclose([found.value - found.margin, found.value + found.margin], [low, high])
    assert found.n == 4


def test_one_value_has_no_margin():
    found = interval([3.0, np.nan])
    assert (found.value, found.n) == (3.0, 1)
    assert np.isnan(found.margin) and not found.excludes_zero


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
            effect = found.keys[name].differences[level - 1]
            assert_allclose(effect.value, np.mean(per_seed))
            assert_allclose(
                [effect.value - effect.margin, effect.value + effect.margin],
                [expected.low, expected.high],
            )


def test_on_a_grid_with_holes_an_effect_is_the_mean_over_pairs_of_each_seed():
    rng = np.random.default_rng(1)
    codes = grid(3, 2, 2, 5)
    kept = rng.random(len(codes)) < 0.7
    y = rng.normal(size=len(codes)) + codes[:, 0] * (1 + codes[:, 1])
    found = explain(np.where(kept, y, np.nan), codes)
    for k, name in enumerate("abc"):
        for level in range(1, codes[:, k].max() + 1):
            per_seed = []
            for seed in range(5):
                pairs = [
                    y[i] - y[j]
                    for i, j in itertools.permutations(np.flatnonzero(kept), 2)
                    if codes[i, -1] == codes[j, -1] == seed
                    and (codes[i, k], codes[j, k]) == (level, 0)
                    and (np.delete(codes[i], k) == np.delete(codes[j], k)).all()
                ]
                per_seed += [sum(pairs) / len(pairs)] if pairs else []
            expected = stats.ttest_1samp(per_seed, 0).confidence_interval(0.95)
            effect = found.keys[name].differences[level - 1]
            assert effect.n == len(per_seed) > 2
            assert_allclose(
                [effect.value - effect.margin, effect.value + effect.margin],
                [expected.low, expected.high],
            )
    assert found.jobs == kept.sum()


def test_a_job_without_a_partner_changes_no_difference():
    codes = grid(2, 3, 2)
    y = np.random.default_rng(12).normal(size=len(codes))
    lonely = (codes == [0, 1, 0]).all(axis=1)
    partner = (codes == [1, 1, 0]).all(axis=1)
    one = explain(np.where(partner, np.nan, y), codes).keys["a"].differences[0]
    other = explain(np.where(partner, np.nan, y + 1000 * lonely), codes).keys["a"].differences[0]
    assert_allclose([one.value, one.margin], [other.value, other.margin])


def test_without_noise_a_planted_effect_is_found_exactly_whatever_is_missing():
    codes = grid(3, 3, 3)
    y = np.array([0, 2, -1])[codes[:, 0]] + np.array([0, 0.5, 4])[codes[:, 1]] + 10 * codes[:, -1]
    y = y.astype(float)
    y[[0, 5, 9, 13, 26]] = np.nan
    found = explain(y, codes)
    assert_allclose([d.value for d in found.keys["a"].differences], [2, -1], atol=1e-9)
    assert_allclose([d.value for d in found.keys["b"].differences], [0.5, 4], atol=1e-9)
    assert_allclose(found.rest, 0, atol=1e-12)


def test_what_a_seed_does_to_all_its_jobs_cancels():
    rng = np.random.default_rng(2)
    codes = grid(2, 3, 4)
    y = 0.5 * codes[:, 0] + 0.01 * rng.normal(size=len(codes))
    quiet = explain(y, codes).keys["a"].differences[0]
    loud = explain(y + 100 * np.array([0, 3, -1, 7.0])[codes[:, -1]], codes).keys["a"].differences[0]
    assert_allclose([loud.value, loud.margin], [quiet.value, quiet.margin], rtol=1e-6)
    assert loud.excludes_zero


def test_the_spread_over_other_keys_is_no_noise_and_with_one_seed_nothing_is_significant():
    codes = grid(2, 8, 1)
    y = 3.0 * codes[:, 0] + np.sin(codes[:, 1])
    effect = explain(y, codes).keys["a"].differences[0]
    assert_allclose(effect.value, 3)
    assert effect.n == 1 and np.isnan(effect.margin) and not effect.excludes_zero


def test_keys_that_always_change_together_have_no_separate_effects():
    codes = grid(2, 3)
    both = np.column_stack([codes[:, 0], codes[:, 0], codes[:, 1]])
    found = explain(codes[:, 0] + 0.0, both)
    assert [found.keys[name].differences[0].n for name in "ab"] == [0, 0]


def test_a_value_whose_jobs_all_failed_has_no_effect_and_the_others_keep_theirs():
    codes = grid(3, 3)
    y = np.where(codes[:, 0] == 1, np.nan, codes[:, 0] * 2.0)
    found = explain(y, codes).keys["a"].differences
    assert found[0].n == 0 and np.isnan(found[0].value)
    assert_allclose(found[1].value, 4)


def test_jobs_measured_on_other_images_are_not_compared():
    codes = grid(2, 2, 3)  # data, loss, seed
    y = 50.0 * codes[:, 0] + 1.5 * codes[:, 1]
    found = explain(y, codes, images=codes[:, 0])
    assert found.keys["a"].differences[0].n == 0
    assert_allclose(found.keys["b"].differences[0].value, 1.5)
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
        for level, effect in enumerate(explain(y, codes).keys["a"].differences, start=1):
            if effect.n > 1:
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
    assert not found.keys["a"].differences[0].excludes_zero


def test_a_key_that_changes_nothing_has_an_effect_of_exactly_zero():
    codes = grid(2, 3, 3)
    found = explain(20.3 + 1.1 * codes[:, 1] + 0.7 * codes[:, 2], codes)
    assert found.keys["a"].differences[0].value == 0 and not found.keys["a"].differences[0].excludes_zero
    assert found.keys["b"].differences[0].excludes_zero


def test_no_job_at_all_is_no_error():
    codes = grid(2, 3)
    found = explain(np.full(6, np.nan), codes)
    assert (found.jobs, found.seeds) == (0, 0)
    assert found.keys["a"].differences[0].n == 0


def test_of_noise_alone_few_differences_exclude_zero():
    rng = np.random.default_rng(7)
    codes = grid(3, 3, 4)
    found = [
        difference.excludes_zero
        for _ in range(300)
        for effect in explain(rng.normal(size=len(codes)), codes).keys.values()
        for difference in effect.differences
    ]
    assert 0.03 < np.mean(found) < 0.07  # 5 % of single comparisons


def test_what_depends_on_another_key_is_part_of_the_rest():
    rng = np.random.default_rng(6)
    codes = grid(2, 2, 5)
    y = np.where(codes[:, 0] == codes[:, 1], 1.0, -1.0) + 0.1 * rng.normal(size=len(codes))
    found = explain(y, codes)
    assert found.rest > 0.95 and max(effect.share for effect in found.keys.values()) < 0.01


# -- ranks -------------------------------------------------------------------------------------------


def ranked(rows, *, rises=True):
    """Standings from rows of (configuration, seed, images, value)."""
    c, s, i, y = map(np.array, zip(*rows, strict=True))
    return ranking(y.astype(float), c, s, i, rises=rises)


def test_configurations_are_ranked_by_their_mean_over_seeds():
    rng = np.random.default_rng(11)
    y = rng.normal(size=(5, 3))
    found = ranked([(c, s, 0, y[c, s]) for c in range(5) for s in range(3)])
    assert [own.configuration for own in found] == list(np.argsort(-y.mean(axis=1)))
    assert [own.rank for own in found] == [1, 2, 3, 4, 5]
    first = found[0].configuration
    for own in found[1:]:
        expected = stats.ttest_rel(y[own.configuration], y[first])
        assert_allclose(own.behind.value, (y[own.configuration] - y[first]).mean())
        assert own.is_tied == (expected.pvalue > 0.05)


def test_less_may_be_better():
    found = ranked([(0, 0, 0, 0.3), (1, 0, 0, 0.1)], rises=False)
    assert [own.configuration for own in found] == [1, 0]


def test_a_difference_is_paired_so_large_seed_effects_hide_nothing():
    rows = [(c, s, 0, 10.0 * s - 0.1 * c + 0.001 * (c * s % 3)) for c in range(2) for s in range(4)]
    assert not ranked(rows)[1].is_tied


def test_with_one_seed_nothing_is_tied_or_significant():
    behind = ranked([(0, 0, 0, 20.0), (1, 0, 0, 19.0)])[1]
    assert behind.behind.n == 1 and not behind.is_tied and not behind.behind.excludes_zero


def test_configurations_measured_on_other_images_are_ranked_apart():
    found = ranked([(0, 0, 0, 20.0), (1, 0, 1, 30.0), (2, 0, 1, 31.0), (3, 0, 0, 21.0)])
    assert [(p.configuration, p.group, p.rank) for p in found] == [
        (3, 0, 1),
        (0, 0, 2),
        (2, 1, 1),
        (1, 1, 2),
    ]


def test_configurations_on_the_same_several_splits_are_one_group():
    rows = [(c, s, s, c + 0.1 * s) for c in range(3) for s in range(2)]
    assert {own.group for own in ranked(rows)} == {0}


def test_a_configuration_without_values_is_last_and_unranked():
    found = ranked([(0, 0, 0, np.nan), (1, 0, 0, 5.0)])
    assert [(p.configuration, p.rank) for p in found] == [(1, 1), (0, None)]
