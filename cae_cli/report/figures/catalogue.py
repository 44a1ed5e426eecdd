"""The catalogue of a run's figures. Each is entered with ``@figure`` where it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    Drawing = Figure | Image.Image

F = TypeVar("F", bound=Callable[..., Any])
Arrays = Mapping[str, NDArray[Any]]
LAYER = "{layer}"


@dataclass(frozen=True)
class RunData:
    """What figures are drawn from.

    Attributes:
        arrays: of the run.
        epochs: columns of metrics.csv; {} where the training was not recorded.
        snapshots: arrays after some epochs, by epoch.
        frozen: explained variance of the control with a frozen encoder, if there is one.
        thresholds: of the rules in this run, by code.
    """

    arrays: Arrays
    epochs: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    snapshots: Mapping[int, Arrays] = field(default_factory=dict)
    frozen: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def layers(self) -> list[str]:
        """The convolutions, in order."""
        return [key.removeprefix("kernel/") for key in self.arrays if key.startswith("kernel/")]

    def most_used(self, layer: str) -> NDArray[np.intp]:
        """The filters of a layer, those whose maps vary most first."""
        return np.argsort(-self.arrays[f"map_std/{layer}"], kind="stable")

    def has(self, need: str) -> bool:
        """Whether there is an array; one below a prefix that ends in "/"; ``epochs``; ``snapshots``."""
        if need in ("epochs", "snapshots"):
            return bool(getattr(self, need))
        return need in self.arrays or (
            need.endswith("/") and any(k.startswith(need) for k in self.arrays)
        )


@dataclass(frozen=True)
class Entry:
    """A figure of the catalogue.

    Attributes:
        file: its name in the run folder; with ``{layer}`` there is one for each convolution.
        caption: what it shows, in a sentence.
        needs: what it is drawn from, as for `RunData.has`.
        draw: from `RunData`, and a layer's name where the file has one, to the figure; None if there is
            nothing to show.
    """

    file: str
    caption: str
    needs: tuple[str, ...]
    draw: Callable[..., Drawing | None]

    def layers(self, data: RunData) -> list[str]:
        """The layers that there is such a figure of; [""] where it is one of the whole network."""
        candidates = data.layers if LAYER in self.file else [""]
        return [c for c in candidates if all(data.has(n.replace(LAYER, c)) for n in self.needs)]


FIGURES: list[Entry] = []


def figure(file: str, caption: str, *needs: str) -> Callable[[F], F]:
    """Decorator that enters a figure; arguments as for `Entry`."""

    def enter(draw: F) -> F:
        FIGURES.append(Entry(file, caption, needs, draw))
        return draw

    return enter
