"""The page of a comparison: verdicts first, figures with their definitions, a row per run with a link to its page."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from losskernel.analyses.result import MetricPanel, Result
from losskernel.config_keys import label_of
from losskernel.figures.html import banner, chip, heading, picture, write_page
from losskernel.figures.shared.presentation import number, with_error
from losskernel.runs.report import meanings_of, template
from losskernel.sweeps.captions import headline
from losskernel.sweeps.design import Design, repeated_by, value_of
from losskernel.sweeps.metric_panels import worst_verdict
from losskernel.sweeps.read_runs import Run, short_names


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


def merged(findings: Sequence[Finding]) -> Result:
    """Return all results as one."""
    result = Result()
    for finding in findings:
        for kind in ("metrics", "tables", "figures", "animations"):
            getattr(result, kind).update(getattr(finding.result, kind))
    return result


def captions_by_file(findings: Sequence[Finding]) -> dict[str, str]:
    """Return file -> caption of all pictures on the page, in its order."""
    return {
        f"{name}.{'gif' if name in finding.result.animations else 'png'}": text
        for finding in findings
        for name, text in finding.captions.items()
    }


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
    worst, keys = worst_verdict(runs, range(len(runs))), [*design.keys, *repeated_by(runs)]
    metrics = [metric for panel in panels for metric, *_ in panel.curves]
    content = template(Path(__file__).with_suffix(".jinja")).render(
        banner=lambda *parts: Markup(banner(*parts)),
        chip=lambda verdict: Markup(chip(verdict)),
        worst=worst,
        headline=escape(headline(runs)),
        notes=[note for note in notes if note],
        figures=[
            Markup(picture(folder / "figures" / name, escape(text), shown=0.7)) for name, text in captions.items()
        ],
        keys=list(map(label_of, keys)),
        metrics=_columns(runs, metrics),
        runs=[_row(folder, run, name, keys, metrics) for run, name in zip(runs, short_names(runs), strict=True)],
        distrusted=_distrusted(runs, design),
        tables={path.name: number(len(pd.read_csv(path))) for path in sorted((folder / "tables").glob("*.csv"))},
    )
    return write_page(folder / "report.html", title, [heading(title, folder), content])


def _columns(runs: Sequence[Run], metrics: Sequence[str]) -> list[dict[str, str]]:
    meanings = {name: f": {text}" for run in runs for name, text in meanings_of(run.folder).items()}
    return [
        {"name": metric.split("/")[-1].replace("_", " "), "title": metric + meanings.get(metric, "")}
        for metric in metrics
    ]


def _row(folder: Path, run: Run, name: str, keys: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    page = run.folder / "report.html"
    return {
        "name": name,
        "page": Path(os.path.relpath(page, folder)).as_posix() if page.is_file() else "",
        "settings": [value_of(run, key) for key in keys],
        "verdict": run.verdict or "none",
        "missing": run.missing,
        "numbers": [with_error(run.metrics.get(metric), run.metrics.get(f"{metric}_se")) for metric in metrics],
    }


def _distrusted(runs: Sequence[Run], design: Design) -> list[dict[str, Any]]:
    """Return the runs whose diagnosis has reasons against them."""
    key = f"{label_of(design.keys[0])} " if len(design.keys) == 1 else ""
    return [
        {"title": f"{key}{name}", "verdict": run.verdict or "none", "reasons": run.reasons}
        for run, name in zip(runs, design.names, strict=True)
        if run.reasons
    ]
