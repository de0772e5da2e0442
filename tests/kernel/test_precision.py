"""What rounding does to R: the estimate against correlations of losses with and without it."""

import numpy as np
import pytest

from losskernel.kernel.diagnosis.statistics import precision_error
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces

CHAINS, DRAWS, PROBES, CHECKS = 4, 400, 40, 5
RNG = np.random.default_rng(0)


def exact(level: float = 0.0) -> np.ndarray:
    """Losses [C, D, N] of strongly coupled probes."""
    mix = RNG.normal(size=(3, PROBES))
    alone = RNG.normal(size=(CHAINS, DRAWS, 3)) @ mix + 0.3 * RNG.normal(size=(CHAINS, DRAWS, PROBES))
    return alone + level


def correlation(losses: np.ndarray) -> np.ndarray:
    return LossKernel.from_traces(LossTraces.from_arrays(losses)).correlation()


def moved(losses: np.ndarray, errors: np.ndarray) -> float:
    """Root mean square change of R off the diagonal."""
    change = correlation(losses + errors) - correlation(losses)
    return float(np.sqrt(np.square(change[np.triu_indices(PROBES, 1)]).mean()))


def noise(draws: int, size: float, shared: float) -> np.ndarray:
    """Errors of rounding [C, draws, N], each probe's of its own size; a part is the same for all probes."""
    sizes = size * np.linspace(0.5, 2.0, PROBES)
    alone, common = RNG.normal(size=(CHAINS, draws, PROBES)), RNG.normal(size=(CHAINS, draws, 1))
    return sizes * (np.sqrt(1 - shared) * alone + np.sqrt(shared) * common)


@pytest.mark.parametrize(("size", "within"), [(0.02, 0.4), (0.2, 0.35), (0.6, 0.6)])
@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_the_error_is_that_of_the_correlations(size: float, within: float, shared: float) -> None:
    values, true = [], []
    for _ in range(8):
        losses, errors = exact(), noise(DRAWS, size, shared)
        values.append(precision_error(noise(CHECKS, size, shared), losses + errors))
        true.append(moved(losses, errors))
    assert np.mean(values) == pytest.approx(np.mean(true), rel=within)


def test_an_offset_of_each_probe_and_chain_changes_nothing() -> None:
    offsets = np.repeat(RNG.normal(size=(CHAINS, 1, PROBES)), CHECKS, axis=1)
    assert precision_error(offsets, exact()) < 1e-12


def test_errors_as_large_as_the_losses_are_large_and_finite() -> None:
    losses = exact()
    assert 0.5 < precision_error(noise(CHECKS, 1e3, 0.0), losses + noise(DRAWS, 1e3, 0.0)) < np.inf


def test_probes_that_never_move_are_left_out() -> None:
    losses, differences = exact(), noise(CHECKS, 0.2, 0.0)
    still = np.concatenate([losses, np.ones((CHAINS, DRAWS, 5))], axis=2)
    beside = np.concatenate([differences, RNG.normal(size=(CHAINS, CHECKS, 5))], axis=2)
    assert precision_error(beside, still) == pytest.approx(precision_error(differences, losses))
    assert np.isnan(precision_error(differences, np.ones((CHAINS, DRAWS, PROBES))))
