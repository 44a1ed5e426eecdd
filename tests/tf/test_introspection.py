"""The parts of our networks and of strangers', each next to a slow independent way to them."""

import json
import zipfile

import numpy as np
import pytest

from cae_cli.config.compose import checked
from cae_cli.errors import UserError
from cae_cli.introspection import Autoencoder, introspect, load
from cae_cli.model.build import build

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402
from keras import layers, ops  # noqa: E402

pytestmark = pytest.mark.tf


def make(*overrides, shape=(12, 12, 1)):
    config = checked(overrides)[1]
    return build(shape, config.model, tuple(config.regularization.values()))


def images(model, n=3):
    return np.random.default_rng(1).random((n, *model.input_shape[1:]), dtype=np.float32)


def outputs_equal(model, autoencoder, x):
    """The flat model, and encoder plus decoder, give what the given model gives."""
    expected = np.asarray(model(x, training=False))
    code = np.asarray(autoencoder.encoder()(x))
    return np.array_equal(autoencoder.model(x), expected) and np.array_equal(
        autoencoder.decoder()([x, code]), expected
    )


# --- strangers -------------------------------------------------------------------------------------


def sequential():
    hidden = {"activation": "relu", "padding": "same"}
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(6, 3, **hidden),
            layers.MaxPooling2D(2, padding="same"),
            layers.Conv2D(4, 3, **hidden),
            layers.MaxPooling2D(2, padding="same"),
            layers.Conv2D(4, 3, **hidden),
            layers.UpSampling2D(2),
            layers.Conv2D(6, 3, **hidden),
            layers.UpSampling2D(2),
            layers.Conv2D(1, 3, activation="sigmoid", padding="same"),
        ]
    )


def dense_latent():
    image = x = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(5)(x)
    x = layers.LeakyReLU(name="squeezed")(x)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Reshape((4, 4, 4))(x)
    x = layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid")(x)
    return keras.Model(image, x)


def nested():
    """Both halves use the same names."""
    encoder = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
        ],
        name="encoder",
    )
    maps = keras.Input((4, 4, 4))
    y = layers.Conv2DTranspose(5, 2, strides=2, name="conv")(maps)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.ReLU(name="relu")(y)
    y = layers.Conv2D(3, 3, padding="same", name="last")(y)
    decoder = keras.Model(maps, layers.Activation("sigmoid")(y), name="decoder")
    image = keras.Input((8, 8, 3))
    return keras.Model(image, decoder(encoder(image)))


@keras.saving.register_keras_serializable("test_anatomy")
class Block(layers.Layer):
    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = layers.Conv2D(filters, 3, padding="same", name="conv")
        self.drop = layers.Dropout(0.5)

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x, training=None):
        self.add_loss(ops.mean(x))
        return self.drop(ops.relu(self.conv(x)), training=training)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("test_anatomy")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.two = Block(6), Block(3)
        self.pool = layers.MaxPooling2D(2)
        self.up = layers.UpSampling2D(2)
        self.last = layers.Conv2D(1, 3, padding="same", name="last")

    def call(self, x, training=None):
        x = self.pool(self.one(x, training=training))
        return ops.sigmoid(self.last(self.up(self.two(x, training=training))))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 1)))
    return model


def u_net(size=8):
    image = x = keras.Input((size, size, 1))
    a = x = layers.Conv2D(6, 3, padding="same", activation="relu", name="a")(x)
    x = layers.MaxPooling2D()(x)
    b = x = layers.Conv2D(8, 3, padding="same", activation="relu", name="b")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="middle")(x)
    x = layers.Concatenate()([layers.UpSampling2D()(x), b])
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="c")(x)
    x = layers.Concatenate()([layers.UpSampling2D()(x), a])
    return keras.Model(image, layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="last")(x))


