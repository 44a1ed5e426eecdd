"""The budget of a measurement: what rules use comes first, and nothing depends on the clock."""

import pytest

from benchmarks import sizes
from cae_cli.introspection import budget
from cae_cli.introspection.budget import PERTURBED_PASSES, Sample, within

MOST = Sample(scored=1000, trained=2000, perturbed=512, mapped=512)


def test_a_small_network_is_measured_in_full():
    assert within(MOST, budget.passes(products=1_500_000, trained=0), shown=13_000) == MOST


def test_what_is_only_shown_is_left_out_first():
    some = within(MOST, MOST.passes + 250, shown=1000)
    assert some == Sample(1000, 2000, 512, 512, shown=0.25)
    assert within(MOST, MOST.passes, shown=1000).shown == 0
    assert within(MOST, MOST.passes + 1001, shown=1000).shown == 1


def test_below_that_every_measurement_shrinks_alike_and_keeps_within_the_budget():
    half = within(MOST, MOST.passes / 2, shown=1000)
    assert half == Sample(500, 1000, 256, 256, shown=0)
    assert half.passes == 500 + 1000 + PERTURBED_PASSES * 256 + 256 <= MOST.passes / 2


@pytest.mark.parametrize("affordable", [0.0, 1.0, 100.0])
def test_a_network_for_which_there_is_no_time_is_measured_on_enough_images(affordable):
    assert within(MOST, affordable, shown=10) == Sample(64, 64, 32, 32, shown=0)
    few = Sample(scored=20, trained=40, perturbed=20, mapped=20)
    assert within(few, affordable, shown=10) == Sample(20, 40, 20, 20, shown=0)


def test_a_long_training_may_be_measured_longer():
    large = 4_000_000_000  # multiply-adds
    assert budget.passes(large, trained=0) == budget.WORK / large
    assert budget.passes(large, trained=100_000) == pytest.approx(30_000)


def test_the_table_of_costs_has_a_row_for_each_case_and_a_place_on_its_page():
    table = sizes.PAGE.read_text().split(sizes.START)[1].split(sizes.END)[0].strip().splitlines()
    assert table[0] == sizes.HEAD and len(table) == 2 + len(sizes.CASES)
    text = f"a\n{sizes.START}\nold\n{sizes.END}\nb"
    assert sizes.written(text, "new") == f"a\n{sizes.START}\nnew\n{sizes.END}\nb"
