"""A noisy part of the images: its share against what was planted, and none where there is none."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cae_cli.diagnosis import forecast
from cae_cli.metrics.dataset import dataset
from cae_cli.metrics.noise import noise_of, noisy_part
from tests.test_diagnosis import changed, codes, seen

KINDS = {
    "Gaussian": lambda x, rng: x + rng.normal(0, x.std(), x.shape),
    "uniform": lambda x, rng: x + rng.uniform(-0.4, 0.4, x.shape),
    "salt and pepper": lambda x, rng: np.where(rng.random(x.shape) < 0.1, rng.random(x.shape) < 0.5, x),
    "nothing else": lambda x, rng: rng.random(x.shape),
}


def waves(n=300, side=20, seed=0):
    """Smooth images (n, side, side, 1) in [0, 1] of different contrast."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    fx, fy, phase = rng.uniform(-2, 2, (3, n, 1, 1))
    contrast = rng.uniform(0.1, 0.5, (n, 1, 1))
    return (0.5 + contrast * np.sin(6 * (fx * x + fy * y + phase)))[..., None].astype(np.float32)


def partly(images, share, kind, seed=0):
    """The images with noise in a share of them, and which these are."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(images))[: round(share * len(images))])
    noisy = images.copy()
    noisy[chosen] = np.clip(KINDS[kind](images[chosen], rng), 0, 1)
    return noisy, chosen


def photographs(shared, side, scale, colour=False, n=420):
    """Patches of 14 photographs, as many of each."""
    rng, found = np.random.default_rng(0), []
    for file in sorted((shared / ("photos_colour" if colour else "photos")).iterdir()):
        photo = Image.open(file).convert("RGB" if colour else "L").reduce(scale)
        pixels = np.asarray(photo, np.float32) / 255
        for _ in range(n // 14):
            top, left = (int(rng.integers(size - side + 1)) for size in pixels.shape[:2])
            found.append(pixels[top : top + side, left : left + side])
    return np.stack(found).reshape(-1, side, side, 3 if colour else 1)


def real(shared, name, n=400):
    """Images of a file, or patches of photographs: grey_SIDE_SCALE or colour_SIDE_SCALE."""
    kind, *numbers = name.split("_")
    if numbers and kind in ("grey", "colour"):
        return photographs(shared, *map(int, numbers), colour=kind == "colour")
    with np.load(shared / f"{name}.npz") as file:
        return file["x_train"][:n, ..., None].astype(np.float32) / 255


def test_the_noise_of_an_image_is_what_was_added():
    rng = np.random.default_rng(0)
    images = np.full((40, 32, 32, 1), 0.5) + 0.3 * np.linspace(-1, 1, 32)[:, None]
    added = rng.uniform(0.02, 0.4, (40, 1, 1, 1))
    noisy = images + added * rng.standard_normal(images.shape)
    contrast = np.sqrt(noisy.var(axis=(1, 2, 3)).mean())
    assert noise_of(noisy) * contrast == pytest.approx(added.ravel(), rel=0.25, abs=0.01)
    assert noise_of(images).max() < 0.01


def test_stripes_and_boards_are_no_noise():
    board = np.indices((16, 16)).sum(axis=0) // 2 % 2
    images = np.stack([board, board.T, np.arange(256).reshape(16, 16) % 2]).astype(np.float32)
    assert noise_of(images[..., None]).max() < 0.05
    assert list(noise_of(np.ones((3, 9, 9, 2), np.float32))) == [0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.06, 0.3, 0.8])
def test_the_noisy_part_is_found_and_its_images_are_named(share, kind):
    images, chosen = partly(waves(), share, kind)
    found = noisy_part(images)
    assert found.noisy == pytest.approx(share, abs=0.01)
    assert set(map(int, found.examples.split(", "))) <= set(chosen)


def test_images_that_are_all_noisy_have_no_noisy_part():
    for strength in (0.02, 0.1, 0.3):
        noise = np.random.default_rng(1).normal(0, strength, waves().shape)
        assert noisy_part(waves() + noise).noisy == 0
    levels = np.random.default_rng(2).uniform(0, 0.3, (300, 1, 1, 1))
    assert noisy_part(waves() + levels * np.random.default_rng(3).normal(size=waves().shape)).noisy == 0


def test_few_or_small_images_tell_nothing():
    assert np.isnan(noisy_part(waves(12)).noisy)
    assert np.isnan(noisy_part(waves(side=11)).noisy)


@pytest.mark.parametrize(
    "name", ["fashion_mnist", "mnist", "omniglot", "grey_16_1", "grey_28_1", "grey_28_2", "colour_32_4"]
)
def test_real_images_have_no_noisy_part_but_the_one_that_is_planted(shared, name):
    images = real(shared, name)
    assert noisy_part(images).noisy == 0
    for kind, share in (("Gaussian", 0.12), ("uniform", 0.3)):
        found = noisy_part(partly(images, share, kind)[0])
        assert found.noisy == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("share", [0.12, 0.62])
def test_noise_in_a_part_is_a_finding_before_training_and_after_it(shared, share):
    images, chosen = partly(real(shared, "fashion_mnist"), share, "Gaussian")
    found = dataset(images, images[:20])
    known = {name: getattr(found, name) for name in ("correlation", "noisy", "examples")}
    assert codes(changed("dataset", **known)) == ["CAE105"]
    statistics, network, config = seen()
    (finding,) = forecast(replace(statistics, **known), network, config).findings
    assert finding.code == "CAE105" and str(chosen[0]) in finding.message


@pytest.mark.soak
def test_mixtures_of_photographs_have_no_noisy_part(shared):
    """Textures beside smooth walls: pairs of photographs in three sizes."""
    for side, scale in ((16, 1), (28, 1), (64, 1)):
        of_photo = photographs(shared, side, scale, n=14 * 150).reshape(14, 150, side, side, 1)
        for one in range(14):
            for other in range(one):
                mixed = np.concatenate([of_photo[one], of_photo[other]])
                assert noisy_part(mixed).noisy == 0, (side, one, other)
