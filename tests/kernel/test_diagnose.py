import math
from typing import Any

import numpy as np
import pytest
from oracles import blocks, gaussian, pairs

from losskernel import LossTraces, diagnose
from losskernel.kernel.diagnosis.diagnose import Diagnosis

GROUPS = blocks([4, 4, 4], 0.5)


def _diagnose(losses: np.ndarray, **identity: Any) -> Diagnosis:
    return diagnose(LossTraces.from_arrays(losses, meta={"identity": identity} if identity else None))


def _healthy(chains: int = 4, draws: int = 1000) -> np.ndarray:
    return gaussian(chains, draws, GROUPS)


def _sgld(draws: int, **changed: Any) -> dict[str, Any]:
    sampler = {"sampler": "SGLD", "step_size": 1e-3, "localization": 100.0} | changed
    return {"sampler": sampler, "schedule": {"draws": draws, "thinning": 5, "burn_in": 100}}


def test_independent_draws_pass() -> None:
    result = _diagnose(_healthy(), **_sgld(1000))
    assert result.verdict == "pass"
    assert result.reasons == []
    assert result.metrics["rhat"] < 1.01
    assert result.metrics["ess"] > 2000
    assert result.metrics["split_agreement"] > 0.95
    assert result.metrics["constant_probes"] == 0
    assert all(isinstance(value, float) and math.isfinite(value) for value in result.metrics.values())


def test_a_drift_fails_and_is_called_one() -> None:
    ramp = 5 * np.linspace(-1, 1, 1000)[:, None] * np.linspace(0.5, 1.5, 12)
    result = _diagnose(_healthy() + ramp)
    assert result.verdict == "fail"
    drift = [reason for reason in result.reasons if "the losses drift" in reason]
    assert len(drift) == 1
    assert "explains 9" in drift[0]
    assert "schedule.burn_in" in drift[0]
    assert result.metrics["trend_share"] > 0.8
    assert result.metrics["transient"] == pytest.approx(10 / np.std(np.arange(19), ddof=1), rel=0.02)


def test_a_drift_that_all_chains_share_is_not_excused_by_their_agreement() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(-1, 1, 1000)[None, :, None] + 0.05 * rng.normal(size=(4, 1000, 12))
    result = _diagnose(ramp)
    assert result.verdict == "fail"
    assert "drift" in " ".join(result.reasons)


def test_chains_stuck_at_different_levels_fail() -> None:
    stuck = pairs(4, 1000, 6, rho=0.5, phi=0.9995)  # each stays near where it began
    result = _diagnose(stuck)
    assert result.verdict == "fail"
    assert any("chains disagree" in reason for reason in result.reasons)
    assert result.metrics["rhat"] > 1.05


def test_chains_that_mix_but_do_not_share_a_level_fail() -> None:
    result = _diagnose(_healthy() + 3 * np.arange(4)[:, None, None])
    assert result.verdict == "fail"
    assert any("chains disagree: R-hat is" in reason for reason in result.reasons)


def test_one_chain_is_a_warning() -> None:
    result = _diagnose(_healthy(chains=1, draws=4000))
    assert result.verdict == "warn"
    assert result.reasons == ["one chain cannot be compared with another; raise schedule.chains to 4"]
    assert math.isnan(result.metrics["split_agreement"])


@pytest.mark.parametrize(("draws", "verdict"), [(60, "warn"), (12, "fail")])
def test_few_draws_are_not_enough(draws: int, verdict: str) -> None:
    result = _diagnose(_healthy(draws=draws))
    assert result.verdict == verdict
    assert any("effective draws; raise schedule.draws" in reason for reason in result.reasons)


def test_slow_chains_have_few_effective_draws() -> None:
    result = _diagnose(pairs(4, 1000, 6, rho=0.5, phi=0.97))
    assert result.verdict != "pass"
    assert result.metrics["ess"] < 400 < 4000
    assert any("effective draws" in reason for reason in result.reasons)


