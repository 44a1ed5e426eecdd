"""What an autoencoder does to images, from its functions alone: no weights, no Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import Images, as_float
from cae_cli.metrics.latent import latent_use
from cae_cli.metrics.network import Network
from cae_cli.metrics.perturbation import NOISE, linear_mse, noise_response, noise_signs
from cae_cli.metrics.projection import projection_mse
from cae_cli.metrics.sample import Sample
from cae_cli.metrics.similarity import ssim
from cae_cli.metrics.spectrum import spectrum

Array = NDArray[np.float32]

EXAMPLES = 8
CHOSEN = 3  # of the best, of the median and of the worst
MAP_IMAGES = 512  # images whose feature maps, latent codes and perturbations are measured
TRAIN_IMAGES = 2000  # training images that linear decoders are fitted on
# Training images that are scored for their gap to the held-out ones: as many as these, and at least so
# many. Their mean error is then no less certain than that of the held-out images.
FEWEST_TRAIN_IMAGES = 512
BATCHES = 8  # that are passed on at once, as several may be computed side by side
MOST_LATENT_VALUES = 2**25  # values of latent codes in memory at once
MODE_IMAGES = 64  # one batch, for batch normalisation and dropout in training mode
SEEN_NOISE = 0.1  # of the pictures; the noise of the metric is invisible


Parts = Sequence[tuple[Array, Array]]  # inputs and images


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
        training_mode: from inputs and images of several parts to the error of each image in training
            mode, or NaN.
        sample: how many images are measured; None: as `most`.
    """

    images: Images
    network: Network
    batch: int
    reconstruct: Callable[[Array], Array]
    encode: Callable[[Array], Array]
    decode: Callable[[Array, Array], Array]
    informative: Callable[[Array], float]
    training_mode: Callable[[Parts], list[Array]]
    sample: Sample | None = None

    def record(self) -> dict[str, NDArray[Any]]:
        """Those arrays in the table at the top of `introspection.probe` that need no weights."""
        held_out, given = self.images.held_out, self.images.held_out_given
        sample, scores = self._sample, self._held_out[0]
        chosen = _best_median_worst(scores["mse"])
        inputs = {"example_inputs": np.arange(len(given))[:EXAMPLES], "chosen_inputs": chosen}
        return {
            **{f"sample/{name}": np.array(value) for name, value in asdict(sample).items()},
            **self._perturbation(),
            **{name: as_float(given[of]) for name, of in inputs.items() if given is not held_out},
            "example_images": as_float(held_out[:EXAMPLES]),
            "example_outputs": self.outputs[:EXAMPLES],
            "chosen_images": as_float(held_out[chosen]),
            "chosen_outputs": self.reconstruct(as_float(given[chosen])),
            "chosen_mse": scores["mse"][chosen],
            **scores,
            **self._of_training(),
        }

    @property
    def outputs(self) -> Array:
        """(k, h, w, c) reconstructions of the first held-out images, as many as are perturbed."""
        return self._held_out[1]

    @property
    def _sample(self) -> Sample:
        return self.sample or most(self.images, self.network)

    @cached_property
    def mean(self) -> Array:
        """(h, w, c) the mean training image."""
        return mean_image(self.images.train)

    @property
    def _at_once(self) -> int:
        return BATCHES * self.batch

    def _of_training(self) -> dict[str, NDArray[Any]]:
        """The scores of training images; none of them where these are too many."""
        count, names = self._sample.trained, ("mse", "mean_mse")
        if self.images.evaluated:  # they are the held-out ones
            scores = {name: self._held_out[0][name][:count] for name in names}
        elif count:
            scores, _ = self._score(
                self.images.given[:count], self.images.train[:count], of_training=True
            )
        else:
            scores = dict.fromkeys(names, np.zeros(0, np.float32))
        return {f"train_{name}": scores[name] for name in names}

    @cached_property
    def _held_out(self) -> tuple[dict[str, NDArray[Any]], Array]:
        first = slice(self._sample.scored)
        return self._score(self.images.held_out_given[first], self.images.held_out[first])

    def _score(
        self, given: NDArray[np.generic], images: NDArray[np.generic], *, of_training: bool = False
    ) -> tuple[dict[str, NDArray[Any]], Array]:
        """Metrics of each image, and the first outputs: those of all are never in memory at once."""
        mean = self.mean
        scores: dict[str, list[Array]] = {}
        kept = np.empty((0 if of_training else self._sample.perturbed, *mean.shape), np.float32)
        total = np.zeros(mean.shape)  # of the outputs, for their variance over images
        total_square = np.zeros(mean.shape)
        for start in range(0, len(images), self._at_once):
            here = slice(start, start + self._at_once)
            target = as_float(images[here])
            output = self.reconstruct(as_float(given[here]))
            parts = {"mse": squares(target - output), "mean_mse": squares(target - mean)}
            if not of_training:
                kept[here] = output[: len(kept[here])]
                total += output.sum(axis=0, dtype=np.float64)
                total_square += np.square(output, dtype=np.float64).sum(axis=0)
                parts |= {
                    "black_mse": squares(target),
                    "ssim": ssim(target, output),
                    "mean_ssim": ssim(target, np.broadcast_to(mean, target.shape)),
                }
            for name, values in parts.items():
                scores.setdefault(name, []).append(values)
        whole: dict[str, NDArray[Any]] = {name: np.concatenate(parts) for name, parts in scores.items()}
        mean_output = total / len(images)
        variance = (total_square / len(images) - mean_output**2).mean()
        if not of_training:
            whole |= {"output_variance": np.array(variance), "output_mean": np.array(mean_output.mean())}
        return whole, kept

    def _perturbation(self) -> dict[str, NDArray[Any]]:
        """Responses to replaced latent codes, shuffled pixels and noise, image by image."""
        first = slice(self._sample.perturbed)
        given = images = as_float(self.images.held_out[first])
        signs = noise_signs(images.shape)
        # One permutation for all images: it permutes their mean too and leaves V unchanged.
        pixels = np.random.default_rng(0).permutation(images.shape[1] * images.shape[2])
        scrambled_given = scrambled = _permuted(images, pixels)
        if self.images.held_out_given is not self.images.held_out:
            given = as_float(self.images.held_out_given[first])
            scrambled_given = _permuted(given, pixels)
        latents = self.encode(given)
        outputs = self.decode(given, latents)
        swapped, zeroed, meant = self._replaced(given, latents, outputs)
        parts: dict[str, list[Array]] = {}
        for start in range(0, len(images), self._at_once):
            here = slice(start, start + self._at_once)
            image, output = images[here], outputs[here]
            response, pixel_count = noise_response(
                image, output, self.reconstruct(given[here] + NOISE * signs[here]), signs[here]
            )
            of_scrambled = self.reconstruct(scrambled_given[here])
            if not start:
                scrambled_outputs = of_scrambled[:EXAMPLES]
            responses = {
                "grey_mse": squares(image - image.mean(axis=(1, 2), keepdims=True)),
                "latent_swap_change": squares(swapped(here) - output),
                "next_image_mse": squares(image - images[_next(len(images))[here]]),
                "zero_latent_mse": squares(zeroed(here) - image),
                "mean_latent_mse": squares(meant(here) - image),
                "repeat_change": squares(self.outputs[here] - output),
                "pixel_shuffle_mse": squares(of_scrambled - scrambled[here]),
                "noise_response": response,
                "noise_pixels": pixel_count,
            }
            for name, values in responses.items():
                parts.setdefault(name, []).append(values)
        whole = {name: np.concatenate(values) for name, values in parts.items()}
        whole |= self._baselines(given, images) | self._in_training_mode(given, images)
        measured = {
            "perturbation": whole,
            "spectrum": asdict(spectrum(images, outputs)),
            "latent": asdict(replace(latent_use(latents), informative=self.informative(given))),
        }
        first = slice(0, EXAMPLES)
        noisy = np.clip(given[first] + SEEN_NOISE * signs[first], given.min(), given.max())
        return {
            **{f"{of}/{k}": np.array(v) for of, values in measured.items() for k, v in values.items()},
            "shuffled_outputs": swapped(first),
            "scrambled_images": scrambled_given[first],
            "scrambled_outputs": scrambled_outputs,
            "noisy_images": noisy,
            "noisy_outputs": self.reconstruct(noisy),
        }

    def _in_training_mode(self, given: Array, images: Array) -> dict[str, Array]:
        """Errors in training mode of held-out and of training images."""
        few = slice(0 if self.images.evaluated else min(MODE_IMAGES, self._sample.trained))
        trained = as_float(self.images.given[few]), as_float(self.images.train[few])
        held_out, training = self.training_mode([(given, images), trained])
        return {"training_mode_mse": held_out, "train_training_mode_mse": training}

    def _replaced(
        self, given: Array, latents: Array, outputs: Array
    ) -> tuple[Callable[[slice], Array], Callable[[slice], Array], Callable[[slice], Array]]:
        """Outputs with the latent code of the next image, of zeros, and the mean one, for some images.

        Where nothing passes the latent code, the first are the outputs for the next images, and the
        others are the same for all images.
        """
        flat = [np.zeros_like(latents[:1]), latents.mean(axis=0, keepdims=True)]
        if not self.network.skips:
            zeroed, meant = (self.decode(given[:1], one) for one in flat)
            following = _next(len(outputs))
            return lambda at: outputs[following[at]], lambda _: zeroed, lambda _: meant

        def same(one: Array) -> Callable[[slice], Array]:
            return lambda at: self.decode(given[at], np.broadcast_to(one, latents[at].shape))

        others = np.roll(latents, -1, axis=0)
        return lambda at: self.decode(given[at], others[at]), same(flat[0]), same(flat[1])

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
        mean, scored = self.mean, self._sample.trained
        same = self.images.given is self.images.train
        held_out, *trained = linear_mse(
            train,
            (images, train[:scored]) if scored else (images,),
            self.network.latent_grid,
            given=train_given,
            given_measured=(given, train_given[:scored]) if scored else (given,),
            means=(mean, mean if same else mean_image(self.images.given)),
        )
        projected = projection_mse(train, (images,), self.network.latent_values)[0]
        of_training = trained[0] if trained else np.zeros(0, np.float32)
        return {"linear_mse": held_out, "linear_train_mse": of_training, "projection_mse": projected}


def most(images: Images, network: Network) -> Sample:
    """The sample without a budget: the memory bounds what is kept at once."""
    held_out, train = len(images.held_out), len(images.train)
    kept = MOST_LATENT_VALUES // max(network.latent_values, network.image_values)
    return Sample(
        scored=held_out,
        trained=min(train, TRAIN_IMAGES, max(held_out, FEWEST_TRAIN_IMAGES)),
        perturbed=min(held_out, int(np.clip(kept, EXAMPLES, MAP_IMAGES))),
        mapped=min(held_out, MAP_IMAGES),
    )


def _next(count: int) -> NDArray[np.intp]:
    """Index of the image behind each of ``count`` images, which is the first one behind the last."""
    return (np.arange(count) + 1) % count


def _permuted(images: Array, pixels: NDArray[np.intp]) -> Array:
    """Images (n, h, w, c) with their pixels in another order."""
    return images.reshape(len(images), len(pixels), -1)[:, pixels].reshape(images.shape)


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
