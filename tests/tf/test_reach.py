"""Which pixels the layers of a network touch: against gradients of networks with positive weights."""

import keras
import numpy as np
import pytest
from keras import layers

from cae_cli.introspection import introspect
from cae_cli.metrics.reach import reach_statistics
from tests.tf.conftest import configured

tf = pytest.importorskip("tensorflow")

pytestmark = pytest.mark.tf

SHAPE = (12, 13, 2)


def chain(*parts, shape=SHAPE):
    """An autoencoder of these layers; the last one gives it the shape of the image back."""
    return keras.Sequential([keras.Input(shape), *parts])


def conv(filters=2, kernel=3, strides=1, padding="same", kind=layers.Conv2D, **words):
    return kind(filters, kernel, strides=strides, padding=padding, **words)


def jumping():
    return chain(conv(strides=4), conv(), layers.UpSampling2D(4), layers.Cropping2D(((0, 0), (0, 3))))


def cutting():
    return chain(
        layers.MaxPooling2D(5), conv(3), layers.UpSampling2D(5, interpolation="bilinear"),
        layers.ZeroPadding2D(((1, 1), (1, 2))), conv(2),
    )  # fmt: skip


def with_gaps():
    return chain(
        conv(strides=3, kernel=4, padding="valid"),
        conv(kernel=2, strides=4, kind=layers.Conv2DTranspose), layers.Cropping2D(((0, 0), (0, 3))),
    )  # fmt: skip


def dilated():
    return chain(conv(kernel=2, dilation_rate=3, padding="valid"), layers.AveragePooling2D(2),
                 layers.Flatten(), layers.Dense(12 * 13 * 2), layers.Reshape(SHAPE))  # fmt: skip


def residual():
    """The shortcut jumps over every second pixel, the convolution beside it does not."""
    image = keras.Input(SHAPE)
    added = layers.Add()([conv(strides=2)(image), conv(kernel=1, strides=2)(image)])
    x = layers.UpSampling2D(2)(added)
    return keras.Model(image, conv()(layers.Cropping2D(((0, 0), (0, 1)))(x)))


def by_gradients(model):
    """Unread and unreached pixels of a network whose kernels are positive and whose maps are linear."""
    for variable in model.trainable_variables:
        variable.assign(tf.ones_like(variable) if "kernel" in variable.path else 0 * variable)
    image = tf.Variable(np.ones((1, *SHAPE), np.float32))
    with tf.GradientTape() as tape:
        output = tf.reduce_sum(model(image))
    read = np.asarray(tape.gradient(output, image))[0].any(axis=-1)
    return ~read, ~(np.asarray(model(image))[0] != 0).any(axis=-1)


@pytest.mark.parametrize("make", [jumping, with_gaps, dilated, residual])
def test_what_is_read_and_drawn_is_what_gradients_say(make):
    model = make()
    reach = introspect(model).reach
    unread, unreached = by_gradients(model)
    assert np.array_equal(reach.unread, unread) and np.array_equal(reach.unreached, unreached)
    assert reach.is_exact


def test_a_stride_beyond_the_kernel_and_a_border_that_is_cut_off_are_seen():
    found = introspect(jumping())
    rows = np.arange(12)[:, None] % 4 == 3
    assert np.array_equal(found.reach.unread, rows | (np.arange(13) % 4 == 2))
    assert found.facts()["skipping"] == [found.convolutions[0].name]
    cut = introspect(cutting()).reach
    rest = (np.arange(12)[:, None] >= 10) | (np.arange(13) >= 10)
    assert np.array_equal(cut.unread, rest) and cut.skipping == ()


@pytest.mark.parametrize(
    "overrides",
    [(), ("model=strided",), ("model=unet",), ("model=residual",), ("model=attention",)],
)
def test_our_own_networks_read_and_draw_every_pixel_at_any_size(overrides):
    from cae_cli.model.build import build

    config = configured(*overrides)
    for shape in ((28, 28, 1), (13, 17, 3)):
        reach = build(shape, config.model, ()).reach
        assert not reach.unread.any() and not reach.unreached.any()


def test_an_unknown_layer_may_read_everything_and_nothing_is_ruled_out():
    class Own(layers.Layer):
        def call(self, x):
            return x[:, ::2, ::2]

    reach = introspect(chain(Own(), layers.UpSampling2D(2), layers.Cropping2D(((0, 0), (0, 1))))).reach
    assert not reach.unread.any() and not reach.is_exact
    images = np.random.default_rng(0).random((4, *SHAPE))
    found = reach_statistics(reach.unread, reach.unreached, images, images, is_exact=False)
    assert np.isnan(found.unread) and np.isnan(found.unreached)


class Reshaped(layers.Layer):
    """To a shape of which Keras knows only some axes."""

    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def call(self, x):
        return tf.reshape(x, [tf.shape(x)[0], *self.shape])


@pytest.mark.parametrize("inside", [(-1, 2), (-1, 13, 2)])
def test_a_layer_whose_output_has_an_unknown_axis_counts_as_unknown(inside):
    middle = [conv(), conv(2, kind=layers.Conv2DTranspose)] if len(inside) == 3 else [layers.Dense(2)]
    network = introspect(chain(conv(), Reshaped(*inside), *middle, Reshaped(*SHAPE), conv()))
    assert not network.reach.is_exact and not network.reach.unread.any()
    assert network.facts()["skipping"] == []
    windows = list(network.windows().values())
    assert windows[0] is not None and set(windows[1:]) == {None}
