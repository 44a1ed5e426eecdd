"""The use of a trained network: latent codes, reconstructions, scores of images, nearest images."""

from cae_cli.features.network import Network, open_network

__all__ = ["Network", "open_network"]
