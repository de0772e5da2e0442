import itertools

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import kendalltau, pearsonr, rankdata, spearmanr

from losskernel.analyses import rank_tests as agreement
from losskernel.analyses.rank_tests import (
    ceiling,
    doubling,
    full_length,
    kendall,
    mantel,
    partial,
    partial_mantel,
    spearman,
    upper,
)


def _symmetric(size: int, seed: int) -> np.ndarray:
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    return matrix + matrix.T


def test_correlations_are_those_of_scipy_and_positive_where_the_nearer_are_more_alike() -> None:
    rng = np.random.default_rng(0)
    distance = rng.integers(1, 5, 300).astype(float)  # ties, as in a taxonomy
    similarity = -distance + rng.normal(size=300)
    assert spearman(similarity, distance) == pytest.approx(spearmanr(-similarity, distance).statistic)
    assert kendall(similarity, distance) == pytest.approx(kendalltau(-similarity, distance).statistic)
    assert spearman(similarity, distance) > 0.5
    assert spearman(-distance, distance) == pytest.approx(1)


def test_correlations_depend_on_order_alone() -> None:
    rng = np.random.default_rng(0)
    similarity, distance, given = rng.normal(size=(3, 100))
    assert spearman(np.exp(3 * similarity), distance) == pytest.approx(spearman(similarity, distance))
    assert kendall(np.exp(3 * similarity), distance) == pytest.approx(kendall(similarity, distance))
    assert partial(np.exp(similarity), distance, -np.exp(given)) == pytest.approx(partial(similarity, distance, given))


def test_what_does_not_vary_has_no_correlation() -> None:
    still, rising = np.ones(5), np.arange(5.0)
    for computed in (
        spearman(still, rising),
        spearman(rising, still),
        kendall(still, rising),
        partial(rising, still, rising),
        partial(rising, -rising, rising),  # nothing is left once the third is known
    ):
        assert np.isnan(computed)
    matrix = _symmetric(5, 0)
    assert all(np.isnan(mantel(np.ones((5, 5)), matrix, 9)))
    assert all(np.isnan(partial_mantel(matrix, _symmetric(5, 1), np.ones((5, 5)), 9)))
    assert all(np.isnan(partial_mantel(matrix, _symmetric(5, 1), matrix, 9)))


def test_kendall_of_very_many_pairs_is_that_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    distance = rng.normal(size=4000)
    similarity = -distance + rng.normal(size=4000)
    whole = kendall(similarity, distance)
    monkeypatch.setattr(agreement, "KENDALL_PAIRS", 1000)
    part = kendall(similarity, distance)
    assert part != whole
    assert part == pytest.approx(whole, abs=0.05)
    assert part == kendall(similarity, distance)


def test_partial_correlation_is_that_of_the_residuals() -> None:
    rng = np.random.default_rng(0)
    given = rng.normal(size=200)
    similarity, distance = given + rng.normal(size=200), rng.normal(size=200) - given
    ranks, known, third = (rankdata(values) for values in (-similarity, distance, given))
    basis = np.column_stack([np.ones(200), third])
    ranks, known = (values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0] for values in (ranks, known))
    assert partial(similarity, distance, given) == pytest.approx(pearsonr(ranks, known).statistic)


# --- Mantel


def test_mantel_is_the_share_of_all_relabellings() -> None:
    similarity, distance = _symmetric(5, 3), _symmetric(5, 4)
    observed = spearman(upper(similarity), upper(distance))
    every = []
    for order in itertools.permutations(range(5)):
        moved = distance[np.ix_(order, order)]
        every.append(spearmanr(-upper(similarity), upper(moved)).statistic)
    exact = np.mean(np.array(every) >= observed - 1e-9)
    test = mantel(similarity, distance, permutations=4000)
    assert test.correlation == pytest.approx(observed)
    assert test.p == pytest.approx(exact, abs=0.025)
    assert (test.low, test.high) == pytest.approx(np.quantile(every, [0.05, 0.95]), abs=0.06)


def test_mantel_counts_relabellings_that_change_nothing() -> None:
    # Two pairs of siblings: of 24 relabellings 8 give the same tree, whatever rounding says.
    distance = squareform([1.0, 3, 3, 3, 3, 1])
    test = mantel(-np.square(distance) / 7, distance, permutations=2000)
    assert test.correlation == pytest.approx(1)
    assert test.p == pytest.approx(8 / 24, abs=0.03)


def test_mantel_finds_points_that_lie_as_their_copies_do() -> None:
    points = np.random.default_rng(0).normal(size=(20, 2))
    distance = squareform(pdist(points))
    test = mantel(-squareform(pdist(points + 0.3 * np.random.default_rng(1).normal(size=(20, 2)))), distance, 199)
    assert test.correlation > 0.7
    assert test.p == 1 / 200
    assert test.low < 0 < test.high < test.correlation


