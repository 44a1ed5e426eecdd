"""Verdicts on plain Keras trainings that were wrong or misleading: each kind next to its opposite.

The soak tests hold variants with other images, networks and doses, which no rule was written with.
"""

from __future__ import annotations

import keras
import pytest
from keras import layers

from cae_cli import Diagnosis
from tests.tf.scripts import archived, dense, diagnosed, first_cause, patches, pooled, strided


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


def adam(rate):
    """Adam of a learning rate, or an optimizer by its name. Made in a test: it starts TensorFlow."""
    return rate if isinstance(rate, str) else keras.optimizers.Adam(rate)


def codes(outcome):
    return [finding.code for finding in outcome.diagnosis.findings]


# -- copying, compared with what a bottleneck of the same size passes
@pytest.mark.soak
def test_a_code_as_large_as_the_image_is_noted_and_not_called_copying():
    images, _ = archived("mnist", 1024)
    outcome = diagnosed(
        one_stage((28, 28, 1), 4), images, optimizer=keras.optimizers.Adam(0.005), epochs=5
    )
    assert outcome.metrics.perturbation.pixel_copy > 0.25
    assert first_cause(outcome) is None and "CAE005" in codes(outcome)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "code"), [("fashion_mnist", 2), ("mnist", 3), ("omniglot", 2), ("omniglot", 3)]
)
def test_no_network_within_its_bottleneck_copies(name, code):
    images, _ = archived(name, 2048)
    outcome = diagnosed(one_stage((28, 28, 1), code), images, epochs=15)
    assert not {"CAE503", "CAE604"} & set(codes(outcome))


@pytest.mark.soak
def test_a_code_larger_than_the_image_that_reproduces_what_it_never_saw_copies():
    images, _ = archived("omniglot", 2048)
    outcome = diagnosed(one_stage((28, 28, 1), 6), images, epochs=15)
    assert {"CAE503", "CAE005"} <= set(codes(outcome))


@pytest.mark.soak
@pytest.mark.parametrize("around", [0.6, 0.8])
def test_a_way_around_the_code_copies(around):
    outcome = diagnosed(one_stage((28, 28, 1), 2, around=around), patches(28), epochs=8)
    assert "CAE503" in codes(outcome)


@pytest.mark.soak
def test_no_bottleneck_at_all_copies():
    outcome = diagnosed(one_stage((28, 28, 3), 64), patches(28, colour=True), epochs=8)
    assert first_cause(outcome) == "CAE503"


# -- too few steps, and collapse

SHAPE = (28, 28, 1)


def more_steps_first(outcome):
    return outcome.diagnosis.causes[0].fixes[0].edit == "more steps"


@pytest.mark.soak
def test_a_code_that_tells_no_images_apart_yet_has_not_collapsed():
    images, _ = archived("mnist", 1024)
    outcome = diagnosed(dense(SHAPE, code=16), images, epochs=6)
    assert outcome.metrics.quality.output_variance_share < 0.05
    assert first_cause(outcome) == "CAE211" and more_steps_first(outcome)
    assert "CAE301" not in codes(outcome)


@pytest.mark.soak
def test_an_output_that_went_black_has_collapsed():
    images, _ = archived("mnist", 1024)
    assert first_cause(diagnosed(pooled(SHAPE), images, epochs=6)) == "CAE301"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "code", "optimizer", "loss", "epochs"),
    [
        ("omniglot", 8, "adam", "mse", 5),
        ("omniglot", 16, "adam", "binary_crossentropy", 5),
        ("mnist", 16, 3e-4, "mse", 14),
        ("mnist", 16, 1e-4, "mse", 5),
        ("mnist", 16, "rmsprop", "mse", 3),
    ],
)
def test_other_codes_that_tell_no_images_apart_yet(name, code, optimizer, loss, epochs):
    images, _ = archived(name, 2048)
    model = dense(SHAPE, code=code)
    outcome = diagnosed(model, images, optimizer=adam(optimizer), loss=loss, epochs=epochs)
    assert outcome.metrics.quality.output_variance_share < 0.05
    assert first_cause(outcome) == "CAE211" and more_steps_first(outcome)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("network", "name", "optimizer"),
    [
        (strided, "omniglot", "adam"),
        (dense, "mnist", 0.02),
        (pooled, "omniglot", "adam"),
    ],
)
def test_other_collapses_are_not_called_too_short(network, name, optimizer):
    images, _ = archived(name, 2048)
    outcome = diagnosed(network(SHAPE), images, optimizer=adam(optimizer), epochs=5)
    assert first_cause(outcome) in ("CAE301", "CAE207")


