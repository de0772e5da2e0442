"""Noise of sampled kernels is what it is said to be, and chance and single inputs are told from agreement."""

import math

import numpy as np
import pytest
from arranged import geodesic, kernels

from losskernel.errors import InputError
from losskernel.geometry import (
    AngularCKA,
    Bures,
    Point,
    benjamini_hochberg,
    corrected_cosines,
    jackknife,
    noise_floor,
    permutation_null,
    permutation_nulls,
    reliability,
)
from losskernel.geometry.centring import CENTRINGS, centred
from losskernel.geometry.significance import halves

RNG = np.random.default_rng(0)
SPACE = AngularCKA("u")


def sampled(true: np.ndarray, rng: np.random.Generator, chains: int = 4, draws: int = 25) -> Point:
    """The covariance of Gaussian draws whose own is `true` [N, d], as its factor."""
    return Point.from_draws([true @ rng.normal(size=(true.shape[1], draws)) for _ in range(chains)])


def two_kernels(inputs: int = 40) -> tuple[np.ndarray, np.ndarray]:
    shared, separate = RNG.normal(size=(inputs, 12)), RNG.normal(size=(2, inputs, 12))
    return shared + 0.8 * separate[0], shared + 0.8 * separate[1]


def test_reliability_is_the_cosine_with_another_sample() -> None:
    true, _ = two_kernels()
    rng = np.random.default_rng(1)
    points = [sampled(true, rng) for _ in range(40)]
    between = SPACE.gram(points)[np.triu_indices(40, 1)]
    rho = np.array([reliability(point, SPACE) for point in points])
    assert 0.5 < between.mean() < 0.95
    assert rho.mean() == pytest.approx(between.mean(), abs=0.01)
    floor = noise_floor(rho)
    assert np.cos(floor[np.triu_indices(40, 1)]).mean() == pytest.approx(between.mean(), abs=0.01)
    np.testing.assert_allclose(np.cos(np.diag(floor)), rho)


def test_corrected_cosines_are_those_without_noise() -> None:
    first, second = two_kernels()
    truth = SPACE.gram([Point.from_features(first), Point.from_features(second)])[0, 1]
    rng = np.random.default_rng(2)
    raw, corrected = [], []
    for _ in range(150):
        pair = [sampled(first, rng, draws=10), sampled(second, rng, draws=10), Point.from_features(second)]
        cosines = SPACE.gram(pair)
        result = corrected_cosines(cosines, [reliability(half, SPACE) for half in pair])
        raw.append(cosines[0, 1:])
        corrected.append(result[0, 1:])
        np.testing.assert_array_equal(np.diag(result), 1)
    assert np.mean(raw, axis=0)[0] < 0.85 * truth  # noise restarts kernels apart
    np.testing.assert_allclose(np.mean(corrected, axis=0), truth, rtol=0.04)


def test_draws_make_a_kernel_longer_than_it_is_by_what_gaussian_draws_add() -> None:
    # E |K'|² = |K|² (1 + (1 + tr(K)² / |K|²) / (T - 1)); products of independent samples have no such bias.
    true, _ = two_kernels()
    kernel, draws, rng = true @ true.T, 20, np.random.default_rng(3)
    samples = [sampled(true, rng, chains=1, draws=draws).gram() for _ in range(400)]
    squares = np.mean([(half**2).sum() for half in samples])
    separate = (kernel**2).sum()
    expected = 1 + (1 + np.trace(kernel) ** 2 / separate) / (draws - 1)
    assert expected > 1.5
    assert squares / separate == pytest.approx(expected, rel=0.02)
    products = np.mean([(a * b).sum() for a, b in zip(samples[::2], samples[1::2], strict=True)])
    assert products / separate == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("form", ["covariance", "correlation"])
def test_halves_are_the_kernels_of_their_chains(form: str) -> None:
    chains = [3 + RNG.normal(size=(9, draws)) * (1 + np.arange(9))[:, None] for draws in (6, 8, 5)]
    result = halves(Point.from_draws(chains, form=form))
    assert [half.chains for half in result] == [(6, 5), (8,)]
    for part, separate in zip(result, (chains[::2], chains[1::2]), strict=True):
        np.testing.assert_allclose(part.gram(), Point.from_draws(separate, form=form).gram(), atol=1e-12)


def test_an_input_without_variance_stays_without() -> None:
    chains = [RNG.normal(size=(8, 10)) for _ in range(2)]
    for half in chains:
        half[3] = 2.0
    chains[0][5] = 1.0  # moves in one half only
    for part in halves(Point.from_draws(chains, form="correlation")):
        assert np.isfinite(part.gram()).all()
        assert (part.gram()[3] == 0).all()
    assert 0 <= reliability(Point.from_draws(chains, form="correlation"), SPACE) < 1


