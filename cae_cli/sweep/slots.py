"""Where jobs of a sweep run: the cores and the GPU of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

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
