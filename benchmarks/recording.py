"""The cost of recording the training dynamics: the same training with and without, in turns.

    python -m benchmarks.recording [--pairs 5] [overrides]

Prints the share of a training that is spent in the recorder, and the ratio of the times with its 95 %
interval: for whole trainings, and for the epochs after the first, which includes compilation.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from cae_cli import data
from cae_cli.config.compose import checked
from cae_cli.introspection.probe import Probe
from cae_cli.model.build import build
from cae_cli.statistics.interval import interval
from cae_cli.training import backend, step
from cae_cli.training.fit import Callbacks, fit
from cae_cli.training.recorder import Recorder


class Timed(Recorder):
    """Adds up the time spent in its methods."""

    inside = 0.0

    def __getattribute__(self, name: str):
        value = super().__getattribute__(name)
        if name not in ("before", "after", "batches", "losses", "epoch", "wants_batch"):
            return value

        def timed(*arguments, **named):
            began = time.perf_counter()
            try:
                return value(*arguments, **named)
            finally:
                Timed.inside += time.perf_counter() - began

        return timed


class Nothing(Recorder):
    """Records nothing."""

    def cuts(self, first: int, count: int) -> list[int]:
        return []

    def wants_batch(self, step: int) -> bool:
        return False

    def before(self, step: int, *, first_of_epoch: bool) -> None:
        pass

    def after(self, step: int, *, first_of_epoch: bool, data_loss: float, penalty: float) -> None:
        pass

    def epoch(self, step: int, gradients: object, *, look: bool) -> None:
        pass

    def look(self, step: int) -> None:
        pass


def seconds(options, images, kind, parts) -> tuple[float, float]:
    """Seconds of a whole training, and of its epochs after the first."""
    backend.seed(options.seed)
    network = build(images.shape, options.model, tuple(options.regularization.values()))
    probe = Probe(network, images)
    kernels = step.kernels
    if kind is Nothing:
        step.kernels = lambda model: []
    times: list[float] = []
    try:
        began = time.perf_counter()
        callbacks = Callbacks(on_epoch=lambda history: times.append(time.perf_counter()))
        recorder = kind(network.model, probe.spreads)
        fit(network, images, options, recorder, callbacks=callbacks, parts=parts)
    finally:
        step.kernels = kernels
    return time.perf_counter() - began, times[-1] - times[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    options = checked(arguments.overrides)[1]
    parts = backend.start(deterministic=True, mixed_precision=False).parts
    images = data.load(options.data)
    seconds(options, images, Nothing, parts)  # warms up
    whole, _ = seconds(options, images, Timed, parts)
    print(f"in the recorder: {Timed.inside / whole:.1%} of a training, {Timed.inside:.2f} s")
    ratios = []
    for pair in range(arguments.pairs):
        kinds = [Recorder, Nothing] if pair % 2 else [Nothing, Recorder]
        taken = {kind: np.array(seconds(options, images, kind, parts)) for kind in kinds}
        ratios.append(taken[Recorder] / taken[Nothing])
        print(np.round(ratios[-1], 3), flush=True)
    for name, values in zip(
        ("whole training", "epochs after the first"), np.transpose(ratios), strict=True
    ):
        print(f"{name}: {values.mean():.3f} ± {interval(values).margin:.3f} times as long")


if __name__ == "__main__":
    main()
