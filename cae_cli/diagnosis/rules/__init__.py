"""The rules, by family.

0xx what can be foreseen, 1xx data, 2xx training, 3xx output, 4xx maps, 5xx the latent code, 6xx capacity.
"""

from cae_cli.diagnosis.rules import capacity, code, data, forecast, maps, output, steps, training

__all__ = ["capacity", "code", "data", "forecast", "maps", "output", "steps", "training"]
