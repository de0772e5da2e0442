"""What an analysis returns."""

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import pandas as pd

from losskernel.kernel.loss_kernel import LossKernel
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


class Analysis(Protocol):
    """A question asked of a kernel and the traces it came from.

    One with a true class attribute `controlled` is asked of the companion at nbeta = 0 as well. One with a method
    `check(labels)` is shown the probes' labels, name -> [N], before compute, and raises InputError if they do not suit.
    One with a class attribute `meanings` has them shown with its metrics: see `meaning_of`.
    """

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Answer it."""
        ...


class PointAnalysis(Protocol):
    """A question asked of points: layers, labels and kernels in one space.

    It has a true class attribute `of_points`, by which it is told from the others. One with a class attribute `needs`
    cannot do without points of these kinds; sources say in `gives` of which kinds theirs are. One with a method
    `check(labels)` is shown the probes' labels, as an Analysis is; its `meanings` are shown likewise.
    """

    of_points: ClassVar[bool] = True

    def __call__(self, points: PointSet) -> Result:
        """Answer it."""
        ...


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
        if found := re.fullmatch("(.+)".join(map(re.escape, fixed)), metric):
            for part, text in zip(parts, found.groups(), strict=True):
                sentence = sentence.replace(f"{{{part}}}", text)
            return sentence
    return ""
