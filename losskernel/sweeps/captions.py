"""What a comparison says: captions that define what is drawn, notes on what is missing, the table on the terminal."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from losskernel.analyses.result import MetricPanel
from losskernel.figures.shared.presentation import VERDICTS
from losskernel.sweeps.design import Design, label_of, repeated_by, repeated_over, value_of
from losskernel.sweeps.metric_panels import interval
from losskernel.sweeps.read_runs import UNSAMPLED, Run, short_names
from losskernel.sweeps.similarity import Similarity, Stretch

_MOST_METRICS = 5
_SAME = 0.95  # CKA from which a kernel says little beyond its control


def counts(runs: Sequence[Run]) -> dict[str, int]:
    """Return how many runs passed, warned, failed, have no result, and, where there are such, sampled nothing."""
    found = Counter(run.verdict or "none" for run in runs)
    return {verdict: found[verdict] for verdict in VERDICTS if verdict != UNSAMPLED or found[verdict]}


def asked_differently(runs: Sequence[Run], specs: Sequence[MetricPanel]) -> str:
    """Return which analyses that are drawn were asked of the runs with settings that differ."""
    drawn = {metric.split("/")[0] for spec in specs for metric, _, _ in spec.curves}
    found = []
    for name in sorted(drawn):
        own = {run.asked[name]: short for run, short in zip(runs, short_names(runs), strict=True) if name in run.asked}
        if len(own) > 1:
            told = "; ".join(f"run {short}: {settings}" for settings, short in own.items())
            found.append(f"the analysis {name} was asked with different settings, compare with care ({told})")
    return "; ".join(found)


def headline(runs: Sequence[Run]) -> str:
    """Return the verdicts in one sentence."""
    found = counts(runs)
    idle = found.get(UNSAMPLED, 0)
    sampled = len(runs) - idle
    parts = [
        f"{found['pass']} of {sampled} kernels pass the diagnosis" if sampled > found["none"] or not idle else "",
        f"{found['warn']} warn" if found["warn"] else "",
        f"{found['fail']} FAIL" if found["fail"] else "",
        f"{found['none']} without result" if found["none"] else "",
        f"{idle} of {len(runs)} runs are of points only" if idle else "",
    ]
    return ", ".join(part for part in parts if part)


def stable_rule(design: Design, alike: float) -> str:
    """Return the definition of the stable region."""
    if design.axis.values is None:
        return ""
    return (
        "Stable region: the longest run of consecutive values in which no kernel fails its diagnosis and any two "
        f"kernels, and each with a repetition of itself, have a CKA of at least {alike:g} "
        f"(an angle of at most {np.arccos(alike):.2f} rad)."
    )


def stable_words(
    runs: Sequence[Run], design: Design, similarity: Similarity | None, stable: Sequence[Stretch | None]
) -> str:
    """Return where the stable region is."""
    if design.axis.values is None:
        return ""
    if not any(run.verdict in ("pass", "warn", "fail") for run in runs):
        return ""
    if similarity is None:
        return "stable region: cannot be told, for the kernels are not compared"
    found = []
    for name, own in zip(design.curves, stable, strict=True):
        where = "none" if own is None else f"{design.axis.names[own.first]} to {design.axis.names[own.last]}"
        cka = "" if own is None else f" (least CKA {own.cka:.2f})"
        found.append(f"{name}: {where}{cka}" if name else f"{where}{cka}")
    return f"stable region in {design.axis.label}: {'; '.join(found)}"


def caption_of_metrics(runs: Sequence[Run], design: Design, specs: Sequence[MetricPanel], stable: str) -> str:
    """Return the caption of the figure of metrics."""
    replicated = any(
        len(design.at(curve, place)) > 1
        for curve in range(len(design.curves))
        for place in range(len(design.axis.names))
    )
    known = any(np.isfinite(interval(run, metric)[0]) for run in runs for spec in specs for metric, _, _ in spec.curves)
    bars = (
        f"Points are means over {repeated_over(runs)}, bars their range, small dots the single runs."
        if replicated
        else ""
    )
    if known and not replicated:
        bars = "Bars are 90 % intervals: the run's own where it gives one, else ±1.645 standard errors."
    floor = "Dotted: mean |R| of Monte-Carlo noise alone." if any(spec.floor for spec in specs) else ""
    bounds = "Lines across: the usual bounds of R-hat (1.01, 1.05) and of effective draws (400, 100)."
    thresholds = bounds if any(spec.thresholds for spec in specs) else ""
    what = f"Metrics against {design.axis.label}." if design.axis.values is not None else "Metrics of the runs."
    marker = "A point's marker is its kernel's verdict."
    groups = ", ".join(sorted({str(run.config["label"]) for run in runs if run.config.get("label")}))
    means = f"a: |R| of pairs of probes within a group of {groups or 'the label'} and across groups." if floor else ""
    zero = design.axis.logarithmic and min(design.axis.values or [1]) == 0
    gap = "On the logarithmic axis 0 stands one gap left of the least positive value." if zero else ""
    parts = (what, gap, marker, means, bars, floor, thresholds, control_words(runs, design), stable)
    return " ".join(part for part in parts if part)


def control_words(runs: Sequence[Run], design: Design) -> str:
    """Return where the nβ = 0 control comes from, or that there is none."""
    if any(design.control):
        return "Dashed: the control, the runs of this sweep at nβ = 0, where the loss does not hold the weights."
    if any(name.startswith("control/") for run in runs for name in run.metrics):
        failed = [name for run, name in zip(runs, design.names, strict=True) if run.control == "fail"]
        which = "All" if len(failed) == len(runs) > 1 else f"Those at {'; '.join(failed)}"
        doubt = f" {which} fail their own diagnosis." if failed else ""
        return f"Dashed: each run's control, sampled again at nβ = 0, where the loss does not hold the weights.{doubt}"
    return "No control at nβ = 0 was sampled (control=true samples one beside each run)."


def like_control(runs: Sequence[Run], design: Design, similarity: Similarity) -> str:
    """Return at which values the kernel is that of the control: there the loss adds nothing to localisation noise."""
    cka = np.cos(similarity.to_control)
    near = [(run, own) for run, own in zip(similarity.members, cka, strict=True) if own >= _SAME]
    found = [f"{design.names[run]} (CKA {own:.3f})" for run, own in near if runs[run].verdict != "fail"]
    if not found:
        return ""
    alike = f"hardly different from the control at nβ = 0 (CKA >= {_SAME})"
    return f"{alike}, so that localisation makes it: {', '.join(found)}"


def caption_of_similarity(design: Design, similarity: Similarity) -> str:
    """Return the caption of the figure of kernels."""
    ordered = design.axis.values is not None
    noise = (
        "A second sample of the same kernel is apart as well: the diagonal (italic) is that distance, from disjoint "
        "halves of each run's chains, extrapolated to the run's length."
    )
    path = "Lines join the kernels in the order of the swept value." if ordered else ""
    steps = (
        "c: distance from each kernel to the next; grey, what independent noise alone would give. Runs of one seed "
        "share their noise, so that chains which hardly differ may lie closer than that."
    )
    zero = "Dashed: distance from the kernel of the run's own nβ = 0 control."
    parts = (
        f"Angular CKA (U-centred) between the correlation matrices R over {similarity.probes} probes: 0 is the same "
        "kernel up to scale, π/2 = 1.57 unrelated.",
        noise if np.isfinite(similarity.reliability).any() else "One chain a run cannot tell its noise.",
        "b: classical scaling of the distances; stress is the share of them that the map gets wrong.",
        path,
        steps if ordered else "",
        zero if np.isfinite(similarity.to_control).any() and ordered else "",
    )
    return " ".join(part for part in parts if part)


def overview(runs: Sequence[Run], design: Design, specs: Sequence[MetricPanel]) -> list[str]:
    """Return the lines that the terminal shows: how many passed, and a row per run."""
    metrics = [metric for spec in specs for metric, _, _ in spec.curves][:_MOST_METRICS]
    names = short_names(runs)
    keys = [*design.keys, *repeated_by(runs)]
    rows = [["run", *map(label_of, keys), "verdict", *(name.split("/")[-1] for name in metrics)]]
    for run, name in zip(runs, names, strict=True):
        own = [name, *(value_of(run, key) for key in keys)]
        rows.append([*own, *([run.verdict or "none", *(_cell(run, name) for name in metrics)])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    missing = [
        f"run {name} has no result: {run.missing.splitlines()[0]}"
        for run, name in zip(runs, names, strict=True)
        if run.missing
    ]
    return [f"comparison: {headline(runs)}", *(f"  {line}" for line in lines), *(f"  - {line}" for line in missing)]


def _cell(run: Run, metric: str) -> str:
    if metric not in run.metrics:
        return "–"
    error = run.metrics.get(f"{metric}_se")
    return f"{run.metrics[metric]:.4g}" + (f" ± {error:.1g}" if error else "")
