"""Trained networks that are given images otherwise than in their training, or images of another kind.

The soak tests hold networks, images and mistakes that no rule was written with.
"""

import keras
import numpy as np
import pytest
from keras import layers

import cae_cli
from cae_cli.data import Images
from cae_cli.introspection import in_unit_range, introspect
from cae_cli.introspection.probe import Probe
from cae_cli.metrics.preparation import Preparation, Way
from cae_cli.report import figures
from tests.tf.scripts import archived, dense, patches, pooled, strided

pytestmark = pytest.mark.tf
UNIT, SIGNED, BYTES, INVERTED = (0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (1.0, 0.0)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda *_, **__: None)


def normalised(shape, *, output="sigmoid", momentum=0.9):
    """Two strides, with batch normalisation."""
    model = keras.Sequential([keras.Input(tuple(shape))])
    for filters, size in ((16, 2), (8, 2), (16, 1)):
        model.add(layers.Conv2D(filters, 3, strides=size, padding="same", use_bias=False))
        model.add(layers.BatchNormalization(momentum=momentum))
        model.add(layers.ReLU(name=f"part_{filters}_{size}"))
    model.add(layers.UpSampling2D(4))
    model.add(layers.Conv2D(shape[-1], 5, padding="same", activation=output))
    return model


def trained(model, images, *, loss="mse", rate=0.003, epochs=8, targets=None, batch_size=32):
    keras.utils.set_random_seed(0)
    model.compile(keras.optimizers.Adam(rate), loss)
    targets = images if targets is None else targets
    model.fit(images, targets, epochs=epochs, verbose=0, batch_size=batch_size)
    return model


def tried(model, images, span=UNIT):
    """What is measured of images in [0, 1] that are brought to a range."""
    autoencoder = in_unit_range(introspect(model, shape=images.shape[1:]), span)
    arrays = Probe(
        autoencoder, Images(images, images, source="array", evaluated=True), untrained=False
    ).preparation(Way(span, span))
    return Preparation(**{key.partition("/")[2]: value.item() for key, value in arrays.items()})


@pytest.fixture(scope="module")
def digits():
    """A network of digits with batch normalisation, and digits that it was not trained on."""
    images, _ = archived("mnist", 1100)
    keras.utils.set_random_seed(0)
    model = normalised((28, 28, 1))
    return trained(model, images[:1024], loss="binary_crossentropy", rate=0.005, epochs=3), images[1024:]


def test_running_averages_tell_the_images_of_the_training(digits):
    model, images = digits
    right, inverted, others = (tried(model, x) for x in (images, 1 - images, patches(28, 76)))
    assert right.explained > 0.5 and right.error > 0.75 and right.stored < 0.03
    assert inverted.error < 0.5 and inverted.stored > 0.1 and inverted.given_low > inverted.given_high
    assert others.stored > 0.1 and others.learned < 0.1


def test_running_averages_that_were_never_trained_tell_nothing(digits):
    assert np.isnan(tried(normalised((28, 28, 1)), digits[1]).stored)


def test_a_normalization_layer_tells_too(digits):
    adapted = layers.Normalization()
    adapted.adapt(255 * digits[1])
    model = keras.Sequential([keras.Input((28, 28, 1)), adapted, digits[0]])
    assert tried(model, digits[1], BYTES).stored < 0.03 < 0.1 < tried(model, digits[1]).stored


# -- diagnoses of other networks, images and mistakes --------------------------------------------------


def judged(model, images, folder, span=UNIT):
    run = cae_cli.diagnose(model, images, span=span, folder=folder, verbose=0)
    return run.summary["diagnosis"]


def first(diagnosis):
    causes = [f for f in diagnosis["findings"] if f["severity"] != "note" and not f["consequence_of"]]
    return causes[0]["code"] if causes else None


def in_range(images, span):
    return (span[0] + (span[1] - span[0]) * images).astype(np.float32)


