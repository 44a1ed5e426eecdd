"""The rules, by family: 2xx training, 3xx output, 4xx maps, 5xx generalisation."""

from cae_cli.diagnosis.rules import generalisation, maps, output, training

__all__ = ["generalisation", "maps", "output", "training"]
