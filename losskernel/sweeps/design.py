"""The design of a sweep: the key on the axis, the keys that distinguish curves, repetitions, controls.

And the metrics that a comparison draws, and the curves in each panel of its figure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from losskernel.analyses.result import MetricPanel, Result
from losskernel.config_keys import COMPARED, NBETA, label_of, repetitions, row, symbol_of
from losskernel.errors import InputError, require
from losskernel.figures.shared.presentation import is_finite
from losskernel.figures.shared.style import INK, palette
from losskernel.figures.shared.sweep_axis import Axis
from losskernel.figures.sweeps.metrics_against_settings import Curve, Panel, Row
from losskernel.runs.report import DIAGNOSIS
from losskernel.sweeps.read_runs import UNSAMPLED, Run, short_names

_MOST_CURVES = 8
_MOST_KEYS = 3  # of which the values still make a legible name
_ABSENT = "–"
# 5 and 95 % points of a normal distribution, where a run has no calibrated interval.
_NORMAL_90 = 1.645
# Least value of what is drawn on a logarithmic axis: R-hat - 1, on which both 1.01 and 3 are legible.
_LEAST_EXCESS = 1e-4


@dataclass(frozen=True)
class Design:
    """How runs are laid out for a comparison.

    Attributes:
        keys: configuration keys that differ, in the configuration's order, without those of repetitions.
        axis: the horizontal axis.
        curves: names of the curves; [""] where there is one.
        index: [runs] position of each run on the axis; None for a control that counts at every position.
        curve: [runs] index of each run's curve; None for a control that counts for every curve.
        control: [runs] whether it was sampled at nβ = 0 beside runs that were not.
        names: [runs] a name for each run.
    """

    keys: list[str]
    axis: Axis
    curves: list[str]
    index: list[int | None]
    curve: list[int | None]
    control: list[bool]
    names: list[str]

    def at(self, curve: int, index: int) -> list[int]:
        """Return the runs of one curve at one position: several where only their seeds or first chains differ."""
        return [run for run in range(len(self.names)) if not self.control[run] and self._matches(run, curve, index)]

    def controls_at(self, curve: int, index: int) -> list[int]:
        """Return the runs of the sweep that are controls of one curve at one position."""
        return [run for run in range(len(self.names)) if self.control[run] and self._matches(run, curve, index)]

    @property
    def repeated(self) -> bool:
        """Whether some position of some curve has several runs."""
        curves, positions = range(len(self.curves)), range(len(self.axis.names))
        return any(len(self.at(curve, index)) > 1 for curve in curves for index in positions)

    def _matches(self, run: int, curve: int, index: int) -> bool:
        return self.curve[run] in (curve, None) and self.index[run] in (index, None)


@dataclass(frozen=True)
class Finding:
    """The answer to one question about all runs together.

    Attributes:
        result: numbers, tables, figures, animations.
        captions: figure or animation -> caption, in the order of the page; a figure without one is not on it.
        notes: sentences for the top of the page.
    """

    result: Result = field(default_factory=Result)
    captions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Stretch:
    """Consecutive indices of an axis, both ends included, and the least CKA between their kernels."""

    first: int
    last: int
    cka: float


def lay_out(runs: Sequence[Run]) -> Design:
    """Find what differs between runs, and how to draw it.

    The numeric key with the most values goes on the axis, and the others distinguish curves. Without a numeric key,
    with more than eight curves, or where no curve has two values, every combination has a position of its own. Runs
    that differ in the seed or the first chain alone are repetitions. Keys that change together count as one.
    """
    keys = swept_keys(runs)
    control = [NBETA in keys and run.config.get(NBETA) == 0 for run in runs]
    sampled = [run for run, zero in zip(runs, control, strict=True) if not zero]
    # Controls are left out here: if nβ is 0 or one other value, it is not swept.
    varied = [key for key in keys if _differ(sampled, key)]
    axis_key = _axis_key(sampled, varied)
    curve_keys = [key for key in varied if key != axis_key] if axis_key else []
    axis, ticks = _numeric_axis(runs, sampled, axis_key) if axis_key else _axis_of_names(runs, control, varied)
    curves = list(dict.fromkeys(_curve_name(run, curve_keys) for run in sampled))
    # Where curves differ in nβ, a run at nβ = 0 is a control of all of them.
    of_all = [run.config.get(NBETA) == 0 and NBETA in curve_keys for run in runs]
    names = ["" if every else _curve_name(run, curve_keys) for run, every in zip(runs, of_all, strict=True)]
    curve = [None if every else _index(curves, name) for name, every in zip(names, of_all, strict=True)]
    index = [_index(axis.names, tick) for tick in ticks]
    return Design(keys, axis, curves, index, curve, control, _names(runs, keys))


def _numeric_axis(runs: Sequence[Run], sampled: Sequence[Run], key: str) -> tuple[Axis, list[str]]:
    """Return the axis of a numeric key, and the tick of each run; "" where it has no such value."""
    values = sorted({float(run.config[key]) for run in sampled})
    ticks = [f"{run.config[key]:g}" if is_finite(run.config.get(key)) else "" for run in runs]
    return Axis(label_of(key), [f"{value:g}" for value in values], values), ticks


def _axis_of_names(runs: Sequence[Run], control: Sequence[bool], keys: list[str]) -> tuple[Axis, list[str]]:
    """Return an axis with a tick for every combination of some keys, and the tick of each run."""
    ticks = _titles(runs, keys)
    label = ", ".join(map(label_of, keys or repeated_by(runs))) or "run"
    shown = dict.fromkeys(tick for tick, zero in zip(ticks, control, strict=True) if not zero)
    return Axis(label, list(shown)), ticks


def swept_keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys that differ, in the configuration's order.

    Of keys that change together one is named: a class, else the first numeric, else the first.
    """
    every = list(dict.fromkeys(key for run in runs for key in run.config))
    # Keys change together if they group the runs alike: the pattern is the grouping, numbered by first occurrence.
    representatives: dict[tuple[int, ...], str] = {}
    for key in every:
        if row(key).role not in COMPARED or key in repetitions() or not _differ(runs, key):
            continue
        values = [value_of(run, key) for run in runs]
        pattern = tuple(values.index(value) for value in values)
        if pattern not in representatives or _rank(runs, key) > _rank(runs, representatives[pattern]):
            representatives[pattern] = key
    return sorted(representatives.values(), key=every.index)


