"""The page of a comparison: verdicts first, figures with their definitions, a row per run with a link to its page."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from losskernel.analyses.result import MetricPanel
from losskernel.config_keys import label_of
from losskernel.figures.html import banner, chip, heading, picture, write_page
from losskernel.figures.shared.presentation import VERDICTS, number, with_error
from losskernel.runs.report import meanings_of, template
from losskernel.sweeps.design import Design, Stretch, interval, repeated_by, repeated_over, value_of, worst_verdict
from losskernel.sweeps.read_runs import UNSAMPLED, Run, short_names
from losskernel.sweeps.similarity import Similarity

_MOST_METRICS = 5
_SAME = 0.95  # CKA from which a kernel hardly differs from its control


def write_comparison(
    folder: Path,
    title: str,
    runs: Sequence[Run],
    design: Design,
    panels: Sequence[MetricPanel],
    captions: Mapping[str, str],
    notes: Sequence[str],
) -> Path:
    """Write `report.html` of a comparison into its folder, beside the figures and tables there.

    Args:
        folder: of the comparison.
        title: of the page.
        runs: all runs, also those without result.
        design: how they are laid out.
        panels: the metrics drawn, which are the columns of the table.
        captions: file of a figure -> caption, in the order of the page.
        notes: sentences for the top of the page; empty ones are left out.
    """
    keys, metrics = [*design.keys, *repeated_by(runs)], [metric for panel in panels for metric, *_ in panel.curves]
    pictures = {name: picture(folder / "figures" / name, escape(text), shown=0.7) for name, text in captions.items()}
    content = template(Path(__file__).with_suffix(".jinja")).render(
        banner=lambda *parts: Markup(banner(*parts)),
        chip=lambda verdict: Markup(chip(verdict)),
        worst=worst_verdict(runs, range(len(runs))),
        headline=escape(headline(runs)),
        notes=[note for note in notes if note],
        figures=list(map(Markup, pictures.values())),
        keys={key: label_of(key) for key in keys},
        metrics=metrics,
        meanings={name: f": {text}" for run in runs for name, text in meanings_of(run.folder).items()},
        runs=[(name, _link(run, folder), run) for name, run in zip(short_names(runs), runs, strict=True)],
        distrusted=[(name, run) for name, run in zip(design.names, runs, strict=True) if run.reasons],
        swept=f"{label_of(design.keys[0])} " if len(design.keys) == 1 else "",
        tables={path.name: number(len(pd.read_csv(path))) for path in sorted((folder / "tables").glob("*.csv"))},
        value_of=value_of,
        with_error=with_error,
    )
    return write_page(folder / "report.html", title, [heading(title, folder), content])


def _link(run: Run, folder: Path) -> str:
    page = run.folder / "report.html"
    return Path(os.path.relpath(page, folder)).as_posix() if page.is_file() else ""


# Text: captions that define what is drawn, notes, and the table on the terminal.


def counts(runs: Sequence[Run]) -> dict[str, int]:
    """Return verdict -> number of runs; runs that sampled nothing are listed only if there are any."""
    number = Counter(run.verdict or "none" for run in runs)
    return {verdict: number[verdict] for verdict in VERDICTS if verdict != UNSAMPLED or number[verdict]}


def different_settings(runs: Sequence[Run], panels: Sequence[MetricPanel]) -> str:
    """Return which analyses of the drawn metrics had different settings in different runs."""
    lines, names = [], short_names(runs)
    for analysis in sorted({metric.split("/")[0] for panel in panels for metric, *_ in panel.curves}):
        # One run for each of the settings that occur.
        examples = {run.settings.get(analysis): name for run, name in zip(runs, names, strict=True)}
        examples.pop(None, None)
        if len(examples) > 1:
            which = "; ".join(f"run {name}: {settings}" for settings, name in examples.items())
            lines.append(f"the analysis {analysis} was asked with different settings, compare with care ({which})")
    return "; ".join(lines)


def headline(runs: Sequence[Run]) -> str:
    """Return the verdicts in one sentence."""
    number = counts(runs)
    idle = number.get(UNSAMPLED, 0)
    sampled = len(runs) - idle
    parts = [
        f"{number['pass']} of {sampled} kernels pass the diagnosis" if sampled > number["none"] or not idle else "",
        f"{number['warn']} warn" if number["warn"] else "",
        f"{number['fail']} FAIL" if number["fail"] else "",
        f"{number['none']} without result" if number["none"] else "",
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
    if design.axis.values is None or not any(run.verdict in ("pass", "warn", "fail") for run in runs):
        return ""
    if similarity is None:
        return "stable region: unknown, because the kernels are not compared"
    parts, ticks = [], design.axis.names
    for name, stretch in zip(design.curves, stable, strict=True):
        where = "none"
        if stretch is not None:
            where = f"{ticks[stretch.first]} to {ticks[stretch.last]} (least CKA {stretch.cka:.2f})"
        parts.append(f"{name}: {where}" if name else where)
    return f"stable region in {design.axis.label}: {'; '.join(parts)}"


def caption_of_metrics(runs: Sequence[Run], design: Design, panels: Sequence[MetricPanel], stable: str) -> str:
    """Return the caption of the figure of metrics."""
    metrics, bars = [metric for panel in panels for metric, *_ in panel.curves], ""
    if design.repeated:
        bars = f"Points are means over {repeated_over(runs)}, bars their range, small dots the single runs."
    elif any(np.isfinite(interval(run, metric)[0]) for run in runs for metric in metrics):
        bars = "Bars are 90 % intervals: the run's own where it gives one, else ±1.645 standard errors."
    floor = "Dotted: mean |R| of Monte-Carlo noise alone." if any(panel.floor for panel in panels) else ""
    bounds = "Lines across: the usual bounds of R-hat (1.01, 1.05) and of effective draws (400, 100)."
    thresholds = bounds if any(panel.thresholds for panel in panels) else ""
    what = f"Metrics against {design.axis.label}." if design.axis.values is not None else "Metrics of the runs."
    marker = "A point's marker is its kernel's verdict."
    groups = ", ".join(sorted({str(run.config["label"]) for run in runs if run.config.get("label")}))
    means = f"a: |R| of pairs of probes within a group of {groups or 'the label'} and across groups." if floor else ""
    zero = design.axis.logarithmic and min(design.axis.values or [1]) == 0
    gap = "On the logarithmic axis 0 stands one gap left of the least positive value." if zero else ""
    parts = (what, gap, marker, means, bars, floor, thresholds, control_words(runs, design), stable)
    return " ".join(part for part in parts if part)


def control_words(runs: Sequence[Run], design: Design) -> str:
    """Return the source of the control at nβ = 0, or that there is none."""
    if any(design.control):
        return "Dashed: the control, the runs of this sweep at nβ = 0, where the loss does not hold the weights."
    if any(name.startswith("control/") for run in runs for name in run.metrics):
        failed = [name for run, name in zip(runs, design.names, strict=True) if run.control == "fail"]
        which = "All" if len(failed) == len(runs) > 1 else f"Those at {'; '.join(failed)}"
        doubt = f" {which} fail their own diagnosis." if failed else ""
        return f"Dashed: each run's control, sampled again at nβ = 0, where the loss does not hold the weights.{doubt}"
    return "No control at nβ = 0 was sampled (control=true samples one beside each run)."


def like_control(runs: Sequence[Run], design: Design, similarity: Similarity) -> str:
    """Return the values at which a kernel equals its control: the loss adds nothing to localisation noise there."""
    cka = np.cos(similarity.to_control)
    near = [(run, value) for run, value in zip(similarity.members, cka, strict=True) if value >= _SAME]
    names = [f"{design.names[run]} (CKA {value:.3f})" for run, value in near if runs[run].verdict != "fail"]
    if not names:
        return ""
    alike = f"hardly different from the control at nβ = 0 (CKA >= {_SAME})"
    return f"{alike}, so that localisation makes it: {', '.join(names)}"


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
        noise if np.isfinite(similarity.reliability).any() else "The noise of a run of one chain is unknown.",
        "b: classical scaling of the distances; stress is the share of them that the map gets wrong.",
        path,
        steps if ordered else "",
        zero if np.isfinite(similarity.to_control).any() and ordered else "",
    )
    return " ".join(part for part in parts if part)


def overview(runs: Sequence[Run], design: Design, panels: Sequence[MetricPanel]) -> list[str]:
    """Return the lines for the terminal: the verdicts, and a row per run."""
    metrics = [metric for panel in panels for metric, *_ in panel.curves][:_MOST_METRICS]
    names = short_names(runs)
    keys = [*design.keys, *repeated_by(runs)]
    rows = [["run", *map(label_of, keys), "verdict", *(name.split("/")[-1] for name in metrics)]]
    for run, name in zip(runs, names, strict=True):
        settings, numbers = [value_of(run, key) for key in keys], [_cell(run, metric) for metric in metrics]
        rows.append([name, *settings, run.verdict or "none", *numbers])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    reasons = {name: run.missing.splitlines()[0] for run, name in zip(runs, names, strict=True) if run.missing}
    missing = [f"  - run {name} has no result: {reason}" for name, reason in reasons.items()]
    return [f"comparison: {headline(runs)}", *(f"  {line}" for line in lines), *missing]


def _cell(run: Run, metric: str) -> str:
    if metric not in run.metrics:
        return "–"
    error = run.metrics.get(f"{metric}_se")
    return f"{run.metrics[metric]:.4g}" + (f" ± {error:.1g}" if error else "")
