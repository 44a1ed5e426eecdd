"""Use of the code, the best linear code of its size, and what it says about labels."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cae_cli.metrics.labels import probe_accuracy
from cae_cli.metrics.latent import latent_use
from cae_cli.metrics.projection import projection_mse

RNG = np.random.default_rng(0)


def orthogonal(n, d):
    """(n, d) codes whose values have mean 0, variance 1 and no covariance, exactly."""
    raw = RNG.standard_normal((n, d))
    return np.linalg.qr(raw - raw.mean(axis=0))[0] * np.sqrt(n)


@pytest.mark.parametrize("shape", [(50, 3, 3, 2), (20, 64)])  # fewer and more values than images
def test_dimensions_agree_with_principal_components(shape):
    codes = (RNG.standard_normal(shape) * RNG.random(shape[1:]) + 3).astype(np.float32)
    eigenvalues = PCA().fit(codes.reshape(len(codes), -1)).explained_variance_
    share = eigenvalues / eigenvalues.sum()
    share = share[share > 1e-9]
    found = latent_use(codes)
    assert found.values == np.prod(shape[1:])
    assert found.effective_rank == pytest.approx(np.exp(-sum(p * np.log(p) for p in share)), rel=1e-4)
    assert found.participation == pytest.approx(1 / sum(p**2 for p in share), rel=1e-4)


def test_equal_independent_values_are_all_used():
    found = latent_use(orthogonal(60, 12).astype(np.float32))
    assert (found.effective_rank, found.participation) == pytest.approx((12, 12), rel=1e-5)
    assert found.dead == 0


def test_a_code_of_rank_three_has_three_dimensions_at_most():
    codes = RNG.standard_normal((100, 3)) @ RNG.standard_normal((3, 40)) + RNG.standard_normal(40)
    found = latent_use(codes.astype(np.float32))
    assert 1 < found.participation <= found.effective_rank <= 3 + 1e-4


def test_two_values_with_variances_three_to_one_are_known_by_hand():
    codes = orthogonal(40, 2) * np.sqrt([3, 1])
    found = latent_use(codes.astype(np.float32))
    assert found.effective_rank == pytest.approx(4 / 3**0.75, rel=1e-5)  # exp(ln 4 - ¾ ln 3)
    assert found.participation == pytest.approx(16 / 10, rel=1e-5)


def test_planted_dead_values_are_counted():
    codes = RNG.standard_normal((80, 4, 4, 2)).astype(np.float32)
    codes[:, 0, :, 0] = 0.7
    codes[:, 3, 3, 1] = 1e-4 * RNG.standard_normal(80)
    found = latent_use(codes)
    assert found.dead == 5 / 32
    alive = codes.reshape(80, -1)[:, codes.reshape(80, -1).std(axis=0) > 0.1]
    assert found.effective_rank == pytest.approx(latent_use(alive).effective_rank, rel=1e-4)


def test_a_code_that_never_changes_is_dead_and_one_image_says_nothing():
    same = latent_use(np.full((30, 5), 0.3, np.float32))
    assert same.dead == 1 and np.isnan(same.effective_rank) and np.isnan(same.participation)
    one = latent_use(np.ones((1, 5), np.float32))
    assert one.values == 5 and np.isnan([one.effective_rank, one.dead]).all()
    lost = latent_use(np.full((4, 5), np.nan, np.float32))
    assert np.isnan([lost.effective_rank, lost.participation, lost.dead]).all()


def low_rank_images(n, shape, rank):
    """Images (n, *shape) that need ``rank`` values each beside the mean image."""
    basis = np.random.default_rng(1).standard_normal((rank, int(np.prod(shape))))
    return (RNG.standard_normal((n, rank)) @ basis + 0.5).reshape(n, *shape).astype(np.float32)


@pytest.mark.parametrize("m", [90, 30])  # more and fewer training images than pixels
@pytest.mark.parametrize("dims", [1, 7, 25])
def test_the_projection_agrees_with_scikit_learn(m, dims):
    scale = np.linspace(0.1, 2, 48)
    train, test = (
        (RNG.standard_normal((n, 48)) * scale).reshape(n, 6, 8, 1).astype(np.float32) for n in (m, 40)
    )
    pca = PCA(dims, svd_solver="full").fit(train.reshape(m, -1).astype(np.float64))
    for images, found in zip((train, test), projection_mse(train, (train, test), dims), strict=True):
        flat = images.reshape(len(images), -1)
        expected = np.square(pca.inverse_transform(pca.transform(flat)) - flat).mean(axis=1)
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("shape", [(5, 4, 2), (16, 16, 1)])
def test_as_many_values_as_the_images_have_are_enough_and_one_less_is_not(shape):
    train, test = (low_rank_images(n, shape, rank=6) for n in (100, 20))
    enough, too_few = (projection_mse(train, [test], dims)[0] for dims in (6, 5))
    assert enough.max() < 1e-9 < 1e-2 < too_few.mean()
    # Directions without any variance neither help nor harm.
    assert projection_mse(train, [test], 39)[0].max() < 1e-9


def test_as_many_values_as_pixels_leave_no_error():
    train, test = (RNG.random((n, 4, 4, 1)).astype(np.float32) for n in (50, 9))
    for dims in (16, 17, 40):
        assert projection_mse(train, [test], dims)[0] == pytest.approx(np.zeros(9), abs=1e-10)


def test_a_projection_of_white_noise_keeps_its_share():
    train, test = (RNG.standard_normal((n, 5, 4, 1)).astype(np.float32) for n in (4000, 2000))
    assert projection_mse(train, [test], 5)[0].mean() == pytest.approx(15 / 20, abs=0.02)


def test_too_few_images_and_too_many_pixels_are_not_measured():
    few = RNG.random((10, 4, 4, 1)).astype(np.float32)
    large = np.zeros((12, 129, 128, 1), np.float32)
    for train, dims in ((few, 10), (large, 2)):
        (found,) = projection_mse(train, [train[:3]], dims)
        assert found.shape == (3,) and np.isnan(found).all()


def planted(n, classes=3, noise=1.0):
    labels = RNG.integers(0, classes, n)
    centres = 4 * np.random.default_rng(2).standard_normal((classes, 2, 2, 3))
    return (centres[labels] + noise * RNG.standard_normal((n, 2, 2, 3))).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("count", [80, 11])  # more images than the 12 values, and fewer
def test_the_probe_agrees_with_a_scikit_learn_pipeline(classes, count):
    (train, train_labels), (test, labels) = planted(count, classes, 4), planted(300, classes, 4)
    pipeline = make_pipeline(StandardScaler(), RidgeClassifier())
    pipeline.fit(train.reshape(count, -1).astype(float), train_labels)
    expected = pipeline.score(test.reshape(300, -1).astype(float), labels)
    assert probe_accuracy(train, train_labels, test, labels) == pytest.approx(expected)


def test_separate_classes_are_found_and_random_labels_are_not():
    (train, train_labels), (test, labels) = planted(200), planted(600)
    train[:, 0, 0, 0] = test[:, 0, 0, 0] = 0.1  # a dead value does no harm
    assert probe_accuracy(train, train_labels, test, labels) > 0.99
    chance = probe_accuracy(train, RNG.permutation(train_labels), test, RNG.permutation(labels))
    assert chance == pytest.approx(1 / 3, abs=0.1)


def test_without_labels_there_is_no_accuracy():
    codes, labels = planted(20)
    for missing in (
        (codes, None, codes, labels),
        (codes, labels, codes, None),
        (codes, labels, codes[:0], labels[:0]),
        (codes, np.zeros(20, int), codes, labels),
        (codes[:0], labels[:0], codes, labels),
        (codes * np.nan, labels, codes, labels),
    ):
        assert np.isnan(probe_accuracy(*missing))


def test_codes_too_large_to_be_squared_have_the_same_ranks():
    codes = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    plain, huge = latent_use(codes), latent_use(codes * np.float32(1e30))
    assert huge.effective_rank == pytest.approx(plain.effective_rank, rel=1e-4)
    assert huge.participation == pytest.approx(plain.participation, rel=1e-4)
