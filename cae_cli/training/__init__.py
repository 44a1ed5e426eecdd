"""Trains an autoencoder on images: a history, checkpoints and the records of the training."""
