"""Training: the steps of plain Keras, an order that is a pure function, an end at the first NaN."""

import itertools
import math

import numpy as np
import pytest

from cae_cli.data import Images, as_float
from cae_cli.errors import UserError
from cae_cli.introspection.probe import Probe
from cae_cli.metrics.perturbation import perturbation
from cae_cli.model.build import build
from cae_cli.model.regularization import BatchNorm
from cae_cli.training import backend
from cae_cli.training.fit import Callbacks, fit, image_order
from cae_cli.training.optimizers import OPTIMIZERS, Cosine, Plateau
from cae_cli.training.recorder import Recorder
from tests.tf.conftest import configured
from tests.tf.test_model import plain_reference

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

pytestmark = pytest.mark.tf
soak = pytest.mark.soak


def blobs(count, seed=0, side=28):
    """Grey discs on grey ground, (n, side, side, 1) uint8: something that can be learned."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    cx, cy, r = rng.uniform(side / 4, 3 * side / 4, (3, count, 1, 1))
    inside = (x - cx) ** 2 + (y - cy) ** 2 < (r / 2) ** 2
    fore, back = rng.uniform(0, 255, (2, count, 1, 1))
    return np.where(inside, fore, back).astype(np.uint8)[..., None]


IMAGES = Images(train=blobs(200), validation=blobs(50, 1), source="blobs")


SMALL = "model.filters=[8]"


def trained(*overrides, images=IMAGES, callbacks=None, network=None, recorder=None, parts=2):
    config = configured(SMALL, "training.epochs=2", *overrides)
    backend.seed(config.seed)
    network = network or build(images.shape, config.model, tuple(config.regularization.values()))
    recorder = recorder or Recorder(network.model, dict)
    history = fit(network, images, config, recorder, callbacks=callbacks, parts=parts)
    return network, history


def weights(network):
    return [np.array(v) for v in network.model.weights]


@pytest.mark.parametrize(
    ("name", "model", "l2"),
    [
        *(
            pytest.param(name, "baseline", 0.0, marks=[] if name == "adam" else soak)
            for name in OPTIMIZERS
        ),
        *(pytest.param(name, "l2", 0.001, marks=[] if name == "adam" else soak) for name in OPTIMIZERS),
    ],
)
def test_an_epoch_is_that_of_plain_keras(name, model, l2):
    overrides = [f"model={model}", f"optimizer={name}", "training.epochs=1"]
    config = configured(*overrides)
    backend.seed(0)
    ours = build((28, 28, 1), config.model, tuple(config.regularization.values()))
    plain = plain_reference(l2)
    plain.set_weights(ours.model.get_weights())
    plain.compile(config.optimizer.build(), "mse")
    _, history = trained(*overrides, network=ours)
    shown = IMAGES.train[image_order(0, 1, 200)].astype(np.float32) / 255
    theirs = plain.fit(shown, shown, batch_size=32, shuffle=False, verbose=0)
    assert history.epochs[1].train_loss == pytest.approx(theirs.history["loss"][0], rel=1e-4)
    for a, b in zip(weights(ours), plain.get_weights(), strict=True):
        assert a == pytest.approx(b, abs=2e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss=ssim"],
        pytest.param(["regularization=batchnorm"], marks=soak),
        pytest.param([], marks=soak),
        pytest.param(["augmentation=light"], marks=soak),
        pytest.param(["model=l2"], marks=soak),
    ],
    ids=" ".join,
)
def test_a_training_in_two_parts_is_that_of_the_whole_batch(overrides):
    images = Images(train=blobs(161), validation=blobs(33, 1))  # last batches of a single image
    whole, one = trained(*overrides, images=images, parts=1)
    cut, two = trained(*overrides, images=images, parts=2)
    for a, b in zip(one.epochs[1:], two.epochs[1:], strict=True):
        assert b.train_loss == pytest.approx(a.train_loss, rel=1e-4)
        assert b.train_gradient_norm == pytest.approx(a.train_gradient_norm, rel=1e-3)
        assert [b.val_loss, b.val_mse, b.val_psnr, b.val_ssim] == pytest.approx(
            [a.val_loss, a.val_mse, a.val_psnr, a.val_ssim], rel=1e-3
        )
    for a, b in zip(weights(whole), weights(cut), strict=True):
        assert b == pytest.approx(a, abs=1e-4)


def test_images_in_a_file_train_like_images_in_memory(tmp_path):
    def in_a_file(array, name):
        np.save(tmp_path / name, array)
        return np.load(tmp_path / name, mmap_mode="r")

    mapped = Images(
        train=in_a_file(IMAGES.train, "train.npy"), validation=in_a_file(IMAGES.validation, "held.npy")
    )
    in_memory, there = trained("training.epochs=1"), trained("training.epochs=1", images=mapped)
    for a, b in zip(weights(in_memory[0]), weights(there[0]), strict=True):
        assert np.array_equal(a, b)


def test_plain_keras_repeats_one_order_and_ours_does_not():
    # The reason for an order of our own: where this fails, Keras has changed and it may go.
    seen = []

    class Spy(keras.Sequential):
        def train_step(self, data):
            seen.append(int(data[0][0, 0]))
            return {"loss": tf.constant(0.0)}

    keras.utils.set_random_seed(0)
    model = Spy([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    values = np.arange(16, dtype=np.float32)[:, None]
    model.fit(values, values, batch_size=1, epochs=2, verbose=0)
    assert seen[:16] == seen[16:] != list(range(16))
    assert not np.array_equal(image_order(0, 1, 16), image_order(0, 2, 16))


def test_the_order_is_a_pure_function_and_a_permutation():
    assert np.array_equal(image_order(3, 5, 100), image_order(3, 5, 100))
    assert sorted(image_order(3, 5, 100)) == list(range(100))
    assert not np.array_equal(image_order(3, 5, 100), image_order(4, 5, 100))


EVERYTHING = [
    "regularization=[dropout,noise,batchnorm,l2]",
    "augmentation=light",
    "schedule=plateau",
    "optimizer=adamw",
]


@pytest.mark.parametrize(
    "overrides",
    [
        EVERYTHING,
        pytest.param(["model=attention", "loss=ssim"], marks=soak),
        pytest.param([], marks=soak),  # so are images in a file, and of floats
    ],
    ids=" ".join,
)
def test_the_same_seed_gives_the_same_bits(overrides):
    first, again = (trained(*overrides, "seed=5") for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(weights(first[0]), weights(again[0]), strict=True))
    assert [e.val_loss for e in first[1].epochs] == [e.val_loss for e in again[1].epochs]


def test_the_seed_leaves_the_precision_that_was_chosen():
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        backend.seed(0)
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy(before)


def test_another_seed_gives_other_bits():
    one, other = (weights(trained(f"seed={seed}")[0]) for seed in (5, 6))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_last_batch_may_be_smaller():
    images = Images(train=blobs(70), validation=blobs(5, 1))
    _, history = trained(images=images)
    assert [e.step for e in history.epochs] == [0, 3, 6]


def test_the_mean_loss_of_an_epoch_weighs_images_alike():
    # With a learning rate of 0 the network stays, so the mean over steps is that over all images.
    images = Images(train=blobs(70), validation=blobs(70))
    _, history = trained("optimizer=sgd", "optimizer.learning_rate=0", images=images)
    assert history.epochs[1].train_loss == pytest.approx(history.epochs[1].val_loss, rel=1e-5)
    assert history.epochs[0].val_loss == history.epochs[2].val_loss


def test_the_yardsticks_of_an_epoch_are_those_of_the_measures():
    from cae_cli.metrics.quality import psnr
    from cae_cli.metrics.similarity import ssim

    network, history = trained("loss=mae")
    target = as_float(IMAGES.validation)
    output = np.asarray(network.model(target))
    mse = ((target - output) ** 2).mean(axis=(1, 2, 3))
    last = history.epochs[-1]
    assert last.val_mse == pytest.approx(mse.mean(), rel=1e-4)
    assert last.val_psnr == pytest.approx(psnr(mse).mean(), rel=1e-4)
    assert last.val_ssim == pytest.approx(ssim(target, output).mean(), rel=1e-3)
    assert last.val_loss == pytest.approx(np.abs(target - output).mean(), rel=1e-4)


def test_a_training_that_diverges_ends_at_that_step_with_good_weights():
    network, history = trained(
        "optimizer=sgd", "optimizer.learning_rate=1e12", "model.output_activation=linear"
    )
    assert history.diverged_at is not None and history.diverged_at <= 7
    assert all(np.isfinite(w).all() for w in weights(network))


def test_weights_that_are_not_finite_end_the_training_at_that_step():
    # A finite gradient and a finite loss, but a step so large that float32 cannot hold the weights.
    linear = "model.output_activation=linear"
    network = build(IMAGES.shape, configured(SMALL, linear).model)
    start = weights(network)
    bright = Images(train=1e3 * as_float(IMAGES.train), validation=IMAGES.validation)
    overrides = [linear, "optimizer=sgd", "optimizer.learning_rate=1e38"]
    _, history = trained(*overrides, network=network, images=bright)
    assert (history.diverged_at, history.diverged_in) == (1, "weights")
    assert all(np.array_equal(a, b) for a, b in zip(weights(network), start, strict=True))


def test_a_validation_loss_that_is_not_finite_ends_the_training_with_the_epoch():
    held_out = as_float(IMAGES.validation).copy()
    held_out[3] = np.nan
    _, history = trained(images=Images(train=IMAGES.train, validation=held_out))
    assert (history.diverged_at, history.diverged_in) == (7, "validation loss")
    assert history.left_at == 0 and len(history.epochs) == 1


@pytest.mark.parametrize(("value", "what"), [(np.nan, "loss"), (np.inf, "loss"), (1e14, "gradient")])
def test_what_was_not_finite_is_recorded(value, what):
    bad = as_float(IMAGES.train).copy()
    bad[image_order(0, 1, 200)[40]] = value  # in the second step
    network = build(IMAGES.shape, configured(SMALL, "model.output_activation=linear").model)
    start = weights(network)
    _, history = trained(network=network, images=Images(train=bad, validation=IMAGES.validation))
    assert (history.diverged_at, history.diverged_in) == (2, what)
    assert all(np.array_equal(a, b) for a, b in zip(weights(network), start, strict=True))


def test_after_divergence_the_weights_are_those_of_the_last_whole_epoch():
    bad, saved = as_float(IMAGES.train).copy(), {}
    network = build(IMAGES.shape, configured(SMALL).model, (BatchNorm(momentum=0.9),))

    def spoil(history):
        saved[history.left_at] = weights(network)
        if history.left_at == 1:
            bad[image_order(0, 2, 200)[40]] = np.nan  # in the second step of the second epoch

    images = Images(train=bad, validation=IMAGES.validation)
    _, history = trained(images=images, network=network, callbacks=Callbacks(on_epoch=spoil))
    assert (history.diverged_at, history.diverged_in, history.left_at) == (9, "loss", 1)
    assert all(np.array_equal(a, b) for a, b in zip(weights(network), saved[1], strict=True))


def test_a_refused_step_leaves_batch_normalisation_as_it_was():
    # It moves its averages while it looks at a batch, before the loss is known not to be finite.
    bad = as_float(IMAGES.train).copy()
    bad[image_order(0, 2, 200)[40]] = np.nan
    network = build(IMAGES.shape, configured(SMALL).model, (BatchNorm(momentum=0.9),))
    images = Images(train=bad, validation=IMAGES.validation)
    _, history = trained(images=images, network=network)
    assert history.diverged_at is not None
    assert all(np.isfinite(w).all() for w in weights(network))


def test_penalties_of_two_precisions_are_added():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        few = Images(train=IMAGES.train[:64], validation=IMAGES.validation)
        words = "regularization=[l2,activity_l1]", "training.epochs=1"
        network, history = trained(*words, images=few)
        assert {loss.dtype.name for loss in network.model.losses} == {"float16", "float32"}
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert history.diverged_at is None and history.epochs[1].train_penalty > 0


def test_float_images_train_like_bytes():
    as_floats = Images(train=as_float(IMAGES.train), validation=as_float(IMAGES.validation))
    a, b = trained()[0], trained(images=as_floats)[0]
    assert all(np.array_equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def test_early_stopping_ends_with_the_weights_of_the_best_epoch():
    saved = {}
    network = None

    def remember(history):
        saved[history.left_at] = weights(network)

    backend.seed(0)
    network = build(IMAGES.shape, configured(SMALL).model, ())
    _, history = trained(
        "training.epochs=30",
        "training.early_stopping=2",
        "optimizer=sgd",
        "optimizer.learning_rate=20",
        network=network,
        callbacks=Callbacks(on_epoch=remember),
    )
    assert history.stopped_early and history.diverged_at is None
    assert history.epochs[-1].epoch == history.best_epoch + 2
    best = saved[history.best_epoch]
    assert all(np.array_equal(a, b) for a, b in zip(weights(network), best, strict=True))


def test_the_cosine_sets_the_learning_rate():
    _, history = trained("schedule=cosine", "schedule.warmup_steps=3", "training.epochs=3")
    rates = [epoch.learning_rate for epoch in history.epochs[1:]]
    assert 1e-3 >= rates[0] > rates[1] > rates[2] == pytest.approx(1e-5)


def test_the_plateau_sets_the_learning_rate():
    # No epoch is better by as much as is required, so each lowers the rate, down to its end.
    options = {"patience": 1, "factor": 0.5, "min_delta": 0.99, "final": 0.2}
    overrides = [f"schedule.{key}={value}" for key, value in options.items()]
    _, history = trained("schedule=plateau", *overrides, "training.epochs=5")
    rates = [epoch.learning_rate for epoch in history.epochs[1:]]
    assert rates == pytest.approx([1e-3, 1e-3, 0.5e-3, 0.25e-3, 0.2e-3])


def test_the_cosine_runs_from_one_to_its_end():
    cosine = Cosine(warmup_steps=10, final=0.1)
    factors = cosine.rate_factors(range(110), 110, [])
    assert factors[0] == pytest.approx(0.1) and factors[10] == 1 and factors[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))


def test_the_plateau_agrees_with_keras():
    losses = [1, 0.5, 0.5, 0.5, 0.49999, 0.3, 0.3, 0.3, 0.3, 0.3, 0.29, 0.29, 0.29]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.optimizer.learning_rate = 1.0
    callback = keras.callbacks.ReduceLROnPlateau(
        monitor="loss", factor=0.5, patience=2, min_delta=1e-4, min_lr=0.01
    )
    callback.set_model(model)
    callback.on_train_begin()
    ours = Plateau(warmup_steps=0, factor=0.5, patience=2, min_delta=1e-4, final=0.01)
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"loss": loss})
        assert ours.rate_factors([0], 1, losses[: epoch + 1]) == [float(model.optimizer.learning_rate)]


def test_clipping_limits_the_step():
    big = trained("optimizer=sgd", "optimizer.learning_rate=1", "training.epochs=1")[0]
    small = trained(
        "optimizer=sgd", "optimizer.learning_rate=1", "optimizer.clip_norm=1e-6", "training.epochs=1"
    )[0]
    backend.seed(0)
    start = weights(build(IMAGES.shape, configured(SMALL).model))

    def moved(network):
        return sum(float(np.abs(a - b).max()) for a, b in zip(weights(network), start, strict=True))

    assert moved(small) < 1e-3 < moved(big)


def test_callbacks_get_every_epoch_and_the_progress():
    heard = []
    trained(
        callbacks=Callbacks(
            on_steps=lambda epoch, step, loss: heard.append((epoch, step)),
            on_epoch=lambda history: heard.append((history.left_at, history.best_epoch)),
        )
    )
    assert heard[0] == (0, 0) and heard[-1][0] == 2
    assert [h for h in heard if h[1] == 7] == [(1, 7), (2, 7)]  # 6 whole batches and a smaller one


def test_fewer_images_than_a_batch_are_refused():
    config = configured()
    with pytest.raises(UserError, match=r"training\.batch_size is 32, but there are only 9"):
        config.training.check(9)


def test_the_probe_writes_what_the_network_does():
    config = configured()
    backend.seed(0)
    network = build(IMAGES.shape, config.model)
    probe = Probe(network, IMAGES)
    before = probe.snapshot()
    trained(network=network)
    arrays = probe.record()
    images = IMAGES.validation.astype(np.float32) / 255
    output = np.asarray(network.model(images))
    assert arrays["mse"] == pytest.approx(((images - output) ** 2).mean(axis=(1, 2, 3)), rel=1e-4)
    mean = IMAGES.train.mean(axis=0) / 255
    assert arrays["mean_mse"] == pytest.approx(((images - mean) ** 2).mean(axis=(1, 2, 3)), rel=1e-4)
    assert arrays["black_mse"] == pytest.approx((images**2).mean(axis=(1, 2, 3)), rel=1e-5)
    assert float(arrays["output_variance"]) == pytest.approx(output.var(axis=0).mean(), rel=1e-4)
    assert len(arrays["train_mse"]) == 200
    assert np.array_equal(arrays["initial_kernel/encoder_1"], before["kernel/encoder_1"])
    assert not np.array_equal(arrays["kernel/encoder_1"], before["kernel/encoder_1"])
    maps = keras.Model(network.model.input, network.maps["encoder_2"])(images).numpy()
    assert arrays["map_std/encoder_2"] == pytest.approx(maps.std(axis=(0, 1, 2)), rel=1e-4, abs=1e-6)
    encode = keras.Model(network.model.input, network.latent)
    decode = keras.Model(network.latent, network.model.output)
    codes = encode(images).numpy()
    assert decode(codes).numpy() == pytest.approx(output, abs=1e-5)
    others = decode(np.roll(codes, -1, axis=0)).numpy()
    change = ((others - output) ** 2).mean(axis=(1, 2, 3))
    assert arrays["perturbation/latent_swap_change"] == pytest.approx(change, rel=1e-3, abs=1e-7)
    found = perturbation(
        mse=arrays["mse"],
        mean_mse=arrays["mean_mse"],
        train_mean_mse=arrays["train_mean_mse"],
        **{
            k.removeprefix("perturbation/"): v
            for k, v in arrays.items()
            if k.startswith("perturbation/")
        },
    )
    apart = ((np.roll(images, -1, axis=0) - images) ** 2).mean()
    assert found.latent_swap == pytest.approx(change.mean() / apart, rel=1e-3)
    explained = 1 - arrays["mse"].mean() / arrays["mean_mse"].mean()
    assert found.skill_score == pytest.approx((explained - found.linear) / (1 - found.linear), rel=1e-4)
    grey = ((images - images.mean(axis=(1, 2), keepdims=True)) ** 2).mean(axis=(1, 2, 3))
    assert arrays["perturbation/grey_mse"] == pytest.approx(grey, rel=1e-4, abs=1e-8)
    order = np.argsort(arrays["mse"])
    assert arrays["chosen_mse"][[0, -1]] == pytest.approx(arrays["mse"][order[[0, -1]]])
    assert len(arrays["chosen_mse"]) == 9 and math.isclose(
        arrays["chosen_mse"][4], np.sort(arrays["mse"])[25], rel_tol=0.05
    )
