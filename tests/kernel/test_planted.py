"""Twelve bad runs that a diagnosis must name for the right reason, and twelve healthy ones that it must let pass."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from oracles import blocks, gaussian, quadratic_losses, quadratic_problem, weights
from torch import nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.data import arithmetic, digits
from losskernel.data.loading import MinibatchIndices
from losskernel.kernel.diagnosis.diagnose import Diagnosis
from losskernel.models import MLP, MultitaskMLP
from losskernel.sampling import chains as chains_module
from losskernel.training import Training

Trained = tuple[nn.Module, lk.Data]


def _fit(model: Callable[[], nn.Module], data: lk.Data, steps: int, rate: float, seed: int) -> Trained:
    torch.manual_seed(seed)
    adam = functools.partial(torch.optim.Adam, lr=rate)
    return lk.fit(model(), data, Training(steps=steps, optimizer=adam), seed=seed, progress=False), data


@functools.cache
def toy(seed: int = 0) -> Trained:
    return _fit(lambda: MultitaskMLP(2), arithmetic(seed=seed, probes_per_task=75), 3000, 1e-2, seed)


@functools.cache
def digit(seed: int = 0) -> Trained:
    return _fit(lambda: MLP(64, 10), digits(200, seed=seed), 1000, 3e-3, seed)


@functools.cache
def regression(seed: int = 0) -> Trained:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(100, 3))
    y = x @ np.arange(1.0, 4.0) + rng.normal(size=100)
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(np.linalg.lstsq(x, y, rcond=None)[0])[None])
    train = TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
    return model, lk.Data(train=train, probes=TensorDataset(*train[:40]), loss=lk.losses.squared_error)


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    yield
    for cached in (toy, digit, regression, toy_traces, diagnosed):
        cached.cache_clear()


def sampled(trained: Trained, schedule: dict[str, int], sampler: Any = lk.SGLD, seed: int = 0, **settings: Any) -> Any:
    factory = functools.partial(sampler, **({"nbeta": 100.0} | settings))
    return lk.sample(*trained, factory, lk.Schedule(**schedule), seed=seed, progress=False)


# The recipe of conf/experiment/multitask.yaml; the bad runs change one thing of it.
TOY = {"step_size": 5e-4, "localization": 50.0}
LONG = {"chains": 8, "burn_in": 2000, "draws": 1000, "thinning": 10, "batch_size": 64}


@functools.cache
def toy_traces(seed: int = 0) -> lk.LossTraces:
    return sampled(toy(seed), LONG, seed=seed, **TOY)


def of(losses: np.ndarray) -> lk.LossTraces:
    return lk.LossTraces.from_arrays(losses)


def altered(change: Callable[[np.ndarray], np.ndarray]) -> lk.LossTraces:
    """The healthy toy's traces with other losses."""
    traces = toy_traces()
    losses = change(traces.losses.values.copy()).astype(np.float32)
    return lk.LossTraces(traces.dataset.assign(losses=(("chain", "draw", "probe"), losses)))


# --- healthy


def _quadratic(seed: int, chains: int, draws: int, phi: float, bend: float) -> lk.LossTraces:
    sigma, linear, quadratic = quadratic_problem(probes=40, bend=bend, seed=seed)
    drawn = weights(sigma, 1, chains, draws, phi, np.random.default_rng(seed))[0]
    return of(quadratic_losses(drawn, linear, quadratic))