@keras.saving.register_keras_serializable("test_anatomy")
class Sampling(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(3)

    def call(self, inputs):
        mean, log_variance = inputs
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        self.add_loss(-0.5 * ops.mean(1 + log_variance - mean**2 - ops.exp(log_variance)))
        return mean + ops.exp(0.5 * log_variance) * noise


def vae_parts():
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Flatten()(x)
    mean, log_variance = layers.Dense(2, name="z_mean")(x), layers.Dense(2, name="z_log_var")(x)
    z = Sampling(name="draw")([mean, log_variance])
    encoder = keras.Model(image, [mean, log_variance, z], name="encoder")
    decoder = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(64, activation="relu"),
            layers.Reshape((4, 4, 4)),
            layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid"),
        ],
        name="decoder",
    )
    return image, encoder, decoder


def vae():
    image, encoder, decoder = vae_parts()
    mean, log_variance, z = encoder(image)
    return keras.Model(image, [mean, log_variance, decoder(z)])


STRANGERS = [sequential, dense_latent, nested, subclassed, u_net]


# --- ours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=baseline"],
        ["model=residual", "regularization=[batchnorm,dropout]"],
        ["model=attention"],
        ["model=strided", "model.activation=linear"],
    ],
)
def test_the_parts_of_our_networks_are_those_with_our_names(overrides):
    ours = make(*overrides, shape=(13, 12, 1))
    names = {layer.name for layer in ours.model.layers}
    kinds = (layers.Conv2D, layers.Conv2DTranspose)
    convolutions = [layer for layer in ours.model.layers if isinstance(layer, kinds)]
    assert ours.convolutions == convolutions
    assert list(ours.maps) == [conv.name for conv in convolutions]
    for conv in convolutions:
        name = f"{conv.name}_map" if f"{conv.name}_map" in names else conv.name
        assert ours.maps[conv.name] is ours.model.get_layer(name).output
        assert np.array_equal(ours.kernels()[conv.name].shape[3], conv.filters)
    assert ours.latent is ours.model.get_layer("latent").output
    assert not ours.skips and ours.output_activation == "sigmoid" and ours.closed == []
    assert outputs_equal(ours.model, ours, images(ours.model))
    again = introspect(ours.model)
    assert again.latent_layer == "latent" and list(again.maps) == list(ours.maps)
    assert again.facts() == ours.facts()
    assert outputs_equal(ours.model, again, images(ours.model))


def test_the_facts_of_the_reference_network():
    facts = make("model=baseline", shape=(28, 28, 1)).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts == {
        "latent_layer": "latent",
        "latent_shape": [7, 7, 8],
        "image_shape": [28, 28, 1],
        "output_activation": "sigmoid",
        "hidden_activation": "relu",
        "activations": {
            **dict.fromkeys(["encoder_1", "encoder_2", "decoder_1", "decoder_2"], "relu"),
            "output": "sigmoid",
        },
        "half_precision": None,
        "normalised": False,
        "drops": False,
        "drops_output": False,
        "skips": False,
        "shortcuts": False,
        "receptive_field": [10, 10],
        "depth": 5,
        "narrowest": 8,
        "skipping": [],
        "closed": [],
    }


def test_normalisation_and_dropout_are_seen():
    facts = make("regularization=[batchnorm,dropout]", "model.activation=elu").facts()
    assert facts["normalised"] and facts["drops"] and facts["hidden_activation"] == "elu"


# --- strangers' parts --------------------------------------------------------------------------------


@pytest.mark.parametrize("stranger", STRANGERS)
def test_foreign_networks_are_split_and_reassembled(stranger):
    model = stranger()
    found = introspect(model)
    assert outputs_equal(model, found, images(found.model))
    assert not any(isinstance(layer, keras.Model) for layer in found.model.layers)
    assert {id(w) for w in found.model.trainable_weights} == {id(w) for w in model.trainable_weights}
    assert found.skips == (stranger is u_net)
    assert found.output_activation == "sigmoid"
    for name, kernel in found.kernels().items():
        assert kernel.ndim == 4 and kernel.shape[3] == found.maps[name].shape[-1]


