from typing import Any

import numpy as np
import pytest
import xarray as xr
from oracles import blocks, gaussian, kernel_of, of_pairs, pairs
from scipy.stats import t

from losskernel import LossKernel, LossTraces
from losskernel.errors import InputError

RNG = np.random.default_rng(0)
MIXED = RNG.normal(size=(7, 7)) / 2
MATRICES = ("covariance", "correlation", "coupling", "distance", "standard_error")


def _losses(chains: int = 3, draws: int = 60, seed: int = 0) -> np.ndarray:
    return gaussian(chains, draws, MIXED @ MIXED.T + 0.1 * np.eye(7), seed) + 5.0


def _with_constants() -> np.ndarray:
    """Probes 2 and 5 never change; their values have no exact mean in binary."""
    losses = _losses()
    losses[..., 2], losses[..., 5] = 0.1, 1 / 3
    return losses


# --- covariance


def test_the_covariance_of_one_chain_is_numpys() -> None:
    losses = _losses(chains=1)
    kernel = kernel_of(losses)
    np.testing.assert_allclose(kernel.covariance(), np.cov(losses[0].T), rtol=1e-12)
    np.testing.assert_allclose(kernel.correlation(), np.corrcoef(losses[0].T), rtol=1e-12)
    np.testing.assert_allclose(kernel.variance(), losses[0].var(axis=0, ddof=1), rtol=1e-12)


def test_chains_are_centred_one_by_one_and_pooled_without_bias() -> None:
    losses = _losses(chains=4)
    within = [np.cov(chain.T, ddof=0) * len(chain) for chain in losses]
    expected = sum(within) / (4 * 60 - 4)
    np.testing.assert_allclose(kernel_of(losses).covariance(), expected, rtol=1e-12)


def test_the_levels_of_the_chains_do_not_enter() -> None:
    losses = _losses(chains=4)
    levels = 100 * RNG.normal(size=(4, 1, 7))
    level, flat = kernel_of(losses + levels), kernel_of(losses)
    for name in MATRICES:
        np.testing.assert_allclose(getattr(level, name)(), getattr(flat, name)(), rtol=1e-9, atol=1e-9)
    pooled = np.cov((losses + levels).reshape(-1, 7).T)
    assert np.abs(pooled).max() > 100 * np.abs(level.covariance()).max()


def test_the_covariance_is_unbiased() -> None:
    # 400 pairs, and only three draws a chain, so that a wrong divisor would be far off
    computed = of_pairs(kernel_of(pairs(5, 3, 400, rho=0.6)).covariance())
    assert computed.mean() == pytest.approx(0.6, abs=4 * computed.std() / 20)
    assert computed.mean() != pytest.approx(0.6 * 10 / 15, abs=4 * computed.std() / 20)


def test_tiny_float32_losses_on_a_large_level_keep_their_covariance() -> None:
    losses = (1.0 + 1e-3 * gaussian(2, 4000, blocks([2], 0.5))).astype(np.float32)
    exact = losses.astype(np.float64)
    expected = sum(np.cov(chain.T) for chain in exact) / 2
    np.testing.assert_allclose(kernel_of(losses).covariance(), expected, rtol=1e-10)


def test_features_are_rows_whose_gram_matrix_is_the_kernel() -> None:
    kernel = kernel_of(_with_constants())
    rows, unit = kernel.features(), kernel.standardised()
    assert rows.shape == (7, 180)
    np.testing.assert_allclose(rows @ rows.T, kernel.covariance(), rtol=1e-12, atol=1e-14)
    expected = kernel.correlation()
    expected[[2, 5], [2, 5]] = 0
    np.testing.assert_allclose(unit @ unit.T, expected, rtol=1e-12, atol=1e-12)


# --- correlation


@pytest.mark.parametrize("name", ["correlation", "coupling", "distance"])
def test_scale_and_offset_of_a_probe_do_not_matter(name: str) -> None:
    losses = _losses()
    scale, offset = RNG.uniform(1e-6, 1e3, 7), 50 * RNG.normal(size=7)
    moved = getattr(kernel_of(losses * scale + offset), name)()
    np.testing.assert_allclose(moved, getattr(kernel_of(losses), name)(), rtol=1e-7, atol=1e-7)


