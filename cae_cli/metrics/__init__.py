"""Measures: pure functions, arrays in, numbers or one frozen dataclass out. NumPy only."""
