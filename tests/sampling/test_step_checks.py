"""The step checks against closed forms: quadratic wells, minibatches counted, MALA by hand."""

import functools
import itertools
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from test_sample import regression
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.data import arithmetic
from losskernel.errors import Interrupted, TraceError
from losskernel.models import MLP, MultitaskMLP
from losskernel.sampling import sample as sampling
from losskernel.sampling import step_checks
from losskernel.sampling.chains import STEP_CHECKS, strides
from losskernel.sampling.engine.stacked_model import StackedModel
from losskernel.sampling.step_checks import LONE, STACKED, StepChecks, effort_for
from losskernel.signals import STOP_SIGNALS
from losskernel.traces import zarr_store as store
from losskernel.traces.records import CHAIN_RECORDS
from losskernel.traces.zarr_store import TraceStore

NBETA, GAMMA = 50.0, 20.0
ALL = (signal.SIGINT, *STOP_SIGNALS)
SAMPLERS = {
    "sgld": functools.partial(lk.SGLD, step_size=1e-3, nbeta=100.0, localization=100.0),
    "rmsprop": functools.partial(lk.RMSpropSGLD, step_size=1e-4, nbeta=100.0, localization=100.0),
}


def _well(
    chains: int = 3,
    sampler: Any = lk.SGLD,
    batch: int | None = None,
    seed: int = 0,
    convolved: nn.Module | None = None,
    **given: Any,
) -> tuple[dict[str, Tensor], np.ndarray, Any]:
    """Check the steps of chains in the well of a linear regression; return the checks, U's Hessian, the sampler."""
    model, data, x = regression()
    inputs, targets = data.train.tensors  # pyright: ignore[reportAttributeAccessIssue]
    stack = StackedModel(convolved or model, data.loss, chains, ["0.weight" if convolved else "weight"])
    rng = torch.Generator().manual_seed(seed)
    start = stack.start
    weights = nn.Parameter(start + 0.1 * torch.randn(chains, 3, generator=rng, dtype=torch.float64))
    settings = {"step_size": 1e-3, "nbeta": NBETA, "localization": GAMMA} | given

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=rng, dtype=like.dtype)

    kernel = sampler([weights], noise=noise, **settings)
    kernel.state[weights]["start"] = start.expand(chains, 3).clone()

    def minibatches() -> tuple[Tensor, Tensor]:
        if batch is None:
            return inputs.expand(chains, *inputs.shape), targets.expand(chains, *targets.shape)
        chosen = torch.stack([torch.randperm(len(x), generator=rng)[:batch] for _ in range(chains)])
        return inputs[chosen], targets[chosen]

    with torch.no_grad():
        effort = step_checks.LONE if stack.lone else step_checks.STACKED
        result = StepChecks(stack, weights, start, kernel, effort, minibatches, noise).measured()
    return result, NBETA * x.T @ x / len(x) + settings["localization"] * np.eye(3), kernel


def _convolved(weight: Tensor) -> nn.Module:
    """The same regression, with a convolution that changes nothing: such models are not stacked."""
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Unflatten(1, (1, 1)), nn.Conv1d(1, 1, 1), nn.Flatten())
    model = model.double()
    with torch.no_grad():
        model[0].weight.copy_(weight)
        nn.init.ones_(model[2].weight)
        nn.init.zeros_(model[2].bias)
    return model


def test_every_chain_gets_finite_float64_numbers() -> None:
    result, _, _ = _well(batch=10)
    assert tuple(result) == CHAIN_RECORDS
    for values in result.values():
        assert values.shape == (3,)
        assert values.dtype == torch.float64
        assert values.isfinite().all()