def test_kernels_of_noise_disagree_between_halves_of_the_chains() -> None:
    result = _diagnose(gaussian(4, 1000, np.eye(30)))
    assert result.metrics["split_agreement"] < 0.3
    assert any("disjoint halves of the chains correlate only" in reason for reason in result.reasons)


@pytest.mark.parametrize(("constant", "verdict"), [(3, "warn"), (9, "fail")])
def test_many_constant_probes_are_flagged(constant: int, verdict: str) -> None:
    losses = _healthy()
    losses[..., 12 - constant :] = 0.1
    result = _diagnose(losses)
    assert result.verdict == verdict
    assert result.metrics["constant_probes"] == constant / 12
    assert any(
        reason.startswith(f"{constant / 12:.0%} of the probes have a constant loss") for reason in result.reasons
    )


def test_losses_that_never_change_fail_without_a_crash() -> None:
    result = _diagnose(np.full((4, 100, 5), 0.1))
    assert result.verdict == "fail"
    assert result.metrics["constant_probes"] == 1
    assert math.isnan(result.metrics["rhat"])


def test_draws_that_span_few_relaxation_times_are_a_warning() -> None:
    identity = _sgld(1000, step_size=1e-5)  # 2 / (1e-5 · 100) = 2000 steps
    result = _diagnose(_healthy(), **identity)
    assert result.verdict == "warn"
    remedy = "raise schedule.burn_in to 10000 or sampler.localization to 10000"
    assert result.reasons == [
        f"burn-in lasts 0.05 relaxation times of 2000 steps; {remedy}",
        "the draws span 2.5 relaxation times of 2000 steps; "
        "raise schedule.thinning to 40 or sampler.localization to 800",
    ]
    assert result.remedy == remedy
    assert result.metrics["relaxation_steps"] == pytest.approx(2000)
    assert result.metrics["relaxations_sampled"] == pytest.approx(2.5)
    assert result.metrics["relaxations_burn_in"] == pytest.approx(0.05)


@pytest.mark.parametrize("identity", [{}, _sgld(1000, sampler="RMSpropSGLD")])
def test_the_relaxation_time_is_stated_only_where_it_is_known(identity: dict[str, Any]) -> None:
    assert "relaxation_steps" not in _diagnose(_healthy(), **identity).metrics


def test_one_chain_that_wanders_fails() -> None:
    time = np.linspace(-1, 1, 4000)[:, None]
    result = _diagnose(_healthy(chains=1, draws=4000) + 8 * np.abs(time))  # there and back: no straight line shows it
    assert result.verdict == "fail"
    assert result.metrics["trend_share"] < 0.1
    assert any("R-hat" in reason for reason in result.reasons)


def test_the_worst_reason_comes_first_and_each_names_a_remedy() -> None:
    losses = _healthy(draws=60)
    losses += 0.2 * np.arange(4)[:, None, None] + 8 * np.linspace(-1, 1, 60)[:, None]
    losses[..., 11] = 0.1  # one in twelve: a warning
    result = _diagnose(losses)
    assert result.verdict == "fail"
    indices = {
        word: [word in reason for reason in result.reasons].index(True)
        for word in ("the losses drift", "the chains disagree: R-hat", "constant")
    }
    assert indices["the losses drift"] == 0
    assert indices["the chains disagree: R-hat"] < indices["constant"]
    for reason in result.reasons:
        remedy = reason.split(";")[-1]
        assert "raise" in remedy or "compare" in remedy
        assert "schedule." in remedy or "sampler." in remedy
    assert result.reasons[0].endswith(f"; {result.remedy}")


