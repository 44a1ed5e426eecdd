"""What is written down of a trained network: against slow computations by hand."""

import inspect
import re
from dataclasses import fields, replace

import numpy as np
import pytest

from cae_cli.data import Images, as_float
from cae_cli.introspection import budget, introspect, probe, views
from cae_cli.introspection.probe import Probe
from cae_cli.metrics.filters import structure
from cae_cli.metrics.labels import probe_accuracy
from cae_cli.metrics.latent import LatentUse
from cae_cli.metrics.loss_minimum import LossMinimum
from cae_cli.metrics.perturbation import perturbation
from cae_cli.metrics.reach import ReachStatistics
from cae_cli.metrics.sample import Sample
from cae_cli.metrics.spectrum import Spectrum
from cae_cli.model.build import build
from cae_cli.training import backend
from tests.tf.conftest import configured
from tests.tf.test_training import blobs, trained, weights

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

pytestmark = pytest.mark.tf


def labelled(count, seed):
    images = blobs(count, seed)
    return images, (images.mean(axis=(1, 2, 3)) > 127).astype(np.int64)


TRAIN, TRAIN_LABELS = labelled(200, 0)
HELD_OUT, LABELS = labelled(50, 1)
IMAGES = Images(
    train=TRAIN, validation=HELD_OUT, train_labels=TRAIN_LABELS, validation_labels=LABELS, source="blobs"
)
UNLABELLED = replace(IMAGES, train_labels=None, validation_labels=None)


def new(*overrides):
    config = configured(*overrides)
    backend.seed(config.seed)
    return build(IMAGES.shape, config.model, tuple(config.regularization.values()))


@pytest.fixture(scope="module")
def reference():
    """The reference network after two epochs: itself, its first weights, what was recorded."""
    network = new()
    before = weights(network)
    probing = Probe(network, IMAGES)
    trained(images=IMAGES, network=network)
    after = weights(network)
    arrays = probing.record()
    assert all(np.array_equal(a, b) for a, b in zip(weights(network), after, strict=True))
    return network, before, arrays


def measured(arrays):
    """The names but those of `views`."""
    return {name for name in arrays if not name.startswith("view/")}


def listed(network, table=probe.__doc__):
    """The names in the table at the top of a file, written out; without those of `views`."""
    names = []
    for entry in re.findall(r"^``(.+?)``", table, re.MULTILINE):
        first, *others = entry.split(", ")
        names.append(first)
        for other in others:  # "example_images, _outputs", "labels/trained, /initial", "mse, ssim"
            stem = first.rpartition(other[0])[0] if other[0] in "_/" else ""
            names.append(stem + other)
    given = ("mse", "mean_mse", "train_mse", "train_mean_mse")  # from names of their own
    fills = {
        "<layer>": network.maps,
        "perturbation/<argument>": [
            a for a in inspect.signature(perturbation).parameters if a not in given
        ],
        "spectrum/<attribute>": [field.name for field in fields(Spectrum)],
        "latent/<attribute>": [field.name for field in fields(LatentUse)],
        "loss/<attribute>": [field.name for field in fields(LossMinimum)],
        "reach/<attribute>": [field.name for field in fields(ReachStatistics)],
        "sample/<attribute>": [field.name for field in fields(Sample)],
    }
    found = set()
    for name in names:
        part = next((part for part in fills if part in name), "")
        place = part[part.find("<") :]
        found |= {name.replace(place, fill) for fill in fills[part]} if part else {name}
    return found - {"view/<array>"}


def test_the_table_lists_what_is_written(reference):
    network, _, arrays = reference
    elsewhere = {"example_inputs", "chosen_inputs", "preparation/<attribute>"}
    assert measured(arrays) == listed(network) - elsewhere


def test_the_table_of_views_lists_what_is_written(reference):
    network, _, arrays = reference
    names = listed(network, views.__doc__)
    known = {name.removeprefix("view/") for name in set(arrays) - measured(arrays)}
    before = {name.removeprefix("untrained_") for name in known if name.startswith("untrained_")}
    assert {name for name in known if not name.startswith("untrained_")} == names
    assert names - before == {n for n in names if n.startswith(("shown/", "field/"))} | {
        *("thumbnail", "code_label")
    }


