"""Model files that somebody made to do harm: refused in one line, nothing run, nothing allocated."""

import contextlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from cae_cli.data import Images
from cae_cli.errors import UserError
from cae_cli.external import model as external_model
from cae_cli.external.model import prepare
from cae_cli.introspection import footprint, introspect, load
from cae_cli.introspection.probe import Probe, kept_bytes
from cae_cli.system import memory
from tests.conftest import called, environment

CUSTOM = """
import keras

@keras.saving.register_keras_serializable(package="mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return x * 2
"""


def network(*more):
    """A small autoencoder."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="code"),
            *more,
            layers.Conv2DTranspose(1, 3, strides=2, padding="same", name="output"),
        ]
    )


@pytest.fixture
def good(tmp_path):
    """A file as Keras writes it."""
    model = network()
    model.compile("adam", "mse")
    model.save(tmp_path / "good.keras")
    return tmp_path / "good.keras"


def parts(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path, members, way=zipfile.ZIP_STORED):
    """A .keras file of any parts; a list of pairs may have a name twice."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", way) as archive:
        warnings.simplefilter("ignore")
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return path


def with_config(good, change, name="bad.keras"):
    """The good file with another description."""
    members = parts(good)
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    return written(good.with_name(name), members)


def with_weights(good, change, name="bad.keras"):
    """The good file with other weights."""
    members = parts(good)
    content = io.BytesIO(members["model.weights.h5"])
    with h5py.File(content, "r+") as file:
        change(file)
    members["model.weights.h5"] = content.getvalue()
    return written(good.with_name(name), members)


def layer(config, name):
    return next(x for x in config["config"]["layers"] if x["config"].get("name") == name)


def refused(path, custom=None):
    with pytest.raises(UserError) as caught:
        load(path, custom)
    error = caught.value
    assert error.hint
    assert len(error.what) < 400
    assert all(c.isprintable() for c in error.what)
    return error.what


def canary(tmp_path):
    """A file that code would make, and a lambda that makes it."""
    path = tmp_path / "canary"
    assert not path.exists()
    return path, eval(f"lambda x: (__import__('pathlib').Path({str(path)!r}).touch(), x)[1]")


# Code


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_code_is_refused_and_run_only_with_unsafe(suffix, tmp_path):
    made, code = canary(tmp_path)
    network(layers.Lambda(code)).save(tmp_path / f"model.{suffix}")
    made.unlink()  # it ran while the model was built
    assert "holds a Lambda layer" in refused(tmp_path / f"model.{suffix}")
    assert not made.exists()
    load(tmp_path / f"model.{suffix}", unsafe=True)
    assert made.exists()


def hidden(where):
    """Puts code somewhere into a description."""

    def change(config):
        code = {"class_name": "__lambda__", "config": {"value": "4wAAAAA="}}
        lambda_layer = {
            "module": "keras.layers", "class_name": "Lambda", "registered_name": None,
            "config": {"name": "l", "function": code},
        }  # fmt: skip
        first = layer(config, "code")
        match where:
            case "activation":
                first["config"]["activation"] = code
            case "list":
                first["config"]["kernel_size"] = [[3, [code]]]
            case "build":
                first["build_config"]["more"] = {"deep": [code]}
            case "nested":
                config["config"]["layers"].insert(1, {**config, "config": {"layers": [lambda_layer]}})
            case "dotted":
                config["config"]["layers"].insert(
                    1, {**lambda_layer, "module": "keras", "class_name": "layers.Lambda"}
                )
            case "inside":
                config["config"]["layers"].insert(
                    1, {**lambda_layer, "module": "keras.src.layers.core.lambda_layer"}
                )
            case "function":
                first["config"]["activation"] = {
                    "module": "keras.layers", "class_name": "function", "config": "Lambda",
                    "registered_name": "Lambda",
                }  # fmt: skip
            case "graph":
                config["config"]["layers"].insert(
                    1, {**lambda_layer, "class_name": "TFSMLayer", "config": {"filepath": "/tmp"}}
                )

    return change


