"""compare(): many runs side by side: metrics against what was swept, similarity of the kernels, the stable region."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from losskernel import figures
from losskernel.analyses.result import MetricPanel, Result
from losskernel.errors import InputError, require, require_number
from losskernel.figures.shared.sweep_axis import plain
from losskernel.geometry import classical_scaling
from losskernel.runs.folder import RunFolder
from losskernel.runs.tracking.tracker import Tracker
from losskernel.storage.locations import guard
from losskernel.sweeps import captions as words
from losskernel.sweeps.design import Design, lay_out, repeated_over
from losskernel.sweeps.metric_panels import panels, panels_for, rows
from losskernel.sweeps.network_paths import whole_paths
from losskernel.sweeps.read_runs import UNSAMPLED, Run, read_run, short_names
from losskernel.sweeps.report import Finding, joined, pictured, write_comparison
from losskernel.sweeps.similarity import Similarity, Stretch, all_tables, measure, paths, stable_stretch
from losskernel.traces.compatibility import shortened

ALIKE = 0.8


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        runs: all of them, those without result too.
        design: what was varied, and how it is drawn.
        specs: the metrics drawn.
        similarity: distances between kernels; None where they cannot be compared.
        unlike: why not.
        stable: the stable stretch of every curve, or None.
        alike: CKA from which two kernels count as alike.
        folder: where page, figures and tables lie.
    """

    runs: list[Run]
    design: Design
    specs: list[MetricPanel]
    similarity: Similarity | None
    unlike: str
    stable: list[Stretch | None]
    alike: float
    folder: Path

    def summary(self) -> dict[str, Any]:
        """Return the numbers that sum it up."""
        found = {f"runs_{verdict}": count for verdict, count in words.counts(self.runs).items()}
        result: dict[str, Any] = {"runs": len(self.runs), **found}
        for name, own in zip(self.design.curves, self.stable, strict=True):
            if own is not None:
                at = f"stable/{name}/" if name else "stable/"
                ends = self.design.axis.names[own.first], self.design.axis.names[own.last]
                result |= {f"{at}from": float(ends[0]), f"{at}to": float(ends[1]), f"{at}cka": own.cka}
        if self.similarity is not None and self.design.axis.values is not None:
            for name, path in paths(self.runs, self.design, self.similarity).items():
                steps = [self.similarity.distances[pair] for pair in pairwise(path)]
                result[f"path/{name}/length" if name else "path/length"] = float(sum(steps))
        return result

    def notes(self) -> list[str]:
        """Return what must be said beside the figures."""
        names = short_names(self.runs)
        kept_out = self.similarity.left_out if self.similarity else {}
        return [
            words.stable_words(self.runs, self.design, self.similarity, self.stable),
            words.like_control(self.runs, self.design, self.similarity) if self.similarity else "",
            self.unlike,
            words.asked_differently(self.runs, self.specs),
            *shortened([f"run {names[run]} is not among the kernels: {why}" for run, why in kept_out.items()]),
        ]

    def overview(self) -> str:
        """Return the table for the terminal, and where the page is."""
        lines = words.overview(self.runs, self.design, self.specs)
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
        folders: run folders, see find_runs, or what was read of them.
        out: where to write; the sweep's own folder, say.
        metrics: what to draw, such as separation/ari; None for the usual ones that the runs have.
        alike: CKA from which two kernels count as alike, for the stable region.
        tracker: where else to record.
        title: of the page; None for the runs' common name.

    Raises:
        InputError: fewer than two runs have a result, or a metric is not there.
        TraceError: a run's files are damaged, or `out` cannot be written.
    """
    runs = [each if isinstance(each, Run) else read_run(Path(each)) for each in folders]
    return side_by_side(
        runs,
        out,
        lambda: panels_for(runs, metrics),
        title=title or _title(runs),
        questions=[lambda found: whole_paths(found.runs, found.design)],
        alike=alike,
        tracker=tracker,
    )


def side_by_side(
    runs: list[Run],
    out: str | Path,
    specs: Callable[[], list[MetricPanel]],
    *,
    title: str,
    name: str = "comparison",
    questions: Sequence[Callable[[Comparison], Finding]] = (),
    alike: float = ALIKE,
    tracker: Tracker | None = None,
) -> Comparison:
    """Compare runs that are read, as compare() does, and ask further questions of them.

    Args:
        runs: what differs between them stands in their configuration.
        out, title, alike, tracker: as there.
        specs: -> the metrics to draw, once it is known that there are enough runs.
        name: `<name>.json` holds the numbers.
        questions: what else to ask; what they find comes first on the page.

    Raises:
        InputError, TraceError: as there.
    """
    require_number("alike", alike, at_least=0)
    require(alike <= 1, f"alike must be <= 1, got {alike}; it is a CKA, such as 0.8")
    finished = [run for run in runs if not run.missing]
    if len(finished) < 2:
        why = "; ".join(f"run {run.folder.name}: {run.missing}" for run in runs if run.missing)
        raise InputError(f"{len(finished)} finished run: a comparison needs 2" + (f" ({why})" if why else ""))
    design, drawn = lay_out(runs), specs()
    similarity, unlike = None, ""
    try:
        similarity = measure(runs) if any(run.verdict != UNSAMPLED for run in finished) else None
    except InputError as error:
        unlike = str(error)
    stable = [
        None if similarity is None else stable_stretch(runs, design, similarity, curve, alike)
        for curve in range(len(design.curves))
    ]
    found = Comparison(runs, design, drawn, similarity, unlike, stable, alike, Path(out))
    pictures, captions = _figures(found)
    usual = Finding(Result({}, all_tables(runs, design, stable, similarity), pictures), captions, found.notes())
    findings = [*(ask(found) for ask in questions), usual]
    _record(found, findings, RunFolder(out), tracker or Tracker(), title, name)
    return found


def _record(
    found: Comparison, findings: Sequence[Finding], files: RunFolder, tracker: Tracker, title: str, name: str
) -> None:
    """Write everything, then log it: the page must not depend on a network; an open record is always closed."""
    files.prepare()
    result = joined(findings)
    pictures = files.write_result(result)
    numbers = found.summary() | result.metrics
    files.write_json(f"{name}.json", numbers)
    captions, notes = pictured(findings), [note for each in findings for note in each.notes]
    guard(
        files.path / "report.html",
        lambda: write_comparison(files.path, title, found.runs, found.design, found.specs, captions, notes),
    )
    state = "failed"
    try:
        tracker.start(_config(found))
        tracker.show(pictures, result.tables, {})
        tracker.summarise(numbers)
        state = "finished"
    finally:
        tracker.finish(state)


def _figures(found: Comparison) -> tuple[dict[str, Figure], dict[str, str]]:
    """Return the figures, and their captions."""
    design, runs = found.design, found.runs
    seeds = any(len(design.at(c, p)) > 1 for c in range(len(design.curves)) for p in range(len(design.axis.names)))
    drawn = {
        "comparison": figures.comparison(
            panels(found.specs, runs, design),
            design.axis,
            rows(runs, design, found.stable),
            f"range over {repeated_over(runs)}" if seeds else "90 % interval",
        )
    }
    rule = words.stable_rule(design, found.alike)
    captions = {"comparison": words.caption_of_metrics(runs, design, found.specs, rule)}
    if found.similarity is not None:
        near = found.similarity
        layout = classical_scaling(near.distances)
        along = paths(runs, design, near)
        kernels = figures.Kernels(
            near.distances,
            near.floor(),
            near.to_control,
            layout.coordinates,
            layout.stress,
            [_printed(design, run) for run in near.members],
            [runs[run].verdict or "none" for run in near.members],
            [design.index[run] for run in near.members],
            list(along.values()),
            list(along),
        )
        drawn["kernel_similarity"] = figures.kernel_similarity(kernels, design.axis)
        captions["kernel_similarity"] = words.caption_of_similarity(design, near)
    return drawn, captions


def _title(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(str(run.config["name"]) for run in runs if run.config.get("name")))
    return f"{names[0]}: comparison of {len(runs)} runs" if len(names) == 1 else f"Comparison of {len(runs)} runs"


def _printed(design: Design, run: int) -> str:
    """Return a run's name as the figures print it."""
    place = design.index[run]
    alone = len(design.keys) == 1 and len(set(design.names)) == len(design.names)
    return design.axis.printed()[place] if alone and place is not None else plain(design.names[run])


def _config(found: Comparison) -> dict[str, Any]:
    """Return what was swept, for the record's configuration."""
    values = {key: [run.config.get(key) for run in found.runs] for key in found.design.keys}
    swept = {key: [value for i, value in enumerate(own) if value not in own[:i]] for key, own in values.items()}
    return {"swept": swept, "runs": [str(run.folder) for run in found.runs], "alike": found.alike}
