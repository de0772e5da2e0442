"""Which metrics a comparison draws, and what goes into each panel of its figure."""

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
# R-hat - 1 is drawn, on a logarithmic axis: 1.01 and 3 are then both legible.
_LEAST_EXCESS = 1e-4


def panels_for(
    runs: Sequence[Run], asked: Sequence[str] | str | None, before: Sequence[MetricPanel] = ()
) -> list[MetricPanel]:
    """Return the panels to draw: those of the asked metrics, or of what the runs' analyses show of themselves.

    Args:
        runs: what is compared.
        asked: metrics; None for the usual ones.
        before: further panels, drawn first; given where all runs share one network.

    Raises:
        InputError: no run has a metric that was asked for, or there is nothing usual to draw.
    """
    there = {name for run in runs for name in run.metrics}
    shown = {name: presentation for run in runs for name, presentation in run.shown.items()}
    # What says whether to believe the others comes last.
    names = [*(name for name in shown if name != DIAGNOSIS), *([DIAGNOSIS] if DIAGNOSIS in shown else [])]
    known = [*before, *(panel for name in names for panel in shown[name].panels)]
    if asked is None:
        usual = [panel for panel in known if before or not panel.one_network]
        wanted = [metric for panel in usual for metric, _, _ in panel.curves if metric in there]
        require(
            len(wanted) > 0 or len(before) > 0,
            "these runs have none of the usual metrics; name some, as in metrics=[separation/ari]",
        )
    else:
        wanted = [asked] if isinstance(asked, str) else list(asked)
        unknown = [name for name in wanted if name not in there]
        if unknown:
            choices = ", ".join(sorted(name for name in there if not name.endswith(("_se", "_low", "_high"))))
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


def panels(specs: Sequence[MetricPanel], runs: Sequence[Run], design: Design) -> list[Panel]:
    """Return the contents of every panel."""
    colours = palette(len(design.curves))
    result = []
    for spec in specs:
        last = {metric: _last(metric, runs, design) for metric, _, _ in spec.curves}
        curves = []
        for number in range(len(design.curves)):
            for metric, name, own in spec.curves:
                colour = own if len(design.curves) == 1 else colours[number]
                floor = spec.floor if metric == spec.curves[-1][0] else None
                shown = name if len(design.curves) == 1 else ""
                drawn = _curve(metric, shown, colour, floor, spec.above, runs, design, number)
                # Where colour says which curve, words say which metric, once.
                note = name if number == last[metric] and len(design.curves) > 1 else ""
                shift = 0.08 * (number - (len(design.curves) - 1) / 2)
                curves.append(replace(drawn, note=note, shift=shift))
        result.append(Panel(spec.title, curves, spec.thresholds, spec.bounds))
    return result


def rows(runs: Sequence[Run], design: Design, stable: Sequence[Stretch | None]) -> list[Row]:
    """Return the strips of verdicts, one a curve."""
    colours = palette(len(design.curves))
    return [
        Row(
            name,
            colours[number],
            [worst_verdict(runs, design.at(number, place)) for place in range(len(design.axis.names))],
            None if own is None else (own.first, own.last),
        )
        for number, (name, own) in enumerate(zip(design.curves, stable, strict=True))
    ]


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
    metric: str,
    name: str,
    colour: str,
    floor: str | None,
    above: float | None,
    runs: Sequence[Run],
    design: Design,
    curve: int,
) -> Curve:
    count = len(design.axis.names)
    values, low, high, zero, noise = (np.full(count, np.nan) for _ in range(5))
    single: list[list[float]] = []
    for place in range(count):
        own = [runs[run] for run in design.at(curve, place) if metric in runs[run].metrics]
        found = [_shifted(run.metrics[metric], above) for run in own]
        single.append(found)
        if found:
            values[place] = np.mean(found)
            # Over seeds the networks themselves differ: the whole range is shown, not an error of one.
            ends = [_shifted(end, above) for end in interval(own[0], metric)] if len(found) == 1 else found
            low[place], high[place] = min(ends), max(ends)
        beside = [run.metrics.get(f"control/{metric}") for run in own]
        beside += [runs[run].metrics.get(metric) for run in design.controls_at(curve, place)]
        zero[place] = _mean([_shifted(each, above) for each in beside if each is not None])
        noise[place] = _mean([run.metrics[floor] for run in own if floor in run.metrics] if floor else [])
    verdicts = [worst_verdict(runs, design.at(curve, place)) for place in range(count)]
    return Curve(name, colour, values, low, high, verdicts, single, zero, noise if floor else None)


def _last(metric: str, runs: Sequence[Run], design: Design) -> int:
    """Return the last curve that has a metric."""
    curves = [curve for run, curve in zip(runs, design.curve, strict=True) if metric in run.metrics]
    return max((curve for curve in curves if curve is not None), default=-1)


def _shifted(value: float, above: float | None) -> float:
    return value if above is None else max(value - above, _LEAST_EXCESS)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