@pytest.mark.parametrize(
    "where",
    ["activation", "list", "build", "nested", "dotted", "inside", "function", "graph"],
)
def test_code_is_found_wherever_it_hides(where, good):
    assert "would run code" in refused(with_config(good, hidden(where)))


@pytest.mark.parametrize(
    "module", ["os", "subprocess", "hostile", "keras_hub", "keras_cv.models", ["os"]]
)
def test_no_module_but_keras_is_imported_for_a_class(module, good, tmp_path, monkeypatch):
    (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    for package in ("keras_hub", "keras_cv"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def change(config):
        layer(config, "code").update(module=module, class_name="Popen", registered_name=None)

    assert "needs the class Popen, which Keras does not know" in refused(with_config(good, change))
    assert not (tmp_path / "canary").exists()
    assert "hostile" not in sys.modules
    assert "keras_hub" not in sys.modules


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.datasets.mnist", "load_data"),
        ("keras", "datasets.mnist.load_data"),
        ("keras.applications", "ResNet50"),
        ("keras.utils", "get_file"),
        ("keras.config", "enable_unsafe_deserialization"),
        ("keras.saving", "load_model"),
    ],
)
def test_tools_of_keras_are_no_part_of_a_network(module, name, good):
    def change(config):
        layer(config, "code")["config"]["activation"] = {
            "module": module, "class_name": "function", "config": name, "registered_name": name,
        }  # fmt: skip

    assert f"names {module}.{name}, which is no part" in refused(with_config(good, change))


def test_a_class_of_the_users_own_file_is_known_by_every_name(tmp_path):
    custom = tmp_path / "mine.py"
    custom.write_text(CUSTOM)
    scope = {"__name__": "elsewhere"}
    exec(CUSTOM, scope)
    network(scope["Twice"]()).save(tmp_path / "model.keras")
    keras.saving.get_custom_objects().pop("mine>Twice")
    assert "needs the class Twice" in refused(tmp_path / "model.keras")
    opened = load(tmp_path / "model.keras", custom)
    assert "Twice" in [type(x).__name__ for x in opened.layers]
    keras.saving.get_custom_objects().pop("mine>Twice")


def test_a_loss_of_somebodys_own_does_not_matter(tmp_path):
    def mine(target, output):
        return keras.ops.mean(target - output)

    model = network()
    model.compile("adam", mine)
    model.save(tmp_path / "model.keras")
    assert len(load(tmp_path / "model.keras").layers) == 2


def test_a_lambda_as_the_loss_is_no_layer_and_is_not_run(good):
    def change(config):
        config["compile_config"]["loss"] = {"class_name": "__lambda__", "config": {"value": "4wAAAAA="}}

    assert len(load(with_config(good, change)).layers) == 2


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_lambda_as_the_loss_of_a_model_within_the_model_is_no_layer(tmp_path):
    inner = network()
    inner.compile("adam", lambda target, output: keras.ops.mean(target - output))
    outer = keras.Sequential([keras.Input((8, 8, 1)), inner])
    outer.save(tmp_path / "model.keras")
    assert "__lambda__" in parts(tmp_path / "model.keras")["config.json"].decode()
    assert len(load(tmp_path / "model.keras").layers) == 1


# Files


def test_a_packed_file_is_refused_before_it_is_unpacked(good):
    bomb = parts(good) | {"assets/zeros": bytes(2**28)}
    path = written(good.with_name("bomb.keras"), bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    assert "is compressed or encrypted" in refused(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("assets/../../canary", "a member that no Keras model has"),
        ("../canary", "a member that no Keras model has"),
        ("/tmp/canary", "a member that no Keras model has"),
        ("run\x1b[2J.py", "a member that no Keras model has: run\\x1b[2J.py"),
        ("model.weights.npz", "a member that no Keras model has"),
    ],
)
def test_parts_that_no_model_has_are_refused(name, said, good):
    assert said in refused(written(good.with_name("bad.keras"), parts(good) | {name: b"x"}))


