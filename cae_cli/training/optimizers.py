"""Optimizers and learning-rate schedules.

To add one, write its class here and its values in ``configs/optimizer`` or ``configs/schedule``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from cae_cli.options import Catalogue, option


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimizer; its options are the arguments of the Keras class ``keras_class``.

    Attributes:
        keras_class: the name of the class in ``keras.optimizers``.
        usual_rate: the learning rate at which it usually works.
    """

    keras_class: ClassVar[str]
    usual_rate: ClassVar[float] = 0.001

    learning_rate: float = option(
        "largest learning rate; the schedule multiplies it", least=0, largest=1e38
    )  # the training of one that is too high diverges, and says so
    clip_norm: float | None = option("largest global norm of the gradients; null: unlimited", above=0)

    def build(self) -> Any:
        """The Keras optimizer."""
        import keras

        arguments = asdict(self)
        clip_norm = arguments.pop("clip_norm")
        cls = getattr(keras.optimizers, self.keras_class)
        return cls(**arguments, global_clipnorm=clip_norm)


OPTIMIZERS: Catalogue[Optimizer] = Catalogue("optimizer")


@OPTIMIZERS.add("adam")
@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam (Kingma, Ba 2015)."""

    keras_class = "Adam"

    beta_1: float = option("decay of the mean gradient", least=0, below=1)
    beta_2: float = option("decay of the mean squared gradient", least=0, below=1)


@OPTIMIZERS.add("adamw")
@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov, Hutter 2019)."""

    keras_class = "AdamW"

    weight_decay: float = option("share of the weights taken away per unit of step", least=0)


@OPTIMIZERS.add("nadam")
@dataclass(frozen=True, kw_only=True)
class Nadam(Adam):
    """Adam with Nesterov momentum (Dozat 2016)."""

    keras_class = "Nadam"


@OPTIMIZERS.add("sgd")
@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent."""

    keras_class = "SGD"
    usual_rate = 0.1

    momentum: float = option("share of the last step that is kept", least=0, below=1)
    nesterov: bool = option("look ahead (Nesterov 1983)")


@OPTIMIZERS.add("rmsprop")
@dataclass(frozen=True, kw_only=True)
class RMSprop(Optimizer):
    """RMSprop (Tieleman, Hinton 2012)."""

    keras_class = "RMSprop"

    rho: float = option("decay of the mean squared gradient", least=0, below=1)
    momentum: float = option("share of the last step that is kept", least=0, below=1)


@OPTIMIZERS.add("adadelta")
@dataclass(frozen=True, kw_only=True)
class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012)."""

    keras_class = "Adadelta"
    usual_rate = 1.0

    rho: float = option("decay of the mean squared gradient and step", least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate changes, as a factor of ``optimizer.learning_rate``.

    A pure function of the step and of the validation losses so far, so checkpoints store no state.
    """

    warmup_steps: int = option("steps over which the learning rate rises from 0", least=0)

    def rate_factors(self, steps: Iterable[int], total: int, losses: Sequence[float]) -> list[float]:
        """The factors of ``optimizer.learning_rate`` at steps of one epoch.

        Args:
            steps: from 0.
            total: number of steps of the training.
            losses: validation losses of the epochs before.

        Returns:
            A factor in [0, 1] for each step.
        """
        reached = self.after_epochs(losses)
        return [self._warmup(step) * self.after_warmup(step, total) * reached for step in steps]

    def _warmup(self, step: int) -> float:
        return min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0

    def after_warmup(self, step: int, total: int) -> float:
        """The factor that follows from the step, apart from the warm-up."""
        return 1.0

    def after_epochs(self, losses: Sequence[float]) -> float:
        """The factor that follows from the validation losses; it holds for a whole epoch."""
        return 1.0


SCHEDULES: Catalogue[Schedule] = Catalogue("schedule")


@SCHEDULES.add("constant")
@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """Always 1."""


@SCHEDULES.add("cosine")
@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from 1 to ``final`` (Loshchilov, Hutter 2017), after the warm-up."""

    final: float = option("share of the learning rate at the end", least=0, most=1)

    def after_warmup(self, step: int, total: int) -> float:
        """From 1 at the end of the warm-up to ``final`` at the last step."""
        start = min(self.warmup_steps, total - 1)
        done = max(0, step - start) / max(1, total - 1 - start)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, done))) / 2


@SCHEDULES.add("plateau")
@dataclass(frozen=True, kw_only=True)
class Plateau(Schedule):
    """Multiplied by ``factor`` whenever the validation loss has stopped falling."""

    factor: float = option("the learning rate is multiplied by this", above=0, below=1)
    patience: int = option("epochs without improvement before that", least=1)
    min_delta: float = option(
        "a smaller fall of val/loss, as a share of it, is no improvement", least=0, below=1
    )
    final: float = option("never below this share of the learning rate", least=0, most=1)

    def after_epochs(self, losses: Sequence[float]) -> float:
        """Replays the validation losses."""
        reached, best, waited = 1.0, math.inf, 0
        for loss in losses:
            if not math.isfinite(loss):
                continue
            if loss < best - self.min_delta * abs(best) or best == math.inf:
                best, waited = loss, 0
                continue
            waited += 1
            if waited >= self.patience:
                reached, waited = max(self.final, reached * self.factor), 0
        return reached