def test_views_of_the_untrained_network_are_the_views_before_training(reference):
    """And the weights are the trained ones again, to the bit."""
    network, _, _ = reference
    probe = Probe(network, UNLABELLED)
    trained = network.model.get_weights()
    moved = [w + 0.05 for w in trained]
    network.model.set_weights(moved)
    try:
        arrays = probe.record()
        assert all(map(np.array_equal, network.model.get_weights(), moved))
    finally:
        network.model.set_weights(trained)
    again = Probe(network, UNLABELLED).record()
    same = [n for n in again if n.startswith(("view/untrained_patch/", "view/untrained_map/"))]
    assert len(same) == 2 * len(network.maps)
    for name in same:
        own = name.replace("untrained_", "")
        # The maps of both are of batches of another size.
        assert np.allclose(again[name], again[own], atol=1e-5 * np.abs(again[own]).max())
        if np.array_equal(arrays["view/shown/encoder_1"], again["view/shown/encoder_1"]):
            assert np.array_equal(arrays[name], again[name]) or "encoder_1" not in name


def test_inputs_that_are_no_images_are_fed_and_the_images_expected(reference):
    network, _, arrays = reference
    noise = np.random.default_rng(0).normal(0, 0.3, HELD_OUT.shape).astype(np.float32)
    inputs = as_float(HELD_OUT) + noise
    pairs = replace(UNLABELLED, train_inputs=as_float(TRAIN), validation_inputs=inputs)
    found = Probe(network, pairs).record()
    elsewhere = {"labels/trained", "labels/initial", "preparation/<attribute>"}
    assert measured(found) == listed(network) - elsewhere
    outputs = np.asarray(network.model(inputs))
    squares = np.square(outputs - as_float(HELD_OUT)).mean(axis=(1, 2, 3))
    assert found["mse"] == pytest.approx(squares, rel=1e-4)
    assert np.array_equal(found["example_inputs"], inputs[:8])
    made = np.asarray(network.model(found["chosen_inputs"]))
    assert np.square(made - found["chosen_images"]).mean(axis=(1, 2, 3)) == pytest.approx(
        found["chosen_mse"], rel=1e-3
    )
    assert np.array_equal(found["example_images"], arrays["example_images"])
    for same in ("mean_mse", "black_mse", "perturbation/grey_mse"):
        assert np.array_equal(found[same], arrays[same])
    for other in ("perturbation/pixel_shuffle_mse", "perturbation/noise_response", "map_std/encoder_1"):
        assert np.isfinite(found[other]).all() and not np.allclose(found[other], arrays[other])


def test_what_is_not_known_is_not_written(reference):
    network, _, arrays = reference
    found = set(Probe(network, UNLABELLED, untrained=False).record())
    missing = {n for n in arrays if n.startswith(("labels/", "initial_kernel/", "view/code_label"))}
    assert found == set(arrays) - missing


def slow_error(network, images, layer, replaced):
    """Mean squared error of a chain of layers in which one map is replaced by its mean."""
    x = images
    for step in network.model.layers[1:]:
        x = np.array(step(x, training=False))
        if step.name == f"{layer}_map" and replaced is not None:
            x[..., replaced] = x[..., replaced].mean()
    return np.square(x - images, dtype=np.float64).mean()


def test_the_utility_of_a_filter_is_what_its_removal_costs(reference):
    network, _, arrays = reference
    images = as_float(HELD_OUT)
    mean_image = as_float(TRAIN).mean(axis=0, dtype=np.float64)
    variance = np.square(images - mean_image).mean()
    whole = slow_error(network, images, None, None)
    for layer in network.maps:
        expected = [
            (slow_error(network, images, layer, i) - whole) / (variance - whole)
            for i in range(network.maps[layer].shape[-1])
        ]
        assert arrays[f"utility/{layer}"] == pytest.approx(np.array(expected), rel=2e-3, abs=2e-5), layer
    assert np.abs(arrays["utility/encoder_1"]).max() > 1e-3
    assert arrays["utility/output"] == pytest.approx(variance / (variance - whole), rel=1)


@pytest.mark.soak
def test_of_many_filters_those_that_vary_most_are_taken_out():
    overrides = ["model.filters=[70,2]", "optimizer.learning_rate=0.01"]
    network = trained(*overrides, images=IMAGES, network=new(*overrides))[0]
    arrays = Probe(network, UNLABELLED).record()
    tried = np.isfinite(arrays["utility/encoder_1"])
    assert tried.sum() == 128 // 5 and np.isfinite(arrays["utility/encoder_2"]).all()
    std = arrays["map_std/encoder_1"]
    assert std[tried].min() >= std[~tried].max()


