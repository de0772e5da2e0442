"""Free by-products of the same trace: learning coefficient, WAIC, singular fluctuation."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import logsumexp

from losskernel.analyses.probe_sheets import probe_table
from losskernel.analyses.result import MetricPanel, Result
from losskernel.figures.shared.style import INK
from losskernel.kernel import LossKernel, batch_means
from losskernel.traces.loss_traces import LossTraces


@dataclass(frozen=True)
class Complexity:
    """Quantities of singular learning theory, with errors by batch means.

    llc = nbeta · (E[L_n] - L_n(w*)), E over minibatch losses along the chains (arXiv 2308.12108).
    singular_fluctuation = nbeta / 2 · mean over probes of Var l(z): Watanabe's (β/2) Σ Var over the training
    set, with nbeta = n β and the probes in place of the training set.
    waic = -mean log E[exp(-l(z))] + nbeta / n · mean Var l(z), in loss units, where losses are negative log
    likelihoods. gain = mean over probes of E[l(z)] - l(z; w*).
    """

    headline: ClassVar[dict[str, str]] = {
        "llc": "learning coefficient (LLC)",
    }
    panel: ClassVar[tuple[MetricPanel, ...]] = (MetricPanel("learning coefficient (LLC)", (("llc", "", INK),)),)
    meanings: ClassVar[dict[str, str]] = {
        "llc": "local learning coefficient nbeta (E L - L(w*)); half the number of weights in a regular model",
        "singular_fluctuation": "nbeta / 2 times the mean variance of a probe's loss; 0 or more",
        "waic": "widely applicable information criterion over the probes; in units of the loss, lower is better",
        "gain": "mean over probes of E l less l at the trained weights; in units of the loss",
    }

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return the numbers that the trace's records allow, and a table per probe."""
        losses = traces.losses.values.astype(np.float64)  # [C, D, N]
        meta = traces.meta
        nbeta = meta.get("identity", {}).get("sampler", {}).get("nbeta")
        metrics: dict[str, float] = {}
        train, start = traces.record("train_loss"), meta.get("start_train_loss", {}).get("value")
        if nbeta is not None and train is not None and start is not None:
            metrics |= batch_means("llc", nbeta * (train - start))
        if nbeta is not None:
            draws = losses.shape[1]
            deviation = np.square(losses - losses.mean(axis=1, keepdims=True))  # [C, D, N]
            variance = deviation.mean(2) * draws / (draws - 1)  # [C, D], whose mean is the variance
            metrics |= batch_means("singular_fluctuation", nbeta / 2 * variance)
            metrics |= batch_means("waic", _bayes(losses) + nbeta / meta["train_size"] * variance)
        table = probe_table(kernel, self_coupling=kernel.variance())
        table["mean_loss"] = losses.mean((0, 1))
        at_start = traces.record("start_losses")  # [N]
        if at_start is not None:
            gain = losses - at_start  # [C, D, N]
            table["loss"], table["gain"] = at_start, gain.mean((0, 1))
            metrics |= batch_means("gain", gain.mean(2))
        return Result(metrics, {"probes": table})


def _bayes(losses: np.ndarray) -> np.ndarray:
    """Return a series [C, D] with the mean of -log E[exp(-l)] over probes, and the scatter of its estimate."""
    log_mean = logsumexp(-losses, axis=1, keepdims=True) - np.log(losses.shape[1])  # [C, 1, N]
    # To first order a draw moves the logarithm by its own share in the mean.
    return -(log_mean + np.exp(-losses - log_mean) - 1).mean(2)
