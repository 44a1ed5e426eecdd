"""``cae`` with a clock: when the first step was made, and what the end of the run took.

    python benchmarks/stages.py <file> <seconds since the epoch at the start> train [overrides]

Writes into the file, as JSON, seconds since the start.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from pathlib import Path


def main() -> None:
    file, start = Path(sys.argv[1]), float(sys.argv[2])
    sys.argv = ["cae", *sys.argv[3:]]
    from cae_cli import cli, experiment
    from cae_cli.introspection import probe
    from cae_cli.training import backend, fit, step

    found: dict[str, float] = {}

    def timed(owner: object, name: str, what: str) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def clocked(*arguments, **named):
            began = time.time()
            try:
                return function(*arguments, **named)
            finally:
                found[what] = found.get(what, 0) + time.time() - began
                found.setdefault(f"{what} ended", time.time() - start)

        setattr(owner, name, clocked)

    timed(experiment, "read", "reading images")
    timed(experiment, "look_at", "looking at images")
    timed(backend, "start", "starting TensorFlow")
    timed(fit, "_before_training", "validation before training")
    timed(step.Loop, "epoch", "steps")
    timed(probe.Probe, "record", "measuring")
    timed(experiment, "judge", "judging and drawing")
    try:
        cli.main()
    finally:
        found["all"] = time.time() - start
        file.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
