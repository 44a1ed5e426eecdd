"""Puts fixed images through a network and writes down what came out: the last file that sees Keras.

What it writes (arrays.npz), n held-out images, layers by the convolution's name:

==============================  ================================================================
``kernel/<layer>``              (k, k, inputs, filters) after training
``initial_kernel/<layer>``      the same before training
``map/<layer>``                 (8, h, w, filters) feature maps of the example images
``map_std/<layer>``             (filters,) standard deviation over images and positions
``map_image_std/<layer>``       (filters,) standard deviation over images, mean over positions
``example_images, _outputs``    (8, h, w, c) the first held-out images
``chosen_images, _outputs``     (9, h, w, c) three best, three median, three worst by MSE
``chosen_mse``                  (9,)
``mse, ssim``                   (n,) of the reconstructions
``mean_mse, mean_ssim``         (n,) of the mean training image in their place
``black_mse``                   (n,) of a black image in their place
``train_mse, train_mean_mse``   (m,) the same for training images
``output_variance``             () variance of a pixel of the output over images, mean over pixels
``output_mean``                 () mean of all output pixels
``causal/<argument>``           arguments of `measures.causal.causal`: (k,) for the first of the
                                n images, (m,) for training images
==============================  ================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import Images, as_float, images_at_a_time
from cae_cli.measures.causal import NOISE, linear_mse, noise_response, noise_signs
from cae_cli.measures.maps import ChannelSpread
from cae_cli.measures.similarity import ssim
from cae_cli.model import Autoencoder

Array = NDArray[np.float32]

EXAMPLES = 8
CHOSEN = 3  # of the best, of the median and of the worst
MAP_IMAGES = 512  # images whose feature maps, codes and causal answers are measured
TRAIN_IMAGES = 2000  # training images for the gap between training and validation


class Probe:
    """The fixed images, and what becomes of them.

    Args:
        autoencoder: the network, before training.
        images: where the fixed images come from.
    """

    def __init__(self, autoencoder: Autoencoder, images: Images) -> None:
        import tensorflow as tf

        self.autoencoder = autoencoder
        self.images = images
        self.initial_kernels = autoencoder.kernels()
        self.examples = as_float(images.held_out[:EXAMPLES])
        self.batch = images_at_a_time(images.shape)
        self._reconstruct = tf.function(
            lambda x: autoencoder.model(x, training=False),
            input_signature=[tf.TensorSpec((None, *autoencoder.shape), tf.float32)],
        )

    def snapshot(self) -> dict[str, Array]:
        """Kernels and reconstructions of the examples as they are now."""
        kernels = {f"kernel/{k}": v for k, v in self.autoencoder.kernels().items()}
        return {**kernels, "outputs": self.reconstruct(self.examples)}

    def record(self) -> dict[str, NDArray[Any]]:
        """Everything that the table at the top of this file lists."""
        held_out = self.images.held_out
        mean_image = _mean_image(self.images.train)
        reconstruction = self._score(held_out, mean_image)
        training = self._score(self.images.train[:TRAIN_IMAGES], mean_image, with_ssim=False)
        chosen = _best_median_worst(reconstruction["mse"])
        chosen_images = as_float(held_out[chosen])
        return {
            **{f"kernel/{k}": v for k, v in self.autoencoder.kernels().items()},
            **{f"initial_kernel/{k}": v for k, v in self.initial_kernels.items()},
            **self._maps(),
            **{f"causal/{k}": v for k, v in self._causal().items()},
            "example_images": self.examples,
            "example_outputs": self.reconstruct(self.examples),
            "chosen_images": chosen_images,
            "chosen_outputs": self.reconstruct(chosen_images),
            "chosen_mse": reconstruction["mse"][chosen],
            **reconstruction,
            "train_mse": training["mse"],
            "train_mean_mse": training["mean_mse"],
        }

    def reconstruct(self, images: Array) -> Array:
        """(n, h, w, c) reconstructions."""
        return np.asarray(self._reconstruct(images))

    def _score(
        self, images: NDArray[np.generic], mean_image: Array, *, with_ssim: bool = True
    ) -> Mapping[str, NDArray[Any]]:
        """Yardsticks of each image, batch by batch: the outputs are never all in memory."""
        scores: dict[str, list[Array]] = {}
        total = np.zeros(mean_image.shape)  # of the outputs, for their variance over images
        total_square = np.zeros(mean_image.shape)
        for start in range(0, len(images), self.batch):
            target = as_float(images[start : start + self.batch])
            output = self.reconstruct(target)
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

    def _causal(self) -> dict[str, Array]:
        """What the network makes of shuffled codes, shuffled pixels and noise, image by image."""
        import keras
        import tensorflow as tf

        autoencoder = self.autoencoder
        encoder = tf.function(keras.Model(autoencoder.model.input, autoencoder.code))
        decoder = tf.function(keras.Model(autoencoder.code, autoencoder.model.output))
        images = as_float(self.images.held_out[:MAP_IMAGES])
        signs = noise_signs(images.shape)
        # One permutation for all images: their mean is permuted with them, and V stays what it was.
        pixels = np.random.default_rng(0).permutation(images.shape[1] * images.shape[2])
        scrambled = images.reshape(len(images), len(pixels), -1)[:, pixels].reshape(images.shape)
        codes = np.concatenate([np.asarray(encoder(b)) for b in self._batches(images)])
        # Every image gets the code of its neighbour: none keeps its own.
        others = np.roll(codes, 1, axis=0)
        parts: dict[str, list[Array]] = {}
        for start, batch in zip(range(0, len(images), self.batch), self._batches(images), strict=True):
            here = slice(start, start + len(batch))
            output = np.asarray(decoder(codes[here]))
            response, count = noise_response(
                batch, output, self.reconstruct(batch + NOISE * signs[here]), signs[here]
            )
            for name, values in {
                "grey_mse": _squares(batch - batch.mean(axis=(1, 2), keepdims=True)),
                "code_shuffle_change": _squares(np.asarray(decoder(others[here])) - output),
                "pixel_shuffle_mse": _squares(self.reconstruct(scrambled[here]) - scrambled[here]),
                "noise_response": response,
                "noise_pixels": count,
            }.items():
                parts.setdefault(name, []).append(values)
        train = as_float(self.images.train[:TRAIN_IMAGES])
        held_out, trained = linear_mse(train, (images, train), codes.shape[1:3])
        return {
            **{name: np.concatenate(values) for name, values in parts.items()},
            "linear_mse": held_out,
            "linear_train_mse": trained,
        }

    def _batches(self, images: Array) -> list[Array]:
        return [images[start : start + self.batch] for start in range(0, len(images), self.batch)]

    def _maps(self) -> dict[str, Array]:
        """Feature maps of the examples, and their spread over more images."""
        import keras
        import tensorflow as tf

        network = keras.Model(self.autoencoder.model.input, self.autoencoder.maps)
        maps_of = tf.function(
            lambda x: network(x, training=False),
            input_signature=[tf.TensorSpec((None, *self.autoencoder.shape), tf.float32)],
        )
        spreads = {name: ChannelSpread() for name in self.autoencoder.maps}
        images = self.images.held_out[:MAP_IMAGES]
        for start in range(0, len(images), self.batch):
            for name, maps in maps_of(as_float(images[start : start + self.batch])).items():
                spreads[name].add(np.asarray(maps))
        arrays: dict[str, Array] = {}
        for name, maps in maps_of(self.examples).items():
            arrays[f"map/{name}"] = np.asarray(maps)
            arrays[f"map_std/{name}"] = spreads[name].std()
            arrays[f"map_image_std/{name}"] = spreads[name].image_std()
        return arrays


def _squares(difference: Array) -> Array:
    """Mean square of each image, (n, h, w, c) to (n,)."""
    return np.asarray(np.square(difference).mean(axis=(1, 2, 3)), np.float32)


def _mean_image(images: NDArray[np.generic]) -> Array:
    """The mean training image, (h, w, c): the best answer that does not look at its input."""
    scale = 1 / 255 if images.dtype == np.uint8 else 1
    return np.asarray(images.mean(axis=0, dtype=np.float64) * scale, np.float32)


def _best_median_worst(mse: Array) -> NDArray[np.intp]:
    """Indices of the best, median and worst images, `CHOSEN` of each, as far as there are any."""
    order = np.argsort(mse, kind="stable")
    count = min(CHOSEN, max(1, len(order) // 3))
    middle = (len(order) - count) // 2
    return np.concatenate([order[:count], order[middle : middle + count], order[-count:]])
