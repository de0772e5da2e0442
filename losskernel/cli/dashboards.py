"""losskernel-dashboard: save a workspace of a project's runs, or of a sweep's, on W&B."""

import hydra
from omegaconf import DictConfig


def dashboard_in(conf: str) -> None:
    """Save the workspace that the command line asks for; print its URL.

    Args:
        conf: the registry.

    Raises:
        InputError: it cannot be saved.
    """
    hydra.main(config_path=conf, config_name="dashboard", version_base="1.3")(_dashboard)()


def _dashboard(config: DictConfig) -> None:
    from losskernel.runs.tracking.wandb_workspace import save_dashboard

    asked = {key: None if config[key] is None else str(config[key]) for key in ("entity", "group", "name")}
    print(save_dashboard(str(config.project), **asked))
