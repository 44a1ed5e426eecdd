"""The speed of different forms of the training step, measured in turns.

    python -m benchmarks.forms [--repeats 9] [--profile] [overrides]

The forms: Keras' layers one by one, or upsampling and convolution fused; whole batches, or two parts.
``--profile`` lists the operations of the fastest form by their time, from TensorFlow's profiler.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.recording import Nothing
from benchmarks.speed import spread
from cae_cli import data
from cae_cli.config.compose import checked
from cae_cli.introspection.probe import Probe
from cae_cli.model.build import build
from cae_cli.training import backend, fit, forward
from cae_cli.training.step import CompiledSteps

FORMS = {
    "layers, whole": (False, 1),
    "fused, whole": (True, 1),
    "layers, two parts": (False, 2),
    "fused, two parts": (True, 2),
}


def form(options, images, fused: bool, parts: int):
    """A function that runs an epoch in this form and returns its seconds, warmed up."""
    backend.seed(0)
    network = build(images.shape, options.model, tuple(options.regularization.values()))
    convolved_next = forward._convolved_next
    if not fused:
        forward._convolved_next = lambda graph, step: None
    batch = options.training.batch_size
    recorder = Nothing(network.model, Probe(network, images).spreads)
    compiled = CompiledSteps(network, images, options, recorder, parts)
    order = fit.image_order(0, 1, len(images.train))
    steps = -(-len(order) // batch)

    def epoch() -> float:
        began = time.perf_counter()
        compiled.epoch(order, [1e-3] * steps, 0, lambda step, loss: None)
        return time.perf_counter() - began

    epoch()
    forward._convolved_next = convolved_next
    return epoch


def profile(epoch) -> None:
    """Prints the time of the operations of an epoch, by kind."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        wall = epoch()
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    seconds: Counter[str] = Counter()
    for plane in space.planes:
        for event in (e for line in plane.lines for e in line.events):
            name, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
            if name and not name.endswith(":") and "Eager" not in name:
                seconds[kind.removeprefix("_MklNative").removeprefix("_Mkl")] += event.duration_ps / 1e12
    total = sum(seconds.values())
    print(f"\noperations of an epoch: {total:.2f} s, side by side in {wall:.2f} s")
    for kind, value in seconds.most_common(12):
        print(f"{value / total:6.1%}  {kind}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    options = checked(arguments.overrides)[1]
    images = data.load(options.data)
    backend.start(deterministic=True, mixed_precision=False)
    epochs = {name: form(options, images, *how) for name, how in FORMS.items()}
    seconds = {name: [] for name in epochs}
    for _ in range(arguments.repeats):
        for name, epoch in epochs.items():
            seconds[name].append(epoch())
    slowest = np.array(seconds["layers, whole"])
    for name, values in seconds.items():
        speed = len(images.train) / np.median(values)
        print(f"{name:18} {speed:8,.0f} images/s   {spread(slowest / np.array(values))} times as fast")
    if arguments.profile:
        profile(epochs["fused, two parts"])


if __name__ == "__main__":
    main()
