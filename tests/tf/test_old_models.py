"""Models as older versions of Keras saved them: opened with the values that they had."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cae_cli.errors import UserError
from cae_cli.external.model import compiled_options
from cae_cli.introspection import compile_config, introspect, load
from tests.conftest import called

GLOROT = {"class_name": "GlorotUniform", "config": {"seed": None}}
ZEROS = {"class_name": "Zeros", "config": {}}


def convolution(kind, name, filters, activation, **more):
    """A convolution as TensorFlow 2.4 to 2.15 described it."""
    return {
        "class_name": kind,
        "config": {
            "name": name, "trainable": True, "dtype": "float32", "filters": filters,
            "kernel_size": [3, 3], "strides": [2, 2], "padding": "same", "data_format": "channels_last",
            "dilation_rate": [1, 1], "groups": 1, "activation": activation, "use_bias": True,
            "kernel_initializer": GLOROT, "bias_initializer": ZEROS, "kernel_regularizer": None,
            "bias_regularizer": None, "activity_regularizer": None, "kernel_constraint": None,
            "bias_constraint": None, **({"output_padding": None} if "Transpose" in kind else {}), **more,
        },
    }  # fmt: skip


def image(name, shape):
    return {
        "class_name": "InputLayer",
        "config": {
            "batch_input_shape": [None, *shape], "dtype": "float32", "sparse": False, "ragged": False,
            "name": name,
        },
    }  # fmt: skip


def placed(layer, *calls):
    """A layer in a graph, which gets the outputs of others."""
    nodes = [[[name, node, 0, {}] for name, node in calls]] if calls else []
    return {**layer, "name": layer["config"]["name"], "inbound_nodes": nodes}


ENCODE = convolution("Conv2D", "down", 8, "relu")
DECODE = convolution("Conv2DTranspose", "up", 1, "sigmoid")


def functional(name, first, layer):
    options = {
        "name": name, "trainable": True,
        "layers": [placed(first), placed(layer, (first["config"]["name"], 0))],
        "input_layers": [[first["config"]["name"], 0, 0]],
        "output_layers": [[layer["config"]["name"], 0, 0]],
    }  # fmt: skip
    return {"class_name": "Functional", "config": options}


def sequential(name, *members):
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(members)}}


def nested(encoder, decoder):
    """decoder(encoder(x)): what Keras 2 counted as the second call of each."""
    options = {
        "name": "ae", "trainable": True,
        "layers": [
            placed(image("x", (16, 16, 1))), placed(encoder, ("x", 0)), placed(decoder, ("encoder", 1)),
        ],
        "input_layers": [["x", 0, 0]], "output_layers": [["decoder", 1, 0]],
    }  # fmt: skip
    return {"class_name": "Functional", "config": options}


def network(form):
    """The description of an old model, and today's model of the same layers."""
    down = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="down")
    up = layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid", name="up")
    x, z = keras.Input((16, 16, 1)), keras.Input((8, 8, 8))
    seen, code = image("i", (16, 16, 1)), image("z", (8, 8, 8))
    match form:
        case "sequential":
            return sequential("ae", seen, ENCODE, DECODE), keras.Sequential([x, down, up])
        case "sequential without an input layer":
            first = convolution("Conv2D", "down", 8, "relu", batch_input_shape=[None, 16, 16, 1])
            return sequential("ae", first, DECODE), keras.Sequential([x, down, up])
        case "functional models":
            encoder, decoder = keras.Model(x, down(x)), keras.Model(z, up(z))
            described = nested(functional("encoder", seen, ENCODE), functional("decoder", code, DECODE))
        case "sequential models":
            encoder, decoder = keras.Sequential([x, down]), keras.Sequential([z, up])
            described = nested(sequential("encoder", seen, ENCODE), sequential("decoder", code, DECODE))
        case "half precision":
            policy = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
            half = convolution("Conv2D", "down", 8, "relu", dtype=policy)
            down = layers.Conv2D(
                8, 3, strides=2, padding="same", activation="relu", name="down", dtype="mixed_float16"
            )
            return sequential("ae", seen, half, DECODE), keras.Sequential([x, down, up])
    image_ = keras.Input((16, 16, 1))
    return described, keras.Model(image_, decoder(encoder(image_)))


