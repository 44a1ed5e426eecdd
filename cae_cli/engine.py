"""Starts TensorFlow once, quietly, with the same results every time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Device:
    """What computes: "CPU", or the names of the GPUs."""

    gpus: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.gpus) if self.gpus else "CPU"


def start(log: Path, *, deterministic: bool, mixed_precision: bool) -> Device:
    """Imports TensorFlow and sets it up.

    No environment variable silences what CUDA and absl print while they load, so whatever is
    written to the process' standard error until the first operation goes to ``log``.

    Args:
        log: a text file that is appended to.
        deterministic: operations give the same bits every time; slower on a GPU.
        mixed_precision: compute in float16 where there is a GPU.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with _standard_error_to(log):
        import keras
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if deterministic:
            tf.config.experimental.enable_op_determinism()
        policy = "mixed_float16" if mixed_precision and gpus else "float32"
        keras.mixed_precision.set_global_policy(policy)
        tf.constant(0.0) + 1.0  # the first operation starts the devices, and they print too
    return Device(tuple(_gpu_name(gpu) for gpu in gpus))


def seed(number: int) -> None:
    """Forgets all earlier networks and sets every random generator, Python's and NumPy's too."""
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(number)


def _gpu_name(gpu: Any) -> str:
    import tensorflow as tf

    return str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))


@contextmanager
def _standard_error_to(log: Path) -> Iterator[None]:
    """Redirects file descriptor 2, and shows what was written if the block raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(kept, 2)
            sys.stderr.write(log.read_bytes()[start:].decode(errors="replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
