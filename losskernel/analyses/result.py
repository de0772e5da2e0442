"""What an analysis returns."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd

from losskernel.kernel import LossKernel
from losskernel.traces import LossTraces


@dataclass(frozen=True)
class Result:
    """Answers of one analysis.

    Attributes:
        metrics: name -> number; the standard error of `x` is `x_se`.
        tables: name -> table.
        figures: name -> matplotlib figure.
        pages: name -> standalone HTML.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)


class Analysis(Protocol):
    """A question asked of a kernel and the traces it came from."""

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Answer it."""
        ...