FORMS = (
    *("sequential", "sequential without an input layer", "functional models", "sequential models"),
    "half precision",
)


def check_same(path, model):
    x = np.random.default_rng(0).random((3, 16, 16, 1), np.float32)
    opened = load(path)
    np.testing.assert_allclose(opened(x), model(x), atol=1e-6)
    assert len(introspect(opened).convolutions) == 2


@pytest.mark.parametrize("form", FORMS)
def test_h5_files_of_tensorflow_2_4_to_2_15_open(form, tmp_path):
    described, model = network(form)
    model.save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file.attrs.update(model_config=json.dumps(described), keras_version="2.4.0")
    check_same(tmp_path / "old.h5", model)


def with_modules(described, engine):
    """The same as .keras files of Keras 2.12 to 2.15 had it."""
    if isinstance(described, dict):
        described = {key: with_modules(value, engine) for key, value in described.items()}
        match described.get("class_name"):
            case "Functional":
                described |= {"module": f"{engine}.functional", "registered_name": "Functional"}
            case "Sequential":
                described |= {"module": "keras", "registered_name": None}
            case "GlorotUniform" | "Zeros":
                described |= {"module": "keras.initializers", "registered_name": None}
            case "Policy":
                described |= {"module": "keras.mixed_precision", "registered_name": None}
            case str():
                described |= {"module": "keras.layers", "registered_name": None}
    elif isinstance(described, list):
        described = [with_modules(value, engine) for value in described]
    return described


def with_groups_of_2_12(group):
    """The groups of weights under their old names: those of layers with weights have even numbers."""
    for name in list(group.get("layers", ())):
        inner = group["layers"][name]
        with_groups_of_2_12(inner)
        kind, _, number = name.rpartition("_")
        if number.isdigit():
            group["layers"].move(name, f"{kind}_{2 * int(number)}")
    if "layers" in group:
        group.move("layers", "_layer_checkpoint_dependencies")


@pytest.mark.parametrize("engine", ["keras.engine", "keras.src.engine"])
@pytest.mark.parametrize("form", FORMS)
def test_keras_files_of_keras_2_12_to_2_15_open(form, engine, tmp_path):
    described, model = network(form)
    model.save(tmp_path / "new.keras")
    with (
        zipfile.ZipFile(tmp_path / "new.keras") as new,
        zipfile.ZipFile(tmp_path / "old.keras", "w") as old,
    ):
        weights = io.BytesIO(new.read("model.weights.h5"))
        if engine == "keras.engine":
            with h5py.File(weights, "r+") as file:
                with_groups_of_2_12(file)
        old.writestr("metadata.json", json.dumps({"keras_version": "2.12.0"}))
        old.writestr("config.json", json.dumps(with_modules(described, engine)))
        old.writestr("model.weights.h5", weights.getvalue())
    check_same(tmp_path / "old.keras", model)


