"""The encoder of a run as a transformer of scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_array

from cae_cli.errors import UserError
from cae_cli.features.network import Array, Network, open_network
from cae_cli.introspection.behaviour import squares
from cae_cli.runs.opening import open_run
from cae_cli.system.files import typed


class Encoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Latent codes of images, as a step of a pipeline.

    The network is trained already, so `fit` learns nothing and need not be called. The network is opened
    when it is first needed; copies and pickles hold its path only. Images are (n, h, w, c), (n, h, w) of
    one channel, or flat rows (n, h * w * c); their values are as in `Network.prepare`. What is wrong
    with images is a ValueError, as in all of scikit-learn.

    Args:
        run: the folder of a run, one of its names such as "last", or a model file.
        pool: the mean of each map in place of the maps.

    Attributes:
        n_features_in_: values of an image, once `fit` was called.
    """

    def __init__(self, run: str | Path = "last", pool: bool = False) -> None:
        self.run = run
        self.pool = pool

    def fit(self, X: ArrayLike, y: object = None) -> Encoder:
        """Learns nothing; opens the network and checks the images.

        Args:
            X: images.
            y: ignored.

        Raises:
            UserError: there is no such network.
            ValueError: the images do not fit it.
        """
        self.n_features_in_ = int(np.prod(self._prepared(X).shape[1:]))
        return self

    def transform(self, X: ArrayLike) -> Array:
        """Latent codes, (n, values); (n, channels) with ``pool``."""
        codes = self.network.encode(self._prepared(X))
        if self.pool:
            codes = codes.mean(axis=tuple(range(1, codes.ndim - 1)))
        return codes.reshape(len(codes), -1)

    def inverse_transform(self, X: ArrayLike) -> Array:
        """Images of codes as flat rows, (n, h * w * c) in [0, 1].

        Raises:
            UserError: codes were pooled, or the decoder needs the image as well.
        """
        made = self.network.decode(np.asarray(X, np.float32))
        return made.reshape(len(made), -1)

    def score_samples(self, X: ArrayLike) -> Array:
        """Minus the mean squared error of each image, (n,): the lower, the more unusual."""
        scores = [-squares(made - x) for _, x, _, made in self.network.passes(self._prepared(X))]
        return np.concatenate(scores)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the values of a code: code_0, code_1 and so on."""
        shape = self.network.code_shape
        values = shape[-1] if self.pool else int(np.prod(shape))
        return np.array([f"code_{k}" for k in range(values)], dtype=object)

    @property
    def network(self) -> Network:
        """The network, opened if it is not yet."""
        opened: tuple[object, Network] | None = self.__dict__.get("_opened")
        if opened is None or opened[0] != self.run:
            path = typed(self.run)
            subject = path if path.is_file() else open_run(str(self.run))
            opened = self._opened = (self.run, open_network(subject))
        return opened[1]

    def _prepared(self, X: ArrayLike) -> NDArray[Any]:
        """Images (n, h, w, c) as the network takes them."""
        images = check_array(X, ensure_2d=False, allow_nd=True, estimator=self)
        values = int(np.prod(self.network.shape))
        if images.ndim == 1:
            raise ValueError("X has one axis. Reshape your data: (n, h, w, c), or a row for each image")
        if images.ndim == 2:
            if images.shape[1] != values:
                found = images.shape[1]
                raise ValueError(
                    f"X has {found} features, but Encoder is expecting {values} features as input"
                )
            images = images.reshape(-1, *self.network.shape)
        try:
            return self.network.prepare(images)
        except UserError as error:
            raise ValueError(str(error)) from error

    def __sklearn_tags__(self) -> Any:
        """It needs no `fit`; codes are float32."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the network."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_opened"}
