"""Two small data sets that are part of scikit-learn; nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cae_cli.data.images import Pool
from cae_cli.data.source import SOURCES, DataOptions
from cae_cli.options import option


@SOURCES.add("digits")
@dataclass(frozen=True, kw_only=True)
class Digits(DataOptions):
    """1,797 handwritten digits, 8x8, with labels (Alpaydin, Kaynak 1998, test part)."""

    def known_shape(self) -> tuple[int, int, int]:
        """8x8, grey."""
        return 8, 8, 1

    def read(self) -> Pool:
        """Images (1797, 8, 8), values 0 to 16, labels (1797,)."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        return Pool(images=digits.images, labels=digits.target.astype(np.int64), white=16)


@SOURCES.add("patches")
@dataclass(frozen=True, kw_only=True)
class Patches(DataOptions):
    """Patches of two photographs, 427x640: natural images, the classic data for edge filters.

    Neighbouring patches overlap by half. Each photograph is first cut into vertical strips, and each
    strip is for training or for validation; no patch lies in two strips.
    """

    side: int = option("side of the patches, in pixels", least=8, most=400)
    channels: int = option("1: grey, 3: colour", choices=(1, 3))

    def known_shape(self) -> tuple[int, int, int]:
        """The configured size."""
        return self.side, self.side, self.channels

    def read(self) -> Pool:
        """Images (n, side, side) or (n, side, side, 3) uint8; a group for each strip."""
        from PIL import Image
        from sklearn.datasets import load_sample_images

        step = self.side // 2
        patches, groups, strips = [], [], 0
        for photograph in load_sample_images().images:  # (427, 640, 3) uint8
            colour = Image.fromarray(photograph)
            pixels = np.asarray(colour if self.channels == 3 else colour.convert("L"))
            # Strips two patches wide: three columns of overlapping patches in each
            count = max(1, pixels.shape[1] // (2 * self.side))
            for strip in np.array_split(pixels, count, axis=1):
                for y in range(0, strip.shape[0] - self.side + 1, step):
                    for x in range(0, strip.shape[1] - self.side + 1, step):
                        patches.append(strip[y : y + self.side, x : x + self.side])
                        groups.append(strips)
                strips += 1
        return Pool(images=np.stack(patches), groups=np.array(groups))
