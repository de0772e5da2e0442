import json
import math
import os
import subprocess
import sys
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from oracles import blocks, gaussian, pairs
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from losskernel import LossKernel, LossTraces, diagnose
from losskernel.analyses import Complexity, Convergence, Embedding, Neighbours, Result, Separation, Spectrum, spectrum
from losskernel.analyses.separation import agreement
from losskernel.errors import InputError
from losskernel.kernel.error_bars import batch_means, bootstrap, replicate_mean
from losskernel.representations.baselines import Logits
from losskernel.runs.preflight import faults_of

TASK = np.repeat(["add", "multiply"], 12)


def _planted(chains: int = 4, draws: int = 150, **given: Any) -> LossTraces:
    """Two tasks of twelve probes, correlated 0.6 within and 0 across, with both signs inside each."""
    signs = np.resize([1.0, 1.0, -1.0], 24)
    losses = 3 + signs * gaussian(chains, draws, blocks([12, 12], 0.6))
    return LossTraces.from_arrays(losses, labels={"task": TASK, "a": np.linspace(-1, 1, 24)}, **given)


def _ask(analysis: Any, traces: LossTraces) -> Result:
    """Call an analysis and check what every result must be."""
    result = analysis(LossKernel.from_traces(traces), traces)
    assert isinstance(result, Result)
    for name, value in result.metrics.items():
        assert isinstance(value, float), name
        assert math.isfinite(value), name
    assert all(isinstance(figure, Figure) for figure in result.figures.values())
    assert plt.get_fignums() == []  # nothing is left open or shown
    return result


# --- Separation


def test_planted_tasks_are_recovered_and_significant() -> None:
    result = _ask(Separation(group="task", permutations=199), _planted())
    metrics = result.metrics
    assert metrics["ari"] == metrics["nmi"] == metrics["purity"] == 1
    for name in ("within", "ari", "nmi", "purity"):
        assert metrics[f"{name}_p"] == 1 / 200
        assert metrics[f"{name}_null"] < metrics[name] / 1.5
    assert metrics["within"] == pytest.approx(0.6, abs=0.06)
    assert metrics["across"] == pytest.approx(metrics["noise_floor"], rel=0.25)
    assert metrics["ratio"] == pytest.approx(metrics["across"] / metrics["within"])
    assert metrics["coupling_within"] == pytest.approx(0.36, abs=0.06)
    assert metrics["coupling_across"] == pytest.approx(0, abs=4 * metrics["coupling_across_se"] + 1e-3)
    assert (metrics["groups"], metrics["probes"]) == (2, 24)
    assert set(result.figures) == {"kernel_matrix", "within_across"}


@pytest.mark.slow
def test_unrelated_probes_do_not_separate() -> None:
    results = [
        _ask(
            Separation(group="task", permutations=39, neighbours=5),
            LossTraces.from_arrays(gaussian(4, 60, np.eye(24), seed), labels={"task": TASK}),
        ).metrics
        for seed in range(6)
    ]
    for name in ("within", "ari", "nmi", "purity"):
        values = [metrics[f"{name}_p"] for metrics in results]
        assert 0.2 < np.mean(values) < 0.9, name
        assert min(values) > 1 / 40, name
    assert np.mean([metrics["ari"] for metrics in results]) == pytest.approx(0, abs=0.1)
    assert np.mean([metrics["purity"] for metrics in results]) == pytest.approx(11 / 23, abs=0.08)


