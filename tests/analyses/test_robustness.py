"""Flip radii, their association with scores of the probes, the analysis and its figure."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call
from drawn import collisions, legend, outside, smallest, words
from scipy.stats import kendalltau, spearmanr

from losskernel import LossKernel, LossTraces
from losskernel.analyses import Robustness
from losskernel.analyses import robustness as association
from losskernel.analyses.robustness import Flips, read_flips, relations
from losskernel.errors import InputError
from losskernel.figures import flip_curves
from losskernel.kernel.error_bars import t_quantile

LEVELS = np.array([0.1, 0.2, 0.4, 0.8])


# --- radii


@pytest.mark.parametrize(
    ("shares", "share", "radius", "censored"),
    [
        ([0, 0, 1, 1], 0.5, 0.3, False),  # all or nothing: the middle of the two sizes
        ([1, 1, 1, 1], 0.5, 0.05, False),  # the same from size 0, where nothing flips
        ([0, 0.25, 0.75, 1], 0.5, 0.3, False),
        ([0.1, 0.2, 0.3, 0.7], 0.5, 0.6, False),
        ([0.1, 0.2, 0.5, 0.7], 0.5, 0.4, False),
        ([0, 0.6, 0.2, 0.9], 0.5, 0.1 + 0.1 * 0.5 / 0.6, False),  # the first crossing counts
        ([0, 0.1, 0.3, 0.49], 0.5, 0.8, True),
        ([0, 0.1, 0.3, 0.49], 0.2, 0.3, False),
        ([0, 0, 0, 0], 0.5, 0.8, True),
        ([0, 0, 0, 1], 1.0, 0.8, False),
    ],
)
def test_a_radius_is_where_the_wanted_share_flips(
    shares: list[float], share: float, radius: float, censored: bool
) -> None:
    flips = Flips.of(LEVELS, np.array([shares, [0, 0, 0, 1]]), share)
    assert flips.radii[0] == pytest.approx(radius)
    assert flips.censored[0] == censored
    assert flips.ordered()[0] == (np.inf if censored else pytest.approx(radius))
    assert flips.radii[1] == pytest.approx(0.4 + 0.4 * share)


def test_kinds_that_were_measured_are_read() -> None:
    rows = {"noise_flips": np.tile([0, 1.0], (3, 1)), "noise_levels": np.tile([1.0, 2.0], (3, 1))}
    flips = read_flips(rows | {"margin": np.ones((3, 1))}, ("noise", "adversarial"), 0.5)
    assert list(flips) == ["noise"]
    np.testing.assert_array_equal(flips["noise"].radii, [1.5] * 3)
    with pytest.raises(InputError, match=r"no flips were measured; run again with baselines=\[perturbations\]"):
        read_flips({"margin": np.ones((3, 1))}, ("noise", "adversarial"), 0.5)


# --- association


def _numbers(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [N, 3], rounded radii with censored ones, and two scores to hold fixed."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(count, 3)).round(1)
    radii = np.exp(rng.normal(size=count) - scores[:, 0]).round(1)
    return scores, np.where(radii > np.quantile(radii, 0.9), np.inf, radii), rng.normal(size=(count, 2)) - scores[:, :1]


def test_spearman_is_scipys_with_its_sign_turned() -> None:
    scores, radii, _ = _numbers()
    last = np.where(np.isinf(radii), 1e6, radii)
    expected = [-spearmanr(score, last).statistic for score in scores.T]
    np.testing.assert_allclose(association.spearman(scores, radii), expected, atol=1e-12)
    assert association.spearman(-radii[:, None], radii)[0] == pytest.approx(1)


def test_partial_spearman_has_its_closed_form() -> None:
    scores, radii, held = _numbers()
    score, fixed = scores[:, 0], held[:, 0]
    last = -np.where(np.isinf(radii), 1e6, radii)
    xy, xz, yz = (spearmanr(a, b).statistic for a, b in ((score, last), (score, fixed), (last, fixed)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert association.partial_spearman(scores, radii, held[:, :1])[0] == pytest.approx(expected)
    # monotone changes of what is held, and what is held twice, change nothing
    twice = np.column_stack([np.exp(fixed), fixed**3])
    assert association.partial_spearman(scores, radii, twice)[0] == pytest.approx(expected)
    np.testing.assert_allclose(
        association.partial_spearman(scores, radii, held[:, :0]), association.spearman(scores, radii)
    )


def test_partial_spearman_of_what_is_held_is_unknown() -> None:
    scores, radii, held = _numbers()
    correlation = association.partial_spearman(np.column_stack([np.exp(held[:, 0]), scores[:, 0]]), radii, held)
    assert np.isnan(correlation[0])
    assert np.isfinite(correlation[1])


def test_concordance_counts_pairs() -> None:
    scores, radii, _ = _numbers(30)
    expected = []
    for score in scores.T:
        pairs = [(i, j) for i in range(30) for j in range(30) if radii[i] < radii[j]]
        expected.append(np.mean([(score[i] > score[j]) + (score[i] == score[j]) / 2 for i, j in pairs]))
    np.testing.assert_allclose(association.concordance(scores, radii)[0], expected)
    # without ties and censoring it is Kendall's tau
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 600))
    tau = kendalltau(first, -second).statistic
    assert association.concordance(first[:, None], second)[0][0] == pytest.approx((1 + tau) / 2)
    assert association.concordance(-second[:, None], second)[0][0] == 1
    values, errors = association.concordance(scores, np.full(30, np.inf))
    assert values.tolist() == [0.5] * 3
    assert errors.tolist() == [0.0] * 3


def _pairs(rng: np.random.Generator, count: int, tie: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    score = rng.normal(size=count)
    held = rng.normal(size=(count, 1)) + score[:, None]
    return score[:, None], held, -(tie * score + rng.normal(size=count) + 0.5 * held[:, 0])


@pytest.mark.slow
def test_errors_over_probes_are_those_of_new_probes() -> None:
    rng = np.random.default_rng(0)
    values: list[np.ndarray] = []
    errors: list[np.ndarray] = []
    for _ in range(150):
        score, held, radii = _pairs(rng, 80, 0.6)
        concordance, its_error = association.concordance(score, radii)
        plain = association.spearman(score, radii)
        values.append(np.concatenate([plain, association.partial_spearman(score, radii, held), concordance]))
        if len(errors) < 25:
            both = association.over_probes(score, radii, held, 60, seed=0)
            errors.append(np.concatenate([*both, its_error]))
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(values, axis=0, ddof=1), rtol=0.25)


def test_errors_over_draws_are_the_classical_ones_of_a_mean() -> None:
    pieces = np.random.default_rng(0).normal(size=(8, 3))
    left_out = [np.delete(pieces, number, axis=0).mean(0) for number in range(8)]
    np.testing.assert_allclose(association.over_draws(left_out), pieces.std(0, ddof=1) / np.sqrt(8))


def test_p_values_are_even_where_nothing_is_shared_and_small_where_much_is() -> None:
    rng = np.random.default_rng(0)
    values = []
    for _ in range(60):
        held = rng.normal(size=(40, 1))
        scores = rng.normal(size=(40, 2)) + held  # related to the radii through what is held alone
        values.append(association.permutation_p(scores, -held[:, 0] + rng.normal(size=40), held, 99, seed=0))
    assert 0.4 < np.mean(values) < 0.6
    assert np.mean(np.array(values) < 0.1) < 0.2
    scores, radii, held = _numbers()
    strong = association.permutation_p(np.column_stack([scores, np.ones(60)]), radii, held[:, :0], 199, seed=0)
    assert strong[0] == pytest.approx(1 / 200)
    assert np.isnan(strong[3])  # of a constant nothing can be said


def test_a_table_holds_the_others_fixed_and_joins_both_errors() -> None:
    scores, radii, held = _numbers()
    named = {"own": scores[:, 0], "other": scores[:, 1], "loss": held[:, 0], "margin": held[:, 1]}
    rng = np.random.default_rng(1)
    left_out = [{"own": scores[:, 0] + rng.normal(size=60)} for _ in range(4)]
    table = relations(named, left_out, radii, ["loss", "margin"], 99, seed=0).set_index("score")
    assert table.index.tolist() == list(named)
    assert table["held"].tolist() == ["loss, margin", "loss, margin", "margin", "loss"]
    expected = association.partial_spearman(named["loss"][:, None], radii, held[:, 1:])
    assert table.loc["loss", "partial"] == pytest.approx(expected[0])
    assert table.loc["own", "spearman"] == pytest.approx(association.spearman(scores[:, :1], radii)[0])
    bare = relations(named, [], radii, ["loss", "margin"], 99, seed=0).set_index("score")
    for statistic in ("spearman", "partial", "concordance"):
        # only scores of the kernel know an error over chains
        assert table.loc["other", f"{statistic}_se"] == bare.loc["other", f"{statistic}_se"]
        assert table.loc["own", f"{statistic}_se"] > bare.loc["own", f"{statistic}_se"]  # pyright: ignore
    probes = float(bare.loc["own", "spearman_se"])  # pyright: ignore
    chains = association.over_draws([association.spearman(part["own"][:, None], radii) for part in left_out])[0]
    assert table.loc["own", "spearman_se"] == pytest.approx(np.hypot(probes, chains))
    # four chains make for wider intervals than sixty probes (Welch 1947)
    freedom = (probes**2 + chains**2) ** 2 / (probes**4 / 59 + chains**4 / 3)
    reach = (table["spearman_high"] - table["spearman"]) / table["spearman_se"]
    assert reach["own"] == pytest.approx(t_quantile(freedom))
    assert reach["other"] == pytest.approx(t_quantile(59))


# --- the analysis


@cache
def _planted(probes: int = 60, chains: int = 4, mislabelled: bool = True) -> LossTraces:
    """Losses whose variance falls with the size at which the probe flips; a margin that knows nothing of it."""
    rng = np.random.default_rng(0)
    radius = rng.uniform(0.1, 1.0, size=probes)
    losses = 1 + rng.normal(size=(chains, 100, probes)) * (1.2 - radius)
    labels: dict[str, Any] = {"class": np.arange(probes) % 3}
    if mislabelled:
        labels["mislabelled"] = radius < 0.25
    levels = np.linspace(0.05, 0.9, 12)
    rows = {
        "noise_flips": np.clip(levels / radius[:, None] / 2, 0, 1),
        "noise_levels": np.tile(levels, (probes, 1)),
        "adversarial_flips": (levels > 0.5 * radius[:, None]).astype(np.float32),
        "adversarial_levels": np.tile(levels, (probes, 1)),
        "margin": rng.normal(size=(probes, 1)),
        "features": rng.normal(size=(probes, 5)),
    }
    traces = LossTraces.from_arrays(losses, labels, [f"image {number}" for number in range(probes)])
    start = {"start_losses": ("probe", np.ones(probes) + 0.1 * rng.normal(size=probes))}
    return LossTraces(traces.dataset.assign(start)).with_baselines(rows)


def _ask(traces: LossTraces, **options: Any) -> Any:
    return Robustness(**({"permutations": 99} | options))(LossKernel.from_traces(traces), traces)


@cache
def _answer() -> Any:
    """The analysis of what is planted, with its own settings; tests read it and change nothing."""
    return _ask(_planted())


def test_a_planted_relation_is_found() -> None:
    result = _answer()
    for kind in ("noise", "adversarial"):
        assert result.metrics[f"{kind}_spearman_self_coupling"] > 0.9
        assert result.metrics[f"{kind}_partial_self_coupling"] > 0.9
        assert result.metrics[f"{kind}_concordance_self_coupling"] > 0.85
        assert result.metrics[f"{kind}_spearman_self_coupling_p"] == 0.01
        assert abs(result.metrics[f"{kind}_spearman_margin"]) < 0.35
        assert result.metrics[f"{kind}_spearman_self_coupling_low"] > 0.8
    assert result.metrics["noise_censored"] > 0 == result.metrics["adversarial_censored"]
    assert result.metrics["probes"] == 60
    table = result.tables["robustness"]
    assert table["perturbation"].unique().tolist() == ["noise", "adversarial"]
    known = {"self_coupling", "mean_loss", "loss_gain", "rival_class", "discordance", "isolation"}
    assert known | {"loss", "margin", "mislabelled"} <= set(table["score"])
    assert "features" not in set(table["score"])  # several columns are no score
    assert (table[table["score"] == "self_coupling"]["held"] == "loss, margin").all()
    # those that flip first were planted as mislabelled
    assert (table[table["score"] == "mislabelled"]["spearman"] > 0.4).all()


def test_probes_stand_in_a_table_with_their_radii() -> None:
    traces = _planted()
    table = _answer().tables["robustness_probes"]
    assert table["id"].tolist() == [f"image {number}" for number in range(60)]
    np.testing.assert_array_equal(table["class"], np.arange(60) % 3)
    np.testing.assert_allclose(table["self_coupling"], LossKernel.from_traces(traces).variance())
    np.testing.assert_array_equal(table["mislabelled"], traces.labels["mislabelled"])
    assert table["noise_censored"].dtype == bool
    assert (table["noise_radius"][table["noise_censored"]] == 0.9).all()
    assert (table["noise_radius"][~table["noise_censored"]] < 0.9).all()


def test_the_order_of_the_probes_does_not_matter() -> None:
    traces = _planted()
    order = np.random.default_rng(1).permutation(60)
    turned = LossTraces(traces.dataset.isel(probe=order))
    answer, other = _answer(), _ask(turned)
    exact = [name for name in answer.metrics if not name.endswith(("_se", "_low", "_high", "_p"))]
    assert len(exact) > 20
    for name in exact:
        assert other.metrics[name] == pytest.approx(answer.metrics[name], abs=1e-9), name
    np.testing.assert_allclose(
        other.tables["robustness_probes"]["isolation"], answer.tables["robustness_probes"]["isolation"][order]
    )


def test_one_kind_without_plain_scores_or_several_chains_is_enough() -> None:
    whole = _planted(chains=1, mislabelled=False)
    gone = [name for name in whole.dataset if "adversarial" in str(name) or str(name) in ("baseline_margin",)]
    result = _ask(LossTraces(whole.dataset.drop_vars([*gone, "start_losses"])), label=None, held=["loss"])
    table = result.tables["robustness"].set_index("score")
    assert (table["held"] == "").all()
    np.testing.assert_allclose(table["partial"], table["spearman"])
    assert "rival_class" not in table.index
    assert not {"margin", "loss", "mislabelled"} & set(table.index)
    # the one chain is cut in stretches, so that there is an error over draws
    bare = association.over_probes(
        LossKernel.from_traces(whole).variance()[:, None],
        Flips.of(np.linspace(0.05, 0.9, 12), whole.baselines["noise_flips"]).ordered(),
        np.empty((60, 0)),
        100,
        0,
    )[0][0]
    assert table.loc["self_coupling", "spearman_se"] > bare  # pyright: ignore[reportOperatorIssue]
    assert not any(name.startswith("adversarial") for name in result.metrics)
    assert len(result.figures["flips"].axes) == 2


def test_scores_that_are_one_and_the_same_hold_no_partial() -> None:
    traces = _planted()
    rows = {name: values for name, values in traces.baselines.items() if name != "features"}
    twice = LossTraces(traces.dataset).with_baselines(rows | {"uncertainty": rows["margin"]})
    result = _ask(twice)
    assert "noise_partial_margin" not in result.metrics
    assert np.isfinite(list(result.metrics.values())).all()
    assert result.metrics["noise_partial_self_coupling"] > 0.9


def test_probes_that_never_flip_tell_nothing() -> None:
    traces = _planted()
    still = {name: rows * (0 if name.endswith("flips") else 1) for name, rows in traces.baselines.items()}
    result = _ask(LossTraces(traces.dataset).with_baselines(still))
    assert result.metrics["noise_censored"] == result.metrics["adversarial_censored"] == 1
    assert result.metrics["noise_concordance_self_coupling"] == 0.5
    assert "noise_spearman_self_coupling" not in result.metrics
    assert result.tables["robustness"][["spearman", "partial", "spearman_p", "partial_p"]].isna().all(axis=None)
    assert outside(result.figures["flips"]) == []


def test_neighbours_behind_isolation_can_be_chosen() -> None:
    traces = _planted()
    near, far = (_ask(traces, k=k).tables["robustness_probes"]["isolation"] for k in (1, 20))
    kernel = LossKernel.from_traces(traces)
    np.testing.assert_allclose(near, kernel.neighbors(1).distances[:, -1])
    np.testing.assert_allclose(far, kernel.neighbors(20).distances[:, -1])


def test_without_flips_there_is_a_remedy() -> None:
    traces = LossTraces.from_arrays(np.random.default_rng(0).normal(size=(2, 9, 12)), {"class": np.arange(12) % 2})
    with pytest.raises(InputError, match=r"no flips were measured; run again with baselines=\[perturbations\]"):
        _ask(traces)
    few = LossTraces(_planted().dataset.isel(probe=range(9)))
    with pytest.raises(InputError, match="needs >= 10 probes, got 9; drop the analysis"):
        _ask(few)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": 3}, "analysis.robustness.label must be a label's name or null, got 3"),
        ({"k": 0}, "analysis.robustness.k must be >= 1, got 0"),
        ({"share": 0}, "analysis.robustness.share must be > 0"),
        ({"share": 1.5}, "analysis.robustness.share must be <= 1, got 1.5"),
        ({"held": "loss"}, r"analysis.robustness.held must be a list of scores' names, got 'loss'; e.g. \[loss\]"),
        ({"permutations": 0}, "analysis.robustness.permutations must be >= 1"),
        ({"seed": -1}, "analysis.robustness.seed must be >= 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Robustness(**given)


# --- the figure


def test_the_figure_says_what_it_shows_and_nothing_collides() -> None:
    figure = _answer().figures["flips"]
    said = words(figure)
    for text in (
        "Gaussian noise",
        "adversarial steps",
        "quarters of self-coupling",
        "quarters of isolation",
        "sd of the inputs",
        "ρ = ",
    ):
        assert text in said
    assert legend(figure) == ["lowest quarter", "second", "third", "highest quarter", "mislabelled"]
    assert collisions(figure) == []
    assert outside(figure) == []
    assert smallest(figure) >= 6
    assert figure.get_size_inches()[0] == 7.0


def test_curves_are_the_shares_that_hold_out() -> None:
    scores = np.arange(8.0)
    shares = np.repeat([[0.0, 0.5], [0.0, 0.75], [0.25, 1.0], [1.0, 1.0]], 2, axis=0)
    order = np.random.default_rng(0).permutation(8)
    levels = np.array([0.5, 1.0])
    figure = flip_curves({"noise": (levels, shares[order])}, {"score": scores[order]}, {})
    lines = figure.axes[0].get_lines()
    np.testing.assert_allclose([line.get_ydata() for line in lines], np.c_[np.ones(4), 1 - shares[::2]])
    np.testing.assert_array_equal(lines[0].get_xdata(), [0, 0.5, 1.0])
    assert legend(figure) == ["lowest quarter", "second", "third", "highest quarter"]
    assert figure.get_size_inches()[0] == 3.4
    assert collisions(figure) == outside(figure) == []


def test_long_names_of_what_is_held_are_broken_and_no_marked_probe_draws_no_curve() -> None:
    shares, levels, none = np.zeros((4, 2)), np.array([1.0, 2.0]), np.zeros(4, dtype=bool)
    note = "ρ = 0.12 ± 0.05\nloss, margin, uncertainty, area_under_margin, confident_learning, self_influence fixed:"
    scores = {"self_coupling": np.arange(4.0), "isolation": np.arange(4.0)}
    kinds = {"noise": (levels, shares), "adversarial": (levels, shares)}
    notes = {(score, kind): note for score in scores for kind in kinds}
    figure = flip_curves(kinds, scores, notes, none)
    assert "…" in words(figure)
    assert len(legend(figure)) == 4
    assert collisions(figure) == outside(figure) == []


@pytest.mark.parametrize(
    ("kinds", "scores", "message"),
    [
        ({}, {"score": np.arange(4)}, "kinds and scores must not be empty"),
        ({"noise": (np.ones(2), np.zeros((4, 2)))}, {}, "kinds and scores must not be empty"),
        ({"noise": (np.ones(2), np.zeros((4, 3)))}, {"score": np.arange(4)}, r"noise must be shares \[4, 2\], got"),
        ({"noise": (np.ones(2), np.zeros((3, 2)))}, {"score": np.arange(3)}, "score must be one score for each of 3"),
    ],
)
def test_a_figure_of_nothing_is_refused(kinds: Any, scores: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flip_curves(kinds, scores, {})


# --- the command line


@pytest.mark.slow
def test_the_recipe_runs_and_a_finished_run_can_be_asked_again(tmp_path: Path) -> None:
    small = ["training.steps=30", "schedule.chains=2", "schedule.burn_in=5", "schedule.draws=12", "schedule.thinning=1"]
    few = ["dataset.probes=60", "baselines.noise.draws=2", "logger=none", "progress=false", f"paths.run={tmp_path}"]
    assert call("experiment=robustness", "analysis=[robustness]", *small, *few) == 0
    table = (tmp_path / "tables" / "robustness.csv").read_text()
    for score in ("self_coupling", "isolation", "loss", "margin", "uncertainty", "el2n", "mislabelled"):
        assert score in table
    assert (tmp_path / "figures" / "flips.png").is_file()
    (tmp_path / "tables" / "robustness.csv").unlink()
    again = ["analysis=[robustness]", "analysis.robustness.share=0.25", f"run={tmp_path}"]
    assert call(*again, command="analyse") == 0
    assert "self_coupling" in (tmp_path / "tables" / "robustness.csv").read_text()
