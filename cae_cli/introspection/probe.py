"""Measures a network on fixed images: the last module that uses Keras.

Its arrays in arrays.npz, for n held-out images, the first k of them, and layers by the name of the
convolution:

==============================  ================================================================
``kernel/<layer>``              (k, k, inputs, filters) after training
``initial_kernel/<layer>``      the same before training, where that is known
``reinitialized/<layer>``       the same drawn anew from the layer's initializer
``null/<layer>``                (r,) `metrics.filters.structure` of such re-initialised filters
``map/<layer>``                 (8, h, w, filters) feature maps of the example images
``map_std/<layer>``             (filters,) standard deviation over images and positions
``map_image_std/<layer>``       (filters,) standard deviation over images, mean over positions
``map_duplicates/<layer>``      () maps that repeat another one
``utility/<layer>``             (filters,) rise of the error without this map, see `_utilities`
``example_images, _outputs``    (8, h, w, c) the first held-out images
``example_inputs``              (8, h, w, c) what the network is given, where that is something else
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
``spectrum/<attribute>``        () attributes of `metrics.spectrum.Spectrum`
``latent/<attribute>``          () attributes of `metrics.latent.LatentUse`
``labels/trained, /initial``    () accuracy of a linear probe on the latent code, after and before
                                training; where there are labels
==============================  ================================================================

Where the network is given something else than the images it is to make, as a denoiser is, inputs and
images are perturbed alike, and the output is compared with the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import Images, as_float, images_at_a_time, images_that_fit
from cae_cli.introspection import Autoencoder
from cae_cli.introspection.layers import from_keras, is_a, size_of
from cae_cli.introspection.training_mode import quiet, unchanged
from cae_cli.metrics.filters import structure
from cae_cli.metrics.labels import probe_accuracy
from cae_cli.metrics.latent import informative, latent_use
from cae_cli.metrics.maps import ChannelSpread, duplicates, map_health
from cae_cli.metrics.network import network
from cae_cli.metrics.perturbation import MOST_PIXELS, NOISE, linear_mse, noise_response, noise_signs
from cae_cli.metrics.projection import projection_mse
from cae_cli.metrics.similarity import ssim
from cae_cli.metrics.spectrum import spectrum

Array = NDArray[np.float32]

EXAMPLES = 8
CHOSEN = 3  # of the best, of the median and of the worst
MAP_IMAGES = 512  # images whose feature maps, latent codes and perturbations are measured
WATCHED = 128  # images whose maps are measured repeatedly while training runs
FOLLOWED, MOST_FOLLOWED = 32, 2**22  # images whose maps are measured after each of the first steps, and
# values of these maps
TRAIN_IMAGES = 2000  # training images for the gap between training and validation
LABELLED = 1000  # held-out images that the linear probe is tested on
MODE_IMAGES = 64  # one batch, for batch normalisation in training mode
MOST_LATENT_VALUES = 2**25  # values of latent codes in memory at once
REINITIALIZATIONS = 99  # of the filters of each layer: p-values down to 0.02
MOST_REINITIALIZED = 2**25  # weights drawn for it per layer
SEEN_NOISE = 0.1  # of the pictures; the noise of the metric is invisible
ABLATED_FILTERS, ABLATED_PIXELS = 128, 2**16  # filters that are ablated, and pixels of the images


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
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        images: Images,
        *,
        untrained: bool = True,
        fitting: int | None = None,
    ) -> None:
        self.autoencoder = autoencoder
        self.use(images)
        self.network = network(autoencoder.facts())
        self.initial_kernels = autoencoder.kernels() if untrained else {}
        self.initial_weights = [np.array(v) for v in autoencoder.model.weights] if untrained else []
        self.fitting = fitting or images_that_fit(autoencoder.bytes_per_image)
        self.batch = images_at_a_time(images.shape, self.fitting)
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

    def record(self) -> dict[str, NDArray[Any]]:
        """The arrays in the table at the top of this file."""
        with unchanged(self.autoencoder.model), np.errstate(all="ignore"):  # networks that diverged
            return self._record()

    def _record(self) -> dict[str, NDArray[Any]]:
        held_out, train = self.images.held_out, self.images.train
        mean_image = _mean_image(train)
        given, train_given = self.images.held_out_given, self.images.given
        reconstruction = self._score(given, held_out, mean_image)
        few = slice(TRAIN_IMAGES)
        training = self._score(train_given[few], train[few], mean_image, with_ssim=False)
        chosen = _best_median_worst(reconstruction["mse"])
        maps = self._maps()
        inputs = {} if given is held_out else {"example_inputs": self.examples}
        return {
            **{f"kernel/{k}": v for k, v in self.autoencoder.kernels().items()},
            **{f"initial_kernel/{k}": v for k, v in self.initial_kernels.items()},
            **self._reinitialized(),
            **maps,
            **self._utilities({k: v for k, v in maps.items() if k.startswith("map_std/")}),
            **self._perturbation(),
            **self._labels(),
            **inputs,
            "example_images": as_float(held_out[:EXAMPLES]),
            "example_outputs": self.reconstruct(self.examples),
            "chosen_images": as_float(held_out[chosen]),
            "chosen_outputs": self.reconstruct(as_float(given[chosen])),
            "chosen_mse": reconstruction["mse"][chosen],
            **reconstruction,
            "train_mse": training["mse"],
            "train_mean_mse": training["mean_mse"],
        }

    def reconstruct(self, images: Array) -> Array:
        """(n, h, w, c) reconstructions."""
        return self._in_batches(self._reconstruct, images)

    def spreads(self) -> dict[str, ChannelSpread]:
        """The current spread of the maps over a few images."""
        with unchanged(self.autoencoder.model):  # random layers may draw in inference too
            return self._spreads(self.images.held_out_given[:WATCHED], with_products=False)

    def maps(self) -> dict[str, Array]:
        """The current maps of a few images, (n, h, w, filters) by layer."""
        size = sum(size_of(x.shape) for x in self.autoencoder.maps.values())
        few = self.images.held_out[: int(np.clip(MOST_FOLLOWED // size, 1, FOLLOWED))]
        with unchanged(self.autoencoder.model):
            return _joined(list(self._map_batches(few)))

    def _score(
        self,
        given: NDArray[np.generic],
        images: NDArray[np.generic],
        mean_image: Array,
        *,
        with_ssim: bool = True,
    ) -> Mapping[str, NDArray[Any]]:
        """Metrics of each image, batch by batch: the outputs are never all in memory."""
        scores: dict[str, list[Array]] = {}
        total = np.zeros(mean_image.shape)  # of the outputs, for their variance over images
        total_square = np.zeros(mean_image.shape)
        for start in range(0, len(images), self.batch):
            here = slice(start, start + self.batch)
            target = as_float(images[here])
            output = self.reconstruct(as_float(given[here]))
            total += output.sum(axis=0, dtype=np.float64)
            total_square += np.square(output, dtype=np.float64).sum(axis=0)
            parts = {
                "mse": _squares(target - output),
                "mean_mse": _squares(target - mean_image),
                "black_mse": _squares(target),
            }
            if with_ssim:
                parts["ssim"] = ssim(target, output)
                parts["mean_ssim"] = ssim(target, np.broadcast_to(mean_image, target.shape))
            for name, values in parts.items():
                scores.setdefault(name, []).append(values)
        mean = total / len(images)
        return {
            **{name: np.concatenate(parts) for name, parts in scores.items()},
            "output_variance": np.array((total_square / len(images) - mean**2).mean()),
            "output_mean": np.array(mean.mean()),
        }

    def _perturbation(self) -> dict[str, NDArray[Any]]:
        """Responses to replaced latent codes, shuffled pixels and noise, image by image."""
        largest = max(self.network.latent_values, self.network.image_values)
        count = int(np.clip(MOST_LATENT_VALUES // largest, EXAMPLES, MAP_IMAGES))
        images, given = (
            as_float(part[:count]) for part in (self.images.held_out, self.images.held_out_given)
        )
        signs = noise_signs(images.shape)
        # One permutation for all images: it permutes their mean too and leaves V unchanged.
        pixels = np.random.default_rng(0).permutation(images.shape[1] * images.shape[2])
        scrambled, scrambled_given = (
            a.reshape(len(a), len(pixels), -1)[:, pixels].reshape(a.shape) for a in (images, given)
        )
        latents = self._latents(given)
        others = np.roll(latents, -1, axis=0)  # every image gets the latent code of its neighbour
        mean_latent = latents.mean(axis=0, keepdims=True)
        parts: dict[str, list[Array]] = {}
        outputs: list[Array] = []
        for start in range(0, len(images), self.batch):
            here = slice(start, start + self.batch)
            outputs.append(self._decode(given[here], latents[here]))
            responses = self._responses(
                (given[here], images[here]),
                outputs[-1],
                others[here],
                mean_latent,
                (scrambled_given[here], scrambled[here]),
                signs[here],
            )
            for name, values in responses.items():
                parts.setdefault(name, []).append(values)
        whole = {name: np.concatenate(values) for name, values in parts.items()}
        whole |= self._baselines(given, images)
        measured = {
            "perturbation": whole | {"training_mode_mse": self._in_training_mode(given, images)},
            "spectrum": asdict(spectrum(images, np.concatenate(outputs))),
            "latent": asdict(replace(latent_use(latents), informative=self._informative(given))),
        }
        first = slice(0, EXAMPLES)
        noisy = np.clip(given[first] + SEEN_NOISE * signs[first], given.min(), given.max())
        return {
            **{f"{of}/{k}": np.array(v) for of, values in measured.items() for k, v in values.items()},
            "shuffled_outputs": self._decode(given[first], others[first]),
            "scrambled_images": scrambled_given[first],
            "scrambled_outputs": self.reconstruct(scrambled_given[first]),
            "noisy_images": noisy,
            "noisy_outputs": self.reconstruct(noisy),
        }

    def _responses(
        self,
        pair: tuple[Array, Array],
        outputs: Array,
        others: Array,
        mean_latent: Array,
        scrambled: tuple[Array, Array],
        signs: Array,
    ) -> dict[str, Array]:
        """The arguments of `metrics.perturbation.perturbation` that need the network, for a batch."""
        given, images = pair
        response, pixel_count = noise_response(
            images, outputs, self.reconstruct(given + NOISE * signs), signs
        )
        flat = np.broadcast_to(mean_latent, others.shape)
        return {
            "grey_mse": _squares(images - images.mean(axis=(1, 2), keepdims=True)),
            "latent_swap_change": _squares(self._decode(given, others) - outputs),
            "zero_latent_mse": _squares(self._decode(given, np.zeros_like(flat)) - images),
            "mean_latent_mse": _squares(self._decode(given, flat) - images),
            "repeat_change": _squares(self.reconstruct(given) - outputs),
            "pixel_shuffle_mse": _squares(self.reconstruct(scrambled[0]) - scrambled[1]),
            "noise_response": response,
            "noise_pixels": pixel_count,
        }

    def _baselines(self, given: Array, images: Array) -> dict[str, Array]:
        """Errors of linear decoders."""
        # If the images are too large for a linear decoder, one is enough to find out.
        enough = TRAIN_IMAGES if self.network.image_values <= MOST_PIXELS else 1
        train, train_given = (as_float(a[:enough]) for a in (self.images.train, self.images.given))
        held_out, trained = linear_mse(
            train,
            (images, train),
            self.network.latent_grid,
            given=train_given,
            given_measured=(given, train_given),
        )
        projected = projection_mse(train, (images,), self.network.latent_values)[0]
        return {"linear_mse": held_out, "linear_train_mse": trained, "projection_mse": projected}

    @cached_property
    def _decoder(self) -> Callable[[list[Array]], Any]:
        import tensorflow as tf

        latent = self.autoencoder.latent
        signature = [
            tf.TensorSpec((None, *self.autoencoder.shape), tf.float32),
            tf.TensorSpec((None, *latent.shape[1:]), latent.dtype),
        ]
        traced: Callable[[list[Array]], Any] = tf.function(
            self.autoencoder.decoder(), input_signature=[signature], autograph=False
        )
        return traced

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

    def _in_training_mode(self, given: Array, images: Array) -> Array:
        """Error of each image with batch normalisation as in training.

        NaN where there is none, and where no two images fit into memory together.
        """
        import tensorflow as tf

        if not self.network.normalised or self.fitting < 2:
            return np.full(len(images), np.nan, np.float32)
        model, few = self.autoencoder.model, slice(min(MODE_IMAGES, self.fitting))
        # Dropout and noise are off in inference and would hide the effect of normalisation.
        with unchanged(model), quiet(model):
            # Outside of a compiled function, Keras keeps the outputs of all layers.
            forward = tf.function(lambda x: model(x, training=True), autograph=False)
            return _squares(np.asarray(forward(given[few])) - images[few])

    def _labels(self) -> dict[str, NDArray[Any]]:
        """Accuracy of a linear classifier on the latent code, after and before training."""
        images = self.images
        labels = images.validation_labels if images.test is None else images.test_labels
        largest = max(self.network.latent_values, self.network.image_values)
        if images.train_labels is None or labels is None:
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
            variables = self.autoencoder.model.weights
            trained = [np.array(v) for v in variables]
            _assign(variables, self.initial_weights)
            accuracies["labels/initial"] = accuracy()
            _assign(variables, trained)
        return accuracies

    def _flat_latents(self, images: Array) -> Array:
        return self._latents(images).reshape(len(images), -1)

    def _reinitialized(self) -> dict[str, NDArray[Any]]:
        """Other kernels from the initializer of each layer."""
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

            def draw(number: int, like: Any = initializer, shape: Any = shape) -> Array:
                settings = like.get_config()
                if "seed" in settings:
                    settings["seed"] = number
                return np.asarray(type(like).from_config(settings)(shape))

            drawn = (draw(number) for number in range(count))
            # transposed convolutions have their inputs last
            turned = isinstance(layer, keras.layers.Conv2DTranspose)
            reinitialized = [d.swapaxes(2, 3) if turned else d for d in drawn]
            arrays[f"reinitialized/{layer.name}"] = reinitialized[0]
            arrays[f"null/{layer.name}"] = np.array([structure(r) for r in reinitialized], np.float32)
        return arrays

    def _utilities(self, stds: Mapping[str, Array]) -> dict[str, Array]:
        """Rise of the squared error when a map is replaced by its mean, over V - MSE.

        Ablation after Morcos et al., "On the importance of single directions for generalization",
        ICLR 2018. Of many filters only those whose maps vary most are ablated; the others are NaN.
        """
        import tensorflow as tf

        autoencoder = self.autoencoder
        layers = [key.removeprefix("map_std/") for key in stds]
        sizes = {name: len(std) for name, std in zip(layers, stds.values(), strict=True)}
        count = max(EXAMPLES, min(64, ABLATED_PIXELS // (self.images.shape[0] * self.images.shape[1])))
        images, given = (
            as_float(part[:count]) for part in (self.images.held_out, self.images.held_out_given)
        )
        ablated = tf.function(autoencoder.with_replaced_maps(), autograph=False)
        means = self._map_means(given)
        keep = {name: np.ones((1, size), np.float32) for name, size in sizes.items()}
        variance = float(np.mean(_squares(images - _mean_image(self.images.train))))

        def error(keep: Mapping[str, Array]) -> float:
            def output(batch: Array) -> Any:
                return ablated({"image": batch, "keep": dict(keep), "instead": means})

            return float(np.mean(_squares(self._in_batches(output, given) - images)))

        whole = error(keep)
        explained = variance - whole
        each = max(4, ABLATED_FILTERS // max(1, len(layers)))
        arrays = {}
        for name, std in zip(layers, stds.values(), strict=True):
            utilities = np.full(len(std), np.nan, np.float32)
            arrays[f"utility/{name}"] = utilities
            if not explained > 0.1 * variance:
                continue  # in a network that explains nothing, all filters are prunable
            for filter_ in np.argsort(-std, kind="stable")[:each]:
                without = keep[name].copy()
                without[0, filter_] = 0
                utilities[filter_] = (error({**keep, name: without}) - whole) / explained
        return arrays

    def _traced(self, function: Callable[[Any], Any]) -> Callable[[Array], Any]:
        """A function of images, traced once for batches of any size."""
        import tensorflow as tf

        image = tf.TensorSpec((None, *self.autoencoder.shape), tf.float32)
        traced: Callable[[Array], Any] = tf.function(function, input_signature=[image], autograph=False)
        return traced

    def _in_batches(self, function: Callable[..., Any], *arrays: Array) -> Array:
        """A function of images (and of as many other arrays), computed batch by batch."""
        starts = range(0, len(arrays[0]), self.batch)
        parts = (function(*(x[start : start + self.batch] for x in arrays)) for start in starts)
        return np.concatenate([np.asarray(part) for part in parts])

    @cached_property
    def _maps_of(self) -> Callable[[Array], Any]:
        import keras

        network = keras.Model(self.autoencoder.model.input, self.autoencoder.maps)
        return self._traced(lambda x: network(x, training=False))

    def _spreads(
        self, images: NDArray[np.generic], *, with_products: bool = True
    ) -> dict[str, ChannelSpread]:
        spreads = {name: ChannelSpread(with_products=with_products) for name in self.autoencoder.maps}
        for batch in self._map_batches(images):
            for name, maps in batch.items():
                spreads[name].add(maps)
        return spreads

    def _map_batches(self, images: NDArray[np.generic]) -> Iterator[dict[str, Array]]:
        """The maps of each convolution, batch by batch."""
        for start in range(0, len(images), self.batch):
            maps = self._maps_of(as_float(images[start : start + self.batch]))
            yield {name: np.asarray(m) for name, m in maps.items()}

    def _map_means(self, images: Array) -> dict[str, Array]:
        """(1, filters) mean of each map."""
        batches = [
            {name: m.mean(axis=(1, 2)) for name, m in maps.items()} for maps in self._map_batches(images)
        ]
        return {name: mean.mean(axis=0, keepdims=True) for name, mean in _joined(batches).items()}

    def _maps(self) -> dict[str, NDArray[Any]]:
        """Feature maps of the examples, and their spread over more images."""
        arrays: dict[str, NDArray[Any]] = {}
        spreads = self._spreads(self.images.held_out_given[:MAP_IMAGES])
        for name, maps in _joined(list(self._map_batches(self.examples))).items():
            std, image_std = spreads[name].std(), spreads[name].image_std()
            inactive = map_health(std, image_std).inactive
            arrays[f"map/{name}"] = maps
            arrays[f"map_std/{name}"] = std
            arrays[f"map_image_std/{name}"] = image_std
            arrays[f"map_duplicates/{name}"] = np.array(
                duplicates(spreads[name].correlation(), inactive)
            )
        return arrays


def _joined(batches: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The arrays of several batches, each in one."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _assign(variables: list[Any], values: list[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _squares(difference: Array) -> Array:
    """Mean square of each image, (n, h, w, c) to (n,)."""
    return np.asarray(np.square(difference).mean(axis=(1, 2, 3)), np.float32)


def _mean_image(images: NDArray[np.generic]) -> Array:
    """The mean training image, (h, w, c): the best constant reconstruction."""
    scale = 1 / 255 if images.dtype == np.uint8 else 1
    return np.asarray(images.mean(axis=0, dtype=np.float64) * scale, np.float32)


def _best_median_worst(mse: Array) -> NDArray[np.intp]:
    """Indices of the best, median and worst images, at most `CHOSEN` of each."""
    order = np.argsort(mse, kind="stable")
    count = min(CHOSEN, max(1, len(order) // 3))
    middle = (len(order) - count) // 2
    return np.concatenate([order[:count], order[middle : middle + count], order[-count:]])
