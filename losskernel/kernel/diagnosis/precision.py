"""What losses computed in a lower precision do to the kernel, from a few places where both were computed."""

import numpy as np

from losskernel.kernel.estimators import inverse

_PROBES = 500  # over whose pairs the error is averaged
_WHOLE = 0.99  # of a loss's variance; what is said of the rest would be noise


def precision_error(differences: np.ndarray, losses: np.ndarray) -> float:
    """Return the root mean square error that rounding puts on the entries of R off the diagonal.

    A measured loss is l + e. With b_i the share of e in the variance of probe i's measured loss and ρ_ij the
    correlation of two probes' errors, the measured R̃ is R √((1-b_i)(1-b_j)) + ρ_ij √(b_i b_j) and noise of
    variance (b_i + b_j - b_i b_j) / T over T draws, e being independent of l and from draw to draw. The squares
    of the three parts are added: what attenuation takes, what common errors add (without the squares that K
    places make by chance), and the noise. A constant e changes nothing.

    Args:
        differences: [C, K, N], lower minus full precision at K places of each chain.
        losses: [C, D, N], as measured.
    """
    variance = losses.var(axis=1, ddof=1, dtype=np.float64).mean(0)
    moving = np.flatnonzero(variance > 0)
    if len(moving) < 2:
        return float("nan")
    chosen = moving[np.linspace(0, len(moving) - 1, min(len(moving), _PROBES)).astype(int)]
    unit = _centred(losses[:, :, chosen]) * inverse(np.sqrt(variance[chosen]))
    errors = _centred(differences[:, :, chosen]) * inverse(np.sqrt(variance[chosen]))
    freedom = len(differences) * (differences.shape[1] - 1)
    measured = unit.T @ unit / (len(unit) - len(losses))
    shared = errors.T @ errors / freedom
    share = np.minimum(np.diagonal(shared), _WHOLE)
    pairs = np.triu_indices(len(chosen), 1)
    first, second = share[pairs[0]], share[pairs[1]]
    restored = np.clip(measured[pairs] / np.sqrt((1 - first) * (1 - second)), -1, 1)
    attenuation = np.square(restored - measured[pairs]).mean()
    common = (np.square(shared[pairs]).mean() - (first * second).mean() / freedom) / (1 + 1 / freedom)
    noise = (first + second - first * second).mean() / len(unit)
    return float(np.sqrt(attenuation + max(common, 0.0) + noise))


def _centred(values: np.ndarray) -> np.ndarray:
    """Remove each chain's mean from [C, D, n]; the rows of all chains, [C·D, n]."""
    return (values - values.mean(axis=1, keepdims=True, dtype=np.float64)).reshape(-1, values.shape[2])