@pytest.mark.parametrize(("groups", "clusters"), [(1, 1), (1, 3), (3, 1), (2, 2), (5, 3), (20, 20)])
def test_agreement_is_scikit_learns_to_the_last_digit(groups: int, clusters: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        ours, theirs = (np.unique(rng.integers(count, size=60), return_inverse=True)[1] for count in (groups, clusters))
        counts = np.eye(ours.max() + 1)[ours].T @ np.eye(theirs.max() + 1)[theirs]
        assert agreement(counts) == (adjusted_rand_score(ours, theirs), normalized_mutual_info_score(ours, theirs))
    same = np.diag(np.bincount(rng.integers(4, size=50)))
    assert agreement(same) == pytest.approx((1.0, 1.0))


def test_separation_counts_pairs_of_different_probes() -> None:
    traces = _planted()
    kernel = LossKernel.from_traces(traces)
    strength = np.abs(kernel.correlation())
    within = [strength[i, j] for i in range(24) for j in range(24) if i != j and TASK[i] == TASK[j]]
    across = [strength[i, j] for i in range(24) for j in range(24) if TASK[i] != TASK[j]]
    result = _ask(Separation(group="task", permutations=9), traces)
    assert result.metrics["within"] == pytest.approx(np.mean(within))
    assert result.metrics["across"] == pytest.approx(np.mean(across))
    table = result.tables["groups"]
    assert table[["group", "other"]].values.tolist() == [["add", "add"], ["add", "multiply"], ["multiply", "multiply"]]
    assert table["pairs"].tolist() == [66, 144, 66]
    assert table["mean_abs_R"][1] == pytest.approx(np.mean(across))


def test_the_errors_of_a_separation_are_those_of_the_bootstrap() -> None:
    traces = _planted(chains=5)
    same = (TASK[:, None] == TASK) & ~np.eye(24, dtype=bool)
    expected = bootstrap(
        LossKernel.from_traces(traces), lambda part: {"within": float(np.abs(part.correlation())[same].mean())}
    )
    metrics = _ask(Separation(group="task", permutations=9), traces).metrics
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-9)
    for name in ("across", "ratio", "ari", "nmi", "purity", "coupling_within", "coupling_across", "noise_floor"):
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]


def test_the_noise_floor_is_the_mean_over_shifts_of_the_chains() -> None:
    traces = _planted()
    kernel = LossKernel.from_traces(traces)
    floors = [np.abs(kernel.null_correlation(shift=shift)).mean() for shift in (1, 2, 3)]
    metrics = _ask(Separation(group="task", permutations=9), traces).metrics
    assert metrics["noise_floor"] == pytest.approx(np.mean(floors))
    assert metrics["noise_floor_se"] == pytest.approx(np.std(floors, ddof=1) / np.sqrt(3))


def test_separation_of_one_chain_has_no_coupling() -> None:
    metrics = _ask(Separation(group="task", permutations=9), _planted(chains=1, draws=600)).metrics
    assert "coupling_within" not in metrics
    assert metrics["ari"] == 1


def test_separation_takes_an_even_part_of_many_probes() -> None:
    metrics = _ask(Separation(group="task", permutations=9, limit=10), _planted()).metrics
    assert metrics["probes"] == 10
    assert metrics["ari"] == 1


def test_separation_bears_constant_probes() -> None:
    losses = _planted().losses.values.copy()
    losses[..., [0, 23]] = 0.1
    metrics = _ask(
        Separation(group="task", permutations=9), LossTraces.from_arrays(losses, labels={"task": TASK})
    ).metrics
    assert metrics["purity"] > 0.9


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"group": 3}, "analysis.separation.group must be a label's name, got 3"),
        ({"group": "task", "neighbours": 0}, "analysis.separation.neighbours must be >= 1"),
        ({"group": "task", "permutations": 0}, "analysis.separation.permutations must be >= 1"),
        ({"group": "task", "limit": 9}, "analysis.separation.limit must be >= 10"),
        ({"group": "task", "limit": 20.5}, "analysis.separation.limit must be a whole number"),
    ],
)
def test_a_separation_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Separation(**given)


def test_separation_needs_two_to_a_hundred_groups(caplog: pytest.LogCaptureFixture) -> None:
    traces = _planted()
    with pytest.raises(
        InputError, match=r"analysis.separation.group=a has 24 distinct values for 24 probes; choose a label of 2 to 12"
    ):
        _ask(Separation(group="a"), traces)
    single = LossTraces.from_arrays(traces.losses.values, labels={"task": ["add"] * 24})
    with caplog.at_level("WARNING"):
        assert _ask(Separation(group="task"), single).metrics == {"groups": 1.0, "probes": 24.0}
    assert "24 probes of 1 task hold no pairs within and across groups; nothing is computed" in caplog.text
    with pytest.raises(InputError, match="there is no probe label 'class'; the labels are a, task"):
        _ask(Separation(group="class"), traces)


