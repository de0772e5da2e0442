"""Scores of suspicion against closed forms and loops, what they find against scikit-learn, planted truth."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import losskernel.kernel.loss_kernel
from losskernel import LossKernel, LossTraces
from losskernel.analyses.kernel_scores import groups_of, kernel_scores, surroundings, surroundings_of, trusted
from losskernel.analyses.memorisation.detection import (
    NO_DRAWS,
    Draws,
    clustering,
    detect,
    detection_rows,
    find_twins,
    proportional,
    resampled_counts,
    resampled_draws,
    twin_numbers,
)
from losskernel.analyses.memorisation.memorisation import opinion, suspects, witnesses
from losskernel.errors import InputError

CLASSES = np.array(["ant", "bee", "cat", "dog"])
ALL = ["self_coupling", "mean_loss", "loss_gain", "rival_class", "discordance", "isolation", "opposition"]


def noisy(chains: int = 3, draws: int = 40, probes: int = 14, seed: int = 0, start: bool = True) -> LossTraces:
    """Losses of five shared factors, of which nothing is asked but that they differ."""
    rng = np.random.default_rng(seed)
    losses = rng.normal(size=(chains, draws, 5)) @ rng.normal(size=(5, probes)) + rng.normal(size=(1, 1, probes))
    losses += 0.5 * rng.normal(size=losses.shape)
    traces = LossTraces.from_arrays(losses)
    return LossTraces(traces.dataset.assign(start_losses=("probe", rng.normal(size=probes)))) if start else traces


def mislabelled_factors(per_class: int = 20, wrong: int = 3, seed: int = 0) -> tuple[LossTraces, np.ndarray]:
    """A factor per class: losses of clean probes follow it, those of mislabelled ones go against their true class'.

    Returns traces with the labels class (as given), true_class and mislabelled, `wrong` of each class, and the truth.
    """
    rng = np.random.default_rng(seed)
    true = np.repeat(np.arange(4), per_class)
    marked = np.tile(np.arange(per_class) < wrong, 4)
    given = np.where(marked, (true + 1 + np.arange(4 * per_class) % 3) % 4, true)
    factors = rng.normal(size=(4, 150, 4))
    amplitude = np.where(marked, -3.0, 1.0)
    losses = 5.0 + factors[:, :, true] * amplitude + 0.6 * rng.normal(size=(4, 150, 4 * per_class))
    labels = {"class": CLASSES[given], "true_class": CLASSES[true], "mislabelled": marked}
    traces = LossTraces.from_arrays(losses, labels=labels)
    start = 1.0 + 0.1 * rng.normal(size=4 * per_class)
    return LossTraces(traces.dataset.assign(start_losses=("probe", start))), marked


def scores(traces: LossTraces, given: Any, k: int = 3) -> dict[str, np.ndarray]:
    return kernel_scores(LossKernel.from_traces(traces), traces, given, k)


GIVEN = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0])


# --- scores


def test_scores_of_the_loss_itself_are_its_moments() -> None:
    losses = np.array([[[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]], [[0.0, 2.0], [4.0, 2.0], [2.0, 2.0]]])  # [C, D, N]
    traces = LossTraces.from_arrays(losses)
    traces = LossTraces(traces.dataset.assign(start_losses=("probe", [0.5, 1.0])))
    scored = scores(traces, None)
    # Within chains, four degrees of freedom: (1 + 1 + 4 + 4) / 4 and (1 + 1 + 4) / 4.
    np.testing.assert_allclose(scored["self_coupling"], [2.5, 1.5])
    np.testing.assert_allclose(scored["mean_loss"], [2.0, 1.5])
    np.testing.assert_allclose(scored["loss_gain"], [1.5, 0.5])


def test_scores_equal_loops_over_the_correlations() -> None:
    traces, k = noisy(), 3
    kernel = LossKernel.from_traces(traces)
    scored, R, variance = scores(traces, GIVEN, k), kernel.correlation(), kernel.variance()
    assert list(scored) == ALL
    for probe, same_class in enumerate(GIVEN):
        others = [other for other in range(14) if other != probe]
        by_class = {c: np.mean([R[probe, other] for other in others if GIVEN[other] == c]) for c in range(3)}
        rival = max(mean for c, mean in by_class.items() if c != same_class)
        assert scored["rival_class"][probe] == pytest.approx(rival - by_class[same_class])
        distances = sorted(np.sqrt(2 * (1 - R[probe, other])) for other in others)
        assert scored["isolation"][probe] == pytest.approx(distances[k - 1])
        against = sorted(R[probe, other] for other in others)[:k]
        median = {c: np.sort(variance[c == GIVEN])[(np.sum(c == GIVEN) - 1) // 2] for c in range(3)}
        friends = sorted(R[probe, other] for other in others if variance[other] <= median[GIVEN[other]])[-k:]
        assert scored["opposition"][probe] == pytest.approx(-np.mean(against) - np.mean(friends))
    centred = (traces.losses.values - traces.losses.values.mean(1, keepdims=True)).reshape(-1, 14)
    for probe in range(14):
        rest = centred.sum(1) - centred[:, probe]
        assert scored["discordance"][probe] == pytest.approx(-np.corrcoef(centred[:, probe], rest)[0, 1])


def test_blocks_do_not_change_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = noisy()
    whole = scores(traces, GIVEN)
    monkeypatch.setattr(losskernel.kernel.loss_kernel, "_BLOCK_NUMBERS", 3 * 14)
    assert len(list(LossKernel.from_traces(traces).blocks())) == 5
    for name, values in scores(traces, GIVEN).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-12, err_msg=name)


def test_scores_move_with_the_probes_and_know_no_names() -> None:
    traces = noisy()
    order = np.random.default_rng(3).permutation(14)
    scored = scores(traces, GIVEN)
    moved = scores(LossTraces(traces.dataset.isel(probe=order)), CLASSES[GIVEN][order])
    for name, values in scored.items():
        np.testing.assert_allclose(moved[name], values[order], rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_constant_added_to_a_loss_moves_its_mean_alone_and_a_scale_no_correlation() -> None:
    traces = noisy()
    scored = scores(traces, GIVEN)
    raised = traces.losses.copy(data=traces.losses.values + np.eye(14)[4])
    shifted = scores(LossTraces(traces.dataset.assign(losses=raised)), GIVEN)
    for name in set(ALL) - {"mean_loss", "loss_gain"}:
        np.testing.assert_allclose(shifted[name], scored[name], rtol=1e-9, atol=1e-12, err_msg=name)
    for name in ("mean_loss", "loss_gain"):
        np.testing.assert_allclose(shifted[name], scored[name] + np.eye(14)[4], atol=1e-12)
    grown = traces.losses.copy(data=traces.losses.values * (1 + 4 * np.eye(14)[4]))
    scaled = scores(LossTraces(traces.dataset.assign(losses=grown)), GIVEN)
    for name in ("rival_class", "isolation"):
        np.testing.assert_allclose(scaled[name], scored[name], rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(scaled["self_coupling"], scored["self_coupling"] * (1 + 24 * np.eye(14)[4]))


def test_what_cannot_be_known_is_left_out() -> None:
    traces = noisy(start=False)
    assert list(scores(traces, GIVEN)) == [name for name in ALL if name != "loss_gain"]
    without = [name for name in ALL if name not in ("loss_gain", "rival_class")]
    assert list(scores(traces, None)) == without
    assert list(scores(traces, np.zeros(14))) == without
    # Without labels all probes are one class, and k is as large as it can be.
    np.testing.assert_array_equal(scores(traces, None)["opposition"], scores(traces, np.ones(14))["opposition"])
    np.testing.assert_array_equal(scores(traces, None, 99)["isolation"], scores(traces, None, 13)["isolation"])


def test_a_probe_whose_loss_never_changes_is_alone_and_undisputed() -> None:
    traces = noisy()
    still = traces.losses.copy(data=np.where(np.arange(14) == 2, 1.5, traces.losses.values))
    traces = LossTraces(traces.dataset.assign(losses=still))
    scored = scores(traces, GIVEN)
    assert all(np.isfinite(values).all() for values in scored.values())
    for name, value in (("self_coupling", 0), ("discordance", 0), ("opposition", 0), ("rival_class", 0)):
        assert scored[name][2] == value, name
    assert scored["isolation"][2] == pytest.approx(np.sqrt(2))
    around = surroundings_of(kernel := LossKernel.from_traces(traces), groups_of(kernel, GIVEN), 3)
    assert opinion(GIVEN, around).rival[2] == GIVEN[2]
    assert around.support is not None
    assert around.support[2] == 0


def test_scores_refuse_what_does_not_fit() -> None:
    traces = noisy()
    kernel = LossKernel.from_traces(traces)
    with pytest.raises(InputError, match="k must be >= 1, got 0"):
        kernel_scores(kernel, traces, GIVEN, 0)
    with pytest.raises(InputError, match=r"given has shape \(3,\) for 14 probes"):
        kernel_scores(kernel, traces, GIVEN[:3])
    with pytest.raises(InputError, match="traces hold 3 probes and the kernel 14"):
        kernel_scores(kernel, LossTraces(traces.dataset.isel(probe=slice(3))), GIVEN)
    one = LossTraces(traces.dataset.isel(probe=[0]))
    with pytest.raises(InputError, match="compare probes, got 1; give at least two"):
        scores(one, None)


# --- who is with and who against a probe


def test_half_of_every_class_is_trusted() -> None:
    groups = np.array([0, 1, 0, 1, 0, 2, 0, 1])
    variance = np.array([4.0, 9.0, 1.0, 9.0, 2.0, 7.0, 3.0, 8.0])
    np.testing.assert_array_equal(trusted(variance, groups), [0, 1, 1, 1, 1, 1, 0, 1])  # equals are trusted together


def test_opponents_name_the_rival_and_the_strongest_class_wins() -> None:
    # Four opponents of probe 0: one of class 1 at -0.8, two of class 2 at -0.5, one of its own class at -0.9.
    rows = np.array([[1.0, -0.9, -0.8, -0.5, -0.5, 0.1, 0.3]])
    groups = np.array([0, 0, 1, 2, 2, 1, 2])
    around = surroundings([(slice(0, 1), rows)], np.ones(7), groups, 4)
    assert around.rival is not None
    assert around.support is not None
    assert (around.rival[0], around.support[0]) == (2, pytest.approx(1.0 / 2.7))
    assert around.opposition[0] == pytest.approx(2.7 / 4 - (0.3 + 0.1 - 0.5 - 0.5) / 4)


def test_the_likely_label_of_planted_mislabelled_probes_is_the_true_one() -> None:
    traces, marked = mislabelled_factors()
    kernel, labels = LossKernel.from_traces(traces), traces.labels
    opinions = opinion(labels["class"], surroundings_of(kernel, groups_of(kernel, labels["class"]), 5))
    np.testing.assert_array_equal(opinions.likely, labels["true_class"])
    np.testing.assert_array_equal(opinions.rival[marked], labels["true_class"][marked])
    np.testing.assert_array_equal(opinions.disputed, marked)
    assert (opinions.support[marked] > 0.9).all()
    # A vote of the nearest neighbours would name it of none: they are mislabelled likewise.
    rows = kernel.correlation() - 2 * np.eye(kernel.probes)
    nearest = labels["class"][np.argsort(-rows, axis=1)[:, :2]]
    assert (nearest[marked] == labels["true_class"][marked][:, None]).mean() == 0


def test_witnesses_are_trusted_probes_of_the_likely_class() -> None:
    traces, marked = mislabelled_factors()
    kernel, labels = LossKernel.from_traces(traces), traces.labels
    indices = np.array([0, 30, 41])  # mislabelled, clean, mislabelled
    witnessed = witnesses(kernel, labels["class"], labels["true_class"], indices)
    assert witnessed.probes.shape == (3, 3)
    trust = trusted(kernel.variance(), np.unique(labels["class"], return_inverse=True)[1])
    for index, others, values in zip(indices, witnessed.probes, witnessed.correlations, strict=True):
        assert index not in others
        assert trust[others].all()
        assert (labels["class"][others] == labels["true_class"][index]).all()
        np.testing.assert_allclose(values, kernel.correlation([index])[0, others])
        assert (np.diff(np.abs(values)) <= 0).all()
        assert (values < 0).all() == marked[index]
    alone = witnesses(kernel, labels["class"], np.full(80, "elk"), indices)
    assert (alone.probes == -1).all()


def test_the_table_of_suspects_is_in_order() -> None:
    traces, marked = mislabelled_factors()
    kernel, given = LossKernel.from_traces(traces), traces.labels["class"]
    opinions = opinion(given, surroundings_of(kernel, groups_of(kernel, given), 5))
    values = {"self_coupling": kernel.variance(), "support": np.arange(80.0)}
    table = suspects(kernel, given, opinions, values, "self_coupling", {"mislabelled": marked})
    assert table["rank"].tolist() == list(range(1, 81))
    assert (np.diff(table["score"]) <= 0).all()
    assert table["mislabelled"].tolist() == [True] * 12 + [False] * 68
    np.testing.assert_array_equal(given[table["probe"]], table["given"])
    np.testing.assert_array_equal(table["support_score"], table["probe"])  # a score's name that is taken


# --- what is found


@pytest.mark.parametrize("ties", [False, True])
def test_numbers_of_detection_are_those_of_scikit_learn(ties: bool) -> None:
    rng = np.random.default_rng(1)
    wrong = rng.random(60) < 0.3
    score = rng.normal(size=60) + wrong
    score = np.round(score) if ties else score
    counts = resampled_counts(wrong, 5, seed=0)
    detected = detect(score, wrong, counts)
    for index, count in enumerate(counts):
        assert detected["auroc"][index] == pytest.approx(roc_auc_score(wrong, score, sample_weight=count))
        assert detected["ap"][index] == pytest.approx(average_precision_score(wrong, score, sample_weight=count))
    once = detect(score, wrong)
    assert once["auroc"][0] == pytest.approx(roc_auc_score(wrong, score))
    assert once["ap"][0] == pytest.approx(average_precision_score(wrong, score))
    if not ties:
        highest = np.argsort(-score)[: wrong.sum()]
        assert once["recall"][0] == pytest.approx(wrong[highest].mean())


def test_recall_among_equal_scores_is_that_of_chance() -> None:
    wrong = np.array([True, False, True, False, False, True])
    # The three highest: the first, and two of the four in the middle, of which two are wrong.
    assert detect(np.array([9.0, 5, 5, 5, 1, 5]), wrong)["recall"][0] == pytest.approx((1 + 2 * 2 / 4) / 3)
    assert list(detect(np.ones(6), wrong).values()) == [0.5, 0.5, 0.5]


def test_resamples_keep_how_many_are_wrong() -> None:
    wrong = np.arange(30) < 7
    counts = resampled_counts(wrong, 50, seed=1)
    assert (counts[:, wrong].sum(1) == 7).all()
    assert (counts[:, ~wrong].sum(1) == 23).all()
    assert (counts == resampled_counts(wrong, 50, seed=1)).all()
    assert (counts != resampled_counts(wrong, 50, seed=2)).any()


def test_the_error_over_probes_is_that_of_theory() -> None:
    rng = np.random.default_rng(0)
    wrong = np.arange(300) < 100
    score = rng.normal(size=300) + wrong
    (row,) = detection_rows({"loss": score}, wrong, NO_DRAWS, 500, 0)
    # DeLong, DeLong & Clarke-Pearson 1988
    above = (score[wrong][:, None] > score[~wrong]).astype(float)
    delong = np.sqrt(above.mean(1).var(ddof=1) / 100 + above.mean(0).var(ddof=1) / 200)
    assert row["auroc"] == pytest.approx(above.mean())
    assert row["auroc_se"] == pytest.approx(delong, rel=0.1)
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
    assert row["kind"] == "baseline"
    assert "minus_loss" not in row


def test_differences_are_paired_and_errors_hold_the_draws() -> None:
    rng = np.random.default_rng(0)
    wrong = np.arange(300) < 100
    loss = rng.normal(size=300) + wrong
    near, worse = loss + 0.1 * rng.normal(size=300), rng.normal(size=300)
    given = {"own": near, "loss": loss, "bad": worse}
    drawn = Draws({"own": near + 0.5 * rng.normal(size=(40, 300))}, wrong, 20)
    still = Draws({"own": np.tile(near, (40, 1))}, wrong, 20)
    rows = {row["score"]: row for row in detection_rows(given, wrong, still, 200, 0)}
    assert rows["own"]["rival"] == "loss"
    assert rows["own"]["minus_loss"] == rows["own"]["minus_rival"]
    assert rows["own"]["minus_loss"] == pytest.approx(rows["own"]["auroc"] - rows["loss"]["auroc"])
    assert rows["own"]["minus_loss_se"] < 0.3 * rows["own"]["auroc_se"]  # what both share goes out
    assert rows["own"]["auroc_draws_se"] == 0
    moved = {row["score"]: row for row in detection_rows(given, wrong, drawn, 200, 0)}
    for column in ("auroc", "minus_loss"):
        expected = np.hypot(rows["own"][f"{column}_se"], moved["own"]["auroc_draws_se"])
        assert moved["own"][f"{column}_se"] == pytest.approx(expected)
    item = [detect(values, wrong)["auroc"][0] for values in drawn.scores["own"]]
    assert moved["own"]["auroc_draws_se"] == pytest.approx(np.std(item, ddof=1) * np.sqrt(21 / 19))
    assert moved["loss"]["auroc_draws_se"] == 0


def test_intervals_end_where_the_numbers_do() -> None:
    wrong = np.arange(20) < 5
    score = np.arange(20, 0, -1.0)
    score[4] = 14.5
    (row,) = detection_rows({"loss": score}, wrong, NO_DRAWS, 100, 0)
    assert row["auroc_high"] == 1.0


def test_resampled_scores_scatter_as_draws_do() -> None:
    rng = np.random.default_rng(0)
    losses = rng.normal(size=(4, 500, 30)) * np.linspace(1, 2, 30)
    traces = LossTraces.from_arrays(losses)
    wrong = np.arange(30) < 10
    draws = resampled_draws(traces, np.arange(30) % 3, wrong, 3, 1000, seed=0)
    assert draws is not None
    assert draws.pieces == 20
    factor = np.sqrt(21 / 19)
    variance = np.linspace(1, 2, 30) ** 2
    spread = factor * draws.scores["self_coupling"].std(0, ddof=1) / variance
    assert spread.mean() == pytest.approx(np.sqrt(2 / 2000), rel=0.1)
    spread = factor * draws.scores["mean_loss"].std(0, ddof=1) / np.sqrt(variance)
    assert spread.mean() == pytest.approx(np.sqrt(1 / 2000), rel=0.1)


def test_pieces_that_count_equally_give_the_scores_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = noisy(draws=41)  # pieces of unequal lengths
    same_class = scores(traces, GIVEN)
    equal = SimpleNamespace(exponential=lambda size: np.ones(size))
    monkeypatch.setattr("numpy.random.default_rng", lambda seed: equal)
    draws = resampled_draws(traces, GIVEN, GIVEN == 1, 3, 1000, seed=0)
    assert draws is not None
    assert list(draws.scores) == list(same_class)
    for name, values in same_class.items():
        np.testing.assert_allclose(draws.scores[name], np.tile(values, (40, 1)), rtol=1e-6, atol=1e-9, err_msg=name)


def test_few_draws_or_one_kind_of_probe_leave_no_error_over_draws() -> None:
    traces = LossTraces.from_arrays(np.random.default_rng(0).normal(size=(1, 3, 12)))
    assert resampled_draws(traces, np.zeros(12), np.arange(12) < 3, 3, 100, 0) is None
    assert resampled_draws(noisy(), GIVEN, np.arange(14) < 1, 3, 10, 0) is not None
    assert resampled_draws(noisy(), GIVEN, np.zeros(14, dtype=bool), 3, 10, 0) is None


def test_probes_behind_errors_are_in_proportion() -> None:
    wrong = np.arange(1000) % 10 == 0
    chosen = proportional(wrong, 200)
    assert len(set(chosen.tolist())) == 200
    assert (np.diff(chosen) > 0).all()
    assert wrong[chosen].sum() == 20
    np.testing.assert_array_equal(proportional(wrong, 1000), np.arange(1000))


# --- planted probes


def test_marked_probes_that_are_each_others_neighbours_cluster() -> None:
    marked = np.arange(40) < 8
    ring = np.array(
        [[(probe + step) % 8 if probe < 8 else 8 + (probe + step) % 32 for step in (1, 2)] for probe in range(40)]
    )
    numbers = clustering("clustering", ring, marked, 199, 0)
    assert numbers["clustering"] == 1
    assert numbers["clustering_chance"] == pytest.approx(7 / 39)
    assert numbers["clustering_p"] == pytest.approx(1 / 200)
    apart = np.arange(40) % 5 == 0
    numbers = clustering("x", ring, apart, 199, 0)
    assert numbers["x"] < 0.3
    assert numbers["x_p"] > 0.05


def test_twins_are_ranked_by_how_near_they_are() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(2, 200, 10))
    base[..., 1] = base[..., 0]  # exact
    base[..., 3] = base[..., 2] + 0.3 * rng.normal(size=(2, 200))
    base[..., 5] = base[..., 4] + 2.0 * rng.normal(size=(2, 200))
    base[..., 6] = base[..., 4] + 0.1 * rng.normal(size=(2, 200))  # nearer to 4 than its twin
    numbers = np.array([0, 0, 7, 7, 2, 2, -1, 9, -1, -1])  # the twin of 7 is no probe
    traces = LossTraces.from_arrays(base, ids=[f"p{index}" for index in range(10)])
    twins = find_twins(LossKernel.from_traces(traces), numbers)
    assert twins is not None
    assert twins.ids.tolist() == ["p0", "p1", "p4", "p5", "p2", "p3"]
    assert twins.twins.tolist() == ["p1", "p0", "p5", "p4", "p3", "p2"]
    assert twins.ranks.tolist()[:2] == [1, 1]
    assert twins.ranks[2] == 2
    assert twins.ranks.tolist()[4:] == [1, 1]
    assert twins.correlations.tolist()[:2] == pytest.approx([1, 1])
    said = twin_numbers(twins)
    assert said["twin_nearest"] == pytest.approx(np.mean([1, (twins.ranks[3] == 1) / 2, 1]))
    assert said["twin_rank"] == pytest.approx(twins.ranks.mean())
    assert said["twin_pairs"] == 3
    assert said["twin_nearest_se"] > 0


def test_without_pairs_there_are_no_twins() -> None:
    kernel = LossKernel.from_traces(noisy())
    assert find_twins(kernel, np.full(14, -1)) is None
    assert find_twins(kernel, np.arange(14)) is None


def test_equals_count_in_the_twins_favour() -> None:
    series = np.random.default_rng(0).normal(size=(2, 50, 1))
    kernel = LossKernel.from_traces(LossTraces.from_arrays(np.tile(series, (1, 1, 3))))
    twins = find_twins(kernel, np.array([0, 0, -1]))
    assert twins is not None
    assert twins.ranks.tolist() == [1, 1]