SHORT = {"chains": 4, "burn_in": 500, "draws": 400, "thinning": 20, "batch_size": 64}
DIGITS = {"chains": 8, "burn_in": 500, "draws": 500, "thinning": 10, "batch_size": 64}
HEALTHY: dict[str, Callable[[], lk.LossTraces]] = {
    "toy": toy_traces,
    "toy, another network": lambda: sampled(toy(1), LONG | {"chains": 4}, seed=1, **TOY),
    "toy, four short chains": lambda: sampled(toy(1), SHORT, seed=2, step_size=5e-4, localization=100.0),
    "digits": lambda: sampled(digit(0), DIGITS, step_size=3e-4, localization=300.0),
    "digits, strongly localised": lambda: sampled(
        digit(1), DIGITS | {"chains": 4}, seed=1, step_size=3e-4, localization=1000.0
    ),
    "regression, whole batches": lambda: sampled(
        regression(0),
        {"chains": 4, "burn_in": 100, "draws": 400, "thinning": 10, "batch_size": 100},
        step_size=0.002,
        nbeta=50.0,
        localization=90.0,
    ),
    "regression, minibatches": lambda: sampled(
        regression(1),
        {"chains": 8, "burn_in": 100, "draws": 400, "thinning": 10, "batch_size": 20},
        seed=1,
        step_size=0.002,
        nbeta=50.0,
        localization=90.0,
    ),
    "regression, RMSprop, two chains": lambda: sampled(
        regression(0),
        {"chains": 2, "burn_in": 1000, "draws": 1000, "thinning": 10, "batch_size": 50},
        lk.RMSpropSGLD,
        seed=2,
        step_size=0.001,
        nbeta=50.0,
        localization=90.0,
    ),
    "independent Gaussian losses": lambda: of(gaussian(4, 400, blocks([10, 10], 0.5), seed=3)),
    "quadratic losses": lambda: _quadratic(seed=4, chains=8, draws=200, phi=0.0, bend=1.0),
    "quadratic losses with memory": lambda: _quadratic(seed=5, chains=4, draws=2000, phi=0.8, bend=0.5),
    "many short chains": lambda: _quadratic(seed=6, chains=32, draws=100, phi=0.3, bend=0.3),
}


# Sampled anew, ten seconds and more each; the others are drawn in closed form or share the toy's traces.
SAMPLED = (
    "toy",
    "no burn-in",
    "toy, another network",
    "toy, four short chains",
    "digits",
    "digits, strongly localised",
    "regression, minibatches",
    "regression, RMSprop, two chains",
    "steps beyond stability",
    "steps far too small",
    "no localization",
    "shared minibatches",
)


@pytest.mark.parametrize("run", [run for run in HEALTHY if run not in SAMPLED])
def test_a_healthy_run_passes(run: str) -> None:
    _check_healthy(run)


@pytest.mark.slow
@pytest.mark.parametrize("run", [run for run in HEALTHY if run in SAMPLED])
def test_a_healthy_run_of_another_network_passes(run: str) -> None:
    _check_healthy(run)


def _check_healthy(run: str) -> None:
    diagnosis = lk.diagnose(HEALTHY[run]())
    assert (diagnosis.verdict, diagnosis.reasons, diagnosis.remedy) == ("pass", [], "")


# --- bad


class _Shared(MinibatchIndices):
    """Gives all chains the minibatches of the first."""

    def __init__(self, seed: int, chains: Any, *rest: Any) -> None:
        super().__init__(seed, [0] * len(chains), *rest)


def _shared_minibatches() -> lk.LossTraces:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains_module, "MinibatchIndices", _Shared)
        return sampled(digit(0), DIGITS | {"batch_size": 8}, step_size=3e-4, localization=300.0)


def _duplicated(losses: np.ndarray) -> np.ndarray:
    losses[6] = losses[2]
    return losses


def _dead(losses: np.ndarray) -> np.ndarray:
    losses[5] = losses[5, :1]
    return losses


def _constant(losses: np.ndarray) -> np.ndarray:
    losses[..., ::3] = 0.0
    return losses


def _trend(losses: np.ndarray) -> np.ndarray:
    return losses + losses.std((0, 1)) * np.linspace(-1.5, 1.5, losses.shape[1])[:, None]


def _noise(losses: np.ndarray) -> np.ndarray:
    return losses.std((0, 1)) * np.random.default_rng(0).normal(size=losses.shape)


