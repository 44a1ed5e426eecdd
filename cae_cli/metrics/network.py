"""What a network is made of, as far as the diagnosis needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Network:
    """Facts that follow from the layers of a network, not from its weights.

    Attributes:
        image_shape: (h, w, c).
        latent_shape: of the latent code of an image, (h', w', channels) or (values,).
        output_activation: of the last layer ("sigmoid"), None if unknown.
        hidden_activation: the most frequent one of the others, None if unknown.
        normalised: it has batch normalisation.
        skips: the image reaches the output around the latent code.
        receptive_field: side in pixels of what a latent value sees; None if unknown.
        depth: layers with kernels on the longest path.
        shortcuts: sums lead around layers with kernels, as in residual blocks.
        narrowest: fewest filters of a hidden convolution, None if there is none.
        half_precision: type of the trained weights that have 16 bits, None if there are none.
        drops_output: there is dropout behind the last layer with a kernel.
        skipping: names of the layers whose stride is larger than their window.
        span: the range of the images that the network was made for.
    """

    image_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]
    output_activation: str | None
    hidden_activation: str | None
    normalised: bool
    skips: bool
    receptive_field: float | None
    depth: int
    narrowest: int | None
    half_precision: str | None = None
    drops_output: bool = False
    skipping: tuple[str, ...] = ()
    span: tuple[float, float] = (0.0, 1.0)
    shortcuts: bool = False

    @property
    def latent_values(self) -> int:
        """How many numbers the latent code of an image has."""
        return int(np.prod(self.latent_shape))

    @property
    def image_values(self) -> int:
        """How many numbers an image has."""
        return int(np.prod(self.image_shape))

    @property
    def dense(self) -> bool:
        """Whether the latent code has no positions."""
        return len(self.latent_shape) == 1

    @property
    def linear_copy(self) -> float:
        """Share of white noise that the best linear description of this size passes on, at most 1.

        A projection on d of D directions passes d/D of what has no preferred direction, like scrambled
        pixels and added noise. With fewer latent values than pixels, a network that passes more has a
        way around its latent code; with as many, it can pass everything.
        """
        return min(1.0, self.latent_values / self.image_values)

    @property
    def most_copied(self) -> float:
        """Share of scrambled contrast and of noise that a network of this size may pass on, at most 1.

        A fifth more than `linear_copy`: of sparse images a network describes more with as many values
        than any projection. Omniglot networks pass 0.87 to 1.01 of it.
        """
        return min(1.2 * self.linear_copy, (1 + self.linear_copy) / 2)

    @property
    def latent_grid(self) -> tuple[int, int]:
        """Rows and columns of the latent code; of a flat one those of a square of its size."""
        if not self.dense:
            return self.latent_shape[0], self.latent_shape[1]
        side = max(1, int((self.latent_values / self.image_shape[2]) ** 0.5))
        return side, side


def network(facts: Mapping[str, Any]) -> Network:
    """From plain facts, as training.json holds them; other keys are ignored."""
    values = {field.name: facts[field.name] for field in fields(Network) if field.name in facts}
    for name in {"image_shape", "latent_shape", "span", "skipping"} & values.keys():
        values[name] = tuple(values[name])
    field_sides = values["receptive_field"]  # (h, w)
    values["receptive_field"] = None if field_sides is None else float(max(field_sides))
    return Network(**values)