@pytest.mark.parametrize("localization", [0.0, GAMMA, 300.0])
def test_the_curvature_is_the_largest_eigenvalue_of_the_potential(
    localization: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rough, hessian, _ = _well(localization=localization)
    largest = np.linalg.eigvalsh(hessian).max()
    # These eigenvalues lie close, which power iteration takes long to tell apart; those of networks do not.
    np.testing.assert_allclose(rough["curvature"], largest, rtol=0.1)
    assert (rough["curvature"] <= largest * (1 + 1e-9)).all()  # a Rayleigh quotient cannot exceed it
    monkeypatch.setattr(step_checks, "STACKED", step_checks.STACKED._replace(iterations=1000))
    result, _, _ = _well(localization=localization)
    np.testing.assert_allclose(result["curvature"], largest, rtol=1e-6)


def test_the_effort_is_what_the_share_leaves_room_for() -> None:
    stacked, lone = SimpleNamespace(lone=False), SimpleNamespace(lone=True)
    for stack, whole, least, passes in ((stacked, STACKED, 88, 3), (lone, LONE, 18, 5)):
        costs = []
        for draws in (2, 40, 100, 200, 400, 1000, 4000):
            schedule = lk.Schedule(chains=2, burn_in=100, draws=draws, thinning=5, batch_size=64)
            effort: Any = effort_for(stack, schedule, probes=192)  # pyright: ignore[reportArgumentType]
            costs.append(effort.gradients(64))
            sampling = 100 + draws * 5 + draws * 192 / 64 / passes
            assert costs[-1] <= max(0.1 * sampling, least)
            assert costs[-1] == whole.gradients(64) or costs[-1] >= 0.07 * sampling  # and what there is room for
        assert costs == sorted(costs)
        assert (costs[0], costs[-1]) == (least, whole.gradients(64))
        more: Any = effort_for(stack, replace(schedule, draws=2, step_check_share=1e6), probes=192)  # pyright: ignore[reportArgumentType]
        assert more == whole


def test_a_lone_convolutional_chain_is_judged_with_less_effort_but_alike() -> None:
    model, _, _ = regression()
    lone, hessian, _ = _well(chains=1, convolved=_convolved(model.weight.detach()))
    stacked, _, _ = _well(chains=1)
    largest = np.linalg.eigvalsh(hessian).max()
    assert largest * 0.9 < float(lone["curvature"]) <= largest * (1 + 1e-9)
    for name in ("minibatch_variance", "acceptance", "relaxation_rate"):
        np.testing.assert_allclose(lone[name], stacked[name], rtol=0.01, atol=1e-9)


def test_a_gradient_that_vanishes_still_leaves_a_direction_to_start_from() -> None:
    constant = _convolved(torch.ones(1, 3))
    nn.init.zeros_(constant.get_submodule("2").weight)
    result, _, _ = _well(chains=1, convolved=constant)
    np.testing.assert_allclose(result["curvature"], GAMMA)


def test_whole_batches_have_no_minibatch_noise() -> None:
    result, _, _ = _well()
    np.testing.assert_allclose(result["minibatch_variance"], 0, atol=1e-12)


def test_the_minibatch_variance_is_that_over_minibatches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_checks, "STACKED", STACKED._replace(batches=4000, steps=1, samples=10_000))
    batch = 10
    _, data, x = regression()
    result, _, kernel = _well(chains=1, batch=batch, step_size=1e-12)  # so small that the weights stand
    (weight,) = kernel.param_groups[0]["params"]
    standing = weight.detach()[0].numpy()
    residual = x @ standing - data.train.tensors[1].numpy()  # pyright: ignore[reportAttributeAccessIssue]
    direction = np.linalg.eigh(x.T @ x)[1][:, -1]
    slopes = NBETA * residual * (x @ direction)
    # the mean of `batch` of n samples, drawn without replacement
    exact = slopes.var(ddof=1) / batch * (1 - batch / len(x))
    assert float(result["minibatch_variance"]) == pytest.approx(exact, rel=0.12)