def repeated_by(runs: Sequence[Run]) -> list[str]:
    """Return the keys that tell repetitions apart and that differ between these runs.

    A dataset's seed is named only where it is not the run's own, which it follows by default.
    """
    follows = all(value_of(run, "dataset.seed") == value_of(run, "seed") for run in runs)
    return [key for key in repetitions() if _differ(runs, key) and not (follows and key == "dataset.seed")]


def repetition(run: Run, keys: Sequence[str]) -> str:
    """Return which repetition a run is, by some keys: `seed 1, chains from 4`."""
    return ", ".join(f"{repetitions()[key][0]} {value_of(run, key)}" for key in keys)


def repeated_over(runs: Sequence[Run]) -> str:
    """Return what means are taken over: `seeds`."""
    return " and ".join(repetitions()[key][1] for key in repeated_by(runs)) or "repetitions"


def value_of(run: Run, key: str) -> str:
    """Return a run's value of a key as text: a class by its last name, a list of equal numbers as 4 × 64."""
    value = run.config.get(key, _ABSENT)
    if key == "chain_offset":  # older runs have none
        value = first_chain(run)
    if is_finite(value):
        return f"{value:g}"
    if isinstance(value, list) and len(value) > 1 and is_finite(value[0]) and value.count(value[0]) == len(value):
        return f"{len(value)} × {value[0]:g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text.rsplit(".", 1)[-1] if key.endswith("_target_") else text


def first_chain(run: Run) -> int:
    """Return the number of a run's first chain."""
    offset = run.config.get("chain_offset")
    return offset if isinstance(offset, int) else 0


def _axis_key(runs: Sequence[Run], varied: list[str]) -> str | None:
    """Return the numeric key with the most values, the first of several, if curves over it have more than one value."""
    numeric = [key for key in varied if _all_numbers(runs, key)]
    axis_key = max(numeric, key=lambda key: len({run.config[key] for run in runs}), default=None)
    if axis_key is None:
        return None
    others = [key for key in varied if key != axis_key]
    curves = {_curve_name(run, others) for run in runs}
    pairs = {(_curve_name(run, others), run.config[axis_key]) for run in runs}
    return axis_key if len(curves) <= _MOST_CURVES and len(pairs) > len(curves) else None


def _curve_name(run: Run, keys: list[str]) -> str:
    return ", ".join(f"{symbol_of(key, label_of(key))} = {value_of(run, key)}" for key in keys)


def _index(names: list[str], name: str) -> int | None:
    return names.index(name) if name in names else None


def _titles(runs: Sequence[Run], keys: list[str]) -> list[str]:
    """Return the tick of each run on an axis without numbers."""
    if not keys and (repeated := repeated_by(runs)):
        return [", ".join(value_of(run, key) for key in repeated) for run in runs]
    if not 0 < len(keys) <= _MOST_KEYS:
        return short_names(runs)
    shown = [_shown(runs, key) for key in keys]
    return [", ".join(values) for values in zip(*shown, strict=True)]


def _shown(runs: Sequence[Run], key: str) -> list[str]:
    """Return the runs' values of a key for a figure; paths without the folders that all share."""
    paths = [value_of(run, key).split("/") for run in runs]
    while all(len(path) > 1 and path[0] == paths[0][0] for path in paths):
        paths = [path[1:] for path in paths]
    return ["/".join(path) for path in paths]


def _names(runs: Sequence[Run], keys: list[str]) -> list[str]:
    """Return a name for each run: its values, with the keys' labels where there are several."""
    if not 0 < len(keys) <= _MOST_KEYS:
        return _titles(runs, keys)
    names = [_curve_name(run, keys) for run in runs] if len(keys) > 1 else _shown(runs, keys[0])
    repeated = repeated_by(runs)
    return [", ".join(filter(None, [name, repetition(run, repeated)])) for name, run in zip(names, runs, strict=True)]


def _rank(runs: Sequence[Run], key: str) -> int:
    """Return how well a key represents others that change with it."""
    return 2 if key.endswith("_target_") else int(_all_numbers(runs, key))


def _differ(runs: Sequence[Run], key: str) -> bool:
    return len({value_of(run, key) for run in runs}) > 1


def _all_numbers(runs: Sequence[Run], key: str) -> bool:
    return all(is_finite(run.config.get(key)) for run in runs)


# The metrics that a comparison draws, and the curves in each panel of its figure.


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
