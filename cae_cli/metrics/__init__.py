"""Pure functions with NumPy only: arrays in, numbers or one frozen dataclass out."""
