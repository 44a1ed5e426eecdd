import math
import re
import typing
from dataclasses import dataclass, fields

import pytest
from omegaconf import OmegaConf

from cae_cli.config.schema import ONE, SEVERAL, VARIANTS, General
from cae_cli.diagnosis import RuleOptions
from cae_cli.errors import did_you_mean, nearest
from cae_cli.options import Catalogue, OptionError, Range, build, describe, option


@dataclass(frozen=True, kw_only=True)
class Example:
    """For these tests."""

    count: int = option("how many", least=1, most=9)
    rate: float = option("how fast", above=0, below=1)
    kind: str = option("which", choices=("one", "two"))
    on: bool = option("whether")
    limit: int | None = option("at most", least=0)
    sizes: list[int] = option("how large", least=2, odd=True, nonempty=True)


GOOD = {"count": 3, "rate": 0.5, "kind": "one", "on": True, "limit": None, "sizes": [3, 5]}


def test_good_values_make_the_dataclass():
    assert build(Example, GOOD, "x") == Example(**GOOD)


@pytest.mark.parametrize(
    ("given", "value"),
    [({"rate": "1e-3"}, 0.001), ({"count": 4.0}, 4), ({"limit": 7}, 7)],
)
def test_values_that_mean_a_number_are_taken_as_that_number(given, value):
    result = build(Example, {**GOOD, **given}, "x")
    assert getattr(result, next(iter(given))) == value
    assert type(getattr(result, next(iter(given)))) is type(value)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"count": 0}, "x.count must be at least 1, got 0"),
        ({"count": 10}, "x.count must be at most 9, got 10"),
        ({"count": 2.5}, "x.count must be a whole number, got 2.5"),
        ({"count": True}, "x.count must be a whole number, got True"),
        ({"count": None}, "x.count must be a whole number, got null"),
        ({"count": "many"}, "x.count must be a whole number, got 'many'"),
        ({"rate": 0}, "x.rate must be greater than 0, got 0"),
        ({"rate": 1.0}, "x.rate must be less than 1, got 1.0"),
        ({"rate": float("nan")}, "x.rate must be a finite number, got nan"),
        ({"rate": "inf"}, "x.rate must be a finite number, got 'inf'"),
        ({"kind": "three"}, "x.kind must be one of one, two, got 'three'"),
        ({"on": "maybe"}, "x.on must be true or false, got 'maybe'"),
        ({"on": 1}, "x.on must be true or false, got 1"),
        ({"sizes": 3}, "x.sizes must be a list, got 3"),
        ({"sizes": []}, "x.sizes must not be empty, got []"),
        ({"sizes": [3, 4]}, "x.sizes must be odd, got [3, 4]"),
        ({"sizes": [3, "a"]}, "x.sizes[1] must be a whole number, got 'a'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_range(given, complaint):
    with pytest.raises(OptionError) as caught:
        build(Example, {**GOOD, **given}, "x")
    assert caught.value.what == complaint


def test_an_unknown_key_is_refused_with_the_nearest_name():
    with pytest.raises(OptionError) as caught:
        build(Example, {**GOOD, "cuont": 3}, "x")
    assert caught.value.what == "x.cuont is not an option"
    assert caught.value.hint == "did you mean count?"


def test_a_missing_key_is_refused():
    with pytest.raises(OptionError, match="has no value"):
        build(Example, {k: v for k, v in GOOD.items() if k != "kind"}, "x")
    with pytest.raises(OptionError, match="has no value"):
        build(Example, OmegaConf.create({**GOOD, "kind": "???"}), "x")


def test_a_missing_key_that_may_be_null_is_null():
    assert build(Example, {k: v for k, v in GOOD.items() if k != "limit"}, "x").limit is None


def test_a_node_that_is_no_mapping_is_refused():
    with pytest.raises(OptionError, match="x must be a group of options, got 'ssim'"):
        build(Example, "ssim", "x")


def test_a_broken_interpolation_is_refused():
    with pytest.raises(OptionError, match="cannot be resolved"):
        build(Example, OmegaConf.create({**GOOD, "count": "${nothing}"}), "x")


def test_documentation_follows_from_the_declaration():
    infos = {info.name: info for info in describe(Example)}
    assert infos["count"].type == "integer"
    assert infos["count"].range == "≥ 1, ≤ 9"
    assert infos["limit"].type == "integer or null"
    assert infos["sizes"].type == "list of integers"
    assert infos["kind"].range == "one of one, two"


def test_null_is_in_every_range():
    assert Range(least=3).complaint(None) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ssmi", "ssim"),
        ("SSIM", "ssim"),
        ("lr", "learning_rate"),
        ("learn", "learning_rate"),
        ("beta1", "beta_1"),
        ("zzz", None),
    ],
)
def test_the_nearest_name_is_what_was_meant(typed, meant):
    assert nearest(typed, ["ssim", "mse", "learning_rate", "beta_1"]) == meant


def test_the_beginning_of_a_name_counts_more_than_the_likeness_of_another():
    assert nearest("reference1", ["reference_1_baseline", "reference_3_ssim"]) == "reference_1_baseline"
    assert nearest("resnet", ["unet", "wide"]) is None  # three letters in common


def test_without_a_near_name_all_are_listed():
    assert did_you_mean("zzz", ["b", "a"]) == "the choices are a, b"


def test_a_catalogue_refuses_two_members_of_one_name():
    catalogue: Catalogue[Example] = Catalogue("example")
    catalogue.add("a")(Example)
    with pytest.raises(ValueError, match="exists already"):
        catalogue.add("a")(Example)


def numbers():
    """Every numeric option: its key and declaration."""
    groups = {**VARIANTS, **SEVERAL}
    classes = [
        General,
        *ONE.values(),
        *(cls for group in groups.values() for cls in group.values()),
        RuleOptions,
    ]
    for cls in classes:
        hints = typing.get_type_hints(cls)
        for field in fields(cls):
            if "range" in field.metadata and re.search("int|float", str(hints[field.name])):
                yield pytest.param(field.metadata["range"], id=f"{cls.__name__}.{field.name}")


@pytest.mark.parametrize("limits", list(numbers()))
def test_every_number_has_bounds(limits):
    for value in (math.inf, -math.inf, math.nan, 1e39, -1e30, 10**30, -(10**30)):
        assert limits.complaint(value), value
    if limits.largest < 1e30:
        assert limits.complaint(1e30)
    if limits.above == 0:
        assert limits.complaint(1e-30)
