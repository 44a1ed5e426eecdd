"""A runner of convolutional-autoencoder experiments that says what their filters learned.

``from cae_cli import Diagnosis`` is a Keras callback for trainings of one's own, ``cae_cli.treat`` tries
fixes on them, and ``cae_cli.judge`` diagnoses plain functions: networks of other libraries.
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports what needs Keras only when it is asked for."""
    if name == "Diagnosis":
        from cae_cli.external.keras_callback import Diagnosis

        return Diagnosis
    if name == "treat":
        from cae_cli.external.treat import treat

        return treat
    if name == "judge":
        from cae_cli.external.functions import judge

        return judge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
