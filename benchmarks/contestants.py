"""A contestant of `speed`: the same training, written with one library.

    python benchmarks/contestants.py <contestant> <reference> <batch> <folder>

``folder`` has start.npz with images (n, h, w, c) uint8 and the initial weights, which say how many
stages and filters the network has. Each line on standard input is a command, and the answer is a line
of JSON: ``check`` returns the losses of the first steps, ``epoch`` the seconds of a pass over all
images, ``memory`` the peak resident size in bytes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np

CHECKED = 8  # steps with compared losses


def filters_of(weights) -> list[int]:
    """Filters of each convolution: those of the encoder, as many of the decoder, and the output's."""
    return [kernel.shape[-1] for kernel in weights[::2]]


class Contestant:
    """The interface; losses are data losses without penalties."""

    def check(self) -> list[float]:
        raise NotImplementedError

    def epoch(self) -> None:
        raise NotImplementedError


class PlainKeras(Contestant):
    """``compile`` and ``fit``, as in tutorials."""

    def __init__(self, images, weights, reference: str, batch: int, xla: str = "auto") -> None:
        import keras
        import tensorflow as tf
        from keras import layers

        self.batch = batch
        self.x = images.astype("float32") / 255
        penalty = keras.regularizers.L2(1e-3) if reference.startswith("2") else None

        def conv(filters):
            return layers.Conv2D(
                filters, 3, activation="relu", padding="same", kernel_regularizer=penalty
            )

        *hidden, channels = filters_of(weights)
        stages = len(hidden) // 2
        self.model = keras.Sequential([keras.Input(images.shape[1:])])
        for i, filters in enumerate(hidden):
            self.model.add(conv(filters))
            self.model.add(layers.MaxPooling2D(2) if i < stages else layers.UpSampling2D(2))
        self.model.add(layers.Conv2D(channels, 3, activation="sigmoid", padding="same"))
        self.model.set_weights(weights)
        loss = "mse"
        if reference == "3":

            def loss(target, output):
                return 1 - tf.reduce_mean(tf.image.ssim(target, output, max_val=1.0))

        jit = {"auto": "auto", "off": False}[xla]
        self.model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=jit)
        self.batches = {"x": self.x, "y": self.x, "batch_size": batch}
        if reference == "2":
            augment = keras.Sequential(
                [
                    layers.RandomRotation(10 / 360, fill_mode="nearest"),
                    layers.RandomTranslation(0.1, 0.1, fill_mode="nearest"),
                    layers.RandomZoom(0.1, 0.1, fill_mode="nearest"),
                ]
            )

            def both(x):
                x = augment(x, training=True)
                return x, x

            data = tf.data.Dataset.from_tensor_slices(self.x).shuffle(len(self.x)).batch(batch)
            self.batches = {"x": data.map(both, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)}

    def check(self) -> list[float]:
        losses = []
        for start in range(0, CHECKED * self.batch, self.batch):
            x = self.x[start : start + self.batch]
            self.model.reset_metrics()
            losses.append(float(self.model.train_on_batch(x, x)))
        return losses

    def epoch(self) -> None:
        self.model.fit(**self.batches, epochs=1, verbose=0)


