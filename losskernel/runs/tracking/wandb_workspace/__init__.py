"""A workspace on W&B for a project's runs, or for those of one sweep: trust, results, curves, kernels, maps."""

from losskernel.runs.tracking.wandb_workspace.save import save_dashboard

__all__ = ["save_dashboard"]
