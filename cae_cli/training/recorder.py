"""Records during training what cannot be measured afterwards, here and in Keras' own ``fit``.

Its arrays in arrays.npz, for the m weight tensors with at least two axes (*kernels*) in the order of the
network:

==============================  ================================================================
``dynamics/kernels``            (m,) their names
``dynamics/early_updates``      (s, m) update ratios of the first steps, see `update_ratio`
``dynamics/updates``            (e, m) the same for the first step of each epoch
``dynamics/early_losses``       (s, 2) data loss and penalty of the first steps
``dynamics/early_pulls``        (s, m) of the first steps, how hard penalties pull at each kernel, see
                                `introspection.training_mode.Penalties`
``dynamics/losses``             (at most 1,024,) data loss of all steps, in parts of equal length
``dynamics/gradients``          (e, m) mean gradient norm of each kernel over the epoch
``dynamics/look_steps``         (k,) steps after which the feature maps were measured
``look_std/<layer>``            (k, filters) spread of the maps over images and positions
``look_mean/<layer>``           (k, filters) mean over images and positions
``look_image_std/<layer>``      (k, filters) spread over images
``map_moves/<layer>``           (at most 32,) how far each of the first steps moved the maps, see
                                `metrics.maps.movement`
``batches/<attribute>``         () statistics of the first batches, see `metrics.batches`
``order/<attribute>``           () the order of their images, see `metrics.order`
==============================  ================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.metrics.batches import batches
from cae_cli.metrics.dynamics import update_ratio
from cae_cli.metrics.maps import ChannelSpread, movement
from cae_cli.metrics.order import batch_order

Array = NDArray[np.float32]
Spreads = Mapping[str, ChannelSpread]
Maps = Mapping[str, Array]

EARLY = 8  # steps whose updates and batches are measured one by one
MOVES = 32  # steps after which it is measured how far they moved the maps: with momentum 0.9 the steps
# grow for some ten, and with a rate that is too high filters died within the next ten
LOOKED = ("look_std", "look_image_std", "look_mean")  # of each layer, see the table
LOOKS = (0, 32, 128)  # steps after which the maps are measured, in addition to snapshot epochs
MOST_PIXELS_KEPT = 2**22  # pixels of the first batches that are kept until they are measured
MOST_LOSSES = 1024


class Recorder:
    """Records the training of one network. Steps count from 0, epochs from 1.

    Args:
        model: the Keras model that is trained.
        spreads: measures the current maps of fixed images.
        sample: gives, after the first batches, (n, h, w, c) images of the data set, drawn at random, in
            the range that is trained on; None: the order of the images is not measured.
        maps: measures the current maps of a few fixed images, (n, h, w, c) by layer.
    """

    def __init__(
        self,
        model: Any,
        spreads: Callable[[], Spreads],
        sample: Callable[[], Array] | None = None,
        maps: Callable[[], Maps] = dict,
    ) -> None:
        self.model = model
        self.kernels = kernels(model)
        self._spreads = spreads
        self._sample = sample
        self._maps = maps
        self._maps_before: Maps | None = None
        self._before: list[Array] = []
        self._early: list[list[float]] = []
        self._updates: list[list[float]] = []
        self._early_losses: list[tuple[float, float]] = []
        self._pulls: list[Array] = []
        self._moves: dict[str, list[float]] = {}
        self._losses: list[Array] = []
        self._gradients: list[Array] = []
        self._looks: dict[int, dict[str, tuple[Array, Array, Array]]] = {}  # as `LOOKED`
        self._epochs = 0
        self._batches: list[tuple[Array, Array]] = []  # of the first steps, until they are measured
        self.batch_size = 0  # of the largest batch that was recorded
        self._batch_statistics: dict[str, NDArray[Any]] = {}

    @staticmethod
    def cuts(first: int, count: int) -> list[int]:
        """Steps at which an epoch of ``count`` steps after ``first`` must return to Python.

        Returns:
            Numbers of steps into the epoch, ascending; `after` measures after each.
        """
        single = range(1, MOVES + 1)
        cuts = {1, *(step - first for step in (*single, *LOOKS))}
        return sorted(cut for cut in cuts if 0 < cut < count)

    def wants_batch(self, step: int) -> bool:
        """Whether `batches` should be called with the batch of this step."""
        # Later epochs show the same images again.
        return step < EARLY and self._room > 0 and not self._epochs

    def batches(self, inputs: Array, targets: Array) -> None:
        """Records the inputs and targets of a step."""
        if inputs.size:
            self.batch_size = max(self.batch_size, len(inputs))
            count = max(2, self._room // inputs[0].size)
            self._batches.append((np.array(inputs[:count]), np.array(targets[:count])))

    def pulls(self, values: Array) -> None:
        """How hard the penalties pull at the kernels (m,) in one of the first steps."""
        self._pulls.append(values)

    @property
    def _room(self) -> int:
        """Pixels of batches that may still be kept."""
        return MOST_PIXELS_KEPT - sum(inputs.size for inputs, _ in self._batches)

    def before(self, step: int, *, first_of_epoch: bool) -> None:
        """To be called before a step."""
        if step == 0:
            self.look(0)
        if step < EARLY or first_of_epoch:
            self._before = [np.array(kernel) for kernel in self.kernels]
        if step < MOVES and self._maps_before is None:
            self._maps_before = self._maps()

    @np.errstate(all="ignore")  # networks that diverge
    def after(self, step: int, *, first_of_epoch: bool, data_loss: float, penalty: float) -> None:
        """To be called after the step ``step``."""
        if self._before:
            ratios = [
                update_ratio(before, np.asarray(kernel))
                for before, kernel in zip(self._before, self.kernels, strict=True)
            ]
            self._before = []
            if step < EARLY:
                self._early.append(ratios)
                self._early_losses.append((data_loss, penalty))
            if first_of_epoch:
                self._updates.append(ratios)
        if step < MOVES and self._maps_before is not None:
            before, self._maps_before = self._maps_before, self._maps()
            for layer, maps in self._maps_before.items():
                self._moves.setdefault(layer, []).append(movement(before[layer], maps))
        if step + 1 >= MOVES:
            self._maps_before = None
        if step + 1 in LOOKS:
            self.look(step + 1)

    def look_after(self, step: int, made: int) -> None:
        """To be called after ``made`` steps at once, from ``step`` on, in place of `after`."""
        self._before, self._maps_before = [], None
        if any(step < look <= step + made for look in LOOKS):
            self.look(step + made)

    def losses(self, values: Array) -> None:
        """Data losses of steps, in order."""
        self._losses.append(values)

    def epoch(self, step: int, gradients: Array | None, *, look: bool) -> None:
        """To be called after an epoch.

        Args:
            step: number of steps so far.
            gradients: (m,) mean norms over the epoch; None if unknown.
            look: whether to measure the maps.
        """
        self._epochs += 1
        self._measure_batches()
        if gradients is not None:
            self._gradients.append(gradients)
        if look:
            self.look(step)

    def record(self) -> dict[str, NDArray[Any]]:
        """The arrays in the table at the top of this file, as far as they were recorded."""
        notes = self.notes()
        return {
            "dynamics/kernels": np.array([kernel.path for kernel in self.kernels]),
            **notes,
            "dynamics/losses": _in_parts(notes["dynamics/losses"]),
        }

    def notes(self) -> dict[str, NDArray[Any]]:
        """What was recorded so far, for `resume`."""
        self._measure_batches()
        m = len(self.kernels)
        steps = sorted(self._looks)
        arrays: dict[str, NDArray[Any]] = {
            "dynamics/early_updates": _rows(self._early, m),
            "dynamics/updates": _rows(self._updates, m),
            "dynamics/early_losses": _rows(self._early_losses, 2),
            "dynamics/early_pulls": _rows(self._pulls, m),
            "dynamics/losses": np.concatenate([np.zeros(0, np.float32), *self._losses]),
            "dynamics/gradients": _rows(self._gradients, m),
            "dynamics/look_steps": np.array(steps, np.int64),
        }
        for layer in self._looks[steps[0]] if steps else ():
            looks = [self._looks[step][layer] for step in steps]
            for name, values in zip(LOOKED, zip(*looks, strict=True), strict=True):
                arrays[f"{name}/{layer}"] = np.stack(values)
        for layer, moves in self._moves.items():
            arrays[f"map_moves/{layer}"] = np.array(moves, np.float32)
        return {**arrays, **self._batch_statistics}

    def resume(self, notes: Mapping[str, NDArray[Any]]) -> None:
        """Resumes from what `notes` returned after a whole epoch.

        Raises:
            KeyError: the notes are incomplete.
        """
        self._early = list(notes["dynamics/early_updates"])
        self._updates = list(notes["dynamics/updates"])
        self._early_losses = list(notes["dynamics/early_losses"])
        self._pulls = list(notes["dynamics/early_pulls"])
        self._losses = [notes["dynamics/losses"]]
        self._gradients = list(notes["dynamics/gradients"])
        self._epochs = len(self._updates)
        self._moves = {
            name.removeprefix("map_moves/"): list(values)
            for name, values in notes.items()
            if name.startswith("map_moves/")
        }
        layers = [name.removeprefix("look_std/") for name in notes if name.startswith("look_std/")]
        self._looks = {
            int(step): {layer: tuple(notes[f"{name}/{layer}"][i] for name in LOOKED) for layer in layers}
            for i, step in enumerate(notes["dynamics/look_steps"])
        }
        self._batch_statistics = {k: v for k, v in notes.items() if k.startswith(("batches/", "order/"))}

    def look(self, step: int) -> None:
        """Measures the maps after ``step`` steps, once."""
        if step not in self._looks:
            spreads = self._spreads().items()
            self._looks[step] = {name: (s.std(), s.image_std(), s.mean()) for name, s in spreads}

    def _measure_batches(self) -> None:
        """Reduces the kept batches to their statistics."""
        if self._batches:
            inputs, targets = zip(*self._batches, strict=True)
            found: dict[str, Any] = {"batches": batches(np.concatenate(inputs), np.concatenate(targets))}
            if self._sample is not None and (order := batch_order(targets, self._sample())):
                found["order"] = order
            self._batch_statistics = {
                f"{part}/{name}": np.array(value)
                for part, measured in found.items()
                for name, value in asdict(measured).items()
            }
            self._batches = []


def kernels(model: Any) -> list[Any]:
    """The trainable variables that are kernels, in the network's order."""
    # The biases of attention have two axes too.
    return [v for v in model.trainable_variables if len(v.shape) >= 2 and v.name != "bias"]


def _rows(rows: Sequence[Any], width: int) -> Array:
    return np.array(rows, np.float32).reshape(len(rows), width)


def _in_parts(values: Array) -> Array:
    """All losses, or means over `MOST_LOSSES` parts where there are more."""
    if len(values) <= MOST_LOSSES:
        return values
    edges = np.arange(MOST_LOSSES) * len(values) // MOST_LOSSES
    sums = np.add.reduceat(values.astype(np.float64), edges)
    return np.asarray(sums / np.diff([*edges, len(values)]), np.float32)
