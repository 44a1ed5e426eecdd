"""Augmentation against slow transforms, and that input and target stay together."""

import numpy as np
import pytest

from cae_cli.data.augmentation import Augmentation

tf = pytest.importorskip("tensorflow")

pytestmark = pytest.mark.tf

NONE = {"rotation": 0.0, "shift": 0.0, "zoom": 0.0, "flip": False, "target": "same"}


def augmented(images, seed=(1, 2), **ranges):
    return Augmentation(**{**NONE, **ranges})(tf.constant(images), tf.constant(seed)).numpy()


def ramp(n=64, h=21, w=33):
    """(n, h, w, 2): channel 0 holds the row, channel 1 the column of each pixel."""
    y, x = np.mgrid[:h, :w].astype(np.float32)
    return np.broadcast_to(np.stack([y, x], axis=-1), (n, h, w, 2)).copy()


def inner(images):
    """Pixels far enough from the border that nothing from beyond it is seen."""
    return images[:, 8:-8, 12:-12]


def test_without_options_nothing_changes():
    images = ramp()
    assert augmented(images) == pytest.approx(images, abs=1e-4)
    assert not Augmentation(**NONE).active


def test_equal_seeds_give_equal_transforms_and_others_do_not():
    images = ramp()
    first = augmented(images, (1, 2), rotation=10.0, shift=0.1, zoom=0.1, flip=True)
    assert np.array_equal(
        first, augmented(images, (1, 2), rotation=10.0, shift=0.1, zoom=0.1, flip=True)
    )
    assert not np.array_equal(
        first, augmented(images, (1, 3), rotation=10.0, shift=0.1, zoom=0.1, flip=True)
    )
    assert len({image.tobytes() for image in first}) == len(images)


def test_a_shift_moves_by_at_most_its_share_of_the_side():
    moved = inner(augmented(ramp(2000), shift=0.1)) - inner(ramp(2000))
    offsets = moved.mean(axis=(1, 2))  # (n, 2)
    assert np.abs(moved - offsets[:, None, None]).max() < 1e-3  # the same for every pixel
    for axis, side in enumerate((21, 33)):
        assert 0.95 * 0.1 * side < np.abs(offsets[:, axis]).max() <= 0.1 * side + 1e-3
        assert abs(offsets[:, axis].mean()) < 0.05 * 0.1 * side * 2


def test_a_rotation_turns_about_the_centre_and_by_at_most_its_angle():
    turned = augmented(ramp(500), rotation=20.0)
    assert turned[:, 10, 16] == pytest.approx(np.tile([10, 16], (500, 1)), abs=1e-3)
    # Where one pixel right of the centre comes from is the angle.
    step = turned[:, 10, 17] - turned[:, 10, 16]
    angles = np.degrees(np.arctan2(step[:, 0], step[:, 1]))
    assert 19 < np.abs(angles).max() <= 20.01
    assert np.hypot(*step.T) == pytest.approx(np.ones(500), abs=1e-3)


def test_a_zoom_scales_each_axis_by_at_most_its_share():
    zoomed = augmented(ramp(500), zoom=0.2)
    for axis, (a, b) in enumerate((((11, 16), (10, 16)), ((10, 17), (10, 16)))):
        scale = zoomed[:, a[0], a[1], axis] - zoomed[:, b[0], b[1], axis]
        assert 0.8 - 1e-3 <= scale.min() < 0.82 and 1.18 < scale.max() <= 1.2 + 1e-3


def test_a_flip_mirrors_half_of_the_images():
    images = ramp(1000)
    flipped = augmented(images, flip=True)
    mirrored = np.isclose(flipped[:, 10, 0, 1], 32, atol=1e-3)
    assert 0.4 < mirrored.mean() < 0.6
    assert flipped[mirrored] == pytest.approx(images[mirrored][:, :, ::-1], abs=1e-3)
    assert flipped[~mirrored] == pytest.approx(images[~mirrored], abs=1e-3)


def test_from_beyond_the_border_comes_the_border():
    moved = augmented(ramp(200), shift=0.5)
    assert moved.min() >= 0 and moved[..., 0].max() <= 20 and moved[..., 1].max() <= 32


def test_values_stay_in_their_range():
    images = np.random.default_rng(0).random((50, 16, 16, 3), dtype=np.float32)
    result = augmented(images, rotation=180.0, shift=0.3, zoom=0.5, flip=True)
    assert result.min() >= images.min() - 1e-5 and result.max() <= images.max() + 1e-5


@pytest.mark.parametrize("target", ["same", "original"])
def test_the_target_is_transformed_with_the_input_unless_configured_otherwise(target):
    # A network that copies its input has no error if the target is the same, and has one if not.
    from cae_cli.config.compose import checked
    from cae_cli.data import Images
    from cae_cli.training import backend
    from cae_cli.training.recorder import Recorder
    from cae_cli.training.step import CompiledSteps

    keras = pytest.importorskip("keras")
    config = checked(["augmentation=light", f"augmentation.target={target}", "optimizer=sgd"])[1]
    backend.seed(0)
    inputs = keras.Input((16, 16, 1))
    copy = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones")(inputs)
    images = np.random.default_rng(0).random((32, 16, 16, 1), dtype=np.float32)

    class Network:
        model = keras.Model(inputs, copy)
        bytes_per_image = 2048

    recorder = Recorder(Network.model, dict)
    steps = CompiledSteps(Network, Images(train=images, validation=images), config, recorder, parts=1)
    result = steps.epoch(np.arange(32, dtype=np.int32), [0.0], 0, lambda step, loss: None)
    assert (result.data_loss < 1e-10) == (target == "same")
    # What the step was fed is written down as it was.
    pair = float(recorder.record()["batches/pair"])
    assert (pair == 0) == (target == "same") and pair < 1