def test_what_was_not_sampled_has_no_noise_and_what_is_noise_has_no_reliability() -> None:
    features = RNG.normal(size=(10, 3))
    assert reliability(Point.from_features(features), SPACE) == 1
    assert math.isnan(reliability(Point.from_draws([features]), SPACE))
    flat = Point.from_draws([np.ones((6, 4)), np.ones((6, 4))])
    assert reliability(flat, SPACE) == 0
    # Chains that see opposite kernels: the cosine of the halves is below 0.
    first = np.kron([1, 1, -1, -1], np.ones(2))[:, None] * RNG.normal(size=(1, 30))
    second = np.kron([1, -1, 1, -1], np.ones(2))[:, None] * RNG.normal(size=(1, 30))
    opposed = Point.from_draws([first, second])
    assert SPACE.gram(halves(opposed))[0, 1] < 0
    assert reliability(opposed, SPACE) == 0
    with pytest.raises(InputError, match="halves need >= 2 chains, got 0"):
        halves(Point.from_features(features))
    sampled_point = Point.from_draws([features, RNG.normal(size=(10, 3))])
    with pytest.raises(InputError, match=r"ratio of cosines, which Bures.* has none of; use AngularCKA"):
        reliability(sampled_point, Bures())


def test_what_is_not_known_is_not_corrected() -> None:
    cosines = np.array([[1.0, 0.4, 0.2], [0.4, 1.0, 0.1], [0.2, 0.1, 1.0]])
    result = corrected_cosines(cosines, [0.64, 1.0, 0.0])
    assert result[0, 1] == pytest.approx(0.5)
    assert np.isnan(result[2, :2]).all()
    assert np.isnan(corrected_cosines(cosines, [1, np.nan, 1])[1, 0])
    assert cosines[0, 1] == 0.4
    np.testing.assert_allclose(noise_floor([1.0, 0.25]), np.arccos([[1, 0.5], [0.5, 0.25]]))
    assert np.isnan(noise_floor([1.0, np.nan])[0, 1])
    with pytest.raises(InputError, match=r"cosines must be \[P, P\] for 2 reliabilities, got shape \(3, 3\)"):
        corrected_cosines(cosines, [1, 1])


def test_relabelled_inputs_agree_by_chance_only() -> None:
    p, q = kernels(5, 2, inputs=25)
    null = permutation_null(p, q, SPACE, permutations=2000)
    assert null.cosine == pytest.approx(SPACE.gram([p, q])[0, 1])
    error = null.permuted.std() / math.sqrt(2000)
    assert abs(null.permuted.mean()) < 4 * error
    double = permutation_null(p, q, AngularCKA("double"), permutations=500).permuted.mean()
    kernel = [centred(half.gram(), "double") for half in (p, q)]
    expected = np.trace(kernel[0]) * np.trace(kernel[1]) / 24
    expected /= np.linalg.norm(kernel[0]) * np.linalg.norm(kernel[1])
    assert double == pytest.approx(expected, abs=0.02)
    assert null.quantile(0.5) == pytest.approx(np.median(null.permuted))
    again = permutation_null(p, q, SPACE, permutations=2000)
    np.testing.assert_array_equal(again.permuted, null.permuted)
    assert not np.array_equal(permutation_null(p, q, SPACE, 2000, seed=1).permuted, null.permuted)


def test_p_values_are_uniform_without_agreement_and_least_with_it() -> None:
    rng = np.random.default_rng(6)
    result = []
    for _ in range(60):
        pair = [Point.from_features(rng.normal(size=(16, 3))) for _ in range(2)]
        result.append(permutation_null(*pair, SPACE, permutations=99).p_value)
    assert 0.35 < np.mean(result) < 0.65
    assert np.mean(np.array(result) <= 0.2) < 0.4
    shared = rng.normal(size=(16, 3))
    alike = Point.from_features(shared), Point.from_features(shared + 0.1 * rng.normal(size=(16, 3)))
    assert permutation_null(*alike, SPACE, permutations=99).p_value == 0.01


