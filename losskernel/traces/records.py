"""What is recorded while chains are sampled: the arrays' names, dimensions and shapes."""

import numpy as np

Arrays = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]  # name -> (dimensions, shape)
# Measured once per chain, at its end (sampling/step_checks.py).
CHAIN_RECORDS = ("curvature", "minibatch_variance", "step_inflation", "acceptance", "relaxation_rate")
# Draws of each chain at which losses are computed in full precision too, where the probes' precision is lower.
PRECISION_CHECKS = 5


def layout(shape: tuple[int, int, int], burn_in: int, checks: int = 0) -> Arrays:
    """Return name -> (dimensions, shape) of every array that grows while sampling.

    Args:
        shape: chains, draws and probes.
        burn_in: losses recorded during burn-in.
        checks: draws of each chain at which losses in a lower precision are compared with exact ones.
    """
    chains, draws, probes = shape
    # Every array starts with the chains, so that a stack of chains is written as one block of rows.
    arrays: Arrays = {"losses": (("chain", "draw", "probe"), shape)}
    for name in ("train_loss", "distance", "gradient_norm"):
        arrays[name] = (("chain", "draw"), (chains, draws))
    arrays |= dict.fromkeys(CHAIN_RECORDS, (("chain",), (chains,)))
    if burn_in:
        arrays["burn_in_loss"] = (("chain", "burn_in_batch"), (chains, burn_in))
    if checks:
        arrays["precision_noise"] = (("chain", "check", "probe"), (chains, checks, probes))
    return arrays


def region(chains: slice, start: int, values: np.ndarray) -> tuple[slice, ...]:
    """Return where values [chain, ...] of some chains go in their array, from `start` on along its second axis."""
    return (chains,) if values.ndim == 1 else (chains, slice(start, start + values.shape[1]))
