"""What is recorded while chains are sampled: the arrays' names, dimensions and extents."""

import numpy as np

Arrays = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]  # name -> (dimensions, extent)
# Measured once per chain, at its last draw (sampling/step_checks.py).
CHAIN_RECORDS = ("curvature", "minibatch_variance", "step_inflation", "acceptance", "relaxation_rate")
# Places of each chain at which losses are also computed in full precision, where probes are evaluated in a lower one.
PRECISION_CHECKS = 5


def layout(shape: tuple[int, int, int], burn_in: int, checks: int = 0) -> Arrays:
    """Return name -> (dimensions, extent) of every array that grows while sampling.

    Args:
        shape: chains, draws and probes.
        burn_in: losses seen on the way.
        checks: places of each chain at which losses in a lower precision are compared with exact ones.
    """
    chains, draws, probes = shape
    arrays: Arrays = {"losses": (("chain", "draw", "probe"), shape)}
    for name in ("train_loss", "distance", "gradient_norm"):
        arrays[name] = (("chain", "draw"), (chains, draws))
    arrays |= dict.fromkeys(CHAIN_RECORDS, (("chain",), (chains,)))
    if burn_in:
        arrays["burn_in_loss"] = (("chain", "burn_in_batch"), (chains, burn_in))
    if checks:
        arrays["precision_noise"] = (("chain", "check", "probe"), (chains, checks, probes))
    return arrays


def place(chains: slice, start: int, array: np.ndarray) -> tuple[slice, ...]:
    """Return where an array [chain, ...] of some chains stands, from `start` on along its second axis."""
    return (chains,) if array.ndim == 1 else (chains, slice(start, start + array.shape[1]))
