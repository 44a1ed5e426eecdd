"""Regularizers: what each does to the input, to hidden layers and to the latent code.

A model may have several. To add one, write its class here and its values in
``configs/regularization/<name>.yaml``, under a key of its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cae_cli.options import Catalogue, option

Tensor = Any


@dataclass(frozen=True, kw_only=True)
class Regularizer:
    """Hooks that `build` calls; each returns its argument unless a regularizer overrides it."""

    def penalty(self) -> tuple[float, float]:
        """(L1, L2) strength on the kernels of hidden layers."""
        return 0.0, 0.0

    def on_input(self, x: Tensor) -> Tensor:
        """Between the image and the first convolution."""
        return x

    def before_activation(self, x: Tensor, name: str) -> Tensor:
        """Between the hidden layer ``name`` and its activation."""
        return x

    def after_activation(self, x: Tensor, name: str) -> Tensor:
        """After the activation of the hidden layer ``name``."""
        return x

    def on_latent(self, x: Tensor) -> Tensor:
        """On the latent code."""
        return x


REGULARIZERS: Catalogue[Regularizer] = Catalogue("regularization")


def kernel_penalty(regularizers: Iterable[Regularizer]) -> tuple[float, float]:
    """The sum of all (L1, L2) strengths."""
    strengths = [r.penalty() for r in regularizers]
    return sum(l1 for l1, _ in strengths), sum(l2 for _, l2 in strengths)


@REGULARIZERS.add("l1")
@dataclass(frozen=True, kw_only=True)
class L1(Regularizer):
    """Strength times the sum of absolute weights, added to the loss."""

    strength: float = option("factor of the sum of absolute weights", least=0)

    def penalty(self) -> tuple[float, float]:
        """L1 only."""
        return self.strength, 0.0


@REGULARIZERS.add("l2")
@dataclass(frozen=True, kw_only=True)
class L2(Regularizer):
    """Strength times the sum of squared weights, added to the loss."""

    strength: float = option("factor of the sum of squared weights", least=0)

    def penalty(self) -> tuple[float, float]:
        """L2 only."""
        return 0.0, self.strength


@REGULARIZERS.add("l1_l2")
@dataclass(frozen=True, kw_only=True)
class L1L2(Regularizer):
    """Elastic net: both penalties."""

    l1: float = option("factor of the sum of absolute weights", least=0)
    l2: float = option("factor of the sum of squared weights", least=0)

    def penalty(self) -> tuple[float, float]:
        """Both."""
        return self.l1, self.l2


@REGULARIZERS.add("activity_l1")
@dataclass(frozen=True, kw_only=True)
class ActivityL1(Regularizer):
    """Strength times the sum of absolute activations of the latent code, mean over images."""

    strength: float = option("factor of the sum of an image's absolute activations", least=0)

    def on_latent(self, x: Tensor) -> Tensor:
        """Adds the penalty; the latent code stays unchanged."""
        import keras

        return keras.layers.ActivityRegularization(l1=self.strength, name="latent_penalty")(x)


@REGULARIZERS.add("dropout")
@dataclass(frozen=True, kw_only=True)
class Dropout(Regularizer):
    """Dropout after the activation of every hidden layer (Srivastava et al. 2014)."""

    rate: float = option("share of the activations set to zero", least=0, below=1)
    spatial: bool = option("drop whole feature maps (Tompson et al. 2015)")

    def after_activation(self, x: Tensor, name: str) -> Tensor:
        """Active in training only."""
        import keras

        layer = keras.layers.SpatialDropout2D if self.spatial else keras.layers.Dropout
        return layer(self.rate, name=f"{name}_dropout")(x)


@REGULARIZERS.add("batchnorm")
@dataclass(frozen=True, kw_only=True)
class BatchNorm(Regularizer):
    """Batch normalisation before every hidden activation (Ioffe, Szegedy 2015)."""

    momentum: float = option("momentum of the running mean and variance", least=0, below=1)

    def before_activation(self, x: Tensor, name: str) -> Tensor:
        """Batch statistics in training, running ones afterwards."""
        import keras

        return keras.layers.BatchNormalization(momentum=self.momentum, name=f"{name}_norm")(x)


@REGULARIZERS.add("noise")
@dataclass(frozen=True, kw_only=True)
class InputNoise(Regularizer):
    """Gaussian noise on the input in training, clean target (Vincent et al. 2008)."""

    stddev: float = option("standard deviation of the noise; images are in [0, 1]", least=0, most=1)

    def on_input(self, x: Tensor) -> Tensor:
        """Active in training only."""
        import keras

        return keras.layers.GaussianNoise(self.stddev, name="input_noise")(x)
