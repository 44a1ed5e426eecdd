"""Reconstruction losses: ``loss(target, output)`` is the mean over a batch, to be minimised.

Targets and outputs are (n, h, w, c), targets in [0, 1]. To add a loss, write its class here and its
values in ``configs/loss/<name>.yaml``. Keras is imported when a loss is computed, not before, so that
options are checked without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cae_cli.errors import UserError
from cae_cli.metrics.similarity import MS_SSIM_WEIGHTS, gaussian_band
from cae_cli.options import Catalogue, option

Tensor = Any


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A reconstruction loss.

    Attributes:
        gives_up_squared_error: it trades squared error for similarity, so a high MSE is no fault.
        needs_unit_outputs: it is defined for outputs in [0, 1] only.
        survives_saturation: whether its gradient survives a saturated sigmoid; None: not studied.
        validation_metric: the metric m of metrics.csv for which this loss is 1 - m, if there is one.
        keras_names: names of the same loss in Keras, as ``model.compile`` takes them.
    """

    gives_up_squared_error: ClassVar[bool] = False
    needs_unit_outputs: ClassVar[bool] = False
    survives_saturation: ClassVar[bool | None] = None
    validation_metric: ClassVar[str | None] = None
    keras_names: ClassVar[tuple[str, ...]] = ()

    def __call__(self, target: Tensor, output: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar."""
        raise NotImplementedError

    def check(self, shape: tuple[int, int, int], output_activation: str) -> None:
        """Checks the loss against the images and the network.

        Args:
            shape: (h, w, c) of the images.
            output_activation: the network's last activation.

        Raises:
            UserError: this loss cannot be used with such images or outputs.
        """
        if self.needs_unit_outputs and output_activation not in UNIT_ACTIVATIONS:
            name = next(name for name, cls in LOSSES.items() if cls is type(self))
            raise UserError(
                f"loss={name} needs outputs in [0, 1], got model.output_activation={output_activation}",
                hint="Use model.output_activation=sigmoid, or another loss (cae options loss).",
            )


UNIT_ACTIVATIONS = ("sigmoid", "hard_sigmoid", "softmax")  # their outputs are in [0, 1]
LOSSES: Catalogue[Loss] = Catalogue("loss")


@LOSSES.add("mse")
@dataclass(frozen=True, kw_only=True)
class MeanSquaredError(Loss):
    """Mean of (target - output)²."""

    survives_saturation = False
    keras_names = ("mse", "mean_squared_error")

    def __call__(self, target: Tensor, output: Tensor) -> Tensor:
        from keras import ops

        return ops.mean(ops.square(target - output))


@LOSSES.add("mae")
@dataclass(frozen=True, kw_only=True)
class MeanAbsoluteError(Loss):
    """Mean of |target - output|."""

    keras_names = ("mae", "mean_absolute_error")

    def __call__(self, target: Tensor, output: Tensor) -> Tensor:
        from keras import ops

        return ops.mean(ops.abs(target - output))


@LOSSES.add("huber")
@dataclass(frozen=True, kw_only=True)
class Huber(Loss):
    """e²/2 for errors up to delta, delta (|e| - delta/2) beyond (Huber 1964)."""

    survives_saturation = False
    keras_names = ("huber",)

    delta: float = option("error at which squared changes to absolute", above=0)

    def __call__(self, target: Tensor, output: Tensor) -> Tensor:
        from keras import ops

        error = ops.abs(target - output)
        small = ops.minimum(error, self.delta)
        # e²/2 where e <= delta; delta²/2 + delta (e - delta) beyond
        return ops.mean(small * (error - 0.5 * small))


@LOSSES.add("bce")
@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy(Loss):
    """Mean of -t log y - (1 - t) log(1 - y) over pixels."""

    needs_unit_outputs = True
    survives_saturation = True
    keras_names = ("binary_crossentropy",)

    def __call__(self, target: Tensor, output: Tensor) -> Tensor:
        from keras import ops

        return ops.mean(ops.binary_crossentropy(target, output))


@dataclass(frozen=True, kw_only=True)
class _Windowed(Loss):
    """The window and the constants of the losses based on SSIM."""

    window: int = option("side of the Gaussian window, in pixels", least=3, odd=True)
    sigma: float = option("standard deviation of the window, in pixels", above=0)
    k1: float = option("keeps the luminance term stable where the mean is near 0", above=0)
    k2: float = option("keeps the contrast term stable where the variance is near 0", above=0)

    def check(self, shape: tuple[int, int, int], output_activation: str) -> None:
        """The window must fit into the image."""
        side = min(shape[:2])
        if self.window > side:
            fits = side if side % 2 else side - 1
            raise UserError(
                f"loss.window is {self.window} pixels, but the images have only {shape[0]}x{shape[1]}",
                hint=f"Use loss.window={fits}, or larger images." if fits >= 3 else "Use loss=mse.",
            )

    def ssim_and_contrast(self, target: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """SSIM and its contrast-structure factor, each (n, c), means over all window positions.

        Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
        structural similarity", IEEE TIP 13(4), 2004, as `tf.image.ssim` computes it. A Gaussian
        window is separable and few pixels wide, so filtering is two products with a band matrix,
        and one product filters all four moments at once.
        """
        from keras import ops

        _, h, w, c = target.shape
        if c == 1:  # nothing to move
            t, y = (ops.reshape(x, (-1, 1, h, w)) for x in (target, output))
        else:
            t, y = (ops.transpose(x, (0, 3, 1, 2)) for x in (target, output))  # (n, c, h, w)
        moments = ops.stack([t, y, t * y, t * t + y * y])  # (4, n, c, h, w)
        rows = gaussian_band(h, self.window, self.sigma)  # (h', h)
        columns = gaussian_band(w, self.window, self.sigma)  # (w', w)
        dtype = moments.dtype
        flat = ops.reshape(moments, (-1, w))
        flat = ops.matmul(flat, ops.convert_to_tensor(columns.T, dtype=dtype))  # (4nch, w')
        turned = ops.transpose(ops.reshape(flat, (-1, h, columns.shape[0])), (0, 2, 1))
        flat = ops.matmul(
            ops.reshape(turned, (-1, h)), ops.convert_to_tensor(rows.T, dtype=dtype)
        )  # (4ncw', h')
        filtered = ops.reshape(flat, (4, -1, c, columns.shape[0] * rows.shape[0]))
        mean_t, mean_y, mean_ty, mean_squares = ops.unstack(filtered, 4)
        product, squares = 2 * mean_t * mean_y, mean_t * mean_t + mean_y * mean_y
        c1, c2 = self.k1**2, self.k2**2
        luminance = (product + c1) / (squares + c1)
        contrast = (2 * mean_ty - product + c2) / (mean_squares - squares + c2)
        return ops.mean(luminance * contrast, axis=-1), ops.mean(contrast, axis=-1)


@LOSSES.add("ssim")
@dataclass(frozen=True, kw_only=True)
class StructuralSimilarity(_Windowed):
    """1 - mean SSIM; 0 for equal images, at most 2."""

    gives_up_squared_error = True
    validation_metric = "ssim"

    def __call__(self, target: Tensor, output: Tensor) -> Tensor:
        from keras import ops

        return 1 - ops.mean(self.ssim_and_contrast(target, output)[0])


@LOSSES.add("ms_ssim")
@dataclass(frozen=True, kw_only=True)
class MultiScaleSimilarity(_Windowed):
    """1 - multi-scale SSIM (Wang, Simoncelli, Bovik, Asilomar 2003).

    The published weights belong to five scales, which need 176 pixels with a window of 11. With
    fewer scales the weights of the finest ones are used, divided by their sum.
    """

    gives_up_squared_error = True

    scales: int | None = option(
        "number of scales, each half the size of the last; null: as many as the window fits into",
        least=1,
        most=len(MS_SSIM_WEIGHTS),
    )

    def fitting_scales(self, side: int) -> int:
        """How many scales the window fits into, for images whose shorter side is ``side``."""
        count = 0
        while count < len(MS_SSIM_WEIGHTS) and side >= self.window:
            count, side = count + 1, (side + 1) // 2
        return count

    def check(self, shape: tuple[int, int, int], output_activation: str) -> None:
        """The window must fit into the smallest scale."""
        super().check(shape, output_activation)
        fits = self.fitting_scales(min(shape[:2]))
        if self.scales is not None and self.scales > fits:
            raise UserError(
                f"loss.scales={self.scales} needs larger images than {shape[0]}x{shape[1]}",
                hint=f"Use loss.scales={fits}, or null for as many as fit.",
            )

    def __call__(self, target: Tensor, output: Tensor) -> Tensor:
        from keras import ops

        count = self.scales or self.fitting_scales(min(target.shape[1:3]))
        weights = [w / sum(MS_SSIM_WEIGHTS[:count]) for w in MS_SSIM_WEIGHTS[:count]]
        total = 1.0
        for scale, weight in enumerate(weights):
            ssim, contrast = self.ssim_and_contrast(target, output)  # (n, c)
            last = scale == count - 1
            # A negative factor has no real power, and the slope of x^w is infinite at 0.
            factor = ops.maximum(ssim if last else contrast, 1e-6)
            total = total * ops.power(factor, weight)
            if not last:
                target, output = (ops.average_pool(x, 2, 2, "same") for x in (target, output))
        return 1 - ops.mean(total)


@LOSSES.add("mse_ssim")
@dataclass(frozen=True, kw_only=True)
class SquaredErrorAndSimilarity(_Windowed):
    """(1 - weight) MSE + weight (1 - mean SSIM), after Zhao et al., IEEE TCI 3(1), 2017."""

    ssim_weight: float = option("share of the SSIM term", least=0, most=1)

    def __call__(self, target: Tensor, output: Tensor) -> Tensor:
        from keras import ops

        squared = ops.mean(ops.square(target - output))
        dissimilarity = 1 - ops.mean(self.ssim_and_contrast(target, output)[0])
        return (1 - self.ssim_weight) * squared + self.ssim_weight * dissimilarity


@LOSSES.add("gradient")
@dataclass(frozen=True, kw_only=True)
class GradientDifference(Loss):
    """MSE + weight times the mean absolute error of the differences between neighbouring pixels.

    After Mathieu, Couprie, LeCun, "Deep multi-scale video prediction beyond mean square error",
    ICLR 2016, with signed differences.
    """

    gradient_weight: float = option("weight of the gradient term", least=0)

    def __call__(self, target: Tensor, output: Tensor) -> Tensor:
        from keras import ops

        error = target - output  # differences are linear: those of the error are the error of those
        down = ops.mean(ops.abs(error[:, 1:] - error[:, :-1]))
        right = ops.mean(ops.abs(error[:, :, 1:] - error[:, :, :-1]))
        return ops.mean(ops.square(error)) + self.gradient_weight * (down + right)


def name_of_keras_loss(loss: Any) -> str | None:
    """The name in `LOSSES` of what ``model.compile(loss=…)`` got, else its own name in lower case."""
    if loss is None:
        return None
    own = loss if isinstance(loss, str) else getattr(loss, "__name__", None) or type(loss).__name__
    plain = str(own).lower()
    if "ssim" in plain:
        return "ssim"
    for name, cls in LOSSES.items():
        if plain.replace("_", "") in [keras_name.replace("_", "") for keras_name in cls.keras_names]:
            return name
    return plain