def test_a_negated_probe_flips_its_signs() -> None:
    losses, signs = _losses(), np.array([1, -1, 1, 1, -1, -1, 1])
    flipped, kernel = kernel_of(losses * signs), kernel_of(losses)
    np.testing.assert_allclose(flipped.correlation(), kernel.correlation() * np.outer(signs, signs), atol=1e-12)
    np.testing.assert_allclose(flipped.coupling(), kernel.coupling(), atol=1e-12)


@pytest.mark.parametrize("name", MATRICES)
def test_a_kernel_follows_a_permutation_of_its_probes(name: str) -> None:
    losses, order = _losses(), RNG.permutation(7)
    permuted = getattr(kernel_of(losses[..., order]), name)()
    np.testing.assert_allclose(permuted, getattr(kernel_of(losses), name)()[np.ix_(order, order)], atol=1e-7)


@pytest.mark.parametrize("name", ["correlation", "coupling"])
def test_the_order_of_chains_and_draws_does_not_matter(name: str) -> None:
    losses = _losses()
    mixed = losses[[2, 0, 1]][:, RNG.permutation(60)]
    np.testing.assert_allclose(getattr(kernel_of(mixed), name)(), getattr(kernel_of(losses), name)(), atol=1e-12)


@pytest.mark.parametrize(
    "losses", [_losses(), _losses(draws=2), _with_constants()], ids=["full", "low rank", "constants"]
)
def test_a_kernel_is_symmetric_and_positive(losses: np.ndarray) -> None:
    kernel = kernel_of(losses)
    for name in MATRICES:
        if name != "standard_error" or losses.shape[1] > 2:
            matrix = getattr(kernel, name)()
            np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12, atol=1e-12)
            assert np.isfinite(matrix).all()
    np.testing.assert_array_equal(np.diag(kernel.correlation()), 1)
    np.testing.assert_array_equal(np.diag(kernel.coupling()), 1)
    np.testing.assert_array_equal(np.diag(kernel.distance()), 0)
    for matrix in (kernel.covariance(), kernel.correlation()):
        assert np.linalg.eigvalsh(matrix).min() > -1e-10


def test_distance_is_euclidean_between_standardised_traces() -> None:
    kernel = kernel_of(_losses())
    unit = kernel.standardised()
    expected = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    np.testing.assert_allclose(kernel.distance(), expected, atol=1e-7)


def test_a_probe_whose_loss_never_changes_is_related_to_none() -> None:
    kernel = kernel_of(_with_constants())
    assert kernel.constant.tolist() == [False, False, True, False, False, True, False]
    assert (kernel.variance()[[2, 5]] == 0).all()
    for name in ("correlation", "coupling"):
        for probe in (2, 5):
            np.testing.assert_array_equal(getattr(kernel, name)()[probe], np.eye(7)[probe])
    np.testing.assert_array_equal(kernel.covariance()[2], 0)
    np.testing.assert_array_equal(kernel.standard_error()[2], 0)
    np.testing.assert_array_equal(kernel.standard_error(of="correlation")[2], 0)
    assert (kernel.standardised()[2] == 0).all()


def test_a_float32_constant_is_exactly_constant() -> None:
    losses = np.full((3, 77, 2), 0.1, np.float32)
    kernel = kernel_of(losses)
    assert kernel.constant.all()
    np.testing.assert_array_equal(kernel.correlation(), np.eye(2))


def test_a_probe_constant_in_one_chain_only_is_not_constant() -> None:
    losses = _losses()
    losses[1, :, 3] = 0.1
    kernel = kernel_of(losses)
    assert not kernel.constant.any()
    np.testing.assert_allclose(kernel.variance()[3], kernel_of(losses[[0, 2]]).variance()[3] * 118 / 177, rtol=1e-12)
    assert np.isfinite(kernel.coupling()).all()