@pytest.mark.soak
def test_with_more_steps_the_code_tells_images_apart():
    images, _ = archived("mnist", 2048)
    outcome = diagnosed(dense(SHAPE, code=16), images, epochs=15)
    assert outcome.metrics.quality.explained_variance > 0.5


def test_too_few_steps_are_said_before_training_and_after_it(capsys, tmp_path):
    images, _ = archived("fashion_mnist", 288)
    model = strided(SHAPE)
    model.compile("adam", "mse")
    watch = Diagnosis(images, folder=tmp_path)
    model.fit(images, images, batch_size=32, epochs=3, verbose=0, callbacks=[watch])
    said = capsys.readouterr().err
    assert said.startswith("! 27 steps are planned; 128 are needed") and "epochs=86" in said
    first = watch.outcome.diagnosis.findings[0]
    assert watch.report["diagnosis"]["verdict"].startswith("training ended too early; ")
    assert first.code == "CAE211" and "27 steps are too few" in first.message
    assert first.fixes[0].keras == "epochs *= 29  # 783 steps"


@pytest.mark.soak
def test_enough_steps_are_not_remarked(capsys, tmp_path):
    images, _ = archived("fashion_mnist", 288)
    model = strided(SHAPE)
    model.compile("adam", "mse")
    watch = Diagnosis(images, folder=tmp_path)
    model.fit(images, images, batch_size=16, epochs=8, verbose=0, callbacks=[watch])
    assert "are planned" not in capsys.readouterr().err
    assert "cannot tell" not in watch.report["diagnosis"]["verdict"]


@pytest.mark.soak
def test_photographs_that_are_explained_have_not_ended_too_early():
    outcome = diagnosed(strided((32, 32, 1)), patches(32), epochs=6)
    assert outcome.metrics.dynamics.slope > 0.032  # what counts elsewhere
    assert first_cause(outcome) is None


# -- what is ruled out


def contradictions(outcome):
    """Fixes of causes that the same finding calls ruled out."""
    return [
        (finding.code, fix.edit)
        for finding in outcome.diagnosis.findings
        for fix in finding.fixes
        if fix.mends in finding.ruled_out
    ]


@pytest.mark.soak
def test_a_rate_that_is_larger_than_usual_is_not_ruled_out():
    images, _ = archived("mnist", 1024)
    outcome = diagnosed(pooled(SHAPE), images, optimizer=keras.optimizers.Adam(0.02), epochs=5)
    finding = outcome.diagnosis.causes[0]
    assert finding.code == "CAE207" or "CAE207" in finding.unseen
    assert not contradictions(outcome)


@pytest.mark.soak
@pytest.mark.parametrize("rate", [0.015, 0.03])
@pytest.mark.parametrize(("network", "name"), [(dense, "mnist"), (strided, "omniglot")])
def test_other_large_rates_are_not_ruled_out(network, name, rate):
    images, _ = archived(name, 1024)
    optimizer = keras.optimizers.Adam(rate)
    outcome = diagnosed(network(SHAPE), images, optimizer=optimizer, epochs=6)
    if outcome.metrics.quality.explained_variance < 0.1:
        finding = outcome.diagnosis.causes[0]
        assert finding.code == "CAE207" or "CAE207" not in finding.ruled_out
    assert not contradictions(outcome)


# -- flat images
@pytest.mark.soak
def test_a_network_that_knows_only_the_brightness_has_learned_nothing():
    outcome = diagnosed(dense((16, 16, 1), code=2), patches(16), epochs=6)
    metrics = outcome.metrics
    assert metrics.quality.explained_variance > 0.7 and metrics.score.learned < 0.1
    assert "CAE302" in codes(outcome) and "not meaningful" in outcome.diagnosis.verdict


@pytest.mark.soak
@pytest.mark.parametrize(("side", "code", "colour"), [(32, 1, False), (28, 1, True), (16, 1, True)])
def test_other_networks_that_know_only_the_brightness(side, code, colour):
    images = patches(side, colour=colour)
    outcome = diagnosed(dense(images.shape[1:], code=code), images, epochs=6)
    assert outcome.metrics.score.learned < 0.1 and "CAE302" in codes(outcome)


@pytest.mark.soak
@pytest.mark.parametrize(("side", "colour"), [(28, False), (32, True)])
def test_photographs_that_were_learned_are_meaningful(side, colour):
    images = patches(side, colour=colour)
    outcome = diagnosed(strided(images.shape[1:]), images, epochs=20)
    assert outcome.metrics.score.learned > 0.25
    assert outcome.metrics.perturbation.grey > 0.5 and first_cause(outcome) is None
