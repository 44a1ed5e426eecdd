"""Where jobs of a sweep run: the cores and the GPU of each."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cae_cli.training import backend

MEMORY = 2**31  # bytes that a job is taken to need


@dataclass(frozen=True)
class Slot:
    """Where a job runs.

    Attributes:
        cores: numbers of the cores that it is limited to; empty for all.
        gpu: the GPU that it sees, as CUDA_VISIBLE_DEVICES names it; None without GPUs.
    """

    cores: tuple[int, ...] = ()
    gpu: str | None = None


def slots_for(n_jobs: int | None, jobs: int, gpus: Sequence[str]) -> list[Slot]:
    """Where jobs run at the same time.

    Args:
        n_jobs: how many at once; None for one per GPU, or else one per core that has enough memory.
        jobs: how many there are.
        gpus: the GPUs. If ``n_jobs`` is larger than their number, jobs share them.
    """
    count = min(jobs, n_jobs or len(gpus) or _per_core())
    if gpus:
        return [Slot(gpu=gpus[i % len(gpus)]) for i in range(count)]
    if not hasattr(os, "sched_getaffinity"):
        return [Slot() for _ in range(count)]
    cores = sorted(os.sched_getaffinity(0))
    shares = [tuple(cores[i::count]) or (cores[i % len(cores)],) for i in range(count)]
    return [Slot(share if count > 1 else ()) for share in shares]


def _per_core() -> int:
    """One job per core, or fewer if memory is short."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = MEMORY * backend.cores()
    return max(1, min(backend.cores(), memory // MEMORY))


def visible_gpus(
    environment: Mapping[str, str] = os.environ, driver: Path = Path("/proc/driver/nvidia/gpus")
) -> list[str]:
    """The GPUs that TensorFlow would see, found without it, as CUDA_VISIBLE_DEVICES names them.

    Args:
        environment: the environment variables.
        driver: the folder in which NVIDIA's driver lists the GPUs.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    count = len(list(driver.iterdir())) if driver.is_dir() else 0
    if named is None or not count:
        return [str(number) for number in range(count)]
    names = [name.strip() for name in named.split(",")]
    # CUDA ignores an empty or negative name and all that follow it.
    return list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))
