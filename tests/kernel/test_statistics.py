import math

import numpy as np
import pytest
from arviz_stats.base import array_stats
from oracles import blocks, gaussian, pairs
from scipy.stats import norm, rankdata

from losskernel.kernel.diagnosis import statistics as diagnostics

RNG = np.random.default_rng(0)


def _ar1(chains: int, draws: int, phi: float, seed: int = 0) -> np.ndarray:
    return pairs(chains, draws, 1, 0.0, phi, seed)[..., 0]


def _split_rhat(chains: np.ndarray) -> float:
    half = chains.shape[1] // 2
    halves = np.concatenate([chains[:, :half], chains[:, -half:]])
    within, between = halves.var(axis=1, ddof=1).mean(), halves.mean(axis=1).var(ddof=1)
    return math.sqrt((half - 1) / half + between / within)


def _normal_scores(chains: np.ndarray) -> np.ndarray:
    ranks = rankdata(chains, axis=None).reshape(chains.shape)
    return norm.ppf((ranks - 0.375) / (chains.size + 0.25))


# --- R-hat and effective draws


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_rhat_is_that_of_vehtari_et_al(phi: float) -> None:
    chains = _ar1(4, 200, phi) + 0.2 * np.arange(4)[:, None]
    folded = np.abs(chains - np.median(chains))
    expected = max(_split_rhat(_normal_scores(chains)), _split_rhat(_normal_scores(folded)))
    assert diagnostics.rhat(chains) == pytest.approx(expected, rel=1e-3)
    assert diagnostics.rhat(chains) == pytest.approx(float(array_stats.rhat(chains)), rel=1e-12)


def test_rhat_sees_chains_at_different_levels_and_one_chain_that_drifts() -> None:
    calm = _ar1(4, 400, 0.0)
    assert diagnostics.rhat(calm) < 1.01
    assert diagnostics.rhat(calm + 3 * np.arange(4)[:, None]) > 2
    assert diagnostics.rhat(calm[:1]) < 1.02
    assert diagnostics.rhat(calm[:1] + np.linspace(0, 5, 400)) > 1.5
    assert diagnostics.rhat(calm[:1] + np.abs(np.linspace(-5, 5, 400))) > 1.2


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_effective_draws_of_an_ar1_chain(phi: float) -> None:
    chains = _ar1(4, 5000, phi)
    assert diagnostics.ess(chains) == pytest.approx(20_000 * (1 - phi) / (1 + phi), rel=0.15)
    assert diagnostics.ess(chains) == pytest.approx(float(array_stats.ess(chains)), rel=1e-12)


def test_effective_draws_of_the_tails() -> None:
    chains = _ar1(4, 500, 0.5)
    quantiles = [float(array_stats.ess(chains, method="quantile", prob=prob)) for prob in (0.05, 0.95)]
    assert diagnostics.ess(chains, "tail") == pytest.approx(min(quantiles), rel=1e-12)
    assert diagnostics.ess(chains, "tail") != pytest.approx(diagnostics.ess(chains), rel=0.01)


@pytest.mark.parametrize(("chains", "draws"), [(1, 2000), (2, 1000), (8, 250)])
def test_chains_in_agreement_exceed_the_rhat_by_chance_once_in_a_thousand(chains: int, draws: int) -> None:
    rng = np.random.default_rng(0)
    bound = diagnostics.rhat_by_chance(chains, chains * draws)
    computed = np.array([diagnostics.rhat(rng.normal(size=(chains, draws))) for _ in range(300)])
    assert (computed > bound).sum() <= 2
    assert np.quantile(computed, 0.98) - 1 > 0.3 * (bound - 1)  # no bound that nothing could reach
    slow = diagnostics.rhat_by_chance(chains, chains * draws / 10)
    assert slow - 1 == pytest.approx(10 * (bound - 1))