@pytest.mark.parametrize("batch", [None, 10])
def test_the_step_inflation_is_that_of_the_samplers_transition(batch: int | None) -> None:
    result, _, kernel = _well(batch=batch, step_size=0.01)
    for curvature, noise, inflation in zip(
        *(result[name].tolist() for name in ("curvature", "minibatch_variance", "step_inflation")), strict=True
    ):
        assert inflation == pytest.approx(curvature * kernel.stationary_variance(curvature, noise), rel=1e-5)
        closed = (1 + 0.01 * noise / 4) / (1 - 0.01 * curvature / 4)  # of SGLD
        assert inflation == pytest.approx(closed, rel=1e-5)


def test_steps_beyond_stability_have_the_largest_inflation_there_is() -> None:
    result, hessian, _ = _well(step_size=5 / 60, localization=0.0)
    assert 5 / 60 * np.linalg.eigvalsh(hessian).max() > 4
    np.testing.assert_allclose(result["step_inflation"], torch.finfo(torch.float32).max)


def test_tiny_steps_are_all_accepted() -> None:
    result, _, _ = _well(step_size=1e-7)
    np.testing.assert_allclose(result["acceptance"], 1, atol=1e-4)


@pytest.mark.parametrize("step", [0.005, 0.02])
def test_the_acceptance_is_that_of_a_langevin_proposal_in_a_gaussian_target(step: float) -> None:
    result, hessian, _ = _well(chains=400, step_size=step, seed=1)
    # The same chain by hand: unadjusted steps in the quadratic well, each asked what Metropolis would say.
    rng = np.random.default_rng(0)
    away = 0.1 * rng.normal(size=(4000, 3))

    def potential(u: np.ndarray) -> np.ndarray:
        return np.einsum("np,pq,nq->n", u, hessian, u) / 2

    def proposal(to: np.ndarray, origin: np.ndarray) -> np.ndarray:
        return -np.square(to - origin + step / 2 * origin @ hessian).sum(1) / (2 * step)

    accepted = []
    for _ in range(step_checks.STACKED.steps):
        after = away - step / 2 * away @ hessian + np.sqrt(step) * rng.normal(size=away.shape)
        log = potential(away) - potential(after) + proposal(away, after) - proposal(after, away)
        accepted.append(np.exp(np.minimum(log, 0)).mean())
        away = after
    spread = float(result["acceptance"].std()) / 20
    assert float(result["acceptance"].mean()) == pytest.approx(np.mean(accepted), abs=4 * spread + 0.003)
    assert np.mean(accepted) < 0.99


@pytest.mark.parametrize(("step", "localization"), [(1e-3, 20.0), (1e-2, 100.0)])
def test_a_flat_direction_forgets_at_the_relaxation_rate(step: float, localization: float) -> None:
    result, _, _ = _well(step_size=step, localization=localization)
    np.testing.assert_allclose(result["relaxation_rate"], -np.log(1 - step * localization / 2), rtol=1e-6)


def test_without_localization_nothing_is_forgotten() -> None:
    result, _, _ = _well(localization=0.0)
    np.testing.assert_array_equal(result["relaxation_rate"], 0)


def test_a_preconditioned_sampler_is_judged_in_its_own_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_checks, "STACKED", step_checks.STACKED._replace(iterations=300))
    result, hessian, _ = _well(sampler=lk.RMSpropSGLD, chains=1, batch=None, smoothing=0.0)
    # No step was taken before the curvature is measured: v is 1 there, G = 1 / (1 + δ).
    factor = 1 / 1.1
    np.testing.assert_allclose(result["curvature"], factor * np.linalg.eigvalsh(hessian).max(), rtol=5e-3)
    np.testing.assert_allclose(result["relaxation_rate"], -np.log(1 - 1e-3 * factor * GAMMA / 2), rtol=1e-6)
    curvature = float(result["curvature"])
    assert float(result["step_inflation"]) == pytest.approx(1 / (1 - 1e-3 * curvature / 4), rel=1e-5)


