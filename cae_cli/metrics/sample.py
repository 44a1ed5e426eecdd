"""How much of a network was measured: as many images as its size and its training allow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """How many images are measured, the first of each part, and shares of what is only shown.

    Attributes:
        scored: held-out images whose reconstruction is scored.
        trained: training images whose reconstruction is scored; 0: they are not.
        perturbed: held-out images for the perturbation tests and the statistics of latent codes.
        mapped: held-out images for the statistics of maps.
        latent: share of the pictures of the latent code, 0 to 1; 0: there are none.
        filters: the same of patches and gratings.
        ablation: the same of the filters that are ablated.
        labels: the same of the linear classifier of labels.
        untrained: the same of the untrained network.
    """

    scored: int
    trained: int
    perturbed: int
    mapped: int
    latent: float = 1.0
    filters: float = 1.0
    ablation: float = 1.0
    labels: float = 1.0
    untrained: float = 1.0

    @property
    def left_out(self) -> list[str]:
        """What was not measured at all, in the words of the summary."""
        words = {
            "training images": self.trained,
            "pictures of the latent code": self.latent,
            "patches and gratings of filters": self.filters,
            "prunable filters": self.ablation,
            "labels": self.labels,
            "the untrained network's filters": self.untrained,
        }
        return [name for name, share in words.items() if not share]

    @property
    def is_cut(self) -> bool:
        """Whether something that is only shown was cut or left out; the images are fewer then, too."""
        return min(self.latent, self.filters, self.ablation, self.labels, self.untrained) < 1