def test_parts_that_are_links_are_refused(good):
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = 0o120777 << 16
    members = [*parts(good).items(), (link, "/etc/passwd")]
    assert "a member that no Keras model has: assets/link" in refused(
        written(good.with_name("bad.keras"), members)
    )


def test_parts_that_are_there_twice_are_refused(good):
    for name in ("config.json", "model.weights.h5"):
        members = [*parts(good).items(), (name, parts(good)[name])]
        assert "holds a part twice" in refused(written(good.with_name("bad.keras"), members))


def test_sizes_that_are_lies_are_refused(good):
    path = written(good.with_name("bad.keras"), parts(good))
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\x01\x02")
    content[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(content)
    assert "holds less data than it declares" in refused(path)


def test_a_file_of_holes_is_larger_than_memory(tmp_path):
    for name in ("a.keras", "a.h5"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**42)
        assert "the model would need 8.8 TB of memory" in refused(tmp_path / name)


@pytest.mark.parametrize("config", ["[" * 100_000, '{"a":' * 100_000, '{"a": "' + "x" * 2**26 + '"}'])
def test_descriptions_without_end_are_refused(config, good, tmp_path):
    path = written(good.with_name("bad.keras"), parts(good) | {"config.json": config})
    assert "description of the network is too large" in refused(path)
    with h5py.File(tmp_path / "bad.h5", "w", libver="latest") as file:
        file.attrs["model_config"] = config
    assert "description of the network is too large" in refused(tmp_path / "bad.h5")


def test_networks_nested_without_end_are_refused(good):
    def change(config):
        inner = dict(config)
        for _ in range(80):
            inner = {**inner, "config": {"name": "n", "layers": [inner]}}
        config["config"] = {"name": "n", "layers": [inner]}

    assert "too large" in refused(with_config(good, change))


@pytest.mark.parametrize(
    "config",
    [
        *("null", "3", "[]", "{}", "\x00", '{"a": NaN}', '{"class_name": "Sequential"}'),
        *('{"class_name": [], "config": {}}', '{"class_name": 1, "module": "os"}'),
        *('{"module": {}, "class_name": {}}', '{"class_name": "Sequential", "config": {"layers": 3}}'),
        '{"module": "keras", "class_name": "Sequential", "config": {"layers": [{}]}}',
        '{"class_name": "function", "config": {}, "module": "keras"}',
    ],
)
def test_descriptions_of_nothing_are_refused(config, good, tmp_path):
    assert refused(written(good.with_name("bad.keras"), parts(good) | {"config.json": config}))
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file.attrs["model_config"] = np.void(config.encode())
        file.create_group("model_weights")
    assert refused(tmp_path / "bad.h5")


# Weights


def kernel(file):
    """Group and name of the first kernel."""
    found = []
    file.visititems(lambda name, x: found.append(name) if isinstance(x, h5py.Dataset) else None)
    group, _, name = next(n for n in found if file[n].ndim == 4).rpartition("/")
    return file[group], name


def replaced(kind, secret):
    """Puts something else where a kernel is."""

    def change(file):
        group, name = kernel(file)
        shape = group[name].shape
        size = int(np.prod(shape))
        del group[name]
        match kind:
            case "external link":
                group[name] = h5py.ExternalLink(str(secret), "secret")
            case "soft link":
                group[name] = h5py.SoftLink("/elsewhere")
            case "external storage":
                group.create_dataset(name, shape, "f4", external=[(str(secret), 0, 4 * size)])
            case "virtual":
                layout = h5py.VirtualLayout(shape, "f4")
                layout[...] = h5py.VirtualSource(str(secret), "secret", shape)
                group.create_virtual_dataset(name, layout)
            case "strings":
                group.create_dataset(name, shape, h5py.string_dtype())
            case "references":
                group.create_dataset(name, shape, h5py.ref_dtype)
            case "gzip bomb":
                group.create_dataset(name, (2**14, 2**14, 1, 4), "f4", compression="gzip", chunks=True)
            case "nothing stored":
                group.create_dataset(
                    name, (2**20, 2**20, 1, 4), "f4", fillvalue=1, chunks=(1024, 1024, 1, 4)
                )

    return change


LEADS = {
    **dict.fromkeys(
        ("external link", "soft link", "external storage", "virtual"), "are links out of the file"
    ),
    **{"strings": "are not numbers", "references": "are not numbers"},
    **{"gzip bomb": "are compressed", "nothing stored": "are compressed"},
}


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("kind", LEADS)
def test_weights_that_are_elsewhere_or_packed_are_refused(kind, suffix, good, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["secret"] = np.zeros((3, 3, 1, 4), np.float32)
    if suffix == "keras":
        path = with_weights(good, replaced(kind, secret))
    else:
        path = tmp_path / "bad.h5"
        network().save(path)
        with h5py.File(path, "r+") as file:
            replaced(kind, secret)(file)
    assert LEADS[kind] in refused(path)


def test_groups_within_themselves_end_somewhere(good):
    def change(file):
        group = file.create_group("deep")
        for _ in range(3000):
            group = group.create_group("d")
        group["round"] = file["/"]

    assert len(load(with_weights(good, change)).layers) == 2


def huge(filters):
    def change(config):
        layer(config, "code")["config"]["filters"] = filters

    return change


def test_layers_of_terabytes_are_never_allocated(good):
    # 3x3x1 weights to each of 2^38 filters: 10 TB, and a file of 20 kB
    assert "cannot be opened" in refused(with_config(good, huge(2**38)))


COUNTED = """
import keras

@keras.saving.register_keras_serializable(package="mine")
class Scaled(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = keras.Variable([2.0], name="factor")
        self.count = keras.Variable(3, trainable=False, dtype="int32")

    def call(self, x):
        return x * self.factor
"""


@pytest.mark.parametrize("kind", ["optimizer", "layer"])
def test_variables_made_from_values_do_not_keep_a_model_from_being_tried(kind, tmp_path):
    """Those of the optimizer of a model within the model, and those of a class of the user's own."""
    path, custom, scope = tmp_path / "outer.keras", tmp_path / "mine.py", {"__name__": "elsewhere"}
    custom.write_text(COUNTED)
    exec(COUNTED, scope)
    inner = network(*([scope["Scaled"]()] if kind == "layer" else []))
    if kind == "optimizer":
        inner.compile("adam", "mse")
        inner.optimizer.build(inner.trainable_variables)
    keras.Sequential([keras.Input((8, 8, 1)), inner]).save(path)
    x = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
    opened = load(path, custom)
    np.testing.assert_array_equal(opened(x), inner(x))
    assert getattr(opened.layers[0], "optimizer", None) is None

    def change(config):
        first = next(x for x in config["config"]["layers"] if "layers" in x["config"])
        layer({"config": first["config"]}, "code")["config"]["filters"] = 2**16

    create, created = keras.Variable.__init__, []

    def watched(variable, *args, **kwargs):
        create(variable, *args, **kwargs)
        created.append(variable)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Variable, "__init__", watched)
        refused(with_config(path, change), custom)
    assert max(np.prod(variable.shape) for variable in created) > 2**16
    assert all(variable._value is None for variable in created)
    keras.saving.get_custom_objects().pop("mine>Scaled")


def test_layers_that_would_just_fit_are_not_allocated_either(good, tmp_path):
    """In a process whose memory is limited; TensorFlow alone takes some."""
    path = with_config(good, huge(2**27))  # 5 GB for the first layer, as much for the next
    code = """
import resource, sys
from cae_cli.introspection import load
from cae_cli.errors import UserError
load(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load(sys.argv[2])
except UserError as error:
    print(error.what)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, good, path], capture_output=True, text=True, env=environment()
    )
    said, more = done.stdout.strip().splitlines()
    assert "cannot be opened" in said
    assert int(more) < 2**20  # kilobytes


def test_weights_of_other_shapes_are_refused(good):
    def change(file):
        group, name = kernel(file)
        del group[name]
        group[name] = np.zeros((3, 3, 1, 5), np.float32)

    assert "cannot be opened" in refused(with_weights(good, change))
    assert "cannot be opened" in refused(with_weights(good, lambda file: file.clear()))


def test_a_file_cut_anywhere_or_with_flipped_bytes_opens_or_is_refused(good):
    whole = good.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for i in range(25):
        flipped = bytearray(whole)
        for at in rng.integers(0, len(whole), 30):
            flipped[at] = rng.integers(256)
        for content in (whole[: rng.integers(1, len(whole))], bytes(flipped)):
            path = good.with_name(f"bad{i}.keras")
            path.write_bytes(content)
            try:
                load(path)
                outcomes.add("opened")
            except UserError:
                outcomes.add("refused")
    assert "refused" in outcomes


def test_the_trial_leaves_nothing_behind(good):
    before = keras.src.backend.common.global_state.get_global_attribute("uninitialized_variables")
    assert not before
    refused(with_config(good, huge(2**38)))
    with keras.StatelessScope():  # at its end Keras gives values to variables without one
        pass
    model, other = load(good), keras.saving.load_model(good, compile=False)
    x = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(model(x), other(x))
    assert model.variables[0].value is not None


# Outputs


def reshaped(*inside):
    """Layers for (64, values) between images of 8x8."""
    return [layers.Reshape((64, 1)), *inside, layers.Reshape((8, 8, 1))]


def attention(x):
    x = layers.UpSampling1D(1000)(layers.Reshape((64, 1))(x))
    x = layers.MultiHeadAttention(1, 1, name="bomb")(x, x)
    return layers.Reshape((8, 8, 1))(layers.AveragePooling1D(1000)(x))


def more_images(x):
    x = keras.ops.repeat(x, 10**8, axis=0)
    return keras.ops.reshape(x, (10**8, -1, 8, 8, 1))[0]


def up_and_back():
    return [layers.UpSampling2D(2**16, name="bomb"), layers.AveragePooling2D(2**16)]


# From images to images of 8x8x1: a few layers whose outputs are larger than any memory.
BOMBS = {
    "upsampling": up_and_back,
    "bilinear": lambda: [
        layers.UpSampling2D(2**16, interpolation="bilinear", name="bomb"),
        layers.AveragePooling2D(2**16),
    ],
    "beyond int64": lambda: [
        layers.UpSampling2D(2**40, name="bomb"), layers.GlobalMaxPooling2D(),
        layers.RepeatVector(64), layers.Reshape((8, 8, 1)),
    ],
    "padding": lambda: [layers.ZeroPadding2D(10**6, name="bomb"), layers.Cropping2D(10**6)],
    "transposed": lambda: [
        layers.Conv2DTranspose(1, 1, strides=10**4, name="bomb"), layers.AveragePooling2D(10**4)
    ],
    "dense": lambda: [
        layers.Flatten(), layers.Dense(100), layers.Reshape((10, 10, 1)),
        layers.Conv2DTranspose(1, 1, strides=10**5, name="bomb"), layers.Resizing(8, 8),
    ],
    "resizing": lambda: [layers.Resizing(2**16, 2**16, name="bomb"), layers.Resizing(8, 8)],
    "repeat": lambda: [
        layers.Flatten(), layers.RepeatVector(10**8, name="bomb"), layers.GlobalAveragePooling1D(),
        layers.Reshape((8, 8, 1)),
    ],
    "one axis": lambda: reshaped(layers.UpSampling1D(10**9, name="bomb"), layers.MaxPooling1D(10**9)),
    "nested": lambda: [keras.Sequential([keras.Sequential(up_and_back())])],
    "inside a layer": lambda: [
        layers.Reshape((1, 8, 8, 1)),
        layers.TimeDistributed(keras.Sequential(up_and_back()), name="bomb"),
        layers.Reshape((8, 8, 1)),
    ],
    "attention": lambda: [attention],
    "the batch": lambda: [more_images],
}  # fmt: skip


def bomb(kind, path):
    """A small file of a model with the layers of `BOMBS`."""
    x = image = keras.Input((8, 8, 1))
    for layer in [*BOMBS[kind](), *network().layers]:
        x = layer(x)
    keras.Model(image, x).save(path)
    assert path.stat().st_size < 2**20
    return path


IMAGES = Images(*np.random.default_rng(0).integers(0, 256, (2, 20, 8, 8, 1), dtype=np.uint8))


@pytest.mark.parametrize("kind", BOMBS)
def test_layers_with_outputs_beyond_memory_are_refused_before_they_compute(kind, tmp_path, monkeypatch):
    model = load(bomb(kind, tmp_path / "model.keras"))
    monkeypatch.setattr(memory, "free", lambda: 8 * 10**9)
    with pytest.raises(UserError) as caught:
        prepare(model, IMAGES, None, (0.0, 1.0))
    layer = "repeat" if kind == "the batch" else "bomb"
    assert f"the model, whose layer {layer} makes " in caught.value.what
    assert "values of each image, would need " in caught.value.what
    assert "this machine has 8.0 GB free" in caught.value.what
    monkeypatch.setattr(memory, "free", lambda: None)
    footprint(introspect(model))  # where free memory is unknown, nothing is refused


def sharp():
    """An autoencoder that reconstructs without training, so that its maps have a use."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(3, 3, padding="same", activation="relu", name="code"),
            layers.Conv2D(1, 3, padding="same", name="output"),
        ]
    )
    kernel = np.random.default_rng(0).normal(0, 0.01, (3, 3, 1, 3))
    kernel[1, 1, 0, :2] = 1, 0.5
    model.layers[0].kernel.assign(kernel)
    model.layers[1].kernel.assign(kernel.swapaxes(2, 3))
    return model