@pytest.mark.parametrize("statistic", [diagnostics.rhat, diagnostics.ess])
@pytest.mark.parametrize("chains", [np.full((4, 100), 0.1), RNG.normal(size=(4, 3))], ids=["constant", "three draws"])
def test_what_has_no_rhat_and_no_effective_draws_is_nan(statistic, chains: np.ndarray) -> None:
    assert math.isnan(statistic(chains))


# --- drift


def test_a_ramp_is_all_trend_whatever_the_chains_levels_and_slopes() -> None:
    slopes = RNG.normal(size=(3, 1, 5))
    ramp = slopes * np.arange(50)[:, None] + 100 * RNG.normal(size=(3, 1, 5))
    assert diagnostics.trend_share(ramp) == pytest.approx(1.0)


def test_independent_draws_have_a_trend_share_of_one_in_their_number() -> None:
    noise = RNG.normal(size=(4, 50, 300))
    assert diagnostics.trend_share(noise) == pytest.approx(1 / 49, rel=0.1)


def test_a_trend_share_is_a_share_of_variance() -> None:
    ramp = np.linspace(-1, 1, 200)[None, :, None]
    wave = np.cos(9 * ramp)  # even in time, so orthogonal to the ramp
    expected = ramp.var() / (ramp.var() + 4 * wave.var())
    assert diagnostics.trend_share(ramp + 2 * wave) == pytest.approx(expected, rel=1e-10)


def test_constant_losses_have_no_trend_and_no_shared_mode() -> None:
    constant = np.full((2, 50, 3), 0.1, np.float64)
    constant -= constant  # exactly zero variance
    assert diagnostics.trend_share(constant) == 0
    assert diagnostics.shared_mode_share(constant) == 0


def test_the_shared_mode_carries_all_of_a_common_signal_and_none_of_an_opposed_one() -> None:
    common = RNG.normal(size=(3, 50, 1))
    assert diagnostics.shared_mode_share(common * np.ones(6)) == pytest.approx(1.0)
    assert diagnostics.shared_mode_share(common * [1, -1, 1, -1]) == pytest.approx(0.0, abs=1e-12)


def test_the_shared_mode_of_equal_correlations() -> None:
    # 1'K1 / (N tr K) = (1 + (N - 1) ρ) / N
    losses = gaussian(4, 5000, blocks([5], 0.3))
    assert diagnostics.shared_mode_share(losses) == pytest.approx((1 + 4 * 0.3) / 5, rel=0.03)


# --- the start


def test_a_start_that_lies_off_is_measured_in_the_scatter_of_equal_stretches() -> None:
    rng = np.random.default_rng(0)
    chains = rng.normal(size=(4, 1000))
    chains[:, :50] += 0.5  # a twentieth of the draws
    means = chains.reshape(4, 20, 50).mean((0, 2))
    expected = (means[0] - means[1:].mean()) / means[1:].std(ddof=1)
    assert expected > 5
    assert diagnostics.transient(chains) == pytest.approx(expected)
    assert diagnostics.transient(-chains) == pytest.approx(-expected)
    assert diagnostics.transient(7 - 3 * chains) == pytest.approx(-expected)


def test_a_short_start_is_seen_by_short_stretches() -> None:
    chains = np.random.default_rng(0).normal(size=(4, 1000))
    chains[:, :10] += 3
    means = chains.reshape(4, 100, 10).mean((0, 2))
    assert diagnostics.transient(chains) == pytest.approx((means[0] - means[1:].mean()) / means[1:].std(ddof=1))


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_stationary_chains_have_no_start(phi: float) -> None:
    scores = [abs(diagnostics.transient(_ar1(4, 500, phi, seed))) for seed in range(100)]
    assert max(scores) < 5
    assert 0.5 < np.median(scores) < 2


def test_what_does_not_move_has_no_start() -> None:
    assert diagnostics.transient(np.zeros((2, 50))) == 0.0
    assert diagnostics.transient(RNG.normal(size=(2, 15))) == 0.0  # no stretch is as long as a draw


# --- single chains


