"""Calibration: nominal 90 % intervals cover 85 to 95 % of the truth, over replications of problems in closed form.

Weights w ~ N(0, Σ), losses l_i = b_i·w + ½ wᵀA_i w, so K_ij = b_iᵀΣb_j + ½ tr(A_iΣA_jΣ).
"""

from collections.abc import Iterator

import numpy as np
import pytest
from oracles import kernel_of, quadratic_kernel, quadratic_losses, quadratic_problem, weights

from losskernel.kernel.diagnosis.statistics import effective_rank
from losskernel.kernel.error_bars import Matrices, batch_means, bootstrap
from losskernel.kernel.loss_kernel import LossKernel

REPLICATIONS = 200
LAYOUTS = [(1, 1600), (4, 400), (8, 400)]  # chains, draws
SLOW = 0.7  # memory of the autocorrelated weights from draw to draw

SIGMA, LINEAR, QUADRATIC = quadratic_problem()
K = quadratic_kernel(SIGMA, LINEAR, QUADRATIC)
R = K / np.sqrt(np.outer(np.diag(K), np.diag(K)))
OFF = ~np.eye(len(K), dtype=bool)
GROUP = np.repeat([0, 1], 6)
WITHIN = (GROUP[:, None] == GROUP) & OFF

layouts = pytest.mark.parametrize(("chains", "draws"), LAYOUTS)
memories = pytest.mark.parametrize("phi", [0.0, SLOW])


def _kernels(chains: int, draws: int, phi: float) -> Iterator[LossKernel]:
    """Independent replications of one experiment."""
    rng = np.random.default_rng([chains, draws, int(10 * phi)])
    for _ in range(REPLICATIONS // 50):
        for run in quadratic_losses(weights(SIGMA, 50, chains, draws, phi, rng), LINEAR, QUADRATIC):
            yield kernel_of(run)


def _covered(intervals: list[dict[str, float]], name: str, truth: float) -> float:
    return float(np.mean([computed[f"{name}_low"] <= truth <= computed[f"{name}_high"] for computed in intervals]))


def test_intervals_of_entries_cover_the_closed_form() -> None:
    _check_entries(4, 400, SLOW)


@pytest.mark.slow
@layouts
@memories
def test_intervals_of_entries_cover_the_closed_form_in_every_layout(chains: int, draws: int, phi: float) -> None:
    _check_entries(chains, draws, phi)


def _check_entries(chains: int, draws: int, phi: float) -> None:
    hits = {"covariance": np.zeros_like(K), "correlation": np.zeros_like(K)}
    for kernel in _kernels(chains, draws, phi):
        for of, exact in (("covariance", K), ("correlation", R)):
            low, high = kernel.interval(of=of)
            hits[of] += (low <= exact) & (exact <= high)
    covariance, correlation = hits["covariance"] / REPLICATIONS, hits["correlation"] / REPLICATIONS
    for share in (np.diag(covariance), covariance[OFF], correlation[OFF]):
        assert 0.85 <= share.mean() <= 0.95
    # 66 pairs, each by 200 replications: 0.9 ± 3.5 standard errors
    assert min(covariance.min(), correlation.min()) > 0.78


def _numbers(kernel: Matrices) -> dict[str, float]:
    covariance, correlation = kernel.covariance(), kernel.correlation()
    numbers = {
        "block": covariance[:6, :6].mean(),
        "signed": correlation[WITHIN].mean(),
        "strength": np.abs(correlation).mean(),
        "rank": effective_rank(np.linalg.eigvalsh(correlation)),
    }
    if kernel.chains >= 2:
        coupling = kernel.coupling()
        numbers |= {"coupling": coupling[WITHIN].mean(), "ratio": coupling[~WITHIN].mean() / coupling[WITHIN].mean()}
    return {name: float(value) for name, value in numbers.items()}


def test_bootstrap_intervals_cover_numbers_computed_from_the_kernel() -> None:
    _check_numbers(4, 400, SLOW)


@pytest.mark.slow
@layouts
@memories
def test_bootstrap_intervals_cover_numbers_in_every_layout(chains: int, draws: int, phi: float) -> None:
    _check_numbers(chains, draws, phi)


def _check_numbers(chains: int, draws: int, phi: float) -> None:
    metrics = [bootstrap(kernel, _numbers, seed=seed) for seed, kernel in enumerate(_kernels(chains, draws, phi))]
    square = np.square(R)
    exact = {
        "block": K[:6, :6].mean(),
        "signed": R[WITHIN].mean(),
        "coupling": square[WITHIN].mean(),
        "ratio": square[~WITHIN].mean() / square[WITHIN].mean(),
        # Noise spreads eigenvalues and fills |R| from below: of a finite trace both are biased, by less than a
        # standard error here, so that their intervals are asked for the expectation.
        "strength": np.mean([numbers["strength"] for numbers in metrics]),
        "rank": np.mean([numbers["rank"] for numbers in metrics]),
    }
    for name in metrics[0].keys() & exact.keys():
        assert 0.85 <= _covered(metrics, name, exact[name]) <= 0.95, name


def test_what_noise_fills_is_biased_and_its_interval_reaches_its_expectation() -> None:
    # |R| of probes that share nothing is all floor; there its error is an upper bound.
    rng = np.random.default_rng(0)

    def strength(kernel: Matrices) -> dict[str, float]:
        above = np.triu_indices(12, 1)
        return {"strength": float(np.abs(kernel.correlation())[above].mean())}

    numbers = [
        bootstrap(kernel_of(run), strength, seed=seed)
        for seed, run in enumerate(rng.normal(size=(REPLICATIONS, 4, 200, 12)))
    ]
    expectation = np.mean([item["strength"] for item in numbers])
    assert expectation == pytest.approx(np.sqrt(2 / np.pi / 796), rel=0.05)
    assert _covered(numbers, "strength", 0.0) == 0
    assert _covered(numbers, "strength", float(expectation)) >= 0.85


def test_the_coupling_of_unrelated_probes_is_covered_at_zero() -> None:
    rng = np.random.default_rng(0)

    def coupling(kernel: Matrices) -> dict[str, float]:
        above = np.triu_indices(12, 1)
        return {"coupling": float(kernel.coupling()[above].mean())}

    numbers = [
        bootstrap(kernel_of(run), coupling, seed=seed)
        for seed, run in enumerate(rng.normal(size=(REPLICATIONS, 4, 200, 12)))
    ]
    assert 0.85 <= _covered(numbers, "coupling", 0.0) <= 0.95
    # A product of two noises is resampled as one of them beside the other: √2 too wide at most.
    scatter = np.std([item["coupling"] for item in numbers])
    assert 0.9 < np.sqrt(np.mean([item["coupling_se"] ** 2 for item in numbers])) / scatter < 1.6


@layouts
@memories
def test_batch_means_cover_the_mean_of_a_series(chains: int, draws: int, phi: float) -> None:
    rng = np.random.default_rng([chains, draws, int(10 * phi)])
    series = weights(np.eye(5), REPLICATIONS, chains, draws, phi, rng)
    numbers = [batch_means("mean", run[..., index]) for run in series for index in range(5)]
    assert 0.85 <= _covered(numbers, "mean", 0.0) <= 0.95


def test_errors_of_a_mean_taken_from_independent_draws_would_not_cover_slow_ones() -> None:
    rng = np.random.default_rng(0)
    series = weights(np.eye(1), REPLICATIONS, 4, 400, SLOW, rng)[..., 0]
    naive = series.std((1, 2), ddof=1) / np.sqrt(1600)
    assert np.mean(np.abs(series.mean((1, 2))) <= 1.645 * naive) < 0.6
