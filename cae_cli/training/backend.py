"""Starts TensorFlow once, quietly, with the same results every time."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cae_cli.errors import RunFailed


@dataclass(frozen=True)
class Device:
    """What computes.

    Attributes:
        gpus: their names; none: the CPU.
        parts: in which a batch is computed side by side.
    """

    gpus: tuple[str, ...]
    parts: int = 1

    def __str__(self) -> str:
        return ", ".join(self.gpus) if self.gpus else "CPU"


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Sends what TensorFlow's C++ code prints to ``log``, and leaves Python's standard error as it is.

    No environment variable silences what CUDA, oneDNN and absl print, not only while they load, so
    file descriptor 2 points to the log for the whole block.

    Args:
        log: a text file that is appended to.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever else Keras is used with here
    sys.stderr.flush()
    descriptor, stderr = os.dup(2), sys.stderr
    with log.open("ab") as file, os.fdopen(os.dup(2), "w", buffering=1) as screen:
        os.dup2(file.fileno(), 2)
        sys.stderr = screen
        try:
            yield
        finally:
            sys.stderr = stderr
            os.dup2(descriptor, 2)
            os.close(descriptor)


def start(*, deterministic: bool, mixed_precision: bool) -> Device:
    """Imports TensorFlow and sets it up.

    Args:
        deterministic: operations give the same bits every time; slower on a GPU. Once on, it stays
            on for later runs of the same process.
        mixed_precision: compute in float16 where there is a GPU.

    Raises:
        RunFailed: TensorFlow cannot be imported.
    """
    try:
        import keras
        import tensorflow as tf
    except ImportError as error:
        raise RunFailed(
            f"TensorFlow cannot be imported: {error}", hint="pip install --force-reinstall tensorflow"
        ) from error
    if _limited is not None:
        import sklearn.linear_model  # noqa: F401  (brings SciPy's)

        _limit()
    keras.config.set_image_data_format("channels_last")
    gpus = tf.config.list_physical_devices("GPU")
    parts = 1 if gpus or cores() == 1 else 2
    if parts > 1:
        with contextlib.suppress(RuntimeError):  # as below
            # Two cores have a part each. More than two are shared by the operations of both.
            tf.config.threading.set_inter_op_parallelism_threads(parts)
            tf.config.threading.set_intra_op_parallelism_threads(1 if cores() == parts else cores())
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # set already, by an earlier run of this process
            tf.config.experimental.set_memory_growth(gpu, True)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    policy = "mixed_float16" if mixed_precision and gpus else "float32"
    keras.mixed_precision.set_global_policy(policy)
    return Device(tuple(_gpu_name(gpu) for gpu in gpus), parts)


_cores: int | None = None  # there were before `keep_to` took some away


def cores() -> int:
    """How many cores this process could use when it began."""
    if _cores is not None:
        return _cores
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_to(some: Collection[int]) -> None:
    """Keeps this process to some of its cores, before `start`.

    Only the time it takes depends on them: batches are cut and threads counted as if it had all.
    """
    global _cores
    _cores = cores()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, some)


_limited: contextlib.ExitStack | None = None  # inside `one_blas_thread`


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """In the block linear algebra computes on one thread, however many cores there are.

    Its threads wait for one another by turning in circles: two of them on one core, as in a job that
    keeps to its own, take many times as long as one. And the bits would depend on their number.
    """
    global _limited
    with contextlib.ExitStack() as _limited:
        _limit()
        try:
            yield
        finally:
            _limited = None


def _limit() -> None:
    """Only libraries that are loaded can be told: NumPy's at once, SciPy's when TensorFlow starts."""
    import threadpoolctl

    if _limited is not None:
        _limited.enter_context(threadpoolctl.threadpool_limits(1, user_api="blas"))


def seed(number: int) -> None:
    """Forgets all earlier networks and sets every random generator, Python's and NumPy's too."""
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(number)


def _gpu_name(gpu: Any) -> str:
    import tensorflow as tf

    return str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
