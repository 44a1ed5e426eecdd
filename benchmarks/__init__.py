"""Benchmarks: speed compared with other libraries, evidence, and the fault benchmark."""
