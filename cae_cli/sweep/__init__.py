"""Many runs: which jobs a sweep has, running them, and ranking them."""

from cae_cli.sweep.result import Sweep, read, rebuild, show

__all__ = ["Sweep", "read", "rebuild", "show"]
