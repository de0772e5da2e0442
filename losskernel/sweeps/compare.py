"""compare(): many runs side by side: metrics against the swept values, similarity of kernels, the stable region."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from losskernel import figures
from losskernel.analyses.result import MetricPanel, Result
from losskernel.errors import InputError, require, require_number
from losskernel.figures import Figure
from losskernel.figures.shared.lettering import plain
from losskernel.geometry import classical_scaling
from losskernel.runs.folder import RunFolder
from losskernel.runs.tracking.tracker import Tracker
from losskernel.storage.locations import guard
from losskernel.sweeps import captions as words
from losskernel.sweeps.comparison_page import Finding, captions_by_file, merged, write_comparison
from losskernel.sweeps.design import Design, lay_out, repeated_over
from losskernel.sweeps.metric_panels import curves_of, panels_for, verdict_rows
from losskernel.sweeps.network_paths import whole_paths
from losskernel.sweeps.read_runs import UNSAMPLED, Run, read_run, short_names
from losskernel.sweeps.similarity import Similarity, Stretch, all_tables, measure, paths, stable_stretch
from losskernel.traces.compatibility import shortened

ALIKE = 0.8


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        runs: all of them, also those without result.
        design: what was varied, and how it is drawn.
        panels: the metrics drawn.
        similarity: distances between kernels; None where they are not compared.
        unlike: why they cannot be compared; "" where they can.
        stable: the stable stretch of every curve, or None.
        alike: CKA from which two kernels count as alike.
        folder: of page, figures and tables.
    """

    runs: list[Run]
    design: Design
    panels: list[MetricPanel]
    similarity: Similarity | None
    unlike: str
    stable: list[Stretch | None]
    alike: float
    folder: Path

    def summary(self) -> dict[str, Any]:
        """Return the summarising numbers."""
        counts = {f"runs_{verdict}": count for verdict, count in words.counts(self.runs).items()}
        result: dict[str, Any] = {"runs": len(self.runs), **counts}
        for name, stretch in zip(self.design.curves, self.stable, strict=True):
            if stretch is not None:
                prefix, ticks = f"stable/{name}/" if name else "stable/", self.design.axis.names
                result |= {f"{prefix}from": float(ticks[stretch.first]), f"{prefix}to": float(ticks[stretch.last])}
                result[f"{prefix}cka"] = stretch.cka
        if self.similarity is not None and self.design.axis.values is not None:
            for name, path in paths(self.runs, self.design, self.similarity).items():
                steps = [self.similarity.distances[pair] for pair in pairwise(path)]
                result[f"path/{name}/length" if name else "path/length"] = float(sum(steps))
        return result

    def notes(self) -> list[str]:
        """Return the sentences for the top of the page; some are empty."""
        names = short_names(self.runs)
        left_out = self.similarity.left_out if self.similarity else {}
        return [
            words.stable_words(self.runs, self.design, self.similarity, self.stable),
            words.like_control(self.runs, self.design, self.similarity) if self.similarity else "",
            self.unlike,
            words.different_settings(self.runs, self.panels),
            *shortened([f"run {names[run]} is not among the kernels: {why}" for run, why in left_out.items()]),
        ]

    def overview(self) -> str:
        """Return the table for the terminal, the notes, and the path of the page."""
        lines = words.overview(self.runs, self.design, self.panels)
        notes = [f"  - {note}" for note in self.notes() if note]
        return "\n".join([*lines, *notes, f"  report.html   {self.folder / 'report.html'}"])


def compare(
    folders: Sequence[str | Path | Run],
    out: str | Path,
    *,
    metrics: Sequence[str] | str | None = None,
    alike: float = ALIKE,
    tracker: Tracker | None = None,
    title: str | None = None,
) -> Comparison:
    """Compare runs, and leave report.html, figures and tables in a folder.

    Kernels over different probes are not compared with each other; the page then says so and shows the rest.

    Args:
        folders: run folders, see find_runs, or runs that were read.
        out: where to write, such as the sweep's folder.
        metrics: what to draw, such as separation/ari; None for the usual ones that the runs have.
        alike: CKA from which two kernels count as alike, for the stable region.
        tracker: where else to record.
        title: of the page; None for the runs' common name.

    Raises:
        InputError: fewer than two runs have a result, or a metric is not there.
        TraceError: a run's files are damaged, or `out` cannot be written.
    """
    runs = [run if isinstance(run, Run) else read_run(Path(run)) for run in folders]
    return compare_runs(
        runs,
        out,
        lambda: panels_for(runs, metrics),
        title=title or _title(runs),
        questions=[lambda comparison: whole_paths(comparison.runs, comparison.design)],
        alike=alike,
        tracker=tracker,
    )


