"""Fewer images than a verdict needs, as a user with a dozen photographs has them."""

import re

import numpy as np
import pytest
import tifffile

from cae_cli import experiment
from cae_cli.config import compose
from cae_cli.data import load
from cae_cli.errors import UserError
from cae_cli.external.model import all_measured
from tests.test_data import configured
from tests.test_data_sources import colour, save


@pytest.fixture
def photographs(tmp_path):
    """13 files of 96x80 pixels."""
    for seed in range(13):
        save(tmp_path / f"photos/{seed}.png", colour(96, 80, seed=seed))
    return {"path": str(tmp_path / "photos")}


@pytest.mark.parametrize("measured", ["a training", "a model"])
@pytest.mark.parametrize("given", [{}, {"image_size": 32}, {"patches": 64}])
def test_the_way_that_is_named_works(photographs, given, measured):
    prepared = all_measured if measured == "a model" else lambda images: images
    options = configured("image_folder", **photographs, **given)
    images = prepared(load(options))
    said = experiment.too_few(options, images)
    assert said is not None and "what needs 16 is not checked" in said
    if measured == "a model" and "image_size" not in given:
        assert said.endswith("add images")  # no option changes how many of this size there are
        return
    way = {k: None if v == "null" else int(v) for k, v in re.findall(r"data\.(\w+)=(\w+)", said)}
    options = configured("image_folder", **{**photographs, **given, **way})
    more = prepared(load(options))
    assert experiment.too_few(options, more) is None
    assert measured == "a training" or more.shape == images.shape


@pytest.mark.parametrize(("files", "pages"), [(6, 8), (3, 8), (2, 40)])
def test_frames_that_were_left_out_are_named_where_images_are_missing(files, pages, tmp_path):
    stack = np.random.default_rng(0).integers(0, 4096, (pages, 28, 28), np.uint16)
    for number in range(files):
        tifffile.imwrite(tmp_path / f"{number}.tif", stack + np.uint16(number))
    options = configured("image_folder", path=str(tmp_path))
    way = f"data.frames=all reads {files * (pages - 1)} more frames"
    with pytest.raises(UserError) as refused:
        images = load(options)
        assert way in (experiment.too_few(options, images) or "")
        compose.checked([])[1].training.check(len(images.train), images.more)
    assert way in (refused.value.hint or "")
    images = load(configured("image_folder", path=str(tmp_path), frames="all"))
    assert not images.more and len(images.train) + len(images.validation) == files * pages


def test_more_of_an_array_can_be_held_out(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=x, x_test=x)
    np.savez(tmp_path / "y.npz", x_train=x)
    for name, given, way in (
        ("x", {"test": 9}, "data.test=null takes all"),
        ("y", {}, "data.validation=0.4 holds out more"),
        ("y", {"train": 20}, "add images"),
    ):
        options = configured("npz", path=str(tmp_path / f"{name}.npz"), **given)
        assert way in (experiment.too_few(options, load(options)) or "")
    options = configured("npz", path=str(tmp_path / "y.npz"), validation=0.4)
    assert experiment.too_few(options, load(options)) is None
