"""Whether a training lost again what it had gained."""

import itertools
import math

import numpy as np
import pytest

from cae_cli.metrics.spikes import NOISE, NOWHERE, WINDOW, loss_spike


def falling(steps=200):
    return 0.1 + 0.9 * np.exp(-np.arange(steps) / 30)


def test_a_loss_that_only_falls_loses_nothing():
    assert loss_spike(falling()).share == 0


def test_a_loss_that_comes_back_to_where_it_began_has_lost_all():
    losses = falling()
    losses[100:] = losses[:WINDOW].mean()
    found = loss_spike(losses)
    assert found.share == pytest.approx(1, abs=1e-9)
    assert found.at == pytest.approx(0.5, abs=2 * WINDOW / 200)


def test_it_is_what_a_plain_loop_over_all_pairs_finds():
    rng = np.random.default_rng(0)
    losses = falling(60) * rng.uniform(0.5, 1.5, 60)
    usual = np.median([abs(b - a) for a, b in itertools.pairwise(losses)])
    means = [losses[i : i + WINDOW].mean() for i in range(60 - WINDOW + 1)]
    worst = max(
        (after - before) / (means[0] - before)
        for i, before in enumerate(means)
        for after in means[i:]
        if means[0] - before > NOISE * usual and before == min(means[: i + 1])
    )
    assert loss_spike(losses).share == pytest.approx(worst)


@pytest.mark.parametrize(
    "losses", [[], [1.0] * 5, [1.0] * 50, [0.5, *[math.nan] * 20], np.linspace(1, 2, 50)]
)
def test_without_a_gain_there_is_nothing_to_lose(losses):
    assert loss_spike(np.array(losses)) is NOWHERE


def test_a_fall_within_the_noise_is_no_gain():
    rng = np.random.default_rng(0)
    assert loss_spike(1 + 0.1 * rng.standard_normal(300)) is NOWHERE


def test_a_floor_below_the_loss_changes_nothing():
    losses = falling()
    losses[100:110] += 0.5
    assert loss_spike(losses + 7).share == pytest.approx(loss_spike(losses).share)
