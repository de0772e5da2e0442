"""The page of a comparison: verdicts first, figures with their definitions, a row per run with a link to its page."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from losskernel.analyses.result import MetricPanel, Result
from losskernel.figures.html import banner, chip, heading, picture, section, write_page
from losskernel.figures.shared.presentation import number, with_error
from losskernel.runs.report import meanings_of
from losskernel.sweeps.captions import headline
from losskernel.sweeps.design import Design, label_of, repeated_by, value_of
from losskernel.sweeps.metric_panels import worst_verdict
from losskernel.sweeps.read_runs import Run, short_names


def write_comparison(
    folder: Path,
    title: str,
    runs: Sequence[Run],
    design: Design,
    specs: Sequence[MetricPanel],
    captions: Mapping[str, str],
    notes: Sequence[str],
) -> Path:
    """Write `report.html` of a comparison into its folder, beside the figures and tables that lie there.

    captions: file of a figure -> what it shows, in the order wanted. notes: what the reader must know before all.
    """
    worst = worst_verdict(runs, range(len(runs)))
    words = "".join(f"<li>{escape(note)}</li>" for note in notes if note)
    figures = [picture(folder / "figures" / name, escape(text), shown=0.7) for name, text in captions.items()]
    sections = [
        heading(title, folder),
        banner(worst, escape(headline(runs)), f"<ul>{words}</ul>" if words else ""),
        section("Figures", f"<div class='figures'>{''.join(figures)}</div>"),
        section("Runs", _runs(folder, runs, design, specs)),
        section("Why kernels are distrusted", _reasons(runs, design)),
        section("Tables", _files(folder)),
    ]
    return write_page(folder / "report.html", title, sections)


def _runs(folder: Path, runs: Sequence[Run], design: Design, specs: Sequence[MetricPanel]) -> str:
    metrics = [(metric, spec.title, name) for spec in specs for metric, name, _ in spec.curves]
    keys = [*design.keys, *repeated_by(runs)]
    head = ["run", *map(label_of, keys), "verdict"]
    cells = "".join(f"<th>{escape(each)}</th>" for each in head)
    told = {name: f": {words}" for run in runs for name, words in meanings_of(run.folder).items()}
    cells += "".join(
        f"<th class='number' title='{escape(metric + told.get(metric, ''))}'>{escape(_short(metric))}</th>"
        for metric, *_ in metrics
    )
    rows = []
    for run, name in zip(runs, short_names(runs), strict=True):
        own = [f"<td>{_link(folder, run, name)}</td>"]
        own += [f"<td>{escape(value_of(run, key))}</td>" for key in keys]
        own.append(f"<td>{chip(run.verdict or 'none')}</td>")
        if run.missing:
            own.append(f"<td colspan='{len(metrics)}'>no result: {escape(run.missing)}</td>")
        else:
            numbers = [(run.metrics.get(metric), run.metrics.get(f"{metric}_se")) for metric, *_ in metrics]
            own += [f"<td class='number'>{escape(with_error(*each))}</td>" for each in numbers]
        rows.append(f"<tr>{''.join(own)}</tr>")
    table = f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<div class='scroll'>{table}</div><p class='note'>± one standard error</p>"


def _short(metric: str) -> str:
    return metric.split("/")[-1].replace("_", " ")


def _link(folder: Path, run: Run, name: str) -> str:
    page = run.folder / "report.html"
    if not page.is_file():
        return escape(name)
    return f"<a href='{quote(Path(os.path.relpath(page, folder)).as_posix())}'>{escape(name)}</a>"


def _reasons(runs: Sequence[Run], design: Design) -> str:
    items = []
    for run, name in zip(runs, design.names, strict=True):
        if run.reasons:
            lines = "".join(f"<li>{escape(reason)}</li>" for reason in run.reasons)
            title = f"{label_of(design.keys[0])} {name}" if len(design.keys) == 1 else name
            items.append(f"<h3>{escape(title)} {chip(run.verdict or 'none')}</h3><ul>{lines}</ul>")
    return "".join(items)


def _files(folder: Path) -> str:
    items = []
    for path in sorted((folder / "tables").glob("*.csv")):
        size = len(pd.read_csv(path))
        link = f"<a href='{quote(f'tables/{path.name}')}'>{escape(path.name)}</a>"
        items.append(f"<li>{link}, {number(size)} rows</li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""


@dataclass(frozen=True)
class Finding:
    """Numbers, tables and pictures about all runs together.

    Attributes:
        result: numbers, tables, figures, animations.
        captions: figure or animation -> what it shows, in the order of the page; a figure without one is not on it.
        notes: what must be said before all.
    """

    result: Result = field(default_factory=Result)
    captions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def joined(findings: Sequence[Finding]) -> Result:
    """Return all results as one."""
    found = Result()
    for each in findings:
        for kind in ("metrics", "tables", "figures", "animations"):
            getattr(found, kind).update(getattr(each.result, kind))
    return found


def pictured(findings: Sequence[Finding]) -> dict[str, str]:
    """Return file -> caption of all that the page shows, in its order."""
    return {
        f"{name}.{'gif' if name in each.result.animations else 'png'}": text
        for each in findings
        for name, text in each.captions.items()
    }