# name -> traces, the verdict, words of the cause, words of the first remedy
BAD: dict[str, tuple[Callable[[], lk.LossTraces], str, str, str]] = {
    "no burn-in": (
        lambda: sampled(toy(), LONG | {"burn_in": 0}, **TOY),
        "warn",
        "burn-in lasts 0 relaxation times",
        "raise schedule.burn_in to ",
    ),
    "steps beyond stability": (
        lambda: sampled(toy(), LONG, step_size=1e-2, localization=50.0),
        "fail",
        "the steps are too large to be stable",
        "lower sampler.step_size to ",
    ),
    "steps far too small": (
        lambda: sampled(toy(), LONG | {"burn_in": 200}, step_size=1e-6, localization=50.0),
        "fail",
        "the weights drift: R-hat of their distance from w* is",
        "raise sampler.step_size to ",
    ),
    "no localization": (
        lambda: sampled(toy(), LONG, step_size=5e-4, localization=0.0),
        "fail",
        "the weights drift: R-hat of their distance from w* is",
        "raise sampler.localization to ",
    ),
    "a chain twice": (lambda: altered(_duplicated), "fail", "are one and the same", "join each chain once"),
    "a dead chain": (lambda: altered(_dead), "fail", "hardly moves", "sample it again"),
    "shared minibatches": (
        _shared_minibatches,
        "warn",
        "the chains move together at the same draw",
        "give every chain its own minibatches",
    ),
    "a heavy-tailed loss": (
        lambda: of(np.exp(2.5 * gaussian(4, 1000, blocks([6, 6], 0.6)))),
        "fail",
        "the entries are means of numbers with a tail index of",
        "raise sampler.localization or bound the loss",
    ),
    "constant probes": (
        lambda: altered(_constant),
        "warn",
        "33% of the probes have a constant loss",
        "raise sampler.nbeta",
    ),
    "three draws": (
        lambda: sampled(toy(), LONG | {"draws": 3}, **TOY),
        "fail",
        "only 3 draws a chain",
        "raise schedule.draws to 400",
    ),
    "a trend added by hand": (
        lambda: altered(_trend),
        "fail",
        "the losses drift: a straight line in time explains",
        "raise schedule.thinning",
    ),
    "nothing but noise": (
        lambda: altered(_noise),
        "warn",
        "kernels of disjoint halves of the chains correlate only 0.0",
        "raise schedule.draws or schedule.chains",
    ),
}


@functools.cache
def diagnosed(run: str) -> Diagnosis:
    return lk.diagnose(BAD[run][0]())


@pytest.mark.parametrize("run", [run for run in BAD if run not in SAMPLED])
def test_a_bad_run_is_named_for_its_cause(run: str) -> None:
    _check_bad(run)


@pytest.mark.slow
@pytest.mark.parametrize("run", [run for run in BAD if run in SAMPLED])
def test_a_badly_sampled_run_is_named_for_its_cause(run: str) -> None:
    _check_bad(run)


def _check_bad(run: str) -> None:
    _, verdict, cause, remedy = BAD[run]
    diagnosis = diagnosed(run)
    assert diagnosis.verdict == verdict
    assert cause in diagnosis.reasons[0], diagnosis.reasons
    assert remedy in diagnosis.remedy
    assert diagnosis.reasons[0].endswith(f"; {diagnosis.remedy}")


def test_there_are_twelve_of_each() -> None:
    assert len(HEALTHY) == len(BAD) == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "broken"),
    [
        ("no burn-in", {"burn_in": 0}),
        ("steps beyond stability", {"step_size": 1e-2}),
        ("no localization", {"localization": 0.0}),
    ],
)
def test_following_the_remedy_heals_the_run(run: str, broken: dict[str, float]) -> None:
    key, value = diagnosed(run).remedy.split("raise ")[-1].split("lower ")[-1].split(" or ")[0].split(" to ")
    assert key.split(".")[1] in broken
    mended = TOY | LONG | {key.split(".")[1]: int(value) if key.startswith("schedule") else float(value)}
    healed = lk.diagnose(
        sampled(
            toy(),
            {name: int(mended[name]) for name in LONG},
            step_size=mended["step_size"],
            localization=mended["localization"],
        )
    )
    assert (healed.verdict, healed.reasons) == ("pass", [])
