import numpy as np
import pytest
from oracles import blocks, gaussian, kernel_of, pairs
from scipy.stats import t

from losskernel.kernel.error_bars import (
    Matrices,
    Resample,
    batch_means,
    bootstrap,
    interval,
    replicate_mean,
    t_quantile,
)
from losskernel.kernel.estimators import pieces


def _entry(kernel: Matrices) -> dict[str, float]:
    return {"k": float(kernel.covariance()[0, 1])}


def _unweighted_resample(kernel: object) -> Resample:
    """A resample in which every piece counts once."""
    seen = []

    def keep(part: Matrices) -> dict[str, float]:
        seen.append(part)
        return {}

    bootstrap(kernel, keep)
    return seen[1]._replace(weights=np.ones_like(seen[1].weights))


@pytest.mark.parametrize(("chains", "draws"), [(1, 90), (4, 30), (5, 33)])
def test_a_resample_in_which_every_piece_counts_once_is_the_kernel(chains: int, draws: int) -> None:
    kernel = kernel_of(gaussian(chains, draws, blocks([3, 3], 0.5)))
    part = _unweighted_resample(kernel)
    assert part.chains == chains
    assert part.grams.shape == (chains, pieces(chains, draws), 6, 6)
    np.testing.assert_allclose(part.covariance(), kernel.covariance(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(part.correlation(), kernel.correlation(), rtol=1e-12, atol=1e-12)
    if chains > 1:
        np.testing.assert_allclose(part.coupling(), kernel.coupling(), atol=1e-12)


def test_a_resample_weights_whole_pieces() -> None:
    losses = gaussian(4, 40, blocks([3], 0.5))
    part = _unweighted_resample(kernel_of(losses))
    weights = np.ones((4, 5))
    weights[1, 2], weights[1, 3] = 2, 0
    centred = losses - losses.mean(axis=1, keepdims=True)
    twice = np.concatenate([centred[1, :16], centred[1, 16:24], centred[1, 16:24], centred[1, 32:]])
    expected = np.concatenate([centred[0], twice, centred[2], centred[3]])
    np.testing.assert_allclose(part._replace(weights=weights).covariance(), expected.T @ expected / 156, rtol=1e-12)


def test_the_coupling_of_a_resample_moves_as_the_square_of_the_chains_mean() -> None:
    part = _unweighted_resample(kernel_of(gaussian(4, 400, blocks([3], 0.7))))
    small = 1 + 1e-4 * np.random.default_rng(0).normal(size=(4, 5))
    moved = part._replace(weights=small / small.mean())
    coupling, expected = (
        moved.coupling() - part.coupling(),
        np.square(moved.chain_mean_correlation()) - np.square(part.chain_mean_correlation()),
    )
    np.testing.assert_allclose(coupling, expected, atol=1e-8)
    assert np.abs(coupling[0, 1]) > 1e-6


@pytest.mark.parametrize(("chains", "draws"), [(20, 30), (4, 150), (1, 600)])
def test_the_error_of_a_mean_is_the_classical_one_of_its_pieces(chains: int, draws: int) -> None:
    losses = gaussian(chains, draws, blocks([3], 0.5))
    numbers = bootstrap(kernel_of(losses), _entry, replicates=4000)
    centred = losses - losses.mean(axis=1, keepdims=True)
    products = (centred[..., 0] * centred[..., 1]).reshape(20, 30).sum(1) * 20 / (chains * (draws - 1))
    assert numbers["k"] == pytest.approx(products.mean(), rel=1e-12)
    assert numbers["k_se"] == pytest.approx(products.std(ddof=1) / np.sqrt(20), rel=0.05)
    reach = t.ppf(0.95, 1 / (1 / 19 + 1 / 3999)) * numbers["k_se"]
    assert (numbers["k_low"], numbers["k_high"]) == pytest.approx((numbers["k"] - reach, numbers["k"] + reach))


@pytest.mark.parametrize(("chains", "draws"), [(20, 80), (4, 400), (1, 1600)])
def test_the_error_matches_the_scatter_of_independent_runs(chains: int, draws: int) -> None:
    def statistic(kernel: Matrices) -> dict[str, float]:
        correlation = kernel.correlation()
        first = np.arange(0, 200, 2)
        return {str(pair): value for pair, value in enumerate(correlation[first, first + 1])}

    numbers = bootstrap(kernel_of(pairs(chains, draws, 100, rho=0.5, phi=0.5)), statistic)
    scatter = np.std([numbers[str(pair)] for pair in range(100)], ddof=1)
    reported = np.sqrt(np.mean([numbers[f"{pair}_se"] ** 2 for pair in range(100)]))
    assert reported == pytest.approx(scatter, rel=0.25)


def test_errors_see_chains_that_disagree() -> None:
    losses = gaussian(8, 200, blocks([2], 0.0))
    losses[::2, :, 1] = losses[::2, :, 0]  # half of the chains couple the two probes
    calm = gaussian(8, 200, blocks([2], 0.5))

    def numbers(kernel: Matrices) -> dict[str, float]:
        return _entry(kernel) | {"coupling": float(kernel.coupling()[0, 1])}

    torn, whole = (
        bootstrap(kernel_of(losses), numbers),
        bootstrap(kernel_of(calm), numbers),
    )
    assert torn["k_se"] > 2 * whole["k_se"]
    assert torn["coupling_se"] > 2 * whole["coupling_se"]


def test_every_number_gets_its_own_error_and_the_same_seed_the_same() -> None:
    kernel = kernel_of(gaussian(5, 30, blocks([3], 0.5)))

    def numbers(part: Matrices) -> dict[str, float]:
        return {"a": _entry(part)["k"], "b": 2 * _entry(part)["k"], "c": 1.0}

    metrics = bootstrap(kernel, numbers)
    assert list(metrics) == [f"{name}{end}" for name in "abc" for end in ("", "_se", "_low", "_high")]
    assert metrics["b_se"] == pytest.approx(2 * metrics["a_se"])
    assert (metrics["c_se"], metrics["c_low"], metrics["c_high"]) == (0, 1, 1)
    assert metrics == bootstrap(kernel, numbers)
    assert metrics["a_se"] != bootstrap(kernel, numbers, seed=1)["a_se"]


def test_where_there_is_one_piece_there_is_no_error() -> None:
    assert set(bootstrap(kernel_of(gaussian(1, 3, blocks([3], 0.5))), _entry)) == {"k"}
    assert batch_means("m", np.arange(3.0)[None]) == {"m": 1.0}
    assert replicate_mean("m", np.array([2.0])) == {"m": 2.0}


# --- series and replicates


def test_batch_means_are_the_scatter_of_stretches() -> None:
    series = np.random.default_rng(0).normal(size=(4, 50))
    numbers = batch_means("m", series)
    means = series.reshape(20, 10).mean(1)
    assert numbers["m"] == pytest.approx(series.mean())
    assert numbers["m_se"] == pytest.approx(means.std(ddof=1) / np.sqrt(20))
    assert numbers["m_high"] == pytest.approx(series.mean() + t.ppf(0.95, 19) * numbers["m_se"])


def test_replicates_give_the_interval_of_student() -> None:
    numbers = replicate_mean("m", np.array([1.0, 2.0, 6.0]), 2.5)
    assert numbers["m"] == 2.5
    assert numbers["m_se"] == pytest.approx(np.sqrt(7 / 3))
    assert numbers["m_low"] == pytest.approx(2.5 - 2.919986 * np.sqrt(7 / 3))


def test_quantiles_are_those_of_the_tables() -> None:
    assert t_quantile(10) == pytest.approx(1.8125, abs=1e-4)
    assert t_quantile(10, level=0.95) == pytest.approx(2.2281, abs=1e-4)
    assert t_quantile(1e9) == pytest.approx(1.6449, abs=1e-4)
    assert interval("x", 1.0, 2.0, 10)["x_low"] == pytest.approx(1 - 2 * 1.8125, abs=1e-3)