def test_a_model_for_which_memory_is_short_is_measured_in_smaller_batches(monkeypatch):
    model = sharp()
    each = footprint(introspect(model)).needed
    monkeypatch.setattr(memory, "free", lambda: 4 * 3 * each + 2 * each)
    monkeypatch.setattr(external_model, "kept_bytes", lambda *_: 0)
    autoencoder, _, fitting = prepare(model, IMAGES, None, (0.0, 1.0))
    assert fitting == 3
    few, all_ = Probe(autoencoder, IMAGES, fitting=fitting), Probe(autoencoder, IMAGES)
    assert few.batch * few.threads <= fitting < all_.batch
    expected, arrays = all_.record(), few.record()
    assert arrays.keys() == expected.keys()
    assert np.isfinite(expected["utility/code"]).all()
    for name, value in expected.items():
        np.testing.assert_allclose(arrays[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("free", [0.9, 1.1])
def test_maps_and_codes_that_are_kept_count(free, monkeypatch):
    autoencoder = introspect(sharp())
    needed = footprint(autoencoder).needed + kept_bytes(autoencoder, 8)
    # 8x8 maps of 3 and of 1 channels, and twice the code: of eight images, single precision
    assert kept_bytes(autoencoder, 8) == 8 * 64 * (4 + 6) * 4 + 8 * (2 * 64 * 4 + 10)
    assert footprint(autoencoder).needed == 64 * (1 + 3) * 4
    monkeypatch.setattr(memory, "free", lambda: int(needed * free))
    monkeypatch.setattr(memory, "UNASKED", 0)
    with pytest.raises(UserError) if free < 1 else contextlib.nullcontext():
        prepare(sharp(), IMAGES, None, (0.0, 1.0))


# The command


def diagnosed(tmp_path, *words):
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x_train=images)
    return called(tmp_path, "diagnose", *words, "data=npz", "data.path=x.npz", COLUMNS="200")


def test_the_command_refuses_code_and_runs_it_after_a_warning(tmp_path):
    made, code = canary(tmp_path)
    network(layers.Lambda(code, name="mine")).save(tmp_path / "model.keras")
    made.unlink()
    done = diagnosed(tmp_path, "model.keras")
    assert done.code == 2
    assert "error: the model holds a Lambda layer, which would run code from the file" in done.err
    assert "--unsafe" in done.err
    assert "Traceback" not in done.err
    assert not made.exists()
    done = diagnosed(tmp_path, "model.keras", "--unsafe")
    assert done.code == 0, done.err
    assert "! --unsafe: code in model.keras is run" in done.err
    assert made.exists()


def test_the_command_refuses_a_model_that_does_not_fit_into_memory(tmp_path):
    bomb("upsampling", tmp_path / "model.keras")
    done = diagnosed(tmp_path, "model.keras")
    assert done.code == 2
    assert done.err.count("error: ") == done.err.count("hint: ") == 1
    assert "error: the model, whose layer bomb makes " in done.err
    assert "Traceback" not in done.err
    assert not any((tmp_path / "runs" / "diagnose").iterdir())


def test_help_says_that_unsafe_runs_code(tmp_path):
    done = diagnosed(tmp_path, "--help")
    assert "--unsafe" in done.out
    assert "executing it with all your permissions" in " ".join(done.out.split())


@pytest.mark.parametrize(
    "name", ["esc\x1b[2J", "new\nline", "<script>", "[red]x", "\u202ebidi", "my layer", "..", "größe"]
)
def test_names_that_tensorflow_cannot_use_are_shown_and_not_obeyed(name, tmp_path):
    network(layers.ReLU(name=name)).save(tmp_path / "model.keras")
    said = refused(tmp_path / "model.keras")
    assert "has a name that TensorFlow cannot use" in said
    assert ascii(name)[1:-1] in said or name in said


def test_the_name_of_a_file_is_shown_and_not_obeyed(tmp_path):
    network().save(tmp_path / "model.keras")
    shutil.move(tmp_path / "model.keras", tmp_path / "[red]esc\x1b[2J\n.keras")
    done = diagnosed(tmp_path, "[red]esc\x1b[2J\n.keras")
    assert done.code == 0, done.err
    assert "[red]esc\\x1b[2J\\n.keras: " in done.err
    written_by_it = [p.read_text() for p in tmp_path.glob("runs/diagnose/*/*.txt")]
    assert len(written_by_it) == 1
    for text in (done.out, done.err, *written_by_it):
        assert all(c.isprintable() or c == "\n" for c in text)


def test_a_pipe_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "model.keras")
    assert refused_without_hint(tmp_path / "model.keras") == "there is no such file"


