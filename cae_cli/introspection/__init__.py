"""The parts of any Keras autoencoder, ours or a stranger's: `load` a file, `introspect` the model.

`Autoencoder` names the parts of one flat functional model. `introspect` makes such a model of anything
else (Sequential, nested, subclassed) by calling the same layers once more on a symbolic image, so the
weights are shared: what trains there is seen here. ``clone_model(clone_function=lambda layer: layer)``
was not enough: it refuses a call function for Sequential, does not open subclassed models, compiles
the copy with the stranger's losses, and fails where an encoder and a decoder use a layer name twice.
"""

from cae_cli.introspection.autoencoder import Autoencoder
from cae_cli.introspection.files import load
from cae_cli.introspection.introspect import introspect

__all__ = ["Autoencoder", "introspect", "load"]
