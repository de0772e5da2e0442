"""What planting in a dataset takes: chance, and training samples among the probes to plant something in."""

import numpy as np
from torch import Tensor

from losskernel.data.base import Data
from losskernel.data.wrappers.relabelling import is_classes
from losskernel.errors import require


def chance(wrapper: str, seed: int, *more: int) -> np.random.Generator:
    """Return random numbers of a wrapper's own.

    All wrappers have the run's seed by default; with the same numbers, what one chooses would say what another does.
    """
    return np.random.default_rng([seed, *wrapper.encode(), *more])


def planted_probes(data: Data, targets: Tensor, open_to: np.ndarray, count: int, seed: int, wrapper: str) -> np.ndarray:
    """Return `count` probes [count] that are training samples, by chance, as many of each class as can be; in order.

    Args:
        data: whose probes.
        targets: of the probes, [N, ...].
        open_to: which probes may be chosen, [N] bool.
        count: how many.
        seed: of the choice.
        wrapper: that asks, for the message.

    Raises:
        InputError: there are fewer.
    """
    rows = np.flatnonzero(open_to & (data.members() >= 0))
    require(
        len(rows) >= count,
        f"wrapper.{wrapper}.count must be <= the {len(rows)} probes that are training samples and fit, got {count}; "
        f"lower it, or take training samples as probes first: wrapper=[training_probes,{wrapper}]",
    )
    rows = chance(wrapper, seed).permutation(rows)
    groups = targets.numpy()[rows] if is_classes(targets) else np.zeros(len(rows), dtype=int)
    order = np.argsort(groups, kind="stable")
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    turn = np.empty(len(rows), dtype=int)  # its place among those of its class
    turn[order] = np.arange(len(rows)) - np.repeat(first, sizes)
    return np.sort(rows[np.argsort(turn, kind="stable")[:count]])