def test_kernels_that_agree_about_classes_alone_agree_about_nothing_within_them() -> None:
    rng = np.random.default_rng(7)
    classes = np.repeat([2, 5, 9], 10)
    centres = 2 * rng.normal(size=(10, 4))[classes]
    first, second = (Point.from_features(centres + rng.normal(size=(30, 4))) for _ in range(2))
    assert permutation_null(first, second, SPACE, 199).p_value == 1 / 200
    inside = permutation_null(first, second, SPACE, 199, within=classes)
    assert inside.p_value > 0.05
    assert inside.permuted.mean() > 0.5  # classes stay in place
    labels = Point.from_features(np.eye(10)[classes])
    assert permutation_null(first, labels, SPACE, 50, within=classes).p_value == 1  # nothing is moved
    with pytest.raises(InputError, match="within has 3 entries for 30 inputs"):
        permutation_null(first, second, SPACE, within=[1, 2, 3])
    with pytest.raises(InputError, match="permutations must be >= 1, got 0"):
        permutation_null(first, second, SPACE, permutations=0)
    with pytest.raises(InputError, match="different inputs"):
        permutation_null(first, kernels(0, 1)[0], SPACE)


def test_many_kernels_are_tested_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losskernel.geometry.significance._NUMBERS", 2 * 20**2)  # two at a time
    *points, reference = kernels(8, 6)
    together = permutation_nulls(points, reference, SPACE, permutations=30)
    for point, result in zip(points, together, strict=True):
        alone = permutation_null(point, reference, SPACE, permutations=30)
        assert result.p_value == alone.p_value
        np.testing.assert_allclose(result.permuted, alone.permuted, atol=1e-12)


@pytest.mark.parametrize("centring", CENTRINGS)
def test_leaving_inputs_out_is_leaving_them_out(centring: str) -> None:
    space, (p, q) = AngularCKA(centring), kernels(9, 2, inputs=14)
    result = jackknife(p, q, space)
    without = []
    for left_out in range(14):
        kept = np.delete(np.arange(14), left_out)
        without.append(space.gram([Point.from_gram(half.gram()[np.ix_(kept, kept)]) for half in (p, q)])[0, 1])
    np.testing.assert_allclose(result.without, without, atol=1e-12)
    assert result.cosine == pytest.approx(space.gram([p, q])[0, 1])
    np.testing.assert_allclose(result.leverage, result.cosine - np.array(without), atol=1e-12)
    assert result.error == pytest.approx(math.sqrt(13 / 14 * ((without - np.mean(without)) ** 2).sum()))
    angle = np.arccos(without)
    assert result.distance_error == pytest.approx(math.sqrt(13 / 14 * ((angle - angle.mean()) ** 2).sum()))


def test_the_standard_error_is_the_scatter_over_samples_of_inputs() -> None:
    rng = np.random.default_rng(10)
    mix = rng.normal(size=(6, 6))
    cosines, errors = [], []
    for _ in range(150):
        x = rng.normal(size=(60, 6))
        pair = Point.from_features(x), Point.from_features(x @ mix + rng.normal(size=(60, 6)))
        result = jackknife(*pair, SPACE)
        cosines.append(result.cosine)
        errors.append(result.error)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(cosines), rel=0.25)


def test_the_input_that_makes_kernels_alike_is_named() -> None:
    x, y = RNG.normal(size=(30, 4)), RNG.normal(size=(30, 4))
    x[7], y[7] = 30, 30
    result = jackknife(Point.from_features(x), Point.from_features(y), AngularCKA("double"))
    assert result.leverage.argmax() == 7
    assert result.leverage[7] > 0.5
    p, q = kernels(11, 2)
    middle = geodesic(p, q, [0.5])[0]  # no kernel, but centred already
    assert np.isfinite(jackknife(p, middle, SPACE).without).all()


def test_what_cannot_be_left_out_is_refused() -> None:
    small = [Point.from_features(RNG.normal(size=(5, 2))) for _ in range(2)]
    with pytest.raises(InputError, match="a jackknife needs >= 6 inputs, got 5"):
        jackknife(*small, SPACE)
    p, q = kernels(12, 2)
    masked = AngularCKA("masked")
    with pytest.raises(InputError, match="geodesic of masked kernels"):
        jackknife(p, masked.geodesic(p, q, 0.5), masked)
    with pytest.raises(InputError, match="different inputs"):
        jackknife(p, small[0], SPACE)


def test_many_tests_are_adjusted_together() -> None:
    # Benjamini & Hochberg: the i-th smallest of n times n / i, made monotone from above.
    result = benjamini_hochberg([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(result, [0.02, 0.04, np.nan, 0.04, 0.02])
    assert np.isnan(benjamini_hochberg([np.nan])).all()
    with pytest.raises(InputError, match="p-values must lie between 0 and 1"):
        benjamini_hochberg([0.2, 1.5])
