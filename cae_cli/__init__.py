"""A runner of convolutional-autoencoder experiments that says what their filters learned.

``cae_cli.train``, ``train_sweep``, ``diagnose`` and ``open_run`` are the command line as functions. For
trainings of one's own there are the Keras callback ``cae_cli.Diagnosis``, ``cae_cli.treat``, which tries
fixes on them, and ``cae_cli.judge`` for plain functions: networks of other libraries. docs/python.md
describes all of them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cae_cli.api import Run, Sweep, diagnose, open_run, train, train_sweep
    from cae_cli.errors import RunFailed, UserError
    from cae_cli.external.functions import judge
    from cae_cli.external.keras_callback import Diagnosis
    from cae_cli.external.treat import treat
    from cae_cli.features.encoder import Encoder

__version__ = "0.1.0"
__all__ = [
    "Diagnosis",
    "Encoder",
    "Run",
    "RunFailed",
    "Sweep",
    "UserError",
    "diagnose",
    "judge",
    "open_run",
    "train",
    "train_sweep",
    "treat",
]

_MODULES = {
    "Diagnosis": "external.keras_callback",
    "Encoder": "features.encoder",
    "judge": "external.functions",
    "treat": "external.treat",
    "RunFailed": "errors",
    "UserError": "errors",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is asked for: some need Keras."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"cae_cli.{_MODULES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
