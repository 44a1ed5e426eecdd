"""Augmentation: random affine transforms and flips of the training images.

By default the target is transformed together with the input. ``target=original`` does not transform it,
like the popular ``ImageDataGenerator.flow(x, x)`` recipe, so the network has to undo the transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cae_cli.options import option

Tensor = Any


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges of the random transforms, drawn anew for every image and step."""

    rotation: float = option("maximum angle, in degrees", least=0, most=180)
    shift: float = option("maximum shift, as a share of the side", least=0, most=1)
    zoom: float = option("maximum change of size, as a share, for each axis", least=0, below=1)
    flip: bool = option("mirror left to right with probability 0.5")
    target: str = option(
        "same: the target is transformed with the input; original: it is not",
        choices=("same", "original"),
    )

    @property
    def active(self) -> bool:
        """Whether any transform is on."""
        return bool(self.rotation or self.shift or self.zoom or self.flip)

    def __call__(self, images: Tensor, seed: Tensor) -> Tensor:
        """Transformed images; equal seeds give equal transforms. As `draws` and `transformed`."""
        import tensorflow as tf

        return self.transformed(images, self.draws(tf.shape(images)[0], seed))

    def draws(self, count: Tensor, seed: Tensor) -> Tensor:
        """Random numbers in [-1, 1) for ``count`` images, (count, 6), that depend on both arguments."""
        import tensorflow as tf

        return tf.transpose(tf.random.stateless_uniform((6, count), seed, -1.0, 1.0))

    def transformed(self, images: Tensor, draws: Tensor) -> Tensor:
        """Transformed images; pixels from beyond the border repeat the border.

        Args:
            images: (n, h, w, c) float.
            draws: (n, 6) of `draws`.

        Returns:
            The same shape and range.
        """
        import tensorflow as tf

        h, w = images.shape[1:3]
        draws = tf.unstack(draws, axis=1)
        angle = draws[0] * (self.rotation * 3.141592653589793 / 180)
        zoom_y, zoom_x = 1 + draws[1] * self.zoom, 1 + draws[2] * self.zoom
        shift_y, shift_x = draws[3] * self.shift * h, draws[4] * self.shift * w
        mirror = tf.where(draws[5] < 0, -1.0, 1.0) if self.flip else tf.ones_like(angle)
        # Output pixel -> input pixel: zoom and mirror, then turn about the centre, then shift.
        cos, sin = tf.cos(angle), tf.sin(angle)
        a, b = cos * zoom_x * mirror, -sin * zoom_y
        d, e = sin * zoom_x * mirror, cos * zoom_y
        centre_y, centre_x = (h - 1) / 2, (w - 1) / 2
        c = centre_x - a * centre_x - b * centre_y + shift_x
        f = centre_y - d * centre_x - e * centre_y + shift_y
        zero = tf.zeros_like(a)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=tf.stack([a, b, c, d, e, f, zero, zero], axis=1),
            output_shape=(h, w),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )
