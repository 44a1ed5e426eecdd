"""Runs written to experiment trackers: readers of the run folder, each in a file."""

from cae_cli.trackers import mlflow, tensorboard, trackio, wandb  # noqa: F401  (they fill the catalogue)
from cae_cli.trackers.follow import Writer, following
from cae_cli.trackers.tracker import TRACKERS, NoTracker, Tracker

__all__ = ["TRACKERS", "NoTracker", "Tracker", "Writer", "following"]
