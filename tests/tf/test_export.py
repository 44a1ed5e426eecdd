"""Exported files compute what the network computes, from images with the values that files have."""

import json
import os
import re
from dataclasses import replace
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from cae_cli import data
from cae_cli.config.compose import Sources
from cae_cli.errors import UserError
from cae_cli.features import Network, open_network
from cae_cli.features import export as exporting
from cae_cli.features.export import FORMATS, PARTS, ROUNDING, export
from cae_cli.introspection import introspect
from cae_cli.model.build import build
from cae_cli.runs.folder import Run
from tests.conftest import ROOT, called
from tests.tf.conftest import DIGITS, configured

pytestmark = pytest.mark.tf

MODELS = list(Sources().options("model"))
INSTALLED = [kind for kind, form in FORMATS.items() if all(map(util.find_spec, form.packages))]
KINDS = [pytest.param(kind, marks=() if kind in INSTALLED else pytest.mark.skip("not installed"))
         for kind in FORMATS]  # fmt: skip


@pytest.fixture(scope="module")
def folder(trained_once):
    return trained_once("digits", *DIGITS)[1]


@pytest.fixture(scope="module")
def network(folder):
    return open_network(Run(folder))


@pytest.fixture(scope="module")
def digits():
    """(64, 8, 8, 1) float64 images as their source has them, from 0 to 16."""
    from sklearn.datasets import load_digits

    return load_digits().images[:64, ..., np.newaxis]


