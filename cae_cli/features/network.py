"""A trained network, ready to be used, with the preparation of its images.

It is opened from a run of ``cae train`` or from a model file. For a run, everything is as it was when
the run was measured: the weights, the scale of the images, the number of images that pass the network
at once. So the error of an image has the bits of the one in the run's files.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli import introspection
from cae_cli.data import Scale, as_float, images_at_a_time, images_that_fit, scale_alike
from cae_cli.errors import UserError, printable, to_paste
from cae_cli.introspection import Autoencoder
from cae_cli.runs.folder import Run
from cae_cli.runs.opening import reading
from cae_cli.runs.reader import Entry
from cae_cli.system import memory
from cae_cli.system.guarded import GuardedPath

Array = NDArray[np.float32]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Network:
    """A trained network and the preparation of its images.

    Attributes:
        autoencoder: takes and makes images (n, h, w, c) in [0, 1].
        name: of the run or the file, to be shown.
        batch: how many images pass the network at once.
        scale: what was done to the values of the images that it was given in training; None: not known.
        target_scale: what was done to those of the images that it was to make of them.
        warning: why its codes should not be trusted: its diagnosis is an error, or its training did not
            end; None: nothing is known against it.
        run: that trained it; None for a model file.
    """

    autoencoder: Autoencoder
    name: str
    batch: int
    scale: Scale | None = None
    target_scale: Scale | None = None
    warning: str | None = None
    run: Run | None = None

    @property
    def shape(self) -> Shape:
        """(h, w, c) of an image."""
        return self.autoencoder.shape

    @property
    def code_shape(self) -> tuple[int, ...]:
        """(h, w, channels) of a latent code, or (values,)."""
        return tuple(int(n) for n in self.autoencoder.latent.shape[1:])

    def prepare(self, images: NDArray[Any]) -> NDArray[Any]:
        """Images as the network takes them, scaled as those that it was trained on.

        Args:
            images: (n, h, w, c), or (n, h, w) where c is 1; values as files have them: uint8 from 0 to
                255, floats from 0 to 1, or of the type and range of the training images.

        Returns:
            (n, h, w, c) uint8, or float32 in [0, 1], which the inputs of pairs may leave.

        Raises:
            UserError: they have another shape, or values of which black and white are unknown.
        """
        images = np.asarray(images)
        if images.ndim == 3 and self.shape[2] == 1:
            images = images[..., np.newaxis]
        if images.shape[1:] != self.shape:
            raise UserError(
                f"the network takes images of {sides(self.shape)}, these are {sides(images.shape[1:])}",
                hint="give them as (n, height, width, channels)",
            )
        return scale_alike(images, self.scale)[0] if len(images) else images

    def encode(self, images: NDArray[Any]) -> Array:
        """Latent codes, (n, *code_shape), of images that were prepared."""
        return self._in_batches(self._encoder, self.shape, self.code_shape, images)

    def decode(self, codes: NDArray[Any]) -> Array:
        """Images (n, h, w, c) in [0, 1], as far as the network keeps to them, of latent codes.

        Args:
            codes: (n, *code_shape), or flat, (n, values).

        Raises:
            UserError: the codes have another shape, or the decoder needs the image as well.
        """
        self.check_decodes()
        codes = np.asarray(codes)
        values = int(np.prod(self.code_shape))
        if codes.ndim < 2 or codes.shape[1:] not in (self.code_shape, (values,)):
            raise UserError(
                f"the codes of the network are {sides(self.code_shape)}, these are "
                f"{sides(codes.shape[1:]) or 'single numbers'}",
                hint="pooled codes cannot be decoded; give (n, values) or (n, height, width, channels)",
            )
        codes = codes.reshape(-1, *self.code_shape)
        return self._in_batches(self._decoder, self.code_shape, self.shape, codes)

    def check_decodes(self) -> None:
        """Raises UserError if the decoder needs more than the code."""
        if self.autoencoder.skips:
            raise UserError(
                "the network cannot make images of codes alone: skip connections lead parts of each "
                "image past the code",
                where=self.name,
                hint="cae reconstruct gives it the images",
            )

    def reconstruct(self, images: NDArray[Any]) -> Array:
        """Reconstructions (n, h, w, c) of images that were prepared."""
        return self._in_batches(self._whole, self.shape, self.shape, images)

    def batches(self, count: int) -> Iterator[slice]:
        """So many images in batches, the last of which may be smaller."""
        for start in range(0, count, self.batch):
            yield slice(start, min(start + self.batch, count))

    def passes(self, images: NDArray[Any]) -> Iterator[tuple[slice, Array, Array, Array]]:
        """Which images, these in [0, 1], their codes and their reconstructions, batch by batch."""
        for at in self.batches(len(images)):
            batch = as_float(images[at])
            made = self._both(_filled(batch, self.batch))
            codes, outputs = (np.asarray(x, np.float32)[: len(batch)] for x in made)
            yield at, batch, codes, outputs

    def _in_batches(
        self,
        function: Callable[[Array], Any],
        given: tuple[int, ...],
        made: tuple[int, ...],
        values: NDArray[Any],
    ) -> Array:
        assert values.shape[1:] == given, (values.shape, given)
        result = np.empty((len(values), *made), np.float32)
        for at in self.batches(len(values)):
            batch = as_float(values[at])
            result[at] = np.asarray(function(_filled(batch, self.batch)))[: len(batch)]
        return result

    @cached_property
    def _whole(self) -> Callable[[Array], Any]:
        return self._traced(lambda x: self.autoencoder.model(x, training=False), self.shape)

    @cached_property
    def _encoder(self) -> Callable[[Array], Any]:
        encoder = self.autoencoder.encoder()
        return self._traced(lambda x: encoder(x, training=False), self.shape)

    @cached_property
    def _decoder(self) -> Callable[[Array], Any]:
        decoder, shape = self.autoencoder.decoder(), (self.batch, *self.shape)
        dtypes = [x.dtype for x in decoder.inputs]

        def decode(codes: Any) -> Any:
            import tensorflow as tf

            # No skip connection uses the image.
            return decoder([tf.zeros(shape, dtypes[0]), tf.cast(codes, dtypes[1])], training=False)

        return self._traced(decode, self.code_shape)

    @cached_property
    def _both(self) -> Callable[[Array], Any]:
        import keras

        model = self.autoencoder.model
        both = keras.Model(model.input, [self.autoencoder.latent, model.output])
        return self._traced(lambda x: both(x, training=False), self.shape)

    def _traced(self, function: Callable[[Any], Any], shape: tuple[int, ...]) -> Callable[[Array], Any]:
        """A function of whole batches, compiled once."""
        import tensorflow as tf

        signature = [tf.TensorSpec((self.batch, *shape), tf.float32)]
        traced: Callable[[Array], Any] = tf.function(
            function, input_signature=signature, autograph=False
        )
        return traced


def open_network(
    subject: Run | Path,
    *,
    latent: str | None = None,
    custom: Path | None = None,
    span: tuple[float, float] = (0.0, 1.0),
    given: tuple[float, float] | None = None,
    unsafe: bool = False,
    shape: Shape | None = None,
) -> Network:
    """Opens the network of a run, or of a model file. TensorFlow must have been started.

    Args:
        subject: a run of ``cae train``, or a .keras, .h5 or .hdf5 file.
        latent: of a file: the layer whose output is the latent code; None: detected.
        custom: of a file: a Python file with the classes of its own layers, which is executed.
        span: of a file: the range of the images that it was trained on.
        given: of a file: that of its inputs, where its outputs have another one.
        unsafe: of a file: run code in it.
        shape: of a file: (h, w, c) of the images, for models that do not define it.

    Raises:
        UserError: the run has no network, its files are damaged, or the file is no autoencoder.
    """
    if isinstance(subject, Run):
        with reading(subject):
            return _of_run(subject)
    model = introspection.load(subject, custom, unsafe=unsafe)
    autoencoder = introspection.introspect(model, latent=latent, shape=shape)
    need = _tried(autoencoder, subject)
    batch = images_at_a_time(autoencoder.shape, images_that_fit(need, memory.free()))
    return Network(introspection.in_unit_range(autoencoder, span, given), subject.name, batch)


def _of_run(run: Run) -> Network:
    entry = Entry(run.folder)
    run.setup()  # an error if it cannot be read, where the entry has nothing
    trained = run.training() if run.has_ended() else {}
    best = run.has_ended() and trained["measured_epoch"] == trained["best_epoch"]
    path = run.best if best else run.last
    if not path.exists():
        raise _no_network(run, entry, diverged=trained.get("diverged_at") is not None)
    with _copied(path) as file:
        try:
            model = introspection.load(file)
        except UserError as error:
            error.where = str(path)
            raise
    latent = trained["network"]["latent_layer"] if trained else None
    autoencoder = introspection.introspect(model, latent=latent)
    _tried(autoencoder, path.shown)
    fitting = images_that_fit(autoencoder.bytes_per_image)  # as when it was measured
    of_images = _scale(entry.data.get("scale"))
    of_inputs = _scale(entry.data.get("input_scale"))  # of pairs only
    return Network(
        autoencoder,
        str(run.folder),
        images_at_a_time(autoencoder.shape, fitting),
        of_inputs or of_images,
        of_images,
        _warning(entry),
        run,
    )


def _tried(autoencoder: Autoencoder, where: Path) -> int:
    """The bytes that one image needs in a network.

    Raises:
        UserError: they are more than the free memory, or the network cannot compute an image.
    """
    need = introspection.footprint(autoencoder).needed
    what = f"one image in {printable(where.name)}"
    memory.check(need, what, where, "use a machine with more memory")
    with introspection.computing(where):
        autoencoder.model(np.zeros((1, *autoencoder.shape), np.float32), training=False)
    return need


def _scale(recorded: Any) -> Scale | None:
    """The scale that a run has recorded; None: it has none."""
    match recorded:
        case None:
            return None
        case {"black": int() | float() as black, "white": int() | float() as white}:
            if math.isfinite(white - black) and black < white:
                return Scale(**recorded)
    raise ValueError("its scale is no scale of images")


def _no_network(run: Run, entry: Entry, *, diverged: bool) -> UserError:
    if entry.from_elsewhere:
        return UserError(
            "the folder has no network: cae only measured it",
            where=run.folder,
            hint="name the file of the model in place of the run",
        )
    # A training that diverged would diverge again; one that is complete is not resumed.
    command = "report" if diverged else "rerun" if entry.status == "ok" else "resume"
    return UserError(
        f"the run has no network: {entry.reason or f'its status is {entry.status}'}",
        where=run.folder,
        hint=to_paste("cae", command, run.folder),
    )


def _warning(entry: Entry) -> str | None:
    """What is known against the network of a run."""
    if any(finding["severity"] == "error" for finding in entry.findings):
        return entry.verdict
    if entry.status == "running":
        return "the run is in progress"
    if entry.status in ("failed", "interrupted"):
        return f"the run {entry.status}: {entry.reason or 'no reason is known'}"
    return None


@contextlib.contextmanager
def _copied(path: GuardedPath) -> Iterator[Path]:
    """A copy of a file of a run for the time of the block: Keras opens files by path, links included."""
    with tempfile.TemporaryDirectory(prefix="cae_network_") as folder:
        copied = Path(folder) / path.name
        with path.open() as source, copied.open("wb") as target:
            introspection.check_size(os.fstat(source.fileno()).st_size, path)  # of holes it may be
            shutil.copyfileobj(source, target)
        yield copied


def _filled(batch: Array, size: int) -> Array:
    """The batch with as many images as every batch has: those added are black."""
    if len(batch) == size:
        return batch
    filled = np.zeros((size, *batch.shape[1:]), np.float32)
    filled[: len(batch)] = batch
    return filled


def sides(shape: tuple[int, ...]) -> str:
    """A shape in words: 28x28x1."""
    return "x".join(map(str, shape))