def compare_runs(
    runs: list[Run],
    out: str | Path,
    panels: Callable[[], list[MetricPanel]],
    *,
    title: str,
    name: str = "comparison",
    questions: Sequence[Callable[[Comparison], Finding]] = (),
    alike: float = ALIKE,
    tracker: Tracker | None = None,
) -> Comparison:
    """Compare runs that were read, as compare() does, and answer further questions about them.

    Args:
        runs: their configurations hold what differs between them.
        out, title, alike, tracker: as there.
        panels: -> the metrics to draw, called once there are known to be enough runs.
        name: `<name>.json` holds the numbers.
        questions: comparison -> answer; answers come first on the page.

    Raises:
        InputError, TraceError: as there.
    """
    require_number("alike", alike, at_least=0)
    require(alike <= 1, f"alike must be <= 1, got {alike}; it is a CKA, such as 0.8")
    comparison = _compared(runs, panels, alike, Path(out))
    findings = [*(question(comparison) for question in questions), _usual_finding(comparison)]
    _record(comparison, findings, tracker or Tracker(), title, name)
    return comparison


def _compared(runs: list[Run], panels: Callable[[], list[MetricPanel]], alike: float, folder: Path) -> Comparison:
    finished = [run for run in runs if not run.missing]
    if len(finished) < 2:
        why = "; ".join(f"run {run.folder.name}: {run.missing}" for run in runs if run.missing)
        raise InputError(f"{len(finished)} finished run: a comparison needs 2" + (f" ({why})" if why else ""))
    design, drawn, similarity, unlike = lay_out(runs), panels(), None, ""
    try:
        similarity = measure(runs) if any(run.verdict != UNSAMPLED for run in finished) else None
    except InputError as error:  # other probes, or too few kernels: the metrics are compared all the same
        unlike = str(error)
    curves = range(len(design.curves))
    stable = [None if similarity is None else stable_stretch(runs, design, similarity, c, alike) for c in curves]
    return Comparison(runs, design, drawn, similarity, unlike, stable, alike, folder)


def _record(comparison: Comparison, findings: Sequence[Finding], tracker: Tracker, title: str, name: str) -> None:
    """Write all files, then record them: the page must not depend on a network, and a tracker is always closed."""
    files, result = RunFolder(comparison.folder), merged(findings)
    files.prepare()
    pictures = files.write_result(result)
    numbers = comparison.summary() | result.metrics
    files.write_json(f"{name}.json", numbers)
    captions, notes = captions_by_file(findings), [note for finding in findings for note in finding.notes]
    runs, design, panels = comparison.runs, comparison.design, comparison.panels
    page = files.path / "report.html"
    guard(page, lambda: write_comparison(files.path, title, runs, design, panels, captions, notes))
    state = "failed"
    try:
        tracker.start(_config(comparison))
        tracker.show(pictures, result.tables, {})
        tracker.summarise(numbers)
        state = "finished"
    finally:
        tracker.finish(state)


def _usual_finding(comparison: Comparison) -> Finding:
    """Return the tables, figures, captions and notes of every comparison."""
    design, runs, similarity = comparison.design, comparison.runs, comparison.similarity
    bars = f"range over {repeated_over(runs)}" if design.repeated else "90 % interval"
    curves, verdicts = curves_of(comparison.panels, runs, design), verdict_rows(runs, design, comparison.stable)
    drawn = {"comparison": figures.comparison(curves, design.axis, verdicts, bars)}
    rule = words.stable_rule(design, comparison.alike)
    captions = {"comparison": words.caption_of_metrics(runs, design, comparison.panels, rule)}
    if similarity is not None:
        drawn["kernel_similarity"] = _similarity_figure(runs, design, similarity)
        captions["kernel_similarity"] = words.caption_of_similarity(design, similarity)
    tables = all_tables(runs, design, comparison.stable, similarity)
    return Finding(Result({}, tables, drawn), captions, comparison.notes())


def _similarity_figure(runs: Sequence[Run], design: Design, similarity: Similarity) -> Figure:
    layout, lines = classical_scaling(similarity.distances), paths(runs, design, similarity)
    kernels = figures.Kernels(
        similarity.distances,
        similarity.floor(),
        similarity.to_control,
        layout.coordinates,
        layout.stress,
        [_printed(design, run) for run in similarity.members],
        [runs[run].verdict or "none" for run in similarity.members],
        [design.index[run] for run in similarity.members],
        list(lines.values()),
        list(lines),
    )
    return figures.kernel_similarity(kernels, design.axis)


def _title(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(str(run.config["name"]) for run in runs if run.config.get("name")))
    return f"{names[0]}: comparison of {len(runs)} runs" if len(names) == 1 else f"Comparison of {len(runs)} runs"


def _printed(design: Design, run: int) -> str:
    """Return a run's name as the figures print it."""
    index = design.index[run]
    alone = len(design.keys) == 1 and len(set(design.names)) == len(design.names)
    return design.axis.printed()[index] if alone and index is not None else plain(design.names[run])


def _config(comparison: Comparison) -> dict[str, Any]:
    """Return the swept values, as the configuration of the tracker's record."""
    swept: dict[str, list[Any]] = {key: [] for key in comparison.design.keys}
    for key, values in swept.items():
        for run in comparison.runs:
            if run.config.get(key) not in values:  # values may be lists, which no set can hold
                values.append(run.config.get(key))
    return {"swept": swept, "runs": [str(run.folder) for run in comparison.runs], "alike": comparison.alike}