# --- Spectrum


def test_the_spectrum_of_two_blocks() -> None:
    traces = _planted(draws=2000)
    result = _ask(Spectrum(modes=3, group="task"), traces)
    # a block of twelve with correlation ρ has the eigenvalues 1 + 11 ρ and, eleven times, 1 - ρ
    exact = np.array([1 + 11 * 0.6] * 2 + [0.4] * 22)
    values = result.tables["eigenvalues"]
    np.testing.assert_allclose(values["eigenvalue"][:2], exact[:2], rtol=0.05)
    assert values["eigenvalue"].sum() == pytest.approx(24)
    np.testing.assert_allclose(values["share"], values["eigenvalue"] / 24)
    assert result.metrics["effective_rank"] == pytest.approx(exact.sum() ** 2 / np.square(exact).sum(), rel=0.05)
    assert result.metrics["effective_rank_covariance"] == pytest.approx(result.metrics["effective_rank"], rel=0.05)
    assert result.metrics["leading_share"] == pytest.approx(7.6 / 24, rel=0.05)
    modes = result.tables["modes"]
    assert list(modes) == ["id", "task", "a", "mode_1", "mode_2", "mode_3"]
    span = modes[["mode_1", "mode_2"]].to_numpy()
    for block in (slice(0, 12), slice(12, 24)):  # each task's common mode lies in the span of the two leading ones
        common = np.zeros(24)
        common[block] = np.resize([1.0, 1.0, -1.0], 24)[block] / np.sqrt(12)
        assert np.linalg.norm(span.T @ common) > 0.99


@pytest.mark.slow
def test_the_spectrums_errors_are_the_scatter_of_independent_runs() -> None:
    runs = [gaussian(4, 200, blocks([6, 6], 0.6), seed) for seed in range(40)]
    answer = [_ask(Spectrum(modes=1), LossTraces.from_arrays(run)).metrics for run in runs]
    for name in ("effective_rank", "effective_rank_covariance", "leading_share"):
        scatter = np.std([metrics[name] for metrics in answer], ddof=1)
        assert np.mean([metrics[f"{name}_se"] for metrics in answer]) == pytest.approx(scatter, rel=0.35)


def test_very_many_probes_have_the_relative_error_of_an_even_part(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = _planted()
    whole = _ask(Spectrum(modes=1), traces).metrics
    monkeypatch.setattr(spectrum, "_PROBES_FOR_ERRORS", 12)
    part = _ask(Spectrum(modes=1), LossTraces.from_arrays(traces.losses.values[..., ::2])).metrics
    scaled = _ask(Spectrum(modes=1), traces).metrics
    assert scaled["effective_rank"] == whole["effective_rank"]
    assert scaled["effective_rank_se"] > 0
    assert scaled["effective_rank_low"] < scaled["effective_rank"] < scaled["effective_rank_high"]
    assert (
        0.3
        < (scaled["effective_rank_se"] / scaled["effective_rank"])
        / (part["effective_rank_se"] / part["effective_rank"])
        < 3
    )


def test_the_spectrum_does_not_need_labels_nor_more_draws_than_probes() -> None:
    result = _ask(Spectrum(modes=2), LossTraces.from_arrays(gaussian(2, 5, np.eye(30))))
    assert len(result.tables["eigenvalues"]) == 10
    assert result.tables["eigenvalues"]["eigenvalue"].sum() == pytest.approx(30)


def test_the_spectrum_refuses_modes_that_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match=r"analysis.spectrum.modes must be >= 1, got 0"):
        Spectrum(modes=0)
    with pytest.raises(InputError, match=r"analysis.spectrum.modes must be <= 6 to be drawn, got 7; lower it"):
        Spectrum(modes=7)


# --- Neighbours


