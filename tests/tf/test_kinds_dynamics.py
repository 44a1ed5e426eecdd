"""What goes wrong in the steps of somebody's own training: penalties, rates, saturation, dropout."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.regularizers import L1, L2

from cae_cli.introspection.training_mode import Penalties, unchanged
from cae_cli.metrics.latent import informative
from tests.tf.scripts import (
    archived,
    dense,
    diagnosed,
    first_cause,
    patches,
    pooled,
    strided,
    variational,
)

pytestmark = pytest.mark.tf

SHAPE = (28, 28, 1)


@pytest.fixture(autouse=True)
def same_weights():
    keras.utils.set_random_seed(0)


def some(name="fashion_mnist", count=288):
    return archived(name, count)[0]


def ruled_out(outcome):
    return {code for finding in outcome.diagnosis.findings for code in finding.ruled_out}


def reasons(outcome):
    return {skipped.code: skipped.reason for skipped in outcome.diagnosis.skipped}


# -- penalties -----------------------------------------------------------------------------------------


def penalised(make, strength, *, names=("code",), kind=L1, shape=SHAPE):
    """A network with a penalty on what these layers make."""
    model = make(shape)
    for name in names:
        model.get_layer(name).activity_regularizer = kind(strength)
    return model


def kernels_of(model):
    return [v for v in model.trainable_variables if len(v.shape) > 1]


def test_whatever_adds_to_the_loss_is_a_penalty():
    images = some(count=16)
    model = variational(SHAPE, weight=0.3)
    model.layers[1].kernel.regularizer = L2(0.01)
    model.get_layer("z_mean").activity_regularizer = L1(0.02)
    model.compile("adam", "mse")
    kernels = kernels_of(model)
    measured = Penalties(model, kernels)
    penalty, pulls = measured(images, images)
    with unchanged(model), tf.GradientTape(persistent=True) as tape:
        data = tf.reduce_mean(tf.square(model(images, training=True) - images))
        added = tf.add_n(model.losses)
    assert penalty == pytest.approx(float(added), rel=1e-4)
    for kernel, pull in zip(kernels, pulls, strict=True):
        both = [tape.gradient(x, kernel.value) for x in (added, data)]
        slow = 0.0 if both[0] is None else float(tf.norm(both[0]) / tf.norm(both[1]))
        assert pull == pytest.approx(slow, rel=1e-2)
    assert measured(images, images)[0] == penalty  # the same draw again


def test_a_model_without_penalties_has_none_and_one_with_a_step_of_its_own_may_have_any():
    class Stepping(keras.Model):
        def train_step(self, data):
            return {}

    images, plain = some(count=4), strided(SHAPE)
    plain.compile("adam", "mse")
    assert Penalties(plain, plain.trainable_variables[:1])(images, images) == (0.0, [0.0])
    own = Stepping(plain.inputs, plain.outputs)
    own.compile("adam", "mse")
    penalty, pulls = Penalties(own, own.trainable_variables[:1])(images, images)
    assert np.isnan(penalty) and np.isnan(pulls).all()


def test_a_random_training_is_left_as_it_is():
    images = some(count=64)

    def model():
        keras.utils.set_random_seed(0)
        made = variational(SHAPE, weight=0.01)
        x = layers.Dropout(0.2)(layers.BatchNormalization()(made.get_layer("z").output))
        return keras.Model(made.inputs, keras.Sequential(made.layers[-4:])(x))

    watched, alone = model(), model()
    alone.compile("adam", "mse")
    keras.utils.set_random_seed(1)
    alone.fit(images, images, validation_split=0.1, verbose=0)
    keras.utils.set_random_seed(1)
    diagnosed(watched, images)
    for ours, theirs in zip(watched.variables, alone.variables, strict=True):
        assert np.array_equal(ours, theirs), ours.path


def test_values_that_tell_images_apart_repeat():
    rng = np.random.default_rng(0)
    means, noise = rng.standard_normal((200, 8)), rng.standard_normal((2, 200, 8))
    assert informative(*noise) == 0
    assert informative(*(means + 0.3 * noise)) == 1
    assert informative(*(means * (np.arange(8) < 2) + 0.3 * noise)) == 0.25
    assert np.isnan(informative(means, means))


def test_a_penalty_on_activations_is_named():
    outcome = diagnosed(penalised(strided, 3e-3), some(), epochs=8, batch_size=16)
    assert first_cause(outcome) == "CAE206"
    fix = outcome.diagnosis.causes[0].fixes
    assert [one.edit for one in fix] == ["no penalties", "weaker penalties"]


@pytest.mark.soak
def test_a_posterior_that_is_the_prior_is_named():
    outcome = diagnosed(variational(SHAPE, weight=1.0), some(), epochs=8, batch_size=16)
    assert first_cause(outcome) == "CAE505"
    assert "0.0013  # one over the 784 values" in outcome.diagnosis.causes[0].fixes[0].keras


class Stepping(keras.Model):
    """A training step of its own, as in tutorials on variational autoencoders."""

    def train_step(self, data):
        images = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            error = keras.ops.mean(keras.ops.square(self(images, training=True) - images))
            loss = error + sum(self.losses)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


@pytest.mark.soak
def test_a_penalty_in_a_training_step_of_its_own_is_not_ruled_out():
    made = penalised(strided, 0.1)
    outcome = diagnosed(Stepping(made.inputs, made.outputs), some(), epochs=8, batch_size=16)
    assert "code of its own" in reasons(outcome)["CAE206"] and "CAE206" not in ruled_out(outcome)


LONG = {"epochs": 10, "batch_size": 32}


# -- rates ---------------------------------------------------------------------------------------------


def momentum(rate, **words):
    return keras.optimizers.SGD(rate, momentum=0.9, **words)


@pytest.mark.soak
def test_a_rate_that_kills_filters_after_the_first_steps_is_named():
    outcome = diagnosed(
        strided(SHAPE), patches(28, 288), optimizer=momentum(5.0), epochs=8, batch_size=16
    )
    assert outcome.metrics.dynamics.early_peak < -0.7  # no early step was large for the weights
    assert first_cause(outcome) == "CAE207"
    assert outcome.diagnosis.causes[0].fixes[0].keras == "learning_rate=0.1"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("model", "data", "optimizer", "loss"),
    [
        (pooled, lambda: patches(colour=True), lambda: momentum(3.0, nesterov=True), "mse"),
        (strided, lambda: some("mnist", 1024), lambda: momentum(1.5), "bce"),
        (dense, lambda: some("fashion_mnist", 1024), lambda: keras.optimizers.Adam(0.05), "mae"),
        (pooled, lambda: some("omniglot", 1024), lambda: momentum(0.7), "bce"),
    ],
)
def test_other_rates_that_kill_filters_are_named(model, data, optimizer, loss):
    images = data()
    outcome = diagnosed(model(images.shape[1:]), images, optimizer=optimizer(), loss=loss, **LONG)
    assert first_cause(outcome) == "CAE207"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("model", "data", "optimizer"),
    [
        (strided, lambda: patches(colour=True), lambda: momentum(0.5)),
        (pooled, lambda: some("fashion_mnist", 1024), lambda: keras.optimizers.Adam(0.01)),
        (dense, lambda: some("fashion_mnist", 1024), lambda: momentum(0.5)),
    ],
)
def test_high_rates_that_kill_nothing_are_not(model, data, optimizer):
    images = data()
    outcome = diagnosed(model(images.shape[1:]), images, optimizer=optimizer(), **LONG)
    assert first_cause(outcome) != "CAE207"


@pytest.mark.soak
def test_a_rate_whose_first_steps_are_tiny_is_not_too_low():
    images = patches(32, 640, colour=True)
    outcome = diagnosed(pooled(images.shape[1:]), images, optimizer=momentum(0.1), epochs=12)
    assert "CAE208" in outcome.diagnosis.passed and outcome.metrics.quality.explained_variance > 0.8


@pytest.mark.soak
@pytest.mark.parametrize(
    ("model", "data"),
    [
        (lambda: penalised(pooled, 0.01), lambda: some("omniglot", 2048)),
        (lambda: penalised(dense, 0.03), lambda: some("fashion_mnist", 2048)),
        (lambda: penalised(strided, 0.02, kind=L2, shape=(32, 32, 3)), lambda: patches(colour=True)),
    ],
)
def test_other_penalties_on_activations_are_named(model, data):
    assert first_cause(diagnosed(model(), data(), **LONG)) == "CAE206"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("weight", "code", "data"),
    [
        (0.1, 32, lambda: some("fashion_mnist", 2048)),
        (1.0, 4, lambda: patches(28)),
        (0.5, 16, lambda: some("omniglot", 2048)),
    ],
)
def test_other_posteriors_that_are_the_prior_are_named(weight, code, data):
    outcome = diagnosed(variational(SHAPE, weight=weight, code=code), data(), **LONG)
    assert first_cause(outcome) == "CAE505"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("model", "data"),
    [
        (lambda: penalised(strided, 1e-5), lambda: some("mnist", 2048)),
        (lambda: penalised(dense, 1e-4), lambda: some("fashion_mnist", 2048)),
        (lambda: variational(SHAPE, weight=1e-4, code=16), lambda: some("mnist", 2048)),
        (lambda: variational(SHAPE, weight=1e-4, code=16), lambda: some("fashion_mnist", 2048)),
    ],
)
def test_a_weak_penalty_is_none(model, data):
    assert first_cause(diagnosed(model(), data(), epochs=20)) not in ("CAE206", "CAE505")


# -- hidden layers that saturate, and weights of half precision ----------------------------------------


def large(make, shape, spread):
    """A network of tanh whose initial weights have this standard deviation."""
    model = make(shape, activation="tanh")
    for kernel in kernels_of(model)[:-1]:
        kernel.assign(keras.random.normal(kernel.shape, stddev=spread, seed=1))
    return model


def of_type(policy, make, shape=SHAPE):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return make(shape)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.soak
def test_hidden_sigmoids_that_pass_no_gradient_are_named():
    outcome = diagnosed(strided(SHAPE, activation="sigmoid"), some("mnist"), epochs=8, batch_size=16)
    assert first_cause(outcome) == "CAE212"
    assert outcome.diagnosis.causes[0].fixes[0].edit == "ELU"


@pytest.mark.soak
def test_weights_of_half_precision_are_named():
    outcome = diagnosed(of_type("float16", strided), some("mnist"), epochs=8, batch_size=16)
    assert first_cause(outcome) == "CAE213"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("model", "data", "loss"),
    [
        (lambda: pooled(SHAPE, activation="sigmoid"), lambda: some("fashion_mnist", 512), "mse"),
        (lambda: strided((32, 32, 3), activation="sigmoid"), lambda: patches(colour=True), "mae"),
        (lambda: large(strided, SHAPE, 2.0), lambda: some("omniglot", 512), "mse"),
        (lambda: strided(SHAPE, activation="sigmoid", code=4), lambda: some("omniglot", 512), "bce"),
    ],
)
def test_other_hidden_layers_that_saturate_are_named(model, data, loss):
    assert first_cause(diagnosed(model(), data(), loss=loss, **LONG)) == "CAE212"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("policy", "make", "data", "optimizer"),
    [
        ("float16", dense, lambda: some("fashion_mnist", 512), "adam"),
        ("float16", pooled, lambda: patches(28, 512), "rmsprop"),
        ("bfloat16", strided, lambda: some("omniglot", 512), "adam"),
    ],
)
def test_other_weights_of_half_precision_are_named(policy, make, data, optimizer):
    outcome = diagnosed(of_type(policy, make), data(), optimizer=optimizer, **LONG)
    assert first_cause(outcome) == "CAE213"


@pytest.mark.soak
@pytest.mark.parametrize(
    "model",
    [
        lambda: strided(SHAPE, activation="tanh"),
        lambda: dense(SHAPE, activation="tanh"),
        lambda: of_type("mixed_float16", strided),
    ],
)
def test_activations_and_policies_that_work_are_not(model):
    outcome = diagnosed(model(), some("mnist", 1024), optimizer=keras.optimizers.Adam(0.003), **LONG)
    assert first_cause(outcome) not in ("CAE212", "CAE213", "CAE205")


# -- the loss before training --------------------------------------------------------------------------


def test_the_loss_before_training_is_that_of_the_held_out_images():
    images = some(count=96)
    model = penalised(strided, 1.0)
    model.layers[0].kernel.regularizer = L2(0.1)
    initial = model.get_weights()
    outcome = diagnosed(model, images[:64], epochs=2, held_out=images[64:])
    dynamics = outcome.metrics.dynamics
    for weights, loss in (
        (model.get_weights(), dynamics.last_val_loss),
        (initial, dynamics.first_val_loss),
    ):
        model.set_weights(weights)
        plain = np.mean(np.square(model.predict(images[64:], verbose=0) - images[64:]))
        assert loss == pytest.approx(plain, rel=1e-4)


def test_the_loss_of_a_step_of_its_own_is_not_known():
    made = strided(SHAPE)
    outcome = diagnosed(Stepping(made.inputs, made.outputs), some(count=96), epochs=2)
    assert np.isnan(outcome.metrics.dynamics.first_val_loss)


# -- dropout -------------------------------------------------------------------------------------------


def dropping(make, rate, *, shape=SHAPE, kind=layers.Dropout, behind=False, **words):
    """A network with dropout after each hidden layer with weights, and after the last if ``behind``."""
    made = keras.Sequential([keras.Input(shape)])
    *hidden, last = make(shape, **words).layers
    for layer in hidden:
        made.add(layer)
        if layer.weights:
            made.add(kind(rate))
    made.add(last)
    if behind:
        made.add(kind(rate))
    return made


@pytest.mark.soak
def test_dropout_after_every_layer_and_the_last_is_named():
    outcome = diagnosed(dropping(strided, 0.5, behind=True), some(), epochs=8, batch_size=16)
    assert first_cause(outcome) == "CAE214"
    assert outcome.diagnosis.causes[0].fixes[0].edit == "no dropout"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("model", "data"),
    [
        (lambda: dropping(dense, 0.5), lambda: some("mnist", 512)),
        (lambda: dropping(pooled, 0.5, kind=layers.SpatialDropout2D), lambda: some(count=512)),
        (lambda: dropping(strided, 0.3, behind=True, output="linear"), lambda: some("omniglot", 512)),
        (lambda: dropping(strided, 0.7), lambda: patches(28, 512)),
    ],
)
def test_other_dropout_that_is_too_strong_is_named(model, data):
    assert first_cause(diagnosed(model(), data(), **LONG)) == "CAE214"


@pytest.mark.soak
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_weak_dropout_is_none(rate):
    outcome = diagnosed(dropping(strided, rate), some(count=1024), **LONG)
    assert first_cause(outcome) != "CAE214"