@pytest.mark.parametrize("rows", [slice(2, 5), [6, 0, 0], np.array([4])], ids=["slice", "list", "array"])
@pytest.mark.parametrize("name", MATRICES)
def test_rows_of_a_kernel_equal_the_whole(name: str, rows: Any) -> None:
    kernel = kernel_of(_with_constants())
    np.testing.assert_allclose(getattr(kernel, name)(rows), getattr(kernel, name)()[rows], rtol=1e-12, atol=1e-14)


def test_rows_of_the_correlations_error_equal_the_whole() -> None:
    kernel = kernel_of(_losses())
    whole = kernel.standard_error(of="correlation")
    np.testing.assert_allclose(kernel.standard_error([5, 1], of="correlation"), whole[[5, 1]], rtol=1e-7, atol=1e-12)


# --- coupling


def test_coupling_is_the_mean_product_of_correlations_of_different_chains() -> None:
    losses = _losses(chains=3)
    item = [np.corrcoef(chain.T) for chain in losses]
    expected = (item[0] * item[1] + item[0] * item[2] + item[1] * item[2]) / 3
    np.testing.assert_allclose(kernel_of(losses).coupling(), expected, atol=1e-12)


def test_coupling_of_unrelated_probes_has_no_floor_but_the_square_of_r_has() -> None:
    kernel = kernel_of(pairs(4, 50, 300, rho=0.0))
    coupling, square = of_pairs(kernel.coupling()), of_pairs(kernel.correlation()) ** 2
    assert coupling.mean() == pytest.approx(0, abs=3 * coupling.std() / np.sqrt(300))
    assert (coupling < 0).mean() > 0.3
    assert square.mean() == pytest.approx(1 / (4 * 50), rel=0.25)
    assert square.mean() > 10 * coupling.std() / np.sqrt(300)


@pytest.mark.parametrize("rho", [0.3, -0.8])
def test_coupling_is_the_squared_correlation(rho: float) -> None:
    coupling = of_pairs(kernel_of(pairs(4, 200, 300, rho)).coupling())
    assert coupling.mean() == pytest.approx(rho**2, abs=4 * coupling.std() / np.sqrt(300) + 2 / 200 * rho**2)


def test_coupling_needs_two_chains() -> None:
    with pytest.raises(InputError, match=r"coupling needs >= 2 chains, got 1; raise schedule.chains"):
        kernel_of(_losses(chains=1)).coupling()


# --- standard errors


@pytest.mark.parametrize("of", ["covariance", "correlation"])
@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_standard_errors_match_the_scatter_of_independent_runs(of: str, rho: float) -> None:
    kernel = kernel_of(pairs(4, 100, 400, rho))
    scatter = of_pairs(getattr(kernel, of)()).std(ddof=1)
    # for normal losses: √((1 + ρ²) / n) and (1 - ρ²) / √n
    exact = np.sqrt((1 + rho**2) / 396) if of == "covariance" else (1 - rho**2) / np.sqrt(396)
    assert scatter == pytest.approx(exact, rel=0.12)
    assert of_pairs(kernel.standard_error(of=of)).mean() == pytest.approx(scatter, rel=0.15)