def test_twins_are_each_others_first_neighbours() -> None:
    ids = [f"probe {number}" for number in range(20)]
    traces = LossTraces.from_arrays(pairs(4, 100, 10, rho=0.95), labels={"pair": np.repeat(range(10), 2)}, ids=ids)
    result = _ask(Neighbours(random=20, k=3), traces)
    table = result.tables["neighbours"]
    assert len(table) == 60
    first = table[table["rank"] == 1]
    assert sorted(first["id"]) == sorted(ids)
    assert (first["pair"] == first["neighbour_pair"]).all()
    assert (first["id"] != first["neighbour"]).all()
    assert (first["similarity"] > 0.9).all()
    assert (
        table["similarity"].to_numpy().reshape(20, 3)[:, :-1] >= table["similarity"].to_numpy().reshape(20, 3)[:, 1:]
    ).all()


def test_neighbours_of_chosen_probes_come_first() -> None:
    analysis = Neighbours(probes=[17, 3], random=2, k=12, group="task")
    result, again = _ask(analysis, _planted()), _ask(analysis, _planted())
    table = result.tables["neighbours"]
    assert table["id"].drop_duplicates().tolist()[:2] == [17, 3]
    assert len(table) == 4 * 12
    assert again.tables["neighbours"].equals(table)


def test_neighbours_stand_above_opponents_and_the_nearest_of_baselines() -> None:
    # Pairs move together, and against the pair before or after them: opponents are known.
    sign = np.repeat([1.0, 1.0, -1.0, -1.0], 2)
    covariance = 0.01 * np.eye(8)
    covariance[:4, :4] += np.outer(sign[2:6], sign[2:6])
    covariance[4:, 4:] += np.outer(sign[2:6], sign[2:6])
    features = np.repeat(np.eye(4), 2, axis=0)[[0, 2, 4, 6, 1, 3, 5, 7]]  # probe i is like i + 4
    margin = np.array([-1.0, -1, -1, 2, -1, -1, 3, -1])[:, None]
    traces = LossTraces.from_arrays(gaussian(4, 100, covariance))
    traces = traces.with_baselines({"features": features, "margin": margin})
    analysis = Neighbours(probes=[0], random=0, misclassified=2, k=1, opponents=True, beside=["features"])
    result = _ask(analysis, traces)
    table = result.tables["neighbours"]
    assert table["id"].tolist() == [0] * 3 + [3] * 3 + [6] * 3
    assert table["by"].tolist() == ["nearest by R", "lowest R", "features"] * 3
    assert table["neighbour"][[0, 2, 3, 5, 6, 8]].tolist() == [1, 4, 2, 7, 7, 2]
    assert set(table["neighbour"][[1]]) <= {2, 3}
    assert (table["similarity"][table["by"] == "lowest R"] < -0.9).all()
    np.testing.assert_allclose(table["similarity"][table["by"] == "features"], 1)
    texts = [text.get_text() for axes in result.figures["neighbours"].axes for text in axes.texts]
    assert texts.count("lowest R") == 3
    with pytest.raises(InputError, match=r"neighbours needs the baseline logits; there are: features, margin"):
        _ask(Neighbours(beside=["logits"]), traces)
    with pytest.raises(InputError, match=r"analysis.neighbours.beside=margin is a score, no features; take it out"):
        _ask(Neighbours(beside=["margin"]), traces)
    right = traces.with_baselines({"margin": -np.ones((8, 1))})
    with pytest.raises(InputError, match=r"misclassified=2, but the network takes no probe for another class"):
        _ask(Neighbours(random=0, misclassified=2), right)
    # Chosen, random and misclassified probes are never the same ones.
    every = _ask(Neighbours(probes=[6, 0], random=5, misclassified=2, k=1), traces).tables["neighbours"]
    assert sorted(every["id"]) == sorted(set(every["id"]))
    # A run refuses it before any compute.
    (fault,) = faults_of({"analyses": {"neighbours": Neighbours(misclassified=1)}, "baselines": {"logits": Logits()}})
    assert fault.startswith("analysis.neighbours needs the baseline margin, there are: logits; choose baselines=")


def test_there_are_no_more_neighbours_than_other_probes() -> None:
    result = _ask(Neighbours(random=2, k=12), LossTraces.from_arrays(gaussian(2, 20, np.eye(5))))
    assert len(result.tables["neighbours"]) == 2 * 4