def test_a_preconditioner_that_differs_between_weights_scales_the_hessian_on_both_sides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step_checks, "STACKED", step_checks.STACKED._replace(iterations=300))

    class Scaled(lk.SGLD):
        scale = torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)

        def preconditioner(self, weight: Tensor, state: dict[str, Any]) -> Tensor:
            return self.scale.expand_as(weight)

    result, hessian, _ = _well(sampler=Scaled)
    root = np.diag(np.sqrt(Scaled.scale.numpy()))
    np.testing.assert_allclose(result["curvature"], np.linalg.eigvalsh(root @ hessian @ root).max(), rtol=5e-3)
    np.testing.assert_allclose(result["relaxation_rate"], -np.log(1 - 1e-3 * 1.0 * GAMMA / 2), rtol=1e-6)  # the median


def test_a_loss_without_curvature_and_without_localization_is_not_called_unstable() -> None:
    result, _, _ = _well(nbeta=0.0, localization=0.0)
    np.testing.assert_array_equal(result["step_inflation"], 1)
    np.testing.assert_allclose(result["acceptance"], 1, atol=1e-6)
    assert all(values.isfinite().all() for values in result.values())


class _Attention(nn.Module):
    """A network whose fused attention has no second derivative; or the same in plain operations."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.embed, self.head, self._fused = nn.Linear(6, 6), nn.Linear(6, 1), fused

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.embed(inputs)
        if self._fused:
            mixed = nn.functional.scaled_dot_product_attention(*3 * [tokens[:, None]])[:, 0]
        else:
            mixed = (tokens @ tokens.transpose(1, 2) / 6**0.5).softmax(-1) @ tokens
        return self.head(mixed.mean(1))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_network_without_second_derivatives_is_judged_by_differences_of_gradients() -> None:
    rng = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(64, 4, 6, generator=rng), torch.randn(64, generator=rng)
    held = TensorDataset(inputs, targets)
    data = lk.Data(train=held, probes=held, loss=lk.losses.squared_error)
    schedule = lk.Schedule(chains=2, burn_in=2, draws=4, thinning=1, batch_size=64, step_check_share=100.0)
    result = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = _Attention(fused)
        result.append(lk.sample(model, data, SAMPLERS["sgld"], schedule, progress=False).record("curvature"))
    np.testing.assert_allclose(result[0], result[1], rtol=0.02)
    assert (result[0] > 200).all()  # of which localization alone makes 100


# --- as part of a run

LENGTHS: dict[str, Any] = {"burn_in": 7, "draws": 5, "thinning": 2, "batch_size": 32, "step_check_share": 100.0}


def _run(chains: int, sampler: str = "sgld", **options: Any) -> lk.LossTraces:
    torch.manual_seed(0)
    schedule = lk.Schedule(chains=chains, **LENGTHS)
    return lk.sample(
        MultitaskMLP(2), arithmetic(probes_per_task=20), SAMPLERS[sampler], schedule, progress=False, **options
    )


def test_the_step_checks_are_the_last_stride_and_take_no_step() -> None:
    schedule = lk.Schedule(chains=2, **LENGTHS)
    result = strides(schedule)
    assert result[-1] == STEP_CHECKS
    assert STEP_CHECKS not in result[:-1]
    assert sum(stride.steps for stride in result) == schedule.burn_in + schedule.draws * schedule.thinning
    assert sum(stride.record for stride in result) == schedule.draws


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_chain_is_judged_alike_alone_and_among_others(sampler: str) -> None:
    alone, among = _run(1, sampler), _run(4, sampler)
    looped = _run(4, sampler, chains_per_fit=1)
    for name in CHAIN_RECORDS:
        np.testing.assert_array_equal(alone.record(name), among.record(name)[:1], err_msg=name)
        np.testing.assert_array_equal(looped.record(name), among.record(name), err_msg=name)
    assert len(set(among.record("curvature").tolist())) == 4


@pytest.mark.parametrize("convolves", [False, True])
def test_the_curvature_of_a_network_is_that_of_its_hessian(convolves: bool) -> None:
    torch.manual_seed(0)
    layers = nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6, 1)
    model = nn.Sequential(*layers).double() if convolves else MLP(4, 1, (3,)).double()
    inputs, targets = torch.randn(64, 4, dtype=torch.float64), torch.randn(64, dtype=torch.float64)
    held = TensorDataset(inputs, targets)
    data = lk.Data(train=held, probes=held, loss=lk.losses.squared_error)
    still = functools.partial(lk.SGLD, step_size=1e-14, nbeta=10.0, localization=1.0)
    schedule = lk.Schedule(chains=2, burn_in=0, draws=2, thinning=1, batch_size=64, step_check_share=1000.0)
    traces = lk.sample(model, data, still, schedule, progress=False)
    names, weights = zip(*model.named_parameters(), strict=True)
    shapes = [weight.shape for weight in weights]

    def mean_loss(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        state = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return data.loss(torch.func.functional_call(model, state, (inputs,)), targets).mean()

    flat = torch.cat([weight.detach().flatten() for weight in weights])
    hessian = torch.autograd.functional.hessian(mean_loss, flat)
    exact = 10 * torch.linalg.eigvalsh(hessian).max() + 1
    np.testing.assert_allclose(traces.record("curvature"), float(exact), rtol=0.02)


def _stopped(after: int, monkeypatch: pytest.MonkeyPatch, out: Path | None) -> int:
    """Run until Ctrl-C falls behind a number of questions, one a batch and some while judging; return how many."""
    count = itertools.count(1)

    class Stop:
        def __enter__(self) -> Any:
            return lambda: 2 * (next(count) >= after)

        def __exit__(self, *_: Any) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "stop_on_signal", Stop)
        _run(3, out=out)
    return next(count) - 1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("before_the_end", [1, 3])
def test_a_run_stopped_before_its_step_checks_resumes_and_ends_whole(
    sampler: str, before_the_end: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLERS, "sgld", SAMPLERS[sampler])
    out = tmp_path / "traces.zarr"
    total = len(strides(lk.Schedule(chains=3, **LENGTHS)))
    with pytest.raises(Interrupted):
        _stopped(total - before_the_end, monkeypatch, out)
    assert not TraceStore(out).complete
    resumed, whole = _run(3, out=out), _run(3)
    assert TraceStore(out).complete
    for name in whole.dataset.data_vars:
        assert resumed.dataset[name].equals(whole.dataset[name]), name
    assert all(np.isfinite(resumed.record(name)).all() for name in CHAIN_RECORDS)


def test_a_stop_after_the_step_checks_is_an_ordinary_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stopped(_stopped(10**9, monkeypatch, None), monkeypatch, tmp_path / "traces.zarr")
    whole = _run(3)
    for name in CHAIN_RECORDS:
        np.testing.assert_array_equal(lk.open_traces(tmp_path / "traces.zarr").record(name), whole.record(name))


class Signalled(pl.Callback):
    """Counts the evaluations during the step checks of one stack, and sends a signal in one of them."""

    def __init__(self, out: Path | None = None, stack: int = 0, signal_at: int = 0) -> None:
        self.out, self.ahead, self.signal_at = out, stack, signal_at
        self.checking, self.evaluations, self.saved = False, 0, ""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.checking = batch == STEP_CHECKS and self.ahead == 0
        self.ahead -= batch == STEP_CHECKS
        if self.checking and self.out is not None:
            self.saved = (TraceStore(self.out).load_state() or {})["summary"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.checking = False

    def counted(self, evaluate: Any) -> Any:
        def counting(*given: Any, **options: Any) -> Any:
            self.evaluations += self.checking
            if self.checking and self.evaluations == self.signal_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return evaluate(*given, **options)

        return counting


def _signalled(recorder: Signalled, convolves: bool) -> lk.LossTraces:
    """Two stacks of one chain each; probes at bfloat16, which is checked too."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 1, 1)] * convolves + [nn.Flatten(), nn.Linear(16, 3)]
    held = TensorDataset(torch.rand(64, 1, 4, 4), torch.randint(3, (64,)))
    data = lk.Data(held, held, lk.losses.cross_entropy)
    schedule = lk.Schedule(chains=2, probe_precision="bfloat16", probe_batch_size=16, **LENGTHS)
    evaluator = StackedModel.evaluator
    with pytest.MonkeyPatch.context() as patch:
        for name in ("gradient", "hessian_product"):
            whole = getattr(StackedModel, name)
            patch.setattr(StackedModel, name, recorder.counted(whole))
        patch.setattr(StackedModel, "evaluator", lambda *given: recorder.counted(evaluator(*given)))
        sampler, model = SAMPLERS["rmsprop"], nn.Sequential(*layers)
        options: dict[str, Any] = {"chains_per_fit": 1, "progress": False, "callbacks": [recorder]}
        return lk.sample(model, data, sampler, schedule, out=recorder.out, **options)


