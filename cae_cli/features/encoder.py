"""The encoder of a run as a transformer of scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from cae_cli.errors import UserError
from cae_cli.features.network import Array, Network, open_network
from cae_cli.introspection.behaviour import squares
from cae_cli.runs.opening import open_run


class Encoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Latent codes of images, as a step of a pipeline.

    The network is trained already, so `fit` learns nothing. It is opened when it is first needed; copies
    and pickles hold its path only. Images are (n, h, w, c), (n, h, w) of one channel, or flat rows
    (n, h * w * c); their values are as in `Network.prepare`.

    Args:
        run: the folder of a run, one of its names such as "last", or a model file.
        pool: the mean of each map in place of the maps.

    Attributes:
        image_shape_: (h, w, c).
        code_shape_: (h, w, channels) or (values,).
        n_features_in_: h * w * c.
    """

    def __init__(self, run: str | Path = "last", pool: bool = False) -> None:
        self.run = run
        self.pool = pool

    def fit(self, X: ArrayLike, y: object = None) -> Encoder:
        """Learns nothing; opens the network and checks the shape of the images.

        Args:
            X: images.
            y: ignored.

        Raises:
            UserError: there is no such network, or the images have another shape.
        """
        self._prepared(X)
        return self

    def transform(self, X: ArrayLike) -> Array:
        """Latent codes, (n, values); (n, channels) with ``pool``."""
        codes = self._network.encode(self._prepared(X))
        if self.pool:
            codes = codes.mean(axis=tuple(range(1, codes.ndim - 1)))
        return codes.reshape(len(codes), -1)

    def inverse_transform(self, X: ArrayLike) -> Array:
        """Images of codes as flat rows, (n, h * w * c) in [0, 1].

        Raises:
            UserError: codes were pooled, or the decoder needs the image as well.
        """
        made = self._network.decode(np.asarray(X, np.float32))
        return made.reshape(len(made), -1)

    def score_samples(self, X: ArrayLike) -> Array:
        """Minus the mean squared error of each image, (n,): the lower, the more unusual."""
        scores = [-squares(made - x) for _, x, _, made in self._network.passes(self._prepared(X))]
        return np.concatenate(scores)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the values of a code: code_0, code_1 and so on."""
        values = self.code_shape_[-1] if self.pool else int(np.prod(self.code_shape_))
        return np.array([f"code_{k}" for k in range(values)], dtype=object)

    @property
    def image_shape_(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return self._network.shape

    @property
    def code_shape_(self) -> tuple[int, ...]:
        """(h, w, channels), or (values,)."""
        return self._network.code_shape

    @property
    def n_features_in_(self) -> int:
        """Values of an image."""
        return int(np.prod(self.image_shape_))

    @property
    def _network(self) -> Network:
        opened: tuple[object, Network] | None = self.__dict__.get("_opened")
        if opened is None or opened[0] != self.run:
            path = Path(self.run).expanduser()
            subject = path if path.is_file() else open_run(str(self.run))
            opened = self._opened = (self.run, open_network(subject))
        return opened[1]

    def _prepared(self, X: ArrayLike) -> NDArray[Any]:
        images = np.asarray(X)
        if images.ndim == 2 and images.shape[1] == self.n_features_in_:
            images = images.reshape(-1, *self.image_shape_)
        if len(images) == 0:
            raise UserError("there are no images", hint="give at least one")
        return self._network.prepare(images)

    def __sklearn_is_fitted__(self) -> bool:
        """It was trained before."""
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the network."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_opened"}
