"""What an autoencoder does to images, from its functions alone: no weights, no Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import Images, as_float
from cae_cli.introspection.budget import Sample
from cae_cli.metrics.latent import latent_use
from cae_cli.metrics.network import Network
from cae_cli.metrics.perturbation import NOISE, linear_mse, noise_response, noise_signs
from cae_cli.metrics.projection import projection_mse
from cae_cli.metrics.similarity import ssim
from cae_cli.metrics.spectrum import spectrum

Array = NDArray[np.float32]

EXAMPLES = 8
CHOSEN = 3  # of the best, of the median and of the worst
MAP_IMAGES = 512  # images whose feature maps, latent codes and perturbations are measured
TRAIN_IMAGES = 2000  # training images for the gap between training and validation
MOST_LATENT_VALUES = 2**25  # values of latent codes in memory at once
SEEN_NOISE = 0.1  # of the pictures; the noise of the metric is invisible


@dataclass(frozen=True)
class Behaviour:
    """An autoencoder as functions of any number of images, each (n, h, w, c) in [0, 1].

    Attributes:
        images: that it is measured on, the first of each part.
        network: what it is made of.
        batch: how many images are compared at once.
        reconstruct: from images to images.
        encode: from images to latent codes, (n, ...).
        decode: from images, which feed skip connections only, and latent codes to images.
        informative: from images to `metrics.latent.informative`.
        training_mode: from inputs and images to the error of each image in training mode, or NaN.
        sample: how many images are measured; None: as `most`.
    """

    images: Images
    network: Network
    batch: int
    reconstruct: Callable[[Array], Array]
    encode: Callable[[Array], Array]
    decode: Callable[[Array, Array], Array]
    informative: Callable[[Array], float]
    training_mode: Callable[[Array, Array], Array]
    sample: Sample | None = None

    def record(self) -> dict[str, NDArray[Any]]:
        """Those arrays in the table at the top of `introspection.probe` that need no weights."""
        held_out, train = self.images.held_out, self.images.train
        given, train_given = self.images.held_out_given, self.images.given
        mean = mean_image(train)
        sample = self._sample
        reconstruction = self._score(given[: sample.scored], held_out[: sample.scored], mean)
        few = slice(sample.trained)
        training = self._score(train_given[few], train[few], mean, with_ssim=False)
        chosen = _best_median_worst(reconstruction["mse"])
        examples = as_float(given[:EXAMPLES])
        return {
            **self._perturbation(),
            **({} if given is held_out else {"example_inputs": examples}),
            "example_images": as_float(held_out[:EXAMPLES]),
            "example_outputs": self.reconstruct(examples),
            "chosen_images": as_float(held_out[chosen]),
            "chosen_outputs": self.reconstruct(as_float(given[chosen])),
            "chosen_mse": reconstruction["mse"][chosen],
            **reconstruction,
            "train_mse": training["mse"],
            "train_mean_mse": training["mean_mse"],
        }

    @property
    def _sample(self) -> Sample:
        return self.sample or most(self.images, self.network)

    def _score(
        self,
        given: NDArray[np.generic],
        images: NDArray[np.generic],
        mean: Array,
        *,
        with_ssim: bool = True,
    ) -> Mapping[str, NDArray[Any]]:
        """Metrics of each image, batch by batch: the outputs are never all in memory."""
        scores: dict[str, list[Array]] = {}
        total = np.zeros(mean.shape)  # of the outputs, for their variance over images
        total_square = np.zeros(mean.shape)
        for start in range(0, len(images), self.batch):
            here = slice(start, start + self.batch)
            target = as_float(images[here])
            output = self.reconstruct(as_float(given[here]))
            total += output.sum(axis=0, dtype=np.float64)
            total_square += np.square(output, dtype=np.float64).sum(axis=0)
            parts = {
                "mse": squares(target - output),
                "mean_mse": squares(target - mean),
                "black_mse": squares(target),
            }
            if with_ssim:
                parts["ssim"] = ssim(target, output)
                parts["mean_ssim"] = ssim(target, np.broadcast_to(mean, target.shape))
            for name, values in parts.items():
                scores.setdefault(name, []).append(values)
        mean_output = total / len(images)
        return {
            **{name: np.concatenate(parts) for name, parts in scores.items()},
            "output_variance": np.array((total_square / len(images) - mean_output**2).mean()),
            "output_mean": np.array(mean_output.mean()),
        }

    def _perturbation(self) -> dict[str, NDArray[Any]]:
        """Responses to replaced latent codes, shuffled pixels and noise, image by image."""
        images, given = (
            as_float(part[: self._sample.perturbed])
            for part in (self.images.held_out, self.images.held_out_given)
        )
        signs = noise_signs(images.shape)
        # One permutation for all images: it permutes their mean too and leaves V unchanged.
        pixels = np.random.default_rng(0).permutation(images.shape[1] * images.shape[2])
        scrambled, scrambled_given = (
            a.reshape(len(a), len(pixels), -1)[:, pixels].reshape(a.shape) for a in (images, given)
        )
        latents = self.encode(given)
        others = np.roll(latents, -1, axis=0)  # every image gets the latent code of its neighbour
        mean_latent = latents.mean(axis=0, keepdims=True)
        parts: dict[str, list[Array]] = {}
        outputs: list[Array] = []
        for start in range(0, len(images), self.batch):
            here = slice(start, start + self.batch)
            outputs.append(self.decode(given[here], latents[here]))
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
            "perturbation": whole | {"training_mode_mse": self.training_mode(given, images)},
            "spectrum": asdict(spectrum(images, np.concatenate(outputs))),
            "latent": asdict(replace(latent_use(latents), informative=self.informative(given))),
        }
        first = slice(0, EXAMPLES)
        noisy = np.clip(given[first] + SEEN_NOISE * signs[first], given.min(), given.max())
        return {
            **{f"{of}/{k}": np.array(v) for of, values in measured.items() for k, v in values.items()},
            "shuffled_outputs": self.decode(given[first], others[first]),
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
            "grey_mse": squares(images - images.mean(axis=(1, 2), keepdims=True)),
            "latent_swap_change": squares(self.decode(given, others) - outputs),
            "zero_latent_mse": squares(self.decode(given, np.zeros_like(flat)) - images),
            "mean_latent_mse": squares(self.decode(given, flat) - images),
            "repeat_change": squares(self.reconstruct(given) - outputs),
            "pixel_shuffle_mse": squares(self.reconstruct(scrambled[0]) - scrambled[1]),
            "noise_response": response,
            "noise_pixels": pixel_count,
        }

    def _baselines(self, given: Array, images: Array) -> dict[str, Array]:
        """Errors of linear decoders, never fitted on the image that is measured."""
        enough = min(TRAIN_IMAGES, max(EXAMPLES, MOST_LATENT_VALUES // self.network.image_values))
        train, train_given = (as_float(a[:enough]) for a in (self.images.train, self.images.given))
        if self.images.evaluated:  # every second image, with what is fitted on the others
            errors = np.full((2, len(images)), np.nan, np.float32)
            dims = self.network.latent_values
            for first in (0, 1):
                fitted, measured = train[1 - first :: 2], images[first::2]
                errors[0, first::2] = linear_mse(
                    fitted,
                    (measured,),
                    self.network.latent_grid,
                    given=train_given[1 - first :: 2],
                    given_measured=(given[first::2],),
                )[0]
                errors[1, first::2] = projection_mse(fitted, (measured,), dims)[0]
            unknown = np.full(len(train), np.nan, np.float32)
            return {
                "linear_mse": errors[0], "linear_train_mse": unknown, "projection_mse": errors[1]
            }  # fmt: skip
        mean = mean_image(self.images.train)
        same = self.images.given is self.images.train
        held_out, trained = linear_mse(
            train,
            (images, train[: self._sample.trained]),
            self.network.latent_grid,
            given=train_given,
            given_measured=(given, train_given[: self._sample.trained]),
            means=(mean, mean if same else mean_image(self.images.given)),
        )
        projected = projection_mse(train, (images,), self.network.latent_values)[0]
        return {"linear_mse": held_out, "linear_train_mse": trained, "projection_mse": projected}


def most(images: Images, network: Network) -> Sample:
    """The sample without a budget: the memory bounds what is kept at once."""
    held_out, train = len(images.held_out), len(images.train)
    kept = MOST_LATENT_VALUES // max(network.latent_values, network.image_values)
    return Sample(
        scored=held_out,
        trained=min(train, TRAIN_IMAGES),
        perturbed=min(held_out, int(np.clip(kept, EXAMPLES, MAP_IMAGES))),
        mapped=min(held_out, MAP_IMAGES),
    )


def squares(difference: Array) -> Array:
    """Mean square of each image, (n, h, w, c) to (n,)."""
    return np.asarray(np.square(difference).mean(axis=(1, 2, 3)), np.float32)


def mean_image(images: NDArray[np.generic]) -> Array:
    """The mean training image, (h, w, c): the best constant reconstruction."""
    scale = 1 / 255 if images.dtype == np.uint8 else 1
    return np.asarray(images.mean(axis=0, dtype=np.float64) * scale, np.float32)


def _best_median_worst(mse: Array) -> NDArray[np.intp]:
    """Indices of the best, median and worst images, at most `CHOSEN` of each."""
    order = np.argsort(mse, kind="stable")
    count = min(CHOSEN, max(1, len(order) // 3))
    middle = (len(order) - count) // 2
    return np.concatenate([order[:count], order[middle : middle + count], order[-count:]])