@pytest.mark.parametrize(
    ("stranger", "code", "convolutions", "depth", "hidden"),
    [
        (sequential, (3, 3, 4), 5, 5, "relu"),
        (dense_latent, (5,), 2, 4, "relu"),
        (nested, (4, 4, 4), 3, 3, "relu"),
        (subclassed, (4, 4, 3), 3, 3, "relu"),
        (u_net, (2, 2, 5), 5, 5, "relu"),
    ],
)
def test_the_code_is_the_narrowest_place(stranger, code, convolutions, depth, hidden):
    found = introspect(stranger())
    assert tuple(found.latent.shape[1:]) == code
    assert len(found.convolutions) == convolutions and found.depth == depth
    assert found.hidden_activation == hidden


def test_the_code_is_taken_after_its_activation():
    assert introspect(dense_latent()).latent_layer == "squeezed"
    image = x = keras.Input((8, 8, 1))
    for layer in (conv(8, strides=2), conv(2), layers.BatchNormalization(), layers.ReLU(name="here")):
        x = layer(x)
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same")(layers.Concatenate()([x, x]))
    assert introspect(keras.Model(image, conv(1)(x))).latent_layer == "here"


def test_layers_of_one_name_are_both_there():
    model = nested()
    found = introspect(model)
    assert [conv.name for conv in found.convolutions] == ["conv", "decoder_conv", "last"]
    assert found.latent_layer == "relu" and found.normalised
    assert list(found.maps.values())[1].shape == (None, 8, 8, 5)
    keras.utils.set_random_seed(0)  # `fit` shuffles, and deterministic TensorFlow asks for a seed
    model.compile("sgd", "mse")
    x = images(model, 8)
    before = found.kernels()
    model.fit(x, x, epochs=1, verbose=0)
    after = found.kernels()
    assert all(not np.array_equal(before[name], after[name]) for name in before)
    assert outputs_equal(model, found, x)


def test_a_layer_that_is_called_twice_has_two_maps():
    conv = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
    image = keras.Input((8, 8, 4))
    x = layers.UpSampling2D()(conv(layers.MaxPooling2D()(conv(image))))
    model = keras.Model(image, layers.Conv2D(4, 1, name="last")(x))
    found = introspect(model)
    assert list(found.maps) == ["conv", "conv_2", "last"]
    assert found.maps["conv"].shape[1] == 8 and found.maps["conv_2"].shape[1] == 4
    assert len(found.model.weights) == len(model.weights)
    assert outputs_equal(model, found, images(model))


def test_skips_stay_when_codes_are_shuffled():
    found = introspect(u_net())
    x = images(found.model, 4)
    codes = np.asarray(found.encoder()(x))
    decoder = found.decoder()
    other = np.asarray(decoder([x, codes[::-1].copy()]))
    assert not np.array_equal(other, found.model(x))
    assert not np.allclose(other, np.asarray(found.model(x))[::-1])  # the image still has its part
    plain = introspect(sequential())
    x = images(plain.model, 4)
    codes = np.asarray(plain.encoder()(x))
    shuffled = np.asarray(plain.decoder()([x, codes[::-1].copy()]))
    np.testing.assert_allclose(shuffled, np.asarray(plain.model(x))[::-1], atol=1e-6)


def test_the_code_of_a_variational_autoencoder_is_its_sample():
    found = introspect(vae())
    assert found.latent_layer == "draw" and found.latent.shape == (None, 2)
    x = images(found.model)
    code = np.asarray(found.encoder()(x))
    assert not np.array_equal(code, found.encoder()(x))  # it is drawn
    assert found.decoder()([x, code]).shape == x.shape
    image, encoder, decoder = vae_parts()
    mean, _, _ = encoder(image)
    assert introspect(keras.Model(image, decoder(mean))).latent_layer == "z_mean"


def test_a_model_without_a_call_is_its_encoder_and_decoder():
    class Halves(keras.Model):
        def __init__(self):
            super().__init__()
            _, self.encoder, self.decoder = vae_parts()

    assert introspect(Halves()).latent_layer == "draw"


