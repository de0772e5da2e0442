"""Which metrics a comparison draws, and what goes into each panel of its figure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from losskernel.errors import InputError, require
from losskernel.figures.shared.style import INK, OKABE_ITO, palette
from losskernel.figures.sweeps.metrics_against_settings import Curve, Panel, Row
from losskernel.sweeps.design import Design
from losskernel.sweeps.read_runs import UNSAMPLED, Run
from losskernel.sweeps.similarity import Stretch

# 5 and 95 % points of a normal distribution, where a run has no calibrated interval.
_NORMAL_90 = 1.645
# Vehtari et al. 2021 ask for R-hat < 1.01 and 400 effective draws; 1.05 and 100 are the least that one can use.
_RHAT = ((0.01, "warn"), (0.05, "fail"))
_ESS = ((400.0, "warn"), (100.0, "fail"))
# R-hat - 1 is drawn, on a logarithmic axis: 1.01 and 3 are then both legible.
_LEAST_EXCESS = 1e-4


@dataclass(frozen=True)
class Spec:
    """What a panel shows.

    Attributes:
        title: of the panel.
        metrics: (metric, name in the panel's legend, colour) of each curve.
        floor: metric that noise alone gives, or None.
        thresholds: (value, verdict from there on).
        bounds: ends of the axis where they are known.
        above: what is subtracted before drawing.
    """

    title: str
    metrics: tuple[tuple[str, str, str], ...]
    floor: str | None = None
    thresholds: tuple[tuple[float, str], ...] = ()
    bounds: tuple[float, float] | None = None
    above: float | None = None


_MEANS = (
    ("separation/within", "within", OKABE_ITO[3]),
    ("separation/across", "across", OKABE_ITO[0]),
)
SPECS = (
    Spec("mean |R|", _MEANS, floor="separation/noise_floor"),
    Spec("cluster recovery (ARI)", (("separation/ari", "", INK),), bounds=(0.0, 1.0)),
    Spec("coupling and hierarchy (Spearman)", (("hierarchy/spearman_classes_coupling", "", INK),)),
    Spec("path length, rad", (("path/length", "", INK),)),
    Spec("path straightness", (("path/straightness", "", INK),)),
    Spec("hidden to target, rad", (("path/distance_to_target_hidden", "", INK),)),
    Spec("effective rank of R", (("spectrum/effective_rank", "", INK),)),
    Spec("learning coefficient (LLC)", (("complexity/llc", "", INK),)),
    Spec(
        "worst R-hat − 1",
        (("diagnosis/rhat", "", INK),),
        thresholds=_RHAT,
        above=1.0,
    ),
    Spec(
        "least effective draws",
        (("diagnosis/ess_kernel", "", INK),),
        thresholds=_ESS,
    ),
)


def specs_for(runs: Sequence[Run], asked: Sequence[str] | str | None) -> list[Spec]:
    """Return the panels to draw: those of the asked metrics, or of the default ones that some run has.

    Raises:
        InputError: no run has a metric that was asked for, or any of the default ones.
    """
    there = {name for run in runs for name in run.metrics}
    if asked is None:
        wanted = [metric for spec in SPECS for metric, _, _ in spec.metrics if metric in there]
        require(len(wanted) > 0, "these runs have none of the usual metrics; name some, as in metrics=[separation/ari]")
    else:
        wanted = [asked] if isinstance(asked, str) else list(asked)
        unknown = [name for name in wanted if name not in there]
        if unknown:
            known = ", ".join(sorted(name for name in there if not name.endswith(("_se", "_low", "_high"))))
            raise InputError(f"metrics: no run has {unknown[0]!r}; choose from {known}")
    chosen: list[Spec] = []
    for name in wanted:
        spec = next((spec for spec in SPECS if name in [metric for metric, _, _ in spec.metrics]), None)
        if spec is None:
            chosen.append(Spec(name.replace("_", " "), ((name, "", INK),)))
        elif spec not in chosen:
            chosen.append(spec)
    # A panel of several curves shows only those asked for.
    return [
        Spec(
            spec.title,
            tuple(each for each in spec.metrics if each[0] in wanted),
            spec.floor,
            spec.thresholds,
            spec.bounds,
            spec.above,
        )
        for spec in chosen
    ]


def panels(specs: Sequence[Spec], runs: Sequence[Run], design: Design) -> list[Panel]:
    """Return the contents of every panel."""
    colours = palette(len(design.curves))
    result = []
    for spec in specs:
        last = {metric: _last(metric, runs, design) for metric, _, _ in spec.metrics}
        curves = []
        for number in range(len(design.curves)):
            for metric, name, own in spec.metrics:
                colour = own if len(design.curves) == 1 else colours[number]
                floor = spec.floor if metric == spec.metrics[-1][0] else None
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
