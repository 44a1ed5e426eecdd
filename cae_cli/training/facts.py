"""What losses and optimizers declare about themselves, as plain data for the run folder.

The diagnosis works from files and imports no training code, so a run records what the rules need to
know of its loss and its optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cae_cli.training.losses import LOSSES, Loss
from cae_cli.training.optimizers import OPTIMIZERS, Optimizer

OF_LOSS = ("gives_up_squared_error", "needs_unit_outputs", "survives_saturation", "validation_metric")


def facts(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The declared facts of a run's loss and optimizer, under ``loss`` and ``optimizer``.

    Args:
        config: the composed config as plain containers, or as much of it as is known: only the names
            of loss and optimizer are read, and whether the loss takes logits. An unknown name gets the
            defaults of the base class.
    """
    loss = LOSSES.get(config.get("loss", {}).get("name"), Loss)
    found = {name: getattr(loss, name) for name in OF_LOSS}
    # Cross-entropy of logits takes any number, and of a loss of somebody's own only the name is known.
    found["needs_unit_outputs"] &= config.get("loss", {}).get("from_logits", False) is False
    optimizer = OPTIMIZERS.get(config.get("optimizer", {}).get("name"), Optimizer)
    return {
        "loss": found,
        "optimizer": {"usual_rate": optimizer.usual_rate},
    }