@pytest.mark.parametrize("channels", [1, 3])
def test_neighbours_of_images_show_their_thumbnails(channels: int) -> None:
    traces = _planted()
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, channels), dtype=np.uint8)
    traces = LossTraces(traces.dataset.assign(thumbnails=(("probe", "height", "width", "colour"), images)))
    figure = _ask(Neighbours(random=3, k=4), traces).figures["neighbours"]
    shown = [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]
    assert len(shown) == 3 * 5
    scale = 255 if shown[0].dtype.kind == "f" and shown[0].max() <= 1 else 1
    assert any(np.allclose(scale * shown[0].squeeze(), image.squeeze()) for image in images)


def test_neighbours_bear_probes_without_labels() -> None:
    assert _ask(Neighbours(random=2, k=2), LossTraces.from_arrays(gaussian(2, 20, np.eye(6)))).figures


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"random": -1}, "analysis.neighbours.random must be >= 0"),
        ({"k": 0}, "analysis.neighbours.k must be >= 1"),
        ({"k": 13}, "analysis.neighbours.k must be <= 12 to be drawn, got 13; lower it"),
        ({"random": 0}, "analysis.neighbours has no probes; raise analysis.neighbours.random"),
        ({"misclassified": -1}, "analysis.neighbours.misclassified must be >= 0"),
        ({"opponents": "false"}, "analysis.neighbours.opponents must be true or false, got 'false'"),
        ({"beside": None}, "analysis.neighbours.beside must be a list, got None"),
        ({"probes": [3, 3]}, r"analysis.neighbours.probes names one twice: \[3, 3\]; name each once"),
        ({"beside": "logits"}, r"analysis.neighbours.beside must be a list, got 'logits'; e.g. \[logits\]"),
    ],
)
def test_neighbours_of_nothing_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Neighbours(**given)


def test_neighbours_of_an_unknown_probe_are_refused() -> None:
    with pytest.raises(InputError, match=r"analysis.neighbours.probes: no probe has the id 99"):
        _ask(Neighbours(probes=[99]), _planted())


# --- Complexity


def _regular(nbeta: float, size: int = 12, samples: int = 300, train_size: int = 300) -> LossTraces:
    """Exact draws from the posterior of a regular model: L_n = 0.3 + wᵀHw / 2, losses l_i = l_i(0) + b_iᵀw.

    H = Σ b_i b_iᵀ / n, as where the loss is a negative log likelihood at its optimum.
    """
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(samples, size)) * rng.uniform(0.2, 2, size)
    hessian = gradients.T @ gradients / samples
    weights = gaussian(4, 3000, np.linalg.inv(nbeta * hessian), seed=1)
    start = rng.uniform(1, 2, samples)
    meta = {
        "identity": {"sampler": {"nbeta": nbeta}},
        "start_train_loss": {"value": 0.3, "samples": samples},
        "train_size": train_size,
    }
    traces = LossTraces.from_arrays(start + weights @ gradients.T, meta=meta)
    train_loss = 0.3 + np.einsum("cdi,ij,cdj->cd", weights, hessian, weights) / 2
    return LossTraces(traces.dataset.assign(train_loss=(("chain", "draw"), train_loss), start_losses=("probe", start)))


@pytest.mark.parametrize("nbeta", [1.0, 300.0])
def test_the_learning_coefficient_of_a_regular_model_is_half_its_dimension(nbeta: float) -> None:
    metrics = _ask(Complexity(), _regular(nbeta)).metrics
    assert metrics["llc"] == pytest.approx(12 / 2, abs=4 * metrics["llc_se"])
    # the mean of 12,000 draws of χ²₁₂ / 2, over four chains
    assert metrics["llc_se"] == pytest.approx(np.sqrt(24) / 2 / np.sqrt(12_000), rel=0.9)


def test_the_singular_fluctuation_of_a_regular_model_is_half_its_dimension_too() -> None:
    metrics = _ask(Complexity(), _regular(300.0)).metrics
    assert metrics["singular_fluctuation"] == pytest.approx(12 / 2, rel=0.03)
    assert metrics["singular_fluctuation_se"] < 0.2


