"""Where probes that share a planted fault stand in the kernel: do they cluster, does a twin find its twin?"""

from typing import NamedTuple

import numpy as np

from losskernel.kernel.error_bars import replicate_mean
from losskernel.kernel.loss_kernel import LossKernel

_ROWS = 500  # of R at once


class Twins(NamedTuple):
    """Where the twin of each twin stands.

    Attributes:
        ids: [T] of the probes.
        twins: [T] ids of their twins.
        ranks: [T] of the twin among all other probes by R, 1 = nearest; equals count in its favour.
        correlations: [T] R with the twin.
        pairs: [T] number of the pair.
    """

    ids: np.ndarray
    twins: np.ndarray
    ranks: np.ndarray
    correlations: np.ndarray
    pairs: np.ndarray


def clustering(name: str, nearest: np.ndarray, marked: np.ndarray, permutations: int, seed: int) -> dict[str, float]:
    """Return the share of marked probes among the nearest of marked probes, `name`, with its error over those.

    `name_chance` is the share among all others, `name_p` the chance that as many or more of another choice of probes,
    as many at random, stand together: (1 + count) / (1 + permutations).

    Args:
        name: of the numbers.
        nearest: the k nearest probes of each, [N, k].
        marked: [N] bool.
        permutations: of the marks.
        seed: of them.
    """
    shares = marked[nearest[marked]].mean(axis=1)
    rng = np.random.default_rng(seed)
    observed, count = int(marked[nearest[marked]].sum()), 0
    for _ in range(permutations):
        other = rng.permutation(marked)
        count += int(other[nearest[other]].sum()) >= observed
    chance = (int(marked.sum()) - 1) / (len(marked) - 1)
    return replicate_mean(name, shares) | {f"{name}_chance": chance, f"{name}_p": (1 + count) / (1 + permutations)}


def find_twins(kernel: LossKernel, numbers: np.ndarray) -> Twins | None:
    """Return where twins stand, from each probe's pair number, [N], below 0 for none; None where there is no pair.

    Only pairs of which both stand among the probes count.
    """
    pairs, counts = np.unique(numbers[numbers >= 0], return_counts=True)
    places = np.flatnonzero(np.isin(numbers, pairs[counts == 2]))
    if places.size == 0:
        return None
    places = places[np.argsort(numbers[places], kind="stable")]
    others = places.reshape(-1, 2)[:, ::-1].ravel()
    ranks, correlations = [], []
    for start in range(0, len(places), _ROWS):
        own, twin = places[start : start + _ROWS], others[start : start + _ROWS]
        rows, here = kernel.correlation(own), np.arange(len(own))
        rows[here, own] = -np.inf
        found = rows[here, twin]
        correlations.append(found)
        ranks.append(1 + (rows > found[:, None]).sum(axis=1))
    ids = np.asarray(kernel.ids)
    return Twins(ids[places], ids[others], np.concatenate(ranks), np.concatenate(correlations), numbers[places])


def twin_numbers(twins: Twins) -> dict[str, float]:
    """Return the share of twins whose nearest probe is their twin, and its mean rank, with errors over pairs."""
    nearest = (twins.ranks == 1).reshape(-1, 2).mean(axis=1)
    rank = twins.ranks.reshape(-1, 2).mean(axis=1)
    return (
        replicate_mean("twin_nearest", nearest)
        | replicate_mean("twin_rank", rank)
        | {"twin_pairs": float(len(nearest))}
    )
