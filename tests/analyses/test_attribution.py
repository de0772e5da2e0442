import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from command import call
from scipy import stats
from torch import nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel import LossKernel, LossTraces
from losskernel.analyses import Attribution
from losskernel.analyses.attribution.attribution import Influences, agreement
from losskernel.analyses.attribution.datamodelling_score import (
    Retrainings,
    ceiling,
    predictions,
    rank_correlation,
    reliability,
    score_methods,
)
from losskernel.analyses.attribution.methods import Method, Roles, bayesian_influence, method_names, method_of
from losskernel.errors import InputError
from losskernel.losses import squared_error
from losskernel.representations.baselines.features import Influence

ROLES = np.array(["query"] * 6 + ["train"] * 30)
SPLIT = Roles.of(ROLES)


def _drawn(seed: int = 0, chains: int = 4, draws: int = 500, bend: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Losses [C, D, 36] of a Gaussian posterior, and the exact K [36, 36]."""
    sigma, linear, quadratic = oracles.quadratic_problem(size=6, probes=36, bend=bend)
    drawn = oracles.weights(sigma, 1, chains, draws, 0.0, np.random.default_rng(seed))[0]
    return oracles.quadratic_losses(drawn, linear, quadratic), oracles.quadratic_kernel(sigma, linear, quadratic)


def _kernel(losses: np.ndarray) -> LossKernel:
    return oracles.kernel_of(losses, labels={"role": ROLES, "class": np.arange(36) % 3})


def _members(subsets: int, seed: int = 0, samples: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    members = np.zeros((samples, subsets))
    for subset in range(subsets):
        members[rng.permutation(samples)[: samples // 2], subset] = 1
    return members


def _outputs(influence: np.ndarray, members: np.ndarray, noise: float, repeats: int, seed: int = 1) -> np.ndarray:
    """Outputs [Q, m, R] that follow a linear datamodel, but for noise in units of each query's own scatter."""
    exact = influence.T @ members
    exact = exact / exact.std(axis=1, keepdims=True)
    shape = (*exact.shape, repeats)
    return exact[..., None] + noise * np.random.default_rng(seed).normal(size=shape)


def _spearman(first: Any, second: Any) -> float:
    correlation: Any = stats.spearmanr(first, second)
    return correlation.statistic


def _exact(influence: np.ndarray, name: str = "exact") -> Method:
    return Method(name, [influence], [np.eye(influence.shape[1])])


@pytest.mark.parametrize("bend", [0.0, 0.5])
def test_bayesian_influence_of_a_gaussian_posterior_is_the_closed_form(bend: float) -> None:
    losses, exact = _drawn(draws=4000, bend=bend)
    kernel = _kernel(losses)
    influence, expected = bayesian_influence(kernel, SPLIT), exact[6:, :6]
    errors = kernel.standard_error(SPLIT.queries)[:, SPLIT.train].T
    assert np.abs((influence - expected) / errors).max() < 5
    assert np.corrcoef(influence.ravel(), expected.ravel())[0, 1] > 0.99
    scale = np.sqrt(np.diag(exact))
    correlation = bayesian_influence(kernel, SPLIT, "correlation")
    np.testing.assert_allclose(correlation, expected / scale[6:, None] / scale[:6], atol=0.06)
    # what the literature writes as -Cov, the change of the query's loss with the sample's weight, has the other sign
    repeats = losses - losses.mean(1, keepdims=True)
    tilted = np.exp(-0.05 * repeats[..., [7]])
    change = (tilted * repeats[..., 0:1]).mean() / tilted.mean()
    assert np.sign(change) == -np.sign(influence[1, 0])


def test_influence_knows_its_measures() -> None:
    with pytest.raises(InputError, match="of must be one of covariance, correlation, got 'coupling'"):
        bayesian_influence(_kernel(_drawn()[0]), SPLIT, "coupling")
    with pytest.raises(InputError, match=r"got 36 queries and 0 training samples; add wrapper=\[joint_probes\]"):
        Roles.of(np.array(["query"] * 36))


def test_a_score_is_the_mean_of_scipys_rank_correlations() -> None:
    rng, members = np.random.default_rng(2), _members(12)
    influence = rng.normal(size=(30, 6)).round(1)
    outputs = rng.normal(size=(6, 12, 3)).round(1)  # with ties
    scored = score_methods([_exact(influence)], Retrainings(members, {"loss": outputs}), replicates=3)
    expected = []
    for query in range(6):
        # a sum of tenths ties in theory, not in its last bits
        predicted = [
            round(sum(influence[sample, query] for sample in range(30) if members[sample, s]), 6) for s in range(12)
        ]
        expected.append(_spearman(predicted, outputs[query].mean(-1)))
    assert scored.numbers["lds_exact"] == pytest.approx(np.mean(expected))
    np.testing.assert_allclose(scored.of_queries("exact", "loss"), expected)
    pairs = [(0, 1), (0, 2), (1, 2)]
    repeats = [[_spearman(outputs[q, :, a], outputs[q, :, b]) for a, b in pairs] for q in range(6)]
    np.testing.assert_allclose(reliability(outputs), np.mean(repeats, axis=1))
    assert scored.numbers["reliability"] == pytest.approx(np.mean(repeats))


def test_ties_take_their_mean_rank_and_constants_none() -> None:
    first, second = np.array([[1.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0]]), np.array([[2.0, 1.0, 1.0, 4.0]] * 2)
    expected = _spearman(first[0], second[0])
    np.testing.assert_allclose(rank_correlation(first, second), [expected, 0.0])


def test_scores_do_not_depend_on_order_or_on_a_querys_own_constant() -> None:
    rng, members = np.random.default_rng(3), _members(20)[:17]  # rows of some training samples only
    influence, outputs = rng.normal(size=(17, 6)), rng.normal(size=(6, 20, 2))
    score = score_methods([_exact(influence)], Retrainings(members, {"loss": outputs}), replicates=2).numbers[
        "lds_exact"
    ]
    samples, subsets, queries = rng.permutation(17), rng.permutation(20), rng.permutation(6)
    moved = influence[samples][:, queries] * rng.uniform(1, 2, 6) + rng.normal(size=6)
    turned = Retrainings(members[samples][:, subsets], {"loss": outputs[queries][:, subsets] * 3 - 1})
    assert score_methods([_exact(moved)], turned, replicates=2).numbers["lds_exact"] == pytest.approx(score)


def test_the_kernels_parts_sum_to_its_influence() -> None:
    kernel, members = _kernel(_drawn()[0]), _members(8)
    for name in ("covariance", "correlation"):
        method = method_of(name, kernel, {}, SPLIT)
        assert len(method.train) == 20
        influence = bayesian_influence(kernel, SPLIT, name)
        np.testing.assert_allclose(method.scores(), influence, atol=1e-12)
        centred = members - members.mean(0)
        np.testing.assert_allclose(predictions(method, members).sum(0), influence.T @ centred, atol=1e-12)


def test_the_ceiling_is_where_a_perfect_method_ends() -> None:
    rng, repeats = np.random.default_rng(4), 3
    influence = rng.normal(size=(30, 40))
    members = _members(300)
    truth = Retrainings(members, {"loss": _outputs(influence, members, noise=1.0, repeats=repeats)})
    scored = score_methods([_exact(influence)], truth, replicates=20).numbers
    # One retraining correlates 1/2 with another; the rank correlation of normal numbers is (6 / π) arcsin (r / 2).
    assert scored["reliability"] == pytest.approx(6 / np.pi * np.arcsin(0.25), abs=0.02)
    assert scored["ceiling"] == pytest.approx(ceiling(scored["reliability"], repeats))
    assert scored["lds_exact"] == pytest.approx(6 / np.pi * np.arcsin(np.sqrt(0.75) / 2), abs=0.02)
    assert scored["lds_exact"] == pytest.approx(scored["ceiling"], abs=0.03)


def test_the_ceiling_by_the_prophecy_formula() -> None:
    assert ceiling(0.5, 1) == pytest.approx(np.sqrt(0.5))
    assert ceiling(0.5, 2) == pytest.approx(np.sqrt(2 / 3))
    assert ceiling(1.0, 5) == 1
    assert ceiling(-0.1, 5) == 0
    with pytest.raises(InputError, match="a noise ceiling needs repeats >= 2 of each subset, got 1; raise repeats"):
        reliability(np.zeros((2, 5, 1)))


def test_chance_is_what_permuted_subsets_give() -> None:
    rng, members = np.random.default_rng(5), _members(25)
    influence = rng.normal(size=(30, 6))
    truth = Retrainings(members, {"loss": _outputs(influence, members, 0.5, 2)})
    judged = score_methods([_exact(influence), _exact(rng.normal(size=(30, 6)), "other")], truth, replicates=99)
    assert judged.chance["lds_exact"][2] == pytest.approx(0.01)  # none of 99 is as good
    assert judged.chance["lds_other"][2] > 0.01
    for low, high, _ in judged.chance.values():
        assert -0.25 < low < 0 < high < 0.25
    ps = [
        score_methods([_exact(rng.normal(size=(30, 6)))], truth, replicates=19, seed=seed).chance["lds_exact"][2]
        for seed in range(60)
    ]
    assert 0.35 < np.mean(ps) < 0.7


@pytest.mark.slow
def test_errors_cover_the_scatter_of_whole_studies() -> None:
    influence = np.random.default_rng(6).normal(size=(30, 60))
    wrong = influence + 1.5 * np.random.default_rng(7).normal(size=influence.shape)
    scores, errors, leads, lead_errors = [], [], [], []
    for study in range(30):
        members = _members(30, seed=study)
        repeats = np.random.default_rng(study).permutation(60)[:12]  # other queries, too
        outputs = _outputs(influence[:, repeats], members, 1.0, 2, seed=study)
        truth = Retrainings(members, {"loss": outputs})
        scored = score_methods(
            [_exact(influence[:, repeats]), _exact(wrong[:, repeats], "wrong")], truth, replicates=30
        ).numbers
        scores.append(scored["lds_wrong"])
        errors.append(scored["lds_wrong_se"])
        leads.append(scored["lead_over_wrong"])
        lead_errors.append(scored["lead_over_wrong_se"])
        assert scored["lds_wrong_low"] < scored["lds_wrong"] < scored["lds_wrong_high"]
        assert scored["lead_over_wrong"] == pytest.approx(scored["lds_exact"] - scored["lds_wrong"])
    assert 0.8 < np.mean(errors) / np.std(scores, ddof=1) < 2
    assert 0.8 < np.mean(lead_errors) / np.std(leads, ddof=1) < 2


def test_the_error_of_a_kernels_score_holds_the_noise_of_its_draws() -> None:
    members = _members(40)
    _, exact = _drawn()
    truth = Retrainings(members, {"loss": _outputs(exact[6:, :6], members, 0.0, 2)})
    numbers = {}
    for draws in (20, 2000):
        kernel = _kernel(_drawn(seed=1, draws=draws)[0])
        numbers[draws] = score_methods([method_of("covariance", kernel, {}, SPLIT)], truth, replicates=60).numbers
    assert numbers[2000]["lds_covariance"] > 0.95
    assert numbers[20]["lds_covariance_se"] > 1.5 * numbers[2000]["lds_covariance_se"]
    assert numbers[20]["repeatability_covariance"] < numbers[2000]["repeatability_covariance"]
    # the agreement of two runs of 20 draws, seen by one of them alone
    runs = [_kernel(_drawn(seed=seed, draws=20)[0]) for seed in range(2, 22)]
    foretold = [predictions(method_of("covariance", item, {}, SPLIT), members).sum(0) for item in runs]
    pairs = [rank_correlation(foretold[k], foretold[k + 1]).mean() for k in range(0, 20, 2)]
    assert numbers[20]["repeatability_covariance"] == pytest.approx(np.mean(pairs), abs=0.12)


def test_methods_are_named_after_what_the_run_has() -> None:
    rng = np.random.default_rng(8)
    rows = {
        "features": rng.normal(size=(36, 4)),
        "trak_query": rng.normal(size=(36, 3)),
        "trak_train": rng.normal(size=(36, 3)),
        "margin": rng.normal(size=(36, 1)),
    }
    names = method_names(rows, "class")
    repeats = ["covariance", "correlation"]
    assert names == [*repeats, "trak", "features", "features_cosine", "same_class", "random"]
    kernel = _kernel(_drawn()[0])
    made = {name: method_of(name, kernel, rows, SPLIT, "class", seed=1).scores() for name in names}
    np.testing.assert_allclose(made["features"], rows["features"][6:] @ rows["features"][:6].T)
    np.testing.assert_allclose(made["trak"], rows["trak_train"][6:] @ rows["trak_query"][:6].T)
    unit = rows["features"] / np.linalg.norm(rows["features"], axis=1, keepdims=True)
    np.testing.assert_allclose(made["features_cosine"], unit[6:] @ unit[:6].T)
    np.testing.assert_array_equal(made["same_class"], (np.arange(36) % 3)[6:, None] == (np.arange(36) % 3)[:6])
    assert not np.array_equal(made["random"], method_of("random", kernel, rows, SPLIT, seed=2).scores())
    with pytest.raises(InputError, match="attribution has no method 'influence'; choose from covariance, correlation"):
        method_of("influence", kernel, rows, SPLIT)
    assert method_names({}, None) == [*repeats, "random"]


def test_methods_agree_with_themselves_and_scale_does_not_matter() -> None:
    influence = np.random.default_rng(9).normal(size=(30, 6))
    table = agreement([_exact(influence), _exact(2 * influence + 1, "scaled"), _exact(-influence, "turned")])
    np.testing.assert_allclose(table.set_index("method"), [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], atol=1e-12)


def test_the_extremes_are_the_largest_of_each_sign() -> None:
    kernel = _kernel(_drawn(draws=2000)[0])
    influences = Influences.of(kernel, SPLIT, top=25)
    for query in range(6):
        values = influences.values[:, query]
        order = np.argsort(-values, kind="stable")
        positive = order[values[order] > 0][:25]
        negative = order[::-1][values[order[::-1]] < 0][:25]
        np.testing.assert_array_equal(influences.helpful[query][influences.helpful[query] >= 0], positive)
        np.testing.assert_array_equal(influences.harmful[query][influences.harmful[query] >= 0], negative)
        assert (influences.helpful[query] == -1).sum() == 25 - len(positive)


def _traces(truth: bool, margins: bool = True, **others: Any) -> LossTraces:
    losses, exact = _drawn()
    members = _members(15)
    outputs = _outputs(exact[6:, :6], members, 0.3, 2).reshape(6, -1)
    given = {"retrained_losses": -outputs, "retrained_margins": outputs, "retrained_members": members}
    rows = {name: np.zeros((36, item.shape[1])) for name, item in given.items()}
    for name, item in given.items():
        rows[name][SPLIT.train if name.endswith("members") else SPLIT.queries] = item
    if not margins:
        del rows["retrained_margins"]
    labels = {"class": np.arange(36) % 3, "role": ROLES}
    names = [f"q{n}" for n in range(6)] + [f"t{n}" for n in range(30)]
    traces = LossTraces.from_arrays(losses, labels, names)
    return traces.with_baselines((rows if truth else {}) | others)


def test_the_analysis_judges_where_there_is_a_truth() -> None:
    traces = _traces(True, features=np.random.default_rng(1).normal(size=(36, 5)))
    kernel = LossKernel.from_traces(traces)
    result = Attribution(replicates=20, top=2)(kernel, traces)
    assert {"lds", "influential", "attribution_agreement"} == set(result.tables)
    assert {"datamodelling", "influential", "predicted_retrained"} == set(result.figures)
    methods = ["covariance", "correlation", "features", "features_cosine", "same_class", "random"]
    assert list(result.tables["lds"]["method"]) == methods * 2
    assert result.metrics["lds_covariance"] > 0.9
    assert result.metrics["lds_covariance"] > result.metrics["lds_features"] + 0.3
    assert result.metrics["lead_over_random_low"] > 0
    assert result.metrics["p_covariance"] == pytest.approx(1 / 21)
    assert result.metrics["margin_lds_covariance"] == pytest.approx(result.metrics["lds_covariance"])
    assert (result.metrics["subsets"], result.metrics["queries"]) == (15, 6)
    assert 0.9 < result.metrics["ceiling"] <= 1
    again = Attribution(replicates=20, top=2)(kernel, traces).metrics
    assert again == result.metrics
    chosen = Attribution(methods=["features", "covariance"], replicates=5)(kernel, traces)
    assert "lead_over_covariance" in chosen.metrics
    assert "lead_over_features" not in chosen.metrics


def test_without_a_truth_there_are_tables_and_sheets() -> None:
    traces = _traces(False)
    kernel = LossKernel.from_traces(traces)
    result = Attribution(top=3, shown=2)(kernel, traces)
    assert result.metrics == {"queries": 6, "training_samples": 30}
    assert set(result.tables) == {"influential", "attribution_agreement"}
    table = result.tables["influential"]
    assert list(table.columns[:4]) == ["query", "direction", "rank", "training_sample"]
    assert len(table) == 6 * 6
    first = table.iloc[0]
    influence = bayesian_influence(kernel, SPLIT)[:, 0]
    assert (first["query"], first["direction"], first["rank"]) == ("q0", "helpful", 1)
    assert first["training_sample"] == f"t{influence.argmax()}"
    assert first["influence"] == pytest.approx(influence.max())
    assert first["class"] == (6 + influence.argmax()) % 3
    assert np.min(table["influence_se"]) > 0
    np.testing.assert_array_equal(np.sign(table["influence"]), np.where(table["direction"] == "helpful", 1, -1))


def test_regression_has_losses_alone() -> None:
    traces = _traces(True, margins=False)
    result = Attribution(label=None, replicates=5)(LossKernel.from_traces(traces), traces)
    assert set(result.tables["lds"]["output"]) == {"loss"}
    assert not any("margin" in name for name in result.metrics)


def test_what_the_analysis_cannot_do_is_named() -> None:
    traces = _traces(True, retrained_losses=np.zeros((36, 31)))
    with pytest.raises(InputError, match="retrained_losses has 31 columns for 15 subsets; retrain again"):
        Attribution()(LossKernel.from_traces(traces), traces)
    with pytest.raises(InputError, match="it needs probes of both roles, got 0 queries and 0 training samples"):
        Attribution().check({"class": np.zeros(3)})
    Attribution().check({"role": ROLES})
    with pytest.raises(InputError, match=r"analysis.attribution.methods must be a list of names or null, got 'trak'"):
        Attribution(methods="trak")
    with pytest.raises(InputError, match=r"analysis.attribution.top must be <= 5 to be drawn, got 6; lower it"):
        Attribution(top=6)
    with pytest.raises(InputError, match=r"analysis.attribution.truth must be a name, got 3"):
        Attribution(truth=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"analysis.attribution.replicates must be >= 2"):
        Attribution(replicates=1)
    two = Retrainings(_members(2), {"loss": np.zeros((6, 2, 1))})
    with pytest.raises(InputError, match="a rank correlation over subsets needs >= 3 of them, got 2; raise subsets"):
        score_methods([_exact(np.zeros((30, 6)))], two)


@pytest.mark.slow
def test_sampled_influence_at_a_low_temperature_is_the_classical_one() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(46, 3)
    targets = inputs.sum(1, keepdim=True) + 0.7 * torch.randn(46, 1)
    train = TensorDataset(inputs[6:], targets[6:])
    ids = list(range(46))
    data = lk.Data(train, TensorDataset(inputs, targets), squared_error, ids=ids, train_ids=ids[6:])
    design = torch.cat([inputs, torch.ones(46, 1)], dim=1)
    best = torch.linalg.lstsq(design[6:], targets[6:]).solution[:, 0]
    model = nn.Linear(3, 1)
    model.weight.data, model.bias.data = best[None, :3], best[3:]
    nbeta, localization = 2000.0, 200.0
    sampler = functools.partial(lk.SGHMC, step_size=2e-4, nbeta=nbeta, localization=localization, momentum=0.8)
    schedule = lk.Schedule(chains=8, burn_in=100, draws=600, thinning=4, batch_size=40)  # without minibatch noise
    kernel = LossKernel.from_traces(lk.sample(model, data, sampler, schedule, progress=False))
    joint = Roles(np.arange(6), np.arange(6, 46))
    computed = nbeta * bayesian_influence(kernel, joint)
    rows = Influence(damping=localization / nbeta)(model, data)
    expected = rows[6:] @ rows[:6].T
    assert np.corrcoef(computed.ravel(), expected.ravel())[0, 1] > 0.98
    assert (computed * expected).sum() / (expected * expected).sum() == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_the_recipe_judges_itself_by_retraining(tmp_path: Path) -> None:
    small = (
        *("experiment=attribution", "logger=none", "progress=false", "threads=1", f"paths.run={tmp_path / 'run'}"),
        *("model.hidden=[8]", "dataset.probes=20", "wrapper.joint_probes.train_limit=100", "training.steps=60"),
        *("baselines.retrained.subsets=5", "baselines.retrained.workers=1", "baselines.trak.size=32"),
        *("schedule.chains=2", "schedule.burn_in=10", "schedule.draws=40", "schedule.thinning=1"),
        *("schedule.batch_size=300", "sampler.step_size=1e-5", "analysis.attribution.replicates=10"),
    )
    assert call(*small) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    methods = ("covariance", "correlation", "trak", "influence", "gradients_cosine", "same_class", "random")
    assert all(-1 <= metrics[f"attribution/lds_{name}"] <= 1 for name in methods)
    assert metrics["attribution/training_samples"] == 100
    assert len(list((tmp_path / "run" / "retrained").glob("*.npz"))) == 10
    for name in ("lds", "influential", "attribution_agreement"):
        assert (tmp_path / "run" / "tables" / f"{name}.csv").is_file()
    for name in ("datamodelling", "influential", "predicted_retrained"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").is_file()