def test_every_screen_is_a_row_whose_worst_verdict_is_the_diagnosis() -> None:
    result = _diagnose(_healthy(draws=60), **_sgld(60))
    rows = {row["screen"]: row for row in result.screens}
    assert rows["ess"] == {
        "screen": "ess",
        "value": result.metrics["ess"],
        "good": "at least 400",
        "verdict": "warn",
    }
    assert rows["trend_share"]["good"] == "at most 0.1"
    assert "acceptance" not in rows  # unknown here
    flagged = [row for row in result.screens if row["verdict"] != "pass"]
    assert len(flagged) == len(result.reasons)
    assert {"fail": 2, "warn": 1, "pass": 0}[result.verdict] == max(
        {"fail": 2, "warn": 1, "pass": 0}[row["verdict"]] for row in result.screens
    )


def test_chains_at_different_places_are_seen_where_the_mean_loss_is_the_same() -> None:
    apart = np.array([1.0, -1.0, 1.0, -1.0])[:, None, None] * np.resize([1.0, -1.0], 12)
    result = _diagnose(_healthy() + apart)
    assert result.metrics["ess"] > 2000  # the mean loss knows nothing of it
    assert result.verdict == "fail"
    assert any(reason.startswith("the chains disagree") for reason in result.reasons)


def test_chains_apart_along_a_leading_direction_are_seen() -> None:
    direction = np.repeat([1.0, -1.0, 0.0], 4)  # leading, and orthogonal to the mean
    result = _diagnose(_healthy() + 0.5 * np.array([1.0, 0, 0, -1.0])[:, None, None] * direction)
    assert result.metrics["rhat"] > 1.05
    assert "the chains disagree: R-hat is" in result.reasons[0]


def test_a_chain_that_stands_twice_is_named_and_nothing_else() -> None:
    losses = _healthy()
    losses[3] = losses[1]
    result = _diagnose(losses)
    assert result.verdict == "fail"
    assert result.reasons == ["chains 1 and 3 are one and the same; join each chain once, with its own seed"]


def test_a_chain_that_stands_still_is_named() -> None:
    losses = _healthy()
    losses[2] = losses[2].mean(0) + 0.1 * (losses[2] - losses[2].mean(0))
    result = _diagnose(losses)
    assert result.reasons[0] == "chain 2 hardly moves: its variance is 0.01 of the others'; sample it again"


def test_common_noise_of_the_chains_is_named() -> None:
    common = gaussian(1, 1000, GROUPS, seed=1)
    result = _diagnose(np.sqrt(0.7) * _healthy() + np.sqrt(0.3) * common)
    assert result.verdict == "fail"
    assert result.reasons[0].startswith("the chains move together at the same draw (correlation 0.3")
    assert result.remedy == "give every chain its own minibatches and noise"


@pytest.mark.parametrize("draws", [2, 3, 5, 9])
def test_a_handful_of_draws_fails_without_a_crash(draws: int) -> None:
    result = _diagnose(_healthy(draws=draws), **_sgld(draws))
    assert result.verdict == "fail"
    assert (
        result.reasons[0] == f"only {draws} draws a chain: too few for any other statistic; raise schedule.draws to 400"
    )


def test_a_start_elsewhere_is_named_though_the_rest_agrees() -> None:
    losses = _healthy()
    losses[:, :20] += 2
    result = _diagnose(losses)
    assert result.verdict == "warn"
    assert "the first draws still lie" in result.reasons[0]
    assert "raise schedule.burn_in" in result.remedy


def _measured(**records: float) -> LossTraces:
    """Healthy losses with what a sampler with 100 weights would have recorded."""
    about = {
        "identity": _sgld(1000, nbeta=10.0) | {"schedule": {"draws": 1000, "thinning": 5, "burn_in": 500}},
        "parameters": {"moving": 100},
        "start_train_loss": {"value": 1.0},
    }
    calm = {
        "curvature": 200.0,
        "step_inflation": 1.1,
        "acceptance": 0.9,
        "relaxation_rate": 1 / 20,
        "gradient_norm": 1.0,
        "train_loss": 2.0,
    } | records
    rng = np.random.default_rng(0)
    traces = LossTraces.from_arrays(_healthy(), meta=about)
    arrays = {
        name: (("chain",), np.full(4, calm[name], np.float32))
        for name in ("curvature", "step_inflation", "acceptance", "relaxation_rate")
    }
    arrays |= {name: (("chain", "draw"), np.full((4, 1000), calm[name])) for name in ("gradient_norm", "train_loss")}
    distance = rng.normal(size=(4, 1000)) + records.get("drift", 0.0) * np.arange(4)[:, None]
    return LossTraces(traces.dataset.assign(arrays | {"distance": (("chain", "draw"), distance)}))


