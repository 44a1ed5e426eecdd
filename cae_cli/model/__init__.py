"""Options and an image shape: to a Keras autoencoder."""
