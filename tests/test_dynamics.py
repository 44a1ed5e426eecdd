"""How a training went, and the score: against numbers worked out by hand and slow forms."""

import itertools
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from cae_cli.metrics.dynamics import dynamics, penalty_share, slope, update_ratio
from cae_cli.metrics.score import score
from cae_cli.training.recorder import LOOKS, MOST_LOSSES, MOVES, Recorder

RNG = np.random.default_rng(0)
UNWATCHED = {"steps": 7, "first_val_loss": 0.5, "last_val_loss": 0.25, "diverged_at": None}


def array(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (array(1, -1, 2, 0), array(1.01, -0.99, 2.01, -0.01), -2),  # .01 of 1
        (array(0.5, -0.5), array(0.5, 0.5), 0),  # one of two turned round: 1/2 of 1/2
        (array(2, 2), array(4, 4), 0),
        (array(0.1, 0.3), array(0.1, 0.3), -12),
        (array(1, 1), array(1, np.nextafter(np.float32(1), 2)), np.log10(2**-24)),
        (array(1e3, 1e3), array(1e3, 1e3) * (1 - 1e-13), -12),
        (array(0, 0), array(0.1, 0), 0),  # nothing to compare with
        (array(0, 0), array(0, 0), -12),
    ],
)
def test_the_update_ratio_of_known_steps(before, after, expected):
    assert update_ratio(before, after) == pytest.approx(expected, abs=1e-4)


def test_the_update_ratio_knows_neither_shape_nor_unit():
    before = RNG.normal(size=(3, 3, 2, 4)).astype(np.float32)
    after = before + RNG.normal(0, 0.01, before.shape).astype(np.float32)
    found = update_ratio(before, after)
    assert update_ratio(100 * before, 100 * after) == pytest.approx(found, abs=1e-4)
    assert update_ratio(before.ravel(), after.ravel()) == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([[3, 1]], 1 / 4),
        ([[3, 1], [1, 3]], 1 / 2),
        ([[1, 1]] * 5 + [[0, 100]], 1 / 2),  # the sixth step does not count
        ([[2, 0]] * 3, 0),
        ([[-3, 1]], 1 / 4),  # a loss that may be negative
        ([[0, 0]], np.nan),
        (np.zeros((0, 2)), np.nan),
    ],
)
def test_the_share_of_the_penalty(losses, expected):
    assert penalty_share(np.array(losses, float)) == pytest.approx(expected, nan_ok=True)