def test_weights_of_2_12_are_given_to_their_layers_in_order(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), *(layers.Conv2D(1, 3, padding="same") for _ in range(12))]
    )
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        for number in range(11, 0, -1):  # conv2d_1 is conv2d_2 in the end, which must be free by then
            file["layers"].move(f"conv2d_{number}", f"conv2d_{2 * number}")
        file.move("layers", "_layer_checkpoint_dependencies")
    members["model.weights.h5"] = weights.getvalue()
    members["config.json"] = members["config.json"].replace(
        b'"keras", "class_name"', b'"keras.engine.sequential", "class_name"', 1
    )
    assert b"keras.engine" in members["config.json"]
    with zipfile.ZipFile(tmp_path / "old.keras", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    for one, other in zip(load(tmp_path / "old.keras").weights, model.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_functions_between_the_layers_are_named_as_what_they_are(tmp_path):
    relu = {
        "class_name": "TFOpLambda",
        "config": {"name": "tf.nn.relu", "trainable": True, "dtype": "float32", "function": "nn.relu"},
    }
    described, model = network("sequential")
    described["config"]["layers"].insert(2, relu)
    model.save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file.attrs["model_config"] = json.dumps(described)
    with pytest.raises(UserError, match="calls functions of TensorFlow between its layers"):
        load(tmp_path / "old.h5")


def test_what_keras_says_after_the_description_is_shown(tmp_path):
    described, model = network("sequential")
    described = json.loads(json.dumps(described))
    described["config"]["layers"][1]["config"]["colour"] = "red"
    model.save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file.attrs["model_config"] = json.dumps(described)
    with pytest.raises(UserError) as caught:
        load(tmp_path / "old.h5")
    assert "Unrecognized keyword arguments passed to Conv2D: {'colour': 'red'}" in caught.value.what
    assert "config=" not in caught.value.what


# How it was compiled


def compiled(folder, suffix, loss, activation, optimizer="adam"):
    image = keras.Input((16, 16, 1))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation=activation)(x)
    model = keras.Model(image, x)
    model.compile(optimizer, loss)
    model.save(folder / f"model.{suffix}")
    return compile_config(folder / f"model.{suffix}")


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_loss_optimizer_and_rate_are_read_from_the_file(suffix, tmp_path):
    config = compiled(tmp_path, suffix, "binary_crossentropy", "sigmoid", keras.optimizers.SGD(0.05))
    found = compiled_options(config)
    assert found["loss"]["name"] == "bce" and found["optimizer"]["name"] == "sgd"
    assert found["optimizer"]["learning_rate"] == pytest.approx(0.05)
    assert found["optimizer"]["usual_rate"] == 0.1
    config = compiled(tmp_path, suffix, "mse", "linear", keras.optimizers.Lion(0.05))
    assert compiled_options(config)["optimizer"]["usual_rate"] is None


def test_what_tensorflow_2_4_wrote_of_the_training_is_read(tmp_path):
    compiled(tmp_path, "h5", "mse", "linear")
    described = {
            "loss": {
                "class_name": "BinaryCrossentropy",
                "config": {
                    "reduction": "auto", "name": "binary_crossentropy", "from_logits": True,
                    "label_smoothing": 0,
                },
            },
            "metrics": None, "weighted_metrics": None, "loss_weights": None,
            "optimizer_config": {
                "class_name": "Adam",
                "config": {
                    "name": "Adam", "learning_rate": 0.5, "decay": 0.0, "beta_1": 0.9, "beta_2": 0.999,
                    "epsilon": 1e-7, "amsgrad": False,
                },
            },
    }  # fmt: skip
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        file.attrs["training_config"] = json.dumps(described)
    found = compiled_options(compile_config(tmp_path / "model.h5"))
    assert found["loss"] == {"name": "bce", "from_logits": True}
    assert found["optimizer"] == {"name": "adam", "learning_rate": 0.5, "usual_rate": 0.001}


def test_of_a_file_that_names_no_training_nothing_is_known():
    assert compiled_options({}) == {}


@pytest.mark.parametrize(
    ("loss", "activation", "found"),
    [
        ("binary_crossentropy", "linear", True),
        ("binary_crossentropy", "sigmoid", False),
        (keras.losses.BinaryCrossentropy(from_logits=True), "linear", False),
        ("mse", "linear", False),
    ],
)
def test_a_linear_output_under_cross_entropy_is_found_in_a_file(loss, activation, found, tmp_path):
    compiled(tmp_path, "keras", loss, activation)
    images = np.random.default_rng(0).random((200, 16, 16, 1), np.float32)
    np.savez(tmp_path / "x.npz", x_train=images)
    done = called(tmp_path, "diagnose", "model.keras", "data=npz", "data.path=x.npz", "--json")
    codes = [finding["code"] for finding in json.loads(done.out)["diagnosis"]["findings"]]
    assert ("CAE215" in codes) is found


# Channels first


def with_channels_first():
    """Every layer whose numbers have an order; Flatten in its order of channels first and last."""
    first = {"padding": "same", "data_format": "channels_first"}
    x = image = keras.Input((3, 16, 24))
    x = layers.Conv2D(4, 3, strides=2, **first)(x)
    x = layers.BatchNormalization(axis=1)(x)
    x = layers.LeakyReLU()(x)
    flat = layers.Flatten(data_format="channels_first")(x)
    other = layers.Flatten(data_format="channels_last")(x)
    y = layers.Add()([layers.Dense(4 * 8 * 12)(z) for z in (flat, other)])
    x = layers.Concatenate(axis=1)([x, layers.Reshape((4, 8, 12))(y)])
    x = layers.UpSampling2D(data_format="channels_first")(x)
    return keras.Model(image, layers.Conv2DTranspose(3, 3, **first)(x))


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_model_with_the_channels_first_takes_and_makes_images_with_the_channels_last(suffix, tmp_path):
    model = with_channels_first()
    for variable in model.weights:  # batch normalisation has no effect as it is made
        variable.assign(np.random.default_rng(1).uniform(0.1, 0.5, variable.shape))
    model.save(tmp_path / f"model.{suffix}")
    x = np.random.default_rng(0).random((2, 16, 24, 3), np.float32)
    # Processors without AVX-512 convolve channels first only where XLA compiles that.
    computed = tf.function(model, jit_compile=True)(np.moveaxis(x, 3, 1))
    expected = np.moveaxis(np.asarray(computed), 1, 3)
    np.testing.assert_allclose(load(tmp_path / f"model.{suffix}")(x), expected, rtol=1e-4)


def test_a_layer_that_is_not_known_with_the_channels_last_is_named(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((1, 8, 8)),
            layers.Conv2D(4, 3, padding="same", data_format="channels_first"),
            layers.PReLU(name="bent"),
            layers.Conv2D(1, 3, padding="same", data_format="channels_first"),
        ]
    )
    model.save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"its layer bent \(PReLU\) is not known with the channels last"):
        load(tmp_path / "model.keras")


