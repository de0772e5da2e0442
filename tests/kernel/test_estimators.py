import numpy as np
import pytest
from oracles import blocks, gaussian, kernel_of, of_pairs, pairs

from losskernel.kernel.estimators import batch_means_error, correlation_of, coupling_of, inverse, nearest, pieces

RNG = np.random.default_rng(0)


def test_an_inverse_of_nothing_is_nothing() -> None:
    np.testing.assert_array_equal(inverse(np.array([4.0, 0.0, 0.5])), [0.25, 0, 2])


def test_a_correlation_is_that_of_its_covariance() -> None:
    losses = gaussian(1, 60, blocks([4, 3], 0.5))
    np.testing.assert_allclose(correlation_of(np.cov(losses[0].T)), np.corrcoef(losses[0].T), rtol=1e-12)
    probe = kernel_of(gaussian(3, 60, blocks([4, 3], 0.5)))
    np.testing.assert_allclose(correlation_of(probe.covariance()), probe.correlation(), rtol=1e-12, atol=1e-14)


def test_a_correlation_without_a_variance_is_zero() -> None:
    covariance = np.diag([2.0, 0.0, 1.0])
    np.testing.assert_array_equal(correlation_of(covariance), np.eye(3))


def test_coupling_of_the_chains_own_correlations_is_the_kernels() -> None:
    losses = gaussian(5, 60, blocks([4, 3], 0.5))
    probe = [np.corrcoef(chain.T) for chain in losses]
    np.testing.assert_allclose(coupling_of(probe), kernel_of(losses).coupling(), rtol=1e-12, atol=1e-14)


def test_coupling_has_no_bias_where_the_square_of_the_mean_has() -> None:
    noise = RNG.normal(size=(4, 1, 200_000)) + 0.5
    coupling = coupling_of(noise)
    assert coupling.mean() == pytest.approx(0.25, abs=4 * coupling.std() / np.sqrt(200_000))
    assert np.square(noise.mean(0)).mean() - 0.25 == pytest.approx(1 / 4, rel=0.02)


@pytest.mark.parametrize(
    ("chains", "draws", "count"), [(1, 400, 20), (4, 400, 5), (8, 400, 3), (20, 9, 1), (64, 9, 1), (1, 9, 4), (4, 3, 1)]
)
def test_chains_are_cut_into_about_twenty_pieces_of_two_draws_or_more(chains: int, draws: int, count: int) -> None:
    assert pieces(chains, draws) == count


def test_the_error_by_batch_means_is_the_scatter_of_batches() -> None:
    chains = RNG.normal(size=(2, 12, 5))
    batches = chains.reshape(6, 4, 5)
    products = np.einsum("bdn,bdm->bnm", batches, batches) / 4
    expected = products.std(0, ddof=1) / np.sqrt(6)
    np.testing.assert_allclose(batch_means_error(chains, 3, slice(None)), expected, rtol=1e-10)
    np.testing.assert_allclose(batch_means_error(chains, 3, [4, 1]), expected[[4, 1]], rtol=1e-10)


def test_the_error_of_a_correlation_does_not_know_the_scales() -> None:
    losses = pairs(4, 200, 100, rho=0.7)
    plain, scaled = kernel_of(losses), kernel_of(losses * RNG.uniform(0.1, 10, 200))
    np.testing.assert_allclose(
        scaled.standard_error(of="correlation"), plain.standard_error(of="correlation"), rtol=1e-6, atol=1e-9
    )
    assert of_pairs(plain.standard_error(of="correlation")).mean() == pytest.approx((1 - 0.49) / np.sqrt(796), rel=0.1)


def test_the_nearest_are_found_in_order_without_oneself() -> None:
    distances = RNG.uniform(size=(6, 9))
    indices, values = nearest(distances.copy(), np.arange(3, 9), 4)
    for row, probe in enumerate(range(3, 9)):
        order = [index for index in np.argsort(distances[row]) if index != probe][:4]
        assert indices[row].tolist() == order
        np.testing.assert_array_equal(values[row], distances[row, order])


def test_ties_go_to_the_first() -> None:
    indices, _ = nearest(np.zeros((1, 4)), np.array([0]), 3)
    assert indices.tolist() == [[1, 2, 3]]
