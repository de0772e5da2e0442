"""Do the loss kernels of two networks over the same pictures agree, and more than their features do?

Rank correlation of R, R² and of features' cosines over pairs of pictures; permutation tests; what it would be
without Monte-Carlo noise (Spearman 1904), from halves of the chains. Two runs of one network with one seed share their
noise, and cannot be compared in this way.

usage: python experiments/imagenet/agreement.py RUN RUN
"""

import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np

import losskernel as lk
from losskernel.analyses.rank_tests import ceiling, full_length, mantel, partial_mantel, spearman, upper
from losskernel.representations.baselines.collect import BASELINES, read_representations

FEATURES = ("penultimate", "logits")
Entries = Callable[[np.ndarray], np.ndarray]  # of R [N, N]
QUANTITIES: dict[str, Entries] = {"R": lambda r: r, "R²": np.square}


class Network:
    """A run's R, that of either half of its chains, and the cosines of its features, all [N, N]."""

    def __init__(self, run: Path) -> None:
        traces = lk.open_traces(run)
        self.name, self.ids = run.name, traces.losses["probe"].values
        self.whole = lk.LossKernel.from_traces(traces).correlation()
        middle = traces.losses.sizes["chain"] // 2
        if middle == 0:
            sys.exit(f"{run} has one chain; halves of the chains need two")
        parts = (slice(None, middle), slice(middle, None))
        self.halves = [
            lk.LossKernel.from_traces(lk.LossTraces(traces.dataset.isel(chain=part))).correlation() for part in parts
        ]
        rows = read_representations(run / BASELINES)
        self.cosines = {name: lk.LossKernel.from_features(rows[name]).correlation() for name in FEATURES}

    def reliability(self, entries: Entries) -> float:
        """Return the correlation that another run as long would have with this one."""
        return full_length(correlation(*(entries(half) for half in self.halves)))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return the rank correlation of the entries above the diagonal."""
    return spearman(upper(one), -upper(other))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    networks = [Network(Path(path)) for path in sys.argv[1:]]
    for one, other in combinations(networks, 2):
        if not np.array_equal(one.ids, other.ids):
            sys.exit(f"{one.name} and {other.name} have other probes")
        for name, entries in QUANTITIES.items():
            own, others = entries(one.whole), entries(other.whole)
            shared, limits = correlation(own, others), [one.reliability(entries), other.reliability(entries)]
            test = mantel(own, -others)
            print(f"{name}: correlation {shared:.4f} (Mantel p {test.p:.3f})")
            print(f"    reliabilities {limits[0]:.3f}, {limits[1]:.3f}")
            print(f"    without noise {ceiling(shared, max(limits[0], 0) * max(limits[1], 0)):.3f}")
            for feature in FEATURES:
                given = entries(one.cosines[feature]) + entries(other.cosines[feature])
                fixed = partial_mantel(own, -others, given)
                print(f"    with both networks' {feature} held fixed {fixed.correlation:.4f} (p {fixed.p:.3f})")
        for feature in FEATURES:
            print(f"{feature}: correlation {correlation(one.cosines[feature], other.cosines[feature]):.4f}")
