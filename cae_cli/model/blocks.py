"""The stages of encoder and decoder. Keras is imported when a stage is built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cae_cli.model.options import ModelOptions
from cae_cli.model.regularization import Regularizer, kernel_penalty

Tensor = Any


class Stage:
    """Builds the stages of one network: one set of options, one set of regularizers.

    Args:
        options: of the network.
        regularizers: of every hidden layer.
    """

    def __init__(self, options: ModelOptions, regularizers: Sequence[Regularizer]) -> None:
        self.options = options
        self.regularizers = regularizers
        self._skipped: list[Tensor] = []  # maps of the encoder's stages before the resolution changes

    def down(self, x: Tensor, filters: int, name: str) -> Tensor:
        """A stage of the encoder: (n, h, w, c) to (n, h/2, w/2, filters)."""
        import keras

        kind = self.options.downsampling
        blocks, sampling = self._plan(name, "down" if kind == "strided" else None)
        for block in blocks:
            x = self._block(x, filters, block)
        self._skipped.append(x)
        if sampling:
            return self._convolve(x, filters, sampling, kernel=self.options.sampling_kernel, strides=2)
        pool = keras.layers.MaxPooling2D if kind == "max_pool" else keras.layers.AveragePooling2D
        return pool(2, padding="same", name=f"{name}_pool")(x)

    def up(self, x: Tensor, filters: int, name: str) -> Tensor:
        """A stage of the decoder: (n, h, w, c) to (n, 2h, 2w, filters)."""
        import keras

        kind = self.options.upsampling
        blocks, sampling = self._plan(name, "up" if kind == "transposed" else None)
        for block in blocks:
            x = self._block(x, filters, block)
        if sampling:
            x = self._convolve(
                x,
                filters,
                sampling,
                kernel=self.options.sampling_kernel,
                strides=2,
                transposed=True,
            )
        else:
            x = keras.layers.UpSampling2D(2, interpolation=kind, name=f"{name}_upsample")(x)
        if not self.options.skips:
            return x
        # Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015
        return keras.layers.Concatenate(name=f"{name}_skip")([x, self._skipped.pop()])

    def flatten(self, x: Tensor, units: int, name: str) -> Tensor:
        """A dense latent code, (n, units), of x, (n, h, w, c)."""
        import keras

        return self._dense(keras.layers.Flatten(name=f"{name}_flat")(x), units, name)

    def unflatten(self, x: Tensor, shape: tuple[int, int, int], name: str) -> Tensor:
        """A hidden map of a shape (h, w, c) from a dense latent code, (n, units)."""
        import keras

        x = self._dense(x, math.prod(shape), name)
        x = keras.layers.Reshape(shape, name=f"{name}_grid")(x)
        return self._hidden(x, name)

    def attend(self, x: Tensor, name: str) -> Tensor:
        """Self-attention between all positions of x, (n, h, w, c), added to x.

        Vaswani et al. 2017, with normalisation in front; as a block of a convolutional network
        after Zhang et al., "Self-attention generative adversarial networks", ICML 2019.
        """
        import keras

        _, h, w, c = x.shape
        heads = self.options.attention_heads
        y = keras.layers.Reshape((h * w, c), name=f"{name}_positions")(x)  # (n, hw, c)
        y = keras.layers.LayerNormalization(name=f"{name}_norm")(y)
        y = keras.layers.MultiHeadAttention(heads, max(1, c // heads), name=name)(y, y)
        y = keras.layers.Reshape((h, w, c), name=f"{name}_grid")(y)
        return keras.layers.Add(name=f"{name}_sum")([x, y])

    def _plan(self, name: str, sampling: str | None) -> tuple[list[str], str | None]:
        """Names of a stage's blocks, and of the convolution that changes the resolution, if any.

        The last plain convolution changes the resolution itself; a residual block cannot, so the stage
        gets an additional convolution.
        """
        count = self.options.convolutions
        names = [name] if count == 1 else [f"{name}_{number}" for number in range(1, count + 1)]
        if sampling is None:
            return names, None
        if self.options.block == "residual":
            return names, f"{name}_{sampling}"
        return names[:-1], names[-1]

    def _block(self, x: Tensor, filters: int, name: str) -> Tensor:
        return (self._residual if self.options.block == "residual" else self._convolve)(x, filters, name)

    def _residual(self, x: Tensor, filters: int, name: str) -> Tensor:
        """Two convolutions and a shortcut (He et al., "Deep residual learning", CVPR 2016)."""
        import keras

        y = self._convolve(x, filters, f"{name}_a")
        y = self._convolve(y, filters, f"{name}_b", activate=False)
        if x.shape[-1] != filters:
            x = self._convolve(x, filters, f"{name}_shortcut", kernel=1, activate=False)
        y = keras.layers.Add(name=f"{name}_sum")([x, y])
        return self._activate(y, name)

    def _convolve(
        self,
        x: Tensor,
        filters: int,
        name: str,
        *,
        kernel: int | None = None,
        strides: int = 1,
        transposed: bool = False,
        activate: bool = True,
    ) -> Tensor:
        """A hidden convolution, with its activation unless the caller adds something first."""
        import keras

        layer = keras.layers.Conv2DTranspose if transposed else keras.layers.Conv2D
        x = layer(
            filters,
            kernel or self.options.kernel_size,
            strides=strides,
            padding="same",
            kernel_initializer=self.options.initializer,
            kernel_regularizer=self._penalty(),
            name=name,
        )(x)
        return self._hidden(x, name, activate=activate)

    def _dense(self, x: Tensor, units: int, name: str) -> Tensor:
        import keras

        layer = keras.layers.Dense(
            units,
            kernel_initializer=self.options.initializer,
            kernel_regularizer=self._penalty(),
            name=name,
        )
        return layer(x)

    def _penalty(self) -> Any:
        import keras

        l1, l2 = kernel_penalty(self.regularizers)
        return keras.regularizers.L1L2(l1, l2) if l1 or l2 else None

    def _hidden(self, x: Tensor, name: str, *, activate: bool = True) -> Tensor:
        """What stands behind the kernel of a hidden layer."""
        for regularizer in self.regularizers:
            x = regularizer.before_activation(x, name)
        return self._activate(x, name) if activate else x

    def _activate(self, x: Tensor, name: str) -> Tensor:
        import keras

        x = keras.layers.Activation(self.options.activation, name=f"{name}_map")(x)
        for regularizer in self.regularizers:
            x = regularizer.after_activation(x, name)
        return x
