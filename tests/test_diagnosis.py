import math
from typing import Any

import numpy as np
import pytest
from oracles import blocks, gaussian, pairs

from losskernel import LossTraces, diagnose
from losskernel.diagnosis import Diagnosis

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
    drift = [reason for reason in result.reasons if "drift" in reason]
    assert len(drift) == 1
    assert "explains 9" in drift[0]
    assert "schedule.burn_in" in drift[0]
    assert result.metrics["trend_share"] > 0.8
    assert result.metrics["drift"] > 2


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
    assert result.reasons == ["the draws span 2.5 relaxation times of 2000 steps; raise schedule.draws"]
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
    places = {
        word: [word in reason for reason in result.reasons].index(True) for word in ("drift", "R-hat", "constant")
    }
    assert places["drift"] == 0
    assert places["R-hat"] < places["constant"]
    for reason in result.reasons:
        remedy = reason.split(";")[-1]
        assert "raise" in remedy
        assert "schedule." in remedy or "sampler." in remedy


def test_a_diagnosis_does_not_change_the_traces_and_repeats_itself() -> None:
    traces = LossTraces.from_arrays(_healthy())
    before = traces.losses.values.copy()
    first, second = diagnose(traces), diagnose(traces)
    np.testing.assert_array_equal(traces.losses, before)
    assert first == second
