"""What an analysis returns."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import pandas as pd

from losskernel.errors import require, require_integer
from losskernel.kernel import LossKernel
from losskernel.representations.points import PointSet
from losskernel.traces.loss_traces import LossTraces


@dataclass(frozen=True)
class Result:
    """Answers of one analysis.

    Attributes:
        metrics: name -> number; `x_se` is the standard error of `x`, `x_low` to `x_high` its 90 % interval.
        tables: name -> table.
        figures: name -> matplotlib figure.
        pages: name -> standalone HTML.
        animations: name -> animated GIF.
        captions: figure -> what its reader must know, for the page.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    animations: dict[str, bytes] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)


def left_out(analysis: str, reason: str, metrics: Mapping[str, float] | None = None) -> Result:
    """Return the answer of an analysis whose question the data cannot answer, and log why.

    For analyses of the default run, which must not fail because data are very small or a chain stood still.
    """
    logging.getLogger(__name__).warning("analysis.%s: %s; nothing is computed", analysis, reason)
    return Result(dict(metrics or {}))


@dataclass(frozen=True)
class MetricPanel:
    """One panel of the figure that draws metrics of several runs against what differs between them.

    Attributes:
        title: of the panel.
        curves: (metric, name in the panel's legend, colour) of each curve.
        floor: metric that noise alone gives, or None.
        thresholds: (value, verdict from there on).
        bounds: ends of the axis where they are known.
        above: what is subtracted before drawing, on a logarithmic axis.
        one_network: whether it is drawn only where all runs share one network.
    """

    title: str
    curves: tuple[tuple[str, str, str], ...]
    floor: str | None = None
    thresholds: tuple[tuple[float, str], ...] = ()
    bounds: tuple[float, float] | None = None
    above: float | None = None
    one_network: bool = False


@dataclass(frozen=True)
class Presentation:
    """How an analysis wants its metrics shown; metrics have the analysis' name before them: `separation/ari`.

    Attributes:
        headline: metric -> words, the rows of the summary that a run ends with; `control/separation/ari` is the control
            run's, `{label}` stands for the label that the run looks at.
        panels: drawn where runs are compared.
        objective: metric that a run returns to a sweeper; "" for none.
    """

    headline: dict[str, str] = field(default_factory=dict)
    panels: tuple[MetricPanel, ...] = ()
    objective: str = ""

    @classmethod
    def of(cls, name: str, analysis: object) -> "Presentation":
        """Return that of an analysis from its class attributes, in which metrics have no name before them."""

        def full(metric: str) -> str:
            of_control = metric.startswith("control/")
            return f"control/{name}/{metric.removeprefix('control/')}" if of_control else f"{name}/{metric}"

        def renamed(panel: MetricPanel) -> MetricPanel:
            curves = tuple((full(metric), *rest) for metric, *rest in panel.curves)
            return replace(panel, curves=curves, floor=None if panel.floor is None else full(panel.floor))

        headline = {full(metric): words for metric, words in getattr(analysis, "headline", {}).items()}
        panels, objective = getattr(analysis, "panel", ()), getattr(analysis, "objective", "")
        return cls(headline, tuple(map(renamed, panels)), full(objective) if objective else "")

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Presentation":
        """Return one that was stored as JSON by `dataclasses.asdict`, with tuples for its lists."""
        panels = ({key: _tuples(value) for key, value in panel.items()} for panel in stored["panels"])
        return cls(dict(stored["headline"]), tuple(MetricPanel(**panel) for panel in panels), stored["objective"])


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class Analysis(Protocol):
    """A question asked of a kernel and the traces it came from.

    One with a true class attribute `controlled` is computed for the control run (nbeta = 0) as well. One with a method
    `check(labels)` is shown the probes' labels, name -> [N], before compute, and raises InputError if they do not suit.
    An analysis owns how its metrics are shown, by class attributes that may be missing: `meanings` (see `meaning_of`),
    and `headline`, `panel` and `objective` (see `Presentation`).
    """

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Answer it."""
        ...


class PointAnalysis(Protocol):
    """A question asked of points: layers, labels and kernels in one space.

    It has a true class attribute `of_points`, by which it is told from the others. One with a class attribute `needs`
    cannot do without points of these kinds; sources say in `gives` of which kinds theirs are. One with a method
    `check(labels)` is shown the probes' labels, as an Analysis is; `meanings`, `headline`, `panel`
    and `objective` are as there.
    """

    of_points: ClassVar[bool] = True

    def __call__(self, points: PointSet) -> Result:
        """Answer it."""
        ...


def check_settings(of: object, name: str, names: Iterable[str] = (), least: Mapping[str, int] | None = None) -> None:
    """Check settings of an analysis that conf calls `name`.

    Args:
        of: the analysis, with the settings as attributes.
        name: of its group of keys in conf.
        names: settings that are text.
        least: settings that are whole numbers, and the least value of each.

    Raises:
        InputError: one is neither.
    """
    for key in names:
        value = getattr(of, key)
        require(isinstance(value, str), f"analysis.{name}.{key} must be a name, got {value!r}")
    for key, lowest in (least or {}).items():
        require_integer(f"analysis.{name}.{key}", getattr(of, key), at_least=lowest)


def is_of_points(analysis: object) -> bool:
    """Whether an analysis is asked of points and not of a kernel."""
    return bool(getattr(analysis, "of_points", False))


def meaning_of(metric: str, analysis: object) -> str:
    """Return what a metric of an analysis means, one short sentence with its unit or range; "" where it does not say.

    Its `meanings` are metric -> sentence. `{part}` in a metric stands for any text, and for the same in the sentence. A
    metric that is there to the letter comes first, then the first that fits.
    """
    meanings: dict[str, str] = getattr(analysis, "meanings", {})
    if metric in meanings:
        return meanings[metric]
    for pattern, sentence in meanings.items():
        fixed, parts = (re.split(r"\{(\w+)\}", pattern)[first::2] for first in (0, 1))
        if match := re.fullmatch("(.+)".join(map(re.escape, fixed)), metric):
            for part, text in zip(parts, match.groups(), strict=True):
                sentence = sentence.replace(f"{{{part}}}", text)
            return sentence
    return ""