NETWORKS = {
    "strided": (strided, "fashion_mnist", SIGNED, "tanh"),
    "pooled": (pooled, "omniglot", UNIT, "sigmoid"),
    "dense": (dense, "mnist", INVERTED, "sigmoid"),
    "colour": (pooled, "colour", BYTES, None),
    "photographs": (normalised, "photographs", (-0.5, 0.5), "linear"),
}


def held(name):
    if name in ("photographs", "colour"):
        images = patches(28, 1400, colour=name == "colour")
    else:
        images, _ = archived(name, 1400)
    return images[:1200], images[1200:]


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def network(request):
    make, name, span, output = NETWORKS[request.param]
    train, others = held(name)
    keras.utils.set_random_seed(1)
    model = make(train.shape[1:], output=output)
    if span == BYTES:
        inside = make(train.shape[1:], output=output)
        model = keras.Sequential(
            [keras.Input(train.shape[1:]), layers.Rescaling(1 / 255), inside, layers.Rescaling(255.0)]
        )
    loss = "binary_crossentropy" if output == "sigmoid" else "mse"
    return trained(model, in_range(train, span), loss=loss, epochs=20), others, span


@pytest.mark.soak
def test_right_images_raise_no_alarm(network, tmp_path):
    model, images, span = network
    diagnosis = judged(model, in_range(images, span), tmp_path, span)
    assert not {"CAE112", "CAE113"} & {f["code"] for f in diagnosis["findings"]}


@pytest.mark.soak
@pytest.mark.parametrize("wrong", [UNIT, SIGNED, BYTES, INVERTED, (-3.0, 3.0)])
def test_a_wrong_range_is_the_cause_wherever_it_matters(network, wrong, tmp_path):
    model, images, span = network
    if wrong == span:
        pytest.skip("the range of the training")
    error = {}
    for name, used in (("right", span), ("wrong", wrong)):
        x = in_range(images, used)
        error[name] = np.square(model.predict(x, verbose=0) - x).mean() / x.var(axis=0).mean()
    diagnosis = judged(model, in_range(images, wrong), tmp_path, wrong)
    if error["wrong"] > 3 * error["right"]:
        assert first(diagnosis) == "CAE112"
    elif error["wrong"] < 1.2 * error["right"]:
        assert first(diagnosis) != "CAE112"


def faulty(kind):
    """A network that learned little, and images that it is given as in its training."""
    name = "photographs" if "photographs" in kind else "fashion_mnist"
    train, others = held(name)
    keras.utils.set_random_seed(2)
    shape = train.shape[1:]
    if kind == "untrained":
        return strided(shape), others
    if kind == "untrained with normalisation":
        return normalised(shape), others
    if kind == "collapsed":
        return trained(strided(shape), train, rate=1.0, epochs=1), others
    if kind.startswith("few steps"):
        return trained(strided(shape), train[:640], epochs=1), others
    if kind.startswith("averages that lag"):
        return trained(normalised(shape, momentum=0.999), train, epochs=6), others
    if kind.startswith("small code"):
        return trained(dense(shape, code=2), train, epochs=6), others
    mixed = train[np.random.default_rng(0).permutation(len(train))]
    return trained(normalised(shape), train, targets=mixed, epochs=3), others


@pytest.mark.soak
@pytest.mark.parametrize(
    "kind",
    [
        "untrained", "untrained with normalisation", "collapsed", "few steps", "few steps, photographs",
        "averages that lag", "averages that lag, photographs", "small code", "small code, photographs",
        "shuffled targets",
    ],
)  # fmt: skip
def test_a_faulty_network_is_not_called_wrongly_fed(kind, tmp_path):
    model, images = faulty(kind)
    diagnosis = judged(model, images, tmp_path)
    assert not {"CAE112", "CAE113"} & {f["code"] for f in diagnosis["findings"]}


@pytest.mark.soak
def test_another_kind_of_images_is_the_cause(digits, tmp_path):
    diagnosis = judged(digits[0], patches(28, 200), tmp_path)
    assert first(diagnosis) == "CAE113"