class Cae(Contestant):
    """The training of ``cae train``, its recorder included."""

    def __init__(self, images, weights, reference: str, batch: int) -> None:
        import cae_cli.experiment  # noqa: F401  (a run imports all of it, which takes memory)
        from cae_cli.config.compose import checked
        from cae_cli.data import Images
        from cae_cli.introspection.probe import Probe
        from cae_cli.model.build import build
        from cae_cli.training import backend, fit
        from cae_cli.training.recorder import Recorder
        from cae_cli.training.step import CompiledSteps

        names = {"1": "1_baseline", "2": "2_l2_augmented", "3": "3_ssim"}
        plain = ["augmentation=none"] if reference.endswith("plain") else []
        filters = filters_of(weights)
        network = f"model.filters={filters[: len(filters) // 2]}".replace(" ", "")
        options = checked([f"experiment=reference_{names[reference[0]]}", network, *plain])[1]
        device = backend.start(deterministic=options.training.deterministic, mixed_precision=False)
        backend.seed(0)
        all_images = Images(images, images[:256])
        self.network = build(all_images.shape, options.model, tuple(options.regularization.values()))
        self.network.model.set_weights(weights)
        probe = Probe(self.network, all_images)
        self.training, self.images, self.batch, self.epochs = fit, images, batch, 0
        options = replace(options, training=replace(options.training, batch_size=batch))
        recorder = Recorder(self.network.model, probe.spreads)
        self.steps = CompiledSteps(self.network, all_images, options, recorder, device.parts)

    def check(self) -> list[float]:
        order = np.arange(CHECKED * self.batch, dtype=np.int32)
        losses: list[float] = []
        for start in range(0, len(order), self.batch):
            self.steps.epoch(
                order[start : start + self.batch],
                [1e-3],
                start // self.batch,
                lambda step, loss: losses.append(loss),
            )
        return losses

    def epoch(self) -> None:
        self.epochs += 1
        steps = -(-len(self.images) // self.batch)
        order = self.training.image_order(0, self.epochs, len(self.images))
        self.steps.epoch(order, [1e-3] * steps, self.epochs * steps, lambda step, loss: None)


class PyTorch(Contestant):
    """An eager training loop in PyTorch, channels last."""

    def __init__(self, images, weights, reference: str, batch: int, compiled: bool = False) -> None:
        import torch
        from torch import nn

        assert reference == "1"
        self.torch, self.batch = torch, batch
        x = torch.tensor(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        self.x = x.contiguous(memory_format=torch.channels_last)
        *hidden, channels = filters_of(weights)
        before, stages = images.shape[-1], len(hidden) // 2
        stack: list[nn.Module] = []
        for i, filters in enumerate(hidden):
            stack += [nn.Conv2d(before, filters, 3, padding="same"), nn.ReLU()]
            stack += [nn.MaxPool2d(2) if i < stages else nn.Upsample(scale_factor=2)]
            before = filters
        stack += [nn.Conv2d(before, channels, 3, padding="same"), nn.Sigmoid()]
        self.model = nn.Sequential(*stack).to(memory_format=torch.channels_last)
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), weights, strict=True):
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
                parameter.copy_(torch.tensor(value))
        self.optimizer, self.count = torch.optim.Adam(self.model.parameters(), 1e-3), 0
        self.forward = torch.compile(self.model) if compiled else self.model

    def step(self, x):
        self.count += 1
        # Keras adds its epsilon before the bias of the second moment is corrected.
        self.optimizer.param_groups[0]["eps"] = 1e-7 / (1 - 0.999**self.count) ** 0.5
        loss = self.torch.nn.functional.mse_loss(self.forward(x), x)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def check(self) -> list[float]:
        return [float(self.step(x).detach()) for x in self.x[: CHECKED * self.batch].split(self.batch)]

    def epoch(self) -> None:
        order = self.torch.randperm(len(self.x))
        for indices in order.split(self.batch):
            self.step(self.x[indices])


class Jax(Contestant):
    """A jitted step in JAX, with Adam as defined by Kingma and Ba."""

    def __init__(self, images, weights, reference: str, batch: int) -> None:
        import jax
        import jax.numpy as jnp

        assert reference == "1"
        self.batch = batch
        self.x = jnp.asarray(images.astype(np.float32) / 255)
        self.weights = [jnp.asarray(w) for w in weights]
        self.moments = [[jnp.zeros_like(w) for w in self.weights] for _ in range(2)]
        self.count = 0
        self.rng = np.random.default_rng(0)

        last = len(filters_of(weights)) - 1

        def forward(weights, x):
            for i in range(last + 1):
                x = jax.lax.conv_general_dilated(
                    x, weights[2 * i], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                x = x + weights[2 * i + 1]
                x = jax.nn.sigmoid(x) if i == last else jax.nn.relu(x)
                if i < last // 2:
                    window = (1, 2, 2, 1)
                    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "SAME")
                elif i < last:
                    x = x.repeat(2, axis=1).repeat(2, axis=2)
            return x

        @jax.jit
        def step(weights, moments, t, x):
            loss, gradients = jax.value_and_grad(lambda w: jnp.mean((forward(w, x) - x) ** 2))(weights)
            rate = 1e-3 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            first = [0.9 * m + 0.1 * g for m, g in zip(moments[0], gradients, strict=True)]
            second = [0.999 * v + 0.001 * g * g for v, g in zip(moments[1], gradients, strict=True)]
            new = zip(weights, first, second, strict=True)
            return [w - rate * m / (jnp.sqrt(v) + 1e-7) for w, m, v in new], [first, second], loss

        self._step = step

    def step(self, x):
        self.count += 1
        self.weights, self.moments, loss = self._step(self.weights, self.moments, float(self.count), x)
        return loss

    def check(self) -> list[float]:
        starts = range(0, CHECKED * self.batch, self.batch)
        return [float(self.step(self.x[start : start + self.batch])) for start in starts]

    def epoch(self) -> None:
        order = self.rng.permutation(len(self.x))
        for start in range(0, len(order), self.batch):
            loss = self.step(self.x[order[start : start + self.batch]])
        loss.block_until_ready()


CONTESTANTS = {
    "cae": Cae,
    "keras": PlainKeras,
    "keras_no_xla": lambda *a: PlainKeras(*a, xla="off"),
    "torch": PyTorch,
    "torch_compile": lambda *a: PyTorch(*a, compiled=True),
    "jax": Jax,
}


def main() -> None:
    name, reference, batch, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print to stdout
    with np.load(Path(folder) / "start.npz") as file:
        images = file["images"]
        weights = [file[f"weight_{i}"] for i in range(len(file.files) - 1)]
    contestant = CONTESTANTS[name](images, weights, reference, int(batch))
    for line in sys.stdin:
        match line.strip():
            case "check":
                answer: object = contestant.check()
            case "epoch":
                began = time.perf_counter()
                contestant.epoch()
                answer = time.perf_counter() - began
            case _:
                answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
