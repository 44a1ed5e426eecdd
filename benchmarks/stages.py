"""Runs ``cae`` and times its stages: seconds of each, and when it ended.

    python benchmarks/stages.py <file> <time of the start in seconds since 1970> train [overrides]

Writes seconds into the file as JSON; "... CPU" are those of all cores, "... ended" counts from the
start, "peak memory" is in bytes.
"""

from __future__ import annotations

import functools
import json
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    file, start = Path(sys.argv[1]), float(sys.argv[2])
    sys.argv = ["cae", *sys.argv[3:]]
    from cae_cli import cli, experiment
    from cae_cli.introspection import probe
    from cae_cli.report import figures, page
    from cae_cli.training import backend, step

    seconds: dict[str, float] = {}

    def timed(owner: object, name: str, stage: str, *, first: bool = False) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def clocked(*arguments, **named):
            began, cpu = time.time(), time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                if not first or stage not in seconds:
                    seconds[stage] = seconds.get(stage, 0) + time.time() - began
                    of_cores = f"{stage} CPU"
                    seconds[of_cores] = seconds.get(of_cores, 0) + time.process_time() - cpu
                seconds.setdefault(f"{stage} ended", time.time() - start)

        setattr(owner, name, clocked)

    timed(experiment, "load_images", "reading images")
    timed(experiment, "dataset_statistics", "dataset statistics")
    timed(backend, "start", "starting TensorFlow")
    timed(step.CompiledSteps, "validate", "validation before training", first=True)
    timed(step.CompiledSteps, "epoch", "steps")
    timed(probe.Probe, "record", "measuring")
    timed(experiment, "report", "diagnosing and drawing")
    timed(figures, "draw", "figures")
    timed(page, "write", "report.html")
    try:
        cli.main()
    finally:
        seconds["all"] = time.time() - start
        seconds["peak memory"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux: KiB
        file.write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
