import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from losskernel.kernel.diagnosis.remedies import Setting, longer_run, setting_of
from losskernel.kernel.diagnosis.screens import REASONS, SCREENS, Finding, at_least, at_most, hold, worst_first

CALM = {
    "chain_correlation": 0.0,
    "rhat_good": 1.01,
    "ess": 1000.0,
    "ess_tail": 1000.0,
    "ess_kernel": 1000.0,
    "relaxation_steps": 100.0,
    "relaxations_burn_in": 10.0,
    "relaxations_sampled": 100.0,
    "step_inflation": 1.2,
    "stiffness": 0.4,
}
SETTING = Setting(4, 500, step_size=1e-3, localization=20.0, burn_in=1000, thinning=20, weights=100)


def _finding(metric: str, metrics: dict[str, float], **changed: Any) -> Finding:
    findings = hold({metric: 0.0} | CALM | metrics, dataclasses.replace(SETTING, **changed))
    return next(finding for finding in findings if finding.metric == metric)


def _remedy(metric: str, metrics: dict[str, float], **changed: Any) -> str:
    return _finding(metric, metrics, **changed).remedy


def test_a_value_passes_to_its_good_bound_and_fails_beyond_the_usable_one() -> None:
    high, low = at_most(1.0, 2.0), at_least(2.0, 1.0)
    assert [high.verdict(value) for value in (0.5, 1.0, 1.1, 2.0, 2.1)] == ["pass", "pass", "warn", "warn", "fail"]
    assert [low.verdict(value) for value in (3.0, 2.0, 1.9, 1.0, 0.9)] == ["pass", "pass", "warn", "warn", "fail"]


def test_an_unknown_value_passes_and_an_infinite_bound_never_fails() -> None:
    assert at_most(1.0, 2.0).verdict(math.nan) == "pass"
    assert at_least(2.0, 1.0).verdict(math.nan) == "pass"
    assert at_most(1.0, math.inf).verdict(1e300) == "warn"
    assert at_most(1.0, 2.0).verdict(math.inf) == "fail"


def test_every_screen_has_one_row_a_sentence_and_a_remedy() -> None:
    names = [screen.metric for screen in SCREENS]
    assert len(set(names)) == len(names)
    assert set(REASONS) == set(names)
    findings = hold(dict.fromkeys(names, 3.0) | CALM, SETTING)
    assert [finding.metric for finding in findings] == names
    for finding in findings:
        assert "{" not in finding.reason
        assert finding.reason[0].islower() or finding.reason[0].isdigit()
        assert finding.remedy
        good, usable, low_is_bad = finding.bounds
        assert (good >= usable) if low_is_bad else (good <= usable)


def test_metrics_that_are_unknown_have_no_finding() -> None:
    assert {finding.metric for finding in hold(CALM | {"rhat": math.nan}, SETTING)} <= set(CALM)


def test_failures_come_before_warnings_each_in_the_order_of_the_table() -> None:
    flagged = worst_first(hold(CALM | {"chains": 1.0, "heavy_share": 0.9, "trend_share": 0.2, "ess": 50.0}, SETTING))
    assert [(finding.metric, finding.verdict) for finding in flagged] == [
        ("heavy_share", "fail"),
        ("ess", "fail"),
        ("trend_share", "warn"),
        ("chains", "warn"),
    ]


def test_causes_stand_before_their_effects() -> None:
    order = [screen.metric for screen in SCREENS]
    for cause, effect in [
        ("draws", "ess"),
        ("twin_chains", "chain_correlation_score"),
        ("dead_chain", "rhat"),
        ("rhat_distance", "trend_share"),
        ("precision_error", "split_agreement"),
        ("step_inflation", "excess_loss"),
        ("relaxations_burn_in", "transient"),
        ("trend_share", "rhat"),
        ("tail_index", "ess_kernel"),
        ("heavy_share", "split_agreement"),
        ("rhat", "ess"),
    ]:
        assert order.index(cause) < order.index(effect), (cause, effect)


# --- remedies


def test_steps_are_lowered_until_they_inflate_by_a_fifth() -> None:
    # In a well of curvature a, 1 / (1 - ε a / 4): at ε a = 1, 4/3; the remedy's step then inflates by less.
    remedy = _remedy("step_inflation", {"step_inflation": 4 / 3, "stiffness": 1.0})
    step = float(remedy.removeprefix("lower sampler.step_size to "))
    assert step == pytest.approx(6e-4)
    assert 1 / (1 - step / 1e-3 / 4) - 1 == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("stiffness", [3.0, 5.0, 400.0])
def test_unstable_steps_are_lowered_by_their_curvature(stiffness: float) -> None:
    remedy = _remedy("step_inflation", {"step_inflation": math.inf, "stiffness": stiffness})
    step = float(remedy.removeprefix("lower sampler.step_size to "))
    assert step * stiffness / 1e-3 == pytest.approx(0.6, rel=0.05)
    words = _finding("step_inflation", {"step_inflation": math.inf, "stiffness": stiffness}).reason
    assert words == f"the steps are too large to be stable: step_size times curvature is {stiffness:.2g}, its bound 4"


