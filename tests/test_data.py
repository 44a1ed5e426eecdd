"""Scaling, checking, splitting, noise, and what every source has to keep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from cae_cli import data, options
from cae_cli.data import SOURCES, DataOptions, Images, Pool, as_float, load
from cae_cli.data.pixels import check, scale
from cae_cli.data.split import split
from cae_cli.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs" / "data"
EMBEDDED = ("glyphs", "digits", "patches")
COMMON: dict[str, Any] = {
    "train": None,
    "validation": 0.1,
    "test": None,
    "noise": 0.0,
    "seed": 0,
    "scale": "auto",
}


def configured(name: str, **changes: Any) -> DataOptions:
    """A source with the values of its YAML file."""
    *shared, own = OmegaConf.load(CONFIGS / f"{name}.yaml").defaults
    assert own == "_self_"
    files = [OmegaConf.load(CONFIGS / f"{stem}.yaml") for stem in (*shared, name)]
    node = OmegaConf.merge(*files, changes)
    node.pop("defaults")
    return options.build(SOURCES[name], node, "data", ignore=("name",))


def common(**changes: Any) -> DataOptions:
    return DataOptions(**{**COMMON, **changes})


def same(a: Images, b: Images) -> bool:
    return a.fingerprint() == b.fingerprint()


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def varied(n: int = 20, dtype: Any = np.uint8, low: float = 0, high: float = 255) -> np.ndarray:
    """(n, 8, 8) with exactly these extremes."""
    x = np.random.default_rng(0).random((n, 8, 8)) * (high - low) + low
    x.flat[:2] = low, high
    return x.astype(dtype)


def scaled(images: np.ndarray, how: str = "auto", **rest: Any) -> Pool:
    return scale(check(Pool(images=images, **rest)), how)


# Every source


def test_every_source_has_a_config_and_every_config_a_source() -> None:
    assert {p.stem for p in CONFIGS.glob("*.yaml")} - {"_common", "_arrays", "_files"} == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_every_config_says_what_it_is_and_builds(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert OmegaConf.create(text).name == name
    source = configured(name)
    assert type(source) is SOURCES[name]
    assert type(source).__doc__


@pytest.mark.parametrize("name", SOURCES)
def test_every_option_of_a_config_is_explained(name: str) -> None:
    for stem in ("_common", "_arrays", "_files", name):
        for line in (CONFIGS / f"{stem}.yaml").read_text().splitlines():
            if line and line[0].isalpha() and not line.startswith(("defaults:", "name:")):
                assert "  # " in line


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_documents_its_options(name: str) -> None:
    assert all(o.doc and o.type for o in options.describe(SOURCES[name]))


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sources_give_valid_images(name: str) -> None:
    images = load(configured(name, train=200))
    assert images.source == name
    assert images.train.shape == (200, *images.shape)
    assert images.validation.shape == (22, *images.shape)
    for part in (images.train, images.validation):
        assert part.dtype in (np.uint8, np.float32)
        values = as_float(part)
        assert values.min() >= 0
        assert values.max() <= 1
        assert values.std() > 0.1
    if images.train_labels is not None:
        assert images.train_labels.shape == (200,)
        assert images.validation_labels is not None
        assert images.validation_labels.shape == (22,)


@pytest.mark.parametrize("name", EMBEDDED)
def test_equal_options_give_equal_images_and_another_seed_others(name: str) -> None:
    once = load(configured(name, train=100, noise=0.1))
    assert same(once, load(configured(name, train=100, noise=0.1)))
    assert not same(once, load(configured(name, train=100, noise=0.1, seed=1)))


def test_images_do_not_depend_on_numpys_global_state() -> None:
    once = load(configured("glyphs", train=20))
    np.random.seed(5)
    assert same(once, load(configured("glyphs", train=20)))


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_smaller_train_is_a_subset_and_never_meets_validation(name: str) -> None:
    few, more = (load(configured(name, train=k)) for k in (64, 500))
    assert np.array_equal(few.train, more.train[:64])
    # Patches of plain sky may be equal, so images are told apart by the split itself there.
    if name != "patches":
        assert rows(few.validation) <= rows(more.validation)
        assert not rows(few.validation) & rows(more.train)
        assert not rows(more.validation) & rows(more.train)


@pytest.mark.parametrize("name", ["digits", "patches"])
def test_all_of_a_pool_is_used_when_train_is_null(name: str) -> None:
    source = configured(name)
    images = load(source)
    assert len(images.train) + len(images.validation) == len(source.read().images)


# Scaling


def test_uint8_stays_as_it_is() -> None:
    images = varied()
    for how in ("auto", "byte"):
        assert np.shares_memory(scaled(images, how).images, images)


def test_float32_in_0_1_is_not_copied() -> None:
    images = varied(dtype=np.float32, high=1)
    assert np.shares_memory(scaled(images).images, images)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "white"),
    [
        (np.uint8, 0, 1, 1),
        (np.uint16, 0, 65535, 65535),
        (np.uint16, 0, 255, 255),
        (np.uint16, 0, 4095, 65535),
        (np.int64, 0, 1, 1),
        (np.int32, 3, 200, 255),
        (np.int64, 0, 60000, 65535),
        (np.float64, 0, 1, 1),
        (np.float16, 0, 1, 1),
        (np.float32, 0, 255, 255),
        (np.float64, 0, 16, 255),
    ],
)
def test_auto_divides_by_what_white_is(dtype: Any, low: float, high: float, white: float) -> None:
    images = varied(dtype=dtype, low=low, high=high)
    pool = scaled(images)
    assert pool.images.dtype == np.float32
    np.testing.assert_allclose(pool.images[..., 0], images.astype(float) / white, atol=1e-6)
    assert f"values {low:g} to {high:g}" in pool.notes[0]


def test_auto_takes_minus_1_to_1_as_signed() -> None:
    images = varied(dtype=np.float32, low=-1, high=1)
    np.testing.assert_allclose(scaled(images).images[..., 0], (images + 1) / 2, atol=1e-6)


def test_auto_takes_booleans() -> None:
    images = varied() > 128
    assert np.array_equal(scaled(images).images[..., 0], images.astype(np.float32))


def test_a_source_may_define_white() -> None:
    images = varied(dtype=np.float64, high=16)
    np.testing.assert_allclose(scaled(images, white=16).images[..., 0], images / 16, atol=1e-6)


def test_dark_images_are_noted() -> None:
    assert "dark" in scaled(varied(dtype=np.uint16, high=4095)).notes[-1]
    assert len(scaled(varied()).notes) == 1


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (np.int32, -5, 255),
        (np.int64, 0, 70000),
        (np.float32, 0, 1.5),
        (np.float32, -3, 3),
        (np.float32, -1, 255),
        (np.float32, 0, 1000),
    ],
)
def test_auto_refuses_what_it_would_have_to_guess(dtype: Any, low: float, high: float) -> None:
    with pytest.raises(UserError, match=f"{low:g} to {high:g}") as error:
        scaled(varied(dtype=dtype, low=low, high=high))
    assert "data.scale=minmax" in str(error.value.hint)


def test_minmax_uses_the_whole_range_of_the_training_part() -> None:
    images = varied(dtype=np.float64, low=-3, high=7)
    pool = scaled(images, "minmax", test_images=images * 2)
    np.testing.assert_allclose(pool.images[..., 0], (images + 3) / 10, atol=1e-6)
    assert pool.test_images is not None
    np.testing.assert_allclose(pool.test_images[..., 0], np.clip((2 * images + 3) / 10, 0, 1), atol=1e-6)
    assert "clipped" in pool.notes[-1]


def test_minmax_keeps_precision_far_from_zero() -> None:
    images = varied(dtype=np.float64, low=1e9, high=1e9 + 1)
    np.testing.assert_allclose(scaled(images, "minmax").images[..., 0], images - 1e9, atol=1e-6)


def test_none_leaves_values_untouched() -> None:
    images = varied()
    pool = scaled(images, "none", test_images=images)
    assert pool.images.dtype == np.float32
    assert np.array_equal(pool.images[..., 0], images)


def test_test_part_follows_the_rule_of_the_training_part() -> None:
    images = varied(dtype=np.float32)
    # By itself this test part would be taken for [0, 1].
    pool = scaled(images, test_images=images / 255)
    assert pool.test_images is not None
    assert pool.test_images.max() < 0.01


@pytest.mark.parametrize("how", ["byte", "word", "signed"])
def test_a_named_scale_refuses_values_outside_its_range(how: str) -> None:
    with pytest.raises(UserError, match=f"data.scale={how} needs values in"):
        scaled(varied(dtype=np.float64, high=1e6), how)


def test_overshoot_of_a_hair_is_clipped() -> None:
    pool = scaled(varied(dtype=np.float32, low=-1e-4, high=1 + 1e-4))
    assert pool.images.min() == 0
    assert pool.images.max() == 1


# Checks


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((5, 784)),
        np.zeros((5,)),
        np.zeros((5, 8, 8, 5)),
        np.zeros((5, 3, 8, 8)),
        np.zeros((2, 5, 8, 8, 1)),
        np.zeros((0, 8, 8)),
        np.zeros((5, 0, 8)),
        np.array([["a"]]),
        np.array([None, 1]),
        np.zeros((5, 8, 8), complex),
    ],
)
def test_wrong_shapes_and_types_are_refused(images: np.ndarray) -> None:
    with pytest.raises(UserError, match="the images"):
        check(Pool(images=images))


def test_hints_for_rows_and_for_channels_first() -> None:
    with pytest.raises(UserError) as rows_error:
        check(Pool(images=np.zeros((5, 784))))
    assert "data.shape=[28,28]" in str(rows_error.value.hint)
    with pytest.raises(UserError) as first:
        check(Pool(images=np.zeros((5, 3, 8, 8))))
    assert "data.axes=nchw" in str(first.value.hint)


def test_nan_and_infinity_are_counted_and_placed() -> None:
    images = varied(dtype=np.float32, high=1)
    images[3, 0, 0] = np.nan
    images[7] = np.inf
    with pytest.raises(UserError, match="in 2 of 20 images, first in image 3"):
        scaled(images)


@pytest.mark.parametrize(
    "images",
    [
        np.full((5, 8, 8), 7, np.uint8),
        np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((5, 8, 8), np.uint8),
        np.stack([varied(1)[0]] * 5),
    ],
)
def test_constant_data_are_refused(images: np.ndarray) -> None:
    with pytest.raises(UserError, match="constant data"):
        check(Pool(images=images))


def test_lengths_and_shapes_of_the_parts_must_agree() -> None:
    images = varied()
    with pytest.raises(UserError, match="20 images and 3 labels"):
        check(Pool(images=images, labels=np.arange(3)))
    with pytest.raises(UserError, match="8x8x1, test images 7x8x1"):
        check(Pool(images=images, test_images=images[:, 1:]))
    with pytest.raises(UserError, match="20 test images and 3 labels"):
        check(Pool(images=images, test_images=images, test_labels=np.arange(3)))


# Split


def numbered(n: int, **rest: Any) -> Pool:
    """Image i is filled with i."""
    images = np.broadcast_to(np.arange(n, dtype=np.float32)[:, None, None, None], (n, 4, 4, 1))
    return Pool(images=images, labels=np.arange(n), **rest)


def numbers(images: Any) -> list[int]:
    return [int(x) for x in images[:, 0, 0, 0]]


@pytest.mark.parametrize(
    ("train", "validation", "counts"),
    [
        (None, 0.1, (90, 10)),
        (None, 0.25, (75, 25)),
        (50, 0.1, (50, 6)),
        (50, 0.5, (50, 50)),
        (90, 0.1, (90, 10)),
        (2, 0.1, (2, 1)),
        (95, 0.1, (90, 10)),
        (1000, 0.2, (80, 20)),
    ],
)
def test_sizes_of_the_parts(train: int | None, validation: float, counts: tuple[int, int]) -> None:
    images = split(numbered(100), common(train=train, validation=validation), "x")
    assert (len(images.train), len(images.validation)) == counts
    assert not set(numbers(images.train)) & set(numbers(images.validation))
    assert images.train_labels is not None
    assert numbers(images.train) == images.train_labels.tolist()
    asked_too_much = train is not None and train > counts[0]
    assert any("instead of" in note for note in images.notes) == asked_too_much


def test_training_images_are_nested_and_no_validation_image_is_ever_trained_on() -> None:
    every = [split(numbered(100), common(train=k, validation=0.3), "x") for k in range(2, 80)]
    trained, watched = set(numbers(every[-1].train)), set(numbers(every[-1].validation))
    assert not trained & watched
    for smaller, larger in pairwise(every):
        assert set(numbers(smaller.train)) <= set(numbers(larger.train))
        assert set(numbers(smaller.validation)) <= watched


def test_groups_stay_together() -> None:
    groups = np.repeat(np.arange(10), 10)
    images = split(numbered(100, groups=groups), common(validation=0.15), "x")
    train = {i // 10 for i in numbers(images.train)}
    validation = {i // 10 for i in numbers(images.validation)}
    assert len(validation) == 2
    assert train | validation == set(range(10))
    assert not train & validation
    assert images.groups == (8, 2) and split(numbered(100), common(), "x").groups == (0, 0)
    fewer = split(numbered(100, groups=groups), common(validation=0.15, train=20), "x")
    assert (len(fewer.train), len(fewer.validation)) == (20, 4)
    assert set(numbers(fewer.train)) <= set(numbers(images.train))


def test_two_groups_are_shared_out_whatever_the_share() -> None:
    for validation in (0.01, 0.99):
        pool = numbered(40, groups=np.repeat([3, 8], 20))
        images = split(pool, common(validation=validation), "x")
        assert (len(images.train), len(images.validation)) == (20, 20)


def test_one_group_is_split_by_images_and_noted() -> None:
    pool = numbered(40, groups=np.zeros(40, np.int64))
    images = split(pool, common(), "x")
    assert len(images.validation) == 4
    assert "all images come from one file" in images.notes[0] and images.groups == (0, 0)


def test_too_few_images_are_refused() -> None:
    for pool, changes in ((numbered(2), {}), (numbered(50), {"train": 1})):
        with pytest.raises(UserError, match="too few images"):
            split(pool, common(**changes), "x")


def test_test_part_is_a_fixed_choice() -> None:
    pool = replace(numbered(50), test_images=numbered(30).images, test_labels=np.arange(30))
    whole = split(pool, common(), "x")
    assert numbers(whole.test) == list(range(30))
    five, ten = (split(pool, common(test=k), "x") for k in (5, 10))
    assert numbers(five.test) == numbers(ten.test)[:5]
    assert five.test_labels is not None
    assert numbers(five.test) == five.test_labels.tolist()
    assert five.held_out_name == "test"
    assert any("30 test images instead of 99" in n for n in split(pool, common(test=99), "x").notes)


# Noise


def test_noise_has_the_given_size_and_stays_in_range() -> None:
    clean, dirty = (load(configured("glyphs", train=300, noise=s)) for s in (0.0, 0.1))
    assert dirty.train.dtype == np.float32
    assert dirty.train.min() >= 0
    assert dirty.train.max() <= 1
    middle = np.abs(as_float(clean.train) - 0.5) < 0.1  # five deviations from either end: no clipping
    assert abs((dirty.train - as_float(clean.train))[middle].std() - 0.1) < 0.005
    assert not np.array_equal(dirty.train[:30], dirty.validation[:30])


def test_noise_of_an_image_does_not_depend_on_how_many_there_are() -> None:
    few, more = (load(configured("digits", train=k, noise=0.2)) for k in (50, 300))
    assert np.array_equal(few.train, more.train[:50])


def test_noise_on_unscaled_images_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.noise needs images in \[0, 1\]"):
        load(configured("glyphs", train=20, noise=0.1, scale="none"))


def test_load_names_the_file_of_bad_images(tmp_path: Path) -> None:
    path = tmp_path / "flat.npy"
    np.save(path, np.zeros((9, 8, 8)))
    with pytest.raises(UserError) as error:
        load(configured("npy", path=str(path)))
    assert error.value.where == str(path)


def test_a_source_can_be_added_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SOURCES", type(SOURCES)("data"))

    @data.SOURCES.add("mine")
    @dataclass(frozen=True, kw_only=True)
    class Mine(DataOptions):
        def read(self) -> Pool:
            return Pool(images=varied(), notes=("drawn at random",))

    images = load(Mine(**COMMON))
    assert images.source == "mine"
    assert images.shape == (8, 8, 1)
    assert images.notes[0] == "drawn at random"
