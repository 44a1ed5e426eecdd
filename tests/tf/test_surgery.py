"""Models that are built again from their config, with an edit."""

import keras
import numpy as np
import pytest
from keras import layers as L

from cae_cli.external.edits import with_layers
from cae_cli.external.surgery import CannotRebuild, Edit, layers, rebuilt
from cae_cli.external.training import of_model
from cae_cli.introspection import introspect

pytestmark = pytest.mark.tf

IMAGES = np.random.default_rng(0).random((4, 28, 28, 1), np.float32)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def sequential():
    return keras.Sequential([
        keras.Input((28, 28, 1)), L.Conv2D(8, 3, padding="same", activation="relu"),
        L.MaxPooling2D(), L.Dropout(0.3), L.Conv2DTranspose(8, 3, strides=2, padding="same"),
        L.Conv2D(1, 3, padding="same"),
    ])  # fmt: skip


def not_built():
    return keras.Sequential([L.Conv2D(8, 3, padding="same"), L.Conv2D(1, 3, padding="same")])


def nested():
    encoder = keras.Sequential(
        [keras.Input((28, 28, 1)), L.Conv2D(8, 3, strides=2, padding="same"), L.Dropout(0.3)]
    )
    code = keras.Input((14, 14, 8))
    decoder = keras.Model(code, L.Conv2DTranspose(1, 3, strides=2, padding="same")(code))
    image = keras.Input((28, 28, 1))
    return keras.Model(image, decoder(encoder(image)))


def with_a_skip():
    image = keras.Input((28, 28, 1))
    once = L.Conv2D(8, 3, padding="same")
    x = once(image)
    y = L.Conv2D(8, 3, padding="same")(L.Dropout(0.1)(x))
    return keras.Model(image, L.Conv2D(1, 3, padding="same")(keras.ops.relu(x + y)))


def shared():
    twice = L.Conv2D(1, 3, padding="same")
    image = keras.Input((28, 28, 1))
    return keras.Model(image, twice(twice(image)))


def flat():
    """Of a layer that is called three times, at equal depth too, as one layer for each call."""
    twice = L.Conv2D(1, 3, padding="same")
    image = keras.Input((28, 28, 1))
    x = L.Add()([twice(image), twice(keras.ops.flip(image, 1))])
    return introspect(keras.Model(image, twice(x))).model


def names(model):
    return [type(layer).__name__ for layer in layers(model)]


@pytest.mark.parametrize("make", [sequential, not_built, nested, with_a_skip, shared, flat])
def test_a_copy_has_the_same_layers_and_other_weights(make):
    model = make()
    model(IMAGES)
    copy = rebuilt(model)
    assert copy is not model and copy.count_params() == model.count_params()
    assert names(copy) == names(model) and copy(IMAGES).shape == model(IMAGES).shape
    kernels = [(a, b) for a, b in zip(model.weights, copy.weights, strict=True) if "kernel" in a.path]
    assert kernels and not any(np.array_equal(a, b) for a, b in kernels)
    copy.set_weights(model.get_weights())
    np.testing.assert_allclose(copy(IMAGES), model(IMAGES), atol=1e-6)


@pytest.mark.parametrize("make", [sequential, not_built, nested, with_a_skip])
def test_layers_are_changed_added_and_left_out(make):
    model = make()
    model(IMAGES)
    before = names(model)

    def after(layer, output):
        return L.BatchNormalization()(output) if isinstance(layer, L.Conv2D) else output

    edited = rebuilt(model, Edit(
        config=lambda layer, config: {**config, "use_bias": False} if "use_bias" in config else config,
        after=after,
        left_out=lambda layer: isinstance(layer, L.Dropout),
    ))  # fmt: skip
    expected = []
    for name in before:
        expected += {"Conv2D": [name, "BatchNormalization"], "Dropout": []}.get(name, [name])
    assert sorted(names(edited)) == sorted(expected) and names(model) == before
    assert not any("bias" in weight.path.rpartition("/")[2] for weight in edited.weights)
    edited.compile("adam", "mse")
    edited.fit(IMAGES, IMAGES, verbose=0)


def test_an_edit_of_a_layer_holds_for_all_calls_of_it():
    model = flat()
    (layer,) = (layer for layer in layers(model) if isinstance(layer, L.Conv2D))
    edited = rebuilt(
        model, Edit(config=lambda x, own: {**own, "use_bias": False} if x is layer else own)
    )
    assert [tuple(v.shape) for v in edited.weights] == [(3, 3, 1, 1)]


@keras.saving.register_keras_serializable()
class Own(keras.Model):
    def __init__(self, filters=8, **words):
        super().__init__(**words)
        self.filters = filters
        self.first = L.Conv2D(filters, 3, padding="same")
        self.last = L.Conv2D(1, 3, padding="same")

    def call(self, image):
        return self.last(self.first(image))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


class OwnStep(keras.Sequential):
    """Of Keras' layers, with a training step of its own."""

    def train_step(self, data):
        return {"own": 7.0}


class OwnLoss(keras.Model):
    """The same with a loss of its own, as a functional model."""

    def compute_loss(self, *arguments, **words):
        return 7.0 + 0 * super().compute_loss(*arguments, **words)


def own_step():
    return OwnStep([keras.Input((28, 28, 1)), L.Conv2D(1, 3, padding="same")])


def own_loss():
    image = keras.Input((28, 28, 1))
    return OwnLoss(image, L.Conv2D(1, 3, padding="same")(image))


@pytest.mark.parametrize("make", [own_step, own_loss])
def test_a_model_of_layers_with_a_step_of_its_own_trains_by_it_and_is_not_edited(make):
    model = make()
    model.compile("adam", "mse")
    training = of_model(model, IMAGES)
    assert training.layers == [] and not with_layers(training, lambda *_: {"use_bias": False})
    trained = training.run(1, 0)
    assert type(trained) is type(model) and trained is not model
    history = trained.fit(IMAGES, IMAGES, verbose=0).history
    assert history.get("own", history.get("loss")) == [7.0]


def test_a_model_of_a_class_of_its_own_is_built_again_and_not_edited():
    model = Own(filters=5)
    model(IMAGES)
    copy = rebuilt(model)
    assert isinstance(copy, Own) and copy.filters == 5
    with pytest.raises(CannotRebuild, match="only functional and sequential"):
        rebuilt(model, Edit(left_out=lambda layer: False))


def test_what_does_not_fit_is_an_error():
    model = sequential()
    with pytest.raises(CannotRebuild, match="cannot build this model"):
        rebuilt(model, Edit(config=lambda layer, config: {**config, "filters": -1}))
    with pytest.raises(CannotRebuild, match="cannot build this model"):
        rebuilt(model, Edit(config=lambda layer, config: {**config, "kernel_size": 0}))
