"""A W&B workspace for the runs of a project or a sweep, with panels for what they have recorded and no empty ones."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import wandb
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from losskernel.config_keys import Use, label_of, with_use
from losskernel.errors import InputError, require
from losskernel.runs.report import COMPARED_METRICS
from losskernel.runs.tracking.tracker import CLOCK
from losskernel.runs.tracking.wandb_connection import logged_in

try:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr
    from wandb_workspaces.reports.v2.interface import ParallelCoordinatesPlotColumn
except ImportError as error:  # an optional dependency
    raise InputError("wandb-workspaces is not installed; uv sync --extra dashboard") from error

_COMPARED = ("compare",)  # job types that record a comparison of others
_TRUST = ("diagnosis/rhat", "diagnosis/ess_kernel", "diagnosis/stiffness")
_MOST = 6  # headline numbers shown


@dataclass(frozen=True)
class Recorded:
    """The record of one W&B run: its settings, its summary and its kind."""

    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    job_type: str = "run"


def workspace(
    runs: Sequence[Recorded], project: str, entity: str, group: str | None = None, name: str | None = None
) -> ws.Workspace:
    """Return a workspace with the panels that these runs can fill.

    W&B's scatter plots draw no error bars: intervals stand in the figure of the sweep's comparison, and standard errors
    beside the numbers in the table of runs.

    Args:
        runs: of the project, or of one sweep.
        project: where it is saved.
        entity: user or team that has the project.
        group: sweep that is shown; None for all runs.
        name: of the workspace; None for a usual one.
    """
    single = [run for run in runs if run.job_type not in _COMPARED]
    settings, headlines = _swept(single), _headlines(single)
    sections = [
        ws.Section("Trust", _trust(runs, settings), is_open=True),
        ws.Section("Results", _results(runs, settings, headlines), is_open=True),
        ws.Section("Curves against the draw (up to 0: burn-in)", _curves("draw"), is_open=True),
        ws.Section("Curves against seconds of sampling", _curves(CLOCK)),
        ws.Section("Kernels and figures", [_media(key) for key in _media_keys(single, "figures/", "image-file")]),
        ws.Section("Maps", [_media(key) for key in _media_keys(single, "interactive/", "html-file")]),
    ]
    columns = ["summary:verdict", *(f"config:{key}.value" for key in settings)]
    for metric in headlines:
        columns += [f"summary:{metric}", f"summary:{metric}_se"]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name or f"losskernel: {group or project}",
        sections=[section for section in sections if section.panels],
        settings=ws.WorkspaceSettings(x_axis="draw", max_runs=50),
        runset_settings=ws.RunsetSettings(
            filters="" if group is None else expr.And(expr.Metric("Group") == group),
            order=[expr.Ordering(expr.Config(settings[0]), ascending=True)],
            pinned_columns=[*columns, "summary:diagnosis/rhat", "summary:diagnosis/ess_kernel"],
        ),
    )


def _trust(runs: Sequence[Recorded], settings: Sequence[str]) -> list[Any]:
    pages = [_media(key) for key in _media_keys(runs, "trust/", "html-file")]
    known = [metric for metric in _TRUST if _numbers([run.summary for run in runs], metric)]
    return pages + [_against(metric, setting, runs) for metric in known for setting in settings[:1]]


def _results(runs: Sequence[Recorded], settings: Sequence[str], headlines: Sequence[str]) -> list[Any]:
    compared = [run for run in runs if run.job_type in _COMPARED]
    panels: list[Any] = [_media(key) for key in _media_keys(compared, "figures/", "image-file")]
    if headlines:
        columns = [_column(wr.Config(key), _title(key), _logarithmic(runs, key)) for key in settings]
        columns.append(_column(wr.SummaryMetric(headlines[0]), headlines[0], False))
        panels.append(wr.ParallelCoordinatesPlot(columns=columns, title=f"settings to {headlines[0]}"))
    panels += [_against(metric, setting, runs) for metric in headlines for setting in settings[:3]]
    if any("tables/runs" in run.summary for run in compared):
        panels.append(wr.WeavePanelSummaryTable(table_name="tables/runs"))
    return panels


def _curves(axis: str) -> list[Any]:
    wanted = {"probe_loss": "mean probe loss", "train_loss": "training loss", "distance": "|w - w*|"}
    title = "draw" if axis == "draw" else "seconds of sampling"
    return [
        wr.LinePlot(title=words, x=axis, title_x=title, metric_regex=f"{name}/chain_\\d+", max_runs_to_show=50)
        for name, words in wanted.items()
    ]


def _against(metric: str, setting: str, runs: Sequence[Recorded]) -> wr.ScatterPlot:
    return wr.ScatterPlot(
        title=f"{metric} against {_title(setting)}",
        x=wr.Config(setting),
        y=wr.SummaryMetric(metric),
        log_x=_logarithmic(runs, setting) or None,
    )


def _column(metric: Any, name: str, log: bool) -> ParallelCoordinatesPlotColumn:
    return ParallelCoordinatesPlotColumn(metric=metric, display_name=name, log=log or None)


def _media(key: str) -> wr.MediaBrowser:
    return wr.MediaBrowser(title=key.split("/", 1)[1].replace("_", " "), media_keys=[key], num_columns=2)


def _title(setting: str) -> str:
    return next((label_of(key) for key in with_use(Use.SHORT_NAME) if key.endswith(f".{setting}")), setting)


def _swept(runs: Sequence[Recorded]) -> list[str]:
    """Return the settings that differ between runs; if none does, the most common ones."""
    known = [key.rsplit(".", 1)[-1] for key in with_use(Use.SHORT_NAME)]
    differ = [key for key in known if len({run.config.get(key) for run in runs if key in run.config}) > 1]
    return differ or known[:3]


def _headlines(runs: Sequence[Recorded]) -> list[str]:
    """Return the usual metrics that some run has, then others that have a standard error."""
    summaries = [run.summary for run in runs]
    there = list(dict.fromkeys(key for summary in summaries for key in summary))
    others = [key for key in there if f"{key}_se" in there and not key.startswith(("control/", "convergence/"))]
    usual = [key for summary in summaries for key in summary.get(COMPARED_METRICS) or ()]
    return [key for key in dict.fromkeys([*usual, *others]) if _numbers(summaries, key)][:_MOST]


def _media_keys(runs: Iterable[Recorded], prefix: str, kind: str) -> list[str]:
    def held(value: Any) -> bool:
        return isinstance(value, Mapping) and value.get("_type") == kind

    keys = {key for run in runs for key, value in run.summary.items() if key.startswith(prefix) and held(value)}
    return sorted(keys, key=lambda key: ("kernel" not in key, key))


def _numbers(records: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    values = [record.get(key) for record in records]
    return [float(value) for value in values if isinstance(value, (int, float)) and math.isfinite(value)]


def _logarithmic(runs: Sequence[Recorded], key: str) -> bool:
    """Whether a setting needs a logarithmic axis: it is positive and spans a factor of 10."""
    values = _numbers([run.config for run in runs], key)
    return bool(values) and min(values) > 0 and max(values) >= 10 * min(values)


_LATEST = 200  # number of runs that are read


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
    require(logged_in(), "nobody is logged in to W&B; run wandb login (or set WANDB_API_KEY), then the same command")

    with _refusals_as_input_errors():
        api = wandb.Api(timeout=20)
        owner = entity or api.default_entity
        require(bool(owner), "W&B knows no default entity for this key; give entity=..., your user or team")
        chosen = {"group": group} if group else {}
        latest = islice(api.runs(f"{owner}/{project}", filters=chosen, order="-created_at", lazy=False), _LATEST)
        runs = [Recorded(dict(run.config), _plain(run.summary), _job_type(run)) for run in latest]
    which = f" in the group {group}" if group else ""
    remedy = "check project=, entity= and group=, and send offline runs with wandb sync"
    require(len(runs) > 0, f"W&B has no runs in {owner}/{project}{which}; {remedy}")
    made = workspace(runs, project, str(owner), group, name)
    with _refusals_as_input_errors():
        return str(made.save().url)


def _plain(summary: Any) -> dict[str, Any]:
    """Return a summary as plain mappings; W&B wraps media entries in types of its own."""
    return {key: dict(value.items()) if hasattr(value, "items") else value for key, value in summary.items()}


def _job_type(run: Any) -> str:
    return str(getattr(run, "job_type", None) or "run")


@contextmanager
def _refusals_as_input_errors() -> Iterator[None]:
    """Turn a refusal of W&B into an InputError of one line.

    Raises:
        InputError: W&B refused.
    """
    try:
        yield
    except InputError:
        raise
    except (wandb.Error, WandbApiFailedError, OSError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "check the network, project= and entity="
        raise InputError(f"W&B did not save the workspace: {reason}; {remedy}") from error
