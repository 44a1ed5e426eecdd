"""Images and an autoencoder: to a history, checkpoints and what a recorder saw on the way."""
