"""Verdicts on plain Keras trainings that were wrong or misleading: each kind next to its opposite.

The soak tests hold variants with other images, networks and doses, which no rule was written with.
"""

from __future__ import annotations

import keras
import pytest
from keras import layers

from tests.tf.scripts import archived, diagnosed, first_cause, patches


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1)


def one_stage(shape, code, *, around=0.0, output=None):
    """One stride, a code of h/2 x w/2 x ``code``, and a share of the image led around it."""
    image = keras.Input(shape)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Conv2D(code, 3, padding="same", activation="relu", name="code")(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(shape[-1], 3, padding="same", activation=output)(x)
    return keras.Model(image, layers.Add()([x, layers.Rescaling(around)(image)]) if around else x)


def codes(outcome):
    return [finding.code for finding in outcome.diagnosis.findings]


# -- copying, compared with what a bottleneck of the same size passes


def test_a_code_as_large_as_the_image_is_noted_and_not_called_copying():
    images, _ = archived("mnist", 1024)
    outcome = diagnosed(
        one_stage((28, 28, 1), 4), images, optimizer=keras.optimizers.Adam(0.005), epochs=5
    )
    assert outcome.metrics.perturbation.pixel_copy > 0.25
    assert first_cause(outcome) is None and "CAE005" in codes(outcome)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "code"), [("fashion_mnist", 2), ("mnist", 3), ("omniglot", 2), ("omniglot", 6)]
)
def test_no_network_within_its_bottleneck_copies(name, code):
    images, _ = archived(name, 2048)
    outcome = diagnosed(one_stage((28, 28, 1), code), images, epochs=15)
    assert not {"CAE503", "CAE604"} & set(codes(outcome))


@pytest.mark.soak
@pytest.mark.parametrize("around", [0.6, 0.8])
def test_a_way_around_the_code_copies(around):
    outcome = diagnosed(one_stage((28, 28, 1), 2, around=around), patches(28), epochs=8)
    assert "CAE503" in codes(outcome)


@pytest.mark.soak
def test_no_bottleneck_at_all_copies():
    outcome = diagnosed(one_stage((28, 28, 3), 64), patches(28, colour=True), epochs=8)
    assert first_cause(outcome) == "CAE503"
