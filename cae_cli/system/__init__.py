"""Atomic files, locks, signals, memory."""