def test_the_spread_of_a_chain_is_relative_to_the_median_chain() -> None:
    unit = RNG.normal(size=(5, 200, 4))
    alone = np.square(unit).mean((1, 2))
    unit *= np.sqrt(np.array([1, 1, 4, 0.01, 1]) / alone)[:, None, None]
    np.testing.assert_allclose(diagnostics.chain_spread(unit), [1, 1, 4, 0.01, 1], rtol=1e-12)
    np.testing.assert_array_equal(diagnostics.chain_spread(np.zeros((3, 9, 2))), 1)


def test_a_chain_that_stands_twice_is_found_whatever_was_added_to_it() -> None:
    chains = RNG.normal(size=(4, 100))
    assert diagnostics.twins(chains) is None
    assert diagnostics.twins(np.concatenate([chains, chains[2:3]])) == (2, 4)
    assert diagnostics.twins(np.concatenate([chains, 5 - 0 * chains[:1] + 3 * chains[1:2]])) == (1, 4)


def test_chains_that_drift_alike_are_no_twins_nor_are_those_that_stand_still() -> None:
    ramp = np.linspace(0, 50, 200)
    drifting = ramp + RNG.normal(size=(4, 200))
    assert np.corrcoef(drifting)[0, 1] > 0.99
    assert diagnostics.twins(drifting) is None
    assert diagnostics.twins(np.zeros((3, 50))) is None
    assert diagnostics.twins(RNG.normal(size=(1, 50))) is None
    assert diagnostics.twins(RNG.normal(size=(3, 3))) is None


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_correlation_of_chains_is_their_share_of_common_noise(share: float) -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=(1, 4000, 6))
    unit = np.sqrt(share) * common + np.sqrt(1 - share) * rng.normal(size=(4, 4000, 6))
    correlation, score = diagnostics.chain_correlation(unit)
    assert correlation == pytest.approx(share, abs=0.02)
    assert score > 5


@pytest.mark.parametrize("phi", [0.0, 0.9])
@pytest.mark.parametrize(("chains", "draws"), [(2, 1000), (4, 200), (8, 400), (8, 170)])
def test_independent_chains_do_not_move_together_however_slow(chains: int, draws: int, phi: float) -> None:
    correlation = [
        diagnostics.chain_correlation(pairs(chains, draws, 10, 0.5, phi, seed) / np.sqrt(draws)) for seed in range(40)
    ]
    assert np.mean([shared for shared, _ in correlation]) == pytest.approx(0, abs=0.02)
    assert max(score for _, score in correlation) < 6
    assert np.median([score for _, score in correlation]) < 1.5


def test_a_drift_that_all_chains_share_is_no_common_noise() -> None:
    unit = np.linspace(-3, 3, 1000)[:, None] + RNG.normal(size=(4, 1000, 5))
    correlation, score = diagnostics.chain_correlation(unit)
    assert abs(correlation) < 0.02
    assert score < 5


@pytest.mark.parametrize("shape", [(1, 400, 3), (4, 79, 3)], ids=["one chain", "few draws"])
def test_too_few_chains_or_draws_say_nothing_of_common_noise(shape: tuple[int, ...]) -> None:
    assert diagnostics.chain_correlation(np.ones(shape) * RNG.normal(size=(1, shape[1], 1))) == (0.0, 0.0)


# --- tails


def test_the_heavy_share_is_what_the_largest_hundredth_carries() -> None:
    unit = np.ones((2, 100, 3))
    unit[0, 7], unit[1, 9] = 10, 20
    assert diagnostics.heavy_share(unit) == pytest.approx((100 + 400) / (100 + 400 + 198))
    assert diagnostics.heavy_share(np.zeros((2, 100, 3))) == 0


def test_the_heavy_share_of_normal_losses() -> None:
    cut = norm.ppf(0.995)  # the mean square beyond it, of one normal number
    exact = 2 * (cut * norm.pdf(cut) + 0.005)
    assert diagnostics.heavy_share(RNG.normal(size=(4, 50_000, 1))) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("index", [0.25, 0.5, 1.0, 1.5])