def test_redraws_come_from_the_layers_own_initializer(reference):
    network, _, arrays = reference
    for name, kernel in network.kernels().items():
        reinitialized, null = arrays[f"reinitialized/{name}"], arrays[f"null/{name}"]
        assert reinitialized.shape == kernel.shape and len(null) == probe.REINITIALIZATIONS
        assert null[0] == pytest.approx(structure(reinitialized), abs=1e-6)
        drawn = arrays[f"initial_kernel/{name}"]
        assert not np.array_equal(reinitialized, drawn)
        assert reinitialized.std() == pytest.approx(drawn.std(), rel=0.3)
        assert len(np.unique(null)) == len(null)
    transposed = new("model=strided", "model.filters=[5,7]")
    reinitialized = Probe(transposed, UNLABELLED)._reinitialized()
    assert (
        reinitialized["reinitialized/decoder_2"].shape
        == transposed.kernels()["decoder_2"].shape
        == (4, 4, 7, 5)
    )


class Scaled(keras.initializers.Initializer):
    """With an argument of its own and no ``get_config``."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, shape, dtype=None, **_):
        return self.scale * keras.random.normal(shape, dtype=dtype)


class NeedsType(keras.initializers.Initializer):
    """Its call has no default for the type."""

    def __call__(self, shape, dtype):
        return keras.random.normal(shape, dtype=dtype)


@pytest.mark.parametrize(
    "initializer",
    [Scaled(0.1), NeedsType(), lambda shape, dtype=None, **_: np.full(shape, 0.1, np.float32)],
)
def test_an_initializer_that_cannot_be_asked_for_other_kernels_is_left_out(initializer):
    same = {"padding": "same"}
    network = keras.Sequential([
        keras.Input(IMAGES.shape),
        keras.layers.Conv2D(2, 3, kernel_initializer=initializer, name="own", **same),
        keras.layers.Conv2D(1, 3, name="last", **same),
    ])  # fmt: skip
    found = Probe(introspect(network), UNLABELLED, untrained=False)._reinitialized()
    assert found.keys() == {"reinitialized/last", "null/last"}


def test_looking_in_training_mode_leaves_the_averages_as_they_were():
    network = new("regularization=[batchnorm,dropout]")
    trained("regularization=[batchnorm,dropout]", images=IMAGES, network=network)
    before = [np.array(v) for v in (*network.model.weights, *network.model.non_trainable_variables)]
    arrays = Probe(network, UNLABELLED).record()
    after = [np.array(v) for v in (*network.model.weights, *network.model.non_trainable_variables)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    images = as_float(HELD_OUT)
    for layer in network.model.layers:  # dropout is off in use, and would hide the averages' part
        if hasattr(layer, "rate"):
            assert layer.rate == 0.1
            layer.rate = 0.0
    output = np.asarray(network.model(images, training=True))
    slow = np.square(output - images).mean(axis=(1, 2, 3))
    assert arrays["perturbation/training_mode_mse"] == pytest.approx(slow, rel=1e-4)
    assert not np.allclose(slow, arrays["mse"], rtol=1e-2)
    few = as_float(TRAIN)[: len(arrays["perturbation/train_training_mode_mse"])]
    slow = np.square(np.asarray(network.model(few, training=True)) - few).mean(axis=(1, 2, 3))
    assert len(few) > 1
    assert arrays["perturbation/train_training_mode_mse"] == pytest.approx(slow, rel=1e-4)


def identity(name):
    return keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name=name)


def test_what_dropout_draws_is_told_from_noise_and_from_a_mask_on_the_image():
    layers = keras.layers
    network = keras.Sequential([
        keras.Input(IMAGES.shape), layers.Dropout(0.2), identity("code"), layers.Dropout(0.5),
        identity("last"), layers.GaussianNoise(0.3),
    ])  # fmt: skip
    arrays = Probe(introspect(network), UNLABELLED)._dropout_noise()
    images = as_float(HELD_OUT)
    square, told = np.square(images).mean(), images.var(axis=0, ddof=1).mean()
    for name, drawn in (
        ("dropout_noise", square * (1 / 0.4 - 1)),  # variance of two masks that keep 0.8 and 0.5
        ("hidden_dropout_noise", square * (1 / 0.4 - 1 / 0.8)),
    ):
        assert arrays[name] == pytest.approx(drawn / (drawn + told), abs=0.03)
    assert [layer.rate for layer in network.layers[::2][:2]] == [0.2, 0.5]


def test_without_dropout_nothing_is_drawn_by_it(reference):
    assert np.isnan(reference[2]["dropout_noise"])


def test_a_network_that_explains_nothing_has_no_filter_that_helps():
    # Before training the output is grey: worse than the mean of dark images.
    dark = replace(UNLABELLED, train=TRAIN // 10, validation=HELD_OUT // 10)
    arrays = Probe(new(), dark).record()
    assert all(np.isnan(v).all() for k, v in arrays.items() if k.startswith("utility/"))


def test_without_batch_normalisation_there_is_no_training_mode(reference):
    assert np.isnan(reference[2]["perturbation/training_mode_mse"]).all()


def test_labels_are_read_off_the_trained_code_and_off_the_first_one(reference):
    network, before, arrays = reference
    train, held_out = as_float(TRAIN), as_float(HELD_OUT)
    twin = new()
    for values, name in ((before, "initial"), (weights(network), "trained")):
        for variable, value in zip(twin.model.weights, values, strict=True):
            variable.assign(value)
        encode = keras.Model(twin.model.input, twin.latent)
        codes = [np.asarray(encode(x)).reshape(len(x), -1) for x in (train, held_out)]
        expected = probe_accuracy(codes[0], TRAIN_LABELS, codes[1], LABELS)
        assert float(arrays[f"labels/{name}"]) == pytest.approx(expected, abs=1e-6)
        assert expected > 0.7  # brightness can be read off any code


def test_the_code_of_a_network_with_skips_is_judged_with_its_image_in_place():
    network = new("model=unet")
    assert network.skips
    arrays = Probe(network, UNLABELLED).record()
    assert all(
        np.isfinite(v).all() for k, v in arrays.items() if k.startswith("perturbation/latent_swap")
    )
    images = as_float(HELD_OUT)
    codes = np.asarray(keras.Model(network.model.input, network.latent)(images))
    outputs = [np.asarray(network.decoder()([images, c])) for c in (codes, np.roll(codes, -1, axis=0))]
    change = np.square(outputs[1] - outputs[0]).mean(axis=(1, 2, 3))
    assert arrays["perturbation/latent_swap_change"] == pytest.approx(change, rel=1e-3, abs=1e-9)
    assert outputs[0] == pytest.approx(np.asarray(network.model(images)), abs=1e-6)


def test_an_image_is_compared_with_the_next_one_and_the_last_with_the_first(reference):
    images = as_float(HELD_OUT)
    apart = np.square(images - np.roll(images, -1, axis=0)).mean(axis=(1, 2, 3))
    assert reference[2]["perturbation/next_image_mse"] == pytest.approx(apart, rel=1e-4)


def test_the_same_input_twice_gives_the_same_output(reference):
    assert reference[2]["perturbation/repeat_change"] == pytest.approx(0, abs=1e-10)


def test_multiply_adds_are_counted_at_the_positions_of_each_layer():
    from keras import Input, Model, layers

    image = Input((8, 8, 1))
    x = layers.Conv2D(4, 3, padding="same")(image)  # 36 + 4 weights at 64 positions
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(2, 3, strides=2, padding="same")(x)  # 72 + 2 at the 4 positions of the output
    x = layers.Conv2DTranspose(3, 2, strides=2)(x)  # 24 + 3 at the 4 positions of the input
    x = layers.Dense(5)(layers.Flatten()(x))  # 240 + 5
    output = layers.Reshape((8, 8, 1))(layers.Dense(64)(x))  # 320 + 64
    network = introspect(Model(image, output))
    assert network.products_per_image == 40 * 64 + 74 * 4 + 27 * 4 + 245 + 384


def test_a_network_too_large_for_the_budget_is_measured_on_fewer_images(reference, monkeypatch):
    network = reference[0]
    images = replace(IMAGES, validation=blobs(100, 1), validation_labels=np.arange(100) % 2)
    whole = Probe(network, images).record()
    monkeypatch.setattr(budget, "WORK", 0)
    few = Probe(network, images).record()
    assert len(few["mse"]) == len(few["perturbation/linear_mse"]) == 16 < len(whole["mse"])
    assert np.allclose(few["mse"], whole["mse"][:16], rtol=1e-4)  # the first ones
    assert not len(few["train_mse"])
    assert all(np.isnan(v).all() for k, v in few.items() if k.startswith("utility/"))
    assert "labels/trained" not in few and "labels/trained" in whole
    views_left = {k.split("/")[1] for k in few if k.startswith("view/")}
    assert views_left == {"shown", "map"}
    paid = Probe(network, images).record(trained=10**9)  # a long training
    assert paid.keys() == whole.keys()
    assert all(np.array_equal(paid[k], v, equal_nan=True) for k, v in whole.items())


def called_twice():
    """A network that calls a convolution and a model inside of it twice."""
    layers = keras.layers
    image = keras.Input(IMAGES.shape)
    once = layers.Conv2D(4, 3, padding="same")
    inner = keras.Sequential([keras.Input((*IMAGES.shape[:2], 4)), layers.Conv2D(4, 1)])
    x = inner(once(keras.ops.repeat(image, 4, axis=-1)))
    return keras.Model(image, layers.Conv2D(1, 3, padding="same")(inner(once(x))))


class Forgetful(keras.layers.Conv2D):
    """Built again from its config it has more filters."""

    def get_config(self):
        return {**super().get_config(), "filters": self.filters + 1}


def forgetful():
    code = Forgetful(2, 3, padding="same")
    return keras.Sequential([
        keras.Input(IMAGES.shape), code, keras.layers.Conv2D(1, 3, padding="same"),
    ])  # fmt: skip


@pytest.mark.parametrize(("make", "is_drawn"), [(called_twice, True), (forgetful, False)])
def test_weights_that_are_drawn_anew_leave_no_trace(make, is_drawn):
    model = make()
    model.set_weights([w + 0.05 for w in model.get_weights()])
    before = model.get_weights()
    probe = Probe(introspect(model), UNLABELLED, untrained=False)
    with probe._untrained() as is_had:
        assert is_had is is_drawn
        assert all(map(np.array_equal, model.get_weights(), before)) is not is_drawn
    assert all(map(np.array_equal, model.get_weights(), before))
    assert any(name.startswith("view/untrained_") for name in probe.record()) is is_drawn
    assert all(map(np.array_equal, model.get_weights(), before))


def test_an_interrupt_while_weights_are_exchanged_leaves_the_trained_ones(reference, monkeypatch):
    network, before = reference[0], weights(reference[0])
    assign = probe._assign

    def interrupted(variables, values):
        monkeypatch.setattr(probe, "_assign", assign)
        assign(variables[:1], [values[0] + 1])
        raise KeyboardInterrupt

    monkeypatch.setattr(probe, "_assign", interrupted)
    with pytest.raises(KeyboardInterrupt), Probe(network, UNLABELLED, untrained=False)._untrained():
        pass
    assert all(map(np.array_equal, weights(network), before))


def test_a_large_network_is_watched_on_fewer_images_while_it_trains(reference, monkeypatch):
    network, images = reference[0], replace(UNLABELLED, validation=blobs(140, 1))
    passes = probe.LOOKS * probe.WATCHED + probe.FOLLOWED_STEPS * probe.FOLLOWED
    for share, watched, followed in ((1, 128, 32), (0.5, 64, 16), (0, 16, 1)):
        monkeypatch.setattr(budget, "WORK", share * passes * network.products_per_image)
        probing = Probe(network, images)
        few = probing._spreads(images.validation[:watched], with_products=False)
        for layer, spread in probing.spreads().items():
            assert np.array_equal(spread.std(), few[layer].std())
            assert len(probing.maps()[layer]) == followed


def test_the_budget_of_watching_counts_what_is_watched():
    from cae_cli.external import keras_callback
    from cae_cli.training import recorder

    assert len(recorder.LOOKS) + len(keras_callback.LOOKS) + 1 <= probe.LOOKS  # the last epoch
    assert len(recorder.LOOKS) + len(configured().training.snapshots) <= probe.LOOKS
    assert probe.FOLLOWED_STEPS == recorder.MOVES + 1
