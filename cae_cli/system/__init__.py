"""Atomic files, locks, signals and free memory."""
