"""Whether a training fits into memory, found before it starts and without Keras."""

from __future__ import annotations

import bisect
from dataclasses import replace
from typing import Any

from cae_cli.model.options import ModelOptions
from cae_cli.model.plan import parts
from cae_cli.system import memory

# The values of options with which a network needs least memory.
LEAST: dict[str, Any] = {
    "kernel_size": 1,
    "filters": [1],
    "convolutions": 1,
    "sampling_kernel": 2,
    "latent_channels": 1,
    "latent_units": 1,
    "attention_heads": 0,
}
# Copies of the weights while a network trains: themselves, those before training, the last good ones;
# and if all of them are trained, their gradients.
COPIES = 3
LONGEST = 40  # characters of a value that is shown


def needed(shape: tuple[int, int, int], options: ModelOptions, batch: int, frozen: str = "none") -> int:
    """Bytes that training on the CPU needs at least.

    Args:
        shape: (h, w, c) of the images.
        options: of the network.
        batch: images per step.
        frozen: the part that is not trained: "none", "encoder" or "decoder".
    """
    every = list(parts(shape, options))
    trained = [part for part in every if part.of != frozen]
    kept = sum(part.times * part.inputs for part in trained)
    if options.activation != "linear":
        kept = max(kept, sum(part.times * part.outputs for part in trained))
    measured = max(part.inputs for part in every)  # afterwards, image by image
    weights = sum(part.times * part.weights for part in every)
    return 4 * ((COPIES + (frozen == "none")) * weights + max(batch * kept, measured))


def check(
    shape: tuple[int, int, int], options: ModelOptions, batch: int, frozen: str, size: str
) -> None:
    """Checks that the network can be trained on the CPU with the memory that is free.

    Args:
        shape: as for `needed`.
        options: as for `needed`.
        batch: as for `needed`.
        frozen: as for `needed`.
        size: what decides the size of the images: an option with its value.

    Raises:
        UserError: there is too little; it names the option that contributes most.
    """
    free, need = memory.free(), needed(shape, options, batch, frozen)
    if free is None or need <= free:
        return
    without = {
        f"training.batch_size={batch}": needed(shape, options, 1, frozen),
        size: needed((1, 1, shape[2]), options, batch, frozen),
    }
    for name, least in LEAST.items():
        value = getattr(options, name)
        if value is not None:
            shown = f"={value}" if len(str(value)) <= LONGEST else f" of {len(value)} stages"
            other = replace(options, **{name: least})
            without[f"model.{name}{shown}"] = needed(shape, other, batch, frozen)
    option = min(without, key=without.__getitem__)
    hint = "Use a smaller value, or a machine with more memory."
    if option.startswith("training."):
        fits = bisect.bisect_right(
            range(1, batch), free, key=lambda count: needed(shape, options, count, frozen)
        )
        hint = f"Use at most training.batch_size={fits}." if fits else hint
    memory.check(need, f"training with {option}", None, hint)