def test_an_unbuilt_model_gets_its_shape_from_the_images():
    assert introspect(Subclassed(), shape=(8, 8, 1)).shape == (8, 8, 1)
    with pytest.raises(UserError, match="does not define the size"):
        introspect(Subclassed())
    open_sides = keras.Sequential(
        [keras.Input((None, None, 1)), layers.Conv2D(2, 3, padding="same"), layers.Conv2D(1, 1)]
    )
    whole = keras.Sequential([keras.Sequential([keras.Input((4, 5, 1)), conv(2)]), conv(1)])
    assert introspect(whole).shape == (4, 5, 1)
    assert introspect(open_sides, shape=(6, 7, 1)).latent.shape == (None, 6, 7, 2)
    with pytest.raises(UserError, match="takes images of NonexNonex1, not 6x7x3"):
        introspect(open_sides, shape=(6, 7, 3))


def test_what_keras_cannot_trace_is_reported():
    class Tensorflow(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(1, 3, padding="same")

        def call(self, x):
            return tf.nn.sigmoid(self.conv(x))

    model = Tensorflow()
    model(np.zeros((1, 8, 8, 1)))
    with pytest.raises(UserError, match="cannot follow the call of tensorflow") as caught:
        introspect(model)
    assert "keras.ops" in caught.value.hint

    class Asserts(Tensorflow):
        def call(self, x):
            if not tf.is_tensor(x):
                raise AssertionError
            return self.conv(x)

    model = Asserts()
    model(np.zeros((1, 8, 8, 1)))
    with pytest.raises(UserError, match="symbolic image: AssertionError"):
        introspect(model)

    class Inside(layers.Layer):
        def __init__(self):
            super().__init__(name="inside")
            self.conv = layers.Conv2D(2, 3, padding="same")

        def call(self, x):
            return tf.nn.relu(self.conv(x))

    partly = keras.Sequential([keras.Input((8, 8, 1)), Inside(), layers.Conv2D(1, 3, padding="same")])
    found = introspect(partly)
    assert found.closed == ["inside"] and len(found.convolutions) == 1
    assert outputs_equal(partly, found, images(partly))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: keras.Sequential([keras.Input((8,)), layers.Dense(8)]), "not images"),
        (
            lambda: keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)]),
            "no output of .* has the shape of its input, 8x8x1: 3",
        ),
        (
            lambda: keras.Model(
                two := [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))], layers.Add()(two)
            ),
            "2 inputs",
        ),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((1, 8, 8)),
                    layers.Conv2D(1, 3, padding="same", data_format="channels_first", name="first"),
                ]
            ),
            "the channels first in its layer first",
        ),
    ],
)
def test_what_is_no_autoencoder_is_refused(model, message):
    with pytest.raises(UserError, match=message) as caught:
        introspect(model())
    assert caught.value.hint


def test_the_code_can_be_named():
    assert introspect(u_net(), latent="c").latent_layer == "c"
    assert introspect(nested(), latent="encoder").latent_layer == "relu"
    with pytest.raises(UserError, match="no layer midle") as caught:
        introspect(u_net(), latent="midle")
    assert caught.value.hint == "did you mean middle?"


