from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from losskernel import figures
from losskernel.figures.shared.sweep_axis import Axis
from losskernel.sweeps.over_training.over_training import STEP, emergence, levels_of
from losskernel.sweeps.read_runs import Run

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


def kernels(*contrasts: dict[str, float]) -> Any:
    """What a comparison of kernels along training holds of its runs."""
    runs = [
        Run(
            Path(f"step-{step}"),
            {STEP: step},
            {f"levels/contrast_{name}": value for name, value in each.items()},
            "pass",
        )
        for step, each in zip(STEPS.tolist(), contrasts, strict=False)
    ]
    return SimpleNamespace(runs=runs)


def test_the_page_follows_the_levels_of_its_kernels() -> None:
    rises = [{"level_1": first, "level_1_se": 0.01, "level_2": second} for first, second in ((0, 0), (1, 0), (1, 1))]
    found = levels_of(kernels(*rises))
    assert found.result.metrics["levels/in_order"] == 1
    assert found.result.tables["emergence"]["level"].tolist() == ["level_1", "level_2"]
    assert list(found.captions) == ["emergence"]
    axes = found.result.figures["emergence"].axes[0]
    assert axes.get_ylabel() == "contrast of coupling R²"
    legend = found.result.figures["emergence"].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["level 1: 0", "level 2: 2"]


def test_without_levels_there_is_nothing_to_follow() -> None:
    assert levels_of(kernels({}, {})).result.figures == {}
    other = levels_of(kernels({"level_1": 0.0}, {"level_2": 0.0}))
    assert other.notes == ["the jobs were asked for different levels, so that none is followed"]


def test_a_level_that_never_appears_is_named_so() -> None:
    table, _ = emergence(LEVELS, STEPS, np.zeros((6, 2)), np.full((6, 2), 0.01))
    drawn = figures.emergence(
        Axis("step", [str(step) for step in STEPS], STEPS.astype(float).tolist()),
        LEVELS,
        np.zeros((6, 2)),
        np.full((6, 2), 0.01),
        table,
        0.5,
    )
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["level 1: never", "level 2: never"]
    with pytest.raises(ValueError, match=r"contrasts must be \[6, 2\], got \(2, 2\)"):
        figures.emergence(
            Axis("step", [str(step) for step in STEPS]), LEVELS, np.zeros((2, 2)), np.zeros((6, 2)), table, 0.5
        )
