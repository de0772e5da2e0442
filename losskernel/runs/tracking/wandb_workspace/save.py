"""Saving the workspace: what the runs have recorded is read from W&B first, and one request saves all of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from typing import Any

import wandb
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from losskernel.errors import InputError, require
from losskernel.runs.tracking.wandb import logged_in

_LOOK_AT = 200  # runs, the latest


def save_dashboard(project: str, entity: str | None = None, group: str | None = None, name: str | None = None) -> str:
    """Save a workspace for a project's runs, or those of one sweep, on W&B, and return its URL.

    Args:
        project: W&B project.
        entity: user or team; None for the default.
        group: the sweep's name, which is its folder's; None for all runs.
        name: of the workspace; None for a usual one.

    Raises:
        InputError: nobody is logged in, wandb-workspaces is not installed, W&B cannot be reached or refuses, or it has
            no such runs.
    """
    require(find_spec("wandb_workspaces") is not None, "wandb-workspaces is not installed; uv sync --extra dashboard")
    require(logged_in(), "nobody is logged in to W&B; run wandb login (or set WANDB_API_KEY), then the same command")
    from losskernel.runs.tracking.wandb_workspace.panels import Recorded, workspace

    with _refusals():
        api = wandb.Api(timeout=20)
        owner = entity or api.default_entity
        require(bool(owner), "W&B knows no default entity for this key; give entity=..., your user or team")
        chosen = {"group": group} if group else {}
        found = api.runs(f"{owner}/{project}", filters=chosen, order="-created_at", lazy=False)
        runs = [Recorded(dict(run.config), _plain(run.summary), _job_type(run)) for run in islice(found, _LOOK_AT)]
    which = f" in the group {group}" if group else ""
    remedy = "check project=, entity= and group=, and send offline runs with wandb sync"
    require(len(runs) > 0, f"W&B has no runs in {owner}/{project}{which}; {remedy}")
    made = workspace(runs, project, str(owner), group, name)
    with _refusals():
        return str(made.save().url)


def _plain(summary: Any) -> dict[str, Any]:
    """Return a summary as plain mappings; W&B wraps those of its media."""
    return {key: dict(value.items()) if hasattr(value, "items") else value for key, value in summary.items()}


def _job_type(run: Any) -> str:
    return str(getattr(run, "job_type", None) or "run")


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what W&B says no with into one line.

    Raises:
        InputError: it said no.
    """
    try:
        yield
    except InputError:
        raise
    except (wandb.Error, WandbApiFailedError, OSError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "check the network, project= and entity="
        raise InputError(f"W&B did not save the workspace: {reason}; {remedy}") from error
