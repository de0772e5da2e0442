"""May the kernel be trusted? Mixing, drift, effective draws; the chains' loss traces."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.result import MetricPanel, Result
from losskernel.figures.shared.style import INK
from losskernel.kernel import LossKernel, batch_means, replicate_mean
from losskernel.kernel.diagnosis import statistics as diagnostics
from losskernel.kernel.diagnosis.diagnose import diagnose
from losskernel.traces.loss_traces import LossTraces


@dataclass(frozen=True)
class Convergence:
    """R-hat and effective draws (ArviZ), drift share, relaxation time, distance from w*, per chain and in all."""

    headline: ClassVar[dict[str, str]] = {
        "rhat": "worst R-hat",
        "ess_kernel": "least effective draws",
    }
    # Vehtari et al. 2021 ask for R-hat < 1.01 and 400 effective draws; 1.05 and 100 are the least that one can use.
    # R-hat - 1 is drawn, on a logarithmic axis: 1.01 and 3 are then both legible.
    panel: ClassVar[tuple[MetricPanel, ...]] = (
        MetricPanel("worst R-hat − 1", (("rhat", "", INK),), thresholds=((0.01, "warn"), (0.05, "fail")), above=1.0),
        MetricPanel("least effective draws", (("ess_kernel", "", INK),), thresholds=((400.0, "warn"), (100.0, "fail"))),
    )
    meanings: ClassVar[dict[str, str]] = {
        "chains": "independent chains; a count",
        "draws": "draws of each chain; a count",
        "first_twin": "number of a chain that takes the same steps as second_twin",
        "second_twin": "number of a chain that takes the same steps as first_twin",
        "constant_probes": "share of the probes whose loss never changes; 0 to 1",
        "twin_chains": "1 where two chains are one and the same, else 0",
        "dead_chain": "variance of the stillest chain against the median chain's; 0 to 1, near 0 it hardly moves",
        "stillest_chain": "number of the chain with the least variance",
        "chain_correlation": "mean correlation of different chains' steps at the same draw; 0 for independent chains",
        "chain_correlation_score": "chain_correlation in standard errors from that of independent chains",
        "rhat": "largest R-hat of the mean loss and three leading directions of the kernel; 1 where chains agree",
        "rhat_good": "R-hat up to which chains pass, as chance alone may reach it; 1.01 to 1.05",
        "rhat_entries": "R-hat that a tenth of some losses and entries of the kernel exceed; 1 where chains agree",
        "rhat_distance": "R-hat of the distance from w*; 1 where the weights do not drift",
        "ess": "effective draws of the mean loss, all chains together",
        "ess_tail": "effective draws of the 5 and 95 % quantiles of the mean loss, all chains together",
        "ess_kernel": "least effective draws of three leading directions and some entries of the kernel",
        "tail_index": "median Pareto index of the kernel's entries' tails; from 1/2 no variance, from 1 no mean",
        "split_agreement": "correlation of R from halves of the chains; -1 to 1, near 0 is noise or no structure",
        "trend_share": "share of the losses' variance on a straight line in the draws; 0 to 1, near 1 is a drift",
        "shared_mode_share": "share of the covariance that all probes moving together carry; 0 to 1",
        "heavy_share": "share of the covariance that the heaviest hundredth of the draws carries; 0 to 1",
        "transient": "how far the first draws lie from the rest, in the scatter of equal stretches; 0 or more",
        "relaxation_steps": "steps in which a direction without curvature forgets its start",
        "relaxations_burn_in": "length of the burn-in in relaxation_steps",
        "relaxations_sampled": "length of each chain's sampling in relaxation_steps",
        "curvature": "largest curvature of nbeta L + localization/2 |w - w*|² at the end, in the sampler's coordinates",
        "stiffness": "curvature times step_size; plain Langevin steps are unstable from 4 on",
        "step_inflation": "factor by which the steps enlarge the variance in the steepest direction; 1 for small steps",
        "acceptance": "mean probability with which a Metropolis test would accept a step; 0 to 1, median over chains",
        "noise_to_gradient": "how far noise moves the weights in a step against the loss; above 1 noise prevails",
        "excess_loss": "nbeta (E L - L(w*)) against half the moving weights; above 1 the chains left the basin",
        "precision_error": "root mean square error of R's entries by rounding losses to a lower precision; 0 or more",
        "distance": "mean distance of the weights from w*, |w - w*|",
    }

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return the diagnosis' numbers, a table of chains, and the loss traces."""
        mean_loss = traces.losses.values.mean(axis=2, dtype=np.float64)  # [C, D]
        schedule = traces.meta.get("identity", {}).get("schedule", {})
        distance = traces.record("distance")  # [C, D]
        table = pd.DataFrame(
            {
                "chain": np.arange(len(mean_loss)),
                "mean_loss": mean_loss.mean(1),
                "sd_loss": mean_loss.std(1, ddof=1),
                "ess": [diagnostics.ess(chain[None]) for chain in mean_loss],
                "trend_share": [diagnostics.trend_share(chain[None]) for chain in traces.losses.values],
            }
        )
        if distance is not None:
            table["mean_distance"] = distance.mean(1)
        train_loss = traces.record("train_loss")  # [C, D], over minibatches
        figure = figures.loss_traces(
            mean_loss if train_loss is None else train_loss,
            traces.record("burn_in_loss"),
            schedule.get("thinning", 1),
            schedule.get("burn_in", 0),
            traces.meta.get("start_train_loss", {}).get("value"),
            distance,
            "mean probe loss" if train_loss is None else "training loss (minibatches)",
        )
        diagnosis = diagnose(traces)
        metrics = dict(diagnosis.metrics)  # the caller's object stays as it is
        if distance is not None:
            metrics |= batch_means("distance", distance)
        # Measured once per chain: their errors are over chains, not over draws.
        for name in ("curvature", "acceptance", "step_inflation"):
            values = traces.record(name)
            metrics |= {} if values is None else replicate_mean(name, values, metrics[name])
        return Result(metrics, {"chains": table, "screens": pd.DataFrame(diagnosis.screens)}, {"loss_traces": figure})
