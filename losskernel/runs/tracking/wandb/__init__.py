"""Weights & Biases: runs as their users see them, and a workspace that shows them."""

from losskernel.runs.tracking.wandb.connection import logged_in
from losskernel.runs.tracking.wandb.tracker import WandbTracker

__all__ = ["WandbTracker", "logged_in"]
