"""The budget of a measurement: what rules use comes first, and nothing depends on the clock."""

from dataclasses import replace

import pytest

from benchmarks import sizes
from cae_cli.introspection import budget
from cae_cli.introspection.budget import PERTURBED_PASSES, SKIPPING_PASSES, needed, within
from cae_cli.metrics.sample import Sample

MOST = Sample(scored=1000, trained=1000, perturbed=512, mapped=512)
SHOWN = {"latent": 100, "labels": 1000, "untrained": 500}


def test_a_small_network_is_measured_in_full():
    assert within(MOST, budget.passes(products=1_500_000, trained=0), SHOWN) == MOST
    assert not MOST.is_cut and not MOST.left_out


def test_what_is_only_shown_is_left_out_first_and_the_least_important_of_it():
    used = needed(MOST)
    assert within(MOST, used + 1600, SHOWN) == MOST
    some = within(MOST, used + 600, SHOWN)
    assert some == replace(MOST, latent=1, labels=0.5, untrained=0)
    assert some.is_cut and some.left_out == ["the untrained network's filters"]
    # Half of the labels are too few, and what that leaves is for others.
    assert within(MOST, used + 599, SHOWN) == replace(MOST, latent=1, labels=0, untrained=0)
    assert within(MOST, used + 600, SHOWN | {"labels": 2000}) == replace(MOST, labels=0)
    assert within(MOST, used + 9, SHOWN).left_out[0] == "pictures of the latent code"


def test_below_that_every_measurement_shrinks_alike_and_keeps_within_the_budget():
    half = within(MOST, needed(MOST) / 2, SHOWN)
    assert half == Sample(500, 500, 256, 256, latent=0, labels=0, untrained=0)
    assert needed(half) == 500 + 500 + PERTURBED_PASSES * 256 + 256 <= needed(MOST) / 2


def test_what_an_image_costs_counts():
    affordable = needed(MOST, SKIPPING_PASSES)
    assert within(MOST, affordable, {}, SKIPPING_PASSES) == MOST
    assert within(MOST, affordable - 1, {}, SKIPPING_PASSES) != MOST
    assert within(MOST, affordable - 1, {}) == MOST


def test_a_large_network_is_measured_on_enough_images():
    enough = within(MOST, 150, SHOWN)
    assert (enough.scored, enough.trained, enough.perturbed, enough.mapped) == (64, 64, 32, 32)
    few = Sample(scored=20, trained=40, perturbed=20, mapped=20)
    assert within(few, 80, {}) == few


@pytest.mark.parametrize("affordable", [0.0, 1.0, 100.0])
def test_where_enough_take_twice_the_budget_training_images_are_left_out(affordable):
    least = within(MOST, affordable, SHOWN)
    assert least.left_out[0] == "training images"
    assert (least.trained, least.perturbed, least.mapped) == (0, 16, 16)
    assert needed(least) <= max(2 * affordable, 100)


def test_a_long_training_may_be_measured_longer():
    large = 4_000_000_000  # multiply-adds
    assert budget.passes(large, trained=0) == budget.WORK / large
    assert budget.passes(large, trained=100_000) == pytest.approx(30_000)


def test_the_table_of_costs_has_a_row_for_each_case_and_a_place_on_its_page():
    table = sizes.PAGE.read_text().split(sizes.START)[1].split(sizes.END)[0].strip().splitlines()
    assert table[0] == sizes.HEAD and len(table) == 2 + len(sizes.CASES)
    text = f"a\n{sizes.START}\nold\n{sizes.END}\nb"
    assert sizes.written(text, "new") == f"a\n{sizes.START}\nnew\n{sizes.END}\nb"
