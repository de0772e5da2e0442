"""Free by-products of the same trace: learning coefficient, WAIC, singular fluctuation."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from losskernel.analyses.result import Result
from losskernel.kernel import LossKernel
from losskernel.traces import LossTraces


@dataclass(frozen=True)
class Complexity:
    """Quantities of singular learning theory, with standard errors over chains.

    llc = nbeta · (E[L_n] - L_n(w*)), E over minibatch losses along the chains (arXiv 2308.12108).
    singular_fluctuation = nbeta / 2 · mean over probes of Var l(z): Watanabe's (β/2) Σ Var over the training
    set, with nbeta = n β and the probes standing for the training set.
    waic = -mean log E[exp(-l(z))] + nbeta / n · mean Var l(z), in loss units, where losses are negative log
    likelihoods. gain = mean over probes of E[l(z)] - l(z; w*).
    """

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return the numbers that the trace's records allow, and a table per probe."""
        losses = traces.losses.values.astype(np.float64)
        meta = traces.meta
        nbeta = meta.get("identity", {}).get("sampler", {}).get("nbeta")
        metrics: dict[str, float] = {}
        train, start = traces.record("train_loss"), meta.get("start_train_loss", {}).get("value")
        if nbeta is not None and train is not None and start is not None:
            metrics |= _over_chains("llc", nbeta * (train.mean(1) - start))
        variance = losses.var(axis=1, ddof=1).mean(1)  # [C]
        if nbeta is not None:
            metrics |= _over_chains("singular_fluctuation", nbeta / 2 * variance)
            train_size = meta["train_size"]
            bayes = -(logsumexp(-losses, axis=1) - np.log(losses.shape[1])).mean(1)  # [C]
            metrics |= _over_chains("waic", bayes + nbeta / train_size * variance)
        table = pd.DataFrame({"id": kernel.ids, **kernel.labels, "self_coupling": kernel.variance()})
        table["mean_loss"] = losses.mean((0, 1))
        at_start = traces.record("start_losses")
        if at_start is not None:
            gain = losses.mean(1) - at_start  # [C, N]
            table["loss"], table["gain"] = at_start, gain.mean(0)
            metrics |= _over_chains("gain", gain.mean(1))
        return Result(metrics, {"probes": table})


def _over_chains(name: str, values: np.ndarray) -> dict[str, float]:
    """Return the mean over chains and, with two chains or more, its standard error."""
    result = {name: float(values.mean())}
    if len(values) >= 2:
        result[f"{name}_se"] = float(values.std(ddof=1) / np.sqrt(len(values)))
    return result