def opened(path, kind):
    """A function of what was written, as somebody without cae makes it."""
    import keras
    import tensorflow as tf

    match kind:
        case "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(path)
            return lambda **x: session.run(None, x)[0]
        case "litert":
            from ai_edge_litert.interpreter import Interpreter

            runner = Interpreter(str(path)).get_signature_runner()
            return lambda **x: runner(**x)["output_0"]
        case "tf_saved_model":
            loaded = tf.saved_model.load(path)
            return lambda **x: np.asarray(loaded.serve(*x.values()))
        case "keras":
            model = keras.models.load_model(path)
            return lambda **x: np.asarray(model(*x.values()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_makes_of_raw_images_what_the_network_makes_of_prepared_ones(
    kind, network, digits, tmp_path
):
    prepared, raw = network.prepare(digits), digits.astype(np.float32)
    before = dict(os.environ)
    codes = network.encode(prepared)
    expected = {
        "encoder": ({"images": raw}, codes),
        "decoder": ({"codes": codes}, network.decode(codes)),
        "whole": ({"images": raw}, network.reconstruct(prepared)),
    }
    assert set(expected) == set(PARTS)
    for part, (given, wanted) in expected.items():
        path = tmp_path / f"{part}{FORMATS[kind].suffix}"
        done = export(network, prepared, part, kind, path)
        run = opened(path, kind)
        for count in (3, 64):
            made = run(**{name: x[:count] for name, x in given.items()})
            np.testing.assert_allclose(made, wanted[:count], atol=ROUNDING["float32"] * wanted.std())
        assert done.difference.largest <= ROUNDING["float32"] * done.difference.spread
        assert done.difference.spread == pytest.approx(wanted.std(), rel=1e-3)
    assert dict(os.environ) == before


def test_the_command_says_what_goes_in_and_how_far_the_file_is_from_the_network(folder, tmp_path):
    done = called(tmp_path, "export", str(folder), "--format", "keras", "--part", "encoder")
    assert done.code == 0, done.err
    first, second, last = done.out.splitlines()
    assert first == (
        "encoder: images (n, 8, 8, 1) float32, black 0, white 16 -> codes (n, 4, 4, 8) float32"
    )
    assert re.match(r"largest difference from the network on 64 images of the run: [\d.e-]+, ", second)
    assert last == "encoder.keras"
    record = json.loads((tmp_path / "encoder.keras.json").read_text())
    assert record["input"] == {
        "values": "images", "shape": [None, 8, 8, 1], "dtype": "float32", "black": 0, "white": 16,
    }  # fmt: skip
    assert record["network"] == str(folder)
    assert 0 <= record["difference"]["largest"] < record["difference"]["allowed"] < 1e-4
    assert record["packages"]["keras"].startswith("3.")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["encoder.keras", "encoder.keras.json"]


def test_noise_that_was_added_to_bytes_is_no_difference(network, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.random((20, *network.shape), np.float32)  # between the bytes
    of_bytes = replace(network, scale=data.Scale(0, 255, "uint8"))
    for part in PARTS:
        done = export(of_bytes, images, part, "keras", tmp_path / f"{part}.keras")
        assert done.difference.largest <= ROUNDING["float32"] * done.difference.spread


def test_images_that_are_gone_are_replaced_by_those_in_the_folder(folder, tmp_path, monkeypatch):
    def gone(options):
        raise UserError("no such file")

    monkeypatch.setattr(data, "load", gone)
    done = called(tmp_path, "export", str(folder), "--format", "keras")
    assert done.code == 0 and "cannot be used: no such file" in done.err
    assert "on 8 examples in the run's folder" in done.out


def test_a_file_that_computes_something_else_is_not_kept(folder, tmp_path, monkeypatch):
    def spoilt(model, path, about):
        import keras

        other = keras.models.clone_model(model)
        other.set_weights([w * 1.01 for w in model.get_weights()])
        other.save(path)

    monkeypatch.setitem(FORMATS, "keras", replace(FORMATS["keras"], write=spoilt))
    done = called(tmp_path, "export", str(folder), "--format", "keras")
    assert done.code == 1
    assert "computes something else (whole, as a Keras file): on 64 images" in done.err
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_one_line_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting.util, "find_spec", lambda name: None)
    done = called(tmp_path, "export", "last", "--format", "onnx")
    assert done.code == 2
    assert done.err.splitlines() == [
        "error: an ONNX file needs tf2onnx, which is not installed",
        "  --> command line: --format onnx",
        "hint: pip install 'cae-cli[export]'",
    ]


@pytest.mark.parametrize("words, why", [
    ("last", "--format is missing"),
    ("last --format tflite", "there is no --format tflite"),
    ("last --format keras --part code", "there is no --part code"),
])  # fmt: skip
def test_a_mistyped_format_or_part_is_one_line(words, why, tmp_path):
    done = called(tmp_path, "export", *words.split())
    assert done.code == 2 and done.err.startswith(f"error: {why}\n  --> ") and "hint: " in done.err


@pytest.mark.parametrize("name, kind, why", [
    ("whole.tflite", "keras", "ends in .keras"),
    ("model.pb", "tf_saved_model", "has no suffix"),
    ("there", "tf_saved_model", "something of this name"),
])  # fmt: skip
def test_a_name_that_does_not_fit_is_refused(name, kind, why, network, tmp_path):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(UserError, match=why) as caught:
        export(network, np.zeros((4, 8, 8, 1), np.uint8), "whole", kind, tmp_path / name)
    assert "--out" in caught.value.hint
    assert (tmp_path / "there").read_text() == "mine"


# Networks of every kind


def lively(autoencoder):
    """Weights and statistics of batch normalisation that are neither 0 nor 1."""
    rng = np.random.default_rng(0)
    for weight in autoencoder.model.weights:
        if len(weight.shape) == 1:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return Network(autoencoder, "a network", batch=32)


def exported(network, part, kind, folder):
    path = folder / f"{part}_{kind}{FORMATS[kind].suffix}"
    done = export(network, noise(network.shape), part, kind, path)
    assert done.difference.spread > 1e-3
    return done.difference.relative


needs_litert = pytest.mark.skipif("litert" not in INSTALLED, reason="not installed")
needs_onnx = pytest.mark.skipif("onnx" not in INSTALLED, reason="not installed")


@needs_litert
def test_padding_and_two_upsamplings_in_a_row_are_written_for_litert(tmp_path):
    network = lively(of_options("regularization=batchnorm", shape=(30, 27, 1)))
    assert exported(network, "whole", "litert", tmp_path) < ROUNDING["float32"]


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_written_in_every_format(model, kind, tmp_path):
    network = lively(of_options(f"model={model}", "regularization=batchnorm", shape=(30, 27, 3)))
    for part in PARTS:
        if part != "decoder" or not network.autoencoder.skips:
            assert exported(network, part, kind, tmp_path) < 5e-4


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [
    *(f"model.activation={name}" for name in ("elu", "silu", "leaky_relu", "tanh")),
    *(f"model.output_activation={name}" for name in ("linear", "tanh")),
    "model.upsampling=bilinear", "model.downsampling=average_pool", "model.filters=[4,4,4,4]",
])  # fmt: skip
def test_options_of_networks_are_written_in_every_format(words, kind, tmp_path):
    network = lively(of_options(words, "regularization=batchnorm", shape=(28, 28, 1)))
    assert exported(network, "whole", kind, tmp_path) < 5e-4


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_a_dense_code_is_written_in_every_format(kind, tmp_path):
    import keras
    from keras import layers

    x = image = keras.Input((28, 28, 1))
    x = layers.Flatten()(layers.Conv2D(8, 3, strides=4, padding="same", activation="relu")(x))
    x = layers.Dense(10, name="code")(x)
    x = layers.Reshape((7, 7, 8))(layers.Dense(7 * 7 * 8, activation="relu")(x))
    x = layers.UpSampling2D(4)(x)
    model = keras.Model(image, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x))
    network = lively(introspect(model))
    assert network.code_shape == (10,)
    for part in PARTS:
        assert exported(network, part, kind, tmp_path) < 5e-4


