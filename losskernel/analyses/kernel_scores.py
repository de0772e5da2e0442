"""How suspicious each probe is by its loss kernel: one number a probe, higher = more suspicious.

From its own losses, and from its surroundings: neighbours with R near 1, opponents with R below 0.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from losskernel.errors import require, require_integer
from losskernel.kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces

Scores = dict[str, np.ndarray]  # name -> [N], higher = more suspicious


class Surroundings(NamedTuple):
    """What the rows of R say of each probe, each [N].

    Attributes:
        isolation: distance sqrt(2 (1 - R)) to the k-th nearest probe.
        rival_class: mean R with the best other class less that with its own; None where no classes are given.
        opposition: mean -R of the k strongest opponents less mean R of the k nearest trusted probes.
        rival: number of the class for which most of the opponents' -R speaks, never its own unless none does; None
            where no classes are given.
        support: share of the opponents' -R that speaks for the rival, 0 where nothing does.
    """

    isolation: np.ndarray
    rival_class: np.ndarray | None
    opposition: np.ndarray
    rival: np.ndarray | None
    support: np.ndarray | None


def surroundings(
    blocks: Iterable[tuple[slice, np.ndarray]], variance: np.ndarray, groups: np.ndarray | None, k: int
) -> Surroundings:
    """Read R once, block by block.

    A sample whose label is wrong is right where its true class is wrong: what makes the network surer of that class
    raises this sample's loss and lowers the others'. So its strongest opponents, R < 0, are the class it belongs to.
    Neighbours are no help, for they are mislabelled like it: those that count as friends must be trusted.

    Args:
        blocks: rows R [n, N] and which they are, in order; they are overwritten.
        variance: self-coupling [N].
        groups: number of each probe's class [N], 0 to G - 1, or None.
        k: neighbours, opponents and friends, at most N - 1.
    """
    one_group = np.zeros(len(variance), dtype=int)
    trust = trusted(variance, one_group if groups is None else groups)
    parts = [_of_rows(rows, np.arange(len(variance))[block], groups, trust, k) for block, rows in blocks]
    columns = zip(*parts, strict=True)
    return Surroundings(*(None if column[0] is None else np.concatenate(column) for column in columns))  # pyright: ignore[reportArgumentType]


def trusted(variance: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return which probes [N] have at most their class' median self-coupling.

    Half of a class, so that wrong labels find no friends among their like as long as they are its smaller half; and of
    each class, so that no class is without.
    """
    # Sorted by class and, within it, by self-coupling.
    order = np.lexsort((variance, groups))
    starts = np.searchsorted(groups[order], np.arange(groups.max() + 1))
    sizes = np.bincount(groups)
    middle = variance[order][np.minimum(starts + (sizes - 1) // 2, len(variance) - 1)]
    return variance <= middle[groups]


def _of_rows(
    rows: np.ndarray, probes: np.ndarray, groups: np.ndarray | None, trust: np.ndarray, k: int
) -> Surroundings:
    """Return what some rows of R [n, N] say of their probes [n]."""
    index, count = np.arange(len(probes)), rows.shape[1]
    # R of a probe with itself, 1, is replaced by what keeps it out of each of the following choices.
    rows[index, probes] = 0.0
    apart = None if groups is None else _rival_means(rows, probes, groups)
    rows[index, probes] = np.inf
    against = np.argpartition(rows, k - 1, axis=1)[:, :k]  # [n, k], the lowest R
    strength = -np.take_along_axis(rows, against, axis=1)  # [n, k]
    rows[index, probes] = -np.inf
    nearest = np.partition(rows, count - k, axis=1)[:, count - k]  # [n], the k-th highest R
    friends = rows[:, trust]  # [n, trusted]
    few = min(k, friends.shape[1] - 1)  # a probe is no friend of its own
    friendship = np.partition(friends, -few, axis=1)[:, -few:].mean(axis=1) if few else np.zeros(len(probes))
    rival, support = (None, None) if groups is None else _vote(strength, groups[against], groups[probes])
    isolation, opposition = np.sqrt(np.maximum(2 * (1 - nearest), 0.0)), strength.mean(axis=1) - friendship
    return Surroundings(isolation, apart, opposition, rival, support)


def _rival_means(rows: np.ndarray, probes: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """Return the best other class' mean of rows [n, N], 0 at the probes themselves, less the given class', [n]."""
    sizes = np.bincount(groups)
    if len(sizes) < 2:
        return None
    order = np.argsort(groups, kind="stable")
    sums = np.add.reduceat(rows[:, order], np.searchsorted(groups[order], np.arange(len(sizes))), axis=1)  # [n, G]
    index, given = np.arange(len(probes)), groups[probes]
    # Without another probe of its class the mean is 0: nothing is known.
    with_given = sums[index, given] / np.maximum(sizes[given] - 1, 1)
    means = sums / sizes  # [n, G]
    means[index, given] = -np.inf
    return means.max(axis=1) - with_given


def _vote(strength: np.ndarray, classes: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class that most of the opponents' strength [n, k] speaks for, and its share of it, each [n]."""
    weights = np.maximum(strength, 0.0)  # [n, k]
    total = weights.sum(axis=1)
    weights = np.where(classes == given[:, None], 0.0, weights)
    # [n, k]: what each opponent's class has in all; k is small, and there may be a thousand classes.
    shared = np.einsum("nk,nkj->nj", weights, classes[:, :, None] == classes[:, None, :])
    # Among classes of equal strength the first in order, whatever the order of the opponents.
    best = np.lexsort((classes, -shared), axis=1)[:, :1]
    most = np.take_along_axis(shared, best, axis=1)[:, 0]
    winner = np.take_along_axis(classes, best, axis=1)[:, 0]
    share = np.divide(most, total, out=np.zeros_like(most), where=total > 0)
    return np.where(most > 0, winner, given), np.minimum(share, 1.0)


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


def kernel_scores(kernel: LossKernel, traces: LossTraces, given: np.ndarray | None, k: int = 10) -> Scores:
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


def plain_scores(traces: LossTraces) -> Scores:
    """Return the loss at the trained weights and every baseline of one column, name -> [N]."""
    start = traces.record("start_losses")
    scores = {} if start is None else {"loss": start}
    return scores | {name: rows[:, 0] for name, rows in traces.baselines.items() if rows.shape[1] == 1}


def losses_of(kernel: LossKernel, traces: LossTraces) -> Losses:
    """Return what a kernel and its traces say of each probe's own loss.

    Raises:
        InputError: they are not of the same probes.
    """
    count = traces.losses.sizes["probe"]
    require(count == kernel.probes, f"traces hold {count} probes and the kernel {kernel.probes}; pass the kernel's own")
    features = kernel.features()  # [N, C D], whose Gram matrix is K
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
    """Return the neighbours and opponents of each probe of a kernel.

    Raises:
        InputError: k < 1, or there is one probe only.
    """
    require_integer("k", k, at_least=1)
    require(kernel.probes >= 2, f"scores of memorisation compare probes, got {kernel.probes}; give at least two")
    blocks = ((block, kernel.correlation(block)) for block in kernel.blocks())
    return surroundings(blocks, kernel.variance(), groups, min(k, kernel.probes - 1))


def scores_of(losses: Losses, around: Surroundings) -> Scores:
    """Return name -> [N] in the order in which they are shown."""
    scores = {
        "self_coupling": losses.variance,
        "mean_loss": losses.mean,
        "loss_gain": None if losses.start is None else losses.mean - losses.start,
        "rival_class": around.rival_class,
        "discordance": -_concordance(losses.variance, losses.total),
        "isolation": around.isolation,
        "opposition": around.opposition,
    }
    return {name: values for name, values in scores.items() if values is not None}


def _concordance(variance: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return each probe's correlation with the sum of all others, [N]; 0 where either never changes."""
    others = total.sum() - 2 * total + variance  # [N], variance of the sum of all others
    scale = np.sqrt(np.maximum(variance * others, 0.0))
    shared = np.divide(total - variance, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.clip(shared, -1.0, 1.0)
