"""What is written down while a network learns: against plain Keras, one step at a time."""

import re

import numpy as np
import pytest

from cae_cli.data import Images, as_float
from cae_cli.introspection.probe import WATCHED, Probe
from cae_cli.metrics.batches import BatchStatistics
from cae_cli.metrics.order import BatchOrder
from cae_cli.model.build import build
from cae_cli.training import backend, recorder
from cae_cli.training.fit import image_order
from cae_cli.training.recorder import EARLY, Recorder
from tests.tf.conftest import configured
from tests.tf.test_model import plain_reference
from tests.tf.test_training import EVERYTHING, IMAGES, SMALL, trained, weights

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

pytestmark = pytest.mark.tf


def new(*overrides):
    config = configured(SMALL, *overrides)
    backend.seed(config.seed)
    return build(IMAGES.shape, config.model, tuple(config.regularization.values()))


def recorded(*overrides, looks=False, images=IMAGES):
    """A training, and what was written down of it."""
    network = new(*overrides)
    probe = Probe(network, images)
    spreads, maps = (probe.spreads, probe.maps) if looks else (dict, dict)
    watching = Recorder(network.model, spreads, images.sample, maps)
    history = trained(*overrides, images=images, network=network, recorder=watching)[1]
    return network, history, watching.record()


REFERENCE = "model.filters=[16,8]"  # as in `plain_reference`


def slow_training(l2=0.0, epochs=2, batch=32):
    """The reference network in plain Keras, with everything of every step computed on the way."""
    network, plain = new("model=baseline", REFERENCE), plain_reference(l2)
    plain.set_weights(network.model.get_weights())
    optimizer = configured().optimizer.build()
    kernels = [i for i, v in enumerate(plain.trainable_variables) if len(v.shape) == 4]
    steps = []
    for epoch in range(1, epochs + 1):
        order = image_order(0, epoch, len(IMAGES.train))
        for start in range(0, len(order), batch):
            x = as_float(IMAGES.train[order[start : start + batch]])
            with tf.GradientTape() as tape:
                data_loss = tf.reduce_mean(tf.square(plain(x, training=True) - x))
                penalty = sum(plain.losses)
                loss = data_loss + penalty
            gradients = tape.gradient(loss, plain.trainable_variables)
            before = [np.array(plain.trainable_variables[i]) for i in kernels]
            optimizer.apply(gradients, plain.trainable_variables)
            after = [np.array(plain.trainable_variables[i]) for i in kernels]
            moved = [np.abs(b - a).mean() / np.abs(a).mean() for a, b in zip(before, after, strict=True)]
            steps.append(
                {
                    "epoch": epoch,
                    "images": len(x),
                    "losses": (float(data_loss), float(penalty)),
                    "updates": np.log10(moved),
                    "gradients": [np.linalg.norm(gradients[i]) for i in kernels],
                }
            )
    return plain, steps


@pytest.mark.parametrize(
    ("model", "l2"), [pytest.param("baseline", 0.0, marks=pytest.mark.soak), ("l2", 0.001)]
)
def test_what_is_recorded_is_what_plain_keras_does(model, l2):
    network, _, arrays = recorded(f"model={model}", REFERENCE)
    _, steps = slow_training(l2)
    assert len(steps) == 14
    assert list(arrays["dynamics/kernels"]) == [f"{name}/kernel" for name in network.kernels()]
    early = np.array([s["updates"] for s in steps[:EARLY]])
    assert arrays["dynamics/early_updates"] == pytest.approx(early, abs=1e-2)
    firsts = np.array([steps[0]["updates"], steps[7]["updates"]])
    assert arrays["dynamics/updates"] == pytest.approx(firsts, abs=1e-2)
    losses = np.array([s["losses"] for s in steps])
    assert arrays["dynamics/early_losses"] == pytest.approx(losses[:EARLY], rel=1e-3, abs=1e-7)
    assert arrays["dynamics/losses"] == pytest.approx(losses[:, 0], rel=1e-3)
    assert (arrays["dynamics/early_losses"][:, 1] > 0).all() == (l2 > 0)
    for epoch, found in enumerate(arrays["dynamics/gradients"], start=1):
        own = [s for s in steps if s["epoch"] == epoch]
        mean = np.average([s["gradients"] for s in own], axis=0, weights=[s["images"] for s in own])
        assert found == pytest.approx(mean, rel=2e-2)


def test_the_losses_cover_all_steps_of_a_longer_training():
    # 200 images one by one are more steps than losses are kept.
    arrays = recorded("training.batch_size=1", "training.epochs=6", "model.filters=[2]")[2]
    assert len(arrays["dynamics/losses"]) == recorder.MOST_LOSSES < 1200
    assert len(arrays["dynamics/early_updates"]) == len(arrays["dynamics/early_losses"]) == EARLY
    assert len(arrays["dynamics/updates"]) == len(arrays["dynamics/gradients"]) == 6


