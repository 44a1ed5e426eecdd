"""Whether batches were mixed: against a slow computation, and orders whose answers are known."""

import numpy as np
import pytest

from cae_cli.metrics.order import batch_order

RNG = np.random.default_rng(0)
KINDS = RNG.random((10, 6, 6, 1))
LABELS = np.arange(2000) % 10
IMAGES = (KINDS[LABELS] + 0.3 * RNG.standard_normal((2000, 6, 6, 1))).astype(np.float32)
SORTED = IMAGES[np.argsort(LABELS, kind="stable")]


def fed(images, size, count=8):
    return [images[i * size : (i + 1) * size] for i in range(count)]


def test_it_is_the_mean_product_of_two_images_of_a_group():
    batches, sample = fed(SORTED[150:], 16, 3), IMAGES[:200]
    mean = sample.astype(np.float64).mean(axis=0)
    products, squares = [], []
    for batch in batches:
        for i, a in enumerate(batch):
            squares.append(((a - mean) ** 2).sum())
            products += [((a - mean) * (b - mean)).sum() for j, b in enumerate(batch) if i != j]
    found = batch_order(batches, sample)
    total, shared = np.mean(squares), np.mean(products)
    variance = sample.astype(np.float64).var(axis=0, ddof=1).sum()
    alike = min(shared / total, 1 - (total - shared) / variance)
    assert found.images == 16 and found.inflation == pytest.approx(1 + 15 * alike, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4, 16, 32, 128])
def test_mixed_images_stay_within_chance_and_sorted_ones_do_not(size):
    found = [batch_order(fed(RNG.permutation(IMAGES), size), IMAGES) for _ in range(20)]
    assert all(f.inflation < 1 + 5 * f.chance for f in found)
    ordered = batch_order(fed(SORTED, size), IMAGES)
    assert ordered.images == min(max(size, 16), 32, 8 * size)
    assert size == 1 or ordered.inflation > 1 + 5 * ordered.chance + 1.5


def test_chance_is_the_spread_of_mixed_images():
    found = [batch_order(fed(RNG.permutation(IMAGES), 16), IMAGES) for _ in range(200)]
    shared = np.std([f.inflation for f in found])
    assert shared == pytest.approx(np.mean([f.chance for f in found]), rel=0.5)


def test_a_change_of_all_images_is_no_order():
    darker = RNG.permutation(IMAGES) - 0.2
    assert batch_order(fed(darker, 32), IMAGES).inflation < 2


def test_without_anything_to_compare_there_is_no_order():
    assert batch_order(fed(IMAGES, 4), IMAGES[:, :5]) is None
    assert batch_order([IMAGES[:1]], IMAGES) is None
    assert batch_order(fed(np.ones_like(IMAGES), 4), np.ones_like(IMAGES)) is None
