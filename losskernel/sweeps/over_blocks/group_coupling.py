"""Which groups of probes each block of weights couples."""

from dataclasses import dataclass

import numpy as np

from losskernel.errors import require
from losskernel.kernel.loss_kernel import LossKernel

MOST_GROUPS = 100


@dataclass(frozen=True)
class GroupCoupling:
    """Means of a kernel's entries between groups of probes, a probe with itself left out.

    Attributes:
        groups: G names.
        means: [G, G] of the coupling R², or of |R| where there is one chain; NaN for a group of one probe with itself.
        within: mean over pairs of one group.
        across: mean over pairs of different groups.
        of: "coupling" or "abs_r".
    """

    groups: list[str]
    means: np.ndarray
    within: float
    across: float
    of: str


def group_coupling(kernel: LossKernel, label: str) -> GroupCoupling:
    """Return how strongly a kernel couples the groups of a label.

    Raises:
        InputError: there is no such label, or it has fewer than 2 or more than 100 values.
    """
    names, codes = np.unique(kernel.label(label), return_inverse=True)
    require(
        2 <= len(names) <= MOST_GROUPS,
        f"label={label} has {len(names)} distinct values; choose one of 2 to {MOST_GROUPS}, as in label=class",
    )
    several = kernel.chains >= 2
    values = kernel.coupling() if several else np.abs(kernel.correlation())
    np.fill_diagonal(values, 0.0)
    members = np.eye(len(names))[codes]  # [N, G]
    sums, sizes = members.T @ values @ members, members.sum(axis=0)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    means = np.divide(sums, pairs, out=np.full_like(sums, np.nan), where=pairs > 0)
    own = np.eye(len(names), dtype=bool)
    within = float(sums[own].sum() / pairs[own].sum()) if pairs[own].any() else float("nan")
    across = float(sums[~own].sum() / pairs[~own].sum())
    return GroupCoupling([str(name) for name in names], means, within, across, "coupling" if several else "abs_r")


def shared_neighbours(kernel: LossKernel, other: LossKernel, k: int) -> np.ndarray:
    """Return the share of each probe's k nearest probes, [N], that are among its k nearest under another kernel.

    Raises:
        InputError: the kernels stand over different probes, or k is not between 1 and N - 1.
    """
    require(np.array_equal(kernel.ids, other.ids), "the kernels stand over different probes; compare those of one data")
    near, there = kernel.neighbors(k).indices, other.neighbors(k).indices
    return np.array([len(np.intersect1d(*pair)) / k for pair in zip(near, there, strict=True)])