def test_waic_of_normal_losses() -> None:
    traces = _regular(300.0)
    losses = traces.losses.values
    # -log E exp(-l) = mean - variance / 2 for normal l; then + (nβ / n) variance, here with β = 1
    expected = losses.mean() + losses.var(axis=1).mean() / 2
    assert _ask(Complexity(), traces).metrics["waic"] == pytest.approx(expected, abs=2e-3)
    colder = traces.meta | {"train_size": 600}
    half = LossTraces(traces.dataset.assign_attrs(provenance=json.dumps(colder)))
    assert _ask(Complexity(), half).metrics["waic"] == pytest.approx(losses.mean(), abs=2e-3)


def test_the_gain_is_the_mean_loss_above_the_start() -> None:
    traces = _regular(300.0)
    result = _ask(Complexity(), traces)
    start = traces.record("start_losses")
    assert result.metrics["gain"] == pytest.approx(float((traces.losses.values - start).mean()))
    table = result.tables["probes"]
    np.testing.assert_allclose(table["self_coupling"], LossKernel.from_traces(traces).variance())
    np.testing.assert_allclose(table["mean_loss"], traces.losses.values.mean((0, 1)))
    np.testing.assert_allclose(table["gain"], table["mean_loss"] - table["loss"], atol=1e-12)


def test_complexity_says_only_what_the_trace_allows() -> None:
    result = _ask(Complexity(), _planted())
    assert result.metrics == {}
    assert list(result.tables["probes"]) == ["id", "task", "a", "self_coupling", "mean_loss"]


def test_one_chain_has_errors_too_from_stretches_of_its_draws() -> None:
    alone = LossTraces(_regular(1.0).dataset.isel(chain=[0]))
    metrics = _ask(Complexity(), alone).metrics
    assert metrics["llc"] == pytest.approx(12 / 2, abs=4 * metrics["llc_se"])
    assert metrics["llc_se"] == pytest.approx(np.sqrt(24) / 2 / np.sqrt(3000), rel=0.5)


def test_the_errors_of_complexity_are_the_scatter_of_independent_runs() -> None:
    whole = _regular(300.0)
    parts = [LossTraces(whole.dataset.isel(draw=slice(100 * part, 100 * part + 100))) for part in range(30)]
    answer = [_ask(Complexity(), part).metrics for part in parts]
    for name in ("llc", "singular_fluctuation", "waic", "gain"):
        scatter = np.std([metrics[name] for metrics in answer], ddof=1)
        assert np.mean([metrics[f"{name}_se"] for metrics in answer]) == pytest.approx(scatter, rel=0.4), name


# --- Convergence


def test_convergence_reports_the_diagnosis_and_every_chain() -> None:
    traces = _planted()
    rng = np.random.default_rng(0)
    distance = rng.uniform(1, 2, (4, 150))
    traces = LossTraces(
        traces.dataset.assign(
            distance=(("chain", "draw"), distance),
            train_loss=(("chain", "draw"), rng.uniform(1, 2, (4, 150))),
            burn_in_loss=(("chain", "burn_in_batch"), rng.uniform(1, 2, (4, 20))),
            start_losses=("probe", np.ones(24)),
        ).assign_attrs(
            provenance=json.dumps(
                {"identity": {"schedule": {"thinning": 5, "burn_in": 100}}, "start_train_loss": {"value": 1.0}}
            )
        )
    )
    result = _ask(Convergence(), traces)
    expected = batch_means("distance", distance)
    assert {name: result.metrics.pop(name) for name in expected} == pytest.approx(expected)
    assert result.metrics == diagnose(traces).metrics
    assert result.tables["screens"].to_dict("records") == diagnose(traces).screens
    table = result.tables["chains"]
    mean_loss = traces.losses.values.mean(axis=2)
    np.testing.assert_allclose(table["mean_loss"], mean_loss.mean(1))
    np.testing.assert_allclose(table["sd_loss"], mean_loss.std(1, ddof=1))
    np.testing.assert_allclose(table["mean_distance"], distance.mean(1))
    assert (table["ess"] > 60).all()
    assert (table["trend_share"] < 0.1).all()
    assert set(result.figures) == {"loss_traces"}