def test_the_tail_index_of_pareto_numbers(index: float) -> None:
    numbers = (1 - np.random.default_rng(0).uniform(size=(4, 20_000))) ** -index
    assert diagnostics.tail_index(numbers) == pytest.approx(index, abs=0.12)
    assert diagnostics.tail_index(-7 * numbers) == pytest.approx(diagnostics.tail_index(numbers), abs=1e-6)


@pytest.mark.parametrize("freedom", [2, 4])
def test_the_tail_index_of_students_numbers(freedom: int) -> None:
    numbers = np.random.default_rng(0).standard_t(freedom, size=(4, 50_000))
    assert diagnostics.tail_index(numbers) == pytest.approx(1 / freedom, abs=0.12)
    # a product with itself has twice the index: its mean is the variance
    assert diagnostics.tail_index(numbers**2) == pytest.approx(2 / freedom, abs=0.2)


def test_normal_numbers_have_no_heavy_tail_and_few_numbers_none_at_all() -> None:
    assert diagnostics.tail_index(RNG.normal(size=(4, 5000))) < 0.2
    assert math.isnan(diagnostics.tail_index(RNG.normal(size=(4, 20))))
    assert math.isnan(diagnostics.tail_index(np.full((4, 100), 0.1)))


def test_a_flat_direction_forgets_its_start_in_the_relaxation_time() -> None:
    assert diagnostics.relaxation_steps(1e-3, 100.0) == pytest.approx(20.0)
    steps, left = diagnostics.relaxation_steps(1e-4, 100.0), 1.0
    for _ in range(round(steps)):  # the drift alone: w - w* shrinks by 1 - εγ/2 a step
        left *= 1 - 1e-4 * 100 / 2
    assert left == pytest.approx(math.exp(-1), rel=0.01)
    assert diagnostics.relaxation_steps(1e-3, 0.0) == math.inf


# --- matrices


def test_split_agreement_looks_above_the_diagonal_only() -> None:
    first = RNG.normal(size=(8, 8))
    second = first.copy()
    second[np.tril_indices(8)] = RNG.normal(size=36)
    assert diagnostics.split_agreement(first, second) == pytest.approx(1.0)
    assert diagnostics.split_agreement(first, -3 * second + 1) == pytest.approx(-1.0)
    noise = RNG.normal(size=(2, 200, 200))
    assert diagnostics.split_agreement(*noise) == pytest.approx(0.0, abs=0.03)
    assert math.isnan(diagnostics.split_agreement(np.eye(8), first))


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (8, 8)])
def test_leading_modes_are_those_of_the_gram_matrix(shape: tuple[int, int]) -> None:
    rows = RNG.normal(size=shape)
    values, modes = diagnostics.leading_modes(rows, 3)
    exact, vectors = np.linalg.eigh(rows @ rows.T)
    np.testing.assert_allclose(values, exact[::-1][: min(shape)], rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(modes * vectors[:, ::-1].T[:3], axis=1)), 1, rtol=1e-9)
    np.testing.assert_allclose(modes @ modes.T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("shape", [(8, 30), (30, 8)])
def test_eigenvalues_of_a_rank_one_matrix_are_not_negative(shape: tuple[int, int]) -> None:
    values, _ = diagnostics.leading_modes(np.outer(RNG.normal(size=shape[0]), RNG.normal(size=shape[1])), 1)
    assert values.min() >= 0
    np.testing.assert_allclose(values[1:], 0, atol=1e-12)


def test_the_effective_rank_counts_equal_directions() -> None:
    assert diagnostics.effective_rank(np.linalg.eigvalsh(np.eye(9))) == pytest.approx(9)
    assert diagnostics.effective_rank(np.array([5.0, 0, 0])) == pytest.approx(1)
    assert diagnostics.effective_rank(np.array([3.0, 1.0])) == pytest.approx(1.6)
    assert diagnostics.effective_rank(np.zeros(4)) == 0