def refused_without_hint(path):
    with pytest.raises(UserError) as caught:
        load(path)
    return caught.value.what


def unusual(kind):
    """Models of types and names that are rare, and correct or not."""
    image = keras.Input((8, 8, 1))
    x = layers.Discretization(bin_boundaries=[0.2, 0.6])(image) if kind == "integers" else image
    types = {"bfloat16": "bfloat16", "float64": "float64"}
    x = layers.Conv2D(4, 3, padding="same", name="long" * 75, dtype=types.get(kind))(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(2, 3, padding="same", name="long" * 74)(x)
    x = layers.Conv2DTranspose(1, 3, strides=2, padding="same", name="output")(x)
    if kind == "quantized":
        x = layers.Reshape((8, 8, 1))(layers.Dense(64)(layers.Flatten()(x)))
    model = keras.Model(image, x)
    if kind == "quantized":
        with warnings.catch_warnings(action="ignore"):  # most layers stay as they are
            model.quantize("int8")
    return model


@pytest.mark.pictures
@pytest.mark.parametrize(("kind", "code"), [("bfloat16", 0), ("quantized", 0), ("integers", 2)])
def test_unusual_types_and_long_names_of_layers(kind, code, tmp_path):
    unusual(kind).save(tmp_path / "model.keras")
    words = ("data=digits", "data.train=32", "data.test=32")
    done = called(tmp_path, "diagnose", "model.keras", *words)
    assert done.code == code, done.err
    if code:
        assert "error: the model cannot compute an image: " in done.err
    else:
        pictures = [path.stem for path in (tmp_path / done.folder / "filters").glob("long*.png")]
        assert len(set(pictures)) == 2 and max(map(len, pictures)) < 200
        assert max(map(len, done.out.splitlines())) < 400
