"""Builds a Keras autoencoder from options and the shape of the images."""
