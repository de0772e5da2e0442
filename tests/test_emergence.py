import numpy as np
import pytest

from losskernel.dynamics.emergence import emergence

STEPS = np.array([0, 1, 3, 7, 15, 31])  # log(1 + step) is evenly spaced
LEVELS = ["level_1", "level_2"]


def curves(*columns: list[float]) -> np.ndarray:
    return np.array(columns).T


def test_the_crossing_is_interpolated_evenly_in_the_logarithm() -> None:
    values = curves([0, 0, 1, 1, 1, 1], [0, 0, 0, 0.25, 0.75, 1])
    table, metrics = emergence(LEVELS, STEPS, values, np.zeros_like(values))
    assert metrics["step_level_1"] == pytest.approx(np.expm1(np.log(2) * 1.5))
    assert metrics["step_level_2"] == pytest.approx(np.expm1(np.log(2) * 3.5))
    assert table["low"].tolist() == pytest.approx(table["step"].tolist())
    assert metrics["in_order"] == metrics["in_order_share"] == 1


def test_rises_that_fall_back_do_not_count() -> None:
    values = curves([0, 1, 1, 1, 1, 1], [1, 1, 0, 0, 1, 1])
    _, metrics = emergence(LEVELS, STEPS, values, np.zeros_like(values))
    assert metrics["step_level_2"] == pytest.approx(np.expm1(np.log(2) * 3.5))


def test_what_the_untrained_network_knows_and_what_the_last_does_not() -> None:
    values = curves([0.9, 0.6, 0.8, 1, 1, 1], [0, 1, 1, 1, 1, 0.4])
    table, metrics = emergence(LEVELS, STEPS, values, np.zeros_like(values))
    assert metrics == {"step_level_1": 0.0}
    assert table["step"].isna().tolist() == [False, True]


def test_fine_before_coarse_is_not_in_order() -> None:
    values = curves([0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1])
    assert emergence(LEVELS, STEPS, values, np.zeros_like(values))[1]["in_order"] == 0


def test_the_interval_covers_the_step_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = curves(np.linspace(0, 1, 6).tolist(), np.linspace(-0.2, 0.8, 6).tolist())
    errors = np.full_like(truth, 0.05)
    exact = emergence(LEVELS, STEPS, truth, np.zeros_like(truth))[0]["step"]
    inside = []
    for seed in range(100):
        table, _ = emergence(LEVELS, STEPS, rng.normal(truth, errors), errors, seed=seed)
        inside.append((table["low"] <= exact) & (exact <= table["high"]))
    assert 0.8 < np.mean(inside) < 0.98


def test_indistinct_curves_are_in_order_by_chance() -> None:
    values = curves(np.linspace(0, 1, 6).tolist(), np.linspace(0, 1, 6).tolist())
    _, metrics = emergence(LEVELS, STEPS, values, np.full_like(values, 0.1))
    assert metrics["in_order"] == 0  # equal is not later
    assert 0.35 < metrics["in_order_share"] < 0.65
