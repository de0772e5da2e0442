"""How many directions carry the kernel? Eigenvalues, effective rank, leading modes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.probe_sheets import probe_table
from losskernel.analyses.result import MetricPanel, Result, left_out
from losskernel.errors import require, require_integer
from losskernel.figures.shared.style import INK
from losskernel.kernel import LossKernel, Matrices, bootstrap
from losskernel.kernel.diagnosis import statistics as diagnostics
from losskernel.traces.loss_traces import LossTraces

# The error of a rank takes dozens of eigenvalue problems of this size.
_PROBES_FOR_ERRORS = 500


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of R (and the effective rank of K), from the smaller of probe and draw space.

    Attributes:
        modes: leading eigenvectors to draw and tabulate, at most 6.
        group: label that orders the probes in the figure; None for the first label.
    """

    modes: int = 4
    group: str | None = None

    controlled: ClassVar[bool] = True
    headline: ClassVar[dict[str, str]] = {
        "effective_rank": "effective rank of R",
    }
    panel: ClassVar[tuple[MetricPanel, ...]] = (MetricPanel("effective rank of R", (("effective_rank", "", INK),)),)
    meanings: ClassVar[dict[str, str]] = {
        "effective_rank": "directions that carry R: participation ratio of its eigenvalues; 1 to the probes' number",
        "effective_rank_covariance": "directions that carry K: participation ratio of its eigenvalues; from 1",
        "leading_share": "share of R's trace in its largest eigenvalue; 0 to 1",
    }

    def __post_init__(self) -> None:
        require_integer("analysis.spectrum.modes", self.modes, at_least=1)
        require(self.modes <= 6, f"analysis.spectrum.modes must be <= 6 to be drawn, got {self.modes}; lower it")

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return effective ranks, a table of eigenvalues and one of modes, and the figure."""
        if kernel.constant.all():
            return left_out("spectrum", "no loss ever changes")
        values, modes = diagnostics.leading_modes(kernel.standardised(), self.modes)  # [min(N, C D)], [modes, N]
        covariance_values, _ = diagnostics.leading_modes(kernel.features(), 1)
        rank = diagnostics.effective_rank(values)
        groups = kernel.label(self.group) if self.group else next(iter(kernel.labels.values()), None)
        group_name = self.group or next(iter(kernel.labels), "group")
        metrics = _with_errors(_numbers(values, covariance_values), kernel)
        eigenvalues = pd.DataFrame(
            {"rank": np.arange(1, len(values) + 1), "eigenvalue": values, "share": values / max(values.sum(), 1e-300)}
        )
        table = probe_table(kernel, **{f"mode_{number}": mode for number, mode in enumerate(modes, 1)})
        figure = figures.spectrum(values, rank, modes, groups, group_name)
        return Result(metrics, {"eigenvalues": eigenvalues, "modes": table}, {"spectrum": figure})


def _numbers(correlation: np.ndarray, covariance: np.ndarray) -> dict[str, float]:
    """Return effective ranks and the leading share from the eigenvalues [N] of R and of K."""
    numbers = {"effective_rank": diagnostics.effective_rank(correlation)}
    numbers["effective_rank_covariance"] = diagnostics.effective_rank(covariance)
    total = correlation.sum()
    return numbers | {"leading_share": float(correlation.max() / total) if total > 0 else 0.0}


def _with_errors(exact: dict[str, float], kernel: LossKernel) -> dict[str, float]:
    """Return the numbers with errors, whose relative size is that of an even part of very many probes."""

    def ranks(part: Matrices) -> dict[str, float]:
        return _numbers(np.linalg.eigvalsh(part.correlation()), np.linalg.eigvalsh(part.covariance()))

    rough = bootstrap(kernel.evenly(_PROBES_FOR_ERRORS), ranks)
    metrics: dict[str, float] = {}
    for name, value in exact.items():
        scale = value / rough[name] if rough[name] else 1.0
        ends = [f"{name}{end}" for end in ("_se", "_low", "_high")]
        metrics |= {end: rough[end] * scale for end in ends if end in rough} | {name: value}
    return metrics
