"""A runner of convolutional-autoencoder experiments that says what their filters learned."""

__version__ = "0.1.0"
