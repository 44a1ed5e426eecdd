"""Starts TensorFlow: devices, threads, seeds, and its messages in a log."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

from cae_cli.errors import RunFailed, UserError
from cae_cli.introspection.keras_internals import as_in_a_new_process, check_version
from cae_cli.system import streams
from cae_cli.system.guarded import GuardedPath


@dataclass(frozen=True)
class Device:
    """The device that computes.

    Attributes:
        gpus: their names; empty for the CPU.
        parts: number of parts of a batch that are computed in parallel.
        other_threads: TensorFlow was started before, with another number of threads, which stays.
    """

    gpus: tuple[str, ...]
    parts: int = 1
    other_threads: bool = False

    def __str__(self) -> str:
        return ", ".join(self.gpus) if self.gpus else "CPU"


# Loggers of libraries, whose messages name files of this machine and say little to a user.
LIBRARIES = (
    *("tensorflow", "absl", "keras", "h5py", "PIL", "tifffile", "matplotlib"),
    *("pydicom", "nibabel", "nibabel.global"),
)


# What Keras imports if it is installed, for parts of Keras that cae does not use: a third of its start.
OPTIONAL = ("matplotlib", "pandas", "sklearn")


@contextmanager
def quiet(log: GuardedPath | None) -> Iterator[None]:
    """Redirects what libraries say to ``log``; Python's standard error stays as it is.

    That is the output of TensorFlow's C++ code, and in Python warnings and the loggers of `LIBRARIES`.

    No environment variable silences CUDA, oneDNN and absl, so file descriptor 2 points to the log for
    the whole block.

    Args:
        log: a text file, appended to; None: what it says is lost.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever Keras is configured with
    with streams.guarded(), Path(os.devnull).open("ab") if log is None else log.append() as file:
        descriptor = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            with _said_in(file):
                yield
        finally:
            os.dup2(descriptor, 2)
            os.close(descriptor)


@contextmanager
def _said_in(file: IO[bytes]) -> Iterator[None]:
    """In the block, warnings and the loggers of libraries write to a file."""
    text = io.TextIOWrapper(file, "utf-8", "backslashreplace", write_through=True)
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # the disk is full

    def only_there(record: logging.LogRecord) -> bool:
        handler.handle(record)  # before handlers that a library adds to its own logger
        return False

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        with contextlib.suppress(OSError):
            text.write(warnings.formatwarning(message, category, filename, lineno, line))

    loggers = [logging.getLogger(name) for name in LIBRARIES]
    before = warnings.showwarning, [logger.propagate for logger in loggers]
    warnings.showwarning = show
    for logger in loggers:
        logger.addFilter(only_there)
        logger.addHandler(handler)  # for the loggers below it
        logger.propagate = False
    try:
        yield
    finally:
        warnings.showwarning = before[0]
        for logger, propagate in zip(loggers, before[1], strict=True):
            logger.removeFilter(only_there)
            logger.removeHandler(handler)
            logger.propagate = propagate
        text.detach()  # the file is not this function's to close


@contextmanager
def guest(log: GuardedPath | None = None) -> Iterator[None]:
    """In the block, networks are trained in a process of somebody else: afterwards it is as it was.

    Args:
        log: where TensorFlow writes while it is imported, if the process has not done so before; None:
            that is lost. Later it writes where it always does: the file descriptors are left alone.

    Raises:
        RunFailed: as for `start`.
        UserError: Keras computes with another library in this process.
    """
    before = {name: os.environ.get(name) for name in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND")}
    is_first = "keras" not in sys.modules
    try:
        with quiet(log) if is_first else contextlib.nullcontext():
            keras, tf = _libraries()
            if is_first:
                tf.config.list_physical_devices("GPU")  # of which TensorFlow speaks, too
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"Keras computes with {keras.backend.backend()} in this process, and cae needs TensorFlow",
            hint="set the environment variable KERAS_BACKEND=tensorflow before Keras is imported, "
            "or save the model for cae diagnose: model.save('model.keras')",
        )
    with as_in_a_new_process():
        yield


