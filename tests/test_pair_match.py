"""Targets of other images, pair by pair: the share that was planted, and none where pairs are right."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cae_cli.diagnosis import diagnose
from cae_cli.metrics.batches import batches, square_side, unfiltered
from cae_cli.metrics.pairs import FAR, shown
from tests.test_diagnosis import CONFIG, changed
from tests.test_noise import real, waves

COUNT = 256


def blurred(x):
    for axis in (1, 2):
        x = (np.roll(x, 1, axis) + 2 * x + np.roll(x, -1, axis)) / 4
    return x


def coarse(x, factor=4):
    n, h, w, c = x.shape
    small = x.reshape(n, h // factor, factor, w // factor, factor, c).mean(axis=(2, 4))
    return small.repeat(factor, axis=1).repeat(factor, axis=2)


def holes(x, value):
    """A square of a quarter of each image is set to a value, at another place in each."""
    rng, x = np.random.default_rng(5), x.copy()
    half = x.shape[1] // 2
    for image in x:
        top, left = rng.integers(half, size=2)
        image[top : top + half, left : left + half] = value
    return x


def noise(x, strength=1.0):
    return strength * np.random.default_rng(4).normal(size=x.shape)


def noisy_holes(x):
    return np.where(np.isnan(holes(x, np.nan)), 0.5 + noise(x, 0.5), x)


# What makes inputs of images in [0, 1]. All are corrupted alike.
TASKS = {
    "reconstruction": lambda x: x,
    "noise": lambda x: np.clip(x + noise(x, 0.3), 0, 1),
    "noise in 0..255": lambda x: 255 * (x + noise(x, 0.5)),
    "noise of many levels": lambda x: x + np.linspace(0, 1, len(x))[:, None, None, None] * noise(x),
    "salt and pepper": lambda x: np.where(noise(x) > 0.8, 1, np.where(noise(x) < -0.8, 0, x)),
    "black holes": lambda x: holes(x, 0.0),
    "grey holes": lambda x: holes(x, 0.5),
    "holes of -1": lambda x: holes(x, -1.0),
    "white holes in 0..255": lambda x: 255 * holes(x, 1.0),
    "noisy holes": noisy_holes,
    "black holes in -1..1": lambda x: 2 * holes(x, 0.0) - 1,
    "one pixel of ten": lambda x: np.where(noise(x) > 1.28, x, 0),
    "blur": blurred,
    "a quarter of the resolution": coarse,
    "inverted": lambda x: 1 - x,
    "another contrast": lambda x: np.random.default_rng(7).uniform(0.5, 1, (len(x), 1, 1, 1)) * x**2,
    "thresholds": lambda x: x > x.mean(axis=(1, 2, 3), keepdims=True),
}  # fmt: skip


def fed(images, task, share=0.0, seed=0):
    """Statistics of pairs; a share of them gets targets of others."""
    rng, targets = np.random.default_rng(seed), images.copy()
    wrong = rng.permutation(len(images))[: round(share * len(images))]
    targets[wrong] = images[rng.permutation(len(images))[: len(wrong)]]
    return batches(np.asarray(TASKS[task](images), np.float32), targets)


def finding_of(statistics):
    """The finding CAE103 of a run that received such batches, None without one."""
    found = diagnose(
        changed(
            "batches", pair=statistics.pair, difference_correlation=statistics.difference_correlation,
            erased=statistics.erased, kept=statistics.kept, unfiltered=statistics.unfiltered,
            compared=statistics.compared, foreign=statistics.foreign, unclear=statistics.unclear,
        ),
        CONFIG,
    )  # fmt: skip
    return next((finding for finding in found.findings if finding.code == "CAE103"), None)


def each(change):
    """A change of single images (h, w, c) that draws from a generator."""

    def of_all(x):
        rng = np.random.default_rng(8)
        return np.stack([change(image, rng) for image in x])

    return of_all


def enlarged(factor):
    def change(image, _):
        small = image.reshape(-1, factor, image.shape[1] // factor, factor, 1).mean(axis=(1, 3))
        return ndimage.zoom(small, (factor, factor, 1), order=1, mode="nearest", grid_mode=True)

    return each(change)


def repeated(factor, resample):
    """A smaller image, as Pillow makes it, enlarged by repeating its pixels."""

    def change(image, _):
        side = image.shape[0] // factor
        small = [
            np.asarray(Image.fromarray(plane).resize((side, side), resample))
            for plane in np.moveaxis(image, -1, 0)
        ]
        return np.stack(small, axis=-1).repeat(factor, axis=0).repeat(factor, axis=1)

    return each(change)


def mixed(x):
    return 0.6 * x + 0.4 * np.roll(x, 9, axis=0)


# One filter for all images, and what is none.
BLURRED = {
    "a small blur": each(lambda i, _: ndimage.gaussian_filter(i, (1.5, 1.5, 0))),
    "a large blur": each(lambda i, _: ndimage.gaussian_filter(i, (3, 3, 0))),
    "a blur along rows": each(lambda i, _: ndimage.uniform_filter(i, (1, 5, 1))),
    "half the resolution": enlarged(2),
    "a quarter of the resolution": enlarged(4),
    "blocks of two": repeated(2, Image.Resampling.BOX),
    "every second pixel": repeated(2, Image.Resampling.NEAREST),
    "blocks of four": repeated(4, Image.Resampling.BILINEAR),
    "other blocks of four": repeated(4, Image.Resampling.LANCZOS),
}
MOVED = {
    "shifted": each(lambda i, rng: ndimage.shift(i, (*rng.integers(-2, 3, 2), 0))),
    "all shifted alike": each(lambda i, _: ndimage.shift(i, (0, 3, 0))),
    "rotated": each(lambda i, rng: ndimage.rotate(i, rng.uniform(-20, 20), reshape=False)),
    "mirrored": each(lambda i, rng: i[:, ::-1] if rng.random() < 0.5 else i),
    "inverted": lambda x: 1 - x,
    "shuffled": lambda x: np.roll(x, 9, axis=0),
    "mixed": mixed,
    "mixed in blocks": lambda x: repeated(2, Image.Resampling.BOX)(mixed(x)),
    "mirrored in blocks": lambda x: repeated(4, Image.Resampling.BOX)(x)[:, ::-1],
    "most of another image": lambda x: np.where(
        np.arange(x.shape[2])[:, None] < 4, x, np.roll(x, 9, axis=0)
    ),
}


OTHERS = [pytest.param(n, marks=pytest.mark.soak) for n in ("fashion_mnist", "omniglot", "grey_32_4")]


@pytest.mark.parametrize("name", ["mnist", *OTHERS])
def test_a_blur_that_all_images_share_is_a_task_and_a_transform_of_the_input_is_none(name, shared):
    images = real(shared, name, 64)
    for change in BLURRED.values():
        blurred = np.asarray(change(images), np.float32)
        for pair in ((blurred, images), (images, blurred)):
            found = batches(*pair)
            assert found.unfiltered < 0.07 and finding_of(found) is None
    for change in MOVED.values():
        moved = np.asarray(change(images), np.float32)
        found = batches(moved, images)
        assert not found.unfiltered <= 0.2
        for kept in (found.kept, batches(images, moved).kept):
            assert kept <= 0.15 or (name == "omniglot" and np.isnan(kept))
        assert found.pair <= 0.1 or finding_of(found) is not None


def test_the_rest_beside_a_filter_is_what_was_added():
    rng = np.random.default_rng(0)
    sources = rng.random((64, 20, 24, 2)).astype(np.float32)
    blurred = ndimage.uniform_filter(sources, (0, 3, 3, 0))
    whole = np.square(blurred - sources)[:, 4:-4, 4:-4].mean()
    for share in (0.0, 0.1, 0.5):
        noise = rng.normal(0, np.sqrt(share / (1 - share) * whole), sources.shape)
        found = unfiltered(np.asarray(blurred + noise, np.float32), sources)
        assert found == pytest.approx(share, abs=0.03)
    assert np.isnan(unfiltered(np.where(sources > 0.9, np.nan, sources), sources))
    assert np.isnan(unfiltered(sources, sources)) and np.isnan(
        unfiltered(sources[:, :8], blurred[:, :8])
    )


def test_what_is_kept_is_a_share_of_the_values_that_tell_images_apart():
    rng = np.random.default_rng(0)
    images = rng.random((20, 6, 5, 2)).astype(np.float32)
    shares = np.linspace(0.3, 0.9, 20)
    changed = rng.random(images.shape) > shares[:, None, None, None]
    inputs = np.where(changed, rng.random(images.shape), images).astype(np.float32)
    per_channel = (inputs == images)[:, :-1, :-1]
    rough = np.abs(images[:, :-1, :-1] - images[:, 1:, :-1]) > 0.02 * np.ptp(images)
    rough &= np.abs(images[:, :-1, :-1] - images[:, :-1, 1:]) > 0.02 * np.ptp(images)
    shares = [
        [own[:, :, c][at[:, :, c]].mean() for own, at in zip(per_channel, rough, strict=True)]
        for c in (0, 1)
    ]
    slow = min(np.quantile(own, 0.1) for own in shares)
    assert batches(inputs, images).kept == pytest.approx(slow)
    assert batches(images[..., ::-1], images).kept == 0  # channels in another order
    common = (images > 0.5).astype(np.float32)
    assert np.isnan(batches(common[:, ::-1], common).kept)


def test_a_background_that_all_images_share_does_not_make_them_pairs():
    rng = np.random.default_rng(0)
    images = np.tile(np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(1, 32, 32, 1), (128, 1, 1, 1))
    for image in images:
        top, left = rng.integers(0, 18, 2)
        image[top : top + 14, left : left + 14] = rng.random((14, 14, 1))
    shuffled = batches(np.roll(images, 9, axis=0), images)
    assert shuffled.kept < 0.1 and finding_of(shuffled) is not None


def test_images_of_flat_areas_that_were_moved_are_other_images():
    """Most of a flat area is equal after a small shift, whatever its grey."""
    rng = np.random.default_rng(0)
    images = np.zeros((128, 32, 32, 1), np.float32) + rng.uniform(0, 1, (128, 1, 1, 1)).astype(
        np.float32
    )
    grid = np.hypot(*np.mgrid[-16:16, -16:16])
    for image in images:
        image[ndimage.shift(grid, rng.uniform(-6, 6, 2), mode="nearest") < 7] = rng.uniform(0, 1)
    images = np.asarray(ndimage.gaussian_filter(images, (0, 0.5, 0.5, 0)), np.float32)
    moved = each(lambda i, rng: ndimage.shift(i, (*rng.integers(-3, 4, 2), 0), mode="nearest"))(images)
    assert batches(np.asarray(moved, np.float32), images).kept < 0.1


def test_squares_tell_of_a_smaller_resolution_only_where_the_targets_have_none():
    small = waves(128)[:, ::2, ::2]
    images = small.repeat(2, axis=1).repeat(2, axis=2)
    assert square_side(images) == 2 and square_side(waves(8)) == 1
    assert batches(np.roll(images, 2, axis=2), images).unfiltered > 0.2  # a shift
    assert batches(np.roll(images, 9, axis=0), images).unfiltered > 0.2


def test_too_few_or_too_large_squares_tell_nothing():
    few = waves(16)
    side = few.shape[1] // 4
    coarse_ones = few[:, ::side, ::side].repeat(side, axis=1).repeat(side, axis=2)
    assert np.isnan(unfiltered(np.roll(coarse_ones, 1, axis=0), few))
    large = np.random.default_rng(0).random((4, 240, 320, 1)).astype(np.float32)
    assert np.isnan(unfiltered(np.zeros_like(large), large))


def slow_ranks(inputs, targets):
    """Share of the other targets that fit an input better than its own, pair by pair."""

    def correlation(a, b):
        return np.corrcoef((a - a.mean((0, 1))).ravel(), (b - b.mean((0, 1))).ravel())[0, 1]

    ranks = []
    for i, x in enumerate(inputs):
        better = [
            correlation(x, t) > correlation(x, targets[i])
            and np.square(x - t).sum() < np.square(x - targets[i]).sum()
            for j, t in enumerate(targets)
            if j != i
        ]
        ranks.append(np.mean(better))
    return np.array(ranks)


def test_the_shares_agree_with_slow_computations():
    images = np.random.default_rng(0).random((40, 5, 6, 2)).astype(np.float32)
    rng = np.random.default_rng(1)
    inputs = np.asarray(images + rng.normal(0, 0.5, images.shape), np.float32)
    inputs[:10] = inputs[rng.permutation(10)]
    ranks, found = slow_ranks(inputs, images), batches(inputs, images)
    assert found.compared == 40
    assert found.foreign == pytest.approx(np.mean(ranks > FAR)) and found.foreign > 0
    assert found.unclear == pytest.approx(np.mean((ranks > 0) & (ranks <= FAR))) and found.unclear > 0


def test_shuffled_pairs_are_all_foreign_and_equal_ones_are_not_compared():
    images = waves(COUNT)
    assert batches(images, np.roll(images, 9, axis=0)).foreign > 0.5
    same = batches(images, images.copy())
    assert (same.compared, same.foreign, same.unclear) == (COUNT, 0, 0)


def test_few_pairs_tell_nothing():
    images = waves(20)
    found = batches(images, 1 - images)
    assert found.compared == 20 and np.isnan(found.foreign)


def test_what_a_mask_hides_is_told_from_a_background():
    images = np.where(waves(60) > 0.6, waves(60), 0).astype(np.float32)  # on black
    assert shown(images, images).mean() > 0.9
    for value in (0.0, -1.0):
        masked = holes(images, value)
        hidden = ~shown(masked, images)
        assert hidden[masked == value].mean() == 1 and hidden[masked != value].mean() == 0


@pytest.mark.parametrize("task", TASKS)
def test_right_pairs_are_no_finding_and_wrong_ones_among_them_are(task, shared):
    images = real(shared, "mnist", COUNT)
    right = fed(images, task)
    assert right.foreign < 0.01
    wrong = fed(images, task, 0.2)
    assert 0.08 < wrong.foreign <= 0.2
    assert f"{wrong.foreign:.1%} of {wrong.compared} pairs" in finding_of(wrong).message


@pytest.mark.parametrize("name", ["fashion_mnist", "omniglot", "grey_28_2", "colour_32_4"])
@pytest.mark.parametrize("task", ["reconstruction", "noise", "white holes in 0..255"])
def test_the_same_holds_for_other_images(name, task, shared):
    images = real(shared, name, COUNT)[::2]
    right = fed(images, task)
    assert right.foreign < 0.01 and right.foreign <= right.unclear
    assert fed(images, task, 0.2).foreign > 0.08


@pytest.mark.parametrize("task", [t for t in TASKS if "hole" in t or "noise" in t])
def test_masks_and_noise_are_no_finding_in_any_range(task, shared):
    images = real(shared, "fashion_mnist", 128)
    assert finding_of(fed(images, task)) is None


def test_pairs_that_were_given_as_such_may_be_wrong_in_part(shared):
    wrong = fed(real(shared, "mnist", COUNT), "noise", 0.1)
    noisy = changed("batches", pair=0.3, foreign=wrong.foreign, unclear=wrong.unclear, compared=COUNT)
    noisy = diagnose(type(noisy)(**{**vars(noisy), "paired": True}), CONFIG)
    assert [f.code for f in noisy.findings] == ["CAE103"]


def test_a_few_pairs_are_no_finding_by_chance_and_unlike_ones_are_not_judged():
    def judged(**values):
        found = diagnose(changed("batches", compared=256, pair=0.5, erased=1.0, **values), CONFIG)
        fired, skipped = ([r.code for r in part] for part in (found.findings, found.skipped))
        return "CAE103" in fired, "CAE103" in skipped

    assert judged(foreign=3 / 256, unclear=0.0) == (False, False)
    assert judged(foreign=5 / 256, unclear=0.0) == (True, False)
    assert judged(foreign=10 / 256, unclear=11 / 256) == (False, False)
    assert judged(foreign=0.6, unclear=0.3) == (False, True)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["fashion_mnist", "omniglot", "grey_16_1", "grey_64_1", "colour_32_4"])
@pytest.mark.parametrize("task", TASKS)
def test_no_task_has_certain_wrong_pairs(name, task, shared):
    right = fed(real(shared, name, COUNT), task)
    assert right.foreign < max(0.01, right.unclear)
