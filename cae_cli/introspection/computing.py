"""Networks that Keras builds and that cannot compute an image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from cae_cli.errors import UserError, printable


@contextmanager
def computing(where: object = None) -> Iterator[None]:
    """In the block, an error of a layer is one of the user, as when a convolution gets integers.

    Args:
        where: the file of the network, for messages.

    Raises:
        UserError: a layer cannot compute what it is given.
    """
    import tensorflow as tf

    wrong = (TypeError, ValueError, tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)
    try:
        yield
    except wrong as error:
        lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("\n")
        said = [line for line in lines if line and not line.startswith("Exception encountered")]
        raise UserError(
            f"the model cannot compute an image: {printable(' '.join(said[:1]))[:300]}",
            where=where,
            hint="call the model with one image in Keras to see the same error",
        ) from error
