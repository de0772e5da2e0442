import math

import arviz
import numpy as np
import pytest
from oracles import blocks, gaussian, pairs
from scipy.stats import norm, rankdata

from losskernel import diagnostics

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
    assert diagnostics.rhat(chains) == pytest.approx(float(arviz.rhat(chains)), rel=1e-12)


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
    assert diagnostics.ess(chains) == pytest.approx(float(arviz.ess(chains)), rel=1e-12)


def test_effective_draws_of_a_tail_quantile() -> None:
    chains = _ar1(4, 500, 0.5)
    expected = float(arviz.ess(chains, method="quantile", prob=0.05))
    assert diagnostics.ess(chains, tail=0.05) == pytest.approx(expected, rel=1e-12)
    assert diagnostics.ess(chains, tail=0.05) != pytest.approx(diagnostics.ess(chains), rel=0.01)


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


def test_a_drop_is_measured_in_units_of_the_spread() -> None:
    chains = np.array([[7.0], [-3.0]]) + np.repeat([0.0, 1.0], 50)
    assert diagnostics.drop_fraction(chains) == pytest.approx(2.0)  # the spread of half zeros, half ones is 1/2
    assert diagnostics.drop_fraction(-chains) == pytest.approx(-2.0)
    assert diagnostics.drop_fraction(np.zeros((2, 50))) == 0.0


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
