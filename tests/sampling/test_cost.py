"""What a run costs: the arithmetic; and when the user hears of it."""

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.models import SmallCNN
from losskernel.sampling import sample as cost
from losskernel.sampling.sample import Cost, estimate, words
from losskernel.sampling.step_checks import LONE, STACKED

SCHEDULE = lk.Schedule(chains=4, burn_in=100, draws=200, thinning=5, batch_size=64)


def _estimate(schedule: lk.Schedule, chains: int = 1) -> Cost:
    """With 0.2 s a step and 0.5 s an evaluation of all probes."""
    stack: Any = SimpleNamespace(weights=torch.zeros(chains, 1), probes=480, effort=LONE)
    return estimate(schedule, stack, 0.2, 0.5)


def test_step_checks_cost_their_gradients_and_those_of_each_hessian_product() -> None:
    assert STACKED.gradients(64) == 16 + 4 * 15 * 8 + 2 * 20
    assert LONE.gradients(64) == 16 + 2 * 5 * 4 + 2 * 10
    assert LONE.gradients(1000) == 16 + 2 * 5 + 2 * 10
    assert STACKED.gradients(4) == 16 + 4 * 15 * 16 + 2 * 20  # of no more minibatches than there are


def test_stacks_run_one_after_another() -> None:
    result = _estimate(SCHEDULE)
    assert result.forward == pytest.approx(480 / 0.5)
    assert result.gradients == pytest.approx(64 / 0.2)
    assert result.seconds == pytest.approx(4 * ((1100 + LONE.gradients(64)) * 0.2 + 200 * 0.5))
    assert result.bytes == 4 * 4 * 200 * 480
    pairs = _estimate(SCHEDULE, 3)
    assert pairs.seconds == pytest.approx(result.seconds / 2)  # three and one
    assert pairs.forward == pytest.approx(3 * result.forward)


def test_lower_precision_costs_the_places_where_it_is_compared() -> None:
    low = lk.Schedule(chains=4, burn_in=100, draws=200, thinning=5, batch_size=64, probe_precision="bfloat16")
    more = _estimate(low).seconds - _estimate(SCHEDULE).seconds
    assert more == pytest.approx(4 * (5 * 5 * 0.2 + 2 * 5 * 0.5))


@pytest.mark.parametrize(
    ("seconds", "size", "ending"),
    [
        (672.0, 1_536_000, "about 11 min; traces 1.5 MB"),
        (89.0, 999, "about 89 s; traces 1000 B"),
        (5399.0, 999_000, "about 90 min; traces 1000 kB"),
        (5400.0, 12_345_678_901, "about 1.5 h; traces 12 GB"),
        (200_000.0, 10**6, "about 2.3 d; traces 1 MB"),
    ],
)
def test_the_line_says_rates_time_and_size(seconds: float, size: int, ending: str) -> None:
    line = words(Cost(1018.4, 28.97, seconds, size), SCHEDULE, 10_000)
    assert line.startswith("sampling 4 chains x 200 draws of 10,000 probes: ")
    assert "1,020 samples/s forward, 29 samples/s gradients; " in line
    assert line.endswith(ending)


@pytest.mark.parametrize(("progress", "short"), [(True, 0.0), (True, 1e9), (False, 0.0)])
def test_the_line_comes_before_long_runs_with_progress(
    progress: bool, short: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost, "_SHORT", short)
    images = TensorDataset(torch.rand(8, 1, 8, 8), torch.arange(8))
    schedule = lk.Schedule(chains=1, burn_in=0, draws=2, thinning=1, batch_size=4)
    sampler = functools.partial(lk.SGLD, step_size=1e-6, nbeta=1.0, localization=1.0)
    model = SmallCNN(widths=(2, 2))
    given: dict[str, Any] = {"data": lk.Data(images, images, lk.losses.cross_entropy), "sampler": sampler}
    traces = lk.sample(model, schedule=schedule, progress=progress, **given)
    out, error = capsys.readouterr()
    assert not out
    assert ("sampling 1 chains x 2 draws of 8 probes" in error) == (progress and short == 0)
    assert ("cost" in traces.meta) == progress
    if progress:
        assert traces.meta["cost"]["bytes"] == 4 * 2 * 8
        still = lk.sample(model, schedule=schedule, progress=False, **given)
        assert still.losses.equals(traces.losses)  # measuring took nothing from the chains' randomness


def test_a_first_step_that_diverges_is_left_to_sampling_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(chains: Any) -> Any:
        raise lk.errors.DivergenceError("chain 0 left the finite numbers at step 1")

    monkeypatch.setattr(cost, "measure", diverge)

    assert cost.announced(object(), SCHEDULE) == {}  # pyright: ignore[reportArgumentType]
