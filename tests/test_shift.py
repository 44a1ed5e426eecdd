"""Held-out images of the same kind as the training images, and of another one."""

from dataclasses import replace

import numpy as np
import pytest

from cae_cli.diagnosis import diagnose
from cae_cli.metrics.shift import shift
from tests.test_diagnosis import codes, healthy


def sets(n=400, m=100, seed=0):
    """Smooth images of random brightness and contrast, in [0, 1]."""
    rng = np.random.default_rng(seed)
    waves = np.sin(np.linspace(0, 6, 12))[:, None] * np.cos(np.linspace(0, 5, 12))
    contrast = rng.uniform(0.1, 0.5, (n + m, 1, 1))
    images = rng.uniform(0.3, 0.7, (n + m, 1, 1)) + contrast * waves
    images = np.clip(images + rng.normal(0, 0.05, images.shape), 0, 1)[..., None].astype(np.float32)
    return images[:n], images[n:]


def test_images_of_one_kind_are_not_told_apart_however_few_there_are():
    for seed in range(20):
        for m in (4, 16, 100):
            found = shift(*sets(m=m, seed=seed))
            assert found.beyond < 0.5
            assert max(abs(v - 0.5) for v in (found.brightness, found.contrast, found.detail)) < 0.2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: 255 * x, {"beyond": 1, "filled": 255}),
        (lambda x: x / 255, {"beyond": 0, "filled": 1 / 255}),
        (lambda x: 0.5 * x + 0.25, {"beyond": 0, "filled": 0.5}),
        (lambda x: x.repeat(2, axis=1)[:, :12].repeat(2, axis=2)[:, :, :12], {"beyond": 0}),
    ],
)
def test_another_scale_is_seen(change, expected):
    train, held_out = sets()
    found = shift(train, change(held_out))
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=0.1, abs=0.05)


def test_pairs_are_counted():
    train, held_out = sets(60, 50)
    found = shift(train, 0.3 + held_out)
    pairs = np.mean(0.3 + held_out.mean(axis=(1, 2, 3))[:, None] > train.mean(axis=(1, 2, 3)))
    chance = 3 * np.sqrt((60 + 50 + 1) / (12 * 60 * 50))
    assert found.brightness == pytest.approx(pairs - chance, abs=1e-6)


def test_flat_sets_have_no_range():
    flat = np.ones((20, 4, 4, 1), np.float32)
    assert np.isnan(shift(flat, flat).filled)


def test_other_brightness_counts_only_where_the_network_does_worse_with_it():
    metrics = replace(healthy(), dataset=replace(healthy().dataset, brightness=0.99))
    assert codes(metrics) == []
    quality = replace(metrics.quality, train_explained_variance=0.95)
    found = diagnose(replace(metrics, quality=quality), {}).findings
    assert [f.code for f in found] == ["CAE109", "CAE501"]
    assert found[1].consequence_of == "CAE109" and "brighter" in found[0].message