def test_the_code_in_the_documentation_loads_what_was_exported(tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "export.md").read_text(), re.M | re.S)
    assert len(blocks) == 1 + len(FORMATS)
    network = of(made(shape=(28, 28, 1)))
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x_test=noise((28, 28)))
    known = {}
    exec(blocks[0], known)
    tried = 0
    for block in blocks[1:]:
        package, kind = (
            re.search(r"(?:from|import) (\w+)", block)[1],
            re.search(r'"encoder(.*?)"', block)[1],
        )
        kind = next(name for name, form in FORMATS.items() if form.suffix == kind)
        if kind in INSTALLED and util.find_spec(package):
            export(network, known["images"], "encoder", kind, Path(f"encoder{FORMATS[kind].suffix}"))
            exec(block, known)
            codes = network.encode(known["images"])
            np.testing.assert_allclose(known["codes"], codes, atol=1e-5 * codes.std())
            tried += 1
    assert tried >= 2


# Networks of others


def made(*hidden, shape=(8, 12, 3), skips=False):
    """An untrained network on images from -1 to 1, with these layers behind the code."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x = image = keras.Input(shape)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", strides=2)(x)
    x = layers.Conv2D(2, 3, padding="same", name="code")(x)
    for layer in hidden:
        x = layer(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu", name="up")(x)
    if skips:
        x = layers.Concatenate()([x, image])
    return keras.Model(image, layers.Conv2D(shape[2], 3, padding="same", activation="tanh")(x))


def noise(shape, count=64):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def of_options(*words, shape):
    config = configured(*words)
    return build(shape, config.model, tuple(config.regularization.values()))


def of(model):
    return Network(introspect(model), "model.keras", batch=32)


def test_a_model_file_of_another_range_takes_bytes(tmp_path):
    import keras

    made().save(tmp_path / "model.keras")
    done = called(tmp_path, "export", "model.keras", "--format", "keras", "--range=-1,1")
    assert done.code == 0, done.err
    assert "whole: images (n, 8, 12, 3) uint8, black 0, white 255" in done.out
    x = noise((8, 12, 3), 5)
    model, whole = (keras.models.load_model(tmp_path / f"{n}.keras") for n in ("model", "whole"))
    np.testing.assert_allclose(whole(x), np.asarray(model(x / 127.5 - 1)) / 2 + 0.5, atol=1e-5)


def test_a_decoder_that_needs_the_image_is_refused(tmp_path):
    with pytest.raises(UserError, match="skip connections"):
        export(of(made(skips=True)), noise((8, 12, 3)), "decoder", "keras", tmp_path / "d.keras")


@needs_onnx
@pytest.mark.soak
def test_the_layers_with_gelu_are_named_for_onnx(tmp_path):
    network = of_options("model.filters=[4]", "model.activation=gelu", shape=(8, 8, 1))
    with pytest.raises(UserError, match=r"hold encoder_1_map .*, decoder_1_map \(Activation\)"):
        exported(lively(network), "whole", "onnx", tmp_path)


@needs_litert
def test_layers_that_a_format_does_not_hold_are_named(tmp_path):
    from keras import ops

    network = of(made(lambda x: ops.erfinv(0.5 * ops.tanh(x))))
    with pytest.raises(UserError, match=r"a LiteRT file cannot hold \w+ \(Erfinv\)") as caught:
        export(network, noise((8, 12, 3)), "whole", "litert", tmp_path / "whole.tflite")
    assert caught.value.hint and not list(tmp_path.iterdir())


def test_a_network_that_draws_its_code_is_exported_and_said_to_be_random(tmp_path):
    import keras

    class Drawn(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.seed_generator = keras.random.SeedGenerator(0)

        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)

    network = of(made(Drawn()))
    done = export(network, noise((8, 12, 3)), "whole", "keras", tmp_path / "whole.keras")
    assert done.difference.random and done.difference.largest > done.difference.allowed


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    model = made()
    model.layers[-1].set_weights([w * np.nan for w in model.layers[-1].get_weights()])
    with pytest.raises(UserError, match="not finite"):
        export(of(model), noise((8, 12, 3)), "whole", "keras", tmp_path / "whole.keras")