# Other forms


def small(folder):
    model = network("sequential")[1]
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    return model


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("model.keras", "MODEL.KERAS"), ("model.h5", "MODEL.H5"),
        ("model.h5", "other.keras"), ("model.keras", "other.h5"),
    ],
)  # fmt: skip
def test_a_file_is_opened_by_its_content_whatever_its_name(content, name, tmp_path):
    model = small(tmp_path)
    (tmp_path / content).rename(tmp_path / name)
    check_same(tmp_path / name, model)


@pytest.mark.parametrize("form", ["sequential", "functional models"])
def test_layers_in_json_are_joined_with_the_weights_beside_them(form, tmp_path):
    described, model = network(form)
    model.save_weights(tmp_path / "new.weights.h5")
    (tmp_path / "new.json").write_text(model.to_json())
    check_same(tmp_path / "new.json", model)
    model.save(tmp_path / "whole.h5")
    with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(tmp_path / "old_weights.h5", "w") as file:
        for name, value in whole["model_weights"].attrs.items():
            file.attrs[name] = value
        for name in whole["model_weights"]:
            whole.copy(f"model_weights/{name}", file)
    (tmp_path / "old.json").write_text(json.dumps(described))
    check_same(tmp_path / "old.json", model)


def test_layers_in_json_without_weights_are_refused(tmp_path):
    (tmp_path / "model.json").write_text(network("sequential")[1].to_json())
    with pytest.raises(UserError, match="has the layers of the model and no weights") as caught:
        load(tmp_path / "model.json")
    assert "model.weights.h5" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "said", "way"),
    [
        ("model.tflite", "TensorFlow Lite", "cae_cli.judge("), ("model.onnx", "ONNX", "cae_cli.judge("),
        ("model.pt", "PyTorch", "cae_cli.judge("), ("best.ckpt", "a checkpoint", "load_weights"),
        ("folder", "a SavedModel is a graph", "tf_keras.models.load_model('folder').save('model.h5')"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_keras_is_refused_with_the_way_that_works(name, said, way, tmp_path):
    if name == "folder":
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_bytes(b"")
    else:
        (tmp_path / name).write_bytes(b"x")
    done = called(tmp_path, "diagnose", name, "data=npz", "data.path=x.npz")
    assert done.code == 2 and said in done.err and way in " ".join(done.err.split())


# Images of a model that nobody trained here


def diagnosed(folder, *words):
    done = called(folder, "diagnose", "model.keras", *words, "--json")
    assert done.out, done.err
    return json.loads(done.out)


def test_all_images_are_measured_and_nothing_is_claimed_of_a_training_that_was_not_seen(tmp_path):
    compiled(tmp_path, "keras", "mse", "sigmoid")
    faces = np.random.default_rng(0).random((40, 4, 4, 1), np.float32).repeat(4, 1).repeat(4, 2)
    np.savez(tmp_path / "x.npz", x_train=faces)
    report = diagnosed(tmp_path, "data=npz", "data.path=x.npz")
    assert report["metrics"]["quality"]["images"] == 40 and report["held_out"] == "evaluation"
    skipped = {x["code"]: x["reason"] for x in report["diagnosis"]["skipped"]}
    unknown = "the images that the network was trained on are not known"
    assert skipped["CAE106"] == skipped["CAE109"] == skipped["CAE501"] == unknown
    assert "cannot tell" not in report["verdict"]
    (summary,) = (path.read_text() for path in tmp_path.glob("runs/diagnose/*/summary.txt"))
    assert "(40 evaluation images)" in summary and "on training images" not in summary


def test_linear_baselines_are_not_fitted_on_the_images_that_they_are_measured_on(tmp_path):
    """Nothing of noise can be predicted, and principal components of its own explain some of it."""
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(2, 3, strides=2, padding="same")(image)
    keras.Model(image, layers.Conv2DTranspose(1, 3, strides=2, padding="same")(x)).save(
        tmp_path / "model.keras"
    )
    noise = np.random.default_rng(0).random((80, 8, 8, 1), np.float32)
    np.savez(tmp_path / "x.npz", x_train=noise)
    report = diagnosed(tmp_path, "data=npz", "data.path=x.npz")
    centred = noise.reshape(80, -1) - noise.reshape(80, -1).mean(axis=0)
    powers = np.square(np.linalg.svd(centred, compute_uv=False))
    fitted_on_them = powers[:32].sum() / powers.sum()
    unseen = report["metrics"]["perturbation"]["projection"]
    assert unseen < 0.55 < 0.75 < fitted_on_them  # 32 of 64 directions have half of the noise


def test_of_a_source_with_a_test_part_only_that_is_measured(tmp_path):
    compiled(tmp_path, "keras", "mse", "sigmoid")
    images = np.random.default_rng(0).random((60, 16, 16, 1), np.float32)
    np.savez(tmp_path / "x.npz", x_train=images[:40], x_test=images[40:])
    report = diagnosed(tmp_path, "data=npz", "data.path=x.npz")
    assert report["metrics"]["quality"]["images"] == 20


@pytest.mark.parametrize(
    ("shape", "way"),
    [
        ((16, 16, 3), "Use data.channels=1 for"), ((32, 32, 1), "Use data.image_size=16 for"),
        ((32, 24, 3), "Use data.image_size=16 data.channels=1 for"),
    ],
)  # fmt: skip
def test_another_shape_of_the_images_is_refused_with_the_options_that_mend_it(shape, way, tmp_path):
    model = network("sequential")[1]
    with pytest.raises(UserError) as caught:
        introspect(model, shape=shape)
    assert way in caught.value.hint


@pytest.mark.parametrize(("bias", "hinted"), [(1.0, True), (1000.0, False)])
def test_a_range_is_suggested_only_where_the_model_explains_images_of_it(bias, hinted, tmp_path):
    """A network that returns values from 1 on as they are; with a large bias it explains no range."""
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(1, 1, activation="relu", name="code")(image)
    model = keras.Model(image, layers.Conv2D(1, 1)(x))
    one = np.ones((1, 1, 1, 1))
    model.set_weights([one, np.array([-1.0]), one, np.array([bias])])
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", x_train=np.random.default_rng(0).random((64, 8, 8, 1), np.float32))
    report = diagnosed(tmp_path, "data=npz", "data.path=x.npz")
    fixes = [fix["keras"] for f in report["diagnosis"]["findings"] for fix in f["fixes"]]
    assert any("--range=0,255" in fix for fix in fixes) is hinted