def test_depthwise_and_separable_kernels_are_those_that_act():
    image = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False)(image)
    y = layers.SeparableConv2D(3, 3, depth_multiplier=2, padding="same", use_bias=False)(x)
    found = introspect(keras.Model(image, y))
    deep, separable = found.kernels().values()
    assert deep.shape == (3, 3, 1, 6) and separable.shape == (3, 3, 6, 3)
    values = images(found.model)
    deep_maps = keras.Model(found.model.input, next(iter(found.maps.values())))(values)
    grouped = np.concatenate(
        [ops.conv(values[..., [i // 2]], deep[..., [i]], padding="same") for i in range(6)], axis=-1
    )
    np.testing.assert_allclose(grouped, deep_maps, atol=1e-6)
    np.testing.assert_allclose(
        ops.conv(deep_maps, separable, padding="same"), found.model(values), atol=1e-5
    )


# --- replaced maps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [lambda: make().model, u_net, nested])
def test_a_replaced_filter_is_the_given_constant(network):
    found = introspect(network())
    x = images(found.model)
    replaced = found.with_replaced_maps()
    sizes = {name: maps.shape[-1] for name, maps in found.maps.items()}
    keep = {name: np.ones((1, f), np.float32) for name, f in sizes.items()}
    instead = {name: np.full((1, f), 7, np.float32) for name, f in sizes.items()}
    assert np.array_equal(replaced({"image": x, "keep": keep, "instead": instead}), found.model(x))

    for name in list(sizes)[:2]:
        keep_all_but_one = {**keep, name: keep[name].copy()}
        keep_all_but_one[name][0, 1] = 0
        values = {**instead, name: np.full((1, sizes[name]), 0.3, np.float32)}
        output = replaced({"image": x, "keep": keep_all_but_one, "instead": values})
        behind = keras.Model([found.model.input, found.maps[name]], found.model.output)
        maps = np.array(keras.Model(found.model.input, found.maps[name])(x))
        maps[..., 1] = 0.3
        assert np.array_equal(output, behind([x, maps]))
        assert not np.array_equal(output, found.model(x))


def test_replaced_maps_are_traced_once_and_may_differ_between_images():
    found = make()
    replaced = found.with_replaced_maps()
    traces = []

    @tf.function
    def run(inputs):
        traces.append(1)
        return replaced(inputs, training=False)

    x = images(found.model, 2)
    ones = {name: np.ones((2, m.shape[-1]), np.float32) for name, m in found.maps.items()}
    for filter in range(3):
        keep = {**ones, "encoder_1": ones["encoder_1"].copy()}
        keep["encoder_1"][0, filter] = 0
        tensors = keras.tree.map_structure(tf.constant, {"image": x, "keep": keep, "instead": ones})
        output = run(tensors)
        np.testing.assert_allclose(output[1], found.model(x)[1], atol=1e-6)
        assert not np.allclose(output[0], found.model(x)[0], atol=1e-6)
    assert len(traces) == 1


# --- receptive field ---------------------------------------------------------------------------------


def conv(filters=2, k=3, **kwargs):
    return layers.Conv2D(filters, k, **{"padding": "same", **kwargs})


@pytest.mark.parametrize(
    "stack",
    [
        lambda: [conv(), layers.AveragePooling2D(2), conv(), layers.AveragePooling2D(2)],
        lambda: [conv(k=5, strides=2), conv(k=4, strides=2)],
        lambda: [conv(dilation_rate=3), conv(k=1), conv(k=(3, 5))],
        lambda: [conv(padding="valid"), layers.AveragePooling2D(3, 2, padding="same"), conv()],
        lambda: [layers.ZeroPadding2D(3), conv(k=7, strides=3, padding="valid")],
        lambda: [layers.Cropping2D(((2, 0), (1, 3))), layers.DepthwiseConv2D(3, strides=2)],
        lambda: [conv(), layers.Flatten(), layers.Dense(3)],
        lambda: [conv(), layers.AveragePooling2D(2), layers.Dense(3), layers.Flatten()],
        lambda: [layers.AveragePooling2D(5, 5), layers.Conv2DTranspose(2, 3, padding="same")],
        lambda: [conv(), layers.GlobalAveragePooling2D()],
    ],
)
def test_the_receptive_field_is_as_far_as_a_value_answers(stack):
    side = 31
    image = x = keras.Input((side, side, 1))
    for layer in stack():
        x = layer(x)
    code = layers.Identity(name="code")(x)
    x = layers.Flatten()(code)
    model = keras.Model(image, layers.Reshape((side, side, 1))(layers.Dense(side * side)(x)))
    for weight in model.weights:
        weight.assign(np.abs(weight) + 0.1)
    found = introspect(model)
    encoder = found.encoder()
    extent = []
    for axis in (0, 1):  # each row, then each column alone, and which values of the code answer
        lit = np.zeros((side + 1, side, side, 1), np.float32)
        for i in range(side):
            lit[i, i] = 1000
        values = np.asarray(encoder(lit if axis == 0 else lit.swapaxes(1, 2))).reshape(side + 1, -1)
        seen = (values[:-1] > values[-1]).T  # (values, side)
        extent.append(max(np.ptp(np.flatnonzero(line)) + 1 for line in seen))
    assert list(found.receptive_field) == extent


# --- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stranger", [*STRANGERS, vae])
def test_saved_models_open_again(tmp_path, stranger):
    model = stranger()
    model.save(tmp_path / "model.keras")
    opened = load(tmp_path / "model.keras")
    found, before = introspect(opened), introspect(model)
    assert found.facts() == before.facts() or stranger is subclassed
    x = images(found.model)
    if stranger is not vae:
        np.testing.assert_array_equal(found.model(x), before.model(x))


@pytest.mark.parametrize("suffix", ["h5", "hdf5"])
def test_legacy_files_open_too(tmp_path, suffix):
    model = nested()
    model.save(tmp_path / f"model.{suffix}")
    assert outputs_equal(model, introspect(load(tmp_path / f"model.{suffix}")), images(model))


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_code_in_a_file_is_not_run(tmp_path, suffix):
    inner = keras.Sequential([keras.Input((8, 8, 1)), layers.Lambda(lambda x: x * 2)])
    model = keras.Sequential([keras.Input((8, 8, 1)), inner, layers.Conv2D(1, 3, padding="same")])
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    with pytest.raises(UserError, match="Lambda layer") as caught:
        load(path)
    assert "register_keras_serializable" in caught.value.hint


CUSTOM = """
import keras

class Twice(keras.layers.Layer):
    def call(self, x):
        return x * 2
"""


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_strangers_class_comes_from_his_file(tmp_path, suffix):
    custom, path = tmp_path / "mine.py", tmp_path / f"model.{suffix}"
    custom.write_text(CUSTOM)
    scope = {"__name__": "elsewhere"}
    exec(CUSTOM, scope)
    model = keras.Sequential([keras.Input((8, 8, 1)), scope["Twice"](), conv(1)])
    model.save(path)
    with pytest.raises(UserError, match="needs the class Twice") as caught:
        load(path)
    assert "--custom FILE" in caught.value.hint
    opened = load(path, custom)
    assert outputs_equal(model, introspect(opened), images(model))
    custom.write_text("1 / 0")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        load(path, custom)
    with pytest.raises(UserError, match="no such Python file"):
        load(path, tmp_path / "missing.py")


def test_files_that_are_no_models_are_refused(tmp_path):
    def message(name):
        with pytest.raises(UserError) as caught:
            load(tmp_path / name)
        return caught.value.what

    for name in ("model.pkl", "saved_model.pb", "folder"):
        assert "is not a .keras, .h5 or .hdf5 file" in message(name)
    (tmp_path / "folder.keras").mkdir()
    assert message("folder.keras") == message("missing.keras") == "there is no such file"
    for name in ("a.keras", "a.h5"):
        (tmp_path / name).write_bytes(b"nothing")
        assert "damaged" in message(name)
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as archive:
        archive.writestr("config.json", '{"class_name": "Sequential"}')
    assert "cannot be opened" in message("b.keras")
    model = sequential()
    model.save(tmp_path / "c.keras")
    whole = (tmp_path / "c.keras").read_bytes()
    (tmp_path / "c.keras").write_bytes(whole[: len(whole) // 2])
    assert "damaged" in message("c.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    assert "weights but no model" in message("model.weights.h5")


def test_an_autoencoder_can_be_named_by_hand():
    flat = sequential()
    model = keras.Model(flat.inputs, flat.outputs)
    parts = Autoencoder(model, latent_layer=model.layers[4].name)
    assert parts.latent.shape == (None, 3, 3, 4)
