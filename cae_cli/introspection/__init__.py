"""The parts of any Keras autoencoder: `load` a file, `introspect` the model.

`Autoencoder` names the parts of one flat functional model. `introspect` makes such a model of any other
(Sequential, nested, subclassed) by calling the same layers once more on a symbolic image, so the two
share their weights. ``keras.models.clone_model`` cannot: it does not open subclassed models, and fails
where an encoder and a decoder use the same layer name.
"""

from cae_cli.introspection.autoencoder import Autoencoder
from cae_cli.introspection.computing import computing
from cae_cli.introspection.files import check_size, compile_config, load
from cae_cli.introspection.footprint import footprint
from cae_cli.introspection.introspect import introspect
from cae_cli.introspection.ranges import in_unit_range

__all__ = [
    "Autoencoder",
    "check_size",
    "compile_config",
    "computing",
    "footprint",
    "in_unit_range",
    "introspect",
    "load",
]