def slow_slope(losses):
    count = len(losses)
    first = losses[: max(1, count // 64)]
    third = [losses[i] for i in range(2 * (count // 4), 3 * (count // 4))]
    fourth = [losses[i] for i in range(3 * (count // 4), count)]
    a, b, c = (sum(part) / len(part) for part in (first, third, fourth))
    return (b - c) / (a - c)


@pytest.mark.parametrize("count", [8, 9, 11, 12, 63, 64, 200, 1023])
def test_the_slope_agrees_with_a_slow_form(count):
    losses = RNG.random(count) + np.linspace(9, 1, count)
    assert slope(losses.astype(np.float32)) == pytest.approx(slow_slope(losses), abs=1e-4)


def test_the_slope_of_known_courses():
    assert slope(np.array([8, 9, 9, 9, 4, 4, 3, 3])) == pytest.approx(1 / 5)
    assert slope(np.array([0, 9, 9, 9, -4, -4, -5, -5])) == pytest.approx(1 / 5)
    assert slope(np.array([8, 9, 9, 9, 3, 3, 4, 4])) == pytest.approx(-1 / 4)  # it rises again
    assert slope(np.linspace(1, 0, 10_000)) == pytest.approx(0.25 / 0.867, abs=0.01)
    for nothing in (np.ones(50), np.arange(20.0), np.ones(7), np.zeros(0), np.zeros(20)):
        assert np.isnan(slope(nothing))


def test_a_floor_under_the_loss_does_not_change_the_slope():
    losses = np.exp(-np.arange(500) / 80)
    assert slope(7 + 3 * losses) == pytest.approx(slope(losses), rel=1e-6)
    assert slope(losses) < 0.05


def test_a_course_is_what_the_recorder_wrote_summed_up():
    arrays = {
        "dynamics/early_updates": array([-1, -2], [-3, -2], [-5, -1]),
        "dynamics/updates": array([0, 0], [-3, -4]),
        "dynamics/gradients": array([9, 1], [3, 6]),
        "dynamics/early_losses": array([3, 1]),
        "dynamics/losses": array(7, 9, 9, 9, 4, 4, 3, 3),
    }
    found = dynamics(arrays, reported_loss=0.1, recomputed_loss=0.2, **UNWATCHED)
    assert found.early_peak == -1  # of -1 and -1
    assert (found.early_update, found.last_update, found.gradient_ratio) == (-2, -3.5, 0.5)
    assert (found.penalty_share, found.slope) == (0.25, 0.25)
    assert (found.reported_loss, found.recomputed_loss) == (0.1, 0.2)
    assert {**asdict(found), **UNWATCHED} == asdict(found)


def test_what_nobody_watched_is_not_a_number():
    found = asdict(dynamics({}, **UNWATCHED))
    assert all(np.isnan(v) for k, v in found.items() if k not in UNWATCHED)


def test_a_last_layer_without_gradient_has_no_ratio():
    assert np.isnan(dynamics({"dynamics/gradients": array([1, 0])}, **UNWATCHED).gradient_ratio)


def recorder():
    return Recorder(SimpleNamespace(trainable_variables=[]), dict)


@pytest.mark.parametrize("count", [0, 1, MOST_LOSSES, MOST_LOSSES + 1, 5000])
def test_losses_are_kept_one_by_one_or_as_means_of_parts(count):
    losses = RNG.random(count).astype(np.float32)
    watching = recorder()
    for start in range(0, count, 700):
        watching.losses(losses[start : start + 700])
    kept = watching.record()["dynamics/losses"]
    assert kept.dtype == np.float32 and len(kept) == min(count, MOST_LOSSES)
    edges = [i * count // len(kept) for i in range(len(kept) + 1)] if count else []
    expected = [np.mean(losses[a:b]) for a, b in itertools.pairwise(edges)]
    assert kept == pytest.approx(np.array(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("first", "count", "expected"),
    [
        (0, 100, [*range(1, MOVES + 1)]),
        (0, 5, [1, 2, 3, 4]),
        (100, 100, [1, 28]),
        (128, 50, [1]),
        (6, 50, [*range(1, 27)]),
        (0, 1, []),
    ],
)
def test_an_epoch_is_cut_where_something_is_to_be_seen(first, count, expected):
    assert LOOKS == (0, 32, 128) and MOVES == 32
    assert recorder().cuts(first, count) == expected


HEALTHY = {"explained": 0.8, "base": 0.0, "latent_swap": 0.9, "pixel_copy": 0.25, "inactive": 0.5}


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({}, (0.8, 0.9, 0.5, 0.75)),
        ({"base": 0.6}, (0.5, 0.9, 0.5, 0.75)),
        ({"base": -1.0}, (0.9, 0.9, 0.5, 0.75)),
        ({"explained": -3.0}, (0, 0.9, 0.5, 0.75)),
        ({"base": 0.9}, (0, 0.9, 0.5, 0.75)),  # worse than its anchor
        ({"latent_swap": 1.7}, (0.8, 1, 0.5, 0.75)),
        ({"pixel_copy": -0.2}, (0.8, 0.9, 0.5, 1)),
        ({"pixel_copy": 1.2}, (0.8, 0.9, 0.5, 0)),
        ({"inactive": 1.0}, (0.8, 0.9, 0, 0.75)),
    ],
)
def test_a_score_is_the_product_of_its_parts_and_each_is_a_share(values, parts):
    found = score(**{**HEALTHY, **values})
    assert (found.learned, found.used, found.alive, found.selective) == pytest.approx(parts)
    assert found.value == pytest.approx(np.prod(parts))


@pytest.mark.parametrize("name", HEALTHY)
def test_a_part_that_is_not_known_makes_no_score(name):
    found = score(**{**HEALTHY, name: float("nan")})
    assert np.isnan(found.value)
    assert sum(map(np.isnan, asdict(found).values())) == 2


def test_an_anchor_that_explains_everything_leaves_nothing_to_learn():
    assert np.isnan(score(**{**HEALTHY, "base": 1.0}).value)