def test_the_table_lists_what_is_written():
    network, _, arrays = recorded("training.epochs=1", looks=True)
    listed = re.findall(r"^``(.+)``", recorder.__doc__, re.MULTILINE)
    fills = {
        "look_std/<layer>": network.maps,
        "look_image_std/<layer>": network.maps,
        "look_mean/<layer>": network.maps,
        "map_moves/<layer>": network.maps,
        "batches/<attribute>": BatchStatistics.__dataclass_fields__,
        "order/<attribute>": BatchOrder.__dataclass_fields__,
    }
    expected = {re.sub("<.+>", fill, name) for name in listed for fill in fills.get(name, [""])}
    assert set(arrays) == expected


def test_training_here_mixes_the_images():
    arrays = recorded("training.epochs=1")[2]
    assert float(arrays["order/images"]) == 32
    assert abs(float(arrays["order/inflation"]) - 1) < 5 * float(arrays["order/chance"])


def test_the_movements_are_those_of_single_steps():
    arrays = recorded("training.epochs=5", looks=True)[2]  # 35 steps
    maps = [
        Probe(trained(f"training.steps={steps}", network=new())[0] if steps else new(), IMAGES).maps()
        for steps in (0, 1, 2)
    ]
    for name, moves in [(name, arrays[f"map_moves/{name}"]) for name in maps[0]]:
        assert len(moves) == recorder.MOVES
        for step in (0, 1):
            before, after = maps[step][name], maps[step + 1][name]
            assert moves[step] == pytest.approx(np.abs(after - before).mean() / before.std(), rel=1e-3)


def batches(count):
    order = image_order(0, 1, len(IMAGES.train))
    return as_float(IMAGES.train[order[:count]])


def test_what_is_fed_is_the_images_of_the_first_steps():
    arrays = recorded("training.epochs=1")[2]
    shown = batches(200)  # seven steps are fewer than the first eight
    assert float(arrays["batches/pair"]) == 0
    assert float(arrays["batches/target_high"]) == shown.max()
    assert float(arrays["batches/image_std"]) == pytest.approx(
        shown.std(axis=(1, 2, 3)).mean(), rel=1e-4
    )
    assert float(arrays["batches/variance"]) == pytest.approx(shown.var(axis=0).mean(), rel=1e-4)
    assert float(arrays["batches/distinct"]) == 1


AUGMENTED = ["augmentation.rotation=30", "augmentation.shift=0.3", "training.epochs=1"]


def test_targets_that_are_not_augmented_show_in_what_is_fed():
    assert float(recorded(*AUGMENTED, "augmentation.target=same")[2]["batches/pair"]) == 0
    assert float(recorded(*AUGMENTED, "augmentation.target=original")[2]["batches/pair"]) > 0.1


def test_the_maps_are_measured_after_the_documented_steps():
    steps_of = ["training.batch_size=8", "training.epochs=6", "training.snapshots=[0,2]"]
    _, _, arrays = recorded(*steps_of, looks=True)
    assert arrays["dynamics/look_steps"].tolist() == [0, 32, 50, 128, 150]
    for step in (0, 32):
        other = trained(*steps_of, f"training.steps={step}", network=new())[0] if step else new()
        probe = Probe(other, IMAGES)
        for layer, spread in probe.spreads().items():
            row = arrays["dynamics/look_steps"].tolist().index(step)
            assert np.array_equal(arrays[f"look_std/{layer}"][row], spread.std())
            assert np.array_equal(arrays[f"look_image_std/{layer}"][row], spread.image_std())


def test_the_measured_maps_are_those_of_the_first_held_out_images():
    network = new()
    held_out = as_float(IMAGES.held_out[:WATCHED])
    maps = keras.Model(network.model.input, network.maps["encoder_1"])(held_out).numpy()
    spread = Probe(network, IMAGES).spreads()["encoder_1"]
    assert spread.std() == pytest.approx(maps.std(axis=(0, 1, 2), dtype=np.float64), rel=1e-4)


class Blind:
    """In place of a recorder: sees nothing and interrupts nothing."""

    def cuts(self, first, count):
        return []

    def wants_batch(self, step):
        return False

    def __getattr__(self, name):
        return lambda *_, **__: None


@pytest.mark.parametrize(
    "overrides",
    [pytest.param([], marks=pytest.mark.soak), EVERYTHING],
    ids=["reference", "everything"],
)
def test_measuring_the_maps_changes_no_bit(overrides):
    words = [
        *overrides,
        "training.batch_size=4",
        "training.epochs=1",
    ]  # 50 steps an epoch: more than a chunk
    seen = weights(recorded(*words, looks=True)[0])
    unseen = weights(trained(*words, network=new(*words), recorder=Blind())[0])
    assert all(np.array_equal(a, b) for a, b in zip(seen, unseen, strict=True))


def test_a_training_that_diverges_leaves_a_record_up_to_there():
    bad = as_float(IMAGES.train).copy()
    bad[image_order(0, 1, 200)[70]] = np.nan  # in the third step
    images = Images(train=bad, validation=IMAGES.validation)
    _, history, arrays = recorded(images=images, looks=True)
    assert history.diverged_at == 3
    assert np.isfinite(arrays["dynamics/losses"]).tolist() == [True, True, False]
    assert arrays["dynamics/early_updates"][2] == pytest.approx(-12)  # the step was not made
    assert len(arrays["dynamics/gradients"]) == 0 and arrays["dynamics/look_steps"].tolist() == [0]
