"""Weights & Biases: runs as their users see them, and a workspace that shows them."""

from losskernel.wandb_tracker.connection import logged_in
from losskernel.wandb_tracker.tracker import WandbTracker

__all__ = ["WandbTracker", "logged_in"]
