"""The faster forms are exact: values and gradients against Keras' own layers."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from cae_cli.config.compose import checked  # noqa: E402
from cae_cli.model.build import build  # noqa: E402
from cae_cli.training import forward  # noqa: E402


def up_then_convolved(kernel, filters, channels, shape=(5, 7), dtype="float32", activation="tanh"):
    image = keras.Input((*shape, channels))
    x = keras.layers.UpSampling2D(2, dtype=dtype)(image)
    x = keras.layers.Conv2D(
        filters,
        kernel,
        padding="same",
        activation=activation,
        bias_initializer="random_normal",
        dtype=dtype,
    )(x)
    return keras.Model(image, x)


def value_and_gradients(network, compute, images, weights_of_outputs):
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = tf.cast(compute(images), tf.float32)
        loss = tf.reduce_sum(outputs * weights_of_outputs)
    return [outputs, *tape.gradient(loss, [images, *network.trainable_variables])]


def in_parts(network, count, training=True):
    compute = forward.forward(network)
    return lambda x: tf.concat(compute(forward.cut(x, count), training=training), axis=0)


def assert_equal_to_plain(network, images, *, parts, tolerance):
    rng = np.random.default_rng(1)
    towards = rng.normal(size=(len(images), *network.output_shape[1:])).astype(np.float32)
    plain = value_and_gradients(network, lambda x: network(x, training=True), images, towards)
    ours = value_and_gradients(network, in_parts(network, parts), images, towards)
    largest = max(float(np.abs(gradient).max()) for gradient in plain[1:])
    for expected, got in zip(plain, ours, strict=True):
        # Some gradients are 0 but for rounding, as that of the bias of attention's keys.
        scale = max(np.abs(expected).max(), 0.1 * largest)
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7, (3, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_up_convolution_is_upsampling_and_convolution(kernel, channels):
    keras.utils.set_random_seed(0)
    network = up_then_convolved(kernel, 4, channels)
    images = np.random.default_rng(0).normal(size=(5, 5, 7, channels)).astype(np.float32)
    assert_equal_to_plain(network, images, parts=2, tolerance=1e-5)


def test_an_up_convolution_in_half_precision_is_as_near_as_half_precision_goes():
    keras.utils.set_random_seed(0)
    network = up_then_convolved(3, 8, 4, dtype="float16")
    images = np.random.default_rng(0).normal(size=(4, 5, 7, 4)).astype(np.float32)
    exact = up_then_convolved(3, 8, 4)
    exact.set_weights(network.get_weights())
    expected = exact(images)
    tolerance = 4 * np.finfo(np.float16).eps
    np.testing.assert_allclose(in_parts(network, 1)(images), expected, atol=tolerance)
    np.testing.assert_allclose(network(images), expected, atol=tolerance)


# Each with what it is made of: stages, sides of the image, everything that stands between the layers.
NETWORKS = {
    "default": ((28, 28, 1), []),
    "odd sides, colour": ((13, 9, 3), ["model.filters=[4,6]"]),
    "three stages, 5x5": ((16, 24, 3), ["model.filters=[4,5,6]", "model.kernel_size=5"]),
    "two convolutions, elu": ((12, 12, 1), ["model.convolutions=2", "model.activation=elu"]),
    "residual": ((12, 12, 2), ["model.block=residual"]),
    "attention": ((8, 8, 1), ["model.attention_heads=2"]),
    "skips": ((12, 12, 1), ["model.skips=true"]),
    "bilinear": ((12, 12, 1), ["model.upsampling=bilinear"]),
    "strided": ((12, 12, 1), ["model.downsampling=strided", "model.upsampling=transposed"]),
    "l2": ((12, 12, 1), ["regularization=l2"]),
    "batch normalisation": ((12, 12, 1), ["regularization=batchnorm"]),
    "sparse": ((12, 12, 1), ["regularization=activity_l1"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_computed_as_keras_computes_it(name):
    shape, overrides = NETWORKS[name]
    options = checked(overrides)[1]
    keras.utils.set_random_seed(0)
    network = build(shape, options.model, tuple(options.regularization.values())).model
    images = np.random.default_rng(0).random((7, *shape), dtype=np.float32)
    cuttable = forward.may_be_cut(network)
    assert cuttable == (name not in ("batch normalisation", "sparse"))
    assert_equal_to_plain(network, images, parts=2 if cuttable else 1, tolerance=3e-5)

    def after(compute):
        """Losses and averages after a call."""
        for variable, value in zip(network.non_trainable_variables, state, strict=True):
            variable.assign(value)
        compute(images)
        return [*network.losses, *map(np.array, network.non_trainable_variables)]

    state = [np.array(v) for v in network.non_trainable_variables]
    expected = after(lambda x: network(x, training=True))
    assert bool(expected) == (name in ("l2", "batch normalisation", "sparse"))
    for a, b in zip(expected, after(in_parts(network, 2 if cuttable else 1)), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5)


def test_dropout_is_on_in_training_and_off_elsewhere():
    options = checked(["regularization=dropout"])[1]
    keras.utils.set_random_seed(0)
    network = build((12, 12, 1), options.model, tuple(options.regularization.values())).model
    images = np.random.default_rng(0).random((6, 12, 12, 1), dtype=np.float32)
    np.testing.assert_allclose(in_parts(network, 2, training=False)(images), network(images), atol=1e-5)
    dropped = in_parts(network, 2)
    assert np.abs(dropped(images) - dropped(images)).max() > 1e-3


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("images", [3, 4, 7])
def test_parts_hold_every_image_once_and_differ_by_one_at_most(count, images):
    parts = forward.cut(tf.range(images), count)
    assert tf.concat(parts, 0).numpy().tolist() == list(range(images))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def fusions(network):
    graph = forward.Graph(network.inputs, network.outputs)
    return sum(forward._convolved_next(graph, step) is not None for step in graph.steps)


def test_only_what_is_exact_is_fused():
    image = keras.Input((6, 6, 2))
    up = keras.layers.UpSampling2D(2)(image)

    def conv(**options):
        return keras.layers.Conv2D(3, 3, **{"padding": "same", **options})

    assert fusions(keras.Model(image, conv()(up))) == 1
    assert fusions(keras.Model(image, conv(strides=2)(up))) == 0
    assert fusions(keras.Model(image, conv(padding="valid")(up))) == 0
    assert fusions(keras.Model(image, conv(dilation_rate=2)(up))) == 0
    assert fusions(keras.Model(image, conv(activity_regularizer="l1")(up))) == 0
    both = keras.layers.Concatenate()([up, conv()(up)])  # somebody else needs the upsampled maps
    assert fusions(keras.Model(image, both)) == 0
    smooth = keras.layers.UpSampling2D(2, interpolation="bilinear")(image)
    assert fusions(keras.Model(image, conv()(smooth))) == 0
    twice = keras.layers.Conv2D(2, 3, padding="same")
    assert fusions(keras.Model(image, twice(keras.layers.UpSampling2D(2)(twice(image))))) == 0
    again = keras.layers.UpSampling2D(2)
    assert fusions(keras.Model(image, again(conv()(again(image))))) == 0
    wide = keras.layers.UpSampling2D((1, 2))(image)
    assert fusions(keras.Model(image, conv()(wide))) == 0


def test_a_batch_is_not_cut_where_layers_look_at_all_of_it():
    image = keras.Input((6, 6, 2))
    inner = keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()])
    assert not forward.may_be_cut(keras.Model(image, inner(image)))
    assert forward.may_be_cut(keras.Model(image, keras.Sequential([keras.layers.Conv2D(2, 3)])(image)))