def test_convergence_runs_on_bare_losses() -> None:
    result = _ask(Convergence(), _planted())
    assert "distance" not in result.metrics
    assert "mean_distance" not in result.tables["chains"]


def test_convergence_gives_what_was_measured_once_a_chain_its_error() -> None:
    traces, measured = _planted(), np.array([90.0, 100, 110, 120])
    records = {"curvature": measured, "step_inflation": measured / 100, "acceptance": measured / 200}
    about = {"identity": {"sampler": {"step_size": 1e-3, "nbeta": 1.0}}}
    dataset = traces.dataset.assign({name: ("chain", values) for name, values in records.items()})
    metrics = _ask(Convergence(), LossTraces(dataset.assign_attrs(provenance=json.dumps(about)))).metrics
    for name, values in records.items():
        numbers = {key: metrics[key] for key in (name, f"{name}_se", f"{name}_low", f"{name}_high")}
        assert numbers == pytest.approx(replicate_mean(name, values, np.median(values)))
    assert metrics["stiffness"] == pytest.approx(0.105)


# --- Embedding

_MAPS = """
import json, sys
import numpy as np
from losskernel import LossKernel, LossTraces
from losskernel.analyses import Embedding

sys.path.insert(0, "tests")
from oracles import blocks, gaussian

task = np.repeat(["add", "multiply"], 7)
losses = gaussian(4, 100, blocks([7, 7], 0.8))
traces = LossTraces.from_arrays(losses, labels={"task": task, "a": np.linspace(0, 1, 14)})
kernel = LossKernel.from_traces(traces)
first, again = (Embedding(neighbours=5)(kernel, traces) for _ in range(2))
other = Embedding(neighbours=5, seed=1, colour_by=["a"])(kernel, traces)
tables = [result.tables["map"] for result in (first, again, other)]
print(json.dumps({
    "columns": list(tables[0]),
    "points": tables[0][["x", "y"]].values.tolist(),
    "finite": bool(np.isfinite(tables[0][["x", "y", "x3", "y3", "z3"]].values).all()),
    "same": tables[0].equals(tables[1]),
    "other": tables[0].equals(tables[2]),
    "kept": first.metrics["neighbours_kept"],
    "figures": [sorted(first.figures), sorted(other.figures)],
    "types": sorted({type(figure).__name__ for figure in first.figures.values()}),
    "page": first.pages["map"][:200].lstrip()[:15].lower(),
}))
"""


def test_a_map_keeps_neighbours_together_and_the_same_seed_gives_the_same_map() -> None:
    # without compilation UMAP maps a few probes in a second instead of fifteen; it is decided at import
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", _MAPS], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["columns"] == ["id", "task", "a", "x", "y", "x3", "y3", "z3"]
    assert document["finite"]
    assert document["same"]
    assert not document["other"]
    assert 0.5 < document["kept"] <= 1
    assert document["figures"] == [["map_3d", "map_a", "map_task"], ["map_3d", "map_a"]]
    assert document["types"] == ["Figure"]
    assert document["page"] == "<!doctype html>"
    points = np.array(document["points"])
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (distance.argmin(1) // 7 == np.arange(14) // 7).all()  # every nearest point on the map is of its task


def test_an_embedding_needs_neighbours_and_probes(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"analysis.embedding.neighbours must be >= 2, got 1"):
        Embedding(neighbours=1)
    with caplog.at_level("WARNING"):
        assert not _ask(Embedding(), LossTraces.from_arrays(gaussian(2, 20, np.eye(9)))).metrics
    assert "analysis.embedding: a map needs 10 probes or more, got 9; nothing is computed" in caplog.text


@pytest.mark.parametrize("analysis", [Separation(group="task"), Spectrum()], ids=["separation", "spectrum"])
def test_losses_that_never_change_end_no_run(analysis: Any, caplog: pytest.LogCaptureFixture) -> None:
    traces = LossTraces.from_arrays(np.ones((2, 20, 12)), labels={"task": ["a", "b"] * 6})
    with caplog.at_level("WARNING"):
        result = _ask(analysis, traces)
    assert "no loss ever changes; nothing is computed" in caplog.text
    assert not result.figures
