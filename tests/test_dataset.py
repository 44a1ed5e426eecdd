"""What is known before training: of the images, against what was planted, and of the network."""

import numpy as np
import pytest

from cae_cli.data import Images, as_float
from cae_cli.experiment import dataset_statistics
from cae_cli.metrics.dataset import SAMPLED, dataset, sample_size
from cae_cli.metrics.network import Network, network
from cae_cli.metrics.quality import explained_variance

RNG = np.random.default_rng(0)


def images(count, side=6):
    return RNG.random((count, side, side, 1), dtype=np.float32)


def test_images_of_no_trouble_have_none():
    found = dataset(images(20), images(10))
    assert (found.train, found.held_out) == (20, 10)
    assert (found.distinct, found.repeated, found.flat) == (1, 0, 0)
    assert 0 <= found.low < found.high <= 1


def test_planted_repeats_leaks_and_flat_images_are_counted():
    train, held_out = images(20), images(10)
    train[5:10] = train[0]
    train[10:13] = np.linspace(0, 1, 3)[:, None, None, None]  # flat, each another grey
    held_out[[2, 7]] = train[[0, 19]]
    held_out[3] = held_out[4]  # a repeat among themselves is no leak
    found = dataset(train, held_out)
    assert found.distinct == pytest.approx(15 / 20)
    assert found.flat == pytest.approx(3 / 20)
    assert found.repeated == pytest.approx(2 / 10)


def test_one_changed_bit_makes_another_image():
    train = np.repeat(images(1), 4, axis=0)
    train[1, 0, 0, 0] = np.nextafter(train[1, 0, 0, 0], 2)
    assert dataset(train, train[:1]).distinct == 2 / 4


def test_range_spread_and_variance_agree_with_numpy():
    train = 3 * images(30) - 1
    found = dataset(train, images(5))
    assert (found.low, found.high) == (train.min(), train.max())
    assert found.variance == pytest.approx(train.var(axis=0).mean(), rel=1e-5)
    assert found.image_std == pytest.approx(np.mean([image.std() for image in train]), rel=1e-5)


def test_the_explained_variance_of_black_by_hand():
    # Every pixel is 1 in a quarter of the images: E[t²] = 1/4, V = 1/4 * 3/4, so 1 - 4/3.
    train = np.zeros((8, 2, 2, 1), np.float32)
    train[:2] = 1
    assert dataset(train, train).black == pytest.approx(1 - 4 / 3)
    train[2:4] = 1  # 1/2 and 1/4
    assert dataset(train, train).black == pytest.approx(-1)
    train = images(50) - 0.5
    black_mse, mean_mse = (np.square(train - t).mean(axis=(1, 2, 3)) for t in (0, train.mean(axis=0)))
    assert dataset(train, train).black == pytest.approx(
        explained_variance(black_mse, mean_mse), abs=1e-5
    )


def test_the_same_image_over_and_over_leaves_nothing_to_explain():
    train = np.repeat(images(1), 5, axis=0)
    found = dataset(train, train)
    assert np.isnan(found.black) and found.variance == 0
    assert (found.distinct, found.repeated) == (1 / 5, 1)


def test_statistics_use_only_the_first_images_and_all_are_counted():
    train = np.repeat(images(1, side=2), SAMPLED + 3, axis=0)
    train[SAMPLED:] = 7
    found = dataset_statistics(Images(train=train, validation=train[-2:]))
    assert (found.train, found.held_out) == (SAMPLED + 3, 2)
    # All training images are compared with the held-out ones, whatever is looked at.
    assert found.high < 1 and found.repeated == 1
    assert dataset(train, train, counts=(9, 5)).train == 9


def test_statistics_use_fewer_large_images():
    assert sample_size((28, 28, 1)) == SAMPLED
    assert 20 < sample_size((256, 256, 3)) < 100
    assert sample_size((8000, 8000, 3)) == 16


def test_the_survey_of_an_experiment_sees_floats_and_the_test_part():
    train, test = (np.uint8(255 * images(count)) for count in (12, 4))
    test[0] = train[3]
    found = dataset_statistics(Images(train=train, validation=train, test=test, groups=(3, 2)))
    assert (found.train_groups, found.held_out_groups) == (3, 2)
    assert found.high == as_float(train).max() <= 1
    assert (found.train, found.held_out, found.repeated) == (12, 4, 1 / 4)


FACTS = {
    "latent_layer": "latent",
    "latent_shape": [7, 5, 8],
    "image_shape": [28, 20, 1],
    "output_activation": "sigmoid",
    "hidden_activation": None,
    "normalised": True,
    "drops": True,
    "skips": False,
    "receptive_field": [10, 9],
    "depth": 5,
    "narrowest": 8,
    "skipping": ["conv"],
    "closed": [],
}


def test_a_network_is_read_from_facts_and_what_is_more_is_left_out():
    assert network(FACTS) == Network(
        image_shape=(28, 20, 1), latent_shape=(7, 5, 8), output_activation="sigmoid",
        hidden_activation=None, normalised=True, skips=False, receptive_field=10.0, depth=5, narrowest=8,
        skipping=("conv",),
    )  # fmt: skip
    assert network({**FACTS, "receptive_field": None}).receptive_field is None


def test_values_and_grid_of_a_code():
    grid = network(FACTS)
    assert (grid.latent_values, grid.image_values, grid.latent_grid) == (280, 560, (7, 5))
    flat = network({**FACTS, "latent_shape": [50], "image_shape": [32, 32, 3]})
    assert (flat.latent_values, flat.latent_grid) == (50, (4, 4))  # 4 * 4 * 3 is the most up to 50
    assert network({**FACTS, "latent_shape": [1], "image_shape": [32, 32, 3]}).latent_grid == (1, 1)