def test_mantel_keeps_its_level() -> None:
    test = [
        mantel(-squareform(pdist(rng.normal(size=(8, 2)))), squareform(pdist(rng.normal(size=(8, 2)))), 39).p
        for rng in map(np.random.default_rng, range(200))
    ]
    assert np.mean(np.array(test) <= 0.1) == pytest.approx(0.1, abs=0.06)
    assert np.mean(test) == pytest.approx(0.5, abs=0.07)


def test_the_diagonal_has_no_part_in_a_test() -> None:
    similarity, distance = _symmetric(6, 0), _symmetric(6, 1)
    other = similarity + np.diag(np.full(6, np.nan))
    assert mantel(other, distance, 99) == mantel(similarity, distance, 99)
    assert partial_mantel(other, distance, other**2, 99) == partial_mantel(similarity, distance, similarity**2, 99)


def _related(rng: np.random.Generator, size: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A similarity and a distance that share a third matrix, and that matrix."""
    third = squareform(pdist(rng.normal(size=(size, 2))))
    noise = (np.triu(rng.normal(size=(size, size)), 1) for _ in range(2))
    similarity, distance = (third + 0.5 * (item + item.T) for item in noise)
    return -similarity, distance, -third


def test_partial_mantel_finds_nothing_where_the_third_matrix_explains_all() -> None:
    results = []
    for seed in range(60):
        similarity, distance, third = _related(np.random.default_rng(seed))
        if seed == 0:
            assert mantel(similarity, distance, 199).p == 1 / 200
        test = partial_mantel(similarity, distance, third, 39, seed)
        assert test.correlation == pytest.approx(partial(upper(similarity), upper(distance), upper(third)))
        results.append(test)
    assert np.mean([item.correlation for item in results]) == pytest.approx(0, abs=0.05)
    assert np.mean([item.p for item in results]) == pytest.approx(0.5, abs=0.15)
    assert np.mean([item.p <= 0.1 for item in results]) < 0.25


def test_partial_mantel_finds_what_the_third_matrix_does_not_explain() -> None:
    rng = np.random.default_rng(0)
    similarity, distance, third = _related(rng)
    ranks = _symmetric(16, 5)
    test = partial_mantel(similarity - ranks, distance + ranks, third, 199)
    assert test.p == 1 / 200
    assert test.correlation > 0.5


def test_partial_mantel_permutes_the_residuals_of_the_null_model() -> None:
    similarity, distance, third = _related(np.random.default_rng(0), size=5)
    ranks, known, given = (rankdata(upper(item)) for item in (-similarity, distance, third))
    ranks, known, given = ((item - item.mean()) / np.linalg.norm(item - item.mean()) for item in (ranks, known, given))
    fit = (known @ given) * given
    residual = np.zeros((5, 5))
    residual[np.triu_indices(5, 1)] = known - fit
    residual += residual.T
    every = []
    for order in itertools.permutations(range(5)):
        moved = fit + upper(residual[np.ix_(order, order)])
        a, b, c = ranks @ given, (moved @ ranks) / np.linalg.norm(moved), (moved @ given) / np.linalg.norm(moved)
        every.append((b - a * c) / np.sqrt((1 - a**2) * (1 - c**2)))
    test = partial_mantel(similarity, distance, third, 4000)
    assert test.correlation == pytest.approx(every[0])
    assert test.p == pytest.approx(np.mean(np.array(every) >= every[0] - 1e-9), abs=0.025)


# --- Reliability


def test_the_law_of_doubling() -> None:
    assert doubling(0.0) == 4  # nothing but noise: correlation grows as the root of the draws
    assert doubling(-0.3) == 4
    assert doubling(0.1) == pytest.approx(6)
    assert doubling(0.25) == doubling(0.9) == np.inf
    for r in (0.02, 0.1, 0.2):
        longer = doubling(r) * r / (1 + (doubling(r) - 1) * r)
        assert np.sqrt(longer / r) == pytest.approx(2)
    assert full_length(0.5) == pytest.approx(2 / 3)
    assert full_length(0.2, growth=3) == pytest.approx(0.6 / 1.4)
    assert ceiling(0.2, 0.16) == pytest.approx(0.5)
    assert ceiling(0.9, 0.5) == 1
    assert np.isnan(ceiling(0.2, 0.0))


def test_doubling_predicts_what_more_draws_bring() -> None:
    rng = np.random.default_rng(0)
    pairs = 200_000
    distance = rng.normal(size=pairs)
    signal = -0.6 * distance + 0.8 * rng.normal(size=pairs)
    halves = [signal + rng.normal(size=pairs) * np.sqrt(20) for _ in range(2)]  # ν = 10 for both together
    observed = spearman(np.mean(halves, axis=0), distance)
    reliability = full_length(spearman(halves[0], -halves[1]))
    assert reliability == pytest.approx(1 / 11, abs=0.01)
    assert ceiling(observed, reliability) == pytest.approx(spearman(signal, distance), abs=0.05)
    longer = signal + rng.normal(size=pairs) * np.sqrt(10 / doubling(reliability))
    assert spearman(longer, distance) == pytest.approx(2 * observed, rel=0.05)
