"""The rules, one module a family.

0xx risks before training, 1xx data, 2xx training, 3xx output, 4xx maps, 5xx latent code, 6xx capacity.
"""

from cae_cli.diagnosis.rules import capacity, data, forecast, latent, maps, output, steps, training

__all__ = ["capacity", "data", "forecast", "latent", "maps", "output", "steps", "training"]
