"""How suspicious each probe is by its loss kernel: one number a probe, higher = more suspicious."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from losskernel.analyses.memorisation.neighbours_and_opponents import Surroundings, surroundings
from losskernel.errors import require, require_integer
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces


class Losses(NamedTuple):
    """What is known of each probe's own loss, each [N].

    Attributes:
        variance: K(z, z).
        total: sum over all probes z' of K(z, z').
        mean: over the draws.
        start: at the trained weights, or None.
    """

    variance: np.ndarray
    total: np.ndarray
    mean: np.ndarray
    start: np.ndarray | None


def kernel_scores(
    kernel: LossKernel, traces: LossTraces, given: np.ndarray | None, k: int = 10
) -> dict[str, np.ndarray]:
    """Return name -> [N], from one trace; higher = more suspicious.

    - self_coupling: K(z, z), nats² for a loss in nats.
    - mean_loss: E l.
    - loss_gain: E l - l(w*); left out where the trace does not hold the losses at the trained weights.
    - rival_class: best other class' mean R less the own class'; left out with fewer than two classes.
    - discordance: minus the correlation with the mean loss of all other probes.
    - isolation: distance sqrt(2 (1 - R)) to the k-th nearest probe.
    - opposition: mean -R of the k strongest opponents less mean R of the k nearest trusted probes, those of at most
      their class' median self-coupling. Above 0 the label is disputed: losses of samples whose label is wrong move
      against those of the class that they belong to.

    R is read in blocks, never N x N at once.

    Args:
        kernel: the loss kernel.
        traces: what it was built from.
        given: the label of each probe as given [N], or None.
        k: neighbours, opponents and friends; N - 1 where there are fewer.

    Raises:
        InputError: kernel, traces and labels are not of the same two probes or more, or k < 1.
    """
    return scores_of(losses_of(kernel, traces), surroundings_of(kernel, groups_of(kernel, given), k))


def losses_of(kernel: LossKernel, traces: LossTraces) -> Losses:
    """Return what a kernel and its traces say of each probe's own loss.

    Raises:
        InputError: they are not of the same probes.
    """
    count = traces.losses.sizes["probe"]
    require(count == kernel.probes, f"traces hold {count} probes and the kernel {kernel.probes}; pass the kernel's own")
    features = kernel.features()
    mean = traces.losses.transpose("chain", "draw", "probe").values.mean(axis=(0, 1), dtype=np.float64)
    return Losses(kernel.variance(), features @ features.sum(axis=0), mean, traces.record("start_losses"))


def groups_of(kernel: LossKernel, given: np.ndarray | None) -> np.ndarray | None:
    """Return the number of each probe's class [N] among the sorted labels.

    Raises:
        InputError: there is not one label per probe.
    """
    if given is None:
        return None
    labels = np.asarray(given)
    require(labels.shape == (kernel.probes,), f"given has shape {labels.shape} for {kernel.probes} probes; one each")
    return np.unique(labels, return_inverse=True)[1]


def surroundings_of(kernel: LossKernel, groups: np.ndarray | None, k: int) -> Surroundings:
    """Return who stands around each probe of a kernel.

    Raises:
        InputError: k < 1, or there is one probe only.
    """
    require_integer("k", k, at_least=1)
    require(kernel.probes >= 2, f"scores of memorisation compare probes, got {kernel.probes}; give at least two")
    blocks = ((block, kernel.correlation(block)) for block in kernel.blocks())
    return surroundings(blocks, kernel.variance(), groups, min(k, kernel.probes - 1))


def scores_of(losses: Losses, around: Surroundings) -> dict[str, np.ndarray]:
    """Return name -> [N] in the order in which they are shown."""
    found = {
        "self_coupling": losses.variance,
        "mean_loss": losses.mean,
        "loss_gain": None if losses.start is None else losses.mean - losses.start,
        "rival_class": around.rival_class,
        "discordance": -_concordance(losses.variance, losses.total),
        "isolation": around.isolation,
        "opposition": around.opposition,
    }
    return {name: values for name, values in found.items() if values is not None}


def resampled_scores(
    resamples: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    start: np.ndarray | None,
    groups: np.ndarray | None,
    k: int,
) -> dict[str, np.ndarray]:
    """Return name -> [replicates, N] of kernels given by K [N, N], R [N, N] and mean losses [N]; R is overwritten."""
    rows: dict[str, list[np.ndarray]] = {}
    for covariance, correlation, mean in resamples:
        variance = np.diagonal(covariance).copy()
        around = surroundings([(slice(0, len(mean)), correlation)], variance, groups, min(k, len(mean) - 1))
        for name, values in scores_of(Losses(variance, covariance.sum(axis=1), mean, start), around).items():
            rows.setdefault(name, []).append(values)
    return {name: np.stack(values) for name, values in rows.items()}


def _concordance(variance: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return each probe's correlation with the sum of all others, [N]; 0 where either never changes."""
    others = total.sum() - 2 * total + variance
    scale = np.sqrt(np.maximum(variance * others, 0.0))
    shared = np.divide(total - variance, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.clip(shared, -1.0, 1.0)
