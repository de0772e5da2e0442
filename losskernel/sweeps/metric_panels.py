"""The metrics that a comparison draws, and the curves in each panel of its figure."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from losskernel.analyses.result import MetricPanel
from losskernel.errors import InputError, require
from losskernel.figures.shared.style import INK, palette
from losskernel.figures.sweeps.metrics_against_settings import Curve, Panel, Row
from losskernel.runs.presentation import DIAGNOSIS
from losskernel.sweeps.design import Design
from losskernel.sweeps.read_runs import UNSAMPLED, Run
from losskernel.sweeps.similarity import Stretch

# 5 and 95 % points of a normal distribution, where a run has no calibrated interval.
_NORMAL_90 = 1.645
# Least value of what is drawn on a logarithmic axis: R-hat - 1, on which both 1.01 and 3 are legible.
_LEAST_EXCESS = 1e-4


def panels_for(
    runs: Sequence[Run], metrics: Sequence[str] | str | None, before: Sequence[MetricPanel] = ()
) -> list[MetricPanel]:
    """Return the panels to draw: of the metrics asked for, or the panels of the runs' analyses.

    Args:
        runs: the runs to compare.
        metrics: what to draw; None for the usual ones.
        before: further panels, drawn first; given where all runs share one network.

    Raises:
        InputError: no run has a metric that was asked for, or there is nothing usual to draw.
    """
    measured = {name for run in runs for name in run.metrics}
    shown = {name: presentation for run in runs for name, presentation in run.shown.items()}
    # The diagnosis comes last: it says whether the other metrics can be believed.
    names = [*(name for name in shown if name != DIAGNOSIS), *([DIAGNOSIS] if DIAGNOSIS in shown else [])]
    known = [*before, *(panel for name in names for panel in shown[name].panels)]
    if metrics is None:
        usual = [panel for panel in known if before or not panel.one_network]
        wanted = [metric for panel in usual for metric, _, _ in panel.curves if metric in measured]
        remedy = "name some, as in metrics=[separation/ari]"
        require(len(wanted) + len(before) > 0, f"these runs have none of the usual metrics; {remedy}")
    else:
        wanted = [metrics] if isinstance(metrics, str) else list(metrics)
        unknown = [name for name in wanted if name not in measured]
        if unknown:
            choices = ", ".join(sorted(name for name in measured if not name.endswith(("_se", "_low", "_high"))))
            raise InputError(f"metrics: no run has {unknown[0]!r}; choose from {choices}")
    chosen: list[MetricPanel] = []
    for name in wanted:
        panel = next((panel for panel in known if name in [metric for metric, _, _ in panel.curves]), None)
        if panel is None:
            chosen.append(MetricPanel(name.replace("_", " "), ((name, "", INK),)))
        elif panel not in chosen:
            chosen.append(panel)
    # A panel of several curves shows only those asked for.
    return [replace(panel, curves=tuple(curve for curve in panel.curves if curve[0] in wanted)) for panel in chosen]


def curves_of(panels: Sequence[MetricPanel], runs: Sequence[Run], design: Design) -> list[Panel]:
    """Return the curves of every panel."""
    return [Panel(panel.title, _curves(panel, runs, design), panel.thresholds, panel.bounds) for panel in panels]


def _curves(panel: MetricPanel, runs: Sequence[Run], design: Design) -> list[Curve]:
    last = {metric: _last_curve(metric, runs, design) for metric, *_ in panel.curves}
    one_curve, curves = len(design.curves) == 1, []
    for number, colour in enumerate(palette(len(design.curves))):
        shift = 0.08 * (number - (len(design.curves) - 1) / 2)
        for metric, name, metric_colour in panel.curves:
            # The noise floor is that of all metrics of a panel, and is drawn once.
            floor = panel.floor if metric == panel.curves[-1][0] else None
            # Colours tell the metrics apart if there is one curve of each; else they tell the curves apart, and the
            # metric's name stands once, at its last curve.
            at_end = name if number == last[metric] else ""
            name, colours, note = (name, metric_colour, "") if one_curve else ("", colour, at_end)
            curve = _curve(panel, metric, floor, runs, design, number)
            curves.append(replace(curve, name=name, colour=colours, note=note, shift=shift))
    return curves


def verdict_rows(runs: Sequence[Run], design: Design, stable: Sequence[Stretch | None]) -> list[Row]:
    """Return the strips of verdicts, one per curve."""
    rows = []
    for number, (name, colour) in enumerate(zip(design.curves, palette(len(design.curves)), strict=True)):
        verdicts = [worst_verdict(runs, design.at(number, index)) for index in range(len(design.axis.names))]
        stretch = stable[number]
        rows.append(Row(name, colour, verdicts, None if stretch is None else (stretch.first, stretch.last)))
    return rows


def worst_verdict(runs: Sequence[Run], chosen: Sequence[int]) -> str:
    """Return the worst verdict of some runs; "none" where one has no result, "unsampled" where none was sampled."""
    given = {runs[run].verdict or "none" for run in chosen} or {"none"}
    return next((verdict for verdict in ("fail", "none", "warn", "pass", UNSAMPLED) if verdict in given), "none")


def interval(run: Run, metric: str) -> tuple[float, float]:
    """Return the ends of a metric's 90 % interval: the run's own, else by its standard error, else NaN."""
    known = run.metrics
    if f"{metric}_low" in known and f"{metric}_high" in known:
        return known[f"{metric}_low"], known[f"{metric}_high"]
    value, error = known.get(metric, np.nan), known.get(f"{metric}_se", np.nan)
    return value - _NORMAL_90 * error, value + _NORMAL_90 * error


def _curve(
    panel: MetricPanel, metric: str, floor: str | None, runs: Sequence[Run], design: Design, curve: int
) -> Curve:
    """Return a metric along the axis, with error bars, control and noise floor; NaN where there is no run."""
    count = len(design.axis.names)
    values, low, high, zero, noise = (np.full(count, np.nan) for _ in range(5))
    single: list[list[float]] = []
    for index in range(count):
        measured = [runs[run] for run in design.at(curve, index) if metric in runs[run].metrics]
        numbers = [_shifted(run.metrics[metric], panel.above) for run in measured]
        single.append(numbers)
        if numbers:
            values[index] = np.mean(numbers)
            # Over seeds the networks themselves differ: the bar is their range. The error of one run is something else.
            single_run = [_shifted(end, panel.above) for end in interval(measured[0], metric)]
            ends = numbers if len(numbers) > 1 else single_run
            low[index], high[index] = min(ends), max(ends)
        controls = [run.metrics.get(f"control/{metric}") for run in measured]
        controls += [runs[run].metrics.get(metric) for run in design.controls_at(curve, index)]
        zero[index] = _mean([_shifted(value, panel.above) for value in controls if value is not None])
        noise[index] = _mean([run.metrics[floor] for run in measured if floor in run.metrics] if floor else [])
    verdicts = [worst_verdict(runs, design.at(curve, index)) for index in range(count)]
    return Curve("", "", values, low, high, verdicts, single, zero, noise if floor else None)


def _last_curve(metric: str, runs: Sequence[Run], design: Design) -> int:
    """Return the last curve that has a metric; -1 for none."""
    curves = [curve for run, curve in zip(runs, design.curve, strict=True) if metric in run.metrics]
    return max((curve for curve in curves if curve is not None), default=-1)


def _shifted(value: float, above: float | None) -> float:
    return value if above is None else max(value - above, _LEAST_EXCESS)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
