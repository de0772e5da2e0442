import numpy as np
import pytest
from oracles import blocks, gaussian, kernel_of, pairs

from losskernel import LossKernel
from losskernel.resampling import jackknife


def _entry(kernel: LossKernel) -> dict[str, float]:
    return {"k": float(kernel.covariance()[0, 1])}


@pytest.mark.parametrize("chains", [4, 10])
def test_the_error_of_a_mean_over_chains_is_the_classical_one(chains: int) -> None:
    losses = gaussian(chains, 30, blocks([3], 0.5))
    found = jackknife(kernel_of(losses), _entry)
    own = np.array([np.cov(chain.T)[0, 1] for chain in losses])  # the pooled entry is the mean of these
    assert found["k"] == pytest.approx(own.mean(), rel=1e-12)
    assert found["k_se"] == pytest.approx(own.std(ddof=1) / np.sqrt(chains), rel=1e-10)


@pytest.mark.parametrize("chains", [1, 3])
def test_few_chains_leave_out_eight_stretches_of_draws(chains: int) -> None:
    losses = gaussian(chains, 80, blocks([3], 0.5))
    found = jackknife(kernel_of(losses), _entry)
    left = [_entry(kernel_of(np.delete(losses, range(10 * part, 10 * part + 10), axis=1)))["k"] for part in range(8)]
    expected = np.sqrt(7 / 8 * np.square(left - np.mean(left)).sum())
    assert found["k_se"] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("chains", "draws"), [(20, 80), (1, 1600)])
def test_the_error_matches_the_scatter_of_independent_runs(chains: int, draws: int) -> None:
    def statistic(kernel: LossKernel) -> dict[str, float]:
        correlation = kernel.correlation()
        first = np.arange(0, 200, 2)
        return {str(pair): value for pair, value in enumerate(correlation[first, first + 1])}

    found = jackknife(kernel_of(pairs(chains, draws, 100, rho=0.5, phi=0.5)), statistic)
    scatter = np.std([found[str(pair)] for pair in range(100)], ddof=1)
    reported = np.sqrt(np.mean([found[f"{pair}_se"] ** 2 for pair in range(100)]))
    assert reported == pytest.approx(scatter, rel=0.25)


def test_every_number_gets_its_own_error() -> None:
    kernel = kernel_of(gaussian(5, 30, blocks([3], 0.5)))
    found = jackknife(kernel, lambda part: {"a": _entry(part)["k"], "b": 2 * _entry(part)["k"], "c": 1.0})
    assert set(found) == {"a", "a_se", "b", "b_se", "c", "c_se"}
    assert found["b_se"] == pytest.approx(2 * found["a_se"])
    assert found["c_se"] == 0


def test_where_nothing_can_be_left_out_there_is_no_error() -> None:
    found = jackknife(kernel_of(gaussian(1, 3, blocks([3], 0.5))), _entry)
    assert set(found) == {"k"}