def start(*, deterministic: bool, mixed_precision: bool) -> Device:
    """Imports TensorFlow and sets it up.

    Args:
        deterministic: operations are bit-reproducible; slower on a GPU. Stays on for later runs of the
            same process.
        mixed_precision: compute in float16 if there is a GPU.

    Raises:
        RunFailed: TensorFlow cannot be imported, or Keras has another version.
    """
    with _optional_left_out():
        keras, tf = _libraries()
    keras.config.set_image_data_format("channels_last")
    gpus = tf.config.list_physical_devices("GPU")
    parts = 1 if gpus or cores() == 1 else 2
    if parts > 1:
        with contextlib.suppress(RuntimeError):  # as below
            # Each of two cores computes one part; more cores are shared by the operations of both.
            tf.config.threading.set_inter_op_parallelism_threads(parts)
            tf.config.threading.set_intra_op_parallelism_threads(1 if cores() == parts else cores())
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # set already, by an earlier run of this process
            tf.config.experimental.set_memory_growth(gpu, True)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    policy = "mixed_float16" if mixed_precision and gpus else "float32"
    keras.mixed_precision.set_global_policy(policy)
    others = parts > 1 and tf.config.threading.get_inter_op_parallelism_threads() != parts
    return Device(tuple(_gpu_name(gpu) for gpu in gpus), parts, others)


@contextmanager
def _optional_left_out() -> Iterator[None]:
    """In the block, Keras is imported as if `OPTIONAL` were not installed; they can be afterwards.

    Not in a process of somebody else, who may use those parts: there, `guest` imports Keras before.
    """
    left_out = [] if "keras" in sys.modules else [name for name in OPTIONAL if name not in sys.modules]
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]  # None: cannot be imported
    try:
        yield
    finally:
        for name in left_out:
            sys.modules.pop(name, None)


def _libraries() -> tuple[Any, Any]:
    """Keras and TensorFlow; RunFailed without them."""
    try:
        import keras
        import tensorflow as tf
    except ImportError as error:
        raise RunFailed(
            f"TensorFlow cannot be imported: {error}", hint="pip install --force-reinstall tensorflow"
        ) from error
    check_version()
    return keras, tf


_cores: int | None = None  # number before `keep_to` removed some


def cores() -> int:
    """Number of cores that this process could use when it started."""
    if _cores is not None:
        return _cores
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_to(some: Collection[int]) -> None:
    """Restricts this process to some of its cores, before `start`.

    Results do not depend on it: batches are cut as if the process had all cores.
    """
    global _cores
    _cores = cores()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, some)


def visible_gpus(
    environment: Mapping[str, str] = os.environ, driver: Path = Path("/proc/driver/nvidia/gpus")
) -> list[str]:
    """The GPUs that TensorFlow would see, found without it, as CUDA_VISIBLE_DEVICES names them.

    Args:
        environment: the environment variables.
        driver: the folder in which NVIDIA's driver lists the GPUs.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    count = len(list(driver.iterdir())) if driver.is_dir() else 0
    if named is None or not count:
        return [str(number) for number in range(count)]
    names = [name.strip() for name in named.split(",")]
    # CUDA ignores an empty or negative name and all that follow it.
    return list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))


@contextmanager
def one_blas_thread(*libraries: str) -> Iterator[None]:
    """In the block, linear algebra computes on one thread, however many cores there are.

    Its threads wait for each other in busy loops, so two threads on one core take many times as long as
    one; and results would depend on their number.

    Args:
        libraries: are imported first, because only what is loaded can be limited.
    """
    import threadpoolctl

    for name in libraries:
        importlib.import_module(name)
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield


def seed(number: int) -> None:
    """Clears all earlier networks and seeds the random generators of Keras, Python and NumPy.

    The precision of `start` stays, which Keras would clear, too.
    """
    import keras

    policy = keras.config.dtype_policy()
    keras.backend.clear_session()
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(number)


def _gpu_name(gpu: Any) -> str:
    import tensorflow as tf

    return str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