@pytest.mark.parametrize("chains", [1, 4])
@pytest.mark.parametrize("of", ["covariance", "correlation"])
def test_standard_errors_know_that_draws_are_correlated(of: str, chains: int) -> None:
    kernel = kernel_of(pairs(chains, 1600 // chains, 300, rho=0.5, phi=0.8))
    scatter = of_pairs(getattr(kernel, of)()).std(ddof=1)
    reported = of_pairs(kernel.standard_error(of=of)).mean()
    assert 0.75 < reported / scatter < 1.25
    naive = np.sqrt((1 + 0.5**2) / 1600) if of == "covariance" else (1 - 0.5**2) / np.sqrt(1600)
    assert naive / scatter < 0.6  # draws taken for independent


def test_standard_errors_see_chains_that_disagree() -> None:
    losses = gaussian(20, 50, blocks([2], 0.0))
    losses[::2, :, 1] = losses[::2, :, 0]  # half of the chains couple the two probes
    calm = kernel_of(gaussian(20, 50, blocks([2], 0.5))).standard_error()[0, 1]
    assert kernel_of(losses).standard_error()[0, 1] > 2 * calm


def test_the_diagonal_of_r_has_no_error() -> None:
    error = kernel_of(_losses()).standard_error(of="correlation")
    np.testing.assert_allclose(np.diag(error), 0, atol=1e-9)


def test_standard_errors_refuse_what_they_cannot_give() -> None:
    with pytest.raises(InputError, match="of must be 'covariance' or 'correlation', got 'coupling'"):
        kernel_of(_losses()).standard_error(of="coupling")
    with pytest.raises(InputError, match=r"standard errors need >= 14 draws per chain, got 13; raise schedule.draws"):
        kernel_of(_losses(draws=13)).standard_error()
    assert np.isfinite(kernel_of(_losses(draws=14)).standard_error()).all()


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_intervals_of_the_covariance_are_students(level: float) -> None:
    kernel = kernel_of(_losses(chains=4))
    low, high = kernel.interval(level=level)
    np.testing.assert_allclose((low + high) / 2, kernel.covariance(), rtol=1e-12)
    reach = t.ppf((1 + level) / 2, 4 * 5 - 1) * kernel.standard_error()
    np.testing.assert_allclose((high - low) / 2, reach, rtol=1e-10)


def test_intervals_of_the_correlation_stay_in_range_and_are_fishers() -> None:
    kernel = kernel_of(pairs(4, 40, 30, rho=0.98))
    low, high = kernel.interval(of="correlation")
    correlation, error = kernel.correlation(), kernel.standard_error(of="correlation")
    assert (low >= -1).all()
    assert (high <= 1).all()
    assert ((low <= correlation) & (correlation <= high)).all()
    off = ~np.eye(60, dtype=bool)
    middle = (np.arctanh(low[off]) + np.arctanh(high[off])) / 2
    np.testing.assert_allclose(np.tanh(middle), correlation[off], atol=1e-9)
    slope = (high - low)[off] / (2 * t.ppf(0.95, 19) * error[off])
    assert np.median(slope) == pytest.approx(1, abs=0.02)  # near 0, where most of these lie, both scales agree
    np.testing.assert_array_equal(np.diag(low), 1)
    np.testing.assert_array_equal(np.diag(high), 1)


@pytest.mark.parametrize("of", ["covariance", "correlation"])
def test_intervals_of_some_rows_and_of_constant_probes(of: str) -> None:
    kernel = kernel_of(_with_constants())
    whole, rows = kernel.interval(of=of), kernel.interval([5, 1], of=of)
    np.testing.assert_allclose(rows.low, whole.low[[5, 1]], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rows.high, whole.high[[5, 1]], rtol=1e-9, atol=1e-12)
    off = np.arange(7) != 2
    np.testing.assert_array_equal(whole.low[2, off], 0)
    np.testing.assert_array_equal(whole.high[2, off], 0)


@pytest.mark.parametrize("level", [0, 1, -0.1, 90])
def test_a_level_is_a_probability(level: float) -> None:
    with pytest.raises(InputError, match=rf"level must lie between 0 and 1, got {level}; e.g. level=0.9"):
        kernel_of(_losses()).interval(level=level)


# --- neighbours


@pytest.mark.parametrize("rows_at_once", [1, 7, 10_000])
@pytest.mark.parametrize("k", [1, 5, 39])
def test_neighbours_are_the_nearest_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch, rows_at_once: int, k: int
) -> None:
    monkeypatch.setattr("losskernel.kernel.loss_kernel._BLOCK_NUMBERS", rows_at_once * 40)
    kernel = kernel_of(gaussian(3, 30, np.eye(40)))
    assert next(kernel.blocks()) == slice(0, min(rows_at_once, 40))
    nearest = kernel.neighbors(k)
    distance = kernel.distance()
    np.fill_diagonal(distance, np.inf)
    expected = np.argsort(distance, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(nearest.indices, expected)
    np.testing.assert_allclose(nearest.distances, np.take_along_axis(distance, expected, axis=1), rtol=1e-12)


def test_the_number_of_neighbours_must_fit() -> None:
    kernel = kernel_of(_losses())
    with pytest.raises(InputError, match="k must be >= 1, got 0"):
        kernel.neighbors(0)
    with pytest.raises(InputError, match=r"k must be a whole number, got 2.0"):
        kernel.neighbors(2.0)
    with pytest.raises(InputError, match="k must be < the 7 probes, got 7; lower k"):
        kernel.neighbors(7)


# --- other representations, and parts of a kernel


def test_the_kernel_of_features_is_their_gram_matrix_and_its_correlation_the_cosine() -> None:
    features = RNG.normal(size=(6, 4)) + 1.0
    kernel = LossKernel.from_features(features, labels={"class": [0, 1] * 3}, ids=list("abcdef"))
    np.testing.assert_allclose(kernel.covariance(), features @ features.T, rtol=1e-12)
    length = np.linalg.norm(features, axis=1)
    expected = features @ features.T / np.outer(length, length)
    np.testing.assert_allclose(kernel.correlation(), expected, rtol=1e-12)
    assert kernel.label("class").tolist() == [0, 1] * 3
    assert kernel.ids.tolist() == list("abcdef")
    assert (kernel.probes, kernel.chains) == (6, 1)


@pytest.mark.parametrize(
    ("features", "given", "message"),
    [
        (np.ones((3, 2, 2)), {}, r"features must be \[probe, unit\], got shape \(3, 2, 2\); flatten the units"),
        ([[1.0, np.nan], [1.0, 2.0]], {}, "features hold non-finite numbers; find the layer that made them"),
        (np.ones((3, 2)), {"labels": {"class": [1, 2]}}, r"labels\['class'\] has 2 entries for 3 probes"),
        (np.ones((3, 2)), {"ids": [1, 2]}, "ids has 2 entries for 3 probes"),
    ],
)
def test_features_that_do_not_fit_are_refused(features: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LossKernel.from_features(features, **given)


def test_traces_need_two_draws_and_finite_losses() -> None:
    losses = np.zeros((2, 3, 4))
    losses[1, 2, 3] = np.nan
    traces = [
        LossTraces(xr.Dataset({"losses": (("chain", "draw", "probe"), item)})) for item in (losses[:, :1], losses)
    ]
    with pytest.raises(InputError, match=r"draws must be >= 2 to estimate a covariance, got 1; raise schedule.draws"):
        LossKernel.from_traces(traces[0])
    with pytest.raises(InputError, match="losses hold nan at chain 1, draw 2, probe 3"):
        LossKernel.from_traces(traces[1])


def test_the_order_of_the_traces_axes_does_not_matter() -> None:
    traces = LossTraces.from_arrays(_losses())
    turned = LossTraces(traces.dataset.transpose("probe", "draw", "chain"))
    np.testing.assert_array_equal(LossKernel.from_traces(turned).covariance(), kernel_of(_losses()).covariance())


def test_a_kernel_knows_its_labels() -> None:
    kernel = kernel_of(_losses(), labels={"task": list("aabbccd")}, ids=list("tuvwxyz"))
    assert kernel.label("task").tolist() == list("aabbccd")
    assert kernel.ids.tolist() == list("tuvwxyz")
    assert repr(kernel) == "LossKernel(7 probes, 3 chains x 60 draws)"
    with pytest.raises(InputError, match="there is no probe label 'class'; the labels are task"):
        kernel.label("class")
    with pytest.raises(InputError, match="the labels are none"):
        kernel_of(_losses()).label("class")


def test_only_keeps_some_chains() -> None:
    losses = _losses(chains=4)
    kernel = kernel_of(losses).only([3, 1])
    np.testing.assert_allclose(kernel.covariance(), kernel_of(losses[[3, 1]]).covariance(), rtol=1e-12)
    with pytest.raises(InputError, match=r"only\(\) got no chains; name at least one"):
        kernel_of(losses).only([])


def test_evenly_keeps_a_spread_of_probes_with_all_that_is_known_of_them() -> None:
    kernel = kernel_of(_with_constants(), labels={"task": list("aabbccd")}, ids=list("tuvwxyz"))
    assert kernel.evenly(7) is kernel
    thinned = kernel.evenly(4)
    assert thinned.ids.tolist() == list("tvxz")
    assert thinned.label("task").tolist() == list("abcd")
    chosen = np.array([0, 2, 4, 6])
    np.testing.assert_allclose(thinned.correlation(), kernel.correlation()[np.ix_(chosen, chosen)], atol=1e-14)
    np.testing.assert_array_equal(thinned.constant, kernel.constant[chosen])


def test_results_do_not_share_memory_with_the_kernel() -> None:
    kernel = kernel_of(_losses())
    before = kernel.covariance()
    kernel.variance()[:] = 0
    kernel.covariance()[:] = 0
    kernel.correlation()[:] = 0
    np.testing.assert_array_equal(kernel.covariance(), before)
    np.testing.assert_allclose(kernel.variance(), np.diag(before), rtol=1e-12)


@pytest.mark.parametrize("name", [*MATRICES, "null_correlation", "interval"])
def test_more_probes_than_memory_holds_are_refused_but_for_some_rows(name: str) -> None:
    many = kernel_of(np.random.default_rng(0).normal(size=(2, 20, 20_001)))
    message = r"a matrix of 20,001 x 20,001 does not fit into memory; give rows=..., go through kernel.blocks\(\)"
    with pytest.raises(InputError, match=message):
        getattr(many, name)()
    rows = getattr(many, name)([3])
    assert (rows.low if name == "interval" else rows).shape == (1, 20_001)


@pytest.mark.parametrize("chains", [1, 4])
def test_the_null_correlation_has_the_size_of_unrelated_probes_and_nothing_they_share(chains: int) -> None:
    draws = 400 // chains
    unrelated = LossKernel.from_traces(LossTraces.from_arrays(gaussian(chains, draws, np.eye(60))))
    above = np.triu_indices(60, 1)
    size = np.abs(unrelated.null_correlation()).mean()
    assert size == pytest.approx(np.abs(unrelated.correlation())[above].mean(), rel=0.08)
    related = LossKernel.from_traces(LossTraces.from_arrays(pairs(chains, draws, 30, 0.95)))
    assert np.abs(of_pairs(related.correlation())).mean() > 0.9
    assert np.abs(of_pairs(related.null_correlation())).mean() < 3 * size
    np.testing.assert_array_equal(related.null_correlation([3, 5]), related.null_correlation()[[3, 5]])


def test_the_null_correlation_keeps_the_memory_of_the_chains() -> None:
    slow = LossKernel.from_traces(LossTraces.from_arrays(pairs(4, 200, 30, 0.0, phi=0.9)))
    above = np.triu_indices(60, 1)
    correlation = np.abs(slow.correlation())[above].mean()
    assert np.abs(slow.null_correlation()).mean() == pytest.approx(correlation, rel=0.15)
    assert correlation > 2 * 0.8 / np.sqrt(800)  # far above the floor of as many independent draws


def test_the_null_correlation_pairs_chains_that_lie_a_shift_apart() -> None:
    losses = _losses(chains=4)
    kernel = kernel_of(losses)
    centred = losses - losses.mean(axis=1, keepdims=True)
    for shift in (1, 2, 3):
        product = np.einsum("cdn,cdm->nm", centred, np.roll(centred, shift, axis=0))
        scale = np.sqrt(np.square(centred).sum((0, 1)))
        np.testing.assert_allclose(kernel.null_correlation(shift=shift), product / np.outer(scale, scale), atol=1e-12)
    # a chain follows another as far as that one precedes it
    np.testing.assert_allclose(kernel.null_correlation(shift=3), kernel.null_correlation(shift=1).T, atol=1e-12)


def test_the_null_correlation_of_constant_probes_is_zero() -> None:
    kernel = LossKernel.from_traces(LossTraces.from_arrays(np.ones((2, 10, 5))))
    assert not kernel.null_correlation().any()
