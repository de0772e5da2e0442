"""Public calls compute the same whatever surrounds them, and leave the state of torch, numpy and Python as it was."""

import functools
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import losskernel as lk

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(1))
DATA = lk.Data(train=TensorDataset(X, Y), probes=TensorDataset(X, Y), loss=lk.losses.cross_entropy, labels={"class": Y})
SAMPLER = functools.partial(lk.SGLD, step_size=1e-4, nbeta=10.0, localization=100.0)
SCHEDULE = lk.Schedule(chains=2, burn_in=2, draws=20, thinning=1, batch_size=8)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3))


def state() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),  # noqa: NPY002
        "python": random.getstate(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "type": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "filters": list(warnings.filters),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
    }


@pytest.fixture(scope="module")
def traces() -> lk.LossTraces:
    return lk.sample(network(), DATA, SAMPLER, SCHEDULE, progress=False)


def calls(traces: lk.LossTraces) -> dict[str, Callable[[], Any]]:
    training = lk.Training(steps=5, batch_size=8)
    return {
        "fit": lambda: lk.fit(network(), DATA, training, progress=False),
        "sample": lambda: lk.sample(network(), DATA, SAMPLER, SCHEDULE, progress=False),
        "diagnose": lambda: lk.diagnose(traces),
        "laplace_kernel": lambda: lk.laplace_kernel(network(), DATA, nbeta=10.0, localization=100.0),
        "interval": lambda: lk.LossKernel.from_traces(traces).interval(),
        "neighbours": lambda: lk.LossKernel.from_traces(traces).neighbors(3),
    }


@pytest.mark.parametrize("name", ["fit", "sample", "diagnose", "laplace_kernel", "interval", "neighbours"])
def test_a_public_call_leaves_everything_as_it_was(name: str, traces: lk.LossTraces) -> None:
    torch.manual_seed(5)
    before = state()
    calls(traces)[name]()
    after = state()
    assert {key for key in before if before[key] != after[key]} == set()


@pytest.mark.parametrize("analysis", ["Convergence", "Separation", "Embedding", "Neighbours", "Spectrum", "Complexity"])
def test_an_analysis_leaves_everything_as_it_was(analysis: str, traces: lk.LossTraces) -> None:
    from losskernel import analyses

    settings = {"Separation": {"group": "class"}}.get(analysis, {})
    call, kernel = getattr(analyses, analysis)(**settings), lk.LossKernel.from_traces(traces)
    torch.manual_seed(5)
    before = state()
    call(kernel, traces)
    after = state()
    assert {key for key in before if before[key] != after[key]} == set()


@contextmanager
def gradients_off() -> Iterator[None]:
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(True)


@contextmanager
def wide_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


AROUND: dict[str, Callable[[], Any]] = {
    "gradients off": gradients_off,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "a default device": lambda: torch.device("meta"),
    "a default type": wide_default,
}


@pytest.mark.parametrize("around", AROUND)
def test_chains_are_the_same_whatever_surrounds_the_call(around: str, traces: lk.LossTraces) -> None:
    model = network()
    with AROUND[around]():
        got = lk.sample(model, DATA, SAMPLER, SCHEDULE, progress=False)
    assert got.losses.equals(traces.losses)


def test_models_and_data_made_in_inference_mode_are_taken(traces: lk.LossTraces) -> None:
    with torch.inference_mode():
        model, rows = network(), TensorDataset(X + 0, Y + 0)
    data = lk.Data(train=rows, probes=rows, loss=lk.losses.cross_entropy)
    trained = lk.fit(model, data, lk.Training(steps=3, batch_size=8), progress=False)
    assert all(weight.isfinite().all() for weight in trained.parameters())
    assert lk.sample(model, data, SAMPLER, SCHEDULE, progress=False).losses.shape == traces.losses.shape