@pytest.mark.parametrize("convolves", [False, True])
def test_a_signal_during_the_step_checks_ends_the_run_at_once_and_it_resumes_bit_identical(
    convolves: bool, tmp_path: Path
) -> None:
    handlers = [signal.getsignal(item) for item in ALL]
    counted = Signalled()
    whole, total = _signalled(counted, convolves), counted.evaluations
    assert total > 100
    # In gradients, Hessian products, further steps, and probes at either precision; in the first stack or the last.
    for number, at in enumerate((1, total // 6, total // 3, total // 2, total - 1)):
        out, stack = tmp_path / f"{number}.zarr", number % 2
        recorder = Signalled(out, stack, at)
        of_both = 5 + 5 * stack
        with pytest.raises(
            Interrupted, match=rf"^stopped after {of_both} of 10 draws, checking the steps \(SIGTERM\); continue"
        ):
            _signalled(recorder, convolves)
        assert recorder.evaluations == at, "evaluated on, though a signal had come"
        assert recorder.saved == f"chains {stack} to {stack}: 5 draws done"
        assert [signal.getsignal(item) for item in ALL] == handlers
        with pytest.raises(TraceError, match=f"is unfinished .chains {stack} to {stack}: 5 draws done"):
            lk.open_traces(out)
        continued = _signalled(Signalled(out), convolves)
        assert set(continued.dataset.data_vars) == set(whole.dataset.data_vars) > set(CHAIN_RECORDS)
        for name in whole.dataset.data_vars:
            assert continued.dataset[name].equals(whole.dataset[name]), name


def test_a_state_is_saved_before_the_step_checks_unless_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[str] = []
    saved = TraceStore.save_state
    monkeypatch.setattr(
        TraceStore, "save_state", lambda kernel, state: (saves.append(state["summary"]), saved(kernel, state))
    )
    _run(2, out=tmp_path / "whole", state_every=1e9)
    assert saves == ["chains 0 to 1: 5 draws done"]  # with the last draw a chunk was full
    saves.clear()
    monkeypatch.setattr(store, "_CHUNK_BYTES", 2 * 2 * 40 * 4)  # two draws
    _run(2, out=tmp_path / "seldom", state_every=1e9)
    assert saves == [f"chains 0 to 1: {draws} draws done" for draws in (2, 4, 5)]
    saves.clear()
    _run(2, out=tmp_path / "always", state_every=0.0)
    assert saves.count("chains 0 to 1: 5 draws done") == 2  # behind the last draw, and after the step checks


def test_step_checks_do_not_change_the_draws() -> None:
    long = lk.Schedule(chains=2, **LENGTHS | {"draws": 9})
    torch.manual_seed(0)
    model, data = MultitaskMLP(2), arithmetic(probes_per_task=20)
    whole = lk.sample(model, data, SAMPLERS["sgld"], long, progress=False).losses.values
    np.testing.assert_array_equal(_run(2).losses.values, whole[:, :5])
