"""Measures a network on fixed images: the last module that uses Keras.

What needs no weights is measured by `introspection.behaviour`.

Its arrays in arrays.npz, for n held-out images, the first k of them, and layers by the name of the
convolution:

==============================  ================================================================
``kernel/<layer>``              (k, k, inputs, filters) after training
``initial_kernel/<layer>``      the same before training, where that is known
``reinitialized/<layer>``       the same drawn anew from the layer's initializer, where that is known
``null/<layer>``                (r,) `metrics.filters.structure` of such re-initialised filters
``map/<layer>``                 (8, h, w, filters) feature maps of the example images
``map_std/<layer>``             (filters,) standard deviation over images and positions
``map_image_std/<layer>``       (filters,) standard deviation over images, mean over positions
``map_duplicates/<layer>``      () maps that repeat another one
``utility/<layer>``             (filters,) rise of the error without this map, see `_utilities`
``example_images, _outputs``    (8, h, w, c) the first held-out images
``example_inputs``              (8, h, w, c) what the network is given, where that is something else
``chosen_inputs``               (9, h, w, c) the same for the chosen images
``shuffled_outputs``            (8, h, w, c) the examples with the latent code of the next image
``scrambled_images, _outputs``  (8, h, w, c) the examples with permuted pixels
``noisy_images, _outputs``      (8, h, w, c) the examples with visible noise
``chosen_images, _outputs``     (9, h, w, c) three best, three median, three worst by MSE
``chosen_mse``                  (9,)
``mse, ssim``                   (n,) of the reconstructions
``mean_mse, mean_ssim``         (n,) of the mean training image in their place
``black_mse``                   (n,) of a black image in their place
``train_mse, train_mean_mse``   (m,) the same for training images
``output_variance``             () variance of a pixel of the output over images, mean over pixels
``output_mean``                 () mean of all output pixels
``perturbation/<argument>``     arguments of `metrics.perturbation.perturbation`: (k,) for the first of
                                the n images, (m,) for training images
``sample/<attribute>``          () attributes of `metrics.sample.Sample`
``spectrum/<attribute>``        () attributes of `metrics.spectrum.Spectrum`
``latent/<attribute>``          () attributes of `metrics.latent.LatentUse`
``dropout_noise``               () share of the output's variance that dropout draws, NaN without any
``hidden_dropout_noise``        () the same of dropout behind a layer with a kernel
``reach/<attribute>``           () attributes of `metrics.reach.ReachStatistics`
``loss/<attribute>``            () attributes of `metrics.loss_minimum.LossMinimum`
``preparation/<attribute>``     () attributes of `metrics.preparation.Preparation`; of networks that
                                were not trained here
``view/<array>``                what filters respond to, see `introspection.views`; in views.npz
``labels/trained, /initial``    () accuracy of a linear probe on the latent code, after and before
                                training; where there are labels
==============================  ================================================================

Where the network is given something else than the images it is to make, as a denoiser is, inputs and
images are perturbed alike, and the output is compared with the images.
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import Images, as_float, images_at_a_time, images_that_fit
from cae_cli.introspection import Autoencoder, budget, views
from cae_cli.introspection.behaviour import (
    EXAMPLES,
    MODE_IMAGES,
    MOST_LATENT_VALUES,
    TRAIN_IMAGES,
    Behaviour,
    Parts,
    most,
    squares,
)
from cae_cli.introspection.computing import compiled, on_tensorflow
from cae_cli.introspection.layers import from_keras, is_a, size_of, weights_of
from cae_cli.introspection.loss_minimum import KnownLoss, loss_minimum
from cae_cli.introspection.preparation import preparation, unlike_stored
from cae_cli.introspection.training_mode import quiet, unchanged
from cae_cli.metrics.filters import structure
from cae_cli.metrics.labels import probe_accuracy
from cae_cli.metrics.latent import informative
from cae_cli.metrics.loss_minimum import LossMinimum
from cae_cli.metrics.maps import ChannelSpread, duplicates, map_health
from cae_cli.metrics.network import network
from cae_cli.metrics.preparation import Way
from cae_cli.metrics.reach import reach_statistics
from cae_cli.metrics.sample import Sample

Array = NDArray[np.float32]
T = TypeVar("T")

logger = logging.getLogger(__name__)

WATCHED = 128  # images whose maps are measured repeatedly while training runs
FOLLOWED, MOST_FOLLOWED = 32, 2**22  # images whose maps are measured after each of the first steps, and
# values of these maps
LOOKS, FOLLOWED_STEPS = 13, 33  # how often either is measured in a training, at most
LABELLED = 1000  # held-out images that the linear probe is tested on
LOSS_IMAGES, LOSS_VALUES = 32, 2**20  # images at most whose loss is measured, and their values
SEEN_VARIANCE = 0.002  # of that of the images: what dropout draws below it is nothing, as in a network
# whose output is constant for another reason
REINITIALIZATIONS = 99  # of the filters of each layer: p-values down to 0.02
MOST_REINITIALIZED = 2**25  # weights drawn for it per layer
ABLATED_FILTERS, ABLATED_PIXELS = 128, 2**16  # filters that are ablated, and pixels of the images
FEWEST_ABLATED = 4  # filters of a layer, or none
THREADS = 2  # batches that are computed at once: small operations are not shared by two cores
AT_ONCE = 64  # images of a batch, so that there are several


def kept_bytes(autoencoder: Autoencoder, examples: int = EXAMPLES) -> int:
    """A lower bound of the memory that `Probe.record` keeps beside a pass of the network.

    Args:
        autoencoder: the network.
        examples: how many images there are of the `EXAMPLES` whose maps and latent codes are kept.
    """
    shapes = [x.shape for x in autoencoder.maps.values()]
    maps = sum(map(size_of, shapes))
    products = sum(shape[-1] ** 2 for shape in shapes)
    latents = 2 * size_of(autoencoder.latent.shape)  # those of the next image too
    return int(8 * (2 * maps + products) + 4 * examples * (maps + latents))


class Probe:
    """Measures a network on fixed images.

    Args:
        autoencoder: the network.
        images: the fixed images are the first of each part.
        untrained: keep the current weights as those before training.
        fitting: how many images may pass the network at once; None: as its size suggests.
        loss: of the training; None: not known.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        images: Images,
        *,
        untrained: bool = True,
        fitting: int | None = None,
        loss: KnownLoss | None = None,
    ) -> None:
        self.autoencoder = autoencoder
        self.loss = loss
        self.use(images)
        self.network = network(autoencoder.facts())
        self.sample = most(images, self.network)
        self.initial_kernels = autoencoder.kernels() if untrained else {}
        self.initial_weights = [np.array(v) for v in autoencoder.model.weights] if untrained else []
        self.fitting = fitting or images_that_fit(autoencoder.bytes_per_image)
        # What layers of others draw at random must not depend on which batch is faster.
        side_by_side = autoencoder.is_plain and on_tensorflow()
        self.threads = min(THREADS, self.fitting) if side_by_side else 1
        self.batch = images_at_a_time(images.shape, min(AT_ONCE, self.fitting // self.threads))
        self._reconstruct = self._traced(lambda x: autoencoder.model(x, training=False))

    def use(self, images: Images) -> None:
        """Measures on other images from now on."""
        self.images = images
        self.examples = as_float(images.held_out_given[:EXAMPLES])

    def snapshot(self) -> dict[str, Array]:
        """The current kernels and reconstructions of the examples."""
        kernels = {f"kernel/{k}": v for k, v in self.autoencoder.kernels().items()}
        with unchanged(self.autoencoder.model):
            return {**kernels, "outputs": self.reconstruct(self.examples)}

    def record(self, trained: int = 0) -> dict[str, NDArray[Any]]:
        """The arrays in the table at the top of this file.

        Args:
            trained: images that the training passed, each as often as it did: a long one may be
                measured longer, see `introspection.budget`.
        """
        self.sample = self._affordable(trained)
        with unchanged(self.autoencoder.model), np.errstate(all="ignore"):  # networks that diverged
            return self._record()

    def _record(self) -> dict[str, NDArray[Any]]:
        maps = self._maps()
        behaviour = self._behaviour()
        return {
            **{f"kernel/{k}": v for k, v in self.autoencoder.kernels().items()},
            **{f"initial_kernel/{k}": v for k, v in self.initial_kernels.items()},
            **self._reinitialized(),
            **maps,
            **self._utilities(_of("map_std/", maps), behaviour.mean),
            **self._labels(),
            **self._dropout_noise(),
            **self._reach(),
            **behaviour.record(),
            **self._loss_minimum(behaviour.outputs),
            **self._views(_of("map_std/", maps), _of("map/", maps)),
        }

    def preparation(self, hand: Way) -> dict[str, NDArray[Any]]:
        """Whether images are prepared as those of a training that is not known: ``preparation/…``.

        Args:
            hand: how images in [0, 1] become the values of the network that was given.
        """
        with unchanged(self.autoencoder.model):
            return preparation(self.reconstruct, self.images, hand, self._unlike_stored)

    def _unlike_stored(self, given: Array) -> float:
        import keras

        found = self.autoencoder.keeps_statistics
        if found is None:
            return math.nan
        network = keras.Model(self.autoencoder.model.input, found[1])
        seen = self._traced(lambda x: network(x, training=False))
        return unlike_stored(found[0], self._each_batch(lambda here: seen(given[here]), len(given)))

    def _affordable(self, trained: int) -> Sample:
        count = len(self.images.held_out)
        pictures = {
            "latent": views.passes_of_latent(),
            "filters": views.passes_of_filters(self.images.shape, count),
        }
        shown = dict(pictures)
        if self.images.train_labels is not None:
            shown["labels"] = TRAIN_IMAGES + LABELLED
        shown["untrained"] = sum(pictures.values())
        shown["ablation"] = ABLATED_FILTERS * self._ablated_images
        each = budget.SKIPPING_PASSES if self.network.skips else budget.PERTURBED_PASSES
        affordable = budget.passes(self.autoencoder.products_per_image, trained)
        sample = budget.within(most(self.images, self.network), affordable, shown, each)
        if sample.is_cut:
            logger.info(
                "measured on fewer images, as the network is large and its training short: %s", sample
            )
        return sample

    def _behaviour(self) -> Behaviour:
        return Behaviour(
            images=self.images,
            network=self.network,
            batch=self.batch,
            reconstruct=self.reconstruct,
            encode=self._latents,
            decode=self._decode,
            informative=self._informative,
            training_mode=self._in_training_mode,
            sample=self.sample,
        )

    def reconstruct(self, images: Array) -> Array:
        """(n, h, w, c) reconstructions."""
        return self._in_batches(self._reconstruct, images)

    @contextmanager
    def before_training(self) -> Iterator[None]:
        """In the block the network has its initial weights, which must be known."""
        with self._with_weights(self.initial_weights):
            yield

    def spreads(self) -> dict[str, ChannelSpread]:
        """The current spread of the maps over a few images."""
        few = self.images.held_out_given[: max(budget.LEAST, int(self._watching * WATCHED))]
        with unchanged(self.autoencoder.model):  # random layers may draw in inference too
            return self._spreads(few, with_products=False)

    def maps(self) -> dict[str, Array]:
        """The current maps of a few images, (n, h, w, filters) by layer."""
        size = sum(size_of(x.shape) for x in self.autoencoder.maps.values())
        most = min(MOST_FOLLOWED // size, self._watching * FOLLOWED)
        few = self.images.held_out_given[: int(np.clip(most, 1, FOLLOWED))]
        with unchanged(self.autoencoder.model):
            return _joined(list(self._map_batches(few)))

    @cached_property
    def _watching(self) -> float:
        """The share of these images that a network of this size may be measured on while it trains."""
        affordable = budget.passes(self.autoencoder.products_per_image, 0)
        return min(1.0, affordable / (LOOKS * WATCHED + FOLLOWED_STEPS * FOLLOWED))

    @cached_property
    def _decoder(self) -> Callable[[list[Array]], Any]:
        latent = self.autoencoder.latent
        image = ((None, *self.autoencoder.shape), "float32")
        code = ((None, *latent.shape[1:]), latent.dtype)
        return compiled(self.autoencoder.decoder(), [[image, code]])

    def _decode(self, images: Array, latents: Array) -> Array:
        return self._in_batches(lambda *both: self._decoder(list(both)), images, latents)

    @cached_property
    def _encode(self) -> Callable[[Array], Any]:
        return self._traced(self.autoencoder.encoder())

    def _latents(self, images: Array) -> Array:
        return self._in_batches(self._encode, images)

    def _informative(self, images: Array) -> float:
        """`metrics.latent.informative` of latent codes that are drawn at random; else NaN.

        In training mode: many networks draw only there. Dropout and noise are off.
        """
        model, encoder = self.autoencoder.model, self.autoencoder.encoder()
        if all(from_keras(type(x)) and not is_a(x, {"Lambda"}) for x in encoder.layers):
            return float("nan")
        with unchanged(model), quiet(model):
            encode = self._traced(lambda x: encoder(x, training=True))
            first, second = (self._in_batches(encode, images) for _ in range(2))
        return informative(first, second)

    def _in_training_mode(self, parts: Parts) -> list[Array]:
        """Error of each image of each part, by itself, with batch normalisation as in training.

        NaN where there is none, where no two images fit into memory together, and for parts without two
        images.
        """
        model, few = self.autoencoder.model, slice(min(MODE_IMAGES, self.fitting))
        forward = compiled(lambda x: model(x, training=True))
        errors = []
        for given, images in parts:
            if not self.network.normalised or min(self.fitting, len(images)) < 2:
                errors.append(np.full(len(images), np.nan, np.float32))
                continue
            # Dropout and noise are off in inference and would hide the effect of normalisation.
            with unchanged(model), quiet(model):
                errors.append(squares(forward(given[few]) - images[few]))
        return errors

    def _dropout_noise(self) -> dict[str, NDArray[Any]]:
        """Variance of the output over draws of dropout, over that and its variance over images.

        0 to 1, NaN without dropout. From two passes of a few images in training mode: half the mean
        squared difference of two draws is their variance, and half of that is left in their mean. What
        a sampled code or noise draws passes with dropout off as well, and is no part of it.
        """
        network, count = self.autoencoder, min(MODE_IMAGES, self.fitting, self.sample.perturbed)
        few = self.images.held_out_given[:count]
        dropouts, hidden = network.dropouts, network.hidden_dropouts
        names = ("dropout_noise", "hidden_dropout_noise")
        if not dropouts or len(few) < 2:
            return {name: np.array(math.nan) for name in names}
        images = as_float(few)
        least = SEEN_VARIANCE * float(images.var(axis=0).mean())
        drawn, told = self._drawn(images, without=[])
        others, _ = self._drawn(images, without=dropouts)
        inner = drawn
        if len(hidden) < len(dropouts):
            inner = others + drawn - self._drawn(images, without=hidden)[0]

        def share(value: float) -> float:
            own = max(value - others, 0.0)
            return own / (own + told) if own > least else 0.0

        return {name: np.array(share(value)) for name, value in zip(names, (drawn, inner), strict=True)}

    def _drawn(self, images: Array, without: Sequence[Any]) -> tuple[float, float]:
        """Variance of the output over draws of random layers, and over images, mean over pixels.

        In training mode, with some layers off.
        """
        model = self.autoencoder.model
        with unchanged(model), quiet(model, without):
            forward = compiled(lambda x: model(x, training=True))
            first, second = (np.asarray(forward(images), np.float64) for _ in range(2))
        drawn = float(np.square(first - second).mean()) / 2
        told = float(((first + second) / 2).var(axis=0, ddof=1).mean()) - drawn / 2
        return drawn, max(told, 0.0)

    def _reach(self) -> dict[str, NDArray[Any]]:
        """What the network does not read of the images, and cannot draw."""
        reach = self.autoencoder.reach
        given, images = (
            as_float(part[:MODE_IMAGES]) for part in (self.images.held_out_given, self.images.held_out)
        )
        found = reach_statistics(reach.unread, reach.unreached, given, images, is_exact=reach.is_exact)
        return {f"reach/{name}": np.array(value) for name, value in asdict(found).items()}

    def _loss_minimum(self, outputs: Array) -> dict[str, NDArray[Any]]:
        """Where the loss is smallest, on a few images; NaN where it is not known.

        Args:
            outputs: of the first held-out images.
        """
        fitting = LOSS_VALUES // self.network.image_values
        few = slice(int(np.clip(fitting, 2, LOSS_IMAGES)))
        images = as_float(self.images.held_out[few])
        found = LossMinimum()
        if self.loss is not None and len(images) > 1 and images.std() > 0:
            with suppress(Exception):  # somebody's own loss may take what it likes
                found = loss_minimum(self.loss, images, outputs[few])
        return {f"loss/{name}": np.array(value) for name, value in asdict(found).items()}

    def _labels(self) -> dict[str, NDArray[Any]]:
        """Accuracy of a linear classifier on the latent code, after and before training."""
        images = self.images
        labels = images.validation_labels if images.test is None else images.test_labels
        largest = max(self.network.latent_values, self.network.image_values)
        if images.train_labels is None or labels is None or not self.sample.labels:
            return {}
        if largest * (TRAIN_IMAGES + LABELLED) > 2 * MOST_LATENT_VALUES:
            return {}
        parts = (
            (as_float(images.given[:TRAIN_IMAGES]), images.train_labels[:TRAIN_IMAGES]),
            (as_float(images.held_out_given[:LABELLED]), labels[:LABELLED]),
        )

        def accuracy() -> NDArray[Any]:
            (train, train_labels), (held_out, its_labels) = parts
            return np.array(
                probe_accuracy(
                    self._flat_latents(train), train_labels, self._flat_latents(held_out), its_labels
                )
            )

        accuracies = {"labels/trained": accuracy()}
        if self.initial_weights:
            with self.before_training():
                accuracies["labels/initial"] = accuracy()
        return accuracies

    @contextmanager
    def _with_weights(self, weights: list[Array]) -> Iterator[None]:
        """The network has other weights for the length of the block."""
        variables = self.autoencoder.model.weights
        trained = [np.array(v) for v in variables]
        try:
            _assign(variables, weights)
            yield
        finally:
            _assign(variables, trained)

    @contextmanager
    def _untrained(self) -> Iterator[bool]:
        """The network is as before training, or drawn anew; False if neither can be had."""
        weights = self.initial_weights or _drawn_anew(self.autoencoder.model)
        if weights:
            with self._with_weights(weights):
                yield True
        else:
            yield False

    def _views(
        self, spreads: Mapping[str, Array], examples: Mapping[str, Array]
    ) -> dict[str, NDArray[Any]]:
        """The arrays of `introspection.views`; arguments as for `views.both`."""
        functions = views.Network(
            maps=self._map_batches,
            encode=self._latents,
            decode=self._decode,
            windows=self.autoencoder.windows(),
            sample=self.sample,
        )
        arrays = views.both(functions, self.images, spreads, examples, self._untrained)
        return {f"view/{name}": array for name, array in arrays.items()}

    def _flat_latents(self, images: Array) -> Array:
        return self._latents(images).reshape(len(images), -1)

    def _reinitialized(self) -> dict[str, NDArray[Any]]:
        """Other kernels from the initializer of each layer, where it can be asked for others."""
        import keras

        arrays: dict[str, NDArray[Any]] = {}
        kernels = self.autoencoder.kernels()
        for layer in self.autoencoder.convolutions:
            initializer = getattr(layer, "kernel_initializer", None)
            if initializer is None or layer.name not in kernels:
                continue
            kernel = kernels[layer.name]
            shape = tuple(layer.kernel.shape)
            count = int(np.clip(MOST_REINITIALIZED // kernel.size, 19, REINITIALIZATIONS))
            try:
                drawn = [_another_kernel(initializer, shape, number) for number in range(count)]
            except Exception:  # a function, an array, or a class that cannot be built again
                continue
            # transposed convolutions have their inputs last
            turned = isinstance(layer, keras.layers.Conv2DTranspose)
            reinitialized = [d.swapaxes(2, 3) if turned else d for d in drawn]
            arrays[f"reinitialized/{layer.name}"] = reinitialized[0]
            arrays[f"null/{layer.name}"] = np.array([structure(r) for r in reinitialized], np.float32)
        return arrays

    def _utilities(self, stds: Mapping[str, Array], mean: Array) -> dict[str, Array]:
        """Rise of the squared error when a map is replaced by its mean, over V - MSE.

        Ablation after Morcos et al., "On the importance of single directions for generalization",
        ICLR 2018. Of many filters only those whose maps vary most are ablated; the others are NaN.

        Args:
            stds: (filters,) spread of the maps by layer.
            mean: (h, w, c) the mean training image.
        """
        sizes = {name: len(std) for name, std in stds.items()}
        if not self.sample.ablation:
            return {f"utility/{name}": np.full(size, np.nan, np.float32) for name, size in sizes.items()}
        each = int(self.sample.ablation * max(FEWEST_ABLATED, ABLATED_FILTERS // max(1, len(stds))))
        each = max(FEWEST_ABLATED, each)
        images, given = (
            as_float(part[: self._ablated_images])
            for part in (self.images.held_out, self.images.held_out_given)
        )
        ablated = self._ablated
        means = self._map_means(given)
        keep = {name: np.ones((1, size), np.float32) for name, size in sizes.items()}
        variance = float(np.mean(squares(images - mean)))

        def error(keep: Mapping[str, Array]) -> float:
            def output(batch: Array) -> Any:
                return ablated({"image": batch, "keep": dict(keep), "instead": means})

            return float(np.mean(squares(self._in_batches(output, given) - images)))

        whole = error(keep)
        explained = variance - whole
        arrays = {}
        for name, std in stds.items():
            utilities = np.full(len(std), np.nan, np.float32)
            arrays[f"utility/{name}"] = utilities
            if not explained > 0.1 * variance:
                continue  # in a network that explains nothing, all filters are prunable
            for filter_ in np.argsort(-std, kind="stable")[:each]:
                without = keep[name].copy()
                without[0, filter_] = 0
                utilities[filter_] = (error({**keep, name: without}) - whole) / explained
        return arrays

    @property
    def _ablated_images(self) -> int:
        h, w, _ = self.images.shape
        return max(EXAMPLES, min(64, ABLATED_PIXELS // (h * w)))

    @cached_property
    def _ablated(self) -> Callable[[dict[str, Any]], Any]:
        image = ((None, *self.autoencoder.shape), "float32")
        vectors = {name: ((1, x.shape[-1]), x.dtype) for name, x in self.autoencoder.maps.items()}
        model = self.autoencoder.with_replaced_maps()
        return compiled(model, [{"image": image, "keep": vectors, "instead": vectors}])

    def _traced(self, function: Callable[[Any], Any]) -> Callable[[Array], Any]:
        """A function of images, traced once for batches of any size."""
        return compiled(function, [((None, *self.autoencoder.shape), "float32")])

    def _in_batches(self, function: Callable[..., Any], *arrays: Array) -> Array:
        """A function of images (and of as many other arrays), computed batch by batch."""

        def part_of(here: slice) -> Array:
            part: Array = function(*(x[here] for x in arrays))
            return part

        return np.concatenate(list(self._each_batch(part_of, len(arrays[0]))))

    def _each_batch(self, function: Callable[[slice], T], count: int) -> Iterator[T]:
        """A function of each batch of so many images, in order; some are computed ahead."""
        batches = [slice(start, start + self.batch) for start in range(0, count, self.batch)]
        if self.threads == 1 or len(batches) == 1:
            yield from map(function, batches)
            return
        ahead: deque[Future[T]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            for batch in batches:
                if len(ahead) == self.threads:
                    yield ahead.popleft().result()
                ahead.append(pool.submit(function, batch))
            while ahead:
                yield ahead.popleft().result()

    @cached_property
    def _maps_of(self) -> Callable[[Array], Any]:
        import keras

        network = keras.Model(self.autoencoder.model.input, self.autoencoder.maps)
        return self._traced(lambda x: network(x, training=False))

    def _spreads(
        self,
        images: NDArray[np.generic],
        *,
        with_products: bool = True,
        kept: list[dict[str, Array]] | None = None,
    ) -> dict[str, ChannelSpread]:
        """The spread of the maps over images; the maps of the first, the examples, go to ``kept``."""
        spreads = {name: ChannelSpread(with_products=with_products) for name in self.autoencoder.maps}
        left = EXAMPLES if kept is not None else 0
        for batch in self._map_batches(images):
            if kept is not None and left > 0:
                kept.append({name: maps[:left].copy() for name, maps in batch.items()})
                left -= self.batch
            for name, maps in batch.items():
                spreads[name].add(maps)
        return spreads

    def _map_batches(self, images: NDArray[np.generic]) -> Iterator[dict[str, Array]]:
        """The maps of each convolution, batch by batch."""
        maps_of = self._maps_of

        def maps(here: slice) -> dict[str, Array]:
            found: dict[str, Array] = maps_of(as_float(images[here]))
            return found

        return self._each_batch(maps, len(images))

    def _map_means(self, images: Array) -> dict[str, Array]:
        """(1, filters) mean of each map."""
        batches = [
            {name: m.mean(axis=(1, 2)) for name, m in maps.items()} for maps in self._map_batches(images)
        ]
        return {name: mean.mean(axis=0, keepdims=True) for name, mean in _joined(batches).items()}

    def _maps(self) -> dict[str, NDArray[Any]]:
        """Feature maps of the examples, and their spread over more images."""
        arrays: dict[str, NDArray[Any]] = {}
        examples: list[dict[str, Array]] = []
        spreads = self._spreads(self.images.held_out_given[: self.sample.mapped], kept=examples)
        for name, maps in _joined(examples).items():
            std, image_std = spreads[name].std(), spreads[name].image_std()
            inactive = map_health(std, image_std).inactive
            arrays[f"map/{name}"] = maps
            arrays[f"map_std/{name}"] = std
            arrays[f"map_image_std/{name}"] = image_std
            arrays[f"map_duplicates/{name}"] = np.array(
                duplicates(spreads[name].correlation(), inactive)
            )
        return arrays


def _of(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _joined(batches: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The arrays of several batches, each in one."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _assign(variables: list[Any], values: list[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _another_kernel(initializer: Any, shape: tuple[int, ...], number: int) -> Array:
    """A kernel of this shape from an initializer that is built again with another seed.

    Raises:
        Exception: of any kind, if it cannot be built again or gives something else.
    """
    import keras

    settings = initializer.get_config()
    if "seed" in settings:
        settings["seed"] = number
    drawn = type(initializer).from_config(settings)(shape)
    kernel = np.asarray(keras.ops.convert_to_numpy(drawn))
    if kernel.shape != shape:
        raise ValueError(f"a kernel of {kernel.shape} and not of {shape}")
    return kernel


def _drawn_anew(model: Any) -> list[Array]:
    """Weights of a network of the same build, always the same; [] if it cannot be built again."""
    import keras

    clones: list[tuple[Any, Any]] = []

    def again(layer: Any) -> Any:
        clones.append((layer, type(layer).from_config(layer.get_config())))
        return clones[-1][1]

    state = random.getstate()  # Keras draws the seeds of initializers from it
    random.seed(0)
    try:
        keras.models.clone_model(model, clone_function=again)
        drawn: dict[int, Array] = {}  # by variable, as layers that are called twice share theirs
        for layer, clone in clones:
            for variable, other in zip(weights_of(layer), weights_of(clone), strict=True):
                if tuple(variable.shape) != tuple(other.shape):
                    return []
                drawn.setdefault(id(variable), np.array(other))
        return [drawn[id(variable)] for variable in model.weights]
    except Exception:  # a layer of somebody else's, whose constructor may raise anything
        return []
    finally:
        random.setstate(state)
