"""Which metrics are drawn for kernels around one run: those of a comparison, and what only one network's jobs share."""

from collections.abc import Sequence

from losskernel.figures.shared.style import INK, OKABE_ITO
from losskernel.sweeps.metric_panels import SPECS, Spec, specs_for
from losskernel.sweeps.read_runs import Run

_WITHIN, _ACROSS = OKABE_ITO[3], OKABE_ITO[0]
_LOSSES = (("trace/start_loss", "at w*", INK), ("trace/mean_loss", "sampled", OKABE_ITO[2]))
_COUPLINGS = (("separation/coupling_within", "within", _WITHIN), ("separation/coupling_across", "across", _ACROSS))
_SCORES = (
    ("memorisation/auroc_self_coupling", "K(z, z)", INK),
    ("memorisation/auroc_opposition", "opposition", OKABE_ITO[0]),
    ("memorisation/auroc_loss", "loss", OKABE_ITO[3]),
)
# What says whether to believe a kernel comes last, as on the page of a comparison.
_AROUND = (
    Spec("probe loss", _LOSSES),
    Spec("coupling R²", _COUPLINGS),
    Spec("mean self-coupling K(z, z)", (("trace/self_coupling", "", INK),)),
    *SPECS[:-2],
    Spec("AUROC", _SCORES, bounds=(0.0, 1.0)),
    *SPECS[-2:],
)


def specs_around(runs: Sequence[Run], asked: Sequence[str] | str | None) -> list[Spec]:
    """Return the panels to draw: those of the asked metrics, or of the usual ones that some job has.

    Raises:
        InputError: no job has a metric that was asked for.
    """
    if asked is not None:
        return specs_for(runs, asked)
    there = {name for run in runs for name in run.metrics}
    return [spec for spec in _AROUND if any(metric in there for metric, _, _ in spec.metrics)]