def test_what_a_sampler_records_is_judged() -> None:
    result = diagnose(_measured())
    assert result.verdict == "pass", result.reasons
    assert result.metrics["stiffness"] == pytest.approx(0.2)
    assert result.metrics["relaxation_steps"] == pytest.approx(20)
    assert result.metrics["relaxations_burn_in"] == pytest.approx(25)
    # √ε ξ against ε/2 · nbeta · g, over 100 weights
    assert result.metrics["noise_to_gradient"] == pytest.approx(np.sqrt(1e-3 * 100) / (1e-3 / 2 * 10))
    assert result.metrics["excess_loss"] == pytest.approx(10 * (2 - 1) / 50)


@pytest.mark.parametrize(
    ("records", "verdict", "reason"),
    [
        (
            {"step_inflation": 2.0},
            "warn",
            "the steps are too large: they make the steepest direction's variance 2.0 times the target's; "
            "lower sampler.step_size to 0.0002",
        ),
        (
            {"step_inflation": np.finfo(np.float32).max, "curvature": 5000.0},
            "fail",
            "the steps are too large to be stable: step_size times curvature is 5, its bound 4; "
            "lower sampler.step_size to 0.00012",
        ),
        (
            {"acceptance": 0.1},
            "warn",
            "a Metropolis test would accept only 10% of the steps; lower sampler.step_size to 0.00025",
        ),
        (
            {"train_loss": 11.0},
            "fail",
            "the loss rises to 2.0 times what any basin allows (P / 2 nbeta): the chains have left it; "
            "lower sampler.step_size to 0.00025",
        ),
        (
            {"gradient_norm": 200.0},
            "warn",
            "the loss moves the weights more than the noise does (ratio 0.32); lower sampler.step_size to 0.00025",
        ),
        (
            {"drift": 5.0},
            "fail",
            "the weights drift: R-hat of their distance from w* is ",
        ),
        (
            {"relaxation_rate": 1 / 1000},
            "warn",
            "burn-in lasts 0.5 relaxation times of 1000 steps; "
            "raise schedule.burn_in to 5000 or sampler.localization to 20",
        ),
    ],
    ids=["large", "unstable", "rejected", "left", "driven", "drift", "slow"],
)
def test_each_fault_of_the_steps_has_its_reason(records: dict[str, float], verdict: str, reason: str) -> None:
    result = diagnose(_measured(**records))
    assert result.verdict == verdict
    assert result.reasons[0].startswith(reason), result.reasons
    assert all(math.isfinite(value) for value in result.metrics.values())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("probes", [1, 2, 3, 4])
def test_a_handful_of_probes_is_not_blamed_for_sharing_a_mode(probes: int) -> None:
    result = _diagnose(gaussian(4, 1000, blocks([probes], 0.6)))
    assert (result.verdict, result.reasons) == ("pass", [])
    assert math.isnan(result.metrics["split_agreement"])
    assert math.isnan(result.metrics["shared_mode_share"])


def test_a_diagnosis_does_not_change_the_traces_and_repeats_itself() -> None:
    traces = LossTraces.from_arrays(_healthy())
    before = traces.losses.values.copy()
    first, second = diagnose(traces), diagnose(traces)
    np.testing.assert_array_equal(traces.losses, before)
    assert first == second