def test_steps_whose_curvature_is_not_known_are_quartered() -> None:
    unknown = {"step_inflation": math.nan, "stiffness": math.nan}
    assert _remedy("noise_to_gradient", unknown) == "lower sampler.step_size to 0.00025"
    assert _remedy("noise_to_gradient", unknown, step_size=None) == "lower sampler.step_size"


def test_a_short_burn_in_is_raised_to_five_relaxation_times() -> None:
    short = {"relaxation_steps": 333.0, "relaxations_burn_in": 2.0, "relaxations_sampled": 30.0}
    remedy = _remedy("relaxations_burn_in", short, burn_in=666)
    assert remedy == "raise schedule.burn_in to 1700 or sampler.localization to 15"
    # relaxation takes 2 / (ε γ) steps; with the other remedy 666 steps are five of them
    steps = 2 / (1e-3 * 15)
    assert 666 / steps == pytest.approx(5, rel=0.05)
    assert _remedy("transient", short, burn_in=0) == "raise schedule.burn_in to 1700"


def test_short_chains_are_thinned_until_they_span_twenty_relaxation_times() -> None:
    short = {"relaxation_steps": 4000.0, "relaxations_burn_in": 10.0, "relaxations_sampled": 2.5}
    remedy = _remedy("relaxations_sampled", short)
    assert remedy == "raise schedule.thinning to 160 or sampler.localization to 4"
    assert 500 * 160 / 4000 == 20
    steps = 2 / (1e-3 * 4)
    assert 500 * 20 / steps == pytest.approx(20)


def test_steps_far_below_the_stable_ones_are_raised() -> None:
    slow = {"relaxations_sampled": 0.3, "relaxations_burn_in": 0.01, "step_inflation": 1.001, "stiffness": 0.004}
    remedy = _remedy("rhat_distance", slow, step_size=1e-6)
    assert remedy == "raise sampler.step_size to 0.0001"  # a hundred times: inflation by a tenth
    assert _remedy("rhat_distance", slow | {"step_inflation": 1.2}, step_size=1e-6).startswith("raise schedule.burn_in")


def test_without_localization_one_is_named_that_the_draws_span_fifty_times() -> None:
    none = {"relaxation_steps": math.inf, "relaxations_burn_in": 0.0, "relaxations_sampled": 0.0}
    remedy = _remedy("rhat_distance", none, localization=0.0)
    localization = float(remedy.removeprefix("raise sampler.localization to "))
    assert 500 * 20 * 1e-3 * localization / 2 == pytest.approx(50)


def test_a_localization_that_would_not_be_stable_is_not_named() -> None:
    slow = {"relaxation_steps": 500.0, "relaxations_burn_in": 0.02, "relaxations_sampled": 100.0}
    assert _remedy("transient", slow, burn_in=10) == "raise schedule.burn_in to 2500"


def test_chains_that_should_have_mixed_get_a_general_remedy() -> None:
    assert _remedy("rhat", {}) == "raise schedule.thinning (now 20) or sampler.localization"
    unknown = {"relaxation_steps": math.nan}
    assert _remedy("rhat", unknown) == "raise schedule.burn_in and schedule.draws (now 500) or sampler.localization"


@pytest.mark.parametrize(
    ("ess", "thinning", "remedy"),
    [
        (250.0, 20, "raise schedule.draws to 1000"),
        (50.0, 20, "raise schedule.thinning to 200"),
        (50.0, None, "raise schedule.draws to 5000"),
        (600.0, 20, "raise schedule.draws or schedule.chains"),
    ],
)
def test_too_few_effective_draws_ask_for_five_hundred(ess: float, thinning: int | None, remedy: str) -> None:
    assert _remedy("ess", {"ess_kernel": ess}, thinning=thinning) == remedy


def test_effective_draws_that_cannot_be_counted_do_not_break_the_remedy() -> None:
    unknown = dict.fromkeys(("ess", "ess_tail", "ess_kernel"), np.nan)
    assert longer_run(unknown, SETTING) == "raise schedule.draws or schedule.chains"


def test_very_many_weights_need_no_acceptance() -> None:
    for weights, good in ((100, 0.2), (20_000, 0)):
        assert _finding("acceptance", {}, weights=weights).bounds.good == good


def test_settings_are_read_from_the_provenance() -> None:
    about = {
        "identity": {
            "sampler": {"step_size": 1e-3, "localization": 20.0},
            "schedule": {"burn_in": 1000, "thinning": 20},
        },
        "parameters": {"moving": 100},
    }
    assert setting_of(about, 4, 500) == SETTING
    assert setting_of({}, 4, 500) == Setting(4, 500)
