"""Other kernels over the same probes: those given, and two that know nothing of the images."""

from collections.abc import Mapping

import numpy as np

LABELS, RANDOM = "labels", "random"


def with_references(
    baselines: Mapping[str, np.ndarray], leaf: np.ndarray, columns: int, seed: int
) -> dict[str, np.ndarray]:
    """Return the baselines with a kernel of labels alone and a random one, name -> rows [N, d].

    Args:
        baselines: name -> rows [N, d].
        leaf: number of each probe's class, [N].
        columns: of the random rows: as many as the loss kernel has draws.
        seed: of the random rows.
    """
    one_hot = np.eye(leaf.max() + 1, dtype=np.float32)[leaf]
    # A stream of its own: permutations and choices of pairs start from the same seed.
    own = np.random.SeedSequence(seed).spawn(1)[0]
    noise = np.random.default_rng(own).standard_normal((len(leaf), columns), dtype=np.float32)
    return dict(baselines) | {LABELS: one_hot, RANDOM: noise}
