"""Benchmarks: the speed beside other frameworks, evidence, and the fault benchmark of the diagnosis."""
